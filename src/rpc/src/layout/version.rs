//! One applied layout: roles, and which storage nodes hold each partition. Never changed once made.
//!
//! Invariants, asserted when a layout is computed and checked when one is read:
//! - storage nodes are sorted by id, and are exactly the nodes whose role has a capacity;
//! - every partition has `replication_factor` distinct nodes, in at least as many zones as the redundancy demands;
//! - no node holds more partitions than its capacity divided by the partition size.

use std::collections::{BTreeMap, BTreeSet};

use garage_net::NodeId;
use garage_util::encoding::Stored;
use serde::{Deserialize, Serialize};

use super::error::LayoutDamaged;
use super::role::{CAPACITY_MIN_BYTES, Role, ZoneRedundancy};

/// Partitions of a new cluster.
pub const PARTITION_COUNT_DEFAULT: usize = 256;
/// The most partitions a cluster can have.
pub const PARTITION_COUNT_MAX: usize = 1024;
/// The most copies of each partition.
pub const REPLICATION_FACTOR_MAX: usize = 16;
/// The most nodes with a role, gateways included.
pub const LAYOUT_NODE_COUNT_MAX: usize = 4096;

// The smallest node can hold every partition at one byte each, so only missing nodes or zones make a layout impossible.
const _: () = assert!(PARTITION_COUNT_MAX as u64 <= CAPACITY_MIN_BYTES);
const _: () = assert!(LAYOUT_NODE_COUNT_MAX <= u16::MAX as usize);

/// A slot of the ring: an index below the partition count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Partition(pub u16);

impl Partition {
    /// As an index into arrays.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The partition of a hash among `partition_count`, a power of two: its top bits.
    pub fn of_hash(hash: &[u8; 32], partition_count: usize) -> Partition {
        debug_assert!(partition_count.is_power_of_two() && partition_count <= PARTITION_COUNT_MAX);
        let top = usize::from(u16::from_be_bytes([hash[0], hash[1]]));
        let index = top >> (16 - partition_count.trailing_zeros());
        Partition(index as u16)
    }
}

/// One version of the layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutVersion {
    /// 0 before the first apply, then each apply adds exactly 1.
    pub version: u64,
    /// Raised only by a forced recovery; the higher epoch wins over the same version of a lower one.
    #[serde(default)]
    pub epoch: u64,
    /// Copies of each partition.
    pub replication_factor: usize,
    /// What the operator demands of zones.
    pub zone_redundancy: ZoneRedundancy,
    /// A power of two, the same in all versions of a cluster.
    pub partition_count: usize,
    /// Every node with a role, gateways included.
    pub roles: BTreeMap<NodeId, Role>,
    /// The bytes each partition may grow to so that every node's share fits its capacity; 0 in version 0.
    pub partition_size_bytes: u64,
    /// Storage nodes, sorted; the assignment names them by index.
    pub(super) nodes: Vec<NodeId>,
    /// `replication_factor` indices into `nodes` for each partition in turn, ascending within one; empty in version 0.
    pub(super) assignment: Vec<u16>,
}

impl Stored for LayoutVersion {
    const WHAT: &'static str = "layout version";
}

impl LayoutVersion {
    /// No layout yet: version 0, without nodes.
    pub fn zero(replication_factor: usize, partition_count: usize) -> LayoutVersion {
        assert!((1..=REPLICATION_FACTOR_MAX).contains(&replication_factor), "checked with the config: {replication_factor}");
        assert!(partition_count.is_power_of_two() && partition_count <= PARTITION_COUNT_MAX, "{partition_count} partitions");
        LayoutVersion {
            version: 0,
            epoch: 0,
            replication_factor,
            zone_redundancy: ZoneRedundancy::Maximum,
            partition_count,
            roles: BTreeMap::new(),
            partition_size_bytes: 0,
            nodes: Vec::new(),
            assignment: Vec::new(),
        }
    }

    /// Whether data can be placed: false in version 0 only.
    pub fn is_ready(&self) -> bool {
        !self.assignment.is_empty()
    }

    /// The partition that a hash belongs to.
    pub fn partition_of(&self, hash: &[u8; 32]) -> Partition {
        Partition::of_hash(hash, self.partition_count)
    }

    /// All partitions, in order; also those of version 0, which nobody holds.
    pub fn partitions(&self) -> impl Iterator<Item = Partition> + use<> {
        (0..self.partition_count).map(|index| Partition(index as u16))
    }

