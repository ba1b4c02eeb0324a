//! What a coordinator does with a group: reads and writes by quorum, one call a node for a whole batch.
//!
//! Reading order: `errors`, `drive` (carries the messages of register operations), `turns` (rivals of this node wait in line), `registers`
//! (reads and writes of register rows), `merged` (merge rows, ranges, queries, companions), `fences` (writes that are to come too late).

mod drive;
mod errors;
mod fences;
mod merged;
mod registers;
mod turns;

use std::{sync::Arc, time::Duration};

use garage_net::NodeId;
use garage_rpc::{CallOptions, Cluster, Placement, register::QuorumSets};
use garage_util::config::ConsistencyMode;
use tokio::time::Instant;

pub use errors::TableError;
pub use merged::{MergeRow, RangePage, SortKeyRange};
pub use registers::{Decision, ReadRow, RefusedWrite, RegisterRead, RegisterWrite, RowTest, SharedWrite, Updated};

use crate::{key::Group, schema::Schemas, store::Store};

/// How long a request may take, and what ties its steps together in logs.
#[derive(Clone, Copy, Debug)]
pub struct RequestContext {
    /// When its client is answered with a time-out.
    pub deadline: Instant,
    /// Ties the steps of one request together in logs.
    pub trace: u64,
}

impl RequestContext {
    /// A request that must be answered within `patience`.
    pub fn within(patience: Duration) -> RequestContext {
        RequestContext { deadline: Instant::now() + patience, trace: 0 }
    }
    /// Options for a call that is a step of this request.
    pub fn call_options(&self) -> CallOptions {
        CallOptions::until(self.deadline).traced(self.trace)
    }
}

/// The tables of a cluster, as a coordinator uses them. Cheap to clone.
#[derive(Clone)]
pub struct Tables {
    cluster: Cluster,
    schemas: Arc<Schemas>,
    turns: turns::Turns,
}

/// Where a group lives now.
struct Holders {
    /// Quorums for writes and for register operations.
    sets: QuorumSets<NodeId>,
    /// Whom to ask first.
    nearest: Vec<NodeId>,
    /// Held for as long as an operation uses it.
    placement: Placement,
}

impl Tables {
    /// Tables over a cluster whose router serves [`crate::message::GroupCall`] by `store`.
    pub fn new(cluster: Cluster, store: &Store) -> Tables {
        Tables { cluster, schemas: Arc::new(store.schemas().clone()), turns: turns::Turns::default() }
    }
    /// The cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// As [`Tables::holders`], with majorities whatever the consistency mode: for answers on which deletions rest.
    fn majority_holders(&self, group: &Group) -> Result<Holders, TableError> {
        let holders = self.holders(group)?;
        Ok(Holders { sets: holders.placement.majority.clone(), ..holders })
    }

    fn holders(&self, group: &Group) -> Result<Holders, TableError> {
        let placement = self.cluster.placement(group.hash()).map_err(|_| TableError::LayoutNotReady)?;
        let mut nearest = placement.write.nodes();
        self.cluster.order_by_nearness(&mut nearest);
        // Rounds and reads that settle must not depend on the consistency mode; in the consistent mode both are the same.
        let sets = if self.cluster.consistency_mode() == ConsistencyMode::Consistent { &placement.majority } else { &placement.write };
        Ok(Holders { sets: sets.clone(), nearest, placement })
    }
}
