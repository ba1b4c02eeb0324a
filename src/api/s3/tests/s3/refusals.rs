//! What is refused, with its status and code, and that nothing becomes visible then.

use garage_model::rows::bucket::Quotas;

use crate::{
    client::{Client, Signed},
    server::Server,
};

#[tokio::test]
async fn who_can_t_be_authenticated_is_refused() {
    let server = Server::start().await;
    let client = &server.client;
    let wrong = Client { address: client.address, key: client.key.clone(), secret: "0".repeat(64) };
    wrong.get("/bkt/k").await.is(403, "SignatureDoesNotMatch");
    let unknown = Client { address: client.address, key: "GK000000000000000000000000".into(), secret: "0".repeat(64) };
    unknown.get("/bkt/k").await.is(403, "InvalidAccessKeyId");
    let strange = Client { address: client.address, key: "x".into(), secret: "0".repeat(64) };
    strange.get("/bkt/k").await.is(403, "InvalidAccessKeyId");
    client.call("GET", "/bkt").signed(Signed::No).send().await.is(403, "AccessDenied");
    client.call("GET", "/").signed(Signed::No).send().await.is(403, "AccessDenied");
    client.call("GET", "/nowhere/k").signed(Signed::No).send().await.is(404, "NoSuchBucket");
    client.call("GET", "/bkt").ago(3600).send().await.is(403, "RequestTimeTooSkewed");
    client.call("GET", "/bkt").ago(-3600).send().await.is(403, "RequestTimeTooSkewed");
    client.call("PUT", "/bkt/k").unsigned_header("x-amz-meta-a", "1").send().await.is(403, "AccessDenied");
    client.call("GET", "/bkt").header("x-amz-security-token", "t").send().await.is(400, "InvalidToken");
    client.call("GET", "/bkt").signed(Signed::No).header("authorization", "AWS a:b").send().await.is(400, "InvalidRequest");
    client
        .call("GET", "/bkt")
        .signed(Signed::No)
        .header("authorization", "AWS4-HMAC-SHA256 x")
        .send()
        .await
        .is(400, "AuthorizationHeaderMalformed");
}

#[tokio::test]
async fn a_body_that_is_not_as_announced_stores_nothing() {
    let server = Server::start().await;
    let client = &server.client;
    let put = |payload: &str| client.call("PUT", "/bkt/bad").body("content").payload(payload);
    put(&"0".repeat(64)).send().await.is(400, "XAmzContentSHA256Mismatch");
    put("nonsense").send().await.is(400, "InvalidArgument");
    put("UNSIGNED-PAYLOAD").unframed().send().await.is(411, "MissingContentLength");
    let chunked = |body: &'static str, length: &str| {
        let call = client.call("PUT", "/bkt/bad").payload("STREAMING-UNSIGNED-PAYLOAD-TRAILER").body(body);
        call.header("x-amz-decoded-content-length", length)
    };
    chunked("7\r\ncontent\r\n0\r\n\r\n", "8").send().await.is(400, "IncompleteBody");
    chunked("7\r\ncontent\r\n0\r\n\r\n", "6").send().await.is(400, "IncompleteBody");
    chunked("7\r\ncontent\r\n0\r\n\r\n", "seven").send().await.is(411, "MissingContentLength");
    let trailer = |value: &'static str| chunked(value, "7").header("x-amz-trailer", "x-amz-checksum-crc32");
    trailer("7\r\ncontent\r\n0\r\n\r\n").send().await.is(400, "MalformedTrailerError");
    trailer("7\r\ncontent\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n").send().await.is(400, "BadDigest");
    let call = client.call("PUT", "/bkt/bad").payload("STREAMING-AWS4-HMAC-SHA256-PAYLOAD").header("x-amz-decoded-content-length", "7");
    let signed = call.body(format!("7;chunk-signature={}\r\ncontent\r\n0;chunk-signature={0}\r\n\r\n", "0".repeat(64)));
    signed.send().await.is(403, "SignatureDoesNotMatch");
    client
        .call("PUT", "/bkt/bad")
        .header("content-length", (6u64 << 30).to_string())
        .payload("UNSIGNED-PAYLOAD")
        .send()
        .await
        .is(400, "EntityTooLarge");
    client.get("/bkt/bad").await.is(404, "NoSuchKey");
    chunked("7\r\ncontent\r\n0\r\n\r\n", "7").send().await.ok();
    assert_eq!(client.get("/bkt/bad").await.ok().text(), "content");
}

