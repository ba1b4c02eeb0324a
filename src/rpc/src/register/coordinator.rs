//! One operation on a register as its coordinator sees it: a plain write, a conditional write, or a read.
//!
//! The shell starts it, does what each [`Step`] says, and feeds back answers, failures, ticks, the hedge delay and the deadline; each
//! input returns the next step. Rules of the machine:
//! - a plain write goes out once under a fresh stamp; everything else, and a write that is refused, goes through rounds: prepare a
//!   ballot at a quorum, look at what is there, then install under that ballot;
//! - a refused write is never sent anew before a round has proven that its earlier attempts took no effect;
//! - nothing is answered from, or built upon, a row that is not settled, before that row has been written back under the ballot;
//! - what the answers do not prove is `Unknown`.
//!
//! Not here: what a replica accepts (`replica`), what answers prove (`evidence`), back-off, hedging, deadlines and contents (the shell).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use garage_util::hlc::Stamp;

use super::evidence::{Fate, Trace, fate, holders, is_settled, newest};
use super::{
    Answer, ApplyAnswer, Content, Entry, Message, Outcome, OwnWrite, Phase, PrepareAnswer, QuorumSet, QuorumSets, Step, WriteId, stamp_of,
};

/// How many rounds an operation goes before it gives up against its rivals, as long as it sent its version to nobody: it can then say
/// that it left no trace.
pub const ROUNDS_MAX: u32 = 8;
/// How many rounds a write goes that sent its version to someone: giving up would leave its client in doubt, so only the deadline should.
pub const ROUNDS_IN_DOUBT_MAX: u32 = 64;

/// What the operation is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Goal {
    Write(WriteId),
    WriteIf(WriteId),
    Read,
    Settle,
    Restamp,
}

/// What follows once a row has been written back.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Then<N> {
    Install,
    Finish(Outcome<N>),
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Stage<N> {
    /// Not started.
    Idle,
    /// Waits for the tick of a plain write's first attempt.
    FirstTick,
    /// A plain write's first attempt.
    FirstApply,
    Query,
    /// A read writes back what it saw, as it is.
    Repair(Outcome<N>),
    /// Waits for the tick of a ballot.
    BallotTick,
    Prepare,
    /// Waits for the shell to test the condition.
    Test {
        newest: Option<Entry>,
        answered_by: Vec<N>,
        settled: bool,
    },
    /// Writes another's row back under the ballot.
    WriteBack(Then<N>),
    /// Installs the own version under the ballot.
    Install,
    Over,
}

/// One operation in progress. See the module's header for its rules, [`Step`] for what it asks of the shell.
#[derive(Clone, Debug)]
pub struct Coordinator<N> {
    sets: QuorumSets<N>,
    /// All the sets the own version may have been sent under.
    tried: QuorumSets<N>,
    goal: Goal,
    stage: Stage<N>,
    phase: Phase,
    /// The present ballot; for a plain write's first attempt, its stamp.
    ballot: Stamp,
    /// The first stamp the own version was sent under.
    first_sent: Option<Stamp>,
    /// The stamp of a plain write's first attempt, where others know it.
    known_first: Option<Stamp>,
    /// The greatest stamp or ballot told by anyone or used.
    seen: Stamp,
    rounds_count: u32,
    /// A read that could not write back takes a row on which a quorum agrees, as if the other answers had been lost.
    agreed_only: bool,
    /// At most one answer of each node to the present phase.
    answers: BTreeMap<N, Answer>,
    /// Nodes that will not answer the present phase.
    silent: BTreeSet<N>,
    weakness: Option<Weakness>,
}

