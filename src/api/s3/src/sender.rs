//! Where a request came from: the peer, or whom a trusted proxy says that it speaks for.
//!
//! Invariant: what a client says of itself in `X-Forwarded-*` never counts, only what a trusted proxy adds.

use std::net::IpAddr;

use garage_api_common::{
    http::{Peer, TlsVersion},
    sigv4::AuthForm,
};
use garage_util::config::Subnet;
use http::HeaderMap;

/// Where a request came from, and how it proved who sent it.
#[derive(Debug, Clone)]
pub struct Sender {
    /// The client's address; `None`: it is on this machine.
    pub address: Option<IpAddr>,
    /// Whether nobody on the way could read it.
    pub is_encrypted: bool,
    /// The TLS it came over, where it was this server that spoke it.
    pub tls: Option<TlsVersion>,
    /// How it was signed.
    pub form: AuthForm,
    /// In milliseconds since 1970.
    pub signed_at_ms: Option<u64>,
}

/// Address and secrecy of a request that `peer` sent, over TLS if `secure`, with these headers.
pub fn origin(peer: Peer, secure: bool, headers: &HeaderMap, trusted: &[Subnet]) -> (Option<IpAddr>, bool) {
    let is_trusted = |address: IpAddr| trusted.iter().any(|subnet| subnet.contains(address));
    let peer = match peer {
        Peer::Tcp(address) => Some(address.ip().to_canonical()),
        Peer::Unix => None,
    };
    // Who may connect to a socket file is decided by whoever runs this machine, but only together with proxies at all.
    if !peer.map_or(!trusted.is_empty(), is_trusted) {
        return (peer, secure);
    }
    let mut client = peer;
    for name in listed(headers, "x-forwarded-for").into_iter().rev() {
        let Some(address) = address_of(&name) else { break };
        client = Some(address);
        if !is_trusted(address) {
            break;
        }
    }
    let scheme = listed(headers, "x-forwarded-proto").pop();
    (client, scheme.map_or(secure, |scheme| scheme.eq_ignore_ascii_case("https")))
}

/// The values of a header that may stand several times and hold lists, in order.
fn listed(headers: &HeaderMap, name: &str) -> Vec<String> {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty()).collect()
}

/// An address, with or without port.
fn address_of(text: &str) -> Option<IpAddr> {
    let socket = || text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    let address = text.parse().ok().or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok()).or_else(socket);
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use garage_api_common::http::Peer;
    use garage_util::config::parse_subnet;
    use http::{HeaderMap, HeaderValue};

    use super::origin;

    fn check(peer: Option<&str>, forwarded: &[&str], proto: Option<&str>, expected: (Option<&str>, bool)) {
        let trusted = [parse_subnet("10.0.0.0/8").unwrap().0];
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append("x-forwarded-for", HeaderValue::from_str(line).unwrap());
        }
        if let Some(proto) = proto {
            headers.insert("x-forwarded-proto", HeaderValue::from_str(proto).unwrap());
        }
        let peer = peer.map_or(Peer::Unix, |address| Peer::Tcp(address.parse().unwrap()));
        let expected = (expected.0.map(|address| address.parse().unwrap()), expected.1);
        assert_eq!(origin(peer, false, &headers, &trusted), expected, "{peer:?} {forwarded:?}");
    }

    #[test]
    fn only_a_trusted_proxy_speaks_for_others() {
        check(Some("192.0.2.1:1"), &["198.51.100.7"], Some("https"), (Some("192.0.2.1"), false));
        check(Some("10.0.0.1:1"), &["198.51.100.7"], Some("https"), (Some("198.51.100.7"), true));
        check(Some("10.0.0.1:1"), &[], None, (Some("10.0.0.1"), false));
        check(None, &["198.51.100.7:4000"], None, (Some("198.51.100.7"), false));
    }

    #[test]
    fn what_a_client_adds_itself_does_not_count() {
        // The client claims to be 203.0.113.9; the proxies add what they saw.
        check(Some("10.0.0.1:1"), &["203.0.113.9, 198.51.100.7", "10.1.1.1"], None, (Some("198.51.100.7"), false));
        check(Some("10.0.0.1:1"), &["nonsense, 10.1.1.1"], None, (Some("10.1.1.1"), false));
        check(Some("[::ffff:10.0.0.1]:1"), &["[2001:db8::1]"], Some("http"), (Some("2001:db8::1"), false));
    }
}
