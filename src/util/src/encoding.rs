//! Stored rows and messages: rmp-serde with named fields behind one format byte.
//!
//! A new field gets a serde default and needs no new format. A format this build does not know is refused rather than read without
//! the fields that it cannot see.

use serde::{Serialize, de::DeserializeOwned};

/// Why bytes could not be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DecodeError {
    /// Nothing there, not even the format byte.
    #[error("an empty value where a stored {what} was expected")]
    Empty {
        /// The kind of value.
        what: &'static str,
    },
    /// Written by a newer release.
    #[error("a {what} of format {found}, this release reads up to {known}: upgrade this node")]
    NewerFormat {
        /// The kind of value.
        what: &'static str,
        /// The format byte found.
        found: u8,
        /// The newest format known here.
        known: u8,
    },
    /// Not what the format says.
    #[error("a damaged {what}: {reason}")]
    Damaged {
        /// The kind of value.
        what: &'static str,
        /// The decoder's sentence.
        reason: String,
    },
}

/// A value with a stored form: its name in errors and its format byte.
pub trait Stored: Serialize + DeserializeOwned {
    /// What it is called in errors.
    const WHAT: &'static str;
    /// The format this build writes, and the newest it reads.
    const FORMAT: u8 = 1;

    /// Reads an older format; the default knows none. A pure function, with a test on bytes of that format.
    fn migrate(format: u8, _body: &[u8]) -> Result<Self, DecodeError> {
        Err(DecodeError::Damaged { what: Self::WHAT, reason: format!("format {format} was never written") })
    }

    /// The stored form: format byte, then MessagePack with named fields.
    fn to_stored(&self) -> Vec<u8> {
        let mut bytes = vec![Self::FORMAT];
        rmp_serde::encode::write_named(&mut bytes, self)
            .expect("writing to a vector cannot fail, and stored types have no unserializable fields");
        bytes
    }

    /// Reads the stored form of this format or an older one.
    fn from_stored(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (&format, body) = bytes.split_first().ok_or(DecodeError::Empty { what: Self::WHAT })?;
        match format.cmp(&Self::FORMAT) {
            std::cmp::Ordering::Greater => Err(DecodeError::NewerFormat { what: Self::WHAT, found: format, known: Self::FORMAT }),
            std::cmp::Ordering::Less => Self::migrate(format, body),
            std::cmp::Ordering::Equal => {
                rmp_serde::from_slice(body).map_err(|error| DecodeError::Damaged { what: Self::WHAT, reason: error.to_string() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{DecodeError, Stored};

    #[derive(serde::Serialize, serde::Deserialize, PartialEq, Debug)]
    struct Row {
        name: String,
        #[serde(default)]
        added_later: u64,
    }
    impl Stored for Row {
        const WHAT: &'static str = "test row";
    }

    #[test]
    fn a_row_survives_and_a_newer_or_empty_one_is_refused() {
        let row = Row { name: "x".into(), added_later: 4 };
        let mut bytes = row.to_stored();
        assert_eq!(Row::from_stored(&bytes).unwrap(), row);
        bytes[0] = 2;
        assert!(matches!(Row::from_stored(&bytes), Err(DecodeError::NewerFormat { found: 2, .. })));
        assert!(matches!(Row::from_stored(&[]), Err(DecodeError::Empty { .. })));
        assert!(matches!(Row::from_stored(&[1, 0xc1]), Err(DecodeError::Damaged { .. })));
    }
}
