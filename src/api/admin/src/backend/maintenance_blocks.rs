//! Blocks of this node: those that could not be resynced, who needs one, giving one up.

use garage_block::{BlockHash, leases::Verdict, reference::ReferenceState};
use garage_model::{
    RequestContext,
    upkeep::{
        block_info::{self, Backlink, BlockUse},
        purge,
    },
};

use super::{AdminApi, failure::internal};
use crate::{
    AdminError, ErrorCode,
    limits::BLOCK_ERRORS_MAX,
    types::{BlockBacklink, BlockError, BlockInfo, BlockVersion, PurgeResult, RetriedBlocks, RetryBlocks},
};

/// Digits that a prefix of a block's hash has at the least.
const PREFIX_DIGITS_MIN: usize = 4;

impl AdminApi {
    pub(super) async fn list_block_errors(&self) -> Result<Vec<BlockError>, AdminError> {
        let now_ms = self.node.cluster.runtime().now_ms();
        let mut errors = Vec::new();
        for (hash, entry) in self.node.resync.errored(BLOCK_ERRORS_MAX).await.map_err(internal)? {
            errors.push(BlockError {
                block_hash: hash.to_string(),
                refcount: self.refcount(hash).await?,
                error_count: u64::from(entry.failed_count),
                last_try_secs_ago: now_ms.saturating_sub(entry.last_try_ms) / 1_000,
                next_try_in_secs: entry.due_ms.saturating_sub(now_ms) / 1_000,
            });
        }
        Ok(errors)
    }

    async fn refcount(&self, hash: BlockHash) -> Result<u64, AdminError> {
        let rows = self.node.blocks.service().references().of(hash).await.map_err(internal)?;
        Ok(rows.iter().filter(|(_, row)| row.state != ReferenceState::Dropped).count() as u64)
    }

    pub(super) async fn block_info(&self, prefix: String) -> Result<BlockInfo, AdminError> {
        if prefix.len() < PREFIX_DIGITS_MIN || !prefix.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(AdminError::invalid(format!("a block is named by {PREFIX_DIGITS_MIN} hexadecimal digits or more, not {prefix:?}")));
        }
        let found = block_info::matching(&self.node, &prefix).await.map_err(internal)?;
        let hash = match found[..] {
            [hash] => hash,
            [] => return Err(no_such_block(&prefix)),
            _ => return Err(AdminError::invalid(format!("{} blocks match '{prefix}'", found.len()))),
        };
        let uses = block_info::uses_of(&self.node, self.node.objects.tables(), hash).await.map_err(internal)?;
        let is_here = self.node.blocks.service().store().stored_len_bytes(hash).await.map_err(internal)?.is_some();
        if uses.is_empty() && !is_here {
            return Err(no_such_block(&prefix));
        }
        let refcount = uses.iter().filter(|used| used.state != ReferenceState::Dropped).count() as u64;
        Ok(BlockInfo { block_hash: hash.to_string(), refcount, versions: uses.into_iter().map(version_view).collect() })
    }

    pub(super) async fn retry_blocks(&self, which: RetryBlocks) -> Result<RetriedBlocks, AdminError> {
        let errored = self.node.resync.errored(usize::MAX).await.map_err(internal)?;
        let errored: Vec<BlockHash> = errored.into_iter().map(|(hash, _)| hash).collect();
        let wanted = match which {
            RetryBlocks::All { all: true } => errored,
            RetryBlocks::All { all: false } => return Err(AdminError::invalid("all must be true; or name blocks by their full hashes")),
            RetryBlocks::These { block_hashes } => {
                let wanted = full_hashes(&block_hashes)?;
                if let Some(other) = wanted.iter().find(|hash| !errored.contains(hash)) {
                    return Err(AdminError::internal(format!("block {other} has no resync error on this node")));
                }
                wanted
            }
        };
        let count = wanted.len() as u64;
        self.node.resync.look_at(wanted).await.map_err(internal)?;
        Ok(RetriedBlocks { count })
    }

    pub(super) async fn purge_blocks(&self, hashes: Vec<String>, context: RequestContext) -> Result<PurgeResult, AdminError> {
        let mut result =
            PurgeResult { blocks_purged: 0, objects_deleted: 0, uploads_deleted: 0, versions_deleted: 0, block_refs_purged: 0 };
        for hash in full_hashes(&hashes)? {
            let purged = purge::purge(&self.node, hash, context).await?;
            result.blocks_purged += 1;
            result.objects_deleted += purged.objects_count;
            result.uploads_deleted += purged.uploads_count;
            result.versions_deleted += purged.versions_count;
            result.block_refs_purged += purged.references_count;
        }
        Ok(result)
    }
}

fn no_such_block(prefix: &str) -> AdminError {
    AdminError::new(ErrorCode::NoSuchBlock, format!("this node knows no block {prefix}"))
}

fn full_hashes(texts: &[String]) -> Result<Vec<BlockHash>, AdminError> {
    let parse = |text: &String| text.parse().map_err(|_| AdminError::invalid(format!("{text:?} is not a full block hash: 64 digits")));
    texts.iter().map(parse).collect()
}

fn version_view(used: BlockUse) -> BlockVersion {
    let is_dead = used.verdict == Verdict::Dead;
    BlockVersion {
        version_id: used.version.to_string(),
        ref_deleted: used.state == ReferenceState::Dropped,
        version_deleted: is_dead,
        garbage_collected: is_dead && used.state == ReferenceState::Dropped,
        backlink: used.backlink.map(|backlink| match backlink {
            Backlink::Object { bucket, key } => BlockBacklink::Object { bucket_id: bucket.to_string(), key },
            Backlink::Upload { upload, bucket, key } => BlockBacklink::Upload {
                upload_id: upload.to_string(),
                upload_deleted: is_dead,
                upload_garbage_collected: false,
                bucket_id: Some(bucket.to_string()),
                key: Some(key),
            },
        }),
    }
}
