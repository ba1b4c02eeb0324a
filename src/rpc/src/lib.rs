//! How nodes find, know and call each other: membership by gossip, the layout, quorum calls, peer choice and hedging.
//!
//! Reading order: `message` (typed calls and their handlers), `cluster` (the handle that upper crates hold), `quorum` (sending to
//! many), `membership` (who is there), `layout` (who holds what, pure), `layout_manager` (keeping and applying the layout),
//! `register` (the ballot core), `clock` (stamps), `peers` (what is known of each peer), `state` (control files), `limits`.

pub mod clock;
pub mod cluster;
pub mod layout;
pub mod layout_manager;
pub mod limits;
pub mod membership;
pub mod message;
pub mod peers;
pub mod quorum;
pub mod register;
mod service;
pub mod state;
pub mod status;
#[doc(hidden)]
pub mod testing;

pub use cluster::{CallOptions, Cluster, ClusterOptions, LayoutNotReady, Placement, PreparedCluster, StoreMark};
pub use message::{Access, CallContext, Encoded, Message, Router, RouterBuilder};
