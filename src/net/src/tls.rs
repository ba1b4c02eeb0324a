//! TLS 1.3 with raw public keys both ways (RFC 7250): the peer's key is its identity; no certificate, no authority, no early data.
//!
//! Invariants:
//! - a handshake ends only with a peer that owns an ed25519 key and signed with it;
//! - a dialler who expects a node never ends a handshake with another one.

use std::sync::{Arc, OnceLock};

use rustls::{
    DigitallySignedStruct, DistinguishedName, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls13_signature_with_raw_key},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
    sign::CertifiedKey,
};

use crate::{identity::NodeKey, proof::PROTOCOL, types::NodeId};

/// SubjectPublicKeyInfo (RFC 8410) before the 32 bytes of an ed25519 key.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// The name a dialler gives; keys, not names, are checked.
pub const SERVER_NAME: &str = "garage";

/// The TLS library does not take our key or its own algorithms.
#[derive(Debug, thiserror::Error)]
#[error("TLS cannot be set up: {0}")]
pub struct TlsError(String);

/// Where a dialler finds who really answered, whether it was expected or not.
pub type Found = Arc<OnceLock<NodeId>>;

/// The TLS side of a listener.
pub fn server_config(key: &NodeKey) -> Result<rustls::ServerConfig, TlsError> {
    let provider = provider();
    let resolver = rustls::server::AlwaysResolvesServerRawPublicKeys::new(certified(key)?);
    let verifier = ClientKeys { algorithms: provider.signature_verification_algorithms };
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| TlsError(error.to_string()))?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// The TLS side of a dialler, and where it leaves the key that the listener showed.
pub fn client_config(key: &NodeKey, expected: Option<NodeId>) -> Result<(rustls::ClientConfig, Found), TlsError> {
    let provider = provider();
    let resolver = rustls::client::AlwaysResolvesClientRawPublicKeys::new(certified(key)?);
    let found = Found::default();
    let verifier = ServerKey { algorithms: provider.signature_verification_algorithms, expected, found: found.clone() };
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| TlsError(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_sni = false;
    Ok((config, found))
}

/// The node whose key `spki` is: an ed25519 SubjectPublicKeyInfo, nothing else.
pub fn node_of_spki(spki: &[u8]) -> Option<NodeId> {
    spki.strip_prefix(&SPKI_PREFIX)?.try_into().ok().map(NodeId)
}

fn provider() -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    // Where AES is in hardware, the 128-bit form is the fastest; all are strong.
    provider.cipher_suites = vec![
        ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
        ring::cipher_suite::TLS13_AES_256_GCM_SHA384,
        ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(provider)
}

fn certified(key: &NodeKey) -> Result<Arc<CertifiedKey>, TlsError> {
    let signer = ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(key.to_pkcs8())).map_err(|error| TlsError(error.to_string()))?;
    let spki = [&SPKI_PREFIX[..], key.node().as_bytes()].concat();
    Ok(Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], signer)))
}

fn peer_of(end_entity: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<NodeId, rustls::Error> {
    match node_of_spki(end_entity) {
        Some(node) if others.is_empty() => Ok(node),
        _ => Err(rustls::CertificateError::BadEncoding.into()),
    }
}

fn check_signature(
    message: &[u8],
    key: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    verify_tls13_signature_with_raw_key(message, &SubjectPublicKeyInfoDer::from(key.as_ref()), signature, algorithms)
}

fn no_tls12() -> Result<HandshakeSignatureValid, rustls::Error> {
    Err(rustls::Error::General("TLS 1.2 is not spoken here".into()))
}

/// What a dialler accepts.
#[derive(Debug)]
struct ServerKey {
    algorithms: WebPkiSupportedAlgorithms,
    expected: Option<NodeId>,
    found: Found,
}

impl ServerCertVerifier for ServerKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let node = peer_of(end_entity, intermediates)?;
        // A retried handshake shows its key once more; the first one stays on record, and only tells the operator who is there.
        let _ = self.found.set(node);
        match self.expected {
            Some(expected) if expected != node => Err(rustls::CertificateError::ApplicationVerificationFailure.into()),
            _ => Ok(ServerCertVerified::assertion()),
        }
    }
    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        check_signature(message, key, signature, &self.algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// What a listener accepts: any key; the proof of the cluster secret follows.
#[derive(Debug)]
struct ClientKeys {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for ClientKeys {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        peer_of(end_entity, intermediates).map(|_| ClientCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        check_signature(message, key, signature, &self.algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::{SPKI_PREFIX, client_config, node_of_spki, server_config};
    use crate::{identity::NodeKey, types::NodeId};

    #[test]
    fn only_an_ed25519_key_is_an_identity() {
        let spki = [&SPKI_PREFIX[..], &[7; 32]].concat();
        assert_eq!(node_of_spki(&spki), Some(NodeId([7; 32])));
        assert_eq!(node_of_spki(&spki[..43]), None);
        assert_eq!(node_of_spki(&[&spki[..], &[0]].concat()), None);
        assert_eq!(node_of_spki(&[7; 44]), None);
    }

    #[test]
    fn a_key_of_libsodium_serves_both_sides() {
        let key = NodeKey::throw_away().unwrap();
        assert!(server_config(&key).is_ok());
        assert!(client_config(&key, None).is_ok());
    }
}
