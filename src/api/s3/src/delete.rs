//! DeleteObject and DeleteObjects.
//!
//! Source: s3 reference §3.7.

use std::collections::{BTreeMap, BTreeSet};

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
    objects::{
        BucketRef, Deleted, KeyToDelete, WriteCondition,
        versions::{DeletedVersion, VersionToDelete},
    },
    policy::actions,
    rows::bucket::Versioning,
};
use garage_rpc::register::slots::Slot;
use http::{HeaderName, Response, StatusCode};

use crate::{
    answer,
    authorize::{OnKey, allow_each},
    error::Subject,
    headers,
    limits::{DELETE_KEYS_MAX, LONG_XML_MAX_BYTES},
    lock,
    request::{IncomingBody, Request, Services, Target, write_condition},
    versioning::{self, VersionName, version_text},
};

const VERSION_ID: HeaderName = HeaderName::from_static("x-amz-version-id");

/// DELETE of an object. There being none is success, unless a condition asks for one: 404 `NoSuchKey` then.
pub async fn delete_object(services: &Services, target: &Target, request: &Request) -> Result<Response<Body>, S3Error> {
    for name in ["x-amz-if-match-size", "x-amz-if-match-last-modified-time", "x-amz-mfa"] {
        if request.headers.contains_key(name) {
            return Err(S3Error::not_implemented(name));
        }
    }
    let condition = write_condition(ParsedCondition::parse_delete(&request.headers)?);
    let mut response = answer::empty(StatusCode::NO_CONTENT);
    let subject = target.write_subject(&condition);
    let bucket = target.bucket_ref();
    let named = VersionName::of(request)?;
    if let Some(named) = named
        && (bucket.versioning != Versioning::Off || named != VersionName::Slot(Slot::Null))
    {
        headers::put(response.headers_mut(), VERSION_ID, request.query.get("versionId").unwrap_or_default());
        let VersionName::Slot(slot) = named else { return Ok(response) };
        if bucket.versioning == Versioning::Off {
            return Ok(response);
        }
        let governance = lock::governance(target, request)?;
        let target_version = VersionToDelete { slot, etags: condition.etags.clone(), mark: None };
        let deleted = services.objects.delete_versions(&bucket, &target.key, &[target_version], governance, request.context()).await;
        let deleted = deleted.map_err(|error| subject.error(error))?;
        if deleted.iter().any(|deleted| deleted.was_marker) {
            versioning::add_marker(response.headers_mut(), slot);
        }
        return Ok(response);
    }
    let deleted = services.objects.delete(&bucket, &target.key, &condition, request.context()).await;
    let deleted = deleted.map_err(|error| subject.error(error))?;
    if let Some(marker) = deleted.marker {
        versioning::add_marker(response.headers_mut(), marker);
    }
    if named.is_some() {
        headers::put(response.headers_mut(), VERSION_ID, "null");
    }
    Ok(response)
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
    let quiet = match document.at_most_one("Quiet")?.map(|quiet| quiet.text.trim().to_ascii_lowercase()).as_deref() {
        Some("true" | "1") => true,
        None | Some("false" | "0" | "") => false,
        Some(_) => return Err(malformed()),
    };
    let mut named = document.children_named("Object").map(read_object).collect::<Result<Vec<Named>, S3Error>>()?;
    if named.is_empty() || DELETE_KEYS_MAX < named.len() {
        return Err(malformed());
    }
    refuse_forbidden(services, target, request, &mut named).await?;
    let outcomes = delete_named(services, target, request, &named).await?;
    Ok(answer::xml(render(target, &named, &outcomes, quiet)))
}

/// Each key is allowed or refused by itself.
async fn refuse_forbidden(services: &Services, target: &Target, request: &Request, named: &mut [Named]) -> Result<(), S3Error> {
    let action = |named: &Named| if named.version_id.is_some() { actions::DELETE_OBJECT_VERSION } else { actions::DELETE_OBJECT };
    let asked: Vec<OnKey<'_>> = named.iter().map(|named| (named.key.as_str(), named.version_id.as_deref(), action(named))).collect();
    let allowed = allow_each(services, target, request, &asked).await?;
    for (named, allowed) in named.iter_mut().zip(allowed) {
        if !allowed && named.verdict.is_ok() {
            named.verdict = Err(S3Error::access_denied());
        }
    }
    Ok(())
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
    if version_id.is_some_and(|id| VersionName::parse(id).is_err()) {
        return Err(S3Error::of(ErrorCode::NoSuchVersion));
    }
    if element.child("LastModifiedTime").is_some() || element.child("Size").is_some() {
        return Err(S3Error::of(ErrorCode::NotImplemented));
    }
    let etags = element.value_of("ETag").map(|etag| vec![unquote(etag).to_owned()]);
    Ok(WriteCondition { absent: false, etags })
}

