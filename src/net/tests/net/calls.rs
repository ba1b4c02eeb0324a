//! Requests, answers, bodies, deadlines and cancellation over real loopback sockets.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use garage_net::{CallError, Class, NetError, NodeId, NodeKey, QuicOptions, Transport, types::refusal_code};
use tokio::time::Instant;

use crate::support::{Node, PATIENCE, SECRET, body, call, collect, endless, pair};

/// More than the windows of a stream and the socket buffers take together.
const BUFFERED_MAX_BYTES: usize = 24 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_call_reaches_the_other_side_and_its_answer_comes_back_both_ways() {
    let (one, two) = pair().await;
    assert_eq!(one.ask(&two, call("echo", "to two")).await.unwrap().payload, "to two");
    assert_eq!(two.ask(&one, call("echo", "to one")).await.unwrap().payload, "to one");
    let facts = one.ask(&two, call("facts", "")).await.unwrap().payload;
    assert_eq!(facts, format!("{} Metadata 5 3", one.id()));
    let (of_one, of_two) = (one.transport.connections(), two.transport.connections());
    assert_eq!((of_one[0].node, of_one[0].dialled_by_us, of_one[0].rtt.is_some()), (two.id(), true, true));
    assert_eq!((of_two[0].node, of_two[0].dialled_by_us), (one.id(), false));
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_and_bodies_of_all_sizes_arrive_whole() {
    let (one, two) = pair().await;
    for len_bytes in [0usize, 1, 1199, 65_536, 65_537, 1 << 20, 16 << 20] {
        let bytes: Bytes = (0..len_bytes).map(|index| (index * 31 / 8) as u8).collect::<Vec<_>>().into();
        let answer = one.ask(&two, call("echo", bytes.clone())).await.unwrap();
        assert!(answer.payload == bytes && answer.body.is_none(), "{len_bytes}");

        let mut with_body = call("echo", "head");
        let cuts: Vec<_> = bytes.chunks(300_000).map(|piece| Ok(bytes.slice_ref(piece))).chain([Ok(Bytes::new())]).collect();
        with_body.body = body(cuts);
        let answer = one.ask(&two, with_body).await.unwrap();
        assert_eq!(answer.payload, "head");
        assert!(collect(answer.body).await.unwrap() == bytes, "{len_bytes}");
    }
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_long_path_large_messages_travel_packed_both_ways() {
    // Any path is long enough for these nodes.
    let far = || {
        let options = QuicOptions::node((Ipv4Addr::LOCALHOST, 0).into(), NodeKey::throw_away().unwrap(), SECRET);
        Node::with(QuicOptions { pack_rtt_min: Duration::ZERO, ..options }).unwrap()
    };
    let near = || {
        let options = QuicOptions::node((Ipv4Addr::LOCALHOST, 0).into(), NodeKey::throw_away().unwrap(), SECRET);
        Node::with(QuicOptions { pack_rtt_min: Duration::MAX, ..options }).unwrap()
    };
    let rows: Bytes = (0..20_000).flat_map(|index| format!("object-{index:06} with fields that repeat;").into_bytes()).collect();
    for (one, two, is_packed) in [(far(), far(), true), (near(), near(), false)] {
        one.dial(&two).await.unwrap();
        let before = one.transport.sent_bytes() + two.transport.sent_bytes();
        let answer = one.ask(&two, call("echo", rows.clone())).await.unwrap();
        assert!(answer.payload == rows);
        let sent_bytes = one.transport.sent_bytes() + two.transport.sent_bytes() - before;
        assert_eq!(sent_bytes < rows.len() as u64, is_packed, "{sent_bytes} bytes for two times {}", rows.len());
        one.stop().await;
        two.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_calls_of_all_classes_run_at_once_on_one_connection() {
    let (one, two) = pair().await;
    let calls = (0..3000u32).map(|number| {
        let mut call = call("echo", number.to_string());
        call.class = [Class::Control, Class::Metadata, Class::Data, Class::Background][number as usize % 4];
        let answer = one.transport.call(two.id(), call);
        async move { assert_eq!(answer.await.unwrap().payload, number.to_string()) }
    });
    futures::future::join_all(calls).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_comes_as_it_was_given() {
    let (one, two) = pair().await;
    let Err(CallError::Refused(refusal)) = one.ask(&two, call("refuse", "")).await else { panic!("not refused") };
    assert_eq!((refusal.code.as_str(), refusal.message.as_str(), &refusal.detail[..]), ("no", "not today", &b"why"[..]));

    let mut early = call("refuse", "");
    early.body = Some(endless(Arc::default(), None::<()>));
    assert!(matches!(one.ask(&two, early).await, Err(CallError::Refused(_))), "a refusal comes before the end of a body");
    two.assert_unharmed().await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_does_not_fit_is_refused_at_the_side_that_has_it() {
    let (one, two) = pair().await;
    let too_large = one.ask(&two, call("echo", vec![0; (16 << 20) + 1])).await;
    assert!(matches!(too_large, Err(CallError::TooLarge { .. })), "{too_large:?}");
    let Err(CallError::Refused(refusal)) = one.ask(&two, call("huge", "")).await else { panic!("not refused") };
    assert_eq!(refusal.code, refusal_code::ANSWER_TOO_LARGE);
    two.assert_unharmed().await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_fails_at_its_source_fails_at_the_reader_with_the_same_words() {
    let (one, two) = pair().await;
    let answer = one.ask(&two, call("break", "")).await.unwrap();
    assert_eq!(collect(answer.body).await, Err(NetError::Failed("the disk is gone".into())));

    let mut upload = call("count", "");
    upload.body = body(vec![Ok(Bytes::from_static(b"half")), Err(NetError::Failed("client left".into()))]);
    let Err(CallError::Refused(refusal)) = one.ask(&two, upload).await else { panic!("not refused") };
    assert!(refusal.message.contains("client left"), "{refusal}");
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_a_handler_breaks_that_call_only() {
    let (one, two) = pair().await;
    assert!(matches!(one.ask(&two, call("panic", "")).await, Err(CallError::Broken(_))));
    assert_eq!(one.ask(&two, call("echo", "on")).await.unwrap().payload, "on");
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_to_a_node_that_is_not_connected_fails_at_once() {
    let node = Node::start();
    let nobody = NodeId([1; 32]);
    assert_eq!(node.transport.call(nobody, call("echo", "")).await.unwrap_err(), CallError::NotConnected(nobody));
    node.transport.datagram(nobody, Bytes::from_static(b"lost"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_call_ends_its_handler() {
    let (one, mut two) = pair().await;
    let hanging = tokio::spawn(one.transport.call(two.id(), call("hang", "")));
    two.hanging_is(1).await;
    hanging.abort();
    two.hanging_is(0).await;
    two.assert_unharmed().await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_answer_body_ends_its_source() {
    let (one, mut two) = pair().await;
    let mut answer = one.ask(&two, call("pour", "")).await.unwrap().body.unwrap();
    assert!(answer.next().await.unwrap().is_ok());
    two.hanging_is(1).await;
    drop(answer);
    two.hanging_is(0).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_both_sides() {
    let (one, mut two) = pair().await;
    let mut short = call("hang", "");
    short.deadline = Instant::now() + Duration::from_millis(150);
    assert_eq!(one.ask(&two, short).await.unwrap_err(), CallError::TimedOut);
    two.hanging_is(0).await;
    let mut past = call("echo", "");
    past.deadline = Instant::now();
    assert_eq!(one.ask(&two, past).await.unwrap_err(), CallError::TimedOut);
    two.assert_unharmed().await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_does_not_read_bounds_the_sender_and_the_deadline_ends_it() {
    let (one, mut two) = pair().await;
    let sent_bytes = Arc::new(AtomicUsize::new(0));
    let mut stalled = call("hang_with_body", "");
    stalled.body = Some(endless(sent_bytes.clone(), None::<()>));
    stalled.deadline = Instant::now() + Duration::from_secs(2);
    let stalled = tokio::spawn(one.transport.call(two.id(), stalled));
    two.hanging_is(1).await;
    // Others pass meanwhile: a stalled stream holds only its own window.
    for _ in 0..20 {
        let answer = one.ask(&two, call("echo", vec![3; 1 << 20])).await.unwrap();
        assert_eq!(answer.payload.len(), 1 << 20);
    }
    assert_eq!(stalled.await.unwrap().unwrap_err(), CallError::TimedOut);
    assert!(sent_bytes.load(Ordering::SeqCst) < BUFFERED_MAX_BYTES, "{sent_bytes:?} bytes taken from the body");
    two.hanging_is(0).await;
    two.assert_unharmed().await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_does_not_read_bounds_the_answering_side_and_the_deadline_ends_it() {
    let (one, mut two) = pair().await;
    let mut pour = call("pour", "");
    pour.deadline = Instant::now() + Duration::from_secs(2);
    let mut unread = one.ask(&two, pour).await.unwrap().body.unwrap();
    for _ in 0..20 {
        assert_eq!(one.ask(&two, call("echo", vec![3; 1 << 20])).await.unwrap().payload.len(), 1 << 20);
    }
    two.hanging_is(0).await;
    assert!(two.poured_bytes.load(Ordering::SeqCst) < BUFFERED_MAX_BYTES);
    let end = loop {
        match unread.next().await {
            Some(Ok(_)) => {}
            end => break end,
        }
    };
    assert!(matches!(end, Some(Err(NetError::TimedOut))), "a body that was cut is not taken for a whole one: {end:?}");
    two.assert_unharmed().await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_arrive_and_one_that_is_too_large_is_dropped() {
    let (one, mut two) = pair().await;
    one.transport.datagram(two.id(), vec![1; 1101].into());
    one.transport.datagram(two.id(), vec![2; 1100].into());
    let (from, data) = tokio::time::timeout(PATIENCE, two.datagrams.recv()).await.unwrap().unwrap();
    assert_eq!((from, &data[..]), (one.id(), &[2; 1100][..]));
    one.stop().await;
    two.stop().await;
}
