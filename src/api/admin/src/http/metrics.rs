//! `/metrics`: what this node can say of itself and of the cluster as it sees it, in the Prometheus text format.
//!
//! Names and labels are those that dashboards know: counters without the suffix `_total`, node ids shortened to 16 digits.

use std::{fmt, time::Duration};

use garage_api_common::metrics::{Labels, RequestMetrics};
use garage_rpc::{layout::Role, membership::SpaceLeft};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, text::encode},
    metrics::MetricType,
    registry::Registry,
};

use crate::{AdminApi, find_endpoint, types::HealthStatus};

/// All metrics of this node.
pub(super) struct Metrics {
    registry: Registry,
    requests: RequestMetrics,
}

impl Metrics {
    /// `registry` holds what the other fronts count.
    pub(super) fn new(api: &AdminApi, mut registry: Registry) -> Metrics {
        let requests = RequestMetrics::register(&mut registry, "api_admin", "requests to the admin API over HTTP");
        registry.register_collector(Box::new(NodeCollector(api.clone())));
        Metrics { registry, requests }
    }

    /// Counts a finished request.
    pub(super) fn note_request(&self, path: &str, status: u16, took: Duration) {
        let failure = (400 <= status).then(|| status.to_string());
        self.requests.note(vec![("api_endpoint", label_of_path(path).to_string())], failure, took);
    }

    pub(super) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        // The end mark belongs to OpenMetrics; in the older format it would be a stray comment.
        Ok(text.strip_suffix("# EOF\n").map(str::to_string).unwrap_or(text))
    }
}

/// The path, unless it is none of ours: whoever asks for random paths must not fill the memory with series.
fn label_of_path(path: &str) -> &str {
    let is_known =
        matches!(path, "/health" | "/check" | "/metrics") || path.strip_prefix("/v2/").is_some_and(|name| find_endpoint(name).is_some());
    if is_known { path } else { "unknown" }
}

/// Reads gauges at each scrape.
struct NodeCollector(AdminApi);

impl fmt::Debug for NodeCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeCollector")
    }
}

impl Collector for NodeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        self.build_info(&mut encoder)?;
        self.disks(&mut encoder)?;
        self.health(&mut encoder)?;
        self.layout_nodes(&mut encoder)?;
        super::metrics_blocks::encode(&mut encoder, self.0.node())
    }
}

impl NodeCollector {
    fn build_info(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let options = self.0.options();
        let labels: Labels = vec![("version", options.version.clone()), ("rustversion", options.rust_version.clone())];
        series(encoder, "garage_build_info", "What this node runs", [(labels, 1)])?;
        let replication_factor = self.0.node().cluster.layout().current().replication_factor as u64;
        gauge(encoder, "garage_replication_factor", "Copies of everything", replication_factor)
    }

    fn disks(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let own = self.0.node().cluster.status().into_iter().find(|status| status.is_self);
        let space = own.map(|status| status.space).unwrap_or_default();
        let volumes = [("data", space.data), ("metadata", space.metadata)];
        let of = |value: fn(SpaceLeft) -> u64| {
            let known = volumes.into_iter().filter_map(|(volume, space)| space.map(|space| (volume, space)));
            known.map(|(volume, space)| (vec![("volume", volume.to_string())], value(space))).collect::<Vec<_>>()
        };
        series(encoder, "garage_local_disk_avail", "Bytes free on the file system", of(|space| space.available_bytes))?;
        series(encoder, "garage_local_disk_total", "Bytes of the file system", of(|space| space.total_bytes))
    }

    fn health(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let health = self.0.cluster_health();
        for (name, help, value) in [
            ("cluster_healthy", "1 if all storage nodes are up", u64::from(health.status == HealthStatus::Healthy)),
            ("cluster_available", "1 if every partition has a quorum", u64::from(health.status != HealthStatus::Unavailable)),
            ("cluster_known_nodes", "Nodes seen since the start", health.known_nodes),
            ("cluster_connected_nodes", "Of these, those that are up", health.connected_nodes),
            ("cluster_storage_nodes", "Storage nodes of all live layout versions", health.storage_nodes),
            ("cluster_storage_nodes_ok", "Of these, those that are up", health.storage_nodes_up),
            ("cluster_partitions", "Partitions of the ring", health.partitions),
            ("cluster_partitions_quorum", "Of these, those with a write quorum", health.partitions_quorum),
            ("cluster_partitions_all_ok", "Of these, those with all nodes up", health.partitions_all_ok),
        ] {
            gauge(encoder, name, help, value)?;
        }
        Ok(())
    }

    fn layout_nodes(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let cluster = &self.0.node().cluster;
        let (layout, status) = (cluster.layout(), cluster.status());
        let nodes: Vec<_> = layout.live_nodes().into_iter().collect();
        let labels = |node| node_labels(node, layout.current().role(node));
        let connected: Vec<_> = nodes.iter().map(|node| (labels(*node), u64::from(cluster.is_up(*node)))).collect();
        let silent = |node: &garage_net::NodeId| {
            let seen = status.iter().find(|status| status.node == *node)?;
            let silence = if seen.is_up { Duration::ZERO } else { seen.last_seen? };
            Some((labels(*node), silence.as_secs()))
        };
        let silent: Vec<_> = nodes.iter().filter_map(silent).collect();
        series(encoder, "cluster_layout_node_connected", "1 if the node is up", connected)?;
        series(encoder, "cluster_layout_node_disconnected_time", "Seconds since the node was last heard", silent)
    }
}

fn node_labels(node: garage_net::NodeId, role: Option<&Role>) -> Labels {
    let mut labels = vec![("id", node.short())];
    if let Some(role) = role {
        labels.extend(role.capacity_bytes.map(|capacity_bytes| ("role_capacity", capacity_bytes.to_string())));
        labels.push(("role_gateway", u64::from(role.capacity_bytes.is_none()).to_string()));
        labels.push(("role_zone", role.zone.clone()));
    }
    labels
}

pub(super) fn gauge(encoder: &mut DescriptorEncoder, name: &str, help: &str, value: u64) -> fmt::Result {
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
}

fn series(encoder: &mut DescriptorEncoder, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, u64)>) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in values {
        metric.encode_family(&labels)?.encode_gauge(&value)?;
    }
    Ok(())
}
