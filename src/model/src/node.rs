//! A node put together: store, cluster, tables, blocks, and the services over them. The server and the simulation both start here.
//!
//! Order of construction: store, cluster handle, services over both, router with everybody's handlers, transport around the router.
//! So no part is handed in after the fact.

use std::sync::Arc;

use garage_block::{
    manager::{BlockManager, ManagerOptions},
    reference::References,
    service::BlockService,
    store::{BlockStore, OpenStoreError, StoreOptions},
};
use garage_db::{Db, DbOptions, Engine, OpenError};
use garage_net::{NodeId, Service, Transport};
use garage_rpc::{
    Cluster, ClusterOptions, PreparedCluster, RouterBuilder, StoreMark,
    state::{StateError, StateFiles},
};
use garage_table::{
    Store, Tables,
    control::{Control, Mirror},
};
use garage_util::{config::ConsistencyMode, disk::Disk, runtime::Runtime};

use crate::{
    access::AccessControl,
    buckets::Buckets,
    keys::Keys,
    objects::Objects,
    schema::{CONTROL_TABLES, schemas},
    seal::Sealer,
    uploads::Uploads,
};

/// What a node is made of.
pub struct NodeOptions {
    /// Clock, randomness and tasks.
    pub runtime: Runtime,
    /// This node's identity.
    pub local: NodeId,
    /// The metadata store, opened with [`garage_table::keyspaces::SPECS`].
    pub engine: Arc<dyn Engine>,
    /// How it is used.
    pub db: DbOptions,
    /// The file system of the data directories.
    pub disk: Arc<dyn Disk>,
    /// Where block files are.
    pub block_store: StoreOptions,
    /// How blocks are made.
    pub blocks: ManagerOptions,
    /// The control files in the metadata directory.
    pub files: StateFiles,
    /// Who this node is to others, and whom it knows.
    pub identity: NodeIdentity,
    /// Copies of everything (`replication_factor`).
    pub replication_factor: usize,
    /// What plain reads and writes wait for (`consistency_mode`).
    pub consistency_mode: ConsistencyMode,
    /// The cluster secret (`rpc_secret`), under which access key secrets are sealed.
    pub secret: [u8; 32],
    /// Former cluster secrets, under which some secrets may still be sealed (`rpc_secrets_previous`).
    pub former_secrets: Vec<[u8; 32]>,
    /// Objects up to this size are kept in rows (`inline_threshold`).
    pub inline_max_bytes: usize,
    /// Whether bucket names may have labels that start with `xn--`.
    pub allow_punycode: bool,
}

/// Who a node is to others, and whom it knows.
#[derive(Clone, Debug, Default)]
pub struct NodeIdentity {
    /// Shown in the status.
    pub hostname: String,
    /// The version of this release.
    pub release: String,
    /// `host:port` under which others are to dial this node (`rpc_public_addr`).
    pub public_address: Option<String>,
    /// Peers to begin with (`bootstrap_peers`).
    pub bootstrap_peers: Vec<(NodeId, String)>,
}

/// Partitions of the ring.
pub const PARTITION_COUNT: usize = 256;

/// Why a node can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The metadata store.
    #[error("the metadata store can't be opened: {0}")]
    Store(#[from] OpenError),
    /// The data directories.
    #[error("the data directories can't be opened: {0}")]
    Data(#[from] OpenStoreError),
    /// The control files.
    #[error("the metadata directory can't be read: {0}")]
    State(#[from] StateError),
}

/// A running node. Cheap to clone.
#[derive(Clone)]
pub struct Node {
    /// The others.
    pub cluster: Cluster,
    /// The local store.
    pub db: Db,
    /// The local replica of rows.
    pub store: Store,
    /// Blocks.
    pub blocks: BlockManager,
    /// Buckets, keys, and who may do what.
    pub access: AccessControl,
    /// Objects.
    pub objects: Objects,
    /// Multipart uploads.
    pub uploads: Uploads,
    /// Control rows.
    pub control: Control,
}

/// A node that is not yet on the network.
pub struct PreparedNode {
    node: Node,
    cluster: PreparedCluster,
    mirror: Mirror,
}

impl PreparedNode {
    /// Opens what is on disk and builds all services.
    pub async fn open(options: NodeOptions) -> Result<PreparedNode, StartError> {
        let runtime = options.runtime.clone();
        let db = Db::open(&runtime, options.engine, options.db).await?;
        let block_store = BlockStore::open(&runtime, options.disk, options.block_store).await?;
        let marked = db.clone();
        let identity = options.identity;
        let cluster = Cluster::prepare(ClusterOptions {
            local: options.local,
            runtime: runtime.clone(),
            files: options.files,
            own_mark: Arc::new(move || StoreMark { store_id: marked.store_id(), commit_number: marked.commit_number() }),
            hostname: identity.hostname,
            release: identity.release,
            public_address: identity.public_address,
            bootstrap_peers: identity.bootstrap_peers,
            replication_factor: options.replication_factor,
            partition_count: PARTITION_COUNT,
            consistency_mode: options.consistency_mode,
        })
        .await?;
        let handle = cluster.handle();
        let store = Store::new(db.clone(), schemas());
        let tables = Tables::new(handle.clone(), &store);
        let mirror = Mirror::new(CONTROL_TABLES.to_vec());
        let control = Control::start(tables.clone(), mirror.clone());
        let service = BlockService::new(runtime.clone(), block_store, References::new(store.clone(), runtime.clone()));
        let blocks = BlockManager::new(runtime.clone(), Arc::new(handle.clone()), service, options.blocks);
        let objects = Objects::new(tables, blocks.clone(), options.inline_max_bytes);
        let keys = Keys::new(control.clone(), Sealer::new(&options.secret, &options.former_secrets), runtime.clone());
        let buckets = Buckets::new(control.clone(), objects.clone(), keys.clone(), runtime, options.allow_punycode);
        let access = AccessControl::new(keys, buckets);
        let uploads = Uploads::new(objects.clone());
        let node = Node { cluster: handle, db, store, blocks, access, objects, uploads, control };
        Ok(PreparedNode { node, cluster, mirror })
    }

    /// The services, to build further handlers with.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Adds the handlers of all layers to those in `router`, makes the transport around them, and joins the cluster.
    pub fn online<E>(
        self,
        router: RouterBuilder,
        make_transport: impl FnOnce(Arc<dyn Service>) -> Result<Arc<dyn Transport>, E>,
    ) -> Result<Node, E> {
        let PreparedNode { node, cluster, mirror } = self;
        let router = node.store.register(router, node.cluster.clone());
        let router = node.blocks.service().register(mirror.register(router, &node.store));
        cluster.online(router, make_transport)?;
        Ok(node)
    }
}
