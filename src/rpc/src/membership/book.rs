//! What this node knows of its peers: where they are, whether they can be reached, what they said. Pure: times come in.
//!
//! Invariants:
//! - an address is never forgotten while it is the only one;
//! - a peer that is neither connected nor being dialled is dialled again, after a back-off that grows to its bound;
//! - what one peer says of another never replaces newer words of that other.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use garage_net::{NodeId, backoff::Backoff};
use garage_util::encoding::Stored;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::announcement::{Announcement, PeerRecord};
use crate::{
    cluster::StoreMark,
    limits::{ADDRESSES_PER_PEER_MAX, DIAL_BACKOFF_MAX, DIAL_BACKOFF_MIN, HEARD_RECENTLY, PEERS_MAX, REFUSALS_MAX},
    peers::LatencyWindow,
    status::StoreRegression,
};

/// The peers as they are kept over a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPeers {
    /// The last life of this node in the gossip.
    #[serde(default)]
    pub generation: u64,
    /// Who was known, and where.
    pub peers: Vec<SavedPeer>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPeer {
    /// Who.
    pub node: NodeId,
    /// `host:port`, most promising first.
    pub addresses: Vec<String>,
    /// The highest store mark it acknowledged with, as far as it was saved.
    #[serde(default)]
    pub store_mark: Option<StoreMark>,
}

impl Stored for SavedPeers {
    const WHAT: &'static str = "peer list";
}

/// What came of news.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Learned {
    /// A node was not known before.
    pub is_new_node: bool,
    /// What is saved changed.
    pub is_worth_saving: bool,
}

/// A peer to dial now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dial {
    /// Whom.
    pub node: NodeId,
    /// Where, in this order.
    pub addresses: Vec<String>,
}

/// One peer.
#[derive(Debug)]
pub struct Peer {
    /// `host:port`, the last that worked first.
    pub addresses: Vec<String>,
    /// What it said of itself last.
    pub announcement: Option<Announcement>,
    /// Where it is connected, if it is.
    pub link: Option<SocketAddr>,
    /// Measured round-trip time of that connection.
    pub rtt: Option<Duration>,
    /// Whether the gossip takes it for dead.
    pub is_suspected: bool,
    /// When it was heard last: an answer, a call or a datagram.
    pub heard_at: Option<Instant>,
    /// The same by the wall clock, for people.
    pub heard_at_ms: Option<u64>,
    /// Why the last connection was refused, until one succeeds.
    pub refused: Option<String>,
    /// How far its wall clock is ahead of this node's, in milliseconds.
    pub clock_ahead_ms: Option<i64>,
    /// Its answer times.
    pub latencies: LatencyWindow,
    /// The highest store mark it acknowledged with.
    pub store_mark: Option<StoreMark>,
    /// The same when the present connection came up: what the peer had acknowledged before it.
    pub store_mark_at_link: Option<StoreMark>,
    /// How its store differed from that at the last handshake.
    pub store_regression: Option<StoreRegression>,
    backoff: Backoff,
    dial_at: Instant,
    is_dialling: bool,
}

impl Peer {
    fn new(now: Instant) -> Peer {
        Peer {
            addresses: Vec::new(),
            announcement: None,
            link: None,
            rtt: None,
            is_suspected: false,
            heard_at: None,
            heard_at_ms: None,
            refused: None,
            clock_ahead_ms: None,
            latencies: LatencyWindow::default(),
            store_mark: None,
            store_mark_at_link: None,
            store_regression: None,
            backoff: Backoff::new(DIAL_BACKOFF_MIN, DIAL_BACKOFF_MAX),
            dial_at: now,
            is_dialling: false,
        }
    }

    /// Whether it can be expected to answer: connected, and not taken for dead while silent.
    pub fn is_up(&self, now: Instant) -> bool {
        let heard_recently = self.heard_at.is_some_and(|at| now.saturating_duration_since(at) < HEARD_RECENTLY);
        self.link.is_some() && (!self.is_suspected || heard_recently)
    }

