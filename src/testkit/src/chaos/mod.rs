//! Real nodes on one machine, 50 ms apart, under load and under faults; at the end every acknowledged object is read back from every node.
//!
//! Invariants of a run:
//! - at most one node is being refilled and at most one is away, so nothing may be lost: whatever clients are refused is written down;
//! - each key has one writer, or many that create it only if it is absent, so what it may hold is known;
//! - every wait has an end.
//!
//! Reading order: `keys` (what a key may hold: pure), `network` and `nodes` (what runs), `load` (clients and what they were told), `heal`
//! (whether what was lost is back), `faults`, `report`, this file.

mod faults;
mod heal;
mod keys;
mod load;
mod network;
mod nodes;
mod read_back;
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
    /// Each node listens for nodes here, for clients on the port after it; addresses differ.
    pub base_port: u16,
    /// Three to five.
    pub nodes_count: usize,
    /// How long load and faults last.
    pub duration: Duration,
    /// Chooses the faults.
    pub seed: u64,
    /// Clients at once.
    pub clients_count: usize,
    /// Each node in a network namespace of its own. The program must run in a network that ends with it.
    pub namespaces: bool,
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
    println!("{} nodes run; seed {}", options.nodes_count, options.seed);
    let load = load::Load::start(&cluster, options);
    let told = faults::torment(&mut cluster, options).await;
    let mut report = load.finish().await;
    let victim = match told {
        Ok(told) => {
            report.faults = told.faults;
            told.victim
        }
        Err(Failure(why)) => {
            report.broken = Some(why);
            None
        }
    };
    // What can still be read is worth knowing even if a node did not come back.
    match cluster.mend(victim.as_ref()).await {
        Ok(took) => report.healed_after = took,
        Err(Failure(why)) => {
            report.broken.get_or_insert(why);
        }
    }
    read_back::read_all_back(&cluster, &mut report).await;
    if let Err(Failure(why)) = cluster.stop().await {
        report.broken.get_or_insert(why);
    }
    Ok(report)
}
