//! What a request asks for: method, address, query and headers to one operation. Pure.
//!
//! Invariants:
//! - a request that names a sub-resource never falls through to the bucket or object itself;
//! - a write with a parameter that nobody knows is refused, as it may mean something else than a plain write.
//!
//! Source: s3 reference §1.

use garage_api_common::{ErrorCode, S3Error, query::Query, request::Address};
use http::{HeaderMap, Method};

use crate::selectors::{BUCKET_REFUSED, BUCKET_SELECTORS, BucketSelector, MODIFIERS, OBJECT_REFUSED, OBJECT_SELECTORS, Setting};

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// `GET /`
    ListBuckets,
    /// `OPTIONS`, any path.
    Preflight,
    /// On a bucket.
    Bucket(String, BucketOperation),
    /// On an object.
    Object(String, String, ObjectOperation),
}

/// What a request asks of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are S3's")]
pub enum BucketOperation {
    CreateBucket,
    HeadBucket,
    DeleteBucket,
    ListObjects,
    ListObjectsV2,
    ListObjectVersions,
    ListMultipartUploads,
    GetBucketLocation,
    DeleteObjects,
    PostObject,
    GetBucketAcl,
    PutBucketAcl,
    GetSetting(Setting),
    PutSetting(Setting),
    DeleteSetting(Setting),
}

/// What a request asks of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are S3's")]
pub enum ObjectOperation {
    GetObject,
    HeadObject,
    PutObject,
    CopyObject,
    DeleteObject,
    CreateMultipartUpload,
    UploadPart,
    UploadPartCopy,
    CompleteMultipartUpload,
    AbortMultipartUpload,
    ListParts,
    GetObjectAttributes,
    GetObjectAcl,
    PutObjectAcl,
    GetObjectTagging,
    PutObjectTagging,
    DeleteObjectTagging,
    GetObjectRetention,
    PutObjectRetention,
    GetObjectLegalHold,
    PutObjectLegalHold,
}

impl Operation {
    /// Whether it has a source (`x-amz-copy-source`).
    pub fn is_copy(&self) -> bool {
        matches!(self, Operation::Object(_, _, ObjectOperation::CopyObject | ObjectOperation::UploadPartCopy))
    }
    /// Of operations that write content: whether an object is there after it. An upload is none until it is completed.
    pub fn creates_object(&self) -> Option<bool> {
        use ObjectOperation as On;
        let Operation::Object(_, _, operation) = self else { return None };
        match operation {
            On::PutObject | On::CopyObject | On::CompleteMultipartUpload => Some(true),
            On::CreateMultipartUpload | On::UploadPart | On::UploadPartCopy => Some(false),
            _ => None,
        }
    }
}

/// The operation of a request. `headers`: with those of a presigned query.
///
/// Errors: 400 `InvalidArgument` (selectors that exclude each other or stand on the wrong resource), 405 with `Allow`, 501.
pub fn route(method: &Method, address: &Address, query: &Query, headers: &HeaderMap) -> Result<Operation, S3Error> {
    if method == Method::OPTIONS {
        return Ok(Operation::Preflight);
    }
    match (&address.bucket, &address.key) {
        (None, _) if method == Method::GET => Ok(Operation::ListBuckets),
        (None, _) => Err(S3Error::method_not_allowed(method, "SERVICE", "GET")),
        (Some(bucket), None) => Ok(Operation::Bucket(bucket.clone(), route_bucket(method, query)?)),
        (Some(bucket), Some(key)) => Ok(Operation::Object(bucket.clone(), key.clone(), route_object(method, query, headers)?)),
    }
}

/// The methods of S3 that change something.
fn is_write(method: &Method) -> bool {
    matches!(*method, Method::PUT | Method::POST | Method::DELETE)
}

fn conflicting(names: &[&str]) -> S3Error {
    let message = format!("Conflicting query string parameters: {}", names.join(", "));
    S3Error::new(ErrorCode::InvalidArgument, message).with("ArgumentName", "ResourceType").with("ArgumentValue", names[0])
}

