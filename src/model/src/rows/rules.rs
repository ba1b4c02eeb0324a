//! Rules that a bucket's owner sets for browsers: who may read answers from another site (CORS), and where a website leads its visitors.
//!
//! Stored as part of a bucket's row. Matching is here too, so that every interface reads a rule alike. Pure.

use serde::{Deserialize, Serialize};

/// A CORS rule. Patterns may hold one `*`, which stands for any text.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CorsRule {
    /// The owner's name for it.
    #[serde(default)]
    pub id: Option<String>,
    /// Patterns of origins, compared case-sensitively.
    pub allowed_origins: Vec<String>,
    /// Methods, in capitals.
    pub allowed_methods: Vec<String>,
    /// Patterns of request headers, compared whatever their case.
    #[serde(default)]
    pub allowed_headers: Vec<String>,
    /// Answer headers that scripts may read.
    #[serde(default)]
    pub expose_headers: Vec<String>,
    /// Seconds that a browser may remember a preflight.
    #[serde(default)]
    pub max_age_s: Option<u32>,
}

impl CorsRule {
    /// Whether this rule speaks of a request from `origin` with `method`, for all of the `headers` that a preflight names.
    pub fn matches(&self, origin: &str, method: &str, headers: &[&str]) -> bool {
        let allows_header = |name: &str| {
            let name = name.to_ascii_lowercase();
            self.allowed_headers.iter().any(|pattern| fits(&pattern.to_ascii_lowercase(), &name))
        };
        self.allowed_origins.iter().any(|pattern| fits(pattern, origin))
            && self.allowed_methods.iter().any(|allowed| allowed == method || allowed == "*")
            && headers.iter().all(|name| allows_header(name))
    }
    /// Whether the rule is for everyone.
    pub fn is_for_any_origin(&self) -> bool {
        self.allowed_origins.iter().any(|origin| origin == "*")
    }
}

/// Whether a text fits a pattern with at most one `*`; two never fit.
fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((_, end)) if end.contains('*') => false,
        Some((start, end)) => start.len() + end.len() <= text.len() && text.starts_with(start) && text.ends_with(end),
    }
}

/// A rule that leads visitors of a website elsewhere, or serves something else.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RoutingRule {
    /// Only paths that start so, without the leading slash.
    #[serde(default)]
    pub key_prefix: Option<String>,
    /// Only when the object is missing.
    #[serde(default)]
    pub only_missing: bool,
    /// Where to.
    pub redirect: Redirect,
}

/// Where a routing rule leads.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Redirect {
    /// `http` or `https`; only with a host.
    #[serde(default)]
    pub protocol: Option<String>,
    /// Another host.
    #[serde(default)]
    pub host: Option<String>,
    /// What stands in place of the path.
    #[serde(default)]
    pub replacement: Replacement,
    /// 301, 302, 303, 307 or 308; or 200 or 404, which serve the target in place of the object.
    pub status: u16,
}

impl Default for Redirect {
    fn default() -> Redirect {
        Redirect { protocol: None, host: None, replacement: Replacement::Root, status: REDIRECT_STATUS_DEFAULT }
    }
}

/// The status of a redirect that names none.
pub const REDIRECT_STATUS_DEFAULT: u16 = 302;

/// The same in a document of the S3 interface. Source: AWS S3 API, Redirect.
pub const REDIRECT_STATUS_S3: u16 = 301;

/// What a routing rule puts in place of the path.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Replacement {
    /// The site's root.
    #[default]
    Root,
    /// The rest of the path after the rule's prefix, behind this.
    Prefix(String),
    /// This key.
    Key(String),
}

/// Why rules can't be set: a sentence for whoever set them.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct RuleError(pub String);

fn refuse(message: impl Into<String>) -> Result<(), RuleError> {
    Err(RuleError(message.into()))
}

/// CORS rules of a bucket.
pub const CORS_RULES_MAX: usize = 100;
/// Routing rules of a bucket.
pub const ROUTING_RULES_MAX: usize = 1000;
const CORS_METHODS: [&str; 5] = ["GET", "PUT", "POST", "DELETE", "HEAD"];
const REDIRECT_STATUSES: [u16; 7] = [301, 302, 303, 307, 308, 200, 404];
/// Characters of a rule's id.
const RULE_ID_MAX_CHARS: usize = 255;

/// Checks CORS rules before they are stored.
pub fn check_cors(rules: &[CorsRule]) -> Result<(), RuleError> {
    if CORS_RULES_MAX < rules.len() {
        return refuse(format!("The number of CORS rules should not exceed allowed limit of {CORS_RULES_MAX} rules."));
    }
    rules.iter().try_for_each(check_cors_rule)
}

fn check_cors_rule(rule: &CorsRule) -> Result<(), RuleError> {
    if rule.allowed_origins.is_empty() || rule.allowed_methods.is_empty() {
        return refuse("A CORS rule needs at least one AllowedOrigin and one AllowedMethod.");
    }
    if rule.id.as_ref().is_some_and(|id| RULE_ID_MAX_CHARS < id.chars().count()) {
        return refuse(format!("The ID of a CORS rule has at most {RULE_ID_MAX_CHARS} characters."));
    }
    if let Some(method) = rule.allowed_methods.iter().find(|method| !CORS_METHODS.contains(&method.as_str())) {
        return refuse(format!("Found unsupported HTTP method in CORS config. Unsupported method is {method}"));
    }
    for (what, patterns) in [("AllowedOrigin", &rule.allowed_origins), ("AllowedHeader", &rule.allowed_headers)] {
        if let Some(pattern) = patterns.iter().find(|pattern| 1 < pattern.matches('*').count()) {
            return refuse(format!("{what} \"{pattern}\" can not have more than one wildcard."));
        }
    }
    let mut all = [&rule.allowed_origins, &rule.allowed_headers, &rule.expose_headers].into_iter().flatten();
    match all.find(|text| text.is_empty() || text.chars().any(char::is_control)) {
        Some(text) => refuse(format!("The value {text:?} of a CORS rule can't stand in a header.")),
        None => Ok(()),
    }
}

