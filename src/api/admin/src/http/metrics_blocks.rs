//! Series about the blocks of this node: what was read, written, resynced, deleted, and what waits.

use std::{fmt, sync::atomic::Ordering};

use garage_api_common::metrics::Labels;
use garage_block::encoding::Compression;
use garage_model::node::Node;
use prometheus_client::{encoding::DescriptorEncoder, metrics::MetricType};

use super::metrics::gauge;

/// Reads the counters that the block layer keeps.
pub(super) fn encode(encoder: &mut DescriptorEncoder, node: &Node) -> fmt::Result {
    let store = node.blocks.service().store().counters();
    let resync = node.resync.counters();
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    gauge(encoder, "block_ram_buffer_free_kb", "KiB left of block_ram_buffer_max", node.blocks.ram_buffer_free_bytes() as u64 / 1024)?;
    gauge(encoder, "block_resync_queue_length", "Blocks waiting to be looked at", load(&resync.queued_count))?;
    gauge(encoder, "block_resync_errored_blocks", "Blocks whose last try failed", load(&resync.errored_count))?;
    gauge(encoder, "block_compression_level", "Configured level, 0 when off", level(node.blocks.options().compression))?;
    for (name, help, value) in [
        ("block_bytes_read", "Bytes of block files read", load(&store.read_bytes)),
        ("block_bytes_written", "Bytes of block files written", load(&store.written_bytes)),
        ("block_delete_counter", "Blocks deleted", load(&store.deleted_count)),
        ("block_corruption_counter", "Bad copies found", load(&store.corrupt_count)),
        ("block_read_semaphore_timeouts", "Reads that found no place at the disk", load(&store.busy_count)),
        ("block_resync_counter", "Blocks looked at", load(&resync.tries_count)),
        ("block_resync_error_counter", "Of these, failed", load(&resync.errors_count)),
        ("block_resync_recv_counter", "Blocks fetched", load(&resync.received_count)),
    ] {
        counter(encoder, name, help, [(Vec::new(), value)])?;
    }
    let sent = resync.sent_counts.lock().clone();
    let sent = sent.into_iter().map(|(to, count)| (vec![("to", to.short())], count));
    counter(encoder, "block_resync_send_counter", "Blocks handed over", sent)
}

fn level(compression: Compression) -> u64 {
    match compression {
        Compression::Never => 0,
        Compression::WherePays(level) => u64::try_from(level).unwrap_or(0),
    }
}

/// Counters, written without the suffix `_total`.
fn counter(encoder: &mut DescriptorEncoder, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, u64)>) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in values {
        // The encoder adds the suffix to counters only, and a gauge's line is otherwise the same.
        metric.encode_family(&labels)?.encode_gauge(&value)?;
    }
    Ok(())
}
