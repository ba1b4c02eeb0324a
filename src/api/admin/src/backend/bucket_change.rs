//! Making, changing, naming and deleting buckets; rights of keys on them.

use garage_model::{
    RequestContext,
    access::BucketView,
    error::{ClientError, ModelError},
    rows::{
        bucket::{BucketRow, Permissions as Rights, Quotas as Limits, Website},
        rules::{CorsRule, check_error_document, check_index_document},
    },
};
use garage_table::control::Effect;

use super::{AdminApi, buckets::bucket_id, rules};
use crate::{
    AdminError, ErrorCode,
    types::{Alias, Bucket, BucketCreate, BucketKeyChange, BucketUpdate, LocalAliasCreate, Permissions, Quotas, WebsiteUpdate},
};

impl AdminApi {
    /// Makes a bucket. What can be refused is refused before anything is made.
    pub(super) async fn create_bucket(&self, new: BucketCreate, context: RequestContext) -> Result<Bucket, AdminError> {
        let buckets = self.node.access.buckets();
        let names = new.global_alias.iter().chain(new.local_alias.iter().map(|local| &local.alias));
        names.into_iter().try_for_each(|name| buckets.check_name(name)).map_err(name_refused)?;
        if let Some(local) = &new.local_alias {
            self.check_local_alias_free(local, context).await?;
        }
        let made = match &new.global_alias {
            Some(name) => buckets.create(name, None, context).await?,
            None => buckets.create_unnamed(None, context).await?,
        };
        let bucket = match &new.local_alias {
            None => made,
            Some(local) => match self.name_for_key(&made, local, context).await {
                Ok(bucket) => bucket,
                Err(error) => {
                    // Somebody took the name meanwhile: an error must not leave half a bucket behind.
                    if let Err(left) = buckets.delete(made.id, context).await {
                        tracing::warn!(bucket = %made.id, error = %left, "a bucket that could not be named is left behind: delete it by its id");
                    }
                    return Err(error);
                }
            },
        };
        self.bucket_view(bucket, context).await
    }

    async fn check_local_alias_free(&self, local: &LocalAliasCreate, context: RequestContext) -> Result<(), AdminError> {
        let key = self.existing_key(&local.access_key_id, context).await?;
        match key.row.local_aliases.contains_key(&local.alias) {
            true => Err(AdminError::invalid(format!("key {} uses the name {:?} already", key.id, local.alias))),
            false => Ok(()),
        }
    }

    async fn name_for_key(&self, made: &BucketView, local: &LocalAliasCreate, context: RequestContext) -> Result<BucketView, AdminError> {
        let buckets = self.node.access.buckets();
        let named = buckets.add_local_alias(made.id, &local.access_key_id, &local.alias, context).await.map_err(name_refused)?;
        match local.allow.map(rights).filter(|rights| !rights.is_none()) {
            None => Ok(named),
            Some(allow) => {
                let key = self.existing_key(&local.access_key_id, context).await?;
                Ok(buckets.set_permissions(made.id, &key, allow, Rights::default(), context).await?)
            }
        }
    }

    /// Changes settings, all or none.
    pub(super) async fn update_bucket(&self, id: String, update: BucketUpdate, context: RequestContext) -> Result<Bucket, AdminError> {
        check_unsupported(&update)?;
        let website = update.website_access.map(read_website).transpose()?;
        let quotas = update.quotas.map(read_quotas);
        let cors = update.cors_rules.map(rules::read_cors).transpose()?;
        let held = self.existing_bucket(&id, context).await?;
        let effect = if restricts(&held.row, quotas, website.as_ref(), cors.as_deref()) { Effect::Restricts } else { Effect::Grants };
        let changed = self.node.access.buckets().change(held.id, effect, context, |row| {
            row.quotas = quotas.unwrap_or(row.quotas);
            if let Some(website) = &website {
                website.apply(&mut row.website);
            }
            if let Some(cors) = &cors {
                row.cors.clone_from(cors);
            }
            Ok(())
        });
        let bucket = changed.await?;
        self.bucket_view(bucket, context).await
    }

    pub(super) async fn delete_bucket(&self, id: String, context: RequestContext) -> Result<(), AdminError> {
        Ok(self.node.access.buckets().delete(bucket_id(&id)?, context).await?)
    }

    pub(super) async fn allow_bucket_key(&self, change: BucketKeyChange, context: RequestContext) -> Result<Bucket, AdminError> {
        self.change_rights(&change, rights(change.permissions), Rights::default(), context).await
    }

    pub(super) async fn deny_bucket_key(&self, change: BucketKeyChange, context: RequestContext) -> Result<Bucket, AdminError> {
        self.change_rights(&change, Rights::default(), rights(change.permissions), context).await
    }

    async fn change_rights(
        &self,
        change: &BucketKeyChange,
        allow: Rights,
        deny: Rights,
        context: RequestContext,
    ) -> Result<Bucket, AdminError> {
        let bucket = bucket_id(&change.bucket_id)?;
        let key = self.existing_key(&change.access_key_id, context).await?;
        let bucket = self.node.access.buckets().set_permissions(bucket, &key, allow, deny, context).await?;
        self.bucket_view(bucket, context).await
    }

