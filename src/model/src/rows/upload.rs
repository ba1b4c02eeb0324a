//! State of a multipart upload: open, then completing towards one version, then completed; or aborted.

use garage_rpc::register::{WriteId, slots::Slot};
use garage_table::{
    SortKey,
    key::{push_escaped, split_escaped},
};
use garage_util::{encoding::Stored, hlc::Stamp};
use serde::{Deserialize, Serialize};

use super::{
    bucket::Versioning,
    checksum::{ChecksumAlgorithm, ChecksumType, StoredChecksum},
    object::{ObjectHeaders, Retention},
};

garage_util::id32! {
    /// A multipart upload. Its first 8 bytes are the milliseconds of its initiation, so that ids sort by it.
    UploadId
}

/// An upload. A register row under (key, upload id).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UploadRow {
    /// When it was initiated, in milliseconds since 1970.
    pub initiated_ms: u64,
    /// The access key that initiated it.
    pub initiator: String,
    /// For the object to be.
    pub headers: ObjectHeaders,
    /// What the client asked for at initiation.
    #[serde(default)]
    pub checksum: Option<(ChecksumAlgorithm, ChecksumType)>,
    /// Whether the client named the checksum algorithm itself.
    #[serde(default)]
    pub checksum_explicit: bool,
    /// How far it is.
    pub state: UploadState,
}

impl Stored for UploadRow {
    const WHAT: &'static str = "multipart upload";
}

/// How far an upload is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum UploadState {
    /// Parts are taken.
    Open,
    /// A Complete was accepted: from now on it can only end in this version.
    Completing(Completion),
    /// The version was written. Kept for a day to answer repeats.
    Completed(Completion),
    /// Given up.
    Aborted,
}

/// What a Complete decided.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Completion {
    /// The version that the object gets.
    pub version: WriteId,
    /// A stamp below which the version is never written: whoever brings the completion to its end, the version is written once.
    #[serde(default)]
    pub first: Stamp,
    /// What the version may replace. Decided when the client's condition was tested, and never tested anew: what was replaced once
    /// never comes back, so a completion that can't be carried out by one can't be by anyone, ever.
    #[serde(default)]
    pub replaces: Replaces,
    /// How many parts it has. The list of them is kept beside the row, under the version's id.
    #[serde(default)]
    pub part_count: u32,
    /// Its ETag, without quotes.
    pub etag: String,
    /// Its size.
    pub size_bytes: u64,
    /// Its modification time, in milliseconds since 1970.
    pub modified_ms: u64,
    /// Its checksum.
    #[serde(default)]
    pub checksum: Option<StoredChecksum>,
    /// BLAKE3 over the list of parts that was completed, so that a repeat with another list is told apart.
    #[serde(with = "serde_bytes")]
    pub list_digest: [u8; 32],
    /// Of the bucket when it was decided: whoever brings the completion to its end writes the same row.
    #[serde(default)]
    pub versioning: Versioning,
    /// The retention that the version begins with.
    #[serde(default)]
    pub retention: Option<Retention>,
}

impl Completion {
    /// Which version it makes; `None` in a bucket without versioning.
    pub fn slot(&self) -> Option<Slot> {
        match self.versioning {
            Versioning::Off => None,
            Versioning::Enabled => Some(Slot::Id(self.version)),
            Versioning::Suspended => Some(Slot::Null),
        }
    }
}

/// What a version may replace.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Replaces {
    /// Whatever is there.
    #[default]
    Anything,
    /// A key that was never written.
    Nothing,
    /// This very version (or delete marker).
    Version(WriteId),
}

impl Replaces {
    /// Only this row, or none.
    pub fn only(newest: Option<WriteId>) -> Replaces {
        newest.map_or(Replaces::Nothing, Replaces::Version)
    }
    /// Whether the newest row is what may be replaced.
    pub fn allows(self, newest: Option<WriteId>) -> bool {
        self == Replaces::Anything || self == Replaces::only(newest)
    }
}

/// What listings show of an unfinished upload; kept in the local index.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UploadSummary {
    /// When it was initiated, in milliseconds since 1970.
    pub initiated_ms: u64,
    /// The access key that initiated it.
    pub initiator: String,
    /// `None`: STANDARD.
    #[serde(default)]
    pub storage_class: Option<String>,
    /// What the client asked for at initiation.
    #[serde(default)]
    pub checksum: Option<(ChecksumAlgorithm, ChecksumType)>,
    /// A Complete was accepted and not yet brought to its end.
    #[serde(default)]
    pub completing: bool,
}

impl UploadSummary {
    /// What is listed of an upload; `None`: it is over.
    pub fn of(row: &UploadRow) -> Option<UploadSummary> {
        let completing = match row.state {
            UploadState::Open => false,
            UploadState::Completing(_) => true,
            UploadState::Completed(_) | UploadState::Aborted => return None,
        };
        let UploadRow { initiated_ms, initiator, headers, checksum, .. } = row;
        let storage_class = headers.storage_class.clone();
        Some(UploadSummary { initiated_ms: *initiated_ms, initiator: initiator.clone(), storage_class, checksum: *checksum, completing })
    }
}

/// The sort key of an upload: the escaped key, then the id, so that uploads sort by key and then by initiation.
pub fn upload_key(key: &str, upload: UploadId) -> SortKey {
    let mut bytes = Vec::with_capacity(key.len() + 34);
    push_escaped(&mut bytes, key.as_bytes());
    bytes.extend_from_slice(upload.as_bytes());
    SortKey(bytes)
}

/// The object key and the upload in a sort key; `None` when it has another form.
pub fn split_upload_key(sort_key: &[u8]) -> Option<(Vec<u8>, UploadId)> {
    let (key, id) = split_escaped(sort_key)?;
    Some((key, UploadId(id.try_into().ok()?)))
}
