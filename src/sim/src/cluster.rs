//! Nodes that start, crash, come back and are cut off; a layout, a bucket and a key to work with.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use garage_block::{manager::ManagerOptions, store::StoreOptions};
use garage_db::{DbOptions, Engine, MemoryEngine};
use garage_model::{
    RequestContext,
    node::{Node, NodeIdentity, NodeOptions, PreparedNode},
    objects::BucketRef,
    upkeep::UpkeepOptions,
};
use garage_net::NodeId;
use garage_rpc::{
    RouterBuilder,
    layout::{Role, RoleChange},
    state::StateFiles,
};
use garage_table::keyspaces;
use garage_util::config::ConsistencyMode;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    disk::SimDisk,
    network::{Conditions, Network},
    seed::Seed,
    surroundings::{SimClock, runtime},
    trace::Trace,
};

/// What a simulated cluster is like.
#[derive(Clone, Copy, Debug)]
pub struct ClusterOptions {
    /// Nodes that get a role in the first layout, each in a zone of its own up to `zone_count`.
    pub node_count: usize,
    /// Further nodes, started without a role.
    pub spare_count: usize,
    /// Zones; node i is in zone i modulo this.
    pub zone_count: usize,
    /// Copies.
    pub replication_factor: usize,
    /// The network.
    pub conditions: Conditions,
    /// A commit or file operation takes up to twice this.
    pub disk_delay: Duration,
    /// Bytes of a block.
    pub block_size_bytes: usize,
    /// Objects up to this size are kept in rows.
    pub inline_max_bytes: usize,
}

impl ClusterOptions {
    /// Three nodes in three zones, a fixed delay one way, disks that take no time: for counting round trips.
    pub fn exact(delay: Duration) -> ClusterOptions {
        let conditions = Conditions { delay, jitter: Duration::ZERO, lost_one_in: 0 };
        ClusterOptions { conditions, disk_delay: Duration::ZERO, ..ClusterOptions::rough() }
    }
    /// Three nodes in three zones, delays and losses by chance.
    pub fn rough() -> ClusterOptions {
        ClusterOptions {
            node_count: 3,
            spare_count: 0,
            zone_count: 3,
            replication_factor: 3,
            conditions: Conditions { delay: Duration::from_millis(5), jitter: Duration::from_millis(20), lost_one_in: 50 },
            disk_delay: Duration::from_millis(2),
            block_size_bytes: 64 << 10,
            inline_max_bytes: 16 << 10,
        }
    }
}

/// One node and what outlives it.
struct Slot {
    id: NodeId,
    address: SocketAddr,
    clock: Arc<SimClock>,
    disk: Arc<SimDisk>,
    engine: MemoryEngine,
    chance: Seed,
    lives_count: u64,
    alive: Option<(Node, CancellationToken)>,
}

/// The nodes that are up, for clients that ask them while the cluster changes. Cheap to clone.
#[derive(Clone)]
pub struct Nodes(Arc<Mutex<Vec<Option<Alive>>>>);

/// A running node, and what ends it.
type Alive = (Node, CancellationToken);

impl Nodes {
    /// A node and what tells of its end; `None`: it is down.
    pub fn get(&self, index: usize) -> Option<(Node, CancellationToken)> {
        self.0.lock().get(index).cloned().flatten()
    }
    /// Those that are up.
    pub fn up(&self) -> Vec<usize> {
        let nodes = self.0.lock();
        (0..nodes.len()).filter(|index| nodes[*index].is_some()).collect()
    }
    /// Those that are up and have a role in a layout that is live for them: clients ask no others.
    pub fn members(&self) -> Vec<usize> {
        let nodes = self.0.lock();
        let is_member = |node: &Node| node.cluster.layout().live_nodes().contains(&node.cluster.local());
        (0..nodes.len()).filter(|index| nodes[*index].as_ref().is_some_and(|(node, _)| is_member(node))).collect()
    }
    /// Up or not.
    pub fn count(&self) -> usize {
        self.0.lock().len()
    }
}

/// What was on a node's disks at some moment.
pub struct DiskImage {
    disk: SimDisk,
    engine: MemoryEngine,
}

/// Adds handlers of the crates above to those of a node.
pub type MoreHandlers = fn(&Node, RouterBuilder) -> RouterBuilder;

