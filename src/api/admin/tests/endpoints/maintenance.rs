//! Workers, their settings, repairs and blocks, as an operator sees them.

use std::time::Duration;

use garage_sim::cluster::ClusterOptions;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::support::{Admin, text};

async fn three_nodes() -> Admin {
    Admin::start(ClusterOptions::exact(Duration::from_millis(1))).await
}

/// What this node answered.
async fn here(admin: &Admin, endpoint: &str, body: Value) -> Value {
    let answer = admin.ok(endpoint, json!({"node": "self", "body": body})).await;
    answer["success"].get(admin.node_id()).cloned().unwrap_or_else(|| panic!("{endpoint}: {answer}"))
}

/// Why it did not.
async fn error_here(admin: &Admin, endpoint: &str, body: Value) -> String {
    let answer = admin.ok(endpoint, json!({"node": "self", "body": body})).await;
    text(&answer["error"][admin.node_id()]).to_string()
}

fn named<'a>(workers: &'a Value, name: &str) -> &'a Value {
    workers.as_array().unwrap().iter().find(|worker| worker["name"] == name).unwrap_or_else(|| panic!("{name} in {workers}"))
}

/// A block of an object that was just stored.
async fn a_block(admin: &Admin, key: &str) -> String {
    let bucket = admin.ok("CreateBucket", json!({"globalAlias": "blocks"})).await;
    let bucket = admin.bucket_ref(&bucket).await;
    admin.put_object(&bucket, key, 100_000).await;
    sleep(Duration::from_secs(5)).await;
    let paths = admin.cluster.disk(0).paths();
    let name = paths.iter().filter_map(|path| path.file_name()?.to_str()).find(|name| 64 <= name.len()).expect("it is stored as a block");
    name.split('.').next().unwrap().to_string()
}

#[test]
fn workers_are_listed_with_their_state_and_found_by_number() {
    garage_sim::run(async {
        let admin = three_nodes().await;
        sleep(Duration::from_secs(60)).await;
        let workers = here(&admin, "ListWorkers", json!({})).await;
        for name in ["Block resync worker #1", "Block resync worker #8", "Block resync queue deferred worker", "Block scrub worker"] {
            assert_eq!(named(&workers, name)["state"], "idle", "{name}");
        }
        let scrub = named(&workers, "Block scrub worker");
        assert_eq!(&here(&admin, "GetWorkerInfo", json!({"id": scrub["id"]})).await, scrub);
        assert_eq!(here(&admin, "ListWorkers", json!({"errorOnly": true})).await, json!([]));
        let error = error_here(&admin, "GetWorkerInfo", json!({"id": 9999})).await;
        assert!(error.starts_with("NoSuchWorker (404)"), "{error}");
    });
}

#[test]
fn settings_are_changed_within_their_bounds_and_kept_over_a_restart() {
    garage_sim::run(async {
        let mut admin = three_nodes().await;
        let defaults = here(&admin, "GetWorkerVariable", json!({})).await;
        assert_eq!(
            (&defaults["resync-worker-count"], &defaults["resync-tranquility"], &defaults["scrub-tranquility"]),
            (&json!("1"), &json!("2"), &json!("4"))
        );
        assert_eq!((&defaults["scrub-last-completed"], &defaults["scrub-corruptions_detected"]), (&json!("never"), &json!("0")));
        for (name, value) in [("resync-worker-count", "8"), ("resync-tranquility", "0"), ("scrub-tranquility", "9")] {
            let set = here(&admin, "SetWorkerVariable", json!({"variable": name, "value": value})).await;
            assert_eq!(set, json!({"variable": name, "value": value}));
        }
        for (name, value) in [
            ("resync-worker-count", "9"),
            ("resync-worker-count", "0"),
            ("scrub-tranquility", "much"),
            ("scrub-next-run", "now"),
            ("no-such-variable", "1"),
        ] {
            let error = error_here(&admin, "SetWorkerVariable", json!({"variable": name, "value": value})).await;
            assert!(error.starts_with("InternalError (500)"), "{name}={value}: {error}");
        }
        assert!(error_here(&admin, "GetWorkerVariable", json!({"variable": "nonsense"})).await.contains("there is no variable"));
        admin.cluster.crash(0);
        admin.cluster.restart(0).await;
        admin.readminister();
        let kept = here(&admin, "GetWorkerVariable", json!({})).await;
        assert_eq!(
            (&kept["resync-worker-count"], &kept["resync-tranquility"], &kept["scrub-tranquility"]),
            (&json!("8"), &json!("0"), &json!("9"))
        );
    });
}

