//! Who may do an operation: which actions of S3 it needs, and whether the bucket's judge allows the caller each of them.
//!
//! Invariants:
//! - a bucket that is not there is 404 before anyone is refused;
//! - a refusal is never decided from this node's mirror alone;
//! - what was decided upon a version of an object holds for that version only: who reads another one is told to try again.
//!
//! Source: s3 reference §3.1 (order of checks), §3.11, §3.12.

use futures::{StreamExt, TryStreamExt, stream};
use garage_api_common::{ErrorCode, S3Error, sigv4::AuthForm, time::iso8601};
use garage_model::{
    ModelError,
    access::Right,
    error::ClientError,
    judge::{HEAD_BUCKET, Judge},
    names::check_bucket_name,
    objects::{FoundObject, Version},
    policy::{
        Facts,
        actions::{self, Action},
    },
    rows::{
        access::Tag,
        bucket::BucketState,
        lifecycle::DAY_MS,
        object::{ObjectLock, Retention},
    },
};
use garage_table::message::Want;
use http::header;

use crate::{
    error::{Subject, invalid_bucket_name},
    limits::LOOKS_AT_ONCE,
    lock,
    request::{Request, Services, Target},
    router::{BucketOperation, ObjectOperation},
    selectors::Setting,
    tagging,
    versioning::VersionName,
};

/// The bucket of a name and the key in it (empty: the bucket itself), if the caller may do all of `actions`.
///
/// Errors: `NoSuchBucket`, `InvalidBucketName`, `AccessDenied`, `OperationAborted` for writes to a bucket that is being deleted.
pub(crate) async fn authorize(
    services: &Services,
    request: &Request,
    bucket_name: String,
    key: String,
    actions: &[Action],
) -> Result<Target, S3Error> {
    authorize_version(services, request, bucket_name, key, request.query.get("versionId"), actions).await
}

/// The same about a version that stands elsewhere than in the request's query; `None`: the current one.
pub(crate) async fn authorize_version(
    services: &Services,
    request: &Request,
    bucket_name: String,
    key: String,
    version: Option<&str>,
    actions: &[Action],
) -> Result<Target, S3Error> {
    let subject = Subject { bucket: &bucket_name, key: &key, ..Subject::default() };
    let judge = services.access.judge(request.key.as_ref(), &bucket_name, request.context()).await;
    let mut judge = judge.map_err(|error| bucket_error(&subject, error))?;
    let is_write = actions.iter().any(|action| action.right() == Right::Write);
    if is_write && judge.bucket().row.state != BucketState::Live {
        return Err(subject.error(ClientError::BucketBusy.into()));
    }
    let mut seen = None;
    if actions.iter().any(|action| judge.needs_object(*action)) {
        seen = look_at(services, request, &judge, &key, version).await.map_err(|error| subject.error(error))?;
    }
    if !allows_all(&judge, request, actions, &key, version, seen.as_ref()) {
        let fresh = services.access.fresh_judge(request.key.as_ref(), judge.bucket(), request.context()).await;
        judge = fresh.map_err(|error| bucket_error(&subject, error))?;
        if seen.is_none() && actions.iter().any(|action| judge.needs_object(*action)) {
            seen = look_at(services, request, &judge, &key, version).await.map_err(|error| subject.error(error))?;
        }
        let may_miss = |action: &Action| judge.may_miss(*action, Some(&key), &facts_for(&judge, request, version));
        // What is not there is read by nobody; the operation says so, and refuses what came in between.
        let is_missing = seen.is_none() && !actions.is_empty() && actions.iter().all(may_miss);
        if !is_missing && !allows_all(&judge, request, actions, &key, version, seen.as_ref()) {
            return Err(S3Error::access_denied());
        }
    }
    let bucket = judge.bucket().clone();
    let judged = actions.iter().any(|action| judge.needs_object(*action)).then(|| seen.map(|found| found.entry.id));
    Ok(Target { bucket_name, bucket, key, judge, judged })
}

