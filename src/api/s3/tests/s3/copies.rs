//! Copies: of content and metadata, onto others and onto itself.

use crate::{
    client::{Answer, Call, etag},
    server::Server,
};

fn from<'a>(call: Call<'a>, source: &str) -> Call<'a> {
    call.header("x-amz-copy-source", source)
}
async fn copy(server: &Server, source: &str, headers: &[(&str, &str)]) -> Answer {
    let call = from(server.client.call("PUT", "/bkt/copy"), source);
    headers.iter().fold(call, |call, (name, value)| call.header(name, value)).send().await
}

#[tokio::test]
async fn content_and_metadata_are_copied_or_replaced() {
    let server = Server::start().await;
    let client = &server.client;
    for body in ["small".to_owned(), "large".repeat(100_000)] {
        let put = client.call("PUT", "/bkt/a%20source").header("x-amz-meta-a", "1").header("content-type", "text/plain");
        put.header("x-amz-storage-class", "STANDARD_IA").body(&body).send().await.ok();
        let copied = copy(&server, "/bkt/a%20source", &[("x-amz-meta-a", "ignored")]).await.ok();
        assert_eq!(copied.element("ETag"), Some(etag(body.as_bytes()).replace('"', "&quot;")));
        assert!(copied.element("LastModified").is_some() && copied.element("ChecksumCRC64NVME").is_some());
        let got = client.get("/bkt/copy").await.ok();
        assert!(got.text() == body);
        assert_eq!((got.header("x-amz-meta-a"), got.header("content-type")), (Some("1"), Some("text/plain")));
        assert_eq!(got.header("x-amz-storage-class"), None, "a storage class is not copied");
        copy(&server, "bkt/a source", &[("x-amz-metadata-directive", "REPLACE"), ("x-amz-meta-b", "2")]).await.ok();
        let got = client.get("/bkt/copy").await.ok();
        assert_eq!((got.header("x-amz-meta-a"), got.header("x-amz-meta-b")), (None, Some("2")));
        assert_eq!(got.header("content-type"), Some("binary/octet-stream"));
    }
}

#[tokio::test]
async fn a_copy_onto_itself_changes_something() {
    let server = Server::start().await;
    let client = &server.client;
    client.call("PUT", "/bkt/copy").body("x").header("x-amz-meta-a", "1").send().await.ok();
    copy(&server, "bkt/copy", &[]).await.is(400, "InvalidRequest");
    copy(&server, "bkt/copy", &[("x-amz-metadata-directive", "REPLACE"), ("x-amz-meta-a", "2")]).await.ok();
    assert_eq!(client.head("/bkt/copy").await.header("x-amz-meta-a"), Some("2"));
    copy(&server, "bkt/copy", &[("x-amz-storage-class", "STANDARD_IA")]).await.ok();
    let head = client.head("/bkt/copy").await;
    assert_eq!((head.header("x-amz-meta-a"), head.header("x-amz-storage-class")), (Some("2"), Some("STANDARD_IA")));
}

#[tokio::test]
async fn sources_are_checked() {
    let server = Server::start().await;
    let client = &server.client;
    client.put("/bkt/k", "content").await.ok();
    let tag = etag(b"content");
    for (source, headers, status, code) in [
        ("bkt/none", &[][..], 404, "NoSuchKey"),
        ("nowhere/k", &[], 404, "NoSuchBucket"),
        ("nonsense", &[], 400, "InvalidArgument"),
        ("bkt/k?versionId=null", &[], 200, ""),
        ("bkt/k?versionId=x", &[], 400, "InvalidArgument"),
        ("bkt/k", &[("x-amz-metadata-directive", "MIX")], 400, "InvalidArgument"),
        ("bkt/k", &[("x-amz-tagging-directive", "MIX")], 400, "InvalidArgument"),
        ("bkt/k", &[("x-amz-object-annotation-directive", "MIX")], 400, "InvalidArgument"),
        ("bkt/k", &[("x-amz-object-annotation-directive", "EXCLUDE")], 200, ""),
        ("bkt/k", &[("x-amz-object-annotation-directive", "COPY")], 200, ""),
        ("bkt/k", &[("x-amz-copy-source-if-match", "\"x\"")], 412, "PreconditionFailed"),
        ("bkt/k", &[("x-amz-copy-source-if-match", &tag)], 200, ""),
        ("bkt/k", &[("x-amz-copy-source-if-none-match", &tag)], 412, "PreconditionFailed"),
        ("bkt/k", &[("x-amz-copy-source-if-unmodified-since", "Fri, 01 Jan 2021 00:00:00 GMT")], 412, "PreconditionFailed"),
        ("bkt/k", &[("x-amz-copy-source-server-side-encryption-customer-key", "x")], 400, "InvalidArgument"),
        ("bkt/k", &[("if-none-match", "*")], 412, "PreconditionFailed"),
        ("bkt/k", &[("x-amz-source-expected-bucket-owner", "1")], 403, "AccessDenied"),
    ] {
        copy(&server, source, headers).await.is(status, code);
    }
}

#[tokio::test]
async fn a_copy_can_have_another_checksum() {
    let server = Server::start().await;
    let client = &server.client;
    client.put("/bkt/k", "content".repeat(100_000)).await.ok();
    copy(&server, "bkt/k", &[("x-amz-checksum-algorithm", "SHA256")]).await.ok();
    let got = client.call("HEAD", "/bkt/copy").header("x-amz-checksum-mode", "ENABLED").send().await;
    assert!(got.header("x-amz-checksum-sha256").is_some() && got.header("x-amz-checksum-crc64nvme").is_none());
    assert_eq!(got.header("etag"), Some(&*etag("content".repeat(100_000).as_bytes())));
}
