//! What is done to the nodes, chosen by the seed.
//!
//! One fault at a time, each mended before the next. What was destroyed takes longer to be filled again: until it is, the same node may lose
//! more, others may only be away for a while.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use tokio::time::sleep;

use super::{
    Failure, Options,
    heal::Victim,
    network::{self, Place, Trouble},
    nodes::Cluster,
};

/// Rest between two faults, in which the node that was in trouble catches up.
const REST: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Kill,
    Restart,
    Hang,
    Cut,
    Deaf,
    Mute,
    PairCut,
    Loss,
    LinkDown,
    DiskFull,
    DataLost,
    MetadataLost,
    MetadataSetBack,
    LayoutChange,
}

/// Faults after which a node has to be filled again.
const DESTRUCTIVE: [Fault; 3] = [Fault::MetadataLost, Fault::MetadataSetBack, Fault::DataLost];
const OTHERS: [Fault; 11] = [
    Fault::Kill,
    Fault::Restart,
    Fault::Hang,
    Fault::Cut,
    Fault::Deaf,
    Fault::Mute,
    Fault::PairCut,
    Fault::Loss,
    Fault::LinkDown,
    Fault::DiskFull,
    Fault::LayoutChange,
];

impl Cluster {
    fn places(&self) -> Vec<&Place> {
        self.nodes.iter().map(|node| &node.place).collect()
    }

    /// Brings trouble between a node and all others, or ends all of it.
    pub(super) fn trouble(&self, index: usize, trouble: Option<Trouble>) -> Result<(), Failure> {
        let others: Vec<usize> = (0..self.nodes.len()).collect();
        network::trouble(&self.places(), index, &others, trouble, index as u64)?;
        if trouble.is_none() && self.nodes[index].place.has_link() {
            self.nodes[index].place.set_link(true)?;
        }
        Ok(())
    }
}

/// What was brought, and who is not whole after it.
#[derive(Default)]
pub(super) struct Told {
    pub faults: BTreeMap<String, u64>,
    pub victim: Option<Victim>,
}

/// The faults of a run, one after the other.
pub(super) struct Torment<'a> {
    cluster: &'a mut Cluster,
    rng: ChaCha8Rng,
    begun: Instant,
    destructive_round: usize,
    told: Told,
}

/// Brings faults until the time is up.
pub(super) async fn torment(cluster: &mut Cluster, options: &Options) -> Result<Told, Failure> {
    let rng = ChaCha8Rng::seed_from_u64(options.seed);
    let mut torment = Torment { cluster, rng, begun: Instant::now(), destructive_round: options.seed as usize, told: Told::default() };
    torment.run(options.duration).await?;
    Ok(torment.told)
}

