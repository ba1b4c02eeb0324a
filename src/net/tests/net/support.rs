//! Nodes on loopback sockets, with a service whose handlers each show one behaviour.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture};
use garage_net::{
    Answer, BodyStream, Call, CallError, Class, ConnectError, ConnectionEvent, Incoming, LayoutMark, NetError, NodeId, NodeKey,
    QuicOptions, QuicTransport, Refusal, Service, Transport,
};
use garage_util::runtime::{RealTasks, Runtime};
use tokio::{
    sync::{broadcast, mpsc, watch},
    time::Instant,
};

/// The secret of the tests' cluster.
pub const SECRET: [u8; 32] = [42; 32];
/// A test that waits longer for a condition has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What the handlers note.
pub struct Probe {
    /// Handlers of `hang` that run now.
    pub hanging: watch::Sender<usize>,
    /// Bytes that the body of `pour` was asked for.
    pub poured_bytes: Arc<AtomicUsize>,
    /// Datagrams, as they came.
    pub datagrams: mpsc::UnboundedSender<(NodeId, Bytes)>,
}

/// Counts a running handler; dropped with it.
struct Hanging(watch::Sender<usize>);
impl Hanging {
    fn begin(count: &watch::Sender<usize>) -> Hanging {
        count.send_modify(|count| *count += 1);
        Hanging(count.clone())
    }
}
impl Drop for Hanging {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Service for Probe {
    fn serve(&self, incoming: Incoming) -> BoxFuture<'static, Result<Answer, Refusal>> {
        let hanging = self.hanging.clone();
        let poured_bytes = self.poured_bytes.clone();
        async move {
            match incoming.kind.as_str() {
                "echo" => {
                    let mut pieces = Vec::new();
                    if let Some(mut body) = incoming.body {
                        while let Some(piece) = body.next().await {
                            pieces.push(piece);
                        }
                    }
                    Ok(Answer { payload: incoming.payload, body: body(pieces) })
                }
                "facts" => {
                    let left = incoming.deadline.saturating_duration_since(Instant::now());
                    let text = format!("{} {:?} {} {}", incoming.from.node, incoming.class, incoming.trace, incoming.layout.version);
                    assert!(left <= Duration::from_secs(3600));
                    Ok(Answer::of(text.into()))
                }
                "count" => {
                    let mut body = incoming.body.ok_or_else(|| Refusal::new("no_body", "a body is needed"))?;
                    let mut count_bytes = 0u64;
                    while let Some(piece) = body.next().await {
                        count_bytes += piece.map_err(|error| Refusal::new("bad_body", error.to_string()))?.len() as u64;
                    }
                    Ok(Answer::of(Bytes::copy_from_slice(&count_bytes.to_be_bytes())))
                }
                "refuse" => Err(Refusal { code: "no".into(), message: "not today".into(), detail: Bytes::from_static(b"why") }),
                "hang" => {
                    let _running = Hanging::begin(&hanging);
                    std::future::pending().await
                }
                "hang_with_body" => {
                    // Holds the body and never reads it.
                    let _running = (Hanging::begin(&hanging), incoming.body);
                    std::future::pending().await
                }
                "pour" => Ok(Answer { payload: Bytes::new(), body: Some(endless(poured_bytes, Some(Hanging::begin(&hanging)))) }),
                "break" => {
                    let items = [Ok(Bytes::from_static(b"part")), Err(NetError::Failed("the disk is gone".into()))];
                    Ok(Answer { payload: Bytes::new(), body: Some(Box::pin(futures::stream::iter(items))) })
                }
                "panic" => panic!("planned"),
                "huge" => Ok(Answer::of(vec![0; 17 << 20].into())),
                other => Err(Refusal::new("unknown_kind", other)),
            }
        }
        .boxed()
    }
    fn datagram(&self, from: NodeId, data: Bytes) {
        let _ = self.datagrams.send((from, data));
    }
}

/// A body without end; counts what it was asked for.
pub fn endless(count: Arc<AtomicUsize>, keep: Option<impl Send + 'static>) -> BodyStream {
    let block = Bytes::from(vec![7; 64 * 1024]);
    Box::pin(futures::stream::repeat_with(move || {
        let _ = &keep;
        count.fetch_add(block.len(), Ordering::SeqCst);
        Ok(block.clone())
    }))
}

