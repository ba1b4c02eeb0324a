//! The report of a layout computation, for people.

use garage_api_admin::types::{LayoutStatistics, ZoneStatistics};

use super::{
    format::{binary_size, percent, short},
    layout::tag_list,
    output::Table,
    session::Session,
};

/// Prints what a computation came to; `message` is the node's own text, shown when there are no numbers.
pub(crate) fn print(session: &mut Session<'_>, statistics: Option<&LayoutStatistics>, message: &[String]) {
    let Some(statistics) = statistics else {
        session.out.line("");
        for line in message {
            session.out.line(line);
        }
        return;
    };
    session.out.title("COMPUTATION OF A NEW PARTITION ASSIGNATION");
    session.out.line(format!(
        "Partitions are replicated {} times on at least {} distinct zones.",
        statistics.replication_factor, statistics.effective_zone_redundancy
    ));
    print_sizes(session, statistics);
    if statistics.low_partition_size {
        session.out.line("WARNING: partitions are smaller than 100 bytes; did you mean larger capacities?");
    }
    if statistics.low_usable_capacity {
        session.out.line(
            "WARNING: much of the capacity cannot be used; balance the capacities of zones and nodes, or ask for less zone redundancy.",
        );
    }
    if let Some(moved) = statistics.total_moved_partitions {
        session.out.line(format!("\nA total of {moved} new copies of partitions must be transferred."));
    }
    for zone in &statistics.zones {
        session.out.line("");
        session.out.table(&zone_table(zone));
    }
}

fn print_sizes(session: &mut Session<'_>, statistics: &LayoutStatistics) {
    let mut table = Table::pairs();
    let previous =
        statistics.previous_partition_size.map(|size| format!(" ({} in previous layout)", binary_size(size))).unwrap_or_default();
    table.pair("Optimal partition size:", format!("{}{previous}", binary_size(statistics.partition_size)));
    let (usable, total) = (statistics.usable_capacity, statistics.total_capacity);
    let share = percent(usable, total).replace('%', " %");
    table.pair("Usable capacity / total cluster capacity:", format!("{} / {} ({share})", binary_size(usable), binary_size(total)));
    let effective = format!("Effective capacity (replication factor {}):", statistics.replication_factor);
    table.pair(&effective, binary_size(statistics.effective_capacity));
    session.out.line("");
    session.out.table(&table);
}

fn zone_table(zone: &ZoneStatistics) -> Table {
    let mut table = Table::new([zone.name.as_str(), "Tags", "Partitions", "Capacity", "Usable capacity"]);
    let sizes = |total, usable| [binary_size(total), format!("{} ({})", binary_size(usable), percent(usable, total))];
    for node in &zone.nodes {
        let partitions = format!("{} ({} new)", node.stored_partitions, node.new_partitions);
        let row = [short(&node.id).to_owned(), tag_list(&node.tags), partitions];
        table.row(row.into_iter().chain(sizes(node.total_capacity, node.usable_capacity)));
    }
    let partitions = format!("{} ({} unique)", zone.total_replicated_partitions, zone.unique_partitions);
    let row = ["TOTAL".to_owned(), String::new(), partitions];
    table.row(row.into_iter().chain(sizes(zone.total_capacity, zone.usable_capacity)));
    table
}
