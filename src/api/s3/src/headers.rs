//! Headers that become part of an object; and the headers that ask for what this server does not do.
//!
//! Invariant: a header that S3 gives a meaning is either obeyed or refused, never ignored.
//!
//! Source: s3 reference §3.4, §3.5, §3.8, §3.11, §3.18.

use std::borrow::Cow;

pub use garage_api_common::object_headers::{put, quoted, write_object_headers};
use garage_api_common::{ErrorCode, S3Error, encoded_word, payload::stored_content_encoding};
use garage_model::rows::object::ObjectHeaders;
use http::{HeaderMap, HeaderName, header};
use serde_bytes::ByteBuf;

use crate::{
    encryption::OWN_KEY,
    limits::{USER_METADATA_MAX_BYTES, WEBSITE_REDIRECT_MAX_BYTES},
    lock,
};

const USER_PREFIX: &str = "x-amz-meta-";
/// Stored and returned as sent; `content-encoding` is apart, as `aws-chunked` is taken out of it.
const STANDARD_HEADERS: [HeaderName; 5] =
    [header::CACHE_CONTROL, header::CONTENT_DISPOSITION, header::CONTENT_LANGUAGE, header::CONTENT_TYPE, header::EXPIRES];
/// Storage classes that are kept as a label: all of them are stored alike.
const LABELS: [&str; 5] = ["REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR"];
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
        lock: lock::of_headers(headers)?,
        ..ObjectHeaders::default()
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
        let lines: Vec<Cow<'_, [u8]>> = headers.get_all(name).iter().map(|line| metadata_value(line.as_bytes())).collect();
        stored.push((short.to_owned(), ByteBuf::from(lines.join(&b','))));
    }
    let size_bytes: usize = stored.iter().map(|(name, value)| name.len() + value.len()).sum();
    if USER_METADATA_MAX_BYTES < size_bytes {
        return Err(S3Error::of(ErrorCode::MetadataTooLarge).with("Size", size_bytes).with("MaxSizeAllowed", USER_METADATA_MAX_BYTES));
    }
    stored.sort();
    Ok(stored)
}

/// The bytes that a metadata value stands for: those of its encoded words, or its own.
fn metadata_value(sent: &[u8]) -> Cow<'_, [u8]> {
    let decoded = std::str::from_utf8(sent).ok().filter(|text| text.starts_with("=?")).and_then(encoded_word::decode);
    decoded.map_or(Cow::Borrowed(sent), |text| Cow::Owned(text.into_bytes()))
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

/// Refuses what a write of an object asks for and this server has not.
pub fn refuse_on_write(headers: &HeaderMap) -> Result<(), S3Error> {
    const EXACT: [&str; 5] = [
        "x-amz-write-offset-bytes",
        "x-amz-mfa",
        "x-amz-if-match-size",
        "x-amz-if-match-last-modified-time",
        "x-amz-if-match-initiated-time",
    ];
    const FAMILIES: [&str; 1] = ["x-amz-object-lock-"];
    for name in headers.keys().map(HeaderName::as_str) {
        let is_known_lock =
            ["x-amz-object-lock-mode", "x-amz-object-lock-retain-until-date", "x-amz-object-lock-legal-hold"].contains(&name);
        if is_known_lock {
            continue;
        }
        if EXACT.contains(&name) || FAMILIES.iter().any(|family| name.starts_with(family)) {
            return Err(S3Error::not_implemented(name));
        }
    }
    Ok(())
}

/// Refuses what belongs to the beginning of an upload on its later calls: tags, and lists that would grant something.
pub fn refuse_labels(headers: &HeaderMap) -> Result<(), S3Error> {
    if text(headers, "x-amz-tagging")?.is_some_and(|tags| !tags.is_empty()) {
        return Err(S3Error::invalid_argument("Tags are given when an upload is created", "x-amz-tagging", ""));
    }
    let acl = text(headers, "x-amz-acl")?.filter(|acl| !["private", "bucket-owner-full-control"].contains(acl));
    match acl {
        Some(acl) => Err(S3Error::invalid_argument("An ACL is given when an upload is created", "x-amz-acl", acl)),
        None => Ok(()),
    }
}

/// Refuses on a read, or on a part, what only a new object can be asked to be encrypted with.
pub fn refuse_on_read(headers: &HeaderMap) -> Result<(), S3Error> {
    let is_method = |name: &&str| name.starts_with("x-amz-server-side-encryption") && !name.starts_with(OWN_KEY);
    match headers.keys().map(HeaderName::as_str).find(is_method) {
        Some(name) => Err(S3Error::invalid_argument("x-amz-server-side-encryption header is not supported for this operation.", name, "")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use garage_api_common::ErrorCode;
    use garage_model::rows::object::ObjectMeta;
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::{object_headers, refuse_labels, refuse_on_read, refuse_on_write, write_object_headers};

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
            ("x-amz-meta-word", "=?ISO-8859-1?Q?=E4?="),
            ("x-amz-meta-ascii-word", "=?UTF-8?Q?plain?="),
            ("x-amz-meta-no-word", "=?what?"),
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
        assert_eq!(get("x-amz-meta-word"), Some("=?UTF-8?B?w6Q=?="));
        assert_eq!(get("x-amz-meta-ascii-word"), Some("plain"));
        assert_eq!(get("x-amz-meta-no-word"), Some("=?what?"));
        assert_eq!(get("x-amz-missing-meta"), None);
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
    fn values_that_no_header_can_carry_are_counted() {
        let mut sent = headers(&[("x-amz-meta-line-end", "=?UTF-8?Q?a=0Ab?=")]);
        sent.insert("x-amz-meta-bytes", HeaderValue::from_bytes(b"\xff").unwrap());
        let mut out = HeaderMap::new();
        write_object_headers(&ObjectMeta { headers: object_headers(&sent).unwrap(), ..ObjectMeta::default() }, &mut out);
        assert_eq!(out["x-amz-missing-meta"], "2");
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
        for name in ["x-amz-object-lock-event-hold", "x-amz-write-offset-bytes"] {
            assert_eq!(code(name, "x"), Err(ErrorCode::NotImplemented), "{name}");
        }
        let label = |name: &str, value: &str| refuse_labels(&headers(&[(name, value)])).map_err(|error| error.code);
        assert_eq!(label("x-amz-acl", "public-read"), Err(ErrorCode::InvalidArgument));
        assert_eq!(label("x-amz-tagging", "a=b"), Err(ErrorCode::InvalidArgument));
        assert_eq!(label("x-amz-acl", "private"), Ok(()));
        let read = |name: &str| refuse_on_read(&headers(&[(name, "x")])).map_err(|error| error.code);
        assert_eq!(read("x-amz-server-side-encryption"), Err(ErrorCode::InvalidArgument));
        assert_eq!(read("x-amz-server-side-encryption-customer-key"), Ok(()));
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
