//! Object lock: what is set, what it forbids, and that nothing gets round it.

use std::time::SystemTime;

use garage_api_common::time::iso8601;

use crate::{
    client::{Client, etag},
    server::Server,
};

const ENABLED: &str = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
const LOCK: &str = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>";
const FAR: &str = "2100-01-01T00:00:00.000Z";
const FARTHER: &str = "2100-01-02T00:00:00.000Z";

fn retention(mode: &str, until: &str) -> String {
    format!("<Retention><Mode>{mode}</Mode><RetainUntilDate>{until}</RetainUntilDate></Retention>")
}

/// The time in so many days.
fn in_days(days: u64) -> String {
    let now_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64;
    iso8601(now_ms + days * 24 * 3_600_000)
}

/// A server with the bucket `safe`, which has object lock.
async fn locked() -> Server {
    let server = Server::start().await;
    server.client.call("PUT", "/safe").header("x-amz-bucket-object-lock-enabled", "true").send().await.ok();
    server
}

async fn put(client: &Client, target: &str, headers: &[(&str, &str)]) -> String {
    let call = headers.iter().fold(client.call("PUT", target).body("x"), |call, (name, value)| call.header(name, value));
    call.send().await.ok().header("x-amz-version-id").expect("a versioned bucket answers an id").to_owned()
}

async fn delete_version(client: &Client, key: &str, id: &str, bypass: bool) -> (u16, String) {
    let call = client.call("DELETE", &format!("/safe/{key}?versionId={id}"));
    let call = if bypass { call.header("x-amz-bypass-governance-retention", "true") } else { call };
    let answer = call.send().await;
    (answer.status, if answer.status == 204 { String::new() } else { answer.code() })
}

fn denied() -> (u16, String) {
    (403, "AccessDenied".to_owned())
}

fn done() -> (u16, String) {
    (204, String::new())
}

#[tokio::test]
async fn a_bucket_gets_object_lock_and_keeps_it() {
    let server = locked().await;
    let client = &server.client;
    assert_eq!(client.get("/safe?versioning").await.ok().element("Status").as_deref(), Some("Enabled"));
    assert_eq!(client.get("/safe?object-lock").await.ok().element("ObjectLockEnabled").as_deref(), Some("Enabled"));
    let suspended = "<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>";
    client.put("/safe?versioning", suspended).await.is(409, "InvalidBucketState");
    client.get("/bkt?object-lock").await.is(404, "ObjectLockConfigurationNotFoundError");
    client.put("/bkt?object-lock", LOCK).await.is(409, "InvalidBucketState");
    client.put("/bkt?versioning", ENABLED).await.ok();
    client.put("/bkt?object-lock", LOCK).await.ok();
    client.get("/bkt?object-lock").await.ok();
    client.delete("/bkt?object-lock").await.is(405, "MethodNotAllowed");
}

#[tokio::test]
async fn governance_yields_to_a_bypass_and_compliance_to_nothing() {
    let server = locked().await;
    let client = &server.client;
    let with = |mode| [("x-amz-object-lock-mode", mode), ("x-amz-object-lock-retain-until-date", FAR)];
    let (soft, hard) = (put(client, "/safe/soft", &with("GOVERNANCE")).await, put(client, "/safe/hard", &with("COMPLIANCE")).await);
    assert_eq!(delete_version(client, "soft", &soft, false).await, denied());
    assert_eq!(delete_version(client, "hard", &hard, true).await, denied());
    assert_eq!(client.delete("/safe/hard").await.status, 204, "a marker is always allowed");
    client.put("/safe/hard", "a newer version is, too").await.ok();
    assert_eq!(delete_version(client, "hard", &hard, true).await, denied(), "older versions stay locked");
    assert_eq!(delete_version(client, "soft", &soft, true).await, done());
    let head = client.head(&format!("/safe/hard?versionId={hard}")).await.ok();
    assert_eq!(head.header("x-amz-object-lock-mode"), Some("COMPLIANCE"));
    assert_eq!(head.header("x-amz-object-lock-retain-until-date"), Some(FAR));
    assert_eq!(client.delete("/safe").await.code(), "BucketNotEmpty");
}

