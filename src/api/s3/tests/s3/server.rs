//! One node with the S3 interface on a port of its own.

use std::{sync::Arc, time::Duration};

use garage_api_common::http::{ListenAddress, Listener, ServerOptions, serve};
use garage_api_s3::{S3Api, S3Options};
use garage_block::{manager::ManagerOptions, store::StoreOptions};
use garage_db::{DbOptions, MemoryEngine};
use garage_model::{
    RequestContext,
    keys::NewKey,
    node::{Node, NodeIdentity, NodeOptions, PreparedNode},
    rows::bucket::{Permissions, Quotas},
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
        let options = S3Options { region: REGION.into(), root_domain: Some(ROOT_DOMAIN.into()) };
        let api = S3Api::new(options, runtime.clone(), node.access.clone(), node.objects.clone(), node.uploads.clone());
        let any_port = ListenAddress::Tcp("127.0.0.1:0".parse().unwrap());
        let listener = Listener::bind(&any_port, "test").await.unwrap();
        let address = listener.local_address().unwrap();
        tokio::spawn(serve(listener, Arc::new(api), runtime.clone(), ServerOptions::default(), runtime.stopping().clone()));
        let client = Client { address, key: key.id, secret };
        assert_eq!(client.put("/bkt", "").await.status, 200);
        Server { node, client, _dir: dir }
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
    let local = NodeId([1; 32]);
    let (meta, data) = (dir.path().join("meta"), dir.path().join("data"));
    std::fs::create_dir(&meta).unwrap();
    std::fs::create_dir(&data).unwrap();
    let disk = Arc::new(RealDisk);
    let prepared = PreparedNode::open(NodeOptions {
        runtime: runtime.clone(),
        local,
        engine: Arc::new(MemoryEngine::new(keyspaces::SPECS)),
        db: DbOptions::default(),
        disk: disk.clone(),
        block_store: StoreOptions { min_free_bytes: 0, ..StoreOptions::new(data, meta.join("data_layout")) },
        blocks: ManagerOptions { block_size_bytes: 256 << 10, ..ManagerOptions::default() },
        files: StateFiles::new(disk, meta, runtime.clone()),
        identity: NodeIdentity::default(),
        replication_factor: 1,
        consistency_mode: ConsistencyMode::Consistent,
        secret: [7; 32],
        former_secrets: Vec::new(),
        inline_max_bytes: 4 << 10,
        allow_punycode: false,
    });
    let network = MemoryNetwork::new(Duration::ZERO);
    let address = "10.0.0.1:3901".parse().unwrap();
    let online = prepared
        .await
        .unwrap()
        .online(RouterBuilder::new(), |service| Ok::<_, std::convert::Infallible>(network.attach(local, address, 1, runtime, service)));
    let Ok(node) = online;
    let role = Role { zone: "z".into(), capacity_bytes: Some(1 << 40), tags: Vec::new() };
    node.cluster.stage_role(local, RoleChange::Assign(role)).await.unwrap();
    node.cluster.apply_layout(1).await.unwrap();
    node
}
