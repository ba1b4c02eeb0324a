//! The gossip protocol: foca (SWIM) with our identities, codec and announcements. Sans I/O: datagrams and timers in, effects out.
//!
//! Invariants:
//! - a datagram counts only if the node it says it is from is the node whose connection it came through;
//! - what is sent fits a datagram;
//! - an announcement is passed on only while it is news.

use std::{
    collections::BTreeMap,
    num::{NonZeroU32, NonZeroUsize},
    sync::Arc,
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes};
use foca::{BroadcastHandler, Config, Foca, Header, Identity, Invalidates, Member, Notification, PeriodicParams, Timer};
use garage_net::NodeId;
use parking_lot::Mutex;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::announcement::Announcement;
use crate::limits::{DATAGRAM_BYTES_MAX, PEERS_MAX};

/// What an announcement may take of a datagram.
const ANNOUNCEMENT_BYTES_MAX: usize = DATAGRAM_BYTES_MAX - 300;
/// Members that updates are dimensioned for; more only means that news need a few more rounds.
const EXPECTED_NODES: NonZeroU32 = NonZeroU32::MIN.saturating_add(99);

/// One life of a node in the gossip: after a restart, or when it was taken for dead, it comes back with a higher generation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Life {
    /// The node.
    pub node: NodeId,
    /// Which of its lives.
    pub generation: u64,
}

impl Identity for Life {
    type Addr = NodeId;
    fn renew(&self) -> Option<Life> {
        Some(Life { node: self.node, generation: self.generation + 1 })
    }
    fn addr(&self) -> NodeId {
        self.node
    }
    fn win_addr_conflict(&self, adversary: &Life) -> bool {
        adversary.generation < self.generation
    }
}

/// What the shell does after an input.
#[derive(Debug)]
pub enum Effect {
    /// Send a datagram.
    Send(NodeId, Bytes),
    /// Hand the timer back after the delay.
    After(Duration, Timer<Life>),
    /// The gossip takes a node for alive, or for dead.
    Alive(NodeId, bool),
    /// This node was taken for dead and goes on under this generation.
    Renewed(u64),
    /// News of a node.
    Heard(Box<Announcement>),
}

