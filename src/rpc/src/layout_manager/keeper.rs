//! Holds the layout history of this node; a change is durable before anyone sees it.
//!
//! Invariants:
//! - what `held` shows is on stable storage;
//! - a version is acknowledged only once no operation of this node that planned with an older one is under way;
//! - this node calls itself in sync with a version only if that version gave it nothing that it did not hold in sync before, or if the
//!   crate above says that it has brought what was missing.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use garage_net::{LayoutMark, NodeId, Refusal};
use garage_util::{
    changes::{Changes, Watcher},
    encoding::Stored,
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::ballot::BallotBox;
use crate::{
    layout::{LayoutDamaged, LayoutError, LayoutHistory, Trackers},
    message::code,
    state::{StateError, StateFiles},
};

const FILE: &str = "cluster_layout";

/// A change of the layout was refused, or could not be stored.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// The layout's rules forbid it.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The history would be damaged.
    #[error(transparent)]
    Damaged(#[from] LayoutDamaged),
    /// The dead nodes cannot be skipped.
    #[error(transparent)]
    Skip(#[from] crate::layout::SkipError),
    /// The disk refused.
    #[error(transparent)]
    State(#[from] StateError),
    /// No stamp could be given to it.
    #[error(transparent)]
    Clock(#[from] crate::clock::ClockError),
}

/// The history and what is derived from it once for each change.
pub(crate) struct Held {
    pub(crate) history: Arc<LayoutHistory>,
    /// The newest version, as it travels with calls.
    pub(crate) mark: LayoutMark,
    /// Of the whole history.
    pub(crate) digest: [u8; 32],
    /// Nodes with a role in a live version.
    pub(crate) members: BTreeSet<NodeId>,
    /// Nodes with a role in any version that is remembered.
    pub(crate) former_members: BTreeSet<NodeId>,
    /// Held by every operation that planned with this version.
    pub(crate) in_use: Arc<()>,
}

impl Held {
    fn new(history: LayoutHistory, in_use: Arc<()>) -> Held {
        let mark = LayoutMark { version: history.current().version, digest: history.current().digest() };
        let (digest, members, former_members) = (history.digest(), history.live_nodes(), history.remembered_nodes());
        Held { mark, digest, members, former_members, history: Arc::new(history), in_use }
    }
}

/// The layout of one node.
pub(crate) struct LayoutKeeper {
    local: NodeId,
    held: ArcSwap<Held>,
    files: StateFiles,
    /// One change at a time; also orders the saves.
    changing: tokio::sync::Mutex<()>,
    changed: Changes,
    /// Operations that planned with older versions and may still be under way.
    older_in_use: Mutex<Vec<Weak<()>>>,
    /// Whether the sync tracker is raised by [`crate::Cluster::layout_synced`] alone.
    syncs_by_caller: AtomicBool,
    /// Whether this node must not take part in agreements: it may have lost what it promised in one.
    abstains: AtomicBool,
    pub(super) ballots: tokio::sync::Mutex<BallotBox>,
    sync_wanted: Mutex<BTreeSet<NodeId>>,
    pub(super) sync_wakes: Notify,
}

impl LayoutKeeper {
    pub(crate) async fn open(local: NodeId, empty: LayoutHistory, files: StateFiles) -> Result<LayoutKeeper, StateError> {
        let history = match files.load::<LayoutHistory>(FILE).await? {
            Some(history) => {
                history.check().map_err(|error| files.damaged(FILE, error.to_string()))?;
                history
            }
            None => empty,
        };
        let ballots = BallotBox::open(files.clone()).await?;
        Ok(LayoutKeeper {
            local,
            held: ArcSwap::from_pointee(Held::new(history, Arc::new(()))),
            files,
            changing: tokio::sync::Mutex::new(()),
            changed: Changes::new(),
            older_in_use: Mutex::new(Vec::new()),
            syncs_by_caller: AtomicBool::new(false),
            abstains: AtomicBool::new(false),
            ballots: tokio::sync::Mutex::new(ballots),
            sync_wanted: Mutex::new(BTreeSet::new()),
            sync_wakes: Notify::new(),
        })
    }

    /// What holds now.
    pub(crate) fn held(&self) -> Arc<Held> {
        self.held.load_full()
    }

    pub(crate) fn changes(&self) -> Watcher {
        self.changed.watch()
    }

    /// Asks for the history to be compared with a peer's.
    pub(crate) fn want_sync(&self, node: NodeId) {
        if node != self.local && self.sync_wanted.lock().insert(node) {
            self.sync_wakes.notify_one();
        }
    }
    pub(super) fn take_wanted_syncs(&self) -> BTreeSet<NodeId> {
        std::mem::take(&mut self.sync_wanted.lock())
    }

    /// Changes the history; on return the change is durable and shown. An `Err` of `change` leaves no trace.
    pub(crate) async fn update<T, E: From<StateError>>(&self, change: impl FnOnce(&mut LayoutHistory) -> Result<T, E>) -> Result<T, E> {
        let _one_at_a_time = self.changing.lock().await;
        let held = self.held();
        let mut history = held.history.as_ref().clone();
        let value = change(&mut history)?;
        self.settle(&mut history, &held);
        if history == *held.history {
            return Ok(value);
        }
        self.files.save(FILE, &history).await?;
        let is_new_version = history.current().digest() != held.mark.digest;
        let in_use = if is_new_version {
            self.older_in_use.lock().push(Arc::downgrade(&held.in_use));
            Arc::new(())
        } else {
            held.in_use.clone()
        };
        drop(held);
        self.held.store(Arc::new(Held::new(history, in_use)));
        self.changed.tell();
        Ok(value)
    }

    /// Raises this node's trackers as far as they may go, and lets go of versions that nobody reads.
    fn settle(&self, history: &mut LayoutHistory, held: &Held) {
        let current = history.current().version;
        let (local, before) = (self.local, history.trackers(self.local));
        if !history.live_nodes().contains(&local) {
            return;
        }
        let is_newer_than_held = history.current().digest() != held.mark.digest;
        let mut older = self.older_in_use.lock();
        older.retain(|in_use| 0 < in_use.strong_count());
        // Operations that planned with the version held until now count as older ones once this change shows; the next look decides.
        let ack = if older.is_empty() && !is_newer_than_held { current } else { before.ack };
        drop(older);
        let raises_sync = !self.syncs_by_caller.load(Ordering::Relaxed) && Self::gained_nothing(history, local, before.sync);
        let sync = if raises_sync { current } else { before.sync };
        history.raise_trackers(local, Trackers { ack, sync, sync_ack: 0 });
        while history.follow(local) || history.advance() {}
    }

    /// Whether no live version after `synced` gives `node` a partition that it did not hold there, or nothing was stored before.
    fn gained_nothing(history: &LayoutHistory, node: NodeId, synced: u64) -> bool {
        if history.live().count() == 1 {
            return true;
        }
        let Some(before) = history.version(synced).filter(|version| version.is_ready()) else { return false };
        history.live().filter(|version| synced < version.version).all(|version| {
            // With fewer copies a quorum of the new nodes need not meet every quorum of the old ones, even if each was among them.
            before.replication_factor <= version.replication_factor
                && version.partitions_of(node).all(|partition| before.holds(node, partition))
        })
    }

    /// See [`crate::Cluster::sync_layout_by_hand`].
    pub(crate) fn sync_by_caller(&self) {
        self.syncs_by_caller.store(true, Ordering::Relaxed);
    }
    /// See [`crate::Cluster::abstain`].
    pub(crate) fn abstain(&self, abstains: bool) {
        self.abstains.store(abstains, Ordering::Relaxed);
    }
    pub(super) fn abstains(&self) -> bool {
        self.abstains.load(Ordering::Relaxed)
    }

    /// See [`crate::Cluster::layout_synced`].
    pub(crate) async fn synced(&self, version: u64) -> Result<(), UpdateError> {
        let local = self.local;
        self.update(|history| {
            let sync = version.min(history.current().version);
            history.raise_trackers(local, Trackers { sync, ..Trackers::default() });
            Ok(())
        })
        .await
    }

    /// Whether trackers may rise without a change from outside.
    pub(super) async fn look_again(&self) -> Result<(), StateError> {
        self.update(|_| Ok(())).await
    }

    /// See [`crate::Cluster::check_layout_mark`].
    pub(crate) fn check_mark(&self, mark: &LayoutMark) -> Result<(), Refusal> {
        let held = self.held();
        let acknowledged = held.history.trackers(self.local).ack;
        let is_other = mark.version == held.mark.version && mark.digest != held.mark.digest;
        if acknowledged <= mark.version && !is_other {
            return Ok(());
        }
        let message = format!("layout version {} is in force here, the call follows version {}", held.mark.version, mark.version);
        Err(Refusal { code: code::STALE_LAYOUT.to_string(), message, detail: Bytes::from(held.history.to_stored()) })
    }
}
