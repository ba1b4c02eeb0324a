//! CORS, lifecycle and routing rules. Field names are those of the S3 XML elements; repeated elements are arrays.

use serde::{Deserialize, Serialize};

/// A CORS rule.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CorsRule {
    /// Its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "ID")]
    pub id: Option<String>,
    /// How long browsers may remember it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_seconds: Option<i64>,
    /// Origins.
    pub allowed_origin: Vec<String>,
    /// Methods.
    pub allowed_method: Vec<String>,
    /// Request headers.
    #[serde(default)]
    pub allowed_header: Vec<String>,
    /// Answer headers that scripts may read.
    #[serde(default)]
    pub expose_header: Vec<String>,
}

/// A lifecycle rule.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct LifecycleRule {
    /// Its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "ID")]
    pub id: Option<String>,
    /// `Enabled` or `Disabled`.
    pub status: String,
    /// What it applies to; absent: everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<LifecycleFilter>,
    /// When objects are deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration: Option<LifecycleExpiration>,
    /// When unfinished uploads are aborted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort_incomplete_multipart_upload: Option<LifecycleAbort>,
}

/// What a lifecycle rule applies to: one condition, or several under `And`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct LifecycleFilter {
    /// All of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub and: Option<Box<LifecycleFilter>>,
    /// Keys that start so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Bytes, exclusive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_size_greater_than: Option<i64>,
    /// Bytes, exclusive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_size_less_than: Option<i64>,
}

/// When objects are deleted: one of these.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct LifecycleExpiration {
    /// Days after they were written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days: Option<i64>,
    /// From this date on, `YYYY-MM-DD`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
}

/// When unfinished uploads are aborted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct LifecycleAbort {
    /// Days after they were started.
    pub days_after_initiation: i64,
}

/// A redirect of a website.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RoutingRule {
    /// When; `null`: always.
    pub condition: Option<RoutingCondition>,
    /// Where to.
    pub redirect: RedirectTarget,
}

/// When a redirect applies.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RoutingCondition {
    /// Only 404.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_error_code_returned_equals: Option<i64>,
    /// Keys that start so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_prefix_equals: Option<String>,
}

/// Where a redirect leads.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RedirectTarget {
    /// Another host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_name: Option<String>,
    /// `http` or `https`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The status; 302 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_redirect_code: Option<i64>,
    /// In place of the prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace_key_prefix_with: Option<String>,
    /// In place of the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace_key_with: Option<String>,
}
