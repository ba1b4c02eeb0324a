//! ListBuckets, CreateBucket, HeadBucket, DeleteBucket, GetBucketLocation.
//!
//! Source: s3 reference §3.2.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use garage_api_common::{
    ErrorCode, S3Error,
    http::Body,
    limits::XML_BODY_MAX_BYTES,
    time::iso8601,
    xml::{XmlWriter, parse},
};
use garage_model::{
    ModelError,
    access::{BucketView, Right},
    error::ClientError,
    keys::AccessKey,
    names::check_bucket_name,
    rows::{
        access::{AccessSettings, Ownership, Tag},
        bucket::{BucketRow, LockSettings, Versioning},
    },
};
use http::{HeaderName, Response, StatusCode, header};

use crate::{
    acl::{self, AclOn},
    answer,
    error::Subject,
    headers,
    limits::{BUCKET_TAGS_MAX, BUCKETS_PAGE_MAX},
    request::{IncomingBody, Request, Services, Target},
    settings::Owner,
    tagging,
};

/// GET of the service: the buckets that the key has any right on, under the names that it can use.
pub async fn list_buckets(services: &Services, request: &Request) -> Result<Response<Body>, S3Error> {
    let (query, key) = (&request.query, request.signer()?);
    let prefix = query.get("prefix").unwrap_or_default();
    let max = page_size(query.non_empty("max-buckets"))?;
    let after = query.non_empty("continuation-token").map(read_token).transpose()?;
    let elsewhere = query.non_empty("bucket-region").is_some_and(|region| region != &*services.region);
    let buckets = services.access.buckets().list(request.context()).await.map_err(|error| Subject::default().error(error))?;
    let names = visible_names(key, &buckets);
    let listed = names.iter().filter(|(name, _)| !elsewhere && name.starts_with(prefix));
    let mut listed = listed.filter(|(name, _)| after.as_ref().is_none_or(|after| after < *name)).peekable();
    let mut xml = XmlWriter::s3_document("ListAllMyBucketsResult");
    Owner::of_key(key).write(&mut xml, "Owner");
    xml.open("Buckets");
    let mut last = None;
    for (name, bucket) in listed.by_ref().take(max) {
        xml.open("Bucket").text("Name", name).text("CreationDate", &iso8601(bucket.row.created_ms));
        xml.text("BucketRegion", &services.region).close("Bucket");
        last = Some(name);
    }
    xml.close("Buckets");
    if let (Some(last), true) = (last, listed.peek().is_some()) {
        xml.text("ContinuationToken", &URL_SAFE_NO_PAD.encode(last));
    }
    xml.optional("Prefix", query.non_empty("prefix")).close("ListAllMyBucketsResult");
    Ok(answer::xml(xml.finish()))
}

/// A key's own names hide the global ones that spell the same.
fn visible_names<'a>(key: &AccessKey, buckets: &'a [BucketView]) -> BTreeMap<String, &'a BucketView> {
    let mut names = BTreeMap::new();
    let visible = || buckets.iter().filter(|bucket| !bucket.permissions(key).is_none());
    for bucket in visible() {
        names.extend(bucket.row.global_aliases.iter().map(|name| (name.clone(), bucket)));
    }
    for bucket in visible() {
        let own = bucket.row.local_aliases.get(&key.id);
        names.extend(own.into_iter().flatten().map(|name| (name.clone(), bucket)));
    }
    names
}

fn page_size(value: Option<&str>) -> Result<usize, S3Error> {
    let Some(value) = value else { return Ok(BUCKETS_PAGE_MAX) };
    let number = value.parse().ok().filter(|number| (1..=BUCKETS_PAGE_MAX).contains(number));
    number.ok_or_else(|| S3Error::invalid_argument("Argument max-buckets must be an integer between 1 and 10000", "max-buckets", value))
}

fn read_token(token: &str) -> Result<String, S3Error> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok();
    let incorrect = || S3Error::invalid_argument("The continuation token provided is incorrect", "continuation-token", token);
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(incorrect)
}

