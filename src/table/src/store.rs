//! What a replica does with a batch: register rules and merges, companions, hooks and digests, in one durable transaction.
//!
//! Invariants:
//! - a batch is applied whole or not at all, and answered only when it is durable;
//! - a row changes only by the register rules or by its table's merge; there is no other way in;
//! - whenever a row changes, its hook has run and its leaf sum is right in the same transaction.
//!
//! Not here: who may call (`garage_rpc`), quorums (`group`), rows that come from other replicas (`sync`).

use std::ops::Bound;

use bytes::Bytes;
use garage_db::{Committed, Db, DbError, EngineError, Snapshot, TransactError, Transaction};
use garage_net::Refusal;
use garage_rpc::{
    Cluster, RouterBuilder, StoreMark,
    register::{self, ApplyAnswer, Entry, PrepareAnswer, RegisterSide, WriteId},
};
use garage_util::{
    encoding::{DecodeError, Stored},
    hlc::Stamp,
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::{
    digest::{self, KeyHash, RowHash},
    key::{Group, SortKey, TableId, sort_key_of},
    keyspaces,
    message::{ANSWER_BYTES_MAX, Companion, GROUP_OPS_MAX, GroupAnswer, GroupCall, HeldRow, Op, OpAnswer, RANGE_ROWS_MAX, Want},
    schema::{Discipline, RowChange, RowView, Schemas, StoreError, TableSchema, canonical},
    standing::{Counts, Standing},
};

/// A register row as stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct RegisterRow {
    entry: Entry,
    content: ByteBuf,
}
impl Stored for RegisterRow {
    const WHAT: &'static str = "register row";
}

/// A node's replica of the groups that it holds. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    db: Db,
    schemas: Schemas,
}

impl Store {
    /// A replica over a local store opened with [`keyspaces::SPECS`].
    pub fn new(db: Db, schemas: Schemas) -> Store {
        Store { db, schemas }
    }
    /// The local store.
    pub fn db(&self) -> &Db {
        &self.db
    }
    /// The tables.
    pub fn schemas(&self) -> &Schemas {
        &self.schemas
    }
    /// The store's identity and how far it is durable.
    pub fn mark(&self) -> StoreMark {
        StoreMark { store_id: self.db.store_id(), commit_number: self.db.commit_number() }
    }

    /// Serves batches, from coordinators that act on a layout no older than this node's; where this node's answers do not count, it says so.
    pub fn register(&self, router: RouterBuilder, cluster: Cluster, standing: Standing) -> RouterBuilder {
        let store = self.clone();
        router.on_plain::<GroupCall, _>(move |_, context, call| {
            // Held until the answer: this node does not say that it is done with a layout while it still serves a call that follows it.
            let in_use = cluster.layout_in_use();
            let checked = cluster.check_layout_mark(&context.layout);
            let counts = standing.counts(&cluster, Group::new(call.group.0.clone()).hash()[0]);
            let store = store.clone();
            async move {
                checked?;
                let answer = match counts {
                    Counts::Yes => store.serve(call).await,
                    Counts::Keeps | Counts::Refuses => Err(store.serve_uncounted(call, counts).await),
                };
                drop(in_use);
                answer
            }
        })
    }

    /// Keeps of a batch what may be kept while this node's answers do not count, and refuses.
    async fn serve_uncounted(&self, mut call: GroupCall, counts: Counts) -> Refusal {
        call.ops.retain(|op| match op {
            Op::Merge { .. } => true,
            Op::Register { message: register::Message::Apply { .. }, .. } => counts == Counts::Keeps,
            _ => false,
        });
        if !call.ops.is_empty()
            && let Err(error) = self.serve(call).await
        {
            return error;
        }
        refusal(RECOVERING, "this node lost its store and is not refilled yet: its answers do not count".to_string())
    }

