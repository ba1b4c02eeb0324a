//! What commands ask and print.

use garage_api_admin::{AdminError, ErrorCode};
use serde_json::{Value, json};

use super::fake::Fake;

fn node_id(digit: &str) -> String {
    digit.repeat(64)
}

fn status() -> Value {
    let up = |id: &str, role: Value| {
        json!({"id": id, "garageVersion": "v0.1.0", "addr": "10.0.0.1:3901", "hostname": "host", "isUp": true, "lastSeenSecsAgo": null, "role": role,
            "draining": false, "dataPartition": {"available": 68u64 << 30, "total": 250u64 << 30}, "resyncQueueLen": 3})
    };
    let mut down = up(&node_id("c"), json!({"zone": "dc2", "tags": [], "capacity": null}));
    down["isUp"] = json!(false);
    down["lastSeenSecsAgo"] = json!(7_300);
    json!({"layoutVersion": 1, "nodes": [
        up(&node_id("a"), json!({"zone": "dc1", "tags": ["x", "y"], "capacity": 10u64 << 30})),
        up(&node_id("b"), Value::Null),
        down,
    ]})
}

fn layout(staged: Value) -> Value {
    json!({"version": 1, "roles": [{"id": node_id("a"), "zone": "dc1", "tags": ["x", "y"], "capacity": 10u64 << 30, "storedPartitions": 256, "usableCapacity": 10u64 << 30}],
        "parameters": {"zoneRedundancy": "maximum"}, "partitionSize": 40 << 20, "stagedRoleChanges": staged, "stagedParameters": null})
}

fn bucket() -> Value {
    json!({"id": node_id("5"), "created": "2025-01-31T10:00:00Z", "globalAliases": ["photos"], "websiteAccess": true,
        "websiteConfig": {"indexDocument": "index.html", "errorDocument": "oops.html"},
        "keys": [{"accessKeyId": "GK1", "name": "app", "permissions": {"read": true, "write": false, "owner": true}, "bucketLocalAliases": []}],
        "objects": 2, "bytes": 3_000_000, "unfinishedUploads": 0, "unfinishedMultipartUploads": 0, "unfinishedMultipartUploadParts": 0,
        "unfinishedMultipartUploadBytes": 0, "quotas": {"maxSize": 10_000, "maxObjects": 5}})
}

fn key() -> Value {
    json!({"accessKeyId": "GK1", "created": "2025-01-31T10:00:00Z", "name": "app", "expiration": null, "expired": false,
        "permissions": {"createBucket": false}, "buckets": [{"id": node_id("5"), "globalAliases": ["photos"], "localAliases": [],
        "permissions": {"read": true, "write": true, "owner": false}}]})
}

fn cluster() -> Fake {
    Fake::default()
        .answering("GetClusterStatus", status())
        .answering("GetClusterLayout", layout(json!([])))
        .answering("UpdateClusterLayout", layout(json!([])))
}

fn buckets() -> Fake {
    ["GetBucketInfo", "CreateBucket", "UpdateBucket", "AllowBucketKey", "DenyBucketKey", "AddBucketAlias", "RemoveBucketAlias"]
        .into_iter()
        .fold(Fake::default().answering("GetKeyInfo", key()), |fake, endpoint| fake.answering(endpoint, bucket()))
}

#[test]
fn status_shows_healthy_and_failed_nodes_in_aligned_columns() {
    let expected = "\
==== HEALTHY NODES ====
ID                Hostname  Address        Tags   Zone  Capacity          DataAvail         ResyncQueue  Version
aaaaaaaaaaaaaaaa  host      10.0.0.1:3901  [x,y]  dc1   10.0 GiB          68.0 GiB (27.2%)  3            v0.1.0
bbbbbbbbbbbbbbbb  host      10.0.0.1:3901               NO ROLE ASSIGNED                                 v0.1.0

==== FAILED NODES ====
ID                Hostname  Tags  Zone  Capacity  Last seen
cccccccccccccccc  host      []    dc2   gateway   2 hours ago
";
    assert_eq!(cluster().run("status").unwrap().stdout, expected);
}

