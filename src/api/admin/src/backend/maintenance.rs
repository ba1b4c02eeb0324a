//! Snapshots, repairs and workers of this node.

use garage_block::{resync::WalkKind, scrub};
use garage_model::upkeep::{aliases::AliasRepairWorker, repairs::ReferenceRepair};
use garage_util::workers::{WorkerId, WorkerState as State, WorkerStatus};

use super::{AdminApi, failure::internal};
use crate::{
    AdminError, ErrorCode,
    types::{RepairType, ScrubCommand, Worker, WorkerFailure, WorkerFilter, WorkerState},
};

impl AdminApi {
    pub(super) async fn create_snapshot(&self) -> Result<(), AdminError> {
        self.node.snapshots.take().await.map(drop).map_err(internal)
    }

    pub(super) async fn launch_repair(&self, repair: RepairType) -> Result<(), AdminError> {
        match repair {
            RepairType::Blocks | RepairType::BlockRc => self.start_walk(WalkKind::Repair),
            RepairType::Rebalance => self.start_walk(WalkKind::Rebalance),
            RepairType::ClearResyncQueue => self.node.resync.clear().await.map_err(internal),
            RepairType::Versions => {
                ReferenceRepair::Versions.start(&self.node);
                Ok(())
            }
            // A dangling part of an upload is a reference without anyone who needs it, like any other.
            RepairType::BlockRefs | RepairType::MultipartUploads => {
                ReferenceRepair::References.start(&self.node);
                Ok(())
            }
            RepairType::Scrub(command) => self.command_scrub(command).await,
            RepairType::Tables => {
                self.node.syncer.repair_now(&self.node.workers);
                Ok(())
            }
            RepairType::Aliases => {
                AliasRepairWorker::start(&self.node);
                Ok(())
            }
        }
    }

    fn start_walk(&self, kind: WalkKind) -> Result<(), AdminError> {
        if self.node.resync.walk(kind, &self.node.workers) {
            return Ok(());
        }
        Err(AdminError::unavailable("as many repairs of blocks as may run at once are under way; see `garage worker list`"))
    }

    async fn command_scrub(&self, command: ScrubCommand) -> Result<(), AdminError> {
        let Some(scrub) = &self.node.scrub else {
            return Err(AdminError::invalid("this node has no scrub: disable_scrub is set in its configuration"));
        };
        let command = match command {
            ScrubCommand::Start => scrub::ScrubCommand::Start,
            ScrubCommand::Pause => scrub::ScrubCommand::Pause,
            ScrubCommand::Resume => scrub::ScrubCommand::Resume,
            ScrubCommand::Cancel => scrub::ScrubCommand::Cancel,
        };
        scrub.command(command).await.map_err(|error| match error {
            scrub::ScrubError::Refused(refused) => AdminError::invalid(refused.to_string()),
            other => internal(other),
        })
    }

    pub(super) fn list_workers(&self, filter: WorkerFilter) -> Vec<Worker> {
        let is_busy = |worker: &Worker| matches!(worker.state, WorkerState::Busy | WorkerState::Throttled { .. });
        let workers = self.node.workers.list().into_iter().map(|status| self.worker_view(status));
        workers.filter(|worker| (!filter.busy_only || is_busy(worker)) && (!filter.error_only || 0 < worker.errors)).collect()
    }

    pub(super) fn worker_info(&self, id: u64) -> Result<Worker, AdminError> {
        let status = self.node.workers.get(WorkerId(id));
        let missing = || AdminError::new(ErrorCode::NoSuchWorker, format!("there is no worker {id}"));
        status.map(|status| self.worker_view(status)).ok_or_else(missing)
    }

    fn worker_view(&self, status: WorkerStatus) -> Worker {
        let now_ms = self.node.cluster.runtime().now_ms();
        let failure = |(message, at_ms): (String, u64)| WorkerFailure { message, secs_ago: now_ms.saturating_sub(at_ms) / 1_000 };
        Worker {
            id: status.id.0,
            name: status.name,
            state: match status.state {
                State::Busy => WorkerState::Busy,
                State::Throttled { rest } => WorkerState::Throttled { duration_secs: rest.as_secs_f32() },
                State::Idle => WorkerState::Idle,
                State::Done => WorkerState::Done,
            },
            errors: status.errors_count,
            consecutive_errors: status.consecutive_errors_count,
            last_error: status.last_error.map(failure),
            tranquility: status.report.tranquility,
            progress: status.report.progress,
            queue_length: status.report.queue_length,
            persistent_errors: status.report.persistent_errors,
            freeform: status.report.messages,
        }
    }
}
