//! Putting one block: to all its holders at once, answered at the write quorum, the last copy in the background.
//!
//! The block's bytes are counted in `block_ram_buffer_max` from before they are sent until the last copy has ended. A copy past the quorum
//! that stays slow is given up once others wait for its memory: the block is durable by then, and anti-entropy brings the copy later.

use std::sync::Arc;

use bytes::Bytes;
use garage_net::NodeId;
use garage_rpc::{LayoutNotReady, StoreMark, quorum::QuorumError};
use garage_util::runtime::Lane;
use tokio::time::{sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{BlockManager, BlockRef, BlockSeal, NodeError, PutBlockError, RequestContext};
use crate::{
    budget::{ByteBudget, Held},
    encoding::{Compression, EncodedBlock},
    hash::BlockHash,
    limits::{BACKGROUND_COPY_CALM, BACKGROUND_COPY_MAX, BLOCK_LEN_MAX_BYTES, STALE_LAYOUT_TRIES_MAX_COUNT},
    message::PutBlock,
    reference::Reference,
};

/// Counted by the shell of quorum calls for each copy under way; the block's own bytes are counted here, in `block_ram_buffer_max`.
const COPY_BOOKKEEPING_BYTES: usize = 1;

impl BlockManager {
    /// Makes a block and a reference to it durable on a write quorum of the block's holders, in every live layout version.
    ///
    /// `reference.block` must be the hash of `content`. Waits for memory first, so it slows its client when nodes are slow.
    pub async fn put(
        &self,
        content: Bytes,
        reference: Reference,
        compression: Compression,
        context: RequestContext,
    ) -> Result<(), PutBlockError> {
        check_len(content.len())?;
        let held = timeout_at(context.deadline, self.0.ram.hold(content.len())).await.map_err(|_| PutBlockError::MemoryShort)?;
        let encoded = self.0.runtime.blocking(Lane::Compute, move || EncodedBlock::encode(content, compression)).await?;
        self.send(reference, encoded, held, context).await
    }

    /// [`BlockManager::put`] for a block still in pieces, whose memory is held, sealed under its index if asked; returns what is stored.
    pub(super) async fn put_pieces(
        &self,
        pieces: Vec<Bytes>,
        seal: Option<(Arc<dyn BlockSeal>, u64)>,
        make_reference: impl FnOnce(BlockHash) -> Reference,
        compression: Compression,
        held: Held,
        context: RequestContext,
    ) -> Result<BlockRef, PutBlockError> {
        let prepared = self.0.runtime.blocking(Lane::Compute, move || {
            let content = join(pieces);
            let content = seal.map_or_else(|| content.clone(), |(seal, index)| seal.seal(index, content.clone()));
            let (hash, len_bytes) = (BlockHash::of(&content), content.len());
            (BlockRef { hash, len_bytes: len_bytes as u32 }, EncodedBlock::encode(content, compression))
        });
        let (block, encoded) = prepared.await?;
        self.send(make_reference(block.hash), encoded, held, context).await?;
        Ok(block)
    }

    async fn send(&self, reference: Reference, block: EncodedBlock, held: Held, context: RequestContext) -> Result<(), PutBlockError> {
        let (hash, held) = (reference.block, Arc::new(held));
        for tries_left in (0..STALE_LAYOUT_TRIES_MAX_COUNT).rev() {
            let Err(error) = self.send_once(&reference, &block, &held, context).await? else { return Ok(()) };
            let is_stale = error.errors.iter().any(|(_, error)| error.is_stale_layout());
            if !is_stale || tries_left == 0 {
                return Err(PutBlockError::Quorum { hash, error });
            }
            // The refusal brought the newer layout; the next plan is made by it.
        }
        unreachable!("the last try returns")
    }

    async fn send_once(
        &self,
        reference: &Reference,
        block: &EncodedBlock,
        held: &Arc<Held>,
        context: RequestContext,
    ) -> Result<Result<(), QuorumError<NodeId, NodeError>>, LayoutNotReady> {
        let holders = self.0.mesh.holders(reference.block)?;
        let reached = CancellationToken::new();
        let sent = self.0.calls.write_all(&holders.write, context.deadline, COPY_BOOKKEEPING_BYTES, |node| {
            let copy = self.copy_to(node, reference.clone(), block.clone(), context);
            let kept = (held.clone(), holders.clone());
            let given_up = give_up(reached.clone(), self.0.ram.clone());
            async move {
                let _kept = kept;
                // Dropping the copy cancels it at the other node; dropping the wait loses nothing.
                tokio::select! { biased; done = copy => done, () = given_up => Err(NodeError::Abandoned) }
            }
        });
        let sent = sent.await.map(drop);
        reached.cancel();
        Ok(sent)
    }

    fn copy_to(
        &self,
        node: NodeId,
        reference: Reference,
        block: EncodedBlock,
        context: RequestContext,
    ) -> impl Future<Output = Result<StoreMark, NodeError>> + Send + 'static {
        let this = self.clone();
        async move {
            if node == this.0.mesh.local() {
                return Ok(this.0.service.put_checked(reference, block).await?);
            }
            let message = PutBlock { reference, encoding: block.encoding, len_bytes: block.bytes.len() as u32 };
            Ok(this.0.mesh.put(node, message, block.bytes, context).await?)
        }
    }
}

/// Returns when a copy past the quorum is to be given up.
async fn give_up(reached: CancellationToken, ram: ByteBudget) {
    reached.cancelled().await;
    sleep(BACKGROUND_COPY_CALM).await;
    // Both only wait; dropping one loses nothing.
    tokio::select! { biased; () = ram.pressed() => {} () = sleep(BACKGROUND_COPY_MAX - BACKGROUND_COPY_CALM) => {} }
}

pub(super) fn check_len(len_bytes: usize) -> Result<(), PutBlockError> {
    if len_bytes <= BLOCK_LEN_MAX_BYTES { Ok(()) } else { Err(PutBlockError::TooLong { len_bytes }) }
}

fn join(mut pieces: Vec<Bytes>) -> Bytes {
    if pieces.len() == 1 {
        return pieces.remove(0);
    }
    let mut content = Vec::with_capacity(pieces.iter().map(Bytes::len).sum());
    for piece in pieces {
        content.extend_from_slice(&piece);
    }
    content.into()
}
