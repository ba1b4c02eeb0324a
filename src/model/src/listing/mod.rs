//! LIST: one round trip for a page on which the nearest quorum agrees, over all shards of the bucket.
//!
//! Invariants:
//! - a page holds every key whose write was answered before the LIST began, and no key whose deletion was;
//! - a key or common prefix on which replicas differ is settled by reading it, never by guessing.

pub mod replica;

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};
use garage_table::{
    Group,
    group::{RegisterRead, RequestContext},
    key::after_prefix,
    message::Want,
};
use garage_util::encoding::Stored;
use serde_bytes::ByteBuf;

use self::replica::{Item, ListAnswer, ListQuery, Query};
use crate::{
    error::ModelError,
    objects::{BucketRef, Objects},
    rows::{
        VERSION,
        object::{ObjectSummary, VersionRow, null_slot},
    },
};

/// Shards asked at once.
const GROUPS_AT_ONCE: usize = 16;
/// Keys looked at at a time below a common prefix on which replicas differ.
const PREFIX_PROBE_KEYS: u32 = 100;

/// What to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListRequest {
    /// Only keys that start with it.
    pub prefix: String,
    /// Folds keys into common prefixes; empty is the same as none.
    pub delimiter: Option<String>,
    /// Lists strictly after this key; if it is a common prefix, after all keys below it.
    pub after: Option<String>,
    /// Keys and common prefixes together, at the most.
    pub limit: usize,
}

/// An entry of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListEntry {
    /// An object.
    Object {
        /// Its key.
        key: String,
        /// What is shown of it.
        summary: ObjectSummary,
    },
    /// A common prefix, the delimiter included.
    Prefix(String),
}

impl ListEntry {
    /// What a next page is asked for with.
    pub fn marker(&self) -> &str {
        match self {
            ListEntry::Object { key, .. } => key,
            ListEntry::Prefix(prefix) => prefix,
        }
    }
}

/// A page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListPage {
    /// In byte order of keys and prefixes.
    pub entries: Vec<ListEntry>,
    /// Whether more follows.
    pub truncated: bool,
}

/// Settled entries by position, up to where they are complete.
struct Run {
    entries: BTreeMap<Vec<u8>, ListEntry>,
    next: Option<Vec<u8>>,
}

impl Objects {
    /// A page of a bucket.
    pub async fn list(&self, bucket: &BucketRef, request: &ListRequest, context: RequestContext) -> Result<ListPage, ModelError> {
        if request.limit == 0 {
            return Ok(ListPage::default());
        }
        let mut from = Some(first_position(request));
        let mut entries = BTreeMap::new();
        // One more than asked for tells whether the page is the last.
        while let Some(start) = from
            && entries.len() <= request.limit
        {
            let query = ListQuery {
                prefix: ByteBuf::from(request.prefix.as_bytes()),
                delimiter: request.delimiter.as_ref().filter(|text| !text.is_empty()).map(|text| ByteBuf::from(text.as_bytes())),
                from: ByteBuf::from(start),
                limit: (request.limit + 1 - entries.len()) as u32,
            };
            let run = self.list_all_groups(bucket, &query, context).await?;
            entries.extend(run.entries);
            from = run.next;
        }
        let truncated = request.limit < entries.len();
        Ok(ListPage { entries: entries.into_values().take(request.limit).collect(), truncated })
    }

    async fn list_all_groups(&self, bucket: &BucketRef, query: &ListQuery, context: RequestContext) -> Result<Run, ModelError> {
        let groups = bucket.groups().collect::<Vec<Group>>();
        let runs = stream::iter(groups).map(|group| self.list_group(group, query.clone(), context)).buffer_unordered(GROUPS_AT_ONCE);
        let runs: Vec<Run> = runs.try_collect().await?;
        let next = runs.iter().filter_map(|run| run.next.clone()).min();
        let complete = |position: &Vec<u8>| next.as_ref().is_none_or(|next| position < next);
        let entries = runs.into_iter().flat_map(|run| run.entries).filter(|(position, _)| complete(position)).collect();
        Ok(Run { entries, next })
    }

    /// One shard's part: asks the nearest quorum, settles what they differ in.
    async fn list_group(&self, group: Group, query: ListQuery, context: RequestContext) -> Result<Run, ModelError> {
        let step = self.step(context);
        let answers = self.tables.query(&group, VERSION, Query::List(query.clone()).to_stored(), step).await?;
        let answers: Vec<ListAnswer> = answers.iter().map(|answer| ListAnswer::from_stored(answer)).collect::<Result<_, _>>()?;
        let Merged { mut entries, keys, prefixes, next } = merge(answers);
        for (key, summary) in self.settle_keys(&group, keys, step).await? {
            entries.insert(key.clone().into_bytes(), ListEntry::Object { key, summary });
        }
        for prefix in prefixes {
            if Box::pin(self.has_live_key(&group, &prefix, step)).await? {
                entries.extend(text(&prefix).map(|text| (prefix.clone(), ListEntry::Prefix(text))));
            }
        }
        Ok(Run { entries, next })
    }

