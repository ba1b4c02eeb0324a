//! How long a worker rests: in proportion to how long its steps take, or longer and longer while they fail. Pure.

use std::{collections::VecDeque, time::Duration};

/// Steps over which the average is taken.
const SAMPLES_COUNT: usize = 30;
/// The longest rest between two steps that succeed, whatever the tranquility.
pub const REST_MAX: Duration = Duration::from_secs(60);
/// The longest wait after a failure.
pub const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// The last steps' lengths.
#[derive(Default)]
pub struct Throttle {
    samples: VecDeque<Duration>,
}

impl Throttle {
    /// How long to rest after a step that took `took`.
    pub fn rest_after(&mut self, took: Duration, tranquility: u32) -> Duration {
        if self.samples.len() == SAMPLES_COUNT {
            self.samples.pop_front();
        }
        self.samples.push_back(took);
        let average = self.samples.iter().sum::<Duration>() / self.samples.len() as u32;
        average.saturating_mul(tranquility).min(REST_MAX)
    }
}

/// How long to wait after the n-th failure in a row, n from 1: 1.5 s to the n-th, at most a minute.
pub fn backoff(consecutive_count: u64) -> Duration {
    let exponent = i32::try_from(consecutive_count.min(32)).unwrap_or(32);
    Duration::from_secs_f64(1.5f64.powi(exponent)).min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{BACKOFF_MAX, REST_MAX, Throttle, backoff};

    #[test]
    fn a_rest_is_tranquility_times_the_average_step() {
        let mut throttle = Throttle::default();
        assert_eq!(throttle.rest_after(Duration::from_secs(1), 2), Duration::from_secs(2));
        assert_eq!(throttle.rest_after(Duration::from_secs(3), 2), Duration::from_secs(4));
        assert_eq!(throttle.rest_after(Duration::from_secs(2), 0), Duration::ZERO);
        assert_eq!(throttle.rest_after(Duration::from_secs(2), u32::MAX), REST_MAX);
    }

    #[test]
    fn old_steps_are_forgotten() {
        let mut throttle = Throttle::default();
        throttle.rest_after(Duration::from_secs(1_000), 1);
        for _ in 0..29 {
            throttle.rest_after(Duration::from_secs(1), 1);
        }
        assert_eq!(throttle.rest_after(Duration::from_secs(1), 1), Duration::from_secs(1));
    }

    #[test]
    fn failures_wait_longer_and_longer_up_to_a_minute() {
        assert_eq!(backoff(1), Duration::from_millis(1_500));
        assert!(backoff(1) < backoff(2) && backoff(5) < backoff(6));
        assert_eq!(backoff(u64::MAX), BACKOFF_MAX);
    }
}
