//! A small S3 client of our own: it signs, sends exactly what it is told, and reads the answer.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use garage_api_common::{
    sigv4::{Scope, SigningKey},
    time::iso_basic,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::server::REGION;

const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// How long a test waits for an answer before it fails.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Client {
    pub address: SocketAddr,
    pub key: String,
    pub secret: String,
}

/// How a request is signed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Signed {
    Header,
    /// For so many seconds, signed so many seconds ago.
    Presigned(u64, u64),
    No,
}

pub struct Call<'a> {
    client: &'a Client,
    method: &'a str,
    path: String,
    query: String,
    headers: Vec<(String, Vec<u8>)>,
    unsigned: Vec<(String, String)>,
    body: Vec<u8>,
    payload: Option<String>,
    signed: Signed,
    ago_s: i64,
    framed: bool,
}

pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    /// Answers before the last one: `100 Continue`.
    pub continued: bool,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    /// The text of the first element of this name.
    pub fn element(&self, name: &str) -> Option<String> {
        let text = self.text();
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>")).map(|(value, _)| value.to_owned())
    }
    /// The texts of all elements of this name.
    pub fn elements(&self, name: &str) -> Vec<String> {
        let text = self.text();
        text.split(&format!("<{name}>"))
            .skip(1)
            .filter_map(|rest| rest.split_once(&format!("</{name}>")))
            .map(|(value, _)| value.to_owned())
            .collect()
    }
    pub fn code(&self) -> String {
        self.element("Code").unwrap_or_default()
    }
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
    /// Fails unless status and code are these.
    #[track_caller]
    pub fn is(&self, status: u16, code: &str) -> &Answer {
        assert_eq!((self.status, self.code().as_str()), (status, code), "{:?} {}", self.headers, self.text());
        self
    }
    #[track_caller]
    pub fn ok(self) -> Answer {
        assert!((200..300).contains(&self.status), "{} {:?} {}", self.status, self.headers, self.text());
        self
    }
}

impl Client {
    /// A request; the target is a raw path, with a raw query behind `?`.
    pub fn call<'a>(&'a self, method: &'a str, target: &str) -> Call<'a> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Call {
            client: self,
            method,
            path: path.to_owned(),
            query: query.to_owned(),
            headers: Vec::new(),
            unsigned: Vec::new(),
            body: Vec::new(),
            payload: None,
            signed: Signed::Header,
            ago_s: 0,
            framed: true,
        }
    }
    pub async fn get(&self, target: &str) -> Answer {
        self.call("GET", target).send().await
    }
    pub async fn head(&self, target: &str) -> Answer {
        self.call("HEAD", target).send().await
    }
    pub async fn delete(&self, target: &str) -> Answer {
        self.call("DELETE", target).send().await
    }
    pub async fn put(&self, target: &str, body: impl AsRef<[u8]>) -> Answer {
        self.call("PUT", target).body(body).send().await
    }
    pub async fn post(&self, target: &str, body: impl AsRef<[u8]>) -> Answer {
        self.call("POST", target).body(body).send().await
    }
}