#[tokio::test]
async fn retentions_change_only_as_their_mode_allows() {
    let server = locked().await;
    let client = &server.client;
    let id = put(client, "/safe/k", &[]).await;
    client.get("/safe/k?retention").await.is(404, "NoSuchObjectLockConfiguration");
    let set = |mode: &'static str, until: &'static str, bypass: &'static str| {
        let call = client.call("PUT", &format!("/safe/k?retention&versionId={id}")).body(retention(mode, until));
        call.header("x-amz-bypass-governance-retention", bypass).send()
    };
    assert_eq!(set("GOVERNANCE", FARTHER, "false").await.ok().header("x-amz-version-id"), Some(&*id));
    let got = client.get("/safe/k?retention").await.ok();
    assert_eq!((got.element("Mode").as_deref(), got.element("RetainUntilDate").as_deref()), (Some("GOVERNANCE"), Some(FARTHER)));
    set("GOVERNANCE", FAR, "false").await.is(403, "AccessDenied");
    set("GOVERNANCE", FAR, "true").await.ok();
    client.put("/safe/k?retention", "<Retention/>").await.is(403, "AccessDenied");
    set("COMPLIANCE", FAR, "false").await.ok();
    set("COMPLIANCE", FARTHER, "false").await.ok();
    set("COMPLIANCE", FAR, "true").await.is(403, "AccessDenied");
    set("GOVERNANCE", FARTHER, "true").await.is(403, "AccessDenied");
    client
        .call("PUT", "/safe/k?retention")
        .body("<Retention/>")
        .header("x-amz-bypass-governance-retention", "true")
        .send()
        .await
        .is(403, "AccessDenied");
    let modified = client.head("/safe/k").await.ok().header("last-modified").map(str::to_owned);
    assert!(modified.is_some());
    assert_eq!(client.get("/safe?versions").await.ok().elements("Version").len(), 1, "a lock is no new version");
    assert_eq!(delete_version(client, "k", &id, true).await, denied());
}

#[tokio::test]
async fn a_legal_hold_is_a_lock_of_its_own() {
    let server = locked().await;
    let client = &server.client;
    let id = put(client, "/safe/k", &[("x-amz-object-lock-legal-hold", "ON")]).await;
    put(client, "/safe/k", &[]).await;
    client.get("/safe/k?legal-hold").await.is(404, "NoSuchObjectLockConfiguration");
    let hold = format!("/safe/k?legal-hold&versionId={id}");
    assert_eq!(client.get(&hold).await.ok().element("Status").as_deref(), Some("ON"));
    assert_eq!(delete_version(client, "k", &id, true).await, denied());
    client.put(&hold, "<LegalHold><Status>OFF</Status></LegalHold>").await.ok();
    assert_eq!(client.get(&hold).await.ok().element("Status").as_deref(), Some("OFF"));
    assert_eq!(delete_version(client, "k", &id, false).await, done());
    client.put("/safe/k?legal-hold", "<LegalHold><Status>on</Status></LegalHold>").await.is(400, "MalformedXML");
    client.put("/safe/none?legal-hold", "<LegalHold><Status>ON</Status></LegalHold>").await.is(404, "NoSuchKey");
    client.put(&hold, "<LegalHold><Status>ON</Status></LegalHold>").await.is(404, "NoSuchVersion");
}

#[tokio::test]
async fn many_deletions_spare_what_is_locked() {
    let server = locked().await;
    let client = &server.client;
    let (free, held) = (put(client, "/safe/k", &[]).await, put(client, "/safe/k", &[("x-amz-object-lock-legal-hold", "ON")]).await);
    let named = [&free, &held].map(|id| format!("<Object><Key>k</Key><VersionId>{id}</VersionId></Object>")).concat();
    let answer = client.post("/safe?delete", format!("<Delete>{named}</Delete>")).await.ok();
    assert_eq!((answer.elements("Code"), answer.elements("Deleted").len()), (vec!["AccessDenied".to_owned()], 1));
    assert_eq!(client.get("/safe?versions").await.ok().elements("VersionId"), [held]);
}

