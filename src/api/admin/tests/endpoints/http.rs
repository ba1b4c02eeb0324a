//! The HTTP front: routes, tokens, probes, metrics.

use ::http::{Method, Request, Response};
use bytes::Bytes;
use garage_api_admin::{AdminHttp, AdminHttpOptions};
use serde_json::{Value, json};

use super::support::{Admin, text};

const TOKEN: &str = "Bearer admin-secret";

struct Front {
    http: AdminHttp,
    admin: Admin,
}

impl Front {
    async fn start() -> Front {
        let admin = Admin::one_node().await;
        let options = AdminHttpOptions { admin_token: Some("admin-secret".into()), ..AdminHttpOptions::default() };
        Front { http: AdminHttp::new(admin.api.clone(), options, Default::default()), admin }
    }

    async fn send(&self, method: Method, uri: &str, authorization: Option<&[u8]>, body: &str) -> Response<Bytes> {
        let mut request = Request::builder().method(method).uri(uri);
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        self.http.respond(request.body(Bytes::from(body.to_string())).unwrap()).await
    }

    async fn get(&self, uri: &str) -> (u16, String) {
        let response = self.send(Method::GET, uri, Some(TOKEN.as_bytes()), "").await;
        (response.status().as_u16(), String::from_utf8(response.body().to_vec()).unwrap())
    }
}

