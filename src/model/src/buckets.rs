//! Buckets: making, naming, changing and deleting them. Every step is a compare-and-set on one control row.
//!
//! Invariants:
//! - a name leads to one bucket at most: its alias row decides, and a bucket's own row only says which names it asked for;
//! - a bucket is deleted only after every node stopped writing to it and it was found empty;
//! - a live bucket keeps its last name.

pub mod repair;

use futures::{FutureExt, future::BoxFuture};
use garage_rpc::register::WriteId;
use garage_table::{
    SortKey,
    control::{Control, Effect},
    group::{Decision, RequestContext, Updated},
    message::HeldRow,
};
use garage_util::{encoding::Stored, runtime::Runtime};

use crate::{
    access::BucketView,
    error::{ClientError, ModelError},
    keys::{AccessKey, Keys},
    limits::{BUCKETS_MAX, SHARDS_MAX},
    listing::versions::ListVersionsRequest,
    names::check_bucket_name,
    objects::{BucketRef, Objects},
    rows::{
        ALIAS, BUCKET, BucketId,
        bucket::{AliasRow, BucketRow, BucketState, Permissions},
    },
};

/// Buckets. Cheap to clone.
#[derive(Clone)]
pub struct Buckets {
    control: Control,
    objects: Objects,
    keys: Keys,
    runtime: Runtime,
    allow_punycode: bool,
}

fn bucket_key(id: BucketId) -> SortKey {
    SortKey(id.as_bytes().to_vec())
}
fn alias_key(name: &str) -> SortKey {
    SortKey(name.as_bytes().to_vec())
}
fn read(id: BucketId, row: Option<HeldRow>) -> Result<Option<BucketView>, ModelError> {
    let row = row.map(|row| BucketRow::from_stored(&row.content)).transpose()?;
    Ok(row.filter(|row| row.state != BucketState::Deleted).map(|row| BucketView { id, row }))
}

impl Buckets {
    /// Buckets over the control tables.
    pub fn new(control: Control, objects: Objects, keys: Keys, runtime: Runtime, allow_punycode: bool) -> Buckets {
        Buckets { control, objects, keys, runtime, allow_punycode }
    }

    /// The bucket of an id.
    pub async fn get(&self, id: BucketId, context: RequestContext) -> Result<Option<BucketView>, ModelError> {
        read(id, self.control.get(BUCKET, &bucket_key(id), context).await?)
    }
    /// The same, by quorum.
    pub async fn get_fresh(&self, id: BucketId, context: RequestContext) -> Result<Option<BucketView>, ModelError> {
        read(id, self.control.get_by_quorum(BUCKET, &bucket_key(id), context).await?)
    }

    /// The bucket that a name leads to: a key's own name, else a 64-digit bucket id, else a global name.
    pub async fn resolve(&self, key: Option<&AccessKey>, name: &str, context: RequestContext) -> Result<Option<BucketView>, ModelError> {
        if let Some(id) = key.and_then(|key| key.row.local_aliases.get(name)) {
            return self.get(*id, context).await;
        }
        if let Ok(id) = name.parse::<BucketId>() {
            return self.get(id, context).await;
        }
        self.by_global_name(name, context).await
    }

    /// The bucket that a global name leads to. Neither a bucket's id nor a key's own name counts.
    pub async fn by_global_name(&self, name: &str, context: RequestContext) -> Result<Option<BucketView>, ModelError> {
        match self.alias(name, context).await? {
            Some(id) => self.get(id, context).await,
            None => Ok(None),
        }
    }

    async fn alias(&self, name: &str, context: RequestContext) -> Result<Option<BucketId>, ModelError> {
        if name.is_empty() || 255 < name.len() {
            return Ok(None);
        }
        let held = self.control.get(ALIAS, &alias_key(name), context).await?;
        let bucket = |held: Option<HeldRow>| {
            Ok::<_, ModelError>(held.map(|row| AliasRow::from_stored(&row.content)).transpose()?.and_then(|row| row.bucket))
        };
        match bucket(held)? {
            Some(id) => Ok(Some(id)),
            // A name that was taken back may have been given again since: absence is never decided from the mirror.
            None => bucket(self.control.get_by_quorum(ALIAS, &alias_key(name), context).await?),
        }
    }

