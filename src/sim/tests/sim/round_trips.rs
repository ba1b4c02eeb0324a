//! Counts the sequential round trips of each request on a network whose only cost is its delay, and holds them to the promised table.

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use garage_model::{
    RequestContext,
    body::WholeBody,
    listing::{ListRequest, versions::ListVersionsRequest},
    objects::{BucketRef, CopySource, Governance, KeyToDelete, Version, WriteCondition, versions::VersionToDelete},
    rows::bucket::Versioning,
    uploads::{CompleteRequest, CompletedPart, NewUpload},
};
use garage_sim::cluster::{Cluster, ClusterOptions};
use garage_table::message::Want;
use tokio::time::Instant;

const ONE_WAY: Duration = Duration::from_millis(50);
const MIB: usize = 1 << 20;

fn context() -> RequestContext {
    RequestContext::within(Duration::from_secs(60))
}

fn body(len_bytes: usize) -> Box<WholeBody> {
    body_of("7", len_bytes)
}

/// The same bytes for the same `seed`, others for another.
fn body_of(seed: &str, len_bytes: usize) -> Box<WholeBody> {
    let bytes: Vec<u8> = seed.bytes().cycle().take(len_bytes).collect();
    Box::new(WholeBody::new(bytes.into()))
}

struct Trips {
    cluster: Cluster,
    bucket: BucketRef,
}

impl Trips {
    async fn start() -> Trips {
        Trips::start_with(ClusterOptions::exact(ONE_WAY)).await
    }

    async fn start_with(options: ClusterOptions) -> Trips {
        let cluster = Cluster::start(1, ClusterOptions { block_size_bytes: MIB, ..options }).await;
        let bucket = cluster.make_bucket(0, "trips").await;
        Trips { cluster, bucket }
    }

    /// Runs `request`; how many sequential round trips it took, to a hundredth.
    async fn count<T>(&self, request: impl Future<Output = T>) -> (f64, T) {
        // What earlier requests left under way must not be in the way of this one.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let begun = Instant::now();
        let result = request.await;
        let trips = begun.elapsed().as_secs_f64() / (2.0 * ONE_WAY.as_secs_f64());
        ((trips * 100.0).round() / 100.0, result)
    }

    /// Runs `request` through node 1 and checks that it took `expected` sequential round trips.
    async fn check<T>(&self, what: &str, expected: f64, request: impl Future<Output = T>) -> T {
        let (trips, result) = self.count(request).await;
        assert!((trips - expected).abs() < 0.05, "{what}: {trips:.2} round trips instead of {expected}");
        result
    }

    async fn put(&self, what: &str, key: &str, len_bytes: usize, expected: f64) {
        let (objects, always) = (&self.cluster.node(1).objects, WriteCondition::default());
        let put = objects.put(&self.bucket, key, Default::default(), body_of(key, len_bytes), &always, context());
        self.check(what, expected, put).await.unwrap();
    }

    async fn get(&self, what: &str, key: &str, len_bytes: usize, expected: f64) {
        assert_eq!(self.check(what, expected, self.read_whole(key, len_bytes)).await, len_bytes);
    }

    /// Reads an object through node 1; its bytes, counted.
    async fn read_whole(&self, key: &str, len_bytes: usize) -> usize {
        let objects = &self.cluster.node(1).objects;
        let found = objects.get(&self.bucket, key, context()).await.unwrap().expect("it was put");
        let pieces: Vec<Bytes> = objects.read(&found, 0..len_bytes as u64, context()).try_collect().await.unwrap();
        pieces.iter().map(Bytes::len).sum()
    }
}

#[test]
fn every_request_keeps_to_its_round_trips() {
    garage_sim::run(async {
        let trips = Trips::start().await;
        trips.put("PUT of an inline object", "small", 1024, 1.0).await;
        trips.put("PUT of 1 MiB", "medium", MIB, 2.0).await;
        trips.put("PUT of 100 MiB", "large", 100 * MIB, 8.0).await;
        trips.get("GET of an inline object", "small", 1024, 1.0).await;
        // This node holds a copy of every block: only the row needs another node.
        trips.get("GET of 1 MiB", "medium", MIB, 1.0).await;
        check_heads_and_lists(&trips).await;
        check_writes_that_test(&trips).await;
        check_deletes_and_copies(&trips).await;
        check_multipart(&trips).await;
        check_versions(&trips).await;
    });
}

