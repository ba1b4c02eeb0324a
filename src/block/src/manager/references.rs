//! Adding references to blocks that are there already: what a copy of an object costs instead of its bytes.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream::FuturesUnordered};
use garage_net::{CallError, NodeId};
use garage_rpc::register::QuorumSets;
use tokio::time::timeout_at;

use super::{BlockManager, PutBlockError, RequestContext};
use crate::{
    hash::BlockHash,
    limits::{REFERENCE_CALLS_IN_FLIGHT_COUNT, REFERENCES_PER_CALL_MAX_COUNT},
    message::{AddReferences, ReferencesAdded},
    reference::Reference,
};

/// Which blocks got their references at a quorum. Pure.
struct Tally {
    sets: BTreeMap<BlockHash, QuorumSets<NodeId>>,
    added: BTreeMap<BlockHash, BTreeSet<NodeId>>,
    lost: BTreeMap<BlockHash, BTreeSet<NodeId>>,
    open: BTreeSet<BlockHash>,
}

impl Tally {
    fn new(sets: BTreeMap<BlockHash, QuorumSets<NodeId>>) -> Tally {
        let open = sets.keys().copied().collect();
        Tally { sets, added: BTreeMap::new(), lost: BTreeMap::new(), open }
    }

    fn on_answer(&mut self, from: NodeId, asked: &[BlockHash], missing: Option<&[BlockHash]>) {
        for hash in asked {
            let is_added = missing.is_some_and(|missing| !missing.contains(hash));
            let tally = if is_added { &mut self.added } else { &mut self.lost };
            tally.entry(*hash).or_default().insert(from);
            if self.is_settled(*hash) {
                self.open.remove(hash);
            }
        }
    }

    fn is_settled(&self, hash: BlockHash) -> bool {
        let blocked = |sets: &QuorumSets<NodeId>| self.lost.get(&hash).is_some_and(|lost| sets.is_blocked(lost));
        self.is_added(hash) || self.sets.get(&hash).is_none_or(blocked)
    }

    fn is_added(&self, hash: BlockHash) -> bool {
        let added = self.added.get(&hash);
        self.sets.get(&hash).is_some_and(|sets| added.is_some_and(|added| sets.has_quorum(added)))
    }

    fn not_added(&self) -> Vec<BlockHash> {
        self.sets.keys().copied().filter(|hash| !self.is_added(*hash)).collect()
    }
}

impl BlockManager {
    /// Adds references at a write quorum of each block's holders, in one round trip; returns the blocks, sorted, for which that did not
    /// succeed, because too few holders have them or can be reached. Those are to be sent as data.
    pub async fn add_references(&self, references: Vec<Reference>, context: RequestContext) -> Result<Vec<BlockHash>, PutBlockError> {
        let (mut sets, mut in_use) = (BTreeMap::new(), Vec::new());
        let mut by_node: BTreeMap<NodeId, Vec<Reference>> = BTreeMap::new();
        for reference in references {
            let holders = self.0.mesh.holders(reference.block)?;
            for node in holders.write.nodes() {
                by_node.entry(node).or_default().push(reference.clone());
            }
            sets.insert(reference.block, holders.write);
            in_use.extend(holders.placement);
        }
        let mut tally = Tally::new(sets);
        let mut waiting = batches(by_node).into_iter();
        let mut calls: FuturesUnordered<_> =
            waiting.by_ref().take(REFERENCE_CALLS_IN_FLIGHT_COUNT).map(|batch| self.ask(batch, context)).collect();
        while !tally.open.is_empty() {
            // Dropping the wait loses nothing: the calls stay in the set.
            let Ok(Some((node, asked, answer))) = timeout_at(context.deadline, calls.next()).await else { break };
            tally.on_answer(node, &asked, answer.as_ref().ok().map(|added| &added.missing[..]));
            calls.extend(waiting.next().map(|batch| self.ask(batch, context)));
        }
        let not_added = tally.not_added();
        // The replicas that are slower get their references all the same.
        calls.extend(waiting.map(|batch| self.ask(batch, context)));
        self.0.runtime.spawn("last references", async move {
            while let Ok(Some(_)) = timeout_at(context.deadline, calls.next()).await {}
            drop(in_use);
        });
        Ok(not_added)
    }

    fn ask(
        &self,
        (node, references): (NodeId, Vec<Reference>),
        context: RequestContext,
    ) -> impl Future<Output = (NodeId, Vec<BlockHash>, Result<ReferencesAdded, CallError>)> + Send + 'static {
        let this = self.clone();
        async move {
            let asked = references.iter().map(|reference| reference.block).collect();
            let answer = if node == this.0.mesh.local() {
                this.0.service.add_references(references).await.map_err(CallError::from)
            } else {
                this.0.mesh.add_references(node, AddReferences { references }, context).await
            };
            if let Err(error) = &answer {
                tracing::debug!(node = %node.short(), %error, "references were not added");
            }
            (node, asked, answer)
        }
    }
}

/// Calls of bounded size, the first of every node before the second of any.
fn batches(by_node: BTreeMap<NodeId, Vec<Reference>>) -> Vec<(NodeId, Vec<Reference>)> {
    let mut numbered = Vec::new();
    for (node, references) in by_node {
        for (round, batch) in references.chunks(REFERENCES_PER_CALL_MAX_COUNT).enumerate() {
            numbered.push((round, node, batch.to_vec()));
        }
    }
    numbered.sort_by_key(|(round, node, _)| (*round, *node));
    numbered.into_iter().map(|(_, node, batch)| (node, batch)).collect()
}
