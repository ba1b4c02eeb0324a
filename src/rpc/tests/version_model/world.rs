//! One schedule: replicas that keep what their register supersedes, coordinators, a network, all driven by one seed.
//!
//! Messages are lost, doubled, late without bound; coordinators crash; clocks are arbitrary; a replica is away for long; anti-entropy of heads
//! and of slots runs at any time. Every decision is taken by the real `slots`, `RegisterSide` and `Coordinator`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use garage_rpc::register::{
    Answer, Content, Coordinator, Entry, Message, Outcome, Phase, PrepareAnswer, QuorumSet, QuorumSets, RegisterSide, Step, Weakness,
    WriteId,
    slots::{self, Effect, Head, Merged, Origin, Slot, SlotRow, accepted, live_newest_first, merge, merged, seen},
};
use garage_util::hlc::Stamp;

use crate::history::{Call, Item, Kind, State, Told, is_linearizable};

/// One rule left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// What the register supersedes is dropped.
    NothingKept,
    /// A write that was sent and then refused is not undone.
    NoUndo,
    /// Versions that a minority may be alone with are answered.
    AnswersUnsettled,
    /// A write that others found among the older versions is written again.
    WritesAgain,
    /// Rows of slots are taken before the entry that they follow from.
    RowsAhead,
    /// Of two rows the deleted one counts, whatever the stamps.
    DeletionsAlwaysWin,
}

const REPLICA_COUNT: usize = 3;
const QUORUM: usize = 2;

pub struct Rng(pub u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: usize) -> usize {
        (((self.next() >> 32) * n as u64) >> 32) as usize
    }
    fn one_in(&mut self, n: usize) -> bool {
        n > 0 && self.below(n) == 0
    }
}

/// The version's number, and whether it is locked.
type Version = (u8, bool);
type Row = SlotRow<Version>;

#[derive(Default, Clone)]
struct Replica {
    row: Option<Entry>,
    side: RegisterSide,
    slots: BTreeMap<Slot, Row>,
}

#[derive(Clone, Debug)]
struct View {
    head: Option<Entry>,
    slots: BTreeMap<Slot, Row>,
}

#[derive(Clone)]
enum Packet {
    Register(Message),
    Answer(Answer),
    Ask,
    View(View),
    Merge(Vec<(Slot, Row)>),
    Taken(bool),
}

#[derive(Clone)]
struct Letter {
    op: usize,
    /// Of the machine, or of the question.
    phase: u32,
    node: usize,
    weight: usize,
    packet: Packet,
}

/// What an operation waits for.
#[derive(Clone)]
enum Stage {
    Idle,
    Machine,
    /// A look at the slots: while a round holds, or for an answer.
    Looking {
        newest: Option<Entry>,
        for_change: bool,
        first: bool,
    },
    /// Rows are written back for an answer.
    Repairing(Told),
    Over,
}

struct Op {
    call: Call,
    clock: u64,
    stage: Stage,
    machine: Coordinator<usize>,
    /// Of a put.
    id: WriteId,
    /// Of the present attempt of a change.
    change: WriteId,
    /// What a change was decided upon.
    decided_on: Option<Option<Entry>>,
    /// Told when the change is done.
    outcome: Told,
    /// A refused write that is being undone.
    undoing: Option<WriteId>,
    question: u32,
    views: BTreeMap<usize, View>,
    taken: BTreeMap<usize, bool>,
    attempts: u32,
    last: Option<(u32, Vec<usize>, Packet)>,
}

pub struct World {
    fault: Option<Fault>,
    rng: Rng,
    replicas: Vec<Replica>,
    heads: BTreeMap<WriteId, Head<Version>>,
    ops: Vec<Op>,
    letters: Vec<Letter>,
    time: u32,
    next_id: u8,
    down: usize,
    is_last_phase: bool,
    chances: [usize; 4],
    pace: usize,
    log: Option<String>,
}

