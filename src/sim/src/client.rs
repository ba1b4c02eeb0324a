//! A client: generated requests, one after another, through whatever node it picks, each told to the history.

use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use garage_model::{
    ModelError, RequestContext,
    body::WholeBody,
    error::ClientError,
    listing::{ListEntry, ListRequest},
    node::Node,
    objects::{BucketRef, CopySource, FoundObject, KeyToDelete, WriteCondition},
};
use garage_table::group::TableError;
use tokio::time::sleep;

use crate::{
    cluster::Nodes,
    content::{Contents, Fresh, Value},
    history::{Action, Condition, History, Listed, Listing, Told},
    seed::Seed,
};

/// How long a client waits for an answer.
pub const PATIENCE: Duration = Duration::from_secs(8);
/// What clients do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Habit {
    /// Everything, on all keys, with pauses.
    Various,
    /// Reads and writes, most with conditions, on few keys, one after the other: rivals at every step.
    Rivalry,
}

impl Habit {
    /// How many of the keys are used.
    fn keys_count(self, keys_count: usize) -> usize {
        if self == Habit::Rivalry { keys_count.min(2) } else { keys_count }
    }
    /// The longest pause between two requests of a client.
    fn pause_max_ms(self) -> u64 {
        if self == Habit::Rivalry { 40 } else { 500 }
    }
}

/// What all clients of a history share. Cheap to clone.
#[derive(Clone)]
pub struct World {
    /// The nodes that are up.
    pub nodes: Nodes,
    /// Where everything is stored.
    pub bucket: BucketRef,
    /// The keys, by number.
    pub keys: std::sync::Arc<Vec<String>>,
    /// What was written.
    pub contents: Contents,
    /// What was asked and answered.
    pub history: History,
}

impl World {
    /// Runs a request through a node; `None` when the node is down, or goes down before it answers.
    pub async fn ask<T, F: Future<Output = T>>(&self, node: usize, request: impl FnOnce(Node) -> F) -> Option<T> {
        let (node, stopping) = self.nodes.get(node)?;
        tokio::select! {
            biased;
            () = stopping.cancelled() => None,
            answer = request(node) => Some(answer),
        }
    }

    /// What a client makes of the answer to a write.
    pub fn told_of<T>(&self, answer: &Option<Result<T, ModelError>>) -> Told {
        match answer {
            None => Told::Unknown,
            Some(Ok(_)) => Told::Done,
            Some(Err(error)) => self.told_of_error(error),
        }
    }

    fn told_of_error(&self, error: &ModelError) -> Told {
        match error {
            ModelError::Client(ClientError::PreconditionFailed { .. } | ClientError::NoSuchKey) => Told::PreconditionFailed,
            ModelError::Table(TableError::OutcomeUnknown | TableError::StorageFull | TableError::Clock { .. }) => Told::Unknown,
            ModelError::Table(TableError::Damaged { .. }) | ModelError::Client(_) | ModelError::Damaged(_) | ModelError::Body(_) => {
                self.history.anomaly(format!("a write failed as none can: {error}"));
                Told::Unknown
            }
            // Each of these says that nothing was written, and is taken at its word.
            ModelError::Table(_) | ModelError::PutBlock(_) | ModelError::ReadBlock(_) | ModelError::TimedOut | ModelError::Secret(_) => {
                Told::Failed
            }
        }
    }

    /// Reads a key through a node and checks its content; the value, if it was answered.
    pub async fn read(&self, node: usize, key: usize, with_content: bool) -> Option<(Value, Option<FoundObject>)> {
        let (name, bucket) = (&self.keys[key], &self.bucket);
        let call = self.history.begin(key, node, Action::Read, Condition::Always);
        let found = self.ask(node, |node| async move {
            let objects = node.objects;
            if with_content { objects.get(bucket, name, context()).await } else { objects.head(bucket, name, context()).await }
        });
        let found = match found.await {
            Some(Ok(found)) => found,
            Some(Err(ModelError::Table(TableError::Damaged { reason }))) => {
                self.history.anomaly(format!("{name:?} is damaged: {reason}"));
                return None;
            }
            _ => return None,
        };
        let value = match &found {
            None => 0,
            Some(found) => self.contents.value_of(&found.meta.etag).unwrap_or_else(|| {
                self.history.anomaly(format!("{name:?} has an ETag that nobody wrote: {}", found.meta.etag));
                Value::MAX
            }),
        };
        self.history.end(call, Told::Value(value));
        if with_content && let Some(found) = &found {
            self.check_content(node, name, value, found).await;
        }
        Some((value, found))
    }

