//! The real transport: QUIC over UDP with quinn.
//!
//! Reading order: `socket` and `tuning` (how it is set up), `handshake` (who is let in), `link` (one connection), `stream` (one stream),
//! `packed` (large messages), `calling` and `serving` (the two sides of a request), `arriving` and `dialling` (how connections begin), `reasons` (how they end).
//!
//! Invariants:
//! - a connection is in the table only after its peer proved the cluster secret;
//! - two nodes agree on the one connection that stays (`ranking`), and calls on the other one end undisturbed;
//! - every call ends by its deadline, and whatever it held on either side is released then.

mod arriving;
mod calling;
mod dialling;
mod handshake;
mod link;
mod packed;
mod reasons;
mod serving;
mod socket;
mod stream;
mod tuning;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use garage_util::runtime::Runtime;
use parking_lot::Mutex;
use quinn::{Endpoint, TransportConfig, VarInt};
use tokio::{
    sync::{Semaphore, broadcast},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{handshake::Us, link::Link};
use crate::{
    identity::NodeKey,
    limits::{CONNECTIONS_MAX, DATAGRAM_MAX_BYTES, EVENTS_KEPT, HALF_OPEN_MAX, PACK_RTT_MIN, RPC_BUFFER_DEFAULT_BYTES},
    tls::TlsError,
    transport::{Service, Transport},
    types::{Answer, Call, CallError, ConnectError, ConnectionEvent, ConnectionInfo, NodeId},
};

/// What a transport is made of.
pub struct QuicOptions {
    /// Where to listen; `None` for a client that only dials.
    pub bind_addr: Option<SocketAddr>,
    /// Dial from the address of `bind_addr` too (`rpc_bind_outgoing`); else from any.
    pub bind_outgoing: bool,
    /// Who this node is.
    pub key: NodeKey,
    /// The cluster secret (`rpc_secret`).
    pub secret: [u8; 32],
    /// Bytes that peers may have sent and nobody has read yet, over all connections (`rpc_buffer_max`).
    pub rpc_buffer_max_bytes: u64,
    /// Round-trip time from which on large messages are compressed.
    pub pack_rtt_min: Duration,
}

impl QuicOptions {
    /// A node that listens on `bind_addr`.
    pub fn node(bind_addr: SocketAddr, key: NodeKey, secret: [u8; 32]) -> QuicOptions {
        QuicOptions { bind_addr: Some(bind_addr), ..QuicOptions::client(key, secret) }
    }

    /// A client that only dials.
    pub fn client(key: NodeKey, secret: [u8; 32]) -> QuicOptions {
        let (rpc_buffer_max_bytes, pack_rtt_min) = (RPC_BUFFER_DEFAULT_BYTES, PACK_RTT_MIN);
        QuicOptions { bind_addr: None, bind_outgoing: false, key, secret, rpc_buffer_max_bytes, pack_rtt_min }
    }
}

/// Why the transport cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process has the port.
    #[error("UDP {address} is in use by another process; stop it or set another rpc_bind_addr")]
    Taken {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The system gives no such socket.
    #[error("cannot listen on UDP {address}: {source}; check rpc_bind_addr")]
    Socket {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The crypto library lacks what QUIC needs.
    #[error("QUIC cannot be set up: its first cipher suite is missing")]
    Cipher,
}

/// The mesh of QUIC connections of one node. Cheap to clone.
#[derive(Clone)]
pub struct QuicTransport(Arc<Shared>);

struct Shared {
    key: NodeKey,
    node: NodeId,
    secret: [u8; 32],
    /// Random; tells peers that this process is not the one they knew.
    run: u64,
    rpc_buffer_max_bytes: u64,
    pack_rtt_min: Duration,
    bind_outgoing: bool,
    runtime: Runtime,
    service: Arc<dyn Service>,
    transport_config: Arc<TransportConfig>,
    endpoints: Mutex<Endpoints>,
    links: Mutex<BTreeMap<NodeId, Arc<Link>>>,
    events: broadcast::Sender<ConnectionEvent>,
    half_open: Arc<Semaphore>,
    payload_budget: Semaphore,
    dial_count: AtomicU64,
    serving: TaskTracker,
    closing: CancellationToken,
}

/// The sockets; emptied when the transport closes, so that their ports become free.
#[derive(Default)]
struct Endpoints {
    listening: Option<Endpoint>,
    dialling: Vec<Endpoint>,
    closed: bool,
}

impl QuicTransport {
    /// Opens the socket and starts to listen, if `options` say so. Call it inside a tokio runtime.
    pub fn bind(options: QuicOptions, runtime: Runtime, service: Arc<dyn Service>) -> Result<QuicTransport, BindError> {
        let transport_config = Arc::new(tuning::transport_config(options.rpc_buffer_max_bytes));
        let endpoint_config = tuning::endpoint_config(&options.key, &runtime);
        let listening = match options.bind_addr {
            Some(address) => {
                let server = arriving::server_config(&options.key, transport_config.clone())?;
                Some(socket::open(address, endpoint_config, Some(server))?)
            }
            None => None,
        };
        let budget_permits = usize::try_from(options.rpc_buffer_max_bytes).unwrap_or(usize::MAX);
        let shared = Arc::new(Shared {
            node: options.key.node(),
            key: options.key,
            secret: options.secret,
            run: runtime.random_u64(),
            rpc_buffer_max_bytes: options.rpc_buffer_max_bytes,
            pack_rtt_min: options.pack_rtt_min,
            bind_outgoing: options.bind_outgoing,
            service,
            transport_config,
            endpoints: Mutex::new(Endpoints { listening: listening.clone(), ..Endpoints::default() }),
            links: Mutex::default(),
            events: broadcast::Sender::new(EVENTS_KEPT),
            half_open: Arc::new(Semaphore::new(HALF_OPEN_MAX)),
            // The largest payload must fit alone, or it would wait for ever.
            payload_budget: Semaphore::new(budget_permits.clamp(crate::limits::PAYLOAD_MAX_BYTES, Semaphore::MAX_PERMITS)),
            dial_count: AtomicU64::new(0),
            serving: TaskTracker::new(),
            closing: CancellationToken::new(),
            runtime,
        });
        if let Some(endpoint) = listening {
            shared.runtime.spawn("accept connections", arriving::accept(shared.clone(), endpoint));
        }
        Ok(QuicTransport(shared))
    }

    /// Where this node listens; with the port that the system chose, if it was asked to.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.0.endpoints.lock().listening.as_ref()?.local_addr().ok()
    }

    /// Connections that exist in any state: also half-open ones, and those that lost against another and wait for their calls to end.
    pub fn open_connection_count(&self) -> usize {
        let endpoints = self.0.endpoints.lock();
        endpoints.listening.iter().chain(&endpoints.dialling).map(Endpoint::open_connections).sum()
    }

    /// Bytes sent to the peers that are connected, what QUIC adds included.
    pub fn sent_bytes(&self) -> u64 {
        self.0.links.lock().values().map(|link| link.connection.stats().udp_tx.bytes).sum()
    }

    /// Takes no more requests, waits at most `patience` for those it works on, tells the peers, and frees the port.
    pub async fn close(&self, patience: Duration) {
        self.0.closing.cancel();
        self.0.serving.close();
        // Requests that outlast the patience are cut: their callers learn it from the close.
        let _ = timeout(patience, self.0.serving.wait()).await;
        let endpoints = {
            let mut endpoints = self.0.endpoints.lock();
            endpoints.closed = true;
            std::mem::take(&mut endpoints.dialling).into_iter().chain(endpoints.listening.take()).collect::<Vec<_>>()
        };
        for endpoint in &endpoints {
            endpoint.close(reasons::STOPPING.code, reasons::STOPPING.reason.as_bytes());
        }
        for endpoint in endpoints {
            // Peers that do not acknowledge the close find out by themselves.
            let _ = timeout(CLOSE_TIME_MAX, endpoint.wait_idle()).await;
        }
    }
}

/// Time for the peers to hear that the node stops.
const CLOSE_TIME_MAX: Duration = Duration::from_millis(500);

impl Transport for QuicTransport {
    fn local_node(&self) -> NodeId {
        self.0.node
    }

    fn call(&self, to: NodeId, call: Call) -> BoxFuture<'static, Result<Answer, CallError>> {
        let permit = self.0.links.lock().get(&to).map(Link::begin_call);
        let shared = self.0.clone();
        Box::pin(async move {
            match permit {
                Some(permit) => calling::call(&shared, permit, call).await,
                None => Err(CallError::NotConnected(to)),
            }
        })
    }

    fn datagram(&self, to: NodeId, data: Bytes) {
        if DATAGRAM_MAX_BYTES < data.len() {
            return tracing::debug!(node = %to.short(), len_bytes = data.len(), "datagram too large, dropped");
        }
        let link = self.0.links.lock().get(&to).cloned();
        if let Some(link) = link {
            // It fails only on a connection that is ending; no datagram is promised to arrive.
            let _ = link.connection.send_datagram(data);
        }
    }

    fn connect(&self, address: SocketAddr, expected: Option<NodeId>) -> BoxFuture<'static, Result<NodeId, ConnectError>> {
        Box::pin(dialling::connect(self.0.clone(), address, expected))
    }

    fn connections(&self) -> Vec<ConnectionInfo> {
        let links = self.0.links.lock();
        let info = |link: &Arc<Link>| ConnectionInfo {
            node: link.node,
            address: link.address(),
            rtt: Some(link.connection.rtt()),
            dialled_by_us: link.mark.dialler == self.0.node,
        };
        links.values().map(info).collect()
    }

    fn events(&self) -> broadcast::Receiver<ConnectionEvent> {
        self.0.events.subscribe()
    }
}

