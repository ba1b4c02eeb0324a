//! `udp-proxy`: delays, loses or cuts what passes between a port and the one in front of it.
//!
//! SIGUSR1 cuts the connection, SIGUSR2 mends it, SIGTERM and SIGINT end the program. With `--tcp` it delays streams instead and knows no cut.

use std::{io, net::SocketAddr, process::ExitCode, time::Duration};

use clap::Parser;
use garage_testkit::proxy::{Gate, Limits, Loss, TcpProxy, UdpProxy};
use tokio::signal::unix::{SignalKind, signal};

/// The longest delay one way.
const DELAY_MAX: Duration = Duration::from_secs(10);

/// Delays, loses or cuts datagrams on their way to a port
#[derive(Parser)]
struct Arguments {
    /// Where clients send to
    #[arg(long)]
    listen: SocketAddr,
    /// Where it goes on to
    #[arg(long)]
    upstream: SocketAddr,
    /// Delay in each direction, ms (fractions allowed); a round trip takes twice that
    #[arg(long, default_value_t = 0.0)]
    delay_ms: f64,
    /// Share of datagrams that are lost, percent
    #[arg(long, default_value_t = 0.0)]
    loss_percent: f64,
    /// The same seed loses the same datagrams of a sequence
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Pass TCP connections instead of datagrams
    #[arg(long, conflicts_with = "loss_percent")]
    tcp: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(&Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("udp-proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> io::Result<()> {
    let delay = Duration::try_from_secs_f64(arguments.delay_ms / 1e3).ok().filter(|delay| *delay <= DELAY_MAX);
    let delay = delay.ok_or_else(|| io::Error::other(format!("--delay-ms must lie between 0 and {}", DELAY_MAX.as_millis())))?;
    let loss = Loss::percent(arguments.loss_percent).map_err(io::Error::other)?;
    let (mut cut, mut mend) = (signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?);
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (udp, address) = start(arguments, delay, loss)?;
    println!("udp-proxy: {address} -> {}, {delay:?} each way", arguments.upstream);
    loop {
        // Signals are kept by their streams, so one that loses here is seen in the next turn.
        let is_cut = tokio::select! {
            biased;
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = cut.recv() => true,
            _ = mend.recv() => false,
        };
        if let Some(udp) = &udp {
            udp.set_cut(is_cut);
            println!("udp-proxy: {}", if is_cut { "cut" } else { "mended" });
        }
    }
}

fn start(arguments: &Arguments, delay: Duration, loss: Loss) -> io::Result<(Option<UdpProxy>, SocketAddr)> {
    if arguments.tcp {
        let address = TcpProxy::start(arguments.listen, arguments.upstream, delay)?.address();
        return Ok((None, address));
    }
    let gate = Gate::new(loss, arguments.seed);
    let udp = UdpProxy::start(arguments.listen, arguments.upstream, delay, gate, Limits::default())?;
    let address = udp.address();
    Ok((Some(udp), address))
}
