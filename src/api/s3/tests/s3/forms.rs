//! Uploads by a browser's form: what a policy allows is stored, everything else is refused and stores nothing.

use base64::{Engine, engine::general_purpose::STANDARD};
use garage_api_common::{
    sigv4::{Scope, SigningKey},
    time::{iso_basic, iso8601},
};
use garage_model::rows::bucket::Permissions;

use crate::{
    client::{Answer, Client, Signed, etag},
    server::{REGION, Server},
};

pub const BOUNDARY: &str = "----WebKitFormBoundaryABC";

/// A form that a browser would send.
pub struct Form<'a> {
    client: &'a Client,
    conditions: Vec<String>,
    fields: Vec<(String, String)>,
    /// Fields behind the signature's.
    last: Vec<(String, String)>,
    expires_in_s: i64,
    file_name: &'a str,
    content: Vec<u8>,
    target: &'a str,
}

impl<'a> Form<'a> {
    /// A form whose policy speaks of the bucket and the signature's fields, for the key `k`.
    pub fn new(client: &'a Client, content: impl AsRef<[u8]>) -> Form<'a> {
        let form = Form {
            client,
            conditions: vec![r#"{"bucket":"bkt"}"#.into()],
            fields: Vec::new(),
            last: Vec::new(),
            expires_in_s: 60,
            file_name: "photo.png",
            content: content.as_ref().to_vec(),
            target: "/bkt",
        };
        form.field("key", "k")
    }
    pub fn condition(mut self, condition: impl Into<String>) -> Self {
        self.conditions.push(condition.into());
        self
    }
    /// A field that the policy allows with just this value.
    fn field(self, name: &str, value: &str) -> Self {
        let condition = format!("[\"eq\",\"${name}\",{}]", serde_json::Value::from(value));
        self.condition(condition).unlisted(name, value)
    }
    /// A field that the policy does not speak of.
    fn unlisted(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }
    /// Another key, which must begin so.
    fn key_starting(mut self, prefix: &str, key: &str) -> Self {
        self.fields[0].1 = key.to_owned();
        self.conditions[1] = format!("[\"starts-with\",\"$key\",\"{prefix}\"]");
        self
    }
    fn signed_fields(&self) -> Vec<(String, String)> {
        let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
        let date = iso_basic(now_ms);
        let key = self.client.key.clone();
        let scope = Scope { access_key_id: key, date: date[..8].to_owned(), region: REGION.into(), service: "s3".into() };
        let credential = format!("{}/{}", scope.access_key_id, scope.text());
        let of_signature = [("x-amz-algorithm", "AWS4-HMAC-SHA256"), ("x-amz-credential", &*credential), ("x-amz-date", &*date)];
        let listed = of_signature.iter().map(|(name, value)| format!("{{\"{name}\":\"{value}\"}}"));
        let conditions = self.conditions.iter().cloned().chain(listed).collect::<Vec<_>>().join(",");
        let expiration = iso8601(now_ms.saturating_add_signed(self.expires_in_s * 1000));
        let policy = STANDARD.encode(format!("{{\"expiration\":\"{expiration}\",\"conditions\":[{conditions}]}}"));
        let signature = SigningKey::derive(&self.client.secret, &scope).sign(policy.as_bytes());
        let mut fields = self.fields.clone();
        fields.extend(of_signature.map(|(name, value)| (name.to_owned(), value.to_owned())));
        fields.extend([("Policy".to_owned(), policy), ("X-Amz-Signature".to_owned(), signature)]);
        fields.extend(self.last.clone());
        fields
    }
    pub async fn send(self) -> Answer {
        let fields = self.signed_fields();
        self.send_fields(&fields).await
    }
    async fn send_fields(&self, fields: &[(String, String)]) -> Answer {
        let file = format!("file\"; filename=\"{}\"\r\nContent-Type: image/png", self.file_name);
        let mut body = Vec::new();
        let parts = fields.iter().map(|(name, value)| (format!("{name}\""), value.as_bytes()));
        for (name, value) in parts.chain([(file, &self.content[..]), ("later\"".to_owned(), &b"ignored"[..])]) {
            body.extend_from_slice(format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\r\n\r\n").as_bytes());
            body.extend_from_slice(value);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
        post(self.client, self.target, &body).await
    }
}

pub async fn post(client: &Client, target: &str, body: &[u8]) -> Answer {
    let call = client.call("POST", target).signed(Signed::No).header("content-type", format!("multipart/form-data; boundary={BOUNDARY}"));
    call.body(body).send().await
}

#[tokio::test]
async fn a_form_stores_its_file_with_what_its_fields_say() {
    let server = Server::start().await;
    let client = &server.client;
    let content = vec![7u8; 1 << 20];
    let form = Form::new(client, &content).key_starting("up/", "up/ä ${filename}").field("Content-Type", "image/png");
    let form = form.field("x-amz-meta-kind", "photo").field("Cache-Control", "no-cache").field("acl", "private");
    let answer = form.send().await;
    assert_eq!(answer.status, 204, "{}", answer.text());
    assert_eq!(answer.header("etag"), Some(&*etag(&content)));
    let location = format!("http://{}/bkt/up/%C3%A4%20photo.png", client.address);
    assert_eq!(answer.header("location"), Some(&*location));
    let got = client.get("/bkt/up/%C3%A4%20photo.png").await.ok();
    assert_eq!(got.body, content);
    for (name, value) in [("content-type", "image/png"), ("x-amz-meta-kind", "photo"), ("cache-control", "no-cache")] {
        assert_eq!(got.header(name), Some(value), "{name}");
    }
    Form::new(client, "").send().await.ok();
    let empty = client.get("/bkt/k").await.ok();
    assert_eq!((empty.header("content-length"), empty.header("content-type")), (Some("0"), Some("binary/octet-stream")));
}

#[tokio::test]
async fn browsers_are_answered_as_they_ask() {
    let server = Server::start().await;
    let client = &server.client;
    for (asked, status) in [("200", 200), ("204", 204), ("201", 201), ("500", 204), ("", 204)] {
        let answer = Form::new(client, "x").field("success_action_status", asked).send().await;
        assert_eq!(answer.status, status, "{asked}");
        assert_eq!(answer.body.is_empty(), status != 201, "{asked}");
        if status == 201 {
            assert_eq!(answer.header("content-type"), Some("application/xml"));
            assert_eq!(answer.element("Location"), Some(format!("http://{}/bkt/k", client.address)));
            let named = (answer.element("Bucket"), answer.element("Key"), answer.element("ETag"));
            assert_eq!(named, (Some("bkt".into()), Some("k".into()), Some(etag(b"x").replace('"', "&quot;"))));
        }
    }
    for field in ["success_action_redirect", "redirect"] {
        let answer = Form::new(client, "x").field(field, "https://a.example/done?q=1").send().await;
        assert_eq!(answer.status, 303);
        let etag = etag(b"x").replace('"', "%22");
        assert_eq!(answer.header("location"), Some(&*format!("https://a.example/done?q=1&bucket=bkt&key=k&etag={etag}")));
    }
    let nowhere = Form::new(client, "x").field("success_action_redirect", "nonsense").field("success_action_status", "200").send().await;
    assert_eq!(nowhere.status, 200);
}

#[tokio::test]
async fn what_the_policy_does_not_allow_is_refused_and_stores_nothing() {
    let server = Server::start().await;
    let client = &server.client;
    let form = || Form::new(client, "12345");
    let message = |answer: Answer| answer.is(403, "AccessDenied").element("Message").unwrap();
    assert_eq!(message(form().unlisted("x-amz-meta-a", "1").send().await), "Invalid according to Policy: Extra input fields: x-amz-meta-a");
    let other_key = Form { fields: vec![("key".into(), "other".into())], ..form() };
    assert_eq!(
        message(other_key.send().await),
        "Invalid according to Policy: Policy Condition failed: [&quot;eq&quot;,&quot;$key&quot;,&quot;k&quot;]"
    );
    assert_eq!(message(Form { expires_in_s: -60, ..form() }.send().await), "Invalid according to Policy: Policy expired.");
    assert!(message(form().key_starting("up/", "down/k").send().await).contains("starts-with"));
    client.put("/bkt2", "").await.ok();
    assert!(message(Form { target: "/bkt2", ..form() }.send().await).contains("bucket"));
    form().condition(r#"["content-length-range",1,4]"#).send().await.is(400, "EntityTooLarge");
    form().condition(r#"["content-length-range",6,9]"#).send().await.is(400, "EntityTooSmall");
    form().condition("5").send().await.is(400, "InvalidPolicyDocument");
    for key in ["k", "other", "down/k"] {
        client.get(&format!("/bkt/{key}")).await.is(404, "NoSuchKey");
    }
    form().condition(r#"["content-length-range",5,"5"]"#).send().await.ok();
    client.get("/bkt/k").await.ok();
}

#[tokio::test]
async fn a_form_needs_a_key_that_may_write_and_signed_it() {
    let server = Server::start().await;
    let client = &server.client;
    let form = Form::new(client, "x");
    let fields = form.signed_fields();
    let without = |name: &str| fields.iter().filter(|(found, _)| !found.eq_ignore_ascii_case(name)).cloned().collect::<Vec<_>>();
    for name in ["x-amz-signature", "x-amz-credential", "x-amz-algorithm", "x-amz-date", "policy", "key"] {
        form.send_fields(&without(name)).await.is(400, "InvalidArgument");
    }
    let mut forged = without("x-amz-signature");
    forged.push(("x-amz-signature".into(), "0".repeat(64)));
    form.send_fields(&forged).await.is(403, "SignatureDoesNotMatch");
    let mut temporary = fields.clone();
    temporary.push(("x-amz-security-token".into(), "t".into()));
    form.send_fields(&temporary).await.is(400, "InvalidToken");
    form.send_fields(&[("key".into(), "k".into())]).await.is(403, "AccessDenied");
    let old = [("key", "k"), ("policy", "e30="), ("AWSAccessKeyId", "AK"), ("signature", "s")];
    form.send_fields(&old.map(|(name, value)| (name.into(), value.into()))).await.is(400, "InvalidRequest");
    let unknown = Client { address: client.address, key: "GK000000000000000000000000".into(), secret: "0".repeat(64) };
    Form::new(&unknown, "x").send().await.is(403, "InvalidAccessKeyId");
    let reader = server.other_client(Permissions { read: true, write: false, owner: false }, false).await;
    Form::new(&reader, "x").send().await.is(403, "AccessDenied");
    let nowhere =
        Form { target: "/nowhere", conditions: vec![r#"{"bucket":"nowhere"}"#.into(), r#"{"key":"k"}"#.into()], ..Form::new(client, "x") };
    nowhere.send().await.is(404, "NoSuchBucket");
    client.get("/bkt/k").await.is(404, "NoSuchKey");
}

#[tokio::test]
async fn what_a_form_asks_for_is_done_or_refused_like_a_put() {
    let server = Server::start().await;
    let client = &server.client;
    let form = || Form::new(client, "123456789");
    form().field("x-amz-checksum-crc32", "AAAAAA==").send().await.is(400, "BadDigest");
    form().field("Content-MD5", "1B2M2Y8AsgTpgAmY7PhCfg==").send().await.is(400, "BadDigest");
    form().field("x-amz-storage-class", "NONSENSE").send().await.is(400, "InvalidStorageClass");
    form().field("acl", "nonsense").send().await.is(400, "InvalidArgument");
    form().field("x-amz-write-offset-bytes", "5").send().await.is(501, "NotImplemented");
    form().field("x-amz-meta-a", &"v".repeat(3000)).send().await.is(400, "MetadataTooLarge");
    form().field("x-amz-website-redirect-location", "nowhere").send().await.is(400, "InvalidRedirectLocation");
    form().key_starting("", &"k".repeat(1025)).send().await.is(400, "KeyTooLongError");
    client.get("/bkt/k").await.is(404, "NoSuchKey");
    let stored = form().field("x-amz-checksum-crc32c", "4waSgw==").field("x-amz-storage-class", "STANDARD_IA").send().await.ok();
    assert_eq!(stored.header("x-amz-checksum-crc32c"), Some("4waSgw=="));
    assert_eq!(client.head("/bkt/k").await.header("x-amz-storage-class"), Some("STANDARD_IA"));
    form().field("if-none-match", "*").send().await.is(412, "PreconditionFailed");
}

#[tokio::test]
async fn bodies_that_are_no_form_are_refused() {
    let server = Server::start().await;
    let client = &server.client;
    let plain = client.post("/bkt", "x").await;
    plain.is(412, "PreconditionFailed");
    assert_eq!(plain.element("Condition").as_deref(), Some("Bucket POST must be of the enclosure-type multipart/form-data"));
    post(client, "/bkt", b"no form").await.is(400, "MalformedPOSTRequest");
    post(client, "/bkt", format!("--{BOUNDARY}--").as_bytes()).await.is(400, "InvalidArgument");
    let long = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\n{}", "k".repeat(30_000));
    post(client, "/bkt", long.as_bytes()).await.is(400, "MaxPostPreDataLengthExceededError");
    let twice = Form::new(client, "x").field("key", "other").send().await;
    twice.is(400, "InvalidArgument");
    let cut = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\ncontent");
    post(client, "/bkt", cut.as_bytes()).await.is(400, "InvalidArgument");
    client.post("/bkt/k", "x").await.is(405, "MethodNotAllowed");
}

/// Lets everyone do this in the bucket.
async fn open_to_everyone(client: &Client, action: &str) {
    let policy = format!(
        r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Principal":"*","Action":"{action}","Resource":"arn:aws:s3:::bkt/*"}}]}}"#
    );
    client.put("/bkt?policy", policy).await.ok();
}

#[tokio::test]
async fn a_form_without_policy_is_anonymous() {
    let server = Server::start().await;
    let client = &server.client;
    let form = Form::new(client, "from nobody");
    let fields = [("key".to_owned(), "k".to_owned()), ("x-amz-meta-a".to_owned(), "1".to_owned())];
    form.send_fields(&fields).await.is(403, "AccessDenied");
    open_to_everyone(client, "s3:PutObject").await;
    assert_eq!(form.send_fields(&fields).await.status, 204);
    let got = client.get("/bkt/k").await.ok();
    assert_eq!((got.text().as_str(), got.header("x-amz-meta-a")), ("from nobody", Some("1")));
}

#[tokio::test]
async fn nobody_may_choose_headers_of_an_answer() {
    let server = Server::start().await;
    let client = &server.client;
    client.put("/bkt/k", "content").await.ok();
    open_to_everyone(client, "s3:GetObject").await;
    let get = |target: &'static str| client.call("GET", target).signed(Signed::No).send();
    assert_eq!(get("/bkt/k").await.ok().text(), "content");
    let refused = get("/bkt/k?response-content-type=text%2Fhtml").await;
    refused.is(400, "InvalidRequest");
    let message = "Request specific response headers cannot be used for anonymous GET requests.";
    assert_eq!(refused.element("Message").as_deref(), Some(message));
}

#[tokio::test]
async fn tags_come_as_a_document() {
    let server = Server::start().await;
    let client = &server.client;
    let tags = "<Tagging><TagSet><Tag><Key>a b</Key><Value>c</Value></Tag></TagSet></Tagging>";
    Form::new(client, "x").field("tagging", tags).send().await.ok();
    let stored = client.get("/bkt/k?tagging").await.ok();
    assert_eq!((stored.element("Key").as_deref(), stored.element("Value").as_deref()), (Some("a b"), Some("c")));
    Form::new(client, "x").field("tagging", "no document").send().await.is(400, "MalformedXML");
}

#[tokio::test]
async fn scripts_of_allowed_sites_may_read_the_answer() {
    let server = Server::start().await;
    let client = &server.client;
    let rules = "<CORSConfiguration><CORSRule><AllowedOrigin>https://a.example</AllowedOrigin><AllowedMethod>POST</AllowedMethod>\
                 <ExposeHeader>ETag</ExposeHeader></CORSRule></CORSConfiguration>";
    client.put("/bkt?cors", rules).await.ok();
    let refused = client.call("POST", "/bkt").signed(Signed::No).header("origin", "https://a.example").body("x").send().await;
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (412, Some("https://a.example")));
    let elsewhere = client.call("POST", "/bkt").signed(Signed::No).header("origin", "https://b.example").body("x").send().await;
    assert_eq!((elsewhere.status, elsewhere.header("access-control-allow-origin")), (412, None));
}
