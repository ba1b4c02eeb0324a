//! The register's rules one by one: what a replica accepts, what answers prove, which steps a coordinator takes. That the rules
//! together make a linearizable register is the business of `register_model`.

use std::collections::{BTreeMap, BTreeSet};

use garage_rpc::register::{
    Answer, ApplyAnswer, Content, Coordinator, Entry, Fate, Message, Outcome, OwnWrite, Phase, PrepareAnswer, QuorumSet, QuorumSets,
    ROUNDS_IN_DOUBT_MAX, ROUNDS_MAX, RegisterSide, Step, TRAIL_MAX, Trace, WriteId, fate, stamp_of,
};
use garage_util::encoding::Stored;
use garage_util::hlc::Stamp;
use proptest::prelude::*;

fn at(time: u64) -> Stamp {
    Stamp::from_parts(time, 1, false)
}

fn write(number: u8) -> WriteId {
    WriteId([number; 32])
}

fn entry(number: u8, time: u64) -> Entry {
    Entry { stamp: at(time), id: write(number) }
}

fn three() -> QuorumSets<u8> {
    QuorumSets::single(QuorumSet::majority([0, 1, 2]))
}

// Replicas.

fn any_message() -> impl Strategy<Value = Message> {
    let any_stamp = (0u64..30, 0u64..3, any::<bool>()).prop_map(|(time, node, step)| Stamp::from_parts(time, node, step));
    prop_oneof![
        Just(Message::Query),
        (1u64..30, 0u64..3).prop_map(|(time, node)| Message::Prepare { ballot: Stamp::from_parts(time, node, false), own: None }),
        // Stamps are unique per attempt, so a stamp tells its write.
        (any_stamp, 0u64..5).prop_map(|(stamp, above)| Message::Apply {
            entry: Entry { stamp, id: write(stamp.time() as u8 * 7 + stamp.node() as u8) },
            ballot: Stamp::from_parts(stamp.time() + above, stamp.node(), false),
        }),
    ]
}

proptest! {
    #[test]
    fn a_row_only_rises_and_nothing_goes_below_a_promise(messages in prop::collection::vec(any_message(), 0..80)) {
        let (mut row, mut side) = (None, RegisterSide::default());
        for message in messages {
            let (before, promised) = (row, side.promise());
            let (answer, replaced) = side.serve(row, &message);
            row = replaced.or(row);
            prop_assert!(stamp_of(before) <= stamp_of(row) && promised <= side.promise());
            if let (Some(_), Message::Apply { entry, ballot }) = (replaced, message) {
                prop_assert!(promised <= ballot && stamp_of(before) < entry.stamp);
                prop_assert_eq!(answer, Answer::Apply(ApplyAnswer::Stored));
                prop_assert_eq!(row, Some(entry));
            }
        }
    }

    #[test]
    fn what_was_held_is_shown_or_admitted_to_be_forgotten(messages in prop::collection::vec(any_message(), 0..80)) {
        let (mut row, mut side, mut held) = (None::<Entry>, RegisterSide::default(), Vec::new());
        for message in messages {
            row = side.serve(row, &message).1.or(row);
            held.extend(row);
        }
        let ballot = at(1_000);
        for entry in held {
            let own = OwnWrite { id: entry.id, first: entry.stamp };
            let PrepareAnswer::Promised { shown, complete, .. } = side.clone().prepare(row, ballot, Some(own)) else {
                return Err(TestCaseError::fail("a ballot above all is promised"));
            };
            prop_assert!(shown.contains(&entry.stamp) || !complete, "{:?} is neither in {:?} nor below its floor", entry, side);
        }
    }

    #[test]
    fn a_message_that_comes_twice_changes_nothing_the_second_time(messages in prop::collection::vec(any_message(), 1..40)) {
        let (mut row, mut side) = (None, RegisterSide::default());
        for message in messages {
            row = side.serve(row, &message).1.or(row);
            let once = (row, side.clone());
            row = side.serve(row, &message).1.or(row);
            prop_assert_eq!(&once, &(row, side.clone()));
        }
    }
}

