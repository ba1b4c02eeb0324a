//! Objects: what is put comes back, in whole and in pieces, under all conditions.

use base64::{Engine, engine::general_purpose::STANDARD};
use garage_api_common::checksum::{ChecksumAlgorithm, checksum_of};

use crate::{
    client::{Signed, etag, md5_hex},
    server::Server,
};

fn pattern(len_bytes: usize) -> Vec<u8> {
    (0..len_bytes).map(|index| (index / 7 + index) as u8).collect()
}

#[tokio::test]
async fn an_object_comes_back_as_it_was_put() {
    let server = Server::start().await;
    let client = &server.client;
    for len_bytes in [0, 1, 4096, 4097, 300_000, 1_500_000] {
        let body = pattern(len_bytes);
        let put = client.put("/bkt/k", &body).await.ok();
        assert_eq!(put.header("etag"), Some(&*etag(&body)));
        let crc = checksum_of(ChecksumAlgorithm::Crc64Nvme, &body).to_base64();
        assert_eq!(put.header("x-amz-checksum-crc64nvme"), Some(&*crc));
        assert_eq!(put.header("x-amz-checksum-type"), Some("FULL_OBJECT"));
        let got = client.get("/bkt/k").await.ok();
        assert!(got.body == body, "{len_bytes}");
        assert_eq!(got.header("content-length"), Some(&*len_bytes.to_string()));
        assert_eq!(got.header("etag"), put.header("etag"));
        assert_eq!(got.header("content-type"), Some("binary/octet-stream"));
        assert_eq!(got.header("accept-ranges"), Some("bytes"));
        assert!(got.header("last-modified").is_some_and(|date| date.ends_with(" GMT")));
        assert!(got.header("x-amz-request-id").is_some() && got.header("x-amz-id-2").is_some());
        let head = client.head("/bkt/k").await.ok();
        assert_eq!((head.header("content-length"), head.body.len()), (got.header("content-length"), 0));
        assert_eq!(head.header("etag"), put.header("etag"));
    }
}

#[tokio::test]
async fn keys_are_any_text() {
    let server = Server::start().await;
    let client = &server.client;
    let longest = format!("/bkt/{}", "k".repeat(1024));
    for target in ["/bkt//x", "/bkt/a%20b%2Bc", "/bkt/%C3%A4/../.%2F", "/bkt/dir/", "/bkt/a%00b%0Dc", "/bkt/!%27()*", &longest] {
        client.put(target, target).await.ok();
        assert_eq!(client.get(target).await.ok().body, target.as_bytes(), "{target}");
    }
    client.put("/bkt/a+b", "plus").await.ok();
    assert_eq!(client.get("/bkt/a%2Bb").await.ok().text(), "plus");
    client.get("/bkt/a%20b").await.is(404, "NoSuchKey");
    client.put(&format!("/bkt/{}", "k".repeat(1025)), "").await.is(400, "KeyTooLongError");
    client.put("/bkt/%ff", "").await.is(400, "InvalidURI");
}

#[tokio::test]
async fn buckets_have_host_names() {
    let server = Server::start().await;
    let client = &server.client;
    client.put("/bkt/k", "by path").await.ok();
    let by_host = |target: &str| client.call("GET", target).header("host", "Bkt.s3.example.org:3900");
    assert_eq!(by_host("/k").send().await.ok().text(), "by path");
    assert_eq!(by_host("/").send().await.ok().element("Name").as_deref(), Some("bkt"));
    assert!(client.call("GET", "/").header("host", "s3.example.org").send().await.ok().text().contains("ListAllMyBucketsResult"));
}

