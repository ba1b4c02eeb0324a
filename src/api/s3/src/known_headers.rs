//! Which `x-amz-*` headers any call here reads, and the refusal of all others.
//!
//! Invariant: a header that S3 or a client gives a meaning is obeyed or refused, never dropped. What is on these lists is looked at by the
//! call it belongs to (which may refuse it with a code of its own); what is not on them is refused here, with its name.
//!
//! Source: s3 reference §1 to §3; the AWS S3 API's headers of each call.

use garage_api_common::{ErrorCode, S3Error};
use http::{HeaderMap, HeaderName, header};

use crate::{encryption::SOURCE_KEY, limits::HEADERS_MAX_BYTES};

/// Whole names.
const NAMES: &[&str] = &[
    "x-amz-acl",
    "x-amz-bucket-namespace",
    "x-amz-bucket-object-lock-enabled",
    "x-amz-bypass-governance-retention",
    "x-amz-confirm-remove-self-bucket-access",
    "x-amz-content-sha256",
    "x-amz-copy-source",
    "x-amz-copy-source-range",
    "x-amz-date",
    "x-amz-decoded-content-length",
    "x-amz-expected-bucket-owner",
    "x-amz-max-parts",
    "x-amz-metadata-directive",
    "x-amz-mp-object-size",
    "x-amz-object-annotation-directive",
    "x-amz-object-attributes",
    "x-amz-object-ownership",
    "x-amz-optional-object-attributes",
    "x-amz-part-number-marker",
    // Who pays is told nowhere here; buckets that make the requester pay can't be set up.
    "x-amz-request-payer",
    "x-amz-sdk-checksum-algorithm",
    "x-amz-security-token",
    "x-amz-source-expected-bucket-owner",
    "x-amz-storage-class",
    "x-amz-tagging",
    "x-amz-tagging-directive",
    "x-amz-trailer",
    // About moves between storage classes, which no lifecycle rule here makes: kept and shown.
    "x-amz-transition-default-minimum-object-size",
    // Sent by SDKs in browsers, which can't set `User-Agent`.
    "x-amz-user-agent",
    "x-amz-website-redirect-location",
];
/// Beginnings of names.
const FAMILIES: &[&str] = &[
    "x-amz-checksum-",
    "x-amz-copy-source-if-",
    "x-amz-copy-source-server-side-encryption-customer-",
    "x-amz-grant-",
    "x-amz-meta-",
    "x-amz-object-lock-",
    "x-amz-server-side-encryption",
];

/// 501 `NotImplemented` for the first header that no call here reads.
///
/// `headers`: with those of a presigned query. Parameters of a signature in the query are none of the headers.
pub fn refuse_unknown(headers: &HeaderMap) -> Result<(), S3Error> {
    let is_known = |name: &str| NAMES.contains(&name) || FAMILIES.iter().any(|family| name.starts_with(family));
    let mut names = headers.keys().map(HeaderName::as_str);
    match names.find(|name| name.starts_with("x-amz-") && !is_known(name)) {
        Some(unknown) => Err(S3Error::not_implemented(unknown)),
        None => Ok(()),
    }
}

/// 501 for what a write of content can't be told: where in an object the content belongs (RFC 9110 §14.5).
pub fn refuse_placement(headers: &HeaderMap) -> Result<(), S3Error> {
    refuse_any(headers, &[header::CONTENT_RANGE])
}

/// 400 `InvalidArgument` for what tells of the source of a copy, on a call that copies nothing.
pub fn refuse_source(headers: &HeaderMap) -> Result<(), S3Error> {
    const SOURCE: &str = "x-amz-copy-source";
    refuse_in_context(headers, "You can only specify a copy source header for copy requests.", |name| name.starts_with(SOURCE))
}

/// 400 `InvalidArgument` for what belongs to an object as a whole, on a call about one part of an upload.
pub fn refuse_on_part(headers: &HeaderMap) -> Result<(), S3Error> {
    refuse_in_context(headers, "Metadata cannot be specified in this context.", |name| name.starts_with("x-amz-meta-"))?;
    refuse_in_context(headers, "The specified header is not valid in this context", |name| {
        ["x-amz-metadata-directive", "x-amz-tagging-directive"].contains(&name)
    })
}

