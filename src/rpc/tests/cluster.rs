//! Several nodes over a network in memory, on virtual time: they find each other, agree on layouts, and notice who is gone.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use garage_db::StoreId;
use garage_net::{CallError, Class, NodeId, Transport};
use garage_rpc::{
    CallOptions, Cluster, ClusterOptions, Message, RouterBuilder, StoreMark,
    layout::{Role, RoleChange},
    layout_manager::{ApplyError, LayoutBallot},
    message::code,
    register::{self, Entry, WriteId},
    testing::{MemoryNetwork, TestNode},
};
use garage_util::{config::ConsistencyMode, hlc::Stamp};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

const MS: Duration = Duration::from_millis(1);
/// Far more virtual time than anything here needs: past it a test fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(120);

/// A call that only members may make, and that follows the layout fence.
#[derive(Serialize, Deserialize)]
struct Ping;
impl Message for Ping {
    const KIND: &'static str = "test/ping";
    const CLASS: Class = Class::Metadata;
    type Answer = u64;
}

/// One node of a test.
struct Node {
    surroundings: TestNode,
    address: SocketAddr,
    secret: u64,
    bootstrap: Vec<(NodeId, String)>,
    mark: Arc<Mutex<StoreMark>>,
    cluster: Option<Cluster>,
}

impl Node {
    fn new(number: u8) -> Node {
        let mark = Arc::new(Mutex::new(StoreMark { store_id: StoreId([number; 32]), commit_number: 10 }));
        let address = ([10, 0, 0, number], 3901).into();
        Node { surroundings: TestNode::new(number), address, secret: 7, bootstrap: Vec::new(), mark, cluster: None }
    }
    fn id(&self) -> NodeId {
        self.surroundings.id()
    }
    fn cluster(&self) -> &Cluster {
        self.cluster.as_ref().unwrap()
    }

    async fn start(&mut self, network: &MemoryNetwork) {
        let (runtime, mark) = (self.surroundings.runtime(), self.mark.clone());
        let options = ClusterOptions {
            local: self.id(),
            runtime: runtime.clone(),
            files: self.surroundings.files(),
            own_mark: Arc::new(move || *mark.lock()),
            hostname: format!("host-{}", self.id().0[0]),
            release: "1.2.3".to_string(),
            public_address: None,
            bootstrap_peers: self.bootstrap.clone(),
            replication_factor: 3,
            partition_count: 16,
            consistency_mode: ConsistencyMode::Consistent,
        };
        let prepared = Cluster::prepare(options).await.unwrap();
        let fenced = prepared.handle();
        let router = RouterBuilder::new().on_plain::<Ping, _>(move |_, context, Ping| {
            let cluster = fenced.clone();
            async move { cluster.check_layout_mark(&context.layout).map(|()| cluster.layout_mark().version) }
        });
        let attach =
            |service| Ok::<Arc<dyn Transport>, ()>(network.attach(self.surroundings.id(), self.address, self.secret, runtime, service));
        self.cluster = Some(prepared.online(router, attach).unwrap());
    }

    fn stop(&mut self, network: &MemoryNetwork) {
        self.cluster.take().unwrap().disconnect();
        network.detach(self.id());
        self.surroundings.stop();
    }

    fn sees_up(&self, node: NodeId) -> bool {
        self.cluster().status().iter().any(|status| status.node == node && status.is_up)
    }
    async fn ping(&self, to: NodeId) -> Result<u64, CallError> {
        self.cluster().call(to, &Ping, CallOptions::within(1_000 * MS)).await
    }
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        sleep(MS).await;
    }
    start.elapsed()
}

fn all_see_all(nodes: &[Node]) -> bool {
    nodes.iter().all(|node| nodes.iter().all(|other| node.sees_up(other.id())))
}

/// Nodes 1 to `count`, each knowing only the one before it, all up.
async fn chain(network: &MemoryNetwork, count: u8) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::new();
    for number in 1..=count {
        let mut node = Node::new(number);
        node.bootstrap.extend(nodes.last().map(|before| (before.id(), before.address.to_string())));
        node.start(network).await;
        nodes.push(node);
    }
    until("all nodes find each other", || all_see_all(&nodes)).await;
    nodes
}

fn role(number: u8) -> RoleChange {
    RoleChange::Assign(Role { zone: format!("zone-{number}"), capacity_bytes: Some(1 << 30), tags: Vec::new() })
}

