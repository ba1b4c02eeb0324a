//! What this node says of itself.

use garage_rpc::status::NodeStatus;

use super::{
    AdminApi,
    cluster::{role_view, space_view},
};
use crate::{
    AdminError,
    types::{ConnectionParameters, NodeInfo, NodeStatistics},
};

impl AdminApi {
    pub(super) fn node_info(&self) -> NodeInfo {
        let cluster = &self.node.cluster;
        let layout = cluster.layout();
        let own: Option<NodeStatus> = cluster.status().into_iter().find(|status| status.is_self);
        let space = own.as_ref().map(|status| status.space).unwrap_or_default();
        NodeInfo {
            node_id: cluster.local().to_string(),
            hostname: own.as_ref().and_then(|status| status.hostname.clone()),
            garage_version: self.options.version.clone(),
            garage_features: self.options.features.clone(),
            rust_version: self.options.rust_version.clone(),
            db_engine: self.options.db_engine.clone(),
            connection_parameters: Some(self.connection_parameters()),
            addr: own.as_ref().and_then(|status| status.address.clone()),
            is_up: Some(true),
            role: layout.current().role(cluster.local()).map(role_view),
            draining: Some(layout.is_draining(cluster.local())),
            data_partition: space.data.map(space_view),
            metadata_partition: space.metadata.map(space_view),
        }
    }

    fn connection_parameters(&self) -> ConnectionParameters {
        ConnectionParameters {
            region: self.options.region.clone(),
            s3_endpoint: self.options.s3_endpoint.clone(),
            s3_use_path_style: Some(self.options.s3_path_style),
            k2v_endpoint: self.options.k2v_endpoint.clone(),
        }
    }

    /// Counts that this node keeps. Tables and block references are not counted in this release, so these fields are left out.
    pub(super) async fn node_statistics(&self) -> Result<NodeStatistics, AdminError> {
        let db = &self.node.db;
        let lines = [
            format!("metadata store: {} at commit {}", db.store_id().short(), db.commit_number()),
            format!("block buffers free: {} bytes", self.node.blocks.ram_buffer_free_bytes()),
        ];
        Ok(NodeStatistics { freeform: lines.join("\n"), table_stats: None, block_manager_stats: None })
    }
}