    /// Carries out a batch; writes are durable when this returns.
    pub async fn serve(&self, call: GroupCall) -> Result<GroupAnswer, Refusal> {
        if GROUP_OPS_MAX < call.ops.len() {
            return Err(refusal("BadRequest", format!("{} operations in one batch, the limit is {GROUP_OPS_MAX}", call.ops.len())));
        }
        let group = Group::new(call.group.0);
        let schemas = self.schemas.clone();
        if call.ops.iter().all(Op::is_read) {
            let answers = self.db.read(move |snapshot| read_all(&schemas, snapshot, &group, &call.ops)).await.map_err(read_refusal)?;
            return Ok(GroupAnswer { mark: self.mark(), answers: answers.map_err(store_refusal)? });
        }
        let committed: Committed<Vec<OpAnswer>> =
            self.db.transact(move |transaction| apply_all(&schemas, transaction, &group, call.ops)).await.map_err(transact_refusal)?;
        Ok(GroupAnswer {
            mark: StoreMark { store_id: self.db.store_id(), commit_number: committed.commit_number },
            answers: committed.value,
        })
    }
}

/// Refusal code: the node's answers do not count yet.
pub const RECOVERING: &str = "Recovering";
/// Refusal code: the node's store is full.
pub const STORAGE_FULL: &str = "StorageFull";

fn refusal(code: &str, message: String) -> Refusal {
    Refusal { code: code.to_string(), message, detail: Bytes::new() }
}
fn store_refusal(error: StoreError) -> Refusal {
    match error {
        StoreError::BadRequest(message) => refusal("BadRequest", message),
        StoreError::Engine(error @ EngineError::StorageFull { .. }) => refusal(STORAGE_FULL, error.to_string()),
        StoreError::Engine(error) => refusal("Store", error.to_string()),
        StoreError::Decode(error) => refusal("Store", error.to_string()),
    }
}
fn read_refusal(error: DbError) -> Refusal {
    refusal("Store", error.to_string())
}
fn transact_refusal(error: TransactError<StoreError>) -> Refusal {
    let error_text = error.to_string();
    match error {
        TransactError::Operation(error) => store_refusal(error),
        TransactError::StorageFull { .. } => refusal(STORAGE_FULL, error_text),
        _ => refusal("Store", error_text),
    }
}

fn read_all(schemas: &Schemas, snapshot: &dyn Snapshot, group: &Group, ops: &[Op]) -> Result<Vec<OpAnswer>, StoreError> {
    ops.iter().map(|op| read_one(schemas, snapshot, group, op)).collect()
}

fn read_one(schemas: &Schemas, snapshot: &dyn Snapshot, group: &Group, op: &Op) -> Result<OpAnswer, StoreError> {
    match op {
        Op::Register { table, key, want, .. } => {
            let schema = schemas.of_kind(*table, Discipline::Register)?;
            let held = snapshot.get(keyspaces::ROWS, &group.local_key(*table, &key.0))?;
            let row = held.map(|bytes| RegisterRow::from_stored(&bytes)).transpose()?;
            let companions = row.as_ref().map_or(Ok(Vec::new()), |row| wanted_companions(&**schema, snapshot, group, row, *want))?;
            let entry = row.as_ref().map(|row| row.entry);
            Ok(OpAnswer::Register { answer: register::Answer::Row(entry), row: row.map(HeldRow::from), companions })
        }
        Op::Read { table, key } => {
            let discipline = schemas.get(*table)?.discipline();
            let held = snapshot.get(keyspaces::ROWS, &group.local_key(*table, &key.0))?;
            Ok(OpAnswer::Row(held.map(|bytes| held_row(discipline, &bytes)).transpose()?))
        }
        Op::Range { table, from, to, limit } => range(schemas, snapshot, group, *table, from, to.as_ref(), *limit),
        Op::Companions { id, from_chunk, limit } => Ok(OpAnswer::Companions(companions(snapshot, group, *id, *from_chunk, *limit)?)),
        Op::Query { table, request } => Ok(OpAnswer::Query(ByteBuf::from(schemas.get(*table)?.query(snapshot, group, request)?))),
        Op::Merge { .. } | Op::Fence { .. } => Err(StoreError::BadRequest("a write among reads".to_string())),
    }
}

