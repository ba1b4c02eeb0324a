//! Buckets and their settings.

use garage_model::rows::bucket::Permissions;

use crate::{client::Signed, server::Server};

#[tokio::test]
async fn buckets_are_made_listed_and_deleted() {
    let server = Server::start().await;
    let client = &server.client;
    let made = client.put("/new-bucket", "").await.ok();
    assert_eq!(made.header("location"), Some("/new-bucket"));
    client.put("/new-bucket", "").await.is(409, "BucketAlreadyOwnedByYou");
    let listed = client.get("/").await.ok();
    assert_eq!(listed.elements("Name"), ["bkt", "new-bucket"]);
    assert_eq!(listed.element("DisplayName").as_deref(), Some("tester"));
    assert_eq!(client.get("/?prefix=new").await.ok().elements("Name"), ["new-bucket"]);
    let page = client.get("/?max-buckets=1").await.ok();
    let token = page.element("ContinuationToken").unwrap();
    let next = client.get(&format!("/?max-buckets=1&continuation-token={token}")).await.ok();
    assert_eq!((next.elements("Name"), next.element("ContinuationToken")), (vec!["new-bucket".to_owned()], None));
    client.get("/?max-buckets=0").await.is(400, "InvalidArgument");
    let head = client.head("/new-bucket").await.ok();
    assert_eq!(head.header("x-amz-bucket-region"), Some("garage"));
    client.put("/new-bucket/k", "x").await.ok();
    client.delete("/new-bucket").await.is(409, "BucketNotEmpty");
    client.put("/new-bucket/k2", "still usable").await.ok();
    client.delete("/new-bucket/k").await.ok();
    client.delete("/new-bucket/k2").await.ok();
    assert_eq!(client.delete("/new-bucket").await.status, 204);
    let gone = client.head("/new-bucket").await;
    assert_eq!((gone.status, gone.header("x-amz-bucket-region")), (404, Some("garage")));
    client.get("/new-bucket").await.is(404, "NoSuchBucket");
    client.delete("/new-bucket").await.is(404, "NoSuchBucket");
}

#[tokio::test]
async fn a_bucket_is_made_only_as_asked() {
    let server = Server::start().await;
    let client = &server.client;
    for name in ["ab", "Upper", "under_score", "192.168.1.1", "-x-", "x--x-s3", "sthree-x"] {
        client.put(&format!("/{name}"), "").await.is(400, "InvalidBucketName");
    }
    client.get("/Upper/k").await.is(400, "InvalidBucketName");
    let with = |constraint: &str| {
        format!("<CreateBucketConfiguration><LocationConstraint>{constraint}</LocationConstraint></CreateBucketConfiguration>")
    };
    client.put("/elsewhere", with("eu-west-1")).await.is(400, "InvalidLocationConstraint");
    client.put("/here", with("garage")).await.ok();
    client.put("/there", "<Create").await.is(400, "MalformedXML");
    let header = |name: &str, value: &str| client.call("PUT", "/other").header(name, value).send();
    header("x-amz-acl", "public-read").await.is(400, "InvalidBucketAclWithObjectOwnership");
    header("x-amz-bucket-object-lock-enabled", "perhaps").await.is(400, "InvalidArgument");
    header("x-amz-object-ownership", "Nobody").await.is(400, "InvalidArgument");
    header("x-amz-acl", "private").await.ok();
}