/// PUT of a bucket.
pub async fn create_bucket(services: &Services, request: &Request, name: &str, body: IncomingBody) -> Result<Response<Body>, S3Error> {
    let subject = Subject { bucket: name, ..Subject::default() };
    let key = request.signer()?;
    check_bucket_name(name, true).map_err(|error| subject.error(error.into()))?;
    refuse_unsupported(request)?;
    let access = new_access(services, request, key).await?;
    let can_lock = wants_lock(request)?;
    let document = body.read(XML_BODY_MAX_BYTES).await?;
    let tags = read_configuration(&document, &services.region)?;
    match services.access.check(key, name, Right::Any, request.context()).await {
        Err(ModelError::Client(ClientError::NoSuchBucket)) => {}
        Ok(access) => return Err(taken(matches!(access, garage_model::access::Access::Granted(_)), key, name)),
        Err(error) => return Err(subject.error(error)),
    }
    if !key.row.create_bucket {
        return Err(S3Error::new(ErrorCode::AccessDenied, "Access Denied: this access key may not create buckets"));
    }
    let set_up = |row: &mut BucketRow| {
        (row.access, row.tags) = (access, tags);
        if can_lock {
            (row.versioning, row.object_lock) = (Versioning::Enabled, Some(LockSettings::default()));
        }
    };
    match services.access.buckets().create_set_up(name, key, set_up, request.context()).await {
        Ok(_) => {}
        // Whoever was quicker may have been this very key, in a request that was sent twice.
        Err(ModelError::Client(ClientError::BucketExists { .. })) => {
            let access = services.access.check(key, name, Right::Any, request.context()).await;
            return Err(taken(matches!(access, Ok(garage_model::access::Access::Granted(_))), key, name));
        }
        Err(error) => return Err(subject.error(error)),
    }
    let mut response = answer::empty(StatusCode::OK);
    headers::put(response.headers_mut(), header::LOCATION, &format!("/{name}"));
    Ok(response)
}

/// Ownership and list of a bucket to be. Errors: 400 `InvalidBucketAclWithObjectOwnership`, `InvalidArgument`.
async fn new_access(services: &Services, request: &Request, key: &AccessKey) -> Result<AccessSettings, S3Error> {
    const NAME: &str = "x-amz-object-ownership";
    let ownership = match request.header(NAME)? {
        None => Ownership::default(),
        Some(name) => {
            Ownership::of_name(name).ok_or_else(|| S3Error::invalid_argument("Invalid x-amz-object-ownership header", NAME, name))?
        }
    };
    let asked = acl::of_headers(services, request, AclOn::Bucket, &key.id, &key.id).await?;
    match asked {
        Some(asked) if !ownership.has_acls() && !asked.is_private_to(&key.id) => {
            Err(S3Error::of(ErrorCode::InvalidBucketAclWithObjectOwnership))
        }
        asked => Ok(AccessSettings { ownership, acl: asked.filter(|_| ownership.has_acls()), ..AccessSettings::default() }),
    }
}

/// Whether the bucket is to have object lock, and so versions. Errors: 400 `InvalidArgument`.
fn wants_lock(request: &Request) -> Result<bool, S3Error> {
    const HEADER: &str = "x-amz-bucket-object-lock-enabled";
    match request.header(HEADER)? {
        None => Ok(false),
        Some(value) if value.eq_ignore_ascii_case("false") => Ok(false),
        Some(value) if value.eq_ignore_ascii_case("true") => Ok(true),
        Some(other) => Err(S3Error::invalid_argument("The value must be true or false", HEADER, other)),
    }
}

/// The name is taken: by a bucket that this key may use, or by someone else's.
fn taken(is_own: bool, key: &AccessKey, name: &str) -> S3Error {
    match (is_own, key.row.create_bucket) {
        (true, _) => S3Error::of(ErrorCode::BucketAlreadyOwnedByYou).with("BucketName", name),
        (false, true) => S3Error::of(ErrorCode::BucketAlreadyExists).with("BucketName", name),
        (false, false) => S3Error::access_denied(),
    }
}

