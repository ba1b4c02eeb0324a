//! The shell around the quorum cores: sends, waits, hedges, and lets the last copies of a write end in the background.
//!
//! A background copy holds a permit for its bytes until it ends, so slow nodes cost bounded memory; when no permit is left, the
//! operation itself waits for its last copies, which slows its client instead of filling the memory.

use std::{fmt::Display, sync::Arc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use garage_net::NodeId;
use garage_util::runtime::Runtime;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use super::{
    hedge::{HedgedRead, Next},
    tracker::{QuorumError, QuorumWrite, Verdict},
};
use crate::{
    limits::{BACKGROUND_BYTES_MAX, BACKGROUND_COPY_BYTES_MIN},
    register::QuorumSets,
};

/// What a judge says after an answer.
#[derive(Debug)]
pub enum Step<V> {
    /// Go on waiting for those who were asked.
    Wait,
    /// Ask one more node at once (hedged reads; where all were asked already, the same as `Wait`).
    AskAnother,
    /// Enough.
    Done(V),
}

/// Sends to many. Cheap to clone.
#[derive(Clone)]
pub struct QuorumCalls {
    runtime: Runtime,
    background: Arc<Semaphore>,
    hedge_delay: Arc<dyn Fn(NodeId) -> Duration + Send + Sync>,
}

impl QuorumCalls {
    /// Calls whose hedges follow `hedge_delay`.
    pub fn new(runtime: Runtime, hedge_delay: Arc<dyn Fn(NodeId) -> Duration + Send + Sync>) -> QuorumCalls {
        QuorumCalls { runtime, background: Arc::new(Semaphore::new(BACKGROUND_BYTES_MAX)), hedge_delay }
    }

    /// Sends to every node of `sets` at once; returns the answers got so far once each set has its quorum of `Ok`.
    ///
    /// The copies still under way then end in the background; `copy_bytes` is what each of them holds in memory meanwhile.
    /// Errors: as soon as a quorum is out of reach or at the deadline; what is still under way is cancelled.
    pub async fn write_all<T, E, F>(
        &self,
        sets: &QuorumSets<NodeId>,
        deadline: Instant,
        copy_bytes: usize,
        make_call: impl FnMut(NodeId) -> F,
    ) -> Result<Vec<(NodeId, T)>, QuorumError<NodeId, E>>
    where
        T: Send + 'static,
        E: Display + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let mut tracker = QuorumWrite::new(sets.clone(), deadline);
        let mut answers = Vec::new();
        let judge = |from, answer: Result<T, E>| {
            let kept = answer.map(|answer| answers.push((from, answer)));
            tracker.on_answer(from, kept);
            match tracker.verdict(Instant::now()) {
                Verdict::Wait { .. } => Step::Wait,
                Verdict::Reached => Step::Done(true),
                Verdict::Failed => Step::Done(false),
            }
        };
        match self.send_all(&sets.nodes(), deadline, copy_bytes, make_call, judge).await {
            Some(true) => Ok(answers),
            _ => Err(tracker.into_error()),
        }
    }

    /// Sends to every one of `targets` at once and shows each answer to `judge`, until it is done.
    ///
    /// `None`: all answered, or the deadline passed, before the judge was done. What is still under way when the judge is done
    /// ends in the background, as in [`QuorumCalls::write_all`].
    pub async fn send_all<T, E, V, F>(
        &self,
        targets: &[NodeId],
        deadline: Instant,
        copy_bytes: usize,
        mut make_call: impl FnMut(NodeId) -> F,
        mut judge: impl FnMut(NodeId, Result<T, E>) -> Step<V>,
    ) -> Option<V>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let mut calls: FuturesUnordered<_> = targets
            .iter()
            .map(|&node| {
                let call = make_call(node);
                async move { (node, call.await) }
            })
            .collect();
        loop {
            // Dropping the wait for the next answer loses nothing: the calls stay in the set.
            let (node, answer) = timeout_at(deadline, calls.next()).await.ok().flatten()?;
            if let Step::Done(value) = judge(node, answer) {
                self.finish_in_background(calls, copy_bytes, deadline).await;
                return Some(value);
            }
        }
    }

    /// Lets `calls` end, holding a permit for their bytes; waits here for as long as there is none.
    pub async fn finish_in_background<T, C>(&self, mut calls: FuturesUnordered<C>, copy_bytes: usize, deadline: Instant)
    where
        T: Send + 'static,
        C: Future<Output = T> + Send + 'static,
    {
        if calls.is_empty() {
            return;
        }
        let permit = loop {
            let held_bytes = calls.len() * copy_bytes.max(BACKGROUND_COPY_BYTES_MIN);
            let permits = u32::try_from(held_bytes.min(BACKGROUND_BYTES_MAX)).unwrap_or(u32::MAX);
            match self.background.clone().try_acquire_many_owned(permits) {
                Ok(permit) => break permit,
                // Fewer bytes are held after each copy that ends.
                Err(_) => match timeout_at(deadline, calls.next()).await {
                    Ok(Some(_)) if !calls.is_empty() => {}
                    _ => return,
                },
            }
        };
        self.runtime.spawn("last copies of a write", drain(calls, permit, deadline));
    }

    /// Asks the first `first_count` of `nodes` (nearest first), the next after the hedge delay of one that is silent or at once
    /// after an error, until `judge` is done. What is then under way is cancelled.
    ///
    /// `None`: nobody is left to ask, or the deadline passed; the judge has seen every answer.
    pub async fn read_hedged<T, E, V, F>(
        &self,
        nodes: &[NodeId],
        first_count: usize,
        deadline: Instant,
        mut make_call: impl FnMut(NodeId) -> F,
        mut judge: impl FnMut(NodeId, Result<T, E>) -> Step<V>,
    ) -> Option<V>
    where
        F: Future<Output = Result<T, E>> + Send,
    {
        let mut read = HedgedRead::new(nodes.to_vec(), first_count, deadline);
        let mut calls = FuturesUnordered::new();
        loop {
            let now = Instant::now();
            let until = match read.next(now) {
                Next::Exhausted => return None,
                Next::Ask(node) => {
                    read.asked(node, now, (self.hedge_delay)(node));
                    let call = make_call(node);
                    calls.push(async move { (node, call.await) });
                    continue;
                }
                Next::Wait { until } => until,
            };
            // Dropping the wait loses nothing: the calls stay in the set. A passed time shows in the next `read.next`.
            let Ok(Some((node, answer))) = timeout_at(until, calls.next()).await else { continue };
            read.answered(node, answer.is_err());
            match judge(node, answer) {
                Step::Wait => {}
                Step::AskAnother => read.ask_another(),
                Step::Done(value) => return Some(value),
            }
        }
    }
}

