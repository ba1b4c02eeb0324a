//! Who is there: gossip, the peers' addresses, and the connections to all of them.
//!
//! Every node dials every node it knows, so the mesh is full; the gossip only tells who died and spreads announcements, and an
//! exchange with each new connection spreads addresses. Knowing one node is therefore enough to find all. Peers are saved as soon as
//! they are learnt, and dialled at once after a start.
//!
//! Reading order: `announcement`, `book` (pure: what is known of peers), `swim` (pure: the gossip), `exchange` (two nodes tell each
//! other what they know), `tasks` (the shell). Membership never decides where data lives: the layout does.

mod announcement;
mod book;
mod exchange;
mod swim;
mod tasks;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use garage_net::{Answer, CallError, NodeId};
use garage_util::{
    changes::{Changes, Watcher},
    runtime::Runtime,
};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

pub use announcement::{Announcement, PeerRecord, SpaceLeft, SpaceReport, WorkReport};
pub(crate) use exchange::register_handlers;
pub use exchange::{Exchange, Told};
pub(crate) use tasks::start;

use self::book::{Learned, PeerBook, SavedPeers};
use crate::{
    cluster::{Cluster, ClusterOptions, ConnectFailed, StoreMark},
    limits::{DATAGRAMS_WAITING_MAX, DIAL_TIMEOUT},
    peers::hedge_delay,
    state::{StateError, StateFiles},
    status::{NodeStatus, StoreRegression},
};

const FILE: &str = "peer_list";

/// What the others know of this node's own store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnStore {
    /// Nobody was asked yet since this node started.
    Unheard,
    /// Nobody knows of more than there is.
    Good,
    /// It had come further once: what it acknowledged since may be lost.
    SetBack(StoreMark),
}

#[derive(Default)]
struct OwnStoreState {
    is_heard: bool,
    set_back: Option<StoreMark>,
    /// Losses up to here have been seen to.
    seen_to: Option<StoreMark>,
}

/// What waits for the gossip task.
pub(crate) struct Receiver(mpsc::Receiver<(NodeId, Bytes)>);

/// The membership of one node.
pub(crate) struct Membership {
    local: NodeId,
    runtime: Runtime,
    files: StateFiles,
    hostname: String,
    release: String,
    public_address: Option<String>,
    own_mark: Arc<dyn Fn() -> StoreMark + Send + Sync>,
    book: Mutex<PeerBook>,
    /// One save at a time, each with the newest state.
    saving: tokio::sync::Mutex<()>,
    space: Mutex<SpaceReport>,
    work: Mutex<WorkReport>,
    own_store: Mutex<OwnStoreState>,
    generation: AtomicU64,
    sequence: AtomicU64,
    datagrams: mpsc::Sender<(NodeId, Bytes)>,
    changed: Changes,
    /// Something worth saving was learnt.
    save_wakes: Notify,
    /// Somebody may have to be dialled.
    dial_wakes: Notify,
    /// A node was learnt that the others may not know yet.
    spread_wakes: Notify,
    /// What this node says of itself has changed.
    announce_wakes: Notify,
}

