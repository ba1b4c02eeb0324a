//! Every limit of this crate, with its unit and what happens when it is reached.

use std::time::Duration;

/// Longest time a request may take on the node that answers it; after it, `ServiceUnavailable`.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest time one node may take in a call that asks several; after it that node stands under `error`.
pub const NODE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time `ConnectClusterNodes` waits for one node.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a request body at the most. More: `InvalidRequest`.
pub const BODY_MAX_BYTES: usize = 1 << 20;
/// Nodes that one `ConnectClusterNodes` may name. More: `InvalidRequest`.
pub const CONNECT_NODES_MAX: usize = 1000;
/// Keys of a page of `ListKeys`, and buckets of one of `ListBuckets`, unless the request says otherwise.
pub const LIST_PAGE_DEFAULT: u64 = 10_000;
/// The same for the lists that give everything of each entry.
pub const LIST_INFO_PAGE_DEFAULT: u64 = 1_000;
/// From this many buckets on, `GetClusterStatistics` does not add up their objects.
pub const SUMMED_BUCKETS_MAX: usize = 1_000;
/// Rows of one bucket, key or node asked for at once while a list is put together.
pub const LOOKUPS_AT_ONCE: usize = 16;
/// Uploads of one bucket whose parts are added up; the counts of parts and their bytes cover no more than these.
pub const COUNTED_UPLOADS_MAX: usize = 1_000;
/// Uploads that a clean-up reads at once.
pub const CLEANUP_PAGE_UPLOADS: usize = 1_000;
/// Blocks that `ListBlockErrors` lists at the most.
pub const BLOCK_ERRORS_MAX: usize = 10_000;
