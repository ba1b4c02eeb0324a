//! Going through all block files of a node, a directory at a time; removing files; moving them to the data directory they belong to.

use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use garage_util::{id::to_hex, runtime::Lane};

use super::{
    BlockStore, HashLock, Inner, StoreError,
    paths::{ENCODINGS, block_file, hash_of_file},
};
use crate::{
    encoding::{EncodedBlock, Encoding},
    hash::BlockHash,
    limits::BLOCK_LEN_MAX_BYTES,
};

/// A place in the order of all block files: the first two bytes of their hashes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct WalkPosition(pub u16);

impl WalkPosition {
    /// How much of the way lies before this position, from 0 to 1.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 65_536.0
    }
    /// What comes next; `None` after the last.
    pub fn next(self) -> Option<WalkPosition> {
        self.0.checked_add(1).map(WalkPosition)
    }
}

/// Files whose hashes begin alike.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WalkStep {
    /// Where.
    pub position: WalkPosition,
    /// The blocks that have a file there, sorted, each once.
    pub hashes: Vec<BlockHash>,
}

/// What became of a block that was to be moved to the directory it belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moved {
    /// It was there, or is not here at all.
    AtHome,
    /// It is there now.
    Moved,
    /// The copy here is bad, or the directory it belongs to is full: it stays where it is.
    Stayed,
}

impl BlockStore {
    /// The first block files at or after `from`; `None`: there are no more.
    pub async fn walk(&self, from: WalkPosition) -> Result<Option<WalkStep>, StoreError> {
        let inner = self.0.clone();
        self.0.runtime.blocking(Lane::File, move || inner.walk(from)).await?
    }

    /// Removes every copy of a block from the writable directories; how many there were.
    pub async fn remove(&self, hash: BlockHash, lock: &HashLock) -> Result<usize, StoreError> {
        assert!(lock.covers(hash), "block {hash} is removed without its lock");
        let (inner, lock) = (self.0.clone(), lock.clone());
        let removed = self.0.runtime.blocking(Lane::File, move || {
            let _lock = lock;
            inner.remove_all(hash, |_| true)
        });
        let removed_count = removed.await??;
        self.0.counters.deleted_count.fetch_add(u64::from(0 < removed_count), Ordering::Relaxed);
        Ok(removed_count)
    }

    /// Stored length of a block's file, in bytes; `None`: there is no copy here.
    pub async fn stored_len_bytes(&self, hash: BlockHash) -> Result<Option<u64>, StoreError> {
        let inner = self.0.clone();
        self.0.runtime.blocking(Lane::File, move || inner.stored_len_bytes(hash)).await?
    }

    /// Moves a block to the data directory that wins it, if it is in another one and its copy is good.
    pub async fn move_home(&self, hash: BlockHash, lock: &HashLock) -> Result<Moved, StoreError> {
        assert!(lock.covers(hash), "block {hash} is moved without its lock");
        let (inner, lock, token) = (self.0.clone(), lock.clone(), self.0.runtime.random_u64());
        let moved = self.0.runtime.blocking(Lane::File, move || {
            let _lock = lock;
            inner.copy_home(hash, token)
        });
        let Some(copied) = moved.await?? else { return Ok(Moved::AtHome) };
        let Some(place) = copied else { return Ok(Moved::Stayed) };
        // The copy at home is durable before the other one goes.
        self.sync_place(hash, place).await?;
        let inner = self.0.clone();
        let home_only = self.0.runtime.blocking(Lane::File, move || {
            let home = inner.dirs.write_order(hash).first().map(|dir| dir.path.clone());
            inner.remove_all(hash, |dir| Some(dir) != home.as_deref())
        });
        home_only.await??;
        Ok(Moved::Moved)
    }
}

impl Inner {
    fn walk(&self, from: WalkPosition) -> Result<Option<WalkStep>, StoreError> {
        let mut position = from;
        loop {
            let Some(next) = self.next_dir(position)? else { return Ok(None) };
            let hashes = self.hashes_in(next)?;
            if !hashes.is_empty() {
                return Ok(Some(WalkStep { position: next, hashes }));
            }
            match next.next() {
                Some(after) => position = after,
                None => return Ok(None),
            }
        }
    }