/// Drives calls to their end; the permit is given back with the last of them, or at the deadline.
async fn drain<C: Future>(mut calls: FuturesUnordered<C>, permit: OwnedSemaphorePermit, deadline: Instant) {
    while let Ok(Some(_)) = timeout_at(deadline, calls.next()).await {}
    drop(permit);
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex},
        time::Duration,
    };

    use garage_net::NodeId;
    use tokio::time::{Instant, sleep};

    use super::{QuorumCalls, Step};
    use crate::{
        quorum::{QuorumSet, QuorumSets},
        testing::TestNode,
    };

    const MS: Duration = Duration::from_millis(1);

    fn node(number: u8) -> NodeId {
        NodeId([number; 32])
    }
    fn calls() -> QuorumCalls {
        QuorumCalls::new(TestNode::new(1).runtime(), Arc::new(|_| 30 * MS))
    }
    fn three() -> QuorumSets<NodeId> {
        QuorumSets::single(QuorumSet::majority([node(1), node(2), node(3)]))
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_returns_at_its_quorum_and_the_last_copy_still_arrives() {
        let (start, ended) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
        let answers = calls()
            .write_all(&three(), start + 10_000 * MS, 1, |to| {
                let ended = ended.clone();
                async move {
                    sleep(100 * MS * u32::from(to.0[0])).await;
                    ended.lock().unwrap().push(to.0[0]);
                    Ok::<_, String>(())
                }
            })
            .await
            .unwrap();
        assert_eq!((answers.len(), start.elapsed()), (2, 200 * MS), "virtual time: exactly the second answer");
        while ended.lock().unwrap().len() < 3 {
            sleep(MS).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_fails_once_its_quorum_is_out_of_reach() {
        let start = Instant::now();
        let error = calls()
            .write_all(&three(), start + 10_000 * MS, 1, |to| async move {
                if to == node(1) {
                    sleep(5_000 * MS).await;
                    return Ok(());
                }
                Err("not connected")
            })
            .await
            .unwrap_err();
        assert_eq!((error.got, error.needed, error.errors.len(), start.elapsed()), (0, 2, 2, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_waits_for_its_last_copies_when_the_background_is_full() {
        let (calls, start) = (calls(), Instant::now());
        let full = calls.background.clone().try_acquire_many_owned(super::BACKGROUND_BYTES_MAX as u32).unwrap();
        let sets = three();
        let write = calls.write_all(&sets, start + 10_000 * MS, 1, |to| async move {
            sleep(100 * MS * u32::from(to.0[0])).await;
            Ok::<_, String>(())
        });
        assert_eq!(write.await.unwrap().len(), 2);
        assert_eq!(start.elapsed(), 300 * MS, "virtual time: the last copy");
        drop(full);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_node_costs_a_read_one_hedge_delay() {
        let start = Instant::now();
        let mut good_count = 0;
        let got = calls()
            .read_hedged(
                &[node(1), node(2), node(3)],
                2,
                start + 10_000 * MS,
                |to| async move {
                    if to == node(2) {
                        std::future::pending::<()>().await;
                    }
                    Ok::<_, String>(to)
                },
                |_, answer| {
                    good_count += usize::from(answer.is_ok());
                    if good_count == 2 { Step::Done(()) } else { Step::Wait }
                },
            )
            .await;
        assert!(got.is_some());
        assert_eq!(start.elapsed(), 30 * MS, "virtual time: one delay, no time-out");
    }

    #[tokio::test(start_paused = true)]
    async fn an_unreachable_node_costs_a_read_nothing_and_too_few_nodes_end_it_at_once() {
        for (broken, expected) in [(1, Some(2)), (2, None)] {
            let (start, mut good_count) = (Instant::now(), 0);
            let got = calls()
                .read_hedged(
                    &[node(1), node(2), node(3)],
                    2,
                    start + 10_000 * MS,
                    |to| async move { if to.0[0] <= broken { Err("not connected") } else { Ok(()) } },
                    |_, answer| {
                        good_count += usize::from(answer.is_ok());
                        if good_count == 2 { Step::Done(good_count) } else { Step::Wait }
                    },
                )
                .await;
            assert_eq!((got, start.elapsed()), (expected, Duration::ZERO));
        }
    }
}
