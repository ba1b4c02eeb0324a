//! The body of a request: what its headers promise of it, and a stream that keeps them to it.
//!
//! Reading order: this file (what is promised), `chunked` (the aws-chunked decoder: pure), `digest` (hashes and signatures over it: pure),
//! `body` (the stream around both: reading, hashing off the async workers, time-outs).
//!
//! Invariant: a body whose length, digest or signature is wrong ends in an error, never in a clean end. Whoever reads it must let nothing
//! become visible before the clean end.
//!
//! Source: s3 reference §2.1, §2.2, §3.5, §3.8.

mod body;
mod chunked;
mod digest;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, time::Duration};

use ::http::{HeaderMap, HeaderName, header};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures::Stream;
use garage_util::runtime::Runtime;

pub use body::{BoxError, VerifiedBody};
pub use chunked::{ChunkDecoder, ChunkEvent, ChunkSignatures};
pub use digest::Digests;

use crate::{
    checksum::{ChecksumAlgorithm, ChecksumValue, DeclaredChecksum},
    error::{ErrorCode, S3Error},
    limits::BODY_STALL_TIMEOUT,
    sigv4::{ChunkSigner, PayloadMode},
};

/// What a request's headers promise of its body.
#[derive(Debug, Clone)]
pub struct BodySpec {
    pub(crate) mode: PayloadMode,
    pub(crate) length: Option<u64>,
    pub(crate) md5: Option<[u8; 16]>,
    pub(crate) declared: DeclaredChecksum,
    pub(crate) compute: BTreeSet<ChecksumAlgorithm>,
    pub(crate) stall_timeout: Duration,
}

impl BodySpec {
    /// Reads the promises. `mode` comes from authentication; `headers` are the request's own, without hoisted ones.
    ///
    /// Errors: 411 `MissingContentLength` (aws-chunked without decoded length), 400 `InvalidDigest`, `InvalidRequest`, `InvalidArgument`, 501.
    pub fn parse(headers: &HeaderMap, mode: PayloadMode) -> Result<BodySpec, S3Error> {
        let declared = DeclaredChecksum::parse(headers)?;
        let chunked =
            matches!(mode, PayloadMode::SignedChunks(_) | PayloadMode::SignedChunksTrailer(_) | PayloadMode::UnsignedChunksTrailer);
        if matches!(mode, PayloadMode::Unsigned) && has_aws_chunked(headers) {
            return Err(S3Error::invalid_request("An aws-chunked body needs a STREAMING value in x-amz-content-sha256"));
        }
        let with_trailers = matches!(mode, PayloadMode::SignedChunksTrailer(_) | PayloadMode::UnsignedChunksTrailer);
        if declared.trailer.is_some() && !with_trailers {
            return Err(S3Error::invalid_request("x-amz-trailer needs an x-amz-content-sha256 value that ends in -TRAILER"));
        }
        let length = if chunked { Some(decoded_length(headers)?) } else { content_length(headers)? };
        let md5 = content_md5(headers)?;
        Ok(BodySpec { mode, length, md5, declared, compute: BTreeSet::new(), stall_timeout: BODY_STALL_TIMEOUT })
    }