/// A node, or a client.
pub struct Node {
    pub transport: QuicTransport,
    pub key: NodeKey,
    pub hanging: watch::Receiver<usize>,
    pub poured_bytes: Arc<AtomicUsize>,
    pub datagrams: mpsc::UnboundedReceiver<(NodeId, Bytes)>,
    tasks: RealTasks,
}

impl Node {
    /// A fresh node on any port.
    pub fn start() -> Node {
        Node::with(QuicOptions::node((Ipv4Addr::LOCALHOST, 0).into(), NodeKey::throw_away().unwrap(), SECRET)).unwrap()
    }

    /// A node with options of its own.
    pub fn with(options: QuicOptions) -> Result<Node, garage_net::BindError> {
        let (runtime, tasks) = Runtime::real();
        let (hanging, watch) = watch::channel(0);
        let (datagrams, received) = mpsc::unbounded_channel();
        let poured_bytes = Arc::new(AtomicUsize::new(0));
        let key = options.key.clone();
        let probe = Probe { hanging, poured_bytes: poured_bytes.clone(), datagrams };
        let transport = QuicTransport::bind(options, runtime, Arc::new(probe))?;
        Ok(Node { transport, key, hanging: watch, poured_bytes, datagrams: received, tasks })
    }

    pub fn id(&self) -> NodeId {
        self.transport.local_node()
    }

    pub fn address(&self) -> SocketAddr {
        self.transport.local_addr().unwrap()
    }

    pub async fn dial(&self, other: &Node) -> Result<NodeId, ConnectError> {
        self.transport.connect(other.address(), Some(other.id())).await
    }

    pub async fn ask(&self, to: &Node, call: Call) -> Result<Answer, CallError> {
        self.transport.call(to.id(), call).await
    }

    /// Connects a fresh node and gets an echo: this node serves as if nothing had happened.
    pub async fn assert_unharmed(&self) {
        let visitor = Node::start();
        visitor.dial(self).await.unwrap();
        let answer = visitor.ask(self, call("echo", "still there")).await.unwrap();
        assert_eq!(answer.payload, "still there");
        visitor.stop().await;
    }

    /// Resolves when as many `hang` handlers run as `count`.
    pub async fn hanging_is(&mut self, count: usize) {
        tokio::time::timeout(PATIENCE, self.hanging.wait_for(|now| *now == count)).await.unwrap().unwrap();
    }

    /// Stops as a node does at SIGTERM.
    pub async fn stop(self) {
        self.transport.close(Duration::from_millis(200)).await;
        assert!(self.tasks.stop(PATIENCE).await, "tasks remain");
    }
}

/// Two nodes, the first of which dialled the second.
pub async fn pair() -> (Node, Node) {
    let (one, two) = (Node::start(), Node::start());
    assert_eq!(one.dial(&two).await, Ok(two.id()));
    (one, two)
}

/// A call with more time than any test and no body.
pub fn call(kind: &'static str, payload: impl Into<Bytes>) -> Call {
    // Longer than any test waits: what ends sooner was not ended by the deadline.
    let deadline = Instant::now() + Duration::from_secs(3600);
    Call {
        kind,
        class: Class::Metadata,
        deadline,
        trace: 5,
        layout: LayoutMark { version: 3, digest: [9; 32] },
        payload: payload.into(),
        body: None,
    }
}

/// A body of these pieces; none of none.
pub fn body(pieces: Vec<Result<Bytes, NetError>>) -> Option<BodyStream> {
    if pieces.is_empty() {
        return None;
    }
    Some(Box::pin(futures::stream::iter(pieces)))
}

/// All of a body, nothing if there is none, or what cut it short.
pub async fn collect(body: Option<BodyStream>) -> Result<Vec<u8>, NetError> {
    let Some(mut body) = body else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    while let Some(piece) = body.next().await {
        all.extend_from_slice(&piece?);
    }
    Ok(all)
}

/// Waits for an event that `wanted` takes.
pub async fn event<T>(events: &mut broadcast::Receiver<ConnectionEvent>, wanted: impl Fn(ConnectionEvent) -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(found) = wanted(events.recv().await.unwrap()) {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("the event comes")
}

/// The reason of the next refusal.
pub async fn refusal(events: &mut broadcast::Receiver<ConnectionEvent>) -> (Option<NodeId>, String) {
    event(events, |event| match event {
        ConnectionEvent::Refused { node, reason, .. } => Some((node, reason)),
        _ => None,
    })
    .await
}

/// Asks again until `condition` holds.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}
