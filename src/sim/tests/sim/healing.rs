//! A cluster that lost blocks, or keeps blocks nobody needs, puts that right by itself. Whole nodes, virtual time.

use std::{collections::BTreeSet, path::Path, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, TryStreamExt, future::BoxFuture};
use garage_block::{
    limits::{DELETION_DELAY, LEASE, RESYNC_BACKOFF_MIN},
    resync::WalkKind,
    scrub::ScrubCommand,
};
use garage_model::{
    RequestContext,
    body::{BodyDigests, BodyFailure, ObjectBody, WholeBody},
    objects::{BucketRef, WriteCondition},
    rows::{
        ALIAS, BUCKET, VERSION,
        bucket::{AliasRow, BucketRow, BucketState},
        object::{VersionRow, null_slot},
    },
    uploads::{CompleteRequest, CompletedPart, NewUpload},
};
use garage_rpc::{
    layout::RoleChange,
    register::{Answer, ApplyAnswer, Entry, Message, WriteId},
};
use garage_sim::{
    blocks,
    cluster::{Cluster, ClusterOptions},
};
use garage_table::{
    SortKey, TableId,
    control::Effect,
    group::Decision,
    message::{GroupCall, HeldRow, Op, OpAnswer, Want},
};
use garage_util::{encoding::Stored, hlc::Stamp};
use serde_bytes::ByteBuf;
use tokio::time::{Instant, sleep};

/// Seeds of each test; several hours of virtual time each.
const SEEDS: std::ops::Range<u64> = 0..1;
/// In virtual time: after this, what was superseded or given up is gone, whichever replica saw to it.
const ALL_SETTLED: Duration = Duration::from_secs(3 * 3600);

fn for_each_seed<F: Future<Output = ()>>(test: impl Fn(u64) -> F) {
    SEEDS.for_each(|seed| garage_sim::run(test(seed)));
}

fn context() -> RequestContext {
    RequestContext::within(Duration::from_secs(60))
}

/// A text whose blocks are in no other, nor twice in itself.
fn long_text(name: &str, len_bytes: usize) -> String {
    let line = |count: usize| format!("{name} {count}\n");
    let mut text = String::new();
    (0..len_bytes / (name.len() + 4)).map(line).for_each(|line| text.push_str(&line));
    text
}

/// A text that takes several blocks.
fn text(number: usize) -> String {
    long_text(&format!("text {number}"), 200_000)
}

async fn put(cluster: &Cluster, node: usize, bucket: &BucketRef, key: &str, text: String) {
    let body = Box::new(WholeBody::new(Bytes::from(text)));
    cluster.node(node).objects.put(bucket, key, Default::default(), body, &WriteCondition::default(), context()).await.unwrap();
}

async fn content(cluster: &Cluster, node: usize, bucket: &BucketRef, key: &str) -> Option<String> {
    let objects = &cluster.node(node).objects;
    let found = objects.get(bucket, key, context()).await.unwrap()?;
    let pieces: Vec<Bytes> = objects.read(&found, 0..found.meta.size_bytes, context()).try_collect().await.unwrap();
    Some(String::from_utf8(pieces.concat()).unwrap())
}

/// Waits, in virtual time, until nothing is wrong with the blocks of these keys.
async fn await_good_blocks(cluster: &Cluster, bucket: &BucketRef, keys: &[String], patience: Duration) {
    let deadline = Instant::now() + patience;
    loop {
        let wrong = blocks::check(cluster, bucket, keys).await;
        if wrong.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "seed {}: after {patience:?}:\n{}", cluster.seed(), wrong.join("\n"));
        sleep(Duration::from_secs(300)).await;
    }
}

/// A body that goes on for ever, a piece each second.
struct Endless {
    text: String,
    count: usize,
}

impl ObjectBody for Endless {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<Bytes, BodyFailure>>> {
        self.count += 1;
        let piece = Bytes::from(format!("{}{}", self.count, self.text));
        Box::pin(async move {
            sleep(Duration::from_secs(1)).await;
            Some(Ok(piece))
        })
    }
    fn size_hint_bytes(&self) -> Option<u64> {
        None
    }
    fn digests(&self) -> BodyDigests {
        unreachable!("it never ends")
    }
}

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("key{number}")).collect()
}

fn files(cluster: &Cluster, node: usize) -> usize {
    cluster
        .disk(node)
        .paths()
        .iter()
        .filter(|path| path.starts_with("/data") && path.file_name().is_some_and(|name| name.len() >= 64))
        .count()
}

