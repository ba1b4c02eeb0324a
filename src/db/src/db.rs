//! The handle to a node's local store: opening it, submitting operations, reading.
//!
//! Opening decides whether the store can be trusted. One that cannot be read, or has fewer commits than its note says were acknowledged,
//! is moved aside and replaced by an empty one with a new store id; [`Db::recovering`] says so until [`Db::recovered`] is called.

use std::sync::Arc;

use bytes::Bytes;
use garage_util::runtime::{Lane, Runtime};
use parking_lot::RwLock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::{
    committer::{self, Committed, Core, Message, Operation, TransactError},
    engine::{Change, Durability, Engine, EngineError, Keyspace, Snapshot, WriteBatch},
    limits::{OPERATION_WEIGHT_DEFAULT_BYTES, QUEUE_BYTES_MAX, QUEUE_OPERATIONS_MAX, QUEUE_PATIENCE},
    mark::{Mark, StoreId},
    transaction::Transaction,
};

pub(crate) const STORE_ID_KEY: &[u8] = b"store_id";
pub(crate) const RECOVERING_KEY: &[u8] = b"recovering";

/// How a store is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DbOptions {
    /// When an operation is answered (`metadata_fsync`).
    pub durability: Durability,
    /// Operations that may wait; one more waits outside for a place.
    pub queue_operations_max: usize,
    /// Their weight in bytes.
    pub queue_bytes_max: usize,
}

impl Default for DbOptions {
    fn default() -> Self {
        DbOptions { durability: Durability::Synced, queue_operations_max: QUEUE_OPERATIONS_MAX, queue_bytes_max: QUEUE_BYTES_MAX }
    }
}

/// Why the store could not be opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenError {
    /// The engine refused for a reason that an empty store would not mend.
    #[error("cannot open the metadata store: {0}")]
    Engine(#[from] EngineError),
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

/// Why reading failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DbError {
    /// The engine could not give a snapshot.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The node is stopping, or the reader panicked.
    #[error("the node is stopping, or a read failed unexpectedly")]
    Interrupted,
}

/// Why this store is not the one the node had before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The store could not be read.
    #[error("the metadata store could not be read ({what}) and was moved to {aside}")]
    Unreadable {
        /// What was wrong with it.
        what: String,
        /// Where it is now.
        aside: String,
    },
    /// The store had lost commits that were acknowledged.
    #[error("the metadata store came back with {recovered} commits of {acknowledged} acknowledged ones and was moved to {aside}")]
    LostCommits {
        /// Commits found.
        recovered: u64,
        /// Commits acknowledged.
        acknowledged: u64,
        /// Where it is now.
        aside: String,
    },
    /// The note beside the store belongs to another store.
    #[error("the metadata store {found} lay beside the note of store {expected} and was moved to {aside}")]
    Exchanged {
        /// The store found.
        found: String,
        /// The store that the note names.
        expected: StoreId,
        /// Where it is now.
        aside: String,
    },
    /// One of the above, found at an earlier start.
    #[error("{0}")]
    Earlier(String),
}

/// A node's local store. Cheap to clone.
#[derive(Clone)]
pub struct Db {
    inner: Arc<Inner>,
}

struct Inner {
    runtime: Runtime,
    core: Arc<Core>,
    recovering: RwLock<Option<Reason>>,
    is_new: bool,
    queue: mpsc::UnboundedSender<Message>,
    operation_places: Arc<Semaphore>,
    byte_places: Arc<Semaphore>,
    queue_bytes_max: usize,
}

