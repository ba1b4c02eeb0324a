//! GetBucketCors, PutBucketCors, DeleteBucketCors. What the rules do is in [`garage_api_common::cors`].
//!
//! Source: s3 reference §3.16.

pub use garage_api_common::cors::{Preflight, Preflighted, add, origin_of};
use garage_api_common::{
    ErrorCode, S3Error,
    http::Body,
    xml::{Element, XmlWriter, malformed, parse},
};
use garage_model::rows::rules::{CorsRule, check_cors};
use garage_table::control::Effect;
use http::{Response, StatusCode};

use crate::{
    answer,
    limits::CORS_MAX_BYTES,
    request::{IncomingBody, Request, Services, Target},
};

/// GET of the rules.
pub(crate) fn get(target: &Target) -> Result<Response<Body>, S3Error> {
    let rules = &target.bucket.row.cors;
    if rules.is_empty() {
        return Err(S3Error::of(ErrorCode::NoSuchCORSConfiguration).with("BucketName", &target.bucket_name));
    }
    Ok(answer::xml(render(rules)))
}

/// PUT of the rules.
pub(crate) async fn put(services: &Services, target: &Target, request: &Request, body: IncomingBody) -> Result<Response<Body>, S3Error> {
    let rules = read(&body.read_with_integrity(CORS_MAX_BYTES).await?)?;
    store(services, target, request, rules).await?;
    Ok(answer::empty(StatusCode::OK))
}

/// DELETE of the rules.
pub(crate) async fn delete(services: &Services, target: &Target, request: &Request) -> Result<Response<Body>, S3Error> {
    store(services, target, request, Vec::new()).await?;
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

async fn store(services: &Services, target: &Target, request: &Request, rules: Vec<CorsRule>) -> Result<(), S3Error> {
    // Where there were rules, some request may have been allowed that no longer is.
    let effect = if target.bucket.row.cors.is_empty() { Effect::Grants } else { Effect::Restricts };
    let changed = services.access.buckets().change(target.bucket.id, effect, request.context(), |row| {
        row.cors.clone_from(&rules);
        Ok(())
    });
    changed.await.map(drop).map_err(|error| target.subject().error(error))
}

fn render(rules: &[CorsRule]) -> String {
    let mut xml = XmlWriter::s3_document("CORSConfiguration");
    for rule in rules {
        xml.open("CORSRule").optional("ID", rule.id.as_deref());
        let lists = [
            ("AllowedOrigin", &rule.allowed_origins),
            ("AllowedMethod", &rule.allowed_methods),
            ("AllowedHeader", &rule.allowed_headers),
            ("ExposeHeader", &rule.expose_headers),
        ];
        for (name, values) in lists {
            for value in values {
                xml.text(name, value);
            }
        }
        if let Some(seconds) = rule.max_age_s {
            xml.value("MaxAgeSeconds", seconds);
        }
        xml.close("CORSRule");
    }
    xml.close("CORSConfiguration");
    xml.finish()
}

/// The rules of a document. Errors: 400 `MalformedXML`, `InvalidRequest`.
fn read(document: &[u8]) -> Result<Vec<CorsRule>, S3Error> {
    let document = parse(document, &["CORSConfiguration"])?;
    document.only(&["CORSRule"])?;
    let rules = document.children.iter().map(read_rule).collect::<Result<Vec<_>, _>>()?;
    if rules.is_empty() {
        return Err(malformed());
    }
    if let Some(exposed) = rules.iter().flat_map(|rule| &rule.expose_headers).find(|name| name.contains('*')) {
        let message = format!("ExposeHeader \"{exposed}\" contains wildcard. We currently do not support wildcard for ExposeHeader.");
        return Err(S3Error::invalid_request(message));
    }
    check_cors(&rules).map_err(|error| S3Error::invalid_request(error.to_string()))?;
    Ok(rules)
}

/// Whether a document is taken; what is taken reads back as itself.
pub fn reads_back(document: &[u8]) -> bool {
    let Ok(rules) = read(document) else { return false };
    assert_eq!(read(render(&rules).as_bytes()).ok(), Some(rules), "CORS rules read back");
    true
}

fn read_rule(element: &Element) -> Result<CorsRule, S3Error> {
    element.only(&["ID", "AllowedOrigin", "AllowedMethod", "AllowedHeader", "ExposeHeader", "MaxAgeSeconds"])?;
    let list = |name: &'static str| element.children_named(name).map(|child| child.text.trim().to_owned()).collect::<Vec<_>>();
    let max_age = element.at_most_one("MaxAgeSeconds")?.map(|child| child.text.trim().parse::<u32>());
    let rule = CorsRule {
        id: element.at_most_one("ID")?.map(|child| child.text.clone()),
        allowed_origins: list("AllowedOrigin"),
        allowed_methods: list("AllowedMethod"),
        allowed_headers: list("AllowedHeader"),
        expose_headers: list("ExposeHeader"),
        max_age_s: max_age.transpose().map_err(|_| malformed())?,
    };
    if rule.allowed_origins.is_empty() || rule.allowed_methods.is_empty() {
        return Err(malformed());
    }
    Ok(rule)
}