    /// All buckets, oldest first, each under the global names that lead to it.
    ///
    /// A bucket's row comes before its name: one that is being made has no name here yet, nor has one whose maker was stopped in between or lost
    /// the race for the name.
    pub async fn list(&self, context: RequestContext) -> Result<Vec<BucketView>, ModelError> {
        let (mut buckets, names) = futures::try_join!(self.rows(context), self.global_names(context))?;
        for BucketView { id, row } in &mut buckets {
            row.global_aliases.retain(|name| names.get(name) == Some(id));
        }
        buckets.sort_by_key(|bucket| (bucket.row.created_ms, bucket.id));
        Ok(buckets)
    }

    /// All buckets as their own rows say it.
    async fn rows(&self, context: RequestContext) -> Result<Vec<BucketView>, ModelError> {
        let mut buckets = Vec::new();
        for (sort_key, row) in self.control.list(BUCKET, context).await? {
            let Ok(id) = <[u8; 32]>::try_from(&sort_key.0[..]) else { continue };
            buckets.extend(read(BucketId(id), Some(row))?);
        }
        Ok(buckets)
    }

    /// Makes a bucket under a global name; `owner` gets all rights on it. Errors: `BucketExists`, `InvalidBucketName`, `TooManyBuckets`.
    pub async fn create(&self, name: &str, owner: Option<&AccessKey>, context: RequestContext) -> Result<BucketView, ModelError> {
        self.create_with(Some(name), owner, |_| {}, context).await
    }

    /// As [`Buckets::create`], with settings that hold from the first moment.
    pub async fn create_set_up(
        &self,
        name: &str,
        owner: &AccessKey,
        set_up: impl FnOnce(&mut BucketRow) + Send,
        context: RequestContext,
    ) -> Result<BucketView, ModelError> {
        self.create_with(Some(name), Some(owner), set_up, context).await
    }

    /// Makes a bucket that has no global name: only its id leads to it, until it is named.
    pub async fn create_unnamed(&self, owner: Option<&AccessKey>, context: RequestContext) -> Result<BucketView, ModelError> {
        self.create_with(None, owner, |_| {}, context).await
    }

    /// Checks that a bucket may have this name. Errors: `InvalidBucketName`.
    pub fn check_name(&self, name: &str) -> Result<(), ModelError> {
        Ok(check_bucket_name(name, self.allow_punycode)?)
    }

    async fn create_with(
        &self,
        name: Option<&str>,
        owner: Option<&AccessKey>,
        set_up: impl FnOnce(&mut BucketRow) + Send,
        context: RequestContext,
    ) -> Result<BucketView, ModelError> {
        name.map_or(Ok(()), |name| self.check_name(name))?;
        if BUCKETS_MAX <= self.rows(context).await?.len() {
            return Err(ClientError::TooManyBuckets { max: BUCKETS_MAX }.into());
        }
        let id = BucketId::random(&self.runtime);
        let all = Permissions { read: true, write: true, owner: true };
        let mut row = BucketRow::new(self.runtime.now_ms(), self.shard_count());
        row.global_aliases.extend(name.map(str::to_string));
        row.permissions.extend(owner.map(|key| (key.id.clone(), all)));
        set_up(&mut row);
        // The bucket first: until its name leads to it nobody can see it, and whoever loses the race for the name leaves it behind unseen.
        self.put_row(id, &row, context).await?;
        if let Some(name) = name
            && let Err(error) = self.take_alias(name, id, context).await
        {
            self.change_state(id, BucketState::Deleted, context).await?;
            return Err(error);
        }
        Ok(BucketView { id, row })
    }

    fn shard_count(&self) -> u16 {
        let layout = self.control.cluster().layout();
        let current = layout.current();
        let groups = current.storage_nodes().len().div_ceil(current.replication_factor.max(1));
        (groups.next_power_of_two() as u16).clamp(1, SHARDS_MAX)
    }