    /// The nodes that hold a partition, sorted; none in version 0.
    pub fn nodes_of(&self, partition: Partition) -> impl Iterator<Item = NodeId> + '_ {
        self.indices_of(partition).iter().map(|&index| self.nodes[usize::from(index)])
    }

    /// Whether `node` holds a partition.
    pub fn holds(&self, node: NodeId, partition: Partition) -> bool {
        self.nodes_of(partition).any(|holder| holder == node)
    }

    /// The partitions that `node` holds, in order.
    pub fn partitions_of(&self, node: NodeId) -> impl Iterator<Item = Partition> + '_ {
        self.partitions().filter(move |&partition| self.holds(node, partition))
    }

    /// The nodes that hold data, sorted.
    pub fn storage_nodes(&self) -> &[NodeId] {
        &self.nodes
    }

    /// How many nodes are gateways.
    pub fn gateway_count(&self) -> usize {
        self.roles.len() - self.nodes.len()
    }

    /// The role of a node.
    pub fn role(&self, node: NodeId) -> Option<&Role> {
        self.roles.get(&node)
    }

    /// The zones that have storage nodes, sorted.
    pub fn storage_zones(&self) -> BTreeSet<&str> {
        storage_zones(&self.roles)
    }

    /// The number of distinct zones that the copies of each partition reach at least; 0 in version 0.
    pub fn effective_zone_redundancy(&self) -> usize {
        self.zone_redundancy.effective(self.storage_zones().len(), self.replication_factor)
    }

    /// How many partitions each storage node holds.
    pub fn partition_counts(&self) -> BTreeMap<NodeId, usize> {
        let mut counts: BTreeMap<NodeId, usize> = self.nodes.iter().map(|&node| (node, 0)).collect();
        for &index in &self.assignment {
            *counts.entry(self.nodes[usize::from(index)]).or_default() += 1;
        }
        counts
    }

    /// How much of a node's capacity can be used, in bytes: its partitions times their size; 0 for gateways and strangers.
    pub fn usable_capacity_bytes(&self, node: NodeId) -> u64 {
        self.partitions_of(node).count() as u64 * self.partition_size_bytes
    }

    /// BLAKE3 of the content in a fixed order, whatever encoding it was stored or sent in.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = ContentHasher::new("garage layout version 1");
        hasher.numbers([self.version, self.epoch, self.replication_factor as u64, self.partition_count as u64, self.partition_size_bytes]);
        hasher.numbers(match self.zone_redundancy {
            ZoneRedundancy::Maximum => [0, 0],
            ZoneRedundancy::AtLeast(count) => [1, count as u64],
        });
        hasher.numbers([self.roles.len() as u64]);
        for (node, role) in &self.roles {
            hasher.bytes(node.as_bytes());
            hasher.role(role);
        }
        // The node list follows from the roles.
        hasher.numbers([self.assignment.len() as u64]);
        hasher.numbers(self.assignment.iter().map(|&index| u64::from(index)));
        hasher.finish()
    }

    /// Refuses a layout that was read from a peer or a disk and breaks a rule, so that everything else may index without fear.
    pub fn check(&self) -> Result<(), LayoutDamaged> {
        self.check_shape().and_then(|()| self.check_assignment()).map_err(|reason| LayoutDamaged { version: self.version, reason })
    }

    /// The indices into `storage_nodes` of a partition's holders.
    pub(super) fn indices_of(&self, partition: Partition) -> &[u16] {
        let start = partition.index() * self.replication_factor;
        self.assignment.get(start..start + self.replication_factor).unwrap_or(&[])
    }

    fn check_shape(&self) -> Result<(), String> {
        if !(1..=REPLICATION_FACTOR_MAX).contains(&self.replication_factor) {
            return Err(format!("its replication factor is {}", self.replication_factor));
        }
        if !self.partition_count.is_power_of_two() || PARTITION_COUNT_MAX < self.partition_count {
            return Err(format!("it has {} partitions", self.partition_count));
        }
        if LAYOUT_NODE_COUNT_MAX < self.roles.len() {
            return Err(format!("it has {} nodes", self.roles.len()));
        }
        for (node, role) in &self.roles {
            role.check().map_err(|error| format!("role of node {node}: {error}"))?;
        }
        if !self.nodes.iter().eq(self.roles.iter().filter(|(_, role)| role.is_storage()).map(|(node, _)| node)) {
            return Err("its list of storage nodes is not that of its roles".to_owned());
        }
        let expected = if self.version == 0 { 0 } else { self.partition_count * self.replication_factor };
        if self.assignment.len() != expected {
            return Err(format!("it assigns {} copies, not {expected}", self.assignment.len()));
        }
        Ok(())
    }

    fn check_assignment(&self) -> Result<(), String> {
        if !self.is_ready() {
            return Ok(());
        }
        let zones_needed = self.effective_zone_redundancy();
        for partition in self.partitions() {
            let indices = self.indices_of(partition);
            if indices.iter().any(|&index| self.nodes.len() <= usize::from(index)) {
                return Err(format!("partition {} is on a node that does not exist", partition.0));
            }
            if indices.windows(2).any(|pair| pair[1] <= pair[0]) {
                return Err(format!("the nodes of partition {} are not distinct and sorted", partition.0));
            }
            let zones: BTreeSet<&str> = self.nodes_of(partition).map(|node| self.roles[&node].zone.as_str()).collect();
            if zones.len() < zones_needed {
                return Err(format!("partition {} is in {} zones, not {zones_needed}", partition.0, zones.len()));
            }
        }
        for (node, count) in self.partition_counts() {
            let capacity_bytes = self.roles[&node].capacity_bytes.unwrap_or(0);
            if u128::from(capacity_bytes) < u128::from(self.partition_size_bytes) * count as u128 {
                return Err(format!("node {node} holds more than its capacity"));
            }
        }
        Ok(())
    }
}

