//! Carries out the lifecycle rules of buckets: once a day, each shard of a bucket on the first of its nodes that is up.
//!
//! Invariants:
//! - nothing is deleted that changed since it was looked at: each deletion is conditional on the version's row;
//! - a locked version is never deleted;
//! - running twice, on several nodes, or being stopped anywhere is harmless.
//!
//! Not here: what a rule says of a version (`rows::lifecycle`).

use std::time::Duration;

use futures::{FutureExt, future::BoxFuture};
use garage_table::{
    Group,
    group::{RequestContext, TableError},
    message::Want,
};
use garage_util::workers::{Report, Step, StepError, Worker};

use crate::{
    access::BucketView,
    buckets::Buckets,
    error::{ClientError, ModelError},
    index::Shown,
    listing::versions::{ListedVersion, VersionEntry},
    objects::{BucketRef, Governance, Objects, Version, versions::VersionToDelete},
    rows::{
        BucketId,
        bucket::Versioning,
        lifecycle::{DAY_MS, Expiration, Filtered, LifecycleRule, abort_of, expiry_of, lone_marker_is_due, noncurrent_is_due},
    },
    uploads::{ListUploadsRequest, UploadEntry, Uploads},
};

/// How often the rules are carried out, unless a test says otherwise.
pub const INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// How long a node without a layout waits before it looks for one again.
const LAYOUT_WAIT: Duration = Duration::from_millis(1500);
/// How long one step may take.
const STEP_PATIENCE: Duration = Duration::from_secs(60);
/// Versions looked at in one step.
const VERSIONS_AT_ONCE: u32 = 1000;
/// Uploads looked at in one step.
const UPLOADS_AT_ONCE: usize = 1000;

/// How the worker goes about it.
#[derive(Clone, Copy, Debug)]
pub struct LifecycleOptions {
    /// From the end of one run to the next.
    pub interval: Duration,
    /// What counts as a day, in milliseconds.
    pub day_ms: u64,
}

impl Default for LifecycleOptions {
    fn default() -> LifecycleOptions {
        LifecycleOptions { interval: INTERVAL, day_ms: DAY_MS }
    }
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Versions and delete markers deleted for good, and objects of buckets without versioning.
    pub deleted_count: u64,
    /// Delete markers put over current objects.
    pub marked_count: u64,
    /// Uploads aborted.
    pub aborted_count: u64,
}

/// The lifecycle of all buckets. Cheap to clone.
#[derive(Clone)]
pub struct Lifecycle {
    objects: Objects,
    uploads: Uploads,
    buckets: Buckets,
    options: LifecycleOptions,
}

impl Lifecycle {
    /// Over these.
    pub fn new(objects: Objects, uploads: Uploads, buckets: Buckets, options: LifecycleOptions) -> Lifecycle {
        Lifecycle { objects, uploads, buckets, options }
    }

    /// A worker that carries out the rules again and again.
    pub fn worker(&self) -> LifecycleWorker {
        LifecycleWorker { lifecycle: self.clone(), waiting: None, done: Done::default(), last_completed_ms: None }
    }

    fn context(&self) -> RequestContext {
        RequestContext::within(STEP_PATIENCE)
    }

    /// Buckets that have rules.
    async fn ruled_buckets(&self) -> Result<Vec<BucketId>, ModelError> {
        let buckets = self.buckets.list(self.context()).await?;
        Ok(buckets.into_iter().filter(|bucket| bucket.row.lifecycle.iter().any(|rule| rule.enabled)).map(|bucket| bucket.id).collect())
    }

    /// Carries out the rules of one bucket, as far as its shards are this node's to look after.
    pub async fn run_bucket(&self, id: BucketId, done: &mut Done) -> Result<(), ModelError> {
        let Some(bucket) = self.buckets.get_fresh(id, self.context()).await? else { return Ok(()) };
        let own: Vec<Group> = bucket.as_ref().groups().filter(|group| self.is_own(group)).collect();
        for group in &own {
            self.run_group(&bucket, group, done).await?;
        }
        if !own.is_empty() && bucket.row.lifecycle.iter().any(|rule| rule.enabled && rule.abort_uploads_days.is_some()) {
            self.abort_uploads(&bucket, &own, done).await?;
        }
        Ok(())
    }

    /// Whether this node is the first of a group's nodes that is up.
    fn is_own(&self, group: &Group) -> bool {
        let cluster = self.objects.tables.cluster();
        let Ok(placement) = cluster.placement(group.hash()) else { return false };
        let up = |node: &garage_net::NodeId| *node == cluster.local() || cluster.is_up(*node);
        placement.write.nodes().into_iter().find(up) == Some(cluster.local())
    }

