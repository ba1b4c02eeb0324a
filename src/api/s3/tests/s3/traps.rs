//! What well-known clients rely on: each test sends what a client was seen to send.
//!
//! Source: s3 reference §5.

use garage_api_common::checksum::{ChecksumAlgorithm, checksum_of};

use crate::{
    client::{Signed, etag},
    server::Server,
};

/// HTTP's own chunks around a body.
fn http_chunks(body: &str) -> String {
    let pieces = body.as_bytes().chunks(10).map(|piece| format!("{:x}\r\n{}\r\n", piece.len(), String::from_utf8_lossy(piece)));
    pieces.collect::<String>() + "0\r\n\r\n"
}

#[tokio::test]
async fn boto_over_tls_sends_chunks_within_chunks_and_no_length() {
    let server = Server::start().await;
    let client = &server.client;
    let crc = checksum_of(ChecksumAlgorithm::Crc32, b"content").to_base64();
    let body = format!("7\r\ncontent\r\n0\r\nx-amz-checksum-crc32:{crc}\r\n\r\n");
    let put = client.call("PUT", "/bkt/k").unframed().payload("STREAMING-UNSIGNED-PAYLOAD-TRAILER").header("transfer-encoding", "chunked");
    let put = put.header("content-encoding", "aws-chunked").header("x-amz-decoded-content-length", "7");
    let put = put.header("x-amz-trailer", "x-amz-checksum-crc32").header("x-amz-sdk-checksum-algorithm", "CRC32");
    let put = put.body(http_chunks(&body)).send().await.ok();
    assert_eq!(put.header("x-amz-checksum-crc32"), Some(&*crc));
    assert_eq!(client.get("/bkt/k").await.ok().text(), "content");
}

#[tokio::test]
async fn boto_deletes_many_with_a_checksum_instead_of_an_md5() {
    let server = Server::start().await;
    let client = &server.client;
    let body = "<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Object><Key>k</Key></Object></Delete>";
    let post = |crc: String| {
        let call = client.call("POST", "/bkt?delete").payload("UNSIGNED-PAYLOAD").header("x-amz-sdk-checksum-algorithm", "CRC32");
        call.header("x-amz-checksum-crc32", crc).body(body).send()
    };
    post(checksum_of(ChecksumAlgorithm::Crc32, body.as_bytes()).to_base64()).await.ok();
    post("AAAAAA==".into()).await.is(400, "BadDigest");
}

#[tokio::test]
async fn javascript_presigns_puts_with_the_checksum_of_an_empty_body() {
    let server = Server::start().await;
    let client = &server.client;
    let target = "/bkt/k?x-id=PutObject&x-amz-checksum-crc32=AAAAAA%3D%3D&x-amz-sdk-checksum-algorithm=CRC32";
    client.call("PUT", target).signed(Signed::Presigned(60, 0)).body("not empty").send().await.ok();
    assert_eq!(client.get("/bkt/k?x-id=GetObject").await.ok().text(), "not empty");
}

#[tokio::test]
async fn a_presigned_upload_may_carry_headers_that_need_no_signature() {
    let server = Server::start().await;
    let client = &server.client;
    let put = || client.call("PUT", "/bkt/k").signed(Signed::Presigned(60, 0)).body("x");
    put().unsigned_header("cache-control", "no-store").unsigned_header("content-type", "text/plain").send().await.ok();
    assert_eq!(client.head("/bkt/k").await.header("cache-control"), Some("no-store"));
    put().unsigned_header("x-amz-meta-a", "1").send().await.is(403, "AccessDenied");
    put().unsigned_header("x-amzn-trace-id", "Root=1").unsigned_header("x-forwarded-for", "10.0.0.1").send().await.ok();
}

