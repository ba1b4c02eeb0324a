//! Multipart uploads on whole nodes: large ones, ones that replicas know differently, rivals, and what is left underway when a node dies.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use futures::{TryStreamExt, future::join};
use garage_block::manager::BlockRef;
use garage_model::{
    ModelError, RequestContext,
    body::WholeBody,
    error::ClientError,
    node::Node,
    objects::{BucketRef, StoredObject, WriteCondition},
    rows::{
        PART,
        part::{PartRow, part_key},
        payload::Payload,
        upload::UploadId,
    },
    uploads::{CompleteRequest, CompletedPart, ListUploadsRequest, NewUpload, UploadEntry},
};
use garage_rpc::register::WriteId;
use garage_sim::{
    cluster::{Cluster, ClusterOptions},
    network::Conditions,
};
use garage_table::{group::TableError, message::Op, store::apply_one};
use garage_util::{encoding::Stored, hlc::Stamp};
use serde_bytes::ByteBuf;
use tokio::time::{Instant, sleep};

/// Seeds of each test about rivals.
const SEEDS: std::ops::Range<u64> = 0..12;
const PART_BYTES: u64 = 5 << 20;
const PARTS_MAX: u16 = 10_000;
const ONE_WAY: Duration = Duration::from_millis(50);

fn context() -> RequestContext {
    RequestContext::within(Duration::from_secs(20))
}

fn calm() -> ClusterOptions {
    let rough = ClusterOptions::rough();
    ClusterOptions { conditions: Conditions { lost_one_in: 0, ..rough.conditions }, ..rough }
}

fn body(content: &str) -> Box<WholeBody> {
    Box::new(WholeBody::new(Bytes::from(content.to_string())))
}

async fn put(node: &Node, bucket: &BucketRef, key: &str, content: &str) -> String {
    node.objects.put(bucket, key, Default::default(), body(content), &WriteCondition::default(), context()).await.unwrap().etag
}

async fn content(node: &Node, bucket: &BucketRef, key: &str) -> Option<String> {
    let found = node.objects.get(bucket, key, context()).await.unwrap()?;
    let pieces: Vec<Bytes> = node.objects.read(&found, 0..found.meta.size_bytes, context()).try_collect().await.unwrap();
    Some(String::from_utf8(pieces.concat()).unwrap())
}

async fn create(node: &Node, bucket: &BucketRef, key: &str) -> UploadId {
    node.uploads.create(bucket, key, NewUpload::default(), context()).await.unwrap()
}

async fn put_part(node: &Node, bucket: &BucketRef, key: &str, upload: UploadId, number: u16, content: &str) -> CompletedPart {
    let stored = node.uploads.put_part(bucket, key, upload, number, body(content), context()).await.unwrap();
    CompletedPart { part_number: number, etag: stored.etag, checksum: None }
}

async fn complete_if(
    node: &Node,
    bucket: &BucketRef,
    key: &str,
    upload: UploadId,
    parts: &[CompletedPart],
    condition: &WriteCondition,
) -> Result<StoredObject, ModelError> {
    let request = CompleteRequest { parts, condition, checksum: None, size_bytes: None, combine: &|_, _| None };
    node.uploads.complete(bucket, key, upload, request, context()).await
}

async fn complete(
    node: &Node,
    bucket: &BucketRef,
    key: &str,
    upload: UploadId,
    parts: &[CompletedPart],
) -> Result<StoredObject, ModelError> {
    complete_if(node, bucket, key, upload, parts, &WriteCondition::default()).await
}

fn absent() -> WriteCondition {
    WriteCondition { absent: true, etags: None }
}

fn is_gone<T>(outcome: &Result<T, ModelError>) -> bool {
    matches!(outcome, Err(ModelError::Client(ClientError::NoSuchUpload)))
}

async fn open_uploads(node: &Node, bucket: &BucketRef) -> Vec<UploadId> {
    let request = ListUploadsRequest { limit: 1000, ..ListUploadsRequest::default() };
    let page = node.uploads.list(bucket, &request, context()).await.unwrap();
    let id = |entry| if let UploadEntry::Upload(upload) = entry { Some(upload.id) } else { None };
    page.entries.into_iter().filter_map(id).collect()
}

