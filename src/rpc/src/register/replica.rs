//! What one replica knows of a key besides its row, and what it accepts and refuses.
//!
//! Invariants:
//! - a row's stamp only rises;
//! - after a promise, nothing of a lower ballot is accepted, whoever sends it;
//! - an entry once held is in the row, in the trail, or at or below the floor;
//! - a fenced write is never accepted, whoever sends it and under whatever ballot.
//!
//! Not here: the row's content and the transaction (the shell stores row and side together, before it answers).

use garage_util::encoding::Stored;
use garage_util::hlc::Stamp;
use serde::{Deserialize, Serialize};

use super::{Answer, Entry, Message, OwnWrite, WriteId, stamp_of};

/// How many superseded entries a replica remembers. One suffices for soundness; four halve the writes that end in doubt.
pub const TRAIL_MAX: usize = 4;

/// What a replica keeps beside the row of a register. The default is what a replica knows that was never asked to promise anything
/// and never replaced a row: it need not be stored.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RegisterSide {
    /// The highest ballot promised.
    #[serde(rename = "p", default, skip_serializing_if = "is_zero")]
    promise: Stamp,
    /// The last [`TRAIL_MAX`] entries that were superseded here, oldest first.
    #[serde(rename = "t", default, skip_serializing_if = "Vec::is_empty")]
    trail: Vec<Entry>,
    /// The stamp of the entry last dropped from the trail: of what was held at or below it, nothing is known any more.
    #[serde(rename = "f", default, skip_serializing_if = "is_zero")]
    floor: Stamp,
    /// Writes that are refused for ever, each with the time of its fence: their blocks are being deleted.
    #[serde(rename = "x", default, skip_serializing_if = "Vec::is_empty")]
    fences: Vec<Entry>,
}

fn is_zero(stamp: &Stamp) -> bool {
    *stamp == Stamp::ZERO
}

impl Stored for RegisterSide {
    const WHAT: &'static str = "register promise and trail";
}

/// The answer to a prepare.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum PrepareAnswer {
    /// Nothing below the ballot will be accepted here any more.
    Promised {
        /// What is held.
        row: Option<Entry>,
        /// The stamps at which this replica ever took the asking write, as far as it remembers.
        shown: Vec<Stamp>,
        /// Nothing of the asking write has been forgotten: `shown` is all there ever was.
        complete: bool,
        /// The stamps under which rows beside the register have what the asking write made; see `slots`.
        #[serde(default)]
        kept: Vec<Stamp>,
    },
    /// A promise or a row stands against it.
    Refused {
        /// What is held.
        row: Option<Entry>,
        /// The next ballot must be above this.
        bound: Stamp,
    },
}

/// The answer to an apply.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ApplyAnswer {
    /// The row is to be replaced by the new entry, with its content.
    Stored,
    /// This very entry is what is held; nothing changes.
    AlreadyHeld,
    /// A promise or a row stands against it; nothing changes.
    Refused {
        /// What is held.
        row: Option<Entry>,
        /// The next ballot must be above this.
        bound: Stamp,
    },
}

impl RegisterSide {
    /// Whether there is nothing to store.
    pub fn is_empty(&self) -> bool {
        *self == RegisterSide::default()
    }

    /// The highest ballot promised; [`Stamp::ZERO`] if none.
    pub fn promise(&self) -> Stamp {
        self.promise
    }

    /// The greatest stamp of what was superseded here, as far as it is remembered or known to be forgotten.
    pub fn superseded(&self) -> Stamp {
        self.trail.last().map_or(Stamp::ZERO, |entry| entry.stamp).max(self.floor)
    }

    /// Takes over what another replica promised and superseded, so that this one can stand in for it: nothing below `promise` is accepted
    /// any more, and of what was held at or below `superseded` this replica no longer claims to know all.
    ///
    /// Always sound: a promise only refuses more, and a memory that admits its gaps only leaves more in doubt.
    pub fn take_over(&mut self, promise: Stamp, superseded: Stamp) {
        self.promise = self.promise.max(promise);
        self.floor = self.floor.max(superseded);
    }

    /// Forgets every entry that was superseded here, and admits it: what was held at or below the last of them this replica no longer claims
    /// to know.
    ///
    /// For a replica that has just become able to stand in for others. Until then a write may have been accepted by replicas that did not
    /// count, while those that counted had promised to refuse it; superseded here, it must not pass for a write that took effect.
    pub fn forget_superseded(&mut self) {
        self.floor = self.superseded();
        self.trail.clear();
    }

