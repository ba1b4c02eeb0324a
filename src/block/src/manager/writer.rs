//! From a body to blocks: cut, hashed and compressed off the async workers, several on their way at once.
//!
//! A client's next block is gathered outside the shared memory budget, as it trickles in; once whole it waits for its place in the budget,
//! and no more is read from that client meanwhile. So slow clients cannot starve fast ones, and slow nodes slow their writers.

use std::sync::Arc;

use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use garage_util::hlc::Stamp;
use serde_bytes::ByteBuf;
use tokio::time::timeout_at;

use super::{BlockManager, BlockRef, PutBlockError, RequestContext};
use crate::{budget::Held, encoding::Compression, reference::Reference};

/// Whose blocks a body becomes, and how.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// The version (or part) that needs the blocks.
    pub version: [u8; 32],
    /// The partition key under which it can be asked for.
    pub group: Vec<u8>,
    /// Where in the group its row is, or will be.
    pub owner: Vec<u8>,
    /// Its stamp.
    pub stamp: Stamp,
    /// [`Compression::Never`] for encrypted bytes; else what [`super::ManagerOptions`] says.
    pub compression: Compression,
    /// Encrypts each block; `None`: they are stored as they are.
    pub seal: Option<Arc<dyn BlockSeal>>,
}

/// Turns the content of a block into what is stored, named and sent: encrypts it.
pub trait BlockSeal: Send + Sync + std::fmt::Debug {
    /// Bytes that a sealed block is longer than its content.
    fn overhead_bytes(&self) -> usize;
    /// Seals the block of this index in its body. Computes: it is run in `Lane::Compute`.
    fn seal(&self, index: u64, content: Bytes) -> Bytes;
}

impl WriteOptions {
    fn reference_to(&self, block: crate::hash::BlockHash) -> Reference {
        Reference {
            block,
            version: self.version,
            group: ByteBuf::from(self.group.clone()),
            stamp: self.stamp,
            owner: ByteBuf::from(self.owner.clone()),
        }
    }
}

/// Why a body was not stored.
#[derive(Debug, thiserror::Error)]
pub enum WriteError<E> {
    /// The body itself: the client went away, or sent what it should not.
    #[error("the body failed: {0}")]
    Body(E),
    /// A block.
    #[error(transparent)]
    Put(#[from] PutBlockError),
    /// The deadline passed while the body was still coming.
    #[error("the body did not end before the request's deadline")]
    TimedOut,
}

/// Blocks of one body: the one being gathered, those on their way, those done.
struct Cutter {
    size_bytes: usize,
    pieces: Vec<Bytes>,
    gathered_bytes: usize,
    /// What came past the end of a block, not yet gathered.
    rest: Bytes,
}

impl Cutter {
    fn new(size_bytes: usize) -> Cutter {
        Cutter { size_bytes, pieces: Vec::new(), gathered_bytes: 0, rest: Bytes::new() }
    }

    /// Takes more of the body; only once the rest of what came before was gathered.
    fn push(&mut self, piece: Bytes) {
        assert!(self.rest.is_empty(), "a piece before the last one was cut");
        self.rest = piece;
        self.gather();
    }

    fn gather(&mut self) {
        let len_bytes = self.rest.len().min(self.size_bytes - self.gathered_bytes);
        if 0 < len_bytes {
            self.gathered_bytes += len_bytes;
            self.pieces.push(self.rest.split_to(len_bytes));
        }
    }

    fn is_whole(&self) -> bool {
        self.gathered_bytes == self.size_bytes
    }

