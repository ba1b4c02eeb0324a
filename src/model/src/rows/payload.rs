//! Where an object's content is: inline, in blocks, or in parts with blocks of their own. Written as companions of a version or part row.

use garage_block::manager::BlockRef;
use garage_rpc::register::WriteId;
use garage_table::message::Companion;
use garage_util::encoding::{DecodeError, Stored};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// Blocks in one companion chunk at the most.
pub const BLOCKS_PER_CHUNK: usize = 1024;
/// Parts in one companion chunk at the most.
pub const PARTS_PER_CHUNK: usize = 1024;
/// Blocks of the beginning that the first chunk of a parts list brings along, so that streaming starts at once.
pub const HEAD_BLOCKS: usize = 64;

/// A part of a completed upload.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PartRef {
    /// The id under which its own block list is kept.
    pub id: WriteId,
    /// As the client numbered it.
    pub part_number: u16,
    /// Length of its content.
    pub size_bytes: u64,
    /// Its checksum, if the upload has one.
    #[serde(default)]
    pub checksum: Option<super::checksum::StoredChecksum>,
}

/// One companion chunk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum PayloadChunk {
    /// The whole content.
    Inline(ByteBuf),
    /// A run of the block list.
    Blocks(Vec<BlockRef>),
    /// A run of the parts list; the first chunk also holds the first blocks of the content.
    Parts {
        /// The parts.
        parts: Vec<PartRef>,
        /// At most [`HEAD_BLOCKS`]; empty in all chunks but the first.
        head: Vec<BlockRef>,
    },
}

impl Stored for PayloadChunk {
    const WHAT: &'static str = "payload chunk";
}

/// A whole payload, before it is cut in chunks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Payload {
    /// The whole content.
    Inline(Vec<u8>),
    /// All blocks, in order.
    Blocks(Vec<BlockRef>),
    /// All parts, in order, and the first blocks of the content.
    Parts {
        /// The parts.
        parts: Vec<PartRef>,
        /// At most [`HEAD_BLOCKS`].
        head: Vec<BlockRef>,
    },
}

impl Payload {
    /// The companions that hold this payload for the row of `id`. At least one, so that an absent payload is never taken for an empty one.
    pub fn into_companions(self, id: WriteId) -> Vec<Companion> {
        let chunks: Vec<PayloadChunk> = match self {
            Payload::Inline(bytes) => vec![PayloadChunk::Inline(ByteBuf::from(bytes))],
            Payload::Blocks(blocks) if blocks.is_empty() => vec![PayloadChunk::Blocks(blocks)],
            Payload::Blocks(blocks) => blocks.chunks(BLOCKS_PER_CHUNK).map(|run| PayloadChunk::Blocks(run.to_vec())).collect(),
            Payload::Parts { parts, mut head } => {
                head.truncate(HEAD_BLOCKS);
                let runs = parts.chunks(PARTS_PER_CHUNK).map(<[PartRef]>::to_vec);
                runs.map(|parts| PayloadChunk::Parts { parts, head: std::mem::take(&mut head) }).collect()
            }
        };
        let numbered = chunks.into_iter().zip(0u32..);
        numbered.map(|(chunk, number)| Companion { id, chunk: number, content: ByteBuf::from(chunk.to_stored()) }).collect()
    }
}

/// Reads the chunk in a companion.
pub fn chunk_of(companion: &Companion) -> Result<PayloadChunk, DecodeError> {
    PayloadChunk::from_stored(&companion.content)
}

#[cfg(test)]
mod tests {
    use super::{BLOCKS_PER_CHUNK, BlockRef, Payload, PayloadChunk, chunk_of};

    #[test]
    fn a_long_block_list_is_cut_in_chunks_in_order() {
        let blocks: Vec<BlockRef> = (0..2500u32).map(|index| BlockRef { hash: Default::default(), len_bytes: index }).collect();
        let companions = Payload::Blocks(blocks.clone()).into_companions(Default::default());
        assert_eq!(companions.len(), 3);
        let mut joined = Vec::new();
        for companion in &companions {
            let PayloadChunk::Blocks(run) = chunk_of(companion).unwrap() else { panic!("blocks were stored") };
            assert!(run.len() <= BLOCKS_PER_CHUNK);
            joined.extend(run);
        }
        assert_eq!(joined, blocks);
    }

    #[test]
    fn an_empty_object_still_has_a_payload() {
        assert_eq!(Payload::Inline(Vec::new()).into_companions(Default::default()).len(), 1);
        assert_eq!(Payload::Blocks(Vec::new()).into_companions(Default::default()).len(), 1);
    }
}
