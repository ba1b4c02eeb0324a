//! Memory while much data passes through one node.

use std::convert::Infallible;

use bytes::Bytes;
use futures::{StreamExt, stream};
use garage_testkit::load::Content;
use http::Method;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;

use crate::support::{
    self,
    cluster::{BUCKET, Cluster},
};

/// The most that any node may have resident at any time.
const RESIDENT_MAX_BYTES: u64 = 300 << 20;
/// The body repeats pages of this size, each stamped with its number.
const PIECE_BYTES: usize = 1 << 20;

/// `GARAGE_BIG=1` makes it the 2 GiB of the promise.
fn piece_count() -> u64 {
    if std::env::var_os("GARAGE_BIG").is_some() { 2_048 } else { 256 }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_and_a_download_through_one_node_keep_every_node_under_300_mib() {
    let _turn = support::turn_alone().await;
    let cluster = Cluster::start().await;
    let s3 = cluster.s3(0);
    let target = format!("/{BUCKET}/big");
    let count = piece_count();
    let content = std::sync::Arc::new(Content::new(PIECE_BYTES));

    let pieces = content.clone();
    let body = StreamBody::new(stream::iter(0..count).map(move |index| Ok::<_, Infallible>(Frame::data(pieces.object(index)))));
    let length = (count * PIECE_BYTES as u64).to_string();
    let request = s3.signed(Method::PUT, &target, &[("content-length", &length)], "UNSIGNED-PAYLOAD");
    s3.send_within(std::time::Duration::from_secs(600), request, BodyExt::boxed(body)).await.unwrap().ok();
    check(&cluster, "the upload");

    let mut offset: u64 = 0;
    s3.download(&target, |data| {
        let mut data = Bytes::copy_from_slice(data);
        while !data.is_empty() {
            let at = (offset % PIECE_BYTES as u64) as usize;
            let part = data.split_to(data.len().min(PIECE_BYTES - at));
            assert!(content.matches(offset / PIECE_BYTES as u64, at, &part), "other bytes from {offset} on");
            offset += part.len() as u64;
        }
    })
    .await;
    assert_eq!(offset, count * PIECE_BYTES as u64);
    check(&cluster, "the download");
}

fn check(cluster: &Cluster, what: &str) {
    for (index, node) in cluster.nodes.iter().enumerate() {
        let peak = node.resident_peak_bytes();
        eprintln!("after {what} of {} MiB node {index} had at most {} MiB resident", piece_count(), peak >> 20);
        assert!(peak < RESIDENT_MAX_BYTES, "after {what} node {index} had {peak} bytes resident");
    }
}
