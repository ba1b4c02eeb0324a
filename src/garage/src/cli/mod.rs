//! The command line: from words to calls of the administration interface, and from its answers to text.
//!
//! Reading order: `args` (what can be typed), `caller` (how the interface is reached), `session` (what a command works with), then one file
//! for each group of commands; `output` and `format` are how results look. `rpc_caller` is the real way to a node, tests use a fake.
//! `garage server` is not here.

pub(crate) mod args;
mod bucket;
mod caller;
pub(crate) mod connect;
mod error;
mod format;
mod key;
mod layout;
mod node;
mod output;
mod report;
mod rpc_caller;
mod session;
mod status;
mod token;

#[cfg(test)]
mod tests;

use std::process::ExitCode;

use garage_api_admin::{ENDPOINTS, OPENAPI, find_endpoint};
use serde_json::Value;

use self::{
    args::{Cli, Command, MetaCommand, NodeCommand},
    caller::AdminCaller,
    error::{CliError, fail},
    format::LocalTime,
    output::Output,
    session::Session,
};

/// Prints why a command line could not be used, or the help that was asked for.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    // Nothing can be done about a stream that is closed.
    let _ = error.print();
    // Mistakes end with 1 as every other failure, not with clap's 2.
    ExitCode::from(u8::from(error.use_stderr()))
}

/// Runs any command but `server` to its end and prints what it found.
pub(crate) async fn run(cli: Cli) -> ExitCode {
    let mut output = Output::default();
    match execute(cli).await {
        Ok(finished) => output = finished,
        Err((partial, error)) => {
            output = Output { exit_code: 1, ..partial.unwrap_or(output) };
            output.hint(format!("Error: {error}"));
        }
    }
    match output.write() {
        Ok(()) => ExitCode::from(output.exit_code),
        Err(_) => ExitCode::FAILURE,
    }
}

/// What was printed before an error stands before it.
type Failure = (Option<Output>, CliError);

async fn execute(cli: Cli) -> Result<Output, Failure> {
    let early = |error| (None, error);
    let Cli { global, command } = cli;
    let command = match command {
        Command::Node(NodeCommand::Id { quiet }) | Command::NodeId { quiet } => return connect::node_id(&global, quiet).map_err(early),
        Command::Completions { shell } => {
            return Err(early(CliError::Message(format!("completions for {shell} are not available in this build"))));
        }
        Command::AdminApiSchema => return Ok(Output { stdout: OPENAPI.to_owned(), ..Output::default() }),
        command => command,
    };
    let target = connect::target(&global).map_err(early)?;
    let caller = rpc_caller::RpcCaller::connect(&target.peer, &target.secret).await.map_err(early)?;
    let mut session = Session::new(&caller, LocalTime::of_system());
    let done = dispatch(&mut session, command, target.public_endpoint).await;
    let out = session.out;
    caller.close().await;
    match done {
        Ok(()) => Ok(out),
        Err(error) => Err((Some(out), error)),
    }
}

/// Runs a command that needs a node.
async fn dispatch(session: &mut Session<'_>, command: Command, public_endpoint: Option<String>) -> Result<(), CliError> {
    match command {
        Command::Status => status::status(session).await,
        Command::Health { quiet } => status::health(session, quiet).await,
        Command::Stats { all_nodes, .. } => status::stats(session, all_nodes).await,
        Command::Node(NodeCommand::Connect { peer }) => node::connect(session, &peer).await,
        Command::Layout(command) => layout::run(session, command).await,
        Command::Bucket(command) => bucket::run(session, command).await,
        Command::Key(command) => key::run(session, command, public_endpoint).await,
        Command::AdminToken(command) => token::run(session, command).await,
        Command::Repair(args) => node::repair(session, &args).await,
        Command::Worker(command) => node::worker(session, command).await,
        Command::Block(command) => node::block(session, command).await,
        Command::Meta(MetaCommand::Snapshot { all }) => node::snapshot(session, all).await,
        Command::JsonApi { endpoint, payload } => json_api(session, &endpoint, payload).await,
        Command::Server(_)
        | Command::Node(NodeCommand::Id { .. })
        | Command::NodeId { .. }
        | Command::Completions { .. }
        | Command::AdminApiSchema => fail("this command runs without a node"),
    }
}

async fn json_api(session: &mut Session<'_>, endpoint: &str, payload: Option<String>) -> Result<(), CliError> {
    let Some(endpoint) = find_endpoint(endpoint) else {
        let names: Vec<&str> = ENDPOINTS.iter().map(|endpoint| endpoint.name).collect();
        return fail(format!("unknown endpoint {endpoint:?}; there are: {}", names.join(", ")));
    };
    let text = match payload.as_deref() {
        None => "null".to_owned(),
        Some("-") => {
            std::io::read_to_string(std::io::stdin()).map_err(|error| CliError::Message(format!("cannot read standard input: {error}")))?
        }
        Some(text) => text.to_owned(),
    };
    let payload: Value =
        serde_json::from_str(&text).map_err(|error| CliError::Message(format!("the payload is not valid JSON: {error}")))?;
    let caller: &dyn AdminCaller = session.caller;
    let answer = caller.call_raw(endpoint.name, payload).await.map_err(CliError::Raw)?;
    session.out.stdout.push_str(&format!("{answer:#}"));
    Ok(())
}
