//! A simulated cluster whose nodes serve websites, and a browser.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use garage_api_common::http::{HttpService, Peer, RequestBody, RequestContext as Connection, RequestIds};
use garage_model::{
    RequestContext,
    access::BucketView,
    body::WholeBody,
    objects::WriteCondition,
    rows::{
        bucket::{BucketRow, Website},
        object::ObjectHeaders,
    },
};
use garage_sim::cluster::{Cluster, ClusterOptions};
use garage_table::control::Effect;
use garage_web::{WebMetrics, WebOptions, WebServer};
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use tokio::time::Instant;

/// Longest time a step of a test may take, in virtual time.
const PATIENCE: Duration = Duration::from_secs(60);
pub const ROOT_DOMAIN: &str = ".web.tld";

pub fn context() -> RequestContext {
    RequestContext { deadline: Instant::now() + PATIENCE, trace: 0 }
}

/// A cluster with a website: bucket `site`, index document `index.html`, error document `oops.html`, neither of them uploaded.
pub struct Sites {
    pub cluster: Cluster,
    pub bucket: BucketView,
}

/// An answer, read to its end.
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
    /// Checks status and body.
    #[track_caller]
    pub fn is(&self, status: u16, body: &str) {
        assert_eq!((self.status, self.text()), (status, body));
    }
    /// Checks status and place of a redirect.
    #[track_caller]
    pub fn goes(&self, status: u16, location: &str) {
        assert_eq!((self.status, self.header("location"), self.body.len()), (status, Some(location), 0));
    }
}

impl Sites {
    pub async fn one_node() -> Sites {
        let one = ClusterOptions { node_count: 1, zone_count: 1, replication_factor: 1, ..ClusterOptions::exact(Duration::from_millis(1)) };
        Sites::start(one).await
    }

    pub async fn start(options: ClusterOptions) -> Sites {
        let cluster = Cluster::start(1, options).await;
        let bucket = cluster.node(0).access.buckets().create("site", None, context()).await.unwrap();
        let sites = Sites { cluster, bucket };
        let website = Website {
            index_document: "index.html".into(),
            error_document: Some("oops.html".into()),
            routing_rules: Vec::new(),
            redirect_all: false,
        };
        sites.change(|row| row.website = Some(website.clone())).await;
        sites
    }

    /// Changes the site's bucket, as something that takes rights away.
    pub async fn change(&self, mut change: impl FnMut(&mut BucketRow) + Send) {
        let changed = self.cluster.node(0).access.buckets().change(self.bucket.id, Effect::Restricts, context(), |row| {
            change(row);
            Ok(())
        });
        changed.await.unwrap();
    }

    pub async fn put(&self, key: &str, body: &str) {
        self.put_with(key, body.as_bytes(), ObjectHeaders::default()).await;
    }

    pub async fn put_with(&self, key: &str, body: &[u8], headers: ObjectHeaders) {
        let body = Box::new(WholeBody::new(Bytes::copy_from_slice(body)));
        let (bucket, always) = (self.bucket.as_ref(), WriteCondition::default());
        self.cluster.node(0).objects.put(&bucket, key, headers, body, &always, context()).await.unwrap();
    }

    /// Asks a node.
    pub async fn ask(&self, node: usize, method: &str, host: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let node = self.cluster.node(node);
        let metrics = WebMetrics::new(&mut Default::default(), false);
        let options = WebOptions { root_domain: Some(ROOT_DOMAIN.into()) };
        let runtime = node.cluster.runtime().clone();
        let server = WebServer::new(options, runtime.clone(), node.access.buckets().clone(), node.objects.clone(), metrics);
        let mut request = Request::builder().method(method).uri(path).header("host", host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let ids = RequestIds { request_id: "R".into(), host_id: "H".into() };
        let connection = Connection { peer: Peer::Unix, tls: None, ids };
        let response = Arc::new(server).serve(request.body(RequestBody::none(runtime)).unwrap(), connection).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// GET of the site by its name under the root domain, at the first node.
    pub async fn get(&self, path: &str) -> Answer {
        self.ask(0, "GET", "site.web.tld", path, &[]).await
    }
    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask(0, "GET", "site.web.tld", path, headers).await
    }
    pub async fn head(&self, path: &str) -> Answer {
        self.ask(0, "HEAD", "site.web.tld", path, &[]).await
    }
}