/// Falling through would overwrite or delete what the parameter was only to touch.
fn refuse_unknown(method: &Method, query: &Query) -> Result<(), S3Error> {
    if !is_write(method) {
        return Ok(());
    }
    let unknown = query.iter().find(|(name, value)| {
        let lower = name.to_ascii_lowercase();
        value.is_empty() && !MODIFIERS.contains(name) && !lower.starts_with("x-amz-") && !lower.starts_with("response-")
    });
    unknown.map_or(Ok(()), |(name, _)| Err(S3Error::not_implemented(name)))
}

fn route_bucket(method: &Method, query: &Query) -> Result<BucketOperation, S3Error> {
    let found: Vec<&BucketSelector> = BUCKET_SELECTORS.iter().filter(|selector| query.has(selector.name)).collect();
    let refused = BUCKET_REFUSED.iter().find(|name| query.has(name));
    match (found.as_slice(), refused) {
        ([], Some(name)) => Err(S3Error::not_implemented(name)),
        ([], None) => {
            refuse_unknown(method, query)?;
            route_plain_bucket(method, query)
        }
        ([selector], None) => route_bucket_selector(method, selector),
        (several, _) => Err(conflicting(&several.iter().map(|selector| selector.name).chain(refused.copied()).collect::<Vec<_>>())),
    }
}

fn route_plain_bucket(method: &Method, query: &Query) -> Result<BucketOperation, S3Error> {
    match *method {
        Method::GET if query.get("list-type") == Some("2") => Ok(BucketOperation::ListObjectsV2),
        Method::GET => Ok(BucketOperation::ListObjects),
        Method::HEAD => Ok(BucketOperation::HeadBucket),
        Method::PUT => Ok(BucketOperation::CreateBucket),
        Method::DELETE => Ok(BucketOperation::DeleteBucket),
        Method::POST => Ok(BucketOperation::PostObject),
        _ => Err(S3Error::method_not_allowed(method, "BUCKET", "GET, HEAD, PUT, POST, DELETE")),
    }
}

fn route_bucket_selector(method: &Method, selector: &BucketSelector) -> Result<BucketOperation, S3Error> {
    if !selector.methods.split(", ").any(|allowed| allowed == method.as_str()) {
        return Err(S3Error::method_not_allowed(method, selector.resource, selector.methods));
    }
    if let Some(setting) = selector.setting {
        return Ok(match *method {
            Method::GET => BucketOperation::GetSetting(setting),
            Method::DELETE => BucketOperation::DeleteSetting(setting),
            _ => BucketOperation::PutSetting(setting),
        });
    }
    Ok(match (selector.name, method) {
        ("versions", _) => BucketOperation::ListObjectVersions,
        ("uploads", _) => BucketOperation::ListMultipartUploads,
        ("location", _) => BucketOperation::GetBucketLocation,
        ("delete", _) => BucketOperation::DeleteObjects,
        ("acl", &Method::GET) => BucketOperation::GetBucketAcl,
        ("acl", _) => BucketOperation::PutBucketAcl,
        (name, _) => return Err(S3Error::not_implemented(name)),
    })
}

fn route_object(method: &Method, query: &Query, headers: &HeaderMap) -> Result<ObjectOperation, S3Error> {
    let found: Vec<_> = OBJECT_SELECTORS.iter().filter(|(name, ..)| query.has(name)).collect();
    match found.as_slice() {
        [] => {
            refuse_bucket_selector(method, query)?;
            refuse_unknown(method, query)?;
            route_plain_object(method, query, headers)
        }
        [(name, resource, methods)] => {
            if method == Method::HEAD {
                return Err(S3Error::method_not_allowed(method, resource, methods));
            }
            if *name == "uploads" && method != Method::POST {
                return Err(wrong_resource(name));
            }
            if OBJECT_REFUSED.contains(name) && !matches!((*name, method), ("restore" | "select", &Method::GET)) {
                return Err(S3Error::not_implemented(name));
            }
            if !methods.split(", ").any(|allowed| allowed == method.as_str()) {
                return Err(S3Error::method_not_allowed(method, resource, methods));
            }
            route_object_selector(name, method, query, headers)
        }
        several => Err(conflicting(&several.iter().map(|(name, ..)| *name).collect::<Vec<_>>())),
    }
}

