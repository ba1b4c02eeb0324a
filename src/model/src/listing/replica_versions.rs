//! A replica's side of versions: those of one key, and pages over all keys, newest version first.
//!
//! Not here: what the answers of a quorum amount to (`versions`, `crate::objects::versions`).

use std::{iter::Peekable, ops::Bound};

use bytes::Bytes;
use garage_db::{Direction, EngineError, Snapshot};
use garage_rpc::register::{
    Entry, WriteId,
    slots::{self, Origin, Slot, SlotRow},
};
use garage_table::{
    Group,
    key::{after_prefix, push_escaped, split_escaped},
    keyspaces,
    schema::StoreError,
};
use garage_util::{encoding::Stored, hlc::Stamp};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::replica::folded;
use crate::{
    index::{Head, HeadMarker, Older, Shown, head_prefix, marker_prefix, older_prefix, rank},
    rows::object::{VersionRow, VersionState},
    schema::{current_row, older_row},
};

/// Versions read for one answer, after which it is cut.
const SCANNED_VERSIONS_MAX: usize = 10_000;
/// Bytes of an answer, after which it is cut.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Slots that one question on a key may name.
pub const KEY_SLOTS_MAX: usize = 2_000;

/// A question on one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyQuery {
    /// The object key.
    pub key: String,
    /// The slots of interest, at most [`KEY_SLOTS_MAX`].
    pub slots: Vec<Slot>,
    /// How many of the newest older versions are of interest.
    pub older: u32,
}

/// What a replica knows of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyAnswer {
    /// Its clock, in milliseconds since 1970.
    pub now_ms: u64,
    /// The row of the key's register.
    pub head: Option<(Entry, VersionRow)>,
    /// The older rows of the slots asked for, in their order.
    pub rows: Vec<Option<SlotRow<VersionState>>>,
    /// The newest older versions that are live here, newest first.
    pub older: Vec<(Slot, SlotRow<VersionState>)>,
    /// Whether there are more of them.
    pub truncated: bool,
}
impl Stored for KeyAnswer {
    const WHAT: &'static str = "answer on a key";
}

/// Answers a question on a key.
pub fn of_key(snapshot: &dyn Snapshot, group: &Group, query: &KeyQuery, now_ms: u64) -> Result<KeyAnswer, StoreError> {
    if KEY_SLOTS_MAX < query.slots.len() {
        return Err(StoreError::BadRequest(format!("{} versions in one question, the limit is {KEY_SLOTS_MAX}", query.slots.len())));
    }
    let head = current_row(snapshot, group, &query.key)?;
    let rows = query.slots.iter().map(|slot| older_row(snapshot, group, &query.key, *slot)).collect::<Result<_, _>>()?;
    let (mut older, mut truncated) = (Vec::new(), false);
    if 0 < query.older {
        let mut prefix = older_prefix(group);
        push_escaped(&mut prefix, query.key.as_bytes());
        for item in range(snapshot, &prefix, prefix.clone()) {
            if older.len() == query.older as usize {
                truncated = true;
                break;
            }
            let slot = Older::from_stored(&item?.1)?.slot;
            older.extend(older_row(snapshot, group, &query.key, slot)?.map(|row| (slot, row)));
        }
    }
    Ok(KeyAnswer { now_ms, head, rows, older, truncated })
}

/// Where a page begins or goes on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The object key, or a common prefix.
    pub key: ByteBuf,
    /// Among the versions of the key; empty: before all of them.
    pub rank: ByteBuf,
}

impl Place {
    /// Before all versions of the keys from `key` on.
    pub fn at_key(key: impl Into<Vec<u8>>) -> Place {
        Place { key: ByteBuf::from(key.into()), rank: ByteBuf::new() }
    }
    /// Of a version.
    pub fn of(key: impl Into<Vec<u8>>, order: Stamp, slot: Slot) -> Place {
        Place { key: ByteBuf::from(key.into()), rank: ByteBuf::from(rank(order, slot)) }
    }
    fn successor(self) -> Place {
        Place { rank: ByteBuf::from([&self.rank[..], &[0]].concat()), ..self }
    }
}

/// A page of versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionsQuery {
    /// Only keys that start with it.
    pub prefix: ByteBuf,
    /// Folds what follows the prefix up to and including it. Never empty.
    pub delimiter: Option<ByteBuf>,
    /// The first place that may come.
    pub from: Place,
    /// Begins behind this version of the key in `from` instead.
    pub behind: Option<Slot>,
    /// Items at the most.
    pub limit: u32,
}

/// A replica's page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionsAnswer {
    /// In order.
    pub items: Vec<Item>,
    /// Where to go on; `None`: nothing follows.
    pub next: Option<Place>,
}
impl Stored for VersionsAnswer {
    const WHAT: &'static str = "page of versions";
}

/// A version or a common prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "nearly every item of a page is a version: a box each would only cost")]
pub enum Item {
    /// A version.
    Version {
        /// The object key.
        key: ByteBuf,
        /// Whether it is the current one.
        is_head: bool,
        /// The version.
        version: Older,
    },
    /// A common prefix, with the first key below it.
    Prefix {
        /// The delimiter included.
        prefix: ByteBuf,
        /// The first key below it that has a version.
        witness: ByteBuf,
    },
}

