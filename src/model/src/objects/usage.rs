//! Quotas: checked before the body is read, on sums at most [`USAGE_AGE_MAX`] old.
//!
//! Concurrent writers can overshoot by what they have under way: number of writers × size of an object.

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt, TryStreamExt, stream};
use garage_table::{Group, group::RequestContext};
use garage_util::encoding::Stored;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{BucketRef, Objects};
use crate::{
    error::{ClientError, ModelError},
    index::Counters,
    listing::replica::Query,
    rows::{BucketId, VERSION},
};

/// How old a sum may be that a quota is checked upon.
pub const USAGE_AGE_MAX: Duration = Duration::from_secs(2);
/// Buckets whose sums are remembered.
const USAGE_BUCKETS_MAX: usize = 1024;
/// Groups asked at once.
const GROUPS_AT_ONCE: usize = 16;

/// Sums of buckets with quotas, and when they were asked for.
#[derive(Default)]
pub(super) struct UsageCache(Mutex<BTreeMap<BucketId, (Instant, Counters)>>);

impl Objects {
    /// What a bucket holds now: for each shard the greatest count among a quorum of its nodes.
    pub async fn usage(&self, bucket: &BucketRef, context: RequestContext) -> Result<Counters, ModelError> {
        let groups = bucket.groups().collect::<Vec<Group>>();
        let counts = stream::iter(groups).map(|group| self.group_usage(group, context)).buffer_unordered(GROUPS_AT_ONCE);
        counts.try_fold(Counters::default(), |sum, count| async move { Ok(sum.plus(count)) }).await
    }

    async fn group_usage(&self, group: Group, context: RequestContext) -> Result<Counters, ModelError> {
        let answers = self.tables.query(&group, VERSION, Query::Counters.to_stored(), self.step(context)).await?;
        let counts = answers.iter().map(|answer| Counters::from_stored(answer)).collect::<Result<Vec<_>, _>>()?;
        Ok(counts.into_iter().fold(Counters::default(), Counters::max))
    }

    /// Refuses what would exceed the bucket's quotas.
    pub(crate) async fn check_quota(&self, bucket: &BucketRef, added_bytes: u64, context: RequestContext) -> Result<(), ModelError> {
        let quotas = bucket.quotas;
        if quotas.size_max_bytes.is_none() && quotas.objects_max.is_none() {
            return Ok(());
        }
        let held = self.recent_usage(bucket, context).await?;
        if let Some(max) = quotas.size_max_bytes
            && max < held.bytes.saturating_add(added_bytes)
        {
            let what = format!("{} of {max} bytes are used and {added_bytes} more were to come", held.bytes);
            return Err(ClientError::QuotaExceeded { what }.into());
        }
        if let Some(max) = quotas.objects_max
            && max <= held.objects
        {
            return Err(ClientError::QuotaExceeded { what: format!("{} of {max} objects are stored", held.objects) }.into());
        }
        Ok(())
    }

    async fn recent_usage(&self, bucket: &BucketRef, context: RequestContext) -> Result<Counters, ModelError> {
        let asked_at = Instant::now();
        if let Some((at, counters)) = self.usage.0.lock().get(&bucket.id)
            && asked_at.duration_since(*at) < USAGE_AGE_MAX
        {
            return Ok(*counters);
        }
        let counters = self.usage(bucket, context).await?;
        let mut sums = self.usage.0.lock();
        if USAGE_BUCKETS_MAX <= sums.len() {
            sums.retain(|_, (at, _)| asked_at.duration_since(*at) < USAGE_AGE_MAX);
        }
        sums.insert(bucket.id, (asked_at, counters));
        Ok(counters)
    }
}
