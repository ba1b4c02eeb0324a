//! Every limit of this crate, with its unit and what happens when it is reached.

use std::time::Duration;

/// Shortest wait for a peer's answer before the next peer is asked as well.
pub const HEDGE_DELAY_MIN: Duration = Duration::from_millis(20);
/// Longest such wait: a peer that is slower than this is hedged although it is always slow.
pub const HEDGE_DELAY_MAX: Duration = Duration::from_millis(500);
/// Hedge delay towards a peer of which neither latencies nor a round-trip time are known.
pub const HEDGE_DELAY_UNKNOWN: Duration = Duration::from_millis(100);
/// Latencies remembered of each peer, from which its p95 is taken.
pub const LATENCY_SAMPLES_MAX: usize = 64;
/// Bytes that writes past their quorum may hold for the copies still under way; past it, a write waits for its last copies.
pub const BACKGROUND_BYTES_MAX: usize = 64 << 20;
/// The least a background copy counts, so that many small ones are bounded as well.
pub const BACKGROUND_COPY_BYTES_MIN: usize = 4 << 10;
/// How long a call of the cluster's own housekeeping may take.
pub const CONTROL_CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// First wait before a failed dial is tried again; doubled each time.
pub const DIAL_BACKOFF_MIN: Duration = Duration::from_millis(250);
/// Longest wait between two dials of one peer.
pub const DIAL_BACKOFF_MAX: Duration = Duration::from_secs(10);
/// How long one dial may take.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Dials under way at once; further ones wait their turn.
pub const DIALS_MAX: usize = 16;
/// Addresses kept of one peer; the oldest observed one is forgotten first.
pub const ADDRESSES_PER_PEER_MAX: usize = 4;
/// Peers known at most; further ones are ignored, with a warning.
pub const PEERS_MAX: usize = 4_096;
/// Refusals remembered of addresses whose node is not known.
pub const REFUSALS_MAX: usize = 64;
/// Size of a gossip datagram at most.
pub const DATAGRAM_BYTES_MAX: usize = 1_200;
/// Datagrams waiting for the gossip task; further ones are dropped, as a network would.
pub const DATAGRAMS_WAITING_MAX: usize = 1_024;
/// Characters of a host name that are announced.
pub const HOSTNAME_CHARS_MAX: usize = 64;
/// Characters of a release's version that are announced.
pub const RELEASE_CHARS_MAX: usize = 32;
/// A peer heard within this time counts as alive although the gossip suspects it.
pub const HEARD_RECENTLY: Duration = Duration::from_secs(3);
/// How often peers and announcements are compared with one other node.
pub const EXCHANGE_PERIOD: Duration = Duration::from_secs(10);
/// How often this node's announcement is refreshed.
pub const ANNOUNCE_PERIOD: Duration = Duration::from_secs(10);
/// How long changes of the layout are gathered before they are pushed to the peers.
pub const LAYOUT_PUSH_DELAY: Duration = Duration::from_millis(50);
/// How long a tick waits for the durable ceiling of the clock to be renewed.
pub const CEILING_WAIT_MAX: Duration = Duration::from_secs(10);
/// Rounds tried to apply a layout before the operator is told to try again.
pub const APPLY_ROUNDS_MAX: usize = 12;
/// How long applying a layout may take.
pub const APPLY_TIMEOUT: Duration = Duration::from_secs(20);
