//! S3 in memory: buckets, the versions of their keys, uploads. What a call answers is said where the call is made.

use std::collections::BTreeMap;

use bytes::Bytes;
use garage_api_common::checksum::{ChecksumAlgorithm, ChecksumType, checksum_of};
use md5::{Digest, Md5};

pub const DAY_MS: u64 = 24 * 3600 * 1000;

/// The versioning of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Versioning {
    #[default]
    Off,
    Enabled,
    Suspended,
}

/// A checksum as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub algorithm: ChecksumAlgorithm,
    pub kind: ChecksumType,
    /// With `-N` if it is over parts.
    pub text: String,
}

impl Shown {
    pub fn of(algorithm: ChecksumAlgorithm, content: &[u8]) -> Shown {
        Shown { algorithm, kind: ChecksumType::FullObject, text: checksum_of(algorithm, content).to_base64() }
    }
}

/// A part of an upload, or of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub content: Bytes,
    pub etag: String,
    pub checksum: Shown,
}

/// A retention: compliance or governance, until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    pub compliance: bool,
    pub until_ms: u64,
}

/// What is said of an object beside its content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    pub content_type: Option<String>,
    pub meta: BTreeMap<String, String>,
    pub tags: BTreeMap<String, String>,
    pub class: Option<&'static str>,
    pub retention: Option<Retention>,
    pub hold: Option<bool>,
    pub sealed: bool,
}

/// An object.
#[derive(Clone, Debug)]
pub struct Object {
    pub content: Bytes,
    pub etag: String,
    pub labels: Labels,
    pub checksum: Shown,
    /// Of one made from parts: their numbers and they.
    pub parts: Vec<(u16, Part)>,
}

/// A version: an object or a delete marker.
#[derive(Clone, Debug)]
pub struct Version {
    /// `null`, or an id; `None`: not seen yet.
    pub id: Option<String>,
    pub object: Option<Object>,
    /// When it was made: not before, and not after.
    pub made_ms: (u64, u64),
}

impl Version {
    /// Whether it may not go yet.
    pub fn is_locked(&self, now_ms: u64, bypass: bool) -> bool {
        let Some(object) = &self.object else { return false };
        let retained = object.labels.retention.is_some_and(|held| now_ms < held.until_ms && (held.compliance || !bypass));
        retained || object.labels.hold == Some(true)
    }
}

/// An open upload.
#[derive(Clone, Debug)]
pub struct Upload {
    pub key: String,
    pub labels: Labels,
    /// As its client named it.
    pub asked: Option<(ChecksumAlgorithm, ChecksumType)>,
    pub parts: BTreeMap<u16, Part>,
    pub made_ms: (u64, u64),
}

impl Upload {
    /// The algorithm and kind of its object's checksum.
    pub fn checksum(&self) -> (ChecksumAlgorithm, ChecksumType) {
        self.asked.unwrap_or((ChecksumAlgorithm::Crc64Nvme, ChecksumType::FullObject))
    }
}

/// A lifecycle rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    pub prefix: String,
    pub tag: Option<(String, String)>,
    pub larger_than: Option<u64>,
    pub days: Option<u64>,
    pub expired_markers: bool,
    /// Days, and how many of the newest stay.
    pub noncurrent: Option<(u64, Option<usize>)>,
    pub abort_days: Option<u64>,
}

impl Rule {
    pub fn is_by_key(&self) -> bool {
        self.tag.is_none() && self.larger_than.is_none()
    }
    pub fn applies(&self, key: &str, object: &Object) -> bool {
        key.starts_with(&self.prefix)
            && self.tag.as_ref().is_none_or(|(name, value)| object.labels.tags.get(name) == Some(value))
            && self.larger_than.is_none_or(|size| size < object.content.len() as u64)
    }
}

/// A statement of a policy about the reader.
#[derive(Clone, Debug)]
pub struct Statement {
    pub allows: bool,
    pub action: &'static str,
    pub prefix: String,
}

/// A bucket.
#[derive(Clone, Debug, Default)]
pub struct Bucket {
    pub versioning: Versioning,
    pub lock: bool,
    /// Newest first.
    pub keys: BTreeMap<String, Vec<Version>>,
    pub uploads: BTreeMap<String, Upload>,
    /// Completed uploads: what they answered, by id. And those that were aborted are nowhere.
    pub completed: BTreeMap<String, (String, Vec<u16>, String)>,
    pub rules: Vec<Rule>,
    pub policy: Vec<Statement>,
    pub tags: BTreeMap<String, String>,
}

impl Bucket {
    pub fn versions(&self, key: &str) -> &[Version] {
        self.keys.get(key).map_or(&[], Vec::as_slice)
    }
    /// What a request without version id finds.
    pub fn current(&self, key: &str) -> Option<&Version> {
        self.versions(key).first()
    }
    pub fn object(&self, key: &str) -> Option<&Object> {
        self.current(key).and_then(|version| version.object.as_ref())
    }
    pub fn version(&self, key: &str, id: &str) -> Option<&Version> {
        self.versions(key).iter().find(|version| version.id.as_deref() == Some(id))
    }
    pub fn version_mut(&mut self, key: &str, id: Option<&str>) -> Option<&mut Version> {
        let versions = self.keys.get_mut(key)?;
        match id {
            Some(id) => versions.iter_mut().find(|version| version.id.as_deref() == Some(id)),
            None => versions.first_mut(),
        }
    }
    /// A new version becomes the current one. A marker in a bucket without versions takes the object away.
    pub fn push(&mut self, key: &str, version: Version) {
        let versions = self.keys.entry(key.to_owned()).or_default();
        if version.id.as_deref() == Some("null") {
            versions.retain(|other| other.id.as_deref() != Some("null"));
        }
        if version.object.is_some() || self.versioning != Versioning::Off {
            versions.insert(0, version);
        }
        self.tidy(key);
    }
    pub fn remove(&mut self, key: &str, id: &str) {
        if let Some(versions) = self.keys.get_mut(key) {
            versions.retain(|version| version.id.as_deref() != Some(id));
        }
        self.tidy(key);
    }
    fn tidy(&mut self, key: &str) {
        if self.versions(key).is_empty() {
            self.keys.remove(key);
        }
    }
    /// Whether the reader may do this to a key.
    pub fn reader_may(&self, action: &str, key: &str) -> bool {
        let applying = || self.policy.iter().filter(|statement| statement.action == action && key.starts_with(&statement.prefix));
        applying().any(|statement| statement.allows) && applying().all(|statement| statement.allows)
    }
    /// When a current object expires: the moment, and which rule says so.
    pub fn expiry(&self, key: &str, object: &Object, made_ms: u64) -> Option<(u64, usize)> {
        let rules = self.rules.iter().enumerate().filter(|(_, rule)| rule.applies(key, object));
        rules.filter_map(|(index, rule)| Some((due_ms(made_ms, rule.days?), index))).min()
    }
}

/// When what was made then is so many days old: at the next midnight.
pub fn due_ms(made_ms: u64, days: u64) -> u64 {
    (made_ms + days * DAY_MS).div_ceil(DAY_MS) * DAY_MS
}

pub fn md5_hex(content: &[u8]) -> String {
    hex::encode(Md5::digest(content))
}
pub fn quoted(etag: &str) -> String {
    format!("\"{etag}\"")
}
