//! Buckets.

use serde::{Deserialize, Serialize};

use super::{CorsRule, LifecycleRule, Permissions, RoutingRule};
use crate::Timestamp;

/// A bucket in a list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BucketItem {
    /// The bucket id.
    pub id: String,
    /// When it was made.
    pub created: Timestamp,
    /// Its global names.
    pub global_aliases: Vec<String>,
    /// Names that keys have for it.
    pub local_aliases: Vec<BucketLocalAlias>,
}

/// A name that a key has for a bucket.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BucketLocalAlias {
    /// The key.
    pub access_key_id: String,
    /// The name.
    pub alias: String,
}

/// A bucket.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bucket {
    /// The bucket id.
    pub id: String,
    /// When it was made.
    pub created: Timestamp,
    /// Its global names.
    pub global_aliases: Vec<String>,
    /// Whether it is served as a website.
    pub website_access: bool,
    /// How.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub website_config: Option<Website>,
    /// CORS rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors_rules: Option<Vec<CorsRule>>,
    /// Lifecycle rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifecycle_rules: Option<Vec<LifecycleRule>>,
    /// Keys with rights on it or names for it.
    pub keys: Vec<BucketKey>,
    /// Objects.
    pub objects: i64,
    /// Their bytes.
    pub bytes: i64,
    /// Uploads not finished, of all kinds.
    pub unfinished_uploads: i64,
    /// Multipart uploads not finished.
    pub unfinished_multipart_uploads: i64,
    /// Their parts.
    pub unfinished_multipart_upload_parts: i64,
    /// Their bytes.
    pub unfinished_multipart_upload_bytes: i64,
    /// Limits.
    pub quotas: Quotas,
}

/// How a bucket is served as a website.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Website {
    /// What a directory shows.
    pub index_document: String,
    /// What an error shows.
    pub error_document: Option<String>,
    /// Redirects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routing_rules: Option<Vec<RoutingRule>>,
}

/// A key of a bucket.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BucketKey {
    /// The key.
    pub access_key_id: String,
    /// Its name.
    pub name: String,
    /// Its rights.
    pub permissions: Permissions,
    /// Its names for the bucket.
    pub bucket_local_aliases: Vec<String>,
}

/// Limits of a bucket; `null`: none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Quotas {
    /// Bytes.
    pub max_size: Option<u64>,
    /// Objects.
    pub max_objects: Option<u64>,
}

/// A bucket to make.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BucketCreate {
    /// Its global name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub global_alias: Option<String>,
    /// Its name in a key's own space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_alias: Option<LocalAliasCreate>,
}

/// A name in a key's own space.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalAliasCreate {
    /// The key.
    pub access_key_id: String,
    /// The name.
    pub alias: String,
    /// Rights for the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Permissions>,
}

/// What to set; what is left out stays as it is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BucketUpdate {
    /// Website settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub website_access: Option<WebsiteUpdate>,
    /// Both limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quotas: Option<Quotas>,
    /// CORS rules; `[]`: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors_rules: Option<Vec<CorsRule>>,
    /// Lifecycle rules; `[]`: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifecycle_rules: Option<Vec<LifecycleRule>>,
}

/// Website settings.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebsiteUpdate {
    /// Whether the bucket is served.
    pub enabled: bool,
    /// What a directory shows; needed when enabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index_document: Option<String>,
    /// What an error shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_document: Option<String>,
    /// Redirects; absent: as before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routing_rules: Option<Vec<RoutingRule>>,
}

/// A name to add to or drop from a bucket. A `globalAlias` that is text wins over the rest; clients send unused fields as `""` or `null`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
pub enum Alias {
    /// A global name.
    Global {
        /// The bucket.
        bucket_id: String,
        /// The name.
        global_alias: String,
    },
    /// A name in a key's own space.
    Local {
        /// The bucket.
        bucket_id: String,
        /// The name.
        local_alias: String,
        /// The key.
        access_key_id: String,
    },
}

/// Rights to give or to take: those that are `true`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BucketKeyChange {
    /// The bucket.
    pub bucket_id: String,
    /// The key.
    pub access_key_id: String,
    /// The rights.
    pub permissions: Permissions,
}

/// Which bucket: by exactly one of these.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BucketSearch {
    /// The full id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// A global name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub global_alias: Option<String>,
    /// A global name, the id, or a prefix of the id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<String>,
}

/// Which unfinished uploads to abort.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CleanupUploads {
    /// The bucket.
    pub bucket_id: String,
    /// Those older than this many seconds.
    pub older_than_secs: u64,
}

/// How many were aborted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CleanedUploads {
    /// Uploads.
    pub uploads_deleted: u64,
}
