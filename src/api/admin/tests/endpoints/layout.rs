//! The layout.

use garage_api_admin::ErrorCode;
use serde_json::{Value, json};

use super::support::Admin;

fn other_node() -> String {
    "ab".repeat(32)
}

#[test]
fn the_layout_shows_roles_and_what_is_staged_until_it_is_reverted() {
    garage_sim::run(async {
        let admin = Admin::one_node().await;
        let id = admin.node_id();
        let layout = admin.ok("GetClusterLayout", Value::Null).await;
        assert_eq!((&layout["version"], &layout["parameters"]), (&json!(1), &json!({"zoneRedundancy": "maximum"})));
        assert_eq!((&layout["roles"][0]["id"], &layout["roles"][0]["storedPartitions"]), (&json!(id), &json!(256)));
        let usable = layout["partitionSize"].as_u64().unwrap() * 256;
        assert_eq!(layout["roles"][0]["usableCapacity"], usable);

        let role = json!({"id": other_node(), "zone": "z2", "tags": ["ssd"], "capacity": 1 << 30});
        let update = json!({"roles": [role], "parameters": {"zoneRedundancy": {"atLeast": 1}}});
        let staged = admin.ok("UpdateClusterLayout", update).await;
        assert_eq!(staged["stagedRoleChanges"], json!([role]));
        assert_eq!(staged["stagedParameters"], json!({"zoneRedundancy": {"atLeast": 1}}));
        assert_eq!(staged["roles"], layout["roles"]);
        assert_eq!(admin.ok("GetClusterLayout", Value::Null).await, staged);

        let same = json!({"roles": [{"id": id, "zone": "zone0", "tags": [], "capacity": 1u64 << 40}], "parameters": null});
        assert_eq!(admin.ok("UpdateClusterLayout", same).await, staged, "a role as it is already is no change");
        assert_eq!(admin.ok("RevertClusterLayout", Value::Null).await, layout);
    });
}

#[test]
fn a_wrong_update_stages_nothing() {
    garage_sim::run(async {
        let admin = Admin::one_node().await;
        let before = admin.ok("GetClusterLayout", Value::Null).await;
        let good = json!({"id": other_node(), "zone": "z2", "tags": [], "capacity": 2048});
        for (wrong, words) in [
            (json!({"roles": [good, {"id": "abcd", "zone": "z", "tags": []}]}), "64 hexadecimal"),
            (json!({"roles": [good, {"id": "cd".repeat(32), "zone": "z", "tags": [], "capacity": 1023}]}), "at least 1024"),
            (json!({"roles": [good, {"id": "cd".repeat(32), "zone": "", "tags": []}]}), "zone"),
            (json!({"roles": [good, {"id": "cd".repeat(32), "remove": false, "zone": "z", "tags": []}]}), "remove"),
            (json!({"roles": [good, {"id": "cd".repeat(32)}]}), ""),
            (json!({"roles": [good], "parameters": {"zoneRedundancy": {"atLeast": 0}}}), "out of range"),
            (json!({"roles": [good], "parameters": {"zoneRedundancy": {"atLeast": 2}}}), "out of range"),
        ] {
            admin.refused("UpdateClusterLayout", wrong, ErrorCode::InvalidRequest, words).await;
        }
        assert_eq!(admin.ok("GetClusterLayout", Value::Null).await, before);
    });
}

