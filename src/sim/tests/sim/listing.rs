//! Lists of large buckets and by nodes that know little of them, counted in round trips on a network whose only cost is its delay.
//!
//! `LIST_KEYS=1000000`: as many keys; the default suits CI. What one replica reads of a million keys is counted in `garage_model::paging`.

use std::time::Duration;

use bytes::Bytes;
use garage_model::{
    RequestContext,
    body::WholeBody,
    listing::{ListEntry, ListRequest},
    objects::{BucketRef, KeyToDelete, WriteCondition},
    rows::{
        VERSION,
        object::{ObjectMeta, VersionRow, null_slot},
    },
};
use garage_rpc::register::{Entry, Message, WriteId};
use garage_sim::cluster::{Cluster, ClusterOptions};
use garage_table::{
    message::{Op, Want},
    store::apply_one,
};
use garage_util::{encoding::Stored, hlc::Stamp};
use serde_bytes::ByteBuf;
use tokio::time::{Instant, sleep};

const ONE_WAY: Duration = Duration::from_millis(50);
/// Keys of the large bucket unless `LIST_KEYS` says otherwise.
const KEYS_DEFAULT: usize = 6_000;
/// Keys under each common prefix.
const KEYS_PER_PREFIX: usize = 10;
/// Rows in one transaction.
const BATCH_ROWS: usize = 5_000;

fn context() -> RequestContext {
    RequestContext::within(Duration::from_secs(60))
}

fn key(number: usize) -> String {
    format!("{:06}/{:02}", number / KEYS_PER_PREFIX, number % KEYS_PER_PREFIX)
}

/// Puts objects into the stores of these nodes, as a write would have: with index, counters and digests.
async fn fill(cluster: &Cluster, nodes: &[usize], bucket: &BucketRef, numbers: std::ops::Range<usize>) {
    for node in nodes {
        let store = cluster.node(*node).store.clone();
        for first in numbers.clone().step_by(BATCH_ROWS) {
            let (schemas, bucket, last) = (store.schemas().clone(), bucket.clone(), numbers.end.min(first + BATCH_ROWS));
            let filled = store.db().transact(move |transaction| {
                for number in first..last {
                    let mut id = [0; 32];
                    id[..8].copy_from_slice(&(number as u64).to_be_bytes());
                    let stamp = Stamp::from_parts((1 << 40) + number as u64, 1, false);
                    let meta = ObjectMeta { size_bytes: 1, etag: format!("{number:032x}"), modified_ms: 1, ..ObjectMeta::default() };
                    let op = Op::Register {
                        table: VERSION,
                        key: null_slot(&key(number)),
                        message: Message::Apply { entry: Entry { stamp, id: WriteId(id) }, ballot: stamp },
                        content: Some(ByteBuf::from(VersionRow::Object(Box::new(meta)).to_stored())),
                        companions: Vec::new(),
                        want: Want::Row,
                    };
                    apply_one(&schemas, transaction, &bucket.group_of(&key(number)), op)?;
                }
                Ok::<_, garage_table::schema::StoreError>(())
            });
            filled.await.unwrap();
        }
    }
}

/// A page through a node, and how many round trips it took.
async fn list(cluster: &Cluster, node: usize, bucket: &BucketRef, after: &str, delimiter: Option<&str>) -> (Vec<String>, bool, f64) {
    let request = ListRequest { prefix: String::new(), delimiter: delimiter.map(String::from), after: Some(after.into()), limit: 1000 };
    let begun = Instant::now();
    let page = cluster.node(node).objects.list(bucket, &request, context()).await.unwrap();
    let trips = begun.elapsed().as_secs_f64() / (2.0 * ONE_WAY.as_secs_f64());
    (page.entries.iter().map(|entry: &ListEntry| entry.marker().to_string()).collect(), page.truncated, trips)
}

