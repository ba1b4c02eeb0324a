//! Real nodes on one machine, 50 ms apart, under load and under faults; at the end every acknowledged object is read back from every node.
//!
//! Invariants of a run:
//! - at most one node is in trouble at a time, so a quorum is always there: whatever clients are refused is written down;
//! - each key has one writer, so what it must hold at the end is known, up to the writes whose outcome was never told.
//!
//! Reading order: `nodes` (processes, their network), `load` (clients and what they were told), `faults`, `report`, this file.

mod faults;
mod load;
mod nodes;
mod report;

use std::{path::PathBuf, time::Duration};

pub use report::Report;

/// What a run is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// The `garage` program.
    pub program: PathBuf,
    /// Where the nodes keep their files; made, and left behind.
    pub dir: PathBuf,
    /// The first of the ports that are used: three for each node.
    pub base_port: u16,
    /// Three to five.
    pub nodes_count: usize,
    /// How long load and faults last.
    pub duration: Duration,
    /// Chooses the faults.
    pub seed: u64,
    /// Clients at once.
    pub clients_count: usize,
}

/// Why a run could not be made, as opposed to what it found. Any error can be turned into one, hence it is none itself.
#[derive(Debug)]
pub struct Failure(pub String);

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure(error.to_string())
    }
}

/// Runs it to its end.
pub async fn run(options: &Options) -> Result<Report, Failure> {
    let mut cluster = nodes::Cluster::start(options).await?;
    let load = load::Load::start(&cluster, options);
    let told = faults::torment(&mut cluster, options).await;
    let mut report = load.finish().await;
    report.faults = told?;
    cluster.mend().await?;
    load::read_all_back(&cluster, &mut report).await;
    cluster.stop().await;
    Ok(report)
}