    async fn put_row(&self, id: BucketId, row: &BucketRow, context: RequestContext) -> Result<(), ModelError> {
        let decide = |_: WriteId, _: Option<HeldRow>| -> BoxFuture<'_, Decision<ModelError>> {
            std::future::ready(Decision::Write { content: row.to_stored(), companions: Vec::new() }).boxed()
        };
        match self.control.update(BUCKET, bucket_key(id), Effect::Grants, context, decide).await? {
            Updated::Written(_) => Ok(()),
            Updated::Refused(error) => Err(error),
        }
    }

    /// Makes a name lead to a bucket. Errors: `BucketExists` if it leads to another live one.
    async fn take_alias(&self, name: &str, id: BucketId, context: RequestContext) -> Result<(), ModelError> {
        let decide = |_: WriteId, held: Option<HeldRow>| {
            async move {
                let held = held.map(|row| AliasRow::from_stored(&row.content)).transpose();
                let taken = match held {
                    Err(error) => return Decision::Refuse(ModelError::from(error)),
                    Ok(row) => row.and_then(|row| row.bucket).filter(|other| *other != id),
                };
                let is_live = match taken {
                    None => false,
                    Some(other) => match self.get_fresh(other, context).await {
                        Ok(bucket) => bucket.is_some(),
                        Err(error) => return Decision::Refuse(error),
                    },
                };
                if is_live {
                    return Decision::Refuse(ClientError::BucketExists { name: name.to_string() }.into());
                }
                Decision::Write { content: AliasRow { bucket: Some(id) }.to_stored(), companions: Vec::new() }
            }
            .boxed()
        };
        match self.control.update(ALIAS, alias_key(name), Effect::Grants, context, decide).await? {
            Updated::Written(_) => Ok(()),
            Updated::Refused(error) => Err(error),
        }
    }

    /// Takes a name back, if it leads to this bucket.
    async fn release_alias(&self, name: &str, id: BucketId, context: RequestContext) -> Result<(), ModelError> {
        let decide = |_: WriteId, held: Option<HeldRow>| -> BoxFuture<'_, Decision<()>> {
            let held = held.and_then(|row| AliasRow::from_stored(&row.content).ok()).and_then(|row| row.bucket);
            let decision = match held {
                Some(held) if held == id => Decision::Write { content: AliasRow { bucket: None }.to_stored(), companions: Vec::new() },
                _ => Decision::Refuse(()),
            };
            std::future::ready(decision).boxed()
        };
        // What made the name unusable came before: nobody acts on this row any more.
        self.control.update(ALIAS, alias_key(name), Effect::Grants, context, decide).await?;
        Ok(())
    }

    /// Changes a live bucket's row. Errors: `NoSuchBucket`, and those of `change`.
    pub async fn change(
        &self,
        id: BucketId,
        effect: Effect,
        context: RequestContext,
        mut change: impl FnMut(&mut BucketRow) -> Result<(), ClientError> + Send,
    ) -> Result<BucketView, ModelError> {
        let decide = |_: WriteId, held: Option<HeldRow>| -> BoxFuture<'_, Decision<ModelError>> {
            let decided = read(id, held).and_then(|bucket| {
                let mut bucket = bucket.ok_or(ClientError::NoSuchBucket)?;
                change(&mut bucket.row)?;
                Ok(bucket.row.to_stored())
            });
            let decision = match decided {
                Ok(content) => Decision::Write { content, companions: Vec::new() },
                Err(error) => Decision::Refuse(error),
            };
            std::future::ready(decision).boxed()
        };
        match self.control.update(BUCKET, bucket_key(id), effect, context, decide).await? {
            Updated::Written(row) => Ok(BucketView { id, row: BucketRow::from_stored(&row.content)? }),
            Updated::Refused(error) => Err(error),
        }
    }

    async fn change_state(&self, id: BucketId, state: BucketState, context: RequestContext) -> Result<BucketView, ModelError> {
        // Only the first step of a deletion has to reach everyone: after it nobody writes to the bucket.
        let effect = if state == BucketState::Deleting { Effect::Restricts } else { Effect::Grants };
        self.change(id, effect, context, |row| {
            row.state = state;
            Ok(())
        })
        .await
    }

    /// Gives and takes rights of a key: `allow` is added, then `deny` taken away.
    pub async fn set_permissions(
        &self,
        id: BucketId,
        key: &AccessKey,
        allow: Permissions,
        deny: Permissions,
        context: RequestContext,
    ) -> Result<BucketView, ModelError> {
        let effect = if deny.is_none() { Effect::Grants } else { Effect::Restricts };
        self.change(id, effect, context, |row| {
            let held = row.permissions.get(&key.id).copied().unwrap_or_default();
            let merged = Permissions {
                read: (held.read || allow.read) && !deny.read,
                write: (held.write || allow.write) && !deny.write,
                owner: (held.owner || allow.owner) && !deny.owner,
            };
            if merged.is_none() {
                row.permissions.remove(&key.id);
            } else {
                row.permissions.insert(key.id.clone(), merged);
            }
            Ok(())
        })
        .await
    }

    /// Adds a global name. Errors: `BucketExists`, `InvalidBucketName`.
    pub async fn add_global_alias(&self, id: BucketId, name: &str, context: RequestContext) -> Result<BucketView, ModelError> {
        check_bucket_name(name, self.allow_punycode)?;
        self.take_alias(name, id, context).await?;
        self.change(id, Effect::Grants, context, |row| {
            row.global_aliases.insert(name.to_string());
            Ok(())
        })
        .await
    }

    /// Takes a global name away. Errors: `NoSuchAlias`, `LastAlias`.
    pub async fn remove_global_alias(&self, id: BucketId, name: &str, context: RequestContext) -> Result<BucketView, ModelError> {
        let changed = self.change(id, Effect::Restricts, context, |row| {
            if !row.global_aliases.remove(name) {
                return Err(ClientError::NoSuchAlias { name: name.to_string() });
            }
            keep_one_name(row, name)
        });
        let bucket = changed.await?;
        self.release_alias(name, id, context).await?;
        Ok(bucket)
    }

    /// Adds a name in a key's own name space. Errors: `BucketExists` if the key has that name already for another bucket.
    pub async fn add_local_alias(&self, id: BucketId, key: &str, name: &str, context: RequestContext) -> Result<BucketView, ModelError> {
        check_bucket_name(name, self.allow_punycode)?;
        let changed = self.keys.change(key, Effect::Grants, context, |row| match row.local_aliases.get(name) {
            Some(other) if *other != id => Err(ClientError::BucketExists { name: name.to_string() }),
            _ => {
                row.local_aliases.insert(name.to_string(), id);
                Ok(())
            }
        });
        changed.await?;
        self.change(id, Effect::Grants, context, |row| {
            row.local_aliases.entry(key.to_string()).or_default().insert(name.to_string());
            Ok(())
        })
        .await
    }

    /// Takes a name in a key's own name space away. Errors: `NoSuchAlias`, `LastAlias`.
    pub async fn remove_local_alias(&self, id: BucketId, key: &str, name: &str, context: RequestContext) -> Result<BucketView, ModelError> {
        let changed = self.change(id, Effect::Restricts, context, |row| {
            let names = row.local_aliases.get_mut(key).filter(|names| names.contains(name));
            names.ok_or_else(|| ClientError::NoSuchAlias { name: name.to_string() })?.remove(name);
            row.local_aliases.retain(|_, names| !names.is_empty());
            keep_one_name(row, name)
        });
        let bucket = changed.await?;
        self.keys
            .change(key, Effect::Restricts, context, |row| {
                row.local_aliases.retain(|held, bucket| held != name || *bucket != id);
                Ok(())
            })
            .await?;
        Ok(bucket)
    }

    /// Deletes an empty bucket with all its names. Errors: `BucketNotEmpty`; the bucket is then as before.
    pub async fn delete(&self, id: BucketId, context: RequestContext) -> Result<(), ModelError> {
        let marked = self.change_state(id, BucketState::Deleting, context).await?;
        match self.is_empty(&marked.as_ref(), context).await {
            Ok(true) => {}
            outcome => {
                self.change_state(id, BucketState::Live, context).await?;
                return outcome.and(Err(ClientError::BucketNotEmpty.into()));
            }
        }
        for name in &marked.row.global_aliases {
            self.release_alias(name, id, context).await?;
        }
        for (key, names) in &marked.row.local_aliases {
            let released = self.keys.change(key, Effect::Restricts, context, |row| {
                row.local_aliases.retain(|name, bucket| !names.contains(name) || *bucket != id);
                Ok(())
            });
            match released.await {
                Ok(_) | Err(ModelError::Client(ClientError::NoSuchAccessKey { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        self.change_state(id, BucketState::Deleted, context).await?;
        Ok(())
    }

    /// Drops the rights of a deleted key, and its names for buckets. Repeatable; nobody acts on what it drops, since the key is gone.
    pub async fn forget_key(&self, key: &str, context: RequestContext) -> Result<(), ModelError> {
        for bucket in self.rows(context).await? {
            if !bucket.row.permissions.contains_key(key) && !bucket.row.local_aliases.contains_key(key) {
                continue;
            }
            let changed = self.change(bucket.id, Effect::Grants, context, |row| {
                row.permissions.remove(key);
                row.local_aliases.remove(key);
                Ok(())
            });
            match changed.await {
                Ok(_) | Err(ModelError::Client(ClientError::NoSuchBucket)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn is_empty(&self, bucket: &BucketRef, context: RequestContext) -> Result<bool, ModelError> {
        let page = self.objects.list_versions(bucket, &ListVersionsRequest { limit: 1, ..ListVersionsRequest::default() }, context).await?;
        Ok(page.entries.is_empty())
    }
}

fn keep_one_name(row: &BucketRow, name: &str) -> Result<(), ClientError> {
    if row.global_aliases.is_empty() && row.local_aliases.is_empty() {
        return Err(ClientError::LastAlias { name: name.to_string() });
    }
    Ok(())
}
