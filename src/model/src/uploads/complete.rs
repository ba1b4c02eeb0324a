//! Completing an upload: what is asked, the parts that are chosen, the decision. Three round trips, one more with a condition.
//!
//! Invariants:
//! - what is written is decided once, on the upload's row: the version's id, its parts, what it may replace;
//! - a request that is refused leaves the upload as it was.
//!
//! Not here: writing the version that was decided (`completion`).

use std::{collections::BTreeMap, sync::Arc};

use futures::{FutureExt, future::BoxFuture, future::Shared};
use garage_rpc::register::WriteId;
use garage_table::{
    Group,
    group::{Decision, RequestContext, SortKeyRange, TableError, Updated},
    message::{HeldRow, RANGE_ROWS_MAX},
};
use garage_util::{encoding::Stored, hlc::Stamp, id::to_hex};

use super::{
    Uploads,
    completion::{Carried, Carrier},
};
use crate::{
    error::{ClientError, ModelError},
    limits::{COMPLETE_TRIES_MAX, OBJECT_MAX_BYTES, PART_MIN_BYTES},
    objects::{BucketRef, StoredObject, WriteCondition, clock_failed},
    rows::{
        PART, UPLOAD,
        bucket::Versioning,
        checksum::{ChecksumAlgorithm, ChecksumType, StoredChecksum},
        object::ObjectMeta,
        part::{PART_NUMBER_MAX, PartRow, part_key, part_number_of},
        payload::{HEAD_BLOCKS, PartRef, Payload, PayloadChunk, chunk_of},
        upload::{Completion, Replaces, UploadId, UploadRow, UploadState, upload_key},
    },
};

/// A part as the client lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompletedPart {
    /// From 1.
    pub part_number: u16,
    /// Without quotes.
    pub etag: String,
    /// If listed.
    pub checksum: Option<StoredChecksum>,
}

/// Computes an object's checksum from those of its parts, each with the part's size, in order.
pub type Combine<'a> = &'a (dyn Fn(&[(StoredChecksum, u64)], ChecksumType) -> Option<StoredChecksum> + Send + Sync);

/// What the client asks for.
pub struct CompleteRequest<'a> {
    /// In ascending order, or the request is refused.
    pub parts: &'a [CompletedPart],
    /// Tested on the object that is replaced.
    pub condition: &'a WriteCondition,
    /// The whole object's checksum, if given.
    pub checksum: Option<StoredChecksum>,
    /// The whole object's size, if given.
    pub size_bytes: Option<u64>,
    /// Computes the object's checksum from those of its parts (value and size, in order) when the upload has one.
    pub combine: Combine<'a>,
}

/// A stored part with its number.
#[derive(Clone, Debug)]
struct NumberedPart {
    number: u16,
    row: PartRow,
}

/// Errors are shared by all who wait for one read.
type SharedRead<'a, T> = Shared<BoxFuture<'a, Result<T, Arc<ModelError>>>>;

/// What is read beside the upload's row.
struct Reads<'a> {
    parts: SharedRead<'a, Arc<Vec<NumberedPart>>>,
    /// The version that would be replaced; read only for a condition.
    newest: SharedRead<'a, Option<HeldRow>>,
}

/// What a Complete comes to.
enum Verdict {
    /// It was decided now.
    Decided(Carrier),
    /// It, or another, was decided before, and has to be brought to its end first.
    Underway(Carrier),
    /// It was brought to its end before.
    Over(StoredObject),
}

impl Uploads {
    /// Completes an upload. Errors: `NoSuchUpload`, `InvalidPart`, `InvalidPartOrder`, `PartTooSmall`, `PreconditionFailed`, …; the upload
    /// then stays open. A repeat with the same parts is answered like the first, whatever its condition.
    pub async fn complete(
        &self,
        bucket: &BucketRef,
        key: &str,
        upload: UploadId,
        request: CompleteRequest<'_>,
        context: RequestContext,
    ) -> Result<StoredObject, ModelError> {
        let step = self.objects.step(context);
        check_order(request.parts)?;
        let digest = digest_of(request.parts);
        for _ in 0..COMPLETE_TRIES_MAX {
            let carrier = match self.decide_completion(bucket, key, upload, &request, digest, step).await? {
                Verdict::Over(stored) => return Ok(stored),
                Verdict::Decided(carrier) | Verdict::Underway(carrier) => carrier,
            };
            let is_ours = carrier.completion.list_digest == digest;
            if let Carried::Written(stored) = self.carry_out(bucket, key, upload, carrier, step).await? {
                return if is_ours { Ok(stored) } else { Err(ClientError::NoSuchUpload.into()) };
            }
            // What it was to replace was replaced by a rival: the upload is open again, and its client's condition is tested anew.
        }
        Err(TableError::Contended.into())
    }

