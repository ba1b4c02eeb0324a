//! What two replicas say to each other to become equal. All of it in the background class, all of it bounded.
//!
//! Sums, hashes and key hashes travel as runs of 16 bytes: there are many, and MessagePack would double them.

use garage_net::Class;
use garage_rpc::{Access, Message, StoreMark, register::Entry};
use garage_util::hlc::Stamp;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::{
    digest::{KeyHash, RowHash},
    key::{GroupKey, SortKey, TableId},
    message::{Companion, HeldRow},
};

/// Compares the totals of partitions: which of them differ at the one who is asked?
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CompareTotals {
    /// Digest partitions, ascending.
    pub partitions: ByteBuf,
    /// For each table the totals of those partitions, 16 bytes each, little-endian.
    pub totals: Vec<(TableId, ByteBuf)>,
}

/// The partitions that differ.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TotalsAnswer {
    /// The answerer's store and how far it is durable.
    pub mark: StoreMark,
    /// In the order of the question.
    pub differing: Vec<(TableId, u8)>,
    /// Those of the partitions asked about that the answerer does not hold whole, ascending: it vouches for nothing in them.
    #[serde(default)]
    pub incomplete: ByteBuf,
}

/// Compares the leaves of one partition from `from_leaf` on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CompareLeaves {
    /// The table.
    pub table: TableId,
    /// The digest partition.
    pub partition: u8,
    /// The first leaf to compare.
    pub from_leaf: u16,
    /// The sums of all leaves from there on, 16 bytes each.
    pub sums: ByteBuf,
}

/// What differing leaves hold.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LeavesAnswer {
    /// Ascending.
    pub leaves: Vec<LeafContent>,
    /// Where to go on; `None`: all were compared.
    pub next_leaf: Option<u16>,
    /// The answerer's floor of dropped tombstones in this partition: what it lacks at or below that was dropped rather than missed.
    #[serde(default)]
    pub floor: Stamp,
}

/// What one replica holds in a leaf.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum LeafContent {
    /// All its rows: (key hash, row hash), 32 bytes each.
    Rows {
        /// The leaf.
        leaf: u16,
        /// In order of key hashes.
        rows: ByteBuf,
    },
    /// It has many: the sums of its parts, 16 bytes each.
    Parts {
        /// The leaf.
        leaf: u16,
        /// One for each part.
        sums: ByteBuf,
    },
}

/// Lists the rows in parts of leaves.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ListParts {
    /// The table.
    pub table: TableId,
    /// The digest partition.
    pub partition: u8,
    /// Leaves, each with a bit for each part that is asked for.
    pub parts: Vec<(u16, u64)>,
}

/// The rows in those parts: (key hash, row hash), 32 bytes each.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PartsAnswer {
    /// In order of leaves and key hashes.
    pub rows: ByteBuf,
}

/// Asks for rows by their key hashes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FetchRows {
    /// The table.
    pub table: TableId,
    /// The digest partition.
    pub partition: u8,
    /// Key hashes, 16 bytes each.
    pub keys: ByteBuf,
}

/// Rows as asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FetchedRows {
    /// Those that are still held, in the order of the question.
    pub rows: Vec<SyncRow>,
    /// How many key hashes these rows answer; the others are to be asked for again.
    pub answered_count: u32,
}

/// A row on its way to another replica.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SyncRow {
    /// The partition key.
    pub group: GroupKey,
    /// The sort key.
    pub key: SortKey,
    /// Stamp, id and content.
    pub row: HeldRow,
    /// Companions of the row, as far as they fit.
    pub companions: Vec<Companion>,
    /// Whether there are more companions than came along.
    #[serde(default)]
    pub has_more: bool,
}

/// Brings rows that the one who is asked lacks, or holds older.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GiveRows {
    /// The table.
    pub table: TableId,
    /// The rows.
    pub rows: Vec<SyncRow>,
    /// Whether the giver does not hold the partition any more: what it has left may be older than tombstones that were dropped since.
    #[serde(default)]
    pub are_left_over: bool,
}

/// What became of the rows, in their order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GivenRows {
    /// The receiver's store and how far it is durable.
    pub mark: StoreMark,
    /// One for each row.
    pub taken: Vec<Taken>,
}

/// What became of a row that came from another replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Taken {
    /// It is held now, as it came.
    Held,
    /// What is held knows more.
    Outrun,
    /// A promise stands against it: only a round may bring it past that.
    Promised,
    /// It belongs to a register whose promise stands against it, until that is forgotten.
    Guarded,
}

/// Lists what is kept beside the registers of these tables in these partitions, in order of local keys. One question for all of them:
/// most have little or nothing to tell, and a node that moves in asks about every one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ListSides {
    /// The tables, ascending.
    pub tables: Vec<TableId>,
    /// Digest partitions, ascending.
    pub partitions: ByteBuf,
    /// Only local keys above this one; empty: from the beginning.
    pub after: ByteBuf,
}

