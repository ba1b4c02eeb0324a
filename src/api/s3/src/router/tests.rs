//! Every row of the routing table, and what is refused on the way.

use garage_api_common::{
    ErrorCode,
    query::Query,
    request::{Address, AddressStyle},
};
use http::{HeaderMap, HeaderValue, Method};
use proptest::prelude::*;

use super::{BucketOperation, ObjectOperation, Operation, route};
use crate::selectors::{BUCKET_SELECTORS, OBJECT_SELECTORS, Setting};

fn routed(method: &str, path: &str, query: &str, copy: bool) -> Result<Operation, (ErrorCode, Option<String>)> {
    let address = Address::resolve(None, path, &[]).unwrap();
    assert_eq!(address.style, AddressStyle::Path);
    let mut headers = HeaderMap::new();
    if copy {
        headers.insert("x-amz-copy-source", HeaderValue::from_static("b/k"));
    }
    let query = Query::parse(query).unwrap();
    route(&method.parse::<Method>().unwrap(), &address, &query, &headers).map_err(|error| {
        let allow = error.headers.iter().find(|(name, _)| name == "allow");
        (error.code, allow.map(|(_, value)| value.to_str().unwrap().to_owned()))
    })
}
fn bucket(method: &str, query: &str) -> Result<BucketOperation, ErrorCode> {
    match routed(method, "/b", query, false) {
        Ok(Operation::Bucket(name, operation)) => {
            assert_eq!(name, "b");
            Ok(operation)
        }
        Ok(other) => panic!("{other:?}"),
        Err((code, _)) => Err(code),
    }
}
fn object(method: &str, query: &str, copy: bool) -> Result<ObjectOperation, ErrorCode> {
    match routed(method, "/b/k/l", query, copy) {
        Ok(Operation::Object(name, key, operation)) => {
            assert_eq!((name.as_str(), key.as_str()), ("b", "k/l"));
            Ok(operation)
        }
        Ok(other) => panic!("{other:?}"),
        Err((code, _)) => Err(code),
    }
}

#[test]
fn plain_requests() {
    assert_eq!(routed("GET", "/", "", false), Ok(Operation::ListBuckets));
    assert_eq!(routed("PUT", "/", "", false), Err((ErrorCode::MethodNotAllowed, Some("GET".into()))));
    assert_eq!(routed("OPTIONS", "/b/k", "acl&policy", false), Ok(Operation::Preflight));
    assert_eq!(bucket("GET", ""), Ok(BucketOperation::ListObjects));
    assert_eq!(bucket("GET", "list-type=2"), Ok(BucketOperation::ListObjectsV2));
    assert_eq!(bucket("GET", "list-type=3"), Ok(BucketOperation::ListObjects));
    assert_eq!(bucket("HEAD", ""), Ok(BucketOperation::HeadBucket));
    assert_eq!(bucket("PUT", "x-id=CreateBucket"), Ok(BucketOperation::CreateBucket));
    assert_eq!(bucket("DELETE", ""), Ok(BucketOperation::DeleteBucket));
    assert_eq!(bucket("PATCH", ""), Err(ErrorCode::MethodNotAllowed));
    assert_eq!(object("GET", "x-id=GetObject&metadata=true", false), Ok(ObjectOperation::GetObject));
    assert_eq!(object("GET", "partNumber=3", false), Ok(ObjectOperation::GetObject));
    assert_eq!(object("HEAD", "versionId=null", false), Ok(ObjectOperation::HeadObject));
    assert_eq!(object("PUT", "", false), Ok(ObjectOperation::PutObject));
    assert_eq!(object("PUT", "", true), Ok(ObjectOperation::CopyObject));
    assert_eq!(object("DELETE", "versionId=null", false), Ok(ObjectOperation::DeleteObject));
    assert_eq!(object("POST", "", false), Err(ErrorCode::MethodNotAllowed));
}

#[test]
fn selectors_choose_the_operation() {
    for (method, query, copy, expected) in [
        ("POST", "uploads", false, ObjectOperation::CreateMultipartUpload),
        ("POST", "uploads=", false, ObjectOperation::CreateMultipartUpload),
        ("PUT", "partNumber=1&uploadId=x", false, ObjectOperation::UploadPart),
        ("PUT", "partNumber=1&uploadId=x", true, ObjectOperation::UploadPartCopy),
        ("POST", "uploadId=x", false, ObjectOperation::CompleteMultipartUpload),
        ("DELETE", "uploadId=x", false, ObjectOperation::AbortMultipartUpload),
        ("GET", "uploadId=x&max-parts=3", false, ObjectOperation::ListParts),
        ("GET", "attributes", false, ObjectOperation::GetObjectAttributes),
        ("GET", "acl=1", false, ObjectOperation::GetObjectAcl),
        ("PUT", "acl", false, ObjectOperation::PutObjectAcl),
        ("GET", "tagging", false, ObjectOperation::GetObjectTagging),
        ("DELETE", "tagging", false, ObjectOperation::DeleteObjectTagging),
        ("GET", "retention", false, ObjectOperation::GetObjectRetention),
        ("PUT", "retention", false, ObjectOperation::PutObjectRetention),
        ("GET", "legal-hold", false, ObjectOperation::GetObjectLegalHold),
        ("PUT", "legal-hold", false, ObjectOperation::PutObjectLegalHold),
    ] {
        assert_eq!(object(method, query, copy), Ok(expected), "{method} {query}");
    }
    assert_eq!(bucket("GET", "versions"), Ok(BucketOperation::ListObjectVersions));
    assert_eq!(bucket("GET", "uploads"), Ok(BucketOperation::ListMultipartUploads));
    assert_eq!(bucket("GET", "location=1"), Ok(BucketOperation::GetBucketLocation));
    assert_eq!(bucket("POST", "delete"), Ok(BucketOperation::DeleteObjects));
    assert_eq!(bucket("GET", "cors"), Ok(BucketOperation::GetSetting(Setting::Cors)));
    assert_eq!(bucket("PUT", "lifecycle"), Ok(BucketOperation::PutSetting(Setting::Lifecycle)));
    assert_eq!(bucket("DELETE", "policy"), Ok(BucketOperation::DeleteSetting(Setting::Policy)));
}

