//! A network between nodes: every packet is delayed by chance, lost packets of a call are sent again later, datagrams are lost for good,
//! and any direction between two nodes can be cut.
//!
//! Not here: bytes on the wire and handshakes (`garage_net` tests them over real sockets).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use garage_net::{Answer, Call, CallError, Caller, ConnectError, ConnectionEvent, ConnectionInfo, Incoming, NodeId, Service, Transport};
use garage_util::{changes::Changes, runtime::Runtime};
use parking_lot::Mutex;
use tokio::{
    sync::broadcast,
    time::{sleep, timeout_at},
};

use crate::{seed::Seed, trace::Trace};

/// How the network behaves.
#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    /// One way, at the least.
    pub delay: Duration,
    /// On top of it, by chance.
    pub jitter: Duration,
    /// One packet in this many is lost; 0: none.
    pub lost_one_in: u64,
}

/// After how long a lost packet of a call is sent again.
const RESEND_DELAY: Duration = Duration::from_millis(200);
/// After how long a connection that carries nothing is given up.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// The network. Cheap to clone.
#[derive(Clone)]
pub struct Network(Arc<Mutex<Net>>);

struct Net {
    seed: Seed,
    conditions: Conditions,
    nodes: BTreeMap<NodeId, Attached>,
    /// Directions that carry nothing.
    cuts: BTreeSet<(NodeId, NodeId)>,
    /// Nodes whose every packet, either way, takes this much longer.
    slow: BTreeMap<NodeId, Duration>,
    /// Counts up at each change of cuts and nodes.
    changes: Changes,
    /// Calls and bytes, answers included and bodies not, by kind of message.
    traffic: BTreeMap<&'static str, Traffic>,
    trace: Trace,
}

/// What went over the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Calls that were answered.
    pub calls_count: u64,
    /// Bytes of questions and answers.
    pub bytes: u64,
}

struct Attached {
    address: SocketAddr,
    service: Arc<dyn Service>,
    events: broadcast::Sender<ConnectionEvent>,
    links: BTreeMap<NodeId, bool>,
}

impl Net {
    fn packet_delay(&mut self) -> Duration {
        let jitter_us = self.conditions.jitter.as_micros() as u64;
        let jitter = if jitter_us == 0 { Duration::ZERO } else { Duration::from_micros(self.seed.pick(jitter_us)) };
        let mut delay = self.conditions.delay + jitter;
        while self.seed.one_in(self.conditions.lost_one_in) {
            delay += RESEND_DELAY;
        }
        delay
    }
    fn delay_between(&mut self, from: NodeId, to: NodeId) -> Duration {
        let extra = |node: NodeId| self.slow.get(&node).copied().unwrap_or_default();
        let extra = extra(from).max(extra(to));
        self.packet_delay() + extra
    }
    fn tell(&self, node: NodeId, event: ConnectionEvent) {
        if let Some(attached) = self.nodes.get(&node) {
            // Nobody listening is a node that is stopping.
            let _ = attached.events.send(event);
        }
    }
    fn unlink(&mut self, a: NodeId, b: NodeId, reason: &str) {
        for (at, other) in [(a, b), (b, a)] {
            if self.nodes.get_mut(&at).is_some_and(|attached| attached.links.remove(&other).is_some()) {
                self.tell(at, ConnectionEvent::Down { node: other, reason: reason.to_string() });
            }
        }
    }
    fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.cuts.contains(&(from, to))
    }
    fn changed(&self) {
        self.changes.tell();
    }
}

impl Network {
    /// A network with these conditions; chance comes from `seed`, calls are told to `trace`.
    pub fn new(seed: Seed, conditions: Conditions, trace: Trace) -> Network {
        Network(Arc::new(Mutex::new(Net {
            seed,
            conditions,
            nodes: BTreeMap::new(),
            cuts: BTreeSet::new(),
            slow: BTreeMap::new(),
            changes: Changes::new(),
            traffic: BTreeMap::new(),
            trace,
        })))
    }

