//! An object as an answer: conditions, range, headers, content; and the object of an error.
//!
//! Source: website reference §6. `If-Range` is obeyed (RFC 9110 §13.1.5), so that a download that is taken up again never mixes two contents.

use std::ops::Range;

use garage_api_common::{
    ErrorCode, S3Error, answer,
    conditions::{ReadConditions, ReadVerdict, Validators, check_dates, if_range_holds},
    failure::Subject,
    http::{Body, empty_body},
    object_body::object_body,
    object_headers::{put, write_object_headers},
    ranges::{content_range, resolve_range},
};
use garage_model::{
    RequestContext,
    objects::{FoundObject, Objects},
    rows::object::ObjectMeta,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};

/// What an answer with an object is made from.
pub(crate) struct Serving<'a> {
    pub objects: &'a Objects,
    pub method: &'a Method,
    pub headers: &'a HeaderMap,
    pub context: RequestContext,
}

impl Serving<'_> {
    /// The answer to GET or HEAD of an object that a site serves with `status`.
    ///
    /// Conditions and ranges are about the object that was asked for, so they do not count where the status is an error.
    /// Errors: 400 for a date that is none, 416.
    pub(crate) async fn answer(&self, found: &FoundObject, key: &str, status: StatusCode) -> Result<Response<Body>, S3Error> {
        if let Some(location) = &found.meta.headers.website_redirect {
            return Ok(redirect(location, StatusCode::MOVED_PERMANENTLY));
        }
        if status != StatusCode::OK {
            return self.whole(found, key, status).await;
        }
        check_dates(self.headers)?;
        let meta = &found.meta;
        let stored = Validators { etag: &meta.etag, last_modified_ms: meta.modified_ms };
        // A date in the future is a date like any other here.
        match ReadConditions::of_read(self.headers).evaluate(stored, u64::MAX) {
            ReadVerdict::Proceed => {}
            ReadVerdict::NotModified => return Ok(bare(meta, StatusCode::NOT_MODIFIED)),
            ReadVerdict::Failed(_) => return Ok(bare(meta, StatusCode::PRECONDITION_FAILED)),
        }
        let Some(range) = self.range(meta, stored)? else { return self.whole(found, key, status).await };
        let mut response = self.content(found, key, range.clone()).await?;
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        put(response.headers_mut(), header::CONTENT_RANGE, &content_range(&range, meta.size_bytes));
        // A client would hold the whole object's checksum against the piece, so a piece goes without.
        Ok(response)
    }

    /// The object that tells of `error`: with the error's status, whatever the request's conditions.
    pub(crate) async fn error_document(&self, found: &FoundObject, key: &str, error: &S3Error) -> Result<Response<Body>, S3Error> {
        let mut response = self.whole(found, key, error.status()).await?;
        for line in error.message.lines() {
            if let Ok(value) = HeaderValue::from_str(line) {
                response.headers_mut().append(HeaderName::from_static("x-garage-error"), value);
            }
        }
        for (name, value) in &error.headers {
            response.headers_mut().insert(name.clone(), value.clone());
        }
        Ok(response)
    }

    async fn whole(&self, found: &FoundObject, key: &str, status: StatusCode) -> Result<Response<Body>, S3Error> {
        let mut response = self.content(found, key, 0..found.meta.size_bytes).await?;
        *response.status_mut() = status;
        let mode = self.headers.get("x-amz-checksum-mode");
        if mode.is_some_and(|mode| mode.as_bytes().eq_ignore_ascii_case(b"ENABLED")) {
            answer::add_checksum(response.headers_mut(), found.meta.checksum.as_ref(), found.meta.part_count);
        }
        Ok(response)
    }

    async fn content(&self, found: &FoundObject, key: &str, range: Range<u64>) -> Result<Response<Body>, S3Error> {
        let len_bytes = range.end - range.start;
        let body = match *self.method == Method::HEAD {
            true => empty_body(),
            false => object_body(self.objects, found, range, self.context, Subject { key, ..Subject::default() }).await?,
        };
        let mut response = Response::new(body);
        let out = response.headers_mut();
        write_object_headers(&found.meta, out);
        if !found.meta.headers.standard.iter().any(|(name, _)| name == header::CONTENT_TYPE.as_str()) {
            out.remove(header::CONTENT_TYPE);
        }
        out.insert(header::CONTENT_LENGTH, HeaderValue::from(len_bytes));
        Ok(response)
    }

    /// The bytes asked for; `None`: all. HEAD has no range. Errors: 416 for what is no range of bytes, or lies behind the end.
    fn range(&self, meta: &ObjectMeta, stored: Validators<'_>) -> Result<Option<Range<u64>>, S3Error> {
        let Some(value) = self.headers.get(header::RANGE).filter(|_| *self.method == Method::GET) else { return Ok(None) };
        if !if_range_holds(self.headers, stored) {
            return Ok(None);
        }
        let text = value.to_str().unwrap_or_default();
        if is_several_ranges(text) || (meta.size_bytes == 0 && is_suffix(text)) {
            return Ok(None);
        }
        let resolved = resolve_range(text, meta.size_bytes)?;
        resolved.map(Some).ok_or_else(|| S3Error::invalid_range(text, meta.size_bytes))
    }
}

fn byte_ranges(text: &str) -> Option<&str> {
    let (unit, set) = text.trim().split_once('=')?;
    unit.trim().eq_ignore_ascii_case("bytes").then_some(set)
}
fn is_several_ranges(text: &str) -> bool {
    byte_ranges(text).is_some_and(|set| set.contains(','))
}
fn is_suffix(text: &str) -> bool {
    byte_ranges(text).and_then(|set| set.trim().strip_prefix('-')).is_some_and(|count| count.parse::<u64>().is_ok_and(|count| 0 < count))
}

/// A redirect: no body.
pub(crate) fn redirect(location: &str, status: StatusCode) -> Response<Body> {
    let mut response = answer::empty(status);
    put(response.headers_mut(), header::LOCATION, location);
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    response
}

/// An answer to a condition: what tells a cache about the object, and nothing else.
fn bare(meta: &ObjectMeta, status: StatusCode) -> Response<Body> {
    let mut full = HeaderMap::new();
    write_object_headers(meta, &mut full);
    let mut response = answer::empty(status);
    for name in [header::ETAG, header::CACHE_CONTROL, header::EXPIRES] {
        if let Some(value) = full.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response
}

/// 404 for a key.
pub(crate) fn no_such_key(key: &str) -> S3Error {
    S3Error::of(ErrorCode::NoSuchKey).with("Key", key)
}
