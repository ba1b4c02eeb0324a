//! Bodies through the whole pipeline: the published chunked examples, and every way a body can be other than promised.

use std::time::Duration;

use ::http::{HeaderMap, HeaderName};
use bytes::Bytes;
use futures::{StreamExt, stream};
use garage_util::runtime::Runtime;
use proptest::prelude::*;

use super::{BodySpec, BoxError, Digests, stored_content_encoding};
use crate::{
    checksum::{ChecksumAlgorithm, checksum_of},
    error::{ErrorCode, S3Error},
    sigv4::{ChunkSigner, PayloadMode, Scope, SigningKey},
};

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (HeaderName::try_from(*name).unwrap(), value.parse().unwrap())).collect()
}

/// Content and digests of a body that arrives in pieces of `piece_bytes`.
async fn receive(pairs: &[(&str, &str)], mode: PayloadMode, wire: &[u8], piece_bytes: usize) -> Result<(Vec<u8>, Digests), S3Error> {
    let (runtime, _tasks) = Runtime::real();
    let pieces: Vec<Result<Bytes, BoxError>> = wire.chunks(piece_bytes.max(1)).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let mut body = BodySpec::parse(&headers(pairs), mode)?.open(&runtime, stream::iter(pieces));
    let mut content = Vec::new();
    while let Some(piece) = body.next().await? {
        assert!(body.digests().is_none(), "no digests before the end");
        content.extend_from_slice(&piece);
    }
    Ok((content, body.digests().unwrap().clone()))
}
async fn code_of(pairs: &[(&str, &str)], mode: PayloadMode, wire: &[u8]) -> ErrorCode {
    receive(pairs, mode, wire, 7).await.expect_err("refused").code
}

fn example_signer(seed: &str) -> ChunkSigner {
    let scope = Scope::parse("AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request").unwrap();
    let key = SigningKey::derive("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", &scope);
    ChunkSigner::new(key, "20130524T000000Z".to_owned(), &scope, seed.to_owned())
}
fn example_wire(signatures: [&str; 3], tail: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    for (size, signature) in [65536, 1024, 0].into_iter().zip(signatures) {
        wire.extend(format!("{size:x};chunk-signature={signature}\r\n").into_bytes());
        wire.extend(vec![b'a'; size]);
        if size > 0 {
            wire.extend(b"\r\n");
        }
    }
    wire.extend(tail.as_bytes());
    wire
}
fn chunked_example() -> (PayloadMode, Vec<u8>) {
    let seed = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9";
    let signatures = [
        "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
        "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
        "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
    ];
    (PayloadMode::SignedChunks(example_signer(seed)), example_wire(signatures, "\r\n"))
}
fn trailer_example() -> (PayloadMode, Vec<u8>) {
    let seed = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e";
    let signatures = [
        "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
        "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
        "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
    ];
    let tail = "x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n";
    (PayloadMode::SignedChunksTrailer(example_signer(seed)), example_wire(signatures, tail))
}
const LENGTH: (&str, &str) = ("x-amz-decoded-content-length", "66560");
const TRAILER: (&str, &str) = ("x-amz-trailer", "x-amz-checksum-crc32c");

#[tokio::test]
async fn the_published_chunked_upload_is_accepted_however_it_is_cut() {
    for piece_bytes in [1, 100, 65_536, 1_000_000] {
        let (mode, wire) = chunked_example();
        let (content, digests) = receive(&[LENGTH], mode, &wire, piece_bytes).await.unwrap();
        assert_eq!((content.len(), digests.size_bytes), (66_560, 66_560));
    }
}

#[tokio::test]
async fn the_published_chunked_upload_with_trailer_is_accepted() {
    let (mode, wire) = trailer_example();
    let (_, digests) = receive(&[LENGTH, TRAILER], mode, &wire, 8192).await.unwrap();
    assert_eq!(digests.declared_checksum().unwrap().to_base64(), "sOO8/Q==");
}

#[tokio::test]
async fn a_changed_byte_or_signature_anywhere_is_refused() {
    let (mode, good) = trailer_example();
    for at in [30, 200, 65_700, 66_000, good.len() - 10, good.len() - 110] {
        let mut wire = good.clone();
        wire[at] = if wire[at] == b'b' { b'c' } else { b'b' };
        let refused = code_of(&[LENGTH, TRAILER], mode.clone(), &wire).await;
        let expected = [ErrorCode::SignatureDoesNotMatch, ErrorCode::BadDigest, ErrorCode::MalformedTrailerError];
        assert!(expected.contains(&refused), "byte {at}: {refused:?}");
    }
    let (mode, wire) = trailer_example();
    let unsigned = String::from_utf8(wire)
        .unwrap()
        .replace("x-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n", "");
    assert_eq!(code_of(&[LENGTH, TRAILER], mode, unsigned.as_bytes()).await, ErrorCode::SignatureDoesNotMatch);
}

