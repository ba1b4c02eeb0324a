//! Tests of computed layouts: against an exhaustive search on small clusters, by their rules on large ones.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use garage_net::NodeId;
use proptest::prelude::*;

use super::assign::compute;
use super::error::LayoutError;
use super::report::LayoutReport;
use super::role::{Role, ZoneRedundancy};
use super::version::LayoutVersion;

/// A node id for tests; ids sort as their numbers.
pub(super) fn node(number: u16) -> NodeId {
    let mut bytes = [0; 32];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    NodeId(bytes)
}

/// A storage role.
pub(super) fn storage(zone: &str, capacity_bytes: u64) -> Role {
    Role { zone: zone.to_owned(), capacity_bytes: Some(capacity_bytes), tags: Vec::new() }
}

/// A gateway role.
pub(super) fn gateway(zone: &str) -> Role {
    Role { zone: zone.to_owned(), capacity_bytes: None, tags: Vec::new() }
}

/// Numbers the roles from 1.
pub(super) fn cluster(roles: impl IntoIterator<Item = Role>) -> BTreeMap<NodeId, Role> {
    (1..).map(node).zip(roles).collect()
}

/// Every set of `size` nodes out of `nodes` that reaches `zones_needed` zones.
fn valid_sets(roles: &BTreeMap<NodeId, Role>, size: usize, zones_needed: usize) -> Vec<BTreeSet<NodeId>> {
    let nodes: Vec<NodeId> = roles.iter().filter(|(_, role)| role.is_storage()).map(|(&id, _)| id).collect();
    let subset = |bits: u32| nodes.iter().enumerate().filter(|(index, _)| bits >> index & 1 == 1).map(|(_, &id)| id).collect();
    let zone_count = |set: &BTreeSet<NodeId>| set.iter().map(|id| &roles[id].zone).collect::<BTreeSet<_>>().len();
    let sets = (0..1u32 << nodes.len()).map(subset);
    sets.filter(|set: &BTreeSet<NodeId>| set.len() == size && zones_needed <= zone_count(set)).collect()
}

/// Tries every assignment; the largest partition size, and the fewest new copies that reach it.
struct Search<'a> {
    roles: &'a BTreeMap<NodeId, Role>,
    sets: Vec<BTreeSet<NodeId>>,
    held_before: Vec<BTreeSet<NodeId>>,
    counts: BTreeMap<NodeId, u64>,
    best: (u64, std::cmp::Reverse<usize>),
}

impl Search<'_> {
    fn best(roles: &BTreeMap<NodeId, Role>, sets: Vec<BTreeSet<NodeId>>, held_before: Vec<BTreeSet<NodeId>>) -> (u64, usize) {
        let mut search = Search { roles, sets, held_before, counts: BTreeMap::new(), best: (0, std::cmp::Reverse(usize::MAX)) };
        search.try_from(0, 0);
        (search.best.0, search.best.1.0)
    }

    fn try_from(&mut self, partition: usize, new_copies: usize) {
        if partition == self.held_before.len() {
            let room = |(id, &count): (&NodeId, &u64)| self.roles[id].capacity_bytes.unwrap().checked_div(count);
            let size = self.counts.iter().filter_map(room).min().unwrap();
            self.best = self.best.max((size, std::cmp::Reverse(new_copies)));
            return;
        }
        for set in self.sets.clone() {
            let added = set.difference(&self.held_before[partition]).count();
            set.iter().for_each(|&id| *self.counts.entry(id).or_default() += 1);
            self.try_from(partition + 1, new_copies + added);
            set.iter().for_each(|id| *self.counts.get_mut(id).unwrap() -= 1);
        }
    }
}

fn new_copy_count(previous: &LayoutVersion, next: &LayoutVersion) -> usize {
    let is_new = |partition| next.nodes_of(partition).filter(|&id| !previous.holds(id, partition)).count();
    next.partitions().map(is_new).sum()
}

