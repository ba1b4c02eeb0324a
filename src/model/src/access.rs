//! Who may do what: keys and buckets as decided upon, from the mirror of the control rows.

use std::{collections::BTreeMap, sync::Arc};

use garage_table::group::RequestContext;
use parking_lot::Mutex;

pub use crate::rights::{BucketView, Right};
use crate::{
    buckets::Buckets,
    error::{ClientError, ModelError},
    judge::{Judge, NamedPolicy},
    keys::{AccessKey, Keys},
    limits::POLICIES_CACHED_MAX,
    policy::Policy,
    rows::{access::StoredPolicy, bucket::BucketState},
};

/// The verdict on a request.
#[derive(Clone, Debug)]
pub enum Access {
    /// Allowed, on this bucket.
    Granted(Box<BucketView>),
    /// The bucket is there, the right is not.
    Denied,
}

/// Decides about requests. Cheap to clone.
#[derive(Clone)]
pub struct AccessControl {
    keys: Keys,
    buckets: Buckets,
    policies: Arc<PolicyCache>,
}

/// Parsed policies by the hash of what they were parsed from: a policy is evaluated with every request and changes rarely.
#[derive(Default)]
struct PolicyCache(Mutex<BTreeMap<[u8; 32], Arc<NamedPolicy>>>);

impl PolicyCache {
    fn parsed(&self, stored: &StoredPolicy) -> Arc<NamedPolicy> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(stored.bucket_name.len() as u64).to_le_bytes());
        hasher.update(stored.bucket_name.as_bytes());
        hasher.update(stored.text.as_bytes());
        let hash = *hasher.finalize().as_bytes();
        let mut cached = self.0.lock();
        if let Some(parsed) = cached.get(&hash) {
            return parsed.clone();
        }
        let policy = Policy::parse(&stored.text, &stored.bucket_name);
        if let Err(error) = &policy {
            tracing::error!(bucket = %stored.bucket_name, %error, "the bucket's policy can't be read by this release: everything is denied");
        }
        let parsed = Arc::new(NamedPolicy { bucket_name: stored.bucket_name.clone(), policy });
        if POLICIES_CACHED_MAX <= cached.len() {
            cached.clear();
        }
        cached.insert(hash, parsed.clone());
        parsed
    }
}

impl AccessControl {
    /// Decides by these.
    pub fn new(keys: Keys, buckets: Buckets) -> AccessControl {
        AccessControl { keys, buckets, policies: Arc::default() }
    }
    /// Access keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }
    /// Buckets.
    pub fn buckets(&self) -> &Buckets {
        &self.buckets
    }

    /// Whether `key` has `right` on the bucket that it calls `name`. Errors: `NoSuchBucket`.
    ///
    /// A refusal is never decided from the mirror alone: a right that was just granted elsewhere counts at once.
    pub async fn check(&self, key: &AccessKey, name: &str, right: Right, context: RequestContext) -> Result<Access, ModelError> {
        let bucket = self.buckets.resolve(Some(key), name, context).await?.ok_or(ClientError::NoSuchBucket)?;
        if right == Right::Write && bucket.row.state != BucketState::Live {
            return Err(ClientError::BucketBusy.into());
        }
        if right.is_in(bucket.permissions(key)) {
            return Ok(Access::Granted(Box::new(bucket)));
        }
        let fresh = self.buckets.get_fresh(bucket.id, context).await?.ok_or(ClientError::NoSuchBucket)?;
        if right.is_in(fresh.permissions(key)) { Ok(Access::Granted(Box::new(fresh))) } else { Ok(Access::Denied) }
    }

    /// A judge of what `key` (`None`: nobody in particular) may do with the bucket that it calls `name`. Errors: `NoSuchBucket`.
    ///
    /// It decides by the mirror. Before anything is refused ask [`AccessControl::fresh_judge`]: a right that was just granted counts at once.
    pub async fn judge(&self, key: Option<&AccessKey>, name: &str, context: RequestContext) -> Result<Judge, ModelError> {
        let bucket = self.buckets.resolve(key, name, context).await?.ok_or(ClientError::NoSuchBucket)?;
        Ok(self.judge_of(bucket, key))
    }

    /// The same about a bucket that was found, by what a quorum of its owners holds. Errors: `NoSuchBucket`.
    pub async fn fresh_judge(&self, key: Option<&AccessKey>, bucket: &BucketView, context: RequestContext) -> Result<Judge, ModelError> {
        let bucket = self.buckets.get_fresh(bucket.id, context).await?.ok_or(ClientError::NoSuchBucket)?;
        Ok(self.judge_of(bucket, key))
    }

    /// A judge about a bucket as it is given.
    pub fn judge_of(&self, bucket: BucketView, key: Option<&AccessKey>) -> Judge {
        let policy = bucket.row.access.policy.as_ref().map(|stored| self.policies.parsed(stored));
        Judge::new(bucket, policy, key)
    }
}
