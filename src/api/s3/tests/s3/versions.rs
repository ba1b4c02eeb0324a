//! Versioning: ids in every call, delete markers, null versions, listings, and what becomes of each when something is deleted.

use crate::{client::Client, server::Server};

const ENABLED: &str = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
const SUSPENDED: &str = "<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>";

async fn versioned() -> Server {
    let server = Server::start().await;
    server.client.put("/bkt?versioning", ENABLED).await.ok();
    server
}

/// Stores an object; the id of its version.
async fn put(client: &Client, target: &str, body: &str) -> String {
    client.put(target, body).await.ok().header("x-amz-version-id").expect("a versioned bucket answers an id").to_owned()
}

async fn body_of(client: &Client, target: &str) -> String {
    client.get(target).await.ok().text()
}

/// Ids of all versions and markers of the bucket in the order listed, each with what IsLatest says.
async fn listed(client: &Client, query: &str) -> Vec<(String, String)> {
    let answer = client.get(&format!("/bkt?versions{query}")).await.ok();
    answer.elements("VersionId").into_iter().zip(answer.elements("IsLatest")).collect()
}

#[tokio::test]
async fn a_bucket_tells_its_versioning() {
    let server = Server::start().await;
    let client = &server.client;
    let status = || async { client.get("/bkt?versioning").await.ok().element("Status") };
    assert_eq!(status().await, None);
    client.put("/bkt?versioning", ENABLED).await.ok();
    assert_eq!(status().await.as_deref(), Some("Enabled"));
    client.put("/bkt?versioning", SUSPENDED).await.ok();
    assert_eq!(status().await.as_deref(), Some("Suspended"));
    let bad = "IllegalVersioningConfigurationException";
    client.put("/bkt?versioning", "<VersioningConfiguration/>").await.is(400, bad);
    client.put("/bkt?versioning", "<VersioningConfiguration><Status>On</Status></VersioningConfiguration>").await.is(400, bad);
    client.put("/bkt?versioning", "<Nonsense/>").await.is(400, "MalformedXML");
    let mfa = "<VersioningConfiguration><Status>Enabled</Status><MfaDelete>Enabled</MfaDelete></VersioningConfiguration>";
    client.put("/bkt?versioning", mfa).await.is(501, "NotImplemented");
    assert_eq!(status().await.as_deref(), Some("Suspended"), "nothing of a refused document is stored");
}

#[tokio::test]
async fn every_version_stays_and_is_read_by_its_id() {
    let server = versioned().await;
    let client = &server.client;
    let (first, second) = (put(client, "/bkt/k", "one").await, put(client, "/bkt/k", "two").await);
    assert_ne!(first, second);
    assert_eq!(body_of(client, "/bkt/k").await, "two");
    for (id, body) in [(&first, "one"), (&second, "two")] {
        let got = client.get(&format!("/bkt/k?versionId={id}")).await.ok();
        assert_eq!((got.text().as_str(), got.header("x-amz-version-id")), (body, Some(&**id)));
        let head = client.head(&format!("/bkt/k?versionId={id}")).await.ok();
        assert_eq!((head.header("content-length"), head.header("x-amz-version-id")), (Some("3"), Some(&**id)));
    }
    assert_eq!(client.head("/bkt/k").await.ok().header("x-amz-version-id"), Some(&*second));
    assert_eq!(listed(client, "").await, [(second, "true".to_owned()), (first, "false".to_owned())]);
    client.get(&format!("/bkt/k?versionId={}", "0".repeat(64))).await.is(404, "NoSuchVersion");
    client.get("/bkt/k?versionId=null").await.is(404, "NoSuchVersion");
    client.get("/bkt/k?versionId=x").await.is(400, "InvalidArgument");
    assert_eq!(client.get("/bkt").await.ok().elements("Key"), ["k"]);
}

