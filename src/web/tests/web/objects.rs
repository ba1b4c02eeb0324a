//! Objects as answers: directories, headers, ranges, conditions, CORS.

use garage_model::rows::{object::ObjectHeaders, rules::CorsRule};
use garage_sim::run;
use serde_bytes::ByteBuf;

use crate::support::Sites;

fn standard(pairs: &[(&str, &str)]) -> ObjectHeaders {
    ObjectHeaders {
        standard: pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        ..ObjectHeaders::default()
    }
}

#[test]
fn directories_show_their_index_and_names_lead_to_directories() {
    run(async {
        let sites = Sites::one_node().await;
        for (key, body) in [
            ("index.html", "root"),
            ("a/b/index.html", "ab"),
            ("a/file", "file"),
            ("a/file/index.html", "hidden"),
            ("c d/index.html", "cd"),
        ] {
            sites.put(key, body).await;
        }
        sites.get("/").await.is(200, "root");
        sites.get("/?response-content-type=evil&partNumber=7").await.is(200, "root");
        sites.get("/a/b/").await.is(200, "ab");
        sites.get("/a/b").await.goes(302, "/a/b/");
        sites.get("/a/b?x=y").await.goes(302, "/a/b/");
        sites.get("/c%20d").await.goes(302, "/c%20d/");
        sites.get("/a/file").await.is(200, "file");
        sites.head("/a/b").await.goes(302, "/a/b/");
        for path in ["/a", "/a/", "//", "/a/b//", "/a/../index.html"] {
            assert_eq!(sites.get(path).await.status, 404, "{path}");
        }
    });
}

