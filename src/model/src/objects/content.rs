//! Reading an object's content: the block list is walked just ahead of the blocks, the blocks are prefetched in order.

use std::{collections::VecDeque, ops::Range};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use garage_block::manager::BlockRef;
use garage_rpc::register::WriteId;
use garage_table::{Group, Tables, group::RequestContext};

use super::{FoundObject, Objects, put::block_context};
use crate::{
    encryption::{Opener, SEAL_BYTES},
    error::ModelError,
    rows::payload::{BLOCKS_PER_CHUNK, PartRef, PayloadChunk, chunk_of},
    upkeep::marks,
};

/// Chunks of a block list read at once.
const CHUNKS_AT_ONCE: u32 = 4;
/// Blocks decrypted ahead of the client, besides those that are fetched.
const OPENED_AT_ONCE: usize = 2;

impl Objects {
    /// The bytes of `range` of an object, verified, in order. An error ends the stream: what was sent before is good.
    pub fn read(
        &self,
        found: &FoundObject,
        range: Range<u64>,
        context: RequestContext,
    ) -> impl Stream<Item = Result<Bytes, ModelError>> + Send + use<> {
        let opener = self.keys.opener(found.meta.headers.encryption.as_ref());
        if let (Some(PayloadChunk::Inline(bytes)), Ok(None)) = (&found.first, &opener) {
            let bytes = clip(&Bytes::from(bytes.to_vec()), 0, &range);
            return stream::iter([Ok(bytes)]).left_stream();
        }
        let walk = self.walk(found, range.clone(), context);
        let first = found.first.clone();
        let this = self.clone();
        // A client may read for longer than the blocks of a version that was overwritten meanwhile are kept.
        let in_use = marks::mark_while_held(&self.tables, &found.group, found.entry.id);
        stream::once(async move {
            let opener = opener?;
            let mut walk = walk;
            match first {
                Some(chunk) => walk.take(0, chunk),
                None => walk.load().await?,
            }
            // Inline content that did not come with the row is in the walk's queue as bytes.
            Ok::<_, ModelError>(this.stream_walk(walk, range, opener, context))
        })
        .flat_map(|opened| match opened {
            Ok(bytes) => bytes.left_stream(),
            Err(error) => stream::iter([Err(error)]).right_stream(),
        })
        .inspect(move |_| {
            let _held_until_the_stream_ends = &in_use;
        })
        .right_stream()
    }

    /// The parts of an object that was uploaded in parts, in order; empty for any other.
    pub async fn parts(&self, found: &FoundObject, context: RequestContext) -> Result<Vec<PartRef>, ModelError> {
        let (mut all, mut next_chunk) = (Vec::new(), 0);
        if let Some(first) = found.first.clone() {
            let PayloadChunk::Parts { parts, .. } = first else { return Ok(all) };
            (all, next_chunk) = (parts, 1);
        }
        let part_count = found.meta.part_count.unwrap_or(0) as usize;
        while all.len() < part_count {
            let chunks = self.tables.companions(&found.group, found.entry.id, next_chunk, CHUNKS_AT_ONCE, self.step(context)).await?;
            if chunks.is_empty() {
                break;
            }
            for chunk in &chunks {
                let PayloadChunk::Parts { parts, .. } = chunk_of(chunk)? else { return Ok(Vec::new()) };
                all.extend(parts);
                next_chunk = chunk.chunk + 1;
            }
        }
        Ok(all)
    }

    /// All blocks of an object in order; none if its content is inline.
    pub async fn blocks_of(&self, found: &FoundObject, context: RequestContext) -> Result<Vec<BlockRef>, ModelError> {
        Ok(self.list_blocks(found, context).await?.unwrap_or_default())
    }

    /// All blocks of an object in order, or its inline bytes.
    pub(super) async fn list_blocks(
        &self,
        found: &FoundObject,
        context: RequestContext,
    ) -> Result<Result<Vec<BlockRef>, Vec<u8>>, ModelError> {
        let mut walk = self.walk(found, 0..found.meta.size_bytes, context);
        match found.first.clone() {
            Some(chunk) => walk.take(0, chunk),
            None => walk.load().await?,
        }
        if let Some(Piece::Inline(_, bytes)) = walk.ready.front() {
            return Ok(Err(bytes.to_vec()));
        }
        let mut blocks = Vec::new();
        while let Some((_, block)) = walk.next_block().await? {
            blocks.push(block);
        }
        Ok(Ok(blocks))
    }

