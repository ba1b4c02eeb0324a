//! What the operator is told of a computed layout: numbers for the admin API, lines for the CLI.

use std::collections::BTreeMap;

use garage_net::NodeId;

use super::version::LayoutVersion;

/// Below this partition size the operator is warned: the capacities were probably meant in another unit.
const LOW_PARTITION_SIZE_BYTES: u64 = 100;
/// Below this share of the total capacity in use the operator is warned, in percent.
const LOW_USABLE_PERCENT: u64 = 80;

/// The computation report of one layout version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutReport {
    /// Copies of each partition.
    pub replication_factor: usize,
    /// The number of distinct zones that the copies of each partition reach at least.
    pub effective_zone_redundancy: usize,
    /// Bytes each partition may grow to.
    pub partition_size_bytes: u64,
    /// The same in the version before; `None` for the first layout.
    pub previous_partition_size_bytes: Option<u64>,
    /// Whether partitions are so small that capacities were probably given in another unit.
    pub low_partition_size: bool,
    /// What all nodes together can use of their capacities, in bytes, all copies counted.
    pub usable_capacity_bytes: u64,
    /// The sum of all capacities, in bytes.
    pub total_capacity_bytes: u64,
    /// What users can store, in bytes: each byte counted once.
    pub effective_capacity_bytes: u64,
    /// Whether much capacity stays unused because of the zones.
    pub low_usable_capacity: bool,
    /// Partition copies that a node gets and did not have; `None` for the first layout.
    pub moved_partition_count: Option<usize>,
    /// The zones with storage nodes, by name.
    pub zones: Vec<ZoneReport>,
}

/// One zone's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneReport {
    /// Its name.
    pub name: String,
    /// Its storage nodes, by id.
    pub nodes: Vec<NodeReport>,
    /// Partition copies in the zone.
    pub replicated_partition_count: usize,
    /// Partitions with a copy in the zone.
    pub unique_partition_count: usize,
    /// Sum of the nodes' capacities, in bytes.
    pub total_capacity_bytes: u64,
    /// Sum of what the nodes can use, in bytes.
    pub usable_capacity_bytes: u64,
}

/// One storage node's line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReport {
    /// The node.
    pub id: NodeId,
    /// Its tags.
    pub tags: Vec<String>,
    /// Partitions it holds.
    pub partition_count: usize,
    /// How many of them it did not hold in the version before.
    pub new_partition_count: usize,
    /// Its capacity, in bytes.
    pub total_capacity_bytes: u64,
    /// What it can use of it, in bytes.
    pub usable_capacity_bytes: u64,
}

impl LayoutReport {
    /// Reports on `layout` as the successor of `previous`.
    pub fn new(previous: &LayoutVersion, layout: &LayoutVersion) -> LayoutReport {
        let zones = zone_reports(previous, layout);
        let usable_capacity_bytes: u64 = zones.iter().fold(0, |sum, zone| sum.saturating_add(zone.usable_capacity_bytes));
        let total_capacity_bytes: u64 = zones.iter().fold(0, |sum, zone| sum.saturating_add(zone.total_capacity_bytes));
        let moved = zones.iter().flat_map(|zone| &zone.nodes).map(|node| node.new_partition_count).sum();
        LayoutReport {
            replication_factor: layout.replication_factor,
            effective_zone_redundancy: layout.effective_zone_redundancy(),
            partition_size_bytes: layout.partition_size_bytes,
            previous_partition_size_bytes: previous.is_ready().then_some(previous.partition_size_bytes),
            low_partition_size: layout.partition_size_bytes < LOW_PARTITION_SIZE_BYTES,
            usable_capacity_bytes,
            total_capacity_bytes,
            effective_capacity_bytes: usable_capacity_bytes / layout.replication_factor as u64,
            low_usable_capacity: percent(usable_capacity_bytes, total_capacity_bytes) < LOW_USABLE_PERCENT as f64,
            moved_partition_count: previous.is_ready().then_some(moved),
            zones,
        }
    }

