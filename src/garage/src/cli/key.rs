//! `garage key …`.

use garage_api_admin::{
    endpoint::{CreateKey, DeleteKey, GetKeyInfo, ImportKey, ListKeys, UpdateKey},
    types::{ById, Id, Key, KeyImport, KeyPermissions, KeySearch, KeyUpdate, Page},
};

use super::{
    args::KeyCommand,
    bucket::rights,
    error::{CliError, fail},
    format::short,
    output::Table,
    session::Session,
};

/// `garage key …`; `public_endpoint` is what the configuration file tells clients, for `export-env`.
pub(crate) async fn run(session: &mut Session<'_>, command: KeyCommand, public_endpoint: Option<String>) -> Result<(), CliError> {
    let key = match command {
        KeyCommand::List => return list(session).await,
        KeyCommand::Delete { key, yes } => return delete(session, &key, yes).await,
        KeyCommand::DeleteExpired { yes } => return delete_expired(session, yes).await,
        KeyCommand::ExportEnv { key, prefix } => return export(session, key, &prefix, public_endpoint).await,
        KeyCommand::Info { key, show_secret, key_id, secret_key } => {
            let key = with_secret(session, key, show_secret || secret_key).await?;
            if key_id || secret_key {
                let text = if key_id { key.access_key_id } else { key.secret_access_key.unwrap_or_default() };
                session.out.line(text);
                return Ok(());
            }
            key
        }
        KeyCommand::Create { name, old_name, expires_in } => {
            let expiration = expires_in.map(|duration| session.local.after(duration));
            session.call::<CreateKey>(KeyUpdate { name: name.or(old_name), expiration, ..KeyUpdate::default() }).await?
        }
        KeyCommand::Import { key_id, secret_key, name, yes } => {
            if !yes {
                return fail(
                    "importing is meant for keys made by another cluster (new keys come from `garage key create`); add --yes to really do it",
                );
            }
            let import = KeyImport { access_key_id: key_id, secret_access_key: secret_key, name: Some(name) };
            session.call::<ImportKey>(import).await?
        }
        KeyCommand::Rename { key, name } => update(session, &key, KeyUpdate { name: Some(name), ..KeyUpdate::default() }).await?,
        KeyCommand::Set { key, expires_in, never_expires } => {
            let expiration = expires_in.map(|duration| session.local.after(duration));
            update(session, &key, KeyUpdate { expiration, never_expires, ..KeyUpdate::default() }).await?
        }
        KeyCommand::Allow { key, create_bucket } => {
            update(session, &key, KeyUpdate { allow: Some(KeyPermissions { create_bucket }), ..KeyUpdate::default() }).await?
        }
        KeyCommand::Deny { key, create_bucket } => {
            update(session, &key, KeyUpdate { deny: Some(KeyPermissions { create_bucket }), ..KeyUpdate::default() }).await?
        }
    };
    print_key(session, &key);
    Ok(())
}

async fn with_secret(session: &Session<'_>, pattern: String, show_secret_key: bool) -> Result<Key, CliError> {
    session.call::<GetKeyInfo>(KeySearch { search: Some(pattern), show_secret_key, id: None }).await
}

async fn update(session: &Session<'_>, pattern: &str, body: KeyUpdate) -> Result<Key, CliError> {
    let id = session.key(pattern).await?.access_key_id;
    session.call::<UpdateKey>(ById { id, body }).await
}

async fn list(session: &mut Session<'_>) -> Result<(), CliError> {
    let mut keys = session.call::<ListKeys>(Page::default()).await?;
    keys.sort_by(|left, right| (left.created, &left.id).cmp(&(right.created, &right.id)));
    let mut table = Table::new(["ID", "Created", "Name", "Expiration"]);
    for key in keys {
        let created = key.created.map_or_else(|| "-".into(), |time| session.local.date(time));
        let expiration = match (key.expired, key.expiration) {
            (true, _) => "expired".into(),
            (false, Some(time)) => session.local.time(time),
            (false, None) => "never".into(),
        };
        table.row([key.id, created, key.name, expiration]);
    }
    session.out.table(&table);
    Ok(())
}

async fn delete(session: &mut Session<'_>, pattern: &str, yes: bool) -> Result<(), CliError> {
    let key = session.key(pattern).await?;
    if !yes {
        return fail(format!("key {} ({}) would be deleted; add --yes to really do it", key.access_key_id, key.name));
    }
    session.call::<DeleteKey>(Id { id: key.access_key_id.clone() }).await?;
    session.out.line(format!("Access key {} is deleted.", key.access_key_id));
    Ok(())
}

async fn delete_expired(session: &mut Session<'_>, yes: bool) -> Result<(), CliError> {
    let mut keys = session.call::<ListKeys>(Page::default()).await?;
    keys.retain(|key| key.expired);
    if !yes {
        return fail(format!("{} expired access keys would be deleted; add --yes to really do it", keys.len()));
    }
    for key in &keys {
        session.call::<DeleteKey>(Id { id: key.id.clone() }).await?;
        session.out.line(format!("Access key {} is deleted.", key.id));
    }
    session.out.line(format!("{} expired access keys are deleted.", keys.len()));
    Ok(())
}

async fn export(session: &mut Session<'_>, pattern: String, prefix: &str, public_endpoint: Option<String>) -> Result<(), CliError> {
    let key = with_secret(session, pattern, true).await?;
    session.out.line(format!("{prefix}ACCESS_KEY_ID={}", key.access_key_id));
    session.out.line(format!("{prefix}SECRET_ACCESS_KEY={}", key.secret_access_key.unwrap_or_default()));
    session.out.line(format!("{prefix}DEFAULT_REGION='garage'"));
    if let Some(endpoint) = public_endpoint {
        session.out.line(format!("{prefix}ENDPOINT_URL='{endpoint}'"));
    }
    Ok(())
}

fn print_key(session: &mut Session<'_>, key: &Key) {
    session.out.title("ACCESS KEY INFORMATION");
    let mut table = Table::pairs();
    table.pair("Key ID:", &key.access_key_id);
    table.pair("Key name:", &key.name);
    table.pair("Secret key:", key.secret_access_key.as_deref().unwrap_or("(redacted)"));
    if let Some(created) = key.created {
        table.pair("Created:", session.local.time(created));
    }
    table.pair("Validity:", if key.expired { "EXPIRED" } else { "valid" });
    table.pair("Expiration:", key.expiration.map_or_else(|| "never".into(), |time| session.local.time(time)));
    table.pair("Can create buckets:", key.permissions.create_bucket);
    session.out.table(&table);
    session.out.title("BUCKETS FOR THIS KEY");
    let mut buckets = Table::new(["Permissions", "ID", "Global aliases", "Local aliases"]);
    for bucket in &key.buckets {
        let row =
            [rights(&bucket.permissions), short(&bucket.id).to_owned(), bucket.global_aliases.join(", "), bucket.local_aliases.join(", ")];
        buckets.row(row);
    }
    session.out.table(&buckets);
}
