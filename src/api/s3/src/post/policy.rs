//! The policy of a form: until when it holds, and what each field may say. Pure.
//!
//! Invariant: a field that no condition speaks of is refused, so a policy allows exactly what it says.
//!
//! Source: s3 reference §2.5; AWS S3 API, "POST policy".

use std::ops::RangeInclusive;

use base64::{Engine, engine::general_purpose::STANDARD};
use garage_api_common::{ErrorCode, S3Error, time::parse_iso8601};
use serde_json::Value;

use super::Fields;

/// Fields that no condition needs to speak of.
const FREE: [&str; 5] = ["x-amz-signature", "awsaccesskeyid", "signature", "file", "policy"];

/// A policy that was parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    expires_ms: u64,
    conditions: Vec<Condition>,
    sizes: RangeInclusive<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    /// The field's name in lower case.
    field: String,
    test: Test,
    /// As it stands in the policy, for errors.
    text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Equals(String),
    StartsWith(String),
}

impl Policy {
    /// Reads a policy from its base64 form. Errors: 400 `InvalidPolicyDocument`.
    pub fn parse(base64: &str) -> Result<Policy, S3Error> {
        // Browsers may break the lines of a field.
        let compact: String = base64.split_ascii_whitespace().collect();
        let json = STANDARD.decode(compact).map_err(|_| invalid("Invalid Policy: it is not base64."))?;
        let document: Value =
            serde_json::from_slice(&plain_json(&json)).map_err(|error| invalid("Invalid Policy: Invalid JSON.").caused_by(error))?;
        let expiration = document.get("expiration").ok_or_else(|| invalid("Invalid Policy: Policy missing expiration."))?;
        let expires_ms = expiration.as_str().and_then(parse_iso8601);
        let expires_ms = expires_ms.ok_or_else(|| invalid(format!("Invalid Policy: Invalid 'expiration' value: {expiration}")))?;
        let listed = document.get("conditions").ok_or_else(|| invalid("Invalid Policy: Policy missing conditions."))?;
        let listed = listed.as_array().ok_or_else(|| invalid("Invalid Policy: Invalid 'conditions' value: must be a List."))?;
        let mut policy = Policy { expires_ms, conditions: Vec::with_capacity(listed.len()), sizes: 0..=u64::MAX };
        listed.iter().try_for_each(|condition| policy.add(condition))?;
        Ok(policy)
    }

    fn add(&mut self, condition: &Value) -> Result<(), S3Error> {
        match condition {
            Value::Object(pairs) => {
                let mut pairs = pairs.iter();
                let (Some((name, value)), None) = (pairs.next(), pairs.next()) else {
                    return Err(invalid(
                        "Invalid Policy: Invalid Simple-Condition: Simple-Conditions must have exactly one property specified.",
                    ));
                };
                let value = string(value, "Invalid Simple-Condition: value must be a string.")?;
                let text = format!("[\"eq\", \"${name}\", {}]", Value::from(value));
                self.conditions.push(Condition { field: name.to_ascii_lowercase(), test: Test::Equals(value.to_owned()), text });
                Ok(())
            }
            Value::Array(parts) => self.add_list(parts, condition),
            _ => Err(invalid("Invalid Policy: Invalid JSON: conditions must be objects or lists.")),
        }
    }

    fn add_list(&mut self, parts: &[Value], condition: &Value) -> Result<(), S3Error> {
        let [operator, first, second] = parts else {
            return Err(invalid("Invalid Policy: Invalid Condition: wrong number of arguments."));
        };
        let operator = string(operator, "Invalid Condition: the operator must be a string.")?;
        if operator.eq_ignore_ascii_case("content-length-range") {
            let (min, max) = (size(first)?, size(second)?);
            // Of several ranges all must hold.
            self.sizes = min.max(*self.sizes.start())..=max.min(*self.sizes.end());
            return Ok(());
        }
        let value = string(second, "Invalid Condition: value must be a string.")?.to_owned();
        let test = match operator.to_ascii_lowercase().as_str() {
            "eq" => Test::Equals(value),
            "starts-with" => Test::StartsWith(value),
            _ => return Err(invalid(format!("Invalid Policy: Invalid Condition: unknown operation '{operator}'."))),
        };
        let name = string(first, "Invalid Condition: field must be a string.")?;
        let field = name
            .strip_prefix('\\')
            .unwrap_or(name)
            .strip_prefix('$')
            .ok_or_else(|| invalid("Invalid Policy: Invalid Condition: the field must start with '$'."))?;
        self.conditions.push(Condition { field: field.to_ascii_lowercase(), test, text: condition.to_string() });
        Ok(())
    }

