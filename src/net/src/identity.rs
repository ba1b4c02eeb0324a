//! A node's ed25519 key: who it is to all others. The one place that knows sodiumoxide.
//!
//! On disk, in the metadata directory: `node_key` (seed and public key, 64 raw bytes, mode 600) and `node_key.pub` (32 raw bytes).

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use sodiumoxide::crypto::sign;

use crate::types::NodeId;

/// File with seed and public key.
pub const NODE_KEY_FILE: &str = "node_key";
/// File with the public key alone.
pub const NODE_KEY_PUBLIC_FILE: &str = "node_key.pub";

/// PKCS#8 (RFC 8410) around a 32-byte ed25519 seed.
const PKCS8_PREFIX: [u8; 16] = [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Why the node has no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read or written.
    #[error("{}: cannot {action} the node key: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A file has another length than a key.
    #[error("{}: has {found_bytes} bytes, a node key file has {needed_bytes}; restore it from a backup, or move it away to start as a new node", path.display())]
    Length {
        /// Which file.
        path: PathBuf,
        /// Its size.
        found_bytes: usize,
        /// The right size.
        needed_bytes: usize,
    },
    /// The two halves, or the two files, do not belong together.
    #[error("{}: the public key does not belong to the secret one; restore both files from one backup", path.display())]
    Mismatch {
        /// Which file.
        path: PathBuf,
    },
    /// There is no key yet, and it was not to be made.
    #[error("{}: no node key there yet; start the node once", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The crypto library does not start.
    #[error("libsodium cannot be initialised on this system")]
    Library,
}

/// The secret key of a node. Not shown, not copied to logs.
#[derive(Clone)]
pub struct NodeKey {
    secret: sign::SecretKey,
    node: NodeId,
}

impl std::fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NodeKey(of {})", self.node.short())
    }
}

impl NodeKey {
    /// The key in `metadata_dir`, made there if it is missing. Blocks on the disk.
    pub fn load_or_create(metadata_dir: &Path) -> Result<NodeKey, IdentityError> {
        match NodeKey::load(metadata_dir) {
            Err(IdentityError::Missing { .. }) => NodeKey::create(metadata_dir),
            other => other,
        }
    }

    /// The key in `metadata_dir`. Blocks on the disk.
    pub fn load(metadata_dir: &Path) -> Result<NodeKey, IdentityError> {
        let path = metadata_dir.join(NODE_KEY_FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(IdentityError::Missing { path }),
            Err(source) => return Err(IdentityError::File { path, action: "read", source }),
        };
        let key = NodeKey::from_file(&path, &bytes)?;
        close_to_others(&path)?;
        key.match_public_file(metadata_dir)?;
        Ok(key)
    }

    /// A key that lives as long as the process, for clients.
    pub fn throw_away() -> Result<NodeKey, IdentityError> {
        sodiumoxide::init().map_err(|()| IdentityError::Library)?;
        let (public, secret) = sign::gen_keypair();
        Ok(NodeKey { secret, node: NodeId(public.0) })
    }

    /// The key that a seed determines.
    pub fn from_seed(seed: [u8; 32]) -> Result<NodeKey, IdentityError> {
        sodiumoxide::init().map_err(|()| IdentityError::Library)?;
        let (public, secret) = sign::keypair_from_seed(&sign::Seed(seed));
        Ok(NodeKey { secret, node: NodeId(public.0) })
    }

    /// The public half: who the node is.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The secret key as TLS libraries read it: PKCS#8, DER.
    pub fn to_pkcs8(&self) -> Vec<u8> {
        [&PKCS8_PREFIX[..], &self.secret.0[..32]].concat()
    }

    /// The seed, to derive other keys of this node from.
    pub(crate) fn seed(&self) -> &[u8] {
        &self.secret.0[..32]
    }

    fn from_file(path: &Path, bytes: &[u8]) -> Result<NodeKey, IdentityError> {
        let (Some((seed, public)), 64) = (bytes.split_first_chunk::<32>(), bytes.len()) else {
            return Err(IdentityError::Length { path: path.to_owned(), found_bytes: bytes.len(), needed_bytes: 64 });
        };
        let key = NodeKey::from_seed(*seed)?;
        if key.node.as_bytes() != public {
            return Err(IdentityError::Mismatch { path: path.to_owned() });
        }
        Ok(key)
    }

