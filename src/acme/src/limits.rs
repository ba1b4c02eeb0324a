//! Every limit of certificates from an authority, with its unit and what happens when it is reached.

use std::time::Duration;

/// How long one order may take, and how long a node holds the right to it. Longer: it failed, and another node may order.
pub const ORDER_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a visitor's handshake waits for a first certificate. Longer: the connection closes; the order goes on.
pub const HANDSHAKE_WAIT: Duration = Duration::from_secs(60);
/// How often a handshake looks whether the order has ended.
pub const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// How long steps on rows may take. Longer: the handshake ends without certificate.
pub const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the authority may take to answer one request.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How often the authority is asked whether it got further.
pub const POLL_PERIOD: Duration = Duration::from_millis(500);
/// How many times at most.
pub const POLLS_MAX: usize = 120;
/// Nonces of one request that had grown old. More: the order fails.
pub const STALE_NONCES_MAX: usize = 5;
/// Bytes of an answer of the authority. More: the order fails.
pub const ANSWER_MAX_BYTES: usize = 1 << 20;
/// Orders that a node has under way at once. More wait.
pub const ORDERS_MAX: usize = 4;
/// Names that wait for a certificate on a node, those under way included. More: their handshakes end without one.
pub const WAITING_NAMES_MAX: usize = 100;
/// How long after a failed order the next one may begin; doubled with each further failure.
pub const RETRY_MIN: Duration = Duration::from_secs(60);
/// The longest such wait.
pub const RETRY_MAX: Duration = Duration::from_secs(24 * 3600);
/// How often a node looks for certificates to renew.
pub const RENEWAL_PERIOD: Duration = Duration::from_secs(3600);
/// Bytes of a host name; RFC 1035 §2.3.4.
pub const NAME_MAX_BYTES: usize = 253;
/// Certificates that a node keeps ready for handshakes. More: the ones least recently made ready are read again.
pub const READY_MAX: usize = 10_000;