impl Db {
    /// Opens the store of `engine`, or replaces one that cannot be trusted (see [`Db::recovering`]).
    ///
    /// Errors: what an empty store would not mend: another process has it open, a newer version wrote it, the system refuses access.
    pub async fn open(runtime: &Runtime, engine: Arc<dyn Engine>, options: DbOptions) -> Result<Db, OpenError> {
        let new_store_id = StoreId::random(runtime);
        let opening = engine.clone();
        let opened = runtime.blocking(Lane::Commit, move || open_store(&*opening, new_store_id)).await;
        let opened = opened.map_err(|_| OpenError::Stopping)??;
        let core = Arc::new(Core::new(engine, options.durability, opened.store_id, opened.commit_number));
        let (queue, receiver) = mpsc::unbounded_channel();
        runtime.spawn("committer", committer::run(runtime.clone(), core.clone(), receiver));
        let inner = Inner {
            runtime: runtime.clone(),
            core,
            recovering: RwLock::new(opened.recovering),
            is_new: opened.is_new,
            queue,
            operation_places: Arc::new(Semaphore::new(options.queue_operations_max)),
            byte_places: Arc::new(Semaphore::new(options.queue_bytes_max.min(u32::MAX as usize))),
            queue_bytes_max: options.queue_bytes_max.min(u32::MAX as usize),
        };
        Ok(Db { inner: Arc::new(inner) })
    }

    /// Runs `op` on the committer, in submission order, over everything committed or accepted before; commits it with whatever else
    /// waits; returns when it is durable. An error or panic of `op` leaves no trace.
    ///
    /// `op` must be short and must not block on anything but reads of its transaction. If this future is dropped before `op` runs,
    /// `op` may never run.
    pub async fn transact<T, E>(
        &self,
        op: impl FnOnce(&mut Transaction<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<Committed<T>, TransactError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        self.transact_weighing(OPERATION_WEIGHT_DEFAULT_BYTES, op).await
    }

    /// [`Db::transact`] for an operation that holds `weight_bytes` of data while it waits.
    pub async fn transact_weighing<T, E>(
        &self,
        weight_bytes: usize,
        op: impl FnOnce(&mut Transaction<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<Committed<T>, TransactError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        let places = self.admit(weight_bytes).await?;
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Operation::new(op, reply, places));
        self.inner.queue.send(Message::Job(job)).map_err(|_| TransactError::Stopping)?;
        answer.await.unwrap_or(Err(TransactError::Stopping))
    }

    async fn admit<E>(&self, weight_bytes: usize) -> Result<[OwnedSemaphorePermit; 2], TransactError<E>> {
        let inner = &self.inner;
        // An operation heavier than the whole queue would wait for ever: it goes alone.
        let weight = weight_bytes.clamp(1, inner.queue_bytes_max) as u32;
        let quick = (inner.operation_places.clone().try_acquire_owned(), inner.byte_places.clone().try_acquire_many_owned(weight));
        if let (Ok(operation), Ok(bytes)) = quick {
            return Ok([operation, bytes]);
        }
        let patient = async {
            let operation = inner.operation_places.clone().acquire_owned().await?;
            Ok::<_, tokio::sync::AcquireError>([operation, inner.byte_places.clone().acquire_many_owned(weight).await?])
        };
        match tokio::time::timeout(QUEUE_PATIENCE, patient).await {
            Ok(Ok(places)) => Ok(places),
            Ok(Err(_)) => Err(TransactError::Stopping),
            Err(_) => Err(TransactError::Overloaded),
        }
    }

    /// Runs `f` over a snapshot in `Lane::Read`.
    pub async fn read<T: Send + 'static>(&self, f: impl FnOnce(&dyn Snapshot) -> T + Send + 'static) -> Result<T, DbError> {
        let engine = self.inner.core.engine().clone();
        let read = self.inner.runtime.blocking(Lane::Read, move || engine.snapshot().map(|snapshot| f(&*snapshot))).await;
        Ok(read.map_err(|_| DbError::Interrupted)??)
    }

    /// A snapshot, for code that already runs in a blocking lane. Blocks.
    pub fn snapshot(&self) -> Result<Box<dyn Snapshot>, EngineError> {
        self.inner.core.engine().snapshot()
    }

    /// Names this store; a new one means that what the node had acknowledged before may be gone.
    pub fn store_id(&self) -> StoreId {
        self.inner.core.store_id()
    }

    /// The last acknowledged commit.
    pub fn commit_number(&self) -> u64 {
        self.inner.core.commit_number()
    }

    /// Whether this opening began the store: nothing that the node had before is in it.
    pub fn is_new(&self) -> bool {
        self.inner.is_new
    }

    /// Why this store has replaced another and is not yet refilled; `None` for a store in good standing.
    pub fn recovering(&self) -> Option<Reason> {
        self.inner.recovering.read().clone()
    }