/// Assigns a role to each node, through different nodes, and applies it as version 1.
async fn lay_out(nodes: &[Node]) {
    for (index, node) in nodes.iter().enumerate() {
        nodes[nodes.len() - 1 - index].cluster().stage_role(node.id(), role(node.id().0[0])).await.unwrap();
    }
    let staged_count = |node: &Node| node.cluster().layout().staged_role_changes().count();
    until("what is staged on one node is shown on all", || nodes.iter().all(|node| staged_count(node) == nodes.len())).await;
    nodes[0].cluster().apply_layout(1).await.unwrap();
    assert!(nodes.iter().all(|node| node.cluster().layout_mark().version == 1), "the connected nodes know it at once");
    let settled =
        |node: &Node| node.cluster().layout().live_trackers().values().all(|trackers| trackers.ack == 1 && trackers.sync_ack == 1);
    until("every node acknowledged it", || nodes.iter().all(settled)).await;
}

#[tokio::test(start_paused = true)]
async fn nodes_find_each_other_through_one_they_know() {
    let network = MemoryNetwork::new(5 * MS);
    let nodes = chain(&network, 5).await;
    for node in &nodes {
        let status = node.cluster().status();
        assert_eq!(status.len(), 5);
        assert!(status[0].is_self);
        assert!(status.iter().all(|status| status.hostname == Some(format!("host-{}", status.node.0[0]))), "{status:?}");
        assert!(status[1..].iter().all(|status| status.rtt == Some(10 * MS) || status.rtt.is_none()));
    }
}

#[tokio::test(start_paused = true)]
async fn two_clusters_become_one_when_an_operator_connects_two_nodes() {
    let network = MemoryNetwork::new(5 * MS);
    let mut nodes = chain(&network, 2).await;
    let mut others = vec![Node::new(3), Node::new(4)];
    let known = (others[0].id(), others[0].address.to_string());
    others[1].bootstrap.push(known);
    for node in &mut others {
        node.start(&network).await;
    }
    until("the others find each other", || all_see_all(&others)).await;
    others[1].cluster().connect(nodes[0].id(), &nodes[0].address.to_string()).await.unwrap();
    nodes.extend(others);
    until("all nodes find each other", || all_see_all(&nodes)).await;
}

#[tokio::test(start_paused = true)]
async fn only_members_make_member_calls_and_only_once_there_is_a_layout() {
    let network = MemoryNetwork::new(5 * MS);
    let nodes = chain(&network, 4).await;
    let refusal_code = |answer| match answer {
        Err(CallError::Refused(refusal)) => refusal.code,
        other => panic!("{other:?}"),
    };
    assert_eq!(refusal_code(nodes[0].ping(nodes[1].id()).await), code::NOT_A_MEMBER);
    assert_eq!(nodes[0].ping(nodes[0].id()).await, Ok(0), "a node may always call itself");
    lay_out(&nodes[..3]).await;
    until("the fourth node hears of it", || nodes[3].cluster().layout_mark().version == 1).await;
    assert_eq!(nodes[0].ping(nodes[1].id()).await, Ok(1));
    assert_eq!(refusal_code(nodes[3].ping(nodes[1].id()).await), code::NOT_A_MEMBER);
}