#[test]
fn an_object_comes_with_its_own_headers_and_nothing_else() {
    run(async {
        let sites = Sites::one_node().await;
        let mut headers = standard(&[("cache-control", "max-age=3"), ("content-language", "de"), ("content-type", "text/css")]);
        headers.user = vec![("a".into(), ByteBuf::from(b"b".to_vec()))];
        sites.put_with("style.css", b"body{}", headers).await;
        sites.put("untyped", "x").await;
        let answer = sites.get("/style.css").await;
        answer.is(200, "body{}");
        for (name, value) in [
            ("cache-control", "max-age=3"),
            ("content-language", "de"),
            ("content-type", "text/css"),
            ("content-length", "6"),
            ("accept-ranges", "bytes"),
            ("x-amz-meta-a", "b"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{name}");
        }
        assert!(answer.header("etag").is_some_and(|etag| etag.starts_with('"')) && answer.header("last-modified").is_some());
        assert_eq!(sites.get("/untyped").await.header("content-type"), None);
        let head = sites.head("/style.css").await;
        assert_eq!((head.status, head.body.len(), head.headers), (200, 0, answer.headers));
    });
}

#[test]
fn ranges_select_bytes_and_nonsense_is_416() {
    run(async {
        let sites = Sites::one_node().await;
        sites.put("digits", "0123456789").await;
        let large: Vec<u8> = (0..300_000u32).map(|number| number as u8).collect();
        sites.put_with("large", &large, ObjectHeaders::default()).await;
        for (range, content, body) in
            [("bytes=2-4", "bytes 2-4/10", "234"), ("bytes=7-", "bytes 7-9/10", "789"), ("bytes=-2", "bytes 8-9/10", "89")]
        {
            let answer = sites.get_with("/digits", &[("range", range)]).await;
            answer.is(206, body);
            assert_eq!((answer.header("content-range"), answer.header("content-length")), (Some(content), Some(&*body.len().to_string())));
        }
        let answer = sites.get_with("/large", &[("range", "bytes=100000-200000")]).await;
        assert_eq!((answer.status, &answer.body[..]), (206, &large[100_000..=200_000]));
        sites.get_with("/digits", &[("range", "bytes=0-1,3-4")]).await.is(200, "0123456789");
        for range in ["bytes=10-", "bytes=5-2", "items=0-1", "nonsense"] {
            let answer = sites.get_with("/digits", &[("range", range)]).await;
            assert_eq!((answer.status, answer.header("content-range")), (416, Some("bytes */10")), "{range}");
            assert!(answer.text().contains("InvalidRange"), "{range}");
        }
        let head = sites.ask(0, "HEAD", "site.web.tld", "/digits", &[("range", "bytes=2-4")]).await;
        assert_eq!((head.status, head.header("content-length")), (200, Some("10")));
        sites.get_with("/digits", &[("range", "bytes=2-4"), ("if-range", "\"other\"")]).await.is(200, "0123456789");
    });
}

#[test]
fn conditions_are_answered_with_what_a_cache_needs_only() {
    run(async {
        let sites = Sites::one_node().await;
        sites.put_with("page", b"text", standard(&[("cache-control", "max-age=3"), ("content-type", "text/html")])).await;
        let full = sites.get("/page").await;
        let etag = full.header("etag").unwrap();
        let modified = full.header("last-modified").unwrap();
        let bare = etag.trim_matches('"');
        for (status, name, value) in [
            (304, "if-none-match", etag),
            (304, "if-none-match", bare),
            (304, "if-none-match", "*"),
            (304, "if-none-match", &format!("\"x\", {etag}")),
            (304, "if-modified-since", modified),
            (304, "if-modified-since", "Fri, 01 Jan 2100 00:00:00 GMT"),
            (412, "if-match", "\"x\""),
            (412, "if-unmodified-since", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ] {
            let answer = sites.get_with("/page", &[(name, value)]).await;
            assert_eq!((answer.status, answer.body.len()), (status, 0), "{name}: {value}");
            assert_eq!((answer.header("etag"), answer.header("cache-control")), (Some(etag), Some("max-age=3")), "{name}: {value}");
            assert_eq!((answer.header("content-type"), answer.header("last-modified")), (None, None), "{name}: {value}");
        }
        for (name, value) in [("if-none-match", "\"x\""), ("if-match", etag), ("if-modified-since", "Sat, 01 Jan 2000 00:00:00 GMT")] {
            sites.get_with("/page", &[(name, value)]).await.is(200, "text");
        }
        let answer = sites.get_with("/page", &[("if-modified-since", "yesterday")]).await;
        assert_eq!(answer.status, 400);
        assert!(answer.text().contains("InvalidRequest"), "{}", answer.text());
    });
}

#[test]
fn scripts_of_allowed_origins_may_read_answers_and_redirects_but_no_errors() {
    run(async {
        let sites = Sites::one_node().await;
        sites.put("dir/index.html", "x").await;
        let origin = "https://app.example";
        let rule = CorsRule { allowed_origins: vec![origin.into()], allowed_methods: vec!["GET".into()], ..CorsRule::default() };
        sites.change(|row| row.cors = vec![rule.clone()]).await;
        for path in ["/dir/", "/dir"] {
            let allowed = sites.get_with(path, &[("origin", origin)]).await;
            assert_eq!(allowed.header("access-control-allow-origin"), Some(origin), "{path}");
            assert!(allowed.header("vary").is_some_and(|vary| vary.contains("Origin")), "{path}");
            let other = sites.get_with(path, &[("origin", "https://other.example")]).await;
            assert_eq!((other.status, other.header("access-control-allow-origin")), (allowed.status, None), "{path}");
        }
        let preflight = |origin: &'static str, method: &'static str| {
            let sites = &sites;
            async move {
                sites.ask(0, "OPTIONS", "site.web.tld", "/absent", &[("origin", origin), ("access-control-request-method", method)]).await
            }
        };
        let granted = preflight(origin, "GET").await;
        assert_eq!((granted.status, granted.header("access-control-allow-methods")), (200, Some("GET")));
        let refused = preflight(origin, "PUT").await;
        assert_eq!(refused.status, 403);
        assert!(refused.text().contains("AccessDenied"), "{}", refused.text());
        assert_eq!(sites.ask(0, "OPTIONS", "site.web.tld", "/", &[]).await.status, 400);
    });
}

#[test]
fn an_object_with_a_redirect_location_leads_there() {
    run(async {
        let sites = Sites::one_node().await;
        let headers = ObjectHeaders { website_redirect: Some("https://example.org/new".into()), ..ObjectHeaders::default() };
        sites.put_with("old", b"content", headers).await;
        sites.get("/old").await.goes(301, "https://example.org/new");
        sites.head("/old").await.goes(301, "https://example.org/new");
    });
}
