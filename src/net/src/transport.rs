//! The seam between nodes: what a network gives to the code above, and what it asks of it.
//!
//! [`QuicTransport`](crate::QuicTransport) is the real one; the simulation has its own.

use std::net::SocketAddr;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::broadcast;

use crate::types::{Answer, Call, CallError, ConnectError, ConnectionEvent, ConnectionInfo, Incoming, NodeId, Refusal};

/// What a node does with what others send it. Handed to the transport at construction.
pub trait Service: Send + Sync {
    /// Works on a request. The future is dropped when the caller gives up, its connection breaks or the deadline passes.
    fn serve(&self, incoming: Incoming) -> BoxFuture<'static, Result<Answer, Refusal>>;
    /// Takes a datagram; must not block.
    fn datagram(&self, from: NodeId, data: Bytes);
}

/// A way to reach other nodes.
pub trait Transport: Send + Sync {
    /// Who this node is.
    fn local_node(&self) -> NodeId;
    /// Asks a connected node. Dropping the future, or the body of the answer, tells the remote side to stop working on it.
    ///
    /// An answer that comes before the call's body is through ends the sending of that body: a handler reads all it needs before it answers.
    fn call(&self, to: NodeId, call: Call) -> BoxFuture<'static, Result<Answer, CallError>>;
    /// Sends without any promise of arrival; more than [`DATAGRAM_MAX_BYTES`](crate::limits::DATAGRAM_MAX_BYTES) is dropped.
    fn datagram(&self, to: NodeId, data: Bytes);
    /// Dials; gives the node that is there. At once if `expected` is connected already, wherever it is.
    fn connect(&self, address: SocketAddr, expected: Option<NodeId>) -> BoxFuture<'static, Result<NodeId, ConnectError>>;
    /// The connections that are up, sorted by node.
    fn connections(&self) -> Vec<ConnectionInfo>;
    /// Changes from now on. A receiver that lags behind loses the oldest: look at `connections` then.
    fn events(&self) -> broadcast::Receiver<ConnectionEvent>;
}