    async fn run_group(&self, bucket: &BucketView, group: &Group, done: &mut Done) -> Result<(), ModelError> {
        let view = bucket.as_ref();
        let mut key = KeyWalk::default();
        let mut place = None;
        loop {
            let (entries, next) = self.objects.list_group_versions(group, place, VERSIONS_AT_ONCE, self.context()).await?;
            for entry in entries {
                let VersionEntry::Version(version) = entry else { continue };
                if key.last.as_ref().is_some_and(|last| last.key != version.key) {
                    self.end_key(bucket, &view, &key, done).await?;
                    key = KeyWalk::default();
                }
                self.visit(bucket, &view, &mut key, version, done).await?;
            }
            match next {
                Some(next) => place = Some(next),
                None => break,
            }
        }
        self.end_key(bucket, &view, &key, done).await
    }

    async fn visit(
        &self,
        bucket: &BucketView,
        view: &BucketRef,
        walk: &mut KeyWalk,
        version: ListedVersion,
        done: &mut Done,
    ) -> Result<(), ModelError> {
        if version.is_latest {
            if let Shown::Object(_) = version.shown
                && self.is_expired(bucket, view, &version).await?
            {
                let expired = self.objects.expire_current(view, &version.key, version.mark, self.context()).await;
                if settled(expired)?.is_some() {
                    match view.versioning {
                        Versioning::Off => done.deleted_count += 1,
                        Versioning::Enabled | Versioning::Suspended => done.marked_count += 1,
                    }
                }
            }
        } else if let Some(last) = &walk.last {
            let since_ms = modified_ms(&last.shown);
            if self.is_noncurrent_due(bucket, view, &version, walk.older_count, since_ms).await? {
                self.delete(view, &version, done).await?;
            }
        }
        walk.older_count += u32::from(!version.is_latest);
        walk.count += 1;
        walk.last = Some(version);
        Ok(())
    }

    /// A delete marker that is all there is of its key.
    async fn end_key(&self, bucket: &BucketView, view: &BucketRef, walk: &KeyWalk, done: &mut Done) -> Result<(), ModelError> {
        let Some(last) = walk.last.as_ref().filter(|last| walk.count == 1 && last.is_latest) else { return Ok(()) };
        let Shown::Marker { modified_ms } = last.shown else { return Ok(()) };
        if lone_marker_is_due(&bucket.row.lifecycle, &last.key, modified_ms, self.objects.now_ms(), self.options.day_ms) {
            self.delete(view, last, done).await?;
        }
        Ok(())
    }

    async fn delete(&self, view: &BucketRef, version: &ListedVersion, done: &mut Done) -> Result<(), ModelError> {
        let target = VersionToDelete { slot: version.slot, etags: None, mark: Some(version.mark) };
        let deleted = self.objects.delete_versions(view, &version.key, &[target], Governance::Obeyed, self.context()).await;
        done.deleted_count += u64::from(settled(deleted)?.is_some());
        Ok(())
    }

