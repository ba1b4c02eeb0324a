//! Lifecycle rules of a bucket, and what they say of a version. Pure: the clock comes in.
//!
//! Source: s3 reference §3.15; AWS S3 User Guide, "Managing the lifecycle of objects".

use serde::{Deserialize, Serialize};

/// A day, in milliseconds.
pub const DAY_MS: u64 = 24 * 3600 * 1000;

/// A rule.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct LifecycleRule {
    /// Unique in its bucket.
    pub id: String,
    /// Whether it is carried out.
    pub enabled: bool,
    /// What it applies to.
    pub filter: Filter,
    /// Given outside a filter, in the form of old documents.
    #[serde(default)]
    pub is_plain_prefix: bool,
    /// Of current versions.
    #[serde(default)]
    pub expiration: Option<Expiration>,
    /// Of older versions.
    #[serde(default)]
    pub noncurrent: Option<NoncurrentExpiration>,
    /// Days after which uploads are aborted.
    #[serde(default)]
    pub abort_uploads_days: Option<u32>,
}

/// What a rule applies to: everything that fulfils all of it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Filter {
    /// Keys that start with it.
    #[serde(default)]
    pub prefix: Option<String>,
    /// Objects that have all of these tags.
    #[serde(default)]
    pub tags: Vec<(String, String)>,
    /// Objects larger than this, in bytes.
    #[serde(default)]
    pub larger_than_bytes: Option<u64>,
    /// Objects smaller than this, in bytes.
    #[serde(default)]
    pub smaller_than_bytes: Option<u64>,
    /// Whether the parts stood in an `And`.
    #[serde(default)]
    pub is_and: bool,
}

/// When current versions expire.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Expiration {
    /// So many days after creation, at the next midnight UTC.
    Days(u32),
    /// At a midnight, in milliseconds since 1970, and every day after.
    Date(u64),
    /// Delete markers without other versions.
    ExpiredMarker,
}

/// When older versions go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NoncurrentExpiration {
    /// Days since a newer version came.
    pub days: u32,
    /// So many of the newest older versions stay.
    #[serde(default)]
    pub newer_kept: Option<u32>,
}

/// An object as filters see it.
#[derive(Clone, Copy, Debug)]
pub struct Filtered<'a> {
    /// Its key.
    pub key: &'a str,
    /// Its length.
    pub size_bytes: u64,
    /// Its tags.
    pub tags: &'a [(String, String)],
}

impl Filter {
    /// Whether an object fulfils it.
    pub fn matches(&self, object: Filtered<'_>) -> bool {
        self.matches_key(object.key)
            && self.tags.iter().all(|tag| object.tags.contains(tag))
            && self.larger_than_bytes.is_none_or(|limit| limit < object.size_bytes)
            && self.smaller_than_bytes.is_none_or(|limit| object.size_bytes < limit)
    }
    /// Whether a key starts as it demands.
    pub fn matches_key(&self, key: &str) -> bool {
        self.prefix.as_ref().is_none_or(|prefix| key.starts_with(&**prefix))
    }
    /// Whether it asks for nothing but a prefix: only then can it apply to what has no size or tags.
    pub fn is_by_key(&self) -> bool {
        self.tags.is_empty() && self.larger_than_bytes.is_none() && self.smaller_than_bytes.is_none()
    }
}

/// When what began at `from_ms` is `days` old: rounded up to the next midnight UTC.
pub fn due_ms(from_ms: u64, days: u32, day_ms: u64) -> u64 {
    (from_ms + u64::from(days) * day_ms).div_ceil(day_ms) * day_ms
}

/// The soonest expiry of a current object, with the id of its rule.
pub fn expiry_of<'a>(rules: &'a [LifecycleRule], object: Filtered<'_>, modified_ms: u64, day_ms: u64) -> Option<(u64, &'a str)> {
    let due = |rule: &LifecycleRule| match rule.expiration {
        Some(Expiration::Days(days)) => Some(due_ms(modified_ms, days, day_ms)),
        Some(Expiration::Date(date_ms)) => Some(date_ms),
        Some(Expiration::ExpiredMarker) | None => None,
    };
    let applying = rules.iter().filter(|rule| rule.enabled && rule.filter.matches(object));
    applying.filter_map(|rule| Some((due(rule)?, &*rule.id))).min()
}

/// When an upload is aborted, with the id of the rule.
pub fn abort_of<'a>(rules: &'a [LifecycleRule], key: &str, initiated_ms: u64, day_ms: u64) -> Option<(u64, &'a str)> {
    let applying = rules.iter().filter(|rule| rule.enabled && rule.filter.matches_key(key));
    applying.filter_map(|rule| Some((due_ms(initiated_ms, rule.abort_uploads_days?, day_ms), &*rule.id))).min()
}

