//! The configuration of one node, field for field as the file spells it.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use super::{HostAddr, Listen, PeerAddr, RpcSecret, SecretSource, Subnet};

/// Everything `garage.toml` says, with defaults filled in. Secrets are only named here; [`super::Secrets`] holds their values.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Node key, peer list, layout and the metadata store.
    pub metadata_dir: PathBuf,
    /// Directories of block files; at least one of them is writable.
    pub data_dir: Vec<DataDir>,
    /// Whether a metadata commit is on stable storage before it is acknowledged. On unless the file says otherwise.
    pub metadata_fsync: bool,
    /// Whether a block file is on stable storage before it is acknowledged. On unless the file says otherwise.
    pub data_fsync: bool,
    /// No scrub worker on this node.
    pub disable_scrub: bool,
    /// Lifecycle days start at local instead of UTC midnight.
    pub use_local_tz: bool,
    /// Where metadata snapshots go.
    pub metadata_snapshots_dir: PathBuf,
    /// How often a metadata snapshot is taken; `None`: never.
    pub metadata_auto_snapshot_interval: Option<Duration>,
    /// Block cache of the metadata store, bytes; `None`: our default.
    pub fjall_block_cache_size: Option<u64>,
    /// Our own key: bytes that stay free on the metadata disk, writes are refused below; `None`: what the store computes for itself.
    pub metadata_min_free: Option<u64>,
    /// Chunk size of new objects, bytes.
    pub block_size: u64,
    /// Our own key: objects up to this many bytes live in the metadata store.
    pub inline_threshold: u64,
    /// Blocks in memory that wait for slow peers or disks, bytes; then back-pressure.
    pub block_ram_buffer_max: u64,
    /// Blocks of one upload that are written at once.
    pub block_max_concurrent_writes_per_request: usize,
    /// Block files that are read at once on this node.
    pub block_max_concurrent_reads: usize,
    /// zstd level of stored blocks, -99 to 22; `None`: no compression.
    pub compression_level: Option<i32>,

    /// Copies of each piece of data.
    pub replication_factor: usize,
    /// Which quorums plain reads and writes wait for.
    pub consistency_mode: ConsistencyMode,
    /// The cluster secret, as the file names it.
    pub rpc_secret: SecretSource,
    /// Our own key: earlier cluster secrets, still accepted for opening what they sealed.
    pub rpc_secrets_previous: Vec<RpcSecret>,
    /// RPC listener.
    pub rpc_bind_addr: SocketAddr,
    /// Outgoing connections come from the address of `rpc_bind_addr`.
    pub rpc_bind_outgoing: bool,
    /// Address told to peers; `None`: found by looking at the interfaces.
    pub rpc_public_addr: Option<HostAddr>,
    /// Filter for the address that is found.
    pub rpc_public_addr_subnet: Option<Subnet>,
    /// How long a peer may take to answer a ping.
    pub rpc_ping_timeout: Duration,
    /// How long a call between nodes may take.
    pub rpc_timeout: Duration,
    /// Our own key: bytes that connections from peers may hold in receive windows, together.
    pub rpc_buffer_max: u64,
    /// Peers to dial at start.
    pub bootstrap_peers: Vec<PeerAddr>,
    /// Secret files may be readable for others.
    pub allow_world_readable_secrets: bool,
    /// Bucket names with `xn--` labels are allowed.
    pub allow_punycode: bool,
    /// Our own key: from the end of one run of the buckets' lifecycle rules to the next.
    pub lifecycle_interval: Duration,
    /// Our own key: connections each HTTP listener holds open at once; more wait in the listen queue.
    pub max_connections: usize,

    /// The S3 interface.
    pub s3_api: S3Api,
    /// The K2V interface; `None`: not served.
    pub k2v_api: Option<K2vApi>,
    /// Bucket websites; `None`: not served.
    pub s3_web: Option<S3Web>,
    /// Our own table: certificates for websites from an authority; `None`: only those in files.
    pub acme: Option<Acme>,
    /// The admin interface, metrics and traces.
    pub admin: Admin,
    /// Peers are looked up in Consul.
    pub consul_discovery: Option<ConsulDiscovery>,
    /// Peers are looked up in Kubernetes.
    pub kubernetes_discovery: Option<KubernetesDiscovery>,
}

