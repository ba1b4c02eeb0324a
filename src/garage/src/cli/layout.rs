//! `garage layout …`: staging, showing, applying.

use std::collections::BTreeMap;

use garage_api_admin::{
    endpoint::{
        ApplyClusterLayout, ClusterLayoutSkipDeadNodes, GetClusterLayoutHistory, PreviewClusterLayoutChanges, RecoverClusterLayout,
        RevertClusterLayout, UpdateClusterLayout,
    },
    types::{
        ApplyVersion, Layout, LayoutParameters, LayoutPreview, LayoutUpdate, NoParameters, NodeProgress, RecoverLayout, RoleChange,
        SkipDeadNodes, ZoneRedundancy,
    },
};

use super::{
    args::{AssignArgs, LayoutCommand},
    error::{CliError, fail},
    format::{binary_size, percent, short},
    output::Table,
    report,
    session::{Session, find_node},
    status::capacity,
};

/// Less than this per node is refused.
const CAPACITY_MIN_BYTES: u64 = 1024;

/// `garage layout …`.
pub(crate) async fn run(session: &mut Session<'_>, command: LayoutCommand) -> Result<(), CliError> {
    match command {
        LayoutCommand::Assign(args) => assign(session, args.settled()).await,
        LayoutCommand::Remove { node } => remove(session, &node).await,
        LayoutCommand::Config { redundancy } => configure(session, redundancy).await,
        LayoutCommand::Show => show(session).await,
        LayoutCommand::Apply { version } => apply(session, version).await,
        LayoutCommand::Revert { yes, .. } => revert(session, yes).await,
        LayoutCommand::History => history(session).await,
        LayoutCommand::Recover { accept_loss } => recover(session, accept_loss).await,
        LayoutCommand::SkipDeadNodes { version, allow_missing_data } => skip_dead_nodes(session, version, allow_missing_data).await,
    }
}

async fn assign(session: &mut Session<'_>, args: AssignArgs) -> Result<(), CliError> {
    if args.nodes.is_empty() {
        return fail("no node is named; `garage layout assign NODE… -z ZONE -c SIZE` assigns a role, `garage status` lists nodes");
    }
    if let Some(capacity) = args.capacity.filter(|capacity| *capacity < CAPACITY_MIN_BYTES) {
        return fail(format!(
            "a capacity of {capacity} bytes is too small: at least {CAPACITY_MIN_BYTES} are needed; write units, such as -c 1T"
        ));
    }
    let layout = session.layout().await?;
    let ids = session.node_ids(&layout).await?;
    let mut roles = Vec::new();
    for pattern in &args.replace {
        roles.push(RoleChange::Remove { id: find_node(&ids, pattern)?, remove: true });
    }
    for pattern in &args.nodes {
        roles.push(role_of(&layout, find_node(&ids, pattern)?, &args)?);
    }
    session.call::<UpdateClusterLayout>(LayoutUpdate { roles, parameters: None }).await?;
    print_staged(session);
    Ok(())
}

/// The role that `args` give to a node; what they leave open comes from the staged or the current role.
fn role_of(layout: &Layout, id: String, args: &AssignArgs) -> Result<RoleChange, CliError> {
    let staged = layout.staged_role_changes.iter().find(|change| change.id() == id);
    let (old_zone, old_tags, old_capacity) = match staged {
        Some(RoleChange::Assign { zone, tags, capacity, .. }) => (Some(zone.clone()), tags.clone(), Some(*capacity)),
        Some(RoleChange::Remove { .. }) => (None, Vec::new(), None),
        None => match layout.roles.iter().find(|role| role.id == id) {
            Some(role) => (Some(role.zone.clone()), role.tags.clone(), Some(role.capacity)),
            None => (None, Vec::new(), None),
        },
    };
    let given = if args.gateway { Some(None) } else { args.capacity.map(Some) };
    let Some(zone) = args.zone.clone().or(old_zone) else {
        return fail(format!("node {} has no role yet: its zone is needed, -z ZONE", short(&id)));
    };
    let Some(capacity) = given.or(old_capacity) else {
        return fail(format!("node {} has no role yet: -c SIZE is needed, or -g for a gateway that stores nothing", short(&id)));
    };
    let tags = if args.tags.is_empty() { old_tags } else { args.tags.clone() };
    Ok(RoleChange::Assign { id, zone, tags, capacity })
}

async fn remove(session: &mut Session<'_>, pattern: &str) -> Result<(), CliError> {
    let layout = session.layout().await?;
    let id = find_node(&session.node_ids(&layout).await?, pattern)?;
    let roles = vec![RoleChange::Remove { id, remove: true }];
    session.call::<UpdateClusterLayout>(LayoutUpdate { roles, parameters: None }).await?;
    print_staged(session);
    Ok(())
}

