//! Every limit of the comparison of replicas, with its unit and what happens when it is reached. Those of calls of clients are in `message`.

use std::time::Duration;

/// Rows in a leaf up to which it is listed; one that has more is compared in parts first.
pub const LEAF_LISTED_ROWS_MAX: usize = 64;
/// Bytes of one answer about leaves, beyond which it is cut at a leaf.
pub const LEAVES_ANSWER_BYTES_MAX: usize = 1 << 20;
/// Parts of leaves that are listed in one call.
pub const PARTS_PER_CALL_MAX: usize = 256;
/// Rows that travel in one call at the most.
pub const SYNC_ROWS_MAX: usize = 256;
/// Bytes of rows in one call, beyond which it is cut; a single larger row goes alone, its companions behind it.
pub const SYNC_BYTES_MAX: usize = 4 << 20;
/// Companion ids whose chunks are asked for in one call.
pub const COMPANION_IDS_PER_CALL_MAX: usize = 32;
/// Sides of registers in one page.
pub const SIDES_PER_PAGE_MAX: usize = 1_000;
/// Partitions compared at once with one peer.
pub const PARTITIONS_AT_ONCE_MAX: usize = 4;
/// Registers settled at once because a promise stood against their row.
pub const SETTLED_AT_ONCE_MAX: usize = 16;
/// How long one call of a comparison may take.
pub const SYNC_CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long after the start of a node the first comparison begins, so that it does not compete with the start itself.
pub const SYNC_FIRST_DELAY: Duration = Duration::from_secs(2);
/// How often replicas are compared without a cause.
pub const SYNC_PERIOD: Duration = Duration::from_secs(600);
/// How long after a peer came back, or the layout changed, the comparison begins: what comes together is done together.
pub const SYNC_SETTLE_DELAY: Duration = Duration::from_millis(500);
/// First wait after a comparison failed; doubled each time.
pub const SYNC_BACKOFF_MIN: Duration = Duration::from_secs(1);
/// Longest such wait.
pub const SYNC_BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Partitions that one pass of a layout change brings: progress shows after each, and a failure repeats no more than these.
pub const MOVED_PARTITIONS_PER_PASS: usize = 16;
/// How often a node looks whether the layout asks something of it, besides at each change.
pub const MOVE_LOOK_PERIOD: Duration = Duration::from_secs(5);
/// How long after its start a node that lost its store waits until what it had promised can't matter any more: longer than any operation on
/// rows may run (60 s), and than clocks may drift apart meanwhile.
pub const LOST_PROMISES_GRACE: Duration = Duration::from_secs(90);
/// Keys of a partition that moved away which are dropped in one commit.
pub const EVICTED_KEYS_PER_COMMIT: usize = 1_000;
/// How often a node looks for partitions that moved away.
pub const EVICTION_LOOK_PERIOD: Duration = Duration::from_secs(60);
/// The least age of a tombstone that is dropped.
pub const TOMBSTONE_AGE_MIN: Duration = Duration::from_secs(24 * 3600);
/// Tombstones dropped in one round; the others of a partition wait for the next.
pub const TOMBSTONES_PER_ROUND_MAX: usize = 1_000;
/// How long a node rests after it has looked for tombstones and old promises in all its partitions.
pub const COLLECT_PERIOD: Duration = Duration::from_secs(600);
/// The age of promises and trails that are forgotten: no operation that could ask about them runs so long (60 s), however far clocks are
/// apart (10 min).
pub const FORGET_AFTER: Duration = Duration::from_secs(3600);
/// Promises and trails looked at in one commit.
pub const CHANGED_SIDES_PER_COMMIT: usize = 500;
/// Queued blocks that a node counts when it tells how far it is; more are told as this many.
pub const TOLD_BLOCKS_MAX: usize = 10_000;
