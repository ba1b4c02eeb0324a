//! The live layout versions, how far each node has come in moving between them, and the changes staged for the next.
//!
//! While data moves, several versions are live, contiguous from the oldest to the newest: writes need a quorum in each, reads go to
//! the newest that every node is in sync with. Each node raises its own trackers; once every node has acknowledged that all are in
//! sync with a version, the older ones become historical.
//!
//! Invariants:
//! - `merge` is commutative, associative and idempotent; a higher epoch overrules a lower one in all but the staged changes;
//! - the oldest live version never goes back, and never passes the newest;
//! - a write set for each live version: no reader of any live version can miss an acknowledged write.
//!
//! Not here: agreement on who applies version N+1, and when a node may raise its trackers.

use std::collections::{BTreeMap, BTreeSet};

use garage_net::NodeId;
use garage_util::config::ConsistencyMode;
use garage_util::encoding::Stored;
use serde::{Deserialize, Serialize};

use super::assign::compute;
use super::error::{LayoutDamaged, LayoutError};
use super::quorums::{read_quorum, write_quorum};
use super::report::LayoutReport;
use super::role::Role;
use super::staging::{RoleChange, Staging};
use super::version::{ContentHasher, LayoutVersion, Partition};

/// How many versions that are no longer live are kept, to find blocks that have not moved yet.
pub const HISTORICAL_VERSIONS_KEPT: usize = 5;
/// The most nodes with trackers or staged changes that are taken from a peer; far above what a cluster can hold at a time.
pub(super) const NODES_EVER_MAX: usize = 65_536;
/// The most live versions that are taken from a peer.
const LIVE_VERSIONS_MAX: usize = 64;

/// How far one node has come; each is a version number and only rises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trackers {
    /// It no longer coordinates a write that is unaware of this version.
    pub ack: u64,
    /// It has what it must hold in this version.
    pub sync: u64,
    /// It knows that every node is in sync with this version, and reads from it.
    pub sync_ack: u64,
}

impl Trackers {
    /// The greater of each.
    pub fn merged(self, other: Trackers) -> Trackers {
        Trackers { ack: self.ack.max(other.ack), sync: self.sync.max(other.sync), sync_ack: self.sync_ack.max(other.sync_ack) }
    }
}

/// Where one write of a partition goes in one live version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteSet {
    /// The version; the newest of those that place the partition on the same nodes.
    pub version: u64,
    /// Its nodes, sorted.
    pub nodes: Vec<NodeId>,
    /// How many of them must acknowledge.
    pub quorum: usize,
}

/// Where a partition is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadSet {
    /// The newest version that every node is in sync with.
    pub version: u64,
    /// Its nodes, sorted.
    pub nodes: Vec<NodeId>,
    /// How many of them must answer.
    pub quorum: usize,
}

/// Where one partition lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The partition.
    pub partition: Partition,
    /// A write needs the quorum of each.
    pub write_sets: Vec<WriteSet>,
    /// A read needs this quorum.
    pub read_set: ReadSet,
}

impl Placement {
    /// Every node that a write goes to, sorted.
    pub fn write_nodes(&self) -> BTreeSet<NodeId> {
        self.write_sets.iter().flat_map(|set| set.nodes.iter().copied()).collect()
    }
}

/// What a version is to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VersionStatus {
    /// The newest.
    Current,
    /// Older, still written to.
    Draining,
    /// Kept to find old blocks.
    Historical,
}

/// One line of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionSummary {
    /// Its number.
    pub version: u64,
    /// What it is to the cluster.
    pub status: VersionStatus,
    /// Nodes that hold data in it.
    pub storage_node_count: usize,
    /// Nodes that hold none.
    pub gateway_node_count: usize,
}

/// All that a node knows of the layout: what it keeps on disk and gossips.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutHistory {
    /// Historical and live, by number; never empty.
    versions: BTreeMap<u64, LayoutVersion>,
    oldest_live: u64,
    pub(super) trackers: BTreeMap<NodeId, Trackers>,
    staging: Staging,
}

impl Stored for LayoutHistory {
    const WHAT: &'static str = "layout history";
}

impl LayoutHistory {
    /// A cluster without a layout: version 0, nothing staged.
    pub fn new(replication_factor: usize, partition_count: usize) -> LayoutHistory {
        LayoutHistory {
            versions: BTreeMap::from([(0, LayoutVersion::zero(replication_factor, partition_count))]),
            oldest_live: 0,
            trackers: BTreeMap::new(),
            staging: Staging::default(),
        }
    }

    /// The newest version.
    pub fn current(&self) -> &LayoutVersion {
        self.versions.values().next_back().expect("never empty: made with one version, checked when read, and the newest is never pruned")
    }

