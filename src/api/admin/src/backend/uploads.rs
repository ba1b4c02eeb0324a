//! Unfinished multipart uploads of a bucket: what they hold, and giving up the old ones.

use futures::{StreamExt, TryStreamExt, stream};
use garage_model::{
    RequestContext,
    error::{ClientError, ModelError},
    objects::BucketRef,
    uploads::{ListUploadsRequest, ListedUpload, UploadEntry},
};

use super::{AdminApi, buckets::bucket_id};
use crate::{
    AdminError,
    limits::{CLEANUP_PAGE_UPLOADS, COUNTED_UPLOADS_MAX, LOOKUPS_AT_ONCE},
    types::{CleanedUploads, CleanupUploads},
};

/// Parts of an upload at the most; AWS S3 User Guide, "Amazon S3 multipart upload limits".
const PARTS_MAX: usize = 10_000;

/// Parts of unfinished uploads.
#[derive(Clone, Copy, Default)]
pub(super) struct PartCounts {
    pub(super) parts: u64,
    pub(super) bytes: u64,
}

impl AdminApi {
    /// Adds up the parts of a bucket's unfinished uploads, the first [`COUNTED_UPLOADS_MAX`] of them; `uploads` is how many there are.
    pub(super) async fn count_parts(&self, bucket: &BucketRef, uploads: u64, context: RequestContext) -> Result<PartCounts, AdminError> {
        if uploads == 0 {
            return Ok(PartCounts::default());
        }
        let listed = self.uploads_after(bucket, None, COUNTED_UPLOADS_MAX, context).await?;
        let counts = listed.into_iter().map(|upload| async move { self.parts_of(bucket, &upload, context).await });
        let add = |sum: PartCounts, of: PartCounts| async move {
            Ok(PartCounts { parts: sum.parts + of.parts, bytes: sum.bytes.saturating_add(of.bytes) })
        };
        stream::iter(counts).buffer_unordered(LOOKUPS_AT_ONCE).try_fold(PartCounts::default(), add).await
    }

    async fn parts_of(&self, bucket: &BucketRef, upload: &ListedUpload, context: RequestContext) -> Result<PartCounts, AdminError> {
        let (mut counts, mut after) = (PartCounts::default(), 0);
        loop {
            let page = match self.node.uploads.list_parts(bucket, &upload.key, upload.id, after, PARTS_MAX, context).await {
                Ok(page) => page,
                // Finished meanwhile: it holds nothing any more.
                Err(ModelError::Client(ClientError::NoSuchUpload)) => return Ok(PartCounts::default()),
                Err(error) => return Err(error.into()),
            };
            counts.parts += page.parts.len() as u64;
            counts.bytes = page.parts.iter().fold(counts.bytes, |sum, part| sum.saturating_add(part.size_bytes));
            match page.parts.last() {
                Some(last) if page.truncated => after = last.part_number,
                _ => return Ok(counts),
            }
        }
    }

    async fn uploads_after(
        &self,
        bucket: &BucketRef,
        after: Option<&ListedUpload>,
        limit: usize,
        context: RequestContext,
    ) -> Result<Vec<ListedUpload>, AdminError> {
        let request = ListUploadsRequest {
            key_after: after.map(|upload| upload.key.clone()),
            upload_after: after.map(|upload| upload.id),
            limit,
            ..ListUploadsRequest::default()
        };
        let page = self.node.uploads.list(bucket, &request, context).await?;
        let upload = |entry| match entry {
            UploadEntry::Upload(upload) => Some(*upload),
            UploadEntry::Prefix(_) => None,
        };
        Ok(page.entries.into_iter().filter_map(upload).collect())
    }

    /// Aborts uploads initiated more than the given time ago. An unknown bucket has none.
    pub(super) async fn cleanup_uploads(&self, cleanup: CleanupUploads, context: RequestContext) -> Result<CleanedUploads, AdminError> {
        let id = bucket_id(&cleanup.bucket_id)?;
        let Some(bucket) = self.node.access.buckets().get(id, context).await? else { return Ok(CleanedUploads { uploads_deleted: 0 }) };
        let bucket = bucket.as_ref();
        let limit_ms = self.now_ms().saturating_sub(cleanup.older_than_secs.saturating_mul(1000));
        let (mut deleted, mut after) = (0, None);
        loop {
            let page = self.uploads_after(&bucket, after.as_ref(), CLEANUP_PAGE_UPLOADS, context).await?;
            for upload in page.iter().filter(|upload| upload.summary.initiated_ms <= limit_ms) {
                match self.node.uploads.abort(&bucket, &upload.key, upload.id, context).await {
                    Ok(()) => deleted += 1,
                    Err(ModelError::Client(ClientError::NoSuchUpload)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            match page.into_iter().last() {
                Some(last) => after = Some(last),
                None => return Ok(CleanedUploads { uploads_deleted: deleted }),
            }
        }
    }
}