#[tokio::test]
async fn everything_can_be_presigned_multipart_uploads_too() {
    let server = Server::start().await;
    let client = &server.client;
    let call = |method: &'static str, target: &str| client.call(method, target).signed(Signed::Presigned(60, 0));
    let id = call("POST", "/bkt/k?uploads=").send().await.ok().element("UploadId").unwrap();
    let first = call("PUT", &format!("/bkt/k?partNumber=1&uploadId={id}&x-id=UploadPart")).body("presigned").send().await.ok();
    assert_eq!(call("GET", &format!("/bkt/k?uploadId={id}")).send().await.ok().elements("PartNumber"), ["1"]);
    let etag = first.header("etag").unwrap().replace('"', "&quot;");
    let list = format!("<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part></CompleteMultipartUpload>");
    call("POST", &format!("/bkt/k?uploadId={id}")).body(list).send().await.ok();
    let target = "/bkt/k?response-content-type=text%2Fplain&response-cache-control=no-store";
    let got = call("GET", target).send().await.ok();
    assert_eq!(
        (got.text().as_str(), got.header("content-type"), got.header("cache-control")),
        ("presigned", Some("text/plain"), Some("no-store"))
    );
    assert_eq!(call("HEAD", target).send().await.ok().header("content-type"), Some("text/plain"));
    let copied = client.call("PUT", "/bkt/copy").signed(Signed::Presigned(60, 0)).header("x-amz-copy-source", "bkt/k");
    copied.send().await.ok();
    assert_eq!(call("GET", "/bkt?list-type=2").send().await.ok().elements("Key"), ["copy", "k"]);
    let aborted = call("POST", "/bkt/k?uploads").send().await.ok().element("UploadId").unwrap();
    assert_eq!(call("DELETE", &format!("/bkt/k?uploadId={aborted}")).send().await.status, 204);
    call("POST", "/bkt?delete").header("content-md5", "x").body("<Delete/>").send().await.is(400, "InvalidDigest");
    assert_eq!(call("DELETE", "/bkt/k").send().await.status, 204);
    assert_eq!(call("DELETE", "/bkt/copy").send().await.status, 204);
    assert_eq!(call("HEAD", "/bkt").send().await.status, 200);
}

#[tokio::test]
async fn docker_sends_an_acl_and_a_storage_class_with_everything() {
    let server = Server::start().await;
    let client = &server.client;
    let with = |method: &'static str, target: &str| {
        client.call(method, target).header("x-amz-acl", "private").header("x-amz-storage-class", "STANDARD")
    };
    with("PUT", "/bkt/k").body("content").send().await.ok();
    let id = with("POST", "/bkt/up?uploads").send().await.ok().element("UploadId").unwrap();
    with("PUT", &format!("/bkt/up?partNumber=1&uploadId={id}")).body("x").send().await.ok();
    with("PUT", "/bkt/copy").header("x-amz-copy-source", "bkt/k").send().await.ok();
    let past = client.call("GET", "/bkt/k").header("range", "bytes=7-").send().await;
    past.is(416, "InvalidRange");
    let listed = client.get("/bkt?uploads&prefix=up").await.ok();
    assert_eq!((listed.element("UploadId"), listed.element("IsTruncated").as_deref()), (Some(id), Some("false")));
}

#[tokio::test]
async fn mc_asks_for_parameters_that_name_no_sub_resource() {
    let server = Server::start().await;
    let client = &server.client;
    client.put("/bkt/k", "x").await.ok();
    assert_eq!(client.get("/bkt?list-type=2&metadata=true&fetch-owner=true&delimiter=&prefix=").await.ok().elements("Key"), ["k"]);
    assert_eq!(client.get("/bkt/k?cache-buster=1").await.ok().text(), "x");
}

#[tokio::test]
async fn rclone_sets_a_time_by_copying_onto_itself() {
    let server = Server::start().await;
    let client = &server.client;
    client.call("PUT", "/bkt/k").header("x-amz-meta-mtime", "1.5").body("x").send().await.ok();
    let copy = client.call("PUT", "/bkt/k").header("x-amz-copy-source", "bkt/k").header("x-amz-metadata-directive", "REPLACE");
    copy.header("x-amz-meta-mtime", "2.5").header("content-type", "text/plain").send().await.ok();
    let head = client.call("HEAD", "/bkt/k").header("accept-encoding", "gzip").send().await.ok();
    assert_eq!((head.header("x-amz-meta-mtime"), head.header("etag")), (Some("2.5"), Some(&*etag(b"x"))));
    assert_eq!(head.header("content-encoding"), None);
}

