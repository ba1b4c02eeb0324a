//! What a set of answers proves: that a row is settled, that a write happened, that it is dead, or none of it.
//!
//! A write *counts* once, in every set, a quorum held it at one stamp, the same in all sets: then every later quorum of any of the
//! sets meets it. So *settled* and *happened* ask for such a quorum in every set. *Dead* asks for the opposite in every set, not just
//! in one: during a layout change a coordinator that still lives in the old version may have read, and been content with, a quorum
//! of that one set. What is neither is in doubt. With a single set of 3 nodes and a quorum of 2 this is: two showed the same stamp;
//! two never had it, or all three answered completely and no two of them agree; everything else.

use std::collections::{BTreeMap, BTreeSet};

use garage_util::hlc::Stamp;

use super::{Entry, QuorumSets};

/// What became of the earlier attempts of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It took effect at this stamp; it may have been superseded since.
    Happened(Stamp),
    /// No quorum ever held it at one stamp, nor will under a ballot below the present one.
    Dead,
    /// The answers prove neither.
    Doubt,
}

/// What one replica that promised the present ballot remembers of a write.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Trace {
    /// The stamps at which it took the write.
    pub shown: Vec<Stamp>,
    /// Nothing was forgotten.
    pub complete: bool,
}

/// Whether the newest of these rows is held, with equal id and equal stamp, by a quorum of every set.
pub(super) fn is_settled<N: Ord + Copy>(sets: &QuorumSets<N>, rows: &BTreeMap<N, Option<Entry>>) -> bool {
    let newest = newest(rows);
    sets.has_quorum(&holders(rows, newest))
}

/// The newest of these rows.
pub(super) fn newest<N: Ord + Copy>(rows: &BTreeMap<N, Option<Entry>>) -> Option<Entry> {
    rows.values().copied().max().flatten()
}

/// Who answered with this row.
pub(super) fn holders<N: Ord + Copy>(rows: &BTreeMap<N, Option<Entry>>, row: Option<Entry>) -> BTreeSet<N> {
    rows.iter().filter(|(_, held)| **held == row).map(|(node, _)| *node).collect()
}

/// What became of a write, by the traces of it at the replicas that promised a ballot above all its attempts.
///
/// `tried` are all the sets the write was ever sent under, the present ones included. One that has since been left still counts: a
/// quorum in it could have been read there, and a quorum in the others alone was never enough. A replica without a trace here (it
/// refused, did not answer, or was not asked) may hold anything; so may, besides what it shows, one whose memory is not complete.
pub fn fate<N: Ord + Copy>(tried: &QuorumSets<N>, traces: &BTreeMap<N, Trace>) -> Fate {
    let stamps: BTreeSet<Stamp> = traces.values().flat_map(|trace| trace.shown.iter().copied()).collect();
    let shows = |node: &N, stamp: Stamp| traces.get(node).is_some_and(|trace| trace.shown.contains(&stamp));
    let is_everywhere = |stamp: Stamp| tried.sets().iter().all(|set| set.quorum_count() <= set.count(|node| shows(node, stamp)));
    // The greatest first: the last stamp under which it took effect is the one to tell.
    if let Some(stamp) = stamps.iter().rev().find(|stamp| is_everywhere(**stamp)) {
        return Fate::Happened(*stamp);
    }
    let may_hide = |node: &N| traces.get(node).is_none_or(|trace| !trace.complete);
    // A stamp nobody shows could still be at all that may hide something; `None` stands for it.
    let candidates = || stamps.iter().map(|stamp| Some(*stamp)).chain([None]);
    let is_dead = tried.sets().iter().all(|set| {
        candidates().all(|stamp| set.count(|node| may_hide(node) || stamp.is_some_and(|stamp| shows(node, stamp))) < set.quorum_count())
    });
    if is_dead { Fate::Dead } else { Fate::Doubt }
}
