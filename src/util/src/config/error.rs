//! What can be wrong with a configuration, in sentences that say what to do.

use std::{fmt, path::PathBuf};

/// One mistake in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file, from 1; `None`: something is missing.
    pub line: Option<usize>,
    /// The key, with its table: `s3_api.s3_region`. Empty: the file as a whole.
    pub key: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Something in the file that has no effect any more, or not the expected one. The node starts all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning(pub Problem);

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {source}; name another one with -c", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file has mistakes.
    #[error("{}", show_problems(file, problems))]
    Invalid {
        /// Its name, for the message.
        file: String,
        /// All of them, in the order of the file.
        problems: Vec<Problem>,
    },
    /// A secret is given twice in one place.
    #[error("{name} and {name}_file are both set ({place}); only one of them may be")]
    SecretTwice {
        /// `rpc_secret`, `admin.admin_token` or `admin.metrics_token`.
        name: &'static str,
        /// The file, or flags and environment.
        place: &'static str,
    },
    /// A secret file cannot be read.
    #[error("{name}_file: cannot read {}: {source}", path.display())]
    SecretUnreadable {
        /// Which secret.
        name: &'static str,
        /// Its file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Others may read a secret file.
    #[error(
        "{name}_file: {} has mode {mode:04o}, so others can read the secret; run chmod 600 on it, or set allow_world_readable_secrets = true (GARAGE_ALLOW_WORLD_READABLE_SECRETS=true)",
        path.display()
    )]
    SecretExposed {
        /// Which secret.
        name: &'static str,
        /// Its file.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
    },
    /// There is no cluster secret.
    #[error(
        "rpc_secret is neither in the configuration file nor in the environment (GARAGE_RPC_SECRET); make one with `openssl rand -hex 32` and give all nodes the same"
    )]
    RpcSecretMissing,
    /// The cluster secret has the wrong form.
    #[error("rpc_secret {found}, needs 64 hex digits (32 bytes); `openssl rand -hex 32` makes one")]
    RpcSecretInvalid {
        /// What it looks like, without showing it.
        found: String,
    },
}

fn show_problems(file: &str, problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(|problem| format!("{file}: {problem}")).collect();
    lines.join("\n")
}
