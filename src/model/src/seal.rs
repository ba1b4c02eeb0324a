//! Seals secrets at rest: XChaCha20-Poly1305 under a key derived from the cluster secret.
//!
//! A sealed secret names its sealing key, so that secrets sealed under a former cluster secret are still opened while it is configured.

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use garage_util::runtime::Runtime;
use serde_bytes::ByteBuf;

use crate::{error::ModelError, rows::key::SealedSecret};

/// Sealing keys, the present one first.
#[derive(Clone)]
pub struct Sealer {
    keys: Vec<[u8; 32]>,
}

fn key_id(key: &[u8; 32]) -> [u8; 8] {
    let mut id = [0; 8];
    id.copy_from_slice(&blake3::hash(key).as_bytes()[..8]);
    id
}

impl Sealer {
    /// Keys derived from the cluster secret and, for opening only, from former ones.
    pub fn new(secret: &[u8; 32], former: &[[u8; 32]]) -> Sealer {
        let derive = |secret: &[u8; 32]| blake3::derive_key("garage 2026-11 seal of access key secrets", secret);
        Sealer { keys: std::iter::once(secret).chain(former).map(derive).collect() }
    }

    /// Seals `secret`, bound to `owner` (the key id), so that it can't be moved to another row.
    pub fn seal(&self, runtime: &Runtime, owner: &str, secret: &str) -> SealedSecret {
        let mut nonce = [0; 24];
        runtime.fill_random(&mut nonce);
        let key = self.keys[0];
        let payload = Payload { msg: secret.as_bytes(), aad: owner.as_bytes() };
        let sealed = XChaCha20Poly1305::new(&key.into())
            .encrypt(&XNonce::from(nonce), payload)
            .expect("XChaCha20-Poly1305 fails only on inputs of 256 GiB and more");
        SealedSecret { sealing_key_id: key_id(&key), nonce: ByteBuf::from(nonce), sealed: ByteBuf::from(sealed) }
    }

    /// Opens a sealed secret.
    pub fn open(&self, owner: &str, sealed: &SealedSecret) -> Result<String, ModelError> {
        let failed = |why: &str| ModelError::Secret(format!("the secret of {owner} can't be opened: {why}"));
        let key = self.keys.iter().find(|key| key_id(key) == sealed.sealing_key_id);
        let key = key.ok_or_else(|| failed("it was sealed under another rpc_secret; configure the same one on all nodes"))?;
        let nonce: [u8; 24] = sealed.nonce.as_slice().try_into().map_err(|_| failed("its nonce is damaged"))?;
        let payload = Payload { msg: &sealed.sealed, aad: owner.as_bytes() };
        let bytes = XChaCha20Poly1305::new(&(*key).into()).decrypt(&XNonce::from(nonce), payload).map_err(|_| failed("it is damaged"))?;
        String::from_utf8(bytes).map_err(|_| failed("it is damaged"))
    }
}

#[cfg(test)]
mod tests {
    use garage_util::runtime::Runtime;

    use super::Sealer;

    #[test]
    fn a_secret_opens_only_for_its_owner_and_under_its_key() {
        let (runtime, _tasks) = Runtime::real();
        let sealer = Sealer::new(&[1; 32], &[]);
        let sealed = sealer.seal(&runtime, "GK1", "hush");
        assert_eq!(sealer.open("GK1", &sealed).unwrap(), "hush");
        assert!(sealer.open("GK2", &sealed).is_err());
        assert!(Sealer::new(&[2; 32], &[]).open("GK1", &sealed).is_err());
        assert_eq!(Sealer::new(&[2; 32], &[[1; 32]]).open("GK1", &sealed).unwrap(), "hush", "a former secret still opens");
        let mut damaged = sealed.clone();
        damaged.sealed[0] ^= 1;
        assert!(sealer.open("GK1", &damaged).is_err());
    }
}
