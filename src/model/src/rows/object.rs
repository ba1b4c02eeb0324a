//! Versions of objects: what HEAD answers, and the sort keys and summaries that LIST reads.

use garage_table::SortKey;
use garage_table::key::{push_escaped, split_escaped};
use garage_util::encoding::Stored;
use serde::{Deserialize, Serialize};

use super::checksum::StoredChecksum;

/// Bytes of an object key at the most; AWS S3 User Guide, "Naming objects".
pub const OBJECT_KEY_MAX_BYTES: usize = 1024;

/// The content of a version row. The version's id and stamp are the register entry's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum VersionRow {
    /// An object.
    Object(Box<ObjectMeta>),
    /// The key was deleted; in an unversioned bucket this is the tombstone.
    DeleteMarker {
        /// When, in milliseconds since 1970.
        modified_ms: u64,
    },
}

impl Stored for VersionRow {
    const WHAT: &'static str = "object version";
}

impl VersionRow {
    /// The object, unless it is a delete marker.
    pub fn object(&self) -> Option<&ObjectMeta> {
        match self {
            VersionRow::Object(meta) => Some(meta),
            VersionRow::DeleteMarker { .. } => None,
        }
    }
}

/// What is known of an object without reading its content.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ObjectMeta {
    /// Length of the content.
    pub size_bytes: u64,
    /// Without quotes; an MD5 in hex, with `-N` for N parts.
    pub etag: String,
    /// When it became visible, in milliseconds since 1970.
    pub modified_ms: u64,
    /// What the client gave.
    pub headers: ObjectHeaders,
    /// The checksum given or computed at upload.
    #[serde(default)]
    pub checksum: Option<StoredChecksum>,
    /// How many parts it was uploaded in; `None`: in one piece.
    #[serde(default)]
    pub part_count: Option<u32>,
}

/// Headers and labels that the client gives at upload and gets back.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ObjectHeaders {
    /// Standard headers (`content-type`, `cache-control`, …): lower-case name and value as sent, in order of names.
    pub standard: Vec<(String, String)>,
    /// `x-amz-meta-*`: the name after the prefix, lower-case, and the value's bytes as sent.
    pub user: Vec<(String, serde_bytes::ByteBuf)>,
    /// `None`: STANDARD.
    #[serde(default)]
    pub storage_class: Option<String>,
    /// `x-amz-website-redirect-location`.
    #[serde(default)]
    pub website_redirect: Option<String>,
}

/// What LIST shows of the newest live version of a key; kept in the local index.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ObjectSummary {
    /// Length of the content.
    pub size_bytes: u64,
    /// Without quotes.
    pub etag: String,
    /// In milliseconds since 1970.
    pub modified_ms: u64,
    /// `None`: STANDARD.
    #[serde(default)]
    pub storage_class: Option<String>,
    /// The checksum; LIST shows its algorithm and kind.
    #[serde(default)]
    pub checksum: Option<StoredChecksum>,
}

impl From<&ObjectMeta> for ObjectSummary {
    fn from(meta: &ObjectMeta) -> ObjectSummary {
        ObjectSummary {
            size_bytes: meta.size_bytes,
            etag: meta.etag.clone(),
            modified_ms: meta.modified_ms,
            storage_class: meta.headers.storage_class.clone(),
            checksum: meta.checksum.clone(),
        }
    }
}

/// The sort key of a key's null slot: the escaped key; a slot's id would follow it.
pub fn null_slot(key: &str) -> SortKey {
    let mut bytes = Vec::with_capacity(key.len() + 2);
    push_escaped(&mut bytes, key.as_bytes());
    SortKey(bytes)
}

/// The object key and slot in a sort key; `None` when it has another form.
pub fn split_slot(sort_key: &[u8]) -> Option<(String, &[u8])> {
    let (key, slot) = split_escaped(sort_key)?;
    Some((String::from_utf8(key).ok()?, slot))
}
