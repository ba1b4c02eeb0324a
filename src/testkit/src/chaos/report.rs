//! What a run came to.

use std::{collections::BTreeMap, fmt, time::Duration};

use super::keys::{Held, Race};

/// Complaints that are kept in full; the rest is only counted.
const COMPLAINTS_MAX_COUNT: usize = 50;

/// What was done, what clients saw, what was lost.
#[derive(Debug, Default)]
pub struct Report {
    /// Faults by kind.
    pub faults: BTreeMap<String, u64>,
    /// Requests answered well, by kind.
    pub answered: BTreeMap<&'static str, u64>,
    /// Requests that failed, by kind and reason: what a client would have retried.
    pub failed: BTreeMap<String, u64>,
    /// How long each request took that was answered well.
    pub took: Vec<Duration>,
    /// The longest of all, failed ones included, and what it was.
    pub longest: (Duration, String),
    /// What each key may hold.
    pub expected: BTreeMap<String, Held>,
    /// Keys that clients raced to create, and what each was told.
    pub(super) races: BTreeMap<String, Vec<Race>>,
    /// How long it took after the last fault until everything was where it should be.
    pub healed_after: Duration,
    /// Objects read back, over all nodes.
    pub read_back_count: u64,
    /// Answers that were not what had been acknowledged, while it ran and at the end.
    pub lost: Vec<String>,
    /// Why the run could not go on, if it could not: a node that does not come back, most often.
    pub broken: Option<String>,
}

impl Report {
    /// Whether all is as it should be.
    pub fn is_good(&self) -> bool {
        self.lost.is_empty() && self.broken.is_none()
    }

    /// Notes a request that was answered well.
    pub(super) fn note_answer(&mut self, kind: &'static str, took: Duration) {
        *self.answered.entry(kind).or_default() += 1;
        self.took.push(took);
        self.note_time(took, kind);
    }

    /// Notes one that was not.
    pub(super) fn note_failure(&mut self, kind: &str, reason: &str, took: Duration) {
        let reason = format!("{kind}: {}", reason.chars().take(110).collect::<String>().replace('\n', " "));
        let known = self.failed.len() < COMPLAINTS_MAX_COUNT || self.failed.contains_key(&reason);
        self.note_time(took, &reason);
        *self.failed.entry(if known { reason } else { "others".to_string() }).or_default() += 1;
    }

    fn note_time(&mut self, took: Duration, what: &str) {
        if self.longest.0 < took {
            self.longest = (took, what.to_string());
        }
    }

    /// What one client saw, added to what others did.
    pub(super) fn add(&mut self, other: Report) {
        for (kind, count) in other.answered {
            *self.answered.entry(kind).or_default() += count;
        }
        for (kind, count) in other.failed {
            *self.failed.entry(kind).or_default() += count;
        }
        for (key, tries) in other.races {
            self.races.entry(key).or_default().extend(tries);
        }
        self.took.extend(other.took);
        if self.longest.0 < other.longest.0 {
            self.longest = other.longest;
        }
        self.expected.extend(other.expected);
        self.lost.extend(other.lost);
        self.read_back_count += other.read_back_count;
    }

    /// The time within which this share of the good answers came.
    pub fn quantile(&self, share: f64) -> Duration {
        let mut took = self.took.clone();
        took.sort_unstable();
        let index = ((took.len() as f64 * share) as usize).min(took.len().saturating_sub(1));
        took.get(index).copied().unwrap_or_default()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "faults: {} {:?}", self.faults.values().sum::<u64>(), self.faults)?;
        writeln!(f, "requests answered: {} {:?}", self.answered.values().sum::<u64>(), self.answered)?;
        writeln!(f, "errors seen by clients: {}", self.failed.values().sum::<u64>())?;
        for (what, count) in &self.failed {
            writeln!(f, "  {count:>6}  {what}")?;
        }
        let quantiles = [0.5, 0.99, 0.999].map(|share| format!("{:.0} ms", self.quantile(share).as_secs_f64() * 1e3));
        let (longest, what) = (self.longest.0.as_secs_f64(), &self.longest.1);
        writeln!(f, "p50 {}, p99 {}, p99.9 {}, longest {longest:.1} s ({what})", quantiles[0], quantiles[1], quantiles[2])?;
        writeln!(f, "whole again {:.0} s after the last fault", self.healed_after.as_secs_f64())?;
        writeln!(f, "keys: {}, read back over all nodes: {}", self.expected.len(), self.read_back_count)?;
        writeln!(f, "lost objects and wrong answers: {}", self.lost.len())?;
        self.lost.iter().take(COMPLAINTS_MAX_COUNT).try_for_each(|lost| writeln!(f, "  {lost}"))?;
        self.broken.iter().try_for_each(|broken| writeln!(f, "the run could not go on: {broken}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_saw_go_wrong_is_in_the_sum() {
        let mut seen = Report::default();
        seen.lost.push("an object".into());
        seen.note_failure("put", "503", Duration::from_secs(2));
        let mut sum = Report::default();
        sum.add(seen);
        assert!(!sum.is_good());
        assert_eq!((sum.failed["put: 503"], sum.longest.0), (1, Duration::from_secs(2)));
    }
}
