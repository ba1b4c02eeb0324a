//! Connections that others open: bounded while they have proven nothing.

use std::sync::Arc;

use quinn::{Connection, Endpoint, Incoming, ServerConfig, TransportConfig, crypto::rustls::QuicServerConfig};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

use super::{
    BindError, Shared,
    handshake::{self, Rejected},
    link::plain,
    reasons,
};
use crate::{
    identity::NodeKey,
    limits::{HALF_OPEN_MAX, HALF_OPEN_VALIDATE, HANDSHAKE_TIME_MAX},
    tls,
};

/// How this node listens.
pub fn server_config(key: &NodeKey, transport: Arc<TransportConfig>) -> Result<ServerConfig, BindError> {
    let crypto = QuicServerConfig::try_from(tls::server_config(key)?).map_err(|_| BindError::Cipher)?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(transport);
    Ok(config)
}

/// Takes connections until the endpoint closes.
pub async fn accept(shared: Arc<Shared>, endpoint: Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        let half_open_count = HALF_OPEN_MAX - shared.half_open.available_permits();
        if HALF_OPEN_VALIDATE <= half_open_count && !incoming.remote_address_validated() && incoming.may_retry() {
            // Many at once may be forged sources: whoever is real shows that it receives there, at the price of a round trip.
            let _ = incoming.retry();
            continue;
        }
        match shared.half_open.clone().try_acquire_owned() {
            Ok(place) if !shared.closing.is_cancelled() => {
                shared.runtime.spawn("welcome a connection", welcome(shared.clone(), incoming, place));
            }
            _ => incoming.refuse(),
        }
    }
}

async fn welcome(shared: Arc<Shared>, incoming: Incoming, place: OwnedSemaphorePermit) {
    let address = plain(incoming.remote_address());
    // A handshake that ends or stalls in TLS is anybody's: no event, or a stranger could fill the log.
    let handshake = async { incoming.accept()?.await };
    let connection = match timeout(HANDSHAKE_TIME_MAX, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return tracing::debug!(%address, %error, "a handshake failed"),
        Err(_) => return tracing::debug!(%address, "a handshake took too long"),
    };
    let proven = timeout(HANDSHAKE_TIME_MAX, handshake::as_listener(shared.us(), &connection)).await;
    drop(place);
    match proven {
        Ok(Ok(proven)) => {
            let node = proven.node;
            if let Err(closing) = shared.register(proven, connection.clone()) {
                reject(&shared, &connection, node, closing);
            }
        }
        Ok(Err(Rejected::ByUs(node, closing))) => reject(&shared, &connection, node, closing),
        Ok(Err(Rejected::ByPeer(node, reason))) => {
            connection.close(reasons::BAD_HELLO.code, reasons::BAD_HELLO.reason.as_bytes());
            tracing::debug!(%address, node = node.map(|node| node.short()), reason, "a peer left before it proved anything");
        }
        Err(_) => connection.close(reasons::TOO_SLOW.code, reasons::TOO_SLOW.reason.as_bytes()),
    }
}

fn reject(shared: &Shared, connection: &Connection, node: crate::NodeId, closing: &reasons::Closing) {
    connection.close(closing.code, closing.reason.as_bytes());
    if closing.code != reasons::MYSELF.code {
        shared.tell_refused(plain(connection.remote_address()), Some(node), closing.reason.into());
    }
}
