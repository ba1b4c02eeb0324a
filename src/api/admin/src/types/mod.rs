//! What goes into the endpoints and what comes out, field for field as the interface spells it.
//!
//! An `Option` is `null` when absent, unless it is marked to be left out. Ids are text here, since a malformed one is the client's
//! mistake and gets a sentence of its own; the handlers parse them.

mod bucket;
mod cluster;
mod key;
mod layout;
mod node;
mod object;
mod rules;
mod shared;
mod token;

pub use bucket::{
    Alias, Bucket, BucketCreate, BucketItem, BucketKey, BucketKeyChange, BucketLocalAlias, BucketSearch, BucketUpdate, CleanedUploads,
    CleanupUploads, LocalAliasCreate, Quotas, Website, WebsiteUpdate,
};
pub use cluster::{ClusterHealth, ClusterStatistics, ClusterStatus, ConnectResult, HealthStatus, Node, NodeRole, RefusedPeer, Space};
pub use key::{Key, KeyBucket, KeyImport, KeyItem, KeyPermissions, KeySearch, KeyUpdate};
pub use layout::{
    ApplyVersion, Layout, LayoutApply, LayoutHistory, LayoutParameters, LayoutPreview, LayoutRole, LayoutStatistics, LayoutUpdate,
    LayoutVersion, LayoutVersionStatus, NodeProgress, NodeStatisticsInLayout, RecoverLayout, RecoveredLayout, RoleChange, SkipDeadNodes,
    SkippedNodes, Trackers, ZoneRedundancy, ZoneStatistics,
};
pub use node::{
    BlockBacklink, BlockError, BlockInfo, BlockManagerStatistics, BlockName, BlockVersion, ConnectionParameters, LaunchRepair, NodeInfo,
    NodeStatistics, PurgeResult, RepairType, RetriedBlocks, RetryBlocks, ScrubCommand, TableStatistics, Variable, VariableName, Variables,
    Worker, WorkerFailure, WorkerFilter, WorkerNumber, WorkerState,
};
pub use object::{ObjectBlock, ObjectInspection, ObjectName, ObjectVersion};
pub use rules::{
    CorsRule, LifecycleAbort, LifecycleExpiration, LifecycleFilter, LifecycleRule, RedirectTarget, RoutingCondition, RoutingRule,
};
pub use shared::{ById, Id, NoParameters, NodeAnswers, OnNode, Page, Permissions};
pub use token::{AdminToken, AdminTokenUpdate, NewAdminToken, TokenSearch};
