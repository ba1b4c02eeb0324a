//! One schedule: replicas, coordinators and a network, all driven by one seed.
//!
//! Messages are lost, duplicated, delayed without bound and sent again; coordinators crash, lose patience and take live nodes for dead;
//! clocks are arbitrary; a replica is away for long; anti-entropy runs between any two replicas at any time. Every decision is taken by
//! the real [`RegisterSide`] and [`Coordinator`]; this file only carries messages.

use std::{collections::BTreeSet, fmt::Write as _};

use garage_rpc::register::{
    Answer, Content, Coordinator, Entry, Message, Outcome, Phase, PrepareAnswer, QuorumSet, QuorumSets, RegisterSide, Step, Weakness,
    WriteId,
};
use garage_util::hlc::Stamp;

use crate::history::{Call, Kind, Told, Value, is_linearizable};

/// One rule left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// In the coordinator.
    Core(Weakness),
    /// Anti-entropy goes past promises.
    SyncIgnoresPromise,
    /// So does what a read writes back.
    RepairIgnoresPromise,
    /// Replicas remember nothing but their row, and claim that this is all.
    NoTrail,
    /// Replicas remember the row and one superseded entry, and claim that this is all: no floor.
    NoFloor,
    /// Promises are dropped while their messages are under way.
    ForgetsEarly,
    /// During a layout change reads are content with the old set, which others may have left.
    ReadsOneSet,
    /// What moves to the new nodes are the rows alone, without promises.
    MovesRowsAlone,
    /// What moves comes from one of the old nodes alone.
    MovesFromOne,
    /// The old set is left as soon as nobody uses it alone.
    LeavesUnsettled,
    /// Who takes a conditional write over does not test its condition.
    TakesOverUntested,
    /// A row that only the new nodes accepted stays as it is under a promise that moves in.
    MovesUnderPromises,
    /// What the new nodes accepted and replaced before they counted stays in their trails.
    MovesTrails,
}

/// What is varied between runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Setting {
    /// The key moves from one set of nodes to another.
    pub layout_change: bool,
    /// It moves by copying rows, promises and gaps in memory to each new node, instead of by settling it.
    pub moves: bool,
    /// Promises and trails are dropped once nothing below them is under way.
    pub forgetting: bool,
    /// Some writes are carried out by two coordinators.
    pub sharing: bool,
    pub fault: Option<Fault>,
}

/// What a run of many schedules amounts to.
#[derive(Clone, Copy, Default, Debug)]
pub struct Stats {
    pub answered: u64,
    pub unknown: u64,
    pub traceless: u64,
    pub layout_left: u64,
    pub forgotten: u64,
    /// Shared writes of which both coordinators were answered.
    pub shared: u64,
}

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

#[derive(Default)]
struct Replica {
    row: Option<Entry>,
    side: RegisterSide,
    /// What the row replaced last.
    superseded: Option<Entry>,
}

impl Replica {
    fn serve(&mut self, message: &Message) -> Answer {
        let (answer, replaced) = self.side.serve(self.row, message);
        if replaced.is_some() {
            self.superseded = self.row;
            self.row = replaced;
        }
        answer
    }
}

#[derive(Clone)]
enum Packet {
    Request { to: usize, message: Message, own: bool, adopted: bool },
    Reply { from: usize, answer: Answer },
}

#[derive(Clone)]
struct Letter {
    op: usize,
    phase: Phase,
    weight: usize,
    packet: Packet,
}

/// Which layout versions a coordinator takes for live.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum View {
    Old,
    Both,
    New,
}

/// How far the layout change is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Move {
    /// Everybody lives in the old layout.
    NotBegun,
    /// Some know of both.
    Spreading,
    /// Nobody begins in the old layout any more; once nobody is left there, the key is settled in both.
    Settling(Option<usize>),
    /// The same by copying: (new node, old node) still to be copied, and a read that must settle a row which a promise refused.
    Moving { copies_left: usize, reading: Option<usize> },
    /// Some live in the new layout alone.
    Leaving,
}

