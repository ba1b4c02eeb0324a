//! Gathers waiting operations, runs each over what was accepted before it, writes one batch, syncs once, answers all.
//!
//! Invariants:
//! - operations run one at a time, in the order they were accepted;
//! - an answer, good or bad, is given only once everything its operation may have read is durable;
//! - a batch that could not be written leaves nothing behind, and the next one starts from the engine opened again;
//! - a panic in an operation ends that operation only.
//!
//! Not here: the queue's bounds and the handle (`db`), what an operation sees (`transaction`).

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use garage_util::runtime::{Lane, Runtime};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    time::Instant,
};

use crate::{
    engine::{Durability, Engine, EngineError, WriteBatch},
    limits::{BATCH_BYTES_MAX, BATCH_OPERATIONS_MAX, MARK_SYNC_INTERVAL},
    mark::{Mark, StoreId},
    transaction::{Overlay, Transaction},
};

/// An operation's value, durable under a commit number. An operation that changed nothing carries the number of the last commit before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed<T> {
    /// What the operation returned.
    pub value: T,
    /// The commit that made it durable.
    pub commit_number: u64,
}

/// Why an operation was not committed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransactError<E> {
    /// The operation itself failed; it left no trace.
    #[error("{0}")]
    Operation(E),
    /// The disk is too full; nothing was changed.
    #[error(
        "the disk of the metadata directory has {available_bytes} bytes left and writes need {needed_bytes}; free space or lower metadata_min_free"
    )]
    StorageFull {
        /// Space left.
        available_bytes: u64,
        /// Space that has to be left (`metadata_min_free`).
        needed_bytes: u64,
    },
    /// The engine failed. The changes are gone, unless the node stops before its engine is opened again: then they may be found.
    #[error(transparent)]
    Engine(EngineError),
    /// The queue of the committer stayed full; nothing was changed.
    #[error("the metadata store is overloaded; try again later")]
    Overloaded,
    /// The node is stopping; the operation may or may not have been committed.
    #[error("the node is stopping")]
    Stopping,
    /// The operation panicked; it left no trace.
    #[error("an operation on the metadata store failed unexpectedly; please report the panic in the log")]
    Panicked,
}

impl<E> TransactError<E> {
    /// Changes the error of the operation and keeps all others.
    pub fn map<F>(self, change: impl FnOnce(E) -> F) -> TransactError<F> {
        match self {
            TransactError::Operation(error) => TransactError::Operation(change(error)),
            TransactError::StorageFull { available_bytes, needed_bytes } => TransactError::StorageFull { available_bytes, needed_bytes },
            TransactError::Engine(error) => TransactError::Engine(error),
            TransactError::Overloaded => TransactError::Overloaded,
            TransactError::Stopping => TransactError::Stopping,
            TransactError::Panicked => TransactError::Panicked,
        }
    }
}

impl<E> From<EngineError> for TransactError<E> {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::StorageFull { available_bytes, needed_bytes } => TransactError::StorageFull { available_bytes, needed_bytes },
            other => TransactError::Engine(other),
        }
    }
}

