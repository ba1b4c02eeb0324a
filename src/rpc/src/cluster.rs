//! The handle on the cluster that the crates above hold: who we are, where rows live, whom to ask, and calls to them.
//!
//! # Order of construction
//! [`Cluster::prepare`] reads the control files and gives a [`PreparedCluster`]: its handle ticks and knows the layout, but every
//! call to another node answers `NotConnected`. The services of the crates above are built with clones of that handle, their handlers
//! are put in a [`Router`], and [`PreparedCluster::online`] takes the router and a factory that makes the transport around it. So a
//! transport never exists without its handlers, and no service has a hole that is filled later.
//! [`Cluster::disconnect`] undoes it when the node stops, which also breaks the ring of references handle → transport → handlers → handle.
//!
//! Not here: what incoming calls may do (`service`), gossip and dialling (`membership`), the layout's changes (`layout_manager`).

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use garage_db::StoreId;
use garage_net::{BodyStream, Call, CallError, Caller, Class, Incoming, LayoutMark, NodeId, Refusal, Service, Transport};
use garage_util::{
    changes::Watcher,
    config::ConsistencyMode,
    hlc::{SkewError, Stamp},
    runtime::Runtime,
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout, timeout_at};

use crate::{
    clock::{ClockError, DurableClock},
    layout::{LayoutHistory, Partition},
    layout_manager::LayoutKeeper,
    membership::{Membership, OwnStore, SpaceReport, WorkReport},
    message::{Encoded, Message, Router, RouterBuilder, code, refusal},
    peers::Nearness,
    quorum::{QuorumCalls, QuorumSet, QuorumSets},
    service::ClusterService,
    state::{StateError, StateFiles},
    status::{NodeStatus, StoreRegression},
};

/// How far a node's store had come when it acknowledged something: carried by acknowledgements, remembered by its peers, so that a
/// node whose store was lost or set back is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreMark {
    /// Which store.
    pub store_id: StoreId,
    /// Its last durable commit.
    pub commit_number: u64,
}

/// What a node needs to take part.
pub struct ClusterOptions {
    /// This node.
    pub local: NodeId,
    /// Clock, randomness and tasks.
    pub runtime: Runtime,
    /// The metadata directory.
    pub files: StateFiles,
    /// How far the local store has come; asked at every handshake. The store's id is also part of this node's stamps.
    pub own_mark: Arc<dyn Fn() -> StoreMark + Send + Sync>,
    /// Shown in the status.
    pub hostname: String,
    /// The version of this release, shown in the status.
    pub release: String,
    /// `host:port` under which others are to dial this node (`rpc_public_addr`).
    pub public_address: Option<String>,
    /// Peers to begin with, each with its `host:port` (`bootstrap_peers`).
    pub bootstrap_peers: Vec<(NodeId, String)>,
    /// Copies of each partition before the first layout says so.
    pub replication_factor: usize,
    /// Partitions of the ring before the first layout says so.
    pub partition_count: usize,
    /// What plain reads and writes wait for.
    pub consistency_mode: ConsistencyMode,
}

/// How a call is made.
#[derive(Clone, Copy, Debug)]
pub struct CallOptions {
    /// When the caller stops waiting, bodies included.
    pub deadline: Instant,
    /// Ties the steps of one request together in logs.
    pub trace: u64,
    /// Another priority than the message's own; repairs use [`Class::Background`].
    pub class: Option<Class>,
}

impl CallOptions {
    /// A call that must be answered by `deadline`.
    pub fn until(deadline: Instant) -> CallOptions {
        CallOptions { deadline, trace: 0, class: None }
    }
    /// A call that must be answered within `patience`.
    pub fn within(patience: Duration) -> CallOptions {
        CallOptions::until(Instant::now() + patience)
    }
    /// As a step of the request `trace`.
    pub fn traced(self, trace: u64) -> CallOptions {
        CallOptions { trace, ..self }
    }
    /// With another priority than the message's own.
    pub fn in_class(self, class: Class) -> CallOptions {
        CallOptions { class: Some(class), ..self }
    }
}

/// There is no layout yet, so nothing has a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cluster has no layout yet: assign roles with `garage layout assign` and apply them with `garage layout apply`")]
pub struct LayoutNotReady;