impl Membership {
    pub(crate) async fn open(options: ClusterOptions) -> Result<(Arc<Membership>, Receiver), StateError> {
        let saved: SavedPeers = options.files.load(FILE).await?.unwrap_or_default();
        let (datagrams, receiver) = mpsc::channel(DATAGRAMS_WAITING_MAX);
        let now = Instant::now();
        let mut book = PeerBook::new(options.local);
        // Configured addresses are learnt last, so that they stand behind the ones that worked.
        for peer in saved.peers {
            book.learn(PeerRecord { node: peer.node, addresses: peer.addresses, announcement: None }, now);
            if let (Some(known), Some(mark)) = (book.peer_mut(peer.node), peer.store_mark) {
                known.store_mark = Some(mark);
            }
        }
        for (node, address) in options.bootstrap_peers {
            book.learn(PeerRecord { node, addresses: vec![address], announcement: None }, now);
        }
        let membership = Membership {
            local: options.local,
            // Lives rise over restarts even if the clock was set back; the clock counts as well, should the list have been lost.
            generation: AtomicU64::new((saved.generation + 1).max(options.runtime.now_ms())),
            runtime: options.runtime,
            files: options.files,
            hostname: options.hostname,
            release: options.release,
            public_address: options.public_address,
            own_mark: options.own_mark,
            book: Mutex::new(book),
            saving: tokio::sync::Mutex::new(()),
            space: Mutex::new(SpaceReport::default()),
            work: Mutex::default(),
            own_store: Mutex::default(),
            sequence: AtomicU64::new(0),
            datagrams,
            changed: Changes::new(),
            save_wakes: Notify::new(),
            dial_wakes: Notify::new(),
            spread_wakes: Notify::new(),
            announce_wakes: Notify::new(),
        };
        // A node whose disk is full still serves reads; the list is saved again with the next change, and the clock makes up for its number.
        if let Err(error) = membership.save().await {
            tracing::error!(%error, "the peer list cannot be saved");
        }
        Ok((Arc::new(membership), Receiver(receiver)))
    }

    /// Looks at the book; short, never held over a wait.
    pub(crate) fn with_book<T>(&self, look: impl FnOnce(&PeerBook, Instant) -> T) -> T {
        look(&self.book.lock(), Instant::now())
    }
    pub(crate) fn changes(&self) -> Watcher {
        self.changed.watch()
    }
    /// The nodes that are known and connected, sorted.
    pub(crate) fn connected(&self) -> BTreeSet<NodeId> {
        let book = self.book.lock();
        book.peers().iter().filter(|(_, peer)| peer.link.is_some()).map(|(node, _)| *node).collect()
    }

    pub(crate) fn hedge_delay(&self, node: NodeId) -> Duration {
        let book = self.book.lock();
        let peer = book.peer(node);
        hedge_delay(peer.and_then(|peer| peer.latencies.p95()), peer.and_then(|peer| peer.rtt))
    }

    /// Something came from a node.
    pub(crate) fn heard(&self, node: NodeId) {
        self.book.lock().heard(node, Instant::now(), self.runtime.now_ms());
    }

    /// A call ended; `latency` if it counts as a sample.
    pub(crate) fn answered(&self, node: NodeId, answer: &Result<Answer, CallError>, latency: Option<Duration>) {
        if !matches!(answer, Ok(_) | Err(CallError::Refused(_))) {
            return;
        }
        let mut book = self.book.lock();
        book.heard(node, Instant::now(), self.runtime.now_ms());
        if let (Some(peer), Some(latency)) = (book.peer_mut(node), latency) {
            peer.latencies.record(latency);
        }
    }

    /// A full queue drops it, as a network would.
    pub(crate) fn on_datagram(&self, from: NodeId, data: Bytes) {
        let _ = self.datagrams.try_send((from, data));
    }

    pub(crate) fn report_space(&self, report: SpaceReport) {
        *self.space.lock() = report;
    }

    pub(crate) fn report_work(&self, work: WorkReport) {
        let mut held = self.work.lock();
        if *held != work {
            *held = work;
            self.announce_wakes.notify_one();
        }
    }

    /// See [`Cluster::own_store`].
    pub(crate) fn own_store(&self) -> OwnStore {
        let state = self.own_store.lock();
        match (state.set_back, state.is_heard) {
            (Some(known), _) => OwnStore::SetBack(known),
            (None, true) => OwnStore::Good,
            (None, false) => OwnStore::Unheard,
        }
    }

    /// See [`Cluster::own_store_seen_to`].
    pub(crate) fn own_store_seen_to(&self, seen_to: StoreMark) {
        let mut state = self.own_store.lock();
        state.seen_to = Some(seen_to);
        state.set_back = state.set_back.filter(|known| !is_covered(*known, Some(seen_to)));
    }

