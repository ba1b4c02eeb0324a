//! Copying inside the cluster: references instead of bytes.

use futures::{StreamExt, TryStreamExt, stream};
use garage_block::{manager::BlockRef, reference::Reference};
use garage_rpc::register::WriteId;
use garage_table::{Group, group::RequestContext};
use garage_util::{encoding::Stored, hlc::Stamp, id::to_hex};
use serde_bytes::ByteBuf;

use super::{
    BucketRef, FoundObject, Objects, WriteCondition,
    put::{StoredObject, block_context, clock_failed},
};
use crate::{
    body::{BodyDigests, BodyFailure},
    error::{ClientError, ModelError},
    rows::{
        object::{ObjectHeaders, ObjectMeta, null_slot},
        owner::RowOwner,
        payload::Payload,
    },
};

/// What a copy is made from.
pub struct CopySource<'a> {
    /// As read by [`Objects::get`].
    pub found: &'a FoundObject,
}

impl Objects {
    /// Copies an object found before to `key`; its blocks are shared. The ETag is the source's.
    #[allow(clippy::too_many_arguments)]
    pub async fn copy(
        &self,
        source: CopySource<'_>,
        bucket: &BucketRef,
        key: &str,
        headers: ObjectHeaders,
        condition: &WriteCondition,
        context: RequestContext,
    ) -> Result<StoredObject, ModelError> {
        self.copy_recomputed(source, None, bucket, key, headers, condition, context).await
    }

    /// The same; what was computed anew over the source's content becomes the copy's ETag and checksum. For sources whose checksum is over
    /// their parts: the copy has no parts.
    #[allow(clippy::too_many_arguments)]
    pub async fn copy_recomputed(
        &self,
        source: CopySource<'_>,
        recomputed: Option<BodyDigests>,
        bucket: &BucketRef,
        key: &str,
        headers: ObjectHeaders,
        condition: &WriteCondition,
        context: RequestContext,
    ) -> Result<StoredObject, ModelError> {
        // A sealed block opens only in its own place: the content of such an object is written anew, by [`Objects::put`].
        if source.found.meta.headers.encryption.is_some() || headers.encryption.is_some() {
            return Err(ClientError::KeyNeeded.into());
        }
        self.check_quota(bucket, source.found.meta.size_bytes, context).await?;
        let version = self.new_version_id();
        let group = bucket.group_of(key);
        let owner = RowOwner::version(&null_slot(key));
        let payload = self.share_content(source.found, 0..source.found.meta.size_bytes, version, &group, &owner, context).await?;
        let mut meta = ObjectMeta { modified_ms: self.now_ms(), headers, part_count: None, ..source.found.meta.clone() };
        if let Some(digests) = recomputed {
            (meta.etag, meta.checksum) = (to_hex(&digests.md5), digests.checksum);
        }
        self.commit(bucket, key, version, meta, payload, condition, context).await
    }

    /// The payload of a new version with the content of an existing object: inline bytes copied, blocks referred to.
    async fn share_content(
        &self,
        found: &FoundObject,
        range: std::ops::Range<u64>,
        id: WriteId,
        group: &Group,
        owner: &RowOwner,
        context: RequestContext,
    ) -> Result<Payload, ModelError> {
        let blocks = match self.list_blocks(found, context).await? {
            Ok(blocks) => blocks,
            Err(inline) => return Ok(Payload::Inline(inline[range.start as usize..range.end as usize].to_vec())),
        };
        let stamp = self.tables.cluster().tick(Stamp::ZERO).await.map_err(clock_failed)?;
        let reference = |block: &BlockRef| Reference {
            block: block.hash,
            version: *id.as_bytes(),
            group: ByteBuf::from(group.key().0.clone()),
            stamp,
            owner: ByteBuf::from(owner.to_stored()),
        };
        let mut references: Vec<Reference> = blocks.iter().map(reference).collect();
        references.sort_by_key(|reference| reference.block);
        references.dedup_by_key(|reference| reference.block);
        let missing = self.blocks.add_references(references, block_context(context)).await?;
        self.send_missing(&blocks, &missing, &reference, context).await?;
        Ok(Payload::Blocks(blocks))
    }

    /// Blocks that too few of their nodes have on disk travel as data.
    async fn send_missing(
        &self,
        blocks: &[BlockRef],
        missing: &[garage_block::BlockHash],
        reference: &impl Fn(&BlockRef) -> Reference,
        context: RequestContext,
    ) -> Result<(), ModelError> {
        for hash in missing {
            let Some(block) = blocks.iter().find(|block| block.hash == *hash) else { continue };
            let content = self.blocks.get(*block, block_context(context)).await?;
            self.blocks.put(content, reference(block), self.blocks.options().compression, block_context(context)).await?;
        }
        Ok(())
    }

    /// Bytes of a range as a body, for copies that cut blocks.
    pub fn read_as_body(
        &self,
        found: &FoundObject,
        range: std::ops::Range<u64>,
        context: RequestContext,
    ) -> impl stream::Stream<Item = Result<bytes::Bytes, BodyFailure>> + Send + use<> {
        self.read(found, range, context).map_err(|error| BodyFailure(Box::new(error))).boxed()
    }
}
