//! The seams through which code reaches the outside world: wall clock, randomness, tasks, blocking work.
//!
//! Real nodes get [`Runtime::real`]; the simulation gives one of its own for each node. Monotonic time is `tokio::time`, which the
//! simulation pauses. Code below `garage` never calls `tokio::spawn`, `SystemTime::now` or a global random generator.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Wall time.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970 UTC.
    fn now_ms(&self) -> u64;
}

/// Random bytes; from the system on a real node, from a seed in the simulation.
pub trait Random: Send + Sync {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

/// What blocking work waits for; each lane has its own bound, so that slow disks cannot hold up hashing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lane {
    /// Reading the metadata store.
    Read,
    /// Committing to the metadata store.
    Commit,
    /// Block files.
    File,
    /// Hashing, compressing, encrypting.
    Compute,
}

/// The blocking work did not run to its end: it panicked, or the node is stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the node is stopping, or background work failed unexpectedly")]
pub struct Interrupted;

/// Tasks and blocking work.
pub trait Spawn: Send + Sync {
    /// Runs a task until it ends or the node stops.
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>);
    /// Runs blocking work off the async workers; waits for a place in the lane.
    fn blocking(&self, lane: Lane, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, Result<(), Interrupted>>;
}

/// A node's access to the outside world. Cheap to clone.
#[derive(Clone)]
pub struct Runtime {
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    spawn: Arc<dyn Spawn>,
    stopping: CancellationToken,
}

impl Runtime {
    /// A runtime from its parts; `stopping` is cancelled when the node stops.
    pub fn new(clock: Arc<dyn Clock>, random: Arc<dyn Random>, spawn: Arc<dyn Spawn>, stopping: CancellationToken) -> Runtime {
        Runtime { clock, random, spawn, stopping }
    }

    /// The real thing, with its task set; join the set after cancelling the token.
    pub fn real() -> (Runtime, RealTasks) {
        let stopping = CancellationToken::new();
        let tasks = Arc::new(RealSpawn { tracker: TaskTracker::new(), stopping: stopping.clone(), lanes: RealLanes::default() });
        let runtime = Runtime::new(Arc::new(SystemClock), Arc::new(SystemRandom), tasks.clone(), stopping);
        (runtime, RealTasks(tasks))
    }

    /// Milliseconds since 1970 UTC, by this node's clock.
    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }
    /// Fills `bytes` with random ones.
    pub fn fill_random(&self, bytes: &mut [u8]) {
        self.random.fill(bytes)
    }
    /// A random number.
    pub fn random_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.random.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
    /// Starts a task; it is dropped at its next await when the node stops.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn.spawn(name, Box::pin(task))
    }
    /// Cancelled when the node stops.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Runs `work` off the async workers and gives its result back.
    pub async fn blocking<T: Send + 'static>(&self, lane: Lane, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Interrupted> {
        let slot = Arc::new(Mutex::new(None));
        let inner = slot.clone();
        self.spawn.blocking(lane, Box::new(move || *inner.lock() = Some(work()))).await?;
        let result = slot.lock().take();
        result.ok_or(Interrupted)
    }
}

struct SystemClock;
impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        // A clock before 1970 is a clock that was never set: 0 makes every peer refuse it, which is the message an operator needs.
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }
}

struct SystemRandom;
impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system gives random bytes; without them no key or id is safe")
    }
}

/// Places in each lane of blocking work.
struct RealLanes {
    read: Arc<Semaphore>,
    commit: Arc<Semaphore>,
    file: Arc<Semaphore>,
    compute: Arc<Semaphore>,
}
/// Blocking reads of the metadata store at once.
pub const READ_LANE_MAX: usize = 32;
/// Commits at once (one committer; the rest are control files).
pub const COMMIT_LANE_MAX: usize = 4;
/// Block file operations at once.
pub const FILE_LANE_MAX: usize = 32;

impl Default for RealLanes {
    fn default() -> Self {
        let cores_count = std::thread::available_parallelism().map_or(2, usize::from);
        RealLanes {
            read: Arc::new(Semaphore::new(READ_LANE_MAX)),
            commit: Arc::new(Semaphore::new(COMMIT_LANE_MAX)),
            file: Arc::new(Semaphore::new(FILE_LANE_MAX)),
            compute: Arc::new(Semaphore::new(cores_count.max(2) * 2)),
        }
    }
}

struct RealSpawn {
    tracker: TaskTracker,
    stopping: CancellationToken,
    lanes: RealLanes,
}

impl Spawn for RealSpawn {
    fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) {
        let stopping = self.stopping.clone();
        self.tracker.spawn(async move {
            // Dropping the task loses nothing: what must outlive a stop is durable before it is answered.
            tokio::select! { biased; () = stopping.cancelled() => {} () = task => {} }
        });
    }
    fn blocking(&self, lane: Lane, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, Result<(), Interrupted>> {
        let places = match lane {
            Lane::Read => &self.lanes.read,
            Lane::Commit => &self.lanes.commit,
            Lane::File => &self.lanes.file,
            Lane::Compute => &self.lanes.compute,
        }
        .clone();
        Box::pin(async move {
            let place = places.acquire_owned().await.map_err(|_| Interrupted)?;
            tokio::task::spawn_blocking(move || {
                let _place = place;
                work()
            })
            .await
            .map_err(|_| Interrupted)
        })
    }
}

/// The tasks of a real node, to be stopped and joined.
pub struct RealTasks(Arc<RealSpawn>);

impl RealTasks {
    /// Tells every task to stop and waits for them, at most `patience`. False: some had not ended.
    pub async fn stop(self, patience: Duration) -> bool {
        self.0.stopping.cancel();
        self.0.tracker.close();
        tokio::time::timeout(patience, self.0.tracker.wait()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Lane, Runtime};

    #[tokio::test]
    async fn blocking_work_gives_its_result_and_a_panic_is_an_error() {
        let (runtime, tasks) = Runtime::real();
        assert_eq!(runtime.blocking(Lane::Compute, || 6 * 7).await.unwrap(), 42);
        assert!(runtime.blocking(Lane::Compute, || panic!("planned")).await.is_err());
        assert!(tasks.stop(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn a_stop_ends_tasks_that_wait_for_ever() {
        let (runtime, tasks) = Runtime::real();
        runtime.spawn("waits", std::future::pending());
        assert!(tasks.stop(Duration::from_secs(5)).await);
    }
}
