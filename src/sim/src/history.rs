//! What clients asked for and were told, and the Wing-Gong search for an order of it that a register with compare-and-set explains.
//!
//! Times are counts that rise with every beginning and end, so "before" is exact even within one moment of virtual time.

use std::{collections::BTreeSet, sync::Arc};

use parking_lot::Mutex;

use crate::{content::Value, trace::Trace};

/// What a call does to its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Writes a content.
    Put(Value),
    /// Makes it absent.
    Delete,
    /// Looks.
    Read,
}

/// What must hold for a write to take effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condition {
    /// Nothing.
    Always,
    /// There is no object.
    Absent,
    /// This content is there.
    Is(Value),
}

/// What a client was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// Nothing, or that the outcome is unknown: it may happen at any later time, or never.
    Unknown,
    /// It took effect.
    Done,
    /// Its condition did not hold.
    PreconditionFailed,
    /// What a read found.
    Value(Value),
    /// It failed and left no trace: it never happens.
    Failed,
}

/// One call on one key.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The key's number.
    pub key: usize,
    /// The node asked.
    pub node: usize,
    /// What it does.
    pub action: Action,
    /// When it does it.
    pub condition: Condition,
    /// When it began.
    pub begin: u64,
    /// When it was answered; `u64::MAX`: never.
    pub end: u64,
    /// The answer.
    pub told: Told,
}

impl Call {
    fn holds(&self, value: Value) -> bool {
        match self.condition {
            Condition::Always => true,
            Condition::Absent => value == 0,
            Condition::Is(wanted) => value == wanted,
        }
    }
    /// Whether it changes nothing, whenever it happened.
    fn is_idle(&self) -> bool {
        self.action == Action::Read || self.told == Told::PreconditionFailed
    }
    /// The contents that it saw, or that its condition asks for.
    fn names(&self) -> impl Iterator<Item = Value> {
        let read = if let Told::Value(read) = self.told { Some(read) } else { None };
        let asked = if let Condition::Is(wanted) = self.condition { Some(wanted) } else { None };
        read.into_iter().chain(asked)
    }
    /// Whether it must be somewhere in the order.
    fn must_happen(&self) -> bool {
        !matches!(self.told, Told::Unknown | Told::Failed)
    }
    /// Whether it may have written.
    pub fn may_have_written(&self) -> bool {
        self.action != Action::Read && matches!(self.told, Told::Unknown | Told::Done)
    }
    /// What is there after it took effect on `value`; `None`: it can't have, given what its client was told.
    fn next_value(&self, value: Value) -> Option<Value> {
        match (self.action, self.told) {
            (Action::Read, Told::Value(read)) => (read == value).then_some(value),
            (Action::Read, _) | (_, Told::Failed) => None,
            (_, Told::PreconditionFailed) => (!self.holds(value)).then_some(value),
            (Action::Put(written), _) => self.holds(value).then_some(written),
            (Action::Delete, _) => self.holds(value).then_some(0),
        }
    }
}

/// An entry of a listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Listed {
    /// A key with the write that its ETag names.
    Key(String, Value),
    /// A common prefix.
    Prefix(String),
}

/// A listing over all its pages.
#[derive(Clone, Debug)]
pub struct Listing {
    /// When its first page was asked for.
    pub begin: u64,
    /// When its last page came.
    pub end: u64,
    /// As asked.
    pub prefix: String,
    /// As asked.
    pub delimiter: Option<String>,
    /// In the order in which they came.
    pub entries: Vec<Listed>,
}

/// A growing history. Cheap to clone.
#[derive(Clone)]
pub struct History {
    trace: Trace,
    state: Arc<Mutex<Recorded>>,
}

/// What was recorded.
#[derive(Clone, Default)]
pub struct Recorded {
    now: u64,
    /// In the order in which they began.
    pub calls: Vec<Call>,
    /// In the order in which they ended.
    pub listings: Vec<Listing>,
    /// Answers that can't be right whatever else happened.
    pub anomalies: Vec<String>,
}