    fn walk(&self, found: &FoundObject, range: Range<u64>, context: RequestContext) -> Walk {
        Walk {
            tables: self.tables.clone(),
            group: found.group.clone(),
            context,
            range,
            position: 0,
            listed_end: 0,
            overhead_bytes: if found.meta.headers.encryption.is_some() { SEAL_BYTES as u64 } else { 0 },
            lists: VecDeque::from([List { id: found.entry.id, next_chunk: 0, end: found.meta.size_bytes }]),
            ready: VecDeque::new(),
        }
    }

    fn stream_walk(
        &self,
        walk: Walk,
        range: Range<u64>,
        opener: Option<Opener>,
        context: RequestContext,
    ) -> impl Stream<Item = Result<Bytes, ModelError>> + Send + use<> {
        if let Some(Piece::Inline(unit, bytes)) = walk.ready.front() {
            let (unit, bytes) = (*unit, bytes.clone());
            return stream::once(async move { Ok(clip(&opened(opener.as_ref(), unit, 0, bytes).await?, 0, &range)) }).left_stream();
        }
        // Where each block begins and belongs travels beside it: the first and the last may reach past the range.
        let places = std::sync::Arc::new(parking_lot::Mutex::new(VecDeque::new()));
        let told = places.clone();
        let refs = stream::unfold(Some(walk), move |walk| {
            let told = told.clone();
            async move {
                let mut walk = walk?;
                match walk.next_block().await {
                    Ok(Some((place, block))) => {
                        told.lock().push_back(place);
                        Some((Ok(block), Some(walk)))
                    }
                    Ok(None) => None,
                    Err(error) => Some((Err(error), None)),
                }
            }
        });
        let blocks = self.blocks.read::<ModelError>(refs, block_context(context));
        blocks
            .map(move |content| {
                let place: Option<Place> = content.is_ok().then(|| places.lock().pop_front()).flatten();
                let (opener, range) = (opener.clone(), range.clone());
                async move {
                    let (content, place) = (content?, place.expect("the place of a block is queued before the block is fetched"));
                    Ok(clip(&opened(opener.as_ref(), place.unit, place.index, content).await?, place.start, &range))
                }
            })
            .buffered(OPENED_AT_ONCE)
            .right_stream()
    }
}

/// The content of a block or row, as its writer gave it.
async fn opened(opener: Option<&Opener>, unit: WriteId, index: u64, stored: Bytes) -> Result<Bytes, ModelError> {
    match opener {
        Some(opener) => opener.open(unit, index, stored).await,
        None => Ok(stored),
    }
}

/// The part of `bytes`, which begin at `start`, that lies in `range`.
fn clip(bytes: &Bytes, start: u64, range: &Range<u64>) -> Bytes {
    let len_bytes = bytes.len() as u64;
    let from = range.start.saturating_sub(start).min(len_bytes);
    let to = range.end.saturating_sub(start).min(len_bytes).max(from);
    bytes.slice(from as usize..to as usize)
}

/// A block list to be read: of the object, or of one of its parts.
struct List {
    id: WriteId,
    next_chunk: u32,
    /// Where the content that it lists ends.
    end: u64,
}

/// Where a block belongs.
#[derive(Clone, Copy)]
struct Place {
    /// Where its content begins in the object's.
    start: u64,
    /// The version or part whose list names it.
    unit: WriteId,
    /// Which of that list's blocks it is.
    index: u64,
}

enum Piece {
    Block { place: Place, block: BlockRef },
    Part { start: u64, part: PartRef },
    Inline(WriteId, Bytes),
}

/// Walks an object's lists in order and gives the blocks that touch the range.
struct Walk {
    tables: Tables,
    group: Group,
    context: RequestContext,
    range: Range<u64>,
    /// Where the next listed block of the list being read begins.
    position: u64,
    /// Blocks before this were given already, from the head of a parts list.
    listed_end: u64,
    /// What a stored block is longer than its content.
    overhead_bytes: u64,
    /// The list being read is the last; those before wait for it.
    lists: VecDeque<List>,
    ready: VecDeque<Piece>,
}

