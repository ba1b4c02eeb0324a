//! Documents that are taken and refused, and the laws of evaluation.

use proptest::prelude::*;

use super::{Asked, Facts, Policy, Verdict, actions};

const KEY: &str = "GK0123456789abcdef01234567";
const OTHER: &str = "GKffffffffffffffffffffffff";

fn policy(statements: &str) -> Policy {
    let text = format!(r#"{{"Version":"2012-10-17","Statement":[{statements}]}}"#);
    Policy::parse(&text, "bkt").unwrap_or_else(|error| panic!("{error}: {text}"))
}
fn facts(pairs: &[(&str, &str)]) -> Facts {
    let mut facts = Facts::default();
    pairs.iter().for_each(|(key, value)| facts.add(key, *value));
    facts
}
fn asks(policy: &Policy, key_id: Option<&str>, action: actions::Action, resource: &str, pairs: &[(&str, &str)]) -> Verdict {
    policy.evaluate(&Asked { key_id, action, resource, facts: &facts(pairs) })
}
/// A statement for everyone, on everything, with this condition.
fn on_condition(condition: &str) -> Policy {
    policy(&format!(
        r#"{{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":["arn:aws:s3:::bkt","arn:aws:s3:::bkt/*"],"Condition":{condition}}}"#
    ))
}
#[track_caller]
fn holds(condition: &str, pairs: &[(&str, &str)], expected: bool) {
    let verdict = asks(&on_condition(condition), None, actions::GET_OBJECT, "bkt/k", pairs);
    assert_eq!(verdict == Verdict::Allowed, expected, "{condition} {pairs:?}");
}
#[track_caller]
fn refuses(text: &str, part: &str) {
    let error = Policy::parse(text, "bkt").expect_err(text).to_string();
    assert!(error.contains(part), "{error:?} does not tell of {part:?}");
}
fn statement(inner: &str) -> String {
    format!(r#"{{"Statement":[{{{inner}}}]}}"#)
}

#[test]
fn principals_actions_and_resources_must_all_fit() {
    let read = policy(&format!(
        r#"{{"Effect":"Allow","Principal":{{"AWS":"arn:aws:iam:::user/{KEY}"}},"Action":["s3:getobject","s3:List*"],
            "Resource":["arn:aws:s3:::bkt/public/*","arn:aws:s3:::bkt"]}}"#
    ));
    assert_eq!(asks(&read, Some(KEY), actions::GET_OBJECT, "bkt/public/a/b", &[]), Verdict::Allowed);
    assert_eq!(asks(&read, Some(OTHER), actions::GET_OBJECT, "bkt/public/a", &[]), Verdict::Silent);
    assert_eq!(asks(&read, None, actions::GET_OBJECT, "bkt/public/a", &[]), Verdict::Silent);
    assert_eq!(asks(&read, Some(KEY), actions::GET_OBJECT, "bkt/private/a", &[]), Verdict::Silent);
    assert_eq!(asks(&read, Some(KEY), actions::PUT_OBJECT, "bkt/public/a", &[]), Verdict::Silent);
    assert_eq!(asks(&read, Some(KEY), actions::LIST_BUCKET, "bkt", &[]), Verdict::Allowed);
    assert_eq!(read.key_ids().into_iter().collect::<Vec<_>>(), [KEY]);
}

#[test]
fn inverse_elements_speak_of_all_others() {
    let deny = policy(&format!(
        r#"{{"Effect":"Deny","NotPrincipal":{{"CanonicalUser":"{KEY}"}},"NotAction":"s3:GetObject","NotResource":"arn:aws:s3:::bkt/open/*"}}"#
    ));
    assert_eq!(asks(&deny, Some(OTHER), actions::PUT_OBJECT, "bkt/k", &[]), Verdict::Denied);
    assert_eq!(asks(&deny, None, actions::PUT_OBJECT, "bkt/k", &[]), Verdict::Denied);
    assert_eq!(asks(&deny, Some(KEY), actions::PUT_OBJECT, "bkt/k", &[]), Verdict::Silent);
    assert_eq!(asks(&deny, Some(OTHER), actions::GET_OBJECT, "bkt/k", &[]), Verdict::Silent);
    assert_eq!(asks(&deny, Some(OTHER), actions::PUT_OBJECT, "bkt/open/k", &[]), Verdict::Silent);
}