#[tokio::test]
async fn truncated_and_over_long_chunked_bodies_are_incomplete() {
    let (mode, wire) = chunked_example();
    assert_eq!(code_of(&[LENGTH], mode.clone(), &wire[..wire.len() - 100]).await, ErrorCode::IncompleteBody);
    assert_eq!(code_of(&[LENGTH], mode.clone(), &wire[..30_000]).await, ErrorCode::IncompleteBody);
    assert_eq!(code_of(&[("x-amz-decoded-content-length", "66561")], mode.clone(), &wire).await, ErrorCode::IncompleteBody);
    assert_eq!(code_of(&[("x-amz-decoded-content-length", "66559")], mode.clone(), &wire).await, ErrorCode::IncompleteBody);
    assert_eq!(code_of(&[], mode, &wire).await, ErrorCode::MissingContentLength);
}

#[tokio::test]
async fn plain_bodies_are_held_to_length_md5_sha256_and_checksum() {
    let sha256 = |data: &[u8]| PayloadMode::Sha256(checksum_of(ChecksumAlgorithm::Sha256, data).bytes().try_into().unwrap());
    let good = [("content-length", "5"), ("content-md5", "XUFAKrxLKna5cZ2REBfFkg=="), ("x-amz-checksum-crc32", "NhCmhg==")];
    let (content, digests) = receive(&good, sha256(b"hello"), b"hello", 2).await.unwrap();
    assert_eq!((content.as_slice(), digests.etag().as_str()), (b"hello".as_slice(), "5d41402abc4b2a76b9719d911017c592"));
    assert_eq!(digests.checksum(ChecksumAlgorithm::Crc32).unwrap().to_base64(), "NhCmhg==");
    let unsigned = || PayloadMode::Unsigned;
    assert_eq!(code_of(&[], sha256(b"hellO"), b"hello").await, ErrorCode::XAmzContentSHA256Mismatch);
    assert_eq!(code_of(&[("content-md5", "1B2M2Y8AsgTpgAmY7PhCfg==")], unsigned(), b"hello").await, ErrorCode::BadDigest);
    assert_eq!(code_of(&[("x-amz-checksum-sha1", "2jmj7l5rSw0yVb/vlWAYkK/YBwk=")], unsigned(), b"hello").await, ErrorCode::BadDigest);
    assert_eq!(
        code_of(&[("x-amz-checksum-sha256", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=")], unsigned(), b"hello").await,
        ErrorCode::BadDigest
    );
    assert_eq!(code_of(&[("content-length", "6")], unsigned(), b"hello").await, ErrorCode::IncompleteBody);
    assert_eq!(code_of(&[("content-length", "4")], unsigned(), b"hello").await, ErrorCode::IncompleteBody);
    for md5 in ["", "hello", "XUFAKrxLKna5cZ2REBfF"] {
        assert_eq!(code_of(&[("content-md5", md5)], unsigned(), b"hello").await, ErrorCode::InvalidDigest, "{md5}");
    }
    assert_eq!(code_of(&[("content-encoding", "gzip, aws-chunked")], unsigned(), b"hello").await, ErrorCode::InvalidRequest);
    assert_eq!(code_of(&[("x-amz-trailer", "x-amz-checksum-crc32")], unsigned(), b"hello").await, ErrorCode::InvalidRequest);
}

#[tokio::test]
async fn unsigned_trailers_are_verified() {
    let pairs = [("x-amz-decoded-content-length", "5"), ("x-amz-trailer", "x-amz-checksum-crc32")];
    let wire = |value: &str| format!("5\r\nhello\r\n0\r\nx-amz-checksum-crc32:{value}\r\n\r\n").into_bytes();
    assert!(receive(&pairs, PayloadMode::UnsignedChunksTrailer, &wire("NhCmhg=="), 3).await.is_ok());
    assert_eq!(code_of(&pairs, PayloadMode::UnsignedChunksTrailer, &wire("AAAAAA==")).await, ErrorCode::BadDigest);
    let none =
        receive(&[("x-amz-decoded-content-length", "5")], PayloadMode::UnsignedChunksTrailer, b"5\r\nhello\r\n0\r\n\r\n", 3).await.unwrap();
    assert_eq!(none.1.checksums, []);
}

#[tokio::test]
async fn a_big_body_hashed_in_batches_has_the_same_digests() {
    let content: Vec<u8> = (0..3_000_000u32).map(|index| (index % 251) as u8).collect();
    let (received, digests) = receive(
        &[("x-amz-checksum-sha256", &checksum_of(ChecksumAlgorithm::Sha256, &content).to_base64())],
        PayloadMode::Unsigned,
        &content,
        40_000,
    )
    .await
    .unwrap();
    assert!(received == content);
    assert_eq!(digests.md5, <[u8; 16]>::from(<md5::Md5 as md5::Digest>::digest(&content)));
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_times_out_and_a_slow_reader_does_not() {
    let (runtime, _tasks) = Runtime::real();
    let first = stream::iter([Ok::<_, BoxError>(Bytes::from_static(b"he"))]);
    let mut body = BodySpec::parse(&HeaderMap::new(), PayloadMode::Unsigned).unwrap().open(&runtime, first.chain(stream::pending()));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(body.next().await.unwrap().unwrap(), "he");
    let error = body.next().await.unwrap_err();
    assert_eq!(error.code, ErrorCode::RequestTimeout);
    assert!(error.close_connection);
    assert_eq!(body.next().await.unwrap(), None, "nothing after an error");
    assert!(body.digests().is_none());
}

#[tokio::test]
async fn a_broken_connection_is_an_incomplete_body() {
    let (runtime, _tasks) = Runtime::real();
    let source = stream::iter([Ok(Bytes::from_static(b"he")), Err(BoxError::from("reset"))]);
    let body = BodySpec::parse(&HeaderMap::new(), PayloadMode::Unsigned).unwrap().open(&runtime, source);
    assert_eq!(body.read_to_end(100).await.unwrap_err().code, ErrorCode::IncompleteBody);
}

#[tokio::test]
async fn reading_to_the_end_is_bounded() {
    let (runtime, _tasks) = Runtime::real();
    let open = |pairs: &[(&str, &str)]| {
        let source = stream::iter([b"12345"; 3].map(|piece| Ok::<_, BoxError>(Bytes::from_static(piece))));
        BodySpec::parse(&headers(pairs), PayloadMode::Unsigned).unwrap().open(&runtime, source)
    };
    assert_eq!(open(&[]).read_to_end(15).await.unwrap().0, "123451234512345");
    assert_eq!(open(&[]).read_to_end(14).await.unwrap_err().code, ErrorCode::MaxMessageLengthExceeded);
    assert_eq!(open(&[("content-length", "15")]).read_to_end(14).await.unwrap_err().code, ErrorCode::MaxMessageLengthExceeded);
}

#[test]
fn aws_chunked_is_not_stored_as_an_encoding() {
    for (sent, stored) in [
        ("aws-chunked", None),
        ("aws-chunked,gzip", Some("gzip")),
        ("gzip, aws-chunked", Some("gzip")),
        ("", None),
        ("br", Some("br")),
        ("deflate, gzip", Some("deflate, gzip")),
    ] {
        assert_eq!(stored_content_encoding(&headers(&[("content-encoding", sent)])).as_deref(), stored, "{sent}");
    }
}

#[test]
fn operations_that_need_integrity_get_it_from_any_of_three() {
    let spec = |pairs: &[(&str, &str)], mode| BodySpec::parse(&headers(pairs), mode).unwrap().require_integrity();
    assert!(spec(&[], PayloadMode::Unsigned).is_err());
    assert!(spec(&[("content-md5", "1B2M2Y8AsgTpgAmY7PhCfg==")], PayloadMode::Unsigned).is_ok());
    assert!(spec(&[("x-amz-checksum-crc32", "AAAAAA==")], PayloadMode::Unsigned).is_ok());
    assert!(spec(&[], PayloadMode::Sha256([0; 32])).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn what_is_signed_chunk_by_chunk_arrives(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..30_000), 0..5), piece in 1usize..70_000) {
        let mut signer = example_signer("seed");
        let mut wire = Vec::new();
        for chunk in chunks.iter().map(Vec::as_slice).chain([&b""[..]]) {
            let sha256: [u8; 32] = checksum_of(ChecksumAlgorithm::Sha256, chunk).bytes().try_into().unwrap();
            wire.extend(format!("{:X};chunk-signature={}\r\n", chunk.len(), signer.sign_chunk(&sha256)).into_bytes());
            wire.extend(chunk);
            wire.extend(b"\r\n");
        }
        let length = chunks.concat().len().to_string();
        let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mode = PayloadMode::SignedChunks(example_signer("seed"));
        let (content, _) = executor.block_on(receive(&[("x-amz-decoded-content-length", &length)], mode, &wire, piece)).unwrap();
        prop_assert_eq!(content, chunks.concat());
    }
}
