//! What travels between nodes: calls, answers, refusals, bodies, and the errors each can end in.
//!
//! No type here knows of QUIC, so that the simulated network speaks of the same things.

use std::{net::SocketAddr, pin::Pin, time::Duration};

use bytes::Bytes;
use futures::Stream;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

garage_util::id32! {
    /// A node's identity: its ed25519 public key.
    NodeId
}

/// How urgent a call is: the priority of its stream against the others of the same connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Class {
    /// Layout, membership, ballots that others wait for.
    Control,
    /// Rows.
    Metadata,
    /// Blocks that a client waits for.
    Data,
    /// Repair, scrub, rebalancing.
    Background,
}

impl Class {
    /// Larger goes first.
    pub fn priority(self) -> i32 {
        match self {
            Class::Control => 3,
            Class::Metadata => 2,
            Class::Data => 1,
            Class::Background => 0,
        }
    }
}

/// The layout that the caller acted on, so that a replica with a newer one can say so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct LayoutMark {
    /// The layout version.
    pub version: u64,
    /// Digest of its content.
    #[serde(with = "serde_bytes")]
    pub digest: [u8; 32],
}

/// Bytes that follow a call or an answer, streamed with back-pressure: the sender is polled only as fast as the receiver reads.
///
/// It ends with `None` only when the whole body arrived; whatever cuts it short is an `Err`, after which nothing follows.
pub type BodyStream = Pin<Box<dyn Stream<Item = Result<Bytes, NetError>> + Send>>;

/// A request to another node.
pub struct Call {
    /// Which handler is meant; at most [`KIND_MAX_BYTES`](crate::limits::KIND_MAX_BYTES) long.
    pub kind: &'static str,
    /// Its urgency.
    pub class: Class,
    /// When the caller gives up, the bodies of call and answer included; travels as the time left.
    pub deadline: Instant,
    /// Ties together what one client request causes on all nodes.
    pub trace: u64,
    /// The layout the caller acts on.
    pub layout: LayoutMark,
    /// The encoded message; at most [`PAYLOAD_MAX_BYTES`](crate::limits::PAYLOAD_MAX_BYTES).
    pub payload: Bytes,
    /// What follows it, if anything.
    pub body: Option<BodyStream>,
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Call({}, {:?}, {} bytes, body: {})", self.kind, self.class, self.payload.len(), self.body.is_some())
    }
}

/// What a handler gives back.
pub struct Answer {
    /// The encoded answer; at most [`PAYLOAD_MAX_BYTES`](crate::limits::PAYLOAD_MAX_BYTES).
    pub payload: Bytes,
    /// What follows it, if anything.
    pub body: Option<BodyStream>,
}

impl Answer {
    /// An answer without a body.
    pub fn of(payload: Bytes) -> Answer {
        Answer { payload, body: None }
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Answer({} bytes, body: {})", self.payload.len(), self.body.is_some())
    }
}

/// Who sent a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Caller {
    /// The proven identity.
    pub node: NodeId,
    /// Where it was seen; `None` for calls that did not cross a network.
    pub address: Option<SocketAddr>,
}

/// A request as its handler sees it.
pub struct Incoming {
    /// Who asks.
    pub from: Caller,
    /// Which handler is meant.
    pub kind: String,
    /// Its urgency.
    pub class: Class,
    /// When the caller gives up, by this node's clock.
    pub deadline: Instant,
    /// Ties together what one client request causes on all nodes.
    pub trace: u64,
    /// The layout the caller acts on.
    pub layout: LayoutMark,
    /// The encoded message.
    pub payload: Bytes,
    /// What follows it, if anything.
    pub body: Option<BodyStream>,
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Incoming({} from {:?}, {} bytes, body: {})", self.kind, self.from.node, self.payload.len(), self.body.is_some())
    }
}

/// A handler's no, carried over the wire.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message} ({code})")]
pub struct Refusal {
    /// For machines; see [`refusal_code`] for those this crate gives.
    pub code: String,
    /// For people: what was refused and what helps.
    pub message: String,
    /// For the caller's code, by `code`.
    pub detail: Bytes,
}

