//! What a layout change, or a loss, asks of a node: to bring here, from those who have it, all that it must hold.
//!
//! Why this suffices for a layout change (ADR 0013): once every node has acknowledged the new version, no call that follows the old one
//! alone is served any more. What counted before then is at a quorum of the nodes that all read from; a read quorum of those therefore
//! shows every row that counted, or a newer one, and every ballot that a quorum promised. A node that holds all those rows and promises
//! stands in for any of them.
//!
//! For a loss (ADR 0014): what the lost store had promised to an operation that still runs is waited out; what it promised or accepted
//! before that, and that matters, is at a read quorum of the others as well. Promises come first here: until they are known, nothing
//! may be accepted that they would have refused.
//!
//! Invariants:
//! - the passes that count begin after every node has acknowledged the version, or after the lost promises are waited out;
//! - each partition comes from a read quorum of the version that everybody reads from, of nodes that hold it whole;
//! - this node holds what *every* live version up to the one it reports gives it.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use garage_db::Direction;
use garage_net::NodeId;
use garage_rpc::{layout::LayoutHistory, membership::WorkReport, register::RegisterSide};
use garage_util::workers::{Report, Step, StepError, Worker};

use super::{
    Syncer, held_partitions,
    message::AskStanding,
    pass::{Pass, Purpose, SyncError},
    sides,
    sources::{Plan, Sources},
};
use crate::{
    keyspaces,
    limits::{MOVE_LOOK_PERIOD, TOLD_BLOCKS_MAX},
    schema::StoreError,
};

/// How far a node is with what a layout change or a loss asks of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MoveProgress {
    /// The layout version it moves to, or has reached.
    pub version: u64,
    /// Partitions (of 256) that it has to bring here for that.
    pub needed_count: usize,
    /// Those of them whose rows are here.
    pub synced_count: usize,
}

/// Refills what was lost, then follows the layout.
pub(super) struct MoveWorker {
    syncer: Syncer,
    /// The version whose bulk was brought before every node had acknowledged it.
    brought_ahead: u64,
    /// Blocks that waited to be looked at when this was told last; what waits only for a moment is nothing to tell of.
    waiting_blocks: BTreeSet<Bytes>,
    /// Bytes of one block at the most.
    block_len_bytes: u32,
}

impl MoveWorker {
    pub(super) fn new(syncer: Syncer, block_len_bytes: u32) -> MoveWorker {
        MoveWorker { syncer, brought_ahead: 0, waiting_blocks: BTreeSet::new(), block_len_bytes }
    }

    async fn work(&mut self) -> Result<Step, SyncError> {
        let (syncer, cluster) = (self.syncer.clone(), self.syncer.cluster().clone());
        syncer.standing.reconcile(&cluster).await?;
        let history = cluster.layout();
        let held = held_partitions(&history, cluster.local());
        let lost: BTreeSet<u8> = syncer.standing.incomplete().intersection(&held).copied().collect();
        cluster.abstain(!lost.is_empty());
        self.report_work(&history).await?;
        if !lost.is_empty() {
            let grace_left = syncer.standing.grace_left();
            if !grace_left.is_zero() {
                return Ok(Step::Idle(grace_left.min(MOVE_LOOK_PERIOD)));
            }
            let outcome = refill(&syncer, &history, lost).await;
            self.report_work(&cluster.layout()).await?;
            outcome?;
            return Ok(Step::Busy);
        }
        let (synced, epoch) = syncer.standing.synced();
        if epoch < history.epoch() {
            // The loss that was accepted is not this node's.
            syncer.standing.set_synced(synced, history.epoch()).await?;
        }
        let is_behind =
            history.live_storage_nodes().contains(&cluster.local()) && history.trackers(cluster.local()).sync < history.current().version;
        let is_acknowledged = history.current().version <= history.min_ack();
        // The bulk is brought while others still acknowledge; what was written meanwhile comes with the pass that counts.
        if !is_behind || !(is_acknowledged || self.brought_ahead < history.current().version) {
            return Ok(Step::Idle(MOVE_LOOK_PERIOD));
        }
        let outcome = follow(&syncer, &history, is_acknowledged).await;
        self.report_work(&cluster.layout()).await?;
        outcome?;
        self.brought_ahead = history.current().version;
        Ok(Step::Busy)
    }

