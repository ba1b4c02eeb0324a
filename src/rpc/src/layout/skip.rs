//! Giving up on dead nodes, so that a layout change does not wait for them for ever.

use std::collections::BTreeSet;

use garage_net::NodeId;

use super::history::{LayoutHistory, Trackers};

/// Why no tracker can be raised; for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SkipError {
    /// No change under way.
    #[error("only one layout version is live: no node holds a layout change up, there is nothing to skip")]
    OneLiveVersion,
    /// Not a version that nodes can be behind.
    #[error("version {given} is not one that data still moves to: give one from {first} to {last}")]
    OutOfRange {
        /// The version the operator names.
        given: u64,
        /// The version after the oldest live one.
        first: u64,
        /// The current version.
        last: u64,
    },
}

/// Whose trackers were raised, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SkipReport {
    /// Nodes whose `ack` was raised.
    pub ack_updated: Vec<NodeId>,
    /// Nodes whose `sync` was raised.
    pub sync_updated: Vec<NodeId>,
}

impl LayoutHistory {
    /// Raises the trackers of `dead` nodes to `version`: they coordinate nothing, so nobody need wait until they know of it. Nor need anyone
    /// wait for what they would hold, where the others of each partition are a quorum without them: should a dead node come back, its store
    /// shows that it was never in sync, and it is refilled before its answers count.
    ///
    /// With `allow_missing_data`, every node also counts as synced with `version`: what only dead nodes hold is given up.
    pub fn skip_dead_nodes(&mut self, version: u64, dead: &BTreeSet<NodeId>, allow_missing_data: bool) -> Result<SkipReport, SkipError> {
        let (oldest, current) = (self.oldest_live(), self.current().version);
        if oldest == current {
            return Err(SkipError::OneLiveVersion);
        }
        if version <= oldest || current < version {
            return Err(SkipError::OutOfRange { given: version, first: oldest + 1, last: current });
        }
        let mut report = SkipReport::default();
        for node in self.live_nodes() {
            let is_dead = dead.contains(&node);
            if (is_dead || allow_missing_data) && self.raise_trackers(node, Trackers { ack: version, ..Trackers::default() }) {
                report.ack_updated.push(node);
            }
            let is_spared = is_dead && self.has_quorums_without(dead, version);
            if (allow_missing_data || is_spared) && self.raise_trackers(node, Trackers { sync: version, ..Trackers::default() }) {
                report.sync_updated.push(node);
            }
        }
        // A dead node reads nothing; a live one says itself from where it reads.
        for node in self.live_nodes().intersection(dead) {
            self.raise_trackers(*node, Trackers { sync_ack: version, ..Trackers::default() });
        }
        Ok(report)
    }

    /// Whether in every live version up to `version` every partition has a majority of nodes that are not dead.
    fn has_quorums_without(&self, dead: &BTreeSet<NodeId>, version: u64) -> bool {
        self.live().filter(|live| live.is_ready() && live.version <= version).all(|live| {
            live.partitions().all(|partition| {
                let alive_count = live.nodes_of(partition).filter(|node| !dead.contains(node)).count();
                super::quorums::majority(live.replication_factor) <= alive_count
            })
        })
    }
}
