//! What a table declares: its number, its kind, how its rows merge, which derived writes follow a change, which queries a replica answers.

use std::{collections::BTreeMap, sync::Arc};

use garage_db::{EngineError, Snapshot, Transaction};
use garage_rpc::register::{Entry, OwnWrite, WriteId};
use garage_util::{encoding::DecodeError, hlc::Stamp};

use crate::{
    key::{Group, SortKey, TableId},
    message::Companion,
};

/// How the rows of a table are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Discipline {
    /// By the register rules: linearizable, one register a sort key.
    Register,
    /// By a commutative, associative, idempotent merge at each replica.
    Merge,
}

/// Why a replica could not carry out an operation.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The local store failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A stored or received row can't be read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The request itself makes no sense to this node.
    #[error("{0}")]
    BadRequest(String),
}

/// A change of one row, as hooks see it.
pub struct RowChange<'a> {
    /// The group of the row.
    pub group: &'a Group,
    /// Its sort key.
    pub sort_key: &'a [u8],
    /// What was held, if anything.
    pub old: Option<RowView<'a>>,
    /// What is held now.
    pub new: RowView<'a>,
}

/// A row's content, with stamp and id where the table is of register rows.
#[derive(Clone, Copy)]
pub struct RowView<'a> {
    /// Stamp and id; `None` for merge rows.
    pub entry: Option<Entry>,
    /// The stored form that the table's owner chose.
    pub content: &'a [u8],
}

/// What stands between a merge row and a replica; see [`TableSchema::guard`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Guard {
    /// The register's table.
    pub table: TableId,
    /// The register.
    pub key: SortKey,
    /// The row's stamp, which counts as its ballot.
    pub stamp: Stamp,
}

/// A table, as declared by the crate that owns its rows.
pub trait TableSchema: Send + Sync {
    /// The fixed number.
    fn id(&self) -> TableId;
    /// The name in metrics and messages.
    fn name(&self) -> &'static str;
    /// How rows are written.
    fn discipline(&self) -> Discipline;
    /// Merges two stored forms of one row. Only called for [`Discipline::Merge`].
    fn merge(&self, held: &[u8], _new: &[u8]) -> Result<Vec<u8>, DecodeError> {
        Ok(held.to_vec())
    }
    /// The register that a row of a merge table belongs to, and the row's stamp: the row is refused while the register has promised a
    /// greater ballot, or holds no entry of its stamp or a later one. Only called for [`Discipline::Merge`]; `None`: the row stands for itself.
    fn guard(&self, _sort_key: &[u8], _row: &[u8]) -> Result<Option<Guard>, DecodeError> {
        Ok(None)
    }
    /// The stamps of rows beside a register that have what `own` wrote to it; part of what its prepare is answered with.
    fn kept(&self, _snapshot: &dyn Snapshot, _group: &Group, _sort_key: &[u8], _own: OwnWrite) -> Result<Vec<Stamp>, StoreError> {
        Ok(Vec::new())
    }
    /// Derived writes of a change, in its transaction.
    fn changed(&self, _transaction: &mut Transaction<'_>, _change: &RowChange<'_>) -> Result<(), StoreError> {
        Ok(())
    }
    /// The id under which companions of this row are kept; `None`: it has none.
    fn companion_id(&self, _row: RowView<'_>) -> Option<WriteId> {
        None
    }
    /// The ids of further companions of the same group that this one refers to, and without which its row is not whole.
    fn nested_companion_ids(&self, _companion: &Companion) -> Vec<WriteId> {
        Vec::new()
    }
    /// When the row began to say only that nothing is there, in milliseconds since 1970; `None`: it says more, and is never collected.
    fn tombstone_since_ms(&self, _sort_key: &[u8], _row: RowView<'_>) -> Option<u64> {
        None
    }
    /// A row of this table that says only that nothing is there; `None`: it has no such rows.
    fn tombstone(&self) -> Option<Vec<u8>> {
        None
    }
    /// Whether the content of a write of this register is kept anywhere beside its row, so that the write must not be fenced.
    fn is_held(&self, _snapshot: &dyn Snapshot, _group: &Group, _sort_key: &[u8], _id: WriteId) -> Result<bool, StoreError> {
        Ok(false)
    }
    /// Answers a query of this table's owner over a snapshot of the replica.
    fn query(&self, _snapshot: &dyn Snapshot, _group: &Group, _request: &[u8]) -> Result<Vec<u8>, StoreError> {
        Err(StoreError::BadRequest(format!("table {} answers no queries", self.name())))
    }
}

/// The content that counts for a row's hash: the stored form without its format byte.
pub fn canonical(content: &[u8]) -> &[u8] {
    content.split_first().map_or(&[], |(_, body)| body)
}

/// All tables of a node.
#[derive(Clone, Default)]
pub struct Schemas(BTreeMap<TableId, Arc<dyn TableSchema>>);

impl Schemas {
    /// The tables, each under its own number.
    ///
    /// # Panics
    /// When two tables claim one number: a mistake of the program, found at its first start.
    pub fn new(tables: impl IntoIterator<Item = Arc<dyn TableSchema>>) -> Schemas {
        let mut schemas = BTreeMap::new();
        for table in tables {
            let id = table.id();
            assert!(schemas.insert(id, table).is_none(), "two tables are numbered {id:?}");
        }
        Schemas(schemas)
    }
    /// The numbers of all tables, ascending.
    pub fn ids(&self) -> impl Iterator<Item = TableId> + '_ {
        self.0.keys().copied()
    }
    /// The table of a number; a request from a newer node may name one unknown here.
    pub fn get(&self, id: TableId) -> Result<&Arc<dyn TableSchema>, StoreError> {
        self.0.get(&id).ok_or_else(|| StoreError::BadRequest(format!("table {} is unknown to this release: upgrade this node", id.0)))
    }
    /// The table, if it is of the kind that an operation needs.
    pub fn of_kind(&self, id: TableId, discipline: Discipline) -> Result<&Arc<dyn TableSchema>, StoreError> {
        let table = self.get(id)?;
        if table.discipline() == discipline {
            Ok(table)
        } else {
            Err(StoreError::BadRequest(format!("table {} is not of {discipline:?} rows", table.name())))
        }
    }
}

/// The sort key as bytes, for hooks that index by it.
impl AsRef<[u8]> for SortKey {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
