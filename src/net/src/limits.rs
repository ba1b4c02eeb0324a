//! Every limit of the network layer, with its unit and what happens when it is reached.

use std::time::Duration;

/// Encoded header of one request or answer; larger is refused.
pub const HEADER_MAX_BYTES: usize = 4 * 1024;
/// Message in the header frame; larger is refused, use a body.
pub const PAYLOAD_MAX_BYTES: usize = 16 * 1024 * 1024;
/// One chunk of a body; the sender splits larger ones, the receiver refuses them.
pub const CHUNK_MAX_BYTES: usize = 16 * 1024 * 1024;
/// The sentence that explains why a body cannot go on; longer is cut.
pub const FAILURE_TEXT_MAX_BYTES: usize = 1024;
/// Name of a handler; longer is refused.
pub const KIND_MAX_BYTES: usize = 128;
/// One datagram; larger is dropped. Fits the smallest path that QUIC accepts.
pub const DATAGRAM_MAX_BYTES: usize = 1100;
/// Datagrams waiting to be sent or handed over, a connection; the oldest are dropped.
pub const DATAGRAM_BUFFER_BYTES: usize = 256 * 1024;

/// UDP payload: above this, segmentation offload loses packets silently on some kernels.
pub const UDP_PAYLOAD_MAX_BYTES: u16 = 6500;
/// Socket buffers asked for; the kernel may give less.
pub const SOCKET_BUFFER_BYTES: usize = 8 * 1024 * 1024;
/// Bytes sent to a new peer before the path's capacity is known: a block and its frames, so that a first PUT of 1 MiB to a far place
/// takes the two round trips it is meant to take. Paced, so no burst of that size leaves at once.
pub const INITIAL_CONGESTION_WINDOW_BYTES: u64 = 1536 * 1024;

/// Requests of one peer at once; more wait at the peer.
pub const STREAMS_PER_PEER_MAX: u32 = 1024;
/// Connections whose peer has not proven anything yet; more are refused.
pub const HALF_OPEN_MAX: usize = 256;
/// Half-open connections from which on a dialler must first show that it receives at its address.
pub const HALF_OPEN_VALIDATE: usize = 32;
/// Peers at once; more are refused.
pub const CONNECTIONS_MAX: usize = 1024;
/// Payloads up to this size are taken without waiting for room in the receive budget.
pub const SMALL_PAYLOAD_MAX_BYTES: usize = 64 * 1024;
/// Payloads from this size on are compressed on a long path; what is smaller leaves in one burst.
pub const PACK_MIN_BYTES: usize = 32 * 1024;
/// Round-trip time from which on a path is long: below it, the bytes of a message take less time than compressing them.
pub const PACK_RTT_MIN: Duration = Duration::from_millis(5);
/// Pieces of a stream gathered into one read.
pub const READ_PIECES_MAX: usize = 32;

/// What a peer may send before it has proven anything.
pub const UNPROVEN_WINDOW_BYTES: u32 = 16 * 1024;

/// Receive budget of a node if the config names none.
pub const RPC_BUFFER_DEFAULT_BYTES: u64 = 256 * 1024 * 1024;
/// Receive window of one connection: 200 ms at 1 Gbit/s, rounded up.
pub const CONNECTION_WINDOW_MAX_BYTES: u64 = 32 * 1024 * 1024;
/// A connection gets this much however many share the budget.
pub const CONNECTION_WINDOW_MIN_BYTES: u64 = 1024 * 1024;
/// Receive window of one stream: a stalled reader must not hold the whole connection's.
pub const STREAM_WINDOW_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// TLS and the proof of the secret, both sides.
pub const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);
/// One attempt to dial: shorter than what a listener allows, so that a node that starts late is tried again soon.
pub const DIAL_TIME_MAX: Duration = Duration::from_secs(3);
/// Round-trip time assumed of a new peer; a lost first packet is repeated after three times this.
pub const INITIAL_RTT: Duration = Duration::from_millis(50);
/// A request's head must arrive within this time of its stream's opening.
pub const HEAD_TIME_MAX: Duration = Duration::from_secs(60);
/// A peer not heard of for so long is gone.
pub const IDLE_TIME_MAX: Duration = Duration::from_secs(5);
/// At most one stateless reset is sent in this time.
pub const RESET_INTERVAL_MIN: Duration = Duration::from_millis(5);
/// How often a quiet connection is probed.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_millis(1500);
/// The longest deadline a caller can ask for; longer is cut.
pub const CALL_TIME_MAX: Duration = Duration::from_secs(24 * 3600);
/// A connection that lost against another of the same pair is closed when its calls end, and at the latest after this time.
pub const RETIRED_TIME_MAX: Duration = Duration::from_secs(600);
/// Events kept for a receiver that lags.
pub const EVENTS_KEPT: usize = 1024;

const _: () = assert!(DATAGRAM_MAX_BYTES < 1162, "QUIC's smallest packet less its overhead");
const _: () = assert!(KIND_MAX_BYTES * 2 < HEADER_MAX_BYTES);
const _: () = assert!(STREAM_WINDOW_MAX_BYTES * 4 <= CONNECTION_WINDOW_MAX_BYTES);
const _: () = assert!(KEEP_ALIVE_INTERVAL.as_millis() * 3 < IDLE_TIME_MAX.as_millis());
