//! Multipart uploads: create, upload parts, complete, abort.
//!
//! Source: s3 reference §3.8, §3.9.

use garage_api_common::{
    ErrorCode, S3Error,
    checksum::{ChecksumAlgorithm, ChecksumType, ChecksumValue, algorithm_named, check_type, completion_value, type_named},
    conditions::{WriteCondition as ParsedCondition, unquote},
    http::Body,
    payload::BodySpec,
    ranges::resolve_copy_range,
    xml::{Element, XmlWriter, malformed, parse},
};
use garage_model::{
    ModelError,
    encryption::{CustomerKey, Encryption},
    error::ClientError,
    limits::SINGLE_PUT_MAX_BYTES,
    rows::{checksum::StoredChecksum, part::PART_NUMBER_MAX, upload::UploadId},
    uploads::{ChecksumOfUpload, CompleteRequest, CompletedPart, NewUpload, PartRange, is_under_cluster_key, may_be_encrypted},
};
use http::{HeaderName, Response, StatusCode};

use crate::{
    answer, checksums,
    content::VerifiedContent,
    copy::{Copied, find_source, render},
    encryption,
    error::{Subject, too_large},
    headers, known_headers,
    labels::add_labels,
    lifecycle,
    limits::LONG_XML_MAX_BYTES,
    list::Encoding,
    lock,
    request::{IncomingBody, Request, Services, Target, write_condition},
    versioning,
};

/// An upload that a request names.
pub struct NamedUpload<'a> {
    /// As the client sent it.
    pub text: &'a str,
    /// Parsed.
    pub id: UploadId,
}

impl<'a> NamedUpload<'a> {
    /// The upload in the query. Errors: 404 `NoSuchUpload` for what is no id of ours.
    pub fn of(request: &'a Request) -> Result<NamedUpload<'a>, S3Error> {
        let text = request.query.get("uploadId").unwrap_or_default();
        let id = text.parse().map_err(|_| S3Error::no_such_upload(text))?;
        Ok(NamedUpload { text, id })
    }
    /// For errors.
    pub fn subject<'s>(&self, target: &'s Target) -> Subject<'s>
    where
        'a: 's,
    {
        Subject { upload: self.text, ..target.subject() }
    }
    /// Whether a request about its parts' checksums needs the key that they are under.
    fn needs_key(&self) -> bool {
        may_be_encrypted(self.id) && !is_under_cluster_key(self.id) && self.named_algorithm().is_some()
    }
    /// The algorithm that its parts must have, if its client named one.
    fn named_algorithm(&self) -> Option<ChecksumAlgorithm> {
        ChecksumOfUpload::of(self.id).filter(|told| told.explicit).map(|told| told.checksum.0)
    }
}

/// POST of a new upload.
pub async fn create(services: &Services, target: &Target, request: &Request) -> Result<Response<Body>, S3Error> {
    headers::refuse_on_write(&request.headers)?;
    known_headers::refuse_conditions(&request.headers)?;
    let mut stored_headers = headers::object_headers(&request.headers)?;
    lock::check(target, request, &stored_headers.lock)?;
    add_labels(services, target, request, &mut stored_headers).await?;
    let asked = asked_checksum(request)?;
    let (algorithm, kind) = asked.unwrap_or((checksums::DEFAULT, ChecksumType::FullObject));
    let encryption = stored_headers.encryption.clone();
    let new = NewUpload {
        headers: stored_headers,
        initiator: request.sender_id().to_owned(),
        checksum: Some((algorithm, kind)),
        checksum_explicit: asked.is_some(),
    };
    let created = services.uploads.create(&target.bucket_ref(), &target.key, new, request.context()).await;
    let id = created.map_err(|error| target.subject().error(error))?;
    let mut xml = XmlWriter::s3_document("InitiateMultipartUploadResult");
    xml.text("Bucket", &target.bucket_name).text("Key", &target.key).text("UploadId", &id.to_string());
    xml.close("InitiateMultipartUploadResult");
    let mut response = answer::xml(xml.finish());
    encryption::write_headers(response.headers_mut(), request, encryption.as_ref());
    lifecycle::add_abort(response.headers_mut(), target, request.now_ms);
    if let Some((algorithm, kind)) = asked {
        let out = response.headers_mut();
        headers::put(out, HeaderName::from_static("x-amz-checksum-algorithm"), algorithm.name());
        headers::put(out, HeaderName::from_static("x-amz-checksum-type"), kind.name());
    }
    Ok(response)
}