struct Op {
    call: Call,
    role: Role,
    /// The stamp of a shared write's first attempt.
    first: Option<Stamp>,
    view: View,
    clock: u64,
    /// The clock of its first tick.
    first_clock: Option<u64>,
    machine: Coordinator<usize>,
    running: bool,
    /// What it sent last, to be sent again.
    last: Option<(Phase, Message, Vec<usize>, Content<usize>)>,
}

/// Who carries a write out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Role {
    /// Its coordinator alone.
    Alone,
    /// Its first coordinator; others may take it over.
    First {
        /// If the row that was there when it began still is.
        conditional: bool,
    },
    /// Takes over the write of this operation.
    TakesOver(usize),
}

/// The chances of a schedule, in percent of its steps.
struct Weather {
    drop: usize,
    duplicate: usize,
    sync: usize,
    crash: usize,
    silence: usize,
    forget: usize,
    advance: usize,
    /// One message in so many is very slow; 0: none.
    slow: usize,
    pace: usize,
}

pub struct World<'a> {
    setting: Setting,
    rng: Rng,
    replicas: Vec<Replica>,
    ops: Vec<Op>,
    letters: Vec<Letter>,
    time: u32,
    weather: Weather,
    /// This replica is away until the last reads; none, if there is no such number.
    down: usize,
    is_last_phase: bool,
    layout: Move,
    /// No tick is below this clock any more: the skew that forgetting allows for.
    horizon_clock: u64,
    log: Option<String>,
    stats: &'a mut Stats,
}

/// Runs the schedule of `seed`; the log when its history can't be explained by a register (empty unless `wants_log`).
pub fn run_schedule(seed: u64, setting: Setting, wants_log: bool, stats: &mut Stats) -> Result<(), String> {
    let mut world = World::new(seed, setting, wants_log, stats);
    world.run();
    let is_explained = world.calls().is_some_and(|calls| is_linearizable(&calls));
    if is_explained { Ok(()) } else { Err(world.log.take().unwrap_or_default()) }
}

fn write_id(value: Value) -> WriteId {
    let mut bytes = [0; 32];
    // Spread so that the order of ids is not the order of the operations.
    bytes[0] = value.wrapping_mul(97);
    bytes[31] = value;
    WriteId(bytes)
}

fn stamp_at(clock: u64) -> Stamp {
    Stamp::from_parts(clock, 0, false)
}

const BEYOND_ALL: u64 = u64::MAX;
/// (new node, old node) of each copy of a move; one old node that is left out has its place taken by r2.
const MOVE_COPIES: [(usize, usize); 4] = [(3, 0), (3, 1), (4, 0), (4, 1)];