#[test]
fn a_replica_refuses_by_promise_and_by_row_and_says_what_is_needed() {
    let mut side = RegisterSide::default();
    let row = Some(entry(1, 5));
    assert_eq!(side.prepare(row, at(5), None), PrepareAnswer::Refused { row, bound: at(5) });
    assert!(matches!(side.prepare(row, at(9), None), PrepareAnswer::Promised { complete: true, .. }));
    assert!(matches!(side.prepare(row, at(9), None), PrepareAnswer::Promised { .. }), "the same ballot again is no rival");
    assert_eq!(side.prepare(row, at(8), None), PrepareAnswer::Refused { row, bound: at(9) });
    assert_eq!(side.apply(row, entry(2, 8), at(8)), ApplyAnswer::Refused { row, bound: at(9) });
    assert_eq!(side.apply(row, entry(1, 5), at(5)), ApplyAnswer::Refused { row, bound: at(9) }, "even what is held, below a promise");
    assert_eq!(side.apply(row, entry(1, 5), at(9)), ApplyAnswer::AlreadyHeld);
    assert_eq!(side.apply(row, entry(2, 9), at(9)), ApplyAnswer::Stored);
}

#[test]
fn the_trail_is_bounded_and_its_floor_admits_what_was_dropped() {
    let (mut row, mut side) = (None, RegisterSide::default());
    for time in 1..=(TRAIL_MAX as u64 + 2) {
        assert_eq!(side.apply(row, entry(time as u8, time), at(time)), ApplyAnswer::Stored);
        row = Some(entry(time as u8, time));
    }
    // The first was dropped, the last is the row.
    let ask = |number: u8, first: u64| match side.clone().prepare(row, at(99), Some(OwnWrite { id: write(number), first: at(first) })) {
        PrepareAnswer::Promised { shown, complete, .. } => (shown, complete),
        refused => panic!("{refused:?}"),
    };
    assert_eq!(ask(1, 1), (vec![], false));
    assert_eq!(ask(2, 2), (vec![at(2)], true));
    assert_eq!(ask(TRAIL_MAX as u8 + 2, 2), (vec![at(TRAIL_MAX as u64 + 2)], true));
    assert_eq!(ask(77, 2), (vec![], true));
}

#[test]
fn a_stored_side_keeps_its_bytes_and_an_unasked_one_need_not_be_stored() {
    let (mut row, mut side) = (None, RegisterSide::default());
    assert!(side.is_empty());
    for time in [1, 2] {
        row = side.serve(row, &Message::Apply { entry: entry(7, time), ballot: at(time) }).1;
    }
    side.prepare(row, at(3), None);
    let stamp = |time: u8| [b"\x83\xa4time".as_slice(), &[time], b"\xa4node\x01\xa4step\xc2"].concat();
    let trail = [b"\x82\xa5stamp".as_slice(), &stamp(1), b"\xa2id\xc4\x20", &[7; 32]].concat();
    let expected = [b"\x01\x82\xa1p".as_slice(), &stamp(3), b"\xa1t\x91", &trail].concat();
    assert_eq!(side.to_stored(), expected);
    assert_eq!(RegisterSide::from_stored(&expected).unwrap(), side);
    side.forget_below(at(4));
    assert!(side.is_empty());
    assert_eq!(RegisterSide::from_stored(&side.to_stored()).unwrap(), side);
}

// Evidence.

/// The rule as written for three replicas and a quorum of two.
fn fate_of_three(traces: &BTreeMap<u8, Trace>) -> Fate {
    let stamps: BTreeSet<Stamp> = traces.values().flat_map(|trace| trace.shown.clone()).collect();
    let showing = |stamp: Stamp| traces.values().filter(|trace| trace.shown.contains(&stamp)).count();
    if let Some(stamp) = stamps.iter().rev().find(|stamp| showing(**stamp) >= 2) {
        return Fate::Happened(*stamp);
    }
    let never_count = traces.values().filter(|trace| trace.shown.is_empty() && trace.complete).count();
    let all_complete = traces.len() == 3 && traces.values().all(|trace| trace.complete);
    if never_count >= 2 || all_complete { Fate::Dead } else { Fate::Doubt }
}

#[test]
fn for_three_replicas_the_general_rule_is_the_written_one() {
    // Each replica: absent, or complete or not with any of the stamps 1, 2, 3.
    let options: Vec<Option<Trace>> = (0..17u8)
        .map(|code| {
            let shown = (0..3).filter(|bit| code >> bit & 1 == 1).map(|bit| at(bit as u64 + 1)).collect();
            (code < 16).then_some(Trace { shown, complete: code & 8 == 0 })
        })
        .collect();
    let count = options.len();
    for code in 0..count.pow(3) {
        let chosen = [code % count, code / count % count, code / count.pow(2)];
        let traces: BTreeMap<u8, Trace> = (0..3).filter_map(|node| Some((node, options[chosen[node as usize]].clone()?))).collect();
        if traces.len() >= 2 {
            assert_eq!(fate(&three(), &traces), fate_of_three(&traces), "{traces:?}");
        }
    }
}