    /// A peer told how far it knows this node's store to have come. What is acknowledged is committed, so a store that is whole is
    /// never behind what was told before it is looked at.
    fn compare_own_store(&self, known: Option<StoreMark>) {
        let own = (self.own_mark)();
        let mut state = self.own_store.lock();
        state.is_heard = true;
        let Some(known) = known.filter(|known| known.store_id == own.store_id && own.commit_number < known.commit_number) else { return };
        if !is_covered(known, state.seen_to) && state.set_back.is_none_or(|set_back| set_back.commit_number < known.commit_number) {
            tracing::error!(
                own = own.commit_number,
                known = known.commit_number,
                "this node's metadata store was set back: a snapshot was restored, or commits are lost"
            );
            state.set_back = Some(known);
        }
    }

    /// A peer's wall clock was read over a call that took `rtt`: how far it is ahead of this node's is taken over, and the clock corrected.
    pub(crate) fn note_clock(&self, node: NodeId, told_ms: u64, rtt: Duration) {
        if told_ms == 0 {
            return;
        }
        let now_ms = self.runtime.now_ms() as i64;
        let ahead_ms = told_ms as i64 + rtt.as_millis() as i64 / 2 - now_ms;
        if let Some(peer) = self.book.lock().peer_mut(node) {
            peer.clock_ahead_ms = Some(ahead_ms);
        }
    }

    /// How far the clocks of peers that are up are ahead of this node's, in milliseconds.
    pub(crate) fn clocks_ahead_ms(&self) -> Vec<i64> {
        let now = Instant::now();
        self.book.lock().peers().values().filter(|peer| peer.is_up(now)).filter_map(|peer| peer.clock_ahead_ms).collect()
    }

    /// Takes what was told of a peer, saves it and has it dialled.
    fn learn(&self, record: PeerRecord) -> Learned {
        let mark = record.announcement.as_ref().and_then(|said| Some((said.node, said.store_mark?)));
        let learned = self.book.lock().learn(record, Instant::now());
        if let Some((node, mark)) = mark {
            self.note_store_mark(node, mark);
        }
        self.follow_up(learned);
        learned
    }

    fn follow_up(&self, learned: Learned) {
        if learned.is_worth_saving {
            self.save_wakes.notify_one();
            self.dial_wakes.notify_one();
        }
        if learned.is_new_node {
            self.spread_wakes.notify_one();
            self.changed.tell();
        }
    }

    async fn save(&self) -> Result<(), StateError> {
        let _one_at_a_time = self.saving.lock().await;
        let saved = self.book.lock().saved(self.generation.load(Ordering::Relaxed));
        self.files.save(FILE, &saved).await
    }

    /// What this node says of itself now.
    fn own_announcement(&self, cluster: &Cluster) -> Announcement {
        let held = cluster.keeper().held();
        let announcement = Announcement {
            node: self.local,
            generation: self.generation.load(Ordering::Relaxed),
            sequence: self.sequence.fetch_add(1, Ordering::Relaxed),
            hostname: self.hostname.clone(),
            release: self.release.clone(),
            public_address: self.public_address.clone(),
            layout: held.mark,
            history_digest: held.digest,
            space: *self.space.lock(),
            store_mark: Some((self.own_mark)()),
            work: *self.work.lock(),
            clock_ms: self.runtime.now_ms(),
        };
        announcement.trimmed()
    }

    /// See [`Cluster::connect`].
    pub(crate) async fn connect(&self, cluster: &Cluster, node: NodeId, address: &str) -> Result<(), ConnectFailed> {
        let transport = cluster.transport().ok_or(ConnectFailed::Offline)?;
        let resolved = tasks::resolve(address).await;
        let resolved = resolved.map_err(|error| ConnectFailed::Resolve { address: address.to_string(), error })?;
        let mut failure = ConnectFailed::Offline;
        for socket_address in resolved {
            let dialled = tokio::time::timeout(DIAL_TIMEOUT, transport.connect(socket_address, Some(node))).await;
            match dialled.unwrap_or(Err(garage_net::ConnectError::Unreachable { address: socket_address })) {
                Ok(_) => {
                    self.learn(PeerRecord { node, addresses: vec![address.to_string()], announcement: None });
                    self.book.lock().connected(node, socket_address, Instant::now(), self.runtime.now_ms());
                    // Saved before it is answered: an operator may stop the node right away.
                    if let Err(error) = self.save().await {
                        tracing::error!(%error, "the peer list cannot be saved");
                    }
                    if let Err(error) = exchange::exchange_with(cluster, node).await {
                        tracing::debug!(%node, %error, "nothing was exchanged yet");
                    }
                    return Ok(());
                }
                Err(error) => failure = error.into(),
            }
        }
        Err(failure)
    }

