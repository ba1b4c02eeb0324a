//! Buckets, their names, rights, settings.

use garage_api_admin::ErrorCode;
use garage_model::{
    objects::WriteCondition,
    rows::{
        bucket::{DefaultRetention, LockSettings, RetentionPeriod, Versioning},
        object::RetentionMode,
    },
};
use garage_table::control::Effect;
use serde_json::{Value, json};

use super::support::{Admin, context, text};

/// A key's id.
async fn key(admin: &Admin, name: &str) -> String {
    text(&admin.ok("CreateKey", json!({"name": name})).await["accessKeyId"]).to_string()
}

#[test]
fn a_bucket_is_made_with_the_names_asked_for_or_with_none() {
    garage_sim::run(async {
        let admin = Admin::one_node().await;
        let key = key(&admin, "app").await;
        let plain = admin.ok("CreateBucket", json!({"globalAlias": "photos"})).await;
        assert_eq!(text(&plain["id"]).len(), 64);
        assert_eq!((&plain["globalAliases"], &plain["objects"], &plain["bytes"]), (&json!(["photos"]), &json!(0), &json!(0)));
        assert_eq!(plain["quotas"], json!({"maxSize": null, "maxObjects": null}));
        assert_eq!((&plain["websiteAccess"], plain.get("websiteConfig")), (&json!(false), None));

        let unnamed = admin.ok("CreateBucket", json!({})).await;
        assert_eq!(unnamed["globalAliases"], json!([]));
        assert_eq!(admin.ok("GetBucketInfo", json!({"id": unnamed["id"]})).await["id"], unnamed["id"]);

        let local = json!({"accessKeyId": key, "alias": "mine", "allow": {"read": true, "owner": true}});
        let both = admin.ok("CreateBucket", json!({"globalAlias": "music", "localAlias": local})).await;
        let expected = json!([{
            "accessKeyId": key, "name": "app", "permissions": {"read": true, "write": false, "owner": true}, "bucketLocalAliases": ["mine"],
        }]);
        assert_eq!((&both["globalAliases"], &both["keys"]), (&json!(["music"]), &expected));
    });
}

#[test]
fn a_bucket_that_cannot_be_made_leaves_nothing_behind() {
    garage_sim::run(async {
        let admin = Admin::one_node().await;
        let key = key(&admin, "app").await;
        admin.ok("CreateBucket", json!({"globalAlias": "photos", "localAlias": {"accessKeyId": key, "alias": "mine"}})).await;
        for (payload, code) in [
            (json!({"globalAlias": "photos"}), ErrorCode::BucketAlreadyExists),
            (json!({"globalAlias": "No"}), ErrorCode::InvalidRequest),
            (json!({"localAlias": {"accessKeyId": key, "alias": "mine"}}), ErrorCode::InvalidRequest),
            (json!({"globalAlias": "other", "localAlias": {"accessKeyId": key, "alias": "X"}}), ErrorCode::InvalidRequest),
            (json!({"globalAlias": "other", "localAlias": {"accessKeyId": "GK000000", "alias": "mine"}}), ErrorCode::NoSuchAccessKey),
        ] {
            admin.refused("CreateBucket", payload, code, "").await;
        }
        assert_eq!(admin.ok("ListBuckets", Value::Null).await.as_array().unwrap().len(), 1);
    });
}

#[test]
fn a_bucket_is_found_by_id_by_name_or_by_pattern() {
    garage_sim::run(async {
        let admin = Admin::one_node().await;
        let made = admin.ok("CreateBucket", json!({"globalAlias": "photos"})).await;
        let id = text(&made["id"]);
        for search in [
            json!({"id": id}),
            json!({"globalAlias": "photos"}),
            json!({"search": "photos"}),
            json!({"search": id}),
            json!({"search": &id[..7]}),
            json!({"search": id[..8].to_uppercase()}),
        ] {
            assert_eq!(admin.ok("GetBucketInfo", search.clone()).await["id"], id, "{search}");
        }
        for (search, code) in [
            (json!({"id": "photos"}), ErrorCode::InvalidRequest),
            (json!({"id": "0".repeat(64)}), ErrorCode::NoSuchBucket),
            (json!({"globalAlias": "phot"}), ErrorCode::NoSuchBucket),
            (json!({"globalAlias": id}), ErrorCode::NoSuchBucket),
            (json!({"search": "phot"}), ErrorCode::NoSuchBucket),
            (json!({"search": &id[..1]}), ErrorCode::NoSuchBucket),
            (json!({}), ErrorCode::InvalidRequest),
            (json!({"id": id, "search": "photos"}), ErrorCode::InvalidRequest),
        ] {
            admin.refused("GetBucketInfo", search, code, "").await;
        }
    });
}