impl From<RegisterRow> for HeldRow {
    fn from(row: RegisterRow) -> HeldRow {
        HeldRow { entry: Some(row.entry), content: row.content }
    }
}

/// The row in stored bytes of a table of this kind.
pub fn held_row(discipline: Discipline, bytes: &[u8]) -> Result<HeldRow, DecodeError> {
    match discipline {
        Discipline::Register => Ok(RegisterRow::from_stored(bytes)?.into()),
        Discipline::Merge => Ok(HeldRow { entry: None, content: ByteBuf::from(bytes) }),
    }
}

fn range(
    schemas: &Schemas,
    snapshot: &dyn Snapshot,
    group: &Group,
    table: TableId,
    from: &SortKey,
    to: Option<&SortKey>,
    limit: u32,
) -> Result<OpAnswer, StoreError> {
    let discipline = schemas.get(table)?.discipline();
    let prefix = group.prefix(table);
    let start = [&prefix[..], &from.0].concat();
    let end = match to {
        Some(to) => Some([&prefix[..], &to.0].concat()),
        None => crate::key::after_prefix(&prefix),
    };
    let end_bound = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let limit = (limit as usize).min(RANGE_ROWS_MAX);
    let mut rows = Vec::new();
    let mut size_bytes = 0;
    for item in snapshot.range(keyspaces::ROWS, Bound::Included(&start), end_bound, garage_db::Direction::Forward) {
        if limit <= rows.len() || ANSWER_BYTES_MAX <= size_bytes {
            return Ok(OpAnswer::Rows { rows, truncated: true });
        }
        let (key, value) = item?;
        size_bytes += key.len() + value.len();
        rows.push((SortKey(sort_key_of(&key, prefix.len()).to_vec()), held_row(discipline, &value)?));
    }
    Ok(OpAnswer::Rows { rows, truncated: false })
}

/// The register row under a sort key, as this replica holds it.
pub fn register_row(snapshot: &dyn Snapshot, group: &Group, table: TableId, sort_key: &[u8]) -> Result<Option<HeldRow>, StoreError> {
    let held = snapshot.get(keyspaces::ROWS, &group.local_key(table, sort_key))?;
    Ok(held.map(|bytes| RegisterRow::from_stored(&bytes)).transpose()?.map(HeldRow::from))
}

/// Companions belong to a group and an id, whatever the table of the row.
fn companion_prefix(group: &Group, id: WriteId) -> Vec<u8> {
    let mut key = group.prefix(TableId(0));
    key.extend_from_slice(id.as_bytes());
    key
}

fn wanted_companions(
    schema: &dyn TableSchema,
    snapshot: &dyn Snapshot,
    group: &Group,
    row: &RegisterRow,
    want: Want,
) -> Result<Vec<Companion>, StoreError> {
    let limit = match want {
        Want::Row => return Ok(Vec::new()),
        Want::First => 1,
        Want::All => u32::MAX,
    };
    let id = schema.companion_id(RowView { entry: Some(row.entry), content: &row.content });
    companions(snapshot, group, id.unwrap_or(row.entry.id), 0, limit)
}

/// The companions of one id in order of their chunks, at most [`ANSWER_BYTES_MAX`] and one more.
pub(crate) fn companions(
    snapshot: &dyn Snapshot,
    group: &Group,
    id: WriteId,
    from_chunk: u32,
    limit: u32,
) -> Result<Vec<Companion>, StoreError> {
    let prefix = companion_prefix(group, id);
    let start = [&prefix[..], &from_chunk.to_be_bytes()].concat();
    let end = [&prefix[..], &u32::MAX.to_be_bytes()].concat();
    let mut found = Vec::new();
    let mut size_bytes = 0;
    for item in snapshot.range(keyspaces::COMPANIONS, Bound::Included(&start), Bound::Excluded(&end), garage_db::Direction::Forward) {
        if limit as usize <= found.len() || ANSWER_BYTES_MAX <= size_bytes {
            break;
        }
        let (key, value) = item?;
        let Some(chunk) = key[prefix.len()..].try_into().ok().map(u32::from_be_bytes) else { continue };
        size_bytes += value.len();
        found.push(Companion { id, chunk, content: ByteBuf::from(value.to_vec()) });
    }
    Ok(found)
}

