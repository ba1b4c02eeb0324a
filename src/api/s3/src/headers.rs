//! Headers that become part of an object, and back; and the headers that ask for what this server does not do.
//!
//! Invariant: a header that S3 gives a meaning is either obeyed or refused, never ignored.
//!
//! Source: s3 reference §3.4, §3.5, §3.8, §3.11, §3.18.

use base64::{Engine, engine::general_purpose::STANDARD};
use garage_api_common::{ErrorCode, S3Error, payload::stored_content_encoding};
use garage_model::rows::object::{ObjectHeaders, ObjectMeta};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde_bytes::ByteBuf;

use crate::limits::{USER_METADATA_MAX_BYTES, WEBSITE_REDIRECT_MAX_BYTES};

const USER_PREFIX: &str = "x-amz-meta-";
/// Stored and returned as sent; `content-encoding` is apart, as `aws-chunked` is taken out of it.
const STANDARD_HEADERS: [HeaderName; 5] =
    [header::CACHE_CONTROL, header::CONTENT_DISPOSITION, header::CONTENT_LANGUAGE, header::CONTENT_TYPE, header::EXPIRES];
/// The type of an object that was uploaded without one.
pub const DEFAULT_CONTENT_TYPE: &str = "binary/octet-stream";
/// Storage classes that are kept as a label: all of them are stored alike.
const LABELS: [&str; 5] = ["REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR"];
const CANNED_ACLS: [&str; 8] = [
    "private",
    "public-read",
    "public-read-write",
    "authenticated-read",
    "aws-exec-read",
    "bucket-owner-read",
    "bucket-owner-full-control",
    "log-delivery-write",
];

/// A header's value as text; `None` when it is absent. Errors: 400 `InvalidArgument` for what is not text.
pub fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, S3Error> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text = std::str::from_utf8(value.as_bytes());
    text.map(|text| Some(text.trim())).map_err(|_| S3Error::invalid_argument("The header is not UTF-8", name, ""))
}

/// What a write stores of its headers: system headers, user metadata, storage class and website redirect.
///
/// Errors: 400 `MetadataTooLarge`, `InvalidStorageClass`, `InvalidRedirectLocation`, `InvalidArgument`.
pub fn object_headers(headers: &HeaderMap) -> Result<ObjectHeaders, S3Error> {
    Ok(ObjectHeaders {
        standard: standard_headers(headers)?,
        user: user_metadata(headers)?,
        storage_class: storage_class(headers)?,
        website_redirect: website_redirect(headers)?,
    })
}

fn standard_headers(headers: &HeaderMap) -> Result<Vec<(String, String)>, S3Error> {
    let mut stored = Vec::new();
    for name in STANDARD_HEADERS {
        let mut lines = Vec::new();
        for line in headers.get_all(&name) {
            let line = std::str::from_utf8(line.as_bytes());
            lines.push(line.map_err(|_| S3Error::invalid_argument("The header is not UTF-8", name.as_str(), ""))?.trim());
        }
        let value = lines.join(",");
        if !value.is_empty() {
            stored.push((name.as_str().to_owned(), value));
        }
    }
    if let Some(encoding) = stored_content_encoding(headers) {
        stored.push((header::CONTENT_ENCODING.as_str().to_owned(), encoding));
    }
    stored.sort();
    Ok(stored)
}

fn user_metadata(headers: &HeaderMap) -> Result<Vec<(String, ByteBuf)>, S3Error> {
    let mut stored: Vec<(String, ByteBuf)> = Vec::new();
    for name in headers.keys() {
        let Some(short) = name.as_str().strip_prefix(USER_PREFIX).filter(|short| !short.is_empty()) else { continue };
        let lines: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        stored.push((short.to_owned(), ByteBuf::from(lines.join(&b','))));
    }
    let size_bytes: usize = stored.iter().map(|(name, value)| name.len() + value.len()).sum();
    if USER_METADATA_MAX_BYTES < size_bytes {
        return Err(S3Error::of(ErrorCode::MetadataTooLarge).with("Size", size_bytes).with("MaxSizeAllowed", USER_METADATA_MAX_BYTES));
    }
    stored.sort();
    Ok(stored)
}

/// `None`: STANDARD.
fn storage_class(headers: &HeaderMap) -> Result<Option<String>, S3Error> {
    match text(headers, "x-amz-storage-class")? {
        None | Some("STANDARD") => Ok(None),
        Some(label) if LABELS.contains(&label) => Ok(Some(label.to_owned())),
        Some(other) => Err(S3Error::of(ErrorCode::InvalidStorageClass).with("StorageClassRequested", other)),
    }
}