fn asked_checksum(request: &Request) -> Result<Option<(ChecksumAlgorithm, ChecksumType)>, S3Error> {
    let algorithm = request.header("x-amz-checksum-algorithm")?.map(algorithm_named).transpose()?;
    let kind = request.header("x-amz-checksum-type")?.map(type_named).transpose()?;
    match (algorithm, kind) {
        (None, None) => Ok(None),
        (None, Some(_)) => {
            Err(S3Error::invalid_request("The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header."))
        }
        (Some(algorithm), kind) => {
            let kind = kind.unwrap_or(algorithm.default_type());
            check_type(algorithm, kind)?;
            Ok(Some((algorithm, kind)))
        }
    }
}

/// PUT of a part.
pub async fn upload_part(services: &Services, target: &Target, request: &Request, body: IncomingBody) -> Result<Response<Body>, S3Error> {
    headers::refuse_on_write(&request.headers)?;
    headers::refuse_labels(&request.headers)?;
    known_headers::refuse_on_part(&request.headers)?;
    known_headers::refuse_conditions(&request.headers)?;
    known_headers::refuse_placement(&request.headers)?;
    let part_number = part_number(request)?;
    let upload = NamedUpload::of(request)?;
    let encryption = part_encryption(services, target, request, &upload).await?;
    let spec = body.spec()?;
    let size_bytes = spec.required_length_bytes()?;
    if SINGLE_PUT_MAX_BYTES < size_bytes {
        return Err(too_large(size_bytes, SINGLE_PUT_MAX_BYTES));
    }
    check_integrity(services, target, request, &upload, &spec).await?;
    let declared = spec.declared().algorithm();
    // Without a choice of the upload's, a part keeps the checksum that came with it.
    let kept = upload.named_algorithm().or(declared).unwrap_or(checksums::DEFAULT);
    let mismatch = declared.filter(|declared| *declared != kept);
    if request.client_waits || mismatch.is_some() {
        let open = services.uploads.get(&target.bucket_ref(), &target.key, upload.id, request.context()).await;
        open.map_err(|error| upload.subject(target).error(error))?;
    }
    if let Some(declared) = mismatch {
        return Err(checksum_mismatch(kept, declared));
    }
    let content = VerifiedContent::new(body.open(spec.compute(kept)), kept, ChecksumType::FullObject);
    let (bucket, context) = (target.bucket_ref(), request.stream_context());
    let uploads = &services.uploads;
    let put = uploads.put_sealed_part(&bucket, &target.key, upload.id, part_number, Box::new(content), encryption.as_ref(), context);
    let stored = put.await.map_err(|error| upload.subject(target).error(error))?;
    let mut response = answer::empty(StatusCode::OK);
    answer::add_part(response.headers_mut(), &stored.etag, stored.checksum.as_ref());
    encryption::write_headers(response.headers_mut(), request, encryption.as_ref());
    Ok(response)
}

/// A part of what will be locked must prove that it arrived whole. Errors: 400 `InvalidRequest`.
async fn check_integrity(
    services: &Services,
    target: &Target,
    request: &Request,
    upload: &NamedUpload<'_>,
    spec: &BodySpec,
) -> Result<(), S3Error> {
    let Err(unproven) = spec.require_integrity() else { return Ok(()) };
    if target.bucket.row.object_lock.is_none() {
        return Ok(());
    }
    let row = services.uploads.get(&target.bucket_ref(), &target.key, upload.id, request.context()).await;
    let row = row.map_err(|error| upload.subject(target).error(error))?;
    if lock::needs_integrity(target, &row.headers.lock) { Err(unproven) } else { Ok(()) }
}

