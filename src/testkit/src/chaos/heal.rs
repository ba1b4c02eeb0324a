//! Whether nodes have back what they lost: asked while a run goes on, and awaited at its end.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::{Failure, nodes::Cluster};

/// A node whose store was lost waits 90 s before it refills itself; then it copies.
const WHOLE_WITHIN: Duration = Duration::from_secs(300);
/// A node that lost its store is seen as recovering by then.
const RECOVERING_WITHIN: Duration = Duration::from_secs(60);

/// The one node that lost something it stored.
pub(super) struct Victim {
    pub index: usize,
    /// Blocks it had.
    pub blocks: BTreeSet<String>,
    /// The layout has changed since, so they need not be its own any more.
    pub has_moved: bool,
}

/// A node's line under PROGRESS.
struct Progress<'a> {
    id: &'a str,
    /// Partitions that it has, a slash, partitions that it needs.
    synced: &'a str,
    recovering: &'a str,
}

impl Progress<'_> {
    /// Blocks that wait to be looked at do not count: among them are those that are kept for ten minutes before they are deleted.
    fn is_busy(&self) -> bool {
        self.recovering != "0" || self.synced.split_once('/').is_none_or(|(synced, needed)| synced != needed)
    }
}

/// What `garage layout history` says of nodes that have something to bring.
fn progress(said: &str) -> impl Iterator<Item = Progress<'_>> {
    let table = said.split("==== PROGRESS ====\n").nth(1).unwrap_or_default();
    table.lines().skip(1).take_while(|line| !line.is_empty()).filter_map(|line| {
        let mut words = line.split_whitespace();
        Some(Progress { id: words.next()?, synced: words.nth(1)?, recovering: words.next()? })
    })
}

impl Cluster {
    /// Why not everything is where it should be, as far as nodes say that run; `None`: it is.
    pub(super) async fn unhealed(&self, victim: Option<&Victim>) -> Option<String> {
        for node in self.nodes.iter().filter(|node| node.runs()) {
            let said = match node.cli(&["layout", "history"]).await {
                Ok(said) => said,
                Err(Failure(error)) => return Some(error),
            };
            if !said.contains("One layout version is live") || progress(&said).any(|progress| progress.is_busy()) {
                return Some(format!("node {} says:\n{said}", node.index));
            }
        }
        self.missing_blocks(victim?).await
    }

    /// Blocks that the victim had, others still have, and the victim needs and has not.
    async fn missing_blocks(&self, victim: &Victim) -> Option<String> {
        if victim.has_moved {
            return None;
        }
        let there = self.nodes[victim.index].block_files();
        let elsewhere: BTreeSet<String> =
            self.nodes.iter().filter(|node| node.index != victim.index).flat_map(|node| node.block_files()).collect();
        let missing: Vec<&String> = victim.blocks.iter().filter(|hash| elsewhere.contains(*hash) && !there.contains(*hash)).collect();
        for hash in &missing {
            // What nothing needs any more is not fetched, and others keep it for some time before they delete it.
            let said = self.nodes[victim.index].cli(&["block", "info", hash]).await.unwrap_or_default();
            let is_needed = said.lines().any(|line| line.starts_with("Refcount:") && !line.ends_with(" 0"));
            if is_needed {
                let (index, lost_count) = (victim.index, victim.blocks.len());
                let missing_count = missing.len();
                return Some(format!(
                    "node {index} lost {lost_count} blocks and has not fetched up to {missing_count} of them again: {said}"
                ));
            }
        }
        None
    }

    /// Waits until a node says of itself, or another of it, that its answers do not count.
    pub(super) async fn seen_recovering(&self, index: usize) -> Result<(), Failure> {
        let deadline = Instant::now() + RECOVERING_WITHIN;
        let id = &self.nodes[index].short_id;
        loop {
            let said = self.nodes[index].cli(&["layout", "history"]).await.unwrap_or_default();
            if progress(&said).any(|progress| progress.id == *id && progress.recovering != "0") {
                return Ok(());
            }
            if deadline < Instant::now() {
                return Err(Failure(format!("node {index} lost its metadata and is not recovering after {RECOVERING_WITHIN:?}:\n{said}")));
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// Everything runs, every node sees all others, and what was lost is back.
    pub(super) async fn mend(&mut self, victim: Option<&Victim>) -> Result<Duration, Failure> {
        let begun = Instant::now();
        for index in 0..self.nodes.len() {
            self.trouble(index, None)?;
            if !self.nodes[index].runs() {
                self.nodes[index].start().await?;
            }
        }
        loop {
            let why = match self.unseen().await {
                None => self.unhealed(victim).await,
                why => why,
            };
            let Some(why) = why else { return Ok(begun.elapsed()) };
            if WHOLE_WITHIN < begun.elapsed() {
                return Err(Failure(format!("{WHOLE_WITHIN:?} after the last fault: {why}")));
            }
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// Which node does not see all others.
    async fn unseen(&self) -> Option<String> {
        for node in &self.nodes {
            let said = match node.cli(&["status"]).await {
                Ok(said) => said,
                Err(Failure(error)) => return Some(error),
            };
            let healthy = said.split("==== ").find(|part| part.starts_with("HEALTHY NODES")).unwrap_or_default();
            let sees = |id: &str| healthy.lines().any(|line| line.starts_with(id));
            if !self.nodes.iter().all(|other| sees(&other.short_id)) {
                return Some(format!("node {} does not see all nodes:\n{said}", node.index));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_busy_while_partitions_are_missing_or_recovering() {
        let said = |rows: &str| {
            format!(
                "==== LAYOUT HISTORY ====\nVersion  Status\n#1  Current\n\n==== PROGRESS ====\nNode  Version  Partitions synced  Recovering\n{rows}\nx"
            )
        };
        let busy = |rows: &str| progress(&said(rows)).any(|progress| progress.is_busy());
        assert!(!busy("03a5565a1ce70ad8  #2  0/0  0  233  233.0 MiB\n"));
        assert!(busy("03a5565a1ce70ad8  #2  3/5  0  0  0 B\n"));
        assert!(busy("03a5565a1ce70ad8  #2  0/0  0  0  0 B\n13a5565a1ce70ad8  #2  0/0  256  0  0 B\n"));
        assert_eq!(progress(&said("03a5565a1ce70ad8  #2  0/0  0  1  1 B\n")).count(), 1);
        assert_eq!(progress("==== LAYOUT HISTORY ====\n").count(), 0);
    }
}
