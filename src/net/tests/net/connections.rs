//! How connections begin, compete, break and come back, over real loopback sockets.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{SinkExt, channel::mpsc};
use garage_net::{Answer, BindError, CallError, ConnectError, ConnectionEvent, NetError, NodeKey, QuicOptions, Transport};
use tokio::{net::UdpSocket, task::JoinHandle};

use crate::support::{Node, PATIENCE, SECRET, call, event, pair, until};

/// A node that listens again where another one did.
async fn start_again(key: &NodeKey, address: SocketAddr) -> Node {
    let bind = async {
        loop {
            match Node::with(QuicOptions::node(address, key.clone(), SECRET)) {
                Ok(node) => return node,
                // The socket of the former run closes in the background.
                Err(BindError::Taken { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, bind).await.expect("the port becomes free")
}

async fn down(events: &mut tokio::sync::broadcast::Receiver<ConnectionEvent>) -> String {
    event(events, |event| match event {
        ConnectionEvent::Down { reason, .. } => Some(reason),
        _ => None,
    })
    .await
}

type Feed = mpsc::Sender<Result<Bytes, NetError>>;
type Running = JoinHandle<Result<Answer, CallError>>;

/// A call whose body is fed by the test, and the running call.
fn fed_call(from: &Node, to: &Node) -> (Feed, Running) {
    let (feed, body) = mpsc::channel(1);
    let mut fed = call("count", "");
    fed.body = Some(Box::pin(body));
    (feed, tokio::spawn(from.transport.call(to.id(), fed)))
}

fn count_of(answer: Answer) -> u64 {
    u64::from_be_bytes(answer.payload[..].try_into().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_that_dial_at_once_keep_the_connection_of_the_smaller_id() {
    for _ in 0..20 {
        let (one, two) = (Node::start(), Node::start());
        let dials = tokio::join!(one.dial(&two), two.dial(&one));
        assert_eq!(dials, (Ok(two.id()), Ok(one.id())));
        until("one connection is left", || one.transport.open_connection_count() == 1 && two.transport.open_connection_count() == 1).await;
        assert_eq!(one.ask(&two, call("echo", "a")).await.unwrap().payload, "a");
        assert_eq!(two.ask(&one, call("echo", "b")).await.unwrap().payload, "b");
        let (of_one, of_two) = (one.transport.connections(), two.transport.connections());
        assert_eq!((of_one.len(), of_two.len()), (1, 1));
        assert_ne!(of_one[0].dialled_by_us, of_two[0].dialled_by_us, "both keep the same one");
        one.stop().await;
        two.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_on_the_connection_that_loses_ends_undisturbed() {
    let (one, two) = (Node::start(), Node::start());
    let (small, large) = if one.id() < two.id() { (one, two) } else { (two, one) };
    large.dial(&small).await.unwrap();
    until("the listener has it too", || small.transport.connections().len() == 1).await;
    let (mut feed_out, out) = fed_call(&large, &small);
    let (mut feed_back, back) = fed_call(&small, &large);
    feed_out.send(Ok(vec![1; 100_000].into())).await.unwrap();
    feed_back.send(Ok(vec![1; 100_000].into())).await.unwrap();

    // The other way round it is dialled by the smaller id, and replaces the first.
    assert_eq!(small.transport.connect(large.address(), None).await, Ok(large.id()));
    until("both have changed over", || {
        small.transport.connections()[0].dialled_by_us && large.transport.connections().iter().all(|info| !info.dialled_by_us)
    })
    .await;
    assert_eq!(large.ask(&small, call("echo", "new")).await.unwrap().payload, "new");
    assert!(1 < small.transport.open_connection_count(), "the first one still carries calls");

    for (mut feed, running) in [(feed_out, out), (feed_back, back)] {
        feed.send(Ok(vec![1; 100_000].into())).await.unwrap();
        drop(feed);
        assert_eq!(count_of(running.await.unwrap().unwrap()), 200_000);
    }
    until("the first one is closed", || small.transport.open_connection_count() == 1 && large.transport.open_connection_count() == 1).await;
    small.stop().await;
    large.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dialling_a_connected_node_changes_nothing() {
    let (one, two) = pair().await;
    for _ in 0..5 {
        assert_eq!(one.dial(&two).await, Ok(two.id()));
        assert_eq!(one.transport.connect(two.address(), None).await, Ok(two.id()));
        assert_eq!(two.transport.connect(SocketAddr::from(([127, 0, 0, 1], 9)), Some(one.id())).await, Ok(one.id()));
    }
    assert_eq!((one.transport.open_connection_count(), two.transport.open_connection_count()), (1, 1));
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_restarts_on_its_port_is_connected_again() {
    let (one, two) = pair().await;
    let mut events = one.transport.events();
    let (key, address) = (two.key.clone(), two.address());
    two.stop().await;
    assert!(down(&mut events).await.contains("stopping"));
    assert_eq!(one.transport.call(key.node(), call("echo", "")).await.unwrap_err(), CallError::NotConnected(key.node()));

    let two = start_again(&key, address).await;
    assert_eq!(one.dial(&two).await, Ok(two.id()));
    assert_eq!(one.ask(&two, call("echo", "again")).await.unwrap().payload, "again");
    one.stop().await;
    two.stop().await;
}

/// Passes packets between whoever sends first and `to`, until told to hold them back.
async fn relay(to: SocketAddr) -> (SocketAddr, Arc<AtomicBool>) {
    let (front, back) =
        (UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap(), UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
    back.connect(to).await.unwrap();
    let (address, held) = (front.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
    let hold = held.clone();
    tokio::spawn(async move {
        let (mut forth, mut reply, mut client) = ([0; 65_536], [0; 65_536], None);
        loop {
            tokio::select! {
                biased;
                Ok((len, from)) = front.recv_from(&mut forth) => {
                    client = Some(from);
                    if !hold.load(Ordering::SeqCst) {
                        let _ = back.send(&forth[..len]).await;
                    }
                }
                Ok(len) = back.recv(&mut reply) => if let (Some(client), false) = (client, hold.load(Ordering::SeqCst)) {
                    let _ = front.send_to(&reply[..len], client).await;
                },
                else => tokio::task::yield_now().await,
            }
        }
    });
    (address, held)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_falls_silent_is_given_up() {
    let (one, two) = (Node::start(), Node::start());
    let (address, held) = relay(two.address()).await;
    one.transport.connect(address, Some(two.id())).await.unwrap();
    let (mut of_one, mut of_two) = (one.transport.events(), two.transport.events());
    held.store(true, Ordering::SeqCst);
    let hanging = one.ask(&two, call("hang", "")).await.unwrap_err();
    assert!(matches!(hanging, CallError::Broken(_)), "{hanging}");
    assert!(down(&mut of_one).await.contains("heard"));
    assert!(down(&mut of_two).await.contains("heard"));
    one.assert_unharmed().await;
    two.assert_unharmed().await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_was_killed_and_restarted_says_so_and_is_dialled_again() {
    let (one, two) = (Node::start(), Node::start());
    let (address, held) = relay(two.address()).await;
    one.transport.connect(address, Some(two.id())).await.unwrap();
    let mut events = one.transport.events();
    let (key, listening) = (two.key.clone(), two.address());
    held.store(true, Ordering::SeqCst); // the farewell is lost, as if there had been none
    two.stop().await;
    let two = start_again(&key, listening).await;
    held.store(false, Ordering::SeqCst);
    assert!(down(&mut events).await.contains("restarted"), "a reset, not a time-out, ends the old connection");
    assert_eq!(one.transport.connect(address, Some(two.id())).await, Ok(two.id()));
    assert_eq!(one.ask(&two, call("echo", "again")).await.unwrap().payload, "again");
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_peer_that_dials_replaces_the_dead_connection() {
    for _ in 0..4 {
        let (one, two) = (Node::start(), Node::start());
        let (address, held) = relay(two.address()).await;
        one.transport.connect(address, Some(two.id())).await.unwrap();
        let mut events = one.transport.events();
        let (key, listening) = (two.key.clone(), two.address());
        held.store(true, Ordering::SeqCst);
        two.stop().await;
        let two = start_again(&key, listening).await;
        assert_eq!(two.dial(&one).await, Ok(one.id()));
        assert!(down(&mut events).await.contains("restarted"));
        assert_eq!(one.ask(&two, call("echo", "a")).await.unwrap().payload, "a");
        assert_eq!(two.ask(&one, call("echo", "b")).await.unwrap().payload, "b");
        one.stop().await;
        two.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_finishes_what_it_works_on() {
    let (one, two) = pair().await;
    let (mut feed, running) = fed_call(&one, &two);
    feed.send(Ok(vec![1; 1000].into())).await.unwrap();
    feed.send(Ok(vec![1; 1000].into())).await.unwrap();
    // The second piece is taken only after the first was sent, so the request is on its way; this makes sure that it has arrived.
    one.ask(&two, call("echo", "")).await.unwrap();
    let closing = tokio::spawn({
        let transport = two.transport.clone();
        async move { transport.close(PATIENCE).await }
    });
    let refused = async {
        // New requests are refused while the old one goes on.
        while one.ask(&two, call("echo", "")).await.is_ok() {}
    };
    tokio::time::timeout(PATIENCE, refused).await.unwrap();
    drop(feed);
    assert_eq!(count_of(running.await.unwrap().unwrap()), 2000);
    closing.await.unwrap();
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_only_dials_calls_and_is_called() {
    let node = Node::start();
    let client = Node::with(QuicOptions::client(NodeKey::throw_away().unwrap(), SECRET)).unwrap();
    assert_eq!(client.transport.local_addr(), None);
    assert_eq!(client.transport.connect(node.address(), None).await, Ok(node.id()));
    assert_eq!(client.ask(&node, call("echo", "a")).await.unwrap().payload, "a");
    until("the node has it too", || node.transport.connections().len() == 1).await;
    assert_eq!(node.ask(&client, call("echo", "b")).await.unwrap().payload, "b");
    client.stop().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_named() {
    let node = Node::start();
    let again = Node::with(QuicOptions::node(node.address(), NodeKey::throw_away().unwrap(), SECRET)).err().unwrap();
    assert!(matches!(again, BindError::Taken { .. }) && again.to_string().contains(&node.address().to_string()), "{again}");
    node.assert_unharmed().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dial_that_leads_nowhere_or_back_says_so() {
    let node = Node::start();
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = silent.local_addr().unwrap();
    assert_eq!(node.transport.connect(address, None).await, Err(ConnectError::Unreachable { address }));
    let address = node.address();
    assert_eq!(node.transport.connect(address, None).await, Err(ConnectError::Myself { address }));
    assert_eq!(node.transport.connect(address, Some(node.id())).await, Err(ConnectError::Myself { address }));
    node.assert_unharmed().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_on_all_addresses_is_reached_over_both_families() {
    let all = QuicOptions::node("[::]:0".parse().unwrap(), NodeKey::throw_away().unwrap(), SECRET);
    // A machine without IPv6 has nothing to show here.
    let Ok(node) = Node::with(all) else { return };
    let port = node.address().port();
    for address in ["127.0.0.1", "::1"] {
        let visitor = Node::with(QuicOptions::client(NodeKey::throw_away().unwrap(), SECRET)).unwrap();
        let address = SocketAddr::new(address.parse().unwrap(), port);
        assert_eq!(visitor.transport.connect(address, Some(node.id())).await, Ok(node.id()));
        until("the node sees it", || node.transport.connections().iter().any(|info| info.node == visitor.id())).await;
        let seen = node.transport.connections().into_iter().find(|info| info.node == visitor.id()).unwrap();
        assert_eq!(seen.address.ip(), address.ip(), "in its plain form");
        visitor.stop().await;
    }
    node.stop().await;
}
