//! Access keys: listing, showing, making, importing, changing and deleting them.

use std::collections::BTreeMap;

use garage_model::{
    RequestContext,
    access::BucketView,
    error::ClientError,
    keys::{AccessKey, NewKey},
    rows::key::KeyRow,
};
use garage_table::control::Effect;

use super::AdminApi;
use crate::{
    AdminError, Timestamp,
    limits::{LIST_INFO_PAGE_DEFAULT, LIST_PAGE_DEFAULT},
    types::{Key, KeyBucket, KeyImport, KeyItem, KeyPermissions, KeySearch, KeyUpdate, Page, Permissions},
};

/// Whether a secret goes into an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Secret {
    Shown,
    Hidden,
}

impl AdminApi {
    pub(super) async fn list_keys(&self, page: Page, context: RequestContext) -> Result<Vec<KeyItem>, AdminError> {
        let now_ms = self.now_ms();
        let keys = self.page_of_keys(page, LIST_PAGE_DEFAULT, context).await?;
        let item = |key: AccessKey| KeyItem {
            expired: key.is_expired(now_ms),
            created: Some(timestamp(key.row.created_ms)),
            expiration: key.row.expires_ms.map(timestamp),
            id: key.id,
            name: key.row.name,
        };
        Ok(keys.into_iter().map(item).collect())
    }

    pub(super) async fn list_keys_info(&self, page: Page, context: RequestContext) -> Result<Vec<Key>, AdminError> {
        let keys = self.page_of_keys(page, LIST_INFO_PAGE_DEFAULT, context).await?;
        let buckets = self.node.access.buckets().list(context).await?;
        keys.iter().map(|key| self.key_view(key, &buckets, Secret::Hidden)).collect()
    }

    /// Keys by id, from `offset` on.
    async fn page_of_keys(&self, page: Page, limit: u64, context: RequestContext) -> Result<Vec<AccessKey>, AdminError> {
        let mut keys = self.node.access.keys().list(context).await?;
        keys.sort_by(|a, b| a.id.cmp(&b.id));
        keys.retain(|key| page.offset.as_ref().is_none_or(|offset| offset <= &key.id));
        keys.truncate(usize::try_from(page.limit.unwrap_or(limit)).unwrap_or(usize::MAX));
        Ok(keys)
    }

    pub(super) async fn key_info(&self, search: KeySearch, context: RequestContext) -> Result<Key, AdminError> {
        let key = match (search.id, search.search) {
            (Some(id), None) => self.existing_key(&id, context).await?,
            (None, Some(pattern)) => self.node.access.keys().find(&pattern, context).await?,
            _ => return Err(AdminError::invalid("give exactly one of id and search")),
        };
        self.key_answer(&key, if search.show_secret_key { Secret::Shown } else { Secret::Hidden }, context).await
    }

    pub(super) async fn create_key(&self, update: KeyUpdate, context: RequestContext) -> Result<Key, AdminError> {
        check_update(&update)?;
        let permits = |permissions: Option<KeyPermissions>| permissions.is_some_and(|permissions| permissions.create_bucket);
        let new = NewKey {
            expires_ms: update.expiration.map(milliseconds).transpose()?,
            create_bucket: permits(update.allow) && !permits(update.deny),
            name: update.name.unwrap_or_else(|| "Unnamed key".to_string()),
        };
        let (key, _secret) = self.node.access.keys().create(new, context).await?;
        self.key_answer(&key, Secret::Shown, context).await
    }

    pub(super) async fn import_key(&self, import: KeyImport, context: RequestContext) -> Result<Key, AdminError> {
        let new = NewKey { name: import.name.unwrap_or_else(|| "Imported key".to_string()), ..NewKey::default() };
        let key = self.node.access.keys().import(&import.access_key_id, &import.secret_access_key, new, context).await?;
        self.key_answer(&key, Secret::Hidden, context).await
    }

