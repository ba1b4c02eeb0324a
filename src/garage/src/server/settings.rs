//! From flags, environment and file to what a server is made of.

use std::{
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use garage_util::{
    config::{self, Config, Purpose, RpcSecret, Secrets},
    id::to_hex,
};

use super::{Failure, progress};
use crate::cli::{
    args::{DEFAULT_CONFIG_FILE, GlobalArgs, ServerArgs},
    connect::SINGLE_NODE_DIR,
};

/// Everything a start needs.
pub(super) struct Settings {
    pub config: Config,
    pub secrets: Secrets,
    pub rpc_secret: RpcSecret,
    pub defaults: Defaults,
    /// No configuration file: the quick start.
    pub is_quick_start: bool,
}

/// The key and bucket that a start makes sure of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Defaults {
    /// Make a key.
    pub key: bool,
    /// With this id and secret; `None`: with fresh ones.
    pub key_pair: Option<(String, String)>,
    /// Make this bucket.
    pub bucket: Option<String>,
}

/// The bucket of a quick start that names none.
const DEFAULT_BUCKET: &str = "my-bucket";

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Settings {
    /// Reads them. Errors say which setting is wrong and what to do.
    pub(super) fn read(global: &GlobalArgs, args: &ServerArgs) -> Result<Settings, Failure> {
        let overrides = global.overrides();
        let is_quick_start = args.single_node && global.config_file.is_none() && !Path::new(DEFAULT_CONFIG_FILE).exists();
        let (config, secrets) = if is_quick_start {
            let config = Config::single_node(SINGLE_NODE_DIR);
            make_secret_file(&config)?;
            let secrets = Secrets::resolve(Some(&config), &overrides, Purpose::Server)?;
            (config, secrets)
        } else {
            let path: PathBuf = global.config_file.clone().unwrap_or_else(|| DEFAULT_CONFIG_FILE.into());
            let loaded = config::load(&path, &overrides, Purpose::Server)?;
            loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            progress(&format!("configuration read from {}", path.display()));
            (loaded.config, loaded.secrets)
        };
        if args.single_node && config.replication_factor != 1 {
            return Err(format!("--single-node needs replication_factor = 1, the configuration says {}", config.replication_factor).into());
        }
        let defaults = Defaults::of(args, is_quick_start)?;
        let rpc_secret = secrets.require_rpc_secret()?.clone();
        Ok(Settings { config, secrets, rpc_secret, defaults, is_quick_start })
    }
}

impl Defaults {
    fn of(args: &ServerArgs, is_quick_start: bool) -> Result<Defaults, Failure> {
        let wanted = args.default_access_key || args.default_bucket.is_some();
        if wanted && !args.single_node {
            return Err("--default-access-key and --default-bucket need --single-node".into());
        }
        let key_pair = match (variable("GARAGE_DEFAULT_ACCESS_KEY"), variable("GARAGE_DEFAULT_SECRET_KEY")) {
            (Some(id), Some(secret)) => Some((id, secret)),
            (None, None) => None,
            _ => return Err("set both GARAGE_DEFAULT_ACCESS_KEY and GARAGE_DEFAULT_SECRET_KEY, or neither".into()),
        };
        if wanted && !is_quick_start && key_pair.is_none() {
            return Err("--default-access-key and --default-bucket need GARAGE_DEFAULT_ACCESS_KEY and GARAGE_DEFAULT_SECRET_KEY".into());
        }
        let named = args.default_bucket.clone().flatten().or_else(|| variable("GARAGE_DEFAULT_BUCKET"));
        let bucket = match (named, is_quick_start, &args.default_bucket) {
            (Some(name), true, _) | (Some(name), false, Some(_)) => Some(name),
            (None, true, _) => Some(DEFAULT_BUCKET.to_string()),
            (None, false, Some(_)) => return Err("--default-bucket needs a name, or GARAGE_DEFAULT_BUCKET".into()),
            (_, false, None) => None,
        };
        Ok(Defaults { key: is_quick_start || wanted, key_pair, bucket })
    }
}

/// The cluster secret of a quick start: made once, readable by its owner only.
fn make_secret_file(config: &Config) -> Result<(), Failure> {
    let Some(path) = &config.rpc_secret.file else { return Ok(()) };
    std::fs::create_dir_all(&config.metadata_dir).map_err(|error| format!("{}: {error}", config.metadata_dir.display()))?;
    let mut secret = [0; 32];
    garage_util::runtime::Runtime::real().0.fill_random(&mut secret);
    match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => {
            writeln!(file, "{}", to_hex(&secret))?;
            Ok(file.sync_all()?)
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(format!("{}: {error}", path.display()).into()),
    }
}
