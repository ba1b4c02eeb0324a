//! Puts a node together from the settings and brings it on the network.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use garage_api_admin::AdminApi;
use garage_block::{
    encoding::Compression,
    limits::DELETES_RESERVE_BYTES,
    manager::ManagerOptions,
    store::{DataDirOptions, DirUsage, StoreOptions},
};
use garage_db::{DbOptions, Durability, Engine, FjallEngine, FjallOptions, snapshots::SnapshotDir};
use garage_model::{
    lifecycle::LifecycleOptions,
    node::{Node, NodeIdentity, NodeOptions, PreparedNode},
    upkeep::{
        UpkeepOptions,
        snapshots::{SNAPSHOTS_KEPT_COUNT, SnapshotOptions},
    },
};
use garage_net::{NodeId, NodeKey, QuicOptions, QuicTransport, Transport};
use garage_rpc::{RouterBuilder, state::StateFiles};
use garage_table::keyspaces;
use garage_util::{
    config::{Config, DataDirUse},
    disk::{Disk, RealDisk},
    runtime::Runtime,
    workers::Wake,
};

use super::{
    Failure,
    limits::{SNAPSHOT_CACHE_BYTES, TRANSPORT_PATIENCE},
    progress,
    settings::Settings,
    space,
};

/// A node on the network.
pub(super) struct Server {
    pub node: Node,
    pub admin: AdminApi,
    transport: QuicTransport,
}

impl Server {
    /// Leaves the network and closes the store. Nothing answered is lost without it; it spares the next start some work.
    pub(super) async fn stop(&self) {
        self.transport.close(TRANSPORT_PATIENCE).await;
        self.node.cluster.disconnect();
        if let Err(error) = self.node.db.close().await {
            tracing::warn!(%error, "the metadata store was not closed cleanly; nothing answered is lost");
        }
    }
}

/// Opens what is on disk, binds the RPC port, joins the cluster.
pub(super) async fn start(settings: &Settings, runtime: &Runtime) -> Result<Server, Failure> {
    let config = &settings.config;
    RealDisk.create_dir_all(&config.metadata_dir).map_err(|error| format!("metadata_dir = {}: {error}", config.metadata_dir.display()))?;
    let key = NodeKey::load_or_create(&config.metadata_dir)?;
    progress(&format!("node {} opens its metadata in {}", key.node().short(), config.metadata_dir.display()));
    let prepared = PreparedNode::open(node_options(settings, runtime, key.node())).await?;
    check_replication_factor(prepared.node(), config)?;
    if let Some(reason) = prepared.node().db.recovering() {
        tracing::warn!(?reason, "the metadata store lost commits or was replaced; rows are fetched from the other nodes as they are read");
    }
    let admin = AdminApi::new(prepared.node().clone(), super::listeners::admin_options(settings));
    let router = admin.register(RouterBuilder::new());
    progress(&format!("listening for nodes on {}", config.rpc_bind_addr));
    let quic = QuicOptions {
        bind_outgoing: config.rpc_bind_outgoing,
        rpc_buffer_max_bytes: config.rpc_buffer_max,
        ..QuicOptions::node(config.rpc_bind_addr, key, settings.rpc_secret.0)
    };
    let mut bound = None;
    let node = prepared.online(router, |service| {
        let transport = QuicTransport::bind(quic, runtime.clone(), service)?;
        bound = Some(transport.clone());
        Ok::<_, garage_net::BindError>(Arc::new(transport) as Arc<dyn Transport>)
    })?;
    let transport = bound.ok_or("the transport was not made")?;
    space::report_for_ever(runtime, &node, config);
    node.workers.start(node.lifecycle.worker(), Wake::default());
    Ok(Server { node, admin, transport })
}

/// A layout of another replication factor than the file's would be changed behind the operator's back.
fn check_replication_factor(node: &Node, config: &Config) -> Result<(), Failure> {
    let layout = node.cluster.layout();
    let current = layout.current();
    if current.version == 0 || current.replication_factor == config.replication_factor {
        return Ok(());
    }
    Err(format!(
        "replication_factor = {} in the configuration, but the cluster's layout has {}; set it to {}",
        config.replication_factor, current.replication_factor, current.replication_factor
    )
    .into())
}

