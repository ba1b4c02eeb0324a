//! What hooks derive from rows, local to each replica: the current version of each key, its older ones in order, exact counters of each
//! group, and which version has a content.
//!
//! Invariants:
//! - the head index lists a key exactly while its current version is an object, the marker index while it is a delete marker;
//! - the index of older versions lists exactly the live rows of that table;
//! - the upload index lists an upload exactly while it is neither completed nor aborted;
//! - a group's counters equal a recount of its head index.

use garage_db::{EngineError, Snapshot, Transaction};
use garage_rpc::register::{
    Entry, WriteId,
    slots::{Origin, Slot},
};
use garage_table::{Group, TableId, key::push_escaped, keyspaces};
use garage_util::{encoding::Stored, hlc::Stamp};
use serde::{Deserialize, Serialize};

use crate::rows::object::{ObjectSummary, VersionState, slot_key, slot_of, split_slot};

/// Under this number the head index keeps its keys: the object key follows the group's prefix as it is, so order is S3 order.
const HEAD: TableId = TableId(1);
/// Under this number a group keeps its counters.
const COUNTERS: TableId = TableId(2);
/// Under this number: the object key to the delete marker that is current.
const MARKERS: TableId = TableId(10);
/// Under this number: the escaped object key and a rank, newest first, to an older version.
const OLDER: TableId = TableId(11);
/// Under this number: the id of a content to the sort key of the version that has it.
const CONTENTS: TableId = TableId(12);
/// Under this number the index of unfinished uploads keeps their sort keys.
const UPLOADS: TableId = TableId(16);

/// The newest live version of a key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Head {
    /// Stamp and id of the version.
    pub entry: Entry,
    /// What LIST shows of it.
    pub summary: ObjectSummary,
    /// The slot it fills.
    #[serde(default)]
    pub slot: Slot,
    /// Where it comes from; `None`: the entry's own.
    #[serde(default)]
    pub origin: Option<Origin>,
}
impl Stored for Head {
    const WHAT: &'static str = "head index entry";
}

/// A delete marker that is current.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HeadMarker {
    /// Stamp and id of the head's entry.
    pub entry: Entry,
    /// The slot it fills.
    pub slot: Slot,
    /// Where it comes from.
    pub origin: Origin,
    /// When it was made, in milliseconds since 1970.
    pub modified_ms: u64,
}
impl Stored for HeadMarker {
    const WHAT: &'static str = "current delete marker";
}

/// An older version, as listed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Older {
    /// Its slot.
    pub slot: Slot,
    /// Its place in the order, and its content.
    pub origin: Origin,
    /// Of its row.
    pub stamp: Stamp,
    /// What is shown of it.
    pub shown: Shown,
}
impl Stored for Older {
    const WHAT: &'static str = "index entry of an older version";
}

/// What a listing of versions shows of one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Shown {
    /// Of an object.
    Object(ObjectSummary),
    /// Of a delete marker.
    Marker {
        /// When it was made, in milliseconds since 1970.
        modified_ms: u64,
    },
}

impl From<&VersionState> for Shown {
    fn from(state: &VersionState) -> Shown {
        match state {
            VersionState::Object(meta) => Shown::Object(ObjectSummary::from(&**meta)),
            VersionState::DeleteMarker { modified_ms } => Shown::Marker { modified_ms: *modified_ms },
        }
    }
}

/// The place of a version among those of its key: newest first. Never empty.
pub fn rank(order: Stamp, slot: Slot) -> Vec<u8> {
    let mut rank: Vec<u8> = order.to_sortable().iter().map(|byte| !byte).collect();
    if let Slot::Id(id) = slot {
        rank.extend_from_slice(id.as_bytes());
    }
    rank
}

/// What a group holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Keys whose newest version is an object.
    pub objects: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Multipart uploads neither completed nor aborted.
    #[serde(default)]
    pub uploads: u64,
}
impl Stored for Counters {
    const WHAT: &'static str = "counters";
}

impl Counters {
    /// The sum over two groups.
    pub fn plus(self, other: Counters) -> Counters {
        Counters { objects: self.objects + other.objects, bytes: self.bytes + other.bytes, uploads: self.uploads + other.uploads }
    }
    /// The greater of two replicas' counts, each for itself.
    pub fn max(self, other: Counters) -> Counters {
        Counters { objects: self.objects.max(other.objects), bytes: self.bytes.max(other.bytes), uploads: self.uploads.max(other.uploads) }
    }
}

/// A signed change of counters.
#[derive(Clone, Copy, Default)]
pub struct Delta {
    /// Of [`Counters::objects`].
    pub objects: i64,
    /// Of [`Counters::bytes`].
    pub bytes: i64,
    /// Of [`Counters::uploads`].
    pub uploads: i64,
}

/// The prefix of a group's head index keys.
pub fn head_prefix(group: &Group) -> Vec<u8> {
    group.prefix(HEAD)
}