impl Refusal {
    /// A refusal without detail.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Refusal {
        Refusal { code: code.into(), message: message.into(), detail: Bytes::new() }
    }
}

/// Codes of the refusals that the transport itself gives.
pub mod refusal_code {
    /// The request's frame cannot be read.
    pub const MALFORMED_FRAME: &str = "malformed_frame";
    /// The request's frame is larger than the limits.
    pub const FRAME_TOO_LARGE: &str = "frame_too_large";
    /// The handler's answer is larger than the limits.
    pub const ANSWER_TOO_LARGE: &str = "answer_too_large";
}

/// What cuts a body short.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NetError {
    /// The deadline of the call passed before the body ended.
    #[error("the body did not end before the deadline of its call")]
    TimedOut,
    /// The stream ended without the end mark.
    #[error("the body ended before its end mark: the sender stopped half way")]
    Truncated,
    /// The connection or the stream broke.
    #[error("the connection broke during the body: {0}")]
    Broken(String),
    /// What produces the body failed, at the sender; its own words.
    #[error("the sender could not go on with the body: {0}")]
    Failed(String),
}

/// Why a call gave no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CallError {
    /// There is no connection to that node now.
    #[error("no connection to node {}", .0.short())]
    NotConnected(NodeId),
    /// The deadline passed; the remote side may or may not have done the work.
    #[error("no answer before the deadline")]
    TimedOut,
    /// The connection or the stream broke; the remote side may or may not have done the work.
    #[error("the connection broke during the call: {0}")]
    Broken(String),
    /// The remote handler said no.
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
    /// The message is larger than a frame may be; nothing was sent.
    #[error("the message has {len_bytes} bytes, a frame takes {max_bytes}; send the rest as a body")]
    TooLarge {
        /// What was to be sent.
        len_bytes: usize,
        /// What may be sent.
        max_bytes: usize,
    },
}

/// Why no connection was made.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody answered there in time.
    #[error("{address} does not answer; check that the node runs and that UDP reaches it")]
    Unreachable {
        /// Where it was tried.
        address: SocketAddr,
    },
    /// The peer is reached but refuses, or does not prove that it belongs to the cluster.
    #[error("{address} refused the connection: {reason}")]
    Refused {
        /// Who refused.
        address: SocketAddr,
        /// Its sentence, or ours on what its proof lacked.
        reason: String,
    },
    /// Another node lives at that address.
    #[error("{address} is node {}, not {}; correct the id or the address", found.short(), expected.short())]
    OtherNode {
        /// Where it was tried.
        address: SocketAddr,
        /// Who was to be there.
        expected: NodeId,
        /// Who is there.
        found: NodeId,
    },
    /// The address leads back to this node.
    #[error("{address} is this node itself")]
    Myself {
        /// Where it was tried.
        address: SocketAddr,
    },
    /// No packet can be sent there from here.
    #[error("cannot send to {address}: {reason}")]
    Local {
        /// Where it was tried.
        address: SocketAddr,
        /// What this system said.
        reason: String,
    },
    /// This node is stopping.
    #[error("this node is stopping")]
    Stopping,
}

/// A connection that is up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectionInfo {
    /// Who is at the other end.
    pub node: NodeId,
    /// Where.
    pub address: SocketAddr,
    /// Measured round-trip time; `None` before the first measurement.
    pub rtt: Option<Duration>,
    /// Whether this side dialled.
    pub dialled_by_us: bool,
}

/// A change in who can be reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConnectionEvent {
    /// A node can be called.
    Up {
        /// Which.
        node: NodeId,
        /// Where it is.
        address: SocketAddr,
    },
    /// A node can no longer be called.
    Down {
        /// Which.
        node: NodeId,
        /// Why, in words for a person.
        reason: String,
    },
    /// A connection was refused, by this side or the other.
    Refused {
        /// Where the peer is.
        address: SocketAddr,
        /// Who it is, if it came to that.
        node: Option<NodeId>,
        /// Why, in words for a person.
        reason: String,
    },
}
