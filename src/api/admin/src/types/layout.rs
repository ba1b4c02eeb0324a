//! The layout: roles, staged changes, versions, what a computation came to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The current layout and what is staged.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Layout {
    /// 0 before the first apply.
    pub version: u64,
    /// Roles of the current version.
    pub roles: Vec<LayoutRole>,
    /// Parameters of the current version.
    pub parameters: LayoutParameters,
    /// Usable bytes of one partition.
    pub partition_size: u64,
    /// Changes that differ from the current roles.
    pub staged_role_changes: Vec<RoleChange>,
    /// Staged parameters; `null` when equal to the current ones.
    pub staged_parameters: Option<LayoutParameters>,
}

/// One role.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayoutRole {
    /// The node.
    pub id: String,
    /// Its zone.
    pub zone: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Bytes; `null`: a gateway.
    pub capacity: Option<u64>,
    /// Partitions it holds.
    pub stored_partitions: Option<u64>,
    /// Their bytes.
    pub usable_capacity: Option<u64>,
}

/// Parameters of a layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayoutParameters {
    /// Over how many zones copies are spread.
    pub zone_redundancy: ZoneRedundancy,
}

/// Over how many zones the copies of a partition are spread.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ZoneRedundancy {
    /// Over this many at least.
    AtLeast(u64),
    /// Over as many as there are, up to the number of copies.
    Maximum,
}

/// A staged change of one node's role. An entry with the key `remove` is read as a removal, whatever else it holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RoleChange {
    /// The node loses its role.
    Remove {
        /// The node.
        id: String,
        /// Must be `true`.
        remove: bool,
    },
    /// The node gets a role.
    Assign {
        /// The node.
        id: String,
        /// Its zone.
        zone: String,
        /// Its tags.
        tags: Vec<String>,
        /// Bytes; `null` or absent: a gateway.
        capacity: Option<u64>,
    },
}

impl RoleChange {
    /// The node whose role changes.
    pub fn id(&self) -> &str {
        match self {
            RoleChange::Remove { id, .. } | RoleChange::Assign { id, .. } => id,
        }
    }
}

/// Changes to stage, all or none.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayoutUpdate {
    /// Role changes.
    #[serde(default)]
    pub roles: Vec<RoleChange>,
    /// New parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<LayoutParameters>,
}

/// The version that applying must give.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApplyVersion {
    /// The current version plus one.
    pub version: u64,
}

/// A layout was applied.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayoutApply {
    /// What the computation says, for people.
    pub message: Vec<String>,
    /// The same in numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statistics: Option<LayoutStatistics>,
    /// The new layout.
    pub layout: Layout,
}

/// What applying would give.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
pub enum LayoutPreview {
    /// It would be refused.
    Failure {
        /// Why.
        error: String,
    },
    /// It would work.
    Success {
        /// What the computation says, for people.
        message: Vec<String>,
        /// The same in numbers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        statistics: Option<Box<LayoutStatistics>>,
        /// The layout it would be.
        new_layout: Box<Layout>,
    },
}

/// What a layout computation came to. Sizes in bytes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayoutStatistics {
    /// Copies.
    pub replication_factor: u64,
    /// Zones they span.
    pub effective_zone_redundancy: u64,
    /// The optimal size.
    pub partition_size: u64,
    /// That of the version before; `null` on the first.
    pub previous_partition_size: Option<u64>,
    /// The partitions are very small.
    pub low_partition_size: bool,
    /// What can be used, counting every copy.
    pub usable_capacity: u64,
    /// What nodes offer.
    pub total_capacity: u64,
    /// What can be used, counting each piece of data once.
    pub effective_capacity: u64,
    /// Much of the capacity cannot be used.
    pub low_usable_capacity: bool,
    /// New copies; `null` on the first version.
    pub total_moved_partitions: Option<u64>,
    /// By zone.
    pub zones: Vec<ZoneStatistics>,
}

/// One zone of a computation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ZoneStatistics {
    /// The zone.
    pub name: String,
    /// Its nodes.
    pub nodes: Vec<NodeStatisticsInLayout>,
    /// Copies in it.
    pub total_replicated_partitions: u64,
    /// Different partitions in it.
    pub unique_partitions: u64,
    /// What its nodes offer.
    pub total_capacity: u64,
    /// What can be used.
    pub usable_capacity: u64,
}

/// One node of a computation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatisticsInLayout {
    /// The node.
    pub id: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Partitions it holds.
    pub stored_partitions: u64,
    /// Of these, new to it.
    pub new_partitions: u64,
    /// What it offers.
    pub total_capacity: u64,
    /// What can be used.
    pub usable_capacity: u64,
}

/// Layout versions.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayoutHistory {
    /// The newest.
    pub current_version: u64,
    /// The newest that every node knows.
    pub min_ack: u64,
    /// Newest first.
    pub versions: Vec<LayoutVersion>,
    /// By node, while several versions live.
    pub update_trackers: Option<BTreeMap<String, Trackers>>,
    /// How far the nodes are that have something to bring, by node; an addition of ours, absent when there are none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub progress: BTreeMap<String, NodeProgress>,
}

/// One version.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayoutVersion {
    /// Its number.
    pub version: u64,
    /// Whether it is in use.
    pub status: LayoutVersionStatus,
    /// Nodes with a capacity.
    pub storage_nodes: u64,
    /// Nodes without.
    pub gateway_nodes: u64,
}

/// Whether a version is in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum LayoutVersionStatus {
    /// The newest.
    Current,
    /// Data is still moving away from it.
    Draining,
    /// No longer in use.
    Historical,
}

/// How far a node is with what a layout change, or a loss, asks of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeProgress {
    /// The layout version it moves to.
    pub version: u64,
    /// Partitions it has to bring for that version, of 256.
    pub partitions_needed: u64,
    /// Those of them whose rows it has.
    pub partitions_synced: u64,
    /// Partitions in which its answers do not count, because it lost rows and is not refilled yet.
    pub partitions_recovering: u64,
    /// Blocks that it should have and that are to be looked at.
    pub blocks_queued: u64,
    /// About how many bytes those are.
    pub bytes_left: u64,
}

/// How far a node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trackers {
    /// It writes to this version.
    pub ack: u64,
    /// It has pushed its data up to this version.
    pub sync: u64,
    /// It knows that all have.
    pub sync_ack: u64,
}

/// Goes on with what is left after too much was lost; an addition of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecoverLayout {
    /// What was acknowledged may be lost, and that is accepted; without it, nothing is changed.
    #[serde(default)]
    pub accept_loss: bool,
}

/// What is left, and what was done about it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecoveredLayout {
    /// Partitions of which enough whole copies answered: nothing is lost there.
    pub sound_partitions: u64,
    /// Partitions with too few whole copies: what was acknowledged last may be lost.
    pub doubtful_partitions: Vec<u64>,
    /// Partitions without any whole copy.
    pub partitions_without_copy: Vec<u64>,
    /// Storage nodes that did not answer.
    pub silent_nodes: Vec<String>,
    /// The layout version that was forced; `null`: none was.
    pub forced_version: Option<u64>,
    /// The computation of that version.
    pub message: Vec<String>,
}

/// Stops waiting for dead nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SkipDeadNodes {
    /// Up to which version.
    pub version: u64,
    /// Even if data was only there.
    pub allow_missing_data: bool,
}

/// Whose trackers were raised.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SkippedNodes {
    /// Nodes whose `ack` was.
    pub ack_updated: Vec<String>,
    /// Nodes whose `sync` was.
    pub sync_updated: Vec<String>,
}
