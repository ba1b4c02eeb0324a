//! What is done to the nodes: one of them at a time, chosen by the seed, each time mended before the next.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::time::sleep;

use super::{Failure, Options, nodes::Cluster};
use crate::proxy::Loss;

/// Rest between two faults, in which the node that was in trouble catches up.
const REST: Duration = Duration::from_secs(4);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Kill,
    Hang,
    Cut,
    Loss,
    DiskFull,
    DataLost,
    LayoutChange,
    Restart,
}

const FAULTS: [Fault; 8] =
    [Fault::Kill, Fault::Hang, Fault::Cut, Fault::Loss, Fault::DataLost, Fault::LayoutChange, Fault::DiskFull, Fault::Restart];

/// Brings faults until the time is up; how often each was brought.
pub(super) async fn torment(cluster: &mut Cluster, options: &Options) -> Result<BTreeMap<String, u64>, Failure> {
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
    let (begun, mut told) = (Instant::now(), BTreeMap::new());
    for round in 0.. {
        sleep(REST).await;
        if options.duration <= begun.elapsed() {
            return Ok(told);
        }
        // Each kind comes before any comes twice.
        let fault = FAULTS[round % FAULTS.len()];
        let node = if fault == Fault::DiskFull { 0 } else { rng.random_range(0..cluster.nodes.len()) };
        if fault == Fault::DiskFull && !cluster.nodes[0].is_fillable {
            continue;
        }
        let lasts = Duration::from_secs(rng.random_range(3..12));
        println!("{:>5.1} s  {fault:?} of node {node}", begun.elapsed().as_secs_f64());
        bring(cluster, node, fault, lasts).await?;
        *told.entry(format!("{fault:?}")).or_default() += 1;
    }
    Ok(told)
}

async fn bring(cluster: &mut Cluster, index: usize, fault: Fault, lasts: Duration) -> Result<(), Failure> {
    if fault == Fault::LayoutChange {
        return cluster.change_layout(index).await;
    }
    let node = &mut cluster.nodes[index];
    match fault {
        Fault::Kill => {
            node.signal(Signal::SIGKILL);
            node.ended().await;
            sleep(lasts).await;
            node.start().await?;
        }
        Fault::Restart => {
            node.signal(Signal::SIGTERM);
            node.ended().await;
            node.start().await?;
        }
        Fault::Hang => {
            node.signal(Signal::SIGSTOP);
            sleep(lasts).await;
            node.signal(Signal::SIGCONT);
        }
        Fault::Cut => {
            node.proxy.set_cut(true);
            sleep(lasts).await;
            node.proxy.set_cut(false);
        }
        Fault::Loss => {
            node.proxy.set_loss(Loss::percent(30.0)?);
            sleep(lasts).await;
            node.proxy.set_loss(Loss::default());
        }
        Fault::DiskFull => {
            node.fill(true)?;
            sleep(lasts).await;
            node.fill(false)?;
        }
        Fault::DataLost => {
            node.signal(Signal::SIGKILL);
            node.ended().await;
            node.lose_data()?;
            node.start().await?;
            // A second copy must not be lost before this one is back.
            sleep(lasts * 2).await;
        }
        Fault::LayoutChange => unreachable!("it is no fault of one node"),
    }
    Ok(())
}
