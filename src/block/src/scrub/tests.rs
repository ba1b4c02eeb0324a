//! The scrub finds rot, keeps its place over a restart, and has bad copies replaced.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use garage_rpc::testing::TestNode;
use garage_util::workers::Workers;
use tokio::time::sleep;

use super::{Scrub, ScrubCommand, Stage};
use crate::{
    encoding::Compression,
    hash::BlockHash,
    manager::{
        ManagerOptions,
        tests::nodes::{Nodes, context, reference},
    },
    resync::Resync,
};

async fn stored(nodes: &Nodes, text: &str) -> Bytes {
    let block = Bytes::from(text.repeat(1_000));
    nodes.manager.put(block.clone(), reference(&block), Compression::Never, context()).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    block
}

async fn scrub_of(nodes: &Nodes) -> (Scrub, Resync, Workers) {
    let runtime = TestNode::new(1).runtime();
    let workers = Workers::new(runtime.clone());
    let resync = Resync::new(runtime.clone(), nodes.manager.clone(), Arc::new(|_| true));
    let scrub = Scrub::open(runtime, resync.clone()).await.unwrap();
    (scrub, resync, workers)
}

#[tokio::test(start_paused = true)]
async fn rot_is_found_set_aside_and_replaced_from_a_peer() {
    let nodes = Nodes::new(ManagerOptions::default()).await;
    let blocks = [stored(&nodes, "a").await, stored(&nodes, "b").await, stored(&nodes, "c").await];
    nodes.rot_block(1, &blocks[1]);
    let (scrub, resync, workers) = scrub_of(&nodes).await;
    scrub.start(&workers);
    resync.start(&workers);
    scrub.command(ScrubCommand::Start).await.unwrap();
    sleep(Duration::from_secs(120)).await;
    let state = scrub.state();
    assert_eq!(state.corruptions_count, 1);
    assert!(state.last_completed_ms.is_some() && matches!(state.stage, Stage::Waiting { .. }), "{state:?}");
    for block in &blocks {
        assert_eq!(nodes.node(1).service.store().get(BlockHash::of(block)).await.unwrap(), block);
    }
}

#[tokio::test(start_paused = true)]
async fn a_paused_scrub_is_still_paused_after_a_restart() {
    let nodes = Nodes::new(ManagerOptions::default()).await;
    let (scrub, _, _) = scrub_of(&nodes).await;
    scrub.set_tranquility(7).await.unwrap();
    scrub.command(ScrubCommand::Start).await.unwrap();
    scrub.command(ScrubCommand::Pause).await.unwrap();
    let before = scrub.state();
    nodes.cut_power();
    let (scrub, _, _) = scrub_of(&nodes).await;
    assert_eq!(scrub.state(), before);
    assert_eq!(before.tranquility, 7);
}
