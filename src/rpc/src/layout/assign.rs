//! Computes who holds what: the best possible layout for given roles, with the fewest moves from the version before.
//!
//! In this order: copies in as many zones as demanded and shares within capacities (or an error that says what is missing); the
//! largest partition size; the fewest new copies. What is then still free is used to fill nodes evenly.
//!
//! **Size.** Partitions are alike, so whether a size fits is arithmetic. With `slots(n) = min(P, capacity(n) / size)`, `P` partitions
//! of `R` copies in `Z` zones fit exactly when the slots of all nodes sum to `P * R` or more, and the slots of each zone, counted up
//! to `P`, sum to `P * Z` or more: these are the minimum cuts of the network below with all partitions merged into one, and a flow of
//! the merged network, split evenly, is a fractional flow of the full one, which then has a whole-numbered flow as great.
//!
//! **Assignment.** A flow of `P * R` units. Each partition sends `Z` units through *spread*, which gives any zone at most one, and
//! `R - Z` through *free*, which gives any zone any number; so `Z` zones are reached. Each unit goes on to a node of its zone, at most one
//! to a node, free of cost where the node held the partition before, else at cost 1; nodes take what their slots allow.

use std::collections::{BTreeMap, BTreeSet};

use garage_net::NodeId;

use super::error::LayoutError;
use super::flow::{EdgeId, FlowNetwork};
use super::role::{Role, ZoneRedundancy};
use super::version::{LAYOUT_NODE_COUNT_MAX, LayoutVersion, Partition, REPLICATION_FACTOR_MAX, storage_zones};

/// The successor of `previous` for these roles and parameters.
///
/// Errors: too few nodes or zones, or a parameter or role out of range; each says what is missing.
pub(super) fn compute(
    previous: &LayoutVersion,
    roles: BTreeMap<NodeId, Role>,
    replication_factor: usize,
    zone_redundancy: ZoneRedundancy,
) -> Result<LayoutVersion, LayoutError> {
    check_demands(&roles, replication_factor, zone_redundancy)?;
    let problem = Problem::new(previous, &roles, replication_factor, zone_redundancy);
    let partition_size_bytes = problem.largest_size();
    let assignment = Network::new(&problem, partition_size_bytes).solve();
    let layout = LayoutVersion {
        version: previous.version + 1,
        epoch: previous.epoch,
        replication_factor,
        zone_redundancy,
        partition_count: previous.partition_count,
        partition_size_bytes,
        nodes: problem.nodes.iter().map(|node| node.id).collect(),
        assignment,
        roles,
    };
    let checked = layout.check();
    assert!(checked.is_ok(), "computed a layout that breaks its own rules: {checked:?}");
    Ok(layout)
}

fn check_demands(roles: &BTreeMap<NodeId, Role>, replication_factor: usize, zone_redundancy: ZoneRedundancy) -> Result<(), LayoutError> {
    if !(1..=REPLICATION_FACTOR_MAX).contains(&replication_factor) {
        return Err(LayoutError::ReplicationFactorOutOfRange { asked: replication_factor, max: REPLICATION_FACTOR_MAX });
    }
    if LAYOUT_NODE_COUNT_MAX < roles.len() {
        return Err(LayoutError::TooManyNodes { count: roles.len(), max: LAYOUT_NODE_COUNT_MAX });
    }
    roles.values().try_for_each(Role::check)?;
    zone_redundancy.check(replication_factor)?;
    let present_count = roles.values().filter(|role| role.is_storage()).count();
    if present_count < replication_factor {
        return Err(LayoutError::TooFewNodes { replication_factor, present_count, missing_count: replication_factor - present_count });
    }
    let zones = storage_zones(roles);
    let asked = zone_redundancy.effective(zones.len(), replication_factor);
    if zones.len() < asked {
        let missing_count = asked - zones.len();
        return Err(LayoutError::TooFewZones { asked, zones: zones.into_iter().map(str::to_owned).collect(), missing_count });
    }
    Ok(())
}

/// A storage node, numbered by its place in the sorted list.
struct Node {
    id: NodeId,
    zone: usize,
    capacity_bytes: u64,
}

struct Problem<'a> {
    previous: &'a LayoutVersion,
    nodes: Vec<Node>,
    zone_count: usize,
    replication_factor: usize,
    zones_needed: usize,
}