fn refuse_in_context(headers: &HeaderMap, message: &'static str, is_misplaced: impl Fn(&str) -> bool) -> Result<(), S3Error> {
    let Some((name, value)) = headers.iter().find(|(name, _)| is_misplaced(name.as_str())) else { return Ok(()) };
    // A customer's key is told to nobody, not even to who sent it.
    let shown = if name.as_str().starts_with(SOURCE_KEY) { "".into() } else { String::from_utf8_lossy(value.as_bytes()) };
    Err(S3Error::invalid_argument(message, name.as_str(), shown))
}

/// 501 for conditions on a call that has none: a condition is never ignored.
pub fn refuse_conditions(headers: &HeaderMap) -> Result<(), S3Error> {
    refuse_any(headers, &[header::IF_MATCH, header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::IF_UNMODIFIED_SINCE])
}

/// 400 `RequestHeaderSectionTooLarge`: the header section is longer than requests of S3 are, though not yet too long for the server.
pub fn check_section(headers: &HeaderMap) -> Result<(), S3Error> {
    // A line has a colon, a space and its end besides.
    let size_bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if size_bytes <= HEADERS_MAX_BYTES {
        return Ok(());
    }
    Err(S3Error::of(ErrorCode::RequestHeaderSectionTooLarge).with("MaxSizeAllowed", HEADERS_MAX_BYTES))
}

fn refuse_any(headers: &HeaderMap, names: &[HeaderName]) -> Result<(), S3Error> {
    match names.iter().find(|name| headers.contains_key(*name)) {
        Some(name) => Err(S3Error::not_implemented(name)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use garage_api_common::ErrorCode;
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::{HEADERS_MAX_BYTES, check_section, refuse_conditions, refuse_on_part, refuse_placement, refuse_source, refuse_unknown};

    fn header(name: &str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::try_from(name).unwrap(), HeaderValue::from_static("x"))])
    }

    #[test]
    fn a_header_that_nobody_reads_is_refused_by_name() {
        for name in ["x-amz-write-offset-bytes", "x-amz-mfa", "x-amz-if-match-size", "x-amz-bucket-object-lock-token", "x-amz-nonsense"] {
            let error = refuse_unknown(&header(name)).unwrap_err();
            assert_eq!((error.code, error.specifics), (ErrorCode::NotImplemented, vec![("Header", name.to_owned())]));
        }
        for name in ["x-amz-meta-a", "x-amz-date", "x-amzn-trace-id", "amz-sdk-request", "x-forwarded-for", "range", "x-amz-checksum-sha1"]
        {
            assert!(refuse_unknown(&header(name)).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_header_of_another_call_is_refused_by_name_and_value() {
        for name in ["x-amz-copy-source", "x-amz-copy-source-range", "x-amz-copy-source-if-match"] {
            let error = refuse_source(&header(name)).unwrap_err();
            let named = vec![("ArgumentName", name.to_owned()), ("ArgumentValue", "x".to_owned())];
            assert_eq!((error.code, error.specifics), (ErrorCode::InvalidArgument, named));
        }
        let secret = refuse_source(&header("x-amz-copy-source-server-side-encryption-customer-key")).unwrap_err();
        assert!(secret.specifics.contains(&("ArgumentValue", String::new())), "a key is not told");
        assert!(refuse_source(&header("x-amz-metadata-directive")).is_ok(), "it says nothing without a source");
        for name in ["x-amz-meta-a", "x-amz-metadata-directive", "x-amz-tagging-directive"] {
            assert_eq!(refuse_on_part(&header(name)).unwrap_err().code, ErrorCode::InvalidArgument, "{name}");
        }
        assert!(refuse_on_part(&header("x-amz-copy-source-range")).is_ok());
    }

    #[test]
    fn a_header_section_has_a_limit() {
        let long = |len| HeaderMap::from_iter([(HeaderName::from_static("x"), HeaderValue::try_from("v".repeat(len)).unwrap())]);
        assert!(check_section(&long(HEADERS_MAX_BYTES - 5)).is_ok());
        assert_eq!(check_section(&long(HEADERS_MAX_BYTES - 4)).unwrap_err().code, ErrorCode::RequestHeaderSectionTooLarge);
    }

    #[test]
    fn a_piece_of_an_object_can_t_be_written_nor_a_condition_be_dropped() {
        assert!(refuse_placement(&header("content-range")).is_err());
        for name in ["if-match", "if-none-match", "if-modified-since", "if-unmodified-since"] {
            assert!(refuse_conditions(&header(name)).is_err(), "{name}");
        }
    }
}
