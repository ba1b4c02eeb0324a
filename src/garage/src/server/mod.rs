//! `garage server`: opens what is on disk, joins the cluster, serves, and stops in order.
//!
//! Reading order: this file (the life of a server), `settings` (from flags and file to what a node is made of), `assemble` (node and
//! transport), `listeners` (HTTP), `single_node` and `defaults` (layout, key and bucket of a first start), `space` (what is left on the
//! disks), `logging`, `limits`.

mod assemble;
mod defaults;
mod limits;
mod listeners;
mod logging;
mod settings;
mod single_node;
mod space;

use std::process::ExitCode;

use garage_util::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::settings::Settings;
use crate::cli::args::{GlobalArgs, ServerArgs};

/// A reason not to start, or to stop: a sentence for the operator.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs a node until it is told to stop.
pub(crate) fn run(global: &GlobalArgs, args: &ServerArgs) -> ExitCode {
    let outcome = logging::start().and_then(|()| {
        limits::raise_open_files();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(limits::BLOCKING_THREADS_MAX).build()?;
        let outcome = runtime.block_on(serve(global, args));
        // Blocking work that hangs on a disk must not keep the process: what was answered is durable.
        runtime.shutdown_timeout(limits::THREADS_PATIENCE);
        outcome
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What is being done, for whoever watches the start.
fn progress(text: &str) {
    eprintln!("garage: {text}");
}

async fn serve(global: &GlobalArgs, args: &ServerArgs) -> Result<(), Failure> {
    let settings = Settings::read(global, args)?;
    let (runtime, tasks) = Runtime::real();
    let server = assemble::start(&settings, &runtime).await?;
    let stop = CancellationToken::new();
    let listeners = listeners::start(&settings, &runtime, &server, stop.clone()).await;
    let ready = async {
        let listeners = listeners?;
        if args.single_node {
            single_node::apply_layout(&server.node, &settings).await?;
        }
        let made = defaults::make(&server.node, &settings).await?;
        Ok::<_, Failure>((listeners, made))
    };
    // A start that fails half-way stops in the same order as one that succeeded.
    let outcome = match ready.await {
        Ok((listeners, made)) => {
            progress("ready");
            if let Some(made) = made {
                print!("{}", made.describe(&settings, &listeners));
            }
            wait_for_signal().await?;
            progress("stopping: requests under way are finished first");
            stop.cancel();
            listeners.join().await;
            Ok(())
        }
        Err(error) => Err(error),
    };
    stop.cancel();
    server.stop().await;
    if !tasks.stop(limits::TASKS_PATIENCE).await {
        tracing::warn!("some background tasks did not end in time");
    }
    outcome
}

async fn wait_for_signal() -> Result<(), Failure> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut hangup = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            biased;
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            _ = hangup.recv() => tracing::info!("SIGHUP is ignored: restart to read the configuration again"),
        }
    }
}