/// Whether an older version goes by now. `newer_count`: how many older versions of the key are newer than this one; `noncurrent_since_ms`:
/// when its successor came.
pub fn noncurrent_is_due(
    rules: &[LifecycleRule],
    version: Filtered<'_>,
    is_marker: bool,
    newer_count: u32,
    noncurrent_since_ms: u64,
    now_ms: u64,
    day_ms: u64,
) -> bool {
    rules.iter().filter(|rule| rule.enabled).any(|rule| {
        let applies =
            if is_marker { rule.filter.is_by_key() && rule.filter.matches_key(version.key) } else { rule.filter.matches(version) };
        rule.noncurrent.is_some_and(|limit| {
            applies && limit.newer_kept.unwrap_or(0) <= newer_count && due_ms(noncurrent_since_ms, limit.days, day_ms) <= now_ms
        })
    })
}

/// Whether a delete marker that is all there is of its key goes by now.
pub fn lone_marker_is_due(rules: &[LifecycleRule], key: &str, modified_ms: u64, now_ms: u64, day_ms: u64) -> bool {
    let applying = rules.iter().filter(|rule| rule.enabled && rule.filter.is_by_key() && rule.filter.matches_key(key));
    applying.into_iter().any(|rule| match rule.expiration {
        Some(Expiration::ExpiredMarker) => true,
        Some(Expiration::Days(days)) => due_ms(modified_ms, days, day_ms) <= now_ms,
        Some(Expiration::Date(date_ms)) => date_ms <= now_ms,
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::{DAY_MS, Expiration, Filter, Filtered, LifecycleRule, NoncurrentExpiration, due_ms, expiry_of, noncurrent_is_due};

    fn object(key: &str, size_bytes: u64) -> Filtered<'_> {
        Filtered { key, size_bytes, tags: &[] }
    }

    #[test]
    fn ages_are_rounded_up_to_midnight() {
        let at = |day: u64, hour: u64| day * DAY_MS + hour * 3_600_000;
        assert_eq!(due_ms(at(15, 10), 3, DAY_MS), at(19, 0));
        assert_eq!(due_ms(at(15, 0), 3, DAY_MS), at(18, 0), "midnight itself is not rounded");
    }

    #[test]
    fn the_shortest_time_of_all_rules_counts() {
        let rule = |id: &str, prefix: &str, days| LifecycleRule {
            id: id.into(),
            enabled: id != "off",
            filter: Filter { prefix: Some(prefix.into()), ..Filter::default() },
            expiration: Some(Expiration::Days(days)),
            ..LifecycleRule::default()
        };
        let rules = [rule("a", "", 9), rule("b", "logs/", 2), rule("off", "", 1)];
        assert_eq!(expiry_of(&rules, object("logs/x", 1), 0, DAY_MS), Some((2 * DAY_MS, "b")));
        assert_eq!(expiry_of(&rules, object("x", 1), 0, DAY_MS), Some((9 * DAY_MS, "a")));
    }

    #[test]
    fn sizes_are_exclusive_and_all_parts_of_a_filter_count() {
        let filter = Filter { larger_than_bytes: Some(10), smaller_than_bytes: Some(20), prefix: Some("a".into()), ..Filter::default() };
        for (key, size, expected) in [("a", 10, false), ("a", 11, true), ("a", 19, true), ("a", 20, false), ("b", 15, false)] {
            assert_eq!(filter.matches(object(key, size)), expected, "{key} {size}");
        }
        let tagged = Filter { tags: vec![("k".into(), "v".into())], ..Filter::default() };
        assert!(!tagged.matches(object("a", 1)));
        assert!(tagged.matches(Filtered { tags: &[("k".into(), "v".into()), ("x".into(), "y".into())], ..object("a", 1) }));
    }

    #[test]
    fn the_newest_older_versions_stay_as_counted() {
        let keep = |newer_kept| LifecycleRule {
            enabled: true,
            noncurrent: Some(NoncurrentExpiration { days: 1, newer_kept }),
            ..LifecycleRule::default()
        };
        let due = |newer_kept, newer, now| noncurrent_is_due(&[keep(newer_kept)], object("a", 1), false, newer, 0, now, DAY_MS);
        assert!(due(None, 0, DAY_MS) && !due(None, 0, DAY_MS - 1));
        assert!(!due(Some(2), 1, DAY_MS) && due(Some(2), 2, DAY_MS));
    }
}
