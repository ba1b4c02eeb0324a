//! Lifecycle rules: stored, shown, and carried out with days as short as a test needs.

use std::time::Duration;

use garage_model::lifecycle::{Done, Lifecycle, LifecycleOptions};

use crate::server::{Server, context};

const ENABLED: &str = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";

fn rule(inner: &str) -> String {
    format!("<LifecycleConfiguration><Rule><ID>r</ID><Status>Enabled</Status>{inner}</Rule></LifecycleConfiguration>")
}

/// Carries out the rules of `bkt` with days of one millisecond.
async fn run(server: &Server) -> Done {
    let options = LifecycleOptions { day_ms: 1, ..LifecycleOptions::default() };
    let node = &server.node;
    let lifecycle = Lifecycle::new(node.objects.clone(), node.uploads.clone(), node.access.buckets().clone(), options);
    let bucket = node.access.buckets().resolve(None, "bkt", context()).await.unwrap().unwrap();
    // Whatever was written before is a day old, and more.
    tokio::time::sleep(Duration::from_millis(5)).await;
    let mut done = Done::default();
    lifecycle.run_bucket(bucket.id, &mut done).await.unwrap();
    done
}

#[tokio::test]
async fn rules_are_kept_shown_and_taken_away() {
    let server = Server::start().await;
    let client = &server.client;
    client.get("/bkt?lifecycle").await.is(404, "NoSuchLifecycleConfiguration");
    client.put("/bkt?lifecycle", rule("<Filter/><Expiration><Days>3</Days></Expiration>")).await.ok();
    let got = client.get("/bkt?lifecycle").await.ok();
    assert_eq!((got.element("ID").as_deref(), got.element("Days").as_deref()), (Some("r"), Some("3")));
    let put = client.put("/bkt/k", "x").await.ok();
    let expiration = put.header("x-amz-expiration").unwrap().to_owned();
    assert!(expiration.starts_with("expiry-date=\"") && expiration.ends_with("00:00:00 GMT\", rule-id=\"r\""), "{expiration}");
    assert_eq!(client.head("/bkt/k").await.ok().header("x-amz-expiration"), Some(&*expiration));
    client.put("/bkt?lifecycle", rule("<Filter/>")).await.is(400, "InvalidRequest");
    client.get("/bkt?lifecycle").await.ok();
    client.put("/bkt?lifecycle", rule("<Prefix>up/</Prefix><AbortIncompleteMultipartUpload><DaysAfterInitiation>2</DaysAfterInitiation></AbortIncompleteMultipartUpload>")).await.ok();
    let upload = client.post("/bkt/up/k?uploads", "").await.ok();
    assert_eq!(upload.header("x-amz-abort-rule-id"), Some("r"));
    let due = upload.header("x-amz-abort-date").unwrap().to_owned();
    let listed = client.get(&format!("/bkt/up/k?uploadId={}", upload.element("UploadId").unwrap())).await.ok();
    assert_eq!((listed.header("x-amz-abort-date"), listed.header("x-amz-abort-rule-id")), (Some(&*due), Some("r")));
    assert_eq!(client.delete("/bkt?lifecycle").await.status, 204);
    client.get("/bkt?lifecycle").await.is(404, "NoSuchLifecycleConfiguration");
}

#[tokio::test]
async fn the_size_from_which_s3_moves_objects_is_shown_as_it_was_set() {
    let server = Server::start().await;
    let client = &server.client;
    const NAME: &str = "x-amz-transition-default-minimum-object-size";
    let rules = rule("<Filter/><Expiration><Days>3</Days></Expiration>");
    let put = |value: &'static str| client.call("PUT", "/bkt?lifecycle").header(NAME, value).body(&rules).send();
    for value in ["varies_by_storage_class", "all_storage_classes_128K"] {
        assert_eq!(put(value).await.ok().header(NAME), Some(value));
        assert_eq!(client.get("/bkt?lifecycle").await.ok().header(NAME), Some(value));
    }
    put("varies_by_storage_class").await.ok();
    put("nonsense").await.is(400, "InvalidArgument");
    assert_eq!(client.get("/bkt?lifecycle").await.ok().header(NAME), Some("varies_by_storage_class"));
    client.put("/bkt?lifecycle", &rules).await.ok();
    assert_eq!(client.get("/bkt?lifecycle").await.ok().header(NAME), Some("all_storage_classes_128K"), "unless it is asked for again");
}

#[tokio::test]
async fn an_expiration_by_tags_is_told_of_uploads_and_copies_too() {
    let server = Server::start().await;
    let client = &server.client;
    let filter = "<Filter><Tag><Key>a</Key><Value>b</Value></Tag></Filter>";
    client.put("/bkt?lifecycle", rule(&format!("{filter}<Expiration><Days>3</Days></Expiration>"))).await.ok();
    let upload = |tags: &'static str| async move {
        let id = client.call("POST", "/bkt/m?uploads").header("x-amz-tagging", tags).send().await.ok().element("UploadId").unwrap();
        let part = client.put(&format!("/bkt/m?partNumber=1&uploadId={id}"), "x").await.ok();
        let etag = part.header("etag").unwrap();
        let list = format!("<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part></CompleteMultipartUpload>");
        let (first, repeated) =
            (client.post(&format!("/bkt/m?uploadId={id}"), &list).await, client.post(&format!("/bkt/m?uploadId={id}"), &list).await);
        [first, repeated].map(|answer| answer.ok().header("x-amz-expiration").map(str::to_owned))
    };
    let told = upload("a=b").await;
    assert_eq!(told, [client.head("/bkt/m").await.ok().header("x-amz-expiration").map(str::to_owned), told[0].clone()]);
    assert!(told[0].as_ref().is_some_and(|told| told.ends_with("rule-id=\"r\"")), "{told:?}");
    let copied = client.call("PUT", "/bkt/copy").header("x-amz-copy-source", "bkt/m").send().await.ok();
    assert!(copied.header("x-amz-expiration").is_some());
    let put = |tags: &'static str| client.call("PUT", "/bkt/k").header("x-amz-tagging", tags).body("x").send();
    assert!(put("a=b").await.ok().header("x-amz-expiration").is_some());
    assert_eq!(put("a=c").await.ok().header("x-amz-expiration"), None);
    assert_eq!(upload("a=c").await, [None, None]);
}

