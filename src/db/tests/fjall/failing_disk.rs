//! The real engine on a disk that fails or fills up, in one process: reads go on, what failed is gone, what was acknowledged stays.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{Node, ROWS, fast_dir, options};
use garage_db::{EngineError, FjallOptions, TransactError};

#[tokio::test]
async fn after_a_failed_write_the_store_is_opened_again_with_everything_acknowledged() {
    let dir = fast_dir();
    let node = Node::start(options(dir.path())).await;
    for number in 1..=20 {
        node.put(number, 10).await.unwrap();
        node.engine.fail_writes(usize::from(number % 5 == 0));
        if number % 5 == 0 {
            assert!(matches!(node.put(100 + number, 10).await, Err(TransactError::Engine(_))));
            assert_eq!(node.numbers().await.len() as u64, number, "reads go on, without what failed");
        }
    }
    let (store_id, commit_number) = (node.db.store_id(), node.db.commit_number());
    node.stop().await;
    let node = Node::start(options(dir.path())).await;
    assert_eq!((node.db.store_id(), node.db.commit_number(), node.db.recovering()), (store_id, commit_number, None));
    assert_eq!(node.numbers().await, (1..=20).collect::<Vec<_>>());
    node.stop().await;
}

#[tokio::test]
async fn a_reader_keeps_its_snapshot_while_the_store_waits_to_be_opened_again() {
    let dir = fast_dir();
    let node = Node::start(options(dir.path())).await;
    node.put(1, 10).await.unwrap();
    let snapshot = node.db.snapshot().unwrap();
    node.engine.fail_writes(1);
    node.put(2, 10).await.unwrap_err();
    let (db, key) = (node.db.clone(), 3u64.to_be_bytes());
    let next = tokio::spawn(async move {
        let done = db.transact(move |transaction| {
            transaction.put(ROWS, key.to_vec(), crate::support::row(3));
            transaction.put(crate::support::PAYLOADS, key.to_vec(), "payload");
            Ok::<_, EngineError>(())
        });
        done.await.map(|committed| committed.commit_number)
    });
    tokio::task::yield_now().await;
    assert!(snapshot.get(ROWS, &1u64.to_be_bytes()).unwrap().is_some());
    drop(snapshot);
    next.await.unwrap().unwrap();
    assert_eq!(node.numbers().await, [1, 3]);
    node.stop().await;
}

/// A small file system of its own, unmounted when dropped.
struct Mount(PathBuf);

impl Mount {
    fn new(path: &Path, size: &str) -> Option<Mount> {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(path).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Mount(path.to_path_buf())),
            other => {
                assert!(std::env::var_os("TESTS_MUST_MOUNT").is_none(), "no tmpfs of its own can be mounted here: {other:?}");
                println!("skipped: no tmpfs of its own can be mounted here ({other:?})");
                None
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: the store may still close its files.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Fills the file system; the file to remove for space.
fn fill(mount: &Path) -> PathBuf {
    let path = mount.join("filler");
    let mut file = std::fs::File::create(&path).unwrap();
    while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}
    path
}

#[tokio::test]
async fn below_the_reserve_writes_are_refused_and_reads_go_on_until_space_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mount) = Mount::new(dir.path(), "32m") else { return };
    let store = FjallOptions { min_free_bytes: 8 << 20, ..options(&mount.0.join("store")) };
    let node = Node::start(store).await;
    node.put(1, 10).await.unwrap();
    let filler = fill(&mount.0);
    for _ in 0..3 {
        let refused = node.put(2, 10).await;
        assert!(matches!(refused, Err(TransactError::StorageFull { needed_bytes, .. }) if needed_bytes == 8 << 20), "{refused:?}");
    }
    assert_eq!(node.numbers().await, [1]);
    std::fs::remove_file(filler).unwrap();
    node.put(3, 10).await.unwrap();
    assert_eq!(node.numbers().await, [1, 3]);
    node.stop().await;
}

#[tokio::test]
async fn a_disk_that_fills_up_within_a_write_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mount) = Mount::new(dir.path(), "24m") else { return };
    let store = mount.0.join("store");
    let node = Node::start(options(&store)).await;
    node.put(1, 10).await.unwrap();
    let filler = mount.0.join("filler");
    std::fs::write(&filler, vec![1; 12 << 20]).unwrap();
    let mut acknowledged = vec![1];
    let mut refused_count = 0;
    for number in 2..200 {
        match node.put(number, 200 << 10).await {
            Ok(_) => acknowledged.push(number),
            Err(TransactError::StorageFull { .. } | TransactError::Engine(_)) => refused_count += 1,
            Err(other) => panic!("{other}"),
        }
        if refused_count > 3 {
            break;
        }
    }
    assert!(refused_count > 3, "the disk was full");
    assert_eq!(node.numbers().await, acknowledged, "reads go on");
    std::fs::remove_file(filler).unwrap();
    node.put(1_000, 10).await.unwrap();
    acknowledged.push(1_000);
    assert_eq!(node.numbers().await, acknowledged);
    node.stop().await;
    let node = Node::start(options(&store)).await;
    assert_eq!((node.numbers().await, node.db.recovering()), (acknowledged, None));
    node.stop().await;
}
