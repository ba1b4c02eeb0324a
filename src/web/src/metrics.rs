//! What `/metrics` tells of websites.
//!
//! Source: metrics reference, `web_*`.

use std::{collections::BTreeSet, time::Duration};

use garage_api_common::metrics::{Labels, RequestMetrics};
use http::{Method, StatusCode};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;

use crate::limits::METRIC_HOSTS_MAX;

/// Counters of a node's website front.
pub struct WebMetrics {
    requests: RequestMetrics,
    /// Hosts with series of their own; `None`: hosts are not told apart.
    hosts: Option<Mutex<BTreeSet<String>>>,
}

impl WebMetrics {
    /// Counters, told by `registry`. `by_host`: with the label `host`, for hosts that lead to a site.
    pub fn new(registry: &mut Registry, by_host: bool) -> WebMetrics {
        WebMetrics { requests: RequestMetrics::register(registry, "web", "requests to websites"), hosts: by_host.then(Mutex::default) }
    }

    /// Counts an answered request. `host`: of a known site. `failed`: with the default page of this status.
    pub(crate) fn note(&self, method: &Method, host: Option<&str>, failed: Option<StatusCode>, took: Duration) {
        let mut labels: Labels = vec![("method", method_label(method).to_owned())];
        if let Some(hosts) = &self.hosts {
            labels.push(("host", host_label(&mut hosts.lock(), host)));
        }
        let reason = failed.map(|status| format!("{} {}", status.as_u16(), status.canonical_reason().unwrap_or_default()));
        self.requests.note(labels, reason, took);
    }
}

/// Clients invent methods; each would be a series.
fn method_label(method: &Method) -> &str {
    match *method {
        Method::GET | Method::HEAD | Method::OPTIONS | Method::POST | Method::PUT | Method::DELETE | Method::PATCH => method.as_str(),
        _ => "other",
    }
}

/// Anybody may ask for any host, so only those that lead to a site are named, and of these not more than memory has room for.
fn host_label(known: &mut BTreeSet<String>, host: Option<&str>) -> String {
    let Some(host) = host else { return "unknown".to_owned() };
    if known.contains(host) || known.len() < METRIC_HOSTS_MAX {
        known.insert(host.to_owned());
        return host.to_owned();
    }
    "other".to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{METRIC_HOSTS_MAX, host_label};

    #[test]
    fn hosts_are_bounded() {
        let mut known = BTreeSet::new();
        for number in 0..METRIC_HOSTS_MAX + 10 {
            host_label(&mut known, Some(&number.to_string()));
        }
        assert_eq!(known.len(), METRIC_HOSTS_MAX);
        assert_eq!(host_label(&mut known, Some("7")), "7");
        assert_eq!(host_label(&mut known, Some("new")), "other");
        assert_eq!(host_label(&mut known, None), "unknown");
    }
}
