//! How nodes talk: an encrypted QUIC mesh of authenticated peers, with requests, answers and streamed bodies.
//!
//! Reading order: `types` and `transport` (what the code above sees), `limits`, `identity` (the node's key), `tls` and `proof` (who may
//! connect), `frame` and `packing` (what stands on a stream), `ranking` (which of two connections survives), `backoff`, and `quic` (the shell around it all).
//! What a message means, whom to call and how often is not decided here: see `garage_rpc`.

pub mod backoff;
pub mod frame;
pub mod identity;
pub mod limits;
pub mod packing;
pub mod proof;
pub mod quic;
pub mod ranking;
pub mod tls;
pub mod transport;
pub mod types;

pub use identity::{IdentityError, NodeKey};
pub use quic::{BindError, QuicOptions, QuicTransport};
pub use transport::{Service, Transport};
pub use types::{
    Answer, BodyStream, Call, CallError, Caller, Class, ConnectError, ConnectionEvent, ConnectionInfo, Incoming, LayoutMark, NetError,
    NodeId, Refusal,
};
