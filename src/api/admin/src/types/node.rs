//! What single nodes say of themselves: facts, counts, workers, blocks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{NodeRole, Space};

/// Facts about a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeInfo {
    /// Its id.
    pub node_id: String,
    /// Its host name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// What it runs.
    pub garage_version: String,
    /// Features it was built with.
    pub garage_features: Option<Vec<String>>,
    /// What it was built with.
    pub rust_version: String,
    /// Its metadata store.
    pub db_engine: String,
    /// How clients reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_parameters: Option<ConnectionParameters>,
    /// Where it is reached, `ip:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addr: Option<String>,
    /// Whether it is up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_up: Option<bool>,
    /// Its role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<NodeRole>,
    /// No current role, but data of an older layout version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining: Option<bool>,
    /// Space for blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_partition: Option<Space>,
    /// Space for metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata_partition: Option<Space>,
}

/// How clients reach a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionParameters {
    /// Region in signatures.
    pub region: String,
    /// URL of S3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "s3Endpoint")]
    pub s3_endpoint: Option<String>,
    /// Whether buckets go in the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "s3UsePathStyle")]
    pub s3_use_path_style: Option<bool>,
    /// URL of K2V.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "k2vEndpoint")]
    pub k2v_endpoint: Option<String>,
}

/// Counts of a node.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatistics {
    /// The same for people.
    pub freeform: String,
    /// By table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table_stats: Option<Vec<TableStatistics>>,
    /// Of blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_manager_stats: Option<BlockManagerStatistics>,
}

/// Counts of one table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TableStatistics {
    /// The table.
    pub table_name: String,
    /// Rows.
    pub items: u64,
    /// Entries of its digest.
    pub merkle_items: u64,
    /// Rows not yet in the digest.
    pub merkle_queue_len: u64,
    /// Rows waiting to be sent.
    pub insert_queue_len: u64,
    /// Tombstones waiting to be dropped.
    pub gc_queue_len: u64,
}

/// Counts of blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockManagerStatistics {
    /// Blocks with a reference count.
    pub rc_entries: u64,
    /// Blocks waiting to be fetched or handed over.
    pub resync_queue_len: u64,
    /// Of these, failed before.
    pub resync_errors: u64,
}

/// A repair to start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LaunchRepair {
    /// Which.
    pub repair_type: RepairType,
}

/// What can be repaired.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RepairType {
    /// Synchronise all metadata now.
    Tables,
    /// Check all referenced and all stored blocks.
    Blocks,
    /// Fix dangling versions.
    Versions,
    /// Fix dangling uploads.
    MultipartUploads,
    /// Fix dangling block references.
    BlockRefs,
    /// Recount block references.
    BlockRc,
    /// Move blocks to the right data directory.
    Rebalance,
    /// Fix bucket names.
    Aliases,
    /// Empty the resync queue.
    ClearResyncQueue,
    /// Control the scrub.
    Scrub(ScrubCommand),
}

/// What the scrub is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ScrubCommand {
    /// Begin now.
    Start,
    /// Rest for 24 hours.
    Pause,
    /// Go on.
    Resume,
    /// Stop.
    Cancel,
}

/// Which workers to list.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerFilter {
    /// Busy or throttled ones.
    #[serde(default)]
    pub busy_only: bool,
    /// Ones that met errors.
    #[serde(default)]
    pub error_only: bool,
}

/// A worker by number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerNumber {
    /// The number.
    pub id: u64,
}

/// A background worker.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Worker {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// What it does.
    pub state: WorkerState,
    /// Errors met.
    pub errors: u64,
    /// Of these, in a row up to now.
    pub consecutive_errors: u64,
    /// The last one.
    pub last_error: Option<WorkerFailure>,
    /// How long it rests, in multiples of its working time.
    pub tranquility: Option<u32>,
    /// How far it is.
    pub progress: Option<String>,
    /// What waits for it.
    pub queue_length: Option<u64>,
    /// Items that keep failing.
    pub persistent_errors: Option<u64>,
    /// More, for people.
    pub freeform: Vec<String>,
}

/// What a worker does.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum WorkerState {
    /// Works.
    Busy,
    /// Rests between two steps.
    Throttled {
        /// For this long.
        duration_secs: f32,
    },
    /// Has nothing to do.
    Idle,
    /// Has ended.
    Done,
}

/// A worker's last error.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerFailure {
    /// What it was.
    pub message: String,
    /// When.
    pub secs_ago: u64,
}

/// Which setting; absent: all.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VariableName {
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variable: Option<String>,
}

/// Settings by name.
pub type Variables = BTreeMap<String, String>;

/// A setting.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Variable {
    /// Its name.
    pub variable: String,
    /// Its value.
    pub value: String,
}

/// A block that could not be fetched.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockError {
    /// Its hash.
    pub block_hash: String,
    /// References.
    pub refcount: u64,
    /// Failed attempts.
    pub error_count: u64,
    /// Seconds since the last.
    pub last_try_secs_ago: u64,
    /// Seconds to the next.
    pub next_try_in_secs: u64,
}

/// A block by hash, or by a prefix of 4 digits or more.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockName {
    /// The hash.
    pub block_hash: String,
}

/// Who refers to a block.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockInfo {
    /// Its hash.
    pub block_hash: String,
    /// References.
    pub refcount: u64,
    /// Who.
    pub versions: Vec<BlockVersion>,
}

/// A version that refers to a block.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockVersion {
    /// Its id.
    pub version_id: String,
    /// The reference is deleted.
    pub ref_deleted: bool,
    /// The version is deleted.
    pub version_deleted: bool,
    /// The version is gone.
    pub garbage_collected: bool,
    /// What it belongs to.
    pub backlink: Option<BlockBacklink>,
}

/// What a version belongs to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum BlockBacklink {
    /// An object.
    Object {
        /// The bucket.
        bucket_id: String,
        /// The key.
        key: String,
    },
    /// A multipart upload.
    Upload {
        /// The upload.
        upload_id: String,
        /// It is deleted.
        upload_deleted: bool,
        /// It is gone.
        upload_garbage_collected: bool,
        /// The bucket.
        bucket_id: Option<String>,
        /// The key.
        key: Option<String>,
    },
}

/// Which blocks to try again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
pub enum RetryBlocks {
    /// All that failed.
    All {
        /// Must be `true`.
        all: bool,
    },
    /// These.
    These {
        /// Full hashes.
        block_hashes: Vec<String>,
    },
}

/// How many are tried again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RetriedBlocks {
    /// Blocks.
    pub count: u64,
}

/// What a purge deleted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PurgeResult {
    /// Blocks.
    pub blocks_purged: u64,
    /// Objects.
    pub objects_deleted: u64,
    /// Uploads.
    pub uploads_deleted: u64,
    /// Versions.
    pub versions_deleted: u64,
    /// References.
    pub block_refs_purged: u64,
}
