//! Tests of the history: merge laws, the course of a layout change, and what is refused.

use std::collections::BTreeSet;

use garage_util::encoding::Stored;
use garage_util::hlc::Stamp;
use proptest::prelude::*;

use super::super::exhaustive::{gateway, node, storage};
use super::super::skip::SkipError;
use super::super::{ConsistencyMode, LayoutError, LayoutHistory, Partition, RoleChange, Trackers, VersionStatus, ZoneRedundancy};

const CONSISTENT: ConsistencyMode = ConsistencyMode::Consistent;

fn stamp(time: u64) -> Stamp {
    Stamp::from_parts(time, 7, false)
}

/// Stages nodes `first` to `last`, each in its own zone, at times from `time` on.
fn stage_nodes(history: &mut LayoutHistory, time: u64, first: u16, last: u16) {
    for number in first..=last {
        let change = RoleChange::Assign(storage(&format!("zone{number}"), 1 << 30));
        history.staging_mut().stage_role(stamp(time + u64::from(number)), node(number), change).unwrap();
    }
}

fn applied(history: &LayoutHistory) -> LayoutHistory {
    history.apply_staged(history.current().version + 1).unwrap().0
}

/// Three nodes in version 1, with RF 3.
fn three_nodes() -> LayoutHistory {
    let mut history = LayoutHistory::new(3, 16);
    stage_nodes(&mut history, 0, 1, 3);
    applied(&history)
}

/// Version 2 replaces node 3 by node 4.
fn replacing_a_node() -> LayoutHistory {
    let mut history = three_nodes();
    stage_nodes(&mut history, 100, 4, 4);
    history.staging_mut().stage_role(stamp(200), node(3), RoleChange::Remove).unwrap();
    applied(&history)
}

fn raise(history: &mut LayoutHistory, numbers: &[u16], to: Trackers) {
    for &number in numbers {
        history.raise_trackers(node(number), to);
    }
}

#[test]
fn before_the_first_layout_nothing_can_be_placed_and_right_after_it_everything() {
    let empty = LayoutHistory::new(3, 16);
    assert!(empty.placement(Partition(0), CONSISTENT).is_none());
    assert!(empty.check().is_ok());
    let history = three_nodes();
    let placement = history.placement(Partition(5), CONSISTENT).unwrap();
    assert_eq!(placement.read_set.nodes, [1, 2, 3].map(node));
    assert_eq!((placement.read_set.quorum, placement.write_sets.len(), placement.write_sets[0].quorum), (2, 1, 2));
    assert!(history.version(0).is_none(), "nothing was stored in version 0");
}

#[test]
fn only_the_next_version_can_be_applied() {
    let history = three_nodes();
    for given in [0, 1, 3] {
        assert_eq!(history.apply_staged(given).unwrap_err(), LayoutError::WrongVersion { given, expected: 2 });
    }
    let (again, report) = history.apply_staged(2).unwrap();
    assert_eq!((again.current().version, report.moved_partition_count), (2, Some(0)), "with nothing staged, computed anew");
}

#[test]
fn during_a_change_writes_go_to_both_versions_and_reads_to_the_old_until_all_are_in_sync() {
    let mut history = replacing_a_node();
    let partition = Partition(0);
    let sets = history.write_sets(partition, CONSISTENT);
    assert_eq!(
        sets.iter().map(|set| (set.version, set.nodes.clone())).collect::<Vec<_>>(),
        [(2, [1, 2, 4].map(node).to_vec()), (1, [1, 2, 3].map(node).to_vec())]
    );
    let version_read = |history: &LayoutHistory| history.read_set(partition, CONSISTENT).unwrap().version;

    raise(&mut history, &[1, 2, 3, 4], Trackers { ack: 2, ..Trackers::default() });
    assert_eq!((history.min_ack(), version_read(&history)), (2, 1));
    raise(&mut history, &[1, 2, 3], Trackers { sync: 2, ..Trackers::default() });
    assert_eq!(version_read(&history), 1, "node 4 lacks data");
    assert!(history.is_draining(node(3)) && !history.is_draining(node(1)));
    raise(&mut history, &[4], Trackers { sync: 2, ..Trackers::default() });
    assert_eq!(version_read(&history), 2);

    for number in 1..=3 {
        assert!(history.follow(node(number)));
        assert!(!history.advance(), "node 4 may still read from version 1");
        assert_eq!(history.write_sets(partition, CONSISTENT).len(), 2);
    }
    assert!(history.follow(node(4)) && history.advance());
    assert_eq!(history.write_sets(partition, CONSISTENT).len(), 1);
    let statuses: Vec<_> = history.summaries().iter().map(|summary| (summary.version, summary.status)).collect();
    assert_eq!(statuses, [(2, VersionStatus::Current), (1, VersionStatus::Historical)]);
    assert!(!history.is_draining(node(3)));
    assert!(!history.follow(node(3)), "a node without a part follows nothing");
}

