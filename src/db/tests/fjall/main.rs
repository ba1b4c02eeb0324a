//! The real engine, killed, harmed and starved.

mod damaged_store;
mod failing_disk;
mod support;