    /// Tells the other nodes how far this one is.
    async fn report_work(&mut self, history: &LayoutHistory) -> Result<(), SyncError> {
        let progress = self.syncer.move_progress();
        let held = held_partitions(history, self.syncer.cluster().local());
        let recovering_count = self.syncer.standing.incomplete().intersection(&held).count();
        let queued = self.syncer.store.db().read(|snapshot| {
            let entries = snapshot.prefix(keyspaces::BLOCK_QUEUE, &[], Direction::Forward).take(TOLD_BLOCKS_MAX);
            entries.map(|item| item.map(|(key, _)| key)).collect::<Result<BTreeSet<Bytes>, _>>()
        });
        let queued = queued.await?.map_err(StoreError::from)?;
        let queued_blocks_count = queued.intersection(&self.waiting_blocks).count() as u64;
        self.waiting_blocks = queued;
        self.syncer.cluster().report_work(WorkReport {
            version: progress.version,
            needed_count: progress.needed_count as u16,
            synced_count: progress.synced_count as u16,
            recovering_count: recovering_count as u16,
            queued_blocks_count,
            block_len_bytes: self.block_len_bytes,
        });
        Ok(())
    }
}

impl Worker for MoveWorker {
    fn name(&self) -> String {
        "layout sync".to_string()
    }
    fn step(&mut self) -> BoxFuture<'_, Result<Step, StepError>> {
        async move { Ok(self.work().await?) }.boxed()
    }
    fn report(&self) -> Report {
        let progress = self.syncer.move_progress();
        let lost_count = self.syncer.standing.incomplete().len();
        let mut messages = Vec::new();
        if 0 < lost_count {
            messages.push(format!("{lost_count} partitions are being refilled: answers about them do not count"));
        }
        let share = (0 < progress.needed_count)
            .then(|| format!("{}/{} of version {}", progress.synced_count, progress.needed_count, progress.version));
        let left_count = progress.needed_count - progress.synced_count;
        Report { progress: share, queue_length: Some((left_count + lost_count) as u64), messages, ..Report::default() }
    }
}

/// Brings what is missing for the present version; if that `counts`, this node is then in sync with it.
async fn follow(syncer: &Syncer, history: &LayoutHistory, counts: bool) -> Result<(), SyncError> {
    let cluster = syncer.cluster();
    let version = history.current().version;
    let mut plan = Plan::of_change(history, cluster.local());
    let partitions: Vec<u8> = plan.needed.keys().copied().collect();
    let needed_count = partitions.len();
    syncer.state.lock().moving = MoveProgress { version, needed_count, synced_count: 0 };
    bring(syncer, &mut plan, Purpose::Move, async |syncer, left_count, _| {
        let mut state = syncer.state.lock();
        state.moving.synced_count = state.moving.needed_count.saturating_sub(left_count);
        Ok(())
    })
    .await?;
    if counts {
        for partition in partitions {
            // What nodes that did not count yet accepted, and replaced, is no evidence that it ever took effect.
            sides::change_all(syncer, partition, RegisterSide::forget_superseded, |_, _| Ok(())).await?;
        }
        // First in the store: a node that says it is in sync, with a store that was never so, has lost it.
        syncer.standing.set_synced(version, history.epoch()).await?;
        cluster.layout_synced(version).await.map_err(|error| SyncError::Layout { reason: error.to_string() })?;
        tracing::info!(version, partitions = needed_count, "this node has all that it holds in the new layout");
    }
    Ok(())
}