/// One rule left out, for the test that shows the model checker would notice.
#[doc(hidden)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Weakness {
    /// Two answers agree when their id does, whatever their stamps.
    SettledById,
    /// An unsettled row is answered from and built upon without writing it back.
    NoWriteBackInRound,
    /// A refused plain write is sent again under a higher stamp, without a round.
    RestampWithoutRound,
    /// A write in doubt is taken for dead.
    DoubtIsDead,
    /// A write in doubt is taken for done.
    DoubtIsHappened,
    /// A quorum being out of reach in one of several sets is taken for dead.
    DeadInOneSet,
    /// A row written back under a ballot keeps its stamp.
    WriteBackKeepsStamp,
    /// The own version is installed under a tick above the ballot, which nobody promised.
    InstallAboveBallot,
    /// What became of a write is judged by the present sets alone, not by all it was sent under.
    ForgetsLeftSets,
    /// A write that others may have sent is taken for one that nobody sent.
    TakesOverAsNew,
    /// A write that was found among the older versions is written again.
    IgnoresKept,
}

impl<N: Ord + Copy + Debug> Coordinator<N> {
    /// A write (or delete) without a condition: one round trip unless refused. Ends `Written`, `Unknown`, `Unreachable` or `Contended`.
    pub fn write(id: WriteId, sets: QuorumSets<N>) -> Coordinator<N> {
        Coordinator::new(Goal::Write(id), sets)
    }

    /// A write (or delete) that takes effect only if the row there passes the shell's test. Ends also `PreconditionFailed`.
    pub fn write_if(id: WriteId, sets: QuorumSets<N>) -> Coordinator<N> {
        Coordinator::new(Goal::WriteIf(id), sets)
    }

    /// A write without a condition whose first attempt goes out under `first`, a fresh tick that was made known before, so that others can
    /// take the write over with [`Coordinator::take_over`].
    pub fn write_at(id: WriteId, first: Stamp, sets: QuorumSets<N>) -> Coordinator<N> {
        let mut machine = Coordinator::new(Goal::Write(id), sets);
        machine.known_first = Some(first);
        machine
    }

    /// A write that other coordinators began or may yet begin, none of them below `first`: it takes effect once among all of them.
    ///
    /// Sound as a retry by its first coordinator is: each attempt but the one at `first` follows a round which proves, under a promise at a
    /// quorum, that all attempts below its ballot took no effect and never will; whose attempts they were makes no difference.
    pub fn take_over(id: WriteId, first: Stamp, sets: QuorumSets<N>) -> Coordinator<N> {
        Coordinator::new(Goal::Write(id), sets).taken_over(first)
    }

    /// As [`Coordinator::take_over`], with a condition.
    pub fn take_over_if(id: WriteId, first: Stamp, sets: QuorumSets<N>) -> Coordinator<N> {
        Coordinator::new(Goal::WriteIf(id), sets).taken_over(first)
    }

    fn taken_over(mut self, first: Stamp) -> Coordinator<N> {
        (self.first_sent, self.seen) = (Some(first), first);
        self
    }

    /// A read, and the repair after an anti-entropy that a promise refused. Ends `Value`, `Unreachable` or `Contended`.
    ///
    /// `sets` are those of all live layouts, as for writes: what settles in one set alone may never reach the readers of the other.
    pub fn read(sets: QuorumSets<N>) -> Coordinator<N> {
        Coordinator::new(Goal::Read, sets)
    }

    /// A read that always goes through a round: afterwards a quorum of every set has promised a ballot above all that went on before, and the
    /// row is settled in every set. What a key needs, with the old and the new set, before coordinators may leave the old one.
    pub fn settle(sets: QuorumSets<N>) -> Coordinator<N> {
        Coordinator::new(Goal::Settle, sets)
    }

    /// As [`Coordinator::settle`], and the row is written back under the ballot even if a quorum agrees on it: what a replica needs that
    /// lacks the row and has promised a ballot above it, so that the row as it stands can't reach it (rule 11).
    pub fn restamp(sets: QuorumSets<N>) -> Coordinator<N> {
        Coordinator::new(Goal::Restamp, sets)
    }

