//! Multipart uploads.

use garage_api_common::checksum::{ChecksumAlgorithm, checksum_of};

use crate::{
    client::{Answer, etag, md5_hex},
    server::Server,
};

const PART: usize = 5 << 20;

async fn create(server: &Server, headers: &[(&str, &str)]) -> String {
    let call = headers.iter().fold(server.client.call("POST", "/bkt/k?uploads"), |call, (name, value)| call.header(name, value));
    call.send().await.ok().element("UploadId").unwrap()
}
async fn part(server: &Server, id: &str, number: u32, body: &[u8]) -> Answer {
    server.client.put(&format!("/bkt/k?partNumber={number}&uploadId={id}"), body).await
}
fn list(parts: &[(u32, String)]) -> String {
    let part = |(number, etag): &(u32, String)| {
        format!("<Part><PartNumber>{number}</PartNumber><ETag>{}</ETag></Part>", etag.replace('"', "&quot;"))
    };
    format!("<CompleteMultipartUpload>{}</CompleteMultipartUpload>", parts.iter().map(part).collect::<String>())
}
async fn complete(server: &Server, id: &str, parts: &[(u32, String)]) -> Answer {
    server.client.post(&format!("/bkt/k?uploadId={id}"), list(parts)).await
}

#[tokio::test]
async fn parts_become_an_object() {
    let server = Server::start().await;
    let client = &server.client;
    let id = create(&server, &[("content-type", "text/plain"), ("x-amz-meta-a", "1")]).await;
    client.get("/bkt/k").await.is(404, "NoSuchKey");
    let (first, second) = (vec![b'a'; PART], b"b".to_vec());
    assert_eq!(part(&server, &id, 7, &second).await.ok().header("etag"), Some(&*etag(&second)));
    part(&server, &id, 3, b"replaced").await.ok();
    part(&server, &id, 3, &first).await.ok();
    part(&server, &id, 9, b"left out").await.ok();
    let parts = [(3, etag(&first)), (7, md5_hex(&second))];
    let done = complete(&server, &id, &parts).await.ok();
    let expected = "&quot;e5a8c5272b26fc10581a21089559b006-2&quot;";
    assert_eq!(done.element("ETag").as_deref(), Some(expected));
    assert!(done.element("Location").is_some_and(|location| location.ends_with("/bkt/k")), "{}", done.text());
    let whole = [first.clone(), second.clone()].concat();
    let crc = checksum_of(ChecksumAlgorithm::Crc64Nvme, &whole).to_base64();
    assert_eq!(done.element("ChecksumCRC64NVME"), Some(crc));
    let got = client.get("/bkt/k").await.ok();
    assert!(got.body == whole);
    assert_eq!((got.header("content-type"), got.header("x-amz-meta-a")), (Some("text/plain"), Some("1")));
    let again = complete(&server, &id, &parts).await.ok();
    assert_eq!(again.element("ETag").as_deref(), Some(expected));
    complete(&server, &id, &parts[..1]).await.is(404, "NoSuchUpload");
    let range = client.call("GET", "/bkt/k").header("range", "bytes=5242878-").send().await;
    assert_eq!(range.body, b"aab");
    check_part_reads(&server, &first, &second).await;
}

async fn check_part_reads(server: &Server, first: &[u8], second: &[u8]) {
    let client = &server.client;
    let got = client.call("GET", "/bkt/k?partNumber=3").header("x-amz-checksum-mode", "ENABLED").send().await;
    assert!((got.status, got.body == first) == (206, true));
    assert_eq!(got.header("x-amz-mp-parts-count"), Some("2"));
    let crc = checksum_of(ChecksumAlgorithm::Crc64Nvme, first).to_base64();
    assert_eq!(got.header("x-amz-checksum-crc64nvme"), Some(&*crc));
    let got = client.get("/bkt/k?partNumber=7").await;
    assert_eq!((got.status, &got.body[..]), (206, second));
    assert_eq!(got.header("content-range"), Some("bytes 5242880-5242880/5242881"));
    let head = client.head("/bkt/k?partNumber=7").await;
    assert_eq!((head.status, head.header("x-amz-mp-parts-count")), (206, Some("2")));
    client.get("/bkt/k?partNumber=8").await.is(416, "InvalidPartNumber");
    client.get("/bkt/k?partNumber=0").await.is(400, "InvalidArgument");
    client.call("GET", "/bkt/k?partNumber=1").header("range", "bytes=0-1").send().await.is(400, "InvalidRequest");
    client.put("/bkt/single", "x").await.ok();
    let single = client.get("/bkt/single?partNumber=1").await;
    assert_eq!((single.status, single.header("x-amz-mp-parts-count")), (206, None));
    client.get("/bkt/single?partNumber=2").await.is(416, "InvalidPartNumber");
    let attributes = client.call("GET", "/bkt/k?attributes").header("x-amz-object-attributes", "ObjectParts").send().await.ok();
    assert_eq!((attributes.element("PartsCount").as_deref(), attributes.elements("Part").len()), (Some("2"), 2));
}

