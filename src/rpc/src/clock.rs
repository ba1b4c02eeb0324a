//! The node's stamps: a hybrid clock whose durable ceiling is laid ahead, so that no stamp is handed out twice over a restart.
//!
//! Invariants:
//! - a stamp that was handed out lies below a ceiling that was on stable storage at that moment;
//! - stamps follow the clocks of most nodes: a wall clock that is far from them is corrected, one that is near is left alone;
//! - while stamps are being handed out, the ceiling is renewed before it is reached, so a tick seldom waits; an idle node writes nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use garage_util::{
    encoding::Stored,
    hlc::{HybridClock, SKEW_MAX_MS, SkewError, Stamp},
    runtime::Runtime,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::{
    limits::CEILING_WAIT_MAX,
    state::{StateError, StateFiles},
};

const FILE: &str = "clock_ceiling";
/// How often the ceiling is looked at in the background.
const RENEWAL_PERIOD: Duration = Duration::from_secs(1);

/// No stamp can be handed out.
#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    /// The ceiling could not be made durable.
    #[error("no stamp can be given: {0}")]
    Ceiling(#[from] Arc<StateError>),
    /// The disk takes too long.
    #[error("no stamp can be given: the clock's ceiling is not durable after {} s; the metadata disk is too slow", .waited.as_secs())]
    TimedOut {
        /// How long it was waited for.
        waited: Duration,
    },
}

#[derive(Serialize, Deserialize)]
struct Ceiling {
    ceiling_ms: u64,
}

impl Stored for Ceiling {
    const WHAT: &'static str = "clock ceiling";
}

/// One node's clock with its ceiling kept in the metadata directory. Cheap to clone.
#[derive(Clone)]
pub struct DurableClock(Arc<Inner>);

struct Inner {
    clock: Mutex<HybridClock>,
    /// Whether a stamp was handed out since the last renewal.
    used: AtomicBool,
    /// Added to the wall clock's reading, in milliseconds.
    correction_ms: AtomicI64,
    renewing: tokio::sync::Mutex<()>,
    files: StateFiles,
    runtime: Runtime,
}

impl DurableClock {
    /// Resumes the clock of the writer with this mark, and renews its ceiling in the background.
    pub async fn open(mark: u64, files: StateFiles, runtime: Runtime) -> Result<DurableClock, StateError> {
        let ceiling_ms = files.load::<Ceiling>(FILE).await?.map_or(0, |ceiling| ceiling.ceiling_ms);
        let clock = Mutex::new(HybridClock::resume(mark, ceiling_ms));
        let inner = Inner {
            clock,
            used: AtomicBool::new(true),
            correction_ms: AtomicI64::new(0),
            renewing: tokio::sync::Mutex::new(()),
            files,
            runtime: runtime.clone(),
        };
        let this = DurableClock(Arc::new(inner));
        // Weak: the task ends with the last handle, not only with the node.
        let weak = Arc::downgrade(&this.0);
        runtime.spawn("clock ceiling", async move {
            loop {
                tokio::time::sleep(RENEWAL_PERIOD).await;
                let Some(inner) = weak.upgrade() else { return };
                if inner.used.load(Ordering::Relaxed)
                    && let Err(error) = inner.renew().await
                {
                    tracing::error!(%error, "the clock's ceiling cannot be renewed");
                }
            }
        });
        Ok(this)
    }

    /// A fresh stamp, greater than every earlier one of this node and than `above`.
    ///
    /// Waits only when the ceiling must be renewed first: after an idle time, or when `above` is far ahead of the wall clock.
    pub async fn tick(&self, above: Stamp) -> Result<Stamp, ClockError> {
        if let Some(stamp) = self.0.try_tick(above) {
            return Ok(stamp);
        }
        let waited = async {
            loop {
                self.0.renew().await.map_err(Arc::new)?;
                if let Some(stamp) = self.0.try_tick(above) {
                    return Ok(stamp);
                }
            }
        };
        tokio::time::timeout(CEILING_WAIT_MAX, waited).await.map_err(|_| ClockError::TimedOut { waited: CEILING_WAIT_MAX })?
    }

