//! A snapshot is a whole store that a node can be started on, and that does not pass for the one it was copied from.

use std::{path::Path, sync::Arc};

use garage_db::{
    Db, DbOptions, Engine, FjallEngine, FjallOptions, Keyspace, KeyspaceSpec,
    snapshots::{SnapshotDir, SnapshotError},
};
use garage_util::runtime::Runtime;

const SPECS: &[KeyspaceSpec] =
    &[KeyspaceSpec { name: "rows", large_values: false }, KeyspaceSpec { name: "companions", large_values: true }];

fn engine(path: &Path) -> Arc<dyn Engine> {
    Arc::new(FjallEngine::new(FjallOptions { min_free_bytes: 0, ..FjallOptions::new(path, SPECS) }))
}

fn snapshots(path: &Path) -> SnapshotDir {
    SnapshotDir { path: path.to_owned(), keep_count: 2, make_engine: Arc::new(|path| engine(&path)) }
}

async fn open(runtime: &Runtime, path: &Path) -> Db {
    Db::open(runtime, engine(path), DbOptions::default()).await.unwrap()
}

async fn put(db: &Db, key: u32) {
    let put = db.transact(move |transaction| {
        transaction.put(Keyspace(0), key.to_be_bytes().to_vec(), vec![7; 100]);
        transaction.put(Keyspace(1), key.to_be_bytes().to_vec(), vec![8; 20_000]);
        Ok::<(), String>(())
    });
    put.await.unwrap();
}

#[tokio::test]
async fn a_node_starts_on_a_snapshot_with_all_that_was_there_and_knows_that_it_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let (runtime, _tasks) = Runtime::real();
    let db = open(&runtime, &dir.path().join("db")).await;
    for key in 0..500 {
        put(&db, key).await;
    }
    let source = db.snapshot().unwrap();
    put(&db, 1_000).await;
    let name = "2026-01-02T03:04:05Z";
    let dir_of = snapshots(&dir.path().join("snapshots"));
    let taken = dir_of.take(&*source, SPECS.len() as u8, name, garage_db::StoreId::random(&runtime)).unwrap();
    assert!(matches!(dir_of.take(&*source, 2, name, garage_db::StoreId::random(&runtime)), Err(SnapshotError::Exists { .. })));

    let restored = open(&runtime, &taken).await;
    assert_ne!(restored.store_id(), db.store_id());
    assert_eq!(restored.recovering().unwrap().to_string(), format!("restored from the snapshot of {name}"));
    for key in [0u32, 250, 499] {
        let got = restored.read(move |snapshot| {
            let get = |keyspace| snapshot.get(Keyspace(keyspace), &key.to_be_bytes()).unwrap().map(|value| value.len());
            (get(0), get(1))
        });
        assert_eq!(got.await.unwrap(), (Some(100), Some(20_000)), "key {key}");
    }
    let later = restored.read(|snapshot| snapshot.get(Keyspace(0), &1_000u32.to_be_bytes()).unwrap()).await.unwrap();
    assert_eq!(later, None, "what came after the snapshot is not in it");
}

#[tokio::test]
async fn the_oldest_snapshots_go_and_whatever_else_lies_there_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (runtime, _tasks) = Runtime::real();
    let db = open(&runtime, &dir.path().join("db")).await;
    put(&db, 1).await;
    let dir_of = snapshots(&dir.path().join("snapshots"));
    std::fs::create_dir_all(dir_of.path.join("by-hand")).unwrap();
    for second in 1..=4 {
        let source = db.snapshot().unwrap();
        dir_of.take(&*source, 2, &format!("2026-01-02T03:04:0{second}Z"), garage_db::StoreId::random(&runtime)).unwrap();
    }
    let names: Vec<String> = dir_of.list().unwrap().iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(names, ["2026-01-02T03:04:03Z", "2026-01-02T03:04:04Z"]);
    assert!(dir_of.path.join("by-hand").exists());
}
