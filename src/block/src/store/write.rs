//! Writing block files.

use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use garage_util::runtime::Lane;

use super::{
    BlockStore, Checked, HashLock, Inner, StoreError, Stored,
    dirs::DataDir,
    paths::{ENCODINGS, block_dirs, block_file, set_aside_file, temporary_file},
};
use crate::{encoding::EncodedBlock, hash::BlockHash};

impl BlockStore {
    /// Stores a block that was checked against its hash; durable on return, if the store is synced.
    ///
    /// A copy that is here already is checked rather than trusted: an upload is often how a person means to mend a lost object.
    pub async fn put(&self, hash: BlockHash, block: EncodedBlock, lock: &HashLock) -> Result<Stored, StoreError> {
        assert!(lock.covers(hash), "block {hash} is written without its lock");
        if self.is_here(hash, lock).await? {
            return Ok(Stored::AlreadyHere);
        }
        let (inner, lock, token) = (self.0.clone(), lock.clone(), self.0.runtime.random_u64());
        let len_bytes = block.bytes.len() as u64;
        // One piece of blocking work, so that a caller who goes away leaves no temporary file and no lock released too early.
        let written = self.0.runtime.blocking(Lane::File, move || {
            let _lock = lock;
            inner.write(hash, &block, token)
        });
        let place = written.await??;
        self.sync_place(hash, place).await?;
        self.0.counters.written_bytes.fetch_add(len_bytes, Ordering::Relaxed);
        Ok(Stored::Written)
    }

    /// Whether a good copy is here, made durable if it was not.
    async fn is_here(&self, hash: BlockHash, lock: &HashLock) -> Result<bool, StoreError> {
        let inner = self.0.clone();
        if self.0.runtime.blocking(Lane::File, move || inner.dir_of(hash)).await??.is_none() {
            return Ok(false);
        }
        match self.check_locked(hash, lock).await {
            Ok(Checked::Good) => {}
            Ok(Checked::Missing | Checked::SetAside) => return Ok(false),
            Err(StoreError::Stopping(stopping)) => return Err(stopping.into()),
            // What can't be read, or not set aside, does not count as a copy: a new one is written beside or over it.
            Err(StoreError::Io { .. } | StoreError::StorageFull { .. }) => return Ok(false),
        }
        let inner = self.0.clone();
        let dir = self.0.runtime.blocking(Lane::File, move || inner.dir_of(hash)).await??;
        // A process that was killed may have renamed the file and not synced the directory.
        if let Some(dir) = dir.filter(|_| self.0.synced) {
            self.0.dir_sync.sync(&dir).await?;
        }
        Ok(true)
    }

    /// Makes the entry of a file just renamed durable, and that of its directory if this process has not seen it durable.
    pub(super) async fn sync_place(&self, hash: BlockHash, place: Place) -> Result<(), StoreError> {
        if !self.0.synced {
            return Ok(());
        }
        let known = &self.0.known_dirs[place.dir_index];
        if known.contains(hash) {
            return self.0.dir_sync.sync(&place.lower).await;
        }
        let sync = |dir| self.0.dir_sync.sync(dir);
        futures::try_join!(sync(&place.lower), sync(&place.upper), sync(&place.root))?;
        known.insert(hash);
        Ok(())
    }
}

/// Where a file went: its directory and those above it, up to the data directory.
pub(super) struct Place {
    dir_index: usize,
    lower: PathBuf,
    upper: PathBuf,
    root: PathBuf,
}

impl Inner {
    /// Writes to the best directory that can take the block. Blocks.
    fn write(&self, hash: BlockHash, block: &EncodedBlock, token: u64) -> Result<Place, StoreError> {
        let needed_bytes = block.bytes.len() as u64;
        let mut failure = None;
        for dir in self.dirs.write_order(hash) {
            match self.write_in(dir, hash, block, token) {
                Ok(()) => return Ok(self.place_in(dir, hash)),
                Err(error) if is_full(&error) => {}
                Err(error) => {
                    tracing::warn!(dir = %dir.path.display(), %error, "a block cannot be written to this data directory");
                    failure.get_or_insert(StoreError::at(&dir.path, error));
                }
            }
        }
        // Full is what a client can be told; a broken directory is told only if no other was merely full.
        Err(failure.unwrap_or(StoreError::StorageFull { needed_bytes }))
    }

    pub(super) fn write_in(&self, dir: &DataDir, hash: BlockHash, block: &EncodedBlock, token: u64) -> io::Result<()> {
        let needed_bytes = self.min_free_bytes.saturating_add(dir.reserve_bytes).saturating_add(block.bytes.len() as u64);
        if self.disk.space(&dir.path)?.available_bytes < needed_bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let temporary = temporary_file(&dir.path, hash, token);
        let written = self.disk.write_new(&temporary, &block.bytes, self.synced).and_then(|()| {
            let file = block_file(&dir.path, hash, block.encoding);
            self.rename_into_place(&temporary, &file)
        });
        if written.is_err()
            && let Err(error) = self.disk.remove(&temporary)
            && error.kind() != io::ErrorKind::NotFound
        {
            // The next start removes it.
            tracing::warn!(path = %temporary.display(), %error, "a temporary file stays behind");
        }
        written?;
        self.set_aside_other_form(dir, hash, block);
        Ok(())
    }

    /// Renames, making the two directories above the file if they are not there yet.
    fn rename_into_place(&self, temporary: &Path, file: &Path) -> io::Result<()> {
        match self.disk.rename(temporary, file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => return done,
        }
        let lower = file.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let upper = lower.parent().ok_or(io::ErrorKind::InvalidInput)?;
        self.disk.create_dir(upper)?;
        self.disk.create_dir(lower)?;
        self.disk.rename(temporary, file)
    }

    /// A copy in the other form can only be one that could not be read or set aside before: a good one would have been kept.
    fn set_aside_other_form(&self, dir: &DataDir, hash: BlockHash, block: &EncodedBlock) {
        for encoding in ENCODINGS.into_iter().filter(|encoding| *encoding != block.encoding) {
            let path = block_file(&dir.path, hash, encoding);
            if let Ok(Some(_)) = self.disk.len(&path)
                && let Err(error) = self.disk.rename(&path, &set_aside_file(&path))
            {
                tracing::warn!(path = %path.display(), %error, "an unreadable block file cannot be set aside");
            }
        }
    }

    pub(super) fn place_in(&self, dir: &DataDir, hash: BlockHash) -> Place {
        let (lower, upper) = block_dirs(&dir.path, hash);
        let dir_index = self.dirs.iter().position(|other| other.path == dir.path).unwrap_or(0);
        Place { dir_index, lower, upper, root: dir.path.clone() }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
