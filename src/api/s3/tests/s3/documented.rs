//! The table of calls in the documentation says of each what really becomes of it, and leaves out none that the router knows.
//!
//! Source: AWS S3 API, "Actions", for names, methods and sub-resources.

use std::collections::{BTreeMap, BTreeSet};

use garage_api_s3::selectors::{BUCKET_REFUSED, BUCKET_SELECTORS, OBJECT_REFUSED, OBJECT_SELECTORS};

use crate::server::Server;

const PAGE: &str = include_str!("../../../../../doc/src/s3-compatibility.md");

/// Calls that have no sub-resource, or more than one parameter: name, method, target.
const PLAIN: [(&str, &str, &str); 24] = [
    ("ListBuckets", "GET", "/"),
    ("CreateBucket", "PUT", "/bkt"),
    ("HeadBucket", "HEAD", "/bkt"),
    ("DeleteBucket", "DELETE", "/bkt"),
    ("ListObjects", "GET", "/bkt"),
    ("ListObjectsV2", "GET", "/bkt?list-type=2"),
    ("PostObject", "POST", "/bkt"),
    ("Preflight", "OPTIONS", "/bkt/k"),
    ("GetObject", "GET", "/bkt/k"),
    ("HeadObject", "HEAD", "/bkt/k"),
    ("PutObject", "PUT", "/bkt/k"),
    ("CopyObject", "PUT", "/bkt/k"),
    ("DeleteObject", "DELETE", "/bkt/none"),
    ("UploadPart", "PUT", "/bkt/k?uploadId=x&partNumber=1"),
    ("UploadPartCopy", "PUT", "/bkt/k?uploadId=x&partNumber=1"),
    ("ListParts", "GET", "/bkt/k?uploadId=x"),
    ("CompleteMultipartUpload", "POST", "/bkt/k?uploadId=x"),
    ("AbortMultipartUpload", "DELETE", "/bkt/k?uploadId=x"),
    ("CreateMultipartUpload", "POST", "/bkt/k?uploads"),
    ("ListMultipartUploads", "GET", "/bkt?uploads"),
    ("DeleteObjects", "POST", "/bkt?delete"),
    ("ListObjectVersions", "GET", "/bkt?versions"),
    ("GetBucketLocation", "GET", "/bkt?location"),
    ("SelectObjectContent", "POST", "/bkt/k?select&select-type=2"),
];

/// Sub-resources with their calls: the parameter, then for GET, PUT, POST, DELETE what they are called.
const OF_BUCKETS: [(&str, [&[&str]; 4]); 28] = [
    ("abac", [&["GetBucketAbac"], &["PutBucketAbac"], &[], &[]]),
    ("accelerate", [&["GetBucketAccelerateConfiguration"], &["PutBucketAccelerateConfiguration"], &[], &[]]),
    ("acl", [&["GetBucketAcl"], &["PutBucketAcl"], &[], &[]]),
    (
        "analytics",
        [
            &["ListBucketAnalyticsConfigurations", "GetBucketAnalyticsConfiguration"],
            &["PutBucketAnalyticsConfiguration"],
            &[],
            &["DeleteBucketAnalyticsConfiguration"],
        ],
    ),
    ("cors", [&["GetBucketCors"], &["PutBucketCors"], &[], &["DeleteBucketCors"]]),
    ("encryption", [&["GetBucketEncryption"], &["PutBucketEncryption"], &[], &["DeleteBucketEncryption"]]),
    (
        "intelligent-tiering",
        [
            &["ListBucketIntelligentTieringConfigurations", "GetBucketIntelligentTieringConfiguration"],
            &["PutBucketIntelligentTieringConfiguration"],
            &[],
            &["DeleteBucketIntelligentTieringConfiguration"],
        ],
    ),
    (
        "inventory",
        [
            &["ListBucketInventoryConfigurations", "GetBucketInventoryConfiguration"],
            &["PutBucketInventoryConfiguration"],
            &[],
            &["DeleteBucketInventoryConfiguration"],
        ],
    ),
    (
        "lifecycle",
        [
            &["GetBucketLifecycleConfiguration", "GetBucketLifecycle"],
            &["PutBucketLifecycleConfiguration", "PutBucketLifecycle"],
            &[],
            &["DeleteBucketLifecycle"],
        ],
    ),
    ("logging", [&["GetBucketLogging"], &["PutBucketLogging"], &[], &[]]),
    ("metadataAnnotationTable", [&[], &["UpdateBucketMetadataAnnotationTableConfiguration"], &[], &[]]),
    (
        "metadataConfiguration",
        [&["GetBucketMetadataConfiguration"], &[], &["CreateBucketMetadataConfiguration"], &["DeleteBucketMetadataConfiguration"]],
    ),
    ("metadataInventoryTable", [&[], &["UpdateBucketMetadataInventoryTableConfiguration"], &[], &[]]),
    ("metadataJournalTable", [&[], &["UpdateBucketMetadataJournalTableConfiguration"], &[], &[]]),
    (
        "metadataTable",
        [
            &["GetBucketMetadataTableConfiguration"],
            &[],
            &["CreateBucketMetadataTableConfiguration"],
            &["DeleteBucketMetadataTableConfiguration"],
        ],
    ),
    (
        "metrics",
        [
            &["ListBucketMetricsConfigurations", "GetBucketMetricsConfiguration"],
            &["PutBucketMetricsConfiguration"],
            &[],
            &["DeleteBucketMetricsConfiguration"],
        ],
    ),
    (
        "notification",
        [
            &["GetBucketNotificationConfiguration", "GetBucketNotification"],
            &["PutBucketNotificationConfiguration", "PutBucketNotification"],
            &[],
            &[],
        ],
    ),
    ("object-lock", [&["GetObjectLockConfiguration"], &["PutObjectLockConfiguration"], &[], &[]]),
    ("ownershipControls", [&["GetBucketOwnershipControls"], &["PutBucketOwnershipControls"], &[], &["DeleteBucketOwnershipControls"]]),
    ("policy", [&["GetBucketPolicy"], &["PutBucketPolicy"], &[], &["DeleteBucketPolicy"]]),
    ("policyStatus", [&["GetBucketPolicyStatus"], &[], &[], &[]]),
    ("publicAccessBlock", [&["GetPublicAccessBlock"], &["PutPublicAccessBlock"], &[], &["DeletePublicAccessBlock"]]),
    ("replication", [&["GetBucketReplication"], &["PutBucketReplication"], &[], &["DeleteBucketReplication"]]),
    ("requestPayment", [&["GetBucketRequestPayment"], &["PutBucketRequestPayment"], &[], &[]]),
    ("session", [&["CreateSession"], &[], &[], &[]]),
    ("tagging", [&["GetBucketTagging"], &["PutBucketTagging"], &[], &["DeleteBucketTagging"]]),
    ("versioning", [&["GetBucketVersioning"], &["PutBucketVersioning"], &[], &[]]),
    ("website", [&["GetBucketWebsite"], &["PutBucketWebsite"], &[], &["DeleteBucketWebsite"]]),
];
const OF_OBJECTS: [(&str, [&[&str]; 4]); 10] = [
    ("acl", [&["GetObjectAcl"], &["PutObjectAcl"], &[], &[]]),
    ("annotation", [&["GetObjectAnnotation", "ListObjectAnnotations"], &["PutObjectAnnotation"], &[], &["DeleteObjectAnnotation"]]),
    ("attributes", [&["GetObjectAttributes"], &[], &[], &[]]),
    ("encryption", [&[], &["UpdateObjectEncryption"], &[], &[]]),
    ("legal-hold", [&["GetObjectLegalHold"], &["PutObjectLegalHold"], &[], &[]]),
    ("renameObject", [&[], &["RenameObject"], &[], &[]]),
    ("restore", [&[], &[], &["RestoreObject"], &[]]),
    ("retention", [&["GetObjectRetention"], &["PutObjectRetention"], &[], &[]]),
    ("tagging", [&["GetObjectTagging"], &["PutObjectTagging"], &[], &["DeleteObjectTagging"]]),
    ("torrent", [&["GetObjectTorrent"], &[], &[], &[]]),
];
const METHODS: [&str; 4] = ["GET", "PUT", "POST", "DELETE"];