#[tokio::test]
async fn what_is_wrong_leaves_the_upload_open() {
    let server = Server::start().await;
    let client = &server.client;
    let id = create(&server, &[]).await;
    let (a, b) = (part(&server, &id, 1, b"small").await.ok(), part(&server, &id, 2, b"last").await.ok());
    let (a, b) = (a.header("etag").unwrap().to_owned(), b.header("etag").unwrap().to_owned());
    let small = complete(&server, &id, &[(1, a.clone()), (2, b.clone())]).await;
    small.is(400, "EntityTooSmall");
    assert_eq!((small.element("ProposedSize").as_deref(), small.element("PartNumber").as_deref()), (Some("5"), Some("1")));
    complete(&server, &id, &[(2, b.clone()), (1, a.clone())]).await.is(400, "InvalidPartOrder");
    complete(&server, &id, &[(1, a.clone()), (1, a.clone())]).await.is(400, "InvalidPartOrder");
    complete(&server, &id, &[(1, b.clone())]).await.is(400, "InvalidPart");
    complete(&server, &id, &[(5, a.clone())]).await.is(400, "InvalidPart");
    complete(&server, &id, &[(10_001, a.clone())]).await.is(400, "InvalidArgument");
    complete(&server, &id, &[]).await.is(400, "MalformedXML");
    let target = format!("/bkt/k?uploadId={id}");
    client.post(&target, "").await.is(400, "InvalidRequest");
    client.post(&target, "<Complete").await.is(400, "MalformedXML");
    client
        .post(&target, "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber></Part></CompleteMultipartUpload>")
        .await
        .is(400, "MalformedXML");
    let with = |name: &str, value: &str| client.call("POST", &target).header(name, value).body(list(&[(1, a.clone())])).send();
    with("x-amz-mp-object-size", "6").await.is(400, "InvalidRequest");
    with("x-amz-checksum-crc64nvme", "AAAAAAAAAAA=").await.is(400, "BadDigest");
    with("x-amz-checksum-type", "COMPOSITE").await.is(400, "BadDigest");
    with("if-match", "\"x\"").await.is(404, "NoSuchKey");
    for number in ["0", "10001", "x", "-1"] {
        client.put(&format!("/bkt/k?partNumber={number}&uploadId={id}"), "x").await.is(400, "InvalidArgument");
    }
    with("if-none-match", "*").await.ok();
    with("if-none-match", "*").await.ok();
    assert_eq!(client.get("/bkt/k").await.ok().text(), "small");
    let other = create(&server, &[]).await;
    let one = part(&server, &other, 1, b"new").await.ok();
    let body = list(&[(1, one.header("etag").unwrap().to_owned())]);
    client
        .call("POST", &format!("/bkt/k?uploadId={other}"))
        .header("if-none-match", "*")
        .body(&body)
        .send()
        .await
        .is(412, "PreconditionFailed");
    client.post(&format!("/bkt/k?uploadId={other}"), &body).await.ok();
}

#[tokio::test]
async fn an_upload_that_is_not_there_is_said_so() {
    let server = Server::start().await;
    let client = &server.client;
    let id = create(&server, &[]).await;
    let elsewhere = format!("/bkt/other?uploadId={id}");
    for target in [elsewhere.as_str(), "/bkt/k?uploadId=nonsense", &format!("/bkt/k?uploadId={}", "0".repeat(64)), "/bkt/k?uploadId="] {
        client.get(target).await.is(404, "NoSuchUpload");
        client.delete(target).await.is(404, "NoSuchUpload");
        client.post(target, list(&[(1, etag(b"x"))])).await.is(404, "NoSuchUpload");
        client.put(&format!("{target}&partNumber=1"), "x").await.is(404, "NoSuchUpload");
    }
    part(&server, &id, 1, b"x").await.ok();
    assert_eq!(client.delete(&format!("/bkt/k?uploadId={id}")).await.status, 204);
    client.delete(&format!("/bkt/k?uploadId={id}")).await.is(404, "NoSuchUpload");
    part(&server, &id, 1, b"x").await.is(404, "NoSuchUpload");
    complete(&server, &id, &[(1, etag(b"x"))]).await.is(404, "NoSuchUpload");
}