impl Torment<'_> {
    async fn run(&mut self, duration: Duration) -> Result<(), Failure> {
        sleep(REST).await;
        // What a node is set back to, if nothing older turns up.
        self.cluster.nodes[0].cli_patiently(&["meta", "snapshot", "--all"]).await?;
        let mut deck = Vec::new();
        loop {
            sleep(REST).await;
            for node in &mut self.cluster.nodes {
                if let Some(failure) = node.has_died() {
                    return Err(failure);
                }
            }
            if duration <= self.begun.elapsed() {
                return Ok(());
            }
            self.forgive().await;
            // As soon as all is whole, something is destroyed again; meanwhile each other kind comes before any comes twice.
            if self.told.victim.is_none() {
                let fault = DESTRUCTIVE[self.destructive_round % DESTRUCTIVE.len()];
                self.destructive_round += 1;
                self.destroy(fault).await?;
                continue;
            }
            if deck.is_empty() {
                deck = OTHERS.to_vec();
                deck.shuffle(&mut self.rng);
            }
            if let Some(fault) = deck.pop() {
                self.bring(fault).await?;
            }
        }
    }

    /// Forgets the last victim once it is whole.
    async fn forgive(&mut self) {
        if self.told.victim.is_some() && self.cluster.unhealed(self.told.victim.as_ref()).await.is_none() {
            self.say("all is whole");
            self.told.victim = None;
        }
    }

    fn say(&self, what: &str) {
        println!("{:>6.1} s  {what}", self.begun.elapsed().as_secs_f64());
    }

    fn note(&mut self, fault: Fault, index: usize) {
        self.say(&format!("{fault:?} of node {index}"));
        *self.told.faults.entry(format!("{fault:?}")).or_default() += 1;
    }

    async fn destroy(&mut self, fault: Fault) -> Result<(), Failure> {
        let members = self.cluster.members.all();
        let index = members[self.rng.random_range(0..members.len())];
        self.note(fault, index);
        let node = &mut self.cluster.nodes[index];
        node.end(Signal::SIGKILL).await?;
        let mut victim = Victim { index, blocks: node.block_files(), has_moved: false };
        match fault {
            Fault::MetadataLost => node.lose_metadata()?,
            Fault::MetadataSetBack => {
                if !node.set_back()? {
                    return Err(Failure(format!("node {index} has no old state that it could be set back to")));
                }
            }
            _ => victim.blocks = node.lose_data()?,
        }
        node.start().await?;
        self.told.victim = Some(victim);
        if fault != Fault::DataLost {
            self.cluster.seen_recovering(index).await?;
            self.say(&format!("node {index} is recovering"));
            // What an operator does after it, so that blocks that came since are found again.
            self.cluster.nodes[index].cli_patiently(&["repair", "--yes", "blocks"]).await?;
        }
        Ok(())
    }

    async fn bring(&mut self, fault: Fault) -> Result<(), Failure> {
        let index = if fault == Fault::DiskFull { 0 } else { self.rng.random_range(0..self.cluster.nodes.len()) };
        let node = &self.cluster.nodes[index];
        if fault == Fault::DiskFull && !node.is_fillable || fault == Fault::LinkDown && !node.place.has_link() {
            return Ok(());
        }
        self.note(fault, index);
        let lasts = Duration::from_secs(self.rng.random_range(3..12));
        match fault {
            Fault::LayoutChange => {
                self.cluster.change_layout(index).await?;
                // Three nodes hold everything in any layout.
                let has_moved = 3 < self.cluster.nodes.len();
                self.told.victim.iter_mut().for_each(|victim| victim.has_moved |= has_moved);
            }
            Fault::Cut => self.between(index, Trouble::Cut, lasts).await?,
            Fault::Deaf => self.between(index, Trouble::Deaf, lasts).await?,
            Fault::Mute => self.between(index, Trouble::Mute, lasts).await?,
            Fault::Loss => self.between(index, Trouble::Loss, lasts).await?,
            Fault::PairCut => {
                let other = (index + 1) % self.cluster.nodes.len();
                network::trouble(&self.cluster.places(), index, &[other], Some(Trouble::Cut), 1)?;
                sleep(lasts).await;
                network::trouble(&self.cluster.places(), index, &[other], None, 1)?;
            }
            _ => self.bring_to_process(fault, index, lasts).await?,
        }
        Ok(())
    }

    async fn between(&mut self, index: usize, trouble: Trouble, lasts: Duration) -> Result<(), Failure> {
        self.cluster.trouble(index, Some(trouble))?;
        sleep(lasts).await;
        self.cluster.trouble(index, None)
    }

    async fn bring_to_process(&mut self, fault: Fault, index: usize, lasts: Duration) -> Result<(), Failure> {
        let node = &mut self.cluster.nodes[index];
        match fault {
            Fault::Kill => {
                node.end(Signal::SIGKILL).await?;
                // Not while it is refilled: an old state that recovers too is none to be set back to.
                if self.told.victim.as_ref().is_none_or(|victim| victim.index != index) {
                    node.keep_copy()?;
                }
                sleep(lasts).await;
                node.start().await?;
            }
            Fault::Restart => {
                node.end(Signal::SIGTERM).await?;
                node.start().await?;
            }
            Fault::Hang => {
                node.signal(Signal::SIGSTOP);
                sleep(lasts).await;
                node.signal(Signal::SIGCONT);
            }
            Fault::LinkDown => {
                node.place.set_link(false)?;
                sleep(lasts).await;
                node.place.set_link(true)?;
            }
            Fault::DiskFull => {
                node.fill(true).await?;
                sleep(lasts).await;
                node.fill(false).await?;
            }
            other => unreachable!("{other:?} is brought elsewhere"),
        }
        Ok(())
    }
}