#[test]
fn health_fails_only_when_the_cluster_cannot_serve() {
    for (status, code) in [("healthy", 0), ("degraded", 0), ("unavailable", 1)] {
        let answer = json!({"status": status, "knownNodes": 3, "connectedNodes": 3, "storageNodes": 3, "storageNodesUp": 2, "partitions": 256,
            "partitionsQuorum": 256, "partitionsAllOk": 0});
        let fake = Fake::default().answering("GetClusterHealth", answer);
        let out = fake.run("health").unwrap();
        assert_eq!(out.exit_code, code, "{status}");
        assert!(out.stdout.starts_with(&format!("Cluster health:            {}\n", status.to_uppercase())), "{}", out.stdout);
        assert_eq!(fake.run("health -q").unwrap().stdout, "");
    }
}

#[test]
fn layout_assign_fills_what_is_left_open_from_the_current_role() {
    let fake = cluster();
    fake.run("layout assign aaaa -c 2GiB").unwrap();
    assert_eq!(
        fake.asked("UpdateClusterLayout"),
        json!({"roles": [{"id": node_id("a"), "zone": "dc1", "tags": ["x", "y"], "capacity": 2u64 << 30}]})
    );
    fake.run("layout assign bbbb -z dc2 -g --replace aaaa").unwrap();
    let roles = json!([{"id": node_id("a"), "remove": true}, {"id": node_id("b"), "zone": "dc2", "tags": [], "capacity": null}]);
    assert_eq!(fake.asked("UpdateClusterLayout")["roles"], roles);
    for (line, expected) in [
        ("layout assign dead -z dc1 -g", "0 nodes match 'dead'"),
        ("layout assign bbbb -g", "its zone is needed"),
        ("layout assign bbbb -z dc1", "-c SIZE is needed"),
        ("layout assign bbbb -z dc1 -c 10", "too small"),
        ("layout assign -z dc1 -c 1G", "no node is named"),
    ] {
        let error = fake.run(line).unwrap_err();
        assert!(error.contains(expected), "{line}: {error}");
    }
}

#[test]
fn layout_show_ends_with_the_command_that_applies() {
    let staged = json!([{"id": node_id("b"), "zone": "dc1", "tags": [], "capacity": null}, {"id": node_id("a"), "remove": true}]);
    let preview = json!({"message": ["computed"], "newLayout": layout(json!([]))});
    let fake = Fake::default().answering("GetClusterLayout", layout(staged)).answering("PreviewClusterLayoutChanges", preview);
    let text = fake.run("layout show").unwrap().stdout;
    for line in [
        "==== CURRENT CLUSTER LAYOUT ====",
        "aaaaaaaaaaaaaaaa  [x,y]  dc1   10.0 GiB  10.0 GiB (100.0%)",
        "Current cluster layout version: 1",
        "==== STAGED ROLE CHANGES ====",
        "aaaaaaaaaaaaaaaa  REMOVED",
        "bbbbbbbbbbbbbbbb  []       dc1   gateway",
        "==== NEW CLUSTER LAYOUT AFTER APPLYING CHANGES ====",
        "    garage layout apply --version 2",
    ] {
        assert!(text.lines().any(|found| found == line), "{line:?} is not in\n{text}");
    }
}

#[test]
fn a_layout_that_cannot_be_computed_says_why_and_offers_no_command() {
    let staged = json!([{"id": node_id("a"), "remove": true}]);
    let fake = Fake::default()
        .answering("GetClusterLayout", layout(staged))
        .answering("PreviewClusterLayoutChanges", json!({"error": "too few nodes: 1 is missing"}));
    let out = fake.run("layout show").unwrap();
    assert!(out.stdout.contains("too few nodes: 1 is missing") && !out.stdout.contains("layout apply"), "{}", out.stdout);
    assert_eq!(out.exit_code, 0);
}

