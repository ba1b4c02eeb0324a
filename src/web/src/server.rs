//! One request from end to end: host, site, plan, object, answer; and when that fails the site's error document, or the default page.
//!
//! Invariants:
//! - a host that leads to no site, to a deleted bucket or to one that is no website is answered the same, so that nobody learns of buckets;
//! - only a bucket's current objects are served, to anybody, and nothing else of it: no listing, no versions, no query parameters.

use std::sync::Arc;

use futures::future::BoxFuture;
use garage_api_common::{
    ErrorCode, S3Error,
    cors::{self, Preflight, Preflighted},
    failure::Subject,
    http::{Body, HttpService, Peer, RequestBody, RequestContext as HttpContext},
    request::{host_name, host_of},
};
use garage_model::{
    RequestContext,
    access::BucketView,
    buckets::Buckets,
    objects::{FoundObject, Objects},
    rows::bucket::Website,
};
use garage_util::runtime::Runtime;
use http::{HeaderMap, Method, Request, Response, StatusCode, request::Parts};
use tokio::time::Instant;

use crate::{
    host::site_of,
    limits::{REQUEST_TIMEOUT, STREAM_TIMEOUT},
    metrics::WebMetrics,
    page::WebError,
    plan::{IfMissing, Plan, Redirection, decode_path, plan},
    serve::{Serving, no_such_key, redirect},
};

/// How sites are found.
#[derive(Debug, Clone, Default)]
pub struct WebOptions {
    /// The domain under which every website has a host name (`s3_web.root_domain`), with or without a leading dot.
    pub root_domain: Option<String>,
}

/// The websites of a cluster, as one node serves them.
pub struct WebServer {
    options: WebOptions,
    runtime: Runtime,
    buckets: Buckets,
    objects: Objects,
    metrics: WebMetrics,
}

/// A bucket that is a website.
struct Site {
    bucket: BucketView,
    website: Website,
}

/// An answer, and whether it is the default page of an error.
struct Answered {
    response: Response<Body>,
    failed: Option<StatusCode>,
}

impl WebServer {
    /// The front over a node's services.
    pub fn new(options: WebOptions, runtime: Runtime, buckets: Buckets, objects: Objects, metrics: WebMetrics) -> WebServer {
        WebServer { options, runtime, buckets, objects, metrics }
    }

    async fn answer(&self, request: Request<RequestBody>, connection: &HttpContext) -> Response<Body> {
        let started = Instant::now();
        let (parts, _body) = request.into_parts();
        let site = self.site(&parts).await;
        let host = site.is_ok().then(|| shown_host(&parts));
        let answered = match site {
            Ok(site) => self.answer_for(&site, &parts).await,
            Err(error) => failed(&error, &parts.method, connection),
        };
        self.metrics.note(&parts.method, host.as_deref(), answered.failed, started.elapsed());
        log(&parts, connection, answered.response.status());
        answered.response
    }

    /// The site that a request's host leads to: by a global alias only.
    async fn site(&self, parts: &Parts) -> Result<Site, WebError> {
        let name = site_of(host_of(&parts.uri, &parts.headers), self.options.root_domain.as_deref())
            .ok_or(WebError::BadRequest("The Host header is missing or malformed"))?;
        let bucket = self.buckets.by_global_name(&name, self.context()).await;
        let bucket = bucket.map_err(|error| WebError::OfSite(Subject { bucket: &name, ..Subject::default() }.error(error)))?;
        let bucket = bucket.ok_or(WebError::NoSite)?;
        let website = bucket.row.website.clone().ok_or(WebError::NoSite)?;
        Ok(Site { bucket, website })
    }

    async fn answer_for(&self, site: &Site, parts: &Parts) -> Answered {
        let answer = match decode_path(parts.uri.path()) {
            Some(path) => self.outcome(site, parts, &path).await.map_err(WebError::OfSite),
            None => Err(WebError::BadRequest("The path is not UTF-8 once percent-decoded")),
        };
        match answer {
            Ok(mut response) => {
                if let Some(origin) = cors::origin_of(&parts.headers).filter(|_| parts.method != Method::OPTIONS) {
                    cors::add(response.headers_mut(), &site.bucket.row.cors, origin, parts.method.as_str());
                }
                Answered { response, failed: None }
            }
            Err(error) => self.explain(site, parts, error).await,
        }
    }

    async fn outcome(&self, site: &Site, parts: &Parts, path: &str) -> Result<Response<Body>, S3Error> {
        match parts.method {
            Method::GET | Method::HEAD => self.get(site, parts, path).await,
            Method::OPTIONS => Preflight::parse(&parts.headers, !path.is_empty())?.answer(Preflighted::Rules(&site.bucket.row.cors)),
            _ => Err(S3Error::invalid_request(format!("Websites are read with GET and HEAD, not with {}", parts.method))),
        }
    }