/// Checks routing rules before they are stored.
pub fn check_routing(rules: &[RoutingRule]) -> Result<(), RuleError> {
    if ROUTING_RULES_MAX < rules.len() {
        return refuse(format!("A website has at most {ROUTING_RULES_MAX} routing rules."));
    }
    rules.iter().try_for_each(|rule| check_redirect(&rule.redirect))
}

fn check_redirect(redirect: &Redirect) -> Result<(), RuleError> {
    let Redirect { protocol, host, replacement: _, status } = redirect;
    if !REDIRECT_STATUSES.contains(status) {
        return refuse(format!("HttpRedirectCode {status} is not one of 301, 302, 303, 307, 308, 200 and 404."));
    }
    if protocol.is_some() && host.is_none() {
        return refuse("Protocol needs a HostName.");
    }
    if protocol.as_deref().is_some_and(|protocol| !["http", "https"].contains(&protocol)) {
        return refuse("Protocol must be http or https.");
    }
    if host.is_some() && [200, 404].contains(status) {
        return refuse(format!("HttpRedirectCode {status} serves an object of this bucket, so it takes no HostName."));
    }
    Ok(())
}

/// Checks the name of an index document before it is stored.
pub fn check_index_document(name: &str) -> Result<(), RuleError> {
    if name.is_empty() || name.contains('/') {
        return refuse("The IndexDocument Suffix is not well formed: it must not be empty or contain a slash.");
    }
    Ok(())
}

/// Checks the key of an error document before it is stored.
pub fn check_error_document(key: &str) -> Result<(), RuleError> {
    if key.is_empty() { refuse("The ErrorDocument Key must not be empty.") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{CorsRule, Redirect, RoutingRule, check_cors, check_routing, fits};

    fn rule() -> CorsRule {
        CorsRule {
            allowed_origins: vec!["https://*.example.org".into()],
            allowed_methods: vec!["GET".into()],
            allowed_headers: vec!["X-Amz-*".into(), "range".into()],
            ..CorsRule::default()
        }
    }

    #[test]
    fn a_rule_matches_only_when_origin_method_and_all_headers_do() {
        let check = |origin, method, headers: &[&str], expected| {
            assert_eq!(rule().matches(origin, method, headers), expected, "{origin} {method} {headers:?}");
        };
        check("https://a.example.org", "GET", &[], true);
        check("https://a.example.org", "GET", &["x-amz-date", "Range"], true);
        check("https://a.example.org", "GET", &["x-amz-date", "x-other"], false);
        check("https://a.example.org", "PUT", &[], false);
        check("https://a.Example.org", "GET", &[], false);
        check("https://.example.or", "GET", &[], false);
    }

    #[test]
    fn rules_that_no_browser_could_obey_are_refused() {
        let check = |change: fn(&mut CorsRule), expected: bool| {
            let mut rule = rule();
            change(&mut rule);
            assert_eq!(check_cors(std::slice::from_ref(&rule)).is_ok(), expected, "{rule:?}");
        };
        check(|_| {}, true);
        check(|rule| rule.allowed_methods.push("PATCH".into()), false);
        check(|rule| rule.allowed_origins.push("*x*".into()), false);
        check(|rule| rule.allowed_headers.push("*x*".into()), false);
        check(|rule| rule.expose_headers.push("a\nb".into()), false);
        check(|rule| rule.allowed_origins.clear(), false);
        assert!(check_cors(&vec![rule(); 101]).is_err());
    }

    #[test]
    fn a_redirect_has_a_known_status_and_a_host_for_its_protocol() {
        let check = |redirect: Redirect, expected: bool| {
            let rule = RoutingRule { redirect, ..RoutingRule::default() };
            assert_eq!(check_routing(std::slice::from_ref(&rule)).is_ok(), expected, "{rule:?}");
        };
        let host = || Some("example.org".to_owned());
        check(Redirect::default(), true);
        check(Redirect { host: host(), protocol: Some("https".into()), ..Redirect::default() }, true);
        check(Redirect { protocol: Some("https".into()), ..Redirect::default() }, false);
        check(Redirect { host: host(), protocol: Some("ftp".into()), ..Redirect::default() }, false);
        check(Redirect { host: host(), status: 200, ..Redirect::default() }, false);
        check(Redirect { status: 418, ..Redirect::default() }, false);
    }

    proptest! {
        #[test]
        fn a_pattern_fits_itself_and_what_its_star_stands_for(start in "[a-z]{0,5}", end in "[a-z]{0,5}", middle in "\\PC{0,5}") {
            let pattern = format!("{start}*{end}");
            let text = format!("{start}{middle}{end}");
            prop_assert!(fits(&pattern, &text));
            let two_stars = format!("{pattern}*");
            prop_assert!(!fits(&two_stars, &text));
            if !middle.contains('*') {
                prop_assert!(fits(&text, &text));
            }
        }
    }
}
