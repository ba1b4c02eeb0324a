//! Stands in front of a UDP port as an address translator would: each client address gets an upstream socket of its own.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket as StdSocket},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use socket2::{Domain, Socket, Type};
use tokio::{net::UdpSocket, task::AbortHandle, time};

use super::{
    gate::{Gate, Loss},
    line::Line,
};

/// The largest datagram there is.
const DATAGRAM_MAX_BYTES: usize = 65_535;
/// Asked of the kernel for each socket, so that a burst of one window is not dropped before it is seen.
const SOCKET_BUFFER_BYTES: usize = 16 << 20;

/// Bounds of one proxy.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Flows at once; a new one beyond them takes the place of the one that was silent longest.
    pub flows_max: usize,
    /// A flow that is silent for this long is forgotten.
    pub idle_max: Duration,
    /// Packets on their way.
    pub packets_max: usize,
    /// Bytes on their way.
    pub bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { flows_max: 1_024, idle_max: Duration::from_secs(120), packets_max: 262_144, bytes_max: 256 << 20 }
    }
}

/// A running proxy. Dropping it ends it.
pub struct UdpProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    tasks: Vec<AbortHandle>,
}

/// A datagram and where it goes: to a client through the listener, or upstream through the flow's own socket.
///
/// Sent through a plain handle: one of the runtime refuses to send until the runtime has once seen the socket writable.
struct Packet {
    socket: Arc<StdSocket>,
    client: Option<SocketAddr>,
    data: Vec<u8>,
}

struct Shared {
    upstream: SocketAddr,
    limits: Limits,
    listener: Arc<StdSocket>,
    line: Line<Packet>,
    gate: Mutex<Gate>,
    ways: Mutex<BTreeMap<(IpAddr, Way), Gate>>,
    flows: Mutex<BTreeMap<SocketAddr, Flow>>,
}

/// A direction through a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// From the client to what stands behind the proxy.
    In,
    /// Back to the client.
    Out,
}

struct Flow {
    socket: Arc<StdSocket>,
    last_seen: Instant,
    receiver: AbortHandle,
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.receiver.abort();
    }
}

impl UdpProxy {
    /// Starts to pass datagrams between `listen` and `upstream`, each held for `delay`. Needs a tokio runtime.
    pub fn start(listen: SocketAddr, upstream: SocketAddr, delay: Duration, gate: Gate, limits: Limits) -> io::Result<UdpProxy> {
        let listener = Arc::new(open_socket(listen)?);
        let address = listener.local_addr()?;
        let receiver = UdpSocket::from_std(listener.try_clone()?)?;
        let line = Line::start(delay, limits.packets_max, limits.bytes_max, depart)?;
        let flows = Mutex::new(BTreeMap::new());
        let shared = Arc::new(Shared { upstream, limits, listener, line, gate: Mutex::new(gate), ways: Mutex::default(), flows });
        let tasks = vec![
            tokio::spawn(receive_from_clients(shared.clone(), receiver)).abort_handle(),
            tokio::spawn(forget_idle_flows(shared.clone())).abort_handle(),
        ];
        Ok(UdpProxy { address, shared, tasks })
    }

    /// Where clients reach it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Passes nothing any more (`true`), or goes on (`false`).
    pub fn set_cut(&self, cut: bool) {
        self.shared.gate.lock().set_cut(cut);
    }

    /// Loses this share of the packets from now on.
    pub fn set_loss(&self, loss: Loss) {
        self.shared.gate.lock().set_loss(loss);
    }

    /// Has the clients of one address pass this gate too, one way; without one they pass again.
    pub fn set_way(&self, client: IpAddr, way: Way, gate: Option<Gate>) {
        let mut ways = self.shared.ways.lock();
        match gate {
            Some(gate) => ways.insert((client, way), gate),
            None => ways.remove(&(client, way)),
        };
    }

    /// Flows it keeps.
    pub fn flow_count(&self) -> usize {
        self.shared.flows.lock().len()
    }
}

impl Drop for UdpProxy {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.shared.flows.lock().clear();
    }
}