/// Runs the schedule of `seed`; the log when its history can't be explained (empty unless `wants_log`).
pub fn run_schedule(seed: u64, fault: Option<Fault>, wants_log: bool) -> Result<(), String> {
    let mut world = World::new(seed, fault, wants_log);
    world.run();
    let calls: Vec<Call> = world.ops.iter().map(|op| op.call.clone()).collect();
    if is_linearizable(&calls) { Ok(()) } else { Err(world.log.take().unwrap_or_default()) }
}

fn sets() -> QuorumSets<usize> {
    QuorumSets::single(QuorumSet::majority(0..REPLICA_COUNT))
}

impl World {
    fn new(seed: u64, fault: Option<Fault>, wants_log: bool) -> World {
        let mut rng = Rng(seed);
        let chances = [rng.below(3) * 4, rng.below(3) * 5, rng.below(2) * 3, rng.below(2) * 3];
        let (pace, down) = (2 + rng.below(14), rng.below(2 * REPLICA_COUNT));
        let mut world = World {
            fault,
            rng,
            replicas: vec![Replica::default(); REPLICA_COUNT],
            heads: BTreeMap::new(),
            ops: Vec::new(),
            letters: Vec::new(),
            time: 0,
            next_id: 0,
            down,
            is_last_phase: false,
            chances,
            pace,
            log: wants_log.then(String::new),
        };
        let count = 3 + world.rng.below(5);
        for index in 0..count {
            let kind = world.random_kind(index);
            world.add_op(kind);
        }
        world
    }

    fn random_kind(&mut self, index: usize) -> Kind {
        // A version that an earlier operation may have made, or `null`.
        let version = if index == 0 { 0 } else { self.rng.below(index + 1) as u8 };
        match self.rng.below(12) {
            0..=2 => Kind::Put,
            3 => Kind::PutNull,
            4 => Kind::PutIfAbsent,
            5 => Kind::PutIfMatch(version),
            6..=8 => Kind::Delete(version),
            9 => Kind::Lock(version),
            10 => Kind::Get(version),
            _ => {
                if self.rng.one_in(2) {
                    Kind::List
                } else {
                    Kind::Read
                }
            }
        }
    }

    fn add_op(&mut self, kind: Kind) -> usize {
        let value = self.ops.len() as u8 + 1;
        let call = Call { kind, value, begin: 0, end: 0, told: Told::Nothing };
        self.ops.push(Op {
            call,
            clock: 0,
            stage: Stage::Idle,
            machine: Coordinator::read(sets()),
            id: WriteId::default(),
            change: WriteId::default(),
            decided_on: None,
            outcome: Told::Nothing,
            undoing: None,
            question: 0,
            views: BTreeMap::new(),
            taken: BTreeMap::new(),
            attempts: 0,
            last: None,
        });
        self.ops.len() - 1
    }

    fn run(&mut self) {
        for _ in 0..60 + self.ops.len() * 30 {
            self.step();
        }
        // Whoever still runs crashed. Then everybody is back, and what is there is read.
        self.letters.clear();
        for op in &mut self.ops {
            if op.call.begin != 0 {
                op.stage = Stage::Over;
            }
        }
        self.ops.retain(|op| op.call.begin != 0);
        self.is_last_phase = true;
        for kind in [Kind::List, Kind::Read, Kind::List] {
            self.down = if kind == Kind::List { self.rng.below(REPLICA_COUNT) } else { REPLICA_COUNT };
            let op = self.add_op(kind);
            self.start(op);
            let mut patience = 400;
            while !matches!(self.ops[op].stage, Stage::Over) && 0 < patience {
                if self.letters.is_empty() {
                    self.send_again(op);
                }
                self.deliver();
                patience -= 1;
            }
        }
    }

