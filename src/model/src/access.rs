//! Who may do what: keys and buckets as decided upon, from the mirror of the control rows.

use garage_table::group::RequestContext;

use crate::{
    buckets::Buckets,
    error::{ClientError, ModelError},
    keys::{AccessKey, Keys},
    objects::BucketRef,
    rows::{
        BucketId,
        bucket::{BucketRow, BucketState, Permissions},
    },
};

/// A bucket as a request sees it.
#[derive(Clone, Debug)]
pub struct BucketView {
    /// Its id.
    pub id: BucketId,
    /// Its row.
    pub row: BucketRow,
}

impl BucketView {
    /// For the paths over objects.
    pub fn as_ref(&self) -> BucketRef {
        BucketRef::new(self.id, &self.row)
    }
    /// What a key may do here.
    pub fn permissions(&self, key: &AccessKey) -> Permissions {
        self.row.permissions.get(&key.id).copied().unwrap_or_default()
    }
}

/// What a request needs to be allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Right {
    /// Get, head, list.
    Read,
    /// Put, delete, multipart.
    Write,
    /// Bucket settings.
    Owner,
    /// Any of them: the bucket is visible.
    Any,
}

impl Right {
    fn is_in(self, permissions: Permissions) -> bool {
        match self {
            Right::Read => permissions.read,
            Right::Write => permissions.write,
            Right::Owner => permissions.owner,
            Right::Any => !permissions.is_none(),
        }
    }
}

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
}

impl AccessControl {
    /// Decides by these.
    pub fn new(keys: Keys, buckets: Buckets) -> AccessControl {
        AccessControl { keys, buckets }
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
}
