//! Pages of a replicated index: what a replica walks, how answers of a quorum become one page, how what they differ in is settled.
//!
//! An index lists *positions*, byte strings in the order of the page; a position tells the key that prefixes and delimiters are about.
//! Each replica folds common prefixes itself and gives a witness for each: its first row there.
//!
//! Invariants:
//! - a page holds every row that was answered before it was asked for, and none whose end was;
//! - past the end of the shortest cut answer nothing is known, so the page ends there;
//! - a row or common prefix on which replicas differ is settled by reading it, never by guessing;
//! - a replica reads one row for each item that it gives: a common prefix is passed by a seek, however much is below it.
//!
//! Not here: what the rows are, and which requests ask for pages.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use garage_db::{Direction, Snapshot};
use garage_rpc::register::Entry;
use garage_table::{Group, key::after_prefix, keyspaces, schema::StoreError};
use garage_util::encoding::Stored;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_bytes::ByteBuf;

use crate::error::ModelError;

/// Items in one answer at the most, whatever was asked for; each costs its replica one row.
pub const ITEMS_MAX: usize = 10_000;
/// Bytes of an answer, after which it is cut.
const ANSWER_MAX_BYTES: usize = 4 << 20;
/// What an item takes besides its position, roughly.
const ITEM_BYTES: usize = 100;
/// Groups asked at once.
const GROUPS_AT_ONCE: usize = 16;
/// Common prefixes looked into at once, where replicas differ about their witnesses and no witness lives.
const PREFIXES_AT_ONCE: usize = 16;
/// Rows looked at at a time below such a prefix.
const PROBE_ITEMS: u32 = 100;

/// An index that replicas keep of a group.
pub trait Index: Send + Sync + 'static {
    /// What a page shows of a row. Equal values at two replicas are of the same version.
    type Value: Clone + PartialEq + Send + Sync + Serialize + DeserializeOwned + 'static;
    /// The prefix of the group's entries in [`keyspaces::INDEX`].
    fn prefix(group: &Group) -> Vec<u8>;
    /// What the positions of keys begin with that begin with `start`.
    fn positions_of(start: &[u8]) -> Vec<u8>;
    /// The key of a position; `None`: it is no position.
    fn key_of(position: &[u8]) -> Option<Vec<u8>>;
    /// An entry as stored: stamp and id of its row, and what is shown of it.
    fn read(stored: &[u8]) -> Result<(Entry, Self::Value), StoreError>;
}

/// What is asked of a replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageQuery {
    /// Only keys that start with it.
    pub prefix: ByteBuf,
    /// Folds what follows the prefix up to and including it. Never empty.
    pub delimiter: Option<ByteBuf>,
    /// The smallest position that may come.
    pub from: ByteBuf,
    /// Items at the most.
    pub limit: u32,
}

/// A replica's page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageAnswer<V> {
    /// In order.
    pub items: Vec<Item<V>>,
    /// Where to go on; `None`: nothing follows.
    pub next: Option<ByteBuf>,
}

impl Stored for PageQuery {
    const WHAT: &'static str = "page query";
}
impl<V: Serialize + DeserializeOwned> Stored for PageAnswer<V> {
    const WHAT: &'static str = "page of an index";
}

/// A row or a common prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Item<V> {
    /// A row.
    Row {
        /// Its place.
        position: ByteBuf,
        /// Its version.
        entry: Entry,
        /// What is shown of it.
        value: V,
    },
    /// A common prefix with the first row below it.
    Prefix {
        /// What all positions below it begin with.
        position: ByteBuf,
        /// As a key, the delimiter included.
        prefix: ByteBuf,
        /// The first row's place.
        witness: ByteBuf,
        /// Its version.
        entry: Entry,
    },
}

impl<V> Item<V> {
    /// Its place in the order.
    pub fn position(&self) -> &[u8] {
        match self {
            Item::Row { position, .. } | Item::Prefix { position, .. } => position,
        }
    }
}

/// The common prefix that a key folds into, if any.
pub fn folded<'a>(key: &'a [u8], prefix: &[u8], delimiter: Option<&[u8]>) -> Option<&'a [u8]> {
    let delimiter = delimiter.filter(|delimiter| !delimiter.is_empty())?;
    let rest = key.get(prefix.len()..)?;
    let at = rest.windows(delimiter.len()).position(|window| window == delimiter)?;
    Some(&key[..prefix.len() + at + delimiter.len()])
}

/// The smallest position that comes after everything that `common`, a common prefix, stands for.
pub fn after_common<I: Index>(common: &[u8]) -> Option<Vec<u8>> {
    after_prefix(&I::positions_of(common))
}

