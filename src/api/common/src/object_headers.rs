//! The headers of an answer that come from a stored object.
//!
//! Source: s3 reference §3.4, §3.8.

use ::http::{HeaderMap, HeaderName, HeaderValue, header};
use garage_model::rows::object::ObjectMeta;

use crate::encoded_word;

const USER_PREFIX: &str = "x-amz-meta-";
/// The type of an object that was uploaded without one.
pub const DEFAULT_CONTENT_TYPE: &str = "binary/octet-stream";

/// Writes an object's own headers into an answer: validators, type, system headers, metadata.
pub fn write_object_headers(meta: &ObjectMeta, out: &mut HeaderMap) {
    put(out, header::ETAG, &quoted(&meta.etag));
    put(out, header::LAST_MODIFIED, &crate::time::http_date(meta.modified_ms));
    out.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(DEFAULT_CONTENT_TYPE));
    for (name, value) in &meta.headers.standard {
        if let Ok(name) = HeaderName::try_from(name) {
            put(out, name, value);
        }
    }
    let mut missing_count = 0;
    for (name, value) in &meta.headers.user {
        match (HeaderName::try_from(format!("{USER_PREFIX}{name}")), user_value(value)) {
            (Ok(name), Some(value)) => drop(out.insert(name, value)),
            _ => missing_count += 1,
        }
    }
    if 0 < missing_count {
        out.insert("x-amz-missing-meta", HeaderValue::from(missing_count));
    }
    if let Some(class) = &meta.headers.storage_class {
        put(out, HeaderName::from_static("x-amz-storage-class"), class);
    }
    if let Some(location) = &meta.headers.website_redirect {
        put(out, HeaderName::from_static("x-amz-website-redirect-location"), location);
    }
}

/// As S3 gives it back: ASCII as it is, other text in the form of RFC 2047. `None`: bytes that no header can carry.
fn user_value(value: &[u8]) -> Option<HeaderValue> {
    let text = std::str::from_utf8(value).ok()?;
    HeaderValue::try_from(encoded_word::encode(text).as_ref()).ok()
}

/// Sets a header; a value that no header can carry is left out.
pub fn put(out: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
        out.insert(name, value);
    }
}

/// An ETag as it stands in headers and XML.
pub fn quoted(etag: &str) -> String {
    format!("\"{etag}\"")
}
