//! `garage admin-token …`.

use std::time::Duration;

use clap::Subcommand;

#[derive(Subcommand, Debug)]
pub(crate) enum TokenCommand {
    /// List admin tokens
    List,
    /// Show an admin token
    Info {
        /// The token: a prefix of its id, or its name
        token: String,
    },
    /// Make an admin token
    Create {
        /// Its name
        name: Option<String>,
        /// For how long it works
        #[arg(long, value_parser = super::duration, value_name = "DURATION")]
        expires_in: Option<Duration>,
        /// Endpoints it opens, `*` for all
        #[arg(long, default_value = "*", value_delimiter = ',', value_name = "A,B")]
        scope: Vec<String>,
        /// Print only the secret
        #[arg(short, long)]
        quiet: bool,
    },
    /// Rename an admin token
    Rename {
        /// The token
        token: String,
        /// Its new name
        name: String,
    },
    /// Change an admin token
    Set {
        /// The token
        token: String,
        /// From now on for this long
        #[arg(long, value_parser = super::duration, conflicts_with = "never_expires", value_name = "DURATION")]
        expires_in: Option<Duration>,
        /// For ever
        #[arg(long)]
        never_expires: bool,
        /// Endpoints: `A,B` replaces, `+A,B` adds, `-A,B` removes
        #[arg(long, allow_hyphen_values = true, value_name = "[+-]A,B")]
        scope: Option<String>,
    },
    /// Delete an admin token
    Delete {
        /// The token
        token: String,
        /// Really do it
        #[arg(long)]
        yes: bool,
    },
    /// Delete all admin tokens that have expired
    DeleteExpired {
        /// Really do it
        #[arg(long)]
        yes: bool,
    },
}
