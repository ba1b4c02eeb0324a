//! `garage key …`.

use std::time::Duration;

use clap::Subcommand;

#[derive(Subcommand, Debug)]
pub(crate) enum KeyCommand {
    /// List access keys
    List,
    /// Show an access key
    Info {
        /// The key: a prefix of its id, or its name
        key: String,
        /// Show the secret too
        #[arg(long)]
        show_secret: bool,
        /// Print only the key id
        #[arg(long, conflicts_with = "secret_key")]
        key_id: bool,
        /// Print only the secret
        #[arg(long)]
        secret_key: bool,
    },
    /// Make an access key
    #[command(alias = "new")]
    Create {
        /// Its name [default: Unnamed key]
        name: Option<String>,
        #[arg(long = "name", hide = true, conflicts_with = "name", value_name = "NAME")]
        old_name: Option<String>,
        /// For how long it works
        #[arg(long, value_parser = super::duration, value_name = "DURATION")]
        expires_in: Option<Duration>,
    },
    /// Rename an access key
    Rename {
        /// The key
        key: String,
        /// Its new name
        name: String,
    },
    /// Change how long an access key works
    Set {
        /// The key
        key: String,
        /// From now on for this long
        #[arg(long, value_parser = super::duration, conflicts_with = "never_expires", value_name = "DURATION")]
        expires_in: Option<Duration>,
        /// For ever
        #[arg(long)]
        never_expires: bool,
    },
    /// Delete an access key
    Delete {
        /// The key
        key: String,
        /// Really do it
        #[arg(long)]
        yes: bool,
    },
    /// Let a key do more than its bucket rights
    Allow {
        /// The key
        key: String,
        /// Making buckets
        #[arg(long)]
        create_bucket: bool,
    },
    /// Stop letting a key do more than its bucket rights
    Deny {
        /// The key
        key: String,
        /// Making buckets
        #[arg(long)]
        create_bucket: bool,
    },
    /// Take over an access key made elsewhere
    Import {
        /// Its id
        key_id: String,
        /// Its secret
        secret_key: String,
        /// Its name
        #[arg(short = 'n', default_value = "Imported key", value_name = "NAME")]
        name: String,
        /// Really do it
        #[arg(long)]
        yes: bool,
    },
    /// Delete all access keys that have expired
    DeleteExpired {
        /// Really do it
        #[arg(long)]
        yes: bool,
    },
    /// Print a key as environment variables
    ExportEnv {
        /// The key
        key: String,
        /// Prefix of the variables
        #[arg(long, default_value = "AWS_")]
        prefix: String,
    },
}
