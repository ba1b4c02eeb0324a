//! What operators are shown of each node.

use std::time::Duration;

use garage_net::NodeId;
use serde::{Deserialize, Serialize};

use crate::{
    cluster::StoreMark,
    membership::{SpaceReport, WorkReport},
};

/// One node, as `garage status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Who.
    pub node: NodeId,
    /// Whether it is the node that answers.
    pub is_self: bool,
    /// Its host name, once heard.
    pub hostname: Option<String>,
    /// Where it is connected, or was last or is expected to be.
    pub address: Option<String>,
    /// The version of its release, once heard.
    pub release: Option<String>,
    /// Whether it can be expected to answer.
    pub is_up: bool,
    /// How long ago it was heard; `None`: never since this node started.
    pub last_seen: Option<Duration>,
    /// Measured round-trip time.
    pub rtt: Option<Duration>,
    /// Why the last connection was refused or failed, while there is none.
    pub refused: Option<String>,
    /// The newest layout version it knows.
    pub layout_version: Option<u64>,
    /// Its free space.
    pub space: SpaceReport,
    /// How far it is with what layouts and losses ask of it.
    #[serde(default)]
    pub work: WorkReport,
    /// How far its wall clock is ahead of this node's (negative: behind), in milliseconds, once it was heard since this node started.
    #[serde(default)]
    pub clock_ahead_ms: Option<i64>,
    /// How its store differs from what it acknowledged with before.
    pub store_regression: Option<StoreRegression>,
}

/// A node's store is not the one that it acknowledged with, or an older state of it: what it acknowledged may be lost there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("the store is at commit {} of {}, and was at commit {} of {}: acknowledged data may be lost there", .found.commit_number, .found.store_id.short(), .known.commit_number, .known.store_id.short())]
pub struct StoreRegression {
    /// The highest mark it acknowledged with.
    pub known: StoreMark,
    /// What it has now.
    pub found: StoreMark,
}