fn node_options(settings: &Settings, runtime: &Runtime, local: NodeId) -> NodeOptions {
    let config = &settings.config;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    NodeOptions {
        runtime: runtime.clone(),
        local,
        engine: Arc::new(FjallEngine::new(engine_options(config))),
        db: DbOptions { durability: if config.metadata_fsync { Durability::Synced } else { Durability::Buffered }, ..DbOptions::default() },
        block_store: block_store_options(config),
        blocks: ManagerOptions {
            block_size_bytes: config.block_size as usize,
            compression: Compression::from_level(config.compression_level),
            ram_buffer_bytes: config.block_ram_buffer_max as usize,
            writes_in_flight_count: config.block_max_concurrent_writes_per_request,
            block_timeout: config.rpc_timeout,
        },
        files: StateFiles::new(disk.clone(), config.metadata_dir.clone(), runtime.clone()),
        disk,
        identity: NodeIdentity {
            hostname: nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            release: env!("CARGO_PKG_VERSION").to_string(),
            public_address: config.rpc_public_addr.as_ref().map(ToString::to_string),
            bootstrap_peers: config.bootstrap_peers.iter().map(|peer| (NodeId(peer.id), peer.address.to_string())).collect(),
        },
        replication_factor: config.replication_factor,
        consistency_mode: config.consistency_mode,
        secret: settings.rpc_secret.0,
        former_secrets: config.rpc_secrets_previous.iter().map(|secret| secret.0).collect(),
        inline_max_bytes: config.inline_threshold as usize,
        allow_punycode: config.allow_punycode,
        lifecycle: LifecycleOptions { interval: config.lifecycle_interval, ..LifecycleOptions::default() },
        upkeep: UpkeepOptions { is_scrub_enabled: !config.disable_scrub, snapshots: Some(snapshot_options(config)) },
    }
}

fn snapshot_options(config: &Config) -> SnapshotOptions {
    // A copy is written once and then closed: it needs no cache, and its space is looked after by whoever writes to the live store.
    let make_engine = |path: PathBuf| -> Arc<dyn Engine> {
        let defaults = FjallOptions::new(path, keyspaces::SPECS);
        Arc::new(FjallEngine::new(FjallOptions { block_cache_bytes: SNAPSHOT_CACHE_BYTES, ..defaults }))
    };
    SnapshotOptions {
        dir: SnapshotDir {
            path: config.metadata_snapshots_dir.clone(),
            keep_count: SNAPSHOTS_KEPT_COUNT,
            make_engine: Arc::new(make_engine),
        },
        interval: config.metadata_auto_snapshot_interval,
    }
}

fn engine_options(config: &Config) -> FjallOptions {
    let defaults = FjallOptions::new(config.metadata_dir.join("db.fjall"), keyspaces::SPECS);
    FjallOptions {
        block_cache_bytes: config.fjall_block_cache_size.filter(|size| *size > 0).unwrap_or(defaults.block_cache_bytes),
        min_free_bytes: config.metadata_min_free.unwrap_or(defaults.min_free_bytes),
        ..defaults
    }
}

/// The file system that a path is on, or will be once its directories are made.
fn file_system_of(path: &Path) -> Option<u64> {
    let path = std::path::absolute(path).ok()?;
    path.ancestors().find_map(|path| std::fs::metadata(path).ok()).map(|metadata| metadata.dev())
}

fn block_store_options(config: &Config) -> StoreOptions {
    let metadata_reserve_bytes = engine_options(config).min_free_bytes.saturating_add(DELETES_RESERVE_BYTES);
    let is_beside_metadata = |path: &Path| file_system_of(path) == file_system_of(&config.metadata_dir);
    let dir = |dir: &garage_util::config::DataDir| DataDirOptions {
        path: dir.path.clone(),
        usage: match dir.usage {
            DataDirUse::Only => DirUsage::Writable { capacity_bytes: 1 },
            DataDirUse::Share { capacity_bytes } => DirUsage::Writable { capacity_bytes },
            DataDirUse::ReadOnly => DirUsage::ReadOnly,
        },
        reserve_bytes: if is_beside_metadata(&dir.path) { metadata_reserve_bytes } else { 0 },
    };
    let layout_file = config.metadata_dir.join("data_layout");
    StoreOptions {
        dirs: config.data_dir.iter().map(dir).collect(),
        synced: config.data_fsync,
        reads_count: config.block_max_concurrent_reads,
        ..StoreOptions::new(config.metadata_dir.clone(), layout_file)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::file_system_of;

    #[test]
    fn a_directory_that_is_still_to_be_made_is_on_the_file_system_it_will_be_on() {
        let here = file_system_of(Path::new("."));
        assert!(here.is_some());
        assert_eq!(file_system_of(Path::new("still/to/be/made")), here);
    }
}