/// What every layout promises, counted here from the assignment alone.
fn assert_keeps_its_promises(layout: &LayoutVersion, zones_needed: usize) {
    let mut counts: BTreeMap<NodeId, u64> = BTreeMap::new();
    for partition in layout.partitions() {
        let holders: BTreeSet<NodeId> = layout.nodes_of(partition).collect();
        assert_eq!(holders.len(), layout.replication_factor, "{partition:?}: distinct nodes");
        let zones: BTreeSet<&str> = holders.iter().map(|id| layout.roles[id].zone.as_str()).collect();
        assert!(zones_needed <= zones.len(), "{partition:?}: {zones:?}");
        holders.into_iter().for_each(|id| *counts.entry(id).or_default() += 1);
    }
    for (id, count) in counts {
        let capacity_bytes = layout.roles[&id].capacity_bytes.expect("a gateway holds nothing");
        assert!(count * layout.partition_size_bytes <= capacity_bytes, "{id}: {count} partitions");
    }
}

fn small_roles(node_count: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = BTreeMap<NodeId, Role>> {
    // Few different capacities and zones, so that ties and shortages are frequent.
    let role = (0..4u8, prop_oneof![Just(1024), Just(2048), Just(3000), 1024..9000u64]);
    let role = role.prop_map(|(zone, capacity_bytes)| storage(&zone.to_string(), capacity_bytes));
    prop::collection::vec(role, node_count).prop_map(cluster)
}

/// A layout that assigns partitions at random, whatever the capacities: a worst case for what comes next.
fn scattered(roles: &BTreeMap<NodeId, Role>, replication_factor: usize, partition_count: usize, picks: &[usize]) -> LayoutVersion {
    let sets = valid_sets(roles, replication_factor, 1);
    let mut layout = LayoutVersion::zero(replication_factor, partition_count);
    layout.version = 1;
    layout.nodes = roles.keys().copied().collect();
    for partition in 0..partition_count {
        let set = &sets[picks[partition] % sets.len()];
        layout.assignment.extend(set.iter().map(|id| layout.nodes.binary_search(id).unwrap() as u16));
    }
    layout.roles = roles.clone();
    layout
}

prop_compose! {
    /// A previous layout, and the roles, replication factor and zones of the next one.
    fn small_change()(
        before in small_roles(2..=4), after in small_roles(1..=4), shared in any::<bool>(), (factor_before, factor) in (1..=2usize, 1..=3usize),
        partition_bits in 0..=2u32, picks in prop::collection::vec(0..100usize, 4), at_least in 0..=3usize,
    ) -> (LayoutVersion, BTreeMap<NodeId, Role>, usize, ZoneRedundancy) {
        let previous = scattered(&before, factor_before, 1 << partition_bits, &picks);
        // Half of the cases only add or remove nodes.
        let after = if shared { after.into_iter().map(|(id, role)| (id, before.get(&id).cloned().unwrap_or(role))).collect() } else { after };
        let redundancy = if at_least == 0 { ZoneRedundancy::Maximum } else { ZoneRedundancy::AtLeast(at_least) };
        (previous, after, factor, redundancy)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn a_small_layout_is_as_large_as_possible_with_as_few_moves_as_possible((previous, roles, factor, redundancy) in small_change()) {
        let zone_count = roles.values().map(|role| &role.zone).collect::<BTreeSet<_>>().len();
        let zones_needed = redundancy.effective(zone_count, factor);
        let sets = valid_sets(&roles, factor, zones_needed);
        let computed = compute(&previous, roles.clone(), factor, redundancy);
        if zones_needed > factor || sets.is_empty() {
            prop_assert!(computed.is_err(), "nothing fits");
            return Ok(());
        }
        let next = computed.unwrap();
        assert_keeps_its_promises(&next, zones_needed);
        let held_before = previous.partitions().map(|partition| previous.nodes_of(partition).collect()).collect();
        let best = Search::best(&roles, sets, held_before);
        prop_assert_eq!((next.partition_size_bytes, new_copy_count(&previous, &next)), best);
    }
}

prop_compose! {
    fn large_roles()(
        roles in prop::collection::vec((0..5u8, prop_oneof![4 => (1 << 30..1u64 << 42).prop_map(Some), 1 => Just(None)]), 4..40),
    ) -> BTreeMap<NodeId, Role> {
        cluster(roles.into_iter().map(|(zone, capacity_bytes)| Role { capacity_bytes, ..gateway(&zone.to_string()) }))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn random_clusters_get_layouts_that_keep_their_promises(
        steps in prop::collection::vec((large_roles(), 1..=4usize, 0..=4usize), 1..4),
    ) {
        let mut previous = LayoutVersion::zero(3, 256);
        for (roles, factor, at_least) in steps {
            let redundancy = if at_least == 0 { ZoneRedundancy::Maximum } else { ZoneRedundancy::AtLeast(at_least) };
            let storage_zones: BTreeSet<&str> = roles.values().filter(|role| role.is_storage()).map(|role| role.zone.as_str()).collect();
            let zones_needed = redundancy.effective(storage_zones.len(), factor);
            let storage_count = roles.values().filter(|role| role.is_storage()).count();
            let possible = factor <= storage_count && zones_needed <= storage_zones.len() && at_least <= factor;
            let computed = compute(&previous, roles.clone(), factor, redundancy);
            prop_assert_eq!(computed.is_ok(), possible);
            let Ok(next) = computed else { continue };
            assert_keeps_its_promises(&next, zones_needed);
            prop_assert_eq!(compute(&previous, roles, factor, redundancy).unwrap(), next.clone(), "deterministic");
            let report = LayoutReport::new(&previous, &next);
            prop_assert_eq!(report.moved_partition_count, previous.is_ready().then(|| new_copy_count(&previous, &next)));
            previous = next;
        }
    }

    #[test]
    fn computing_again_without_a_change_moves_nothing(roles in large_roles()) {
        let first = compute(&LayoutVersion::zero(2, 256), roles.clone(), 2, ZoneRedundancy::Maximum);
        if let Ok(first) = first {
            let second = compute(&first, roles, 2, ZoneRedundancy::Maximum).unwrap();
            prop_assert_eq!(new_copy_count(&first, &second), 0);
            prop_assert_eq!(first.partition_size_bytes, second.partition_size_bytes);
        }
    }
}

fn zones_of_nodes(zone_count: usize, nodes_each: usize, capacity_bytes: u64) -> BTreeMap<NodeId, Role> {
    cluster((0..zone_count * nodes_each).map(|index| storage(&format!("zone{}", index % zone_count), capacity_bytes)))
}

#[test]
fn a_hundred_nodes_are_laid_out_and_a_loss_of_ten_moves_only_what_they_held() {
    let roles = zones_of_nodes(4, 25, 1 << 40);
    let first = compute(&LayoutVersion::zero(3, 256), roles.clone(), 3, ZoneRedundancy::Maximum).unwrap();
    assert_keeps_its_promises(&first, 3);
    let counts = first.partition_counts();
    assert!(counts.values().all(|count| (7..=8).contains(count)), "768 copies on 100 equal nodes: {counts:?}");

    let left: BTreeMap<_, _> = roles.into_iter().skip(10).collect();
    let second = compute(&first, left, 3, ZoneRedundancy::Maximum).unwrap();
    assert_keeps_its_promises(&second, 3);
    let held_by_the_lost: usize = counts.iter().take(10).map(|(_, count)| count).sum();
    assert_eq!(new_copy_count(&first, &second), held_by_the_lost);
}

/// What this thread has computed so far: unlike elapsed time, it does not depend on who else uses the machine.
fn computed() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells how long a thread ran");
    Duration::from_nanos(text.split_whitespace().next().and_then(|ns| ns.parse().ok()).expect("the first number is a time"))
}

#[test]
fn three_to_a_hundred_nodes_and_one_more_are_laid_out_within_a_second_each() {
    let mut longest = (Duration::ZERO, 0);
    for node_count in 3..=100 {
        // Unequal nodes in unequal zones.
        let role = |index: usize| storage(&format!("zone{}", index * index % 7), (1 << 40) + ((index as u64 * 7919) << 30));
        let roles = |count: usize| cluster((0..count).map(role));
        let begun = computed();
        let first = compute(&LayoutVersion::zero(3, 256), roles(node_count), 3, ZoneRedundancy::Maximum).unwrap();
        let then = computed();
        compute(&first, roles(node_count + 1), 3, ZoneRedundancy::Maximum).unwrap();
        for took in [then - begun, computed() - then] {
            longest = longest.max((took, node_count));
        }
    }
    println!("the longest took {:?}, with {} nodes", longest.0, longest.1);
    assert!(longest.0 < Duration::from_secs(1), "{longest:?}");
}

#[test]
fn a_hundred_zones_and_a_thousand_partitions_are_laid_out() {
    let layout = compute(&LayoutVersion::zero(3, 1024), zones_of_nodes(100, 1, 1 << 40), 3, ZoneRedundancy::AtLeast(2)).unwrap();
    assert_keeps_its_promises(&layout, 2);
}

#[test]
fn a_fourth_equal_node_takes_a_quarter_and_nothing_else_moves() {
    let first = compute(&LayoutVersion::zero(3, 256), zones_of_nodes(3, 1, 1 << 40), 3, ZoneRedundancy::AtLeast(1)).unwrap();
    let second = compute(&first, zones_of_nodes(4, 1, 1 << 40), 3, ZoneRedundancy::AtLeast(1)).unwrap();
    assert!(second.partition_counts().values().all(|&count| count == 192));
    assert_eq!(new_copy_count(&first, &second), 192);
}

#[test]
fn going_from_one_copy_to_three_keeps_the_one_where_it_is() {
    let roles = zones_of_nodes(3, 1, 1 << 40);
    let single = compute(&LayoutVersion::zero(1, 256), roles.clone(), 1, ZoneRedundancy::Maximum).unwrap();
    let triple = compute(&single, roles, 3, ZoneRedundancy::Maximum).unwrap();
    assert_eq!(new_copy_count(&single, &triple), 2 * 256);
    for partition in triple.partitions() {
        assert!(single.nodes_of(partition).all(|id| triple.holds(id, partition)));
    }
}

#[test]
fn free_choice_fills_nodes_of_a_zone_evenly_and_mixes_who_shares_with_whom() {
    // Two small zones set the size; the four nodes of the large one could each hold all of its copies.
    let mut roles = vec![storage("a", 1 << 30), storage("b", 1 << 30)];
    roles.extend((0..4).map(|_| storage("c", 1 << 40)));
    let layout = compute(&LayoutVersion::zero(3, 256), cluster(roles), 3, ZoneRedundancy::Maximum).unwrap();
    assert_eq!(layout.partition_counts().into_values().collect::<Vec<_>>(), [256, 256, 64, 64, 64, 64]);

    let layout = compute(&LayoutVersion::zero(2, 256), zones_of_nodes(2, 8, 1 << 40), 2, ZoneRedundancy::Maximum).unwrap();
    let pairs: BTreeSet<Vec<NodeId>> = layout.partitions().map(|partition| layout.nodes_of(partition).collect()).collect();
    assert!(32 <= pairs.len(), "{} of 64 possible pairs are in use", pairs.len());
}

#[test]
fn the_greatest_capacities_do_not_overflow() {
    let layout = compute(&LayoutVersion::zero(3, 256), zones_of_nodes(3, 2, u64::MAX), 3, ZoneRedundancy::Maximum).unwrap();
    assert_keeps_its_promises(&layout, 3);
    let report = LayoutReport::new(&LayoutVersion::zero(3, 256), &layout);
    assert_eq!(report.total_capacity_bytes, u64::MAX, "sums stop at the greatest number");
    assert!(!report.lines().is_empty());
}

#[test]
fn an_impossible_demand_says_in_one_sentence_what_is_missing() {
    let check = |roles: Vec<Role>, factor, redundancy, expected: &str| {
        let error: LayoutError = compute(&LayoutVersion::zero(3, 256), cluster(roles), factor, redundancy).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    check(
        vec![],
        3,
        ZoneRedundancy::Maximum,
        "replication factor 3 needs 3 storage nodes and only 0 are assigned: assign 3 more with a capacity",
    );
    check(
        vec![storage("a", 1024), gateway("b"), gateway("c")],
        2,
        ZoneRedundancy::Maximum,
        "replication factor 2 needs 2 storage nodes and only 1 is assigned: assign 1 more with a capacity",
    );
    check(
        vec![storage("paris", 1024), storage("paris", 1024), storage("lyon", 1024), gateway("nice")],
        3,
        ZoneRedundancy::AtLeast(3),
        "zone redundancy 3 needs storage nodes in 3 zones and there are some only in \"lyon\", \"paris\": \
         assign nodes with a capacity in 1 more zone, or lower the zone redundancy",
    );
    check(
        vec![storage("a", 1024); 2],
        2,
        ZoneRedundancy::AtLeast(3),
        "zone redundancy 3 is out of range: it is maximum, or a number from 1 to the replication factor, 2",
    );
    check(vec![storage("a", 1024)], 17, ZoneRedundancy::Maximum, "replication factor 17 is out of range: it is from 1 to 16");
    check(
        vec![storage("a", 1000)],
        1,
        ZoneRedundancy::Maximum,
        "a capacity is at least 1024 bytes; make the node a gateway to store nothing on it",
    );
}