#[test]
fn shards_and_nodes_without_a_copy_cost_no_round_trips() {
    garage_sim::run(async {
        // Six nodes, three copies: a bucket of several shards, and no node has a copy of everything.
        let trips = Trips::start_with(ClusterOptions { node_count: 6, ..ClusterOptions::exact(ONE_WAY) }).await;
        assert!(1 < trips.bucket.shard_count);
        for index in 0..8 {
            let (small, large) = (format!("small/{index}"), format!("large/{index}"));
            trips.put("PUT of an inline object", &small, 1024, 1.0).await;
            trips.put("PUT of 1 MiB", &large, MIB, 2.0).await;
            trips.get("GET of an inline object", &small, 1024, 1.0).await;
        }
        let objects = &trips.cluster.node(1).objects;
        let all = ListRequest { limit: 1000, ..ListRequest::default() };
        let page = trips.check("LIST of all shards", 1.0, objects.list(&trips.bucket, &all, context())).await.unwrap();
        assert_eq!(page.entries.len(), 16);
        check_delete_many(&trips).await;
        // A block that another node has comes with one more trip, whoever is asked.
        let mut counts = Vec::new();
        for index in 0..8 {
            let trips = trips.count(trips.read_whole(&format!("large/{index}"), MIB)).await.0;
            assert!((trips - trips.round()).abs() < 0.05, "GET of 1 MiB: {trips:.2} round trips");
            counts.push(trips.round() as u32);
        }
        assert!(counts.iter().all(|count| [1, 2].contains(count)) && counts.contains(&2), "GET of 1 MiB: {counts:?}");
    });
}

#[test]
fn a_write_that_meets_a_newer_one_costs_two_more() {
    garage_sim::run(async {
        let trips = Trips::start().await;
        trips.cluster.clock(0).set_offset_ms(40_000);
        let (objects, always) = (&trips.cluster.node(0).objects, WriteCondition::default());
        objects.put(&trips.bucket, "key", Default::default(), body(10), &always, context()).await.unwrap();
        trips.put("PUT behind the clock of another node", "key", 1024, 3.0).await;
        trips.get("GET after it", "key", 1024, 1.0).await;
    });
}

async fn check_heads_and_lists(trips: &Trips) {
    let objects = &trips.cluster.node(1).objects;
    let head = objects.head(&trips.bucket, "small", context());
    assert!(trips.check("HEAD", 1.0, head).await.unwrap().is_some());
    let missing = objects.head(&trips.bucket, "missing", context());
    assert!(trips.check("HEAD of what is not there", 1.0, missing).await.unwrap().is_none());
    let all = ListRequest { limit: 1000, ..ListRequest::default() };
    let page = trips.check("LIST", 1.0, objects.list(&trips.bucket, &all, context())).await.unwrap();
    assert_eq!((page.entries.len(), page.truncated), (3, false));
    let folded = ListRequest { delimiter: Some("a".into()), ..all };
    trips.check("LIST with a delimiter", 1.0, objects.list(&trips.bucket, &folded, context())).await.unwrap();
}

async fn check_versions(trips: &Trips) {
    let (objects, always) = (&trips.cluster.node(1).objects, WriteCondition::default());
    let bucket = BucketRef { versioning: Versioning::Enabled, ..trips.bucket.clone() };
    let mut slots = Vec::new();
    for _ in 0..3 {
        let put = objects.put(&bucket, "versioned", Default::default(), body(10), &always, context());
        slots.extend(trips.check("PUT of a version", 1.0, put).await.unwrap().slot);
    }
    let find = objects.find_version(&bucket, "versioned", Some(slots[0]), Want::Row, context());
    assert!(matches!(trips.check("HEAD of a version", 1.0, find).await.unwrap(), Version::Object(_)));
    let all = ListVersionsRequest { prefix: "versioned".into(), limit: 1000, ..ListVersionsRequest::default() };
    let page = trips.check("ListObjectVersions", 1.0, objects.list_versions(&bucket, &all, context())).await.unwrap();
    assert_eq!(page.entries.len(), 3);
    let target = |slot| [VersionToDelete { slot, etags: None, mark: None }];
    let older = objects.delete_versions(&bucket, "versioned", &target(slots[0]), Governance::Obeyed, context()).await;
    assert!(older.unwrap()[0].existed);
    let (current, targets) = (slots[2], target(slots[1]));
    let delete = objects.delete_versions(&bucket, "versioned", &targets, Governance::Obeyed, context());
    trips.check("DELETE of an older version", 3.0, delete).await.unwrap();
    let delete = objects.delete(&bucket, "versioned", &always, context());
    trips.check("DELETE that leaves a marker", 1.0, delete).await.unwrap();
    let hold = objects.change_version(&bucket, "versioned", Some(current), context(), |meta, _| {
        meta.headers.lock.legal_hold = Some(true);
        Ok(())
    });
    trips.check("change of an older version", 3.0, hold).await.unwrap();
}

