//! How long to wait before dialling again. Pure: randomness comes in as a number.

use std::time::Duration;

/// Doubles from `min` to `max` with each failure, and spreads the waits so that nodes do not dial in step.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    failed_count: u32,
}

impl Backoff {
    /// Waits between `min / 2` and `max`.
    pub fn new(min: Duration, max: Duration) -> Backoff {
        Backoff { min, max: max.max(min), failed_count: 0 }
    }

    /// For a peer that should be connected: 100 ms to 10 s.
    pub fn for_dialling() -> Backoff {
        Backoff::new(Duration::from_millis(100), Duration::from_secs(10))
    }

    /// The wait after one more failure: between half of its step and the whole, by `random`.
    pub fn next_delay(&mut self, random: u64) -> Duration {
        let step = self.min.saturating_mul(1u32 << self.failed_count.min(20)).min(self.max);
        self.failed_count = self.failed_count.saturating_add(1);
        let half = step / 2;
        half + half.mul_f64(random as f64 / u64::MAX as f64)
    }

    /// After a success: the next failure waits the shortest time again.
    pub fn reset(&mut self) {
        self.failed_count = 0;
    }

    /// Failures since the last success.
    pub fn failed_count(&self) -> u32 {
        self.failed_count
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::{any, prop_assert, proptest};

    use super::Backoff;

    proptest! {
        #[test]
        fn a_wait_stays_between_its_bounds_and_never_shrinks_below_half_of_the_last(randoms in proptest::collection::vec(any::<u64>(), 1..80)) {
            let (min, max) = (Duration::from_millis(100), Duration::from_secs(10));
            let mut backoff = Backoff::new(min, max);
            let mut last = Duration::ZERO;
            for random in randoms {
                let wait = backoff.next_delay(random);
                prop_assert!(min / 2 <= wait && wait <= max, "{wait:?}");
                prop_assert!(last / 2 <= wait, "{wait:?} after {last:?}");
                last = wait;
            }
        }
    }

    #[test]
    fn a_success_starts_over() {
        let mut backoff = Backoff::for_dialling();
        (0..10).for_each(|_| _ = backoff.next_delay(u64::MAX));
        assert_eq!(backoff.next_delay(u64::MAX), Duration::from_secs(10));
        backoff.reset();
        assert_eq!(backoff.next_delay(u64::MAX), Duration::from_millis(100));
    }
}
