//! Listings: order, prefixes, delimiters, pages, and what arguments mean.

use crate::{client::Answer, server::Server};

async fn server_with(keys: &[&str]) -> Server {
    let server = Server::start().await;
    for key in keys {
        server.client.put(&format!("/bkt/{key}"), "x").await.ok();
    }
    server
}
fn keys(answer: &Answer) -> Vec<String> {
    answer.elements("Key")
}
fn prefixes(answer: &Answer) -> Vec<String> {
    answer.elements("CommonPrefixes").iter().map(|element| element.replace("<Prefix>", "").replace("</Prefix>", "")).collect()
}

#[tokio::test]
async fn keys_come_in_byte_order_and_in_pages() {
    let server = server_with(&["b", "a/2", "a/1", "c/x/y", "%C3%A4", "Z"]).await;
    let client = &server.client;
    let all = client.get("/bkt").await.ok();
    assert_eq!(keys(&all), ["Z", "a/1", "a/2", "b", "c/x/y", "ä"]);
    assert_eq!((all.element("IsTruncated").as_deref(), all.element("NextMarker")), (Some("false"), None));
    assert_eq!((all.element("MaxKeys").as_deref(), all.element("Marker").as_deref()), (Some("1000"), Some("")));
    assert!(all.text().contains("<StorageClass>STANDARD</StorageClass>") && all.text().contains("<Owner>"));
    assert_eq!(keys(&client.get("/bkt?prefix=a/").await.ok()), ["a/1", "a/2"]);
    assert_eq!(keys(&client.get("/bkt?marker=a/2").await.ok()), ["b", "c/x/y", "ä"]);
    let (mut found, mut marker) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("/bkt?max-keys=2&marker={marker}&encoding-type=url")).await.ok();
        found.extend(keys(&page));
        if page.element("IsTruncated").as_deref() == Some("false") {
            break;
        }
        marker = found.last().unwrap().clone();
    }
    assert_eq!(found, ["Z", "a/1", "a/2", "b", "c/x/y", "%C3%A4"]);
}

#[tokio::test]
async fn delimiters_fold_keys() {
    let server = server_with(&["a/1", "a/2", "b", "c/x/y", "c/z", "d/"]).await;
    let client = &server.client;
    let folded = client.get("/bkt?delimiter=/").await.ok();
    assert_eq!((keys(&folded), prefixes(&folded)), (vec!["b".to_owned()], vec!["a/".into(), "c/".into(), "d/".into()]));
    let below = client.get("/bkt?delimiter=/&prefix=c/").await.ok();
    assert_eq!((keys(&below), prefixes(&below)), (vec!["c/z".to_owned()], vec!["c/x/".into()]));
    let itself = client.get("/bkt?delimiter=/&prefix=d/").await.ok();
    assert_eq!((keys(&itself), prefixes(&itself).len()), (vec!["d/".to_owned()], 0));
    let page = client.get("/bkt?delimiter=/&max-keys=1").await.ok();
    assert_eq!(page.element("NextMarker").as_deref(), Some("a/"));
    let next = client.get("/bkt?delimiter=/&max-keys=2&marker=a/").await.ok();
    assert_eq!((keys(&next), prefixes(&next)), (vec!["b".to_owned()], vec!["c/".into()]));
    let inside = client.get("/bkt?delimiter=/&marker=a/1").await.ok();
    assert_eq!(prefixes(&inside), ["c/", "d/"], "a common prefix that is not greater than the marker is not listed");
    let empty = client.get("/bkt?delimiter=").await.ok();
    assert_eq!((keys(&empty).len(), empty.element("Delimiter")), (6, None));
}

