//! The cluster as this node sees it: who is up, whether every partition has a quorum, dialling nodes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::{StreamExt, stream};
use garage_net::NodeId;
use garage_rpc::{
    layout::{LayoutHistory, Role},
    membership::SpaceLeft,
    status::NodeStatus,
};
use garage_util::hlc::SKEW_MAX_MS;

use super::{AdminApi, layout_view};
use crate::{
    AdminError,
    limits::{CONNECT_NODES_MAX, CONNECT_TIMEOUT, LOOKUPS_AT_ONCE},
    types::{ClusterHealth, ClusterStatus, ConnectResult, HealthStatus, Node, NodeRole, RefusedPeer, Space},
};

impl AdminApi {
    pub(super) fn cluster_status(&self) -> ClusterStatus {
        let layout = self.node.cluster.layout();
        let mut known: BTreeMap<NodeId, Option<NodeStatus>> = layout.live_nodes().into_iter().map(|node| (node, None)).collect();
        known.extend(self.node.cluster.status().into_iter().map(|status| (status.node, Some(status))));
        let correction_ms = self.node.cluster.clock_correction_ms();
        let nodes = known.into_iter().map(|(id, status)| node_view(id, status.as_ref(), &layout, correction_ms)).collect();
        ClusterStatus { layout_version: layout.current().version, nodes, refused: self.refused_peers() }
    }

    fn refused_peers(&self) -> Vec<RefusedPeer> {
        let cluster = &self.node.cluster;
        let known =
            cluster.status().into_iter().filter(|status| !status.is_up).filter_map(|status| {
                Some(RefusedPeer { id: Some(status.node.to_string()), address: status.address, reason: status.refused? })
            });
        let unknown = cluster.refused_addresses().into_iter();
        let unknown = unknown.map(|(address, reason)| RefusedPeer { id: None, address: Some(address.to_string()), reason });
        known.chain(unknown).collect()
    }

    /// Whether the cluster can serve, and the counts behind that.
    pub fn cluster_health(&self) -> ClusterHealth {
        let layout = self.node.cluster.layout();
        let status = self.node.cluster.status();
        let up: BTreeSet<NodeId> = status.iter().filter(|status| status.is_up).map(|status| status.node).collect();
        let storage = layout.live_storage_nodes();
        let storage_up = storage.intersection(&up).count();
        let Partitions { all, quorum, all_ok } = count_partitions(&layout, &up, self.node.cluster.consistency_mode());
        let verdict = match () {
            () if all == 0 || quorum < all => HealthStatus::Unavailable,
            () if storage_up < storage.len() => HealthStatus::Degraded,
            () => HealthStatus::Healthy,
        };
        ClusterHealth {
            status: verdict,
            known_nodes: status.len() as u64,
            connected_nodes: up.len() as u64,
            storage_nodes: storage.len() as u64,
            storage_nodes_up: storage_up as u64,
            partitions: all,
            partitions_quorum: quorum,
            partitions_all_ok: all_ok,
        }
    }

    pub(super) async fn connect_nodes(&self, nodes: Vec<String>) -> Result<Vec<ConnectResult>, AdminError> {
        if CONNECT_NODES_MAX < nodes.len() {
            return Err(AdminError::invalid(format!("{} nodes are named, at most {CONNECT_NODES_MAX} are allowed", nodes.len())));
        }
        let dialled = nodes.into_iter().map(|peer| async move {
            let error = self.connect_node(&peer).await.err();
            ConnectResult { success: error.is_none(), error }
        });
        Ok(stream::iter(dialled).buffered(LOOKUPS_AT_ONCE).collect().await)
    }

    async fn connect_node(&self, peer: &str) -> Result<(), String> {
        let malformed = || format!("{peer:?} is not a node address: give it as <id>@<host>:<port>");
        let (id, address) = peer.split_once('@').ok_or_else(malformed)?;
        let id: NodeId = id.parse().map_err(|_| malformed())?;
        if id == self.node.cluster.local() {
            return Ok(());
        }
        match tokio::time::timeout(CONNECT_TIMEOUT, self.node.cluster.connect(id, address)).await {
            Ok(dialled) => dialled.map_err(|error| error.to_string()),
            Err(_) => Err(format!("{address} did not answer within {} s", CONNECT_TIMEOUT.as_secs())),
        }
    }
}

/// Ring partitions: all of them, those with a write quorum up in every live version, those with every node up.
#[derive(Default)]
struct Partitions {
    all: u64,
    quorum: u64,
    all_ok: u64,
}

fn count_partitions(layout: &LayoutHistory, up: &BTreeSet<NodeId>, mode: garage_rpc::layout::ConsistencyMode) -> Partitions {
    let mut counts = Partitions::default();
    if !layout.current().is_ready() {
        return counts;
    }
    for partition in layout.current().partitions() {
        let sets = layout.write_sets(partition, mode);
        let up_in = |nodes: &[NodeId]| nodes.iter().filter(|node| up.contains(node)).count();
        counts.all += 1;
        counts.quorum += u64::from(sets.iter().all(|set| set.quorum <= up_in(&set.nodes)));
        counts.all_ok += u64::from(sets.iter().all(|set| set.nodes.len() == up_in(&set.nodes)));
    }
    counts
}

fn node_view(id: NodeId, status: Option<&NodeStatus>, layout: &LayoutHistory, correction_ms: i64) -> Node {
    // Seen from the clock that most nodes agree on.
    let ahead_ms = status.and_then(|status| status.clock_ahead_ms).map(|ahead_ms| ahead_ms - correction_ms);
    Node {
        id: id.to_string(),
        garage_version: status.and_then(|status| status.release.clone()),
        addr: status.and_then(|status| status.address.clone()),
        hostname: status.and_then(|status| status.hostname.clone()),
        is_up: status.is_some_and(|status| status.is_up),
        last_seen_secs_ago: status.and_then(|status| status.last_seen).map(|seen: Duration| seen.as_secs()),
        role: layout.current().role(id).map(role_view),
        draining: layout.is_draining(id),
        data_partition: status.and_then(|status| status.space.data).map(space_view),
        metadata_partition: status.and_then(|status| status.space.metadata).map(space_view),
        resync_queue_len: None,
        progress: status.and_then(layout_view::progress),
        clock_ahead_secs: ahead_ms.filter(|ahead_ms| SKEW_MAX_MS < ahead_ms.unsigned_abs()).map(|ahead_ms| ahead_ms / 1000),
    }
}

pub(super) fn role_view(role: &Role) -> NodeRole {
    NodeRole { zone: role.zone.clone(), tags: role.tags.clone(), capacity: role.capacity_bytes }
}

pub(super) fn space_view(space: SpaceLeft) -> Space {
    Space { available: space.available_bytes, total: space.total_bytes }
}