/// How a part is to be encrypted: as its upload, with the same key. Errors: 400 `InvalidRequest`.
async fn part_encryption(
    services: &Services,
    target: &Target,
    request: &Request,
    upload: &NamedUpload<'_>,
) -> Result<Option<Encryption>, S3Error> {
    headers::refuse_on_read(&request.headers)?;
    let key = encryption::customer_key(&request.headers, encryption::OWN_KEY)?;
    if key.is_none() && !may_be_encrypted(upload.id) {
        return Ok(None);
    }
    let row = services.uploads.get(&target.bucket_ref(), &target.key, upload.id, request.context()).await;
    let row = row.map_err(|error| upload.subject(target).error(error))?;
    opened_for_upload(services, row.headers.encryption.as_ref(), key.as_ref())
}

fn opened_for_upload(
    services: &Services,
    encryption: Option<&Encryption>,
    key: Option<&CustomerKey>,
) -> Result<Option<Encryption>, S3Error> {
    encryption::open(services, encryption, key).map_err(|error| match error.code {
        ErrorCode::AccessDenied | ErrorCode::InvalidRequest => {
            S3Error::invalid_request("The provided encryption parameters did not match the ones used originally.")
        }
        _ => error,
    })
}

/// The key of an upload under its client's key, of a request that needs it only to tell checksums, or in order not to be refused.
///
/// Errors: 400 `InvalidRequest` for a wrong key, and for none where the upload's client named a checksum.
/// Source: AWS S3 API, CompleteMultipartUpload and ListParts, `x-amz-server-side-encryption-customer-algorithm`.
pub fn check_key(services: &Services, request: &Request, upload: &NamedUpload<'_>, held: Option<&Encryption>) -> Result<(), S3Error> {
    let key = encryption::customer_key(&request.headers, encryption::OWN_KEY)?;
    if key.is_none() && !upload.needs_key() {
        return Ok(());
    }
    opened_for_upload(services, held, key.as_ref()).map(drop)
}

/// The same before an upload is completed. One that is not open says so itself, and one that was completed before is answered as then.
async fn check_key_of_open(services: &Services, target: &Target, request: &Request, upload: &NamedUpload<'_>) -> Result<(), S3Error> {
    if encryption::customer_key(&request.headers, encryption::OWN_KEY)?.is_none() && !upload.needs_key() {
        return Ok(());
    }
    match services.uploads.get(&target.bucket_ref(), &target.key, upload.id, request.context()).await {
        Ok(row) => check_key(services, request, upload, row.headers.encryption.as_ref()),
        Err(ModelError::Client(ClientError::NoSuchUpload)) => Ok(()),
        Err(error) => Err(upload.subject(target).error(error)),
    }
}

fn checksum_mismatch(expected: ChecksumAlgorithm, actual: ChecksumAlgorithm) -> S3Error {
    let (expected, actual) = (expected.name().to_ascii_lowercase(), actual.name().to_ascii_lowercase());
    S3Error::invalid_request(format!("Checksum Type mismatch occurred, expected checksum Type: {expected}, actual checksum Type: {actual}"))
}

/// Errors: 400 `InvalidArgument`.
fn part_number(request: &Request) -> Result<u16, S3Error> {
    let text = request.query.get("partNumber").unwrap_or_default();
    part_number_of(text).ok_or_else(|| invalid_part_number(text))
}
fn part_number_of(text: &str) -> Option<u16> {
    text.trim().parse().ok().filter(|number| (1..=PART_NUMBER_MAX).contains(number))
}
fn invalid_part_number(text: &str) -> S3Error {
    S3Error::invalid_argument("Part number must be an integer between 1 and 10000, inclusive", "partNumber", text)
}

