//! Which site a request asks for: from the Host header to a bucket's name.
//!
//! Source: website reference §1.

use garage_api_common::request::host_name;

/// The bucket name that a Host header stands for, under `root_domain` (leading dots and case are ignored).
///
/// A host below the root domain names the bucket by what stands before it; any other host is a bucket's name as a whole.
/// `None`: the header is missing, empty or malformed.
pub(crate) fn site_of(host: Option<&[u8]>, root_domain: Option<&str>) -> Option<String> {
    let text = std::str::from_utf8(host?).ok()?;
    if !is_well_formed(text) {
        return None;
    }
    let host = host_name(text);
    if host.is_empty() {
        return None;
    }
    let root = root_domain.map(|root| root.trim_matches('.').to_ascii_lowercase()).filter(|root| !root.is_empty());
    let below = root.and_then(|root| host.strip_suffix(&root)?.strip_suffix('.').map(str::to_owned));
    Some(below.filter(|name| !name.is_empty()).unwrap_or(host))
}

/// A name, or an address in brackets; behind it at most a port.
fn is_well_formed(host: &str) -> bool {
    let port = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((_, "")) => return true,
            Some((_, port)) => port.strip_prefix(':'),
            None => None,
        },
        None => match host.split_once(':') {
            None => return true,
            Some((_, port)) => Some(port),
        },
    };
    port.is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::site_of;

    fn check(host: &str, root: Option<&str>, expected: Option<&str>) {
        assert_eq!(site_of(Some(host.as_bytes()), root).as_deref(), expected, "{host} {root:?}");
    }

    #[test]
    fn what_stands_before_the_root_domain_is_the_bucket_with_its_dots() {
        for root in ["web.tld", ".web.tld", "WEB.tld"] {
            check("a.b.web.tld:3902", Some(root), Some("a.b"));
            check("A.web.TLD", Some(root), Some("a"));
            check("web.tld", Some(root), Some("web.tld"));
            check("notweb.tld", Some(root), Some("notweb.tld"));
            check("example.org", Some(root), Some("example.org"));
        }
    }

    #[test]
    fn without_root_domain_the_whole_host_is_the_bucket() {
        check("my-bucket", None, Some("my-bucket"));
        check("[::1]:3902", None, Some("::1"));
        check("example.org:80", Some("."), Some("example.org"));
    }

    #[test]
    fn a_missing_or_malformed_host_names_nothing() {
        assert_eq!(site_of(None, None), None);
        for host in ["", ":80", "[::1", "[::1]80", "[::1]:x", "a:b"] {
            check(host, None, None);
        }
        assert_eq!(site_of(Some(b"\xff.tld"), None), None);
    }

    proptest! {
        #[test]
        fn any_host_is_answered(host: Vec<u8>, root in proptest::option::of("\\PC{0,10}")) {
            if let Some(name) = site_of(Some(&host), root.as_deref()) {
                prop_assert!(!name.is_empty());
            }
        }
    }
}