#[tokio::test]
async fn metadata_come_back() {
    let server = Server::start().await;
    let client = &server.client;
    let put = client
        .call("PUT", "/bkt/k")
        .body("x")
        .header("content-type", "text/plain")
        .header("x-amz-meta-Mtime", "12")
        .header("cache-control", "no-store");
    put.header("x-amz-storage-class", "STANDARD_IA").header("x-amz-acl", "private").header("x-amz-meta-u", "ä").send().await.ok();
    for method in ["GET", "HEAD"] {
        let got = client.call(method, "/bkt/k").send().await.ok();
        assert_eq!(got.header("content-type"), Some("text/plain"));
        assert_eq!(got.header("x-amz-meta-mtime"), Some("12"));
        assert_eq!(got.header("x-amz-meta-u"), Some("=?UTF-8?B?w6Q=?="));
        assert_eq!(got.header("x-amz-storage-class"), Some("STANDARD_IA"));
        assert_eq!(got.header("cache-control"), Some("no-store"));
    }
    client.call("PUT", "/bkt/coded").header("content-encoding", "deflate, gzip").body("x").send().await.ok();
    assert_eq!(client.head("/bkt/coded").await.ok().header("content-encoding"), Some("deflate, gzip"), "as it was sent");
    let overridden =
        client.get("/bkt/k?response-content-type=a%2Fb&response-content-disposition=attachment%3B%20filename%3D%22%C3%A4%22").await.ok();
    assert_eq!(overridden.header("content-type"), Some("a/b"));
    assert_eq!(overridden.header("content-disposition"), Some("attachment; filename=\"ä\""));
}

#[tokio::test]
async fn ranges_select_bytes() {
    let server = Server::start().await;
    let client = &server.client;
    for len_bytes in [1000usize, 700_000] {
        let body = pattern(len_bytes);
        client.put("/bkt/k", &body).await.ok();
        let last = len_bytes - 1;
        for (range, start, end) in [
            ("bytes=0-9".to_owned(), 0, 10),
            ("bytes=-5".to_owned(), len_bytes - 5, len_bytes),
            (format!("bytes=3-{last}"), 3, len_bytes),
            (format!("bytes={}-", len_bytes / 2), len_bytes / 2, len_bytes),
            ("bytes=990-99999999".to_owned(), 990, len_bytes),
        ] {
            let got = client.call("GET", "/bkt/k").header("range", &range).header("x-amz-checksum-mode", "ENABLED").send().await;
            assert_eq!(got.status, 206);
            assert!(got.body == body[start..end], "{range}");
            assert_eq!(got.header("content-range"), Some(&*format!("bytes {start}-{}/{len_bytes}", end - 1)));
            assert!(!got.headers.keys().any(|name| name.starts_with("x-amz-checksum-")), "a piece has no checksum");
            let head = client.call("HEAD", "/bkt/k").header("range", &range).send().await;
            assert_eq!((head.status, head.header("content-range")), (206, got.header("content-range")));
        }
        for ignored in ["bytes=0-1,3-4", "items=0-1", "bytes=9-3", "bytes=x"] {
            assert!(client.call("GET", "/bkt/k").header("range", ignored).send().await.ok().body == body, "{ignored}");
        }
        let past = client.call("GET", "/bkt/k").header("range", format!("bytes={len_bytes}-")).send().await;
        past.is(416, "InvalidRange");
        assert_eq!(past.header("content-range"), Some(&*format!("bytes */{len_bytes}")));
        assert_eq!(past.element("ActualObjectSize"), Some(len_bytes.to_string()));
    }
    client.put("/bkt/empty", "").await.ok();
    client.call("GET", "/bkt/empty").header("range", "bytes=0-").send().await.is(416, "InvalidRange");
    assert_eq!(client.call("GET", "/bkt/empty").header("range", "bytes=-3").send().await.status, 200);
}

