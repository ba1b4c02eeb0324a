//! The page that an error shows when the site has none of its own.
//!
//! Source: website reference §6, "Errors".

use garage_api_common::{
    ErrorCode, S3Error,
    http::{Body, empty_body, full_body},
};
use http::{HeaderValue, Method, Response, StatusCode, header};

/// What a request fails with.
#[derive(Debug)]
pub(crate) enum WebError {
    /// No site of that name: told nothing more, whatever the reason.
    NoSite,
    /// The host or path can't be read.
    BadRequest(&'static str),
    /// Found out on behalf of a site.
    OfSite(S3Error),
}

impl WebError {
    /// The status of the answer.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            WebError::NoSite => StatusCode::NOT_FOUND,
            WebError::BadRequest(_) => StatusCode::BAD_REQUEST,
            WebError::OfSite(error) => error.status(),
        }
    }

    /// The default page. HEAD gets its headers only.
    pub(crate) fn page(&self, method: &Method) -> Response<Body> {
        let html = self.html();
        let len_bytes = html.len();
        let mut response = Response::new(if method == Method::HEAD { empty_body() } else { full_body(html) });
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(len_bytes));
        if let WebError::OfSite(error) = self {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            for (name, value) in &error.headers {
                headers.append(name.clone(), value.clone());
            }
        }
        response
    }

    fn html(&self) -> String {
        let status = self.status();
        let title = format!("{} {}", status.as_u16(), status.canonical_reason().unwrap_or("Error"));
        let details = match self {
            WebError::NoSite => String::new(),
            WebError::BadRequest(reason) => details(ErrorCode::InvalidRequest.name(), reason),
            WebError::OfSite(error) => details(shown_code(error).name(), &error.message),
        };
        format!("<!DOCTYPE html>\n<html>\n<head><title>{title}</title></head>\n<body>\n<h1>{title}</h1>\n{details}</body>\n</html>\n")
    }
}

/// The S3 front has finer codes for some failures than sites show.
fn shown_code(error: &S3Error) -> ErrorCode {
    match error.code {
        ErrorCode::AccessForbidden => ErrorCode::AccessDenied,
        ErrorCode::BadRequest => ErrorCode::InvalidRequest,
        ErrorCode::SlowDown => ErrorCode::ServiceUnavailable,
        code => code,
    }
}

fn details(code: &str, message: &str) -> String {
    format!("<ul>\n<li>Code: {code}</li>\n<li>Message: {}</li>\n</ul>\n", escaped(message))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use garage_api_common::S3Error;
    use http::Method;

    use super::WebError;

    #[test]
    fn a_page_names_code_and_message_without_letting_markup_through() {
        let html = WebError::OfSite(S3Error::invalid_request("<script>&\"'")).html();
        assert!(html.contains("<h1>400 Bad Request</h1>") && html.contains("Code: InvalidRequest"), "{html}");
        assert!(html.contains("&lt;script&gt;&amp;&quot;&#39;") && !html.contains("<script>"), "{html}");
    }

    #[test]
    fn an_unknown_site_tells_nothing_more() {
        let html = WebError::NoSite.html();
        assert!(html.contains("404 Not Found") && !html.contains("<li>"), "{html}");
        assert!(!WebError::NoSite.page(&Method::GET).headers().contains_key("access-control-allow-origin"));
    }

    #[test]
    fn a_cause_is_never_shown() {
        assert!(!WebError::OfSite(S3Error::internal("disk sdb")).html().contains("sdb"));
    }
}