/// The version of an object, as far as a verdict depends on it.
async fn look_at(
    services: &Services,
    request: &Request,
    judge: &Judge,
    key: &str,
    version: Option<&str>,
) -> Result<Option<FoundObject>, ModelError> {
    let slot = match version.map(VersionName::parse) {
        None => None,
        Some(Ok(VersionName::Slot(slot))) => Some(slot),
        // There is no such version; the operation says so.
        Some(Ok(VersionName::Unknown) | Err(_)) => return Ok(None),
    };
    match services.objects.find_version(&judge.bucket().as_ref(), key, slot, Want::Row, request.context()).await? {
        Version::Object(found) => Ok(Some(*found)),
        Version::Marker(_) | Version::Missing => Ok(None),
    }
}

fn allows_all(judge: &Judge, request: &Request, actions: &[Action], key: &str, version: Option<&str>, seen: Option<&FoundObject>) -> bool {
    let facts = facts_for(judge, request, version);
    let object = seen.map(FoundObject::access);
    let key = Some(key).filter(|key| !key.is_empty());
    actions.iter().all(|action| judge.allows(*action, key, object.as_ref(), &facts))
}

fn bucket_error(subject: &Subject<'_>, error: ModelError) -> S3Error {
    match error {
        ModelError::Client(ClientError::NoSuchBucket) => match check_bucket_name(subject.bucket, true) {
            Err(ClientError::InvalidBucketName { rule, .. }) => invalid_bucket_name(subject.bucket, rule),
            _ => S3Error::no_such_bucket(subject.bucket),
        },
        error => subject.error(error),
    }
}

/// Lets the caller set these tags on the object of the request, or not: the tags are facts that a policy may ask for.
///
/// Errors: those of [`authorize`].
pub(crate) async fn authorize_tags(services: &Services, target: &Target, request: &Request, tags: &[Tag]) -> Result<(), S3Error> {
    let action = match request.query.has("versionId") {
        true => actions::PUT_OBJECT_VERSION_TAGGING,
        false => actions::PUT_OBJECT_TAGGING,
    };
    authorize_with(services, target, request, action, &|facts| add_tags(facts, tags)).await
}

/// Lets the caller give the object of the request this lock, or not: it is a fact that a policy may ask for.
///
/// Errors: those of [`authorize`].
pub(crate) async fn authorize_lock(
    services: &Services,
    target: &Target,
    request: &Request,
    action: Action,
    lock: &ObjectLock,
) -> Result<(), S3Error> {
    authorize_with(services, target, request, action, &|facts| add_lock(facts, lock, request.now_ms)).await
}

/// The same for what the body of the request asks for; `add` tells of it.
async fn authorize_with(
    services: &Services,
    target: &Target,
    request: &Request,
    action: Action,
    add: &(dyn Fn(&mut Facts) + Sync),
) -> Result<(), S3Error> {
    let subject = target.subject();
    if target.bucket.row.state != BucketState::Live {
        return Err(subject.error(ClientError::BucketBusy.into()));
    }
    if allows_with(services, &target.judge, request, &target.key, action, add).await.map_err(|error| subject.error(error))? {
        return Ok(());
    }
    let fresh = services.access.fresh_judge(request.key.as_ref(), &target.bucket, request.context()).await;
    let fresh = fresh.map_err(|error| bucket_error(&subject, error))?;
    match allows_with(services, &fresh, request, &target.key, action, add).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(S3Error::access_denied()),
        Err(error) => Err(subject.error(error)),
    }
}

async fn allows_with(
    services: &Services,
    judge: &Judge,
    request: &Request,
    key: &str,
    action: Action,
    add: &(dyn Fn(&mut Facts) + Sync),
) -> Result<bool, ModelError> {
    let version = request.query.get("versionId");
    let seen = if judge.needs_object(action) { look_at(services, request, judge, key, version).await? } else { None };
    let mut facts = facts_for(judge, request, version);
    add(&mut facts);
    Ok(judge.allows(action, Some(key), seen.as_ref().map(FoundObject::access).as_ref(), &facts))
}

/// A key, the version that is named of it, and what is to be done to it.
pub(crate) type OnKey<'a> = (&'a str, Option<&'a str>, Action);

