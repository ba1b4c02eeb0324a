//! Three nodes in three zones, as an operator sets them up.

use std::path::PathBuf;

use garage_testkit::load::Credentials;
use tempfile::TempDir;

use super::{
    client::S3,
    process::{Node, Settings},
    wait::until,
};

/// The bucket of every cluster.
pub const BUCKET: &str = "bucket";
/// The zones, one a node.
const ZONES: [&str; 3] = ["north", "east", "west"];

/// A secret of one cluster, 64 hex digits.
pub fn rpc_secret() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}

/// The nodes, and a key that may do anything with [`BUCKET`].
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub credentials: Credentials,
    /// Dropped after the nodes.
    _dir: TempDir,
}

/// Three nodes that run and do not know each other.
pub async fn strangers(dir: PathBuf, secret: &str) -> Vec<Node> {
    let mut nodes: Vec<Node> = (0..ZONES.len())
        .map(|index| {
            let dir = dir.join(format!("node{index}"));
            let settings = Settings::new(&dir, secret);
            Node::new(dir, settings)
        })
        .collect();
    nodes.iter_mut().for_each(Node::spawn);
    for node in &mut nodes {
        node.await_ready().await;
    }
    nodes
}

/// Makes the first node dial all others.
pub async fn connect(nodes: &[Node]) {
    for node in &nodes[1..] {
        nodes[0].cli(&["node", "connect", &node.full_id().await]).await;
    }
}

/// How many nodes `node` sees as healthy.
pub async fn healthy_count(node: &Node) -> usize {
    let said = node.command(&["status"]).await;
    let healthy = said.stdout.split("==== ").find(|part| part.starts_with("HEALTHY NODES")).unwrap_or_default();
    healthy.lines().filter(|line| line.split_whitespace().next().is_some_and(is_short_id)).count()
}

fn is_short_id(word: &str) -> bool {
    word.len() == 16 && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Waits until every node sees all.
pub async fn await_all_seen(nodes: &[Node]) {
    for node in nodes {
        until("every node to see all others", async || (healthy_count(node).await == nodes.len()).then_some(())).await;
    }
}

/// Gives each node a zone and applies the layout.
pub async fn lay_out(nodes: &[Node]) {
    for (node, zone) in nodes.iter().zip(ZONES) {
        let id = node.full_id().await;
        let id = id.split('@').next().unwrap();
        nodes[0].cli(&["layout", "assign", id, "-z", zone, "-c", "1G"]).await;
    }
    nodes[0].cli(&["layout", "apply", "--version", "1"]).await;
    for node in nodes {
        until("every node to take the layout", async || {
            node.command(&["layout", "show"]).await.stdout.contains("Current cluster layout version: 1").then_some(())
        })
        .await;
    }
}

/// Makes a key with full rights on a new [`BUCKET`].
pub async fn key_and_bucket(node: &Node) -> Credentials {
    let said = node.cli(&["key", "create", "tester"]).await;
    let field = |name: &str| {
        let line = said.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {said}"));
        line.split_whitespace().nth(2).unwrap().to_owned()
    };
    let credentials = Credentials { access_key_id: field("Key ID:"), secret: field("Secret key:"), region: "garage".into() };
    node.cli(&["bucket", "create", BUCKET]).await;
    node.cli(&["bucket", "allow", BUCKET, "--key", &credentials.access_key_id, "--read", "--write", "--owner"]).await;
    credentials
}

/// A node that keeps everything alone, not started; it makes [`BUCKET`] and this key at its start.
pub fn single(settings: Settings, dir: PathBuf) -> (Node, Credentials) {
    let mut node = Node::new(dir, Settings { replication_factor: 1, ..settings });
    let credentials =
        Credentials { access_key_id: "GK00112233445566778899aabb".into(), secret: "0123456789abcdef".repeat(4), region: "garage".into() };
    node.arguments = ["--single-node", "--default-bucket", BUCKET].map(str::to_owned).to_vec();
    node.variables =
        vec![("GARAGE_DEFAULT_ACCESS_KEY", credentials.access_key_id.clone()), ("GARAGE_DEFAULT_SECRET_KEY", credentials.secret.clone())];
    (node, credentials)
}

impl Cluster {
    /// A cluster ready for S3 through every node.
    pub async fn start() -> Cluster {
        let dir = TempDir::new().unwrap();
        let nodes = strangers(dir.path().to_owned(), &rpc_secret()).await;
        connect(&nodes).await;
        await_all_seen(&nodes).await;
        lay_out(&nodes).await;
        let credentials = key_and_bucket(&nodes[0]).await;
        Cluster { nodes, credentials, _dir: dir }
    }

    /// A client of one node.
    pub fn s3(&self, index: usize) -> S3 {
        S3::new(self.nodes[index].s3_address(), self.credentials.clone())
    }
}