    async fn decide_completion(
        &self,
        bucket: &BucketRef,
        key: &str,
        upload: UploadId,
        request: &CompleteRequest<'_>,
        list_digest: [u8; 32],
        context: RequestContext,
    ) -> Result<Verdict, ModelError> {
        let group = &bucket.group_of(key);
        let newest = async move {
            let is_needed = !request.condition.is_none();
            if is_needed { self.objects.newest_row(group, key, context).await.map_err(Arc::new) } else { Ok(None) }
        };
        let parts = async move { self.listed_parts(group, upload, request.parts, context).await.map(Arc::new).map_err(Arc::new) };
        let reads = Reads { parts: parts.boxed().shared(), newest: newest.boxed().shared() };
        let verdict = parking_lot::Mutex::new(None);
        let decide = |version: WriteId, held: Option<HeldRow>| {
            let (reads, verdict) = (&reads, &verdict);
            async move {
                match self.judge(bucket, group, held, version, list_digest, request, reads, context).await {
                    Ok(Verdict::Decided(carrier)) => {
                        let state = UploadState::Completing(carrier.completion.clone());
                        let content = UploadRow { state, ..carrier.upload.clone() }.to_stored();
                        let companions = carrier.payload.clone().unwrap_or_default();
                        *verdict.lock() = Some(Verdict::Decided(carrier));
                        Decision::Write { content, companions }
                    }
                    Ok(known) => {
                        *verdict.lock() = Some(known);
                        Decision::Refuse(None)
                    }
                    Err(error) => Decision::Refuse(Some(error)),
                }
            }
            .boxed()
        };
        // Everything is read while the ballot is prepared; who needs none of it does not wait for it.
        let update = self.objects.tables.update(group, UPLOAD, upload_key(key, upload), context, decide);
        let reading = async {
            let _ = futures::future::join(reads.parts.clone(), reads.newest.clone()).await;
            std::future::pending::<()>().await
        };
        let updated = tokio::select! {
            biased;
            updated = update => updated?,
            () = reading => unreachable!("it never ends"),
        };
        if let Updated::Refused(Some(error)) = updated {
            return Err(error);
        }
        let verdict = verdict.lock().take();
        verdict.ok_or_else(|| TableError::OutcomeUnknown.into())
    }

    /// What this Complete comes to, by the upload's newest row, its parts, and the version that would be replaced.
    #[allow(clippy::too_many_arguments)]
    async fn judge(
        &self,
        bucket: &BucketRef,
        group: &Group,
        held: Option<HeldRow>,
        version: WriteId,
        list_digest: [u8; 32],
        request: &CompleteRequest<'_>,
        reads: &Reads<'_>,
        context: RequestContext,
    ) -> Result<Verdict, ModelError> {
        let upload = UploadRow::from_stored(&held.ok_or(ClientError::NoSuchUpload)?.content)?;
        match &upload.state {
            UploadState::Completed(completion) if completion.list_digest == list_digest => {
                return Ok(Verdict::Over(completion.clone().into_stored(&upload)));
            }
            UploadState::Completed(_) | UploadState::Aborted => return Err(ClientError::NoSuchUpload.into()),
            UploadState::Completing(completion) => {
                let (completion, payload) = (completion.clone(), None);
                return Ok(Verdict::Underway(Carrier { upload, completion, payload }));
            }
            UploadState::Open => {}
        }
        let stored = reads.parts.clone().await.map_err(|error| shared_error(&error))?;
        let newest = reads.newest.clone().await.map_err(|error| shared_error(&error))?;
        let chosen = choose(&stored, request.parts)?;
        let replaces = self.objects.may_replace(request.condition, newest.as_ref())?;
        let first = self.objects.tables.cluster().tick(Stamp::ZERO).await.map_err(clock_failed)?;
        let version = bucket.versioning.id_of(version, self.objects.now_ms());
        let mut completion = self.completion(&upload, &chosen, version, first, replaces, list_digest, request)?;
        completion.versioning = bucket.versioning;
        let mut locked = ObjectMeta { headers: upload.headers.clone(), ..ObjectMeta::default() };
        self.objects.lock_by_default(bucket, &mut locked).await?;
        completion.retention = locked.headers.lock.retention;
        let head = self.head_blocks(group, &chosen, context).await?;
        let parts = chosen.iter().map(NumberedPart::as_ref).collect();
        let payload = Some(Payload::Parts { parts, head }.into_companions(version));
        Ok(Verdict::Decided(Carrier { upload, completion, payload }))
    }

