//! The tables: kind, merge, and the hooks that keep indexes and counters.

use std::sync::Arc;

use garage_block::reference::ReferenceTable;
use garage_db::{Snapshot, Transaction};
use garage_rpc::register::{
    Entry, OwnWrite, WriteId,
    slots::{self, Slot, SlotRow},
};
use garage_table::{
    Discipline, Group, RowChange, Schemas, TableId, TableSchema, keyspaces,
    message::Companion,
    schema::{Guard, RowView, StoreError},
    store::{merge_row, register_row},
};
use garage_util::{
    encoding::{DecodeError, Stored},
    hlc::Stamp,
    runtime::Runtime,
};

use crate::{
    index::{self, Delta, Head, HeadMarker, Older, Shown},
    listing::replica,
    objects::versions::is_live,
    rows::{
        ACME_ACCOUNT, ADMIN_TOKEN, ALIAS, BUCKET, CERTIFICATE, KEY, OLDER_VERSION, PART, UPLOAD, VERSION,
        object::{ObjectMeta, ObjectSummary, StoredSlot, VersionRow, VersionState, null_slot, slot_key, slot_of, split_slot},
        part::PartRow,
        payload::{PayloadChunk, chunk_of},
        upload::{UploadRow, UploadState, UploadSummary},
    },
    upkeep::deaths,
    uploads::index::{self as upload_index, UnfinishedUpload},
};

/// The control tables, which every node mirrors.
pub const CONTROL_TABLES: [TableId; 6] = [BUCKET, ALIAS, KEY, ADMIN_TOKEN, CERTIFICATE, ACME_ACCOUNT];

/// All tables of a node, whose clock tells the time of locks.
pub fn schemas(clock: Runtime) -> Schemas {
    let control = |(id, name)| -> Arc<dyn TableSchema> { Arc::new(ControlTable { id, name }) };
    let controls = [
        (BUCKET, "bucket"),
        (ALIAS, "bucket_alias"),
        (KEY, "key"),
        (ADMIN_TOKEN, "admin_token"),
        (CERTIFICATE, "certificate"),
        (ACME_ACCOUNT, "acme_account"),
    ]
    .map(control);
    let versions = VersionTable { clock };
    let data: [Arc<dyn TableSchema>; 5] =
        [Arc::new(versions), Arc::new(OlderVersionTable), Arc::new(UploadTable), Arc::new(PartTable), Arc::new(ReferenceTable)];
    Schemas::new(data.into_iter().chain(controls))
}

struct ControlTable {
    id: TableId,
    name: &'static str,
}
impl TableSchema for ControlTable {
    fn id(&self) -> TableId {
        self.id
    }
    fn name(&self) -> &'static str {
        self.name
    }
    fn discipline(&self) -> Discipline {
        Discipline::Register
    }
}

