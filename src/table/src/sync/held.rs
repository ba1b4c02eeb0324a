//! Who holds which digest partitions. Pure.
//!
//! Digests know 256 partitions, whatever the number of ring partitions: where the ring has fewer, one ring partition is several of
//! them; where it has more, a digest partition is held only by who holds all ring partitions in it.

use std::collections::BTreeSet;

use garage_net::NodeId;
use garage_rpc::layout::{LayoutHistory, LayoutVersion, Partition};

use crate::digest::DIGEST_PARTITION_COUNT;

/// The ring partitions that make up a digest partition.
pub fn ring_partitions(digest_partition: u8, partition_count: usize) -> impl Iterator<Item = Partition> {
    let (digest, count) = (usize::from(digest_partition), DIGEST_PARTITION_COUNT);
    let first = digest * partition_count / count;
    let last = ((digest + 1) * partition_count).div_ceil(count).max(first + 1);
    (first..last).map(|index| Partition(index as u16))
}

/// The digest partitions that a node holds in one version, ascending.
pub fn digest_partitions(version: &LayoutVersion, node: NodeId) -> BTreeSet<u8> {
    (0..=u8::MAX).filter(|digest| ring_partitions(*digest, version.partition_count).all(|ring| version.holds(node, ring))).collect()
}

/// The digest partitions that a node holds in any live version, ascending.
pub fn held_partitions(history: &LayoutHistory, node: NodeId) -> BTreeSet<u8> {
    history.live().filter(|version| version.is_ready()).flat_map(|version| digest_partitions(version, node)).collect()
}

#[cfg(test)]
mod tests {
    use garage_rpc::layout::Partition;

    use super::ring_partitions;

    #[test]
    fn digest_partitions_follow_the_first_byte_of_the_hash_whatever_the_ring() {
        for partition_count in [1, 2, 16, 256, 512, 1024] {
            for first in 0..=u8::MAX {
                let found: Vec<Partition> = ring_partitions(first, partition_count).collect();
                let mut expected: Vec<Partition> = (0..=u8::MAX)
                    .map(|second| {
                        let mut hash = [0; 32];
                        (hash[0], hash[1]) = (first, second);
                        Partition::of_hash(&hash, partition_count)
                    })
                    .collect();
                expected.dedup();
                assert_eq!(found, expected, "{first} of {partition_count}");
            }
        }
    }
}
