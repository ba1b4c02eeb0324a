//! Checksums as stored with objects and parts.

use serde::{Deserialize, Serialize};

/// The algorithms a client can choose; AWS S3 User Guide, "Checking object integrity".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum ChecksumAlgorithm {
    /// CRC-32 (ISO-HDLC), 4 bytes.
    Crc32,
    /// CRC-32C (Castagnoli), 4 bytes.
    Crc32c,
    /// CRC-64/NVME, 8 bytes.
    Crc64Nvme,
    /// SHA-1, 20 bytes.
    Sha1,
    /// SHA-256, 32 bytes.
    Sha256,
    /// SHA-512, 64 bytes.
    Sha512,
    /// MD5, 16 bytes.
    Md5,
    /// XXH64, 8 bytes.
    XxHash64,
    /// XXH3, 8 bytes.
    XxHash3,
    /// XXH3, 16 bytes.
    XxHash128,
}

/// What a checksum of a multipart object is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ChecksumKind {
    /// Over the whole content.
    FullObject,
    /// Over the checksums of the parts.
    Composite,
}

/// A checksum with its meaning.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StoredChecksum {
    /// The algorithm.
    pub algorithm: ChecksumAlgorithm,
    /// What it is over.
    pub kind: ChecksumKind,
    /// The raw digest, big-endian for CRCs and XXH.
    #[serde(with = "serde_bytes")]
    pub value: Vec<u8>,
}
