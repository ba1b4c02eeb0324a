//! The actions of S3 that policies name: what each is on, and which right of a key grants it where no policy speaks.
//!
//! Source: AWS Service Authorization Reference, "Actions, resources, and condition keys for Amazon S3"; s3 reference §3.12.

use crate::rights::Right;

/// What an action is on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Level {
    /// The service: no bucket policy reaches it.
    Service,
    /// A bucket.
    Bucket,
    /// An object.
    Object,
}

/// An action of S3.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Action {
    name: &'static str,
    level: Level,
    right: Right,
}

impl Action {
    /// The name behind `s3:`.
    pub fn name(self) -> &'static str {
        self.name
    }
    /// What it is on.
    pub fn level(self) -> Level {
        self.level
    }
    /// The right that lets a key do it without a policy.
    pub fn right(self) -> Right {
        self.right
    }
    /// The same action, but another right of a key grants it.
    pub const fn by(self, right: Right) -> Action {
        Action { right, ..self }
    }
    /// The action on a named version, where S3 tells it apart.
    pub fn on_version(self) -> Action {
        match self {
            GET_OBJECT => GET_OBJECT_VERSION,
            GET_OBJECT_ACL => GET_OBJECT_VERSION_ACL,
            GET_OBJECT_TAGGING => GET_OBJECT_VERSION_TAGGING,
            GET_OBJECT_ATTRIBUTES => GET_OBJECT_VERSION_ATTRIBUTES,
            PUT_OBJECT_ACL => PUT_OBJECT_VERSION_ACL,
            PUT_OBJECT_TAGGING => PUT_OBJECT_VERSION_TAGGING,
            DELETE_OBJECT => DELETE_OBJECT_VERSION,
            DELETE_OBJECT_TAGGING => DELETE_OBJECT_VERSION_TAGGING,
            other => other,
        }
    }
}

macro_rules! actions {
    ($($constant:ident $name:literal $level:ident $right:ident)*) => {
        $(
            #[doc = concat!("`s3:", $name, "`")]
            pub const $constant: Action = Action { name: $name, level: Level::$level, right: Right::$right };
        )*
        /// All actions that a policy may name.
        pub const ALL: &[Action] = &[$($constant,)*];
    };
}

