//! Storing an object: small ones inline with their row, larger ones as blocks first. What becomes visible comes last.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use garage_block::{
    encoding::Compression,
    manager::{BlockSeal, WriteOptions},
};
use garage_rpc::register::{
    WriteId,
    slots::{Head, Slot},
};
use garage_table::{
    Group,
    group::{RegisterRead, RegisterWrite, RequestContext, RowTest, SharedWrite},
    message::{HeldRow, Want},
};
use garage_util::{encoding::Stored, hlc::Stamp, runtime::Lane};

use super::{BucketRef, Objects, WriteCondition};
use crate::{
    body::{BodyDigests, BodyFailure, ObjectBody},
    encryption::{self, UnitSeal},
    error::{ClientError, ModelError},
    limits::SINGLE_PUT_MAX_BYTES,
    rows::{
        VERSION,
        access::Tag,
        bucket::Versioning,
        checksum::StoredChecksum,
        object::{ObjectHeaders, ObjectMeta, Retention, VersionRow, VersionState, null_slot},
        owner::RowOwner,
        payload::Payload,
        upload::Replaces,
    },
    upkeep::marks,
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
    /// Which version it is; `None` in a bucket without versioning.
    pub slot: Option<Slot>,
    /// Its tags.
    pub tags: Vec<Tag>,
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
        let version = self.new_version_id();
        let group = bucket.group_of(key);
        let seal = headers.encryption.as_ref().map(|encryption| encryption.sealer(version)).transpose()?;
        let owner = RowOwner::version(&null_slot(key));
        let (payload, digests) = self.store_content(version, &group, &owner, &mut *body, self.inline_max_bytes, seal, context).await?;
        let meta = ObjectMeta {
            size_bytes: digests.size_bytes,
            etag: encryption::etag(headers.encryption.as_ref(), &digests.md5),
            modified_ms: self.now_ms(),
            headers,
            checksum: digests.checksum,
            part_count: None,
        };
        self.commit(bucket, key, version, meta, payload, condition, context).await
    }

    fn check_size(&self, size_bytes: Option<u64>) -> Result<(), ClientError> {
        match size_bytes {
            Some(size_bytes) if SINGLE_PUT_MAX_BYTES < size_bytes => {
                Err(ClientError::TooLarge { size_bytes, max_bytes: SINGLE_PUT_MAX_BYTES })
            }
            _ => Ok(()),
        }
    }

    /// Stores a body's content, sealed if asked, not yet visible: up to `inline_max_bytes` are only returned, blocks are stored with leases.
    ///
    /// `owner` is where the row will be that decides whether the content lives.
    #[allow(clippy::too_many_arguments)]
    pub(crate) async fn store_content(
        &self,
        id: WriteId,
        group: &Group,
        owner: &RowOwner,
        body: &mut dyn ObjectBody,
        inline_max_bytes: usize,
        seal: Option<Arc<UnitSeal>>,
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
            let bytes = match seal {
                Some(seal) => self.seal_inline(seal, bytes.freeze()).await?,
                None => bytes.to_vec(),
            };
            return Ok((Payload::Inline(bytes), body.digests()));
        }
        let options = WriteOptions {
            version: *id.as_bytes(),
            group: group.key().0.clone(),
            owner: owner.to_stored(),
            stamp: self.tables.cluster().tick(Stamp::ZERO).await.map_err(clock_failed)?,
            compression: if seal.is_some() { Compression::Never } else { self.blocks.options().compression },
            seal: seal.map(|seal| seal as Arc<dyn BlockSeal>),
        };
        // A slow upload marks its version, so that nobody takes it for one that was given up.
        let _in_use = marks::mark_while_held(&self.tables, group, id);
        let rest = stream::unfold(&mut *body, |body| async move { body.next().await.map(|piece| (piece, body)) });
        let content = stream::iter(gathered.into_iter().map(Ok::<Bytes, BodyFailure>)).chain(rest);
        let blocks = self.blocks.write(content, &options, block_context(context)).await?;
        Ok((Payload::Blocks(blocks), body.digests()))
    }

    /// Seals what is kept in the row, off the async workers.
    async fn seal_inline(&self, seal: Arc<UnitSeal>, content: Bytes) -> Result<Vec<u8>, ModelError> {
        let runtime = self.tables.cluster().runtime();
        let sealed = runtime.blocking(Lane::Compute, move || seal.seal(0, content).to_vec()).await;
        sealed.map_err(|error| ModelError::PutBlock(error.into()))
    }

    /// Makes a version visible: the one step that others can see.
    #[allow(clippy::too_many_arguments)]
    pub(crate) async fn commit(
        &self,
        bucket: &BucketRef,
        key: &str,
        version: WriteId,
        mut meta: ObjectMeta,
        payload: Payload,
        condition: &WriteCondition,
        context: RequestContext,
    ) -> Result<StoredObject, ModelError> {
        self.lock_by_default(bucket, &mut meta).await?;
        let (row, slot) = version_row(bucket.versioning, version, VersionState::Object(Box::new(meta.clone())));
        let stored = StoredObject {
            version,
            etag: meta.etag.clone(),
            size_bytes: meta.size_bytes,
            modified_ms: meta.modified_ms,
            checksum: meta.checksum,
            slot,
            tags: meta.headers.tags,
        };
        let write = RegisterWrite {
            table: VERSION,
            key: null_slot(key),
            id: version,
            content: row.to_stored(),
            companions: payload.into_companions(version),
        };
        self.write_version(bucket, key, write, condition, context).await?;
        Ok(stored)
    }

    /// The id of a new version: it begins with the milliseconds since 1970, so that it tells roughly when it was made.
    pub(crate) fn new_version_id(&self) -> WriteId {
        let mut id = WriteId::random(self.tables.cluster().runtime());
        id.0[..8].copy_from_slice(&self.now_ms().to_be_bytes());
        id
    }

    /// Gives an object the bucket's default retention, unless it has one of its own.
    pub(crate) async fn lock_by_default(&self, bucket: &BucketRef, meta: &mut ObjectMeta) -> Result<(), ModelError> {
        let Some(default) = bucket.lock.and_then(|lock| lock.default_retention) else { return Ok(()) };
        if meta.headers.lock.retention.is_none() {
            // Hybrid time never goes back: a clock that was set back does not shorten a retention.
            let stamp = self.tables.cluster().tick(Stamp::ZERO).await.map_err(clock_failed)?;
            let from_ms = stamp.millis().max(self.now_ms());
            meta.headers.lock.retention = Some(Retention { mode: default.mode, until_ms: from_ms + default.period.as_millis() });
        }
        Ok(())
    }

    /// Writes a version row, conditionally or not.
    pub(crate) async fn write_version(
        &self,
        bucket: &BucketRef,
        key: &str,
        write: RegisterWrite,
        condition: &WriteCondition,
        context: RequestContext,
    ) -> Result<(), ModelError> {
        let (context, group, id) = (self.step(context), bucket.group_of(key), write.id);
        if condition.is_none() {
            self.tables.write_one(&group, write, context).await?;
            return Ok(());
        }
        let test = |row: Option<&HeldRow>| check_row(condition, row).is_ok_and(|verdict| verdict.is_ok());
        let written = self.tables.write_if(&group, write, context, test).await?;
        let Err(refusal) = written else { return Ok(()) };
        self.undo_if_sent(bucket, &group, key, id, refusal.was_sent, context).await?;
        refused(condition, refusal.row)
    }

    /// A write that was refused after some replica had taken it must not stay there as a version.
    pub(super) async fn undo_if_sent(
        &self,
        bucket: &BucketRef,
        group: &Group,
        key: &str,
        id: WriteId,
        was_sent: bool,
        context: RequestContext,
    ) -> Result<(), ModelError> {
        match bucket.versioning {
            Versioning::Enabled if was_sent => self.undo_version(group, key, id, context).await,
            _ => Ok(()),
        }
    }

    /// Writes a version row that others may be writing, too: see [`garage_table::Tables::write_shared`]. False: what it may replace was
    /// replaced by others; it is not there and never will be.
    pub(crate) async fn write_shared_version(
        &self,
        bucket: &BucketRef,
        key: &str,
        write: RegisterWrite,
        shared: SharedWrite,
        replaces: Replaces,
        context: RequestContext,
    ) -> Result<bool, ModelError> {
        let (context, group, id) = (self.step(context), bucket.group_of(key), write.id);
        let test = move |row: Option<&HeldRow>| replaces.allows(row.and_then(|row| row.entry).map(|entry| entry.id));
        let test: Option<RowTest<'_>> = (replaces != Replaces::Anything).then_some(Box::new(test));
        let written = self.tables.write_shared(&group, write, shared, context, test).await?;
        let Err(refusal) = written else { return Ok(true) };
        self.undo_if_sent(bucket, &group, key, id, refusal.was_sent, context).await?;
        Ok(false)
    }

    /// The newest version row of a key, a delete marker's included.
    pub(crate) async fn newest_row(&self, group: &Group, key: &str, context: RequestContext) -> Result<Option<HeldRow>, ModelError> {
        let read = RegisterRead { table: VERSION, key: null_slot(key), want: Want::Row };
        Ok(self.tables.read_one(group, read, self.step(context)).await?.row)
    }

    /// What a write with this condition may replace, if the newest version fulfils it: from now on that very version. Errors: those of
    /// [`WriteCondition::check`].
    pub(crate) fn may_replace(&self, condition: &WriteCondition, newest: Option<&HeldRow>) -> Result<Replaces, ModelError> {
        if condition.is_none() {
            return Ok(Replaces::Anything);
        }
        check_row(condition, newest)??;
        Ok(Replaces::only(newest.and_then(|row| row.entry).map(|entry| entry.id)))
    }
}

