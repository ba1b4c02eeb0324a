//! `garage status`, `garage health`, `garage stats`.

use std::collections::BTreeMap;

use garage_api_admin::{
    endpoint::{GetClusterHealth, GetClusterStatistics, GetClusterStatus, GetNodeInfo, GetNodeStatistics},
    types::{HealthStatus, Layout, NoParameters, Node, NodeInfo, NodeStatistics, RefusedPeer, RoleChange, Space},
};

use super::{
    caller::call_nodes,
    error::CliError,
    format::{ago, binary_size, percent, short},
    layout::{progress_table, staged_table, tag_list},
    output::Table,
    session::Session,
};

/// `garage status`.
pub(crate) async fn status(session: &mut Session<'_>) -> Result<(), CliError> {
    let status = session.call::<GetClusterStatus>(NoParameters).await?;
    let layout = session.layout().await?;
    let mut healthy = Table::new(["ID", "Hostname", "Address", "Tags", "Zone", "Capacity", "DataAvail", "ResyncQueue", "Version"]);
    for node in status.nodes.iter().filter(|node| node.is_up) {
        healthy.row(healthy_row(node, &layout));
    }
    session.out.title("HEALTHY NODES");
    session.out.table(&healthy);
    print_failed(session, &status.nodes, &layout);
    print_refused(session, &status.refused);
    print_trouble(session, &status.nodes);
    if !layout.staged_role_changes.is_empty() {
        session.out.title("STAGED ROLE CHANGES");
        session.out.table(&staged_table(&layout));
        session
            .out
            .line("\nThe changes are only staged: `garage layout show` shows what they would give, `garage layout apply` applies them.");
    }
    Ok(())
}

fn healthy_row(node: &Node, layout: &Layout) -> Vec<String> {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "?".into());
    let mut row = vec![short(&node.id).to_owned(), text(&node.hostname), node.addr.clone().unwrap_or_else(|| "N/A".into())];
    match &node.role {
        Some(role) => {
            let gateway = role.capacity.is_none();
            row.extend([tag_list(&role.tags), role.zone.clone(), capacity(role.capacity)]);
            row.push(if gateway { "N/A".into() } else { available(node.data_partition) });
            row.push(node.resync_queue_len.filter(|_| !gateway).map_or_else(|| "N/A".into(), |count| count.to_string()));
        }
        None => row.extend([String::new(), String::new(), without_role(node, layout), String::new(), String::new()]),
    }
    row.push(text(&node.garage_version));
    row
}

/// What stands in the capacity column of a node without role.
fn without_role(node: &Node, layout: &Layout) -> String {
    let staged = layout.staged_role_changes.iter().any(|change| matches!(change, RoleChange::Assign { id, .. } if *id == node.id));
    match (node.draining, staged) {
        (true, _) => "draining metadata..".into(),
        (false, true) => "pending...".into(),
        (false, false) => "NO ROLE ASSIGNED".into(),
    }
}

fn print_failed(session: &mut Session<'_>, nodes: &[Node], layout: &Layout) {
    let mut failed = Table::new(["ID", "Hostname", "Tags", "Zone", "Capacity", "Last seen"]);
    let mut draining = false;
    for node in nodes.iter().filter(|node| !node.is_up) {
        let (tags, zone, capacity) = match &node.role {
            Some(role) => (tag_list(&role.tags), role.zone.clone(), capacity(role.capacity)),
            None => (String::new(), String::new(), without_role(node, layout)),
        };
        if node.role.is_none() && capacity == "NO ROLE ASSIGNED" {
            continue;
        }
        draining |= node.draining;
        let seen = node.last_seen_secs_ago.map_or_else(|| "never seen".into(), ago);
        failed.row([short(&node.id).to_owned(), node.hostname.clone().unwrap_or_else(|| "?".into()), tags, zone, capacity, seen]);
    }
    if failed.is_empty() {
        return;
    }
    session.out.title("FAILED NODES");
    session.out.table(&failed);
    if draining {
        session.out.line("\nData still has to move away from dead nodes: `garage layout history` says how far it is and what can be done.");
    }
}