/// Where a partition lives, for one operation. Keep it until the operation's last call has ended: while it is held, this node does
/// not tell the others that it is done with this layout.
#[derive(Clone, Debug)]
pub struct Placement {
    /// The ring partition.
    pub partition: Partition,
    /// The layout this follows.
    pub layout: LayoutMark,
    /// Plain writes: a quorum in each live version, by the consistency mode.
    pub write: QuorumSets<NodeId>,
    /// Rounds, control rows and whatever must not depend on the consistency mode: a majority in each live version.
    pub majority: QuorumSets<NodeId>,
    /// Plain reads: who can be asked, nearest first.
    pub read_nodes: Vec<NodeId>,
    /// How many of them must answer, by the consistency mode.
    pub read_quorum: usize,
    _in_use: Arc<()>,
}

/// A handle on the cluster. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

struct Inner {
    local: NodeId,
    runtime: Runtime,
    clock: DurableClock,
    consistency_mode: ConsistencyMode,
    layout: LayoutKeeper,
    membership: Arc<Membership>,
    quorum: QuorumCalls,
    wiring: ArcSwapOption<Wiring>,
}

/// What calls go through while the node is online.
struct Wiring {
    router: Router,
    transport: Arc<dyn Transport>,
}

/// A cluster handle before it is on the network; see the module's order of construction.
pub struct PreparedCluster {
    cluster: Cluster,
    receiver: crate::membership::Receiver,
}

impl PreparedCluster {
    /// The handle to build services with.
    pub fn handle(&self) -> Cluster {
        self.cluster.clone()
    }

    /// Adds this crate's own handlers to those of the crates above, makes the transport around them, and joins the cluster.
    ///
    /// Errors: those of `make_transport`.
    pub fn online<E>(
        self,
        router: RouterBuilder,
        make_transport: impl FnOnce(Arc<dyn Service>) -> Result<Arc<dyn Transport>, E>,
    ) -> Result<Cluster, E> {
        let PreparedCluster { cluster, receiver } = self;
        let router = crate::layout_manager::register_handlers(&cluster, crate::membership::register_handlers(&cluster, router)).build();
        let transport = make_transport(Arc::new(ClusterService::new(cluster.clone(), router.clone())))?;
        cluster.inner.wiring.store(Some(Arc::new(Wiring { router, transport: transport.clone() })));
        crate::membership::start(&cluster, transport, receiver);
        crate::layout_manager::start(&cluster);
        Ok(cluster)
    }
}

impl Cluster {
    /// Reads what the node knew when it stopped: the layout, its peers, the ceiling of its clock.
    pub async fn prepare(options: ClusterOptions) -> Result<PreparedCluster, StateError> {
        let ClusterOptions { local, ref runtime, ref files, .. } = options;
        let mark = first_8(local.as_bytes()) ^ first_8((options.own_mark)().store_id.as_bytes());
        let clock = DurableClock::open(mark, files.clone(), runtime.clone()).await?;
        let empty = LayoutHistory::new(options.replication_factor, options.partition_count);
        let layout = LayoutKeeper::open(local, empty, files.clone()).await?;
        let (runtime, consistency_mode) = (runtime.clone(), options.consistency_mode);
        let (membership, receiver) = Membership::open(options).await?;
        let measured = membership.clone();
        let quorum = QuorumCalls::new(runtime.clone(), Arc::new(move |node| measured.hedge_delay(node)));
        let inner = Inner { local, runtime, clock, consistency_mode, layout, membership, quorum, wiring: ArcSwapOption::empty() };
        Ok(PreparedCluster { cluster: Cluster { inner: Arc::new(inner) }, receiver })
    }

    /// Leaves the network: calls answer `NotConnected` from now on, the transport is dropped. For a node that stops.
    pub fn disconnect(&self) {
        self.inner.wiring.store(None);
    }

    /// This node.
    pub fn local(&self) -> NodeId {
        self.inner.local
    }
    /// Clock, randomness and tasks.
    pub fn runtime(&self) -> &Runtime {
        &self.inner.runtime
    }

    // ---- Layout ----

