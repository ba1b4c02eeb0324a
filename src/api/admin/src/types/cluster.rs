//! The cluster as a whole: nodes, health, space.

use serde::{Deserialize, Serialize};

use super::NodeProgress;

/// Nodes of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// The current layout version; 0: none yet.
    pub layout_version: u64,
    /// Known peers, holders of a role, storage nodes of older live layouts; sorted by id.
    pub nodes: Vec<Node>,
    /// Connections that were refused, most often because the cluster secrets differ; an addition of ours, absent when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedPeer>,
}

/// A connection that was refused, by this node or by the other.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusedPeer {
    /// The other's id, if it said who it is.
    pub id: Option<String>,
    /// Its address, as `ip:port`.
    pub address: Option<String>,
    /// Why, and what to do.
    pub reason: String,
}

/// One node.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Its id, 64 hex digits.
    pub id: String,
    /// What it runs.
    pub garage_version: Option<String>,
    /// Where it was reached, `ip:port`.
    pub addr: Option<String>,
    /// Its host name.
    pub hostname: Option<String>,
    /// Whether there is a connection to it.
    pub is_up: bool,
    /// Seconds since it was last heard of.
    pub last_seen_secs_ago: Option<u64>,
    /// Its role in the current layout.
    pub role: Option<NodeRole>,
    /// No current role, but data of an older live layout version.
    pub draining: bool,
    /// Space for blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_partition: Option<Space>,
    /// Space for metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata_partition: Option<Space>,
    /// Blocks waiting to be fetched or handed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resync_queue_len: Option<u64>,
    /// How far it is with a layout change or a loss; an addition of ours, absent when it has nothing to bring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<NodeProgress>,
    /// By how many seconds its clock is ahead of most others (negative: behind), if that is more than a minute; an addition of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_ahead_secs: Option<i64>,
}

/// What a node is for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeRole {
    /// Its zone.
    pub zone: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Bytes it offers; `null`: a gateway.
    pub capacity: Option<u64>,
}

/// Space on a disk, bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Space {
    /// Free.
    pub available: u64,
    /// All.
    pub total: u64,
}

/// Whether the cluster can serve.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HealthStatus {
    /// Every storage node is up.
    Healthy,
    /// Every partition has a write quorum.
    Degraded,
    /// Some partition has none.
    Unavailable,
}

/// Counts behind the status.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterHealth {
    /// The verdict.
    pub status: HealthStatus,
    /// Nodes ever heard of since the start.
    pub known_nodes: u64,
    /// Of these, connected.
    pub connected_nodes: u64,
    /// Nodes with a capacity.
    pub storage_nodes: u64,
    /// Of these, up.
    pub storage_nodes_up: u64,
    /// Ring partitions.
    pub partitions: u64,
    /// Partitions with a write quorum.
    pub partitions_quorum: u64,
    /// Partitions with all their nodes up.
    pub partitions_all_ok: u64,
}

/// Space and counts.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatistics {
    /// The same for people.
    pub freeform: String,
    /// Estimated free bytes for data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_avail: Option<u64>,
    /// Estimated free bytes for metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata_avail: Option<u64>,
    /// Some nodes did not say; the estimates are upper bounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomplete_avail_info: Option<bool>,
    /// Buckets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket_count: Option<u64>,
    /// Objects; absent from 1,000 buckets on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_object_count: Option<u64>,
    /// Their bytes; absent from 1,000 buckets on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_object_bytes: Option<u64>,
}

/// What came of dialling one node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectResult {
    /// Whether it is connected.
    pub success: bool,
    /// Why not.
    pub error: Option<String>,
}