    async fn is_expired(&self, bucket: &BucketView, view: &BucketRef, version: &ListedVersion) -> Result<bool, ModelError> {
        let (rules, now_ms, day_ms) = (&bucket.row.lifecycle, self.objects.now_ms(), self.options.day_ms);
        let judge = |object: Filtered<'_>| {
            let due = expiry_of(rules, object, modified_ms(&version.shown), day_ms);
            due.is_some_and(|(due_ms, _)| due_ms <= now_ms)
        };
        let asks = |rule: &LifecycleRule| matches!(rule.expiration, Some(Expiration::Days(_) | Expiration::Date(_)));
        self.judge(rules, asks, view, version, judge).await
    }

    async fn is_noncurrent_due(
        &self,
        bucket: &BucketView,
        view: &BucketRef,
        version: &ListedVersion,
        newer_count: u32,
        since_ms: u64,
    ) -> Result<bool, ModelError> {
        let (rules, now_ms, day_ms) = (&bucket.row.lifecycle, self.objects.now_ms(), self.options.day_ms);
        let is_marker = matches!(version.shown, Shown::Marker { .. });
        let judge = |object: Filtered<'_>| noncurrent_is_due(rules, object, is_marker, newer_count, since_ms, now_ms, day_ms);
        self.judge(rules, |rule| rule.noncurrent.is_some(), view, version, judge).await
    }

    /// Judges a version; its tags are read only where a rule asks for them.
    async fn judge(
        &self,
        rules: &[LifecycleRule],
        asks: impl Fn(&LifecycleRule) -> bool,
        view: &BucketRef,
        version: &ListedVersion,
        judge: impl Fn(Filtered<'_>) -> bool,
    ) -> Result<bool, ModelError> {
        let size_bytes = if let Shown::Object(summary) = &version.shown { summary.size_bytes } else { 0 };
        let applying = rules.iter().filter(|rule| rule.enabled && asks(rule) && rule.filter.matches_key(&version.key));
        let wants_tags = applying.clone().any(|rule| !rule.filter.tags.is_empty());
        if applying.count() == 0 {
            return Ok(false);
        }
        let mut tags = Vec::new();
        if wants_tags && matches!(version.shown, Shown::Object(_)) {
            let found = self.objects.find_version(view, &version.key, Some(version.slot), Want::Row, self.context()).await?;
            match found {
                Version::Object(found) if found.mark() == version.mark => tags = found.meta.tags().to_vec(),
                // It is another one by now.
                _ => return Ok(false),
            }
        }
        Ok(judge(Filtered { key: &version.key, size_bytes, tags: &tags }))
    }

    async fn abort_uploads(&self, bucket: &BucketView, own: &[Group], done: &mut Done) -> Result<(), ModelError> {
        let view = bucket.as_ref();
        let mut request = ListUploadsRequest { limit: UPLOADS_AT_ONCE, ..ListUploadsRequest::default() };
        loop {
            let page = self.uploads.list(&view, &request, self.context()).await?;
            for entry in &page.entries {
                let UploadEntry::Upload(upload) = entry else { continue };
                (request.key_after, request.upload_after) = (Some(upload.key.clone()), Some(upload.id));
                let due = abort_of(&bucket.row.lifecycle, &upload.key, upload.summary.initiated_ms, self.options.day_ms);
                let is_due = due.is_some_and(|(due_ms, _)| due_ms <= self.objects.now_ms());
                if is_due && own.contains(&view.group_of(&upload.key)) {
                    match self.uploads.abort(&view, &upload.key, upload.id, self.context()).await {
                        Ok(()) => done.aborted_count += 1,
                        Err(ModelError::Client(ClientError::NoSuchUpload)) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            if !page.truncated || page.entries.is_empty() {
                return Ok(());
            }
        }
    }
}

/// What was seen of a key so far.
#[derive(Default)]
struct KeyWalk {
    last: Option<ListedVersion>,
    count: u32,
    older_count: u32,
}

fn modified_ms(shown: &Shown) -> u64 {
    match shown {
        Shown::Object(summary) => summary.modified_ms,
        Shown::Marker { modified_ms } => *modified_ms,
    }
}

/// What is locked, or was changed meanwhile, is left alone.
fn settled<T>(outcome: Result<T, ModelError>) -> Result<Option<T>, ModelError> {
    match outcome {
        Ok(outcome) => Ok(Some(outcome)),
        Err(ModelError::Client(ClientError::Locked | ClientError::PreconditionFailed { .. } | ClientError::NoSuchKey)) => Ok(None),
        Err(ModelError::Table(TableError::Contended)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Carries out all rules, bucket by bucket, then rests.
pub struct LifecycleWorker {
    lifecycle: Lifecycle,
    /// `None`: between two runs.
    waiting: Option<Vec<BucketId>>,
    done: Done,
    last_completed_ms: Option<u64>,
}

impl LifecycleWorker {
    async fn next(&mut self) -> Result<Step, ModelError> {
        let Some(waiting) = &mut self.waiting else {
            self.waiting = match self.lifecycle.ruled_buckets().await {
                Ok(buckets) => Some(buckets),
                // A node that is new: there is nothing to carry out before there is a layout.
                Err(ModelError::Table(TableError::LayoutNotReady)) => return Ok(Step::Idle(LAYOUT_WAIT)),
                Err(error) => return Err(error),
            };
            return Ok(Step::Busy);
        };
        let Some(bucket) = waiting.last().copied() else {
            self.waiting = None;
            self.last_completed_ms = Some(self.lifecycle.objects.now_ms());
            return Ok(Step::Idle(self.lifecycle.options.interval));
        };
        self.lifecycle.run_bucket(bucket, &mut self.done).await?;
        waiting.pop();
        Ok(Step::Busy)
    }
}

impl Worker for LifecycleWorker {
    fn name(&self) -> String {
        "object lifecycle worker".to_string()
    }
    fn step(&mut self) -> BoxFuture<'_, Result<Step, StepError>> {
        async move { self.next().await.map_err(|error| Box::new(error) as StepError) }.boxed()
    }
    fn report(&self) -> Report {
        let Done { deleted_count, marked_count, aborted_count } = self.done;
        let counts =
            format!("{deleted_count} versions deleted, {marked_count} delete markers set, {aborted_count} uploads aborted since the start");
        let completed = self.last_completed_ms.map(|ms| format!("last completed at {ms} ms since 1970"));
        Report {
            queue_length: self.waiting.as_ref().map(|waiting| waiting.len() as u64),
            messages: [counts].into_iter().chain(completed).collect(),
            ..Report::default()
        }
    }
}
