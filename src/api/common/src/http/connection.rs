//! One connection's life: told the protocol, served, watched for idleness, closed.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use ::http::{HeaderValue, Request, Response, Version, header};
use bytes::Bytes;
use garage_util::runtime::Runtime;
use hyper::{
    body::{Body as HttpBody, Frame, Incoming, SizeHint},
    rt::Executor,
    server::conn::{http1, http2},
    service::Service,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Body, HttpService, Peer, RequestBody, RequestContext, RequestIds, ServerOptions, TlsVersion,
    io::{ConnectionIo, Protocol},
    stream::Accepted,
    tls::handshake,
};
use crate::limits::{CONNECTION_BUFFER_MAX_BYTES, HEADER_COUNT_MAX, HEADER_SECTION_MAX_BYTES, HTTP2_STREAM_COUNT_MAX};

/// How long a draining connection without a request stays: a client's next request may be on its way, and the last answer's last bytes.
const DRAIN_GRACE: Duration = Duration::from_millis(500);

/// What all connections of a server share.
pub(super) struct Shared {
    pub service: Arc<dyn HttpService>,
    pub runtime: Runtime,
    pub options: ServerOptions,
    pub idle: Mutex<IdleConnections>,
    /// Finish what is under way, take nothing new.
    pub draining: CancellationToken,
    /// Drop everything.
    pub aborting: CancellationToken,
}

/// The connections that wait for a request: those that never sent one first, then by how long they wait.
#[derive(Default)]
pub(super) struct IdleConnections {
    next: u64,
    waiting: BTreeMap<IdlePlace, CancellationToken>,
}
/// Whether the connection has served a request, and a rising number.
type IdlePlace = (bool, u64);

impl IdleConnections {
    fn enter(&mut self, served_any: bool, close: CancellationToken) -> IdlePlace {
        self.next += 1;
        self.waiting.insert((served_any, self.next), close);
        (served_any, self.next)
    }
    /// Closes the connection that is missed least. False: every connection is at work.
    pub(super) fn close_oldest(&mut self) -> bool {
        self.waiting.pop_first().map(|(_, close)| close.cancel()).is_some()
    }
}

/// Whether a connection is at work, and since when not.
struct Activity {
    shared: Arc<Shared>,
    close: CancellationToken,
    state: Mutex<ActivityState>,
}
struct ActivityState {
    in_flight_count: usize,
    idle_since: Instant,
    idle_place: Option<IdlePlace>,
    served_any: bool,
}

impl Activity {
    fn new(shared: Arc<Shared>) -> Activity {
        let close = CancellationToken::new();
        let idle_place = Some(shared.idle.lock().enter(false, close.clone()));
        Activity {
            shared,
            close,
            state: Mutex::new(ActivityState { in_flight_count: 0, idle_since: Instant::now(), idle_place, served_any: false }),
        }
    }
    fn begin(self: &Arc<Self>) -> InFlight {
        let mut state = self.state.lock();
        state.in_flight_count += 1;
        state.served_any = true;
        if let Some(place) = state.idle_place.take() {
            self.shared.idle.lock().waiting.remove(&place);
        }
        InFlight(self.clone())
    }
    /// When the connection has been idle for too long; `None` while it is at work.
    fn deadline(&self, draining_since: Option<Instant>) -> Option<Instant> {
        let state = self.state.lock();
        let patience = if state.served_any { self.shared.options.idle_timeout } else { self.shared.options.header_read_timeout };
        let deadline = match draining_since {
            Some(since) => since.max(state.idle_since) + DRAIN_GRACE,
            None => state.idle_since + patience,
        };
        (state.in_flight_count == 0).then_some(deadline)
    }
}
impl Drop for Activity {
    fn drop(&mut self) {
        if let Some(place) = self.state.get_mut().idle_place.take() {
            self.shared.idle.lock().waiting.remove(&place);
        }
    }
}

/// A request from its arrival to the last byte of its answer.
struct InFlight(Arc<Activity>);
impl Drop for InFlight {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.in_flight_count -= 1;
        if state.in_flight_count == 0 {
            state.idle_since = Instant::now();
            state.idle_place = Some(self.0.shared.idle.lock().enter(true, self.0.close.clone()));
        }
    }
}

/// Serves a connection until it ends, is idle for too long, makes room for another, or the server stops.
pub(super) async fn run(shared: Arc<Shared>, stream: Accepted, peer: Peer) {
    let activity = Arc::new(Activity::new(shared.clone()));
    let opened = tokio::select! {
        biased;
        () = drained(&shared) => return,
        () = activity.close.cancelled() => return,
        opened = open(&shared.options, stream) => opened,
    };
    let (io, protocol) = match opened {
        Ok(Some(opened)) => opened,
        Ok(None) => return,
        Err(error) => {
            tracing::debug!(%error, "a connection ended before its first request");
            return;
        }
    };
    let service = ConnectionService { shared: shared.clone(), activity: activity.clone(), peer, tls: io.tls_version() };
    let io = TokioIo::new(io);
    match protocol {
        // Its answers say that it closes; a shutdown of its own would close it at once where no request has come yet.
        Protocol::Http1 => watch(&shared, &activity, http1_builder(&shared.options).serve_connection(io, service), |_| {}).await,
        Protocol::Http2 => {
            let builder = http2_builder(&shared);
            watch(&shared, &activity, builder.serve_connection(io, service), http2::Connection::graceful_shutdown).await;
        }
    }
}

