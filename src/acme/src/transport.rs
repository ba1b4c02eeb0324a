//! HTTP to the authority: one connection a request, over TLS with the system's roots or those of a file.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::limits::{ANSWER_MAX_BYTES, REQUEST_TIMEOUT};

/// Sends requests to an authority. Cheap to clone.
#[derive(Clone)]
pub struct Transport {
    tls: TlsConnector,
}

/// Why no authority can be trusted.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The file of roots.
    #[error("acme.ca_file = {file}: {reason}")]
    CaFile {
        /// Its path.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The system has no roots.
    #[error("[acme]: this system has no certificates of authorities ({0}); install its package ca-certificates, or set acme.ca_file")]
    NoRoots(String),
    /// TLS itself.
    #[error("[acme]: {0}")]
    Tls(String),
}

impl Transport {
    /// Trusts the certificates in `ca_file` (PEM), or without one those of the system. Reads files: call it off the workers.
    pub fn new(ca_file: Option<&Path>) -> Result<Transport, TransportError> {
        let roots = match ca_file {
            Some(file) => roots_of_file(file)?,
            None => roots_of_system()?,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| TransportError::Tls(error.to_string()))?;
        let config = builder.with_root_certificates(roots).with_no_client_auth();
        Ok(Transport { tls: TlsConnector::from(Arc::new(config)) })
    }

    /// One request; with a body, it is one that was signed.
    pub(crate) async fn send(&self, method: Method, url: &str, body: Option<Vec<u8>>) -> Result<Answer, SendError> {
        let answered = tokio::time::timeout(REQUEST_TIMEOUT, self.exchange(method, url, body)).await;
        answered
            .unwrap_or_else(|_| Err("no answer in time".into()))
            .map_err(|error| SendError { url: url.to_owned(), reason: error.to_string() })
    }

    async fn exchange(&self, method: Method, url: &str, body: Option<Vec<u8>>) -> Result<Answer, BoxError> {
        let uri: Uri = url.parse()?;
        let mut request = Request::builder().method(method).header(header::USER_AGENT, USER_AGENT);
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/jose+json");
        }
        let request = request.body(Full::new(Bytes::from(body.unwrap_or_default())))?;
        let host = uri.host().ok_or("the URL names no host")?.trim_matches(['[', ']']).to_owned();
        let is_plain = uri.scheme_str() == Some("http");
        let port = uri.port_u16().unwrap_or(if is_plain { 80 } else { 443 });
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        if is_plain {
            return converse(stream, request, &uri).await;
        }
        let name = ServerName::try_from(host)?;
        converse(self.tls.connect(name, stream).await?, request, &uri).await
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What authorities see of this program; RFC 8555 §6.1 asks for it.
const USER_AGENT: &str = concat!("garage/", env!("CARGO_PKG_VERSION"));

/// An answer of the authority.
pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// No answer of the authority.
#[derive(Debug, thiserror::Error)]
#[error("{url}: {reason}")]
pub(crate) struct SendError {
    url: String,
    reason: String,
}

/// One request and its answer on a fresh connection.
async fn converse<S>(stream: S, mut request: Request<Full<Bytes>>, uri: &Uri) -> Result<Answer, BoxError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let authority = uri.authority().ok_or("the URL names no host")?;
    request.headers_mut().insert(header::HOST, authority.as_str().parse()?);
    *request.uri_mut() = uri.path_and_query().map_or("/", |path| path.as_str()).parse()?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        read(response).await
    };
    let (mut connection, mut exchange) = (std::pin::pin!(connection), std::pin::pin!(exchange));
    tokio::select! {
        biased;
        // The answer is all that is wanted of this connection; whatever else it would do is dropped with it.
        answer = exchange.as_mut() => answer,
        ended = connection.as_mut() => {
            ended?;
            exchange.await
        }
    }
}

async fn read(response: Response<Incoming>) -> Result<Answer, BoxError> {
    let (parts, body) = response.into_parts();
    let bytes = Limited::new(body, ANSWER_MAX_BYTES).collect().await.map_err(|error| match error.is::<LengthLimitError>() {
        true => format!("the answer has more than {ANSWER_MAX_BYTES} bytes").into(),
        false => error,
    });
    Ok(Answer { status: parts.status, headers: parts.headers, body: bytes?.to_bytes() })
}

fn roots_of_file(file: &Path) -> Result<RootCertStore, TransportError> {
    let failed = |reason: String| TransportError::CaFile { file: file.display().to_string(), reason };
    let text = std::fs::read(file).map_err(|error| failed(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| failed(format!("not PEM: {error}")))?;
        roots.add(certificate).map_err(|error| failed(error.to_string()))?;
    }
    if roots.is_empty() { Err(failed("there is no certificate in it (-----BEGIN CERTIFICATE-----)".to_owned())) } else { Ok(roots) }
}

fn roots_of_system() -> Result<RootCertStore, TransportError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // A system may have some that this program can't read; it needs only the authority's.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let reasons = found.errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        return Err(TransportError::NoRoots(reasons));
    }
    Ok(roots)
}
