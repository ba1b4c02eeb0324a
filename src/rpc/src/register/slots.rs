//! Several versions under one register: the register holds the newest, and each replica keeps what it supersedes.
//!
//! A key is one register, its *head*: which version is current. A version has a *slot*: its own id, or `null`, of which there is one. The
//! rules of the register are untouched; what is here follows from the entries it accepts, at each replica, in the transaction that accepts:
//! - an entry of another slot is kept as a row of its slot, with the stamp it was held under;
//! - an entry may carry *effects* on other slots: an older version deleted, its lock changed. They take the entry's stamp.
//!
//! Rows of a slot merge by the greatest stamp. Whatever counted was held by a quorum, as head or as a row, so every quorum sees it; whatever
//! changes an older version goes through the head's register, so two changes of one key never both decide upon the same past.
//!
//! Not here: where rows are stored, when a difference is settled (the tables' owner), what a version contains.
//! Why it is right: `doc/adr/0009-versions-of-a-key.md`; `tests/version_model` hammers exactly this code.

use std::collections::BTreeMap;

use garage_util::hlc::Stamp;
use serde::{Deserialize, Serialize};

use super::{Entry, OwnWrite, WriteId};

/// Which version of a key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub enum Slot {
    /// The one version that buckets without versioning have; a write replaces it.
    #[default]
    #[serde(rename = "n")]
    Null,
    /// A version of its own, by the write that made it.
    #[serde(rename = "i")]
    Id(WriteId),
}

/// What a version keeps through every rewrite of its row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Origin {
    /// Orders the versions of a key: the stamp under which it was the newest.
    #[serde(rename = "o")]
    pub order: Stamp,
    /// The write that made it; its content is kept under this id.
    #[serde(rename = "i")]
    pub id: WriteId,
}

/// One version as a replica holds it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SlotRow<C> {
    /// Of the version; of the deleted one, if it was deleted.
    #[serde(rename = "o")]
    pub origin: Origin,
    /// Of two rows the greater counts.
    #[serde(rename = "s")]
    pub stamp: Stamp,
    /// `None`: deleted for good.
    #[serde(rename = "c")]
    pub content: Option<C>,
}

impl<C> SlotRow<C> {
    /// Whether the version is there.
    pub fn is_live(&self) -> bool {
        self.content.is_some()
    }
    /// What tells two rows of one slot apart: equal marks mean equal rows.
    pub fn mark(&self) -> (Stamp, WriteId, bool) {
        (self.stamp, self.origin.id, self.is_live())
    }
}

/// The content of a head's entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head<C> {
    /// The slot it fills.
    pub slot: Slot,
    /// `None`: the entry's own stamp and id, as of any new version.
    pub origin: Option<Origin>,
    /// `None`: no version is current.
    pub content: Option<C>,
    /// Changes of other slots; their rows take the entry's stamp.
    pub effects: Vec<Effect<C>>,
}

/// A change of a slot that is not the head's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Effect<C> {
    /// Which.
    #[serde(rename = "s")]
    pub slot: Slot,
    /// As it was.
    #[serde(rename = "o")]
    pub origin: Origin,
    /// `None`: deleted for good.
    #[serde(rename = "c")]
    pub content: Option<C>,
}

impl<C: Clone> Head<C> {
    /// A new version.
    pub fn new(slot: Slot, content: Option<C>) -> Head<C> {
        Head { slot, origin: None, content, effects: Vec::new() }
    }
    /// Its origin, when held as `entry`.
    pub fn origin_as(&self, entry: Entry) -> Origin {
        self.origin.unwrap_or(Origin { order: entry.stamp, id: entry.id })
    }
    /// The row of its slot that it stands for.
    pub fn row(&self, entry: Entry) -> SlotRow<C> {
        SlotRow { origin: self.origin_as(entry), stamp: entry.stamp, content: self.content.clone() }
    }
}

/// The greater of two rows of one slot. Equal stamps are of one entry: then the one that is there counts.
pub fn merge<C>(a: SlotRow<C>, b: SlotRow<C>) -> SlotRow<C> {
    let rank = |row: &SlotRow<C>| (row.stamp, row.is_live(), row.origin);
    if rank(&a) < rank(&b) { b } else { a }
}

/// The rows that a replica merges into the slots when it accepts `new` over `old`, in its transaction.
pub fn accepted<C: Clone>(old: Option<(Entry, &Head<C>)>, new: (Entry, &Head<C>)) -> Vec<(Slot, SlotRow<C>)> {
    let (entry, head) = new;
    let superseded = old.filter(|(_, old)| old.slot != head.slot);
    let superseded = superseded.map(|(old_entry, old)| (old.slot, old.row(old_entry)));
    let effects = head
        .effects
        .iter()
        .map(|effect| (effect.slot, SlotRow { origin: effect.origin, stamp: entry.stamp, content: effect.content.clone() }));
    superseded.into_iter().chain(effects).collect()
}

/// What one replica knows of a slot: the head counts as a row of the slot it fills.
pub fn seen<C: Clone>(slot: Slot, head: Option<(Entry, &Head<C>)>, row: Option<SlotRow<C>>) -> Option<SlotRow<C>> {
    let as_head = head.filter(|(_, head)| head.slot == slot).map(|(entry, head)| head.row(entry));
    match (as_head, row) {
        // The head first: it wins a tie.
        (Some(head), Some(row)) => Some(merge(head, row)),
        (head, row) => head.or(row),
    }
}

/// What a replica tells a write that asks for traces of itself, besides those in the register: the stamps of rows that have what it made, or
/// that took the place of it. `own_row` is the row of the slot that the write's id names, `null_row` that of `null`.
pub fn kept<C>(own: OwnWrite, own_row: Option<&SlotRow<C>>, null_row: Option<&SlotRow<C>>) -> Vec<Stamp> {
    let own_row = own_row.map(|row| row.stamp);
    // A newer row of `null` may have replaced it after others saw it; whether the write was one of `null` is not known here.
    let null_row = null_row.filter(|row| row.origin.id == own.id || own.first < row.stamp).map(|row| row.stamp);
    own_row.into_iter().chain(null_row).collect()
}

/// A slot as the replicas of a quorum see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Merged<C> {
    /// The newest row; `None`: nobody ever heard of the version.
    pub row: Option<SlotRow<C>>,
    /// All of them hold it: it can be answered from, and built upon.
    pub settled: bool,
}

/// Merges what the replicas of a quorum see of one slot.
pub fn merged<C: Clone>(answers: impl IntoIterator<Item = Option<SlotRow<C>>>) -> Merged<C> {
    let answers: Vec<Option<SlotRow<C>>> = answers.into_iter().collect();
    let newest = answers.iter().flatten().cloned().reduce(merge);
    let mark = newest.as_ref().map(SlotRow::mark);
    let settled = answers.iter().all(|row| row.as_ref().map(SlotRow::mark) == mark);
    Merged { row: newest, settled }
}

/// The versions that are there, newest first, of the merged rows of all slots.
pub fn live_newest_first<C>(rows: BTreeMap<Slot, SlotRow<C>>) -> Vec<(Slot, SlotRow<C>)> {
    let mut live: Vec<(Slot, SlotRow<C>)> = rows.into_iter().filter(|(_, row)| row.is_live()).collect();
    live.sort_by_key(|(slot, row)| std::cmp::Reverse((row.origin.order, *slot)));
    live
}
