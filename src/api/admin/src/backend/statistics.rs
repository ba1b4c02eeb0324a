//! Space and counts over the whole cluster.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};
use garage_model::RequestContext;
use garage_net::NodeId;
use garage_rpc::{
    layout::{LayoutVersion, format_size},
    membership::{SpaceLeft, SpaceReport},
};

use super::AdminApi;
use crate::{
    AdminError,
    limits::{LOOKUPS_AT_ONCE, SUMMED_BUCKETS_MAX},
    types::ClusterStatistics,
};

impl AdminApi {
    pub(super) async fn cluster_statistics(&self, context: RequestContext) -> Result<ClusterStatistics, AdminError> {
        let buckets = self.node.access.buckets().list(context).await?;
        let bucket_count = buckets.len();
        let sums = if bucket_count < SUMMED_BUCKETS_MAX {
            let counts = buckets.into_iter().map(|bucket| async move { self.node.objects.usage(&bucket.as_ref(), context).await });
            let counts = stream::iter(counts).buffer_unordered(LOOKUPS_AT_ONCE);
            Some(counts.try_fold((0u64, 0u64), |sum, of| async move { Ok((sum.0 + of.objects, sum.1.saturating_add(of.bytes))) }).await?)
        } else {
            None
        };
        let spaces = self.spaces();
        let layout = self.node.cluster.layout();
        let data = available(layout.current(), &spaces, |report| report.data);
        let metadata = available(layout.current(), &spaces, |report| report.metadata);
        let statistics = ClusterStatistics {
            freeform: String::new(),
            data_avail: data.bytes,
            metadata_avail: metadata.bytes,
            incomplete_avail_info: Some(data.is_incomplete || metadata.is_incomplete),
            bucket_count: Some(bucket_count as u64),
            total_object_count: sums.map(|sums| sums.0),
            total_object_bytes: sums.map(|sums| sums.1),
        };
        Ok(ClusterStatistics { freeform: in_words(&statistics), ..statistics })
    }

    fn spaces(&self) -> BTreeMap<NodeId, SpaceReport> {
        self.node.cluster.status().into_iter().map(|status| (status.node, status.space)).collect()
    }
}

/// What is left for data that is spread evenly over the partitions.
struct Available {
    bytes: Option<u64>,
    is_incomplete: bool,
}

/// The fullest node decides: a node with n partitions and b bytes left takes b / n more bytes of each partition.
fn available(
    layout: &LayoutVersion,
    spaces: &BTreeMap<NodeId, SpaceReport>,
    volume: impl Fn(&SpaceReport) -> Option<SpaceLeft>,
) -> Available {
    let mut found = Available { bytes: None, is_incomplete: false };
    let partition_count = layout.partitions().count() as u128;
    for (node, held_count) in layout.partition_counts().into_iter().filter(|(_, held_count)| 0 < *held_count) {
        match spaces.get(&node).and_then(&volume) {
            None => found.is_incomplete = true,
            Some(space) => {
                let whole = u128::from(space.available_bytes) * partition_count / held_count as u128;
                let whole = u64::try_from(whole).unwrap_or(u64::MAX);
                found.bytes = Some(found.bytes.map_or(whole, |least| least.min(whole)));
            }
        }
    }
    found
}

fn in_words(statistics: &ClusterStatistics) -> String {
    let bound = if statistics.incomplete_avail_info == Some(true) { "< " } else { "" };
    let space = |bytes: Option<u64>| bytes.map_or_else(|| "?".to_string(), |bytes| format!("{bound}{}", format_size(bytes)));
    let mut lines = vec![format!("Number of buckets: {}", statistics.bucket_count.unwrap_or(0))];
    lines.extend(statistics.total_object_count.map(|count| format!("Total number of objects: {count}")));
    lines.extend(statistics.total_object_bytes.map(|bytes| format!("Total size of objects: {}", format_size(bytes))));
    lines.push("Estimated available storage space cluster-wide:".to_string());
    lines.push(format!("  data: {}", space(statistics.data_avail)));
    lines.push(format!("  metadata: {}", space(statistics.metadata_avail)));
    lines.join("\n")
}
