//! One lock for each block: adding a reference, writing and setting aside never happen to one block at the same time.
//!
//! Hashes share a fixed number of locks, so the memory is fixed too. Several are taken in ascending order, which rules out deadlock;
//! whoever holds a lock must not ask for another.

use std::{collections::BTreeSet, sync::Arc};

use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::{hash::BlockHash, limits::HASH_LOCKS_COUNT};

/// The locks of one store.
pub struct HashLocks(Vec<Arc<Mutex<()>>>);

/// Locks held over some blocks. A clone keeps them held: blocking work carries one, so that it ends under the lock even if whoever
/// waited for it is gone.
#[derive(Clone)]
pub struct HashLock(Arc<Vec<(usize, OwnedMutexGuard<()>)>>);

impl HashLocks {
    /// Locks that nobody holds.
    pub fn new() -> HashLocks {
        HashLocks((0..HASH_LOCKS_COUNT).map(|_| Arc::default()).collect())
    }

    /// Waits for the locks of all these blocks.
    pub async fn lock(&self, hashes: impl IntoIterator<Item = BlockHash>) -> HashLock {
        let indexes: BTreeSet<usize> = hashes.into_iter().map(index_of).collect();
        let mut guards = Vec::with_capacity(indexes.len());
        for index in indexes {
            guards.push((index, self.0[index].clone().lock_owned().await));
        }
        HashLock(Arc::new(guards))
    }
}

impl HashLock {
    /// Whether the block is among those locked.
    pub fn covers(&self, hash: BlockHash) -> bool {
        self.0.iter().any(|(index, _)| *index == index_of(hash))
    }
}

fn index_of(hash: BlockHash) -> usize {
    // The last bytes: the first ones choose the partition, of which a node holds only some.
    usize::from(u16::from_be_bytes([hash.0[30], hash.0[31]])) % HASH_LOCKS_COUNT
}

const _: () = assert!(HASH_LOCKS_COUNT <= u16::MAX as usize + 1);

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::HashLocks;
    use crate::hash::BlockHash;

    #[tokio::test]
    async fn a_block_is_locked_until_the_last_clone_is_dropped() {
        let locks = HashLocks::new();
        let (a, b) = (BlockHash::of(b"a"), BlockHash::of(b"b"));
        let held = locks.lock([a, b, a]).await;
        assert!(held.covers(a) && held.covers(b) && !held.covers(BlockHash::of(b"c")));
        let carried = held.clone();
        drop(held);
        assert!(locks.lock([b]).now_or_never().is_none());
        drop(carried);
        assert!(locks.lock([b]).now_or_never().is_some());
    }
}