impl Call<'_> {
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }
    /// A header that the signature does not cover.
    pub fn unsigned_header(mut self, name: &str, value: &str) -> Self {
        self.unsigned.push((name.to_owned(), value.to_owned()));
        self
    }
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }
    /// The value of `x-amz-content-sha256` instead of the body's hash.
    pub fn payload(mut self, payload: &str) -> Self {
        self.payload = Some(payload.to_owned());
        self
    }
    pub fn signed(mut self, signed: Signed) -> Self {
        self.signed = signed;
        self
    }
    /// Signed so many seconds ago; negative: in the future.
    pub fn ago(mut self, ago_s: i64) -> Self {
        self.ago_s = ago_s;
        self
    }
    /// Sends no `Content-Length` of its own.
    pub fn unframed(mut self) -> Self {
        self.framed = false;
        self
    }

    fn now_ms(&self) -> u64 {
        let now_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64;
        now_ms.saturating_add_signed(-self.ago_s * 1000)
    }

    /// Sends it and reads the whole answer.
    pub async fn send(self) -> Answer {
        let request = self.render();
        let waits = request.starts_with(b"wait ");
        let exchange = async {
            let mut stream = TcpStream::connect(self.client.address).await.unwrap();
            let (head, body) = if waits { (&request[5..], &self.body[..]) } else { (&request[..], &[][..]) };
            stream.write_all(head).await.unwrap();
            let mut read = Vec::new();
            if waits {
                let mut buffer = [0; 4096];
                let count = stream.read(&mut buffer).await.unwrap();
                read.extend_from_slice(&buffer[..count]);
                if read.starts_with(b"HTTP/1.1 100") {
                    stream.write_all(body).await.unwrap();
                }
            }
            // A server that refuses early may reset the connection behind its answer.
            let _ = stream.read_to_end(&mut read).await;
            read
        };
        parse(&tokio::time::timeout(PATIENCE, exchange).await.expect("the server answers"), self.method)
    }

    fn render(&self) -> Vec<u8> {
        let datetime = iso_basic(self.now_ms());
        let payload = self.payload.clone().unwrap_or_else(|| hex::encode(Sha256::digest(&self.body)));
        let mut headers = self.headers.clone();
        if !headers.iter().any(|(name, _)| name == "host") {
            headers.push(("host".into(), self.client.address.to_string().into_bytes()));
        }
        let mut query = self.query.clone();
        match self.signed {
            Signed::Header => {
                headers.push(("x-amz-date".into(), datetime.clone().into_bytes()));
                headers.push(("x-amz-content-sha256".into(), payload.clone().into_bytes()));
                let (names, signature) = self.sign(&datetime, &headers, &query, &payload);
                let scope = self.scope(&datetime);
                let value = format!(
                    "AWS4-HMAC-SHA256 Credential={}/{}, SignedHeaders={names}, Signature={signature}",
                    scope.access_key_id,
                    scope.text()
                );
                headers.push(("authorization".into(), value.into_bytes()));
            }
            Signed::Presigned(expires_s, ago_s) => {
                let datetime = iso_basic(self.now_ms() - ago_s * 1000);
                let scope = self.scope(&datetime);
                let credential = utf8_percent_encode(&format!("{}/{}", scope.access_key_id, scope.text()), UNRESERVED).to_string();
                let mut names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
                names.sort_unstable();
                let names = utf8_percent_encode(&names.join(";"), UNRESERVED).to_string();
                let separator = if query.is_empty() { "" } else { "&" };
                query = format!(
                    "{query}{separator}X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={credential}&X-Amz-Date={datetime}&X-Amz-Expires={expires_s}&X-Amz-SignedHeaders={names}"
                );
                let (_, signature) = self.sign(&datetime, &headers, &query, "UNSIGNED-PAYLOAD");
                query = format!("{query}&X-Amz-Signature={signature}");
            }
            Signed::No => {}
        }
        self.write(&query, &headers)
    }

    fn scope(&self, datetime: &str) -> Scope {
        let access_key_id = self.client.key.clone();
        Scope { access_key_id, date: datetime[..8].to_owned(), region: REGION.to_owned(), service: "s3".to_owned() }
    }

    fn sign(&self, datetime: &str, headers: &[(String, Vec<u8>)], query: &str, payload: &str) -> (String, String) {
        let mut lines: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
        for (name, value) in headers {
            lines.entry(name.to_ascii_lowercase()).or_default().push(value.trim_ascii().to_vec());
        }
        let names = lines.keys().cloned().collect::<Vec<_>>().join(";");
        let mut pairs: Vec<(String, String)> = query.split('&').filter(|pair| !pair.is_empty()).map(encoded_pair).collect();
        pairs.sort();
        let pairs = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&");
        let mut canonical = format!("{}\n{}\n{pairs}\n", self.method, self.path).into_bytes();
        for (name, values) in &lines {
            canonical.extend_from_slice(format!("{name}:").as_bytes());
            canonical.extend_from_slice(&values.join(&b','));
            canonical.push(b'\n');
        }
        canonical.extend_from_slice(format!("\n{names}\n{payload}").as_bytes());
        let scope = self.scope(datetime);
        let to_sign = format!("AWS4-HMAC-SHA256\n{datetime}\n{}\n{}", scope.text(), hex::encode(Sha256::digest(&canonical)));
        (names, SigningKey::derive(&self.client.secret, &scope).sign(to_sign.as_bytes()))
    }

    fn write(&self, query: &str, headers: &[(String, Vec<u8>)]) -> Vec<u8> {
        let target = if query.is_empty() { self.path.clone() } else { format!("{}?{query}", self.path) };
        let mut out = format!("{} {target} HTTP/1.1\r\nconnection: close\r\n", self.method).into_bytes();
        for (name, value) in headers {
            out.extend_from_slice(format!("{name}: ").as_bytes());
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
        for (name, value) in &self.unsigned {
            out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        let has_length = headers.iter().any(|(name, _)| name == "content-length");
        if self.framed && !has_length && (!self.body.is_empty() || self.method == "PUT" || self.method == "POST") {
            out.extend_from_slice(format!("content-length: {}\r\n", self.body.len()).as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        if headers.iter().any(|(name, value)| name == "expect" && value == b"100-continue") {
            return [b"wait ", &out[..]].concat();
        }
        out.extend_from_slice(&self.body);
        out
    }
}

/// Decodes once and encodes again, as signers do.
fn encoded_pair(pair: &str) -> (String, String) {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    let again = |text: &str| {
        let decoded = percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        utf8_percent_encode(&decoded, UNRESERVED).to_string()
    };
    (again(name), again(value))
}

fn parse(mut bytes: &[u8], method: &str) -> Answer {
    let mut continued = false;
    loop {
        let end = bytes
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .unwrap_or_else(|| panic!("an answer: {:?}", String::from_utf8_lossy(bytes)));
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        bytes = &bytes[end + 4..];
        let mut lines = head.lines();
        let status: u16 = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        if status == 100 {
            continued = true;
            continue;
        }
        let headers: BTreeMap<String, String> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let body = match headers.get("transfer-encoding") {
            Some(_) => dechunk(bytes),
            None => bytes.to_vec(),
        };
        if let Some(length) = headers.get("content-length").filter(|_| method != "HEAD" && status != 304) {
            assert_eq!(length.parse::<usize>().unwrap(), body.len(), "Content-Length is exact");
        }
        return Answer { status, headers, body, continued };
    }
}

fn dechunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(at) = bytes.windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..at]).unwrap(), 16).unwrap();
        if size == 0 {
            break;
        }
        body.extend_from_slice(&bytes[at + 2..at + 2 + size]);
        bytes = &bytes[at + 4 + size..];
    }
    body
}

/// The ETag of some bytes, quoted.
pub fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", md5_hex(bytes))
}
pub fn md5_hex(bytes: &[u8]) -> String {
    use md5::Digest as _;
    hex::encode(md5::Md5::digest(bytes))
}