#[test]
fn a_gateway_holds_nothing_and_is_in_sync_by_itself() {
    let mut history = three_nodes();
    history.staging_mut().stage_role(stamp(100), node(9), RoleChange::Assign(gateway("zone1"))).unwrap();
    history = applied(&history);
    assert_eq!((history.current().storage_nodes().len(), history.current().gateway_count()), (3, 1));
    raise(&mut history, &[1, 2, 3], Trackers { ack: 2, sync: 2, sync_ack: 2 });
    assert_eq!(history.min_sync(), 0);
    assert!(history.follow(node(9)));
    assert_eq!(history.trackers(node(9)), Trackers { ack: 0, sync: 2, sync_ack: 2 });
    assert!(history.advance());
}

#[test]
fn the_replication_factor_is_changed_like_any_other_parameter() {
    let mut history = LayoutHistory::new(1, 16);
    stage_nodes(&mut history, 0, 1, 3);
    let mut history = applied(&history);
    history.staging_mut().stage_replication_factor(stamp(50), 3).unwrap();
    assert_eq!(history.replication_factor_after_staging(), 3);
    let history = applied(&history);
    let sets = history.write_sets(Partition(0), CONSISTENT);
    assert_eq!(sets.iter().map(|set| (set.nodes.len(), set.quorum)).collect::<Vec<_>>(), [(3, 2), (1, 1)]);
    assert_eq!(history.read_set(Partition(0), CONSISTENT).unwrap().quorum, 1, "the old version is read with its own quorum");
}

#[test]
fn an_apply_drops_what_it_applied_and_keeps_what_was_staged_elsewhere_meanwhile() {
    let mut here = three_nodes();
    let mut there = here.clone();
    stage_nodes(&mut here, 100, 4, 4);
    there.staging_mut().stage_role(stamp(300), node(5), RoleChange::Assign(storage("zone5", 1 << 30))).unwrap();
    there.staging_mut().stage_role(stamp(301), node(4), RoleChange::Assign(storage("elsewhere", 1 << 30))).unwrap();
    let mut here = applied(&here);
    assert!(!here.staging().has_changes(here.current()));
    here.merge(&there);
    assert_eq!(here.current().version, 2);
    assert_eq!(here.staged_role_changes().map(|(id, _)| id).collect::<Vec<_>>(), [node(4), node(5)]);
}

#[test]
fn what_is_staged_while_a_version_is_agreed_on_stays_staged() {
    let mut history = three_nodes();
    stage_nodes(&mut history, 100, 4, 4);
    let next = history.preview().unwrap().0;
    stage_nodes(&mut history, 200, 5, 5);
    history.staging_mut().stage_zone_redundancy(stamp(300), ZoneRedundancy::AtLeast(2), 3).unwrap();
    let history = history.with_version(next);
    assert_eq!(history.staged_role_changes().map(|(id, _)| id).collect::<Vec<_>>(), [node(5)]);
    assert_eq!(history.staging().zone_redundancy_change(history.current()), Some(ZoneRedundancy::AtLeast(2)));
}