impl Config {
    /// The configuration of `server --single-node` without a file: everything under `root`, listeners on loopback only.
    ///
    /// The cluster secret is the file `<root>/meta/rpc_secret`, which the first start makes.
    pub fn single_node(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        let metadata_dir = root.join("meta");
        let loopback = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let rpc_secret = SecretSource { value: None, file: Some(metadata_dir.join("rpc_secret")) };
        Config {
            data_dir: vec![DataDir { path: root.join("data"), usage: DataDirUse::Only }],
            rpc_secret,
            rpc_public_addr: Some(HostAddr { host: "127.0.0.1".into(), port: 3901 }),
            s3_api: S3Api { api_bind_addr: Some(Listen::Tcp(loopback(3900))), ..S3Api::new("garage") },
            s3_web: Some(S3Web {
                bind_addr: Listen::Tcp(loopback(3902)),
                root_domain: Some("web.localhost".into()),
                add_host_to_metrics: false,
                tls: None,
            }),
            admin: Admin { api_bind_addr: Some(Listen::Tcp(loopback(3903))), ..Admin::default() },
            ..Config::with_defaults(metadata_dir, 1, loopback(3901))
        }
    }

    /// All optional keys at their defaults; `data_dir` empty and `s3_region` `garage`, for the caller to fill in.
    pub(super) fn with_defaults(metadata_dir: PathBuf, replication_factor: usize, rpc_bind_addr: SocketAddr) -> Self {
        Config {
            metadata_snapshots_dir: metadata_dir.join("snapshots"),
            metadata_dir,
            data_dir: Vec::new(),
            metadata_fsync: true,
            data_fsync: true,
            disable_scrub: false,
            use_local_tz: false,
            metadata_auto_snapshot_interval: None,
            fjall_block_cache_size: None,
            metadata_min_free: None,
            block_size: 1 << 20,
            inline_threshold: 16 << 10,
            block_ram_buffer_max: 256 << 20,
            block_max_concurrent_writes_per_request: 16,
            block_max_concurrent_reads: 16,
            compression_level: Some(1),
            replication_factor,
            consistency_mode: ConsistencyMode::Consistent,
            rpc_secret: SecretSource::default(),
            rpc_secrets_previous: Vec::new(),
            rpc_bind_addr,
            rpc_bind_outgoing: false,
            rpc_public_addr: None,
            rpc_public_addr_subnet: None,
            rpc_ping_timeout: Duration::from_secs(10),
            rpc_timeout: Duration::from_secs(300),
            rpc_buffer_max: 64 << 20,
            bootstrap_peers: Vec::new(),
            allow_world_readable_secrets: false,
            allow_punycode: false,
            lifecycle_interval: Duration::from_secs(24 * 3600),
            max_connections: 4096,
            s3_api: S3Api::new("garage"),
            k2v_api: None,
            s3_web: None,
            acme: None,
            admin: Admin::default(),
            consul_discovery: None,
            kubernetes_discovery: None,
        }
    }
}

/// One directory of block files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataDir {
    /// The directory; made when missing.
    pub path: PathBuf,
    /// What it is for.
    pub usage: DataDirUse,
}

/// What a data directory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataDirUse {
    /// The only directory: it takes everything.
    Only,
    /// Takes a share of the blocks in proportion to these bytes.
    Share {
        /// Bytes; more than 0.
        capacity_bytes: u64,
    },
    /// Read and drained, never written.
    ReadOnly,
}

/// Which quorums plain reads and writes wait for; conditional writes, layout and control rows always use majorities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ConsistencyMode {
    /// Reads see every acknowledged write.
    #[default]
    Consistent,
    /// Reads ask one replica.
    Degraded,
    /// Reads and writes ask one replica.
    Dangerous,
}

/// `[s3_api]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Api {
    /// Listener; `None`: S3 is not served.
    pub api_bind_addr: Option<Listen>,
    /// Region in signatures.
    pub s3_region: String,
    /// Suffix of virtual-host style bucket names, without leading dots; `None`: path style only.
    pub root_domain: Option<String>,
    /// URL told to clients.
    pub public_endpoint: Option<String>,
    /// Whether clients are told to use path style.
    pub public_endpoint_path_style: bool,
    /// Our own keys: a second listener, with TLS.
    pub tls: Option<Tls>,
    /// Our own key: proxies whose word on a client's address and scheme counts, for conditions of bucket policies.
    pub trusted_proxies: Vec<Subnet>,
}