/// Refills lost partitions from the others.
async fn refill(syncer: &Syncer, history: &LayoutHistory, lost: BTreeSet<u8>) -> Result<(), SyncError> {
    let local = syncer.cluster().local();
    let held = held_partitions(history, local);
    let lost: BTreeSet<u8> = lost.intersection(&held).copied().collect();
    for partition in syncer.standing.being_dropped().intersection(&lost) {
        // It was given back while it was being dropped: what is left of it says nothing.
        super::evict::empty(syncer, *partition).await?;
        syncer.standing.dropped(*partition).await?;
    }
    let is_loss_accepted = syncer.standing.synced().1 < history.epoch();
    let (plan, purpose) = if is_loss_accepted {
        (salvage_plan(syncer, history, &lost).await?, Purpose::Salvage)
    } else {
        (Plan::of_loss(history, local, &lost), Purpose::Refill)
    };
    let needed: BTreeSet<u8> = plan.needed.keys().copied().collect();
    // Where nobody else has anything, and that is accepted, there is nothing to wait for.
    syncer.standing.refilled(&lost.difference(&needed).copied().collect()).await?;
    if is_loss_accepted {
        // Nobody can be asked for all promises any more; operations that were promised something have failed with their quorums.
        syncer.standing.learnt_promises(&needed.iter().copied().collect::<Vec<u8>>());
    } else {
        bring(syncer, &mut plan.clone(), Purpose::Promises, async |syncer, _, done| {
            syncer.standing.learnt_promises(&done.iter().copied().collect::<Vec<u8>>());
            Ok(())
        })
        .await?;
    }
    bring(syncer, &mut plan.clone(), purpose, async |syncer, _, done| Ok(syncer.standing.refilled(&done).await?)).await?;
    if is_loss_accepted {
        let version = history.current().version;
        syncer.standing.set_synced(version, history.epoch()).await?;
    }
    tracing::info!(partitions = lost.len(), "this node was refilled: its answers count again");
    Ok(())
}

/// Whoever is left with a lost partition once a loss was accepted: all of those who have it whole, or else all who have any of it.
async fn salvage_plan(syncer: &Syncer, history: &LayoutHistory, lost: &BTreeSet<u8>) -> Result<Plan, SyncError> {
    let local = syncer.cluster().local();
    let members = history.live_nodes();
    let had = |node: NodeId| {
        let versions = history.historical().next_back().into_iter().chain(history.live());
        versions.filter(|version| version.is_ready()).flat_map(|version| super::digest_partitions(version, node)).collect::<BTreeSet<u8>>()
    };
    let mut needed: std::collections::BTreeMap<u8, (BTreeSet<NodeId>, BTreeSet<NodeId>)> =
        lost.iter().map(|partition| (*partition, Default::default())).collect();
    for node in members.into_iter().filter(|node| *node != local) {
        let has: BTreeSet<u8> = had(node).intersection(lost).copied().collect();
        if has.is_empty() {
            continue;
        }
        // Everyone must answer: whoever is gone for good has to leave the layout.
        let incomplete = syncer.call(node, &AskStanding {}).await?.incomplete;
        for partition in has {
            let (whole, any) = needed.entry(partition).or_default();
            any.insert(node);
            if !incomplete.contains(&partition) {
                whole.insert(node);
            }
        }
    }
    let sources = needed.into_iter().map(|(partition, (whole, any))| {
        let nodes = if whole.is_empty() { any } else { whole };
        (partition, Sources { missing_count: nodes.len(), nodes })
    });
    Ok(Plan::new(sources))
}

/// Brings everything in the plan, from one source after the other, the nearest first; tells after each pass what is left and what is done.
async fn bring(
    syncer: &Syncer,
    plan: &mut Plan,
    purpose: Purpose,
    mut tell: impl AsyncFnMut(&Syncer, usize, BTreeSet<u8>) -> Result<(), SyncError>,
) -> Result<(), SyncError> {
    let mut sources: Vec<NodeId> = plan.sources().into_iter().collect();
    syncer.cluster().order_by_nearness(&mut sources);
    let mut failure = None;
    for node in sources {
        for partitions in plan.batches(node) {
            match (Pass { syncer, peer: node, purpose }).run(&partitions).await {
                Ok(_) => {
                    let done = plan.brought(&partitions, node);
                    tell(syncer, plan.needed.len(), done).await?;
                }
                Err(error) => {
                    tracing::debug!(node = %node.short(), %error, "partitions could not be brought from this node");
                    // It is gone, or can't be relied on: others may do.
                    failure = Some(error);
                    break;
                }
            }
        }
    }
    match failure {
        _ if plan.needed.is_empty() => Ok(()),
        Some(error) => Err(error),
        None => Err(SyncError::TooFewSources { partition_count: plan.needed.len() }),
    }
}

const _: () = assert!(MOVE_LOOK_PERIOD.as_millis() < Duration::from_secs(60).as_millis());
