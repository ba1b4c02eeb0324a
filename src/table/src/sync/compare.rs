//! What follows from two lists of rows. Pure.

use std::collections::BTreeMap;

use crate::digest::{KeyHash, LEAF_PART_COUNT, RowHash};

/// What one replica does about the rows in which it differs from another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Held by the other alone, or by both and differently: to be asked for.
    pub wanted: Vec<KeyHash>,
    /// Held here alone: to be given.
    pub surplus: Vec<KeyHash>,
}

impl Differences {
    /// Compares what is held here with what the other holds of the same leaves or parts.
    pub fn between(own: impl IntoIterator<Item = (KeyHash, RowHash)>, theirs: impl IntoIterator<Item = (KeyHash, RowHash)>) -> Differences {
        let mut own: BTreeMap<KeyHash, RowHash> = own.into_iter().collect();
        let mut found = Differences::default();
        for (key, hash) in theirs {
            if own.remove(&key) != Some(hash) {
                found.wanted.push(key);
            }
        }
        found.surplus = own.into_keys().collect();
        found
    }

    /// Adds those of other leaves.
    pub fn extend(&mut self, other: Differences) {
        self.wanted.extend(other.wanted);
        self.surplus.extend(other.surplus);
    }
}

/// The sums of the parts of a leaf that holds these rows.
pub fn part_sums(rows: &[(KeyHash, RowHash)]) -> [u128; LEAF_PART_COUNT] {
    let mut sums = [0u128; LEAF_PART_COUNT];
    for (key, hash) in rows {
        let sum = &mut sums[key.part()];
        *sum = sum.wrapping_add(hash.0);
    }
    sums
}

/// A bit for each part whose sums differ.
pub fn differing_parts(own: &[u128; LEAF_PART_COUNT], theirs: impl IntoIterator<Item = u128>) -> u64 {
    let differing = own.iter().zip(theirs).enumerate().filter(|(_, (own, theirs))| **own != *theirs);
    differing.fold(0, |mask, (part, _)| mask | 1 << part)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::{Differences, differing_parts, part_sums};
    use crate::digest::{KeyHash, RowHash};

    fn rows() -> impl Strategy<Value = BTreeMap<KeyHash, RowHash>> {
        prop::collection::btree_map(any::<[u8; 2]>(), 0u128..3, 0..40).prop_map(|rows| {
            let key = |[high, low]: [u8; 2]| {
                let mut bytes = [0; 16];
                (bytes[1], bytes[2]) = (high % 64, low % 4);
                KeyHash(bytes)
            };
            rows.into_iter().map(|(bytes, hash)| (key(bytes), RowHash(hash))).collect()
        })
    }

    proptest! {
        #[test]
        fn every_difference_is_found_and_nothing_else(own in rows(), theirs in rows()) {
            let found = Differences::between(own.clone(), theirs.clone());
            for key in own.keys().chain(theirs.keys()) {
                let (here, there) = (own.get(key), theirs.get(key));
                prop_assert_eq!(found.wanted.contains(key), there.is_some() && here != there);
                prop_assert_eq!(found.surplus.contains(key), there.is_none());
            }
        }

        #[test]
        fn a_row_that_differs_alone_shows_in_its_part(own in rows(), at: prop::sample::Index) {
            let own: Vec<_> = own.into_iter().collect();
            prop_assume!(!own.is_empty());
            let mut theirs = own.clone();
            let changed = at.index(own.len());
            theirs[changed].1 = RowHash(9);
            let mask = differing_parts(&part_sums(&own), part_sums(&theirs));
            prop_assert_eq!(mask, 1 << own[changed].0.part());
        }
    }
}
