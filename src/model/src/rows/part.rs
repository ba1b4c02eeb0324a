//! Parts of multipart uploads. Re-uploading a number replaces it; the upload that finished last wins.

use garage_rpc::register::WriteId;
use garage_table::SortKey;
use garage_util::{encoding::Stored, hlc::Stamp};
use serde::{Deserialize, Serialize};

use super::{checksum::StoredChecksum, upload::UploadId};

/// The largest part number; AWS S3 User Guide, "Multipart upload limits".
pub const PART_NUMBER_MAX: u16 = 10_000;

/// A part. A merge row under (upload id, part number).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PartRow {
    /// When its upload finished; the greater stamp wins.
    pub stamp: Stamp,
    /// The id under which its block list is kept, as companions of the same group.
    pub id: WriteId,
    /// Length of its content.
    pub size_bytes: u64,
    /// MD5 of its content in hex.
    pub etag: String,
    /// In milliseconds since 1970.
    pub modified_ms: u64,
    /// The checksum given or computed.
    #[serde(default)]
    pub checksum: Option<StoredChecksum>,
}

impl Stored for PartRow {
    const WHAT: &'static str = "part";
}

impl PartRow {
    /// The one of two that counts.
    pub fn merge(a: PartRow, b: PartRow) -> PartRow {
        if (a.stamp, a.id) < (b.stamp, b.id) { b } else { a }
    }
}

/// The sort key of a part: upload id, then the number, big-endian.
pub fn part_key(upload: UploadId, part_number: u16) -> SortKey {
    SortKey([&upload.as_bytes()[..], &part_number.to_be_bytes()].concat())
}

/// The part number in a sort key.
pub fn part_number_of(sort_key: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(sort_key.get(32..34)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use garage_rpc::register::WriteId;
    use garage_util::hlc::Stamp;
    use proptest::prelude::*;

    use super::PartRow;

    prop_compose! {
        fn part()(time in 0u64..4, node in 0u64..3, id in 0u8..3) -> PartRow {
            // A stamp is given once: equal stamps mean the same write, hence the same content.
            let id = if time == 0 { id } else { node as u8 };
            PartRow { stamp: Stamp::from_parts(time, node, false), id: WriteId([id; 32]), size_bytes: u64::from(id), etag: String::new(), modified_ms: 0, checksum: None }
        }
    }

    proptest! {
        #[test]
        fn merge_ignores_order_and_repetition(a in part(), b in part(), c in part()) {
            let merge = |x: &PartRow, y: &PartRow| PartRow::merge(x.clone(), y.clone());
            prop_assert_eq!(merge(&a, &b), merge(&b, &a));
            prop_assert_eq!(merge(&a, &merge(&b, &c)), merge(&merge(&a, &b), &c));
            prop_assert_eq!(merge(&a, &a), a);
        }
    }
}
