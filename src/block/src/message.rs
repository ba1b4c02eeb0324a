//! What nodes ask of each other about blocks.

use garage_net::Class;
use garage_rpc::{Access, Message, StoreMark};
use serde::{Deserialize, Serialize};

use crate::{encoding::Encoding, hash::BlockHash, reference::Reference};

/// Machine codes of refusals that the block service gives.
pub mod code {
    /// No data directory, or the metadata store, has room.
    pub const STORAGE_FULL: &str = "StorageFull";
    /// There is no good copy on the node.
    pub const MISSING: &str = "BlockMissing";
    /// The bytes that came are not those of the block.
    pub const CORRUPT: &str = "BlockCorrupt";
    /// The node has too much to do; another replica may have less.
    pub const BUSY: &str = "BlockBusy";
    /// The node's disk or store failed.
    pub const FAILED: &str = "BlockStoreFailed";
}

/// Store a block with a reference to it; the body is the block as encoded. Both are durable when it is answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PutBlock {
    /// Who needs the block.
    pub reference: Reference,
    /// How the body is encoded.
    pub encoding: Encoding,
    /// Length of the body, in bytes.
    pub len_bytes: u32,
}

impl Message for PutBlock {
    const KIND: &'static str = "block/put";
    const CLASS: Class = Class::Data;
    const ACCESS: Access = Access::FormerMember;
    type Answer = StoreMark;
}

/// Send a block; the answer's body is the block as encoded, which the asker checks.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct GetBlock {
    /// Which.
    pub hash: BlockHash,
    /// Length of its content, in bytes; the encoded form is never longer.
    pub len_bytes: u32,
}

/// What precedes the bytes of a block.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct BlockHeader {
    /// How the body is encoded.
    pub encoding: Encoding,
    /// Length of the body, in bytes.
    pub len_bytes: u32,
}

impl Message for GetBlock {
    const KIND: &'static str = "block/get";
    const CLASS: Class = Class::Data;
    type Answer = BlockHeader;
}

/// Add references to blocks that should be here already, for a copy of an object.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AddReferences {
    /// At most `REFERENCES_PER_CALL_MAX_COUNT`.
    pub references: Vec<Reference>,
}

/// Which references were not added.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReferencesAdded {
    /// How far the node's store is durable.
    pub mark: StoreMark,
    /// Blocks that are not on the node's disks, sorted. They got no reference; send them as data.
    pub missing: Vec<BlockHash>,
}

impl Message for AddReferences {
    const KIND: &'static str = "block/add-references";
    const CLASS: Class = Class::Metadata;
    type Answer = ReferencesAdded;
}

/// Look at your copy of a block: a reader got bad bytes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct CheckBlock {
    /// Which.
    pub hash: BlockHash,
}

/// What a check of a copy found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum CopyState {
    /// It is good; the bytes went bad on the way, or the reader is wrong.
    Good,
    /// There is none.
    Missing,
    /// It was bad, and is set aside and queued to be fetched again.
    SetAside,
}

impl Message for CheckBlock {
    const KIND: &'static str = "block/check";
    const CLASS: Class = Class::Background;
    type Answer = CopyState;
}

/// What do you know of these blocks?
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AskBlocks {
    /// At most `BLOCKS_PER_ASK_MAX_COUNT`.
    pub hashes: Vec<BlockHash>,
}

/// What a node knows of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BlockKnown {
    /// Length of its file there, in bytes; `None`: there is none.
    pub stored_len_bytes: Option<u64>,
    /// Whether a reference there needs it.
    pub is_needed: bool,
}

/// In the order asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BlocksKnown {
    /// One for each block asked about.
    pub blocks: Vec<BlockKnown>,
}

impl Message for AskBlocks {
    const KIND: &'static str = "block/ask";
    const CLASS: Class = Class::Background;
    const ACCESS: Access = Access::FormerMember;
    type Answer = BlocksKnown;
}

/// Ask whether the versions behind these references still live: a replica of their group saw them superseded a while ago.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HintReferences {
    /// Block and version of each, at most `REFERENCES_PER_CALL_MAX_COUNT`.
    pub references: Vec<(BlockHash, VersionBytes)>,
}

/// A version's id in messages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct VersionBytes(#[serde(with = "serde_bytes")] pub [u8; 32]);

impl Message for HintReferences {
    const KIND: &'static str = "block/hint-references";
    const CLASS: Class = Class::Background;
    type Answer = StoreMark;
}
