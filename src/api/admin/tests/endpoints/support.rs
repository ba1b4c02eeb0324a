//! A simulated node with its administration interface.

use std::time::Duration;

use bytes::Bytes;
use garage_api_admin::{AdminApi, AdminOptions, ErrorCode};
use garage_model::{
    RequestContext,
    body::WholeBody,
    node::Node,
    objects::{BucketRef, WriteCondition},
    rows::bucket::{BucketRow, BucketState},
};
use garage_sim::cluster::{Cluster, ClusterOptions};
use serde_json::Value;
use tokio::time::Instant;

use super::schema::check_answer;

/// Longest time a step of a test may take, in virtual time.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster whose node 0 is administered.
pub struct Admin {
    pub cluster: Cluster,
    pub api: AdminApi,
}

pub fn options() -> AdminOptions {
    AdminOptions {
        version: "v0.1.0".into(),
        features: Some(vec!["fjall".into()]),
        rust_version: "1.95.0".into(),
        db_engine: "memory".into(),
        region: "garage".into(),
        s3_endpoint: Some("https://s3.example.com".into()),
        s3_path_style: true,
        s3_root_domain: Some(".s3.example.com".into()),
        web_root_domain: Some("web.example.com".into()),
        k2v_endpoint: None,
    }
}

impl Admin {
    /// One node that holds everything.
    pub async fn one_node() -> Admin {
        Admin::start(ClusterOptions {
            node_count: 1,
            zone_count: 1,
            replication_factor: 1,
            ..ClusterOptions::exact(Duration::from_millis(1))
        })
        .await
    }

    pub async fn start(cluster: ClusterOptions) -> Admin {
        let register = |node: &Node, router| AdminApi::new(node.clone(), options()).register(router);
        let cluster = Cluster::start_with(1, cluster, register).await;
        let api = AdminApi::new(cluster.node(0).clone(), options());
        Admin { cluster, api }
    }

    /// Administers node 0 as it is now, after it was started again.
    pub fn readminister(&mut self) {
        self.api = AdminApi::new(self.cluster.node(0).clone(), options());
    }

    /// An answer, which is of the documented shape.
    pub async fn ok(&self, endpoint: &str, payload: Value) -> Value {
        let answer = self.api.call(endpoint, payload.clone()).await;
        let answer = answer.unwrap_or_else(|error| panic!("{endpoint} {payload}: {error}"));
        check_answer(endpoint, &answer);
        answer
    }

    /// A refusal with this code whose sentence holds these words.
    pub async fn refused(&self, endpoint: &str, payload: Value, code: ErrorCode, words: &str) {
        let error = match self.api.call(endpoint, payload.clone()).await {
            Err(error) => error,
            Ok(answer) => panic!("{endpoint} {payload} was not refused: {answer}"),
        };
        assert_eq!(error.code, code, "{endpoint} {payload}: {error}");
        assert!(error.message.contains(words), "{endpoint} {payload}: {error}");
    }

    pub fn node_id(&self) -> String {
        self.api.node().cluster.local().to_string()
    }

    /// The bucket of an answer, for the paths over objects.
    pub async fn bucket_ref(&self, bucket: &Value) -> BucketRef {
        let id = text(&bucket["id"]).parse().expect("an answer holds a bucket id");
        let view = self.api.node().access.buckets().get(id, context()).await.expect("the only node answers");
        let view = view.expect("the bucket exists");
        assert!(matches!(view.row, BucketRow { state: BucketState::Live, .. }));
        view.as_ref()
    }

    pub async fn put_object(&self, bucket: &BucketRef, key: &str, len_bytes: usize) {
        let body = Box::new(WholeBody::new(Bytes::from(vec![7; len_bytes])));
        let always = WriteCondition::default();
        self.api.node().objects.put(bucket, key, Default::default(), body, &always, context()).await.expect("the only node answers");
    }
}

pub fn context() -> RequestContext {
    RequestContext { deadline: Instant::now() + PATIENCE, trace: 0 }
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is not text"))
}