    /// Corrects the reading by how far the clocks of others are ahead of it, in milliseconds, if most of them are far.
    pub fn correct(&self, ahead_ms: &[i64]) {
        let correction_ms = correction_of(ahead_ms);
        let before_ms = self.0.correction_ms.swap(correction_ms, Ordering::Relaxed);
        if (correction_ms == 0) != (before_ms == 0) {
            match correction_ms {
                0 => tracing::info!("this node's clock agrees with the others' again"),
                ms => tracing::error!(
                    "this node's clock is {} s {} the others'; stamps are corrected: check its time synchronisation",
                    ms.abs() / 1000,
                    if ms < 0 { "ahead of" } else { "behind" }
                ),
            }
        }
    }
    /// What is added to the wall clock's reading, in milliseconds.
    pub fn correction_ms(&self) -> i64 {
        self.0.correction_ms.load(Ordering::Relaxed)
    }

    /// Refuses when this node's stamps have drifted away from its wall clock.
    pub fn check_skew(&self) -> Result<(), SkewError> {
        self.0.clock.lock().check_skew(self.0.now_ms())
    }
}

/// The median of all clocks, this node's included, as seen from this node's; 0 while that is no further than the skew that is allowed.
///
/// With two nodes nobody can tell who is right, and the lower middle is taken: stamps stay behind rather than run ahead.
fn correction_of(ahead_ms: &[i64]) -> i64 {
    let mut all: Vec<i64> = ahead_ms.iter().copied().chain([0]).collect();
    all.sort_unstable();
    let median = all[(all.len() - 1) / 2];
    if median.unsigned_abs() <= SKEW_MAX_MS { 0 } else { median }
}

impl Inner {
    fn now_ms(&self) -> u64 {
        self.runtime.now_ms().saturating_add_signed(self.correction_ms.load(Ordering::Relaxed))
    }

    /// A stamp, if the durable ceiling covers it. One that is not covered is never used; the clock has merely moved on by one.
    fn try_tick(&self, above: Stamp) -> Option<Stamp> {
        self.used.store(true, Ordering::Relaxed);
        let mut clock = self.clock.lock();
        let stamp = clock.tick(self.now_ms(), above);
        clock.is_covered(stamp).then_some(stamp)
    }

    async fn renew(&self) -> Result<(), StateError> {
        let _one_at_a_time = self.renewing.lock().await;
        self.used.store(false, Ordering::Relaxed);
        let now_ms = self.now_ms();
        let Some(ceiling_ms) = self.clock.lock().ceiling_to_store(now_ms) else { return Ok(()) };
        self.files.save(FILE, &Ceiling { ceiling_ms }).await?;
        self.clock.lock().ceiling_stored(ceiling_ms);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use garage_util::hlc::Stamp;

    use super::DurableClock;
    use crate::testing::TestNode;

    #[tokio::test(start_paused = true)]
    async fn stamps_rise_over_restarts_although_the_wall_clock_is_set_back() {
        let node = TestNode::new(1);
        let mut last = Stamp::ZERO;
        for now_ms in [1_000_000, 900_000, 0, 5_000_000] {
            node.set_now_ms(now_ms);
            let clock = DurableClock::open(7, node.files(), node.runtime()).await.unwrap();
            for above in [Stamp::ZERO, Stamp::from_parts(2_000_000 << 16, 1, true)] {
                let stamp = clock.tick(above).await.unwrap();
                assert!(stamp > last && stamp > above, "{stamp:?} after {last:?}");
                last = stamp;
            }
        }
    }

    #[test]
    fn a_clock_is_corrected_only_when_most_others_are_far_from_it() {
        for (ahead_ms, correction_ms) in [
            (&[][..], 0),
            (&[600_000], 0),
            (&[-600_000], -600_000),
            (&[600_000, 600_010], 600_000),
            (&[-600_000, -599_990], -599_990),
            (&[0, 600_000], 0),
            (&[-600_000, 0], 0),
            (&[59_000, 59_000, 59_000], 0),
        ] {
            assert_eq!(super::correction_of(ahead_ms), correction_ms, "{ahead_ms:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_stamp_is_given_while_the_ceiling_cannot_be_stored() {
        let node = TestNode::new(1);
        let clock = DurableClock::open(7, node.files(), node.runtime()).await.unwrap();
        node.disk().fail_writes(true);
        assert!(clock.tick(Stamp::ZERO).await.is_err());
        node.disk().fail_writes(false);
        assert!(clock.tick(Stamp::ZERO).await.is_ok());
    }
}
