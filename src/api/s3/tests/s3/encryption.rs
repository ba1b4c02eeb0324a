//! Server-side encryption: under the cluster's key and under the client's, whole and in parts, copied, ranged, and refused.

use base64::{Engine, engine::general_purpose::STANDARD};
use garage_model::rows::{VERSION, object::null_slot};
use garage_rpc::register::WriteId;
use garage_table::{
    Tables,
    group::{RegisterRead, RegisterWrite},
    message::{Companion, Want},
};
use md5::{Digest, Md5};

use crate::{
    client::{Answer, Call, Client, etag},
    server::{Server, context},
};

const OWN: &str = "x-amz-server-side-encryption-customer-";
const SOURCE: &str = "x-amz-copy-source-server-side-encryption-customer-";
const METHOD: &str = "x-amz-server-side-encryption";

fn with_key<'a>(call: Call<'a>, family: &str, key: u8) -> Call<'a> {
    call.header(&format!("{family}algorithm"), "AES256")
        .header(&format!("{family}key"), STANDARD.encode([key; 32]))
        .header(&format!("{family}key-md5"), STANDARD.encode(Md5::digest([key; 32])))
}
async fn put(client: &Client, target: &str, key: u8, body: &[u8]) -> Answer {
    with_key(client.call("PUT", target).body(body), OWN, key).send().await
}
async fn get(client: &Client, target: &str, key: u8) -> Answer {
    with_key(client.call("GET", target), OWN, key).send().await
}
/// Bytes that tell where they stand, over several blocks.
fn content(len_bytes: usize) -> Vec<u8> {
    (0..len_bytes).map(|at| (at / 7 + at / 256) as u8).collect()
}
const SMALL: usize = 1000;
const LARGE: usize = 600 << 10;

#[tokio::test]
async fn an_object_under_the_client_s_key_comes_back_with_that_key_only() {
    let server = Server::start().await;
    let client = &server.client;
    for (target, len_bytes) in [("/bkt/small", SMALL), ("/bkt/large", LARGE), ("/bkt/empty", 0)] {
        let body = content(len_bytes);
        let stored = put(client, target, 1, &body).await.ok();
        assert_eq!(stored.header(&format!("{OWN}algorithm")), Some("AES256"));
        assert_eq!(stored.header(&format!("{OWN}key-md5")), Some(&*STANDARD.encode(Md5::digest([1; 32]))));
        assert_eq!(stored.header(&format!("{OWN}key")), None);
        assert_ne!(stored.header("etag").unwrap(), etag(&body), "the MD5 of the content is not told");
        let got = get(client, target, 1).await.ok();
        assert!(got.body == body, "{target}");
        assert_eq!(got.header("etag"), stored.header("etag"));
        assert_eq!(got.header(&format!("{OWN}algorithm")), Some("AES256"));
        get(client, target, 2).await.is(403, "AccessDenied");
        client.get(target).await.is(400, "InvalidRequest");
        assert_eq!(client.head(target).await.status, 400);
        assert_eq!(with_key(client.call("HEAD", target), OWN, 1).send().await.header("content-length"), Some(&*len_bytes.to_string()));
        let attributes = client.call("GET", &format!("{target}?attributes")).header("x-amz-object-attributes", "ObjectSize").send().await;
        attributes.is(400, "InvalidRequest");
        // Tags are not encrypted.
        client.get(&format!("{target}?tagging")).await.ok();
    }
}

#[tokio::test]
async fn ranges_of_encrypted_objects_are_exact() {
    let server = Server::start().await;
    let client = &server.client;
    let body = content(LARGE);
    put(client, "/bkt/c", 1, &body).await.ok();
    client.call("PUT", "/bkt/s").header(METHOD, "AES256").body(&body).send().await.ok();
    let block = (256 << 10) - 16;
    for (from, to) in
        [(0, 0), (block - 1, block), (block, block + 10), (10, LARGE - 10), (2 * block - 5, 2 * block + 5), (LARGE - 1, LARGE - 1)]
    {
        let range = format!("bytes={from}-{to}");
        for call in [with_key(client.call("GET", "/bkt/c"), OWN, 1), client.call("GET", "/bkt/s")] {
            let got = call.header("range", &range).send().await;
            assert_eq!(got.status, 206);
            assert!(got.body == body[from..=to], "{range}");
        }
    }
}

