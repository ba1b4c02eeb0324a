//! One node with the S3 interface on a port of its own.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use garage_api_common::http::{ListenAddress, Listener, ServerOptions, serve};
use garage_api_s3::{S3Api, S3Options};
use garage_block::{manager::ManagerOptions, store::StoreOptions};
use garage_db::{DbOptions, MemoryEngine};
use garage_model::{
    RequestContext,
    keys::NewKey,
    node::{Node, NodeIdentity, NodeOptions, PreparedNode},
    rows::bucket::{Permissions, Quotas},
    upkeep::UpkeepOptions,
};
use garage_net::NodeId;
use garage_rpc::{
    RouterBuilder,
    layout::{Role, RoleChange},
    state::StateFiles,
    testing::MemoryNetwork,
};
use garage_table::{control::Effect, keyspaces};
use garage_util::{config::ConsistencyMode, disk::RealDisk, runtime::Runtime};
use tempfile::TempDir;

use crate::client::Client;

pub const REGION: &str = "garage";
pub const ROOT_DOMAIN: &str = ".s3.example.org";

/// A running server; it ends with the test's runtime.
pub struct Server {
    pub node: Node,
    /// May make buckets.
    pub client: Client,
    _dir: TempDir,
}

pub fn context() -> RequestContext {
    RequestContext::within(Duration::from_secs(30))
}

impl Server {
    /// A server with the bucket `bkt`, on which its client has all rights.
    pub async fn start() -> Server {
        let dir = TempDir::new().unwrap();
        let (runtime, _) = Runtime::real();
        let node = start_node(&dir, runtime.clone()).await;
        let new = NewKey { name: "tester".into(), expires_ms: None, create_bucket: true };
        let (key, secret) = node.access.keys().create(new, context()).await.unwrap();
        let address = serve_s3(&node, &runtime).await;
        let client = Client { address, key: key.id, secret };
        assert_eq!(client.put("/bkt", "").await.status, 200);
        Server { node, client, _dir: dir }
    }

    /// Where block files are.
    pub fn data_dir(&self) -> std::path::PathBuf {
        self._dir.path().join("data")
    }

    /// A client with a key of its own and these rights on `bkt`.
    pub async fn other_client(&self, rights: Permissions, create_bucket: bool) -> Client {
        let new = NewKey { name: "other".into(), expires_ms: None, create_bucket };
        let (key, secret) = self.node.access.keys().create(new, context()).await.unwrap();
        let bucket = self.node.access.buckets().resolve(None, "bkt", context()).await.unwrap().unwrap();
        let set = self.node.access.buckets().set_permissions(bucket.id, &key, rights, Permissions::default(), context());
        set.await.unwrap();
        Client { address: self.client.address, key: key.id, secret }
    }

    /// Limits the bucket `bkt`.
    pub async fn set_quotas(&self, quotas: Quotas) {
        let bucket = self.node.access.buckets().resolve(None, "bkt", context()).await.unwrap().unwrap();
        let change = self.node.access.buckets().change(bucket.id, Effect::Restricts, context(), |row| {
            row.quotas = quotas;
            Ok(())
        });
        change.await.unwrap();
    }
}

async fn start_node(dir: &TempDir, runtime: Runtime) -> Node {
    let network = MemoryNetwork::new(Duration::ZERO);
    let node = start_node_on(dir, runtime, &network, 1, 1).await;
    assign_roles(&[&node]).await;
    node
}

async fn start_node_on(dir: &TempDir, runtime: Runtime, network: &MemoryNetwork, number: u8, replication_factor: usize) -> Node {
    let local = NodeId([number; 32]);
    let (meta, data) = (dir.path().join("meta"), dir.path().join("data"));
    std::fs::create_dir(&meta).unwrap();
    std::fs::create_dir(&data).unwrap();
    let disk = Arc::new(RealDisk);
    let first_peer = (1 < number).then(|| (NodeId([1; 32]), address_of(1).to_string()));
    let prepared = PreparedNode::open(NodeOptions {
        runtime: runtime.clone(),
        local,
        engine: Arc::new(MemoryEngine::new(keyspaces::SPECS)),
        db: DbOptions::default(),
        disk: disk.clone(),
        block_store: StoreOptions { min_free_bytes: 0, ..StoreOptions::new(data, meta.join("data_layout")) },
        blocks: ManagerOptions { block_size_bytes: 256 << 10, ..ManagerOptions::default() },
        files: StateFiles::new(disk, meta, runtime.clone()),
        identity: NodeIdentity { bootstrap_peers: first_peer.into_iter().collect(), ..NodeIdentity::default() },
        replication_factor,
        consistency_mode: ConsistencyMode::Consistent,
        secret: [7; 32],
        former_secrets: Vec::new(),
        inline_max_bytes: 4 << 10,
        allow_punycode: false,
        lifecycle: Default::default(),
        upkeep: UpkeepOptions::default(),
    });
    let attach = |service| Ok::<_, std::convert::Infallible>(network.attach(local, address_of(number), 1, runtime, service));
    let Ok(node) = prepared.await.unwrap().online(RouterBuilder::new(), attach);
    node
}

