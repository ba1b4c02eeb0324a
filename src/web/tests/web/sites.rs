//! Which host leads to which site, on which node.

use std::time::Duration;

use garage_sim::{cluster::ClusterOptions, run};

use crate::support::{Sites, context};

#[test]
fn a_site_is_found_by_name_below_the_root_domain_by_its_bare_name_and_by_its_own_domain() {
    run(async {
        let sites = Sites::one_node().await;
        sites.put("index.html", "welcome").await;
        let buckets = sites.cluster.node(0).access.buckets();
        buckets.add_global_alias(sites.bucket.id, "www.example.org", context()).await.unwrap();
        for host in ["site.web.tld", "SITE.web.tld:3902", "site", "www.example.org", "www.example.org:80"] {
            sites.ask(0, "GET", host, "/", &[]).await.is(200, "welcome");
        }
        buckets.remove_global_alias(sites.bucket.id, "www.example.org", context()).await.unwrap();
        assert_eq!(sites.ask(0, "GET", "www.example.org", "/", &[]).await.status, 404);
    });
}

#[test]
fn whatever_is_no_site_is_answered_alike() {
    run(async {
        let sites = Sites::one_node().await;
        sites.put("index.html", "welcome").await;
        sites.put("oops.html", "of the site").await;
        let buckets = sites.cluster.node(0).access.buckets();
        buckets.create("private", None, context()).await.unwrap();
        let id = sites.bucket.id.to_string();
        let unknown = sites.ask(0, "GET", "unknown.web.tld", "/", &[]).await;
        assert_eq!(unknown.status, 404);
        assert!(unknown.text().contains("404 Not Found") && !unknown.text().contains("NoSuch"), "{}", unknown.text());
        for host in ["private.web.tld", &format!("{id}.web.tld"), &id, "web.tld", "example.org"] {
            let answer = sites.ask(0, "GET", host, "/", &[]).await;
            assert_eq!((answer.status, &answer.body, &answer.headers), (404, &unknown.body, &unknown.headers), "{host}");
        }
        for host in ["", ":80", "[::1"] {
            assert_eq!(sites.ask(0, "GET", host, "/", &[]).await.status, 400, "{host:?}");
        }
    });
}

#[test]
fn every_node_serves_with_one_node_down_and_stops_at_once_when_told() {
    run(async {
        let mut sites = Sites::start(ClusterOptions::exact(Duration::from_millis(10))).await;
        sites.put("index.html", "welcome").await;
        sites.put_with("large", &[b'x'; 300_000], Default::default()).await;
        for node in 0..3 {
            sites.ask(node, "GET", "site.web.tld", "/", &[]).await.is(200, "welcome");
        }
        sites.cluster.crash(2);
        for node in 0..2 {
            sites.ask(node, "GET", "site.web.tld", "/", &[]).await.is(200, "welcome");
            assert_eq!(sites.ask(node, "GET", "site.web.tld", "/large", &[]).await.body.len(), 300_000);
            assert_eq!(sites.ask(node, "GET", "site.web.tld", "/absent", &[]).await.status, 404);
        }
        sites.cluster.restart(2).await;
        sites.change(|row| row.website = None).await;
        for node in 0..3 {
            assert_eq!(sites.ask(node, "GET", "site.web.tld", "/", &[]).await.status, 404, "node {node}");
        }
    });
}

#[test]
fn without_a_quorum_the_answer_is_503_and_not_that_there_is_no_site() {
    run(async {
        let mut sites = Sites::start(ClusterOptions::exact(Duration::from_millis(10))).await;
        sites.put("index.html", "welcome").await;
        sites.cluster.crash(1);
        sites.cluster.crash(2);
        let answer = sites.ask(0, "GET", "site.web.tld", "/", &[]).await;
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!(answer.text().contains("ServiceUnavailable"), "{}", answer.text());
        assert_eq!(sites.ask(0, "GET", "unknown.web.tld", "/", &[]).await.status, 503);
    });
}
