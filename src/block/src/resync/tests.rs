//! A node whose blocks are lost, moved or no longer needed puts that right by itself, and deletes nothing too early.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use garage_rpc::testing::TestNode;
use garage_util::workers::Workers;
use tokio::time::sleep;

use super::{Resync, WalkKind};
use crate::{
    encoding::Compression,
    hash::BlockHash,
    limits::{ASK_TIMEOUT, DELETION_DELAY, QUEUE_SCAN_INTERVAL, RESYNC_BACKOFF_MIN, RESYNC_STEP_MAX_COUNT},
    manager::{
        ManagerOptions,
        tests::nodes::{Mode, Nodes, context, id, reference},
    },
    reference::ReferenceState,
};

/// Long enough for whatever is due to be done.
const A_WHILE: Duration = Duration::from_secs(60);

struct Fixture {
    nodes: Nodes,
    resync: Resync,
    workers: Workers,
    may_delete: Arc<AtomicBool>,
}

impl Fixture {
    async fn new() -> Fixture {
        let nodes = Nodes::new(ManagerOptions::default()).await;
        let runtime = TestNode::new(1).runtime();
        let (workers, may_delete) = (Workers::new(runtime.clone()), Arc::new(AtomicBool::new(true)));
        let asked = may_delete.clone();
        let resync = Resync::new(runtime, nodes.manager.clone(), Arc::new(move |_| asked.load(Ordering::SeqCst)));
        resync.start(&workers);
        Fixture { nodes, resync, workers, may_delete }
    }

    /// A block on all three nodes.
    async fn stored(&self, text: &str) -> Bytes {
        let block = Bytes::from(text.repeat(1_000));
        self.nodes.manager.put(block.clone(), reference(&block), Compression::Never, context()).await.unwrap();
        sleep(Duration::from_secs(5)).await;
        assert_eq!(self.nodes.holders_of(&block).await.len(), 3);
        block
    }

    async fn is_on(&self, number: u8, block: &Bytes) -> bool {
        self.nodes.holders_of(block).await.contains(&id(number))
    }

    async fn drop_references(&self, number: u8, block: &Bytes) {
        let verdict = (BlockHash::of(block), [7; 32], ReferenceState::Dropped);
        self.nodes.node(number).service.references().raise(vec![verdict]).await.unwrap();
    }

