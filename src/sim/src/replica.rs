//! Looks into one replica's store: index, counters and digests must be what the rows say.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use garage_db::{Direction, Snapshot};
use garage_model::{
    index::{Counters, Head, counters, head_prefix, uploads_prefix},
    node::Node,
    rows::{
        UPLOAD, VERSION,
        object::{VersionRow, split_slot},
        upload::{UploadRow, UploadSummary},
    },
    uploads::index::UnfinishedUpload,
};
use garage_rpc::register::RegisterSide;
use garage_table::{
    Discipline, Group, SortKey, TableId,
    key::{after_prefix, sort_key_of},
    keyspaces,
    message::HeldRow,
    store::{held_row, register_row_hash},
};
use garage_util::encoding::Stored;

/// Checks one group; the first thing that is wrong.
pub fn check(snapshot: &dyn Snapshot, group: &Group) -> Result<(), String> {
    let versions = rows(snapshot, group, VERSION)?;
    let mut expected = Counters::default();
    let mut live = BTreeMap::new();
    for (sort_key, row) in &versions {
        let (key, _) = split_slot(&sort_key.0).ok_or("a version row under a malformed key")?;
        if let Some(meta) = VersionRow::from_stored(&row.content).map_err(text)?.object() {
            expected.objects += 1;
            expected.bytes += meta.size_bytes;
            live.insert(key.into_bytes(), row.entry);
        }
    }
    let mut unfinished = BTreeMap::new();
    for (sort_key, row) in rows(snapshot, group, UPLOAD)? {
        let upload = UploadRow::from_stored(&row.content).map_err(text)?;
        if let (Some(summary), Some(entry)) = (UploadSummary::of(&upload), row.entry) {
            unfinished.insert(sort_key.0, UnfinishedUpload { entry, summary });
        }
    }
    expected.uploads = unfinished.len() as u64;
    let listed = unfinished_uploads(snapshot, group)?;
    if listed != unfinished {
        return Err(format!("the upload index is {listed:?}, the rows say {unfinished:?}"));
    }
    let counted = counters(snapshot, group).map_err(text)?;
    if counted != expected {
        return Err(format!("the counters are {counted:?}, a recount gives {expected:?}"));
    }
    let indexed = heads(snapshot, group)?;
    if indexed != live {
        return Err(format!("the head index is {indexed:?}, the rows say {live:?}"));
    }
    let sum = versions.iter().fold(0u128, |sum, (key, row)| sum.wrapping_add(register_row_hash(group, VERSION, key, row)));
    let total = garage_table::digest::total(snapshot, VERSION, group).map_err(text)?;
    // Other groups of the same ring partition count in the same total, so only a lone group can be compared.
    let is_lone = scan(snapshot, keyspaces::ROWS, &[VERSION.0, group.hash()[0]])?.len() == versions.len();
    if is_lone && sum != total { Err(format!("the digest is {total:x}, the rows sum up to {sum:x}")) } else { Ok(()) }
}

/// The totals of the digests of these partitions at a node, over all tables.
pub async fn totals(node: &Node, partitions: BTreeSet<u8>) -> Vec<((TableId, u8), u128)> {
    let tables: Vec<TableId> = node.store.schemas().ids().collect();
    let read = node.db.read(move |snapshot| {
        let places = tables.iter().flat_map(|table| partitions.iter().map(|partition| (*table, *partition)));
        places
            .map(|place| (place, garage_table::digest::partition_total(snapshot, place.0, place.1).expect("a simulated store can be read")))
            .collect()
    });
    read.await.expect("a running node's store can be read")
}

/// Every row of a table in a digest partition, and what is kept beside it, as text to be compared and printed.
pub async fn contents(node: &Node, (table, partition): (TableId, u8)) -> BTreeMap<String, String> {
    let discipline = node.store.schemas().get(table).map_or(Discipline::Merge, |schema| schema.discipline());
    let read = node.db.read(move |snapshot| {
        let rows = snapshot.prefix(keyspaces::ROWS, &[table.0, partition], Direction::Forward).flatten();
        rows.map(|(key, value)| {
            let row = held_row(discipline, &value).expect("a simulated store is not damaged");
            let side = snapshot.get(keyspaces::REGISTER, &key).ok().flatten();
            let (key, side) = (blake3::hash(&key).to_hex(), side.map(|side| RegisterSide::from_stored(&side)));
            (format!("{}: {:?} of {} bytes", &key[..8], row.entry, row.content.len()), format!("{side:?}"))
        })
        .collect()
    });
    read.await.expect("a running node's store can be read")
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn rows(snapshot: &dyn Snapshot, group: &Group, table: TableId) -> Result<Vec<(SortKey, HeldRow)>, String> {
    let prefix = group.prefix(table);
    let row = |(key, value): (bytes::Bytes, bytes::Bytes)| {
        let row = held_row(Discipline::Register, &value).map_err(text)?;
        Ok((SortKey(sort_key_of(&key, prefix.len()).to_vec()), row))
    };
    scan(snapshot, keyspaces::ROWS, &prefix)?.into_iter().map(row).collect()
}

fn heads(snapshot: &dyn Snapshot, group: &Group) -> Result<BTreeMap<Vec<u8>, Option<garage_rpc::register::Entry>>, String> {
    let prefix = head_prefix(group);
    let head = |(key, value): (bytes::Bytes, bytes::Bytes)| {
        Ok((key[prefix.len()..].to_vec(), Some(Head::from_stored(&value).map_err(text)?.entry)))
    };
    scan(snapshot, keyspaces::INDEX, &prefix)?.into_iter().map(head).collect()
}

fn unfinished_uploads(snapshot: &dyn Snapshot, group: &Group) -> Result<BTreeMap<Vec<u8>, UnfinishedUpload>, String> {
    let prefix = uploads_prefix(group);
    let listed = |(key, value): (bytes::Bytes, bytes::Bytes)| {
        Ok((key[prefix.len()..].to_vec(), UnfinishedUpload::from_stored(&value).map_err(text)?))
    };
    scan(snapshot, keyspaces::INDEX, &prefix)?.into_iter().map(listed).collect()
}

fn scan(snapshot: &dyn Snapshot, keyspace: garage_db::Keyspace, prefix: &[u8]) -> Result<Vec<(bytes::Bytes, bytes::Bytes)>, String> {
    let end = after_prefix(prefix);
    let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    snapshot.range(keyspace, Bound::Included(prefix), to, Direction::Forward).collect::<Result<_, _>>().map_err(text)
}
