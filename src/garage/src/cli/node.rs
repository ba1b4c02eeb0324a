//! Commands about single nodes: `node connect`, `repair`, `worker`, `block`, `meta`.

use garage_api_admin::{
    endpoint::{
        ConnectClusterNodes, CreateMetadataSnapshot, GetBlockInfo, GetWorkerInfo, GetWorkerVariable, LaunchRepairOperation,
        ListBlockErrors, ListWorkers, PurgeBlocks, RetryBlockResync, SetWorkerVariable,
    },
    types::{
        BlockBacklink, BlockInfo, BlockName, LaunchRepair, NoParameters, NodeAnswers, RepairType, RetryBlocks, ScrubCommand, Variable,
        VariableName, Worker, WorkerFilter, WorkerNumber, WorkerState,
    },
};
use garage_util::config::PeerAddr;

use super::{
    args::{BlockCommand, RepairArgs, RepairWhat, ScrubWhat, WorkerCommand},
    caller::{call_nodes, call_self},
    error::{CliError, fail},
    format::{ago, ahead, short},
    output::Table,
    session::Session,
};

/// `*` or the contacted node.
fn target(all_nodes: bool) -> &'static str {
    if all_nodes { "*" } else { "self" }
}

/// `garage node connect`.
pub(crate) async fn connect(session: &mut Session<'_>, peer: &PeerAddr) -> Result<(), CliError> {
    let results = session.call::<ConnectClusterNodes>(vec![peer.to_string()]).await?;
    match results.into_iter().next() {
        Some(result) if result.success => session.out.line("Success."),
        Some(result) => return fail(format!("cannot connect to {peer}: {}", result.error.unwrap_or_else(|| "no reason given".into()))),
        None => return fail("the node gave no result"),
    }
    Ok(())
}

/// `garage repair`.
pub(crate) async fn repair(session: &mut Session<'_>, args: &RepairArgs) -> Result<(), CliError> {
    if !args.yes {
        return fail("a repair puts load on the cluster; add --yes (before WHAT) to really start it");
    }
    let repair_type = match args.what {
        RepairWhat::Tables => RepairType::Tables,
        RepairWhat::Blocks => RepairType::Blocks,
        RepairWhat::ClearResyncQueue => RepairType::ClearResyncQueue,
        RepairWhat::Versions => RepairType::Versions,
        RepairWhat::MultipartUploads => RepairType::MultipartUploads,
        RepairWhat::BlockRefs => RepairType::BlockRefs,
        RepairWhat::BlockRc => RepairType::BlockRc,
        RepairWhat::Aliases => RepairType::Aliases,
        RepairWhat::Rebalance => RepairType::Rebalance,
        RepairWhat::Scrub { what } => match what {
            ScrubWhat::Start => RepairType::Scrub(ScrubCommand::Start),
            ScrubWhat::Pause => RepairType::Scrub(ScrubCommand::Pause),
            ScrubWhat::Resume => RepairType::Scrub(ScrubCommand::Resume),
            ScrubWhat::Cancel => RepairType::Scrub(ScrubCommand::Cancel),
            ScrubWhat::SetTranquility { tranquility } => {
                return set_variable(session, "scrub-tranquility", &tranquility.to_string(), args.all_nodes).await;
            }
        },
    };
    let answers = call_nodes::<LaunchRepairOperation, _, _>(session.caller, target(args.all_nodes), LaunchRepair { repair_type }).await?;
    let mut table = Table::pairs();
    for id in answers.success.keys() {
        table.pair(short(id), "Repair launched");
    }
    for (id, error) in &answers.error {
        table.pair(short(id), format!("Error: {error}"));
    }
    session.out.table(&table);
    Ok(())
}

/// `garage meta snapshot`.
pub(crate) async fn snapshot(session: &mut Session<'_>, all: bool) -> Result<(), CliError> {
    let answers = call_nodes::<CreateMetadataSnapshot, _, _>(session.caller, target(all), NoParameters).await?;
    let mut table = Table::new(["Node", "Result"]);
    for id in answers.success.keys() {
        table.row([short(id).to_owned(), "Snapshot created".into()]);
    }
    for (id, error) in &answers.error {
        table.row([short(id).to_owned(), format!("Error: {error}")]);
    }
    session.out.table(&table);
    session.out.exit_code = u8::from(!answers.error.is_empty());
    Ok(())
}

