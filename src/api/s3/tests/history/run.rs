//! One history: what chance picks, what is asked, and the checks that all families of calls share.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use garage_api_common::checksum::ChecksumAlgorithm;
use garage_sim::seed::Seed;

use crate::{
    model::{Bucket, DAY_MS, Labels, Object, Retention, Version, Versioning},
    site::{Answer, Ask, Site},
};

pub const BUCKETS: [&str; 3] = ["plain", "versions", "locks"];
pub const KEYS: [&str; 9] = ["a", "a/", "a/b", "a/b/c", "a b+c", "b", "b/ä?", "b/\u{1f600}", "c"];
/// Sizes around the border between rows and blocks, and between one block and several.
const SIZES: [usize; 9] = [0, 1, 10, 3000, 16 << 10, (16 << 10) + 1, 64 << 10, (64 << 10) + 1, 150_000];
const STEPS_BETWEEN_JUMPS: u64 = 60;

/// A history under way.
pub struct Run {
    pub site: Site,
    pub seed: Seed,
    pub buckets: BTreeMap<String, Bucket>,
    /// Version ids that no version has any more: bucket, key, id.
    pub gone: BTreeSet<(String, String, String)>,
    /// All version ids ever given.
    pub ids: BTreeSet<String>,
    pub offset_ms: i64,
    number: u64,
    steps_count: u64,
}

impl Drop for Run {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("S3_HISTORY_SEED={} fails at step {}; the last requests:", self.number, self.steps_count);
            self.site.trail.iter().for_each(|line| eprintln!("{line}"));
        }
    }
}

impl Run {
    pub async fn start(number: u64) -> Run {
        let site = Site::start(number).await;
        let seed = site.cluster.fork_seed(4_242);
        let (buckets, gone, ids) = Default::default();
        let mut run = Run { site, seed, buckets, gone, ids, offset_ms: 0, number, steps_count: 0 };
        for name in BUCKETS {
            let mut ask = Ask::bucket("PUT", name);
            let lock = name == "locks";
            if lock {
                ask = ask.header("x-amz-bucket-object-lock-enabled", "true");
            }
            run.ok(&ask, 200).await;
            let versioning = if lock { Versioning::Enabled } else { Versioning::Off };
            run.buckets.insert(name.to_owned(), Bucket { lock, versioning, ..Bucket::default() });
        }
        run
    }

    /// One step: mostly one request.
    pub async fn step(&mut self) {
        self.steps_count += 1;
        match self.seed.pick(100) {
            0..=17 => self.put().await,
            18..=29 => self.read().await,
            30..=35 => self.delete().await,
            36..=38 => self.delete_many().await,
            39..=45 => self.copy().await,
            46..=48 => self.attributes().await,
            49..=52 => self.create_upload().await,
            53..=59 => self.upload_part().await,
            60..=61 => self.copy_part().await,
            62..=65 => self.complete().await,
            66 => self.abort().await,
            67..=68 => self.list_parts().await,
            69..=70 => self.list_uploads().await,
            71..=75 => self.list().await,
            76..=79 => self.list_versions().await,
            80..=83 => self.tags().await,
            84..=86 => self.retention().await,
            87..=88 => self.legal_hold().await,
            89..=90 => self.bucket_settings().await,
            91..=92 => self.policy().await,
            93..=96 => self.as_reader().await,
            97 => self.set_lifecycle().await,
            _ if self.seed.one_in(STEPS_BETWEEN_JUMPS / 20) => self.days_pass().await,
            _ => self.read_part().await,
        }
    }

