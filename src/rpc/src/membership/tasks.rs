//! The shell of the membership: tasks that carry datagrams and timers to the gossip, follow connections, dial, exchange and save.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, sync::atomic::Ordering, time::Duration};

use foca::Timer;
use futures::{
    StreamExt,
    stream::{self, FuturesUnordered},
};
use garage_net::{ConnectError, ConnectionEvent, NodeId, Transport};
use tokio::{
    sync::{broadcast::error::RecvError, mpsc},
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    Membership, Receiver,
    book::Dial,
    exchange::exchange_with,
    swim::{Effect, Life, Swim},
};
use crate::{
    cluster::Cluster,
    limits::{ANNOUNCE_PERIOD, DIAL_BACKOFF_MAX, DIAL_TIMEOUT, DIALS_MAX, EXCHANGE_PERIOD},
};

/// How often round-trip times are read from the transport.
const MEASURE_PERIOD: Duration = Duration::from_secs(1);
/// How long news of nodes are gathered before they are told on.
const SPREAD_DELAY: Duration = Duration::from_millis(200);
/// How often store marks, which change with every write, are saved with the peers.
const SAVE_PERIOD: Duration = Duration::from_secs(30);

/// Starts everything; the tasks end when the node stops.
pub(crate) fn start(cluster: &Cluster, transport: Arc<dyn Transport>, receiver: Receiver) {
    let (greet, greeted) = mpsc::unbounded_channel();
    let runtime = cluster.runtime().clone();
    // Subscribed before the first look at the connections, so that none is missed.
    let events = transport.events();
    runtime.spawn("gossip", gossip(cluster.clone(), transport.clone(), receiver.0, greeted));
    runtime.spawn("connections", follow_connections(cluster.clone(), transport.clone(), events, greet));
    runtime.spawn("dialling", dial(cluster.clone(), transport.clone()));
    runtime.spawn("exchange", spread(cluster.clone()));
    runtime.spawn("peer list", save(cluster.clone()));
    runtime.spawn("round-trip times", measure(cluster.clone(), transport));
}

// ---- Gossip ----

/// Timers by when they run off; the number keeps those of one moment in order.
type Timers = BTreeMap<(Instant, u64), Timer<Life>>;

async fn gossip(
    cluster: Cluster,
    transport: Arc<dyn Transport>,
    mut datagrams: mpsc::Receiver<(NodeId, bytes::Bytes)>,
    mut greeted: mpsc::UnboundedReceiver<NodeId>,
) {
    let membership = cluster.membership().clone();
    let mut seed = [0; 32];
    cluster.runtime().fill_random(&mut seed);
    let mut swim = Swim::new(cluster.local(), membership.generation.load(Ordering::Relaxed), seed);
    let mut timers = Timers::new();
    let mut timer_number = 0;
    let mut layout = cluster.layout_changes();
    let mut announce_at = Instant::now();
    loop {
        let timer_at = timers.keys().next().map_or(announce_at, |(at, _)| (*at).min(announce_at));
        // Each branch either takes one thing out of its queue or leaves all in place.
        let (effects, done) = tokio::select! {
            biased;
            () = sleep_until(timer_at) => {
                if announce_at <= Instant::now() {
                    announce_at = Instant::now() + ANNOUNCE_PERIOD;
                    swim.announce(&membership.own_announcement(&cluster))
                } else if let Some((_, timer)) = timers.pop_first() {
                    swim.on_timer(timer)
                } else {
                    continue;
                }
            }
            Some((from, data)) = datagrams.recv() => {
                membership.heard(from);
                swim.on_datagram(from, &data)
            }
            Some(node) = greeted.recv() => swim.greet(node),
            _ = layout.changed() => swim.announce(&membership.own_announcement(&cluster)),
            () = membership.announce_wakes.notified() => swim.announce(&membership.own_announcement(&cluster)),
        };
        if let Err(error) = done {
            tracing::debug!(%error, "gossip");
        }
        for effect in effects {
            match effect {
                Effect::Send(to, data) => transport.datagram(to, data),
                Effect::After(delay, timer) => {
                    timer_number += 1;
                    timers.insert((Instant::now() + delay, timer_number), timer);
                }
                Effect::Alive(node, is_alive) => membership.note_alive(node, is_alive),
                Effect::Renewed(generation) => {
                    membership.generation.store(generation, Ordering::Relaxed);
                    membership.save_wakes.notify_one();
                }
                Effect::Heard(announcement) => membership.note_announcement(&cluster, *announcement),
            }
        }
    }
}

