//! Which host names may have a certificate: those that lead to a website, and that an authority could look up.

use garage_model::{ModelError, RequestContext, buckets::Buckets};

use crate::limits::NAME_MAX_BYTES;

/// Whether a website is served under `name` (lower case).
///
/// Below the root domain by the bucket's name, else by a global alias that is the whole name. Neither the root domain itself nor names
/// without a dot: nobody can prove that they lead here.
pub(crate) async fn is_site(name: &str, root_domain: Option<&str>, buckets: &Buckets, context: RequestContext) -> Result<bool, ModelError> {
    if !is_public_name(name) {
        return Ok(false);
    }
    let bucket = buckets.by_global_name(bucket_name(name, root_domain), context).await?;
    Ok(bucket.is_some_and(|bucket| bucket.row.website.is_some()))
}

fn bucket_name<'a>(name: &'a str, root_domain: Option<&str>) -> &'a str {
    let root = root_domain.map(|root| root.trim_matches('.').to_ascii_lowercase()).filter(|root| !root.is_empty());
    let below = root.and_then(|root| name.strip_suffix(root.as_str())?.strip_suffix('.'));
    below.filter(|bucket| !bucket.is_empty()).unwrap_or(name)
}

/// A DNS name of at least two labels. RFC 1035 §2.3.1, with digits first as RFC 1123 §2.1 allows.
fn is_public_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= NAME_MAX_BYTES
        && name.contains('.')
        && name.split('.').all(is_label)
        && name.parse::<std::net::IpAddr>().is_err()
        && name == name.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::{bucket_name, is_public_name};

    #[test]
    fn only_names_that_an_authority_can_look_up_are_public() {
        for (name, expected) in [
            ("example.org", true),
            ("a.b.example.org", true),
            ("xn--bcher-kva.example", true),
            ("1st.example.org", true),
            ("my-bucket", false),
            ("10.0.0.1", false),
            ("::1", false),
            ("-a.example.org", false),
            ("a..b", false),
            ("a_b.example.org", false),
            ("A.example.org", false),
            ("", false),
        ] {
            assert_eq!(is_public_name(name), expected, "{name}");
        }
        assert!(!is_public_name(&format!("{}.org", "a.".repeat(130))));
    }

    #[test]
    fn a_bucket_stands_before_the_root_domain() {
        assert_eq!(bucket_name("site.web.tld", Some(".web.tld")), "site");
        assert_eq!(bucket_name("web.tld", Some("web.tld")), "web.tld");
        assert_eq!(bucket_name("www.example.org", Some("web.tld")), "www.example.org");
        assert_eq!(bucket_name("www.example.org", None), "www.example.org");
    }
}
