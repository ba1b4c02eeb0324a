//! Who needs a block: one row for each block and version, in a merge table whose groups are the blocks.
//!
//! A reference is born as a lease and confirmed once its version was seen; only a committed "dead" verdict drops it. States only rise, so
//! merging takes the higher one whatever the order. Whenever a row is new, its hook leaves a "verify present" entry in the block queue in
//! the same transaction; the entry goes when the file is seen. So a crash between reference and file leaves work, never a silent hole.
//!
//! Not here: who may drop a reference, and who works off the queue.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use garage_db::{TransactError, Transaction};
use garage_net::NodeId;
use garage_rpc::StoreMark;
use garage_table::{
    Discipline, Group, RowChange, SortKey, Store, TableId, TableSchema, keyspaces,
    message::Op,
    schema::{RowView, StoreError},
    store::apply_one,
};
use garage_util::{
    encoding::{DecodeError, Stored},
    hlc::Stamp,
    runtime::Runtime,
    workers::Wake,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::{
    hash::BlockHash,
    leases::due::{self, Due},
    limits::{LEASE, VERIFIED_BATCH_COUNT, VERIFIED_DELAY},
};

/// The number of the reference table.
pub const REFERENCE_TABLE: TableId = TableId(4);

/// That a version (or part) of an object needs a block.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reference {
    /// What is needed.
    pub block: BlockHash,
    /// The version that needs it.
    #[serde(with = "serde_bytes")]
    pub version: [u8; 32],
    /// The partition key under which the version can be asked for.
    pub group: ByteBuf,
    /// The version's stamp.
    pub stamp: Stamp,
    /// Where in the group the version's row is, in the words of whoever owns the rows; empty in references of older releases.
    #[serde(default)]
    pub owner: ByteBuf,
}

/// How much is known about the version that needs a block. Later states outweigh earlier ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum ReferenceState {
    /// It was announced; its row may still be on the way, or never come.
    Lease,
    /// Its row was seen at a quorum.
    Confirmed,
    /// It is dead for good. The row is a tombstone.
    Dropped,
}

/// A reference as stored: under the group of the block, the version as sort key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReferenceRow {
    /// What is known of the version.
    pub state: ReferenceState,
    /// The newest stamp seen with it.
    pub stamp: Stamp,
    /// The partition key under which the version can be asked for.
    pub group: ByteBuf,
    /// Where in the group the version's row is; empty in rows of older releases.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub owner: ByteBuf,
}

fn is_empty(bytes: &ByteBuf) -> bool {
    bytes.is_empty()
}

impl Stored for ReferenceRow {
    const WHAT: &'static str = "block reference";
}

impl ReferenceRow {
    /// What both rows know.
    pub fn merge(self, other: ReferenceRow) -> ReferenceRow {
        ReferenceRow {
            state: self.state.max(other.state),
            stamp: self.stamp.max(other.stamp),
            group: self.group.max(other.group),
            owner: self.owner.max(other.owner),
        }
    }
}

/// Why a block is in the queue of blocks to look at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum QueueReason {
    /// A reference came; the file may not be here yet.
    VerifyPresent,
    /// A copy was set aside.
    Corrupt,
    /// A repair, a layout change or an operator asks for a look.
    Check,
    /// Nothing needs it: to be deleted once that has been so for long enough.
    Unreferenced,
}

/// An entry of the block queue, under the block's hash.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct QueueEntry {
    /// Why.
    pub reason: QueueReason,
    /// Not before this wall time, in milliseconds since 1970; 0 is at once.
    #[serde(default)]
    pub due_ms: u64,
    /// Tries that failed.
    #[serde(default)]
    pub failed_count: u32,
    /// When the last try was, in milliseconds since 1970; 0: never.
    #[serde(default)]
    pub last_try_ms: u64,
    /// Since when nothing needs the block, in milliseconds since 1970; 0: it is needed, or not known.
    #[serde(default)]
    pub unneeded_since_ms: u64,
    /// Nodes on which the last try failed: once one of them comes back, it is due at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed_on: Vec<NodeId>,
}

impl QueueEntry {
    /// An entry that is due at once.
    pub fn now(reason: QueueReason) -> QueueEntry {
        QueueEntry { reason, due_ms: 0, failed_count: 0, last_try_ms: 0, unneeded_since_ms: 0, failed_on: Vec::new() }
    }
}

impl Stored for QueueEntry {
    const WHAT: &'static str = "block queue entry";
}

/// The reference table as the store of a node needs to know it.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReferenceTable;

