//! What a replica answers about its rows, over one snapshot.

use std::ops::Bound;

use garage_db::{Direction, Snapshot};
use garage_rpc::StoreMark;
use garage_util::hlc::Stamp;
use serde_bytes::ByteBuf;

use super::{
    compare::part_sums,
    message::{
        CompareLeaves, CompareTotals, FetchRows, FetchedRows, LeafContent, LeavesAnswer, ListParts, ListSides, PartsAnswer, SideOf,
        SidesPage, SyncRow, TotalsAnswer, pack_rows, pack_sums, unpack_keys, unpack_sums,
    },
};
use crate::{
    digest::{self, KeyHash, LEAF_COUNT, Leaf},
    key::{TableId, split_local_key},
    keyspaces,
    limits::{LEAF_LISTED_ROWS_MAX, LEAVES_ANSWER_BYTES_MAX, PARTS_PER_CALL_MAX, SIDES_PER_PAGE_MAX, SYNC_BYTES_MAX, SYNC_ROWS_MAX},
    message::ANSWER_BYTES_MAX,
    schema::{RowView, Schemas, StoreError},
    store::{companions, held_row, held_stamp, partition_floor, side_of},
};

/// The question about the totals of `partitions` (ascending) over all tables.
pub fn totals(snapshot: &dyn Snapshot, schemas: &Schemas, partitions: &[u8]) -> Result<CompareTotals, StoreError> {
    let mut totals = Vec::new();
    for table in schemas.ids() {
        let sums: Result<Vec<u128>, _> = partitions.iter().map(|partition| digest::partition_total(snapshot, table, *partition)).collect();
        totals.push((table, pack_sums(sums?)));
    }
    Ok(CompareTotals { partitions: ByteBuf::from(partitions), totals })
}

/// Which of the totals differ here; tables that are not known here differ from nothing.
pub fn compare_totals(
    snapshot: &dyn Snapshot,
    schemas: &Schemas,
    mark: StoreMark,
    question: &CompareTotals,
) -> Result<TotalsAnswer, StoreError> {
    let mut differing = Vec::new();
    for (table, totals) in &question.totals {
        if schemas.get(*table).is_err() {
            continue;
        }
        for (partition, total) in question.partitions.iter().zip(unpack_sums(totals)) {
            if digest::partition_total(snapshot, *table, *partition)? != total {
                differing.push((*table, *partition));
            }
        }
    }
    Ok(TotalsAnswer { mark, differing, incomplete: ByteBuf::new() })
}

/// What the leaves hold whose sums differ here.
pub fn compare_leaves(snapshot: &dyn Snapshot, question: &CompareLeaves) -> Result<LeavesAnswer, StoreError> {
    let own = digest::leaf_sums(snapshot, question.table, question.partition)?;
    let floor = partition_floor(snapshot, question.table, question.partition)?;
    let (mut leaves, mut size_bytes) = (Vec::new(), 0);
    let asked = own.iter().zip(0u16..).skip(usize::from(question.from_leaf)).zip(unpack_sums(&question.sums));
    for ((sum, leaf), theirs) in asked {
        if *sum == theirs {
            continue;
        }
        if LEAVES_ANSWER_BYTES_MAX <= size_bytes {
            return Ok(LeavesAnswer { leaves, next_leaf: Some(leaf), floor });
        }
        let rows = digest::leaf_rows(snapshot, Leaf { table: question.table, partition: question.partition, leaf })?;
        let content = if rows.len() <= LEAF_LISTED_ROWS_MAX {
            LeafContent::Rows { leaf, rows: pack_rows(&rows) }
        } else {
            LeafContent::Parts { leaf, sums: pack_sums(part_sums(&rows)) }
        };
        size_bytes += match &content {
            LeafContent::Rows { rows: bytes, .. } | LeafContent::Parts { sums: bytes, .. } => bytes.len() + 32,
        };
        leaves.push(content);
    }
    Ok(LeavesAnswer { leaves, next_leaf: None, floor })
}

/// The rows in parts of leaves.
pub fn list_parts(snapshot: &dyn Snapshot, question: &ListParts) -> Result<PartsAnswer, StoreError> {
    if PARTS_PER_CALL_MAX < question.parts.len() {
        return Err(StoreError::BadRequest(format!("{} leaves in one question, the limit is {PARTS_PER_CALL_MAX}", question.parts.len())));
    }
    let mut found = Vec::new();
    for (leaf, mask) in &question.parts {
        if usize::from(*leaf) < LEAF_COUNT {
            found.extend(rows_in_parts(snapshot, question.table, question.partition, *leaf, *mask)?);
        }
    }
    Ok(PartsAnswer { rows: pack_rows(&found) })
}

