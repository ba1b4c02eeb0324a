//! What an operator is told about a block: who needs it, and whether they live.

use garage_block::{
    BlockHash,
    leases::{Liveness, Question, Verdict},
    reference::{ReferenceRow, ReferenceState},
    resync::QueueError,
    store::WalkPosition,
};
use garage_rpc::register::WriteId;
use garage_table::{Tables, key::split_escaped};
use garage_util::{encoding::Stored, id::to_hex};

use super::liveness::RowLiveness;
use crate::{
    node::Node,
    rows::{BucketId, owner::RowOwner, upload::UploadId},
};

/// Blocks that a prefix may match before it is called ambiguous.
const MATCHES_MAX_COUNT: usize = 16;

/// Whose a reference is, as far as it says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Backlink {
    /// A version of an object.
    Object {
        /// The bucket.
        bucket: BucketId,
        /// The object key.
        key: String,
    },
    /// A part of an upload.
    Upload {
        /// The upload.
        upload: UploadId,
        /// The bucket.
        bucket: BucketId,
        /// The object key.
        key: String,
    },
}

/// A reference to a block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockUse {
    /// The version or part.
    pub version: WriteId,
    /// How much is known of it here.
    pub state: ReferenceState,
    /// What the cluster says of it now.
    pub verdict: Verdict,
    /// Whose it is; `None` in references of older releases.
    pub backlink: Option<Backlink>,
}

/// Whose a reference row is; `None`: it does not say, or says nonsense.
pub fn backlink_of(row: &ReferenceRow) -> Option<Backlink> {
    let bucket = BucketId(row.group.get(..32)?.try_into().ok()?);
    let text = |key: Vec<u8>| String::from_utf8(key).ok();
    match RowOwner::from_stored(&row.owner).ok()? {
        RowOwner::Version(sort_key) => Some(Backlink::Object { bucket, key: text(split_escaped(&sort_key)?.0)? }),
        RowOwner::Part { upload, .. } => {
            let (key, id) = split_escaped(&upload)?;
            Some(Backlink::Upload { upload: UploadId(id.try_into().ok()?), bucket, key: text(key)? })
        }
    }
}

/// The references to a block on this node, each with the cluster's verdict on its version.
pub async fn uses_of(node: &Node, tables: &Tables, hash: BlockHash) -> Result<Vec<BlockUse>, garage_table::schema::StoreError> {
    let rows = node.blocks.service().references().of(hash).await?;
    let liveness = RowLiveness::new(tables.clone());
    let mut uses = Vec::with_capacity(rows.len());
    for (version, row) in rows {
        let is_dropped = row.state == ReferenceState::Dropped;
        let question = Question { version, owner: row.owner.clone(), stamp: row.stamp, was_seen: true };
        let verdict = if is_dropped {
            Verdict::Dead
        } else {
            liveness.ask(row.group.to_vec(), vec![question]).await.pop().unwrap_or(Verdict::Unknown)
        };
        uses.push(BlockUse { version: WriteId(version), state: row.state, verdict, backlink: backlink_of(&row) });
    }
    Ok(uses)
}

/// The blocks with a file or a queue entry on this node whose hashes begin with these hexadecimal digits, four at least.
pub async fn matching(node: &Node, prefix: &str) -> Result<Vec<BlockHash>, QueueError> {
    if let Ok(hash) = prefix.parse::<BlockHash>() {
        return Ok(vec![hash]);
    }
    let Some(position) = prefix.get(..4).and_then(|digits| u16::from_str_radix(digits, 16).ok()) else { return Ok(Vec::new()) };
    let walked = node.blocks.service().store().walk(WalkPosition(position)).await.map_err(|error| QueueError::Read(error.to_string()))?;
    let mut found = walked.filter(|step| step.position.0 == position).map(|step| step.hashes).unwrap_or_default();
    let mut first = [0; 32];
    first[..2].copy_from_slice(&position.to_be_bytes());
    let mut after = BlockHash(first);
    'queue: loop {
        let batch = node.resync.queue().after(Some(after), garage_block::limits::QUEUE_SCAN_COUNT).await?;
        let Some((last, _)) = batch.last() else { break };
        after = *last;
        for (hash, _) in batch {
            if hash.0[..2] != first[..2] {
                break 'queue;
            }
            found.push(hash);
        }
    }
    let wanted = prefix.to_lowercase();
    found.retain(|hash| to_hex(&hash.0).starts_with(&wanted));
    found.sort_unstable();
    found.dedup();
    found.truncate(MATCHES_MAX_COUNT);
    Ok(found)
}
