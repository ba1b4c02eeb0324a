//! The limits of the local store, each with its unit and what happens when it is reached.

use std::time::Duration;

/// Operations waiting for the committer; one more waits for a place.
pub const QUEUE_OPERATIONS_MAX: usize = 16_384;
/// Weight of all operations waiting for the committer, in bytes; one more waits for a place.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;
/// What an operation weighs unless its submitter says otherwise, in bytes.
pub const OPERATION_WEIGHT_DEFAULT_BYTES: usize = 2 << 10;
/// How long an operation waits for a place in the queue before it is refused as `Overloaded`.
pub const QUEUE_PATIENCE: Duration = Duration::from_secs(10);
/// Operations that one batch gathers.
pub const BATCH_OPERATIONS_MAX: usize = 4_096;
/// Changed bytes after which a batch is written without gathering more.
pub const BATCH_BYTES_MAX: usize = 8 << 20;
/// Length of a key, in bytes: the engine stores it in 16 bits.
pub const KEY_BYTES_MAX: usize = 65_535;
/// How often the note beside the store is forced to stable storage while commits happen.
pub const MARK_SYNC_INTERVAL: Duration = Duration::from_secs(1);

const _: () = assert!(OPERATION_WEIGHT_DEFAULT_BYTES * QUEUE_OPERATIONS_MAX <= QUEUE_BYTES_MAX);
const _: () = assert!(BATCH_OPERATIONS_MAX <= QUEUE_OPERATIONS_MAX);

/// Memory for blocks of the store's tables, in bytes; it fills with use.
pub const BLOCK_CACHE_DEFAULT_BYTES: u64 = 128 << 20;
/// Journals above this make the engine flush what holds the oldest, in bytes.
pub const JOURNAL_LIMIT_DEFAULT_BYTES: u64 = 128 << 20;
/// The least journal limit that fjall accepts, in bytes.
pub const JOURNAL_LIMIT_MIN_BYTES: u64 = 64 << 20;
/// Changes of one keyspace kept in memory before they are written as a table, in bytes. Small, for there are a dozen keyspaces.
pub const MEMTABLE_BYTES: u64 = 8 << 20;
/// Space that the largest usual compaction needs while its input still exists, in bytes.
pub const COMPACTION_SPACE_BYTES: u64 = 256 << 20;
/// Free space below which writes are refused (`metadata_min_free`), in bytes.
pub const METADATA_MIN_FREE_DEFAULT_BYTES: u64 = 2 * JOURNAL_LIMIT_DEFAULT_BYTES + COMPACTION_SPACE_BYTES;
/// Files that the engine keeps open.
pub const OPEN_FILES_MAX: usize = 256;
/// Threads for flushes and compactions: one of each at least.
pub const WORKERS_MIN: usize = 2;
/// Threads for flushes and compactions at most.
pub const WORKERS_MAX: usize = 4;
/// Full memtables of a keyspace that wait for their flush before writes wait too; fjall itself waits, without end, at 4.
pub const SEALED_MEMTABLES_MAX: usize = 3;
/// Tables on a keyspace's first level before writes wait; fjall itself waits, without end, at 30.
pub const LEVEL0_TABLES_MAX: usize = 24;
/// How long opening again waits for readers while new ones still come.
pub const READERS_POLITE_WAIT: Duration = Duration::from_secs(1);
/// How long opening again then holds new readers back while the last ones end.
pub const READERS_DRAIN_MAX: Duration = Duration::from_secs(10);
