//! Limits of the server process.

use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Threads for blocking work at the most; the lanes of `garage_util::runtime` keep well below.
pub(super) const BLOCKING_THREADS_MAX: usize = 128;
/// How long background tasks may take to end.
pub(super) const TASKS_PATIENCE: Duration = Duration::from_secs(3);
/// How long blocking threads may take to end.
pub(super) const THREADS_PATIENCE: Duration = Duration::from_secs(2);
/// How long calls of other nodes may take to end.
pub(super) const TRANSPORT_PATIENCE: Duration = Duration::from_secs(3);

/// Raises the limit on open files to what the system allows: every connection and block file is one.
pub(super) fn raise_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit on open files stays as it is");
    }
}
/// Block cache of a snapshot's store while it is written, in bytes.
pub const SNAPSHOT_CACHE_BYTES: u64 = 8 << 20;
