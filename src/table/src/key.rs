//! How rows are addressed: table, group, sort key, and the bytes under which the local store keeps them.
//!
//! Local key = table ‖ first 4 bytes of BLAKE3(partition key) ‖ escaped partition key ‖ 00 01 ‖ sort key. Zero bytes inside an escaped
//! part are written 00 FF, so byte order is the order of the parts, and a ring partition is a prefix of the local keys of a table.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A table's number, fixed for ever: it is in stored keys and in messages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct TableId(pub u8);

/// A partition key: what decides the nodes that hold a row.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct GroupKey(#[serde(with = "serde_bytes")] pub Vec<u8>);

/// A row's place inside its group.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct SortKey(#[serde(with = "serde_bytes")] pub Vec<u8>);

/// A group key with its ring position.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Group {
    key: GroupKey,
    hash: [u8; 32],
}

impl Group {
    /// The group of a partition key.
    pub fn new(key: impl Into<Vec<u8>>) -> Group {
        let key = GroupKey(key.into());
        let hash = *blake3::hash(&key.0).as_bytes();
        Group { key, hash }
    }
    /// The partition key.
    pub fn key(&self) -> &GroupKey {
        &self.key
    }
    /// BLAKE3 of the partition key; its first bits choose the ring partition.
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }
    /// The bytes with which the local keys of this group's rows in `table` start.
    pub fn prefix(&self, table: TableId) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1 + 4 + self.key.0.len() + 2);
        bytes.push(table.0);
        bytes.extend_from_slice(&self.hash[..4]);
        push_escaped(&mut bytes, &self.key.0);
        bytes
    }
    /// The local key of a row.
    pub fn local_key(&self, table: TableId, sort_key: &[u8]) -> Vec<u8> {
        let mut bytes = self.prefix(table);
        bytes.extend_from_slice(sort_key);
        bytes
    }
}

/// The table, group and sort key that a local key was made of; `None`: it was not made by [`Group::local_key`].
pub fn split_local_key(local_key: &[u8]) -> Option<(TableId, Group, SortKey)> {
    let (&table, rest) = local_key.split_first()?;
    let (partition_key, sort_key) = split_escaped(rest.get(4..)?)?;
    let group = Group::new(partition_key);
    (group.hash()[..4] == rest[..4]).then(|| (TableId(table), group, SortKey(sort_key.to_vec())))
}

/// Appends `part` with its zero bytes escaped, and the terminator 00 01.
pub fn push_escaped(bytes: &mut Vec<u8>, part: &[u8]) {
    for &byte in part {
        bytes.push(byte);
        if byte == 0 {
            bytes.push(0xff);
        }
    }
    bytes.extend_from_slice(&[0, 1]);
}

/// Splits an escaped part off the front: the part, and what follows its terminator. `None`: the bytes do not start with one.
pub fn split_escaped(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut part = Vec::with_capacity(bytes.len());
    let mut index = 0;
    loop {
        match (*bytes.get(index)?, bytes.get(index + 1)) {
            (0, Some(1)) => return Some((part, &bytes[index + 2..])),
            (0, Some(0xff)) => {
                part.push(0);
                index += 2;
            }
            (0, _) => return None,
            (byte, _) => {
                part.push(byte);
                index += 1;
            }
        }
    }
}

/// The smallest byte string greater than every string that starts with `prefix`; `None` when there is none (all bytes FF).
pub fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// The sort key inside a local key that starts with `prefix_len_bytes` of group prefix.
pub fn sort_key_of(local_key: &Bytes, prefix_len_bytes: usize) -> Bytes {
    local_key.slice(prefix_len_bytes..)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Group, SortKey, TableId, after_prefix, push_escaped, split_escaped, split_local_key};

    fn escaped(part: &[u8], rest: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        push_escaped(&mut bytes, part);
        bytes.extend_from_slice(rest);
        bytes
    }

    proptest! {
        #[test]
        fn escaped_parts_come_back_and_keep_their_order(a in prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(255), any::<u8>()], 0..8),
                b in prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(255), any::<u8>()], 0..8), x: Vec<u8>, y: Vec<u8>) {
            let first = escaped(&a, &x);
            let (part, rest) = split_escaped(&first).unwrap();
            prop_assert_eq!(&part, &a);
            prop_assert_eq!(rest, &x[..]);
            prop_assert_eq!((&a, &x).cmp(&(&b, &y)), first.cmp(&escaped(&b, &y)));
        }

        #[test]
        fn what_starts_with_a_prefix_is_below_its_end(prefix: Vec<u8>, rest: Vec<u8>) {
            if let Some(end) = after_prefix(&prefix) {
                let whole = [prefix.clone(), rest].concat();
                prop_assert!(whole < end && prefix < end && !end.starts_with(&prefix));
            } else {
                prop_assert!(prefix.iter().all(|&byte| byte == 0xff));
            }
        }

        #[test]
        fn damaged_escapes_are_refused_without_a_panic(bytes: Vec<u8>) {
            let _ = split_escaped(&bytes);
        }
    }

    proptest! {
        #[test]
        fn a_local_key_gives_back_what_it_was_made_of(table: u8, part: Vec<u8>, sort: Vec<u8>, at in 0usize..5) {
            let group = Group::new(part);
            let mut key = group.local_key(TableId(table), &sort);
            prop_assert_eq!(split_local_key(&key), Some((TableId(table), group, SortKey(sort))));
            if 0 < at {
                key[at] ^= 1;
                prop_assert_eq!(split_local_key(&key), None);
            }
        }
    }

    #[test]
    fn a_local_key_has_the_documented_form() {
        let group = Group::new(b"a\0b".to_vec());
        let key = group.local_key(TableId(7), b"sort");
        assert_eq!(key[0], 7);
        assert_eq!(&key[1..5], &group.hash()[..4]);
        assert_eq!(&key[5..], b"a\0\xffb\0\x01sort");
    }
}
