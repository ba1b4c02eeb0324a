//! Bucket settings and ACLs: what a bucket answers where nothing was set, and the refusal of what can't be set.
//!
//! Source: s3 reference §1 (the table of bucket selectors), §3.11.

use garage_api_common::{
    ErrorCode, S3Error,
    http::Body,
    limits::XML_BODY_MAX_BYTES,
    xml::{Element, XmlWriter, parse},
};
use garage_model::keys::AccessKey;
use http::{Response, StatusCode};

use crate::{
    answer, headers, limits,
    request::{IncomingBody, Request, Target},
    selectors::Setting,
};

/// Who owns something, as S3 shows it.
pub struct Owner {
    id: String,
    name: String,
}

impl Owner {
    /// The owner that a key stands for.
    pub fn of_key(key: &AccessKey) -> Owner {
        let name = if key.row.name.is_empty() { &key.id } else { &key.row.name };
        Owner { id: key.id.clone(), name: name.clone() }
    }
    /// The owner that a key id stands for; only the asking key's name is known here.
    pub fn of_id(id: &str, request: &Request) -> Owner {
        if id == request.key.id { Owner::of_key(&request.key) } else { Owner { id: id.to_owned(), name: id.to_owned() } }
    }
    /// Writes `<name><ID/><DisplayName/></name>`.
    pub fn write(&self, xml: &mut XmlWriter, name: &str) {
        xml.open(name).text("ID", &self.id).text("DisplayName", &self.name).close(name);
    }
}

/// The owner of a bucket and of all in it: the asking key if it owns it, else the first that does.
pub fn owner_of(target: &Target, request: &Request) -> Owner {
    let permissions = &target.bucket.row.permissions;
    let is_owner = permissions.get(&request.key.id).is_some_and(|permissions| permissions.owner);
    let first = permissions.iter().find(|(_, permissions)| permissions.owner).map(|(id, _)| id);
    match first {
        Some(id) if !is_owner => Owner::of_id(id, request),
        _ => Owner::of_key(&request.key),
    }
}

/// The ACL of a bucket or object: nothing but its owner's rights, as with BucketOwnerEnforced.
pub fn get_acl(target: &Target, request: &Request) -> Response<Body> {
    let owner = owner_of(target, request);
    let mut xml = XmlWriter::s3_document("AccessControlPolicy");
    owner.write(&mut xml, "Owner");
    xml.open("AccessControlList").open("Grant");
    xml.open_with("Grantee", &[("xmlns:xsi", "http://www.w3.org/2001/XMLSchema-instance"), ("xsi:type", "CanonicalUser")]);
    xml.text("ID", &owner.id).text("DisplayName", &owner.name).close("Grantee");
    xml.text("Permission", "FULL_CONTROL").close("Grant").close("AccessControlList").close("AccessControlPolicy");
    answer::xml(xml.finish())
}

/// PUT of an ACL: one that grants nothing beyond the owner's full control changes nothing; s3cmd sends back what it was given.
pub async fn put_acl(target: &Target, request: &Request, body: IncomingBody) -> Result<Response<Body>, S3Error> {
    headers::check_acl(&request.headers, ErrorCode::AccessControlListNotSupported)?;
    if request.headers.contains_key("x-amz-acl") {
        return Ok(answer::empty(StatusCode::OK));
    }
    let owner = owner_of(target, request);
    let document = body.read(limits::ACL_MAX_BYTES).await?;
    if grants_owner_only(&document, &owner.id)? {
        return Ok(answer::empty(StatusCode::OK));
    }
    Err(S3Error::of(ErrorCode::AccessControlListNotSupported))
}

/// Whether an ACL document says what is so anyway.
fn grants_owner_only(document: &[u8], owner_id: &str) -> Result<bool, S3Error> {
    let malformed = |_| S3Error::of(ErrorCode::MalformedACLError);
    let policy = parse(document, &["AccessControlPolicy"]).map_err(malformed)?;
    let grants: Vec<_> = policy.child("AccessControlList").into_iter().flat_map(|list| list.children_named("Grant")).collect();
    let is_owner = |grant: &&Element| {
        let id = grant.child("Grantee").and_then(|grantee| grantee.text_of("ID"));
        id == Some(owner_id) && grant.text_of("Permission") == Some("FULL_CONTROL")
    };
    Ok(!grants.is_empty() && grants.iter().all(is_owner))
}

/// GET of a setting.
pub fn get(target: &Target, request: &Request, setting: Setting) -> Result<Response<Body>, S3Error> {
    let missing = |code| Err(S3Error::of(code).with("BucketName", &target.bucket_name));
    match setting {
        Setting::Versioning => empty_document("VersioningConfiguration"),
        // Handled by `cors`.
        Setting::Cors => missing(ErrorCode::NoSuchCORSConfiguration),
        Setting::Lifecycle => missing(ErrorCode::NoSuchLifecycleConfiguration),
        Setting::Policy | Setting::PolicyStatus => missing(ErrorCode::NoSuchBucketPolicy),
        Setting::PublicAccessBlock => missing(ErrorCode::NoSuchPublicAccessBlockConfiguration),
        Setting::OwnershipControls => ownership_controls(),
        Setting::Website => website(target),
        Setting::Tagging => missing(ErrorCode::NoSuchTagSet),
        Setting::Encryption => missing(ErrorCode::ServerSideEncryptionConfigurationNotFoundError),
        Setting::ObjectLock => missing(ErrorCode::ObjectLockConfigurationNotFoundError),
        Setting::Replication => missing(ErrorCode::ReplicationConfigurationNotFoundError),
        Setting::Logging => empty_document("BucketLoggingStatus"),
        Setting::Notification => empty_document("NotificationConfiguration"),
        Setting::Accelerate => empty_document("AccelerateConfiguration"),
        Setting::RequestPayment => {
            let mut xml = XmlWriter::s3_document("RequestPaymentConfiguration");
            xml.text("Payer", "BucketOwner").close("RequestPaymentConfiguration");
            Ok(answer::xml(xml.finish()))
        }
        Setting::Analytics => configurations(request, "ListBucketAnalyticsConfigurationsResult"),
        Setting::Metrics => configurations(request, "ListMetricsConfigurationsResult"),
        Setting::Inventory => configurations(request, "ListInventoryConfigurationsResult"),
        Setting::IntelligentTiering => configurations(request, "ListBucketIntelligentTieringConfigurationsOutput"),
    }
}

