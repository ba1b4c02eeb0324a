//! Locked versions under clocks that are wrong: none goes early, whichever node is asked and whichever node's clock is ahead or set back.

use std::time::Duration;

use bytes::Bytes;
use garage_model::{
    ModelError, RequestContext,
    body::WholeBody,
    error::ClientError,
    lifecycle::Done,
    objects::{BucketRef, Governance, Version, WriteCondition, versions::VersionToDelete},
    rows::{
        bucket::{DefaultRetention, LockSettings, RetentionPeriod, Versioning},
        lifecycle::{DAY_MS, LifecycleRule, NoncurrentExpiration},
        object::{ObjectHeaders, ObjectLock, Retention, RetentionMode},
    },
};
use garage_rpc::register::slots::Slot;
use garage_sim::cluster::{Cluster, ClusterOptions};
use garage_table::{control::Effect, message::Want};
use garage_util::runtime::Clock;

const NODES: usize = 3;

fn context() -> RequestContext {
    RequestContext::within(Duration::from_secs(60))
}

/// A bucket whose versions are locked for a day by default; older versions are to go after a day.
async fn lock_bucket(cluster: &Cluster) -> BucketRef {
    let bucket = cluster.make_bucket(0, "locked").await;
    let default = DefaultRetention { mode: RetentionMode::Compliance, period: RetentionPeriod::Days(1) };
    let lock = Some(LockSettings { default_retention: Some(default) });
    let noncurrent = Some(NoncurrentExpiration { days: 1, newer_kept: None });
    let rule = LifecycleRule { id: "r".into(), enabled: true, noncurrent, ..LifecycleRule::default() };
    let changed = cluster.node(0).access.buckets().change(bucket.id, Effect::Restricts, context(), |row| {
        (row.versioning, row.object_lock, row.lifecycle) = (Versioning::Enabled, lock, vec![rule.clone()]);
        Ok(())
    });
    changed.await.unwrap();
    BucketRef { versioning: Versioning::Enabled, lock, ..bucket }
}

async fn put(cluster: &Cluster, through: usize, bucket: &BucketRef, key: &str, lock: ObjectLock) -> Slot {
    let (objects, always) = (&cluster.node(through).objects, WriteCondition::default());
    let headers = ObjectHeaders { lock, ..ObjectHeaders::default() };
    let body = Box::new(WholeBody::new(Bytes::from_static(b"to be kept")));
    objects.put(bucket, key, headers, body, &always, context()).await.unwrap().slot.unwrap()
}

async fn retained_until(cluster: &Cluster, bucket: &BucketRef, key: &str, slot: Slot) -> u64 {
    let found = cluster.node(0).objects.find_version(bucket, key, Some(slot), Want::Row, context()).await.unwrap();
    let Version::Object(found) = found else { panic!("{key} is gone") };
    found.meta.headers.lock.retention.unwrap().until_ms
}

/// Asks every node to delete a version, with every right there is, and to carry out the lifecycle rules: nobody may.
async fn check_kept(cluster: &Cluster, bucket: &BucketRef, key: &str, slot: Slot) {
    for through in 0..NODES {
        let node = cluster.node(through);
        let wanted = VersionToDelete { slot, etags: None, mark: None };
        let deleted = node.objects.delete_versions(bucket, key, &[wanted], Governance::Bypassed, context()).await;
        assert!(matches!(deleted, Err(ModelError::Client(ClientError::Locked))), "through {through}: {deleted:?}");
        let mut done = Done::default();
        node.lifecycle.run_bucket(bucket.id, &mut done).await.unwrap();
        assert_eq!(done, Done::default(), "through {through}");
    }
    retained_until(cluster, bucket, key, slot).await;
}

async fn check_can_go(cluster: &Cluster, bucket: &BucketRef, key: &str, slot: Slot) {
    let wanted = VersionToDelete { slot, etags: None, mark: None };
    cluster.node(2).objects.delete_versions(bucket, key, &[wanted], Governance::Obeyed, context()).await.unwrap();
}

#[test]
fn a_clock_that_is_ahead_frees_no_locked_version() {
    garage_sim::run(async {
        let cluster = Cluster::start(1, ClusterOptions::rough()).await;
        let bucket = lock_bucket(&cluster).await;
        let lock = |now_ms: u64| ObjectLock {
            retention: Some(Retention { mode: RetentionMode::Compliance, until_ms: now_ms + 3 * DAY_MS }),
            legal_hold: None,
        };
        let slot = put(&cluster, 0, &bucket, "k", lock(cluster.clock(0).now_ms())).await;
        // A newer one, so that the rule is about the older.
        put(&cluster, 1, &bucket, "k", ObjectLock::default()).await;
        for wrong in 0..NODES {
            cluster.clock(wrong).set_offset_ms(10 * DAY_MS as i64);
            check_kept(&cluster, &bucket, "k", slot).await;
            cluster.clock(wrong).set_offset_ms(0);
        }
        (0..NODES).for_each(|node| cluster.clock(node).set_offset_ms(4 * DAY_MS as i64));
        check_can_go(&cluster, &bucket, "k", slot).await;
    });
}

#[test]
fn a_clock_that_is_set_back_makes_no_retention_shorter() {
    for wrong in 0..NODES {
        garage_sim::run(async {
            let cluster = Cluster::start(2 + wrong as u64, ClusterOptions::rough()).await;
            let bucket = lock_bucket(&cluster).await;
            let begun_ms = cluster.clock(wrong).now_ms();
            // Every node has seen the right time.
            put(&cluster, wrong, &bucket, "before", ObjectLock::default()).await;
            cluster.clock(wrong).set_offset_ms(-5 * DAY_MS as i64);
            let slot = put(&cluster, wrong, &bucket, "k", ObjectLock::default()).await;
            let until_ms = retained_until(&cluster, &bucket, "k", slot).await;
            assert!(begun_ms + DAY_MS <= until_ms, "node {wrong}: {until_ms} is less than a day after {begun_ms}");
            // Half a day later, with the clock still set back, and with it right again.
            for offset_days in [-5, 0] {
                (0..NODES).for_each(|node| cluster.clock(node).set_offset_ms(DAY_MS as i64 / 2));
                cluster.clock(wrong).set_offset_ms(DAY_MS as i64 / 2 + offset_days * DAY_MS as i64);
                check_kept(&cluster, &bucket, "k", slot).await;
            }
            (0..NODES).for_each(|node| cluster.clock(node).set_offset_ms(2 * DAY_MS as i64));
            check_can_go(&cluster, &bucket, "k", slot).await;
        });
    }
}
