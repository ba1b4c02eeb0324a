//! How operations on groups fail, sorted by who must act.

use garage_net::CallError;
use garage_rpc::register::Outcome;

use crate::store::STORAGE_FULL;

/// Why an operation on a group gave no result. All but `Damaged` and `Refused` pass when nodes come back: 503.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// No layout has been applied.
    #[error("the cluster has no layout yet: assign roles with `garage layout assign` and apply them with `garage layout apply`")]
    LayoutNotReady,
    /// Too few of the nodes that hold the rows answered; nothing was written.
    #[error("too few of the nodes that hold this answered in time; try again ({reason})")]
    Unavailable {
        /// What the last failing node said.
        reason: String,
    },
    /// A write may have taken effect, or may yet, or never.
    #[error("too few nodes answered to tell whether this write took effect; read it back before trying again")]
    OutcomeUnknown,
    /// Others kept writing the same row.
    #[error("others wrote the same thing at the same time; try again")]
    Contended,
    /// Too many nodes have no space left. A write may have reached those that have, and so may still take effect.
    #[error("the nodes that hold this have no space left")]
    StorageFull,
    /// This node's clock can't be used.
    #[error("{reason}")]
    Clock {
        /// What is wrong with it.
        reason: String,
    },
    /// A stored row can't be read.
    #[error("a stored row can't be read: {reason}")]
    Damaged {
        /// The decoder's sentence.
        reason: String,
    },
}

/// What the nodes of one operation said when they failed.
#[derive(Default)]
pub(super) struct Failures {
    last: Option<String>,
    storage_full: bool,
}

impl Failures {
    pub(super) fn note(&mut self, error: &CallError) {
        if let CallError::Refused(refusal) = error {
            self.storage_full |= refusal.code == STORAGE_FULL;
        }
        self.last = Some(error.to_string());
    }

    pub(super) fn note_reason(&mut self, reason: String) {
        self.last = Some(reason);
    }

    /// The error of an operation that could not reach a quorum.
    pub(super) fn unavailable(&self) -> TableError {
        if self.storage_full {
            return TableError::StorageFull;
        }
        TableError::Unavailable { reason: self.last.clone().unwrap_or_else(|| "the time of the request ran out".to_string()) }
    }

    pub(super) fn of_outcome<N>(&self, outcome: &Outcome<N>) -> TableError {
        match outcome {
            Outcome::Contended => TableError::Contended,
            // What the operator can act upon comes before what nobody can.
            Outcome::Unknown if self.storage_full => TableError::StorageFull,
            Outcome::Unknown => TableError::OutcomeUnknown,
            _ => self.unavailable(),
        }
    }
}