impl TableSchema for ReferenceTable {
    fn id(&self) -> TableId {
        REFERENCE_TABLE
    }
    fn name(&self) -> &'static str {
        "block_ref"
    }
    fn discipline(&self) -> Discipline {
        Discipline::Merge
    }
    fn merge(&self, held: &[u8], new: &[u8]) -> Result<Vec<u8>, DecodeError> {
        Ok(ReferenceRow::from_stored(held)?.merge(ReferenceRow::from_stored(new)?).to_stored())
    }
    fn changed(&self, transaction: &mut Transaction<'_>, change: &RowChange<'_>) -> Result<(), StoreError> {
        let state = |view: RowView<'_>| ReferenceRow::from_stored(view.content).map(|row| row.state);
        let (old, new) = (change.old.map(state).transpose()?, state(change.new)?);
        if old.is_none()
            && new != ReferenceState::Dropped
            && let Ok(version) = <[u8; 32]>::try_from(change.sort_key)
            && let Ok(block) = <[u8; 32]>::try_from(&change.group.key().0[..])
        {
            let begun_ms = ReferenceRow::from_stored(change.new.content)?.stamp.millis();
            let due_ms = begun_ms.saturating_add(LEASE.as_millis() as u64);
            due::add(transaction, Due { due_ms, version, block: BlockHash(block) }, false);
        }
        let reason = match (old, new) {
            (Some(ReferenceState::Dropped), _) => return Ok(()),
            (_, ReferenceState::Dropped) => QueueReason::Unreferenced,
            (None, _) => QueueReason::VerifyPresent,
            (Some(_), _) => return Ok(()),
        };
        transaction.put(keyspaces::BLOCK_QUEUE, change.group.key().0.clone(), QueueEntry::now(reason).to_stored());
        Ok(())
    }
}

/// The references held by this node. Cheap to clone.
#[derive(Clone)]
pub struct References {
    store: Store,
    runtime: Runtime,
    seen: Arc<Seen>,
    queued: Arc<Mutex<Option<Wake>>>,
    hinted: Arc<Mutex<Option<Wake>>>,
}

/// Blocks whose file was seen, and whose queue entries can go.
#[derive(Default)]
struct Seen {
    hashes: Mutex<Vec<BlockHash>>,
    scheduled: AtomicBool,
}

impl References {
    /// The references in this node's store, whose schemas must hold [`ReferenceTable`].
    pub fn new(store: Store, runtime: Runtime) -> References {
        References { store, runtime, seen: Arc::default(), queued: Arc::default(), hinted: Arc::default() }
    }

    /// Adds references as leases; durable on return.
    pub async fn add(&self, references: Vec<Reference>) -> Result<StoreMark, TransactError<StoreError>> {
        let schemas = self.store.schemas().clone();
        let committed = self.store.db().transact(move |transaction| {
            for reference in references {
                let Reference { block, version, group, stamp, owner } = reference;
                let row = ReferenceRow { state: ReferenceState::Lease, stamp, group, owner };
                let key = SortKey(version.to_vec());
                let op = Op::Merge { table: REFERENCE_TABLE, key, row: ByteBuf::from(row.to_stored()), companions: Vec::new() };
                apply_one(&schemas, transaction, &group_of(block), op)?;
            }
            Ok(())
        });
        Ok(StoreMark { store_id: self.store.db().store_id(), commit_number: committed.await?.commit_number })
    }

    /// Raises the states of references: confirmed, or dropped after a committed verdict; durable on return. Those not held here are left out.
    pub async fn raise(&self, verdicts: Vec<(BlockHash, [u8; 32], ReferenceState)>) -> Result<(), TransactError<StoreError>> {
        let schemas = self.store.schemas().clone();
        let raised = self.store.db().transact(move |transaction| {
            for (block, version, state) in verdicts {
                let group = group_of(block);
                let Some(held) = transaction.get(keyspaces::ROWS, &group.local_key(REFERENCE_TABLE, &version))? else { continue };
                let row = ReferenceRow { state, ..ReferenceRow::from_stored(&held)? };
                let (key, row) = (SortKey(version.to_vec()), ByteBuf::from(row.to_stored()));
                apply_one(&schemas, transaction, &group, Op::Merge { table: REFERENCE_TABLE, key, row, companions: Vec::new() })?;
            }
            Ok(())
        });
        raised.await.map(drop)
    }