/// Walks a replica's index.
pub fn walk<I: Index>(snapshot: &dyn Snapshot, group: &Group, query: &PageQuery) -> Result<PageAnswer<I::Value>, StoreError> {
    let index_prefix = I::prefix(group);
    let first = I::positions_of(&query.prefix);
    let end = after_prefix(&[&index_prefix[..], &first].concat());
    let limit = (query.limit as usize).min(ITEMS_MAX);
    let (mut items, mut size_bytes) = (Vec::new(), 0);
    let mut from = query.from.to_vec().max(first);
    loop {
        let start = [&index_prefix[..], &from].concat();
        if end.as_ref().is_some_and(|end| *end <= start) {
            return Ok(PageAnswer { items, next: None });
        }
        let end_bound = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut jump = None;
        for found in snapshot.range(keyspaces::INDEX, Bound::Included(&start), end_bound, Direction::Forward) {
            let (index_key, stored) = found?;
            let position = index_key.slice(index_prefix.len()..);
            if limit <= items.len() || ANSWER_MAX_BYTES <= size_bytes {
                return Ok(PageAnswer { items, next: Some(ByteBuf::from(position.to_vec())) });
            }
            let Some(key) = I::key_of(&position) else { continue };
            let (entry, value) = I::read(&stored)?;
            size_bytes += ITEM_BYTES + position.len();
            let Some(common) = folded(&key, &query.prefix, query.delimiter.as_ref().map(|delimiter| &delimiter[..])) else {
                items.push(Item::Row { position: ByteBuf::from(position.to_vec()), entry, value });
                continue;
            };
            let (below, witness) = (I::positions_of(common), ByteBuf::from(position.to_vec()));
            jump = Some(after_prefix(&below));
            items.push(Item::Prefix { position: ByteBuf::from(below), prefix: ByteBuf::from(common), witness, entry });
            break;
        }
        match jump {
            Some(Some(next)) => from = next,
            _ => return Ok(PageAnswer { items, next: None }),
        }
    }
}

/// What is on a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown<V> {
    /// A row.
    Row(V),
    /// A common prefix, as a key.
    Prefix(Vec<u8>),
}

/// Settled entries by position, up to where they are complete.
#[derive(Clone, Debug)]
pub struct Run<V> {
    /// What is there.
    pub entries: BTreeMap<Vec<u8>, Shown<V>>,
    /// Where to go on; `None`: nothing follows.
    pub next: Option<Vec<u8>>,
}

/// A common prefix whose witnesses differ.
#[derive(Debug)]
struct Doubtful {
    position: Vec<u8>,
    prefix: Vec<u8>,
    /// Positions of rows.
    witnesses: Vec<Vec<u8>>,
}

/// What the answers of a quorum agree upon, and what they differ in.
#[derive(Debug)]
struct Merged<V> {
    agreed: BTreeMap<Vec<u8>, Shown<V>>,
    /// Rows that are not the same in all answers.
    rows: Vec<Vec<u8>>,
    /// Common prefixes whose witnesses differ.
    prefixes: Vec<Doubtful>,
    next: Option<Vec<u8>>,
}

fn merge<V: Clone + PartialEq>(answers: Vec<PageAnswer<V>>) -> Merged<V> {
    let next = answers.iter().filter_map(|answer| answer.next.as_ref().map(|next| next.to_vec())).min();
    let answer_count = answers.len();
    let mut by_position: BTreeMap<Vec<u8>, Vec<Item<V>>> = BTreeMap::new();
    for item in answers.into_iter().flat_map(|answer| answer.items) {
        if next.as_ref().is_none_or(|next| item.position() < &next[..]) {
            by_position.entry(item.position().to_vec()).or_default().push(item);
        }
    }
    let mut merged = Merged { agreed: BTreeMap::new(), rows: Vec::new(), prefixes: Vec::new(), next };
    for (position, mut items) in by_position {
        let is_agreed = items.len() == answer_count && items.windows(2).all(|pair| pair[0] == pair[1]);
        let witnesses = items.iter().filter_map(|item| if let Item::Prefix { witness, .. } = item { Some(witness.to_vec()) } else { None });
        let witnesses: BTreeSet<Vec<u8>> = witnesses.collect();
        match items.swap_remove(0) {
            Item::Row { value, .. } if is_agreed => drop(merged.agreed.insert(position, Shown::Row(value))),
            Item::Row { .. } => merged.rows.push(position),
            Item::Prefix { prefix, .. } if is_agreed => drop(merged.agreed.insert(position, Shown::Prefix(prefix.into_vec()))),
            Item::Prefix { prefix, .. } => {
                merged.prefixes.push(Doubtful { position, prefix: prefix.into_vec(), witnesses: witnesses.into_iter().collect() });
            }
        }
    }
    merged
}

/// How a coordinator reads an index.
pub trait Source: Sync {
    /// The index.
    type Index: Index;
    /// The answers of the nearest quorum of a group's holders.
    fn ask<'a>(&'a self, group: &'a Group, query: &'a PageQuery) -> BoxFuture<'a, Answers<ValueOf<Self>>>;
    /// Reads rows, linearizable: those that are listed come back, by position.
    fn settle<'a>(&'a self, group: &'a Group, positions: Vec<Vec<u8>>) -> BoxFuture<'a, Settled<ValueOf<Self>>>;
}