fn print_staged(session: &mut Session<'_>) {
    session.out.line("The changes are staged, not yet applied.");
    session.out.line("`garage layout show` shows what they would give, `garage layout apply` applies them.");
}

async fn configure(session: &mut Session<'_>, redundancy: Option<String>) -> Result<(), CliError> {
    let zone_redundancy = match redundancy.as_deref() {
        None => return fail("nothing to configure; -r N or -r max sets over how many zones copies are spread"),
        Some("none" | "max" | "maximum") => ZoneRedundancy::Maximum,
        Some(text) => match text.parse() {
            Ok(count) if count >= 1 => ZoneRedundancy::AtLeast(count),
            _ => return fail(format!("invalid zone redundancy {text:?}: a number of zones from 1 up, or max")),
        },
    };
    let update = LayoutUpdate { roles: Vec::new(), parameters: Some(LayoutParameters { zone_redundancy }) };
    session.call::<UpdateClusterLayout>(update).await?;
    session.out.line(format!("The zone redundancy is staged: {}", redundancy_text(zone_redundancy)));
    print_staged(session);
    Ok(())
}

fn redundancy_text(redundancy: ZoneRedundancy) -> String {
    match redundancy {
        ZoneRedundancy::Maximum => "maximum".into(),
        ZoneRedundancy::AtLeast(count) => count.to_string(),
    }
}

async fn show(session: &mut Session<'_>) -> Result<(), CliError> {
    let layout = session.layout().await?;
    session.out.title("CURRENT CLUSTER LAYOUT");
    print_layout(session, &layout);
    session.out.line(format!("Current cluster layout version: {}", layout.version));
    if layout.staged_role_changes.is_empty() && layout.staged_parameters.is_none() {
        return Ok(());
    }
    session.out.title("STAGED ROLE CHANGES");
    if !layout.staged_role_changes.is_empty() {
        session.out.table(&staged_table(&layout));
    }
    if let Some(parameters) = &layout.staged_parameters {
        session.out.line(format!("Zone redundancy: {}", redundancy_text(parameters.zone_redundancy)));
    }
    session.out.title("NEW CLUSTER LAYOUT AFTER APPLYING CHANGES");
    match session.call::<PreviewClusterLayoutChanges>(NoParameters).await? {
        LayoutPreview::Failure { error } => session.out.line(format!("The new layout cannot be computed: {error}")),
        LayoutPreview::Success { message, statistics, new_layout } => {
            print_layout(session, &new_layout);
            report::print(session, statistics.as_deref(), &message);
            session.out.line("\nTo apply the staged changes, run:\n");
            session.out.line(format!("    garage layout apply --version {}", layout.version + 1));
            session.out.line("\nTo drop them: garage layout revert --yes");
        }
    }
    Ok(())
}

fn print_layout(session: &mut Session<'_>, layout: &Layout) {
    if layout.roles.is_empty() {
        session.out.line("No nodes have a role.");
    } else {
        let mut table = Table::new(["ID", "Tags", "Zone", "Capacity", "Usable capacity"]);
        for role in &layout.roles {
            let usable = match (role.capacity, role.usable_capacity) {
                (Some(all), Some(usable)) => format!("{} ({})", binary_size(usable), percent(usable, all)),
                _ => String::new(),
            };
            table.row([short(&role.id).to_owned(), tag_list(&role.tags), role.zone.clone(), capacity(role.capacity), usable]);
        }
        session.out.table(&table);
    }
    session.out.line(format!("\nZone redundancy: {}", redundancy_text(layout.parameters.zone_redundancy)));
}

/// The staged role changes, a removal marked in the column of tags.
pub(crate) fn staged_table(layout: &Layout) -> Table {
    let mut table = Table::new(["ID", "Tags", "Zone", "Capacity"]);
    for change in &layout.staged_role_changes {
        match change {
            RoleChange::Remove { id, .. } => table.row([short(id).to_owned(), "REMOVED".into()]),
            RoleChange::Assign { id, zone, tags, capacity: bytes } => {
                table.row([short(id).to_owned(), tag_list(tags), zone.clone(), capacity(*bytes)]);
            }
        }
    }
    table
}

/// `[a,b]`.
pub(crate) fn tag_list(tags: &[String]) -> String {
    format!("[{}]", tags.join(","))
}

async fn apply(session: &mut Session<'_>, version: Option<u64>) -> Result<(), CliError> {
    let Some(version) = version else {
        return fail(
            "--version is needed, so that you apply what you have seen: `garage layout show` ends with the exact command, garage layout apply --version N",
        );
    };
    let applied = session.call::<ApplyClusterLayout>(ApplyVersion { version }).await?;
    report::print(session, applied.statistics.as_ref(), &applied.message);
    session.out.line(format!(
        "\nThe new cluster layout is applied, version {}; data moves to its places in the background.",
        applied.layout.version
    ));
    Ok(())
}