/// A datagram that is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum GossipError {
    /// The bytes are no gossip message.
    #[error("cannot be read: {0}")]
    Decode(#[from] rmp_serde::decode::Error),
    /// There is no room for it.
    #[error("cannot be written: {0}")]
    Encode(#[from] rmp_serde::encode::Error),
    /// It speaks for another node.
    #[error("says it is from {}, came from {}", .said.short(), .seen.short())]
    Impostor {
        /// Whom it names.
        said: NodeId,
        /// Whose connection it came through.
        seen: NodeId,
    },
}

/// The gossip state of one node.
pub struct Swim {
    foca: Foca<Life, Codec, ChaCha8Rng, Announcements>,
    side: Arc<Mutex<Side>>,
}

/// What foca's codec and broadcast handler share with us; foca owns both and gives no access.
#[derive(Default)]
struct Side {
    /// Through whose connection the datagram at hand came.
    sender: Option<NodeId>,
    newest: BTreeMap<NodeId, Announcement>,
    fresh: Vec<Announcement>,
}

impl Swim {
    /// A node alone, in its life `generation`.
    pub fn new(node: NodeId, generation: u64, seed: [u8; 32]) -> Swim {
        let side = Arc::new(Mutex::new(Side::default()));
        let (codec, handler) = (Codec(side.clone()), Announcements(side.clone()));
        let rng = ChaCha8Rng::from_seed(seed);
        Swim { foca: Foca::with_custom_broadcast(Life { node, generation }, config(), rng, codec, handler), side }
    }

    /// A datagram came through the connection of `from`.
    pub fn on_datagram(&mut self, from: NodeId, data: &[u8]) -> (Vec<Effect>, Result<(), foca::Error>) {
        self.side.lock().sender = Some(from);
        self.with(|foca, effects| foca.handle_data(data, effects))
    }

    /// A timer of [`Effect::After`] ran off.
    pub fn on_timer(&mut self, timer: Timer<Life>) -> (Vec<Effect>, Result<(), foca::Error>) {
        self.with(|foca, effects| foca.handle_timer(timer, effects))
    }

    /// A connection to `node` is up: greet it.
    pub fn greet(&mut self, node: NodeId) -> (Vec<Effect>, Result<(), foca::Error>) {
        // Its life is not known here; a greeting reaches any of them.
        self.with(|foca, effects| foca.announce(Life { node, generation: 0 }, effects))
    }

    /// Spreads what this node says of itself.
    pub fn announce(&mut self, announcement: &Announcement) -> (Vec<Effect>, Result<(), foca::Error>) {
        let data = rmp_serde::to_vec_named(announcement).unwrap_or_default();
        self.with(|foca, effects| {
            // One that leaves no room for the header would never be sent; the exchange carries it then.
            if !data.is_empty() && data.len() <= ANNOUNCEMENT_BYTES_MAX {
                foca.add_broadcast(&data)?;
            }
            foca.gossip(effects)
        })
    }

    fn with(
        &mut self,
        act: impl FnOnce(&mut Foca<Life, Codec, ChaCha8Rng, Announcements>, &mut Effects) -> Result<(), foca::Error>,
    ) -> (Vec<Effect>, Result<(), foca::Error>) {
        let mut effects = Effects(Vec::new());
        let done = act(&mut self.foca, &mut effects);
        let mut side = self.side.lock();
        side.sender = None;
        effects.0.extend(side.fresh.drain(..).map(|announcement| Effect::Heard(Box::new(announcement))));
        (effects.0, done)
    }
}

/// A silent node is suspected within two probes and taken for dead some 3 s later.
fn config() -> Config {
    let members = |count| NonZeroUsize::new(count).expect("not zero");
    Config {
        probe_period: Duration::from_millis(1_000),
        probe_rtt: Duration::from_millis(400),
        num_indirect_probes: members(3),
        suspect_to_down_after: Duration::from_millis(2_500),
        max_packet_size: members(DATAGRAM_BYTES_MAX),
        notify_down_members: true,
        periodic_announce: Some(PeriodicParams { frequency: Duration::from_secs(30), num_members: members(1) }),
        periodic_announce_to_down_members: Some(PeriodicParams { frequency: Duration::from_secs(5), num_members: members(2) }),
        periodic_gossip: Some(PeriodicParams { frequency: Duration::from_millis(500), num_members: members(3) }),
        ..Config::new_lan(EXPECTED_NODES)
    }
}

/// Collects what foca wants done.
struct Effects(Vec<Effect>);

impl foca::Runtime<Life> for &mut Effects {
    fn notify(&mut self, notification: Notification<'_, Life>) {
        match notification {
            Notification::MemberUp(life) => self.0.push(Effect::Alive(life.node, true)),
            Notification::MemberDown(life) => self.0.push(Effect::Alive(life.node, false)),
            Notification::Rejoin(life) => self.0.push(Effect::Renewed(life.generation)),
            // `Defunct` cannot be: every life can be renewed. The others change nothing here.
            Notification::Rename(..) | Notification::Active | Notification::Idle | Notification::Defunct => {}
        }
    }
    fn send_to(&mut self, to: Life, data: &[u8]) {
        self.0.push(Effect::Send(to.node, Bytes::copy_from_slice(data)));
    }
    fn submit_after(&mut self, timer: Timer<Life>, after: Duration) {
        self.0.push(Effect::After(after, timer));
    }
}

/// Headers and members as MessagePack.
struct Codec(Arc<Mutex<Side>>);

impl foca::Codec<Life> for Codec {
    type Error = GossipError;

    fn encode_header(&mut self, header: &Header<Life>, buf: impl BufMut) -> Result<(), GossipError> {
        Ok(rmp_serde::encode::write(&mut buf.writer(), header)?)
    }
    fn decode_header(&mut self, buf: impl Buf) -> Result<Header<Life>, GossipError> {
        let header: Header<Life> = rmp_serde::from_read(buf.reader())?;
        match self.0.lock().sender {
            Some(seen) if header.src.node != seen => Err(GossipError::Impostor { said: header.src.node, seen }),
            _ => Ok(header),
        }
    }
    fn encode_member(&mut self, member: &Member<Life>, buf: impl BufMut) -> Result<(), GossipError> {
        Ok(rmp_serde::encode::write(&mut buf.writer(), member)?)
    }
    fn decode_member(&mut self, buf: impl Buf) -> Result<Member<Life>, GossipError> {
        Ok(rmp_serde::from_read(buf.reader())?)
    }
}

/// Which announcements are news.
struct Announcements(Arc<Mutex<Side>>);

/// Whose announcement it is: a newer one replaces an older one that is still being spread.
struct Speaker(NodeId);

impl Invalidates for Speaker {
    fn invalidates(&self, other: &Speaker) -> bool {
        self.0 == other.0
    }
}

impl BroadcastHandler<Life> for Announcements {
    type Key = Speaker;
    type Error = GossipError;

    fn receive_item(&mut self, data: &[u8], sender: Option<&Life>) -> Result<Option<Speaker>, GossipError> {
        let announcement: Announcement = rmp_serde::from_slice(data)?;
        let announcement = announcement.trimmed();
        let mut side = self.0.lock();
        let newest = side.newest.get(&announcement.node);
        if newest.is_some_and(|known| !announcement.is_newer_than(known)) || (newest.is_none() && PEERS_MAX <= side.newest.len()) {
            return Ok(None);
        }
        let node = announcement.node;
        // Without a sender it is our own.
        if sender.is_some() {
            side.fresh.push(announcement.clone());
        }
        side.newest.insert(node, announcement);
        Ok(Some(Speaker(node)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, VecDeque};

    use garage_db::StoreId;
    use garage_net::{LayoutMark, NodeId};

    use super::{Announcement, Effect, Swim};
    use crate::{
        cluster::StoreMark,
        limits::DATAGRAM_BYTES_MAX,
        membership::announcement::{SpaceReport, WorkReport},
    };

    fn announcement(node: NodeId, sequence: u64) -> Announcement {
        Announcement {
            node,
            generation: 1,
            sequence,
            hostname: "h".repeat(64),
            release: "r".repeat(32),
            public_address: Some("a".repeat(261)),
            layout: LayoutMark::default(),
            history_digest: [9; 32],
            space: SpaceReport::default(),
            store_mark: Some(StoreMark { store_id: StoreId([7; 32]), commit_number: u64::MAX }),
            work: WorkReport {
                version: u64::MAX,
                needed_count: 256,
                synced_count: 256,
                recovering_count: 256,
                queued_blocks_count: u64::MAX,
                block_len_bytes: u32::MAX,
            },
            clock_ms: u64::MAX,
        }
    }

    /// Delivers everything that `effects` of `node` send, and what follows from it; gives what was heard by each.
    fn deliver(swims: &mut BTreeMap<NodeId, Swim>, node: NodeId, effects: Vec<Effect>) -> Vec<(NodeId, u64)> {
        let mut heard = Vec::new();
        let mut waiting: VecDeque<(NodeId, Effect)> = effects.into_iter().map(|effect| (node, effect)).collect();
        while let Some((at, effect)) = waiting.pop_front() {
            match effect {
                Effect::Send(to, data) => {
                    assert!(data.len() <= DATAGRAM_BYTES_MAX);
                    let (effects, done) = swims.get_mut(&to).unwrap().on_datagram(at, &data);
                    done.unwrap();
                    waiting.extend(effects.into_iter().map(|effect| (to, effect)));
                }
                Effect::Heard(announcement) => heard.push((at, announcement.sequence)),
                Effect::After(..) | Effect::Alive(..) | Effect::Renewed(_) => {}
            }
        }
        heard
    }

    fn pair() -> (BTreeMap<NodeId, Swim>, NodeId, NodeId) {
        let (a, b) = (NodeId([1; 32]), NodeId([2; 32]));
        let mut swims: BTreeMap<NodeId, Swim> = [a, b].into_iter().map(|node| (node, Swim::new(node, 1, [3; 32]))).collect();
        let (effects, done) = swims.get_mut(&a).unwrap().greet(b);
        done.unwrap();
        deliver(&mut swims, a, effects);
        (swims, a, b)
    }

    #[test]
    fn the_longest_announcement_fits_a_datagram_and_is_heard_once() {
        let (mut swims, a, b) = pair();
        for (sequence, expected) in [(1, vec![(b, 1)]), (2, vec![(b, 2)])] {
            let (effects, done) = swims.get_mut(&a).unwrap().announce(&announcement(a, sequence));
            done.unwrap();
            assert_eq!(deliver(&mut swims, a, effects), expected);
        }
        let (effects, _) = swims.get_mut(&a).unwrap().announce(&announcement(a, 1));
        assert_eq!(deliver(&mut swims, a, effects), [], "an older one is no news");
    }

    #[test]
    fn a_datagram_in_anothers_name_or_of_noise_is_refused() {
        let (mut swims, a, b) = pair();
        let (effects, _) = swims.get_mut(&a).unwrap().greet(b);
        let Some(Effect::Send(_, data)) = effects.into_iter().next() else { panic!("a greeting is sent") };
        let swim = swims.get_mut(&b).unwrap();
        assert!(swim.on_datagram(NodeId([7; 32]), &data).1.is_err());
        assert!(swim.on_datagram(a, &data[..data.len() / 2]).1.is_err());
        for noise in [&b""[..], &[0xc1; 40], &[0xff; 2_000]] {
            assert!(swim.on_datagram(a, noise).1.is_err());
        }
    }
}
