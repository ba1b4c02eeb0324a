//! References are asked about when their leases end, and settled as the verdicts say.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use garage_rpc::testing::TestNode;
use garage_util::{hlc::Stamp, workers::Workers};
use parking_lot::Mutex;
use tokio::time::sleep;

use super::{Leases, Liveness, Question, Verdict};
use crate::{
    hash::BlockHash,
    limits::{LEASE, LEASE_CHECK_INTERVAL, LEASE_UNKNOWN},
    manager::{
        ManagerOptions,
        tests::nodes::{Nodes, reference},
    },
    reference::{Reference, ReferenceState},
};

/// Says what it was told to say, `Unknown` of all others; notes what it was asked.
#[derive(Default)]
struct Told {
    verdicts: Mutex<BTreeMap<[u8; 32], Verdict>>,
    asked: Mutex<Vec<Question>>,
}

impl Liveness for Told {
    fn ask(&self, _group: Vec<u8>, questions: Vec<Question>) -> BoxFuture<'static, Vec<Verdict>> {
        let known = self.verdicts.lock();
        let verdicts = questions.iter().map(|question| known.get(&question.version).copied().unwrap_or(Verdict::Unknown)).collect();
        self.asked.lock().extend(questions);
        std::future::ready(verdicts).boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_reference_is_asked_about_once_its_lease_ends_and_settled_by_the_verdict() {
    let nodes = Nodes::new(ManagerOptions::default()).await;
    let runtime = TestNode::new(1).runtime();
    let (told, workers) = (Arc::new(Told::default()), Workers::new(runtime.clone()));
    for (number, verdict) in [(1, Verdict::Live), (2, Verdict::Dead), (3, Verdict::Unknown)] {
        told.verdicts.lock().insert([number; 32], verdict);
    }
    let leases = Leases::new(runtime.clone(), nodes.manager.clone(), told.clone());
    leases.start(&workers);
    let block = Bytes::from_static(b"block");
    let stamp = Stamp::from_parts(runtime.now_ms() << 16, 1, false);
    let references = nodes.node(1).service.references();
    let of = |number: u8| Reference { version: [number; 32], stamp, ..reference(&block) };
    references.add((1..=3).map(of).collect()).await.unwrap();
    let states = async || -> Vec<ReferenceState> {
        references.of(BlockHash::of(&block)).await.unwrap().into_iter().map(|(_, row)| row.state).collect()
    };
    sleep(LEASE - Duration::from_secs(1)).await;
    assert!(told.asked.lock().is_empty());
    sleep(LEASE_CHECK_INTERVAL * 2).await;
    assert_eq!(states().await, [ReferenceState::Confirmed, ReferenceState::Dropped, ReferenceState::Lease]);
    assert_eq!(told.asked.lock().len(), 3);
    told.verdicts.lock().insert([3; 32], Verdict::Dead);
    sleep(LEASE_UNKNOWN + LEASE_CHECK_INTERVAL * 2).await;
    assert_eq!(states().await, [ReferenceState::Confirmed, ReferenceState::Dropped, ReferenceState::Dropped]);
    assert_eq!(told.asked.lock().len(), 4, "what is settled is not asked about again");
}

#[tokio::test(start_paused = true)]
async fn a_hint_brings_the_question_forward() {
    let nodes = Nodes::new(ManagerOptions::default()).await;
    let runtime = TestNode::new(1).runtime();
    let (told, workers) = (Arc::new(Told::default()), Workers::new(runtime.clone()));
    told.verdicts.lock().insert([7; 32], Verdict::Dead);
    Leases::new(runtime.clone(), nodes.manager.clone(), told.clone()).start(&workers);
    let block = Bytes::from_static(b"block");
    let stamp = Stamp::from_parts(runtime.now_ms() << 16, 1, false);
    let service = &nodes.node(1).service;
    service.references().add(vec![Reference { stamp, ..reference(&block) }]).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    service.hint(vec![(BlockHash::of(&block), [7; 32])]).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(service.references().of(BlockHash::of(&block)).await.unwrap()[0].1.state, ReferenceState::Dropped);
    assert!(told.asked.lock()[0].was_seen);
}