    /// Promises to accept nothing below `ballot`, or refuses. `own` is the write that asks, if it has sent its version to anyone yet.
    ///
    /// The side has to be durable before `Promised` is answered.
    pub fn prepare(&mut self, row: Option<Entry>, ballot: Stamp, own: Option<OwnWrite>) -> PrepareAnswer {
        if ballot < self.promise || ballot <= stamp_of(row) {
            return PrepareAnswer::Refused { row, bound: self.bound(row) };
        }
        self.promise = ballot;
        let (shown, complete) = match own {
            // What was never sent is nowhere.
            None => (Vec::new(), true),
            Some(own) => (self.shown(row, own), self.floor < own.first),
        };
        PrepareAnswer::Promised { row, shown, complete, kept: Vec::new() }
    }

    /// Accepts `new` under `ballot`, or refuses. On `Stored` the caller replaces the row; row and side have to be durable before the answer.
    ///
    /// The same for plain writes (the ballot is the stamp), for what a round installs or writes back (the ballot is the round's), and
    /// for read repair and anti-entropy (the ballot is the stamp): there is no merge that ignores a promise.
    pub fn apply(&mut self, row: Option<Entry>, new: Entry, ballot: Stamp) -> ApplyAnswer {
        if ballot < self.promise || self.is_fenced(new.id) {
            return ApplyAnswer::Refused { row, bound: self.bound(row) };
        }
        if row == Some(new) {
            return ApplyAnswer::AlreadyHeld;
        }
        if new.stamp <= stamp_of(row) {
            return ApplyAnswer::Refused { row, bound: self.bound(row) };
        }
        if let Some(superseded) = row {
            self.remember(superseded);
        }
        ApplyAnswer::Stored
    }

    /// Serves a coordinator's message; the second value is the entry that replaces the row, if any.
    pub fn serve(&mut self, row: Option<Entry>, message: &Message) -> (Answer, Option<Entry>) {
        match *message {
            Message::Query => (Answer::Row(row), None),
            Message::Prepare { ballot, own } => (Answer::Prepare(self.prepare(row, ballot, own)), None),
            Message::Apply { entry, ballot } => {
                let answer = self.apply(row, entry, ballot);
                let replaced = (answer == ApplyAnswer::Stored).then_some(entry);
                (Answer::Apply(answer), replaced)
            }
        }
    }

    /// Refuses a write from now on, under whatever ballot; false: the write is held here or was lately, and nothing changes.
    ///
    /// A write fenced by *all* its replicas while none of them holds it can never come to be anywhere. One fenced by some of them is only
    /// hindered: whoever can't fence it everywhere lifts its fences again. Durable before it is answered.
    pub fn fence(&mut self, row: Option<Entry>, id: WriteId, now: Stamp) -> bool {
        if row.iter().chain(&self.trail).any(|held| held.id == id) {
            return false;
        }
        if !self.is_fenced(id) {
            self.fences.push(Entry { stamp: now, id });
        }
        true
    }

    /// The writes that are refused for ever, each with the time of its fence.
    pub fn fences(&self) -> &[Entry] {
        &self.fences
    }

    /// Takes a fence away.
    pub fn lift_fence(&mut self, id: WriteId) {
        self.fences.retain(|fence| fence.id != id);
    }

    /// Whether a write is refused here.
    pub fn is_fenced(&self, id: WriteId) -> bool {
        self.fences.iter().any(|fence| fence.id == id)
    }

    /// Drops fences older than `horizon`, before which no coordinator of a fenced write can have begun that still runs.
    pub fn forget_fences_below(&mut self, horizon: Stamp) {
        self.fences.retain(|fence| fence.stamp >= horizon);
    }

    /// Forgets what lies below `horizon`, a stamp such that no message of an operation with a ballot or stamp below it can still
    /// arrive, and no operation that ticked below it still runs (deadline plus allowed skew). Anti-entropy of old rows may go on.
    pub fn forget_below(&mut self, horizon: Stamp) {
        if self.promise < horizon {
            self.promise = Stamp::ZERO;
        }
        // No floor is left for these: it would only be asked about by an operation whose first stamp is below the horizon.
        self.trail.retain(|entry| entry.stamp >= horizon);
        if self.floor < horizon {
            self.floor = Stamp::ZERO;
        }
    }

    fn bound(&self, row: Option<Entry>) -> Stamp {
        self.promise.max(stamp_of(row))
    }

    fn shown(&self, row: Option<Entry>, own: OwnWrite) -> Vec<Stamp> {
        self.trail.iter().chain(row.iter()).filter(|entry| entry.id == own.id).map(|entry| entry.stamp).collect()
    }

    fn remember(&mut self, superseded: Entry) {
        debug_assert!(self.trail.last().is_none_or(|last| last.stamp < superseded.stamp), "{superseded:?} after {:?}", self.trail);
        self.trail.push(superseded);
        while self.trail.len() > TRAIL_MAX {
            self.floor = self.trail.remove(0).stamp;
        }
    }
}
