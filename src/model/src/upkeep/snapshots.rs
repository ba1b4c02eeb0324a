//! Snapshots of the metadata: on demand and, if configured, by themselves every so often.

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use garage_db::{
    DbError, StoreId,
    snapshots::{SnapshotDir, SnapshotError},
};
use garage_table::keyspaces;
use garage_util::{
    runtime::{Interrupted, Lane, Runtime},
    workers::{Report, Step, StepError, Worker},
};
use jiff::Timestamp;

/// Snapshots that are kept.
pub const SNAPSHOTS_KEPT_COUNT: usize = 2;

/// Where snapshots go and how often they are taken.
#[derive(Clone)]
pub struct SnapshotOptions {
    /// Where, and how the store of a copy is made.
    pub dir: SnapshotDir,
    /// `metadata_auto_snapshot_interval`; `None`: only on demand.
    pub interval: Option<Duration>,
}

/// Why no snapshot was taken.
#[derive(Debug, thiserror::Error)]
pub enum TakeSnapshotError {
    /// This node has no place for them.
    #[error("this node has no directory for snapshots")]
    NoDirectory,
    /// One at a time.
    #[error("a snapshot is being taken already; wait until it is complete")]
    UnderWay,
    /// Reading the store.
    #[error(transparent)]
    Read(#[from] DbError),
    /// Copying it.
    #[error(transparent)]
    Copy(#[from] SnapshotError),
    /// The node is stopping.
    #[error(transparent)]
    Stopping(#[from] Interrupted),
}

/// Takes snapshots of one node's store. Cheap to clone.
#[derive(Clone)]
pub struct Snapshots(Arc<Inner>);

struct Inner {
    runtime: Runtime,
    db: garage_db::Db,
    options: Option<SnapshotOptions>,
    under_way: tokio::sync::Mutex<()>,
}

impl Snapshots {
    /// Snapshots of a store; without options none can be taken.
    pub fn new(runtime: Runtime, db: garage_db::Db, options: Option<SnapshotOptions>) -> Snapshots {
        Snapshots(Arc::new(Inner { runtime, db, options, under_way: tokio::sync::Mutex::default() }))
    }

    /// Takes one now; where it is.
    pub async fn take(&self) -> Result<PathBuf, TakeSnapshotError> {
        let inner = self.0.clone();
        let Some(options) = inner.options.clone() else { return Err(TakeSnapshotError::NoDirectory) };
        let Ok(_only_one) = inner.under_way.try_lock() else { return Err(TakeSnapshotError::UnderWay) };
        let (name, store_id, db) = (name_of(inner.runtime.now_ms()), StoreId::random(&inner.runtime), inner.db.clone());
        let taken = inner.runtime.blocking(Lane::Read, move || {
            let source = db.snapshot().map_err(SnapshotError::from)?;
            options.dir.take(&*source, keyspaces::SPECS.len() as u8, &name, store_id)
        });
        let path = taken.await??;
        tracing::info!(path = %path.display(), "a snapshot of the metadata was taken");
        Ok(path)
    }

    /// How often they are taken by themselves.
    pub fn interval(&self) -> Option<Duration> {
        self.0.options.as_ref().and_then(|options| options.interval)
    }
}

/// A snapshot's name: the time in UTC, to the second.
fn name_of(now_ms: u64) -> String {
    let time = Timestamp::from_second((now_ms / 1_000) as i64).unwrap_or(Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Takes a snapshot every interval, the first after half of it.
pub struct SnapshotWorker {
    snapshots: Snapshots,
    interval: Duration,
    is_first: bool,
}

impl SnapshotWorker {
    /// A worker that takes one every `interval`, and up to a fifth of it later, so that not all nodes take theirs at once.
    pub fn new(snapshots: Snapshots, interval: Duration) -> SnapshotWorker {
        SnapshotWorker { snapshots, interval, is_first: true }
    }

    async fn work(&mut self) -> Result<Step, StepError> {
        if std::mem::take(&mut self.is_first) {
            return Ok(Step::Idle(self.interval / 2));
        }
        self.snapshots.take().await?;
        let share = self.snapshots.0.runtime.random_u64() % 1_000;
        Ok(Step::Idle(self.interval + self.interval / 5_000 * share as u32))
    }
}

impl Worker for SnapshotWorker {
    fn name(&self) -> String {
        "Metadata snapshot worker".to_string()
    }
    fn step(&mut self) -> BoxFuture<'_, Result<Step, StepError>> {
        self.work().boxed()
    }
    fn report(&self) -> Report {
        Report { messages: vec![format!("a snapshot every {} s or a little more", self.interval.as_secs())], ..Report::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::name_of;

    #[test]
    fn snapshots_are_named_by_their_time_in_utc() {
        assert_eq!(name_of(1_700_000_000_999), "2023-11-14T22:13:20Z");
    }
}
