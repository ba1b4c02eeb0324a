//! Decides what is to be done about a block of the queue, and when it is tried again. Pure.
//!
//! Invariants:
//! - a block with a live reference is never deleted by a node that holds it by the layout;
//! - a block is deleted only after nothing has needed it for [`DELETION_DELAY`], or after every node that holds it by the layout has it;
//! - the wait between tries doubles, up to a limit, and never ends the tries.

use std::time::Duration;

use crate::limits::{DELETION_DELAY, RESYNC_BACKOFF_MAX, RESYNC_BACKOFF_MIN};

/// What is known of a block on this node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts {
    /// A file is here.
    pub is_here: bool,
    /// A live reference is here.
    pub is_needed: bool,
    /// This node holds the block by some live layout version.
    pub is_mine: bool,
    /// Since when nothing needs it, by the queue; 0: not known.
    pub unneeded_since_ms: u64,
    /// Now.
    pub now_ms: u64,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plan {
    /// All is as it should be.
    Nothing,
    /// The copy is missing here: get one.
    Fetch,
    /// It belongs to others: see that they have it, then let it go.
    HandOver,
    /// Nothing needs it: look again at `due_ms`.
    KeepUntil {
        /// Since when nothing needs it.
        since_ms: u64,
        /// When it may go.
        due_ms: u64,
    },
    /// Nothing has needed it for long enough.
    Delete,
}

/// What is to be done about a block.
pub fn plan(facts: Facts) -> Plan {
    match (facts.is_mine, facts.is_needed, facts.is_here) {
        (true, true, false) => Plan::Fetch,
        (true, true, true) | (_, _, false) => Plan::Nothing,
        (true, false, true) => keep_or_delete(facts),
        (false, _, true) => Plan::HandOver,
    }
}

fn keep_or_delete(facts: Facts) -> Plan {
    // A clock that was set back must not make a block wait for ever: a moment that is still to come counts as now.
    let since_ms = if facts.unneeded_since_ms == 0 { facts.now_ms } else { facts.unneeded_since_ms.min(facts.now_ms) };
    let due_ms = since_ms.saturating_add(DELETION_DELAY.as_millis() as u64);
    if due_ms <= facts.now_ms { Plan::Delete } else { Plan::KeepUntil { since_ms, due_ms } }
}

/// How long to wait after the n-th failure in a row, n from 1.
pub fn backoff(failed_count: u32) -> Duration {
    let doublings = failed_count.saturating_sub(1).min(16);
    RESYNC_BACKOFF_MIN.saturating_mul(1 << doublings).min(RESYNC_BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Facts, Plan, backoff, plan};
    use crate::limits::{DELETION_DELAY, RESYNC_BACKOFF_MAX, RESYNC_BACKOFF_MIN};

    const FACTS: Facts = Facts { is_here: true, is_needed: true, is_mine: true, unneeded_since_ms: 0, now_ms: 1_000_000 };
    const DELAY_MS: u64 = DELETION_DELAY.as_millis() as u64;

    #[test]
    fn each_state_of_a_block_has_its_plan() {
        let unneeded = Facts { is_needed: false, ..FACTS };
        for (facts, expected) in [
            (FACTS, Plan::Nothing),
            (Facts { is_here: false, ..FACTS }, Plan::Fetch),
            (Facts { is_mine: false, ..FACTS }, Plan::HandOver),
            (Facts { is_mine: false, ..unneeded }, Plan::HandOver),
            (Facts { is_mine: false, is_here: false, ..FACTS }, Plan::Nothing),
            (Facts { is_here: false, ..unneeded }, Plan::Nothing),
            (unneeded, Plan::KeepUntil { since_ms: 1_000_000, due_ms: 1_000_000 + DELAY_MS }),
            (Facts { unneeded_since_ms: 999_999, ..unneeded }, Plan::KeepUntil { since_ms: 999_999, due_ms: 999_999 + DELAY_MS }),
            (Facts { unneeded_since_ms: 1_000_000 - DELAY_MS, ..unneeded }, Plan::Delete),
            (Facts { unneeded_since_ms: u64::MAX, ..unneeded }, Plan::KeepUntil { since_ms: 1_000_000, due_ms: 1_000_000 + DELAY_MS }),
        ] {
            assert_eq!(plan(facts), expected, "{facts:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_needed_is_never_deleted(is_here: bool, is_mine: bool, unneeded_since_ms: u64, now_ms: u64) {
            prop_assert_ne!(plan(Facts { is_here, is_needed: true, is_mine, unneeded_since_ms, now_ms }), Plan::Delete);
        }
    }

    #[test]
    fn tries_are_spaced_wider_and_wider() {
        assert_eq!(backoff(1), RESYNC_BACKOFF_MIN);
        assert_eq!(backoff(2), RESYNC_BACKOFF_MIN * 2);
        assert_eq!(backoff(7), RESYNC_BACKOFF_MAX);
        assert_eq!(backoff(u32::MAX), RESYNC_BACKOFF_MAX);
    }
}
