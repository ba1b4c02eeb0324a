//! Rights of keys on buckets, and a bucket as a request sees it.

use crate::{
    keys::AccessKey,
    objects::BucketRef,
    rows::{
        BucketId,
        bucket::{BucketRow, Permissions},
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
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
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
    /// Whether a key with these permissions has it.
    pub fn is_in(self, permissions: Permissions) -> bool {
        match self {
            Right::Read => permissions.read,
            Right::Write => permissions.write,
            Right::Owner => permissions.owner,
            Right::Any => !permissions.is_none(),
        }
    }
}
