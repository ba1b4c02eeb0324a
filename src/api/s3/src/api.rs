//! One request from end to end: parse, route, authenticate, authorize, act, answer.

use std::sync::{Arc, OnceLock};

use futures::future::BoxFuture;
use garage_api_common::{
    ErrorCode, S3Error,
    http::{Body, HttpService, RequestBody, RequestContext as HttpContext},
    query::Query,
    request::{Address, AddressStyle, host_of},
    sigv4::{self, AuthForm, KeySecret, RequestView, SecretLookup, SignatureSettings},
};
use garage_model::{RequestContext, access::AccessControl, keys::AccessKey, objects::Objects, policy::actions::Action, uploads::Uploads};
use garage_util::{config::Subnet, runtime::Runtime};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, header, request::Parts};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    acl, attributes,
    authorize::{authorize, bucket_actions, check_owner, object_actions},
    buckets, copy,
    cors::{self, Preflight, Preflighted},
    delete,
    error::Subject,
    get, headers, known_headers,
    limits::REQUEST_TIMEOUT,
    list, lock, multipart, multipart_list,
    post::{self, Form},
    put,
    request::{IncomingBody, Request, Services, Target},
    router::{BucketOperation, ObjectOperation, Operation, route},
    sender::{Sender, origin},
    settings, tagging,
};

/// How the interface presents itself.
#[derive(Debug, Clone)]
pub struct S3Options {
    /// The region that signatures must name (`s3_region`).
    pub region: String,
    /// The domain under which buckets have host names (`root_domain`), with or without a leading dot.
    pub root_domain: Option<String>,
    /// Proxies whose word on a client's address and scheme counts (`trusted_proxies`).
    pub trusted_proxies: Vec<Subnet>,
}

/// The S3 interface of a node.
pub struct S3Api {
    services: Services,
    signatures: SignatureSettings,
    root_domains: Vec<String>,
    trusted_proxies: Vec<Subnet>,
}

impl S3Api {
    /// The interface over a node's services.
    pub fn new(options: S3Options, runtime: Runtime, access: AccessControl, objects: Objects, uploads: Uploads) -> S3Api {
        let signatures = SignatureSettings::s3(&*options.region);
        let services = Services { runtime, access, objects, uploads, region: options.region.into() };
        S3Api { services, signatures, root_domains: options.root_domain.into_iter().collect(), trusted_proxies: options.trusted_proxies }
    }

