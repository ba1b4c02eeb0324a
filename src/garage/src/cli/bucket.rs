//! `garage bucket …`.

use std::time::Duration;

use garage_api_admin::{
    endpoint::{
        AddBucketAlias, AllowBucketKey, CleanupIncompleteUploads, CreateBucket, DeleteBucket, DenyBucketKey, GetBucketInfo, InspectObject,
        ListBuckets, RemoveBucketAlias, UpdateBucket,
    },
    types::{
        Alias, Bucket, BucketCreate, BucketKeyChange, BucketSearch, BucketUpdate, CleanupUploads, Id, ObjectName, ObjectVersion, Page,
        Permissions, Quotas, WebsiteUpdate,
    },
};

use super::{
    args::BucketCommand,
    error::{CliError, fail},
    format::{both_sizes, short},
    output::Table,
    session::Session,
};

/// `garage bucket …`.
pub(crate) async fn run(session: &mut Session<'_>, command: BucketCommand) -> Result<(), CliError> {
    let bucket = match command {
        BucketCommand::List => return list(session).await,
        BucketCommand::Delete { bucket, yes } => return delete(session, &bucket, yes).await,
        BucketCommand::CleanupIncompleteUploads { buckets, older_than } => return cleanup(session, &buckets, older_than).await,
        BucketCommand::InspectObject { bucket, key } => return inspect(session, &bucket, key).await,
        BucketCommand::Info { bucket } => session.bucket(&bucket).await?,
        BucketCommand::Create { name } => {
            session.call::<CreateBucket>(BucketCreate { global_alias: Some(name), local_alias: None }).await?
        }
        BucketCommand::Alias { existing, new, local } => alias(session, &existing, new, local).await?,
        BucketCommand::Unalias { name, local } => unalias(session, name, local).await?,
        BucketCommand::Allow(args) => {
            let rights = Permissions { read: args.read, write: args.write, owner: args.owner };
            let change = key_change(session, &args.bucket, &args.key, rights).await?;
            session.call::<AllowBucketKey>(change).await?
        }
        BucketCommand::Deny(args) => {
            let rights = Permissions { read: args.read, write: args.write, owner: args.owner };
            let change = key_change(session, &args.bucket, &args.key, rights).await?;
            session.call::<DenyBucketKey>(change).await?
        }
        BucketCommand::Website { bucket, allow, index_document, error_document, .. } => {
            website(session, &bucket, allow.then_some(index_document), error_document).await?
        }
        BucketCommand::SetQuotas { bucket, max_size, max_objects } => {
            let bucket = session.bucket(&bucket).await?;
            let quotas = Quotas {
                max_size: max_size.map_or(bucket.quotas.max_size, |limit| limit.0),
                max_objects: max_objects.map_or(bucket.quotas.max_objects, |limit| limit.0),
            };
            update(session, bucket.id, BucketUpdate { quotas: Some(quotas), ..BucketUpdate::default() }).await?
        }
    };
    print_bucket(session, &bucket);
    Ok(())
}

async fn update(session: &Session<'_>, id: String, body: BucketUpdate) -> Result<Bucket, CliError> {
    session.call::<UpdateBucket>(garage_api_admin::types::ById { id, body }).await
}

async fn list(session: &mut Session<'_>) -> Result<(), CliError> {
    let mut buckets = session.call::<ListBuckets>(Page::default()).await?;
    buckets.sort_by(|left, right| (left.created, &left.id).cmp(&(right.created, &right.id)));
    let mut table = Table::new(["ID", "Created", "Global aliases", "Local aliases"]);
    for bucket in buckets {
        let local: Vec<String> = bucket.local_aliases.iter().map(|alias| format!("{}:{}", alias.access_key_id, alias.alias)).collect();
        table.row([short(&bucket.id).to_owned(), session.local.date(bucket.created), first_of(&bucket.global_aliases), first_of(&local)]);
    }
    session.out.table(&table);
    Ok(())
}

/// The first of several names and how many there are.
fn first_of(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [name] => name.clone(),
        [first, ..] => format!("{first}, ... ({})", names.len()),
    }
}