/// Parts of 5 MiB each whose blocks are nowhere, in the stores of these nodes: what a large upload leaves behind, without its bytes.
async fn fill_parts(cluster: &Cluster, nodes: &[usize], bucket: &BucketRef, key: &str, upload: UploadId) -> Vec<CompletedPart> {
    let row = |number: u16| {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&number.to_be_bytes());
        PartRow {
            stamp: Stamp::from_parts(1 << 40, u64::from(number), false),
            id: WriteId(id),
            size_bytes: PART_BYTES,
            etag: format!("{:032x}", number),
            modified_ms: 1,
            checksum: None,
        }
    };
    let blocks = || Payload::Blocks(vec![BlockRef { hash: Default::default(), len_bytes: PART_BYTES as u32 }]);
    for node in nodes {
        let store = cluster.node(*node).store.clone();
        for first in (1..=PARTS_MAX).step_by(1000) {
            let (schemas, group) = (store.schemas().clone(), bucket.group_of(key));
            let filled = store.db().transact(move |transaction| {
                for number in first..first + 1000 {
                    let row = row(number);
                    let companions = blocks().into_companions(row.id);
                    let op = Op::Merge { table: PART, key: part_key(upload, number), row: ByteBuf::from(row.to_stored()), companions };
                    apply_one(&schemas, transaction, &group, op)?;
                }
                Ok::<_, garage_table::schema::StoreError>(())
            });
            filled.await.unwrap();
        }
    }
    (1..=PARTS_MAX).map(|number| CompletedPart { part_number: number, etag: row(number).etag, checksum: None }).collect()
}

#[test]
fn ten_thousand_parts_are_listed_and_completed_in_as_many_trips_as_one() {
    garage_sim::run(async {
        let cluster = Cluster::start(1, ClusterOptions::exact(ONE_WAY)).await;
        let bucket = cluster.make_bucket(0, "large").await;
        let node = cluster.node(1);
        let upload = create(node, &bucket, "key").await;
        let parts = fill_parts(&cluster, &[0, 1, 2], &bucket, "key", upload).await;
        // So that the last copy of the upload's row has arrived.
        sleep(Duration::from_secs(5)).await;
        let (mut numbers, mut after) = (Vec::new(), 0);
        loop {
            let begun = Instant::now();
            let page = node.uploads.list_parts(&bucket, "key", upload, after, 1000, context()).await.unwrap();
            assert_eq!(begun.elapsed(), 2 * ONE_WAY, "a page of parts takes a round trip");
            assert_eq!(page.parts.len(), 1000);
            numbers.extend(page.parts.iter().map(|part| part.part_number));
            after = *numbers.last().unwrap();
            if !page.truncated {
                break;
            }
        }
        assert_eq!(numbers, (1..=PARTS_MAX).collect::<Vec<_>>());
        sleep(Duration::from_secs(5)).await;
        let begun = Instant::now();
        let stored = complete(node, &bucket, "key", upload, &parts).await.unwrap();
        assert_eq!(begun.elapsed(), 6 * ONE_WAY, "CompleteMultipartUpload takes three round trips");
        assert_eq!(stored.size_bytes, PART_BYTES * u64::from(PARTS_MAX));
        assert!(stored.etag.ends_with("-10000"), "{}", stored.etag);
        for node in 0..3 {
            let objects = &cluster.node(node).objects;
            let found = objects.get(&bucket, "key", context()).await.unwrap().unwrap();
            assert_eq!((found.meta.size_bytes, found.meta.part_count), (stored.size_bytes, Some(10_000)));
            let listed = objects.parts(&found, context()).await.unwrap();
            assert_eq!(listed.iter().map(|part| part.part_number).collect::<Vec<_>>(), numbers);
            assert_eq!(complete(cluster.node(node), &bucket, "key", upload, &parts).await.unwrap(), stored);
        }
    });
}

#[test]
fn parts_that_a_replica_missed_are_completed_all_the_same_and_mended() {
    garage_sim::run(async {
        let cluster = Cluster::start(2, calm()).await;
        let bucket = cluster.make_bucket(0, "missed").await;
        let upload = create(cluster.node(0), &bucket, "key").await;
        let parts = fill_parts(&cluster, &[1, 2], &bucket, "key", upload).await;
        // Node 0 lacks every part, and is itself in the quorum that it asks.
        let page = cluster.node(0).uploads.list_parts(&bucket, "key", upload, 0, 1000, context()).await.unwrap();
        assert_eq!((page.parts.len(), page.truncated), (1000, true));
        let stored = complete(cluster.node(0), &bucket, "key", upload, &parts).await.unwrap();
        assert_eq!(stored.size_bytes, PART_BYTES * u64::from(PARTS_MAX));
        let (group, prefix) = (bucket.group_of("key"), bucket.group_of("key").prefix(PART));
        let held = cluster.node(0).db.read(move |snapshot| {
            drop(group);
            snapshot.prefix(garage_table::keyspaces::ROWS, &prefix, garage_db::Direction::Forward).count()
        });
        assert_eq!(held.await.unwrap(), usize::from(PARTS_MAX));
    });
}

