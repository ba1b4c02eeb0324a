//! Buckets and their global names.

use std::collections::{BTreeMap, BTreeSet};

use garage_util::encoding::Stored;
use serde::{Deserialize, Serialize};

use super::{
    BucketId,
    rules::{CorsRule, RoutingRule},
};

/// A bucket. A register row of the control tables, under its id.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BucketRow {
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// Live, being deleted, or gone.
    pub state: BucketState,
    /// How its index is sharded.
    pub shards: ShardCount,
    /// Global names that lead here.
    pub global_aliases: BTreeSet<String>,
    /// Names in the name space of one key: key id to names.
    #[serde(default)]
    pub local_aliases: BTreeMap<String, BTreeSet<String>>,
    /// What each key may do here.
    #[serde(default)]
    pub permissions: BTreeMap<String, Permissions>,
    /// Limits on its content.
    #[serde(default)]
    pub quotas: Quotas,
    /// Website settings, if it is one.
    #[serde(default)]
    pub website: Option<Website>,
    /// What scripts of other sites may do; the first rule that matches counts.
    #[serde(default)]
    pub cors: Vec<CorsRule>,
}

impl Stored for BucketRow {
    const WHAT: &'static str = "bucket";
}

/// Live, being deleted, or gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum BucketState {
    /// In use.
    Live,
    /// Takes no writes while it is checked to be empty.
    Deleting,
    /// Gone.
    Deleted,
}

/// The number of shards of a bucket's index: a power of two, fixed at creation; `target` differs while it is re-sharded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ShardCount {
    /// Where rows are now.
    pub current: u16,
    /// Where they are to be.
    pub target: u16,
}

/// What a key may do in a bucket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Permissions {
    /// Get, head, list.
    pub read: bool,
    /// Put, delete, multipart.
    pub write: bool,
    /// Bucket settings, deletion of the bucket.
    pub owner: bool,
}

impl Permissions {
    /// Nothing at all.
    pub fn is_none(self) -> bool {
        self == Permissions::default()
    }
}

/// Limits on a bucket's content; `None`: none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Quotas {
    /// Bytes of current objects.
    pub size_max_bytes: Option<u64>,
    /// Number of current objects.
    pub objects_max: Option<u64>,
}

/// Website settings.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Website {
    /// Appended to keys that end in a slash.
    pub index_document: String,
    /// Shown on errors.
    pub error_document: Option<String>,
    /// Redirects; the first rule that matches counts.
    #[serde(default)]
    pub routing_rules: Vec<RoutingRule>,
}

/// A global name. A register row of the control tables, under the name; a name that was taken back leads nowhere.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AliasRow {
    /// The bucket it leads to.
    pub bucket: Option<BucketId>,
}

impl Stored for AliasRow {
    const WHAT: &'static str = "bucket alias";
}