#[test]
fn a_lost_disk_is_refilled_from_the_others() {
    for_each_seed(|seed| async move {
        let mut cluster = Cluster::start(seed, ClusterOptions::rough()).await;
        let bucket = cluster.make_bucket(0, "disk").await;
        for (number, key) in keys(6).iter().enumerate() {
            put(&cluster, number % 3, &bucket, key, text(number)).await;
        }
        cluster.crash(1);
        // The data disk is replaced by an empty one, and the operator has accepted that.
        cluster.disk(1).wipe_dir(Path::new("/data"));
        cluster.disk(1).wipe_dir(Path::new("/meta/data_layout"));
        cluster.restart(1).await;
        assert_eq!(files(&cluster, 1), 0);
        await_good_blocks(&cluster, &bucket, &keys(6), Duration::from_secs(3600)).await;
        for (number, key) in keys(6).iter().enumerate() {
            assert_eq!(content(&cluster, 1, &bucket, key).await, Some(text(number)), "seed {seed}");
        }
    });
}

#[test]
fn blocks_that_nobody_could_give_are_fetched_as_soon_as_somebody_is_back() {
    for_each_seed(|seed| async move {
        let mut cluster = Cluster::start(seed, ClusterOptions::rough()).await;
        let bucket = cluster.make_bucket(0, "back").await;
        for (number, key) in keys(6).iter().enumerate() {
            put(&cluster, number % 3, &bucket, key, text(number)).await;
        }
        sleep(Duration::from_secs(60)).await;
        let before = files(&cluster, 1);
        [0, 1, 2].iter().for_each(|index| cluster.crash(*index));
        cluster.disk(1).wipe_dir(Path::new("/data"));
        cluster.disk(1).wipe_dir(Path::new("/meta/data_layout"));
        cluster.restart(1).await;
        // By then an hour lies between two tries.
        sleep(Duration::from_secs(5 * 3600)).await;
        let errored = cluster.node(1).resync.errored(1_000).await.unwrap();
        assert!(errored.len() == before && errored.iter().all(|(_, entry)| 7 < entry.failed_count), "seed {seed}: {errored:?}");
        cluster.restart(2).await;
        let deadline = Instant::now() + RESYNC_BACKOFF_MIN;
        while files(&cluster, 1) != before {
            assert!(Instant::now() < deadline, "seed {seed}: {} of {before} blocks are back", files(&cluster, 1));
            sleep(Duration::from_secs(1)).await;
        }
    });
}

#[test]
fn a_node_that_was_removed_hands_over_what_it_has_and_is_empty_then() {
    for_each_seed(|seed| async move {
        let options = ClusterOptions { node_count: 4, zone_count: 4, ..ClusterOptions::rough() };
        let mut cluster = Cluster::start(seed, options).await;
        let bucket = cluster.make_bucket(0, "removed").await;
        for (number, key) in keys(6).iter().enumerate() {
            put(&cluster, number % 4, &bucket, key, text(number)).await;
        }
        sleep(Duration::from_secs(60)).await;
        assert!(0 < files(&cluster, 3), "seed {seed}");
        cluster.change_layout(0, vec![(3, RoleChange::Remove)]).await;
        cluster.await_moved().await;
        // In virtual time: longer than the first waits between tries.
        let deadline = Instant::now() + Duration::from_secs(600);
        while 0 < files(&cluster, 3) {
            let errored = cluster.node(3).resync.errored(3).await.unwrap();
            assert!(Instant::now() < deadline, "seed {seed}: {} blocks are still there: {errored:?}", files(&cluster, 3));
            sleep(Duration::from_secs(1)).await;
        }
        cluster.crash(3);
        for (number, key) in keys(6).iter().enumerate() {
            assert_eq!(content(&cluster, number % 3, &bucket, key).await, Some(text(number)), "seed {seed}");
        }
    });
}

