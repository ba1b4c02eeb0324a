//! What a node does by itself to keep its data whole: starts the background workers and looks at all blocks when there is a reason to.
//!
//! Reading order: `marks` (versions in use), `liveness` (which versions live), `deaths` (what follows when one is superseded),
//! `repairs`, `aliases`, `block_info` and `purge` (for operators), `snapshots`, this file.
//! Not here: what the other workers do (each is beside what it works on).

pub mod aliases;
pub mod block_info;
pub mod deaths;
pub mod liveness;
pub mod marks;
pub mod purge;
pub mod repairs;
pub mod snapshots;

use std::{collections::BTreeSet, time::Duration};

use garage_block::resync::WalkKind;
use garage_net::NodeId;
use garage_util::workers::Wake;
use tokio::time::sleep;

use self::snapshots::{SnapshotOptions, SnapshotWorker};
use crate::node::Node;

/// How long after a change of the layout all blocks are looked at: several changes in a row cost one look.
const AFTER_LAYOUT_CHANGE: Duration = Duration::from_secs(5);

/// What goes on in the background.
#[derive(Clone)]
pub struct UpkeepOptions {
    /// Whether there is a scrub (not `disable_scrub`).
    pub is_scrub_enabled: bool,
    /// Snapshots of the metadata; `None`: none can be taken.
    pub snapshots: Option<SnapshotOptions>,
}

impl Default for UpkeepOptions {
    fn default() -> Self {
        UpkeepOptions { is_scrub_enabled: true, snapshots: None }
    }
}

/// Starts the workers of a node that is online.
pub fn start(node: &Node) {
    node.resync.start(&node.workers);
    node.leases.start(&node.workers);
    if let Some(interval) = node.snapshots.interval() {
        node.workers.start(SnapshotWorker::new(node.snapshots.clone(), interval), Wake::default());
    }
    if let Some(scrub) = &node.scrub {
        scrub.start(&node.workers);
    }
    node.workers.start(deaths::DeathWorker::new(node.clone()), Wake::default());
    let watching = node.clone();
    node.cluster.runtime().spawn("peer watch", async move { watch_peers(watching).await });
    if node.blocks.service().store().has_new_dir() {
        tracing::info!("a data directory is new: all blocks are looked at, and what is missing is fetched from the other nodes");
        node.resync.walk(WalkKind::Repair, &node.workers);
    }
    let watching = node.clone();
    node.cluster.runtime().spawn("layout watch", async move { watch_layout(watching).await });
}

/// Has the blocks looked at again that could not be attended to without a node, as soon as it is back.
async fn watch_peers(node: Node) {
    let mut changes = node.cluster.peer_changes();
    let mut up = BTreeSet::new();
    loop {
        let now: BTreeSet<NodeId> =
            node.cluster.status().into_iter().filter(|peer| peer.is_up && !peer.is_self).map(|peer| peer.node).collect();
        let back: BTreeSet<NodeId> = now.difference(&up).copied().collect();
        up = now;
        if !back.is_empty()
            && let Err(error) = node.resync.nodes_are_back(&back).await
        {
            tracing::warn!(%error, "blocks that wait for a node which is back are tried when their back-off ends");
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Looks at all blocks after each change of the layout: some have moved here, some away.
async fn watch_layout(node: Node) {
    let mut changes = node.cluster.layout_changes();
    let mut seen = versions(&node);
    while changes.changed().await.is_ok() {
        sleep(AFTER_LAYOUT_CHANGE).await;
        changes.mark_unchanged();
        let now = versions(&node);
        if std::mem::replace(&mut seen, now) != now {
            node.resync.walk(WalkKind::Repair, &node.workers);
        }
    }
}

/// The live versions of the layout: what decides where blocks belong.
fn versions(node: &Node) -> (u64, u64, u64) {
    let layout = node.cluster.layout();
    (layout.epoch(), layout.oldest_live(), layout.current().version)
}
