//! Buckets: listing, finding and showing them with what they hold.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use garage_model::{
    RequestContext,
    access::BucketView,
    error::ClientError,
    keys::AccessKey,
    rows::{BucketId, bucket::BucketRow},
};

use super::{
    AdminApi,
    keys::{permissions_view, timestamp},
    rules,
};
use crate::{
    AdminError,
    limits::{LIST_INFO_PAGE_DEFAULT, LIST_PAGE_DEFAULT, LOOKUPS_AT_ONCE},
    types::{Bucket, BucketItem, BucketKey, BucketLocalAlias, BucketSearch, Page, Quotas, Website},
};

/// Bucket names are no longer; what is longer cannot be one.
const NAME_LEN_MAX: usize = 63;
/// Hexadecimal digits of a bucket id that a search pattern needs at least.
const ID_PREFIX_LEN_MIN: usize = 2;

impl AdminApi {
    pub(super) async fn list_buckets(&self, page: Page, context: RequestContext) -> Result<Vec<BucketItem>, AdminError> {
        let buckets = self.page_of_buckets(page, LIST_PAGE_DEFAULT, context).await?;
        let item = |bucket: BucketView| BucketItem {
            id: bucket.id.to_string(),
            created: timestamp(bucket.row.created_ms),
            local_aliases: local_aliases(&bucket.row),
            global_aliases: bucket.row.global_aliases.into_iter().collect(),
        };
        Ok(buckets.into_iter().map(item).collect())
    }

    pub(super) async fn list_buckets_info(&self, page: Page, context: RequestContext) -> Result<Vec<Bucket>, AdminError> {
        let buckets = self.page_of_buckets(page, LIST_INFO_PAGE_DEFAULT, context).await?;
        let views = buckets.into_iter().map(|bucket| async move { self.bucket_view(bucket, context).await });
        stream::iter(views).buffered(LOOKUPS_AT_ONCE).try_collect().await
    }

    /// Buckets by id, from `offset` on.
    async fn page_of_buckets(&self, page: Page, limit: u64, context: RequestContext) -> Result<Vec<BucketView>, AdminError> {
        let offset = page.offset.as_deref().map(bucket_id).transpose()?.unwrap_or_default();
        let mut buckets = self.node.access.buckets().list(context).await?;
        buckets.retain(|bucket| offset <= bucket.id);
        buckets.sort_by_key(|bucket| bucket.id);
        buckets.truncate(usize::try_from(page.limit.unwrap_or(limit)).unwrap_or(usize::MAX));
        Ok(buckets)
    }

    pub(super) async fn bucket_info(&self, search: BucketSearch, context: RequestContext) -> Result<Bucket, AdminError> {
        let bucket = match (search.id, search.global_alias, search.search) {
            (Some(id), None, None) => self.existing_bucket(&id, context).await?,
            (None, Some(name), None) => self.bucket_named(&name, context).await?,
            (None, None, Some(pattern)) => self.find_bucket(&pattern, context).await?,
            _ => return Err(AdminError::invalid("give exactly one of id, globalAlias and search")),
        };
        self.bucket_view(bucket, context).await
    }

    /// The bucket of a full id. Errors: `InvalidRequest`, `NoSuchBucket`.
    pub(super) async fn existing_bucket(&self, id: &str, context: RequestContext) -> Result<BucketView, AdminError> {
        let found = self.node.access.buckets().get(bucket_id(id)?, context).await?;
        found.ok_or_else(|| no_bucket(id))
    }

    async fn bucket_named(&self, name: &str, context: RequestContext) -> Result<BucketView, AdminError> {
        if NAME_LEN_MAX < name.len() {
            return Err(no_bucket(name));
        }
        self.node.access.buckets().resolve(None, name, context).await?.ok_or_else(|| no_bucket(name))
    }

