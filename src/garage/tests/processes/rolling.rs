//! Nodes restarted one after the other under load, as an upgrade does: no request fails at a client that goes on to the next node when one
//! does not listen.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use bytes::Bytes;
use garage_testkit::load::Content;
use http::Method;
use tokio::task::JoinSet;

use crate::support::{
    self,
    client::S3,
    cluster::{BUCKET, Cluster, await_all_seen},
    wait::until,
};

const CLIENTS: usize = 8;
const SIZES_BYTES: [usize; 2] = [700, 200_000];

/// A client that knows all nodes, as a load balancer does.
struct Balanced {
    nodes: Vec<S3>,
    first: usize,
}

impl Balanced {
    /// The first answer of a node that takes the connection.
    async fn ask(&mut self, method: Method, target: &str, body: Bytes) -> Result<(u16, Bytes), String> {
        let mut last = String::new();
        for _ in 0..self.nodes.len() {
            let node = &self.nodes[self.first % self.nodes.len()];
            match node.attempt(method.clone(), target, &[], body.clone()).await {
                Ok(answer) => return Ok((answer.status, answer.body)),
                // Nothing was sent: the node does not listen.
                Err(error) if error.contains("Connect") => {
                    self.first += 1;
                    last = error;
                }
                Err(error) => return Err(error),
            }
        }
        Err(format!("no node listens: {last}"))
    }
}

async fn write_and_read(mut client: Balanced, number: usize, over: Arc<AtomicBool>, done: Arc<AtomicU64>) -> Vec<String> {
    let mut failures = Vec::new();
    for count in 0u64.. {
        if over.load(Ordering::SeqCst) {
            return failures;
        }
        let size_bytes = SIZES_BYTES[(count % 2) as usize];
        let (content, index) = (Content::new(size_bytes), (number as u64) << 32 | count);
        let target = format!("/{BUCKET}/rolling-{number}-{}", count % 20);
        match client.ask(Method::PUT, &target, content.object(index)).await {
            Ok((200, _)) => {}
            other => failures.push(format!("PUT {target}: {other:?}")),
        }
        match client.ask(Method::GET, &target, Bytes::new()).await {
            Ok((200, body)) if body.len() == size_bytes && content.matches(index, 0, &body) => {}
            Ok((status, body)) => failures.push(format!("GET {target}: {status} with {} bytes", body.len())),
            Err(error) => failures.push(format!("GET {target}: {error}")),
        }
        done.fetch_add(1, Ordering::SeqCst);
    }
    unreachable!("the count does not end")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_under_load_fails_no_request() {
    let _turn = support::turn_alone().await;
    let mut cluster = Cluster::start().await;
    let nodes: Vec<S3> = (0..3).map(|index| cluster.s3(index)).collect();
    let (over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let client = Balanced { nodes: nodes.clone(), first: number };
        clients.spawn(write_and_read(client, number, over.clone(), done.clone()));
    }
    let more_done = async |count: u64| {
        let wanted = done.load(Ordering::SeqCst) + count;
        until("more requests", async || (wanted <= done.load(Ordering::SeqCst)).then_some(())).await;
    };
    for index in 0..cluster.nodes.len() {
        more_done(40).await;
        cluster.nodes[index].stop().await;
        more_done(40).await;
        cluster.nodes[index].start().await;
        await_all_seen(&cluster.nodes).await;
    }
    more_done(40).await;
    over.store(true, Ordering::SeqCst);
    let failures: Vec<String> = clients.join_all().await.into_iter().flatten().collect();
    assert!(failures.is_empty(), "{} requests failed: {:?}", failures.len(), &failures[..failures.len().min(5)]);
}