impl History {
    /// An empty history, told to `trace` as it grows.
    pub fn new(trace: Trace) -> History {
        History { trace, state: Arc::default() }
    }
    /// The moment that has just begun.
    pub fn now(&self) -> u64 {
        let mut state = self.state.lock();
        state.now += 1;
        state.now
    }
    /// A call begins; its number.
    pub fn begin(&self, key: usize, node: usize, action: Action, condition: Condition) -> usize {
        let begin = self.now();
        let mut state = self.state.lock();
        state.calls.push(Call { key, node, action, condition, begin, end: u64::MAX, told: Told::Unknown });
        let number = state.calls.len() - 1;
        self.trace.line(|| format!("call {number} key {key} through {node}: {action:?} if {condition:?}"));
        number
    }
    /// A call is answered. One whose outcome is unknown stays open for ever.
    pub fn end(&self, number: usize, told: Told) {
        let now = self.now();
        let call = &mut self.state.lock().calls[number];
        call.told = told;
        if told != Told::Unknown {
            call.end = now;
        }
        self.trace.line(|| format!("call {number} told {told:?}"));
    }
    /// A listing is complete.
    pub fn listed(&self, listing: Listing) {
        self.trace.line(|| format!("listed {listing:?}"));
        self.state.lock().listings.push(listing);
    }
    /// Tells the trace something that is no call.
    pub fn note(&self, text: impl FnOnce() -> String) {
        self.trace.line(text);
    }
    /// An answer was wrong whatever else happened.
    pub fn anomaly(&self, text: String) {
        self.trace.line(|| format!("anomaly: {text}"));
        self.state.lock().anomalies.push(text);
    }
    /// What was recorded so far.
    pub fn recorded(&self) -> Recorded {
        self.state.lock().clone()
    }
}

/// Calls of one key at the most: a set of them is a mask.
const CALLS_MAX: usize = 512;
type Mask = [u64; CALLS_MAX / 64];

/// Whether the calls, all on one key, can be put in an order that keeps to real time and that a register with compare-and-set explains.
pub fn is_linearizable(calls: &[Call]) -> bool {
    search(calls, true)
}

/// With `is_sparing`, orders that are as good as one that was tried are left out.
fn search(calls: &[Call], is_sparing: bool) -> bool {
    assert!(calls.len() <= CALLS_MAX, "{} calls on one key, the search takes {CALLS_MAX}", calls.len());
    // Those that must happen come first, so that what may have happened is tried last.
    let mut calls: Vec<&Call> = calls.iter().filter(|call| !(call.action == Action::Read && call.told == Told::Unknown)).collect();
    calls.retain(|call| call.told != Told::Failed);
    calls.sort_by_key(|call| (!call.must_happen(), call.end, call.begin));
    let must_count = calls.iter().filter(|call| call.must_happen()).count();
    let named = calls.iter().flat_map(|call| call.names()).collect();
    let mut search = Search { calls, must_count, named, is_sparing, seen: BTreeSet::new() };
    search.explain([0; CALLS_MAX / 64], 0)
}

struct Search<'a> {
    /// Those that must happen first, by their ends.
    calls: Vec<&'a Call>,
    must_count: usize,
    /// Contents that some call read or asked for: any other matters only by not being what was there before.
    named: BTreeSet<Value>,
    is_sparing: bool,
    seen: BTreeSet<(Mask, Value)>,
}

