//! The three nodes of the tests: real files and references, real messages, a network of function calls.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use garage_db::{Db, DbOptions, MemoryEngine};
use garage_net::{BodyStream, CallError, Caller, Incoming, LayoutMark, NodeId, Refusal};
use garage_rpc::{
    LayoutNotReady, Message, Router, RouterBuilder, StoreMark,
    quorum::{QuorumSet, QuorumSets},
    testing::TestNode,
};
use garage_table::{Schemas, Store, keyspaces};
use garage_util::{
    disk::{Disk, RealDisk, Space},
    hlc::Stamp,
};
use parking_lot::Mutex;
use serde_bytes::ByteBuf;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};

use super::super::{BlockManager, Holders, ManagerOptions, Mesh, RequestContext, SentBlock, mesh::Called};
use crate::{
    encoding::{EncodedBlock, Encoding},
    hash::BlockHash,
    message::{AddReferences, AskBlocks, BlocksKnown, CheckBlock, CopyState, GetBlock, HintReferences, PutBlock, ReferencesAdded},
    reference::{Reference, ReferenceTable, References},
    service::{BlockService, body_of},
    store::{BlockStore, StoreOptions},
};

pub const ROUND_TRIP: Duration = Duration::from_millis(10);

/// How a node behaves towards the others.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Mode {
    /// As it should.
    Up,
    /// Not connected.
    Down,
    /// Connected, and does nothing until it is up again.
    Silent,
}

pub fn id(number: u8) -> NodeId {
    NodeId([number; 32])
}

pub fn context() -> RequestContext {
    RequestContext { deadline: Instant::now() + Duration::from_secs(60), trace: 1 }
}

pub fn reference(content: &Bytes) -> Reference {
    Reference {
        block: BlockHash::of(content),
        version: [7; 32],
        group: ByteBuf::from(b"group".to_vec()),
        stamp: Stamp::from_parts(1, 1, false),
        owner: ByteBuf::from(b"owner".to_vec()),
    }
}

pub struct Node {
    pub service: BlockService,
    pub disk: Arc<FullableDisk>,
    pub engine: MemoryEngine,
    router: Router,
    data_dir: PathBuf,
    mode: watch::Sender<Mode>,
    silent_count: AtomicUsize,
    silent_peak_count: AtomicUsize,
}

/// Three nodes; the manager is that of node 1.
pub struct Nodes {
    pub manager: BlockManager,
    nodes: Arc<BTreeMap<NodeId, Arc<Node>>>,
    homes: Arc<Mutex<Vec<NodeId>>>,
    _root: tempfile::TempDir,
}