impl Problem<'_> {
    fn new<'a>(
        previous: &'a LayoutVersion,
        roles: &BTreeMap<NodeId, Role>,
        replication_factor: usize,
        zone_redundancy: ZoneRedundancy,
    ) -> Problem<'a> {
        let zones: BTreeMap<&str, usize> = storage_zones(roles).into_iter().enumerate().map(|(index, name)| (name, index)).collect();
        let node = |(&id, role): (&NodeId, &Role)| {
            role.capacity_bytes.map(|capacity_bytes| Node { id, zone: zones[role.zone.as_str()], capacity_bytes })
        };
        Problem {
            previous,
            nodes: roles.iter().filter_map(node).collect(),
            zone_count: zones.len(),
            replication_factor,
            zones_needed: zone_redundancy.effective(zones.len(), replication_factor),
        }
    }

    fn partition_count(&self) -> usize {
        self.previous.partition_count
    }

    /// How many partitions of `size_bytes` a node can hold.
    fn slots(&self, node: &Node, size_bytes: u64) -> u64 {
        (node.capacity_bytes / size_bytes).min(self.partition_count() as u64)
    }

    /// Whether partitions of `size_bytes` fit; see the file header.
    fn fits(&self, size_bytes: u64) -> bool {
        let partition_count = self.partition_count() as u64;
        let mut zone_slots = vec![0; self.zone_count];
        for node in &self.nodes {
            zone_slots[node.zone] += self.slots(node, size_bytes);
        }
        let for_copies: u64 = zone_slots.iter().sum();
        let for_zones: u64 = zone_slots.iter().map(|&slots| slots.min(partition_count)).sum();
        partition_count * self.replication_factor as u64 <= for_copies && partition_count * self.zones_needed as u64 <= for_zones
    }

    /// The largest size that fits.
    fn largest_size(&self) -> u64 {
        // One byte fits, since every node then has a slot for every partition. A node holding one partition is the upper bound.
        let mut fitting = 1;
        let mut too_large = self.nodes.iter().map(|node| node.capacity_bytes).max().unwrap_or(0).saturating_add(1);
        assert!(self.fits(fitting), "enough nodes and zones were checked before");
        while 1 < too_large - fitting {
            let middle = fitting + (too_large - fitting) / 2;
            if self.fits(middle) { fitting = middle } else { too_large = middle }
        }
        fitting
    }
}

/// A partition's edges: to its spread and its free vertex, and on from these to the zones.
struct PartitionEdges {
    spread: EdgeId,
    free: EdgeId,
    spread_to_zone: Vec<EdgeId>,
    free_to_zone: Vec<EdgeId>,
    zone_to_node: Vec<EdgeId>,
}

struct Network<'a> {
    problem: &'a Problem<'a>,
    flow: FlowNetwork,
    partitions: Vec<PartitionEdges>,
    node_to_sink: Vec<EdgeId>,
    held_before: Vec<BTreeSet<usize>>,
}

