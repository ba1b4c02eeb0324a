//! Logs: `tracing` to stderr, filtered by `RUST_LOG`, as text or JSON lines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use super::Failure;

/// What is logged when `RUST_LOG` does not say.
const DEFAULT_FILTER: &str = "info,quinn=warn,fjall=warn,lsm_tree=warn,foca=warn";

fn is_on(variable: &str) -> bool {
    std::env::var(variable).is_ok_and(|value| value == "1" || value.eq_ignore_ascii_case("true"))
}

/// Starts logging. Errors: a filter that can't be parsed, a log target that this build does not have.
pub(super) fn start() -> Result<(), Failure> {
    for variable in ["GARAGE_LOG_TO_SYSLOG", "GARAGE_LOG_TO_JOURNALD"] {
        if is_on(variable) {
            return Err(format!(
                "{variable}: this build logs to stderr only; unset it, systemd and container runtimes keep what is written there"
            )
            .into());
        }
    }
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text).map_err(|error| format!("RUST_LOG={text}: {error}"))?,
        _ => EnvFilter::new(DEFAULT_FILTER),
    };
    let json = std::env::var("GARAGE_LOG_FORMAT").is_ok_and(|format| format.eq_ignore_ascii_case("json"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && !is_on("NO_COLOR"));
    if json { builder.json().try_init() } else { builder.try_init() }
}
