//! The client's view of a schedule, and the search for an order of its operations that a list of versions explains.

/// What a client asks for; versions are named by the number of the write that made them, 0 is the version `null`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Put,
    PutNull,
    PutIfAbsent,
    PutIfMatch(u8),
    Delete(u8),
    /// Keeps a version from being deleted.
    Lock(u8),
    Read,
    Get(u8),
    List,
}

impl Kind {
    pub fn is_put(self) -> bool {
        matches!(self, Kind::Put | Kind::PutNull | Kind::PutIfAbsent | Kind::PutIfMatch(_))
    }
}

/// A version: the write that made it, whether it is the version `null`, whether it is locked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Item {
    pub value: u8,
    pub is_null: bool,
    pub locked: bool,
}

/// All versions of the key: the current one first, the others newest first.
pub type State = Vec<Item>;

/// What the client was told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Told {
    /// Nothing, or that the outcome is unknown: it may happen at any later time, or never.
    Nothing,
    Done,
    /// The condition does not hold; the version is locked.
    Refused,
    /// The version that was to be locked is not there.
    Missing,
    /// A read.
    Value(Option<Item>),
    Versions(State),
    /// That it failed and left no trace: it never happens.
    Failed,
}

/// One operation: when it began and ended (0: it did not), by a count that rises with every such event.
#[derive(Clone, Debug)]
pub struct Call {
    pub kind: Kind,
    pub value: u8,
    pub begin: u32,
    pub end: u32,
    pub told: Told,
}

/// Whether the calls can be put in an order that keeps to real time and that a list of versions explains.
pub fn is_linearizable(calls: &[Call]) -> bool {
    assert!(calls.len() <= 32, "a set of calls is a 32-bit mask");
    let answered = |call: &Call| call.end != 0 && !matches!(call.told, Told::Nothing | Told::Failed);
    let must = calls.iter().enumerate().filter(|(_, call)| answered(call)).fold(0, |mask, (index, _)| mask | 1 << index);
    search(calls, must, 0, &Vec::new(), &mut Vec::new())
}

fn search(calls: &[Call], must: u32, done: u32, state: &State, seen: &mut Vec<(u32, State)>) -> bool {
    if done & must == must {
        return true;
    }
    if seen.contains(&(done, state.clone())) {
        return false;
    }
    seen.push((done, state.clone()));
    let is_open = |index: usize| must & !done & 1 << index != 0;
    let horizon = calls.iter().enumerate().filter(|(index, _)| is_open(*index)).map(|(_, call)| call.end).min().unwrap_or(u32::MAX);
    calls.iter().enumerate().any(|(index, call)| {
        let may_be_next = done & 1 << index == 0 && call.begin != 0 && call.begin <= horizon;
        may_be_next && next_states(call, state).iter().any(|next| search(calls, must, done | 1 << index, next, seen))
    })
}

fn find(state: &State, version: u8) -> Option<usize> {
    state.iter().position(|item| if version == 0 { item.is_null } else { !item.is_null && item.value == version })
}

/// What may be there after `call` took effect, given what its client was told; empty: it can't have.
fn next_states(call: &Call, state: &State) -> Vec<State> {
    match call.told {
        Told::Failed => return Vec::new(),
        Told::Value(ref found) => {
            let there = match call.kind {
                Kind::Get(version) => find(state, version).map(|at| state[at]),
                _ => state.first().copied(),
            };
            return if *found == there { vec![state.clone()] } else { Vec::new() };
        }
        Told::Versions(ref listed) => return if listed == state { vec![state.clone()] } else { Vec::new() },
        _ => {}
    }
    match call.kind {
        Kind::Put | Kind::PutNull | Kind::PutIfAbsent | Kind::PutIfMatch(_) => after_put(call, state),
        Kind::Delete(version) => {
            let at = find(state, version);
            let locked = at.is_some_and(|at| state[at].locked);
            match (&call.told, locked) {
                (Told::Refused, locked) => {
                    if locked {
                        vec![state.clone()]
                    } else {
                        Vec::new()
                    }
                }
                (_, true) => Vec::new(),
                (_, false) => {
                    let mut next = state.clone();
                    at.map(|at| next.remove(at));
                    vec![next]
                }
            }
        }
        Kind::Lock(version) => match (find(state, version), &call.told) {
            (None, Told::Missing) => vec![state.clone()],
            (Some(at), Told::Done | Told::Nothing) => {
                let mut next = state.clone();
                next[at].locked = true;
                vec![next]
            }
            _ => Vec::new(),
        },
        Kind::Read | Kind::Get(_) | Kind::List => Vec::new(),
    }
}

fn after_put(call: &Call, state: &State) -> Vec<State> {
    let current = state.first().map_or(0, |item| item.value);
    let holds = match call.kind {
        Kind::PutIfAbsent => current == 0,
        Kind::PutIfMatch(wanted) => current == wanted,
        _ => true,
    };
    if call.told == Told::Refused {
        return if holds { Vec::new() } else { vec![state.clone()] };
    }
    let is_null = call.kind == Kind::PutNull;
    let item = Item { value: call.value, is_null, locked: false };
    let mut without = state.clone();
    if is_null {
        without.retain(|item| !item.is_null);
    }
    let at = |place: usize| {
        let mut next = without.clone();
        next.insert(place, item);
        next
    };
    let mut next = if holds { vec![at(0)] } else { Vec::new() };
    // A write that was never answered may be found among the older versions without ever having been current.
    let is_replaced = is_null && state.first().is_some_and(|item| item.is_null);
    if call.told == Told::Nothing && !is_replaced {
        next.extend((1..=without.len()).map(at));
    }
    next
}