#[test]
fn of_two_sets_each_must_agree() {
    let sets = QuorumSets::new(vec![QuorumSet::majority([0, 1, 2]), QuorumSet::majority([2, 3, 4])]);
    let check = |holders: &[u8], absent: &[u8], expected: Fate| {
        let trace = |node: &u8| Trace { shown: if holders.contains(node) { vec![at(5)] } else { vec![] }, complete: true };
        let traces = (0..5).filter(|node| !absent.contains(node)).map(|node| (node, trace(&node))).collect();
        assert_eq!(fate(&sets, &traces), expected, "held by {holders:?}, {absent:?} absent");
    };
    check(&[0, 1, 3, 4], &[], Fate::Happened(at(5)));
    check(&[0, 2, 3], &[1, 4], Fate::Happened(at(5)));
    check(&[0, 3], &[], Fate::Dead);
    check(&[], &[0, 4], Fate::Dead);
    // A quorum of the old set alone may have been read there; one of the new set alone may have been read after the move.
    check(&[0, 1], &[], Fate::Doubt);
    check(&[3, 4], &[], Fate::Doubt);
    check(&[2], &[0], Fate::Doubt);
}

#[test]
fn of_five_replicas_three_decide() {
    let sets = QuorumSets::single(QuorumSet::majority([0u8, 1, 2, 3, 4]));
    let check = |shown: [&[u64]; 4], expected: Fate| {
        let trace = |times: &[u64]| Trace { shown: times.iter().map(|time| at(*time)).collect(), complete: true };
        let traces = shown.iter().enumerate().map(|(node, times)| (node as u8, trace(times))).collect();
        assert_eq!(fate(&sets, &traces), expected, "{shown:?}, the fifth absent");
    };
    check([&[1], &[1], &[1], &[]], Fate::Happened(at(1)));
    check([&[1], &[1], &[2], &[]], Fate::Doubt);
    check([&[1], &[2], &[], &[]], Fate::Dead);
}

// Coordinators.

/// Three replicas that answer at once, unless away.
#[derive(Default)]
struct Cluster {
    replicas: [(Option<Entry>, RegisterSide); 3],
    away: Vec<u8>,
    clock: u64,
    trips_count: usize,
}

impl Cluster {
    fn hold(mut self, node: usize, held: Entry) -> Cluster {
        self.replicas[node].0 = Some(held);
        self
    }

    fn without(mut self, node: u8) -> Cluster {
        self.away = vec![node];
        self
    }

    /// Runs to the end; `is_met` tests the row.
    fn run(&mut self, mut machine: Coordinator<u8>, is_met: impl Fn(Option<Entry>) -> bool) -> Outcome<u8> {
        let mut steps = vec![machine.start()];
        while let Some(step) = steps.pop() {
            match step {
                Step::Done(outcome) => return outcome,
                Step::Wait => {}
                Step::Tick { above, .. } => {
                    self.clock = self.clock.max(above.time()) + 1;
                    steps.push(machine.on_tick(at(self.clock)));
                }
                Step::Test { newest, .. } => steps.push(machine.on_test(is_met(newest))),
                Step::Send { phase, message, to, .. } => {
                    self.trips_count += 1;
                    steps.extend(
                        to.into_iter().map(|node| self.ask(&mut machine, node, phase, &message)).filter(|step| *step != Step::Wait),
                    );
                }
            }
        }
        panic!("the operation waits for ever: {machine:?}")
    }

    fn ask(&mut self, machine: &mut Coordinator<u8>, node: u8, phase: Phase, message: &Message) -> Step<u8> {
        if self.away.contains(&node) {
            return machine.on_no_answer(node, phase);
        }
        let (row, side) = &mut self.replicas[node as usize];
        let (answer, replaced) = side.serve(*row, message);
        *row = replaced.or(*row);
        machine.on_answer(node, phase, answer)
    }
}

