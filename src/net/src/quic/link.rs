//! One proven connection to a peer, from registration to its end.

use std::{net::SocketAddr, sync::Arc};

use tokio::time::sleep;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Shared, calling::CallPermit, reasons, serving};
use crate::{
    limits::{RETIRED_TIME_MAX, STREAMS_PER_PEER_MAX},
    ranking::Mark,
    types::{Caller, NodeId},
};

/// A connection whose peer has proven itself.
pub struct Link {
    /// The peer.
    pub node: NodeId,
    /// What ranks it against others of the pair.
    pub mark: Mark,
    /// QUIC's side of it.
    pub connection: quinn::Connection,
    /// Calls of this node that are under way on it.
    calls: TaskTracker,
    /// The peer will start no more calls on it.
    peer_drained: CancellationToken,
}

impl Link {
    /// A link to `node`; the peer may now open as many streams as limits allow.
    pub fn new(node: NodeId, mark: Mark, connection: quinn::Connection) -> Arc<Link> {
        connection.set_max_concurrent_bi_streams(STREAMS_PER_PEER_MAX.into());
        connection.set_max_concurrent_uni_streams(1u8.into());
        Arc::new(Link { node, mark, connection, calls: TaskTracker::new(), peer_drained: CancellationToken::new() })
    }

    /// Where the peer is now, in its plain form.
    pub fn address(&self) -> SocketAddr {
        plain(self.connection.remote_address())
    }

    /// Who calls over this link.
    pub fn caller(&self) -> Caller {
        Caller { node: self.node, address: Some(self.address()) }
    }

    /// Marks a call under way; taken under the table's lock, so that none begins on a link that was just retired.
    pub fn begin_call(self: &Arc<Link>) -> CallPermit {
        CallPermit { link: self.clone(), _token: self.calls.token() }
    }

    /// Closes with a code and a sentence for the other side.
    pub fn close(&self, closing: &reasons::Closing) {
        self.connection.close(closing.code, closing.reason.as_bytes());
    }
}

/// An IPv4 address as such, also when it was seen through an IPv6 socket.
pub fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Takes what the peer sends until the connection ends.
pub async fn run(shared: Arc<Shared>, link: Arc<Link>) {
    let error = loop {
        // All of these keep what they wait for in the connection: dropping the losers loses nothing.
        tokio::select! {
            biased;
            stream = link.connection.accept_bi() => match stream {
                Ok((send, receive)) => serving::spawn(&shared, &link, send, receive),
                Err(error) => break error,
            },
            datagram = link.connection.read_datagram() => match datagram {
                Ok(data) => shared.service.datagram(link.node, data),
                Err(error) => break error,
            },
            stream = link.connection.accept_uni() => match stream {
                Ok(_) => link.peer_drained.cancel(),
                Err(error) => break error,
            },
        }
    };
    shared.forget(&link, reasons::connection_reason(&error));
}

/// Lets the calls on a link that lost end, tells the peer, and closes once both sides are done.
pub async fn retire(link: Arc<Link>) {
    link.calls.close();
    let drained = async {
        link.calls.wait().await;
        // An empty stream says: no more calls from here. If it cannot be opened, the connection is gone already.
        if let Ok(mut mark) = link.connection.open_uni().await {
            let _ = mark.finish();
        }
        link.peer_drained.cancelled().await;
    };
    // Closing early, when the time is up, breaks calls; but a peer that never drains must not keep a connection for ever.
    tokio::select! {
        biased;
        _ = link.connection.closed() => {}
        () = drained => link.close(&reasons::RETIRED),
        () = sleep(RETIRED_TIME_MAX) => link.close(&reasons::RETIRED),
    }
}
