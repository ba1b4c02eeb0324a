//! What the tests stand on: `ports`, `wait`, `process` (one `garage server`), `cluster` (several, laid out), `client` (signed S3), `wire`
//! (bytes on a socket), `load` (writers that remember what was acknowledged).

pub mod client;
pub mod cluster;
pub mod load;
pub mod ports;
pub mod process;
pub mod wait;
pub mod wire;

use tokio::sync::{Semaphore, SemaphorePermit};

/// Turns at once: a cluster of three keeps two cores busy enough.
const TURN_COUNT: u32 = 2;

static TURNS: Semaphore = Semaphore::const_new(TURN_COUNT as usize);

/// Waits until few other tests run.
pub async fn turn() -> SemaphorePermit<'static> {
    TURNS.acquire().await.expect("never closed")
}

/// Waits until no other test runs: for promises about time.
pub async fn turn_alone() -> SemaphorePermit<'static> {
    TURNS.acquire_many(TURN_COUNT).await.expect("never closed")
}
