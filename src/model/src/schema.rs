//! The tables: kind, merge, and the hooks that keep indexes and counters.

use std::sync::Arc;

use garage_block::reference::ReferenceTable;
use garage_db::{Snapshot, Transaction};
use garage_rpc::register::WriteId;
use garage_table::{
    Discipline, Group, RowChange, Schemas, TableId, TableSchema,
    schema::{RowView, StoreError},
};
use garage_util::encoding::{DecodeError, Stored};

use crate::{
    index::{self, Delta, Head},
    listing::replica,
    rows::{
        ADMIN_TOKEN, ALIAS, BUCKET, KEY, PART, UPLOAD, VERSION,
        object::{ObjectSummary, VersionRow, split_slot},
        part::PartRow,
        upload::{UploadRow, UploadState},
    },
};

/// The control tables, which every node mirrors.
pub const CONTROL_TABLES: [TableId; 4] = [BUCKET, ALIAS, KEY, ADMIN_TOKEN];

/// All tables of a node.
pub fn schemas() -> Schemas {
    let control = |(id, name)| -> Arc<dyn TableSchema> { Arc::new(ControlTable { id, name }) };
    let controls = [(BUCKET, "bucket"), (ALIAS, "bucket_alias"), (KEY, "key"), (ADMIN_TOKEN, "admin_token")].map(control);
    let data: [Arc<dyn TableSchema>; 4] = [Arc::new(VersionTable), Arc::new(UploadTable), Arc::new(PartTable), Arc::new(ReferenceTable)];
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
struct VersionTable;
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
        let is_object = VersionRow::from_stored(row.content).is_ok_and(|row| row.object().is_some());
        row.entry.filter(|_| is_object).map(|entry| entry.id)
    }
    fn changed(&self, transaction: &mut Transaction<'_>, change: &RowChange<'_>) -> Result<(), StoreError> {
        let (key, _slot) =
            split_slot(change.sort_key).ok_or_else(|| StoreError::BadRequest("a version row under a malformed key".into()))?;
        let old = change.old.map(|old| VersionRow::from_stored(old.content)).transpose()?;
        let new = VersionRow::from_stored(change.new.content)?;
        let (old, new) = (old.as_ref().and_then(VersionRow::object), new.object());
        let head = change.new.entry.zip(new).map(|(entry, meta)| Head { entry, summary: ObjectSummary::from(meta) });
        if head.is_some() || old.is_some() {
            index::set_head(transaction, change.group, &key, head.as_ref());
        }
        let size = |meta: Option<&crate::rows::object::ObjectMeta>| meta.map_or(0, |meta| meta.size_bytes as i64);
        let objects = i64::from(new.is_some()) - i64::from(old.is_some());
        index::add_to_counters(transaction, change.group, Delta { objects, bytes: size(new) - size(old), uploads: 0 })?;
        Ok(())
    }
    fn query(&self, snapshot: &dyn Snapshot, group: &Group, request: &[u8]) -> Result<Vec<u8>, StoreError> {
        replica::answer(snapshot, group, request)
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
    fn changed(&self, transaction: &mut Transaction<'_>, change: &RowChange<'_>) -> Result<(), StoreError> {
        let unfinished = |view: RowView<'_>| -> Result<i64, DecodeError> {
            let row = UploadRow::from_stored(view.content)?;
            Ok(i64::from(matches!(row.state, UploadState::Open | UploadState::Completing(_))))
        };
        let old = change.old.map(unfinished).transpose()?.unwrap_or(0);
        let uploads = unfinished(change.new)? - old;
        Ok(index::add_to_counters(transaction, change.group, Delta { uploads, ..Delta::default() })?)
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