#[test]
fn a_history_with_another_number_of_partitions_is_refused_and_not_merged() {
    let mut history = three_nodes();
    let mut other = LayoutHistory::new(3, 32);
    stage_nodes(&mut other, 0, 1, 3);
    assert!(history.check_peer(&other).is_ok(), "without a layout it has nothing to contradict");
    let other = applied(&applied(&other));
    assert!(history.check_peer(&other).unwrap_err().to_string().contains("another cluster, with 32 partitions instead of 16"));
    assert!(!history.merge(&other));
    let mut fresh = LayoutHistory::new(3, 16);
    fresh.merge(&other);
    assert_eq!((fresh.current(), fresh.check()), (other.current(), Ok(())));
}

#[test]
fn a_dead_node_holds_a_change_up_until_it_is_skipped() {
    let mut history = replacing_a_node();
    raise(&mut history, &[1, 2, 4], Trackers { ack: 2, sync: 2, ..Trackers::default() });
    let dead = BTreeSet::from([node(3)]);
    assert_eq!(history.skip_dead_nodes(3, &dead, false).unwrap_err(), SkipError::OutOfRange { given: 3, first: 2, last: 2 });
    let report = history.skip_dead_nodes(2, &dead, false).unwrap();
    assert_eq!((report.ack_updated, report.sync_updated), (vec![node(3)], vec![node(3)]), "the others are quorums without it");
    assert_eq!((history.min_ack(), history.min_sync()), (2, 2));
    assert!(!history.advance(), "the live nodes still read from version 1");
    for number in [1, 2, 4] {
        assert!(history.follow(node(number)));
    }
    assert!(history.advance());
    assert_eq!(history.skip_dead_nodes(2, &dead, true).unwrap_err(), SkipError::OneLiveVersion);
}

#[test]
fn what_too_many_dead_nodes_would_hold_is_given_up_only_when_told_so() {
    let mut history = replacing_a_node();
    raise(&mut history, &[1, 2, 4], Trackers { ack: 2, ..Trackers::default() });
    raise(&mut history, &[1], Trackers { ack: 2, sync: 2, ..Trackers::default() });
    let dead = BTreeSet::from([node(2), node(3), node(4)]);
    let report = history.skip_dead_nodes(2, &dead, false).unwrap();
    assert_eq!((report.ack_updated, report.sync_updated), (vec![node(3)], vec![]));
    assert!(history.min_sync() < 2, "its data is still waited for");
    history.skip_dead_nodes(2, &dead, true).unwrap();
    assert_eq!(history.min_sync(), 2);
}

#[test]
fn a_forced_version_is_the_only_live_one_and_overrules_all_others() {
    let history = replacing_a_node();
    let (forced, _) = history.forced().unwrap();
    assert_eq!((forced.current().version, forced.epoch()), (history.current().version + 1, history.epoch() + 1));
    assert_eq!((forced.live().count(), forced.check()), (1, Ok(())));
    let mut merged = applied(&applied(&history));
    merged.merge(&forced);
    assert_eq!((merged.current(), merged.live().count()), (forced.current(), 1), "whatever its number");
}

#[test]
fn five_historical_versions_are_kept() {
    let mut history = three_nodes();
    for _ in 0..8 {
        history = applied(&history);
        let version = history.current().version;
        raise(&mut history, &[1, 2, 3], Trackers { ack: version, sync: version, sync_ack: version });
        history.advance();
    }
    assert_eq!(history.historical().map(|version| version.version).collect::<Vec<_>>(), [4, 5, 6, 7, 8]);
    assert!(history.check().is_ok());
}

#[test]
fn a_higher_epoch_overrules_a_longer_history_of_a_lower_one() {
    let mut forced = three_nodes();
    let mut ordinary = applied(&applied(&forced));
    let mut next = forced.preview().unwrap().0;
    next.epoch = 1;
    forced = forced.with_version(next);
    let mut other = forced.clone();
    ordinary.merge(&forced);
    other.merge(&applied(&applied(&three_nodes())));
    assert_eq!((ordinary.current().version, ordinary.epoch()), (2, 1));
    assert_eq!(ordinary, other);
}

