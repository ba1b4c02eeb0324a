//! From a path and a site's settings to what is served: an object, and what to do when it is missing. Pure.
//!
//! Source: website reference §3, §4.

use garage_model::rows::{
    bucket::Website,
    rules::{Replacement, RoutingRule},
};
use http::StatusCode;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What stays as it is in the path of a directory's redirect.
const PATH_SET: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// What a request leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Plan {
    /// Elsewhere, at once.
    Redirect(Redirection),
    /// An object.
    Serve {
        /// Which.
        target: Target,
        /// What happens when there is no such object.
        if_missing: IfMissing,
    },
}

/// An object, and the status it is sent with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    pub key: String,
    pub status: StatusCode,
}

/// A redirect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Redirection {
    pub location: String,
    pub status: StatusCode,
}

/// What happens when there is no object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum IfMissing {
    /// 404.
    NotFound,
    /// A redirect if there is this other object, else 404.
    Directory {
        /// The index document of the directory of that name.
        index_key: String,
        /// To the directory.
        redirection: Redirection,
    },
    /// A redirect.
    Redirect(Redirection),
    /// Another object.
    Serve(Target),
}

/// A request's path, percent-decoded once, without its leading slash. `None`: it is not UTF-8.
pub(crate) fn decode_path(raw: &str) -> Option<String> {
    let path = raw.strip_prefix('/').unwrap_or(raw);
    percent_decode_str(path).decode_utf8().ok().map(|path| path.into_owned())
}

/// What `path` (decoded, without leading slash) leads to. The first rule whose prefix fits decides.
pub(crate) fn plan(path: &str, website: &Website) -> Plan {
    let rule = website.routing_rules.iter().find(|rule| rule.key_prefix.as_ref().is_none_or(|prefix| path.starts_with(prefix.as_str())));
    match rule {
        Some(rule) if rule.only_missing => {
            let if_missing = match outcome(rule, path, website) {
                Outcome::Redirect(redirection) => IfMissing::Redirect(redirection),
                Outcome::Serve { target, .. } => IfMissing::Serve(target),
            };
            Plan::Serve { target: Target { key: key_of(path, website), status: StatusCode::OK }, if_missing }
        }
        Some(rule) => match outcome(rule, path, website) {
            Outcome::Redirect(redirection) => Plan::Redirect(redirection),
            Outcome::Serve { target, path: rewritten } => {
                let may_be_directory = !path.ends_with('/') && target.status == StatusCode::OK;
                let if_missing = if may_be_directory { directory(&rewritten, website) } else { IfMissing::NotFound };
                Plan::Serve { target, if_missing }
            }
        },
        None => Plan::Serve { target: Target { key: key_of(path, website), status: StatusCode::OK }, if_missing: directory(path, website) },
    }
}

enum Outcome {
    Redirect(Redirection),
    /// The object of another path of this site.
    Serve {
        target: Target,
        path: String,
    },
}

fn outcome(rule: &RoutingRule, path: &str, website: &Website) -> Outcome {
    let replaced = replaced_path(rule, path);
    let status = StatusCode::from_u16(rule.redirect.status).unwrap_or(StatusCode::FOUND);
    if !status.is_redirection() {
        return Outcome::Serve { target: Target { key: key_of(&replaced, website), status }, path: replaced };
    }
    let origin = match (&rule.redirect.host, &rule.redirect.protocol) {
        (None, _) => String::new(),
        (Some(host), None) => format!("//{host}"),
        (Some(host), Some(protocol)) => format!("{protocol}://{host}"),
    };
    Outcome::Redirect(Redirection { location: format!("{origin}/{}", location_path(&replaced)), status })
}

/// A path behind the slash that begins it. Only what would mean something else is encoded, as clients know these URLs as they were
/// configured: characters that no header can carry, and a second slash at the start, after which browsers expect a host.
fn location_path(path: &str) -> String {
    let encoded = |c: char| match c {
        '/' => "%2F".to_owned(),
        '\\' => "%5C".to_owned(),
        c if c.is_ascii_control() => format!("%{:02X}", u32::from(c)),
        c => c.to_string(),
    };
    let shown = |(index, c): (usize, char)| if index == 0 || c.is_ascii_control() { encoded(c) } else { c.to_string() };
    path.chars().enumerate().map(shown).collect()
}