async fn revert(session: &mut Session<'_>, yes: bool) -> Result<(), CliError> {
    if !yes {
        return fail("all staged changes would be dropped; add --yes to really do it");
    }
    session.call::<RevertClusterLayout>(NoParameters).await?;
    session.out.line("All staged changes are dropped.");
    Ok(())
}

async fn history(session: &mut Session<'_>) -> Result<(), CliError> {
    let history = session.call::<GetClusterLayoutHistory>(NoParameters).await?;
    let mut versions = Table::new(["Version", "Status", "Storage nodes", "Gateway nodes"]);
    for version in &history.versions {
        let status = format!("{:?}", version.status);
        versions.row([format!("#{}", version.version), status, version.storage_nodes.to_string(), version.gateway_nodes.to_string()]);
    }
    session.out.title("LAYOUT HISTORY");
    session.out.table(&versions);
    if !history.progress.is_empty() {
        session.out.title("PROGRESS");
        session.out.table(&progress_table(history.progress.iter()));
    }
    let Some(trackers) = &history.update_trackers else {
        session.out.line("\nOne layout version is live: no data is moving.");
        return Ok(());
    };
    let mut table = Table::new(["Node", "Ack", "Sync", "Sync_ack"]);
    for (node, tracker) in trackers {
        table.row([short(node).to_owned(), format!("#{}", tracker.ack), format!("#{}", tracker.sync), format!("#{}", tracker.sync_ack)]);
    }
    session.out.title("UPDATE TRACKERS");
    session.out.table(&table);
    session.out.line("\nSeveral layout versions are live while data moves. If nodes that hold it up are dead and will not come back:");
    session.out.line(format!("    garage layout skip-dead-nodes --version {} [--allow-missing-data]", history.current_version));
    Ok(())
}

/// How far the nodes are that have something to bring.
pub(crate) fn progress_table<'a>(progress: impl Iterator<Item = (&'a String, &'a NodeProgress)>) -> Table {
    let mut table = Table::new(["Node", "Version", "Partitions synced", "Recovering", "Blocks queued", "Bytes left"]);
    for (node, progress) in progress {
        table.row([
            short(node).to_owned(),
            format!("#{}", progress.version),
            format!("{}/{}", progress.partitions_synced, progress.partitions_needed),
            progress.partitions_recovering.to_string(),
            progress.blocks_queued.to_string(),
            binary_size(progress.bytes_left),
        ]);
    }
    table
}

async fn recover(session: &mut Session<'_>, accept_loss: bool) -> Result<(), CliError> {
    let recovered = session.call::<RecoverClusterLayout>(RecoverLayout { accept_loss }).await?;
    session.out.title("WHAT IS LEFT");
    let mut table = Table::pairs();
    table.pair("Partitions of which nothing is lost:", recovered.sound_partitions);
    table.pair("Partitions that may lack what was written last:", listed(&recovered.doubtful_partitions));
    table.pair("Partitions without a complete copy:", listed(&recovered.partitions_without_copy));
    let silent: Vec<&str> = recovered.silent_nodes.iter().map(|node| short(node)).collect();
    table.pair("Storage nodes that did not answer:", if silent.is_empty() { "none".to_owned() } else { silent.join(", ") });
    session.out.table(&table);
    match recovered.forced_version {
        Some(version) => {
            report::print(session, None, &recovered.message);
            session.out.line(format!(
                "\nLayout version {version} was applied by force; nodes bring what is left to its places in the background."
            ));
        }
        None => {
            session.out.line(
                "\nNothing was changed. If the silent nodes will never come back: `garage layout remove` them, then, on one node only:",
            );
            session.out.line("    garage layout recover --accept-loss");
        }
    }
    Ok(())
}

/// A count, and the partitions if they are few.
fn listed(partitions: &[u64]) -> String {
    match partitions.len() {
        0 => "0".to_owned(),
        few @ 1..=16 => format!("{few} ({})", partitions.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")),
        many => many.to_string(),
    }
}

async fn skip_dead_nodes(session: &mut Session<'_>, version: u64, allow_missing_data: bool) -> Result<(), CliError> {
    let skipped = session.call::<ClusterLayoutSkipDeadNodes>(SkipDeadNodes { version, allow_missing_data }).await?;
    if skipped.ack_updated.is_empty() && skipped.sync_updated.is_empty() {
        return fail("nothing was changed: no tracker of a dead node was behind that version");
    }
    let mut nodes: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, ids) in [("ACK", &skipped.ack_updated), ("SYNC", &skipped.sync_updated)] {
        for id in ids {
            nodes.entry(id).or_default().push(name);
        }
    }
    for (node, names) in nodes {
        for name in names {
            session.out.line(format!("Raised the {name} tracker of {} to version {version}", short(node)));
        }
    }
    Ok(())
}