    fn step(&mut self) {
        let mut dice = self.rng.below(100);
        let mut falls_to = |chance: usize| {
            let hit = dice < chance;
            dice = if hit { usize::MAX } else { dice - chance };
            hit
        };
        let [drop, sync, crash, double] = self.chances;
        let (drop, sync, crash, double) = (falls_to(drop), falls_to(sync), falls_to(crash), falls_to(double));
        if drop && !self.letters.is_empty() {
            let index = self.rng.below(self.letters.len());
            self.letters.swap_remove(index);
        } else if sync {
            self.anti_entropy();
        } else if crash {
            let op = self.rng.below(self.ops.len());
            if matches!(self.ops[op].stage, Stage::Machine) && self.rng.one_in(2) {
                let step = self.ops[op].machine.on_deadline();
                self.act(op, step);
            } else if self.ops[op].call.begin != 0 && !matches!(self.ops[op].stage, Stage::Over) {
                self.note(|| format!("coordinator of op {} crashes", op + 1));
                self.ops[op].stage = Stage::Over;
            }
        } else if double && !self.letters.is_empty() {
            let letter = self.letters[self.rng.below(self.letters.len())].clone();
            self.letters.push(Letter { weight: 1, ..letter });
        } else if self.letters.is_empty() || self.rng.one_in(self.pace) {
            let idle: Vec<usize> = (0..self.ops.len()).filter(|op| self.ops[*op].call.begin == 0).collect();
            if idle.is_empty() {
                let op = self.rng.below(self.ops.len());
                self.send_again(op);
            } else {
                let op = idle[self.rng.below(idle.len())];
                self.start(op);
            }
        } else {
            self.deliver();
        }
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            let _ = writeln!(log, "{}", text());
        }
    }

    fn fresh_id(&mut self) -> WriteId {
        self.next_id += 1;
        let mut bytes = [0; 32];
        bytes[0] = self.next_id.wrapping_mul(97);
        bytes[31] = self.next_id;
        WriteId(bytes)
    }

    fn slot_of(&self, version: u8) -> Slot {
        // The id of a version is that of the first write of its operation.
        if version == 0 { Slot::Null } else { Slot::Id(self.ops[version as usize - 1].id) }
    }

    fn head(&self, entry: Option<Entry>) -> Option<(Entry, Head<Version>)> {
        entry.map(|entry| (entry, self.heads[&entry.id].clone()))
    }

    // Operations.

    fn start(&mut self, op: usize) {
        self.time += 1;
        let (time, clock, kind, value) = (self.time, self.rng.below(5) as u64, self.ops[op].call.kind, self.ops[op].call.value);
        let id = self.fresh_id();
        let state = &mut self.ops[op];
        (state.call.begin, state.clock, state.stage, state.id) = (time, clock, Stage::Machine, id);
        self.note(|| format!("op {} = {kind:?} begins", op + 1));
        let machine = match kind {
            Kind::Put | Kind::PutNull => Coordinator::write(id, sets()),
            Kind::PutIfAbsent | Kind::PutIfMatch(_) => Coordinator::write_if(id, sets()),
            Kind::Read => Coordinator::read(sets()),
            Kind::Delete(_) | Kind::Lock(_) => return self.begin_change(op),
            Kind::Get(_) | Kind::List => return self.look(op, None, false, true),
        };
        if kind.is_put() {
            let slot = if kind == Kind::PutNull { Slot::Null } else { Slot::Id(id) };
            self.heads.insert(id, Head::new(slot, Some((value, false))));
        }
        self.run_machine(op, machine);
    }

    fn run_machine(&mut self, op: usize, machine: Coordinator<usize>) {
        let weakness = (self.fault == Some(Fault::WritesAgain)).then_some(Weakness::IgnoresKept);
        self.ops[op].stage = Stage::Machine;
        self.ops[op].machine = machine.weakened(weakness);
        let step = self.ops[op].machine.start();
        self.act(op, step);
    }

    fn begin_change(&mut self, op: usize) {
        self.ops[op].attempts += 1;
        if 6 < self.ops[op].attempts {
            return self.finish(op, Told::Nothing);
        }
        let id = self.fresh_id();
        let state = &mut self.ops[op];
        (state.decided_on, state.change) = (None, id);
        self.run_machine(op, Coordinator::write_if(id, sets()));
    }

    fn act(&mut self, op: usize, mut step: Step<usize>) {
        loop {
            step = match step {
                Step::Wait => return,
                Step::Tick { above, .. } => {
                    let jump = if self.rng.one_in(4) { self.rng.below(4) as u64 } else { 0 };
                    let state = &mut self.ops[op];
                    state.clock = (state.clock + 1).max(above.time() + 1) + jump;
                    state.machine.on_tick(Stamp::from_parts(state.clock, op as u64, false))
                }
                Step::Test { newest, .. } => match self.test(op, newest) {
                    Some(is_met) => self.ops[op].machine.on_test(is_met),
                    None => return,
                },
                Step::Send { phase, message, to, content } => {
                    self.note(|| format!("  op {} sends {message:?}", op + 1));
                    assert_ne!(content, Content::AnsweredBy(Vec::new()), "a content has to come from someone");
                    self.ops[op].last = Some((phase.0, to, Packet::Register(message)));
                    return self.send_again(op);
                }
                Step::Done(outcome) => return self.machine_done(op, outcome),
            }
        }
    }

    /// `None`: the slots are looked at first.
    fn test(&mut self, op: usize, newest: Option<Entry>) -> Option<bool> {
        let kind = self.ops[op].call.kind;
        let current = self.head(newest).and_then(|(_, head)| head.content).map_or(0, |(value, _)| value);
        match kind {
            Kind::PutIfAbsent if self.ops[op].undoing.is_none() => return Some(current == 0),
            Kind::PutIfMatch(wanted) if self.ops[op].undoing.is_none() => return Some(current == wanted),
            _ => {}
        }
        if let Some(decided_on) = self.ops[op].decided_on {
            return Some(decided_on == newest);
        }
        self.look(op, newest, true, false);
        None
    }

    fn machine_done(&mut self, op: usize, outcome: Outcome<usize>) {
        self.note(|| format!("  op {}'s machine: {outcome:?}", op + 1));
        let (kind, undoing) = (self.ops[op].call.kind, self.ops[op].undoing);
        let is_change = undoing.is_some() || !kind.is_put() && kind != Kind::Read;
        match outcome {
            Outcome::Unknown => self.finish(op, Told::Nothing),
            // A refused write may still be about: its undoing failed, so it is unknown.
            Outcome::Unreachable | Outcome::Contended if undoing.is_some() => self.finish(op, Told::Nothing),
            Outcome::Unreachable | Outcome::Contended => self.finish(op, Told::Failed),
            Outcome::Written { .. } if is_change => {
                let told = self.ops[op].outcome.clone();
                self.finish(op, told)
            }
            Outcome::Written { .. } => self.finish(op, Told::Done),
            // Decided not to write; or a rival moved the head: again, under a fresh id.
            Outcome::PreconditionFailed { .. } if is_change => match self.ops[op].outcome.clone() {
                told if self.ops[op].decided_on.is_none() => self.finish(op, told),
                _ => self.begin_change(op),
            },
            Outcome::PreconditionFailed { .. } => {
                if self.ops[op].machine.has_sent() && self.fault != Some(Fault::NoUndo) {
                    self.ops[op].undoing = Some(self.ops[op].id);
                    return self.begin_change(op);
                }
                self.finish(op, Told::Refused)
            }
            Outcome::Value { entry, .. } if kind == Kind::Read => {
                let told = Told::Value(self.head(entry).and_then(|(_, head)| item(head.slot, head.content)));
                self.finish(op, told)
            }
            // The head is settled: the slots are looked at again.
            Outcome::Value { .. } => self.look(op, None, false, false),
        }
    }

    fn finish(&mut self, op: usize, told: Told) {
        self.time += 1;
        self.note(|| format!("op {} answers {told:?}", op + 1));
        let state = &mut self.ops[op];
        state.stage = Stage::Over;
        state.call.end = if told == Told::Nothing { 0 } else { self.time };
        state.call.told = told;
    }

    // Looking at slots, and what comes of it.

    fn look(&mut self, op: usize, newest: Option<Entry>, for_change: bool, first: bool) {
        let state = &mut self.ops[op];
        state.question += 1;
        state.views.clear();
        state.stage = Stage::Looking { newest, for_change, first };
        state.last = Some((state.question, (0..REPLICA_COUNT).collect(), Packet::Ask));
        self.send_again(op);
    }

    fn on_view(&mut self, op: usize, question: u32, node: usize, view: View) {
        let Stage::Looking { newest, for_change, first } = self.ops[op].stage else { return };
        if question != self.ops[op].question {
            return;
        }
        self.ops[op].views.insert(node, view);
        if self.ops[op].views.len() < QUORUM {
            return;
        }
        let views: Vec<View> = self.ops[op].views.values().cloned().collect();
        if for_change {
            return self.decide(op, newest, views);
        }
        let newest = views.iter().filter_map(|view| view.head).max();
        let rows = self.merged_rows(&views);
        let told = self.answer(op, newest, &rows);
        let agreed = match self.ops[op].call.kind {
            Kind::Get(version) => rows.get(&self.slot_of(version)).is_none_or(|row| row.settled),
            _ => rows.values().all(|row| row.settled) && views.windows(2).all(|pair| pair[0].head == pair[1].head),
        };
        // Without a current version nothing is older: whoever finds one makes it current first.
        let has_current = newest.is_some_and(|entry| self.heads[&entry.id].content.is_some());
        let is_orphaned = !has_current && rows.values().filter_map(|merged| merged.row.as_ref()).any(SlotRow::is_live);
        if agreed && !is_orphaned || self.fault == Some(Fault::AnswersUnsettled) {
            return self.finish(op, told);
        }
        if first {
            return self.run_machine(op, Coordinator::read(sets()));
        }
        let current = newest.map(|entry| self.heads[&entry.id].slot);
        let open: Vec<(Slot, Row)> = rows
            .iter()
            .filter(|(slot, row)| !row.settled && Some(**slot) != current)
            .filter_map(|(slot, row)| Some((*slot, row.row.clone()?)))
            .collect();
        let head_is_open = current.and_then(|slot| rows.get(&slot)).is_some_and(|row| !row.settled);
        if head_is_open || open.is_empty() || is_orphaned {
            return self.begin_change(op);
        }
        let state = &mut self.ops[op];
        state.question += 1;
        state.taken.clear();
        state.stage = Stage::Repairing(told);
        state.last = Some((state.question, (0..REPLICA_COUNT).collect(), Packet::Merge(open)));
        self.send_again(op);
    }

    fn on_taken(&mut self, op: usize, question: u32, node: usize, taken: bool) {
        let Stage::Repairing(told) = self.ops[op].stage.clone() else { return };
        if question != self.ops[op].question {
            return;
        }
        self.ops[op].taken.insert(node, taken);
        let count = |taken: bool| self.ops[op].taken.values().filter(|other| **other == taken).count();
        if QUORUM <= count(true) {
            return self.finish(op, told);
        }
        if QUORUM <= count(false) {
            self.begin_change(op);
        }
    }

    fn merged_rows(&self, views: &[View]) -> BTreeMap<Slot, Merged<Version>> {
        let heads: Vec<_> = views.iter().map(|view| self.head(view.head)).collect();
        let slots: BTreeSet<Slot> =
            views.iter().flat_map(|view| view.slots.keys().copied()).chain(heads.iter().flatten().map(|(_, head)| head.slot)).collect();
        let of_slot = |slot: Slot| {
            let rows = views
                .iter()
                .zip(&heads)
                .map(|(view, head)| seen(slot, head.as_ref().map(|(entry, head)| (*entry, head)), view.slots.get(&slot).cloned()));
            (slot, merged(rows))
        };
        slots.into_iter().map(of_slot).collect()
    }

    fn answer(&self, op: usize, newest: Option<Entry>, rows: &BTreeMap<Slot, Merged<Version>>) -> Told {
        if let Kind::Get(version) = self.ops[op].call.kind {
            let slot = self.slot_of(version);
            let row = rows.get(&slot).and_then(|merged| merged.row.clone());
            return Told::Value(row.and_then(|row| item(slot, row.content)));
        }
        let current = self.head(newest).filter(|(_, head)| head.content.is_some()).map(|(_, head)| head.slot);
        let live = rows.iter().filter_map(|(slot, merged)| Some((*slot, merged.row.clone()?))).collect();
        let mut listed = live_newest_first(live);
        listed.sort_by_key(|(slot, _)| current != Some(*slot));
        let versions: State = listed.into_iter().filter_map(|(slot, row)| item(slot, row.content)).collect();
        Told::Versions(versions)
    }

    fn decide(&mut self, op: usize, newest: Option<Entry>, mut views: Vec<View>) {
        // A head above what the round is about does not count, and never will.
        for view in views.iter_mut().filter(|view| newest < view.head) {
            view.head = None;
        }
        let mut rows = self.merged_rows(&views);
        let head = self.head(newest);
        if let Some((entry, head)) = &head {
            let merged = rows.entry(head.slot).or_insert(Merged { row: None, settled: true });
            merged.row = seen(head.slot, Some((*entry, head)), merged.row.take());
        }
        let decided = self.decision(op, head.as_ref(), &rows);
        self.note(|| format!("  op {} decides {decided:?} on {rows:?}", op + 1));
        let id = self.ops[op].change;
        let is_met = match decided {
            (told, Some(head)) => {
                self.heads.insert(id, head);
                (self.ops[op].outcome, self.ops[op].decided_on) = (told, Some(newest));
                true
            }
            (told, None) => {
                self.ops[op].outcome = told;
                false
            }
        };
        self.ops[op].stage = Stage::Machine;
        let step = self.ops[op].machine.on_test(is_met);
        self.act(op, step);
    }

    /// What is told, and the new head if there is to be one.
    fn decision(
        &self,
        op: usize,
        head: Option<&(Entry, Head<Version>)>,
        rows: &BTreeMap<Slot, Merged<Version>>,
    ) -> (Told, Option<Head<Version>>) {
        let current = head.filter(|(_, head)| head.content.is_some()).map(|(_, head)| head.slot);
        let promoted = |gone: Option<Slot>, mut effects: Vec<Effect<Version>>| {
            let others =
                rows.iter().filter(|(slot, _)| gone != Some(**slot)).filter_map(|(slot, merged)| Some((*slot, merged.row.clone()?)));
            match live_newest_first(others.collect()).into_iter().next() {
                Some((slot, row)) => {
                    effects.retain(|effect| effect.slot != slot);
                    Head { slot, origin: Some(row.origin), content: row.content, effects }
                }
                None => Head { effects, ..Head::new(Slot::Null, None) },
            }
        };
        let with = |effects: Vec<Effect<Version>>| match head {
            Some((entry, head)) if head.content.is_some() => Head { origin: Some(head.origin_as(*entry)), effects, ..head.clone() },
            _ => promoted(None, effects),
        };
        let unsettled = |skip: Option<Slot>| -> Vec<Effect<Version>> {
            let open =
                rows.iter().filter(|(slot, row)| !row.settled && head.map(|(_, head)| head.slot) != Some(**slot) && skip != Some(**slot));
            open.filter_map(|(slot, merged)| {
                merged.row.as_ref().map(|row| Effect { slot: *slot, origin: row.origin, content: row.content })
            })
            .collect()
        };
        let without = |gone: Slot, origin: Origin| {
            let mut effects = vec![Effect { slot: gone, origin, content: None }];
            effects.extend(unsettled(Some(gone)));
            if current.is_some_and(|current| current != gone) {
                return with(effects);
            }
            promoted(Some(gone), effects)
        };
        if let Some(id) = self.ops[op].undoing {
            let slot = self.heads[&id].slot;
            let order = rows.get(&slot).and_then(|merged| merged.row.as_ref()).map_or(Stamp::ZERO, |row| row.origin.order);
            return (Told::Refused, Some(without(slot, Origin { order, id })));
        }
        match self.ops[op].call.kind {
            Kind::Delete(version) => {
                let slot = self.slot_of(version);
                match rows.get(&slot).and_then(|merged| merged.row.as_ref()).filter(|row| row.is_live()) {
                    None if unsettled(None).is_empty() => (Told::Done, None),
                    None => (Told::Done, Some(with(unsettled(None)))),
                    // Written again, so that what it is refused for is settled.
                    Some(row) if row.content.is_some_and(|(_, locked)| locked) => (Told::Refused, Some(with(unsettled(None)))),
                    Some(row) => (Told::Done, Some(without(slot, row.origin))),
                }
            }
            Kind::Lock(version) => {
                let slot = self.slot_of(version);
                let Some(row) = rows.get(&slot).and_then(|merged| merged.row.as_ref()).filter(|row| row.is_live()) else {
                    return (Told::Missing, Some(with(unsettled(None))));
                };
                let content = row.content.map(|(value, _)| (value, true));
                if current.is_none_or(|current| current == slot) {
                    return (Told::Done, Some(Head { slot, origin: Some(row.origin), content, effects: unsettled(Some(slot)) }));
                }
                let mut effects = unsettled(Some(slot));
                effects.push(Effect { slot, origin: row.origin, content });
                (Told::Done, Some(with(effects)))
            }
            _ => (self.answer(op, head.map(|(entry, _)| *entry), rows), Some(with(unsettled(None)))),
        }
    }

    // Network and replicas.

    fn send_again(&mut self, op: usize) {
        if matches!(self.ops[op].stage, Stage::Idle | Stage::Over) {
            return;
        }
        let Some((phase, to, packet)) = self.ops[op].last.clone() else { return };
        for node in to {
            if node == self.down || !self.is_last_phase && self.rng.one_in(8) {
                continue;
            }
            let weight = if self.rng.one_in(5) { 1 } else { 24 };
            self.letters.push(Letter { op, phase, node, weight, packet: packet.clone() });
        }
    }

    fn deliver(&mut self) {
        let total: usize = self.letters.iter().map(|letter| letter.weight).sum();
        if total == 0 {
            return;
        }
        let mut at = self.rng.below(total);
        let is_it = |letter: &Letter| {
            let hit = at < letter.weight;
            at = at.wrapping_sub(if hit { 0 } else { letter.weight });
            hit
        };
        let index = self.letters.iter().position(is_it).expect("`at` lies below the sum of the weights");
        let letter = self.letters.swap_remove(index);
        let reply = match letter.packet.clone() {
            Packet::Register(message) => Packet::Answer(self.serve(letter.node, &message)),
            Packet::Ask => {
                let replica = &self.replicas[letter.node];
                Packet::View(View { head: replica.row, slots: replica.slots.clone() })
            }
            Packet::Merge(rows) => {
                let taken = rows.into_iter().all(|(slot, row)| self.merge_guarded(letter.node, slot, row));
                Packet::Taken(taken)
            }
            Packet::Answer(answer) => {
                if matches!(self.ops[letter.op].stage, Stage::Machine) {
                    self.note(|| format!("  op {} hears r{} {answer:?}", letter.op + 1, letter.node));
                    let step = self.ops[letter.op].machine.on_answer(letter.node, Phase(letter.phase), answer);
                    self.act(letter.op, step);
                    if matches!(self.ops[letter.op].stage, Stage::Machine) && self.rng.one_in(4) {
                        let step = self.ops[letter.op].machine.on_hedge_delay();
                        self.act(letter.op, step);
                    }
                }
                return;
            }
            Packet::View(view) => return self.on_view(letter.op, letter.phase, letter.node, view),
            Packet::Taken(taken) => return self.on_taken(letter.op, letter.phase, letter.node, taken),
        };
        let weight = if self.rng.one_in(5) { 1 } else { 24 };
        self.letters.push(Letter { weight, packet: reply, ..letter });
    }

    fn serve(&mut self, node: usize, message: &Message) -> Answer {
        let old = self.head(self.replicas[node].row);
        let replica = &mut self.replicas[node];
        let (mut answer, taken) = replica.side.serve(replica.row, message);
        if let (Answer::Prepare(PrepareAnswer::Promised { kept, .. }), Message::Prepare { own: Some(own), .. }) = (&mut answer, message) {
            *kept = slots::kept(*own, replica.slots.get(&Slot::Id(own.id)), replica.slots.get(&Slot::Null));
        }
        if let Some(entry) = taken {
            replica.row = Some(entry);
            let new = &self.heads[&entry.id];
            let mut rows = accepted(old.as_ref().map(|(entry, head)| (*entry, head)), (entry, new));
            if self.fault == Some(Fault::NothingKept) {
                rows.clear();
            }
            for (slot, row) in rows {
                self.take(node, slot, row);
            }
            self.note(|| format!("r{node} takes {entry:?}"));
        }
        answer
    }

    fn take(&mut self, node: usize, slot: Slot, row: Row) {
        let slots = &mut self.replicas[node].slots;
        let merged = match slots.remove(&slot) {
            Some(held) if self.fault == Some(Fault::DeletionsAlwaysWin) && held.is_live() != row.is_live() => {
                if held.is_live() {
                    row
                } else {
                    held
                }
            }
            Some(held) => merge(held, row),
            None => row,
        };
        slots.insert(slot, merged);
    }

    /// As a table with a guard merges.
    fn merge_guarded(&mut self, node: usize, slot: Slot, row: Row) -> bool {
        let replica = &self.replicas[node];
        let is_ahead = replica.row.is_none_or(|entry| entry.stamp < row.stamp) && self.fault != Some(Fault::RowsAhead);
        if row.stamp < replica.side.promise() || is_ahead {
            return false;
        }
        self.note(|| format!("r{node} merges {slot:?} {row:?}"));
        self.take(node, slot, row);
        true
    }

    fn anti_entropy(&mut self) {
        let (from, by) = (self.rng.below(REPLICA_COUNT), 1 + self.rng.below(REPLICA_COUNT - 1));
        let to = (from + by) % REPLICA_COUNT;
        if from == self.down || to == self.down {
            return;
        }
        if self.rng.one_in(2) {
            let Some(entry) = self.replicas[from].row else { return };
            self.note(|| format!("anti-entropy r{from} -> r{to}"));
            self.serve(to, &Message::Apply { entry, ballot: entry.stamp });
        } else if !self.replicas[from].slots.is_empty() {
            let index = self.rng.below(self.replicas[from].slots.len());
            let row = self.replicas[from].slots.iter().nth(index).map(|(slot, row)| (*slot, row.clone()));
            if let Some((slot, row)) = row {
                self.merge_guarded(to, slot, row);
            }
        }
    }
}

fn item(slot: Slot, content: Option<Version>) -> Option<Item> {
    content.map(|(value, locked)| Item { value, is_null: slot == Slot::Null, locked })
}