/// A waiting operation, its type erased.
pub(crate) trait Job: Send {
    /// Whether nobody waits for the answer any more.
    fn is_abandoned(&self) -> bool;
    /// Runs the operation. True: its changes count.
    fn run(&mut self, transaction: &mut Transaction<'_>) -> bool;
    /// Answers: the batch became durable under this number, or failed.
    fn answer(self: Box<Self>, outcome: &Result<u64, EngineError>);
}

/// An operation with what it returns.
pub(crate) struct Operation<T, E, F> {
    op: Option<F>,
    result: Option<Result<T, E>>,
    reply: oneshot::Sender<Result<Committed<T>, TransactError<E>>>,
    /// Places in the queue, given back when the operation is dropped.
    _places: [OwnedSemaphorePermit; 2],
}

impl<T, E, F> Operation<T, E, F> {
    pub(crate) fn new(op: F, reply: oneshot::Sender<Result<Committed<T>, TransactError<E>>>, places: [OwnedSemaphorePermit; 2]) -> Self {
        Operation { op: Some(op), result: None, reply, _places: places }
    }
}

impl<T: Send, E: Send, F: FnOnce(&mut Transaction<'_>) -> Result<T, E> + Send> Job for Operation<T, E, F> {
    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    fn run(&mut self, transaction: &mut Transaction<'_>) -> bool {
        self.result = self.op.take().map(|op| op(transaction));
        matches!(self.result, Some(Ok(_)))
    }

    fn answer(self: Box<Self>, outcome: &Result<u64, EngineError>) {
        let answer = match (outcome, self.result) {
            (Err(error), _) => Err(error.clone().into()),
            (Ok(commit_number), Some(Ok(value))) => Ok(Committed { value, commit_number: *commit_number }),
            (Ok(_), Some(Err(error))) => Err(TransactError::Operation(error)),
            (Ok(_), None) => Err(TransactError::Panicked),
        };
        // Nobody waits: the caller went away, and what it would have learnt is in the store.
        let _ = self.reply.send(answer);
    }
}

/// What reaches the committer.
pub(crate) enum Message {
    /// An operation to run.
    Job(Box<dyn Job>),
    /// Sync everything, answer, and take no more.
    Close(oneshot::Sender<Result<(), EngineError>>),
}

/// The committer's state. One thread at a time commits; the numbers are read from anywhere.
pub(crate) struct Core {
    engine: Arc<dyn Engine>,
    durability: Durability,
    store_id: StoreId,
    /// The last acknowledged commit.
    commit_number: AtomicU64,
    /// The commit that the synced note names.
    marked: AtomicU64,
    /// A write failed, so the engine has to be opened before the next.
    needs_open: AtomicBool,
    mark_failed: AtomicBool,
}

impl Core {
    pub(crate) fn new(engine: Arc<dyn Engine>, durability: Durability, store_id: StoreId, commit_number: u64) -> Core {
        let numbers = (AtomicU64::new(commit_number), AtomicU64::new(commit_number));
        let flags = (AtomicBool::new(false), AtomicBool::new(false));
        Core { engine, durability, store_id, commit_number: numbers.0, marked: numbers.1, needs_open: flags.0, mark_failed: flags.1 }
    }

    pub(crate) fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }
    pub(crate) fn store_id(&self) -> StoreId {
        self.store_id
    }
    pub(crate) fn commit_number(&self) -> u64 {
        self.commit_number.load(Ordering::Acquire)
    }

    /// Whether there is work for [`Core::maintain`].
    fn is_unsettled(&self) -> bool {
        self.needs_open.load(Ordering::Relaxed) || self.marked.load(Ordering::Relaxed) != self.commit_number()
    }

    /// Runs all jobs, in as many batches as their size asks for, and answers each.
    fn commit(&self, jobs: Vec<Box<dyn Job>>) {
        let mut waiting = jobs.into_iter();
        while !waiting.as_slice().is_empty() {
            let mut done = Vec::with_capacity(waiting.len());
            let outcome = self.commit_some(&mut waiting, &mut done);
            if done.is_empty() && outcome.is_err() {
                // The engine refused before the first operation ran; asking again for each of the rest would only keep them waiting.
                done.extend(waiting.by_ref());
            }
            for job in done {
                job.answer(&outcome);
            }
        }
    }

    /// Runs jobs until the batch is large enough, and writes it. The commit number under which all of `done` are durable.
    fn commit_some(&self, waiting: &mut std::vec::IntoIter<Box<dyn Job>>, done: &mut Vec<Box<dyn Job>>) -> Result<u64, EngineError> {
        self.ensure_open()?;
        let last_number = self.commit_number();
        let snapshot = self.engine.snapshot()?;
        let mut overlay = Overlay::default();
        while overlay.len_bytes() < BATCH_BYTES_MAX {
            let Some(mut job) = waiting.next() else { break };
            if job.is_abandoned() {
                continue;
            }
            let mut transaction = Transaction::new(&*snapshot, &mut overlay, last_number + 1);
            let succeeded = catch_unwind(AssertUnwindSafe(|| job.run(&mut transaction))).unwrap_or(false);
            if succeeded {
                overlay.keep()
            } else {
                overlay.roll_back()
            }
            done.push(job);
        }
        drop(snapshot);
        if overlay.is_empty() {
            return Ok(last_number);
        }
        self.write(&overlay.into_batch(last_number + 1))?;
        Ok(last_number + 1)
    }

    fn write(&self, batch: &WriteBatch) -> Result<(), EngineError> {
        let mut written = self.engine.write(batch, self.durability);
        if let Err(EngineError::Poisoned { .. }) = written {
            // The engine closed itself between two batches, so this one is still whole and gets its second chance.
            self.needs_open.store(true, Ordering::Relaxed);
            self.ensure_open()?;
            written = self.engine.write(batch, self.durability);
        }
        if let Err(error) = written {
            if !matches!(error, EngineError::StorageFull { .. }) {
                tracing::error!(commit_number = batch.commit_number, "the metadata store refused a batch: {error}");
                self.needs_open.store(true, Ordering::Relaxed);
            }
            return Err(error);
        }
        self.commit_number.store(batch.commit_number, Ordering::Release);
        if self.durability == Durability::Synced {
            // Not synced here: a killed process loses nothing of it, and a power cut is what the synced note of each second is for.
            self.note(Durability::Buffered);
        }
        Ok(())
    }