#[tokio::test]
async fn reads_have_conditions() {
    let server = Server::start().await;
    let client = &server.client;
    let put = client.call("PUT", "/bkt/k").body("content").header("cache-control", "max-age=3").send().await.ok();
    let etag = put.header("etag").unwrap();
    let (past, future) = ("Fri, 01 Jan 2021 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT");
    for (headers, status) in [
        (&[("if-match", etag)][..], 200),
        (&[("if-match", "\"other\"")], 412),
        (&[("if-match", "*")], 200),
        (&[("if-none-match", etag)], 304),
        (&[("if-none-match", "\"other\"")], 200),
        (&[("if-modified-since", past)], 200),
        (&[("if-unmodified-since", past)], 412),
        (&[("if-match", etag), ("if-unmodified-since", past)], 200),
        (&[("if-none-match", "\"other\""), ("if-modified-since", past)], 200),
        (&[("if-match", etag), ("if-none-match", etag)], 304),
        (&[("if-modified-since", future)], 200),
        (&[("if-modified-since", "nonsense")], 200),
        (&[("if-none-match", etag), ("range", "bytes=99-")], 304),
        (&[("range", "bytes=0-1"), ("if-range", etag)], 206),
        (&[("range", "bytes=0-1"), ("if-range", "\"other\"")], 200),
    ] {
        for method in ["GET", "HEAD"] {
            let call = headers.iter().fold(client.call(method, "/bkt/k"), |call, (name, value)| call.header(name, value));
            let got = call.send().await;
            assert_eq!(got.status, status, "{headers:?}");
            if status == 304 {
                assert_eq!((got.body.len(), got.header("etag"), got.header("cache-control")), (0, Some(etag), Some("max-age=3")));
            }
        }
    }
    let last_modified = client.head("/bkt/k").await.header("last-modified").unwrap().to_owned();
    assert_eq!(client.call("GET", "/bkt/k").header("if-modified-since", &last_modified).send().await.status, 304);
    assert_eq!(client.call("GET", "/bkt/k").header("if-unmodified-since", &last_modified).send().await.status, 200);
}

#[tokio::test]
async fn writes_have_conditions() {
    let server = Server::start().await;
    let client = &server.client;
    let put = |name: &str, value: &str, body: &str| client.call("PUT", "/bkt/k").header(name, value).body(body).send();
    put("if-match", "\"x\"", "none yet").await.is(404, "NoSuchKey");
    put("if-none-match", "*", "first").await.ok();
    let beaten = put("if-none-match", "*", "second").await;
    beaten.is(412, "PreconditionFailed");
    assert_eq!(beaten.element("Condition").as_deref(), Some("If-None-Match"));
    put("if-match", "\"x\"", "second").await.is(412, "PreconditionFailed");
    put("if-match", &md5_hex(b"first"), "second").await.ok();
    put("if-match", &etag(b"second"), "third").await.ok();
    put("if-match", "*", "fourth").await.ok();
    put("if-none-match", "\"x\"", "fifth").await.is(501, "NotImplemented");
    put("if-modified-since", "Fri, 01 Jan 2021 00:00:00 GMT", "fifth").await.is(501, "NotImplemented");
    assert_eq!(client.get("/bkt/k").await.text(), "fourth");
    let delete = |value: String| client.call("DELETE", "/bkt/k").header("if-match", value).send();
    delete("\"x\"".into()).await.is(412, "PreconditionFailed");
    assert_eq!(delete(etag(b"fourth")).await.status, 204);
    for value in ["*".to_owned(), etag(b"fourth")] {
        delete(value).await.is(404, "NoSuchKey");
    }
    client.get("/bkt/k").await.is(404, "NoSuchKey");
}

#[tokio::test]
async fn a_refusal_comes_before_the_body_is_asked_for() {
    let server = Server::start().await;
    let client = &server.client;
    client.put("/bkt/k", "there").await.ok();
    let put = client.call("PUT", "/bkt/k").header("expect", "100-continue").header("if-none-match", "*").body("new").send().await;
    put.is(412, "PreconditionFailed");
    assert!(!put.continued);
    let missing = client.call("PUT", "/nowhere/k").header("expect", "100-continue").body("new").send().await;
    missing.is(404, "NoSuchBucket");
    assert!(!missing.continued);
    let id = "0".repeat(64);
    let part = client.call("PUT", &format!("/bkt/k?partNumber=1&uploadId={id}")).header("expect", "100-continue").body("new").send().await;
    part.is(404, "NoSuchUpload");
    assert!(!part.continued);
    let good = client.call("PUT", "/bkt/k").header("expect", "100-continue").body("new").send().await.ok();
    assert!(good.continued);
}