#[tokio::test]
async fn a_bucket_s_default_locks_what_comes_without_a_lock() {
    let server = locked().await;
    let client = &server.client;
    let default = |rule: &str| {
        format!(
            "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>{rule}</DefaultRetention></Rule>\
             </ObjectLockConfiguration>"
        )
    };
    client.put("/safe?object-lock", default("<Mode>COMPLIANCE</Mode><Days>1</Days>")).await.ok();
    let got = client.get("/safe?object-lock").await.ok();
    assert_eq!((got.element("Mode").as_deref(), got.element("Days").as_deref()), (Some("COMPLIANCE"), Some("1")));
    let id = put(client, "/safe/k", &[]).await;
    assert_eq!(delete_version(client, "k", &id, true).await, denied());
    let own = [("x-amz-object-lock-mode", "GOVERNANCE"), ("x-amz-object-lock-retain-until-date", FAR)];
    put(client, "/safe/own", &own).await;
    assert_eq!(client.head("/safe/own").await.ok().header("x-amz-object-lock-mode"), Some("GOVERNANCE"));
    let copied = client.call("PUT", "/safe/copy").header("x-amz-copy-source", "safe/own").send().await.ok();
    assert!(copied.header("x-amz-version-id").is_some());
    let head = client.head("/safe/copy").await.ok();
    assert_eq!(head.header("x-amz-object-lock-mode"), Some("COMPLIANCE"), "a lock is not copied, the default applies");
    client.call("PUT", "/safe/k").body("x").payload("UNSIGNED-PAYLOAD").send().await.is(400, "InvalidRequest");
    for (rule, code) in [("<Mode>COMPLIANCE</Mode><Days>0</Days>", "InvalidArgument"), ("<Mode>COMPLIANCE</Mode>", "MalformedXML")] {
        client.put("/safe?object-lock", default(rule)).await.is(400, code);
    }
    assert_eq!(client.get("/safe?object-lock").await.ok().element("Days").as_deref(), Some("1"), "nothing of a refused document is stored");
    let upload = client.post("/safe/m?uploads", "").await.ok().element("UploadId").unwrap();
    let part = client.put(&format!("/safe/m?partNumber=1&uploadId={upload}"), "part").await.ok();
    let list = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{}</ETag></Part></CompleteMultipartUpload>",
        part.header("etag").unwrap()
    );
    client.post(&format!("/safe/m?uploadId={upload}"), &list).await.ok();
    assert_eq!(client.head("/safe/m").await.ok().header("x-amz-object-lock-mode"), Some("COMPLIANCE"));
}

#[tokio::test]
async fn locks_that_make_no_sense_are_refused() {
    let server = locked().await;
    let client = &server.client;
    let code = |headers: &'static [(&'static str, &'static str)], bucket: &'static str| async move {
        let call =
            headers.iter().fold(client.call("PUT", &format!("/{bucket}/k")).body("x"), |call, (name, value)| call.header(name, value));
        let answer = call.send().await;
        (answer.status, answer.code())
    };
    let argument = (400, "InvalidArgument".to_owned());
    assert_eq!(code(&[("x-amz-object-lock-mode", "GOVERNANCE")], "safe").await, argument);
    assert_eq!(code(&[("x-amz-object-lock-retain-until-date", FAR)], "safe").await, argument);
    assert_eq!(code(&[("x-amz-object-lock-mode", "x"), ("x-amz-object-lock-retain-until-date", FAR)], "safe").await, argument);
    assert_eq!(
        code(&[("x-amz-object-lock-mode", "GOVERNANCE"), ("x-amz-object-lock-retain-until-date", "2001-01-01T00:00:00Z")], "safe").await,
        argument
    );
    assert_eq!(code(&[("x-amz-object-lock-legal-hold", "yes")], "safe").await, argument);
    assert_eq!(code(&[("x-amz-object-lock-legal-hold", "ON")], "bkt").await, (400, "InvalidRequest".to_owned()));
    client.put("/bkt/k", "x").await.ok();
    client.put("/bkt/k?retention", retention("GOVERNANCE", FAR)).await.is(400, "InvalidRequest");
    client.put("/bkt/k?legal-hold", "<LegalHold><Status>ON</Status></LegalHold>").await.is(400, "InvalidRequest");
    client.put("/safe/k", "x").await.ok();
    client.put("/safe/k?retention", retention("GOVERNANCE", "2001-01-01T00:00:00Z")).await.is(400, "InvalidArgument");
    client.put("/safe/k?retention", retention("governance", FAR)).await.is(400, "MalformedXML");
    client.put("/safe/k?retention", "<Retention><Mode>GOVERNANCE</Mode></Retention>").await.is(400, "MalformedXML");
    for target in ["/safe/k?retention", "/safe/k?legal-hold"] {
        client.put(target, "").await.is(400, "MalformedXML");
    }
}

