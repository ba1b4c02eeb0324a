//! What a node says of itself and of the peers it knows; rides on gossip datagrams and on the exchange between two nodes.

use garage_net::{LayoutMark, NodeId};
use serde::{Deserialize, Serialize};

use crate::cluster::StoreMark;
use crate::limits::{ADDRESSES_PER_PEER_MAX, HOSTNAME_CHARS_MAX, RELEASE_CHARS_MAX};

/// Characters of an advertised address at most: a host name and a port.
const ADDRESS_CHARS_MAX: usize = 261;

/// Free and total bytes of one kind of storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceLeft {
    /// What may still be written.
    #[serde(rename = "a")]
    pub available_bytes: u64,
    /// All of it.
    #[serde(rename = "t")]
    pub total_bytes: u64,
}

/// Space of a node by what it is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceReport {
    /// Where the metadata are.
    #[serde(rename = "m", default)]
    pub metadata: Option<SpaceLeft>,
    /// Where the blocks are, all directories together.
    #[serde(rename = "d", default)]
    pub data: Option<SpaceLeft>,
}

/// How far a node is with what layouts and losses ask of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkReport {
    /// The layout version it moves to, or has reached.
    #[serde(rename = "v", default)]
    pub version: u64,
    /// Partitions it has to bring for that version.
    #[serde(rename = "n", default)]
    pub needed_count: u16,
    /// Those of them that are here.
    #[serde(rename = "s", default)]
    pub synced_count: u16,
    /// Partitions in which its answers do not count, because it lost rows and is not refilled yet.
    #[serde(rename = "r", default)]
    pub recovering_count: u16,
    /// Blocks that it should have and that are to be looked at.
    #[serde(rename = "b", default)]
    pub queued_blocks_count: u64,
    /// Bytes of one block at the most.
    #[serde(rename = "l", default)]
    pub block_len_bytes: u32,
}

/// What a node says of itself; the newest one counts. Short names keep it within a datagram.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// Who speaks.
    #[serde(rename = "n")]
    pub node: NodeId,
    /// Rises with each start of the node.
    #[serde(rename = "g")]
    pub generation: u64,
    /// Rises with each announcement of one generation.
    #[serde(rename = "s")]
    pub sequence: u64,
    /// Its host name.
    #[serde(rename = "h")]
    pub hostname: String,
    /// The version of its release.
    #[serde(rename = "v")]
    pub release: String,
    /// `host:port` under which it wants to be dialled.
    #[serde(rename = "p", default)]
    pub public_address: Option<String>,
    /// The newest layout it knows.
    #[serde(rename = "l")]
    pub layout: LayoutMark,
    /// The digest of its whole layout history: staged changes and trackers included.
    #[serde(rename = "y", with = "serde_bytes")]
    pub history_digest: [u8; 32],
    /// Its free space.
    #[serde(rename = "f", default)]
    pub space: SpaceReport,
    /// How far its store has come: whoever hears it notices when that store is lost or set back later.
    #[serde(rename = "m", default)]
    pub store_mark: Option<StoreMark>,
    /// Its work on layouts and losses.
    #[serde(rename = "w", default)]
    pub work: WorkReport,
    /// Its wall clock when it said this, in milliseconds since 1970; 0: not told.
    #[serde(rename = "c", default)]
    pub clock_ms: u64,
}

impl Announcement {
    /// Whether this one replaces `other` of the same node.
    pub fn is_newer_than(&self, other: &Announcement) -> bool {
        (other.generation, other.sequence) < (self.generation, self.sequence)
    }

    /// Cuts texts to what may be announced; also done with what peers say.
    pub fn trimmed(mut self) -> Announcement {
        let cut = |text: &mut String, max| *text = text.chars().filter(|c| !c.is_control()).take(max).collect();
        cut(&mut self.hostname, HOSTNAME_CHARS_MAX);
        cut(&mut self.release, RELEASE_CHARS_MAX);
        self.public_address = self.public_address.filter(|address| address.len() <= ADDRESS_CHARS_MAX);
        self
    }
}

/// A peer as one node tells another of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRecord {
    /// Who.
    pub node: NodeId,
    /// `host:port`, most promising first.
    pub addresses: Vec<String>,
    /// The newest that was heard from it.
    #[serde(default)]
    pub announcement: Option<Announcement>,
}

impl PeerRecord {
    /// Cut to what is kept of a peer.
    pub fn trimmed(mut self) -> PeerRecord {
        self.addresses.retain(|address| address.len() <= ADDRESS_CHARS_MAX);
        self.addresses.truncate(ADDRESSES_PER_PEER_MAX);
        // A record can carry nobody else's words.
        self.announcement = self.announcement.filter(|announcement| announcement.node == self.node).map(Announcement::trimmed);
        self
    }
}
