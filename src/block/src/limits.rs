//! Every limit of this crate: its unit, its default, and what happens when it is reached.

use std::time::Duration;

/// The longest block, in bytes; `block_size` may not be set higher. A longer one is refused by writer and receiver.
pub const BLOCK_LEN_MAX_BYTES: usize = 128 * MIB;
/// `block_size` when the config names none, in bytes.
pub const BLOCK_SIZE_DEFAULT_BYTES: usize = MIB;
/// `block_ram_buffer_max` when the config names none, in bytes: blocks held for nodes that have not taken them. Then writers wait.
pub const BLOCK_RAM_DEFAULT_BYTES: usize = 256 * MIB;
/// Bytes of arriving blocks that a node holds while it writes them. Then arriving bodies wait in their streams.
pub const RECEIVE_BUFFER_MAX_BYTES: usize = 64 * MIB;
/// Bytes of leaving blocks that a node holds while peers take them. Then block reads wait, like those for a place at the disk.
pub const SEND_BUFFER_MAX_BYTES: usize = 64 * MIB;
/// Bytes of blocks read ahead for all clients together. Then a stream reads only the block that its client waits for.
pub const READ_AHEAD_TOTAL_MAX_BYTES: usize = 64 * MIB;
/// Bytes that one stream reads ahead of its client.
pub const READ_AHEAD_MAX_BYTES: usize = 8 * MIB;
/// Blocks that one stream reads ahead of its client, however small they are.
pub const READ_AHEAD_MAX_COUNT: usize = 16;
/// `block_max_concurrent_writes_per_request` when the config names none: at 200 ms between nodes, 16 blocks of 1 MiB in flight
/// keep 640 Mbit/s going.
pub const WRITES_IN_FLIGHT_DEFAULT_COUNT: usize = 16;
/// `block_max_concurrent_reads` when the config names none: block files read at once.
pub const READS_DEFAULT_COUNT: usize = 16;
/// How long a read waits for a place at the disk before it fails, so that the next replica is asked.
pub const READ_PLACE_WAIT_MAX: Duration = Duration::from_secs(15);
/// Left free in every data directory, in bytes, so that whatever shares the file system can still commit.
pub const DATA_MIN_FREE_DEFAULT_BYTES: u64 = 16 * MIB as u64;
/// Left free by blocks on the file system of the metadata beyond what metadata need there, in bytes: when there is no room for blocks any more,
/// deletes, which only write metadata, go on and make room.
pub const DELETES_RESERVE_BYTES: u64 = 256 * MIB as u64;
/// How long copies past the write quorum go on whatever the memory is.
pub const BACKGROUND_COPY_CALM: Duration = Duration::from_secs(2);
/// How long copies past the write quorum go on while nobody waits for their memory. Then anti-entropy brings the block.
pub const BACKGROUND_COPY_MAX: Duration = Duration::from_secs(30);
/// Shortest wait for a whole block before the next replica is asked as well.
pub const FETCH_HEDGE_MIN: Duration = Duration::from_millis(50);
/// Longest such wait, however slow a node always is.
pub const FETCH_HEDGE_MAX: Duration = Duration::from_secs(2);
/// Such a wait for a node from which no block came yet.
pub const FETCH_HEDGE_UNKNOWN: Duration = Duration::from_millis(500);
/// Times that one block is planned anew because a replica knew a newer layout. Then the write fails, to be retried by the client.
pub const STALE_LAYOUT_TRIES_MAX_COUNT: usize = 3;
/// How long one block of a body may take when the config names no `rpc_timeout_msec`.
pub const BLOCK_TIMEOUT_DEFAULT: Duration = Duration::from_secs(300);
/// How long a node is asked to look at a copy that a reader found bad.
pub const CHECK_CALL_MAX: Duration = Duration::from_secs(60);
/// References in one message; longer lists are sent in several.
pub const REFERENCES_PER_CALL_MAX_COUNT: usize = 1_024;
/// Calls for references that one request has under way.
pub const REFERENCE_CALLS_IN_FLIGHT_COUNT: usize = 16;
/// Bytes of a group's name in a reference; a bucket id and a shard need far less.
pub const GROUP_LEN_MAX_BYTES: usize = 1_024;
/// Pieces in which a block's bytes are put on a stream, in bytes.
pub const BODY_PIECE_BYTES: usize = 256 * 1024;
/// How long "verify present" entries of blocks that were seen stay in the queue, so that many go at once.
pub const VERIFIED_DELAY: Duration = Duration::from_millis(500);
/// Such entries dropped in one transaction; more go in several.
pub const VERIFIED_BATCH_COUNT: usize = 512;
/// Blocks in one question to a peer; more go in several.
pub const BLOCKS_PER_ASK_MAX_COUNT: usize = 1_024;
/// How long a question to a peer about blocks may take.
pub const ASK_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one block may take to be fetched or handed over in the background.
pub const RESYNC_BLOCK_TIMEOUT: Duration = Duration::from_secs(300);
/// A block that nothing needs is kept this long before it is deleted.
pub const DELETION_DELAY: Duration = Duration::from_secs(600);
/// First wait after a block could not be resynced; doubled at each further failure.
pub const RESYNC_BACKOFF_MIN: Duration = Duration::from_secs(60);
/// Longest such wait.
pub const RESYNC_BACKOFF_MAX: Duration = Duration::from_secs(64 * 60);
/// Resync workers of a node; `resync-worker-count` may not be set higher.
pub const RESYNC_WORKERS_MAX_COUNT: usize = 8;
/// `resync-worker-count` when it was never set.
pub const RESYNC_WORKERS_DEFAULT_COUNT: usize = 1;
/// Blocks that a resync worker attends to at once. Then it rests.
pub const RESYNC_STEP_MAX_COUNT: usize = 16;
/// Bytes of the blocks that it attends to at once, by `block_size`; one block in any case.
pub const RESYNC_STEP_MAX_BYTES: usize = 16 * MIB;
/// `resync-tranquility` when it was never set.
pub const RESYNC_TRANQUILITY_DEFAULT: u32 = 2;
/// Entries of the block queue read at once.
pub const QUEUE_SCAN_COUNT: usize = 1_024;
/// Due entries of the block queue held in memory; more stay in the queue until there is room.
pub const QUEUE_READY_MAX_COUNT: usize = 4_096;
/// How often the block queue is looked through when nothing asks for it sooner.
pub const QUEUE_SCAN_INTERVAL: Duration = Duration::from_secs(10);
/// How long after its blocks were begun a version is asked about for the first time. A request that takes longer marks what it uses.
pub const LEASE: Duration = Duration::from_secs(15 * 60);
/// How often the list of leases is looked at.
pub const LEASE_CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// When a version that is not visible yet, or is being read, is asked about again.
pub const LEASE_PENDING: Duration = Duration::from_secs(60 * 60);
/// When a version about which nobody could tell is asked about again.
pub const LEASE_UNKNOWN: Duration = Duration::from_secs(10 * 60);
/// When a visible version is asked about again, in case a hint was lost.
pub const LEASE_RECHECK: Duration = Duration::from_secs(30 * 24 * 3600);
/// References asked about at once.
pub const LEASE_ASK_COUNT: usize = 256;
/// Shortest time from one scrub to the next.
pub const SCRUB_INTERVAL_MIN: Duration = Duration::from_secs(25 * 24 * 3600);
/// Up to this much is added to it by chance.
pub const SCRUB_INTERVAL_SPREAD: Duration = Duration::from_secs(10 * 24 * 3600);
/// How long a pause of the scrub lasts.
pub const SCRUB_PAUSE: Duration = Duration::from_secs(24 * 3600);
/// How much work of the scrub a restart may repeat.
pub const SCRUB_CHECKPOINT_INTERVAL: Duration = Duration::from_secs(60);
/// `scrub-tranquility` when it was never set.
pub const SCRUB_TRANQUILITY_DEFAULT: u32 = 4;
/// Locks over block hashes; hashes that fall on one lock wait for each other.
pub const HASH_LOCKS_COUNT: usize = 1_024;

const MIB: usize = 1024 * 1024;

const _: () = assert!(WRITES_IN_FLIGHT_DEFAULT_COUNT * BLOCK_SIZE_DEFAULT_BYTES <= BLOCK_RAM_DEFAULT_BYTES);
const _: () = assert!(BLOCK_LEN_MAX_BYTES <= u32::MAX as usize);
const _: () = assert!(READ_AHEAD_MAX_BYTES <= READ_AHEAD_TOTAL_MAX_BYTES);
