//! LIST: one round trip for a page on which the nearest quorum agrees, over all shards of the bucket.
//!
//! Invariants:
//! - a page holds every key whose write was answered before the LIST began, and no key whose deletion was;
//! - a key or common prefix on which replicas differ is settled by reading it, never by guessing.

pub mod replica;
pub mod replica_versions;
pub mod versions;

use std::collections::BTreeMap;

use futures::{FutureExt, future::BoxFuture};
use garage_table::{
    Group,
    group::{RegisterRead, RequestContext},
    key::after_prefix,
    message::Want,
};
use garage_util::encoding::Stored;
use serde_bytes::ByteBuf;

use self::replica::{Heads, Query};
use crate::{
    error::ModelError,
    objects::{BucketRef, Objects},
    paging::{self, Answers, PageAnswer, PageQuery, Settled, Shown, folded},
    rows::{
        VERSION,
        object::{ObjectSummary, VersionRow, null_slot},
    },
};

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

impl Objects {
    /// A page of a bucket.
    pub async fn list(&self, bucket: &BucketRef, request: &ListRequest, context: RequestContext) -> Result<ListPage, ModelError> {
        if request.limit == 0 {
            return Ok(ListPage::default());
        }
        let groups = bucket.groups().collect::<Vec<Group>>();
        let source = HeadsSource { objects: self, context: self.step(context) };
        let delimiter = request.delimiter.as_ref().filter(|text| !text.is_empty());
        let query = PageQuery {
            prefix: ByteBuf::from(request.prefix.as_bytes()),
            delimiter: delimiter.map(|text| ByteBuf::from(text.as_bytes())),
            from: ByteBuf::from(first_position(request)),
            limit: 0,
        };
        let entries = paging::page(&source, &groups, query, request.limit).await?;
        let truncated = request.limit < entries.len();
        Ok(ListPage { entries: entries.into_iter().take(request.limit).filter_map(entry).collect(), truncated })
    }
}

/// Keys are UTF-8, and so are prefixes cut behind a delimiter that is.
fn entry((position, shown): (Vec<u8>, Shown<ObjectSummary>)) -> Option<ListEntry> {
    let text = String::from_utf8(position).ok()?;
    Some(match shown {
        Shown::Row(summary) => ListEntry::Object { key: text, summary },
        Shown::Prefix(_) => ListEntry::Prefix(text),
    })
}

struct HeadsSource<'a> {
    objects: &'a Objects,
    context: RequestContext,
}

impl paging::Source for HeadsSource<'_> {
    type Index = Heads;

    fn ask<'a>(&'a self, group: &'a Group, query: &'a PageQuery) -> BoxFuture<'a, Answers<ObjectSummary>> {
        async move {
            let request = Query::List(query.clone()).to_stored();
            let answers = self.objects.tables.query(group, VERSION, request, self.context).await?;
            answers.iter().map(|answer| Ok(PageAnswer::from_stored(answer)?)).collect()
        }
        .boxed()
    }

    fn settle<'a>(&'a self, group: &'a Group, positions: Vec<Vec<u8>>) -> BoxFuture<'a, Settled<ObjectSummary>> {
        async move {
            let keys: Vec<String> = positions.into_iter().filter_map(|position| String::from_utf8(position).ok()).collect();
            let reads = keys.iter().map(|key| RegisterRead { table: VERSION, key: null_slot(key), want: Want::Row }).collect();
            let rows = self.objects.tables.read(group, reads, self.context).await?;
            let mut live = BTreeMap::new();
            for (key, read) in keys.into_iter().zip(rows) {
                let version = read.row.map(|row| VersionRow::from_stored(&row.content)).transpose()?;
                if let Some(meta) = version.as_ref().and_then(VersionRow::object) {
                    live.insert(key.into_bytes(), ObjectSummary::from(meta));
                }
            }
            Ok(live)
        }
        .boxed()
    }
}

/// The smallest position that may come.
fn first_position(request: &ListRequest) -> Vec<u8> {
    let prefix = request.prefix.as_bytes().to_vec();
    let Some(after) = request.after.as_ref().filter(|after| !after.is_empty()) else { return prefix };
    let after = after.as_bytes();
    let delimiter = request.delimiter.as_ref().map(|delimiter| delimiter.as_bytes());
    // A common prefix is listed only if it is greater than the marker, so the one that the marker folds into is skipped as a whole.
    let common = if after.starts_with(&prefix) { folded(after, &prefix, delimiter) } else { None };
    if let Some(next) = common.and_then(after_prefix) {
        return next.max(prefix);
    }
    [after, &[0]].concat().max(prefix)
}

#[cfg(test)]
mod tests {
    use super::{ListRequest, first_position, folded};

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
