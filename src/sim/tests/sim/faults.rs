//! Named promises under named faults: each on whole nodes, in virtual time, for several seeds.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{TryStreamExt, future::join_all};
use garage_model::{
    ModelError, RequestContext,
    body::WholeBody,
    error::ClientError,
    node::Node,
    objects::{BucketRef, WriteCondition},
    rows::bucket::BucketRow,
    uploads::{CompleteRequest, CompletedPart, NewUpload},
};
use garage_sim::{
    cluster::{Cluster, ClusterOptions, Nodes},
    seed::Seed,
};
use garage_table::{control::Effect, group::TableError};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

/// Seeds of each test.
const SEEDS: std::ops::Range<u64> = 0..4;
/// How long requests may take that need not be quick.
const PATIENCE: Duration = Duration::from_secs(20);
/// What a lost node may cost a request.
const DELAY_MAX: Duration = Duration::from_secs(1);

fn for_each_seed<F: Future<Output = ()>>(test: impl Fn(u64) -> F) {
    SEEDS.for_each(|seed| garage_sim::run(test(seed)));
}

/// A network without loss, so that what a request takes is what the fault costs it.
fn calm() -> ClusterOptions {
    let rough = ClusterOptions::rough();
    ClusterOptions { conditions: garage_sim::network::Conditions { lost_one_in: 0, ..rough.conditions }, ..rough }
}

fn context() -> RequestContext {
    RequestContext::within(PATIENCE)
}

/// What the HTTP interfaces answer with 507.
fn is_storage_full(error: &ModelError) -> bool {
    match error {
        ModelError::Table(error) => *error == TableError::StorageFull,
        ModelError::PutBlock(error) => error.is_storage_full(),
        _ => false,
    }
}

async fn put(node: &Node, bucket: &BucketRef, key: &str, content: &str) -> Result<String, ModelError> {
    put_if(node, bucket, key, content, WriteCondition::default()).await
}

async fn put_if(node: &Node, bucket: &BucketRef, key: &str, content: &str, condition: WriteCondition) -> Result<String, ModelError> {
    let body = Box::new(WholeBody::new(Bytes::from(content.to_string())));
    Ok(node.objects.put(bucket, key, Default::default(), body, &condition, context()).await?.etag)
}

/// A key's ETag and content.
async fn get(node: &Node, bucket: &BucketRef, key: &str) -> Result<Option<(String, String)>, ModelError> {
    let Some(found) = node.objects.get(bucket, key, context()).await? else { return Ok(None) };
    let pieces: Vec<Bytes> = node.objects.read(&found, 0..found.meta.size_bytes, context()).try_collect().await?;
    Ok(Some((found.meta.etag, String::from_utf8_lossy(&pieces.concat()).into_owned())))
}

async fn content(node: &Node, bucket: &BucketRef, key: &str) -> Option<String> {
    get(node, bucket, key).await.unwrap().map(|(_, content)| content)
}

#[test]
fn the_last_acknowledged_write_wins_whatever_the_clocks_say() {
    for_each_seed(|seed| async move {
        let cluster = Cluster::start(seed, ClusterOptions::rough()).await;
        let bucket = cluster.make_bucket(0, "clocks").await;
        for offset_ms in [40_000, -40_000] {
            cluster.clock(0).set_offset_ms(offset_ms);
            for number in 0..20 {
                let text = format!("{offset_ms}/{number}");
                put(cluster.node(number % 2), &bucket, "key", &text).await.unwrap();
                let node = cluster.node((number + 1) % 3);
                assert_eq!(content(node, &bucket, "key").await, Some(text), "seed {seed}");
            }
        }
    });
}

/// Writers that go on until told to stop, each through the nodes in `through`, and what each object must be.
struct Writers {
    nodes: Nodes,
    bucket: BucketRef,
    acknowledged: Arc<Mutex<Vec<(String, String)>>>,
    /// Requests that failed, or took longer than they may: (node, what).
    complaints: Arc<Mutex<Vec<(usize, String)>>>,
    stopping: tokio::sync::watch::Receiver<bool>,
}

