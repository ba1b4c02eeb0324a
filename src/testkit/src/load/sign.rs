//! The client's side of Signature Version 4: header form, body unsigned or by its SHA-256.

use garage_api_common::{
    sigv4::{ChunkSigner, Scope, SigningKey},
    time::iso_basic,
};
use http::{HeaderValue, Request, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};

/// Everything but what RFC 3986 calls unreserved.
const QUERY_VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// As above, slashes kept.
const PATH: &AsciiSet = &QUERY_VALUE.remove(b'/');

/// An access key and where it is used.
#[derive(Clone)]
pub struct Credentials {
    /// The access key.
    pub access_key_id: String,
    /// Its secret.
    pub secret: String,
    /// The region in signatures.
    pub region: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({})", self.access_key_id)
    }
}

/// The path of a key in a bucket, encoded as it is sent and signed.
pub fn path_of(bucket: &str, key: &str) -> String {
    format!("/{}/{}", utf8_percent_encode(bucket, PATH), utf8_percent_encode(key, PATH))
}

/// A query string of pairs that are sorted by name already, encoded as it is sent and signed.
pub fn query_of(pairs: &[(&str, &str)]) -> String {
    debug_assert!(pairs.is_sorted_by_key(|(name, _)| *name));
    let encode = |text| utf8_percent_encode(text, QUERY_VALUE);
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{}={}", encode(*name), encode(*value))).collect();
    pairs.join("&")
}

/// Signs `request` as of `now_ms`: adds `x-amz-date`, `x-amz-content-sha256` and `authorization`.
///
/// `request` needs a `host` header, and a path and query as [`path_of`] and [`query_of`] make them.
pub(super) fn sign<B>(request: &mut Request<B>, credentials: &Credentials, body: Option<&[u8]>, now_ms: u64) -> Result<(), BadCredentials> {
    let payload = body.map_or_else(|| "UNSIGNED-PAYLOAD".to_owned(), |body| hex::encode(Sha256::digest(body)));
    sign_payload(request, credentials, &payload, now_ms).map(drop)
}

/// As a signed request's headers are: with `payload` as the value of `x-amz-content-sha256`, whatever the body will be.
///
/// Returns the chain of chunk signatures that starts at this request's own.
pub fn sign_payload<B>(
    request: &mut Request<B>,
    credentials: &Credentials,
    payload: &str,
    now_ms: u64,
) -> Result<ChunkSigner, BadCredentials> {
    let datetime = iso_basic(now_ms);
    request.headers_mut().insert("x-amz-date", value(&datetime)?);
    request.headers_mut().insert("x-amz-content-sha256", value(payload)?);
    let scope = Scope {
        access_key_id: credentials.access_key_id.clone(),
        date: datetime[..8].to_owned(),
        region: credentials.region.clone(),
        service: "s3".into(),
    };
    let (canonical, signed_headers) = canonical_request(request, payload);
    let text = format!("AWS4-HMAC-SHA256\n{datetime}\n{}\n{}", scope.text(), hex::encode(Sha256::digest(&canonical)));
    let key = SigningKey::derive(&credentials.secret, &scope);
    let signature = key.sign(text.as_bytes());
    let credential = format!("{}/{}", scope.access_key_id, scope.text());
    let authorization = format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={signed_headers}, Signature={signature}");
    request.headers_mut().insert(header::AUTHORIZATION, value(&authorization)?);
    Ok(ChunkSigner::new(key, datetime, &scope, signature))
}

/// The access key id or the region has characters that no header can carry.
#[derive(Debug, thiserror::Error)]
#[error("the access key id or the region has characters that no header can carry")]
pub struct BadCredentials;

fn value(text: &str) -> Result<HeaderValue, BadCredentials> {
    HeaderValue::from_str(text).map_err(|_| BadCredentials)
}

/// The text whose hash is signed, and the list of headers in it: all that the request has.
fn canonical_request<B>(request: &Request<B>, body_hash: &str) -> (String, String) {
    let mut headers: Vec<(&str, String)> = request
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()).trim().to_owned()))
        .collect();
    headers.sort();
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or(""));
    (format!("{}\n{path}\n{query}\n{lines}\n{names}\n{body_hash}", request.method()), names)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Published example: GET Object with a Range header, AWS S3 API reference, "Authenticating requests: using the Authorization header".
    #[test]
    fn a_published_example_gets_its_published_signature() {
        let credentials = Credentials {
            access_key_id: "AKIAIOSFODNN7EXAMPLE".into(),
            secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
            region: "us-east-1".into(),
        };
        let mut request = Request::get("http://examplebucket.s3.amazonaws.com/test.txt")
            .header("host", "examplebucket.s3.amazonaws.com")
            .header("range", "bytes=0-9")
            .body(())
            .unwrap();
        let now_ms = garage_api_common::time::parse_iso_basic("20130524T000000Z").unwrap();
        sign(&mut request, &credentials, Some(b""), now_ms).unwrap();
        let authorization = request.headers()[header::AUTHORIZATION].to_str().unwrap();
        let expected = "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41";
        assert!(authorization.ends_with(expected), "{authorization}");
    }

    #[test]
    fn paths_and_queries_are_encoded_as_they_are_signed() {
        assert_eq!(path_of("b", "a b/ü+~"), "/b/a%20b/%C3%BC%2B~");
        assert_eq!(query_of(&[("list-type", "2"), ("prefix", "a/b c")]), "list-type=2&prefix=a%2Fb%20c");
    }
}
