//! Replicas that missed something become equal by themselves; partitions move while clients go on; lost stores come back refilled.

use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use garage_model::{
    ModelError, RequestContext,
    body::WholeBody,
    node::Node,
    objects::{BucketRef, WriteCondition},
};
use garage_rpc::layout::{Role, RoleChange};
use garage_sim::cluster::{Cluster, ClusterOptions, DiskImage};
use tokio::time::sleep;

/// Seeds of each test.
const SEEDS: std::ops::Range<u64> = 0..3;

fn for_each_seed<F: Future<Output = ()>>(test: impl Fn(u64) -> F) {
    SEEDS.for_each(|seed| garage_sim::run(test(seed)));
}

fn context() -> RequestContext {
    RequestContext::within(Duration::from_secs(20))
}

async fn put(node: &Node, bucket: &BucketRef, key: &str, content: &str) -> Result<String, ModelError> {
    let body = Box::new(WholeBody::new(Bytes::from(content.to_string())));
    Ok(node.objects.put(bucket, key, Default::default(), body, &WriteCondition::default(), context()).await?.etag)
}

async fn delete(node: &Node, bucket: &BucketRef, key: &str) {
    node.objects.delete(bucket, key, &WriteCondition::default(), context()).await.unwrap();
}

async fn content(node: &Node, bucket: &BucketRef, key: &str) -> Option<String> {
    let found = node.objects.get(bucket, key, context()).await.unwrap()?;
    let pieces: Vec<Bytes> = node.objects.read(&found, 0..found.meta.size_bytes, context()).try_collect().await.unwrap();
    Some(String::from_utf8_lossy(&pieces.concat()).into_owned())
}

/// Writes `0..count`, each with its number, deletes every fifth.
async fn fill(node: &Node, bucket: &BucketRef, count: usize) {
    for number in 0..count {
        put(node, bucket, &format!("key/{number}"), &format!("content {number}")).await.unwrap();
        if number % 5 == 4 {
            delete(node, bucket, &format!("key/{number}")).await;
        }
    }
}

async fn assert_filled(node: &Node, bucket: &BucketRef, count: usize) {
    for number in 0..count {
        let expected = (number % 5 != 4).then(|| format!("content {number}"));
        assert_eq!(content(node, bucket, &format!("key/{number}")).await, expected, "key {number}");
    }
}

#[test]
fn a_node_that_was_down_catches_up_by_itself() {
    for_each_seed(|seed| async move {
        let mut cluster = Cluster::start(seed, ClusterOptions::rough()).await;
        let bucket = cluster.make_bucket(0, "bucket").await;
        fill(cluster.node(0), &bucket, 10).await;
        cluster.crash(2);
        fill(cluster.node(1), &bucket, 40).await;
        assert!(cluster.differing_replicas().await.is_none(), "seed {seed}: two nodes are up, and hold the same");
        cluster.restart(2).await;
        cluster.await_identical().await;
        let moved = |node: usize| cluster.node(node).syncer.repaired().pulled_count + cluster.node(node).syncer.repaired().given_count;
        assert!(0 < (0..3).map(moved).sum::<usize>(), "seed {seed}: nothing was moved by anti-entropy");
        // It alone has a quorum with one of the others: what it answers is right.
        cluster.crash(1);
        assert_filled(cluster.node(2), &bucket, 40).await;
    });
}

#[test]
fn partitions_move_to_a_new_node_and_away_from_an_old_one() {
    for_each_seed(|seed| async move {
        let mut cluster = Cluster::start(seed, ClusterOptions { spare_count: 1, ..ClusterOptions::rough() }).await;
        let bucket = cluster.make_bucket(0, "bucket").await;
        fill(cluster.node(0), &bucket, 20).await;
        cluster.change_layout(0, vec![(2, RoleChange::Remove), (3, cluster.storage_role(2))]).await;
        cluster.await_moved().await;
        cluster.await_identical().await;
        assert_filled(cluster.node(3), &bucket, 20).await;
        // Without the node that left, and without one that stayed.
        cluster.crash(2);
        cluster.crash(0);
        assert_filled(cluster.node(3), &bucket, 20).await;
    });
}