/// All companions of an id that this replica has, in order of their chunks.
pub fn companions_of(snapshot: &dyn Snapshot, group: &Group, id: WriteId) -> Result<Vec<Companion>, StoreError> {
    companions(snapshot, group, id, 0, u32::MAX)
}

/// Removes all companions of an id: its row is gone from this replica for good.
pub fn drop_companions(transaction: &mut Transaction<'_>, group: &Group, id: WriteId) -> Result<(), StoreError> {
    let prefix = companion_prefix(group, id);
    let keys = transaction.prefix(keyspaces::COMPANIONS, &prefix, garage_db::Direction::Forward).map(|item| item.map(|(key, _)| key));
    let keys: Vec<Bytes> = keys.collect::<Result<_, _>>()?;
    keys.into_iter().for_each(|key| transaction.delete(keyspaces::COMPANIONS, key));
    Ok(())
}

fn apply_all(schemas: &Schemas, transaction: &mut Transaction<'_>, group: &Group, ops: Vec<Op>) -> Result<Vec<OpAnswer>, StoreError> {
    ops.into_iter().map(|op| apply_one(schemas, transaction, group, op)).collect()
}

/// Carries out one operation inside a transaction; reads see what the batch wrote before them.
pub fn apply_one(schemas: &Schemas, transaction: &mut Transaction<'_>, group: &Group, op: Op) -> Result<OpAnswer, StoreError> {
    match op {
        Op::Merge { table, key, row, companions } => {
            let schema = schemas.of_kind(table, Discipline::Merge)?;
            if is_guarded(&**schema, transaction, group, &key, &row)? {
                return Ok(OpAnswer::Guarded);
            }
            merge_row(&**schema, transaction, group, &key, &row)?;
            put_companions(transaction, group, companions)?;
            Ok(OpAnswer::Merged)
        }
        Op::Register { table, key, message, content, companions, want } if !matches!(message, register::Message::Query) => {
            register(schemas, transaction, group, Origin::Coordinator, RegisterOp { table, key, message, content, companions, want })
        }
        Op::Fence { table, key, id, now, lift } => {
            let is_held = schemas.of_kind(table, Discipline::Register)?.is_held(transaction, group, &key.0, id)?;
            fence(transaction, &group.local_key(table, &key.0), id, now, lift || is_held)
        }
        read => read_one(schemas, transaction, group, &read),
    }
}

fn fence(transaction: &mut Transaction<'_>, local_key: &[u8], id: WriteId, now: Stamp, lift: bool) -> Result<OpAnswer, StoreError> {
    let row = transaction.get(keyspaces::ROWS, local_key)?.map(|bytes| RegisterRow::from_stored(&bytes)).transpose()?;
    let mut side = match transaction.get(keyspaces::REGISTER, local_key)? {
        Some(bytes) => RegisterSide::from_stored(&bytes)?,
        None => RegisterSide::default(),
    };
    let horizon_ms = now.millis().saturating_sub(FENCE_LIFE.as_millis() as u64);
    side.forget_fences_below(Stamp::from_parts(horizon_ms << 16, 0, false));
    let is_fenced = if lift {
        side.lift_fence(id);
        false
    } else {
        side.fence(row.map(|row| row.entry), id, now)
    };
    if side.is_empty() {
        transaction.delete(keyspaces::REGISTER, local_key.to_vec());
    } else {
        transaction.put(keyspaces::REGISTER, local_key.to_vec(), side.to_stored());
    }
    Ok(OpAnswer::Fenced(is_fenced))
}

/// How long a fence is kept: longer than any request may take from its first block to its row, twice over.
pub const FENCE_LIFE: std::time::Duration = std::time::Duration::from_secs(50 * 3600);