#[tokio::test]
async fn parts_and_uploads_are_listed_in_pages() {
    let server = Server::start().await;
    let client = &server.client;
    let id = create(&server, &[("x-amz-checksum-algorithm", "CRC32C")]).await;
    for number in 1..=3 {
        part(&server, &id, number, &[number as u8]).await.ok();
    }
    let target = format!("/bkt/k?uploadId={id}");
    let all = client.get(&target).await.ok();
    assert_eq!(all.elements("PartNumber"), ["1", "2", "3"]);
    assert_eq!((all.element("IsTruncated").as_deref(), all.element("NextPartNumberMarker").as_deref()), (Some("false"), Some("3")));
    assert_eq!((all.element("ChecksumAlgorithm").as_deref(), all.elements("ChecksumCRC32C").len()), (Some("CRC32C"), 3));
    let page = client.get(&format!("{target}&max-parts=1&part-number-marker=1")).await.ok();
    assert_eq!((page.elements("PartNumber"), page.element("IsTruncated").as_deref()), (vec!["2".to_owned()], Some("true")));
    assert!(client.get(&format!("{target}&max-parts=0")).await.ok().text().contains("<IsTruncated>false</IsTruncated>"));
    client.get(&format!("{target}&max-parts=-1")).await.is(400, "InvalidArgument");
    let second = create(&server, &[]).await;
    client.post("/bkt/dir/x?uploads", "").await.ok();
    let uploads = client.get("/bkt?uploads").await.ok();
    assert_eq!(uploads.elements("Key"), ["dir/x", "k", "k"]);
    assert_eq!(uploads.elements("UploadId")[1..], [id.clone(), second.clone()], "in order of initiation");
    assert_eq!((uploads.element("NextKeyMarker").as_deref(), uploads.element("IsTruncated").as_deref()), (Some("k"), Some("false")));
    let page = client.get("/bkt?uploads&prefix=k&max-uploads=1").await.ok();
    assert_eq!((page.elements("UploadId"), page.element("NextUploadIdMarker")), (vec![id.clone()], Some(id.clone())));
    let next = client.get(&format!("/bkt?uploads&key-marker=k&upload-id-marker={id}")).await.ok();
    assert_eq!(next.elements("UploadId"), [second]);
    assert!(client.get("/bkt?uploads&key-marker=k").await.ok().elements("UploadId").is_empty());
    let folded = client.get("/bkt?uploads&delimiter=/").await.ok();
    assert!(folded.text().contains("<CommonPrefixes><Prefix>dir/</Prefix></CommonPrefixes>") && folded.elements("Key") == ["k", "k"]);
    assert_eq!(client.delete("/bkt").await.status, 204, "uploads do not hold a bucket");
}

