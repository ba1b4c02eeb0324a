//! ListObjectVersions: keys in order, the versions of each newest first; one round trip for a page on which the nearest quorum agrees.
//!
//! Invariants:
//! - a page holds every version whose write was answered before the listing began, and none whose deletion was;
//! - a version on which replicas differ is settled before it is listed.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use garage_rpc::register::slots::Slot;
use garage_table::{Group, group::RequestContext, key::after_prefix};
use garage_util::encoding::Stored;
use serde_bytes::ByteBuf;

use super::{
    replica::{self, Query},
    replica_versions::{Item, KEY_SLOTS_MAX, KeyQuery, Place, VersionsAnswer, VersionsQuery},
};
use crate::{
    error::ModelError,
    index::Shown,
    objects::{BucketRef, Objects, versions::Mark},
    rows::VERSION,
};

/// Shards asked at once.
const GROUPS_AT_ONCE: usize = 16;
/// Versions looked at at a time below a common prefix on which replicas differ.
const PREFIX_PROBE_VERSIONS: u32 = 100;

/// What to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListVersionsRequest {
    /// Only keys that start with it.
    pub prefix: String,
    /// Folds keys into common prefixes; empty is the same as none.
    pub delimiter: Option<String>,
    /// Lists strictly after this key; if it is a common prefix, after all keys below it.
    pub key_marker: Option<String>,
    /// Lists after this version of the key marker instead of after all of them.
    pub version_marker: Option<Slot>,
    /// Versions and common prefixes together, at the most.
    pub limit: usize,
}

/// An entry of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "nearly every item of a page is a version: a box each would only cost")]
pub enum VersionEntry {
    /// A version.
    Version(ListedVersion),
    /// A common prefix, the delimiter included.
    Prefix(String),
}

/// A version as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedVersion {
    /// Its key.
    pub key: String,
    /// Which.
    pub slot: Slot,
    /// Whether it is the current one.
    pub is_latest: bool,
    /// What is shown of it.
    pub shown: Shown,
    /// Of its row, as it was listed.
    pub mark: Mark,
}

/// A page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionsPage {
    /// In byte order of keys and prefixes, newest versions first.
    pub entries: Vec<VersionEntry>,
    /// Whether more follows.
    pub truncated: bool,
}

/// Settled entries by place, up to where they are complete.
struct Run {
    entries: BTreeMap<Place, VersionEntry>,
    next: Option<Place>,
}

impl Objects {
    /// A page of the versions of a bucket.
    pub async fn list_versions(
        &self,
        bucket: &BucketRef,
        request: &ListVersionsRequest,
        context: RequestContext,
    ) -> Result<VersionsPage, ModelError> {
        if request.limit == 0 {
            return Ok(VersionsPage::default());
        }
        let (first, mut behind) = first_place(request);
        let mut from = Some(first);
        let mut entries = BTreeMap::new();
        // One more than asked for tells whether the page is the last.
        while let Some(start) = from
            && entries.len() <= request.limit
        {
            let query = VersionsQuery {
                prefix: ByteBuf::from(request.prefix.as_bytes()),
                delimiter: request.delimiter.as_ref().filter(|text| !text.is_empty()).map(|text| ByteBuf::from(text.as_bytes())),
                from: start,
                behind: behind.take(),
                limit: (request.limit + 1 - entries.len()) as u32,
            };
            let run = self.list_versions_of_all(bucket, &query, context).await?;
            entries.extend(run.entries);
            from = run.next;
        }
        let truncated = request.limit < entries.len();
        Ok(VersionsPage { entries: entries.into_values().take(request.limit).collect(), truncated })
    }

    /// The versions of one shard from a place on, and where to go on.
    pub(crate) async fn list_group_versions(
        &self,
        group: &Group,
        from: Option<Place>,
        limit: u32,
        context: RequestContext,
    ) -> Result<(Vec<VersionEntry>, Option<Place>), ModelError> {
        let from = from.unwrap_or_else(|| Place::at_key(Vec::new()));
        let query = VersionsQuery { prefix: ByteBuf::new(), delimiter: None, from, behind: None, limit };
        let run = self.list_versions_of(group.clone(), query, context).await?;
        Ok((run.entries.into_values().collect(), run.next))
    }

    async fn list_versions_of_all(&self, bucket: &BucketRef, query: &VersionsQuery, context: RequestContext) -> Result<Run, ModelError> {
        let groups = bucket.groups().collect::<Vec<Group>>();
        let runs = stream::iter(groups).map(|group| self.list_versions_of(group, query.clone(), context)).buffer_unordered(GROUPS_AT_ONCE);
        let runs: Vec<Run> = runs.try_collect().await?;
        let next = runs.iter().filter_map(|run| run.next.clone()).min();
        let complete = |place: &Place| next.as_ref().is_none_or(|next| place < next);
        let entries = runs.into_iter().flat_map(|run| run.entries).filter(|(place, _)| complete(place)).collect();
        Ok(Run { entries, next })
    }

    /// One shard's part: asks the nearest quorum, settles what they differ in.
    async fn list_versions_of(&self, group: Group, query: VersionsQuery, context: RequestContext) -> Result<Run, ModelError> {
        let step = self.step(context);
        let answers = self.tables.query(&group, VERSION, Query::Versions(query.clone()).to_stored(), step).await?;
        let answers = answers.iter().map(|answer| VersionsAnswer::from_stored(answer)).collect::<Result<Vec<_>, _>>()?;
        let Merged { mut entries, keys, prefixes, next } = merge(answers);
        for (key, slots) in keys {
            let settled = self.settle_versions(&group, &key, slots, context).await?;
            let complete = settled.into_iter().filter(|(place, _)| next.as_ref().is_none_or(|next| place < next));
            entries.extend(complete);
        }
        for prefix in prefixes {
            if Box::pin(self.has_version(&group, &prefix, step)).await? {
                entries.extend(text(&prefix).map(|text| (Place::at_key(prefix.clone()), VersionEntry::Prefix(text))));
            }
        }
        Ok(Run { entries, next })
    }