/// A page of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SidesPage {
    /// The answerer's floors of dropped tombstones, where there are any, of all that this page is about.
    pub floors: Vec<(TableId, u8, Stamp)>,
    /// Whether the answerer does not hold some of the partitions whole, and so can't vouch for this.
    #[serde(default)]
    pub is_incomplete: bool,
    /// In order.
    pub sides: Vec<SideOf>,
    /// Whether more follow.
    pub truncated: bool,
}

/// What a replica remembers of a register, as another takes it over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SideOf {
    /// The register's local key.
    pub local_key: ByteBuf,
    /// The highest ballot promised.
    pub promise: Stamp,
    /// The greatest stamp of what was superseded or forgotten there.
    pub superseded: Stamp,
    /// The stamp of the row that is held there.
    #[serde(default)]
    pub row: Stamp,
    /// The writes that are refused for ever there, each with the time of its fence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fences: Vec<Entry>,
}

/// In which partitions do answers of yours not count?
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AskStanding {}

/// Where answers count.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StandingAnswer {
    /// Digest partitions in which they do not, ascending.
    pub incomplete: ByteBuf,
}

/// Asks every holder whether it holds exactly these tombstones.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConfirmTombstones {
    /// The table.
    pub table: TableId,
    /// The digest partition.
    pub partition: u8,
    /// (key hash, row hash), 32 bytes each.
    pub rows: ByteBuf,
}

/// Drops tombstones that every holder confirmed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DropTombstones {
    /// The table.
    pub table: TableId,
    /// The digest partition.
    pub partition: u8,
    /// (key hash, row hash), 32 bytes each.
    pub rows: ByteBuf,
}

/// Which of the rows were as asked: one byte for each, 1 if so.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TombstonesAnswer {
    /// In the order of the question.
    pub are_exact: ByteBuf,
}

macro_rules! background {
    ($($message:ty => $answer:ty, $kind:literal;)*) => {$(
        impl Message for $message {
            const KIND: &'static str = $kind;
            const CLASS: Class = Class::Background;
            const ACCESS: Access = Access::Member;
            type Answer = $answer;
        }
    )*};
}
background! {
    CompareTotals => TotalsAnswer, "table/compare_totals";
    CompareLeaves => LeavesAnswer, "table/compare_leaves";
    ListParts => PartsAnswer, "table/list_parts";
    FetchRows => FetchedRows, "table/fetch_rows";
    GiveRows => GivenRows, "table/give_rows";
    ListSides => SidesPage, "table/list_sides";
    AskStanding => StandingAnswer, "table/ask_standing";
    ConfirmTombstones => TombstonesAnswer, "table/confirm_tombstones";
    DropTombstones => TombstonesAnswer, "table/drop_tombstones";
}

impl SyncRow {
    /// The stamp and id, of a register row.
    pub fn entry(&self) -> Option<Entry> {
        self.row.entry
    }
    /// Bytes that it holds, about.
    pub fn len_bytes(&self) -> usize {
        let companions: usize = self.companions.iter().map(|companion| companion.content.len() + 48).sum();
        self.group.0.len() + self.key.0.len() + self.row.content.len() + companions + 64
    }
}

/// Numbers as a run of 16 bytes each.
pub fn pack_sums(sums: impl IntoIterator<Item = u128>) -> ByteBuf {
    ByteBuf::from(sums.into_iter().flat_map(u128::to_le_bytes).collect::<Vec<u8>>())
}

/// The numbers in a run; a rest that is no number is left out.
pub fn unpack_sums(bytes: &[u8]) -> impl ExactSizeIterator<Item = u128> + '_ {
    bytes.as_chunks::<16>().0.iter().map(|chunk| u128::from_le_bytes(*chunk))
}

/// Rows by their hashes, as a run of 32 bytes each.
pub fn pack_rows<'a>(rows: impl IntoIterator<Item = &'a (KeyHash, RowHash)>) -> ByteBuf {
    ByteBuf::from(rows.into_iter().flat_map(|(key, row)| [key.0, row.0.to_le_bytes()]).flatten().collect::<Vec<u8>>())
}

/// The rows in a run.
pub fn unpack_rows(bytes: &[u8]) -> impl ExactSizeIterator<Item = (KeyHash, RowHash)> + '_ {
    bytes.as_chunks::<32>().0.iter().map(|chunk| {
        let (mut key, mut row) = ([0; 16], [0; 16]);
        key.copy_from_slice(&chunk[..16]);
        row.copy_from_slice(&chunk[16..]);
        (KeyHash(key), RowHash(u128::from_le_bytes(row)))
    })
}

/// Key hashes as a run of 16 bytes each.
pub fn pack_keys(keys: &[KeyHash]) -> ByteBuf {
    ByteBuf::from(keys.iter().flat_map(|key| key.0).collect::<Vec<u8>>())
}

/// The key hashes in a run.
pub fn unpack_keys(bytes: &[u8]) -> impl ExactSizeIterator<Item = KeyHash> + '_ {
    bytes.as_chunks::<16>().0.iter().map(|chunk| KeyHash(*chunk))
}