#[test]
fn of_a_complete_and_an_abort_at_once_exactly_one_succeeds() {
    let (mut completed_count, mut aborted_count) = (0, 0);
    for seed in SEEDS {
        let is_completed = garage_sim::run(async {
            let cluster = Cluster::start(seed, calm()).await;
            let bucket = cluster.make_bucket(0, "rivals").await;
            let upload = create(cluster.node(0), &bucket, "key").await;
            let part = put_part(cluster.node(1), &bucket, "key", upload, 1, "content").await;
            let condition = if seed % 2 == 0 { absent() } else { WriteCondition::default() };
            let parts = [part];
            let completing = complete_if(cluster.node(1), &bucket, "key", upload, &parts, &condition);
            let aborting = async {
                sleep(Duration::from_millis(seed * 12)).await;
                cluster.node(2).uploads.abort(&bucket, "key", upload, context()).await
            };
            let (completed, aborted) = join(completing, aborting).await;
            let is_completed = completed.is_ok();
            assert_ne!(is_completed, aborted.is_ok(), "seed {seed}: {completed:?} and {aborted:?}");
            assert!(is_gone(&completed) || is_gone(&aborted), "seed {seed}: {completed:?} and {aborted:?}");
            for node in 0..3 {
                let held = content(cluster.node(node), &bucket, "key").await;
                assert_eq!(held.as_deref(), is_completed.then_some("content"), "seed {seed}");
                assert_eq!(open_uploads(cluster.node(node), &bucket).await, [], "seed {seed}");
                let again = complete(cluster.node(node), &bucket, "key", upload, &parts).await;
                assert_eq!(again.is_ok(), is_completed, "seed {seed}: {again:?}");
                assert!(is_gone(&cluster.node(node).uploads.abort(&bucket, "key", upload, context()).await), "seed {seed}");
            }
            is_completed
        });
        if is_completed { completed_count += 1 } else { aborted_count += 1 }
    }
    assert!(0 < completed_count && 0 < aborted_count, "{completed_count} completed, {aborted_count} aborted: both have to occur");
}

#[test]
fn of_two_completes_at_once_both_get_the_same_answer_or_the_other_list_is_refused() {
    for seed in SEEDS {
        garage_sim::run(async {
            let cluster = Cluster::start(seed, calm()).await;
            let bucket = cluster.make_bucket(0, "twins").await;
            let upload = create(cluster.node(0), &bucket, "key").await;
            let parts = [
                put_part(cluster.node(1), &bucket, "key", upload, 1, "one").await,
                put_part(cluster.node(2), &bucket, "key", upload, 2, "two").await,
            ];
            let second_list = if seed % 2 == 0 { &parts[..1] } else { &parts[1..] };
            let later = |node: usize, list, delay_ms: u64| {
                let (cluster, bucket) = (&cluster, &bucket);
                async move {
                    sleep(Duration::from_millis(delay_ms)).await;
                    complete(cluster.node(node), bucket, "key", upload, list).await
                }
            };
            let (first, (again, other)) =
                join(later(0, &parts[1..], 0), join(later(1, &parts[1..], seed * 7), later(2, second_list, seed * 9))).await;
            let outcomes = [&first, &again, &other];
            let won: Vec<&StoredObject> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).collect();
            assert!(!won.is_empty() && won.windows(2).all(|pair| pair[0] == pair[1]), "seed {seed}: {outcomes:?}");
            assert!(outcomes.iter().all(|outcome| outcome.is_ok() || is_gone(outcome)), "seed {seed}: {outcomes:?}");
            for node in 0..3 {
                let found = cluster.node(node).objects.head(&bucket, "key", context()).await.unwrap().unwrap();
                assert_eq!((found.entry.id, &found.meta.etag), (won[0].version, &won[0].etag), "seed {seed}");
            }
        });
    }
}

