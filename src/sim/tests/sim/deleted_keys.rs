//! What deleted keys and aborted uploads leave behind: nothing that a listing reads, and no blocks.

use std::time::Duration;

use bytes::Bytes;
use garage_db::Direction;
use garage_model::{
    RequestContext,
    body::WholeBody,
    listing::ListRequest,
    objects::{BucketRef, KeyToDelete, WriteCondition},
    uploads::NewUpload,
};
use garage_sim::cluster::{Cluster, ClusterOptions};
use garage_table::keyspaces;

const NODES: usize = 3;
const KEYS: usize = 400;

fn context() -> RequestContext {
    RequestContext::within(Duration::from_secs(60))
}

/// Entries of all indexes of a node: what listings walk over.
async fn index_rows_count(cluster: &Cluster, node: usize) -> usize {
    let read = cluster.node(node).db.read(|snapshot| snapshot.prefix(keyspaces::INDEX, &[], Direction::Forward).count());
    read.await.unwrap()
}

/// Files in a node's data directory.
fn files_count(cluster: &Cluster, node: usize) -> usize {
    cluster.disk(node).paths().iter().filter(|path| path.starts_with("/data")).count()
}

async fn put(cluster: &Cluster, bucket: &BucketRef, number: usize) {
    let objects = &cluster.node(number % NODES).objects;
    let body = Box::new(WholeBody::new(Bytes::from(format!("content {number}"))));
    objects.put(bucket, &format!("{number:05}"), Default::default(), body, &WriteCondition::default(), context()).await.unwrap();
}

#[test]
fn a_deleted_key_leaves_nothing_that_a_listing_reads() {
    garage_sim::run(async {
        let cluster = Cluster::start(1, ClusterOptions::exact(Duration::from_millis(5))).await;
        let bucket = cluster.make_bucket(0, "emptied").await;
        put(&cluster, &bucket, KEYS).await;
        cluster.await_identical().await;
        let mut before = Vec::new();
        for node in 0..NODES {
            before.push(index_rows_count(&cluster, node).await);
        }
        // Written, deleted and written again, as by a client that keeps its state in one key after another.
        for _ in 0..3 {
            futures::future::join_all((0..KEYS).map(|number| put(&cluster, &bucket, number))).await;
            cluster.await_identical().await;
            for (node, before) in before.iter().enumerate() {
                assert!(before + KEYS <= index_rows_count(&cluster, node).await, "node {node}: every key is listed");
            }
            let all = (0..KEYS).map(|number| KeyToDelete { key: format!("{number:05}"), condition: WriteCondition::default() }).collect();
            assert!(cluster.node(1).objects.delete_many(&bucket, all, context()).await.iter().all(Result::is_ok));
            cluster.await_identical().await;
            for (node, before) in before.iter().enumerate() {
                assert_eq!(index_rows_count(&cluster, node).await, *before, "node {node}");
            }
        }
        let page = cluster.node(2).objects.list(&bucket, &ListRequest { limit: 10, ..ListRequest::default() }, context()).await.unwrap();
        assert_eq!((page.entries.len(), page.truncated), (1, false));
    });
}

#[test]
fn an_aborted_upload_frees_the_blocks_of_its_parts() {
    garage_sim::run(async {
        let cluster = Cluster::start(2, ClusterOptions::rough()).await;
        let bucket = cluster.make_bucket(0, "aborted").await;
        let files = |cluster: &Cluster| (0..NODES).map(|node| files_count(cluster, node)).sum::<usize>();
        let before = files(&cluster);
        let uploads = &cluster.node(0).uploads;
        let upload = uploads.create(&bucket, "k", NewUpload::default(), context()).await.unwrap();
        for number in 1..=3 {
            let part: Bytes = (0..300_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8 ^ number as u8).collect();
            uploads.put_part(&bucket, "k", upload, number, Box::new(WholeBody::new(part)), context()).await.unwrap();
        }
        assert!(before + 3 * NODES <= files(&cluster), "parts are blocks");
        cluster.node(2).uploads.abort(&bucket, "k", upload, context()).await.unwrap();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(7 * 24 * 3600);
        while before < files(&cluster) {
            assert!(tokio::time::Instant::now() < deadline, "{} files are still there", files(&cluster) - before);
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
    });
}
