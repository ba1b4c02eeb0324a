//! One S3 request at a time, path style, each to its end and checked.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};

use super::{
    content::Content,
    sign::{self, BadCredentials, Credentials},
};

/// Of an answer that is an error, no more is kept.
const ERROR_TEXT_MAX_CHARS: usize = 500;
/// A list page is not longer.
const LIST_PAGE_MAX_BYTES: usize = 8 << 20;
/// An answer that is collected whole is not longer.
const ANSWER_MAX_BYTES: usize = 64 << 20;

/// A request was not answered as it should be.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// No answer.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// There was no connection, so nothing was sent.
    #[error("{0}")]
    NotSent(String),
    /// The connection failed.
    #[error("{0}")]
    Transport(String),
    /// Another status than was expected.
    #[error("{status}: {text}")]
    Status {
        /// The status.
        status: StatusCode,
        /// The beginning of the body.
        text: String,
    },
    /// The body is not what was stored.
    #[error("{0}")]
    WrongBody(String),
    /// The request could not be made.
    #[error("the request cannot be made: {0}")]
    Unsendable(String),
    /// It could not be signed.
    #[error(transparent)]
    Credentials(#[from] BadCredentials),
}

/// A request of any kind, for those who check the answer themselves.
#[derive(Debug, Clone, Default)]
pub struct Ask<'a> {
    /// The method.
    pub method: Method,
    /// The object; empty: the bucket.
    pub key: &'a str,
    /// Made by [`super::query_of`].
    pub query: String,
    /// Headers besides those of the signature.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Bytes,
}

/// An answer, whatever its status.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// What a plain request asks for.
struct Plain<'a> {
    method: Method,
    key: &'a str,
    query: String,
    body: Bytes,
}

/// A client of one or more endpoints that share their data.
#[derive(Debug, Clone)]
pub struct Client {
    http: HttpClient<HttpConnector, Full<Bytes>>,
    endpoints: Vec<Uri>,
    bucket: String,
    credentials: Credentials,
    signs_bodies: bool,
    request_time_max: Duration,
}

impl Client {
    /// A client of `bucket` at `endpoints` (`http://host:port`), of which there must be one or more.
    pub fn new(endpoints: Vec<Uri>, bucket: String, credentials: Credentials, signs_bodies: bool, request_time_max: Duration) -> Client {
        assert!(!endpoints.is_empty(), "a client needs an endpoint");
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http = HttpClient::builder(TokioExecutor::new()).build(connector);
        Client { http, endpoints, bucket, credentials, signs_bodies, request_time_max }
    }

    /// Stores an object.
    pub async fn put(&self, turn: u64, key: &str, body: Bytes) -> Result<(), RequestError> {
        self.bounded(async {
            let answer = self.send(turn, Plain { method: Method::PUT, key, query: String::new(), body }).await?;
            self.drain(answer).await
        })
        .await
    }

    /// Fetches an object and compares it with what `content` says of `index`.
    pub async fn get(&self, turn: u64, key: &str, content: &Content, index: u64) -> Result<(), RequestError> {
        self.bounded(async {
            let answer = self.send(turn, Plain { method: Method::GET, key, query: String::new(), body: Bytes::new() }).await?;
            let mut body = answer.into_body();
            let mut offset = 0;
            while let Some(frame) = body.frame().await {
                let Ok(data) = frame.map_err(transport)?.into_data() else { continue };
                if !content.matches(index, offset, &data) {
                    return Err(RequestError::WrongBody(format!(
                        "{key}: other bytes than were stored, within {} from {offset}",
                        data.len()
                    )));
                }
                offset += data.len();
            }
            if offset != content.size_bytes() {
                return Err(RequestError::WrongBody(format!("{key}: {offset} bytes instead of {}", content.size_bytes())));
            }
            Ok(())
        })
        .await
    }

    /// Asks for an object's size and compares it.
    pub async fn head(&self, turn: u64, key: &str, size_bytes: usize) -> Result<(), RequestError> {
        self.bounded(async {
            let answer = self.send(turn, Plain { method: Method::HEAD, key, query: String::new(), body: Bytes::new() }).await?;
            let found = answer.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
            if found != Some(size_bytes) {
                return Err(RequestError::WrongBody(format!("{key}: content-length {found:?} instead of {size_bytes}")));
            }
            Ok(())
        })
        .await
    }

    /// Deletes an object.
    pub async fn delete(&self, turn: u64, key: &str) -> Result<(), RequestError> {
        self.bounded(async {
            let answer = self.send(turn, Plain { method: Method::DELETE, key, query: String::new(), body: Bytes::new() }).await?;
            self.drain(answer).await
        })
        .await
    }

