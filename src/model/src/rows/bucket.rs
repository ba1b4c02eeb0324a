//! Buckets and their global names.

use std::collections::{BTreeMap, BTreeSet};

use garage_rpc::register::WriteId;
use garage_util::encoding::Stored;
use serde::{Deserialize, Serialize};

use super::{
    BucketId,
    access::{AccessSettings, BucketEncryption, Tag},
    lifecycle::LifecycleRule,
    object::RetentionMode,
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
    /// Whether overwritten and deleted objects stay as older versions.
    #[serde(default)]
    pub versioning: Versioning,
    /// Whether versions can be locked; once set, never taken away.
    #[serde(default)]
    pub object_lock: Option<LockSettings>,
    /// What happens to objects by their age.
    #[serde(default)]
    pub lifecycle: Vec<LifecycleRule>,
    /// What was said with the lifecycle: that the size from which S3 moves objects to other classes differs by class. Only shown.
    #[serde(default)]
    pub transition_minimum_varies: bool,
    /// Policy, lists, public access block.
    #[serde(default)]
    pub access: AccessSettings,
    /// Tags of the bucket, for its owner's use; none: no tag set.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// What new objects are encrypted with; `None`: never set.
    #[serde(default)]
    pub encryption: Option<BucketEncryption>,
}

impl BucketRow {
    /// A live bucket without names, rights or settings.
    pub fn new(created_ms: u64, shard_count: u16) -> BucketRow {
        BucketRow {
            created_ms,
            state: BucketState::Live,
            shards: ShardCount { current: shard_count, target: shard_count },
            global_aliases: BTreeSet::new(),
            local_aliases: BTreeMap::new(),
            permissions: BTreeMap::new(),
            quotas: Quotas::default(),
            website: None,
            cors: Vec::new(),
            versioning: Versioning::default(),
            object_lock: None,
            lifecycle: Vec::new(),
            transition_minimum_varies: false,
            access: AccessSettings::default(),
            tags: Vec::new(),
            encryption: None,
        }
    }
    /// The key that stands for the bucket's owner: the first of those that own it.
    pub fn owner_id(&self) -> Option<&str> {
        self.permissions.iter().find(|(_, permissions)| permissions.owner).map(|(id, _)| id.as_str())
    }
}

/// Whether overwritten and deleted objects stay as older versions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Versioning {
    /// It was never switched on.
    #[default]
    Off,
    /// Every write makes a version of its own.
    Enabled,
    /// Every write replaces the version `null`; the others stay.
    Suspended,
}

impl Versioning {
    /// The id of a version that is made at `now_ms`: where versions are kept it begins with that time.
    pub fn id_of(self, mut random: WriteId, now_ms: u64) -> WriteId {
        if self != Versioning::Off {
            random.0[..8].copy_from_slice(&now_ms.to_be_bytes());
        }
        random
    }
}

/// Object lock of a bucket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct LockSettings {
    /// For objects that come without a retention of their own.
    #[serde(default)]
    pub default_retention: Option<DefaultRetention>,
}

/// A retention counted from an object's creation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DefaultRetention {
    /// Who may end it before.
    pub mode: RetentionMode,
    /// How long.
    pub period: RetentionPeriod,
}

/// How long a default retention lasts; kept as it was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RetentionPeriod {
    /// Of 24 hours.
    Days(u32),
    /// Of 365 days.
    Years(u32),
}

impl RetentionPeriod {
    /// In milliseconds.
    pub fn as_millis(self) -> u64 {
        let days = match self {
            RetentionPeriod::Days(days) => u64::from(days),
            RetentionPeriod::Years(years) => u64::from(years) * 365,
        };
        days * 24 * 3600 * 1000
    }
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
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Website {
    /// Appended to keys that end in a slash.
    pub index_document: String,
    /// Shown on errors.
    pub error_document: Option<String>,
    /// Redirects; the first rule that matches counts.
    #[serde(default)]
    pub routing_rules: Vec<RoutingRule>,
    /// Its one rule leads every request elsewhere (`RedirectAllRequestsTo`).
    #[serde(default)]
    pub redirect_all: bool,
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