    async fn get(&self, site: &Site, parts: &Parts, path: &str) -> Result<Response<Body>, S3Error> {
        let (target, if_missing) = match plan(path, &site.website) {
            Plan::Redirect(redirection) => return Ok(go(&redirection)),
            Plan::Serve { target, if_missing } => (target, if_missing),
        };
        let serving = self.serving(&parts.method, &parts.headers);
        if let Some(found) = self.find(site, &target.key, &parts.method).await? {
            return serving.answer(&found, &target.key, target.status).await;
        }
        match if_missing {
            IfMissing::NotFound => Err(no_such_key(&target.key)),
            IfMissing::Redirect(redirection) => Ok(go(&redirection)),
            IfMissing::Directory { index_key, redirection } => match self.find(site, &index_key, &Method::HEAD).await? {
                Some(_) => Ok(go(&redirection)),
                None => Err(no_such_key(&target.key)),
            },
            IfMissing::Serve(other) => match self.find(site, &other.key, &parts.method).await? {
                Some(found) => serving.answer(&found, &other.key, other.status).await,
                None => Err(no_such_key(&target.key)),
            },
        }
    }

    /// The current object of a key; with the beginning of its content unless for HEAD.
    async fn find(&self, site: &Site, key: &str, method: &Method) -> Result<Option<FoundObject>, S3Error> {
        let (bucket, context) = (site.bucket.as_ref(), self.context());
        let found = match *method == Method::HEAD {
            true => self.objects.head(&bucket, key, context).await,
            false => self.objects.get(&bucket, key, context).await,
        };
        found.map_err(|error| Subject { key, ..Subject::default() }.error(error))
    }

    /// The site's own page for what its visitor did wrong; else the default page.
    async fn explain(&self, site: &Site, parts: &Parts, error: WebError) -> Answered {
        if let WebError::OfSite(error) = &error {
            note_cause(error);
            if error.status().is_client_error()
                && parts.method != Method::HEAD
                && parts.method != Method::OPTIONS
                && let Some(response) = self.error_document(site, parts, error).await
            {
                return Answered { response, failed: None };
            }
        }
        Answered { response: error.page(&parts.method), failed: Some(error.status()) }
    }

    async fn error_document(&self, site: &Site, parts: &Parts, error: &S3Error) -> Option<Response<Body>> {
        let key = site.website.error_document.as_deref()?;
        let key = key.strip_prefix('/').unwrap_or(key);
        let served = match self.find(site, key, &Method::GET).await {
            Ok(Some(found)) => self.serving(&Method::GET, &parts.headers).error_document(&found, key, error).await,
            Ok(None) => Err(no_such_key(key)),
            Err(error) => Err(error),
        };
        match served {
            Ok(response) => Some(response),
            Err(error) => {
                tracing::warn!(bucket = %site.bucket.id, key, %error, "a website's error document can't be shown");
                None
            }
        }
    }

    fn serving<'a>(&'a self, method: &'a Method, headers: &'a HeaderMap) -> Serving<'a> {
        let context = RequestContext { deadline: Instant::now() + STREAM_TIMEOUT, trace: self.runtime.random_u64() };
        Serving { objects: &self.objects, method, headers, context }
    }

    fn context(&self) -> RequestContext {
        RequestContext { deadline: Instant::now() + REQUEST_TIMEOUT, trace: self.runtime.random_u64() }
    }
}

impl HttpService for WebServer {
    fn serve(self: Arc<Self>, request: Request<RequestBody>, context: HttpContext) -> BoxFuture<'static, Response<Body>> {
        Box::pin(async move { self.answer(request, &context).await })
    }
}

fn go(redirection: &Redirection) -> Response<Body> {
    redirect(&redirection.location, redirection.status)
}

/// Why there is no site to answer for.
fn failed(error: &WebError, method: &Method, connection: &HttpContext) -> Answered {
    if let WebError::OfSite(error) = error {
        tracing::debug!(request_id = %connection.ids.request_id, %error, "no site could be looked up");
        note_cause(error);
    }
    Answered { response: error.page(method), failed: Some(error.status()) }
}

fn note_cause(error: &S3Error) {
    if error.status().is_server_error() && error.code != ErrorCode::NotImplemented {
        tracing::warn!(%error, "a website's request failed");
    }
}

fn shown_host(parts: &Parts) -> String {
    host_of(&parts.uri, &parts.headers).map(|host| host_name(&String::from_utf8_lossy(host))).unwrap_or_default()
}

/// The access log: who asked for what, and the answer's status.
fn log(parts: &Parts, connection: &HttpContext, status: StatusCode) {
    let peer = match connection.peer {
        Peer::Tcp(address) => address.to_string(),
        Peer::Unix => "unix".to_owned(),
    };
    let forwarded = parts.headers.get("x-forwarded-for").and_then(|value| value.to_str().ok()?.parse::<std::net::IpAddr>().ok());
    let client = forwarded.map_or(peer.clone(), |client| format!("{client} via {peer}"));
    tracing::info!(target: "garage_web::access", client, status = status.as_u16(), "{} {}{}", parts.method, shown_host(parts), parts.uri.path());
}