    fn new(goal: Goal, sets: QuorumSets<N>) -> Coordinator<N> {
        Coordinator {
            tried: sets.clone(),
            sets,
            goal,
            stage: Stage::Idle,
            phase: Phase::default(),
            ballot: Stamp::ZERO,
            first_sent: None,
            known_first: None,
            seen: Stamp::ZERO,
            rounds_count: 0,
            agreed_only: false,
            answers: BTreeMap::new(),
            silent: BTreeSet::new(),
            weakness: None,
        }
    }

    /// Leaves a rule out.
    #[doc(hidden)]
    pub fn weakened(mut self, weakness: Option<Weakness>) -> Coordinator<N> {
        self.weakness = weakness;
        if self.is_weak(Weakness::TakesOverAsNew) {
            self.first_sent = None;
        }
        self
    }

    /// Whether the own version was sent to anyone: then some replica may hold it, even if it never counts.
    pub fn has_sent(&self) -> bool {
        self.first_sent.is_some()
    }

    /// The quorums it needs.
    pub fn sets(&self) -> &QuorumSets<N> {
        &self.sets
    }

    /// The first step.
    pub fn start(&mut self) -> Step<N> {
        assert_eq!(self.stage, Stage::Idle, "an operation starts once");
        match self.goal {
            Goal::Write(_) if self.first_sent.is_some() => self.next_round(),
            Goal::Write(_) => match self.known_first {
                Some(first) => {
                    self.use_tick(first);
                    self.send_own(Stage::FirstApply, first)
                }
                None => self.ask_tick(Stage::FirstTick),
            },
            Goal::WriteIf(_) | Goal::Settle | Goal::Restamp => self.next_round(),
            Goal::Read => self.send(Stage::Query, Message::Query, Content::Nothing),
        }
    }

    /// A fresh stamp, above what [`Step::Tick`] asked for and never used before by anyone. Ignored when none was asked for.
    pub fn on_tick(&mut self, stamp: Stamp) -> Step<N> {
        assert!(!stamp.step(), "a ballot has no step: {stamp:?}");
        match self.stage {
            Stage::FirstTick => {
                self.use_tick(stamp);
                self.send_own(Stage::FirstApply, stamp)
            }
            Stage::BallotTick => {
                self.use_tick(stamp);
                let own = self.own();
                self.send(Stage::Prepare, Message::Prepare { ballot: stamp, own }, Content::Nothing)
            }
            _ => Step::Wait,
        }
    }

    /// A node's answer to what was sent in `phase`. Answers to an earlier phase and repeated ones are ignored; an answer of another
    /// kind than was asked for counts as none.
    pub fn on_answer(&mut self, node: N, phase: Phase, answer: Answer) -> Step<N> {
        if !self.is_awaited(node, phase) {
            return Step::Wait;
        }
        let is_fitting = match self.stage {
            Stage::Query => matches!(answer, Answer::Row(_)),
            Stage::Prepare => matches!(answer, Answer::Prepare(_)),
            _ => matches!(answer, Answer::Apply(_)),
        };
        if !is_fitting {
            return self.on_no_answer(node, phase);
        }
        self.seen = self.seen.max(told(&answer));
        self.silent.remove(&node);
        self.answers.insert(node, answer);
        self.decide(Patience::More)
    }

    /// A node will not answer what was sent in `phase`, as far as the shell can tell: it failed, or was given up.
    ///
    /// An answer that comes nevertheless still counts. A shell that can try the node again before the deadline does so before it
    /// reports this, unless others wait for it: a write in doubt ends `Unknown` when the last node that could tell is reported silent.
    pub fn on_no_answer(&mut self, node: N, phase: Phase) -> Step<N> {
        if !self.is_awaited(node, phase) {
            return Step::Wait;
        }
        self.silent.insert(node);
        self.decide(Patience::More)
    }

    /// The hedge delay has passed since the last send: with a refusal in hand, slow nodes are waited for no longer.
    pub fn on_hedge_delay(&mut self) -> Step<N> {
        if self.is_listening() { self.decide(Patience::Enough) } else { Step::Wait }
    }

