//! The cluster and its nodes.

use std::time::Duration;

use garage_api_admin::{AdminCall, ENDPOINTS, ErrorCode};
use garage_rpc::{
    CallOptions,
    membership::{SpaceLeft, SpaceReport},
};
use garage_sim::cluster::ClusterOptions;
use serde_json::{Value, json};

use super::support::Admin;

#[test]
fn the_status_lists_nodes_by_id_with_roles_and_space() {
    garage_sim::run(async {
        let admin = Admin::start(ClusterOptions::exact(Duration::from_millis(1))).await;
        let left = |available_bytes| Some(SpaceLeft { available_bytes, total_bytes: 1000 });
        admin.api.node().cluster.report_space(SpaceReport { data: left(300), metadata: left(200) });
        let status = admin.ok("GetClusterStatus", Value::Null).await;
        let ids: Vec<String> = (0..3).map(|index| admin.cluster.id(index).to_string()).collect();
        assert_eq!(status["layoutVersion"], 1);
        for (index, node) in status["nodes"].as_array().unwrap().iter().enumerate() {
            assert_eq!((&node["id"], &node["isUp"], &node["draining"]), (&json!(ids[index]), &json!(true), &json!(false)));
            assert_eq!(node["role"]["zone"], format!("zone{index}"));
        }
        assert_eq!(status["nodes"][0]["dataPartition"], json!({"available": 300, "total": 1000}));
        let statistics = admin.ok("GetClusterStatistics", Value::Null).await;
        assert_eq!((&statistics["dataAvail"], &statistics["incompleteAvailInfo"]), (&json!(300), &json!(true)));
        assert!(statistics["freeform"].as_str().unwrap().contains("Number of buckets: 0"));
    });
}

#[test]
fn health_falls_from_healthy_to_degraded_to_unavailable_as_nodes_go() {
    garage_sim::run(async {
        let mut admin = Admin::start(ClusterOptions::exact(Duration::from_millis(1))).await;
        let expected = |up: u64, status: &str, quorum: u64, all_ok: u64| {
            json!({
                "status": status, "knownNodes": 3, "connectedNodes": up, "storageNodes": 3, "storageNodesUp": up,
                "partitions": 256, "partitionsQuorum": quorum, "partitionsAllOk": all_ok,
            })
        };
        assert_eq!(admin.ok("GetClusterHealth", Value::Null).await, expected(3, "healthy", 256, 256));
        for (lost, up, status, quorum) in [(1, 2, "degraded", 256), (2, 1, "unavailable", 0)] {
            admin.cluster.crash(lost);
            let id = admin.cluster.id(lost);
            admin.cluster.await_condition("the loss is noticed", |cluster| !cluster.node(0).cluster.is_up(id)).await;
            assert_eq!(admin.ok("GetClusterHealth", Value::Null).await, expected(up, status, quorum, 0));
        }
        let status = admin.ok("GetClusterStatus", Value::Null).await;
        assert_eq!((&status["nodes"][2]["isUp"], &status["nodes"][2]["role"]["zone"]), (&json!(false), &json!("zone2")));
    });
}

#[test]
fn without_a_quorum_a_call_ends_as_unavailable_within_its_time() {
    garage_sim::run(async {
        let mut admin = Admin::start(ClusterOptions::exact(Duration::from_millis(1))).await;
        admin.cluster.crash(1);
        admin.cluster.crash(2);
        let begun = tokio::time::Instant::now();
        admin.refused("CreateKey", json!({}), ErrorCode::ServiceUnavailable, "").await;
        assert!(begun.elapsed() <= garage_api_admin::limits::REQUEST_TIMEOUT);
    });
}

#[test]
fn connecting_answers_for_each_node_in_order() {
    garage_sim::run(async {
        let admin = Admin::one_node().await;
        let own = format!("{}@10.0.0.1:3901", admin.node_id());
        let nobody = format!("{}@10.0.0.99:3901", "cd".repeat(32));
        let answers = admin.ok("ConnectClusterNodes", json!([own, nobody, "nonsense", "abcd@10.0.0.1:3901"])).await;
        let successes: Vec<&Value> = answers.as_array().unwrap().iter().map(|answer| &answer["success"]).collect();
        assert_eq!(successes, [&json!(true), &json!(false), &json!(false), &json!(false)], "{answers}");
        assert_eq!(answers[0]["error"], Value::Null);
        assert!(answers[2]["error"].as_str().unwrap().contains("<id>@<host>:<port>"));
    });
}

