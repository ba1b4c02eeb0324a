//! What a replica does with a batch: register rules and merges, companions, hooks and digests, in one durable transaction.
//!
//! Invariants:
//! - a batch is applied whole or not at all, and answered only when it is durable;
//! - a row changes only by the register rules or by its table's merge; there is no other way in;
//! - whenever a row changes, its hook has run and its leaf sum is right in the same transaction.
//!
//! Not here: who may call (`garage_rpc`), quorums (`group`).

use std::ops::Bound;

use bytes::Bytes;
use garage_db::{Committed, Db, DbError, EngineError, Snapshot, TransactError, Transaction};
use garage_net::Refusal;
use garage_rpc::{
    Cluster, RouterBuilder, StoreMark,
    register::{self, ApplyAnswer, Entry, RegisterSide, WriteId},
};
use garage_util::encoding::{DecodeError, Stored};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::{
    digest::{self, RowHash},
    key::{Group, SortKey, TableId, sort_key_of},
    keyspaces,
    message::{ANSWER_BYTES_MAX, Companion, GROUP_OPS_MAX, GroupAnswer, GroupCall, HeldRow, Op, OpAnswer, RANGE_ROWS_MAX, Want},
    schema::{Discipline, RowChange, RowView, Schemas, StoreError, canonical},
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

    /// Serves batches, from coordinators that act on a layout no older than this node's.
    pub fn register(&self, router: RouterBuilder, cluster: Cluster) -> RouterBuilder {
        let store = self.clone();
        router.on_plain::<GroupCall, _>(move |_, context, call| {
            let (store, checked) = (store.clone(), cluster.check_layout_mark(&context.layout));
            async move {
                checked?;
                store.serve(call).await
            }
        })
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
            schemas.of_kind(*table, Discipline::Register)?;
            let held = snapshot.get(keyspaces::ROWS, &group.local_key(*table, &key.0))?;
            let row = held.map(|bytes| RegisterRow::from_stored(&bytes)).transpose()?;
            let companions = match (&row, want) {
                (None, _) | (_, Want::Row) => Vec::new(),
                (Some(row), Want::First) => companions(snapshot, group, row.entry.id, 0, 1)?,
                (Some(row), Want::All) => companions(snapshot, group, row.entry.id, 0, u32::MAX)?,
            };
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
        Op::Merge { .. } => Err(StoreError::BadRequest("a write among reads".to_string())),
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

/// Companions belong to a group and an id, whatever the table of the row.
fn companion_prefix(group: &Group, id: WriteId) -> Vec<u8> {
    let mut key = group.prefix(TableId(0));
    key.extend_from_slice(id.as_bytes());
    key
}

fn companions(snapshot: &dyn Snapshot, group: &Group, id: WriteId, from_chunk: u32, limit: u32) -> Result<Vec<Companion>, StoreError> {
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

fn apply_all(schemas: &Schemas, transaction: &mut Transaction<'_>, group: &Group, ops: Vec<Op>) -> Result<Vec<OpAnswer>, StoreError> {
    ops.into_iter().map(|op| apply_one(schemas, transaction, group, op)).collect()
}

/// Carries out one operation inside a transaction; reads see what the batch wrote before them.
pub fn apply_one(schemas: &Schemas, transaction: &mut Transaction<'_>, group: &Group, op: Op) -> Result<OpAnswer, StoreError> {
    match op {
        Op::Merge { table, key, row, companions } => {
            merge(schemas, transaction, group, table, &key, &row)?;
            put_companions(transaction, group, companions)?;
            Ok(OpAnswer::Merged)
        }
        Op::Register { table, key, message, content, companions, want } if !matches!(message, register::Message::Query) => {
            register(schemas, transaction, group, RegisterOp { table, key, message, content, companions, want })
        }
        read => read_one(schemas, transaction, group, &read),
    }
}

fn put_companions(transaction: &mut Transaction<'_>, group: &Group, companions: Vec<Companion>) -> Result<(), StoreError> {
    for companion in companions {
        let key = [&companion_prefix(group, companion.id)[..], &companion.chunk.to_be_bytes()].concat();
        transaction.put(keyspaces::COMPANIONS, key, companion.content.into_vec());
    }
    Ok(())
}

fn merge(
    schemas: &Schemas,
    transaction: &mut Transaction<'_>,
    group: &Group,
    table: TableId,
    key: &SortKey,
    new: &[u8],
) -> Result<(), StoreError> {
    let schema = schemas.of_kind(table, Discipline::Merge)?;
    let local_key = group.local_key(table, &key.0);
    let held = transaction.get(keyspaces::ROWS, &local_key)?;
    let merged = match &held {
        Some(held) => schema.merge(held, new)?,
        None => schema.merge(new, new)?,
    };
    if held.as_deref() == Some(&merged[..]) {
        return Ok(());
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
    transaction.put(keyspaces::ROWS, local_key, merged);
    Ok(())
}

struct RegisterOp {
    table: TableId,
    key: SortKey,
    message: register::Message,
    content: Option<ByteBuf>,
    companions: Vec<Companion>,
    want: Want,
}

fn register(schemas: &Schemas, transaction: &mut Transaction<'_>, group: &Group, op: RegisterOp) -> Result<OpAnswer, StoreError> {
    let schema = schemas.of_kind(op.table, Discipline::Register)?.clone();
    let local_key = group.local_key(op.table, &op.key.0);
    let held = transaction.get(keyspaces::ROWS, &local_key)?.map(|bytes| RegisterRow::from_stored(&bytes)).transpose()?;
    let mut side = match transaction.get(keyspaces::REGISTER, &local_key)? {
        Some(bytes) => RegisterSide::from_stored(&bytes)?,
        None => RegisterSide::default(),
    };
    let side_before = side.clone();
    let entry = held.as_ref().map(|row| row.entry);
    let (answer, taken) = side.serve(entry, &op.message);
    if side != side_before {
        transaction.put(keyspaces::REGISTER, local_key.clone(), side.to_stored());
    }
    let mut row = held;
    if let Some(taken) = taken {
        let content = op.content.ok_or_else(|| StoreError::BadRequest("an apply without the row's content".to_string()))?;
        let new = RegisterRow { entry: taken, content };
        replace_row(&schema, transaction, group, &op.key, &local_key, row.as_ref(), &new)?;
        row = Some(new);
    }
    let own = matches!(answer, register::Answer::Apply(ApplyAnswer::Stored | ApplyAnswer::AlreadyHeld));
    if own {
        put_companions(transaction, group, op.companions)?;
    }
    let wanted = match (&row, op.want, own) {
        (Some(row), Want::First, false) => companions(transaction, group, row.entry.id, 0, 1)?,
        (Some(row), Want::All, false) => companions(transaction, group, row.entry.id, 0, u32::MAX)?,
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
    schema: &std::sync::Arc<dyn crate::schema::TableSchema>,
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
    schema.changed(transaction, &change)?;
    transaction.put(keyspaces::ROWS, local_key.to_vec(), new.to_stored());
    Ok(())
}