#[test]
fn several_changes_follow_each_other_without_waiting() {
    for_each_seed(|seed| async move {
        let mut cluster = Cluster::start(seed, ClusterOptions { spare_count: 3, ..ClusterOptions::rough() }).await;
        let bucket = cluster.make_bucket(0, "bucket").await;
        fill(cluster.node(0), &bucket, 20).await;
        let gateway = RoleChange::Assign(Role { zone: "zone0".into(), capacity_bytes: None, tags: Vec::new() });
        cluster.change_layout(0, vec![(3, cluster.storage_role(0))]).await;
        cluster.change_layout(1, vec![(0, RoleChange::Remove), (4, cluster.storage_role(1))]).await;
        cluster.change_layout(2, vec![(1, RoleChange::Remove), (5, gateway)]).await;
        cluster.await_moved().await;
        assert_filled(cluster.node(5), &bucket, 20).await;
        put(cluster.node(5), &bucket, "by a gateway", "written").await.unwrap();
        cluster.crash(0);
        cluster.crash(1);
        cluster.await_identical().await;
        assert_filled(cluster.node(3), &bucket, 20).await;
        assert_eq!(content(cluster.node(4), &bucket, "by a gateway").await.as_deref(), Some("written"));
    });
}

#[test]
fn one_copy_becomes_three_and_three_become_two() {
    for_each_seed(|seed| async move {
        let options = ClusterOptions { replication_factor: 1, zone_count: 1, ..ClusterOptions::rough() };
        let mut cluster = Cluster::start(seed, options).await;
        let bucket = cluster.make_bucket(0, "bucket").await;
        fill(cluster.node(0), &bucket, 20).await;
        cluster.change_copies(0, 3).await;
        cluster.await_moved().await;
        cluster.crash(0);
        assert_filled(cluster.node(1), &bucket, 20).await;
        cluster.restart(0).await;
        cluster.change_copies(1, 2).await;
        cluster.await_moved().await;
        assert_filled(cluster.node(2), &bucket, 20).await;
        cluster.await_identical().await;
    });
}

#[test]
fn a_node_that_lost_its_disk_answers_nothing_before_it_is_refilled() {
    for_each_seed(|seed| async move {
        let mut cluster = Cluster::start(seed, ClusterOptions::rough()).await;
        let bucket = cluster.make_bucket(0, "bucket").await;
        fill(cluster.node(0), &bucket, 20).await;
        cluster.lose_metadata(2);
        // One of the two that are left is cut off: nobody may answer, least of all from an empty store.
        cluster.isolate(1, true);
        cluster.restart(2).await;
        sleep(Duration::from_secs(30)).await;
        assert!(cluster.node(0).objects.get(&bucket, "key/0", context()).await.is_err(), "seed {seed}: an empty store was believed");
        assert!(put(cluster.node(0), &bucket, "unanswered", "new").await.is_err(), "seed {seed}: an empty store voted");
        cluster.isolate(1, false);
        cluster.await_recovered().await;
        cluster.await_identical().await;
        cluster.crash(1);
        assert_filled(cluster.node(2), &bucket, 20).await;
    });
}

#[test]
fn a_node_set_back_to_an_older_state_does_not_vote_before_it_is_refilled() {
    set_back_and_refilled(Cluster::restore, false);
}

#[test]
fn a_node_restored_from_a_snapshot_does_not_vote_before_it_is_refilled() {
    // A snapshot says itself what it is, so nobody who remembers more is needed.
    set_back_and_refilled(Cluster::restore_snapshot, true);
}

fn set_back_and_refilled(restore: fn(&mut Cluster, usize, &DiskImage), is_witness_away: bool) {
    for_each_seed(|seed| async move {
        let mut cluster = Cluster::start(seed, ClusterOptions::rough()).await;
        let bucket = cluster.make_bucket(0, "bucket").await;
        fill(cluster.node(0), &bucket, 5).await;
        sleep(Duration::from_secs(5)).await;
        let image = cluster.image(2);
        // What happens next is known to nodes 0 and 2 alone.
        cluster.isolate(1, true);
        fill(cluster.node(0), &bucket, 20).await;
        restore(&mut cluster, 2, &image);
        cluster.isolate(1, false);
        // Of those who knew of it one was set back; if the other is away, the two that are left would be a quorum.
        cluster.isolate(0, is_witness_away);
        cluster.restart(2).await;
        for number in 0..20 {
            let expected = (number % 5 != 4).then(|| format!("content {number}"));
            for node in [1, 2] {
                if let Ok(found) = cluster.node(node).objects.head(&bucket, &format!("key/{number}"), context()).await {
                    assert_eq!(found.is_some(), expected.is_some(), "seed {seed}: key {number} through {node}");
                }
            }
        }
        cluster.isolate(0, false);
        cluster.await_recovered().await;
        cluster.await_identical().await;
        cluster.crash(0);
        assert_filled(cluster.node(2), &bucket, 20).await;
    });
}

