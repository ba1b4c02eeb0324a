//! Lifecycle rules are carried out by the node itself, at the interval of its configuration.

use bytes::Bytes;
use http::Method;
use tempfile::TempDir;

use crate::support::{
    self,
    client::S3,
    cluster::{BUCKET, rpc_secret, single},
    process::Settings,
    wait::until,
};

/// What is under `old/` expired long ago.
const RULES: &str = "<LifecycleConfiguration><Rule><Filter><Prefix>old/</Prefix></Filter><Status>Enabled</Status>\
    <Expiration><Date>2020-01-01T00:00:00Z</Date></Expiration></Rule></LifecycleConfiguration>";
const RULES_MD5: &str = "Llw3Y2KheVTHbFouNhSQVQ==";

#[tokio::test(flavor = "multi_thread")]
async fn what_has_expired_goes_by_itself_at_the_interval_that_is_set() {
    let _turn = support::turn().await;
    let dir = TempDir::new().unwrap();
    let settings = Settings { more: "lifecycle_interval_msec = 100".into(), ..Settings::new(dir.path(), &rpc_secret()) };
    let (mut node, credentials) = single(settings, dir.path().to_owned());
    node.start().await;
    let s3 = S3::new(node.s3_address(), credentials);
    let (old, kept) = (format!("/{BUCKET}/old/report"), format!("/{BUCKET}/new/report"));
    s3.put(&old, "x").await.ok();
    s3.put(&kept, "x").await.ok();
    let rules = Bytes::from_static(RULES.as_bytes());
    let set = s3.attempt(Method::PUT, &format!("/{BUCKET}?lifecycle="), &[("content-md5", RULES_MD5)], rules).await.unwrap();
    assert_eq!(set.status, 200, "{}", set.text());
    until("the worker to carry out the rule", async || (s3.head(&old).await == 404).then_some(())).await;
    assert_eq!(s3.head(&kept).await, 200);
    node.stop().await;
}
