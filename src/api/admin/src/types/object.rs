//! One object, looked at closely.

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// Which object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectName {
    /// The bucket.
    pub bucket_id: String,
    /// The key.
    pub key: String,
}

/// Versions of an object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectInspection {
    /// The bucket.
    pub bucket_id: String,
    /// The key.
    pub key: String,
    /// What is stored.
    pub versions: Vec<ObjectVersion>,
}

/// One version.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectVersion {
    /// Its id.
    pub uuid: String,
    /// When it was written.
    pub timestamp: Timestamp,
    /// With a key of the client.
    pub encrypted: bool,
    /// Not complete yet.
    pub uploading: bool,
    /// Given up.
    pub aborted: bool,
    /// A delete marker.
    pub delete_marker: bool,
    /// Kept in the metadata.
    pub inline: bool,
    /// Bytes.
    pub size: Option<u64>,
    /// Entity tag.
    pub etag: Option<String>,
    /// Stored headers, names in lower case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<Vec<(String, String)>>,
    /// Its blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<Vec<ObjectBlock>>,
}

/// One block of a version.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectBlock {
    /// The part.
    pub part_number: u64,
    /// Where in the part, bytes.
    pub offset: u64,
    /// Its hash.
    pub hash: String,
    /// Bytes.
    pub size: u64,
}
