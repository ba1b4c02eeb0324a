//! Unfinished uploads.

use std::time::Duration;

use bytes::Bytes;
use garage_api_admin::ErrorCode;
use garage_model::{body::WholeBody, uploads::NewUpload};
use serde_json::json;

use super::support::{Admin, context};

#[test]
fn unfinished_uploads_are_counted_with_their_parts_and_given_up_by_age() {
    garage_sim::run(async {
        let admin = Admin::one_node().await;
        let made = admin.ok("CreateBucket", json!({"globalAlias": "photos"})).await;
        let bucket = admin.bucket_ref(&made).await;
        let uploads = &admin.api.node().uploads;
        let old = uploads.create(&bucket, "old", NewUpload::default(), context()).await.unwrap();
        for part_number in 1..=2 {
            let body = Box::new(WholeBody::new(Bytes::from(vec![7; 1000])));
            uploads.put_part(&bucket, "old", old, part_number, body, context()).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(3600)).await;
        uploads.create(&bucket, "new", NewUpload::default(), context()).await.unwrap();

        let info = admin.ok("GetBucketInfo", json!({"id": made["id"]})).await;
        assert_eq!((&info["unfinishedUploads"], &info["unfinishedMultipartUploads"]), (&json!(2), &json!(2)));
        assert_eq!((&info["unfinishedMultipartUploadParts"], &info["unfinishedMultipartUploadBytes"]), (&json!(2), &json!(2000)));

        let cleanup = |seconds: u64| json!({"bucketId": made["id"], "olderThanSecs": seconds});
        assert_eq!(admin.ok("CleanupIncompleteUploads", cleanup(86_400)).await["uploadsDeleted"], 0);
        assert_eq!(admin.ok("CleanupIncompleteUploads", cleanup(1800)).await["uploadsDeleted"], 1);
        let info = admin.ok("GetBucketInfo", json!({"id": made["id"]})).await;
        assert_eq!((&info["unfinishedUploads"], &info["unfinishedMultipartUploadParts"]), (&json!(1), &json!(0)));

        let unknown = json!({"bucketId": "0".repeat(64), "olderThanSecs": 0});
        assert_eq!(admin.ok("CleanupIncompleteUploads", unknown).await["uploadsDeleted"], 0);
        admin.refused("CleanupIncompleteUploads", json!({"bucketId": "x", "olderThanSecs": 0}), ErrorCode::InvalidRequest, "").await;
    });
}