#[test]
fn blocks_of_overwritten_and_deleted_objects_go_and_those_of_live_ones_stay() {
    for_each_seed(|seed| async move {
        let cluster = Cluster::start(seed, ClusterOptions::rough()).await;
        let bucket = cluster.make_bucket(0, "deleted").await;
        for (number, key) in keys(4).iter().enumerate() {
            put(&cluster, number % 3, &bucket, key, text(number)).await;
        }
        sleep(LEASE * 2).await;
        put(&cluster, 1, &bucket, "key0", text(10)).await;
        cluster.node(2).objects.delete(&bucket, "key1", &WriteCondition::default(), context()).await.unwrap();
        sleep(DELETION_DELAY / 2).await;
        assert!(4 * 3 <= files(&cluster, 0), "seed {seed}: deleted too early");
        await_good_blocks(&cluster, &bucket, &keys(4), ALL_SETTLED).await;
        for (key, expected) in [("key0", Some(text(10))), ("key1", None), ("key2", Some(text(2))), ("key3", Some(text(3)))] {
            assert_eq!(content(&cluster, 0, &bucket, key).await, expected, "seed {seed}: {key}");
        }
    });
}

#[test]
fn an_upload_that_was_cut_off_leaves_no_block_after_its_lease() {
    for_each_seed(|seed| async move {
        let mut cluster = Cluster::start(seed, ClusterOptions::rough()).await;
        let bucket = cluster.make_bucket(0, "cut").await;
        put(&cluster, 0, &bucket, "key0", text(0)).await;
        let before = files(&cluster, 0);
        let node = cluster.node(1).clone();
        let endless = Endless { text: text(7), count: 0 };
        let always = WriteCondition::default();
        let upload = node.objects.put(&bucket, "key1", Default::default(), Box::new(endless), &always, context());
        // The node that the client uploads to is killed in the middle.
        let _ = tokio::time::timeout(Duration::from_secs(5), upload).await;
        cluster.crash(1);
        cluster.restart(1).await;
        assert!(before < files(&cluster, 0), "seed {seed}: the test leaves something behind");
        await_good_blocks(&cluster, &bucket, &keys(2), ALL_SETTLED).await;
        assert_eq!(files(&cluster, 0), before, "seed {seed}");
        assert_eq!(content(&cluster, 2, &bucket, "key1").await, None, "seed {seed}");
    });
}

#[test]
fn parts_live_while_their_upload_does_and_with_the_object_that_it_becomes() {
    for_each_seed(|seed| async move {
        let cluster = Cluster::start(seed, ClusterOptions::rough()).await;
        let bucket = cluster.make_bucket(0, "parts").await;
        let uploads = &cluster.node(0).uploads;
        let new = NewUpload { initiator: "test".to_string(), ..NewUpload::default() };
        let part_text = |key: &str, number: u16| long_text(&format!("{key} {number}"), 6_000_000);
        let mut started = Vec::new();
        for key in ["key0", "key1", "key2"] {
            let upload = uploads.create(&bucket, key, new.clone(), context()).await.unwrap();
            let mut parts = Vec::new();
            for number in 1..=2u16 {
                let body = Box::new(WholeBody::new(Bytes::from(part_text(key, number))));
                let part = uploads.put_part(&bucket, key, upload, number, body, context()).await.unwrap();
                parts.push(CompletedPart { part_number: number, etag: part.etag, checksum: None });
            }
            started.push((upload, parts));
        }
        // Longer than any lease: an upload that goes on keeps its parts.
        sleep(Duration::from_secs(2 * 3600)).await;
        let always = WriteCondition::default();
        let request = |parts| CompleteRequest { parts, condition: &always, checksum: None, size_bytes: None, combine: &|_, _| None };
        uploads.complete(&bucket, "key0", started[0].0, request(&started[0].1), context()).await.unwrap();
        uploads.abort(&bucket, "key1", started[1].0, context()).await.unwrap();
        sleep(Duration::from_secs(2 * 3600)).await;
        await_good_blocks(&cluster, &bucket, &keys(3), ALL_SETTLED).await;
        assert_eq!(content(&cluster, 1, &bucket, "key0").await, Some(part_text("key0", 1) + &part_text("key0", 2)), "seed {seed}");
        uploads.complete(&bucket, "key2", started[2].0, request(&started[2].1), context()).await.unwrap();
        assert_eq!(content(&cluster, 2, &bucket, "key2").await, Some(part_text("key2", 1) + &part_text("key2", 2)), "seed {seed}");
    });
}

