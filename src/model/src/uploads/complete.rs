//! Completing an upload: prepare and the parts list, the decision, the version: three round trips.

use futures::{FutureExt, future::Shared};
use garage_rpc::register::WriteId;
use garage_table::{
    Group, SortKey,
    group::{Decision, RegisterWrite, RequestContext, SharedWrite, Updated},
    message::{HeldRow, RANGE_ROWS_MAX},
};
use garage_util::{encoding::Stored, hlc::Stamp, id::to_hex};

use super::Uploads;
use crate::{
    error::{ClientError, ModelError},
    limits::{OBJECT_MAX_BYTES, PART_MIN_BYTES},
    objects::{BucketRef, StoredObject, WriteCondition, clock_failed},
    rows::{
        PART, UPLOAD, VERSION,
        checksum::{ChecksumAlgorithm, ChecksumKind, StoredChecksum},
        object::{ObjectMeta, VersionRow, null_slot},
        part::{PartRow, part_number_of},
        payload::{HEAD_BLOCKS, PartRef, Payload, PayloadChunk, chunk_of},
        upload::{Completion, UploadId, UploadRow, UploadState, upload_key},
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
pub type Combine<'a> = &'a (dyn Fn(&[(StoredChecksum, u64)], ChecksumKind) -> Option<StoredChecksum> + Send + Sync);

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
pub(super) struct NumberedPart {
    pub number: u16,
    pub row: PartRow,
}

/// Errors are shared by all who wait for one read.
type SharedParts = Result<Vec<NumberedPart>, std::sync::Arc<ModelError>>;

/// What the decision found, kept for the version to be written.
struct Plan {
    upload: UploadRow,
    completion: Completion,
    parts: Vec<NumberedPart>,
}

impl Uploads {
    /// Completes an upload. Errors: `NoSuchUpload`, `InvalidPart`, `InvalidPartOrder`, `PartTooSmall`, `PreconditionFailed`, …; the upload
    /// then stays open. A repeat with the same parts is answered like the first.
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
        let group = bucket.group_of(key);
        let plan = self.decide_completion(&group, key, upload, &request, step).await?;
        let condition = if plan.already_written { WriteCondition::default() } else { request.condition.clone() };
        let head = self.head_blocks(&group, &plan.plan.parts, step).await?;
        let Plan { upload: row, completion, parts } = plan.plan;
        let stored = StoredObject {
            version: completion.version,
            etag: completion.etag.clone(),
            size_bytes: completion.size_bytes,
            modified_ms: completion.modified_ms,
            checksum: completion.checksum.clone(),
        };
        if plan.already_written {
            return Ok(stored);
        }
        let meta = ObjectMeta {
            size_bytes: completion.size_bytes,
            etag: completion.etag.clone(),
            modified_ms: completion.modified_ms,
            headers: row.headers.clone(),
            checksum: completion.checksum.clone(),
            part_count: Some(parts.len() as u32),
        };
        let write = RegisterWrite {
            table: VERSION,
            key: null_slot(key),
            id: completion.version,
            content: VersionRow::Object(Box::new(meta)).to_stored(),
            companions: Payload::Parts { parts: parts.iter().map(NumberedPart::as_ref).collect(), head }
                .into_companions(completion.version),
        };
        let shared = SharedWrite { first: completion.first, is_first: !plan.already_decided };
        let written = self.objects.write_shared_version(&group, write, shared, &condition, step).await;
        self.finish(&group, key, upload, &row, &completion, &written, step).await;
        written?;
        Ok(stored)
    }

    async fn decide_completion(
        &self,
        group: &Group,
        key: &str,
        upload: UploadId,
        request: &CompleteRequest<'_>,
        context: RequestContext,
    ) -> Result<Decided, ModelError> {
        let parts = self.parts_of(group, upload, context).map(|parts| parts.map_err(std::sync::Arc::new)).boxed().shared();
        let planned = parking_lot::Mutex::new(None);
        let list_digest = digest_of(request.parts);
        let decide = |version: WriteId, held: Option<HeldRow>| {
            let (parts, planned) = (parts.clone(), &planned);
            async move {
                match self.plan(held, version, list_digest, request, parts).await {
                    Ok(decided) if decided.already_decided => {
                        *planned.lock() = Some(decided);
                        Decision::Refuse(None)
                    }
                    Ok(decided) => {
                        let state = UploadState::Completing(decided.plan.completion.clone());
                        let content = UploadRow { state, ..decided.plan.upload.clone() }.to_stored();
                        *planned.lock() = Some(decided);
                        Decision::Write { content, companions: Vec::new() }
                    }
                    Err(error) => Decision::Refuse(Some(error)),
                }
            }
            .boxed()
        };
        // The parts are read while the ballot is prepared.
        let update = self.objects.tables.update(group, UPLOAD, upload_key(key, upload), context, decide);
        let (updated, _) = futures::future::join(update, parts.clone()).await;
        if let Updated::Refused(Some(error)) = updated? {
            return Err(error);
        }
        let decided = planned.lock().take();
        decided.ok_or_else(|| garage_table::group::TableError::OutcomeUnknown.into())
    }

    /// What this Complete comes to, by the upload's newest row and its parts.
    async fn plan(
        &self,
        held: Option<HeldRow>,
        version: WriteId,
        list_digest: [u8; 32],
        request: &CompleteRequest<'_>,
        parts: Shared<futures::future::BoxFuture<'_, SharedParts>>,
    ) -> Result<Decided, ModelError> {
        let upload = UploadRow::from_stored(&held.ok_or(ClientError::NoSuchUpload)?.content)?;
        let parts = parts.await.map_err(|error| shared_error(&error))?;
        match &upload.state {
            UploadState::Completing(completion) | UploadState::Completed(completion) if completion.list_digest == list_digest => {
                let already_written = matches!(upload.state, UploadState::Completed(_));
                let chosen = choose(&parts, request.parts)?;
                let plan = Plan { completion: completion.clone(), parts: chosen, upload };
                Ok(Decided { plan, already_decided: true, already_written })
            }
            UploadState::Open => {
                let chosen = choose(&parts, request.parts)?;
                let first = self.objects.tables.cluster().tick(Stamp::ZERO).await.map_err(clock_failed)?;
                let completion = self.completion(&upload, &chosen, version, first, list_digest, request)?;
                Ok(Decided { plan: Plan { upload, completion, parts: chosen }, already_decided: false, already_written: false })
            }
            _ => Err(ClientError::NoSuchUpload.into()),
        }
    }

    fn completion(
        &self,
        upload: &UploadRow,
        chosen: &[NumberedPart],
        version: WriteId,
        first: Stamp,
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
            etag: multipart_etag(chosen),
            size_bytes,
            modified_ms: self.objects.now_ms(),
            checksum: object_checksum(upload, chosen, request)?,
            list_digest,
        })
    }

    /// All parts of an upload, in order of their numbers.
    pub(super) async fn parts_of(&self, group: &Group, upload: UploadId, context: RequestContext) -> Result<Vec<NumberedPart>, ModelError> {
        let end = garage_table::key::after_prefix(upload.as_bytes()).map(SortKey);
        let (mut all, mut from) = (Vec::new(), SortKey(upload.as_bytes().to_vec()));
        loop {
            let page = self.objects.tables.range(group, PART, from, end.clone(), RANGE_ROWS_MAX as u32, context).await?;
            let last = page.rows.last().map(|(key, _)| key.clone());
            for (key, row) in page.rows {
                let Some(number) = part_number_of(&key.0) else { continue };
                all.push(NumberedPart { number, row: PartRow::from_stored(&row.content)? });
            }
            match last {
                Some(last) if page.truncated => from = SortKey([&last.0[..], &[0]].concat()),
                _ => return Ok(all),
            }
        }
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

    /// Notes that the version was written; if the condition failed, the upload is open again. Best effort: a repeat does the same.
    #[allow(clippy::too_many_arguments)]
    async fn finish(
        &self,
        group: &Group,
        key: &str,
        upload: UploadId,
        row: &UploadRow,
        completion: &Completion,
        written: &Result<(), ModelError>,
        context: RequestContext,
    ) {
        let state = match written {
            Ok(()) => UploadState::Completed(completion.clone()),
            Err(ModelError::Client(_)) => UploadState::Open,
            // Whether the version is there is not known: it stays in completion, and a repeat finds out.
            Err(_) => return,
        };
        let content = UploadRow { state, ..row.clone() }.to_stored();
        let (tables, group, sort_key) = (self.objects.tables.clone(), group.clone(), upload_key(key, upload));
        let completing = completion.clone();
        let noted = async move {
            let decide = |_: WriteId, held: Option<HeldRow>| {
                let is_ours = held
                    .and_then(|held| UploadRow::from_stored(&held.content).ok())
                    .is_some_and(|held| held.state == UploadState::Completing(completing.clone()));
                let decision =
                    if is_ours { Decision::Write { content: content.clone(), companions: Vec::new() } } else { Decision::Refuse(()) };
                std::future::ready(decision).boxed()
            };
            if let Err(error) = tables.update(&group, UPLOAD, sort_key, context, decide).await {
                tracing::debug!(%error, "the end of a multipart upload was not noted; a repeat will do it");
            }
        };
        match written {
            Ok(()) => self.objects.tables.cluster().runtime().clone().spawn("note completed upload", noted),
            Err(_) => noted.await,
        }
    }
}

struct Decided {
    plan: Plan,
    /// The upload's row says already what is to be done.
    already_decided: bool,
    /// The version is there.
    already_written: bool,
}

impl NumberedPart {
    fn as_ref(&self) -> PartRef {
        PartRef { id: self.row.id, part_number: self.number, size_bytes: self.row.size_bytes, checksum: self.row.checksum.clone() }
    }
}

fn shared_error(error: &ModelError) -> ModelError {
    match error {
        ModelError::Table(error) => ModelError::Table(error.clone()),
        other => garage_table::group::TableError::Damaged { reason: other.to_string() }.into(),
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
    let choose_one = |listed: &CompletedPart| {
        let found = stored.iter().find(|part| part.number == listed.part_number && part.row.etag == listed.etag);
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
fn kind_over_parts(algorithm: ChecksumAlgorithm) -> ChecksumKind {
    match algorithm {
        ChecksumAlgorithm::Crc32 | ChecksumAlgorithm::Crc32c | ChecksumAlgorithm::Crc64Nvme => ChecksumKind::FullObject,
        ChecksumAlgorithm::Sha1 | ChecksumAlgorithm::Sha256 => ChecksumKind::Composite,
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