fn empty_document(root: &str) -> Result<Response<Body>, S3Error> {
    let mut xml = XmlWriter::s3_document(root);
    xml.close(root);
    Ok(answer::xml(xml.finish()))
}

/// As of a new bucket of AWS, which is how every bucket here behaves.
fn ownership_controls() -> Result<Response<Body>, S3Error> {
    let mut xml = XmlWriter::s3_document("OwnershipControls");
    xml.open("Rule").text("ObjectOwnership", "BucketOwnerEnforced").close("Rule").close("OwnershipControls");
    Ok(answer::xml(xml.finish()))
}

fn website(target: &Target) -> Result<Response<Body>, S3Error> {
    let Some(website) = &target.bucket.row.website else {
        return Err(S3Error::of(ErrorCode::NoSuchWebsiteConfiguration).with("BucketName", &target.bucket_name));
    };
    let mut xml = XmlWriter::s3_document("WebsiteConfiguration");
    xml.open("IndexDocument").text("Suffix", &website.index_document).close("IndexDocument");
    if let Some(key) = &website.error_document {
        xml.open("ErrorDocument").text("Key", key).close("ErrorDocument");
    }
    xml.close("WebsiteConfiguration");
    Ok(answer::xml(xml.finish()))
}

/// Families of named configurations: there are none.
fn configurations(request: &Request, root: &str) -> Result<Response<Body>, S3Error> {
    if request.query.non_empty("id").is_some() {
        return Err(S3Error::of(ErrorCode::NoSuchConfiguration));
    }
    let mut xml = XmlWriter::s3_document(root);
    xml.text("IsTruncated", "false").close(root);
    Ok(answer::xml(xml.finish()))
}

/// PUT of a setting: accepted where it says what is already so, else 501.
pub async fn put(setting: Setting, body: IncomingBody) -> Result<Response<Body>, S3Error> {
    let (root, is_so): (&str, fn(&Element) -> bool) = match setting {
        Setting::Logging => ("BucketLoggingStatus", |document| document.children.is_empty()),
        Setting::Notification => ("NotificationConfiguration", |document| document.children.is_empty()),
        Setting::Accelerate => ("AccelerateConfiguration", |document| document.value_of("Status") == Some("Suspended")),
        Setting::RequestPayment => ("RequestPaymentConfiguration", |document| document.value_of("Payer") == Some("BucketOwner")),
        Setting::OwnershipControls => ("OwnershipControls", |document| {
            let rule = document.child("Rule");
            rule.and_then(|rule| rule.value_of("ObjectOwnership")) == Some("BucketOwnerEnforced")
        }),
        other => return Err(S3Error::operation_not_implemented(name(other))),
    };
    let document = parse(&body.read(XML_BODY_MAX_BYTES).await?, &[root])?;
    if is_so(&document) { Ok(answer::empty(StatusCode::OK)) } else { Err(S3Error::operation_not_implemented(name(setting))) }
}

/// DELETE of a setting: what was never set is gone already.
pub fn delete(target: &Target, setting: Setting) -> Result<Response<Body>, S3Error> {
    match setting {
        Setting::Website if target.bucket.row.website.is_some() => Err(S3Error::operation_not_implemented("DeleteBucketWebsite")),
        Setting::OwnershipControls => Err(S3Error::operation_not_implemented("DeleteBucketOwnershipControls")),
        Setting::Analytics | Setting::Metrics | Setting::Inventory | Setting::IntelligentTiering => {
            Err(S3Error::of(ErrorCode::NoSuchConfiguration))
        }
        _ => Ok(answer::empty(StatusCode::NO_CONTENT)),
    }
}

fn name(setting: Setting) -> &'static str {
    match setting {
        Setting::Versioning => "PutBucketVersioning",
        Setting::Cors => "PutBucketCors",
        Setting::Lifecycle => "PutBucketLifecycleConfiguration",
        Setting::Policy | Setting::PolicyStatus => "PutBucketPolicy",
        Setting::PublicAccessBlock => "PutPublicAccessBlock",
        Setting::OwnershipControls => "PutBucketOwnershipControls",
        Setting::Website => "PutBucketWebsite",
        Setting::Tagging => "PutBucketTagging",
        Setting::Encryption => "PutBucketEncryption",
        Setting::ObjectLock => "PutObjectLockConfiguration",
        Setting::Replication => "PutBucketReplication",
        Setting::Logging => "PutBucketLogging",
        Setting::Notification => "PutBucketNotificationConfiguration",
        Setting::Accelerate => "PutBucketAccelerateConfiguration",
        Setting::RequestPayment => "PutBucketRequestPayment",
        Setting::Analytics => "PutBucketAnalyticsConfiguration",
        Setting::Metrics => "PutBucketMetricsConfiguration",
        Setting::Inventory => "PutBucketInventoryConfiguration",
        Setting::IntelligentTiering => "PutBucketIntelligentTieringConfiguration",
    }
}
