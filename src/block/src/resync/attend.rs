//! Attends to one block of the queue: gathers the facts, carries out the plan, notes the outcome in the queue.

use std::{collections::BTreeSet, sync::atomic::Ordering};

use futures::{StreamExt, future::join_all, stream::FuturesUnordered};
use garage_net::{CallError, NodeId, Refusal};
use garage_table::schema::StoreError as TableError;
use garage_util::runtime::{Interrupted, Lane};
use tokio::time::{Instant, timeout_at};

use super::{
    Resync,
    decision::{Facts, Plan, backoff, plan},
    queue::QueueError,
};
use crate::{
    encoding::EncodedBlock,
    hash::BlockHash,
    limits::{ASK_TIMEOUT, RESYNC_BLOCK_TIMEOUT},
    manager::{Holders, RequestContext},
    message::{AskBlocks, BlockKnown, GetBlock, PutBlock},
    reference::{QueueEntry, Reference, ReferenceState},
    service::{LocalWriteError, collect},
    store::{LocalReadError, StoreError},
};

/// Why a block could not be attended to; it stays in the queue.
#[derive(Debug, thiserror::Error)]
pub enum ResyncError {
    /// Nobody who can be reached has a copy.
    #[error("no node that can be reached has a good copy ({asked_count} asked, {} of them silent)", .silent.len())]
    NoCopy {
        /// Nodes asked.
        asked_count: usize,
        /// Of these, without a good answer.
        silent: Vec<NodeId>,
    },
    /// A holder could not be asked or did not take its copy.
    #[error("node {} does not have its copy yet: {reason}", .node.short())]
    HolderLacks {
        /// Which.
        node: NodeId,
        /// Why.
        reason: String,
    },
    /// Too few of the other holders answered to be sure that nothing needs the block.
    #[error("nothing here knows the block, and too few of its other holders could be asked whether they need it")]
    TooFewAsked {
        /// Those that could not.
        silent: Vec<NodeId>,
    },
    /// Another holder needs it; its references are still to come.
    #[error("nothing here needs the block, but another of its holders does; waiting for its references")]
    NeededElsewhere,
    /// There is no layout.
    #[error(transparent)]
    Layout(#[from] garage_rpc::LayoutNotReady),
    /// The references.
    #[error("the references cannot be read: {0}")]
    References(#[from] TableError),
    /// The files.
    #[error(transparent)]
    Files(#[from] StoreError),
    /// The copy here.
    #[error(transparent)]
    Read(#[from] LocalReadError),
    /// Writing the copy.
    #[error(transparent)]
    Write(#[from] LocalWriteError),
    /// The queue.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The node is stopping.
    #[error(transparent)]
    Stopping(#[from] Interrupted),
}

impl ResyncError {
    /// The nodes that it failed on: when they come back, it may go better.
    fn failed_on(self) -> Vec<NodeId> {
        match self {
            ResyncError::NoCopy { silent, .. } | ResyncError::TooFewAsked { silent } => silent,
            ResyncError::HolderLacks { node, .. } => vec![node],
            _ => Vec::new(),
        }
    }
}

/// How an entry leaves the queue.
enum Outcome {
    Settled,
    Later(QueueEntry),
}

impl Resync {
    /// Attends to a block and notes the outcome. Errors: only those of the queue itself, and of a node that stops.
    pub(super) async fn attend(&self, hash: BlockHash, entry: QueueEntry) -> Result<(), ResyncError> {
        let counters = &self.0.counters;
        counters.tries_count.fetch_add(1, Ordering::Relaxed);
        let returns_count = self.0.returns_count.load(Ordering::SeqCst);
        let outcome = self.try_once(hash, &entry).await;
        let new = match outcome {
            Ok(Outcome::Settled) => None,
            Ok(Outcome::Later(entry)) => Some(entry),
            Err(ResyncError::Stopping(stopping)) => return Err(stopping.into()),
            Err(error) => {
                counters.errors_count.fetch_add(1, Ordering::Relaxed);
                let failed_count = entry.failed_count.saturating_add(1);
                tracing::warn!(%hash, %error, failed_count, "a block could not be resynced; it is tried again later");
                Some(self.failed(&entry, error))
            }
        };
        let is_failed_on = new.as_ref().is_some_and(|new| !new.failed_on.is_empty());
        self.0.queue.replace(hash, entry, new).await?;
        // Who came back since the try began has not found this entry among those that wait.
        if is_failed_on && self.0.returns_count.load(Ordering::SeqCst) != returns_count {
            self.look_at(vec![hash]).await?;
        }
        Ok(())
    }

    fn failed(&self, entry: &QueueEntry, error: ResyncError) -> QueueEntry {
        let (failed_count, last_try_ms) = (entry.failed_count.saturating_add(1), self.0.runtime.now_ms());
        let due_ms = last_try_ms.saturating_add(backoff(failed_count).as_millis() as u64);
        QueueEntry { failed_count, due_ms, last_try_ms, failed_on: error.failed_on(), ..entry.clone() }
    }

    async fn try_once(&self, hash: BlockHash, entry: &QueueEntry) -> Result<Outcome, ResyncError> {
        let (facts, holders) = self.facts(hash, entry).await?;
        match plan(facts) {
            Plan::Nothing => Ok(Outcome::Settled),
            Plan::Fetch => self.fetch(hash, &holders).await.map(|()| Outcome::Settled),
            Plan::HandOver => self.hand_over(hash, entry, &holders).await,
            Plan::KeepUntil { since_ms, due_ms } => Ok(later(entry, since_ms, due_ms)),
            Plan::Delete => self.delete(hash, entry, &holders).await,
        }
    }

    async fn facts(&self, hash: BlockHash, entry: &QueueEntry) -> Result<(Facts, Holders), ResyncError> {
        let manager = &self.0.manager;
        let holders = manager.mesh().holders(hash)?;
        let facts = Facts {
            is_here: manager.service().store().contains(vec![hash]).await?.first().copied().unwrap_or(false),
            is_needed: manager.service().references().need(hash).await?.is_live,
            is_mine: holders.write.contains(manager.mesh().local()),
            unneeded_since_ms: entry.unneeded_since_ms,
            now_ms: self.0.runtime.now_ms(),
        };
        Ok((facts, holders))
    }

    /// Gets a copy from whoever has one: a holder, or a node that held it under an earlier layout.
    async fn fetch(&self, hash: BlockHash, holders: &Holders) -> Result<(), ResyncError> {
        let local = self.0.manager.mesh().local();
        let current: Vec<NodeId> = holders.read_order.iter().copied().filter(|node| *node != local).collect();
        let former = self.0.manager.mesh().former_holders();
        let former: Vec<NodeId> = former.into_iter().filter(|node| !holders.read_order.contains(node)).collect();
        let (mut silent, asked_count) = (Vec::new(), current.len() + former.len());
        for nodes in [current, former] {
            let Some(block) = self.fetch_from_any(nodes, hash, &mut silent).await else { continue };
            self.0.manager.service().mend(hash, block).await?;
            self.0.counters.received_count.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        Err(ResyncError::NoCopy { asked_count, silent })
    }

    /// A good copy from one of these nodes, all asked at once: the nearest answers first, and a silent one is not waited for while another has it.
    async fn fetch_from_any(&self, nodes: Vec<NodeId>, hash: BlockHash, silent: &mut Vec<NodeId>) -> Option<EncodedBlock> {
        let mut answers: FuturesUnordered<_> = nodes.into_iter().map(|node| async move { (node, self.ask(node, hash).await) }).collect();
        while let Some((node, answer)) = answers.next().await {
            let fetched = match answer.map(|known| known.stored_len_bytes) {
                Ok(None) => continue,
                Ok(Some(len_bytes)) => self.fetch_from(node, hash, len_bytes).await,
                Err(error) => Err(error.to_string()),
            };
            match fetched {
                Ok(block) => return Some(block),
                Err(reason) => {
                    tracing::debug!(%hash, node = %node.short(), reason, "a block could not be fetched from this node");
                    silent.push(node);
                }
            }
        }
        None
    }

    /// The copy of a node that has one, checked.
    async fn fetch_from(&self, node: NodeId, hash: BlockHash, len_bytes: u64) -> Result<EncodedBlock, String> {
        let len_bytes = u32::try_from(len_bytes).map_err(|_| format!("it has a file of {len_bytes} bytes, longer than any block"))?;
        let context = deadline(RESYNC_BLOCK_TIMEOUT);
        let sent = self.0.manager.mesh().fetch(node, GetBlock { hash, len_bytes }, context).await;
        let (header, body) = sent.map_err(|error| error.to_string())?;
        let body = timeout_at(context.deadline, collect(body, header.len_bytes as usize)).await.map_err(|_| "it did not end in time")?;
        let block = EncodedBlock { encoding: header.encoding, bytes: body.map_err(|error| error.to_string())? };
        let checked = self.0.runtime.blocking(Lane::Compute, move || block.decode(hash).map(|_content| block)).await;
        match checked.map_err(|error| error.to_string())? {
            Ok(block) => Ok(block),
            Err(corrupt) => {
                // Its node looks at it, sets it aside and fetches another.
                let check = crate::message::CheckBlock { hash };
                drop(self.0.manager.mesh().check(node, check, deadline(ASK_TIMEOUT)).await);
                Err(corrupt.to_string())
            }
        }
    }

    async fn ask(&self, node: NodeId, hash: BlockHash) -> Result<BlockKnown, CallError> {
        let message = AskBlocks { hashes: vec![hash] };
        let known = self.0.manager.mesh().ask(node, message, deadline(ASK_TIMEOUT)).await?;
        let refused =
            || CallError::Refused(Refusal { code: "BadAnswer".into(), message: "nothing was answered".into(), detail: Default::default() });
        known.blocks.first().copied().ok_or_else(refused)
    }

    /// What each of these nodes knows of a block; all are asked at once.
    async fn ask_each(&self, nodes: impl IntoIterator<Item = NodeId>, hash: BlockHash) -> Vec<(NodeId, Result<BlockKnown, CallError>)> {
        join_all(nodes.into_iter().map(|node| async move { (node, self.ask(node, hash).await) })).await
    }

    /// Sees that every node that holds the block by the layout has it, then lets the copy here go.
    async fn hand_over(&self, hash: BlockHash, entry: &QueueEntry, holders: &Holders) -> Result<Outcome, ResyncError> {
        let references = self.0.manager.service().references().of(hash).await?;
        let live = references.iter().find(|(_, row)| row.state != ReferenceState::Dropped);
        let mut wanted_by_count = 0;
        for (node, answer) in self.ask_each(holders.write.nodes(), hash).await {
            let lacks = |reason: String| ResyncError::HolderLacks { node, reason };
            let known = answer.map_err(|error| lacks(error.to_string()))?;
            wanted_by_count += usize::from(known.is_needed);
            match (known.stored_len_bytes, live) {
                (Some(_), _) => {}
                (None, Some((version, row))) => {
                    let reference =
                        Reference { block: hash, version: *version, group: row.group.clone(), stamp: row.stamp, owner: row.owner.clone() };
                    self.send_to(node, reference).await?;
                    wanted_by_count += 1;
                }
                // It knows from its own references that it needs the block, and fetches it, from here if need be.
                (None, None) if known.is_needed => return Err(lacks("it has not fetched it yet".to_string())),
                (None, None) => {}
            }
        }
        if live.is_none() && wanted_by_count == 0 {
            return self.delete_when_due(hash, entry).await;
        }
        let lock = self.0.manager.service().store().lock([hash]).await;
        // The layout may have given it back to this node meanwhile.
        if !self.0.manager.mesh().holders(hash)?.write.contains(self.0.manager.mesh().local()) {
            self.0.manager.service().store().remove(hash, &lock).await?;
        }
        Ok(Outcome::Settled)
    }

    async fn send_to(&self, node: NodeId, reference: Reference) -> Result<(), ResyncError> {
        let hash = reference.block;
        let store = self.0.manager.service().store();
        // A bad copy must not travel: the read checks it and sets it aside.
        store.get(hash).await?;
        let block = store.get_unchecked(hash).await?;
        let message = PutBlock { reference, encoding: block.encoding, len_bytes: block.bytes.len() as u32 };
        let sent = self.0.manager.mesh().hand_over(node, message, block.bytes, deadline(RESYNC_BLOCK_TIMEOUT)).await;
        sent.map_err(|error| ResyncError::HolderLacks { node, reason: error.to_string() })?;
        *self.0.counters.sent_counts.lock().entry(node).or_default() += 1;
        Ok(())
    }

    /// Deletes a block that nothing here needs, on a node that holds it by the layout.
    async fn delete(&self, hash: BlockHash, entry: &QueueEntry, holders: &Holders) -> Result<Outcome, ResyncError> {
        if !self.0.manager.service().references().need(hash).await?.is_known {
            self.ask_whether_needed(hash, holders).await?;
        }
        self.delete_when_due(hash, entry).await
    }

    /// A block of which this node never heard may be one whose references it has lost or not got yet.
    async fn ask_whether_needed(&self, hash: BlockHash, holders: &Holders) -> Result<(), ResyncError> {
        let local = self.0.manager.mesh().local();
        let (mut answered, mut silent) = (BTreeSet::from([local]), Vec::new());
        let others = holders.write.nodes().into_iter().filter(|node| *node != local);
        for (node, answer) in self.ask_each(others, hash).await {
            match answer {
                Ok(known) if known.is_needed => return Err(ResyncError::NeededElsewhere),
                Ok(_) => {
                    answered.insert(node);
                }
                Err(error) => {
                    tracing::debug!(%hash, node = %node.short(), %error, "a holder could not be asked whether it needs a block");
                    silent.push(node);
                }
            }
        }
        if holders.write.has_quorum(&answered) { Ok(()) } else { Err(ResyncError::TooFewAsked { silent }) }
    }

    async fn delete_when_due(&self, hash: BlockHash, entry: &QueueEntry) -> Result<Outcome, ResyncError> {
        let service = self.0.manager.service();
        let lock = service.store().lock([hash]).await;
        // Under the lock no reference can be added by a writer: what is not needed now stays so until the file is gone.
        let facts = Facts { is_mine: true, ..self.facts(hash, entry).await?.0 };
        match plan(facts) {
            Plan::KeepUntil { since_ms, due_ms } => Ok(later(entry, since_ms, due_ms)),
            Plan::Delete if !(self.0.may_delete)(hash) => {
                let due_ms = facts.now_ms.saturating_add(crate::limits::DELETION_DELAY.as_millis() as u64);
                Ok(later(entry, facts.unneeded_since_ms, due_ms))
            }
            Plan::Delete => {
                service.store().remove(hash, &lock).await?;
                Ok(Outcome::Settled)
            }
            Plan::Nothing | Plan::Fetch | Plan::HandOver => Ok(Outcome::Settled),
        }
    }
}

fn later(entry: &QueueEntry, since_ms: u64, due_ms: u64) -> Outcome {
    Outcome::Later(QueueEntry { due_ms, unneeded_since_ms: since_ms, failed_count: 0, failed_on: Vec::new(), ..entry.clone() })
}

fn deadline(patience: std::time::Duration) -> RequestContext {
    RequestContext { deadline: Instant::now() + patience, trace: 0 }
}
