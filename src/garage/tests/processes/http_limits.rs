//! Clients that break the rules: each is refused in S3's words, costs nobody else anything, and leaves nothing behind.

use futures::{StreamExt, TryStreamExt, stream};
use http::Method;
use http_body_util::{BodyExt, Full};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::support::{
    self,
    client::S3,
    cluster::{BUCKET, rpc_secret, single},
    process::{Node, Settings},
    wire::{self, half_open, status_and_code},
};

/// Connections of a client that never finishes a request: more than a node keeps.
const HALF_OPEN_COUNT: usize = 10_000;
/// Those that are being opened at once.
const OPENING_COUNT: usize = 64;
/// Open files of this process that are not such connections.
const OTHER_FILES_COUNT: usize = 500;

async fn node(dir: &TempDir) -> (Node, S3) {
    let (mut node, credentials) = single(Settings::new(dir.path(), &rpc_secret()), dir.path().to_owned());
    node.start().await;
    let s3 = S3::new(node.s3_address(), credentials);
    (node, s3)
}

/// As many as this process may open; says so when they are fewer.
fn half_open_count() -> usize {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let count = HALF_OPEN_COUNT.min((most as usize).saturating_sub(OTHER_FILES_COUNT));
    if count < HALF_OPEN_COUNT {
        eprintln!("only {count} instead of {HALF_OPEN_COUNT} half-open connections: the limit on open files is {most}");
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_of_a_mebibyte_is_refused_and_half_open_connections_stop_nobody() {
    let _turn = support::turn().await;
    let dir = TempDir::new().unwrap();
    let (mut node, s3) = node(&dir).await;

    let huge = "x".repeat(1 << 20);
    for headers in [vec![("x-huge", huge.as_str())], vec![("x-many", "y"); 50_000]] {
        let request = s3.unsigned(Method::GET, &format!("/{BUCKET}?list-type=2"), &[]);
        let answer = wire::exchange(s3.address, &wire::head(&request, &headers)).await;
        let (status, _) = status_and_code(&answer);
        assert!([400, 431].contains(&status), "{}", &answer[..answer.len().min(300)]);
    }

    let count = half_open_count();
    let held: Vec<_> =
        stream::repeat_with(|| half_open(s3.address)).take(count).buffer_unordered(OPENING_COUNT).try_collect().await.unwrap();
    for index in 0..20 {
        // A client of its own, so that each needs a new connection.
        let other = S3::new(s3.address, s3.credentials.clone());
        other.put(&format!("/{BUCKET}/{index}"), "x").await.ok();
        other.get(&format!("/{BUCKET}/{index}")).await.ok();
    }
    eprintln!("with {count} half-open connections the node has {} MiB resident", node.resident_bytes() >> 20);
    drop(held);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_not_what_was_announced_stores_nothing() {
    let _turn = support::turn().await;
    let dir = TempDir::new().unwrap();
    let (mut node, s3) = node(&dir).await;
    for size in [1_000, 1_500_000] {
        let body = vec![b'z'; size];
        let sha256 = hex::encode(Sha256::digest(&body));
        let target = format!("/{BUCKET}/wrong-{size}");
        let put = |headers: &[(&str, &str)], payload: &str| s3.signed(Method::PUT, &target, headers, payload);
        let length = size.to_string();

        // Ends before its length: nobody is left to answer to, but nothing is stored.
        let request = put(&[("content-length", &length)], &sha256);
        let sent = [wire::head(&request, &[]), body[..size / 2].to_vec()].concat();
        let answer = wire::exchange(s3.address, &sent).await;
        assert!(answer.is_empty() || status_and_code(&answer) == (400, "IncompleteBody".into()), "{answer}");

        // Goes on after its length: the rest is no request, and what was stored has the right length.
        let request = put(&[("content-length", "10")], &sha256);
        let answer = wire::exchange(s3.address, &[wire::head(&request, &[]), body.clone()].concat()).await;
        assert_eq!(status_and_code(&answer), (400, "XAmzContentSHA256Mismatch".into()), "{answer}");

        // Another hash than it has.
        let request = put(&[], &hex::encode(Sha256::digest(b"other")));
        s3.send(request, Full::new(body.clone().into()).boxed()).await.unwrap().is(400, "XAmzContentSHA256Mismatch");

        // Another MD5 than it has, and one that is none.
        let request = put(&[("content-md5", "1B2M2Y8AsgTpgAmY7PhCfg==")], &sha256);
        s3.send(request, Full::new(body.clone().into()).boxed()).await.unwrap().is(400, "BadDigest");
        let request = put(&[("content-md5", "no digest")], &sha256);
        s3.send(request, Full::new(body.clone().into()).boxed()).await.unwrap().is(400, "InvalidDigest");

        assert_eq!(s3.head(&target).await, 404, "nothing of it is visible");
    }
    let listed = s3.get(&format!("/{BUCKET}?list-type=2")).await.ok().text();
    assert!(!listed.contains("<Key>"), "{listed}");
    node.stop().await;
}

/// A body in signed chunks of `chunk` bytes; `spoil` changes what is sent.
fn chunked(s3: &S3, target: &str, body: &[u8], chunk: usize, announced: usize, spoil: impl Fn(usize, &mut Vec<u8>)) -> Vec<u8> {
    let mut parts = Vec::new();
    let headers =
        [("content-encoding", "aws-chunked"), ("x-amz-decoded-content-length", &*announced.to_string())].map(|(a, b)| (a, b.to_owned()));
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut request = s3.unsigned(Method::PUT, target, &headers);
    let payload = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
    let mut chain = garage_testkit::load::sign_payload(&mut request, &s3.credentials, payload, support::client::now_ms()).unwrap();
    for (index, data) in body.chunks(chunk).chain([&[][..]]).enumerate() {
        let signature = chain.sign_chunk(&Sha256::digest(data).into()).to_owned();
        let mut part = format!("{:x};chunk-signature={signature}\r\n", data.len()).into_bytes();
        part.extend_from_slice(data);
        part.extend_from_slice(b"\r\n");
        spoil(index, &mut part);
        parts.push(part);
    }
    let sent = parts.concat();
    let length = sent.len().to_string();
    [wire::head(&request, &[("content-length", &length), ("connection", "close")]), sent].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_was_tampered_with_stores_nothing() {
    let _turn = support::turn().await;
    let dir = TempDir::new().unwrap();
    let (mut node, s3) = node(&dir).await;
    let body: Vec<u8> = (0..1_300_000_u32).map(|index| (index % 251) as u8).collect();

    let good = format!("/{BUCKET}/good");
    let answer = wire::ask(s3.address, &chunked(&s3, &good, &body, 65_536, body.len(), |_, _| {})).await;
    assert_eq!(status_and_code(&answer).0, 200, "{answer}");
    assert!(s3.get(&good).await.ok().body == body);

    let target = format!("/{BUCKET}/tampered");
    let check = async |sent: Vec<u8>, expected: &[&str]| {
        let answer = wire::ask(s3.address, &sent).await;
        let (status, code) = status_and_code(&answer);
        assert!((400..500).contains(&status) && expected.contains(&code.as_str()), "{answer}");
        assert_eq!(s3.head(&target).await, 404);
    };
    // A byte of data, late, and a digit of a signature.
    let late = |index: usize, part: &mut Vec<u8>| {
        if index == 18 {
            part[200] ^= 1
        }
    };
    check(chunked(&s3, &target, &body, 65_536, body.len(), late), &["SignatureDoesNotMatch"]).await;
    let signature = |index: usize, part: &mut Vec<u8>| {
        if index == 0 {
            part[40] = if part[40] == b'0' { b'1' } else { b'0' }
        }
    };
    check(chunked(&s3, &target, &body, 65_536, body.len(), signature), &["SignatureDoesNotMatch"]).await;
    // A last chunk that is missing, and another length than was announced.
    let last = body.len().div_ceil(65_536);
    let no_end = |index: usize, part: &mut Vec<u8>| {
        if index == last {
            part.clear()
        }
    };
    check(chunked(&s3, &target, &body, 65_536, body.len(), no_end), &["IncompleteBody"]).await;
    check(chunked(&s3, &target, &body, 65_536, body.len() + 1, |_, _| {}), &["IncompleteBody"]).await;
    check(chunked(&s3, &target, &body, 65_536, body.len() - 1, |_, _| {}), &["IncompleteBody", "InvalidRequest"]).await;
    node.stop().await;
}
