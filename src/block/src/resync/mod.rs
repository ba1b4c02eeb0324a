//! Keeps the blocks of a node as the layout and the references want them: fetches, hands over, deletes.
//!
//! Invariants:
//! - a block with a reference or a lease is never dropped, whatever the queue says;
//! - a hash is worked on by one worker at a time, and not tried again before its back-off allows, or a node on which it failed is back;
//! - a crash between any two steps leaves work to repeat, never work undone.
//!
//! Reading order: `decision` (what is to be done; pure), `queue` (what waits), `attend` (does it), `workers`, `walk` (looks at every
//! block, for repairs and after layout changes). Not here: block files (`store`), who drops references (`leases`).

mod attend;
pub mod decision;
pub mod queue;
mod walk;
mod workers;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use garage_net::NodeId;
use garage_util::{
    runtime::Runtime,
    workers::{Wake, Workers},
};
use parking_lot::Mutex;

pub use self::{queue::QueueError, walk::WalkKind, workers::ResyncSettings};
use crate::{hash::BlockHash, limits::RESYNC_WORKERS_MAX_COUNT, manager::BlockManager, reference::QueueEntry, resync::queue::BlockQueue};

/// Whether this node may delete blocks that nothing seems to need: not while its references may be incomplete.
pub type MayDelete = Arc<dyn Fn(BlockHash) -> bool + Send + Sync>;

/// What resync has done since the start, for metrics.
#[derive(Default, Debug)]
pub struct ResyncCounters {
    /// Blocks looked at.
    pub tries_count: AtomicU64,
    /// Of these, failed.
    pub errors_count: AtomicU64,
    /// Blocks fetched.
    pub received_count: AtomicU64,
    /// Blocks in the queue, at the last look through it.
    pub queued_count: AtomicU64,
    /// Of these, failed at their last try.
    pub errored_count: AtomicU64,
    /// Blocks handed to each node.
    pub sent_counts: Mutex<BTreeMap<NodeId, u64>>,
}

/// The resync of one node. Cheap to clone.
#[derive(Clone)]
pub struct Resync(Arc<Inner>);

struct Inner {
    runtime: Runtime,
    manager: BlockManager,
    queue: BlockQueue,
    may_delete: MayDelete,
    settings: ResyncSettings,
    ready: Mutex<Ready>,
    counters: ResyncCounters,
    feeder_wake: Wake,
    worker_wakes: [Wake; RESYNC_WORKERS_MAX_COUNT],
    walks: AtomicUsize,
    /// How often nodes came back.
    returns_count: AtomicU64,
}

/// Entries that are due.
#[derive(Default)]
struct Ready {
    waiting: VecDeque<(BlockHash, QueueEntry)>,
    /// Waiting or being worked on.
    taken: BTreeSet<BlockHash>,
}

impl Resync {
    /// Resync over a node's blocks; nothing happens before [`Resync::start`].
    pub fn new(runtime: Runtime, manager: BlockManager, may_delete: MayDelete) -> Resync {
        let queue = BlockQueue::new(manager.service().references().table_store().clone());
        let resync = Resync(Arc::new(Inner {
            runtime,
            queue,
            may_delete,
            settings: ResyncSettings::default(),
            ready: Mutex::default(),
            counters: ResyncCounters::default(),
            feeder_wake: Wake::default(),
            worker_wakes: std::array::from_fn(|_| Wake::default()),
            walks: AtomicUsize::new(0),
            returns_count: AtomicU64::new(0),
            manager,
        }));
        resync.0.manager.service().references().on_queued(resync.0.feeder_wake.clone());
        resync
    }

    /// Starts the workers.
    pub fn start(&self, workers: &Workers) {
        workers.start(workers::Feeder::new(self.clone()), self.0.feeder_wake.clone());
        for (index, wake) in self.0.worker_wakes.iter().enumerate() {
            workers.start(workers::ResyncWorker::new(self.clone(), index), wake.clone());
        }
    }

    /// How many workers, and how they rest.
    pub fn settings(&self) -> &ResyncSettings {
        &self.0.settings
    }
    /// What was done.
    pub fn counters(&self) -> &ResyncCounters {
        &self.0.counters
    }
    /// What waits.
    pub fn queue(&self) -> &BlockQueue {
        &self.0.queue
    }
    /// The blocks it works on.
    pub fn manager(&self) -> &BlockManager {
        &self.0.manager
    }

    /// Puts blocks in the queue, to be looked at now.
    pub async fn look_at(&self, hashes: Vec<BlockHash>) -> Result<(), QueueError> {
        self.0.queue.look_at(hashes).await?;
        self.0.feeder_wake.wake();
        Ok(())
    }

    /// These nodes have come back: what failed on them is looked at now.
    pub async fn nodes_are_back(&self, nodes: &BTreeSet<NodeId>) -> Result<(), QueueError> {
        // Before the look: a try that began earlier and fails later sees to itself.
        self.0.returns_count.fetch_add(1, Ordering::SeqCst);
        let mut after = None;
        loop {
            let batch = self.0.queue.after(after, crate::limits::QUEUE_SCAN_COUNT).await?;
            let Some((last, _)) = batch.last() else { return Ok(()) };
            after = Some(*last);
            let waits = |entry: &QueueEntry| entry.failed_on.iter().any(|node| nodes.contains(node));
            let waiting: Vec<BlockHash> = batch.into_iter().filter(|(_, entry)| waits(entry)).map(|(hash, _)| hash).collect();
            if !waiting.is_empty() {
                self.look_at(waiting).await?;
            }
        }
    }

    /// Empties the queue: for an operator who then asks for a repair of all blocks.
    pub async fn clear(&self) -> Result<(), QueueError> {
        loop {
            let batch = self.0.queue.after(None, crate::limits::QUEUE_SCAN_COUNT).await?;
            if batch.is_empty() {
                break;
            }
            self.0.queue.remove(batch.into_iter().map(|(hash, _)| hash).collect()).await?;
        }
        let mut ready = self.0.ready.lock();
        for (hash, _) in std::mem::take(&mut ready.waiting) {
            ready.taken.remove(&hash);
        }
        self.0.counters.queued_count.store(0, Ordering::Relaxed);
        self.0.counters.errored_count.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Entries whose last try failed, at most `limit_count`.
    pub async fn errored(&self, limit_count: usize) -> Result<Vec<(BlockHash, QueueEntry)>, QueueError> {
        let (mut errored, mut after) = (Vec::new(), None);
        loop {
            let batch = self.0.queue.after(after, crate::limits::QUEUE_SCAN_COUNT).await?;
            let Some((last, _)) = batch.last() else { return Ok(errored) };
            after = Some(*last);
            errored.extend(batch.into_iter().filter(|(_, entry)| 0 < entry.failed_count));
            if limit_count <= errored.len() {
                errored.truncate(limit_count);
                return Ok(errored);
            }
        }
    }

    /// Entries in the queue, and how many of them failed: counted now.
    pub async fn count(&self) -> Result<(u64, u64), QueueError> {
        let (mut queued_count, mut errored_count, mut after) = (0, 0, None);
        loop {
            let batch = self.0.queue.after(after, crate::limits::QUEUE_SCAN_COUNT).await?;
            let Some((last, _)) = batch.last() else { return Ok((queued_count, errored_count)) };
            after = Some(*last);
            queued_count += batch.len() as u64;
            errored_count += batch.iter().filter(|(_, entry)| 0 < entry.failed_count).count() as u64;
        }
    }
}

#[cfg(test)]
mod tests;
