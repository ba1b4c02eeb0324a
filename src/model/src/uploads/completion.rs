//! Bringing a decided completion to its end: by whoever decided it, or by anyone who meets it.
//!
//! Invariants:
//! - the version is written once, however many try, and only over what the decision said;
//! - the upload is open again only when the version was not written and never will be.
//!
//! Not here: deciding (`complete`).

use futures::FutureExt;
use garage_rpc::register::WriteId;
use garage_table::{
    Group,
    group::{Decision, RegisterWrite, RequestContext, SharedWrite},
    message::{Companion, HeldRow},
};
use garage_util::encoding::Stored;

use super::Uploads;
use crate::{
    error::ModelError,
    objects::{BucketRef, StoredObject, version_row},
    rows::{
        UPLOAD, VERSION,
        object::{ObjectHeaders, ObjectLock, ObjectMeta, VersionRow, VersionState, null_slot},
        upload::{Completion, UploadId, UploadRow, UploadState, upload_key},
    },
};

/// A completion that was decided, and what is needed to carry it out.
pub(super) struct Carrier {
    /// The upload's row as it was before it was decided, or as it says so.
    pub upload: UploadRow,
    /// What was decided.
    pub completion: Completion,
    /// The list of parts as companions of the version; only who decided has it at hand.
    pub payload: Option<Vec<Companion>>,
}

/// How carrying it out ended.
pub(super) enum Carried {
    /// The version is or was there.
    Written(StoredObject),
    /// What it was to replace was replaced by others: it is not there and never will be. The upload is open again.
    Rejected,
}

/// What is noted on the upload.
#[derive(Clone, Copy)]
enum UploadEnd {
    Written,
    Rejected,
}

impl Completion {
    /// What the client is told.
    pub(super) fn into_stored(self, upload: &UploadRow) -> StoredObject {
        StoredObject {
            slot: self.slot(),
            tags: upload.headers.tags.clone(),
            version: self.version,
            etag: self.etag,
            size_bytes: self.size_bytes,
            modified_ms: self.modified_ms,
            checksum: self.checksum,
        }
    }
    fn meta(&self, upload: &UploadRow) -> ObjectMeta {
        ObjectMeta {
            size_bytes: self.size_bytes,
            etag: self.etag.clone(),
            modified_ms: self.modified_ms,
            headers: ObjectHeaders { lock: ObjectLock { retention: self.retention, ..upload.headers.lock }, ..upload.headers.clone() },
            checksum: self.checksum.clone(),
            part_count: Some(self.part_count),
        }
    }
}

impl Uploads {
    /// Writes the version of a completion, and notes on the upload how it ended.
    pub(super) async fn carry_out(
        &self,
        bucket: &BucketRef,
        key: &str,
        upload: UploadId,
        carrier: Carrier,
        context: RequestContext,
    ) -> Result<Carried, ModelError> {
        let Carrier { upload: row, completion, payload } = carrier;
        let group = &bucket.group_of(key);
        let is_first = payload.is_some();
        let companions = match payload {
            Some(payload) => payload,
            None => self.objects.tables.companions(group, completion.version, 0, u32::MAX, context).await?,
        };
        let write = RegisterWrite {
            table: VERSION,
            key: null_slot(key),
            id: completion.version,
            content: version_row(completion.versioning, completion.version, VersionState::Object(Box::new(completion.meta(&row))))
                .0
                .to_stored(),
            companions,
        };
        let shared = SharedWrite { first: completion.first, is_first };
        let is_written = self.objects.write_shared_version(bucket, key, write, shared, completion.replaces, context).await?;
        if is_written {
            let stored = completion.clone().into_stored(&row);
            self.note_written(group, key, upload, row, completion, context);
            return Ok(Carried::Written(stored));
        }
        self.note_end(group.clone(), upload_key(key, upload), row, completion, UploadEnd::Rejected, context).await?;
        Ok(Carried::Rejected)
    }

    /// In the background: until it is noted, who meets the completion finds the version there.
    fn note_written(&self, group: &Group, key: &str, upload: UploadId, row: UploadRow, completion: Completion, context: RequestContext) {
        let noted = self.note_end(group.clone(), upload_key(key, upload), row, completion, UploadEnd::Written, context);
        self.objects.tables.cluster().runtime().clone().spawn("note completed upload", async move {
            if let Err(error) = noted.await {
                tracing::debug!(%error, "the end of a multipart upload was not noted; a repeat will do it");
            }
        });
    }

    /// Notes the end of a completion on its upload, unless someone did before.
    fn note_end(
        &self,
        group: Group,
        sort_key: garage_table::SortKey,
        row: UploadRow,
        completion: Completion,
        end: UploadEnd,
        context: RequestContext,
    ) -> impl Future<Output = Result<(), ModelError>> + Send + use<> {
        let tables = self.objects.tables.clone();
        async move {
            let state = match end {
                UploadEnd::Written => UploadState::Completed(completion.clone()),
                UploadEnd::Rejected => UploadState::Open,
            };
            let content = UploadRow { state, ..row }.to_stored();
            let completing = UploadState::Completing(completion);
            let decide = |_: WriteId, held: Option<HeldRow>| {
                let held = held.and_then(|held| UploadRow::from_stored(&held.content).ok());
                let is_due = held.is_some_and(|held| held.state == completing);
                let decision =
                    if is_due { Decision::Write { content: content.clone(), companions: Vec::new() } } else { Decision::Refuse(()) };
                std::future::ready(decision).boxed()
            };
            tables.update(&group, UPLOAD, sort_key, context, decide).await?;
            Ok(())
        }
    }

    /// Brings a completion that was met underway to its end; the upload's row afterwards.
    ///
    /// Its client was not answered, or its coordinator is about to note the end: so whoever needs to know how the upload stands finds out.
    pub(super) async fn bring_to_end(
        &self,
        bucket: &BucketRef,
        key: &str,
        upload: UploadId,
        row: UploadRow,
        context: RequestContext,
    ) -> Result<UploadRow, ModelError> {
        let UploadState::Completing(completion) = row.state.clone() else { return Ok(row) };
        let group = &bucket.group_of(key);
        let newest = self.objects.newest_row(group, key, context).await?;
        let is_there = match newest.as_ref().and_then(|row| Some((row, row.entry?))) {
            Some((row, entry)) => VersionRow::from_stored(&row.content)?.origin_as(entry).id == completion.version,
            None => false,
        };
        let carried = if is_there {
            Carried::Written(completion.clone().into_stored(&row))
        } else {
            let carrier = Carrier { upload: row.clone(), completion: completion.clone(), payload: None };
            self.carry_out(bucket, key, upload, carrier, context).await?
        };
        let state = match carried {
            Carried::Written(_) => {
                // So that the next who asks does not meet it again; if it fails, the next finds out as this one did.
                let sort_key = upload_key(key, upload);
                let noted = self.note_end(group.clone(), sort_key, row.clone(), completion.clone(), UploadEnd::Written, context).await;
                noted.unwrap_or_else(|error| tracing::debug!(%error, "the end of a multipart upload was not noted"));
                UploadState::Completed(completion)
            }
            Carried::Rejected => UploadState::Open,
        };
        Ok(UploadRow { state, ..row })
    }
}