    fn add_address(&mut self, address: &str, is_first: bool) -> bool {
        let known = self.addresses.iter().position(|known| known == address);
        match known {
            Some(index) if is_first && index != 0 => {
                let address = self.addresses.remove(index);
                self.addresses.insert(0, address);
                true
            }
            Some(_) => false,
            None => {
                let index = if is_first { 0 } else { self.addresses.len().min(ADDRESSES_PER_PEER_MAX - 1) };
                self.addresses.insert(index, address.to_string());
                self.addresses.truncate(ADDRESSES_PER_PEER_MAX);
                true
            }
        }
    }
}

/// All of them.
#[derive(Debug)]
pub struct PeerBook {
    local: NodeId,
    peers: BTreeMap<NodeId, Peer>,
    /// Refused connections of which only the address is known.
    refusals: BTreeMap<SocketAddr, String>,
}

impl PeerBook {
    /// The book of `local`, which is no peer of its own.
    pub fn new(local: NodeId) -> PeerBook {
        PeerBook { local, peers: BTreeMap::new(), refusals: BTreeMap::new() }
    }

    /// The peers, by node.
    pub fn peers(&self) -> &BTreeMap<NodeId, Peer> {
        &self.peers
    }
    /// One of them.
    pub fn peer(&self, node: NodeId) -> Option<&Peer> {
        self.peers.get(&node)
    }
    /// One of them, to note a measurement.
    pub fn peer_mut(&mut self, node: NodeId) -> Option<&mut Peer> {
        self.peers.get_mut(&node)
    }
    /// Addresses whose node is not known, and why they were refused.
    pub fn refusals(&self) -> &BTreeMap<SocketAddr, String> {
        &self.refusals
    }

    /// Takes what was configured, saved, or told by a peer.
    pub fn learn(&mut self, record: PeerRecord, now: Instant) -> Learned {
        if record.node == self.local {
            return Learned::default();
        }
        let record = record.trimmed();
        let is_new_node = !self.peers.contains_key(&record.node);
        if is_new_node && PEERS_MAX <= self.peers.len() {
            tracing::warn!(node = %record.node, "more peers than this node keeps; ignored");
            return Learned::default();
        }
        let peer = self.peers.entry(record.node).or_insert_with(|| Peer::new(now));
        let mut is_changed = is_new_node;
        let advertised = record.announcement.as_ref().and_then(|said| said.public_address.clone());
        let is_news = match (&record.announcement, &peer.announcement) {
            (Some(said), Some(known)) => said.is_newer_than(known),
            (said, _) => said.is_some(),
        };
        if is_news {
            peer.announcement = record.announcement;
            if let Some(address) = advertised {
                // Where a node says it wants to be dialled comes first, unless it is connected elsewhere already.
                is_changed |= peer.add_address(&address, peer.link.is_none());
            }
        }
        for address in &record.addresses {
            if peer.add_address(address, false) {
                is_changed = true;
                // A new address is worth a try at once.
                peer.backoff.reset();
                peer.dial_at = now;
            }
        }
        Learned { is_new_node, is_worth_saving: is_changed }
    }

    /// A connection is up. Of a node that is not known nothing is kept: it may be a client.
    pub fn connected(&mut self, node: NodeId, address: SocketAddr, now: Instant, now_ms: u64) -> Learned {
        self.refusals.remove(&address);
        let Some(peer) = self.peers.get_mut(&node) else { return Learned::default() };
        if peer.link.replace(address).is_none() {
            peer.store_mark_at_link = peer.store_mark;
        }
        peer.refused = None;
        peer.is_suspected = false;
        peer.backoff.reset();
        (peer.heard_at, peer.heard_at_ms) = (Some(now), Some(now_ms));
        let is_worth_saving = peer.add_address(&address.to_string(), true);
        Learned { is_new_node: false, is_worth_saving }
    }