    /// See [`Cluster::note_store_mark`].
    pub(crate) fn note_store_mark(&self, node: NodeId, mark: StoreMark) -> Option<StoreRegression> {
        let mut book = self.book.lock();
        let peer = book.peer_mut(node)?;
        let known = peer.store_mark.get_or_insert(mark);
        if known.store_id != mark.store_id {
            return Some(StoreRegression { known: *known, found: mark });
        }
        // Acknowledgements can overtake each other.
        known.commit_number = known.commit_number.max(mark.commit_number);
        None
    }

    /// Compares the mark that a peer tells in an exchange with what it had acknowledged before the connection came up.
    fn compare_store_mark(&self, node: NodeId, mark: StoreMark) {
        let mut regression = self.note_store_mark(node, mark);
        let mut book = self.book.lock();
        let Some(peer) = book.peer_mut(node) else { return };
        // Not with the highest mark of all: one that was acknowledged during this very exchange would look like a loss.
        if let Some(known) = peer.store_mark_at_link.filter(|known| mark.commit_number < known.commit_number) {
            regression = regression.or(Some(StoreRegression { known, found: mark }));
        }
        if let Some(regression) = regression.filter(|_| peer.store_regression.is_none()) {
            tracing::error!(%node, "{regression}");
        }
        if regression.is_some_and(|regression| regression.known.store_id != mark.store_id) {
            // It knows itself that its store is a new one; from now on that one counts.
            (peer.store_mark, peer.store_mark_at_link) = (Some(mark), Some(mark));
        }
        peer.store_regression = regression;
    }

    /// See [`Cluster::status`].
    pub(crate) fn status(&self, cluster: &Cluster) -> Vec<NodeStatus> {
        let own = NodeStatus {
            node: self.local,
            is_self: true,
            hostname: Some(self.hostname.clone()),
            address: self.public_address.clone(),
            release: Some(self.release.clone()),
            is_up: true,
            last_seen: Some(Duration::ZERO),
            rtt: None,
            refused: None,
            layout_version: Some(cluster.layout_mark().version),
            space: *self.space.lock(),
            work: *self.work.lock(),
            clock_ahead_ms: Some(0),
            store_regression: None,
        };
        let now = Instant::now();
        let book = self.book.lock();
        let others = book.peers().iter().map(|(node, peer)| {
            let said = peer.announcement.as_ref();
            NodeStatus {
                node: *node,
                is_self: false,
                hostname: said.map(|said| said.hostname.clone()),
                // What it says of itself: the other end of a connection that it dialled need not be where it listens.
                address: said
                    .and_then(|said| said.public_address.clone())
                    .or_else(|| peer.link.map(|link| link.to_string()))
                    .or_else(|| peer.addresses.first().cloned()),
                release: said.map(|said| said.release.clone()),
                is_up: peer.is_up(now),
                last_seen: peer.heard_at.map(|at| now.saturating_duration_since(at)),
                rtt: peer.rtt,
                refused: peer.refused.clone(),
                layout_version: said.map(|said| said.layout.version),
                space: said.map(|said| said.space).unwrap_or_default(),
                work: said.map(|said| said.work).unwrap_or_default(),
                clock_ahead_ms: peer.clock_ahead_ms,
                store_regression: peer.store_regression,
            }
        });
        std::iter::once(own).chain(others).collect()
    }
}

/// Whether a loss up to `known` has been seen to already.
fn is_covered(known: StoreMark, seen_to: Option<StoreMark>) -> bool {
    seen_to.is_some_and(|seen_to| seen_to.store_id == known.store_id && known.commit_number <= seen_to.commit_number)
}