/// The path that stands in place of the asked one, without leading slash.
fn replaced_path(rule: &RoutingRule, path: &str) -> String {
    match &rule.redirect.replacement {
        Replacement::Root => String::new(),
        Replacement::Key(key) => key.clone(),
        Replacement::Prefix(start) => match &rule.key_prefix {
            Some(prefix) => format!("{start}{}", path.strip_prefix(prefix.as_str()).unwrap_or(path)),
            // A rule about missing objects takes the whole path along, and so does one that puts nothing in its place, as one that names
            // only another host; any other about everything has none to take.
            None if rule.only_missing || start.is_empty() => format!("{start}{path}"),
            None => start.clone(),
        },
    }
}

/// The key tried for a path: a directory shows its index document.
fn key_of(path: &str, website: &Website) -> String {
    if path.is_empty() || path.ends_with('/') { format!("{path}{}", website.index_document) } else { path.to_owned() }
}

fn directory(path: &str, website: &Website) -> IfMissing {
    if path.is_empty() || path.ends_with('/') {
        return IfMissing::NotFound;
    }
    let encoded = location_path(&utf8_percent_encode(path, PATH_SET).to_string());
    let redirection = Redirection { location: format!("/{encoded}/"), status: StatusCode::FOUND };
    IfMissing::Directory { index_key: format!("{path}/{}", website.index_document), redirection }
}

#[cfg(test)]
mod tests {
    use garage_model::rows::{
        bucket::Website,
        rules::{Redirect, Replacement, RoutingRule},
    };
    use proptest::prelude::*;

    use super::{IfMissing, Plan, decode_path, plan};

    fn site(rules: Vec<RoutingRule>) -> Website {
        Website { index_document: "index.html".into(), error_document: None, routing_rules: rules, redirect_all: false }
    }
    fn rule(prefix: Option<&str>, only_missing: bool, replacement: Replacement, status: u16) -> RoutingRule {
        let redirect = Redirect { replacement, status, ..Redirect::default() };
        RoutingRule { key_prefix: prefix.map(str::to_owned), only_missing, redirect }
    }
    fn to_prefix(start: &str) -> Replacement {
        Replacement::Prefix(start.to_owned())
    }
    fn to_key(key: &str) -> Replacement {
        Replacement::Key(key.to_owned())
    }
    /// In short: `302 /there`, or `key`, `404 key`, and behind a `|` what happens when it is missing.
    fn short(plan: Plan) -> String {
        let go = |redirection: super::Redirection| format!("{} {}", redirection.status.as_u16(), redirection.location);
        let show = |target: super::Target| match target.status.as_u16() {
            200 => target.key,
            status => format!("{status} {}", target.key),
        };
        match plan {
            Plan::Redirect(redirection) => go(redirection),
            Plan::Serve { target, if_missing } => {
                let missing = match if_missing {
                    IfMissing::NotFound => String::new(),
                    IfMissing::Directory { index_key, redirection } => format!(" | {index_key} ? {}", go(redirection)),
                    IfMissing::Redirect(redirection) => format!(" | {}", go(redirection)),
                    IfMissing::Serve(target) => format!(" | {}", show(target)),
                };
                format!("{}{missing}", show(target))
            }
        }
    }
    fn check(path: &str, rules: &[RoutingRule], expected: &str) {
        assert_eq!(short(plan(path, &site(rules.to_vec()))), expected, "{path} {rules:?}");
    }

    #[test]
    fn a_directory_shows_its_index_and_a_name_leads_to_the_directory() {
        check("", &[], "index.html");
        check("a/b/", &[], "a/b/index.html");
        check("a/b", &[], "a/b | a/b/index.html ? 302 /a/b/");
        check("ä b", &[], "ä b | ä b/index.html ? 302 /%C3%A4%20b/");
        check("/evil.example", &[], "/evil.example | /evil.example/index.html ? 302 /%2Fevil.example/");
        check("a/../b", &[], "a/../b | a/../b/index.html ? 302 /a/../b/");
    }