    pub(super) async fn update_key(&self, id: String, update: KeyUpdate, context: RequestContext) -> Result<Key, AdminError> {
        check_update(&update)?;
        let expires_ms = update.expiration.map(milliseconds).transpose()?;
        let change = |row: &mut KeyRow| {
            if let Some(name) = &update.name {
                row.name.clone_from(name);
            }
            if update.never_expires {
                row.expires_ms = None;
            }
            row.expires_ms = expires_ms.or(row.expires_ms);
            row.create_bucket |= update.allow.is_some_and(|allow| allow.create_bucket);
            row.create_bucket &= !update.deny.is_some_and(|deny| deny.create_bucket);
            Ok(())
        };
        let restricts = expires_ms.is_some() || update.deny.is_some_and(|deny| deny.create_bucket);
        let effect = if restricts { Effect::Restricts } else { Effect::Grants };
        let key = self.node.access.keys().change(&id, effect, context, change).await?;
        self.key_answer(&key, Secret::Hidden, context).await
    }

    pub(super) async fn delete_key(&self, id: String, context: RequestContext) -> Result<(), AdminError> {
        self.existing_key(&id, context).await?;
        self.node.access.keys().delete(&id, context).await?;
        Ok(self.node.access.buckets().forget_key(&id, context).await?)
    }

    /// The key of a full id. Errors: `NoSuchAccessKey`.
    pub(super) async fn existing_key(&self, id: &str, context: RequestContext) -> Result<AccessKey, AdminError> {
        let key = self.node.access.keys().get(id, context).await?;
        key.ok_or_else(|| ClientError::NoSuchAccessKey { id: id.to_string() }.into())
    }

    async fn key_answer(&self, key: &AccessKey, secret: Secret, context: RequestContext) -> Result<Key, AdminError> {
        let buckets = self.node.access.buckets().list(context).await?;
        self.key_view(key, &buckets, secret)
    }

    fn key_view(&self, key: &AccessKey, buckets: &[BucketView], secret: Secret) -> Result<Key, AdminError> {
        let secret_access_key = match secret {
            Secret::Shown => Some(self.node.access.keys().secret(key)?),
            Secret::Hidden => None,
        };
        Ok(Key {
            access_key_id: key.id.clone(),
            created: Some(timestamp(key.row.created_ms)),
            name: key.row.name.clone(),
            expiration: key.row.expires_ms.map(timestamp),
            expired: key.is_expired(self.now_ms()),
            secret_access_key,
            permissions: KeyPermissions { create_bucket: key.row.create_bucket },
            buckets: buckets.iter().filter_map(|bucket| bucket_of_key(key, bucket)).collect(),
        })
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.node.cluster.runtime().now_ms()
    }
}

/// A bucket as one of a key's; `None` when the key has neither rights on it nor a name for it.
fn bucket_of_key(key: &AccessKey, bucket: &BucketView) -> Option<KeyBucket> {
    let permissions = bucket.permissions(key);
    let local_aliases = names_of_key(&key.row.local_aliases, bucket);
    if permissions.is_none() && local_aliases.is_empty() {
        return None;
    }
    Some(KeyBucket {
        id: bucket.id.to_string(),
        global_aliases: bucket.row.global_aliases.iter().cloned().collect(),
        local_aliases,
        permissions: permissions_view(permissions),
    })
}

fn names_of_key(aliases: &BTreeMap<String, garage_model::rows::BucketId>, bucket: &BucketView) -> Vec<String> {
    aliases.iter().filter(|(_, id)| **id == bucket.id).map(|(name, _)| name.clone()).collect()
}

pub(super) fn permissions_view(permissions: garage_model::rows::bucket::Permissions) -> Permissions {
    Permissions { read: permissions.read, write: permissions.write, owner: permissions.owner }
}

fn check_update(update: &KeyUpdate) -> Result<(), AdminError> {
    if update.never_expires && update.expiration.is_some() {
        return Err(AdminError::invalid("give either expiration or neverExpires, not both"));
    }
    Ok(())
}

fn milliseconds(time: Timestamp) -> Result<u64, AdminError> {
    u64::try_from(time.0).map_err(|_| AdminError::invalid(format!("expiration {time} lies before 1970")))
}

pub(super) fn timestamp(milliseconds: u64) -> Timestamp {
    Timestamp(i64::try_from(milliseconds).unwrap_or(i64::MAX))
}
