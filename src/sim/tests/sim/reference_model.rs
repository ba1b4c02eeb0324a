//! A bucket with versions beside a small model of one: the same random operations on both, every answer compared.
//!
//! Operations come one after another, through any node, while single nodes are cut off and come back; clocks jump by days. `MODEL_SEEDS=n`:
//! as many seeds; `MODEL_SEED=n`: only that one.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use futures::TryStreamExt;
use garage_model::{
    ModelError, RequestContext,
    body::WholeBody,
    error::ClientError,
    index::Shown,
    lifecycle::{Done, Lifecycle, LifecycleOptions},
    listing::{
        ListEntry, ListRequest,
        versions::{ListVersionsRequest, VersionEntry},
    },
    objects::{BucketRef, Governance, Objects, Version, WriteCondition, versions::VersionToDelete},
    rows::{
        bucket::Versioning,
        lifecycle::{DAY_MS, Expiration, LifecycleRule, NoncurrentExpiration},
        object::{ObjectHeaders, ObjectLock, Retention, RetentionMode},
    },
};
use garage_rpc::register::{WriteId, slots::Slot};
use garage_sim::{
    cluster::{Cluster, ClusterOptions},
    seed::Seed,
};
use garage_table::{control::Effect, message::Want};

const SEEDS_COUNT_DEFAULT: u64 = 12;
const OPERATIONS_COUNT: usize = 120;
const KEYS: [&str; 4] = ["a", "a/1", "a/2", "b"];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

fn context() -> RequestContext {
    RequestContext::within(Duration::from_secs(60))
}

/// A version in the model.
#[derive(Clone, Debug, PartialEq)]
struct Held {
    slot: Slot,
    /// `None`: a delete marker.
    content: Option<Vec<u8>>,
    lock: ObjectLock,
    modified_ms: u64,
}

/// The versions of each key, newest first.
#[derive(Default)]
struct Model {
    keys: BTreeMap<String, Vec<Held>>,
}

impl Model {
    fn versions(&self, key: &str) -> &[Held] {
        self.keys.get(key).map_or(&[], Vec::as_slice)
    }
    fn current(&self, key: &str) -> Option<&Held> {
        self.versions(key).first()
    }
    fn push(&mut self, versioning: Versioning, key: &str, held: Held) {
        let versions = self.keys.entry(key.to_string()).or_default();
        versions.retain(|other| other.slot != held.slot);
        if versioning != Versioning::Off || held.content.is_some() {
            versions.insert(0, held);
        }
    }
    /// Whether it was there and a marker; `None`: it is locked.
    fn delete(&mut self, key: &str, slot: Slot, now_ms: u64, governance: Governance) -> Option<(bool, bool)> {
        let versions = self.keys.entry(key.to_string()).or_default();
        let Some(at) = versions.iter().position(|held| held.slot == slot) else { return Some((false, false)) };
        let held = &versions[at];
        let retained = held.lock.retention.is_some_and(|retention| {
            now_ms < retention.until_ms && (retention.mode == RetentionMode::Compliance || governance == Governance::Obeyed)
        });
        if retained || held.lock.legal_hold == Some(true) {
            return None;
        }
        let held = versions.remove(at);
        Some((true, held.content.is_none()))
    }
}

struct Run {
    cluster: Cluster,
    bucket: BucketRef,
    model: Model,
    seed: Seed,
    cut_off: Option<usize>,
    offset_ms: i64,
    gone: BTreeSet<(String, Slot)>,
}

