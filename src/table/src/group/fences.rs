//! Fences: all replicas of a register refuse a write for ever, because its blocks are about to be deleted.
//!
//! Invariant: a write is called fenced only if every replica, in every live layout version, has durably fenced it while it did not hold
//! it. Then it is nowhere and can't come to be anywhere. Where that fails, the fences that were set are lifted again: a write that some
//! replicas refuse and others hold would make the key slow to read while a replica is away.

use std::collections::BTreeSet;

use futures::future::join_all;
use garage_net::NodeId;
use garage_rpc::register::WriteId;
use garage_util::hlc::Stamp;

use super::{RequestContext, TableError, Tables};
use crate::{
    key::{Group, SortKey, TableId},
    message::{GroupCall, Op, OpAnswer},
};

impl Tables {
    /// Whether a write of a register can never come to be any more. False: it is held somewhere, or a replica could not be asked.
    pub async fn fence(
        &self,
        group: &Group,
        table: TableId,
        key: &SortKey,
        id: WriteId,
        context: RequestContext,
    ) -> Result<bool, TableError> {
        let now = self.cluster.tick(Stamp::ZERO).await.map_err(|error| TableError::Clock { reason: error.to_string() })?;
        let holders = self.majority_holders(group)?;
        let nodes = holders.sets.nodes();
        let op = |lift| Op::Fence { table, key: key.clone(), id, now, lift };
        let is_fenced = self.tell_all(group, &nodes, op(false), context).await;
        // A layout change in between may have brought a replica that was not asked; one that comes later takes the fence over.
        let nodes_now = self.majority_holders(group)?.sets.nodes();
        if is_fenced && nodes_now == nodes {
            return Ok(true);
        }
        let told: BTreeSet<NodeId> = nodes.into_iter().chain(nodes_now).collect();
        self.tell_all(group, &Vec::from_iter(told), op(true), context).await;
        Ok(false)
    }

    /// Lifts the fences of a write that turned out to live.
    pub async fn lift_fence(
        &self,
        group: &Group,
        table: TableId,
        key: &SortKey,
        id: WriteId,
        context: RequestContext,
    ) -> Result<(), TableError> {
        let nodes = self.majority_holders(group)?.sets.nodes();
        self.tell_all(group, &nodes, Op::Fence { table, key: key.clone(), id, now: Stamp::ZERO, lift: true }, context).await;
        Ok(())
    }

    /// Whether all of them answered that the write is fenced.
    async fn tell_all(&self, group: &Group, nodes: &[NodeId], op: Op, context: RequestContext) -> bool {
        let message = GroupCall { group: group.key().clone(), ops: vec![op] };
        let answers = join_all(nodes.iter().map(|node| self.call_group(*node, message.clone(), context))).await;
        answers.into_iter().all(|answer| matches!(answer.map(|answer| answer.answers.into_iter().next()), Ok(Some(OpAnswer::Fenced(true)))))
    }
}
