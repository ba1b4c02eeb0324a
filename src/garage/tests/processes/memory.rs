//! Much data through one node: how much memory it takes, and what is refused for its size.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream};
use garage_testkit::load::Content;
use http::Method;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;

use crate::support::{
    self,
    client::S3,
    cluster::{self, BUCKET, Cluster},
    process::Settings,
};

/// The most that any node may have resident at any time.
const RESIDENT_MAX_BYTES: u64 = 300 << 20;
/// The body repeats pages of this size, each stamped with its number.
const PIECE_BYTES: usize = 1 << 20;

/// For one request with gigabytes.
const BIG_REQUEST_TIMEOUT: Duration = Duration::from_secs(600);

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
    let content = Arc::new(Content::new(PIECE_BYTES));

    put(&s3, &target, &content, count).await;
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

/// Uploads so many pieces in one request.
async fn put(s3: &S3, target: &str, content: &Arc<Content>, count: u64) {
    let pieces = content.clone();
    let body = StreamBody::new(stream::iter(0..count).map(move |index| Ok::<_, Infallible>(Frame::data(pieces.object(index)))));
    let length = (count * PIECE_BYTES as u64).to_string();
    let request = s3.signed(Method::PUT, target, &[("content-length", &length)], "UNSIGNED-PAYLOAD");
    s3.send_within(BIG_REQUEST_TIMEOUT, request, BodyExt::boxed(body)).await.unwrap().ok();
}

/// 5 GiB, the most that one request may write or copy, and a little more (AWS S3 API, CopyObject and UploadPartCopy).
#[tokio::test(flavor = "multi_thread")]
#[ignore = "writes more than 10 GiB: script/nightly big-copies"]
async fn sources_beyond_5_gib_are_copied_in_parts_only() {
    const GIB_COUNT: u64 = 1 << 10;
    let _turn = support::turn_alone().await;
    let dir = tempfile::tempdir().unwrap();
    let (mut node, credentials) = cluster::single(Settings::new(dir.path(), &cluster::rpc_secret()), dir.path().to_owned());
    node.start().await;
    let s3 = S3::new(node.s3_address(), credentials);
    put(&s3, &format!("/{BUCKET}/most"), &Arc::new(Content::new(PIECE_BYTES)), 5 * GIB_COUNT).await;
    let copy = async |method, target: &str, headers: &[(&str, &str)]| {
        let request = s3.signed(method, target, headers, "UNSIGNED-PAYLOAD");
        s3.send_within(BIG_REQUEST_TIMEOUT, request, Full::new(Bytes::new()).boxed()).await.unwrap()
    };

    let source = format!("/{BUCKET}/most");
    copy(Method::PUT, &format!("/{BUCKET}/copy"), &[("x-amz-copy-source", &source)]).await.ok();
    let begun = copy(Method::POST, &format!("/{BUCKET}/more?uploads="), &[]).await;
    let id = between(&begun.text(), "<UploadId>", "</UploadId>");
    let mut listed = String::new();
    for (number, range) in [(1, None), (2, Some("bytes=0-0"))] {
        let target = format!("/{BUCKET}/more?partNumber={number}&uploadId={id}");
        let range = range.map(|range| ("x-amz-copy-source-range", range));
        let headers: Vec<_> = [("x-amz-copy-source", source.as_str())].into_iter().chain(range).collect();
        let part = copy(Method::PUT, &target, &headers).await;
        let etag = between(&part.text(), "<ETag>", "</ETag>");
        listed += &format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>");
    }
    let body = format!("<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>");
    s3.attempt(Method::POST, &format!("/{BUCKET}/more?uploadId={id}"), &[], body.into()).await.unwrap().ok();

    let source = format!("/{BUCKET}/more");
    let refused = copy(Method::PUT, &format!("/{BUCKET}/copy"), &[("x-amz-copy-source", &source)]).await;
    refused.is(400, "InvalidRequest");
    assert!(refused.text().contains("maximum allowable size for a copy source: 5368709120"), "{}", refused.text());
    let begun = copy(Method::POST, &format!("/{BUCKET}/again?uploads="), &[]).await;
    let id = between(&begun.text(), "<UploadId>", "</UploadId>");
    let target = format!("/{BUCKET}/again?partNumber=1&uploadId={id}");
    copy(Method::PUT, &target, &[("x-amz-copy-source", &source)]).await.is(400, "InvalidRequest");
    let last = [("x-amz-copy-source", source.as_str()), ("x-amz-copy-source-range", "bytes=5368709120-5368709120")];
    copy(Method::PUT, &target, &last).await.ok();
    node.stop().await;
}

fn between(text: &str, start: &str, end: &str) -> String {
    let from = text.find(start).unwrap_or_else(|| panic!("no {start} in {text}")) + start.len();
    text[from..].split(end).next().unwrap_or_default().to_owned()
}

fn check(cluster: &Cluster, what: &str) {
    for (index, node) in cluster.nodes.iter().enumerate() {
        let peak = node.resident_peak_bytes();
        eprintln!("after {what} of {} MiB node {index} had at most {} MiB resident", piece_count(), peak >> 20);
        assert!(peak < RESIDENT_MAX_BYTES, "after {what} node {index} had {peak} bytes resident");
    }
}
