//! Where a server listens: TCP or a Unix socket, and a clear word when that is not possible.

use std::{
    fmt, io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
};

use garage_util::config::Listen;
use tokio::net::{TcpListener, TcpSocket, UnixListener, UnixStream};

use super::{Peer, stream::Accepted};
use crate::limits::LISTEN_BACKLOG_COUNT;

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// IP address and port.
    Tcp(SocketAddr),
    /// A socket file with its permission bits.
    Unix {
        /// The file.
        path: PathBuf,
        /// Permission bits, for example 0o222.
        mode: u32,
    },
}
impl ListenAddress {
    /// The address of a configuration, with the permission bits that this interface gives its socket file.
    pub fn of(listen: &Listen, unix_mode: u32) -> ListenAddress {
        match listen {
            Listen::Tcp(address) => ListenAddress::Tcp(*address),
            Listen::Unix(path) => ListenAddress::Unix { path: path.clone(), mode: unix_mode },
        }
    }
}
impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp(address) => address.fmt(f),
            ListenAddress::Unix { path, .. } => path.display().fmt(f),
        }
    }
}

/// Why a server cannot listen. `setting` is the key of the configuration that says where.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Something else listens there.
    #[error("{setting} = {address}: another program already listens there; stop it, or set {setting} to a free address")]
    Taken {
        /// The configuration key.
        setting: String,
        /// The address.
        address: String,
    },
    /// The address is not one of this machine.
    #[error("{setting} = {address}: this machine has no such address; set {setting} to one of its own, or to [::] for all")]
    NotOurs {
        /// The configuration key.
        setting: String,
        /// The address.
        address: String,
    },
    /// Not allowed.
    #[error("{setting} = {address}: not permitted; use a port from 1024 up, a directory that this user may write, or more rights")]
    Forbidden {
        /// The configuration key.
        setting: String,
        /// The address.
        address: String,
    },
    /// The socket's path is something that is not a socket.
    #[error("{setting} = {address}: a file is in the way; move it, or set {setting} to another path")]
    FileInTheWay {
        /// The configuration key.
        setting: String,
        /// The address.
        address: String,
    },
    /// Anything else.
    #[error("{setting} = {address}: {source}")]
    Other {
        /// The configuration key.
        setting: String,
        /// The address.
        address: String,
        /// What the system said.
        source: io::Error,
    },
}

/// A socket that accepts connections.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
}
#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix { listener: UnixListener, path: PathBuf },
}

impl Listener {
    /// Starts to listen. `setting` is the key of the configuration that holds the address, for the error.
    pub async fn bind(address: &ListenAddress, setting: &str) -> Result<Listener, BindError> {
        let bound = match address {
            ListenAddress::Tcp(address) => bind_tcp(*address).map(Socket::Tcp),
            ListenAddress::Unix { path, mode } => {
                bind_unix(path, *mode).await.map(|listener| Socket::Unix { listener, path: path.clone() })
            }
        };
        bound.map(|socket| Listener { socket }).map_err(|source| explain(source, address, setting))
    }

    /// The address it listens on; `None` for a Unix socket.
    pub fn local_address(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            Socket::Unix { .. } => None,
        }
    }

    pub(super) async fn accept(&self) -> io::Result<(Accepted, Peer)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Small answers must not wait for more bytes; a socket that cannot do it still works.
                let _ = stream.set_nodelay(true);
                Ok((Accepted::Tcp(stream), Peer::Tcp(address)))
            }
            Socket::Unix { listener, .. } => listener.accept().await.map(|(stream, _)| (Accepted::Unix(stream), Peer::Unix)),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Socket::Unix { path, .. } = &self.socket {
            // A socket file left behind is removed at the next start anyway.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Otherwise a restart has to wait for the old connections' last minutes.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(LISTEN_BACKLOG_COUNT)
}

async fn bind_unix(path: &Path, mode: u32) -> io::Result<UnixListener> {
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        // A socket that answers belongs to a living program; one that does not was left behind by a crash.
        if UnixStream::connect(path).await.is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

fn explain(source: io::Error, address: &ListenAddress, setting: &str) -> BindError {
    let (setting, address) = (setting.to_owned(), address.to_string());
    match source.kind() {
        io::ErrorKind::AddrInUse => BindError::Taken { setting, address },
        io::ErrorKind::AddrNotAvailable => BindError::NotOurs { setting, address },
        io::ErrorKind::PermissionDenied => BindError::Forbidden { setting, address },
        io::ErrorKind::AlreadyExists => BindError::FileInTheWay { setting, address },
        _ => BindError::Other { setting, address, source },
    }
}

#[cfg(test)]
mod tests {
    use super::{ListenAddress, Listener};

    #[tokio::test]
    async fn a_taken_port_is_named_with_its_setting_and_a_remedy() {
        let first = Listener::bind(&ListenAddress::Tcp(([127, 0, 0, 1], 0).into()), "s3_api.api_bind_addr").await.unwrap();
        let address = first.local_address().unwrap();
        let error = Listener::bind(&ListenAddress::Tcp(address), "s3_api.api_bind_addr").await.unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("set s3_api.api_bind_addr to a free address"), "{error}");
    }

    #[tokio::test]
    async fn a_stale_socket_file_is_replaced_a_living_one_and_a_plain_file_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s3.sock");
        let address = ListenAddress::Unix { path: path.clone(), mode: 0o222 };
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let living = Listener::bind(&address, "x").await.unwrap();
        assert!(Listener::bind(&address, "x").await.unwrap_err().to_string().contains("another program"));
        drop(living);
        assert!(!path.exists());
        std::fs::write(&path, "precious").unwrap();
        assert!(Listener::bind(&address, "x").await.unwrap_err().to_string().contains("in the way"));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }
}