#[test]
fn a_damaged_history_is_refused_whatever_is_damaged() {
    let damages: [fn(&mut LayoutHistory); 5] = [
        |history| history.versions.clear(),
        |history| drop(history.versions.remove(&1)),
        |history| history.oldest_live = 9,
        |history| history.versions.get_mut(&2).unwrap().version = 5,
        |history| history.versions.get_mut(&2).unwrap().partition_size_bytes = u64::MAX,
    ];
    assert!(replacing_a_node().check().is_ok());
    for (index, damage) in damages.into_iter().enumerate() {
        let mut history = replacing_a_node();
        damage(&mut history);
        assert!(history.check().is_err(), "damage {index}");
    }
}

/// `sample()` as the first format stores it.
const FORMAT_1: &str = "\
    0184a876657273696f6e73810189a776657273696f6e01a565706f636800b27265706c69636174696f6e5f666163746f7201af7a6f6e655f72656475\
    6e64616e6379a76d6178696d756daf706172746974696f6e5f636f756e7402a5726f6c657382c4200001000000000000000000000000000000000000\
    00000000000000000000000083a47a6f6e65a57a6f6e6531ae63617061636974795f6279746573ce40000000a47461677390c4200002000000000000\
    00000000000000000000000000000000000000000000000083a47a6f6e65a57a6f6e6531ae63617061636974795f6279746573c0a47461677390b470\
    6172746974696f6e5f73697a655f6279746573ce20000000a56e6f64657391c420000100000000000000000000000000000000000000000000000000\
    0000000000aa61737369676e6d656e74920000ab6f6c646573745f6c69766501a8747261636b65727381c42000010000000000000000000000000000\
    0000000000000000000000000000000083a361636b01a473796e6301a873796e635f61636b01a773746167696e6783a5726f6c657382c42000010000\
    0000000000000000000000000000000000000000000000000000000082a57374616d7083a474696d6501a46e6f646507a473746570c3a576616c7565\
    a44b656570c420000200000000000000000000000000000000000000000000000000000000000082a57374616d7083a474696d650aa46e6f646507a4\
    73746570c2a576616c7565a652656d6f7665af7a6f6e655f726564756e64616e637982a57374616d7083a474696d650ba46e6f646507a473746570c2\
    a576616c756581a761744c6561737401b27265706c69636174696f6e5f666163746f7282a57374616d7083a474696d650ca46e6f646507a473746570\
    c2a576616c756502\
";
/// Of the current version of `sample()`.
const DIGEST_START: [u8; 8] = [229, 175, 121, 79, 205, 55, 212, 172];

/// A small history with something in every field.
fn sample() -> LayoutHistory {
    let mut history = LayoutHistory::new(1, 2);
    stage_nodes(&mut history, 0, 1, 1);
    history.staging_mut().stage_role(stamp(9), node(2), RoleChange::Assign(gateway("zone1"))).unwrap();
    let mut history = applied(&history);
    history.staging_mut().stage_role(stamp(10), node(2), RoleChange::Remove).unwrap();
    history.staging_mut().stage_zone_redundancy(stamp(11), ZoneRedundancy::AtLeast(1), 1).unwrap();
    history.staging_mut().stage_replication_factor(stamp(12), 2).unwrap();
    raise(&mut history, &[1], Trackers { ack: 1, sync: 1, sync_ack: 1 });
    history
}

#[test]
fn bytes_of_format_1_are_read() {
    let bytes: Vec<u8> = (0..FORMAT_1.len()).step_by(2).map(|start| u8::from_str_radix(&FORMAT_1[start..start + 2], 16).unwrap()).collect();
    assert_eq!(LayoutHistory::from_stored(&bytes).unwrap(), sample());
    let digest = sample().current().digest();
    assert_eq!(digest[..8], DIGEST_START, "the canonical content of a version never changes");
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Stage(u16, u8),
    Redundancy(usize),
    Clear,
    Apply,
    Force,
    Raise(u16, u64, u64, u64),
    Follow(u16),
    Advance,
    TakeFrom(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..7u16, 0..4u8).prop_map(|(number, kind)| Step::Stage(number, kind)),
        1 => (1..3usize).prop_map(Step::Redundancy),
        1 => Just(Step::Clear),
        3 => Just(Step::Apply),
        1 => Just(Step::Force),
        3 => (1..7u16, 0..6u64, 0..6u64, 0..6u64).prop_map(|(number, ack, sync, sync_ack)| Step::Raise(number, ack, sync, sync_ack)),
        2 => (1..7u16).prop_map(Step::Follow),
        2 => Just(Step::Advance),
        2 => (0..3usize).prop_map(Step::TakeFrom),
    ]
}

