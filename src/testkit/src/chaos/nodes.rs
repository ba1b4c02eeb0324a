//! The processes of a run: each with its directory and its configuration; and the cluster they make.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use parking_lot::Mutex;
use tokio::time::sleep;

use super::{
    Failure, Options,
    network::{self, Place},
};
use crate::load::Credentials;

/// Longest time anything that must come about may take, but for what has to wait for a refill.
pub(super) const PATIENCE: Duration = Duration::from_secs(90);
/// A command that has not ended by then is ended.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(40);
/// The bucket of the run.
pub(super) const BUCKET: &str = "chaos";
/// Size of the file system that a node lies on, where one can be mounted.
const TMPFS_MIB: u32 = 4_096;

/// One node.
pub(super) struct Node {
    pub index: usize,
    /// Its 16 hexadecimal digits in what commands print.
    pub short_id: String,
    pub place: Place,
    /// It lies on a file system of its own, which can be filled.
    pub is_fillable: bool,
    dir: PathBuf,
    program: PathBuf,
    port: u16,
    secret: String,
    child: Option<Child>,
    has_copy: bool,
}

/// The nodes that have a role in the layout: clients ask no others. Cheap to clone.
#[derive(Clone)]
pub(super) struct Members(Arc<Mutex<BTreeSet<usize>>>);

impl Members {
    /// In ascending order.
    pub(super) fn all(&self) -> Vec<usize> {
        self.0.lock().iter().copied().collect()
    }

    /// The one whose turn it is.
    pub(super) fn nth(&self, turn: u64) -> u64 {
        let all = self.all();
        all[turn as usize % all.len()] as u64
    }
}

/// All of them.
pub(super) struct Cluster {
    pub nodes: Vec<Node>,
    pub credentials: Credentials,
    pub members: Members,
}

impl Node {
    fn new(options: &Options, index: usize, secret: &str) -> Result<Node, Failure> {
        let dir = options.dir.join(format!("node{index}"));
        fs::create_dir_all(dir.join("disk"))?;
        let is_fillable = index == 0 && mount_tmpfs(&dir.join("disk"));
        Ok(Node {
            index,
            short_id: String::new(),
            place: Place::new(options, index)?,
            is_fillable,
            dir,
            program: options.program.clone(),
            port: options.base_port,
            secret: secret.to_string(),
            child: None,
            has_copy: false,
        })
    }

    fn meta(&self) -> PathBuf {
        self.dir.join("disk/meta")
    }

    fn blocks(&self) -> PathBuf {
        self.dir.join("disk/blocks")
    }

    fn config(&self) -> String {
        let (ip, public, port, secret) = (self.place.ip, self.place.public, self.port, &self.secret);
        let (meta, blocks, snapshots) = (self.meta(), self.blocks(), self.dir.join("snapshots"));
        format!(
            "metadata_dir = {meta:?}\ndata_dir = {blocks:?}\nmetadata_snapshots_dir = {snapshots:?}\nreplication_factor = 3\n\
             rpc_secret = \"{secret}\"\nrpc_bind_addr = \"{ip}:{port}\"\nrpc_public_addr = \"{public}\"\nrpc_bind_outgoing = true\n\
             [s3_api]\napi_bind_addr = \"{ip}:{}\"\ns3_region = \"garage\"\n",
            port + 1
        )
    }

    fn command(&self) -> Command {
        let mut command = self.place.command(&self.program);
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

    /// Whether its process was started and has not been ended by this run.
    pub(super) fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// How it ended, if it did so without being told to.
    pub(super) fn has_died(&mut self) -> Option<Failure> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        Some(Failure(format!("node {} ended by itself ({status}); see {}", self.index, self.log_file().display())))
    }