/// `garage worker …`.
pub(crate) async fn worker(session: &mut Session<'_>, command: WorkerCommand) -> Result<(), CliError> {
    match command {
        WorkerCommand::List { busy, errors } => {
            let workers = call_self::<ListWorkers, _, _>(session.caller, WorkerFilter { busy_only: busy, error_only: errors }).await?;
            session.out.table(&worker_table(workers));
            Ok(())
        }
        WorkerCommand::Info { tid } => {
            let worker = call_self::<GetWorkerInfo, _, _>(session.caller, WorkerNumber { id: tid }).await?;
            session.out.table(&worker_facts(&worker));
            Ok(())
        }
        WorkerCommand::Get { variable, all_nodes } => {
            let answers = call_nodes::<GetWorkerVariable, _, _>(session.caller, target(all_nodes), VariableName { variable }).await?;
            let mut table = Table::pairs();
            for (id, variables) in &answers.success {
                for (name, value) in variables {
                    table.row([short(id).to_owned(), name.clone(), value.clone()]);
                }
            }
            session.out.table(&table);
            print_errors(session, &answers);
            Ok(())
        }
        WorkerCommand::Set { variable, value, all_nodes } => {
            let variable = if variable == "resync-n-workers" { "resync-worker-count" } else { variable.as_str() };
            set_variable(session, variable, &value, all_nodes).await
        }
    }
}

async fn set_variable(session: &mut Session<'_>, variable: &str, value: &str, all_nodes: bool) -> Result<(), CliError> {
    let request = Variable { variable: variable.to_owned(), value: value.to_owned() };
    let answers = call_nodes::<SetWorkerVariable, _, _>(session.caller, target(all_nodes), request).await?;
    let mut table = Table::pairs();
    for (id, set) in &answers.success {
        table.row([short(id).to_owned(), set.variable.clone(), set.value.clone()]);
    }
    session.out.table(&table);
    print_errors(session, &answers);
    Ok(())
}

fn print_errors<T>(session: &mut Session<'_>, answers: &NodeAnswers<T>) {
    for (id, error) in &answers.error {
        session.out.hint(format!("{}: error: {error}", short(id)));
    }
}

fn worker_table(mut workers: Vec<Worker>) -> Table {
    let rank = |worker: &Worker| match worker.state {
        WorkerState::Busy | WorkerState::Throttled { .. } => 0,
        WorkerState::Idle => 1,
        WorkerState::Done => 2,
    };
    workers.sort_by_key(|worker| (rank(worker), worker.id));
    let mut table = Table::new(["TID", "State", "Name", "Tranq", "Done", "Queue", "Errors", "Consec", "Last"]);
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".into());
    for worker in workers {
        table.row([
            worker.id.to_string(),
            state(worker.state),
            worker.name,
            or_dash(worker.tranquility.map(|value| value.to_string())),
            or_dash(worker.progress),
            or_dash(worker.queue_length.map(|value| value.to_string())),
            worker.errors.to_string(),
            worker.consecutive_errors.to_string(),
            or_dash(worker.last_error.map(|error| ago(error.secs_ago))),
        ]);
    }
    table
}

fn state(state: WorkerState) -> String {
    match state {
        WorkerState::Busy => "Busy",
        WorkerState::Throttled { .. } => "Busy*",
        WorkerState::Idle => "Idle",
        WorkerState::Done => "Done",
    }
    .into()
}

fn worker_facts(worker: &Worker) -> Table {
    let mut table = Table::pairs();
    table.pair("Task id:", worker.id);
    table.pair("Worker name:", &worker.name);
    let state = match worker.state {
        WorkerState::Throttled { duration_secs } => format!("Busy* (throttled, pausing for {duration_secs:.3}s)"),
        other => state(other),
    };
    table.pair("Worker state:", state);
    let mut optional = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            table.pair(name, value);
        }
    };
    optional("Tranquility:", worker.tranquility.map(|value| value.to_string()));
    optional("Total errors:", Some(worker.errors.to_string()));
    optional("Consecutive errs:", Some(worker.consecutive_errors.to_string()));
    optional("Last error:", worker.last_error.as_ref().map(|error| error.message.clone()));
    optional("Last error time:", worker.last_error.as_ref().map(|error| ago(error.secs_ago)));
    optional("Progress:", worker.progress.clone());
    optional("Queue length:", worker.queue_length.map(|value| value.to_string()));
    optional("Persistent errors:", worker.persistent_errors.map(|value| value.to_string()));
    for (index, line) in worker.freeform.iter().enumerate() {
        table.pair(if index == 0 { "Message:" } else { "" }, line);
    }
    table
}

