//! CORS: the rules, preflights, and the headers of answers.

use garage_model::rows::bucket::Permissions;

use crate::{
    client::{Answer, Client, Signed},
    server::{Server, context},
};

const RULES: &str = "<CORSConfiguration><CORSRule><ID>one</ID><AllowedOrigin>https://*.example.org</AllowedOrigin>\
    <AllowedMethod>GET</AllowedMethod><AllowedMethod>PUT</AllowedMethod><AllowedHeader>x-amz-*</AllowedHeader>\
    <ExposeHeader>ETag</ExposeHeader><MaxAgeSeconds>60</MaxAgeSeconds></CORSRule>\
    <CORSRule><AllowedOrigin>*</AllowedOrigin><AllowedMethod>HEAD</AllowedMethod></CORSRule></CORSConfiguration>";
const ORIGIN: &str = "https://a.example.org";

async fn with_rules() -> Server {
    let server = Server::start().await;
    server.client.put("/bkt?cors", RULES).await.ok();
    server
}

async fn preflight(client: &Client, path: &str, origin: &str, method: &str, headers: &str) -> Answer {
    let call = client.call("OPTIONS", path).signed(Signed::No).header("origin", origin);
    let call = call.header("access-control-request-method", method);
    if headers.is_empty() { call.send().await } else { call.header("access-control-request-headers", headers).send().await }
}

