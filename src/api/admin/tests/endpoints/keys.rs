//! Access keys.

use garage_api_admin::ErrorCode;
use serde_json::{Value, json};

use super::support::{Admin, text};

#[test]
fn a_created_key_shows_its_secret_once_and_on_demand() {
    garage_sim::run(async {
        let admin = Admin::one_node().await;
        let made = admin.ok("CreateKey", json!({"name": "app", "allow": {"createBucket": true}})).await;
        let (id, secret) = (text(&made["accessKeyId"]), text(&made["secretAccessKey"]));
        assert!(id.starts_with("GK") && id.len() == 26 && secret.len() == 64, "{made}");
        assert_eq!((&made["permissions"]["createBucket"], &made["expired"], &made["buckets"]), (&json!(true), &json!(false), &json!([])));

        let hidden = admin.ok("GetKeyInfo", json!({"id": id})).await;
        assert_eq!(hidden.get("secretAccessKey"), None);
        let shown = admin.ok("GetKeyInfo", json!({"id": id, "showSecretKey": true})).await;
        assert_eq!(shown["secretAccessKey"], secret);

        let unnamed = admin.ok("CreateKey", json!({})).await;
        assert_eq!(unnamed["name"], "Unnamed key");
        assert_eq!(unnamed["expiration"], Value::Null);
    });
}

#[test]
fn a_key_is_found_by_prefix_of_its_id_or_by_its_whole_name_in_any_case() {
    garage_sim::run(async {
        let admin = Admin::one_node().await;
        for (id, name) in [("AAAA0001", "Photos"), ("AAAA0002", "Backup"), ("BBBB0001", "backup")] {
            admin.ok("ImportKey", json!({"accessKeyId": id, "secretAccessKey": "0123456789abcdef", "name": name})).await;
        }
        for (pattern, id) in [("aaaa0001", "AAAA0001"), ("bb", "BBBB0001"), ("PHOTOS", "AAAA0001"), ("AAAA0002", "AAAA0002")] {
            let found = admin.ok("GetKeyInfo", json!({"search": pattern})).await;
            assert_eq!(found["accessKeyId"], id, "{pattern}");
        }
        admin.refused("GetKeyInfo", json!({"search": "Phot"}), ErrorCode::NoSuchAccessKey, "Phot").await;
        admin.refused("GetKeyInfo", json!({"search": "AAAA"}), ErrorCode::InvalidRequest, "2 keys match").await;
        admin.refused("GetKeyInfo", json!({"search": "backup"}), ErrorCode::InvalidRequest, "2 keys match").await;
        admin.refused("GetKeyInfo", json!({"id": "AAAA0003"}), ErrorCode::NoSuchAccessKey, "AAAA0003").await;
        admin.refused("GetKeyInfo", json!({}), ErrorCode::InvalidRequest, "exactly one").await;
        admin.refused("GetKeyInfo", json!({"id": "AAAA0001", "search": "A"}), ErrorCode::InvalidRequest, "exactly one").await;
    });
}

#[test]
fn an_imported_key_must_follow_the_rules_and_its_id_is_never_taken_twice() {
    garage_sim::run(async {
        let admin = Admin::one_node().await;
        let import = |id: &str, secret: &str| json!({"accessKeyId": id, "secretAccessKey": secret});
        let made = admin.ok("ImportKey", import("my-key.0001", "0123456789abcdef")).await;
        assert_eq!((&made["name"], made.get("secretAccessKey")), (&json!("Imported key"), None));
        admin.refused("ImportKey", import("my-key.0001", "fedcba9876543210"), ErrorCode::KeyAlreadyExists, "my-key.0001").await;
        admin.refused("ImportKey", import("short", "0123456789abcdef"), ErrorCode::InvalidRequest, "short").await;
        admin.refused("ImportKey", import("my-key.0002", "with a space 123"), ErrorCode::InvalidRequest, "secret").await;
        admin.ok("DeleteKey", json!({"id": "my-key.0001"})).await;
        admin.refused("ImportKey", import("my-key.0001", "0123456789abcdef"), ErrorCode::KeyAlreadyExists, "my-key.0001").await;
    });
}

