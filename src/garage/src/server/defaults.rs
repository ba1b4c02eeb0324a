//! The key and the bucket that a start makes sure of, and what a quick start prints of them.

use std::time::Duration;

use garage_model::{
    RequestContext,
    keys::{AccessKey, NewKey},
    node::Node,
    rows::bucket::Permissions,
};

use super::{Failure, listeners::Listeners, settings::Settings};

/// How long each step may take.
const STEP_PATIENCE: Duration = Duration::from_secs(30);
/// The name of the key.
const KEY_NAME: &str = "default access key";

/// What is there now.
pub(super) struct Made {
    key: AccessKey,
    secret: String,
    bucket: Option<String>,
}

/// Makes the key and the bucket of the settings, or finds them as an earlier start made them.
pub(super) async fn make(node: &Node, settings: &Settings) -> Result<Option<Made>, Failure> {
    if !settings.defaults.key {
        return Ok(None);
    }
    let (key, secret) = match &settings.defaults.key_pair {
        Some((id, secret)) => given_key(node, id, secret).await?,
        None => own_key(node).await?,
    };
    if let Some(name) = &settings.defaults.bucket {
        make_bucket(node, name, &key).await?;
    }
    Ok(Some(Made { key, secret, bucket: settings.defaults.bucket.clone() }))
}

fn context() -> RequestContext {
    RequestContext::within(STEP_PATIENCE)
}

fn new_key() -> NewKey {
    NewKey { name: KEY_NAME.to_string(), create_bucket: true, ..NewKey::default() }
}

async fn given_key(node: &Node, id: &str, secret: &str) -> Result<(AccessKey, String), Failure> {
    let keys = node.access.keys();
    let key = match keys.get(id, context()).await? {
        Some(key) => key,
        None => keys.import(id, secret, new_key(), context()).await?,
    };
    if keys.secret(&key)? != secret {
        return Err(format!("the key {id} exists with another secret than GARAGE_DEFAULT_SECRET_KEY").into());
    }
    Ok((key, secret.to_string()))
}

async fn own_key(node: &Node) -> Result<(AccessKey, String), Failure> {
    let keys = node.access.keys();
    match keys.list(context()).await?.into_iter().find(|key| key.row.name == KEY_NAME) {
        Some(key) => {
            let secret = keys.secret(&key)?;
            Ok((key, secret))
        }
        None => Ok(keys.create(new_key(), context()).await?),
    }
}

async fn make_bucket(node: &Node, name: &str, key: &AccessKey) -> Result<(), Failure> {
    let buckets = node.access.buckets();
    let Some(bucket) = buckets.resolve(Some(key), name, context()).await? else {
        buckets.create(name, Some(key), context()).await?;
        return Ok(());
    };
    let all = Permissions { read: true, write: true, owner: true };
    if bucket.permissions(key) != all {
        buckets.set_permissions(bucket.id, key, all, Permissions::default(), context()).await?;
    }
    Ok(())
}

impl Made {
    /// What a person needs to use the node, ready to be copied.
    pub(super) fn describe(&self, settings: &Settings, listeners: &Listeners) -> String {
        let endpoint = listeners.s3_endpoint().unwrap_or_else(|| "(no S3 listener)".to_string());
        let region = &settings.config.s3_api.s3_region;
        let bucket = self.bucket.as_deref().unwrap_or("BUCKET");
        format!(
            "\nEndpoint:    {endpoint}\nRegion:      {region}\nKey ID:      {id}\nSecret key:  {secret}\nBucket:      {bucket}\n\nTry it:\n  \
             AWS_ACCESS_KEY_ID={id} AWS_SECRET_ACCESS_KEY={secret} AWS_DEFAULT_REGION={region} aws --endpoint-url {endpoint} s3 cp README.md s3://{bucket}/\n\n",
            id = self.key.id,
            secret = self.secret,
        )
    }
}
