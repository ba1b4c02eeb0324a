//! State of a multipart upload: open, then completing towards one version, then completed; or aborted.

use garage_rpc::register::WriteId;
use garage_table::{SortKey, key::push_escaped};
use garage_util::{encoding::Stored, hlc::Stamp};
use serde::{Deserialize, Serialize};

use super::{
    checksum::{ChecksumAlgorithm, ChecksumKind, StoredChecksum},
    object::ObjectHeaders,
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
    pub checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
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
}

/// The sort key of an upload: the escaped key, then the id, so that uploads sort by key and then by initiation.
pub fn upload_key(key: &str, upload: UploadId) -> SortKey {
    let mut bytes = Vec::with_capacity(key.len() + 34);
    push_escaped(&mut bytes, key.as_bytes());
    bytes.extend_from_slice(upload.as_bytes());
    SortKey(bytes)
}
