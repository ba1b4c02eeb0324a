//! The workers of the resync: one looks through the queue for what is due, up to eight attend to it.

use std::{
    sync::atomic::{AtomicU32, AtomicUsize, Ordering},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use garage_table::{keyspaces, schema::StoreError};
use garage_util::{
    encoding::Stored,
    workers::{Report, Step, StepError, Worker},
};
use serde::{Deserialize, Serialize};

use super::{QueueError, Resync};
use crate::{
    hash::BlockHash,
    limits::{
        QUEUE_READY_MAX_COUNT, QUEUE_SCAN_COUNT, QUEUE_SCAN_INTERVAL, RESYNC_STEP_MAX_BYTES, RESYNC_STEP_MAX_COUNT,
        RESYNC_TRANQUILITY_DEFAULT, RESYNC_WORKERS_DEFAULT_COUNT, RESYNC_WORKERS_MAX_COUNT,
    },
    reference::QueueEntry,
};

/// How long a resync worker sleeps when nothing wakes it.
const IDLE: Duration = Duration::from_secs(3_600);

/// What operators set.
pub struct ResyncSettings {
    workers_count: AtomicUsize,
    tranquility: AtomicU32,
}

impl Default for ResyncSettings {
    fn default() -> Self {
        ResyncSettings {
            workers_count: AtomicUsize::new(RESYNC_WORKERS_DEFAULT_COUNT),
            tranquility: AtomicU32::new(RESYNC_TRANQUILITY_DEFAULT),
        }
    }
}

impl ResyncSettings {
    /// `resync-worker-count`.
    pub fn workers_count(&self) -> usize {
        self.workers_count.load(Ordering::Relaxed)
    }
    /// `resync-tranquility`.
    pub fn tranquility(&self) -> u32 {
        self.tranquility.load(Ordering::Relaxed)
    }
}

/// The settings as stored.
#[derive(Serialize, Deserialize)]
struct StoredSettings {
    workers_count: usize,
    tranquility: u32,
}

impl Stored for StoredSettings {
    const WHAT: &'static str = "resync settings";
}

const SETTINGS_KEY: &[u8] = b"resync";

impl Resync {
    /// Takes up the settings that were kept.
    pub async fn load_settings(&self) -> Result<(), QueueError> {
        let store = self.0.manager.service().references().table_store().clone();
        let read = store.db().read(|snapshot| snapshot.get(keyspaces::LOCAL, SETTINGS_KEY)).await;
        let held = read.map_err(|error| error.to_string()).and_then(|held| held.map_err(|error| error.to_string()));
        // Settings that cannot be read are as if they had never been made.
        if let Some(stored) = held.map_err(QueueError::Read)?.and_then(|bytes| StoredSettings::from_stored(&bytes).ok()) {
            let settings = &self.0.settings;
            settings.workers_count.store(stored.workers_count.clamp(1, RESYNC_WORKERS_MAX_COUNT), Ordering::Relaxed);
            settings.tranquility.store(stored.tranquility, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Sets `resync-worker-count`, from 1 to [`RESYNC_WORKERS_MAX_COUNT`], kept over a restart; false: it is out of that range.
    pub async fn set_workers_count(&self, workers_count: usize) -> Result<bool, QueueError> {
        if !(1..=RESYNC_WORKERS_MAX_COUNT).contains(&workers_count) {
            return Ok(false);
        }
        self.0.settings.workers_count.store(workers_count, Ordering::Relaxed);
        self.wake_workers();
        self.save_settings().await?;
        Ok(true)
    }
    /// Sets `resync-tranquility`, kept over a restart.
    pub async fn set_tranquility(&self, tranquility: u32) -> Result<(), QueueError> {
        self.0.settings.tranquility.store(tranquility, Ordering::Relaxed);
        self.save_settings().await
    }

    async fn save_settings(&self) -> Result<(), QueueError> {
        let (workers_count, tranquility) = (self.0.settings.workers_count(), self.0.settings.tranquility());
        let store = self.0.manager.service().references().table_store().clone();
        let saved = store.db().transact(move |transaction| {
            transaction.put(keyspaces::LOCAL, SETTINGS_KEY, StoredSettings { workers_count, tranquility }.to_stored());
            Ok::<(), StoreError>(())
        });
        saved.await?;
        Ok(())
    }

    fn wake_workers(&self) {
        self.0.worker_wakes.iter().for_each(|wake| wake.wake());
    }

    /// What one step attends to: as many blocks as their bytes may be held.
    fn next_ready(&self) -> Vec<(BlockHash, QueueEntry)> {
        let blocks_count = RESYNC_STEP_MAX_BYTES / self.0.manager.options().block_size_bytes;
        let waiting = &mut self.0.ready.lock().waiting;
        let taken_count = waiting.len().min(blocks_count.clamp(1, RESYNC_STEP_MAX_COUNT));
        waiting.drain(..taken_count).collect()
    }

    fn done_with(&self, hash: BlockHash) {
        self.0.ready.lock().taken.remove(&hash);
    }
}

/// Looks through the queue and makes ready what is due.
pub(super) struct Feeder {
    resync: Resync,
    after: Option<BlockHash>,
    queued_count: u64,
    errored_count: u64,
}

impl Feeder {
    pub(super) fn new(resync: Resync) -> Feeder {
        Feeder { resync, after: None, queued_count: 0, errored_count: 0 }
    }

    async fn scan(&mut self) -> Result<Step, StepError> {
        if QUEUE_READY_MAX_COUNT <= self.resync.0.ready.lock().waiting.len() {
            return Ok(Step::Idle(Duration::from_secs(1)));
        }
        let entries = self.resync.0.queue.after(self.after, QUEUE_SCAN_COUNT).await?;
        let is_end = entries.len() < QUEUE_SCAN_COUNT;
        self.after = entries.last().map(|(hash, _)| *hash).filter(|_| !is_end);
        self.queued_count += entries.len() as u64;
        self.errored_count += entries.iter().filter(|(_, entry)| 0 < entry.failed_count).count() as u64;
        self.make_ready(entries);
        if !is_end {
            return Ok(Step::Busy);
        }
        let counters = &self.resync.0.counters;
        counters.queued_count.store(std::mem::take(&mut self.queued_count), Ordering::Relaxed);
        counters.errored_count.store(std::mem::take(&mut self.errored_count), Ordering::Relaxed);
        Ok(Step::Idle(QUEUE_SCAN_INTERVAL))
    }

    fn make_ready(&self, entries: Vec<(BlockHash, QueueEntry)>) {
        let now_ms = self.resync.0.runtime.now_ms();
        let mut any = false;
        {
            let mut ready = self.resync.0.ready.lock();
            for (hash, entry) in entries.into_iter().filter(|(_, entry)| entry.due_ms <= now_ms) {
                if ready.taken.insert(hash) {
                    ready.waiting.push_back((hash, entry));
                    any = true;
                }
            }
        }
        if any {
            self.resync.wake_workers();
        }
    }
}

impl Worker for Feeder {
    fn name(&self) -> String {
        "Block resync queue deferred worker".to_string()
    }
    fn step(&mut self) -> BoxFuture<'_, Result<Step, StepError>> {
        self.scan().boxed()
    }
    fn report(&self) -> Report {
        Report { queue_length: Some(self.resync.0.counters.queued_count.load(Ordering::Relaxed)), ..Report::default() }
    }
}

/// Attends to some blocks at once, then to the next: most of the time goes by on the way to other nodes, or on waiting for one that is silent.
pub(super) struct ResyncWorker {
    resync: Resync,
    index: usize,
}

impl ResyncWorker {
    pub(super) fn new(resync: Resync, index: usize) -> ResyncWorker {
        ResyncWorker { resync, index }
    }

    async fn work(&mut self) -> Result<Step, StepError> {
        if self.resync.0.settings.workers_count() <= self.index {
            return Ok(Step::Idle(IDLE));
        }
        let batch = self.resync.next_ready();
        if batch.is_empty() {
            return Ok(Step::Idle(IDLE));
        }
        let resync = &self.resync;
        let attended = batch.into_iter().map(|(hash, entry)| async move {
            let attended = resync.attend(hash, entry).await;
            resync.done_with(hash);
            attended
        });
        join_all(attended).await.into_iter().collect::<Result<(), _>>()?;
        Ok(Step::Busy)
    }
}

impl Worker for ResyncWorker {
    fn name(&self) -> String {
        format!("Block resync worker #{}", self.index + 1)
    }
    fn step(&mut self) -> BoxFuture<'_, Result<Step, StepError>> {
        self.work().boxed()
    }
    fn report(&self) -> Report {
        let settings = &self.resync.0.settings;
        if settings.workers_count() <= self.index {
            return Report { messages: vec!["not in use; see resync-worker-count".to_string()], ..Report::default() };
        }
        let counters = &self.resync.0.counters;
        Report {
            tranquility: Some(settings.tranquility()),
            queue_length: Some(counters.queued_count.load(Ordering::Relaxed)),
            persistent_errors: Some(counters.errored_count.load(Ordering::Relaxed)),
            ..Report::default()
        }
    }
}