#[tokio::test]
async fn a_deletion_leaves_a_marker_that_can_be_deleted() {
    let server = versioned().await;
    let client = &server.client;
    let id = put(client, "/bkt/k", "one").await;
    let deleted = client.delete("/bkt/k").await;
    assert_eq!((deleted.status, deleted.header("x-amz-delete-marker")), (204, Some("true")));
    let marker = deleted.header("x-amz-version-id").unwrap().to_owned();
    let got = client.get("/bkt/k").await;
    got.is(404, "NoSuchKey");
    assert_eq!((got.header("x-amz-delete-marker"), got.header("x-amz-version-id")), (Some("true"), Some(&*marker)));
    let by_id = client.get(&format!("/bkt/k?versionId={marker}")).await;
    by_id.is(405, "MethodNotAllowed");
    assert_eq!((by_id.header("allow"), by_id.header("x-amz-delete-marker")), (Some("DELETE"), Some("true")));
    assert!(by_id.header("last-modified").is_some());
    assert_eq!(client.head(&format!("/bkt/k?versionId={marker}")).await.status, 405);
    assert_eq!(body_of(client, &format!("/bkt/k?versionId={id}")).await, "one");
    assert!(client.get("/bkt").await.ok().elements("Key").is_empty());
    assert_eq!(client.get("/bkt?versions").await.ok().elements("DeleteMarker").len(), 1);
    assert_eq!(client.delete("/bkt").await.code(), "BucketNotEmpty");
    let undone = client.delete(&format!("/bkt/k?versionId={marker}")).await;
    assert_eq!(
        (undone.status, undone.header("x-amz-delete-marker"), undone.header("x-amz-version-id")),
        (204, Some("true"), Some(&*marker))
    );
    assert_eq!(body_of(client, "/bkt/k").await, "one");
    let never = client.delete("/bkt/never-there").await;
    assert_eq!((never.status, never.header("x-amz-delete-marker")), (204, Some("true")));
}

#[tokio::test]
async fn deleting_the_current_version_makes_the_one_before_it_current() {
    let server = versioned().await;
    let client = &server.client;
    let mut ids = Vec::new();
    for body in ["0", "1", "2", "3"] {
        ids.push(put(client, "/bkt/k", body).await);
    }
    client.delete(&format!("/bkt/k?versionId={}", ids[1])).await;
    for (gone, current) in [(3, "2"), (2, "0")] {
        let deleted = client.delete(&format!("/bkt/k?versionId={}", ids[gone])).await;
        assert_eq!((deleted.status, deleted.header("x-amz-version-id")), (204, Some(&*ids[gone])));
        assert_eq!(body_of(client, "/bkt/k").await, current);
        client.get(&format!("/bkt/k?versionId={}", ids[gone])).await.is(404, "NoSuchVersion");
    }
    assert_eq!(listed(client, "").await, [(ids[0].clone(), "true".to_owned())]);
    assert_eq!(client.delete(&format!("/bkt/k?versionId={}", ids[0])).await.status, 204);
    client.get("/bkt/k").await.is(404, "NoSuchKey");
    assert!(listed(client, "").await.is_empty());
    let again = client.delete(&format!("/bkt/k?versionId={}", ids[0])).await;
    assert_eq!((again.status, again.header("x-amz-version-id")), (204, Some(&*ids[0])), "an unknown version is deleted already");
    assert_eq!(client.delete("/bkt").await.status, 204);
}

