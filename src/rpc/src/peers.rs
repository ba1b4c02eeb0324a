//! What is measured of each peer, and what follows from it: whom to ask first, and when to stop waiting for one alone. Pure.

use std::{collections::VecDeque, time::Duration};

use garage_net::NodeId;

use crate::limits::{HEDGE_DELAY_MAX, HEDGE_DELAY_MIN, HEDGE_DELAY_UNKNOWN, LATENCY_SAMPLES_MAX};

/// The latest answer times of one peer.
#[derive(Debug, Clone, Default)]
pub struct LatencyWindow {
    samples: VecDeque<Duration>,
    p95: Option<Duration>,
}

impl LatencyWindow {
    /// Adds the time one answer took; the oldest is forgotten.
    pub fn record(&mut self, latency: Duration) {
        if self.samples.len() == LATENCY_SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back(latency);
        let mut sorted: Vec<Duration> = self.samples.iter().copied().collect();
        sorted.sort_unstable();
        // The smallest value that at least 95 % of the samples do not exceed.
        self.p95 = sorted.get((sorted.len() * 95).div_ceil(100) - 1).copied();
    }

    /// The time within which 95 % of the remembered answers came; `None` before the first.
    pub fn p95(&self) -> Option<Duration> {
        self.p95
    }
}

/// How long to wait for a peer before the next one is asked too.
pub fn hedge_delay(p95: Option<Duration>, rtt: Option<Duration>) -> Duration {
    let expected = p95.or(rtt.map(|rtt| rtt * 2)).unwrap_or(HEDGE_DELAY_UNKNOWN);
    expected.clamp(HEDGE_DELAY_MIN, HEDGE_DELAY_MAX)
}

/// What decides how near a peer is; compared field by field, smaller is nearer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nearness {
    /// Not this node itself.
    pub is_other: bool,
    /// Not reachable now: asked last, whatever else holds.
    pub is_down: bool,
    /// In another zone than this node.
    pub is_other_zone: bool,
    /// The measured round-trip time; unknown counts as far.
    pub rtt: Duration,
    /// Ties are broken the same way each time.
    pub node: NodeId,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{LatencyWindow, hedge_delay};
    use crate::limits::{HEDGE_DELAY_MAX, HEDGE_DELAY_MIN, LATENCY_SAMPLES_MAX};

    #[test]
    fn the_hedge_delay_follows_the_p95_of_recent_answers_within_its_bounds() {
        let mut window = LatencyWindow::default();
        for sample_ms in 1..=100 {
            window.record(Duration::from_millis(sample_ms));
        }
        // Only the last 64 count: 37..=100, whose 61st smallest is 97.
        assert_eq!(LATENCY_SAMPLES_MAX, 64);
        assert_eq!(window.p95(), Some(Duration::from_millis(97)));
        assert_eq!(hedge_delay(window.p95(), None), Duration::from_millis(97));
        assert_eq!(hedge_delay(Some(Duration::from_millis(1)), None), HEDGE_DELAY_MIN);
        assert_eq!(hedge_delay(Some(Duration::from_secs(60)), None), HEDGE_DELAY_MAX);
        assert_eq!(hedge_delay(None, Some(Duration::from_millis(50))), Duration::from_millis(100));
    }
}
