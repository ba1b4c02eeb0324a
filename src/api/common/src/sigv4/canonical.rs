//! The text that a signature covers: the canonical request and the string to sign.
//!
//! Works on raw bytes: a header value that is not ASCII is signed as it was sent.

use std::collections::BTreeMap;

use ::http::HeaderMap;
use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};

use super::{RequestView, Scope};
use crate::{query::decode_bytes, request::host_of};

/// How the path goes into the canonical request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PathForm {
    /// Decoded once and encoded again, which is the rule.
    Reencoded,
    /// As it came. Signers differ on `!'()*`; both forms bind the same key.
    Raw,
}

/// The canonical request. `signed_headers` are lower-case names, sorted.
pub(super) fn canonical_request(request: RequestView<'_>, signed_headers: &[String], payload: &str, path_form: PathForm) -> Vec<u8> {
    let mut text = Vec::with_capacity(512);
    text.extend_from_slice(request.method.as_str().as_bytes());
    text.push(b'\n');
    text.extend_from_slice(&canonical_path(request.uri.path(), path_form));
    text.push(b'\n');
    text.extend_from_slice(canonical_query(request.uri.query().unwrap_or_default()).as_bytes());
    text.push(b'\n');
    for name in signed_headers {
        text.extend_from_slice(name.as_bytes());
        text.push(b':');
        text.extend_from_slice(&header_value(request, name));
        text.push(b'\n');
    }
    text.push(b'\n');
    text.extend_from_slice(signed_headers.join(";").as_bytes());
    text.push(b'\n');
    text.extend_from_slice(payload.as_bytes());
    text
}

/// The string to sign.
pub(super) fn string_to_sign(datetime: &str, scope: &Scope, canonical_request: &[u8]) -> String {
    format!("AWS4-HMAC-SHA256\n{datetime}\n{}\n{}", scope.text(), hex::encode(Sha256::digest(canonical_request)))
}

fn canonical_path(raw: &str, form: PathForm) -> Vec<u8> {
    match form {
        _ if raw.is_empty() => b"/".to_vec(),
        PathForm::Raw => raw.as_bytes().to_vec(),
        PathForm::Reencoded => encode(&percent_decode_str(raw).collect::<Vec<u8>>(), true).into_bytes(),
    }
}

fn canonical_query(raw: &str) -> String {
    let mut pairs: Vec<(String, String)> = raw
        .split('&')
        .filter(|segment| !segment.is_empty())
        .map(|segment| {
            let (name, value) = segment.split_once('=').unwrap_or((segment, ""));
            (encode(&decode_bytes(name), false), encode(&decode_bytes(value), false))
        })
        .filter(|(name, _)| !name.eq_ignore_ascii_case("X-Amz-Signature"))
        .collect();
    pairs.sort();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

fn encode(bytes: &[u8], keep_slash: bool) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(bytes.len() + 16);
    for &byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            b'/' if keep_slash => out.push('/'),
            _ => {
                out.push('%');
                out.push(char::from(HEX[usize::from(byte >> 4)]));
                out.push(char::from(HEX[usize::from(byte & 15)]));
            }
        }
    }
    out
}

fn header_value(request: RequestView<'_>, name: &str) -> Vec<u8> {
    if name == "host" {
        return trim_and_collapse(host_of(request.uri, request.headers).unwrap_or_default());
    }
    let lines: Vec<Vec<u8>> = request.headers.get_all(name).iter().map(|value| trim_and_collapse(value.as_bytes())).collect();
    lines.join(&b","[..])
}

fn trim_and_collapse(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    for &byte in value.trim_ascii() {
        if byte != b' ' || out.last() != Some(&b' ') {
            out.push(byte);
        }
    }
    out
}

/// The arriving headers that a signature has to cover and does not, sorted.
pub(super) fn headers_not_signed(headers: &HeaderMap, signed_headers: &[String]) -> Vec<String> {
    let must_be_signed = |name: &str| name.starts_with("x-amz-") && name != "x-amz-content-sha256";
    let mut missing: BTreeMap<&str, ()> =
        headers.keys().map(|name| (name.as_str(), ())).filter(|(name, ())| must_be_signed(name)).collect();
    missing.insert("host", ());
    missing.into_keys().filter(|name| !signed_headers.iter().any(|signed| signed == name)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{PathForm, canonical_path, canonical_query, trim_and_collapse};

    fn path(raw: &str, expected: &str) {
        assert_eq!(String::from_utf8(canonical_path(raw, PathForm::Reencoded)).unwrap(), expected);
    }

    #[test]
    fn paths_are_decoded_once_and_encoded_once() {
        path("", "/");
        path("/a//b/../c/", "/a//b/../c/");
        path("/a%20b+c!'()*", "/a%20b%2Bc%21%27%28%29%2A");
        path("/%2541%7e%c3%a9", "/%2541~%C3%A9");
        path("/100%", "/100%25");
    }

    #[test]
    fn queries_are_sorted_by_encoded_name_then_value() {
        let check = |raw: &str, expected: &str| assert_eq!(canonical_query(raw), expected, "{raw}");
        check("lifecycle", "lifecycle=");
        check("b=2&a=1&&a=0", "a=0&a=1&b=2");
        check("prefix=a/b+c%20d&x=1=2", "prefix=a%2Fb%20c%20d&x=1%3D2");
        check("X-Amz-Signature=abc&X-Amz-Date=1", "X-Amz-Date=1");
        check("a-b=1&a=2", "a=2&a-b=1");
    }

    #[test]
    fn header_values_are_trimmed_and_runs_of_spaces_collapse() {
        assert_eq!(trim_and_collapse(b"  a   b\tc  "), b"a b\tc");
    }

    proptest! {
        #[test]
        fn canonicalising_twice_changes_nothing(raw in "/[ -~]{0,60}") {
            let once = canonical_path(&raw, PathForm::Reencoded);
            let again = canonical_path(std::str::from_utf8(&once).unwrap(), PathForm::Reencoded);
            prop_assert_eq!(once, again);
        }
        #[test]
        fn queries_keep_their_meaning(raw in "\\PC{0,60}") {
            let once = canonical_query(&raw);
            prop_assert_eq!(canonical_query(&once), once);
        }
    }
}
