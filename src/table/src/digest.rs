//! Leaf digests: for each table and ring partition a fixed array of sums over the hashes of its rows, kept in the rows' own transaction.
//!
//! Invariants:
//! - a leaf sum is the wrapping sum of the hashes of exactly the rows that the leaf index lists;
//! - a row hash is over canonical content (key, stamp, id, content without its format byte), never over stored bytes.
//!
//! Not here: comparing digests with peers.

use garage_db::{EngineError, Snapshot, Transaction};

use crate::{
    key::{Group, TableId},
    keyspaces,
};

/// Ring partitions that digests tell apart.
pub const DIGEST_PARTITION_COUNT: usize = 256;
/// Leaves for each table and ring partition.
pub const LEAF_COUNT: usize = 1024;

/// The first 16 bytes of a row's BLAKE3 hash, as a number to be summed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RowHash(pub u128);

impl RowHash {
    /// The hash of a row: local key, then whatever canonical parts make its content; each part is preceded by its length.
    pub fn of(local_key: &[u8], parts: &[&[u8]]) -> RowHash {
        let mut hasher = blake3::Hasher::new();
        for part in std::iter::once(&local_key).chain(parts) {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        RowHash(first_16(hasher.finalize()))
    }
}

fn first_16(hash: blake3::Hash) -> u128 {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.as_bytes()[..16]);
    u128::from_le_bytes(bytes)
}

/// A leaf: table, ring partition, and the first 10 bits of the key's hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Leaf {
    /// The table.
    pub table: TableId,
    /// The ring partition, by the first byte of the group's hash.
    pub partition: u8,
    /// Below [`LEAF_COUNT`].
    pub leaf: u16,
}

impl Leaf {
    /// The key of the leaf's sum.
    pub fn sum_key(self) -> Vec<u8> {
        let [high, low] = self.leaf.to_be_bytes();
        vec![self.table.0, self.partition, high, low]
    }
}

/// Where a row counts: its leaf, and its key in the leaf index.
fn place(group: &Group, table: TableId, local_key: &[u8]) -> (Leaf, Vec<u8>) {
    let key_hash = blake3::hash(local_key);
    let bytes = key_hash.as_bytes();
    let leaf = u16::from_be_bytes([bytes[0], bytes[1]]) >> 6;
    debug_assert!(usize::from(leaf) < LEAF_COUNT);
    let leaf = Leaf { table, partition: group.hash()[0], leaf };
    let mut index_key = leaf.sum_key();
    index_key.extend_from_slice(&bytes[..16]);
    (leaf, index_key)
}

/// The key of the sum over all leaves of a table and ring partition: equal totals need no look at the leaves.
fn total_key(table: TableId, partition: u8) -> Vec<u8> {
    vec![table.0, partition]
}

fn read_sum(snapshot: &dyn Snapshot, key: &[u8]) -> Result<u128, EngineError> {
    let bytes = snapshot.get(keyspaces::DIGEST, key)?;
    Ok(bytes.and_then(|bytes| bytes.as_ref().try_into().ok()).map_or(0, u128::from_le_bytes))
}

/// The sum over all rows of a table in the ring partition of `group`.
pub fn total(snapshot: &dyn Snapshot, table: TableId, group: &Group) -> Result<u128, EngineError> {
    read_sum(snapshot, &total_key(table, group.hash()[0]))
}

/// Replaces a row's hash in its leaf: subtracts the old, adds the new, updates the leaf index.
pub fn replace(
    transaction: &mut Transaction<'_>,
    group: &Group,
    table: TableId,
    local_key: &[u8],
    old: Option<RowHash>,
    new: Option<RowHash>,
) -> Result<(), EngineError> {
    let (leaf, index_key) = place(group, table, local_key);
    let sum_key = leaf.sum_key();
    let held = read_sum(transaction, &sum_key)?;
    let sum = held.wrapping_sub(old.map_or(0, |hash| hash.0)).wrapping_add(new.map_or(0, |hash| hash.0));
    transaction.put(keyspaces::DIGEST, sum_key, sum.to_le_bytes().to_vec());
    let total_key = total_key(table, group.hash()[0]);
    let total = read_sum(transaction, &total_key)?.wrapping_sub(held).wrapping_add(sum);
    transaction.put(keyspaces::DIGEST, total_key, total.to_le_bytes().to_vec());
    match new {
        Some(hash) => transaction.put(keyspaces::LEAVES, index_key, [&hash.0.to_le_bytes()[..], local_key].concat()),
        None => transaction.delete(keyspaces::LEAVES, index_key),
    }
    Ok(())
}
