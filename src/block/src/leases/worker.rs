//! The worker of the leases: takes what is due, asks group by group, notes the verdicts.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use garage_util::workers::{Report, Step, StepError, Worker};
use serde_bytes::ByteBuf;

use super::{Leases, Question, Verdict, due::Due};
use crate::{
    limits::{LEASE_ASK_COUNT, LEASE_CHECK_INTERVAL, LEASE_PENDING, LEASE_RECHECK, LEASE_UNKNOWN},
    reference::{ReferenceRow, ReferenceState},
};

pub(super) struct LeaseWorker {
    leases: Leases,
}

/// References of one group, by question.
type Asked = BTreeMap<Question, Vec<(Due, bool)>>;

impl LeaseWorker {
    pub(super) fn new(leases: Leases) -> LeaseWorker {
        LeaseWorker { leases }
    }

    async fn work(&mut self) -> Result<Step, StepError> {
        let inner = &self.leases.0;
        let due = inner.queue.due(inner.runtime.now_ms(), LEASE_ASK_COUNT).await?;
        inner.counters.due_count.store(due.len() as u64, Ordering::Relaxed);
        if due.is_empty() {
            return Ok(Step::Idle(LEASE_CHECK_INTERVAL));
        }
        let mut groups: BTreeMap<ByteBuf, Asked> = BTreeMap::new();
        let mut done = Vec::new();
        for (due, was_seen) in due {
            match self.row(due).await? {
                Some(row) if row.state != ReferenceState::Dropped => {
                    let question = Question { version: due.version, owner: row.owner, stamp: row.stamp, was_seen };
                    groups.entry(row.group).or_default().entry(question).or_default().push((due, was_seen));
                }
                // Gone, moved away, or settled: nothing to ask.
                _ => done.push(due),
            }
        }
        inner.queue.replace(done, Vec::new()).await?;
        for (group, asked) in groups {
            self.settle(group, asked).await?;
        }
        Ok(Step::Busy)
    }

    async fn row(&self, due: Due) -> Result<Option<ReferenceRow>, StepError> {
        let references = self.leases.0.manager.service().references();
        Ok(references.of(due.block).await?.into_iter().find(|(version, _)| *version == due.version).map(|(_, row)| row))
    }

    async fn settle(&self, group: ByteBuf, asked: Asked) -> Result<(), StepError> {
        let inner = &self.leases.0;
        let questions: Vec<Question> = asked.keys().cloned().collect();
        let verdicts = inner.liveness.ask(group.into_vec(), questions).await;
        let now_ms = inner.runtime.now_ms();
        let (mut raised, mut done, mut again) = (Vec::new(), Vec::new(), Vec::new());
        for ((_, references), verdict) in asked.into_iter().zip(verdicts) {
            self.leases.count(verdict, references.len());
            for (due, was_seen) in references {
                done.push(due);
                let mut ask_again = |after: Duration, was_seen| {
                    again.push((Due { due_ms: now_ms.saturating_add(after.as_millis() as u64), ..due }, was_seen));
                };
                match verdict {
                    Verdict::Dead => raised.push((due.block, due.version, ReferenceState::Dropped)),
                    Verdict::Live => {
                        raised.push((due.block, due.version, ReferenceState::Confirmed));
                        ask_again(LEASE_RECHECK, false);
                    }
                    Verdict::Pending => ask_again(LEASE_PENDING, was_seen),
                    Verdict::Unknown => ask_again(LEASE_UNKNOWN, was_seen),
                }
            }
        }
        // The verdicts first: after a crash in between they are only asked for once more.
        inner.manager.service().references().raise(raised).await?;
        inner.queue.replace(done, again).await?;
        Ok(())
    }
}

impl Worker for LeaseWorker {
    fn name(&self) -> String {
        "Block reference worker".to_string()
    }
    fn step(&mut self) -> BoxFuture<'_, Result<Step, StepError>> {
        self.work().boxed()
    }
    fn report(&self) -> Report {
        let counters = &self.leases.0.counters;
        let [confirmed, dropped] = [&counters.confirmed_count, &counters.dropped_count].map(|count| count.load(Ordering::Relaxed));
        Report {
            queue_length: Some(counters.due_count.load(Ordering::Relaxed)),
            messages: vec![format!("{confirmed} references confirmed, {dropped} dropped since the start")],
            ..Report::default()
        }
    }
}
