//! Version ids as clients see them, and the versioning of a bucket.
//!
//! Source: s3 reference §3.13.

use garage_api_common::{
    ErrorCode, S3Error,
    http::Body,
    limits::XML_BODY_MAX_BYTES,
    time::http_date,
    xml::{XmlWriter, malformed, parse},
};
use garage_model::{ModelError, error::ClientError, objects::versions::Marker, rows::bucket::Versioning};
use garage_rpc::register::slots::Slot;
use garage_table::control::Effect;
use http::{HeaderMap, HeaderName, Response, StatusCode, header};

use crate::{
    answer, headers,
    request::{IncomingBody, Request, Services, Target},
};

const VERSION_ID: HeaderName = HeaderName::from_static("x-amz-version-id");
const DELETE_MARKER: HeaderName = HeaderName::from_static("x-amz-delete-marker");

/// A version id in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionName {
    /// It may be there.
    Slot(Slot),
    /// It has the looks of an id, but none of ours has this form: there is no such version.
    Unknown,
}

impl VersionName {
    /// Reads an id. Errors: 400 `InvalidArgument`.
    pub fn parse(text: &str) -> Result<VersionName, S3Error> {
        if text == "null" {
            return Ok(VersionName::Slot(Slot::Null));
        }
        match text.parse() {
            Ok(id) => Ok(VersionName::Slot(Slot::Id(id))),
            Err(_) if looks_like_version_id(text) => Ok(VersionName::Unknown),
            Err(_) => Err(invalid_version_id(text)),
        }
    }
    /// The id in a request's query, if it names one.
    pub fn of(request: &Request) -> Result<Option<VersionName>, S3Error> {
        request.query.get("versionId").map(VersionName::parse).transpose()
    }
}

/// The version that a request is about; `None`: the current one. Errors: 400 `InvalidArgument`, 404 `NoSuchVersion`.
pub fn requested(request: &Request, target: &Target) -> Result<Option<Slot>, S3Error> {
    match VersionName::of(request)? {
        None => Ok(None),
        Some(VersionName::Slot(slot)) => Ok(Some(slot)),
        Some(VersionName::Unknown) => Err(no_such_version(&target.key, request.query.get("versionId").unwrap_or_default())),
    }
}

