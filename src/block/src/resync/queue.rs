//! The durable queue of blocks to look at, in this node's own store: one entry a block.
//!
//! Invariant: an entry is removed or changed only by someone who has seen it as it is; what was queued meanwhile stays.

use std::ops::Bound;

use garage_db::{Direction, TransactError};
use garage_table::{Store, keyspaces, schema::StoreError};
use garage_util::encoding::Stored;

use crate::{
    hash::BlockHash,
    reference::{QueueEntry, QueueReason},
};

/// Why the queue could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// Reading.
    #[error("the block queue cannot be read: {0}")]
    Read(String),
    /// Writing.
    #[error("the block queue cannot be written: {0}")]
    Write(#[from] TransactError<StoreError>),
}

/// The queue. Cheap to clone.
#[derive(Clone)]
pub struct BlockQueue {
    store: Store,
}

impl BlockQueue {
    /// The queue in a node's store.
    pub fn new(store: Store) -> BlockQueue {
        BlockQueue { store }
    }

    /// Entries after `after`, in order of their hashes, at most `limit_count`.
    pub async fn after(&self, after: Option<BlockHash>, limit_count: usize) -> Result<Vec<(BlockHash, QueueEntry)>, QueueError> {
        let read = self.store.db().read(move |snapshot| {
            let from = after.as_ref().map_or(Bound::Unbounded, |hash| Bound::Excluded(&hash.0[..]));
            let mut entries = Vec::new();
            for item in snapshot.range(keyspaces::BLOCK_QUEUE, from, Bound::Unbounded, Direction::Forward).take(limit_count) {
                let (key, value) = item.map_err(|error| error.to_string())?;
                let Ok(hash) = <[u8; 32]>::try_from(&key[..]) else { continue };
                // An entry that cannot be read only asks for a look.
                let entry = QueueEntry::from_stored(&value).unwrap_or(QueueEntry::now(QueueReason::Check));
                entries.push((BlockHash(hash), entry));
            }
            Ok(entries)
        });
        read.await.map_err(|error| error.to_string()).and_then(|entries| entries).map_err(QueueError::Read)
    }

    /// The entry of a block.
    pub async fn get(&self, hash: BlockHash) -> Result<Option<QueueEntry>, QueueError> {
        let read = self.store.db().read(move |snapshot| snapshot.get(keyspaces::BLOCK_QUEUE, &hash.0));
        let held = read.await.map_err(|error| error.to_string()).and_then(|held| held.map_err(|error| error.to_string()));
        let held = held.map_err(QueueError::Read)?;
        Ok(held.map(|bytes| QueueEntry::from_stored(&bytes).unwrap_or(QueueEntry::now(QueueReason::Check))))
    }

    /// Queues blocks for a look, at once; those that are queued already keep their reason and are only due sooner.
    pub async fn look_at(&self, hashes: Vec<BlockHash>) -> Result<(), QueueError> {
        let queued = self.store.db().transact(move |transaction| {
            for hash in hashes {
                let held = transaction.get(keyspaces::BLOCK_QUEUE, &hash.0)?;
                let held = held.and_then(|bytes| QueueEntry::from_stored(&bytes).ok());
                let entry = held.map_or(QueueEntry::now(QueueReason::Check), |held| QueueEntry { due_ms: 0, ..held });
                transaction.put(keyspaces::BLOCK_QUEUE, hash.0.to_vec(), entry.to_stored());
            }
            Ok::<(), StoreError>(())
        });
        queued.await?;
        Ok(())
    }

    /// Replaces an entry by another, or removes it, if it is still the one that was seen.
    pub async fn replace(&self, hash: BlockHash, seen: QueueEntry, new: Option<QueueEntry>) -> Result<(), QueueError> {
        let replaced = self.store.db().transact(move |transaction| {
            let held = transaction.get(keyspaces::BLOCK_QUEUE, &hash.0)?;
            let is_same = held.is_some_and(|bytes| QueueEntry::from_stored(&bytes).is_ok_and(|held| held == seen));
            match new {
                _ if !is_same => {}
                Some(new) => transaction.put(keyspaces::BLOCK_QUEUE, hash.0.to_vec(), new.to_stored()),
                None => transaction.delete(keyspaces::BLOCK_QUEUE, hash.0.to_vec()),
            }
            Ok::<(), StoreError>(())
        });
        replaced.await?;
        Ok(())
    }

    /// Removes these entries, whatever they are.
    pub async fn remove(&self, hashes: Vec<BlockHash>) -> Result<(), QueueError> {
        let removed = self.store.db().transact(move |transaction| {
            hashes.into_iter().for_each(|hash| transaction.delete(keyspaces::BLOCK_QUEUE, hash.0.to_vec()));
            Ok::<(), StoreError>(())
        });
        removed.await?;
        Ok(())
    }
}