impl Item {
    /// Its place in the order.
    pub fn place(&self) -> Place {
        match self {
            Item::Version { key, version, .. } => Place::of(key.to_vec(), version.origin.order, version.slot),
            Item::Prefix { prefix, .. } => Place::at_key(prefix.to_vec()),
        }
    }
}

type Entries<'a> = Box<dyn Iterator<Item = Result<(Bytes, Bytes), EngineError>> + Send + 'a>;
type Range<'a> = Peekable<Entries<'a>>;

fn range<'a>(snapshot: &'a dyn Snapshot, prefix: &[u8], from: Vec<u8>) -> Range<'a> {
    let end = after_prefix(prefix);
    if end.as_ref().is_some_and(|end| *end <= from) {
        let empty: Entries<'a> = Box::new(std::iter::empty());
        return empty.peekable();
    }
    let end_bound = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    snapshot.range(keyspaces::INDEX, Bound::Included(&from), end_bound, Direction::Forward).peekable()
}

/// The escaped form of a key prefix: all escaped keys that start with it, and no others, start so.
fn escaped_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    push_escaped(&mut bytes, prefix);
    bytes.truncate(bytes.len() - 2);
    bytes
}

/// The three indexes over the keys of a group, from one place on.
struct Walk<'a> {
    group: &'a Group,
    heads: Range<'a>,
    markers: Range<'a>,
    older: Range<'a>,
}

impl<'a> Walk<'a> {
    fn from(snapshot: &'a dyn Snapshot, group: &'a Group, prefix: &[u8], from: &Place) -> Walk<'a> {
        let plain = |index_prefix: Vec<u8>| range(snapshot, &[&index_prefix[..], prefix].concat(), [&index_prefix[..], &from.key].concat());
        let index_prefix = older_prefix(group);
        let mut start = index_prefix.clone();
        if from.rank.is_empty() {
            start.extend_from_slice(&escaped_prefix(&from.key));
        } else {
            push_escaped(&mut start, &from.key);
            start.extend_from_slice(&from.rank);
        }
        let older = range(snapshot, &[&index_prefix[..], &escaped_prefix(prefix)].concat(), start);
        Walk { group, heads: plain(head_prefix(group)), markers: plain(marker_prefix(group)), older }
    }

    /// The next key that has a version.
    fn next_key(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        let head = plain_key(&mut self.heads, head_prefix(self.group).len())?;
        let marker = plain_key(&mut self.markers, marker_prefix(self.group).len())?;
        let older = match peek(&mut self.older)? {
            Some((key, _)) => split_escaped(&key[older_prefix(self.group).len()..]).map(|(key, _)| key),
            None => None,
        };
        Ok([head, marker, older].into_iter().flatten().min())
    }

    /// The current version, if the key of the walk's next one is `key`.
    fn take_head(&mut self, key: &[u8]) -> Result<Option<Older>, StoreError> {
        if plain_key(&mut self.heads, head_prefix(self.group).len())?.as_deref() == Some(key)
            && let Some(item) = self.heads.next()
        {
            let head = Head::from_stored(&item?.1)?;
            let origin = head.origin.unwrap_or(Origin { order: head.entry.stamp, id: head.entry.id });
            return Ok(Some(Older { slot: head.slot, origin, stamp: head.entry.stamp, shown: Shown::Object(head.summary) }));
        }
        if plain_key(&mut self.markers, marker_prefix(self.group).len())?.as_deref() == Some(key)
            && let Some(item) = self.markers.next()
        {
            let HeadMarker { entry, slot, origin, modified_ms } = HeadMarker::from_stored(&item?.1)?;
            return Ok(Some(Older { slot, origin, stamp: entry.stamp, shown: Shown::Marker { modified_ms } }));
        }
        Ok(None)
    }

    fn take_older(&mut self, key: &[u8]) -> Result<Option<Older>, StoreError> {
        let prefix_len = older_prefix(self.group).len();
        let is_of_key = peek(&mut self.older)?
            .is_some_and(|(index_key, _)| split_escaped(&index_key[prefix_len..]).is_some_and(|(found, _)| found == key));
        match self.older.next_if(|_| is_of_key) {
            Some(item) => Ok(Some(Older::from_stored(&item?.1)?)),
            None => Ok(None),
        }
    }
}

fn peek(range: &mut Range<'_>) -> Result<Option<(Bytes, Bytes)>, StoreError> {
    match range.peek() {
        Some(Ok(item)) => Ok(Some(item.clone())),
        Some(Err(_)) => match range.next() {
            Some(Err(error)) => Err(error.into()),
            _ => Ok(None),
        },
        None => Ok(None),
    }
}

fn plain_key(range: &mut Range<'_>, prefix_len: usize) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(peek(range)?.map(|(key, _)| key[prefix_len..].to_vec()))
}

