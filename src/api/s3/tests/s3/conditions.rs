//! Every condition key of bucket policies, one by one: a policy that allows something on that condition alone lets in the request that meets
//! it and no other.

use std::time::SystemTime;

use garage_api_common::time::iso8601;
use garage_model::{policy::CONDITION_KEYS, rows::bucket::Permissions};

use crate::{
    client::{Answer, Call, Client, Signed},
    server::Server,
};

const NOTHING: Permissions = Permissions { read: false, write: false, owner: false };
/// Status and error code.
const LET_IN: (u16, &str) = (200, "");
const KEPT_OUT: (u16, &str) = (403, "AccessDenied");
const HOUR_MS: u64 = 3_600_000;

/// Keys that have no value in any request that a policy is asked about here.
const WITHOUT_VALUE: [&str; 9] = [
    // What AWS has around S3, and this server has not.
    "aws:principalorgid",
    "aws:sourceaccount",
    "aws:sourcearn",
    "aws:sourceowner",
    "aws:sourcevpc",
    "aws:sourcevpce",
    // Of requests that create a bucket: it has no policy yet.
    "s3:locationconstraint",
    "s3:x-amz-object-ownership",
    // Only with TLS, which this test's server does not speak; the flow of listeners shows it.
    "s3:tlsversion",
];

/// A request that meets a condition, or does not.
enum Ask {
    /// Reads a target.
    Get(String),
    /// Reads `k`, with a header.
    GetWith(&'static str, &'static str),
    /// Reads `k` by a presigned address.
    Presigned,
    /// Reads `k` without a signature.
    Anonymous,
    /// Writes `new`, with headers.
    Put(Vec<(&'static str, String)>),
}

impl Ask {
    fn call<'a>(&self, client: &'a Client) -> Call<'a> {
        match self {
            Ask::Get(target) => client.call("GET", target),
            Ask::GetWith(name, value) => client.call("GET", "/bkt/k").header(name, value),
            Ask::Presigned => client.call("GET", "/bkt/k").signed(Signed::Presigned(60, 0)),
            Ask::Anonymous => client.call("GET", "/bkt/k").signed(Signed::No),
            Ask::Put(headers) => {
                let content_sha256 = headers.iter().find(|(name, _)| *name == "x-amz-content-sha256");
                let call = client.call("PUT", "/bkt/new").body("x");
                let call = match content_sha256 {
                    Some((_, value)) => call.payload(value),
                    None => call,
                };
                let rest = headers.iter().filter(|(name, _)| *name != "x-amz-content-sha256");
                rest.fold(call, |call, (name, value)| call.header(name, value))
            }
        }
    }
}

/// Reads `k` and nothing special.
fn read() -> Ask {
    Ask::Get("/bkt/k".into())
}