    /// Notes that a good copy of these blocks is here, so that their queue entries can go.
    ///
    /// They go a little later, many at once: an entry that a crash leaves behind is looked at once more, and goes then.
    pub fn seen(&self, hashes: impl IntoIterator<Item = BlockHash>) {
        self.seen.hashes.lock().extend(hashes);
        if self.seen.scheduled.swap(true, Ordering::SeqCst) {
            return;
        }
        let this = self.clone();
        self.runtime.spawn("block queue", async move {
            tokio::time::sleep(VERIFIED_DELAY).await;
            // Cleared before the list is taken: what comes in between is scheduled anew rather than forgotten.
            this.seen.scheduled.store(false, Ordering::SeqCst);
            if let Err(error) = this.flush_seen().await {
                tracing::warn!(%error, "entries stay in the block queue");
            }
        });
    }

    /// Takes the entries of all blocks seen so far off the queue.
    pub async fn flush_seen(&self) -> Result<(), TransactError<StoreError>> {
        let hashes = std::mem::take(&mut *self.seen.hashes.lock());
        for batch in hashes.chunks(VERIFIED_BATCH_COUNT) {
            let batch = batch.to_vec();
            self.store.db().transact(move |transaction| batch.into_iter().try_for_each(|hash| take_off(transaction, hash))).await?;
        }
        Ok(())
    }

    /// Names who is to be woken when a block is queued that needs a look at once.
    pub fn on_queued(&self, wake: Wake) {
        *self.queued.lock() = Some(wake);
    }

    /// Names who is to be woken when references are to be asked about at once.
    pub fn on_hint(&self, wake: Wake) {
        *self.hinted.lock() = Some(wake);
    }

    /// Lists references, whose versions were seen superseded, to be asked about at once; durable on return.
    pub async fn hint(&self, references: Vec<(BlockHash, [u8; 32])>) -> Result<StoreMark, TransactError<StoreError>> {
        let listed = self.store.db().transact(move |transaction| {
            references.into_iter().for_each(|(block, version)| due::add(transaction, Due { due_ms: 0, version, block }, true));
            Ok(())
        });
        let commit_number = listed.await?.commit_number;
        if let Some(wake) = &*self.hinted.lock() {
            wake.wake();
        }
        Ok(StoreMark { store_id: self.store.db().store_id(), commit_number })
    }

    fn wake(&self) {
        if let Some(wake) = &*self.queued.lock() {
            wake.wake();
        }
    }

    /// Queues a block whose copy here was set aside; durable on return.
    pub async fn queue_corrupt(&self, hash: BlockHash) -> Result<(), TransactError<StoreError>> {
        let queued = self.store.db().transact(move |transaction| {
            let entry = QueueEntry::now(QueueReason::Corrupt);
            transaction.put(keyspaces::BLOCK_QUEUE, hash.0.to_vec(), entry.to_stored());
            Ok::<(), StoreError>(())
        });
        queued.await?;
        self.wake();
        Ok(())
    }

    /// Queues a block that a reader looked for here in vain, if a reference needs it and it is not queued yet.
    pub async fn queue_missing(&self, hash: BlockHash) -> Result<(), TransactError<StoreError>> {
        if !self.need(hash).await.map_err(TransactError::Operation)?.is_live {
            return Ok(());
        }
        let queued = self.store.db().transact(move |transaction| {
            let is_new = transaction.get(keyspaces::BLOCK_QUEUE, &hash.0)?.is_none();
            if is_new {
                transaction.put(keyspaces::BLOCK_QUEUE, hash.0.to_vec(), QueueEntry::now(QueueReason::Check).to_stored());
            }
            Ok::<bool, StoreError>(is_new)
        });
        if queued.await?.value {
            self.wake();
        }
        Ok(())
    }

    /// Takes a block off the queue, whatever it was queued for: a good copy was written under its lock.
    pub async fn mended(&self, hash: BlockHash) -> Result<(), TransactError<StoreError>> {
        let removed = self.store.db().transact(move |transaction| {
            transaction.delete(keyspaces::BLOCK_QUEUE, hash.0.to_vec());
            Ok::<(), StoreError>(())
        });
        removed.await.map(drop)
    }

    /// The blocks queued to be looked at, in order of their hashes, at most `limit_count`.
    pub async fn queued(&self, limit_count: usize) -> Result<BTreeMap<BlockHash, QueueEntry>, StoreError> {
        let read = self.store.db().read(move |snapshot| {
            let all = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
            let mut entries = BTreeMap::new();
            for item in snapshot.range(keyspaces::BLOCK_QUEUE, all.0, all.1, garage_db::Direction::Forward).take(limit_count) {
                let (key, value) = item?;
                let Ok(hash) = <[u8; 32]>::try_from(&key[..]) else { continue };
                entries.insert(BlockHash(hash), QueueEntry::from_stored(&value)?);
            }
            Ok(entries)
        });
        match read.await {
            Ok(entries) => entries,
            Err(error) => Err(StoreError::BadRequest(error.to_string())),
        }
    }