    /// Sends our own child a signal.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child
            && let Err(error) = kill(Pid::from_raw(child.id().cast_signed()), signal)
        {
            eprintln!("chaos: node {} could not be signalled: {error}", self.index);
        }
    }

    /// Sends a signal that ends the process, and waits for its end.
    pub(super) async fn end(&mut self, signal: Signal) -> Result<(), Failure> {
        self.signal(signal);
        let Some(child) = &mut self.child else { return Ok(()) };
        let deadline = Instant::now() + PATIENCE;
        while let Ok(None) = child.try_wait() {
            if deadline < Instant::now() {
                return Err(Failure(format!("node {} goes on {PATIENCE:?} after {signal}", self.index)));
            }
            sleep(Duration::from_millis(50)).await;
        }
        self.child = None;
        Ok(())
    }

    /// Copies the metadata of a node that does not run, for [`Self::set_back`].
    pub(super) fn keep_copy(&mut self) -> Result<(), Failure> {
        let copy = self.dir.join("meta.old");
        remove_if_there(&copy)?;
        copy_dir(&self.meta(), &copy)?;
        self.has_copy = true;
        Ok(())
    }

    /// Puts an old state in the place of its metadata: a copy of the directory, or else the oldest snapshot. False: there is none.
    pub(super) fn set_back(&mut self) -> Result<bool, Failure> {
        let mut snapshots: Vec<PathBuf> =
            fs::read_dir(self.dir.join("snapshots")).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
        snapshots.sort();
        let (from, to) = match (self.has_copy, snapshots.first()) {
            (true, _) => (self.dir.join("meta.old"), self.meta()),
            (false, Some(snapshot)) => (snapshot.clone(), self.meta().join("db.fjall")),
            (false, None) => return Ok(false),
        };
        remove_if_there(&to)?;
        copy_dir(&from, &to)?;
        Ok(true)
    }

    /// Deletes all metadata but the node's key.
    pub(super) fn lose_metadata(&self) -> Result<(), Failure> {
        for entry in fs::read_dir(self.meta())? {
            let path = entry?.path();
            let is_key = path.file_name().is_some_and(|name| name == "node_key" || name == "node_key.pub");
            if !is_key {
                remove_if_there(&path)?;
            }
        }
        Ok(())
    }

    /// Deletes all block files, and what remembers that there were some, as an operator does who replaces a disk. Which blocks those were.
    pub(super) fn lose_data(&self) -> Result<BTreeSet<String>, Failure> {
        let lost = self.block_files();
        fs::remove_dir_all(self.blocks())?;
        remove_if_there(&self.meta().join("data_layout"))?;
        Ok(lost)
    }

    /// Names of the blocks that it has, however they are compressed.
    pub(super) fn block_files(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut dirs = vec![self.blocks()];
        while let Some(dir) = dirs.pop() {
            // What goes away while it is looked at is not there.
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => dirs.push(entry.path()),
                    Ok(_) => {
                        let hash = name.split('.').next().unwrap_or_default();
                        if hash.len() == 64 && !name.contains("tmp") && !name.contains("corrupted") {
                            found.insert(hash.to_string());
                        }
                    }
                    Err(_) => {}
                }
            }
        }
        found
    }

    /// Fills its file system, or makes room again.
    pub(super) async fn fill(&self, full: bool) -> Result<(), Failure> {
        let filler = self.dir.join("disk/filler");
        if !full {
            return Ok(fs::remove_file(filler)?);
        }
        let write = move || -> std::io::Result<()> {
            let mut file = File::create(filler)?;
            for piece_bytes in [1 << 20, 4_096] {
                // Until there is no room for another piece.
                while file.write_all(&vec![0; piece_bytes]).is_ok() {}
            }
            Ok(())
        };
        Ok(tokio::task::spawn_blocking(write).await??)
    }

    pub(super) fn s3_endpoint(&self) -> String {
        format!("http://{}:{}", self.place.ip, self.port + 1)
    }

    pub(super) async fn cli(&self, arguments: &[&str]) -> Result<String, Failure> {
        let failure = |what: &str| Failure(format!("garage {} on node {}: {what}", arguments.join(" "), self.index));
        let mut child = self.command().args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let deadline = Instant::now() + COMMAND_TIME_MAX;
        // What these commands print fits in a pipe.
        while child.try_wait()?.is_none() {
            if deadline < Instant::now() {
                child.kill()?;
                child.wait()?;
                return Err(failure(&format!("no end after {COMMAND_TIME_MAX:?}")));
            }
            sleep(Duration::from_millis(20)).await;
        }
        let output = child.wait_with_output()?;
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(failure(text(&output.stderr).trim())) }
    }

    /// The command, again and again until it succeeds.
    pub(super) async fn cli_patiently(&self, arguments: &[&str]) -> Result<String, Failure> {
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
            let _ = Command::new("umount").arg("-l").arg(self.dir.join("disk")).status();
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn remove_if_there(path: &Path) -> Result<(), Failure> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => Ok(removed?),
    }
}