#[tokio::test]
async fn checksums_are_verified_kept_and_shown_on_demand() {
    let server = Server::start().await;
    let client = &server.client;
    for algorithm in ChecksumAlgorithm::ALL {
        let value = checksum_of(algorithm, b"content").to_base64();
        let header = algorithm.header();
        let put = client.call("PUT", "/bkt/k").header(header, &value).header("x-amz-sdk-checksum-algorithm", algorithm.name());
        assert_eq!(put.body("content").send().await.ok().header(header), Some(&*value));
        let got = client.call("GET", "/bkt/k").header("x-amz-checksum-mode", "ENABLED").send().await.ok();
        assert_eq!((got.header(header), got.header("x-amz-checksum-type")), (Some(&*value), Some("FULL_OBJECT")));
        assert_eq!(client.get("/bkt/k").await.header(header), None);
        client.call("PUT", "/bkt/bad").header(header, &value).body("other").send().await.is(400, "BadDigest");
        client.call("PUT", "/bkt/bad").header(header, "AA==").body("other").send().await.is(400, "InvalidRequest");
    }
    client.get("/bkt/bad").await.is(404, "NoSuchKey");
    let md5 = |bytes: &[u8]| STANDARD.encode(hex::decode(md5_hex(bytes)).unwrap());
    client.call("PUT", "/bkt/k").header("content-md5", md5(b"content")).body("content").send().await.ok();
    client.call("PUT", "/bkt/k").header("content-md5", md5(b"other")).body("content").send().await.is(400, "BadDigest");
    client.call("PUT", "/bkt/k").header("content-md5", "x").body("content").send().await.is(400, "InvalidDigest");
    client.call("PUT", "/bkt/k").header("x-amz-checksum-sha512", "x").body("content").send().await.is(400, "InvalidRequest");
    client.call("PUT", "/bkt/k").header("x-amz-checksum-blake3", "x").body("content").send().await.is(400, "InvalidRequest");
}

#[tokio::test]
async fn a_checksum_may_come_behind_the_body() {
    let server = Server::start().await;
    let client = &server.client;
    for algorithm in ChecksumAlgorithm::ALL {
        let header = algorithm.header();
        let put = |value: String| {
            let call = client.call("PUT", "/bkt/k").payload("STREAMING-UNSIGNED-PAYLOAD-TRAILER").header("x-amz-trailer", header);
            let call = call.header("x-amz-decoded-content-length", "7").header("content-encoding", "aws-chunked");
            call.body(format!("7\r\ncontent\r\n0\r\n{header}:{value}\r\n\r\n")).send()
        };
        put(checksum_of(algorithm, b"other").to_base64()).await.is(400, "BadDigest");
        client.get("/bkt/k").await.is(404, "NoSuchKey");
        let value = checksum_of(algorithm, b"content").to_base64();
        assert_eq!(put(value.clone()).await.ok().header(header), Some(&*value));
        let got = client.call("GET", "/bkt/k").header("x-amz-checksum-mode", "ENABLED").send().await.ok();
        assert_eq!((got.header(header), got.header("content-encoding"), got.text().as_str()), (Some(&*value), None, "content"));
        client.delete("/bkt/k").await;
    }
}

#[tokio::test]
async fn one_checksum_at_a_time() {
    let server = Server::start().await;
    let client = &server.client;
    let put = || client.call("PUT", "/bkt/k").body("123456789");
    put().header("x-amz-checksum-crc32", "y/Q5Jg==").header("x-amz-checksum-crc32c", "4waSgw==").send().await.is(400, "InvalidRequest");
    put().header("x-amz-sdk-checksum-algorithm", "CRC32").send().await.is(400, "InvalidRequest");
    put()
        .header("x-amz-sdk-checksum-algorithm", "CRC32C")
        .header("x-amz-checksum-crc32", "y/Q5Jg==")
        .send()
        .await
        .is(400, "InvalidRequest");
    put().header("x-amz-trailer", "x-amz-checksum-crc32").send().await.is(400, "InvalidRequest");
    client.get("/bkt/k").await.is(404, "NoSuchKey");
    put().header("x-amz-checksum-crc32", "y/Q5Jg==").header("content-md5", "JfnnlDI7RTiF9RgfG2JNCw==").send().await.ok();
}