#[test]
fn names_of_selectors_are_case_sensitive() {
    assert_eq!(bucket("GET", "Location"), Ok(BucketOperation::ListObjects));
}

#[test]
fn two_selectors_conflict() {
    assert_eq!(bucket("GET", "acl&policy"), Err(ErrorCode::InvalidArgument));
    assert_eq!(object("GET", "acl&tagging", false), Err(ErrorCode::InvalidArgument));
}

#[test]
fn head_of_a_sub_resource_is_405_with_its_methods() {
    assert_eq!(routed("HEAD", "/b", "acl", false), Err((ErrorCode::MethodNotAllowed, Some("GET, PUT".into()))));
    assert_eq!(routed("HEAD", "/b/k", "tagging", false), Err((ErrorCode::MethodNotAllowed, Some("GET, PUT, DELETE".into()))));
    for selector in BUCKET_SELECTORS {
        let name = selector.name;
        assert_eq!(bucket("HEAD", name), Err(ErrorCode::MethodNotAllowed), "{name}");
        assert_eq!(object("HEAD", name, false), Err(ErrorCode::MethodNotAllowed), "{name}");
    }
}

#[test]
fn a_bucket_s_sub_resource_never_reaches_an_object() {
    for selector in BUCKET_SELECTORS.iter().filter(|selector| !OBJECT_SELECTORS.iter().any(|(name, ..)| *name == selector.name)) {
        for method in ["PUT", "DELETE", "POST"] {
            assert_eq!(object(method, selector.name, false), Err(ErrorCode::InvalidArgument), "{method} {}", selector.name);
        }
    }
    assert_eq!(object("GET", "uploads", false), Err(ErrorCode::InvalidArgument));
    assert_eq!(object("GET", "delete", false), Err(ErrorCode::MethodNotAllowed));
}

#[test]
fn what_is_not_implemented_says_so() {
    for query in ["session", "abac", "metadataTable"] {
        assert_eq!(bucket("GET", query), Err(ErrorCode::NotImplemented), "{query}");
    }
    for (method, query) in [("GET", "torrent"), ("POST", "select"), ("POST", "restore"), ("PUT", "renameObject")] {
        assert_eq!(object(method, query, false), Err(ErrorCode::NotImplemented), "{method} {query}");
    }
    assert_eq!(object("GET", "restore", false), Err(ErrorCode::MethodNotAllowed));
    assert_eq!(bucket("POST", ""), Ok(BucketOperation::PostObject));
}

#[test]
fn a_write_with_an_unknown_valueless_parameter_is_refused() {
    assert_eq!(object("PUT", "append", false), Err(ErrorCode::NotImplemented));
    assert_eq!(object("DELETE", "futureThing", false), Err(ErrorCode::NotImplemented));
    assert_eq!(object("PUT", "cache-buster=1", false), Ok(ObjectOperation::PutObject));
    assert_eq!(object("GET", "futureThing", false), Ok(ObjectOperation::GetObject));
    assert_eq!(object("PUT", "partNumber=1", false), Err(ErrorCode::InvalidArgument));
    assert_eq!(routed("PUT", "/b/k", "uploadId=x", false), Err((ErrorCode::MethodNotAllowed, Some("DELETE, POST, GET".into()))));
    assert_eq!(object("PUT", "versionId=null", false), Err(ErrorCode::InvalidArgument));
}

proptest! {
    #[test]
    fn routing_never_panics(method in "[A-Z]{1,8}", path in "/[a-z/%0-9]{0,12}", raw in "[a-zA-Z=&%-]{0,60}", copy: bool) {
        let Ok(address) = Address::resolve(Some("h"), &path, &[]) else { return Ok(()) };
        let Ok(query) = Query::parse(&raw) else { return Ok(()) };
        let mut headers = HeaderMap::new();
        if copy {
            headers.insert("x-amz-copy-source", HeaderValue::from_static("b/k"));
        }
        let _ = route(&method.parse::<Method>().unwrap(), &address, &query, &headers);
    }
    #[test]
    fn a_write_never_takes_two_sub_resources_for_one(
        first in proptest::sample::select(BUCKET_SELECTORS), second in proptest::sample::select(BUCKET_SELECTORS),
        method in proptest::sample::select(vec!["GET", "PUT", "POST", "DELETE", "HEAD"]),
    ) {
        prop_assume!(first.name != second.name);
        prop_assert_eq!(bucket(method, &format!("{}&{}", first.name, second.name)), Err(ErrorCode::InvalidArgument));
    }
}