/// The place right behind a version, as far as this replica knows it.
fn behind(snapshot: &dyn Snapshot, group: &Group, key: &str, slot: Slot) -> Result<Place, StoreError> {
    let current = current_row(snapshot, group, key)?.filter(|(_, row)| row.slot() == slot);
    let current = current.map(|(entry, row)| row.to_head().row(entry));
    let known = match (current, older_row(snapshot, group, key, slot)?) {
        (Some(current), Some(older)) => Some(slots::merge(current, older)),
        (current, older) => current.or(older),
    };
    match (known, slot) {
        (Some(row), _) => Ok(Place::of(key, row.origin.order, slot).successor()),
        // Deleted long ago: its id still tells when it was made.
        (None, Slot::Id(id)) => Ok(Place::of(key, time_of(id), Slot::Null)),
        (None, Slot::Null) => Ok(Place::at_key([key.as_bytes(), &[0]].concat())),
    }
}

/// When a version was made, as far as its id tells: ids begin with the milliseconds since 1970.
pub fn time_of(id: WriteId) -> Stamp {
    let mut millis = [0; 8];
    millis.copy_from_slice(&id.as_bytes()[..8]);
    Stamp::from_parts(u64::from_be_bytes(millis).min(u64::MAX >> 16) << 16, 0, false)
}

/// Walks the versions of a group.
pub fn list(snapshot: &dyn Snapshot, group: &Group, query: &VersionsQuery) -> Result<VersionsAnswer, StoreError> {
    let mut from = query.from.clone();
    if let (Some(slot), Ok(key)) = (query.behind, std::str::from_utf8(&query.from.key)) {
        from = behind(snapshot, group, key, slot)?;
    }
    if from.key < query.prefix {
        from = Place::at_key(query.prefix.to_vec());
    }
    let delimiter = query.delimiter.as_ref().map(|delimiter| &delimiter[..]);
    let mut page = Page { items: Vec::new(), size_bytes: 0, limit: (query.limit as usize).min(SCANNED_VERSIONS_MAX) };
    let mut walk = Walk::from(snapshot, group, &query.prefix, &from);
    while let Some(key) = walk.next_key()? {
        let Some(common) = folded(&key, &query.prefix, delimiter) else {
            if let Some(next) = page.take_key(snapshot, &mut walk, &key, &from)? {
                return Ok(VersionsAnswer { items: page.items, next: Some(next) });
            }
            continue;
        };
        if page.is_full() {
            return Ok(VersionsAnswer { next: Some(Place::at_key(common)), items: page.items });
        }
        page.push(Item::Prefix { prefix: ByteBuf::from(common), witness: ByteBuf::from(&key[..]) });
        // Everything else below the prefix is skipped by a seek, however much it is.
        let Some(next) = after_prefix(common) else { break };
        walk = Walk::from(snapshot, group, &query.prefix, &Place::at_key(next));
    }
    Ok(VersionsAnswer { items: page.items, next: None })
}

struct Page {
    items: Vec<Item>,
    size_bytes: usize,
    limit: usize,
}

impl Page {
    fn is_full(&self) -> bool {
        self.limit <= self.items.len() || ANSWER_BYTES_MAX <= self.size_bytes
    }
    fn push(&mut self, item: Item) {
        self.size_bytes += 200 + item.place().key.len();
        self.items.push(item);
    }
    /// Takes the versions of a key from `from` on; where the page was cut, if it was.
    fn take_key(&mut self, snapshot: &dyn Snapshot, walk: &mut Walk<'_>, key: &[u8], from: &Place) -> Result<Option<Place>, StoreError> {
        let place = |version: &Older| Place::of(key, version.origin.order, version.slot);
        let listed_head = walk.take_head(key)?;
        // A row of the slot that the head fills is the same version, or one that was replaced.
        let filled = match &listed_head {
            Some(head) => Some(head.slot),
            None => current_slot(snapshot, walk.group, key)?,
        };
        let mut head = listed_head.filter(|head| *from <= place(head));
        loop {
            let older = walk.take_older(key)?;
            let older = match older {
                Some(older) if filled == Some(older.slot) => continue,
                older => older,
            };
            let comes_first = |head: &Older| older.as_ref().is_none_or(|older| place(head) < place(older));
            let first = if head.as_ref().is_some_and(comes_first) { head.take() } else { None };
            for (version, is_head) in first.map(|head| (head, true)).into_iter().chain(older.clone().map(|older| (older, false))) {
                if self.is_full() {
                    return Ok(Some(place(&version)));
                }
                self.push(Item::Version { key: ByteBuf::from(key), is_head, version });
            }
            if older.is_none() {
                return Ok(None);
            }
        }
    }
}

/// The slot of the current version of a key.
fn current_slot(snapshot: &dyn Snapshot, group: &Group, key: &[u8]) -> Result<Option<Slot>, StoreError> {
    let Ok(key) = std::str::from_utf8(key) else { return Ok(None) };
    let current = current_row(snapshot, group, key)?;
    Ok(current.filter(|(_, row)| row.object().is_some() || row.marker_ms().is_some()).map(|(_, row)| row.slot()))
}