/// A simulated cluster.
pub struct Cluster {
    options: ClusterOptions,
    handlers: MoreHandlers,
    seed: Seed,
    network: Network,
    trace: Trace,
    nodes: Nodes,
    slots: Vec<Slot>,
}

/// The network holds the nodes' services, which hold the network: without this no node's memory would ever come back.
impl Drop for Cluster {
    fn drop(&mut self) {
        (0..self.slots.len()).for_each(|index| self.crash(index));
    }
}

/// How long the simulation waits, in virtual time, for what must come about by itself.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long replicas may differ once nothing is wrong any more. What a node missed without having been away (its disk was full, a message was
/// lost) is found by the comparison that comes without a cause; what that one leaves to a quorum to settle, soon after.
const IDENTICAL_WITHIN: Duration = Duration::from_secs(2 * garage_table::limits::SYNC_PERIOD.as_secs());

impl Cluster {
    /// Starts all nodes, lets them find each other, applies a layout.
    pub async fn start(seed: u64, options: ClusterOptions) -> Cluster {
        Cluster::start_with(seed, options, |_, router| router).await
    }

    /// The same with nodes that also answer what `handlers` adds.
    pub async fn start_with(seed: u64, options: ClusterOptions, handlers: MoreHandlers) -> Cluster {
        let seed = Seed::new(seed);
        let trace = Trace::new();
        let network = Network::new(seed.fork(1_000), options.conditions, trace.clone());
        let nodes = Nodes(Arc::default());
        let mut cluster = Cluster { options, handlers, slots: Vec::new(), seed, network, trace, nodes };
        for _ in 0..options.node_count + options.spare_count {
            cluster.add_node().await;
        }
        cluster.apply_layout().await;
        cluster
    }

    /// Starts a new node without a role, which knows all nodes there were before; its index.
    pub async fn add_node(&mut self) -> usize {
        let index = self.slots.len();
        self.slots.push(Slot {
            id: NodeId([index as u8 + 1; 32]),
            address: SocketAddr::from(([10, 0, 0, index as u8 + 1], 3901)),
            clock: Arc::new(SimClock::new()),
            disk: Arc::new(SimDisk::default()),
            engine: MemoryEngine::new(keyspaces::SPECS),
            chance: self.seed.fork(5_000 + index as u64),
            lives_count: 0,
            alive: None,
        });
        self.nodes.0.lock().push(None);
        self.restart(index).await;
        index
    }