#[tokio::test]
async fn trino_and_spark_keep_folders_and_read_from_the_end() {
    let server = Server::start().await;
    let client = &server.client;
    client.put("/bkt/dir/", "").await.ok();
    client.put("/bkt/dir/file", "0123456789").await.ok();
    let folder = client.call("GET", "/bkt/dir/").header("range", "bytes=-8").send().await;
    assert_eq!((folder.status, folder.header("content-length")), (200, Some("0")));
    assert_eq!(client.call("GET", "/bkt/dir/file").header("range", "bytes=-4").send().await.text(), "6789");
    assert_eq!(client.get("/bkt?prefix=dir/&delimiter=/").await.ok().elements("Key"), ["dir/", "dir/file"]);
    assert_eq!(client.delete("/bkt/dir/").await.status, 204);
    assert_eq!(client.get("/bkt?prefix=dir/").await.ok().elements("Key"), ["dir/file"]);
}

#[tokio::test]
async fn nix_gets_what_it_stored_with_its_own_encoding() {
    let server = Server::start().await;
    let client = &server.client;
    let put =
        client.call("PUT", "/bkt/nar%2Fa%21b.narinfo").header("content-encoding", "xz").payload("UNSIGNED-PAYLOAD").body("compressed");
    put.send().await.ok();
    let got = client.call("GET", "/bkt/nar/a!b.narinfo").header("accept-encoding", "zstd, br, gzip, deflate").send().await.ok();
    assert_eq!((got.text().as_str(), got.header("content-encoding")), ("compressed", Some("xz")));
    client.get("/bkt/missing.narinfo").await.is(404, "NoSuchKey");
}

#[tokio::test]
async fn sdks_of_java_and_cplusplus_encode_twice() {
    let server = Server::start().await;
    let client = &server.client;
    for (sent, stored) in [("aws-chunked", None), ("aws-chunked,gzip", Some("gzip")), ("gzip, aws-chunked", Some("gzip"))] {
        let put = client.call("PUT", "/bkt/k").payload("STREAMING-UNSIGNED-PAYLOAD-TRAILER").header("content-encoding", sent);
        put.header("x-amz-decoded-content-length", "1").body("1\r\nx\r\n0\r\n\r\n").send().await.ok();
        assert_eq!(client.head("/bkt/k").await.header("content-encoding"), stored, "{sent}");
    }
    let put = client.call("PUT", "/bkt/k").payload("UNSIGNED-PAYLOAD").header("content-encoding", "aws-chunked").body("x");
    put.send().await.is(400, "InvalidRequest");
}

#[tokio::test]
async fn go_names_its_checksum_when_an_upload_begins_and_reads_part_one_for_the_count() {
    let server = Server::start().await;
    let client = &server.client;
    let created = client.call("POST", "/bkt/k?uploads").header("x-amz-sdk-checksum-algorithm", "CRC32");
    let id = created.header("x-amz-checksum-algorithm", "CRC32").send().await.ok().element("UploadId").unwrap();
    let crc = checksum_of(ChecksumAlgorithm::Crc32, b"part").to_base64();
    let part = client.call("PUT", &format!("/bkt/k?partNumber=1&uploadId={id}")).header("x-amz-checksum-crc32", &crc).body("part");
    let etag = part.send().await.ok().header("etag").unwrap().replace('"', "");
    let list = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag><ChecksumCRC32>{crc}</ChecksumCRC32></Part></CompleteMultipartUpload>"
    );
    client.post(&format!("/bkt/k?uploadId={id}"), list).await.ok();
    let got = client.call("GET", "/bkt/k?partNumber=1").header("x-amz-checksum-mode", "ENABLED").send().await;
    assert_eq!((got.status, got.header("x-amz-mp-parts-count"), got.header("content-range")), (206, Some("1"), Some("bytes 0-3/4")));
    assert_eq!(got.header("x-amz-checksum-crc32"), Some(&*crc));
}