    /// What went over the network so far in messages whose kind begins so.
    pub fn traffic(&self, kind_prefix: &str) -> Traffic {
        let net = self.0.lock();
        let of_kind = net.traffic.iter().filter(|(kind, _)| kind.starts_with(kind_prefix)).map(|(_, traffic)| *traffic);
        of_kind
            .fold(Traffic::default(), |sum, one| Traffic { calls_count: sum.calls_count + one.calls_count, bytes: sum.bytes + one.bytes })
    }

    /// Changes the conditions.
    pub fn set_conditions(&self, conditions: Conditions) {
        self.0.lock().conditions = conditions;
    }

    /// Makes every packet of a node, either way, take this much longer; zero makes it as quick as the others.
    pub fn set_slow(&self, node: NodeId, extra: Duration) {
        self.0.lock().slow.insert(node, extra);
    }

    /// Puts a node at an address.
    pub fn attach(&self, node: NodeId, address: SocketAddr, runtime: Runtime, service: Arc<dyn Service>) -> Arc<dyn Transport> {
        let (events, _) = broadcast::channel(1_024);
        let mut net = self.0.lock();
        net.nodes.insert(node, Attached { address, service, events, links: BTreeMap::new() });
        net.changed();
        Arc::new(SimTransport { network: self.clone(), node, runtime })
    }

    /// Takes a node away, as if its process ended.
    pub fn detach(&self, node: NodeId) {
        let mut net = self.0.lock();
        let peers: Vec<NodeId> = net.nodes.get(&node).map(|attached| attached.links.keys().copied().collect()).unwrap_or_default();
        peers.into_iter().for_each(|peer| net.unlink(node, peer, "the peer stopped"));
        net.nodes.remove(&node);
        net.changed();
    }

    /// Cuts or mends one direction. A connection with a cut direction is given up after the idle time-out.
    pub fn cut(&self, from: NodeId, to: NodeId, is_cut: bool) {
        let mut net = self.0.lock();
        if is_cut {
            net.cuts.insert((from, to));
        } else {
            net.cuts.remove(&(from, to));
        }
        net.changed();
    }

    /// Mends everything.
    pub fn mend(&self) {
        let mut net = self.0.lock();
        net.cuts.clear();
        net.slow.clear();
        net.changed();
    }

    /// Delivers a packet: waits its delay, and for a cut direction to be mended; `Err` when the connection is given up or gone.
    async fn carry(&self, from: NodeId, to: NodeId) -> Result<(), CallError> {
        let delay = self.0.lock().delay_between(from, to);
        sleep(delay).await;
        let mut changes = self.0.lock().changes.watch();
        let waited = timeout_at(tokio::time::Instant::now() + IDLE_TIMEOUT, async {
            while self.0.lock().is_cut(from, to) {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        });
        let is_given_up = waited.await.is_err();
        let mut net = self.0.lock();
        if is_given_up {
            net.unlink(from, to, "nothing was heard");
        }
        let is_linked = net.nodes.get(&from).is_some_and(|own| own.links.contains_key(&to)) && net.nodes.contains_key(&to);
        if is_linked { Ok(()) } else { Err(CallError::Broken("the connection was lost".to_string())) }
    }
}

struct SimTransport {
    network: Network,
    node: NodeId,
    runtime: Runtime,
}

impl Transport for SimTransport {
    fn local_node(&self) -> NodeId {
        self.node
    }

