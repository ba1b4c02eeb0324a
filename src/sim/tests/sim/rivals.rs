//! Conditional writes through three nodes at once: exactly one of many wins, no increment is lost, whatever happens to the nodes meanwhile.
//!
//! - `COUNTER_INCREMENTS=10000`: as many increments of the counter; the default suits CI.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use futures::{TryStreamExt, future::join_all};
use garage_model::{
    ModelError, RequestContext,
    body::WholeBody,
    error::ClientError,
    node::Node,
    objects::{BucketRef, KeyToDelete, WriteCondition},
};
use garage_sim::{
    cluster::{Cluster, ClusterOptions, Nodes},
    history::{Action, Call, Condition, History, Told, is_linearizable},
    network::Conditions,
    seed::Seed,
    trace::Trace,
};
use garage_table::group::TableError;
use parking_lot::Mutex;
use tokio::{sync::watch, time::sleep};

const SEEDS: std::ops::Range<u64> = 0..6;
const WRITERS: usize = 64;
/// Increments of the counter unless `COUNTER_INCREMENTS` says otherwise.
const INCREMENTS_DEFAULT: usize = 300;
const COUNTERS: usize = 6;
const KEY: &str = "key";

fn context() -> RequestContext {
    RequestContext::within(Duration::from_secs(20))
}

fn calm() -> ClusterOptions {
    let rough = ClusterOptions::rough();
    ClusterOptions { conditions: Conditions { lost_one_in: 0, ..rough.conditions }, ..rough }
}

fn absent() -> WriteCondition {
    WriteCondition { absent: true, etags: None }
}
fn same(etag: &str) -> WriteCondition {
    WriteCondition { absent: false, etags: Some(vec![etag.to_string()]) }
}

async fn put_if(node: &Node, bucket: &BucketRef, content: &str, condition: &WriteCondition) -> Result<String, ModelError> {
    let body = Box::new(WholeBody::new(Bytes::from(content.to_string())));
    Ok(node.objects.put(bucket, KEY, Default::default(), body, condition, context()).await?.etag)
}

async fn get(node: &Node, bucket: &BucketRef) -> Result<Option<(String, String)>, ModelError> {
    let Some(found) = node.objects.get(bucket, KEY, context()).await? else { return Ok(None) };
    let pieces: Vec<Bytes> = node.objects.read(&found, 0..found.meta.size_bytes, context()).try_collect().await?;
    Ok(Some((found.meta.etag, String::from_utf8_lossy(&pieces.concat()).into_owned())))
}

async fn content(node: &Node, bucket: &BucketRef) -> Option<String> {
    get(node, bucket).await.unwrap().map(|(_, content)| content)
}

/// What a rival that was fairly beaten is told: 412, or 409.
fn is_beaten<T>(outcome: &Result<T, ModelError>) -> bool {
    matches!(outcome, Err(ModelError::Client(ClientError::PreconditionFailed { .. }) | ModelError::Table(TableError::Contended)))
}

#[test]
fn of_64_writers_that_create_one_key_exactly_one_succeeds_and_the_others_are_told_so() {
    for seed in SEEDS {
        garage_sim::run(async {
            let cluster = Cluster::start(seed, calm()).await;
            let bucket = cluster.make_bucket(0, "created").await;
            let history = History::new(Trace::new());
            let create = |number: usize| {
                let (cluster, bucket, history) = (&cluster, &bucket, &history);
                async move {
                    let call = history.begin(0, number % 3, Action::Put(number as u32 + 1), Condition::Absent);
                    let outcome = put_if(cluster.node(number % 3), bucket, &format!("by {number}"), &absent()).await;
                    history.end(
                        call,
                        match &outcome {
                            Ok(_) => Told::Done,
                            Err(ModelError::Client(_)) => Told::PreconditionFailed,
                            Err(_) => Told::Failed,
                        },
                    );
                    outcome
                }
            };
            let outcomes = join_all((0..WRITERS).map(create)).await;
            let won: Vec<String> = (0..WRITERS).filter(|number| outcomes[*number].is_ok()).map(|number| format!("by {number}")).collect();
            assert_eq!(won.len(), 1, "seed {seed}: {outcomes:?}");
            assert!(outcomes.iter().all(|outcome| outcome.is_ok() || is_beaten(outcome)), "seed {seed}: {outcomes:?}");
            for node in 0..3 {
                assert_eq!(content(cluster.node(node), &bucket).await.as_ref(), Some(&won[0]), "seed {seed}");
            }
            assert!(is_linearizable(&history.recorded().calls), "seed {seed}");
        });
    }
}

