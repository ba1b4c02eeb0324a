//! Layout changes by the command line while clients write: a node more, a node that died for good replaced, a node less.

use std::path::Path;

use crate::support::{
    self,
    cluster::Cluster,
    load::{self, Writers},
    process::{Node, Settings},
    wait::until,
};

const WRITERS: usize = 4;

/// The id that the command line takes and prints.
async fn id_of(node: &Node) -> String {
    node.full_id().await.split('@').next().unwrap().to_owned()
}

/// The first 16 digits, as tables show them.
fn short(id: &str) -> &str {
    &id[..16]
}

/// A node that runs and knows the first one of `cluster`.
async fn newcomer(cluster: &Cluster, dir: &Path) -> Node {
    let secret = cluster.nodes[0].settings.rpc_secret.clone();
    let mut node = Node::new(dir.to_owned(), Settings::new(dir, &secret));
    node.start().await;
    cluster.nodes[0].cli(&["node", "connect", &node.full_id().await]).await;
    node
}

/// Applies what is staged by the command that `layout show` ends with.
async fn apply_as_shown(node: &Node, version: u64) {
    let shown = node.cli(&["layout", "show"]).await;
    let line = format!("    garage layout apply --version {version}");
    assert!(shown.contains("==== STAGED ROLE CHANGES ====") && shown.contains(&line), "{shown}");
    let applied = node.cli(&["layout", "apply", "--version", &version.to_string()]).await;
    assert!(applied.contains("==== COMPUTATION OF A NEW PARTITION ASSIGNATION ===="), "{applied}");
}

/// Waits until only `version` is live, as `node` sees it.
async fn await_one_live(node: &Node, version: u64) {
    until("the change to be over", async || {
        let history = node.cli(&["layout", "history"]).await;
        let is_current = history.lines().any(|line| line.starts_with(&format!("#{version} ")) && line.contains("Current"));
        assert!(is_current, "{history}");
        history.contains("One layout version is live: no data is moving.").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_added_replaced_and_removed_while_clients_write() {
    let _turn = support::turn_alone().await;
    let mut cluster = Cluster::start().await;
    let endpoints = [cluster.s3(0), cluster.s3(1)];
    let writers = Writers::start(&endpoints, WRITERS, 0);
    writers.more_acknowledged(200).await;

    // One more, in a zone that has a node: some of that one's partitions move.
    let dir = tempfile::TempDir::new().unwrap();
    let spare = newcomer(&cluster, dir.path()).await;
    let spare_id = id_of(&spare).await;
    let staged = cluster.nodes[0].cli(&["layout", "assign", &spare_id, "-z", "west", "-c", "1G", "-t", "spare"]).await;
    assert!(staged.contains("layout show") && staged.contains("layout apply"), "{staged}");
    apply_as_shown(&cluster.nodes[1], 2).await;
    await_one_live(&cluster.nodes[0], 2).await;
    let shown = spare.cli(&["layout", "show"]).await;
    let row = shown.lines().find(|line| line.starts_with(short(&spare_id))).unwrap_or_else(|| panic!("{shown}"));
    assert!(row.contains("[spare]") && row.contains("west"), "{shown}");

    // The other node of that zone dies, and will not come back.
    let dead_id = id_of(&cluster.nodes[2]).await;
    cluster.nodes[2].kill().await;
    let asked = cluster.nodes[0].command(&["layout", "skip-dead-nodes", "--version", "2"]).await.refused();
    assert!(asked.contains("one layout version is live"), "{asked}");
    writers.more_acknowledged(50).await;
    cluster.nodes[0].cli(&["layout", "remove", &dead_id]).await;
    apply_as_shown(&cluster.nodes[0], 3).await;
    // The dead node never says that it knows of the change, and all others wait for it, until they are told not to.
    let hint = "garage layout skip-dead-nodes --version 3";
    let history = cluster.nodes[0].cli(&["layout", "history"]).await;
    assert!(history.contains("==== UPDATE TRACKERS ====") && history.contains(hint), "{history}");
    let raised = until("the node to count as dead", async || {
        let said = cluster.nodes[0].command(&["layout", "skip-dead-nodes", "--version", "3"]).await;
        (said.code == Some(0)).then_some(said.stdout)
    })
    .await;
    assert!(raised.contains(&format!("Raised the ACK tracker of {} to version 3", short(&dead_id))), "{raised}");
    await_one_live(&cluster.nodes[0], 3).await;
    writers.more_acknowledged(50).await;

    let outcome = writers.stop().await;
    assert!(outcome.failures.is_empty(), "{} writes failed: {:?}", outcome.failures.len(), outcome.failures.first());
    let through_spare = support::client::S3::new(spare.s3_address(), cluster.credentials.clone());
    for s3 in endpoints.iter().chain([&through_spare]) {
        load::assert_all_there(s3, &outcome.acknowledged).await;
    }
    let status = cluster.nodes[1].cli(&["status"]).await;
    assert!(status.lines().any(|line| line.starts_with(short(&spare_id)) && line.contains("west")), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn staged_changes_are_shown_refused_and_reverted() {
    let _turn = support::turn().await;
    let cluster = Cluster::start().await;
    let node = &cluster.nodes[0];
    let id = id_of(node).await;
    assert!(node.command(&["layout", "assign", &id, "-c", "10"]).await.refused().contains("too small"));
    assert!(node.command(&["layout", "apply"]).await.refused().contains("--version is needed"));
    node.cli(&["layout", "remove", &id]).await;
    // Two zones are left of the three that three copies ask for: said in one sentence, with nothing to apply.
    let shown = node.cli(&["layout", "show"]).await;
    assert!(shown.contains("REMOVED") && !shown.contains("garage layout apply"), "{shown}");
    let refused = node.command(&["layout", "apply", "--version", "2"]).await.refused();
    assert!(refused.contains("replication") || refused.contains("copies"), "{refused}");
    assert!(node.command(&["layout", "revert"]).await.refused().contains("--yes"));
    node.cli(&["layout", "revert", "--yes"]).await;
    let shown = node.cli(&["layout", "show"]).await;
    assert!(!shown.contains("STAGED") && shown.contains("Current cluster layout version: 1"), "{shown}");
    assert!(node.command(&["layout", "apply", "--version", "7"]).await.refused().contains("version"));

    node.cli(&["layout", "config", "-r", "2"]).await;
    let shown = node.cli(&["layout", "show"]).await;
    assert!(shown.contains("    garage layout apply --version 2"), "{shown}");
    node.cli(&["layout", "apply", "--version", "2"]).await;
    assert!(node.cli(&["layout", "show"]).await.contains("Zone redundancy: 2"));
    await_one_live(node, 2).await;
}