/// What became of one of the named.
enum Outcome {
    /// A marker came over the key, or it is gone where nothing is kept.
    Key(Deleted),
    /// A version is gone.
    Version(DeletedVersion),
}

type Wanted = (String, Option<Slot>, Option<Vec<String>>);

fn wanted_of(object: &Named, bucket: &BucketRef) -> Option<Wanted> {
    let condition = object.verdict.as_ref().ok()?;
    let slot = match object.version_id.as_deref().map(VersionName::parse) {
        None => None,
        // Without versions, the version null is the object.
        Some(Ok(VersionName::Slot(Slot::Null))) if bucket.versioning == Versioning::Off => None,
        Some(Ok(VersionName::Slot(slot))) if bucket.versioning != Versioning::Off => Some(slot),
        // A version that is not there is deleted already.
        Some(_) => return None,
    };
    Some((object.key.clone(), slot, condition.etags.clone()))
}

/// Deletes each key, and each version, once, however often it is named.
async fn delete_named(
    services: &Services,
    target: &Target,
    request: &Request,
    named: &[Named],
) -> Result<BTreeMap<Wanted, Result<Outcome, ModelError>>, S3Error> {
    let (bucket, governance) = (target.bucket_ref(), lock::governance(target, request)?);
    let wanted: BTreeSet<Wanted> = named.iter().filter_map(|object| wanted_of(object, &bucket)).collect();
    let (versions, keys): (Vec<Wanted>, Vec<Wanted>) = wanted.into_iter().partition(|(_, slot, _)| slot.is_some());
    let to_delete =
        |(key, _, etags): &Wanted| KeyToDelete { key: key.clone(), condition: WriteCondition { absent: false, etags: etags.clone() } };
    let outcomes = services.objects.delete_many(&bucket, keys.iter().map(to_delete).collect(), request.context()).await;
    let mut all: BTreeMap<Wanted, Result<Outcome, ModelError>> =
        keys.into_iter().zip(outcomes.into_iter().map(|outcome| outcome.map(Outcome::Key))).collect();
    let mut by_key: BTreeMap<String, Vec<Wanted>> = BTreeMap::new();
    for version in versions {
        by_key.entry(version.0.clone()).or_default().push(version);
    }
    let target_of = |(_, slot, etags): &Wanted| VersionToDelete { slot: slot.unwrap_or_default(), etags: etags.clone(), mark: None };
    let targets = by_key.iter().map(|(key, wanted)| (key.clone(), wanted.iter().map(target_of).collect())).collect();
    let outcomes = services.objects.delete_versions_of(&bucket, targets, governance, request.context()).await;
    for (wanted, outcomes) in by_key.into_values().zip(outcomes) {
        all.extend(wanted.into_iter().zip(outcomes.into_iter().map(|outcome| outcome.map(Outcome::Version))));
    }
    Ok(all)
}

fn render(target: &Target, named: &[Named], outcomes: &BTreeMap<Wanted, Result<Outcome, ModelError>>, quiet: bool) -> String {
    let bucket = target.bucket_ref();
    let mut xml = XmlWriter::s3_document("DeleteResult");
    for object in named {
        let outcome = wanted_of(object, &bucket).and_then(|wanted| outcomes.get(&wanted));
        let error = match (&object.verdict, outcome) {
            (Err(error), _) => Some((error.code.name(), error.message.to_string())),
            (Ok(_), Some(Err(error))) => Some(outcome_error(target, object, error)),
            (Ok(_), Some(Ok(_)) | None) => None,
        };
        match error {
            None if quiet => {}
            None => {
                xml.open("Deleted").text("Key", &object.key).optional("VersionId", object.version_id.as_deref());
                let marker = match outcome {
                    Some(Ok(Outcome::Key(deleted))) => deleted.marker.map(version_text),
                    Some(Ok(Outcome::Version(deleted))) if deleted.was_marker => object.version_id.clone(),
                    _ => None,
                };
                if let Some(marker) = marker {
                    xml.text("DeleteMarker", "true").text("DeleteMarkerVersionId", &marker);
                }
                xml.close("Deleted");
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
        // In a list a condition on what is not there has failed.
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
