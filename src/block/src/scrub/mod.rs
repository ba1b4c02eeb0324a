//! The scrub: reads every block file of a node once a month or when told to, and has bad copies replaced.
//!
//! Invariants:
//! - its place survives a restart; at most one minute of work is repeated;
//! - a bad copy is set aside and queued before the scrub goes on, so nothing that was found is forgotten.
//!
//! Reading order: `state` (what it is doing, and what commands do to that; pure), this file (the worker around it).

mod state;

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use garage_db::TransactError;
use garage_table::{keyspaces, schema::StoreError};
use garage_util::{
    encoding::Stored,
    runtime::Runtime,
    workers::{Report, Step, StepError, Wake, Worker, Workers},
};
use parking_lot::Mutex;

pub use self::state::{ScrubCommand, ScrubRefused, ScrubState, Stage};
use crate::{
    hash::BlockHash,
    limits::{SCRUB_CHECKPOINT_INTERVAL, SCRUB_INTERVAL_MIN, SCRUB_INTERVAL_SPREAD},
    resync::Resync,
    store::WalkPosition,
};

const STATE_KEY: &[u8] = b"scrub";

/// Why a command to the scrub failed.
#[derive(Debug, thiserror::Error)]
pub enum ScrubError {
    /// It makes no sense now.
    #[error(transparent)]
    Refused(#[from] ScrubRefused),
    /// What it decided could not be kept.
    #[error("the state of the scrub cannot be written: {0}")]
    Write(#[from] TransactError<StoreError>),
    /// What was kept could not be read.
    #[error("the state of the scrub cannot be read: {0}")]
    Read(String),
}

/// The scrub of one node. Cheap to clone.
#[derive(Clone)]
pub struct Scrub(Arc<Inner>);

struct Inner {
    runtime: Runtime,
    resync: Resync,
    state: Mutex<ScrubState>,
    wake: Wake,
}

impl Scrub {
    /// The scrub as it was left; nothing happens before [`Scrub::start`].
    pub async fn open(runtime: Runtime, resync: Resync) -> Result<Scrub, ScrubError> {
        let store = resync.manager().service().references().table_store().clone();
        let read = store.db().read(|snapshot| snapshot.get(keyspaces::LOCAL, STATE_KEY)).await;
        let held = read.map_err(|error| error.to_string()).and_then(|held| held.map_err(|error| error.to_string()));
        // A state that cannot be read costs one scrub from the beginning, no more.
        let state = held.map_err(ScrubError::Read)?.and_then(|bytes| ScrubState::from_stored(&bytes).ok());
        let state = state.unwrap_or_else(|| ScrubState::new(runtime.now_ms() + next_interval_ms(&runtime)));
        Ok(Scrub(Arc::new(Inner { runtime, resync, state: Mutex::new(state), wake: Wake::default() })))
    }

    /// Starts the worker.
    pub fn start(&self, workers: &Workers) {
        let worker = ScrubWorker { scrub: self.clone(), unsaved: Duration::ZERO, last_step: tokio::time::Instant::now() };
        workers.start(worker, self.0.wake.clone());
    }

    /// What it is doing.
    pub fn state(&self) -> ScrubState {
        self.0.state.lock().clone()
    }

    /// Does what an operator says; kept over a restart on return.
    pub async fn command(&self, command: ScrubCommand) -> Result<(), ScrubError> {
        let (now_ms, next_ms) = (self.0.runtime.now_ms(), next_interval_ms(&self.0.runtime));
        self.0.state.lock().command(command, now_ms, next_ms)?;
        self.save().await?;
        self.0.wake.wake();
        Ok(())
    }

    /// Sets `scrub-tranquility`; kept over a restart on return.
    pub async fn set_tranquility(&self, tranquility: u32) -> Result<(), ScrubError> {
        self.0.state.lock().tranquility = tranquility;
        self.save().await
    }

    async fn save(&self) -> Result<(), ScrubError> {
        let bytes = self.state().to_stored();
        let store = self.0.resync.manager().service().references().table_store().clone();
        let saved = store.db().transact(move |transaction| {
            transaction.put(keyspaces::LOCAL, STATE_KEY, bytes);
            Ok::<(), StoreError>(())
        });
        saved.await?;
        Ok(())
    }

    /// Looks at the files of one directory; false: there are no more.
    async fn check_from(&self, from: WalkPosition) -> Result<bool, StepError> {
        let service = self.0.resync.manager().service();
        let Some(step) = service.store().walk(from).await? else { return Ok(false) };
        let mut unneeded = Vec::new();
        for hash in step.hashes {
            if self.check(hash).await? {
                self.0.state.lock().corruptions_count += 1;
            }
            if !service.references().need(hash).await?.is_live {
                unneeded.push(hash);
            }
        }
        // Files that nothing needs are left by a crash between a file and its reference.
        self.0.resync.look_at(unneeded).await?;
        let Some(next) = step.position.next() else { return Ok(false) };
        self.0.state.lock().advance(next);
        Ok(true)
    }

    /// Checks a block's copies; true: there was a bad one, which is set aside and queued.
    async fn check(&self, hash: BlockHash) -> Result<bool, StepError> {
        let checked = self.0.resync.manager().service().check(hash).await;
        let state = checked.map_err(|refusal| StepError::from(format!("block {hash}: {}", refusal.message)))?;
        Ok(state == crate::message::CopyState::SetAside)
    }
}

/// When the next scrub is due: 25 to 35 days from now, so that the nodes of a cluster do not all scrub at once.
fn next_interval_ms(runtime: &Runtime) -> u64 {
    SCRUB_INTERVAL_MIN.as_millis() as u64 + runtime.random_u64() % SCRUB_INTERVAL_SPREAD.as_millis() as u64
}

struct ScrubWorker {
    scrub: Scrub,
    unsaved: Duration,
    last_step: tokio::time::Instant,
}

impl ScrubWorker {
    async fn work(&mut self) -> Result<Step, StepError> {
        let now_ms = self.scrub.0.runtime.now_ms();
        let stage = self.scrub.0.state.lock().wake_up(now_ms);
        match stage {
            Stage::Running { position } => {
                if self.scrub.check_from(WalkPosition(position)).await? {
                    return self.checkpoint().await;
                }
                let next_ms = next_interval_ms(&self.scrub.0.runtime);
                self.scrub.0.state.lock().finish(now_ms, next_ms);
                self.scrub.save().await?;
                Ok(Step::Idle(Duration::from_secs(1)))
            }
            Stage::Paused { until_ms: due_ms, .. } | Stage::Waiting { due_ms } => {
                Ok(Step::Idle(Duration::from_millis(due_ms.saturating_sub(now_ms)).min(Duration::from_secs(3_600))))
            }
        }
    }

    /// Keeps the place once a minute of work has passed.
    async fn checkpoint(&mut self) -> Result<Step, StepError> {
        self.unsaved += self.last_step.elapsed();
        self.last_step = tokio::time::Instant::now();
        if SCRUB_CHECKPOINT_INTERVAL <= self.unsaved {
            self.scrub.save().await?;
            self.unsaved = Duration::ZERO;
        }
        Ok(Step::Busy)
    }
}

impl Worker for ScrubWorker {
    fn name(&self) -> String {
        "Block scrub worker".to_string()
    }
    fn step(&mut self) -> BoxFuture<'_, Result<Step, StepError>> {
        self.work().boxed()
    }
    fn report(&self) -> Report {
        let state = self.scrub.state();
        let message = match &state.stage {
            Stage::Running { .. } => "a scrub is running".to_string(),
            Stage::Paused { .. } => "the scrub is paused; it goes on by itself after 24 hours".to_string(),
            Stage::Waiting { .. } => match state.last_completed_ms {
                Some(_) => "the last scrub is complete".to_string(),
                None => "no scrub was completed yet".to_string(),
            },
        };
        Report {
            tranquility: Some(state.tranquility),
            progress: state.progress().map(|fraction| format!("{:.2}%", fraction * 100.0)),
            persistent_errors: Some(state.corruptions_count),
            messages: vec![message],
            ..Report::default()
        }
    }
}

#[cfg(test)]
mod tests;
