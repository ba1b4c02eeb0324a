//! Every limit of this crate, with its unit and what happens when it is reached.

/// Objects up to this many bytes are kept in their rows unless the config says otherwise (`inline_threshold`).
pub const INLINE_DEFAULT_BYTES: usize = 16 << 10;
/// Bytes of one PUT or part at the most; AWS S3 User Guide, "Amazon S3 multipart upload limits". Larger: `EntityTooLarge`.
pub const SINGLE_PUT_MAX_BYTES: u64 = 5 << 30;
/// Bytes of a part that is not the last at the least; same source. Smaller: `EntityTooSmall`, at completion.
pub const PART_MIN_BYTES: u64 = 5 << 20;
/// How often a CompleteMultipartUpload, or an abort, goes on after a rival came in between; then 409 `ConditionalRequestConflict`, or 503.
pub const COMPLETE_TRIES_MAX: usize = 8;
/// Bytes of an object at the most; same source. Larger: `EntityTooLarge`, at completion.
pub const OBJECT_MAX_BYTES: u64 = 50 << 40;
/// Keys of a LIST page at the most; more are asked for with a marker.
pub const LIST_KEYS_MAX: usize = 1000;
/// Shards of a bucket's index at the most.
pub const SHARDS_MAX: u16 = 16;
/// Buckets of one cluster at the most.
pub const BUCKETS_MAX: usize = 10_000;
/// Parsed bucket policies kept by a node; at this number it forgets all and parses again.
pub const POLICIES_CACHED_MAX: usize = 1000;