async fn key_change(session: &Session<'_>, bucket: &str, key: &str, permissions: Permissions) -> Result<BucketKeyChange, CliError> {
    let (bucket, key) = (session.bucket(bucket).await?, session.key(key).await?);
    Ok(BucketKeyChange { bucket_id: bucket.id, access_key_id: key.access_key_id, permissions })
}

async fn delete(session: &mut Session<'_>, pattern: &str, yes: bool) -> Result<(), CliError> {
    let bucket = session.bucket(pattern).await?;
    let others: Vec<&String> = bucket.global_aliases.iter().filter(|alias| *alias != pattern).collect();
    if !others.is_empty() && bucket.global_aliases.len() > 1 {
        return fail(format!(
            "bucket {} has other aliases ({others:?}); remove them first with `garage bucket unalias`",
            short(&bucket.id)
        ));
    }
    if let Some(key) = bucket.keys.iter().find(|key| !key.bucket_local_aliases.is_empty()) {
        let (id, names) = (&key.access_key_id, &key.bucket_local_aliases);
        return fail(format!(
            "bucket {} has local aliases of key {id} ({names:?}); remove them first with `garage bucket unalias --local {id}`",
            short(&bucket.id)
        ));
    }
    if !yes {
        return fail(format!("bucket {} ({pattern}) would be deleted; add --yes to really do it", short(&bucket.id)));
    }
    session.call::<DeleteBucket>(Id { id: bucket.id.clone() }).await?;
    session.out.line(format!("Bucket {} is deleted.", bucket.id));
    Ok(())
}

async fn alias(session: &Session<'_>, existing: &str, new: String, local: Option<String>) -> Result<Bucket, CliError> {
    let bucket_id = session.bucket(existing).await?.id;
    let alias = match local {
        None => Alias::Global { bucket_id, global_alias: new },
        Some(key) => Alias::Local { bucket_id, local_alias: new, access_key_id: session.key(&key).await?.access_key_id },
    };
    session.call::<AddBucketAlias>(alias).await
}

async fn unalias(session: &Session<'_>, name: String, local: Option<String>) -> Result<Bucket, CliError> {
    let alias = match local {
        None => {
            let search = BucketSearch { global_alias: Some(name.clone()), ..BucketSearch::default() };
            Alias::Global { bucket_id: session.call::<GetBucketInfo>(search).await?.id, global_alias: name }
        }
        Some(key) => {
            let key = session.key(&key).await?;
            let Some(bucket) = key.buckets.iter().find(|bucket| bucket.local_aliases.contains(&name)) else {
                return fail(format!("key {} has no local alias {name:?}", key.access_key_id));
            };
            Alias::Local { bucket_id: bucket.id.clone(), local_alias: name, access_key_id: key.access_key_id }
        }
    };
    session.call::<RemoveBucketAlias>(alias).await
}

async fn website(
    session: &Session<'_>,
    pattern: &str,
    index_document: Option<String>,
    error_document: Option<String>,
) -> Result<Bucket, CliError> {
    let bucket = session.bucket(pattern).await?;
    let access = if index_document.is_some() {
        // The interface replaces both documents; what was not named here stays.
        let former = bucket.website_config.and_then(|website| website.error_document);
        WebsiteUpdate { enabled: true, index_document, error_document: error_document.or(former), routing_rules: None }
    } else {
        WebsiteUpdate::default()
    };
    update(session, bucket.id, BucketUpdate { website_access: Some(access), ..BucketUpdate::default() }).await
}

async fn cleanup(session: &mut Session<'_>, patterns: &[String], older_than: Duration) -> Result<(), CliError> {
    let mut ids = Vec::new();
    for pattern in patterns {
        ids.push(session.bucket(pattern).await?.id);
    }
    for bucket_id in ids {
        let request = CleanupUploads { bucket_id: bucket_id.clone(), older_than_secs: older_than.as_secs() };
        let count = session.call::<CleanupIncompleteUploads>(request).await?.uploads_deleted;
        let text = if count == 0 { "no uploads deleted".into() } else { format!("{count} uploads deleted") };
        session.out.line(format!("{}: {text}", short(&bucket_id)));
    }
    Ok(())
}

