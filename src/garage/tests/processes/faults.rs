//! Nodes that end without warning while clients write: what was acknowledged stays, and the others go on.

use std::time::{Duration, Instant};

use http::Method;
use nix::sys::signal::Signal;

use crate::support::{
    self,
    cluster::{BUCKET, Cluster},
    load::{self, Writers},
    wait::until_within,
};

const WRITERS: usize = 16;
/// Every node serves again within this time of a restart.
const SERVES_WITHIN: Duration = Duration::from_secs(5);
/// No acknowledged request takes this much longer because a node is gone.
const LOST_NODE_COSTS: Duration = Duration::from_secs(1);

/// A promise about time, times `TEST_TIME_FACTOR`: for machines slower than any that would run a node.
fn stretched(time: Duration) -> Duration {
    let factor = std::env::var("TEST_TIME_FACTOR").ok().and_then(|factor| factor.parse().ok()).unwrap_or(1.0);
    time.mul_f64(factor)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_costs_no_acknowledged_object_and_no_request_through_the_others() {
    let _turn = support::turn_alone().await;
    let mut cluster = Cluster::start().await;
    let endpoints: Vec<_> = (0..3).map(|index| cluster.s3(index)).collect();

    let before = Writers::start(&endpoints, WRITERS, 0);
    before.more_acknowledged(400).await;
    let before = before.stop().await;
    assert!(before.failures.is_empty(), "nobody is gone yet: {:?}", before.failures.first());

    let during = Writers::start(&endpoints, WRITERS, 1_000_000);
    during.more_acknowledged(400).await;
    cluster.nodes[2].kill().await;
    during.more_acknowledged(800).await;
    let during = during.stop().await;
    let failures: Vec<_> = during.failures.iter().filter(|(endpoint, _)| *endpoint != 2).collect();
    assert!(failures.is_empty(), "{} requests failed through the other nodes: {:?}", failures.len(), failures.first());
    let (longest, bound) = (during.longest, before.longest + stretched(LOST_NODE_COSTS));
    assert!(longest < bound, "a write took {longest:?}; before the node was killed none took more than {:?}", before.longest);
    for s3 in &endpoints[..2] {
        load::assert_all_there(s3, &during.acknowledged).await;
    }

    cluster.nodes[2].spawn();
    let first = during.acknowledged[during.acknowledged.len() - 1];
    until_within(stretched(SERVES_WITHIN), "the restarted node to serve", async || match load::read(&endpoints[2], first).await {
        Ok(()) => Some(()),
        // Not listening yet. Any answer must be the right one.
        Err(error) if error.contains("Connect") => None,
        Err(error) => panic!("the restarted node answered {error}"),
    })
    .await;
    load::assert_all_there(&endpoints[2], &during.acknowledged).await;
    endpoints[2].put(&format!("/{BUCKET}/after"), "x").await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_killed_at_once_just_after_the_cluster_was_formed_lose_nothing_and_serve_at_once() {
    let _turn = support::turn_alone().await;
    let mut cluster = Cluster::start().await;
    let endpoints: Vec<_> = (0..3).map(|index| cluster.s3(index)).collect();
    let mut acknowledged = Vec::new();
    for round in 0..2 {
        let writers = Writers::start(&endpoints, WRITERS, round * 1_000_000);
        writers.more_acknowledged(300).await;
        cluster.nodes.iter().for_each(|node| node.signal(Signal::SIGKILL));
        for node in &mut cluster.nodes {
            node.ended().await;
        }
        acknowledged.extend(writers.stop().await.acknowledged);

        let started = Instant::now();
        cluster.nodes.iter_mut().for_each(|node| node.spawn());
        for (index, s3) in endpoints.iter().enumerate() {
            let left = stretched(SERVES_WITHIN).saturating_sub(started.elapsed());
            until_within(left, &format!("node {index} to serve again"), async || {
                let put = s3.attempt(Method::PUT, &format!("/{BUCKET}/again-{index}"), &[], "x".into()).await;
                let is_put = put.is_ok_and(|answer| answer.status == 200);
                (is_put && load::read(s3, acknowledged[0]).await.is_ok()).then_some(())
            })
            .await;
        }
        eprintln!("all nodes served {:?} after the restart", started.elapsed());
        for s3 in &endpoints {
            load::assert_all_there(s3, &acknowledged).await;
        }
    }
}
