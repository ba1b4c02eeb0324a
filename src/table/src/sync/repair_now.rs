//! A comparison with every peer at once, when an operator asks for it.

use std::collections::VecDeque;

use futures::{FutureExt, future::BoxFuture};
use garage_net::NodeId;
use garage_util::workers::{Report, Step, StepError, Worker};

use super::{Syncer, pass::PassReport, repair::sharing_peers};

/// Compares with one peer after the other, and ends. What fails is said, and left to the comparison on the timer.
pub(super) struct RepairNowWorker {
    syncer: Syncer,
    left: VecDeque<NodeId>,
    peers_count: usize,
    done: PassReport,
    failures: Vec<String>,
}

impl RepairNowWorker {
    pub(super) fn new(syncer: Syncer) -> RepairNowWorker {
        let left: VecDeque<NodeId> = sharing_peers(&syncer).into_keys().collect();
        RepairNowWorker { syncer, peers_count: left.len(), left, done: PassReport::default(), failures: Vec::new() }
    }

    async fn work(&mut self) -> Step {
        let Some(node) = self.left.front().copied() else { return Step::Done };
        match self.syncer.repair_with(node).await {
            Ok(report) => self.done = self.done.plus(report),
            Err(error) => self.failures.push(format!("node {} could not be compared with: {error}", node.short())),
        }
        self.left.pop_front();
        Step::Busy
    }
}

impl Worker for RepairNowWorker {
    fn name(&self) -> String {
        "table repair worker".to_string()
    }
    fn step(&mut self) -> BoxFuture<'_, Result<Step, StepError>> {
        async move { Ok(self.work().await) }.boxed()
    }
    fn report(&self) -> Report {
        let PassReport { pulled_count, given_count, settled_count, .. } = self.done;
        let rows = format!("{pulled_count} rows came, {given_count} went, {settled_count} were settled");
        Report {
            progress: Some(format!("{}/{} nodes", self.peers_count - self.left.len(), self.peers_count)),
            queue_length: Some(self.left.len() as u64),
            persistent_errors: Some(self.failures.len() as u64),
            messages: std::iter::once(rows).chain(self.failures.iter().cloned()).collect(),
            ..Report::default()
        }
    }
}
