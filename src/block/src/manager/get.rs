//! Getting one block: from the nearest copy, from the next when that one fails, is bad or stays silent; checked here whoever sent it.

use bytes::Bytes;
use garage_net::{CallError, NodeId};
use garage_rpc::{LayoutNotReady, quorum::Step};
use garage_util::runtime::{Interrupted, Lane};
use tokio::time::{Instant, timeout_at};

use super::{BlockManager, BlockRef, NodeError, RequestContext};
use crate::{
    encoding::EncodedBlock,
    hash::BlockHash,
    message::{CheckBlock, GetBlock, code},
    service::collect,
    store::LocalReadError,
};

/// Why a block could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadBlockError {
    /// Every holder was asked, and none has a good copy.
    #[error("block {hash}: none of its {asked_count} nodes has a good copy; bring a node back or restore the object")]
    Missing {
        /// The block.
        hash: BlockHash,
        /// Nodes that were asked.
        asked_count: usize,
    },
    /// Some holder could not be asked; it may have a copy.
    #[error("block {hash}: no copy could be read now ({causes})")]
    Unavailable {
        /// The block.
        hash: BlockHash,
        /// Each node with its reason.
        causes: String,
    },
    /// There is no layout to look by.
    #[error(transparent)]
    Layout(#[from] LayoutNotReady),
    /// This node is stopping.
    #[error(transparent)]
    Stopping(#[from] Interrupted),
}

impl BlockManager {
    /// The content of a block, checked against its hash.
    ///
    /// A bad copy that was met on the way is set aside by the node that has it, and replaced here if it was this node's own.
    pub async fn get(&self, block: BlockRef, context: RequestContext) -> Result<Bytes, ReadBlockError> {
        let holders = self.0.mesh.holders(block.hash)?;
        let nodes = &holders.read_order;
        let mut failures: Vec<(NodeId, NodeError)> = Vec::new();
        let judge = |node, answer| match answer {
            Ok(content) => Step::Done(content),
            Err(error) => {
                failures.push((node, error));
                Step::Wait
            }
        };
        let got = self.0.calls.read_hedged(nodes, 1, context.deadline, |node| self.fetch(node, block, context), judge).await;
        for (node, error) in &failures {
            self.act_on_failure(*node, error, block.hash, got.as_ref());
            if *node == self.0.mesh.local() && matches!(error, NodeError::Missing) && holders.write.contains(*node) {
                self.queue_missing(block.hash);
            }
        }
        got.ok_or_else(|| read_error(block.hash, nodes, &failures))
    }

    async fn fetch(&self, node: NodeId, block: BlockRef, context: RequestContext) -> Result<Bytes, NodeError> {
        let started = Instant::now();
        let content =
            if node == self.0.mesh.local() { self.fetch_here(block.hash).await } else { self.fetch_from(node, block, context).await }?;
        self.0.fetches.record(node, started.elapsed());
        Ok(content)
    }

    async fn fetch_here(&self, hash: BlockHash) -> Result<Bytes, NodeError> {
        self.0.service.store().get(hash).await.map_err(|error| match error {
            LocalReadError::Missing { .. } => NodeError::Missing,
            LocalReadError::Corrupt(corrupt) => corrupt.into(),
            LocalReadError::Stopping(stopping) => stopping.into(),
            other @ (LocalReadError::Busy { .. } | LocalReadError::Io { .. }) => NodeError::LocalRead(other.to_string()),
        })
    }

    async fn fetch_from(&self, node: NodeId, block: BlockRef, context: RequestContext) -> Result<Bytes, NodeError> {
        let message = GetBlock { hash: block.hash, len_bytes: block.len_bytes };
        let (header, body) = self.0.mesh.get(node, message, context).await.map_err(|error| match error {
            CallError::Refused(refusal) if refusal.code == code::MISSING => NodeError::Missing,
            other => other.into(),
        })?;
        if block.len_bytes < header.len_bytes {
            return Err(NodeError::Body(format!("it offers {} bytes for a block of {}", header.len_bytes, block.len_bytes)));
        }
        let body = timeout_at(context.deadline, collect(body, header.len_bytes as usize)).await.map_err(|_| CallError::TimedOut)?;
        let bytes = body.map_err(|error| NodeError::Body(error.to_string()))?;
        let encoded = EncodedBlock { encoding: header.encoding, bytes };
        Ok(self.0.runtime.blocking(Lane::Compute, move || encoded.decode(block.hash)).await??)
    }

    /// A copy that should be here is not: the resync fetches it.
    fn queue_missing(&self, hash: BlockHash) {
        let references = self.0.service.references().clone();
        self.0.runtime.spawn("missing block", async move {
            if let Err(error) = references.queue_missing(hash).await {
                tracing::warn!(%hash, %error, "a missing block could not be queued; a repair of the blocks will find it");
            }
        });
    }

    /// Sees to a bad copy: its node looks at it, and ours is replaced by the good bytes.
    fn act_on_failure(&self, node: NodeId, error: &NodeError, hash: BlockHash, good: Option<&Bytes>) {
        if !matches!(error, NodeError::Corrupt(_)) {
            return;
        }
        tracing::warn!(%hash, node = %node.short(), %error, "a bad copy of a block was read; another one is used");
        let (this, good) = (self.clone(), good.cloned());
        self.0.runtime.spawn("bad block copy", async move {
            if let Err(error) = this.see_to_bad_copy(node, hash, good).await {
                tracing::warn!(%hash, node = %node.short(), error, "a bad copy of a block could not be seen to; the scrub will find it");
            }
        });
    }

    async fn see_to_bad_copy(&self, node: NodeId, hash: BlockHash, good: Option<Bytes>) -> Result<(), String> {
        if node != self.0.mesh.local() {
            let context = RequestContext { deadline: Instant::now() + crate::limits::CHECK_CALL_MAX, trace: 0 };
            return self.0.mesh.check(node, CheckBlock { hash }, context).await.map(drop).map_err(|error| error.to_string());
        }
        // The read has set it aside already; queued first, so that a crash before the new copy is there leaves the work to be done.
        self.0.service.references().queue_corrupt(hash).await.map_err(|error| error.to_string())?;
        let Some(content) = good else { return Ok(()) };
        let compression = self.0.options.compression;
        let encoded = self.0.runtime.blocking(Lane::Compute, move || EncodedBlock::encode(content, compression)).await;
        self.0.service.mend(hash, encoded.map_err(|error| error.to_string())?).await.map_err(|error| error.to_string())
    }
}

fn read_error(hash: BlockHash, nodes: &[NodeId], failures: &[(NodeId, NodeError)]) -> ReadBlockError {
    let is_absent = |error: &NodeError| match error {
        NodeError::Missing | NodeError::Corrupt(_) => true,
        NodeError::Call(CallError::Refused(refusal)) => refusal.code == code::CORRUPT,
        _ => false,
    };
    if failures.len() == nodes.len() && failures.iter().all(|(_, error)| is_absent(error)) {
        return ReadBlockError::Missing { hash, asked_count: nodes.len() };
    }
    let cause = |node: &NodeId| match failures.iter().find(|(failed, _)| failed == node) {
        Some((_, error)) => format!("{}: {error}", node.short()),
        None => format!("{}: no answer in time", node.short()),
    };
    ReadBlockError::Unavailable { hash, causes: nodes.iter().map(cause).collect::<Vec<_>>().join("; ") }
}
