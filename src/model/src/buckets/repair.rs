//! Names and buckets that were left disagreeing by an operation that was cut off between its steps.
//!
//! What a name leads to decides: no name that works stops working, and none leads anywhere new. So
//! - a name that leads to a live bucket is added to that bucket's own list;
//! - a name that leads to no live bucket is taken back;
//! - a name in a bucket's list that leads nowhere is given to it, and one that leads to another bucket is struck off the list;
//! - a deletion that was cut off is carried out, or taken back if the bucket is not empty.

use std::collections::BTreeMap;

use garage_table::{control::Effect, group::RequestContext};
use garage_util::encoding::Stored;

use super::Buckets;
use crate::{
    access::BucketView,
    error::{ClientError, ModelError},
    keys::AccessKey,
    rows::{
        ALIAS, BucketId,
        bucket::{AliasRow, BucketRow, BucketState},
    },
};

/// What a repair found and mended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AliasRepair {
    /// Names looked at, of buckets and of keys.
    pub names_count: usize,
    /// Names and buckets changed.
    pub mended_count: usize,
}

/// The live buckets of one look at the tables.
type Found = BTreeMap<BucketId, BucketView>;

impl Buckets {
    /// Makes names and buckets agree. Repeatable, and safe beside every other operation: each step is a compare-and-set.
    pub async fn repair_aliases(&self, context: RequestContext) -> Result<AliasRepair, ModelError> {
        let mut done = AliasRepair::default();
        done.mended_count += self.end_deletions(context).await?;
        let buckets: Found = self.rows(context).await?.into_iter().map(|bucket| (bucket.id, bucket)).collect();
        let names = self.global_names(context).await?;
        let keys = self.keys.list(context).await?;
        done.names_count = names.len() + keys.iter().map(|key| key.row.local_aliases.len()).sum::<usize>();
        for (name, id) in &names {
            done.mended_count += usize::from(self.follow_global(name, *id, &buckets, context).await?);
        }
        for bucket in buckets.values() {
            for name in bucket.row.global_aliases.iter().filter(|name| names.get(*name) != Some(&bucket.id)) {
                done.mended_count += usize::from(self.give_listed(name, bucket.id, context).await?);
            }
            done.mended_count += usize::from(self.strike_local(bucket, &keys, context).await?);
        }
        for key in &keys {
            for (name, id) in &key.row.local_aliases {
                done.mended_count += usize::from(self.follow_local(key, name, *id, &buckets, context).await?);
            }
        }
        Ok(done)
    }

    async fn end_deletions(&self, context: RequestContext) -> Result<usize, ModelError> {
        let mut ended_count = 0;
        for bucket in self.rows(context).await?.into_iter().filter(|bucket| bucket.row.state == BucketState::Deleting) {
            match self.delete(bucket.id, context).await {
                Ok(()) | Err(ModelError::Client(ClientError::BucketNotEmpty | ClientError::NoSuchBucket)) => ended_count += 1,
                Err(error) => return Err(error),
            }
        }
        Ok(ended_count)
    }

    /// What each name leads to.
    pub(super) async fn global_names(&self, context: RequestContext) -> Result<BTreeMap<String, BucketId>, ModelError> {
        let mut names = BTreeMap::new();
        for (sort_key, row) in self.control.list(ALIAS, context).await? {
            let (Ok(name), AliasRow { bucket: Some(id) }) = (String::from_utf8(sort_key.0), AliasRow::from_stored(&row.content)?) else {
                continue;
            };
            names.insert(name, id);
        }
        Ok(names)
    }

    /// Whether anything had to be changed for a global name that leads to `id`.
    async fn follow_global(&self, name: &str, id: BucketId, buckets: &Found, context: RequestContext) -> Result<bool, ModelError> {
        if buckets.get(&id).is_some_and(|bucket| bucket.row.global_aliases.contains(name)) {
            return Ok(false);
        }
        // The list may be older than the name: a bucket is gone only if a quorum says so.
        if self.get_fresh(id, context).await?.is_none() {
            self.release_alias(name, id, context).await?;
            return Ok(true);
        }
        self.relist(id, context, |row| row.global_aliases.insert(name.to_string())).await
    }

    /// Whether anything had to be changed for a name that a bucket lists and that does not lead to it.
    async fn give_listed(&self, name: &str, id: BucketId, context: RequestContext) -> Result<bool, ModelError> {
        match self.take_alias(name, id, context).await {
            Ok(()) => Ok(true),
            Err(ModelError::Client(ClientError::BucketExists { .. })) => {
                self.relist(id, context, |row| row.global_aliases.remove(name)).await
            }
            Err(error) => Err(error),
        }
    }

    /// Whether a key's own name had to be dropped, or added to the bucket's list.
    async fn follow_local(
        &self,
        key: &AccessKey,
        name: &str,
        id: BucketId,
        buckets: &Found,
        context: RequestContext,
    ) -> Result<bool, ModelError> {
        let lists = |bucket: &BucketView| bucket.row.local_aliases.get(&key.id).is_some_and(|names| names.contains(name));
        if buckets.get(&id).is_some_and(lists) {
            return Ok(false);
        }
        if self.get_fresh(id, context).await?.is_some() {
            return self.relist(id, context, |row| row.local_aliases.entry(key.id.clone()).or_default().insert(name.to_string())).await;
        }
        let dropped = self.keys.change(&key.id, Effect::Restricts, context, |row| {
            row.local_aliases.retain(|held, bucket| held != name || *bucket != id);
            Ok(())
        });
        match dropped.await {
            Ok(_) => Ok(true),
            Err(ModelError::Client(ClientError::NoSuchAccessKey { .. })) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Strikes off a bucket's list what is no name of that key for it. Whether there was any.
    async fn strike_local(&self, bucket: &BucketView, keys: &[AccessKey], context: RequestContext) -> Result<bool, ModelError> {
        let leads = |key_id: &str, name: &str| {
            let key = keys.iter().find(|key| key.id == key_id);
            key.and_then(|key| key.row.local_aliases.get(name)) == Some(&bucket.id)
        };
        let is_exact = bucket.row.local_aliases.iter().all(|(key_id, names)| names.iter().all(|name| leads(key_id, name)));
        if is_exact {
            return Ok(false);
        }
        self.relist(bucket.id, context, |row| {
            let before = row.local_aliases.clone();
            for (key_id, names) in &mut row.local_aliases {
                names.retain(|name| leads(key_id, name));
            }
            row.local_aliases.retain(|_, names| !names.is_empty());
            row.local_aliases != before
        })
        .await
    }

    /// Changes the lists of names of a bucket, which may be gone meanwhile; whether they changed.
    async fn relist(
        &self,
        id: BucketId,
        context: RequestContext,
        mut change: impl FnMut(&mut BucketRow) -> bool + Send,
    ) -> Result<bool, ModelError> {
        let mut has_changed = false;
        let changed = self.change(id, Effect::Grants, context, |row| {
            has_changed = change(row);
            Ok(())
        });
        match changed.await {
            Ok(_) => Ok(has_changed),
            Err(ModelError::Client(ClientError::NoSuchBucket)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
