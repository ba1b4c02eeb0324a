//! Signed requests: the account's key, and what it signs.
//!
//! Source: RFC 7515 (JWS), RFC 7518 §3.4 (ES256), RFC 7638 (thumbprint), RFC 8555 §6.2.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// How a request names its sender.
#[derive(Clone, Copy)]
pub(crate) enum Sender<'a> {
    /// By the key itself: before there is an account.
    Key,
    /// By the account's URL.
    Account(&'a str),
}

/// The key of an account: ECDSA on P-256.
pub(crate) struct AccountKey {
    pkcs8: Vec<u8>,
    pair: EcdsaKeyPair,
}

/// The key can't be made or read.
#[derive(Debug, thiserror::Error)]
#[error("the account's key can't be {0}")]
pub(crate) struct KeyError(&'static str);

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl AccountKey {
    pub(crate) fn generate() -> Result<AccountKey, KeyError> {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).map_err(|_| KeyError("made"))?;
        AccountKey::from_pkcs8(pkcs8.as_ref().to_vec())
    }

    fn from_pkcs8(pkcs8: Vec<u8>) -> Result<AccountKey, KeyError> {
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8, &SystemRandom::new()).map_err(|_| KeyError("read"))?;
        Ok(AccountKey { pkcs8, pair })
    }

    /// Reads what [`AccountKey::to_text`] wrote.
    pub(crate) fn from_text(text: &str) -> Result<AccountKey, KeyError> {
        AccountKey::from_pkcs8(URL_SAFE_NO_PAD.decode(text).map_err(|_| KeyError("read"))?)
    }
    /// The private key as text.
    pub(crate) fn to_text(&self) -> String {
        encoded(&self.pkcs8)
    }

    /// The two coordinates of the public key.
    fn coordinates(&self) -> (String, String) {
        // An uncompressed point: a byte 4, then two numbers of 32 bytes.
        let point = self.pair.public_key().as_ref();
        (encoded(&point[1..33]), encoded(&point[33..]))
    }

    /// What a proof holds of the key.
    pub(crate) fn thumbprint(&self) -> String {
        let (x, y) = self.coordinates();
        // The order and spelling of the members are part of the definition.
        encoded(Sha256::digest(format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#)))
    }

    /// The body of a request to `url`; without `payload` it only asks (POST-as-GET).
    pub(crate) fn sign(&self, sender: Sender<'_>, url: &str, nonce: &str, payload: Option<&Value>) -> Result<Vec<u8>, KeyError> {
        let mut header = json!({ "alg": "ES256", "nonce": nonce, "url": url });
        match sender {
            Sender::Key => {
                let (x, y) = self.coordinates();
                header["jwk"] = json!({ "crv": "P-256", "kty": "EC", "x": x, "y": y });
            }
            Sender::Account(account) => header["kid"] = json!(account),
        }
        let (protected, payload) = (encoded(header.to_string()), payload.map(|payload| encoded(payload.to_string())).unwrap_or_default());
        let signature = self.pair.sign(&SystemRandom::new(), format!("{protected}.{payload}").as_bytes()).map_err(|_| KeyError("used"))?;
        Ok(json!({ "protected": protected, "payload": payload, "signature": encoded(signature) }).to_string().into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use ring::signature::{ECDSA_P256_SHA256_FIXED, KeyPair, UnparsedPublicKey};
    use serde_json::{Value, json};

    use super::{AccountKey, Sender};

    fn decoded(value: &Value) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(value.as_str().unwrap()).unwrap()
    }

    #[test]
    fn a_signed_request_verifies_and_names_its_sender() {
        let key = AccountKey::from_text(&AccountKey::generate().unwrap().to_text()).unwrap();
        let body: Value =
            serde_json::from_slice(&key.sign(Sender::Account("https://a/1"), "https://a/new", "n", Some(&json!({}))).unwrap()).unwrap();
        let header: Value = serde_json::from_slice(&decoded(&body["protected"])).unwrap();
        assert_eq!((&header["kid"], &header["nonce"], &header["jwk"]), (&json!("https://a/1"), &json!("n"), &Value::Null));
        let signed = format!("{}.{}", body["protected"].as_str().unwrap(), body["payload"].as_str().unwrap());
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.pair.public_key().as_ref());
        public.verify(signed.as_bytes(), &decoded(&body["signature"])).unwrap();
        let asking: Value = serde_json::from_slice(&key.sign(Sender::Key, "https://a/new", "n", None).unwrap()).unwrap();
        assert_eq!(asking["payload"], "");
        assert_eq!(serde_json::from_slice::<Value>(&decoded(&asking["protected"])).unwrap()["jwk"]["crv"], "P-256");
    }

    #[test]
    fn a_thumbprint_is_a_sha_256() {
        let key = AccountKey::generate().unwrap();
        assert_eq!((key.thumbprint().len(), key.thumbprint()), (43, key.thumbprint()));
        assert!(AccountKey::from_text("nonsense").is_err());
    }
}