/// Every call with its method and target.
fn calls() -> Vec<(&'static str, &'static str, String)> {
    let mut calls: Vec<_> = PLAIN.iter().map(|(name, method, target)| (*name, *method, (*target).to_owned())).collect();
    for (resource, families) in [("/bkt", &OF_BUCKETS[..]), ("/bkt/k", &OF_OBJECTS[..])] {
        for (parameter, names) in families {
            for (method, names) in METHODS.iter().zip(names) {
                calls.extend(names.iter().map(|name| (*name, *method, format!("{resource}?{parameter}"))));
            }
        }
    }
    calls
}

/// What the page says of each call. Fails on a call that stands twice, and on a third word.
fn documented() -> BTreeMap<&'static str, bool> {
    let table = PAGE.split("| call | state | |").nth(1).expect("the page has the table of calls");
    let mut said = BTreeMap::new();
    for row in table.lines().skip(2).take_while(|line| line.starts_with('|')) {
        let columns: Vec<&str> = row.trim_matches('|').split(" | ").map(|column| column.trim_matches(['|', ' '])).collect();
        let works = match columns[1] {
            "works" => true,
            "refused" => false,
            other => panic!("{other:?} is no state of a call: {row}"),
        };
        for name in columns[0].split(", ") {
            assert_eq!(said.insert(name, works), None, "{name} stands twice");
        }
    }
    said
}

#[tokio::test]
async fn the_page_says_of_each_call_what_becomes_of_it() {
    let server = Server::start().await;
    let client = &server.client;
    client.put("/bkt/k", "x").await.ok();
    let mut said = documented();
    for (name, method, target) in calls() {
        let call = client.call(method, &target);
        let call = if name.contains("Copy") { call.header("x-amz-copy-source", "bkt/k") } else { call };
        let answer = call.send().await;
        let works = !matches!(answer.status, 405 | 501);
        assert_eq!(said.remove(name), Some(works), "{name}: {} {}", answer.status, answer.text());
        assert!(works || answer.code() == "NotImplemented", "{name}: {}", answer.text());
    }
    assert!(said.is_empty(), "these are no calls: {said:?}");
}

#[test]
fn no_sub_resource_of_the_router_is_left_out() {
    let asked: BTreeSet<(String, &str)> = calls().into_iter().map(|(_, method, target)| (target, method)).collect();
    let has = |target: String, method: &str| {
        let begins = |(other, of): &(String, &str)| {
            *of == method && (*other == target || other.starts_with(&format!("{target}=")) || other.starts_with(&format!("{target}&")))
        };
        assert!(asked.iter().any(begins), "{method} {target} is no call that the page is checked for");
    };
    for selector in BUCKET_SELECTORS {
        selector.methods.split(", ").for_each(|method| has(format!("/bkt?{}", selector.name), method));
    }
    for (name, _, methods) in OBJECT_SELECTORS {
        methods.split(", ").for_each(|method| has(format!("/bkt/k?{name}"), method));
    }
    let refused = |name: &str, targets: &BTreeSet<(String, &str)>| targets.iter().any(|(target, _)| target.contains(&format!("?{name}")));
    assert!(BUCKET_REFUSED.iter().chain(OBJECT_REFUSED).all(|name| refused(name, &asked)));
}