    // What chance picks.

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.seed.pick(from.len() as u64) as usize].clone()
    }
    pub fn bucket_name(&mut self) -> String {
        self.pick(&BUCKETS).to_owned()
    }
    pub fn key(&mut self) -> String {
        self.pick(&KEYS).to_owned()
    }
    pub fn bucket(&self, name: &str) -> &Bucket {
        &self.buckets[name]
    }
    pub fn bucket_mut(&mut self, name: &str) -> &mut Bucket {
        self.buckets.get_mut(name).expect("a bucket of the history")
    }
    pub fn content(&mut self) -> Bytes {
        let size = self.pick(&SIZES);
        let mut pattern = vec![0; 251];
        self.seed.fill(&mut pattern);
        pattern.into_iter().cycle().take(size).collect()
    }
    pub fn algorithm(&mut self) -> ChecksumAlgorithm {
        self.pick(&ChecksumAlgorithm::ALL)
    }
    /// A version that is there, was there, or never was; `None`: the current one is meant.
    pub fn version_id(&mut self, bucket: &str, key: &str) -> Option<String> {
        let known: Vec<String> = self.bucket(bucket).versions(key).iter().filter_map(|version| version.id.clone()).collect();
        let gone: Vec<String> = self.gone.iter().filter(|(of, at, _)| of == bucket && at == key).map(|(.., id)| id.clone()).collect();
        match self.seed.pick(12) {
            0 => Some("null".to_owned()),
            1 => Some("v".repeat(40)),
            2 | 3 if !gone.is_empty() => Some(self.pick(&gone)),
            4..=7 if !known.is_empty() => Some(self.pick(&known)),
            _ => None,
        }
    }
    /// Labels that a write gives, with the headers that say so.
    pub fn labels(&mut self, bucket: &str, mut ask: Ask) -> (Labels, Ask) {
        let mut labels = Labels::default();
        if self.seed.one_in(3) {
            labels.content_type = Some(self.pick(&["text/plain", "application/json; charset=utf-8"]).to_owned());
            ask = ask.header("content-type", labels.content_type.clone().unwrap_or_default());
        }
        if self.seed.one_in(4) {
            let value = format!("value {}", self.seed.pick(100));
            ask = ask.header("x-amz-meta-of-it", value.clone());
            labels.meta.insert("of-it".into(), value);
        }
        if self.seed.one_in(4) {
            labels.tags = self.some_tags();
            let text: Vec<String> = labels.tags.iter().map(|(name, value)| format!("{name}={value}")).collect();
            ask = ask.header("x-amz-tagging", text.join("&"));
        }
        if self.seed.one_in(8) {
            labels.class = Some(self.pick(&["STANDARD_IA", "GLACIER_IR"]));
            ask = ask.header("x-amz-storage-class", labels.class.unwrap_or_default());
        }
        if self.seed.one_in(8) {
            labels.sealed = true;
            ask = ask.header("x-amz-server-side-encryption", "AES256");
        }
        if self.bucket(bucket).lock && self.seed.one_in(3) {
            let retention = self.some_retention();
            labels.retention = Some(retention);
            ask = ask.header("x-amz-object-lock-mode", mode_name(retention));
            ask = ask.header("x-amz-object-lock-retain-until-date", garage_api_common::time::iso8601(retention.until_ms));
        }
        if self.bucket(bucket).lock && self.seed.one_in(6) {
            labels.hold = Some(self.seed.one_in(2));
            ask = ask.header("x-amz-object-lock-legal-hold", if labels.hold == Some(true) { "ON" } else { "OFF" });
        }
        (labels, ask)
    }
    pub fn some_tags(&mut self) -> BTreeMap<String, String> {
        let count = self.seed.pick(3);
        (0..count).map(|index| (format!("t{index}"), self.seed.pick(2).to_string())).collect()
    }
    pub fn some_retention(&mut self) -> Retention {
        let (days, compliance) = (1 + self.seed.pick(4), self.seed.one_in(3));
        Retention { compliance, until_ms: self.site.now_ms() / 1000 * 1000 + days * DAY_MS }
    }

    // Asking.

    pub async fn ask(&mut self, ask: &Ask) -> Answer {
        self.site.ask(ask).await
    }
    /// Asks what must succeed with this status.
    pub async fn ok(&mut self, ask: &Ask, status: u16) -> Answer {
        let answer = self.ask(ask).await;
        assert_eq!(answer.status, status, "{:?} {:?}", answer.headers, answer.body);
        answer
    }
    /// Asks what must be refused with this status and code. HEAD has no code.
    pub async fn refused(&mut self, ask: &Ask, status: u16, code: &str) -> Answer {
        let answer = self.ask(ask).await;
        check_refused(ask, &answer, status, code);
        answer
    }

    // Versions.

    /// The id of a version that an answer names, if it is as the bucket's versioning says; remembers it.
    pub fn new_id(&mut self, bucket: &str, answer: &Answer) -> String {
        let shown = answer.header("x-amz-version-id").map(str::to_owned);
        match self.bucket(bucket).versioning {
            Versioning::Off => assert_eq!(shown, None, "no version id where versioning was never on"),
            // Only what deletes tells of the marker that it made.
            Versioning::Suspended => assert_eq!(shown.as_deref(), answer.header("x-amz-delete-marker").map(|_| "null")),
            Versioning::Enabled => {
                let id = shown.expect("a version id where versioning is on");
                assert!(id != "null" && self.ids.insert(id.clone()), "an id is given once: {id}");
                return id;
            }
        }
        "null".to_owned()
    }
    /// A version id in an answer about a version that is there.
    pub fn check_id(&self, bucket: &str, answer: &Answer, version: &Version) {
        let expected = version.id.as_deref().filter(|_| self.bucket(bucket).versioning != Versioning::Off);
        assert_eq!(answer.header("x-amz-version-id"), expected);
    }
    /// What was written since `before_ms` becomes the current version.
    pub fn store(&mut self, bucket: &str, key: &str, id: String, object: Option<Object>, before_ms: u64) {
        let made_ms = (before_ms, self.site.latest_ms());
        if id == "null" {
            self.gone.remove(&(bucket.to_owned(), key.to_owned(), id.clone()));
        }
        self.bucket_mut(bucket).push(key, Version { id: Some(id), object, made_ms });
    }
    /// A version is gone for good.
    pub fn forget(&mut self, bucket: &str, key: &str, id: &str) {
        self.bucket_mut(bucket).remove(key, id);
        self.gone.insert((bucket.to_owned(), key.to_owned(), id.to_owned()));
    }
    /// When an object expires, as an answer about it says.
    pub fn check_expiration(&self, bucket: &str, key: &str, object: &Object, made_ms: (u64, u64), answer: &Answer) {
        let due = self.bucket(bucket).expiry(key, object, made_ms.1);
        let shown = answer.header("x-amz-expiration").map(str::to_owned);
        let expected =
            due.map(|(due_ms, rule)| format!("expiry-date=\"{}\", rule-id=\"rule{rule}\"", garage_api_common::time::http_date(due_ms)));
        assert_eq!(shown, expected, "x-amz-expiration");
    }
}

pub fn mode_name(retention: Retention) -> &'static str {
    if retention.compliance { "COMPLIANCE" } else { "GOVERNANCE" }
}

/// Status and code; HEAD has no body.
pub fn check_refused(ask: &Ask, answer: &Answer, status: u16, code: &str) {
    let code = if ask.method == "HEAD" { "" } else { code };
    assert_eq!((answer.status, answer.code().as_str()), (status, code), "{:?}", answer.body);
}