/// Versions of objects.
struct VersionTable {
    clock: Runtime,
}
impl TableSchema for VersionTable {
    fn id(&self) -> TableId {
        VERSION
    }
    fn name(&self) -> &'static str {
        "version"
    }
    fn discipline(&self) -> Discipline {
        Discipline::Register
    }
    fn companion_id(&self, row: RowView<'_>) -> Option<WriteId> {
        let version = VersionRow::from_stored(row.content).ok().filter(|version| version.object().is_some())?;
        row.entry.map(|entry| version.origin_as(entry).id)
    }
    fn nested_companion_ids(&self, companion: &Companion) -> Vec<WriteId> {
        part_ids(companion)
    }
    fn tombstone_since_ms(&self, sort_key: &[u8], row: RowView<'_>) -> Option<u64> {
        let is_null_slot = split_slot(sort_key).is_some_and(|(_, slot)| slot.is_empty());
        match VersionRow::from_stored(row.content) {
            Ok(VersionRow::DeleteMarker { modified_ms }) if is_null_slot => Some(modified_ms),
            _ => None,
        }
    }
    fn tombstone(&self) -> Option<Vec<u8>> {
        Some(VersionRow::DeleteMarker { modified_ms: 0 }.to_stored())
    }
    fn kept(&self, snapshot: &dyn Snapshot, group: &Group, sort_key: &[u8], own: OwnWrite) -> Result<Vec<Stamp>, StoreError> {
        let Some((key, _)) = split_slot(sort_key) else { return Ok(Vec::new()) };
        let own_row = older_row(snapshot, group, &key, Slot::Id(own.id))?;
        let null_row = older_row(snapshot, group, &key, Slot::Null)?;
        Ok(slots::kept(own, own_row.as_ref(), null_row.as_ref()))
    }
    fn changed(&self, transaction: &mut Transaction<'_>, change: &RowChange<'_>) -> Result<(), StoreError> {
        let (key, _) = split_slot(change.sort_key).ok_or_else(|| StoreError::BadRequest("a version row under a malformed key".into()))?;
        let read = |view: RowView<'_>| -> Result<_, StoreError> {
            let entry = view.entry.ok_or_else(|| StoreError::BadRequest("a version row without an entry".into()))?;
            Ok((entry, VersionRow::from_stored(view.content)?))
        };
        let old = change.old.map(read).transpose()?;
        let new = read(change.new)?;
        index_current(transaction, change.group, &key, old.as_ref(), &new)?;
        let heads = (old.as_ref().map(|(entry, row)| (*entry, row.to_head())), (new.0, new.1.to_head()));
        let old_head = heads.0.as_ref().map(|(entry, head)| (*entry, head));
        for (slot, row) in slots::accepted(old_head, (heads.1.0, &heads.1.1)) {
            merge_row(&OlderVersionTable, transaction, change.group, &slot_key(&key, slot), &StoredSlot(row).to_stored())?;
        }
        index_content(transaction, change.group, &key, old.as_ref(), &new)
    }
    fn is_held(&self, snapshot: &dyn Snapshot, group: &Group, _sort_key: &[u8], id: WriteId) -> Result<bool, StoreError> {
        Ok(is_live(snapshot, group, id)? == Some(true))
    }
    fn query(&self, snapshot: &dyn Snapshot, group: &Group, request: &[u8]) -> Result<Vec<u8>, StoreError> {
        replica::answer(snapshot, group, request, self.clock.now_ms())
    }
}

/// The parts whose own block lists the content in a companion consists of.
fn part_ids(companion: &Companion) -> Vec<WriteId> {
    match chunk_of(companion) {
        Ok(PayloadChunk::Parts { parts, .. }) => parts.iter().map(|part| part.id).collect(),
        _ => Vec::new(),
    }
}

type CurrentRow = (Entry, VersionRow);

/// Lists the current version, and counts it if it is an object.
fn index_current(
    transaction: &mut Transaction<'_>,
    group: &Group,
    key: &str,
    old: Option<&CurrentRow>,
    (entry, new): &CurrentRow,
) -> Result<(), StoreError> {
    let (slot, origin) = (new.slot(), new.origin_as(*entry));
    let is_kept = matches!(new, VersionRow::Kept(_));
    let head = |meta| Head { entry: *entry, summary: ObjectSummary::from(meta), slot, origin: is_kept.then_some(origin) };
    let head = new.object().map(head);
    let old_object = old.and_then(|(_, row)| row.object());
    if head.is_some() || old_object.is_some() {
        index::set_head(transaction, group, key, head.as_ref());
    }
    let marker = new.marker_ms().map(|modified_ms| HeadMarker { entry: *entry, slot, origin, modified_ms });
    if marker.is_some() || old.is_some_and(|(_, row)| row.marker_ms().is_some()) {
        index::set_marker(transaction, group, key, marker.as_ref());
    }
    let size = |meta: Option<&ObjectMeta>| meta.map_or(0, |meta| meta.size_bytes as i64);
    let objects = i64::from(new.object().is_some()) - i64::from(old_object.is_some());
    let bytes = size(new.object()) - size(old_object);
    Ok(index::add_to_counters(transaction, group, Delta { objects, bytes, uploads: 0 })?)
}