/// The row of a new version, and which version it is; `None` in a bucket without versioning.
pub(crate) fn version_row(versioning: Versioning, id: WriteId, state: VersionState) -> (VersionRow, Option<Slot>) {
    let slot = match (versioning, &state) {
        (Versioning::Off, VersionState::Object(meta)) => return (VersionRow::Object(meta.clone()), None),
        (Versioning::Off, VersionState::DeleteMarker { modified_ms }) => {
            return (VersionRow::DeleteMarker { modified_ms: *modified_ms }, None);
        }
        (Versioning::Enabled, _) => Slot::Id(id),
        (Versioning::Suspended, _) => Slot::Null,
    };
    (Head::new(slot, Some(state)).into(), Some(slot))
}

/// The answer to a write whose condition failed on this row.
pub(super) fn refused(condition: &WriteCondition, row: Option<HeldRow>) -> Result<(), ModelError> {
    check_row(condition, row.as_ref())??;
    // The row that failed the test no longer does: a rival came in between.
    Err(ClientError::PreconditionFailed { condition: "If-Match" }.into())
}

/// Tests a condition on a stored row.
pub(super) fn check_row(condition: &WriteCondition, row: Option<&HeldRow>) -> Result<Result<(), ClientError>, ModelError> {
    let version = row.map(|row| VersionRow::from_stored(&row.content)).transpose()?;
    Ok(condition.check(version.as_ref().and_then(VersionRow::object)))
}

pub(crate) fn clock_failed(error: impl std::fmt::Display) -> ModelError {
    garage_table::group::TableError::Clock { reason: error.to_string() }.into()
}

pub(crate) fn block_context(context: RequestContext) -> garage_block::manager::RequestContext {
    garage_block::manager::RequestContext { deadline: context.deadline, trace: context.trace }
}