#[test]
fn the_computation_report_has_totals_and_a_table_for_each_zone() {
    let statistics = json!({"replicationFactor": 3, "effectiveZoneRedundancy": 1, "partitionSize": 40 << 20, "previousPartitionSize": null,
        "lowPartitionSize": false, "usableCapacity": 10u64 << 30, "totalCapacity": 20u64 << 30, "effectiveCapacity": 3u64 << 30, "lowUsableCapacity": false,
        "totalMovedPartitions": 7, "zones": [{"name": "dc1", "nodes": [{"id": node_id("a"), "tags": ["x"], "storedPartitions": 256, "newPartitions": 0,
        "totalCapacity": 20u64 << 30, "usableCapacity": 10u64 << 30}], "totalReplicatedPartitions": 256, "uniquePartitions": 256,
        "totalCapacity": 20u64 << 30, "usableCapacity": 10u64 << 30}]});
    let fake =
        Fake::default().answering("ApplyClusterLayout", json!({"message": [], "statistics": statistics, "layout": layout(json!([]))}));
    let expected = "\
==== COMPUTATION OF A NEW PARTITION ASSIGNATION ====
Partitions are replicated 3 times on at least 1 distinct zones.

Optimal partition size:                    40.0 MiB
Usable capacity / total cluster capacity:  10.0 GiB / 20.0 GiB (50.0 %)
Effective capacity (replication factor 3):  3.0 GiB

A total of 7 new copies of partitions must be transferred.

dc1               Tags  Partitions          Capacity  Usable capacity
aaaaaaaaaaaaaaaa  [x]   256 (0 new)         20.0 GiB  10.0 GiB (50.0%)
TOTAL                   256 (256 unique)    20.0 GiB  10.0 GiB (50.0%)
";
    let normal = |text: &str| text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
    let out = fake.run("layout apply --version 1").unwrap().stdout;
    assert!(normal(&out).starts_with(&normal(expected)), "{out}");
    assert_eq!(fake.asked("ApplyClusterLayout"), json!({"version": 1}));
}

#[test]
fn what_destroys_asks_for_yes() {
    let fake = buckets().answering("ListKeys", json!([])).answering("ListAdminTokens", json!([]));
    for line in [
        "layout revert",
        "layout revert --version 2",
        "bucket delete photos",
        "key delete app",
        "key import GK01234567 0123456789abcdef",
        "key delete-expired",
        "admin-token delete-expired",
        "repair tables",
        "block purge ab",
    ] {
        let error = fake.run(line).unwrap_err();
        assert!(error.contains("--yes"), "{line}: {error}");
    }
    for endpoint in ["RevertClusterLayout", "DeleteBucket", "DeleteKey", "ImportKey", "LaunchRepairOperation", "PurgeBlocks"] {
        assert_eq!(fake.asked(endpoint), "never asked", "{endpoint}");
    }
    assert!(fake.run("layout apply").unwrap_err().contains("--version"));
}

#[test]
fn a_bucket_is_shown_as_one_block() {
    let expected = format!(
        "\
==== BUCKET INFORMATION ====
Bucket:                      {id}
Created:                     2025-01-31 10:00:00.000 +00:00
Size:                        3.0 MB (2.9 MiB)
Objects:                     2
Website access:              true
  index document:            index.html
  error document:            oops.html
Quotas:                      enabled
  maximum size:              10.0 kB (9.8 KiB)
  maximum number of objects  5
Global alias:                photos

==== KEYS FOR THIS BUCKET ====
Permissions  Access key       Local aliases
R O          GK1         app
",
        id = node_id("5")
    )
    .replace("objects  5", "objects: 5");
    let expected: Vec<String> = expected.lines().map(str::to_owned).collect();
    for line in ["bucket info photos", "bucket create photos", "bucket allow photos --key app --read", "bucket alias photos pictures"] {
        let out = buckets().run(line).unwrap().stdout;
        let squeezed = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let (found, wanted): (Vec<_>, Vec<_>) = (out.lines().map(squeezed).collect(), expected.iter().map(|line| squeezed(line)).collect());
        assert_eq!(found, wanted, "{line}");
    }
}