impl Shared {
    fn us(&self) -> Us<'_> {
        Us { node: self.node, run: self.run, secret: &self.secret }
    }

    /// Tells whoever listens; nobody may.
    fn tell(&self, event: ConnectionEvent) {
        let _ = self.events.send(event);
    }

    /// A connection was refused, by either side.
    fn tell_refused(&self, address: SocketAddr, node: Option<NodeId>, reason: String) {
        tracing::warn!(%address, node = node.map(|node| node.short()), reason, "connection refused");
        self.tell(ConnectionEvent::Refused { address, node, reason });
    }

    /// Takes a proven connection into the table, or retires it if the one that is there stays.
    fn register(self: &Arc<Shared>, proven: handshake::Proven, connection: quinn::Connection) -> Result<(), &'static reasons::Closing> {
        let handshake::Proven { node, mark } = proven;
        let mut links = self.links.lock();
        let present = links.get(&node).cloned();
        if present.is_none() && CONNECTIONS_MAX <= links.len() {
            return Err(&reasons::FULL);
        }
        let link = Link::new(node, mark, connection);
        let stays = present.as_ref().is_none_or(|present| mark.replaces(&present.mark) || present.connection.close_reason().is_some());
        if stays {
            links.insert(node, link.clone());
            self.share_windows(&links);
        }
        drop(links);
        if stays {
            self.tell_replaced(&link, present.as_deref());
        }
        self.runtime.spawn("serve a connection", link::run(self.clone(), link.clone()));
        if let Some(loser) = if stays { present } else { Some(link) } {
            self.runtime.spawn("retire a connection", link::retire(loser));
        }
        Ok(())
    }

    fn tell_replaced(&self, link: &Link, present: Option<&Link>) {
        let (node, address) = (link.node, link.address());
        match present {
            // Calls reach the same run of the peer as before: nothing changed for those above.
            Some(present) if present.mark.peer_run == link.mark.peer_run => return,
            Some(_) => self.tell(ConnectionEvent::Down { node, reason: "the peer restarted".into() }),
            None => {}
        }
        tracing::debug!(node = %node.short(), %address, "connected");
        self.tell(ConnectionEvent::Up { node, address });
    }

    /// Takes an ended connection out of the table, if it is the one in it.
    fn forget(&self, link: &Arc<Link>, reason: String) {
        let mut links = self.links.lock();
        if !links.get(&link.node).is_some_and(|present| Arc::ptr_eq(present, link)) {
            return;
        }
        links.remove(&link.node);
        self.share_windows(&links);
        drop(links);
        tracing::debug!(node = %link.node.short(), reason, "disconnected");
        self.tell(ConnectionEvent::Down { node: link.node, reason });
    }

    /// Divides the receive budget among the connections that are up.
    fn share_windows(&self, links: &BTreeMap<NodeId, Arc<Link>>) {
        let window_bytes = tuning::connection_window_bytes(self.rpc_buffer_max_bytes, links.len());
        for link in links.values() {
            link.connection.set_receive_window(VarInt::try_from(window_bytes).unwrap_or(VarInt::MAX));
            link.connection.set_send_window(window_bytes);
        }
    }
}
