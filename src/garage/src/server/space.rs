//! Tells the cluster, now and then, how much space is left on this node's disks.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use garage_model::node::Node;
use garage_rpc::membership::{SpaceLeft, SpaceReport};
use garage_util::{
    config::{Config, DataDirUse},
    disk::{Disk, RealDisk},
    runtime::{Lane, Runtime},
};

/// How often.
const REPORT_PERIOD: Duration = Duration::from_secs(10);

/// Starts the task that reports.
pub(super) fn report_for_ever(runtime: &Runtime, node: &Node, config: &Config) {
    let (cluster, own) = (node.cluster.clone(), runtime.clone());
    let metadata = vec![config.metadata_dir.clone()];
    let data: Vec<PathBuf> = config.data_dir.iter().filter(|dir| dir.usage != DataDirUse::ReadOnly).map(|dir| dir.path.clone()).collect();
    runtime.spawn("space report", async move {
        loop {
            let (metadata, data) = (metadata.clone(), data.clone());
            let report = own.blocking(Lane::File, move || SpaceReport { metadata: sum(&metadata), data: sum(&data) });
            let Ok(report) = report.await else { return };
            cluster.report_space(report);
            tokio::time::sleep(REPORT_PERIOD).await;
        }
    });
}

/// Space of the file systems under `paths`, each counted once.
fn sum(paths: &[PathBuf]) -> Option<SpaceLeft> {
    let spaces = paths.iter().filter_map(|path| RealDisk.space(path).ok());
    let distinct: BTreeMap<u64, _> = spaces.map(|space| (space.file_system, space)).collect();
    if distinct.is_empty() {
        return None;
    }
    let available_bytes = distinct.values().map(|space| space.available_bytes).sum();
    Some(SpaceLeft { available_bytes, total_bytes: distinct.values().map(|space| space.total_bytes).sum() })
}