impl Run {
    fn objects(&mut self) -> Objects {
        let nodes: Vec<usize> = (0..3).filter(|index| Some(*index) != self.cut_off).collect();
        let index = nodes[self.seed.pick(nodes.len() as u64) as usize];
        self.cluster.node(index).objects.clone()
    }
    fn key(&mut self) -> &'static str {
        KEYS[self.seed.pick(KEYS.len() as u64) as usize]
    }
    fn now_ms(&self) -> u64 {
        garage_util::runtime::Clock::now_ms(self.cluster.clock(0))
    }
    /// A version that is there, was there, or never was.
    fn slot(&mut self, key: &str) -> Slot {
        let known: Vec<Slot> = self.model.versions(key).iter().map(|held| held.slot).collect();
        let gone: Vec<Slot> = self.gone.iter().filter(|(of, _)| of == key).map(|(_, slot)| *slot).collect();
        match self.seed.pick(8) {
            0 => Slot::Null,
            1 => Slot::Id(WriteId([9; 32])),
            2 if !gone.is_empty() => gone[self.seed.pick(gone.len() as u64) as usize],
            _ if !known.is_empty() => known[self.seed.pick(known.len() as u64) as usize],
            _ => Slot::Null,
        }
    }

    async fn step(&mut self) {
        match self.seed.pick(20) {
            0..=4 => self.put(WriteCondition::default()).await,
            5 => {
                let condition = self.condition();
                self.put(condition).await
            }
            6..=7 => self.delete().await,
            8..=10 => self.delete_version().await,
            11..=12 => self.change_lock().await,
            13 => self.change_settings().await,
            14 => self.jump().await,
            15 => self.lifecycle().await,
            16 => self.cut_or_mend().await,
            17 => self.get().await,
            _ => self.get_version().await,
        }
        self.check_listings().await;
    }

    fn condition(&mut self) -> WriteCondition {
        if self.seed.one_in(2) {
            WriteCondition { absent: true, etags: None }
        } else {
            WriteCondition { absent: false, etags: Some(vec!["*".into()]) }
        }
    }

    async fn put(&mut self, condition: WriteCondition) {
        let (key, objects) = (self.key(), self.objects());
        let content: Vec<u8> = format!("{key} {}", self.seed.pick(u64::MAX)).into_bytes();
        let lock = match self.seed.pick(5) {
            0 => ObjectLock {
                retention: Some(Retention { mode: RetentionMode::Governance, until_ms: self.now_ms() + 2 * DAY_MS }),
                legal_hold: None,
            },
            1 => ObjectLock {
                retention: Some(Retention { mode: RetentionMode::Compliance, until_ms: self.now_ms() + DAY_MS }),
                legal_hold: None,
            },
            _ => ObjectLock::default(),
        };
        let lock = if self.bucket.versioning == Versioning::Enabled { lock } else { ObjectLock::default() };
        let headers = ObjectHeaders { lock, ..ObjectHeaders::default() };
        let is_there = self.model.current(key).is_some_and(|held| held.content.is_some());
        let body = Box::new(WholeBody::new(Bytes::from(content.clone())));
        let put = objects.put(&self.bucket, key, headers, body, &condition, context()).await;
        if (condition.absent && is_there) || (condition.etags.is_some() && !is_there) {
            assert!(matches!(put, Err(ModelError::Client(ClientError::PreconditionFailed { .. } | ClientError::NoSuchKey))), "{put:?}");
            return;
        }
        let stored = put.unwrap();
        let slot = stored.slot.unwrap_or_default();
        assert_eq!(stored.slot.is_some(), self.bucket.versioning != Versioning::Off);
        let held = Held { slot, content: Some(content), lock, modified_ms: stored.modified_ms };
        self.model.push(self.bucket.versioning, key, held);
    }

    async fn delete(&mut self) {
        let (key, objects) = (self.key(), self.objects());
        let deleted = objects.delete(&self.bucket, key, &WriteCondition::default(), context()).await.unwrap();
        assert_eq!(deleted.marker.is_some(), self.bucket.versioning != Versioning::Off);
        let modified_ms = self.now_ms();
        let held = Held { slot: deleted.marker.unwrap_or_default(), content: None, lock: ObjectLock::default(), modified_ms };
        self.model.push(self.bucket.versioning, key, held);
    }

    async fn delete_version(&mut self) {
        if self.bucket.versioning == Versioning::Off {
            return;
        }
        let (key, objects) = (self.key(), self.objects());
        let slot = self.slot(key);
        let governance = if self.seed.one_in(3) { Governance::Bypassed } else { Governance::Obeyed };
        let target = VersionToDelete { slot, etags: None, mark: None };
        let deleted = objects.delete_versions(&self.bucket, key, &[target], governance, context()).await;
        let now_ms = self.now_ms();
        match self.model.delete(key, slot, now_ms, governance) {
            None => assert!(matches!(deleted, Err(ModelError::Client(ClientError::Locked))), "{deleted:?}"),
            Some((existed, was_marker)) => {
                let deleted = deleted.unwrap()[0];
                assert_eq!((deleted.existed, deleted.was_marker), (existed, was_marker), "{key} {slot:?}");
                self.gone.insert((key.to_string(), slot));
            }
        }
    }

    async fn change_lock(&mut self) {
        let (key, objects) = (self.key(), self.objects());
        let slot = self.slot(key);
        let hold = self.seed.one_in(3);
        let changed = objects
            .change_version(&self.bucket, key, Some(slot), context(), |meta, _| {
                meta.headers.lock.legal_hold = Some(hold);
                Ok(())
            })
            .await;
        let is_known = slot == Slot::Null
            || self.bucket.versioning != Versioning::Off
            || self.model.versions(key).iter().any(|held| held.slot == slot);
        let held = self.model.keys.entry(key.to_string()).or_default().iter_mut().find(|held| held.slot == slot);
        match held {
            Some(held) if held.content.is_some() => {
                assert_eq!(changed.unwrap(), slot);
                held.lock.legal_hold = Some(hold);
            }
            Some(_) => assert!(matches!(changed, Err(ModelError::Client(ClientError::IsDeleteMarker))), "{changed:?}"),
            None => assert!(!is_known || matches!(changed, Err(ModelError::Client(ClientError::NoSuchVersion))), "{changed:?}"),
        }
    }

    async fn change_settings(&mut self) {
        self.bucket.versioning = match (self.bucket.versioning, self.seed.pick(3)) {
            (Versioning::Off, 0) => Versioning::Off,
            (_, 1) => Versioning::Suspended,
            _ => Versioning::Enabled,
        };
        // A lock bucket can't be suspended, so nothing locked is replaced: the model holds the cluster to the same.
        let locked = self.model.keys.values().flatten().any(|held| held.slot == Slot::Null && held.lock != ObjectLock::default());
        if self.bucket.versioning == Versioning::Suspended && locked {
            self.bucket.versioning = Versioning::Enabled;
        }
    }

    async fn jump(&mut self) {
        self.offset_ms += (DAY_MS as i64) * (1 + self.seed.pick(2) as i64);
        (0..3).for_each(|index| self.cluster.clock(index).set_offset_ms(self.offset_ms));
    }

    async fn cut_or_mend(&mut self) {
        if self.cut_off.is_some() {
            return self.mend().await;
        }
        let index = self.seed.pick(3) as usize;
        self.cluster.isolate(index, true);
        self.cut_off = Some(index);
    }

    /// Ends when all nodes have found each other again: with the next one cut off, there is still a quorum.
    async fn mend(&mut self) {
        if let Some(index) = self.cut_off.take() {
            self.cluster.isolate(index, false);
        }
        let all_up = |cluster: &Cluster| {
            (0..3).all(|index| (0..3).all(|other| index == other || cluster.node(index).cluster.is_up(cluster.id(other))))
        };
        self.cluster.await_condition("all nodes see each other again", all_up).await;
    }

    async fn lifecycle(&mut self) {
        self.mend().await;
        let rule = LifecycleRule {
            id: "r".into(),
            enabled: true,
            expiration: Some(if self.seed.one_in(2) { Expiration::Days(1) } else { Expiration::ExpiredMarker }),
            noncurrent: self.seed.one_in(2).then_some(NoncurrentExpiration { days: 1, newer_kept: Some(1) }),
            ..LifecycleRule::default()
        };
        let versioning = self.bucket.versioning;
        let rules = vec![rule.clone()];
        let changed = self.cluster.node(0).access.buckets().change(self.bucket.id, Effect::Grants, context(), |row| {
            (row.lifecycle, row.versioning) = (rules.clone(), versioning);
            Ok(())
        });
        changed.await.unwrap();
        let mut done = Done::default();
        for index in 0..3 {
            let node = self.cluster.node(index);
            let lifecycle =
                Lifecycle::new(node.objects.clone(), node.uploads.clone(), node.access.buckets().clone(), LifecycleOptions::default());
            lifecycle.run_bucket(self.bucket.id, &mut done).await.unwrap();
        }
        self.expire(&rule).await;
    }

    /// What the rule does, in the model's own words; the ids of the markers that the cluster made are read off its listing.
    async fn expire(&mut self, rule: &LifecycleRule) {
        let now_ms = self.now_ms();
        let is_due = |from_ms: u64| (from_ms / DAY_MS + 1 + u64::from(!from_ms.is_multiple_of(DAY_MS))) * DAY_MS <= now_ms;
        for key in KEYS {
            let versions = self.model.versions(key).to_vec();
            let Some(current) = versions.first().cloned() else { continue };
            if let Some(noncurrent) = rule.noncurrent {
                let kept = noncurrent.newer_kept.unwrap_or(0) as usize;
                for (index, held) in versions.iter().enumerate().skip(1) {
                    if kept < index
                        && is_due(versions[index - 1].modified_ms)
                        && self.model.delete(key, held.slot, now_ms, Governance::Obeyed).is_some()
                    {
                        self.gone.insert((key.to_string(), held.slot));
                    }
                }
            }
            let is_marker = current.content.is_none();
            if is_marker && versions.len() == 1 && (rule.expiration == Some(Expiration::ExpiredMarker) || is_due(current.modified_ms)) {
                self.model.delete(key, current.slot, now_ms, Governance::Obeyed);
                self.gone.insert((key.to_string(), current.slot));
            }
            if !is_marker && rule.expiration == Some(Expiration::Days(1)) && is_due(current.modified_ms) {
                let slot = match self.bucket.versioning {
                    Versioning::Enabled => self.current_slot(key).await,
                    Versioning::Off | Versioning::Suspended => Slot::Null,
                };
                let held = Held { slot, content: None, lock: ObjectLock::default(), modified_ms: now_ms };
                self.model.push(self.bucket.versioning, key, held);
            }
        }
    }

    async fn current_slot(&mut self, key: &str) -> Slot {
        match self.objects().find_version(&self.bucket, key, None, Want::Row, context()).await.unwrap() {
            Version::Marker(marker) => marker.slot,
            other => panic!("{key} was to expire, and is {other:?}"),
        }
    }

    async fn get(&mut self) {
        let (key, objects) = (self.key(), self.objects());
        let found = objects.find_version(&self.bucket, key, None, Want::First, context()).await.unwrap();
        let held = self.model.current(key).cloned();
        self.compare(&objects, key, found, held).await;
    }

    async fn get_version(&mut self) {
        let (key, objects) = (self.key(), self.objects());
        let slot = self.slot(key);
        if self.bucket.versioning == Versioning::Off {
            return;
        }
        let found = objects.find_version(&self.bucket, key, Some(slot), Want::First, context()).await.unwrap();
        let held = self.model.versions(key).iter().find(|held| held.slot == slot).cloned();
        self.compare(&objects, key, found, held).await;
    }

    async fn compare(&self, objects: &Objects, key: &str, found: Version, held: Option<Held>) {
        match (found, held) {
            (Version::Missing, None) => {}
            (Version::Marker(marker), Some(Held { slot, content: None, .. })) => assert_eq!(marker.slot, slot, "{key}"),
            (Version::Object(found), Some(Held { slot, content: Some(content), lock, .. })) => {
                assert_eq!((found.slot, found.meta.headers.lock), (Some(slot), lock), "{key}");
                let pieces: Vec<Bytes> = objects.read(&found, 0..found.meta.size_bytes, context()).try_collect().await.unwrap();
                assert_eq!(pieces.concat(), content, "{key} {slot:?}");
            }
            (found, held) => panic!("{key}: {found:?} instead of {held:?}"),
        }
    }

    async fn check_listings(&mut self) {
        let objects = self.objects();
        let expected: Vec<(String, Slot, bool, bool)> = KEYS
            .iter()
            .flat_map(|key| {
                let versions = self.model.versions(key).iter().enumerate();
                versions.map(|(index, held)| (key.to_string(), held.slot, index == 0, held.content.is_none()))
            })
            .collect();
        let (mut listed, mut marker) = (Vec::new(), None);
        loop {
            let (key_marker, version_marker) = marker.clone().map_or((None, None), |(key, slot)| (Some(key), Some(slot)));
            let limit = 1 + self.seed.pick(4) as usize;
            let request = ListVersionsRequest { key_marker, version_marker, limit, ..ListVersionsRequest::default() };
            let page = objects.list_versions(&self.bucket, &request, context()).await.unwrap();
            for entry in page.entries {
                let VersionEntry::Version(version) = entry else { panic!("a prefix without a delimiter") };
                marker = Some((version.key.clone(), version.slot));
                listed.push((version.key, version.slot, version.is_latest, matches!(version.shown, Shown::Marker { .. })));
            }
            if !page.truncated {
                break;
            }
        }
        assert_eq!(listed, expected);
        let current: Vec<&str> =
            KEYS.into_iter().filter(|key| self.model.current(key).is_some_and(|held| held.content.is_some())).collect();
        let page = objects.list(&self.bucket, &ListRequest { limit: 100, ..ListRequest::default() }, context()).await.unwrap();
        let keys: Vec<&str> = page.entries.iter().map(ListEntry::marker).collect();
        assert_eq!(keys, current);
    }
}

async fn run(seed: u64) {
    let cluster = Cluster::start(seed, ClusterOptions::rough()).await;
    let bucket = cluster.make_bucket(0, "model").await;
    let mut chance = cluster.fork_seed(77);
    let bucket = BucketRef { versioning: if chance.one_in(3) { Versioning::Off } else { Versioning::Enabled }, ..bucket };
    let mut run = Run { cluster, bucket, model: Model::default(), seed: chance, cut_off: None, offset_ms: 0, gone: BTreeSet::new() };
    for _ in 0..OPERATIONS_COUNT {
        run.step().await;
    }
}

#[test]
fn a_bucket_answers_as_its_model_does() {
    let (only, count) = (number("MODEL_SEED"), number("MODEL_SEEDS").unwrap_or(SEEDS_COUNT_DEFAULT));
    for seed in only.map_or(0..count, |seed| seed..seed + 1) {
        println!("MODEL_SEED={seed}");
        garage_sim::run(run(seed));
    }
}