#[test]
fn a_whole_cluster_set_back_waits_until_its_operator_accepts_the_loss() {
    for_each_seed(|seed| async move {
        let mut cluster = Cluster::start(seed, ClusterOptions::rough()).await;
        let bucket = cluster.make_bucket(0, "bucket").await;
        fill(cluster.node(0), &bucket, 10).await;
        let mut images = Vec::new();
        for node in 0..3 {
            // Snapshots of different moments, as different machines make them.
            put(cluster.node(0), &bucket, &format!("between/{node}"), "written").await.unwrap();
            sleep(Duration::from_secs(40)).await;
            images.push(cluster.image(node));
        }
        put(cluster.node(0), &bucket, "after", "lost").await.unwrap();
        sleep(Duration::from_secs(40)).await;
        for node in [2, 1, 0] {
            cluster.restore(node, &images[node]);
        }
        for node in 0..3 {
            cluster.restart(node).await;
        }
        sleep(Duration::from_secs(150)).await;
        let is_serving = content_of(cluster.node(0), &bucket, "key/0").await.is_ok();
        if !is_serving {
            cluster.node(1).cluster.force_layout().await.unwrap();
        }
        cluster.await_recovered().await;
        cluster.await_identical().await;
        assert_filled(cluster.node(2), &bucket, 10).await;
        put(cluster.node(1), &bucket, "after", "new").await.unwrap();
        assert_eq!(content(cluster.node(0), &bucket, "after").await.as_deref(), Some("new"));
    });
}

async fn content_of(node: &Node, bucket: &BucketRef, key: &str) -> Result<bool, ModelError> {
    Ok(node.objects.head(bucket, key, context()).await?.is_some())
}

#[test]
fn a_lost_quorum_is_given_up_by_force_and_what_is_left_is_served() {
    for_each_seed(|seed| async move {
        let mut cluster = Cluster::start(seed, ClusterOptions { spare_count: 2, ..ClusterOptions::rough() }).await;
        let bucket = cluster.make_bucket(0, "bucket").await;
        fill(cluster.node(0), &bucket, 10).await;
        cluster.await_identical().await;
        cluster.crash(1);
        cluster.crash(2);
        sleep(Duration::from_secs(10)).await;
        let copies = cluster.node(0).syncer.count_copies().await;
        assert_eq!((copies.sound_count, copies.without_copy.len(), copies.silent.len()), (0, 0, 2), "{copies:?}");
        let node = cluster.node(0).cluster.clone();
        for (index, change) in
            [(1, RoleChange::Remove), (2, RoleChange::Remove), (3, cluster.storage_role(1)), (4, cluster.storage_role(2))]
        {
            node.stage_role(cluster.id(index), change).await.unwrap();
        }
        node.force_layout().await.unwrap();
        cluster
            .await_condition("the new nodes know of the layout", |cluster| {
                [3, 4].into_iter().all(|index| cluster.node(index).cluster.layout().epoch() == 1)
            })
            .await;
        cluster.await_recovered().await;
        cluster.await_identical().await;
        cluster.crash(0);
        assert_filled(cluster.node(3), &bucket, 10).await;
    });
}

#[test]
fn a_node_that_dies_for_good_during_a_change_is_skipped_without_a_loss() {
    for_each_seed(|seed| async move {
        let mut cluster = Cluster::start(seed, ClusterOptions { spare_count: 2, ..ClusterOptions::rough() }).await;
        let bucket = cluster.make_bucket(0, "bucket").await;
        fill(cluster.node(0), &bucket, 20).await;
        cluster.change_layout(0, vec![(2, RoleChange::Remove), (3, cluster.storage_role(2))]).await;
        cluster.crash(3);
        cluster.change_layout(0, vec![(3, RoleChange::Remove), (4, cluster.storage_role(2))]).await;
        sleep(Duration::from_secs(60)).await;
        assert!(1 < cluster.node(0).cluster.layout().live().count(), "seed {seed}: nobody waits for the dead node");
        fill(cluster.node(1), &bucket, 30).await;
        let dead = [cluster.id(3)].into();
        let version = cluster.node(0).cluster.layout().current().version;
        cluster.node(0).cluster.update_layout(|history, _| Ok(history.skip_dead_nodes(version, &dead, false)?)).await.unwrap();
        cluster.await_moved().await;
        cluster.crash(2);
        cluster.crash(0);
        assert_filled(cluster.node(4), &bucket, 30).await;
    });
}