/// PUT of a part with the content of an object, or of a range of it.
pub async fn upload_part_copy(services: &Services, target: &Target, request: &Request) -> Result<Response<Body>, S3Error> {
    headers::refuse_on_write(&request.headers)?;
    headers::refuse_labels(&request.headers)?;
    known_headers::refuse_on_part(&request.headers)?;
    known_headers::refuse_conditions(&request.headers)?;
    let part_number = part_number(request)?;
    let upload = NamedUpload::of(request)?;
    let encryption = part_encryption(services, target, request, &upload).await?;
    let source = find_source(services, request).await?;
    let size_bytes = source.found.meta.size_bytes;
    let range = match request.header("x-amz-copy-source-range")? {
        Some(header) => resolve_copy_range(header, size_bytes)?,
        None => 0..size_bytes,
    };
    let len_bytes = range.end - range.start;
    if SINGLE_PUT_MAX_BYTES < len_bytes {
        return Err(S3Error::invalid_request(format!(
            "The specified copy source is larger than the maximum allowable size for a copy source: {SINGLE_PUT_MAX_BYTES}"
        )));
    }
    let (bucket, context) = (target.bucket_ref(), request.stream_context());
    let content = services.uploads.part_source(PartRange { found: &source.found, range }, context);
    let kept = upload.named_algorithm().unwrap_or(checksums::DEFAULT);
    let content = VerifiedContent::of_copy(&services.runtime, content, len_bytes, kept, ChecksumType::FullObject)?;
    let uploads = &services.uploads;
    let put = uploads.put_sealed_part(&bucket, &target.key, upload.id, part_number, Box::new(content), encryption.as_ref(), context);
    let stored = put.await.map_err(|error| upload.subject(target).error(error))?;
    let copied = Copied { modified_ms: stored.modified_ms, etag: stored.etag, checksum: stored.checksum };
    let mut response = answer::xml(render("CopyPartResult", &copied));
    encryption::write_headers(response.headers_mut(), request, encryption.as_ref());
    source.add_version(response.headers_mut());
    Ok(response)
}

/// POST of the list of parts that make up the object.
pub async fn complete(services: &Services, target: &Target, request: &Request, body: IncomingBody) -> Result<Response<Body>, S3Error> {
    headers::refuse_on_write(&request.headers)?;
    headers::refuse_labels(&request.headers)?;
    let upload = NamedUpload::of(request)?;
    let condition = write_condition(ParsedCondition::parse(&request.headers)?);
    let size_bytes = object_size(request)?;
    // Checksum headers speak of the object here, so they are not promises about this body.
    let document = body.without_checksum().read(LONG_XML_MAX_BYTES).await?;
    if document.iter().all(u8::is_ascii_whitespace) {
        return Err(S3Error::invalid_request("You must specify at least one part"));
    }
    let document = parse(&document, &["CompleteMultipartUpload"])?;
    let listed = document.children_named("Part").map(read_part).collect::<Result<Vec<ListedPart>, S3Error>>()?;
    if listed.is_empty() {
        return Err(malformed());
    }
    let told = ChecksumOfUpload::of(upload.id);
    let parts = listed.iter().map(|part| part.to_completed(told)).collect::<Result<Vec<_>, S3Error>>()?;
    let checksum = object_checksum(request, told, parts.len())?;
    check_key_of_open(services, target, request, &upload).await?;
    let subject = Subject { conditional: !condition.is_none(), ..upload.subject(target) };
    let wanted = CompleteRequest { parts: &parts, condition: &condition, checksum, size_bytes, combine: &checksums::combine };
    let (bucket, context) = (target.bucket_ref(), request.context());
    let stored = services.uploads.complete(&bucket, &target.key, upload.id, wanted, context).await.map_err(|error| subject.error(error))?;
    let mut xml = XmlWriter::s3_document("CompleteMultipartUploadResult");
    xml.text("Location", &format!("{}/{}", request.base_url, Encoding::Url.apply(&target.key).replace('+', "%20")));
    xml.text("Bucket", &target.bucket_name).text("Key", &target.key).text("ETag", &headers::quoted(&stored.etag));
    checksums::write_xml(&mut xml, stored.checksum.as_ref(), u32::try_from(parts.len()).ok(), true);
    xml.close("CompleteMultipartUploadResult");
    let mut response = answer::xml(xml.finish());
    if is_under_cluster_key(upload.id) {
        headers::put(response.headers_mut(), HeaderName::from_static("x-amz-server-side-encryption"), "AES256");
    }
    versioning::add_new_version(response.headers_mut(), stored.slot);
    lifecycle::add_expiration(response.headers_mut(), target, &stored);
    Ok(response)
}