impl Membership {
    fn note_alive(&self, node: NodeId, is_alive: bool) {
        tracing::info!(%node, is_alive, "the gossip changed its mind");
        self.book.lock().suspected(node, !is_alive);
        self.changed.tell();
    }

    fn note_announcement(&self, cluster: &Cluster, announcement: super::Announcement) {
        let (node, digest) = (announcement.node, announcement.history_digest);
        self.learn(super::PeerRecord { node, addresses: Vec::new(), announcement: Some(announcement) });
        if digest != cluster.keeper().held().digest && self.connected().contains(&node) {
            cluster.keeper().want_sync(node);
        }
    }

    /// A node that was learnt only after its connection came up: its connection counts from now on.
    pub(super) fn note_link(&self, cluster: &Cluster, node: NodeId) {
        if self.with_book(|book, _| book.peer(node).is_none_or(|peer| peer.link.is_some())) {
            return;
        }
        let Some(transport) = cluster.transport() else { return };
        if let Some(connection) = transport.connections().into_iter().find(|connection| connection.node == node) {
            self.note_connected(node, connection.address);
        }
    }

    fn note_connected(&self, node: NodeId, address: SocketAddr) {
        let learned = self.book.lock().connected(node, address, Instant::now(), self.runtime.now_ms());
        self.follow_up(learned);
        self.changed.tell();
    }
}

// ---- Connections ----

async fn follow_connections(
    cluster: Cluster,
    transport: Arc<dyn Transport>,
    mut events: tokio::sync::broadcast::Receiver<ConnectionEvent>,
    greet: mpsc::UnboundedSender<NodeId>,
) {
    let membership = cluster.membership().clone();
    let up = |node, address| {
        membership.note_connected(node, address);
        let _ = greet.send(node);
        let cluster = cluster.clone();
        cluster.runtime().clone().spawn("first exchange", async move {
            // A client that has no handlers refuses; it is then no peer.
            if let Err(error) = exchange_with(&cluster, node).await {
                tracing::debug!(%node, %error, "nothing was exchanged");
            }
        });
    };
    transport.connections().into_iter().for_each(|connection| up(connection.node, connection.address));
    loop {
        match events.recv().await {
            Ok(ConnectionEvent::Up { node, address }) => up(node, address),
            Ok(ConnectionEvent::Down { node, reason }) => {
                let is_peer = membership.book.lock().disconnected(node, Instant::now());
                // Others are command lines, which come and go.
                if is_peer {
                    tracing::info!(%node, reason, "connection lost");
                } else {
                    tracing::debug!(%node, reason, "a client has gone");
                }
                membership.changed.tell();
                membership.dial_wakes.notify_one();
            }
            Ok(ConnectionEvent::Refused { address, node, reason }) => {
                tracing::warn!(%address, ?node, reason, "connection refused");
                membership.book.lock().refused(address, node, reason);
            }
            // Events were missed: what is connected now decides.
            Err(RecvError::Lagged(_)) => resync(&membership, transport.as_ref(), &up),
            Err(RecvError::Closed) => return,
        }
    }
}

/// Brings the book in line with the connections there are.
fn resync(membership: &Membership, transport: &dyn Transport, up: &impl Fn(NodeId, SocketAddr)) {
    let connections: BTreeMap<NodeId, SocketAddr> =
        transport.connections().into_iter().map(|connection| (connection.node, connection.address)).collect();
    let known = membership.connected();
    for node in known.iter().filter(|node| !connections.contains_key(node)) {
        membership.book.lock().disconnected(*node, Instant::now());
    }
    for (node, address) in connections.into_iter().filter(|(node, _)| !known.contains(node)) {
        up(node, address);
    }
    membership.changed.tell();
    membership.dial_wakes.notify_one();
}

async fn measure(cluster: Cluster, transport: Arc<dyn Transport>) {
    loop {
        let connections = transport.connections();
        {
            let mut book = cluster.membership().book.lock();
            for connection in connections {
                if let Some(peer) = book.peer_mut(connection.node) {
                    peer.rtt = connection.rtt;
                }
            }
        }
        sleep(MEASURE_PERIOD).await;
    }
}

// ---- Dialling ----