async fn check_writes_that_test(trips: &Trips) {
    let objects = &trips.cluster.node(1).objects;
    let absent = WriteCondition { absent: true, etags: None };
    let put = objects.put(&trips.bucket, "new", Default::default(), body(10), &absent, context());
    trips.check("PUT if there is none", 2.0, put).await.unwrap();
    let again = objects.put(&trips.bucket, "new", Default::default(), body(10), &absent, context());
    assert!(trips.check("PUT if there is none, where there is one", 1.0, again).await.is_err());
    let any = WriteCondition { absent: false, etags: Some(vec!["*".into()]) };
    let delete = objects.delete(&trips.bucket, "new", &any, context());
    trips.check("DELETE with a condition", 2.0, delete).await.unwrap();
    check_deletes_that_test(trips).await;
    let newest = objects.put(&trips.bucket, "split", Default::default(), body(10), &WriteCondition::default(), context()).await.unwrap();
    let same = WriteCondition { absent: false, etags: Some(vec![newest.etag]) };
    let put = objects.put(&trips.bucket, "split", Default::default(), body(11), &same, context());
    trips.check("PUT if it is that very object", 2.0, put).await.unwrap();
}

async fn check_deletes_that_test(trips: &Trips) {
    let (objects, always) = (&trips.cluster.node(1).objects, WriteCondition::default());
    let mut keys = Vec::new();
    for index in 0..100 {
        let key = format!("tested/{index}");
        let stored = objects.put(&trips.bucket, &key, Default::default(), body(10), &always, context()).await.unwrap();
        let etags = if index % 2 == 0 { vec![stored.etag] } else { vec!["another".into()] };
        keys.push(KeyToDelete { key, condition: WriteCondition { absent: false, etags: Some(etags) } });
    }
    let outcomes = trips.check("DeleteObjects with conditions", 2.0, objects.delete_many(&trips.bucket, keys, context())).await;
    let deleted: Vec<bool> = outcomes.iter().map(Result::is_ok).collect();
    assert_eq!(deleted, (0..100).map(|index| index % 2 == 0).collect::<Vec<_>>());
}

async fn check_deletes_and_copies(trips: &Trips) {
    let (objects, always) = (&trips.cluster.node(1).objects, WriteCondition::default());
    let found = objects.get(&trips.bucket, "medium", context()).await.unwrap().unwrap();
    let copy = objects.copy(CopySource { found: &found }, &trips.bucket, "copy", Default::default(), &always, context());
    trips.check("CopyObject, its source found", 2.0, copy).await.unwrap();
    trips.check("DELETE", 1.0, objects.delete(&trips.bucket, "copy", &always, context())).await.unwrap();
    check_delete_many(trips).await;
}

async fn check_delete_many(trips: &Trips) {
    let (objects, always) = (&trips.cluster.node(1).objects, WriteCondition::default());
    let keys = (0..1000).map(|index| KeyToDelete { key: format!("many/{index}"), condition: always.clone() }).collect();
    let outcomes = trips.check("DeleteObjects of 1000", 1.0, objects.delete_many(&trips.bucket, keys, context())).await;
    assert!(outcomes.iter().all(Result::is_ok) && outcomes.len() == 1000);
}

async fn check_multipart(trips: &Trips) {
    let (uploads, bucket) = (&trips.cluster.node(1).uploads, &trips.bucket);
    let created = uploads.create(bucket, "parts", NewUpload::default(), context());
    let upload = trips.check("CreateMultipartUpload", 1.0, created).await.unwrap();
    let mut parts = Vec::new();
    for part_number in 1..=2 {
        let put = uploads.put_part(bucket, "parts", upload, part_number, body(5 * MIB), context());
        let stored = trips.check("UploadPart", 2.0, put).await.unwrap();
        parts.push(CompletedPart { part_number, etag: stored.etag, checksum: None });
    }
    let always = WriteCondition::default();
    let request = || CompleteRequest { parts: &parts, condition: &always, checksum: None, size_bytes: None, combine: &|_, _| None };
    let complete = uploads.complete(bucket, "parts", upload, request(), context());
    let stored = trips.check("CompleteMultipartUpload", 3.0, complete).await.unwrap();
    let again = uploads.complete(bucket, "parts", upload, request(), context());
    assert_eq!(trips.check("a repeated CompleteMultipartUpload", 1.0, again).await.unwrap(), stored);
    trips.get("GET of a multipart object", "parts", 10 * MIB, 1.0).await;
    let page = trips.check("ListParts of an upload that is over", 1.0, uploads.list_parts(bucket, "parts", upload, 0, 10, context())).await;
    assert!(page.is_err());
    let objects = &trips.cluster.node(0).objects;
    let found = objects.get(bucket, "parts", context()).await.unwrap().unwrap();
    let middle: Vec<Bytes> = objects.read(&found, 5 * MIB as u64 - 3..5 * MIB as u64 + 4, context()).boxed().try_collect().await.unwrap();
    assert_eq!(middle.concat(), b"7777777");
}
