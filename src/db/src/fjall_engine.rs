//! The storage engine of real nodes: fjall, opened only on journals that were checked, and opened again in process after a failure.
//!
//! Invariants:
//! - after a failed write nothing is written until the store was opened again, without what failed; reads go on meanwhile;
//! - the old handle is gone before the store is opened again: two handles would write the same files;
//! - below the reserve of free space nothing is written, so that flushes and compactions still have room.
//!
//! Not here: the journals' format (`journal`), files beside fjall's (`store_dir`).

use std::{
    io,
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use fjall::{CompressionType, Database, KeyspaceCreateOptions, KvSeparationOptions, PersistMode, Readable};
use garage_util::disk::{Disk, RealDisk};
use parking_lot::{Mutex, RwLock};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    engine::{COMMIT_NUMBER_KEY, Direction, Durability, Engine, EngineError, Keyspace, KeyspaceSpec, RangeIterator, Snapshot, WriteBatch},
    journal::{CHECK_KEY, Check},
    lease::{Lease, Leases},
    limits::{
        BLOCK_CACHE_DEFAULT_BYTES, JOURNAL_LIMIT_DEFAULT_BYTES, JOURNAL_LIMIT_MIN_BYTES, LEVEL0_TABLES_MAX, MEMTABLE_BYTES,
        METADATA_MIN_FREE_DEFAULT_BYTES, OPEN_FILES_MAX, READERS_DRAIN_MAX, READERS_POLITE_WAIT, SEALED_MEMTABLES_MAX, WORKERS_MAX,
        WORKERS_MIN,
    },
    mark::Mark,
    memory::{decode_commit_number, is_empty_range},
    store_dir::{self, Note},
};

const META_KEYSPACE: &str = "garage_meta";
const BACK_PRESSURE_PAUSE: Duration = Duration::from_millis(2);

/// How a fjall store is kept.
#[derive(Clone)]
pub struct FjallOptions {
    /// The store's directory; made if missing.
    pub path: PathBuf,
    /// The keyspaces; names on disk are for ever, the order is not.
    pub specs: Vec<KeyspaceSpec>,
    /// Memory for blocks read from tables.
    pub block_cache_bytes: u64,
    /// Journals above this make fjall flush what holds the oldest; at least 64 MiB.
    pub journal_limit_bytes: u64,
    /// Space below which writes are refused (`metadata_min_free`).
    pub min_free_bytes: u64,
    /// Tells how much space is left; tests put their own here.
    pub disk: Arc<dyn Disk>,
}

impl FjallOptions {
    /// The defaults for a store at `path`.
    pub fn new(path: impl Into<PathBuf>, specs: &[KeyspaceSpec]) -> FjallOptions {
        FjallOptions {
            path: path.into(),
            specs: specs.to_vec(),
            block_cache_bytes: BLOCK_CACHE_DEFAULT_BYTES,
            journal_limit_bytes: JOURNAL_LIMIT_DEFAULT_BYTES,
            min_free_bytes: METADATA_MIN_FREE_DEFAULT_BYTES,
            disk: Arc::new(RealDisk),
        }
    }
}

/// fjall behind the engine trait. Made closed.
pub struct FjallEngine {
    options: FjallOptions,
    handle: RwLock<Option<Arc<Handle>>>,
    readers: Arc<Leases>,
    state: Mutex<State>,
}

/// What writes need; only the committer takes it, so it is never waited for.
#[derive(Default)]
struct State {
    /// Why the store has to be opened again.
    failed: Option<String>,
    /// The last commit written since the store was opened first; a reopening goes back to it.
    acknowledged: Option<u64>,
    salt: u64,
    note: Option<Note>,
    planned_failures: usize,
}

/// An open store. The keyspaces go before the database: it waits for its workers when dropped.
struct Handle {
    keyspaces: Vec<fjall::Keyspace>,
    database: Database,
}

impl FjallEngine {
    /// An engine over the store at `options.path`, not yet open.
    pub fn new(options: FjallOptions) -> FjallEngine {
        FjallEngine { options, handle: RwLock::new(None), readers: Arc::default(), state: Mutex::default() }
    }

    /// Makes the next `count` writes fail as if the disk had: for tests of what follows.
    pub fn fail_writes(&self, count: usize) {
        self.state.lock().planned_failures = count;
    }

    fn handle(&self) -> Result<Arc<Handle>, EngineError> {
        self.handle.read().clone().ok_or(EngineError::Closed)
    }

    fn check_space(&self) -> Result<(), EngineError> {
        let path = &self.options.path;
        let existing = if path.exists() { path.as_path() } else { path.parent().unwrap_or(path) };
        let space = self
            .options
            .disk
            .space(existing)
            .map_err(|error| EngineError::io(format!("asking for free space at {}", path.display()), &error))?;
        if space.available_bytes < self.options.min_free_bytes {
            return Err(EngineError::StorageFull { available_bytes: space.available_bytes, needed_bytes: self.options.min_free_bytes });
        }
        Ok(())
    }

