//! Hashes and signatures over a body: fed with what the body consists of, and the judge at its end.
//!
//! Pure and synchronous, so that a batch can be worked off on any thread.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use md5::Md5;
use sha2::{Digest, Sha256};

use super::{BodySpec, ChunkEvent};
use crate::{
    checksum::{ChecksumAlgorithm, ChecksumValue, Hasher},
    error::{ErrorCode, S3Error},
    sigv4::ChunkSigner,
};

/// What was computed over a verified body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digests {
    /// MD5 of the content.
    pub md5: [u8; 16],
    /// Bytes of content.
    pub size_bytes: u64,
    /// SHA-256 of the content, if anything asked for it.
    pub sha256: Option<[u8; 32]>,
    /// The declared checksum (header or trailer, verified) and those asked for with `BodySpec::compute`, sorted by algorithm.
    pub checksums: Vec<ChecksumValue>,
    /// The algorithm that the request declared.
    pub declared: Option<ChecksumAlgorithm>,
}

impl Digests {
    /// The checksum of an algorithm, if it was computed.
    pub fn checksum(&self, algorithm: ChecksumAlgorithm) -> Option<&ChecksumValue> {
        self.checksums.iter().find(|value| value.algorithm() == algorithm)
    }
    /// The checksum that the request declared, verified.
    pub fn declared_checksum(&self) -> Option<&ChecksumValue> {
        self.declared.and_then(|algorithm| self.checksum(algorithm))
    }
    /// The ETag of a single upload, without quotes.
    pub fn etag(&self) -> String {
        hex::encode(self.md5)
    }
}

/// Chunk signatures while chunks go by.
struct ChunkCheck {
    signer: ChunkSigner,
    sha256: Sha256,
    expected: String,
}

/// What the request said the digests are.
struct Expected {
    sha256: Option<[u8; 32]>,
    md5: Option<[u8; 16]>,
    checksum: Option<ChecksumValue>,
    trailer_signed: bool,
}

/// The running digests of one body.
pub(super) struct Digester {
    md5: Md5,
    size_bytes: u64,
    sha256: Option<Sha256>,
    hashers: Vec<(ChecksumAlgorithm, Hasher)>,
    sha256_is_checksum: bool,
    md5_is_checksum: bool,
    declared: Option<ChecksumAlgorithm>,
    chunks: Option<ChunkCheck>,
    expected: Expected,
}

impl Digester {
    pub(super) fn new(spec: &BodySpec) -> Digester {
        let declared = spec.declared.algorithm();
        let mut wanted = spec.compute.clone();
        wanted.extend(declared);
        let sha256_is_checksum = wanted.remove(&ChecksumAlgorithm::Sha256);
        // MD5 is computed in any case: it is the ETag.
        let md5_is_checksum = wanted.remove(&ChecksumAlgorithm::Md5);
        let needs_sha256 = sha256_is_checksum || spec.expected_sha256().is_some();
        Digester {
            md5: Md5::new(),
            size_bytes: 0,
            sha256: needs_sha256.then(Sha256::new),
            hashers: wanted.into_iter().map(|algorithm| (algorithm, Hasher::new(algorithm))).collect(),
            sha256_is_checksum,
            md5_is_checksum,
            declared,
            chunks: spec.signer().map(|signer| ChunkCheck { signer, sha256: Sha256::new(), expected: String::new() }),
            expected: Expected {
                sha256: spec.expected_sha256(),
                md5: spec.md5,
                checksum: spec.expected_checksum(),
                trailer_signed: spec.declared.trailer.is_some(),
            },
        }
    }

