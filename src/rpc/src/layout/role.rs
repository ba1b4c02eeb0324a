//! What the operator says of a node (zone, capacity, tags) and of the cluster (zone redundancy), and its rules.

use garage_util::id::to_hex;
use serde::{Deserialize, Serialize};

use super::error::LayoutError;

/// The smallest capacity of a storage node, in bytes.
pub const CAPACITY_MIN_BYTES: u64 = 1024;
/// The longest zone name and the longest tag, in bytes.
pub const TEXT_LEN_MAX_BYTES: usize = 256;
/// The most tags one node can have.
pub const TAG_COUNT_MAX: usize = 64;

/// A node's part in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Role {
    /// Where it stands: nodes of one zone are expected to fail together.
    pub zone: String,
    /// What it may hold, in bytes; `None`: a gateway, which holds no data.
    pub capacity_bytes: Option<u64>,
    /// Words for the operator, without meaning here.
    #[serde(default)]
    pub tags: Vec<String>,
}

impl Role {
    /// Whether it holds data.
    pub fn is_storage(&self) -> bool {
        self.capacity_bytes.is_some()
    }

    /// Refuses what no layout may contain.
    ///
    /// Errors: [`LayoutError::InvalidRole`] with the rule that is broken.
    pub fn check(&self) -> Result<(), LayoutError> {
        let invalid = |reason: String| Err(LayoutError::InvalidRole { reason });
        if self.zone.is_empty() {
            return invalid("a node needs a zone name".to_owned());
        }
        if self.capacity_bytes.is_some_and(|capacity_bytes| capacity_bytes < CAPACITY_MIN_BYTES) {
            return invalid(format!("a capacity is at least {CAPACITY_MIN_BYTES} bytes; make the node a gateway to store nothing on it"));
        }
        if TAG_COUNT_MAX < self.tags.len() {
            return invalid(format!("a node has at most {TAG_COUNT_MAX} tags"));
        }
        let mut texts = std::iter::once(&self.zone).chain(&self.tags);
        if let Some(text) = texts.find(|text| TEXT_LEN_MAX_BYTES < text.len()) {
            let start = to_hex(&text.as_bytes()[..8]);
            return invalid(format!(
                "zone names and tags have at most {TEXT_LEN_MAX_BYTES} bytes; one starting with bytes {start} is longer"
            ));
        }
        if let Some(text) = std::iter::once(&self.zone).chain(&self.tags).find(|text| text.chars().any(char::is_control)) {
            return invalid(format!("zone names and tags hold no control characters: {text:?}"));
        }
        Ok(())
    }
}

/// Over how many zones the copies of each partition are spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ZoneRedundancy {
    /// Over as many as there are, up to one zone a copy.
    #[default]
    Maximum,
    /// Over this many or more; from 1 to the replication factor.
    AtLeast(usize),
}

impl ZoneRedundancy {
    /// The number of distinct zones that the copies of each partition reach, when `zone_count` zones have storage nodes.
    pub fn effective(self, zone_count: usize, replication_factor: usize) -> usize {
        match self {
            ZoneRedundancy::Maximum => zone_count.min(replication_factor),
            ZoneRedundancy::AtLeast(count) => count,
        }
    }

    /// Refuses a demand outside 1 to `replication_factor`.
    pub fn check(self, replication_factor: usize) -> Result<(), LayoutError> {
        match self {
            ZoneRedundancy::AtLeast(asked) if asked < 1 || replication_factor < asked => {
                Err(LayoutError::RedundancyOutOfRange { asked, replication_factor })
            }
            _ => Ok(()),
        }
    }
}

impl std::fmt::Display for ZoneRedundancy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ZoneRedundancy::Maximum => f.write_str("maximum"),
            ZoneRedundancy::AtLeast(count) => write!(f, "{count}"),
        }
    }
}

impl std::str::FromStr for ZoneRedundancy {
    type Err = LayoutError;

    /// Reads `none`, `max`, `maximum` or a number; its upper bound is checked once the replication factor is known.
    fn from_str(text: &str) -> Result<ZoneRedundancy, LayoutError> {
        match text {
            "none" | "max" | "maximum" => Ok(ZoneRedundancy::Maximum),
            _ => match text.parse() {
                Ok(count) if 1 <= count => Ok(ZoneRedundancy::AtLeast(count)),
                _ => Err(LayoutError::UnreadableRedundancy { text: text.chars().take(40).collect() }),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Role, ZoneRedundancy};

    fn role(zone: &str, capacity_bytes: Option<u64>, tags: &[&str]) -> Role {
        Role { zone: zone.to_owned(), capacity_bytes, tags: tags.iter().map(|tag| tag.to_string()).collect() }
    }

    #[test]
    fn a_role_out_of_bounds_is_refused_with_its_rule() {
        assert!(role("paris", Some(1024), &["ssd"]).check().is_ok());
        assert!(role("paris", None, &[]).check().is_ok());
        for (bad, word) in [
            (role("", None, &[]), "zone name"),
            (role("paris", Some(1023), &[]), "1024 bytes"),
            (role(&"z".repeat(257), None, &[]), "256 bytes"),
            (role("paris", None, &["a\nb"]), "control"),
            (role("paris", None, &["t"; 65]), "64 tags"),
        ] {
            let sentence = bad.check().unwrap_err().to_string();
            assert!(sentence.contains(word), "{sentence}");
        }
    }

    #[test]
    fn zone_redundancy_reads_what_operators_and_json_write() {
        for (text, expected) in [("none", ZoneRedundancy::Maximum), ("maximum", ZoneRedundancy::Maximum), ("2", ZoneRedundancy::AtLeast(2))]
        {
            assert_eq!(text.parse::<ZoneRedundancy>().unwrap(), expected);
        }
        for text in ["0", "-1", "many", ""] {
            assert!(text.parse::<ZoneRedundancy>().is_err(), "{text:?}");
        }
        assert!(ZoneRedundancy::AtLeast(4).check(3).is_err());
        assert_eq!(ZoneRedundancy::Maximum.effective(2, 3), 2);
        assert_eq!(ZoneRedundancy::Maximum.effective(5, 3), 3);
    }
}