#[tokio::test]
async fn what_is_not_implemented_is_never_ignored() {
    let server = Server::start().await;
    let client = &server.client;
    for (name, value) in [
        ("x-amz-server-side-encryption", "aws:kms"),
        ("x-amz-server-side-encryption-aws-kms-key-id", "x"),
        ("x-amz-object-lock-event-hold", "ON"),
        ("x-amz-write-offset-bytes", "0"),
        ("x-amz-mfa", "1 2"),
        ("x-amz-nobody-knows", "x"),
    ] {
        client.call("PUT", "/bkt/k").header(name, value).body("x").send().await.is(501, "NotImplemented");
        client.call("POST", "/bkt/k?uploads").header(name, value).send().await.is(501, "NotImplemented");
    }
    let presigned = client.call("PUT", "/bkt/k?x-amz-tagging=aws:a%3Db").signed(Signed::Presigned(60, 0)).body("x").send().await;
    presigned.is(400, "InvalidTag");
    client.call("PUT", "/bkt/k").header("content-range", "bytes 0-0/1").body("x").send().await.is(501, "NotImplemented");
    let part = format!("/bkt/k?partNumber=1&uploadId={}", "0".repeat(64));
    client.call("PUT", &part).header("if-none-match", "*").body("x").send().await.is(501, "NotImplemented");
    client.call("POST", "/bkt/k?uploads").header("if-match", "\"x\"").send().await.is(501, "NotImplemented");
    client.call("PUT", "/bkt/k?x-amz-nobody-knows=x").signed(Signed::Presigned(60, 0)).body("x").send().await.is(501, "NotImplemented");
    client.call("GET", "/bkt/k").header("x-amz-nobody-knows", "x").send().await.is(501, "NotImplemented");
    let ranged = client.call("PUT", "/bkt/k").header("x-amz-copy-source", "bkt/k").header("x-amz-copy-source-range", "bytes=0-1");
    ranged.send().await.is(501, "NotImplemented");
    client.call("PUT", "/bkt/k").header("x-amz-acl", "public-read").body("x").send().await.is(400, "AccessControlListNotSupported");
    client.call("PUT", "/bkt/k").header("x-amz-storage-class", "GLACIER").body("x").send().await.is(400, "InvalidStorageClass");
    client.call("PUT", "/bkt/k").header("x-amz-meta-a", "v".repeat(2048)).body("x").send().await.is(400, "MetadataTooLarge");
    client.put("/bkt/k?append", "x").await.is(501, "NotImplemented");
    client.get("/bkt/k").await.is(404, "NoSuchKey");
    client.get("/bkt?acl&policy").await.is(400, "InvalidArgument");
    client.get("/bkt/k?policy").await.is(400, "InvalidArgument");
    let method = client.call("PATCH", "/bkt/k").send().await;
    method.is(405, "MethodNotAllowed");
    assert_eq!(method.header("allow"), Some("GET, HEAD, PUT, DELETE"));
    let head = client.head("/bkt?acl").await;
    assert_eq!((head.status, head.header("allow"), head.body.len()), (405, Some("GET, PUT"), 0));
}

#[tokio::test]
async fn a_header_of_another_call_is_refused_not_dropped() {
    let server = Server::start().await;
    let client = &server.client;
    client.put("/bkt/k", "content").await.ok();
    let etag = client.head("/bkt/k").await.ok().header("etag").unwrap().to_owned();
    for method in ["GET", "DELETE"] {
        let refused = client.call(method, "/bkt/k").header("x-amz-copy-source", "bkt/k").send().await;
        refused.is(400, "InvalidArgument");
        assert_eq!(refused.element("ArgumentName").as_deref(), Some("x-amz-copy-source"), "{method}");
    }
    assert_eq!(client.call("HEAD", "/bkt/k").header("x-amz-copy-source", "bkt/k").send().await.status, 400);
    client.call("POST", "/bkt/k?uploads").header("x-amz-copy-source", "bkt/k").send().await.is(400, "InvalidArgument");
    let put = |name: &'static str, value: &str| client.call("PUT", "/bkt/k").header(name, value).body("other").send();
    put("x-amz-copy-source-if-match", "\"x\"").await.is(400, "InvalidArgument");
    put("x-amz-copy-source-range", "bytes=0-1").await.is(400, "InvalidArgument");
    let secret = put("x-amz-copy-source-server-side-encryption-customer-key", "c2VjcmV0").await;
    secret.is(400, "InvalidArgument");
    assert!(!secret.text().contains("c2VjcmV0"), "a key is not told");
    assert_eq!(client.head("/bkt/k").await.ok().header("etag"), Some(&*etag));

    let id = client.post("/bkt/k?uploads", "").await.ok().element("UploadId").unwrap();
    let part = format!("/bkt/k?partNumber=1&uploadId={id}");
    for (name, value) in [("x-amz-meta-a", "1"), ("x-amz-metadata-directive", "REPLACE"), ("x-amz-tagging-directive", "COPY")] {
        for copies in [false, true] {
            let call = client.call("PUT", &part).header(name, value);
            let refused = if copies { call.header("x-amz-copy-source", "bkt/k").send().await } else { call.body("x").send().await };
            refused.is(400, "InvalidArgument");
            assert_eq!(
                (refused.element("ArgumentName").as_deref(), refused.element("ArgumentValue").as_deref()),
                (Some(name), Some(value))
            );
        }
    }
    assert!(client.get(&format!("/bkt/k?uploadId={id}")).await.ok().elements("PartNumber").is_empty());
}

