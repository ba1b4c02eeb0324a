//! The syntaxes of single values: SIZE, DURATION, LISTEN, HOSTADDR, PEER, subnets. Text in, value or a sentence out.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

/// A text does not have the form that is needed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0)]
pub struct ParseValueError(pub String);

fn refuse<T>(message: String) -> Result<T, ParseValueError> {
    Err(ParseValueError(message))
}

/// Units of SIZE in lower case, without the final `b`.
const SIZE_UNITS: [(&str, u64); 13] = [
    ("", 1),
    ("k", 1_000),
    ("m", 1_000_000),
    ("g", 1_000_000_000),
    ("t", 1_000_000_000_000),
    ("p", 1_000_000_000_000_000),
    ("e", 1_000_000_000_000_000_000),
    ("ki", 1 << 10),
    ("mi", 1 << 20),
    ("gi", 1 << 30),
    ("ti", 1 << 40),
    ("pi", 1 << 50),
    ("ei", 1 << 60),
];

/// Bytes from a SIZE text: digits alone, or a number, an optional space and a unit (`10G`, `1.5 TiB`); units ignore case.
///
/// Errors: no number, a fraction without unit, an unknown unit, more than `u64::MAX` bytes.
pub fn parse_size(text: &str) -> Result<u64, ParseValueError> {
    let invalid = || {
        ParseValueError(format!(
            "invalid capacity value {text:?}: a number of bytes, or a number with a unit (B, kB, MB, GB, TB, PB, EB, KiB, MiB, GiB, TiB, PiB, EiB), such as \"10G\" or \"1.5 TiB\""
        ))
    };
    let trimmed = text.trim();
    let unit_start = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(unit_start);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    if unit.is_empty() {
        return number.parse().map_err(|_| invalid());
    }
    let scale = SIZE_UNITS.iter().find(|(name, _)| *name == unit.strip_suffix('b').unwrap_or(&unit)).ok_or_else(invalid)?.1;
    scale_decimal(number, scale).ok_or_else(invalid)
}

/// `number` (digits with at most one dot) times `scale`, rounded down; exact, since a float loses bytes above 2^53.
fn scale_decimal(number: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits_only = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits_only(whole) || !digits_only(fraction) {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // Twenty digits after the dot already name less than a byte of the largest unit.
    let fraction = &fraction[..fraction.len().min(18)];
    let below: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let total = whole.checked_mul(scale as u128)?.checked_add(below * scale as u128 / 10u128.pow(fraction.len() as u32))?;
    u64::try_from(total).ok()
}

/// Units of DURATION in nanoseconds. `m` is a minute and `M` a month, so case counts.
const DURATION_UNITS: [(&[&str], u64); 9] = [
    (&["us", "usec", "µs", "μs"], 1_000),
    (&["ms", "msec"], 1_000_000),
    (&["s", "sec", "second", "seconds"], 1_000_000_000),
    (&["m", "min", "minute", "minutes"], 60 * 1_000_000_000),
    (&["h", "hr", "hour", "hours"], 3_600 * 1_000_000_000),
    (&["d", "day", "days"], 86_400 * 1_000_000_000),
    (&["w", "week", "weeks"], 7 * 86_400 * 1_000_000_000),
    // 30.44 and 365.25 days.
    (&["M", "month", "months"], 2_630_016 * 1_000_000_000),
    (&["y", "year", "years"], 31_557_600 * 1_000_000_000),
];

/// A DURATION text as systemd writes time spans: a sum of numbers with units (`6h`, `1d 12h`, `15 days 20 seconds`), no unit means seconds,
/// a unit alone means one, `infinity` is the longest there is.
///
/// Errors: empty text, an unknown unit, an exponent, more than `u64::MAX` nanoseconds (584 years).
pub fn parse_duration(text: &str) -> Result<Duration, ParseValueError> {
    let invalid = || {
        ParseValueError(format!(
            "invalid duration {text:?}: a sum of numbers with units us, ms, s, min, h, d, w, M (month), y, such as \"6h\" or \"1d 12h\""
        ))
    };
    let mut rest = text.trim();
    if rest == "infinity" {
        return Ok(Duration::MAX);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total_ns: u64 = 0;
    while !rest.is_empty() {
        let unit_start = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(unit_start);
        let after = after.trim_start();
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.' || c.is_whitespace()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let scale = match unit {
            "" => 1_000_000_000,
            unit => DURATION_UNITS.iter().find(|(names, _)| names.contains(&unit)).ok_or_else(invalid)?.1,
        };
        let term = scale_decimal(if number.is_empty() { "1" } else { number }, scale).ok_or_else(invalid)?;
        total_ns = total_ns.checked_add(term).ok_or_else(invalid)?;
        rest = after.trim_start();
    }
    Ok(Duration::from_nanos(total_ns))
}

/// Where an HTTP server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A Unix socket; a file already there is removed first.
    Unix(PathBuf),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => address.fmt(f),
            Listen::Unix(path) => path.display().fmt(f),
        }
    }
}