    /// Waits until no reader uses the handle, and drops it. Readers come first for a while, then new ones wait.
    fn close(&self) -> Result<(), EngineError> {
        self.readers.wait_for_none(READERS_POLITE_WAIT);
        let mut slot = self.handle.write();
        if !self.readers.wait_for_none(READERS_DRAIN_MAX) {
            let cause = format!("{} reads have not ended for {READERS_DRAIN_MAX:?}", self.readers.count());
            return Err(EngineError::Poisoned { cause });
        }
        drop(slot.take());
        Ok(())
    }

    fn open_handle(&self, state: &mut State) -> Result<(), EngineError> {
        let mark = store_dir::read_note(&self.options.path)?;
        let salt = mark.as_ref().map(salt_of);
        let journalled = store_dir::prepare(&self.options.path, salt, state.acknowledged)?;
        let opened = catch_unwind(AssertUnwindSafe(|| Handle::open(&self.options)));
        let handle = opened
            .unwrap_or_else(|_| Err(EngineError::Damaged { what: format!("{}: fjall gave up on it", self.options.path.display()) }))?;
        let stored = handle.commit_number()?;
        if journalled.is_some_and(|journalled| stored < journalled) {
            let what = format!("{}: {stored} commits after reading {journalled:?} from the journals", self.options.path.display());
            return Err(EngineError::Damaged { what });
        }
        state.acknowledged = Some(stored);
        state.salt = salt.unwrap_or_default();
        *self.handle.write() = Some(Arc::new(handle));
        Ok(())
    }
}

impl Engine for FjallEngine {
    fn open(&self) -> Result<(), EngineError> {
        let mut state = self.state.lock();
        if self.handle.read().is_some() {
            if state.failed.is_none() {
                return Ok(());
            }
            // Without space it would only fail again, and the old handle still reads.
            self.check_space()?;
            self.close()?;
        }
        self.open_handle(&mut state)?;
        state.failed = None;
        Ok(())
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, EngineError> {
        let slot = self.handle.read();
        let handle = slot.as_ref().ok_or(EngineError::Closed)?.clone();
        let lease = Leases::take(&self.readers);
        Ok(Box::new(FjallSnapshot { snapshot: handle.database.snapshot(), handle, _lease: lease }))
    }

    fn write(&self, batch: &WriteBatch, durability: Durability) -> Result<(), EngineError> {
        let mut state = self.state.lock();
        if let Some(cause) = &state.failed {
            return Err(EngineError::Poisoned { cause: cause.clone() });
        }
        self.check_space()?;
        let handle = self.handle()?;
        let written = handle.wait_for_flushes().and_then(|()| {
            if state.planned_failures > 0 {
                state.planned_failures -= 1;
                return Err(fjall::Error::Io(io::Error::other("planned failure")));
            }
            handle.write(batch, durability, state.salt)
        });
        let Err(error) = written else {
            state.acknowledged = Some(batch.commit_number);
            return Ok(());
        };
        state.failed = Some(error.to_string());
        Err(match error {
            fjall::Error::Io(error) if error.kind() == io::ErrorKind::StorageFull => {
                EngineError::StorageFull { available_bytes: 0, needed_bytes: self.options.min_free_bytes }
            }
            error => engine_error(error, &self.options.path),
        })
    }

    fn sync(&self) -> Result<(), EngineError> {
        let mut state = self.state.lock();
        if let Some(cause) = &state.failed {
            return Err(EngineError::Poisoned { cause: cause.clone() });
        }
        self.handle()?.database.persist(PersistMode::SyncAll).map_err(|error| {
            state.failed = Some(error.to_string());
            engine_error(error, &self.options.path)
        })
    }

    fn commit_number(&self) -> Result<u64, EngineError> {
        self.handle()?.commit_number()
    }

    fn read_mark(&self) -> Result<Option<Mark>, EngineError> {
        store_dir::read_note(&self.options.path)
    }

    fn write_mark(&self, mark: &Mark, durability: Durability) -> Result<(), EngineError> {
        let mut state = self.state.lock();
        state.salt = salt_of(mark);
        let note = match &mut state.note {
            Some(note) => note,
            empty => empty.insert(Note::open(&self.options.path, mark)?),
        };
        note.write(mark, durability)
    }

    fn set_aside(&self) -> Result<String, EngineError> {
        let mut state = self.state.lock();
        self.close()?;
        *state = State::default();
        let aside = store_dir::move_aside(&self.options.path)?;
        self.open_handle(&mut state)?;
        Ok(aside.display().to_string())
    }
}

/// What marks a store's batches in its journals: from the store id, which no client knows.
fn salt_of(mark: &Mark) -> u64 {
    xxh3_64(mark.store_id.as_bytes())
}

impl Handle {
    fn open(options: &FjallOptions) -> Result<Handle, EngineError> {
        let cores_count = std::thread::available_parallelism().map_or(WORKERS_MIN, usize::from);
        let database = Database::builder(&options.path)
            .cache_size(options.block_cache_bytes)
            .max_journaling_size(options.journal_limit_bytes.max(JOURNAL_LIMIT_MIN_BYTES))
            .journal_compression(CompressionType::None)
            .max_cached_files(Some(OPEN_FILES_MAX))
            .worker_threads(cores_count.clamp(WORKERS_MIN, WORKERS_MAX))
            .open()
            .map_err(|error| engine_error(error, &options.path))?;
        let specs = options.specs.iter().copied().chain([KeyspaceSpec { name: META_KEYSPACE, large_values: false }]);
        let open =
            |spec: KeyspaceSpec| database.keyspace(spec.name, || create_options(spec)).map_err(|error| engine_error(error, &options.path));
        let keyspaces = specs.map(open).collect::<Result<_, _>>()?;
        Ok(Handle { keyspaces, database })
    }