#[test]
fn of_64_deletes_of_one_version_exactly_one_succeeds() {
    for seed in SEEDS {
        garage_sim::run(async {
            let cluster = Cluster::start(seed, calm()).await;
            let bucket = cluster.make_bucket(0, "deleted").await;
            let etag = put_if(cluster.node(0), &bucket, "there", &WriteCondition::default()).await.unwrap();
            let delete = |number: usize| {
                let (node, bucket, condition) = (cluster.node(number % 3), &bucket, same(&etag));
                async move {
                    if number.is_multiple_of(2) {
                        return node.objects.delete(bucket, KEY, &condition, context()).await.map(drop);
                    }
                    let keys = vec![KeyToDelete { key: KEY.into(), condition }];
                    node.objects.delete_many(bucket, keys, context()).await.remove(0).map(drop)
                }
            };
            let outcomes = join_all((0..WRITERS).map(delete)).await;
            assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "seed {seed}: {outcomes:?}");
            for outcome in outcomes.iter().filter(|outcome| outcome.is_err()) {
                let is_absent = matches!(outcome, Err(ModelError::Client(ClientError::NoSuchKey)));
                assert!(is_absent || is_beaten(outcome), "seed {seed}: {outcome:?}");
            }
            assert_eq!(content(cluster.node(1), &bucket).await, None, "seed {seed}");
        });
    }
}

/// An increment that was tried: what it was to replace, and whether it was acknowledged.
struct Attempt {
    base: String,
    acknowledged: bool,
}

/// Increments by compare-and-swap, through whatever node is up; every content is a write's own.
struct Counter {
    nodes: Nodes,
    bucket: BucketRef,
    attempts: Mutex<BTreeMap<String, Attempt>>,
    acknowledged_count: watch::Sender<usize>,
    wanted_count: usize,
}

impl Counter {
    async fn count(&self, number: usize, mut seed: Seed) {
        for step in 0.. {
            if self.wanted_count <= *self.acknowledged_count.borrow() {
                return;
            }
            let up = self.nodes.up();
            let Some((node, killed)) = up.get(seed.pick(up.len().max(1) as u64) as usize).and_then(|index| self.nodes.get(*index)) else {
                sleep(Duration::from_millis(100)).await;
                continue;
            };
            let name = format!("{number}.{step}");
            let outcome = tokio::select! {
                biased;
                () = killed.cancelled() => Outcome::NotYet,
                outcome = self.increment(&node, &name) => outcome,
            };
            if outcome == Outcome::NotYet {
                sleep(Duration::from_millis(seed.pick(100))).await;
            }
        }
    }

    async fn increment(&self, node: &Node, name: &str) -> Outcome {
        let Ok(Some((etag, base))) = get(node, &self.bucket).await else { return Outcome::NotYet };
        let value: usize = base.split(' ').next().unwrap().parse().unwrap();
        let next = format!("{} by {name}", value + 1);
        self.attempts.lock().insert(next.clone(), Attempt { base, acknowledged: false });
        match put_if(node, &self.bucket, &next, &same(&etag)).await {
            Ok(_) => {
                self.attempts.lock().get_mut(&next).unwrap().acknowledged = true;
                self.acknowledged_count.send_modify(|count| *count += 1);
                Outcome::Done
            }
            outcome => {
                if is_beaten(&outcome) {
                    self.attempts.lock().remove(&next);
                }
                Outcome::NotYet
            }
        }
    }

