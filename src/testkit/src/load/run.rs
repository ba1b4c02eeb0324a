//! Many requests: workers that take the next number each, until a count or a time is reached.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    client::{Client, RequestError},
    content::Content,
    report::{Report, Tally},
};

/// Requests in one load, so that their times fit in memory.
const REQUESTS_MAX: u64 = 5_000_000;
const _: () = assert!(REQUESTS_MAX < 1 << 32, "key and content number share one index");
/// Requests at once.
const CONCURRENCY_MAX: usize = 4_096;
/// Errors after which a worker gives up: what fails that often tells nothing about speed.
const ERRORS_MAX: usize = 1_000;

/// What each request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Operation {
    /// Store an object.
    Put,
    /// Fetch one and compare it.
    Get,
    /// Ask for its size.
    Head,
    /// List a page of keys.
    List,
    /// Delete one.
    Delete,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Operation::Put => "put",
            Operation::Get => "get",
            Operation::Head => "head",
            Operation::List => "list",
            Operation::Delete => "delete",
        }
    }
}

/// When a load ends.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// After so many requests.
    Count(u64),
    /// With the last request that began within this time.
    Elapsed(Duration),
}

/// A load.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What each request does.
    pub operation: Operation,
    /// Size of the objects.
    pub size_bytes: usize,
    /// Requests at once.
    pub concurrency: usize,
    /// When it ends.
    pub until: Until,
    /// Objects are named `<prefix><number>`.
    pub prefix: String,
    /// Numbers run from 0 up to this and begin again. For a list: keys wanted on the page, at most 1,000.
    pub key_count: u64,
    /// Loads of different numbers store different bytes under keys of the same number, so that no store can share blocks between them.
    pub content_number: u32,
}

/// A load cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A number is out of bounds.
    #[error("{what} must lie between 1 and {max}")]
    OutOfBounds {
        /// Which number.
        what: &'static str,
        /// The largest allowed.
        max: u64,
    },
    /// A key would be deleted twice.
    #[error("a load of deletes is bounded by a count of at most --keys: a second delete of one key tells nothing")]
    DeletesRepeat,
}

impl Plan {
    fn check(&self) -> Result<(), LoadError> {
        let bounded =
            |what, value: u64, max: u64| if (1..=max).contains(&value) { Ok(()) } else { Err(LoadError::OutOfBounds { what, max }) };
        bounded("--concurrency", self.concurrency as u64, CONCURRENCY_MAX as u64)?;
        bounded("--keys", self.key_count, if self.operation == Operation::List { 1_000 } else { REQUESTS_MAX })?;
        match self.until {
            Until::Count(count) => bounded("--count", count, REQUESTS_MAX)?,
            Until::Elapsed(time) => bounded("--duration-s", time.as_secs(), 3_600)?,
        }
        match (self.operation, self.until) {
            (Operation::Delete, Until::Count(count)) if count <= self.key_count => Ok(()),
            (Operation::Delete, _) => Err(LoadError::DeletesRepeat),
            _ => Ok(()),
        }
    }
}

/// What all workers share.
struct Work {
    client: Client,
    plan: Plan,
    content: Content,
    next: AtomicU64,
    started: Instant,
}

/// Runs a load to its end.
pub async fn run(client: Client, plan: Plan) -> Result<Report, LoadError> {
    plan.check()?;
    let content = Content::new(plan.size_bytes);
    let work = Arc::new(Work { client, plan, content, next: AtomicU64::new(0), started: Instant::now() });
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..work.plan.concurrency {
        workers.spawn(work.clone().run_worker());
    }
    let mut tally = Tally::default();
    while let Some(worker) = workers.join_next().await {
        match worker {
            Ok(part) => tally.merge(part),
            Err(error) => tally.count(Err(format!("a worker failed: {error}"))),
        }
    }
    let Plan { operation, size_bytes, concurrency, .. } = work.plan;
    Ok(tally.report(operation.name(), size_bytes, concurrency, work.started.elapsed()))
}

impl Work {
    async fn run_worker(self: Arc<Self>) -> Tally {
        let mut tally = Tally::default();
        while let Some(turn) = self.take_turn()
            && tally.error_count < ERRORS_MAX
        {
            let key_index = turn % self.plan.key_count;
            // Made before the clock starts: the time to write the content is not the server's.
            let body =
                if self.plan.operation == Operation::Put { self.content.object(self.content_index(key_index)) } else { Bytes::new() };
            let started = Instant::now();
            let outcome = self.request(turn, key_index, body).await;
            tally.count(outcome.map(|()| started.elapsed()).map_err(|error| error.to_string()));
        }
        tally
    }

    fn content_index(&self, key_index: u64) -> u64 {
        u64::from(self.plan.content_number) << 32 | key_index
    }

    fn take_turn(&self) -> Option<u64> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let goes_on = match self.plan.until {
            Until::Count(count) => turn < count,
            Until::Elapsed(time) => turn < REQUESTS_MAX && self.started.elapsed() < time,
        };
        goes_on.then_some(turn)
    }

    async fn request(&self, turn: u64, key_index: u64, body: Bytes) -> Result<(), RequestError> {
        let Plan { operation, size_bytes, prefix, key_count, .. } = &self.plan;
        let key = format!("{prefix}{key_index:08}");
        let content_index = self.content_index(key_index);
        match operation {
            Operation::Put => self.client.put(turn, &key, body).await,
            Operation::Get => self.client.get(turn, &key, &self.content, content_index).await,
            Operation::Head => self.client.head(turn, &key, *size_bytes).await,
            Operation::List => self.client.list(turn, prefix, *key_count as usize).await,
            Operation::Delete => self.client.delete(turn, &key).await,
        }
    }
}

#[cfg(test)]
mod tests;
