//! `garage layout …`.

use clap::{Args, Subcommand};

#[derive(Subcommand, Debug)]
pub(crate) enum LayoutCommand {
    /// Stage a role for nodes
    Assign(AssignArgs),
    /// Stage the removal of a node's role
    Remove {
        /// The node: a prefix of its id
        node: String,
    },
    /// Stage layout parameters
    Config {
        /// Over how many zones copies are spread: a number, or `max`
        #[arg(short, long, value_name = "N|max")]
        redundancy: Option<String>,
    },
    /// Show the layout and what is staged
    Show,
    /// Apply what is staged
    Apply {
        /// The new version: the current one plus one
        #[arg(long, value_name = "N")]
        version: Option<u64>,
    },
    /// Drop what is staged
    Revert {
        /// Really do it
        #[arg(long)]
        yes: bool,
        #[arg(long, hide = true)]
        version: Option<u64>,
    },
    /// Show layout versions
    History,
    /// After too much was lost: show what is left, and go on with it by force
    Recover {
        /// Apply what is staged by force: what only lost nodes had is given up
        #[arg(long)]
        accept_loss: bool,
    },
    /// Stop waiting for dead nodes of older layout versions
    SkipDeadNodes {
        /// Up to which version
        #[arg(long, value_name = "N")]
        version: u64,
        /// Even if data was only there
        #[arg(long)]
        allow_missing_data: bool,
    },
}

/// `garage layout assign`.
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct AssignArgs {
    /// The nodes: prefixes of their ids
    #[arg(value_name = "NODE")]
    pub(crate) nodes: Vec<String>,
    /// Zone of the nodes
    #[arg(short, long)]
    pub(crate) zone: Option<String>,
    /// Bytes each node offers, such as 1T
    #[arg(short, long, value_parser = super::size, conflicts_with = "gateway", value_name = "SIZE")]
    pub(crate) capacity: Option<u64>,
    /// The nodes store no data
    #[arg(short, long)]
    pub(crate) gateway: bool,
    /// Tags of the nodes, in place of all they had
    #[arg(short, long = "tag", num_args = 1.., value_name = "TAG")]
    pub(crate) tags: Vec<String>,
    /// Nodes that lose their role
    #[arg(long, num_args = 1.., value_name = "NODE")]
    pub(crate) replace: Vec<String>,
}

impl AssignArgs {
    /// Undoes what several words after one flag took too much: `-t tag NODE` and `--replace OLD NEW` mean their last word as the node.
    pub(crate) fn settled(mut self) -> Self {
        if self.nodes.is_empty() && self.tags.len() > 1 {
            self.nodes.extend(self.tags.pop());
        } else if self.nodes.is_empty() && self.replace.len() > 1 {
            self.nodes.extend(self.replace.pop());
        }
        self
    }
}