    async fn answer(&self, request: http::Request<RequestBody>, context: HttpContext) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let address = host_text(&parts).and_then(|host| Address::resolve(host.as_deref(), parts.uri.path(), &self.root_domains));
        let is_head_bucket = parts.method == Method::HEAD && address.as_ref().is_ok_and(|address| address.key.is_none());
        let method = parts.method.clone();
        let cross = CrossOrigin::of(&parts, address.as_ref().ok());
        let caller = OnceLock::new();
        let outcome = match address {
            Ok(address) => self.handle(parts, address, body, &context, &caller).await,
            Err(error) => Err(error),
        };
        let mut response = outcome.unwrap_or_else(|error| error.to_response(&method, &context.ids));
        if let Some(cross) = cross {
            self.add_cors(response.headers_mut(), &cross, caller.get()).await;
        }
        if is_head_bucket {
            // On errors too: clients find the right region by it.
            headers::put(response.headers_mut(), HeaderName::from_static("x-amz-bucket-region"), &self.services.region);
        }
        response
    }

    /// `caller` is filled with the key of a request that proved to have it.
    async fn handle(
        &self,
        parts: Parts,
        address: Address,
        stream: RequestBody,
        context: &HttpContext,
        caller: &OnceLock<AccessKey>,
    ) -> Result<Response<Body>, S3Error> {
        known_headers::check_section(&parts.headers)?;
        let query = Query::parse(parts.uri.query().unwrap_or_default())?;
        let presigned = sigv4::is_presigned(&query);
        let all_headers = if presigned { query.with_hoisted_headers(&parts.headers) } else { parts.headers.clone() };
        let operation = route(&parts.method, &address, &query, &all_headers);
        if matches!(operation, Ok(Operation::Preflight)) {
            return self.preflight(&parts.headers, &address).await;
        }
        if let Ok(Operation::Bucket(name, BucketOperation::PostObject)) = operation {
            return self.post_form(&parts, &address, name, stream, context, caller).await;
        }
        let now_ms = self.services.runtime.now_ms();
        let trace = self.services.runtime.random_u64();
        let lookup = Lookup { access: &self.services.access, trace, now_ms, found: Mutex::default() };
        let authenticated = sigv4::authenticate(RequestView::of(&parts, &query), &self.signatures, now_ms, &lookup).await?;
        let operation = operation?;
        if authenticated.form != AuthForm::Anonymous {
            known_headers::refuse_unknown(&all_headers)?;
        }
        if !operation.is_copy() {
            known_headers::refuse_source(&all_headers)?;
        }
        let key = lookup.found.into_inner().filter(|_| authenticated.form != AuthForm::Anonymous);
        let key = key.map(|key| caller.get_or_init(|| key).clone());
        let (form, signed_at_ms) = (authenticated.form, authenticated.signed_at_ms);
        let (client_address, is_encrypted) = origin(context.peer, context.tls.is_some(), &parts.headers, &self.trusted_proxies);
        let sender = Sender { address: client_address, is_encrypted, tls: context.tls.filter(|_| is_encrypted), form, signed_at_ms };
        let body = IncomingBody::of_request(stream, parts.headers.clone(), authenticated.payload, self.services.runtime.clone());
        let client_waits = parts.headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        let base_url = base_url(&parts, &address);
        let creates_object = operation.creates_object();
        let request = Request { headers: all_headers, query, key, sender, trace, now_ms, client_waits, creates_object, base_url };
        match operation {
            Operation::Preflight => Err(S3Error::of(ErrorCode::AccessForbidden)),
            Operation::ListBuckets => buckets::list_buckets(&self.services, &request).await,
            Operation::Bucket(name, BucketOperation::CreateBucket) => buckets::create_bucket(&self.services, &request, &name, body).await,
            Operation::Bucket(name, operation) => {
                let target = self.authorize(&request, name, String::new(), &bucket_actions(operation)).await?;
                self.on_bucket(operation, &target, &request, body).await
            }
            Operation::Object(name, key, operation) => {
                let needed = object_actions(operation, &request);
                let target = self.authorize(&request, name, key, &needed).await?;
                self.on_object(operation, &target, &request, body).await
            }
        }
    }

    /// POST of a form, which brings its credentials in its fields: the PUT that it stands for, answered the way browsers want it.
    ///
    /// A form without policy is anonymous.
    async fn post_form(
        &self,
        parts: &Parts,
        address: &Address,
        bucket_name: String,
        stream: RequestBody,
        context: &HttpContext,
        caller: &OnceLock<AccessKey>,
    ) -> Result<Response<Body>, S3Error> {
        let Form { fields, file } = Form::read(&parts.headers, stream).await?;
        // Before the policy, which would only say that its condition on the key failed.
        let object_key = fields.key()?.to_owned();
        let now_ms = self.services.runtime.now_ms();
        let trace = self.services.runtime.random_u64();
        let lookup = Lookup { access: &self.services.access, trace, now_ms, found: Mutex::default() };
        let policy = fields.signed_policy(&self.signatures, &lookup).await?;
        let key = lookup.found.into_inner().filter(|_| policy.is_some()).map(|key| caller.get_or_init(|| key).clone());
        let form = if key.is_some() { AuthForm::Form } else { AuthForm::Anonymous };
        let sizes = match policy {
            Some(policy) => {
                policy.check(&bucket_name, &fields, now_ms)?;
                policy.sizes()
            }
            None => 0..=u64::MAX,
        };
        let mut headers = fields.headers()?;
        known_headers::refuse_unknown(&headers)?;
        if let Some(owner) = parts.headers.get("x-amz-expected-bucket-owner") {
            headers.insert("x-amz-expected-bucket-owner", owner.clone());
        }
        let body = IncomingBody::of_form(file.within(sizes), headers.clone(), self.services.runtime.clone());
        let (client_address, is_encrypted) = origin(context.peer, context.tls.is_some(), &parts.headers, &self.trusted_proxies);
        let sender = Sender { address: client_address, is_encrypted, tls: context.tls.filter(|_| is_encrypted), form, signed_at_ms: None };
        let (query, base_url) = (Query::default(), base_url(parts, address));
        let creates_object = Some(true);
        let request = Request { headers, query, key, sender, trace, now_ms, client_waits: false, creates_object, base_url };
        let needed = object_actions(ObjectOperation::PutObject, &request);
        let target = self.authorize(&request, bucket_name, object_key, &needed).await?;
        let put = put::put_object(&self.services, &target, &request, body).await?;
        let stored = post::Stored { base_url: &request.base_url, bucket: &target.bucket_name, key: &target.key };
        Ok(post::answer(put, &fields, &stored))
    }

    /// OPTIONS, which browsers send without credentials.
    async fn preflight(&self, headers: &HeaderMap, address: &Address) -> Result<Response<Body>, S3Error> {
        let preflight = Preflight::parse(headers, address.key.is_some())?;
        let Some(name) = &address.bucket else { return preflight.answer(Preflighted::NoBucket) };
        let context = RequestContext { deadline: Instant::now() + REQUEST_TIMEOUT, trace: self.services.runtime.random_u64() };
        let bucket = self.services.access.buckets().resolve(None, name, context).await;
        match bucket.map_err(|error| Subject { bucket: name, ..Subject::default() }.error(error))? {
            Some(bucket) => preflight.answer(Preflighted::Rules(&bucket.row.cors)),
            None => preflight.answer(Preflighted::UnknownBucket),
        }
    }

    /// Adds what the bucket's rules allow a script of another site to see. The rules can't be read: nothing is added, the answer stands.
    async fn add_cors(&self, out: &mut HeaderMap, cross: &CrossOrigin, caller: Option<&AccessKey>) {
        let Some(name) = &cross.bucket else {
            out.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            return;
        };
        let context = RequestContext { deadline: Instant::now() + REQUEST_TIMEOUT, trace: self.services.runtime.random_u64() };
        match self.services.access.buckets().resolve(caller, name, context).await {
            Ok(Some(bucket)) => cors::add(out, &bucket.row.cors, &cross.origin, cross.method.as_str()),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, bucket = %name, "an answer goes without CORS headers: the bucket's rules can't be read"),
        }
    }

    async fn authorize(&self, request: &Request, bucket_name: String, key: String, needed: &[Action]) -> Result<Target, S3Error> {
        let target = authorize(&self.services, request, bucket_name, key, needed).await?;
        check_owner(request, &target, "x-amz-expected-bucket-owner")?;
        Ok(target)
    }

    async fn on_bucket(
        &self,
        operation: BucketOperation,
        target: &Target,
        request: &Request,
        body: IncomingBody,
    ) -> Result<Response<Body>, S3Error> {
        let services = &self.services;
        match operation {
            // Has no bucket to be authorized on; handled before.
            BucketOperation::CreateBucket => buckets::create_bucket(services, request, &target.bucket_name, body).await,
            BucketOperation::PostObject => Err(S3Error::internal("a form was taken for a request that brings its credentials in headers")),
            BucketOperation::HeadBucket => Ok(buckets::head_bucket(services)),
            BucketOperation::DeleteBucket => buckets::delete_bucket(services, target, request).await,
            BucketOperation::GetBucketLocation => Ok(buckets::get_location(services)),
            BucketOperation::ListObjects => list::list_objects(services, target, request).await,
            BucketOperation::ListObjectsV2 => list::list_objects_v2(services, target, request).await,
            BucketOperation::ListObjectVersions => list::list_versions(services, target, request).await,
            BucketOperation::DeleteObjects => delete::delete_objects(services, target, request, body).await,
            BucketOperation::GetBucketAcl => acl::get_of_bucket(services, target, request).await,
            BucketOperation::PutBucketAcl => acl::put_of_bucket(services, target, request, body).await,
            BucketOperation::GetSetting(setting) => settings::get(target, request, setting),
            BucketOperation::PutSetting(setting) => settings::put(services, target, request, setting, body).await,
            BucketOperation::DeleteSetting(setting) => settings::delete(services, target, request, setting).await,
            BucketOperation::ListMultipartUploads => multipart_list::list_uploads(services, target, request).await,
        }
    }

    async fn on_object(
        &self,
        operation: ObjectOperation,
        target: &Target,
        request: &Request,
        body: IncomingBody,
    ) -> Result<Response<Body>, S3Error> {
        let services = &self.services;
        match operation {
            ObjectOperation::GetObject => get::get_object(services, target, request).await,
            ObjectOperation::HeadObject => get::head_object(services, target, request).await,
            ObjectOperation::PutObject => put::put_object(services, target, request, body).await,
            ObjectOperation::DeleteObject => delete::delete_object(services, target, request).await,
            ObjectOperation::CopyObject => copy::copy_object(services, target, request).await,
            ObjectOperation::CreateMultipartUpload => multipart::create(services, target, request).await,
            ObjectOperation::UploadPart => multipart::upload_part(services, target, request, body).await,
            ObjectOperation::UploadPartCopy => multipart::upload_part_copy(services, target, request).await,
            ObjectOperation::CompleteMultipartUpload => multipart::complete(services, target, request, body).await,
            ObjectOperation::AbortMultipartUpload => multipart::abort(services, target, request).await,
            ObjectOperation::ListParts => multipart_list::list_parts(services, target, request).await,
            ObjectOperation::GetObjectAttributes => attributes::get_attributes(services, target, request).await,
            ObjectOperation::GetObjectAcl => acl::get_of_object(services, target, request).await,
            ObjectOperation::PutObjectAcl => acl::put_of_object(services, target, request, body).await,
            ObjectOperation::GetObjectTagging => tagging::get_of_object(services, target, request).await,
            ObjectOperation::PutObjectTagging => tagging::put_of_object(services, target, request, body).await,
            ObjectOperation::DeleteObjectTagging => tagging::delete_of_object(services, target, request).await,
            ObjectOperation::GetObjectRetention => lock::get_retention(services, target, request).await,
            ObjectOperation::PutObjectRetention => lock::put_retention(services, target, request, body).await,
            ObjectOperation::GetObjectLegalHold => lock::get_legal_hold(services, target, request).await,
            ObjectOperation::PutObjectLegalHold => lock::put_legal_hold(services, target, request, body).await,
        }
    }
}

