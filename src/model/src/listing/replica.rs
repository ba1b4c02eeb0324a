//! A replica's side of LIST: pages of the head index, and the counters kept beside it.

use garage_db::Snapshot;
use garage_rpc::register::Entry;
use garage_table::{Group, schema::StoreError};
use garage_util::encoding::Stored;
use serde::{Deserialize, Serialize};

use super::replica_versions::{self as versions, KeyQuery, VersionsQuery};
use crate::{
    index::{Counters, Head, counters, head_prefix},
    paging::{Index, PageQuery, walk},
    rows::object::ObjectSummary,
};

pub use crate::paging::folded;

/// What a coordinator asks of a group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Query {
    /// A page of keys and common prefixes.
    List(PageQuery),
    /// The group's counters.
    Counters,
    /// A page of versions.
    Versions(VersionsQuery),
    /// Versions of one key.
    Key(KeyQuery),
}
impl Stored for Query {
    const WHAT: &'static str = "index query";
}

/// The newest live version of each key, by key.
pub(super) struct Heads;

impl Index for Heads {
    type Value = ObjectSummary;
    fn prefix(group: &Group) -> Vec<u8> {
        head_prefix(group)
    }
    fn positions_of(start: &[u8]) -> Vec<u8> {
        start.to_vec()
    }
    fn key_of(position: &[u8]) -> Option<Vec<u8>> {
        Some(position.to_vec())
    }
    fn read(stored: &[u8]) -> Result<(Entry, ObjectSummary), StoreError> {
        let head = Head::from_stored(stored)?;
        Ok((head.entry, head.summary))
    }
}

/// Answers a stored [`Query`]; `now_ms` is this replica's clock.
pub fn answer(snapshot: &dyn Snapshot, group: &Group, request: &[u8], now_ms: u64) -> Result<Vec<u8>, StoreError> {
    match Query::from_stored(request)? {
        Query::Versions(query) => Ok(versions::list(snapshot, group, &query)?.to_stored()),
        Query::Key(query) => Ok(versions::of_key(snapshot, group, &query, now_ms)?.to_stored()),
        Query::List(query) => Ok(walk::<Heads>(snapshot, group, &query)?.to_stored()),
        Query::Counters => {
            let counters: Counters = counters(snapshot, group)?;
            Ok(counters.to_stored())
        }
    }
}
