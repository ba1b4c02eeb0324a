//! The durable list of references to be asked about, in order of when: this node's own, filled by the reference table's hook.
//!
//! Key: when, in milliseconds since 1970, big-endian; version; block. So what is due stands first, and a version's blocks stand together.
//! A reference may be listed twice; asking once more does no harm.

use std::ops::Bound;

use garage_db::{Direction, TransactError, Transaction};
use garage_table::{Store, keyspaces, schema::StoreError};

use crate::hash::BlockHash;

/// Why the list could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum DueError {
    /// Reading.
    #[error("the list of leases cannot be read: {0}")]
    Read(String),
    /// Writing.
    #[error("the list of leases cannot be written: {0}")]
    Write(#[from] TransactError<StoreError>),
}

/// An entry of the list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Due {
    /// When, in milliseconds since 1970.
    pub due_ms: u64,
    /// The version.
    pub version: [u8; 32],
    /// The block.
    pub block: BlockHash,
}

impl Due {
    fn key(&self) -> Vec<u8> {
        [&self.due_ms.to_be_bytes()[..], &self.version, &self.block.0].concat()
    }
    fn of_key(key: &[u8]) -> Option<Due> {
        let due_ms = u64::from_be_bytes(key.get(..8)?.try_into().ok()?);
        let (version, block) = (key.get(8..40)?.try_into().ok()?, key.get(40..72)?.try_into().ok()?);
        (key.len() == 72).then_some(Due { due_ms, version, block: BlockHash(block) })
    }
}

const SEEN: &[u8] = b"s";
const PLAIN: &[u8] = b"-";

/// Lists a reference.
pub fn add(transaction: &mut Transaction<'_>, due: Due, was_seen: bool) {
    transaction.put(keyspaces::REFERENCE_DUE, due.key(), if was_seen { SEEN } else { PLAIN });
}

/// The list. Cheap to clone.
#[derive(Clone)]
pub struct DueQueue {
    store: Store,
}

impl DueQueue {
    /// The list in a node's store.
    pub fn new(store: Store) -> DueQueue {
        DueQueue { store }
    }

    /// What is due at `now_ms`, the longest due first, at most `limit_count`; each with whether its version was seen superseded.
    pub async fn due(&self, now_ms: u64, limit_count: usize) -> Result<Vec<(Due, bool)>, DueError> {
        let read = self.store.db().read(move |snapshot| {
            let end = now_ms.saturating_add(1).to_be_bytes();
            let mut found = Vec::new();
            for item in
                snapshot.range(keyspaces::REFERENCE_DUE, Bound::Unbounded, Bound::Excluded(&end), Direction::Forward).take(limit_count)
            {
                let (key, value) = item.map_err(|error| error.to_string())?;
                found.extend(Due::of_key(&key).map(|due| (due, value.as_ref() == SEEN)));
            }
            Ok(found)
        });
        read.await.map_err(|error| error.to_string()).and_then(|found| found).map_err(DueError::Read)
    }

    /// Lists references as due at once.
    pub async fn add_now(&self, references: Vec<(BlockHash, [u8; 32])>, was_seen: bool) -> Result<(), DueError> {
        let added = self.store.db().transact(move |transaction| {
            references.into_iter().for_each(|(block, version)| add(transaction, Due { due_ms: 0, version, block }, was_seen));
            Ok::<(), StoreError>(())
        });
        added.await?;
        Ok(())
    }

    /// Takes entries off the list and lists others in their stead.
    pub async fn replace(&self, done: Vec<Due>, again: Vec<(Due, bool)>) -> Result<(), DueError> {
        let replaced = self.store.db().transact(move |transaction| {
            done.iter().for_each(|due| transaction.delete(keyspaces::REFERENCE_DUE, due.key()));
            again.into_iter().for_each(|(due, was_seen)| add(transaction, due, was_seen));
            Ok::<(), StoreError>(())
        });
        replaced.await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Due;
    use crate::hash::BlockHash;

    proptest! {
        #[test]
        fn keys_come_back_and_sort_by_time(a: u64, b: u64, version: [u8; 32], block: [u8; 32]) {
            let due = |due_ms| Due { due_ms, version, block: BlockHash(block) };
            prop_assert_eq!(Due::of_key(&due(a).key()), Some(due(a)));
            prop_assert_eq!(due(a).key().cmp(&due(b).key()), a.cmp(&b));
        }
        #[test]
        fn other_keys_are_refused_without_a_panic(key: Vec<u8>) {
            prop_assert!(Due::of_key(&key).is_none() || key.len() == 72);
        }
    }
}
