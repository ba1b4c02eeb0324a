//! How many whole copies there are of each partition: what an operator has to know before giving up on lost nodes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::{StreamExt, stream};
use garage_net::NodeId;
use garage_rpc::{CallOptions, layout::LayoutHistory};

use super::{Syncer, held::ring_partitions, message::AskStanding};
use crate::digest::DIGEST_PARTITION_COUNT;

/// How long a node has to say what it holds.
const PATIENCE: Duration = Duration::from_secs(5);
/// Nodes asked at once.
const ASKED_AT_ONCE_MAX: usize = 16;

/// The whole copies of all partitions, in the layout version that everybody reads from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopiesReport {
    /// Partitions of 256 of which so many nodes as to be a read quorum hold everything: nothing acknowledged is lost.
    pub sound_count: usize,
    /// Those with whole copies, but too few: what was acknowledged last may be lost.
    pub doubtful: Vec<u8>,
    /// Those without any whole copy: what is there may be older than what was acknowledged, or nothing.
    pub without_copy: Vec<u8>,
    /// Storage nodes that did not answer.
    pub silent: Vec<NodeId>,
}

impl Syncer {
    /// Asks every storage node of the live layout versions.
    pub async fn count_copies(&self) -> CopiesReport {
        let history = self.cluster().layout();
        let nodes: Vec<NodeId> = history.live_storage_nodes().into_iter().collect();
        let asked = stream::iter(nodes).map(|node| async move {
            let answer = self.cluster().call(node, &AskStanding {}, CallOptions::within(PATIENCE)).await;
            (node, answer.ok().map(|answer| answer.incomplete.iter().copied().collect::<BTreeSet<u8>>()))
        });
        let answers: BTreeMap<NodeId, Option<BTreeSet<u8>>> = asked.buffer_unordered(ASKED_AT_ONCE_MAX).collect().await;
        report(&history, &answers)
    }
}

/// What follows from the answers (`None`: silent). Pure.
fn report(history: &LayoutHistory, answers: &BTreeMap<NodeId, Option<BTreeSet<u8>>>) -> CopiesReport {
    let reads = history.read_version();
    let silent = answers.iter().filter(|(_, answer)| answer.is_none()).map(|(node, _)| *node).collect();
    let mut found = CopiesReport { silent, ..CopiesReport::default() };
    let is_whole = |node: NodeId, partition: u8| {
        answers.get(&node).and_then(Option::as_ref).is_some_and(|incomplete| !incomplete.contains(&partition))
    };
    for partition in 0..=u8::MAX {
        let rings = ring_partitions(partition, reads.partition_count);
        let counts =
            rings.map(|ring| (reads.nodes_of(ring).filter(|node| is_whole(*node, partition)).count(), reads.nodes_of(ring).count()));
        // The worst of the ring partitions in it counts.
        let (whole_count, holders_count) = counts.min_by_key(|(whole, _)| *whole).unwrap_or((0, 0));
        match whole_count {
            0 => found.without_copy.push(partition),
            some if some < holders_count.div_ceil(2) => found.doubtful.push(partition),
            _ => found.sound_count += 1,
        }
    }
    debug_assert_eq!(found.sound_count + found.doubtful.len() + found.without_copy.len(), DIGEST_PARTITION_COUNT);
    found
}
