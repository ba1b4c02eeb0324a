//! What files say, and what is said about files that are wrong.

mod files;
mod manual;
mod problems;
mod secrets;
mod values;

use super::Config;

/// The least a file must hold.
pub(super) const LEAST: &str = "metadata_dir = \"/m\"\ndata_dir = \"/d\"\nreplication_factor = 3\nrpc_bind_addr = \"[::]:3901\"\n";
/// The table every file must hold, after the top level.
pub(super) const S3_API: &str = "[s3_api]\ns3_region = \"garage\"\n";

/// A minimal file with more top-level lines (from line 5 on).
pub(super) fn with(lines: &str) -> String {
    format!("{LEAST}{lines}\n{S3_API}")
}

/// Reads a file that has no mistake: the configuration and its warnings as text.
pub(super) fn read(text: &str) -> (Config, Vec<String>) {
    let (config, warnings) = Config::parse(text, "garage.toml").unwrap_or_else(|error| panic!("{error}\n{text}"));
    (config, warnings.iter().map(ToString::to_string).collect())
}