#[tokio::test]
async fn composite_checksums_are_over_the_parts() {
    let server = Server::start().await;
    let client = &server.client;
    let id = create(&server, &[("x-amz-checksum-algorithm", "SHA256")]).await;
    let (first, second) = (vec![1; PART], b"second".to_vec());
    let sum = |body: &[u8]| checksum_of(ChecksumAlgorithm::Sha256, body);
    let put = |number: u32, body: Vec<u8>| {
        let target = format!("/bkt/k?partNumber={number}&uploadId={id}");
        client.call("PUT", &target).header("x-amz-checksum-sha256", sum(&body).to_base64()).body(body).send()
    };
    assert_eq!(put(1, first.clone()).await.ok().header("x-amz-checksum-sha256"), Some(&*sum(&first).to_base64()));
    put(2, second.clone()).await.ok();
    let wrong = client.call("PUT", &format!("/bkt/k?partNumber=3&uploadId={id}")).header("x-amz-checksum-crc32", "AAAAAA==").send().await;
    wrong.is(400, "InvalidRequest");
    let bare = [(1, etag(&first)), (2, etag(&second))];
    complete(&server, &id, &bare).await.is(400, "InvalidRequest");
    let part = |number: u32, body: &[u8]| {
        let (tag, sum) = (md5_hex(body), sum(body).to_base64());
        format!("<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag><ChecksumSHA256>{sum}</ChecksumSHA256></Part>")
    };
    let document = |parts: &[String]| format!("<CompleteMultipartUpload>{}</CompleteMultipartUpload>", parts.concat());
    let target = format!("/bkt/k?uploadId={id}");
    let false_sum = part(2, &second).replace(&sum(&second).to_base64(), &sum(b"x").to_base64());
    client.post(&target, document(&[part(1, &first), false_sum])).await.is(400, "InvalidPart");
    let done = client.post(&target, document(&[part(1, &first), part(2, &second)])).await.ok();
    let expected =
        format!("{}-2", checksum_of(ChecksumAlgorithm::Sha256, &[sum(&first).bytes(), sum(&second).bytes()].concat()).to_base64());
    assert_eq!(done.element("ChecksumSHA256"), Some(expected.clone()));
    let head = client.call("HEAD", "/bkt/k").header("x-amz-checksum-mode", "ENABLED").send().await;
    assert_eq!((head.header("x-amz-checksum-sha256"), head.header("x-amz-checksum-type")), (Some(&*expected), Some("COMPOSITE")));
    client.call("PUT", "/bkt/copy").header("x-amz-copy-source", "bkt/k").send().await.ok();
    let copy = client.call("HEAD", "/bkt/copy").header("x-amz-checksum-mode", "ENABLED").send().await;
    let whole = [first, second].concat();
    assert_eq!(copy.header("x-amz-checksum-sha256"), Some(&*sum(&whole).to_base64()));
    assert_eq!((copy.header("x-amz-checksum-type"), copy.header("etag")), (Some("FULL_OBJECT"), Some(&*etag(&whole))));
    client.get("/bkt/copy?partNumber=2").await.is(416, "InvalidPartNumber");
    let pair =
        client.call("POST", "/bkt/k?uploads").header("x-amz-checksum-algorithm", "SHA256").header("x-amz-checksum-type", "FULL_OBJECT");
    pair.send().await.is(400, "InvalidRequest");
    client.call("POST", "/bkt/k?uploads").header("x-amz-checksum-type", "FULL_OBJECT").send().await.is(400, "InvalidRequest");
}

#[tokio::test]
async fn an_upload_without_a_choice_takes_the_checksum_of_its_parts() {
    let server = Server::start().await;
    let client = &server.client;
    let id = create(&server, &[]).await;
    let (first, second) = (vec![1; PART], b"second".to_vec());
    let sum = |body: &[u8]| checksum_of(ChecksumAlgorithm::Crc32, body).to_base64();
    for (number, body) in [(1, &first), (2, &second)] {
        let call = client.call("PUT", &format!("/bkt/k?partNumber={number}&uploadId={id}"));
        let put = call.header("x-amz-checksum-crc32", sum(body)).body(body).send().await.ok();
        assert_eq!(put.header("x-amz-checksum-crc32"), Some(&*sum(body)));
    }
    let whole = [first.clone(), second.clone()].concat();
    let body = list(&[(1, etag(&first)), (2, etag(&second))]);
    let target = format!("/bkt/k?uploadId={id}");
    client.call("POST", &target).header("x-amz-checksum-crc32c", "AAAAAA==").body(&body).send().await.is(400, "BadDigest");
    let done = client.call("POST", &target).header("x-amz-checksum-crc32", sum(&whole)).body(&body).send().await.ok();
    assert_eq!((done.element("ChecksumCRC32"), done.element("ChecksumType").as_deref()), (Some(sum(&whole)), Some("FULL_OBJECT")));
}

#[tokio::test]
async fn parts_are_copied_from_objects() {
    let server = Server::start().await;
    let client = &server.client;
    let source: Vec<u8> = (0..700_000u32).map(|index| (index / 3) as u8).collect();
    client.put("/bkt/source", &source).await.ok();
    let id = create(&server, &[]).await;
    let target = format!("/bkt/k?partNumber=1&uploadId={id}");
    let copy =
        |range: &str| client.call("PUT", &target).header("x-amz-copy-source", "bkt/source").header("x-amz-copy-source-range", range).send();
    copy("bytes=0-700000").await.is(400, "InvalidArgument");
    copy("bytes=5-").await.is(400, "InvalidArgument");
    let copied = copy("bytes=100-699998").await.ok();
    assert_eq!(copied.element("ETag"), Some(etag(&source[100..699_999]).replace('"', "&quot;")));
    complete(&server, &id, &[(1, etag(&source[100..699_999]))]).await.ok();
    assert!(client.get("/bkt/k").await.ok().body == source[100..699_999]);
    let id = create(&server, &[]).await;
    client.put("/bkt/empty", "").await.ok();
    let empty =
        client.call("PUT", &format!("/bkt/k?partNumber=1&uploadId={id}")).header("x-amz-copy-source", "bkt/empty").send().await.ok();
    assert_eq!(empty.element("ETag"), Some(etag(b"").replace('"', "&quot;")));
    complete(&server, &id, &[(1, etag(b""))]).await.ok();
    assert_eq!(client.get("/bkt/k").await.ok().header("content-length"), Some("0"));
}

