//! The processes of a run: each with its directory, its configuration, and a proxy in front of its port for nodes.

use std::{
    fs::{self, File},
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::sleep;

use super::{Failure, Options};
use crate::{
    load::Credentials,
    proxy::{Gate, Limits, Loss, UdpProxy},
};

/// One way between two nodes; there and back it is 50 ms.
const DELAY: Duration = Duration::from_millis(25);
/// Longest time anything that must come about may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// The bucket of the run.
pub(super) const BUCKET: &str = "chaos";
/// Size of the file system that a node's data lies on, where one can be mounted.
const TMPFS_MIB: u32 = 2_048;

/// One node.
pub(super) struct Node {
    pub index: usize,
    dir: PathBuf,
    program: PathBuf,
    rpc_port: u16,
    s3_port: u16,
    secret: String,
    pub proxy: UdpProxy,
    child: Option<Child>,
    /// Its data lies on a file system of its own, which can be filled.
    pub is_fillable: bool,
}

/// All of them.
pub(super) struct Cluster {
    pub nodes: Vec<Node>,
    pub credentials: Credentials,
    pub layout_version: u64,
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

impl Node {
    fn new(options: &Options, index: usize, secret: &str) -> Result<Node, Failure> {
        let base = options.base_port + 3 * index as u16;
        let dir = options.dir.join(format!("node{index}"));
        let data = dir.join("data");
        fs::create_dir_all(&data)?;
        let is_fillable = index == 0 && mount_tmpfs(&data);
        let gate = Gate::new(Loss::default(), options.seed + index as u64);
        let proxy = UdpProxy::start(loopback(base + 1), loopback(base), DELAY, gate, Limits::default())?;
        Ok(Node {
            index,
            dir,
            program: options.program.clone(),
            rpc_port: base,
            s3_port: base + 2,
            secret: secret.to_string(),
            proxy,
            child: None,
            is_fillable,
        })
    }

    fn config(&self) -> String {
        let Node { dir, rpc_port, s3_port, secret, .. } = self;
        let public = rpc_port + 1;
        let (meta, data) = (dir.join("meta"), dir.join("data/blocks"));
        format!(
            "metadata_dir = {meta:?}\ndata_dir = {data:?}\nreplication_factor = 3\nrpc_secret = \"{secret}\"\n\
             rpc_bind_addr = \"127.0.0.1:{rpc_port}\"\nrpc_public_addr = \"127.0.0.1:{public}\"\n\
             [s3_api]\napi_bind_addr = \"127.0.0.1:{s3_port}\"\ns3_region = \"garage\"\n"
        )
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(self.dir.join("garage.toml")).current_dir(&self.dir).stdin(Stdio::null()).env("NO_COLOR", "1");
        command
    }

    pub(super) async fn start(&mut self) -> Result<(), Failure> {
        fs::write(self.dir.join("garage.toml"), self.config())?;
        let mut log = File::options().create(true).append(true).open(self.log_file())?;
        writeln!(log, "==== start")?;
        self.child = Some(self.command().arg("server").stdout(log.try_clone()?).stderr(log).spawn()?);
        let deadline = Instant::now() + PATIENCE;
        while !self.log_of_this_run().contains("garage: ready") {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                return Err(Failure(format!("node {} ended ({status}); see {}", self.index, self.log_file().display())));
            }
            if deadline < Instant::now() {
                return Err(Failure(format!("node {} is not ready after {PATIENCE:?}; see {}", self.index, self.log_file().display())));
            }
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    fn log_file(&self) -> PathBuf {
        self.dir.join("log")
    }

    fn log_of_this_run(&self) -> String {
        let log = fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&log).rsplit("==== start\n").next().unwrap_or_default().to_string()
    }

    /// Sends our own child a signal.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child
            && let Err(error) = kill(Pid::from_raw(child.id().cast_signed()), signal)
        {
            eprintln!("chaos: node {} could not be signalled: {error}", self.index);
        }
    }

    /// Waits for the end of the process after a signal that ends it.
    pub(super) async fn ended(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        while let Ok(None) = child.try_wait() {
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Deletes all block files, and what remembers that there were some, as an operator does who replaces a disk.
    pub(super) fn lose_data(&self) -> Result<(), Failure> {
        fs::remove_dir_all(self.dir.join("data/blocks"))?;
        fs::remove_file(self.dir.join("meta/data_layout"))?;
        Ok(())
    }

    /// Fills the file system of its data, or makes room again.
    pub(super) fn fill(&self, full: bool) -> Result<(), Failure> {
        let filler = self.dir.join("data/filler");
        if !full {
            return Ok(fs::remove_file(filler)?);
        }
        let mut file = File::create(filler)?;
        let piece = vec![0; 1 << 20];
        // Until there is no room for another piece.
        while file.write_all(&piece).is_ok() {}
        Ok(())
    }

    pub(super) fn s3_endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.s3_port)
    }

    pub(super) async fn cli(&self, arguments: &[&str]) -> Result<String, Failure> {
        let mut command = self.command();
        command.args(arguments);
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            return Ok(text(&output.stdout));
        }
        Err(Failure(format!("garage {} on node {}: {}", arguments.join(" "), self.index, text(&output.stderr))))
    }

    /// The command, again and again until it succeeds.
    async fn cli_patiently(&self, arguments: &[&str]) -> Result<String, Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.cli(arguments).await {
                Err(error) if deadline < Instant::now() => return Err(error),
                Err(_) => sleep(Duration::from_millis(500)).await,
                said => return said,
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child
            && child.kill().is_ok()
        {
            let _ = child.wait();
        }
        if self.is_fillable {
            let _ = Command::new("umount").arg("-l").arg(self.dir.join("data")).status();
        }
    }
}

