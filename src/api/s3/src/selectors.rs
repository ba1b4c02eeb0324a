//! The sub-resources of S3: which query parameters select them, and which methods each has.
//!
//! Source: s3 reference §1. A selector's value is ignored; names are case-sensitive.

/// A sub-resource of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketSelector {
    /// The query parameter.
    pub name: &'static str,
    /// `ResourceType` in errors.
    pub resource: &'static str,
    /// Methods that S3 has for it; the value of `Allow`.
    pub methods: &'static str,
    /// The setting that it is, unless it has operations of its own.
    pub setting: Option<Setting>,
}

/// A bucket setting that nothing here can change yet: GET answers as for a bucket where it was never set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// `versioning`
    Versioning,
    /// `cors`
    Cors,
    /// `lifecycle`
    Lifecycle,
    /// `policy`
    Policy,
    /// `policyStatus`
    PolicyStatus,
    /// `publicAccessBlock`
    PublicAccessBlock,
    /// `ownershipControls`
    OwnershipControls,
    /// `website`
    Website,
    /// `tagging`
    Tagging,
    /// `encryption`
    Encryption,
    /// `object-lock`
    ObjectLock,
    /// `replication`
    Replication,
    /// `logging`
    Logging,
    /// `notification`
    Notification,
    /// `accelerate`
    Accelerate,
    /// `requestPayment`
    RequestPayment,
    /// `analytics`
    Analytics,
    /// `metrics`
    Metrics,
    /// `inventory`
    Inventory,
    /// `intelligent-tiering`
    IntelligentTiering,
}

const fn plain(name: &'static str, resource: &'static str, methods: &'static str) -> BucketSelector {
    BucketSelector { name, resource, methods, setting: None }
}
const fn setting(name: &'static str, resource: &'static str, methods: &'static str, setting: Setting) -> BucketSelector {
    BucketSelector { name, resource, methods, setting: Some(setting) }
}

const READ_WRITE: &str = "GET, PUT";
const ALL: &str = "GET, PUT, DELETE";

/// All sub-resources of buckets.
pub const BUCKET_SELECTORS: &[BucketSelector] = &[
    plain("versions", "BUCKETVERSIONS", "GET"),
    plain("uploads", "UPLOADS", "GET"),
    plain("location", "LOCATION", "GET"),
    plain("delete", "MULTI_OBJECT_DELETE", "POST"),
    plain("acl", "ACL", READ_WRITE),
    setting("versioning", "VERSIONING", READ_WRITE, Setting::Versioning),
    setting("cors", "CORS", ALL, Setting::Cors),
    setting("lifecycle", "LIFECYCLE", ALL, Setting::Lifecycle),
    setting("policy", "BUCKETPOLICY", ALL, Setting::Policy),
    setting("policyStatus", "POLICY_STATUS", "GET", Setting::PolicyStatus),
    setting("publicAccessBlock", "PUBLIC_ACCESS_BLOCK", ALL, Setting::PublicAccessBlock),
    setting("ownershipControls", "OWNERSHIP_CONTROLS", ALL, Setting::OwnershipControls),
    setting("website", "WEBSITE", ALL, Setting::Website),
    setting("tagging", "TAGGING", ALL, Setting::Tagging),
    setting("encryption", "ENCRYPTION", ALL, Setting::Encryption),
    setting("object-lock", "OBJECT_LOCK", READ_WRITE, Setting::ObjectLock),
    setting("replication", "REPLICATION", ALL, Setting::Replication),
    setting("logging", "LOGGING_STATUS", READ_WRITE, Setting::Logging),
    setting("notification", "NOTIFICATION", READ_WRITE, Setting::Notification),
    setting("accelerate", "ACCELERATE", READ_WRITE, Setting::Accelerate),
    setting("requestPayment", "REQUEST_PAYMENT", READ_WRITE, Setting::RequestPayment),
    setting("analytics", "ANALYTICS", ALL, Setting::Analytics),
    setting("metrics", "METRICS", ALL, Setting::Metrics),
    setting("inventory", "INVENTORY", ALL, Setting::Inventory),
    setting("intelligent-tiering", "INTELLIGENT_TIERING", ALL, Setting::IntelligentTiering),
];

/// Sub-resources of buckets that are refused with 501 whatever the method.
pub const BUCKET_REFUSED: &[&str] = &[
    "session",
    "metadataTable",
    "metadataConfiguration",
    "metadataInventoryTable",
    "metadataJournalTable",
    "metadataAnnotationTable",
    "abac",
];

/// A sub-resource of an object: its parameter, `ResourceType`, and methods.
pub const OBJECT_SELECTORS: &[(&str, &str, &str)] = &[
    ("uploads", "UPLOADS", "POST"),
    ("uploadId", "UPLOAD", "GET, PUT, POST, DELETE"),
    ("acl", "ACL", READ_WRITE),
    ("tagging", "TAGGING", ALL),
    ("retention", "RETENTION", READ_WRITE),
    ("legal-hold", "LEGAL_HOLD", READ_WRITE),
    ("attributes", "ATTRIBUTES", "GET"),
    ("torrent", "TORRENT", "GET"),
    ("select", "SELECT", "POST"),
    ("restore", "RESTORE", "POST"),
    ("annotation", "ANNOTATION", ALL),
    ("renameObject", "RENAME", "PUT"),
    ("encryption", "ENCRYPTION", "PUT"),
];

/// Of these, the ones that are refused with 501.
pub const OBJECT_REFUSED: &[&str] = &["torrent", "select", "restore", "annotation", "renameObject", "encryption"];

/// Parameters that may stand without value on a request that changes something.
pub const MODIFIERS: &[&str] = &["versionId", "partNumber", "uploadId", "x-id", "id", "list-type", "prefix", "delimiter", "marker"];
