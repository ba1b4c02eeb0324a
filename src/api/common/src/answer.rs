//! Small builders of answers.

use ::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use garage_model::rows::checksum::StoredChecksum;

use crate::{
    http::{Body, empty_body, full_body},
    object_headers as headers, stored_checksum as checksums,
};

/// An answer without body.
pub fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(empty_body());
    *response.status_mut() = status;
    response
}

/// 200 with an XML document.
pub fn xml(document: String) -> Response<Body> {
    let len_bytes = document.len();
    let mut response = Response::new(full_body(document));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(len_bytes));
    response
}

/// Adds an ETag and a checksum with its type, as writes answer them.
pub fn add_stored(out: &mut HeaderMap, etag: &str, checksum: Option<&StoredChecksum>, part_count: Option<u32>) {
    headers::put(out, header::ETAG, &headers::quoted(etag));
    add_checksum(out, checksum, part_count);
}

/// Adds `x-amz-checksum-*` and `x-amz-checksum-type`.
pub fn add_checksum(out: &mut HeaderMap, checksum: Option<&StoredChecksum>, part_count: Option<u32>) {
    let Some(checksum) = checksum else { return };
    let name = HeaderName::from_static(checksum.algorithm.header());
    headers::put(out, name, &checksums::text(checksum, part_count));
    headers::put(out, HeaderName::from_static("x-amz-checksum-type"), checksum.kind.name());
}

/// Adds what a part is answered with: its ETag, and its checksum without a type, which is the object's.
pub fn add_part(out: &mut HeaderMap, etag: &str, checksum: Option<&StoredChecksum>) {
    add_stored(out, etag, checksum, None);
    out.remove("x-amz-checksum-type");
}
