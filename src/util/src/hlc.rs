//! Hybrid logical time: stamps that order writes, close to wall time, never the same twice, never backwards on one node.
//!
//! Invariants:
//! - two ticks of one clock differ, and the later is the greater, also over a restart (the durable ceiling sees to it);
//! - a tick above a stamp is greater than that stamp whatever the wall clock says.
//!
//! Not here: where the ceiling is kept, and who reads the wall clock (the caller passes both).

use serde::{Deserialize, Serialize};

/// How far past the wall clock the durable ceiling is laid each time it is renewed, in milliseconds.
pub const CEILING_LEAD_MS: u64 = 10_000;
/// How far ahead of the wall clock a stamp may be for a fresh reading to be handed out at all, in milliseconds.
pub const SKEW_MAX_MS: u64 = 60_000;

/// A moment in hybrid time: 48 bits of milliseconds, 16 of counter, the node, and the step bit of the register rules.
///
/// Compared in that order. Ballots have step false; a version installed under a ballot has that ballot with step true.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Stamp {
    /// Milliseconds since 1970 in the upper 48 bits, counter in the lower 16.
    time: u64,
    /// The first 8 bytes of the node id, xor those of its store id.
    node: u64,
    /// True for what was installed under the ballot of the same time and node.
    step: bool,
}

impl Stamp {
    /// Smaller than every stamp a clock hands out; the stamp of a row that was never written.
    pub const ZERO: Stamp = Stamp { time: 0, node: 0, step: false };

    /// A stamp from its parts; `time` as in [`Stamp::time`].
    pub fn from_parts(time: u64, node: u64, step: bool) -> Stamp {
        Stamp { time, node, step }
    }
    /// Milliseconds in the upper 48 bits, counter in the lower 16.
    pub fn time(self) -> u64 {
        self.time
    }
    /// The writer's mark.
    pub fn node(self) -> u64 {
        self.node
    }
    /// Whether the step bit is set.
    pub fn step(self) -> bool {
        self.step
    }
    /// Milliseconds since 1970.
    pub fn millis(self) -> u64 {
        self.time >> 16
    }
    /// The stamp of the version that is installed under this ballot.
    pub fn stepped(self) -> Stamp {
        Stamp { step: true, ..self }
    }
    /// 17 bytes whose order is the stamps' order.
    pub fn to_sortable(self) -> [u8; 17] {
        let mut bytes = [0; 17];
        bytes[..8].copy_from_slice(&self.time.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.node.to_be_bytes());
        bytes[16] = u8::from(self.step);
        bytes
    }
}

impl std::fmt::Debug for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{:04x}{}", self.time >> 16, self.time & 0xffff, self.node & 0xffff, if self.step { "'" } else { "" })
    }
}

/// The wall clock is further behind the stamps of others than [`SKEW_MAX_MS`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this node's clock is {behind_ms} ms away from the hybrid time already handed out here; check its time synchronisation")]
pub struct SkewError {
    /// Distance in milliseconds.
    pub behind_ms: u64,
}

/// One node's hybrid clock. Pure: wall time comes in with each call.
#[derive(Debug, Clone)]
pub struct HybridClock {
    node: u64,
    last_time: u64,
    ceiling_ms: u64,
}

impl HybridClock {
    /// A clock for a writer's mark, resumed from the durable ceiling in milliseconds (0 for a new store).
    pub fn resume(node: u64, ceiling_ms: u64) -> HybridClock {
        HybridClock { node, last_time: ceiling_ms << 16, ceiling_ms }
    }

    /// A fresh stamp, greater than every earlier one of this clock and than `above`.
    ///
    /// A stamp above `above` is always given: refusing would lose a write that others already outran.
    pub fn tick(&mut self, now_ms: u64, above: Stamp) -> Stamp {
        let time = (now_ms << 16).max(self.last_time + 1).max(above.time + 1);
        self.last_time = time;
        Stamp { time, node: self.node, step: false }
    }

    /// Refuses when the clock's own readings have drifted further than [`SKEW_MAX_MS`] from wall time.
    pub fn check_skew(&self, now_ms: u64) -> Result<(), SkewError> {
        let behind_ms = (self.last_time >> 16).saturating_sub(now_ms);
        if behind_ms > SKEW_MAX_MS + CEILING_LEAD_MS { Err(SkewError { behind_ms }) } else { Ok(()) }
    }

    /// The ceiling to make durable before the stamps handed out now may be used, if the present one no longer covers them.
    pub fn ceiling_to_store(&self, now_ms: u64) -> Option<u64> {
        let reached_ms = (self.last_time >> 16).max(now_ms);
        (reached_ms + CEILING_LEAD_MS / 2 > self.ceiling_ms).then_some(reached_ms + CEILING_LEAD_MS)
    }

    /// Notes that a ceiling is durable.
    pub fn ceiling_stored(&mut self, ceiling_ms: u64) {
        self.ceiling_ms = self.ceiling_ms.max(ceiling_ms);
    }

    /// Whether a stamp is covered by the durable ceiling, so that a restart can't hand it out again.
    pub fn is_covered(&self, stamp: Stamp) -> bool {
        stamp.millis() < self.ceiling_ms
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{HybridClock, Stamp};

    proptest! {
        #[test]
        fn ticks_rise_whatever_the_wall_clock_and_the_others_do(steps in prop::collection::vec((0u64..1 << 40, 0u64..1 << 56), 1..50)) {
            let mut clock = HybridClock::resume(7, 0);
            let mut last = Stamp::ZERO;
            for (now_ms, above) in steps {
                let above = Stamp::from_parts(above, 9, true);
                let stamp = clock.tick(now_ms, above);
                prop_assert!(stamp > last && stamp > above);
                last = stamp;
            }
        }

        #[test]
        fn sortable_bytes_sort_as_stamps(a: (u64, u64, bool), b: (u64, u64, bool)) {
            let (a, b) = (Stamp::from_parts(a.0, a.1, a.2), Stamp::from_parts(b.0, b.1, b.2));
            prop_assert_eq!(a.cmp(&b), a.to_sortable().cmp(&b.to_sortable()));
        }
    }

    #[test]
    fn a_clock_resumed_from_its_ceiling_hands_out_nothing_twice() {
        let mut clock = HybridClock::resume(7, 0);
        let ceiling_ms = clock.ceiling_to_store(1_000).unwrap();
        clock.ceiling_stored(ceiling_ms);
        let before = clock.tick(1_500, Stamp::ZERO);
        assert!(clock.is_covered(before));
        let mut resumed = HybridClock::resume(7, ceiling_ms);
        assert!(resumed.tick(900, Stamp::ZERO) > before, "the wall clock was set back meanwhile");
    }

    #[test]
    fn a_clock_far_from_wall_time_says_so() {
        let mut clock = HybridClock::resume(7, 0);
        clock.tick(1_000_000, Stamp::ZERO);
        assert!(clock.check_skew(1_000_000).is_ok());
        assert!(clock.check_skew(100_000).is_err());
    }
}
