//! Files survive or are refused as the store promises, on real directories and on a disk with planned faults.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use garage_util::{
    disk::{Disk, RealDisk, Space},
    runtime::Runtime,
};
use parking_lot::Mutex;

use super::{BlockStore, Checked, DataDirOptions, DirUsage, LocalReadError, StoreError, StoreOptions, Stored, paths::block_file};
use crate::{
    encoding::{Compression, EncodedBlock, Encoding},
    hash::BlockHash,
};

/// A real disk that notes what is synced and refuses what a test plans.
#[derive(Default)]
struct PlannedDisk {
    full: Mutex<Vec<PathBuf>>,
    broken: Mutex<Vec<PathBuf>>,
    synced_dirs: Mutex<Vec<PathBuf>>,
}

impl PlannedDisk {
    fn check(&self, path: &Path) -> io::Result<()> {
        let under = |dirs: &Mutex<Vec<PathBuf>>| dirs.lock().iter().any(|dir| path.starts_with(dir));
        match (under(&self.full), under(&self.broken)) {
            (true, _) => Err(io::ErrorKind::StorageFull.into()),
            (_, true) => Err(io::Error::other("planned")),
            _ => Ok(()),
        }
    }
}

impl Disk for PlannedDisk {
    fn write_new(&self, path: &Path, content: &[u8], synced: bool) -> io::Result<()> {
        // What a disk that fills up does: a part of the file is there.
        let refused = self.check(path);
        RealDisk.write_new(path, if refused.is_ok() { content } else { &content[..content.len() / 2] }, synced)?;
        refused
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.synced_dirs.lock().push(dir.to_owned());
        RealDisk.sync_dir(dir)
    }
    fn read(&self, path: &Path, limit_bytes: u64) -> io::Result<Vec<u8>> {
        if self.broken.lock().iter().any(|dir| path.starts_with(dir)) {
            return Err(io::Error::other("planned"));
        }
        RealDisk.read(path, limit_bytes)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn len(&self, path: &Path) -> io::Result<Option<u64>> {
        RealDisk.len(path)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.create_dir(dir)
    }
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        RealDisk.list(dir)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        RealDisk.space(path)
    }
}

struct Fixture {
    root: tempfile::TempDir,
    disk: Arc<PlannedDisk>,
    store: BlockStore,
}