fn copy_dir(from: &Path, to: &Path) -> Result<(), Failure> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// A file system in memory at `path`; false where this may not be done.
fn mount_tmpfs(path: &Path) -> bool {
    let size = format!("size={TMPFS_MIB}m");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path).stderr(Stdio::null()).status();
    mounted.is_ok_and(|status| status.success())
}

impl Cluster {
    pub(super) async fn start(options: &Options) -> Result<Cluster, Failure> {
        if options.namespaces {
            network::prepare()?;
        }
        let secret: String =
            (0..8).map(|word| format!("{:08x}", (options.seed as u32).wrapping_mul(2_654_435_761).wrapping_add(word))).collect();
        let mut nodes = (0..options.nodes_count).map(|index| Node::new(options, index, &secret)).collect::<Result<Vec<_>, _>>()?;
        for node in &mut nodes {
            node.start().await?;
            node.short_id = node.cli(&["node", "id", "-q"]).await?.chars().take(16).collect();
        }
        for node in &nodes[1..] {
            let id = node.cli(&["node", "id", "-q"]).await?;
            nodes[0].cli_patiently(&["node", "connect", id.trim()]).await?;
        }
        for node in &nodes {
            let zone = format!("zone{}", node.index);
            nodes[0].cli_patiently(&["layout", "assign", &node.short_id, "-z", &zone, "-c", "10G"]).await?;
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
        let members = Members(Arc::new(Mutex::new((0..nodes.len()).collect())));
        Ok(Cluster { members, nodes, credentials })
    }

    /// Takes a node out of the layout, or back in, or changes its capacity where no node can be spared; and applies that through another node.
    pub(super) async fn change_layout(&self, index: usize) -> Result<(), Failure> {
        let asked = (1..self.nodes.len()).map(|step| (index + step) % self.nodes.len()).find(|asked| self.nodes[*asked].runs());
        let asked = &self.nodes[asked.ok_or_else(|| Failure("no node runs that could be asked for a layout".into()))?];
        let id = &self.nodes[index].short_id;
        let version = current_version(&asked.cli_patiently(&["layout", "history"]).await?)?;
        let members = self.members.all();
        let leaves = members.contains(&index) && 3 < members.len();
        if leaves {
            // Its clients are sent elsewhere first.
            self.members.0.lock().remove(&index);
            asked.cli_patiently(&["layout", "remove", id]).await?;
        } else {
            let (zone, capacity) = (format!("zone{index}"), format!("{}G", 8 + version % 5));
            asked.cli_patiently(&["layout", "assign", id, "-z", &zone, "-c", &capacity]).await?;
        }
        let next = version + 1;
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = asked.cli(&["layout", "apply", "--version", &next.to_string()]).await {
            // It may have come about without the command having been told.
            let said = asked.cli(&["layout", "history"]).await;
            if said.is_ok_and(|said| current_version(&said).is_ok_and(|version| version == next)) {
                break;
            }
            if deadline < Instant::now() {
                return Err(error);
            }
            sleep(Duration::from_millis(500)).await;
        }
        if !leaves {
            self.members.0.lock().insert(index);
        }
        Ok(())
    }

    pub(super) async fn stop(&mut self) -> Result<(), Failure> {
        for node in &mut self.nodes {
            node.end(Signal::SIGTERM).await?;
        }
        Ok(())
    }
}

/// The number of the current version in what `garage layout history` says.
fn current_version(said: &str) -> Result<u64, Failure> {
    let line = said.lines().find(|line| line.split_whitespace().nth(1) == Some("Current"));
    let version = line.and_then(|line| line.trim_start().strip_prefix('#')?.split_whitespace().next()?.parse().ok());
    version.ok_or_else(|| Failure(format!("no current version in {said}")))
}
