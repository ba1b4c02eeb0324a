//! A replica's side of LIST: walks the head index, folds common prefixes with a witness for each, and says where it stopped.

use std::ops::Bound;

use garage_db::{Direction, Snapshot};
use garage_rpc::register::Entry;
use garage_table::{Group, key::after_prefix, keyspaces, schema::StoreError};
use garage_util::encoding::Stored;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::index::{Counters, Head, counters, head_prefix};

/// Index entries read for one answer, after which it is cut.
pub const SCANNED_ROWS_MAX: usize = 10_000;
/// Bytes of an answer, after which it is cut.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// What a coordinator asks of a group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Query {
    /// A page of keys and common prefixes.
    List(ListQuery),
    /// The group's counters.
    Counters,
}
impl Stored for Query {
    const WHAT: &'static str = "index query";
}

/// A page of keys and common prefixes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListQuery {
    /// Only keys that start with it.
    pub prefix: ByteBuf,
    /// Folds what follows the prefix up to and including it. Never empty.
    pub delimiter: Option<ByteBuf>,
    /// The smallest key that may come.
    pub from: ByteBuf,
    /// Items at the most.
    pub limit: u32,
}

/// A replica's page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListAnswer {
    /// In order.
    pub items: Vec<Item>,
    /// Where to go on; `None`: nothing follows.
    pub next: Option<ByteBuf>,
}
impl Stored for ListAnswer {
    const WHAT: &'static str = "list answer";
}

/// A key or a common prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Item {
    /// A key with its newest live version.
    Key {
        /// The object key.
        key: ByteBuf,
        /// The version.
        head: Head,
    },
    /// A common prefix, with the first live key below it as witness.
    Prefix {
        /// The delimiter included.
        prefix: ByteBuf,
        /// The first key below it.
        witness_key: ByteBuf,
        /// Its version.
        witness: Entry,
    },
}

impl Item {
    /// Its place in the order.
    pub fn position(&self) -> &[u8] {
        match self {
            Item::Key { key, .. } => key,
            Item::Prefix { prefix, .. } => prefix,
        }
    }
}

/// Answers a stored [`Query`].
pub fn answer(snapshot: &dyn Snapshot, group: &Group, request: &[u8]) -> Result<Vec<u8>, StoreError> {
    match Query::from_stored(request)? {
        Query::List(query) => Ok(list(snapshot, group, &query)?.to_stored()),
        Query::Counters => {
            let counters: Counters = counters(snapshot, group)?;
            Ok(counters.to_stored())
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

/// Walks the head index of a group.
pub fn list(snapshot: &dyn Snapshot, group: &Group, query: &ListQuery) -> Result<ListAnswer, StoreError> {
    let index_prefix = head_prefix(group);
    let end = after_prefix(&[&index_prefix[..], &query.prefix].concat());
    let mut walk = Walk { items: Vec::new(), scanned_count: 0, size_bytes: 0, limit: query.limit as usize };
    let mut from: Vec<u8> = query.from.to_vec().max(query.prefix.to_vec());
    loop {
        let start = [&index_prefix[..], &from].concat();
        if end.as_ref().is_some_and(|end| *end <= start) {
            return Ok(ListAnswer { items: walk.items, next: None });
        }
        let end_bound = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut jump = None;
        for entry in snapshot.range(keyspaces::INDEX, Bound::Included(&start), end_bound, Direction::Forward) {
            let (index_key, value) = entry?;
            let key = index_key.slice(index_prefix.len()..);
            if walk.is_full() {
                return Ok(ListAnswer { items: walk.items, next: Some(ByteBuf::from(key.to_vec())) });
            }
            let head = Head::from_stored(&value)?;
            let Some(common) = folded(&key, &query.prefix, query.delimiter.as_ref().map(|delimiter| &delimiter[..])) else {
                walk.push(Item::Key { key: ByteBuf::from(key.to_vec()), head });
                continue;
            };
            let (prefix, witness_key) = (ByteBuf::from(common), ByteBuf::from(key.to_vec()));
            walk.push(Item::Prefix { prefix, witness_key, witness: head.entry });
            // Everything else below the prefix is skipped by a seek, however much it is.
            jump = Some(after_prefix(common));
            break;
        }
        match jump {
            Some(Some(next)) => from = next,
            _ => return Ok(ListAnswer { items: walk.items, next: None }),
        }
    }
}

struct Walk {
    items: Vec<Item>,
    scanned_count: usize,
    size_bytes: usize,
    limit: usize,
}

impl Walk {
    fn is_full(&self) -> bool {
        self.limit <= self.items.len() || SCANNED_ROWS_MAX <= self.scanned_count || ANSWER_BYTES_MAX <= self.size_bytes
    }
    fn push(&mut self, item: Item) {
        self.scanned_count += 1;
        self.size_bytes += 100 + item.position().len();
        self.items.push(item);
    }
}