#[tokio::test]
async fn version_2_goes_on_by_tokens() {
    let server = server_with(&["a", "b", "c/1", "c/2", "d"]).await;
    let client = &server.client;
    let all = client.get("/bkt?list-type=2").await.ok();
    assert_eq!((keys(&all).len(), all.element("KeyCount").as_deref()), (5, Some("5")));
    assert!(!all.text().contains("<Owner>") && all.element("NextContinuationToken").is_none());
    assert!(client.get("/bkt?list-type=2&fetch-owner=true").await.ok().text().contains("<Owner>"));
    let after = client.get("/bkt?list-type=2&start-after=b").await.ok();
    assert_eq!((keys(&after).len(), after.element("StartAfter").as_deref()), (3, Some("b")));
    let (mut found, mut token) = (Vec::new(), None::<String>);
    for _ in 0..10 {
        let more = token.as_ref().map(|token| format!("&continuation-token={token}&start-after=zzz")).unwrap_or_default();
        let page = client.get(&format!("/bkt?list-type=2&max-keys=1&delimiter=/{more}")).await.ok();
        assert_eq!(page.element("ContinuationToken"), token);
        assert_eq!(page.element("KeyCount").as_deref(), Some("1"));
        assert!(token.is_none() || page.element("StartAfter").is_none());
        found.extend(keys(&page));
        found.extend(prefixes(&page));
        token = page.element("NextContinuationToken");
        if token.is_none() {
            break;
        }
    }
    assert_eq!(found, ["a", "b", "c/", "d"]);
    for token in ["", "nonsense", "%2B%2F"] {
        client.get(&format!("/bkt?list-type=2&continuation-token={token}")).await.is(400, "InvalidArgument");
    }
}

#[tokio::test]
async fn arguments_are_checked() {
    let server = server_with(&["a%0Db%20c", "d"]).await;
    let client = &server.client;
    for bad in ["max-keys=-1", "max-keys=x", "max-keys=2147483648", "encoding-type=base64"] {
        client.get(&format!("/bkt?{bad}")).await.is(400, "InvalidArgument");
        client.get(&format!("/bkt?list-type=2&{bad}")).await.is(400, "InvalidArgument");
        client.get(&format!("/bkt?versions&{bad}")).await.is(400, "InvalidArgument");
    }
    for listing in ["/bkt", "/bkt?list-type=2", "/bkt?versions"] {
        let asking = |names: &'static str| client.call("GET", listing).header("x-amz-optional-object-attributes", names).send();
        asking("RestoreStatus").await.ok();
        asking("RestoreStatus, Nonsense").await.is(400, "InvalidArgument");
    }
    let none = client.get("/bkt?max-keys=0").await.ok();
    assert_eq!((keys(&none).len(), none.element("IsTruncated").as_deref()), (0, Some("false")));
    assert_eq!(client.get("/bkt?max-keys=5000").await.ok().element("MaxKeys").as_deref(), Some("1000"));
    assert_eq!(keys(&client.get("/bkt").await.ok())[0], "a&#xD;b c");
    let url = client.get("/bkt?encoding-type=url&prefix=a%0D").await.ok();
    assert_eq!((keys(&url)[0].as_str(), url.element("EncodingType").as_deref()), ("a%0Db+c", Some("url")));
    assert_eq!(url.element("Prefix").as_deref(), Some("a%0D"));
}

#[tokio::test]
async fn every_object_is_its_only_version() {
    let server = server_with(&["a", "b", "c/1"]).await;
    let client = &server.client;
    let all = client.get("/bkt?versions").await.ok();
    assert_eq!((all.elements("Version").len(), all.elements("VersionId")), (3, vec!["null".to_owned(); 3]));
    assert!(all.text().contains("<IsLatest>true</IsLatest>"));
    let page = client.get("/bkt?versions&max-keys=1").await.ok();
    assert_eq!((page.element("NextKeyMarker").as_deref(), page.element("NextVersionIdMarker").as_deref()), (Some("a"), Some("null")));
    assert_eq!(keys(&client.get("/bkt?versions&key-marker=a&version-id-marker=null").await.ok()), ["b", "c/1"]);
    client.get("/bkt?versions&version-id-marker=null").await.is(400, "InvalidArgument");
}