/// A sub-resource of buckets on a key's path is refused: the object must not be served or touched in its place.
fn refuse_bucket_selector(method: &Method, query: &Query) -> Result<(), S3Error> {
    let Some(selector) = BUCKET_SELECTORS.iter().find(|selector| query.has(selector.name)) else { return Ok(()) };
    if method == Method::HEAD {
        return Err(S3Error::method_not_allowed(method, selector.resource, selector.methods));
    }
    if selector.name == "delete" && method == Method::GET {
        return Err(S3Error::method_not_allowed(method, selector.resource, selector.methods));
    }
    Err(wrong_resource(selector.name))
}

fn wrong_resource(name: &str) -> S3Error {
    S3Error::invalid_argument(format!("The sub-resource {name} belongs to buckets, not to objects"), "ResourceType", name)
}

fn route_plain_object(method: &Method, query: &Query, headers: &HeaderMap) -> Result<ObjectOperation, S3Error> {
    if is_write(method) && query.has("partNumber") {
        return Err(S3Error::invalid_argument("partNumber needs an uploadId here", "partNumber", query.get("partNumber").unwrap_or("")));
    }
    match *method {
        Method::GET => Ok(ObjectOperation::GetObject),
        Method::HEAD => Ok(ObjectOperation::HeadObject),
        Method::PUT if query.has("versionId") => {
            Err(S3Error::invalid_argument("A version can't be chosen for a write", "versionId", query.get("versionId").unwrap_or("")))
        }
        Method::PUT if headers.contains_key("x-amz-copy-source") => Ok(ObjectOperation::CopyObject),
        Method::PUT => Ok(ObjectOperation::PutObject),
        Method::DELETE => Ok(ObjectOperation::DeleteObject),
        _ => Err(S3Error::method_not_allowed(method, "OBJECT", "GET, HEAD, PUT, DELETE")),
    }
}

fn route_object_selector(name: &str, method: &Method, query: &Query, headers: &HeaderMap) -> Result<ObjectOperation, S3Error> {
    Ok(match (name, method.as_str()) {
        ("uploads", _) => ObjectOperation::CreateMultipartUpload,
        ("uploadId", "GET") => ObjectOperation::ListParts,
        ("uploadId", "POST") => ObjectOperation::CompleteMultipartUpload,
        ("uploadId", "DELETE") => ObjectOperation::AbortMultipartUpload,
        // What is put is a part, which needs a number.
        ("uploadId", _) if !query.has("partNumber") => return Err(S3Error::method_not_allowed(method, "UPLOAD", "DELETE, POST, GET")),
        ("uploadId", _) if headers.contains_key("x-amz-copy-source") => ObjectOperation::UploadPartCopy,
        ("uploadId", _) => ObjectOperation::UploadPart,
        ("acl", "GET") => ObjectOperation::GetObjectAcl,
        ("acl", _) => ObjectOperation::PutObjectAcl,
        ("tagging", "GET") => ObjectOperation::GetObjectTagging,
        ("tagging", "PUT") => ObjectOperation::PutObjectTagging,
        ("tagging", "DELETE") => ObjectOperation::DeleteObjectTagging,
        ("retention", "GET") => ObjectOperation::GetObjectRetention,
        ("retention", _) => ObjectOperation::PutObjectRetention,
        ("legal-hold", "GET") => ObjectOperation::GetObjectLegalHold,
        ("legal-hold", _) => ObjectOperation::PutObjectLegalHold,
        ("attributes", _) => ObjectOperation::GetObjectAttributes,
        (name, _) => return Err(S3Error::not_implemented(name)),
    })
}

#[cfg(test)]
mod tests;