/// Three nodes' histories after random steps, with stamps that may collide: merging may not even trust those.
fn run(steps: &[(usize, u64, Step)]) -> [LayoutHistory; 3] {
    let mut start = LayoutHistory::new(2, 4);
    stage_nodes(&mut start, 0, 1, 3);
    let mut histories = [(); 3].map(|()| applied(&start));
    for &(at, time, step) in steps {
        let other = if let Step::TakeFrom(from) = step { Some(histories[from].clone()) } else { None };
        let history = &mut histories[at];
        match step {
            Step::Stage(number, kind) => {
                let change = match kind {
                    0 => RoleChange::Remove,
                    1 => RoleChange::Assign(gateway("zone1")),
                    _ => RoleChange::Assign(storage(&format!("zone{kind}"), 4096)),
                };
                history.staging_mut().stage_role(stamp(time), node(number), change).unwrap();
            }
            Step::Redundancy(count) => {
                history.staging_mut().stage_zone_redundancy(stamp(time), ZoneRedundancy::AtLeast(count), 2).unwrap();
            }
            Step::Clear => history.staging_mut().clear(),
            Step::Apply => *history = history.apply_staged(history.current().version + 1).map_or(history.clone(), |(next, _)| next),
            Step::Force => {
                if let Ok((mut next, _)) = history.preview() {
                    next.epoch += 1;
                    *history = history.with_version(next);
                }
            }
            Step::Raise(number, ack, sync, sync_ack) => drop(history.raise_trackers(node(number), Trackers { ack, sync, sync_ack })),
            Step::Follow(number) => drop(history.follow(node(number))),
            Step::Advance => drop(history.advance()),
            Step::TakeFrom(_) => drop(history.merge(&other.unwrap())),
        }
    }
    histories
}

fn merged(a: &LayoutHistory, b: &LayoutHistory) -> LayoutHistory {
    let mut result = a.clone();
    result.merge(b);
    result
}

proptest! {
    #[test]
    fn merge_ignores_order_and_repetition(steps in prop::collection::vec((0..3usize, 1..30u64, step()), 0..40)) {
        let [a, b, c] = run(&steps);
        prop_assert_eq!(merged(&a, &merged(&b, &c)), merged(&merged(&c, &a), &b));
        prop_assert_eq!(merged(&a, &b), merged(&b, &a));
        prop_assert_eq!(merged(&a, &a), a.clone());
        let mut all = merged(&a, &b);
        prop_assert!(!all.clone().merge(&a), "what was merged before changes nothing");
        all.merge(&c);
        prop_assert!(all.check().is_ok(), "{:?}", all.check());
        prop_assert_eq!(all.digest(), merged(&c, &merged(&b, &a)).digest());
    }

    #[test]
    fn whatever_happened_a_read_meets_every_write(steps in prop::collection::vec((0..3usize, 1..30u64, step()), 0..40)) {
        for history in run(&steps) {
            for partition in history.current().partitions() {
                let placement = history.placement(partition, CONSISTENT).unwrap();
                let same_nodes = placement.write_sets.iter().find(|set| set.nodes == placement.read_set.nodes);
                let write_set = same_nodes.expect("the version that is read is written to");
                prop_assert!(placement.read_set.nodes.len() < placement.read_set.quorum + write_set.quorum);
            }
        }
    }

    #[test]
    fn histories_survive_storage(steps in prop::collection::vec((0..3usize, 1..30u64, step()), 0..20)) {
        let [history, ..] = run(&steps);
        let read = LayoutHistory::from_stored(&history.to_stored()).unwrap();
        prop_assert_eq!(read.digest(), history.digest());
        prop_assert_eq!(read, history);
    }
}