#[test]
fn a_node_tells_what_it_is() {
    garage_sim::run(async {
        let admin = Admin::one_node().await;
        let id = admin.node_id();
        for node in ["self", "*", &id, &id[..5]] {
            let answers = admin.ok("GetNodeInfo", json!({"node": node})).await;
            assert_eq!(answers["error"], json!({}), "{node}");
            let info = &answers["success"][&id];
            assert_eq!((&info["nodeId"], &info["garageVersion"], &info["isUp"]), (&json!(id), &json!("v0.1.0"), &json!(true)));
            let connection = json!({"region": "garage", "s3Endpoint": "https://s3.example.com", "s3UsePathStyle": true});
            assert_eq!(info["connectionParameters"], connection);
        }
        let answers = admin.ok("GetNodeStatistics", json!({"node": "self"})).await;
        assert!(answers["success"][&id]["freeform"].is_string(), "{answers}");
        for (node, words) in [("", "beginning of a node id"), ("ffff", "0 nodes match")] {
            admin.refused("GetNodeInfo", json!({"node": node}), ErrorCode::InvalidRequest, words).await;
        }
    });
}

#[test]
fn each_node_asked_answers_or_fails_for_itself() {
    garage_sim::run(async {
        let mut admin = Admin::start(ClusterOptions::exact(Duration::from_millis(1))).await;
        let ids: Vec<String> = (0..3).map(|index| admin.cluster.id(index).to_string()).collect();
        let answers = admin.ok("GetNodeInfo", json!({"node": "*"})).await;
        for (index, id) in ids.iter().enumerate() {
            assert_eq!(
                (&answers["success"][id]["nodeId"], &answers["success"][id]["role"]["zone"]),
                (&json!(id), &json!(format!("zone{index}")))
            );
        }
        let one = admin.ok("GetNodeStatistics", json!({"node": ids[2][..6]})).await;
        assert_eq!(one["success"].as_object().unwrap().keys().collect::<Vec<_>>(), [&ids[2]]);

        admin.cluster.crash(1);
        let answers = admin.ok("GetNodeInfo", json!({"node": "*"})).await;
        assert_eq!(answers["success"].as_object().unwrap().keys().collect::<Vec<_>>(), [&ids[0], &ids[2]]);
        assert!(answers["error"][&ids[1]].is_string(), "{answers}");
    });
}

#[test]
fn a_node_answers_calls_of_others_as_it_answers_its_own() {
    garage_sim::run(async {
        let admin = Admin::start(ClusterOptions::exact(Duration::from_millis(1))).await;
        let (from, to) = (&admin.cluster.node(1).cluster, admin.cluster.id(0));
        let call = async |endpoint: &str, body: &'static str| {
            let call = AdminCall { endpoint: endpoint.into(), body: body.as_bytes().into() };
            from.call(to, &call, CallOptions::within(Duration::from_secs(60))).await.unwrap().into_value()
        };
        let made = call("CreateBucket", r#"{"globalAlias": "photos"}"#).await.unwrap();
        assert_eq!(admin.ok("GetBucketInfo", json!({"globalAlias": "photos"})).await, made);
        for (endpoint, body, code) in [
            ("CreateBucket", r#"{"globalAlias": "photos"}"#, ErrorCode::BucketAlreadyExists),
            ("CreateBucket", "{", ErrorCode::InvalidRequest),
            ("CreateBucket", "[]", ErrorCode::InvalidRequest),
            ("InspectObject", "null", ErrorCode::NotImplemented),
        ] {
            assert_eq!(call(endpoint, body).await.unwrap_err().code, code, "{endpoint} {body}");
        }
    });
}

#[test]
fn what_this_release_cannot_do_says_so_by_name() {
    garage_sim::run(async {
        let admin = Admin::one_node().await;
        for endpoint in ["ListAdminTokens", "CreateAdminToken", "GetCurrentAdminTokenInfo", "InspectObject"] {
            assert!(ENDPOINTS.iter().any(|known| known.name == endpoint), "{endpoint}");
            admin.refused(endpoint, json!({}), ErrorCode::NotImplemented, endpoint).await;
        }
        admin.refused("NoSuchEndpoint", json!({}), ErrorCode::InvalidRequest, "NoSuchEndpoint").await;
    });
}