    #[allow(clippy::too_many_arguments)]
    fn completion(
        &self,
        upload: &UploadRow,
        chosen: &[NumberedPart],
        version: WriteId,
        first: Stamp,
        replaces: Replaces,
        list_digest: [u8; 32],
        request: &CompleteRequest<'_>,
    ) -> Result<Completion, ModelError> {
        let size_bytes = check_sizes(chosen)?;
        if let Some(expected) = request.size_bytes.filter(|expected| *expected != size_bytes) {
            let text =
                format!("The provided 'x-amz-mp-object-size' header value {expected} does not match what was computed: {size_bytes}");
            return Err(ClientError::Invalid(text).into());
        }
        Ok(Completion {
            version,
            first,
            replaces,
            part_count: chosen.len() as u32,
            etag: multipart_etag(chosen),
            size_bytes,
            modified_ms: self.objects.now_ms(),
            checksum: object_checksum(upload, chosen, request)?,
            list_digest,
            versioning: Versioning::Off,
            retention: upload.headers.lock.retention,
        })
    }

    /// The stored parts among those numbers that the client lists, in one round trip.
    async fn listed_parts(
        &self,
        group: &Group,
        upload: UploadId,
        listed: &[CompletedPart],
        context: RequestContext,
    ) -> Result<Vec<NumberedPart>, ModelError> {
        let mut ranges: BTreeMap<u16, (u16, u16)> = BTreeMap::new();
        for number in listed.iter().map(|part| part.part_number).filter(|number| (1..=PART_NUMBER_MAX).contains(number)) {
            // Runs of numbers of which one answer holds all.
            let (from, to) = ranges.entry((number - 1) / RANGE_ROWS_MAX as u16).or_insert((number, number));
            (*from, *to) = ((*from).min(number), (*to).max(number));
        }
        let range = |(from, to): (u16, u16)| -> SortKeyRange { (part_key(upload, from), Some(part_key(upload, to + 1))) };
        let ranges = ranges.into_values().map(range).collect();
        let page = self.objects.tables.ranges(group, PART, ranges, RANGE_ROWS_MAX as u32, context).await?;
        let numbered = page.rows.into_iter().filter_map(|(key, row)| Some((part_number_of(&key.0)?, row)));
        numbered.map(|(number, row)| Ok(NumberedPart { number, row: PartRow::from_stored(&row.content)? })).collect()
    }

    /// The first blocks of the object to be, so that reading it can start with its row.
    async fn head_blocks(
        &self,
        group: &Group,
        parts: &[NumberedPart],
        context: RequestContext,
    ) -> Result<Vec<garage_block::manager::BlockRef>, ModelError> {
        let Some(first) = parts.first() else { return Ok(Vec::new()) };
        let chunks = self.objects.tables.companions(group, first.row.id, 0, 1, context).await?;
        match chunks.first().map(chunk_of).transpose()? {
            Some(PayloadChunk::Blocks(mut blocks)) => {
                blocks.truncate(HEAD_BLOCKS);
                Ok(blocks)
            }
            _ => Ok(Vec::new()),
        }
    }
}

impl NumberedPart {
    fn as_ref(&self) -> PartRef {
        PartRef { id: self.row.id, part_number: self.number, size_bytes: self.row.size_bytes, checksum: self.row.checksum.clone() }
    }
}

fn shared_error(error: &ModelError) -> ModelError {
    match error {
        ModelError::Table(error) => ModelError::Table(error.clone()),
        other => TableError::Damaged { reason: other.to_string() }.into(),
    }
}

fn check_order(parts: &[CompletedPart]) -> Result<(), ClientError> {
    if parts.is_empty() {
        return Err(ClientError::Invalid("You must specify at least one part".to_string()));
    }
    let ascending = parts.windows(2).all(|pair| pair[0].part_number < pair[1].part_number);
    if ascending { Ok(()) } else { Err(ClientError::InvalidPartOrder) }
}