async fn dial(cluster: Cluster, transport: Arc<dyn Transport>) {
    let membership = cluster.membership().clone();
    let places = Arc::new(tokio::sync::Semaphore::new(DIALS_MAX));
    loop {
        let due = membership.book.lock().due_dials(Instant::now(), places.available_permits());
        for dial in due {
            let Ok(place) = places.clone().try_acquire_owned() else { break };
            let (membership, transport) = (membership.clone(), transport.clone());
            cluster.runtime().spawn("dial", async move {
                let failure = dial_one(transport.as_ref(), &dial).await.err();
                let random = membership.runtime.random_u64();
                membership.book.lock().dialled(dial.node, failure, Instant::now(), random);
                drop(place);
                membership.dial_wakes.notify_one();
            });
        }
        let next = membership.with_book(|book, now| book.next_dial_at().unwrap_or(now + DIAL_BACKOFF_MAX));
        // With all places taken the next is due when a dial ends, which wakes; a past moment would spin.
        let next = if places.available_permits() == 0 { Instant::now() + DIAL_TIMEOUT } else { next };
        // Losing the race loses nothing: a wake-up is kept until it is awaited.
        tokio::select! { biased; () = membership.dial_wakes.notified() => {} () = sleep_until(next) => {} }
    }
}

/// Tries all addresses at once, so that an old one costs no time; the sentence of the last failure.
async fn dial_one(transport: &dyn Transport, dial: &Dial) -> Result<(), String> {
    let (mut refused, mut failure) = (None, String::from("no address is known"));
    let mut attempts: FuturesUnordered<_> = dial.addresses.iter().map(|text| dial_address(transport, dial.node, text)).collect();
    // Dropping the attempts still under way loses nothing: the node is connected.
    while let Some(attempt) = attempts.next().await {
        match attempt {
            Ok(()) => return Ok(()),
            // What a peer said is worth more to the operator than an address where nobody is.
            Err((ConnectError::Refused { .. }, sentence)) => refused = Some(sentence),
            Err((_, sentence)) => failure = sentence,
        }
    }
    Err(refused.unwrap_or(failure))
}

async fn dial_address(transport: &dyn Transport, node: NodeId, text: &str) -> Result<(), (ConnectError, String)> {
    let unreachable = |address, sentence: String| (ConnectError::Unreachable { address }, sentence);
    let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let addresses = resolve(text).await.map_err(|error| unreachable(nowhere, format!("{text}: {error}")))?;
    let mut failure = unreachable(nowhere, format!("{text} is no address"));
    for address in addresses {
        match timeout(DIAL_TIMEOUT, transport.connect(address, Some(node))).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => {
                let sentence = error.to_string();
                failure = (error, sentence);
            }
            Err(_) => {
                failure = unreachable(address, format!("{address} does not answer; check that the node runs and that UDP reaches it"))
            }
        }
    }
    Err(failure)
}

/// The socket addresses of a `host:port`.
pub(super) async fn resolve(text: &str) -> std::io::Result<Vec<SocketAddr>> {
    match text.parse() {
        Ok(address) => Ok(vec![address]),
        Err(_) => Ok(tokio::net::lookup_host(text).await?.collect()),
    }
}

// ---- Exchange and saving ----

/// Tells all connected nodes when a node was learnt, and one of them, in turn, now and then.
async fn spread(cluster: Cluster) {
    let membership = cluster.membership().clone();
    loop {
        // Losing the race loses nothing: a wake-up is kept until it is awaited.
        let to_all = tokio::select! {
            biased;
            () = membership.spread_wakes.notified() => true,
            () = sleep(EXCHANGE_PERIOD) => false,
        };
        let mut targets: Vec<NodeId> = membership.connected().into_iter().collect();
        if to_all {
            sleep(SPREAD_DELAY).await;
        } else if !targets.is_empty() {
            let index = membership.runtime.random_u64() as usize % targets.len();
            targets = vec![targets[index]];
        }
        stream::iter(targets)
            .for_each_concurrent(DIALS_MAX, |node| {
                let cluster = &cluster;
                async move {
                    if let Err(error) = exchange_with(cluster, node).await {
                        tracing::debug!(%node, %error, "nothing was exchanged");
                    }
                }
            })
            .await;
    }
}

/// Saves the peers at once when one is learnt.
async fn save(cluster: Cluster) {
    let membership = cluster.membership().clone();
    let mut saved = None;
    loop {
        // Losing the race loses nothing: a wake-up is kept until it is awaited.
        tokio::select! { biased; () = membership.save_wakes.notified() => {} () = sleep(SAVE_PERIOD) => {} }
        let now = membership.book.lock().saved(membership.generation.load(Ordering::Relaxed));
        if saved.as_ref() == Some(&now) {
            continue;
        }
        match membership.save().await {
            Ok(()) => saved = Some(now),
            Err(error) => tracing::error!(%error, "the peer list cannot be saved"),
        }
    }
}
