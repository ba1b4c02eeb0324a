//! What an owner sets on a bucket about access: policy, public access block, object ownership, access control list, tags, encryption.

use serde::{Deserialize, Serialize};

use crate::acl::Acl;

/// Who may do what with a bucket besides the rights of keys. Part of a bucket's row.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct AccessSettings {
    /// The bucket policy.
    #[serde(default)]
    pub policy: Option<StoredPolicy>,
    /// What is blocked whatever policy and lists say; `None`: never set.
    #[serde(default)]
    pub public_access_block: Option<PublicAccessBlock>,
    /// Who owns objects, and whether lists count.
    #[serde(default)]
    pub ownership: Ownership,
    /// The bucket's own list; `None`: its owner has full control.
    #[serde(default)]
    pub acl: Option<Acl>,
}

impl AccessSettings {
    /// The block in force.
    pub fn block(&self) -> PublicAccessBlock {
        self.public_access_block.unwrap_or_default()
    }
}

/// A bucket policy as it was set.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StoredPolicy {
    /// The document, byte for byte.
    pub text: String,
    /// What the bucket was called when it was set: resources of the document name it so, however it is called later.
    pub bucket_name: String,
}

/// AWS S3 User Guide, "Blocking public access to your Amazon S3 storage".
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PublicAccessBlock {
    /// Lists that grant something to everyone can't be set.
    pub block_public_acls: bool,
    /// What lists grant to everyone does not count.
    pub ignore_public_acls: bool,
    /// A policy that lets everyone in can't be set.
    pub block_public_policy: bool,
    /// While the policy lets everyone in, it counts only for keys with rights of their own on the bucket.
    pub restrict_public_buckets: bool,
}

/// AWS S3 User Guide, "Controlling ownership of objects".
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Ownership {
    /// All objects are the bucket owner's, and lists grant nothing. What new buckets have.
    #[default]
    BucketOwnerEnforced,
    /// Objects written with `bucket-owner-full-control` are the bucket owner's.
    BucketOwnerPreferred,
    /// Objects are whose key wrote them.
    ObjectWriter,
    /// The setting was taken away: as [`Ownership::ObjectWriter`], but shown as not set.
    Removed,
}

impl Ownership {
    /// Whether access control lists count.
    pub fn has_acls(self) -> bool {
        self != Ownership::BucketOwnerEnforced
    }
    /// As S3 spells it; `None`: not set.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Ownership::BucketOwnerEnforced => Some("BucketOwnerEnforced"),
            Ownership::BucketOwnerPreferred => Some("BucketOwnerPreferred"),
            Ownership::ObjectWriter => Some("ObjectWriter"),
            Ownership::Removed => None,
        }
    }
    /// From S3's spelling.
    pub fn of_name(name: &str) -> Option<Ownership> {
        [Ownership::BucketOwnerEnforced, Ownership::BucketOwnerPreferred, Ownership::ObjectWriter]
            .into_iter()
            .find(|ownership| ownership.name() == Some(name))
    }
}

/// What new objects of a bucket are encrypted with when their writer asks for nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct BucketEncryption {
    /// Under the cluster's key (`AES256`).
    #[serde(default)]
    pub cluster_key: bool,
    /// Kept and shown; means nothing without a key management service.
    #[serde(default)]
    pub bucket_key_enabled: bool,
    /// Writers may not bring keys of their own.
    #[serde(default)]
    pub blocks_customer_keys: bool,
}

/// A tag: key and value.
pub type Tag = (String, String);
