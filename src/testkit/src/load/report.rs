//! Times of requests, summed up.

use std::time::Duration;

use serde::Serialize;

/// What a load measured, as `s3-load` prints it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Which operation.
    pub operation: String,
    /// Size of the objects.
    pub size_bytes: usize,
    /// Requests at once.
    pub concurrency: usize,
    /// Requests that were answered as they should be.
    pub done_count: usize,
    /// Requests that were not.
    pub error_count: usize,
    /// What went wrong first.
    pub first_error: Option<String>,
    /// From the first request to the last answer.
    pub elapsed_s: f64,
    /// Good answers per second.
    pub operations_per_s: f64,
    /// Bytes of objects per second.
    pub bytes_per_s: f64,
    /// Half of the requests took no longer.
    pub p50_ms: Option<f64>,
    /// 95 of 100 took no longer.
    pub p95_ms: Option<f64>,
    /// 99 of 100 took no longer.
    pub p99_ms: Option<f64>,
    /// None took longer.
    pub max_ms: Option<f64>,
}

/// What is counted while a load runs.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) times: Vec<Duration>,
    pub(super) error_count: usize,
    pub(super) first_error: Option<String>,
}

impl Tally {
    pub(super) fn count(&mut self, outcome: Result<Duration, String>) {
        match outcome {
            Ok(time) => self.times.push(time),
            Err(error) => {
                self.error_count += 1;
                self.first_error.get_or_insert(error);
            }
        }
    }

    pub(super) fn merge(&mut self, other: Tally) {
        self.times.extend(other.times);
        self.error_count += other.error_count;
        self.first_error = self.first_error.take().or(other.first_error);
    }

    pub(super) fn report(mut self, operation: &str, size_bytes: usize, concurrency: usize, elapsed: Duration) -> Report {
        self.times.sort_unstable();
        let done_count = self.times.len();
        let elapsed_s = elapsed.as_secs_f64().max(1e-9);
        let at = |percent| percentile(&self.times, percent).map(|time| (time.as_secs_f64() * 1e6).round() / 1e3);
        Report {
            operation: operation.to_owned(),
            size_bytes,
            concurrency,
            done_count,
            error_count: self.error_count,
            elapsed_s,
            operations_per_s: done_count as f64 / elapsed_s,
            bytes_per_s: done_count as f64 * size_bytes as f64 / elapsed_s,
            p50_ms: at(50),
            p95_ms: at(95),
            p99_ms: at(99),
            max_ms: at(100),
            first_error: self.first_error,
        }
    }
}

/// The smallest of the sorted `times` that `percent` of 100 do not exceed; `None` without any.
fn percentile(times: &[Duration], percent: usize) -> Option<Duration> {
    debug_assert!(times.is_sorted());
    let rank = (times.len() * percent).div_ceil(100);
    times.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(times_ms: &[u64], percent: usize, expected_ms: Option<u64>) {
        let times: Vec<Duration> = times_ms.iter().map(|ms| Duration::from_millis(*ms)).collect();
        assert_eq!(percentile(&times, percent), expected_ms.map(Duration::from_millis), "{percent} % of {times_ms:?}");
    }

    #[test]
    fn a_percentile_is_one_of_the_times() {
        let hundred: Vec<u64> = (1..=100).collect();
        check(&[], 50, None);
        check(&[7], 50, Some(7));
        check(&[7], 100, Some(7));
        check(&[1, 2], 50, Some(1));
        check(&[1, 2, 3], 50, Some(2));
        check(&hundred, 95, Some(95));
        check(&hundred, 99, Some(99));
        check(&hundred, 100, Some(100));
    }

    #[test]
    fn errors_count_apart_and_the_first_is_kept() {
        let mut tally = Tally::default();
        tally.count(Err("first".into()));
        tally.count(Ok(Duration::from_millis(2)));
        let mut other = Tally::default();
        other.count(Err("second".into()));
        tally.merge(other);
        let report = tally.report("put", 10, 1, Duration::from_secs(2));
        assert_eq!((report.done_count, report.error_count, report.first_error.as_deref()), (1, 2, Some("first")));
        assert_eq!((report.operations_per_s, report.bytes_per_s, report.p50_ms), (0.5, 5.0, Some(2.0)));
    }
}