    /// A version that is live or still kept.
    pub fn version(&self, version: u64) -> Option<&LayoutVersion> {
        self.versions.get(&version)
    }

    /// The live versions, oldest first.
    pub fn live(&self) -> impl DoubleEndedIterator<Item = &LayoutVersion> {
        self.versions.range(self.oldest_live..).map(|(_, version)| version)
    }

    /// The versions no longer live that are kept, oldest first.
    pub fn historical(&self) -> impl DoubleEndedIterator<Item = &LayoutVersion> {
        self.versions.range(..self.oldest_live).map(|(_, version)| version)
    }

    /// The oldest live version's number.
    pub fn oldest_live(&self) -> u64 {
        self.oldest_live
    }

    /// The epoch of the newest version.
    pub fn epoch(&self) -> u64 {
        self.current().epoch
    }

    /// Every node with a role in a live version, gateways included.
    pub fn live_nodes(&self) -> BTreeSet<NodeId> {
        self.live().flat_map(|version| version.roles.keys().copied()).collect()
    }

    /// Every node with a role in a version that is kept, live or not.
    pub fn remembered_nodes(&self) -> BTreeSet<NodeId> {
        self.versions.values().flat_map(|version| version.roles.keys().copied()).collect()
    }

    /// Every node that holds data in a live version.
    pub fn live_storage_nodes(&self) -> BTreeSet<NodeId> {
        self.live().flat_map(|version| version.storage_nodes().iter().copied()).collect()
    }

    /// Whether a node has no role any more and still holds data of an older live version.
    pub fn is_draining(&self, node: NodeId) -> bool {
        self.current().role(node).is_none() && self.live().any(|version| version.storage_nodes().binary_search(&node).is_ok())
    }

    /// The history's lines, newest first.
    pub fn summaries(&self) -> Vec<VersionSummary> {
        let current = self.current().version;
        let status = |version: u64| match version {
            _ if version == current => VersionStatus::Current,
            _ if self.oldest_live <= version => VersionStatus::Draining,
            _ => VersionStatus::Historical,
        };
        let summary = |version: &LayoutVersion| VersionSummary {
            version: version.version,
            status: status(version.version),
            storage_node_count: version.storage_nodes().len(),
            gateway_node_count: version.gateway_count(),
        };
        self.versions.values().rev().map(summary).collect()
    }