impl Search<'_> {
    fn is_done(done: &Mask, index: usize) -> bool {
        done[index / 64] & 1 << (index % 64) != 0
    }

    /// Depth-first over the calls that may come next; `seen` holds the dead ends.
    fn explain(&mut self, done: Mask, value: Value) -> bool {
        let Some(first_open) = (0..self.must_count).find(|index| !Self::is_done(&done, *index)) else { return true };
        if !self.seen.insert((done, value)) {
            return false;
        }
        // Ends are sorted: no call may come next that began after the first open one ended.
        let horizon = self.calls[first_open].end;
        let may_be_next = |index: &usize| !Self::is_done(&done, *index) && self.calls[*index].begin <= horizon;
        let mut next: Vec<usize> = (first_open..self.calls.len()).filter(may_be_next).collect();
        if self.is_sparing {
            self.spare(&mut next, value);
        }
        for index in next {
            let Some(next) = self.calls[index].next_value(value) else { continue };
            let mut with = done;
            with[index / 64] |= 1 << (index % 64);
            if self.explain(with, next) {
                return true;
            }
        }
        false
    }

    /// Leaves out what need not be tried.
    fn spare(&self, next: &mut Vec<usize>, value: Value) {
        // One that never changes anything may come now if it can: whatever else comes next may as well come after it.
        let is_idle = |index: &&usize| self.calls[**index].is_idle() && self.calls[**index].next_value(value).is_some();
        if let Some(idle) = next.iter().find(is_idle).copied() {
            *next = vec![idle];
            return;
        }
        let refused: Vec<&Call> =
            next.iter().map(|index| self.calls[*index]).filter(|call| call.told == Told::PreconditionFailed).collect();
        let mut tried = Vec::new();
        next.retain(|index| {
            let call = self.calls[*index];
            let Some(written) = call.next_value(value).filter(|_| *index >= self.must_count) else { return true };
            if !self.named.contains(&written) && written != 0 {
                // A content that nobody saw can only have made a condition fail, and any of those that may come now does that.
                let is_of_use = refused.iter().any(|call| call.next_value(written).is_some());
                let is_new = !tried.contains(&(call.condition, None));
                tried.push((call.condition, None));
                return is_of_use && is_new;
            }
            // Writes of the same under the same condition whose end nobody knows: one is as good as the other.
            let is_new = !tried.contains(&(call.condition, Some(written)));
            tried.push((call.condition, Some(written)));
            is_new
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Action, Call, Condition, Told, is_linearizable, search};

    fn call(action: Action, condition: Condition, begin: u64, end: u64, told: Told) -> Call {
        Call { key: 0, node: 0, action, condition, begin, end, told }
    }
    fn put(value: u32, begin: u64, end: u64) -> Call {
        call(Action::Put(value), Condition::Always, begin, end, Told::Done)
    }
    fn read(value: u32, begin: u64, end: u64) -> Call {
        call(Action::Read, Condition::Always, begin, end, Told::Value(value))
    }

    #[test]
    fn a_read_sees_the_last_write_before_it_or_one_beside_it() {
        assert!(is_linearizable(&[put(1, 1, 2), read(1, 3, 4)]));
        assert!(!is_linearizable(&[put(1, 1, 2), read(0, 3, 4)]));
        assert!(is_linearizable(&[put(1, 1, 2), put(2, 3, 6), read(1, 4, 5)]));
        assert!(!is_linearizable(&[put(1, 1, 2), put(2, 3, 6), read(2, 4, 5), read(1, 7, 8)]));
    }

    #[test]
    fn an_unknown_write_may_happen_late_or_never_but_not_twice() {
        let unknown = call(Action::Put(9), Condition::Always, 1, u64::MAX, Told::Unknown);
        assert!(is_linearizable(&[unknown, read(0, 2, 3), read(9, 4, 5)]));
        assert!(is_linearizable(&[unknown, read(0, 2, 3)]));
        assert!(!is_linearizable(&[unknown, read(9, 2, 3), put(1, 4, 5), read(1, 6, 7), read(9, 8, 9)]));
        let failed = call(Action::Put(9), Condition::Always, 1, 2, Told::Failed);
        assert!(!is_linearizable(&[failed, read(9, 3, 4)]));
    }

    #[test]
    fn of_two_creations_one_succeeds() {
        let create = |value, told| call(Action::Put(value), Condition::Absent, 1, 9, told);
        assert!(is_linearizable(&[create(1, Told::Done), create(2, Told::PreconditionFailed)]));
        assert!(!is_linearizable(&[create(1, Told::Done), create(2, Told::Done)]));
        assert!(!is_linearizable(&[create(1, Told::PreconditionFailed)]));
    }
    fn calls() -> impl Strategy<Value = Vec<Call>> {
        let condition = prop_oneof![Just(Condition::Always), Just(Condition::Absent), (1u32..5).prop_map(Condition::Is)];
        let told = prop_oneof![Just(Told::Unknown), Just(Told::Done), Just(Told::PreconditionFailed), (0u32..5).prop_map(Told::Value)];
        let one = (0u8..3, condition, told, 1u64..12, 1u64..8);
        prop::collection::vec(one, 1..8).prop_map(|drawn| {
            let calls = drawn.into_iter().enumerate().map(|(index, (kind, condition, told, begin, length))| {
                let end = if told == Told::Unknown { u64::MAX } else { begin + length };
                match (kind, told) {
                    (_, Told::Value(_)) => call(Action::Read, Condition::Always, begin, end, told),
                    (0, _) => call(Action::Delete, condition, begin, end, told),
                    // As in real histories, every content is written once.
                    _ => call(Action::Put(index as u32 + 1), condition, begin, end, told),
                }
            });
            calls.collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]
        #[test]
        fn what_the_search_leaves_out_makes_no_difference(calls in calls()) {
            prop_assert_eq!(search(&calls, true), search(&calls, false));
        }
    }
}