    fn keyspace(&self, keyspace: Keyspace) -> &fjall::Keyspace {
        &self.keyspaces[keyspace.index(self.keyspaces.len() - 1)]
    }

    fn commit_number(&self) -> Result<u64, EngineError> {
        let bytes = self
            .keyspace(Keyspace::META)
            .get(COMMIT_NUMBER_KEY)
            .map_err(|error| engine_error(error, self.keyspace(Keyspace::META).path()))?;
        decode_commit_number(bytes.as_deref())
    }

    /// Waits while flushes or compactions lag behind. fjall would wait too, but for ever if its workers have died.
    fn wait_for_flushes(&self) -> Result<(), fjall::Error> {
        let lags = |keyspace: &fjall::Keyspace| {
            keyspace.sealed_memtable_count() >= SEALED_MEMTABLES_MAX || keyspace.l0_table_count() >= LEVEL0_TABLES_MAX
        };
        while self.keyspaces.iter().any(lags) {
            // The only way to ask fjall whether it is poisoned.
            self.database.persist(PersistMode::Buffer)?;
            std::thread::sleep(BACK_PRESSURE_PAUSE);
        }
        Ok(())
    }

    fn write(&self, batch: &WriteBatch, durability: Durability, salt: u64) -> Result<(), fjall::Error> {
        let persist = match durability {
            Durability::Synced => PersistMode::SyncAll,
            Durability::Buffered => PersistMode::Buffer,
        };
        let mut writes = fjall::OwnedWriteBatch::with_capacity(self.database.clone(), batch.changes.len() + 2).durability(Some(persist));
        for change in &batch.changes {
            let keyspace = self.keyspace(change.keyspace);
            match &change.value {
                Some(value) => writes.insert(keyspace, &*change.key, &**value),
                None => writes.remove(keyspace, &*change.key),
            }
        }
        let meta = self.keyspace(Keyspace::META);
        let check = Check { sequence_floor: self.database.seqno(), salt, durability };
        writes.insert(meta, COMMIT_NUMBER_KEY, batch.commit_number.to_be_bytes());
        writes.insert(meta, CHECK_KEY, check.encode());
        writes.commit()
    }
}

fn create_options(spec: KeyspaceSpec) -> KeyspaceCreateOptions {
    let options = KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
    if spec.large_values { options.with_kv_separation(Some(KvSeparationOptions::default())) } else { options }
}

/// Sorts fjall's errors by who must act. Only what an empty store would mend is `Damaged`.
fn engine_error(error: fjall::Error, path: &std::path::Path) -> EngineError {
    let what = format!("{}: {error}", path.display());
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => match error.kind() {
            // fjall looks only for files that it wrote, and for bytes that it wrote into them.
            io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::AlreadyExists => {
                EngineError::Damaged { what }
            }
            _ => EngineError::io(format!("using the metadata store at {}", path.display()), &error),
        },
        fjall::Error::Poisoned => EngineError::Poisoned { cause: "a flush or an earlier write failed; see the log".into() },
        fjall::Error::Locked => EngineError::Locked { path: path.into() },
        fjall::Error::InvalidVersion(Some(_)) => EngineError::TooNew { path: path.into() },
        _ => EngineError::Damaged { what },
    }
}

/// The lease goes last: once it is given back, nothing of the handle may be in use.
struct FjallSnapshot {
    snapshot: fjall::Snapshot,
    handle: Arc<Handle>,
    _lease: Lease,
}

impl Snapshot for FjallSnapshot {
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let keyspace = self.handle.keyspace(keyspace);
        let value = self.snapshot.get(keyspace, key).map_err(|error| engine_error(error, keyspace.path()))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn range<'a>(&'a self, keyspace: Keyspace, from: Bound<&[u8]>, to: Bound<&[u8]>, direction: Direction) -> RangeIterator<'a> {
        if is_empty_range(&from, &to) {
            return Box::new(std::iter::empty());
        }
        let keyspace = self.handle.keyspace(keyspace);
        let rows = self.snapshot.range::<&[u8], _>(keyspace, (from, to));
        let read = |row: fjall::Guard| match row.into_inner() {
            Ok((key, value)) => Ok((Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value))),
            Err(error) => Err(engine_error(error, keyspace.path())),
        };
        match direction {
            Direction::Forward => Box::new(rows.map(read)),
            Direction::Backward => Box::new(rows.rev().map(read)),
        }
    }
}