    /// The options it was started with.
    pub fn options(&self) -> &ClusterOptions {
        &self.options
    }
    /// The seed's number, to be printed with a failure.
    pub fn seed(&self) -> u64 {
        self.seed.number()
    }
    /// An independent stream of chance.
    pub fn fork_seed(&self, label: u64) -> Seed {
        self.seed.fork(label)
    }
    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }
    /// A running node.
    ///
    /// # Panics
    /// When it is down: a mistake of the test.
    pub fn node(&self, index: usize) -> &Node {
        &self.slots[index].alive.as_ref().expect("the test asks a node that it stopped").0
    }
    /// The running nodes.
    pub fn alive(&self) -> Vec<usize> {
        (0..self.slots.len()).filter(|index| self.slots[*index].alive.is_some()).collect()
    }
    /// Up or not.
    pub fn count(&self) -> usize {
        self.slots.len()
    }
    /// The nodes that are up, now and later.
    pub fn nodes(&self) -> Nodes {
        self.nodes.clone()
    }
    /// What happens.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }
    /// A node's id.
    pub fn id(&self, index: usize) -> NodeId {
        self.slots[index].id
    }
    /// A node's disk.
    pub fn disk(&self, index: usize) -> &SimDisk {
        &self.slots[index].disk
    }
    /// A node's clock.
    pub fn clock(&self, index: usize) -> &SimClock {
        &self.slots[index].clock
    }
    /// A request that may take `patience`.
    pub fn context(&self, patience: Duration) -> RequestContext {
        RequestContext::within(patience)
    }

    /// Starts a node, again or for the first time; its configuration names all nodes that were ever started.
    pub async fn restart(&mut self, index: usize) {
        let known = self.slots.iter().filter(|slot| slot.lives_count > 0);
        let bootstrap_peers = known.map(|slot| (slot.id, slot.address.to_string())).collect();
        self.start_node(index, bootstrap_peers).await;
    }

    /// Starts a node whose configuration names nobody: it finds the others by what it saved.
    pub async fn restart_from_disk(&mut self, index: usize) {
        self.start_node(index, Vec::new()).await;
    }

    async fn start_node(&mut self, index: usize, bootstrap_peers: Vec<(NodeId, String)>) {
        let (options, handlers, network) = (self.options, self.handlers, self.network.clone());
        let slot = &mut self.slots[index];
        assert!(slot.alive.is_none(), "node {index} is running");
        slot.lives_count += 1;
        let life = self.seed.fork(10_000 + index as u64 * 1_000 + slot.lives_count);
        let (runtime, stopping) = runtime(&slot.clock, life, options.disk_delay);
        let files = StateFiles::new(slot.disk.clone(), PathBuf::from("/meta"), runtime.clone());
        let block_store =
            StoreOptions { min_free_bytes: 0, ..StoreOptions::new(PathBuf::from("/data"), PathBuf::from("/meta/data_layout")) };
        let prepared = PreparedNode::open(NodeOptions {
            runtime: runtime.clone(),
            local: slot.id,
            engine: Arc::new(slot.engine.clone()),
            db: DbOptions::default(),
            disk: slot.disk.clone(),
            block_store,
            blocks: ManagerOptions { block_size_bytes: options.block_size_bytes, ..ManagerOptions::default() },
            files,
            identity: NodeIdentity {
                hostname: format!("sim{index}"),
                release: "sim".to_string(),
                public_address: Some(slot.address.to_string()),
                bootstrap_peers,
            },
            replication_factor: options.replication_factor,
            consistency_mode: ConsistencyMode::Consistent,
            secret: [7; 32],
            former_secrets: Vec::new(),
            inline_max_bytes: options.inline_max_bytes,
            allow_punycode: false,
            lifecycle: Default::default(),
            upkeep: UpkeepOptions::default(),
        });
        let prepared = prepared.await.unwrap_or_else(|error| panic!("seed {}: node {index} does not start: {error}", self.seed.number()));
        let (id, address) = (slot.id, slot.address);
        let router = handlers(prepared.node(), RouterBuilder::new());
        let online = prepared.online(router, |service| Ok::<_, std::convert::Infallible>(network.attach(id, address, runtime, service)));
        let Ok(node) = online;
        self.nodes.0.lock()[index] = Some((node.clone(), stopping.clone()));
        slot.alive = Some((node, stopping));
    }

    /// Fills a node's disk, or makes room again.
    pub fn set_full(&self, index: usize, is_full: bool) {
        self.slots[index].disk.set_full(is_full);
        self.slots[index].engine.set_full(is_full);
    }

    /// Kills a node: its tasks end where they stand, its disk keeps what was forced to it and, by chance, some of the rest.
    pub fn crash(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let Some((node, stopping)) = slot.alive.take() else { return };
        self.nodes.0.lock()[index] = None;
        stopping.cancel();
        self.network.detach(slot.id);
        node.cluster.disconnect();
        slot.disk.crash();
        let kept_count = slot.chance.pick(slot.engine.unsynced_count() as u64 + 1) as usize;
        slot.engine.crash(kept_count);
    }

    /// Cuts a node off from all others, in both directions, or mends that.
    pub fn isolate(&self, index: usize, is_cut: bool) {
        for other in (0..self.slots.len()).filter(|other| *other != index) {
            self.network.cut(self.slots[index].id, self.slots[other].id, is_cut);
            self.network.cut(self.slots[other].id, self.slots[index].id, is_cut);
        }
    }

    /// Takes a node's disks away, killing it if it runs: it comes back with empty ones.
    pub fn lose_disk(&mut self, index: usize) {
        self.crash(index);
        self.slots[index].disk.wipe();
        self.slots[index].engine.wipe();
    }

    /// A copy of a node's disks as they are now, to be restored later.
    pub fn image(&self, index: usize) -> DiskImage {
        DiskImage { disk: self.slots[index].disk.image(), engine: self.slots[index].engine.image() }
    }

    /// Puts a node's disks back to an image, killing it if it runs.
    pub fn restore(&mut self, index: usize, image: &DiskImage) {
        self.crash(index);
        self.slots[index].disk.restore(&image.disk);
        self.slots[index].engine = image.engine.image();
    }

    /// Puts a snapshot of a node's metadata, as of an image, in the place of its store, as an operator does; killing it if it runs.
    pub fn restore_snapshot(&mut self, index: usize, image: &DiskImage) {
        self.crash(index);
        let engine = MemoryEngine::new(keyspaces::SPECS);
        let source = image.engine.snapshot().expect("a simulated store can be read");
        let store_id = garage_db::StoreId([self.slots[index].chance.pick(256) as u8; 32]);
        garage_db::snapshots::copy_as_new(&*source, keyspaces::SPECS.len() as u8, &engine, store_id, "restored from a snapshot")
            .expect("a simulated store can be written");
        self.slots[index].engine = engine;
    }

    /// Loses the metadata alone, or the block files and control files alone.
    pub fn lose_metadata(&mut self, index: usize) {
        self.crash(index);
        self.slots[index].engine.wipe();
    }

    async fn apply_layout(&mut self) {
        self.await_condition("all nodes know each other", |cluster| {
            let alive = cluster.alive();
            alive.iter().all(|index| alive.iter().all(|other| cluster.node(*index).cluster.is_up(cluster.id(*other))))
        })
        .await;
        let roles: Vec<(usize, RoleChange)> = (0..self.options.node_count).map(|index| (index, self.storage_role(index))).collect();
        self.change_layout(0, roles).await;
    }

    /// The role of a storage node in the zone that its index gives it.
    pub fn storage_role(&self, index: usize) -> RoleChange {
        let zone = format!("zone{}", index % self.options.zone_count);
        RoleChange::Assign(Role { zone, capacity_bytes: Some(1 << 40), tags: Vec::new() })
    }

    /// Stages roles through a node and applies them as the next version, which every node that is up then knows.
    pub async fn change_layout(&self, through: usize, roles: Vec<(usize, RoleChange)>) {
        let node = self.node(through).clone();
        for (index, change) in roles {
            node.cluster.stage_role(self.id(index), change).await.expect("a simulated disk takes the staged layout");
        }
        let version = node.cluster.layout().current().version + 1;
        let applied = node.cluster.apply_layout(version).await;
        applied.unwrap_or_else(|error| panic!("seed {}: the layout can't be applied: {error}", self.seed.number()));
        self.await_condition("all nodes have the layout", |cluster| {
            cluster.alive().iter().all(|index| version <= cluster.node(*index).cluster.layout().current().version)
        })
        .await;
    }

    /// Stages a number of copies through a node and applies it.
    pub async fn change_copies(&self, through: usize, replication_factor: usize) {
        let staged = self
            .node(through)
            .cluster
            .update_layout(|history, stamp| Ok(history.staging_mut().stage_replication_factor(stamp, replication_factor)?));
        staged.await.expect("a number of copies that can be staged");
        self.change_layout(through, Vec::new()).await;
    }

    /// Waits until every node that is up holds all of its partitions whole.
    pub async fn await_recovered(&self) {
        let is_whole = |index: usize| {
            let node = self.node(index);
            let mut held = garage_table::sync::held_partitions(&node.cluster.layout(), self.id(index)).into_iter();
            held.all(|partition| node.syncer.standing().counts(&node.cluster, partition) == garage_table::standing::Counts::Yes)
        };
        let deadline = Instant::now() + 2 * PATIENCE;
        while !self.alive().into_iter().all(is_whole) {
            if deadline < Instant::now() {
                let workers: Vec<_> = self.alive().into_iter().flat_map(|index| self.node(index).workers.list()).collect();
                panic!("seed {}: some node is still not refilled: {workers:#?}", self.seed.number());
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until one layout version is live, on every node that is up.
    pub async fn await_moved(&self) {
        let has_moved = |index: usize| self.node(index).cluster.layout().live().count() == 1;
        let deadline = Instant::now() + PATIENCE;
        while !self.alive().into_iter().all(has_moved) {
            if deadline < Instant::now() {
                let states: Vec<String> = self.alive().into_iter().map(|index| self.layout_state(index)).collect();
                panic!("seed {}: after {PATIENCE:?} several layout versions are live:\n{}", self.seed.number(), states.join("\n"));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// What a node knows of the layout, and what its workers last failed of: to be printed with a failure.
    fn layout_state(&self, index: usize) -> String {
        let node = self.node(index);
        let layout = node.cluster.layout();
        let trackers: Vec<String> = layout.live_trackers().iter().map(|(id, trackers)| format!("{}: {trackers:?}", id.0[0] - 1)).collect();
        let failures = node.workers.list().into_iter().filter_map(|worker| Some((worker.name, worker.last_error?)));
        let (live, moving) = (layout.oldest_live()..=layout.current().version, node.syncer.move_progress());
        format!("node {index}: versions {live:?}, {trackers:?}, {moving:?}, failures {:?}", failures.collect::<Vec<_>>())
    }

    /// Waits until all replicas of all partitions are identical, on all nodes that are up.
    pub async fn await_identical(&self) {
        let deadline = Instant::now() + IDENTICAL_WITHIN;
        while let Some(differing) = self.differing_replicas().await {
            if deadline < Instant::now() {
                let reports = self.alive().into_iter().flat_map(|index| self.node(index).workers.list());
                let syncs: Vec<_> = reports.filter(|worker| worker.name == "table sync").map(|worker| worker.report.messages).collect();
                panic!("seed {}: after {IDENTICAL_WITHIN:?} replicas still differ: {differing}\n{syncs:#?}", self.seed.number());
            }
            // Every digest of every replica is read: not too often.
            sleep(Duration::from_secs(5)).await;
        }
    }

    /// How many version rows a node holds, tombstones included.
    pub async fn rows_count(&self, index: usize) -> usize {
        let read = self
            .node(index)
            .db
            .read(|snapshot| snapshot.prefix(keyspaces::ROWS, &[garage_model::rows::VERSION.0], garage_db::Direction::Forward).count());
        read.await.expect("a running node's store can be read")
    }

    /// How many rows a node has of partitions that it does not hold.
    pub async fn foreign_rows_count(&self, index: usize) -> usize {
        let node = self.node(index);
        let held = garage_table::sync::held_partitions(&node.cluster.layout(), self.id(index));
        let read = node.db.read(move |snapshot| {
            let rows = snapshot.prefix(keyspaces::ROWS, &[], garage_db::Direction::Forward);
            rows.filter(|row| row.as_ref().is_ok_and(|(key, _)| !held.contains(&key[1]))).count()
        });
        read.await.expect("a running node's store can be read")
    }

    /// The first partition whose replicas differ among the nodes that are up.
    pub async fn differing_replicas(&self) -> Option<String> {
        let mut totals = std::collections::BTreeMap::new();
        for index in self.alive() {
            let node = self.node(index);
            let held = garage_table::sync::held_partitions(&node.cluster.layout(), self.id(index));
            for (place, total) in crate::replica::totals(node, held).await {
                let (first, expected) = *totals.entry(place).or_insert((index, total));
                if expected != total {
                    let [one, other] = [first, index].map(|index| crate::replica::contents(self.node(index), place));
                    let (one, other) = futures::future::join(one, other).await;
                    let sides = [(first, &one, &other), (index, &other, &one)].into_iter();
                    let differing = sides.flat_map(|(node, rows, others)| {
                        let rows = rows.iter().filter(|(row, _)| !others.contains_key(*row));
                        rows.map(move |(row, side)| format!("{row} at {node}, beside it {side}"))
                    });
                    let differing: Vec<String> = differing.collect();
                    return Some(format!("table {} in partition {} of nodes {first} and {index}: {differing:#?}", place.0.0, place.1));
                }
            }
        }
        None
    }

    /// Waits, in virtual time, until `is_met`.
    pub async fn await_condition(&self, what: &str, is_met: impl Fn(&Cluster) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_met(self) {
            assert!(Instant::now() < deadline, "seed {}: after {PATIENCE:?} it is still not so that {what}", self.seed.number());
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Makes a bucket through a node.
    pub async fn make_bucket(&self, index: usize, name: &str) -> BucketRef {
        let made = self.node(index).access.buckets().create(name, None, self.context(PATIENCE)).await;
        made.unwrap_or_else(|error| panic!("seed {}: bucket {name} can't be made: {error}", self.seed.number())).as_ref()
    }
}
