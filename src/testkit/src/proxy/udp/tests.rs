//! A proxy in front of an echo server on loopback.

use super::{super::Loss, *};

/// Answers each datagram with the address it came from and the datagram itself.
async fn echo_server() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = vec![0; DATAGRAM_MAX_BYTES];
        while let Ok((len_bytes, from)) = socket.recv_from(&mut buffer).await {
            let answer = format!("{from} {}", String::from_utf8_lossy(&buffer[..len_bytes]));
            socket.send_to(answer.as_bytes(), from).await.unwrap();
        }
    });
    address
}

async fn proxy(delay: Duration, limits: Limits) -> UdpProxy {
    let gate = Gate::new(Loss::default(), 1);
    UdpProxy::start("127.0.0.1:0".parse().unwrap(), echo_server().await, delay, gate, limits).unwrap()
}

async fn client(proxy: &UdpProxy) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(proxy.address()).await.unwrap();
    socket
}

/// Sends `text` until an answer to it arrives, and returns the address that the server saw. Every wait is bounded by the test's own end.
async fn seen_as(client: &UdpSocket, text: &str) -> String {
    let mut buffer = vec![0; 1_500];
    client.send(text.as_bytes()).await.unwrap();
    loop {
        let len_bytes = client.recv(&mut buffer).await.unwrap();
        let answer = String::from_utf8_lossy(&buffer[..len_bytes]).into_owned();
        let (address, echoed) = answer.split_once(' ').unwrap();
        if echoed == text {
            return address.to_owned();
        }
    }
}

#[tokio::test]
async fn a_client_keeps_its_upstream_address_and_two_clients_have_two() {
    let proxy = proxy(Duration::ZERO, Limits::default()).await;
    let (first, second) = (client(&proxy).await, client(&proxy).await);
    let as_first = seen_as(&first, "one").await;
    assert_eq!(as_first, seen_as(&first, "two").await);
    assert_ne!(as_first, seen_as(&second, "three").await);
    assert_eq!(proxy.flow_count(), 2);
}

#[tokio::test]
async fn there_and_back_takes_at_least_two_delays() {
    let delay = Duration::from_millis(30);
    let proxy = proxy(delay, Limits::default()).await;
    let client = client(&proxy).await;
    let sent = Instant::now();
    seen_as(&client, "x").await;
    assert!(2 * delay <= sent.elapsed(), "{:?}", sent.elapsed());
}

#[tokio::test]
async fn the_longest_silent_flow_makes_room_for_a_new_one() {
    let proxy = proxy(Duration::ZERO, Limits { flows_max: 2, ..Limits::default() }).await;
    let clients = [client(&proxy).await, client(&proxy).await, client(&proxy).await];
    let mut seen = Vec::new();
    for client in &clients {
        seen.push(seen_as(client, "first").await);
    }
    assert_eq!(proxy.flow_count(), 2);
    assert_eq!(seen_as(&clients[2], "again").await, seen[2], "the newest flow was kept");
    assert_ne!(seen_as(&clients[0], "again").await, seen[0], "the oldest flow was forgotten");
    assert_eq!(proxy.flow_count(), 2);
}

#[tokio::test]
async fn a_silent_flow_is_forgotten() {
    let proxy = proxy(Duration::ZERO, Limits { idle_max: Duration::from_millis(20), ..Limits::default() }).await;
    let client = client(&proxy).await;
    seen_as(&client, "x").await;
    while proxy.flow_count() != 0 {
        time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_cut_stops_everything_and_mending_it_lets_new_packets_through() {
    let proxy = proxy(Duration::ZERO, Limits::default()).await;
    let client = client(&proxy).await;
    seen_as(&client, "before").await;
    proxy.set_cut(true);
    client.send(b"during").await.unwrap();
    let mut buffer = [0; 100];
    let answer = time::timeout(Duration::from_millis(50), client.recv(&mut buffer)).await;
    assert!(answer.is_err(), "an answer came through the cut");
    proxy.set_cut(false);
    seen_as(&client, "after").await;
}

#[tokio::test]
async fn a_way_that_is_cut_lets_through_what_goes_the_other_way_and_other_clients() {
    let upstream = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let gate = Gate::new(Loss::default(), 1);
    let proxy =
        UdpProxy::start("127.0.0.1:0".parse().unwrap(), upstream.local_addr().unwrap(), Duration::ZERO, gate, Limits::default()).unwrap();
    let client = client(&proxy).await;
    let mut cut = Gate::new(Loss::default(), 1);
    cut.set_cut(true);
    let mut buffer = [0; 100];
    client.send(b"there").await.unwrap();
    let (_, flow) = upstream.recv_from(&mut buffer).await.unwrap();

    proxy.set_way(IpAddr::V4(Ipv4Addr::LOCALHOST), Way::In, Some(cut));
    client.send(b"lost").await.unwrap();
    upstream.send_to(b"back", flow).await.unwrap();
    let len_bytes = client.recv(&mut buffer).await.unwrap();
    assert_eq!(&buffer[..len_bytes], b"back");
    let other = UdpSocket::bind("127.0.0.2:0").await.unwrap();
    other.connect(proxy.address()).await.unwrap();
    other.send(b"other").await.unwrap();
    let (len_bytes, _) = upstream.recv_from(&mut buffer).await.unwrap();
    assert_eq!(&buffer[..len_bytes], b"other", "what was sent before it was lost");

    proxy.set_way(IpAddr::V4(Ipv4Addr::LOCALHOST), Way::In, None);
    client.send(b"again").await.unwrap();
    let (len_bytes, _) = upstream.recv_from(&mut buffer).await.unwrap();
    assert_eq!(&buffer[..len_bytes], b"again");
}

#[tokio::test]
async fn an_upstream_that_was_away_is_reached_when_it_is_back() {
    let vacant = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let upstream = vacant.local_addr().unwrap();
    drop(vacant);
    let gate = Gate::new(Loss::default(), 1);
    let proxy = UdpProxy::start("127.0.0.1:0".parse().unwrap(), upstream, Duration::ZERO, gate, Limits::default()).unwrap();
    let client = client(&proxy).await;
    client.send(b"nobody is there").await.unwrap();
    // The flow exists once the packet was taken; its refusal may or may not have arrived by then.
    while proxy.flow_count() == 0 {
        tokio::task::yield_now().await;
    }
    let server = UdpSocket::bind(upstream).await.unwrap();
    client.send(b"hello").await.unwrap();
    let mut buffer = [0; 100];
    loop {
        let len_bytes = server.recv(&mut buffer).await.unwrap();
        if &buffer[..len_bytes] == b"hello" {
            break;
        }
    }
}
