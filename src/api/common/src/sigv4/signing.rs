//! Keys and signatures: the derivation of the signing key, and the chain of chunk signatures.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The credential scope of a signature with its access key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The access key.
    pub access_key_id: String,
    /// `YYYYMMDD`.
    pub date: String,
    /// The region.
    pub region: String,
    /// The service, `s3`.
    pub service: String,
}

impl Scope {
    /// Reads `AK/YYYYMMDD/REGION/SERVICE/aws4_request`; `None` when there are not five parts or the last is another word.
    pub fn parse(credential: &str) -> Option<Scope> {
        let parts: Vec<&str> = credential.split('/').collect();
        let [access_key_id, date, region, service, "aws4_request"] = parts[..] else { return None };
        let plausible = !access_key_id.is_empty() && date.len() == 8 && date.bytes().all(|byte| byte.is_ascii_digit());
        plausible.then(|| Scope {
            access_key_id: access_key_id.to_owned(),
            date: date.to_owned(),
            region: region.to_owned(),
            service: service.to_owned(),
        })
    }
    /// `YYYYMMDD/REGION/SERVICE/aws4_request`, as it stands in what is signed.
    pub fn text(&self) -> String {
        format!("{}/{}/{}/aws4_request", self.date, self.region, self.service)
    }
}

/// The key that signs within one scope.
#[derive(Clone)]
pub struct SigningKey([u8; 32]);

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

impl SigningKey {
    /// Derives the key of a scope from a secret.
    pub fn derive(secret: &str, scope: &Scope) -> SigningKey {
        let date = hmac_sha256(format!("AWS4{secret}").as_bytes(), scope.date.as_bytes());
        let region = hmac_sha256(&date, scope.region.as_bytes());
        let service = hmac_sha256(&region, scope.service.as_bytes());
        SigningKey(hmac_sha256(&service, b"aws4_request"))
    }
    /// The signature of a text, 64 lower-case hex digits.
    pub fn sign(&self, text: &[u8]) -> String {
        hex::encode(hmac_sha256(&self.0, text))
    }
    /// The raw key, for tests against published values.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The chain of signatures over the chunks of a body, starting at the request's own signature.
#[derive(Debug, Clone)]
pub struct ChunkSigner {
    key: SigningKey,
    datetime: String,
    scope: String,
    previous: String,
}

impl ChunkSigner {
    /// A chain that starts at `seed`, the signature of the request made at `datetime` (ISO basic).
    pub fn new(key: SigningKey, datetime: String, scope: &Scope, seed: String) -> ChunkSigner {
        ChunkSigner { key, datetime, scope: scope.text(), previous: seed }
    }
    /// The signature of the next chunk, of which `sha256` is the hash of the data; the chain moves on to it.
    pub fn sign_chunk(&mut self, sha256: &[u8; 32]) -> &str {
        let empty = hex::encode(Sha256::digest(b""));
        let text =
            format!("AWS4-HMAC-SHA256-PAYLOAD\n{}\n{}\n{}\n{empty}\n{}", self.datetime, self.scope, self.previous, hex::encode(sha256));
        self.previous = self.key.sign(text.as_bytes());
        &self.previous
    }
    /// The signature of the trailers, given in canonical form (`name:value\n`, sorted).
    pub fn sign_trailers(&mut self, canonical: &[u8]) -> &str {
        let hash = hex::encode(Sha256::digest(canonical));
        let text = format!("AWS4-HMAC-SHA256-TRAILER\n{}\n{}\n{}\n{hash}", self.datetime, self.scope, self.previous);
        self.previous = self.key.sign(text.as_bytes());
        &self.previous
    }
}

/// Whether two signatures are equal, in a time that does not tell where they differ.
pub(crate) fn signatures_equal(ours: &str, theirs: &str) -> bool {
    ours.as_bytes().ct_eq(theirs.as_bytes()).into()
}

pub(crate) fn hmac_sha256(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text);
    mac.finalize().into_bytes().into()
}
