//! Asks whether the versions behind references live, when their leases end or somebody hints that they may be dead; confirms or drops.
//!
//! Invariants:
//! - a reference is dropped only on a verdict that is committed: [`Verdict::Dead`] promises that the version is not visible now and can
//!   never become so;
//! - a reference that is not settled is asked about again, for as long as it exists.
//!
//! Not here: how a verdict is reached (whoever implements [`Liveness`]), deleting blocks (`resync`).

pub mod due;
mod worker;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use futures::future::BoxFuture;
use garage_util::{
    hlc::Stamp,
    runtime::Runtime,
    workers::{Wake, Workers},
};
use serde_bytes::ByteBuf;

pub use self::due::DueError;
use self::due::DueQueue;
use crate::{hash::BlockHash, manager::BlockManager};

/// A version (or part) that a block is kept for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Question {
    /// Which.
    pub version: [u8; 32],
    /// Where in the group its row is; empty in references of older releases.
    pub owner: ByteBuf,
    /// The stamp under which its blocks were written, before its row.
    pub stamp: Stamp,
    /// A replica of its group has seen its row, and seen it superseded, some time ago: its coordinator has ended.
    pub was_seen: bool,
}

/// What is known of a version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is visible.
    Live,
    /// It is not visible yet and may become so, or is being read: ask again in a while.
    Pending,
    /// It is not visible and never will be again.
    Dead,
    /// Nobody could tell now.
    Unknown,
}

/// Tells whether versions live; implemented where rows are known.
pub trait Liveness: Send + Sync {
    /// A verdict for each question, in their order; all are about one group.
    fn ask(&self, group: Vec<u8>, questions: Vec<Question>) -> BoxFuture<'static, Vec<Verdict>>;
}

/// What was asked since the start, for metrics and tests.
#[derive(Default, Debug)]
pub struct LeaseCounters {
    /// References confirmed.
    pub confirmed_count: AtomicU64,
    /// References dropped.
    pub dropped_count: AtomicU64,
    /// References about which nobody could tell.
    pub unknown_count: AtomicU64,
    /// References that wait to be asked about now.
    pub due_count: AtomicU64,
}

/// The leases of one node. Cheap to clone.
#[derive(Clone)]
pub struct Leases(Arc<Inner>);

struct Inner {
    runtime: Runtime,
    manager: BlockManager,
    liveness: Arc<dyn Liveness>,
    queue: DueQueue,
    counters: LeaseCounters,
    wake: Wake,
}

impl Leases {
    /// Leases over a node's references; nothing happens before [`Leases::start`].
    pub fn new(runtime: Runtime, manager: BlockManager, liveness: Arc<dyn Liveness>) -> Leases {
        let queue = DueQueue::new(manager.service().references().table_store().clone());
        let leases =
            Leases(Arc::new(Inner { runtime, queue, liveness, counters: LeaseCounters::default(), wake: Wake::default(), manager }));
        leases.0.manager.service().references().on_hint(leases.0.wake.clone());
        leases
    }

    /// Starts the worker.
    pub fn start(&self, workers: &Workers) {
        workers.start(worker::LeaseWorker::new(self.clone()), self.0.wake.clone());
    }

    /// What was asked.
    pub fn counters(&self) -> &LeaseCounters {
        &self.0.counters
    }

    /// Asks about these references now, whatever their leases say.
    pub async fn ask_now(&self, references: Vec<(BlockHash, [u8; 32])>) -> Result<(), DueError> {
        self.0.queue.add_now(references, false).await?;
        self.0.wake.wake();
        Ok(())
    }

    fn count(&self, verdict: Verdict, references_count: usize) {
        let counter = match verdict {
            Verdict::Live => &self.0.counters.confirmed_count,
            Verdict::Dead => &self.0.counters.dropped_count,
            Verdict::Pending | Verdict::Unknown => &self.0.counters.unknown_count,
        };
        counter.fetch_add(references_count as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