/// Ends when the server has been stopping for as long as a first request may have been on its way.
async fn drained(shared: &Shared) {
    shared.draining.cancelled().await;
    tokio::time::sleep(DRAIN_GRACE).await;
}

/// TLS if the listener has it, then the client's first bytes. `None`: nothing is to be served.
async fn open(options: &ServerOptions, stream: Accepted) -> std::io::Result<Option<(ConnectionIo, Protocol)>> {
    let patience = options.header_read_timeout;
    let stream = match &options.tls {
        None => stream,
        Some(choice) => match handshake(stream, choice, patience).await? {
            Some(stream) => stream,
            None => return Ok(None),
        },
    };
    let sniffed = tokio::time::timeout(patience, ConnectionIo::sniff(stream)).await;
    sniffed.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())).map(Some)
}

fn http1_builder(options: &ServerOptions) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(options.header_read_timeout.max(options.idle_timeout))
        .max_header_size(HEADER_SECTION_MAX_BYTES)
        .max_headers(HEADER_COUNT_MAX)
        .max_buf_size(CONNECTION_BUFFER_MAX_BYTES);
    builder
}

fn http2_builder(shared: &Shared) -> http2::Builder<RuntimeExecutor> {
    let mut builder = http2::Builder::new(RuntimeExecutor(shared.runtime.clone()));
    builder
        .timer(TokioTimer::new())
        .max_header_list_size(HEADER_SECTION_MAX_BYTES as u32)
        .max_concurrent_streams(HTTP2_STREAM_COUNT_MAX)
        .adaptive_window(true)
        .keep_alive_interval(shared.options.idle_timeout)
        .keep_alive_timeout(shared.options.header_read_timeout);
    builder
}

/// Drives a connection to its end. `announce` tells a client that it has to go elsewhere, where answers can't.
async fn watch<C: Future<Output = hyper::Result<()>>>(shared: &Shared, activity: &Activity, connection: C, announce: impl Fn(Pin<&mut C>)) {
    let mut connection = std::pin::pin!(connection);
    let mut draining_since: Option<Instant> = None;
    loop {
        let idle_until = activity.deadline(draining_since);
        // While at work there is no deadline; look again after a while, as work may have ended meanwhile.
        let pause = if draining_since.is_some() { DRAIN_GRACE } else { shared.options.idle_timeout };
        let look_again = idle_until.unwrap_or_else(|| Instant::now() + pause);
        tokio::select! {
            biased;
            // Each losing branch is a wait that is taken up again in the next round; the connection itself is never dropped but on purpose.
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%error, "connection ended early");
                }
                return;
            }
            () = shared.aborting.cancelled() => return,
            () = activity.close.cancelled(), if draining_since.is_none() => {
                // A request that came in between is still answered.
                if activity.deadline(None).is_some() {
                    return;
                }
                draining_since = Some(Instant::now());
                announce(connection.as_mut());
            }
            () = shared.draining.cancelled(), if draining_since.is_none() => {
                draining_since = Some(Instant::now());
                announce(connection.as_mut());
            }
            () = tokio::time::sleep_until(look_again) => {
                if activity.deadline(draining_since).is_some_and(|deadline| deadline <= Instant::now()) {
                    return;
                }
            }
        }
    }
}

#[derive(Clone)]
struct RuntimeExecutor(Runtime);
impl<F: Future<Output = ()> + Send + 'static> Executor<F> for RuntimeExecutor {
    fn execute(&self, task: F) {
        self.0.spawn("http/2 stream", task);
    }
}

struct ConnectionService {
    shared: Arc<Shared>,
    activity: Arc<Activity>,
    peer: Peer,
    tls: Option<TlsVersion>,
}

impl Service<Request<Incoming>> for ConnectionService {
    type Response = Response<GuardedBody>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let in_flight = self.activity.begin();
        let ids = RequestIds::generate(&self.shared.runtime, &self.shared.options.host_id);
        let context = RequestContext { peer: self.peer, tls: self.tls, ids: ids.clone() };
        let runtime = self.shared.runtime.clone();
        let client_waits =
            request.headers().get(header::EXPECT).is_some_and(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        let (shared, activity, says_close) = (self.shared.clone(), self.activity.clone(), request.version() < Version::HTTP_2);
        let answer = self.shared.service.clone().serve(request.map(|incoming| RequestBody::new(incoming, runtime, client_waits)), context);
        Box::pin(async move {
            let mut response = answer.await.map(|body| GuardedBody { body, _in_flight: in_flight });
            add_ids(response.headers_mut(), &ids);
            if says_close && (shared.draining.is_cancelled() || activity.close.is_cancelled()) {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response)
        })
    }
}

fn add_ids(headers: &mut ::http::HeaderMap, ids: &RequestIds) {
    for (name, value) in [("x-amz-request-id", &ids.request_id), ("x-amz-id-2", &ids.host_id)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
}

/// An answer's body that keeps its connection from counting as idle.
struct GuardedBody {
    body: Body,
    _in_flight: InFlight,
}
impl HttpBody for GuardedBody {
    type Data = Bytes;
    type Error = crate::payload::BoxError;
    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