#[test]
fn repairs_begin_on_all_nodes_and_the_scrub_obeys() {
    garage_sim::run(async {
        let admin = three_nodes().await;
        for repair in ["blocks", "versions", "multipartUploads", "blockRefs", "blockRc", "rebalance", "clearResyncQueue"] {
            let answer = admin.ok("LaunchRepairOperation", json!({"node": "*", "body": {"repairType": repair}})).await;
            assert_eq!(answer["success"].as_object().unwrap().len(), 3, "{repair}: {answer}");
            sleep(Duration::from_secs(60)).await;
        }
        let workers = here(&admin, "ListWorkers", json!({})).await;
        for name in ["Block repair worker", "Block rebalance worker", "version repair worker", "block_ref repair worker"] {
            assert_eq!(named(&workers, name)["state"], "done", "{name}");
        }
        let scrub = async |command: &str| {
            admin.ok("LaunchRepairOperation", json!({"node": "self", "body": {"repairType": {"scrub": command}}})).await
        };
        let refused = scrub("pause").await;
        assert!(text(&refused["error"][admin.node_id()]).contains("no scrub is running"), "{refused}");
        assert_eq!(scrub("start").await["error"], json!({}));
        sleep(Duration::from_secs(60)).await;
        let completed = here(&admin, "GetWorkerVariable", json!({"variable": "scrub-last-completed"})).await;
        assert!(text(&completed["scrub-last-completed"]).starts_with("2023-11-"), "{completed}");
    });
}

#[test]
fn a_block_tells_who_needs_it_and_one_that_is_lost_can_be_given_up() {
    garage_sim::run(async {
        let admin = three_nodes().await;
        let hash = a_block(&admin, "photos/a.jpg").await;
        for name in [&hash[..], &hash[..6]] {
            let info = here(&admin, "GetBlockInfo", json!({"blockHash": name})).await;
            assert_eq!((&info["blockHash"], &info["refcount"]), (&json!(hash), &json!(1)), "{info}");
            assert_eq!(info["versions"][0]["backlink"]["object"]["key"], "photos/a.jpg");
            assert_eq!((&info["versions"][0]["refDeleted"], &info["versions"][0]["versionDeleted"]), (&json!(false), &json!(false)));
        }
        assert!(error_here(&admin, "GetBlockInfo", json!({"blockHash": "0000ffff"})).await.starts_with("NoSuchBlock (404)"));
        assert!(error_here(&admin, "GetBlockInfo", json!({"blockHash": "abc"})).await.starts_with("InvalidRequest (400)"));

        for node in 0..3 {
            let files: Vec<_> =
                admin.cluster.disk(node).paths().into_iter().filter(|path| path.to_string_lossy().contains(&hash)).collect();
            files.iter().for_each(|file| admin.cluster.disk(node).wipe_dir(file));
        }
        let repair = json!({"node": "*", "body": {"repairType": "blocks"}});
        admin.ok("LaunchRepairOperation", repair).await;
        sleep(Duration::from_secs(50)).await;
        let errors = here(&admin, "ListBlockErrors", Value::Null).await;
        assert_eq!((&errors[0]["blockHash"], &errors[0]["refcount"]), (&json!(hash), &json!(1)), "{errors}");
        assert!(1 <= errors[0]["errorCount"].as_u64().unwrap() && errors[0]["nextTryInSecs"].as_u64().unwrap() <= 120, "{errors}");
        assert_eq!(here(&admin, "RetryBlockResync", json!({"all": true})).await["count"], errors.as_array().unwrap().len());
        assert!(error_here(&admin, "RetryBlockResync", json!({"all": false})).await.starts_with("InvalidRequest (400)"));
        let other = "ab".repeat(32);
        assert!(error_here(&admin, "RetryBlockResync", json!({"blockHashes": [other]})).await.starts_with("InternalError (500)"));

        let purged = here(&admin, "PurgeBlocks", json!([hash])).await;
        assert_eq!(
            (&purged["blocksPurged"], &purged["objectsDeleted"], &purged["blockRefsPurged"]),
            (&json!(1), &json!(1), &json!(1)),
            "{purged}"
        );
        let bucket = admin.ok("GetBucketInfo", json!({"globalAlias": "blocks"})).await;
        let bucket = admin.bucket_ref(&bucket).await;
        let found = admin.api.node().objects.head(&bucket, "photos/a.jpg", super::support::context()).await.unwrap();
        assert!(found.is_none(), "the object that needed it is gone");
    });
}

#[test]
fn a_node_without_a_place_for_snapshots_says_so() {
    garage_sim::run(async {
        let admin = three_nodes().await;
        let error = error_here(&admin, "CreateMetadataSnapshot", Value::Null).await;
        assert!(error.contains("no directory for snapshots"), "{error}");
    });
}
