//! Versions of objects: what HEAD answers, and the sort keys and summaries that LIST reads.

use garage_rpc::register::{
    Entry,
    slots::{Effect, Head, Origin, Slot, SlotRow},
};
use garage_table::SortKey;
use garage_table::key::{push_escaped, split_escaped};
use garage_util::encoding::Stored;
use serde::{Deserialize, Serialize};

use super::{access::Tag, checksum::StoredChecksum};
use crate::{acl::Acl, encryption::Encryption};

/// Bytes of an object key at the most; AWS S3 User Guide, "Naming objects".
pub const OBJECT_KEY_MAX_BYTES: usize = 1024;

/// The content of a key's register: its current version. The first two forms are all that a bucket without versioning writes; the version's
/// id and stamp are then the register entry's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum VersionRow {
    /// An object in the null slot.
    Object(Box<ObjectMeta>),
    /// The null slot was emptied, and nothing is current: the tombstone of a bucket without versioning.
    DeleteMarker {
        /// When, in milliseconds since 1970.
        modified_ms: u64,
    },
    /// Whatever else: versions with ids, S3's delete markers, and rows written anew with other metadata.
    Kept(Box<KeptRow>),
}

/// A current version in a bucket that has versions, or had; `garage_rpc::register::slots::Head` in its stored form.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeptRow {
    /// The slot it fills.
    pub slot: Slot,
    /// `None`: the entry's own, as of a new version.
    #[serde(default)]
    pub origin: Option<Origin>,
    /// `None`: no version is current.
    pub state: Option<VersionState>,
    /// Changes of other versions of the key.
    #[serde(default)]
    pub effects: Vec<Effect<VersionState>>,
}

/// What a version is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum VersionState {
    /// An object.
    Object(Box<ObjectMeta>),
    /// S3's delete marker.
    DeleteMarker {
        /// When it was made, in milliseconds since 1970.
        modified_ms: u64,
    },
}

impl VersionState {
    /// The object, unless it is a delete marker.
    pub fn object(&self) -> Option<&ObjectMeta> {
        match self {
            VersionState::Object(meta) => Some(meta),
            VersionState::DeleteMarker { .. } => None,
        }
    }
    /// Last-Modified, in milliseconds since 1970.
    pub fn modified_ms(&self) -> u64 {
        match self {
            VersionState::Object(meta) => meta.modified_ms,
            VersionState::DeleteMarker { modified_ms } => *modified_ms,
        }
    }
}

impl Stored for VersionRow {
    const WHAT: &'static str = "object version";
}

impl VersionRow {
    /// The current object; `None` if there is none, or a delete marker.
    pub fn object(&self) -> Option<&ObjectMeta> {
        match self {
            VersionRow::Object(meta) => Some(meta),
            VersionRow::DeleteMarker { .. } => None,
            VersionRow::Kept(row) => row.state.as_ref().and_then(VersionState::object),
        }
    }
    /// S3's delete marker, if it is current: its Last-Modified in milliseconds since 1970.
    pub fn marker_ms(&self) -> Option<u64> {
        match self {
            VersionRow::Kept(row) => row.state.as_ref().filter(|state| state.object().is_none()).map(VersionState::modified_ms),
            _ => None,
        }
    }
    /// The slot it fills.
    pub fn slot(&self) -> Slot {
        if let VersionRow::Kept(row) = self { row.slot } else { Slot::Null }
    }
    /// Where the version comes from, when held as `entry`: its content is kept under the origin's id.
    pub fn origin_as(&self, entry: Entry) -> Origin {
        let own = Origin { order: entry.stamp, id: entry.id };
        if let VersionRow::Kept(row) = self { row.origin.unwrap_or(own) } else { own }
    }
    /// As the rules of slots see it.
    pub fn to_head(&self) -> Head<VersionState> {
        match self {
            VersionRow::Object(meta) => Head::new(Slot::Null, Some(VersionState::Object(meta.clone()))),
            VersionRow::DeleteMarker { .. } => Head::new(Slot::Null, None),
            VersionRow::Kept(row) => {
                let row = (**row).clone();
                Head { slot: row.slot, origin: row.origin, content: row.state, effects: row.effects }
            }
        }
    }
}

impl From<Head<VersionState>> for VersionRow {
    fn from(head: Head<VersionState>) -> VersionRow {
        VersionRow::Kept(Box::new(KeptRow { slot: head.slot, origin: head.origin, state: head.content, effects: head.effects }))
    }
}

/// Versions that are not current: a merge row under (key, slot). See `garage_rpc::register::slots`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StoredSlot(pub SlotRow<VersionState>);

impl Stored for StoredSlot {
    const WHAT: &'static str = "older object version";
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

impl ObjectMeta {
    /// Its tags.
    pub fn tags(&self) -> &[(String, String)] {
        &self.headers.tags
    }
}

/// What keeps a version from being deleted; AWS S3 User Guide, "Using S3 Object Lock".
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ObjectLock {
    /// Until when, and how strictly.
    #[serde(default)]
    pub retention: Option<Retention>,
    /// A legal hold; `None`: never set.
    #[serde(default)]
    pub legal_hold: Option<bool>,
}

/// Keeps a version until a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Retention {
    /// Who may end it before.
    pub mode: RetentionMode,
    /// In milliseconds since 1970.
    pub until_ms: u64,
}

/// Who may end a retention before its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RetentionMode {
    /// Whoever may bypass it and says so.
    Governance,
    /// Nobody.
    Compliance,
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
    /// What keeps the version from being deleted.
    #[serde(default)]
    pub lock: ObjectLock,
    /// In the order in which they were given.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// The access key that owns it; `None`: the bucket's owner does.
    #[serde(default)]
    pub owner: Option<String>,
    /// Its access control list; `None`: none was ever set.
    #[serde(default)]
    pub acl: Option<Acl>,
    /// How its content is encrypted; `None`: it is not.
    #[serde(default)]
    pub encryption: Option<Encryption>,
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
    /// The access key that owns it; `None`: the bucket's owner does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

impl From<&ObjectMeta> for ObjectSummary {
    fn from(meta: &ObjectMeta) -> ObjectSummary {
        ObjectSummary {
            size_bytes: meta.size_bytes,
            etag: meta.etag.clone(),
            modified_ms: meta.modified_ms,
            storage_class: meta.headers.storage_class.clone(),
            checksum: meta.checksum.clone(),
            owner: meta.headers.owner.clone(),
        }
    }
}

/// The sort key of a key's null slot: the escaped key; a slot's id would follow it.
pub fn null_slot(key: &str) -> SortKey {
    let mut bytes = Vec::with_capacity(key.len() + 2);
    push_escaped(&mut bytes, key.as_bytes());
    SortKey(bytes)
}

/// The sort key of a version that is not current.
pub fn slot_key(key: &str, slot: Slot) -> SortKey {
    let mut sort_key = null_slot(key);
    if let Slot::Id(id) = slot {
        sort_key.0.extend_from_slice(id.as_bytes());
    }
    sort_key
}

/// The slot in what follows the key in a sort key; `None` when it has another form.
pub fn slot_of(rest: &[u8]) -> Option<Slot> {
    if rest.is_empty() {
        return Some(Slot::Null);
    }
    rest.try_into().ok().map(|id| Slot::Id(garage_rpc::register::WriteId(id)))
}

/// The object key and slot in a sort key; `None` when it has another form.
pub fn split_slot(sort_key: &[u8]) -> Option<(String, &[u8])> {
    let (key, slot) = split_escaped(sort_key)?;
    Some((String::from_utf8(key).ok()?, slot))
}
