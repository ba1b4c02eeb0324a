//! The proof that a peer knows the cluster secret, bound to one connection.
//!
//! The dialler proves first; the listener checks, and only then proves in turn. The tag covers both roles, both identities and a value
//! that only the two ends of this very TLS session share, so a tag seen elsewhere, or one's own sent back, proves nothing.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::types::NodeId;

/// The name of the protocol version: ALPN, and the domain of the proof.
pub const PROTOCOL: &[u8] = b"garage/1";
/// Label of the TLS exporter value that a proof is bound to.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-garage-cluster-proof";
/// Bytes of that value.
pub const EXPORTER_BYTES: usize = 32;

/// Which end of the connection proves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// It opened the connection.
    Dialler,
    /// It accepted the connection.
    Listener,
}

/// The connection that a proof belongs to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Binding {
    /// The node that opened it.
    pub dialler: NodeId,
    /// The node that accepted it.
    pub listener: NodeId,
    /// The TLS exporter's value.
    pub exporter: [u8; EXPORTER_BYTES],
}

/// The tag by which `role` proves `secret` on the connection `binding`.
pub fn prove(secret: &[u8; 32], role: Role, binding: &Binding) -> [u8; 32] {
    tagger(secret, role, binding).finalize().into_bytes().into()
}

/// Whether `tag` is what `role` had to send. Constant time.
pub fn verify(secret: &[u8; 32], role: Role, binding: &Binding, tag: &[u8]) -> bool {
    tagger(secret, role, binding).verify_slice(tag).is_ok()
}

fn tagger(secret: &[u8; 32], role: Role, binding: &Binding) -> Hmac<Sha256> {
    let mut tagger = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    tagger.update(PROTOCOL);
    tagger.update(match role {
        Role::Dialler => b"D",
        Role::Listener => b"L",
    });
    // All parts have a fixed length, so nothing can move from one to the next.
    tagger.update(binding.dialler.as_bytes());
    tagger.update(binding.listener.as_bytes());
    tagger.update(&binding.exporter);
    tagger
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::{Binding, Role, prove, verify};
    use crate::types::NodeId;

    proptest! {
        #[test]
        fn a_tag_holds_for_its_secret_role_and_connection_only(
            secret: [u8; 32], dialler: [u8; 32], listener: [u8; 32], exporter: [u8; 32], flip in any::<u8>(), part in 0..5usize,
        ) {
            let binding = Binding { dialler: NodeId(dialler), listener: NodeId(listener), exporter };
            let tag = prove(&secret, Role::Dialler, &binding);
            prop_assert!(verify(&secret, Role::Dialler, &binding, &tag));
            prop_assert!(!verify(&secret, Role::Listener, &binding, &tag), "a reflected tag");

            let (mut secret, mut binding, mut tag) = (secret, binding, tag);
            let changed = match part {
                0 => &mut secret,
                1 => &mut binding.dialler.0,
                2 => &mut binding.listener.0,
                3 => &mut binding.exporter,
                _ => &mut tag,
            };
            changed[usize::from(flip) % 32] ^= 1 << (flip % 8);
            prop_assert!(!verify(&secret, Role::Dialler, &binding, &tag));
        }

        #[test]
        fn a_tag_of_another_length_is_refused(secret: [u8; 32], length in 0..32usize) {
            let binding = Binding { dialler: NodeId::default(), listener: NodeId::default(), exporter: [0; 32] };
            let tag = prove(&secret, Role::Dialler, &binding);
            prop_assert_eq!(verify(&secret, Role::Dialler, &binding, &tag[..length]), false);
        }
    }
}