actions! {
    LIST_ALL_MY_BUCKETS "ListAllMyBuckets" Service Any
    CREATE_BUCKET "CreateBucket" Bucket Owner
    DELETE_BUCKET "DeleteBucket" Bucket Owner
    DELETE_BUCKET_POLICY "DeleteBucketPolicy" Bucket Owner
    DELETE_BUCKET_WEBSITE "DeleteBucketWebsite" Bucket Owner
    GET_ACCELERATE_CONFIGURATION "GetAccelerateConfiguration" Bucket Any
    GET_ANALYTICS_CONFIGURATION "GetAnalyticsConfiguration" Bucket Any
    GET_BUCKET_ACL "GetBucketAcl" Bucket Any
    GET_BUCKET_CORS "GetBucketCORS" Bucket Any
    GET_BUCKET_LOCATION "GetBucketLocation" Bucket Any
    GET_BUCKET_LOGGING "GetBucketLogging" Bucket Any
    GET_BUCKET_NOTIFICATION "GetBucketNotification" Bucket Any
    GET_BUCKET_OBJECT_LOCK_CONFIGURATION "GetBucketObjectLockConfiguration" Bucket Any
    GET_BUCKET_OWNERSHIP_CONTROLS "GetBucketOwnershipControls" Bucket Any
    GET_BUCKET_POLICY "GetBucketPolicy" Bucket Owner
    GET_BUCKET_POLICY_STATUS "GetBucketPolicyStatus" Bucket Any
    GET_BUCKET_PUBLIC_ACCESS_BLOCK "GetBucketPublicAccessBlock" Bucket Any
    GET_BUCKET_REQUEST_PAYMENT "GetBucketRequestPayment" Bucket Any
    GET_BUCKET_TAGGING "GetBucketTagging" Bucket Any
    GET_BUCKET_VERSIONING "GetBucketVersioning" Bucket Any
    GET_BUCKET_WEBSITE "GetBucketWebsite" Bucket Any
    GET_ENCRYPTION_CONFIGURATION "GetEncryptionConfiguration" Bucket Any
    GET_INTELLIGENT_TIERING_CONFIGURATION "GetIntelligentTieringConfiguration" Bucket Any
    GET_INVENTORY_CONFIGURATION "GetInventoryConfiguration" Bucket Any
    GET_LIFECYCLE_CONFIGURATION "GetLifecycleConfiguration" Bucket Any
    GET_METRICS_CONFIGURATION "GetMetricsConfiguration" Bucket Any
    GET_REPLICATION_CONFIGURATION "GetReplicationConfiguration" Bucket Any
    LIST_BUCKET "ListBucket" Bucket Read
    LIST_BUCKET_MULTIPART_UPLOADS "ListBucketMultipartUploads" Bucket Read
    LIST_BUCKET_VERSIONS "ListBucketVersions" Bucket Read
    PUT_ACCELERATE_CONFIGURATION "PutAccelerateConfiguration" Bucket Owner
    PUT_ANALYTICS_CONFIGURATION "PutAnalyticsConfiguration" Bucket Owner
    PUT_BUCKET_ACL "PutBucketAcl" Bucket Owner
    PUT_BUCKET_CORS "PutBucketCORS" Bucket Owner
    PUT_BUCKET_LOGGING "PutBucketLogging" Bucket Owner
    PUT_BUCKET_NOTIFICATION "PutBucketNotification" Bucket Owner
    PUT_BUCKET_OBJECT_LOCK_CONFIGURATION "PutBucketObjectLockConfiguration" Bucket Owner
    PUT_BUCKET_OWNERSHIP_CONTROLS "PutBucketOwnershipControls" Bucket Owner
    PUT_BUCKET_POLICY "PutBucketPolicy" Bucket Owner
    PUT_BUCKET_PUBLIC_ACCESS_BLOCK "PutBucketPublicAccessBlock" Bucket Owner
    PUT_BUCKET_REQUEST_PAYMENT "PutBucketRequestPayment" Bucket Owner
    PUT_BUCKET_TAGGING "PutBucketTagging" Bucket Owner
    PUT_BUCKET_VERSIONING "PutBucketVersioning" Bucket Owner
    PUT_BUCKET_WEBSITE "PutBucketWebsite" Bucket Owner
    PUT_ENCRYPTION_CONFIGURATION "PutEncryptionConfiguration" Bucket Owner
    PUT_INTELLIGENT_TIERING_CONFIGURATION "PutIntelligentTieringConfiguration" Bucket Owner
    PUT_INVENTORY_CONFIGURATION "PutInventoryConfiguration" Bucket Owner
    PUT_LIFECYCLE_CONFIGURATION "PutLifecycleConfiguration" Bucket Owner
    PUT_METRICS_CONFIGURATION "PutMetricsConfiguration" Bucket Owner
    PUT_REPLICATION_CONFIGURATION "PutReplicationConfiguration" Bucket Owner
    ABORT_MULTIPART_UPLOAD "AbortMultipartUpload" Object Write
    BYPASS_GOVERNANCE_RETENTION "BypassGovernanceRetention" Object Owner
    DELETE_OBJECT "DeleteObject" Object Write
    DELETE_OBJECT_TAGGING "DeleteObjectTagging" Object Write
    DELETE_OBJECT_VERSION "DeleteObjectVersion" Object Write
    DELETE_OBJECT_VERSION_TAGGING "DeleteObjectVersionTagging" Object Write
    GET_OBJECT "GetObject" Object Read
    GET_OBJECT_ACL "GetObjectAcl" Object Read
    GET_OBJECT_ATTRIBUTES "GetObjectAttributes" Object Read
    GET_OBJECT_LEGAL_HOLD "GetObjectLegalHold" Object Read
    GET_OBJECT_RETENTION "GetObjectRetention" Object Read
    GET_OBJECT_TAGGING "GetObjectTagging" Object Read
    GET_OBJECT_TORRENT "GetObjectTorrent" Object Read
    GET_OBJECT_VERSION "GetObjectVersion" Object Read
    GET_OBJECT_VERSION_ACL "GetObjectVersionAcl" Object Read
    GET_OBJECT_VERSION_ATTRIBUTES "GetObjectVersionAttributes" Object Read
    GET_OBJECT_VERSION_FOR_REPLICATION "GetObjectVersionForReplication" Object Read
    GET_OBJECT_VERSION_TAGGING "GetObjectVersionTagging" Object Read
    GET_OBJECT_VERSION_TORRENT "GetObjectVersionTorrent" Object Read
    INITIATE_REPLICATION "InitiateReplication" Object Write
    LIST_MULTIPART_UPLOAD_PARTS "ListMultipartUploadParts" Object Write
    OBJECT_OWNER_OVERRIDE "ObjectOwnerOverrideToBucketOwner" Object Write
    PUT_OBJECT "PutObject" Object Write
    PUT_OBJECT_ACL "PutObjectAcl" Object Write
    PUT_OBJECT_LEGAL_HOLD "PutObjectLegalHold" Object Write
    PUT_OBJECT_RETENTION "PutObjectRetention" Object Write
    PUT_OBJECT_TAGGING "PutObjectTagging" Object Write
    PUT_OBJECT_VERSION_ACL "PutObjectVersionAcl" Object Write
    PUT_OBJECT_VERSION_TAGGING "PutObjectVersionTagging" Object Write
    REPLICATE_DELETE "ReplicateDelete" Object Write
    REPLICATE_OBJECT "ReplicateObject" Object Write
    REPLICATE_TAGS "ReplicateTags" Object Write
    RESTORE_OBJECT "RestoreObject" Object Write
}