fn address_of(number: u8) -> SocketAddr {
    ([10, 0, 0, number], 3901).into()
}

/// Gives each node a zone of its own, and waits until all work by the layout.
async fn assign_roles(nodes: &[&Node]) {
    for (index, node) in nodes.iter().enumerate() {
        let role = Role { zone: format!("z{index}"), capacity_bytes: Some(1 << 40), tags: Vec::new() };
        nodes[0].cluster.stage_role(node.cluster.local(), RoleChange::Assign(role)).await.unwrap();
    }
    nodes[0].cluster.apply_layout(1).await.unwrap();
    until("all nodes know the layout", || nodes.iter().all(|node| node.cluster.layout_mark().version == 1)).await;
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let patience = tokio::time::Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(tokio::time::Instant::now() < patience, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Serves the S3 interface of a node on a port of its own.
async fn serve_s3(node: &Node, runtime: &Runtime) -> SocketAddr {
    let options = S3Options { region: REGION.into(), root_domain: Some(ROOT_DOMAIN.into()), trusted_proxies: Vec::new() };
    let api = S3Api::new(options, runtime.clone(), node.access.clone(), node.objects.clone(), node.uploads.clone());
    let any_port = ListenAddress::Tcp("127.0.0.1:0".parse().unwrap());
    let listener = Listener::bind(&any_port, "test").await.unwrap();
    let address = listener.local_address().unwrap();
    tokio::spawn(serve(listener, Arc::new(api), runtime.clone(), ServerOptions::default(), runtime.stopping().clone()));
    address
}

/// Three nodes with the S3 interface, in three zones, with three copies of everything.
pub struct Cluster {
    network: MemoryNetwork,
    nodes: Vec<Node>,
    /// The owner of the bucket `bkt`, through each node.
    pub owners: Vec<Client>,
    _dirs: Vec<TempDir>,
}

impl Cluster {
    pub async fn start() -> Cluster {
        let network = MemoryNetwork::new(Duration::from_millis(1));
        let (mut nodes, mut dirs, mut addresses) = (Vec::new(), Vec::new(), Vec::new());
        for number in 1..=3 {
            let (dir, (runtime, _)) = (TempDir::new().unwrap(), Runtime::real());
            let node = start_node_on(&dir, runtime.clone(), &network, number, 3).await;
            addresses.push(serve_s3(&node, &runtime).await);
            nodes.push(node);
            dirs.push(dir);
        }
        let sees =
            |node: &Node, other: &Node| node.cluster.status().iter().any(|status| status.node == other.cluster.local() && status.is_up);
        until("all nodes see all", || nodes.iter().all(|node| nodes.iter().all(|other| sees(node, other)))).await;
        assign_roles(&nodes.iter().collect::<Vec<_>>()).await;
        let new = NewKey { name: "tester".into(), expires_ms: None, create_bucket: true };
        let (key, secret) = nodes[0].access.keys().create(new, context()).await.unwrap();
        let owner = |address| Client { address, key: key.id.clone(), secret: secret.clone() };
        let owners: Vec<Client> = addresses.into_iter().map(owner).collect();
        assert_eq!(owners[0].put("/bkt", "").await.status, 200);
        Cluster { network, nodes, owners, _dirs: dirs }
    }

    /// Loses every packet between a node and the others.
    pub fn isolate(&self, index: usize) {
        let node = self.nodes[index].cluster.local();
        let others = self.nodes.iter().map(|other| other.cluster.local()).filter(|other| *other != node);
        others.for_each(|other| self.network.cut(node, other, true));
    }

    /// A key without rights, through each node.
    pub async fn strangers(&self) -> Vec<Client> {
        let new = NewKey { name: "stranger".into(), expires_ms: None, create_bucket: false };
        let (key, secret) = self.nodes[0].access.keys().create(new, context()).await.unwrap();
        self.owners.iter().map(|owner| Client { address: owner.address, key: key.id.clone(), secret: secret.clone() }).collect()
    }
}