#[test]
fn a_completion_whose_node_died_is_ended_by_whoever_meets_it() {
    let mut met_underway_count = 0;
    for seed in 0..40 {
        garage_sim::run(async {
            let mut cluster = Cluster::start(seed, calm()).await;
            let bucket = cluster.make_bucket(0, "died").await;
            let upload = create(cluster.node(0), &bucket, "key").await;
            let parts = [put_part(cluster.node(1), &bucket, "key", upload, 1, "content").await];
            let condition = if seed % 2 == 0 { absent() } else { WriteCondition::default() };
            let node = cluster.node(0).clone();
            let completing = async { complete_if(&node, &bucket, "key", upload, &parts, &condition).await };
            // The node dies somewhere between its first message and its last.
            let answered = tokio::time::timeout(Duration::from_millis(20 + seed * 6), completing).await;
            cluster.crash(0);
            sleep(Duration::from_secs(2)).await;
            let there = content(cluster.node(1), &bucket, "key").await;
            // What a list does not show is over: its object is there.
            let open = open_uploads(cluster.node(2), &bucket).await;
            let after_list = content(cluster.node(1), &bucket, "key").await;
            assert_eq!(open.is_empty(), after_list.is_some(), "seed {seed}: listed {open:?}, read {after_list:?}");
            met_underway_count += usize::from(there.is_none() && after_list.is_some());
            if let Ok(answer) = answered {
                assert_eq!(answer.is_ok(), there.is_some(), "seed {seed}: {answer:?}");
            }
            let aborted = cluster.node(1).uploads.abort(&bucket, "key", upload, context()).await;
            assert_eq!(aborted.is_ok(), !open.is_empty(), "seed {seed}: {aborted:?}");
            let held = content(cluster.node(2), &bucket, "key").await;
            assert_eq!(held, after_list, "seed {seed}");
            let again = complete_if(cluster.node(2), &bucket, "key", upload, &parts, &condition).await;
            assert_eq!(again.is_ok(), held.is_some(), "seed {seed}: {again:?}");
        });
    }
    assert!(0 < met_underway_count, "no completion was met underway: the test crashes at the wrong moments");
}

#[test]
fn a_part_stored_again_after_the_complete_changes_nothing() {
    garage_sim::run(async {
        let cluster = Cluster::start(5, calm()).await;
        let bucket = cluster.make_bucket(0, "again").await;
        let upload = create(cluster.node(0), &bucket, "key").await;
        let parts = [put_part(cluster.node(1), &bucket, "key", upload, 1, "content").await];
        // Begun while the upload was open, and stored only after it was completed.
        let slow = cluster.node(2).uploads.put_part(&bucket, "key", upload, 1, body("other"), context());
        let slow = async {
            cluster.network().set_conditions(Conditions { delay: Duration::from_millis(300), ..cluster.options().conditions });
            slow.await
        };
        let completing = async {
            sleep(Duration::from_millis(1)).await;
            complete(cluster.node(0), &bucket, "key", upload, &parts).await
        };
        let (_, completed) = join(slow, completing).await;
        cluster.network().set_conditions(cluster.options().conditions);
        let Ok(completed) = completed else { return };
        sleep(Duration::from_secs(3)).await;
        for node in 0..3 {
            assert_eq!(complete(cluster.node(node), &bucket, "key", upload, &parts).await.unwrap(), completed);
            assert_eq!(content(cluster.node(node), &bucket, "key").await.as_deref(), Some("content"));
        }
    });
}

#[test]
fn a_condition_is_tested_on_the_object_that_is_replaced_and_a_repeat_does_not_fail_on_its_own_result() {
    for seed in SEEDS {
        garage_sim::run(async {
            let cluster = Cluster::start(seed, calm()).await;
            let bucket = cluster.make_bucket(0, "conditions").await;
            let upload = create(cluster.node(0), &bucket, "key").await;
            let parts = [put_part(cluster.node(1), &bucket, "key", upload, 1, "content").await];
            let etag = put(cluster.node(2), &bucket, "key", "before").await;
            let refused = complete_if(cluster.node(0), &bucket, "key", upload, &parts, &absent()).await;
            assert!(matches!(refused, Err(ModelError::Client(ClientError::PreconditionFailed { .. }))), "seed {seed}: {refused:?}");
            assert_eq!(open_uploads(cluster.node(1), &bucket).await, [upload], "seed {seed}");
            // Between the test and the write comes a rival, most of the time.
            let same = WriteCondition { absent: false, etags: Some(vec![etag]) };
            let completing = complete_if(cluster.node(0), &bucket, "key", upload, &parts, &same);
            let rival = async {
                sleep(Duration::from_millis(40 + seed * 5)).await;
                put(cluster.node(1), &bucket, "key", "rival").await
            };
            let (completed, _) = join(completing, rival).await;
            match completed {
                Ok(stored) => {
                    // The rival came after it; a repeat says the same, and does not come back over the rival.
                    let again = complete_if(cluster.node(2), &bucket, "key", upload, &parts, &same).await.unwrap();
                    assert_eq!(again, stored, "seed {seed}");
                    let again = complete_if(cluster.node(2), &bucket, "key", upload, &parts, &absent()).await.unwrap();
                    assert_eq!(again, stored, "seed {seed}");
                    assert_eq!(content(cluster.node(0), &bucket, "key").await.as_deref(), Some("rival"), "seed {seed}");
                }
                Err(ModelError::Client(ClientError::PreconditionFailed { .. }) | ModelError::Table(TableError::Contended)) => {
                    assert_eq!(open_uploads(cluster.node(1), &bucket).await, [upload], "seed {seed}");
                    assert_eq!(content(cluster.node(0), &bucket, "key").await.as_deref(), Some("rival"), "seed {seed}");
                    complete(cluster.node(2), &bucket, "key", upload, &parts).await.unwrap();
                    assert_eq!(content(cluster.node(0), &bucket, "key").await.as_deref(), Some("content"), "seed {seed}");
                }
                Err(error) => panic!("seed {seed}: {error}"),
            }
        });
    }
}

