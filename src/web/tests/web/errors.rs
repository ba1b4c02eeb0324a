//! What visitors see when something is wrong.

use garage_model::rows::object::ObjectHeaders;
use garage_sim::run;

use crate::support::Sites;

async fn with_error_document() -> Sites {
    let sites = Sites::one_node().await;
    let headers = ObjectHeaders { standard: vec![("content-type".into(), "text/html".into())], ..ObjectHeaders::default() };
    sites.put_with("oops.html", b"<p>sorry", headers).await;
    sites.put("page", "text").await;
    sites
}

#[test]
fn the_site_s_own_page_tells_of_its_visitors_errors() {
    run(async {
        let sites = with_error_document().await;
        for (method, path, headers, status) in [
            ("GET", "/absent", vec![], 404),
            ("GET", "/absent", vec![("range", "bytes=1-2"), ("if-none-match", "*")], 404),
            ("GET", "/page", vec![("range", "bytes=9-")], 416),
            ("GET", "/page", vec![("if-modified-since", "x")], 400),
            ("POST", "/page", vec![], 400),
            ("DELETE", "/page", vec![("origin", "https://a.example")], 400),
        ] {
            let answer = sites.ask(0, method, "site.web.tld", path, &headers).await;
            answer.is(status, "<p>sorry");
            assert_eq!(answer.header("content-type"), Some("text/html"), "{method} {path}");
            assert!(answer.header("x-garage-error").is_some() && answer.header("access-control-allow-origin").is_none(), "{method} {path}");
        }
    });
}

#[test]
fn head_and_preflights_get_the_default_page_s_headers() {
    run(async {
        let sites = with_error_document().await;
        let head = sites.head("/absent").await;
        assert_eq!((head.status, head.body.len(), head.header("content-type")), (404, 0, Some("text/html; charset=utf-8")));
        assert_eq!(head.header("access-control-allow-origin"), Some("*"));
        let preflight =
            sites.ask(0, "OPTIONS", "site.web.tld", "/absent", &[("origin", "https://a"), ("access-control-request-method", "GET")]).await;
        assert_eq!(preflight.status, 403);
        assert!(preflight.text().contains("AccessDenied"));
    });
}

#[test]
fn without_an_error_document_the_default_page_names_the_code() {
    run(async {
        let sites = Sites::one_node().await;
        let answer = sites.get("/a%3Cb").await;
        assert_eq!((answer.status, answer.header("content-type")), (404, Some("text/html; charset=utf-8")));
        assert!(answer.text().contains("NoSuchKey"), "{}", answer.text());
        sites.change(|row| row.website.as_mut().unwrap().error_document = Some("/later.html".into())).await;
        assert_eq!(sites.get("/absent").await.status, 404);
        sites.put("later.html", "with a slash before its name").await;
        sites.get("/absent").await.is(404, "with a slash before its name");
    });
}

#[test]
fn a_path_that_is_not_utf_8_never_reaches_the_site() {
    run(async {
        let sites = with_error_document().await;
        let answer = sites.get("/%ff").await;
        assert_eq!(answer.status, 400);
        assert!(answer.text().contains("400 Bad Request"), "{}", answer.text());
    });
}
