//! What happened in a simulation, in order: equal for equal seeds, byte by byte.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A growing record. Cheap to clone; off until [`Trace::record`].
#[derive(Clone)]
pub struct Trace {
    begun: Instant,
    lines: Arc<Mutex<Option<Vec<String>>>>,
}

impl Trace {
    /// A trace that records nothing yet.
    pub fn new() -> Trace {
        Trace { begun: Instant::now(), lines: Arc::default() }
    }
    /// Records from now on.
    pub fn record(&self) {
        self.lines.lock().get_or_insert_default();
    }
    /// Adds a line, with the virtual time since the beginning in microseconds.
    pub fn line(&self, text: impl FnOnce() -> String) {
        if let Some(lines) = &mut *self.lines.lock() {
            lines.push(format!("{:>10} {}", self.begun.elapsed().as_micros(), text()));
        }
    }
    /// All lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().clone().unwrap_or_default()
    }
}

impl Default for Trace {
    fn default() -> Self {
        Trace::new()
    }
}
