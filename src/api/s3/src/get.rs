//! GetObject and HeadObject: conditions first, then which bytes, then the answer's headers, the content last.
//!
//! Source: s3 reference §3.4.

use std::ops::Range;

use garage_api_common::{
    ErrorCode, S3Error,
    conditions::{ReadConditions, ReadVerdict, Validators, if_range_holds},
    http::Body,
    object_body::object_body,
    ranges::{content_range, resolve_range},
    sigv4::AuthForm,
};
use garage_model::{
    objects::{FoundObject, Version},
    policy::actions,
    rows::{
        checksum::StoredChecksum,
        object::{ObjectLock, ObjectMeta},
        part::PART_NUMBER_MAX,
    },
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use garage_table::message::Want;

use crate::{
    answer, encryption, headers, lifecycle, lock,
    request::{Request, Services, Target},
    versioning,
};

/// Query parameters that replace a header of the answer.
const OVERRIDES: [(&str, HeaderName); 6] = [
    ("response-content-type", header::CONTENT_TYPE),
    ("response-content-language", header::CONTENT_LANGUAGE),
    ("response-expires", header::EXPIRES),
    ("response-cache-control", header::CACHE_CONTROL),
    ("response-content-disposition", header::CONTENT_DISPOSITION),
    ("response-content-encoding", header::CONTENT_ENCODING),
];

/// GET of an object.
pub async fn get_object(services: &Services, target: &Target, request: &Request) -> Result<Response<Body>, S3Error> {
    let (found, selected, mut response) = match select(services, target, request, true).await? {
        Selected::Answer(response) => return Ok(response),
        Selected::Bytes(found, selected, response) => (found, selected, response),
    };
    let content = object_body(&services.objects, &found, selected.range, request.stream_context(), target.subject());
    *response.body_mut() = content.await?;
    Ok(response)
}

/// HEAD of an object: the headers of the GET.
pub async fn head_object(services: &Services, target: &Target, request: &Request) -> Result<Response<Body>, S3Error> {
    match select(services, target, request, false).await? {
        Selected::Answer(response) | Selected::Bytes(_, _, response) => Ok(response),
    }
}

/// The object that a request is about: the current one of its key, or the version that it names. Errors: `NoSuchKey`, `NoSuchVersion`, and
/// `MethodNotAllowed` for a delete marker.
pub async fn find(services: &Services, target: &Target, request: &Request, content: bool) -> Result<FoundObject, S3Error> {
    let slot = versioning::requested(request, target)?;
    let want = if content { Want::First } else { Want::Row };
    let found = services.objects.find_version(&target.bucket_ref(), &target.key, slot, want, request.stream_context()).await;
    match found.map_err(|error| target.subject().error(error))? {
        Version::Object(found) => {
            target.check_judged(&found)?;
            Ok(*found)
        }
        Version::Marker(marker) => Err(versioning::marker_error(target, request, marker, slot.is_some())),
        Version::Missing => match slot {
            None => Err(target.no_such_key(request)),
            Some(slot) => Err(versioning::no_such_version(&target.key, &versioning::version_text(slot))),
        },
    }
}

/// What a request selects of an object.
struct Selection {
    range: Range<u64>,
    /// 206 instead of 200.
    partial: bool,
    /// The checksum of exactly these bytes.
    checksum: Option<StoredChecksum>,
    /// Answered with `x-amz-mp-parts-count`.
    part_count: Option<u32>,
}

enum Selected {
    /// Answered without content.
    Answer(Response<Body>),
    /// The headers, and the bytes that go with them.
    Bytes(Box<FoundObject>, Selection, Response<Body>),
}

async fn select(services: &Services, target: &Target, request: &Request, content: bool) -> Result<Selected, S3Error> {
    headers::refuse_on_read(&request.headers)?;
    check_overrides(request)?;
    let part_number = part_number(request)?;
    let mut found = find(services, target, request, content || part_number.is_some()).await?;
    encryption::open_object(services, request, &mut found, encryption::OWN_KEY)?;
    let meta = &found.meta;
    let stored = Validators { etag: &meta.etag, last_modified_ms: meta.modified_ms };
    match ReadConditions::of_read(&request.headers).evaluate(stored, request.now_ms) {
        ReadVerdict::Proceed => {}
        ReadVerdict::NotModified => return Ok(Selected::Answer(not_modified(target, &found))),
        ReadVerdict::Failed(condition) => return Err(S3Error::precondition_failed(condition)),
    }
    let selection = match part_number {
        Some(number) => select_part(services, target, request, &found, number).await?,
        None => select_range(request, meta, stored)?,
    };
    let mut response = answer::empty(if selection.partial { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK });
    write_headers(response.headers_mut(), target, request, &found, &selection)?;
    encryption::write_headers(response.headers_mut(), request, meta.headers.encryption.as_ref());
    if !meta.headers.tags.is_empty() && target.may(request, actions::GET_OBJECT_TAGGING, Some(&found)) {
        response.headers_mut().insert("x-amz-tagging-count", HeaderValue::from(meta.headers.tags.len()));
    }
    Ok(Selected::Bytes(Box::new(found), selection, response))
}

/// Only who signed may choose headers of the answer: else anyone could make a script of what is stored as text. Errors: 400 `InvalidRequest`.
fn check_overrides(request: &Request) -> Result<(), S3Error> {
    if request.sender.form == AuthForm::Anonymous && OVERRIDES.iter().any(|(parameter, _)| request.query.has(parameter)) {
        return Err(S3Error::invalid_request("Request specific response headers cannot be used for anonymous GET requests."));
    }
    Ok(())
}

/// The part that a read asks for. Errors: 400 `InvalidArgument`, `InvalidRequest`.
fn part_number(request: &Request) -> Result<Option<u16>, S3Error> {
    let Some(value) = request.query.get("partNumber") else { return Ok(None) };
    let number = value.parse::<u16>().ok().filter(|number| (1..=PART_NUMBER_MAX).contains(number));
    let number = number
        .ok_or_else(|| S3Error::invalid_argument("Part number must be an integer between 1 and 10000, inclusive", "partNumber", value))?;
    if request.headers.contains_key(header::RANGE) {
        return Err(S3Error::invalid_request("Cannot specify both Range header and partNumber query parameter"));
    }
    Ok(Some(number))
}

fn select_range(request: &Request, meta: &ObjectMeta, stored: Validators<'_>) -> Result<Selection, S3Error> {
    let whole = Selection { range: 0..meta.size_bytes, partial: false, checksum: meta.checksum.clone(), part_count: None };
    let Some(header) = request.headers.get(header::RANGE).and_then(|value| value.to_str().ok()) else { return Ok(whole) };
    if !if_range_holds(&request.headers, stored) {
        return Ok(whole);
    }
    // A client would hold the whole object's checksum against the piece, so a piece goes without.
    let piece = |range| Selection { range, partial: true, checksum: None, part_count: None };
    Ok(resolve_range(header, meta.size_bytes)?.map_or(whole, piece))
}

async fn select_part(
    services: &Services,
    target: &Target,
    request: &Request,
    found: &FoundObject,
    number: u16,
) -> Result<Selection, S3Error> {
    let size_bytes = found.meta.size_bytes;
    let parts = match found.meta.part_count {
        Some(_) => services.objects.parts(found, request.context()).await.map_err(|error| target.subject().error(error))?,
        None => Vec::new(),
    };
    if parts.is_empty() && number == 1 {
        // An empty object has no range to name, so it is answered whole.
        let partial = 0 < size_bytes;
        return Ok(Selection { range: 0..size_bytes, partial, checksum: found.meta.checksum.clone(), part_count: None });
    }
    let mut start = 0;
    for part in &parts {
        let range = start..start + part.size_bytes;
        start = range.end;
        if part.part_number == number {
            let part_count = u32::try_from(parts.len()).ok();
            // The type stays the object's: it says how the parts' checksums make up the whole.
            let kind = found.meta.checksum.as_ref().map(|checksum| checksum.kind);
            let checksum = part.checksum.clone().zip(kind).map(|(checksum, kind)| StoredChecksum { kind, ..checksum });
            return Ok(Selection { partial: !range.is_empty(), range, checksum, part_count });
        }
    }
    Err(S3Error::of(ErrorCode::InvalidPartNumber).with("ActualPartCount", parts.len().max(1)).with("PartNumberRequested", number))
}

fn write_headers(
    out: &mut HeaderMap,
    target: &Target,
    request: &Request,
    found: &FoundObject,
    selection: &Selection,
) -> Result<(), S3Error> {
    let meta = &found.meta;
    headers::write_object_headers(meta, out);
    let lock = &meta.headers.lock;
    let shown = ObjectLock {
        retention: lock.retention.filter(|_| target.may(request, actions::GET_OBJECT_RETENTION, Some(found))),
        legal_hold: lock.legal_hold.filter(|_| target.may(request, actions::GET_OBJECT_LEGAL_HOLD, Some(found))),
    };
    lock::add(out, &shown);
    versioning::add_version(out, versioning::shown(target.bucket.row.versioning, found.slot));
    if !request.query.has("versionId") {
        lifecycle::add_expiration_of(out, target, meta.size_bytes, meta.modified_ms, meta.tags());
    }
    for (parameter, name) in OVERRIDES {
        if let Some(value) = request.query.get(parameter) {
            if request.key.is_none() {
                let message = "Request specific response headers cannot be used for anonymous GET requests.";
                return Err(S3Error::invalid_request(message));
            }
            let value = HeaderValue::from_bytes(value.as_bytes());
            out.insert(name, value.map_err(|_| S3Error::invalid_argument("The value can't stand in a header", parameter, ""))?);
        }
    }
    out.insert(header::CONTENT_LENGTH, HeaderValue::from(selection.range.end - selection.range.start));
    if selection.partial {
        headers::put(out, header::CONTENT_RANGE, &content_range(&selection.range, meta.size_bytes));
    }
    if let Some(count) = selection.part_count {
        out.insert("x-amz-mp-parts-count", HeaderValue::from(count));
    }
    if request.header("x-amz-checksum-mode")?.is_some_and(|mode| mode.eq_ignore_ascii_case("ENABLED")) {
        // A part's own value has no part count behind it.
        let part_count = meta.part_count.filter(|_| selection.part_count.is_none());
        answer::add_checksum(out, selection.checksum.as_ref(), part_count);
    }
    Ok(())
}

fn not_modified(target: &Target, found: &FoundObject) -> Response<Body> {
    let mut full = HeaderMap::new();
    headers::write_object_headers(&found.meta, &mut full);
    let mut response = answer::empty(StatusCode::NOT_MODIFIED);
    versioning::add_version(response.headers_mut(), versioning::shown(target.bucket.row.versioning, found.slot));
    for name in [header::ETAG, header::LAST_MODIFIED, header::CACHE_CONTROL, header::EXPIRES] {
        if let Some(value) = full.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response
}
