//! A disk without space: writes are refused in so many words, reads go on, and space that comes back is used.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use bytes::Bytes;
use http::Method;
use tempfile::TempDir;

use crate::support::{
    self,
    client::S3,
    cluster::{BUCKET, rpc_secret, single},
    process::Settings,
    wait::until,
};

/// Writes until a disk must be full.
const WRITES_MAX: usize = 4_000;

/// A small file system in memory, unmounted at the end.
struct Disk(PathBuf);

impl Disk {
    /// `None`, with the reason printed, where mounting is not allowed.
    fn mount(at: PathBuf, size_mib: u32) -> Option<Disk> {
        fs::create_dir_all(&at).unwrap();
        let options = format!("size={size_mib}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&at).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Disk(at)),
            other => {
                assert!(std::env::var_os("TESTS_MUST_MOUNT").is_none(), "a full disk needs the right to mount one: {other:?}");
                eprintln!("skipped: a full disk needs the right to mount one: {other:?}");
                None
            }
        }
    }

    /// Takes space away until `free_bytes` are left.
    fn take_all_but(&self, free_bytes: u64) {
        let space = nix::sys::statvfs::statvfs(&self.0).unwrap();
        let free = space.blocks_available() as u64 * space.fragment_size() as u64;
        fs::write(self.ballast(), vec![0; free.saturating_sub(free_bytes) as usize]).unwrap();
    }

    fn give_back(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn settings(dir: &Path, metadata_dir: PathBuf, data_dir: PathBuf) -> Settings {
    Settings { metadata_dir, data_dir, more: "metadata_min_free = \"4MiB\"".into(), ..Settings::new(dir, &rpc_secret()) }
}

/// Fills the disk through S3, sees what is promised, gives space back, and writes again.
async fn fill_and_recover(s3: &S3, disk: &Disk, size: usize) {
    let first = format!("/{BUCKET}/first");
    s3.put(&first, vec![1; size]).await.ok();
    disk.take_all_but(8 << 20);
    let mut stored_count = 0;
    let refused = loop {
        assert!(stored_count < WRITES_MAX, "the disk is never full");
        // Nothing that compresses.
        let body: Vec<u8> = (0..size).map(|_| rand::random()).collect();
        let answer = s3.put(&format!("/{BUCKET}/{stored_count}"), body).await;
        if answer.status != 200 {
            break answer;
        }
        stored_count += 1;
    };
    assert_eq!((refused.status, refused.code().as_str()), (507, "InsufficientStorage"), "{}", refused.text());
    assert!(refused.text().contains("space"), "{}", refused.text());
    assert_eq!(s3.get(&first).await.ok().body, vec![1; size]);
    for index in 0..stored_count {
        assert_eq!(s3.get(&format!("/{BUCKET}/{index}")).await.ok().body.len(), size);
    }
    assert_eq!(s3.head(&format!("/{BUCKET}/{stored_count}")).await, 404, "what was refused is not there");

    disk.give_back();
    let after = format!("/{BUCKET}/after");
    until("writes to go on", async || {
        let answer = s3.attempt(Method::PUT, &after, &[], Bytes::from(vec![2; size])).await.unwrap();
        (answer.status == 200).then_some(())
    })
    .await;
    assert_eq!(s3.get(&after).await.ok().body, vec![2; size]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_metadata_disk_refuses_writes_and_recovers_with_space() {
    let _turn = support::turn().await;
    let dir = TempDir::new().unwrap();
    let Some(disk) = Disk::mount(dir.path().join("meta-disk"), 160) else { return };
    let (mut node, credentials) = single(settings(dir.path(), disk.0.join("meta"), dir.path().join("data")), dir.path().to_owned());
    node.start().await;
    fill_and_recover(&S3::new(node.s3_address(), credentials.clone()), &disk, 9_000).await;
    // And the store is sound.
    node.kill().await;
    node.start().await;
    S3::new(node.s3_address(), credentials).get(&format!("/{BUCKET}/after")).await.ok();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_data_disk_refuses_writes_and_recovers_with_space() {
    let _turn = support::turn().await;
    let dir = TempDir::new().unwrap();
    let Some(disk) = Disk::mount(dir.path().join("data-disk"), 48) else { return };
    let (mut node, credentials) = single(settings(dir.path(), dir.path().join("meta"), disk.0.join("data")), dir.path().to_owned());
    node.start().await;
    fill_and_recover(&S3::new(node.s3_address(), credentials), &disk, 2_500_000).await;
    node.stop().await;
}

/// Blocks must not take the space in which their objects could still be deleted.
#[tokio::test(flavor = "multi_thread")]
async fn objects_are_deleted_where_blocks_have_filled_the_disk_of_the_metadata() {
    let _turn = support::turn().await;
    let dir = TempDir::new().unwrap();
    let Some(disk) = Disk::mount(dir.path().join("disk"), 480) else { return };
    let more = "metadata_min_free = \"64MiB\"".to_string();
    let settings = Settings { more, ..settings(dir.path(), disk.0.join("meta"), disk.0.join("data")) };
    let (mut node, credentials) = single(settings, dir.path().to_owned());
    node.start().await;
    let s3 = S3::new(node.s3_address(), credentials);
    let mut stored_count = 0;
    loop {
        assert!(stored_count < WRITES_MAX, "the disk is never full");
        let body: Vec<u8> = (0..2_500_000).map(|_| rand::random()).collect();
        let answer = s3.put(&format!("/{BUCKET}/{stored_count}"), body).await;
        if answer.status != 200 {
            assert_eq!((answer.status, answer.code().as_str()), (507, "InsufficientStorage"), "{}", answer.text());
            break;
        }
        stored_count += 1;
    }
    for index in 0..stored_count {
        let path = format!("/{BUCKET}/{index}");
        assert_eq!(s3.attempt(Method::DELETE, &path, &[], Bytes::new()).await.unwrap().status, 204);
        assert_eq!(s3.head(&path).await, 404);
    }
    node.stop().await;
}
