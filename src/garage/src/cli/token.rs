//! `garage admin-token …`.

use garage_api_admin::{
    endpoint::{CreateAdminToken, DeleteAdminToken, GetAdminTokenInfo, ListAdminTokens, UpdateAdminToken},
    types::{AdminToken, AdminTokenUpdate, ById, Id, NoParameters, TokenSearch},
};

use super::{
    args::TokenCommand,
    error::{CliError, fail},
    output::Table,
    session::Session,
};

/// `garage admin-token …`.
pub(crate) async fn run(session: &mut Session<'_>, command: TokenCommand) -> Result<(), CliError> {
    let token = match command {
        TokenCommand::List => return list(session).await,
        TokenCommand::Delete { token, yes } => return delete(session, token, yes).await,
        TokenCommand::DeleteExpired { yes } => return delete_expired(session, yes).await,
        TokenCommand::Info { token } => find(session, token).await?,
        TokenCommand::Create { name, expires_in, scope, quiet } => {
            let expiration = expires_in.map(|duration| session.local.after(duration));
            let request = AdminTokenUpdate { name, expiration, scope: Some(scope), never_expires: false };
            let created = session.call::<CreateAdminToken>(request).await?;
            if quiet {
                session.out.line(created.secret_token);
                return Ok(());
            }
            session.out.line(format!("Secret token, shown only now: {}", created.secret_token));
            created.token
        }
        TokenCommand::Rename { token, name } => {
            let token = find(session, token).await?;
            update(session, token, AdminTokenUpdate { name: Some(name), ..AdminTokenUpdate::default() }).await?
        }
        TokenCommand::Set { token, expires_in, never_expires, scope } => {
            let token = find(session, token).await?;
            let scope = scope.map(|change| changed_scope(&token.scope, &change));
            let expiration = expires_in.map(|duration| session.local.after(duration));
            update(session, token, AdminTokenUpdate { expiration, never_expires, scope, name: None }).await?
        }
    };
    print_token(session, &token);
    Ok(())
}

/// The scope after a change: `A,B` replaces, `+A,B` adds, `-A,B` removes.
fn changed_scope(old: &[String], change: &str) -> Vec<String> {
    let names = |list: &str| list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    match (change.strip_prefix('+'), change.strip_prefix('-')) {
        (Some(added), _) => {
            let new = names(added).into_iter().filter(|name| !old.contains(name));
            old.iter().cloned().chain(new).collect()
        }
        (_, Some(removed)) => {
            let removed = names(removed);
            old.iter().filter(|name| !removed.contains(name)).cloned().collect()
        }
        _ => names(change),
    }
}

async fn find(session: &Session<'_>, pattern: String) -> Result<AdminToken, CliError> {
    session.call::<GetAdminTokenInfo>(TokenSearch { search: Some(pattern), id: None }).await
}

fn id_of(token: AdminToken) -> Result<String, CliError> {
    token.id.ok_or_else(|| CliError::Message("tokens of the configuration file are changed there".into()))
}

async fn update(session: &Session<'_>, token: AdminToken, body: AdminTokenUpdate) -> Result<AdminToken, CliError> {
    session.call::<UpdateAdminToken>(ById { id: id_of(token)?, body }).await
}

async fn list(session: &mut Session<'_>) -> Result<(), CliError> {
    let tokens = session.call::<ListAdminTokens>(NoParameters).await?;
    let (mut fixed, mut made): (Vec<_>, Vec<_>) = tokens.into_iter().partition(|token| token.id.is_none());
    made.sort_by(|left, right| (left.created, &left.id).cmp(&(right.created, &right.id)));
    fixed.append(&mut made);
    let mut table = Table::new(["ID", "Created", "Name", "Expiration", "Scope"]);
    for token in fixed {
        let created = token.created.map_or_else(|| "-".into(), |time| session.local.date(time));
        let expiration = match (token.expired, token.expiration) {
            (true, _) => "expired".into(),
            (false, Some(time)) => session.local.time(time),
            (false, None) => "never".into(),
        };
        table.row([token.id.unwrap_or_else(|| "-".into()), created, token.name, expiration, token.scope.join(", ")]);
    }
    session.out.table(&table);
    Ok(())
}

async fn delete(session: &mut Session<'_>, pattern: String, yes: bool) -> Result<(), CliError> {
    let token = find(session, pattern).await?;
    let name = token.name.clone();
    let id = id_of(token)?;
    if !yes {
        return fail(format!("admin token {id} ({name}) would be deleted; add --yes to really do it"));
    }
    session.call::<DeleteAdminToken>(Id { id: id.clone() }).await?;
    session.out.line(format!("Admin token {id} is deleted."));
    Ok(())
}

async fn delete_expired(session: &mut Session<'_>, yes: bool) -> Result<(), CliError> {
    let tokens = session.call::<ListAdminTokens>(NoParameters).await?;
    let expired: Vec<String> = tokens.into_iter().filter(|token| token.expired).filter_map(|token| token.id).collect();
    if !yes {
        return fail(format!("{} expired admin tokens would be deleted; add --yes to really do it", expired.len()));
    }
    for id in &expired {
        session.call::<DeleteAdminToken>(Id { id: id.clone() }).await?;
        session.out.line(format!("Admin token {id} is deleted."));
    }
    session.out.line(format!("{} expired admin tokens are deleted.", expired.len()));
    Ok(())
}

fn print_token(session: &mut Session<'_>, token: &AdminToken) {
    session.out.title("ADMINISTRATION TOKEN INFORMATION");
    let mut table = Table::pairs();
    table.pair("Token ID:", token.id.as_deref().unwrap_or("-"));
    table.pair("Token name:", &token.name);
    if let Some(created) = token.created {
        table.pair("Created:", session.local.time(created));
    }
    table.pair("Validity:", if token.expired { "EXPIRED" } else { "valid" });
    table.pair("Expiration:", token.expiration.map_or_else(|| "never".into(), |time| session.local.time(time)));
    for (index, name) in token.scope.iter().enumerate() {
        table.pair(if index == 0 { "Scope:" } else { "" }, name);
    }
    session.out.table(&table);
}
