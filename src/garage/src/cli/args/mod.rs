//! The command tree: every command, flag and argument, in today's and in older spellings.
//!
//! What a command does is in the file of its name beside this folder. Older spellings are hidden from the help.

mod bucket;
mod key;
mod layout;
mod node;
mod token;

use std::path::PathBuf;

use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use garage_util::config::{Overrides, PeerAddr, SecretSource, parse_peer};

pub(crate) use bucket::BucketCommand;
pub(crate) use key::KeyCommand;
pub(crate) use layout::{AssignArgs, LayoutCommand};
pub(crate) use node::{BlockCommand, MetaCommand, NodeCommand, RepairArgs, RepairWhat, ScrubWhat, WorkerCommand};
pub(crate) use token::TokenCommand;

/// Where the configuration file is looked for.
pub(crate) const DEFAULT_CONFIG_FILE: &str = "/etc/garage.toml";

/// S3-compatible object store for self-hosting at small and medium scale
#[derive(Parser, Debug)]
#[command(name = "garage", version, disable_help_flag = true, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that stand before the command.
#[derive(Args, Debug, Clone)]
pub(crate) struct GlobalArgs {
    /// Show help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// Configuration file [default: /etc/garage.toml]
    #[arg(short = 'c', long = "config", env = "GARAGE_CONFIG_FILE", value_name = "PATH")]
    pub(crate) config_file: Option<PathBuf>,
    /// Node to talk to: `<node id>@<host>:<port>`
    #[arg(short = 'h', long, env = "GARAGE_RPC_HOST", value_parser = peer, value_name = "ID@HOST:PORT")]
    pub(crate) rpc_host: Option<PeerAddr>,
    /// Cluster secret, 64 hex digits
    #[arg(short = 's', long, env = "GARAGE_RPC_SECRET", hide_env_values = true, value_name = "HEX")]
    rpc_secret: Option<String>,
    /// File with the cluster secret
    #[arg(long, env = "GARAGE_RPC_SECRET_FILE", value_name = "PATH")]
    rpc_secret_file: Option<PathBuf>,
    /// Token of the admin API
    #[arg(long, env = "GARAGE_ADMIN_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    admin_token: Option<String>,
    /// File with the token of the admin API
    #[arg(long, env = "GARAGE_ADMIN_TOKEN_FILE", value_name = "PATH")]
    admin_token_file: Option<PathBuf>,
    /// Token of /metrics
    #[arg(long, env = "GARAGE_METRICS_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    metrics_token: Option<String>,
    /// File with the token of /metrics
    #[arg(long, env = "GARAGE_METRICS_TOKEN_FILE", value_name = "PATH")]
    metrics_token_file: Option<PathBuf>,
    /// Do not check who can read secret files
    #[arg(long, env = "GARAGE_ALLOW_WORLD_READABLE_SECRETS", value_parser = clap::value_parser!(bool), value_name = "true|false")]
    allow_world_readable_secrets: Option<bool>,
}

/// Parses a command line; the error knows its text and stream, see [`clap::Error`].
pub(crate) fn parse(words: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Cli, clap::Error> {
    let matches = command().try_get_matches_from(words)?;
    Cli::from_arg_matches(&matches)
}

/// The command tree. At the top level `-h` is `--rpc-host`; in every command it is help, which has to be added by hand,
/// since leaving it out at the top leaves it out below.
pub(crate) fn command() -> clap::Command {
    Cli::command().mut_subcommands(with_help_and_version)
}

fn with_help_and_version(command: clap::Command) -> clap::Command {
    let help = clap::Arg::new("help").short('h').long("help").action(ArgAction::Help).help("Show help");
    let has_own_version = command.get_arguments().any(|argument| argument.get_id() == "version");
    let command = if has_own_version { command } else { command.version(env!("CARGO_PKG_VERSION")) };
    command.arg(help).mut_subcommands(with_help_and_version)
}

impl GlobalArgs {
    /// What replaces the secrets of the configuration file.
    pub(crate) fn overrides(&self) -> Overrides {
        let source = |value: &Option<String>, file: &Option<PathBuf>| SecretSource { value: value.clone(), file: file.clone() };
        Overrides {
            rpc_secret: source(&self.rpc_secret, &self.rpc_secret_file),
            admin_token: source(&self.admin_token, &self.admin_token_file),
            metrics_token: source(&self.metrics_token, &self.metrics_token_file),
            allow_world_readable_secrets: self.allow_world_readable_secrets,
        }
    }
}

/// A PEER, with the message of the configuration.
pub(crate) fn peer(text: &str) -> Result<PeerAddr, String> {
    parse_peer(text).map_err(|error| error.to_string())
}

/// A SIZE.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    garage_util::config::parse_size(text).map_err(|error| error.to_string())
}

/// A DURATION.
pub(crate) fn duration(text: &str) -> Result<std::time::Duration, String> {
    garage_util::config::parse_duration(text).map_err(|error| error.to_string())
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Run the node
    Server(ServerArgs),
    /// Show the nodes of the cluster
    Status,
    /// Show whether the cluster can serve
    Health {
        /// No output, only the exit code
        #[arg(short, long)]
        quiet: bool,
    },
    /// Show counts and space
    Stats {
        /// Of all nodes
        #[arg(short, long)]
        all_nodes: bool,
        #[arg(short, long, hide = true)]
        detailed: bool,
    },
    /// This node's identity; connecting nodes
    #[command(subcommand)]
    Node(NodeCommand),
    #[command(name = "node-id", hide = true)]
    NodeId {
        #[arg(short, long)]
        quiet: bool,
    },
    /// Which node stores how much, where
    #[command(subcommand)]
    Layout(LayoutCommand),
    /// Buckets
    #[command(subcommand)]
    Bucket(BucketCommand),
    /// Access keys
    #[command(subcommand)]
    Key(KeyCommand),
    /// Tokens of the admin API
    #[command(subcommand)]
    AdminToken(TokenCommand),
    /// Check and mend
    Repair(RepairArgs),
    /// Background workers
    #[command(subcommand)]
    Worker(WorkerCommand),
    /// Data blocks of one node
    #[command(subcommand)]
    Block(BlockCommand),
    /// The metadata store
    #[command(subcommand)]
    Meta(MetaCommand),
    /// Call the admin API by endpoint name
    JsonApi {
        /// Name of the endpoint
        endpoint: String,
        /// Payload; `-` reads it from standard input
        payload: Option<String>,
    },
    /// Print a completion script
    Completions {
        /// bash, fish, zsh, powershell or elvish
        shell: String,
    },
    /// Print the OpenAPI document of the admin API
    #[command(hide = true)]
    AdminApiSchema,
}

/// `garage server`.
#[derive(Args, Debug, Clone)]
pub(crate) struct ServerArgs {
    /// A cluster of this node alone: its layout is made and applied at the first start
    #[arg(long)]
    pub(crate) single_node: bool,
    /// Make the access key of GARAGE_DEFAULT_ACCESS_KEY and GARAGE_DEFAULT_SECRET_KEY
    #[arg(long)]
    pub(crate) default_access_key: bool,
    /// Make the bucket NAME (or GARAGE_DEFAULT_BUCKET), and the key with all rights on it
    #[arg(long, num_args = 0..=1, value_name = "NAME")]
    pub(crate) default_bucket: Option<Option<String>>,
}