#[test]
fn each_operation_takes_the_round_trips_it_promises() {
    let settled = || Cluster::default().hold(0, entry(1, 3)).hold(1, entry(1, 3)).hold(2, entry(1, 3));
    let differing = || Cluster::default().hold(0, entry(1, 3)).hold(1, entry(2, 4)).hold(2, entry(1, 3));
    let ahead = || Cluster::default().hold(0, entry(1, 30)).hold(1, entry(1, 30)).hold(2, entry(1, 30));
    let check = |what: &str, mut cluster: Cluster, machine: Coordinator<u8>, expected: usize| {
        cluster.run(machine, |_| true);
        assert_eq!(cluster.trips_count, expected, "{what}");
    };
    let fresh = |cluster: Cluster| Cluster { clock: 10, ..cluster };
    check("a write", fresh(settled()), Coordinator::write(write(9), three()), 1);
    check("a write over differing rows", fresh(differing()), Coordinator::write(write(9), three()), 1);
    check("a write with one replica away", fresh(settled().without(0)), Coordinator::write(write(9), three()), 1);
    check("a write behind the clock of others", ahead(), Coordinator::write(write(9), three()), 3);
    check("a conditional write", fresh(settled()), Coordinator::write_if(write(9), three()), 2);
    check("a conditional write over differing rows", fresh(differing()), Coordinator::write_if(write(9), three()), 3);
    check("a read", settled(), Coordinator::read(three()), 1);
    check("a read of nothing", Cluster::default(), Coordinator::read(three()), 1);
    check("a read of differing rows", differing(), Coordinator::read(three()), 2);
}

#[test]
fn a_failed_condition_is_answered_only_from_a_settled_row() {
    let mut cluster = Cluster { clock: 10, ..Cluster::default().hold(1, entry(2, 4)) };
    let outcome = cluster.run(Coordinator::write_if(write(9), three()), |row| row.is_none());
    assert_eq!(outcome, Outcome::PreconditionFailed { newest: Some(entry(2, 4)) });
    let holding = cluster.replicas.iter().filter(|(row, _)| row.is_some_and(|row| row.id == write(2) && row.stamp > at(4))).count();
    assert!(holding >= 2, "the next reader would miss what the 412 spoke of: {:?}", cluster.replicas);
}

#[test]
fn a_read_says_who_can_give_the_content() {
    let mut cluster = Cluster::default().hold(1, entry(2, 4));
    let outcome = cluster.run(Coordinator::read(three()), |_| true);
    assert_eq!(outcome, Outcome::Value { entry: Some(entry(2, 4)), answered_by: vec![1] });
}

#[test]
fn without_a_quorum_the_answer_tells_whether_a_trace_may_be_left() {
    let lonely = || Cluster { clock: 10, away: vec![1, 2], ..Cluster::default() };
    assert_eq!(lonely().run(Coordinator::write(write(9), three()), |_| true), Outcome::Unknown);
    assert_eq!(lonely().run(Coordinator::write_if(write(9), three()), |_| true), Outcome::Unreachable);
    assert_eq!(lonely().run(Coordinator::read(three()), |_| true), Outcome::Unreachable);
}

#[test]
fn a_write_that_one_replica_took_and_lost_is_unknown_while_the_third_is_away() {
    // The write reached replica 0, was superseded there, and replica 2, which may have had it too, is away.
    let mut cluster = Cluster::default();
    let mut machine = Coordinator::write(write(9), three());
    machine.start();
    let Step::Send { phase, message, .. } = machine.on_tick(at(5)) else { panic!("a write is sent after its tick") };
    cluster.ask(&mut machine, 0, phase, &message);
    for node in [0, 1] {
        let (row, side) = &mut cluster.replicas[node];
        *row = side.serve(*row, &Message::Apply { entry: entry(3, 7), ballot: at(7) }).1;
    }
    assert!(matches!(cluster.ask(&mut machine, 1, phase, &message), Step::Wait));
    let Step::Tick { above, refused_rounds: 0 } = machine.on_hedge_delay() else { panic!("a refusal leads to a round, at once") };
    assert_eq!(above, at(7));
    let Step::Send { phase, message, content, .. } = machine.on_tick(at(8)) else { panic!("a round begins with its prepare") };
    assert_eq!(
        (message, content),
        (Message::Prepare { ballot: at(8), own: Some(OwnWrite { id: write(9), first: at(5) }) }, Content::Nothing)
    );
    assert_eq!(cluster.ask(&mut machine, 0, phase, &message), Step::Wait);
    assert_eq!(cluster.ask(&mut machine, 1, phase, &message), Step::Wait, "the third decides");
    assert_eq!(machine.on_hedge_delay(), Step::Wait, "however long it takes");
    let mut patient = machine.clone();
    assert_eq!(machine.on_deadline(), Step::Done(Outcome::Unknown));
    // With the third, which never had it, it is dead and goes out again under the ballot.
    let Step::Send { message, .. } = cluster.ask(&mut patient, 2, phase, &message) else { panic!("a dead write is sent again") };
    assert_eq!(message, Message::Apply { entry: Entry { stamp: at(8).stepped(), id: write(9) }, ballot: at(8) });
}

