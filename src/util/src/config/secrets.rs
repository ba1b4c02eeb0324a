//! Which secrets a process uses: flags and environment win over the file, a value and a file for one secret exclude each other.
//!
//! Not here: sealing what is stored (that is the model's), comparing tokens (the admin interface's).

use std::{
    fmt,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{Config, ConfigError};

/// A secret as one source names it: its value, a file, or neither.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretSource {
    /// The secret itself.
    pub value: Option<String>,
    /// A file that holds it.
    pub file: Option<PathBuf>,
}

impl SecretSource {
    pub(super) fn is_set(&self) -> bool {
        self.value.is_some() || self.file.is_some()
    }
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretSource").field("value", &self.value.as_ref().map(|_| "(hidden)")).field("file", &self.file).finish()
    }
}

/// What flags and environment variables say; it replaces what the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--rpc-secret`, `--rpc-secret-file`.
    pub rpc_secret: SecretSource,
    /// `--admin-token`, `--admin-token-file`.
    pub admin_token: SecretSource,
    /// `--metrics-token`, `--metrics-token-file`.
    pub metrics_token: SecretSource,
    /// `--allow-world-readable-secrets`.
    pub allow_world_readable_secrets: Option<bool>,
}

/// Who asks: a server refuses secret files that others can read, a client command does not look at their mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// `garage server`.
    Server,
    /// Any other command.
    Client,
}

/// The cluster secret. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct RpcSecret(pub [u8; 32]);

impl RpcSecret {
    /// Reads 64 hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let refuse = |found: String| ConfigError::RpcSecretInvalid { found };
        if let Some(character) = text.chars().find(|c| !c.is_ascii_hexdigit()) {
            return Err(refuse(format!("holds the character {character:?}")));
        }
        crate::id::parse_id32(text).map(RpcSecret).map_err(|_| refuse(format!("has {} hex digits", text.len())))
    }
}

impl fmt::Debug for RpcSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RpcSecret(hidden)")
    }
}

/// The secrets a process works with.
#[derive(Clone)]
pub struct Secrets {
    /// The cluster secret; `None`: given nowhere.
    pub rpc_secret: Option<RpcSecret>,
    /// Full-scope token of the admin API, without white space around it.
    pub admin_token: Option<String>,
    /// Token of `/metrics`, without white space around it.
    pub metrics_token: Option<String>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(hidden)")
    }
}

impl Secrets {
    /// Settles each secret. `config` is `None` when a client command runs without a file.
    ///
    /// Errors: a secret given twice in one place, a file that cannot be read or (server) that others can read, a malformed cluster secret.
    pub fn resolve(config: Option<&Config>, overrides: &Overrides, purpose: Purpose) -> Result<Self, ConfigError> {
        let allowed = overrides.allow_world_readable_secrets.or(config.map(|config| config.allow_world_readable_secrets)).unwrap_or(false);
        let modes = if purpose == Purpose::Server && !allowed { FileModes::Checked } else { FileModes::Ignored };
        let pick = |name, over: &SecretSource, own: Option<&SecretSource>| settle(name, over, own, modes);
        let rpc_secret = pick("rpc_secret", &overrides.rpc_secret, config.map(|config| &config.rpc_secret))?;
        let token = |value: Option<String>| value.map(|text| text.trim().to_owned());
        Ok(Secrets {
            rpc_secret: rpc_secret.as_deref().map(RpcSecret::parse).transpose()?,
            admin_token: token(pick("admin.admin_token", &overrides.admin_token, config.map(|config| &config.admin.admin_token))?),
            metrics_token: token(pick("admin.metrics_token", &overrides.metrics_token, config.map(|config| &config.admin.metrics_token))?),
        })
    }

    /// The cluster secret, or the error that says how to make one.
    pub fn require_rpc_secret(&self) -> Result<&RpcSecret, ConfigError> {
        self.rpc_secret.as_ref().ok_or(ConfigError::RpcSecretMissing)
    }
}

#[derive(Clone, Copy, PartialEq)]
enum FileModes {
    Checked,
    Ignored,
}

fn settle(name: &'static str, over: &SecretSource, own: Option<&SecretSource>, modes: FileModes) -> Result<Option<String>, ConfigError> {
    let sources = [(Some(over), "flags and environment"), (own, "configuration file")];
    for (source, place) in &sources {
        if source.is_some_and(|source| source.value.is_some() && source.file.is_some()) {
            return Err(ConfigError::SecretTwice { name, place });
        }
    }
    match sources.into_iter().filter_map(|(source, _)| source).find(|source| source.is_set()) {
        Some(SecretSource { file: Some(path), .. }) => read_secret_file(name, path, modes).map(Some),
        Some(source) => Ok(source.value.clone()),
        None => Ok(None),
    }
}

/// The file's text without trailing white space.
fn read_secret_file(name: &'static str, path: &Path, modes: FileModes) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::SecretUnreadable { name, path: path.to_owned(), source };
    let mode = std::fs::metadata(path).map_err(unreadable)?.mode() & 0o7777;
    if modes == FileModes::Checked && mode & 0o077 != 0 {
        return Err(ConfigError::SecretExposed { name, path: path.to_owned(), mode });
    }
    Ok(std::fs::read_to_string(path).map_err(unreadable)?.trim_end().to_owned())
}