#[tokio::test]
async fn documents_that_are_too_long_or_too_deep_are_refused_early() {
    let server = Server::start().await;
    let client = &server.client;
    let announced = |target: &str| {
        let call = client.call("POST", target).payload("UNSIGNED-PAYLOAD").header("content-length", (100u64 << 20).to_string());
        call.header("content-md5", "1B2M2Y8AsgTpgAmY7PhCfg==").header("expect", "100-continue").send()
    };
    for target in ["/bkt?delete".to_owned(), format!("/bkt/k?uploadId={}", "0".repeat(64))] {
        let refused = announced(&target).await;
        refused.is(400, "MaxMessageLengthExceeded");
        assert!(!refused.continued, "not a byte of it is asked for");
    }
    client.put("/bkt/k", "x").await.ok();
    for target in
        ["/bkt?lifecycle", "/bkt?tagging", "/bkt/k?tagging", "/bkt?acl", "/bkt/k?acl", "/bkt?cors", "/bkt?website", "/bkt?object-lock"]
    {
        let put = client.call("PUT", target).payload("UNSIGNED-PAYLOAD").header("content-length", (100u64 << 20).to_string());
        let refused = put.header("content-md5", "1B2M2Y8AsgTpgAmY7PhCfg==").header("expect", "100-continue").send().await;
        refused.is(400, "MaxMessageLengthExceeded");
        assert!(!refused.continued, "not a byte of {target} is asked for");
    }
    let chunk = format!("{:x}\r\n{}\r\n", 1 << 20, " ".repeat(1 << 20));
    let endless = client.call("POST", "/bkt?delete").unframed().payload("UNSIGNED-PAYLOAD").header("transfer-encoding", "chunked");
    let endless = endless.header("content-md5", "1B2M2Y8AsgTpgAmY7PhCfg==").body(chunk.repeat(6));
    endless.send().await.is(400, "MaxMessageLengthExceeded");
    let deep = format!("<Delete>{}", "<Object>".repeat(100_000));
    client.post("/bkt?delete", deep).await.is(400, "MalformedXML");
    let laughs = "<!DOCTYPE l [<!ENTITY a \"ha\"><!ENTITY b \"&a;&a;&a;\">]><Delete><Object><Key>&b;</Key></Object></Delete>";
    client.post("/bkt?delete", laughs).await.is(400, "MalformedXML");
}

#[tokio::test]
async fn quotas_are_kept() {
    let server = Server::start().await;
    let client = &server.client;
    server.set_quotas(Quotas { size_max_bytes: Some(10), objects_max: None }).await;
    client.put("/bkt/k", "0123456789").await.ok();
    let over = client.call("PUT", "/bkt/l").header("expect", "100-continue").body("x".repeat(11)).send().await;
    over.is(403, "QuotaExceeded");
    assert!(!over.continued);
}

#[tokio::test]
async fn errors_name_what_they_are_about() {
    let server = Server::start().await;
    let client = &server.client;
    let missing = client.get("/bkt/a%3Cb").await;
    missing.is(404, "NoSuchKey");
    assert_eq!(missing.element("Key").as_deref(), Some("a&lt;b"));
    assert_eq!(missing.element("RequestId").as_deref(), missing.header("x-amz-request-id"));
    assert_eq!(missing.header("content-type"), Some("application/xml"));
    assert_eq!(client.get("/nowhere").await.element("BucketName").as_deref(), Some("nowhere"));
    let head = client.head("/bkt/none").await;
    assert_eq!((head.status, head.body.len()), (404, 0));
}