/// Notes which version has the content of the new row, and forgets that of the old one unless it is kept as an older version.
fn index_content(
    transaction: &mut Transaction<'_>,
    group: &Group,
    key: &str,
    old: Option<&CurrentRow>,
    (entry, new): &CurrentRow,
) -> Result<(), StoreError> {
    let content = new.origin_as(*entry).id;
    if let Some((old_entry, row)) = old.filter(|(_, row)| row.object().is_some()) {
        let (old_content, old_slot) = (row.origin_as(*old_entry).id, row.slot());
        if old_content != content && !is_older(transaction, group, key, old_slot, old_content)? {
            index::remove_content(transaction, group, old_content);
            deaths::note(transaction, group, old_content, entry.stamp);
        }
    }
    if new.object().is_some() {
        index::put_content(transaction, group, content, key, new.slot());
    }
    Ok(())
}

/// Whether an older version of a key has this content.
fn is_older(snapshot: &dyn Snapshot, group: &Group, key: &str, slot: Slot, content: WriteId) -> Result<bool, StoreError> {
    let row = older_row(snapshot, group, key, slot)?;
    Ok(row.is_some_and(|row| row.is_live() && row.origin.id == content))
}

/// The row of an older version, as this replica holds it.
pub fn older_row(snapshot: &dyn Snapshot, group: &Group, key: &str, slot: Slot) -> Result<Option<SlotRow<VersionState>>, StoreError> {
    let bytes = snapshot.get(keyspaces::ROWS, &group.local_key(OLDER_VERSION, &slot_key(key, slot).0))?;
    Ok(bytes.map(|bytes| StoredSlot::from_stored(&bytes)).transpose()?.map(|stored| stored.0))
}

/// The current version of a key, as this replica holds it.
pub fn current_row(snapshot: &dyn Snapshot, group: &Group, key: &str) -> Result<Option<CurrentRow>, StoreError> {
    let Some(held) = register_row(snapshot, group, VERSION, &null_slot(key).0)? else { return Ok(None) };
    let Some(entry) = held.entry else { return Ok(None) };
    Ok(Some((entry, VersionRow::from_stored(&held.content)?)))
}

