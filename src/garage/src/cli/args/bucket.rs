//! `garage bucket …`.

use std::time::Duration;

use clap::{Args, Subcommand};

#[derive(Subcommand, Debug)]
pub(crate) enum BucketCommand {
    /// List buckets
    List,
    /// Show a bucket
    Info {
        /// The bucket: a global alias, its id or a prefix of it
        bucket: String,
    },
    /// Make a bucket
    Create {
        /// Its global alias
        name: String,
    },
    /// Delete an empty bucket
    Delete {
        /// The bucket
        bucket: String,
        /// Really do it
        #[arg(long)]
        yes: bool,
    },
    /// Give a bucket another name
    Alias {
        /// The bucket
        existing: String,
        /// The new name
        new: String,
        /// In the name space of this key
        #[arg(long, value_name = "KEY")]
        local: Option<String>,
    },
    /// Drop a name of a bucket
    Unalias {
        /// The name
        name: String,
        /// In the name space of this key
        #[arg(long, value_name = "KEY")]
        local: Option<String>,
    },
    /// Give a key rights on a bucket
    Allow(RightsArgs),
    /// Take rights on a bucket from a key
    Deny(RightsArgs),
    /// Serve a bucket as a website, or stop it
    Website {
        /// The bucket
        bucket: String,
        /// Serve it
        #[arg(long, required_unless_present = "deny", conflicts_with = "deny")]
        allow: bool,
        /// Stop serving it
        #[arg(long)]
        deny: bool,
        /// What a directory shows
        #[arg(short, long, default_value = "index.html", value_name = "SUFFIX")]
        index_document: String,
        /// What an error shows
        #[arg(short, long, value_name = "KEY")]
        error_document: Option<String>,
    },
    /// Limit a bucket
    SetQuotas {
        /// The bucket
        bucket: String,
        /// Most bytes, or `none`
        #[arg(long, value_parser = size_limit, required_unless_present = "max_objects", value_name = "SIZE|none")]
        max_size: Option<Limit>,
        /// Most objects, or `none`
        #[arg(long, value_parser = count_limit, value_name = "N|none")]
        max_objects: Option<Limit>,
    },
    /// Abort old unfinished uploads
    CleanupIncompleteUploads {
        /// The buckets
        #[arg(required = true)]
        buckets: Vec<String>,
        /// Those older than this
        #[arg(long, default_value = "1d", value_parser = super::duration, value_name = "DURATION")]
        older_than: Duration,
    },
    /// Show what is stored of an object
    InspectObject {
        /// The bucket
        bucket: String,
        /// The object's key
        key: String,
    },
}

/// `bucket allow` and `bucket deny`.
#[derive(Args, Debug)]
pub(crate) struct RightsArgs {
    /// The bucket
    pub(crate) bucket: String,
    /// The key
    #[arg(long)]
    pub(crate) key: String,
    /// Reading and listing objects
    #[arg(long)]
    pub(crate) read: bool,
    /// Writing and deleting objects
    #[arg(long)]
    pub(crate) write: bool,
    /// Changing the bucket itself
    #[arg(long)]
    pub(crate) owner: bool,
}

/// A limit as typed: a number, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit(pub(crate) Option<u64>);

fn size_limit(text: &str) -> Result<Limit, String> {
    if text == "none" { Ok(Limit(None)) } else { super::size(text).map(|size| Limit(Some(size))) }
}

fn count_limit(text: &str) -> Result<Limit, String> {
    if text == "none" {
        return Ok(Limit(None));
    }
    text.parse().map(|count| Limit(Some(count))).map_err(|_| "a number of objects, or none".into())
}