    /// The block gathered so far; what came past it is gathered next.
    fn take(&mut self) -> Vec<Bytes> {
        let pieces = std::mem::take(&mut self.pieces);
        self.gathered_bytes = 0;
        self.gather();
        pieces
    }
}

impl BlockManager {
    /// Stores a body as blocks of the configured size, each on a write quorum with its reference; returns them in order.
    ///
    /// An empty body is no block. On an error, what was stored has leases only, which nobody confirms.
    pub async fn write<E>(
        &self,
        body: impl Stream<Item = Result<Bytes, E>> + Send,
        options: &WriteOptions,
        context: RequestContext,
    ) -> Result<Vec<BlockRef>, WriteError<E>> {
        let overhead_bytes = options.seal.as_ref().map_or(0, |seal| seal.overhead_bytes());
        let written = BodyWriter {
            manager: self,
            options,
            context,
            // What is stored of a block, seal included, keeps to the configured size.
            cutter: Cutter::new(self.0.options.block_size_bytes.saturating_sub(overhead_bytes).max(1)),
            entering: None,
            on_their_way: FuturesUnordered::new(),
            blocks: Vec::new(),
        };
        timeout_at(context.deadline, written.run(body)).await.map_err(|_| WriteError::TimedOut)?
    }
}

struct BodyWriter<'a> {
    manager: &'a BlockManager,
    options: &'a WriteOptions,
    context: RequestContext,
    cutter: Cutter,
    /// A whole block that waits for memory; kept over the loop, so that it keeps its place in the queue.
    entering: Option<BoxFuture<'a, (Vec<Bytes>, Held)>>,
    on_their_way: FuturesUnordered<BoxFuture<'a, (usize, Result<BlockRef, PutBlockError>)>>,
    /// By index in the body; `None` while on its way.
    blocks: Vec<Option<BlockRef>>,
}

impl BodyWriter<'_> {
    async fn run<E>(mut self, body: impl Stream<Item = Result<Bytes, E>> + Send) -> Result<Vec<BlockRef>, WriteError<E>> {
        tokio::pin!(body);
        let mut ended = false;
        loop {
            self.enter_next(ended);
            let may_start = self.on_their_way.len() < self.manager.0.options.writes_in_flight_count.max(1);
            let may_read = !ended && self.entering.is_none();
            if self.on_their_way.is_empty() && self.entering.is_none() && ended {
                break;
            }
            // Nothing is lost with the branches not taken: calls and the wait for memory are kept, a body keeps its place.
            tokio::select! {
                biased;
                Some((index, done)) = self.on_their_way.next(), if !self.on_their_way.is_empty() => self.blocks[index] = Some(done?),
                (pieces, held) = wait(&mut self.entering), if self.entering.is_some() && may_start => self.start(pieces, held),
                piece = body.next(), if may_read => match piece {
                    Some(piece) => self.cutter.push(piece.map_err(WriteError::Body)?),
                    None => ended = true,
                },
            }
        }
        Ok(self.blocks.into_iter().flatten().collect())
    }

    /// Lets a whole block, or the last one, wait for memory, if none waits yet.
    fn enter_next(&mut self, ended: bool) {
        let is_due = self.cutter.is_whole() || (ended && 0 < self.cutter.gathered_bytes);
        if self.entering.is_some() || !is_due {
            return;
        }
        let (len_bytes, pieces, manager) = (self.cutter.gathered_bytes, self.cutter.take(), self.manager);
        self.entering = Some(async move { (pieces, manager.0.ram.hold(len_bytes).await) }.boxed());
    }

    fn start(&mut self, pieces: Vec<Bytes>, held: Held) {
        self.entering = None;
        let (manager, options, index) = (self.manager, self.options, self.blocks.len());
        let context = manager.block_context(self.context);
        self.blocks.push(None);
        let put = async move {
            let make_reference = |hash| options.reference_to(hash);
            let seal = options.seal.clone().map(|seal| (seal, index as u64));
            (index, manager.put_pieces(pieces, seal, make_reference, options.compression, held, context).await)
        };
        self.on_their_way.push(put.boxed());
    }
}

async fn wait<T>(entering: &mut Option<BoxFuture<'_, T>>) -> T {
    match entering {
        Some(entering) => entering.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::Cutter;

    proptest! {
        #[test]
        fn however_a_body_comes_its_blocks_are_the_same(body: Vec<u8>, size_bytes in 1usize..40, cuts in prop::collection::vec(0usize..60, 0..20)) {
            let mut cutter = Cutter::new(size_bytes);
            let (mut rest, mut blocks) = (Bytes::from(body.clone()), Vec::new());
            for cut in cuts.into_iter().chain([usize::MAX]) {
                cutter.push(rest.split_to(cut.min(rest.len())));
                while cutter.is_whole() {
                    blocks.push(cutter.take().concat());
                }
            }
            if 0 < cutter.gathered_bytes {
                blocks.push(cutter.take().concat());
            }
            let expected: Vec<Vec<u8>> = body.chunks(size_bytes).map(<[u8]>::to_vec).collect();
            prop_assert_eq!(blocks, expected);
        }
    }
}
