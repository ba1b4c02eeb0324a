//! What surrounds one node in a test: clock, randomness, tasks and a disk that outlives the node.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use futures::future::BoxFuture;
use garage_net::NodeId;
use garage_util::{
    disk::{Disk, Space},
    runtime::{Clock, Interrupted, Lane, Random, Runtime, Spawn},
};
use parking_lot::Mutex;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::state::StateFiles;

/// A node's surroundings.
pub struct TestNode {
    node: NodeId,
    clock: Arc<TestClock>,
    random: Arc<TestRandom>,
    disk: Arc<MemoryDisk>,
    stopping: Mutex<CancellationToken>,
}

impl TestNode {
    /// The surroundings of the node whose id is `number`, 32 times.
    pub fn new(number: u8) -> TestNode {
        TestNode {
            node: NodeId([number; 32]),
            clock: Arc::new(TestClock { base_ms: AtomicU64::new(1_700_000_000_000), started: Instant::now() }),
            random: Arc::new(TestRandom(Mutex::new(ChaCha8Rng::seed_from_u64(u64::from(number))))),
            disk: Arc::default(),
            stopping: Mutex::new(CancellationToken::new()),
        }
    }
    /// Its id.
    pub fn id(&self) -> NodeId {
        self.node
    }
    /// Its runtime until the next [`TestNode::stop`].
    pub fn runtime(&self) -> Runtime {
        let stopping = self.stopping.lock().clone();
        Runtime::new(self.clock.clone(), self.random.clone(), Arc::new(TestSpawn(stopping.clone())), stopping)
    }
    /// Its metadata directory.
    pub fn files(&self) -> StateFiles {
        StateFiles::new(self.disk.clone(), PathBuf::from("/meta"), self.runtime())
    }
    /// Its disk.
    pub fn disk(&self) -> &MemoryDisk {
        &self.disk
    }
    /// Ends its tasks; the next runtime is that of its next life.
    pub fn stop(&self) {
        std::mem::take(&mut *self.stopping.lock()).cancel();
    }
    /// Sets its wall clock, which goes on from there with tokio's.
    pub fn set_now_ms(&self, now_ms: u64) {
        self.clock.base_ms.store(now_ms, Ordering::Relaxed);
    }
}

struct TestClock {
    base_ms: AtomicU64,
    started: Instant,
}
impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        self.base_ms.load(Ordering::Relaxed) + self.started.elapsed().as_millis() as u64
    }
}

struct TestRandom(Mutex<ChaCha8Rng>);
impl Random for TestRandom {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().fill_bytes(bytes)
    }
}

struct TestSpawn(CancellationToken);
impl Spawn for TestSpawn {
    fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) {
        let stopping = self.0.clone();
        // A stopped node's tasks are dropped at once, as those of a killed process.
        tokio::spawn(async move {
            tokio::select! { biased; () = stopping.cancelled() => {} () = task => {} }
        });
    }
    fn blocking(&self, _lane: Lane, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, Result<(), Interrupted>> {
        work();
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Files in memory.
#[derive(Default)]
pub struct MemoryDisk {
    files: Mutex<BTreeMap<PathBuf, Vec<u8>>>,
    fails_writes: AtomicBool,
}

impl MemoryDisk {
    /// Whether writes fail from now on.
    pub fn fail_writes(&self, fails: bool) {
        self.fails_writes.store(fails, Ordering::Relaxed);
    }
    fn check_writable(&self) -> io::Result<()> {
        if self.fails_writes.load(Ordering::Relaxed) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl Disk for MemoryDisk {
    fn write_new(&self, path: &Path, content: &[u8], _synced: bool) -> io::Result<()> {
        self.check_writable()?;
        let mut files = self.files.lock();
        if files.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        files.insert(path.to_owned(), content.to_vec());
        Ok(())
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check_writable()?;
        let mut files = self.files.lock();
        let content = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), content);
        Ok(())
    }
    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        self.check_writable()
    }
    fn read(&self, path: &Path, _limit_bytes: u64) -> io::Result<Vec<u8>> {
        self.files.lock().get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.files.lock().remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
    fn len(&self, path: &Path) -> io::Result<Option<u64>> {
        Ok(self.files.lock().get(path).map(|content| content.len() as u64))
    }
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }
    fn create_dir_all(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self.files.lock().keys().filter(|path| path.parent() == Some(dir)).cloned().collect())
    }
    fn space(&self, _path: &Path) -> io::Result<Space> {
        Ok(Space { available_bytes: 1 << 40, total_bytes: 1 << 41, file_system: 0 })
    }
}