    /// A connection is down; a peer is dialled again at once. Whether it was one.
    pub fn disconnected(&mut self, node: NodeId, now: Instant) -> bool {
        let Some(peer) = self.peers.get_mut(&node) else { return false };
        peer.link = None;
        peer.rtt = None;
        peer.dial_at = now;
        true
    }

    /// A connection was refused, by either side.
    pub fn refused(&mut self, address: SocketAddr, node: Option<NodeId>, reason: String) {
        let text = address.to_string();
        let by_address = || self.peers.iter().find(|(_, peer)| peer.addresses.contains(&text)).map(|(node, _)| *node);
        let known = node.filter(|node| self.peers.contains_key(node)).or_else(by_address);
        match known.and_then(|node| self.peers.get_mut(&node)) {
            Some(peer) if peer.link.is_none() => peer.refused = Some(reason),
            Some(_) => {}
            None if self.refusals.len() < REFUSALS_MAX || self.refusals.contains_key(&address) => {
                drop(self.refusals.insert(address, reason))
            }
            None => {}
        }
    }

    /// The gossip changed its mind about a node.
    pub fn suspected(&mut self, node: NodeId, is_suspected: bool) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.is_suspected = is_suspected;
        }
    }

    /// Something came from a node.
    pub fn heard(&mut self, node: NodeId, now: Instant, now_ms: u64) {
        if let Some(peer) = self.peers.get_mut(&node) {
            (peer.heard_at, peer.heard_at_ms) = (Some(now), Some(now_ms));
        }
    }

    /// Up to `max_count` peers whose time to be dialled has come; each then counts as being dialled.
    pub fn due_dials(&mut self, now: Instant, max_count: usize) -> Vec<Dial> {
        let due = self.peers.iter_mut().filter(|(_, peer)| peer.link.is_none() && !peer.is_dialling && peer.dial_at <= now);
        let mut due: Vec<_> = due.filter(|(_, peer)| !peer.addresses.is_empty()).collect();
        due.sort_by_key(|(_, peer)| peer.dial_at);
        due.truncate(max_count);
        due.into_iter()
            .map(|(node, peer)| {
                peer.is_dialling = true;
                Dial { node: *node, addresses: peer.addresses.clone() }
            })
            .collect()
    }

    /// When the next dial is due; `None`: nobody is to be dialled.
    pub fn next_dial_at(&self) -> Option<Instant> {
        let waiting = self.peers.values().filter(|peer| peer.link.is_none() && !peer.is_dialling && !peer.addresses.is_empty());
        waiting.map(|peer| peer.dial_at).min()
    }

    /// A dial ended; after a failure the next one waits.
    pub fn dialled(&mut self, node: NodeId, failure: Option<String>, now: Instant, random: u64) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.is_dialling = false;
        match failure {
            // The event of the connection may be still on its way: wait for it before dialling again.
            None => peer.dial_at = now + DIAL_BACKOFF_MIN,
            Some(reason) => {
                peer.dial_at = now + peer.backoff.next_delay(random);
                if peer.link.is_none() {
                    peer.refused = Some(reason);
                }
            }
        }
    }

    /// Everything that is worth telling a peer.
    pub fn records(&self) -> Vec<PeerRecord> {
        let record = |(node, peer): (&NodeId, &Peer)| PeerRecord {
            node: *node,
            addresses: peer.addresses.clone(),
            announcement: peer.announcement.clone(),
        };
        self.peers.iter().map(record).collect()
    }

    /// What is kept over a restart.
    pub fn saved(&self, generation: u64) -> SavedPeers {
        let saved =
            |(node, peer): (&NodeId, &Peer)| SavedPeer { node: *node, addresses: peer.addresses.clone(), store_mark: peer.store_mark };
        SavedPeers { generation, peers: self.peers.iter().map(saved).collect() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use garage_net::NodeId;
    use tokio::time::Instant;

    use super::{PeerBook, PeerRecord};
    use crate::limits::{ADDRESSES_PER_PEER_MAX, DIAL_BACKOFF_MAX, HEARD_RECENTLY};

    const ME: NodeId = NodeId([0; 32]);
    const PEER: NodeId = NodeId([1; 32]);

    fn record(address: &str) -> PeerRecord {
        PeerRecord { node: PEER, addresses: vec![address.to_string()], announcement: None }
    }

    #[test]
    fn a_peer_that_cannot_be_reached_is_dialled_for_ever_with_growing_waits() {
        let (mut book, mut now) = (PeerBook::new(ME), Instant::now());
        assert!(book.learn(record("a:1"), now).is_new_node);
        for _ in 0..20 {
            let dials = book.due_dials(now, 10);
            assert_eq!(dials.len(), 1);
            assert!(book.due_dials(now, 10).is_empty(), "one dial at a time");
            book.dialled(PEER, Some("silence".into()), now, u64::MAX);
            let next = book.next_dial_at().unwrap();
            assert!(now < next && next <= now + DIAL_BACKOFF_MAX);
            now = next;
        }
        let learned = book.learn(record("b:2"), now + Duration::from_millis(1));
        assert!(learned.is_worth_saving && !learned.is_new_node);
        assert_eq!(book.due_dials(now + Duration::from_millis(1), 10)[0].addresses, ["a:1", "b:2"], "a new address is tried at once");
    }

    #[test]
    fn the_address_that_worked_comes_first_and_old_ones_are_forgotten_in_the_end() {
        let (mut book, now) = (PeerBook::new(ME), Instant::now());
        book.learn(record("a:1"), now);
        for port in 0..10 {
            assert!(book.connected(PEER, ([10, 0, 0, 1], port).into(), now, 0).is_worth_saving);
        }
        let addresses = &book.peer(PEER).unwrap().addresses;
        assert_eq!((addresses.len(), addresses[0].as_str()), (ADDRESSES_PER_PEER_MAX, "10.0.0.1:9"));
        assert!(!book.connected(PEER, ([10, 0, 0, 1], 9).into(), now, 0).is_worth_saving, "nothing new");
    }

    #[test]
    fn a_peer_is_up_while_connected_and_not_both_suspected_and_silent() {
        let (mut book, now) = (PeerBook::new(ME), Instant::now());
        book.learn(record("a:1"), now);
        let is_up = |book: &PeerBook, at| book.peer(PEER).unwrap().is_up(at);
        assert!(!is_up(&book, now));
        book.connected(PEER, ([10, 0, 0, 1], 1).into(), now, 0);
        book.suspected(PEER, true);
        assert!(is_up(&book, now), "its connection spoke a moment ago");
        assert!(!is_up(&book, now + HEARD_RECENTLY));
        book.suspected(PEER, false);
        assert!(is_up(&book, now + HEARD_RECENTLY));
        assert!(book.disconnected(PEER, now));
        assert!(!is_up(&book, now));
        assert!(!book.disconnected(NodeId([9; 32]), now), "a command line is no peer");
    }

    #[test]
    fn a_refusal_is_shown_at_its_node_or_else_at_its_address() {
        let (mut book, now) = (PeerBook::new(ME), Instant::now());
        book.learn(record("10.0.0.1:1"), now);
        book.refused(([10, 0, 0, 1], 1).into(), None, "wrong secret".into());
        assert_eq!(book.peer(PEER).unwrap().refused.as_deref(), Some("wrong secret"));
        book.refused(([10, 0, 0, 2], 1).into(), Some(NodeId([9; 32])), "wrong secret".into());
        assert_eq!(book.refusals().len(), 1);
        book.connected(PEER, ([10, 0, 0, 1], 1).into(), now, 0);
        assert_eq!(book.peer(PEER).unwrap().refused, None);
    }
}