    /// Holds a form against the policy. Errors: 403 `AccessDenied`, with what is wrong.
    pub fn check(&self, bucket: &str, fields: &Fields, now_ms: u64) -> Result<(), S3Error> {
        if self.expires_ms < now_ms {
            return Err(refused("Policy expired."));
        }
        let value_of = |field: &str| if field == "bucket" { Some(bucket) } else { fields.get(field) };
        if let Some(failed) = self.conditions.iter().find(|condition| !condition.holds(value_of(&condition.field))) {
            return Err(refused(&format!("Policy Condition failed: {}", failed.text)));
        }
        let is_covered = |name: &str| {
            FREE.contains(&name) || name.starts_with("x-ignore-") || self.conditions.iter().any(|condition| condition.field == name)
        };
        match fields.iter().map(|(name, _)| name).chain(["bucket"]).find(|name| !is_covered(name)) {
            Some(extra) => Err(refused(&format!("Extra input fields: {extra}"))),
            None => Ok(()),
        }
    }

    /// Bytes that the file may have; empty when no size is allowed.
    pub fn sizes(&self) -> RangeInclusive<u64> {
        self.sizes.clone()
    }
}

impl Condition {
    fn holds(&self, value: Option<&str>) -> bool {
        match (&self.test, value) {
            (Test::Equals(expected), Some(value)) => value == expected,
            // Several types may be named at once; each must be allowed.
            (Test::StartsWith(prefix), Some(value)) if self.field == "content-type" => {
                value.split(',').all(|member| member.trim().starts_with(prefix.as_str()))
            }
            (Test::StartsWith(prefix), Some(value)) => value.starts_with(prefix.as_str()),
            (_, None) => false,
        }
    }
}

/// Policies may escape what JSON does not: `\$` is a dollar sign, `\v` a vertical tab. Source: AWS S3 API, "POST policy", character escaping.
fn plain_json(json: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(json.len());
    let mut rest = json;
    while let Some((first, after)) = rest.split_first() {
        match (first, after.first()) {
            (b'\\', Some(b'$')) => plain.push(b'$'),
            (b'\\', Some(b'v')) => plain.extend_from_slice(b"\\u000b"),
            (b'\\', Some(escaped)) => plain.extend_from_slice(&[b'\\', *escaped]),
            _ => {
                plain.push(*first);
                rest = after;
                continue;
            }
        }
        rest = &after[1..];
    }
    plain
}

fn string<'a>(value: &'a Value, otherwise: &str) -> Result<&'a str, S3Error> {
    value.as_str().ok_or_else(|| invalid(format!("Invalid Policy: {otherwise}")))
}