    /// Takes the next piece. Errors: 403 `SignatureDoesNotMatch` when a chunk or the trailers are not signed rightly.
    pub(super) fn apply(&mut self, event: ChunkEvent) -> Result<(), S3Error> {
        match event {
            ChunkEvent::Data(data) => {
                self.update(&data);
                Ok(())
            }
            ChunkEvent::ChunkStart { signature } => {
                if let Some(chunks) = &mut self.chunks {
                    chunks.expected = signature;
                }
                Ok(())
            }
            ChunkEvent::ChunkEnd => self.chunks.as_mut().map_or(Ok(()), ChunkCheck::end_chunk),
            ChunkEvent::Trailers { canonical, checksum, signature } => {
                if let Some(chunks) = &mut self.chunks {
                    chunks.check_trailers(&canonical, signature.as_deref(), self.expected.trailer_signed)?;
                }
                if checksum.is_some() {
                    self.expected.checksum = checksum;
                }
                Ok(())
            }
        }
    }

    fn update(&mut self, data: &Bytes) {
        self.size_bytes += data.len() as u64;
        self.md5.update(data);
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(data);
        }
        if let Some(chunks) = &mut self.chunks {
            chunks.sha256.update(data);
        }
        self.hashers.iter_mut().for_each(|(_, hasher)| hasher.update(data));
    }

    /// The digests, if they are what the request said. Errors: 400 `XAmzContentSHA256Mismatch`, 400 `BadDigest`.
    pub(super) fn finish(self) -> Result<Digests, S3Error> {
        let sha256: Option<[u8; 32]> = self.sha256.map(|sha256| sha256.finalize().into());
        let mut checksums: Vec<ChecksumValue> = self.hashers.into_iter().map(|(_, hasher)| hasher.finish()).collect();
        if self.sha256_is_checksum {
            checksums.extend(sha256.and_then(|hash| ChecksumValue::from_bytes(ChecksumAlgorithm::Sha256, &hash)));
        }
        let md5: [u8; 16] = self.md5.finalize().into();
        if self.md5_is_checksum {
            checksums.extend(ChecksumValue::from_bytes(ChecksumAlgorithm::Md5, &md5));
        }
        checksums.sort();
        let digests = Digests { md5, size_bytes: self.size_bytes, sha256, checksums, declared: self.declared };
        self.expected.judge(&digests)?;
        Ok(digests)
    }
}

impl ChunkCheck {
    fn end_chunk(&mut self) -> Result<(), S3Error> {
        let sha256: [u8; 32] = self.sha256.finalize_reset().into();
        let ours = self.signer.sign_chunk(&sha256);
        if crate::sigv4::signatures_equal(ours, &self.expected) { Ok(()) } else { Err(wrong_signature()) }
    }
    fn check_trailers(&mut self, canonical: &[u8], signature: Option<&str>, required: bool) -> Result<(), S3Error> {
        match signature {
            Some(theirs) if crate::sigv4::signatures_equal(self.signer.sign_trailers(canonical), theirs) => Ok(()),
            None if !required => Ok(()),
            _ => Err(wrong_signature()),
        }
    }
}

impl Expected {
    fn judge(&self, digests: &Digests) -> Result<(), S3Error> {
        if let (Some(expected), Some(computed)) = (self.sha256, digests.sha256)
            && expected != computed
        {
            return Err(S3Error::of(ErrorCode::XAmzContentSHA256Mismatch)
                .with("ClientComputedContentSHA256", hex::encode(expected))
                .with("S3ComputedContentSHA256", hex::encode(computed)));
        }
        if let Some(expected) = self.md5
            && expected != digests.md5
        {
            let (expected, computed) = (STANDARD.encode(expected), STANDARD.encode(digests.md5));
            return Err(S3Error::of(ErrorCode::BadDigest).with("ExpectedDigest", expected).with("CalculatedDigest", computed));
        }
        if let Some(expected) = &self.checksum {
            let computed = digests.checksum(expected.algorithm());
            if computed != Some(expected) {
                let message = format!("The {} you specified did not match the calculated checksum.", expected.algorithm().name());
                return Err(S3Error::new(ErrorCode::BadDigest, message)
                    .with("ExpectedDigest", expected.to_base64())
                    .with("CalculatedDigest", computed.map(ChecksumValue::to_base64).unwrap_or_default()));
            }
        }
        Ok(())
    }
}

fn wrong_signature() -> S3Error {
    S3Error::of(ErrorCode::SignatureDoesNotMatch).closing()
}