    /// Opens the engine again after a failure, and checks that it kept what was acknowledged.
    fn ensure_open(&self) -> Result<(), EngineError> {
        if !self.needs_open.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.engine.open()?;
        let (acknowledged, recovered) = (self.commit_number(), self.engine.commit_number()?);
        if recovered != acknowledged {
            let what =
                format!("opened again, it has {recovered} commits of {acknowledged}; restart this node, which moves the store aside");
            return Err(EngineError::Damaged { what });
        }
        self.needs_open.store(false, Ordering::Relaxed);
        tracing::warn!(
            commit_number = acknowledged,
            "the metadata store was opened again after a failure; every acknowledged commit is there"
        );
        Ok(())
    }

    /// Writes the note beside the store. A note that cannot be written is an older note, which is safe, so commits go on.
    fn note(&self, durability: Durability) {
        let mark = Mark { store_id: self.store_id, commit_number: self.commit_number() };
        match self.engine.write_mark(&mark, durability) {
            Ok(()) => self.mark_failed.store(false, Ordering::Relaxed),
            Err(error) if !self.mark_failed.swap(true, Ordering::Relaxed) => {
                tracing::warn!("the commit note could not be written: {error}")
            }
            Err(_) => {}
        }
    }

    /// What is due each second after commits: the synced note, and a new attempt to open a failed engine.
    fn maintain(&self) -> Result<(), EngineError> {
        self.ensure_open()?;
        let commit_number = self.commit_number();
        if self.marked.load(Ordering::Relaxed) != commit_number {
            if self.durability == Durability::Buffered {
                self.engine.sync()?;
            }
            self.note(Durability::Synced);
            self.marked.store(commit_number, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// The committer's task: ends when every handle is gone, after `Close`, or when the node stops.
pub(crate) async fn run(runtime: Runtime, core: Arc<Core>, mut queue: mpsc::UnboundedReceiver<Message>) {
    let mut maintenance_due = Instant::now() + MARK_SYNC_INTERVAL;
    let mut trouble_before = None;
    loop {
        let mut messages = Vec::new();
        let received_count = tokio::select! {
            biased;
            // A receive that loses leaves its messages in the queue.
            count = queue.recv_many(&mut messages, BATCH_OPERATIONS_MAX) => Some(count),
            () = tokio::time::sleep_until(maintenance_due), if core.is_unsettled() => None,
        };
        let ended = received_count == Some(0) || handle(&runtime, &core, messages, &mut queue).await;
        if ended || maintenance_due <= Instant::now() {
            let worker = core.clone();
            let trouble = match runtime.blocking(Lane::Commit, move || worker.maintain()).await {
                Ok(Err(error)) => Some(error),
                Ok(Ok(())) | Err(_) => None,
            };
            if let Some(error) = trouble.as_ref().filter(|_| trouble_before.is_none()) {
                tracing::warn!("the metadata store does not recover yet, this node goes on trying: {error}");
            }
            trouble_before = trouble;
            maintenance_due = Instant::now() + MARK_SYNC_INTERVAL;
        }
        if ended {
            return;
        }
    }
}

/// Commits the jobs among `messages` together. True: the store was told to close, and was.
async fn handle(runtime: &Runtime, core: &Arc<Core>, messages: Vec<Message>, queue: &mut mpsc::UnboundedReceiver<Message>) -> bool {
    let mut jobs = Vec::with_capacity(messages.len());
    let mut closing = Vec::new();
    for message in messages {
        match message {
            Message::Job(job) => jobs.push(job),
            Message::Close(reply) => closing.push(reply),
        }
    }
    if !jobs.is_empty() {
        let worker = core.clone();
        // An interruption drops the jobs, and each caller learns from its dropped reply that the node stops.
        let _ = runtime.blocking(Lane::Commit, move || worker.commit(jobs)).await;
    }
    if closing.is_empty() {
        return false;
    }
    queue.close();
    let worker = core.clone();
    let settled = runtime.blocking(Lane::Commit, move || worker.engine.sync().and_then(|()| worker.maintain())).await;
    let settled = settled.unwrap_or(Err(EngineError::Closed));
    for reply in closing {
        let _ = reply.send(settled.clone());
    }
    true
}
