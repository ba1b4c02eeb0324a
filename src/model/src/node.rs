//! A node put together: store, cluster, tables, blocks, and the services over them. The server and the simulation both start here.
//!
//! Order of construction: store, cluster handle, services over both, router with everybody's handlers, transport around the router.
//! So no part is handed in after the fact.

use std::sync::Arc;

use garage_block::{
    leases::Leases,
    manager::{BlockManager, ManagerOptions},
    reference::References,
    resync::{QueueError, Resync},
    scrub::{Scrub, ScrubError},
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
    Standing, Store, Syncer, Tables,
    control::{Control, Mirror},
    standing::{Counts, StandingError},
};
use garage_util::{config::ConsistencyMode, disk::Disk, runtime::Runtime, workers::Workers};

use crate::{
    access::AccessControl,
    buckets::Buckets,
    certificates::Certificates,
    encryption::EncryptionKeys,
    keys::Keys,
    lifecycle::{Lifecycle, LifecycleOptions},
    objects::Objects,
    schema::{CONTROL_TABLES, schemas},
    seal::Sealer,
    upkeep::{self, UpkeepOptions, liveness::RowLiveness, marks::Marks, snapshots::Snapshots},
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
    /// When the lifecycle of buckets is carried out.
    pub lifecycle: LifecycleOptions,
    /// Whether bucket names may have labels that start with `xn--`.
    pub allow_punycode: bool,
    /// What goes on in the background.
    pub upkeep: UpkeepOptions,
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
    /// What the store says of its own standing.
    #[error("the metadata store can't be read: {0}")]
    Standing(#[from] StandingError),
    /// The control files.
    #[error("the metadata directory can't be read: {0}")]
    State(#[from] StateError),
    /// The state of the scrub.
    #[error(transparent)]
    Scrub(#[from] ScrubError),
    /// The settings of the resync.
    #[error(transparent)]
    Resync(#[from] QueueError),
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
    /// What makes it equal to others.
    pub syncer: Syncer,
    /// What goes on in the background.
    pub workers: Workers,
    /// Blocks.
    pub blocks: BlockManager,
    /// Buckets, keys, and who may do what.
    pub access: AccessControl,
    /// Objects.
    pub objects: Objects,
    /// Multipart uploads.
    pub uploads: Uploads,
    /// Certificates of websites.
    pub certificates: Certificates,
    /// Control rows.
    pub control: Control,
    /// The lifecycle of buckets.
    pub lifecycle: Lifecycle,
    /// Keeps blocks where they belong.
    pub resync: Resync,
    /// Finds out which references to blocks are still needed.
    pub leases: Leases,
    /// Checks all blocks once in a while; `None` with `disable_scrub`.
    pub scrub: Option<Scrub>,
    /// Snapshots of the metadata.
    pub snapshots: Snapshots,
}

/// A node that is not yet on the network.
pub struct PreparedNode {
    node: Node,
    cluster: PreparedCluster,
    mirror: Mirror,
    block_len_bytes: u32,
}

impl PreparedNode {
    /// Opens what is on disk and builds all services.
    pub async fn open(options: NodeOptions) -> Result<PreparedNode, StartError> {
        let runtime = options.runtime.clone();
        let block_len_bytes = u32::try_from(options.blocks.block_size_bytes).unwrap_or(u32::MAX);
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
        let workers = Workers::new(runtime.clone());
        let store = Store::new(db.clone(), schemas(runtime.clone()));
        let tables = Tables::new(handle.clone(), &store);
        let syncer = Syncer::new(store.clone(), tables.clone(), Standing::open(db.clone()).await?);
        let mirror = Mirror::new(CONTROL_TABLES.to_vec());
        let control = Control::start(tables.clone(), mirror.clone());
        let service = BlockService::new(runtime.clone(), block_store, References::new(store.clone(), runtime.clone()));
        let blocks = BlockManager::new(runtime.clone(), Arc::new(handle.clone()), service, options.blocks);
        let (standing, placed) = (syncer.standing().clone(), handle.clone());
        // A node that lost its rows may have lost references: it deletes no block of a partition before that is refilled.
        let may_delete = move |hash: garage_block::BlockHash| {
            let partition = hash.placement_hash()[0];
            standing.counts(&placed, partition) == Counts::Yes
        };
        let resync = Resync::new(runtime.clone(), blocks.clone(), Arc::new(may_delete));
        resync.load_settings().await?;
        let scrub = if options.upkeep.is_scrub_enabled { Some(Scrub::open(runtime.clone(), resync.clone()).await?) } else { None };
        let snapshots = Snapshots::new(runtime.clone(), db.clone(), options.upkeep.snapshots);
        let leases = Leases::new(runtime.clone(), blocks.clone(), Arc::new(RowLiveness::new(tables.clone())));
        let encryption = EncryptionKeys::new(runtime.clone(), &options.secret, &options.former_secrets);
        let objects = Objects::new(tables, blocks.clone(), options.inline_max_bytes, encryption);
        let sealer = Sealer::new(&options.secret, &options.former_secrets);
        let certificates = Certificates::new(control.clone(), sealer.clone(), runtime.clone());
        let keys = Keys::new(control.clone(), sealer, runtime.clone());
        let buckets = Buckets::new(control.clone(), objects.clone(), keys.clone(), runtime, options.allow_punycode);
        let uploads = Uploads::new(objects.clone());
        let lifecycle = Lifecycle::new(objects.clone(), uploads.clone(), buckets.clone(), options.lifecycle);
        let access = AccessControl::new(keys, buckets);
        let node = Node {
            cluster: handle,
            db,
            store,
            syncer,
            workers,
            blocks,
            access,
            objects,
            uploads,
            certificates,
            control,
            lifecycle,
            resync,
            leases,
            scrub,
            snapshots,
        };
        Ok(PreparedNode { node, cluster, mirror, block_len_bytes })
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
        let PreparedNode { node, cluster, mirror, block_len_bytes } = self;
        let standing = node.syncer.standing().clone();
        let router = node.syncer.register(node.store.register(router, node.cluster.clone(), standing.clone()));
        let counting = node.cluster.clone();
        let router = mirror.register(router, &node.store, move |partition| standing.counts(&counting, partition));
        let router = node.blocks.service().register(router);
        let router = upkeep::deaths::register(Marks::default().register(router), &node.store);
        cluster.online(router, make_transport)?;
        node.syncer.start(&node.workers, block_len_bytes);
        upkeep::start(&node);
        Ok(node)
    }
}
