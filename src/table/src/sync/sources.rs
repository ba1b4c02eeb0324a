//! Which partitions have to come from whom, and how far that is. Pure.

use std::collections::{BTreeMap, BTreeSet};

use garage_net::NodeId;
use garage_rpc::layout::{LayoutHistory, LayoutVersion};

use super::held::{digest_partitions, ring_partitions};
use crate::limits::MOVED_PARTITIONS_PER_PASS;

/// What is still to be brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// For each digest partition who has it, and from how many of them it must come.
    pub needed: BTreeMap<u8, Sources>,
}

/// Who has a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sources {
    pub nodes: BTreeSet<NodeId>,
    /// How many of them it must still come from.
    pub missing_count: usize,
}

impl Plan {
    /// These partitions from these sources; those that need none are left out.
    pub fn new(needed: impl IntoIterator<Item = (u8, Sources)>) -> Plan {
        Plan { needed: needed.into_iter().filter(|(_, sources)| 0 < sources.missing_count).collect() }
    }

    /// What a layout change asks of `local`.
    pub fn of_change(history: &LayoutHistory, local: NodeId) -> Plan {
        let reads = history.read_version();
        Plan::new(needed_partitions(history, local).into_iter().map(|partition| (partition, sources(reads, partition, local, true))))
    }

    /// What `local` needs to be refilled in these partitions: what it has itself does not count.
    pub fn of_loss(history: &LayoutHistory, local: NodeId, lost: &BTreeSet<u8>) -> Plan {
        let reads = history.read_version();
        Plan::new(lost.iter().map(|partition| (*partition, sources(reads, *partition, local, false))))
    }

    /// What `node` is to be asked for, in passes of bounded size.
    pub fn batches(&self, node: NodeId) -> Vec<Vec<u8>> {
        let from_it = self.needed.iter().filter(|(_, sources)| sources.nodes.contains(&node));
        let from_it: Vec<u8> = from_it.map(|(partition, _)| *partition).collect();
        from_it.chunks(MOVED_PARTITIONS_PER_PASS).map(<[u8]>::to_vec).collect()
    }

    /// Everyone who has something that is needed.
    pub fn sources(&self) -> BTreeSet<NodeId> {
        self.needed.values().flat_map(|sources| sources.nodes.iter().copied()).collect()
    }

    /// These came from `node`; those of them that are needed from nobody else any more.
    pub fn brought(&mut self, partitions: &[u8], node: NodeId) -> BTreeSet<u8> {
        let mut done = BTreeSet::new();
        for partition in partitions {
            let Some(sources) = self.needed.get_mut(partition) else { continue };
            if sources.nodes.remove(&node) {
                sources.missing_count = sources.missing_count.saturating_sub(1);
            }
            if sources.missing_count == 0 {
                self.needed.remove(partition);
                done.insert(*partition);
            }
        }
        done
    }
}

/// The digest partitions that some live version after the one `local` is in sync with gives it, and that it did not hold there.
fn needed_partitions(history: &LayoutHistory, local: NodeId) -> BTreeSet<u8> {
    if history.live().count() == 1 {
        // The first layout: nothing was stored before.
        return BTreeSet::new();
    }
    let synced = history.trackers(local).sync;
    let before = history.version(synced).filter(|version| version.is_ready());
    let held = before.map(|version| digest_partitions(version, local)).unwrap_or_default();
    let later = history.live().filter(|version| synced < version.version && version.is_ready());
    let mut needed = BTreeSet::new();
    for version in later {
        // With fewer copies, a quorum of the new nodes need not meet every quorum of the old ones.
        let has_fewer = before.is_some_and(|before| version.replication_factor < before.replication_factor);
        needed.extend(digest_partitions(version, local).into_iter().filter(|partition| has_fewer || !held.contains(partition)));
    }
    needed
}

/// Who has a partition in the version that everybody reads from, and how many of them make a read quorum besides `local`.
fn sources(reads: &LayoutVersion, digest_partition: u8, local: NodeId, local_counts: bool) -> Sources {
    let rings: Vec<BTreeSet<NodeId>> =
        ring_partitions(digest_partition, reads.partition_count).map(|ring| reads.nodes_of(ring).collect()).collect();
    let mut nodes: BTreeSet<NodeId> = rings.iter().flatten().copied().collect();
    nodes.remove(&local);
    let missing_count = match &rings[..] {
        [holders] => holders.len().div_ceil(2).saturating_sub(usize::from(local_counts && holders.contains(&local))),
        // It lies in several ring partitions: all of their nodes are a read quorum of each.
        _ => nodes.len(),
    };
    Sources { nodes, missing_count }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use garage_net::NodeId;

    use super::{Plan, Sources};

    fn node(number: u8) -> NodeId {
        NodeId([number; 32])
    }

    #[test]
    fn a_partition_is_done_once_it_came_from_as_many_as_needed() {
        let sources = |missing_count| Sources { nodes: [1, 2, 3].map(node).into(), missing_count };
        let mut plan = Plan::new([(4, sources(2)), (5, sources(1)), (6, sources(0))]);
        assert_eq!(plan.batches(node(1)), [vec![4, 5]]);
        assert_eq!(plan.brought(&[4, 5], node(1)), BTreeSet::from([5]));
        assert_eq!(plan.brought(&[4], node(1)), BTreeSet::new(), "the same node again proves nothing");
        assert!(plan.batches(node(1)).is_empty());
        assert_eq!(plan.brought(&[4], node(3)), BTreeSet::from([4]));
        assert!(plan.needed.is_empty());
    }
}