impl Walk {
    async fn next_block(&mut self) -> Result<Option<(Place, BlockRef)>, ModelError> {
        loop {
            match self.ready.pop_front() {
                Some(Piece::Block { place, block }) => {
                    if self.range.end <= place.start {
                        return Ok(None);
                    }
                    return Ok(Some((place, block)));
                }
                Some(Piece::Part { start, part }) => {
                    self.position = start;
                    self.lists.push_back(List { id: part.id, next_chunk: 0, end: start + part.size_bytes });
                    self.read_part().await?;
                }
                Some(Piece::Inline(..)) => {}
                None if self.is_listed() || self.range.end <= self.position => return Ok(None),
                None => self.load().await?,
            }
        }
    }

    /// Whether the list being read was read to its end.
    fn is_listed(&self) -> bool {
        self.lists.back().is_none_or(|list| list.end <= self.position)
    }

    /// Puts the blocks of the part whose list was just opened in front of what is ready.
    async fn read_part(&mut self) -> Result<(), ModelError> {
        let later = std::mem::take(&mut self.ready);
        while !self.is_listed() {
            self.load().await?;
        }
        self.lists.pop_back();
        self.ready.extend(later);
        Ok(())
    }

    /// Reads the next chunks of the list being read.
    async fn load(&mut self) -> Result<(), ModelError> {
        let Some(list) = self.lists.back() else { return Ok(()) };
        let (id, from) = (list.id, list.next_chunk);
        let limit = if from == 0 { 1 } else { CHUNKS_AT_ONCE };
        let context =
            RequestContext { deadline: self.context.deadline.min(tokio::time::Instant::now() + super::STEP_TIMEOUT), ..self.context };
        let chunks = self.tables.companions(&self.group, id, from, limit, context).await?;
        for chunk in &chunks {
            self.take(chunk.chunk, chunk_of(chunk)?);
        }
        Ok(())
    }

    fn take(&mut self, number: u32, chunk: PayloadChunk) {
        let Some(list) = self.lists.back_mut() else { return };
        list.next_chunk = number + 1;
        let unit = list.id;
        match chunk {
            PayloadChunk::Inline(bytes) => {
                self.position = list.end;
                self.ready.push_back(Piece::Inline(unit, Bytes::from(bytes.into_vec())));
            }
            PayloadChunk::Blocks(blocks) => {
                let first = u64::from(number) * BLOCKS_PER_CHUNK as u64;
                (first..).zip(blocks).for_each(|(index, block)| self.push_block(unit, index, block));
            }
            PayloadChunk::Parts { parts, head } => {
                // The head is the beginning of the first part.
                if let Some(first) = parts.first().filter(|_| !head.is_empty()) {
                    let (start, unit) = (self.position, first.id);
                    (0..).zip(head).for_each(|(index, block)| self.push_block(unit, index, block));
                    self.listed_end = self.position;
                    self.position = start;
                }
                for part in parts {
                    let (start, end) = (self.position, self.position + part.size_bytes);
                    self.position = end;
                    if self.range.start < end && start < self.range.end && self.listed_end < end {
                        self.ready.push_back(Piece::Part { start, part });
                    }
                }
            }
        }
    }

    fn push_block(&mut self, unit: WriteId, index: u64, block: BlockRef) {
        let len_bytes = u64::from(block.len_bytes).saturating_sub(self.overhead_bytes);
        let (start, end) = (self.position, self.position + len_bytes);
        self.position = end;
        if self.range.start < end && start < self.range.end && self.listed_end <= start {
            self.ready.push_back(Piece::Block { place: Place { start, unit, index }, block });
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::clip;

    #[test]
    fn a_piece_is_cut_to_the_range() {
        let bytes = Bytes::from_static(b"0123456789");
        for (start, range, expected) in [
            (0, 0..10, "0123456789"),
            (0, 3..5, "34"),
            (100, 103..105, "34"),
            (100, 0..103, "012"),
            (100, 108..200, "89"),
            (100, 0..50, ""),
            (0, 20..30, ""),
        ] {
            assert_eq!(clip(&bytes, start, &range), expected, "{start} {range:?}");
        }
    }
}