    /// Reads an object's whole content; whether it came. Wrong bytes are an anomaly.
    pub async fn check_content(&self, node: usize, name: &str, value: Value, found: &FoundObject) -> bool {
        let content = self.ask(node, |node| async move {
            let pieces = node.objects.read(found, 0..found.meta.size_bytes, context());
            pieces.try_collect::<Vec<Bytes>>().await
        });
        let Some(Ok(pieces)) = content.await else { return false };
        if !self.contents.is_content_of(value, &pieces.concat()) {
            self.history.anomaly(format!("{name:?} has an ETag of write {value}, and other content"));
        }
        true
    }

    /// The condition as the services take it.
    pub fn condition(&self, condition: Condition) -> WriteCondition {
        match condition {
            Condition::Always => WriteCondition::default(),
            Condition::Absent => WriteCondition { absent: true, etags: None },
            Condition::Is(value) => WriteCondition { absent: false, etags: self.contents.etag_of(value).map(|etag| vec![etag]) },
        }
    }
}

/// A request's time limit, from now.
pub fn context() -> RequestContext {
    RequestContext::within(PATIENCE)
}

/// One client.
pub struct Client {
    /// What it shares with others.
    pub world: World,
    /// Its choices.
    pub seed: Seed,
    /// What it does.
    pub habit: Habit,
    /// What it read or wrote last: (key, value).
    pub known: Option<(usize, Value)>,
}

impl Client {
    /// Sends this many requests, with pauses.
    pub async fn run(mut self, requests_count: usize) {
        for _ in 0..requests_count {
            sleep(Duration::from_millis(self.seed.pick(self.habit.pause_max_ms()))).await;
            match self.habit {
                Habit::Various => self.request().await,
                Habit::Rivalry => self.rival().await,
            }
        }
    }

    /// A node that is up, if any; else any.
    pub fn pick_node(&mut self) -> usize {
        let up = self.world.nodes.members();
        if up.is_empty() { self.seed.pick(self.world.nodes.count() as u64) as usize } else { up[self.seed.pick(up.len() as u64) as usize] }
    }
    pub(crate) fn pick_key(&mut self) -> usize {
        self.seed.pick(self.habit.keys_count(self.world.keys.len()) as u64) as usize
    }

    async fn rival(&mut self) {
        match self.seed.pick(100) {
            0..15 => self.put(Condition::Always).await,
            15..45 => self.put_if().await,
            45..75 => self.look().await,
            75..83 => self.delete(Condition::Always).await,
            _ => self.delete_if().await,
        }
    }

    async fn request(&mut self) {
        match self.seed.pick(100) {
            0..25 => self.put(Condition::Always).await,
            25..33 => self.put_if().await,
            33..55 => self.look().await,
            55..63 => self.delete(Condition::Always).await,
            63..67 => self.delete_if().await,
            67..72 => self.delete_many().await,
            72..84 => self.list().await,
            84..91 => self.copy().await,
            _ => self.multipart().await,
        }
    }

    fn pick_len_bytes(&mut self) -> usize {
        // Rivals write what needs no blocks first: their steps on rows are to meet.
        let kinds_count = if self.habit == Habit::Rivalry { 3 } else { 6 };
        (match self.seed.pick(kinds_count) {
            0..3 => 4 + self.seed.pick(2_000),
            3 => (16 << 10) - 2 + self.seed.pick(5),
            _ => (17 << 10) + self.seed.pick(150 << 10),
        }) as usize
    }

    async fn put(&mut self, condition: Condition) {
        let (node, key) = (self.pick_node(), self.pick_key());
        self.put_at(node, key, condition).await;
    }

    async fn put_at(&mut self, node: usize, key: usize, condition: Condition) {
        let len_bytes = self.pick_len_bytes();
        let Fresh { value, pieces } = self.world.contents.fresh(len_bytes);
        let (world, wanted) = (self.world.clone(), self.world.condition(condition));
        let (name, bucket) = (&world.keys[key], &world.bucket);
        let body = Box::new(WholeBody::new(pieces.concat().into()));
        let call = world.history.begin(key, node, Action::Put(value), condition);
        let put = |node: Node| async move { node.objects.put(bucket, name, Default::default(), body, &wanted, context()).await };
        let told = world.told_of(&world.ask(node, put).await);
        world.history.end(call, told);
        if told == Told::Done {
            self.known = Some((key, value));
        }
    }

    async fn put_if(&mut self) {
        let node = self.pick_node();
        match self.known.filter(|(_, value)| *value != 0) {
            Some((key, value)) if self.seed.one_in(2) => self.put_at(node, key, Condition::Is(value)).await,
            _ => self.put(Condition::Absent).await,
        }
    }

    async fn look(&mut self) {
        let (node, key, with_content) = (self.pick_node(), self.pick_key(), !self.seed.one_in(4));
        if let Some((value, _)) = self.world.read(node, key, with_content).await {
            self.known = Some((key, value));
        }
    }

