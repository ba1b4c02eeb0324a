//! Calls to several nodes at once: when enough of them answered, and whom to ask next.
//!
//! `tracker` counts answers against one or several quorum sets (pure); `hedge` decides whom a read asks when (pure); `call` is the
//! shell around both: sends, timers, and the bounded background in which the last copies of a write end.

mod call;
mod hedge;
mod tracker;

pub use call::{QuorumCalls, Step};
pub use hedge::{HedgedRead, Next};
pub use tracker::{QuorumError, QuorumWrite, Verdict};

pub use crate::register::{QuorumSet, QuorumSets};
