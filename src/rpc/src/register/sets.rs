//! Which replicas are a quorum: one set of nodes for each live layout version, and a quorum needed in each of them.
//!
//! One set of 3 nodes with a quorum of 2 is the ordinary case. While a layout change is under way there are two or more sets, which
//! may share nodes; a node then counts in every set it is in.

use std::collections::BTreeSet;

/// The holders of a key in one layout version, and how many of them are a quorum.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuorumSet<N> {
    nodes: Vec<N>,
    quorum_count: usize,
}

impl<N: Ord + Copy> QuorumSet<N> {
    /// A set of distinct nodes (repetitions are dropped); `quorum_count` of them are a quorum.
    ///
    /// The register is linearizable only if two quorums of a set always meet: `quorum_count` above half of the nodes. A smaller one
    /// is for the consistency modes that give this up.
    pub fn new(nodes: impl IntoIterator<Item = N>, quorum_count: usize) -> QuorumSet<N> {
        let nodes: Vec<N> = nodes.into_iter().collect::<BTreeSet<N>>().into_iter().collect();
        assert!(0 < quorum_count, "a quorum of no node proves nothing");
        assert!(quorum_count <= nodes.len(), "a quorum of {quorum_count} among {} nodes", nodes.len());
        QuorumSet { nodes, quorum_count }
    }

    /// A set whose quorum is more than half of its nodes.
    pub fn majority(nodes: impl IntoIterator<Item = N>) -> QuorumSet<N> {
        let nodes: BTreeSet<N> = nodes.into_iter().collect();
        let quorum_count = nodes.len() / 2 + 1;
        QuorumSet::new(nodes, quorum_count)
    }

    /// The nodes, sorted.
    pub fn nodes(&self) -> &[N] {
        &self.nodes
    }

    /// How many of them are a quorum.
    pub fn quorum_count(&self) -> usize {
        self.quorum_count
    }

    /// How many of the set's nodes fulfil `predicate`.
    pub(super) fn count(&self, predicate: impl Fn(&N) -> bool) -> usize {
        self.nodes.iter().filter(|node| predicate(node)).count()
    }
}

/// The sets in each of which a quorum is needed. Never empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuorumSets<N> {
    sets: Vec<QuorumSet<N>>,
}

impl<N: Ord + Copy> QuorumSets<N> {
    /// One set for each live layout version.
    pub fn new(sets: Vec<QuorumSet<N>>) -> QuorumSets<N> {
        assert!(!sets.is_empty(), "a quorum in no set proves nothing");
        QuorumSets { sets }
    }

    /// The ordinary case.
    pub fn single(set: QuorumSet<N>) -> QuorumSets<N> {
        QuorumSets::new(vec![set])
    }

    /// These sets and those of `other` that are not among them.
    pub fn union(mut self, other: &QuorumSets<N>) -> QuorumSets<N> {
        for set in &other.sets {
            if !self.sets.contains(set) {
                self.sets.push(set.clone());
            }
        }
        self
    }

    /// The sets.
    pub fn sets(&self) -> &[QuorumSet<N>] {
        &self.sets
    }

    /// Every node of every set, sorted, each once.
    pub fn nodes(&self) -> Vec<N> {
        self.sets.iter().flat_map(|set| set.nodes.iter().copied()).collect::<BTreeSet<N>>().into_iter().collect()
    }

    /// Whether `node` is in any of the sets.
    pub fn contains(&self, node: N) -> bool {
        self.sets.iter().any(|set| set.nodes.contains(&node))
    }

    /// Whether `nodes` hold a quorum of every set.
    pub fn has_quorum(&self, nodes: &BTreeSet<N>) -> bool {
        self.sets.iter().all(|set| set.quorum_count <= set.count(|node| nodes.contains(node)))
    }

    /// Whether in some set no quorum is left, once `lost` (refusing or silent) are out.
    pub fn is_blocked(&self, lost: &BTreeSet<N>) -> bool {
        self.sets.iter().any(|set| set.count(|node| !lost.contains(node)) < set.quorum_count)
    }

    /// The first nodes of `preferred` (nearest first) that together hold a quorum of every set: whom to ask first when hedging.
    ///
    /// All useful nodes of `preferred` if it has no quorum.
    pub fn first_quorum(&self, preferred: &[N]) -> Vec<N> {
        let mut chosen = BTreeSet::new();
        let mut asked = Vec::new();
        for node in preferred {
            let is_useful =
                self.sets.iter().any(|set| set.nodes.contains(node) && set.count(|held| chosen.contains(held)) < set.quorum_count);
            if is_useful && chosen.insert(*node) {
                asked.push(*node);
            }
        }
        asked
    }
}

#[cfg(test)]
mod tests {
    use super::{QuorumSet, QuorumSets};

    fn two_layouts() -> QuorumSets<u8> {
        QuorumSets::new(vec![QuorumSet::majority([1, 2, 3]), QuorumSet::majority([3, 4, 5])])
    }

    #[test]
    fn a_quorum_is_needed_in_every_set_and_a_shared_node_counts_in_both() {
        for (nodes, expected) in
            [(vec![1, 2], false), (vec![1, 3, 4], true), (vec![1, 2, 4, 5], true), (vec![3, 4, 5], false), (vec![], false)]
        {
            assert_eq!(two_layouts().has_quorum(&nodes.iter().copied().collect()), expected, "{nodes:?}");
        }
    }

    #[test]
    fn one_set_without_a_quorum_blocks() {
        for (lost, expected) in [(vec![1, 4], false), (vec![1, 2], true), (vec![3], false), (vec![3, 5], true)] {
            assert_eq!(two_layouts().is_blocked(&lost.iter().copied().collect()), expected, "{lost:?}");
        }
    }

    #[test]
    fn the_first_quorum_takes_the_nearest_that_help() {
        assert_eq!(two_layouts().first_quorum(&[2, 1, 3, 4, 5]), [2, 1, 3, 4]);
        assert_eq!(two_layouts().first_quorum(&[3, 9, 1, 2, 5]), [3, 1, 5]);
        assert_eq!(QuorumSets::single(QuorumSet::majority([1, 2, 3])).first_quorum(&[3, 2, 1]), [3, 2]);
        assert_eq!(two_layouts().first_quorum(&[1]), [1]);
    }

    #[test]
    fn a_majority_is_more_than_half() {
        for (count, quorum) in [(1u8, 1), (2, 2), (3, 2), (4, 3), (5, 3)] {
            assert_eq!(QuorumSet::majority(0..count).quorum_count(), quorum);
        }
    }
}
