//! Cross-origin requests: the preflights that browsers send, and the headers that let scripts read an answer.
//!
//! Invariants:
//! - whether a request is served never depends on CORS; only whether a browser shows the answer to a script does;
//! - errors carry the headers too, else scripts could not tell why they failed.
//!
//! Source: s3 reference §3.16; website reference §7. A bucket that only a key's own name leads to can't be found by a preflight, which is
//! not signed: it is answered as if everything were allowed, and the request itself decides.

use ::http::{HeaderMap, HeaderName, Response, StatusCode, header};
use garage_model::rows::rules::CorsRule;

use crate::{
    answer,
    error::{ErrorCode, S3Error},
    http::Body,
    object_headers as headers,
};

/// What a preflight finds of the bucket it is about.
pub enum Preflighted<'a> {
    /// The request names no bucket.
    NoBucket,
    /// No global name leads to the bucket.
    UnknownBucket,
    /// The bucket's rules.
    Rules(&'a [CorsRule]),
}

/// A preflight that can be asked about; errors: 400 `BadRequest`. Made before any bucket is looked up.
pub struct Preflight<'a> {
    origin: &'a str,
    method: &'a str,
    headers: Vec<&'a str>,
    resource: &'static str,
}

impl<'a> Preflight<'a> {
    /// Reads the request's headers. `is_object`: its path names a key.
    pub fn parse(headers: &'a HeaderMap, is_object: bool) -> Result<Preflight<'a>, S3Error> {
        let bad = |message: String| S3Error::new(ErrorCode::BadRequest, message);
        let origin = headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
        let origin = origin.ok_or_else(|| bad("Insufficient information. Origin request header needed.".into()))?;
        let method = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD).and_then(|method| method.to_str().ok());
        let method = method
            .filter(|method| ["GET", "PUT", "POST", "DELETE", "HEAD"].contains(method))
            .ok_or_else(|| bad(format!("Invalid Access-Control-Request-Method: {}", method.unwrap_or("null"))))?;
        let lines = headers.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS).iter();
        let lines = lines.map(|line| line.to_str().map_err(|_| bad("Access-Control-Request-Headers is not text".into())));
        let lines = lines.collect::<Result<Vec<_>, _>>()?;
        let names = lines.into_iter().flat_map(|line| line.split(',')).map(str::trim).filter(|name| !name.is_empty());
        Ok(Preflight { origin, method, headers: names.collect(), resource: if is_object { "OBJECT" } else { "BUCKET" } })
    }

    /// The answer. Errors: 403 `AccessForbidden`.
    pub fn answer(&self, found: Preflighted<'_>) -> Result<Response<Body>, S3Error> {
        let rules = match found {
            Preflighted::NoBucket => return Ok(open_answer("GET")),
            Preflighted::UnknownBucket => return Ok(open_answer("*")),
            Preflighted::Rules(rules) => rules,
        };
        let refused = |error: S3Error, resource| error.with("Method", self.method).with("ResourceType", resource);
        if rules.is_empty() {
            let message = "CORSResponse: CORS is not enabled for this bucket.";
            return Err(refused(S3Error::new(ErrorCode::AccessForbidden, message), "BUCKET"));
        }
        let rule = rules.iter().find(|rule| rule.matches(self.origin, self.method, &self.headers));
        let rule = rule.ok_or_else(|| refused(S3Error::of(ErrorCode::AccessForbidden), self.resource))?;
        let mut response = answer::empty(StatusCode::OK);
        let out = response.headers_mut();
        add_rule(out, rule, self.origin);
        if !self.headers.is_empty() {
            headers::put(out, header::ACCESS_CONTROL_ALLOW_HEADERS, &self.headers.join(", ").to_ascii_lowercase());
        }
        if let Some(seconds) = rule.max_age_s {
            headers::put(out, header::ACCESS_CONTROL_MAX_AGE, &seconds.to_string());
        }
        Ok(response)
    }
}

fn open_answer(methods: &str) -> Response<Body> {
    let mut response = answer::empty(StatusCode::OK);
    let out = response.headers_mut();
    headers::put(out, header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");
    headers::put(out, header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    // Browsers take `*` for every name but Authorization, which signed requests carry.
    headers::put(out, header::ACCESS_CONTROL_ALLOW_HEADERS, "*, authorization");
    response
}

/// The origin of a request that a script of another site made.
pub fn origin_of(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok())
}

/// Adds what lets a script read the answer to its request, if the rules do.
pub fn add(out: &mut HeaderMap, rules: &[CorsRule], origin: &str, method: &str) {
    if let Some(rule) = rules.iter().find(|rule| rule.matches(origin, method, &[])) {
        add_rule(out, rule, origin);
    }
}

fn add_rule(out: &mut HeaderMap, rule: &CorsRule, origin: &str) {
    let any = rule.is_for_any_origin();
    headers::put(out, header::ACCESS_CONTROL_ALLOW_ORIGIN, if any { "*" } else { origin });
    headers::put(out, header::ACCESS_CONTROL_ALLOW_METHODS, &rule.allowed_methods.join(", "));
    if !rule.expose_headers.is_empty() {
        headers::put(out, header::ACCESS_CONTROL_EXPOSE_HEADERS, &rule.expose_headers.join(", "));
    }
    if !any {
        headers::put(out, header::ACCESS_CONTROL_ALLOW_CREDENTIALS, "true");
    }
    const VARY: &str = "Origin, Access-Control-Request-Headers, Access-Control-Request-Method";
    headers::put(out, HeaderName::from_static("vary"), VARY);
}
