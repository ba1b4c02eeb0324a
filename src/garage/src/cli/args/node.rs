//! Commands about single nodes: `node`, `repair`, `worker`, `block`, `meta`.

use clap::{Args, Subcommand};
use garage_util::config::PeerAddr;

#[derive(Subcommand, Debug)]
pub(crate) enum NodeCommand {
    /// Print this node's id and address
    Id {
        /// No hints
        #[arg(short, long)]
        quiet: bool,
    },
    /// Connect a node of the cluster to another
    Connect {
        /// `<node id>@<host>:<port>`, as `garage node id` prints it there
        #[arg(value_parser = super::peer, value_name = "ID@HOST:PORT")]
        peer: PeerAddr,
    },
}

/// `garage repair`.
#[derive(Args, Debug)]
pub(crate) struct RepairArgs {
    /// On all nodes
    #[arg(short, long)]
    pub(crate) all_nodes: bool,
    /// Really do it
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(subcommand)]
    pub(crate) what: RepairWhat,
}

#[derive(Subcommand, Debug, Clone, Copy)]
pub(crate) enum RepairWhat {
    /// Synchronise all metadata now
    Tables,
    /// Check all referenced and all stored blocks
    Blocks,
    /// Empty the resync queue; to be followed by `blocks`
    ClearResyncQueue,
    /// Fix dangling versions
    Versions,
    /// Fix dangling multipart uploads
    #[command(name = "mpu")]
    MultipartUploads,
    /// Fix dangling block references
    #[command(alias = "block_refs")]
    BlockRefs,
    /// Recount block references
    BlockRc,
    /// Fix bucket names
    Aliases,
    /// Control the scrub
    Scrub {
        #[command(subcommand)]
        what: ScrubWhat,
    },
    /// Move blocks to the right data directory
    Rebalance,
}

#[derive(Subcommand, Debug, Clone, Copy)]
pub(crate) enum ScrubWhat {
    /// Begin now
    Start,
    /// Rest for 24 hours
    Pause,
    /// Go on
    Resume,
    /// Stop
    Cancel,
    #[command(hide = true)]
    SetTranquility {
        /// How long it rests, in multiples of its working time
        tranquility: u32,
    },
}

#[derive(Subcommand, Debug)]
pub(crate) enum WorkerCommand {
    /// List background workers
    List {
        /// Only busy ones
        #[arg(short, long)]
        busy: bool,
        /// Only those that met errors
        #[arg(short, long)]
        errors: bool,
    },
    /// Show a background worker
    Info {
        /// Its number
        tid: u64,
    },
    /// Show settings
    Get {
        /// One setting
        variable: Option<String>,
        /// On all nodes
        #[arg(short, long)]
        all_nodes: bool,
    },
    /// Change a setting
    Set {
        /// The setting
        variable: String,
        /// Its new value
        value: String,
        /// On all nodes
        #[arg(short, long)]
        all_nodes: bool,
    },
}

#[derive(Subcommand, Debug)]
pub(crate) enum BlockCommand {
    /// List blocks that could not be fetched
    ListErrors,
    /// Show who refers to a block
    Info {
        /// Its hash, or 4 digits of it or more
        hash: String,
    },
    /// Try blocks again now
    RetryNow {
        /// Their full hashes
        #[arg(required_unless_present = "all", conflicts_with = "all", value_name = "HASH")]
        hashes: Vec<String>,
        /// All that failed
        #[arg(long)]
        all: bool,
    },
    /// Delete every object that needs blocks which are lost
    Purge {
        /// Their full hashes
        #[arg(required = true, value_name = "HASH")]
        hashes: Vec<String>,
        /// Really do it
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Subcommand, Debug)]
pub(crate) enum MetaCommand {
    /// Take a snapshot of the metadata store
    Snapshot {
        /// On all nodes
        #[arg(long)]
        all: bool,
    },
}