/// Versions that are not current.
struct OlderVersionTable;
impl TableSchema for OlderVersionTable {
    fn id(&self) -> TableId {
        OLDER_VERSION
    }
    fn name(&self) -> &'static str {
        "older_version"
    }
    fn discipline(&self) -> Discipline {
        Discipline::Merge
    }
    fn merge(&self, held: &[u8], new: &[u8]) -> Result<Vec<u8>, DecodeError> {
        Ok(StoredSlot(slots::merge(StoredSlot::from_stored(held)?.0, StoredSlot::from_stored(new)?.0)).to_stored())
    }
    fn guard(&self, sort_key: &[u8], row: &[u8]) -> Result<Option<Guard>, DecodeError> {
        let Some((key, _)) = split_slot(sort_key) else { return Ok(None) };
        Ok(Some(Guard { table: VERSION, key: null_slot(&key), stamp: StoredSlot::from_stored(row)?.0.stamp }))
    }
    fn companion_id(&self, row: RowView<'_>) -> Option<WriteId> {
        let row = StoredSlot::from_stored(row.content).ok()?.0;
        row.content.as_ref().and_then(VersionState::object).map(|_| row.origin.id)
    }
    fn nested_companion_ids(&self, companion: &Companion) -> Vec<WriteId> {
        part_ids(companion)
    }
    fn changed(&self, transaction: &mut Transaction<'_>, change: &RowChange<'_>) -> Result<(), StoreError> {
        let malformed = || StoreError::BadRequest("an older version under a malformed key".into());
        let (key, rest) = split_slot(change.sort_key).ok_or_else(malformed)?;
        let slot = slot_of(rest).ok_or_else(malformed)?;
        let old = change.old.map(|old| StoredSlot::from_stored(old.content)).transpose()?.map(|stored| stored.0);
        let new = StoredSlot::from_stored(change.new.content)?.0;
        let content = |row: &SlotRow<VersionState>| row.content.as_ref().and_then(VersionState::object).map(|_| row.origin.id);
        if let Some(old) = old.filter(SlotRow::is_live) {
            index::remove_older(transaction, change.group, &key, old.origin, slot);
            let gone = content(&old).filter(|id| content(&new) != Some(*id));
            let current = current_row(transaction, change.group, &key)?;
            let current = current.filter(|(_, row)| row.object().is_some()).map(|(entry, row)| row.origin_as(entry).id);
            if let Some(gone) = gone.filter(|gone| current != Some(*gone)) {
                index::remove_content(transaction, change.group, gone);
                deaths::note(transaction, change.group, gone, new.stamp);
            }
        }
        if let Some(state) = &new.content {
            let older = Older { slot, origin: new.origin, stamp: new.stamp, shown: Shown::from(state) };
            index::put_older(transaction, change.group, &key, &older);
        }
        if let Some(content) = content(&new) {
            index::put_content(transaction, change.group, content, &key, slot);
        }
        Ok(())
    }
}

/// Multipart uploads.
struct UploadTable;
impl TableSchema for UploadTable {
    fn id(&self) -> TableId {
        UPLOAD
    }
    fn name(&self) -> &'static str {
        "multipart_upload"
    }
    fn discipline(&self) -> Discipline {
        Discipline::Register
    }
    /// A completion keeps the parts list of its version beside it, so that whoever finishes it writes the same.
    fn companion_id(&self, row: RowView<'_>) -> Option<WriteId> {
        match UploadRow::from_stored(row.content).ok()?.state {
            UploadState::Completing(completion) => Some(completion.version),
            UploadState::Open | UploadState::Completed(_) | UploadState::Aborted => None,
        }
    }
    fn changed(&self, transaction: &mut Transaction<'_>, change: &RowChange<'_>) -> Result<(), StoreError> {
        let summary = |view: RowView<'_>| Ok::<_, DecodeError>(UploadSummary::of(&UploadRow::from_stored(view.content)?));
        let old = change.old.map(summary).transpose()?.flatten();
        let new = summary(change.new)?;
        let uploads = i64::from(new.is_some()) - i64::from(old.is_some());
        if old.is_some() || new.is_some() {
            let listed = new.zip(change.new.entry).map(|(summary, entry)| UnfinishedUpload { entry, summary }.to_stored());
            index::set_upload(transaction, change.group, change.sort_key, listed);
        }
        Ok(index::add_to_counters(transaction, change.group, Delta { uploads, ..Delta::default() })?)
    }
    fn query(&self, snapshot: &dyn Snapshot, group: &Group, request: &[u8]) -> Result<Vec<u8>, StoreError> {
        upload_index::answer(snapshot, group, request)
    }
}

/// Parts of uploads.
struct PartTable;
impl TableSchema for PartTable {
    fn id(&self) -> TableId {
        PART
    }
    fn name(&self) -> &'static str {
        "part"
    }
    fn discipline(&self) -> Discipline {
        Discipline::Merge
    }
    fn merge(&self, held: &[u8], new: &[u8]) -> Result<Vec<u8>, DecodeError> {
        Ok(PartRow::merge(PartRow::from_stored(held)?, PartRow::from_stored(new)?).to_stored())
    }
    fn companion_id(&self, row: RowView<'_>) -> Option<WriteId> {
        PartRow::from_stored(row.content).ok().map(|row| row.id)
    }
}