    /// The shell's verdict on the row of [`Step::Test`]. Ignored when no test was asked for.
    pub fn on_test(&mut self, is_met: bool) -> Step<N> {
        let Stage::Test { newest, answered_by, settled } = self.stage.clone() else { return Step::Wait };
        let then = if is_met { Then::Install } else { Then::Finish(Outcome::PreconditionFailed { newest }) };
        self.write_back_unless(settled, newest, answered_by, then)
    }

    /// The deadline: ends the operation with what can be said without further answers.
    pub fn on_deadline(&mut self) -> Step<N> {
        if self.stage == Stage::Over { Step::Wait } else { self.give_up(Outcome::Unreachable) }
    }

    /// The layout has changed (a replica answered so): goes on with the new sets. A write that was sent before keeps looking for traces of itself.
    pub fn on_new_sets(&mut self, sets: QuorumSets<N>) -> Step<N> {
        self.tried = if self.first_sent.is_some() { self.tried.clone().union(&sets) } else { sets.clone() };
        self.sets = sets;
        if matches!(self.stage, Stage::Over | Stage::Idle) {
            return Step::Wait;
        }
        match self.goal {
            Goal::Write(_) if self.first_sent.is_none() => self.ask_tick(Stage::FirstTick),
            Goal::Write(_) | Goal::WriteIf(_) | Goal::Settle | Goal::Restamp => self.next_round(),
            Goal::Read => self.send(Stage::Query, Message::Query, Content::Nothing),
        }
    }

    fn is_listening(&self) -> bool {
        !matches!(self.stage, Stage::Idle | Stage::FirstTick | Stage::BallotTick | Stage::Test { .. } | Stage::Over)
    }

    fn is_awaited(&self, node: N, phase: Phase) -> bool {
        self.is_listening() && phase == self.phase && !self.answers.contains_key(&node) && self.sets.contains(node)
    }

    fn is_weak(&self, weakness: Weakness) -> bool {
        self.weakness == Some(weakness)
    }

    fn decide(&mut self, patience: Patience) -> Step<N> {
        match self.stage.clone() {
            Stage::Query => self.decide_query(),
            Stage::Prepare => self.decide_prepare(patience),
            Stage::FirstApply | Stage::Repair(_) | Stage::WriteBack(_) | Stage::Install => self.decide_apply(patience),
            Stage::Idle | Stage::FirstTick | Stage::BallotTick | Stage::Test { .. } | Stage::Over => Step::Wait,
        }
    }

    /// A quorum that agrees would have been answered from, had the newer row of a minority not been heard of: nobody can have read that row
    /// and been answered, or one of the quorum would hold it.
    fn decide_agreed(&mut self) -> Step<N> {
        let rows = self.rows();
        let agreed = rows.values().copied().find(|row| self.sets.has_quorum(&holders(&rows, *row)));
        let is_anyone_left = self.sets.nodes().iter().any(|node| !rows.contains_key(node) && !self.silent.contains(node));
        match agreed {
            Some(entry) => self.finish(Outcome::Value { entry, answered_by: answerers(&rows, entry) }),
            None if is_anyone_left => Step::Wait,
            None => self.give_up(Outcome::Unreachable),
        }
    }

    fn decide_query(&mut self) -> Step<N> {
        if self.agreed_only {
            return self.decide_agreed();
        }
        let rows = self.rows();
        if !self.sets.has_quorum(&rows.keys().copied().collect()) {
            return if self.sets.is_blocked(&self.silent) { self.give_up(Outcome::Unreachable) } else { Step::Wait };
        }
        let newest = newest(&rows);
        let answered_by = answerers(&rows, newest);
        let value = Outcome::Value { entry: newest, answered_by: answered_by.clone() };
        match newest {
            Some(entry) if !self.is_settled(&rows) => {
                self.send(Stage::Repair(value), Message::Apply { entry, ballot: entry.stamp }, Content::AnsweredBy(answered_by))
            }
            _ => self.finish(value),
        }
    }