#[tokio::test]
async fn objects_from_before_and_after_are_the_version_null() {
    let server = Server::start().await;
    let client = &server.client;
    assert_eq!(client.put("/bkt/k", "before").await.ok().header("x-amz-version-id"), None);
    assert_eq!(client.head("/bkt/k").await.ok().header("x-amz-version-id"), None);
    client.put("/bkt?versioning", ENABLED).await.ok();
    assert_eq!(client.head("/bkt/k").await.ok().header("x-amz-version-id"), Some("null"));
    let kept = put(client, "/bkt/k", "kept").await;
    assert_eq!(body_of(client, "/bkt/k?versionId=null").await, "before");
    client.put("/bkt?versioning", SUSPENDED).await.ok();
    for body in ["null 1", "null 2"] {
        assert_eq!(client.put("/bkt/k", body).await.ok().header("x-amz-version-id"), None);
        assert_eq!(client.head("/bkt/k").await.ok().header("x-amz-version-id"), Some("null"));
    }
    let source = format!("bkt/k?versionId={kept}");
    let copied = client.call("PUT", "/bkt/copy").header("x-amz-copy-source", &source).send().await.ok();
    assert_eq!((copied.header("x-amz-version-id"), copied.header("x-amz-copy-source-version-id")), (None, Some(&*kept)));
    client.delete("/bkt/copy?versionId=null").await.ok();
    assert_eq!(body_of(client, "/bkt/k?versionId=null").await, "null 2");
    assert_eq!(listed(client, "").await, [("null".to_owned(), "true".to_owned()), (kept.clone(), "false".to_owned())]);
    let deleted = client.delete("/bkt/k").await;
    assert_eq!((deleted.header("x-amz-delete-marker"), deleted.header("x-amz-version-id")), (Some("true"), Some("null")));
    assert_eq!(listed(client, "").await.len(), 2, "the marker took the place of the version null");
    client.get("/bkt/k?versionId=null").await.is(405, "MethodNotAllowed");
    client.put("/bkt?versioning", ENABLED).await.ok();
    let newest = put(client, "/bkt/k", "newest").await;
    assert_eq!(client.delete("/bkt/k?versionId=null").await.status, 204);
    let ids: Vec<String> = listed(client, "").await.into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, [newest, kept]);
}

#[tokio::test]
async fn listings_of_versions_go_on_where_they_stopped() {
    let server = versioned().await;
    let client = &server.client;
    let mut expected = Vec::new();
    for key in ["a/1", "a/2", "b", "c"] {
        let mut ids = Vec::new();
        for body in ["1", "2", "3"] {
            ids.push(put(client, &format!("/bkt/{key}"), body).await);
        }
        ids.reverse();
        expected.extend(ids.into_iter().map(|id| (key.to_owned(), id)));
    }
    for size in [1, 2, 5, 100] {
        let (mut all, mut markers) = (Vec::new(), String::new());
        loop {
            let page = client.get(&format!("/bkt?versions&max-keys={size}{markers}")).await.ok();
            all.extend(page.elements("Key").into_iter().zip(page.elements("VersionId")));
            if page.element("IsTruncated").as_deref() == Some("false") {
                break;
            }
            let (key, id) = (page.element("NextKeyMarker").unwrap(), page.element("NextVersionIdMarker").unwrap());
            markers = format!("&key-marker={}&version-id-marker={id}", key.replace('/', "%2F"));
        }
        assert_eq!(all, expected, "{size} a page");
    }
    let folded = client.get("/bkt?versions&delimiter=%2F").await.ok();
    assert_eq!((folded.elements("CommonPrefixes").len(), folded.elements("Key").len()), (1, 6));
    assert_eq!(client.get("/bkt?versions&prefix=a%2F").await.ok().elements("Key").len(), 6);
    assert_eq!(client.get("/bkt?versions&key-marker=b").await.ok().elements("Key"), ["c", "c", "c"]);
    client.get("/bkt?versions&version-id-marker=null").await.is(400, "InvalidArgument");
    client.get("/bkt?versions&key-marker=b&version-id-marker=nonsense").await.is(400, "InvalidArgument");
}

#[tokio::test]
async fn a_listing_goes_on_behind_versions_that_were_deleted_meanwhile() {
    let server = versioned().await;
    let client = &server.client;
    for body in ["1", "2", "3", "4", "5"] {
        put(client, "/bkt/k", body).await;
    }
    let (mut markers, mut count) = (String::new(), 0);
    loop {
        let page = client.get(&format!("/bkt?versions&max-keys=2{markers}")).await.ok();
        let ids = page.elements("VersionId");
        count += ids.len();
        let named: String = ids.iter().map(|id| format!("<Object><Key>k</Key><VersionId>{id}</VersionId></Object>")).collect();
        let deleted = client.post("/bkt?delete", format!("<Delete>{named}</Delete>")).await.ok();
        assert_eq!(deleted.elements("Deleted").len(), ids.len(), "{}", deleted.text());
        if page.element("IsTruncated").as_deref() == Some("false") {
            break;
        }
        markers = format!("&key-marker=k&version-id-marker={}", page.element("NextVersionIdMarker").unwrap());
    }
    assert_eq!(count, 5);
    assert_eq!(client.delete("/bkt").await.status, 204, "nothing is left");
}

