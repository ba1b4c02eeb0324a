//! Bucket settings: whose each is, what a bucket answers where nothing was set, and the refusal of what can't be set. And owners, as S3 shows
//! them.
//!
//! Source: s3 reference §1 (the table of bucket selectors), §3.11.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use garage_api_common::{
    ErrorCode, S3Error,
    http::Body,
    limits::XML_BODY_MAX_BYTES,
    xml::{Element, XmlWriter, malformed, parse},
};
use garage_model::{acl::ANONYMOUS_ID, keys::AccessKey};
use http::{Response, StatusCode};

use crate::{
    answer, cors, encryption,
    error::Subject,
    lifecycle,
    limits::LOOKS_AT_ONCE,
    lock, policy,
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
    /// The owner that a key id stands for. A key that was deleted since, and nobody, have no name but their id.
    async fn find(services: &Services, request: &Request, id: &str) -> Result<Owner, S3Error> {
        let found = match &request.key {
            Some(key) if key.id == id => return Ok(Owner::of_key(key)),
            _ if id == ANONYMOUS_ID => None,
            _ => services.access.keys().get(id, request.context()).await.map_err(|error| Subject::default().error(error))?,
        };
        Ok(found.map_or_else(|| Owner { id: id.to_owned(), name: id.to_owned() }, |key| Owner::of_key(&key)))
    }
    /// An owner of these names.
    #[cfg(test)]
    pub fn named(id: &str, name: &str) -> Owner {
        Owner { id: id.to_owned(), name: name.to_owned() }
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

/// The id of the owner of a bucket: the asking key if it owns it, else the first that does.
pub fn owner_id_of<'a>(target: &'a Target, request: &'a Request) -> &'a str {
    match &request.key {
        Some(key) if target.judge.permissions().owner => &key.id,
        // A bucket that no key owns shows the asking one.
        _ => target.bucket.row.owner_id().unwrap_or(request.sender_id()),
    }
}

/// Owners of what a page lists.
pub struct Owners {
    bucket_owner: String,
    /// The bucket's and those whose ids were given.
    found: BTreeMap<String, Owner>,
}

impl Owners {
    /// The bucket's owner and those of these ids.
    pub async fn find<'a>(
        services: &Services,
        target: &Target,
        request: &Request,
        ids: impl Iterator<Item = &'a str>,
    ) -> Result<Owners, S3Error> {
        let mut ids: BTreeSet<String> = ids.map(str::to_owned).collect();
        ids.insert(owner_id_of(target, request).to_owned());
        let find = |id: String| async move {
            let owner = Owner::find(services, request, &id).await?;
            Ok::<_, S3Error>((id, owner))
        };
        let found: BTreeMap<String, Owner> = stream::iter(ids.into_iter().map(find)).buffered(LOOKS_AT_ONCE).try_collect().await?;
        Ok(Owners { bucket_owner: owner_id_of(target, request).to_owned(), found })
    }
    /// The owner of an id; of none, the bucket's.
    pub fn of(&self, id: Option<&str>) -> &Owner {
        id.and_then(|id| self.found.get(id)).unwrap_or_else(|| &self.found[&self.bucket_owner])
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

/// Whether a document only says what is so anyway.
type IsSo = fn(&Element) -> Result<bool, S3Error>;

async fn put_what_is_so(setting: Setting, body: IncomingBody) -> Result<Response<Body>, S3Error> {
    let (root, is_so): (&str, IsSo) = match setting {
        Setting::Logging => ("BucketLoggingStatus", |document| Ok(document.children.is_empty())),
        Setting::Notification => ("NotificationConfiguration", |document| Ok(document.children.is_empty())),
        Setting::Accelerate => ("AccelerateConfiguration", |document| is_first_of(document.required("Status")?, ["Suspended", "Enabled"])),
        Setting::RequestPayment => {
            ("RequestPaymentConfiguration", |document| is_first_of(document.required("Payer")?, ["BucketOwner", "Requester"]))
        }
        other => return Err(S3Error::operation_not_implemented(name(other))),
    };
    let document = parse(&body.read(XML_BODY_MAX_BYTES).await?, &[root])?;
    if is_so(&document)? { Ok(answer::empty(StatusCode::OK)) } else { Err(S3Error::operation_not_implemented(name(setting))) }
}

/// Which of the two values a document may hold it holds. Errors: 400 `MalformedXML` for any other.
fn is_first_of(value: &str, known: [&str; 2]) -> Result<bool, S3Error> {
    if known.contains(&value) { Ok(value == known[0]) } else { Err(malformed()) }
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