/// A packet that the socket cannot take now is lost, as it would be on a full link.
fn depart(packet: Packet) {
    let send = || match packet.client {
        Some(client) => packet.socket.send_to(&packet.data, client),
        None => packet.socket.send(&packet.data),
    };
    // The refusal is that of an earlier packet, and reporting it took the place of sending this one.
    if send().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
        let _ = send();
    }
}

fn open_socket(address: SocketAddr) -> io::Result<StdSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    // The forced form goes past the system's limit but is for root; the plain one takes what it is allowed.
    if nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &SOCKET_BUFFER_BYTES).is_err() {
        socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    }
    if nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::SndBufForce, &SOCKET_BUFFER_BYTES).is_err() {
        socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

async fn receive_from_clients(shared: Arc<Shared>, listener: UdpSocket) {
    let (mut buffer, mut is_failing) = (vec![0; DATAGRAM_MAX_BYTES], false);
    loop {
        // An error here tells of an earlier send that nobody received; the socket stays good.
        let Ok((len_bytes, client)) = listener.recv_from(&mut buffer).await else { continue };
        let now = Instant::now();
        if !shared.admits_next(client, Way::In) {
            continue;
        }
        match shared.flow_of(client, now) {
            Ok(socket) => {
                is_failing = false;
                shared.line.push(now, len_bytes, Packet { socket, client: None, data: buffer[..len_bytes].to_vec() });
            }
            // A link that is down stays so for many packets.
            Err(error) if !std::mem::replace(&mut is_failing, true) => eprintln!("udp-proxy: no socket for {client}: {error}"),
            Err(_) => {}
        }
    }
}

impl Shared {
    fn admits_next(&self, client: SocketAddr, way: Way) -> bool {
        self.gate.lock().admits_next() && self.ways.lock().get_mut(&(client.ip(), way)).is_none_or(Gate::admits_next)
    }

    /// The upstream socket of a client, made when it is new.
    fn flow_of(self: &Arc<Self>, client: SocketAddr, now: Instant) -> io::Result<Arc<StdSocket>> {
        let mut flows = self.flows.lock();
        if let Some(flow) = flows.get_mut(&client) {
            flow.last_seen = now;
            return Ok(flow.socket.clone());
        }
        if self.limits.flows_max <= flows.len() {
            let oldest = flows.iter().min_by_key(|(_, flow)| flow.last_seen).map(|(address, _)| *address);
            oldest.and_then(|address| flows.remove(&address));
        }
        let any: SocketAddr = match self.upstream {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = open_socket(any)?;
        socket.connect(self.upstream)?;
        let receiver = UdpSocket::from_std(socket.try_clone()?)?;
        let receiver = tokio::spawn(receive_from_upstream(self.clone(), receiver, client)).abort_handle();
        let socket = Arc::new(socket);
        flows.insert(client, Flow { socket: socket.clone(), last_seen: now, receiver });
        Ok(socket)
    }
}

async fn receive_from_upstream(shared: Arc<Shared>, socket: UdpSocket, client: SocketAddr) {
    let mut buffer = vec![0; DATAGRAM_MAX_BYTES];
    loop {
        // "Connection refused" means that nothing listens upstream right now; it may again later.
        let Ok(len_bytes) = socket.recv(&mut buffer).await else { continue };
        let now = Instant::now();
        if let Some(flow) = shared.flows.lock().get_mut(&client) {
            flow.last_seen = now;
        }
        if shared.admits_next(client, Way::Out) {
            let packet = Packet { socket: shared.listener.clone(), client: Some(client), data: buffer[..len_bytes].to_vec() };
            shared.line.push(now, len_bytes, packet);
        }
    }
}

async fn forget_idle_flows(shared: Arc<Shared>) {
    let mut ticks = time::interval(shared.limits.idle_max.min(Duration::from_secs(10)));
    loop {
        ticks.tick().await;
        let idle_max = shared.limits.idle_max;
        shared.flows.lock().retain(|_, flow| flow.last_seen.elapsed() < idle_max);
    }
}

#[cfg(test)]
mod tests;
