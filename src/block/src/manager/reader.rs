//! From blocks to a body: the block that the client waits for, and a few ahead of it, in order.
//!
//! Blocks ahead count in a budget that all clients share. The block a client waits for does not, so every client advances, and a slow one
//! holds at most what was read ahead for it.

use std::{collections::VecDeque, pin::Pin};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream::BoxStream};
use garage_util::runtime::Interrupted;
use tokio::sync::oneshot;

use super::{BlockManager, BlockRef, ReadBlockError, RequestContext};
use crate::{
    budget::Held,
    limits::{READ_AHEAD_MAX_BYTES, READ_AHEAD_MAX_COUNT},
};

/// The contents of blocks, in order; ends with the first error. Dropping it stops the reads under way.
pub struct BlockReader<E> {
    contents: Pin<Box<dyn Stream<Item = Result<Bytes, E>> + Send>>,
}

impl<E> Stream for BlockReader<E> {
    type Item = Result<Bytes, E>;
    fn poll_next(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<Option<Self::Item>> {
        self.contents.as_mut().poll_next(context)
    }
}

impl BlockManager {
    /// Streams the contents of `blocks`; the list may itself be still on its way.
    pub fn read<E: From<ReadBlockError> + Send + 'static>(
        &self,
        blocks: impl Stream<Item = Result<BlockRef, E>> + Send + 'static,
        context: RequestContext,
    ) -> BlockReader<E> {
        let ahead =
            Ahead { manager: self.clone(), context, source: Some(blocks.boxed()), next: None, fetching: VecDeque::new(), end: None };
        let contents = futures::stream::unfold(Some(ahead), |ahead| async move {
            let mut ahead = ahead?;
            match ahead.next_content().await? {
                Ok(content) => Some((Ok(content), Some(ahead))),
                Err(error) => Some((Err(error), None)),
            }
        });
        BlockReader { contents: Box::pin(contents) }
    }
}

/// One stream's place in its list.
struct Ahead<E> {
    manager: BlockManager,
    context: RequestContext,
    /// `None` once the list has ended.
    source: Option<BoxStream<'static, Result<BlockRef, E>>>,
    /// Taken from the list, not yet being read.
    next: Option<BlockRef>,
    fetching: VecDeque<Fetch>,
    /// What ended the list, if it was not its end; told after the blocks before it.
    end: Option<E>,
}

struct Fetch {
    len_bytes: usize,
    content: oneshot::Receiver<Result<Bytes, ReadBlockError>>,
    _held: Option<Held>,
}

impl<E: From<ReadBlockError> + Send + 'static> Ahead<E> {
    async fn next_content(&mut self) -> Option<Result<Bytes, E>> {
        loop {
            self.start_next();
            let wants_block = self.next.is_none() && self.source.is_some();
            if self.fetching.is_empty() && !wants_block {
                return self.end.take().map(Err);
            }
            // Both may be dropped: a list keeps its place between polls, and a receiver its content. The list comes first, so that
            // reading ahead starts before the client is served.
            tokio::select! {
                biased;
                item = next_of(&mut self.source), if wants_block => self.take(item),
                content = head_of(&mut self.fetching), if !self.fetching.is_empty() => {
                    self.fetching.pop_front();
                    return Some(content.map_err(E::from));
                }
            }
        }
    }

    fn take(&mut self, item: Option<Result<BlockRef, E>>) {
        match item {
            Some(Ok(block)) => self.next = Some(block),
            Some(Err(error)) => {
                self.end = Some(error);
                self.source = None;
            }
            None => self.source = None,
        }
    }

    /// Starts to read the next block if the client waits for it, or if there is room to read ahead.
    fn start_next(&mut self) {
        let Some(block) = self.next else { return };
        let len_bytes = block.len_bytes as usize;
        let mut held = None;
        if !self.fetching.is_empty() {
            let ahead_bytes: usize = self.fetching.iter().map(|fetch| fetch.len_bytes).sum();
            if READ_AHEAD_MAX_COUNT <= self.fetching.len() || READ_AHEAD_MAX_BYTES < ahead_bytes + len_bytes {
                return;
            }
            held = self.manager.0.read_ahead.try_hold(len_bytes);
            if held.is_none() {
                return;
            }
        }
        self.next = None;
        let (mut sender, content) = oneshot::channel();
        let (manager, context) = (self.manager.clone(), self.manager.block_context(self.context));
        self.manager.0.runtime.spawn("block read", async move {
            // A reader that is gone wants no content, and the read under way is cancelled.
            tokio::select! { biased; () = sender.closed() => {} got = manager.get(block, context) => drop(sender.send(got)) }
        });
        self.fetching.push_back(Fetch { len_bytes, content, _held: held });
    }
}

async fn next_of<E>(source: &mut Option<BoxStream<'static, Result<BlockRef, E>>>) -> Option<Result<BlockRef, E>> {
    match source {
        Some(source) => source.next().await,
        None => None,
    }
}

async fn head_of(fetching: &mut VecDeque<Fetch>) -> Result<Bytes, ReadBlockError> {
    match fetching.front_mut() {
        // The task ends without sending only when the node stops.
        Some(head) => (&mut head.content).await.unwrap_or(Err(Interrupted.into())),
        None => std::future::pending().await,
    }
}
