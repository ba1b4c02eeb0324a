//! Makes directory entries durable, one sync for all who wait for the same directory.
//!
//! Invariant: a caller returns only after a sync that *started* after it asked; one already under way may have passed its entry by.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use garage_util::{
    disk::Disk,
    runtime::{Lane, Runtime},
};
use parking_lot::Mutex;

use super::StoreError;

/// Syncs directories of one disk.
pub struct DirSync {
    runtime: Runtime,
    disk: Arc<dyn Disk>,
    slots: Mutex<BTreeMap<PathBuf, Arc<Slot>>>,
}

#[derive(Default)]
struct Slot {
    asked: AtomicU64,
    last: tokio::sync::Mutex<Last>,
}

/// The last sync of a directory: which tickets it covered, and how it failed if it did.
#[derive(Default)]
struct Last {
    covered: u64,
    failed: Option<io::ErrorKind>,
}

impl DirSync {
    /// Nothing is being synced yet.
    pub fn new(runtime: Runtime, disk: Arc<dyn Disk>) -> DirSync {
        DirSync { runtime, disk, slots: Mutex::default() }
    }

    /// Returns when the directory's present entries are on stable storage.
    pub async fn sync(&self, dir: &Path) -> Result<(), StoreError> {
        let slot = self.slots.lock().entry(dir.to_owned()).or_default().clone();
        let ticket = slot.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let done = self.sync_for(&slot, ticket, dir).await;
        drop(slot);
        let mut slots = self.slots.lock();
        // Two holders, the map and we, would be one holder now: nobody else waits for this directory.
        if slots.get(dir).is_some_and(|slot| Arc::strong_count(slot) == 1) {
            slots.remove(dir);
        }
        done
    }

    async fn sync_for(&self, slot: &Slot, ticket: u64, dir: &Path) -> Result<(), StoreError> {
        let mut last = slot.last.lock().await;
        if last.covered < ticket {
            let covered = slot.asked.load(Ordering::SeqCst);
            let (disk, path) = (self.disk.clone(), dir.to_owned());
            let synced = self.runtime.blocking(Lane::File, move || disk.sync_dir(&path)).await?;
            *last = Last { covered, failed: synced.err().map(|error| error.kind()) };
        }
        // A later success does not heal an earlier failure: the kernel reports a lost write once. All who shared the sync share its end.
        match last.failed {
            None => Ok(()),
            Some(kind) => Err(StoreError::at(dir, kind.into())),
        }
    }
}