/// `garage block …`.
pub(crate) async fn block(session: &mut Session<'_>, command: BlockCommand) -> Result<(), CliError> {
    match command {
        BlockCommand::ListErrors => {
            let errors = call_self::<ListBlockErrors, _, _>(session.caller, NoParameters).await?;
            let mut table = Table::new(["Hash", "RC", "Errors", "Last error", "Next try"]);
            for error in errors {
                let counts = [error.refcount.to_string(), error.error_count.to_string()];
                let times = [ago(error.last_try_secs_ago), ahead(error.next_try_in_secs)];
                table.row([error.block_hash].into_iter().chain(counts).chain(times));
            }
            session.out.table(&table);
        }
        BlockCommand::Info { hash } => {
            let block = call_self::<GetBlockInfo, _, _>(session.caller, BlockName { block_hash: hash }).await?;
            print_block(session, &block);
        }
        BlockCommand::RetryNow { hashes, all } => {
            let which = if all { RetryBlocks::All { all } } else { RetryBlocks::These { block_hashes: hashes } };
            let count = call_self::<RetryBlockResync, _, _>(session.caller, which).await?.count;
            session.out.line(format!("{count} blocks are put back in the queue, to be tried now."));
        }
        BlockCommand::Purge { hashes, yes } => {
            if !yes {
                return fail(format!(
                    "every object that needs one of these {} blocks would be deleted; add --yes to really do it",
                    hashes.len()
                ));
            }
            let purged = call_self::<PurgeBlocks, _, _>(session.caller, hashes).await?;
            let mut table = Table::pairs();
            table.pair("Blocks purged:", purged.blocks_purged);
            table.pair("Block references deleted:", purged.block_refs_purged);
            table.pair("Versions deleted:", purged.versions_deleted);
            table.pair("Objects deleted:", purged.objects_deleted);
            table.pair("Uploads deleted:", purged.uploads_deleted);
            session.out.table(&table);
        }
    }
    Ok(())
}

fn print_block(session: &mut Session<'_>, block: &BlockInfo) {
    session.out.title("BLOCK INFORMATION");
    let mut facts = Table::pairs();
    facts.pair("Block hash:", &block.block_hash);
    facts.pair("Refcount:", block.refcount);
    session.out.table(&facts);
    session.out.title("REFERENCES TO THIS BLOCK");
    let mut table = Table::new(["Status", "Version", "Bucket", "Key", "MPU"]);
    for version in &block.versions {
        let status = if version.ref_deleted { "deleted" } else { "active" };
        let (bucket, key, upload) = match &version.backlink {
            Some(BlockBacklink::Object { bucket_id, key }) => (short(bucket_id).to_owned(), key.clone(), String::new()),
            Some(BlockBacklink::Upload { upload_id, bucket_id, key, .. }) => (
                bucket_id.as_deref().map(short).unwrap_or_default().to_owned(),
                key.clone().unwrap_or_default(),
                short(upload_id).to_owned(),
            ),
            None => Default::default(),
        };
        table.row([status.to_owned(), short(&version.version_id).to_owned(), bucket, key, upload]);
    }
    session.out.table(&table);
    let active_count = block.versions.iter().filter(|version| !version.ref_deleted).count() as u64;
    if block.versions.iter().any(|version| !version.ref_deleted && (version.version_deleted || version.garbage_collected)) {
        session.out.line("\nWarning: references of deleted versions are left; `garage repair --yes block-refs` fixes them.");
    }
    if active_count != block.refcount {
        session.out.line(format!(
            "\nWarning: {active_count} active references, but a count of {}; `garage repair --yes block-rc` recounts.",
            block.refcount
        ));
    }
}
