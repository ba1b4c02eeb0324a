//! Reads the configuration from disk: the shell around [`Config::parse`] and [`Secrets::resolve`].

use std::path::Path;

use super::{Config, ConfigError, Overrides, Purpose, Secrets, Warning};

/// A configuration ready for use.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What the file says.
    pub config: Config,
    /// The secrets, flags and environment considered.
    pub secrets: Secrets,
    /// What in the file has no effect; for the log.
    pub warnings: Vec<Warning>,
}

/// Reads and checks the file at `path` and the secret files it or `overrides` names.
pub fn load(path: &Path, overrides: &Overrides, purpose: Purpose) -> Result<Loaded, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    let (config, warnings) = Config::parse_beside(&text, &path.display().to_string(), overrides)?;
    let secrets = Secrets::resolve(Some(&config), overrides, purpose)?;
    Ok(Loaded { config, secrets, warnings })
}