#[tokio::test]
async fn objects_expire_by_age_prefix_and_size() {
    let server = Server::start().await;
    let client = &server.client;
    for (key, size) in [("logs/small", 5), ("logs/large", 50), ("other", 50)] {
        client.put(&format!("/bkt/{key}"), "x".repeat(size)).await.ok();
    }
    let filter = "<Filter><And><Prefix>logs/</Prefix><ObjectSizeGreaterThan>10</ObjectSizeGreaterThan></And></Filter>";
    client.put("/bkt?lifecycle", rule(&format!("{filter}<Expiration><Days>1</Days></Expiration>"))).await.ok();
    assert_eq!(run(&server).await, Done { deleted_count: 1, ..Done::default() });
    assert_eq!(client.get("/bkt").await.ok().elements("Key"), ["logs/small", "other"]);
    let future = rule("<Filter/><Expiration><Date>2100-01-01T00:00:00Z</Date></Expiration>");
    client.put("/bkt?lifecycle", future).await.ok();
    assert_eq!(run(&server).await, Done::default());
    client.put("/bkt?lifecycle", rule("<Filter/><Expiration><Date>2001-01-01T00:00:00Z</Date></Expiration>")).await.ok();
    assert_eq!(run(&server).await.deleted_count, 2);
}

#[tokio::test]
async fn versions_go_by_number_and_age_and_locked_ones_stay() {
    let server = Server::start().await;
    let client = &server.client;
    client.put("/bkt?versioning", ENABLED).await.ok();
    let lock = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>";
    client.put("/bkt?object-lock", lock).await.ok();
    let mut ids = Vec::new();
    for body in ["0", "1", "2", "3", "4"] {
        ids.push(client.put("/bkt/k", body).await.ok().header("x-amz-version-id").unwrap().to_owned());
    }
    client.put(&format!("/bkt/k?legal-hold&versionId={}", ids[0]), "<LegalHold><Status>ON</Status></LegalHold>").await.ok();
    let noncurrent = "<NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays><NewerNoncurrentVersions>2</NewerNoncurrentVersions>\
                      </NoncurrentVersionExpiration>";
    client.put("/bkt?lifecycle", rule(&format!("<Filter/>{noncurrent}"))).await.ok();
    assert_eq!(run(&server).await, Done { deleted_count: 1, ..Done::default() });
    let left = client.get("/bkt?versions").await.ok().elements("VersionId");
    assert_eq!(left, [&*ids[4], &*ids[3], &*ids[2], &*ids[0]], "the held version is the oldest and stays");
}

#[tokio::test]
async fn current_versions_get_a_marker_and_lone_markers_go() {
    let server = Server::start().await;
    let client = &server.client;
    client.put("/bkt?versioning", ENABLED).await.ok();
    client.put("/bkt/k", "x").await.ok();
    client.put("/bkt?lifecycle", rule("<Filter/><Expiration><Days>1</Days></Expiration>")).await.ok();
    assert_eq!(run(&server).await, Done { marked_count: 1, ..Done::default() });
    client.get("/bkt/k").await.is(404, "NoSuchKey");
    assert_eq!(run(&server).await, Done::default(), "a marker over a version stays");
    let versions = client.get("/bkt?versions").await.ok();
    assert_eq!((versions.elements("Version").len(), versions.elements("DeleteMarker").len()), (1, 1));
    let both = "<Filter/><Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>\
                <NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays></NoncurrentVersionExpiration>";
    client.put("/bkt?lifecycle", rule(both)).await.ok();
    assert_eq!(run(&server).await.deleted_count, 1, "the older version goes first");
    assert_eq!(run(&server).await.deleted_count, 1, "then the marker is alone");
    assert_eq!(client.delete("/bkt").await.status, 204);
}

#[tokio::test]
async fn uploads_that_nobody_completes_are_aborted() {
    let server = Server::start().await;
    let client = &server.client;
    for key in ["tmp/a", "tmp/b", "kept"] {
        client.post(&format!("/bkt/{key}?uploads"), "").await.ok();
    }
    let abort = "<AbortIncompleteMultipartUpload><DaysAfterInitiation>1</DaysAfterInitiation></AbortIncompleteMultipartUpload>";
    client.put("/bkt?lifecycle", rule(&format!("<Filter><Prefix>tmp/</Prefix></Filter>{abort}"))).await.ok();
    assert_eq!(run(&server).await, Done { aborted_count: 2, ..Done::default() });
    assert_eq!(client.get("/bkt?uploads").await.ok().elements("Key"), ["kept"]);
}

#[tokio::test]
async fn a_disabled_rule_does_nothing() {
    let server = Server::start().await;
    let client = &server.client;
    client.put("/bkt/k", "x").await.ok();
    let disabled = rule("<Filter/><Expiration><Days>1</Days></Expiration>").replace("Enabled", "Disabled");
    client.put("/bkt?lifecycle", disabled).await.ok();
    assert_eq!(client.head("/bkt/k").await.ok().header("x-amz-expiration"), None);
    assert_eq!(run(&server).await, Done::default());
}
