//! PostObject: an upload by a browser's form, allowed by a policy that someone with a key signed.
//!
//! Reading order: this file (the answer), `fields` (the form and what it says), `policy` (what it may say: pure), `file` (its content).
//!
//! The form's fields become the headers of a PUT, and the PUT does the rest: whatever it learns, forms can.
//!
//! Source: s3 reference §2.5; AWS S3 API, POST Object.

mod fields;
mod file;
mod policy;

use garage_api_common::{
    http::{Body, full_body},
    xml::XmlWriter,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Uri, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

pub use fields::{Fields, Form};
pub use file::{FormBytes, FormFile};
pub use policy::Policy;

use crate::{headers, list::Encoding};

const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Where an upload went, for its answer.
pub struct Stored<'a> {
    /// Scheme, host, and the bucket if it stands in the path.
    pub base_url: &'a str,
    /// The bucket's name as the client used it.
    pub bucket: &'a str,
    /// The key.
    pub key: &'a str,
}

/// The answer of a form, from the answer `put` of the PUT it stands for.
pub fn answer(put: Response<Body>, fields: &Fields, stored: &Stored<'_>) -> Response<Body> {
    let etag = put.headers().get(header::ETAG).and_then(|etag| etag.to_str().ok()).unwrap_or_default().to_owned();
    let location = format!("{}/{}", stored.base_url, Encoding::Url.apply(stored.key).replace('+', "%20"));
    let redirect = fields.get("success_action_redirect").or_else(|| fields.get("redirect")).and_then(|url| redirect_to(url, stored, &etag));
    let (status, location, document) = match (redirect, fields.get("success_action_status")) {
        (Some(url), _) => (StatusCode::SEE_OTHER, url, None),
        (None, Some("200")) => (StatusCode::OK, location, None),
        (None, Some("201")) => {
            let document = post_response(&location, stored, &etag);
            (StatusCode::CREATED, location, Some(document))
        }
        (None, _) => (StatusCode::NO_CONTENT, location, None),
    };
    let (parts, empty) = put.into_parts();
    let mut response = Response::from_parts(parts, empty);
    *response.status_mut() = status;
    headers::put(response.headers_mut(), header::LOCATION, &location);
    if let Some(document) = document {
        set_document(&mut response, document);
    }
    response
}

fn set_document(response: &mut Response<Body>, document: String) {
    let length = HeaderValue::from(document.len());
    let out: &mut HeaderMap<HeaderValue> = response.headers_mut();
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    out.insert(HeaderName::from_static("content-length"), length);
    *response.body_mut() = full_body(document);
}

/// Stands in no namespace, unlike other answers.
fn post_response(location: &str, stored: &Stored<'_>, etag: &str) -> String {
    let mut xml = XmlWriter::document();
    xml.open("PostResponse").text("Location", location).text("Bucket", stored.bucket).text("Key", stored.key);
    xml.text("ETag", etag).close("PostResponse");
    xml.finish()
}

/// The URL with what was stored in its query; `None` when it is no URL that a browser could go to.
fn redirect_to(url: &str, stored: &Stored<'_>, etag: &str) -> Option<String> {
    let (url, fragment) = url.split_once('#').map_or((url, None), |(url, fragment)| (url, Some(fragment)));
    let uri: Uri = url.parse().ok()?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
        return None;
    }
    let separator = if uri.query().is_some() { '&' } else { '?' };
    let encode = |text: &str| utf8_percent_encode(text, UNRESERVED).to_string();
    let query = format!("bucket={}&key={}&etag={}", encode(stored.bucket), encode(stored.key), encode(etag));
    let fragment = fragment.map(|fragment| format!("#{fragment}")).unwrap_or_default();
    let target = format!("{url}{separator}{query}{fragment}");
    HeaderValue::from_str(&target).is_ok().then_some(target)
}

#[cfg(test)]
mod tests {
    use super::{Stored, redirect_to};

    #[test]
    fn browsers_are_led_to_urls_only_and_told_what_was_stored() {
        let stored = Stored { base_url: "http://h/b", bucket: "b", key: "k/ä" };
        let check = |url: &str, expected: Option<&str>| assert_eq!(redirect_to(url, &stored, "\"e\"").as_deref(), expected, "{url}");
        check("https://a.example/x", Some("https://a.example/x?bucket=b&key=k%2F%C3%A4&etag=%22e%22"));
        check("http://a.example/x?q=1#f", Some("http://a.example/x?q=1&bucket=b&key=k%2F%C3%A4&etag=%22e%22#f"));
        for no_url in ["", "nonsense", "/path", "javascript:alert(1)", "ftp://a/b", "http://", "http://a b/", "http://a/\r\nx: y"] {
            check(no_url, None);
        }
    }
}
