//! Programs that tests and scripts run beside a cluster: a slow, lossy network and a load generator.
//!
//! Reading order: `proxy` (delay, loss and cuts in front of a UDP or TCP port; `bin/udp-proxy.rs` runs it) and `load` (signed S3 requests in
//! parallel, timed and verified; `bin/s3-load.rs` runs it), `chaos` (real nodes under both, and under faults; `bin/chaos.rs` runs it).
//! Nothing that a node runs imports this crate.

pub mod chaos;
pub mod load;
pub mod proxy;
