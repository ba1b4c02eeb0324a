//! The HTTP interfaces: which are served where, and their end.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use garage_acme::{Acme, AcmeOptions, ChallengeFront, Transport, WebsiteTls};
use garage_api_admin::{AdminHttp, AdminHttpOptions, AdminOptions};
use garage_api_common::http::{
    HttpService, ListenAddress, Listener, RedirectToHttps, ServerOptions, serve,
    tls::{CertificateFiles, TlsChoice},
};
use garage_api_s3::{S3Api, S3Options};
use garage_rpc::{Cluster, membership::OwnStore};
use garage_util::{
    config::{self, Listen, S3Web, Tls},
    runtime::{Lane, Runtime},
};
use garage_web::{WebMetrics, WebOptions, WebServer};
use prometheus_client::registry::Registry;
use tokio::time::{sleep, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Failure, assemble::Server, progress, settings::Settings};

/// How long clients' first requests after a start wait until enough other nodes are reached; those of operators never do.
const QUORUMS_PATIENCE: Duration = Duration::from_secs(8);
/// How often it is looked whether they are.
const LOOK_PERIOD: Duration = Duration::from_millis(10);
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
    let mut fronts = Vec::new();
    let s3: Arc<dyn HttpService> = Arc::new(s3_api(settings, runtime, server));
    if let Some(listen) = &config.s3_api.api_bind_addr {
        let front = bind(listen, SOCKET_MODE_PUBLIC, "s3_api.api_bind_addr", plain(&s3, config.s3_api.tls.as_ref())).await?;
        listeners.s3 = front.listener.local_address();
        fronts.push(front);
    }
    if let Some(tls) = &config.s3_api.tls {
        let choice = files_of(tls, runtime, "s3_api").await?.map(|files| files as Arc<dyn TlsChoice>);
        fronts.push(bind(&tls.bind_addr, SOCKET_MODE_PUBLIC, "s3_api.tls_bind_addr", s3).await?.with_tls(choice));
    }
    // Filled by the fronts, told by the admin interface.
    let mut registry = Registry::default();
    if let Some(web) = &config.s3_web {
        fronts.extend(web_fronts(settings, web, runtime, server, &mut registry).await?);
    }
    let admin: Arc<dyn HttpService> = Arc::new(AdminHttp::new(server.admin.clone(), admin_http_options(settings), registry));
    if let Some(listen) = &config.admin.api_bind_addr {
        let service = plain(&admin, config.admin.tls.as_ref());
        fronts.push(bind(listen, SOCKET_MODE_ADMIN, "admin.api_bind_addr", service).await?.at_once());
    }
    if let Some(tls) = &config.admin.tls {
        let choice = files_of(tls, runtime, "admin").await?.map(|files| files as Arc<dyn TlsChoice>);
        fronts.push(bind(&tls.bind_addr, SOCKET_MODE_ADMIN, "admin.tls_bind_addr", admin).await?.with_tls(choice).at_once());
    }
    say_what_is_not_served(settings);
    for Front { listener, service, tls, patience } in fronts {
        let options = ServerOptions {
            host_id: server.node.cluster.local().short(),
            connection_count_max: config.max_connections,
            tls,
            ..ServerOptions::default()
        };
        let (cluster, runtime, stop) = (server.node.cluster.clone(), runtime.clone(), stop.clone());
        listeners.tasks.spawn(async move {
            // Clients connect at once and are answered once the others are reached: a moment later, and not with a 503.
            tokio::select! { biased; () = stop.cancelled() => {} () = await_others(&cluster, patience) => {} }
            serve(listener, service, runtime, options, stop).await
        });
    }
    Ok(listeners)
}

/// Waits until a quorum of the nodes is reached, and one of them has said what it knows of this node's store: until then this node's own
/// answers do not count.
async fn await_others(cluster: &Cluster, patience: Duration) {
    let reached = async {
        cluster.await_quorums(patience).await;
        while cluster.own_store() == OwnStore::Unheard && 1 < cluster.layout().live_nodes().len() {
            sleep(LOOK_PERIOD).await;
        }
    };
    let _ = timeout(patience, reached).await;
}

/// A bound listener and what it serves.
struct Front {
    listener: Listener,
    service: Arc<dyn HttpService>,
    tls: Option<Arc<dyn TlsChoice>>,
    /// How long it waits for other nodes before it answers.
    patience: Duration,
}

impl Front {
    fn with_tls(self, tls: Option<Arc<dyn TlsChoice>>) -> Front {
        Front { tls, ..self }
    }
    /// Answers although no other node is reached yet: what operators ask then, they need then.
    fn at_once(self) -> Front {
        Front { patience: Duration::ZERO, ..self }
    }
}

