//! Runs real nodes under load and faults, prints the report; exit 1 if anything that was acknowledged is not there at the end.

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
    /// First of the ports, three for each node
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
    };
    match run(&options).await {
        Ok(report) => {
            print!("{report}");
            if report.lost.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(failure) => {
            eprintln!("chaos: {failure}");
            ExitCode::FAILURE
        }
    }
}
