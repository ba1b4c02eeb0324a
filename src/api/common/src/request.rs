//! Which bucket and key a request names: path-style or virtual-host-style addressing, and the decoding of keys.
//!
//! Source: s3 reference §1. A key is percent-decoded exactly once; `+` stays a plus, dots and doubled slashes stay as they are.

use ::http::{HeaderMap, Uri, header};
use percent_encoding::percent_decode_str;

use crate::{
    error::{ErrorCode, S3Error},
    limits::KEY_MAX_BYTES,
};

/// Where the bucket's name stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressStyle {
    /// In the path.
    Path,
    /// In the host name.
    VirtualHost,
}

/// What a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The bucket; `None` for the service itself (`GET /`).
    pub bucket: Option<String>,
    /// The key; never empty, at most 1,024 bytes.
    pub key: Option<String>,
    /// How the bucket was named.
    pub style: AddressStyle,
}

impl Address {
    /// Resolves host and raw path. `root_domains`: the suffixes under which buckets have host names; leading dots and case are ignored.
    ///
    /// Errors: 400 `InvalidURI` for what does not decode, `KeyTooLongError`, `InvalidBucketName` for an empty one (`//key`).
    pub fn resolve(host: Option<&str>, raw_path: &str, root_domains: &[String]) -> Result<Address, S3Error> {
        let path = raw_path.strip_prefix('/').unwrap_or(raw_path);
        if let Some(bucket) = host.and_then(|host| bucket_of_host(host, root_domains)) {
            return Ok(Address { bucket: Some(bucket), key: key_of(path)?, style: AddressStyle::VirtualHost });
        }
        let style = AddressStyle::Path;
        if path.is_empty() {
            return Ok(Address { bucket: None, key: None, style });
        }
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        if bucket.is_empty() {
            return Err(S3Error::of(ErrorCode::InvalidBucketName).with("BucketName", ""));
        }
        Ok(Address { bucket: Some(decode_once(bucket)?), key: key_of(key)?, style })
    }
}

/// The host a request was sent to: the `Host` header, or `:authority` for HTTP/2. As received, port included.
pub fn host_of<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a [u8]> {
    headers.get(header::HOST).map(|host| host.as_bytes()).or_else(|| uri.authority().map(|authority| authority.as_str().as_bytes()))
}

/// The host without port, lower-cased.
pub fn host_name(host: &str) -> String {
    let name = if host.starts_with('[') {
        host.split_once(']').map_or(host, |(name, _)| name.trim_start_matches('['))
    } else {
        host.rsplit_once(':').map_or(host, |(name, _)| name)
    };
    name.trim_end_matches('.').to_ascii_lowercase()
}

fn bucket_of_host(host: &str, root_domains: &[String]) -> Option<String> {
    let name = host_name(host);
    if name.parse::<std::net::IpAddr>().is_ok() {
        return None;
    }
    root_domains
        .iter()
        .map(|domain| domain.trim_start_matches('.').to_ascii_lowercase())
        .filter(|domain| !domain.is_empty())
        // The longest domain wins, so that `b.s3.example` under both `s3.example` and `example` names `b`.
        .filter_map(|domain| name.strip_suffix(domain.as_str()).map(|rest| (domain.len(), rest.to_owned())))
        .filter(|(_, rest)| rest.is_empty() || rest.ends_with('.'))
        .max_by_key(|(domain_len, _)| *domain_len)
        .and_then(|(_, rest)| rest.strip_suffix('.').map(str::to_owned))
        .filter(|bucket| !bucket.is_empty())
}

fn key_of(raw: &str) -> Result<Option<String>, S3Error> {
    if raw.is_empty() {
        return Ok(None);
    }
    let key = decode_once(raw)?;
    if key.len() > KEY_MAX_BYTES {
        return Err(S3Error::of(ErrorCode::KeyTooLongError).with("Size", key.len()).with("MaxSizeAllowed", KEY_MAX_BYTES));
    }
    Ok(Some(key))
}

/// Percent-decodes once, strictly: a `%` without two hex digits, or bytes that are not UTF-8, are 400 `InvalidURI`.
pub fn decode_once(raw: &str) -> Result<String, S3Error> {
    let bytes = raw.as_bytes();
    for (at, _) in raw.match_indices('%') {
        let digits = bytes.get(at + 1..at + 3);
        if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
            return Err(S3Error::of(ErrorCode::InvalidURI).with("URI", raw));
        }
    }
    let decoded = percent_decode_str(raw).decode_utf8().map_err(|_| S3Error::of(ErrorCode::InvalidURI))?;
    Ok(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Address, AddressStyle, ErrorCode, host_name};

    fn check(host: &str, path: &str, expected: (Option<&str>, Option<&str>)) {
        let domains = [".s3.example.com".to_owned(), "example.com".to_owned()];
        let address = Address::resolve(Some(host), path, &domains).unwrap();
        assert_eq!((address.bucket.as_deref(), address.key.as_deref()), expected, "{host} {path}");
    }
    fn refuse(path: &str, expected: ErrorCode) {
        assert_eq!(Address::resolve(None, path, &[]).unwrap_err().code, expected, "{path}");
    }

    #[test]
    fn path_style_names_bucket_and_key() {
        check("s3.example.com:3900", "/", (None, None));
        check("s3.example.com", "/b", (Some("b"), None));
        check("s3.example.com", "/b/", (Some("b"), None));
        check("127.0.0.1:3900", "/b//x", (Some("b"), Some("/x")));
        check("[::1]:3900", "/b/x//y/../z/", (Some("b"), Some("x//y/../z/")));
        check("unknown.org", "/b/a%20b+c%2Fd%C3%A9", (Some("b"), Some("a b+c/dé")));
    }

    #[test]
    fn virtual_host_style_takes_dotted_buckets_and_ignores_case_and_port() {
        check("My.Bucket.S3.Example.com:80", "/k/ey", (Some("my.bucket"), Some("k/ey")));
        check("b.s3.example.com", "/", (Some("b"), None));
        check("b.example.com", "//x", (Some("b"), Some("/x")));
        check("nots3.example.org", "/b/k", (Some("b"), Some("k")));
        let address = Address::resolve(Some("b.example.com"), "/k", &["example.com".to_owned()]).unwrap();
        assert_eq!(address.style, AddressStyle::VirtualHost);
    }

    #[test]
    fn keys_that_do_not_decode_or_are_too_long_are_refused() {
        refuse("/b/%ff", ErrorCode::InvalidURI);
        refuse("/b/%zz", ErrorCode::InvalidURI);
        refuse("/b/%4", ErrorCode::InvalidURI);
        refuse("//k", ErrorCode::InvalidBucketName);
        refuse(&format!("/b/{}", "k".repeat(1025)), ErrorCode::KeyTooLongError);
        check("x", &format!("/b/{}", "%6b".repeat(1024)), (Some("b"), Some("k".repeat(1024).as_str())));
    }

    #[test]
    fn host_names_lose_port_and_brackets() {
        assert_eq!(host_name("[2001:db8::1]:443"), "2001:db8::1");
        assert_eq!(host_name("A.example:80"), "a.example");
    }

    proptest! {
        #[test]
        fn resolving_never_panics(host in "\\PC{0,30}", path in "\\PC{0,60}") {
            let _ = Address::resolve(Some(&host), &path, &["example.com".to_owned()]);
        }
    }
}