#[test]
fn tombstones_go_everywhere_and_nothing_deleted_comes_back() {
    for_each_seed(|seed| async move {
        let mut cluster = Cluster::start(seed, ClusterOptions::rough()).await;
        let bucket = cluster.make_bucket(0, "bucket").await;
        fill(cluster.node(0), &bucket, 10).await;
        // This one still holds what is deleted next.
        let image = cluster.image(2);
        for number in 0..10 {
            delete(cluster.node(0), &bucket, &format!("key/{number}")).await;
        }
        // All clocks jump together; what is done now and then is done again before the next look.
        (0..3).for_each(|node| cluster.clock(node).set_offset_ms(23 * 3_600_000));
        sleep(Duration::from_secs(1_300)).await;
        assert!(0 < cluster.rows_count(0).await, "seed {seed}: a tombstone went before its time");
        (0..3).for_each(|node| cluster.clock(node).set_offset_ms(25 * 3_600_000));
        sleep(Duration::from_secs(1_300)).await;
        for node in 0..3 {
            assert_eq!(cluster.rows_count(node).await, 0, "seed {seed}: tombstones stay on node {node}");
        }
        cluster.restore(2, &image);
        cluster.restart(2).await;
        cluster.await_recovered().await;
        cluster.await_identical().await;
        for number in 0..10 {
            for node in 0..3 {
                assert_eq!(content(cluster.node(node), &bucket, &format!("key/{number}")).await, None, "seed {seed}: key {number} is back");
            }
        }
        put(cluster.node(2), &bucket, "key/1", "new").await.unwrap();
        assert_eq!(content(cluster.node(1), &bucket, "key/1").await.as_deref(), Some("new"));
    });
}

#[test]
fn a_clock_ten_minutes_off_is_corrected_loses_no_update_and_shows() {
    for_each_seed(|seed| async move {
        let mut cluster = Cluster::start(seed, ClusterOptions::rough()).await;
        let bucket = cluster.make_bucket(0, "bucket").await;
        for offset_ms in [600_000, -600_000] {
            cluster.crash(1);
            cluster.clock(1).set_offset_ms(offset_ms);
            cluster.restart(1).await;
            // As a node that starts does before it listens to clients.
            assert!(cluster.node(1).cluster.await_quorums(Duration::from_secs(60)).await, "seed {seed}: nobody was met");
            for number in 0..20 {
                let text = format!("{offset_ms}/{number}");
                put_soon(cluster.node(number % 2), &bucket, "key", &text).await;
                assert_eq!(content(cluster.node((number + 1) % 3), &bucket, "key").await, Some(text), "seed {seed}");
                sleep(Duration::from_secs(1)).await;
            }
            let correction_ms = cluster.node(1).cluster.clock_correction_ms();
            assert!((correction_ms + offset_ms).abs() < 5_000, "seed {seed}: corrected by {correction_ms} ms");
            assert_eq!(cluster.node(0).cluster.clock_correction_ms(), 0, "seed {seed}: a right clock was corrected");
            let seen = cluster.node(0).cluster.status().into_iter().find(|status| status.node == cluster.id(1)).unwrap();
            assert!((seen.clock_ahead_ms.unwrap() - offset_ms).abs() < 5_000, "seed {seed}: {seen:?}");
        }
    });
}

/// A node that has just started serves as soon as it met another.
async fn put_soon(node: &Node, bucket: &BucketRef, key: &str, content: &str) {
    for _ in 0..100 {
        if put(node, bucket, key, content).await.is_ok() {
            return;
        }
        sleep(Duration::from_millis(200)).await;
    }
    panic!("nothing can be written");
}

#[test]
fn what_moved_away_is_dropped_and_comes_back_whole() {
    for_each_seed(|seed| async move {
        let mut cluster = Cluster::start(seed, ClusterOptions { spare_count: 1, ..ClusterOptions::rough() }).await;
        let bucket = cluster.make_bucket(0, "bucket").await;
        fill(cluster.node(0), &bucket, 40).await;
        cluster.change_layout(0, vec![(3, cluster.storage_role(0))]).await;
        cluster.await_moved().await;
        sleep(Duration::from_secs(300)).await;
        for node in 0..4 {
            assert_eq!(cluster.foreign_rows_count(node).await, 0, "seed {seed}: node {node} keeps what moved away");
        }
        cluster.await_identical().await;
        cluster.change_layout(1, vec![(3, RoleChange::Remove)]).await;
        cluster.await_moved().await;
        cluster.crash(3);
        cluster.await_identical().await;
        cluster.crash(1);
        assert_filled(cluster.node(0), &bucket, 40).await;
    });
}
