//! Why a command failed; shown as `Error: …` on stderr with exit code 1.

use garage_api_admin::AdminError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The interface said no.
    #[error("{endpoint} returned {error}")]
    Api {
        /// Which endpoint.
        endpoint: &'static str,
        /// What it said.
        error: AdminError,
    },
    /// A call by name was refused.
    #[error(transparent)]
    Raw(AdminError),
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] garage_util::config::ConfigError),
    /// Something else, in a sentence.
    #[error("{0}")]
    Message(String),
}

/// A failure in a sentence.
pub(crate) fn fail<T>(message: impl Into<String>) -> Result<T, CliError> {
    Err(CliError::Message(message.into()))
}