/// Writes `new` with these headers.
fn write<const N: usize>(headers: [(&'static str, &str); N]) -> Ask {
    Ask::Put(headers.map(|(name, value)| (name, value.to_owned())).into())
}

/// A condition, who meets it, and who does not.
struct Case {
    key: &'static str,
    operator: &'static str,
    value: String,
    /// With this value instead, nobody meets it.
    contrary: Option<String>,
    yes: Ask,
    no: Option<Ask>,
}

fn case(key: &'static str, operator: &'static str, value: &str, yes: Ask, no: Ask) -> Case {
    Case { key, operator, value: value.to_owned(), contrary: None, yes, no: Some(no) }
}

/// Met by everyone; with the other value by nobody.
fn of_all(key: &'static str, operator: &'static str, value: &str, contrary: &str) -> Case {
    Case { key, operator, value: value.to_owned(), contrary: Some(contrary.to_owned()), yes: read(), no: None }
}

fn of_writes() -> Vec<Case> {
    let present = |key, name: &'static str, value: &'static str| case(key, "StringEquals", value, write([(name, value)]), write([]));
    let absent = |key, name: &'static str, value: &'static str| case(key, "Null", "true", write([]), write([(name, value)]));
    let copy = ("x-amz-copy-source", "bkt/k");
    let (tagged_mine, tagged_both) = (write([("x-amz-tagging", "by=me")]), write([("x-amz-tagging", "by=me&to=you")]));
    vec![
        present("s3:x-amz-acl", "x-amz-acl", "private"),
        present("s3:x-amz-storage-class", "x-amz-storage-class", "STANDARD_IA"),
        present("s3:x-amz-website-redirect-location", "x-amz-website-redirect-location", "/other"),
        present("s3:if-none-match", "if-none-match", "*"),
        case("s3:ObjectCreationOperation", "Bool", "true", write([]), read()),
        present("s3:x-amz-content-sha256", "x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
        case("s3:x-amz-copy-source", "StringLike", "bkt/*", write([copy]), write([])),
        case(
            "s3:x-amz-metadata-directive",
            "StringEquals",
            "REPLACE",
            write([copy, ("x-amz-metadata-directive", "REPLACE")]),
            write([copy]),
        ),
        absent("s3:if-match", "if-match", "\"d41d8cd98f00b204e9800998ecf8427e\""),
        absent("s3:x-amz-server-side-encryption", "x-amz-server-side-encryption", "AES256"),
        absent("s3:x-amz-server-side-encryption-aws-kms-key-id", "x-amz-server-side-encryption-aws-kms-key-id", "some"),
        absent("s3:x-amz-server-side-encryption-customer-algorithm", "x-amz-server-side-encryption-customer-algorithm", "AES256"),
        absent("s3:x-amz-grant-read", "x-amz-grant-read", "id=\"someone\""),
        absent("s3:x-amz-grant-write", "x-amz-grant-write", "id=\"someone\""),
        absent("s3:x-amz-grant-read-acp", "x-amz-grant-read-acp", "id=\"someone\""),
        absent("s3:x-amz-grant-write-acp", "x-amz-grant-write-acp", "id=\"someone\""),
        absent("s3:x-amz-grant-full-control", "x-amz-grant-full-control", "id=\"someone\""),
        case("s3:RequestObjectTag/by", "StringEquals", "me", tagged_mine, write([("x-amz-tagging", "by=you")])),
        case("s3:RequestObjectTagKeys", "ForAllValues:StringEquals", "by", write([("x-amz-tagging", "by=me")]), tagged_both),
    ]
}

fn of_locks(now_ms: u64) -> Vec<Case> {
    let days = |days: u64| iso8601(now_ms + days * 24 * HOUR_MS);
    let kept = |days: String| write([("x-amz-object-lock-mode", "GOVERNANCE"), ("x-amz-object-lock-retain-until-date", &days)]);
    let held = |state| write([("x-amz-object-lock-legal-hold", state)]);
    vec![
        case("s3:object-lock-mode", "StringEquals", "GOVERNANCE", kept(days(2)), write([])),
        case("s3:object-lock-remaining-retention-days", "NumericLessThanEquals", "2", kept(days(2)), kept(days(3))),
        case("s3:object-lock-retain-until-date", "DateLessThan", &days(3), kept(days(2)), kept(days(4))),
        case("s3:object-lock-legal-hold", "StringEquals", "OFF", held("OFF"), held("ON")),
    ]
}

fn of_senders(other: &Client, now_ms: u64) -> Vec<Case> {
    let user = |id: &str| format!("arn:aws:iam:::user/{id}");
    let (past, future) = (now_ms - HOUR_MS, now_ms + HOUR_MS);
    let seconds = |ms: u64| (ms / 1000).to_string();
    vec![
        of_all("aws:CurrentTime", "DateLessThan", &iso8601(future), &iso8601(past)),
        of_all("aws:CurrentTime", "DateGreaterThan", &iso8601(past), &iso8601(future)),
        of_all("aws:EpochTime", "NumericLessThan", &seconds(future), &seconds(past)),
        of_all("aws:SecureTransport", "Bool", "false", "true"),
        of_all("aws:SourceIp", "IpAddress", "127.0.0.0/8", "192.0.2.0/24"),
        of_all("aws:SourceIp", "NotIpAddress", "192.0.2.0/24", "127.0.0.0/8"),
        case("aws:PrincipalAccount", "StringEquals", &other.key, read(), Ask::Anonymous),
        case("aws:PrincipalArn", "ArnEquals", &user(&other.key), read(), Ask::Anonymous),
        case("aws:PrincipalArn", "ArnLike", &user("GK*"), read(), Ask::Anonymous),
        case("aws:PrincipalType", "StringEquals", "Anonymous", Ask::Anonymous, read()),
        case("aws:username", "StringEquals", &other.key, read(), Ask::Anonymous),
        case("aws:userid", "StringEqualsIgnoreCase", &other.key.to_lowercase(), read(), Ask::Anonymous),
        case("aws:Referer", "StringLike", "https://example.org/*", Ask::GetWith("referer", "https://example.org/page"), read()),
        case("aws:UserAgent", "StringLike", "tool/*", Ask::GetWith("user-agent", "tool/1"), Ask::GetWith("user-agent", "other/1")),
        case("s3:authType", "StringEquals", "REST-QUERY-STRING", Ask::Presigned, read()),
        case("s3:authType", "StringEquals", "REST-HEADER", read(), Ask::Presigned),
        case("s3:signatureversion", "StringEquals", "AWS4-HMAC-SHA256", read(), Ask::Anonymous),
        case("s3:signatureAge", "NumericLessThan", "600000", read(), Ask::Anonymous),
    ]
}

fn of_targets(version: &str) -> Vec<Case> {
    let list = |query: &str| Ask::Get(format!("/bkt{query}"));
    vec![
        case("s3:prefix", "StringEquals", "home/", list("?prefix=home/"), list("?prefix=h")),
        case("s3:delimiter", "StringEquals", "/", list("?delimiter=/"), list("")),
        case("s3:max-keys", "NumericLessThanEquals", "10", list("?max-keys=10"), list("?max-keys=11")),
        case("s3:VersionId", "StringEquals", version, Ask::Get(format!("/bkt/k?versionId={version}")), read()),
        case("s3:ExistingObjectTag/class", "StringEquals", "open", Ask::Get("/bkt/tagged".into()), read()),
    ]
}

/// A policy that allows everything to everyone, on one condition.
fn policy(key: &str, operator: &str, value: &str) -> String {
    // What only lists have may only stand beside actions that list.
    let is_of_lists = ["s3:prefix", "s3:delimiter", "s3:max-keys"].contains(&key);
    let (action, resource) = if is_of_lists { ("s3:ListBucket", "") } else { ("s3:*", "/*") };
    let target = format!(r#""Effect":"Allow","Principal":"*","Action":"{action}","Resource":"arn:aws:s3:::bkt{resource}""#);
    format!(r#"{{"Version":"2012-10-17","Statement":[{{{target},"Condition":{{"{operator}":{{"{key}":"{value}"}}}}}}]}}"#)
}

async fn answer(owner: &Client, other: &Client, ask: &Ask) -> Answer {
    owner.delete("/bkt/new").await;
    ask.call(other).send().await
}

/// What is not as the case says.
async fn check(owner: &Client, other: &Client, case: &Case) -> Vec<String> {
    let Case { key, operator, value, contrary, yes, no } = case;
    let mut wrong = Vec::new();
    let mut expect = |value: &str, answer: Answer, expected: (u16, &str)| {
        let given = (answer.status, if answer.status == 200 { String::new() } else { answer.code() });
        if (given.0, given.1.as_str()) != expected {
            wrong.push(format!("{key} {operator} {value}: {expected:?} expected, {}", answer.text()));
        }
    };
    owner.put("/bkt?policy", policy(key, operator, value)).await.ok();
    expect(value, answer(owner, other, yes).await, LET_IN);
    if let Some(no) = no {
        expect(value, answer(owner, other, no).await, KEPT_OUT);
    }
    if let Some(contrary) = contrary {
        owner.put("/bkt?policy", policy(key, operator, contrary)).await.ok();
        expect(contrary, answer(owner, other, yes).await, KEPT_OUT);
    }
    wrong
}

#[tokio::test]
async fn each_condition_key_alone_lets_in_and_keeps_out() {
    let server = Server::start().await;
    let owner = &server.client;
    let other = &server.other_client(NOTHING, false).await;
    owner.put("/bkt?versioning", "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>").await.ok();
    let lock = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>";
    owner.put("/bkt?object-lock", lock).await.ok();
    let version = owner.put("/bkt/k", "content").await.ok().header("x-amz-version-id").unwrap().to_owned();
    owner.call("PUT", "/bkt/tagged").header("x-amz-tagging", "class=open").body("x").send().await.ok();
    let now_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64;

    let cases = [of_writes(), of_locks(now_ms), of_senders(other, now_ms), of_targets(&version)].into_iter().flatten();
    let mut shown: Vec<String> = WITHOUT_VALUE.map(String::from).to_vec();
    let mut wrong = Vec::new();
    for case in cases {
        wrong.extend(check(owner, other, &case).await);
        shown.push(case.key.to_lowercase());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for key in CONDITION_KEYS {
        assert!(shown.iter().any(|shown| shown == key), "{key} is a condition key, and no request here shows it");
    }
}
