//! Makes newtypes for 32-byte identifiers, one for each kind, so that a bucket id where a version id is meant does not compile.

/// The text is not 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an id: 64 hexadecimal digits are needed")]
pub struct ParseIdError {
    /// What was given.
    pub text: String,
}

/// Declares a 32-byte identifier: ordered, hashable, shown and parsed as 64 lower-case hexadecimal digits, stored as raw bytes.
#[macro_export]
macro_rules! id32 {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// The raw bytes.
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
            /// The first 16 hexadecimal digits, as shown to people.
            pub fn short(&self) -> String {
                $crate::id::to_hex(&self.0[..8])
            }
            /// A fresh random id.
            pub fn random(runtime: &$crate::runtime::Runtime) -> Self {
                let mut bytes = [0; 32];
                runtime.fill_random(&mut bytes);
                Self(bytes)
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&$crate::id::to_hex(&self.0))
            }
        }
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }
        impl std::str::FromStr for $name {
            type Err = $crate::id::ParseIdError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                $crate::id::parse_id32(text).map(Self)
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() { serializer.collect_str(self) } else { serializer.serialize_bytes(&self.0) }
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::id::deserialize_id32(deserializer).map(Self)
            }
        }
    };
}

/// Lower-case hexadecimal text of `bytes`.
pub fn to_hex(bytes: &[u8]) -> String {
    hex::encode(bytes)
}

/// Parses 64 hexadecimal digits (either case).
pub fn parse_id32(text: &str) -> Result<[u8; 32], ParseIdError> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| ParseIdError { text: text.chars().take(80).collect() })?;
    Ok(bytes)
}

/// Reads 32 raw bytes from a binary format, or 64 hexadecimal digits from a readable one.
pub fn deserialize_id32<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
    struct Visitor;
    impl<'de> serde::de::Visitor<'de> for Visitor {
        type Value = [u8; 32];
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("32 bytes, or 64 hexadecimal digits")
        }
        fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
            bytes.try_into().map_err(|_| E::invalid_length(bytes.len(), &self))
        }
        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
            parse_id32(text).map_err(E::custom)
        }
    }
    if deserializer.is_human_readable() { deserializer.deserialize_str(Visitor) } else { deserializer.deserialize_bytes(Visitor) }
}

#[cfg(test)]
mod tests {
    id32!(
        /// An id for the tests.
        TestId
    );

    #[test]
    fn an_id_survives_text_and_both_kinds_of_encoding() {
        let id = TestId(std::array::from_fn(|index| index as u8));
        assert_eq!(id.as_bytes()[31], 31);
        assert_ne!(TestId::random(&crate::runtime::Runtime::real().0), id);
        assert_eq!(id.to_string().parse::<TestId>().unwrap(), id);
        let packed = rmp_serde::to_vec_named(&id).unwrap();
        assert_eq!(packed.len(), 34, "raw bytes, not an array of numbers");
        assert_eq!(rmp_serde::from_slice::<TestId>(&packed).unwrap(), id);
    }

    #[test]
    fn a_text_of_another_length_or_alphabet_is_refused() {
        for text in ["", "00", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64)] {
            assert!(text.parse::<TestId>().is_err(), "{text:?}");
        }
    }
}