    fn call(&self, to: NodeId, call: Call) -> BoxFuture<'static, Result<Answer, CallError>> {
        let (network, from, deadline) = (self.network.clone(), self.node, call.deadline);
        let exchange = async move {
            let (caller, service) = {
                let net = network.0.lock();
                let own = net.nodes.get(&from).filter(|own| own.links.contains_key(&to));
                let (Some(own), Some(peer)) = (own, net.nodes.get(&to)) else { return Err(CallError::NotConnected(to)) };
                net.trace.line(|| {
                    let (kind, hash) = (call.kind, blake3::hash(&call.payload).to_hex());
                    format!("{} -> {}: {kind} {} bytes {}", from.0[0], to.0[0], call.payload.len(), &hash[..8])
                });
                (Caller { node: from, address: Some(own.address) }, peer.service.clone())
            };
            network.carry(from, to).await?;
            let Call { kind, class, deadline, trace, layout, payload, body } = call;
            let asked_bytes = payload.len() as u64;
            let incoming = Incoming { from: caller, kind: kind.to_string(), class, deadline, trace, layout, payload, body };
            let answer = service.serve(incoming).await;
            network.carry(to, from).await?;
            let answer = answer.map_err(CallError::Refused)?;
            let mut net = network.0.lock();
            let traffic = net.traffic.entry(kind).or_default();
            traffic.calls_count += 1;
            traffic.bytes += asked_bytes + answer.payload.len() as u64;
            Ok(answer)
        };
        Box::pin(async move { timeout_at(deadline, exchange).await.unwrap_or(Err(CallError::TimedOut)) })
    }

    fn datagram(&self, to: NodeId, data: Bytes) {
        let (network, from) = (self.network.clone(), self.node);
        self.runtime.spawn("datagram", async move {
            let (delay, is_lost) = {
                let mut net = network.0.lock();
                let lost_one_in = net.conditions.lost_one_in;
                (net.delay_between(from, to), net.seed.one_in(lost_one_in))
            };
            sleep(delay).await;
            let service = {
                let net = network.0.lock();
                let is_linked = net.nodes.get(&from).is_some_and(|own| own.links.contains_key(&to));
                net.nodes.get(&to).filter(|_| is_linked && !is_lost && !net.is_cut(from, to)).map(|peer| peer.service.clone())
            };
            if let Some(service) = service {
                service.datagram(from, data);
            }
        });
    }

    fn connect(&self, address: SocketAddr, expected: Option<NodeId>) -> BoxFuture<'static, Result<NodeId, ConnectError>> {
        let (network, from) = (self.network.clone(), self.node);
        Box::pin(async move {
            let delay = network.0.lock().packet_delay() * 2;
            sleep(delay).await;
            let mut net = network.0.lock();
            let found = net.nodes.iter().find(|(_, attached)| attached.address == address).map(|(node, _)| *node);
            let own_address = net.nodes.get(&from).map(|own| own.address);
            let (Some(to), Some(own_address)) = (found, own_address) else { return Err(ConnectError::Unreachable { address }) };
            if to == from {
                return Err(ConnectError::Myself { address });
            }
            if net.is_cut(from, to) || net.is_cut(to, from) {
                return Err(ConnectError::Unreachable { address });
            }
            if let Some(expected) = expected.filter(|expected| *expected != to) {
                return Err(ConnectError::OtherNode { address, expected, found: to });
            }
            for (at, other, other_address, dialled) in [(from, to, address, true), (to, from, own_address, false)] {
                let is_new = net.nodes.get_mut(&at).is_some_and(|attached| attached.links.insert(other, dialled).is_none());
                if is_new {
                    net.tell(at, ConnectionEvent::Up { node: other, address: other_address });
                }
            }
            Ok(to)
        })
    }

    fn connections(&self) -> Vec<ConnectionInfo> {
        let net = self.network.0.lock();
        let Some(own) = net.nodes.get(&self.node) else { return Vec::new() };
        let info = |(node, dialled_by_us): (&NodeId, &bool)| {
            let address = net.nodes.get(node)?.address;
            Some(ConnectionInfo { node: *node, address, rtt: Some(net.conditions.delay * 2), dialled_by_us: *dialled_by_us })
        };
        own.links.iter().filter_map(info).collect()
    }

    fn events(&self) -> broadcast::Receiver<ConnectionEvent> {
        let net = self.network.0.lock();
        net.nodes.get(&self.node).map_or_else(|| broadcast::channel(1).1, |own| own.events.subscribe())
    }
}
