//! DeleteObject and DeleteObjects.
//!
//! Source: s3 reference §3.7.

use std::collections::BTreeMap;

use garage_api_common::{
    ErrorCode, S3Error,
    conditions::{WriteCondition as ParsedCondition, unquote},
    http::Body,
    limits::KEY_MAX_BYTES,
    xml::{Element, XmlWriter, malformed, parse},
};
use garage_model::{
    ModelError,
    error::ClientError,
    objects::{DeleteOutcome, KeyToDelete, WriteCondition},
};
use http::{HeaderName, Response, StatusCode};

use crate::{
    answer,
    error::Subject,
    get::{invalid_version_id, looks_like_version_id},
    headers,
    limits::{DELETE_KEYS_MAX, LONG_XML_MAX_BYTES},
    request::{IncomingBody, Request, Services, Target, write_condition},
};

/// DELETE of an object. There being none is success.
pub async fn delete_object(services: &Services, target: &Target, request: &Request) -> Result<Response<Body>, S3Error> {
    for name in ["x-amz-if-match-size", "x-amz-if-match-last-modified-time", "x-amz-mfa"] {
        if request.headers.contains_key(name) {
            return Err(S3Error::not_implemented(name));
        }
    }
    let condition = write_condition(ParsedCondition::parse_delete(&request.headers)?);
    let mut response = answer::empty(StatusCode::NO_CONTENT);
    match request.query.get("versionId") {
        None => {}
        Some(id) if id == "null" || looks_like_version_id(id) => {
            headers::put(response.headers_mut(), HeaderName::from_static("x-amz-version-id"), id);
            // A version that is not there is deleted already.
            if id != "null" {
                return Ok(response);
            }
        }
        Some(id) => return Err(invalid_version_id(id)),
    }
    let deleted = services.objects.delete(&target.bucket_ref(), &target.key, &condition, request.context()).await;
    deleted.map_err(|error| delete_error(&target.write_subject(&condition), error))?;
    Ok(response)
}

/// A condition on an object that is not there has failed; to a write it is `NoSuchKey`.
fn delete_error(subject: &Subject<'_>, error: ModelError) -> S3Error {
    match error {
        ModelError::Client(ClientError::NoSuchKey) => S3Error::precondition_failed("If-Match"),
        error => subject.error(error),
    }
}

/// A key that a DeleteObjects names.
struct Named {
    key: String,
    version_id: Option<String>,
    /// What is to be done, or why not.
    verdict: Result<WriteCondition, S3Error>,
}

/// POST of a list of keys to delete.
pub async fn delete_objects(
    services: &Services,
    target: &Target,
    request: &Request,
    body: IncomingBody,
) -> Result<Response<Body>, S3Error> {
    if request.headers.contains_key("x-amz-mfa") {
        return Err(S3Error::not_implemented("x-amz-mfa"));
    }
    let document = parse(&body.read_with_integrity(LONG_XML_MAX_BYTES).await?, &["Delete"])?;
    let quiet = document.value_of("Quiet").is_some_and(|quiet| quiet.eq_ignore_ascii_case("true"));
    let named = document.children_named("Object").map(read_object).collect::<Result<Vec<Named>, S3Error>>()?;
    if named.is_empty() || DELETE_KEYS_MAX < named.len() {
        return Err(malformed());
    }
    let outcomes = delete_named(services, target, request, &named).await;
    Ok(answer::xml(render(target, &named, &outcomes, quiet)))
}

fn read_object(element: &Element) -> Result<Named, S3Error> {
    let key = element.text_of("Key").filter(|key| !key.is_empty()).ok_or_else(malformed)?.to_owned();
    let version_id = element.value_of("VersionId").filter(|id| !id.is_empty()).map(str::to_owned);
    let verdict = judge(element, &key, version_id.as_deref());
    Ok(Named { key, version_id, verdict })
}

fn judge(element: &Element, key: &str, version_id: Option<&str>) -> Result<WriteCondition, S3Error> {
    if KEY_MAX_BYTES < key.len() {
        return Err(S3Error::of(ErrorCode::KeyTooLongError));
    }
    if version_id.is_some_and(|id| id != "null" && !looks_like_version_id(id)) {
        return Err(S3Error::of(ErrorCode::NoSuchVersion));
    }
    if element.child("LastModifiedTime").is_some() || element.child("Size").is_some() {
        return Err(S3Error::of(ErrorCode::NotImplemented));
    }
    let etags = element.value_of("ETag").map(|etag| vec![unquote(etag).to_owned()]);
    Ok(WriteCondition { absent: false, etags })
}

/// Deletes each key once, however often it is named. The outcomes are by key and condition.
async fn delete_named(services: &Services, target: &Target, request: &Request, named: &[Named]) -> BTreeMap<Wanted, DeleteOutcome> {
    let mut wanted: BTreeMap<Wanted, KeyToDelete> = BTreeMap::new();
    for object in named {
        let is_there = object.version_id.as_deref().is_none_or(|id| id == "null");
        if let (Ok(condition), true) = (&object.verdict, is_there) {
            let to_delete = KeyToDelete { key: object.key.clone(), condition: condition.clone() };
            wanted.insert((object.key.clone(), condition.etags.clone()), to_delete);
        }
    }
    let (names, keys): (Vec<Wanted>, Vec<KeyToDelete>) = wanted.into_iter().unzip();
    let outcomes = services.objects.delete_many(&target.bucket_ref(), keys, request.context()).await;
    names.into_iter().zip(outcomes).collect()
}

type Wanted = (String, Option<Vec<String>>);

fn render(target: &Target, named: &[Named], outcomes: &BTreeMap<Wanted, DeleteOutcome>, quiet: bool) -> String {
    let mut xml = XmlWriter::s3_document("DeleteResult");
    for object in named {
        let error = match &object.verdict {
            Err(error) => Some((error.code.name(), error.message.to_string())),
            Ok(condition) => match outcomes.get(&(object.key.clone(), condition.etags.clone())) {
                Some(Err(error)) => Some(outcome_error(target, object, error)),
                Some(Ok(())) | None => None,
            },
        };
        match error {
            None if quiet => {}
            None => {
                xml.open("Deleted").text("Key", &object.key).optional("VersionId", object.version_id.as_deref()).close("Deleted");
            }
            Some((code, message)) => {
                xml.open("Error").text("Key", &object.key).optional("VersionId", object.version_id.as_deref());
                xml.text("Code", code).text("Message", &message).close("Error");
            }
        }
    }
    xml.close("DeleteResult");
    xml.finish()
}

fn outcome_error(target: &Target, object: &Named, error: &ModelError) -> (&'static str, String) {
    let subject = Subject {
        bucket: &target.bucket_name,
        key: &object.key,
        upload: "",
        conditional: object.verdict.as_ref().is_ok_and(|condition| !condition.is_none()),
    };
    let error = match error {
        ModelError::Client(ClientError::NoSuchKey) => S3Error::precondition_failed("If-Match"),
        ModelError::Client(error) => subject.error(ModelError::Client(error.clone())),
        ModelError::Table(error) => subject.error(ModelError::Table(error.clone())),
        other => S3Error::internal(other),
    };
    if let Some(cause) = &error.cause {
        tracing::warn!(key = %object.key, code = error.code.name(), %cause, "a key of a DeleteObjects was not deleted");
    }
    (error.code.name(), error.message.into_owned())
}