pub(crate) fn put_companions(transaction: &mut Transaction<'_>, group: &Group, companions: Vec<Companion>) -> Result<(), StoreError> {
    for companion in companions {
        let key = [&companion_prefix(group, companion.id)[..], &companion.chunk.to_be_bytes()].concat();
        transaction.put(keyspaces::COMPANIONS, key, companion.content.into_vec());
    }
    Ok(())
}

pub(crate) fn is_guarded(
    schema: &dyn TableSchema,
    transaction: &Transaction<'_>,
    group: &Group,
    key: &SortKey,
    new: &[u8],
) -> Result<bool, StoreError> {
    let Some(guard) = schema.guard(&key.0, new)? else { return Ok(false) };
    let side = transaction.get(keyspaces::REGISTER, &group.local_key(guard.table, &guard.key.0))?;
    let side = side.map(|bytes| RegisterSide::from_stored(&bytes)).transpose()?;
    if side.is_some_and(|side| guard.stamp < side.promise()) {
        return Ok(true);
    }
    // What follows from an entry is not taken before the entry itself: it would take effect in part.
    let held = register_row(transaction, group, guard.table, &guard.key.0)?.and_then(|row| row.entry);
    Ok(held.is_none_or(|entry| entry.stamp < guard.stamp))
}

/// Merges a row of a merge table inside a transaction, with its digest and hooks; what is held afterwards. No guard is asked: for hooks,
/// whose rows follow from what was accepted.
pub fn merge_row(
    schema: &dyn TableSchema,
    transaction: &mut Transaction<'_>,
    group: &Group,
    key: &SortKey,
    new: &[u8],
) -> Result<Vec<u8>, StoreError> {
    let table = schema.id();
    let local_key = group.local_key(table, &key.0);
    let held = transaction.get(keyspaces::ROWS, &local_key)?;
    let merged = match &held {
        Some(held) => schema.merge(held, new)?,
        None => schema.merge(new, new)?,
    };
    if held.as_deref() == Some(&merged[..]) {
        return Ok(merged);
    }
    let old_hash = held.as_deref().map(|held| RowHash::of(&local_key, &[canonical(held)]));
    let new_hash = RowHash::of(&local_key, &[canonical(&merged)]);
    digest::replace(transaction, group, table, &local_key, old_hash, Some(new_hash))?;
    let change = RowChange {
        group,
        sort_key: &key.0,
        old: held.as_deref().map(|content| RowView { entry: None, content }),
        new: RowView { entry: None, content: &merged },
    };
    schema.changed(transaction, &change)?;
    queue_tombstone(schema, transaction, &change, &local_key);
    transaction.put(keyspaces::ROWS, local_key, merged.clone());
    Ok(merged)
}

pub(crate) struct RegisterOp {
    pub table: TableId,
    pub key: SortKey,
    pub message: register::Message,
    pub content: Option<ByteBuf>,
    pub companions: Vec<Companion>,
    pub want: Want,
}

/// Who sends a register message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// A coordinator: where no row is held, the floor of dropped tombstones stands in for one.
    Coordinator,
    /// Another replica, with a row that it holds: older than the floor, perhaps, and nevertheless missing here.
    Replica,
}

/// The key of what is known of a partition as a whole.
fn floor_key(table: TableId, partition: u8) -> [u8; 2] {
    [table.0, partition]
}

fn read_floor(snapshot: &dyn Snapshot, table: TableId, partition: u8) -> Result<Floor, StoreError> {
    let bytes = snapshot.get(keyspaces::REGISTER, &floor_key(table, partition))?;
    Ok(bytes.map(|bytes| Floor::from_stored(&bytes)).transpose()?.unwrap_or_default())
}

fn change_floor(
    transaction: &mut Transaction<'_>,
    table: TableId,
    partition: u8,
    change: impl FnOnce(&mut Floor),
) -> Result<(), StoreError> {
    let before = read_floor(transaction, table, partition)?;
    let mut floor = before;
    change(&mut floor);
    if floor != before {
        transaction.put(keyspaces::REGISTER, floor_key(table, partition).to_vec(), floor.to_stored());
    }
    Ok(())
}

