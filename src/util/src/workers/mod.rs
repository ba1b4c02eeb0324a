//! Background workers: work that goes on beside requests, one bounded step at a time, throttled, watched, and joined at shutdown.
//!
//! Invariants:
//! - a worker's next step begins only after its last one ended;
//! - a failing worker backs off; being woken does not shorten that;
//! - at shutdown a worker is dropped at its next await: a step must leave, at each of them, work to repeat and never work undone.
//!
//! Reading order: this file (what a worker is), `throttle` (how long it rests), `supervisor` (runs and watches them).

mod supervisor;
mod throttle;

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use tokio::sync::Notify;

pub use self::supervisor::{WorkerId, Workers};

/// Work in the background. The supervisor calls `step` again and again, never twice at once.
pub trait Worker: Send + 'static {
    /// What operators see in `garage worker list`.
    fn name(&self) -> String;
    /// Does a bounded piece of work: what takes about a second, or one item.
    fn step(&mut self) -> BoxFuture<'_, Result<Step, StepError>>;
    /// How far it is; asked after every step.
    fn report(&self) -> Report {
        Report::default()
    }
}

/// Why a step failed; shown to operators, and tried again after a back-off.
pub type StepError = Box<dyn std::error::Error + Send + Sync>;

/// What follows a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// There is more to do: the next step follows after a rest of tranquility times the average step.
    Busy,
    /// Nothing to do until the worker is woken, or until this much time has passed.
    Idle(Duration),
    /// The worker has ended for good.
    Done,
}

/// What a worker says of itself. `None` means that the worker has no such thing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// How many average steps it rests after each one; 0: none.
    pub tranquility: Option<u32>,
    /// How far it is, for people: `37.2%`.
    pub progress: Option<String>,
    /// Items that wait.
    pub queue_length: Option<u64>,
    /// Items that failed and are not given up.
    pub persistent_errors: Option<u64>,
    /// Whatever else an operator should know, a line each.
    pub messages: Vec<String>,
}

/// What a worker is doing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum WorkerState {
    /// In a step, or about to begin the next.
    Busy,
    /// Rests between steps, for the sake of others.
    Throttled {
        /// For this long.
        rest: Duration,
    },
    /// Has nothing to do.
    Idle,
    /// Has ended.
    Done,
}

/// A worker as the supervisor sees it.
#[derive(Clone, Debug)]
pub struct WorkerStatus {
    /// Which.
    pub id: WorkerId,
    /// What it is called.
    pub name: String,
    /// What it does.
    pub state: WorkerState,
    /// Steps that failed since it was started.
    pub errors_count: u64,
    /// Steps that failed since the last one that succeeded.
    pub consecutive_errors_count: u64,
    /// The last failure: why, and when in milliseconds since 1970.
    pub last_error: Option<(String, u64)>,
    /// What it said after its last step.
    pub report: Report,
}

/// Wakes one worker before its time. Cheap to clone. A wake while the worker is in a step makes its next rest end at once.
#[derive(Clone, Default)]
pub struct Wake(Arc<Notify>);

impl Wake {
    /// Ends the idleness of the worker, now or when it next becomes idle.
    pub fn wake(&self) {
        self.0.notify_one();
    }
    async fn woken(&self) {
        self.0.notified().await
    }
}