    fn decide_apply(&mut self, patience: Patience) -> Step<N> {
        let accepted = self.answered(|answer| matches!(answer, Answer::Apply(ApplyAnswer::Stored | ApplyAnswer::AlreadyHeld)));
        if !self.sets.has_quorum(&accepted) {
            return self.wait_or_go_round(patience);
        }
        match self.stage.clone() {
            Stage::FirstApply => self.finish(Outcome::Written { stamp: self.ballot }),
            Stage::Install => self.finish(Outcome::Written { stamp: self.ballot.stepped() }),
            Stage::Repair(value) => self.finish(value),
            Stage::WriteBack(Then::Install) => self.install(),
            Stage::WriteBack(Then::Finish(outcome)) => self.finish(outcome),
            _ => Step::Wait,
        }
    }

    fn decide_prepare(&mut self, patience: Patience) -> Step<N> {
        let (rows, traces) = self.promises();
        if !self.sets.has_quorum(&rows.keys().copied().collect()) {
            return self.wait_or_go_round(patience);
        }
        let newest = newest(&rows);
        if let Some(own) = self.own() {
            if newest.is_some_and(|entry| entry.id == own.id) {
                return self.install();
            }
            match self.judge(&traces) {
                Fate::Happened(stamp) => return self.finish(Outcome::Written { stamp }),
                // It was never current, but someone may have found it among the older versions and built upon it.
                Fate::Dead if self.is_kept() => return self.finish(Outcome::Unknown),
                Fate::Dead => {}
                Fate::Doubt => return self.wait_in_doubt(),
            }
        }
        let settled = self.goal != Goal::Restamp && self.is_settled(&rows);
        let answered_by = answerers(&rows, newest);
        match self.goal {
            Goal::Write(_) => self.install(),
            Goal::WriteIf(_) => {
                self.stage = Stage::Test { newest, answered_by: answered_by.clone(), settled };
                Step::Test { newest, answered_by }
            }
            Goal::Read | Goal::Settle | Goal::Restamp => {
                let value = Outcome::Value { entry: newest, answered_by: answered_by.clone() };
                self.write_back_unless(settled, newest, answered_by, Then::Finish(value))
            }
        }
    }

    /// Neither happened nor dead: only the nodes that did not promise yet can tell. A refusal is asked again under a higher ballot;
    /// when nobody is left to ask, it stays unknown.
    fn wait_in_doubt(&mut self) -> Step<N> {
        let lost: BTreeSet<N> = self.refused().union(&self.silent).copied().collect();
        let is_someone_left = self.sets.nodes().iter().any(|node| !self.answers.contains_key(node) && !lost.contains(node));
        match (is_someone_left, self.refused().is_empty()) {
            (true, _) => Step::Wait,
            (false, false) => self.next_round(),
            (false, true) => self.finish(Outcome::Unknown),
        }
    }

    /// Without a quorum of acceptances: waits while one can still come, else meets a rival in a round, else gives up.
    fn wait_or_go_round(&mut self, patience: Patience) -> Step<N> {
        let refused = self.refused();
        let lost: BTreeSet<N> = refused.union(&self.silent).copied().collect();
        let is_blocked = self.sets.is_blocked(&lost);
        if !refused.is_empty() && (is_blocked || patience == Patience::Enough) {
            if self.is_weak(Weakness::RestampWithoutRound) && self.stage == Stage::FirstApply {
                return self.ask_tick(Stage::FirstTick);
            }
            return self.next_round();
        }
        match self.stage {
            _ if !is_blocked => Step::Wait,
            Stage::Repair(_) => {
                self.agreed_only = true;
                self.send(Stage::Query, Message::Query, Content::Nothing)
            }
            _ => self.give_up(Outcome::Unreachable),
        }
    }

