//! Certificates of websites, and the account with the authority that issues them.

use garage_util::encoding::Stored;
use serde::{Deserialize, Serialize};

use super::key::SealedSecret;

/// What the cluster has and does for one host name. A register row of the control tables, under the name.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CertificateRow {
    /// The certificate; `None`: there was none yet.
    #[serde(default)]
    pub issued: Option<IssuedCertificate>,
    /// The order under way.
    #[serde(default)]
    pub order: Option<CertificateOrder>,
    /// Orders that failed since the last one that succeeded.
    #[serde(default)]
    pub failures: u32,
    /// No order before this, in milliseconds since 1970.
    #[serde(default)]
    pub retry_ms: u64,
    /// Why the last one failed.
    #[serde(default)]
    pub last_error: Option<String>,
}

impl Stored for CertificateRow {
    const WHAT: &'static str = "certificate";
}

/// A certificate with its key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IssuedCertificate {
    /// The certificate and those above it, PEM.
    pub chain_pem: String,
    /// The private key, PEM, sealed for the host name.
    pub key: SealedSecret,
    /// When it begins to be valid, in milliseconds since 1970.
    pub not_before_ms: u64,
    /// When it ends.
    pub not_after_ms: u64,
}

/// An order under way, held by one node for a time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CertificateOrder {
    /// Tells this order from others.
    pub id: u64,
    /// After this another node may order, in milliseconds since 1970.
    pub until_ms: u64,
    /// What the authority will ask for.
    #[serde(default)]
    pub challenge: Option<Challenge>,
}

/// What proves to the authority that the name leads here. RFC 8555 §8.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Challenge {
    /// By which it is asked for over HTTP.
    pub token: String,
    /// The answer: the token and the account key's thumbprint.
    pub key_authorization: String,
}

/// An account with an authority. A register row of the control tables, under the URL of the authority's directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AcmeAccountRow {
    /// Id and key of the account, JSON, sealed for the URL.
    pub credentials: SealedSecret,
}

impl Stored for AcmeAccountRow {
    const WHAT: &'static str = "certificate authority account";
}
