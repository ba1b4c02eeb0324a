//! The note beside the store: which store it is and how many commits were acknowledged.
//!
//! A store that recovers fewer commits than its note says has lost acknowledged data. Two slots are written in turn, so that a torn
//! write spoils one and leaves the one before.

use garage_util::id32;
use xxhash_rust::xxh3::xxh3_64;

id32!(
    /// Names one store for its whole life: random at creation, new when the store was lost or replaced.
    StoreId
);

/// How far a store had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Which store.
    pub store_id: StoreId,
    /// The last commit that was acknowledged, or an earlier one.
    pub commit_number: u64,
}

/// Bytes of one slot: store id, commit number, checksum.
pub const SLOT_BYTES: usize = 32 + 8 + 8;
/// Where the second slot begins: on another sector, so that one torn write cannot spoil both.
pub const SLOT_DISTANCE_BYTES: usize = 4096;

impl Mark {
    /// The slot's bytes.
    pub fn encode(&self) -> [u8; SLOT_BYTES] {
        let mut bytes = [0; SLOT_BYTES];
        bytes[..32].copy_from_slice(self.store_id.as_bytes());
        bytes[32..40].copy_from_slice(&self.commit_number.to_le_bytes());
        let checksum = xxh3_64(&bytes[..40]);
        bytes[40..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// A slot from its bytes; `None` if they are not one.
    pub fn decode(bytes: &[u8]) -> Option<Mark> {
        let (content, checksum) = bytes.get(..SLOT_BYTES)?.split_at(40);
        if xxh3_64(content).to_le_bytes() != checksum {
            return None;
        }
        let store_id = StoreId(content[..32].try_into().ok()?);
        let commit_number = u64::from_le_bytes(content[32..].try_into().ok()?);
        Some(Mark { store_id, commit_number })
    }

    /// The newest mark in a whole file of slots.
    pub fn newest_in(file: &[u8]) -> Option<Mark> {
        let slots = [Some(file), file.get(SLOT_DISTANCE_BYTES..)];
        slots.into_iter().flatten().filter_map(Mark::decode).max_by_key(|mark| mark.commit_number)
    }
}

#[cfg(test)]
mod tests {
    use super::{Mark, SLOT_DISTANCE_BYTES, StoreId};

    #[test]
    fn a_torn_slot_leaves_the_mark_before() {
        let mark = |commit_number| Mark { store_id: StoreId([7; 32]), commit_number };
        let mut file = vec![0; SLOT_DISTANCE_BYTES + super::SLOT_BYTES];
        file[..super::SLOT_BYTES].copy_from_slice(&mark(8).encode());
        file[SLOT_DISTANCE_BYTES..].copy_from_slice(&mark(9).encode());
        assert_eq!(Mark::newest_in(&file), Some(mark(9)));
        for position in 0..super::SLOT_BYTES {
            let mut torn = file.clone();
            torn[SLOT_DISTANCE_BYTES + position] ^= 0x10;
            assert_eq!(Mark::newest_in(&torn), Some(mark(8)), "position {position}");
        }
        assert_eq!(Mark::newest_in(&[]), None);
    }
}
