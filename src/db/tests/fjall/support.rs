//! Stores on real file systems, opened and killed.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use garage_db::{Db, DbOptions, Direction, EngineError, FjallEngine, FjallOptions, Keyspace, KeyspaceSpec, OpenError, TransactError};
use garage_util::runtime::{RealTasks, Runtime};

pub const SPECS: [KeyspaceSpec; 2] =
    [KeyspaceSpec { name: "rows", large_values: false }, KeyspaceSpec { name: "payloads", large_values: true }];
pub const ROWS: Keyspace = Keyspace(0);
pub const PAYLOADS: Keyspace = Keyspace(1);

/// One life of a process over a store.
pub struct Node {
    pub db: Db,
    pub engine: Arc<FjallEngine>,
    tasks: RealTasks,
}

pub fn options(path: &Path) -> FjallOptions {
    FjallOptions { min_free_bytes: 0, block_cache_bytes: 1 << 20, ..FjallOptions::new(path, &SPECS) }
}

impl Node {
    pub async fn try_start(options: FjallOptions) -> Result<Node, OpenError> {
        let (runtime, tasks) = Runtime::real();
        let engine = Arc::new(FjallEngine::new(options));
        let db = Db::open(&runtime, engine.clone(), DbOptions::default()).await?;
        Ok(Node { db, engine, tasks })
    }

    pub async fn start(options: FjallOptions) -> Node {
        Node::try_start(options).await.unwrap()
    }

    /// Ends the process without closing the store.
    pub async fn stop(self) {
        assert!(self.tasks.stop(Duration::from_secs(10)).await);
    }

    pub async fn put(&self, number: u64, payload_bytes: usize) -> Result<u64, TransactError<EngineError>> {
        let done = self.db.transact(move |transaction| {
            transaction.put(ROWS, number.to_be_bytes().to_vec(), row(number));
            transaction.put(PAYLOADS, number.to_be_bytes().to_vec(), vec![number as u8; payload_bytes]);
            Ok(())
        });
        done.await.map(|committed| committed.commit_number)
    }

    /// The numbers of all rows, each with the value it was given.
    pub async fn numbers(&self) -> Vec<u64> {
        let read = self.db.read(|snapshot| {
            let rows = snapshot.prefix(ROWS, b"", Direction::Forward).map(|row| row.unwrap());
            let number = |(key, value): (bytes::Bytes, bytes::Bytes)| {
                let number = u64::from_be_bytes(key.as_ref().try_into().unwrap());
                assert_eq!(value, row(number));
                assert!(snapshot.get(PAYLOADS, &key).unwrap().is_some(), "rows of one commit come together");
                number
            };
            rows.map(number).collect()
        });
        read.await.unwrap()
    }
}

pub fn row(number: u64) -> Vec<u8> {
    format!("row {number} ").repeat(10).into_bytes()
}

/// A place where syncing costs nothing, so that sweeps are quick.
pub fn fast_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Of the space that a journal reserves, this much is kept in a copy: enough to be there, little enough to be quick.
const RESERVED_BYTES: usize = 8192;

/// Copies a directory as a killed process leaves it.
pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            let mut bytes = std::fs::read(entry.path()).unwrap();
            let used_bytes = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            bytes.truncate(used_bytes + RESERVED_BYTES);
            std::fs::write(&target, bytes).unwrap();
        }
    }
}

/// The newest journal of a store, and its bytes in use.
pub fn journal(store: &Path) -> (PathBuf, Vec<u8>) {
    let entries = std::fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path());
    let path = entries.filter(|path| path.extension().is_some_and(|extension| extension == "jnl")).max().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.truncate(bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1));
    (path, bytes)
}