    /// The layout as this node knows it now.
    pub fn layout(&self) -> Arc<LayoutHistory> {
        self.inner.layout.held().history.clone()
    }
    /// The newest layout version known here, as it travels with calls.
    pub fn layout_mark(&self) -> LayoutMark {
        self.inner.layout.held().mark
    }
    /// Changes whenever the layout history does.
    pub fn layout_changes(&self) -> Watcher {
        self.inner.layout.changes()
    }
    /// What plain reads and writes wait for.
    pub fn consistency_mode(&self) -> ConsistencyMode {
        self.inner.consistency_mode
    }

    /// Where the rows or blocks of this hash live.
    pub fn placement(&self, hash: &[u8; 32]) -> Result<Placement, LayoutNotReady> {
        let partition = self.inner.layout.held().history.current().partition_of(hash);
        self.placement_of(partition)
    }

    /// Where a ring partition lives.
    pub fn placement_of(&self, partition: Partition) -> Result<Placement, LayoutNotReady> {
        let held = self.inner.layout.held();
        let placement = held.history.placement(partition, self.inner.consistency_mode).ok_or(LayoutNotReady)?;
        let write = placement.write_sets.iter().map(|set| QuorumSet::new(set.nodes.iter().copied(), set.quorum));
        let majority = placement.write_sets.iter().map(|set| QuorumSet::majority(set.nodes.iter().copied()));
        let mut read_nodes = placement.read_set.nodes;
        self.order_by_nearness(&mut read_nodes);
        Ok(Placement {
            partition,
            layout: held.mark,
            write: QuorumSets::new(write.collect()),
            majority: QuorumSets::new(majority.collect()),
            read_nodes,
            read_quorum: placement.read_set.quorum,
            _in_use: held.in_use.clone(),
        })
    }

    /// While this is held, this node does not tell the others that it is done with the layout that it follows now.
    pub fn layout_in_use(&self) -> Arc<()> {
        self.inner.layout.held().in_use.clone()
    }

    /// From now on only [`Cluster::layout_synced`] says how far this node is in sync; until then it says so itself, by what versions give it.
    pub fn sync_layout_by_hand(&self) {
        self.inner.layout.sync_by_caller();
    }

    /// Whether this node stays out of agreements on layouts, because it may have lost what it promised in one.
    pub fn abstain(&self, abstains: bool) {
        self.inner.layout.abstain(abstains);
    }

    /// Tells the others that this node has all that it must hold in `version`; what it must hold in every live version up to that one
    /// is the caller's to see to.
    pub async fn layout_synced(&self, version: u64) -> Result<(), crate::layout_manager::UpdateError> {
        self.inner.layout.synced(version).await
    }

    /// Refuses a coordinator that acts on an older layout than this node acknowledged; the refusal tells it the newer one.
    pub fn check_layout_mark(&self, mark: &LayoutMark) -> Result<(), Refusal> {
        self.inner.layout.check_mark(mark)
    }

    pub(crate) fn keeper(&self) -> &LayoutKeeper {
        &self.inner.layout
    }

    // ---- Peers ----

