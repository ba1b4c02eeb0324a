//! Telling the nodes of blocks that the versions which needed them may be dead.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use garage_net::NodeId;
use garage_rpc::LayoutNotReady;

use super::{BlockManager, RequestContext};
use crate::{
    hash::BlockHash,
    limits::REFERENCES_PER_CALL_MAX_COUNT,
    message::{HintReferences, VersionBytes},
};

impl BlockManager {
    /// Tells every holder of each block about its reference; true once a write quorum of each block's holders has taken note durably.
    pub async fn hint(&self, references: Vec<(BlockHash, [u8; 32])>, context: RequestContext) -> Result<bool, LayoutNotReady> {
        let mut by_node: BTreeMap<NodeId, Vec<(BlockHash, VersionBytes)>> = BTreeMap::new();
        let mut sets = BTreeMap::new();
        for (block, version) in references {
            let holders = self.0.mesh.holders(block)?;
            for node in holders.write.nodes() {
                by_node.entry(node).or_default().push((block, VersionBytes(version)));
            }
            sets.insert(block, holders.write);
        }
        let told = join_all(by_node.into_iter().map(|(node, references)| self.hint_node(node, references, context))).await;
        let told: BTreeSet<NodeId> = told.into_iter().flatten().collect();
        Ok(sets.values().all(|set| set.has_quorum(&told)))
    }

    async fn hint_node(&self, node: NodeId, references: Vec<(BlockHash, VersionBytes)>, context: RequestContext) -> Option<NodeId> {
        for batch in references.chunks(REFERENCES_PER_CALL_MAX_COUNT) {
            let told = if node == self.0.mesh.local() {
                let batch = batch.iter().map(|(block, version)| (*block, version.0)).collect();
                self.0.service.hint(batch).await.map(drop).map_err(|refusal| refusal.message)
            } else {
                let message = HintReferences { references: batch.to_vec() };
                self.0.mesh.hint(node, message, context).await.map(drop).map_err(|error| error.to_string())
            };
            if let Err(error) = told {
                tracing::debug!(node = %node.short(), error, "a node could not be told of references that may be dead");
                return None;
            }
        }
        Some(node)
    }
}