    pub(super) async fn add_alias(&self, alias: Alias, context: RequestContext) -> Result<Bucket, AdminError> {
        let buckets = self.node.access.buckets();
        let added = match alias {
            Alias::Global { bucket_id: id, global_alias } => {
                let bucket = self.existing_bucket(&id, context).await?;
                buckets.add_global_alias(bucket.id, &global_alias, context).await
            }
            Alias::Local { bucket_id: id, local_alias, access_key_id } => {
                let bucket = self.existing_bucket(&id, context).await?;
                buckets.add_local_alias(bucket.id, &access_key_id, &local_alias, context).await
            }
        };
        self.bucket_view(added.map_err(alias_refused)?, context).await
    }

    pub(super) async fn remove_alias(&self, alias: Alias, context: RequestContext) -> Result<Bucket, AdminError> {
        let buckets = self.node.access.buckets();
        let removed = match alias {
            Alias::Global { bucket_id: id, global_alias } => buckets.remove_global_alias(bucket_id(&id)?, &global_alias, context).await,
            Alias::Local { bucket_id: id, local_alias, access_key_id } => {
                self.existing_key(&access_key_id, context).await?;
                buckets.remove_local_alias(bucket_id(&id)?, &access_key_id, &local_alias, context).await
            }
        };
        self.bucket_view(removed?, context).await
    }
}

fn rights(permissions: Permissions) -> Rights {
    Rights { read: permissions.read, write: permissions.write, owner: permissions.owner }
}

/// Creating a bucket reports a bad name as `InvalidRequest`, and so a name that a key uses already.
fn name_refused(error: ModelError) -> AdminError {
    match error {
        ModelError::Client(error @ (ClientError::InvalidBucketName { .. } | ClientError::BucketExists { .. })) => {
            AdminError::invalid(error.to_string())
        }
        other => other.into(),
    }
}

/// Naming a bucket reports a bad name as `InvalidBucketName`, a taken one as `InvalidRequest`.
fn alias_refused(error: ModelError) -> AdminError {
    match error {
        ModelError::Client(error @ ClientError::BucketExists { .. }) => AdminError::invalid(error.to_string()),
        other => other.into(),
    }
}

/// Refuses what this release cannot store, rather than ignoring it. Removing rules that cannot be there is fine.
fn check_unsupported(update: &BucketUpdate) -> Result<(), AdminError> {
    if update.lifecycle_rules.as_ref().is_some_and(|rules| !rules.is_empty()) {
        return Err(AdminError::new(ErrorCode::NotImplemented, "UpdateBucket: lifecycleRules are not implemented in this release"));
    }
    Ok(())
}

/// A website as an update describes it.
struct WebsiteChange {
    /// `None`: no website. Its routing rules count only if `sets_rules`.
    website: Option<Website>,
    sets_rules: bool,
}

impl WebsiteChange {
    fn apply(&self, held: &mut Option<Website>) {
        let former_rules = held.take().map(|website| website.routing_rules);
        held.clone_from(&self.website);
        if let (Some(website), Some(rules), false) = (held, former_rules, self.sets_rules) {
            website.routing_rules = rules;
        }
    }
}

fn read_website(update: WebsiteUpdate) -> Result<WebsiteChange, AdminError> {
    let nothing_else =
        update.index_document.is_none() && update.error_document.is_none() && update.routing_rules.as_ref().is_none_or(Vec::is_empty);
    let (true, index_document) = (update.enabled, update.index_document) else {
        return match nothing_else {
            true => Ok(WebsiteChange { website: None, sets_rules: false }),
            false => Err(AdminError::invalid(
                "websiteAccess: indexDocument, errorDocument and routingRules have no meaning when enabled is false",
            )),
        };
    };
    let index_document =
        index_document.ok_or_else(|| AdminError::invalid("websiteAccess: indexDocument is needed when enabled is true"))?;
    check_index_document(&index_document).map_err(|error| AdminError::invalid(format!("websiteAccess: {error}")))?;
    if let Some(key) = &update.error_document {
        check_error_document(key).map_err(|error| AdminError::invalid(format!("websiteAccess: {error}")))?;
    }
    let sets_rules = update.routing_rules.is_some();
    let routing_rules = rules::read_routing(update.routing_rules.unwrap_or_default())?;
    let website = Website { index_document, error_document: update.error_document, routing_rules, redirect_all: false };
    Ok(WebsiteChange { website: Some(website), sets_rules })
}

fn read_quotas(quotas: Quotas) -> Limits {
    Limits { size_max_bytes: quotas.max_size, objects_max: quotas.max_objects }
}

/// Whether a change takes something away, so that every node has to know before it is answered.
fn restricts(row: &BucketRow, quotas: Option<Limits>, website: Option<&WebsiteChange>, cors: Option<&[CorsRule]>) -> bool {
    let is_lower = |new: Option<u64>, old: Option<u64>| new.is_some_and(|new| old.is_none_or(|old| new < old));
    let lowered = quotas
        .is_some_and(|new| is_lower(new.size_max_bytes, row.quotas.size_max_bytes) || is_lower(new.objects_max, row.quotas.objects_max));
    // Visitors must not be led by rules that the owner has just changed, whichever node they come to.
    let closed = website.is_some_and(|new| row.website.is_some() && (new.website.is_none() || new.sets_rules));
    let narrowed = cors.is_some_and(|rules| !row.cors.is_empty() && rules != row.cors);
    lowered || closed || narrowed
}