#[test]
fn rot_that_nobody_reads_is_found_by_the_scrub_and_mended() {
    for_each_seed(|seed| async move {
        let cluster = Cluster::start(seed, ClusterOptions::rough()).await;
        let bucket = cluster.make_bucket(0, "rot").await;
        for (number, key) in keys(3).iter().enumerate() {
            put(&cluster, number, &bucket, key, text(number)).await;
        }
        sleep(Duration::from_secs(5)).await;
        for path in cluster.disk(2).paths().iter().filter(|path| path.starts_with("/data")).take(3) {
            cluster.disk(2).rot(path);
        }
        cluster.node(2).scrub.as_ref().unwrap().command(ScrubCommand::Start).await.unwrap();
        sleep(Duration::from_secs(3600)).await;
        let state = cluster.node(2).scrub.as_ref().unwrap().state();
        assert!(state.last_completed_ms.is_some() && 0 < state.corruptions_count, "seed {seed}: {state:?}");
        await_good_blocks(&cluster, &bucket, &keys(3), Duration::from_secs(3600)).await;
        cluster.isolate(2, true);
        cluster.isolate(2, false);
        for (number, key) in keys(3).iter().enumerate() {
            assert_eq!(content(&cluster, 2, &bucket, key).await, Some(text(number)), "seed {seed}");
        }
    });
}

#[test]
fn a_reader_that_is_slower_than_every_delay_reads_what_was_overwritten_to_its_end() {
    garage_sim::run(async {
        let cluster = Cluster::start(1, ClusterOptions::rough()).await;
        let bucket = cluster.make_bucket(0, "slow").await;
        // More than a stream reads ahead.
        let long = long_text("long", 12_000_000);
        put(&cluster, 0, &bucket, "key0", long.clone()).await;
        let objects = cluster.node(1).objects.clone();
        let context = RequestContext::within(Duration::from_secs(24 * 3600));
        let found = objects.get(&bucket, "key0", context).await.unwrap().unwrap();
        let mut reading = Box::pin(objects.read(&found, 0..found.meta.size_bytes, context));
        let mut got = reading.try_next().await.unwrap().unwrap().to_vec();
        put(&cluster, 2, &bucket, "key0", text(2)).await;
        sleep(ALL_SETTLED).await;
        while let Some(piece) = reading.try_next().await.unwrap() {
            got.extend_from_slice(&piece);
        }
        assert!(got == long.into_bytes());
        drop(reading);
        await_good_blocks(&cluster, &bucket, &keys(1), ALL_SETTLED * 2).await;
    });
}

#[test]
fn a_repair_of_blocks_finds_files_that_vanished() {
    for_each_seed(|seed| async move {
        let cluster = Cluster::start(seed, ClusterOptions::rough()).await;
        let bucket = cluster.make_bucket(0, "vanished").await;
        put(&cluster, 0, &bucket, "key0", text(0)).await;
        sleep(Duration::from_secs(5)).await;
        for path in cluster.disk(0).paths().iter().filter(|path| path.starts_with("/data/") && !path.ends_with("garage-marker")) {
            cluster.disk(0).wipe_dir(path);
        }
        assert!(cluster.node(0).resync.walk(WalkKind::Repair, &cluster.node(0).workers));
        await_good_blocks(&cluster, &bucket, &keys(1), Duration::from_secs(3600)).await;
    });
}

/// Writes a control row as an operation that was cut off would have left it.
async fn leave(cluster: &Cluster, table: TableId, key: &[u8], content: Vec<u8>) {
    let decide = |_: WriteId, _: Option<HeldRow>| -> BoxFuture<'_, Decision<()>> {
        std::future::ready(Decision::Write { content: content.clone(), companions: Vec::new() }).boxed()
    };
    let key = SortKey(key.to_vec());
    cluster.node(0).control.update(table, key, Effect::Grants, context(), decide).await.unwrap();
}

