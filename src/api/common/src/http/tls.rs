//! TLS on a listener: who answers a handshake with which certificate, and certificates in files that are read again when they change.
//!
//! Source: RFC 8446 (TLS 1.3), RFC 6066 §3 (server name), RFC 7301 (ALPN), RFC 8737 (`acme-tls/1`).

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use garage_util::runtime::{Lane, Runtime};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio_rustls::LazyConfigAcceptor;

use super::stream::Accepted;
use crate::limits::TLS_FILES_CHECK_PERIOD;

/// The protocol by which certificate authorities ask for a proof; RFC 8737 §4.
pub const ACME_PROTOCOL: &[u8] = b"acme-tls/1";
/// What is spoken over TLS, the preferred one first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// What a client says of itself before it gets a certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hello {
    /// The host it wants, lower-cased; `None`: it does not say.
    pub server_name: Option<String>,
    /// It is a certificate authority that asks for a proof.
    pub asks_for_proof: bool,
}

/// Chooses what a handshake is answered with.
pub trait TlsChoice: Send + Sync + 'static {
    /// The settings for a client; `None`: there is no certificate for what it wants, and the connection ends. Bounded in time.
    fn choose(self: Arc<Self>, hello: Hello) -> BoxFuture<'static, Option<Arc<ServerConfig>>>;
}

/// Settings with this chain and key, for HTTP. Errors: a sentence for the operator.
pub fn server_config(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<ServerConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let mut config = builder
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| format!("certificate and key do not fit together: {error}"))?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(config)
}

/// As [`server_config`], from PEM text.
pub fn server_config_of_pem(chain: &[u8], key: &[u8]) -> Result<ServerConfig, String> {
    let certificates = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|error| format!("the certificates are not PEM: {error}"))?;
    if certificates.is_empty() {
        return Err("there is no certificate in it (-----BEGIN CERTIFICATE-----)".to_owned());
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("there is no private key in PEM form: {error}"))?;
    server_config(certificates, key)
}

/// Performs a handshake. The caller bounds its time, but for the choice, which bounds itself. `None`: nothing is to be served.
pub(super) async fn handshake(stream: Accepted, choice: &Arc<dyn TlsChoice>, patience: Duration) -> io::Result<Option<Accepted>> {
    let acceptor = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream);
    let start = tokio::time::timeout(patience, acceptor).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let hello = {
        let hello = start.client_hello();
        Hello {
            server_name: hello.server_name().map(str::to_ascii_lowercase),
            asks_for_proof: hello.alpn().is_some_and(|mut protocols| protocols.any(|protocol| protocol == ACME_PROTOCOL)),
        }
    };
    let asks_for_proof = hello.asks_for_proof;
    let Some(config) = choice.clone().choose(hello).await else { return Ok(None) };
    let stream =
        tokio::time::timeout(patience, start.into_stream(config)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    // The proof is in the certificate itself; nothing more is said on such a connection.
    Ok((!asks_for_proof).then(|| Accepted::Tls(Box::new(stream))))
}

/// A certificate and its key in files, read again when one of them changes.
pub struct CertificateFiles {
    certificate: PathBuf,
    key: PathBuf,
    current: ArcSwap<ServerConfig>,
}

/// Why certificate files can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{certificate}, {key}: {reason}")]
pub struct CertificateFilesError {
    certificate: String,
    key: String,
    reason: String,
}

/// By which a change of the files is noticed: sizes, and when they were written.
type Mark = [Option<(u64, SystemTime)>; 2];

impl CertificateFiles {
    /// Reads the files, and goes on watching them. Later contents that can't be used are logged, and the former ones stay.
    pub async fn open(certificate: &Path, key: &Path, runtime: &Runtime) -> Result<Arc<CertificateFiles>, CertificateFilesError> {
        let (paths, mark) = ((certificate.to_owned(), key.to_owned()), mark(certificate, key));
        let failed = |reason: String| CertificateFilesError {
            certificate: certificate.display().to_string(),
            key: key.display().to_string(),
            reason,
        };
        let read = paths.clone();
        let config = runtime.blocking(Lane::File, move || load(&read.0, &read.1)).await.map_err(|error| failed(error.to_string()))?;
        let (certificate, key) = paths;
        let files = Arc::new(CertificateFiles { certificate, key, current: ArcSwap::from_pointee(config.map_err(failed)?) });
        runtime.spawn("certificate files", files.clone().watch(runtime.clone(), mark));
        Ok(files)
    }

    async fn watch(self: Arc<Self>, runtime: Runtime, mut seen: Mark) {
        loop {
            tokio::time::sleep(TLS_FILES_CHECK_PERIOD).await;
            let this = self.clone();
            let looked = runtime.blocking(Lane::File, move || {
                let found = mark(&this.certificate, &this.key);
                (found != seen).then(|| (found, load(&this.certificate, &this.key)))
            });
            match looked.await {
                Ok(None) => {}
                Ok(Some((found, loaded))) => {
                    seen = found;
                    self.take(loaded);
                }
                Err(_) => return,
            }
        }
    }

    fn take(&self, loaded: Result<ServerConfig, String>) {
        let (certificate, key) = (self.certificate.display(), self.key.display());
        match loaded {
            Ok(config) => {
                self.current.store(Arc::new(config));
                tracing::info!(%certificate, %key, "the certificate was read again");
            }
            Err(reason) => tracing::error!(%certificate, %key, reason, "the changed certificate can't be used; the former one stays"),
        }
    }
}

impl TlsChoice for CertificateFiles {
    fn choose(self: Arc<Self>, _hello: Hello) -> BoxFuture<'static, Option<Arc<ServerConfig>>> {
        Box::pin(std::future::ready(Some(self.current.load_full())))
    }
}

fn mark(certificate: &Path, key: &Path) -> Mark {
    [certificate, key].map(|path| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.len(), found.modified().ok()?))
    })
}

fn load(certificate: &Path, key: &Path) -> Result<ServerConfig, String> {
    let read = |path: &Path| std::fs::read(path).map_err(|error| format!("{} can't be read: {error}", path.display()));
    server_config_of_pem(&read(certificate)?, &read(key)?)
}