/// A number of bytes, which may stand in quotes.
fn size(value: &Value) -> Result<u64, S3Error> {
    let number = value.as_u64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
    number.ok_or_else(|| invalid("Invalid Policy: Invalid content-length-range: the bounds must be numbers of bytes."))
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> S3Error {
    S3Error::new(ErrorCode::InvalidPolicyDocument, message)
}
fn refused(why: &str) -> S3Error {
    S3Error::new(ErrorCode::AccessDenied, format!("Invalid according to Policy: {why}"))
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use garage_api_common::ErrorCode;
    use proptest::prelude::*;

    use super::{Fields, Policy};

    // 2026-01-01T00:00:00Z
    const NOW_MS: u64 = 1_767_225_600_000;

    fn parse(json: &str) -> Result<Policy, ErrorCode> {
        Policy::parse(&STANDARD.encode(json)).map_err(|error| error.code)
    }
    fn with(conditions: &str) -> String {
        format!("{{\"expiration\":\"2026-01-01T00:00:01.000Z\",\"conditions\":[{{\"bucket\":\"b\"}},{conditions}]}}")
    }
    /// What is wrong with a form under a policy; empty: nothing.
    fn check(conditions: &str, form: &[(&str, &str)]) -> String {
        let fields = form.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let fields = Fields::new(fields, Some("f.txt")).unwrap();
        match parse(&with(conditions)).unwrap().check("b", &fields, NOW_MS) {
            Ok(()) => String::new(),
            Err(error) => error.message.strip_prefix("Invalid according to Policy: ").unwrap().to_owned(),
        }
    }

    #[test]
    fn conditions_of_every_kind() {
        assert_eq!(check(r#"{"key":"k"}"#, &[("key", "k")]), "");
        assert_eq!(check(r#"{"key":"k"}"#, &[("key", "K")]), r#"Policy Condition failed: ["eq", "$key", "k"]"#);
        assert_eq!(check(r#"["eq","$Key","k"]"#, &[("KEY", "k")]), "");
        assert_eq!(check(r#"["starts-with","$key","up/"]"#, &[("key", "up/${filename}")]), "");
        assert_eq!(check(r#"["eq","$key","up/f.txt"]"#, &[("key", "up/${filename}")]), "");
        assert!(check(r#"["starts-with","$key","up/"]"#, &[("key", "down/a")]).starts_with("Policy Condition failed: [\"starts-with\""));
        assert_eq!(check(r#"["starts-with","$key",""]"#, &[("key", "anything")]), "");
        assert!(check(r#"["starts-with","$key",""],["starts-with","$content-type",""]"#, &[("key", "k")]).contains("$content-type"));
        let image = r#"{"key":"k"},["starts-with","$Content-Type","image/"]"#;
        assert_eq!(check(image, &[("key", "k"), ("Content-Type", "image/png,image/jpeg, image/gif")]), "");
        assert!(check(image, &[("key", "k"), ("Content-Type", "image/png,text/html")]).contains("image/"));
    }

    #[test]
    fn dollar_signs_may_be_escaped() {
        assert_eq!(check(r#"["starts-with","$key","\$up/"]"#, &[("key", "$up/k")]), "");
        assert_eq!(check(r#"["eq","\$key","k\v\\"]"#, &[("key", "k\u{b}\\")]), "");
        assert_eq!(check(r#"["starts-with","\\$key","\\$up"]"#, &[("key", "\\$up/k")]), "");
    }

    #[test]
    fn fields_that_the_policy_does_not_speak_of_are_refused() {
        assert_eq!(check(r#"{"key":"k"}"#, &[("key", "k"), ("acl", "private")]), "Extra input fields: acl");
        assert_eq!(check(r#"{"key":"k"}"#, &[("key", "k"), ("submit", "Go")]), "Extra input fields: submit");
        assert_eq!(check(r#"{"key":"k"}"#, &[("key", "k"), ("x-ignore-me", "1"), ("x-amz-signature", "s"), ("policy", "p")]), "");
        let open = parse(r#"{"expiration":"2030-01-01T00:00:00Z","conditions":[]}"#).unwrap();
        let error = open.check("b", &Fields::default(), NOW_MS).unwrap_err();
        assert_eq!(error.message, "Invalid according to Policy: Extra input fields: bucket");
    }

    #[test]
    fn a_policy_holds_for_its_bucket_until_it_expires() {
        let policy = parse(&with(r#"["starts-with","$key",""]"#)).unwrap();
        let fields = Fields::new(vec![("key".into(), "k".into())], None).unwrap();
        let code = |bucket, now_ms| policy.check(bucket, &fields, now_ms).map_err(|error| error.code);
        assert_eq!(code("b", NOW_MS), Ok(()));
        assert_eq!(code("other", NOW_MS), Err(ErrorCode::AccessDenied));
        assert_eq!(code("b", NOW_MS + 1001), Err(ErrorCode::AccessDenied));
    }

    #[test]
    fn sizes_come_as_numbers_or_text_and_all_must_hold() {
        let sizes = |conditions: &str| parse(&with(conditions)).unwrap().sizes();
        assert_eq!(sizes(r#"{"key":"k"}"#), 0..=u64::MAX);
        assert_eq!(sizes(r#"["content-length-range",1,10]"#), 1..=10);
        assert_eq!(sizes(r#"["content-length-range","1","10"],["content-length-range",5,20]"#), 5..=10);
    }

    #[test]
    fn documents_that_are_no_policy_are_refused() {
        for json in [
            "",
            "[]",
            "{}",
            r#"{"expiration":"2030-01-01T00:00:00Z"}"#,
            r#"{"conditions":[]}"#,
            r#"{"expiration":"tomorrow","conditions":[]}"#,
            r#"{"expiration":5,"conditions":[]}"#,
            r#"{"expiration":"2030-01-01T00:00:00Z","conditions":{}}"#,
            &with("5"),
            &with("{}"),
            &with(r#"{"a":"b","c":"d"}"#),
            &with(r#"{"a":1}"#),
            &with(r#"["eq","$key"]"#),
            &with(r#"["eq","key","k"]"#),
            &with(r#"["like","$key","k"]"#),
            &with(r#"["content-length-range",-1,5]"#),
            &with(r#"["content-length-range",1,"x"]"#),
            &"[".repeat(10_000),
        ] {
            assert_eq!(parse(json), Err(ErrorCode::InvalidPolicyDocument), "{json}");
        }
        assert!(Policy::parse("%%%").is_err());
    }

    proptest! {
        #[test]
        fn parsing_never_panics(json in "[{}\\[\\]\":,a-z0-9$]{0,80}", base64 in "\\PC{0,40}") {
            let _ = (parse(&json), parse(&with(&json)), Policy::parse(&base64));
        }
    }
}
