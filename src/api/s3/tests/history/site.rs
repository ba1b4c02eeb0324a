//! Three simulated nodes with the S3 interface, and clients that ask them in turn.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use garage_api_common::{
    http::{HttpService, Peer, RequestBody, RequestContext as Connection, RequestIds},
    sigv4::{Scope, SigningKey},
    time::iso_basic,
    xml::{Element, parse_any},
};
use garage_api_s3::{S3Api, S3Options};
use garage_model::{RequestContext, keys::NewKey};
use garage_sim::{
    cluster::{Cluster, ClusterOptions},
    network::Conditions,
};
use garage_util::runtime::Clock;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};

const REGION: &str = "garage";
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
const IN_PATH: &AsciiSet = &UNRESERVED.remove(b'/');
/// Requests that are shown with a failure.
const TRAIL_LENGTH: usize = 12;

/// How much of a document is shown.
const DOCUMENT_SHOWN_CHARS: usize = 1_500;

/// Who signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Signer {
    /// Owns the buckets.
    #[default]
    Owner,
    /// Has no rights but those that a policy gives.
    Reader,
}

/// A request.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    pub method: &'static str,
    pub bucket: String,
    pub key: Option<String>,
    pub query: Vec<(&'static str, String)>,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    pub signer: Signer,
}

