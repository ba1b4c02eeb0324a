//! An operator who changes the layout while clients work and things break: adds, removes and replaces nodes, changes capacities, zones,
//! zone redundancy and the replication factor, and does not wait for the data to move.

use std::time::Duration;

use garage_net::NodeId;
use garage_rpc::layout::{LayoutVersion, Role, RoleChange, ZoneRedundancy};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{client::World, seed::Seed};

/// The longest pause between two changes.
const PAUSE_MAX_MS: u64 = 3_000;
/// The most storage nodes at a time.
const STORAGE_NODES_MAX: usize = 5;

/// The operator of a history.
pub struct Operator {
    /// The cluster that the clients see.
    pub world: World,
    /// Its choices.
    pub seed: Seed,
    /// Zones to choose from.
    pub zone_count: usize,
}

impl Operator {
    /// Changes the layout of these nodes until `over`.
    pub async fn run(mut self, ids: Vec<NodeId>, over: CancellationToken) {
        while !over.is_cancelled() {
            tokio::select! {
                biased;
                () = over.cancelled() => return,
                () = sleep(Duration::from_millis(self.seed.pick(PAUSE_MAX_MS))) => {}
            }
            self.change(&ids).await;
        }
    }

    async fn change(&mut self, ids: &[NodeId]) {
        let members = self.world.nodes.members();
        let Some(through) = members.get(self.seed.pick(members.len().max(1) as u64) as usize).copied() else { return };
        let Some((node, _)) = self.world.nodes.get(through) else { return };
        let current = node.cluster.layout().current().clone();
        let changes = self.choose(&current, ids);
        let (replication_factor, redundancy) = self.parameters(&current);
        let history = self.world.history.clone();
        history.note(|| format!("layout change through {through}: {changes:?}, {replication_factor:?} copies, zones {redundancy:?}"));
        let applied = self.world.ask(through, |node| async move {
            for (id, change) in changes {
                node.cluster.stage_role(id, change).await.map_err(|error| error.to_string())?;
            }
            let staged = node.cluster.update_layout(|history, stamp| {
                let factor = replication_factor.unwrap_or(history.current().replication_factor);
                history.staging_mut().stage_replication_factor(stamp, factor)?;
                Ok(history.staging_mut().stage_zone_redundancy(stamp, redundancy, factor)?)
            });
            staged.await.map_err(|error| error.to_string())?;
            let next = node.cluster.layout().current().version + 1;
            let outcome = node.cluster.apply_layout(next).await.map(|applied| applied.version).map_err(|error| error.to_string());
            if outcome.is_err() {
                node.cluster.revert_layout().await.map_err(|error| error.to_string())?;
            }
            outcome
        });
        let applied = applied.await;
        history.note(|| format!("layout change: {applied:?}"));
    }

    fn choose(&mut self, current: &LayoutVersion, ids: &[NodeId]) -> Vec<(NodeId, RoleChange)> {
        let storage = current.storage_nodes().to_vec();
        let others: Vec<NodeId> = ids.iter().copied().filter(|id| !storage.contains(id)).collect();
        let leaving = storage[self.seed.pick(storage.len() as u64) as usize];
        let joining = others.get(self.seed.pick(others.len().max(1) as u64) as usize).copied();
        match (self.seed.pick(6), joining) {
            (0 | 1, Some(joining)) if storage.len() < STORAGE_NODES_MAX => vec![(joining, self.role())],
            (0..=2, Some(joining)) => vec![(leaving, RoleChange::Remove), (joining, self.role())],
            (3, _) if current.replication_factor < storage.len() => vec![(leaving, RoleChange::Remove)],
            (4, Some(joining)) => {
                let zone = self.zone();
                vec![(joining, RoleChange::Assign(Role { zone, capacity_bytes: None, tags: Vec::new() }))]
            }
            _ => vec![(leaving, self.role())],
        }
    }

    fn parameters(&mut self, current: &LayoutVersion) -> (Option<usize>, ZoneRedundancy) {
        let factor = self.seed.one_in(4).then(|| [2, 3, 3][self.seed.pick(3) as usize]);
        let copies = factor.unwrap_or(current.replication_factor);
        let redundancy =
            if self.seed.one_in(3) { ZoneRedundancy::AtLeast(1 + self.seed.pick(copies as u64) as usize) } else { ZoneRedundancy::Maximum };
        (factor, redundancy)
    }

    fn zone(&mut self) -> String {
        format!("zone{}", self.seed.pick(self.zone_count as u64))
    }

    fn role(&mut self) -> RoleChange {
        let zone = self.zone();
        RoleChange::Assign(Role { zone, capacity_bytes: Some(1 << (36 + self.seed.pick(4))), tags: Vec::new() })
    }
}