/// The value of a source's rows.
pub type ValueOf<S> = <<S as Source>::Index as Index>::Value;
/// Pages of several replicas.
pub type Answers<V> = Result<Vec<PageAnswer<V>>, ModelError>;
/// Rows that are listed, by position.
pub type Settled<V> = Result<BTreeMap<Vec<u8>, V>, ModelError>;

/// One run over all groups: a round trip if the replicas agree, two if they differ in rows.
pub async fn run_all<S: Source>(source: &S, groups: &[Group], query: &PageQuery) -> Result<Run<ValueOf<S>>, ModelError> {
    let runs: Vec<_> = groups.iter().map(|group| run_one(source, group, query)).collect();
    let runs: Vec<Run<ValueOf<S>>> = stream::iter(runs).buffer_unordered(GROUPS_AT_ONCE).try_collect().await?;
    let next = runs.iter().filter_map(|run| run.next.clone()).min();
    let is_complete = |position: &Vec<u8>| next.as_ref().is_none_or(|next| position < next);
    let entries = runs.into_iter().flat_map(|run| run.entries).filter(|(position, _)| is_complete(position)).collect();
    Ok(Run { entries, next })
}

/// The first `limit + 1` entries from `query.from` on, or all there are: one more than asked for tells whether a page is the last.
pub async fn page<S: Source>(
    source: &S,
    groups: &[Group],
    query: PageQuery,
    limit: usize,
) -> Result<BTreeMap<Vec<u8>, Shown<ValueOf<S>>>, ModelError> {
    let (mut entries, mut from) = (BTreeMap::new(), Some(query.from.to_vec()));
    while let Some(start) = from
        && entries.len() <= limit
    {
        let missing = limit + 1 - entries.len();
        let query = PageQuery { from: ByteBuf::from(start), limit: u32::try_from(missing).unwrap_or(u32::MAX), ..query.clone() };
        let run = run_all(source, groups, &query).await?;
        entries.extend(run.entries);
        from = run.next;
    }
    // Several groups, and replicas that differ, answer more than each was asked for.
    if let Some(surplus) = entries.keys().nth(limit + 1).cloned() {
        entries.split_off(&surplus);
    }
    Ok(entries)
}

async fn run_one<S: Source>(source: &S, group: &Group, query: &PageQuery) -> Result<Run<ValueOf<S>>, ModelError> {
    let Merged { mut agreed, rows, prefixes, next } = merge(source.ask(group, query).await?);
    if rows.is_empty() && prefixes.is_empty() {
        return Ok(Run { entries: agreed, next });
    }
    // All rows that are in question at once, those that stand for their prefixes included.
    let witnesses = prefixes.iter().flat_map(|doubtful| doubtful.witnesses.iter().cloned());
    let live = source.settle(group, rows.iter().cloned().chain(witnesses).collect()).await?;
    let settled = rows.into_iter().filter_map(|position| live.get(&position).cloned().map(|value| (position, Shown::Row(value))));
    agreed.extend(settled);
    let lives = |doubtful: &Doubtful| doubtful.witnesses.iter().any(|witness| live.contains_key(witness));
    let (shown, doubtful): (Vec<Doubtful>, Vec<Doubtful>) = prefixes.into_iter().partition(lives);
    agreed.extend(shown.into_iter().map(|Doubtful { position, prefix, .. }| (position, Shown::Prefix(prefix))));
    let probe = |Doubtful { position, prefix, .. }: Doubtful| async move {
        let is_live = has_live_row(source, group, &prefix).await?;
        Ok::<_, ModelError>(is_live.then_some((position, Shown::Prefix(prefix))))
    };
    let probes: Vec<_> = doubtful.into_iter().map(probe).collect();
    let probed: Vec<Option<_>> = stream::iter(probes).buffer_unordered(PREFIXES_AT_ONCE).try_collect().await?;
    agreed.extend(probed.into_iter().flatten());
    Ok(Run { entries: agreed, next })
}

/// Whether any row below a common prefix is live, where replicas differ about the first one and none of those is.
fn has_live_row<'a, S: Source>(source: &'a S, group: &'a Group, prefix: &'a [u8]) -> BoxFuture<'a, Result<bool, ModelError>> {
    async move {
        let mut from = Some(S::Index::positions_of(prefix));
        while let Some(start) = from {
            let query = PageQuery { prefix: ByteBuf::from(prefix), delimiter: None, from: ByteBuf::from(start), limit: PROBE_ITEMS };
            let run = run_one(source, group, &query).await?;
            if !run.entries.is_empty() {
                return Ok(true);
            }
            from = run.next;
        }
        Ok(false)
    }
    .boxed()
}

#[cfg(test)]
mod tests;
