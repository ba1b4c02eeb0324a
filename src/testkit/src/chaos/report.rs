//! What a run came to.

use std::{collections::BTreeMap, fmt, time::Duration};

/// Complaints that are kept in full; the rest is only counted.
const COMPLAINTS_MAX_COUNT: usize = 50;

/// What was done, what clients saw, what was lost.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Faults by kind.
    pub faults: BTreeMap<String, u64>,
    /// Requests answered well, by kind.
    pub answered: BTreeMap<&'static str, u64>,
    /// Requests that failed, by kind and reason: what a client would have retried.
    pub failed: BTreeMap<String, u64>,
    /// How long each request took that was answered well.
    pub took: Vec<Duration>,
    /// The longest of all, failed ones included.
    pub longest: Duration,
    /// What each key must hold: one of these contents, or nothing (`None`).
    pub expected: BTreeMap<String, Vec<Option<(u64, usize)>>>,
    /// Objects read back, over all nodes.
    pub read_back_count: u64,
    /// Objects that some node did not give as they were acknowledged.
    pub lost: Vec<String>,
}

impl Report {
    /// Notes a request that was answered well.
    pub(super) fn note_answer(&mut self, kind: &'static str, took: Duration) {
        *self.answered.entry(kind).or_default() += 1;
        self.took.push(took);
        self.longest = self.longest.max(took);
    }

    /// Notes one that was not.
    pub(super) fn note_failure(&mut self, kind: &str, reason: &str, took: Duration) {
        let reason: String = reason.chars().take_while(|letter| *letter != '\n' && *letter != '<').take(60).collect();
        if self.failed.len() < COMPLAINTS_MAX_COUNT || self.failed.contains_key(&format!("{kind}: {reason}")) {
            *self.failed.entry(format!("{kind}: {reason}")).or_default() += 1;
        } else {
            *self.failed.entry("others".to_string()).or_default() += 1;
        }
        self.longest = self.longest.max(took);
    }

    /// What one client saw, added to what others did.
    pub(super) fn add(&mut self, other: Report) {
        for (kind, count) in other.answered {
            *self.answered.entry(kind).or_default() += count;
        }
        for (kind, count) in other.failed {
            *self.failed.entry(kind).or_default() += count;
        }
        self.took.extend(other.took);
        self.longest = self.longest.max(other.longest);
        self.expected.extend(other.expected);
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
        let sum = |counts: &mut dyn Iterator<Item = u64>| counts.sum::<u64>();
        writeln!(f, "faults: {:?}", self.faults)?;
        writeln!(f, "requests answered: {} {:?}", sum(&mut self.answered.values().copied()), self.answered)?;
        writeln!(f, "errors seen by clients: {}", sum(&mut self.failed.values().copied()))?;
        for (what, count) in &self.failed {
            writeln!(f, "  {count:>6}  {what}")?;
        }
        let quantiles = [0.5, 0.99, 0.999].map(|share| format!("{:.0} ms", self.quantile(share).as_secs_f64() * 1e3));
        writeln!(f, "p50 {}, p99 {}, p99.9 {}, longest {:.1} s", quantiles[0], quantiles[1], quantiles[2], self.longest.as_secs_f64())?;
        writeln!(f, "objects read back, over all nodes: {}", self.read_back_count)?;
        writeln!(f, "lost objects: {}", self.lost.len())?;
        self.lost.iter().take(COMPLAINTS_MAX_COUNT).try_for_each(|lost| writeln!(f, "  {lost}"))
    }
}
