//! `/health` for load balancers, `/check` for reverse proxies that ask whether to get a certificate for a domain.

use ::http::{Response, StatusCode};
use bytes::Bytes;
use garage_model::RequestContext;
use tokio::time::Instant;

use super::{AdminHttp, with_type};
use crate::{AdminError, limits::REQUEST_TIMEOUT, types::HealthStatus};

impl AdminHttp {
    /// 200 while every partition has a quorum, else 503.
    pub(super) fn health(&self) -> Response<Bytes> {
        let health = self.api.cluster_health();
        let (status, verdict) = match health.status {
            HealthStatus::Healthy => (StatusCode::OK, "This node sees a healthy cluster."),
            HealthStatus::Degraded => (StatusCode::OK, "This node can serve; some storage nodes are down."),
            HealthStatus::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "This node cannot serve: some partitions have no quorum."),
        };
        let details = "The endpoint GetClusterHealth of the administration interface has the details.";
        let mut response = with_type("text/plain", format!("{verdict}\n{details}\n"));
        *response.status_mut() = status;
        response
    }

    /// 200 when `domain` leads to a bucket: under the root domain of S3 to any, else to one that is a website.
    pub(super) async fn check_domain(&self, domain: Option<&str>) -> Result<Response<Bytes>, AdminError> {
        let domain = domain.ok_or_else(|| AdminError::invalid("query parameter domain is missing"))?;
        let options = self.api.options();
        let (name, must_be_website) =
            match (under(domain, options.s3_root_domain.as_deref()), under(domain, options.web_root_domain.as_deref())) {
                (Some(name), _) => (name, false),
                (None, Some(name)) => (name, true),
                (None, None) => (domain, true),
            };
        let context = RequestContext { deadline: Instant::now() + REQUEST_TIMEOUT, trace: 0 };
        match self.api.bucket_of_name(name, context).await? {
            None => Err(AdminError::invalid(format!("{domain} leads to no bucket"))),
            Some(bucket) if must_be_website && bucket.row.website.is_none() => {
                Err(AdminError::invalid(format!("{domain} leads to a bucket that is not a website")))
            }
            Some(_) => Ok(Response::new(Bytes::from(format!("{domain} is served here\n")))),
        }
    }
}

/// What stands before the root domain, which may be configured with or without its leading dot.
fn under<'a>(domain: &'a str, root: Option<&str>) -> Option<&'a str> {
    let root = root?.trim_start_matches('.');
    if root.is_empty() {
        return None;
    }
    domain.strip_suffix(root)?.strip_suffix('.').filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::under;

    #[test]
    fn a_bucket_stands_before_the_root_domain() {
        for root in [".web.example.com", "web.example.com"] {
            assert_eq!(under("photos.web.example.com", Some(root)), Some("photos"));
            assert_eq!(under("a.b.web.example.com", Some(root)), Some("a.b"));
            assert_eq!(under("web.example.com", Some(root)), None);
            assert_eq!(under("notweb.example.com", Some(root)), None);
        }
        assert_eq!(under("photos.example.com", None), None);
        assert_eq!(under("photos.", Some(".")), None);
    }
}
