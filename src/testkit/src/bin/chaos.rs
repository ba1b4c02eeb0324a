//! Runs real nodes under load and faults, prints the report; exit 1 if anything that was acknowledged was lost, or a node did not come back.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use garage_testkit::chaos::{Options, run};

/// Real nodes under load and faults.
#[derive(Parser)]
struct Arguments {
    /// The garage program
    #[arg(long)]
    program: PathBuf,
    /// Where the nodes keep their files
    #[arg(long)]
    dir: PathBuf,
    /// The port for nodes; clients use the next one
    #[arg(long, default_value_t = 7500)]
    base_port: u16,
    /// Nodes, three to five
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Seconds of load and faults
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// Chooses the faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Clients at once
    #[arg(long, default_value_t = 4)]
    clients: usize,
    /// A network namespace for each node; this program must run in a network of its own (`unshare --net --mount`)
    #[arg(long)]
    namespaces: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if !(3..=5).contains(&arguments.nodes) {
        eprintln!("chaos: --nodes must be 3, 4 or 5");
        return ExitCode::FAILURE;
    }
    let options = Options {
        program: arguments.program,
        dir: arguments.dir,
        base_port: arguments.base_port,
        nodes_count: arguments.nodes,
        duration: Duration::from_secs(arguments.seconds),
        seed: arguments.seed,
        clients_count: arguments.clients,
        namespaces: arguments.namespaces,
    };
    match run(&options).await {
        Ok(report) => {
            print!("{report}");
            if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(failure) => {
            eprintln!("chaos: {failure}");
            ExitCode::FAILURE
        }
    }
}