    fn next_round(&mut self) -> Step<N> {
        let rounds_max = if self.first_sent.is_some() { ROUNDS_IN_DOUBT_MAX } else { ROUNDS_MAX };
        if rounds_max <= self.rounds_count {
            return self.give_up(Outcome::Contended);
        }
        self.rounds_count += 1;
        self.ask_tick(Stage::BallotTick)
    }

    fn ask_tick(&mut self, stage: Stage<N>) -> Step<N> {
        self.stage = stage;
        // The first round follows a refused first attempt, or begins the operation: neither waits.
        Step::Tick { above: self.seen, refused_rounds: self.rounds_count.saturating_sub(1) }
    }

    fn use_tick(&mut self, stamp: Stamp) {
        assert!(self.seen < stamp, "the tick {stamp:?} is not above {:?}", self.seen);
        self.ballot = stamp;
        self.seen = stamp;
    }

    fn install(&mut self) -> Step<N> {
        if self.is_weak(Weakness::InstallAboveBallot) {
            self.ballot = Stamp::from_parts(self.seen.time() + 1, self.ballot.node(), false);
            self.seen = self.ballot;
            return self.send_own(Stage::Install, self.ballot);
        }
        let stamp = self.ballot.stepped();
        self.seen = self.seen.max(stamp);
        self.send_own(Stage::Install, stamp)
    }

    fn send_own(&mut self, stage: Stage<N>, stamp: Stamp) -> Step<N> {
        let (Goal::Write(id) | Goal::WriteIf(id)) = self.goal else { unreachable!("a read has no version of its own") };
        self.first_sent.get_or_insert(stamp);
        self.send(stage, Message::Apply { entry: Entry { stamp, id }, ballot: self.ballot }, Content::Own)
    }

    fn write_back_unless(&mut self, settled: bool, newest: Option<Entry>, answered_by: Vec<N>, then: Then<N>) -> Step<N> {
        match newest {
            Some(entry) if !settled && !self.is_weak(Weakness::NoWriteBackInRound) => {
                let stamp = if self.is_weak(Weakness::WriteBackKeepsStamp) { entry.stamp } else { self.ballot };
                let message = Message::Apply { entry: Entry { stamp, id: entry.id }, ballot: self.ballot };
                self.send(Stage::WriteBack(then), message, Content::AnsweredBy(answered_by))
            }
            _ => match then {
                Then::Install => self.install(),
                Then::Finish(outcome) => self.finish(outcome),
            },
        }
    }

    fn send(&mut self, stage: Stage<N>, message: Message, content: Content<N>) -> Step<N> {
        self.stage = stage;
        self.phase.0 += 1;
        self.answers.clear();
        self.silent.clear();
        Step::Send { phase: self.phase, message, to: self.sets.nodes(), content }
    }

    fn finish(&mut self, outcome: Outcome<N>) -> Step<N> {
        self.stage = Stage::Over;
        Step::Done(outcome)
    }

    /// Ends without a result: as `traceless` if the own version was sent to nobody.
    fn give_up(&mut self, traceless: Outcome<N>) -> Step<N> {
        let outcome = if self.first_sent.is_some() { Outcome::Unknown } else { traceless };
        self.finish(outcome)
    }

    fn own(&self) -> Option<OwnWrite> {
        match self.goal {
            Goal::Write(id) | Goal::WriteIf(id) => self.first_sent.map(|first| OwnWrite { id, first }),
            Goal::Read | Goal::Settle | Goal::Restamp => None,
        }
    }

    fn judge(&self, traces: &BTreeMap<N, Trace>) -> Fate {
        if self.is_weak(Weakness::DeadInOneSet) && self.sets.sets().iter().any(|set| is_dead_in(set, traces)) {
            return Fate::Dead;
        }
        let tried = if self.is_weak(Weakness::ForgetsLeftSets) { &self.sets } else { &self.tried };
        match fate(tried, traces) {
            Fate::Doubt if self.is_weak(Weakness::DoubtIsDead) => Fate::Dead,
            Fate::Doubt if self.is_weak(Weakness::DoubtIsHappened) => Fate::Happened(self.ballot),
            fate => fate,
        }
    }