#[test]
fn late_repeated_foreign_and_misfit_answers_change_nothing() {
    let mut machine = Coordinator::read(three());
    let Step::Send { phase, .. } = machine.start() else { panic!("a read asks at once") };
    let row = || Answer::Row(Some(entry(1, 3)));
    assert_eq!(machine.on_answer(0, Phase(phase.0 + 1), row()), Step::Wait);
    assert_eq!(machine.on_answer(7, phase, row()), Step::Wait);
    assert_eq!(machine.on_answer(0, phase, row()), Step::Wait);
    assert_eq!(machine.on_answer(0, phase, row()), Step::Wait);
    assert_eq!(machine.on_answer(1, phase, Answer::Apply(ApplyAnswer::Stored)), Step::Wait);
    assert!(matches!(machine.on_answer(2, phase, row()), Step::Done(Outcome::Value { .. })));
    assert_eq!(machine.on_answer(1, phase, row()), Step::Wait);
}

#[test]
fn a_conditional_write_that_never_wins_a_round_left_no_trace() {
    let mut machine = Coordinator::write_if(write(9), three());
    let mut step = machine.start();
    for round in 0..ROUNDS_MAX {
        let Step::Tick { above, refused_rounds } = step else { panic!("{step:?}") };
        assert_eq!(refused_rounds, round);
        let Step::Send { phase, .. } = machine.on_tick(at(above.time() + 1)) else { panic!("a prepare follows") };
        let refusal = || Answer::Prepare(PrepareAnswer::Refused { row: None, bound: at(above.time() + 5) });
        assert_eq!(machine.on_answer(0, phase, refusal()), Step::Wait);
        step = machine.on_answer(1, phase, refusal());
    }
    assert_eq!(step, Step::Done(Outcome::Contended));
}

#[test]
fn a_write_that_was_sent_goes_on_where_giving_up_would_leave_its_client_in_doubt() {
    const _: () = assert!(ROUNDS_MAX < ROUNDS_IN_DOUBT_MAX);
    let mut machine = Coordinator::write(write(9), three());
    let mut step = machine.start();
    let Step::Tick { above, .. } = step else { panic!("{step:?}") };
    let Step::Send { phase, .. } = machine.on_tick(at(above.time() + 1)) else { panic!("a plain write goes out at once") };
    let bound = Some(entry(1, 50));
    let refusal = || Answer::Apply(ApplyAnswer::Refused { row: bound, bound: at(50) });
    assert_eq!(machine.on_answer(0, phase, refusal()), Step::Wait);
    step = machine.on_answer(1, phase, refusal());
    for _ in 0..ROUNDS_IN_DOUBT_MAX {
        let Step::Tick { above, .. } = step else { panic!("{step:?}") };
        let Step::Send { phase, .. } = machine.on_tick(at(above.time() + 1)) else { panic!("a prepare follows") };
        let refusal = || Answer::Prepare(PrepareAnswer::Refused { row: bound, bound: at(above.time() + 5) });
        assert_eq!(machine.on_answer(0, phase, refusal()), Step::Wait);
        step = machine.on_answer(1, phase, refusal());
    }
    assert_eq!(step, Step::Done(Outcome::Unknown));
}

#[test]
fn a_write_whose_layout_changed_under_way_is_judged_by_both_layouts() {
    let new = QuorumSets::single(QuorumSet::majority([2, 3, 4]));
    let mut machine = Coordinator::write(write(9), three());
    machine.start();
    machine.on_tick(at(5));
    let Step::Tick { .. } = machine.on_new_sets(new) else { panic!("a write that was sent goes through a round") };
    let Step::Send { phase, to, .. } = machine.on_tick(at(6)) else { panic!("a prepare follows") };
    assert_eq!(to, [2, 3, 4]);
    let never = || Answer::Prepare(PrepareAnswer::Promised { row: None, shown: vec![], complete: true, kept: vec![] });
    assert_eq!([2, 3].map(|node| machine.on_answer(node, phase, never())), [Step::Wait, Step::Wait]);
    assert_eq!(machine.on_answer(4, phase, never()), Step::Done(Outcome::Unknown), "replicas 0 and 1 may have had it");
}