impl Nodes {
    pub async fn new(options: ManagerOptions) -> Nodes {
        let root = tempfile::tempdir().unwrap();
        let mut nodes = BTreeMap::new();
        for number in 1..=3 {
            nodes.insert(id(number), Arc::new(Node::new(number, root.path()).await));
        }
        let nodes = Arc::new(nodes);
        let homes = Arc::new(Mutex::new(nodes.keys().copied().collect()));
        let mesh = Arc::new(TestMesh { nodes: nodes.clone(), homes: homes.clone() });
        let manager = BlockManager::new(TestNode::new(1).runtime(), mesh, nodes[&id(1)].service.clone(), options);
        Nodes { manager, nodes, homes, _root: root }
    }
    /// Changes which nodes hold blocks by the layout.
    pub fn move_to(&self, homes: &[u8]) {
        *self.homes.lock() = homes.iter().copied().map(id).collect();
    }
    pub fn node(&self, number: u8) -> &Node {
        &self.nodes[&id(number)]
    }
    pub fn all(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }
    pub fn set(&self, number: u8, mode: Mode) {
        self.node(number).mode.send_replace(mode);
    }
    pub fn silent_peak_count(&self, number: u8) -> usize {
        self.node(number).silent_peak_count.load(Ordering::SeqCst)
    }
    /// Every node loses what its metadata store had not made durable.
    pub fn cut_power(&self) {
        self.all().for_each(|node| node.engine.crash(0));
    }
    /// Who has a file of the block.
    pub async fn holders_of(&self, content: &Bytes) -> BTreeSet<NodeId> {
        let mut holders = BTreeSet::new();
        for (id, node) in &*self.nodes {
            if node.service.store().contains(vec![BlockHash::of(content)]).await.unwrap()[0] {
                holders.insert(*id);
            }
        }
        holders
    }
    pub fn lose_block(&self, number: u8, content: &Bytes) {
        // One that a slow copy has not brought yet is as lost.
        for path in self.node(number).files_of(content) {
            std::fs::remove_file(path).unwrap();
        }
    }
    pub fn rot_block(&self, number: u8, content: &Bytes) {
        for path in self.node(number).files_of(content) {
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[0] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
    }
    /// Sends a block as a node that may be wrong would.
    pub async fn put_raw(&self, number: u8, reference: Reference, len_bytes: u32, block: EncodedBlock) -> Result<StoreMark, Refusal> {
        let message = PutBlock { reference, encoding: block.encoding, len_bytes };
        match (TestMesh { nodes: self.nodes.clone(), homes: self.homes.clone() }).put(id(number), message, block.bytes, context()).await {
            Ok(mark) => Ok(mark),
            Err(CallError::Refused(refusal)) => Err(refusal),
            Err(other) => panic!("{other}"),
        }
    }
}

impl Node {
    async fn new(number: u8, root: &Path) -> Node {
        let runtime = TestNode::new(number).runtime();
        let engine = MemoryEngine::new(keyspaces::SPECS);
        let db = Db::open(&runtime, Arc::new(engine.clone()), DbOptions::default()).await.unwrap();
        let references = References::new(Store::new(db, Schemas::new([Arc::new(ReferenceTable) as Arc<_>])), runtime.clone());
        let data_dir = root.join(number.to_string());
        let disk = Arc::new(FullableDisk::default());
        let mut options = StoreOptions::new(data_dir.clone(), root.join(format!("{number}.data_layout")));
        options.min_free_bytes = 0;
        let store = BlockStore::open(&runtime, disk.clone(), options).await.unwrap();
        let service = BlockService::new(runtime, store, references);
        Node {
            router: service.register(RouterBuilder::new()).build(),
            service,
            disk,
            engine,
            data_dir,
            mode: watch::Sender::new(Mode::Up),
            silent_count: AtomicUsize::new(0),
            silent_peak_count: AtomicUsize::new(0),
        }
    }

    fn files_of(&self, content: &Bytes) -> Vec<PathBuf> {
        let hash = BlockHash::of(content).to_string();
        let dir = self.data_dir.join(&hash[..2]).join(&hash[2..4]);
        let names = [Encoding::Plain, Encoding::Zstd]
            .map(|encoding| if encoding == Encoding::Plain { hash.clone() } else { format!("{hash}.zst") });
        names.into_iter().map(|name| dir.join(name)).filter(|path| path.is_file()).collect()
    }

    async fn wait_until_up(&self, node: NodeId) -> Result<(), CallError> {
        let mut mode = self.mode.subscribe();
        if *mode.borrow_and_update() == Mode::Silent {
            let _silent = Silent::enter(self);
            let _woken = mode.wait_for(|mode| *mode != Mode::Silent).await;
        }
        if *mode.borrow() == Mode::Down { Err(CallError::NotConnected(node)) } else { Ok(()) }
    }
}

/// Counts the calls that wait for a silent node.
struct Silent<'a>(&'a Node);
impl<'a> Silent<'a> {
    fn enter(node: &'a Node) -> Silent<'a> {
        let count = node.silent_count.fetch_add(1, Ordering::SeqCst) + 1;
        node.silent_peak_count.fetch_max(count, Ordering::SeqCst);
        Silent(node)
    }
}
impl Drop for Silent<'_> {
    fn drop(&mut self) {
        self.0.silent_count.fetch_sub(1, Ordering::SeqCst);
    }
}

struct TestMesh {
    nodes: Arc<BTreeMap<NodeId, Arc<Node>>>,
    homes: Arc<Mutex<Vec<NodeId>>>,
}

