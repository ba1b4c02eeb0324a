//! Tells any number of tasks that something has changed, in the order in which they began to wait.
//!
//! `tokio::sync::watch` wakes those who wait in random order: two runs of one simulation would part there.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::sync::Notify;

#[derive(Default)]
struct Shared {
    /// How often it has changed.
    count: AtomicU64,
    /// Nothing will change any more.
    is_over: AtomicBool,
    wakes: Notify,
}

/// Where changes are told. What it tells of ends with it.
#[derive(Default)]
pub struct Changes(Arc<Shared>);

impl Changes {
    /// Nothing has changed yet.
    pub fn new() -> Changes {
        Changes::default()
    }
    /// It has changed: wakes everyone who waits.
    pub fn tell(&self) {
        self.0.count.fetch_add(1, Ordering::Release);
        self.0.wakes.notify_waiters();
    }
    /// Someone who sees all changes from now on.
    pub fn watch(&self) -> Watcher {
        Watcher { seen_count: self.0.count.load(Ordering::Acquire), shared: self.0.clone() }
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Release);
        self.0.wakes.notify_waiters();
    }
}

/// There will be no more changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Over;

/// Who waits for changes. Several that come before it looks count as one.
pub struct Watcher {
    shared: Arc<Shared>,
    seen_count: u64,
}

impl Watcher {
    /// Waits for a change that was not seen yet. A wait that is given up has seen nothing.
    pub async fn changed(&mut self) -> Result<(), Over> {
        let shared = self.shared.clone();
        loop {
            // In line before the look, so that no change falls in between.
            let mut woken = std::pin::pin!(shared.wakes.notified());
            woken.as_mut().enable();
            if self.has_changed() {
                self.mark_unchanged();
                return Ok(());
            }
            if shared.is_over.load(Ordering::Acquire) {
                return Err(Over);
            }
            woken.await;
        }
    }
    /// Takes all changes until now as seen.
    pub fn mark_unchanged(&mut self) {
        self.seen_count = self.shared.count.load(Ordering::Acquire);
    }
    fn has_changed(&self) -> bool {
        self.seen_count != self.shared.count.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::{Changes, Over};

    /// Sixteen: with `watch`, one order in more than four million million would be this one.
    const WATCHERS_COUNT: usize = 16;

    #[tokio::test]
    async fn those_who_wait_are_woken_in_the_order_in_which_they_came() {
        let (changes, woken) = (Changes::new(), Arc::new(Mutex::new(Vec::new())));
        let mut tasks = Vec::new();
        for number in 0..WATCHERS_COUNT {
            let (mut watcher, woken) = (changes.watch(), woken.clone());
            tasks.push(tokio::spawn(async move {
                watcher.changed().await.unwrap();
                woken.lock().push(number);
            }));
        }
        tokio::task::yield_now().await;
        changes.tell();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*woken.lock(), (0..WATCHERS_COUNT).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_change_is_seen_once_by_each_and_the_end_by_all() {
        let changes = Changes::new();
        changes.tell();
        let (mut early, mut late) = (changes.watch(), changes.watch());
        changes.tell();
        changes.tell();
        assert_eq!(early.changed().await, Ok(()), "it came before the wait");
        late.mark_unchanged();
        drop(changes);
        assert_eq!((early.changed().await, late.changed().await), (Err(Over), Err(Over)));
    }
}