#[test]
fn a_call_with_the_token_answers_json_and_without_it_an_error_in_the_known_form() {
    garage_sim::run(async {
        let front = Front::start().await;
        let made = front.send(Method::POST, "/v2/CreateKey", Some(TOKEN.as_bytes()), r#"{"name": "app"}"#).await;
        assert_eq!(made.status(), 200);
        assert_eq!(made.headers()["content-type"], "application/json");
        assert_eq!(made.headers()["access-control-allow-origin"], "*");
        let made: Value = serde_json::from_slice(made.body()).unwrap();
        let (status, found) = front.get(&format!("/v2/GetKeyInfo?id={}", text(&made["accessKeyId"]))).await;
        assert!(status == 200 && found.contains("\n  \"name\": \"app\""), "{found}");
        let deleted =
            front.send(Method::POST, &format!("/v2/DeleteKey?id={}", text(&made["accessKeyId"])), Some(TOKEN.as_bytes()), "").await;
        assert_eq!((deleted.status().as_u16(), &deleted.body()[..]), (200, &b"null"[..]));

        let denied = front.send(Method::GET, "/v2/GetClusterStatus?x=1", None, "").await;
        let body: Value = serde_json::from_slice(denied.body()).unwrap();
        assert_eq!(denied.status(), 403);
        assert_eq!(
            (&body["code"], &body["region"], &body["path"]),
            (&json!("AccessDenied"), &json!("garage"), &json!("/v2/GetClusterStatus"))
        );
        assert!(body["message"].is_string() && body.as_object().unwrap().len() == 4);
    });
}

#[test]
fn what_is_malformed_is_said_before_the_token_is_looked_at() {
    garage_sim::run(async {
        let front = Front::start().await;
        let bearer = Some(TOKEN.as_bytes());
        for (method, uri, authorization, body, status, code) in [
            (Method::POST, "/v2/CreateKey", None, "{", 400, "InvalidRequest"),
            (Method::POST, "/v2/CreateKey", None, "{}", 403, "AccessDenied"),
            (Method::POST, "/v2/CreateKey", Some(&b"bearer admin-secret"[..]), "{}", 403, "AccessDenied"),
            (Method::POST, "/v2/CreateKey", Some(&b"Bearer  admin-secret"[..]), "{}", 403, "AccessDenied"),
            (Method::POST, "/v2/CreateKey", Some(&b"Bearer \xff"[..]), "{}", 400, "InvalidHeaderValue"),
            (Method::POST, "/v2/CreateKey", Some(&b"Bearer 0123.abc"[..]), "{}", 501, "NotImplemented"),
            (Method::GET, "/v2/CreateKey", bearer, "", 400, "InvalidRequest"),
            (Method::HEAD, "/health", bearer, "", 400, "InvalidRequest"),
            (Method::PUT, "/v2/CreateKey", bearer, "{}", 400, "InvalidRequest"),
            (Method::GET, "/v2/Nothing", bearer, "", 400, "InvalidRequest"),
            (Method::GET, "/v2/GetBucketInfo?id=1&id=2", None, "", 400, "InvalidRequest"),
            (Method::GET, "/v2/GetBucketInfo", bearer, "", 400, "InvalidRequest"),
            (Method::GET, "/v2/GetBucketInfo?globalAlias=photos", bearer, "", 404, "NoSuchBucket"),
            (Method::GET, "/v2/ListAdminTokens", bearer, "", 501, "NotImplemented"),
            (Method::GET, "/v1/status", bearer, "", 400, "InvalidRequest"),
            (Method::OPTIONS, "/v1/status", bearer, "", 400, "InvalidRequest"),
            (Method::GET, "/", bearer, "", 400, "InvalidRequest"),
        ] {
            let response = front.send(method.clone(), uri, authorization, body).await;
            let answer: Value = serde_json::from_slice(response.body()).unwrap();
            assert_eq!((response.status().as_u16(), text(&answer["code"])), (status, code), "{method} {uri} {authorization:?}: {answer}");
        }
    });
}

#[test]
fn browsers_may_ask_what_is_allowed() {
    garage_sim::run(async {
        let front = Front::start().await;
        let response = front.send(Method::OPTIONS, "/v2/CreateKey", None, "").await;
        assert_eq!((response.status().as_u16(), response.body().len()), (200, 0));
        for (name, value) in [
            ("allow", "OPTIONS,GET,POST"),
            ("access-control-allow-methods", "OPTIONS,GET,POST"),
            ("access-control-allow-headers", "authorization,content-type"),
            ("access-control-allow-origin", "*"),
        ] {
            assert_eq!(response.headers()[name], value);
        }
    });
}

#[test]
fn probes_need_no_token() {
    garage_sim::run(async {
        let front = Front::start().await;
        let health = front.send(Method::GET, "/health", None, "").await;
        assert_eq!(health.status(), 200);
        assert_eq!(health.headers()["content-type"], "text/plain");

        let made = front.admin.ok("CreateBucket", json!({"globalAlias": "photos"})).await;
        for (domain, expected) in
            [("photos.s3.example.com", 200), ("photos.web.example.com", 400), ("photos", 400), ("nothing.s3.example.com", 400), ("", 400)]
        {
            assert_eq!(front.send(Method::GET, &format!("/check?domain={domain}"), None, "").await.status(), expected, "{domain}");
        }
        let website = json!({"websiteAccess": {"enabled": true, "indexDocument": "index.html"}});
        front.admin.ok("UpdateBucket", json!({"id": made["id"], "body": website})).await;
        for domain in ["photos.web.example.com", "photos"] {
            assert_eq!(front.send(Method::GET, &format!("/check?domain={domain}"), None, "").await.status(), 200, "{domain}");
        }
    });
}

#[test]
fn metrics_are_written_as_dashboards_know_them() {
    garage_sim::run(async {
        let front = Front::start().await;
        front.get("/v2/GetClusterStatus").await;
        front.get("/v2/GetClusterStatus").await;
        front.get("/v2/GetBucketInfo?globalAlias=photos").await;
        front.get("/random/path/1").await;
        front.get("/random/path/2").await;
        let (status, text) = front.get("/metrics").await;
        assert_eq!(status, 200);
        let short = &front.admin.node_id()[..16];
        for line in [
            "api_admin_request_counter{api_endpoint=\"/v2/GetClusterStatus\"} 2".to_string(),
            "api_admin_request_counter{api_endpoint=\"unknown\"} 2".to_string(),
            "api_admin_error_counter{api_endpoint=\"/v2/GetBucketInfo\",status_code=\"404\"} 1".to_string(),
            "api_admin_request_duration_count{api_endpoint=\"/v2/GetClusterStatus\"} 2".to_string(),
            "garage_build_info{version=\"v0.1.0\",rustversion=\"1.95.0\"} 1".to_string(),
            "garage_replication_factor 1".to_string(),
            "cluster_healthy 1".to_string(),
            "cluster_available 1".to_string(),
            "cluster_connected_nodes 1".to_string(),
            "cluster_partitions_all_ok 256".to_string(),
            format!(
                "cluster_layout_node_connected{{id=\"{short}\",role_capacity=\"1099511627776\",role_gateway=\"0\",role_zone=\"zone0\"}} 1"
            ),
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} is missing in:\n{text}");
        }
        assert!(!text.contains("_total{") && !text.contains("# EOF"), "{text}");
    });
}
