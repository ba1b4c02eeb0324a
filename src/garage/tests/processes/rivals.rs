//! Conditional writes over HTTP through three processes at once: one of many wins, and no increment is lost while a node is killed.
//!
//! `COUNTER_INCREMENTS=10000`: as many increments of the counter; the default suits CI.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures::future::join_all;
use http::Method;
use parking_lot::Mutex;

use crate::support::{
    self,
    client::{Answer, S3},
    cluster::{BUCKET, Cluster},
    wait::until_within,
};

const WRITERS: usize = 64;
const COUNTERS: usize = 6;
const INCREMENTS_DEFAULT: usize = 120;
/// Time for the whole counter, a step of it.
const TIME_PER_INCREMENT_MAX: std::time::Duration = std::time::Duration::from_secs(2);

fn key(name: &str) -> String {
    format!("/{BUCKET}/{name}")
}

/// Whether a rival was told that it was beaten.
fn is_beaten(answer: &Answer) -> bool {
    matches!((answer.status, &*answer.code()), (412, "PreconditionFailed") | (409, "ConditionalRequestConflict"))
}

#[tokio::test(flavor = "multi_thread")]
async fn of_64_creations_of_one_key_through_three_nodes_exactly_one_succeeds() {
    let _turn = support::turn().await;
    let cluster = Cluster::start().await;
    let endpoints: Vec<S3> = (0..3).map(|index| cluster.s3(index)).collect();
    for round in 0..3 {
        let target = key(&format!("created-{round}"));
        let create = |number: usize| {
            let (s3, target) = (&endpoints[number % 3], &target);
            async move { s3.attempt(Method::PUT, target, &[("if-none-match", "*")], format!("by {number}").into()).await.unwrap() }
        };
        let answers = join_all((0..WRITERS).map(create)).await;
        let won: Vec<usize> = (0..WRITERS).filter(|number| answers[*number].status == 200).collect();
        let told: Vec<(u16, String)> = answers.iter().map(|answer| (answer.status, answer.code())).collect();
        assert_eq!(won.len(), 1, "{told:?}");
        assert!(answers.iter().all(|answer| answer.status == 200 || is_beaten(answer)), "{told:?}");
        for s3 in &endpoints {
            assert_eq!(s3.get(&target).await.ok().text(), format!("by {}", won[0]));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_creations_of_one_bucket_through_three_nodes_exactly_one_succeeds() {
    let _turn = support::turn().await;
    let cluster = Cluster::start().await;
    cluster.nodes[0].cli(&["key", "allow", &cluster.credentials.access_key_id, "--create-bucket"]).await;
    let endpoints: Vec<S3> = (0..3).map(|index| cluster.s3(index)).collect();
    for round in 0..3 {
        let target = format!("/contested-{round}");
        let answers = join_all(endpoints.iter().map(|s3| s3.put(&target, ""))).await;
        let told: Vec<(u16, String)> = answers.iter().map(|answer| (answer.status, answer.code())).collect();
        assert_eq!(told.iter().filter(|(status, _)| *status == 200).count(), 1, "{told:?}");
        assert!(told.iter().all(|(status, code)| *status == 200 || (*status, &**code) == (409, "BucketAlreadyOwnedByYou")), "{told:?}");
        for s3 in &endpoints {
            let listed = s3.get("/").await.ok().text();
            assert_eq!(listed.matches(&format!("<Name>contested-{round}</Name>")).count(), 1, "{listed}");
            s3.put(&format!("{target}/object"), "x").await.ok();
        }
    }
}

/// An increment that was tried: what it was to replace, and whether it was acknowledged.
struct Attempt {
    base: String,
    acknowledged: bool,
}

#[derive(Default)]
struct Counter {
    attempts: Mutex<BTreeMap<String, Attempt>>,
    acknowledged_count: AtomicUsize,
}

impl Counter {
    async fn count(&self, endpoints: &[S3], number: usize, wanted_count: usize) {
        for step in 0.. {
            if wanted_count <= self.acknowledged_count.load(Ordering::SeqCst) {
                return;
            }
            self.increment(&endpoints[(number + step) % endpoints.len()], format!("{number}.{step}")).await;
        }
    }

    async fn increment(&self, s3: &S3, name: String) {
        let target = key("counter");
        let Ok(found) = s3.attempt(Method::GET, &target, &[], Bytes::new()).await else { return };
        if found.status != 200 {
            assert_eq!(found.status, 503, "{}", found.text());
            return;
        }
        let (etag, base) = (found.header("etag").to_owned(), found.text());
        let value: usize = base.split(' ').next().unwrap().parse().unwrap();
        let next = format!("{} by {name}", value + 1);
        self.attempts.lock().insert(next.clone(), Attempt { base, acknowledged: false });
        match s3.attempt(Method::PUT, &target, &[("if-match", &etag)], next.clone().into()).await {
            Ok(answer) if answer.status == 200 => {
                self.attempts.lock().get_mut(&next).unwrap().acknowledged = true;
                self.acknowledged_count.fetch_add(1, Ordering::SeqCst);
            }
            Ok(answer) if is_beaten(&answer) => drop(self.attempts.lock().remove(&next)),
            // Unknown: it may have been, or not.
            Ok(answer) => assert_eq!(answer.status, 503, "{}", answer.text()),
            Err(_) => {}
        }
    }

    /// Walks back from the last content: every acknowledged increment must be on the way, each upon the one before it.
    fn check(&self, last: &str) {
        let mut attempts = self.attempts.lock();
        let (mut content, mut length) = (last.to_string(), 0);
        while content != "0" {
            let attempt = attempts.remove(&content).unwrap_or_else(|| panic!("{content:?} was refused, or written twice"));
            content = attempt.base;
            length += 1;
        }
        let lost: Vec<&String> = attempts.iter().filter(|(_, attempt)| attempt.acknowledged).map(|(content, _)| content).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        assert_eq!(last.split(' ').next(), Some(&*length.to_string()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_counter_by_compare_and_swap_loses_no_increment_while_nodes_are_killed_and_restarted() {
    let _turn = support::turn().await;
    let wanted_count = std::env::var("COUNTER_INCREMENTS").ok().map_or(INCREMENTS_DEFAULT, |count| count.parse().unwrap());
    let mut cluster = Cluster::start().await;
    let endpoints: Arc<Vec<S3>> = Arc::new((0..3).map(|index| cluster.s3(index)).collect());
    endpoints[0].put(&key("counter"), "0").await.ok();
    let counter = Arc::new(Counter::default());
    let counting: Vec<_> = (0..COUNTERS)
        .map(|number| {
            let (counter, endpoints) = (counter.clone(), endpoints.clone());
            tokio::spawn(async move { counter.count(&endpoints, number, wanted_count).await })
        })
        .collect();
    let reaches = |count: usize| {
        let (counter, patience) = (counter.clone(), TIME_PER_INCREMENT_MAX * wanted_count as u32);
        async move {
            let is_there = || counter.acknowledged_count.load(Ordering::SeqCst) >= count;
            until_within(patience, &format!("{count} increments"), async || is_there().then_some(())).await
        }
    };
    // Each node once, killed after some increments and back after some more.
    for (round, node) in [2, 0, 1].into_iter().enumerate() {
        reaches(wanted_count * (2 * round + 1) / 7).await;
        cluster.nodes[node].kill().await;
        reaches(wanted_count * (2 * round + 2) / 7).await;
        cluster.nodes[node].start().await;
    }
    for task in counting {
        task.await.unwrap();
    }
    let last = endpoints[1].get(&key("counter")).await.ok().text();
    counter.check(&last);
    for s3 in endpoints.iter() {
        assert_eq!(s3.get(&key("counter")).await.ok().text(), last);
    }
    println!("{} increments acknowledged, the counter is at {last}", counter.acknowledged_count.load(Ordering::SeqCst));
}
