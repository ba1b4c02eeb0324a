//! Where access control lists count: whose each object is, by which names owners and grantees are shown, and who is told what is not there.

use garage_model::rows::bucket::Permissions;

use crate::{
    client::{Answer, Client, Signed},
    server::Server,
};

const NONE: Permissions = Permissions { read: false, write: false, owner: false };

/// A server whose bucket `bkt` has lists.
async fn with_lists() -> Server {
    let server = Server::start().await;
    let document = "<OwnershipControls><Rule><ObjectOwnership>ObjectWriter</ObjectOwnership></Rule></OwnershipControls>";
    server.client.put("/bkt?ownershipControls", document).await.ok();
    server
}
async fn with_list(client: &Client, target: &str, acl: &str) {
    client.call("PUT", target).header("x-amz-acl", acl).send().await.ok();
}
async fn anonymous(client: &Client, method: &str, target: &str) -> Answer {
    client.call(method, target).signed(Signed::No).send().await
}
/// `ID` and `DisplayName` of every owner or grantee, in order.
fn people(answer: &Answer) -> Vec<(String, String)> {
    answer.elements("ID").into_iter().zip(answer.elements("DisplayName")).collect()
}

#[tokio::test]
async fn owners_and_grantees_are_shown_by_the_names_of_their_keys() {
    let server = with_lists().await;
    let owner = &server.client;
    let other = server.other_client(NONE, false).await;
    let (tester, stranger) = ((owner.key.clone(), "tester".to_owned()), (other.key.clone(), "other".to_owned()));
    with_list(owner, "/bkt?acl", "public-read-write").await;
    owner.put("/bkt/a", "x").await.ok();
    other.call("PUT", "/bkt/b").header("x-amz-acl", "bucket-owner-full-control").body("x").send().await.ok();
    owner.call("PUT", "/bkt/c").signed(Signed::No).body("x").send().await.ok();
    let acl = owner.get("/bkt/b?acl").await.ok();
    assert_eq!(people(&acl), [stranger.clone(), stranger.clone(), tester.clone()]);
    for list in ["/bkt", "/bkt?list-type=2&fetch-owner=true", "/bkt?versions"] {
        for asking in [owner, &other] {
            let listed = people(&asking.get(list).await.ok());
            assert_eq!(listed[..2], [tester.clone(), stranger.clone()], "{list}");
            assert_eq!(listed[2].0, listed[2].1, "nobody has no name");
        }
    }
    let upload = other.post("/bkt/m?uploads", "").await.ok().element("UploadId").unwrap();
    for list in ["/bkt?uploads".to_owned(), format!("/bkt/m?uploadId={upload}")] {
        assert_eq!(people(&owner.get(&list).await.ok()), [stranger.clone(), tester.clone()], "{list}");
    }
    // Where lists mean nothing, everything is the bucket owner's.
    with_list(owner, "/bkt?acl", "private").await;
    let document = "<OwnershipControls><Rule><ObjectOwnership>BucketOwnerEnforced</ObjectOwnership></Rule></OwnershipControls>";
    owner.put("/bkt?ownershipControls", document).await.ok();
    assert_eq!(people(&owner.get("/bkt").await.ok()), vec![tester.clone(); 3]);
    assert_eq!(people(&owner.get("/bkt/b?acl").await.ok()), vec![tester; 2]);
}

#[tokio::test]
async fn who_may_list_is_told_that_an_object_is_not_there() {
    let server = with_lists().await;
    let owner = &server.client;
    owner.put("/bkt/closed", "x").await.ok();
    anonymous(owner, "GET", "/bkt/none").await.is(403, "AccessDenied");
    with_list(owner, "/bkt?acl", "public-read").await;
    anonymous(owner, "GET", "/bkt/none").await.is(404, "NoSuchKey");
    anonymous(owner, "GET", "/bkt/none?acl").await.is(404, "NoSuchKey");
    assert_eq!(anonymous(owner, "HEAD", "/bkt/none").await.status, 404);
    anonymous(owner, "GET", "/bkt/closed").await.is(403, "AccessDenied");
    anonymous(owner, "GET", "/bkt/none?tagging").await.is(403, "AccessDenied");
    anonymous(owner, "PUT", "/bkt/none?acl").await.is(403, "AccessDenied");
    with_list(owner, "/bkt/closed?acl", "public-read").await;
    anonymous(owner, "GET", "/bkt/closed").await.ok();
    owner.delete("/bkt/closed").await.ok();
    anonymous(owner, "GET", "/bkt/closed").await.is(404, "NoSuchKey");
    let other = server.other_client(NONE, true).await;
    other.put("/theirs", "").await.ok();
    other.call("PUT", "/theirs/k").header("x-amz-copy-source", "bkt/none").send().await.is(404, "NoSuchKey");
    let deny = r#"{"Statement":{"Effect":"Deny","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::bkt/*"}}"#;
    owner.put("/bkt?policy", deny).await.ok();
    anonymous(owner, "GET", "/bkt/none").await.is(403, "AccessDenied");
}

#[tokio::test]
async fn no_list_makes_anyone_another_s_owner() {
    let server = with_lists().await;
    let owner = &server.client;
    let other = server.other_client(NONE, false).await;
    owner.put("/bkt/k", "x").await.ok();
    let document = |named: &str| {
        format!(
            "<AccessControlPolicy><Owner><ID>{named}</ID></Owner><AccessControlList><Grant><Grantee><ID>{}</ID></Grantee>\
             <Permission>READ</Permission></Grant></AccessControlList></AccessControlPolicy>",
            other.key
        )
    };
    for target in ["/bkt?acl", "/bkt/k?acl"] {
        owner.put(target, document(&other.key)).await.is(403, "AccessDenied");
        let ownerless = document("x").replace("<Owner><ID>x</ID></Owner>", "");
        owner.put(target, ownerless).await.is(400, "MalformedACLError");
        assert_eq!(owner.get(target).await.ok().elements("Permission"), ["FULL_CONTROL"], "{target}");
        owner.put(target, document(&owner.key)).await.ok();
        assert_eq!(owner.get(target).await.ok().elements("Permission"), ["READ"], "{target}");
    }
    other.get("/bkt/k").await.ok();
}
