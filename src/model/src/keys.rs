//! Access keys: making, changing, finding them.

use futures::{FutureExt, future::BoxFuture};
use garage_rpc::register::WriteId;
use garage_table::{
    SortKey,
    control::{Control, Effect},
    group::{Decision, RequestContext, Updated},
    message::HeldRow,
};
use garage_util::{encoding::Stored, id::to_hex, runtime::Runtime};

use crate::{
    error::{ClientError, ModelError},
    names::{check_key_id, check_secret},
    rows::{KEY, key::KeyRow},
    seal::Sealer,
};

/// An access key with its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessKey {
    /// `GK` and 24 hexadecimal digits, or as imported.
    pub id: String,
    /// Its row.
    pub row: KeyRow,
}

impl AccessKey {
    /// Whether it may no longer be used.
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.row.expires_ms.is_some_and(|expires_ms| expires_ms <= now_ms)
    }
}

/// A key to be made.
#[derive(Clone, Debug, Default)]
pub struct NewKey {
    /// For people.
    pub name: String,
    /// In milliseconds since 1970.
    pub expires_ms: Option<u64>,
    /// Whether it may make buckets.
    pub create_bucket: bool,
}

/// Access keys. Cheap to clone.
#[derive(Clone)]
pub struct Keys {
    control: Control,
    sealer: Sealer,
    runtime: Runtime,
}

fn sort_key(id: &str) -> SortKey {
    SortKey(id.as_bytes().to_vec())
}

fn read(id: &str, row: Option<HeldRow>) -> Result<Option<AccessKey>, ModelError> {
    let row = row.map(|row| KeyRow::from_stored(&row.content)).transpose()?;
    Ok(row.filter(|row| !row.deleted).map(|row| AccessKey { id: id.to_string(), row }))
}

impl Keys {
    /// Keys over the control tables, their secrets sealed by `sealer`.
    pub fn new(control: Control, sealer: Sealer, runtime: Runtime) -> Keys {
        Keys { control, sealer, runtime }
    }

    /// The key of an id, if it exists and is not deleted; it may be expired.
    pub async fn get(&self, id: &str, context: RequestContext) -> Result<Option<AccessKey>, ModelError> {
        // Whatever a client sends as a key id is looked up by quorum when it is unknown: keep it within the rules.
        if check_key_id(id).is_err() {
            return Ok(None);
        }
        read(id, self.control.get(KEY, &sort_key(id), context).await?)
    }

    /// The secret of a key.
    pub fn secret(&self, key: &AccessKey) -> Result<String, ModelError> {
        self.sealer.open(&key.id, &key.row.secret)
    }

    /// All keys that are not deleted, oldest first.
    pub async fn list(&self, context: RequestContext) -> Result<Vec<AccessKey>, ModelError> {
        let mut keys = Vec::new();
        for (sort_key, row) in self.control.list(KEY, context).await? {
            keys.extend(read(&String::from_utf8_lossy(&sort_key.0), Some(row))?);
        }
        keys.sort_by(|a, b| (a.row.created_ms, &a.id).cmp(&(b.row.created_ms, &b.id)));
        Ok(keys)
    }

    /// Makes a key with a fresh id and secret.
    pub async fn create(&self, new: NewKey, context: RequestContext) -> Result<(AccessKey, String), ModelError> {
        let (mut id, mut secret) = ([0; 12], [0; 32]);
        self.runtime.fill_random(&mut id);
        self.runtime.fill_random(&mut secret);
        let (id, secret) = (format!("GK{}", to_hex(&id)), to_hex(&secret));
        Ok((self.insert(&id, &secret, new, context).await?, secret))
    }

    /// Takes a key made elsewhere. Errors: `KeyExists`, `InvalidKey`.
    pub async fn import(&self, id: &str, secret: &str, new: NewKey, context: RequestContext) -> Result<AccessKey, ModelError> {
        check_key_id(id)?;
        check_secret(secret)?;
        self.insert(id, secret, new, context).await
    }

    async fn insert(&self, id: &str, secret: &str, new: NewKey, context: RequestContext) -> Result<AccessKey, ModelError> {
        let row = KeyRow {
            name: new.name,
            created_ms: self.runtime.now_ms(),
            expires_ms: new.expires_ms,
            deleted: false,
            create_bucket: new.create_bucket,
            secret: self.sealer.seal(&self.runtime, id, secret),
            local_aliases: Default::default(),
        };
        let decide = |_: WriteId, held: Option<HeldRow>| -> BoxFuture<'_, Decision<ClientError>> {
            let decision = match held {
                Some(_) => Decision::Refuse(ClientError::KeyExists { id: id.to_string() }),
                None => Decision::Write { content: row.to_stored(), companions: Vec::new() },
            };
            std::future::ready(decision).boxed()
        };
        match self.control.update(KEY, sort_key(id), Effect::Grants, context, decide).await? {
            Updated::Written(_) => Ok(AccessKey { id: id.to_string(), row }),
            Updated::Refused(error) => Err(error.into()),
        }
    }

    /// Changes a key. Errors: `NoSuchAccessKey`, and those of `change`.
    pub async fn change(
        &self,
        id: &str,
        effect: Effect,
        context: RequestContext,
        mut change: impl FnMut(&mut KeyRow) -> Result<(), ClientError> + Send,
    ) -> Result<AccessKey, ModelError> {
        let decide = |_: WriteId, held: Option<HeldRow>| -> BoxFuture<'_, Decision<ModelError>> {
            let decided = read(id, held).and_then(|key| {
                let mut key = key.ok_or_else(|| ClientError::NoSuchAccessKey { id: id.to_string() })?;
                change(&mut key.row)?;
                Ok(key.row.to_stored())
            });
            let decision = match decided {
                Ok(content) => Decision::Write { content, companions: Vec::new() },
                Err(error) => Decision::Refuse(error),
            };
            std::future::ready(decision).boxed()
        };
        match self.control.update(KEY, sort_key(id), effect, context, decide).await? {
            Updated::Written(row) => {
                let row = KeyRow::from_stored(&row.content)?;
                Ok(AccessKey { id: id.to_string(), row })
            }
            Updated::Refused(error) => Err(error),
        }
    }

    /// Deletes a key for ever: its id is never taken again. On return no node accepts its signatures. Errors: `NoSuchAccessKey`.
    pub async fn delete(&self, id: &str, context: RequestContext) -> Result<AccessKey, ModelError> {
        let deleted = self.change(id, Effect::Restricts, context, |row| {
            row.deleted = true;
            row.local_aliases.clear();
            Ok(())
        });
        deleted.await
    }

    /// Finds the one key whose id starts with `pattern` or whose name is `pattern`, in any case.
    pub async fn find(&self, pattern: &str, context: RequestContext) -> Result<AccessKey, ModelError> {
        if let Some(key) = self.get(pattern, context).await? {
            return Ok(key);
        }
        let wanted = pattern.to_lowercase();
        let matches = |key: &AccessKey| key.id.to_lowercase().starts_with(&wanted) || key.row.name.to_lowercase() == wanted;
        let mut found: Vec<AccessKey> = self.list(context).await?.into_iter().filter(matches).collect();
        match (found.pop(), found.len()) {
            (Some(key), 0) => Ok(key),
            (None, _) => Err(ClientError::NoSuchAccessKey { id: pattern.to_string() }.into()),
            (Some(_), others) => Err(ClientError::Invalid(format!("{} keys match '{pattern}'", others + 1)).into()),
        }
    }
}