impl Ask {
    pub fn bucket(method: &'static str, bucket: &str) -> Ask {
        Ask { method, bucket: bucket.to_owned(), ..Ask::default() }
    }
    pub fn object(method: &'static str, bucket: &str, key: &str) -> Ask {
        Ask { key: Some(key.to_owned()), ..Ask::bucket(method, bucket) }
    }
    pub fn query(mut self, name: &'static str, value: impl Into<String>) -> Ask {
        self.query.push((name, value.into()));
        self
    }
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Ask {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
    pub fn body(mut self, body: impl Into<Bytes>) -> Ask {
        self.body = body.into();
        self
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
    pub fn xml(&self) -> Element {
        parse_any(&self.body).unwrap_or_else(|error| panic!("not XML: {error}: {:?}", self.body))
    }
    /// The code of an error, empty where there is none.
    pub fn code(&self) -> String {
        let is_error = 400 <= self.status && !self.body.is_empty();
        if is_error { self.xml().value_of("Code").unwrap_or_default().to_owned() } else { String::new() }
    }
}

struct Credentials {
    id: String,
    secret: String,
}

/// The cluster.
pub struct Site {
    pub cluster: Cluster,
    apis: Vec<Arc<S3Api>>,
    owner: Credentials,
    reader: Credentials,
    turn: usize,
    /// The last requests and what was answered.
    pub trail: VecDeque<String>,
}

impl Site {
    pub async fn start(seed: u64) -> Site {
        // No message is lost: a request that is answered 503 would leave open what became of it. That is what the tests of faults are for.
        let rough = ClusterOptions::rough();
        let conditions = Conditions { lost_one_in: 0, ..rough.conditions };
        let cluster = Cluster::start(seed, ClusterOptions { conditions, ..rough }).await;
        let api = |index: usize| {
            let node = cluster.node(index);
            let options = S3Options { region: REGION.into(), root_domain: None, trusted_proxies: Vec::new() };
            let runtime = node.cluster.runtime().clone();
            Arc::new(S3Api::new(options, runtime, node.access.clone(), node.objects.clone(), node.uploads.clone()))
        };
        let apis = (0..cluster.count()).map(api).collect();
        let owner = credentials(&cluster, "owner", true).await;
        let reader = credentials(&cluster, "reader", false).await;
        Site { cluster, apis, owner, reader, turn: 0, trail: VecDeque::new() }
    }

    /// The time by the slowest clock: nodes start one after the other, and their clocks with them.
    pub fn now_ms(&self) -> u64 {
        self.clocks_ms().min().unwrap_or_default()
    }
    /// The time by the fastest clock.
    pub fn latest_ms(&self) -> u64 {
        self.clocks_ms().max().unwrap_or_default()
    }
    fn clocks_ms(&self) -> impl Iterator<Item = u64> {
        (0..self.cluster.count()).map(|index| self.cluster.clock(index).now_ms())
    }
    /// The canonical user id of the reader.
    pub fn reader_id(&self) -> &str {
        &self.reader.id
    }

    /// Asks the next node.
    pub async fn ask(&mut self, ask: &Ask) -> Answer {
        self.turn = (self.turn + 1) % self.apis.len();
        let runtime = self.cluster.node(self.turn).cluster.runtime().clone();
        let request = self.signed(ask).body(RequestBody::whole(ask.body.clone(), runtime.clone())).unwrap();
        let ids = RequestIds::generate(&runtime, "sim");
        let connection = Connection { peer: Peer::Tcp(([192, 0, 2, 1], 1).into()), tls: None, ids };
        let response = self.apis[self.turn].clone().serve(request, connection).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap_or_else(|error| panic!("the body breaks off: {error}; {ask:?}")).to_bytes();
        let answer = Answer { status: parts.status.as_u16(), headers: parts.headers, body };
        self.note(ask, &answer);
        answer
    }

    fn note(&mut self, ask: &Ask, answer: &Answer) {
        if self.trail.len() == TRAIL_LENGTH {
            self.trail.pop_front();
        }
        // Contents are random: only documents are shown.
        let short = |body: &Bytes| match std::str::from_utf8(body) {
            Ok(text) if text.starts_with(['<', '{']) => text.chars().take(DOCUMENT_SHOWN_CHARS).collect(),
            _ => String::new(),
        };
        let (asked, answered) = (short(&ask.body), short(&answer.body));
        self.trail.push_back(format!(
            "node {}: {} {}/{:?} {:?} {:?} {:?} {} bytes {asked:?}\n   -> {} {:?} {} bytes {answered:?}",
            self.turn,
            ask.method,
            ask.bucket,
            ask.key,
            ask.query,
            ask.headers,
            ask.signer,
            ask.body.len(),
            answer.status,
            answer.headers,
            answer.body.len(),
        ));
    }

    fn signed(&self, ask: &Ask) -> http::request::Builder {
        let credentials = if ask.signer == Signer::Owner { &self.owner } else { &self.reader };
        let encode = |text: &str| utf8_percent_encode(text, UNRESERVED).to_string();
        let key = ask.key.as_deref().map(|key| utf8_percent_encode(key, IN_PATH).to_string()).unwrap_or_default();
        let path = format!("/{}/{key}", ask.bucket);
        let mut pairs: Vec<String> = ask.query.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
        pairs.sort();
        let query = pairs.join("&");
        let datetime = iso_basic(self.cluster.clock(self.turn).now_ms());
        let payload = hex::encode(Sha256::digest(&ask.body));
        let mut headers: Vec<(String, String)> = ask.headers.iter().map(|(name, value)| (name.clone(), value.trim().to_owned())).collect();
        headers.push(("host".into(), "s3.example".into()));
        headers.push(("x-amz-date".into(), datetime.clone()));
        headers.push(("x-amz-content-sha256".into(), payload.clone()));
        headers.sort();
        let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let names = headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(";");
        let canonical = format!("{}\n{path}\n{query}\n{lines}\n{names}\n{payload}", ask.method);
        let (date, region) = (datetime[..8].to_owned(), REGION.to_owned());
        let scope = Scope { access_key_id: credentials.id.clone(), date, region, service: "s3".to_owned() };
        let to_sign = format!("AWS4-HMAC-SHA256\n{datetime}\n{}\n{}", scope.text(), hex::encode(Sha256::digest(canonical)));
        let signature = SigningKey::derive(&credentials.secret, &scope).sign(to_sign.as_bytes());
        let mut request = Request::builder().method(ask.method).uri(format!("{path}?{query}"));
        for (name, value) in &headers {
            request = request.header(name, value);
        }
        request = request.header("content-length", ask.body.len());
        let credential = format!("{}/{}", credentials.id, scope.text());
        request.header("authorization", format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}"))
    }
}

async fn credentials(cluster: &Cluster, name: &str, create_bucket: bool) -> Credentials {
    let new = NewKey { name: name.into(), expires_ms: None, create_bucket };
    let context = RequestContext::within(std::time::Duration::from_secs(60));
    let (key, secret) = cluster.node(0).access.keys().create(new, context).await.unwrap();
    Credentials { id: key.id, secret }
}