async fn inspect(session: &mut Session<'_>, pattern: &str, key: String) -> Result<(), CliError> {
    let bucket_id = session.bucket(pattern).await?.id;
    let object = session.call::<InspectObject>(ObjectName { bucket_id, key }).await?;
    for version in &object.versions {
        session.out.title("OBJECT VERSION");
        let mut table = Table::pairs();
        table.pair("Bucket ID:", &object.bucket_id);
        table.pair("Key:", &object.key);
        add_version(&mut table, version, &session.local.time(version.timestamp));
        session.out.table(&table);
        print_blocks(session, version);
    }
    Ok(())
}

fn add_version(table: &mut Table, version: &ObjectVersion, time: &str) {
    table.pair("Version ID:", &version.uuid);
    table.pair("Timestamp:", time);
    if let Some(size) = version.size {
        table.pair("Size:", both_sizes(size));
        table.pair("Size (exact):", size);
    }
    table.pair("Number of blocks:", version.blocks.as_ref().map_or(0, Vec::len));
    if let Some(etag) = &version.etag {
        table.pair("Etag:", etag);
    }
    let flags = [
        ("Encrypted:", version.encrypted),
        ("Uploading:", version.uploading),
        ("Aborted:", version.aborted),
        ("Delete marker:", version.delete_marker),
        ("Inline data:", version.inline),
    ];
    for (name, flag) in flags {
        table.pair(name, flag);
    }
    for (name, value) in version.headers.iter().flatten() {
        table.pair(&format!("{name}:"), value);
    }
}

fn print_blocks(session: &mut Session<'_>, version: &ObjectVersion) {
    let Some(blocks) = version.blocks.as_ref().filter(|blocks| !blocks.is_empty()) else { return };
    let mut table = Table::new(["Part#", "Offset", "Block hash", "Size"]);
    for block in blocks {
        table.row([block.part_number.to_string(), block.offset.to_string(), block.hash.clone(), block.size.to_string()]);
    }
    session.out.line("");
    session.out.table(&table);
}

/// `RWO`, a space for each right that is missing.
pub(crate) fn rights(permissions: &Permissions) -> String {
    let letter = |right, letter| if right { letter } else { ' ' };
    String::from_iter([letter(permissions.read, 'R'), letter(permissions.write, 'W'), letter(permissions.owner, 'O')])
}

fn print_bucket(session: &mut Session<'_>, bucket: &Bucket) {
    session.out.title("BUCKET INFORMATION");
    let mut table = Table::pairs();
    table.pair("Bucket:", &bucket.id);
    table.pair("Created:", session.local.time(bucket.created));
    table.pair("Size:", both_sizes(bucket.bytes.max(0) as u64));
    table.pair("Objects:", bucket.objects);
    if bucket.unfinished_uploads > 0 {
        table.pair("Unfinished uploads:", bucket.unfinished_uploads);
        table.pair("Size of unfinished multipart uploads:", both_sizes(bucket.unfinished_multipart_upload_bytes.max(0) as u64));
    }
    table.pair("Website access:", bucket.website_access);
    if let Some(website) = bucket.website_config.as_ref().filter(|_| bucket.website_access) {
        table.pair("  index document:", &website.index_document);
        table.pair("  error document:", website.error_document.as_deref().unwrap_or("(not defined)"));
    }
    if bucket.quotas != Quotas::default() {
        table.pair("Quotas:", "enabled");
        if let Some(size) = bucket.quotas.max_size {
            table.pair("  maximum size:", both_sizes(size));
        }
        if let Some(count) = bucket.quotas.max_objects {
            table.pair("  maximum number of objects:", count);
        }
    }
    match bucket.global_aliases.as_slice() {
        [] => {}
        [alias] => table.pair("Global alias:", alias),
        aliases => table.pair("Global aliases:", aliases.join(", ")),
    }
    session.out.table(&table);
    session.out.title("KEYS FOR THIS BUCKET");
    let mut keys = Table::new(["Permissions", "Access key", "", "Local aliases"]);
    for key in &bucket.keys {
        keys.row([rights(&key.permissions), key.access_key_id.clone(), key.name.clone(), key.bucket_local_aliases.join(", ")]);
    }
    session.out.table(&keys);
}
