//! The ring: which nodes hold each partition, how that is computed, staged, applied, and how it moves from one version to the next.
//!
//! Everything here is pure: no clock, no I/O, no randomness; every node computes the same from the same input.
//!
//! Reading order: `role` (what the operator says of a node), `version` (one applied layout), `quorums` (how many answers are
//! enough), `staging` (changes not yet applied), `assign` over `flow` (the computation), `report` (what the operator is told of it),
//! `history` (the live versions and their trackers), `skip` (giving up on dead nodes), `error`.
//!
//! Not here: keeping the history on disk, gossiping it, agreeing on version N+1 (`layout_manager`).

mod assign;
mod error;
#[cfg(test)]
mod exhaustive;
mod flow;
mod history;
mod quorums;
mod report;
mod role;
mod skip;
mod staging;
mod version;

pub use error::{LayoutDamaged, LayoutError};
pub use garage_util::config::ConsistencyMode;
pub use history::{HISTORICAL_VERSIONS_KEPT, LayoutHistory, Placement, ReadSet, Trackers, VersionStatus, VersionSummary, WriteSet};
pub use quorums::{majority, read_quorum, write_quorum};
pub use report::{LayoutReport, NodeReport, ZoneReport, format_size};
pub use role::{CAPACITY_MIN_BYTES, Role, TAG_COUNT_MAX, TEXT_LEN_MAX_BYTES, ZoneRedundancy};
pub use skip::{SkipError, SkipReport};
pub use staging::{Lww, RoleChange, Staging};
pub use version::{LAYOUT_NODE_COUNT_MAX, LayoutVersion, PARTITION_COUNT_DEFAULT, PARTITION_COUNT_MAX, Partition, REPLICATION_FACTOR_MAX};