fn refuse_unsupported(request: &Request) -> Result<(), S3Error> {
    match request.header("x-amz-bucket-namespace")? {
        None | Some("global") => Ok(()),
        Some(_) => Err(S3Error::not_implemented("x-amz-bucket-namespace")),
    }
}

/// The body may be empty; if it names a place, it must be here. Returns the tags that it gives the bucket.
fn read_configuration(document: &[u8], region: &str) -> Result<Vec<Tag>, S3Error> {
    if document.iter().all(u8::is_ascii_whitespace) {
        return Ok(Vec::new());
    }
    let configuration = parse(document, &["CreateBucketConfiguration"])?;
    for unsupported in ["Location", "Bucket"] {
        if configuration.child(unsupported).is_some() {
            return Err(S3Error::not_implemented(unsupported));
        }
    }
    let tags = configuration.at_most_one("Tags")?.map_or(Ok(Vec::new()), |tags| tagging::of_set(tags, BUCKET_TAGS_MAX))?;
    match configuration.value_of("LocationConstraint") {
        None | Some("") => Ok(tags),
        Some(constraint) if constraint == region => Ok(tags),
        Some(constraint) => {
            let message = format!("The specified location-constraint is not valid; this cluster's region is {region}");
            Err(S3Error::new(ErrorCode::InvalidLocationConstraint, message).with("LocationConstraint", constraint))
        }
    }
}

/// HEAD of a bucket.
pub fn head_bucket(services: &Services) -> Response<Body> {
    let mut response = answer::empty(StatusCode::OK);
    headers::put(response.headers_mut(), HeaderName::from_static("x-amz-bucket-region"), &services.region);
    headers::put(response.headers_mut(), HeaderName::from_static("x-amz-access-point-alias"), "false");
    response
}

/// DELETE of a bucket, which must be empty.
pub async fn delete_bucket(services: &Services, target: &Target, request: &Request) -> Result<Response<Body>, S3Error> {
    let deleted = services.access.buckets().delete(target.bucket.id, request.context()).await;
    deleted.map_err(|error| target.subject().error(error))?;
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

/// GET of a bucket's region: a bare root with text, empty for us-east-1.
pub fn get_location(services: &Services) -> Response<Body> {
    let mut xml = XmlWriter::s3_document("LocationConstraint");
    xml.raw_text(if &*services.region == "us-east-1" { "" } else { &services.region }).close("LocationConstraint");
    answer::xml(xml.finish())
}

#[cfg(test)]
mod tests {
    use garage_api_common::ErrorCode;

    use super::{page_size, read_configuration};

    #[test]
    fn a_bucket_can_only_be_made_here() {
        let check = |document: &str| read_configuration(document.as_bytes(), "garage").map(drop).map_err(|error| error.code);
        let with = |inner: &str| format!("<CreateBucketConfiguration>{inner}</CreateBucketConfiguration>");
        assert_eq!(check(""), Ok(()));
        assert_eq!(check(&with("")), Ok(()));
        assert_eq!(check(&with("<LocationConstraint></LocationConstraint>")), Ok(()));
        assert_eq!(check(&with("<LocationConstraint>garage</LocationConstraint>")), Ok(()));
        assert_eq!(check(&with("<LocationConstraint>eu</LocationConstraint>")), Err(ErrorCode::InvalidLocationConstraint));
        assert_eq!(check("<Nonsense/>"), Err(ErrorCode::MalformedXML));
        assert_eq!(check(&with("<Tags><Tag/></Tags>")), Err(ErrorCode::MalformedXML));
        let tags = "<Tags><Tag><Key>a</Key><Value>b</Value></Tag></Tags>";
        assert_eq!(read_configuration(with(tags).as_bytes(), "garage").unwrap(), [("a".to_owned(), "b".to_owned())]);
    }

    #[test]
    fn pages_of_buckets_are_bounded() {
        assert_eq!(page_size(None).unwrap(), 10_000);
        assert_eq!(page_size(Some("1")).unwrap(), 1);
        for bad in ["0", "10001", "-1", "x"] {
            assert!(page_size(Some(bad)).is_err(), "{bad}");
        }
    }
}
