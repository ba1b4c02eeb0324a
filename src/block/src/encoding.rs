//! A block as it is stored and sent: plain, or one zstd frame where that is smaller.
//!
//! The coordinator compresses, once, and all nodes store what it sent: the mesh carries fewer bytes, and the work is done once rather
//! than on each replica. A node takes either form whatever its own level is, since the level is no part of the format.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{hash::BlockHash, limits::BLOCK_LEN_MAX_BYTES};

/// How a block's bytes are kept. New ones may be added at the end; a node refuses one that it does not know.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Encoding {
    /// As they are.
    Plain,
    /// One zstd frame that names its content's length.
    Zstd,
}

/// Whether a block may be compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compression {
    /// Never: the bytes are encrypted (nothing to gain), or the config says so.
    Never,
    /// At this zstd level, if the result is smaller by a sixteenth or more; reading pays for less than that.
    WherePays(i32),
}

impl Compression {
    /// What a configured `compression_level` asks for; `None` is "none".
    pub fn from_level(level: Option<i32>) -> Compression {
        level.map_or(Compression::Never, Compression::WherePays)
    }
}

/// A block in its stored form.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EncodedBlock {
    /// The form.
    pub encoding: Encoding,
    /// The bytes in that form.
    pub bytes: Bytes,
}

/// The bytes are not those of the block they are said to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CorruptBlock {
    /// They hash to something else.
    #[error("block {hash}: the bytes hash to {found}")]
    OtherContent {
        /// The block asked for.
        hash: BlockHash,
        /// What the bytes are.
        found: BlockHash,
    },
    /// They are no zstd frame, or not a whole one.
    #[error("block {hash}: not a sound zstd frame ({reason})")]
    BadFrame {
        /// The block asked for.
        hash: BlockHash,
        /// The decoder's sentence.
        reason: String,
    },
}

impl EncodedBlock {
    /// A block that is not compressed.
    pub fn plain(bytes: Bytes) -> EncodedBlock {
        EncodedBlock { encoding: Encoding::Plain, bytes }
    }

    /// The stored form of a block's content. Computes: run it in `Lane::Compute`.
    pub fn encode(content: Bytes, compression: Compression) -> EncodedBlock {
        let Compression::WherePays(level) = compression else { return EncodedBlock::plain(content) };
        // A level zstd has no meaning for is taken to the nearest that it has, as the config has always allowed.
        let levels = zstd::compression_level_range();
        match zstd::bulk::compress(&content, level.clamp(*levels.start(), *levels.end())) {
            Ok(frame) if frame.len() + frame.len() / 16 < content.len() => EncodedBlock { encoding: Encoding::Zstd, bytes: frame.into() },
            // Out of memory for a high level is no reason to fail a write.
            Ok(_) | Err(_) => EncodedBlock::plain(content),
        }
    }

    /// The content, checked against the hash. Computes: run it in `Lane::Compute`.
    ///
    /// Memory is bounded by `BLOCK_LEN_MAX_BYTES` whatever a frame claims.
    pub fn decode(&self, hash: BlockHash) -> Result<Bytes, CorruptBlock> {
        let content = match self.encoding {
            Encoding::Plain => self.bytes.clone(),
            Encoding::Zstd => self.unframe().map_err(|reason| CorruptBlock::BadFrame { hash, reason })?,
        };
        let found = BlockHash::of(&content);
        if found == hash { Ok(content) } else { Err(CorruptBlock::OtherContent { hash, found }) }
    }

    fn unframe(&self) -> Result<Bytes, String> {
        let claimed_bytes = zstd::zstd_safe::get_frame_content_size(&self.bytes).map_err(|error| error.to_string())?;
        let len_bytes = claimed_bytes.ok_or("the frame does not name its length")?;
        if (BLOCK_LEN_MAX_BYTES as u64) < len_bytes {
            return Err(format!("it claims {len_bytes} bytes, a block has at most {BLOCK_LEN_MAX_BYTES}"));
        }
        zstd::bulk::decompress(&self.bytes, len_bytes as usize).map(Bytes::from).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::{Compression, CorruptBlock, EncodedBlock, Encoding};
    use crate::hash::BlockHash;

    proptest! {
        #[test]
        fn any_content_survives_any_level(content: Vec<u8>, repeat in 1usize..50, level in -100i32..25) {
            let content = Bytes::from(content.repeat(repeat));
            let hash = BlockHash::of(&content);
            let encoded = EncodedBlock::encode(content.clone(), Compression::WherePays(level.min(6)));
            prop_assert!(encoded.bytes.len() <= content.len());
            prop_assert_eq!(encoded.decode(hash).unwrap(), content);
        }

        #[test]
        fn a_changed_byte_never_passes(mut content in prop::collection::vec(0u8..4, 64..4096), at: prop::sample::Index, compress: bool) {
            content.sort_unstable();
            let hash = BlockHash::of(&content);
            let encoded = EncodedBlock::encode(content.into(), if compress { Compression::WherePays(1) } else { Compression::Never });
            let mut bytes = encoded.bytes.to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 0x10;
            // A frame has bits that change nothing of its content; what must hold is that no other content passes.
            if let Ok(decoded) = (EncodedBlock { encoding: encoded.encoding, bytes: bytes.into() }).decode(hash) {
                prop_assert_eq!(BlockHash::of(&decoded), hash);
            }
        }
    }

    #[test]
    fn compression_is_kept_only_where_it_pays() {
        let even = Bytes::from(vec![7; 1 << 16]);
        assert_eq!(EncodedBlock::encode(even.clone(), Compression::WherePays(1)).encoding, Encoding::Zstd);
        assert_eq!(EncodedBlock::encode(even, Compression::Never).encoding, Encoding::Plain);
        let mixed: Bytes = (0u32..1 << 11).flat_map(|index| *blake3::hash(&index.to_le_bytes()).as_bytes()).collect();
        assert_eq!(EncodedBlock::encode(mixed, Compression::WherePays(19)).encoding, Encoding::Plain);
    }

    #[test]
    fn a_frame_that_claims_a_giant_is_refused_before_memory_is_taken() {
        // Magic number, a descriptor with an 8-byte content size and a window, and the size.
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0xc0, 0x00];
        frame.extend_from_slice(&(1u64 << 60).to_le_bytes());
        let block = EncodedBlock { encoding: Encoding::Zstd, bytes: frame.into() };
        assert!(matches!(block.decode(BlockHash::default()), Err(CorruptBlock::BadFrame { reason, .. }) if reason.contains("claims")));
    }
}