#[test]
fn bucket_commands_ask_for_what_they_say() {
    let fake = buckets();
    fake.run("bucket set-quotas photos --max-size 1KiB").unwrap();
    assert_eq!(
        fake.asked("UpdateBucket"),
        json!({"id": node_id("5"), "body": {"quotas": {"maxSize": 1024, "maxObjects": 5}}}),
        "the other quota stays"
    );
    fake.run("bucket website --allow photos").unwrap();
    let website = json!({"enabled": true, "indexDocument": "index.html", "errorDocument": "oops.html"});
    assert_eq!(fake.asked("UpdateBucket")["body"]["websiteAccess"], website, "the error document stays");
    fake.run("bucket website photos --deny").unwrap();
    assert_eq!(fake.asked("UpdateBucket")["body"]["websiteAccess"], json!({"enabled": false}));
    fake.run("bucket deny --owner photos --key app").unwrap();
    let rights = json!({"bucketId": node_id("5"), "accessKeyId": "GK1", "permissions": {"read": false, "write": false, "owner": true}});
    assert_eq!(fake.asked("DenyBucketKey"), rights);
    fake.run("bucket alias photos mine --local app").unwrap();
    assert_eq!(fake.asked("AddBucketAlias"), json!({"bucketId": node_id("5"), "localAlias": "mine", "accessKeyId": "GK1"}));
    fake.run("bucket unalias photos").unwrap();
    assert_eq!(fake.asked("GetBucketInfo"), json!({"globalAlias": "photos"}), "a name to drop must be exactly a name");
    assert!(fake.run("bucket unalias --local app nowhere").unwrap_err().contains("no local alias"));
}

#[test]
fn lists_are_sorted_by_creation() {
    let item = |id: &str, created: &str| json!({"id": id, "created": created, "name": id, "expiration": null, "expired": id == "GK3"});
    let fake = Fake::default().answering("ListKeys", json!([item("GK2", "2025-02-01T00:00:00Z"), item("GK3", "2025-01-01T00:00:00Z")]));
    let expected = "ID   Created     Name  Expiration\nGK3  2025-01-01  GK3   expired\nGK2  2025-02-01  GK2   never\n";
    assert_eq!(fake.run("key list").unwrap().stdout, expected);
    let bucket = json!({"id": node_id("5"), "created": "2025-02-01T00:00:00Z", "globalAliases": ["a", "b"], "localAliases": [{"accessKeyId": "GK1", "alias": "l"}]});
    let out = Fake::default().answering("ListBuckets", json!([bucket])).run("bucket list").unwrap().stdout;
    assert_eq!(out, "ID                Created     Global aliases  Local aliases\n5555555555555555  2025-02-01  a, ... (2)      GK1:l\n");
}

#[test]
fn a_secret_is_shown_only_when_asked_for() {
    let mut with_secret = key();
    with_secret["secretAccessKey"] = json!("topsecret");
    let text = Fake::default().answering("GetKeyInfo", key()).run("key info app").unwrap().stdout;
    assert!(text.contains("Secret key:          (redacted)\n"), "{text}");
    let fake = Fake::default().answering("GetKeyInfo", with_secret);
    assert_eq!(fake.run("key info app --secret-key").unwrap().stdout, "topsecret\n");
    assert_eq!(fake.asked("GetKeyInfo"), json!({"search": "app", "showSecretKey": true}));
    let exported =
        "AWS_ACCESS_KEY_ID=GK1\nAWS_SECRET_ACCESS_KEY=topsecret\nAWS_DEFAULT_REGION='garage'\nAWS_ENDPOINT_URL='https://s3.example.org'\n";
    assert_eq!(fake.run("key export-env app").unwrap().stdout, exported);
    assert_eq!(fake.run("key info app --key-id").unwrap().stdout, "GK1\n");
}

#[test]
fn a_duration_becomes_a_point_in_time() {
    let fake = Fake::default().answering("CreateKey", key());
    fake.run("key create --expires-in 1d").unwrap();
    assert_eq!(fake.asked("CreateKey")["expiration"], "2025-06-16T15:06:40Z");
}