impl<'a> World<'a> {
    fn new(seed: u64, setting: Setting, wants_log: bool, stats: &'a mut Stats) -> World<'a> {
        let mut rng = Rng(seed);
        let node_count = if setting.layout_change { 5 } else { 3 };
        let weather = Weather {
            drop: rng.below(3) * 4,
            duplicate: rng.below(3) * 4,
            sync: rng.below(3) * 4,
            crash: rng.below(2) * 3,
            silence: rng.below(3),
            forget: if setting.forgetting { rng.below(3) * 4 } else { 0 },
            advance: if setting.layout_change { 2 + rng.below(3) * 3 } else { 0 },
            slow: [0, 3, 6][rng.below(3)],
            pace: 2 + rng.below(14),
        };
        let down = rng.below(2 * node_count);
        let mut world = World {
            setting,
            rng,
            replicas: (0..node_count).map(|_| Replica::default()).collect(),
            ops: Vec::new(),
            letters: Vec::new(),
            time: 0,
            weather,
            down,
            is_last_phase: false,
            layout: Move::NotBegun,
            horizon_clock: 0,
            log: wants_log.then(String::new),
            stats,
        };
        let count = 2 + world.rng.below(6);
        for index in 0..count {
            let kind = world.random_kind(index, count);
            world.add_op(kind);
        }
        if setting.sharing {
            world.share_some(count);
        }
        world
    }

    fn random_kind(&mut self, index: usize, count: usize) -> Kind {
        let target = 1 + self.rng.below(count);
        let kind = match self.rng.below(10) {
            0..=2 => Kind::Put,
            3 => Kind::Delete,
            4..=5 => Kind::PutIfAbsent,
            6 => Kind::PutIfMatch(target as Value),
            7 => Kind::DeleteIfMatch(target as Value),
            _ => Kind::Read,
        };
        match kind {
            Kind::PutIfMatch(_) | Kind::DeleteIfMatch(_) if target == index + 1 => Kind::Put,
            kind => kind,
        }
    }

    /// An operation that has not begun.
    fn add_op(&mut self, kind: Kind) -> usize {
        let index = self.ops.len();
        let call = Call { kind, writes: index as Value + 1, begin: 0, end: 0, told: Told::Nothing };
        let machine = Coordinator::read(self.sets(View::Old));
        let (role, view) = (Role::Alone, View::Old);
        self.ops.push(Op { call, role, first: None, view, clock: 0, first_clock: None, machine, running: false, last: None });
        index
    }

    /// Gives some puts a second coordinator.
    fn share_some(&mut self, count: usize) {
        for first in 0..count {
            if self.ops[first].call.kind != Kind::Put || self.rng.one_in(3) {
                continue;
            }
            self.ops[first].role = Role::First { conditional: self.rng.one_in(2) };
            let second = self.add_op(Kind::Put);
            self.ops[second].role = Role::TakesOver(first);
            self.ops[second].call.writes = first as Value + 1;
        }
    }

    /// What the clients saw. A shared write is one call, from its first beginning to its first success; `None`: one of its coordinators
    /// says that it was done and the other that it never will be.
    fn calls(&self) -> Option<Vec<Call>> {
        let mut calls = Vec::new();
        for (index, op) in self.ops.iter().enumerate() {
            match op.role {
                Role::Alone => calls.push(op.call),
                Role::First { .. } => calls.extend(self.shared_calls(index)?),
                Role::TakesOver(_) => {}
            }
        }
        Some(calls)
    }

    fn shared_calls(&self, first: usize) -> Option<Vec<Call>> {
        let takes_over = |op: &&Op| op.role == Role::TakesOver(first) && op.call.begin != 0;
        let attempts: Vec<Call> = [self.ops[first].call].into_iter().chain(self.ops.iter().filter(takes_over).map(|op| op.call)).collect();
        let done_at = attempts.iter().filter(|call| call.told == Told::Done).map(|call| call.end).min();
        let refusals: Vec<Call> = attempts.iter().filter(|call| call.told == Told::PreconditionFailed).copied().collect();
        // The row it was to replace never comes back, so a refusal is for good: whoever else tries can't have been, nor be, successful.
        let told = match (done_at, refusals.is_empty()) {
            (Some(_), false) => return None,
            (Some(_), true) => Told::Done,
            (None, false) => Told::Failed,
            (None, true) => Told::Nothing,
        };
        let whole = Call { told, end: done_at.unwrap_or(0), ..attempts[0] };
        Some(refusals.into_iter().chain([whole]).collect())
    }

    fn sets(&self, view: View) -> QuorumSets<usize> {
        let old = QuorumSet::majority([0, 1, 2]);
        let new = QuorumSet::majority([2, 3, 4]);
        match view {
            View::Old => QuorumSets::single(old),
            View::Both => QuorumSets::new(vec![old, new]),
            View::New => QuorumSets::single(new),
        }
    }

    fn run(&mut self) {
        let steps = 20 + self.rng.below(if self.setting.layout_change { 240 } else { 120 });
        for _ in 0..steps {
            self.step();
        }
        // Two last reads, one after the other, each with what is left in the network still arriving.
        self.is_last_phase = true;
        for _ in 0..2 {
            let op = self.add_op(Kind::Read);
            self.start(op);
            let mut patience = 60 * self.replicas.len();
            while self.ops[op].running && patience > 0 {
                if self.letters.is_empty() {
                    self.send_again(op);
                }
                self.deliver(false);
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
        let weather = &self.weather;
        let (drop, sync, crash) = (falls_to(weather.drop), falls_to(weather.sync), falls_to(weather.crash));
        let (silence, forget, advance) = (falls_to(weather.silence), falls_to(weather.forget), falls_to(weather.advance));
        if drop && !self.letters.is_empty() {
            let index = self.rng.below(self.letters.len());
            self.letters.swap_remove(index);
        } else if sync {
            let (from, by) = (self.rng.below(self.replicas.len()), 1 + self.rng.below(self.replicas.len() - 1));
            self.anti_entropy(from, (from + by) % self.replicas.len());
        } else if crash {
            self.crash();
        } else if silence {
            self.lose_patience();
        } else if forget {
            self.forget();
        } else if advance {
            self.advance_layout();
        } else if self.letters.is_empty() || self.rng.one_in(self.weather.pace) {
            self.begin_or_repeat();
        } else {
            let duplicate = self.rng.below(100) < self.weather.duplicate;
            self.deliver(duplicate);
        }
    }

    fn begin_or_repeat(&mut self) {
        let idle: Vec<usize> = (0..self.ops.len()).filter(|op| self.may_begin(*op)).collect();
        if idle.is_empty() {
            let op = self.rng.below(self.ops.len());
            self.send_again(op);
        } else {
            let op = idle[self.rng.below(idle.len())];
            self.start(op);
        }
    }

    /// A write is taken over only after its first coordinator made it known.
    fn may_begin(&self, op: usize) -> bool {
        let is_known = |role| if let Role::TakesOver(first) = role { self.ops[first].call.begin != 0 } else { true };
        self.ops[op].call.begin == 0 && is_known(self.ops[op].role)
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            let _ = writeln!(log, "{}", text());
        }
    }

    fn visible(&self, row: Option<Entry>) -> Value {
        row.map_or(0, |entry| {
            let value = entry.id.0[31];
            if self.ops[value as usize - 1].call.kind.is_delete() { 0 } else { value }
        })
    }

    // Coordinators.

    fn random_view(&mut self) -> View {
        let is_late = self.rng.one_in(2);
        match self.layout {
            Move::NotBegun => View::Old,
            Move::Spreading => {
                if is_late {
                    View::Old
                } else {
                    View::Both
                }
            }
            Move::Settling(_) | Move::Moving { .. } => View::Both,
            Move::Leaving => {
                if is_late {
                    View::Both
                } else {
                    View::New
                }
            }
        }
    }

    fn start(&mut self, op: usize) {
        let view = self.random_view();
        self.start_in(op, view);
    }

    fn start_in(&mut self, op: usize, view: View) {
        self.time += 1;
        let (time, clock) = (self.time, self.rng.below(5) as u64);
        let state = &mut self.ops[op];
        (state.call.begin, state.clock, state.view, state.running) = (time, clock, view, true);
        let machine = self.machine_of(op, view);
        let weakness = if let Some(Fault::Core(weakness)) = self.setting.fault { Some(weakness) } else { None };
        self.ops[op].machine = machine.weakened(weakness);
        let state = &self.ops[op];
        let kind = state.call.kind;
        self.note(|| format!("op {} = {kind:?} begins, view {view:?}", op + 1));
        let step = self.ops[op].machine.start();
        self.act(op, step);
    }

    fn machine_of(&mut self, op: usize, view: View) -> Coordinator<usize> {
        let (id, sets) = (write_id(self.ops[op].call.writes), self.sets(view));
        match (self.ops[op].role, self.ops[op].call.kind) {
            (Role::First { conditional }, _) => {
                let first = self.tick(op, Stamp::ZERO);
                self.ops[op].first = Some(first);
                match self.settled_value(view).filter(|_| conditional) {
                    Some(value) => {
                        self.ops[op].call.kind = Kind::PutIfMatch(value);
                        Coordinator::take_over_if(id, first, sets)
                    }
                    None => Coordinator::write_at(id, first, sets),
                }
            }
            (Role::TakesOver(other), _) => {
                let (first, kind) = (self.ops[other].first.expect("it has begun"), self.ops[other].call.kind);
                let clock = self.ops[other].first_clock;
                (self.ops[op].call.kind, self.ops[op].first_clock) = (kind, clock);
                let is_tested = kind != Kind::Put && self.setting.fault != Some(Fault::TakesOverUntested);
                if is_tested { Coordinator::take_over_if(id, first, sets) } else { Coordinator::take_over(id, first, sets) }
            }
            (Role::Alone, Kind::Put | Kind::Delete) => Coordinator::write(id, sets),
            (Role::Alone, Kind::PutIfAbsent | Kind::PutIfMatch(_) | Kind::DeleteIfMatch(_)) => Coordinator::write_if(id, sets),
            (Role::Alone, Kind::Settle) => Coordinator::settle(sets),
            (Role::Alone, Kind::Restamp) => Coordinator::restamp(sets),
            (Role::Alone, Kind::Read) => Coordinator::read(self.read_sets(view)),
        }
    }

    /// What a read could be answered now, if that is a put's.
    fn settled_value(&self, view: View) -> Option<Value> {
        let rows = self.replicas.iter().map(|replica| replica.row);
        let is_settled = |row: &Option<Entry>| {
            let holders = (0..self.replicas.len()).filter(|node| self.replicas[*node].row == *row).collect();
            self.sets(view).has_quorum(&holders)
        };
        rows.filter(is_settled).map(|row| self.visible(row)).find(|value| *value != 0)
    }

    fn read_sets(&mut self, view: View) -> QuorumSets<usize> {
        if view == View::Both && self.setting.fault == Some(Fault::ReadsOneSet) {
            return self.sets(View::Old);
        }
        self.sets(view)
    }

    fn tick(&mut self, op: usize, above: Stamp) -> Stamp {
        let jump = if self.rng.one_in(4) { self.rng.below(4) as u64 } else { 0 };
        let horizon = self.horizon_clock;
        let state = &mut self.ops[op];
        state.clock = (state.clock + 1).max(above.time() + 1).max(horizon) + jump;
        state.first_clock.get_or_insert(state.clock);
        Stamp::from_parts(state.clock, op as u64, false)
    }

    /// Does what the machine says, until it waits.
    fn act(&mut self, op: usize, mut step: Step<usize>) {
        loop {
            step = match step {
                Step::Wait => return,
                Step::Tick { above, .. } => {
                    let stamp = self.tick(op, above);
                    self.ops[op].machine.on_tick(stamp)
                }
                Step::Test { newest, answered_by } => {
                    assert_eq!(newest.is_none(), answered_by.is_empty(), "a row has to come from someone");
                    let is_met = self.ops[op].call.kind.holds(self.visible(newest));
                    self.ops[op].machine.on_test(is_met)
                }
                Step::Send { phase, message, to, content } => {
                    self.note(|| format!("  op {} sends {message:?}", op + 1));
                    assert_ne!(content, Content::AnsweredBy(Vec::new()), "a content has to come from someone");
                    self.ops[op].last = Some((phase, message, to, content));
                    self.send_again(op);
                    return;
                }
                Step::Done(outcome) => return self.finish(op, outcome),
            }
        }
    }

    fn send_again(&mut self, op: usize) {
        let Some((phase, message, to, content)) = self.ops[op].last.clone().filter(|_| self.ops[op].running) else { return };
        for to in to {
            if !self.is_last_phase && (to == self.down || self.rng.one_in(8)) {
                continue;
            }
            let weight = self.random_weight();
            let packet = Packet::Request { to, message, own: content == Content::Own, adopted: matches!(content, Content::AnsweredBy(_)) };
            self.letters.push(Letter { op, phase, weight, packet });
        }
    }

    fn random_weight(&mut self) -> usize {
        if self.rng.one_in(self.weather.slow) { 1 } else { 24 }
    }

    fn finish(&mut self, op: usize, outcome: Outcome<usize>) {
        self.time += 1;
        let told = match outcome {
            Outcome::Written { .. } => Told::Done,
            Outcome::PreconditionFailed { .. } => Told::PreconditionFailed,
            Outcome::Value { entry, .. } => Told::Value(self.visible(entry)),
            Outcome::Unknown => Told::Nothing,
            Outcome::Unreachable | Outcome::Contended => Told::Failed,
        };
        let is_ended = |op: &Op| op.call.end != 0 && op.call.told != Told::Nothing;
        if let Role::TakesOver(first) = self.ops[op].role
            && is_ended(&self.ops[first])
            && told != Told::Nothing
        {
            self.stats.shared += 1;
        }
        match told {
            Told::Nothing => self.stats.unknown += 1,
            Told::Failed => self.stats.traceless += 1,
            _ => self.stats.answered += 1,
        }
        let time = self.time;
        let state = &mut self.ops[op];
        state.running = false;
        state.call.told = told;
        state.call.end = if told == Told::Nothing { 0 } else { time };
        self.note(|| format!("op {} answers {outcome:?}", op + 1));
        self.finish_reading(op, matches!(told, Told::Value(_)));
        if self.layout == Move::Settling(Some(op)) {
            if matches!(told, Told::Value(_)) {
                self.stats.layout_left += 1
            }
            self.layout = if matches!(told, Told::Value(_)) { Move::Leaving } else { Move::Settling(None) };
        }
    }

    fn crash(&mut self) {
        let op = self.rng.below(self.ops.len());
        if !self.ops[op].running {
            return;
        }
        if self.rng.one_in(2) {
            let step = self.ops[op].machine.on_deadline();
            return self.act(op, step);
        }
        self.note(|| format!("coordinator of op {} crashes", op + 1));
        self.ops[op].running = false;
        self.finish_reading(op, false);
        if self.layout == Move::Settling(Some(op)) {
            self.layout = Move::Settling(None);
        }
    }

    /// The read that settles a row on the move ended; without a value the copy is made anew.
    fn finish_reading(&mut self, op: usize, succeeded: bool) {
        if let Move::Moving { copies_left, reading: Some(reading) } = self.layout
            && reading == op
        {
            self.layout = Move::Moving { copies_left: copies_left + usize::from(!succeeded), reading: None };
        }
    }

    fn lose_patience(&mut self) {
        let (op, node) = (self.rng.below(self.ops.len()), self.rng.below(self.replicas.len()));
        let Some((phase, ..)) = self.ops[op].last.clone().filter(|_| self.ops[op].running) else { return };
        self.note(|| format!("  op {} takes r{node} for silent", op + 1));
        let step = self.ops[op].machine.on_no_answer(node, phase);
        self.act(op, step);
    }

    // Network and replicas.

    fn deliver(&mut self, duplicate: bool) {
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
        let letter = if duplicate {
            let letter = self.letters[index].clone();
            self.letters[index].weight = 1;
            letter
        } else {
            self.letters.swap_remove(index)
        };
        match letter.packet.clone() {
            Packet::Request { to, message, adopted, .. } => self.serve(&letter, to, message, adopted),
            Packet::Reply { from, answer } => self.hear(&letter, from, answer),
        }
    }

    fn serve(&mut self, letter: &Letter, to: usize, mut message: Message, adopted: bool) {
        if self.setting.fault == Some(Fault::RepairIgnoresPromise)
            && let Message::Apply { entry, ballot } = &mut message
            && adopted
            && *ballot == entry.stamp
        {
            *ballot = stamp_at(BEYOND_ALL);
        }
        let replica = &mut self.replicas[to];
        let mut answer = replica.serve(&message);
        if let Answer::Prepare(PrepareAnswer::Promised { row, shown, complete, .. }) = &mut answer
            && let Some(fault @ (Fault::NoTrail | Fault::NoFloor)) = self.setting.fault
        {
            let is_at = |entry: Option<Entry>, stamp: Stamp| entry.is_some_and(|entry| entry.stamp == stamp);
            shown.retain(|stamp| is_at(*row, *stamp) || (fault == Fault::NoFloor && is_at(replica.superseded, *stamp)));
            *complete = true;
        }
        let weight = self.random_weight();
        self.note(|| format!("r{to} <- op {} {message:?}: {answer:?}", letter.op + 1));
        self.letters.push(Letter { op: letter.op, phase: letter.phase, weight, packet: Packet::Reply { from: to, answer } });
    }

    fn hear(&mut self, letter: &Letter, from: usize, answer: Answer) {
        if !self.ops[letter.op].running {
            return;
        }
        self.note(|| format!("  op {} hears r{from}", letter.op + 1));
        let step = self.ops[letter.op].machine.on_answer(from, letter.phase, answer);
        self.act(letter.op, step);
        if self.ops[letter.op].running && self.rng.one_in(4) {
            let step = self.ops[letter.op].machine.on_hedge_delay();
            self.act(letter.op, step);
        }
    }

    fn anti_entropy(&mut self, from: usize, to: usize) {
        let Some(entry) = self.replicas[from].row else { return };
        if from == self.down || to == self.down {
            return;
        }
        let ballot = if self.setting.fault == Some(Fault::SyncIgnoresPromise) { stamp_at(BEYOND_ALL) } else { entry.stamp };
        let answer = self.replicas[to].serve(&Message::Apply { entry, ballot });
        self.note(|| format!("anti-entropy r{from} -> r{to} {entry:?}: {answer:?}"));
    }

    // Forgetting, and the layout change.

    /// One replica drops what lies below everything that runs or is under way.
    fn forget(&mut self) {
        // A write that may yet be taken over counts from its first attempt.
        let is_awaited = |index: usize| self.ops.iter().any(|op| op.role == Role::TakesOver(index) && op.call.begin == 0);
        let may_run = |(index, op): &(usize, &Op)| op.running || is_awaited(*index);
        let running = self.ops.iter().enumerate().filter(may_run).filter_map(|(_, op)| op.first_clock);
        let under_way = self.letters.iter().filter_map(|letter| match letter.packet {
            Packet::Request { message: Message::Prepare { ballot, .. }, .. } => Some(ballot.time()),
            // Old rows carried about as they are (read repair) are not bound in time, nor is anti-entropy.
            Packet::Request { message: Message::Apply { entry, ballot }, own, .. } if own || ballot != entry.stamp => Some(ballot.time()),
            _ => None,
        });
        let highest = self.replicas.iter().map(|replica| replica.side.promise().time()).max().unwrap_or(0) + 1;
        let clock =
            if self.setting.fault == Some(Fault::ForgetsEarly) { highest } else { running.chain(under_way).min().unwrap_or(highest) };
        self.horizon_clock = self.horizon_clock.max(clock);
        let node = self.rng.below(self.replicas.len());
        let before = self.replicas[node].side.clone();
        self.replicas[node].side.forget_below(stamp_at(clock));
        if self.replicas[node].side != before {
            self.stats.forgotten += 1;
            self.note(|| format!("r{node} forgets what lies below {clock}"));
        }
    }

    fn advance_layout(&mut self) {
        match self.layout {
            Move::NotBegun => self.layout = Move::Spreading,
            Move::Spreading if self.rng.one_in(2) => self.layout = Move::Settling(None),
            Move::Settling(None) if self.setting.moves && !self.ops.iter().any(|op| op.running && op.view == View::Old) => {
                self.layout = Move::Moving { copies_left: MOVE_COPIES.len(), reading: None };
            }
            Move::Moving { copies_left: 0, reading: None } => {
                if self.setting.fault != Some(Fault::MovesTrails) {
                    let new_nodes = BTreeSet::from(MOVE_COPIES.map(|(to, _)| to));
                    new_nodes.into_iter().for_each(|node| self.replicas[node].side.forget_superseded());
                }
                self.stats.layout_left += 1;
                self.layout = Move::Leaving;
            }
            Move::Moving { copies_left, reading: None } => self.copy(copies_left - 1),
            Move::Settling(None) if !self.ops.iter().any(|op| op.running && op.view == View::Old) => {
                if self.setting.fault == Some(Fault::LeavesUnsettled) {
                    self.layout = Move::Leaving;
                    return;
                }
                let op = self.add_op(Kind::Settle);
                self.layout = Move::Settling(Some(op));
                self.start_in(op, View::Both);
            }
            _ => self.tell_layout(),
        }
        let layout = self.layout;
        self.note(|| format!("layout: {layout:?}"));
    }

    /// A new node takes over what an old one holds: its row as anti-entropy does, then what it promised, then its gaps in memory.
    fn copy(&mut self, index: usize) {
        self.layout = Move::Moving { copies_left: index, reading: None };
        let (to, mut from) = MOVE_COPIES[index];
        // Each new node is served by two of the three, whichever; the pairs are the same for all copies of a schedule.
        if self.down % 3 == from {
            from = 2;
        }
        if self.setting.fault == Some(Fault::MovesFromOne) {
            from = self.down % 3;
        }
        let (row, old) = (self.replicas[from].row, self.replicas[from].side.clone());
        let replica = &mut self.replicas[to];
        let mut is_promised = false;
        if let Some(entry) = row {
            let (answer, replaced) = replica.side.serve(replica.row, &Message::Apply { entry, ballot: entry.stamp });
            replica.row = replaced.or(replica.row);
            let is_outrun = replica.row.is_some_and(|held| entry.stamp <= held.stamp);
            is_promised = matches!(answer, Answer::Apply(garage_rpc::register::ApplyAnswer::Refused { .. })) && !is_outrun;
            if is_outrun && replica.row != row {
                replica.side.take_over(Stamp::ZERO, entry.stamp);
            }
        }
        let promise = if self.setting.fault == Some(Fault::MovesRowsAlone) { Stamp::ZERO } else { old.promise() };
        // A row below a promise of the old node, and not its own: it may have been accepted by the new nodes alone, and must not count by that.
        let is_doubtful = replica.row.is_some_and(|held| held.stamp < promise) && replica.row != row;
        is_promised |= is_doubtful && self.setting.fault != Some(Fault::MovesUnderPromises);
        replica.side.take_over(promise, old.superseded());
        self.note(|| format!("move r{from} -> r{to}: {row:?}, promise {promise:?}, refused: {is_promised}"));
        if is_promised {
            let op = self.add_op(Kind::Restamp);
            self.layout = Move::Moving { copies_left: index, reading: Some(op) };
            self.start_in(op, View::Both);
        }
    }

    /// A running coordinator learns how far the layout is.
    fn tell_layout(&mut self) {
        let next = |view| match (view, self.layout) {
            (_, Move::NotBegun) | (View::New, _) => None,
            (View::Old, _) => Some(View::Both),
            (View::Both, Move::Leaving) => Some(View::New),
            (View::Both, _) => None,
        };
        let behind: Vec<(usize, View)> =
            (0..self.ops.len()).filter(|op| self.ops[*op].running).filter_map(|op| Some((op, next(self.ops[op].view)?))).collect();
        if behind.is_empty() {
            return;
        }
        let (op, view) = behind[self.rng.below(behind.len())];
        self.ops[op].view = view;
        let sets = if self.ops[op].call.kind == Kind::Read { self.read_sets(view) } else { self.sets(view) };
        self.note(|| format!("  op {} learns of view {view:?}", op + 1));
        let step = self.ops[op].machine.on_new_sets(sets);
        self.act(op, step);
    }
}
