//! Encryption of objects at rest: a data key for each object, wrapped under the cluster's key or the client's, and blocks sealed under it.
//!
//! Invariants:
//! - a client's key is never stored: only a salted HMAC, to tell a wrong key from a damaged object, and what it wraps;
//! - a sealed block opens only in its place (version or part, index in it): a swapped, cut or changed one is an error, never other bytes;
//! - no nonce is used twice under a key: every version and part has a key of its own, and its blocks are counted.
//!
//! Decision and alternatives: `doc/adr/0011-encryption-keys.md`. Source: AWS S3 User Guide, "Using server-side encryption with
//! customer-provided keys (SSE-C)"; NIST SP 800-38D (AES-GCM).

use std::{fmt, sync::Arc};

use bytes::Bytes;
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use garage_block::manager::BlockSeal;
use garage_rpc::register::WriteId;
use garage_util::{
    id::to_hex,
    runtime::{Interrupted, Lane, Runtime},
};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    hmac,
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::error::{ClientError, ModelError};

/// Bytes that a sealed block is longer than its content: the tag.
pub const SEAL_BYTES: usize = 16;

/// A key that seals an object's blocks. Never shown, never stored as it is.
#[derive(Clone)]
pub struct DataKey(Arc<[u8; 32]>);

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(..)")
    }
}

/// A key that a client brings with its requests.
#[derive(Clone)]
pub struct CustomerKey(pub [u8; 32]);

impl fmt::Debug for CustomerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CustomerKey(..)")
    }
}

/// How an object is encrypted, as its row keeps it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Encryption {
    /// Whose key wraps the data key.
    pub scheme: Scheme,
    /// The data key, wrapped: XChaCha20-Poly1305.
    wrapped: ByteBuf,
    /// 24 bytes.
    nonce: ByteBuf,
    /// While a request that brought its key works on it.
    #[serde(skip)]
    opened: Opened,
}

/// Whose key wraps an object's data key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Scheme {
    /// The cluster's (SSE-S3).
    Cluster {
        /// Which: the first 8 bytes of its BLAKE3 hash.
        #[serde(with = "serde_bytes")]
        key_id: [u8; 8],
    },
    /// The client's (SSE-C).
    Customer {
        /// 32 random bytes.
        salt: ByteBuf,
        /// HMAC-SHA256 of the client's key under the salt.
        check: ByteBuf,
    },
}

/// A data key at hand; of no account when rows are compared.
#[derive(Clone, Debug, Default)]
struct Opened(Option<DataKey>);
impl PartialEq for Opened {
    fn eq(&self, _: &Opened) -> bool {
        true
    }
}
impl Eq for Opened {}

/// Why a data key was not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenKeyError {
    /// The object was encrypted under another key of a client, or under the cluster's.
    #[error("the object was encrypted under another key")]
    WrongKey,
    /// The row is damaged, or the cluster's key is not configured here.
    #[error("the object's data key can't be opened: {0}")]
    Damaged(&'static str),
}

/// The cluster's keys, the present one first. Cheap to clone.
#[derive(Clone)]
pub struct EncryptionKeys {
    runtime: Runtime,
    keys: Arc<Vec<[u8; 32]>>,
}

fn key_id(key: &[u8; 32]) -> [u8; 8] {
    let mut id = [0; 8];
    id.copy_from_slice(&blake3::hash(key).as_bytes()[..8]);
    id
}

/// What the client's key wraps with: another key than the one it is checked by.
fn customer_wrapping_key(key: &CustomerKey) -> [u8; 32] {
    blake3::derive_key("garage 2026-11 wrapping of data keys under a client's key", &key.0)
}

const CLUSTER_CONTEXT: &[u8] = b"garage data key, cluster";
const CUSTOMER_CONTEXT: &[u8] = b"garage data key, customer";

impl EncryptionKeys {
    /// Keys derived from the cluster secret and, for opening only, from former ones.
    pub fn new(runtime: Runtime, secret: &[u8; 32], former: &[[u8; 32]]) -> EncryptionKeys {
        let derive = |secret: &[u8; 32]| blake3::derive_key("garage 2026-11 encryption of objects", secret);
        EncryptionKeys { runtime, keys: Arc::new(std::iter::once(secret).chain(former).map(derive).collect()) }
    }