    /// The report as printed, a line an item, without line ends.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec!["==== COMPUTATION OF A NEW PARTITION ASSIGNATION ====".to_owned(), String::new()];
        lines.extend(self.summary_lines());
        for zone in &self.zones {
            lines.push(String::new());
            lines.extend(align(&zone.table()));
        }
        lines
    }

    fn summary_lines(&self) -> Vec<String> {
        let before = self.previous_partition_size_bytes.map(|size| format!(" (previously {})", format_size(size)));
        let mut lines = vec![
            format!(
                "Each partition has {} in at least {}.",
                plural(self.replication_factor, "copy", "copies"),
                plural(self.effective_zone_redundancy, "distinct zone", "distinct zones")
            ),
            format!("Optimal partition size:                     {}{}", format_size(self.partition_size_bytes), before.unwrap_or_default()),
            format!(
                "Usable capacity / total cluster capacity:   {} / {} ({:.1} %)",
                format_size(self.usable_capacity_bytes),
                format_size(self.total_capacity_bytes),
                percent(self.usable_capacity_bytes, self.total_capacity_bytes)
            ),
            format!("Effective capacity (replication factor {}):  {}", self.replication_factor, format_size(self.effective_capacity_bytes)),
        ];
        if self.low_partition_size {
            lines.push(format!(
                "WARNING: partitions are under {LOW_PARTITION_SIZE_BYTES} bytes; give node capacities in bytes, for instance 100G"
            ));
        }
        if self.low_usable_capacity {
            lines.push(format!(
                "WARNING: less than {LOW_USABLE_PERCENT} % of the total capacity can be used; bring the capacities of the zones closer to \
                 each other, or lower the zone redundancy"
            ));
        }
        if let Some(moved) = self.moved_partition_count {
            lines.push(String::new());
            lines.push(format!("{} of partitions will be made on other nodes.", plural(moved, "new copy", "new copies")));
        }
        lines
    }
}

impl ZoneReport {
    fn table(&self) -> Vec<[String; 5]> {
        let cell = str::to_owned;
        let header = [self.name.clone(), cell("Tags"), cell("Partitions"), cell("Capacity"), cell("Usable capacity")];
        let mut rows = vec![header];
        rows.extend(self.nodes.iter().map(|node| {
            [
                format!("  {}", node.id.short()),
                format!("[{}]", node.tags.join(",")),
                format!("{} ({} new)", node.partition_count, node.new_partition_count),
                format_size(node.total_capacity_bytes),
                format_share(node.usable_capacity_bytes, node.total_capacity_bytes),
            ]
        }));
        rows.push([
            cell("  TOTAL"),
            String::new(),
            format!("{} ({} unique)", self.replicated_partition_count, self.unique_partition_count),
            format_size(self.total_capacity_bytes),
            format_share(self.usable_capacity_bytes, self.total_capacity_bytes),
        ]);
        rows
    }
}