    /// The versions among `slots` that a key has, once a quorum knows them.
    async fn settle_versions(
        &self,
        group: &Group,
        key: &str,
        slots: BTreeSet<Slot>,
        context: RequestContext,
    ) -> Result<Vec<(Place, VersionEntry)>, ModelError> {
        let slots: Vec<Slot> = slots.into_iter().collect();
        let mut listed = Vec::new();
        for some in slots.chunks(KEY_SLOTS_MAX) {
            let query = KeyQuery { key: key.to_string(), slots: some.to_vec(), older: 0 };
            let state = self.settle(group, &query, context).await?;
            let current = state.head.as_ref().filter(|(_, row)| row.to_head().content.is_some()).map(|(_, row)| row.slot());
            for (slot, merged) in state.rows {
                let Some((row, content)) = merged.row.as_ref().and_then(|row| Some((row, row.content.as_ref()?))) else { continue };
                let (is_latest, shown) = (current == Some(slot), Shown::from(content));
                let version = ListedVersion { key: key.to_string(), slot, is_latest, shown, mark: row.mark() };
                listed.push((Place::of(key, row.origin.order, slot), VersionEntry::Version(version)));
            }
        }
        Ok(listed)
    }

    /// Whether any key below a common prefix has a version, where replicas differ about it.
    async fn has_version(&self, group: &Group, prefix: &[u8], context: RequestContext) -> Result<bool, ModelError> {
        let mut from = Some(Place::at_key(prefix));
        while let Some(start) = from {
            let query =
                VersionsQuery { prefix: ByteBuf::from(prefix), delimiter: None, from: start, behind: None, limit: PREFIX_PROBE_VERSIONS };
            let run = self.list_versions_of(group.clone(), query, context).await?;
            if !run.entries.is_empty() {
                return Ok(true);
            }
            from = run.next;
        }
        Ok(false)
    }
}

/// The first place that may come, and the version of its key behind which the page begins.
fn first_place(request: &ListVersionsRequest) -> (Place, Option<Slot>) {
    let prefix = request.prefix.as_bytes().to_vec();
    let Some(marker) = request.key_marker.as_ref().filter(|marker| !marker.is_empty()) else { return (Place::at_key(prefix), None) };
    let marker = marker.as_bytes();
    let delimiter = request.delimiter.as_ref().map(|delimiter| delimiter.as_bytes());
    let common = if marker.starts_with(&prefix) { replica::folded(marker, &prefix, delimiter) } else { None };
    if let Some(next) = common.and_then(after_prefix) {
        return (Place::at_key(next.max(prefix)), None);
    }
    match request.version_marker {
        Some(slot) if prefix.as_slice() <= marker => (Place::at_key(marker), Some(slot)),
        _ => (Place::at_key([marker, &[0]].concat().max(prefix)), None),
    }
}

/// What the answers of a quorum agree upon, and what they differ in.
struct Merged {
    entries: BTreeMap<Place, VersionEntry>,
    /// Keys with the slots that were named.
    keys: BTreeMap<String, BTreeSet<Slot>>,
    prefixes: Vec<Vec<u8>>,
    next: Option<Place>,
}

fn merge(answers: Vec<VersionsAnswer>) -> Merged {
    let next = answers.iter().filter_map(|answer| answer.next.clone()).min();
    let answer_count = answers.len();
    let mut by_key: BTreeMap<Vec<u8>, Vec<Vec<Item>>> = BTreeMap::new();
    for (index, answer) in answers.into_iter().enumerate() {
        for item in answer.items {
            let place = item.place();
            // Past the end of the shortest answer nothing is known of the one that was cut there.
            if next.as_ref().is_none_or(|next| place < *next) {
                let of_key = by_key.entry(place.key.to_vec()).or_insert_with(|| vec![Vec::new(); answer_count]);
                of_key[index].push(item);
            }
        }
    }
    let mut merged = Merged { entries: BTreeMap::new(), keys: BTreeMap::new(), prefixes: Vec::new(), next };
    for (position, mut of_answers) in by_key {
        let Some(name) = text(&position) else { continue };
        let agreed = of_answers.windows(2).all(|pair| pair[0] == pair[1]);
        let is_prefix = of_answers.iter().flatten().any(|item| matches!(item, Item::Prefix { .. }));
        match (is_prefix, agreed) {
            (true, true) => drop(merged.entries.insert(Place::at_key(position), VersionEntry::Prefix(name))),
            (true, false) => merged.prefixes.push(position),
            (false, true) => merged.entries.extend(of_answers.swap_remove(0).into_iter().filter_map(|item| entry_of(item, &name))),
            (false, false) => {
                let slots = of_answers.into_iter().flatten().filter_map(|item| match item {
                    Item::Version { version, .. } => Some(version.slot),
                    Item::Prefix { .. } => None,
                });
                merged.keys.insert(name, slots.collect());
            }
        }
    }
    merged
}

fn entry_of(item: Item, name: &str) -> Option<(Place, VersionEntry)> {
    let place = item.place();
    let Item::Version { is_head, version, .. } = item else { return None };
    let mark = (version.stamp, version.origin.id, true);
    let version = ListedVersion { key: name.to_string(), slot: version.slot, is_latest: is_head, shown: version.shown, mark };
    Some((place, VersionEntry::Version(version)))
}

/// Keys are UTF-8; a delimiter that splits a character can make a prefix that is not, which can't be shown.
fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}