/// Connections that were refused: a node with another secret is not among the others, and its operator wants to know why.
fn print_refused(session: &mut Session<'_>, refused: &[RefusedPeer]) {
    if refused.is_empty() {
        return;
    }
    let mut table = Table::new(["ID", "Address", "Reason"]);
    for peer in refused {
        let id = peer.id.as_deref().map_or("?", |id| &id[..id.len().min(16)]);
        table.row([id.to_string(), peer.address.clone().unwrap_or_else(|| "?".into()), peer.reason.clone()]);
    }
    session.out.title("REFUSED CONNECTIONS");
    session.out.table(&table);
}

/// Clocks that are off, and how far nodes are that have something to bring.
fn print_trouble(session: &mut Session<'_>, nodes: &[Node]) {
    let clocks = nodes.iter().filter_map(|node| Some((node, node.clock_ahead_secs?)));
    for (node, secs) in clocks {
        let side = if secs < 0 { "behind" } else { "ahead of" };
        session.out.line(format!(
            "\nWARNING: the clock of {} is {} s {side} the others': its stamps are corrected; check its time synchronisation",
            short(&node.id),
            secs.abs()
        ));
    }
    let busy: Vec<_> = nodes.iter().filter_map(|node| Some((&node.id, node.progress.as_ref()?))).collect();
    if !busy.is_empty() {
        session.out.title("PROGRESS");
        session.out.table(&progress_table(busy.into_iter()));
    }
}

/// A role's capacity: bytes, or `gateway`.
pub(crate) fn capacity(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "gateway".into(), binary_size)
}

fn available(space: Option<Space>) -> String {
    space.map_or_else(|| "?".into(), |space| format!("{} ({})", binary_size(space.available), percent(space.available, space.total)))
}

/// `garage health`.
pub(crate) async fn health(session: &mut Session<'_>, quiet: bool) -> Result<(), CliError> {
    let health = session.call::<GetClusterHealth>(NoParameters).await?;
    let verdict = match health.status {
        HealthStatus::Healthy => "HEALTHY",
        HealthStatus::Degraded => "DEGRADED",
        HealthStatus::Unavailable => "UNAVAILABLE",
    };
    session.out.exit_code = u8::from(health.status == HealthStatus::Unavailable);
    if quiet {
        return Ok(());
    }
    let mut table = Table::pairs();
    table.pair("Cluster health:", verdict);
    for (name, count) in [
        ("Known nodes:", health.known_nodes),
        ("Connected nodes:", health.connected_nodes),
        ("Storage nodes:", health.storage_nodes),
        ("Storage nodes up:", health.storage_nodes_up),
        ("Partitions:", health.partitions),
        ("Partitions with quorum:", health.partitions_quorum),
        ("Fully healthy partitions:", health.partitions_all_ok),
    ] {
        table.pair(name, count);
    }
    session.out.table(&table);
    Ok(())
}

/// `garage stats`.
pub(crate) async fn stats(session: &mut Session<'_>, all_nodes: bool) -> Result<(), CliError> {
    let node = if all_nodes { "*" } else { "self" };
    let infos = call_nodes::<GetNodeInfo, _, _>(session.caller, node, NoParameters).await?;
    let counts = call_nodes::<GetNodeStatistics, _, _>(session.caller, node, NoParameters).await?;
    let mut errors: BTreeMap<String, String> = counts.error;
    errors.extend(infos.error);
    let nodes: Vec<&String> = counts.success.keys().chain(errors.keys()).collect();
    for id in std::collections::BTreeSet::from_iter(nodes) {
        session.out.title(&format!("NODE [{}]", short(id)));
        match (infos.success.get(id), counts.success.get(id), errors.get(id)) {
            (Some(info), Some(counts), None) => print_node_stats(session, info, counts),
            (_, _, error) => session.out.line(format!("Error: {}", error.map_or("no answer", String::as_str))),
        }
    }
    print_cluster_stats(session).await
}