/// Makes `head` the newest live version of a key, or says that it has none.
pub fn set_head(transaction: &mut Transaction<'_>, group: &Group, key: &str, head: Option<&Head>) {
    let index_key = group.local_key(HEAD, key.as_bytes());
    match head {
        Some(head) => transaction.put(keyspaces::INDEX, index_key, head.to_stored()),
        None => transaction.delete(keyspaces::INDEX, index_key),
    }
}

/// Makes a delete marker the current version of a key, or says that none is.
pub fn set_marker(transaction: &mut Transaction<'_>, group: &Group, key: &str, marker: Option<&HeadMarker>) {
    let index_key = group.local_key(MARKERS, key.as_bytes());
    match marker {
        Some(marker) => transaction.put(keyspaces::INDEX, index_key, marker.to_stored()),
        None => transaction.delete(keyspaces::INDEX, index_key),
    }
}

/// The prefix of the keys of a group's index of unfinished uploads.
pub fn uploads_prefix(group: &Group) -> Vec<u8> {
    group.prefix(UPLOADS)
}

/// Lists an upload (its stored form is `listed`), or takes it off the list.
pub fn set_upload(transaction: &mut Transaction<'_>, group: &Group, sort_key: &[u8], listed: Option<Vec<u8>>) {
    let index_key = group.local_key(UPLOADS, sort_key);
    match listed {
        Some(listed) => transaction.put(keyspaces::INDEX, index_key, listed),
        None => transaction.delete(keyspaces::INDEX, index_key),
    }
}

/// The prefix of a group's index of current delete markers; the object key follows as it is.
pub fn marker_prefix(group: &Group) -> Vec<u8> {
    group.prefix(MARKERS)
}

/// The prefix of a group's index of older versions; the escaped object key and a rank follow.
pub fn older_prefix(group: &Group) -> Vec<u8> {
    group.prefix(OLDER)
}

fn older_key(group: &Group, key: &str, origin: Origin, slot: Slot) -> Vec<u8> {
    let mut index_key = older_prefix(group);
    push_escaped(&mut index_key, key.as_bytes());
    index_key.extend_from_slice(&rank(origin.order, slot));
    index_key
}

/// Lists an older version.
pub fn put_older(transaction: &mut Transaction<'_>, group: &Group, key: &str, older: &Older) {
    transaction.put(keyspaces::INDEX, older_key(group, key, older.origin, older.slot), older.to_stored());
}

/// Takes an older version off the list.
pub fn remove_older(transaction: &mut Transaction<'_>, group: &Group, key: &str, origin: Origin, slot: Slot) {
    transaction.delete(keyspaces::INDEX, older_key(group, key, origin, slot));
}

fn content_key(group: &Group, content: WriteId) -> Vec<u8> {
    group.local_key(CONTENTS, content.as_bytes())
}

/// Notes which version has a content.
pub fn put_content(transaction: &mut Transaction<'_>, group: &Group, content: WriteId, key: &str, slot: Slot) {
    transaction.put(keyspaces::INDEX, content_key(group, content), slot_key(key, slot).0);
}

/// Forgets which version had a content.
pub fn remove_content(transaction: &mut Transaction<'_>, group: &Group, content: WriteId) {
    transaction.delete(keyspaces::INDEX, content_key(group, content));
}

/// The key and slot of the version that has, or had, a content; see [`crate::objects::versions::is_live`] for whether it still does.
pub fn version_of_content(snapshot: &dyn Snapshot, group: &Group, content: WriteId) -> Result<Option<(String, Slot)>, EngineError> {
    let sort_key = snapshot.get(keyspaces::INDEX, &content_key(group, content))?;
    Ok(sort_key.and_then(|sort_key| {
        let (key, rest) = split_slot(&sort_key)?;
        Some((key, slot_of(rest)?))
    }))
}

/// Reads a group's counters.
pub fn counters(snapshot: &dyn Snapshot, group: &Group) -> Result<Counters, EngineError> {
    let bytes = snapshot.get(keyspaces::INDEX, &group.prefix(COUNTERS))?;
    // Counters that can't be read are counted anew by a repair; they must not stop a write.
    Ok(bytes.and_then(|bytes| Counters::from_stored(&bytes).ok()).unwrap_or_default())
}

/// Changes a group's counters.
pub fn add_to_counters(transaction: &mut Transaction<'_>, group: &Group, delta: Delta) -> Result<(), EngineError> {
    if delta.objects == 0 && delta.bytes == 0 && delta.uploads == 0 {
        return Ok(());
    }
    let held = counters(transaction, group)?;
    let sum = Counters {
        objects: held.objects.saturating_add_signed(delta.objects),
        bytes: held.bytes.saturating_add_signed(delta.bytes),
        uploads: held.uploads.saturating_add_signed(delta.uploads),
    };
    transaction.put(keyspaces::INDEX, group.prefix(COUNTERS), sum.to_stored());
    Ok(())
}