/// A LISTEN text: `ip:port`, or a path that starts with `/`.
pub fn parse_listen(text: &str) -> Result<Listen, ParseValueError> {
    if text.starts_with('/') {
        return Ok(Listen::Unix(text.into()));
    }
    text.parse().map(Listen::Tcp).map_err(|_| {
        ParseValueError(format!(
            "invalid listen address {text:?}: ip:port (such as \"0.0.0.0:3900\" or \"[::]:3900\"), or a path that starts with /"
        ))
    })
}

/// A SOCKADDR text: `ip:port` or `[ip6]:port`, no host name.
pub(super) fn parse_socket_addr(text: &str) -> Result<SocketAddr, ParseValueError> {
    text.parse().map_err(|_| {
        ParseValueError(format!("invalid address {text:?}: ip:port or [ip6]:port, such as \"[::]:3901\"; host names cannot be used here"))
    })
}

/// A host, by address or name, and a port; a name is resolved when it is used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostAddr {
    /// A literal address without brackets, or a host name.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl HostAddr {
    /// The socket address, if the host is a literal address.
    pub fn literal(&self) -> Option<SocketAddr> {
        self.host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, self.port))
    }
}

impl fmt::Display for HostAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') { write!(f, "[{}]:{}", self.host, self.port) } else { write!(f, "{}:{}", self.host, self.port) }
    }
}

impl From<SocketAddr> for HostAddr {
    fn from(address: SocketAddr) -> Self {
        HostAddr { host: address.ip().to_string(), port: address.port() }
    }
}

/// A HOSTADDR text: `ip:port`, `[ip6]:port` or `hostname:port`.
pub fn parse_host_addr(text: &str) -> Result<HostAddr, ParseValueError> {
    let invalid = || ParseValueError(format!("invalid address {text:?}: ip:port, [ip6]:port or hostname:port"));
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address.into());
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(invalid)?;
    let host_fits =
        !host.is_empty() && host.len() <= 253 && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    match port.parse() {
        Ok(port) if host_fits => Ok(HostAddr { host: host.into(), port }),
        _ => Err(invalid()),
    }
}

/// A node's id and where to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddr {
    /// The id: its public key.
    pub id: [u8; 32],
    /// Where it listens.
    pub address: HostAddr,
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", crate::id::to_hex(&self.id), self.address)
    }
}

/// A PEER text: `<64 hex digits>@<HOSTADDR>`.
pub fn parse_peer(text: &str) -> Result<PeerAddr, ParseValueError> {
    let Some((id, address)) = text.split_once('@') else {
        return refuse(format!("invalid peer {text:?}: <node id of 64 hex digits>@<host>:<port>, as `garage node id` prints it"));
    };
    match crate::id::parse_id32(id) {
        Ok(id) => Ok(PeerAddr { id, address: parse_host_addr(address)? }),
        Err(_) => refuse(format!(
            "invalid peer {text:?}: the node id before @ has {} characters, needs the full 64 hex digits",
            id.chars().count()
        )),
    }
}

/// A range of addresses, its host bits zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// The first address.
    pub network: IpAddr,
    /// Bits that all addresses share.
    pub prefix_len: u8,
}

impl Subnet {
    /// Whether `address` lies in it; the families must be the same.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address) {
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => truncated(address, self.prefix_len) == self.network,
            _ => false,
        }
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix_len)
    }
}

/// A CIDR text, `10.0.0.0/8`; the flag says whether host bits were set and dropped.
pub fn parse_subnet(text: &str) -> Result<(Subnet, bool), ParseValueError> {
    let invalid = || ParseValueError(format!("invalid subnet {text:?}: <address>/<prefix length>, such as \"10.0.0.0/8\" or \"fd00::/8\""));
    let (address, prefix_len) = text.split_once('/').ok_or_else(invalid)?;
    let address: IpAddr = address.parse().map_err(|_| invalid())?;
    let prefix_len: u8 = prefix_len.parse().map_err(|_| invalid())?;
    if prefix_len > if address.is_ipv4() { 32 } else { 128 } {
        return Err(invalid());
    }
    let network = truncated(address, prefix_len);
    Ok((Subnet { network, prefix_len }, network != address))
}

fn truncated(address: IpAddr, prefix_len: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - prefix_len as u32).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - prefix_len as u32).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}