#[tokio::test]
async fn rules_come_back_as_they_were_set_until_they_are_deleted() {
    let server = with_rules().await;
    let client = &server.client;
    let text = client.get("/bkt?cors").await.ok().text();
    let (_, body) = text.split_once("<CORSConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">").unwrap();
    assert_eq!(body, RULES.strip_prefix("<CORSConfiguration>").unwrap());
    assert_eq!(client.delete("/bkt?cors").await.status, 204);
    client.get("/bkt?cors").await.is(404, "NoSuchCORSConfiguration");
    assert_eq!(client.delete("/bkt?cors").await.status, 204);
    let reader = server.other_client(Permissions { read: true, write: true, owner: false }, false).await;
    reader.put("/bkt?cors", RULES).await.is(403, "AccessDenied");
    reader.delete("/bkt?cors").await.is(403, "AccessDenied");
}

#[tokio::test]
async fn rules_that_are_wrong_are_refused_and_change_nothing() {
    let server = with_rules().await;
    let rule = |inner: &str| format!("<CORSConfiguration><CORSRule>{inner}</CORSRule></CORSConfiguration>");
    let origin = "<AllowedOrigin>*</AllowedOrigin>";
    let full = format!("{origin}<AllowedMethod>GET</AllowedMethod>");
    let many = format!("<CORSConfiguration>{}</CORSConfiguration>", format!("<CORSRule>{full}</CORSRule>").repeat(101));
    for (body, code) in [
        ("<CORSConfiguration/>".to_owned(), "MalformedXML"),
        ("<Other/>".to_owned(), "MalformedXML"),
        (String::new(), "MissingRequestBodyError"),
        (rule(origin), "MalformedXML"),
        (rule("<AllowedMethod>GET</AllowedMethod>"), "MalformedXML"),
        (rule(&format!("{full}<MaxAgeSeconds>-1</MaxAgeSeconds>")), "MalformedXML"),
        (rule(&format!("{origin}<AllowedMethod>PATCH</AllowedMethod>")), "InvalidRequest"),
        (rule(&format!("{full}<AllowedOrigin>*x*</AllowedOrigin>")), "InvalidRequest"),
        (rule(&format!("{full}<AllowedHeader>*x*</AllowedHeader>")), "InvalidRequest"),
        (rule(&format!("{full}<ExposeHeader>x-amz-*</ExposeHeader>")), "InvalidRequest"),
        (rule(&format!("{full}<Nonsense/>")), "MalformedXML"),
        (RULES.replace("</CORSConfiguration>", "<Nonsense/></CORSConfiguration>"), "MalformedXML"),
        (many, "InvalidRequest"),
        (rule(&" ".repeat(65 << 10)), "MaxMessageLengthExceeded"),
    ] {
        server.client.put("/bkt?cors", &body).await.is(400, code);
    }
    let unprotected = server.client.call("PUT", "/bkt?cors").body(RULES).payload("UNSIGNED-PAYLOAD").send().await;
    unprotected.is(400, "InvalidRequest");
    assert!(server.client.get("/bkt?cors").await.text().contains("<ID>one</ID>"));
}

#[tokio::test]
async fn a_preflight_is_answered_by_the_first_rule_that_matches() {
    let server = with_rules().await;
    let client = &server.client;
    let granted = preflight(client, "/bkt/any/key", ORIGIN, "PUT", "X-Amz-Date, x-amz-content-sha256").await.ok();
    assert_eq!((granted.status, granted.body.len()), (200, 0));
    for (name, value) in [
        ("access-control-allow-origin", ORIGIN),
        ("access-control-allow-methods", "GET, PUT"),
        ("access-control-allow-headers", "x-amz-date, x-amz-content-sha256"),
        ("access-control-expose-headers", "ETag"),
        ("access-control-max-age", "60"),
        ("access-control-allow-credentials", "true"),
        ("vary", "Origin, Access-Control-Request-Headers, Access-Control-Request-Method"),
    ] {
        assert_eq!(granted.header(name), Some(value), "{name}");
    }
    let anyone = preflight(client, "/bkt", "http://elsewhere", "HEAD", "").await.ok();
    assert_eq!(anyone.header("access-control-allow-origin"), Some("*"));
    assert_eq!(anyone.header("access-control-allow-credentials"), None);
    for (origin, method, headers) in [("http://elsewhere", "GET", ""), (ORIGIN, "POST", ""), (ORIGIN, "GET", "x-other")] {
        let refused = preflight(client, "/bkt/k", origin, method, headers).await;
        refused.is(403, "AccessForbidden");
        assert_eq!((refused.element("Method").as_deref(), refused.element("ResourceType").as_deref()), (Some(method), Some("OBJECT")));
    }
    preflight(client, "/bkt/k", ORIGIN, "PATCH", "").await.is(400, "BadRequest");
}

#[tokio::test]
async fn a_bucket_without_a_global_name_is_open_to_preflights() {
    let server = Server::start().await;
    let client = &server.client;
    let found = server.node.access.buckets().resolve(None, "bkt", context()).await.unwrap().unwrap();
    server.node.access.buckets().add_local_alias(found.id, &client.key, "mine", context()).await.unwrap();
    let granted = preflight(client, "/mine/k", ORIGIN, "PUT", "x-amz-date").await.ok();
    assert_eq!(granted.header("access-control-allow-origin"), Some("*"));
    assert_eq!(granted.header("access-control-allow-methods"), Some("*"));
    let service = preflight(client, "/", ORIGIN, "GET", "").await.ok();
    assert_eq!(service.header("access-control-allow-methods"), Some("GET"));
    // The request itself finds the rules by the name that its key has for the bucket.
    client.put("/mine?cors", RULES).await.ok();
    let put = client.call("PUT", "/mine/k").header("origin", ORIGIN).body("x").send().await.ok();
    assert_eq!(put.header("access-control-allow-origin"), Some(ORIGIN));
}

#[tokio::test]
async fn answers_and_errors_carry_the_headers_of_their_rule() {
    let server = with_rules().await;
    let client = &server.client;
    client.put("/bkt/k", "content").await.ok();
    let get = |path: &str, origin: &str| client.call("GET", path).header("origin", origin).send();
    for (answer, status) in [
        (get("/bkt/k", ORIGIN).await, 200),
        (get("/bkt/none", ORIGIN).await, 404),
        (client.call("GET", "/bkt/k").signed(Signed::No).header("origin", ORIGIN).send().await, 403),
        (client.call("PUT", "/bkt/k?versioning").header("origin", ORIGIN).send().await, 400),
    ] {
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (status, Some(ORIGIN)), "{}", answer.text());
        assert_eq!(answer.header("access-control-expose-headers"), Some("ETag"));
        assert!(answer.header("vary").unwrap().contains("Origin"));
    }
    let served = get("/bkt/k", "http://elsewhere").await.ok();
    assert_eq!((served.header("access-control-allow-origin"), served.text().as_str()), (None, "content"));
    assert_eq!(client.get("/bkt/k").await.ok().header("access-control-allow-origin"), None);
    assert_eq!(get("/no-such-bucket/k", ORIGIN).await.header("access-control-allow-origin"), None);
}
