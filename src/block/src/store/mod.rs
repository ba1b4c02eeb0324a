//! The block files of one node: written so that a crash leaves a whole file or none, read with their hash checked.
//!
//! Invariants:
//! - a file appears under a block's name only whole: temporary name, content synced, renamed, directory synced;
//! - a bad copy is set aside, never deleted and never handed to a client;
//! - a directory that is full or failing passes its blocks to the next one.
//!
//! Reading order: `paths`, `dirs`, `locks`, `dir_sync`, then this file. Not here: who needs a block (`reference`), other nodes (`manager`).

mod dir_sync;
mod dirs;
mod locks;
mod paths;
mod read;
mod walk;
mod write;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use garage_util::{
    disk::{Disk, Space},
    runtime::{Interrupted, Lane, Runtime},
};
use tokio::sync::Semaphore;

use self::{dir_sync::DirSync, dirs::DataDirs, locks::HashLocks};
pub use self::{
    dirs::{DataDirOptions, DirUsage, OpenStoreError},
    locks::HashLock,
    walk::{Moved, WalkPosition, WalkStep},
};
use crate::{
    encoding::CorruptBlock,
    hash::BlockHash,
    limits::{DATA_MIN_FREE_DEFAULT_BYTES, READS_DEFAULT_COUNT},
};

/// How a node keeps its block files.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The data directories.
    pub dirs: Vec<DataDirOptions>,
    /// Where the markers seen are remembered: `data_layout` in the metadata directory.
    pub layout_file: PathBuf,
    /// Whether a block is on stable storage when its write is answered (`data_fsync`).
    pub synced: bool,
    /// Block files read at once (`block_max_concurrent_reads`).
    pub reads_count: usize,
    /// Left free in every directory, in bytes.
    pub min_free_bytes: u64,
}

impl StoreOptions {
    /// One data directory, everything else by default.
    pub fn new(data_dir: PathBuf, layout_file: PathBuf) -> StoreOptions {
        StoreOptions {
            dirs: vec![DataDirOptions { path: data_dir, usage: DirUsage::Writable { capacity_bytes: 1 }, reserve_bytes: 0 }],
            layout_file,
            synced: true,
            reads_count: READS_DEFAULT_COUNT,
            min_free_bytes: DATA_MIN_FREE_DEFAULT_BYTES,
        }
    }
}

/// Why a block could not be stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No directory has room.
    #[error("no data directory of this node has {needed_bytes} bytes left; add space, or delete objects")]
    StorageFull {
        /// The block's stored length.
        needed_bytes: u64,
    },
    /// The operating system refused, in every directory that was tried.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Its reason.
        source: io::Error,
    },
    /// The node is stopping.
    #[error(transparent)]
    Stopping(#[from] Interrupted),
}

impl StoreError {
    fn at(path: &Path, source: io::Error) -> StoreError {
        StoreError::Io { path: path.to_owned(), source }
    }
}

/// Why a block could not be read from this node.
#[derive(Debug, thiserror::Error)]
pub enum LocalReadError {
    /// There is no copy here.
    #[error("block {hash}: no copy on this node")]
    Missing {
        /// The block.
        hash: BlockHash,
    },
    /// The copy here is bad; it was set aside.
    #[error(transparent)]
    Corrupt(#[from] CorruptBlock),
    /// Too many reads are under way.
    #[error("block {hash}: this node's disks are too busy; raise block_max_concurrent_reads if they can take more")]
    Busy {
        /// The block.
        hash: BlockHash,
    },
    /// The operating system refused.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Its reason.
        source: io::Error,
    },
    /// The node is stopping.
    #[error(transparent)]
    Stopping(#[from] Interrupted),
}

/// What became of a block that was to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stored {
    /// It was written.
    Written,
    /// A good copy was there.
    AlreadyHere,
}

/// What a check of a local copy found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checked {
    /// A good copy is here.
    Good,
    /// No copy is here.
    Missing,
    /// Only bad copies were here; they were set aside.
    SetAside,
}

/// What a store has done since it was opened, for metrics.
#[derive(Default, Debug)]
pub struct StoreCounters {
    /// Bytes of block files written.
    pub written_bytes: AtomicU64,
    /// Bytes of block files read.
    pub read_bytes: AtomicU64,
    /// Bad copies set aside.
    pub corrupt_count: AtomicU64,
    /// Blocks deleted because nothing needs them, or because others hold them now.
    pub deleted_count: AtomicU64,
    /// Reads that found no place at the disk in time.
    pub busy_count: AtomicU64,
}

