//! Finding, reading and checking block files.

use std::{io, path::PathBuf, sync::atomic::Ordering};

use garage_util::runtime::{Interrupted, Lane};

use super::{
    BlockStore, Checked, HashLock, Inner, LocalReadError, StoreError,
    paths::{ENCODINGS, block_dirs, block_file, set_aside_file},
};
use crate::{
    encoding::{EncodedBlock, Encoding},
    hash::BlockHash,
    limits::{BLOCK_LEN_MAX_BYTES, READ_PLACE_WAIT_MAX},
};

/// A file under a block's name.
pub(super) struct Found {
    pub(super) path: PathBuf,
    /// `None`: longer than any block, so it was not read.
    pub(super) block: Option<EncodedBlock>,
}

impl BlockStore {
    /// A block as it is stored, not checked: for a reader that checks it itself.
    pub async fn get_unchecked(&self, hash: BlockHash) -> Result<EncodedBlock, LocalReadError> {
        let Ok(Ok(place)) = tokio::time::timeout(READ_PLACE_WAIT_MAX, self.0.reads.acquire()).await else {
            self.0.counters.busy_count.fetch_add(1, Ordering::Relaxed);
            return Err(LocalReadError::Busy { hash });
        };
        let inner = self.0.clone();
        let found = self.0.runtime.blocking(Lane::File, move || inner.find(hash)).await?;
        drop(place);
        let block = found?.into_iter().find_map(|found| found.block).ok_or(LocalReadError::Missing { hash })?;
        self.0.counters.read_bytes.fetch_add(block.bytes.len() as u64, Ordering::Relaxed);
        Ok(block)
    }

    /// Which of these blocks have a file here, in the order asked; their content is not looked at.
    pub async fn contains(&self, hashes: Vec<BlockHash>) -> Result<Vec<bool>, StoreError> {
        let inner = self.0.clone();
        self.0.runtime.blocking(Lane::File, move || hashes.into_iter().map(|hash| inner.contains(hash)).collect()).await?
    }

    /// Checks the copies of a block on this node, and sets bad ones aside.
    pub async fn check(&self, hash: BlockHash) -> Result<Checked, StoreError> {
        let lock = self.lock([hash]).await;
        self.check_locked(hash, &lock).await
    }

    /// As [`BlockStore::check`], under a lock that is held already.
    pub(super) async fn check_locked(&self, hash: BlockHash, lock: &HashLock) -> Result<Checked, StoreError> {
        assert!(lock.covers(hash), "block {hash} is checked without its lock");
        let mut verdict = Checked::Missing;
        for (path, encoding) in self.0.places(hash) {
            let Some(found) = self.0.clone().read_file(path, encoding).await? else { continue };
            if self.is_good(hash, found.block).await? {
                return Ok(Checked::Good);
            }
            verdict = Checked::SetAside;
            self.set_aside(hash, found.path, lock.clone()).await?;
        }
        Ok(verdict)
    }

    async fn is_good(&self, hash: BlockHash, block: Option<EncodedBlock>) -> Result<bool, Interrupted> {
        let Some(block) = block else { return Ok(false) };
        self.0.runtime.blocking(Lane::Compute, move || block.decode(hash).is_ok()).await
    }

    async fn set_aside(&self, hash: BlockHash, path: PathBuf, lock: HashLock) -> Result<(), StoreError> {
        tracing::error!(%hash, path = %path.display(), "a block file is corrupt; it is set aside beside its place");
        self.0.counters.corrupt_count.fetch_add(1, Ordering::Relaxed);
        let inner = self.0.clone();
        let renamed = self.0.runtime.blocking(Lane::File, move || {
            let _lock = lock;
            inner.disk.rename(&path, &set_aside_file(&path)).map_err(|error| StoreError::at(&path, error))
        });
        renamed.await?
    }
}

impl Inner {
    /// Where a block's file may be, most likely first.
    pub(super) fn places(&self, hash: BlockHash) -> Vec<(PathBuf, Encoding)> {
        let dirs = self.dirs.read_order(hash);
        dirs.iter().flat_map(|dir| ENCODINGS.map(|encoding| (block_file(&dir.path, hash, encoding), encoding))).collect()
    }

    /// The first file of the block that could be read, after those that are too long to be one. Blocks.
    ///
    /// Errors: only if no directory gave a file and one of them failed; a broken disk does not hide a copy on another.
    fn find(&self, hash: BlockHash) -> Result<Vec<Found>, LocalReadError> {
        let (mut found, mut failure) = (Vec::new(), None);
        for (path, encoding) in self.places(hash) {
            match self.read_now(path, encoding) {
                Ok(None) => {}
                Ok(Some(file)) => {
                    let whole = file.block.is_some();
                    found.push(file);
                    if whole {
                        return Ok(found);
                    }
                }
                Err((path, source)) => {
                    tracing::warn!(path = %path.display(), error = %source, "a block file cannot be read");
                    failure.get_or_insert(LocalReadError::Io { path, source });
                }
            }
        }
        match failure {
            Some(failure) => Err(failure),
            None => Ok(found),
        }
    }

    async fn read_file(self: std::sync::Arc<Inner>, path: PathBuf, encoding: Encoding) -> Result<Option<Found>, StoreError> {
        let inner = self.clone();
        let read = self.runtime.blocking(Lane::File, move || inner.read_now(path, encoding)).await?;
        read.map_err(|(path, source)| StoreError::Io { path, source })
    }

    fn read_now(&self, path: PathBuf, encoding: Encoding) -> Result<Option<Found>, (PathBuf, io::Error)> {
        match self.disk.read(&path, BLOCK_LEN_MAX_BYTES as u64) {
            Ok(bytes) => Ok(Some(Found { path, block: Some(EncodedBlock { encoding, bytes: bytes.into() }) })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Ok(Some(Found { path, block: None })),
            Err(error) => Err((path, error)),
        }
    }

    fn contains(&self, hash: BlockHash) -> Result<bool, StoreError> {
        for (path, _) in self.places(hash) {
            if self.disk.len(&path).map_err(|error| StoreError::at(&path, error))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The directory that holds a file of the block, if any does. Blocks.
    pub(super) fn dir_of(&self, hash: BlockHash) -> Result<Option<PathBuf>, StoreError> {
        for dir in self.dirs.read_order(hash) {
            for encoding in ENCODINGS {
                let path = block_file(&dir.path, hash, encoding);
                if self.disk.len(&path).map_err(|error| StoreError::at(&path, error))?.is_some() {
                    return Ok(Some(block_dirs(&dir.path, hash).0));
                }
            }
        }
        Ok(None)
    }
}
