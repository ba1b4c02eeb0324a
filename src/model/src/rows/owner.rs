//! Whose a block reference is: where the row is that decides whether the version or part lives.

use garage_table::SortKey;
use garage_util::encoding::Stored;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// The row that a block reference stands for; its group is in the reference itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum RowOwner {
    /// A version under this sort key of the version table.
    Version(ByteBuf),
    /// A part of the upload under this sort key of the upload table.
    Part {
        /// The upload.
        upload: ByteBuf,
        /// The part's number.
        number: u16,
    },
}

impl Stored for RowOwner {
    const WHAT: &'static str = "owner of a block reference";
}

impl RowOwner {
    /// A version.
    pub fn version(key: &SortKey) -> RowOwner {
        RowOwner::Version(ByteBuf::from(key.0.clone()))
    }
    /// A part of an upload.
    pub fn part(upload: &SortKey, number: u16) -> RowOwner {
        RowOwner::Part { upload: ByteBuf::from(upload.0.clone()), number }
    }
}

#[cfg(test)]
mod tests {
    use garage_table::SortKey;
    use garage_util::encoding::Stored;

    use super::RowOwner;

    #[test]
    fn the_first_format_stays_readable() {
        for (owner, stored) in [
            (RowOwner::version(&SortKey(b"k".to_vec())), &b"\x01\x81\xa7Version\xc4\x01k"[..]),
            (RowOwner::part(&SortKey(b"u".to_vec()), 7), b"\x01\x81\xa4Part\x82\xa6upload\xc4\x01u\xa6number\x07"),
        ] {
            assert_eq!(owner.to_stored(), stored);
            assert_eq!(RowOwner::from_stored(stored).unwrap(), owner);
        }
    }
}
