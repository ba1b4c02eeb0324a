//! Access keys. The secret is sealed: rows, snapshots and messages never show it.

use std::collections::BTreeMap;

use garage_util::encoding::Stored;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::BucketId;

/// An access key. A register row of the control tables, under its id.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeyRow {
    /// For people; not unique.
    pub name: String,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// From when it is refused, in milliseconds since 1970.
    #[serde(default)]
    pub expires_ms: Option<u64>,
    /// A deleted key stays, so that its id is never taken again.
    #[serde(default)]
    pub deleted: bool,
    /// Whether it may make buckets.
    #[serde(default)]
    pub create_bucket: bool,
    /// The secret key, sealed.
    pub secret: SealedSecret,
    /// Names of buckets in this key's own name space.
    #[serde(default)]
    pub local_aliases: BTreeMap<String, BucketId>,
}

impl Stored for KeyRow {
    const WHAT: &'static str = "access key";
}

/// A secret under XChaCha20-Poly1305.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SealedSecret {
    /// Which sealing key: the first 8 bytes of its BLAKE3 hash.
    #[serde(with = "serde_bytes")]
    pub sealing_key_id: [u8; 8],
    /// 24 bytes.
    pub nonce: ByteBuf,
    /// Ciphertext and tag.
    pub sealed: ByteBuf,
}