    /// BLAKE3 of everything here: two nodes with equal digests need not exchange their histories.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = ContentHasher::new("garage layout history 1");
        hasher.numbers([self.oldest_live, self.versions.len() as u64]);
        for version in self.versions.values() {
            hasher.bytes(&version.digest());
        }
        hasher.numbers([self.trackers.len() as u64]);
        for (node, trackers) in &self.trackers {
            hasher.bytes(node.as_bytes());
            hasher.numbers([trackers.ack, trackers.sync, trackers.sync_ack]);
        }
        self.staging.feed(&mut hasher);
        hasher.finish()
    }

    // ---- Placement ----

    /// Where a partition lives; `None` before the first layout.
    pub fn placement(&self, partition: Partition, mode: ConsistencyMode) -> Option<Placement> {
        let read_set = self.read_set(partition, mode)?;
        Some(Placement { partition, write_sets: self.write_sets(partition, mode), read_set })
    }

    /// Where writes of a partition go: one set for each live version that places it differently, newest first.
    pub fn write_sets(&self, partition: Partition, mode: ConsistencyMode) -> Vec<WriteSet> {
        let mut sets: Vec<WriteSet> = Vec::new();
        for version in self.live().rev().filter(|version| version.is_ready()) {
            let nodes: Vec<NodeId> = version.nodes_of(partition).collect();
            if !sets.iter().any(|set| set.nodes == nodes) {
                sets.push(WriteSet { version: version.version, nodes, quorum: write_quorum(version.replication_factor, mode) });
            }
        }
        sets
    }

    /// Where a partition is read; `None` before the first layout.
    pub fn read_set(&self, partition: Partition, mode: ConsistencyMode) -> Option<ReadSet> {
        let version = self.read_version();
        version.is_ready().then(|| ReadSet {
            version: version.version,
            nodes: version.nodes_of(partition).collect(),
            quorum: read_quorum(version.replication_factor, mode),
        })
    }

    /// The newest live version that every node is in sync with, or the oldest live one.
    pub fn read_version(&self) -> &LayoutVersion {
        let synced = self.min_of(|trackers| trackers.sync).max(self.oldest_live);
        self.versions.range(self.oldest_live..=synced).next_back().map_or(self.current(), |(_, version)| version)
    }

    // ---- Trackers ----

    /// A node's trackers.
    pub fn trackers(&self, node: NodeId) -> Trackers {
        self.trackers.get(&node).copied().unwrap_or_default()
    }

    /// The trackers of every node with a role in a live version.
    pub fn live_trackers(&self) -> BTreeMap<NodeId, Trackers> {
        self.live_nodes().into_iter().map(|node| (node, self.trackers(node))).collect()
    }

    /// The newest version that no node coordinates writes unaware of: data written before it can be synced from then on.
    pub fn min_ack(&self) -> u64 {
        self.min_of(|trackers| trackers.ack)
    }

    /// The newest version that every node is in sync with.
    pub fn min_sync(&self) -> u64 {
        self.min_of(|trackers| trackers.sync)
    }

    /// Raises a node's trackers; whether anything changed.
    pub fn raise_trackers(&mut self, node: NodeId, to: Trackers) -> bool {
        let before = self.trackers(node);
        let after = before.merged(to);
        if after != before {
            self.trackers.insert(node, after);
        }
        after != before
    }

    /// Raises what follows for this node from what it knows of all: it reads from the newest synced version, and a node that
    /// holds nothing in any live version is in sync with all. Whether anything changed.
    pub fn follow(&mut self, node: NodeId) -> bool {
        if !self.live_nodes().contains(&node) {
            return false;
        }
        let holds_data = self.live_storage_nodes().contains(&node);
        let sync = if holds_data { 0 } else { self.current().version };
        let synced_first = self.raise_trackers(node, Trackers { sync, ..Trackers::default() });
        let sync_ack = self.read_version().version;
        self.raise_trackers(node, Trackers { sync_ack, ..Trackers::default() }) || synced_first
    }

    /// Lets go of the live versions that no node reads any more; whether anything changed.
    pub fn advance(&mut self) -> bool {
        let unread_below = self.min_of(|trackers| trackers.sync_ack);
        if unread_below <= self.oldest_live {
            return false;
        }
        self.oldest_live = unread_below;
        self.prune();
        true
    }

    // ---- Staging and applying ----

    /// The staged changes.
    pub fn staging(&self) -> &Staging {
        &self.staging
    }

    /// The staged changes, to add to them.
    pub fn staging_mut(&mut self) -> &mut Staging {
        &mut self.staging
    }

    /// The role changes that would change the current version, by node.
    pub fn staged_role_changes(&self) -> impl Iterator<Item = (NodeId, &RoleChange)> {
        self.staging.role_changes(self.current())
    }

    /// The role a node has once the staged changes are applied; what `layout assign` completes.
    pub fn role_after_staging(&self, node: NodeId) -> Option<Role> {
        self.staging.roles_after(self.current()).remove(&node)
    }

    /// The replication factor of the next version.
    pub fn replication_factor_after_staging(&self) -> usize {
        self.staging.replication_factor_change(self.current()).unwrap_or(self.current().replication_factor)
    }

    /// The next version with the staged changes made, and its report; nothing is changed.
    pub fn preview(&self) -> Result<(LayoutVersion, LayoutReport), LayoutError> {
        let current = self.current();
        let zone_redundancy = self.staging.zone_redundancy_change(current).unwrap_or(current.zone_redundancy);
        let roles = self.staging.roles_after(current);
        let next = compute(current, roles, self.replication_factor_after_staging(), zone_redundancy)?;
        let report = LayoutReport::new(current, &next);
        Ok((next, report))
    }

    /// The history with the staged changes applied as `version`, which must be the current one plus 1.
    ///
    /// Works with nothing staged: the assignment is then computed anew.
    pub fn apply_staged(&self, version: u64) -> Result<(LayoutHistory, LayoutReport), LayoutError> {
        let expected = self.current().version + 1;
        if version != expected {
            return Err(LayoutError::WrongVersion { given: version, expected });
        }
        let (next, report) = self.preview()?;
        Ok((self.with_version(next), report))
    }

    /// The history with `next` as its newest version, as decided by those who agree on it.
    ///
    /// Staged changes that `next` makes true are dropped; what was staged meanwhile stays staged.
    pub fn with_version(&self, next: LayoutVersion) -> LayoutHistory {
        assert_eq!(next.version, self.current().version + 1, "versions follow each other");
        let mut history = self.clone();
        history.staging.settle(&next);
        if !self.current().is_ready() {
            // Nothing was stored before, so there is nothing to move.
            history.oldest_live = next.version;
        }
        history.versions.insert(next.version, next);
        history.prune();
        history
    }

    /// The history with the staged changes applied in a new epoch: for a cluster that lost so many nodes or stores that the present versions
    /// can never be left in good order. Only the new version is live; what the older ones still waited for is given up.
    pub fn forced(&self) -> Result<(LayoutHistory, LayoutReport), LayoutError> {
        let (mut next, report) = self.preview()?;
        (next.epoch, next.version) = (self.epoch() + 1, self.current().version + 1);
        let version = next.version;
        let mut history = self.clone();
        history.staging.settle(&next);
        history.trackers = next.roles.keys().map(|node| (*node, Trackers { ack: version, sync: version, sync_ack: version })).collect();
        history.oldest_live = version;
        history.versions.insert(version, next);
        history.prune();
        Ok((history, report))
    }

    /// Takes over what is newer in `other`, which passed [`LayoutHistory::check_peer`]; whether anything changed.
    pub fn merge(&mut self, other: &LayoutHistory) -> bool {
        if self.is_of_another_cluster(other) {
            return false;
        }
        let before = self.clone();
        self.staging.merge(&other.staging);
        match other.epoch().cmp(&self.epoch()) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => self.merge_versions(other),
            std::cmp::Ordering::Greater => {
                self.versions.clone_from(&other.versions);
                self.oldest_live = other.oldest_live;
                self.trackers.clone_from(&other.trackers);
            }
        }
        *self != before
    }

    /// Refuses a history that a peer sent and that breaks a rule, or can't be merged with this one.
    pub fn check_peer(&self, theirs: &LayoutHistory) -> Result<(), LayoutDamaged> {
        theirs.check()?;
        if self.is_of_another_cluster(theirs) {
            let (ours, theirs) = (self.current(), theirs.current());
            let reason =
                format!("it is of another cluster, with {} partitions instead of {}", theirs.partition_count, ours.partition_count);
            return Err(LayoutDamaged { version: theirs.version, reason });
        }
        Ok(())
    }

    /// Refuses a history that was read from a peer or a disk and breaks a rule.
    pub fn check(&self) -> Result<(), LayoutDamaged> {
        let newest = self.versions.keys().next_back().copied().unwrap_or(0);
        let damaged = |reason: String| LayoutDamaged { version: newest, reason };
        let live_count = self.versions.range(self.oldest_live..).count();
        if live_count == 0 || newest - self.oldest_live != live_count as u64 - 1 {
            return Err(damaged("its live versions do not follow each other".to_owned()));
        }
        if LIVE_VERSIONS_MAX < live_count || HISTORICAL_VERSIONS_KEPT < self.versions.len() - live_count {
            return Err(damaged(format!("it has {} versions", self.versions.len())));
        }
        if NODES_EVER_MAX < self.trackers.len() {
            return Err(damaged(format!("it has trackers of {} nodes", self.trackers.len())));
        }
        self.staging.check().map_err(|error| damaged(format!("staged changes: {error}")))?;
        for (&number, version) in &self.versions {
            version.check()?;
            if number != version.version || version.partition_count != self.current().partition_count {
                return Err(damaged(format!("version {number} does not fit the others")));
            }
        }
        Ok(())
    }

    fn is_of_another_cluster(&self, other: &LayoutHistory) -> bool {
        let (ours, theirs) = (self.current(), other.current());
        ours.is_ready() && theirs.is_ready() && ours.partition_count != theirs.partition_count
    }

    fn merge_versions(&mut self, other: &LayoutHistory) {
        for (&number, theirs) in &other.versions {
            // Two layouts of one number arise only when an agreement was forced; all nodes then settle on the same one.
            let rank = |version: &LayoutVersion| (version.epoch, version.digest());
            match self.versions.get(&number) {
                Some(ours) if ours == theirs || rank(theirs) <= rank(ours) => {}
                _ => drop(self.versions.insert(number, theirs.clone())),
            }
        }
        for (&node, &theirs) in &other.trackers {
            let ours = self.trackers.entry(node).or_default();
            *ours = ours.merged(theirs);
        }
        self.oldest_live = self.oldest_live.max(other.oldest_live);
        self.prune();
    }

    /// The least of a tracker over every node of the live versions, at most the newest version.
    fn min_of(&self, tracker: impl Fn(&Trackers) -> u64) -> u64 {
        let newest = self.current().version;
        self.live_nodes().into_iter().map(|node| tracker(&self.trackers(node))).min().unwrap_or(newest).min(newest)
    }

    /// Drops historical versions but the newest few, and version 0, which nothing was stored in.
    fn prune(&mut self) {
        let kept: BTreeSet<u64> = self
            .historical()
            .rev()
            .filter(|version| version.is_ready())
            .map(|version| version.version)
            .take(HISTORICAL_VERSIONS_KEPT)
            .collect();
        let oldest_live = self.oldest_live;
        self.versions.retain(|number, _| oldest_live <= *number || kept.contains(number));
        debug_assert!(self.versions.contains_key(&oldest_live), "live versions are never pruned");
    }
}

#[cfg(test)]
mod tests;
