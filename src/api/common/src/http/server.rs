//! Accepts connections until told to stop, then lets what is under way finish.

use std::{io, sync::Arc, time::Duration};

use garage_util::runtime::Runtime;
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    HttpService,
    connection::{self, IdleConnections, Shared},
    listener::Listener,
    tls::TlsChoice,
};
use crate::limits::{CONNECTION_COUNT_MAX, HEADER_READ_TIMEOUT, IDLE_TIMEOUT};

/// How a server treats its connections.
#[derive(Clone)]
pub struct ServerOptions {
    /// `x-amz-id-2` of every answer.
    pub host_id: String,
    /// Open connections.
    pub connection_count_max: usize,
    /// For a request's header section.
    pub header_read_timeout: Duration,
    /// Between requests.
    pub idle_timeout: Duration,
    /// For requests under way when the server stops.
    pub drain_timeout: Duration,
    /// What TLS handshakes are answered with; `None`: without TLS.
    pub tls: Option<Arc<dyn TlsChoice>>,
}
impl Default for ServerOptions {
    fn default() -> ServerOptions {
        ServerOptions {
            host_id: "garage".to_owned(),
            connection_count_max: CONNECTION_COUNT_MAX,
            header_read_timeout: HEADER_READ_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            drain_timeout: Duration::from_secs(10),
            tls: None,
        }
    }
}

/// How long a server that stops goes on accepting, so that clients which are connected already, and wait to be accepted, are answered.
const LAST_CONNECTIONS_GRACE: Duration = Duration::from_millis(100);

/// Serves until `stop` is cancelled; then soon accepts nothing more, lets requests under way finish within `drain_timeout`, and returns.
///
/// Cancel `stop` and await this before stopping the runtime, which drops every task at once.
pub async fn serve(listener: Listener, service: Arc<dyn HttpService>, runtime: Runtime, options: ServerOptions, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(options.connection_count_max));
    let drain_timeout = options.drain_timeout;
    let shared = Arc::new(Shared {
        service,
        runtime: runtime.clone(),
        options,
        idle: Mutex::new(IdleConnections::default()),
        draining: stop.clone(),
        aborting: CancellationToken::new(),
    });
    let connections = TaskTracker::new();
    let serve_one = |(stream, peer, place): Accepted| {
        let shared = shared.clone();
        let connection = connections.track_future(async move {
            connection::run(shared, stream, peer).await;
            drop(place);
        });
        runtime.spawn("http connection", connection);
    };
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            // A connection accepted by a dropped future would be lost, but the first branch ends the loop anyway.
            accepted = accept(&listener, &shared, &places) => accepted.into_iter().for_each(&serve_one),
        }
    }
    // Clients that were connected before the stop and not yet accepted: closing the listener would reset them.
    let last = Instant::now() + LAST_CONNECTIONS_GRACE;
    while let Ok(accepted) = timeout_at(last, accept(&listener, &shared, &places)).await {
        accepted.into_iter().for_each(&serve_one);
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(drain_timeout, connections.wait()).await.is_err() {
        tracing::warn!(left = connections.len(), "requests did not finish in time and are cut off");
        shared.aborting.cancel();
        connections.wait().await;
    }
}

type Accepted = (super::stream::Accepted, super::Peer, OwnedSemaphorePermit);

async fn accept(listener: &Listener, shared: &Shared, places: &Arc<Semaphore>) -> Option<Accepted> {
    match listener.accept().await {
        Ok((stream, peer)) => {
            let place = match places.clone().try_acquire_owned() {
                Ok(place) => place,
                Err(_) => {
                    // Full: a connection that waits for a request gives its place up; if all work, the new one waits.
                    shared.idle.lock().close_oldest();
                    places.clone().acquire_owned().await.ok()?
                }
            };
            Some((stream, peer, place))
        }
        Err(error) => {
            on_accept_error(&error, shared).await;
            None
        }
    }
}

async fn on_accept_error(error: &io::Error, shared: &Shared) {
    let of_one_client = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused | io::ErrorKind::Interrupted
    );
    if of_one_client {
        return;
    }
    // Mostly: no file descriptors left. Free one and breathe, instead of spinning.
    let freed = shared.idle.lock().close_oldest();
    tracing::warn!(%error, freed, "cannot accept a connection; raise the limit of open files if this repeats");
    tokio::time::sleep(Duration::from_millis(50)).await;
}