    async fn queue_len(&self) -> u64 {
        self.resync.count().await.unwrap().0
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_disk_is_refilled_from_the_others() {
    let fixture = Fixture::new().await;
    let blocks = [fixture.stored("a").await, fixture.stored("b").await, fixture.stored("c").await];
    blocks.iter().for_each(|block| fixture.nodes.lose_block(1, block));
    assert!(fixture.resync.walk(WalkKind::Repair, &fixture.workers));
    sleep(A_WHILE).await;
    for block in &blocks {
        assert!(fixture.is_on(1, block).await);
    }
    assert_eq!((fixture.queue_len().await, fixture.resync.counters().received_count.load(Ordering::SeqCst)), (0, 3));
}

#[tokio::test(start_paused = true)]
async fn a_block_that_nobody_can_give_is_tried_again_until_somebody_can() {
    let fixture = Fixture::new().await;
    let block = fixture.stored("a").await;
    fixture.nodes.lose_block(1, &block);
    [2, 3].iter().for_each(|number| fixture.nodes.set(*number, Mode::Down));
    fixture.resync.look_at(vec![BlockHash::of(&block)]).await.unwrap();
    sleep(Duration::from_secs(200)).await;
    let errored = fixture.resync.errored(10).await.unwrap();
    // At once, after 1 minute, after 2 more.
    assert_eq!(errored.iter().map(|(hash, entry)| (*hash, entry.failed_count)).collect::<Vec<_>>(), [(BlockHash::of(&block), 3)]);
    fixture.nodes.set(3, Mode::Up);
    sleep(Duration::from_secs(250)).await;
    assert!(fixture.is_on(1, &block).await);
    assert_eq!(fixture.resync.count().await.unwrap(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_failed_on_a_node_is_tried_once_that_node_is_back_and_not_for_another() {
    let fixture = Fixture::new().await;
    let block = fixture.stored("a").await;
    fixture.nodes.lose_block(1, &block);
    [2, 3].iter().for_each(|number| fixture.nodes.lose_block(*number, &block));
    fixture.nodes.set(3, Mode::Down);
    fixture.resync.look_at(vec![BlockHash::of(&block)]).await.unwrap();
    let failed_count = async || fixture.resync.errored(10).await.unwrap().first().map(|(_, entry)| entry.failed_count);
    sleep(RESYNC_BACKOFF_MIN / 2).await;
    assert_eq!(failed_count().await, Some(1));
    // It had answered, that it has none.
    fixture.resync.nodes_are_back(&[id(2)].into()).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(failed_count().await, Some(1));
    fixture.resync.nodes_are_back(&[id(3)].into()).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(failed_count().await, Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_back_during_the_try_that_fails_on_it_is_not_missed() {
    let fixture = Fixture::new().await;
    let block = fixture.stored("a").await;
    fixture.nodes.lose_block(1, &block);
    [2, 3].iter().for_each(|number| fixture.nodes.set(*number, Mode::Silent));
    fixture.resync.set_tranquility(0).await.unwrap();
    fixture.resync.look_at(vec![BlockHash::of(&block)]).await.unwrap();
    // Both are asked in vain; one comes back before the try has failed.
    sleep(ASK_TIMEOUT / 2).await;
    fixture.nodes.set(2, Mode::Up);
    fixture.resync.nodes_are_back(&[id(2)].into()).await.unwrap();
    fixture.nodes.set(3, Mode::Down);
    sleep(RESYNC_BACKOFF_MIN / 2).await;
    assert!(fixture.is_on(1, &block).await);
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_is_not_waited_for_while_another_has_the_block() {
    let fixture = Fixture::new().await;
    let mut blocks = Vec::new();
    for number in 0..RESYNC_STEP_MAX_COUNT * 3 {
        blocks.push(fixture.stored(&format!("{number} ")).await);
    }
    blocks.iter().for_each(|block| fixture.nodes.lose_block(1, block));
    fixture.nodes.set(2, Mode::Silent);
    assert!(fixture.resync.walk(WalkKind::Repair, &fixture.workers));
    // Three steps, each with its rest.
    sleep(ASK_TIMEOUT / 2).await;
    for block in &blocks {
        assert!(fixture.is_on(1, block).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_copy_does_not_travel() {
    let fixture = Fixture::new().await;
    let block = fixture.stored("a").await;
    fixture.nodes.lose_block(1, &block);
    fixture.nodes.rot_block(2, &block);
    fixture.resync.look_at(vec![BlockHash::of(&block)]).await.unwrap();
    sleep(A_WHILE).await;
    assert_eq!(fixture.nodes.node(1).service.store().get(BlockHash::of(&block)).await.unwrap(), block);
    assert!(!fixture.is_on(2, &block).await, "its node has set the bad copy aside");
}

#[tokio::test(start_paused = true)]
async fn an_unneeded_block_is_deleted_after_the_delay_and_not_before() {
    let fixture = Fixture::new().await;
    let block = fixture.stored("a").await;
    fixture.drop_references(1, &block).await;
    sleep(DELETION_DELAY - Duration::from_secs(1)).await;
    assert!(fixture.is_on(1, &block).await);
    sleep(QUEUE_SCAN_INTERVAL * 3).await;
    assert!(!fixture.is_on(1, &block).await);
    assert_eq!(fixture.queue_len().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_block_that_is_needed_again_in_time_stays() {
    let fixture = Fixture::new().await;
    let block = fixture.stored("a").await;
    fixture.drop_references(1, &block).await;
    sleep(DELETION_DELAY / 2).await;
    let again = crate::reference::Reference { version: [8; 32], ..reference(&block) };
    fixture.nodes.node(1).service.references().add(vec![again]).await.unwrap();
    sleep(DELETION_DELAY * 2).await;
    assert!(fixture.is_on(1, &block).await);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_deleted_while_the_references_may_be_incomplete() {
    let fixture = Fixture::new().await;
    let block = fixture.stored("a").await;
    fixture.may_delete.store(false, Ordering::SeqCst);
    fixture.drop_references(1, &block).await;
    sleep(DELETION_DELAY * 3).await;
    assert!(fixture.is_on(1, &block).await);
    fixture.may_delete.store(true, Ordering::SeqCst);
    sleep(DELETION_DELAY * 2).await;
    assert!(!fixture.is_on(1, &block).await);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_this_node_never_heard_of_stays_while_another_holder_needs_it() {
    let fixture = Fixture::new().await;
    let block = Bytes::from("stray".repeat(1_000));
    let hash = BlockHash::of(&block);
    let service = &fixture.nodes.node(1).service;
    let lock = service.store().lock([hash]).await;
    service.store().put(hash, crate::encoding::EncodedBlock::encode(block.clone(), Compression::Never), &lock).await.unwrap();
    drop(lock);
    fixture.nodes.node(2).service.references().add(vec![reference(&block)]).await.unwrap();
    assert!(fixture.resync.walk(WalkKind::Repair, &fixture.workers));
    sleep(DELETION_DELAY * 3).await;
    assert!(fixture.is_on(1, &block).await);
    fixture.drop_references(2, &block).await;
    fixture.resync.look_at(vec![hash]).await.unwrap();
    sleep(DELETION_DELAY * 3).await;
    assert!(!fixture.is_on(1, &block).await);
}

#[tokio::test(start_paused = true)]
async fn a_block_that_moved_away_is_handed_over_and_then_let_go() {
    let fixture = Fixture::new().await;
    let block = fixture.stored("a").await;
    fixture.nodes.lose_block(3, &block);
    fixture.nodes.move_to(&[2, 3]);
    fixture.nodes.set(3, Mode::Down);
    fixture.resync.look_at(vec![BlockHash::of(&block)]).await.unwrap();
    sleep(Duration::from_secs(30)).await;
    assert!(fixture.is_on(1, &block).await, "a new holder does not have it yet");
    fixture.nodes.set(3, Mode::Up);
    sleep(Duration::from_secs(120)).await;
    let holders = fixture.nodes.holders_of(&block).await;
    assert_eq!(holders.into_iter().collect::<Vec<_>>(), [id(2), id(3)]);
}