impl S3Api {
    /// No listener, path style.
    pub(super) fn new(region: &str) -> Self {
        S3Api {
            api_bind_addr: None,
            s3_region: region.into(),
            root_domain: None,
            public_endpoint: None,
            public_endpoint_path_style: true,
            tls: None,
            trusted_proxies: Vec::new(),
        }
    }
}

/// `[k2v_api]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct K2vApi {
    /// Listener.
    pub api_bind_addr: Listen,
    /// URL told to clients.
    pub public_endpoint: Option<String>,
}

/// `[s3_web]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Web {
    /// Listener.
    pub bind_addr: Listen,
    /// Suffix of `<bucket>.<root_domain>`, without leading dots.
    pub root_domain: Option<String>,
    /// Label `host` on web metrics.
    pub add_host_to_metrics: bool,
    /// Our own keys: a second listener, with TLS.
    pub tls: Option<Tls>,
}

/// A second listener of an interface, with TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Listener.
    pub bind_addr: Listen,
    /// Certificate chain and private key (PEM); `None`: certificates come from the authority of [`Acme`].
    pub files: Option<(PathBuf, PathBuf)>,
    /// The port to which the listener without TLS leads its clients; `None`: it serves them.
    pub redirect_port: Option<u16>,
}

/// `[acme]`: a certificate authority that is asked for the certificates of websites (RFC 8555).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acme {
    /// URL of the authority's directory.
    pub directory_url: String,
    /// Addresses that the authority may write to.
    pub contact: Vec<String>,
    /// The proof that is given; `None`: one after the other, until one is accepted.
    pub challenge: Option<AcmeChallenge>,
    /// Certificates (PEM) by which the authority's own server is known; `None`: those of the system.
    pub ca_file: Option<PathBuf>,
}

/// How the authority is shown that a name leads here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcmeChallenge {
    /// By a text over HTTP on port 80 (RFC 8555 §8.3).
    Http01,
    /// By a certificate over TLS on port 443 (RFC 8737).
    TlsAlpn01,
}

/// `[admin]`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Admin {
    /// Listener; `None`: the admin API is not served over HTTP.
    pub api_bind_addr: Option<Listen>,
    /// Bearer token with full scope, as the file names it.
    pub admin_token: SecretSource,
    /// Bearer token of `/metrics`, as the file names it.
    pub metrics_token: SecretSource,
    /// `/metrics` is closed even without `metrics_token`.
    pub metrics_require_token: bool,
    /// OTLP collector.
    pub trace_sink: Option<String>,
    /// Our own keys: a second listener, with TLS.
    pub tls: Option<Tls>,
}

/// Which of Consul's interfaces registers the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ConsulApi {
    /// The catalog, over a client certificate if there is one.
    #[default]
    Catalog,
    /// The local agent, with a token if there is one.
    Agent,
}

/// `[consul_discovery]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsulDiscovery {
    /// Which interface.
    pub api: ConsulApi,
    /// Base URL.
    pub consul_http_addr: String,
    /// Service under which nodes register.
    pub service_name: String,
    /// CA of an HTTPS server (PEM).
    pub ca_cert: Option<PathBuf>,
    /// Client certificate and its key (PEM).
    pub client_identity: Option<(PathBuf, PathBuf)>,
    /// Token of each request.
    pub token: Option<String>,
    /// Accept any certificate.
    pub tls_skip_verify: bool,
    /// Further tags of the service.
    pub tags: Vec<String>,
    /// Further meta of the service.
    pub meta: BTreeMap<String, String>,
    /// Data centres to query instead of the local one.
    pub datacenters: Vec<String>,
}

/// `[kubernetes_discovery]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesDiscovery {
    /// Namespace of the GarageNode resources.
    pub namespace: String,
    /// Label value that selects this cluster.
    pub service_name: String,
    /// The resource definition is neither made nor changed.
    pub skip_crd: bool,
}
