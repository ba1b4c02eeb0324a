//! What every crate needs and no crate owns: ids, hybrid time, the runtime seams (clock, randomness, tasks, disk), encodings, config, background workers.
//!
//! Reading order: `runtime` (how code reaches the outside world), `hlc` (stamps), `id`, `encoding`, `disk`, `config`, `workers`.
//! This crate knows no word of the domain: no node, bucket or block.

pub mod changes;
pub mod config;
pub mod disk;
pub mod encoding;
pub mod hlc;
pub mod id;
pub mod runtime;
pub mod workers;