/// A file system in memory at `path`; false where this may not be done.
fn mount_tmpfs(path: &Path) -> bool {
    let size = format!("size={TMPFS_MIB}m");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path).stderr(Stdio::null()).status();
    mounted.is_ok_and(|status| status.success())
}

impl Cluster {
    pub(super) async fn start(options: &Options) -> Result<Cluster, Failure> {
        let secret: String =
            (0..8).map(|word| format!("{:08x}", (options.seed as u32).wrapping_mul(2_654_435_761).wrapping_add(word))).collect();
        let mut nodes = (0..options.nodes_count).map(|index| Node::new(options, index, &secret)).collect::<Result<Vec<_>, _>>()?;
        for node in &mut nodes {
            node.start().await?;
        }
        for node in &nodes[1..] {
            let id = node.cli(&["node", "id", "-q"]).await?;
            nodes[0].cli_patiently(&["node", "connect", id.trim()]).await?;
        }
        for node in &nodes {
            let id = node.cli(&["node", "id", "-q"]).await?;
            let id = id.split('@').next().unwrap_or_default().to_string();
            nodes[0].cli_patiently(&["layout", "assign", &id, "-z", &format!("zone{}", node.index), "-c", "10G"]).await?;
        }
        nodes[0].cli_patiently(&["layout", "apply", "--version", "1"]).await?;
        let said = nodes[0].cli_patiently(&["key", "create", "chaos"]).await?;
        let field = |name: &str| {
            let line = said.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_whitespace().nth(2)).map(str::to_string).ok_or_else(|| Failure(format!("no {name} in {said}")))
        };
        let credentials = Credentials { access_key_id: field("Key ID:")?, secret: field("Secret key:")?, region: "garage".into() };
        nodes[0].cli_patiently(&["bucket", "create", BUCKET]).await?;
        let allow = ["bucket", "allow", BUCKET, "--key", &credentials.access_key_id, "--read", "--write", "--owner"];
        nodes[0].cli_patiently(&allow).await?;
        Ok(Cluster { nodes, credentials, layout_version: 1 })
    }

    /// Changes a node's capacity and applies that.
    pub(super) async fn change_layout(&mut self, index: usize) -> Result<(), Failure> {
        let id = self.nodes[index].cli(&["node", "id", "-q"]).await?;
        let id = id.split('@').next().unwrap_or_default().to_string();
        let (zone, capacity) = (format!("zone{index}"), format!("{}G", 8 + self.layout_version % 5));
        let next = self.layout_version + 1;
        let asked = &self.nodes[(index + 1) % self.nodes.len()];
        asked.cli(&["layout", "assign", &id, "-z", &zone, "-c", &capacity]).await?;
        asked.cli(&["layout", "apply", "--version", &next.to_string()]).await?;
        self.layout_version = next;
        Ok(())
    }

    /// Everything runs, and every node sees all others.
    pub(super) async fn mend(&mut self) -> Result<(), Failure> {
        for node in &mut self.nodes {
            node.proxy.set_cut(false);
            node.proxy.set_loss(Loss::default());
            if node.child.is_none() {
                node.start().await?;
            }
        }
        for node in &self.nodes {
            let deadline = Instant::now() + PATIENCE;
            loop {
                let said = node.cli(&["status"]).await.unwrap_or_default();
                let healthy = said.split("==== ").find(|part| part.starts_with("HEALTHY NODES")).unwrap_or_default();
                let count = healthy.lines().filter(|line| line.split_whitespace().next().is_some_and(|word| word.len() == 16)).count();
                if self.nodes.len() <= count {
                    break;
                }
                if deadline < Instant::now() {
                    return Err(Failure(format!("node {} does not see all nodes after {PATIENCE:?}:\n{said}", node.index)));
                }
                sleep(Duration::from_millis(500)).await;
            }
        }
        Ok(())
    }

    pub(super) async fn stop(&mut self) {
        for node in &mut self.nodes {
            node.signal(Signal::SIGTERM);
            node.ended().await;
        }
    }
}