    /// Notes, durably, that the store was refilled.
    pub async fn recovered(&self) -> Result<(), TransactError<EngineError>> {
        self.transact(|transaction| {
            transaction.delete(Keyspace::META, RECOVERING_KEY);
            Ok(())
        })
        .await?;
        *self.inner.recovering.write() = None;
        Ok(())
    }

    /// Commits what waits, syncs store and note, and takes no more operations; snapshots can still be read.
    pub async fn close(&self) -> Result<(), EngineError> {
        let (reply, answer) = oneshot::channel();
        if self.inner.queue.send(Message::Close(reply)).is_err() {
            return Ok(());
        }
        answer.await.unwrap_or(Err(EngineError::Closed))
    }
}

struct OpenedStore {
    store_id: StoreId,
    commit_number: u64,
    recovering: Option<Reason>,
    is_new: bool,
}

fn open_store(engine: &dyn Engine, new_store_id: StoreId) -> Result<OpenedStore, EngineError> {
    let reason = match engine.open() {
        Ok(()) => distrust(engine)?,
        Err(EngineError::Damaged { what }) => Some(Reason::Unreadable { what, aside: engine.set_aside()? }),
        Err(other) => return Err(other),
    };
    if let Some(reason) = &reason {
        tracing::error!("{reason}; this node starts with an empty one and refills it from the others");
    }
    let snapshot = engine.snapshot()?;
    let commit_number = engine.commit_number()?;
    let opened = match (stored_id(&*snapshot)?, reason) {
        (Some(store_id), None) => {
            let text = snapshot.get(Keyspace::META, RECOVERING_KEY)?;
            let recovering = text.map(|text| Reason::Earlier(String::from_utf8_lossy(&text).into_owned()));
            OpenedStore { store_id, commit_number, recovering, is_new: false }
        }
        (_, reason) => begin_store(engine, new_store_id, commit_number + 1, reason)?,
    };
    let mark = Mark { store_id: opened.store_id, commit_number: opened.commit_number };
    engine.write_mark(&mark, Durability::Synced)?;
    Ok(opened)
}

/// Compares the store with the note beside it; moves the store aside if it is not all that was acknowledged.
fn distrust(engine: &dyn Engine) -> Result<Option<Reason>, EngineError> {
    let Some(mark) = engine.read_mark()? else { return Ok(None) };
    let recovered = engine.commit_number()?;
    let found = stored_id(&*engine.snapshot()?)?;
    if recovered < mark.commit_number {
        let aside = engine.set_aside()?;
        return Ok(Some(Reason::LostCommits { recovered, acknowledged: mark.commit_number, aside }));
    }
    if found != Some(mark.store_id) {
        let found = found.map_or_else(|| "without id".to_string(), |id| id.to_string());
        return Ok(Some(Reason::Exchanged { found, expected: mark.store_id, aside: engine.set_aside()? }));
    }
    Ok(None)
}

fn stored_id(snapshot: &dyn Snapshot) -> Result<Option<StoreId>, EngineError> {
    let Some(bytes) = snapshot.get(Keyspace::META, STORE_ID_KEY)? else { return Ok(None) };
    let id = bytes.as_ref().try_into().map_err(|_| EngineError::Damaged { what: format!("the store id has {} bytes", bytes.len()) })?;
    Ok(Some(StoreId(id)))
}

/// Gives an empty store its id, with the reason why it had to be begun.
fn begin_store(engine: &dyn Engine, store_id: StoreId, commit_number: u64, recovering: Option<Reason>) -> Result<OpenedStore, EngineError> {
    let meta =
        |key: &'static [u8], value: Vec<u8>| Change { keyspace: Keyspace::META, key: Bytes::from_static(key), value: Some(value.into()) };
    let mut changes = vec![meta(STORE_ID_KEY, store_id.as_bytes().to_vec())];
    changes.extend(recovering.iter().map(|reason| meta(RECOVERING_KEY, reason.to_string().into_bytes())));
    engine.write(&WriteBatch { commit_number, changes }, Durability::Synced)?;
    Ok(OpenedStore { store_id, commit_number, recovering, is_new: true })
}
