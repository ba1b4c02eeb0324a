//! The `garage` program.

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    let parsed = match cli::args::parse(std::env::args_os()) {
        Ok(parsed) => parsed,
        Err(error) => return cli::usage(&error),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("Error: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    if let cli::args::Command::Server(_) = parsed.command {
        eprintln!("Error: this build cannot run a node yet");
        return ExitCode::FAILURE;
    }
    runtime.block_on(cli::run(parsed))
}