#[tokio::test]
async fn the_cluster_s_key_encrypts_what_asks_for_it_and_what_the_bucket_says() {
    let server = Server::start().await;
    let client = &server.client;
    let body = content(LARGE);
    let stored = client.call("PUT", "/bkt/k").header(METHOD, "AES256").body(&body).send().await.ok();
    assert_eq!((stored.header(METHOD), stored.header("etag")), (Some("AES256"), Some(&*etag(&body))));
    let got = client.get("/bkt/k").await.ok();
    assert!(got.header(METHOD) == Some("AES256") && got.body == body);
    client.put("/bkt/plain", "x").await.ok();
    assert_eq!(client.head("/bkt/plain").await.header(METHOD), None);

    client.get("/bkt?encryption").await.is(404, "ServerSideEncryptionConfigurationNotFoundError");
    let document = |inner: &str| format!("<ServerSideEncryptionConfiguration><Rule>{inner}</Rule></ServerSideEncryptionConfiguration>");
    let default = |algorithm: &str| {
        document(&format!(
            "<ApplyServerSideEncryptionByDefault><SSEAlgorithm>{algorithm}</SSEAlgorithm></ApplyServerSideEncryptionByDefault>"
        ))
    };
    client.put("/bkt?encryption", default("aws:kms")).await.is(501, "NotImplemented");
    client.put("/bkt?encryption", default("ROT13")).await.is(400, "MalformedXML");
    client.get("/bkt?encryption").await.is(404, "ServerSideEncryptionConfigurationNotFoundError");
    client.put("/bkt?encryption", default("AES256")).await.ok();
    assert_eq!(client.get("/bkt?encryption").await.ok().element("SSEAlgorithm").as_deref(), Some("AES256"));
    for (target, len_bytes) in [("/bkt/small", SMALL), ("/bkt/empty", 0)] {
        let body = content(len_bytes);
        assert_eq!(client.put(target, &body).await.ok().header(METHOD), Some("AES256"));
        assert!(client.get(target).await.ok().body == body);
    }
    get(client, "/bkt/small", 1).await.is(400, "InvalidRequest");
    assert_eq!(client.delete("/bkt?encryption").await.status, 204);
    assert_eq!(client.put("/bkt/after", "x").await.ok().header(METHOD), None);
    // Writers' own keys can be forbidden.
    client
        .put("/bkt?encryption", document("<BlockedEncryptionTypes><EncryptionType>SSE-C</EncryptionType></BlockedEncryptionTypes>"))
        .await
        .ok();
    put(client, "/bkt/blocked", 1, b"x").await.is(403, "AccessDenied");
    client.put("/bkt/not-blocked", "x").await.ok();
}

#[tokio::test]
async fn uploads_keep_to_the_key_they_were_created_with() {
    let server = Server::start().await;
    let client = &server.client;
    let first = content(5 << 20);
    let second = content(SMALL);
    for customer in [true, false] {
        let sealed = |call| if customer { with_key(call, OWN, 1) } else { call };
        let create = client.call("POST", "/bkt/k?uploads");
        let create = if customer { sealed(create) } else { create.header(METHOD, "AES256") };
        let created = create.send().await.ok();
        let upload = created.element("UploadId").unwrap();
        let part = |number: u16| format!("/bkt/k?uploadId={upload}&partNumber={number}");
        if customer {
            assert_eq!(created.header(&format!("{OWN}algorithm")), Some("AES256"));
            client.put(&part(1), &first).await.is(400, "InvalidRequest");
            put(client, &part(1), 2, &first).await.is(400, "InvalidRequest");
        } else {
            assert_eq!(created.header(METHOD), Some("AES256"));
            put(client, &part(1), 1, &first).await.is(400, "InvalidRequest");
        }
        let mut listed = String::new();
        for (number, body) in [(1, &first), (2, &second)] {
            let stored = sealed(client.call("PUT", &part(number)).body(body)).send().await.ok();
            let etag = stored.header("etag").unwrap();
            listed += &format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>");
        }
        let target = format!("/bkt/k?uploadId={upload}");
        let list = format!("<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>");
        let completed = sealed(client.call("POST", &target).body(list)).send().await.ok();
        assert!(completed.element("ETag").unwrap().contains("-2"));
        assert_eq!(completed.header(METHOD), (!customer).then_some("AES256"));
        let whole = sealed(client.call("GET", "/bkt/k")).send().await.ok();
        assert!(whole.body == [&first[..], &second[..]].concat());
        let tail = sealed(client.call("GET", "/bkt/k?partNumber=2")).send().await;
        assert!(tail.status == 206 && tail.body == second);
        if customer {
            client.get("/bkt/k").await.is(400, "InvalidRequest");
            get(client, "/bkt/k", 2).await.is(403, "AccessDenied");
        }
    }
}