#[test]
fn names_left_disagreeing_by_operations_cut_off_are_mended() {
    for_each_seed(|seed| async move {
        let cluster = Cluster::start(seed, ClusterOptions::rough()).await;
        let buckets = cluster.node(0).access.buckets().clone();
        let (kept, other) = (cluster.make_bucket(0, "kept").await, cluster.make_bucket(1, "other").await);
        let gone = cluster.make_bucket(2, "gone").await;
        buckets.delete(gone.id, context()).await.unwrap();
        let key = cluster.node(0).access.keys().create(Default::default(), context()).await.unwrap().0;
        // A name was taken and the bucket never told; one leads to a bucket that is gone; a deletion never came to its end.
        leave(&cluster, ALIAS, b"untold", AliasRow { bucket: Some(kept.id) }.to_stored()).await;
        leave(&cluster, ALIAS, b"dangling", AliasRow { bucket: Some(gone.id) }.to_stored()).await;
        let doomed = buckets.create("doomed", None, context()).await.unwrap();
        let doomed_row = BucketRow { state: BucketState::Deleting, ..doomed.row };
        leave(&cluster, BUCKET, doomed.id.as_bytes(), doomed_row.to_stored()).await;
        // A bucket lists a name that is free, one that is another's, and one that its key does not know.
        let mut row = buckets.get_fresh(other.id, context()).await.unwrap().unwrap().row;
        row.global_aliases.extend(["free".to_string(), "kept".to_string()]);
        row.local_aliases.entry(key.id.clone()).or_default().insert("unknown".to_string());
        leave(&cluster, BUCKET, other.id.as_bytes(), row.to_stored()).await;
        // A key's own name for a bucket that does not list it.
        let named = cluster.node(0).access.keys().change(&key.id, Effect::Grants, context(), |row| {
            row.local_aliases.insert("mine".to_string(), kept.id);
            Ok(())
        });
        named.await.unwrap();

        // A list shows only names that lead to the bucket.
        let listed = buckets.list(context()).await.unwrap();
        let listed: BTreeSet<_> = listed.iter().flat_map(|bucket| bucket.row.global_aliases.iter().map(String::as_str)).collect();
        assert_eq!(listed, BTreeSet::from(["doomed", "kept", "other"]));

        let done = cluster.node(1).access.buckets().repair_aliases(context()).await.unwrap();
        assert_eq!(done.mended_count, 7, "{done:?}");
        let names = |row: &BucketRow| row.global_aliases.iter().cloned().collect::<Vec<_>>();
        let kept_row = buckets.get_fresh(kept.id, context()).await.unwrap().unwrap().row;
        let other_row = buckets.get_fresh(other.id, context()).await.unwrap().unwrap().row;
        assert_eq!((names(&kept_row), names(&other_row)), (vec!["kept".into(), "untold".into()], vec!["free".into(), "other".into()]));
        assert!(kept_row.local_aliases[&key.id].contains("mine") && other_row.local_aliases.is_empty());
        for (name, leads_to) in
            [("kept", Some(kept.id)), ("untold", Some(kept.id)), ("free", Some(other.id)), ("dangling", None), ("doomed", None)]
        {
            let found = cluster.node(2).access.buckets().by_global_name(name, context()).await.unwrap();
            assert_eq!(found.map(|bucket| bucket.id), leads_to, "{name}");
        }
        assert_eq!(buckets.repair_aliases(context()).await.unwrap().mended_count, 0, "nothing is left to mend");
    });
}

async fn serve(cluster: &Cluster, node: usize, bucket: &BucketRef, op: Op) -> OpAnswer {
    let call = GroupCall { group: bucket.group_of("key").key().clone(), ops: vec![op] };
    cluster.node(node).store.serve(call).await.unwrap().answers.remove(0)
}

#[test]
fn a_write_fenced_by_all_its_replicas_is_refused_by_those_that_follow_them() {
    for_each_seed(|seed| async move {
        let cluster = Cluster::start(seed, ClusterOptions { spare_count: 1, ..ClusterOptions::rough() }).await;
        let bucket = cluster.make_bucket(0, "fenced").await;
        let (fenced, other) = (WriteId([7; 32]), WriteId([8; 32]));
        let now = cluster.node(1).cluster.tick(Stamp::ZERO).await.unwrap();
        for node in 0..3 {
            let fence = Op::Fence { table: VERSION, key: null_slot("key"), id: fenced, now, lift: false };
            assert!(matches!(serve(&cluster, node, &bucket, fence).await, OpAnswer::Fenced(true)));
        }
        cluster.change_layout(1, vec![(0, RoleChange::Remove), (3, cluster.storage_role(3))]).await;
        cluster.await_moved().await;
        let content = VersionRow::DeleteMarker { modified_ms: 1 }.to_stored();
        for (id, is_accepted) in [(fenced, false), (other, true)] {
            let stamp = cluster.node(1).cluster.tick(Stamp::ZERO).await.unwrap();
            let message = Message::Apply { entry: Entry { stamp, id }, ballot: stamp };
            let content = Some(ByteBuf::from(content.clone()));
            let late = Op::Register { table: VERSION, key: null_slot("key"), message, content, companions: Vec::new(), want: Want::Row };
            let OpAnswer::Register { answer: Answer::Apply(answer), .. } = serve(&cluster, 3, &bucket, late).await else {
                panic!("an apply is answered as one");
            };
            assert_eq!(answer == ApplyAnswer::Stored, is_accepted, "{answer:?}");
        }
    });
}
