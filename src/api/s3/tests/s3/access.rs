//! Who may do what: bucket policies, anonymous requests, public access block, access control lists, ownership.

use garage_model::rows::bucket::Permissions;

use crate::{
    client::{Answer, Client, Signed},
    server::Server,
};

const READ: Permissions = Permissions { read: true, write: false, owner: false };
const NONE: Permissions = Permissions { read: false, write: false, owner: false };

fn statement(effect: &str, principal: &str, actions: &str, resource: &str) -> String {
    format!(r#"{{"Effect":"{effect}","Principal":{principal},"Action":{actions},"Resource":"arn:aws:s3:::bkt{resource}"}}"#)
}
fn policy(statements: &[String]) -> String {
    format!(r#"{{"Version":"2012-10-17","Statement":[{}]}}"#, statements.join(","))
}
async fn anonymous(client: &Client, method: &str, target: &str) -> Answer {
    client.call(method, target).signed(Signed::No).send().await
}

#[tokio::test]
async fn a_policy_is_kept_byte_for_byte_and_lets_in_whom_it_names() {
    let server = Server::start().await;
    let owner = &server.client;
    let other = server.other_client(NONE, false).await;
    owner.put("/bkt/public/k", "x").await.ok();
    owner.get("/bkt?policy").await.is(404, "NoSuchBucketPolicy");
    owner.get("/bkt?policyStatus").await.is(404, "NoSuchBucketPolicy");
    other.get("/bkt/public/k").await.is(403, "AccessDenied");
    anonymous(owner, "GET", "/bkt/public/k").await.is(403, "AccessDenied");

    let named =
        policy(&[statement("Allow", &format!(r#"{{"AWS":"arn:aws:iam:::user/{}"}}"#, other.key), r#""s3:GetObject""#, "/public/*")]);
    let named = format!(" {named}\n");
    assert_eq!(owner.put("/bkt?policy", &named).await.status, 204);
    let read_back = owner.get("/bkt?policy").await.ok();
    assert_eq!((read_back.text(), read_back.header("content-type")), (named, Some("application/json")));
    assert_eq!(owner.get("/bkt?policyStatus").await.ok().element("IsPublic").as_deref(), Some("false"));
    assert_eq!(other.get("/bkt/public/k").await.ok().text(), "x");
    other.get("/bkt/private").await.is(403, "AccessDenied");
    // Whether a key is there is told only to those who may list.
    other.get("/bkt/public/none").await.is(403, "AccessDenied");
    other.get("/bkt").await.is(403, "AccessDenied");
    other.put("/bkt/public/k", "y").await.is(403, "AccessDenied");
    other.get("/bkt?policy").await.is(403, "AccessDenied");
    anonymous(owner, "GET", "/bkt/public/k").await.is(403, "AccessDenied");

    assert_eq!(owner.delete("/bkt?policy").await.status, 204);
    assert_eq!(owner.delete("/bkt?policy").await.status, 204);
    other.get("/bkt/public/k").await.is(403, "AccessDenied");
}

#[tokio::test]
async fn anonymous_requests_reach_what_a_policy_opens_and_nothing_else() {
    let server = Server::start().await;
    let owner = &server.client;
    owner.put("/bkt/k", "content").await.ok();
    let open = policy(&[
        statement("Allow", r#""*""#, r#"["s3:GetObject","s3:PutObject"]"#, "/*"),
        statement("Allow", r#"{"AWS":"*"}"#, r#""s3:ListBucket""#, ""),
        statement("Deny", r#""*""#, r#""s3:*""#, "/secret/*"),
    ]);
    owner.put("/bkt/secret/k", "hidden").await.ok();
    owner.put("/bkt?policy", &open).await.ok();
    assert_eq!(owner.get("/bkt?policyStatus").await.ok().element("IsPublic").as_deref(), Some("true"));
    assert_eq!(anonymous(owner, "GET", "/bkt/k").await.ok().text(), "content");
    assert_eq!(anonymous(owner, "HEAD", "/bkt/k").await.status, 200);
    anonymous(owner, "GET", "/bkt/none").await.is(404, "NoSuchKey");
    assert_eq!(anonymous(owner, "GET", "/bkt?list-type=2").await.ok().elements("Key"), ["k", "secret/k"]);
    let put = owner.call("PUT", "/bkt/new").signed(Signed::No).body("by nobody").send().await;
    put.ok();
    assert_eq!(owner.get("/bkt/new").await.ok().text(), "by nobody");
    anonymous(owner, "GET", "/bkt/k?response-content-type=text/html").await.is(400, "InvalidRequest");
    anonymous(owner, "DELETE", "/bkt/k").await.is(403, "AccessDenied");
    anonymous(owner, "GET", "/bkt?policy").await.is(403, "AccessDenied");
    anonymous(owner, "GET", "/").await.is(403, "AccessDenied");
    anonymous(owner, "PUT", "/other").await.is(403, "AccessDenied");
    // An explicit deny is for everyone, and an owner can take it back.
    anonymous(owner, "GET", "/bkt/secret/k").await.is(403, "AccessDenied");
    owner.get("/bkt/secret/k").await.is(403, "AccessDenied");
    owner.put("/bkt?policy", policy(&[statement("Deny", r#""*""#, r#""s3:*""#, "*")])).await.ok();
    owner.get("/bkt").await.is(403, "AccessDenied");
    assert_eq!(owner.delete("/bkt?policy").await.status, 204);
    assert_eq!(owner.get("/bkt/secret/k").await.ok().text(), "hidden");
}

#[tokio::test]
async fn a_copy_of_tags_needs_the_right_to_read_them_and_to_set_them() {
    let server = Server::start().await;
    let owner = &server.client;
    let other = server.other_client(NONE, false).await;
    owner.call("PUT", "/bkt/from/tagged").header("x-amz-tagging", "class=open").body("x").send().await.ok();
    owner.put("/bkt/from/plain", "x").await.ok();
    let who = format!(r#"{{"AWS":"arn:aws:iam:::user/{}"}}"#, other.key);
    let copy = |key: &str| other.call("PUT", &format!("/bkt/to/{key}")).header("x-amz-copy-source", format!("bkt/from/{key}")).send();
    let basic = [statement("Allow", &who, r#""s3:GetObject""#, "/from/*"), statement("Allow", &who, r#""s3:PutObject""#, "/to/*")];
    let reads = statement("Allow", &who, r#""s3:GetObjectTagging""#, "/from/*");
    let sets = statement("Allow", &who, r#""s3:PutObjectTagging""#, "/to/*");
    for (more, allowed) in [(vec![], false), (vec![&reads], false), (vec![&sets], false), (vec![&reads, &sets], true)] {
        let statements: Vec<String> = basic.iter().chain(more).cloned().collect();
        owner.put("/bkt?policy", policy(&statements)).await.ok();
        copy("plain").await.ok();
        let copied = copy("tagged").await;
        if allowed {
            copied.ok();
        } else {
            copied.is(403, "AccessDenied");
            owner.get("/bkt/to/tagged").await.is(404, "NoSuchKey");
        }
    }
    assert_eq!(owner.get("/bkt/to/tagged?tagging").await.ok().elements("Value"), ["open"]);
}

#[tokio::test]
async fn conditions_look_at_the_request() {
    let server = Server::start().await;
    let owner = &server.client;
    let other = server.other_client(NONE, false).await;
    owner.call("PUT", "/bkt/tagged").header("x-amz-tagging", "class=open").body("x").send().await.ok();
    owner.put("/bkt/plain", "x").await.ok();
    owner.put("/bkt/home/k", "x").await.ok();
    let with = |statement: String, condition: &str| format!(r#"{},"Condition":{condition}}}"#, statement.trim_end_matches('}'));
    let list = statement("Allow", r#""*""#, r#""s3:ListBucket""#, "");
    let get = || statement("Allow", r#""*""#, r#""s3:GetObject""#, "/*");
    let put = || statement("Allow", r#""*""#, r#"["s3:PutObject","s3:PutObjectTagging"]"#, "/*");
    let document = policy(&[
        with(list, r#"{"StringEquals":{"s3:prefix":"home/"}}"#),
        with(get(), r#"{"StringEquals":{"s3:ExistingObjectTag/class":"open"}}"#),
        with(get(), r#"{"StringLike":{"aws:Referer":"https://example.org/*"},"IpAddress":{"aws:SourceIp":"127.0.0.0/8"}}"#),
        with(put(), r#"{"StringEquals":{"s3:RequestObjectTag/by":"other"}}"#),
    ]);
    owner.put("/bkt?policy", document).await.ok();
    assert_eq!(other.get("/bkt?prefix=home/").await.ok().elements("Key"), ["home/k"]);
    other.get("/bkt?prefix=").await.is(403, "AccessDenied");
    other.get("/bkt/tagged").await.ok();
    other.get("/bkt/plain").await.is(403, "AccessDenied");
    other.call("GET", "/bkt/plain").header("referer", "https://example.org/page").send().await.ok();
    other.call("GET", "/bkt/plain").header("referer", "https://example.com/page").send().await.is(403, "AccessDenied");
    other.put("/bkt/new", "x").await.is(403, "AccessDenied");
    other.call("PUT", "/bkt/new").header("x-amz-tagging", "by=other").body("x").send().await.ok();
}

#[tokio::test]
async fn a_condition_on_tags_looks_at_the_version_that_is_named() {
    let server = Server::start().await;
    let owner = &server.client;
    let other = server.other_client(NONE, true).await;
    assert_eq!(other.put("/theirs", "").await.status, 200);
    owner.put("/bkt?versioning", "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>").await.ok();
    let put = |tags: &'static str| owner.call("PUT", "/bkt/k").header("x-amz-tagging", tags).body("x").send();
    let version = |answer: Answer| answer.header("x-amz-version-id").unwrap().to_owned();
    let open = version(put("class=open").await.ok());
    let closed = version(put("").await.ok());
    let actions = r#"["s3:GetObject","s3:GetObjectVersion","s3:GetObjectVersionTagging","s3:DeleteObjectVersion"]"#;
    let allow = statement("Allow", r#""*""#, actions, "/*");
    let condition = r#"{"StringEquals":{"s3:ExistingObjectTag/class":"open"}}"#;
    owner.put("/bkt?policy", policy(&[format!(r#"{},"Condition":{condition}}}"#, allow.trim_end_matches('}'))])).await.ok();
    other.get("/bkt/k").await.is(403, "AccessDenied");
    other.get(&format!("/bkt/k?versionId={open}")).await.ok();
    other.get(&format!("/bkt/k?versionId={closed}")).await.is(403, "AccessDenied");
    let copy = |version: &str| other.call("PUT", "/theirs/k").header("x-amz-copy-source", format!("/bkt/k?versionId={version}")).send();
    copy(&open).await.ok();
    copy(&closed).await.is(403, "AccessDenied");
    let object = |version: &str| format!("<Object><Key>k</Key><VersionId>{version}</VersionId></Object>");
    let deleted = other.post("/bkt?delete", format!("<Delete>{}{}</Delete>", object(&open), object(&closed))).await.ok();
    assert_eq!((deleted.elements("Deleted").len(), deleted.elements("Code")), (1, vec!["AccessDenied".to_owned()]), "{}", deleted.text());
    owner.get(&format!("/bkt/k?versionId={open}")).await.is(404, "NoSuchVersion");
    owner.get(&format!("/bkt/k?versionId={closed}")).await.ok();
}

/// As in the AWS S3 User Guide, "Enforce conditional writes on Amazon S3 buckets".
#[tokio::test]
async fn a_policy_may_ask_for_conditions_of_whatever_makes_an_object() {
    let server = Server::start().await;
    let owner = &server.client;
    owner.put("/bkt/source", "x").await.ok();
    let condition = r#"{"Null":{"s3:if-none-match":"true"},"Bool":{"s3:ObjectCreationOperation":"true"}}"#;
    let deny = statement("Deny", r#""*""#, r#""s3:PutObject""#, "/*");
    owner.put("/bkt?policy", policy(&[format!(r#"{},"Condition":{condition}}}"#, deny.trim_end_matches('}'))])).await.ok();
    owner.put("/bkt/k", "x").await.is(403, "AccessDenied");
    owner.call("PUT", "/bkt/k").header("x-amz-copy-source", "bkt/source").send().await.is(403, "AccessDenied");
    owner.call("PUT", "/bkt/k").header("if-none-match", "*").body("x").send().await.ok();
    owner.get("/bkt/k").await.ok();
    // Beginning an upload and sending its parts take no conditions.
    let id = owner.post("/bkt/l?uploads", "").await.ok().element("UploadId").unwrap();
    let etag = owner.put(&format!("/bkt/l?partNumber=1&uploadId={id}"), "x").await.ok().header("etag").unwrap().to_owned();
    let part = owner.call("PUT", &format!("/bkt/l?partNumber=2&uploadId={id}")).header("x-amz-copy-source", "bkt/source");
    part.send().await.ok();
    let list = format!("<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part></CompleteMultipartUpload>");
    let target = format!("/bkt/l?uploadId={id}");
    owner.post(&target, &list).await.is(403, "AccessDenied");
    owner.call("POST", &target).header("if-none-match", "*").body(&list).send().await.ok();
}

#[tokio::test]
async fn a_policy_that_is_wrong_leaves_the_one_before() {
    let server = Server::start().await;
    let owner = &server.client;
    let good = policy(&[statement("Allow", r#""*""#, r#""s3:GetObject""#, "/*")]);
    owner.put("/bkt?policy", &good).await.ok();
    for bad in [
        "not json".to_owned(),
        String::new(),
        policy(&[statement("Allow", r#"{"AWS":"arn:aws:iam:::user/GK000000000000000000000000"}"#, r#""s3:GetObject""#, "/*")]),
        policy(&[statement("Allow", r#""*""#, r#""s3:Nonsense""#, "/*")]),
        policy(&[statement("Allow", r#""*""#, r#""s3:GetObject""#, "")]),
        policy(&[statement("Allow", r#""*""#, r#""s3:GetObject""#, "-other/*")]),
        good.replace("Statement", "Statements"),
        format!("{good}{}", " ".repeat(20 << 10)),
    ] {
        owner.put("/bkt?policy", &bad).await.is(400, "MalformedPolicy");
    }
    assert_eq!(owner.get("/bkt?policy").await.ok().text(), good);
    let reader = server.other_client(READ, false).await;
    reader.put("/bkt?policy", &good).await.is(403, "AccessDenied");
}

#[tokio::test]
async fn public_access_is_blocked_as_asked() {
    let server = Server::start().await;
    let owner = &server.client;
    owner.put("/bkt/k", "x").await.ok();
    owner.get("/bkt?publicAccessBlock").await.is(404, "NoSuchPublicAccessBlockConfiguration");
    let block = |inner: &str| format!("<PublicAccessBlockConfiguration>{inner}</PublicAccessBlockConfiguration>");
    let public = policy(&[statement("Allow", r#""*""#, r#""s3:GetObject""#, "/*")]);

    owner.put("/bkt?publicAccessBlock", block("<BlockPublicPolicy>true</BlockPublicPolicy>")).await.ok();
    let shown = owner.get("/bkt?publicAccessBlock").await.ok();
    assert_eq!(shown.element("BlockPublicPolicy").as_deref(), Some("true"));
    assert_eq!(shown.element("RestrictPublicBuckets").as_deref(), Some("false"));
    owner.put("/bkt?policy", &public).await.is(403, "AccessDenied");
    owner.get("/bkt?policy").await.is(404, "NoSuchBucketPolicy");

    owner.put("/bkt?publicAccessBlock", block("<RestrictPublicBuckets>true</RestrictPublicBuckets>")).await.ok();
    owner.put("/bkt?policy", &public).await.ok();
    anonymous(owner, "GET", "/bkt/k").await.is(403, "AccessDenied");
    owner.get("/bkt/k").await.ok();
    assert_eq!(owner.delete("/bkt?publicAccessBlock").await.status, 204);
    anonymous(owner, "GET", "/bkt/k").await.ok();
    for bad in ["<Nonsense/>", "<BlockPublicAcls>perhaps</BlockPublicAcls>"] {
        owner.put("/bkt?publicAccessBlock", block(bad)).await.is(400, "MalformedXML");
    }
    owner.get("/bkt?publicAccessBlock").await.is(404, "NoSuchPublicAccessBlockConfiguration");
}

fn ownership(name: &str) -> String {
    format!("<OwnershipControls><Rule><ObjectOwnership>{name}</ObjectOwnership></Rule></OwnershipControls>")
}

#[tokio::test]
async fn lists_grant_nothing_while_the_bucket_owner_owns_everything() {
    let server = Server::start().await;
    let owner = &server.client;
    assert_eq!(owner.get("/bkt?ownershipControls").await.ok().element("ObjectOwnership").as_deref(), Some("BucketOwnerEnforced"));
    let acl = owner.get("/bkt?acl").await.ok();
    assert_eq!((acl.elements("Permission"), acl.elements("ID")), (vec!["FULL_CONTROL".into()], vec![owner.key.clone(), owner.key.clone()]));
    owner.put("/bkt?acl", acl.text()).await.ok();
    for (name, value) in [("x-amz-acl", "public-read"), ("x-amz-grant-read", "uri=http://acs.amazonaws.com/groups/global/AllUsers")] {
        owner.call("PUT", "/bkt?acl").header(name, value).send().await.is(400, "AccessControlListNotSupported");
        owner.call("PUT", "/bkt/k").header(name, value).body("x").send().await.is(400, "AccessControlListNotSupported");
        owner.call("PUT", "/new-bucket").header(name, value).send().await.is(400, "InvalidBucketAclWithObjectOwnership");
    }
    for harmless in ["private", "bucket-owner-full-control"] {
        owner.call("PUT", "/bkt/k").header("x-amz-acl", harmless).body("x").send().await.ok();
    }
    owner.call("PUT", "/bkt/k").header("x-amz-acl", "nonsense").body("x").send().await.is(400, "InvalidArgument");
    assert_eq!(owner.get("/bkt/k?acl").await.ok().elements("Permission"), ["FULL_CONTROL"]);
    // Rights that the operator gave are shown, too.
    let reader = server.other_client(READ, false).await;
    let acl = owner.get("/bkt?acl").await.ok();
    assert_eq!(acl.elements("Permission"), ["FULL_CONTROL", "READ"]);
    assert!(acl.elements("ID").contains(&reader.key));
    owner.put("/bkt?acl", acl.text()).await.ok();
}

#[tokio::test]
async fn lists_grant_what_they_say_where_they_are_enabled() {
    let server = Server::start().await;
    let owner = &server.client;
    let other = server.other_client(NONE, false).await;
    owner.put("/bkt?ownershipControls", ownership("ObjectWriter")).await.ok();
    owner.call("PUT", "/bkt/open").header("x-amz-acl", "public-read").body("x").send().await.ok();
    owner.call("PUT", "/bkt/signed").header("x-amz-acl", "authenticated-read").body("x").send().await.ok();
    owner.call("PUT", "/bkt/named").header("x-amz-grant-read", format!("id=\"{}\"", other.key)).body("x").send().await.ok();
    owner.put("/bkt/closed", "x").await.ok();
    anonymous(owner, "GET", "/bkt/open").await.ok();
    anonymous(owner, "GET", "/bkt/signed").await.is(403, "AccessDenied");
    other.get("/bkt/signed").await.ok();
    other.get("/bkt/named").await.ok();
    other.get("/bkt/closed").await.is(403, "AccessDenied");
    other.get("/bkt/named?acl").await.is(403, "AccessDenied");
    let acl = owner.get("/bkt/open?acl").await.ok();
    assert_eq!(acl.elements("Permission"), ["FULL_CONTROL", "READ"]);
    assert!(acl.text().contains(r#"xsi:type="Group""#), "{}", acl.text());

    // The bucket's own list.
    owner.call("PUT", "/bkt?acl").header("x-amz-acl", "public-read").send().await.ok();
    assert_eq!(owner.get("/bkt?acl").await.ok().elements("URI"), ["http://acs.amazonaws.com/groups/global/AllUsers"]);
    anonymous(owner, "GET", "/bkt").await.ok();
    anonymous(owner, "PUT", "/bkt/x").await.is(403, "AccessDenied");
    let grants = format!(
        "<AccessControlPolicy><Owner><ID>{0}</ID></Owner><AccessControlList><Grant><Grantee><ID>{1}</ID></Grantee><Permission>WRITE</Permission></Grant>\
         </AccessControlList></AccessControlPolicy>",
        owner.key, other.key
    );
    owner.put("/bkt?acl", &grants).await.ok();
    anonymous(owner, "GET", "/bkt").await.is(403, "AccessDenied");
    // Whoever writes an object owns it.
    other.put("/bkt/theirs", "theirs").await.ok();
    assert_eq!(other.get("/bkt/theirs").await.ok().text(), "theirs");
    assert_eq!(other.get("/bkt/theirs?acl").await.ok().elements("ID"), [other.key.clone(), other.key.clone()]);
    other.delete("/bkt/closed").await.ok();
    owner.put("/bkt?ownershipControls", ownership("BucketOwnerEnforced")).await.is(400, "InvalidBucketAclWithObjectOwnership");

    // What a list says to everyone can be blocked and ignored.
    let block = "<PublicAccessBlockConfiguration><BlockPublicAcls>true</BlockPublicAcls><IgnorePublicAcls>true</IgnorePublicAcls></PublicAccessBlockConfiguration>";
    owner.put("/bkt?publicAccessBlock", block).await.ok();
    anonymous(owner, "GET", "/bkt/open").await.is(403, "AccessDenied");
    owner.call("PUT", "/bkt/new").header("x-amz-acl", "public-read").body("x").send().await.is(403, "AccessDenied");
    owner.call("PUT", "/bkt?acl").header("x-amz-acl", "public-read-write").send().await.is(403, "AccessDenied");
    owner.call("PUT", "/bkt?acl").header("x-amz-acl", "private").send().await.ok();
    owner.put("/bkt?ownershipControls", ownership("BucketOwnerEnforced")).await.ok();
    other.get("/bkt/theirs").await.is(403, "AccessDenied");
    assert_eq!(owner.delete("/bkt?ownershipControls").await.status, 204);
    owner.get("/bkt?ownershipControls").await.is(404, "OwnershipControlsNotFoundError");
}

#[tokio::test]
async fn lists_that_make_no_sense_are_refused() {
    let server = Server::start().await;
    let owner = &server.client;
    owner.put("/bkt?ownershipControls", ownership("BucketOwnerPreferred")).await.ok();
    let both = owner.call("PUT", "/bkt?acl").header("x-amz-acl", "private").header("x-amz-grant-read", format!("id={}", owner.key));
    both.send().await.is(400, "InvalidRequest");
    let unknown = owner.call("PUT", "/bkt?acl").header("x-amz-grant-read", "id=GK000000000000000000000000");
    unknown.send().await.is(400, "InvalidArgument");
    let mail = owner.call("PUT", "/bkt?acl").header("x-amz-grant-read", "emailAddress=a@example.org");
    mail.send().await.is(400, "UnresolvableGrantByEmailAddress");
    owner.call("PUT", "/bkt?acl").header("x-amz-acl", "private").body("<AccessControlPolicy/>").send().await.is(400, "UnexpectedContent");
    owner.put("/bkt?acl", "<AccessControlPolicy/>").await.is(400, "MalformedACLError");
    owner.put("/bkt?acl", "nonsense").await.is(400, "MalformedACLError");
    owner.put("/bkt?acl", "").await.is(400, "MissingSecurityHeader");
    owner.put("/bkt?ownershipControls", ownership("Nobody")).await.is(400, "MalformedXML");
    assert_eq!(owner.get("/bkt?acl").await.ok().elements("Permission"), ["FULL_CONTROL"]);
}

#[tokio::test]
async fn each_key_of_a_delete_is_decided_upon_by_itself() {
    let server = Server::start().await;
    let owner = &server.client;
    let other = server.other_client(NONE, false).await;
    for key in ["mine/a", "yours/a"] {
        owner.put(&format!("/bkt/{key}"), "x").await.ok();
    }
    let mine = policy(&[statement("Allow", &format!(r#"{{"AWS":"{}"}}"#, other.key), r#""s3:DeleteObject""#, "/mine/*")]);
    owner.put("/bkt?policy", mine).await.ok();
    let document = "<Delete><Object><Key>mine/a</Key></Object><Object><Key>yours/a</Key></Object></Delete>";
    let answer = other.post("/bkt?delete", document).await.ok();
    assert!(answer.text().contains("<Deleted><Key>mine/a</Key></Deleted>"), "{}", answer.text());
    assert!(answer.text().contains("<Error><Key>yours/a</Key><Code>AccessDenied</Code>"), "{}", answer.text());
    assert_eq!(owner.get("/bkt").await.ok().elements("Key"), ["yours/a"]);
}

#[tokio::test]
async fn a_copy_needs_both_ends() {
    let server = Server::start().await;
    let owner = &server.client;
    let other = server.other_client(NONE, true).await;
    assert_eq!(other.put("/theirs", "").await.status, 200);
    owner.call("PUT", "/bkt/k").header("x-amz-tagging", "a=b").body("x").send().await.ok();
    let copy = || other.call("PUT", "/theirs/k").header("x-amz-copy-source", "/bkt/k");
    copy().send().await.is(403, "AccessDenied");
    let grant = |actions: &str| policy(&[statement("Allow", &format!(r#"{{"CanonicalUser":"{}"}}"#, other.key), actions, "/*")]);
    owner.put("/bkt?policy", grant(r#""s3:GetObject""#)).await.ok();
    // Its tags may not be read, so they can't be taken along; they can be left behind.
    copy().send().await.is(403, "AccessDenied");
    copy().header("x-amz-tagging-directive", "REPLACE").send().await.ok();
    assert_eq!(other.get("/theirs/k?tagging").await.ok().elements("Key"), [""; 0]);
    owner.put("/bkt?policy", grant(r#"["s3:GetObject","s3:GetObjectTagging"]"#)).await.ok();
    copy().send().await.ok();
    assert_eq!(other.get("/theirs/k?tagging").await.ok().elements("Key"), ["a"]);
    assert_eq!(other.head("/theirs/k").await.header("x-amz-tagging-count"), Some("1"));
}

#[tokio::test]
async fn tags_of_objects_uploads_and_buckets_are_kept() {
    let server = Server::start().await;
    let owner = &server.client;
    owner.call("PUT", "/bkt/k").header("x-amz-tagging", "b=2&a=1").body("x").send().await.ok();
    assert_eq!(owner.get("/bkt/k?tagging").await.ok().elements("Value"), ["2", "1"]);
    assert_eq!(owner.get("/bkt/k").await.ok().header("x-amz-tagging-count"), Some("2"));
    let upload = owner.call("POST", "/bkt/parts?uploads").header("x-amz-tagging", "c=3").send().await.ok().element("UploadId").unwrap();
    let part = owner.put(&format!("/bkt/parts?uploadId={upload}&partNumber=1"), "content").await.ok();
    let list = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{}</ETag></Part></CompleteMultipartUpload>",
        part.header("etag").unwrap()
    );
    owner.post(&format!("/bkt/parts?uploadId={upload}"), list).await.ok();
    assert_eq!(owner.get("/bkt/parts?tagging").await.ok().elements("Key"), ["c"]);
    owner.call("PUT", "/bkt/bad").header("x-amz-tagging", "a=1&a=2").body("x").send().await.is(400, "InvalidArgument");
    owner.call("PUT", "/bkt/bad").header("x-amz-tagging", "aws:a=1").body("x").send().await.is(400, "InvalidTag");
    owner.get("/bkt/bad").await.is(404, "NoSuchKey");

    owner.get("/bkt?tagging").await.is(404, "NoSuchTagSet");
    let set = |tags: &str| format!("<Tagging><TagSet>{tags}</TagSet></Tagging>");
    let tag = |number: usize| format!("<Tag><Key>k{number}</Key><Value>v</Value></Tag>");
    assert_eq!(owner.put("/bkt?tagging", set(&tag(1))).await.status, 204);
    assert_eq!(owner.get("/bkt?tagging").await.ok().elements("Key"), ["k1"]);
    let many: String = (0..51).map(tag).collect();
    owner.put("/bkt?tagging", set(&many)).await.is(400, "BadRequest");
    owner.put("/bkt?tagging", set(&tag(1).repeat(2))).await.is(400, "InvalidTag");
    owner.put("/bkt?tagging", "<Tagging/>").await.is(400, "MalformedXML");
    assert_eq!(owner.get("/bkt?tagging").await.ok().elements("Key"), ["k1"]);
    assert_eq!(owner.delete("/bkt?tagging").await.status, 204);
    owner.get("/bkt?tagging").await.is(404, "NoSuchTagSet");
}

#[tokio::test]
async fn tags_change_without_a_new_object() {
    let server = Server::start().await;
    let owner = &server.client;
    let other = server.other_client(NONE, false).await;
    let set = |tags: &str| format!("<Tagging><TagSet>{tags}</TagSet></Tagging>");
    let tag = |key: &str| format!("<Tag><Key>{key}</Key><Value>v</Value></Tag>");
    // Inline, in blocks, in parts: the content stays readable.
    for (target, len_bytes) in [("/bkt/small", 10), ("/bkt/large", 600 << 10)] {
        let body = "x".repeat(len_bytes);
        owner.put(target, &body).await.ok();
        let before = owner.head(target).await;
        let tagging = format!("{target}?tagging");
        owner.put(&tagging, set(&(tag("a") + &tag("b")))).await.ok();
        assert_eq!(owner.get(&tagging).await.ok().elements("Key"), ["a", "b"]);
        let after = owner.get(target).await.ok();
        assert_eq!((after.header("x-amz-tagging-count"), after.text() == body), (Some("2"), true));
        for same in ["etag", "last-modified", "content-length"] {
            assert_eq!(after.header(same), before.header(same));
        }
        owner.put(&tagging, set(&(0..11).map(|number| tag(&format!("k{number}"))).collect::<String>())).await.is(400, "BadRequest");
        owner.put(&tagging, set(&tag("a<b").replace("a<b", "a&lt;b"))).await.is(400, "InvalidTag");
        owner.put(&tagging, "<Tagging/>").await.is(400, "MalformedXML");
        assert_eq!(owner.get(&tagging).await.ok().elements("Key"), ["a", "b"]);
        other.put(&tagging, set(&tag("c"))).await.is(403, "AccessDenied");
        other.delete(&tagging).await.is(403, "AccessDenied");
        assert_eq!(owner.delete(&tagging).await.status, 204);
        assert_eq!(owner.get(&tagging).await.ok().elements("Key"), [""; 0]);
        assert_eq!(owner.get(target).await.ok().text(), body);
    }
    owner.put("/bkt/none?tagging", set(&tag("a"))).await.is(404, "NoSuchKey");
    owner.delete("/bkt/none?tagging").await.is(404, "NoSuchKey");
    // What tags may be set is a matter of policy.
    let only = format!(
        r#"{},"Condition":{{"ForAllValues:StringEquals":{{"s3:RequestObjectTagKeys":["c"]}}}}}}"#,
        statement("Allow", &format!(r#"{{"AWS":"{}"}}"#, other.key), r#""s3:PutObjectTagging""#, "/*").trim_end_matches('}')
    );
    owner.put("/bkt?policy", policy(&[only])).await.ok();
    other.put("/bkt/small?tagging", set(&tag("d"))).await.is(403, "AccessDenied");
    other.put("/bkt/small?tagging", set(&tag("c"))).await.ok();
    assert_eq!(owner.get("/bkt/small?tagging").await.ok().elements("Key"), ["c"]);
}

#[tokio::test]
async fn the_list_of_an_object_changes_without_a_new_object() {
    let server = Server::start().await;
    let owner = &server.client;
    let other = server.other_client(NONE, false).await;
    owner.put("/bkt?ownershipControls", ownership("ObjectWriter")).await.ok();
    owner.put("/bkt/k", "x").await.ok();
    let before = owner.head("/bkt/k").await;
    anonymous(owner, "GET", "/bkt/k").await.is(403, "AccessDenied");
    owner.call("PUT", "/bkt/k?acl").header("x-amz-acl", "public-read").send().await.ok();
    let open = anonymous(owner, "GET", "/bkt/k").await.ok();
    assert_eq!((open.text().as_str(), open.header("etag")), ("x", before.header("etag")));
    let acl = owner.get("/bkt/k?acl").await.ok().text();
    owner.call("PUT", "/bkt/k?acl").header("x-amz-acl", "private").send().await.ok();
    anonymous(owner, "GET", "/bkt/k").await.is(403, "AccessDenied");
    owner.put("/bkt/k?acl", acl).await.ok();
    anonymous(owner, "GET", "/bkt/k").await.ok();
    // Whoever may write the list may hand the writing of it on.
    let grants = |permission: &str| format!("id=\"{}\"{}", other.key, permission);
    owner
        .call("PUT", "/bkt/k?acl")
        .header("x-amz-grant-read-acp", grants(""))
        .header("x-amz-grant-write-acp", grants(""))
        .send()
        .await
        .ok();
    other.get("/bkt/k").await.is(403, "AccessDenied");
    assert_eq!(other.get("/bkt/k?acl").await.ok().elements("Permission"), ["READ_ACP", "WRITE_ACP"]);
    other.call("PUT", "/bkt/k?acl").header("x-amz-acl", "authenticated-read").send().await.ok();
    other.get("/bkt/k").await.ok();
    owner.call("PUT", "/bkt/none?acl").header("x-amz-acl", "private").send().await.is(404, "NoSuchKey");
}

#[tokio::test]
async fn a_website_is_configured_by_a_document() {
    let server = Server::start().await;
    let owner = &server.client;
    owner.get("/bkt?website").await.is(404, "NoSuchWebsiteConfiguration");
    let document = |inner: &str| format!("<WebsiteConfiguration>{inner}</WebsiteConfiguration>");
    let index = "<IndexDocument><Suffix>index.html</Suffix></IndexDocument><ErrorDocument><Key>error.html</Key></ErrorDocument>";
    let rules = "<RoutingRules><RoutingRule><Condition><KeyPrefixEquals>a/</KeyPrefixEquals></Condition><Redirect><HostName>example.org</HostName>\
                 <HttpRedirectCode>302</HttpRedirectCode></Redirect></RoutingRule></RoutingRules>";
    owner.put("/bkt?website", document(&format!("{index}{rules}"))).await.ok();
    let shown = owner.get("/bkt?website").await.ok();
    assert_eq!(shown.elements("Suffix"), ["index.html"]);
    assert_eq!((shown.element("KeyPrefixEquals").as_deref(), shown.element("HttpRedirectCode").as_deref()), (Some("a/"), Some("302")));
    owner.put("/bkt?website", document(&format!("{index}{rules}")).replace("<HttpRedirectCode>302</HttpRedirectCode>", "")).await.ok();
    let shown = owner.get("/bkt?website").await.ok();
    assert_eq!((shown.elements("HostName"), shown.element("HttpRedirectCode")), (vec!["example.org".to_owned()], None));
    owner.put("/bkt?website", document("<IndexDocument><Suffix>a/b</Suffix></IndexDocument>")).await.is(400, "InvalidArgument");
    owner.put("/bkt?website", "x").await.is(400, "MalformedXML");
    owner.put("/bkt?website", document(&format!("{index}<More/>"))).await.is(400, "MalformedXML");
    owner.put("/bkt?website", format!("{}{}", document(index), " ".repeat(128 << 10))).await.is(400, "MaxMessageLengthExceeded");
    assert_eq!(owner.get("/bkt?website").await.ok().elements("Key"), ["error.html"]);
    let all = "<RedirectAllRequestsTo><HostName>example.org</HostName><Protocol>https</Protocol></RedirectAllRequestsTo>";
    owner.put("/bkt?website", document(all)).await.ok();
    let shown = owner.get("/bkt?website").await.ok();
    assert_eq!((shown.element("HostName").as_deref(), shown.element("Suffix")), (Some("example.org"), None));
    assert_eq!(owner.delete("/bkt?website").await.status, 204);
    owner.get("/bkt?website").await.is(404, "NoSuchWebsiteConfiguration");
}

#[tokio::test]
async fn unset_features_answer_as_unset_and_can_t_be_set() {
    let server = Server::start().await;
    let owner = &server.client;
    assert_eq!(owner.get("/bkt?requestPayment").await.ok().element("Payer").as_deref(), Some("BucketOwner"));
    for selector in ["accelerate", "logging", "notification"] {
        owner.get(&format!("/bkt?{selector}")).await.ok();
    }
    owner.get("/bkt?replication").await.is(404, "ReplicationConfigurationNotFoundError");
    for (selector, document) in [
        ("accelerate", "<AccelerateConfiguration><Status>Enabled</Status></AccelerateConfiguration>"),
        ("requestPayment", "<RequestPaymentConfiguration><Payer>Requester</Payer></RequestPaymentConfiguration>"),
        ("logging", "<BucketLoggingStatus><LoggingEnabled/></BucketLoggingStatus>"),
        ("notification", "<NotificationConfiguration><TopicConfiguration/></NotificationConfiguration>"),
        ("replication", "<ReplicationConfiguration/>"),
        ("inventory&id=x", "<InventoryConfiguration/>"),
        ("analytics&id=x", "<AnalyticsConfiguration/>"),
        ("metrics&id=x", "<MetricsConfiguration/>"),
        ("intelligent-tiering&id=x", "<IntelligentTieringConfiguration/>"),
    ] {
        owner.put(&format!("/bkt?{selector}"), document).await.is(501, "NotImplemented");
    }
    owner.put("/bkt?accelerate", "<AccelerateConfiguration><Status>Suspended</Status></AccelerateConfiguration>").await.ok();
    owner.put("/bkt?requestPayment", "<RequestPaymentConfiguration><Payer>BucketOwner</Payer></RequestPaymentConfiguration>").await.ok();
    for (selector, document) in [
        ("accelerate", "<AccelerateConfiguration><Status>Faster</Status></AccelerateConfiguration>"),
        ("accelerate", "<AccelerateConfiguration/>"),
        ("requestPayment", "<RequestPaymentConfiguration><Payer>Nobody</Payer></RequestPaymentConfiguration>"),
        ("requestPayment", "<RequestPaymentConfiguration/>"),
    ] {
        owner.put(&format!("/bkt?{selector}"), document).await.is(400, "MalformedXML");
    }
    for selector in ["inventory", "analytics", "metrics", "intelligent-tiering"] {
        assert_eq!(owner.get(&format!("/bkt?{selector}")).await.ok().element("IsTruncated").as_deref(), Some("false"));
        owner.get(&format!("/bkt?{selector}&id=x")).await.is(404, "NoSuchConfiguration");
    }
}
