//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

/// How often a condition is looked at.
const POLL_PERIOD: Duration = Duration::from_millis(25);
/// How long anything that must come may take on a busy machine. No promise: only the end of a test that hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Polls `condition` until it gives a value; fails with `what` after [`PATIENCE`].
pub async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, &mut condition).await
}

/// As [`until`], with a time of its own.
pub async fn until_within<T>(time: Duration, what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(started.elapsed() < time, "waited {time:?} for {what}");
        tokio::time::sleep(POLL_PERIOD).await;
    }
}
