//! Routing rules, from the bucket's settings to the answer.

use garage_model::rows::rules::{Redirect, Replacement, RoutingRule};
use garage_sim::run;

use crate::support::Sites;

fn rule(prefix: Option<&str>, only_missing: bool, replacement: Replacement, status: u16) -> RoutingRule {
    let redirect = Redirect { replacement, status, ..Redirect::default() };
    RoutingRule { key_prefix: prefix.map(str::to_owned), only_missing, redirect }
}

async fn with_rules(rules: &[RoutingRule]) -> Sites {
    let sites = Sites::one_node().await;
    for (key, body) in [("index.html", "app"), ("new/a", "new a"), ("new/dir/index.html", "dir"), ("gone.html", "gone"), ("docs/x", "x")] {
        sites.put(key, body).await;
    }
    sites.change(|row| row.website.as_mut().unwrap().routing_rules = rules.to_vec()).await;
    sites
}

#[test]
fn a_single_page_app_serves_its_page_for_every_unknown_path() {
    run(async {
        let sites = with_rules(&[rule(None, true, Replacement::Key("index.html".into()), 200)]).await;
        sites.get("/any/where").await.is(200, "app");
        sites.get("/docs").await.is(200, "app");
        sites.get("/docs/x").await.is(200, "x");
        let etag = sites.get("/any").await.header("etag").unwrap().to_owned();
        assert_eq!(sites.get_with("/any", &[("if-none-match", &etag)]).await.status, 304);
        assert_eq!(sites.head("/any").await.header("content-length"), Some("3"));
    });
}

#[test]
fn prefixes_redirect_rewrite_or_are_gone() {
    run(async {
        let sites = with_rules(&[
            rule(Some("old/"), false, Replacement::Prefix("new/".into()), 301),
            rule(Some("alias/"), false, Replacement::Prefix("new/".into()), 200),
            rule(Some("removed/"), false, Replacement::Key("gone.html".into()), 404),
            rule(Some("lost/"), true, Replacement::Prefix("new/".into()), 302),
        ])
        .await;
        sites.get("/old/a?x=y").await.goes(301, "/new/a");
        sites.get("/alias/a").await.is(200, "new a");
        sites.get("/alias/dir").await.goes(302, "/new/dir/");
        sites.get("/alias/dir/").await.is(200, "dir");
        sites.get_with("/removed/x", &[("range", "bytes=0-1")]).await.is(404, "gone");
        sites.get("/lost/a").await.goes(302, "/new/a");
        assert_eq!(sites.get("/alias/absent").await.status, 404);
    });
}