async fn put(cluster: &Cluster, bucket: &BucketRef, number: usize, content: &str) {
    let (objects, always) = (&cluster.node(0).objects, WriteCondition::default());
    let body = Box::new(WholeBody::new(Bytes::from(format!("{content} {number}"))));
    objects.put(bucket, &key(number), Default::default(), body, &always, context()).await.unwrap();
}

#[test]
fn any_page_of_a_large_bucket_takes_one_round_trip_with_and_without_a_delimiter() {
    let key_count = std::env::var("LIST_KEYS").ok().map_or(KEYS_DEFAULT, |count| count.parse().unwrap());
    garage_sim::run(async {
        let cluster = Cluster::start(1, ClusterOptions::exact(ONE_WAY)).await;
        let bucket = cluster.make_bucket(0, "large").await;
        fill(&cluster, &[0, 1, 2], &bucket, 0..key_count).await;
        sleep(Duration::from_secs(5)).await;
        for first in [0, key_count / 2 + 3, key_count - 1001, key_count - 1] {
            let marker = if first == 0 { String::new() } else { key(first) };
            let (keys, truncated, trips) = list(&cluster, 1, &bucket, &marker, None).await;
            let from = if first == 0 { 0 } else { first + 1 };
            let to = key_count.min(from + 1000);
            assert_eq!(keys, (from..to).map(key).collect::<Vec<_>>());
            assert_eq!((truncated, trips), (to < key_count, 1.0), "after {marker:?}");
        }
        // All common prefixes, a trip for each thousand of them however many keys are below.
        let (mut marker, mut prefix_count, mut total_trips) = (String::new(), 0, 0.0);
        loop {
            let (prefixes, truncated, trips) = list(&cluster, 2, &bucket, &marker, Some("/")).await;
            assert!(prefixes.iter().zip(prefix_count..).all(|(prefix, number)| *prefix == format!("{number:06}/")));
            prefix_count += prefixes.len();
            total_trips += trips;
            if !truncated {
                break;
            }
            marker = prefixes.last().unwrap().clone();
        }
        assert_eq!(prefix_count, key_count / KEYS_PER_PREFIX);
        assert_eq!(total_trips, (prefix_count as f64 / 1000.0).ceil());
    });
}

#[test]
fn a_node_that_missed_a_thousand_writes_lists_them_in_a_few_round_trips_and_then_in_one() {
    garage_sim::run(async {
        let mut cluster = Cluster::start(2, ClusterOptions::exact(ONE_WAY)).await;
        let bucket = cluster.make_bucket(0, "missed").await;
        let always = WriteCondition::default();
        futures::future::join_all((0..1000).map(|number| put(&cluster, &bucket, number, "before"))).await;
        cluster.crash(1);
        // Half of the keys are overwritten, a tenth of them deleted.
        futures::future::join_all((0..500).map(|number| put(&cluster, &bucket, number, "after"))).await;
        let deleted = (900..1000).map(|number| KeyToDelete { key: key(number), condition: always.clone() }).collect();
        assert!(cluster.node(0).objects.delete_many(&bucket, deleted, context()).await.iter().all(Result::is_ok));
        cluster.restart(1).await;
        sleep(Duration::from_secs(20)).await;
        for (delimiter, trips_max) in [(Some("/"), 9.0), (None, 9.0)] {
            let (entries, truncated, trips) = list(&cluster, 1, &bucket, "", delimiter).await;
            let expected = if delimiter.is_some() { 900 / KEYS_PER_PREFIX } else { 900 };
            assert_eq!((entries.len(), truncated), (expected, false));
            println!("{delimiter:?}: {trips} round trips for a page on which the replicas differ");
            assert!(trips <= trips_max, "{delimiter:?}: {trips} round trips");
        }
        sleep(Duration::from_secs(5)).await;
        for delimiter in [Some("/"), None] {
            let (_, _, trips) = list(&cluster, 1, &bucket, "", delimiter).await;
            assert_eq!(trips, 1.0, "what was read was written back");
        }
    });
}