    /// Self first, then the same zone, then by round-trip time; those that cannot be reached last.
    pub fn order_by_nearness(&self, nodes: &mut [NodeId]) {
        let held = self.inner.layout.held();
        let zone = |node: NodeId| held.history.current().role(node).map(|role| role.zone.as_str());
        let own_zone = zone(self.local());
        self.inner.membership.with_book(|book, now| {
            nodes.sort_by_cached_key(|&node| {
                let peer = book.peer(node);
                Nearness {
                    is_other: node != self.local(),
                    is_down: node != self.local() && !peer.is_some_and(|peer| peer.is_up(now)),
                    is_other_zone: own_zone.is_none() || zone(node) != own_zone,
                    rtt: peer.and_then(|peer| peer.rtt).unwrap_or(Duration::MAX),
                    node,
                }
            });
        });
    }
    /// Whether a node can be expected to answer: this node itself, or one that is connected and alive by the gossip.
    pub fn is_up(&self, node: NodeId) -> bool {
        node == self.local() || self.inner.membership.with_book(|book, now| book.peer(node).is_some_and(|peer| peer.is_up(now)))
    }
    /// Whether of every partition a quorum of the nodes is up, in each live version of the layout. True without a layout.
    pub fn has_quorums(&self) -> bool {
        let layout = self.layout();
        let up: BTreeSet<NodeId> = layout.live_nodes().into_iter().filter(|node| self.is_up(*node)).collect();
        layout.current().partitions().all(|partition| match self.placement_of(partition) {
            Ok(placement) => placement.write.has_quorum(&up),
            Err(LayoutNotReady) => true,
        })
    }
    /// Waits until [`has_quorums`](Cluster::has_quorums), for a node that has just started and is still dialling; false after `patience`.
    pub async fn await_quorums(&self, patience: Duration) -> bool {
        // Subscribed before the first look, so that no change is missed.
        let mut changes = self.peer_changes();
        let wait = async {
            while !self.has_quorums() {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        timeout(patience, wait).await.is_ok()
    }
    /// The measured round-trip time to a connected node.
    pub fn rtt(&self, node: NodeId) -> Option<Duration> {
        self.inner.membership.with_book(|book, _| book.peer(node).and_then(|peer| peer.rtt))
    }
    /// How long to wait for a node before the next one is asked as well.
    pub fn hedge_delay(&self, node: NodeId) -> Duration {
        self.inner.membership.hedge_delay(node)
    }
    /// Every node that is known, this one first, then by id.
    pub fn status(&self) -> Vec<NodeStatus> {
        self.inner.membership.status(self)
    }
    /// Addresses that were refused or refused us and whose node is not known, with the reason.
    pub fn refused_addresses(&self) -> Vec<(std::net::SocketAddr, String)> {
        self.inner.membership.with_book(|book, _| book.refusals().iter().map(|(address, reason)| (*address, reason.clone())).collect())
    }
    /// Changes whenever a node comes up, goes down or is learnt.
    pub fn peer_changes(&self) -> Watcher {
        self.inner.membership.changes()
    }
    /// Dials `address`, where `node` is expected, and keeps it as a peer; what `garage node connect` does.
    pub async fn connect(&self, node: NodeId, address: &str) -> Result<(), ConnectFailed> {
        self.inner.membership.connect(self, node, address).await
    }
    /// Tells the others how much space is left here.
    pub fn report_space(&self, report: SpaceReport) {
        self.inner.membership.report_space(report);
    }
    /// Remembers the mark that came with an acknowledgement of `node`; tells if its store is another one than before.
    ///
    /// A store that was set back is noticed at the next handshake and shown by [`Cluster::status`].
    pub fn note_store_mark(&self, node: NodeId, mark: StoreMark) -> Option<StoreRegression> {
        self.inner.membership.note_store_mark(node, mark)
    }

    /// What the others know of this node's store, as far as they were asked since it started.
    pub fn own_store(&self) -> OwnStore {
        self.inner.membership.own_store()
    }

    /// Notes that the loss that [`OwnStore::SetBack`] tells of has been seen to.
    pub fn own_store_seen_to(&self, seen_to: StoreMark) {
        self.inner.membership.own_store_seen_to(seen_to);
    }

    /// What this node tells of its work on layouts and losses, shown with its status on all nodes.
    pub fn report_work(&self, work: WorkReport) {
        self.inner.membership.report_work(work);
    }

    pub(crate) fn membership(&self) -> &Arc<Membership> {
        &self.inner.membership
    }
    pub(crate) fn transport(&self) -> Option<Arc<dyn Transport>> {
        self.inner.wiring.load().as_ref().map(|wiring| wiring.transport.clone())
    }

    // ---- Stamps ----

    /// A fresh stamp, greater than every earlier one of this node and than `above`, and covered by the durable ceiling.
    pub async fn tick(&self, above: Stamp) -> Result<Stamp, ClockError> {
        self.inner.clock.tick(above).await
    }
    /// Refuses when this node's stamps have drifted away from its wall clock.
    pub fn check_skew(&self) -> Result<(), SkewError> {
        self.inner.clock.check_skew()
    }

    /// Takes over what a peer's wall clock said, and corrects this node's stamps if most others are far from its own clock.
    pub(crate) fn note_clock(&self, node: NodeId, told_ms: u64, rtt: Duration) {
        self.inner.membership.note_clock(node, told_ms, rtt);
        self.inner.clock.correct(&self.inner.membership.clocks_ahead_ms());
    }
    /// By how much this node's stamps are set apart from its own wall clock, in milliseconds, because most others' clocks differ from it
    /// by more than a minute.
    pub fn clock_correction_ms(&self) -> i64 {
        self.inner.clock.correction_ms()
    }

    // ---- Calls ----

    /// Calls to several nodes: quorums and hedging.
    pub fn quorum(&self) -> &QuorumCalls {
        &self.inner.quorum
    }

    /// Asks `to`; a call to this node takes the same handler without the network.
    ///
    /// After a `StaleLayout` refusal the newer layout has been taken over: plan again.
    pub async fn call<M: Message>(&self, to: NodeId, message: &M, options: CallOptions) -> Result<M::Answer, CallError> {
        self.call_encoded(to, &Encoded::new(message), options).await
    }

    /// The same with a message that is encoded already.
    pub async fn call_encoded<M: Message>(&self, to: NodeId, message: &Encoded<M>, options: CallOptions) -> Result<M::Answer, CallError> {
        Ok(self.call_with_body(to, message, None, options).await?.0)
    }

    /// The same with a body that is streamed behind the message, and one that may follow the answer.
    pub async fn call_with_body<M: Message>(
        &self,
        to: NodeId,
        message: &Encoded<M>,
        body: Option<BodyStream>,
        options: CallOptions,
    ) -> Result<(M::Answer, Option<BodyStream>), CallError> {
        let Some(wiring) = self.inner.wiring.load_full() else { return Err(CallError::NotConnected(to)) };
        let class = options.class.unwrap_or(M::CLASS);
        let (deadline, trace, layout, payload) = (options.deadline, options.trace, self.layout_mark(), message.payload());
        let answer = if to == self.local() {
            let from = Caller { node: to, address: None };
            let kind = M::KIND.to_string();
            let handled = wiring.router.run(Incoming { from, kind, class, deadline, trace, layout, payload, body });
            timeout_at(deadline, handled).await.map_err(|_| CallError::TimedOut)?.map_err(CallError::Refused)
        } else {
            let (asked_at, is_sample) = (Instant::now(), body.is_none() && matches!(class, Class::Control | Class::Metadata));
            let call = Call { kind: M::KIND, class, deadline, trace, layout, payload, body };
            let answer = wiring.transport.call(to, call).await;
            self.inner.membership.answered(to, &answer, is_sample.then(|| asked_at.elapsed()));
            answer
        };
        if let Err(CallError::Refused(refused)) = &answer {
            self.take_newer_layout(to, refused).await;
        }
        let answer = answer?;
        let decoded = rmp_serde::from_slice(&answer.payload);
        let decoded = decoded.map_err(|error| CallError::Broken(format!("the answer to {} cannot be read: {error}", M::KIND)))?;
        Ok((decoded, answer.body))
    }

    /// Takes over the layout that came with a `StaleLayout` refusal, so that the caller plans with it.
    async fn take_newer_layout(&self, from: NodeId, refused: &Refusal) {
        if refused.code != code::STALE_LAYOUT {
            return;
        }
        if let Err(error) = crate::layout_manager::merge_stored(self, &refused.detail).await {
            tracing::warn!(%from, %error, "the newer layout of a peer cannot be taken over");
        }
    }
}

/// Why `garage node connect` did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectFailed {
    /// The address has no meaning here.
    #[error("{address}: {error}; give it as <id>@<host>:<port>")]
    Resolve {
        /// What was given.
        address: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// The transport failed.
    #[error(transparent)]
    Connect(#[from] garage_net::ConnectError),
    /// The node is not on the network.
    #[error("this node is starting or stopping")]
    Offline,
}

/// The refusal for a caller outside the live layout versions.
pub(crate) fn not_a_member(node: NodeId) -> Refusal {
    refusal(code::NOT_A_MEMBER, format!("node {} has no role in the layout; assign it one with `garage layout assign`", node.short()))
}

fn first_8(bytes: &[u8; 32]) -> u64 {
    u64::from_be_bytes(bytes[..8].try_into().expect("8 of 32 bytes"))
}
