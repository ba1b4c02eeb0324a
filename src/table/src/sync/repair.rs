//! When which peers are compared: soon after they come back, and now and then.

use std::collections::{BTreeMap, BTreeSet};

use futures::{FutureExt, future::BoxFuture};
use garage_net::{NodeId, backoff::Backoff};
use garage_util::workers::{Report, Step, StepError, Worker};
use tokio::time::Instant;

use super::{Syncer, held_partitions};
use crate::limits::{SYNC_BACKOFF_MAX, SYNC_BACKOFF_MIN, SYNC_FIRST_DELAY, SYNC_PERIOD, SYNC_SETTLE_DELAY};

/// When each peer is due. Pure: what is and what came of it comes in.
struct Schedule {
    peers: BTreeMap<NodeId, Due>,
}

struct Due {
    at: Instant,
    is_up: bool,
    backoff: Backoff,
}

impl Schedule {
    fn new() -> Schedule {
        Schedule { peers: BTreeMap::new() }
    }

    /// Takes note of who shares partitions, and which of them are up. One that came up is due soon.
    fn note(&mut self, peers: &BTreeMap<NodeId, bool>, now: Instant) {
        self.peers.retain(|node, _| peers.contains_key(node));
        for (node, is_up) in peers {
            let due = self.peers.entry(*node).or_insert_with(|| Due {
                at: now + SYNC_SETTLE_DELAY,
                is_up: false,
                backoff: Backoff::new(SYNC_BACKOFF_MIN, SYNC_BACKOFF_MAX),
            });
            if *is_up && !due.is_up {
                due.at = due.at.min(now + SYNC_SETTLE_DELAY);
            }
            due.is_up = *is_up;
        }
    }

    /// The peer whose turn it is, among those that are up.
    fn next(&self) -> Option<(NodeId, Instant)> {
        self.peers.iter().filter(|(_, due)| due.is_up).map(|(node, due)| (*node, due.at)).min_by_key(|(node, at)| (*at, *node))
    }

    /// A comparison has ended; `is_equal`: it left no difference that it knows of, and need not be repeated soon.
    fn done(&mut self, node: NodeId, is_equal: bool, now: Instant, random: u64) {
        let Some(due) = self.peers.get_mut(&node) else { return };
        if is_equal {
            due.backoff.reset();
            // Spread, so that nodes started together do not compare together for ever.
            due.at = now + SYNC_PERIOD.mul_f64(1.0 + 0.2 * (random >> 40) as f64 / (1u64 << 24) as f64);
        } else {
            due.at = now + due.backoff.next_delay(random);
        }
    }
}

/// Compares with whoever is due.
pub(super) struct RepairWorker {
    syncer: Syncer,
    schedule: Schedule,
    not_before: Instant,
    last_failure: Option<String>,
}

impl RepairWorker {
    pub(super) fn new(syncer: Syncer) -> RepairWorker {
        RepairWorker { syncer, schedule: Schedule::new(), not_before: Instant::now() + SYNC_FIRST_DELAY, last_failure: None }
    }

    async fn work(&mut self) -> Step {
        self.schedule.note(&sharing_peers(&self.syncer), Instant::now());
        let Some((node, at)) = self.schedule.next() else { return Step::Idle(SYNC_PERIOD) };
        let wait = at.max(self.not_before).saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            return Step::Idle(wait);
        }
        let outcome = self.syncer.repair_with(node).await;
        let is_equal = outcome.as_ref().is_ok_and(|report| !report.is_to_be_repeated());
        self.schedule.done(node, is_equal, Instant::now(), self.syncer.cluster().runtime().random_u64());
        match outcome {
            Ok(report) => {
                self.last_failure = None;
                if 0 < report.pulled_count + report.given_count {
                    tracing::info!(node = %node.short(), ?report, "rows were made equal");
                }
            }
            Err(error) => {
                tracing::debug!(node = %node.short(), %error, "rows were not compared to the end");
                self.last_failure = Some(format!("comparing with {}: {error}", node.short()));
            }
        }
        Step::Busy
    }
}

impl Worker for RepairWorker {
    fn name(&self) -> String {
        "table sync".to_string()
    }
    fn step(&mut self) -> BoxFuture<'_, Result<Step, StepError>> {
        async move { Ok(self.work().await) }.boxed()
    }
    fn report(&self) -> Report {
        let repaired = self.syncer.repaired();
        let rows = format!("{} rows came, {} went, {} were settled", repaired.pulled_count, repaired.given_count, repaired.settled_count);
        let now = Instant::now();
        let due_count = self.schedule.peers.values().filter(|due| due.is_up && due.at <= now).count();
        let messages = std::iter::once(rows).chain(self.last_failure.clone()).collect();
        Report { queue_length: Some(due_count as u64), messages, ..Report::default() }
    }
}

/// The peers that hold some partition that this node holds too, and whether each is up.
pub(super) fn sharing_peers(syncer: &Syncer) -> BTreeMap<NodeId, bool> {
    let cluster = syncer.cluster();
    let history = cluster.layout();
    let own: BTreeSet<u8> = held_partitions(&history, cluster.local());
    let others = history.live_storage_nodes().into_iter().filter(|node| *node != cluster.local());
    let shares = |node: &NodeId| held_partitions(&history, *node).iter().any(|partition| own.contains(partition));
    others.filter(shares).map(|node| (node, cluster.is_up(node))).collect()
}

const _: () = assert!(SYNC_BACKOFF_MAX.as_millis() < SYNC_PERIOD.as_millis());

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use garage_net::NodeId;
    use tokio::time::Instant;

    use super::{SYNC_BACKOFF_MAX, SYNC_PERIOD, SYNC_SETTLE_DELAY, Schedule};

    const PEER: NodeId = NodeId([1; 32]);

    fn seen(schedule: &mut Schedule, is_up: bool, now: Instant) {
        schedule.note(&BTreeMap::from([(PEER, is_up)]), now);
    }

    #[test]
    fn a_peer_is_compared_when_it_comes_back_and_then_now_and_then() {
        let (mut schedule, start) = (Schedule::new(), Instant::now());
        seen(&mut schedule, false, start);
        assert_eq!(schedule.next(), None, "nobody is up");
        seen(&mut schedule, true, start);
        assert!(schedule.next().unwrap().1 <= start + SYNC_SETTLE_DELAY);
        schedule.done(PEER, true, start, 0);
        assert_eq!(schedule.next(), Some((PEER, start + SYNC_PERIOD)));
        seen(&mut schedule, false, start);
        seen(&mut schedule, true, start);
        assert_eq!(schedule.next(), Some((PEER, start + SYNC_SETTLE_DELAY)), "it was away");
    }

    #[test]
    fn a_comparison_that_fails_or_leaves_differences_is_repeated_with_growing_waits() {
        let (mut schedule, mut now) = (Schedule::new(), Instant::now());
        seen(&mut schedule, true, now);
        for _ in 0..20 {
            schedule.done(PEER, false, now, u64::MAX);
            let next = schedule.next().unwrap().1;
            assert!(now < next && next <= now + SYNC_BACKOFF_MAX);
            now = next;
        }
    }
}