/// The greatest stamp of a tombstone that was dropped from a partition here.
pub(crate) fn partition_floor(snapshot: &dyn Snapshot, table: TableId, partition: u8) -> Result<Stamp, StoreError> {
    Ok(read_floor(snapshot, table, partition)?.stamp)
}

/// Raises it.
pub(crate) fn raise_partition_floor(
    transaction: &mut Transaction<'_>,
    table: TableId,
    partition: u8,
    stamp: Stamp,
) -> Result<(), StoreError> {
    change_floor(transaction, table, partition, |floor| floor.stamp = floor.stamp.max(stamp))
}

/// Notes that promises and trails below `horizon` were forgotten in a partition.
pub(crate) fn raise_forgotten(transaction: &mut Transaction<'_>, table: TableId, partition: u8, horizon: Stamp) -> Result<(), StoreError> {
    change_floor(transaction, table, partition, |floor| floor.forgotten = floor.forgotten.max(horizon))
}

/// The moment below which promises and trails may have been forgotten in a partition.
pub(crate) fn partition_forgotten(snapshot: &dyn Snapshot, table: TableId, partition: u8) -> Result<Stamp, StoreError> {
    Ok(read_floor(snapshot, table, partition)?.forgotten)
}

/// Before the tombstones of a table and partition that wait for being dropped.
pub(crate) fn tombstone_queue_prefix(table: TableId, partition: u8) -> Vec<u8> {
    [b"tombstone".as_slice(), &[table.0, partition]].concat()
}

/// Where a tombstone waits for being dropped: in order of age.
pub(crate) fn tombstone_queue_key(table: TableId, partition: u8, since_ms: u64, key_hash: KeyHash) -> Vec<u8> {
    let mut key = tombstone_queue_prefix(table, partition);
    key.extend_from_slice(&since_ms.to_be_bytes());
    key.extend_from_slice(&key_hash.0);
    key
}

/// Keeps the queue of tombstones in step with a row.
fn queue_tombstone(schema: &dyn TableSchema, transaction: &mut Transaction<'_>, change: &RowChange<'_>, local_key: &[u8]) {
    let (table, partition) = (schema.id(), change.group.hash()[0]);
    let queue_key = |since_ms: u64| tombstone_queue_key(table, partition, since_ms, KeyHash::of(local_key));
    let before = change.old.and_then(|old| schema.tombstone_since_ms(change.sort_key, old));
    let after = schema.tombstone_since_ms(change.sort_key, change.new);
    if before == after {
        return;
    }
    if let Some(since_ms) = before {
        transaction.delete(keyspaces::LOCAL, queue_key(since_ms));
    }
    if let Some(since_ms) = after {
        transaction.put(keyspaces::LOCAL, queue_key(since_ms), Vec::new());
    }
}

/// The stored form of what is kept beside a register.
pub(crate) fn stored_side(side: &RegisterSide) -> Vec<u8> {
    side.to_stored()
}

/// The stamp of the register row under a local key; [`Stamp::ZERO`]: there is none.
pub(crate) fn held_stamp(snapshot: &dyn Snapshot, local_key: &[u8]) -> Result<Stamp, StoreError> {
    let row = snapshot.get(keyspaces::ROWS, local_key)?.map(|bytes| RegisterRow::from_stored(&bytes)).transpose()?;
    Ok(row.map_or(Stamp::ZERO, |row| row.entry.stamp))
}

/// What is kept beside a register, from its stored form.
pub(crate) fn side_of(bytes: &[u8]) -> Result<RegisterSide, DecodeError> {
    RegisterSide::from_stored(bytes)
}

/// What is kept beside a register.
pub(crate) fn read_side(snapshot: &dyn Snapshot, local_key: &[u8]) -> Result<RegisterSide, StoreError> {
    let bytes = snapshot.get(keyspaces::REGISTER, local_key)?;
    Ok(bytes.map(|bytes| side_of(&bytes)).transpose()?.unwrap_or_default())
}