    /// Reads keys on which replicas differ; what is live comes back.
    async fn settle_keys(
        &self,
        group: &Group,
        keys: Vec<String>,
        context: RequestContext,
    ) -> Result<Vec<(String, ObjectSummary)>, ModelError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let reads = keys.iter().map(|key| RegisterRead { table: VERSION, key: null_slot(key), want: Want::Row }).collect();
        let rows = self.tables.read(group, reads, context).await?;
        let mut live = Vec::new();
        for (key, read) in keys.into_iter().zip(rows) {
            let version = read.row.map(|row| VersionRow::from_stored(&row.content)).transpose()?;
            if let Some(meta) = version.as_ref().and_then(VersionRow::object) {
                live.push((key, ObjectSummary::from(meta)));
            }
        }
        Ok(live)
    }

    /// Whether any key below a common prefix is live, where replicas differ about its first one.
    async fn has_live_key(&self, group: &Group, prefix: &[u8], context: RequestContext) -> Result<bool, ModelError> {
        let mut from = Some(prefix.to_vec());
        while let Some(start) = from {
            let query = ListQuery { prefix: ByteBuf::from(prefix), delimiter: None, from: ByteBuf::from(start), limit: PREFIX_PROBE_KEYS };
            let run = self.list_group(group.clone(), query, context).await?;
            if !run.entries.is_empty() {
                return Ok(true);
            }
            from = run.next;
        }
        Ok(false)
    }
}

/// The smallest position that may come.
fn first_position(request: &ListRequest) -> Vec<u8> {
    let prefix = request.prefix.as_bytes().to_vec();
    let Some(after) = request.after.as_ref().filter(|after| !after.is_empty()) else { return prefix };
    let after = after.as_bytes();
    let delimiter = request.delimiter.as_ref().map(|delimiter| delimiter.as_bytes());
    // A common prefix is listed only if it is greater than the marker, so the one that the marker folds into is skipped as a whole.
    let common = if after.starts_with(&prefix) { replica::folded(after, &prefix, delimiter) } else { None };
    if let Some(next) = common.and_then(after_prefix) {
        return next.max(prefix);
    }
    [after, &[0]].concat().max(prefix)
}

/// What the answers of a quorum agree upon, and what they differ in.
struct Merged {
    entries: BTreeMap<Vec<u8>, ListEntry>,
    keys: Vec<String>,
    prefixes: Vec<Vec<u8>>,
    next: Option<Vec<u8>>,
}

fn merge(answers: Vec<ListAnswer>) -> Merged {
    let next = answers.iter().filter_map(|answer| answer.next.as_ref().map(|next| next.to_vec())).min();
    let answer_count = answers.len();
    let mut by_position: BTreeMap<Vec<u8>, Vec<Item>> = BTreeMap::new();
    for item in answers.into_iter().flat_map(|answer| answer.items) {
        // Past the end of the shortest answer nothing is known of the one that was cut there.
        if next.as_ref().is_none_or(|next| item.position() < &next[..]) {
            by_position.entry(item.position().to_vec()).or_default().push(item);
        }
    }
    let mut merged = Merged { entries: BTreeMap::new(), keys: Vec::new(), prefixes: Vec::new(), next };
    for (position, items) in by_position {
        let agreed = items.len() == answer_count && items.windows(2).all(|pair| pair[0] == pair[1]);
        match (items.into_iter().next(), agreed, text(&position)) {
            (Some(Item::Key { head, .. }), true, Some(key)) => {
                merged.entries.insert(position, ListEntry::Object { key, summary: head.summary });
            }
            (Some(Item::Prefix { .. }), true, Some(prefix)) => {
                merged.entries.insert(position, ListEntry::Prefix(prefix));
            }
            (Some(Item::Key { .. }), false, Some(key)) => merged.keys.push(key),
            (Some(Item::Prefix { .. }), false, _) => merged.prefixes.push(position),
            _ => {}
        }
    }
    merged
}

/// Keys are UTF-8; a delimiter that splits a character can make a prefix that is not, which can't be shown.
fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::{ListRequest, first_position, replica::folded};

    #[test]
    fn keys_fold_at_the_first_delimiter_behind_the_prefix() {
        let fold = |key: &str, prefix: &str, delimiter: &str| {
            folded(key.as_bytes(), prefix.as_bytes(), Some(delimiter.as_bytes())).map(|common| String::from_utf8(common.to_vec()).unwrap())
        };
        assert_eq!(fold("a/b/c", "", "/").as_deref(), Some("a/"));
        assert_eq!(fold("a/b/c", "a/", "/").as_deref(), Some("a/b/"));
        assert_eq!(fold("a/b/c", "a/b/", "/"), None);
        assert_eq!(fold("a/", "", "/").as_deref(), Some("a/"));
        assert_eq!(fold("a--b--c", "a", "--").as_deref(), Some("a--"));
        assert_eq!(fold("abc", "", ""), None);
    }

    #[test]
    fn a_marker_skips_the_common_prefix_that_it_folds_into() {
        let at = |prefix: &str, delimiter: Option<&str>, after: &str| {
            let request =
                ListRequest { prefix: prefix.into(), delimiter: delimiter.map(String::from), after: Some(after.into()), limit: 1 };
            first_position(&request)
        };
        assert_eq!(at("", Some("/"), "a/"), b"a0");
        assert_eq!(at("", Some("/"), "a/b"), b"a0");
        assert_eq!(at("a/", Some("/"), "a/b"), b"a/b\0");
        assert_eq!(at("", None, "a/"), b"a/\0");
        assert_eq!(at("b", Some("/"), "a/"), b"b");
        assert_eq!(at("a/", Some("/"), "a/"), b"a/\0", "the prefix itself is not a common prefix");
    }
}
