//! Whole clusters in one thread: the real model, table, block and rpc code on a virtual clock, over a simulated network and simulated
//! disks, from one seed. Only tests depend on this crate.
//!
//! Reading order: `seed` (all randomness), `network` (delay, loss, cuts), `disk` (what a crash leaves), `surroundings` (a node's clock,
//! randomness, tasks), `trace`, `cluster` (nodes that start, crash and come back); then whole histories: `content` (what is written),
//! `history` (what is asked and answered), `client` and `multipart` (who asks), `faults`, `operator`, `check`, `replica` and `blocks` (what must hold),
//! `workload` (all of it together).
//!
//! Determinism: one thread, tokio's paused clock, one seed, and no iteration order that depends on a random hasher. Run everything
//! inside [`run`].

pub mod blocks;
pub mod check;
pub mod client;
pub mod cluster;
pub mod content;
pub mod disk;
pub mod faults;
pub mod history;
mod multipart;
pub mod network;
pub mod operator;
mod replica;
pub mod seed;
pub mod surroundings;
pub mod trace;
pub mod workload;

/// Runs a simulation to its end on a runtime of its own: one thread, virtual time.
pub fn run<T>(simulation: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without threads and sockets needs nothing that can be missing").block_on(simulation)
}
