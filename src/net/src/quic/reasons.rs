//! Why connections and streams end: codes on the wire, and sentences for people.

use std::net::SocketAddr;

use quinn::{ConnectionError, ReadError, VarInt, WriteError};

use crate::types::{CallError, ConnectError, NetError};

/// Code and sentence with which this side closes a connection.
pub struct Closing {
    /// On the wire.
    pub code: VarInt,
    /// On the wire too, and shown at the other side.
    pub reason: &'static str,
}

/// The node stops.
pub const STOPPING: Closing = Closing { code: VarInt::from_u32(0x10), reason: "the node is stopping" };
/// The peer did not prove the cluster secret.
pub const WRONG_SECRET: Closing =
    Closing { code: VarInt::from_u32(0x11), reason: "the cluster secrets differ; set the same rpc_secret on all nodes of the cluster" };
/// The first stream does not say what it has to.
pub const BAD_HELLO: Closing = Closing { code: VarInt::from_u32(0x12), reason: "the peer does not follow the handshake of garage/1" };
/// Another connection of the pair stays.
pub const RETIRED: Closing = Closing { code: VarInt::from_u32(0x13), reason: "another connection between the same nodes stays" };
/// A node reached itself.
pub const MYSELF: Closing = Closing { code: VarInt::from_u32(0x14), reason: "this is the node itself" };
/// [`CONNECTIONS_MAX`](crate::limits::CONNECTIONS_MAX) is reached.
pub const FULL: Closing = Closing { code: VarInt::from_u32(0x15), reason: "the node has as many connections as it takes" };
/// The handshake took too long.
pub const TOO_SLOW: Closing = Closing { code: VarInt::from_u32(0x16), reason: "the handshake took too long" };

/// Stream code: whoever asked has no more use for it, or whoever answered gave up.
pub const CANCELLED: VarInt = VarInt::from_u32(0x20);
/// Stream code: the deadline passed.
pub const DEADLINE: VarInt = VarInt::from_u32(0x21);
/// Stream code: the node stops.
pub const STREAM_STOPPING: VarInt = VarInt::from_u32(0x22);

/// TLS alert `no_application_protocol` as a QUIC transport error.
const NO_COMMON_PROTOCOL: u64 = 0x100 + 120;
/// QUIC transport error CONNECTION_REFUSED.
const CONNECTION_REFUSED: u64 = 0x02;

/// A sentence on why a connection ended.
pub fn connection_reason(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ApplicationClosed(close) => String::from_utf8_lossy(&close.reason).into_owned(),
        ConnectionError::TimedOut => "nothing was heard of the peer for too long".into(),
        ConnectionError::Reset => "the peer restarted".into(),
        ConnectionError::LocallyClosed => "closed by this node".into(),
        ConnectionError::ConnectionClosed(close) => transport_reason(u64::from(close.error_code), &close.reason),
        ConnectionError::TransportError(error) => transport_reason(u64::from(error.code), error.reason.as_bytes()),
        other => other.to_string(),
    }
}

fn transport_reason(code: u64, reason: &[u8]) -> String {
    match code {
        NO_COMMON_PROTOCOL => "no common protocol version; upgrade the older node".into(),
        CONNECTION_REFUSED => "the peer takes no more connections now".into(),
        _ => format!("{} (transport error {code:#x})", String::from_utf8_lossy(reason)),
    }
}

/// What a failed dial to `address` means.
pub fn connect_error(address: SocketAddr, error: &ConnectionError) -> ConnectError {
    match error {
        ConnectionError::TimedOut => ConnectError::Unreachable { address },
        error => ConnectError::Refused { address, reason: connection_reason(error) },
    }
}

/// What a broken connection means to a call.
pub fn call_broken(error: &ConnectionError) -> CallError {
    CallError::Broken(connection_reason(error))
}

/// What a failed read means to a call.
pub fn call_read(error: &ReadError) -> CallError {
    match body_read(error) {
        NetError::TimedOut => CallError::TimedOut,
        NetError::Broken(reason) => CallError::Broken(reason),
        other => CallError::Broken(other.to_string()),
    }
}

/// What a failed read means to a body.
pub fn body_read(error: &ReadError) -> NetError {
    match error {
        ReadError::Reset(DEADLINE) => NetError::TimedOut,
        ReadError::Reset(STREAM_STOPPING) => NetError::Broken(STOPPING.reason.into()),
        ReadError::Reset(_) => NetError::Broken("the other side gave up".into()),
        ReadError::ConnectionLost(error) => NetError::Broken(connection_reason(error)),
        other => NetError::Broken(other.to_string()),
    }
}

/// What a failed write means to a call; `None`: the other side reads no more, and its answer says why.
pub fn call_write(error: &WriteError) -> Option<CallError> {
    match error {
        WriteError::Stopped(_) => None,
        WriteError::ConnectionLost(error) => Some(call_broken(error)),
        other => Some(CallError::Broken(other.to_string())),
    }
}