impl Fixture {
    async fn open(dirs: &[&str]) -> Fixture {
        let root = tempfile::tempdir().unwrap();
        let disk = Arc::new(PlannedDisk::default());
        let store = open_in(root.path(), dirs, disk.clone()).await;
        Fixture { root, disk, store }
    }
    fn dir(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }
    async fn put(&self, content: &Bytes, compression: Compression) -> Result<Stored, StoreError> {
        let hash = BlockHash::of(content);
        let lock = self.store.lock([hash]).await;
        self.store.put(hash, EncodedBlock::encode(content.clone(), compression), &lock).await
    }
    /// The one file of a block, wherever it is.
    fn file_of(&self, hash: BlockHash, dirs: &[&str]) -> PathBuf {
        let places =
            dirs.iter().flat_map(|dir| [Encoding::Plain, Encoding::Zstd].map(|encoding| block_file(&self.dir(dir), hash, encoding)));
        let files: Vec<PathBuf> = places.filter(|path| path.is_file()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        files[0].clone()
    }
}

async fn open_in(root: &Path, dirs: &[&str], disk: Arc<dyn Disk>) -> BlockStore {
    let (runtime, _tasks) = Runtime::real();
    let usage = DirUsage::Writable { capacity_bytes: 1 };
    let mut options = StoreOptions::new(root.join("unused"), root.join("data_layout"));
    options.dirs = dirs.iter().map(|dir| DataDirOptions { path: root.join(dir), usage, reserve_bytes: 0 }).collect();
    options.min_free_bytes = 0;
    BlockStore::open(&runtime, disk, options).await.unwrap()
}

fn content(seed: u32, len_bytes: usize) -> Bytes {
    let mut bytes = vec![0; len_bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}

#[tokio::test]
async fn a_block_outlives_the_store_in_either_form() {
    let fixture = Fixture::open(&["a"]).await;
    let blocks = [content(1, 100_000), Bytes::from(vec![7; 100_000]), Bytes::new()];
    for block in &blocks {
        assert_eq!(fixture.put(block, Compression::WherePays(1)).await.unwrap(), Stored::Written);
        assert_eq!(fixture.put(block, Compression::Never).await.unwrap(), Stored::AlreadyHere);
    }
    assert!(fixture.file_of(BlockHash::of(&blocks[1]), &["a"]).extension().is_some_and(|suffix| suffix == "zst"));
    let again = open_in(fixture.root.path(), &["a"], Arc::new(RealDisk)).await;
    for block in &blocks {
        assert_eq!(again.get(BlockHash::of(block)).await.unwrap(), block);
    }
    assert_eq!(std::fs::read_dir(fixture.dir("a/garage-tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn the_directories_of_an_answered_block_are_synced() {
    let fixture = Fixture::open(&["a"]).await;
    fixture.disk.synced_dirs.lock().clear();
    let block = content(1, 10);
    fixture.put(&block, Compression::Never).await.unwrap();
    let mut synced = std::mem::take(&mut *fixture.disk.synced_dirs.lock());
    synced.sort();
    let lower = fixture.file_of(BlockHash::of(&block), &["a"]).parent().unwrap().to_owned();
    assert_eq!(synced, [fixture.dir("a"), lower.parent().unwrap().to_owned(), lower.clone()]);
    fixture.put(&block, Compression::Never).await.unwrap();
    assert_eq!(*fixture.disk.synced_dirs.lock(), [lower], "a copy that was here is made durable before it counts");
}

#[tokio::test]
async fn many_writers_at_once_lose_nothing() {
    let fixture = Fixture::open(&["a", "b"]).await;
    let blocks: Vec<Bytes> = (0..64).map(|seed| content(seed % 16, 1_000)).collect();
    let written = futures::future::try_join_all(blocks.iter().map(|block| fixture.put(block, Compression::Never))).await.unwrap();
    assert_eq!(written.iter().filter(|stored| **stored == Stored::Written).count(), 16, "each block once");
    for block in &blocks {
        assert_eq!(fixture.store.get(BlockHash::of(block)).await.unwrap(), block);
    }
}

#[tokio::test]
async fn a_corrupt_copy_is_set_aside_and_a_new_upload_mends_it() {
    for (compression, damage) in
        [(Compression::Never, "flip"), (Compression::WherePays(1), "flip"), (Compression::Never, "cut"), (Compression::Never, "empty")]
    {
        let fixture = Fixture::open(&["a"]).await;
        let block = Bytes::from(content(3, 1_000).repeat(20));
        let hash = BlockHash::of(&block);
        fixture.put(&block, compression).await.unwrap();
        let file = fixture.file_of(hash, &["a"]);
        let mut bytes = std::fs::read(&file).unwrap();
        match damage {
            "flip" => {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
            }
            "cut" => bytes.truncate(4_096),
            _ => bytes.clear(),
        }
        std::fs::write(&file, &bytes).unwrap();
        assert!(matches!(fixture.store.get(hash).await, Err(LocalReadError::Corrupt(_))), "{damage}");
        assert!(matches!(fixture.store.get(hash).await, Err(LocalReadError::Missing { .. })), "{damage}");
        let aside = PathBuf::from(format!("{}.corrupted", file.display()));
        assert_eq!(std::fs::read(&aside).unwrap(), bytes, "kept for a person to look at");
        assert_eq!(fixture.put(&block, compression).await.unwrap(), Stored::Written);
        assert_eq!(fixture.store.get(hash).await.unwrap(), block);
    }
}

#[tokio::test]
async fn an_upload_over_rot_nobody_has_read_yet_mends_it() {
    let fixture = Fixture::open(&["a"]).await;
    let block = content(3, 1_000);
    let hash = BlockHash::of(&block);
    fixture.put(&block, Compression::Never).await.unwrap();
    std::fs::write(fixture.file_of(hash, &["a"]), b"rot").unwrap();
    assert_eq!(fixture.put(&block, Compression::Never).await.unwrap(), Stored::Written);
    assert_eq!(fixture.store.get(hash).await.unwrap(), block);
    assert_eq!(fixture.store.check(hash).await.unwrap(), Checked::Good);
}

#[tokio::test]
async fn a_file_longer_than_any_block_is_no_copy_and_takes_no_memory() {
    let fixture = Fixture::open(&["a"]).await;
    let block = content(3, 1_000);
    let hash = BlockHash::of(&block);
    fixture.put(&block, Compression::Never).await.unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(fixture.file_of(hash, &["a"])).unwrap();
    file.set_len(crate::limits::BLOCK_LEN_MAX_BYTES as u64 + 1).unwrap();
    assert!(matches!(fixture.store.get(hash).await, Err(LocalReadError::Missing { .. })));
    assert_eq!(fixture.store.check(hash).await.unwrap(), Checked::SetAside);
}

#[tokio::test]
async fn a_full_or_broken_directory_passes_its_blocks_to_the_other() {
    let fixture = Fixture::open(&["a", "b"]).await;
    fixture.disk.full.lock().push(fixture.dir("a"));
    for seed in 0..8 {
        fixture.put(&content(seed, 100), Compression::Never).await.unwrap();
    }
    fixture.disk.full.lock().clear();
    fixture.disk.broken.lock().push(fixture.dir("a"));
    for seed in 0..16 {
        fixture.put(&content(seed, 100), Compression::Never).await.unwrap();
        assert_eq!(fixture.store.get(BlockHash::of(&content(seed, 100))).await.unwrap(), content(seed, 100));
    }
    assert_eq!(std::fs::read_dir(fixture.dir("a/garage-tmp")).unwrap().count(), 0, "halves are removed at once");
}

#[tokio::test]
async fn no_room_is_an_error_of_its_own_and_writing_resumes_when_there_is_room() {
    let fixture = Fixture::open(&["a", "b"]).await;
    fixture.disk.full.lock().extend([fixture.dir("a"), fixture.dir("b")]);
    let block = content(1, 100);
    assert!(matches!(fixture.put(&block, Compression::Never).await, Err(StoreError::StorageFull { needed_bytes: 100 })));
    assert!(matches!(fixture.store.get(BlockHash::of(&block)).await, Err(LocalReadError::Missing { .. })));
    fixture.disk.full.lock().clear();
    fixture.put(&block, Compression::Never).await.unwrap();
}

#[tokio::test]
async fn the_reserve_is_kept_free() {
    let root = tempfile::tempdir().unwrap();
    let (runtime, _tasks) = Runtime::real();
    let mut options = StoreOptions::new(root.path().join("a"), root.path().join("data_layout"));
    options.dirs[0].reserve_bytes = u64::MAX / 2;
    let store = BlockStore::open(&runtime, Arc::new(RealDisk), options).await.unwrap();
    let hash = BlockHash::of(b"x");
    let lock = store.lock([hash]).await;
    let refused = store.put(hash, EncodedBlock::plain(Bytes::from_static(b"x")), &lock).await;
    assert!(matches!(refused, Err(StoreError::StorageFull { .. })));
}

/// Needs a small file system of its own: `script/test` gives the right to mount one and sets `TESTS_MUST_MOUNT`; without either it is skipped.
#[tokio::test]
async fn a_full_tmpfs_refuses_and_recovers() {
    let root = tempfile::tempdir().unwrap();
    let target = root.path().join("small");
    std::fs::create_dir(&target).unwrap();
    let mounted = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&target).output();
    if !mounted.as_ref().is_ok_and(|output| output.status.success()) {
        assert!(std::env::var_os("TESTS_MUST_MOUNT").is_none(), "no tmpfs of its own can be mounted here: {mounted:?}");
        return;
    }
    let outcome = fill_and_recover(root.path()).await;
    let unmounted = std::process::Command::new("umount").arg(&target).status();
    assert!(unmounted.is_ok_and(|status| status.success()));
    outcome.unwrap();
}

async fn fill_and_recover(root: &Path) -> Result<(), String> {
    let store = open_in(root, &["small"], Arc::new(RealDisk)).await;
    let mut kept = Vec::new();
    for seed in 0..64 {
        let block = content(seed, 64 * 1024);
        let hash = BlockHash::of(&block);
        let lock = store.lock([hash]).await;
        match store.put(hash, EncodedBlock::plain(block.clone()), &lock).await {
            Ok(_) => kept.push((hash, block)),
            Err(StoreError::StorageFull { .. }) => break,
            Err(other) => return Err(format!("{other:?}")),
        }
    }
    if kept.is_empty() || kept.len() == 64 {
        return Err(format!("{} blocks of 64 KiB fitted into 1 MiB", kept.len()));
    }
    for (hash, block) in &kept {
        if store.get(*hash).await.map_err(|error| error.to_string())? != block {
            return Err("a read on a full disk gave other bytes".into());
        }
    }
    let (freed, block) = kept.remove(0);
    std::fs::remove_file(block_file(&root.join("small"), freed, Encoding::Plain)).map_err(|error| error.to_string())?;
    let lock = store.lock([freed]).await;
    store.put(freed, EncodedBlock::plain(block), &lock).await.map(drop).map_err(|error| error.to_string())
}