    /// Bytes of the content (decoded); `None` when the request does not say.
    pub fn length_bytes(&self) -> Option<u64> {
        self.length
    }
    /// Bytes of the content; 411 `MissingContentLength` when the request does not say.
    pub fn required_length_bytes(&self) -> Result<u64, S3Error> {
        self.length.ok_or_else(|| S3Error::of(ErrorCode::MissingContentLength))
    }
    /// What the request declares of its checksum.
    pub fn declared(&self) -> &DeclaredChecksum {
        &self.declared
    }
    /// The MD5 in `Content-MD5`.
    pub fn content_md5(&self) -> Option<[u8; 16]> {
        self.md5
    }
    /// Whether the body is covered by Content-MD5, a checksum, or the signature; 400 `InvalidRequest` otherwise. For the operations of §3.1.
    pub fn require_integrity(&self) -> Result<(), S3Error> {
        let signed = matches!(self.mode, PayloadMode::Sha256(_) | PayloadMode::SignedChunks(_) | PayloadMode::SignedChunksTrailer(_));
        if self.md5.is_some() || self.declared.algorithm().is_some() || signed {
            return Ok(());
        }
        Err(S3Error::invalid_request("Missing required header for this request: Content-MD5 OR x-amz-checksum-*"))
    }
    /// Also computes this checksum, whatever the request declares.
    #[must_use]
    pub fn compute(mut self, algorithm: ChecksumAlgorithm) -> BodySpec {
        self.compute.insert(algorithm);
        self
    }
    /// Waits this long for a silent client instead of `BODY_STALL_TIMEOUT`.
    #[must_use]
    pub fn stall_timeout(mut self, patience: Duration) -> BodySpec {
        self.stall_timeout = patience;
        self
    }
    /// The verified stream over `source`, the body on the wire (HTTP framing removed).
    pub fn open<S, E>(self, runtime: &Runtime, source: S) -> VerifiedBody
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        VerifiedBody::new(self, runtime.clone(), source)
    }

    fn signer(&self) -> Option<ChunkSigner> {
        match &self.mode {
            PayloadMode::SignedChunks(signer) | PayloadMode::SignedChunksTrailer(signer) => Some(signer.clone()),
            PayloadMode::Unsigned | PayloadMode::Sha256(_) | PayloadMode::UnsignedChunksTrailer => None,
        }
    }
    fn decoder(&self) -> Option<ChunkDecoder> {
        let length = self.length.unwrap_or(0);
        match self.mode {
            PayloadMode::Unsigned | PayloadMode::Sha256(_) => None,
            PayloadMode::SignedChunks(_) => Some(ChunkDecoder::new(ChunkSignatures::Chunks, length, None)),
            PayloadMode::SignedChunksTrailer(_) => {
                Some(ChunkDecoder::new(ChunkSignatures::ChunksAndTrailers, length, self.declared.trailer))
            }
            PayloadMode::UnsignedChunksTrailer => Some(ChunkDecoder::new(ChunkSignatures::None, length, self.declared.trailer)),
        }
    }
    fn expected_sha256(&self) -> Option<[u8; 32]> {
        if let PayloadMode::Sha256(hash) = self.mode { Some(hash) } else { None }
    }
    fn expected_checksum(&self) -> Option<ChecksumValue> {
        self.declared.value.clone()
    }
}

/// `Content-Encoding` as it is stored: as it was sent, without `aws-chunked`; `None` when nothing is left.
pub fn stored_content_encoding(headers: &HeaderMap) -> Option<String> {
    let kept: Vec<&str> = if has_aws_chunked(headers) {
        encodings(headers).filter(|encoding| !encoding.eq_ignore_ascii_case("aws-chunked")).collect()
    } else {
        let lines = headers.get_all(header::CONTENT_ENCODING).iter().filter_map(|line| line.to_str().ok());
        lines.map(str::trim).filter(|line| !line.is_empty()).collect()
    };
    (!kept.is_empty()).then(|| kept.join(","))
}

fn has_aws_chunked(headers: &HeaderMap) -> bool {
    encodings(headers).any(|encoding| encoding.eq_ignore_ascii_case("aws-chunked"))
}
fn encodings(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(header::CONTENT_ENCODING).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|encoding| !encoding.is_empty())
}

fn decoded_length(headers: &HeaderMap) -> Result<u64, S3Error> {
    let name = HeaderName::from_static("x-amz-decoded-content-length");
    // What is no number is as good as none, as S3 answers.
    number(headers, &name).ok().flatten().ok_or_else(|| S3Error::of(ErrorCode::MissingContentLength))
}
fn content_length(headers: &HeaderMap) -> Result<Option<u64>, S3Error> {
    number(headers, &header::CONTENT_LENGTH)
}
fn number(headers: &HeaderMap, name: &HeaderName) -> Result<Option<u64>, S3Error> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits => Ok(Some(number)),
        _ => Err(S3Error::invalid_argument(format!("The {name} header must be a number of bytes"), name.as_str(), text)),
    }
}
fn content_md5(headers: &HeaderMap) -> Result<Option<[u8; 16]>, S3Error> {
    let Some(value) = headers.get("content-md5") else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    let decoded = if text.len() <= 24 { STANDARD.decode(text).ok() } else { None };
    let md5 = decoded.and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
    md5.map(Some).ok_or_else(|| S3Error::of(ErrorCode::InvalidDigest).with("Content-MD5", text))
}