    /// Encryption of a new object under the cluster's key.
    pub fn for_cluster(&self) -> Encryption {
        let key = self.keys[0];
        self.wrap(Scheme::Cluster { key_id: key_id(&key) }, &key, CLUSTER_CONTEXT)
    }

    /// Encryption of a new object under a client's key.
    pub fn for_customer(&self, key: &CustomerKey) -> Encryption {
        let mut salt = [0; 32];
        self.runtime.fill_random(&mut salt);
        let check = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &salt), &key.0);
        let scheme = Scheme::Customer { salt: ByteBuf::from(salt), check: ByteBuf::from(check.as_ref()) };
        self.wrap(scheme, &customer_wrapping_key(key), CUSTOMER_CONTEXT)
    }

    fn wrap(&self, scheme: Scheme, wrapping: &[u8; 32], context: &[u8]) -> Encryption {
        let (mut data_key, mut nonce) = ([0; 32], [0; 24]);
        self.runtime.fill_random(&mut data_key);
        self.runtime.fill_random(&mut nonce);
        let wrapped = XChaCha20Poly1305::new(wrapping.into())
            .encrypt(&XNonce::from(nonce), Payload { msg: &data_key, aad: context })
            .expect("XChaCha20-Poly1305 fails only on inputs of 256 GiB and more");
        let opened = Opened(Some(DataKey(Arc::new(data_key))));
        Encryption { scheme, wrapped: ByteBuf::from(wrapped), nonce: ByteBuf::from(nonce), opened }
    }

    /// The same encryption with its data key at hand. Errors: [`OpenKeyError::WrongKey`] for what a client's key encrypted.
    pub fn open(&self, encryption: &Encryption) -> Result<Encryption, OpenKeyError> {
        let Scheme::Cluster { key_id: wanted } = &encryption.scheme else { return Err(OpenKeyError::WrongKey) };
        let key = self.keys.iter().find(|key| key_id(key) == *wanted);
        let key = key.ok_or(OpenKeyError::Damaged("it was wrapped under another rpc_secret; see rpc_secrets_previous"))?;
        encryption.unwrap_with(key, CLUSTER_CONTEXT)
    }

    /// The same with a client's key. Errors: [`OpenKeyError::WrongKey`] for another key than the one it was encrypted under.
    pub fn open_with(&self, encryption: &Encryption, key: &CustomerKey) -> Result<Encryption, OpenKeyError> {
        let Scheme::Customer { salt, check } = &encryption.scheme else { return Err(OpenKeyError::WrongKey) };
        hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, salt), &key.0, check).map_err(|_| OpenKeyError::WrongKey)?;
        encryption.unwrap_with(&customer_wrapping_key(key), CUSTOMER_CONTEXT)
    }

    /// What opens the blocks of an object; `None`: it is not encrypted. Errors: `KeyNeeded` when the client's key is not at hand.
    pub(crate) fn opener(&self, encryption: Option<&Encryption>) -> Result<Option<Opener>, ModelError> {
        let Some(encryption) = encryption else { return Ok(None) };
        let key = match &encryption.opened.0 {
            Some(key) => key.clone(),
            None => match self.open(encryption) {
                Ok(Encryption { opened: Opened(Some(key)), .. }) => key,
                Ok(_) | Err(OpenKeyError::WrongKey) => return Err(ClientError::KeyNeeded.into()),
                Err(error) => return Err(ModelError::Secret(error.to_string())),
            },
        };
        Ok(Some(Opener { key, runtime: self.runtime.clone() }))
    }
}

impl Encryption {
    fn unwrap_with(&self, key: &[u8; 32], context: &[u8]) -> Result<Encryption, OpenKeyError> {
        let nonce: [u8; 24] = self.nonce.as_slice().try_into().map_err(|_| OpenKeyError::Damaged("its nonce is damaged"))?;
        let payload = Payload { msg: &self.wrapped, aad: context };
        let unwrapped = XChaCha20Poly1305::new(key.into()).decrypt(&XNonce::from(nonce), payload);
        let unwrapped = unwrapped.map_err(|_| OpenKeyError::Damaged("it is damaged"))?;
        let data_key: [u8; 32] = unwrapped.try_into().map_err(|_| OpenKeyError::Damaged("it is damaged"))?;
        Ok(Encryption { opened: Opened(Some(DataKey(Arc::new(data_key)))), ..self.clone() })
    }

