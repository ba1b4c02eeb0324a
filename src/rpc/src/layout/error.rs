//! Why a layout can't be computed, staged or read.

/// Why a change to the layout is refused; each sentence says what to do. For the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Fewer storage nodes than copies.
    #[error(
        "replication factor {replication_factor} needs {replication_factor} storage nodes and only {present_count} {} assigned: \
         assign {missing_count} more with a capacity",
        if *present_count == 1 { "is" } else { "are" }
    )]
    TooFewNodes {
        /// Copies of each partition.
        replication_factor: usize,
        /// Nodes with a capacity.
        present_count: usize,
        /// How many more are needed.
        missing_count: usize,
    },
    /// Fewer zones than the redundancy asks for.
    #[error(
        "zone redundancy {asked} needs storage nodes in {asked} zones and there are some only in {}: \
         assign nodes with a capacity in {missing_count} more {}, or lower the zone redundancy",
        quoted_list(zones), if *missing_count == 1 { "zone" } else { "zones" }
    )]
    TooFewZones {
        /// Zones asked for.
        asked: usize,
        /// Zones that have storage nodes, sorted.
        zones: Vec<String>,
        /// How many more are needed.
        missing_count: usize,
    },
    /// `AtLeast(n)` with n outside 1 to the replication factor.
    #[error("zone redundancy {asked} is out of range: it is maximum, or a number from 1 to the replication factor, {replication_factor}")]
    RedundancyOutOfRange {
        /// Zones asked for.
        asked: usize,
        /// Copies of each partition.
        replication_factor: usize,
    },
    /// Neither a word nor a number known.
    #[error("{text:?} is not a zone redundancy: give none, max, maximum or a number from 1")]
    UnreadableRedundancy {
        /// What was given.
        text: String,
    },
    /// No such number of copies.
    #[error("replication factor {asked} is out of range: it is from 1 to {max}")]
    ReplicationFactorOutOfRange {
        /// Copies asked for.
        asked: usize,
        /// The greatest allowed.
        max: usize,
    },
    /// More nodes than a layout can hold.
    #[error("a layout holds at most {max} nodes and {count} are assigned: remove some")]
    TooManyNodes {
        /// Nodes with a role.
        count: usize,
        /// The most allowed.
        max: usize,
    },
    /// The role itself breaks a rule.
    #[error("{reason}")]
    InvalidRole {
        /// The rule that is broken.
        reason: String,
    },
    /// The operator looked at another version than the present one.
    #[error("version {given} can't be applied, the next one is {expected}: look at the staged changes again with `garage layout show`")]
    WrongVersion {
        /// The version the operator names.
        given: u64,
        /// Current version plus one.
        expected: u64,
    },
}

/// Why a layout that was read from a peer or a disk is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("layout version {version} is damaged: {reason}; take the layout from another node")]
pub struct LayoutDamaged {
    /// The version it claims to be.
    pub version: u64,
    /// The rule it breaks.
    pub reason: String,
}

fn quoted_list(zones: &[String]) -> String {
    match zones {
        [] => "no zone".to_owned(),
        _ => zones.iter().map(|zone| format!("{zone:?}")).collect::<Vec<_>>().join(", "),
    }
}