fn object_size(request: &Request) -> Result<Option<u64>, S3Error> {
    const NAME: &str = "x-amz-mp-object-size";
    let Some(text) = request.header(NAME)? else { return Ok(None) };
    text.parse().map(Some).map_err(|_| S3Error::invalid_argument("The object size must be a number of bytes", NAME, text))
}

/// The whole object's checksum, if the client names one. Errors: 400 `InvalidRequest`, `BadDigest`.
fn object_checksum(request: &Request, told: Option<ChecksumOfUpload>, part_count: usize) -> Result<Option<StoredChecksum>, S3Error> {
    let kind = request.header("x-amz-checksum-type")?.map(type_named).transpose()?;
    let own_kind = told.map_or(ChecksumType::FullObject, |told| told.checksum.1);
    if kind.is_some_and(|kind| kind != own_kind) {
        let message = "The checksum type that you specified did not match the checksum type of the upload.";
        return Err(S3Error::new(ErrorCode::BadDigest, message));
    }
    let Some((value, count)) = completion_value(&request.headers)? else { return Ok(None) };
    let named = told.filter(|told| told.explicit).map(|told| told.checksum.0);
    if let Some(named) = named.filter(|named| *named != value.algorithm()) {
        return Err(checksum_mismatch(named, value.algorithm()));
    }
    if count.is_some_and(|count| count != part_count) {
        let message = format!("The {} you specified did not match the calculated checksum.", value.algorithm().name());
        return Err(S3Error::new(ErrorCode::BadDigest, message));
    }
    Ok(Some(checksums::stored(&value, own_kind)))
}

/// A part as the document lists it.
struct ListedPart {
    number: u16,
    etag: String,
    checksums: Vec<ChecksumValue>,
}

fn read_part(element: &Element) -> Result<ListedPart, S3Error> {
    let number = element.required("PartNumber")?;
    let number = match number.parse::<i64>() {
        Ok(_) => part_number_of(number).ok_or_else(|| invalid_part_number(number))?,
        Err(_) => return Err(malformed()),
    };
    let etag = unquote(element.required("ETag")?).to_owned();
    let mut values = Vec::new();
    for algorithm in ChecksumAlgorithm::ALL {
        if let Some(text) = element.value_of(algorithm.element()).filter(|text| !text.is_empty()) {
            values.push(ChecksumValue::from_base64(algorithm, text).ok_or_else(malformed)?);
        }
    }
    Ok(ListedPart { number, etag, checksums: values })
}

impl ListedPart {
    /// The part with its checksum, which is held against the stored one. Errors: 400 when the upload's client must name it and did not.
    fn to_completed(&self, told: Option<ChecksumOfUpload>) -> Result<CompletedPart, S3Error> {
        let named = told.filter(|told| told.explicit).map(|told| (told.checksum.0, told.checksum.1));
        let is_meant = |value: &&ChecksumValue| named.is_none_or(|(algorithm, _)| value.algorithm() == algorithm);
        let value = self.checksums.iter().find(is_meant);
        if let (Some((algorithm, ChecksumType::Composite)), None) = (named, value) {
            let name = algorithm.name().to_ascii_lowercase();
            return Err(S3Error::invalid_request(format!(
                "The upload was created using a {name} checksum. The complete request must include the checksum for each part. It was missing for \
                 part {} in the request.",
                self.number
            )));
        }
        let checksum = value.map(|value| checksums::stored(value, ChecksumType::FullObject));
        Ok(CompletedPart { part_number: self.number, etag: self.etag.clone(), checksum })
    }
}

/// DELETE of an upload.
pub async fn abort(services: &Services, target: &Target, request: &Request) -> Result<Response<Body>, S3Error> {
    if request.headers.contains_key("x-amz-if-match-initiated-time") {
        return Err(S3Error::not_implemented("x-amz-if-match-initiated-time"));
    }
    let upload = NamedUpload::of(request)?;
    let aborted = services.uploads.abort(&target.bucket_ref(), &target.key, upload.id, request.context()).await;
    aborted.map_err(|error| upload.subject(target).error(error))?;
    Ok(answer::empty(StatusCode::NO_CONTENT))
}