#[tokio::test]
async fn keys_do_only_what_they_may() {
    let server = Server::start().await;
    server.client.put("/bkt/k", "x").await.ok();
    let nobody = server.other_client(Permissions::default(), false).await;
    nobody.get("/bkt/k").await.is(403, "AccessDenied");
    assert_eq!(nobody.head("/bkt").await.status, 403);
    nobody.put("/bkt", "").await.is(403, "AccessDenied");
    nobody.put("/fresh", "").await.is(403, "AccessDenied");
    assert!(nobody.get("/").await.ok().elements("Name").is_empty());
    let maker = server.other_client(Permissions::default(), true).await;
    maker.put("/bkt", "").await.is(409, "BucketAlreadyExists");
    let reader = server.other_client(Permissions { read: true, ..Permissions::default() }, false).await;
    reader.get("/bkt/k").await.ok();
    reader.get("/bkt/none").await.is(404, "NoSuchKey");
    reader.put("/bkt/k", "y").await.is(403, "AccessDenied");
    reader.delete("/bkt/k").await.is(403, "AccessDenied");
    reader.delete("/bkt").await.is(403, "AccessDenied");
    let writer = server.other_client(Permissions { write: true, ..Permissions::default() }, false).await;
    writer.put("/bkt/k", "y").await.ok();
    writer.get("/bkt/k").await.is(403, "AccessDenied");
    writer.get("/bkt").await.is(403, "AccessDenied");
    writer.call("PUT", "/bkt/copy").header("x-amz-copy-source", "bkt/k").send().await.is(403, "AccessDenied");
    let owner = |expected: &str| reader.call("GET", "/bkt/k").header("x-amz-expected-bucket-owner", expected).send();
    owner(&server.client.key).await.ok();
    owner("111122223333").await.is(403, "AccessDenied");
}

#[tokio::test]
async fn settings_that_were_never_set_have_their_answers() {
    let server = Server::start().await;
    let client = &server.client;
    for (selector, status, answer) in [
        ("versioning", 200, "VersioningConfiguration"),
        ("cors", 404, "NoSuchCORSConfiguration"),
        ("lifecycle", 404, "NoSuchLifecycleConfiguration"),
        ("policy", 404, "NoSuchBucketPolicy"),
        ("policyStatus", 404, "NoSuchBucketPolicy"),
        ("publicAccessBlock", 404, "NoSuchPublicAccessBlockConfiguration"),
        ("ownershipControls", 200, "BucketOwnerEnforced"),
        ("website", 404, "NoSuchWebsiteConfiguration"),
        ("tagging", 404, "NoSuchTagSet"),
        ("encryption", 404, "ServerSideEncryptionConfigurationNotFoundError"),
        ("object-lock", 404, "ObjectLockConfigurationNotFoundError"),
        ("replication", 404, "ReplicationConfigurationNotFoundError"),
        ("logging", 200, "BucketLoggingStatus"),
        ("notification", 200, "NotificationConfiguration"),
        ("accelerate", 200, "AccelerateConfiguration"),
        ("requestPayment", 200, "<Payer>BucketOwner</Payer>"),
        ("analytics", 200, "<IsTruncated>false</IsTruncated>"),
        ("metrics&id=x", 404, "NoSuchConfiguration"),
        ("acl", 200, "FULL_CONTROL"),
        ("location", 200, ">garage</LocationConstraint>"),
    ] {
        let got = client.get(&format!("/bkt?{selector}")).await;
        assert!(got.status == status && got.text().contains(answer), "{selector}: {} {}", got.status, got.text());
        assert_eq!(got.header("content-type"), Some("application/xml"));
    }
    for selector in ["cors", "lifecycle", "policy", "tagging", "website"] {
        assert_eq!(client.delete(&format!("/bkt?{selector}")).await.status, 204, "{selector}");
    }
    client.put("/bkt?logging", "<BucketLoggingStatus/>").await.ok();
    client.put("/bkt?logging", "<BucketLoggingStatus><LoggingEnabled/></BucketLoggingStatus>").await.is(501, "NotImplemented");
    client.put("/bkt?acl", "<AccessControlPolicy/>").await.is(400, "MalformedACLError");
}

#[tokio::test]
async fn a_preflight_finds_no_rules() {
    let server = Server::start().await;
    let preflight = || server.client.call("OPTIONS", "/bkt/k").signed(Signed::No);
    preflight().send().await.is(400, "BadRequest");
    preflight().header("origin", "http://x").send().await.is(400, "BadRequest");
    let asked = preflight().header("origin", "http://x").header("access-control-request-method", "GET").send().await;
    asked.is(403, "AccessForbidden");
    assert_eq!(asked.element("ResourceType").as_deref(), Some("BUCKET"));
}