/// Whether this could be the id of a version: then it is one that is not there; anything else is malformed.
pub fn looks_like_version_id(id: &str) -> bool {
    (32..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// 400 for a malformed version id.
pub fn invalid_version_id(id: &str) -> S3Error {
    S3Error::invalid_argument("Invalid version id specified", "versionId", id)
}

/// 404 for a version that is not there.
pub fn no_such_version(key: &str, id: &str) -> S3Error {
    S3Error::of(ErrorCode::NoSuchVersion).with("Key", key).with("VersionId", id)
}

/// A version's id as clients see it.
pub fn version_text(slot: Slot) -> String {
    match slot {
        Slot::Null => "null".to_owned(),
        Slot::Id(id) => id.to_string(),
    }
}

/// Adds `x-amz-version-id`, if the answer has one.
pub fn add_version(out: &mut HeaderMap, slot: Option<Slot>) {
    if let Some(slot) = slot {
        headers::put(out, VERSION_ID, &version_text(slot));
    }
}

/// Adds the id of a version that a write made. Where versions are suspended, S3 shows none; reads show `null`.
pub fn add_new_version(out: &mut HeaderMap, slot: Option<Slot>) {
    add_version(out, slot.filter(|slot| *slot != Slot::Null));
}

/// Adds what tells of a delete marker.
pub fn add_marker(out: &mut HeaderMap, slot: Slot) {
    headers::put(out, DELETE_MARKER, "true");
    add_version(out, Some(slot));
}

/// The version id that an answer about an object of this bucket shows: none where versioning was never on.
pub fn shown(versioning: Versioning, slot: Option<Slot>) -> Option<Slot> {
    slot.filter(|_| versioning != Versioning::Off)
}

/// What a read of a delete marker is answered with: 404 if it is read as the current version, 405 by its id.
pub fn marker_error(target: &Target, request: &Request, marker: Marker, by_id: bool) -> S3Error {
    let error = if by_id {
        S3Error::of(ErrorCode::MethodNotAllowed)
            .with("Method", "GET")
            .with("ResourceType", "DeleteMarker")
            .header(header::ALLOW, "DELETE")
            .header(header::LAST_MODIFIED, http_date(marker.modified_ms))
    } else {
        target.no_such_key(request)
    };
    error.header(DELETE_MARKER, "true").header(VERSION_ID, version_text(marker.slot))
}

/// What a change of what is known of a version is answered with when it can't be made. `slot`: the version, if it was named.
pub fn change_error(target: &Target, request: &Request, slot: Option<Slot>, error: ModelError) -> S3Error {
    match (error, slot) {
        (ModelError::Client(ClientError::NoSuchKey), _) => target.no_such_key(request),
        (ModelError::Client(ClientError::NoSuchVersion), Some(slot)) => no_such_version(&target.key, &version_text(slot)),
        (ModelError::Client(ClientError::IsDeleteMarker), Some(slot)) => S3Error::of(ErrorCode::MethodNotAllowed)
            .with("Method", "PUT")
            .with("ResourceType", "DeleteMarker")
            .header(header::ALLOW, "DELETE")
            .header(DELETE_MARKER, "true")
            .header(VERSION_ID, version_text(slot)),
        (error, _) => target.subject().error(error),
    }
}

/// GET of a bucket's versioning.
pub fn get(target: &Target) -> Response<Body> {
    let mut xml = XmlWriter::s3_document("VersioningConfiguration");
    xml.optional(
        "Status",
        match target.bucket.row.versioning {
            Versioning::Off => None,
            Versioning::Enabled => Some("Enabled"),
            Versioning::Suspended => Some("Suspended"),
        },
    );
    xml.close("VersioningConfiguration");
    answer::xml(xml.finish())
}

/// PUT of a bucket's versioning. Errors: 400 `IllegalVersioningConfigurationException`, 409 `InvalidBucketState`.
pub async fn put(services: &Services, target: &Target, request: &Request, body: IncomingBody) -> Result<Response<Body>, S3Error> {
    if request.headers.contains_key("x-amz-mfa") {
        return Err(S3Error::not_implemented("x-amz-mfa"));
    }
    let document = parse(&body.read_with_integrity(XML_BODY_MAX_BYTES).await?, &["VersioningConfiguration"])?;
    let illegal = || S3Error::of(ErrorCode::IllegalVersioningConfigurationException);
    match document.value_of("MfaDelete").or_else(|| document.value_of("MFADelete")) {
        None | Some("Disabled") => {}
        Some("Enabled") => return Err(S3Error::not_implemented("MfaDelete")),
        Some(_) => return Err(malformed()),
    }
    let versioning = match document.value_of("Status") {
        Some("Enabled") => Versioning::Enabled,
        Some("Suspended") => Versioning::Suspended,
        _ => return Err(illegal()),
    };
    // A node that does not know yet would write, or delete, as if there were no versions.
    let changed = services.access.buckets().change(target.bucket.id, Effect::Restricts, request.context(), |row| {
        if row.object_lock.is_some() && versioning == Versioning::Suspended {
            return Err(ClientError::InvalidBucketState(
                "An Object Lock configuration is present on this bucket, so the versioning state cannot be changed.".to_owned(),
            ));
        }
        row.versioning = versioning;
        Ok(())
    });
    changed.await.map_err(|error| target.subject().error(error))?;
    Ok(answer::empty(StatusCode::OK))
}

#[cfg(test)]
mod tests {
    use garage_api_common::ErrorCode;
    use garage_rpc::register::{WriteId, slots::Slot};

    use super::{VersionName, version_text};

    #[test]
    fn ids_lead_back_and_others_are_told_apart() {
        for slot in [Slot::Null, Slot::Id(WriteId([7; 32]))] {
            assert_eq!(VersionName::parse(&version_text(slot)).unwrap(), VersionName::Slot(slot));
        }
        assert_eq!(VersionName::parse(&"v".repeat(32)).unwrap(), VersionName::Unknown);
        for bad in ["", "x", "NULL", "a b", &"v".repeat(65)] {
            assert_eq!(VersionName::parse(bad).unwrap_err().code, ErrorCode::InvalidArgument, "{bad}");
        }
    }
}