impl<'a> Network<'a> {
    fn new(problem: &'a Problem<'a>, size_bytes: u64) -> Network<'a> {
        // Vertices: source, sink, the nodes, then for each partition spread, free and one for each zone.
        let first_partition = 2 + problem.nodes.len();
        let vertices_each = 2 + problem.zone_count;
        let mut flow = FlowNetwork::new(first_partition + vertices_each * problem.partition_count(), 0, 1);
        let held_before = held_before(problem);
        let partitions = (0..problem.partition_count())
            .map(|partition| partition_edges(problem, &mut flow, first_partition + vertices_each * partition, &held_before[partition]))
            .collect();
        let sink_edge = |(index, node)| flow.add_edge(2 + index, 1, problem.slots(node, size_bytes) as u32, 0);
        let node_to_sink = problem.nodes.iter().enumerate().map(sink_edge).collect();
        Network { problem, flow, partitions, node_to_sink, held_before }
    }

    /// The holders of each partition in turn, as indices, ascending within one.
    fn solve(mut self) -> Vec<u16> {
        while let Some(cost) = self.flow.next_phase() {
            if cost == 1 {
                self.place_evenly();
            }
            self.flow.fill_phase();
        }
        let copy_count = self.problem.partition_count() * self.problem.replication_factor;
        assert_eq!(self.flow.flow(), copy_count as u64, "the size was chosen so that all copies fit");
        let mut assignment = Vec::with_capacity(copy_count);
        for edges in &self.partitions {
            let holders = edges.zone_to_node.iter().enumerate().filter(|(_, edge)| self.flow.carried(**edge) == 1);
            assignment.extend(holders.map(|(index, _)| index as u16));
        }
        assignment
    }

    /// Places new copies one by one, each on the node that is then least full, as far as that needs no copy placed before to move.
    ///
    /// Each is a path of cost 1, the cost of this phase, so the result stays optimal; the flow finds the paths that are left.
    fn place_evenly(&mut self) {
        for partition in 0..self.partitions.len() {
            while let Some(path) = self.best_direct_path(partition) {
                self.flow.push_path(&path);
            }
        }
    }

    /// The direct path for one more copy of `partition` to the least full node that may take it.
    fn best_direct_path(&self, partition: usize) -> Option<[EdgeId; 4]> {
        let edges = &self.partitions[partition];
        let is_open = |edge: EdgeId| 0 < self.flow.spare(edge);
        // Spread copies go first: they have fewer zones to choose from.
        for (into, to_zone) in [(edges.spread, &edges.spread_to_zone), (edges.free, &edges.free_to_zone)] {
            if !is_open(into) {
                continue;
            }
            let candidates = (0..self.problem.nodes.len()).filter(|&index| {
                is_open(edges.zone_to_node[index])
                    && is_open(self.node_to_sink[index])
                    && is_open(to_zone[self.problem.nodes[index].zone])
                    && !self.held_before[partition].contains(&index)
            });
            if let Some(index) = candidates.min_by(|&a, &b| self.compare_fullness(partition, a, b)) {
                return Some([into, to_zone[self.problem.nodes[index].zone], edges.zone_to_node[index], self.node_to_sink[index]]);
            }
        }
        None
    }

    /// Orders nodes by how full one more copy would make them; equals by a mix that differs from partition to partition, so that
    /// a node's partitions are shared with many others, which all help when it must be rebuilt; then by id.
    fn compare_fullness(&self, partition: usize, a: usize, b: usize) -> std::cmp::Ordering {
        let after = |index: usize| u128::from(self.flow.carried(self.node_to_sink[index])) + 1;
        let capacity = |index: usize| u128::from(self.problem.nodes[index].capacity_bytes);
        let fullness = (after(a) * capacity(b)).cmp(&(after(b) * capacity(a)));
        fullness.then_with(|| mix(partition, a).cmp(&mix(partition, b))).then_with(|| a.cmp(&b))
    }
}

/// Adds one partition's part of the network, whose vertices start at `first`.
fn partition_edges(problem: &Problem<'_>, flow: &mut FlowNetwork, first: usize, held_before: &BTreeSet<usize>) -> PartitionEdges {
    let (spread, free, zone) = (first, first + 1, |index: usize| first + 2 + index);
    let free_count = (problem.replication_factor - problem.zones_needed) as u32;
    PartitionEdges {
        spread: flow.add_edge(0, spread, problem.zones_needed as u32, 0),
        free: flow.add_edge(0, free, free_count, 0),
        spread_to_zone: (0..problem.zone_count).map(|index| flow.add_edge(spread, zone(index), 1, 0)).collect(),
        free_to_zone: (0..problem.zone_count).map(|index| flow.add_edge(free, zone(index), free_count, 0)).collect(),
        zone_to_node: problem
            .nodes
            .iter()
            .enumerate()
            .map(|(index, node)| flow.add_edge(zone(node.zone), 2 + index, 1, u8::from(!held_before.contains(&index))))
            .collect(),
    }
}

/// For each partition, the nodes that held it in the version before and are still storage nodes.
fn held_before(problem: &Problem<'_>) -> Vec<BTreeSet<usize>> {
    let index_of = |id: NodeId| problem.nodes.binary_search_by_key(&id, |node| node.id).ok();
    let holders = |partition: Partition| problem.previous.nodes_of(partition).filter_map(index_of).collect();
    problem.previous.partitions().map(holders).collect()
}

/// A well-mixed number for a partition and a node (the finalizer of splitmix64).
fn mix(partition: usize, node: usize) -> u64 {
    let mut bits = ((partition as u64) << 32 | node as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