fn website_redirect(headers: &HeaderMap) -> Result<Option<String>, S3Error> {
    let Some(location) = text(headers, "x-amz-website-redirect-location")? else { return Ok(None) };
    let legal = ["/", "http://", "https://"].iter().any(|start| location.starts_with(start));
    if legal && location.len() <= WEBSITE_REDIRECT_MAX_BYTES {
        return Ok(Some(location.to_owned()));
    }
    Err(S3Error::of(ErrorCode::InvalidRedirectLocation))
}

/// Writes an object's own headers into an answer: validators, type, system headers, metadata.
pub fn write_object_headers(meta: &ObjectMeta, out: &mut HeaderMap) {
    put(out, header::ETAG, &quoted(&meta.etag));
    put(out, header::LAST_MODIFIED, &garage_api_common::time::http_date(meta.modified_ms));
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

/// ASCII as it is, other text in the form of RFC 2047, as S3 gives it back.
fn user_value(value: &[u8]) -> Option<HeaderValue> {
    if value.is_ascii() {
        return HeaderValue::from_bytes(value).ok();
    }
    match std::str::from_utf8(value) {
        Ok(text) => HeaderValue::try_from(format!("=?UTF-8?B?{}?=", STANDARD.encode(text))).ok(),
        Err(_) => None,
    }
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

/// Refuses what a write of an object asks for and this server has not: encryption, locks, tags, and ACLs that would grant something.
pub fn refuse_on_write(headers: &HeaderMap) -> Result<(), S3Error> {
    const EXACT: [&str; 5] = [
        "x-amz-write-offset-bytes",
        "x-amz-mfa",
        "x-amz-if-match-size",
        "x-amz-if-match-last-modified-time",
        "x-amz-if-match-initiated-time",
    ];
    const FAMILIES: [&str; 2] = ["x-amz-object-lock-", "x-amz-copy-source-server-side-encryption-"];
    for name in headers.keys().map(HeaderName::as_str) {
        if EXACT.contains(&name) || FAMILIES.iter().any(|family| name.starts_with(family)) {
            return Err(S3Error::not_implemented(name));
        }
    }
    refuse_encryption(headers)?;
    if text(headers, "x-amz-tagging")?.is_some_and(|tags| !tags.is_empty()) {
        return Err(S3Error::not_implemented("x-amz-tagging"));
    }
    check_acl(headers, ErrorCode::AccessControlListNotSupported)
}

fn refuse_encryption(headers: &HeaderMap) -> Result<(), S3Error> {
    const NAME: &str = "x-amz-server-side-encryption";
    if let Some(value) = text(headers, NAME)?
        && !["AES256", "aws:kms", "aws:kms:dsse", "aws:fsx"].contains(&value)
    {
        return Err(S3Error::invalid_argument("The encryption method specified is not supported", NAME, value));
    }
    let asked = headers.keys().map(HeaderName::as_str).find(|name| name.starts_with(NAME));
    asked.map_or(Ok(()), |name| Err(S3Error::not_implemented(name)))
}

/// ACLs are those of BucketOwnerEnforced: only what grants nothing passes; `refusal` is the code for what would grant.
pub fn check_acl(headers: &HeaderMap, refusal: ErrorCode) -> Result<(), S3Error> {
    if headers.keys().any(|name| name.as_str().starts_with("x-amz-grant-")) {
        return Err(S3Error::of(refusal));
    }
    match text(headers, "x-amz-acl")? {
        None | Some("private" | "bucket-owner-full-control") => Ok(()),
        Some(known) if CANNED_ACLS.contains(&known) => Err(S3Error::of(refusal)),
        Some(other) => Err(S3Error::invalid_argument("The canned ACL is not known", "x-amz-acl", other)),
    }
}

/// Refuses encryption headers on a read: nothing stored here is encrypted by a client's key.
pub fn refuse_on_read(headers: &HeaderMap) -> Result<(), S3Error> {
    for name in headers.keys().map(HeaderName::as_str) {
        if name.starts_with("x-amz-server-side-encryption-customer-") {
            return Err(S3Error::invalid_request(
                "The encryption parameters are not applicable to this object: it is not encrypted with a customer key.",
            ));
        }
        if name.starts_with("x-amz-server-side-encryption") {
            return Err(S3Error::invalid_argument("x-amz-server-side-encryption header is not supported for this operation.", name, ""));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use garage_api_common::ErrorCode;
    use garage_model::rows::object::ObjectMeta;
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::{check_acl, object_headers, refuse_on_read, refuse_on_write, write_object_headers};

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair =
            |(name, value): &(&str, &str)| (HeaderName::try_from(*name).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        let mut map = HeaderMap::new();
        for (name, value) in pairs.iter().map(pair) {
            map.append(name, value);
        }
        map
    }
    fn round_trip(pairs: &[(&str, &str)]) -> HeaderMap {
        let meta = ObjectMeta { headers: object_headers(&headers(pairs)).unwrap(), ..ObjectMeta::default() };
        let mut out = HeaderMap::new();
        write_object_headers(&meta, &mut out);
        out
    }

    #[test]
    fn what_was_stored_comes_back_as_sent() {
        let out = round_trip(&[
            ("content-type", "text/plain; charset=utf-8"),
            ("cache-control", "max-age=3"),
            ("expires", "not a date"),
            ("content-encoding", "aws-chunked,gzip"),
            ("x-amz-meta-A", "1"),
            ("x-amz-meta-a", "2"),
            ("x-amz-meta-umlaut", "ä"),
            ("x-amz-storage-class", "STANDARD_IA"),
            ("x-amz-website-redirect-location", "/other"),
            ("content-language", ""),
        ]);
        let get = |name: &str| out.get(name).map(|value| value.to_str().unwrap());
        assert_eq!(get("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(get("expires"), Some("not a date"));
        assert_eq!(get("content-encoding"), Some("gzip"));
        assert_eq!(get("x-amz-meta-a"), Some("1,2"));
        assert_eq!(get("x-amz-meta-umlaut"), Some("=?UTF-8?B?w6Q=?="));
        assert_eq!(get("x-amz-storage-class"), Some("STANDARD_IA"));
        assert_eq!(get("x-amz-website-redirect-location"), Some("/other"));
        assert_eq!(get("content-language"), None);
    }

    #[test]
    fn an_object_without_type_is_binary_and_standard_is_not_shown() {
        let out = round_trip(&[("x-amz-storage-class", "STANDARD"), ("content-encoding", "aws-chunked")]);
        assert_eq!(out["content-type"], "binary/octet-stream");
        assert!(!out.contains_key("x-amz-storage-class") && !out.contains_key("content-encoding"));
    }

    #[test]
    fn metadata_has_a_limit() {
        let fits = "v".repeat(2048 - 1);
        assert!(object_headers(&headers(&[("x-amz-meta-a", &fits)])).is_ok());
        let error = object_headers(&headers(&[("x-amz-meta-ab", &fits)])).unwrap_err();
        assert_eq!(error.code, ErrorCode::MetadataTooLarge);
    }

    #[test]
    fn nothing_asked_for_is_ignored() {
        let code = |name: &str, value: &str| refuse_on_write(&headers(&[(name, value)])).map_err(|error| error.code);
        for name in [
            "x-amz-server-side-encryption-customer-algorithm",
            "x-amz-server-side-encryption-aws-kms-key-id",
            "x-amz-object-lock-mode",
            "x-amz-object-lock-legal-hold",
            "x-amz-tagging",
            "x-amz-write-offset-bytes",
            "x-amz-copy-source-server-side-encryption-customer-key",
        ] {
            assert_eq!(code(name, "x"), Err(ErrorCode::NotImplemented), "{name}");
        }
        assert_eq!(code("x-amz-server-side-encryption", "AES256"), Err(ErrorCode::NotImplemented));
        assert_eq!(code("x-amz-server-side-encryption", "ROT13"), Err(ErrorCode::InvalidArgument));
        assert_eq!(code("x-amz-acl", "public-read"), Err(ErrorCode::AccessControlListNotSupported));
        assert_eq!(code("x-amz-grant-read", "id=x"), Err(ErrorCode::AccessControlListNotSupported));
        assert_eq!(code("x-amz-acl", "nonsense"), Err(ErrorCode::InvalidArgument));
        assert_eq!(code("x-amz-acl", "private"), Ok(()));
        assert!(check_acl(&headers(&[("x-amz-acl", "bucket-owner-full-control")]), ErrorCode::AccessDenied).is_ok());
        let read = |name: &str| refuse_on_read(&headers(&[(name, "x")])).unwrap_err().code;
        assert_eq!(read("x-amz-server-side-encryption"), ErrorCode::InvalidArgument);
        assert_eq!(read("x-amz-server-side-encryption-customer-key"), ErrorCode::InvalidRequest);
    }

    #[test]
    fn storage_classes_and_redirects_follow_the_rules() {
        let code = |name: &str, value: &str| object_headers(&headers(&[(name, value)])).map_err(|error| error.code).map(drop);
        assert_eq!(code("x-amz-storage-class", "GLACIER"), Err(ErrorCode::InvalidStorageClass));
        assert_eq!(code("x-amz-storage-class", "standard"), Err(ErrorCode::InvalidStorageClass));
        assert_eq!(code("x-amz-website-redirect-location", "ftp://x"), Err(ErrorCode::InvalidRedirectLocation));
        assert_eq!(code("x-amz-website-redirect-location", &format!("/{}", "a".repeat(2048))), Err(ErrorCode::InvalidRedirectLocation));
    }
}
