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