impl Writers {
    async fn write(&self, number: usize, through: &[usize], mut seed: Seed) {
        for count in 0.. {
            if *self.stopping.borrow() {
                return;
            }
            sleep(Duration::from_millis(seed.pick(50))).await;
            let index = through[seed.pick(through.len() as u64) as usize];
            // Some are inline, some are blocks.
            let len_bytes = [100, 40_000][seed.pick(2) as usize];
            let (key, text) = (format!("{number}/{count}"), format!("{number}/{count} {:len_bytes$}", "x"));
            let Some((node, killed)) = self.nodes.get(index) else { continue };
            let begun = Instant::now();
            let outcome = tokio::select! {
                biased;
                () = killed.cancelled() => continue,
                outcome = put(&node, &self.bucket, &key, &text) => outcome,
            };
            match outcome {
                Ok(_) if begun.elapsed() <= DELAY_MAX => {}
                Ok(_) => self.complaints.lock().push((index, format!("{key} took {:?}", begun.elapsed()))),
                Err(ref error) => self.complaints.lock().push((index, format!("{key}: {error}"))),
            }
            if outcome.is_ok() {
                self.acknowledged.lock().push((key, text));
            }
        }
    }
}

/// Runs 16 writers while `story` happens to the cluster; what was acknowledged, and what went wrong.
async fn under_writes(
    cluster: &mut Cluster,
    bucket: &BucketRef,
    through: &[usize],
    story: impl AsyncFnOnce(&mut Cluster),
) -> (Vec<(String, String)>, Vec<(usize, String)>) {
    let (stop, stopping) = tokio::sync::watch::channel(false);
    let writers =
        Writers { nodes: cluster.nodes(), bucket: bucket.clone(), acknowledged: Arc::default(), complaints: Arc::default(), stopping };
    let writing = join_all((0..16).map(|number| writers.write(number, through, cluster.fork_seed(100 + number as u64))));
    let telling = async {
        story(cluster).await;
        stop.send_replace(true);
    };
    futures::future::join(writing, telling).await;
    (writers.acknowledged.lock().clone(), writers.complaints.lock().clone())
}

async fn assert_all_there(cluster: &Cluster, bucket: &BucketRef, acknowledged: &[(String, String)], through: usize) {
    assert!(50 < acknowledged.len(), "only {} objects were written", acknowledged.len());
    for (key, text) in acknowledged {
        let held = content(cluster.node(through), bucket, key).await;
        assert_eq!(held.as_ref(), Some(text), "seed {}: {key} through node {through}", cluster.seed());
    }
}

#[test]
fn a_killed_node_loses_nothing_and_hinders_nobody() {
    for_each_seed(|seed| async move {
        let mut cluster = Cluster::start(seed, calm()).await;
        let bucket = cluster.make_bucket(0, "killed").await;
        let (acknowledged, complaints) = under_writes(&mut cluster, &bucket, &[0, 2], async |cluster| {
            sleep(Duration::from_secs(2)).await;
            cluster.crash(1);
            sleep(Duration::from_secs(3)).await;
        })
        .await;
        assert_eq!(complaints, vec![], "seed {seed}");
        assert_all_there(&cluster, &bucket, &acknowledged, 0).await;
        cluster.restart(1).await;
        // At once: what it missed it does not have, and must not answer from.
        assert_serves_soon(&cluster, 1, "killed", &acknowledged).await;
        assert_all_there(&cluster, &bucket, &acknowledged, 1).await;
    });
}

