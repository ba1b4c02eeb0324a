//! What handlers get: an authenticated request, its body not yet read, and the bucket it is about.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use garage_api_common::{
    S3Error,
    checksum::ChecksumAlgorithm,
    conditions,
    http::RequestBody,
    payload::{BodySpec, BoxError, VerifiedBody},
    query::Query,
    sigv4::PayloadMode,
};
use garage_model::{
    RequestContext,
    access::{AccessControl, BucketView},
    acl::ANONYMOUS_ID,
    judge::Judge,
    keys::AccessKey,
    objects::{BucketRef, Objects, WriteCondition},
    uploads::Uploads,
};
use garage_rpc::register::WriteId;
use garage_util::runtime::Runtime;
use http::HeaderMap;
use tokio::time::Instant;

use crate::{
    error::Subject,
    headers,
    limits::{REQUEST_TIMEOUT, STREAM_TIMEOUT},
    post::FormFile,
    sender::Sender,
};

/// The services that handlers work with. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    pub runtime: Runtime,
    pub access: AccessControl,
    pub objects: Objects,
    pub uploads: Uploads,
    pub region: Arc<str>,
}

/// An authenticated request, without its body.
pub struct Request {
    /// With those that a presigner moved into the query.
    pub headers: HeaderMap,
    pub query: Query,
    /// The key that signed it; `None`: nobody did.
    pub key: Option<AccessKey>,
    pub sender: Sender,
    pub trace: u64,
    pub now_ms: u64,
    /// The client waits for `100 Continue`: refuse what can be refused before its body is asked for.
    pub client_waits: bool,
    /// Of requests that write: whether they make an object, other than those that begin an upload or send a part of one.
    pub creates_object: Option<bool>,
    /// Where the bucket is, as the client addressed it: scheme, host, and the bucket if it stands in the path.
    pub base_url: String,
}

impl Request {
    /// The key that signed it. Errors: 403 `AccessDenied` for what is never anonymous.
    pub fn signer(&self) -> Result<&AccessKey, S3Error> {
        self.key.as_ref().ok_or_else(S3Error::access_denied)
    }
    /// The id of the key that signed it, or the one that S3 shows for nobody.
    pub fn sender_id(&self) -> &str {
        self.key.as_ref().map_or(ANONYMOUS_ID, |key| &key.id)
    }
    /// For requests that stream no body.
    pub fn context(&self) -> RequestContext {
        RequestContext { deadline: Instant::now() + REQUEST_TIMEOUT, trace: self.trace }
    }
    /// For requests that stream a body, either way.
    pub fn stream_context(&self) -> RequestContext {
        RequestContext { deadline: Instant::now() + STREAM_TIMEOUT, trace: self.trace }
    }
    /// A header as text.
    pub fn header(&self, name: &str) -> Result<Option<&str>, S3Error> {
        headers::text(&self.headers, name)
    }
}

/// A request's body, and what is known of it.
pub struct IncomingBody {
    pub stream: BoxStream<'static, Result<Bytes, BoxError>>,
    /// As on the wire, without hoisted ones; of a form, those that its fields make up.
    pub headers: HeaderMap,
    pub mode: PayloadMode,
    /// It is the file of a form, whose length is not announced.
    pub of_form: bool,
    pub runtime: Runtime,
}

impl IncomingBody {
    /// The body of a request.
    pub fn of_request(stream: RequestBody, headers: HeaderMap, mode: PayloadMode, runtime: Runtime) -> IncomingBody {
        IncomingBody { stream: stream.map_err(Into::into).boxed(), headers, mode, of_form: false, runtime }
    }
    /// The file of a form.
    pub fn of_form(file: FormFile, headers: HeaderMap, runtime: Runtime) -> IncomingBody {
        IncomingBody { stream: file.boxed(), headers, mode: PayloadMode::Unsigned, of_form: true, runtime }
    }
    /// What the headers promise of it.
    pub fn spec(&self) -> Result<BodySpec, S3Error> {
        BodySpec::parse(&self.headers, self.mode.clone())
    }
    /// The same body where checksum headers speak of something else than its bytes.
    pub fn without_checksum(mut self) -> IncomingBody {
        for algorithm in ChecksumAlgorithm::ALL {
            self.headers.remove(algorithm.header());
        }
        self
    }
    /// The verified stream.
    pub fn open(self, spec: BodySpec) -> VerifiedBody {
        spec.open(&self.runtime, self.stream)
    }
    /// All of it, verified.
    pub async fn read(self, limit_bytes: usize) -> Result<Bytes, S3Error> {
        let spec = self.spec()?;
        Ok(self.open(spec).read_to_end(limit_bytes).await?.0)
    }
    /// As [`IncomingBody::read`], for operations that must not work on a body that may have been damaged on its way.
    pub async fn read_with_integrity(self, limit_bytes: usize) -> Result<Bytes, S3Error> {
        let spec = self.spec()?;
        spec.require_integrity()?;
        Ok(self.open(spec).read_to_end(limit_bytes).await?.0)
    }
}

/// A bucket that the request may act upon, and the key, empty for operations on the bucket.
pub struct Target {
    pub bucket_name: String,
    pub bucket: BucketView,
    pub key: String,
    /// Decides about what else the caller may do here.
    pub judge: Judge,
    /// If the verdict depended on the object: the version that was looked at, `None` for none.
    pub judged: Option<Option<WriteId>>,
}

impl Target {
    /// For the paths over objects.
    pub fn bucket_ref(&self) -> BucketRef {
        self.bucket.as_ref()
    }
    /// For errors.
    pub fn subject(&self) -> Subject<'_> {
        Subject { bucket: &self.bucket_name, key: &self.key, ..Subject::default() }
    }
    /// The same, of a write that may be conditional.
    pub fn write_subject(&self, condition: &WriteCondition) -> Subject<'_> {
        Subject { conditional: !condition.is_none(), ..self.subject() }
    }
}

/// The model's form of a write condition.
pub fn write_condition(condition: conditions::WriteCondition) -> WriteCondition {
    match condition {
        conditions::WriteCondition::Always => WriteCondition::default(),
        conditions::WriteCondition::MustNotExist => WriteCondition { absent: true, etags: None },
        conditions::WriteCondition::MustExist => WriteCondition { absent: false, etags: Some(vec!["*".to_owned()]) },
        conditions::WriteCondition::MustMatch(etag) => WriteCondition { absent: false, etags: Some(vec![etag]) },
    }
}
