//! Peers that lie, guess, replay, flood or talk nonsense: each is refused or bounded, and the node serves on.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use garage_net::{
    Class, ConnectError, LayoutMark, NodeId, NodeKey, QuicOptions, Refusal, Transport,
    frame::{AnswerHeader, Hello, RequestHeader, decode_header, encode_head},
    limits::{HALF_OPEN_MAX, HEADER_MAX_BYTES, PAYLOAD_MAX_BYTES},
    packing,
    proof::{self, Binding, EXPORTER_LABEL, Role},
    tls::{self, SERVER_NAME},
    types::refusal_code,
};
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, ServerConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};

use crate::support::{Node, PATIENCE, SECRET, call, refusal, until};

/// A peer made of bare parts, which can leave the path at any step.
struct Stranger {
    key: NodeKey,
    endpoint: Endpoint,
}

impl Stranger {
    fn new() -> Stranger {
        Stranger::listening(|config| config)
    }

    fn listening(change: impl FnOnce(rustls::ServerConfig) -> rustls::ServerConfig) -> Stranger {
        let key = NodeKey::throw_away().unwrap();
        let config = change(tls::server_config(&key).unwrap());
        let server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(config).unwrap()));
        Stranger { key, endpoint: Endpoint::server(server, (Ipv4Addr::LOCALHOST, 0).into()).unwrap() }
    }

    fn address(&self) -> SocketAddr {
        self.endpoint.local_addr().unwrap()
    }

    async fn dial_with(&self, node: &Node, change: impl FnOnce(&mut rustls::ClientConfig)) -> Result<Connection, ConnectionError> {
        let mut config = tls::client_config(&self.key, Some(node.id())).unwrap().0;
        change(&mut config);
        let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()));
        self.endpoint.connect_with(config, node.address(), SERVER_NAME).unwrap().await
    }

    async fn dial(&self, node: &Node) -> Connection {
        self.dial_with(node, |_| {}).await.unwrap()
    }

    fn binding(&self, connection: &Connection, node: &Node) -> Binding {
        let mut exporter = [0; 32];
        connection.export_keying_material(&mut exporter, EXPORTER_LABEL, b"").unwrap();
        Binding { dialler: self.key.node(), listener: node.id(), exporter }
    }

    /// Dials with the right secret and proves it.
    async fn join(&self, node: &Node) -> Connection {
        let connection = self.dial(node).await;
        let proof = proof::prove(&SECRET, Role::Dialler, &self.binding(&connection, node));
        let answer = say(&connection, &hello(proof.to_vec())).await.expect("a right proof is answered");
        let hello: Hello = decode_header(&answer[8..]).unwrap();
        assert!(proof::verify(&SECRET, Role::Listener, &self.binding(&connection, node), &hello.proof));
        connection
    }
}

fn hello(proof: Vec<u8>) -> Vec<u8> {
    encode_head(&Hello { run: 1, dial_number: 0, proof }, 0).unwrap().to_vec()
}

/// Sends bytes on a fresh stream and gives what comes back; `None` if nothing does.
async fn say(connection: &Connection, bytes: &[u8]) -> Option<Vec<u8>> {
    let (mut send, mut receive) = connection.open_bi().await.ok()?;
    // A peer that refuses early stops the stream while we write: what it says is read all the same.
    let _ = send.write_all(bytes).await;
    let _ = send.finish();
    receive.read_to_end(1 << 20).await.ok().filter(|answer| !answer.is_empty())
}

