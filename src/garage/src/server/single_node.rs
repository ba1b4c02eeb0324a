//! The layout of a cluster of one: this node, in one zone, with the whole disk.

use garage_model::node::Node;
use garage_rpc::layout::{Role, RoleChange};
use garage_util::disk::{Disk, RealDisk};

use super::{Failure, progress, settings::Settings};

/// Capacity when the disk does not tell.
const CAPACITY_UNKNOWN_BYTES: u64 = 1 << 30;

/// Applies the layout at the first start; later starts leave it alone.
///
/// Errors: a layout that an operator made, other known nodes.
pub(super) async fn apply_layout(node: &Node, settings: &Settings) -> Result<(), Failure> {
    let cluster = &node.cluster;
    let version = cluster.layout().current().version;
    if 1 < version {
        return Err(
            format!("--single-node: the layout is at version {version}, so it was changed by hand; start without --single-node").into()
        );
    }
    if cluster.status().len() > 1 {
        return Err("--single-node: other nodes are known; start without --single-node".into());
    }
    if version == 1 {
        return Ok(());
    }
    progress("a cluster of one: this node takes everything");
    let data_dir = settings.config.data_dir.first().map(|dir| dir.path.clone()).unwrap_or_default();
    let capacity_bytes = RealDisk.space(&data_dir).map_or(CAPACITY_UNKNOWN_BYTES, |space| space.total_bytes);
    let role = Role { zone: "dc1".to_string(), capacity_bytes: Some(capacity_bytes), tags: vec!["default".to_string()] };
    cluster.stage_role(cluster.local(), RoleChange::Assign(role)).await?;
    cluster.apply_layout(1).await?;
    Ok(())
}
