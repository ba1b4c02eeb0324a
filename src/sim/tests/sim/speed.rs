//! What a troubled node costs the requests of others: no more than a hedge. Virtual time, so the figures are exact for each seed.

use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use garage_model::{
    ModelError, RequestContext,
    body::WholeBody,
    listing::ListRequest,
    node::Node,
    objects::{BucketRef, WriteCondition},
};
use garage_sim::cluster::{Cluster, ClusterOptions};
use tokio::time::{Instant, sleep};

/// Seeds of each test.
const SEEDS: std::ops::Range<u64> = 0..4;
/// What a request may take while one of three nodes is in trouble. A call takes 10 to 50 ms here; a large object is several of them.
const QUICK: Duration = Duration::from_secs(1);
/// The troubled node.
const TROUBLED: usize = 1;

fn for_each_seed<F: Future<Output = ()>>(test: impl Fn(u64) -> F) {
    SEEDS.for_each(|seed| garage_sim::run(test(seed)));
}

fn context() -> RequestContext {
    RequestContext::within(Duration::from_secs(30))
}

async fn put(node: &Node, bucket: &BucketRef, key: &str, text: &str) -> Result<(), ModelError> {
    let body = Box::new(WholeBody::new(Bytes::from(text.to_string())));
    node.objects.put(bucket, key, Default::default(), body, &WriteCondition::default(), context()).await.map(drop)
}

async fn get(node: &Node, bucket: &BucketRef, key: &str) -> Result<Option<String>, ModelError> {
    let Some(found) = node.objects.get(bucket, key, context()).await? else { return Ok(None) };
    let pieces: Vec<Bytes> = node.objects.read(&found, 0..found.meta.size_bytes, context()).try_collect().await?;
    Ok(Some(String::from_utf8_lossy(&pieces.concat()).into_owned()))
}

/// The slowest request of each kind, through the nodes that are well, over and over while `patience` lasts.
struct Slowest {
    what: String,
    took: Duration,
}

async fn slowest(cluster: &Cluster, bucket: &BucketRef, patience: Duration) -> Slowest {
    let (begun, mut slowest) = (Instant::now(), Slowest { what: String::new(), took: Duration::ZERO });
    for count in 0.. {
        if patience <= begun.elapsed() {
            return slowest;
        }
        let node = cluster.node([0, 2][count % 2]);
        for len_bytes in [100usize, 50_000] {
            let (key, text) = (format!("{len_bytes}/{}", count % 7), format!("{count} {:len_bytes$}", ""));
            let started = Instant::now();
            put(node, bucket, &key, &text).await.unwrap_or_else(|error| panic!("seed {}: put {key}: {error}", cluster.seed()));
            note(&mut slowest, "put", &key, started);
            let started = Instant::now();
            let held = get(node, bucket, &key).await.unwrap_or_else(|error| panic!("seed {}: get {key}: {error}", cluster.seed()));
            note(&mut slowest, "get", &key, started);
            assert!(held == Some(text), "seed {}: {key}", cluster.seed());
        }
        let started = Instant::now();
        node.objects.delete(bucket, "100/0", &WriteCondition::default(), context()).await.unwrap();
        note(&mut slowest, "delete", "100/0", started);
    }
    unreachable!("the count does not end")
}

fn note(slowest: &mut Slowest, what: &str, key: &str, started: Instant) {
    if slowest.took < started.elapsed() {
        *slowest = Slowest { what: format!("{what} {key}"), took: started.elapsed() };
    }
}

/// A calm cluster that has served for a while, so that it knows how long its nodes take.
async fn warm(seed: u64) -> (Cluster, BucketRef) {
    let rough = ClusterOptions::rough();
    let conditions = garage_sim::network::Conditions { lost_one_in: 0, ..rough.conditions };
    let cluster = Cluster::start(seed, ClusterOptions { conditions, ..rough }).await;
    let bucket = cluster.make_bucket(0, "speed").await;
    slowest(&cluster, &bucket, Duration::from_secs(5)).await;
    (cluster, bucket)
}

fn assert_quick(seed: u64, when: &str, slowest: &Slowest) {
    assert!(slowest.took <= QUICK, "seed {seed}: {when}: {} took {:?}", slowest.what, slowest.took);
}

#[test]
fn a_dead_node_costs_no_more_than_a_hedge() {
    for_each_seed(|seed| async move {
        let (mut cluster, bucket) = warm(seed).await;
        cluster.crash(TROUBLED);
        assert_quick(seed, "a node is dead", &slowest(&cluster, &bucket, Duration::from_secs(20)).await);
    });
}

#[test]
fn a_hanging_node_costs_no_more_than_a_hedge() {
    for_each_seed(|seed| async move {
        let (cluster, bucket) = warm(seed).await;
        // What others see of a process that was stopped: its connections stand, and nothing comes.
        cluster.isolate(TROUBLED, true);
        assert_quick(seed, "a node hangs", &slowest(&cluster, &bucket, Duration::from_secs(20)).await);
        cluster.isolate(TROUBLED, false);
        assert_quick(seed, "it goes on", &slowest(&cluster, &bucket, Duration::from_secs(20)).await);
    });
}

#[test]
fn a_slow_node_costs_no_more_than_a_hedge() {
    for_each_seed(|seed| async move {
        let (cluster, bucket) = warm(seed).await;
        cluster.network().set_slow(cluster.id(TROUBLED), Duration::from_secs(2));
        assert_quick(seed, "a node is slow", &slowest(&cluster, &bucket, Duration::from_secs(60)).await);
    });
}

#[test]
fn a_node_that_is_cut_off_in_one_direction_costs_no_more_than_a_hedge() {
    for_each_seed(|seed| async move {
        for (from, to) in [(0, TROUBLED), (TROUBLED, 0)] {
            let (cluster, bucket) = warm(seed).await;
            cluster.network().cut(cluster.id(from), cluster.id(to), true);
            assert_quick(seed, "a link is half cut", &slowest(&cluster, &bucket, Duration::from_secs(30)).await);
        }
    });
}

#[test]
fn a_flapping_node_costs_no_more_than_a_hedge() {
    for_each_seed(|seed| async move {
        let (cluster, bucket) = warm(seed).await;
        for period_ms in [300, 3_000, 8_000] {
            let flapping = async {
                for count in 0.. {
                    cluster.isolate(TROUBLED, count % 2 == 0);
                    sleep(Duration::from_millis(period_ms)).await;
                }
            };
            let measured = async { slowest(&cluster, &bucket, Duration::from_secs(40)).await };
            tokio::select! {
                biased;
                () = flapping => unreachable!("it flaps for ever"),
                measured = measured => assert_quick(seed, "a node flaps", &measured),
            }
            cluster.isolate(TROUBLED, false);
            sleep(Duration::from_secs(10)).await;
        }
    });
}

#[test]
fn a_listing_does_not_wait_for_a_hanging_node() {
    for_each_seed(|seed| async move {
        let (cluster, bucket) = warm(seed).await;
        cluster.isolate(TROUBLED, true);
        for count in 0..20 {
            let started = Instant::now();
            let request = ListRequest { limit: 1_000, ..ListRequest::default() };
            cluster.node([0, 2][count % 2]).objects.list(&bucket, &request, context()).await.unwrap();
            assert!(started.elapsed() <= QUICK, "seed {seed}: {:?}", started.elapsed());
            sleep(Duration::from_millis(500)).await;
        }
    });
}