    /// The first lower directory at or after a position that is there in any data directory.
    fn next_dir(&self, from: WalkPosition) -> Result<Option<WalkPosition>, StoreError> {
        let [from_upper, from_lower] = from.0.to_be_bytes();
        let mut uppers: Vec<u8> = Vec::new();
        for dir in self.dirs.iter() {
            uppers.extend(self.bytes_in(&dir.path)?);
        }
        uppers.sort_unstable();
        uppers.dedup();
        for upper in uppers.into_iter().filter(|upper| from_upper <= *upper) {
            let mut lowers: Vec<u8> = Vec::new();
            for dir in self.dirs.iter() {
                lowers.extend(self.bytes_in(&dir.path.join(to_hex(&[upper])))?);
            }
            let first = lowers.into_iter().filter(|lower| from_upper < upper || from_lower <= *lower).min();
            if let Some(lower) = first {
                return Ok(Some(WalkPosition(u16::from_be_bytes([upper, lower]))));
            }
        }
        Ok(None)
    }

    /// The entries of a directory whose names are a byte in hex.
    fn bytes_in(&self, dir: &Path) -> Result<Vec<u8>, StoreError> {
        let byte_of = |path: PathBuf| {
            let name = path.file_name()?.to_str()?;
            (name.len() == 2).then(|| u8::from_str_radix(name, 16).ok())?
        };
        Ok(self.list(dir)?.into_iter().filter_map(byte_of).collect())
    }

    fn hashes_in(&self, position: WalkPosition) -> Result<Vec<BlockHash>, StoreError> {
        let [upper, lower] = position.0.to_be_bytes();
        let mut hashes = Vec::new();
        for dir in self.dirs.iter() {
            let path = dir.path.join(to_hex(&[upper])).join(to_hex(&[lower]));
            hashes.extend(self.list(&path)?.iter().filter_map(|file| hash_of_file(file)));
        }
        hashes.sort_unstable();
        hashes.dedup();
        Ok(hashes)
    }

    fn list(&self, dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
        match self.disk.list(dir) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
            listed => listed.map_err(|error| StoreError::at(dir, error)),
        }
    }

    /// Removes the copies in those writable directories that `is_in`; how many there were.
    fn remove_all(&self, hash: BlockHash, is_in: impl Fn(&Path) -> bool) -> Result<usize, StoreError> {
        let mut removed_count = 0;
        for dir in self.dirs.iter().filter(|dir| dir.is_writable() && is_in(&dir.path)) {
            for encoding in ENCODINGS {
                let path = block_file(&dir.path, hash, encoding);
                match self.disk.remove(&path) {
                    Ok(()) => removed_count += 1,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(StoreError::at(&path, error)),
                }
            }
        }
        Ok(removed_count)
    }

    fn stored_len_bytes(&self, hash: BlockHash) -> Result<Option<u64>, StoreError> {
        for (path, _) in self.places(hash) {
            if let Some(len_bytes) = self.disk.len(&path).map_err(|error| StoreError::at(&path, error))? {
                return Ok(Some(len_bytes));
            }
        }
        Ok(None)
    }

    /// `None`: the block is where it belongs, or not here. `Some(None)`: it can't be moved now.
    #[allow(clippy::option_option)]
    fn copy_home(&self, hash: BlockHash, token: u64) -> Result<Option<Option<super::write::Place>>, StoreError> {
        let Some(home) = self.dirs.write_order(hash).first().copied().cloned() else { return Ok(None) };
        let mut elsewhere = None;
        for dir in self.dirs.read_order(hash) {
            for encoding in ENCODINGS {
                let path = block_file(&dir.path, hash, encoding);
                if self.disk.len(&path).map_err(|error| StoreError::at(&path, error))?.is_none() {
                    continue;
                }
                if dir.path == home.path {
                    return Ok(None);
                }
                elsewhere.get_or_insert((path, encoding));
            }
        }
        let Some((path, encoding)) = elsewhere else { return Ok(None) };
        let Some(block) = self.read_good(hash, &path, encoding)? else { return Ok(Some(None)) };
        match self.write_in(&home, hash, &block, token) {
            Ok(()) => Ok(Some(Some(self.place_in(&home, hash)))),
            Err(error) => {
                tracing::warn!(dir = %home.path.display(), %error, "a block cannot be moved to the data directory it belongs to");
                Ok(Some(None))
            }
        }
    }

    fn read_good(&self, hash: BlockHash, path: &Path, encoding: Encoding) -> Result<Option<EncodedBlock>, StoreError> {
        let bytes = self.disk.read(path, BLOCK_LEN_MAX_BYTES as u64).map_err(|error| StoreError::at(path, error))?;
        let block = EncodedBlock { encoding, bytes: bytes.into() };
        Ok(block.clone().decode(hash).is_ok().then_some(block))
    }
}