/// What is known of a partition of a table as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Floor {
    /// The greatest stamp of a tombstone that was dropped.
    stamp: Stamp,
    /// Below this, promises and trails may have been forgotten.
    #[serde(default)]
    forgotten: Stamp,
}
impl Stored for Floor {
    const WHAT: &'static str = "floor of dropped tombstones";
}

pub(crate) fn register(
    schemas: &Schemas,
    transaction: &mut Transaction<'_>,
    group: &Group,
    origin: Origin,
    op: RegisterOp,
) -> Result<OpAnswer, StoreError> {
    let schema = schemas.of_kind(op.table, Discipline::Register)?.clone();
    let local_key = group.local_key(op.table, &op.key.0);
    let held = transaction.get(keyspaces::ROWS, &local_key)?.map(|bytes| RegisterRow::from_stored(&bytes)).transpose()?;
    let mut side = read_side(transaction, &local_key)?;
    if held.is_none() && origin == Origin::Coordinator {
        let floor = partition_floor(transaction, op.table, group.hash()[0])?;
        side.take_over(floor, floor);
    }
    let side_before = side.clone();
    let entry = held.as_ref().map(|row| row.entry);
    let (mut answer, taken) = side.serve(entry, &op.message);
    if let (register::Answer::Prepare(PrepareAnswer::Promised { complete, kept, .. }), register::Message::Prepare { own: Some(own), .. }) =
        (&mut answer, &op.message)
    {
        // A write that others take over long after it began asks about what may have been forgotten since.
        *complete &= partition_forgotten(transaction, op.table, group.hash()[0])? <= own.first;
        *kept = schema.kept(transaction, group, &op.key.0, *own)?;
    }
    if side != side_before {
        transaction.put(keyspaces::REGISTER, local_key.clone(), side.to_stored());
    }
    let mut row = held;
    if let Some(taken) = taken {
        let content = op.content.ok_or_else(|| StoreError::BadRequest("an apply without the row's content".to_string()))?;
        let new = RegisterRow { entry: taken, content };
        replace_row(&*schema, transaction, group, &op.key, &local_key, row.as_ref(), &new)?;
        row = Some(new);
    }
    let own = matches!(answer, register::Answer::Apply(ApplyAnswer::Stored | ApplyAnswer::AlreadyHeld));
    if own {
        put_companions(transaction, group, op.companions)?;
    }
    let wanted = match (&row, own) {
        (Some(row), false) => wanted_companions(&*schema, transaction, group, row, op.want)?,
        _ => Vec::new(),
    };
    let row = if own { None } else { row.map(HeldRow::from) };
    Ok(OpAnswer::Register { answer, row, companions: wanted })
}

/// The hash of a register row of `group` as the digests count it; 0 for a row that was never written.
pub fn register_row_hash(group: &Group, table: TableId, key: &SortKey, row: &HeldRow) -> u128 {
    let Some(entry) = row.entry else { return 0 };
    register_hash(&group.local_key(table, &key.0), &RegisterRow { entry, content: row.content.clone() }).0
}

fn register_hash(local_key: &[u8], row: &RegisterRow) -> RowHash {
    RowHash::of(local_key, &[&row.entry.stamp.to_sortable(), row.entry.id.as_bytes(), canonical(&row.content)])
}

fn replace_row(
    schema: &dyn TableSchema,
    transaction: &mut Transaction<'_>,
    group: &Group,
    key: &SortKey,
    local_key: &[u8],
    old: Option<&RegisterRow>,
    new: &RegisterRow,
) -> Result<(), StoreError> {
    let old_hash = old.map(|row| register_hash(local_key, row));
    digest::replace(transaction, group, schema.id(), local_key, old_hash, Some(register_hash(local_key, new)))?;
    let change = RowChange {
        group,
        sort_key: &key.0,
        old: old.map(|row| RowView { entry: Some(row.entry), content: &row.content }),
        new: RowView { entry: Some(new.entry), content: &new.content },
    };
    // The row first: a hook that merges rows of other tables sees what will be there.
    transaction.put(keyspaces::ROWS, local_key.to_vec(), new.to_stored());
    queue_tombstone(schema, transaction, &change, local_key);
    schema.changed(transaction, &change)
}