#[tokio::test]
async fn values_in_other_alphabets_come_back_as_encoded_words() {
    let server = Server::start().await;
    let client = &server.client;
    let put = client.call("PUT", "/bkt/k").header("x-amz-meta-raw", "grün").header("x-amz-meta-word", "=?UTF-8?Q?gr=C3=BCn?=");
    let put = put.header("x-amz-meta-latin", b"gr\xfcn").header("x-amz-meta-twice", "a").header("x-amz-meta-twice", "b");
    put.header("content-disposition", "attachment; filename=\"ü\"").send().await.ok();
    let head = client.head("/bkt/k").await.ok();
    assert_eq!(head.header("x-amz-meta-raw"), Some("=?UTF-8?B?Z3LDvG4=?="));
    assert_eq!(head.header("x-amz-meta-word"), Some("=?UTF-8?B?Z3LDvG4=?="));
    assert_eq!((head.header("x-amz-meta-latin"), head.header("x-amz-missing-meta")), (None, Some("1")));
    assert_eq!(head.header("x-amz-meta-twice"), Some("a,b"));
    assert_eq!(head.header("content-disposition"), Some("attachment; filename=\"ü\""));
}

#[tokio::test]
async fn presigned_requests_need_no_headers() {
    let server = Server::start().await;
    let client = &server.client;
    client
        .call("PUT", "/bkt/k?x-amz-meta-a=1&x-amz-storage-class=STANDARD_IA")
        .body("presigned")
        .signed(Signed::Presigned(60, 0))
        .send()
        .await
        .ok();
    let got = client.call("GET", "/bkt/k").signed(Signed::Presigned(60, 0)).send().await.ok();
    assert_eq!((got.text().as_str(), got.header("x-amz-meta-a")), ("presigned", Some("1")));
    assert_eq!(got.header("x-amz-storage-class"), Some("STANDARD_IA"));
    client.call("GET", "/bkt/k").signed(Signed::Presigned(10, 60)).send().await.is(403, "AccessDenied");
    client.call("GET", "/bkt/k").signed(Signed::Presigned(604_801, 0)).send().await.is(400, "AuthorizationQueryParametersError");
}

#[tokio::test]
async fn deletes_need_nothing_to_be_there() {
    let server = Server::start().await;
    let client = &server.client;
    client.put("/bkt/k", "x").await.ok();
    for _ in 0..2 {
        let deleted = client.delete("/bkt/k").await;
        assert_eq!((deleted.status, deleted.body.len()), (204, 0));
    }
    client.get("/bkt/k").await.is(404, "NoSuchKey");
    client.put("/bkt/k", "x").await.ok();
    client.get("/bkt/k?versionId=nonsense").await.is(400, "InvalidArgument");
    client.get(&format!("/bkt/k?versionId={}", "v".repeat(32))).await.is(404, "NoSuchVersion");
    client.get("/bkt/k?versionId=null").await.ok();
    let other = client.delete(&format!("/bkt/k?versionId={}", "v".repeat(32))).await;
    assert_eq!(other.status, 204);
    client.head("/bkt/k").await.ok();
    let deleted = client.delete("/bkt/k?versionId=null").await;
    assert_eq!((deleted.status, deleted.header("x-amz-version-id")), (204, Some("null")));
    assert_eq!(client.head("/bkt/k").await.status, 404);
}

