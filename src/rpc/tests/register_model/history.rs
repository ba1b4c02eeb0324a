//! The client's view of a schedule, and the Wing-Gong search for an order of its operations that a register explains.

/// A content, as the clients name it: 0 is absence, others the write's number.
pub type Value = u8;

/// What a client asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Put,
    Delete,
    PutIfAbsent,
    PutIfMatch(Value),
    DeleteIfMatch(Value),
    Read,
    /// A read that always goes through a round.
    Settle,
    /// The same, and the row is written anew whatever the quorums hold.
    Restamp,
}

impl Kind {
    pub fn is_read(self) -> bool {
        matches!(self, Kind::Read | Kind::Settle | Kind::Restamp)
    }
    pub fn is_delete(self) -> bool {
        matches!(self, Kind::Delete | Kind::DeleteIfMatch(_))
    }
    /// Whether the operation's condition holds when `value` is there.
    pub fn holds(self, value: Value) -> bool {
        match self {
            Kind::PutIfAbsent => value == 0,
            Kind::PutIfMatch(wanted) | Kind::DeleteIfMatch(wanted) => value == wanted,
            Kind::Put | Kind::Delete | Kind::Read | Kind::Settle | Kind::Restamp => true,
        }
    }
}

/// What the client was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// Nothing, or that the outcome is unknown: it may happen at any later time, or never.
    Nothing,
    Done,
    PreconditionFailed,
    Value(Value),
    /// That it failed and left no trace: it never happens.
    Failed,
}

/// One operation: when it began and ended (0: it did not), by a count that rises with every such event.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub kind: Kind,
    pub writes: Value,
    pub begin: u32,
    pub end: u32,
    pub told: Told,
}

/// Whether the calls can be put in an order that keeps to real time and that a register with compare-and-set explains.
pub fn is_linearizable(calls: &[Call]) -> bool {
    assert!(calls.len() <= 32, "a set of calls is a 32-bit mask");
    let must = calls.iter().enumerate().filter(|(_, call)| is_answered(call)).fold(0, |mask, (index, _)| mask | 1 << index);
    search(calls, must, 0, 0, &mut Vec::new())
}

fn is_answered(call: &Call) -> bool {
    call.end != 0 && !matches!(call.told, Told::Nothing | Told::Failed)
}

/// Depth-first over the calls that may come next; `seen` holds the dead ends.
fn search(calls: &[Call], must: u32, done: u32, value: Value, seen: &mut Vec<(u32, Value)>) -> bool {
    if done & must == must {
        return true;
    }
    if seen.contains(&(done, value)) {
        return false;
    }
    seen.push((done, value));
    let is_open = |index: usize| must & !done & 1 << index != 0;
    let horizon = calls.iter().enumerate().filter(|(index, _)| is_open(*index)).map(|(_, call)| call.end).min().unwrap_or(u32::MAX);
    calls.iter().enumerate().any(|(index, call)| {
        let may_be_next = done & 1 << index == 0 && call.begin != 0 && call.begin <= horizon;
        may_be_next && next_value(call, value).is_some_and(|next| search(calls, must, done | 1 << index, next, seen))
    })
}

/// What is there after `call` took effect on `value`; `None`: it can't have, given what its client was told.
fn next_value(call: &Call, value: Value) -> Option<Value> {
    let holds = call.kind.holds(value);
    match (call.kind.is_read(), call.told) {
        (true, Told::Value(read)) => (read == value).then_some(value),
        (true, _) | (false, Told::Failed) => None,
        (false, Told::PreconditionFailed) => (!holds).then_some(value),
        (false, _) => holds.then_some(if call.kind.is_delete() { 0 } else { call.writes }),
    }
}
