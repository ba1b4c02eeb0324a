//! Every limit of the website front, with its unit and what happens when it is reached.

use std::time::Duration;

/// How long the steps before an answer's first byte may take. Longer: 503.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an answer may stream; a client that takes nothing is given up much earlier (`WRITE_STALL_TIMEOUT`).
pub const STREAM_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// Hosts that have metrics of their own with `add_host_to_metrics`. More: they share the label `other`.
pub const METRIC_HOSTS_MAX: usize = 1000;
