//! What is derived from rows now and was not by earlier releases, made up for when a store of theirs is opened.
//!
//! The store notes the format of its derived entries; where the note is older, entries are made again from the rows, in steps that can be
//! cut off and begun anew.

use std::ops::Bound;

use garage_db::{Db, DbError, Direction, EngineError, TransactError, Transaction};
use garage_table::{
    Discipline, TableId,
    key::{after_prefix, split_local_key},
    keyspaces,
    schema::StoreError,
    store::held_row,
};
use garage_util::encoding::Stored;

use crate::{
    index,
    rows::{
        UPLOAD, VERSION,
        object::{VersionRow, split_slot},
        upload::{UploadRow, UploadSummary},
    },
    uploads::index::UnfinishedUpload,
};

/// Where the note lies in [`keyspaces::LOCAL`].
const KEY: &[u8] = b"derived";
/// 1: unfinished uploads are indexed, and which version has a content.
const FORMAT: u8 = 1;
/// Rows looked at in one transaction.
const STEP_ROWS: usize = 1000;

/// Why derived entries could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DerivedError {
    /// The store can't be read.
    #[error(transparent)]
    Read(#[from] DbError),
    /// The store can't be read.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The store can't be written, or holds a row that makes no sense.
    #[error(transparent)]
    Write(#[from] TransactError<StoreError>),
}

/// Makes up for what the release that wrote this store last did not derive. Costs one read of the rows, once.
pub async fn catch_up(db: &Db) -> Result<(), DerivedError> {
    let noted = db.read(|snapshot| snapshot.get(keyspaces::LOCAL, KEY)).await??;
    if noted.is_some_and(|noted| noted.first().is_some_and(|format| FORMAT <= *format)) {
        return Ok(());
    }
    match make_all(db).await {
        // A full disk is no reason not to start; what is missing is made at the next start.
        Err(DerivedError::Write(error @ TransactError::StorageFull { .. })) => {
            tracing::warn!(%error, "indexes that earlier releases did not keep could not be made");
            Ok(())
        }
        outcome => outcome,
    }
}

async fn make_all(db: &Db) -> Result<(), DerivedError> {
    if !db.is_new() {
        for table in [VERSION, UPLOAD] {
            let mut after = None;
            loop {
                let step = db.transact(move |transaction| make_some(transaction, table, after.as_deref())).await?;
                match step.value {
                    Some(last) => after = Some(last),
                    None => break,
                }
            }
        }
    }
    let note = |transaction: &mut Transaction<'_>| {
        transaction.put(keyspaces::LOCAL, KEY.to_vec(), vec![FORMAT]);
        Ok::<(), StoreError>(())
    };
    db.transact(note).await?;
    Ok(())
}

/// Makes the entries of the rows that follow; the last of those, or `None` when there are no more.
fn make_some(transaction: &mut Transaction<'_>, table: TableId, after: Option<&[u8]>) -> Result<Option<Vec<u8>>, StoreError> {
    let prefix = [table.0];
    let end = after_prefix(&prefix);
    let from = after.map_or(Bound::Included(&prefix[..]), Bound::Excluded);
    let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let rows: Result<Vec<_>, EngineError> = transaction.range(keyspaces::ROWS, from, to, Direction::Forward).take(STEP_ROWS).collect();
    let rows = rows?;
    let last = rows.last().map(|(key, _)| key.to_vec());
    for (local_key, stored) in rows {
        make_one(transaction, table, &local_key, &stored)?;
    }
    Ok(last)
}

fn make_one(transaction: &mut Transaction<'_>, table: TableId, local_key: &[u8], stored: &[u8]) -> Result<(), StoreError> {
    let row = held_row(Discipline::Register, stored)?;
    let (Some((_, group, sort_key)), Some(entry)) = (split_local_key(local_key), row.entry) else { return Ok(()) };
    if table == UPLOAD {
        let summary = UploadSummary::of(&UploadRow::from_stored(&row.content)?);
        index::set_upload(transaction, &group, &sort_key.0, summary.map(|summary| UnfinishedUpload { entry, summary }.to_stored()));
        return Ok(());
    }
    let version = VersionRow::from_stored(&row.content)?;
    if let Some((key, _)) = split_slot(&sort_key.0)
        && version.object().is_some()
    {
        index::put_content(transaction, &group, version.origin_as(entry).id, &key, version.slot());
    }
    Ok(())
}