    /// Whether it is the client's key that wraps.
    pub fn is_customer(&self) -> bool {
        matches!(self.scheme, Scheme::Customer { .. })
    }

    /// Seals the blocks of a version or part. Errors: `KeyNeeded` when the data key is not at hand.
    pub(crate) fn sealer(&self, unit: WriteId) -> Result<Arc<UnitSeal>, ModelError> {
        let key = self.opened.0.as_ref().ok_or(ClientError::KeyNeeded)?;
        Ok(Arc::new(UnitSeal::new(key, unit)))
    }

    /// The ETag of content with this MD5: what a client's key hides is not told by its MD5 either.
    pub(crate) fn etag(&self, md5: &[u8; 16]) -> String {
        match (&self.opened.0, self.is_customer()) {
            (Some(key), true) => to_hex(&blake3::keyed_hash(&key.0, md5).as_bytes()[..16]),
            _ => to_hex(md5),
        }
    }
}

/// The ETag of a body's MD5 under an encryption, or without one.
pub(crate) fn etag(encryption: Option<&Encryption>, md5: &[u8; 16]) -> String {
    encryption.map_or_else(|| to_hex(md5), |encryption| encryption.etag(md5))
}

/// Seals and opens the blocks of one version or part.
pub(crate) struct UnitSeal {
    key: LessSafeKey,
    unit: WriteId,
}

impl fmt::Debug for UnitSeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UnitSeal({:?})", self.unit)
    }
}

/// A sealed block did not open in its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("block {index} of {unit:?} does not open: it was changed, cut, or belongs elsewhere")]
pub struct SealBroken {
    unit: WriteId,
    index: u64,
}

impl UnitSeal {
    fn new(key: &DataKey, unit: WriteId) -> UnitSeal {
        let derived = blake3::keyed_hash(&key.0, unit.as_bytes());
        let key = UnboundKey::new(&AES_256_GCM, derived.as_bytes()).expect("AES-256 takes every key of 32 bytes");
        UnitSeal { key: LessSafeKey::new(key), unit }
    }

    fn nonce(index: u64) -> Nonce {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&index.to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    }

    fn place(&self, index: u64) -> Aad<[u8; 40]> {
        let mut place = [0; 40];
        place[..32].copy_from_slice(self.unit.as_bytes());
        place[32..].copy_from_slice(&index.to_be_bytes());
        Aad::from(place)
    }

    fn open(&self, index: u64, sealed: &[u8]) -> Result<Bytes, SealBroken> {
        let mut bytes = sealed.to_vec();
        let broken = SealBroken { unit: self.unit, index };
        let opened = self.key.open_in_place(UnitSeal::nonce(index), self.place(index), &mut bytes).map_err(|_| broken)?;
        let len_bytes = opened.len();
        bytes.truncate(len_bytes);
        Ok(Bytes::from(bytes))
    }
}

impl BlockSeal for UnitSeal {
    fn overhead_bytes(&self) -> usize {
        SEAL_BYTES
    }
    fn seal(&self, index: u64, content: Bytes) -> Bytes {
        let mut bytes = Vec::with_capacity(content.len() + SEAL_BYTES);
        bytes.extend_from_slice(&content);
        self.key
            .seal_in_place_append_tag(UnitSeal::nonce(index), self.place(index), &mut bytes)
            .expect("AES-GCM fails only on inputs of 64 GiB and more");
        Bytes::from(bytes)
    }
}

/// Opens the blocks of one object.
#[derive(Clone)]
pub(crate) struct Opener {
    key: DataKey,
    runtime: Runtime,
}