#[test]
fn a_pattern_that_several_buckets_match_is_refused() {
    garage_sim::run(async {
        let admin = Admin::one_node().await;
        let mut starts = std::collections::BTreeSet::new();
        // With 257 buckets two ids share their first two digits.
        let shared = loop {
            let made = admin.ok("CreateBucket", json!({})).await;
            let start = text(&made["id"])[..2].to_string();
            if !starts.insert(start.clone()) {
                break start;
            }
        };
        admin.refused("GetBucketInfo", json!({"search": shared}), ErrorCode::InvalidRequest, "2 buckets match").await;
    });
}

#[test]
fn settings_change_together_or_not_at_all() {
    garage_sim::run(async {
        let admin = Admin::one_node().await;
        let made = admin.ok("CreateBucket", json!({"globalAlias": "photos"})).await;
        let update = |body: Value| json!({"id": made["id"], "body": body});
        let website = json!({"enabled": true, "indexDocument": "index.html", "errorDocument": "404.html"});
        let quotas = json!({"maxSize": 1000, "maxObjects": 3});
        let changed = admin.ok("UpdateBucket", update(json!({"websiteAccess": website, "quotas": quotas}))).await;
        assert_eq!(changed["websiteAccess"], true);
        assert_eq!(changed["websiteConfig"], json!({"indexDocument": "index.html", "errorDocument": "404.html", "routingRules": []}));
        assert_eq!(changed["quotas"], quotas);

        for (body, code) in [
            (json!({"websiteAccess": {"enabled": true}, "quotas": {}}), ErrorCode::InvalidRequest),
            (json!({"websiteAccess": {"enabled": false, "indexDocument": "i"}, "quotas": {}}), ErrorCode::InvalidRequest),
            (json!({"quotas": {}, "corsRules": [{"AllowedOrigin": ["*"], "AllowedMethod": ["PATCH"]}]}), ErrorCode::InvalidRequest),
            (json!({"quotas": {}, "websiteAccess": {"enabled": true, "indexDocument": "a/b"}}), ErrorCode::InvalidRequest),
            (json!({"quotas": {}, "lifecycleRules": [{"Status": "Enabled"}]}), ErrorCode::NotImplemented),
        ] {
            admin.refused("UpdateBucket", update(body), code, "").await;
        }
        assert_eq!(admin.ok("UpdateBucket", update(json!({"corsRules": [], "websiteAccess": null}))).await, changed);

        let rules = json!([{"AllowedOrigin": ["*"], "AllowedMethod": ["GET"], "AllowedHeader": [], "ExposeHeader": []}]);
        let with_rules = admin.ok("UpdateBucket", update(json!({"corsRules": rules}))).await;
        assert_eq!(with_rules["corsRules"], rules);
        assert_eq!(admin.ok("UpdateBucket", update(json!({"corsRules": []}))).await, changed);
        let routing = json!([{"Condition": null, "Redirect": {"HostName": "example.org", "HttpRedirectCode": 301}}]);
        let with_routing = json!({"websiteAccess": {"enabled": true, "indexDocument": "i.html", "routingRules": routing}});
        assert_eq!(admin.ok("UpdateBucket", update(with_routing)).await["websiteConfig"]["routingRules"], routing);
        let without = json!({"websiteAccess": {"enabled": true, "indexDocument": "index.html", "errorDocument": "404.html"}});
        assert_eq!(admin.ok("UpdateBucket", update(without)).await["websiteConfig"]["routingRules"], routing, "what is not named stays");

        let partly = admin.ok("UpdateBucket", update(json!({"quotas": {"maxObjects": 9}}))).await;
        assert_eq!((&partly["quotas"], &partly["websiteAccess"]), (&json!({"maxSize": null, "maxObjects": 9}), &json!(true)));
        let closed = admin.ok("UpdateBucket", update(json!({"websiteAccess": {"enabled": false}}))).await;
        assert_eq!((&closed["websiteAccess"], closed.get("websiteConfig")), (&json!(false), None));
        admin.refused("UpdateBucket", json!({"id": "0".repeat(64), "body": {}}), ErrorCode::NoSuchBucket, "").await;
    });
}

