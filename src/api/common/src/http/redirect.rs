//! Leads clients that came without TLS to the same place with it.

use std::sync::Arc;

use ::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use futures::future::BoxFuture;

use super::{Body, HttpService, RequestBody, RequestContext, empty_body};
use crate::request::{host_name, host_of};

/// Answers every request with a redirect to `https`.
pub struct RedirectToHttps {
    port: u16,
}

impl RedirectToHttps {
    /// To `port` of the host that the client named.
    pub fn new(port: u16) -> RedirectToHttps {
        RedirectToHttps { port }
    }
}

impl HttpService for RedirectToHttps {
    fn serve(self: Arc<Self>, request: Request<RequestBody>, _context: RequestContext) -> BoxFuture<'static, Response<Body>> {
        let mut response = Response::new(empty_body());
        match location(request.uri(), request.headers(), self.port) {
            Some(location) => {
                // 301 lets old clients turn a POST into a GET; 308 does not.
                let plain = request.method() == Method::GET || request.method() == Method::HEAD;
                *response.status_mut() = if plain { StatusCode::MOVED_PERMANENTLY } else { StatusCode::PERMANENT_REDIRECT };
                response.headers_mut().insert(header::LOCATION, location);
            }
            None => *response.status_mut() = StatusCode::BAD_REQUEST,
        }
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(0));
        Box::pin(std::future::ready(response))
    }
}

/// `None`: the request does not say which host it is for.
fn location(uri: &Uri, headers: &HeaderMap, port: u16) -> Option<HeaderValue> {
    let host = host_name(std::str::from_utf8(host_of(uri, headers)?).ok()?);
    if host.is_empty() {
        return None;
    }
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    HeaderValue::from_str(&format!("https://{host}{port}{path}")).ok()
}

#[cfg(test)]
mod tests {
    use ::http::{HeaderMap, HeaderValue, Uri};

    use super::location;

    fn check(host: &str, path: &str, port: u16, expected: Option<&str>) {
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_str(host).unwrap());
        let uri: Uri = path.parse().unwrap();
        assert_eq!(location(&uri, &headers, port).as_ref().map(|value| value.to_str().unwrap()), expected, "{host} {path} {port}");
    }

    #[test]
    fn the_same_place_with_tls() {
        check("Example.org:80", "/a%20b?c=d", 443, Some("https://example.org/a%20b?c=d"));
        check("example.org", "/", 8443, Some("https://example.org:8443/"));
        check("[::1]:80", "/x", 443, Some("https://[::1]/x"));
        check("", "/", 443, None);
    }
}
