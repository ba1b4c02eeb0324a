//! Snapshots of a store: whole copies in directories of their own, each a store that a node can be started on.
//!
//! Invariants:
//! - a directory under a snapshot's name is a whole snapshot; one that was not finished has another name;
//! - a snapshot has a store id of its own and says that it has to be refilled: a node started on it does not pass for the one that
//!   acknowledged what came after.
//!
//! Not here: when snapshots are taken, and how they are named.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    Change, Durability, Engine, EngineError, Keyspace, WriteBatch,
    db::{RECOVERING_KEY, STORE_ID_KEY},
    engine::{Direction, Snapshot},
    mark::{Mark, StoreId},
};

/// Bytes of keys and values copied in one batch.
const COPY_BATCH_BYTES: usize = 4 << 20;
/// The name of a snapshot that is being written ends in this.
const UNFINISHED: &str = ".unfinished";

/// Makes the engine of a new store in a directory.
pub type MakeEngine = Arc<dyn Fn(PathBuf) -> Arc<dyn Engine> + Send + Sync>;

/// Why no snapshot was taken.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// One of this name exists.
    #[error("{} exists already; try again in a second", .path.display())]
    Exists {
        /// Where.
        path: PathBuf,
    },
    /// Reading the store or writing the copy.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The operating system refused.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Its reason.
        source: io::Error,
    },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> SnapshotError {
    let path = path.to_owned();
    move |source| SnapshotError::Io { path, source }
}

/// Where snapshots go.
#[derive(Clone)]
pub struct SnapshotDir {
    /// The directory; made when the first snapshot is taken.
    pub path: PathBuf,
    /// How many are kept; the oldest by name go first.
    pub keep_count: usize,
    /// Makes the engine of a copy.
    pub make_engine: MakeEngine,
}

impl SnapshotDir {
    /// Copies what `source` sees, except for the store's own identity, to a new store under `name`. Blocks, for long.
    pub fn take(&self, source: &dyn Snapshot, keyspaces_count: u8, name: &str, store_id: StoreId) -> Result<PathBuf, SnapshotError> {
        fs::create_dir_all(&self.path).map_err(at(&self.path))?;
        let finished = self.path.join(name);
        if finished.exists() {
            return Err(SnapshotError::Exists { path: finished });
        }
        let unfinished = self.path.join(format!("{name}{UNFINISHED}"));
        let engine = (self.make_engine)(unfinished.clone());
        let copied = copy_as_new(source, keyspaces_count, &*engine, store_id, &format!("restored from the snapshot of {name}"));
        drop(engine);
        if let Err(error) = copied {
            if let Err(error) = fs::remove_dir_all(&unfinished) {
                tracing::warn!(path = %unfinished.display(), %error, "an unfinished snapshot stays behind");
            }
            return Err(error.into());
        }
        fs::rename(&unfinished, &finished).map_err(at(&finished))?;
        fs::File::open(&self.path).and_then(|dir| dir.sync_all()).map_err(at(&self.path))?;
        self.forget_old()?;
        Ok(finished)
    }

    /// The snapshots there are, oldest first.
    pub fn list(&self) -> Result<Vec<PathBuf>, SnapshotError> {
        if !self.path.exists() {
            return Ok(Vec::new());
        }
        let entries = fs::read_dir(&self.path).map_err(at(&self.path))?;
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.map_err(at(&self.path))?.path();
            if path.is_dir() && is_snapshot(&path) {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }

    fn forget_old(&self) -> Result<(), SnapshotError> {
        let all = self.list()?;
        for old in all.iter().take(all.len().saturating_sub(self.keep_count)) {
            fs::remove_dir_all(old).map_err(at(old))?;
        }
        Ok(())
    }
}

/// Whether a directory has the name of a snapshot: `YYYY-MM-DDTHH:MM:SSZ`. Whatever else lies there is left alone.
fn is_snapshot(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return false };
    let pattern = b"0000-00-00T00:00:00Z";
    let fits = |(byte, wanted): (u8, &u8)| if *wanted == b'0' { byte.is_ascii_digit() } else { byte == *wanted };
    name.len() == pattern.len() && name.bytes().zip(pattern).all(fits)
}

/// Copies what `source` sees to an empty engine, under an identity of its own; the copy says of itself, with this reason, that it has to be
/// refilled ([`crate::Db::recovering`]).
pub fn copy_as_new(
    source: &dyn Snapshot,
    keyspaces_count: u8,
    target: &dyn Engine,
    store_id: StoreId,
    reason: &str,
) -> Result<(), EngineError> {
    target.open()?;
    let mut writer = Writer { target, batch: WriteBatch::default(), len_bytes: 0, commit_number: 0 };
    for keyspace in (0..keyspaces_count).map(Keyspace) {
        for item in source.range(keyspace, std::ops::Bound::Unbounded, std::ops::Bound::Unbounded, Direction::Forward) {
            let (key, value) = item?;
            writer.put(keyspace, key, value)?;
        }
    }
    writer.put(Keyspace::META, Bytes::from_static(RECOVERING_KEY), Bytes::copy_from_slice(reason.as_bytes()))?;
    writer.put(Keyspace::META, Bytes::from_static(STORE_ID_KEY), Bytes::copy_from_slice(store_id.as_bytes()))?;
    writer.flush()?;
    target.sync()?;
    target.write_mark(&Mark { store_id, commit_number: writer.commit_number }, Durability::Synced)
}

struct Writer<'a> {
    target: &'a dyn Engine,
    batch: WriteBatch,
    len_bytes: usize,
    commit_number: u64,
}

impl Writer<'_> {
    fn put(&mut self, keyspace: Keyspace, key: Bytes, value: Bytes) -> Result<(), EngineError> {
        self.len_bytes += key.len() + value.len();
        self.batch.changes.push(Change { keyspace, key, value: Some(value) });
        if COPY_BATCH_BYTES <= self.len_bytes { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), EngineError> {
        self.commit_number += 1;
        self.len_bytes = 0;
        let batch = WriteBatch { commit_number: self.commit_number, changes: std::mem::take(&mut self.batch.changes) };
        self.target.write(&batch, Durability::Buffered)
    }
}