    #[test]
    fn a_rule_without_condition_redirects_everything() {
        check("x/y", &[rule(None, false, to_prefix("new/"), 301)], "301 /new/");
        check("x/y", &[rule(None, false, to_prefix(""), 301)], "301 /x/y");
        check("x/y", &[rule(None, false, Replacement::Root, 302)], "302 /");
        let mut away = rule(None, false, to_key("a b"), 308);
        away.redirect.host = Some("example.org".into());
        check("x", &[away.clone()], "308 //example.org/a b");
        away.redirect.protocol = Some("https".into());
        check("x", &[away], "308 https://example.org/a b");
    }

    #[test]
    fn a_prefix_is_replaced_or_the_whole_key_is() {
        check("old/a/b", &[rule(Some("old/"), false, to_prefix("new/"), 307)], "307 /new/a/b");
        check("old/a", &[rule(Some("old/"), false, to_key("one"), 302)], "302 /one");
        check("old//evil.example", &[rule(Some("old/"), false, to_prefix(""), 302)], "302 /%2Fevil.example");
        check("other", &[rule(Some("old/"), false, to_key("one"), 302)], "other | other/index.html ? 302 /other/");
    }

    #[test]
    fn rewrites_serve_another_key() {
        check("old/a", &[rule(Some("old/"), false, to_prefix("new/"), 200)], "new/a | new/a/index.html ? 302 /new/a/");
        check("old/", &[rule(Some("old/"), false, to_prefix("new/"), 200)], "new/index.html");
        check("old/a", &[rule(Some("old/"), false, to_key("gone.html"), 404)], "404 gone.html");
    }

    #[test]
    fn rules_about_missing_objects_act_only_then_and_switch_the_directory_redirect_off() {
        check("app/page", &[rule(None, true, to_key("index.html"), 200)], "app/page | index.html");
        check("page", &[rule(None, true, to_key("e.html"), 404)], "page | 404 e.html");
        check("a/b", &[rule(Some("a/"), true, to_prefix("archive/"), 303)], "a/b | 303 /archive/b");
        check("b", &[rule(None, true, to_prefix("report-404/"), 302)], "b | 302 /report-404/b");
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let rules = [rule(Some("a/"), true, to_key("one"), 200), rule(Some("a/"), false, to_key("two"), 302)];
        check("a/x", &rules, "a/x | one");
    }

    #[test]
    fn a_path_is_decoded_once_and_stays_as_it_is() {
        for (raw, expected) in
            [("/", Some("")), ("//x", Some("/x")), ("/a%2520b", Some("a%20b")), ("/a+b/../c", Some("a+b/../c")), ("/%ff", None)]
        {
            assert_eq!(decode_path(raw).as_deref(), expected, "{raw}");
        }
    }

    proptest! {
        #[test]
        fn a_redirect_never_leaves_the_site_unless_a_rule_names_a_host(path in "\\PC{0,30}") {
            if let Plan::Serve { if_missing: IfMissing::Directory { redirection, .. }, .. } = plan(&path, &site(Vec::new())) {
                prop_assert!(redirection.location.starts_with('/') && !redirection.location.starts_with("//"));
                prop_assert!(http::HeaderValue::from_str(&redirection.location).is_ok());
            }
        }
        #[test]
        fn every_location_can_stand_in_a_header(path in ".{0,20}") {
            let rules = vec![rule(Some(""), false, to_prefix(""), 302)];
            if let Plan::Redirect(redirection) = plan(&path, &site(rules)) {
                prop_assert!(!redirection.location.starts_with("//") && !redirection.location.starts_with("/\\"));
                prop_assert!(http::HeaderValue::from_bytes(redirection.location.as_bytes()).is_ok(), "{:?}", redirection.location);
            }
        }
    }
}
