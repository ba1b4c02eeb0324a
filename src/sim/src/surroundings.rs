//! A node's clock, randomness and tasks: all virtual, all from the seed. Blocking work runs inline, after a delay of its own.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use garage_util::runtime::{Clock, Interrupted, Lane, Random, Runtime, Spawn};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::seed::Seed;

/// When every simulation begins, in milliseconds since 1970.
pub const EPOCH_MS: u64 = 1_700_000_000_000;

/// A wall clock that is off by a fixed amount.
pub struct SimClock {
    started: Instant,
    offset_ms: Mutex<i64>,
}

impl SimClock {
    /// A clock that is right.
    pub fn new() -> SimClock {
        SimClock { started: Instant::now(), offset_ms: Mutex::new(0) }
    }
    /// Sets how far it is ahead of (or, negative, behind) the right time.
    pub fn set_offset_ms(&self, offset_ms: i64) {
        *self.offset_ms.lock() = offset_ms;
    }
}

impl Default for SimClock {
    fn default() -> Self {
        SimClock::new()
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> u64 {
        (EPOCH_MS + self.started.elapsed().as_millis() as u64).saturating_add_signed(*self.offset_ms.lock())
    }
}

struct SimRandom(Mutex<Seed>);
impl Random for SimRandom {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().fill(bytes)
    }
}

struct SimSpawn {
    stopping: CancellationToken,
    seed: Mutex<Seed>,
    disk_delay: Duration,
}

impl SimSpawn {
    /// Half of the delay comes before the work and half after it, so that a crash finds both kinds.
    fn delay(&self, lane: Lane) -> Duration {
        let longest_us = self.disk_delay.as_micros() as u64;
        if lane == Lane::Compute || longest_us == 0 { Duration::ZERO } else { Duration::from_micros(self.seed.lock().pick(longest_us)) }
    }
}

impl Spawn for SimSpawn {
    fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) {
        let stopping = self.stopping.clone();
        // A crashed node's tasks are dropped where they stand, as those of a killed process.
        tokio::spawn(async move {
            tokio::select! { biased; () = stopping.cancelled() => {} () = task => {} }
        });
    }
    fn blocking(&self, lane: Lane, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, Result<(), Interrupted>> {
        let (stopping, delay) = (self.stopping.clone(), self.delay(lane));
        Box::pin(async move {
            if !delay.is_zero() {
                sleep(delay).await;
            }
            if stopping.is_cancelled() {
                return Err(Interrupted);
            }
            work();
            if !delay.is_zero() {
                sleep(delay).await;
            }
            if stopping.is_cancelled() { Err(Interrupted) } else { Ok(()) }
        })
    }
}

/// The runtime of one life of a node, and the token that ends it.
pub fn runtime(clock: &Arc<SimClock>, seed: Seed, disk_delay: Duration) -> (Runtime, CancellationToken) {
    let stopping = CancellationToken::new();
    let spawn = SimSpawn { stopping: stopping.clone(), seed: Mutex::new(seed.fork(1)), disk_delay };
    let runtime = Runtime::new(clock.clone(), Arc::new(SimRandom(Mutex::new(seed.fork(2)))), Arc::new(spawn), stopping.clone());
    (runtime, stopping)
}
