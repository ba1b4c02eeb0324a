//! The proofs that a name leads to this cluster, given by any of its nodes: a text over HTTP, or a certificate over TLS.
//!
//! Source: RFC 8555 §8.3 (HTTP-01), RFC 8737 §3 (TLS-ALPN-01).

use std::sync::Arc;

use futures::future::BoxFuture;
use garage_api_common::{
    http::{Body, HttpService, RequestBody, RequestContext as Connection, full_body, tls::ACME_PROTOCOL},
    request::{host_name, host_of},
};
use garage_model::{RequestContext, certificates::Certificates, rows::certificate::Challenge};
use http::{HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::{
    ServerConfig,
    pki_types::PrivateKeyDer,
    sign::{CertifiedKey, SingleCertAndKey},
};

use crate::limits::STEP_TIMEOUT;

/// Where the authority looks for the text.
const WELL_KNOWN: &str = "/.well-known/acme-challenge/";

/// Answers what the authority asks over HTTP; everything else goes on to another front.
pub struct ChallengeFront {
    certificates: Certificates,
    next: Arc<dyn HttpService>,
}

impl ChallengeFront {
    /// In front of `next`.
    pub fn new(certificates: Certificates, next: Arc<dyn HttpService>) -> ChallengeFront {
        ChallengeFront { certificates, next }
    }

    async fn proof(&self, parts: &Parts, token: &str) -> Option<String> {
        let host = host_name(std::str::from_utf8(host_of(&parts.uri, &parts.headers)?).ok()?);
        match self.certificates.challenge(&host, RequestContext::within(STEP_TIMEOUT)).await {
            Ok(challenge) => challenge.filter(|challenge| challenge.token == token).map(|challenge| challenge.key_authorization),
            Err(error) => {
                tracing::warn!(host, %error, "a certificate authority's question can't be answered");
                None
            }
        }
    }
}

impl HttpService for ChallengeFront {
    fn serve(self: Arc<Self>, request: Request<RequestBody>, connection: Connection) -> BoxFuture<'static, Response<Body>> {
        let token = request.uri().path().strip_prefix(WELL_KNOWN).filter(|_| request.method() == Method::GET).map(str::to_owned);
        Box::pin(async move {
            let Some(token) = token else { return self.next.clone().serve(request, connection).await };
            let (parts, body) = request.into_parts();
            match self.proof(&parts, &token).await {
                Some(proof) => text(proof),
                // A site may have files there for a proof of its own.
                None => self.next.clone().serve(Request::from_parts(parts, body), connection).await,
            }
        })
    }
}

fn text(proof: String) -> Response<Body> {
    let len_bytes = proof.len();
    let mut response = Response::new(full_body(proof));
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(len_bytes));
    response
}

/// The settings for a handshake by which the authority asks: a self-signed certificate that holds the proof. Errors: a sentence.
pub(crate) fn proof_config(name: &str, challenge: &Challenge) -> Result<ServerConfig, String> {
    let failed = |error: rcgen::Error| error.to_string();
    let digest = sha256(challenge.key_authorization.as_bytes());
    let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(failed)?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(&digest)];
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = provider.key_provider.load_private_key(PrivateKeyDer::try_from(key.serialize_der())?).map_err(|error| error.to_string())?;
    // Not checked against each other as other certificates are: the extension that makes it a proof is one no client may accept.
    let certified = CertifiedKey::new(vec![certificate.der().clone()], key);
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![ACME_PROTOCOL.to_vec()];
    Ok(config)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use garage_model::rows::certificate::Challenge;

    use super::proof_config;

    #[test]
    fn a_proof_speaks_the_authority_s_protocol_only() {
        let challenge = Challenge { token: "t".into(), key_authorization: "t.thumb".into() };
        let config = proof_config("site.example.org", &challenge).unwrap();
        assert_eq!(config.alpn_protocols, [b"acme-tls/1".to_vec()]);
    }
}