    /// Lists up to `key_count` keys under `prefix` in one page, and wants that many.
    pub async fn list(&self, turn: u64, prefix: &str, key_count: usize) -> Result<(), RequestError> {
        let query = sign::query_of(&[("list-type", "2"), ("max-keys", &key_count.to_string()), ("prefix", prefix)]);
        self.bounded(async {
            let answer = self.send(turn, Plain { method: Method::GET, key: "", query, body: Bytes::new() }).await?;
            let page = http_body_util::Limited::new(answer.into_body(), LIST_PAGE_MAX_BYTES).collect().await;
            let page = page.map_err(|error| RequestError::Transport(error.to_string()))?.to_bytes();
            let found_count = page.windows(5).filter(|window| window == b"<Key>").count();
            if found_count != key_count {
                return Err(RequestError::WrongBody(format!("{found_count} keys listed under {prefix} instead of {key_count}")));
            }
            Ok(())
        })
        .await
    }

    /// Sends any request and collects the answer; its status may be any.
    pub async fn ask(&self, turn: u64, ask: Ask<'_>) -> Result<Answer, RequestError> {
        self.bounded(async {
            let Ask { method, key, query, headers, body } = ask;
            let answer = self.answer_to(turn, Plain { method, key, query, body }, &headers).await?;
            let (parts, body) = answer.into_parts();
            let body = http_body_util::Limited::new(body, ANSWER_MAX_BYTES).collect().await;
            let body = body.map_err(|error| RequestError::Transport(error.to_string()))?.to_bytes();
            Ok(Answer { status: parts.status, headers: parts.headers, body })
        })
        .await
    }

    async fn bounded<T>(&self, request: impl Future<Output = Result<T, RequestError>>) -> Result<T, RequestError> {
        let answer = tokio::time::timeout(self.request_time_max, request).await;
        answer.unwrap_or(Err(RequestError::TimedOut(self.request_time_max)))
    }

    /// Sends a request to the endpoint whose turn it is; the answer's status is a good one.
    async fn send(&self, turn: u64, ask: Plain<'_>) -> Result<Response<Incoming>, RequestError> {
        let answer = self.answer_to(turn, ask, &[]).await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let body = http_body_util::Limited::new(answer.into_body(), LIST_PAGE_MAX_BYTES).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        Err(RequestError::Status { status, text: String::from_utf8_lossy(&body).chars().take(ERROR_TEXT_MAX_CHARS).collect() })
    }

    /// Sends a request to the endpoint whose turn it is.
    async fn answer_to(&self, turn: u64, ask: Plain<'_>, headers: &[(&'static str, String)]) -> Result<Response<Incoming>, RequestError> {
        let endpoint = &self.endpoints[(turn % self.endpoints.len() as u64) as usize];
        let authority = endpoint.authority().ok_or_else(|| RequestError::Unsendable(format!("{endpoint} names no host")))?;
        let mut target = format!("http://{authority}{}", sign::path_of(&self.bucket, ask.key));
        if !ask.query.is_empty() {
            target.push('?');
            target.push_str(&ask.query);
        }
        let mut request = Request::builder().method(ask.method).uri(target).header(header::HOST, authority.as_str());
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let signed_body = self.signs_bodies.then_some(ask.body.clone());
        let mut request = request.body(Full::new(ask.body)).map_err(|error| RequestError::Unsendable(error.to_string()))?;
        sign::sign(&mut request, &self.credentials, signed_body.as_deref(), now_ms())?;
        self.http.request(request).await.map_err(|error| if error.is_connect() { unreachable_server(error) } else { transport(error) })
    }

    /// Reads an answer to its end, so that its connection can be used again.
    async fn drain(&self, answer: Response<Incoming>) -> Result<(), RequestError> {
        let mut body = answer.into_body();
        while let Some(frame) = body.frame().await {
            frame.map_err(transport)?;
        }
        Ok(())
    }
}

fn transport(error: impl std::error::Error) -> RequestError {
    RequestError::Transport(with_cause(error))
}

fn unreachable_server(error: impl std::error::Error) -> RequestError {
    RequestError::NotSent(with_cause(error))
}

/// The cause is what tells a refused connection from a broken one.
fn with_cause(error: impl std::error::Error) -> String {
    let cause = error.source().map(|source| format!(": {source}")).unwrap_or_default();
    format!("{error}{cause}")
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