#[tokio::test]
async fn many_deletions_tell_of_markers_and_versions() {
    let server = versioned().await;
    let client = &server.client;
    let id = put(client, "/bkt/a", "x").await;
    let answer = client.post("/bkt?delete", "<Delete><Object><Key>a</Key></Object></Delete>").await.ok();
    assert_eq!(answer.elements("DeleteMarker"), ["true"]);
    let marker = answer.element("DeleteMarkerVersionId").unwrap();
    let named = [&*id, &*marker, "null", "nonsense"].map(|id| format!("<Object><Key>a</Key><VersionId>{id}</VersionId></Object>")).concat();
    let answer = client.post("/bkt?delete", format!("<Delete>{named}</Delete>")).await.ok();
    assert_eq!(answer.elements("Deleted").len(), 3, "{}", answer.text());
    assert_eq!((answer.elements("DeleteMarkerVersionId"), answer.elements("Code")), (vec![marker], vec!["NoSuchVersion".to_owned()]));
    assert!(listed(client, "").await.is_empty());
}

#[tokio::test]
async fn versions_are_copied_from_and_conditions_look_at_the_current_one() {
    let server = versioned().await;
    let client = &server.client;
    let old = put(client, "/bkt/k", "old").await;
    put(client, "/bkt/k", "new").await;
    let source = format!("bkt/k?versionId={old}");
    let copied = client.call("PUT", "/bkt/k").header("x-amz-copy-source", &source).send().await.ok();
    assert_eq!(copied.header("x-amz-copy-source-version-id"), Some(&*old));
    assert_ne!(copied.header("x-amz-version-id"), Some(&*old));
    assert_eq!(body_of(client, "/bkt/k").await, "old");
    let none = client.call("PUT", "/bkt/k").header("if-none-match", "*").body("x").send().await;
    none.is(412, "PreconditionFailed");
    assert_eq!(client.get("/bkt?versions").await.ok().elements("Version").len(), 3, "a refused write leaves no version");
    let marker = client.delete("/bkt/k").await.header("x-amz-version-id").unwrap().to_owned();
    for etag in ["*".to_owned(), crate::client::etag(b"old")] {
        client.call("DELETE", "/bkt/k").header("if-match", etag).send().await.is(404, "NoSuchKey");
    }
    assert_eq!(client.get("/bkt?versions").await.ok().elements("DeleteMarker").len(), 1, "a refused deletion leaves no marker");
    let from_marker = format!("bkt/k?versionId={marker}");
    client.call("PUT", "/bkt/c").header("x-amz-copy-source", &from_marker).send().await.is(400, "InvalidRequest");
    client.call("PUT", "/bkt/c").header("x-amz-copy-source", "bkt/k").send().await.is(404, "NoSuchKey");
    client.call("PUT", "/bkt/k").header("if-none-match", "*").body("x").send().await.ok();
    let stale = client.call("DELETE", &format!("/bkt/k?versionId={old}")).header("if-match", "\"00000000000000000000000000000000\"");
    stale.send().await.is(412, "PreconditionFailed");
    let matching = client.call("DELETE", &format!("/bkt/k?versionId={old}")).header("if-match", crate::client::etag(b"old"));
    assert_eq!(matching.send().await.status, 204);
}

