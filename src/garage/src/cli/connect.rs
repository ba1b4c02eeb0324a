//! Which node a command talks to, and with which secret; and `garage node id`.

use std::path::{Path, PathBuf};

use garage_util::{
    config::{self, Config, HostAddr, PeerAddr, Purpose, RpcSecret, Secrets},
    id::to_hex,
};

use super::{
    args::{DEFAULT_CONFIG_FILE, GlobalArgs},
    error::CliError,
    output::Output,
};

/// Where `server --single-node` keeps its data when it has no configuration file; commands find the node there.
pub(crate) const SINGLE_NODE_DIR: &str = "./garage-data";

/// The node of a command.
pub(crate) struct Target {
    /// Whom to call.
    pub(crate) peer: PeerAddr,
    /// The cluster secret.
    pub(crate) secret: RpcSecret,
    /// What the configuration file tells S3 clients.
    pub(crate) public_endpoint: Option<String>,
}

/// The configuration: the file that was named, else the usual one, else that of a single node in this directory.
fn read_config(global: &GlobalArgs) -> Result<Config, CliError> {
    let usual = Path::new(DEFAULT_CONFIG_FILE);
    if global.config_file.is_none() && !usual.exists() && Path::new(SINGLE_NODE_DIR).join("meta/node_key.pub").exists() {
        return Ok(Config::single_node(SINGLE_NODE_DIR));
    }
    let path: PathBuf = global.config_file.clone().unwrap_or_else(|| usual.to_owned());
    Ok(config::load(&path, &global.overrides(), Purpose::Client)?.config)
}

/// Finds the node and the secret.
pub(crate) fn target(global: &GlobalArgs) -> Result<Target, CliError> {
    let overrides = global.overrides();
    let has_secret = overrides.rpc_secret.value.is_some() || overrides.rpc_secret.file.is_some();
    if let (Some(peer), true) = (&global.rpc_host, has_secret) {
        let secrets = Secrets::resolve(None, &overrides, Purpose::Client)?;
        return Ok(Target { peer: peer.clone(), secret: secrets.require_rpc_secret()?.clone(), public_endpoint: None });
    }
    let config = read_config(global)?;
    let secrets = Secrets::resolve(Some(&config), &overrides, Purpose::Client)?;
    let peer = match &global.rpc_host {
        Some(peer) => peer.clone(),
        None => PeerAddr { id: own_id(&config)?, address: own_address(&config) },
    };
    Ok(Target { peer, secret: secrets.require_rpc_secret()?.clone(), public_endpoint: config.s3_api.public_endpoint })
}

fn own_id(config: &Config) -> Result<[u8; 32], CliError> {
    let id = garage_net::identity::read_public(&config.metadata_dir);
    id.map(|id| id.0).map_err(|error| CliError::Message(format!("{error}; `garage server` makes it at its first start")))
}

fn own_address(config: &Config) -> HostAddr {
    let local = HostAddr { host: "127.0.0.1".into(), port: config.rpc_bind_addr.port() };
    config.rpc_public_addr.clone().unwrap_or(local)
}

/// `garage node id`: needs the configuration and the key file, no running node.
pub(crate) fn node_id(global: &GlobalArgs, quiet: bool) -> Result<Output, CliError> {
    let config = read_config(global)?;
    let id = to_hex(&own_id(&config)?);
    let mut out = Output::default();
    match &config.rpc_public_addr {
        Some(address) => out.line(format!("{id}@{address}")),
        None => out.line(&id),
    }
    if !quiet {
        out.hint(format!("To connect another node to this one, run there:\n    garage node connect {id}@{}", own_address(&config)));
        out.hint("or add this to its configuration file:");
        out.hint(format!("    bootstrap_peers = [\"{id}@{}\"]", own_address(&config)));
        if config.rpc_public_addr.is_none() {
            out.hint("rpc_public_addr is not set: replace 127.0.0.1 by an address that the other node can reach.");
        }
    }
    Ok(out)
}
