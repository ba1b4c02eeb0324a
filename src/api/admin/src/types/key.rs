//! Access keys.

use serde::{Deserialize, Serialize};

use super::Permissions;
use crate::Timestamp;

/// A key in a list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyItem {
    /// The key id.
    pub id: String,
    /// For people.
    pub name: String,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// From when on it is refused.
    pub expiration: Option<Timestamp>,
    /// Whether that has come.
    pub expired: bool,
}

/// An access key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Key {
    /// The key id.
    pub access_key_id: String,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// For people.
    pub name: String,
    /// From when on it is refused.
    pub expiration: Option<Timestamp>,
    /// Whether that has come.
    pub expired: bool,
    /// The secret, when it may be shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_access_key: Option<String>,
    /// What it may do beside bucket rights.
    pub permissions: KeyPermissions,
    /// Buckets on which it has rights or which it has named.
    pub buckets: Vec<KeyBucket>,
}

/// What a key may do beside bucket rights.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyPermissions {
    /// Make buckets.
    #[serde(default)]
    pub create_bucket: bool,
}

/// A bucket of a key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyBucket {
    /// The bucket id.
    pub id: String,
    /// Its global names.
    pub global_aliases: Vec<String>,
    /// This key's own names for it.
    pub local_aliases: Vec<String>,
    /// The rights.
    pub permissions: Permissions,
}

/// What to set; what is left out stays as it is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyUpdate {
    /// The new name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The new expiration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration: Option<Timestamp>,
    /// No expiration; not together with one.
    #[serde(default)]
    pub never_expires: bool,
    /// What it may do from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<KeyPermissions>,
    /// What it may not do any more; after `allow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deny: Option<KeyPermissions>,
}

/// A key made elsewhere.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyImport {
    /// Its id.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Which key: by id, or by a prefix of the id or the name.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeySearch {
    /// The id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// A prefix of the id, or the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<String>,
    /// Show the secret.
    #[serde(default)]
    pub show_secret_key: bool,
}