/// What the listener without TLS serves: the interface, or the way to its listener with TLS.
fn plain(service: &Arc<dyn HttpService>, tls: Option<&Tls>) -> Arc<dyn HttpService> {
    match tls.and_then(|tls| tls.redirect_port) {
        Some(port) => Arc::new(RedirectToHttps::new(port)),
        None => service.clone(),
    }
}

async fn files_of(tls: &Tls, runtime: &Runtime, table: &str) -> Result<Option<Arc<CertificateFiles>>, Failure> {
    let Some((certificate, key)) = &tls.files else { return Ok(None) };
    let opened = CertificateFiles::open(certificate, key, runtime).await;
    Ok(Some(opened.map_err(|error| format!("{table}.tls_cert_file, {table}.tls_key_file: {error}"))?))
}

async fn web_fronts(
    settings: &Settings,
    web: &S3Web,
    runtime: &Runtime,
    server: &Server,
    registry: &mut Registry,
) -> Result<Vec<Front>, Failure> {
    let sites: Arc<dyn HttpService> = Arc::new(web_server(web, runtime, server, registry));
    let mut without_tls = plain(&sites, web.tls.as_ref());
    let mut fronts = Vec::new();
    if let Some(tls) = &web.tls {
        let files = files_of(tls, runtime, "s3_web").await?;
        let choice: Option<Arc<dyn TlsChoice>> = match &settings.config.acme {
            Some(acme) => {
                without_tls = Arc::new(ChallengeFront::new(server.node.certificates.clone(), without_tls));
                Some(Arc::new(WebsiteTls::new(start_acme(acme, web, runtime, server).await?, files)))
            }
            None => files.map(|files| files as Arc<dyn TlsChoice>),
        };
        fronts.push(bind(&tls.bind_addr, SOCKET_MODE_PUBLIC, "s3_web.tls_bind_addr", sites).await?.with_tls(choice));
    }
    fronts.push(bind(&web.bind_addr, SOCKET_MODE_PUBLIC, "s3_web.bind_addr", without_tls).await?);
    Ok(fronts)
}

async fn start_acme(acme: &config::Acme, web: &S3Web, runtime: &Runtime, server: &Server) -> Result<Acme, Failure> {
    let ca_file = acme.ca_file.clone();
    let options = AcmeOptions {
        directory_url: acme.directory_url.clone(),
        contact: acme.contact.clone(),
        challenge: acme.challenge,
        transport: runtime.blocking(Lane::File, move || Transport::new(ca_file.as_deref())).await??,
        root_domain: web.root_domain.clone(),
    };
    let node = &server.node;
    Ok(Acme::start(options, runtime.clone(), node.access.buckets().clone(), node.certificates.clone()))
}

async fn bind(listen: &Listen, unix_mode: u32, setting: &str, service: Arc<dyn HttpService>) -> Result<Front, Failure> {
    let address = ListenAddress::of(listen, unix_mode);
    let listener = Listener::bind(&address, setting).await?;
    progress(&format!("{setting}: listening on {address}"));
    Ok(Front { listener, service, tls: None, patience: QUORUMS_PATIENCE })
}

fn s3_api(settings: &Settings, runtime: &Runtime, server: &Server) -> S3Api {
    let config = &settings.config;
    let s3 = &config.s3_api;
    let options =
        S3Options { region: s3.s3_region.clone(), root_domain: s3.root_domain.clone(), trusted_proxies: s3.trusted_proxies.clone() };
    let node = &server.node;
    S3Api::new(options, runtime.clone(), node.access.clone(), node.objects.clone(), node.uploads.clone())
}

fn web_server(web: &S3Web, runtime: &Runtime, server: &Server, registry: &mut Registry) -> WebServer {
    let options = WebOptions { root_domain: web.root_domain.clone() };
    let node = &server.node;
    let metrics = WebMetrics::new(registry, web.add_host_to_metrics);
    WebServer::new(options, runtime.clone(), node.access.buckets().clone(), node.objects.clone(), metrics)
}

fn say_what_is_not_served(settings: &Settings) {
    let config = &settings.config;
    // The quick start's configuration is our own: nobody asked for these there.
    if settings.is_quick_start {
        return;
    }
    let missing = [
        (config.k2v_api.is_some(), "[k2v_api]: this release does not serve K2V yet"),
        (config.consul_discovery.is_some(), "[consul_discovery]: this release finds peers by bootstrap_peers and gossip only"),
        (config.kubernetes_discovery.is_some(), "[kubernetes_discovery]: this release finds peers by bootstrap_peers and gossip only"),
        (config.admin.trace_sink.is_some(), "admin.trace_sink: this release sends no traces"),
    ];
    missing.into_iter().filter(|(is_configured, _)| *is_configured).for_each(|(_, text)| tracing::warn!("{text}"));
}
