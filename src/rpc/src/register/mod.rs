//! The replicated register: one key, one row, linearizable with compare-and-set, over replicas that crash and messages that are
//! lost, repeated and late. Pure: no clock, no I/O, no randomness; the shell carries messages, hands in ticks and stores rows.
//!
//! Reading order: `replica` (what a replica refuses), `sets` (which replicas are a quorum), `evidence` (what a set of answers proves),
//! `coordinator` (what to ask, and when an answer is owed to the client), `slots` (older versions of a key). The rules and why they suffice:
//! `doc/adr/0001-linearizable-register.md`; `tests/register_model.rs` hammers exactly this code.
//!
//! Invariants the shell keeps:
//! - the content of a row is a function of its [`WriteId`]: whoever writes a row back under another stamp leaves the content alone;
//! - a replica changes row and [`RegisterSide`] in one durable transaction, before it answers;
//! - every change of a register's row goes through [`RegisterSide::apply`], anti-entropy included.

mod coordinator;
mod evidence;
mod message;
mod replica;
mod sets;
pub mod slots;

use garage_util::hlc::Stamp;
use garage_util::id32;
use serde::{Deserialize, Serialize};

#[doc(hidden)]
pub use coordinator::Weakness;
pub use coordinator::{Coordinator, ROUNDS_IN_DOUBT_MAX, ROUNDS_MAX};
pub use evidence::{Fate, Trace, fate};
pub use message::{Answer, Content, Message, Outcome, OwnWrite, Phase, Step};
pub use replica::{ApplyAnswer, PrepareAnswer, RegisterSide, TRAIL_MAX};
pub use sets::{QuorumSet, QuorumSets};

id32!(
    /// One write as its client means it (an object version's id): kept over every retry and restamp, never used for another content.
    WriteId
);

/// What a register holds, apart from the content: which write, and the stamp it was accepted under.
///
/// Ordered by stamp. Stamps are unique per attempt, so two entries of one stamp are equal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Orders the entries of a key; only a greater one replaces what is held.
    pub stamp: Stamp,
    /// The write whose content this is.
    pub id: WriteId,
}

/// The stamp of a row; a missing row has the stamp below all others.
pub fn stamp_of(row: Option<Entry>) -> Stamp {
    row.map_or(Stamp::ZERO, |entry| entry.stamp)
}