#[test]
fn a_bucket_with_objects_is_not_deleted_and_works_on() {
    garage_sim::run(async {
        let admin = Admin::one_node().await;
        let made = admin.ok("CreateBucket", json!({"globalAlias": "photos"})).await;
        let bucket = admin.bucket_ref(&made).await;
        admin.put_object(&bucket, "a.jpg", 1000).await;
        admin.put_object(&bucket, "b.jpg", 100_000).await;
        let info = admin.ok("GetBucketInfo", json!({"globalAlias": "photos"})).await;
        assert_eq!((&info["objects"], &info["bytes"]), (&json!(2), &json!(101_000)));
        let totals = admin.ok("GetClusterStatistics", Value::Null).await;
        assert_eq!(
            (&totals["bucketCount"], &totals["totalObjectCount"], &totals["totalObjectBytes"]),
            (&json!(1), &json!(2), &json!(101_000))
        );

        admin.refused("DeleteBucket", json!({"id": made["id"]}), ErrorCode::BucketNotEmpty, "not empty").await;
        admin.put_object(&bucket, "c.jpg", 1).await;
        assert_eq!(admin.ok("GetBucketInfo", json!({"globalAlias": "photos"})).await["objects"], 3);
    });
}

#[test]
fn a_bucket_whose_only_version_is_locked_is_not_deleted() {
    garage_sim::run(async {
        let admin = Admin::one_node().await;
        let made = admin.ok("CreateBucket", json!({"globalAlias": "kept"})).await;
        let bucket = admin.bucket_ref(&made).await;
        let default = DefaultRetention { mode: RetentionMode::Compliance, period: RetentionPeriod::Days(1) };
        let lock = Some(LockSettings { default_retention: Some(default) });
        let buckets = admin.api.node().access.buckets().clone();
        let changed = buckets.change(bucket.id, Effect::Restricts, context(), |row| {
            (row.versioning, row.object_lock) = (Versioning::Enabled, lock);
            Ok(())
        });
        changed.await.unwrap();
        let bucket = admin.bucket_ref(&made).await;
        admin.put_object(&bucket, "locked", 100).await;
        // Under a delete marker nothing is left that a plain listing shows.
        let always = WriteCondition::default();
        admin.api.node().objects.delete(&bucket, "locked", &always, context()).await.unwrap();
        admin.refused("DeleteBucket", json!({"id": made["id"]}), ErrorCode::BucketNotEmpty, "not empty").await;
    });
}

#[test]
fn a_deleted_bucket_frees_its_names() {
    garage_sim::run(async {
        let admin = Admin::one_node().await;
        let key = key(&admin, "app").await;
        let local = json!({"accessKeyId": key, "alias": "mine"});
        let first = admin.ok("CreateBucket", json!({"globalAlias": "photos", "localAlias": local})).await;
        assert_eq!(admin.ok("DeleteBucket", json!({"id": first["id"]})).await, Value::Null);
        admin.refused("DeleteBucket", json!({"id": first["id"]}), ErrorCode::NoSuchBucket, "").await;
        admin.refused("GetBucketInfo", json!({"globalAlias": "photos"}), ErrorCode::NoSuchBucket, "").await;
        assert_eq!(admin.ok("GetKeyInfo", json!({"id": key})).await["buckets"], json!([]));
        let second = admin.ok("CreateBucket", json!({"globalAlias": "photos", "localAlias": local})).await;
        assert_ne!(first["id"], second["id"]);
    });
}

#[test]
fn rights_are_added_and_taken_one_by_one() {
    garage_sim::run(async {
        let admin = Admin::one_node().await;
        let key = key(&admin, "app").await;
        let bucket = admin.ok("CreateBucket", json!({"globalAlias": "photos"})).await;
        let change = |permissions: Value| json!({"bucketId": bucket["id"], "accessKeyId": key, "permissions": permissions});
        let rights = |bucket: &Value| bucket["keys"][0]["permissions"].clone();
        let allowed = admin.ok("AllowBucketKey", change(json!({"read": true, "write": true}))).await;
        assert_eq!(rights(&allowed), json!({"read": true, "write": true, "owner": false}));
        let nothing = admin.ok("AllowBucketKey", change(json!({"read": false}))).await;
        assert_eq!(rights(&nothing), rights(&allowed));
        let denied = admin.ok("DenyBucketKey", change(json!({"write": true, "read": false}))).await;
        assert_eq!(rights(&denied), json!({"read": true, "write": false, "owner": false}));
        let of_key = admin.ok("GetKeyInfo", json!({"id": key})).await;
        assert_eq!(of_key["buckets"][0]["permissions"], rights(&denied));
        let none = admin.ok("DenyBucketKey", change(json!({"read": true}))).await;
        assert_eq!(none["keys"], json!([]));

        let unknown_key = json!({"bucketId": bucket["id"], "accessKeyId": "GK000000", "permissions": {}});
        admin.refused("AllowBucketKey", unknown_key, ErrorCode::NoSuchAccessKey, "GK000000").await;
        let unknown_bucket = json!({"bucketId": "0".repeat(64), "accessKeyId": key, "permissions": {}});
        admin.refused("DenyBucketKey", unknown_bucket, ErrorCode::NoSuchBucket, "").await;
    });
}

