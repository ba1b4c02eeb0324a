//! The HTTP front of the administration interface: `/v2/<Endpoint>`, `/health`, `/check`, `/metrics`.
//!
//! Order of checks, as clients know it: route, parameters, body, authorization, endpoint. So a malformed request is told so without a
//! token; it says nothing about the cluster. Reading order: this file (routes and answers), `token` (who may), `probes` (`/health` and
//! `/check`), `metrics`, `metrics_blocks`.

mod metrics;
mod metrics_blocks;
mod probes;
mod token;

use std::sync::Arc;

use ::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures::{FutureExt, StreamExt, future::BoxFuture};
use garage_api_common::{
    http::{Body, HttpService, RequestBody, RequestContext as Connection, full_body},
    query::Query,
};
use prometheus_client::registry::Registry;
use tokio::time::Instant;

pub use token::AdminHttpOptions;

use self::{metrics::Metrics, token::Tokens};
use crate::{
    AdminApi, AdminError, ErrorCode,
    limits::BODY_MAX_BYTES,
    request::{payload, route},
};

/// Content type of `/metrics`.
const METRICS_TYPE: &str = "text/plain; version=0.0.4";

/// Serves the administration interface over HTTP.
pub struct AdminHttp {
    api: AdminApi,
    tokens: Tokens,
    metrics: Metrics,
}

impl AdminHttp {
    /// A front for `api`. Tokens are kept as hashes only. `registry` holds what the node's other fronts count; `/metrics` tells it.
    pub fn new(api: AdminApi, options: AdminHttpOptions, registry: Registry) -> AdminHttp {
        AdminHttp { metrics: Metrics::new(&api, registry), tokens: Tokens::new(&options), api }
    }

    /// Answers a request whose body was read already. Never fails: errors are answers too.
    pub async fn respond(&self, request: Request<Bytes>) -> Response<Bytes> {
        let started = Instant::now();
        let path = request.uri().path().to_string();
        let response = match self.answer(&request).await {
            Ok(response) => response,
            Err(error) => self.refuse(&error, &path),
        };
        self.metrics.note_request(&path, response.status().as_u16(), started.elapsed());
        response
    }

    async fn answer(&self, request: &Request<Bytes>) -> Result<Response<Bytes>, AdminError> {
        let (method, path) = (request.method(), request.uri().path());
        let query = Query::parse(request.uri().query().unwrap_or_default())
            .map_err(|_| AdminError::invalid("the query is not valid UTF-8 once percent-decoded"))?;
        match path {
            _ if path.starts_with("/v0/") || path.starts_with("/v1/") => {
                Err(AdminError::invalid(format!("{path}: the v0 and v1 interfaces are not served in this release, use /v2/")))
            }
            _ if method == Method::OPTIONS => Ok(preflight()),
            "/health" | "/check" | "/metrics" if method != Method::GET => {
                Err(AdminError::invalid(format!("{path} must be called with GET, not {method}")))
            }
            "/health" => Ok(self.health()),
            "/check" => self.check_domain(query.non_empty("domain")).await,
            "/metrics" => self.scrape(request.headers()),
            _ => self.call(request, &query).await,
        }
    }

    async fn call(&self, request: &Request<Bytes>, query: &Query) -> Result<Response<Bytes>, AdminError> {
        let endpoint = route(request.method().as_str(), request.uri().path())?;
        let parameters: Vec<(String, String)> = query.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let payload = payload(endpoint, &parameters, request.body())?;
        self.tokens.authorize(bearer(request.headers())?, endpoint.name)?;
        let answer = self.api.call(endpoint.name, payload).await?;
        Ok(json(StatusCode::OK, &answer))
    }

    fn scrape(&self, headers: &HeaderMap) -> Result<Response<Bytes>, AdminError> {
        self.tokens.authorize_metrics(bearer(headers)?)?;
        let text = self.metrics.text().map_err(|error| AdminError::internal(format!("the metrics cannot be written: {error}")))?;
        Ok(with_type(METRICS_TYPE, text))
    }

    fn refuse(&self, error: &AdminError, path: &str) -> Response<Bytes> {
        if 500 <= error.status() {
            tracing::warn!(path, %error, "an administration request failed");
        }
        let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        json(status, &error.body(&self.api.options().region, path))
    }
}

impl HttpService for AdminHttp {
    fn serve(self: Arc<Self>, request: Request<RequestBody>, _connection: Connection) -> BoxFuture<'static, Response<Body>> {
        async move {
            let (parts, body) = request.into_parts();
            let response = match read_body(body).await {
                Ok(bytes) => self.respond(Request::from_parts(parts, bytes)).await,
                Err(error) => self.refuse(&error, parts.uri.path()),
            };
            response.map(full_body)
        }
        .boxed()
    }
}

async fn read_body(mut body: RequestBody) -> Result<Bytes, AdminError> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| AdminError::invalid(format!("the request body broke off: {error}")))?;
        if BODY_MAX_BYTES < bytes.len() + chunk.len() {
            return Err(AdminError::invalid(format!("the request body has more than {BODY_MAX_BYTES} bytes")));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

/// The token of the `Authorization` header; `None` when there is none or it is not of the form `Bearer <token>`.
///
/// Errors: `InvalidHeaderValue` when the header is not ASCII.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, AdminError> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let text = value.to_str().map_err(|_| AdminError::new(ErrorCode::InvalidHeaderValue, "the Authorization header is not ASCII"))?;
    Ok(text.strip_prefix("Bearer "))
}

fn json(status: StatusCode, value: &serde_json::Value) -> Response<Bytes> {
    // The alternate form is the pretty-printed one.
    let mut response = with_type("application/json", format!("{value:#}"));
    *response.status_mut() = status;
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

fn with_type(content_type: &'static str, body: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn preflight() -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    for (name, value) in [
        (header::ALLOW, "OPTIONS,GET,POST"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "OPTIONS,GET,POST"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization,content-type"),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