    /// Walks back from the last content: every acknowledged increment must be on the way, each upon the one before it.
    fn check(&self, seed: u64, last: &str) {
        let mut attempts = self.attempts.lock();
        let (mut content, mut length) = (last.to_string(), 0);
        while content != "0" {
            let attempt = attempts.remove(&content).unwrap_or_else(|| panic!("seed {seed}: {content:?} was refused, or written twice"));
            content = attempt.base;
            length += 1;
        }
        let lost: Vec<&String> = attempts.iter().filter(|(_, attempt)| attempt.acknowledged).map(|(content, _)| content).collect();
        assert!(lost.is_empty(), "seed {seed}: acknowledged and lost: {lost:?}");
        assert_eq!(last.split(' ').next(), Some(&*length.to_string()), "seed {seed}");
    }
}

#[derive(PartialEq, Eq)]
enum Outcome {
    Done,
    NotYet,
}

#[test]
fn a_counter_by_compare_and_swap_loses_no_increment_while_nodes_are_killed_and_restarted() {
    let wanted_count = std::env::var("COUNTER_INCREMENTS").ok().map_or(INCREMENTS_DEFAULT, |count| count.parse().unwrap());
    for (seed, options) in [(1, calm()), (2, ClusterOptions::rough())] {
        garage_sim::run(async {
            let mut cluster = Cluster::start(seed, options).await;
            let bucket = cluster.make_bucket(0, "counter").await;
            put_if(cluster.node(0), &bucket, "0", &WriteCondition::default()).await.unwrap();
            let (acknowledged_count, mut progress) = watch::channel(0);
            let (nodes, attempts) = (cluster.nodes(), Mutex::default());
            let counter = Counter { nodes, bucket: bucket.clone(), attempts, acknowledged_count, wanted_count };
            let counting = join_all((0..COUNTERS).map(|number| counter.count(number, cluster.fork_seed(200 + number as u64))));
            let mut chance = cluster.fork_seed(300);
            let killing = async {
                // One node after the other is away for a tenth of the time.
                while *progress.borrow_and_update() < wanted_count {
                    let until = *progress.borrow() + wanted_count / 10;
                    let node = chance.pick(3) as usize;
                    cluster.crash(node);
                    sleep(Duration::from_millis(500 + chance.pick(4_000))).await;
                    cluster.restart(node).await;
                    let _ = progress.wait_for(|count| until.min(wanted_count) <= *count).await;
                }
            };
            futures::future::join(counting, killing).await;
            let last = content(cluster.node(0), &bucket).await.unwrap();
            counter.check(seed, &last);
            for node in 1..3 {
                assert_eq!(content(cluster.node(node), &bucket).await.as_ref(), Some(&last), "seed {seed}");
            }
            let (acknowledged_count, value) = (*counter.acknowledged_count.borrow(), last.split(' ').next().unwrap().to_string());
            println!("seed {seed}: {acknowledged_count} increments acknowledged, the counter is at {value}");
        });
    }
}

#[test]
fn the_check_of_the_counter_notices_a_lost_increment() {
    let lost = std::panic::catch_unwind(|| {
        garage_sim::run(async {
            let cluster = Cluster::start(1, calm()).await;
            let attempts = [("1 by a", "0", true), ("1 by b", "0", true), ("2 by c", "1 by b", true)];
            let attempt =
                |(content, base, acknowledged): (&str, &str, bool)| (content.to_string(), Attempt { base: base.to_string(), acknowledged });
            let counter = Counter {
                nodes: cluster.nodes(),
                bucket: cluster.make_bucket(0, "counter").await,
                attempts: Mutex::new(attempts.into_iter().map(attempt).collect()),
                acknowledged_count: watch::channel(3).0,
                wanted_count: 3,
            };
            counter.check(1, "2 by c");
        });
    });
    assert!(lost.is_err(), "1 by a was acknowledged and is not there");
}

/// A register call for the checker, to show that it bites.
#[test]
fn the_checker_of_histories_notices_a_second_creation() {
    let call = |value, begin| Call {
        key: 0,
        node: 0,
        action: Action::Put(value),
        condition: Condition::Absent,
        begin,
        end: begin + 5,
        told: Told::Done,
    };
    assert!(!is_linearizable(&[call(1, 1), call(2, 3)]));
}