#[tokio::test]
async fn the_newer_algorithms_are_composite_over_parts_and_a_last_part_may_be_empty() {
    let server = Server::start().await;
    let client = &server.client;
    let first = vec![3; PART];
    for algorithm in [
        ChecksumAlgorithm::Sha512,
        ChecksumAlgorithm::Md5,
        ChecksumAlgorithm::XxHash64,
        ChecksumAlgorithm::XxHash3,
        ChecksumAlgorithm::XxHash128,
    ] {
        let sum = |body: &[u8]| checksum_of(algorithm, body);
        let whole = [("x-amz-checksum-algorithm", algorithm.name()), ("x-amz-checksum-type", "FULL_OBJECT")];
        let call = whole.iter().fold(client.call("POST", "/bkt/k?uploads"), |call, (name, value)| call.header(name, value));
        call.send().await.is(400, "InvalidRequest");
        let id = create(&server, &whole[..1]).await;
        let mut listed = String::new();
        for (number, body) in [(1, &first[..]), (2, b"")] {
            let target = format!("/bkt/k?partNumber={number}&uploadId={id}");
            let put = |value: String| client.call("PUT", &target).header(algorithm.header(), value).body(body).send();
            put(sum(b"other").to_base64()).await.is(400, "BadDigest");
            assert_eq!(put(sum(body).to_base64()).await.ok().header(algorithm.header()), Some(&*sum(body).to_base64()));
            let (name, tag, value) = (algorithm.element(), md5_hex(body), sum(body).to_base64());
            listed += &format!("<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag><{name}>{value}</{name}></Part>");
        }
        let target = format!("/bkt/k?uploadId={id}");
        let parts = client.get(&target).await.ok();
        assert_eq!(parts.elements(algorithm.element()), [sum(&first).to_base64(), sum(b"").to_base64()]);
        let composite = format!("{}-2", checksum_of(algorithm, &[sum(&first).bytes(), sum(b"").bytes()].concat()).to_base64());
        let list = format!("<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>");
        let complete = |value: &str| client.call("POST", &target).header(algorithm.header(), value).body(&list).send();
        complete(&composite.replace("-2", "-3")).await.is(400, "BadDigest");
        let done = complete(&composite).await.ok();
        assert_eq!((done.element(algorithm.element()), done.element("ChecksumType")), (Some(composite.clone()), Some("COMPOSITE".into())));
        let head = client.call("HEAD", "/bkt/k").header("x-amz-checksum-mode", "ENABLED").send().await;
        assert_eq!((head.header(algorithm.header()), head.header("content-length")), (Some(&*composite), Some(&*PART.to_string())));
        let last = client.get("/bkt/k?partNumber=2").await.ok();
        assert_eq!((last.header("content-length"), last.header("x-amz-mp-parts-count")), (Some("0"), Some("2")));
    }
}

#[tokio::test]
async fn an_object_may_be_made_from_parts_of_itself() {
    let server = Server::start().await;
    let client = &server.client;
    let before: Vec<u8> = (0..2 * PART as u32).map(|index| (index / 7) as u8).collect();
    client.put("/bkt/k", &before).await.ok();
    let id = create(&server, &[]).await;
    let copy = |number: u32, range: &str| {
        let call = client.call("PUT", &format!("/bkt/k?partNumber={number}&uploadId={id}")).header("x-amz-copy-source", "/bkt/k");
        call.header("x-amz-copy-source-range", range).send()
    };
    let (second, first) = (&before[PART..], &before[10..20]);
    copy(1, &format!("bytes={PART}-{}", 2 * PART - 1)).await.ok();
    copy(2, "bytes=10-19").await.ok();
    let parts = [(1, etag(second)), (2, etag(first))];
    complete(&server, &id, &parts).await.ok();
    assert!(client.get("/bkt/k").await.ok().body == [second, first].concat());
}
