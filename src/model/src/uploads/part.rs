//! Parts: from a body, or from a range of an existing object.

use std::ops::Range;

use futures::Stream;
use garage_rpc::register::WriteId;
use garage_table::group::{MergeRow, RequestContext};
use garage_util::{encoding::Stored, hlc::Stamp};

use super::Uploads;
use crate::{
    body::{BodyDigests, BodyFailure, ObjectBody},
    encryption::{self, Encryption},
    error::{ClientError, ModelError},
    limits::SINGLE_PUT_MAX_BYTES,
    objects::{BucketRef, FoundObject},
    rows::{
        PART,
        checksum::StoredChecksum,
        owner::RowOwner,
        part::{PART_NUMBER_MAX, PartRow, part_key},
        payload::Payload,
        upload::{UploadId, upload_key},
    },
};

/// What a stored part is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPart {
    /// MD5 in hex.
    pub etag: String,
    /// In milliseconds since 1970.
    pub modified_ms: u64,
    /// Length of its content.
    pub size_bytes: u64,
    /// Given or computed.
    pub checksum: Option<StoredChecksum>,
}

/// A range of an existing object.
pub struct PartRange<'a> {
    /// As found before.
    pub found: &'a FoundObject,
    /// Bytes of it.
    pub range: Range<u64>,
}

impl Uploads {
    /// Stores a part: its blocks and the look-up of the upload at once, then the row. A part stored again replaces the former one.
    pub async fn put_part(
        &self,
        bucket: &BucketRef,
        key: &str,
        upload: UploadId,
        part_number: u16,
        body: Box<dyn ObjectBody>,
        context: RequestContext,
    ) -> Result<StoredPart, ModelError> {
        self.put_sealed_part(bucket, key, upload, part_number, body, None, context).await
    }

    /// As [`Uploads::put_part`], for an upload with this encryption, opened. Errors: `KeyNeeded` if the upload has another.
    #[allow(clippy::too_many_arguments)]
    pub async fn put_sealed_part(
        &self,
        bucket: &BucketRef,
        key: &str,
        upload: UploadId,
        part_number: u16,
        mut body: Box<dyn ObjectBody>,
        encryption: Option<&Encryption>,
        context: RequestContext,
    ) -> Result<StoredPart, ModelError> {
        if !(1..=PART_NUMBER_MAX).contains(&part_number) {
            return Err(ClientError::Invalid(format!("Part number must be an integer between 1 and {PART_NUMBER_MAX}, inclusive")).into());
        }
        if let Some(size_bytes) = body.size_hint_bytes().filter(|size_bytes| SINGLE_PUT_MAX_BYTES < *size_bytes) {
            return Err(ClientError::TooLarge { size_bytes, max_bytes: SINGLE_PUT_MAX_BYTES }.into());
        }
        self.objects.check_quota(bucket, body.size_hint_bytes().unwrap_or(0), context).await?;
        let group = bucket.group_of(key);
        let id = WriteId::random(self.objects.tables.cluster().runtime());
        let seal = encryption.map(|encryption| encryption.sealer(id)).transpose()?;
        let (payload, digests) = {
            // The upload is looked up while the blocks travel; a part of an upload that is not open leaves only leases behind.
            let open = self.get(bucket, key, upload, context);
            // Parts are blocks, however small: the content of an object in parts is read as one run of blocks.
            let owner = RowOwner::part(&upload_key(key, upload), part_number);
            let stored = self.objects.store_content(id, &group, &owner, &mut *body, 0, seal, context);
            let (row, stored) = futures::future::try_join(open, stored).await?;
            if row.headers.encryption.as_ref() != encryption {
                return Err(ClientError::KeyNeeded.into());
            }
            stored
        };
        let etag = encryption::etag(encryption, &digests.md5);
        self.commit_part(bucket, key, upload, part_number, id, payload, digests, etag, context).await
    }

    #[allow(clippy::too_many_arguments)]
    async fn commit_part(
        &self,
        bucket: &BucketRef,
        key: &str,
        upload: UploadId,
        part_number: u16,
        id: WriteId,
        payload: Payload,
        digests: BodyDigests,
        etag: String,
        context: RequestContext,
    ) -> Result<StoredPart, ModelError> {
        // Stamped when its upload finished: of two uploads of one number, the one that finished last counts.
        let stamp = self.objects.tables.cluster().tick(Stamp::ZERO).await.map_err(crate::objects::clock_failed)?;
        let row =
            PartRow { stamp, id, size_bytes: digests.size_bytes, etag, modified_ms: self.objects.now_ms(), checksum: digests.checksum };
        let stored =
            StoredPart { etag: row.etag.clone(), modified_ms: row.modified_ms, size_bytes: row.size_bytes, checksum: row.checksum.clone() };
        let merge =
            MergeRow { table: PART, key: part_key(upload, part_number), row: row.to_stored(), companions: payload.into_companions(id) };
        self.objects.tables.merge(&bucket.group_of(key), vec![merge], self.objects.step(context)).await?;
        Ok(stored)
    }

    /// The bytes of a range of an object, to be stored as a part by [`Uploads::put_part`].
    pub fn part_source(
        &self,
        source: PartRange<'_>,
        context: RequestContext,
    ) -> impl Stream<Item = Result<bytes::Bytes, BodyFailure>> + Send + use<> {
        self.objects.read_as_body(source.found, source.range, context)
    }
}
