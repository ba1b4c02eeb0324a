//! Bucket settings: whose each is, what a bucket answers where nothing was set, and the refusal of what can't be set. And owners, as S3 shows
//! them.
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
    answer, cors, encryption, lifecycle, lock, policy,
    request::{IncomingBody, Request, Services, Target},
    selectors::Setting,
    tagging, versioning, website,
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
        match &request.key {
            Some(key) if key.id == id => Owner::of_key(key),
            _ => Owner { id: id.to_owned(), name: id.to_owned() },
        }
    }
    /// An owner of these names.
    #[cfg(test)]
    pub fn named(id: &str, name: &str) -> Owner {
        Owner { id: id.to_owned(), name: name.to_owned() }
    }
    /// The canonical user id: that of the key.
    pub fn id(&self) -> &str {
        &self.id
    }
    /// Writes `<name><ID/><DisplayName/></name>`.
    pub fn write(&self, xml: &mut XmlWriter, name: &str) {
        xml.open(name);
        self.write_fields(xml);
        xml.close(name);
    }
    /// Writes `<ID/><DisplayName/>`.
    pub fn write_fields(&self, xml: &mut XmlWriter) {
        xml.text("ID", &self.id).text("DisplayName", &self.name);
    }
}

/// The owner of a bucket and of all in it: the asking key if it owns it, else the first that does.
pub fn owner_of(target: &Target, request: &Request) -> Owner {
    match &request.key {
        Some(key) if target.judge.permissions().owner => Owner::of_key(key),
        // A bucket that no key owns shows the asking one.
        _ => Owner::of_id(target.bucket.row.owner_id().unwrap_or(request.sender_id()), request),
    }
}

/// GET of a setting.
pub fn get(target: &Target, request: &Request, setting: Setting) -> Result<Response<Body>, S3Error> {
    let missing = |code| Err(S3Error::of(code).with("BucketName", &target.bucket_name));
    match setting {
        Setting::Versioning => Ok(versioning::get(target)),
        Setting::Cors => cors::get(target),
        Setting::Lifecycle => lifecycle::get(target),
        Setting::Policy => policy::get(target),
        Setting::PolicyStatus => policy::get_status(target),
        Setting::PublicAccessBlock => policy::get_public_access_block(target),
        Setting::OwnershipControls => policy::get_ownership(target),
        Setting::Website => website::get(target),
        Setting::Tagging => tagging::get_of_bucket(target),
        Setting::Encryption => encryption::get(target),
        Setting::ObjectLock => lock::get_configuration(target),
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

/// Families of named configurations: there are none.
fn configurations(request: &Request, root: &str) -> Result<Response<Body>, S3Error> {
    if request.query.non_empty("id").is_some() {
        return Err(S3Error::of(ErrorCode::NoSuchConfiguration));
    }
    let mut xml = XmlWriter::s3_document(root);
    xml.text("IsTruncated", "false").close(root);
    Ok(answer::xml(xml.finish()))
}

/// PUT of a setting; of what is not implemented only what is already so is accepted.
pub async fn put(
    services: &Services,
    target: &Target,
    request: &Request,
    setting: Setting,
    body: IncomingBody,
) -> Result<Response<Body>, S3Error> {
    match setting {
        Setting::Cors => cors::put(services, target, request, body).await,
        Setting::Versioning => versioning::put(services, target, request, body).await,
        Setting::ObjectLock => lock::put_configuration(services, target, request, body).await,
        Setting::Lifecycle => lifecycle::put(services, target, request, body).await,
        Setting::Policy => policy::put(services, target, request, body).await,
        Setting::PublicAccessBlock => policy::put_public_access_block(services, target, request, body).await,
        Setting::OwnershipControls => policy::put_ownership(services, target, request, body).await,
        Setting::Website => website::put(services, target, request, body).await,
        Setting::Tagging => tagging::put_of_bucket(services, target, request, body).await,
        Setting::Encryption => encryption::put(services, target, request, body).await,
        other => put_what_is_so(other, body).await,
    }
}

async fn put_what_is_so(setting: Setting, body: IncomingBody) -> Result<Response<Body>, S3Error> {
    let (root, is_so): (&str, fn(&Element) -> bool) = match setting {
        Setting::Logging => ("BucketLoggingStatus", |document| document.children.is_empty()),
        Setting::Notification => ("NotificationConfiguration", |document| document.children.is_empty()),
        Setting::Accelerate => ("AccelerateConfiguration", |document| document.value_of("Status") == Some("Suspended")),
        Setting::RequestPayment => ("RequestPaymentConfiguration", |document| document.value_of("Payer") == Some("BucketOwner")),
        other => return Err(S3Error::operation_not_implemented(name(other))),
    };
    let document = parse(&body.read(XML_BODY_MAX_BYTES).await?, &[root])?;
    if is_so(&document) { Ok(answer::empty(StatusCode::OK)) } else { Err(S3Error::operation_not_implemented(name(setting))) }
}

/// DELETE of a setting: what was never set is gone already.
pub async fn delete(services: &Services, target: &Target, request: &Request, setting: Setting) -> Result<Response<Body>, S3Error> {
    match setting {
        Setting::Cors => cors::delete(services, target, request).await,
        Setting::Lifecycle => lifecycle::delete(services, target, request).await,
        Setting::Policy => policy::delete(services, target, request).await,
        Setting::PublicAccessBlock => policy::delete_public_access_block(services, target, request).await,
        Setting::OwnershipControls => policy::delete_ownership(services, target, request).await,
        Setting::Website => website::delete(services, target, request).await,
        Setting::Tagging => tagging::delete_of_bucket(services, target, request).await,
        Setting::Encryption => encryption::delete(services, target, request).await,
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
