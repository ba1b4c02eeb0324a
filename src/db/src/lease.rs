//! Counts who still uses something, so that it can be closed once nobody does.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

/// How many leases are out.
#[derive(Default)]
pub(crate) struct Leases {
    count: Mutex<usize>,
    returned: Condvar,
}

/// Given back when dropped.
pub(crate) struct Lease(Arc<Leases>);

impl Leases {
    pub(crate) fn take(leases: &Arc<Leases>) -> Lease {
        *leases.count.lock() += 1;
        Lease(leases.clone())
    }

    pub(crate) fn count(&self) -> usize {
        *self.count.lock()
    }

    /// Waits until no lease is out. False: some still were after `patience`.
    pub(crate) fn wait_for_none(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut count = self.count.lock();
        while *count > 0 {
            if self.returned.wait_until(&mut count, deadline).timed_out() {
                return *count == 0;
            }
        }
        true
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut count = self.0.count.lock();
        *count -= 1;
        if *count == 0 {
            self.0.returned.notify_all();
        }
    }
}