#[tokio::test]
async fn many_objects_are_deleted_at_once() {
    let server = Server::start().await;
    let client = &server.client;
    for key in ["a", "b", "c%0D", "kept"] {
        client.put(&format!("/bkt/{key}"), "x").await.ok();
    }
    let long = "k".repeat(1025);
    let body = format!(
        "<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Object><Key>a</Key></Object><Object><Key>a</Key></Object>\
         <Object><Key>c&#13;</Key></Object><Object><Key>missing</Key></Object><Object><Key>kept</Key><ETag>\"other\"</ETag></Object>\
         <Object><Key>kept</Key><VersionId>nonsense</VersionId></Object><Object><Key>{long}</Key></Object></Delete>"
    );
    let answer = client.post("/bkt?delete", &body).await.ok();
    assert_eq!(answer.elements("Deleted").len(), 4);
    assert_eq!(answer.elements("Code"), ["PreconditionFailed", "NoSuchVersion", "KeyTooLongError"]);
    let quiet = "<Delete><Quiet>true</Quiet><Object><Key>b</Key></Object></Delete>";
    assert!(client.post("/bkt?delete", quiet).await.ok().elements("Deleted").is_empty());
    assert_eq!(client.get("/bkt").await.ok().elements("Key"), ["kept"]);
    client.post("/bkt?delete", "<Delete><Quiet>perhaps</Quiet><Object><Key>kept</Key></Object></Delete>").await.is(400, "MalformedXML");
    let loud = "<Delete><Quiet>false</Quiet><Object><Key>b</Key></Object></Delete>";
    assert_eq!(client.post("/bkt?delete", loud).await.ok().elements("Deleted").len(), 1);
    assert_eq!(client.get("/bkt").await.ok().elements("Key"), ["kept"]);
    let many = format!("<Delete>{}</Delete>", "<Object><Key>k</Key></Object>".repeat(1001));
    client.post("/bkt?delete", &many).await.is(400, "MalformedXML");
    client.post("/bkt?delete", "<Delete></Delete>").await.is(400, "MalformedXML");
    client.post("/bkt?delete", "<Delete><Object>").await.is(400, "MalformedXML");
    client.post("/bkt?delete", "").await.is(400, "MissingRequestBodyError");
    client.call("POST", "/bkt?delete").body(quiet).payload("UNSIGNED-PAYLOAD").send().await.is(400, "InvalidRequest");
    let most = (0..1000).map(|index| format!("<Object><Key>k{index}</Key></Object>")).collect::<String>();
    let answer = client.post("/bkt?delete", format!("<Delete>{most}</Delete>")).await.ok();
    assert_eq!(answer.elements("Deleted").len(), 1000);
}

#[tokio::test]
async fn attributes_are_what_was_asked_for() {
    let server = Server::start().await;
    let client = &server.client;
    client.put("/bkt/k", "content").await.ok();
    let attributes = |names: &str| client.call("GET", "/bkt/k?attributes").header("x-amz-object-attributes", names).send();
    let all = attributes("ETag,Checksum,ObjectParts,StorageClass,ObjectSize").await.ok();
    assert_eq!(all.element("ETag"), Some(md5_hex(b"content")));
    assert_eq!(all.element("ObjectSize").as_deref(), Some("7"));
    assert_eq!(all.element("StorageClass").as_deref(), Some("STANDARD"));
    assert_eq!(all.element("ChecksumType").as_deref(), Some("FULL_OBJECT"));
    assert!(!all.text().contains("ObjectParts") && all.header("last-modified").is_some());
    let one = attributes("ObjectSize").await.ok();
    assert!(!one.text().contains("ETag"));
    attributes("Nonsense").await.is(400, "InvalidArgument");
    client.get("/bkt/k?attributes").await.is(400, "InvalidRequest");
}

#[tokio::test]
async fn an_object_has_no_tags_locks_or_grants() {
    let server = Server::start().await;
    let client = &server.client;
    client.put("/bkt/k", "content").await.ok();
    assert!(client.get("/bkt/k?tagging").await.ok().text().contains("<TagSet></TagSet>"));
    assert_eq!(client.delete("/bkt/k?tagging").await.status, 204);
    client.put("/bkt/k?tagging", "<Tagging/>").await.is(400, "MalformedXML");
    client.get("/bkt/k?retention").await.is(400, "InvalidRequest");
    let acl = client.get("/bkt/k?acl").await.ok();
    assert_eq!(acl.element("Permission").as_deref(), Some("FULL_CONTROL"));
    assert!(acl.text().contains("xsi:type=\"CanonicalUser\""));
    client.call("PUT", "/bkt/k?acl").header("x-amz-acl", "private").send().await.ok();
    client.call("PUT", "/bkt/k?acl").header("x-amz-acl", "public-read").send().await.is(400, "AccessControlListNotSupported");
    client.get("/bkt/none?tagging").await.is(404, "NoSuchKey");
}