    fn create(metadata_dir: &Path) -> Result<NodeKey, IdentityError> {
        let key = NodeKey::throw_away()?;
        fs::create_dir_all(metadata_dir).map_err(|source| IdentityError::File {
            path: metadata_dir.to_owned(),
            action: "make the directory for",
            source,
        })?;
        // The public file first: a crash in between leaves one that the next start replaces, as no secret belongs to it yet.
        write_whole(&metadata_dir.join(NODE_KEY_PUBLIC_FILE), key.node.as_bytes(), 0o644)?;
        write_whole(&metadata_dir.join(NODE_KEY_FILE), &key.secret.0, 0o600)?;
        Ok(key)
    }

    fn match_public_file(&self, metadata_dir: &Path) -> Result<(), IdentityError> {
        match read_public(metadata_dir) {
            Ok(node) if node == self.node => Ok(()),
            Ok(_) => Err(IdentityError::Mismatch { path: metadata_dir.join(NODE_KEY_PUBLIC_FILE) }),
            Err(IdentityError::Missing { path }) => write_whole(&path, self.node.as_bytes(), 0o644),
            Err(error) => Err(error),
        }
    }
}

/// The id of the node whose `metadata_dir` this is, without its secret key. Blocks on the disk.
pub fn read_public(metadata_dir: &Path) -> Result<NodeId, IdentityError> {
    let path = metadata_dir.join(NODE_KEY_PUBLIC_FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(IdentityError::Missing { path }),
        Err(source) => return Err(IdentityError::File { path, action: "read", source }),
    };
    let found_bytes = bytes.len();
    bytes.try_into().map(NodeId).map_err(|_| IdentityError::Length { path, found_bytes, needed_bytes: 32 })
}

/// Writes beside, syncs, renames: the file is there whole or not at all.
fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> Result<(), IdentityError> {
    let beside = path.with_extension("new");
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&beside)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        path.parent().map_or(Ok(()), |parent| fs::File::open(parent)?.sync_all())
    };
    write().map_err(|source| IdentityError::File { path: path.to_owned(), action: "write", source })
}

/// A restored backup may have lost the mode; the secret is closed again.
fn close_to_others(path: &Path) -> Result<(), IdentityError> {
    let close = || match fs::metadata(path)?.permissions().mode() & 0o077 {
        0 => Ok(()),
        _ => fs::set_permissions(path, fs::Permissions::from_mode(0o600)),
    };
    close().map_err(|source| IdentityError::File { path: path.to_owned(), action: "close to other users", source })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::{IdentityError, NODE_KEY_FILE, NODE_KEY_PUBLIC_FILE, NodeKey, read_public};

    #[test]
    fn a_key_is_made_once_and_kept_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let meta = dir.path().join("meta");
        assert!(matches!(NodeKey::load(&meta), Err(IdentityError::Missing { .. })));
        let key = NodeKey::load_or_create(&meta).unwrap();
        assert_eq!(NodeKey::load_or_create(&meta).unwrap().node(), key.node());
        assert_eq!(read_public(&meta).unwrap(), key.node());
        let file = fs::metadata(meta.join(NODE_KEY_FILE)).unwrap();
        assert_eq!((file.len(), file.permissions().mode() & 0o777), (64, 0o600));
        assert_eq!(fs::metadata(meta.join(NODE_KEY_PUBLIC_FILE)).unwrap().len(), 32);
    }

    #[test]
    fn a_lost_mode_or_public_file_is_mended() {
        let dir = tempfile::tempdir().unwrap();
        let key = NodeKey::load_or_create(dir.path()).unwrap();
        fs::remove_file(dir.path().join(NODE_KEY_PUBLIC_FILE)).unwrap();
        fs::set_permissions(dir.path().join(NODE_KEY_FILE), fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(NodeKey::load_or_create(dir.path()).unwrap().node(), key.node());
        assert_eq!(read_public(dir.path()).unwrap(), key.node());
        assert_eq!(fs::metadata(dir.path().join(NODE_KEY_FILE)).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_of_another_length_or_another_key_is_refused_and_left_alone() {
        let other = NodeKey::throw_away().unwrap();
        for (file, bytes) in [
            (NODE_KEY_FILE, vec![7; 63]),
            (NODE_KEY_FILE, vec![7; 64]),
            (NODE_KEY_FILE, vec![]),
            (NODE_KEY_PUBLIC_FILE, vec![7; 33]),
            (NODE_KEY_PUBLIC_FILE, other.node().as_bytes().to_vec()),
        ] {
            let dir = tempfile::tempdir().unwrap();
            NodeKey::load_or_create(dir.path()).unwrap();
            fs::write(dir.path().join(file), &bytes).unwrap();
            let error = NodeKey::load_or_create(dir.path()).unwrap_err();
            assert!(error.to_string().contains(file), "{error}");
            assert_eq!(fs::read(dir.path().join(file)).unwrap(), bytes);
        }
    }
}