#[test]
fn errors_of_the_interface_name_endpoint_code_and_status() {
    let fake = Fake::default().refusing("GetBucketInfo", AdminError::new(ErrorCode::NoSuchBucket, "no bucket x"));
    assert_eq!(fake.run("bucket info x").unwrap_err(), "GetBucketInfo returned NoSuchBucket (404): no bucket x");
    let error = Fake::default().run("worker list").unwrap_err();
    assert_eq!(error, "ListWorkers returned NotImplemented (501): ListWorkers is not implemented in this release");
    let answer = json!({"success": {}, "error": {node_id("a"): "NoSuchWorker (404): no worker 9"}});
    assert_eq!(Fake::default().answering("GetWorkerInfo", answer).run("worker info 9").unwrap_err(), "NoSuchWorker (404): no worker 9");
}

#[test]
fn node_errors_stand_in_their_rows_or_on_stderr() {
    let launched = json!({"success": {node_id("a"): null}, "error": {node_id("b"): "down"}});
    let fake = Fake::default().answering("LaunchRepairOperation", launched.clone()).answering("CreateMetadataSnapshot", launched);
    assert_eq!(fake.run("repair -a --yes mpu").unwrap().stdout, "aaaaaaaaaaaaaaaa  Repair launched\nbbbbbbbbbbbbbbbb  Error: down\n");
    assert_eq!(fake.asked("LaunchRepairOperation"), json!({"node": "*", "body": {"repairType": "multipartUploads"}}));
    let out = fake.run("meta snapshot --all").unwrap();
    assert_eq!(
        (out.stdout.as_str(), out.exit_code),
        ("Node              Result\naaaaaaaaaaaaaaaa  Snapshot created\nbbbbbbbbbbbbbbbb  Error: down\n", 1)
    );
    let set = json!({"success": {node_id("a"): {"variable": "scrub-tranquility", "value": "3"}}, "error": {node_id("b"): "down"}});
    let fake = Fake::default().answering("SetWorkerVariable", set);
    for line in ["worker set -a scrub-tranquility 3", "repair -a --yes scrub set-tranquility 3"] {
        let out = fake.run(line).unwrap();
        assert_eq!((out.stdout.as_str(), out.exit_code), ("aaaaaaaaaaaaaaaa  scrub-tranquility  3\n", 0), "{line}");
        assert!(out.stderr.contains("down"));
    }
}

#[test]
fn node_connect_reports_the_result() {
    let line = format!("node connect {}@10.0.0.1:3901", node_id("a"));
    let fake = Fake::default().answering("ConnectClusterNodes", json!([{"success": true, "error": null}]));
    assert_eq!(fake.run(&line).unwrap().stdout, "Success.\n");
    assert_eq!(fake.asked("ConnectClusterNodes"), json!([format!("{}@10.0.0.1:3901", node_id("a"))]));
    let fake = Fake::default().answering("ConnectClusterNodes", json!([{"success": false, "error": "no answer"}]));
    assert!(fake.run(&line).unwrap_err().contains("no answer"));
}

#[test]
fn json_api_prints_what_came_and_knows_the_names() {
    let fake = Fake::default().answering("GetClusterHealth", json!({"status": "healthy"}));
    assert_eq!(fake.run("json-api GetClusterHealth").unwrap().stdout, "{\n  \"status\": \"healthy\"\n}");
    assert_eq!(fake.asked("GetClusterHealth"), Value::Null);
    assert!(fake.run("json-api Nonsense").unwrap_err().contains("GetClusterStatus, GetClusterHealth"));
    assert_eq!(fake.run("json-api ListKeys").unwrap_err(), "NotImplemented (501): ListKeys is not implemented in this release");
    assert!(fake.run("json-api ListKeys {").unwrap_err().contains("not valid JSON"));
}

#[test]
fn a_scope_is_replaced_widened_or_narrowed() {
    let token = json!({"id": "ab", "created": null, "name": "t", "expiration": null, "expired": false, "scope": ["A", "B"]});
    let fake = Fake::default().answering("GetAdminTokenInfo", token.clone()).answering("UpdateAdminToken", token);
    for (change, expected) in [("C,D", json!(["C", "D"])), ("+C,A", json!(["A", "B", "C"])), ("-A", json!(["B"]))] {
        fake.run(&format!("admin-token set t --scope={change}")).unwrap();
        assert_eq!(fake.asked("UpdateAdminToken")["body"]["scope"], expected, "{change}");
    }
}
