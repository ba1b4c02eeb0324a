//! Staging, previewing, applying and reverting layout changes; giving up on dead nodes.

use std::collections::{BTreeMap, BTreeSet};

use garage_net::NodeId;
use garage_rpc::layout::{Role, RoleChange as Change, ZoneRedundancy};
use garage_util::runtime::Lane;

use super::{AdminApi, layout_view};
use crate::{
    AdminError,
    types::{
        Layout, LayoutApply, LayoutHistory, LayoutPreview, LayoutUpdate, RecoverLayout, RecoveredLayout, RoleChange, SkipDeadNodes,
        SkippedNodes, ZoneRedundancy as WantedRedundancy,
    },
};

impl AdminApi {
    pub(super) fn layout(&self) -> Layout {
        layout_view::with_staged(&self.node.cluster.layout())
    }

    pub(super) fn layout_history(&self) -> LayoutHistory {
        layout_view::history(&self.node.cluster.layout(), &self.node.cluster.status())
    }

    /// Stages all changes or none.
    pub(super) async fn update_layout(&self, update: LayoutUpdate) -> Result<Layout, AdminError> {
        // One stamp covers the whole update, so of several changes to one node only the last is staged.
        let roles = update.roles.into_iter().map(read_change).collect::<Result<BTreeMap<NodeId, Change>, AdminError>>()?;
        let redundancy = update.parameters.map(|wanted| read_redundancy(wanted.zone_redundancy));
        let staged = self.node.cluster.update_layout(|history, stamp| {
            let replication_factor = history.replication_factor_after_staging();
            for (node, change) in roles {
                history.staging_mut().stage_role(stamp, node, change)?;
            }
            if let Some(redundancy) = redundancy {
                history.staging_mut().stage_zone_redundancy(stamp, redundancy, replication_factor)?;
            }
            Ok(())
        });
        staged.await?;
        Ok(self.layout())
    }

    pub(super) async fn preview_layout(&self) -> Result<LayoutPreview, AdminError> {
        let history = self.node.cluster.layout();
        // A large cluster's assignment takes a while to compute; no async worker is held up for it.
        let computed = self.node.cluster.runtime().blocking(Lane::Compute, move || history.preview()).await;
        let computed = computed.map_err(|_| AdminError::unavailable("this node is stopping; ask another one"))?;
        Ok(match computed {
            Err(error) => LayoutPreview::Failure { error: error.to_string() },
            Ok((version, report)) => LayoutPreview::Success {
                message: report.lines(),
                statistics: Some(Box::new(layout_view::statistics(&report))),
                new_layout: Box::new(layout_view::alone(&version)),
            },
        })
    }

    pub(super) async fn apply_layout(&self, version: u64) -> Result<LayoutApply, AdminError> {
        let applied = self.node.cluster.apply_layout(version).await?;
        Ok(LayoutApply {
            message: applied.report.lines(),
            statistics: Some(layout_view::statistics(&applied.report)),
            layout: self.layout(),
        })
    }

    pub(super) async fn revert_layout(&self) -> Result<Layout, AdminError> {
        self.node.cluster.revert_layout().await?;
        Ok(self.layout())
    }

    /// Tells what is left; applies the staged changes by force if the loss is accepted.
    pub(super) async fn recover_layout(&self, recover: RecoverLayout) -> Result<RecoveredLayout, AdminError> {
        let copies = self.node.syncer.count_copies().await;
        let applied = if recover.accept_loss { Some(self.node.cluster.force_layout().await?) } else { None };
        let numbers = |partitions: Vec<u8>| partitions.into_iter().map(u64::from).collect();
        Ok(RecoveredLayout {
            sound_partitions: copies.sound_count as u64,
            doubtful_partitions: numbers(copies.doubtful),
            partitions_without_copy: numbers(copies.without_copy),
            silent_nodes: copies.silent.iter().map(NodeId::to_string).collect(),
            forced_version: applied.as_ref().map(|applied| applied.version),
            message: applied.map(|applied| applied.report.lines()).unwrap_or_default(),
        })
    }

    pub(super) async fn skip_dead_nodes(&self, skip: SkipDeadNodes) -> Result<SkippedNodes, AdminError> {
        let cluster = &self.node.cluster;
        let dead: BTreeSet<NodeId> = cluster.layout().live_nodes().into_iter().filter(|node| !cluster.is_up(*node)).collect();
        let skipped = cluster
            .update_layout(|history, _| history.skip_dead_nodes(skip.version, &dead, skip.allow_missing_data).map_err(Into::into))
            .await?;
        let names = |nodes: Vec<NodeId>| nodes.iter().map(NodeId::to_string).collect();
        Ok(SkippedNodes { ack_updated: names(skipped.ack_updated), sync_updated: names(skipped.sync_updated) })
    }
}

fn read_change(change: RoleChange) -> Result<(NodeId, Change), AdminError> {
    let id: NodeId = change.id().parse().map_err(|error| AdminError::invalid(format!("{error}")))?;
    match change {
        RoleChange::Remove { remove: false, .. } => {
            Err(AdminError::invalid(format!("node {}: remove must be true or left out", id.short())))
        }
        RoleChange::Remove { .. } => Ok((id, Change::Remove)),
        RoleChange::Assign { zone, tags, capacity, .. } => Ok((id, Change::Assign(Role { zone, capacity_bytes: capacity, tags }))),
    }
}

fn read_redundancy(wanted: WantedRedundancy) -> ZoneRedundancy {
    match wanted {
        WantedRedundancy::Maximum => ZoneRedundancy::Maximum,
        WantedRedundancy::AtLeast(count) => ZoneRedundancy::AtLeast(usize::try_from(count).unwrap_or(usize::MAX)),
    }
}
