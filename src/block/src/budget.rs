//! A bound on bytes held in memory, shared by all who hold them: whoever comes when it is used up waits.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Bytes are counted in units of this many, so that budgets past 4 GiB fit the semaphore's 32-bit requests.
const UNIT_BYTES: usize = 1024;

/// A number of bytes to share. Cheap to clone.
#[derive(Clone)]
pub struct ByteBudget(Arc<Inner>);

struct Inner {
    units: Arc<Semaphore>,
    units_count: usize,
    waiting_count: AtomicUsize,
    pressed: Notify,
}

/// Some bytes of a budget; dropping it gives them back.
#[derive(Debug)]
pub struct Held {
    _permit: OwnedSemaphorePermit,
}

impl ByteBudget {
    /// A budget of `bytes`, at least one unit of 1 KiB.
    pub fn new(bytes: usize) -> ByteBudget {
        let units_count = (bytes / UNIT_BYTES).clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        let units = Arc::new(Semaphore::new(units_count));
        ByteBudget(Arc::new(Inner { units, units_count, waiting_count: AtomicUsize::new(0), pressed: Notify::new() }))
    }

    /// Waits for `bytes`, first come first served. More than the whole budget is granted when all of it is free, or nothing could
    /// ever hold one block under a budget set too small.
    pub async fn hold(&self, bytes: usize) -> Held {
        if let Some(held) = self.try_hold(bytes) {
            return held;
        }
        let _waiting = Waiting::enter(&self.0);
        match self.0.units.clone().acquire_many_owned(self.units_for(bytes)).await {
            Ok(permit) => Held { _permit: permit },
            // Nothing ever closes this semaphore.
            Err(_closed) => std::future::pending().await,
        }
    }

    /// `bytes` if they are free now and nobody waits.
    pub fn try_hold(&self, bytes: usize) -> Option<Held> {
        self.0.units.clone().try_acquire_many_owned(self.units_for(bytes)).ok().map(|permit| Held { _permit: permit })
    }

    /// Returns once somebody waits for bytes; at once if somebody does.
    pub async fn pressed(&self) {
        loop {
            let notified = self.0.pressed.notified();
            tokio::pin!(notified);
            // Registered before the count is looked at: one who starts to wait in between still wakes us.
            notified.as_mut().enable();
            if 0 < self.0.waiting_count.load(Ordering::SeqCst) {
                return;
            }
            notified.await;
        }
    }

    /// Bytes that nobody holds.
    pub fn free_bytes(&self) -> usize {
        self.0.units.available_permits() * UNIT_BYTES
    }

    /// All bytes of the budget.
    pub fn total_bytes(&self) -> usize {
        self.0.units_count * UNIT_BYTES
    }

    fn units_for(&self, bytes: usize) -> u32 {
        // At most `units_count`, which was bounded by u32 at construction.
        bytes.div_ceil(UNIT_BYTES).clamp(1, self.0.units_count) as u32
    }
}

/// Counts one who waits, also when its future is dropped.
struct Waiting<'a>(&'a Inner);

impl<'a> Waiting<'a> {
    fn enter(inner: &'a Inner) -> Waiting<'a> {
        inner.waiting_count.fetch_add(1, Ordering::SeqCst);
        inner.pressed.notify_waiters();
        Waiting(inner)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting_count.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::ByteBudget;

    #[tokio::test]
    async fn bytes_held_are_missing_until_they_are_dropped() {
        let budget = ByteBudget::new(8 * 1024);
        let held = budget.hold(5 * 1024 + 1).await;
        assert_eq!(budget.free_bytes(), 2 * 1024);
        assert!(budget.try_hold(3 * 1024).is_none());
        let mut waiting = Box::pin(budget.hold(3 * 1024));
        assert!(waiting.as_mut().now_or_never().is_none());
        budget.pressed().await;
        drop(held);
        drop(waiting.await);
        assert_eq!(budget.free_bytes(), budget.total_bytes());
        assert!(budget.pressed().now_or_never().is_none(), "nobody waits any more");
    }

    #[tokio::test]
    async fn more_than_everything_is_granted_when_nothing_else_is_held() {
        let budget = ByteBudget::new(1024);
        let all = budget.hold(1 << 30).await;
        assert!(budget.try_hold(1).is_none());
        drop(all);
        assert!(budget.try_hold(1).is_some());
    }

    #[tokio::test]
    async fn one_who_gives_up_waiting_presses_no_longer() {
        let budget = ByteBudget::new(1024);
        let _held = budget.hold(1024).await;
        {
            let mut waiting = Box::pin(budget.hold(1));
            assert!(waiting.as_mut().now_or_never().is_none());
        }
        assert!(budget.pressed().now_or_never().is_none());
    }
}
