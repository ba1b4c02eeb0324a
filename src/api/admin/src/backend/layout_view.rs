//! Layouts, histories and computation reports as the interface shows them.

use garage_net::NodeId;
use garage_rpc::layout::{
    LayoutHistory as History, LayoutReport, LayoutVersion as Version, NodeReport, RoleChange as Change, VersionStatus, ZoneRedundancy,
    ZoneReport,
};
use garage_rpc::status::NodeStatus;

use crate::types::{
    Layout, LayoutHistory, LayoutParameters, LayoutRole, LayoutStatistics, LayoutVersion, LayoutVersionStatus, NodeProgress,
    NodeStatisticsInLayout, RoleChange, Trackers, ZoneRedundancy as WantedRedundancy, ZoneStatistics,
};

/// The current version and what is staged on it.
pub(super) fn with_staged(history: &History) -> Layout {
    let current = history.current();
    let staged_parameters = history.staging().zone_redundancy_change(current).map(parameters);
    let staged_role_changes = history.staged_role_changes().filter_map(|(node, change)| role_change(node, change)).collect();
    Layout { staged_role_changes, staged_parameters, ..alone(current) }
}

/// One version, nothing staged.
pub(super) fn alone(version: &Version) -> Layout {
    let counts = version.partition_counts();
    let roles = version.roles.iter().map(|(node, role)| LayoutRole {
        id: node.to_string(),
        zone: role.zone.clone(),
        tags: role.tags.clone(),
        capacity: role.capacity_bytes,
        stored_partitions: Some(counts.get(node).copied().unwrap_or(0) as u64),
        usable_capacity: Some(version.usable_capacity_bytes(*node)),
    });
    Layout {
        version: version.version,
        roles: roles.collect(),
        parameters: parameters(version.zone_redundancy),
        partition_size: version.partition_size_bytes,
        staged_role_changes: Vec::new(),
        staged_parameters: None,
    }
}

fn parameters(redundancy: ZoneRedundancy) -> LayoutParameters {
    let zone_redundancy = match redundancy {
        ZoneRedundancy::Maximum => WantedRedundancy::Maximum,
        ZoneRedundancy::AtLeast(count) => WantedRedundancy::AtLeast(count as u64),
    };
    LayoutParameters { zone_redundancy }
}

fn role_change(node: NodeId, change: &Change) -> Option<RoleChange> {
    let id = node.to_string();
    match change {
        Change::Keep => None,
        Change::Remove => Some(RoleChange::Remove { id, remove: true }),
        Change::Assign(role) => {
            Some(RoleChange::Assign { id, zone: role.zone.clone(), tags: role.tags.clone(), capacity: role.capacity_bytes })
        }
    }
}

/// All versions that are remembered, and how far nodes are while several live.
pub(super) fn history(history: &History, statuses: &[NodeStatus]) -> LayoutHistory {
    let versions = history.summaries().into_iter().map(|line| LayoutVersion {
        version: line.version,
        status: match line.status {
            VersionStatus::Current => LayoutVersionStatus::Current,
            VersionStatus::Draining => LayoutVersionStatus::Draining,
            VersionStatus::Historical => LayoutVersionStatus::Historical,
        },
        storage_nodes: line.storage_node_count as u64,
        gateway_nodes: line.gateway_node_count as u64,
    });
    let trackers = || {
        let of_node =
            |trackers: garage_rpc::layout::Trackers| Trackers { ack: trackers.ack, sync: trackers.sync, sync_ack: trackers.sync_ack };
        history.live_trackers().into_iter().map(|(node, trackers)| (node.to_string(), of_node(trackers))).collect()
    };
    LayoutHistory {
        current_version: history.current().version,
        min_ack: history.min_ack(),
        versions: versions.collect(),
        update_trackers: (history.oldest_live() < history.current().version).then(trackers),
        progress: statuses.iter().filter_map(|status| Some((status.node.to_string(), progress(status)?))).collect(),
    }
}

/// How far a node is; `None`: it has nothing to bring.
pub(super) fn progress(status: &NodeStatus) -> Option<NodeProgress> {
    let work = status.work;
    let is_busy = work.synced_count < work.needed_count || 0 < work.recovering_count || 0 < work.queued_blocks_count;
    is_busy.then_some(NodeProgress {
        version: work.version,
        partitions_needed: work.needed_count.into(),
        partitions_synced: work.synced_count.into(),
        partitions_recovering: work.recovering_count.into(),
        blocks_queued: work.queued_blocks_count,
        bytes_left: work.queued_blocks_count.saturating_mul(status.work.block_len_bytes.into()),
    })
}

/// A computation in numbers.
pub(super) fn statistics(report: &LayoutReport) -> LayoutStatistics {
    LayoutStatistics {
        replication_factor: report.replication_factor as u64,
        effective_zone_redundancy: report.effective_zone_redundancy as u64,
        partition_size: report.partition_size_bytes,
        previous_partition_size: report.previous_partition_size_bytes,
        low_partition_size: report.low_partition_size,
        usable_capacity: report.usable_capacity_bytes,
        total_capacity: report.total_capacity_bytes,
        effective_capacity: report.effective_capacity_bytes,
        low_usable_capacity: report.low_usable_capacity,
        total_moved_partitions: report.moved_partition_count.map(|count| count as u64),
        zones: report.zones.iter().map(zone).collect(),
    }
}

fn zone(report: &ZoneReport) -> ZoneStatistics {
    ZoneStatistics {
        name: report.name.clone(),
        nodes: report.nodes.iter().map(node).collect(),
        total_replicated_partitions: report.replicated_partition_count as u64,
        unique_partitions: report.unique_partition_count as u64,
        total_capacity: report.total_capacity_bytes,
        usable_capacity: report.usable_capacity_bytes,
    }
}

fn node(report: &NodeReport) -> NodeStatisticsInLayout {
    NodeStatisticsInLayout {
        id: report.id.to_string(),
        tags: report.tags.clone(),
        stored_partitions: report.partition_count as u64,
        new_partitions: report.new_partition_count as u64,
        total_capacity: report.total_capacity_bytes,
        usable_capacity: report.usable_capacity_bytes,
    }
}
