//! Connections that this node opens.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

use quinn::{ClientConfig, Connection, Endpoint, crypto::rustls::QuicClientConfig};
use tokio::time::timeout;

use super::{
    Shared,
    handshake::{self, Rejected},
    reasons, socket, tuning,
};
use crate::{
    limits::DIAL_TIME_MAX,
    tls::{self, Found, SERVER_NAME},
    types::{ConnectError, NodeId},
};

/// See [`Transport::connect`](crate::Transport::connect).
pub async fn connect(shared: Arc<Shared>, address: SocketAddr, expected: Option<NodeId>) -> Result<NodeId, ConnectError> {
    if expected == Some(shared.node) {
        return Err(ConnectError::Myself { address });
    }
    if let Some(node) = connected(&shared, address, expected) {
        return Ok(node);
    }
    // Dropping a dial that takes too long closes what there is of its connection.
    let dialled = timeout(DIAL_TIME_MAX, dial(&shared, address, expected)).await;
    let result = dialled.unwrap_or(Err(ConnectError::Unreachable { address }));
    match &result {
        Err(ConnectError::Refused { reason, .. }) => shared.tell_refused(address, expected, reason.clone()),
        Err(error @ ConnectError::OtherNode { found, .. }) => shared.tell_refused(address, Some(*found), error.to_string()),
        _ => {}
    }
    result
}

/// Who is connected already: the node that is expected, or else whoever is at `address`.
fn connected(shared: &Shared, address: SocketAddr, expected: Option<NodeId>) -> Option<NodeId> {
    let links = shared.links.lock();
    match expected {
        Some(node) => links.contains_key(&node).then_some(node),
        None => links.values().find(|link| link.address() == address).map(|link| link.node),
    }
}

async fn dial(shared: &Arc<Shared>, address: SocketAddr, expected: Option<NodeId>) -> Result<NodeId, ConnectError> {
    let dial_number = shared.dial_count.fetch_add(1, Ordering::Relaxed);
    let (config, found) = client_config(shared, address, expected)?;
    let endpoint = endpoint_for(shared, address)?;
    let connecting = endpoint.connect_with(config, address, SERVER_NAME).map_err(|error| local(address, error))?;
    let connection =
        connecting.await.map_err(|error| not_expected(address, expected, &found).unwrap_or(reasons::connect_error(address, &error)))?;
    match handshake::as_dialler(shared.us(), &connection, dial_number).await {
        Ok(proven) => {
            let node = proven.node;
            shared.register(proven, connection.clone()).map_err(|closing| close(address, &connection, closing))?;
            Ok(node)
        }
        Err(Rejected::ByUs(_, closing)) => Err(close(address, &connection, closing)),
        Err(Rejected::ByPeer(_, reason)) => {
            close(address, &connection, &reasons::BAD_HELLO);
            Err(ConnectError::Refused { address, reason })
        }
    }
}

fn close(address: SocketAddr, connection: &Connection, closing: &reasons::Closing) -> ConnectError {
    connection.close(closing.code, closing.reason.as_bytes());
    match closing.code == reasons::MYSELF.code {
        true => ConnectError::Myself { address },
        false => ConnectError::Refused { address, reason: closing.reason.into() },
    }
}

/// TLS ended because another node is there than was expected.
fn not_expected(address: SocketAddr, expected: Option<NodeId>, found: &Found) -> Option<ConnectError> {
    let (expected, found) = (expected?, *found.get()?);
    (expected != found).then_some(ConnectError::OtherNode { address, expected, found })
}

fn local(address: SocketAddr, error: impl std::fmt::Display) -> ConnectError {
    ConnectError::Local { address, reason: error.to_string() }
}

fn client_config(shared: &Shared, address: SocketAddr, expected: Option<NodeId>) -> Result<(ClientConfig, Found), ConnectError> {
    let (crypto, found) = tls::client_config(&shared.key, expected).map_err(|error| local(address, error))?;
    let crypto = QuicClientConfig::try_from(crypto).map_err(|error| local(address, error))?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(shared.transport_config.clone());
    Ok((config, found))
}

/// The listening socket if it reaches `address`, so that peers see the address they can dial; else one that is opened for the purpose.
fn endpoint_for(shared: &Shared, address: SocketAddr) -> Result<Endpoint, ConnectError> {
    let mut endpoints = shared.endpoints.lock();
    if endpoints.closed {
        return Err(ConnectError::Stopping);
    }
    let listening = endpoints.listening.iter().filter_map(|endpoint| Some((endpoint, endpoint.local_addr().ok()?, shared.bind_outgoing)));
    let dialling = endpoints.dialling.iter().filter_map(|endpoint| Some((endpoint, endpoint.local_addr().ok()?, true)));
    let suitable = listening.chain(dialling).find(|(_, bound, tied)| socket::reaches(*bound, *tied, address));
    if let Some((endpoint, ..)) = suitable {
        return Ok(endpoint.clone());
    }
    let config = tuning::endpoint_config(&shared.key, &shared.runtime);
    let endpoint = socket::open(socket::any_for(address), config, None).map_err(|error| local(address, error))?;
    endpoints.dialling.push(endpoint.clone());
    Ok(endpoint)
}