/// Every request of a client, the bucket's name included, is answered rightly within 5 s of now.
async fn assert_serves_soon(cluster: &Cluster, index: usize, bucket_name: &str, acknowledged: &[(String, String)]) {
    let (node, seed) = (cluster.node(index), cluster.seed());
    let (key, text) = acknowledged.last().expect("something was written");
    let serves = async {
        loop {
            let attempt = async {
                let bucket = node.access.buckets().resolve(None, bucket_name, context()).await?.ok_or(ClientError::NoSuchBucket)?.as_ref();
                let held = get(node, &bucket, key).await?;
                put(node, &bucket, &format!("after/{index}"), "new").await?;
                Ok::<_, ModelError>(held)
            };
            match attempt.await {
                Ok(held) => return held,
                Err(ModelError::Client(error)) => panic!("seed {seed}: node {index} answers {error}"),
                // Not yet: a client tries again.
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    };
    let begun = Instant::now();
    let held = timeout(Duration::from_secs(5), serves).await;
    let held = held.unwrap_or_else(|_| panic!("seed {seed}: node {index} does not serve within 5 s"));
    assert_eq!(held.as_ref().map(|(_, content)| content), Some(text), "seed {seed}: node {index}, after {:?}", begun.elapsed());
}

#[test]
fn all_nodes_killed_at_once_lose_nothing_and_serve_again_within_seconds() {
    for_each_seed(|seed| async move {
        let mut cluster = Cluster::start(seed, calm()).await;
        let bucket = cluster.make_bucket(0, "dark").await;
        // A minute after the cluster was formed: nothing that is saved now and then may be needed.
        sleep(Duration::from_secs(if seed % 2 == 0 { 0 } else { 60 })).await;
        let (acknowledged, _) = under_writes(&mut cluster, &bucket, &[0, 1, 2], async |cluster| {
            sleep(Duration::from_secs(2)).await;
            (0..3).for_each(|node| cluster.crash(node));
        })
        .await;
        for node in 0..3 {
            cluster.restart_from_disk(node).await;
        }
        for node in 0..3 {
            assert_serves_soon(&cluster, node, "dark", &acknowledged).await;
        }
        assert_all_there(&cluster, &bucket, &acknowledged, (seed % 3) as usize).await;
    });
}

#[test]
fn an_isolated_node_says_so_quickly_and_recovers() {
    for_each_seed(|seed| async move {
        let cluster = Cluster::start(seed, calm()).await;
        let bucket = cluster.make_bucket(0, "isolated").await;
        put(cluster.node(1), &bucket, "key", "before").await.unwrap();
        cluster.isolate(1, true);
        for pause in [0, 30] {
            sleep(Duration::from_secs(pause)).await;
            let begun = Instant::now();
            assert!(get(cluster.node(1), &bucket, "key").await.is_err(), "seed {seed}");
            assert!(put(cluster.node(1), &bucket, "key", "lost").await.is_err(), "seed {seed}");
            assert!(begun.elapsed() < Duration::from_secs(12), "seed {seed}: {:?}", begun.elapsed());
        }
        put(cluster.node(0), &bucket, "key", "meanwhile").await.unwrap();
        cluster.isolate(1, false);
        let held = async {
            loop {
                match get(cluster.node(1), &bucket, "key").await {
                    Ok(held) => return held,
                    Err(_) => sleep(Duration::from_millis(100)).await,
                }
            }
        };
        let held = timeout(Duration::from_secs(15), held).await.unwrap_or_else(|_| panic!("seed {seed}: it does not come back"));
        assert_eq!(held.map(|(_, content)| content).as_deref(), Some("meanwhile"), "seed {seed}");
    });
}

#[test]
fn full_disks_refuse_writes_and_nothing_else() {
    for_each_seed(|seed| async move {
        let cluster = Cluster::start(seed, calm()).await;
        let bucket = cluster.make_bucket(0, "full").await;
        let large = "y".repeat(100_000);
        put(cluster.node(0), &bucket, "small", "content").await.unwrap();
        put(cluster.node(0), &bucket, "large", &large).await.unwrap();
        cluster.set_full(0, true);
        put(cluster.node(1), &bucket, "one is full", "content").await.unwrap();
        put(cluster.node(1), &bucket, "one is full, large", &large).await.unwrap();
        cluster.set_full(1, true);
        for node in 0..3 {
            for text in ["new", &large] {
                let error = put(cluster.node(node), &bucket, "small", text).await.expect_err("two of three disks are full");
                assert!(is_storage_full(&error), "seed {seed}: through node {node}: {error}");
            }
            assert_eq!(content(cluster.node(node), &bucket, "small").await.as_deref(), Some("content"), "seed {seed}");
            assert_eq!(content(cluster.node(node), &bucket, "large").await.as_ref(), Some(&large), "seed {seed}");
        }
        (0..2).for_each(|node| cluster.set_full(node, false));
        for node in 0..3 {
            put(cluster.node(node), &bucket, "small", "again").await.unwrap();
            put(cluster.node(node), &bucket, "large", &large).await.unwrap();
        }
    });
}

#[test]
fn of_buckets_created_at_once_under_one_name_there_is_one() {
    for_each_seed(|seed| async move {
        let cluster = Cluster::start(seed, ClusterOptions::rough()).await;
        let creations = (0..3).map(|node| cluster.node(node).access.buckets().create("contested", None, context()));
        let created: Vec<_> = join_all(creations).await;
        let won: Vec<_> = created.iter().filter_map(|outcome| outcome.as_ref().ok().map(|bucket| bucket.id)).collect();
        assert_eq!(won.len(), 1, "seed {seed}: {created:?}");
        for error in created.iter().filter_map(|outcome| outcome.as_ref().err()) {
            assert!(matches!(error, ModelError::Client(ClientError::BucketExists { .. })), "seed {seed}: {error}");
        }
        for node in 0..3 {
            let buckets = cluster.node(node).access.buckets();
            let found = buckets.resolve(None, "contested", context()).await.unwrap().map(|bucket| bucket.id);
            assert_eq!(found, Some(won[0]), "seed {seed}: node {node}");
            assert_eq!(buckets.list(context()).await.unwrap().len(), 1, "seed {seed}: node {node}");
        }
    });
}

#[test]
fn a_completion_repeated_after_its_node_died_is_answered_alike_and_changes_nothing() {
    for_each_seed(|seed| async move {
        let mut cluster = Cluster::start(seed, calm()).await;
        let bucket = cluster.make_bucket(0, "repeated").await;
        let uploads = cluster.node(0).uploads.clone();
        let upload = uploads.create(&bucket, "key", NewUpload::default(), context()).await.unwrap();
        let body = Box::new(WholeBody::new(Bytes::from_static(b"a small part")));
        let etag = uploads.put_part(&bucket, "key", upload, 1, body, context()).await.unwrap().etag;
        let parts = [CompletedPart { part_number: 1, etag, checksum: None }];
        let always = WriteCondition::default();
        let request = || CompleteRequest { parts: &parts, condition: &always, checksum: None, size_bytes: None, combine: &|_, _| None };
        let first = uploads.complete(&bucket, "key", upload, request(), context()).await.unwrap();
        // Before it can note that the version is written.
        cluster.crash(0);
        assert_eq!(content(cluster.node(1), &bucket, "key").await.as_deref(), Some("a small part"), "seed {seed}");
        put(cluster.node(1), &bucket, "key", "put since").await.unwrap();
        let again = cluster.node(2).uploads.complete(&bucket, "key", upload, request(), context()).await.unwrap();
        assert_eq!(again, first, "seed {seed}");
        assert_eq!(content(cluster.node(1), &bucket, "key").await.as_deref(), Some("put since"), "seed {seed}");
        if seed == 0 {
            // Hours later, when promises and trails are forgotten.
            tokio::time::sleep(Duration::from_secs(3 * 3600)).await;
            let late = cluster.node(1).uploads.complete(&bucket, "key", upload, request(), context()).await.unwrap();
            assert_eq!(late, first, "seed {seed}");
            assert_eq!(content(cluster.node(2), &bucket, "key").await.as_deref(), Some("put since"), "seed {seed}");
        }
    });
}

#[test]
fn a_changed_setting_of_a_bucket_holds_at_every_node_once_it_is_answered() {
    for_each_seed(|seed| async move {
        let cluster = Cluster::start(seed, calm()).await;
        let bucket = cluster.make_bucket(0, "settings").await;
        for number in 1..10u64 {
            let change = |row: &mut BucketRow| {
                row.quotas.objects_max = Some(number);
                Ok(())
            };
            let asked = number as usize % 3;
            cluster.node(asked).access.buckets().change(bucket.id, Effect::Grants, context(), change).await.unwrap();
            for node in 0..3 {
                let seen = cluster.node(node).access.buckets().get(bucket.id, context()).await.unwrap().unwrap();
                assert_eq!(seen.row.quotas.objects_max, Some(number), "node {node} after a change through node {asked}");
            }
        }
        // Nor does a node that is down hold a change up: whoever is there knows it.
        let begun = Instant::now();
        cluster.isolate(2, true);
        let change = |row: &mut BucketRow| {
            row.quotas.objects_max = Some(100);
            Ok(())
        };
        cluster.node(0).access.buckets().change(bucket.id, Effect::Grants, context(), change).await.unwrap();
        assert!(begun.elapsed() < 2 * DELAY_MAX, "{:?}", begun.elapsed());
        let seen = cluster.node(1).access.buckets().get(bucket.id, context()).await.unwrap().unwrap();
        assert_eq!(seen.row.quotas.objects_max, Some(100));
    });
}