impl Opener {
    /// The content of a sealed block that belongs in this place, off the async workers.
    pub(crate) async fn open(&self, unit: WriteId, index: u64, sealed: Bytes) -> Result<Bytes, ModelError> {
        let key = self.key.clone();
        let opened = self.runtime.blocking(Lane::Compute, move || UnitSeal::new(&key, unit).open(index, &sealed)).await;
        let interrupted = |error: Interrupted| ModelError::ReadBlock(garage_block::manager::ReadBlockError::Stopping(error));
        opened.map_err(interrupted)?.map_err(|broken| ModelError::Secret(broken.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use garage_block::manager::BlockSeal;
    use garage_rpc::register::WriteId;
    use garage_util::{encoding::Stored, runtime::Runtime};
    use proptest::prelude::*;

    use super::{CustomerKey, DataKey, Encryption, EncryptionKeys, OpenKeyError, SEAL_BYTES, UnitSeal};
    use crate::rows::object::{ObjectHeaders, ObjectMeta, VersionRow};

    fn keys(secret: u8, former: &[[u8; 32]]) -> EncryptionKeys {
        EncryptionKeys::new(Runtime::real().0, &[secret; 32], former)
    }
    fn key_of(encryption: &Encryption) -> [u8; 32] {
        *encryption.opened.0.as_ref().expect("the key is at hand").0
    }
    fn seal(unit: u8) -> UnitSeal {
        UnitSeal::new(&DataKey(std::sync::Arc::new([7; 32])), WriteId([unit; 32]))
    }

    #[test]
    fn only_the_client_s_own_key_opens() {
        let keys = keys(1, &[]);
        let encryption = keys.for_customer(&CustomerKey([5; 32]));
        assert_eq!(key_of(&keys.open_with(&encryption, &CustomerKey([5; 32])).unwrap()), key_of(&encryption));
        assert_eq!(keys.open_with(&encryption, &CustomerKey([6; 32])).unwrap_err(), OpenKeyError::WrongKey);
        assert_eq!(keys.open(&encryption).unwrap_err(), OpenKeyError::WrongKey);
        assert_eq!(keys.open_with(&keys.for_cluster(), &CustomerKey([5; 32])).unwrap_err(), OpenKeyError::WrongKey);
    }

    #[test]
    fn the_cluster_s_key_opens_and_former_ones_do() {
        let encryption = keys(1, &[]).for_cluster();
        assert_eq!(key_of(&keys(1, &[]).open(&encryption).unwrap()), key_of(&encryption));
        assert_eq!(key_of(&keys(2, &[[1; 32]]).open(&encryption).unwrap()), key_of(&encryption));
        assert!(matches!(keys(2, &[]).open(&encryption), Err(OpenKeyError::Damaged(_))));
    }

    #[test]
    fn a_stored_row_holds_neither_key() {
        let keys = keys(1, &[]);
        let customer = CustomerKey(*b"0123456789abcdefghijklmnopqrstuv");
        for encryption in [keys.for_customer(&customer), keys.for_cluster()] {
            let data_key = key_of(&encryption);
            let headers = ObjectHeaders { encryption: Some(encryption.clone()), ..ObjectHeaders::default() };
            let row = VersionRow::Object(Box::new(ObjectMeta { headers, ..ObjectMeta::default() }));
            let stored = row.to_stored();
            assert!(!stored.windows(32).any(|window| window == data_key || window == customer.0));
            let read = VersionRow::from_stored(&stored).unwrap();
            let read = read.object().unwrap().headers.encryption.clone().unwrap();
            assert!(read.opened.0.is_none() && read == encryption);
        }
        assert!(!format!("{:?} {customer:?}", keys.for_cluster()).contains("0123"));
    }

    #[test]
    fn an_etag_tells_the_md5_only_where_the_client_has_no_key() {
        let keys = keys(1, &[]);
        assert_eq!(keys.for_cluster().etag(&[1; 16]), "01".repeat(16));
        let hidden = keys.for_customer(&CustomerKey([5; 32])).etag(&[1; 16]);
        assert!(hidden.len() == 32 && hidden != "01".repeat(16));
    }

    proptest! {
        #[test]
        fn a_block_opens_in_its_place_only(content: Vec<u8>, index in 0u64..1000, other in 0u64..1000) {
            let sealed = seal(1).seal(index, Bytes::from(content.clone()));
            prop_assert_eq!(sealed.len(), content.len() + SEAL_BYTES);
            prop_assert_eq!(&seal(1).open(index, &sealed).unwrap()[..], &content[..]);
            prop_assert!(seal(2).open(index, &sealed).is_err());
            if other != index {
                prop_assert!(seal(1).open(other, &sealed).is_err());
            }
        }

        #[test]
        fn a_changed_or_cut_block_never_opens(content: Vec<u8>, at: prop::sample::Index, cut: prop::sample::Index) {
            let sealed = seal(1).seal(3, Bytes::from(content));
            let mut changed = sealed.to_vec();
            changed[at.index(sealed.len())] ^= 1;
            prop_assert!(seal(1).open(3, &changed).is_err());
            prop_assert!(seal(1).open(3, &sealed[..cut.index(sealed.len())]).is_err());
        }
    }
}