impl TestMesh {
    fn call<M: Message>(
        &self,
        to: NodeId,
        message: &M,
        body: Option<BodyStream>,
        context: RequestContext,
    ) -> BoxFuture<'static, Called<M>> {
        let payload = Bytes::from(rmp_serde::to_vec_named(message).unwrap());
        let node = self.nodes[&to].clone();
        let answered = async move {
            node.wait_until_up(to).await?;
            sleep(ROUND_TRIP).await;
            let from = Caller { node: id(1), address: None };
            let (deadline, trace, layout) = (context.deadline, context.trace, LayoutMark::default());
            let incoming = Incoming { from, kind: M::KIND.to_string(), class: M::CLASS, deadline, trace, layout, payload, body };
            let answer = node.router.run(incoming).await?;
            Ok((rmp_serde::from_slice(&answer.payload).unwrap(), answer.body))
        };
        async move { timeout_at(context.deadline, answered).await.map_err(|_| CallError::TimedOut)? }.boxed()
    }
}

impl Mesh for TestMesh {
    fn local(&self) -> NodeId {
        id(1)
    }
    fn holders(&self, _block: BlockHash) -> Result<Holders, LayoutNotReady> {
        let all = self.homes.lock().clone();
        Ok(Holders { write: QuorumSets::single(QuorumSet::majority(all.iter().copied())), read_order: all, placement: None })
    }
    fn put(
        &self,
        to: NodeId,
        message: PutBlock,
        bytes: Bytes,
        context: RequestContext,
    ) -> BoxFuture<'static, Result<StoreMark, CallError>> {
        let sent = self.call(to, &message, Some(body_of(bytes, None)), context);
        async move { Ok(sent.await?.0) }.boxed()
    }
    fn get(&self, to: NodeId, message: GetBlock, context: RequestContext) -> BoxFuture<'static, Result<SentBlock, CallError>> {
        self.call(to, &message, None, context)
    }
    fn add_references(
        &self,
        to: NodeId,
        message: AddReferences,
        context: RequestContext,
    ) -> BoxFuture<'static, Result<ReferencesAdded, CallError>> {
        let sent = self.call(to, &message, None, context);
        async move { Ok(sent.await?.0) }.boxed()
    }
    fn check(&self, to: NodeId, message: CheckBlock, context: RequestContext) -> BoxFuture<'static, Result<CopyState, CallError>> {
        let sent = self.call(to, &message, None, context);
        async move { Ok(sent.await?.0) }.boxed()
    }
    fn ask(&self, to: NodeId, message: AskBlocks, context: RequestContext) -> BoxFuture<'static, Result<BlocksKnown, CallError>> {
        let sent = self.call(to, &message, None, context);
        async move { Ok(sent.await?.0) }.boxed()
    }
    fn hint(&self, to: NodeId, message: HintReferences, context: RequestContext) -> BoxFuture<'static, Result<StoreMark, CallError>> {
        let sent = self.call(to, &message, None, context);
        async move { Ok(sent.await?.0) }.boxed()
    }
    fn fetch(&self, to: NodeId, message: GetBlock, context: RequestContext) -> BoxFuture<'static, Result<SentBlock, CallError>> {
        self.get(to, message, context)
    }
    fn hand_over(
        &self,
        to: NodeId,
        message: PutBlock,
        bytes: Bytes,
        context: RequestContext,
    ) -> BoxFuture<'static, Result<StoreMark, CallError>> {
        self.put(to, message, bytes, context)
    }
    fn former_holders(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().filter(|node| *node != id(1)).collect()
    }
}

/// A real disk that can be filled up.
#[derive(Default)]
pub struct FullableDisk {
    full: AtomicBool,
}

impl FullableDisk {
    pub fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::SeqCst);
    }
}

impl Disk for FullableDisk {
    fn write_new(&self, path: &Path, content: &[u8], _synced: bool) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { RealDisk.write_new(path, content, false) }
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }
    fn read(&self, path: &Path, limit_bytes: u64) -> io::Result<Vec<u8>> {
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
