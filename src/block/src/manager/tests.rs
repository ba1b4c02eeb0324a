//! Three nodes in memory, each of which can be away, silent or full: what a request may count on all the same.

pub(crate) mod nodes;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use garage_util::hlc::Stamp;
use tokio::time::{Instant, sleep};

use self::nodes::{Mode, Nodes, context, id, reference};
use super::{BlockRef, ManagerOptions, PutBlockError, ReadBlockError, WriteError, WriteOptions};
use crate::{
    encoding::{Compression, EncodedBlock},
    hash::BlockHash,
    limits::{BACKGROUND_COPY_CALM, FETCH_HEDGE_UNKNOWN, READ_AHEAD_MAX_COUNT, REFERENCES_PER_CALL_MAX_COUNT},
    message::CopyState,
    reference::ReferenceState,
    store::Checked,
};

const KIB: usize = 1024;

fn content(seed: u32, len_bytes: usize) -> Bytes {
    let mut bytes = vec![0; len_bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}

fn block_of(content: &Bytes) -> BlockRef {
    BlockRef { hash: BlockHash::of(content), len_bytes: content.len() as u32 }
}

fn options() -> WriteOptions {
    WriteOptions {
        seal: None,
        owner: b"owner".to_vec(),
        version: [7; 32],
        group: b"group".to_vec(),
        stamp: Stamp::from_parts(1, 1, false),
        compression: Compression::WherePays(1),
    }
}

/// A body in pieces that fit no block.
fn body(content: &Bytes) -> impl futures::Stream<Item = Result<Bytes, String>> + Send + use<> {
    let pieces: Vec<_> = content.chunks(1_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    stream::iter(pieces)
}

async fn until(mut condition: impl AsyncFnMut() -> bool) {
    while !condition().await {
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_block_and_its_reference_are_on_every_node_and_outlive_a_power_cut() {
    let nodes = Nodes::new(ManagerOptions::default()).await;
    for (seed, compressible) in [(1, false), (2, true)] {
        let block = if compressible { Bytes::from(vec![7; 50_000]) } else { content(seed, 50_000) };
        nodes.manager.put(block.clone(), reference(&block), Compression::WherePays(1), context()).await.unwrap();
        until(async || nodes.holders_of(&block).await.len() == 3).await;
        nodes.cut_power();
        for node in nodes.all() {
            let rows = node.service.references().of(BlockHash::of(&block)).await.unwrap();
            assert_eq!(rows.len(), 1, "{compressible}");
            assert_eq!((rows[0].0, rows[0].1.state), ([7; 32], ReferenceState::Lease));
        }
        assert_eq!(nodes.manager.get(block_of(&block), context()).await.unwrap(), block);
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_needs_two_of_three_and_fails_at_once_without_them() {
    let nodes = Nodes::new(ManagerOptions::default()).await;
    let block = content(1, 10_000);
    nodes.set(2, Mode::Down);
    let started = Instant::now();
    nodes.manager.put(block.clone(), reference(&block), Compression::Never, context()).await.unwrap();
    nodes.set(3, Mode::Down);
    let error = nodes.manager.put(block.clone(), reference(&block), Compression::Never, context()).await.unwrap_err();
    assert!(matches!(&error, PutBlockError::Quorum { error, .. } if error.got <= 1 && error.errors.len() == 2), "{error}");
    assert!(!error.is_storage_full());
    assert!(started.elapsed() < Duration::from_secs(1), "virtual time: no time-out was waited for");
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_delays_neither_write_nor_read_and_gets_its_copy_when_it_wakes() {
    let nodes = Nodes::new(ManagerOptions::default()).await;
    nodes.set(2, Mode::Silent);
    let (block, started) = (content(1, 10_000), Instant::now());
    nodes.manager.put(block.clone(), reference(&block), Compression::Never, context()).await.unwrap();
    assert!(started.elapsed() < Duration::from_millis(100), "virtual time: {:?}", started.elapsed());
    nodes.set(2, Mode::Up);
    until(async || nodes.holders_of(&block).await.len() == 3).await;
    assert!(started.elapsed() < BACKGROUND_COPY_CALM, "the same copy went on");
    nodes.lose_block(1, &block);
    nodes.set(2, Mode::Silent);
    let started = Instant::now();
    assert_eq!(nodes.manager.get(block_of(&block), context()).await.unwrap(), block);
    let one_hedge = FETCH_HEDGE_UNKNOWN + Duration::from_millis(100);
    assert!(started.elapsed() < one_hedge, "virtual time: {:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn full_nodes_are_told_from_broken_ones() {
    let nodes = Nodes::new(ManagerOptions::default()).await;
    nodes.node(1).disk.set_full(true);
    let block = content(1, 10_000);
    nodes.manager.put(block.clone(), reference(&block), Compression::Never, context()).await.unwrap();
    nodes.node(3).disk.set_full(true);
    let error = nodes.manager.put(content(2, 10), reference(&content(2, 10)), Compression::Never, context()).await.unwrap_err();
    assert!(error.is_storage_full(), "{error}");
    nodes.node(1).disk.set_full(false);
    nodes.node(2).engine.set_full(true);
    let error = nodes.manager.put(content(3, 10), reference(&content(3, 10)), Compression::Never, context()).await.unwrap_err();
    assert!(error.is_storage_full(), "a full metadata store is a full node: {error}");
    assert_eq!(nodes.manager.get(block_of(&block), context()).await.unwrap(), block, "reads go on");
}

#[tokio::test(start_paused = true)]
async fn a_bad_or_lost_copy_here_is_read_elsewhere_and_replaced() {
    let nodes = Nodes::new(ManagerOptions::default()).await;
    let block = content(1, 10_000);
    nodes.manager.put(block.clone(), reference(&block), Compression::Never, context()).await.unwrap();
    until(async || nodes.holders_of(&block).await.len() == 3).await;
    nodes.rot_block(1, &block);
    assert_eq!(nodes.manager.get(block_of(&block), context()).await.unwrap(), block);
    until(async || nodes.node(1).service.store().check(BlockHash::of(&block)).await.unwrap() == Checked::Good).await;
    let queued = async || nodes.node(1).service.references().queued(10).await.unwrap();
    nodes.node(1).service.references().flush_seen().await.unwrap();
    until(async || queued().await.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_bad_copy_elsewhere_is_set_aside_and_queued_there() {
    let nodes = Nodes::new(ManagerOptions::default()).await;
    let block = content(1, 10_000);
    nodes.manager.put(block.clone(), reference(&block), Compression::Never, context()).await.unwrap();
    until(async || nodes.holders_of(&block).await.len() == 3).await;
    nodes.lose_block(1, &block);
    nodes.rot_block(2, &block);
    assert_eq!(nodes.manager.get(block_of(&block), context()).await.unwrap(), block, "the third node has it");
    until(async || nodes.holders_of(&block).await == BTreeSet::from([id(3)])).await;
    assert_eq!(nodes.node(2).service.references().queued(10).await.unwrap().len(), 1);
    nodes.lose_block(3, &block);
    let error = nodes.manager.get(block_of(&block), context()).await.unwrap_err();
    assert!(matches!(error, ReadBlockError::Missing { asked_count: 3, .. }), "{error}");
    nodes.set(3, Mode::Down);
    let error = nodes.manager.get(block_of(&block), context()).await.unwrap_err();
    assert!(matches!(error, ReadBlockError::Unavailable { .. }), "the absent node may have it: {error}");
}

#[tokio::test(start_paused = true)]
async fn a_stuck_node_holds_no_more_memory_than_it_may_and_stops_nobody_for_good() {
    let size = 64 * KIB;
    let limits = ManagerOptions { block_size_bytes: size, ram_buffer_bytes: 4 * size, ..ManagerOptions::default() };
    let nodes = Nodes::new(limits).await;
    nodes.set(3, Mode::Silent);
    let (whole, started) = (content(1, 12 * size), Instant::now());
    let written = nodes.manager.write(body(&whole), &options(), context()).await.unwrap();
    assert_eq!(written.len(), 12);
    assert!(nodes.silent_peak_count(3) <= 4, "{} blocks waited for the stuck node", nodes.silent_peak_count(3));
    assert!(started.elapsed() < 3 * BACKGROUND_COPY_CALM, "virtual time: three times four blocks, {:?}", started.elapsed());
    until(async || nodes.manager.ram_buffer_free_bytes() == 4 * size).await;
}

#[tokio::test(start_paused = true)]
async fn a_body_comes_back_as_it_went() {
    let size = 10 * KIB;
    let nodes = Nodes::new(ManagerOptions { block_size_bytes: size, ..ManagerOptions::default() }).await;
    for len_bytes in [0, 1, size - 1, size, size + 1, 25 * size + 17] {
        let whole = content(len_bytes as u32, len_bytes);
        let blocks = nodes.manager.write(body(&whole), &options(), context()).await.unwrap();
        assert_eq!(blocks.len(), len_bytes.div_ceil(size));
        let list = stream::iter(blocks.into_iter().map(Ok::<_, ReadBlockError>));
        let read: Vec<Bytes> = nodes.manager.read(list, context()).try_collect().await.unwrap();
        assert!(read.concat() == whole, "{len_bytes} bytes");
    }
}

#[tokio::test(start_paused = true)]
async fn blocks_travel_side_by_side_both_ways() {
    let size = KIB;
    let nodes = Nodes::new(ManagerOptions { block_size_bytes: size, ..ManagerOptions::default() }).await;
    let (whole, started) = (content(1, 64 * size), Instant::now());
    let blocks = nodes.manager.write(body(&whole), &options(), context()).await.unwrap();
    assert!(started.elapsed() <= 8 * nodes::ROUND_TRIP, "virtual time: 64 blocks in {:?}", started.elapsed());
    for block in whole.chunks(size) {
        nodes.lose_block(1, &Bytes::copy_from_slice(block));
    }
    let started = Instant::now();
    let read: Vec<Bytes> =
        nodes.manager.read(stream::iter(blocks.into_iter().map(Ok::<_, ReadBlockError>)), context()).try_collect().await.unwrap();
    assert!(read.concat() == whole && started.elapsed() <= 8 * nodes::ROUND_TRIP, "virtual time: {:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_does_not_read_gets_only_so_much_ahead() {
    let nodes = Nodes::new(ManagerOptions { block_size_bytes: KIB, ..ManagerOptions::default() }).await;
    let blocks = nodes.manager.write(body(&content(1, 64 * KIB)), &options(), context()).await.unwrap();
    let listed = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = listed.clone();
    let list = stream::iter(blocks).map(move |block| {
        counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Ok::<_, ReadBlockError>(block)
    });
    let mut reader = nodes.manager.read(list, context());
    reader.next().await.unwrap().unwrap();
    assert!(listed.load(std::sync::atomic::Ordering::SeqCst) <= READ_AHEAD_MAX_COUNT + 2);
}

#[tokio::test(start_paused = true)]
async fn a_lost_block_ends_the_stream_after_those_before_it() {
    let nodes = Nodes::new(ManagerOptions { block_size_bytes: KIB, ..ManagerOptions::default() }).await;
    let whole = content(1, 5 * KIB);
    let blocks = nodes.manager.write(body(&whole), &options(), context()).await.unwrap();
    until(async || nodes.holders_of(&whole.slice(2 * KIB..3 * KIB)).await.len() == 3).await;
    for number in 1..=3 {
        nodes.lose_block(number, &whole.slice(2 * KIB..3 * KIB));
    }
    let mut reader = nodes.manager.read(stream::iter(blocks.into_iter().map(Ok::<_, ReadBlockError>)), context());
    assert_eq!(reader.next().await.unwrap().unwrap(), whole.slice(..KIB));
    assert_eq!(reader.next().await.unwrap().unwrap(), whole.slice(KIB..2 * KIB));
    assert!(matches!(reader.next().await, Some(Err(ReadBlockError::Missing { .. }))));
    assert!(reader.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_broken_body_and_a_slow_one_are_errors() {
    let nodes = Nodes::new(ManagerOptions { block_size_bytes: KIB, ..ManagerOptions::default() }).await;
    let broken = body(&content(1, 3_000)).chain(stream::once(async { Err("the client went away".to_string()) }));
    assert!(matches!(nodes.manager.write(broken, &options(), context()).await, Err(WriteError::Body(text)) if text.contains("client")));
    let endless = body(&content(1, 3_000)).chain(stream::pending());
    assert!(matches!(nodes.manager.write(endless, &options(), context()).await, Err(WriteError::TimedOut)));
    until(async || nodes.manager.ram_buffer_free_bytes() == nodes.manager.options().ram_buffer_bytes).await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_references_what_is_there_and_names_what_is_not() {
    let nodes = Nodes::new(ManagerOptions { block_size_bytes: KIB, ..ManagerOptions::default() }).await;
    let whole = content(1, 10 * KIB);
    let blocks = nodes.manager.write(body(&whole), &options(), context()).await.unwrap();
    // More than fit one call.
    let mut unknown: Vec<BlockHash> = (0..REFERENCES_PER_CALL_MAX_COUNT).map(|index| BlockHash::of(&index.to_le_bytes())).collect();
    unknown.sort();
    let copy = |block: BlockHash| crate::reference::Reference { block, version: [8; 32], ..reference(&Bytes::new()) };
    let references: Vec<_> = unknown.iter().copied().chain(blocks.iter().map(|block| block.hash)).map(copy).collect();
    until(async || nodes.holders_of(&whole.slice(9 * KIB..)).await.len() == 3).await;
    nodes.lose_block(2, &whole.slice(..KIB));
    assert_eq!(nodes.manager.add_references(references.clone(), context()).await.unwrap(), unknown, "two of three have the first");
    nodes.lose_block(3, &whole.slice(..KIB));
    let lost = unknown[0];
    unknown.push(blocks[0].hash);
    unknown.sort();
    assert_eq!(nodes.manager.add_references(references, context()).await.unwrap(), unknown);
    assert_eq!(nodes.node(1).service.references().of(blocks[5].hash).await.unwrap().len(), 2);
    assert!(nodes.node(1).service.references().of(lost).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_not_the_block_are_refused_before_they_touch_the_disk() {
    let nodes = Nodes::new(ManagerOptions::default()).await;
    let (block, other) = (content(1, 100), content(2, 100));
    for (announced, sent, code) in
        [(100, &other, "BlockCorrupt"), (99, &block, "Invalid"), (101, &block, "Invalid"), (u32::MAX, &block, "Invalid")]
    {
        let refused = nodes.put_raw(2, reference(&block), announced, EncodedBlock::plain(sent.clone())).await.unwrap_err();
        assert_eq!(refused.code, code, "{announced} bytes announced: {}", refused.message);
    }
    let zipped = EncodedBlock { encoding: crate::encoding::Encoding::Zstd, bytes: block.clone() };
    assert_eq!(nodes.put_raw(2, reference(&block), 100, zipped).await.unwrap_err().code, "BlockCorrupt");
    assert!(nodes.holders_of(&block).await.is_empty());
    assert!(nodes.node(2).service.references().of(BlockHash::of(&block)).await.unwrap().is_empty());
    nodes.put_raw(2, reference(&block), 100, EncodedBlock::plain(block.clone())).await.unwrap();
    assert_eq!(nodes.holders_of(&block).await, BTreeSet::from([id(2)]));
}

#[tokio::test(start_paused = true)]
async fn a_reference_without_its_file_leaves_work_and_one_with_it_leaves_none() {
    let nodes = Nodes::new(ManagerOptions::default()).await;
    let service = &nodes.node(1).service;
    let (here, lost) = (content(1, 100), content(2, 100));
    service.put_checked(reference(&here), EncodedBlock::plain(here.clone())).await.unwrap();
    assert_eq!(service.references().queued(10).await.unwrap().len(), 1, "until the next batch");
    service.references().flush_seen().await.unwrap();
    assert!(service.references().queued(10).await.unwrap().is_empty());
    // The reference is committed, then the process dies before the file is there.
    service.references().add(vec![reference(&lost)]).await.unwrap();
    nodes.cut_power();
    assert!(service.references().queued(10).await.unwrap().contains_key(&BlockHash::of(&lost)));
    assert_eq!(service.check(BlockHash::of(&lost)).await.unwrap(), CopyState::Missing);
}

#[tokio::test(start_paused = true)]
async fn nodes_that_stay_silent_fail_a_body_after_one_blocks_time() {
    let block_timeout = Duration::from_secs(5);
    let nodes = Nodes::new(ManagerOptions { block_timeout, ..ManagerOptions::default() }).await;
    let whole = content(1, 10_000);
    let blocks = nodes.manager.write(body(&whole), &options(), context()).await.unwrap();
    nodes.lose_block(1, &whole);
    nodes.set(2, Mode::Silent);
    nodes.set(3, Mode::Silent);
    let started = Instant::now();
    let written = nodes.manager.write(body(&content(2, 10)), &options(), context()).await;
    assert!(matches!(&written, Err(WriteError::Put(PutBlockError::Quorum { error, .. })) if error.got == 1), "{written:?}");
    assert_eq!(started.elapsed(), block_timeout, "virtual time");
    let mut reader = nodes.manager.read(stream::iter(blocks.into_iter().map(Ok::<_, ReadBlockError>)), context());
    assert!(matches!(reader.next().await, Some(Err(ReadBlockError::Unavailable { .. }))));
    assert_eq!(started.elapsed(), 2 * block_timeout, "virtual time");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_goes_away_gives_its_memory_back() {
    let nodes = Nodes::new(ManagerOptions::default()).await;
    nodes.set(2, Mode::Silent);
    nodes.set(3, Mode::Silent);
    let block = content(1, 10_000);
    let mut put = nodes.manager.put(block.clone(), reference(&block), Compression::Never, context()).boxed();
    assert!(put.as_mut().now_or_never().is_none());
    assert!(nodes.manager.ram_buffer_free_bytes() < nodes.manager.options().ram_buffer_bytes);
    drop(put);
    assert_eq!(nodes.manager.ram_buffer_free_bytes(), nodes.manager.options().ram_buffer_bytes);
}
