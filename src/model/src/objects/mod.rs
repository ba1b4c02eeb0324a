//! Objects: put, get, head, delete, copy. Round trips as promised: a small put or get is one, a large put one more for its blocks.
//!
//! Reading order: this file (types), `put`, `content` (reading), `delete`, `versions`, `copy`, `usage` (quotas).

mod content;
mod copy;
mod delete;
mod put;
mod usage;
pub mod versions;

use std::{sync::Arc, time::Duration};

use garage_block::manager::BlockManager;
use garage_net::NodeId;
use garage_rpc::register::{Entry, slots::Slot};
use garage_table::{Group, Tables, group::RequestContext, message::Want};
use tokio::time::Instant;

pub use copy::CopySource;
pub use delete::{DeleteOutcome, Deleted, KeyToDelete};
pub use put::StoredObject;
pub(crate) use put::{clock_failed, version_row};
pub use versions::{Governance, Version};

use crate::{
    encryption::EncryptionKeys,
    error::{ClientError, ModelError},
    judge::ObjectAccess,
    rows::{
        BucketId,
        bucket::{BucketRow, LockSettings, Quotas, Versioning},
        object::ObjectMeta,
        payload::PayloadChunk,
    },
};

/// How long the steps on rows may take inside a request that streams a body for longer.
pub const STEP_TIMEOUT: Duration = Duration::from_secs(30);

/// A bucket as the paths over its objects need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketRef {
    /// Its id.
    pub id: BucketId,
    /// Shards of its index.
    pub shard_count: u16,
    /// Limits on its content.
    pub quotas: Quotas,
    /// What a write does to the version before it.
    pub versioning: Versioning,
    /// Whether versions can be locked, and are by themselves.
    pub lock: Option<LockSettings>,
}

impl BucketRef {
    /// The bucket of a row.
    pub fn new(id: BucketId, row: &BucketRow) -> BucketRef {
        BucketRef { id, shard_count: row.shards.current.max(1), quotas: row.quotas, versioning: row.versioning, lock: row.object_lock }
    }
    /// The group of everything about one object key.
    pub fn group_of(&self, key: &str) -> Group {
        let hash = blake3::hash(key.as_bytes());
        let bytes = hash.as_bytes();
        self.group(u16::from_be_bytes([bytes[0], bytes[1]]) % self.shard_count)
    }
    /// All groups of the bucket.
    pub fn groups(&self) -> impl Iterator<Item = Group> + '_ {
        (0..self.shard_count).map(|shard| self.group(shard))
    }
    fn group(&self, shard: u16) -> Group {
        Group::new([&self.id.as_bytes()[..], &shard.to_be_bytes()].concat())
    }
}

/// A condition on the current version of a key; AWS S3 User Guide, "Conditional requests".
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct WriteCondition {
    /// `If-None-Match: *`: there must be no object.
    pub absent: bool,
    /// `If-Match`: ETags without quotes; `*` stands for any.
    pub etags: Option<Vec<String>>,
}

impl WriteCondition {
    /// Whether there is nothing to test.
    pub fn is_none(&self) -> bool {
        !self.absent && self.etags.is_none()
    }
    /// Tests the newest version.
    pub fn check(&self, current: Option<&ObjectMeta>) -> Result<(), ClientError> {
        if self.absent && current.is_some() {
            return Err(ClientError::PreconditionFailed { condition: "If-None-Match" });
        }
        match (&self.etags, current) {
            (None, _) => Ok(()),
            (Some(_), None) => Err(ClientError::NoSuchKey),
            (Some(etags), Some(meta)) if etags.iter().any(|etag| etag == "*" || *etag == meta.etag) => Ok(()),
            (Some(_), Some(_)) => Err(ClientError::PreconditionFailed { condition: "If-Match" }),
        }
    }
}

/// An object that was found, with what is needed to read it. The entry's id is that under which its content is kept.
#[derive(Clone, Debug)]
pub struct FoundObject {
    /// Stamp and version id.
    pub entry: Entry,
    /// What HEAD answers.
    pub meta: ObjectMeta,
    /// Which version it is.
    pub slot: Option<Slot>,
    pub(crate) group: Group,
    /// The beginning of its payload, if it came with the row.
    pub(crate) first: Option<PayloadChunk>,
}

impl FoundObject {
    /// What verdicts on requests depend upon.
    pub fn access(&self) -> ObjectAccess {
        let headers = &self.meta.headers;
        ObjectAccess { owner: headers.owner.clone(), acl: headers.acl.clone(), tags: headers.tags.clone() }
    }
    /// What tells whether its row is still the same.
    pub fn mark(&self) -> versions::Mark {
        (self.entry.stamp, self.entry.id, true)
    }
}

/// Objects of all buckets. Cheap to clone.
#[derive(Clone)]
pub struct Objects {
    pub(crate) tables: Tables,
    pub(crate) blocks: BlockManager,
    inline_max_bytes: usize,
    keys: EncryptionKeys,
    usage: Arc<usage::UsageCache>,
}

impl Objects {
    /// Objects over tables and blocks; up to `inline_max_bytes` are kept in rows.
    pub fn new(tables: Tables, blocks: BlockManager, inline_max_bytes: usize, keys: EncryptionKeys) -> Objects {
        Objects { tables, blocks, inline_max_bytes, keys, usage: Arc::default() }
    }

    /// The keys under which objects are encrypted.
    pub fn encryption_keys(&self) -> &EncryptionKeys {
        &self.keys
    }

    /// The tables that hold them.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// This node.
    pub fn local(&self) -> NodeId {
        self.tables.cluster().local()
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.tables.cluster().runtime().now_ms()
    }

    /// The context of a step on rows inside a request whose body may take longer.
    pub(crate) fn step(&self, context: RequestContext) -> RequestContext {
        RequestContext { deadline: context.deadline.min(Instant::now() + STEP_TIMEOUT), ..context }
    }

    /// The current object of a key without its content: HEAD.
    pub async fn head(&self, bucket: &BucketRef, key: &str, context: RequestContext) -> Result<Option<FoundObject>, ModelError> {
        self.find(bucket, key, Want::Row, context).await
    }

    /// The current object of a key, with the beginning of its content: GET.
    pub async fn get(&self, bucket: &BucketRef, key: &str, context: RequestContext) -> Result<Option<FoundObject>, ModelError> {
        self.find(bucket, key, Want::First, context).await
    }

    async fn find(&self, bucket: &BucketRef, key: &str, want: Want, context: RequestContext) -> Result<Option<FoundObject>, ModelError> {
        match self.find_current(&bucket.group_of(key), key, want, context).await? {
            Version::Object(found) => Ok(Some(*found)),
            Version::Marker(_) | Version::Missing => Ok(None),
        }
    }
}
