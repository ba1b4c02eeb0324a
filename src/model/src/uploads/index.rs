//! The local index of unfinished uploads: what ListMultipartUploads pages through, so that uploads that are over cost it nothing.

use garage_db::Snapshot;
use garage_rpc::register::Entry;
use garage_table::{Group, key::push_escaped, schema::StoreError};
use garage_util::encoding::Stored;
use serde::{Deserialize, Serialize};

use crate::{
    index::uploads_prefix,
    paging::{Index, PageQuery, walk},
    rows::upload::{UploadSummary, split_upload_key},
};

/// An entry of the index, under the upload's sort key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UnfinishedUpload {
    /// Stamp and id of the upload's row.
    pub entry: Entry,
    /// What is shown of it.
    pub summary: UploadSummary,
}
impl Stored for UnfinishedUpload {
    const WHAT: &'static str = "upload index entry";
}

/// Uploads neither completed nor aborted, by key and then by initiation.
pub(super) struct UnfinishedUploads;

impl Index for UnfinishedUploads {
    type Value = UploadSummary;
    fn prefix(group: &Group) -> Vec<u8> {
        uploads_prefix(group)
    }
    fn positions_of(start: &[u8]) -> Vec<u8> {
        escaped_start(start)
    }
    fn key_of(position: &[u8]) -> Option<Vec<u8>> {
        split_upload_key(position).map(|(key, _)| key)
    }
    fn read(stored: &[u8]) -> Result<(Entry, UploadSummary), StoreError> {
        let UnfinishedUpload { entry, summary } = UnfinishedUpload::from_stored(stored)?;
        Ok((entry, summary))
    }
}

/// Answers a stored [`PageQuery`].
pub fn answer(snapshot: &dyn Snapshot, group: &Group, request: &[u8]) -> Result<Vec<u8>, StoreError> {
    Ok(walk::<UnfinishedUploads>(snapshot, group, &PageQuery::from_stored(request)?)?.to_stored())
}

/// What the escaped keys begin with that begin with `start`: the escape without its terminator.
pub(super) fn escaped_start(start: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    push_escaped(&mut bytes, start);
    bytes.truncate(bytes.len() - 2);
    bytes
}