/// Whether the caller may do each of these actions: for requests on many objects of one bucket.
pub(crate) async fn allow_each(services: &Services, target: &Target, request: &Request, asked: &[OnKey<'_>]) -> Result<Vec<bool>, S3Error> {
    let subject = target.subject();
    if target.bucket.row.state != BucketState::Live {
        return Err(subject.error(ClientError::BucketBusy.into()));
    }
    let allowed = allow_each_by(services, &target.judge, request, asked).await.map_err(|error| subject.error(error))?;
    if allowed.iter().all(|allowed| *allowed) {
        return Ok(allowed);
    }
    let fresh = services.access.fresh_judge(request.key.as_ref(), &target.bucket, request.context()).await;
    let fresh = fresh.map_err(|error| bucket_error(&subject, error))?;
    allow_each_by(services, &fresh, request, asked).await.map_err(|error| subject.error(error))
}

async fn allow_each_by(services: &Services, judge: &Judge, request: &Request, asked: &[OnKey<'_>]) -> Result<Vec<bool>, ModelError> {
    let verdicts = asked.iter().map(|(key, version, action)| async move {
        let seen = if judge.needs_object(*action) { look_at(services, request, judge, key, *version).await? } else { None };
        let facts = facts_for(judge, request, *version);
        Ok(judge.allows(*action, Some(key), seen.as_ref().map(FoundObject::access).as_ref(), &facts))
    });
    stream::iter(verdicts.collect::<Vec<_>>()).buffered(LOOKS_AT_ONCE).try_collect().await
}

impl Target {
    /// Whether the caller may also do this, here; asked where an answer depends on it.
    pub fn may(&self, request: &Request, action: Action, found: Option<&FoundObject>) -> bool {
        let key = Some(self.key.as_str()).filter(|key| !key.is_empty());
        let object = found.map(FoundObject::access);
        self.judge.allows(action, key, object.as_ref(), &facts_for(&self.judge, request, request.query.get("versionId")))
    }

    /// A key that is not there: told only to those who may list the bucket.
    pub fn no_such_key(&self, request: &Request) -> S3Error {
        if self.may(request, actions::LIST_BUCKET, None) { S3Error::no_such_key(&self.key) } else { S3Error::access_denied() }
    }

    /// Refuses an object other than the one upon which the request was allowed. Errors: 503, to be tried again.
    pub fn check_judged(&self, found: &FoundObject) -> Result<(), S3Error> {
        match &self.judged {
            Some(judged) if *judged != Some(found.entry.id) => {
                Err(S3Error::slow_down("the object changed between the check of its access and its reading"))
            }
            _ => Ok(()),
        }
    }
}

/// Facts are gathered only where a policy may ask for them.
fn facts_for(judge: &Judge, request: &Request, version: Option<&str>) -> Facts {
    if judge.bucket().row.access.policy.is_none() {
        return Facts::default();
    }
    let mut facts = facts_of(request);
    if let Some(version) = version {
        facts.add("s3:VersionId", version);
    }
    facts
}

/// Headers that are condition keys under their own names.
const HEADER_FACTS: [&str; 15] = [
    "x-amz-acl",
    "x-amz-content-sha256",
    "x-amz-copy-source",
    "x-amz-grant-full-control",
    "x-amz-grant-read",
    "x-amz-grant-read-acp",
    "x-amz-grant-write",
    "x-amz-grant-write-acp",
    "x-amz-metadata-directive",
    "x-amz-object-ownership",
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-server-side-encryption-customer-algorithm",
    "x-amz-storage-class",
    "x-amz-website-redirect-location",
];

/// What conditions may ask of a request. Source: AWS S3 User Guide, "Bucket policy examples using condition keys".
fn facts_of(request: &Request) -> Facts {
    let mut facts = Facts::default();
    let header = |name: &str| request.headers.get(name).and_then(|value| std::str::from_utf8(value.as_bytes()).ok());
    for name in HEADER_FACTS {
        if let Some(value) = header(name) {
            let value = value.trim();
            // A source is the same with and without the slash before its bucket.
            facts.add(&format!("s3:{name}"), if name == "x-amz-copy-source" { value.trim_start_matches('/') } else { value });
        }
    }
    for (name, key) in
        [("if-match", "s3:if-match"), ("if-none-match", "s3:if-none-match"), ("referer", "aws:Referer"), ("user-agent", "aws:UserAgent")]
    {
        header(name).into_iter().for_each(|value| facts.add(key, value));
    }
    for (name, key) in [("prefix", "s3:prefix"), ("delimiter", "s3:delimiter"), ("max-keys", "s3:max-keys"), ("versionId", "s3:VersionId")]
    {
        request.query.get(name).into_iter().for_each(|value| facts.add(key, value));
    }
    if let Some(creates) = request.creates_object {
        facts.add("s3:ObjectCreationOperation", creates.to_string());
    }
    // Headers that make no sense are refused later, whatever a policy says.
    if let Ok(tags) = tagging::of_header(&request.headers) {
        add_tags(&mut facts, &tags);
    }
    if let Ok(lock) = lock::of_headers(&request.headers) {
        add_lock(&mut facts, &lock, request.now_ms);
    }
    add_sender(&mut facts, request);
    facts
}

/// The tags that a request brings.
fn add_tags(facts: &mut Facts, tags: &[Tag]) {
    for (name, value) in tags {
        facts.add(&format!("s3:RequestObjectTag/{name}"), value);
        facts.add("s3:RequestObjectTagKeys", name);
    }
}

/// The lock that a request asks for. A day that has begun remains.
fn add_lock(facts: &mut Facts, asked: &ObjectLock, now_ms: u64) {
    if let Some(Retention { mode, until_ms }) = asked.retention {
        facts.add("s3:object-lock-mode", lock::mode_name(mode));
        facts.add("s3:object-lock-retain-until-date", iso8601(until_ms));
        facts.add("s3:object-lock-remaining-retention-days", until_ms.saturating_sub(now_ms).div_ceil(DAY_MS).to_string());
    }
    if let Some(on) = asked.legal_hold {
        facts.add("s3:object-lock-legal-hold", lock::hold_name(on));
    }
}

fn add_sender(facts: &mut Facts, request: &Request) {
    let sender = &request.sender;
    if let Some(address) = sender.address {
        facts.add("aws:SourceIp", address.to_string());
    }
    facts.add("aws:SecureTransport", sender.is_encrypted.to_string());
    if let Some(version) = sender.tls {
        facts.add("s3:TlsVersion", version.number());
    }
    facts.add("aws:CurrentTime", iso8601(request.now_ms));
    facts.add("aws:EpochTime", (request.now_ms / 1000).to_string());
    match &request.key {
        Some(key) => {
            facts.add("aws:username", &key.id);
            facts.add("aws:userid", &key.id);
            facts.add("aws:PrincipalArn", format!("arn:aws:iam:::user/{}", key.id));
            facts.add("aws:PrincipalAccount", &key.id);
            facts.add("aws:PrincipalType", "User");
        }
        None => facts.add("aws:PrincipalType", "Anonymous"),
    }
    let form = match sender.form {
        AuthForm::Anonymous => return,
        AuthForm::Header => "REST-HEADER",
        AuthForm::Presigned => "REST-QUERY-STRING",
        AuthForm::Form => "POST",
    };
    facts.add("s3:authType", form);
    facts.add("s3:signatureversion", "AWS4-HMAC-SHA256");
    if let Some(signed_at_ms) = sender.signed_at_ms {
        facts.add("s3:signatureAge", request.now_ms.saturating_sub(signed_at_ms).to_string());
    }
}

/// The actions that an operation on a bucket needs.
pub(crate) fn bucket_actions(operation: BucketOperation) -> Vec<Action> {
    vec![match operation {
        BucketOperation::ListObjects | BucketOperation::ListObjectsV2 => actions::LIST_BUCKET,
        BucketOperation::ListObjectVersions => actions::LIST_BUCKET_VERSIONS,
        BucketOperation::ListMultipartUploads => actions::LIST_BUCKET_MULTIPART_UPLOADS,
        BucketOperation::HeadBucket => HEAD_BUCKET,
        BucketOperation::GetBucketLocation => actions::GET_BUCKET_LOCATION,
        BucketOperation::CreateBucket => actions::CREATE_BUCKET,
        BucketOperation::DeleteBucket => actions::DELETE_BUCKET,
        BucketOperation::GetBucketAcl => actions::GET_BUCKET_ACL,
        BucketOperation::PutBucketAcl => actions::PUT_BUCKET_ACL,
        // Each key that it names is decided upon by itself.
        BucketOperation::DeleteObjects => return Vec::new(),
        BucketOperation::PostObject => actions::PUT_OBJECT,
        BucketOperation::GetSetting(setting) => get_action(setting),
        BucketOperation::PutSetting(setting) => put_action(setting),
        BucketOperation::DeleteSetting(setting) => match setting {
            Setting::Policy => actions::DELETE_BUCKET_POLICY,
            Setting::Website => actions::DELETE_BUCKET_WEBSITE,
            setting => put_action(setting),
        },
    }]
}

fn get_action(setting: Setting) -> Action {
    match setting {
        Setting::Versioning => actions::GET_BUCKET_VERSIONING,
        Setting::Cors => actions::GET_BUCKET_CORS,
        Setting::Lifecycle => actions::GET_LIFECYCLE_CONFIGURATION,
        Setting::Policy => actions::GET_BUCKET_POLICY,
        Setting::PolicyStatus => actions::GET_BUCKET_POLICY_STATUS,
        Setting::PublicAccessBlock => actions::GET_BUCKET_PUBLIC_ACCESS_BLOCK,
        Setting::OwnershipControls => actions::GET_BUCKET_OWNERSHIP_CONTROLS,
        Setting::Website => actions::GET_BUCKET_WEBSITE,
        Setting::Tagging => actions::GET_BUCKET_TAGGING,
        Setting::Encryption => actions::GET_ENCRYPTION_CONFIGURATION,
        Setting::ObjectLock => actions::GET_BUCKET_OBJECT_LOCK_CONFIGURATION,
        Setting::Replication => actions::GET_REPLICATION_CONFIGURATION,
        Setting::Logging => actions::GET_BUCKET_LOGGING,
        Setting::Notification => actions::GET_BUCKET_NOTIFICATION,
        Setting::Accelerate => actions::GET_ACCELERATE_CONFIGURATION,
        Setting::RequestPayment => actions::GET_BUCKET_REQUEST_PAYMENT,
        Setting::Analytics => actions::GET_ANALYTICS_CONFIGURATION,
        Setting::Metrics => actions::GET_METRICS_CONFIGURATION,
        Setting::Inventory => actions::GET_INVENTORY_CONFIGURATION,
        Setting::IntelligentTiering => actions::GET_INTELLIGENT_TIERING_CONFIGURATION,
    }
}

fn put_action(setting: Setting) -> Action {
    match setting {
        Setting::Versioning => actions::PUT_BUCKET_VERSIONING,
        Setting::Cors => actions::PUT_BUCKET_CORS,
        Setting::Lifecycle => actions::PUT_LIFECYCLE_CONFIGURATION,
        Setting::Policy | Setting::PolicyStatus => actions::PUT_BUCKET_POLICY,
        Setting::PublicAccessBlock => actions::PUT_BUCKET_PUBLIC_ACCESS_BLOCK,
        Setting::OwnershipControls => actions::PUT_BUCKET_OWNERSHIP_CONTROLS,
        Setting::Website => actions::PUT_BUCKET_WEBSITE,
        Setting::Tagging => actions::PUT_BUCKET_TAGGING,
        Setting::Encryption => actions::PUT_ENCRYPTION_CONFIGURATION,
        Setting::ObjectLock => actions::PUT_BUCKET_OBJECT_LOCK_CONFIGURATION,
        Setting::Replication => actions::PUT_REPLICATION_CONFIGURATION,
        Setting::Logging => actions::PUT_BUCKET_LOGGING,
        Setting::Notification => actions::PUT_BUCKET_NOTIFICATION,
        Setting::Accelerate => actions::PUT_ACCELERATE_CONFIGURATION,
        Setting::RequestPayment => actions::PUT_BUCKET_REQUEST_PAYMENT,
        Setting::Analytics => actions::PUT_ANALYTICS_CONFIGURATION,
        Setting::Metrics => actions::PUT_METRICS_CONFIGURATION,
        Setting::Inventory => actions::PUT_INVENTORY_CONFIGURATION,
        Setting::IntelligentTiering => actions::PUT_INTELLIGENT_TIERING_CONFIGURATION,
    }
}

/// The actions that an operation on an object needs. AWS Service Authorization Reference; s3 reference §3.12.
pub(crate) fn object_actions(operation: ObjectOperation, request: &Request) -> Vec<Action> {
    let on_version = |action: Action| if request.query.has("versionId") { action.on_version() } else { action };
    match operation {
        ObjectOperation::GetObject | ObjectOperation::HeadObject => vec![on_version(actions::GET_OBJECT)],
        ObjectOperation::GetObjectAttributes => vec![on_version(actions::GET_OBJECT), on_version(actions::GET_OBJECT_ATTRIBUTES)],
        ObjectOperation::GetObjectAcl => vec![on_version(actions::GET_OBJECT_ACL)],
        ObjectOperation::PutObjectAcl => vec![on_version(actions::PUT_OBJECT_ACL)],
        ObjectOperation::GetObjectTagging => vec![on_version(actions::GET_OBJECT_TAGGING)],
        ObjectOperation::DeleteObjectTagging => vec![on_version(actions::DELETE_OBJECT_TAGGING)],
        // What they ask for stands in their bodies: decided upon once those are read.
        ObjectOperation::PutObjectTagging | ObjectOperation::PutObjectRetention | ObjectOperation::PutObjectLegalHold => Vec::new(),
        ObjectOperation::GetObjectRetention => vec![actions::GET_OBJECT_RETENTION],
        ObjectOperation::GetObjectLegalHold => vec![actions::GET_OBJECT_LEGAL_HOLD],
        ObjectOperation::DeleteObject => vec![on_version(actions::DELETE_OBJECT)],
        ObjectOperation::PutObject | ObjectOperation::CopyObject | ObjectOperation::CreateMultipartUpload => write_actions(request),
        ObjectOperation::UploadPart | ObjectOperation::UploadPartCopy => vec![actions::PUT_OBJECT],
        ObjectOperation::CompleteMultipartUpload => with_condition(request, vec![actions::PUT_OBJECT]),
        ObjectOperation::AbortMultipartUpload => vec![actions::ABORT_MULTIPART_UPLOAD],
        ObjectOperation::ListParts => vec![actions::LIST_MULTIPART_UPLOAD_PARTS],
    }
}

/// What the writing of a new object needs, by what its writer asks for besides.
pub(crate) fn write_actions(request: &Request) -> Vec<Action> {
    let has = |name: &str| request.headers.contains_key(name);
    let mut needed = vec![actions::PUT_OBJECT];
    let grants = request.headers.keys().any(|name| name.as_str().starts_with("x-amz-grant-"));
    if has("x-amz-acl") || grants {
        needed.push(actions::PUT_OBJECT_ACL);
    }
    if has("x-amz-tagging") {
        needed.push(actions::PUT_OBJECT_TAGGING);
    }
    if has("x-amz-object-lock-mode") || has("x-amz-object-lock-retain-until-date") {
        needed.push(actions::PUT_OBJECT_RETENTION);
    }
    if has("x-amz-object-lock-legal-hold") {
        needed.push(actions::PUT_OBJECT_LEGAL_HOLD);
    }
    with_condition(request, needed)
}

/// Who tests an object's ETag learns something of the object.
fn with_condition(request: &Request, mut needed: Vec<Action>) -> Vec<Action> {
    if request.headers.contains_key(header::IF_MATCH) {
        needed.push(actions::GET_OBJECT);
    }
    needed
}

/// A client that says whose bucket it expects is refused when the bucket is not that key's.
pub(crate) fn check_owner(request: &Request, target: &Target, header: &'static str) -> Result<(), S3Error> {
    let Some(expected) = request.header(header)? else { return Ok(()) };
    if target.bucket.row.permissions.get(expected).is_some_and(|permissions| permissions.owner) {
        return Ok(());
    }
    Err(S3Error::of(ErrorCode::AccessDenied))
}
