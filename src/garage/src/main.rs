//! The `garage` program.

use std::process::ExitCode;

mod cli;
mod server;

fn main() -> ExitCode {
    let parsed = match cli::args::parse(std::env::args_os()) {
        Ok(parsed) => parsed,
        Err(error) => return cli::usage(&error),
    };
    if let cli::args::Command::Server(args) = &parsed.command {
        return server::run(&parsed.global, args);
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("Error: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(cli::run(parsed))
}
