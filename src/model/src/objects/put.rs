//! Storing an object: small ones inline with their row, larger ones as blocks first. What becomes visible comes last.

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use garage_block::manager::WriteOptions;
use garage_rpc::register::WriteId;
use garage_table::{
    Group,
    group::{RegisterWrite, RequestContext, RowTest, SharedWrite},
    message::HeldRow,
};
use garage_util::{encoding::Stored, hlc::Stamp, id::to_hex};

use super::{BucketRef, Objects, WriteCondition};
use crate::{
    body::{BodyDigests, BodyFailure, ObjectBody},
    error::{ClientError, ModelError},
    limits::SINGLE_PUT_MAX_BYTES,
    rows::{
        VERSION,
        checksum::StoredChecksum,
        object::{ObjectHeaders, ObjectMeta, VersionRow, null_slot},
        payload::Payload,
    },
};

/// What a stored object is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredObject {
    /// The version's id.
    pub version: WriteId,
    /// Without quotes.
    pub etag: String,
    /// Length of its content.
    pub size_bytes: u64,
    /// In milliseconds since 1970.
    pub modified_ms: u64,
    /// Given by the client or computed.
    pub checksum: Option<StoredChecksum>,
}

impl Objects {
    /// Stores `body` under `key`. Nothing becomes visible unless the whole body was verified and the condition holds.
    pub async fn put(
        &self,
        bucket: &BucketRef,
        key: &str,
        headers: ObjectHeaders,
        mut body: Box<dyn ObjectBody>,
        condition: &WriteCondition,
        context: RequestContext,
    ) -> Result<StoredObject, ModelError> {
        self.check_size(body.size_hint_bytes())?;
        self.check_quota(bucket, body.size_hint_bytes().unwrap_or(0), context).await?;
        let version = WriteId::random(self.tables.cluster().runtime());
        let group = bucket.group_of(key);
        let (payload, digests) = self.store_content(version, &group, &mut *body, self.inline_max_bytes, context).await?;
        let meta = ObjectMeta {
            size_bytes: digests.size_bytes,
            etag: to_hex(&digests.md5),
            modified_ms: self.now_ms(),
            headers,
            checksum: digests.checksum,
            part_count: None,
        };
        self.commit(&group, key, version, meta, payload, condition, context).await
    }

    fn check_size(&self, size_bytes: Option<u64>) -> Result<(), ClientError> {
        match size_bytes {
            Some(size_bytes) if SINGLE_PUT_MAX_BYTES < size_bytes => {
                Err(ClientError::TooLarge { size_bytes, max_bytes: SINGLE_PUT_MAX_BYTES })
            }
            _ => Ok(()),
        }
    }

    /// Stores a body's content, not yet visible: up to `inline_max_bytes` are only returned, blocks are stored with leases.
    pub(crate) async fn store_content(
        &self,
        id: WriteId,
        group: &Group,
        body: &mut dyn ObjectBody,
        inline_max_bytes: usize,
        context: RequestContext,
    ) -> Result<(Payload, BodyDigests), ModelError> {
        let (mut gathered, mut gathered_bytes, mut ended) = (Vec::new(), 0, false);
        while gathered_bytes <= inline_max_bytes {
            match body.next().await {
                Some(piece) => {
                    let piece: Bytes = piece?;
                    gathered_bytes += piece.len();
                    gathered.push(piece);
                }
                None => {
                    ended = true;
                    break;
                }
            }
        }
        if ended {
            let mut bytes = BytesMut::with_capacity(gathered_bytes);
            gathered.iter().for_each(|piece| bytes.extend_from_slice(piece));
            return Ok((Payload::Inline(bytes.to_vec()), body.digests()));
        }
        let options = WriteOptions {
            version: *id.as_bytes(),
            group: group.key().0.clone(),
            stamp: self.tables.cluster().tick(Stamp::ZERO).await.map_err(clock_failed)?,
            compression: self.blocks.options().compression,
        };
        let rest = stream::unfold(&mut *body, |body| async move { body.next().await.map(|piece| (piece, body)) });
        let content = stream::iter(gathered.into_iter().map(Ok::<Bytes, BodyFailure>)).chain(rest);
        let blocks = self.blocks.write(content, &options, block_context(context)).await?;
        Ok((Payload::Blocks(blocks), body.digests()))
    }

    /// Makes a version visible: the one step that others can see.
    #[allow(clippy::too_many_arguments)]
    pub(crate) async fn commit(
        &self,
        group: &Group,
        key: &str,
        version: WriteId,
        meta: ObjectMeta,
        payload: Payload,
        condition: &WriteCondition,
        context: RequestContext,
    ) -> Result<StoredObject, ModelError> {
        let stored = StoredObject {
            version,
            etag: meta.etag.clone(),
            size_bytes: meta.size_bytes,
            modified_ms: meta.modified_ms,
            checksum: meta.checksum.clone(),
        };
        let write = RegisterWrite {
            table: VERSION,
            key: null_slot(key),
            id: version,
            content: VersionRow::Object(Box::new(meta)).to_stored(),
            companions: payload.into_companions(version),
        };
        self.write_version(group, write, condition, context).await?;
        Ok(stored)
    }

    /// Writes a version row, conditionally or not.
    pub(crate) async fn write_version(
        &self,
        group: &Group,
        write: RegisterWrite,
        condition: &WriteCondition,
        context: RequestContext,
    ) -> Result<(), ModelError> {
        let context = self.step(context);
        if condition.is_none() {
            self.tables.write_one(group, write, context).await?;
            return Ok(());
        }
        let test = |row: Option<&HeldRow>| check_row(condition, row).is_ok_and(|verdict| verdict.is_ok());
        let written = self.tables.write_if(group, write, context, test).await?;
        written.map(drop).or_else(|row| refused(condition, row))
    }

    /// Writes a version row that others may be writing, too: see [`garage_table::Tables::write_shared`].
    pub(crate) async fn write_shared_version(
        &self,
        group: &Group,
        write: RegisterWrite,
        shared: SharedWrite,
        condition: &WriteCondition,
        context: RequestContext,
    ) -> Result<(), ModelError> {
        let test = |row: Option<&HeldRow>| check_row(condition, row).is_ok_and(|verdict| verdict.is_ok());
        let test: Option<RowTest<'_>> = (!condition.is_none()).then_some(Box::new(test));
        let written = self.tables.write_shared(group, write, shared, self.step(context), test).await?;
        written.map(drop).or_else(|row| refused(condition, row))
    }
}

/// The answer to a write whose condition failed on this row.
fn refused(condition: &WriteCondition, row: Option<HeldRow>) -> Result<(), ModelError> {
    check_row(condition, row.as_ref())??;
    // The row that failed the test no longer does: a rival came in between.
    Err(ClientError::PreconditionFailed { condition: "If-Match" }.into())
}

/// Tests a condition on a stored row.
fn check_row(condition: &WriteCondition, row: Option<&HeldRow>) -> Result<Result<(), ClientError>, ModelError> {
    let version = row.map(|row| VersionRow::from_stored(&row.content)).transpose()?;
    Ok(condition.check(version.as_ref().and_then(VersionRow::object)))
}

pub(crate) fn clock_failed(error: impl std::fmt::Display) -> ModelError {
    garage_table::group::TableError::Clock { reason: error.to_string() }.into()
}

pub(crate) fn block_context(context: RequestContext) -> garage_block::manager::RequestContext {
    garage_block::manager::RequestContext { deadline: context.deadline, trace: context.trace }
}
