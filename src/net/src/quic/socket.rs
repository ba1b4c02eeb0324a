//! UDP sockets and the endpoints on them: one to listen on, others to dial from where that one cannot.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use quinn::{Endpoint, EndpointConfig, ServerConfig, TokioRuntime};
use socket2::{Domain, Protocol, Socket, Type};

use super::BindError;
use crate::limits::SOCKET_BUFFER_BYTES;

/// An endpoint on `address`; with `server` it also listens.
pub fn open(address: SocketAddr, config: EndpointConfig, server: Option<ServerConfig>) -> Result<Endpoint, BindError> {
    let endpoint = || Endpoint::new(config, server, udp_socket(address)?, Arc::new(TokioRuntime));
    endpoint().map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::Taken { address },
        _ => BindError::Socket { address, source },
    })
}

fn udp_socket(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // Both families on one port, whatever the system's default is.
        socket.set_only_v6(false)?;
    }
    // The kernel cuts these to its own limit; less only means more repeated packets.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Whether packets to `to` can leave through a socket bound to `bound`, without tying them to one source address against the operator's wish.
pub fn reaches(bound: SocketAddr, tied: bool, to: SocketAddr) -> bool {
    let family = match bound.ip() {
        IpAddr::V4(_) => to.is_ipv4(),
        IpAddr::V6(ip) => to.is_ipv6() || ip.is_unspecified(),
    };
    family && (tied || bound.ip().is_unspecified())
}

/// Any port of the family that reaches `to`.
pub fn any_for(to: SocketAddr) -> SocketAddr {
    match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::reaches;

    #[test]
    fn a_socket_on_all_addresses_reaches_its_families_and_one_on_a_single_address_only_if_told_so() {
        let check = |bound: &str, tied, to: &str, expected| {
            assert_eq!(reaches(bound.parse().unwrap(), tied, to.parse().unwrap()), expected, "{bound} {tied} {to}");
        };
        check("[::]:3901", false, "10.0.0.1:3901", true);
        check("[::]:3901", false, "[2001:db8::1]:3901", true);
        check("0.0.0.0:3901", false, "10.0.0.1:3901", true);
        check("0.0.0.0:3901", false, "[2001:db8::1]:3901", false);
        check("10.0.0.2:3901", false, "10.0.0.1:3901", false);
        check("10.0.0.2:3901", true, "10.0.0.1:3901", true);
        check("[2001:db8::2]:3901", true, "10.0.0.1:3901", false);
    }
}