    /// The bucket with this global name, this id, or an id that starts so.
    async fn find_bucket(&self, pattern: &str, context: RequestContext) -> Result<BucketView, AdminError> {
        let buckets = self.node.access.buckets();
        if let Some(bucket) = buckets.resolve(None, pattern, context).await? {
            return Ok(bucket);
        }
        let wanted = pattern.to_lowercase();
        if wanted.len() < ID_PREFIX_LEN_MIN || !wanted.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(no_bucket(pattern));
        }
        let all = buckets.list(context).await?;
        let mut found: Vec<BucketView> = all.into_iter().filter(|bucket| bucket.id.to_string().starts_with(&wanted)).collect();
        match (found.pop(), found.len()) {
            (Some(bucket), 0) => Ok(bucket),
            (None, _) => Err(no_bucket(pattern)),
            (Some(_), others) => Err(AdminError::invalid(format!("{} buckets match '{pattern}'", others + 1))),
        }
    }

    /// The bucket of a global name or full id; for `/check`.
    pub(crate) async fn bucket_of_name(&self, name: &str, context: RequestContext) -> Result<Option<BucketView>, AdminError> {
        Ok(self.node.access.buckets().resolve(None, name, context).await?)
    }

    /// Everything about a bucket.
    pub(super) async fn bucket_view(&self, bucket: BucketView, context: RequestContext) -> Result<Bucket, AdminError> {
        let reference = bucket.as_ref();
        let counters = self.node.objects.usage(&reference, context).await?;
        let parts = self.count_parts(&reference, counters.uploads, context).await?;
        let keys = self.keys_of(&bucket.row, context).await?;
        let BucketView { id, row } = bucket;
        Ok(Bucket {
            id: id.to_string(),
            created: timestamp(row.created_ms),
            global_aliases: row.global_aliases.iter().cloned().collect(),
            website_access: row.website.is_some(),
            website_config: row.website.as_ref().map(|website| Website {
                index_document: website.index_document.clone(),
                error_document: website.error_document.clone(),
                routing_rules: Some(website.routing_rules.iter().map(rules::show_routing).collect()),
            }),
            cors_rules: (!row.cors.is_empty()).then(|| row.cors.iter().map(rules::show_cors).collect()),
            lifecycle_rules: None,
            keys,
            objects: count(counters.objects),
            bytes: count(counters.bytes),
            unfinished_uploads: count(counters.uploads),
            unfinished_multipart_uploads: count(counters.uploads),
            unfinished_multipart_upload_parts: count(parts.parts),
            unfinished_multipart_upload_bytes: count(parts.bytes),
            quotas: Quotas { max_size: row.quotas.size_max_bytes, max_objects: row.quotas.objects_max },
        })
    }

    /// Keys with rights on a bucket or a name for it. Keys deleted while this is put together are left out.
    async fn keys_of(&self, row: &BucketRow, context: RequestContext) -> Result<Vec<BucketKey>, AdminError> {
        let ids: BTreeSet<String> = row.permissions.keys().chain(row.local_aliases.keys()).cloned().collect();
        let keys = self.node.access.keys();
        let found = ids.into_iter().map(|id| async move { keys.get(&id, context).await });
        let found: Vec<Option<AccessKey>> = stream::iter(found).buffered(LOOKUPS_AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().map(|key| key_of_bucket(key, row)).collect())
    }
}

fn key_of_bucket(key: AccessKey, row: &BucketRow) -> BucketKey {
    BucketKey {
        permissions: permissions_view(row.permissions.get(&key.id).copied().unwrap_or_default()),
        bucket_local_aliases: row.local_aliases.get(&key.id).into_iter().flatten().cloned().collect(),
        access_key_id: key.id,
        name: key.row.name,
    }
}

fn local_aliases(row: &BucketRow) -> Vec<BucketLocalAlias> {
    let of_key = |(key, names): (&String, &BTreeSet<String>)| {
        names.iter().map(|alias| BucketLocalAlias { access_key_id: key.clone(), alias: alias.clone() }).collect::<Vec<_>>()
    };
    let aliases: &BTreeMap<String, BTreeSet<String>> = &row.local_aliases;
    aliases.iter().flat_map(of_key).collect()
}

/// Counts are signed in this interface.
fn count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Reads a full bucket id. Errors: `InvalidRequest`.
pub(super) fn bucket_id(text: &str) -> Result<BucketId, AdminError> {
    text.parse().map_err(|error: garage_util::id::ParseIdError| AdminError::invalid(error.to_string()))
}

fn no_bucket(wanted: &str) -> AdminError {
    AdminError::new(crate::ErrorCode::NoSuchBucket, format!("{} '{wanted}'", ClientError::NoSuchBucket))
}
