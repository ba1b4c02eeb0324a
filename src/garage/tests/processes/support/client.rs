//! A small S3 client: signs, sends, reads the whole answer, tells what went wrong.

use std::{
    convert::Infallible,
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use garage_testkit::load::{Credentials, sign_payload};
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use sha2::{Digest, Sha256};

/// No answer takes longer than this; what does is a failure.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);

/// A body that is sent.
pub type SentBody = BoxBody<Bytes, Infallible>;

/// A client of one node.
#[derive(Clone)]
pub struct S3 {
    http: HttpClient<HttpConnector, SentBody>,
    pub address: SocketAddr,
    pub credentials: Credentials,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    /// The S3 error code in it.
    pub fn code(&self) -> String {
        let text = self.text();
        let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
        code.map_or_else(String::new, |(code, _)| code.to_owned())
    }
    /// A header that has to be there.
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.headers)).to_str().unwrap()
    }
    /// Fails unless status and code are these.
    #[track_caller]
    pub fn is(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.code().as_str()), (status, code), "{}", self.text());
    }
    /// Fails unless it is a success.
    #[track_caller]
    pub fn ok(self) -> Answer {
        assert!((200..300).contains(&self.status), "{} {}", self.status, self.text());
        self
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

impl S3 {
    pub fn new(address: SocketAddr, credentials: Credentials) -> S3 {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        S3 { http: HttpClient::builder(TokioExecutor::new()).build(connector), address, credentials }
    }

    /// A request without signature; `target` is a path with its query, encoded.
    pub fn unsigned(&self, method: Method, target: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().method(method).uri(format!("http://{}{target}", self.address));
        request = request.header("host", self.address.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    /// A request signed for `payload`, the value of `x-amz-content-sha256`.
    pub fn signed(&self, method: Method, target: &str, headers: &[(&str, &str)], payload: &str) -> Request<()> {
        let mut request = self.unsigned(method, target, headers);
        sign_payload(&mut request, &self.credentials, payload, now_ms()).unwrap();
        request
    }

    /// Sends any body with a request; `Err`: no whole answer came.
    pub async fn send(&self, request: Request<()>, body: SentBody) -> Result<Answer, String> {
        self.send_within(ANSWER_TIME_MAX, request, body).await
    }

    /// As [`S3::send`], with a time of its own.
    pub async fn send_within(&self, time: Duration, request: Request<()>, body: SentBody) -> Result<Answer, String> {
        let exchange = async {
            let answer = self.http.request(request.map(|()| body)).await.map_err(|error| format!("{error:?}"))?;
            let (head, body) = answer.into_parts();
            let body = body.collect().await.map_err(|error| format!("{error:?}"))?.to_bytes();
            Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
        };
        tokio::time::timeout(time, exchange).await.unwrap_or_else(|_| Err("no answer".into()))
    }

    /// Sends a signed request with its body; `Err`: no whole answer came.
    pub async fn attempt(&self, method: Method, target: &str, headers: &[(&str, &str)], body: Bytes) -> Result<Answer, String> {
        let request = self.signed(method, target, headers, &hex::encode(Sha256::digest(&body)));
        self.send(request, Full::new(body).boxed()).await
    }

    pub async fn put(&self, target: &str, body: impl Into<Bytes>) -> Answer {
        self.attempt(Method::PUT, target, &[], body.into()).await.unwrap()
    }
    pub async fn get(&self, target: &str) -> Answer {
        self.attempt(Method::GET, target, &[], Bytes::new()).await.unwrap()
    }
    pub async fn delete(&self, target: &str) -> Answer {
        self.attempt(Method::DELETE, target, &[], Bytes::new()).await.unwrap()
    }
    /// Status alone.
    pub async fn head(&self, target: &str) -> u16 {
        self.attempt(Method::HEAD, target, &[], Bytes::new()).await.unwrap().status
    }

    /// An answer's body as it comes, checked and thrown away by `each`.
    pub async fn download(&self, target: &str, mut each: impl FnMut(&[u8])) {
        let request = self.signed(Method::GET, target, &[], &hex::encode(Sha256::digest(b"")));
        let mut answer = self.http.request(request.map(|()| Full::new(Bytes::new()).boxed())).await.unwrap();
        assert_eq!(answer.status().as_u16(), 200);
        while let Some(frame) = answer.frame().await {
            if let Ok(data) = frame.unwrap().into_data() {
                each(&data);
            }
        }
    }
}
