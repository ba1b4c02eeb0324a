//! Looks at the block files of all nodes: every block of every live version is on each of its holders, and nothing else is anywhere.

use std::collections::{BTreeMap, BTreeSet};

use garage_block::{BlockHash, leases::Verdict, store::WalkPosition};
use garage_model::{RequestContext, objects::BucketRef, upkeep::block_info::uses_of};
use garage_net::NodeId;

use crate::{client::context, cluster::Cluster};

/// What is wrong with the blocks of these keys; empty: nothing. All nodes must be up.
///
/// Nobody may be writing. What was superseded or given up only lately is still there: see the delays in `garage_block::limits`.
pub async fn check(cluster: &Cluster, bucket: &BucketRef, keys: &[String]) -> Vec<String> {
    let mut wrong = Vec::new();
    let live = match live_blocks(cluster, bucket, keys).await {
        Ok(live) => live,
        Err(error) => return vec![error],
    };
    let mut files: BTreeMap<NodeId, BTreeSet<BlockHash>> = BTreeMap::new();
    for index in cluster.alive() {
        files.insert(cluster.id(index), files_of(cluster, index).await);
    }
    let placement = |hash: &BlockHash| cluster.node(cluster.alive()[0]).cluster.placement(&hash.placement_hash());
    for (hash, key) in &live {
        let Ok(placement) = placement(hash) else { return vec!["there is no layout".to_string()] };
        for node in placement.write.nodes() {
            if !files.get(&node).is_some_and(|files| files.contains(hash)) {
                wrong.push(format!("block {} of {key:?} is not on node {}", hash.short(), node.short()));
            }
        }
    }
    for index in cluster.alive() {
        for hash in files[&cluster.id(index)].iter().filter(|hash| !live.contains_key(hash)) {
            wrong.extend(leak(cluster, index, *hash).await);
        }
    }
    wrong
}

/// A block that no live version has must be one of an upload that goes on.
async fn leak(cluster: &Cluster, index: usize, hash: BlockHash) -> Option<String> {
    let node = cluster.node(index);
    let uses = match uses_of(node, node.objects.tables(), hash).await {
        Ok(uses) => uses,
        Err(error) => return Some(format!("node {index}: the references of block {} can't be read: {error}", hash.short())),
    };
    let is_needed = uses.iter().any(|used| matches!(used.verdict, Verdict::Live | Verdict::Pending));
    (!is_needed).then(|| format!("block {} is on node {index} and nothing needs it: {uses:?}", hash.short()))
}

/// The blocks of all live versions, each with a key that has it.
async fn live_blocks(cluster: &Cluster, bucket: &BucketRef, keys: &[String]) -> Result<BTreeMap<BlockHash, String>, String> {
    let objects = &cluster.node(cluster.alive()[0]).objects;
    let mut live = BTreeMap::new();
    for key in keys {
        let context: RequestContext = context();
        let found = objects.get(bucket, key, context).await.map_err(|error| format!("{key:?} can't be read: {error}"))?;
        let Some(found) = found else { continue };
        let blocks = objects.blocks_of(&found, context).await.map_err(|error| format!("the blocks of {key:?} can't be listed: {error}"))?;
        live.extend(blocks.into_iter().map(|block| (block.hash, key.clone())));
    }
    Ok(live)
}

async fn files_of(cluster: &Cluster, index: usize) -> BTreeSet<BlockHash> {
    let store = cluster.node(index).blocks.service().store();
    let (mut files, mut position) = (BTreeSet::new(), Some(WalkPosition(0)));
    while let Some(from) = position {
        let Ok(Some(step)) = store.walk(from).await else { break };
        files.extend(step.hashes);
        position = step.position.next();
    }
    files
}