#[test]
fn a_preview_tells_what_applying_gives_and_applying_gives_it() {
    garage_sim::run(async {
        let admin = Admin::one_node().await;
        let gateway = json!({"id": other_node(), "zone": "edge", "tags": [], "capacity": null});
        admin.ok("UpdateClusterLayout", json!({"roles": [gateway]})).await;
        let preview = admin.ok("PreviewClusterLayoutChanges", Value::Null).await;
        assert_eq!((&preview["newLayout"]["version"], &preview["newLayout"]["stagedRoleChanges"]), (&json!(2), &json!([])));
        assert_eq!(preview["statistics"]["totalMovedPartitions"], 0);
        assert!(preview["message"].as_array().unwrap().iter().any(|line| line.as_str().unwrap().contains("Optimal partition size")));

        admin.refused("ApplyClusterLayout", json!({"version": 1}), ErrorCode::InternalError, "the next one is 2").await;
        admin.refused("ApplyClusterLayout", json!({"version": 3}), ErrorCode::InternalError, "the next one is 2").await;
        let applied = admin.ok("ApplyClusterLayout", json!({"version": 2})).await;
        assert_eq!(applied["layout"], preview["newLayout"]);
        assert_eq!(applied["message"], preview["message"]);
        let gateway = applied["layout"]["roles"].as_array().unwrap().iter().find(|role| role["id"] == other_node()).unwrap();
        assert_eq!((&gateway["capacity"], &gateway["storedPartitions"], &gateway["usableCapacity"]), (&Value::Null, &json!(0), &json!(0)));
    });
}

#[test]
fn a_layout_that_cannot_be_computed_is_an_answer_of_the_preview_and_a_failure_of_applying() {
    garage_sim::run(async {
        let admin = Admin::one_node().await;
        admin.ok("UpdateClusterLayout", json!({"roles": [{"id": admin.node_id(), "remove": true}]})).await;
        let preview = admin.ok("PreviewClusterLayoutChanges", Value::Null).await;
        assert!(preview["error"].as_str().unwrap().contains("needs 1 storage nodes"), "{preview}");
        admin.refused("ApplyClusterLayout", json!({"version": 2}), ErrorCode::InternalError, "storage nodes").await;
    });
}

#[test]
fn the_history_is_told_newest_first() {
    garage_sim::run(async {
        let admin = Admin::one_node().await;
        admin.ok("ApplyClusterLayout", json!({"version": 2})).await;
        // It is acknowledged once nothing that began before is under way.
        admin.cluster.await_condition("the version is acknowledged", |cluster| cluster.node(0).cluster.layout().min_ack() == 2).await;
        let history = admin.ok("GetClusterLayoutHistory", Value::Null).await;
        assert_eq!((&history["currentVersion"], &history["minAck"], &history["updateTrackers"]), (&json!(2), &json!(2), &Value::Null));
        assert_eq!(history["versions"][0], json!({"version": 2, "status": "Current", "storageNodes": 1, "gatewayNodes": 0}));
        assert_eq!((&history["versions"][1]["version"], &history["versions"][1]["status"]), (&json!(1), &json!("Historical")));
    });
}

#[test]
fn dead_nodes_are_skipped_only_while_a_change_waits_for_them() {
    garage_sim::run(async {
        let admin = Admin::one_node().await;
        let skip = |version: u64, allow: bool| json!({"version": version, "allowMissingData": allow});
        admin.refused("ClusterLayoutSkipDeadNodes", skip(1, false), ErrorCode::InvalidRequest, "only one layout version").await;

        // A storage node that never answers holds the change up.
        let dead = json!({"id": other_node(), "zone": "zone0", "tags": [], "capacity": 1u64 << 40});
        admin.ok("UpdateClusterLayout", json!({"roles": [dead]})).await;
        admin.ok("ApplyClusterLayout", json!({"version": 2})).await;
        let history = admin.ok("GetClusterLayoutHistory", Value::Null).await;
        assert_eq!(history["updateTrackers"][other_node()]["ack"], 0, "{history}");
        admin.refused("ClusterLayoutSkipDeadNodes", skip(1, false), ErrorCode::InvalidRequest, "give one from 2 to 2").await;
        let skipped = admin.ok("ClusterLayoutSkipDeadNodes", skip(2, false)).await;
        assert_eq!(skipped, json!({"ackUpdated": [other_node()], "syncUpdated": []}));
    });
}
