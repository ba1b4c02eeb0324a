//! A network in memory: connections between addresses, with delay, silent cuts, and a secret that must match.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use garage_net::{Answer, Call, CallError, Caller, ConnectError, ConnectionEvent, ConnectionInfo, Incoming, NodeId, Service, Transport};
use garage_util::runtime::Runtime;
use parking_lot::Mutex;
use tokio::{
    sync::broadcast,
    time::{sleep, sleep_until, timeout_at},
};

/// The network; cheap to clone.
#[derive(Clone, Default)]
pub struct MemoryNetwork(Arc<Mutex<Net>>);

#[derive(Default)]
struct Net {
    delay: Duration,
    nodes: BTreeMap<NodeId, Attached>,
    cuts: BTreeSet<(NodeId, NodeId)>,
}

struct Attached {
    address: SocketAddr,
    secret: u64,
    service: Arc<dyn Service>,
    events: broadcast::Sender<ConnectionEvent>,
    /// Connected nodes, and whether this side dialled.
    links: BTreeMap<NodeId, bool>,
}

impl Net {
    fn is_cut(&self, a: NodeId, b: NodeId) -> bool {
        self.cuts.contains(&(a.min(b), a.max(b)))
    }
    fn tell(&self, node: NodeId, event: ConnectionEvent) {
        if let Some(attached) = self.nodes.get(&node) {
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
}

impl MemoryNetwork {
    /// A network whose packets take `delay` one way.
    pub fn new(delay: Duration) -> MemoryNetwork {
        let network = MemoryNetwork::default();
        network.0.lock().delay = delay;
        network
    }

    /// Puts a node at an address.
    pub fn attach(
        &self,
        node: NodeId,
        address: SocketAddr,
        secret: u64,
        runtime: Runtime,
        service: Arc<dyn Service>,
    ) -> Arc<dyn Transport> {
        let (events, _) = broadcast::channel(1_024);
        self.0.lock().nodes.insert(node, Attached { address, secret, service, events, links: BTreeMap::new() });
        Arc::new(MemoryTransport { network: self.clone(), node, runtime })
    }

    /// Takes a node away, as if its process ended: its peers see the connections close.
    pub fn detach(&self, node: NodeId) {
        let mut net = self.0.lock();
        let peers: Vec<NodeId> = net.nodes.get(&node).map(|attached| attached.links.keys().copied().collect()).unwrap_or_default();
        peers.into_iter().for_each(|peer| net.unlink(node, peer, "the peer stopped"));
        net.nodes.remove(&node);
    }

    /// Loses every packet between two nodes from now on, or no longer; their connection stays open.
    pub fn cut(&self, a: NodeId, b: NodeId, is_cut: bool) {
        let mut net = self.0.lock();
        let pair = (a.min(b), a.max(b));
        net.cuts.remove(&pair);
        if is_cut {
            net.cuts.insert(pair);
        }
    }
}

struct MemoryTransport {
    network: MemoryNetwork,
    node: NodeId,
    runtime: Runtime,
}

impl Transport for MemoryTransport {
    fn local_node(&self) -> NodeId {
        self.node
    }

    fn call(&self, to: NodeId, call: Call) -> BoxFuture<'static, Result<Answer, CallError>> {
        let (network, from, deadline) = (self.network.clone(), self.node, call.deadline);
        let exchange = async move {
            let (delay, caller, service) = {
                let net = network.0.lock();
                let own = net.nodes.get(&from).filter(|own| own.links.contains_key(&to));
                let (Some(own), Some(peer)) = (own, net.nodes.get(&to)) else { return Err(CallError::NotConnected(to)) };
                (net.delay, Caller { node: from, address: Some(own.address) }, peer.service.clone())
            };
            sleep(delay).await;
            lost_if_cut(&network, from, to).await;
            let Call { kind, class, deadline, trace, layout, payload, body } = call;
            let incoming = Incoming { from: caller, kind: kind.to_string(), class, deadline, trace, layout, payload, body };
            let answer = service.serve(incoming).await;
            sleep(delay).await;
            lost_if_cut(&network, from, to).await;
            if !network.0.lock().nodes.contains_key(&to) {
                return Err(CallError::Broken("the peer stopped".to_string()));
            }
            answer.map_err(CallError::Refused)
        };
        Box::pin(async move { timeout_at(deadline, exchange).await.unwrap_or(Err(CallError::TimedOut)) })
    }

    fn datagram(&self, to: NodeId, data: Bytes) {
        let (network, from) = (self.network.clone(), self.node);
        assert!(data.len() <= crate::limits::DATAGRAM_BYTES_MAX, "a datagram of {} bytes", data.len());
        self.runtime.spawn("datagram", async move {
            let delay = network.0.lock().delay;
            sleep(delay).await;
            let service = {
                let net = network.0.lock();
                let is_linked = net.nodes.get(&to).is_some_and(|peer| peer.links.contains_key(&from));
                net.nodes.get(&to).filter(|_| is_linked && !net.is_cut(from, to)).map(|peer| peer.service.clone())
            };
            if let Some(service) = service {
                service.datagram(from, data);
            }
        });
    }

    fn connect(&self, address: SocketAddr, expected: Option<NodeId>) -> BoxFuture<'static, Result<NodeId, ConnectError>> {
        let (network, from) = (self.network.clone(), self.node);
        Box::pin(async move {
            let delay = network.0.lock().delay;
            sleep(delay * 2).await;
            let mut net = network.0.lock();
            let found = net.nodes.iter().find(|(_, attached)| attached.address == address).map(|(node, attached)| (*node, attached.secret));
            let own = net.nodes.get(&from).map(|own| (own.address, own.secret));
            let (Some((to, secret)), Some((own_address, own_secret))) = (found, own) else {
                return Err(ConnectError::Unreachable { address });
            };
            if to == from {
                return Err(ConnectError::Myself { address });
            }
            if net.is_cut(from, to) {
                return Err(ConnectError::Unreachable { address });
            }
            if let Some(expected) = expected.filter(|expected| *expected != to) {
                return Err(ConnectError::OtherNode { address, expected, found: to });
            }
            if secret != own_secret {
                let reason = "its rpc_secret is another".to_string();
                net.tell(to, ConnectionEvent::Refused { address: own_address, node: Some(from), reason: reason.clone() });
                return Err(ConnectError::Refused { address, reason });
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
            Some(ConnectionInfo { node: *node, address, rtt: Some(net.delay * 2), dialled_by_us: *dialled_by_us })
        };
        own.links.iter().filter_map(info).collect()
    }

    fn events(&self) -> broadcast::Receiver<ConnectionEvent> {
        let net = self.network.0.lock();
        // A node that was taken away hears nothing any more.
        net.nodes.get(&self.node).map_or_else(|| broadcast::channel(1).1, |own| own.events.subscribe())
    }
}

/// Waits for ever if the packet is lost.
async fn lost_if_cut(network: &MemoryNetwork, from: NodeId, to: NodeId) {
    let is_cut = network.0.lock().is_cut(from, to);
    if is_cut {
        sleep_until(tokio::time::Instant::now() + Duration::from_secs(86_400)).await;
    }
}
