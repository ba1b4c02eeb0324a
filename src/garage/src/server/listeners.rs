//! The HTTP interfaces: which are served where, and their end.

use std::{net::SocketAddr, sync::Arc};

use garage_api_admin::{AdminHttp, AdminHttpOptions, AdminOptions};
use garage_api_common::http::{HttpService, ListenAddress, Listener, ServerOptions, serve};
use garage_api_s3::{S3Api, S3Options};
use garage_util::{config::Listen, runtime::Runtime};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Failure, assemble::Server, progress, settings::Settings};

/// Permission bits of a Unix socket that anyone may connect to.
const SOCKET_MODE_PUBLIC: u32 = 0o222;
/// Permission bits of the admin API's Unix socket.
const SOCKET_MODE_ADMIN: u32 = 0o220;

/// The running listeners.
pub(super) struct Listeners {
    tasks: TaskTracker,
    s3: Option<SocketAddr>,
}

impl Listeners {
    /// Waits until all requests under way have ended; the token they were started with is cancelled before.
    pub(super) async fn join(self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// The S3 endpoint for clients on this machine.
    pub(super) fn s3_endpoint(&self) -> Option<String> {
        let address = self.s3?;
        let host = if address.ip().is_unspecified() { "127.0.0.1".to_string() } else { address.ip().to_string() };
        Some(if host.contains(':') { format!("http://[{host}]:{}", address.port()) } else { format!("http://{host}:{}", address.port()) })
    }
}

/// What the admin API tells of the configuration.
pub(super) fn admin_options(settings: &Settings) -> AdminOptions {
    let config = &settings.config;
    AdminOptions {
        version: format!("v{}", env!("CARGO_PKG_VERSION")),
        features: None,
        rust_version: env!("CARGO_PKG_RUST_VERSION").to_string(),
        db_engine: "fjall".to_string(),
        region: config.s3_api.s3_region.clone(),
        s3_endpoint: config.s3_api.public_endpoint.clone(),
        s3_path_style: config.s3_api.public_endpoint_path_style,
        s3_root_domain: config.s3_api.root_domain.clone(),
        web_root_domain: config.s3_web.as_ref().and_then(|web| web.root_domain.clone()),
        k2v_endpoint: config.k2v_api.as_ref().and_then(|k2v| k2v.public_endpoint.clone()),
    }
}

fn admin_http_options(settings: &Settings) -> AdminHttpOptions {
    AdminHttpOptions {
        admin_token: settings.secrets.admin_token.clone(),
        metrics_token: settings.secrets.metrics_token.clone(),
        metrics_require_token: settings.config.admin.metrics_require_token,
    }
}

/// Binds all configured listeners, then serves them until `stop` is cancelled.
pub(super) async fn start(settings: &Settings, runtime: &Runtime, server: &Server, stop: CancellationToken) -> Result<Listeners, Failure> {
    let config = &settings.config;
    let mut listeners = Listeners { tasks: TaskTracker::new(), s3: None };
    let mut bound: Vec<(Listener, Arc<dyn HttpService>)> = Vec::new();
    if let Some(listen) = &config.s3_api.api_bind_addr {
        let listener = bind(listen, SOCKET_MODE_PUBLIC, "s3_api.api_bind_addr").await?;
        listeners.s3 = listener.local_address();
        bound.push((listener, Arc::new(s3_api(settings, runtime, server))));
    }
    if let Some(listen) = &config.admin.api_bind_addr {
        let listener = bind(listen, SOCKET_MODE_ADMIN, "admin.api_bind_addr").await?;
        bound.push((listener, Arc::new(AdminHttp::new(server.admin.clone(), admin_http_options(settings)))));
    }
    say_what_is_not_served(settings);
    for (listener, service) in bound {
        let options = ServerOptions {
            host_id: server.node.cluster.local().short(),
            connection_count_max: config.max_connections,
            ..ServerOptions::default()
        };
        listeners.tasks.spawn(serve(listener, service, runtime.clone(), options, stop.clone()));
    }
    Ok(listeners)
}

async fn bind(listen: &Listen, unix_mode: u32, setting: &str) -> Result<Listener, Failure> {
    let address = ListenAddress::of(listen, unix_mode);
    let listener = Listener::bind(&address, setting).await?;
    progress(&format!("{setting}: listening on {address}"));
    Ok(listener)
}

fn s3_api(settings: &Settings, runtime: &Runtime, server: &Server) -> S3Api {
    let config = &settings.config;
    let options = S3Options { region: config.s3_api.s3_region.clone(), root_domain: config.s3_api.root_domain.clone() };
    let node = &server.node;
    S3Api::new(options, runtime.clone(), node.access.clone(), node.objects.clone(), node.uploads.clone())
}

fn say_what_is_not_served(settings: &Settings) {
    let config = &settings.config;
    // The quick start's configuration is our own: nobody asked for these there.
    if settings.is_quick_start {
        return;
    }
    let missing = [
        (config.s3_web.is_some(), "[s3_web]: this release does not serve websites yet"),
        (config.k2v_api.is_some(), "[k2v_api]: this release does not serve K2V yet"),
        (config.consul_discovery.is_some(), "[consul_discovery]: this release finds peers by bootstrap_peers and gossip only"),
        (config.kubernetes_discovery.is_some(), "[kubernetes_discovery]: this release finds peers by bootstrap_peers and gossip only"),
        (config.admin.trace_sink.is_some(), "admin.trace_sink: this release sends no traces"),
    ];
    missing.into_iter().filter(|(is_configured, _)| *is_configured).for_each(|(_, text)| tracing::warn!("{text}"));
}
