//! Points in time as the interface writes them: RFC 3339 in UTC, with milliseconds only when there are some.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Milliseconds since 1970 UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp(pub i64);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Milliseconds beyond what a calendar holds come only from a broken row; they are shown as the nearest end.
        let time =
            jiff::Timestamp::from_millisecond(self.0).unwrap_or(if self.0 < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX });
        let precision = if self.0.rem_euclid(1000) == 0 { 0 } else { 3 };
        write!(f, "{time:.precision$}")
    }
}

impl std::str::FromStr for Timestamp {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let time: jiff::Timestamp = text.parse().map_err(|_| format!("{text:?} is not a time such as 2025-01-31T23:59:59Z"))?;
        Ok(Timestamp(time.as_millisecond()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_are_written_only_when_there_are_some() {
        for (milliseconds, text) in
            [(0, "1970-01-01T00:00:00Z"), (1_500, "1970-01-01T00:00:01.500Z"), (1_735_689_600_000, "2025-01-01T00:00:00Z")]
        {
            assert_eq!(Timestamp(milliseconds).to_string(), text);
            assert_eq!(text.parse::<Timestamp>().unwrap(), Timestamp(milliseconds));
        }
    }

    #[test]
    fn any_offset_is_read() {
        assert_eq!("1970-01-01T02:00:00+02:00".parse::<Timestamp>().unwrap(), Timestamp(0));
        assert!("yesterday".parse::<Timestamp>().is_err());
    }
}