/// The stored parts that the client lists, in its order.
fn choose(stored: &[NumberedPart], listed: &[CompletedPart]) -> Result<Vec<NumberedPart>, ClientError> {
    debug_assert!(stored.windows(2).all(|pair| pair[0].number < pair[1].number), "parts are read in order");
    let choose_one = |listed: &CompletedPart| {
        let found = stored.binary_search_by_key(&listed.part_number, |part| part.number).ok().map(|index| &stored[index]);
        let found = found.filter(|part| part.row.etag == listed.etag);
        let fits = |part: &&NumberedPart| match (&listed.checksum, &part.row.checksum) {
            (Some(listed), Some(stored)) => listed.algorithm == stored.algorithm && listed.value == stored.value,
            (Some(_), None) => false,
            (None, _) => true,
        };
        let invalid = || ClientError::InvalidPart { part_number: listed.part_number, etag: listed.etag.clone() };
        found.filter(fits).cloned().ok_or_else(invalid)
    };
    listed.iter().map(choose_one).collect()
}

fn check_sizes(parts: &[NumberedPart]) -> Result<u64, ClientError> {
    let all_but_last = parts.split_last().map_or(&[][..], |(_, others)| others);
    if let Some(part) = all_but_last.iter().find(|part| part.row.size_bytes < PART_MIN_BYTES) {
        let etag = part.row.etag.clone();
        return Err(ClientError::PartTooSmall {
            part_number: part.number,
            size_bytes: part.row.size_bytes,
            min_bytes: PART_MIN_BYTES,
            etag,
        });
    }
    let size_bytes = parts.iter().map(|part| part.row.size_bytes).sum();
    if OBJECT_MAX_BYTES < size_bytes { Err(ClientError::TooLarge { size_bytes, max_bytes: OBJECT_MAX_BYTES }) } else { Ok(size_bytes) }
}

/// MD5 of the parts' MD5s, with their number; AWS S3 API, CompleteMultipartUpload.
fn multipart_etag(parts: &[NumberedPart]) -> String {
    use md5::Digest;
    let mut hasher = md5::Md5::new();
    for part in parts {
        hasher.update(hex::decode(&part.row.etag).unwrap_or_default());
    }
    format!("{}-{}", to_hex(&hasher.finalize()), parts.len())
}

fn object_checksum(
    upload: &UploadRow,
    parts: &[NumberedPart],
    request: &CompleteRequest<'_>,
) -> Result<Option<StoredChecksum>, ClientError> {
    let Some((algorithm, kind)) = upload.checksum else { return Ok(None) };
    let of_parts: Option<Vec<(StoredChecksum, u64)>> =
        parts.iter().map(|part| part.row.checksum.clone().map(|checksum| (checksum, part.row.size_bytes))).collect();
    let Some(of_parts) = of_parts else { return Ok(None) };
    // Where the client named no algorithm, the one that came with all parts is the object's.
    let (algorithm, kind) = match of_parts.first() {
        Some((first, _)) if !upload.checksum_explicit => (first.algorithm, kind_over_parts(first.algorithm)),
        _ => (algorithm, kind),
    };
    let is_uniform = of_parts.iter().all(|(checksum, _)| checksum.algorithm == algorithm);
    let computed = if is_uniform { (request.combine)(&of_parts, kind) } else { None };
    let is_same = |given: &StoredChecksum| {
        computed.as_ref().is_some_and(|computed| (given.algorithm, &given.value) == (computed.algorithm, &computed.value))
    };
    if request.checksum.as_ref().is_some_and(|given| !is_same(given)) {
        return Err(ClientError::BadDigest("The checksum you specified did not match the calculated checksum.".to_string()));
    }
    Ok(computed)
}

/// What can be computed from parts alone: CRCs combine to that of the whole.
fn kind_over_parts(algorithm: ChecksumAlgorithm) -> ChecksumType {
    match algorithm {
        ChecksumAlgorithm::Crc32 | ChecksumAlgorithm::Crc32c | ChecksumAlgorithm::Crc64Nvme => ChecksumType::FullObject,
        _ => ChecksumType::Composite,
    }
}

fn digest_of(parts: &[CompletedPart]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&part.part_number.to_be_bytes());
        hasher.update(&(part.etag.len() as u64).to_be_bytes());
        hasher.update(part.etag.as_bytes());
    }
    *hasher.finalize().as_bytes()
}