#[tokio::test]
async fn a_policy_bounds_the_locks_that_may_be_set() {
    let server = locked().await;
    let client = &server.client;
    let deny = |action: &str, condition: &str| {
        let resource = "arn:aws:s3:::safe/*";
        format!(r#"{{"Effect":"Deny","Principal":"*","Action":"s3:{action}","Resource":"{resource}","Condition":{condition}}}"#)
    };
    let too_long = r#"{"NumericGreaterThan":{"s3:object-lock-remaining-retention-days":10}}"#;
    let statements = [
        deny("PutObject", too_long),
        deny("PutObjectRetention", too_long),
        deny("PutObjectRetention", r#"{"StringEquals":{"s3:object-lock-mode":"COMPLIANCE"}}"#),
        deny("PutObjectLegalHold", r#"{"StringEquals":{"s3:object-lock-legal-hold":"ON"}}"#),
    ];
    client.put("/safe?policy", format!(r#"{{"Version":"2012-10-17","Statement":[{}]}}"#, statements.join(","))).await.ok();
    let with_lock = |until: String| {
        let call = client.call("PUT", "/safe/k").header("x-amz-object-lock-mode", "GOVERNANCE");
        call.header("x-amz-object-lock-retain-until-date", until).body("x").send()
    };
    with_lock(in_days(11)).await.is(403, "AccessDenied");
    with_lock(in_days(10)).await.ok();
    put(client, "/safe/k", &[]).await;
    client.put("/safe/k?retention", retention("GOVERNANCE", &in_days(11))).await.is(403, "AccessDenied");
    client.put("/safe/k?retention", retention("COMPLIANCE", &in_days(5))).await.is(403, "AccessDenied");
    client.get("/safe/k?retention").await.is(404, "NoSuchObjectLockConfiguration");
    client.put("/safe/k?retention", retention("GOVERNANCE", &in_days(9))).await.ok();
    client.put("/safe/k?legal-hold", "<LegalHold><Status>ON</Status></LegalHold>").await.is(403, "AccessDenied");
    client.put("/safe/k?legal-hold", "<LegalHold><Status>OFF</Status></LegalHold>").await.ok();
    let header = client.call("PUT", "/safe/k").header("x-amz-object-lock-legal-hold", "ON").body("x");
    header.send().await.is(403, "AccessDenied");
}

#[tokio::test]
async fn who_may_not_lock_is_refused() {
    let server = locked().await;
    put(&server.client, "/safe/k", &[]).await;
    let stranger = server.other_client(Default::default(), false).await;
    stranger.put("/safe/k?retention", retention("GOVERNANCE", FAR)).await.is(403, "AccessDenied");
    stranger.put("/safe/k?legal-hold", "<LegalHold><Status>ON</Status></LegalHold>").await.is(403, "AccessDenied");
    server.client.get("/safe/k?retention").await.is(404, "NoSuchObjectLockConfiguration");
    server.client.get("/safe/k?legal-hold").await.is(404, "NoSuchObjectLockConfiguration");
}

#[tokio::test]
async fn parts_of_what_will_be_locked_prove_that_they_arrived_whole() {
    let server = locked().await;
    let client = &server.client;
    let create = |headers: &'static [(&'static str, &'static str)]| async move {
        let call = headers.iter().fold(client.call("POST", "/safe/m?uploads"), |call, (name, value)| call.header(name, value));
        call.send().await.ok().element("UploadId").unwrap()
    };
    let target = |id: &str| format!("/safe/m?partNumber=1&uploadId={id}");
    let unproven = |id: &str| client.call("PUT", &target(id)).body("part").payload("UNSIGNED-PAYLOAD");
    unproven(&create(&[]).await).send().await.ok();
    let held = create(&[("x-amz-object-lock-legal-hold", "ON")]).await;
    unproven(&held).send().await.is(400, "InvalidRequest");
    assert_eq!(unproven(&held).header("content-md5", "cVkNHJqJ6vYk/cbHSkgyFw==").send().await.code(), "BadDigest");
    assert_eq!(client.put(&target(&held), "part").await.ok().header("etag"), Some(&*etag(b"part")));
    let default = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>GOVERNANCE</Mode>\
                   <Days>1</Days></DefaultRetention></Rule></ObjectLockConfiguration>";
    let open = create(&[]).await;
    client.put("/safe?object-lock", default).await.ok();
    unproven(&open).send().await.is(400, "InvalidRequest");
    unproven(&open).header("x-amz-checksum-crc32", "AAAAAA==").send().await.is(400, "BadDigest");
}
