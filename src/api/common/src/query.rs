//! The query string of a request: decoded once, in order, the first value of a repeated parameter winning.
//!
//! Source: s3 reference §1. `+` and `%20` both mean a space; `k` and `k=` are the same; names are case-sensitive.

use std::borrow::Cow;

use ::http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode;

use crate::error::{ErrorCode, S3Error};

/// A decoded query string.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Decodes a raw query (without `?`). Errors: 400 `InvalidURI` when a name or value is not UTF-8.
    pub fn parse(raw: &str) -> Result<Query, S3Error> {
        let mut pairs = Vec::new();
        for segment in raw.split('&').filter(|segment| !segment.is_empty()) {
            let (name, value) = segment.split_once('=').unwrap_or((segment, ""));
            pairs.push((decode_utf8(name)?, decode_utf8(value)?));
        }
        Ok(Query { pairs })
    }
    /// The first value of a parameter; empty for one without value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
    /// The first value of a parameter, `None` also when it is empty.
    pub fn non_empty(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }
    /// The first value of a parameter, its name compared without case; for the parameters of presigned URLs.
    pub fn get_ignore_case(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
    /// Whether the parameter is there, with or without value.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }
    /// All parameters in order, repetitions included.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
    /// Whether there is no parameter at all.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The request's headers, joined by the `x-amz-*` ones that a presigner moved into the query; a real header wins.
    ///
    /// Left where they are: the parameters of the signature, and checksum *values* (some presigners bake the checksum of an empty body into
    /// upload URLs; S3 ignores them there). Source: s3 reference §1 "hoisted headers", §3.8. Use it for presigned requests only.
    pub fn with_hoisted_headers(&self, headers: &HeaderMap) -> HeaderMap {
        let mut all = headers.clone();
        for (name, value) in self.iter() {
            let name = name.to_ascii_lowercase();
            if !is_hoistable(&name) || headers.contains_key(name.as_str()) {
                continue;
            }
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(value.as_bytes())) {
                all.append(name, value);
            }
        }
        all
    }
}

fn is_hoistable(name: &str) -> bool {
    const OF_THE_SIGNATURE: [&str; 9] = [
        "x-amz-algorithm",
        "x-amz-credential",
        "x-amz-date",
        "x-amz-expires",
        "x-amz-signedheaders",
        "x-amz-signature",
        "x-amz-security-token",
        "x-amz-content-sha256",
        "x-amz-sdk-checksum-algorithm",
    ];
    const CHECKSUM_SETTINGS: [&str; 3] = ["x-amz-checksum-mode", "x-amz-checksum-algorithm", "x-amz-checksum-type"];
    name.starts_with("x-amz-")
        && !OF_THE_SIGNATURE.contains(&name)
        && (!name.starts_with("x-amz-checksum-") || CHECKSUM_SETTINGS.contains(&name))
}

/// Percent-decodes one part of a query: `+` is a space, a stray `%` stays as it is.
pub(crate) fn decode_bytes(part: &str) -> Vec<u8> {
    let spaced: Cow<'_, str> = if part.contains('+') { Cow::Owned(part.replace('+', " ")) } else { Cow::Borrowed(part) };
    percent_decode(spaced.as_bytes()).collect()
}

fn decode_utf8(part: &str) -> Result<String, S3Error> {
    String::from_utf8(decode_bytes(part)).map_err(|_| S3Error::of(ErrorCode::InvalidURI))
}

#[cfg(test)]
mod tests {
    use ::http::HeaderMap;
    use proptest::prelude::*;

    use super::Query;

    #[test]
    fn plus_and_percent_20_are_spaces_and_the_first_value_wins() {
        let query = Query::parse("prefix=a+b%20c&prefix=z&acl&location=1&&x=%2B=").unwrap();
        assert_eq!(query.get("prefix"), Some("a b c"));
        assert_eq!((query.get("acl"), query.non_empty("acl")), (Some(""), None));
        assert!(query.has("location") && !query.has("Location"));
        assert_eq!(query.get("x"), Some("+="));
        assert!(Query::parse("a=%ff").is_err());
    }

    #[test]
    fn hoisted_headers_are_honoured_but_never_checksum_values_or_the_signature() {
        let query = Query::parse("X-Amz-Meta-A=1&x-amz-checksum-crc32=AAAAAA%3D%3D&x-amz-checksum-mode=ENABLED&X-Amz-Date=x&x-amz-acl=private&x-amz-sdk-checksum-algorithm=CRC32")
            .unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-acl", "public-read".parse().unwrap());
        let all = query.with_hoisted_headers(&headers);
        assert_eq!(all["x-amz-meta-a"], "1");
        assert_eq!(all["x-amz-checksum-mode"], "ENABLED");
        assert_eq!(all["x-amz-acl"], "public-read");
        assert_eq!(all.len(), 3);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(raw in "[\\x20-\\x7e]{0,80}") {
            let _ = Query::parse(&raw);
        }
    }
}