#[tokio::test]
async fn checksums_of_parts_under_a_client_s_key_are_told_with_that_key_only() {
    let server = Server::start().await;
    let client = &server.client;
    let named = client.call("POST", "/bkt/k?uploads").header("x-amz-checksum-algorithm", "CRC32C");
    let upload = with_key(named, OWN, 1).send().await.ok().element("UploadId").unwrap();
    let target = format!("/bkt/k?uploadId={upload}");
    let part = with_key(client.call("PUT", &format!("{target}&partNumber=1")).body("content"), OWN, 1).send().await.ok();
    let (tag, sum) = (part.header("etag").unwrap(), part.header("x-amz-checksum-crc32c").unwrap());
    let list = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{tag}</ETag><ChecksumCRC32C>{sum}</ChecksumCRC32C></Part>\
         </CompleteMultipartUpload>"
    );
    client.get(&target).await.is(400, "InvalidRequest");
    get(client, &target, 2).await.is(400, "InvalidRequest");
    assert_eq!(get(client, &target, 1).await.ok().element("ChecksumCRC32C").as_deref(), Some(sum));
    client.post(&target, &list).await.is(400, "InvalidRequest");
    with_key(client.call("POST", &target).body(&list), OWN, 2).send().await.is(400, "InvalidRequest");
    get(client, "/bkt/k", 1).await.is(404, "NoSuchKey");
    with_key(client.call("POST", &target).body(&list), OWN, 1).send().await.ok();
    // A repeat is told what the first was told; it needs nothing of the parts.
    client.post(&target, &list).await.ok();
    assert_eq!(get(client, "/bkt/k", 1).await.ok().text(), "content");
    // Without a named checksum nothing is told of the parts, but a key that is sent must be the right one.
    let upload = with_key(client.call("POST", "/bkt/k?uploads"), OWN, 1).send().await.ok().element("UploadId").unwrap();
    let target = format!("/bkt/k?uploadId={upload}");
    let part = with_key(client.call("PUT", &format!("{target}&partNumber=1")).body("more"), OWN, 1).send().await.ok();
    let tag = part.header("etag").unwrap();
    let list = format!("<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{tag}</ETag></Part></CompleteMultipartUpload>");
    client.get(&target).await.ok();
    with_key(client.call("POST", &target).body(&list), OWN, 2).send().await.is(400, "InvalidRequest");
    client.post(&target, &list).await.ok();
    assert_eq!(get(client, "/bkt/k", 1).await.ok().text(), "more");
}

#[tokio::test]
async fn copies_are_encrypted_anew() {
    let server = Server::start().await;
    let client = &server.client;
    let body = content(LARGE);
    put(client, "/bkt/source", 1, &body).await.ok();
    let copy = |target: &'static str| client.call("PUT", target).header("x-amz-copy-source", "/bkt/source");
    copy("/bkt/plain").send().await.is(400, "InvalidRequest");
    with_key(copy("/bkt/plain"), SOURCE, 2).send().await.is(403, "AccessDenied");
    with_key(copy("/bkt/plain"), SOURCE, 1).send().await.ok();
    let plain = client.get("/bkt/plain").await.ok();
    assert!(plain.body == body && plain.header("etag") == Some(&*etag(&body)));
    with_key(with_key(copy("/bkt/other"), SOURCE, 1), OWN, 2).send().await.ok();
    assert!(get(client, "/bkt/other", 2).await.ok().body == body);
    get(client, "/bkt/other", 1).await.is(403, "AccessDenied");
    // Another key is a change, so a copy onto itself may be.
    with_key(with_key(copy("/bkt/source"), SOURCE, 1), OWN, 3).send().await.ok();
    assert!(get(client, "/bkt/source", 3).await.ok().body == body);
    let to_cluster =
        client.call("PUT", "/bkt/cluster").header("x-amz-copy-source", "/bkt/plain").header(METHOD, "AES256").send().await.ok();
    assert_eq!(to_cluster.header(METHOD), Some("AES256"));
    client.call("PUT", "/bkt/back").header("x-amz-copy-source", "/bkt/cluster").send().await.ok();
    let back = client.get("/bkt/back").await.ok();
    assert!(back.body == body && back.header(METHOD).is_none());
    // Into a part.
    let upload = client.post("/bkt/parts?uploads", "").await.ok().element("UploadId").unwrap();
    let part = client.call("PUT", &format!("/bkt/parts?uploadId={upload}&partNumber=1")).header("x-amz-copy-source", "/bkt/source");
    let part = with_key(part.header("x-amz-copy-source-range", "bytes=5-300004"), SOURCE, 3).send().await.ok();
    let list = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{}</ETag></Part></CompleteMultipartUpload>",
        part.element("ETag").unwrap()
    );
    client.post(&format!("/bkt/parts?uploadId={upload}"), list).await.ok();
    assert!(client.get("/bkt/parts").await.ok().body == body[5..300_005]);
}

