//! What travels between a coordinator and the replicas of a group: one call carries operations on several tables, answered one by one.

use garage_net::Class;
use garage_rpc::{
    Access, Message, StoreMark,
    register::{self, Entry, WriteId},
};
use garage_util::hlc::Stamp;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::key::{GroupKey, SortKey, TableId};

/// Operations in one call at the most.
pub const GROUP_OPS_MAX: usize = 1024;
/// Bytes of content in one call, unless a single operation has more; further operations go in further calls.
pub const CALL_BYTES_MAX: usize = 4 << 20;
/// Rows in one range answer at the most: more than a page of S3 has, and the one row after it that tells whether it is the last.
pub const RANGE_ROWS_MAX: usize = 1024;
/// Bytes of content in one range or companion answer, beyond which it is cut.
pub const ANSWER_BYTES_MAX: usize = 8 << 20;

/// A batch on one group: atomic at a replica, answered in order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GroupCall {
    /// Whose rows.
    pub group: GroupKey,
    /// At most [`GROUP_OPS_MAX`].
    pub ops: Vec<Op>,
}

/// A piece of what belongs to a row but is not in it: inline bytes or a block list. Immutable, written with the row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Companion {
    /// The version, part or upload it belongs to.
    pub id: WriteId,
    /// Counts from 0.
    pub chunk: u32,
    /// What it holds.
    pub content: ByteBuf,
}

/// Which companions of a row an answer brings along.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Want {
    /// Only the row.
    Row,
    /// Also its first companion.
    First,
    /// Also all of them, as far as [`ANSWER_BYTES_MAX`] goes.
    All,
}

/// One operation of a batch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Op {
    /// Merges a row of a merge table.
    Merge {
        /// The table.
        table: TableId,
        /// The row's place.
        key: SortKey,
        /// Its stored form.
        row: ByteBuf,
        /// Written if not there yet.
        companions: Vec<Companion>,
    },
    /// A message of the register rules.
    Register {
        /// The table.
        table: TableId,
        /// The register.
        key: SortKey,
        /// What is asked.
        message: register::Message,
        /// The row's content; with an apply.
        content: Option<ByteBuf>,
        /// With an apply; written if the row is held afterwards.
        companions: Vec<Companion>,
        /// What the answer brings along.
        want: Want,
    },
    /// Reads one row of a merge table.
    Read {
        /// The table.
        table: TableId,
        /// The row's place.
        key: SortKey,
    },
    /// Reads rows in order.
    Range {
        /// The table.
        table: TableId,
        /// The first sort key that may come.
        from: SortKey,
        /// The first that may not; `None`: to the end of the group.
        to: Option<SortKey>,
        /// Rows at the most, capped at [`RANGE_ROWS_MAX`].
        limit: u32,
    },
    /// Reads companions of one id in order of their chunks.
    Companions {
        /// Whose.
        id: WriteId,
        /// The first chunk wanted.
        from_chunk: u32,
        /// Chunks at the most.
        limit: u32,
    },
    /// A query that the table's owner defines.
    Query {
        /// The table.
        table: TableId,
        /// The owner's request.
        request: ByteBuf,
    },
    /// Refuse a write of a register from now on, or no longer.
    Fence {
        /// The table.
        table: TableId,
        /// The register.
        key: SortKey,
        /// The write.
        id: WriteId,
        /// A fresh stamp; fences that are old by it are dropped.
        now: Stamp,
        /// Take the fence away instead.
        lift: bool,
    },
}

impl Op {
    /// Whether it changes nothing at the replica.
    pub fn is_read(&self) -> bool {
        match self {
            Op::Merge { .. } | Op::Fence { .. } => false,
            Op::Register { message, .. } => matches!(message, register::Message::Query),
            Op::Read { .. } | Op::Range { .. } | Op::Companions { .. } | Op::Query { .. } => true,
        }
    }
}

/// A row as a replica holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldRow {
    /// Stamp and id; `None` for merge rows.
    pub entry: Option<Entry>,
    /// The stored form.
    pub content: ByteBuf,
}

/// The answer to one operation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum OpAnswer {
    /// Merged, durable.
    Merged,
    /// Not merged: the register that the row belongs to has promised a greater ballot, which a round on it settles; or it lacks the entry that
    /// the row follows from, which comes by itself.
    Guarded,
    /// To a register message.
    Register {
        /// By the rules.
        answer: register::Answer,
        /// The row held after the operation, unless the answer says that it is the one just sent.
        row: Option<HeldRow>,
        /// As wanted.
        companions: Vec<Companion>,
    },
    /// To a read.
    Row(Option<HeldRow>),
    /// To a range: the rows in order, and whether more may follow.
    Rows {
        /// In order of their keys.
        rows: Vec<(SortKey, HeldRow)>,
        /// True when the limit cut it.
        truncated: bool,
    },
    /// To a companion read; chunks that this replica lacks are missing.
    Companions(Vec<Companion>),
    /// To a query of the table's owner.
    Query(ByteBuf),
    /// To a fence: whether the write is refused from now on; false when it is held, or the fence was lifted.
    Fenced(bool),
}

/// The answers to a batch, in order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GroupAnswer {
    /// The replica's store and how far it is durable.
    pub mark: StoreMark,
    /// One for each operation.
    pub answers: Vec<OpAnswer>,
}

impl Message for GroupCall {
    const KIND: &'static str = "table/group";
    const CLASS: Class = Class::Metadata;
    const ACCESS: Access = Access::Member;
    type Answer = GroupAnswer;
}