    /// The references to a block on this node.
    pub async fn of(&self, block: BlockHash) -> Result<Vec<([u8; 32], ReferenceRow)>, StoreError> {
        let read = self.store.db().read(move |snapshot| {
            let prefix = group_of(block).prefix(REFERENCE_TABLE);
            let end = garage_table::key::after_prefix(&prefix);
            let to = end.as_deref().map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
            let mut rows = Vec::new();
            for item in snapshot.range(keyspaces::ROWS, std::ops::Bound::Included(&prefix), to, garage_db::Direction::Forward) {
                let (key, value) = item?;
                let Ok(version) = <[u8; 32]>::try_from(&key[prefix.len()..]) else { continue };
                rows.push((version, ReferenceRow::from_stored(&value)?));
            }
            Ok(rows)
        });
        match read.await {
            Ok(rows) => rows,
            Err(error) => Err(StoreError::BadRequest(error.to_string())),
        }
    }
}

/// Whether anything needs a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Need {
    /// A reference that is not dropped.
    pub is_live: bool,
    /// Any reference, dropped or not: the node has heard of the block.
    pub is_known: bool,
}

impl References {
    /// The store that holds them.
    pub fn table_store(&self) -> &Store {
        &self.store
    }

    /// Whether anything needs a block, as far as this node knows.
    pub async fn need(&self, block: BlockHash) -> Result<Need, StoreError> {
        let rows = self.of(block).await?;
        let is_live = rows.iter().any(|(_, row)| row.state != ReferenceState::Dropped);
        Ok(Need { is_live, is_known: !rows.is_empty() })
    }
}

/// The group of a block's references; it has the block's own place in the ring.
pub fn group_of(block: BlockHash) -> Group {
    Group::new(block.0.to_vec())
}

/// Removes a queue entry that only asked whether the block is here; one that was queued for another reason meanwhile stays.
fn take_off(transaction: &mut Transaction<'_>, hash: BlockHash) -> Result<(), StoreError> {
    if let Some(bytes) = transaction.get(keyspaces::BLOCK_QUEUE, &hash.0)?
        && QueueEntry::from_stored(&bytes)?.reason == QueueReason::VerifyPresent
    {
        transaction.delete(keyspaces::BLOCK_QUEUE, hash.0.to_vec());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use garage_util::{encoding::Stored, hlc::Stamp};
    use proptest::prelude::*;
    use serde_bytes::ByteBuf;

    use super::{ReferenceRow, ReferenceState};

    fn rows() -> impl Strategy<Value = ReferenceRow> {
        let states = prop_oneof![Just(ReferenceState::Lease), Just(ReferenceState::Confirmed), Just(ReferenceState::Dropped)];
        (states, 0u64..4, prop::collection::vec(0u8..3, 0..3)).prop_map(|(state, time, group)| ReferenceRow {
            state,
            stamp: Stamp::from_parts(time, 1, false),
            owner: ByteBuf::from(group.clone()),
            group: ByteBuf::from(group),
        })
    }

    proptest! {
        #[test]
        fn merge_ignores_order_and_repetition(a in rows(), b in rows(), c in rows()) {
            prop_assert_eq!(a.clone().merge(b.clone().merge(c.clone())), c.clone().merge(a.clone()).merge(b.clone()));
            prop_assert_eq!(a.clone().merge(a.clone()), a.clone());
            let merged = a.clone().merge(b.clone());
            prop_assert_eq!(merged.clone().merge(b), merged);
        }
    }

    #[test]
    fn the_first_format_stays_readable() {
        let (stamp, group) = (Stamp::from_parts(1, 2, true), ByteBuf::from(b"g".to_vec()));
        let row = ReferenceRow { state: ReferenceState::Lease, stamp, group, owner: ByteBuf::new() };
        let stored = b"\x01\x83\xa5state\xa5Lease\xa5stamp\x83\xa4time\x01\xa4node\x02\xa4step\xc3\xa5group\xc4\x01g";
        assert_eq!(row.to_stored(), stored);
        assert_eq!(ReferenceRow::from_stored(stored).unwrap(), row);
    }
}