impl HttpService for S3Api {
    fn serve(self: Arc<Self>, request: http::Request<RequestBody>, context: HttpContext) -> BoxFuture<'static, Response<Body>> {
        Box::pin(async move { self.answer(request, context).await })
    }
}

fn host_text(parts: &Parts) -> Result<Option<String>, S3Error> {
    let host = host_of(&parts.uri, &parts.headers);
    let text = host.map(|host| std::str::from_utf8(host).map(str::to_owned)).transpose();
    text.map_err(|_| S3Error::invalid_request("The Host header is not text"))
}

/// For `Location`: a proxy in front may speak another scheme, which is not known here.
fn base_url(parts: &Parts, address: &Address) -> String {
    let host = host_text(parts).ok().flatten();
    let bucket = address.bucket.as_deref().filter(|_| address.style == AddressStyle::Path);
    let start = host.map(|host| format!("http://{host}")).unwrap_or_default();
    bucket.map_or(start.clone(), |bucket| format!("{start}/{bucket}"))
}

/// What of a request decides about CORS headers of its answer; preflights have their own answer.
struct CrossOrigin {
    origin: String,
    method: Method,
    bucket: Option<String>,
}

impl CrossOrigin {
    fn of(parts: &Parts, address: Option<&Address>) -> Option<CrossOrigin> {
        let origin = cors::origin_of(&parts.headers).filter(|_| parts.method != Method::OPTIONS)?;
        Some(CrossOrigin { origin: origin.to_owned(), method: parts.method.clone(), bucket: address?.bucket.clone() })
    }
}

/// Finds secrets, and keeps the key that was found.
struct Lookup<'a> {
    access: &'a AccessControl,
    trace: u64,
    now_ms: u64,
    found: Mutex<Option<AccessKey>>,
}

impl SecretLookup for Lookup<'_> {
    async fn secret_of(&self, access_key_id: &str) -> Result<Option<KeySecret>, S3Error> {
        let context = RequestContext { deadline: Instant::now() + REQUEST_TIMEOUT, trace: self.trace };
        let to_s3 = |error| Subject::default().error(error);
        let key = self.access.keys().get(access_key_id, context).await.map_err(to_s3)?;
        let Some(key) = key.filter(|key| !key.is_expired(self.now_ms)) else { return Ok(None) };
        let secret = self.access.keys().secret(&key).map_err(to_s3)?;
        *self.found.lock() = Some(key);
        Ok(Some(KeySecret { secret }))
    }
}