fn print_node_stats(session: &mut Session<'_>, info: &NodeInfo, counts: &NodeStatistics) {
    let mut facts = Table::pairs();
    facts.pair("Node ID:", &info.node_id);
    facts.pair("Hostname:", info.hostname.as_deref().unwrap_or("?"));
    facts.pair("Garage version:", &info.garage_version);
    facts.pair("Garage features:", info.garage_features.as_deref().unwrap_or_default().join(", "));
    facts.pair("Rust compiler version:", &info.rust_version);
    facts.pair("Database engine:", &info.db_engine);
    session.out.table(&facts);
    if let Some(tables) = &counts.table_stats {
        let mut rows = Table::new(["Table", "Items", "MklItems", "MklTodo", "InsQueue", "GcTodo"]);
        for table in tables {
            let counts = [table.items, table.merkle_items, table.merkle_queue_len, table.insert_queue_len, table.gc_queue_len];
            rows.row(std::iter::once(table.table_name.clone()).chain(counts.map(|count| count.to_string())));
        }
        session.out.line("\nTable stats:");
        session.out.table(&rows);
    }
    if let Some(blocks) = &counts.block_manager_stats {
        let mut rows = Table::pairs();
        rows.pair("number of RC entries:", blocks.rc_entries);
        rows.pair("resync queue length:", blocks.resync_queue_len);
        rows.pair("blocks with resync errors:", blocks.resync_errors);
        session.out.line("\nBlock manager stats:");
        session.out.table(&rows);
    }
}

async fn print_cluster_stats(session: &mut Session<'_>) -> Result<(), CliError> {
    let statistics = session.call::<GetClusterStatistics>(NoParameters).await?;
    let status = session.call::<GetClusterStatus>(NoParameters).await?;
    let layout = session.layout().await?;
    let mut nodes = Table::new(["ID", "Hostname", "Zone", "Capacity", "Part.", "DataAvail", "MetaAvail"]);
    for role in layout.roles.iter().filter(|role| role.capacity.is_some()) {
        let node = status.nodes.iter().find(|node| node.id == role.id);
        nodes.row([
            short(&role.id).to_owned(),
            node.and_then(|node| node.hostname.clone()).unwrap_or_else(|| "?".into()),
            role.zone.clone(),
            capacity(role.capacity),
            role.stored_partitions.unwrap_or(0).to_string(),
            available(node.and_then(|node| node.data_partition)),
            available(node.and_then(|node| node.metadata_partition)),
        ]);
    }
    session.out.title("CLUSTER STATISTICS");
    session.out.line("Storage nodes:");
    session.out.table(&nodes);
    let mut totals = Table::pairs();
    let bound = if statistics.incomplete_avail_info == Some(true) { "< " } else { "" };
    let counts = [
        ("Number of buckets:", statistics.bucket_count.map(|count| count.to_string())),
        ("Total number of objects:", statistics.total_object_count.map(|count| count.to_string())),
        ("Total size of objects:", statistics.total_object_bytes.map(super::format::both_sizes)),
    ];
    for (name, value) in counts {
        if let Some(value) = value {
            totals.pair(name, value);
        }
    }
    session.out.line("");
    session.out.table(&totals);
    let mut space = Table::pairs();
    for (name, bytes) in [("  data:", statistics.data_avail), ("  metadata:", statistics.metadata_avail)] {
        space.pair(name, bytes.map_or_else(|| "?".into(), |bytes| format!("{bound}{}", binary_size(bytes))));
    }
    session.out.line("\nEstimated available storage space cluster-wide:");
    session.out.table(&space);
    Ok(())
}
