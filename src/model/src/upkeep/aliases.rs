//! The repair of names, as an operator starts it on a node.

use std::time::Duration;

use futures::{FutureExt, future::BoxFuture};
use garage_table::group::RequestContext;
use garage_util::workers::{Report, Step, StepError, Wake, Worker};

use crate::{buckets::repair::AliasRepair, node::Node};

/// The longest a repair of all names may take before it is begun anew.
const REPAIR_TIMEOUT: Duration = Duration::from_secs(600);

/// Makes names and buckets agree, once.
pub struct AliasRepairWorker {
    node: Node,
    done: Option<AliasRepair>,
}

impl AliasRepairWorker {
    /// Starts it on a node.
    pub fn start(node: &Node) {
        node.workers.start(AliasRepairWorker { node: node.clone(), done: None }, Wake::default());
    }
}

impl Worker for AliasRepairWorker {
    fn name(&self) -> String {
        "alias repair worker".to_string()
    }
    fn step(&mut self) -> BoxFuture<'_, Result<Step, StepError>> {
        async move {
            let done = self.node.access.buckets().repair_aliases(RequestContext::within(REPAIR_TIMEOUT)).await?;
            self.done = Some(done);
            Ok(Step::Done)
        }
        .boxed()
    }
    fn report(&self) -> Report {
        let told = self.done.map(|done| format!("{} names looked at, {} mended", done.names_count, done.mended_count));
        Report { messages: told.into_iter().collect(), ..Report::default() }
    }
}