#[test]
fn names_lead_to_one_bucket_and_the_last_one_stays() {
    garage_sim::run(async {
        let admin = Admin::one_node().await;
        let key = key(&admin, "app").await;
        let photos = admin.ok("CreateBucket", json!({"globalAlias": "photos"})).await;
        let music = admin.ok("CreateBucket", json!({"globalAlias": "music"})).await;
        let global = |bucket: &Value, name: &str| json!({"bucketId": bucket["id"], "globalAlias": name});
        let local =
            |bucket: &Value, name: &str| json!({"bucketId": bucket["id"], "localAlias": name, "accessKeyId": key, "globalAlias": null});

        let named = admin.ok("AddBucketAlias", global(&photos, "pictures")).await;
        assert_eq!(named["globalAliases"], json!(["photos", "pictures"]));
        assert_eq!(admin.ok("AddBucketAlias", global(&photos, "pictures")).await, named, "a name it has already");
        admin.refused("AddBucketAlias", global(&music, "pictures"), ErrorCode::InvalidRequest, "taken").await;
        admin.refused("AddBucketAlias", global(&music, "No"), ErrorCode::InvalidBucketName, "No").await;
        admin.refused("AddBucketAlias", global(&music, ""), ErrorCode::InvalidBucketName, "").await;

        let mine = admin.ok("AddBucketAlias", local(&music, "mine")).await;
        assert_eq!(mine["keys"][0]["bucketLocalAliases"], json!(["mine"]));
        admin.refused("AddBucketAlias", local(&photos, "mine"), ErrorCode::InvalidRequest, "taken").await;
        assert_eq!(admin.ok("ListBuckets", Value::Null).await.as_array().unwrap().len(), 2);

        admin.refused("RemoveBucketAlias", global(&music, "photos"), ErrorCode::InternalError, "not a name of this bucket").await;
        assert_eq!(admin.ok("RemoveBucketAlias", global(&photos, "photos")).await["globalAliases"], json!(["pictures"]));
        admin.refused("RemoveBucketAlias", global(&photos, "pictures"), ErrorCode::InvalidRequest, "last name").await;
        admin.ok("RemoveBucketAlias", global(&music, "music")).await;
        admin.refused("RemoveBucketAlias", local(&music, "mine"), ErrorCode::InvalidRequest, "last name").await;
        admin.ok("AddBucketAlias", global(&music, "photos")).await;
        assert_eq!(admin.ok("RemoveBucketAlias", local(&music, "mine")).await["keys"], json!([]));
    });
}

#[test]
fn lists_of_buckets_are_paged_by_id() {
    garage_sim::run(async {
        let admin = Admin::one_node().await;
        for name in ["bucket-a", "bucket-b", "bucket-c"] {
            admin.ok("CreateBucket", json!({"globalAlias": name})).await;
        }
        let ids = |list: &Value| list.as_array().unwrap().iter().map(|bucket| text(&bucket["id"]).to_string()).collect::<Vec<_>>();
        let all = ids(&admin.ok("ListBuckets", Value::Null).await);
        assert!(all.len() == 3 && all.is_sorted());
        assert_eq!(ids(&admin.ok("ListBuckets", json!({"limit": 1})).await), all[..1]);
        assert_eq!(ids(&admin.ok("ListBuckets", json!({"offset": all[1]})).await), all[1..]);
        assert_eq!(ids(&admin.ok("ListBucketsInfo", json!({"offset": all[1], "limit": 1})).await), all[1..2]);
        admin.refused("ListBuckets", json!({"offset": "x"}), ErrorCode::InvalidRequest, "64 hexadecimal").await;
    });
}