#[tokio::test]
async fn what_can_t_be_encrypted_so_is_refused() {
    let server = Server::start().await;
    let client = &server.client;
    let with = |name: &str, value: &str| client.call("PUT", "/bkt/k").header(name, value).body("x").send();
    with(METHOD, "aws:kms").await.is(501, "NotImplemented");
    with("x-amz-server-side-encryption-aws-kms-key-id", "x").await.is(501, "NotImplemented");
    with(METHOD, "ROT13").await.is(400, "InvalidArgument");
    with(&format!("{OWN}algorithm"), "AES256").await.is(400, "InvalidArgument");
    with(&format!("{OWN}algorithm"), "ROT13").await.is(400, "InvalidEncryptionAlgorithmError");
    let wrong_md5 =
        client.call("PUT", "/bkt/k").header(&format!("{OWN}algorithm"), "AES256").header(&format!("{OWN}key"), STANDARD.encode([1; 32]));
    wrong_md5.header(&format!("{OWN}key-md5"), STANDARD.encode([0; 16])).body("x").send().await.is(400, "InvalidArgument");
    with_key(client.call("PUT", "/bkt/k").header(METHOD, "AES256").body("x"), OWN, 1).send().await.is(400, "InvalidArgument");
    client.get("/bkt/k").await.is(404, "NoSuchKey");
    client.put("/bkt/k", "x").await.ok();
    get(client, "/bkt/k", 1).await.is(400, "InvalidRequest");
    client.call("GET", "/bkt/k").header(METHOD, "AES256").send().await.is(400, "InvalidArgument");
}

/// All files of the data directory.
fn block_files(server: &Server) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![server.data_dir()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    found
}

#[tokio::test]
async fn nothing_of_the_content_is_on_disk() {
    let server = Server::start().await;
    let client = &server.client;
    const NEEDLE: &[u8] = b"a sentence that nobody else may read, not even on the disk";
    // Bytes that don't compress, so that plain blocks are stored as they are.
    let mut body: Vec<u8> = (0..LARGE as u32 / 16).flat_map(|number| <[u8; 16]>::from(Md5::digest(number.to_be_bytes()))).collect();
    body[1000..1000 + NEEDLE.len()].copy_from_slice(NEEDLE);
    let holds_needle = |server: &Server| {
        block_files(server).iter().any(|path| std::fs::read(path).unwrap().windows(NEEDLE.len()).any(|window| window == NEEDLE))
    };
    put(client, "/bkt/c", 1, &body).await.ok();
    client.call("PUT", "/bkt/s").header(METHOD, "AES256").body(&body).send().await.ok();
    assert!(!block_files(&server).is_empty() && !holds_needle(&server));
    // What is looked for would be found.
    client.put("/bkt/plain", &body).await.ok();
    assert!(holds_needle(&server));
}

/// Moves the content of one version to the row of another, as a node that was taken over could.
async fn move_content(server: &Server, from: &str, to: &str) {
    let bucket = server.node.access.buckets().resolve(None, "bkt", context()).await.unwrap().unwrap().as_ref();
    let tables = Tables::new(server.node.cluster.clone(), &server.node.store);
    let group = bucket.group_of(from);
    assert_eq!(group.key(), bucket.group_of(to).key(), "one shard holds both keys");
    let read = RegisterRead { table: VERSION, key: null_slot(from), want: Want::All };
    let found = tables.read_one(&group, read, context()).await.unwrap();
    let id = WriteId::random(server.node.cluster.runtime());
    let companions = found.companions.into_iter().map(|companion| Companion { id, ..companion }).collect();
    let content = found.row.unwrap().content.to_vec();
    tables.write_one(&group, RegisterWrite { table: VERSION, key: null_slot(to), id, content, companions }, context()).await.unwrap();
}

#[tokio::test]
async fn content_in_another_s_place_is_an_error_and_never_bytes() {
    let server = Server::start().await;
    let client = &server.client;
    for (name, len_bytes) in [("small", SMALL), ("large", LARGE)] {
        let body = content(len_bytes);
        put(client, &format!("/bkt/{name}"), 1, &body).await.ok();
        move_content(&server, name, "moved").await;
        let got = get(client, "/bkt/moved", 1).await;
        got.is(500, "InternalError");
        let range = with_key(client.call("GET", "/bkt/moved").header("range", "bytes=1-5"), OWN, 1).send().await;
        range.is(500, "InternalError");
        // The plain form of the same: the content is there, so it is the seal that refuses.
        client.put(&format!("/bkt/plain-{name}"), &body).await.ok();
        move_content(&server, &format!("plain-{name}"), "moved").await;
        assert!(client.get("/bkt/moved").await.ok().body == body);
    }
}