#[tokio::test(start_paused = true)]
async fn a_placement_names_a_quorum_and_puts_the_node_itself_first() {
    let network = MemoryNetwork::new(5 * MS);
    let nodes = chain(&network, 3).await;
    assert!(nodes[0].cluster().placement(&[9; 32]).is_err(), "there is no layout yet");
    lay_out(&nodes).await;
    for node in &nodes {
        let placement = node.cluster().placement(&[9; 32]).unwrap();
        assert_eq!((placement.read_nodes.len(), placement.read_nodes[0], placement.read_quorum), (3, node.id(), 2));
        assert_eq!((placement.write.sets().len(), placement.write.sets()[0].quorum_count()), (1, 2));
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_operators_who_apply_at_once_one_wins_and_the_other_is_told() {
    for round in 0..4u32 {
        let network = MemoryNetwork::new(5 * MS);
        let nodes = chain(&network, 3).await;
        lay_out(&nodes).await;
        let (left, right) = (nodes[0].cluster(), nodes[1].cluster());
        // Each has staged something the other has not heard of yet.
        left.stage_role(nodes[2].id(), role(8)).await.unwrap();
        right.stage_role(nodes[2].id(), role(9)).await.unwrap();
        let later = async {
            sleep((round * 7 % 20) * MS).await;
            right.apply_layout(2).await
        };
        let (first, second) = tokio::join!(left.apply_layout(2), later);
        let is_told = |answer: &Result<_, ApplyError>| matches!(answer, Err(ApplyError::Beaten { version: 2 } | ApplyError::Update(_)));
        let winner_zone = match (&first, &second) {
            (Ok(_), told) if is_told(told) => "zone-8",
            (told, Ok(_)) if is_told(told) => "zone-9",
            both => panic!("{both:?}"),
        };
        let digest = |node: &Node| node.cluster().layout_mark();
        until("all nodes have the same version 2", || {
            nodes.iter().all(|node| digest(node).version == 2 && digest(node) == digest(&nodes[0]))
        })
        .await;
        let zone = |node: &Node| node.cluster().layout().current().role(nodes[2].id()).map(|role| role.zone.clone());
        assert!(nodes.iter().all(|node| zone(node).as_deref() == Some(winner_zone)), "what was answered is what holds");
    }
}

#[tokio::test(start_paused = true)]
async fn no_layout_is_applied_without_a_majority_of_the_storage_nodes() {
    let network = MemoryNetwork::new(5 * MS);
    let mut nodes = chain(&network, 3).await;
    lay_out(&nodes).await;
    nodes[1].stop(&network);
    nodes[2].stop(&network);
    until("they are gone", || nodes[0].cluster().status().iter().filter(|status| status.is_up).count() == 1).await;
    let answer = nodes[0].cluster().apply_layout(2).await;
    assert!(matches!(answer, Err(ApplyError::NoMajority { version: 2, node_count: 3 })), "{answer:?}");
    nodes[1].start(&network).await;
    until("a node is back", || nodes[0].sees_up(nodes[1].id())).await;
    nodes[0].cluster().apply_layout(2).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_layout_outlives_a_restart_and_reaches_a_node_that_was_away() {
    let network = MemoryNetwork::new(5 * MS);
    let mut nodes = chain(&network, 3).await;
    lay_out(&nodes).await;
    nodes[2].stop(&network);
    nodes[0].cluster().apply_layout(2).await.unwrap();
    nodes[2].start(&network).await;
    assert_eq!(nodes[2].cluster().layout_mark().version, 1, "as it was when it stopped");
    until("it hears of version 2", || nodes[2].cluster().layout_mark() == nodes[0].cluster().layout_mark()).await;
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_with_an_old_layout_is_refused_and_plans_again_with_the_new_one() {
    let network = MemoryNetwork::new(5 * MS);
    let nodes = chain(&network, 3).await;
    lay_out(&nodes).await;
    // Node 3 misses version 2, and what it asks of node 1 gets through again before anybody tells it.
    network.cut(nodes[2].id(), nodes[0].id(), true);
    network.cut(nodes[2].id(), nodes[1].id(), true);
    nodes[0].cluster().apply_layout(2).await.unwrap();
    let acknowledged = || nodes[0].cluster().layout().trackers(nodes[0].id()).ack == 2;
    until("node 1 acknowledges version 2", acknowledged).await;
    if nodes[2].cluster().layout_mark().version == 1 {
        network.cut(nodes[2].id(), nodes[0].id(), false);
        match nodes[2].ping(nodes[0].id()).await {
            Err(CallError::Refused(refusal)) => assert_eq!(refusal.code, code::STALE_LAYOUT),
            other => panic!("{other:?}"),
        }
        assert_eq!(nodes[2].cluster().layout_mark().version, 2, "taken over from the refusal");
        assert_eq!(nodes[2].ping(nodes[0].id()).await, Ok(2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stopped_node_and_a_silent_one_are_noticed_within_seconds_and_again_when_they_return() {
    let network = MemoryNetwork::new(5 * MS);
    let mut nodes = chain(&network, 3).await;
    nodes[2].stop(&network);
    let stopped = nodes[2].id();
    until("the closed connection is seen", || !nodes[0].sees_up(stopped) && !nodes[1].sees_up(stopped)).await;
    nodes[2].start(&network).await;
    until("it is back", || all_see_all(&nodes)).await;

    for other in [0, 1] {
        network.cut(nodes[other].id(), nodes[2].id(), true);
    }
    let noticed = until("the silence is seen", || !nodes[0].sees_up(stopped) && !nodes[1].sees_up(stopped)).await;
    assert!(noticed < 10_000 * MS, "virtual time: {noticed:?}");
    assert!(nodes[0].sees_up(nodes[1].id()));
    for other in [0, 1] {
        network.cut(nodes[other].id(), nodes[2].id(), false);
    }
    until("it is heard again", || all_see_all(&nodes)).await;
}

#[tokio::test(start_paused = true)]
async fn nodes_that_all_restart_find_each_other_again_from_what_they_saved() {
    let network = MemoryNetwork::new(5 * MS);
    let mut nodes = chain(&network, 3).await;
    for node in &mut nodes {
        node.stop(&network);
        node.bootstrap.clear();
    }
    // One has moved meanwhile: it finds the others, who then know its new address.
    nodes[1].address = ([10, 0, 9, 9], 4000).into();
    for node in &mut nodes {
        node.start(&network).await;
    }
    let took = until("all nodes find each other", || all_see_all(&nodes)).await;
    assert!(took < 5_000 * MS, "virtual time: {took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_starts_waits_for_its_quorums_and_not_for_ever() {
    let network = MemoryNetwork::new(5 * MS);
    let mut nodes = chain(&network, 3).await;
    assert!(nodes[0].cluster().has_quorums(), "nothing has a place yet");
    lay_out(&nodes).await;
    nodes[2].stop(&network);
    nodes[2].start(&network).await;
    assert!(!nodes[2].cluster().has_quorums(), "it has only begun to dial");
    assert!(nodes[2].cluster().await_quorums(PATIENCE).await);
    assert!(nodes[..2].iter().any(|other| nodes[2].sees_up(other.id())));
    for index in [0, 1] {
        nodes[index].stop(&network);
    }
    until("the others are missed", || !nodes[2].cluster().has_quorums()).await;
    let begun = Instant::now();
    assert!(!nodes[2].cluster().await_quorums(700 * MS).await);
    assert!(begun.elapsed() < 800 * MS, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_node_with_another_secret_is_shown_with_the_reason_and_joins_nothing() {
    let network = MemoryNetwork::new(5 * MS);
    let nodes = chain(&network, 2).await;
    let mut stranger = Node::new(3);
    stranger.secret = 8;
    stranger.bootstrap.push((nodes[0].id(), nodes[0].address.to_string()));
    stranger.start(&network).await;
    let reason = |status: &garage_rpc::status::NodeStatus| status.refused.clone().unwrap_or_default();
    until("the stranger is told why", || stranger.cluster().status().iter().any(|status| reason(status).contains("rpc_secret"))).await;
    let refused = nodes[0].cluster().refused_addresses();
    assert!(refused.iter().any(|(address, reason)| *address == stranger.address && reason.contains("rpc_secret")), "{refused:?}");
    assert!(!nodes[0].sees_up(stranger.id()));
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_store_was_set_back_is_noticed_at_the_next_handshake() {
    let network = MemoryNetwork::new(5 * MS);
    let mut nodes = chain(&network, 2).await;
    let acknowledged = StoreMark { store_id: StoreId([2; 32]), commit_number: 20 };
    assert_eq!(nodes[0].cluster().note_store_mark(nodes[1].id(), acknowledged), None);
    nodes[1].stop(&network);
    nodes[1].mark.lock().commit_number = 15;
    nodes[1].start(&network).await;
    let regression = || nodes[0].cluster().status().into_iter().find_map(|status| status.store_regression);
    until("the loss is seen", || regression().is_some()).await;
    assert_eq!(regression().unwrap().known, acknowledged);
}

#[tokio::test(start_paused = true)]
async fn a_version_is_acknowledged_only_once_operations_that_planned_with_an_older_one_have_ended() {
    let network = MemoryNetwork::new(5 * MS);
    let nodes = chain(&network, 3).await;
    lay_out(&nodes).await;
    let operation = nodes[0].cluster().placement(&[9; 32]).unwrap();
    nodes[1].cluster().apply_layout(2).await.unwrap();
    let ack = |node: &Node| node.cluster().layout().trackers(node.id()).ack;
    until("the others acknowledge it", || ack(&nodes[1]) == 2 && ack(&nodes[2]) == 2).await;
    sleep(5_000 * MS).await;
    assert_eq!(ack(&nodes[0]), 1, "an operation is under way");
    drop(operation);
    let current_only = |node: &Node| node.cluster().layout().oldest_live() == 2;
    until("version 1 is let go", || ack(&nodes[0]) == 2 && nodes.iter().all(current_only)).await;
}

#[tokio::test(start_paused = true)]
async fn a_version_whose_operator_crashed_after_the_majority_took_it_is_applied_by_the_others() {
    let network = MemoryNetwork::new(5 * MS);
    let nodes = chain(&network, 3).await;
    lay_out(&nodes).await;
    let (next, _) = nodes[0].cluster().layout().preview().unwrap();
    let stamp = nodes[0].cluster().tick(Stamp::ZERO).await.unwrap();
    let entry = Entry { stamp, id: WriteId([5; 32]) };
    let content = Some(serde_bytes::ByteBuf::from(rmp_serde::to_vec_named(&next).unwrap()));
    let ballot = LayoutBallot { version: 2, epoch: next.epoch, message: register::Message::Apply { entry, ballot: stamp }, content };
    for replica in &nodes[1..] {
        nodes[0].cluster().call(replica.id(), &ballot, CallOptions::within(1_000 * MS)).await.unwrap();
    }
    until("all nodes have it", || nodes.iter().all(|node| node.cluster().layout().version(2) == Some(&next))).await;
}