#[test]
fn an_update_sets_what_it_names_and_denies_after_it_allows() {
    garage_sim::run(async {
        let admin = Admin::one_node().await;
        let made = admin.ok("CreateKey", json!({"name": "before"})).await;
        let id = text(&made["accessKeyId"]);
        let update = |body: Value| json!({"id": id, "body": body});
        let renamed = admin.ok("UpdateKey", update(json!({"name": "after", "allow": {"createBucket": true}}))).await;
        assert_eq!((&renamed["name"], &renamed["permissions"]["createBucket"]), (&json!("after"), &json!(true)));
        assert_eq!(renamed.get("secretAccessKey"), None);
        let both = json!({"allow": {"createBucket": true}, "deny": {"createBucket": true}});
        assert_eq!(admin.ok("UpdateKey", update(both)).await["permissions"]["createBucket"], false);
        let untouched = admin.ok("UpdateKey", update(json!({"deny": {"createBucket": false}}))).await;
        assert_eq!(untouched["name"], "after");

        let expired = admin.ok("UpdateKey", update(json!({"expiration": "2001-02-03T04:05:06+02:00"}))).await;
        assert_eq!((&expired["expiration"], &expired["expired"]), (&json!("2001-02-03T02:05:06Z"), &json!(true)));
        let eternal = admin.ok("UpdateKey", update(json!({"neverExpires": true}))).await;
        assert_eq!((&eternal["expiration"], &eternal["expired"]), (&Value::Null, &json!(false)));

        let contradiction = json!({"expiration": "2101-01-01T00:00:00Z", "neverExpires": true});
        admin.refused("UpdateKey", update(contradiction), ErrorCode::InvalidRequest, "not both").await;
        admin.refused("UpdateKey", update(json!({"expiration": "1969-01-01T00:00:00Z"})), ErrorCode::InvalidRequest, "1970").await;
        admin.refused("UpdateKey", json!({"id": "GK000000", "body": {}}), ErrorCode::NoSuchAccessKey, "GK000000").await;
    });
}

#[test]
fn a_deleted_key_is_gone_with_its_rights_and_names_and_buckets_stay() {
    garage_sim::run(async {
        let admin = Admin::one_node().await;
        let key = admin.ok("CreateKey", json!({})).await;
        let key = text(&key["accessKeyId"]);
        let local = json!({"accessKeyId": key, "alias": "mine", "allow": {"read": true}});
        let bucket = admin.ok("CreateBucket", json!({"globalAlias": "photos", "localAlias": local})).await;
        assert_eq!(admin.ok("GetKeyInfo", json!({"id": key})).await["buckets"][0]["localAliases"], json!(["mine"]));
        assert_eq!(admin.ok("DeleteKey", json!({"id": key})).await, Value::Null);
        admin.refused("GetKeyInfo", json!({"id": key}), ErrorCode::NoSuchAccessKey, key).await;
        admin.refused("DeleteKey", json!({"id": key}), ErrorCode::NoSuchAccessKey, key).await;
        let bucket = admin.ok("GetBucketInfo", json!({"id": bucket["id"]})).await;
        assert_eq!((&bucket["keys"], &bucket["globalAliases"]), (&json!([]), &json!(["photos"])));
        assert_eq!(admin.ok("ListBuckets", Value::Null).await[0]["localAliases"], json!([]));
        assert_eq!(admin.ok("ListKeys", Value::Null).await, json!([]));
    });
}

#[test]
fn lists_of_keys_are_paged_by_id() {
    garage_sim::run(async {
        let admin = Admin::one_node().await;
        for id in ["key-0003", "key-0001", "key-0002"] {
            admin.ok("ImportKey", json!({"accessKeyId": id, "secretAccessKey": "0123456789abcdef"})).await;
        }
        let ids = |list: &Value| list.as_array().unwrap().iter().map(|key| text(&key["id"]).to_string()).collect::<Vec<_>>();
        for (page, expected) in [
            (json!({}), &["key-0001", "key-0002", "key-0003"][..]),
            (json!({"limit": 2}), &["key-0001", "key-0002"]),
            (json!({"offset": "key-0002"}), &["key-0002", "key-0003"]),
            (json!({"offset": "key-0002", "limit": 1}), &["key-0002"]),
            (json!({"limit": 0}), &[]),
        ] {
            assert_eq!(ids(&admin.ok("ListKeys", page.clone()).await), expected, "{page}");
        }
        let full = admin.ok("ListKeysInfo", json!({"limit": 1})).await;
        assert_eq!((&full[0]["accessKeyId"], full[0].get("secretAccessKey")), (&json!("key-0001"), None));
    });
}