/// The rows of a leaf in the parts whose bits are set.
pub fn rows_in_parts(
    snapshot: &dyn Snapshot,
    table: TableId,
    partition: u8,
    leaf: u16,
    mask: u64,
) -> Result<Vec<(KeyHash, digest::RowHash)>, StoreError> {
    let mut rows = digest::leaf_rows(snapshot, Leaf { table, partition, leaf })?;
    rows.retain(|(key, _)| mask >> key.part() & 1 == 1);
    Ok(rows)
}

/// Rows by their key hashes, as many as fit in one answer.
pub fn fetch_rows(snapshot: &dyn Snapshot, schemas: &Schemas, question: &FetchRows) -> Result<FetchedRows, StoreError> {
    let (mut rows, mut size_bytes, mut answered_count) = (Vec::new(), 0, 0);
    for key in unpack_keys(&question.keys).take(SYNC_ROWS_MAX) {
        if SYNC_BYTES_MAX <= size_bytes {
            break;
        }
        answered_count += 1;
        if let Some(row) = row_of(snapshot, schemas, question.table, question.partition, key)? {
            size_bytes += row.len_bytes();
            rows.push(row);
        }
    }
    Ok(FetchedRows { rows, answered_count })
}

/// A row with its companions; `None`: it is not held any more.
pub fn row_of(
    snapshot: &dyn Snapshot,
    schemas: &Schemas,
    table: TableId,
    partition: u8,
    key: KeyHash,
) -> Result<Option<SyncRow>, StoreError> {
    let schema = schemas.get(table)?;
    let Some((_, local_key)) = digest::indexed_row(snapshot, table, partition, key)? else { return Ok(None) };
    let Some((_, group, sort_key)) = split_local_key(&local_key) else { return Ok(None) };
    let Some(bytes) = snapshot.get(keyspaces::ROWS, &local_key)? else { return Ok(None) };
    let row = held_row(schema.discipline(), &bytes)?;
    let (mut own, mut has_more) = (Vec::new(), false);
    if let Some(id) = schema.companion_id(RowView { entry: row.entry, content: &row.content }) {
        own = companions(snapshot, &group, id, 0, u32::MAX)?;
        has_more = ANSWER_BYTES_MAX <= own.iter().map(|companion| companion.content.len()).sum();
    }
    Ok(Some(SyncRow { group: group.key().clone(), key: sort_key, row, companions: own, has_more }))
}

/// A page of what is kept beside the registers of some tables in some partitions.
pub fn list_sides(snapshot: &dyn Snapshot, question: &ListSides) -> Result<SidesPage, StoreError> {
    let mut page = SidesPage { floors: Vec::new(), is_incomplete: false, sides: Vec::new(), truncated: false };
    for (table, partition) in question.tables.iter().flat_map(|table| question.partitions.iter().map(|partition| (*table, *partition))) {
        let prefix = [table.0, partition];
        // What comes before the place where the last page ended was listed whole.
        if question.after.get(..prefix.len()).is_some_and(|ended_in| prefix[..] < *ended_in) {
            continue;
        }
        let floor = partition_floor(snapshot, table, partition)?;
        if floor != Stamp::ZERO {
            page.floors.push((table, partition, floor));
        }
        let start = if question.after.starts_with(&prefix) { [&question.after[..], &[0]].concat() } else { prefix.to_vec() };
        let end = garage_db::engine::prefix_end(&prefix);
        let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        for item in snapshot.range(keyspaces::REGISTER, Bound::Included(&start), to, Direction::Forward) {
            if page.sides.len() == SIDES_PER_PAGE_MAX {
                return Ok(SidesPage { truncated: true, ..page });
            }
            let (key, value) = item?;
            // The partition's floor lies under the prefix itself.
            if key.len() == prefix.len() {
                continue;
            }
            let side = side_of(&value)?;
            let row = held_stamp(snapshot, &key)?;
            page.sides.push(SideOf {
                local_key: ByteBuf::from(key.to_vec()),
                promise: side.promise(),
                superseded: side.superseded(),
                row,
                fences: side.fences().to_vec(),
            });
        }
    }
    Ok(page)
}
