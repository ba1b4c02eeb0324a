//! What goes wrong in a history, and how it is put right again: chosen by the seed, told to the trace.

use std::{collections::BTreeSet, path::Path, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{cluster::Cluster, network::Conditions, seed::Seed};

/// How much may be wrong at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Faults {
    /// Nothing.
    None,
    /// One node at a time, so that quorums remain.
    OneNode,
    /// Any number of nodes: quorums may be missing for a while.
    Any,
}

/// A fault of one node, or of all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    Crash,
    Isolate,
    CutOneWay { other: usize },
    DiskFull,
    ClockJump,
    BadNetwork,
    Rot,
}

/// How far a clock may be off.
const CLOCK_OFFSET_MAX_MS: u64 = 40_000;

/// Brings faults upon a cluster until `over`, one every `pause_max` or sooner, then mends everything but rot and restarts every node.
pub async fn torment(cluster: &mut Cluster, mut seed: Seed, faults: Faults, pause_max: Duration, over: CancellationToken) {
    let mut tormentor = Tormentor { open: Vec::new(), rotten: BTreeSet::new() };
    if faults != Faults::None {
        tormentor.one_wrong_clock(cluster, &mut seed);
    }
    while faults != Faults::None && !over.is_cancelled() {
        let pause = Duration::from_millis(200 + seed.pick(pause_max.as_millis() as u64));
        tokio::select! {
            biased;
            () = over.cancelled() => break,
            () = sleep(pause) => {}
        }
        let may_add = faults == Faults::Any || tormentor.open.is_empty();
        if may_add && (tormentor.open.is_empty() || !seed.one_in(2)) {
            tormentor.begin(cluster, &mut seed).await;
        } else if !tormentor.open.is_empty() {
            let index = seed.pick(tormentor.open.len() as u64) as usize;
            let (node, fault) = tormentor.open.remove(index);
            tormentor.undo(cluster, node, fault).await;
        }
    }
    for (node, fault) in std::mem::take(&mut tormentor.open) {
        tormentor.undo(cluster, node, fault).await;
    }
}

struct Tormentor {
    open: Vec<(usize, Fault)>,
    /// File names of blocks of which one copy was harmed already.
    rotten: BTreeSet<String>,
}

impl Tormentor {
    fn one_wrong_clock(&mut self, cluster: &Cluster, seed: &mut Seed) {
        let node = seed.pick(cluster.count() as u64) as usize;
        let offset_ms = seed.pick(2 * CLOCK_OFFSET_MAX_MS) as i64 - CLOCK_OFFSET_MAX_MS as i64;
        cluster.trace().line(|| format!("clock of {node} is off by {offset_ms} ms"));
        (0..cluster.count()).for_each(|node| cluster.clock(node).set_offset_ms(0));
        cluster.clock(node).set_offset_ms(offset_ms);
    }

    async fn begin(&mut self, cluster: &mut Cluster, seed: &mut Seed) {
        let node = seed.pick(cluster.count() as u64) as usize;
        let other = (node + 1 + seed.pick(cluster.count() as u64 - 1) as usize) % cluster.count();
        let fault = match seed.pick(10) {
            0..3 => Fault::Crash,
            3..5 => Fault::Isolate,
            5 => Fault::CutOneWay { other },
            6 => Fault::DiskFull,
            7 => Fault::ClockJump,
            8 => Fault::BadNetwork,
            _ => Fault::Rot,
        };
        if self.open.iter().any(|(open_node, open)| *open_node == node && (*open == fault || matches!(open, Fault::Crash))) {
            return;
        }
        cluster.trace().line(|| format!("{fault:?} of {node}"));
        match fault {
            Fault::Crash => cluster.crash(node),
            Fault::Isolate => cluster.isolate(node, true),
            Fault::CutOneWay { other } => cluster.network().cut(cluster.id(node), cluster.id(other), true),
            Fault::DiskFull => cluster.set_full(node, true),
            Fault::ClockJump => return self.one_wrong_clock(cluster, seed),
            Fault::BadNetwork => cluster.network().set_conditions(bad(cluster.options().conditions)),
            Fault::Rot => return self.rot(cluster, node, seed),
        }
        self.open.push((node, fault));
    }

    async fn undo(&mut self, cluster: &mut Cluster, node: usize, fault: Fault) {
        cluster.trace().line(|| format!("end of {fault:?} of {node}"));
        match fault {
            Fault::Crash => {
                // A node whose disk is full does not start.
                cluster.set_full(node, false);
                cluster.restart(node).await;
            }
            Fault::Isolate => cluster.isolate(node, false),
            Fault::CutOneWay { other } => cluster.network().cut(cluster.id(node), cluster.id(other), false),
            Fault::DiskFull => cluster.set_full(node, false),
            Fault::BadNetwork => cluster.network().set_conditions(cluster.options().conditions),
            Fault::ClockJump | Fault::Rot => {}
        }
    }

    /// Harms one copy of a block of which no other copy was harmed.
    fn rot(&mut self, cluster: &Cluster, node: usize, seed: &mut Seed) {
        let blocks: Vec<_> = cluster.disk(node).paths().into_iter().filter(|path| block_name(path).is_some()).collect();
        if blocks.is_empty() {
            return;
        }
        let path = &blocks[seed.pick(blocks.len() as u64) as usize];
        if block_name(path).is_some_and(|name| self.rotten.insert(name)) {
            cluster.disk(node).rot(path);
            cluster.trace().line(|| format!("rot of {} on {node}", path.display()));
        }
    }
}

/// The hash in the name of a block's file.
fn block_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let hash = name.strip_suffix(".zst").unwrap_or(name);
    (hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| hash.to_string())
}

fn bad(good: Conditions) -> Conditions {
    Conditions { delay: good.delay * 4, jitter: Duration::from_millis(150), lost_one_in: 8 }
}
