//! Who sent a request: AWS Signature Version 4 in its header and its presigned form. Anything else is refused, never passed as anonymous.
//!
//! Reading order: `claim` (what a request says about itself: pure), `canonical` (the text that is signed: pure), `signing` (keys, chunk
//! signatures: pure), `form` (browser forms: pure); this file ties them to the look-up of secrets.
//!
//! Invariants:
//! - every arriving `x-amz-*` header is covered by the signature, `x-amz-content-sha256` apart, whose value is part of the signed text;
//! - signatures compare in constant time; time comes in as an argument.
//!
//! Source: s3 reference §2.

mod canonical;
mod claim;
mod form;
mod signing;
#[cfg(test)]
mod tests;

use ::http::{HeaderMap, Method, Uri, request::Parts};

pub use claim::{Claim, SignatureClaim, SignatureForm, is_presigned};
pub use form::FormClaim;
pub(crate) use signing::signatures_equal;
pub use signing::{ChunkSigner, Scope, SigningKey};

use crate::{
    error::{ErrorCode, S3Error},
    query::Query,
};

/// The secret of an access key.
#[derive(Clone)]
pub struct KeySecret {
    /// The secret access key, as the client knows it.
    pub secret: String,
}
impl std::fmt::Debug for KeySecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeySecret(..)")
    }
}

/// Finds the secret of an access key. Implemented by whoever stores keys.
pub trait SecretLookup: Send + Sync {
    /// The key's secret; `None` if the key is unknown, disabled, deleted or expired.
    fn secret_of(&self, access_key_id: &str) -> impl Future<Output = Result<Option<KeySecret>, S3Error>> + Send;
}

/// What signatures are checked against.
#[derive(Debug, Clone)]
pub struct SignatureSettings {
    /// The region that scopes must name.
    pub region: String,
    /// The service that scopes must name: `s3`.
    pub service: &'static str,
}
impl SignatureSettings {
    /// Settings of the S3 interface.
    pub fn s3(region: impl Into<String>) -> SignatureSettings {
        SignatureSettings { region: region.into(), service: "s3" }
    }
}

/// The parts of a request that a signature covers.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    /// The method.
    pub method: &'a Method,
    /// The target, as on the wire.
    pub uri: &'a Uri,
    /// The headers, as on the wire.
    pub headers: &'a HeaderMap,
    /// The decoded query.
    pub query: &'a Query,
}
impl<'a> RequestView<'a> {
    /// A view of a received request; `query` is its parsed query.
    pub fn of(parts: &'a Parts, query: &'a Query) -> RequestView<'a> {
        RequestView { method: &parts.method, uri: &parts.uri, headers: &parts.headers, query }
    }
}

/// How the body of a request is covered by its signature.
#[derive(Debug, Clone)]
pub enum PayloadMode {
    /// Not at all.
    Unsigned,
    /// By its SHA-256.
    Sha256([u8; 32]),
    /// In aws-chunked form, each chunk signed.
    SignedChunks(ChunkSigner),
    /// In aws-chunked form, each chunk and the trailers signed.
    SignedChunksTrailer(ChunkSigner),
    /// In aws-chunked form with trailers, nothing signed.
    UnsignedChunksTrailer,
}

/// How a request was authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthForm {
    /// It brought no credentials.
    Anonymous,
    /// `Authorization` header.
    Header,
    /// Presigned query. `x-amz-*` parameters of the query then count as headers (`Query::with_hoisted_headers`).
    Presigned,
    /// A signed policy in a browser form.
    Form,
}

/// The outcome of authentication.
#[derive(Debug, Clone)]
pub struct Authenticated {
    /// The key that signed; `None` for an anonymous request.
    pub access_key_id: Option<String>,
    /// How.
    pub form: AuthForm,
    /// How the body is covered.
    pub payload: PayloadMode,
    /// When it was signed, ms since 1970.
    pub signed_at_ms: Option<u64>,
}

/// Authenticates a request at `now_ms`. Anonymous requests pass, with `access_key_id: None`; what they may do is decided elsewhere.
///
/// Errors: those of s3 reference §2.1 to §2.4, with their specifics.
pub async fn authenticate<L: SecretLookup>(
    request: RequestView<'_>,
    settings: &SignatureSettings,
    now_ms: u64,
    lookup: &L,
) -> Result<Authenticated, S3Error> {
    let claim = match Claim::parse(request, settings, now_ms)? {
        Claim::Anonymous(payload) => {
            return Ok(Authenticated { access_key_id: None, form: AuthForm::Anonymous, payload, signed_at_ms: None });
        }
        Claim::Signed(claim) => claim,
    };
    let Some(key) = lookup.secret_of(&claim.scope.access_key_id).await? else {
        return Err(S3Error::of(ErrorCode::InvalidAccessKeyId).with("AWSAccessKeyId", &claim.scope.access_key_id));
    };
    claim.verify(request, &key)
}
