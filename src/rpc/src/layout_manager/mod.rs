//! Keeps the layout: on disk, equal on all nodes, and changed by one operator at a time.
//!
//! `keeper` holds the history and makes each change durable before it shows; `sync` equalises histories with peers whose digest
//! differs; `ballot` is the replica side of the agreement on version N+1, `apply` its coordinator side.
//! The rules of the history itself are in `layout`, those of the agreement in `register`.

mod apply;
mod ballot;
mod keeper;
mod sync;

pub use apply::{Applied, ApplyError};
pub use ballot::{LayoutBallot, LayoutBallotAnswer};
pub(crate) use keeper::LayoutKeeper;
pub use keeper::UpdateError;
pub use sync::{LayoutSync, LayoutSyncAnswer, MergeError};
pub(crate) use sync::{merge_stored, register_handlers, start};