/// A size for people: binary units, one decimal, as `9.3 GiB`.
pub fn format_size(size_bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = size_bytes as f64;
    let mut unit = 0;
    // Rounding to one decimal may reach the next unit, so that `1024.0 KiB` never appears.
    while 1023.95 <= value && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{size_bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

fn format_share(part_bytes: u64, whole_bytes: u64) -> String {
    format!("{} ({:.1}%)", format_size(part_bytes), percent(part_bytes, whole_bytes))
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

fn plural(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn zone_reports(previous: &LayoutVersion, layout: &LayoutVersion) -> Vec<ZoneReport> {
    let mut zones: BTreeMap<&str, ZoneReport> = BTreeMap::new();
    for &id in layout.storage_nodes() {
        let role = &layout.roles[&id];
        let zone = zones.entry(&role.zone).or_insert_with(|| ZoneReport::empty(&role.zone));
        zone.add(node_report(previous, layout, id));
    }
    for partition in layout.partitions() {
        let mut holding: Vec<&str> = layout.nodes_of(partition).map(|id| layout.roles[&id].zone.as_str()).collect();
        holding.sort_unstable();
        holding.dedup();
        for name in holding {
            if let Some(zone) = zones.get_mut(name) {
                zone.unique_partition_count += 1;
            }
        }
    }
    zones.into_values().collect()
}

impl ZoneReport {
    fn empty(name: &str) -> ZoneReport {
        ZoneReport {
            name: name.to_owned(),
            nodes: Vec::new(),
            replicated_partition_count: 0,
            unique_partition_count: 0,
            total_capacity_bytes: 0,
            usable_capacity_bytes: 0,
        }
    }

    fn add(&mut self, node: NodeReport) {
        self.replicated_partition_count += node.partition_count;
        self.total_capacity_bytes = self.total_capacity_bytes.saturating_add(node.total_capacity_bytes);
        self.usable_capacity_bytes = self.usable_capacity_bytes.saturating_add(node.usable_capacity_bytes);
        self.nodes.push(node);
    }
}

fn node_report(previous: &LayoutVersion, layout: &LayoutVersion, id: NodeId) -> NodeReport {
    let role = &layout.roles[&id];
    let partition_count = layout.partitions_of(id).count();
    NodeReport {
        id,
        tags: role.tags.clone(),
        partition_count,
        new_partition_count: layout.partitions_of(id).filter(|&partition| !previous.holds(id, partition)).count(),
        total_capacity_bytes: role.capacity_bytes.unwrap_or(0),
        usable_capacity_bytes: partition_count as u64 * layout.partition_size_bytes,
    }
}

/// Pads columns with spaces, two between; trailing spaces cut.
fn align(rows: &[[String; 5]]) -> Vec<String> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 5] = std::array::from_fn(width);
    let line = |row: &[String; 5]| {
        let padded: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::super::ZoneRedundancy;
    use super::super::assign::compute;
    use super::super::exhaustive::{cluster, gateway, storage};
    use super::{LayoutReport, LayoutVersion, format_size};

    fn report(previous: &LayoutVersion, roles: Vec<super::super::Role>) -> (LayoutVersion, LayoutReport) {
        let next = compute(previous, cluster(roles), 3, ZoneRedundancy::Maximum).unwrap();
        let report = LayoutReport::new(previous, &next);
        (next, report)
    }

    #[test]
    fn sizes_are_shown_in_binary_units_with_one_decimal() {
        for (size_bytes, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (10_000_000_000, "9.3 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(format_size(size_bytes), shown);
        }
    }

    #[test]
    fn a_first_layout_is_reported_without_moves() {
        let mut roles = vec![storage("paris", 10_000_000_000), storage("lyon", 10_000_000_000), storage("nice", 20_000_000_000)];
        roles[0].tags = vec!["ssd".to_owned(), "old".to_owned()];
        roles.push(gateway("nice"));
        let (_, report) = report(&LayoutVersion::zero(3, 256), roles);
        assert_eq!((report.moved_partition_count, report.previous_partition_size_bytes), (None, None));
        let text = report.lines().join("\n");
        for part in [
            "==== COMPUTATION OF A NEW PARTITION ASSIGNATION ====\n",
            "Each partition has 3 copies in at least 3 distinct zones.",
            "Optimal partition size:                     37.3 MiB\n",
            "Usable capacity / total cluster capacity:   27.9 GiB / 37.3 GiB (75.0 %)\n",
            "Effective capacity (replication factor 3):  9.3 GiB\n",
            "WARNING: less than 80 %",
            "paris               Tags       Partitions        Capacity  Usable capacity\n",
            "  0001000000000000  [ssd,old]  256 (256 new)     9.3 GiB   9.3 GiB (100.0%)\n",
            "  TOTAL                        256 (256 unique)  9.3 GiB   9.3 GiB (100.0%)",
        ] {
            assert!(text.contains(part), "{part:?} is missing in:\n{text}");
        }
        assert!(!text.contains("new copies") && !text.contains("0004"), "no moves, no gateways:\n{text}");
    }

    #[test]
    fn a_later_layout_is_reported_with_the_size_before_and_the_moves() {
        let (first, _) = report(&LayoutVersion::zero(3, 256), vec![storage("a", 1 << 30); 3]);
        let (_, report) = report(&first, vec![storage("a", 1 << 30); 4]);
        assert_eq!((report.moved_partition_count, report.effective_zone_redundancy), (Some(192), 1));
        assert_eq!(report.zones[0].nodes.iter().map(|node| node.new_partition_count).collect::<Vec<_>>(), [0, 0, 0, 192]);
        assert_eq!((report.zones[0].replicated_partition_count, report.zones[0].unique_partition_count), (768, 256));
        let text = report.lines().join("\n");
        assert!(text.contains("5.3 MiB (previously 4.0 MiB)\n") && text.contains("192 new copies of partitions"), "{text}");
        assert!(!text.contains("WARNING"), "{text}");
    }

    #[test]
    fn capacities_in_a_wrong_unit_are_warned_of() {
        let (_, report) = report(&LayoutVersion::zero(3, 256), vec![storage("a", 2000); 3]);
        assert!(report.low_partition_size);
        assert!(report.lines().iter().any(|line| line.contains("under 100 bytes")));
    }
}