    async fn delete_if(&mut self) {
        if let Some((key, value)) = self.known.filter(|(_, value)| *value != 0) {
            self.delete_at(key, Condition::Is(value)).await;
        }
    }

    async fn delete(&mut self, condition: Condition) {
        let key = self.pick_key();
        self.delete_at(key, condition).await;
    }

    async fn delete_at(&mut self, key: usize, condition: Condition) {
        let node = self.pick_node();
        let (world, wanted) = (self.world.clone(), self.world.condition(condition));
        let (name, bucket) = (&world.keys[key], &world.bucket);
        let call = world.history.begin(key, node, Action::Delete, condition);
        let delete = |node: Node| async move { node.objects.delete(bucket, name, &wanted, context()).await };
        let told = world.told_of(&world.ask(node, delete).await);
        world.history.end(call, told);
    }

    async fn delete_many(&mut self) {
        let (node, first) = (self.pick_node(), self.pick_key());
        let world = self.world.clone();
        let chosen: Vec<usize> = (0..1 + self.seed.pick(3) as usize).map(|step| (first + step * 3) % world.keys.len()).collect();
        let mut conditions = Vec::new();
        for key in &chosen {
            let known = self.known.filter(|(known, value)| known == key && *value != 0);
            conditions.push(known.map_or(Condition::Always, |(_, value)| Condition::Is(value)));
        }
        let keys = chosen.iter().zip(&conditions);
        let keys = keys.map(|(key, condition)| KeyToDelete { key: world.keys[*key].clone(), condition: world.condition(*condition) });
        let (keys, bucket): (Vec<KeyToDelete>, _) = (keys.collect(), &world.bucket);
        let calls: Vec<usize> =
            chosen.iter().zip(&conditions).map(|(key, condition)| world.history.begin(*key, node, Action::Delete, *condition)).collect();
        let delete = |node: Node| async move { node.objects.delete_many(bucket, keys, context()).await };
        match world.ask(node, delete).await {
            None => calls.into_iter().for_each(|call| world.history.end(call, Told::Unknown)),
            Some(outcomes) => {
                for (call, outcome) in calls.into_iter().zip(outcomes) {
                    world.history.end(call, world.told_of(&Some(outcome)));
                }
            }
        }
    }

    async fn copy(&mut self) {
        let (node, from, to) = (self.pick_node(), self.pick_key(), self.pick_key());
        let world = self.world.clone();
        let (name, bucket) = (&world.keys[to], &world.bucket);
        let Some((value, Some(found))) = world.read(node, from, true).await else { return };
        let call = world.history.begin(to, node, Action::Put(value), Condition::Always);
        let copy = |node: Node| async move {
            let source = CopySource { found: &found };
            node.objects.copy(source, bucket, name, Default::default(), &WriteCondition::default(), context()).await
        };
        let told = world.told_of(&world.ask(node, copy).await);
        world.history.end(call, told);
    }

    async fn list(&mut self) {
        let prefix = ["", "", "a", "a/", "a/2/", "b/", "nothing"][self.seed.pick(7) as usize].to_string();
        let delimiter = (!self.seed.one_in(2)).then(|| "/".to_string());
        let limit = if self.seed.one_in(2) { 1_000 } else { 1 + self.seed.pick(4) as usize };
        let history = self.world.history.clone();
        let mut listing = Listing { begin: history.now(), end: 0, prefix, delimiter, entries: Vec::new() };
        let mut after = None;
        loop {
            let request = ListRequest { prefix: listing.prefix.clone(), delimiter: listing.delimiter.clone(), after, limit };
            let (node, world) = (self.pick_node(), self.world.clone());
            let (asked, bucket) = (&request, &world.bucket);
            let Some(Ok(page)) = world.ask(node, |node| async move { node.objects.list(bucket, asked, context()).await }).await else {
                return;
            };
            if limit < page.entries.len() || (page.truncated && page.entries.is_empty()) {
                history.anomaly(format!("a page that does not keep to its limit {limit}: {page:?}"));
                return;
            }
            after = page.entries.last().map(|entry| entry.marker().to_string());
            listing.entries.extend(page.entries.into_iter().map(|entry| self.listed(entry)));
            if !page.truncated {
                break;
            }
        }
        listing.end = history.now();
        history.listed(listing);
    }

    fn listed(&self, entry: ListEntry) -> Listed {
        match entry {
            ListEntry::Prefix(prefix) => Listed::Prefix(prefix),
            ListEntry::Object { key, summary } => {
                let value = self.world.contents.value_of(&summary.etag).unwrap_or(Value::MAX);
                Listed::Key(key, value)
            }
        }
    }
}