/// The zones that have storage nodes among `roles`, sorted.
pub(super) fn storage_zones(roles: &BTreeMap<NodeId, Role>) -> BTreeSet<&str> {
    roles.values().filter(|role| role.is_storage()).map(|role| role.zone.as_str()).collect()
}

/// Feeds content to BLAKE3 so that no two contents feed the same bytes.
pub(super) struct ContentHasher(blake3::Hasher);

impl ContentHasher {
    pub(super) fn new(what: &str) -> ContentHasher {
        let mut hasher = ContentHasher(blake3::Hasher::new());
        hasher.bytes(what.as_bytes());
        hasher
    }

    pub(super) fn numbers(&mut self, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            self.0.update(&number.to_be_bytes());
        }
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.numbers([bytes.len() as u64]);
        self.0.update(bytes);
    }

    pub(super) fn role(&mut self, role: &Role) {
        self.bytes(role.zone.as_bytes());
        self.numbers([u64::from(role.is_storage()), role.capacity_bytes.unwrap_or(0), role.tags.len() as u64]);
        for tag in &role.tags {
            self.bytes(tag.as_bytes());
        }
    }

    pub(super) fn finish(self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use garage_util::encoding::Stored;

    use super::super::assign::compute;
    use super::super::exhaustive::{node, storage};
    use super::{LayoutVersion, Partition, ZoneRedundancy};

    fn three_nodes() -> LayoutVersion {
        let roles = [("a", 1), ("b", 2), ("c", 3)].map(|(zone, id)| (node(id), storage(zone, 1 << 30))).into();
        compute(&LayoutVersion::zero(3, 256), roles, 3, ZoneRedundancy::Maximum).unwrap()
    }

    #[test]
    fn a_partition_is_the_top_bits_of_a_hash() {
        let mut hash = [0xff; 32];
        hash[..2].copy_from_slice(&[0xab, 0xcd]);
        assert_eq!(Partition::of_hash(&hash, 256), Partition(0xab));
        assert_eq!(Partition::of_hash(&hash, 1024), Partition(0xabcd >> 6));
        assert_eq!(Partition::of_hash(&hash, 1), Partition(0));
    }

    #[test]
    fn a_layout_survives_storage_and_keeps_its_digest() {
        let layout = three_nodes();
        let read = LayoutVersion::from_stored(&layout.to_stored()).unwrap();
        assert_eq!(read, layout);
        assert_eq!(read.digest(), layout.digest());
        assert!(read.check().is_ok());
    }

    #[test]
    fn the_digest_covers_every_field() {
        let layout = three_nodes();
        let changes: [fn(&mut LayoutVersion); 8] = [
            |layout| layout.version += 1,
            |layout| layout.epoch += 1,
            |layout| layout.replication_factor += 1,
            |layout| layout.zone_redundancy = ZoneRedundancy::AtLeast(3),
            |layout| layout.partition_count *= 2,
            |layout| layout.partition_size_bytes += 1,
            |layout| layout.roles.values_mut().next().unwrap().tags.push(String::new()),
            |layout| layout.assignment[0] += 1,
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut changed = layout.clone();
            change(&mut changed);
            assert_ne!(changed.digest(), layout.digest(), "change {index}");
        }
    }

    #[test]
    fn a_damaged_layout_is_refused_whatever_is_damaged() {
        let damages: [fn(&mut LayoutVersion); 9] = [
            |layout| layout.replication_factor = 0,
            |layout| layout.partition_count = 255,
            |layout| layout.assignment[4] = 3,
            |layout| layout.assignment.swap(0, 1),
            |layout| layout.assignment[1] = layout.assignment[0],
            |layout| layout.assignment.truncate(5),
            |layout| layout.nodes.reverse(),
            |layout| layout.partition_size_bytes *= 2,
            |layout| layout.roles.values_mut().for_each(|role| role.zone = "same".to_owned()),
        ];
        for (index, damage) in damages.into_iter().enumerate() {
            let mut damaged = three_nodes();
            damage(&mut damaged);
            // With one zone left, the maximum is one zone: not damage.
            assert_eq!(damaged.check().is_err(), index != 8, "damage {index}");
        }
        let mut damaged = three_nodes();
        damaged.zone_redundancy = ZoneRedundancy::AtLeast(4);
        assert!(damaged.check().unwrap_err().to_string().contains("zones"));
    }
}
