//! Leaf digests: for each table and ring partition a fixed array of sums over the hashes of its rows, kept in the rows' own transaction.
//!
//! Invariants:
//! - a leaf sum is the wrapping sum of the hashes of exactly the rows that the leaf index lists;
//! - a row hash is over canonical content (key, stamp, id, content without its format byte), never over stored bytes.
//!
//! Not here: comparing digests with peers (`sync`).

use bytes::Bytes;
use garage_db::{Direction, EngineError, Snapshot, Transaction};

use crate::{
    key::{Group, TableId},
    keyspaces,
};

/// Ring partitions that digests tell apart.
pub const DIGEST_PARTITION_COUNT: usize = 256;
/// Leaves for each table and ring partition.
pub const LEAF_COUNT: usize = 1024;

/// Parts that a leaf is split in when two replicas compare one that is too long to be listed.
pub const LEAF_PART_COUNT: usize = 64;

/// The first 16 bytes of the BLAKE3 hash of a row's local key: its name in comparisons.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct KeyHash(pub [u8; 16]);

impl KeyHash {
    /// The hash of a local key.
    pub fn of(local_key: &[u8]) -> KeyHash {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&blake3::hash(local_key).as_bytes()[..16]);
        KeyHash(bytes)
    }
    /// The leaf that the row counts in: the first 10 bits.
    pub fn leaf(self) -> u16 {
        u16::from_be_bytes([self.0[0], self.0[1]]) >> 6
    }
    /// Which part of its leaf: the next 6 bits.
    pub fn part(self) -> usize {
        usize::from(self.0[1] & 0x3f)
    }
}

const _: () = assert!(LEAF_COUNT == 1 << 10 && LEAF_PART_COUNT == 1 << 6);

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
    let key_hash = KeyHash::of(local_key);
    let leaf = Leaf { table, partition: group.hash()[0], leaf: key_hash.leaf() };
    debug_assert!(usize::from(leaf.leaf) < LEAF_COUNT);
    (leaf, index_key(leaf, key_hash))
}

fn index_key(leaf: Leaf, key_hash: KeyHash) -> Vec<u8> {
    let mut index_key = leaf.sum_key();
    index_key.extend_from_slice(&key_hash.0);
    index_key
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

/// The sum over all rows of a table in a digest partition.
pub fn partition_total(snapshot: &dyn Snapshot, table: TableId, partition: u8) -> Result<u128, EngineError> {
    read_sum(snapshot, &total_key(table, partition))
}

/// The sums of all leaves of a table and digest partition, [`LEAF_COUNT`] of them.
pub fn leaf_sums(snapshot: &dyn Snapshot, table: TableId, partition: u8) -> Result<Vec<u128>, EngineError> {
    let mut sums = vec![0; LEAF_COUNT];
    for item in snapshot.prefix(keyspaces::DIGEST, &total_key(table, partition), Direction::Forward) {
        let (key, value) = item?;
        // The total lies under the prefix itself.
        let leaf = key[2..].try_into().ok().map(u16::from_be_bytes).filter(|leaf| usize::from(*leaf) < LEAF_COUNT);
        if let (Some(leaf), Ok(sum)) = (leaf, value.as_ref().try_into()) {
            sums[usize::from(leaf)] = u128::from_le_bytes(sum);
        }
    }
    Ok(sums)
}

/// The rows of a leaf, in order of their key hashes.
pub fn leaf_rows(snapshot: &dyn Snapshot, leaf: Leaf) -> Result<Vec<(KeyHash, RowHash)>, EngineError> {
    let prefix = leaf.sum_key();
    let mut rows = Vec::new();
    for item in snapshot.prefix(keyspaces::LEAVES, &prefix, Direction::Forward) {
        let (key, value) = item?;
        if let (Ok(key_hash), Some((row_hash, _))) = (key[prefix.len()..].try_into(), split_indexed(&value)) {
            rows.push((KeyHash(key_hash), row_hash));
        }
    }
    Ok(rows)
}

/// The row of a key hash: its hash and its local key. `None`: no such row is held.
pub fn indexed_row(
    snapshot: &dyn Snapshot,
    table: TableId,
    partition: u8,
    key_hash: KeyHash,
) -> Result<Option<(RowHash, Bytes)>, EngineError> {
    let key = index_key(Leaf { table, partition, leaf: key_hash.leaf() }, key_hash);
    Ok(snapshot.get(keyspaces::LEAVES, &key)?.and_then(|value| split_indexed(&value)))
}

/// What the leaf index holds of a row: its hash, then its local key.
fn split_indexed(value: &Bytes) -> Option<(RowHash, Bytes)> {
    let hash = value.get(..16)?.try_into().ok()?;
    Some((RowHash(u128::from_le_bytes(hash)), value.slice(16..)))
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