#[test]
fn uploads_are_listed_in_exact_pages_by_nodes_that_know_them_differently() {
    for seed in 0..6 {
        garage_sim::run(async {
            let mut cluster = Cluster::start(seed, calm()).await;
            let bucket = cluster.make_bucket(0, "pages").await;
            let keys = ["a", "a/1", "a/1/x", "a/2", "b", "b\0", "b/1", "ü/1"];
            let mut open: BTreeMap<(&str, UploadId), ()> = BTreeMap::new();
            let mut chance = cluster.fork_seed(1);
            for step in 0..40 {
                // A third of it happens while one node is away.
                if step == 13 {
                    cluster.crash(2);
                }
                if step == 26 {
                    cluster.restart(2).await;
                    sleep(Duration::from_secs(5)).await;
                }
                let node = cluster.node(chance.pick(2) as usize).clone();
                let key = keys[chance.pick(keys.len() as u64) as usize];
                open.insert((key, create(&node, &bucket, key).await), ());
                if chance.one_in(3) {
                    let (key, id) = *open.keys().nth(chance.pick(open.len() as u64) as usize).unwrap();
                    if chance.one_in(2) {
                        node.uploads.abort(&bucket, key, id, context()).await.unwrap();
                    } else {
                        let parts = [put_part(&node, &bucket, key, id, 1, "x").await];
                        complete(&node, &bucket, key, id, &parts).await.unwrap();
                    }
                    open.remove(&(key, id));
                }
            }
            for (prefix, delimiter) in [("", None), ("", Some("/")), ("a/", Some("/")), ("b", None), ("a", Some("1")), ("none", None)] {
                let mut expected: Vec<(String, Option<UploadId>)> = Vec::new();
                for (key, id) in open.keys().filter(|(key, _)| key.starts_with(prefix)) {
                    let cut =
                        delimiter.and_then(|delimiter: &str| Some(prefix.len() + key[prefix.len()..].find(delimiter)? + delimiter.len()));
                    let entry = cut.map_or((key.to_string(), Some(*id)), |cut| (key[..cut].to_string(), None));
                    if expected.last() != Some(&entry) {
                        expected.push(entry);
                    }
                }
                for (node, limit) in [(0, 1), (1, 2), (2, 3), (2, 1000)] {
                    let listed = list_all(cluster.node(node), &bucket, prefix, delimiter, limit).await;
                    assert_eq!(listed, expected, "seed {seed}: {prefix:?} {delimiter:?} in pages of {limit} through node {node}");
                }
            }
        });
    }
}

/// A key, and the upload if it is no common prefix.
type Entry = (String, Option<UploadId>);

async fn list_all(node: &Node, bucket: &BucketRef, prefix: &str, delimiter: Option<&str>, limit: usize) -> Vec<(String, Option<UploadId>)> {
    let (mut listed, mut after): (Vec<Entry>, Option<Entry>) = (Vec::new(), None);
    loop {
        let request = ListUploadsRequest {
            prefix: prefix.into(),
            delimiter: delimiter.map(String::from),
            key_after: after.as_ref().map(|(key, _)| key.clone()),
            upload_after: after.as_ref().and_then(|(_, id)| *id),
            limit,
        };
        let page = node.uploads.list(bucket, &request, context()).await.unwrap();
        assert!(page.entries.len() <= limit && (!page.truncated || page.entries.len() == limit), "{page:?}");
        listed.extend(page.entries.into_iter().map(|entry| match entry {
            UploadEntry::Upload(upload) => (upload.key, Some(upload.id)),
            UploadEntry::Prefix(prefix) => (prefix, None),
        }));
        after = listed.last().cloned();
        if !page.truncated {
            return listed;
        }
    }
}