#[tokio::test]
async fn uploads_and_attributes_name_their_version() {
    let server = versioned().await;
    let client = &server.client;
    let upload = client.post("/bkt/m?uploads", "").await.ok().element("UploadId").unwrap();
    let part = client.put(&format!("/bkt/m?partNumber=1&uploadId={upload}"), "part").await.ok();
    let list = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{}</ETag></Part></CompleteMultipartUpload>",
        part.header("etag").unwrap()
    );
    let completed = client.post(&format!("/bkt/m?uploadId={upload}"), &list).await.ok();
    let id = completed.header("x-amz-version-id").unwrap().to_owned();
    let repeated = client.post(&format!("/bkt/m?uploadId={upload}"), &list).await.ok();
    assert_eq!(repeated.header("x-amz-version-id"), Some(&*id));
    put(client, "/bkt/m", "newer").await;
    let target = format!("/bkt/m?attributes&versionId={id}");
    let attributes = client.call("GET", &target).header("x-amz-object-attributes", "ObjectSize").send().await.ok();
    assert_eq!((attributes.header("x-amz-version-id"), attributes.element("ObjectSize").as_deref()), (Some(&*id), Some("4")));
    assert_eq!(body_of(client, &format!("/bkt/m?versionId={id}")).await, "part");
}

#[tokio::test]
async fn tags_and_lists_are_of_the_version_that_is_named() {
    let server = versioned().await;
    let client = &server.client;
    let set = |value: &str| format!("<Tagging><TagSet><Tag><Key>a</Key><Value>{value}</Value></Tag></TagSet></Tagging>");
    let (old, new) = (put(client, "/bkt/k", "old").await, put(client, "/bkt/k", "new").await);
    let of = |id: &str| format!("/bkt/k?tagging&versionId={id}");
    assert_eq!(client.put(&of(&old), set("1")).await.ok().header("x-amz-version-id"), Some(&*old));
    assert_eq!(client.put("/bkt/k?tagging", set("2")).await.ok().header("x-amz-version-id"), Some(&*new));
    for (target, id, value) in [(of(&old), &old, "1"), (of(&new), &new, "2"), ("/bkt/k?tagging".to_owned(), &new, "2")] {
        let got = client.get(&target).await.ok();
        assert_eq!((got.elements("Value"), got.header("x-amz-version-id")), (vec![value.to_owned()], Some(&**id)));
    }
    assert_eq!(client.head(&format!("/bkt/k?versionId={old}")).await.ok().header("x-amz-tagging-count"), Some("1"));
    let deleted = client.delete(&of(&old)).await;
    assert_eq!((deleted.status, deleted.header("x-amz-version-id")), (204, Some(&*old)));
    assert!(client.get(&of(&old)).await.ok().elements("Key").is_empty());
    assert_eq!(client.get("/bkt/k?tagging").await.ok().elements("Value"), ["2"], "the other version keeps its tags");
    assert_eq!(listed(client, "").await, [(new.clone(), "true".to_owned()), (old.clone(), "false".to_owned())], "tags are no new version");
    assert_eq!(client.get(&format!("/bkt/k?acl&versionId={old}")).await.ok().elements("Permission"), ["FULL_CONTROL"]);
    for document in [set(&"v".repeat(257)), "<Tagging/>".to_owned()] {
        assert_eq!(client.put(&of(&new), document).await.status, 400);
    }
    assert_eq!(client.get(&of(&new)).await.ok().elements("Value"), ["2"]);

    let unknown = of(&old.replace(['0', '1', '2', '3'], "a"));
    for answer in [client.get(&unknown).await, client.put(&unknown, set("3")).await, client.delete(&unknown).await] {
        answer.is(404, "NoSuchVersion");
        assert_eq!((answer.element("Key").as_deref(), answer.element("VersionId").is_some()), (Some("k"), true));
    }
    client.put(&of("nonsense"), set("3")).await.is(400, "InvalidArgument");
    let marker = client.delete("/bkt/k").await.header("x-amz-version-id").unwrap().to_owned();
    for answer in [client.get(&of(&marker)).await, client.put(&of(&marker), set("3")).await, client.delete(&of(&marker)).await] {
        answer.is(405, "MethodNotAllowed");
        assert_eq!((answer.header("allow"), answer.header("x-amz-delete-marker")), (Some("DELETE"), Some("true")));
    }
    client.put("/bkt/k?tagging", set("3")).await.is(404, "NoSuchKey");
}