#[test]
fn a_variable_without_value_grants_nothing_and_denies_all() {
    let own = policy(r#"{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":"arn:aws:s3:::bkt/${aws:username}/*"}"#);
    assert_eq!(asks(&own, Some(KEY), actions::GET_OBJECT, "bkt/me/a", &[("aws:username", "me")]), Verdict::Allowed);
    assert_eq!(asks(&own, Some(KEY), actions::GET_OBJECT, "bkt/you/a", &[("aws:username", "me")]), Verdict::Silent);
    assert_eq!(asks(&own, None, actions::GET_OBJECT, "bkt/me/a", &[]), Verdict::Silent);
    let effect = |effect: &str| {
        policy(&format!(r#"{{"Effect":"{effect}","Principal":"*","Action":"s3:*","NotResource":"arn:aws:s3:::bkt/${{aws:username}}/*"}}"#))
    };
    assert_eq!(asks(&effect("Allow"), None, actions::GET_OBJECT, "bkt/a", &[]), Verdict::Silent);
    assert_eq!(asks(&effect("Deny"), None, actions::GET_OBJECT, "bkt/a", &[]), Verdict::Denied);
    let old = Policy::parse(
        r#"{"Version":"2008-10-17","Statement":{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":"arn:aws:s3:::bkt/${aws:username}"}}"#,
        "bkt",
    );
    let verdict = asks(&old.unwrap(), None, actions::GET_OBJECT, "bkt/${aws:username}", &[("aws:username", "me")]);
    assert_eq!(verdict, Verdict::Allowed, "the older version has no variables");
}

#[test]
fn conditions_compare_as_their_operators_say() {
    holds(r#"{"StringEquals":{"s3:x-amz-acl":["a","b"]}}"#, &[("s3:x-amz-acl", "b")], true);
    holds(r#"{"StringEquals":{"s3:x-amz-acl":"a"}}"#, &[("s3:x-amz-acl", "A")], false);
    holds(r#"{"StringEqualsIgnoreCase":{"S3:X-Amz-Acl":"a"}}"#, &[("s3:x-amz-acl", "A")], true);
    holds(r#"{"StringEquals":{"s3:x-amz-acl":"a*"}}"#, &[("s3:x-amz-acl", "ab")], false);
    holds(r#"{"StringLike":{"aws:Referer":"http://*.example.org/*"}}"#, &[("aws:referer", "http://a.example.org/x")], true);
    holds(r#"{"StringNotLike":{"aws:Referer":"http://x/*"}}"#, &[], true);
    holds(r#"{"StringNotEquals":{"s3:x-amz-acl":["a","b"]}}"#, &[("s3:x-amz-acl", "b")], false);
    holds(r#"{"StringEquals":{"s3:x-amz-acl":"a"}}"#, &[], false);
    holds(r#"{"StringNotEquals":{"s3:x-amz-acl":"a"}}"#, &[], true);
    holds(r#"{"StringEqualsIfExists":{"s3:x-amz-acl":"a"}}"#, &[], true);
    holds(r#"{"StringEqualsIfExists":{"s3:x-amz-acl":"a"}}"#, &[("s3:x-amz-acl", "b")], false);
    holds(r#"{"NumericLessThanEquals":{"s3:signatureAge":10}}"#, &[("s3:signatureage", "10")], true);
    holds(r#"{"NumericGreaterThan":{"s3:signatureAge":"10"}}"#, &[("s3:signatureage", "9.5")], false);
    holds(r#"{"NumericNotEquals":{"s3:signatureAge":10}}"#, &[("s3:signatureage", "11")], true);
    holds(r#"{"NumericLessThan":{"s3:signatureAge":10}}"#, &[("s3:signatureage", "x")], false);
    holds(r#"{"DateLessThan":{"aws:CurrentTime":"2026-01-02T00:00:00Z"}}"#, &[("aws:currenttime", "2026-01-01T23:59:59Z")], true);
    holds(r#"{"DateGreaterThan":{"aws:CurrentTime":"2026-01-02"}}"#, &[("aws:currenttime", "2026-01-01T23:59:59Z")], false);
    holds(r#"{"DateGreaterThanEquals":{"aws:EpochTime":"1000"}}"#, &[("aws:epochtime", "1000")], true);
    holds(r#"{"Bool":{"aws:SecureTransport":"true"}}"#, &[("aws:securetransport", "true")], true);
    holds(r#"{"Bool":{"aws:SecureTransport":false}}"#, &[("aws:securetransport", "true")], false);
    holds(r#"{"IpAddress":{"aws:SourceIp":["10.0.0.0/8","::1"]}}"#, &[("aws:sourceip", "10.2.3.4")], true);
    holds(r#"{"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}}"#, &[("aws:sourceip", "::ffff:10.2.3.4")], true);
    holds(r#"{"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}}"#, &[("aws:sourceip", "11.2.3.4")], false);
    holds(r#"{"IpAddress":{"aws:SourceIp":"0.0.0.0/0"}}"#, &[("aws:sourceip", "11.2.3.4")], true);
    holds(r#"{"NotIpAddress":{"aws:SourceIp":"2001:db8::/32"}}"#, &[("aws:sourceip", "2001:db8:1::1")], false);
    holds(r#"{"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::*:user/GK*"}}"#, &[("aws:principalarn", "arn:aws:iam:::user/GK1")], true);
    holds(r#"{"ArnLike":{"aws:PrincipalArn":"arn:*:GK1"}}"#, &[("aws:principalarn", "arn:aws:iam:::GK1")], false);
    holds(r#"{"Null":{"s3:VersionId":"true"}}"#, &[], true);
    holds(r#"{"Null":{"s3:VersionId":false}}"#, &[], false);
    holds(r#"{"StringEquals":{"s3:ExistingObjectTag/Kind":"a"}}"#, &[("s3:ExistingObjectTag/Kind", "a")], true);
    holds(r#"{"StringEquals":{"s3:ExistingObjectTag/Kind":"a"}}"#, &[("s3:ExistingObjectTag/kind", "a")], false);
    let tags = [("s3:RequestObjectTagKeys", "a"), ("s3:RequestObjectTagKeys", "b")];
    holds(r#"{"ForAllValues:StringEquals":{"s3:RequestObjectTagKeys":["a","b","c"]}}"#, &tags, true);
    holds(r#"{"ForAllValues:StringEquals":{"s3:RequestObjectTagKeys":"a"}}"#, &tags, false);
    holds(r#"{"ForAllValues:StringEquals":{"s3:RequestObjectTagKeys":"a"}}"#, &[], true);
    holds(r#"{"ForAnyValue:StringEquals":{"s3:RequestObjectTagKeys":"a"}}"#, &tags, true);
    holds(r#"{"ForAnyValue:StringEquals":{"s3:RequestObjectTagKeys":"a"}}"#, &[], false);
    holds(
        r#"{"StringEquals":{"s3:x-amz-acl":"a"},"Bool":{"aws:SecureTransport":"true"}}"#,
        &[("s3:x-amz-acl", "a"), ("aws:securetransport", "false")],
        false,
    );
}

#[test]
fn a_document_is_refused_as_a_whole() {
    let good = r#""Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::bkt/*""#;
    assert!(Policy::parse(&statement(good), "bkt").is_ok());
    refuses("", "first byte");
    refuses("[]", "first byte");
    refuses("{", "valid JSON");
    refuses(r#"{"Statement":[]}"#, "Statement");
    refuses(r#"{"Version":"2012-10-17"}"#, "Statement");
    refuses(r#"{"Version":"2020-01-01","Statement":[]}"#, "version");
    refuses(r#"{"Statement":[],"Statement":[]}"#, "Duplicate");
    refuses(r#"{"Nonsense":1,"Statement":[]}"#, "Unknown field Nonsense");
    refuses(&statement(&format!(r#"{good},"Extra":1"#)), "Unknown field Extra");
    let with = |from: &str, to: &str| statement(&good.replace(from, to));
    refuses(&with(r#""Effect":"Allow","#, ""), "Missing required field Effect");
    refuses(&with(r#""Principal":"*","#, ""), "Missing required field Principal");
    refuses(&with(r#""Action":"s3:GetObject","#, ""), "Missing required field Action");
    refuses(&with(r#","Resource":"arn:aws:s3:::bkt/*""#, ""), "Missing required field Resource");
    refuses(&with("Allow", "Perhaps"), "Invalid effect");
    refuses(&with(r#""Principal""#, r#""NotPrincipal""#), "NotPrincipal");
    refuses(&with(r#""Principal":"*""#, r#""Principal":"*","NotPrincipal":"*""#), "one statement");
    refuses(&with(r#""Principal":"*""#, r#""Principal":"GK""#), "Invalid principal");
    refuses(&with(r#""Principal":"*""#, r#""Principal":{"AWS":"123"}"#), "Invalid principal");
    refuses(&with(r#""Principal":"*""#, r#""Principal":{"Service":"x.amazonaws.com"}"#), "Invalid principal");
    refuses(&with(r#""Principal":"*""#, r#""Principal":{"AWS":[]}"#), "Invalid principal");
    refuses(&with("s3:GetObject", "s3:GetNothing"), "invalid action");
    refuses(&with("s3:GetObject", "ec2:Run*"), "invalid action");
    refuses(&with("s3:GetObject", "s3:ListBucket"), "does not apply");
    refuses(&with("bkt/*", "bkt"), "does not apply");
    refuses(&with("bkt/*", "other/*"), "invalid resource");
    refuses(&with("arn:aws:s3:::bkt/*", "bkt/*"), "invalid resource");
    let with_condition = |condition: &str| statement(&format!(r#"{good},"Condition":{condition}"#));
    refuses(&with_condition(r#"{"StringMatches":{"aws:Referer":"x"}}"#), "Invalid Condition type");
    refuses(&with_condition(r#"{"NullIfExists":{"aws:Referer":"true"}}"#), "Invalid Condition type");
    refuses(&with_condition(r#"{"StringEquals":{"aws:Weather":"x"}}"#), "invalid condition key");
    refuses(&with_condition(r#"{"StringEquals":{"s3:ExistingObjectTag/":"x"}}"#), "invalid condition key");
    refuses(&with_condition(r#"{"StringEquals":{"aws:Referer":[]}}"#), "no value");
    refuses(&with_condition(r#"{"IpAddress":{"aws:SourceIp":"10.0.0.0/33"}}"#), "Invalid value");
    refuses(&with_condition(r#"{"Bool":{"aws:SecureTransport":"perhaps"}}"#), "Invalid value");
    refuses(&with_condition(r#"{"DateEquals":{"aws:CurrentTime":"tomorrow"}}"#), "Invalid value");
    refuses(&with_condition(r#"{"StringEquals":{"s3:prefix":"x"}}"#), "do not apply");
    refuses(&with_condition(r#"[]"#), "Condition");
    refuses(&format!("{}{}", statement(good), " ".repeat(20 << 10)), "maximum allowed size");
    assert!(Policy::parse(&statement(&good.replace("bkt/*", "*")), "bkt").is_ok());
}

#[test]
fn public_is_what_everyone_may_do() {
    let check = |condition: &str, expected: bool| assert_eq!(on_condition(condition).is_public(), expected, "{condition}");
    check("{}", true);
    check(r#"{"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}}"#, false);
    check(r#"{"IpAddress":{"aws:SourceIp":["10.0.0.0/8","0.0.0.0/1"]}}"#, true);
    check(r#"{"IpAddressIfExists":{"aws:SourceIp":"10.0.0.0/8"}}"#, true);
    check(r#"{"NotIpAddress":{"aws:SourceIp":"10.0.0.0/8"}}"#, true);
    check(r#"{"StringEquals":{"aws:Referer":"x"}}"#, true);
    check(r#"{"StringEquals":{"aws:SourceVpc":"vpc-1"}}"#, false);
    check(r#"{"StringLike":{"aws:SourceVpc":"vpc-*"}}"#, true);
    check(r#"{"StringEquals":{"aws:userid":"GK1"}}"#, false);
    let named = policy(&format!(
        r#"{{"Effect":"Allow","Principal":{{"AWS":"{KEY}"}},"Action":"s3:*","Resource":"arn:aws:s3:::bkt/*"}},
           {{"Effect":"Deny","Principal":"*","Action":"s3:*","Resource":"arn:aws:s3:::bkt/*"}}"#
    ));
    assert!(!named.is_public());
}

/// Statements that may fit the request below or not, each in its own way.
fn any_statement() -> impl Strategy<Value = String> {
    let principal = prop::sample::select(vec![
        r#""Principal":"*""#.to_owned(),
        format!(r#""Principal":{{"AWS":"{KEY}"}}"#),
        format!(r#""Principal":{{"AWS":"{OTHER}"}}"#),
    ]);
    let action = prop::sample::select(vec![
        r#""Action":"s3:*""#,
        r#""Action":"s3:GetObject""#,
        r#""Action":"s3:PutObject""#,
        r#""NotAction":"s3:PutObject""#,
    ]);
    let resource = prop::sample::select(vec![
        r#""Resource":"arn:aws:s3:::bkt/*""#,
        r#""Resource":"arn:aws:s3:::bkt/a*""#,
        r#""NotResource":"arn:aws:s3:::bkt/a*""#,
    ]);
    let condition = prop::sample::select(vec![
        "",
        r#","Condition":{"Bool":{"aws:SecureTransport":"true"}}"#,
        r#","Condition":{"StringNotEquals":{"aws:Referer":"x"}}"#,
    ]);
    let effect = prop::sample::select(vec!["Allow", "Deny"]);
    (effect, principal, action, resource, condition).prop_map(|(effect, principal, action, resource, condition)| {
        format!(r#"{{"Effect":"{effect}",{principal},{action},{resource}{condition}}}"#)
    })
}

fn any_request() -> impl Strategy<Value = (Option<&'static str>, actions::Action, &'static str, Vec<(&'static str, &'static str)>)> {
    (
        prop::sample::select(vec![None, Some(KEY), Some(OTHER)]),
        prop::sample::select(vec![actions::GET_OBJECT, actions::PUT_OBJECT]),
        prop::sample::select(vec!["bkt/a1", "bkt/b1"]),
        prop::sample::select(vec![vec![], vec![("aws:securetransport", "true")], vec![("aws:referer", "x")]]),
    )
}

proptest! {
    #[test]
    fn an_explicit_deny_always_wins(statements in prop::collection::vec(any_statement(), 0..6), at: prop::sample::Index, request in any_request()) {
        let (key, action, resource, pairs) = request;
        let deny = r#"{"Effect":"Deny","Principal":"*","Action":"*","Resource":"*"}"#.to_owned();
        let mut with_deny = statements;
        with_deny.insert(at.index(with_deny.len() + 1), deny);
        prop_assert_eq!(asks(&policy(&with_deny.join(",")), key, action, resource, &pairs), Verdict::Denied);
    }

    #[test]
    fn evaluation_does_not_depend_on_the_order_of_statements(
        (statements, shuffled) in prop::collection::vec(any_statement(), 1..6).prop_flat_map(|list| (Just(list.clone()), Just(list).prop_shuffle())),
        request in any_request(),
    ) {
        let (key, action, resource, pairs) = request;
        let verdict = |list: &[String]| asks(&policy(&list.join(",")), key, action, resource, &pairs);
        prop_assert_eq!(verdict(&statements), verdict(&shuffled));
    }

    #[test]
    fn a_policy_says_what_its_statements_say_one_by_one(statements in prop::collection::vec(any_statement(), 1..6), request in any_request()) {
        let (key, action, resource, pairs) = request;
        let single: Vec<Verdict> = statements.iter().map(|one| asks(&policy(one), key, action, resource, &pairs)).collect();
        let expected = match () {
            () if single.contains(&Verdict::Denied) => Verdict::Denied,
            () if single.contains(&Verdict::Allowed) => Verdict::Allowed,
            () => Verdict::Silent,
        };
        prop_assert_eq!(asks(&policy(&statements.join(",")), key, action, resource, &pairs), expected);
    }

    #[test]
    fn reading_never_panics(text in "[{}\\[\\]\":, a-zA-Z0-9:*/$.]{0,200}") {
        let _ = Policy::parse(&text, "bkt");
        let _ = Policy::parse(&format!("{{{text}"), "bkt");
    }
}