/// The sentence with which the other side closed.
async fn closed_with(connection: &Connection) -> String {
    match tokio::time::timeout(PATIENCE, connection.closed()).await.unwrap() {
        ConnectionError::ApplicationClosed(close) => String::from_utf8(close.reason.to_vec()).unwrap(),
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_at_the_address_is_not_taken_for_the_one_that_is_expected() {
    let (one, two) = (Node::start(), Node::start());
    let expected = NodeId([7; 32]);
    let mut events = one.transport.events();
    let error = one.transport.connect(two.address(), Some(expected)).await.unwrap_err();
    assert_eq!(error, ConnectError::OtherNode { address: two.address(), expected, found: two.id() });
    assert_eq!(refusal(&mut events).await.0, Some(two.id()));
    assert!(one.transport.connections().is_empty() && two.transport.connections().is_empty());
    one.assert_unharmed().await;
    two.assert_unharmed().await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_impostor_who_shows_a_key_it_does_not_own_is_refused() {
    let (one, victim) = (Node::start(), NodeKey::throw_away().unwrap());
    // The victim's public key, signed for with the impostor's own.
    let impostor = Stranger::listening(|mut config| {
        let spki = [&[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00][..], victim.node().as_bytes()].concat();
        let own = NodeKey::throw_away().unwrap();
        let signer = rustls::crypto::ring::sign::any_eddsa_type(&own.to_pkcs8().into()).unwrap();
        let shown = rustls::sign::CertifiedKey::new(vec![spki.into()], signer);
        config.cert_resolver = Arc::new(rustls::server::AlwaysResolvesServerRawPublicKeys::new(Arc::new(shown)));
        config
    });
    let accepting = tokio::spawn({
        let endpoint = impostor.endpoint.clone();
        async move { endpoint.accept().await.unwrap().await.map(drop) }
    });
    let error = one.transport.connect(impostor.address(), Some(victim.node())).await.unwrap_err();
    assert!(matches!(error, ConnectError::Refused { .. }), "{error}");
    assert!(accepting.await.unwrap().is_err());
    assert!(one.transport.connections().is_empty());
    one.assert_unharmed().await;
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_is_refused_and_both_sides_say_why() {
    let node = Node::start();
    let other = Node::with(QuicOptions::node((Ipv4Addr::LOCALHOST, 0).into(), NodeKey::throw_away().unwrap(), [43; 32])).unwrap();
    for (dialler, listener) in [(&other, &node), (&node, &other)] {
        let (mut at_dialler, mut at_listener) = (dialler.transport.events(), listener.transport.events());
        let error = dialler.dial(listener).await.unwrap_err();
        assert!(matches!(&error, ConnectError::Refused { reason, .. } if reason.contains("rpc_secret")), "{error}");
        let (peer, reason) = refusal(&mut at_dialler).await;
        assert!(peer == Some(listener.id()) && reason.contains("rpc_secret"), "{reason}");
        let (peer, reason) = refusal(&mut at_listener).await;
        assert!(peer == Some(dialler.id()) && reason.contains("rpc_secret"), "{reason}");
        assert!(dialler.transport.connections().is_empty() && listener.transport.connections().is_empty());
    }
    node.assert_unharmed().await;
    node.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_proof_is_refused() {
    let (honest, node) = (Node::start(), Node::start());
    let stranger = Stranger::new();
    // The honest node dials the stranger, who has no secret, and so gives away a proof.
    let dialling = tokio::spawn(honest.transport.connect(stranger.address(), None));
    let lured = stranger.endpoint.accept().await.unwrap().await.unwrap();
    let (_send, mut receive) = lured.accept_bi().await.unwrap();
    let captured = receive.read_to_end(4096).await.unwrap();

    // Neither on a connection of its own nor ...
    let connection = stranger.dial(&node).await;
    assert_eq!(say(&connection, &captured).await, None, "the listener proves nothing to it");
    assert!(closed_with(&connection).await.contains("rpc_secret"));
    // ... on another one to the node that made it does it prove anything.
    let connection = stranger.dial(&honest).await;
    assert_eq!(say(&connection, &captured).await, None);
    assert!(closed_with(&connection).await.contains("rpc_secret"));

    lured.close(0u8.into(), b"enough");
    assert!(dialling.await.unwrap().is_err());
    assert!(node.transport.connections().is_empty());
    node.assert_unharmed().await;
    honest.assert_unharmed().await;
    node.stop().await;
    honest.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reflected_proof_is_refused() {
    let (node, stranger) = (Node::start(), Stranger::new());
    let dialling = tokio::spawn(node.transport.connect(stranger.address(), Some(stranger.key.node())));
    let connection = stranger.endpoint.accept().await.unwrap().await.unwrap();
    let (mut send, mut receive) = connection.accept_bi().await.unwrap();
    let captured = receive.read_to_end(4096).await.unwrap();
    send.write_all(&captured).await.unwrap();
    send.finish().unwrap();
    let error = dialling.await.unwrap().unwrap_err();
    assert!(matches!(&error, ConnectError::Refused { reason, .. } if reason.contains("rpc_secret")), "{error}");
    assert!(closed_with(&connection).await.contains("rpc_secret"));
    node.assert_unharmed().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_does_not_begin_with_a_proof_is_refused() {
    let node = Node::start();
    let claims_much = [&(HEADER_MAX_BYTES as u32 + 1).to_be_bytes()[..], &[0; 4]].concat();
    for first in [vec![], vec![0], vec![0xff; 64], claims_much, hello(vec![]), hello(vec![0; 31]), hello(vec![0; 32])] {
        let stranger = Stranger::new();
        let connection = stranger.dial(&node).await;
        assert_eq!(say(&connection, &first).await, None, "{first:?}");
        let reason = closed_with(&connection).await;
        assert!(reason.contains("handshake") || reason.contains("rpc_secret"), "{reason}");
    }
    assert!(node.transport.connections().is_empty());
    node.assert_unharmed().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_protocol_version_is_refused() {
    let node = Node::start();
    let result = Stranger::new().dial_with(&node, |config| config.alpn_protocols = vec![b"garage/0".to_vec()]).await;
    assert!(result.is_err());
    node.assert_unharmed().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_without_a_key_is_refused() {
    let node = Node::start();
    let dialled = Stranger::new().dial_with(&node, |config| config.client_auth_cert_resolver = Arc::new(NoKey)).await;
    if let Ok(connection) = dialled {
        // The dialler's side of TLS ends first; the listener's does not.
        let closed = tokio::time::timeout(PATIENCE, connection.closed()).await.unwrap();
        assert!(matches!(closed, ConnectionError::ConnectionClosed(_)), "{closed}");
    }
    assert!(node.transport.connections().is_empty());
    node.assert_unharmed().await;
    node.stop().await;
}

#[derive(Debug)]
struct NoKey;
impl rustls::client::ResolvesClientCert for NoKey {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }
    fn only_raw_public_keys(&self) -> bool {
        true
    }
    fn has_certs(&self) -> bool {
        true
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_or_oversized_frame_is_refused_and_its_connection_goes_on() {
    let (node, stranger) = (Node::start(), Stranger::new());
    let connection = stranger.join(&node).await;
    let lengths = |header: usize, payload: usize| [(header as u32).to_be_bytes(), (payload as u32).to_be_bytes()].concat();
    let echo = || RequestHeader {
        kind: "echo".into(),
        class: Class::Data,
        left_ms: 1000,
        trace: 0,
        layout: LayoutMark::default(),
        body: false,
        packed_from_bytes: None,
    };
    let long_kind = RequestHeader { kind: "k".repeat(200), ..echo() };
    let packed = |from_bytes: usize, payload: &[u8]| {
        let header = RequestHeader { packed_from_bytes: Some(from_bytes as u32), ..echo() };
        [&encode_head(&header, payload.len()).unwrap()[..], payload].concat()
    };
    let bomb = packing::pack(&vec![0; PAYLOAD_MAX_BYTES]).unwrap();
    for (bytes, code) in [
        (vec![], refusal_code::MALFORMED_FRAME),
        (vec![1, 2, 3], refusal_code::MALFORMED_FRAME),
        (lengths(0, 0), refusal_code::MALFORMED_FRAME),
        ([lengths(100, 0), vec![0xc1; 100]].concat(), refusal_code::MALFORMED_FRAME),
        (lengths(HEADER_MAX_BYTES + 1, 0), refusal_code::FRAME_TOO_LARGE),
        (lengths(1, PAYLOAD_MAX_BYTES + 1), refusal_code::FRAME_TOO_LARGE),
        (vec![0xff; 100_000], refusal_code::FRAME_TOO_LARGE),
        (encode_head(&long_kind, 0).unwrap().to_vec(), refusal_code::FRAME_TOO_LARGE),
        (packed(100, b"no such thing"), refusal_code::MALFORMED_FRAME),
        (packed(100, &bomb), refusal_code::MALFORMED_FRAME),
        (packed(PAYLOAD_MAX_BYTES + 1, &bomb), refusal_code::FRAME_TOO_LARGE),
        (packed(u32::MAX as usize, &bomb), refusal_code::FRAME_TOO_LARGE),
    ] {
        let answer = say(&connection, &bytes).await.expect("an answer");
        let header_bytes = u32::from_be_bytes(answer[..4].try_into().unwrap()) as usize;
        let header: AnswerHeader = decode_header(&answer[8..8 + header_bytes]).unwrap();
        let refusal: Refusal = decode_header(&answer[8 + header_bytes..]).unwrap();
        assert!(header.refused && refusal.code == code, "{refusal}");
    }
    assert!(connection.close_reason().is_none());
    node.assert_unharmed().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_with_an_oversized_chunk_or_no_end_reaches_the_handler_as_an_error() {
    let (node, stranger) = (Node::start(), Stranger::new());
    let connection = stranger.join(&node).await;
    let header = RequestHeader {
        kind: "count".into(),
        class: Class::Data,
        left_ms: 20_000,
        trace: 0,
        layout: LayoutMark::default(),
        body: true,
        packed_from_bytes: None,
    };
    let head = encode_head(&header, 0).unwrap();
    for tail in [vec![], vec![0, 0], vec![0, 0, 0, 9, 1, 2], vec![0x7f, 0xff, 0xff, 0xff, 1], vec![0xff; 12]] {
        let answer = say(&connection, &[&head[..], &tail].concat()).await.expect("an answer");
        let header_bytes = u32::from_be_bytes(answer[..4].try_into().unwrap()) as usize;
        let refusal: Refusal = decode_header(&answer[8 + header_bytes..]).unwrap();
        assert_eq!(refusal.code, "bad_body", "{refusal}");
    }
    node.assert_unharmed().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_prove_nothing_hold_their_places_for_a_short_time_only() {
    let node = Node::start();
    let mut idle = Vec::new();
    for _ in 0..HALF_OPEN_MAX + 8 {
        let stranger = Stranger::new();
        // Beyond the limit they are refused, which is an error here.
        let connection = stranger.dial_with(&node, |_| {}).await.ok();
        idle.push((stranger, connection));
    }
    assert!(idle.iter().any(|(_, connection)| connection.is_none()), "there is a limit");
    let (late, mut dials) = (Node::start(), 0);
    while late.dial(&node).await.is_err() {
        dials += 1;
        assert!(dials < 1000, "the places never become free");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(late.ask(&node, call("echo", "in")).await.unwrap().payload, "in");
    until("the idle ones are gone", || node.transport.open_connection_count() == 1).await;
    late.stop().await;
    node.stop().await;
}
