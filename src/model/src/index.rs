//! What hooks derive from rows, local to each replica: the newest live version of each key, and exact counters of each group.
//!
//! Invariants:
//! - the head index lists a key exactly while its newest version is an object;
//! - a group's counters equal a recount of its head index.

use garage_db::{EngineError, Snapshot, Transaction};
use garage_rpc::register::Entry;
use garage_table::{Group, TableId, keyspaces};
use garage_util::encoding::Stored;
use serde::{Deserialize, Serialize};

use crate::rows::object::ObjectSummary;

/// Under this number the head index keeps its keys: the object key follows the group's prefix as it is, so order is S3 order.
const HEAD: TableId = TableId(1);
/// Under this number a group keeps its counters.
const COUNTERS: TableId = TableId(2);

/// The newest live version of a key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Head {
    /// Stamp and id of the version.
    pub entry: Entry,
    /// What LIST shows of it.
    pub summary: ObjectSummary,
}
impl Stored for Head {
    const WHAT: &'static str = "head index entry";
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