    fn is_settled(&self, rows: &BTreeMap<N, Option<Entry>>) -> bool {
        if self.is_weak(Weakness::SettledById) {
            let id = newest(rows).map(|entry| entry.id);
            let agreeing = rows.iter().filter(|(_, row)| row.map(|entry| entry.id) == id).map(|(node, _)| *node).collect();
            return self.sets.has_quorum(&agreeing);
        }
        is_settled(&self.sets, rows)
    }

    fn answered(&self, predicate: impl Fn(&Answer) -> bool) -> BTreeSet<N> {
        self.answers.iter().filter(|(_, answer)| predicate(answer)).map(|(node, _)| *node).collect()
    }

    fn refused(&self) -> BTreeSet<N> {
        self.answered(is_refusal)
    }

    /// The rows told in answer to a query.
    fn rows(&self) -> BTreeMap<N, Option<Entry>> {
        self.answers.iter().filter_map(|(node, answer)| if let Answer::Row(row) = answer { Some((*node, *row)) } else { None }).collect()
    }

    /// Whether what the own write made may be at a quorum beside the register.
    fn is_kept(&self) -> bool {
        if self.is_weak(Weakness::IgnoresKept) {
            return false;
        }
        let mut traces = BTreeMap::new();
        for (node, answer) in &self.answers {
            if let Answer::Prepare(PrepareAnswer::Promised { shown, complete, kept, .. }) = answer {
                let shown = shown.iter().chain(kept).copied().collect();
                traces.insert(*node, Trace { shown, complete: *complete });
            }
        }
        self.judge(&traces) != Fate::Dead
    }

    /// The rows of the replicas that promised, and their traces of the own write.
    fn promises(&self) -> (BTreeMap<N, Option<Entry>>, BTreeMap<N, Trace>) {
        let mut rows = BTreeMap::new();
        let mut traces = BTreeMap::new();
        for (node, answer) in &self.answers {
            if let Answer::Prepare(PrepareAnswer::Promised { row, shown, complete, .. }) = answer {
                rows.insert(*node, *row);
                traces.insert(*node, Trace { shown: shown.clone(), complete: *complete });
            }
        }
        (rows, traces)
    }
}

/// Whether to go on waiting for a quorum that can still come, in spite of a refusal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Patience {
    More,
    Enough,
}

fn is_refusal(answer: &Answer) -> bool {
    matches!(answer, Answer::Prepare(PrepareAnswer::Refused { .. }) | Answer::Apply(ApplyAnswer::Refused { .. }))
}

fn is_dead_in<N: Ord + Copy>(set: &QuorumSet<N>, traces: &BTreeMap<N, Trace>) -> bool {
    let set = QuorumSets::single(set.clone());
    fate(&set, traces) == Fate::Dead
}

/// Who answered with this row; nobody, if there is none.
fn answerers<N: Ord + Copy>(rows: &BTreeMap<N, Option<Entry>>, row: Option<Entry>) -> Vec<N> {
    if row.is_none() { Vec::new() } else { holders(rows, row).into_iter().collect() }
}

/// The greatest stamp an answer tells of.
fn told(answer: &Answer) -> Stamp {
    match answer {
        Answer::Row(row) | Answer::Prepare(PrepareAnswer::Promised { row, .. }) => stamp_of(*row),
        Answer::Prepare(PrepareAnswer::Refused { row, bound }) | Answer::Apply(ApplyAnswer::Refused { row, bound }) => {
            stamp_of(*row).max(*bound)
        }
        Answer::Apply(ApplyAnswer::Stored | ApplyAnswer::AlreadyHeld) => Stamp::ZERO,
    }
}