/// The block files of this node. Cheap to clone.
#[derive(Clone)]
pub struct BlockStore(Arc<Inner>);

struct Inner {
    runtime: Runtime,
    disk: Arc<dyn Disk>,
    dirs: DataDirs,
    locks: HashLocks,
    dir_sync: DirSync,
    /// Directories whose own entry is known to be durable, one bit for each first two bytes of a hash; a list for each data directory.
    known_dirs: Vec<KnownDirs>,
    reads: Semaphore,
    synced: bool,
    min_free_bytes: u64,
    counters: StoreCounters,
}

/// 65,536 bits that only ever turn on.
struct KnownDirs(Box<[AtomicU64]>);

impl KnownDirs {
    fn new() -> KnownDirs {
        KnownDirs((0..1_024).map(|_| AtomicU64::new(0)).collect())
    }
    fn bit(hash: BlockHash) -> (usize, u64) {
        let index = usize::from(u16::from_be_bytes([hash.0[0], hash.0[1]]));
        (index / 64, 1 << (index % 64))
    }
    fn contains(&self, hash: BlockHash) -> bool {
        let (word, bit) = KnownDirs::bit(hash);
        self.0[word].load(Ordering::Acquire) & bit != 0
    }
    fn insert(&self, hash: BlockHash) {
        let (word, bit) = KnownDirs::bit(hash);
        self.0[word].fetch_or(bit, Ordering::Release);
    }
}

impl BlockStore {
    /// Opens the data directories: checks their markers and removes what a crash left half written.
    pub async fn open(runtime: &Runtime, disk: Arc<dyn Disk>, options: StoreOptions) -> Result<BlockStore, OpenStoreError> {
        let (inner_runtime, inner_disk) = (runtime.clone(), disk.clone());
        let (configured, layout_file) = (options.dirs, options.layout_file);
        let opened = runtime.blocking(Lane::File, move || {
            DataDirs::open(&*inner_disk, &configured, &layout_file, || dirs::MarkerId::random(&inner_runtime))
        });
        let dirs = opened.await??;
        Ok(BlockStore(Arc::new(Inner {
            runtime: runtime.clone(),
            known_dirs: dirs.iter().map(|_| KnownDirs::new()).collect(),
            dirs,
            locks: HashLocks::new(),
            dir_sync: DirSync::new(runtime.clone(), disk.clone()),
            disk,
            reads: Semaphore::new(options.reads_count.clamp(1, Semaphore::MAX_PERMITS)),
            synced: options.synced,
            min_free_bytes: options.min_free_bytes,
            counters: StoreCounters::default(),
        })))
    }

    /// Waits for the locks of these blocks; hold them over writing a block and adding its reference. Ask for all at once.
    pub async fn lock(&self, hashes: impl IntoIterator<Item = BlockHash>) -> HashLock {
        self.0.locks.lock(hashes).await
    }

    /// Whether a data directory was made at this start: blocks that were in its place may be missing.
    pub fn has_new_dir(&self) -> bool {
        self.0.dirs.iter().any(dirs::DataDir::is_new)
    }

    /// What was done so far.
    pub fn counters(&self) -> &StoreCounters {
        &self.0.counters
    }

    /// Space on each distinct file system that takes new blocks.
    pub async fn space(&self) -> Result<Vec<Space>, StoreError> {
        let inner = self.0.clone();
        let found = self.0.runtime.blocking(Lane::File, move || {
            let mut spaces: Vec<Space> = Vec::new();
            for dir in inner.dirs.iter().filter(|dir| dir.is_writable()) {
                let space = inner.disk.space(&dir.path).map_err(|error| StoreError::at(&dir.path, error))?;
                if spaces.iter().all(|other| other.file_system != space.file_system) {
                    spaces.push(space);
                }
            }
            Ok(spaces)
        });
        found.await?
    }

    /// The content of a block, checked. A bad copy is set aside before the error is given.
    pub async fn get(&self, hash: BlockHash) -> Result<Bytes, LocalReadError> {
        let encoded = self.get_unchecked(hash).await?;
        match self.0.runtime.blocking(Lane::Compute, move || encoded.decode(hash)).await? {
            Ok(content) => Ok(content),
            Err(corrupt) => match self.check(hash).await {
                // A writer put a good copy in its place meanwhile.
                Ok(Checked::Good) => {
                    let encoded = self.get_unchecked(hash).await?;
                    Ok(self.0.runtime.blocking(Lane::Compute, move || encoded.decode(hash)).await??)
                }
                _ => Err(corrupt.into()),
            },
        }
    }
}

#[cfg(test)]
mod tests;
