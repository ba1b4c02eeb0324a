//! Writers that remember what was acknowledged, and the check that all of it is there.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use garage_testkit::load::Content;
use http::Method;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{client::S3, cluster::BUCKET, wait::until};

/// Most objects are small: kept with their row.
const SMALL_BYTES: usize = 700;
/// Every eighth is kept as a block.
const LARGE_BYTES: usize = 70_000;
const LARGE_EVERY: u64 = 8;
/// Objects read at once by a check.
const READERS: usize = 16;
/// A writer whose node is away does not spin.
const REFUSED_PAUSE: Duration = Duration::from_millis(20);

fn content_of(index: u64) -> Content {
    Content::new(if index.is_multiple_of(LARGE_EVERY) { LARGE_BYTES } else { SMALL_BYTES })
}

fn target_of(index: u64) -> String {
    format!("/{BUCKET}/object-{index:08}")
}

/// What became of the requests.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Objects whose PUT was answered 200.
    pub acknowledged: Vec<u64>,
    /// Endpoint and what came instead of a 200.
    pub failures: Vec<(usize, String)>,
    /// The longest request that was acknowledged.
    pub longest: Duration,
}

/// Clients that write new objects until they are told to stop.
pub struct Writers {
    stop: CancellationToken,
    tasks: JoinSet<Outcome>,
    acknowledged_count: Arc<AtomicU64>,
}

impl Writers {
    /// Starts `count` writers, taking turns over the endpoints; their objects are numbered from `first` on.
    pub fn start(endpoints: &[S3], count: usize, first: u64) -> Writers {
        let mut writers = Writers { stop: CancellationToken::new(), tasks: JoinSet::new(), acknowledged_count: Arc::default() };
        let next = Arc::new(AtomicU64::new(first));
        for writer in 0..count {
            let endpoint = writer % endpoints.len();
            let (s3, stop) = (endpoints[endpoint].clone(), writers.stop.clone());
            writers.tasks.spawn(write(endpoint, s3, stop, next.clone(), writers.acknowledged_count.clone()));
        }
        writers
    }

    /// Waits until `count` more objects are acknowledged than now.
    pub async fn more_acknowledged(&self, count: u64) {
        let wanted = self.acknowledged_count.load(Ordering::Relaxed) + count;
        until("more acknowledged writes", async || (wanted <= self.acknowledged_count.load(Ordering::Relaxed)).then_some(())).await;
    }

    /// Lets each writer finish its request; what all of them saw.
    pub async fn stop(mut self) -> Outcome {
        self.stop.cancel();
        let mut all = Outcome::default();
        while let Some(one) = self.tasks.join_next().await {
            let one = one.unwrap();
            all.acknowledged.extend(one.acknowledged);
            all.failures.extend(one.failures);
            all.longest = all.longest.max(one.longest);
        }
        all
    }
}

async fn write(endpoint: usize, s3: S3, stop: CancellationToken, next: Arc<AtomicU64>, acknowledged_count: Arc<AtomicU64>) -> Outcome {
    let mut outcome = Outcome::default();
    while !stop.is_cancelled() {
        let index = next.fetch_add(1, Ordering::Relaxed);
        let body = content_of(index).object(index);
        let started = Instant::now();
        let answer = s3.attempt(Method::PUT, &target_of(index), &[], body).await;
        match answer {
            Ok(answer) if answer.status == 200 => {
                outcome.acknowledged.push(index);
                acknowledged_count.fetch_add(1, Ordering::Relaxed);
                outcome.longest = outcome.longest.max(started.elapsed());
            }
            other => {
                outcome
                    .failures
                    .push((endpoint, other.map_or_else(|error| error, |answer| format!("{} {}", answer.status, answer.text()))));
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
        }
    }
    outcome
}

/// Reads one object: `Ok` when it is the one that was written.
pub async fn read(s3: &S3, index: u64) -> Result<(), String> {
    let answer = s3.attempt(Method::GET, &target_of(index), &[], Bytes::new()).await?;
    let content = content_of(index);
    match answer.status {
        200 if answer.body.len() == content.size_bytes() && content.matches(index, 0, &answer.body) => Ok(()),
        200 => Err(format!("object {index}: other bytes than were written")),
        status => Err(format!("object {index}: {status} {}", answer.text())),
    }
}

/// Fails unless every object is read through this node as it was written, and listed.
pub async fn assert_all_there(s3: &S3, indexes: &[u64]) {
    let wrong: Vec<String> = stream::iter(indexes.iter().map(|index| read(s3, *index)))
        .buffer_unordered(READERS)
        .filter_map(|outcome| async { outcome.err() })
        .collect()
        .await;
    assert!(wrong.is_empty(), "{} of {} objects: {:?}", wrong.len(), indexes.len(), &wrong[..wrong.len().min(5)]);
    let listed = list(s3).await;
    let unlisted: Vec<&u64> = indexes.iter().filter(|index| !listed.contains(&format!("object-{index:08}"))).collect();
    assert!(unlisted.is_empty(), "{} of {} objects are not listed: {unlisted:?}", unlisted.len(), indexes.len());
}

/// All keys of the bucket.
pub async fn list(s3: &S3) -> std::collections::BTreeSet<String> {
    let mut keys = std::collections::BTreeSet::new();
    loop {
        let after = keys.last().cloned().unwrap_or_default();
        let page = s3.get(&format!("/{BUCKET}?list-type=2&start-after={after}")).await.ok().text();
        keys.extend(page.split("<Key>").skip(1).filter_map(|rest| rest.split_once("</Key>")).map(|(key, _)| key.to_owned()));
        if !page.contains("<IsTruncated>true</IsTruncated>") {
            return keys;
        }
    }
}
