//! Reads `garage.toml`: every key typed, every mistake named with its line and with what is allowed.
//!
//! Reading order: `types` (what a configuration is), `values` (sizes, durations, addresses), `reader` (one TOML table with line numbers),
//! `schema` (which keys exist, their defaults and rules), `removed` (spellings of older releases), `secrets` (who wins, file modes).
//!
//! [`Config::parse`] is pure: text in, configuration or problems out. [`load`] adds the disk: the file itself and the secret files.
//!
//! Where this program differs from older ones that read the same file:
//! - unknown keys are errors, since a misspelt key that is ignored is found only after the data loss it was meant to prevent;
//!   keys that older releases knew are warnings;
//! - `metadata_fsync` and `data_fsync` are on unless switched off: what is acknowledged is on stable storage;
//! - `db_engine` may be absent or `fjall`, nothing else;
//! - keys of our own: `inline_threshold`, `rpc_buffer_max`, `metadata_min_free`, `max_connections`, `rpc_secrets_previous`,
//!   `tls_*` of each HTTP interface, `[acme]`.

mod error;
mod load;
mod reader;
mod removed;
mod schema;
mod secrets;
mod types;
mod values;

#[cfg(test)]
mod tests;

pub use error::{ConfigError, Problem, Warning};
pub use load::{Loaded, load};
pub use secrets::{Overrides, Purpose, RpcSecret, SecretSource, Secrets};
pub use types::{
    Acme, AcmeChallenge, Admin, Config, ConsistencyMode, ConsulApi, ConsulDiscovery, DataDir, DataDirUse, K2vApi, KubernetesDiscovery,
    S3Api, S3Web, Tls,
};
pub use values::{
    HostAddr, Listen, ParseValueError, PeerAddr, Subnet, parse_duration, parse_host_addr, parse_listen, parse_peer, parse_size,
    parse_subnet,
};
