//! The local ordered key-value store of a node: named keyspaces, snapshots, atomic and durable commits, gathered into groups.
//!
//! Reading order: `engine` (what a storage engine promises), `db` (the handle other crates use), `transaction` (what an operation sees),
//! `committer` (how waiting operations become one synced batch), `mark` (the note beside the store of how far it had come).
//! Engines: `fjall_engine` on real disks, with `journal` checking its log before it is trusted; `memory` for simulation and tests.
//!
//! Promises, each with a test:
//! - an acknowledged commit is on stable storage, and a store that lost one says so instead of answering from what is left;
//! - an operation that fails leaves no trace; operations take effect in the order they were accepted;
//! - a full disk refuses writes and keeps answering reads; a store that cannot be trusted is moved aside, never deleted.

mod committer;
mod db;
pub mod engine;
pub mod fjall_engine;
mod journal;
mod lease;
pub mod limits;
mod mark;
pub mod memory;
pub mod snapshots;
mod store_dir;
mod transaction;

pub use committer::{Committed, TransactError};
pub use db::{Db, DbError, DbOptions, OpenError, Reason};
pub use engine::{Change, Direction, Durability, Engine, EngineError, Keyspace, KeyspaceSpec, Snapshot, WriteBatch};
pub use fjall_engine::{FjallEngine, FjallOptions};
pub use mark::{Mark, StoreId};
pub use memory::MemoryEngine;
pub use transaction::Transaction;
