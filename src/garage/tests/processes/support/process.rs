//! One `garage server` process with its directory, its configuration and its log; and commands beside it.

use std::{
    fs::File,
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    ports,
    wait::{PATIENCE, until},
};

/// Lines of a log that a failed test shows.
const LOG_TAIL_LINES: usize = 25;

/// The `garage` program with none of this shell's settings.
pub fn garage(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_garage"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("GARAGE_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command.env("NO_COLOR", "1").current_dir(dir).stdin(Stdio::null());
    command
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    /// Its standard output; fails unless it succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }
    /// Its standard error; fails unless it failed as a command may: exit 1.
    #[track_caller]
    pub fn refused(self) -> String {
        assert_eq!(self.code, Some(1), "{self:?}");
        self.stderr
    }
}

/// Runs a command to its end.
pub async fn run(mut command: Command) -> Said {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let pid = Pid::from_raw(child.id().cast_signed());
    let output = tokio::task::spawn_blocking(move || child.wait_with_output());
    let Ok(output) = tokio::time::timeout(PATIENCE, output).await else {
        let _ = kill(pid, Signal::SIGKILL);
        panic!("{command:?} does not end");
    };
    let output = output.unwrap().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Said { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// What differs between nodes.
#[derive(Clone, Debug)]
pub struct Settings {
    pub rpc_port: u16,
    pub s3_port: u16,
    pub rpc_secret: String,
    pub replication_factor: usize,
    pub metadata_dir: PathBuf,
    pub data_dir: PathBuf,
    /// More top-level lines.
    pub more: String,
}

impl Settings {
    /// Those of a node that keeps everything in `dir`.
    pub fn new(dir: &Path, rpc_secret: &str) -> Settings {
        Settings {
            rpc_port: ports::free(),
            s3_port: ports::free(),
            rpc_secret: rpc_secret.to_owned(),
            replication_factor: 3,
            metadata_dir: dir.join("meta"),
            data_dir: dir.join("data"),
            more: String::new(),
        }
    }

    fn text(&self) -> String {
        let Settings { rpc_port, s3_port, rpc_secret, replication_factor, metadata_dir, data_dir, more } = self;
        format!(
            "metadata_dir = {metadata_dir:?}\ndata_dir = {data_dir:?}\nreplication_factor = {replication_factor}\n\
             rpc_secret = \"{rpc_secret}\"\nrpc_bind_addr = \"127.0.0.1:{rpc_port}\"\nrpc_public_addr = \"127.0.0.1:{rpc_port}\"\n{more}\n\
             [s3_api]\napi_bind_addr = \"127.0.0.1:{s3_port}\"\ns3_region = \"garage\"\n"
        )
    }
}

/// A node: a directory, a configuration, and a process while it runs. The process ends with this value.
pub struct Node {
    pub dir: PathBuf,
    pub settings: Settings,
    /// Arguments after `server`.
    pub arguments: Vec<String>,
    /// Environment variables of the process.
    pub variables: Vec<(&'static str, String)>,
    child: Option<Child>,
}

impl Node {
    /// A node in `dir`, not started.
    pub fn new(dir: PathBuf, settings: Settings) -> Node {
        std::fs::create_dir_all(&dir).unwrap();
        Node { dir, settings, arguments: Vec::new(), variables: Vec::new(), child: None }
    }

    pub fn config_file(&self) -> PathBuf {
        self.dir.join("garage.toml")
    }

    pub fn s3_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.settings.s3_port))
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the node runs").id()
    }

    /// Starts the process; says nothing about when it is ready.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "the node runs already");
        std::fs::write(self.config_file(), self.settings.text()).unwrap();
        let mut log = File::options().create(true).append(true).open(self.log_file()).unwrap();
        writeln!(log, "==== start").unwrap();
        let mut command = garage(&self.dir);
        command.arg("-c").arg(self.config_file()).arg("server").args(&self.arguments);
        command.envs(self.variables.iter().cloned());
        self.child = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().expect("the program starts"));
    }

    /// Starts the process and waits until it serves.
    pub async fn start(&mut self) {
        self.spawn();
        self.await_ready().await;
    }

    /// Waits until the node says that it is ready; fails if it ends before.
    pub async fn await_ready(&mut self) {
        let mut child = self.child.take().expect("the node was started");
        until("the node to be ready", async || {
            assert!(child.try_wait().unwrap().is_none(), "the node ended:\n{}", self.log_tail());
            self.log_of_this_run().contains("garage: ready").then_some(())
        })
        .await;
        self.child = Some(child);
    }

    fn log_file(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// All it said since its last start.
    pub fn log_of_this_run(&self) -> String {
        let log = std::fs::read(self.log_file()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        log.rsplit("==== start\n").next().unwrap_or_default().to_owned()
    }

    pub fn log_tail(&self) -> String {
        let log = self.log_of_this_run();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid().cast_signed()), signal).expect("the process is ours and not reaped yet");
    }

    /// Waits for the end of the process; how it ended, and how long that took.
    pub async fn ended(&mut self) -> (ExitStatus, Duration) {
        let started = Instant::now();
        let mut child = self.child.take().expect("the node was started");
        let status = until("the process to end", async || child.try_wait().unwrap()).await;
        (status, started.elapsed())
    }

    /// Ends the process as an operator does; fails unless it ends well.
    pub async fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        let (status, _) = self.ended().await;
        assert_eq!(status.code(), Some(0), "{}", self.log_tail());
    }

    /// Ends the process at once, as a crash does.
    pub async fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.ended().await;
    }

    /// A command against this node.
    pub async fn command(&self, arguments: &[&str]) -> Said {
        let mut command = garage(&self.dir);
        command.arg("-c").arg(self.config_file()).args(arguments);
        run(command).await
    }

    /// A command against this node that must succeed; its standard output.
    pub async fn cli(&self, arguments: &[&str]) -> String {
        let said = self.command(arguments).await;
        assert_eq!(said.code, Some(0), "garage {arguments:?}: {said:?}\n{}", self.log_tail());
        said.stdout
    }

    /// `<id>@<address>`, as other nodes are told.
    pub async fn full_id(&self) -> String {
        self.cli(&["node", "id", "-q"]).await.trim().to_owned()
    }

    /// Resident memory now, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        memory_line(self.pid(), "VmRSS:")
    }

    /// The most memory that was ever resident, in bytes.
    pub fn resident_peak_bytes(&self) -> u64 {
        memory_line(self.pid(), "VmHWM:")
    }
}

fn memory_line(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("Linux tells of a process that runs");
    let line = status.lines().find(|line| line.starts_with(name)).expect("every process has this line");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number of KiB");
    kib * 1024
}

impl Drop for Node {
    fn drop(&mut self) {
        let Some(child) = &mut self.child else { return };
        // Only our own child, by its handle; a test that failed shows why.
        if child.kill().is_ok() {
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("---- the end of the log of {}:\n{}", self.dir.display(), self.log_tail());
        }
    }
}
