//! The first command of the README, and what else a start and a stop promise.

use std::{
    net::{TcpListener, UdpSocket},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use garage_testkit::load::Credentials;
use http::Method;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    self,
    client::S3,
    cluster::{BUCKET, rpc_secret, single},
    process::{Node, Settings, garage, run},
    wait::until,
    wire,
};

/// A stop takes no longer, with nothing under way.
const STOP_WITHIN: Duration = Duration::from_secs(8);
/// An idle fresh node has no more resident memory.
const IDLE_RESIDENT_MAX_BYTES: u64 = 60 << 20;
/// Set in the process that has a network of its own.
const INSIDE: &str = "TEST_IN_OWN_NETWORK";

/// Runs the named test of this program again in a network namespace of its own: the quick start listens on fixed ports.
async fn in_own_network(test: &str) {
    let mut command = Command::new("unshare");
    command.args(["-rn", "sh", "-c", "ip link set lo up && exec \"$0\" --exact \"$1\" --nocapture"]);
    command.arg(std::env::current_exe().unwrap()).arg(test).env(INSIDE, "1");
    let said = run(command).await;
    assert!(said.code == Some(0) && said.stdout.contains("1 passed"), "{}\n{}", said.stdout, said.stderr);
}

struct QuickStart(Child);

impl QuickStart {
    fn spawn(dir: &Path, arguments: &[&str]) -> QuickStart {
        let output = |name| std::fs::File::create(dir.join(name)).unwrap();
        let mut command = garage(dir);
        command.args(["server", "--single-node"]).args(arguments).stdout(output("out")).stderr(output("err"));
        QuickStart(command.spawn().unwrap())
    }

    async fn printed(&mut self, dir: &Path) -> String {
        until("the quick start to print what to do", async || {
            assert!(self.0.try_wait().unwrap().is_none(), "{}", std::fs::read_to_string(dir.join("err")).unwrap());
            let printed = std::fs::read_to_string(dir.join("out")).unwrap();
            printed.contains("aws ").then_some(printed)
        })
        .await
    }

    async fn stop(mut self) {
        kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGINT).unwrap();
        let status = until("the quick start to end", async || self.0.try_wait().unwrap()).await;
        assert_eq!(status.code(), Some(0));
    }
}

impl Drop for QuickStart {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn field(printed: &str, name: &str) -> String {
    let line = printed.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("{name} in {printed}")).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quick_start_needs_no_file_and_a_second_one_reuses_what_the_first_made() {
    if std::env::var_os(INSIDE).is_none() {
        let _turn = support::turn().await;
        return in_own_network("quick_start::the_quick_start_needs_no_file_and_a_second_one_reuses_what_the_first_made").await;
    }
    let dir = TempDir::new().unwrap();
    let mut first = QuickStart::spawn(dir.path(), &[]);
    let printed = first.printed(dir.path()).await;
    let endpoint = field(&printed, "Endpoint:");
    let credentials = Credentials {
        access_key_id: field(&printed, "Key ID:"),
        secret: field(&printed, "Secret key:"),
        region: field(&printed, "Region:"),
    };
    let bucket = field(&printed, "Bucket:");
    let progress = std::fs::read_to_string(dir.path().join("err")).unwrap();
    assert!(progress.contains("opens its metadata in ./garage-data"), "a start says what it opens: {progress}");
    assert!(printed.contains(&format!("aws --endpoint-url {endpoint} s3 cp README.md s3://{bucket}/")), "{printed}");
    let s3 = S3::new(endpoint.strip_prefix("http://").unwrap().parse().unwrap(), credentials);
    s3.put(&format!("/{bucket}/README.md"), "hello").await.ok();
    let mut status = garage(dir.path());
    status.arg("status");
    assert!(run(status).await.ok().contains("HEALTHY NODES"), "commands find the node without a file, too");
    first.stop().await;
    let log = std::fs::read_to_string(dir.path().join("err")).unwrap();
    assert!(!log.contains(" WARN ") && !log.contains("connection lost"), "nothing is amiss with a first start and a command: {log}");

    let mut second = QuickStart::spawn(dir.path(), &[]);
    assert_eq!(second.printed(dir.path()).await, printed, "the same key and bucket, nothing new");
    assert_eq!(s3.get(&format!("/{bucket}/README.md")).await.ok().text(), "hello");
    second.stop().await;

    let mut third = QuickStart::spawn(dir.path(), &["--default-bucket", "photos"]);
    assert_eq!(third.printed(dir.path()).await, printed.replace(&bucket, "photos"), "the same key, another bucket");
    s3.put("/photos/README.md", "hello").await.ok();
    assert_eq!(s3.get(&format!("/{bucket}/README.md")).await.ok().text(), "hello");
    third.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_have_the_level_and_the_form_that_the_environment_asks_for() {
    let _turn = support::turn().await;
    let dir = TempDir::new().unwrap();
    let (mut node, _) = single(Settings::new(dir.path(), &rpc_secret()), dir.path().to_owned());
    let variables = node.variables.clone();
    let logged = async |node: &mut Node, more: &[(&'static str, &str)]| {
        node.variables = variables.clone();
        node.variables.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        node.start().await;
        node.stop().await;
        node.log_of_this_run()
    };
    assert!(!logged(&mut node, &[]).await.contains("DEBUG"));
    assert!(logged(&mut node, &[("RUST_LOG", "debug")]).await.contains("DEBUG"));
    let json = logged(&mut node, &[("RUST_LOG", "debug"), ("GARAGE_LOG_FORMAT", "JSON")]).await;
    let levels: Vec<_> = json.lines().filter(|line| line.starts_with('{')).map(|line| line.contains("\"level\":\"DEBUG\"")).collect();
    assert!(levels.contains(&true) && !json.contains(" DEBUG "), "{json}");
    for (name, value) in [("GARAGE_LOG_TO_SYSLOG", "1"), ("RUST_LOG", "garage=loud")] {
        node.variables = [variables.clone(), vec![(name, value.to_owned())]].concat();
        assert!(start_fails(&mut node).await.contains(name));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_finishes_the_request_under_way_and_ends_soon() {
    let _turn = support::turn_alone().await;
    let dir = TempDir::new().unwrap();
    let (mut node, credentials) = single(Settings::new(dir.path(), &rpc_secret()), dir.path().to_owned());
    node.start().await;
    let s3 = S3::new(node.s3_address(), credentials);
    let size = 300_000;
    let request = s3.signed(Method::PUT, &format!("/{BUCKET}/slow"), &[("content-length", &size.to_string())], "UNSIGNED-PAYLOAD");
    let mut stream = TcpStream::connect(node.s3_address()).await.unwrap();
    stream.write_all(&wire::head(&request, &[("expect", "100-continue")])).await.unwrap();
    let mut begun = [0; 12];
    stream.read_exact(&mut begun).await.unwrap();
    assert_eq!(&begun, b"HTTP/1.1 100", "the request is under way");

    node.signal(Signal::SIGTERM);
    until("the node to stop taking connections", async || TcpStream::connect(node.s3_address()).await.err().map(drop)).await;
    stream.write_all(&vec![7; size]).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(String::from_utf8_lossy(&answer).contains("HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    let (status, took) = node.ended().await;
    assert_eq!(status.code(), Some(0), "{}", node.log_tail());
    assert!(took < STOP_WITHIN, "the stop took {took:?}");

    node.start().await;
    assert_eq!(s3.get(&format!("/{BUCKET}/slow")).await.ok().body, vec![7; size]);
    let started = Instant::now();
    node.stop().await;
    assert!(started.elapsed() < STOP_WITHIN, "the stop took {:?}", started.elapsed());
}

/// Starts a node that must not start; what it says.
async fn start_fails(node: &mut Node) -> String {
    node.spawn();
    let (status, _) = node.ended().await;
    let log = node.log_of_this_run();
    assert_eq!(status.code(), Some(1), "{log}");
    let error = log.lines().find(|line| line.starts_with("Error: "));
    error.unwrap_or_else(|| panic!("an error in {log}")).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_the_reason_not_to_start() {
    let _turn = support::turn().await;
    let dir = TempDir::new().unwrap();
    let (mut node, _) = single(Settings::new(dir.path(), &rpc_secret()), dir.path().to_owned());
    let (http, rpc) = (node.settings.s3_port, node.settings.rpc_port);

    let taken = TcpListener::bind(("127.0.0.1", http)).unwrap();
    let error = start_fails(&mut node).await;
    assert!(error.contains("s3_api.api_bind_addr") && error.contains(&http.to_string()) && error.contains("another program"), "{error}");
    drop(taken);

    let taken = UdpSocket::bind(("127.0.0.1", rpc)).unwrap();
    let error = start_fails(&mut node).await;
    assert!(error.contains("rpc_bind_addr") && error.contains(&rpc.to_string()) && error.contains("in use"), "{error}");
    drop(taken);

    // Neither left anything behind that a good start would stumble over.
    node.start().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_in_the_file_is_named_with_key_and_line() {
    let _turn = support::turn().await;
    let dir = TempDir::new().unwrap();
    for (line, expected) in [
        ("blok_size = 1", ["line 7", "blok_size", "block_size"]),
        ("compression_level = \"fast\"", ["line 7", "compression_level", "-99 to 22"]),
        ("db_engine = \"lmdb\"", ["line 7", "db_engine", "fjall"]),
        ("rpc_timeout_msec = 0", ["line 7", "rpc_timeout_msec", "at least 1"]),
    ] {
        let settings = Settings { more: line.to_owned(), ..Settings::new(dir.path(), &rpc_secret()) };
        let mut node = Node::new(dir.path().to_owned(), settings);
        let error = start_fails(&mut node).await;
        assert!(error.contains("garage.toml") && expected.iter().all(|text| error.contains(text)), "{line}: {error}");
    }
    let short = Settings { rpc_secret: "abcd".into(), ..Settings::new(dir.path(), "") };
    let error = start_fails(&mut Node::new(dir.path().to_owned(), short)).await;
    assert!(error.contains("rpc_secret") && error.contains("64 hex digits") && !error.contains("abcd"), "{error}");
    let mut missing = garage(dir.path());
    missing.args(["-c", "nowhere.toml", "server"]).stdout(Stdio::null());
    let error = run(missing).await.refused();
    assert!(error.contains("nowhere.toml"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_fresh_node_keeps_under_60_mib() {
    let _turn = support::turn().await;
    let dir = TempDir::new().unwrap();
    let (mut node, credentials) = single(Settings::new(dir.path(), &rpc_secret()), dir.path().to_owned());
    node.start().await;
    let s3 = S3::new(node.s3_address(), credentials);
    assert_eq!(s3.get(&format!("/{BUCKET}?list-type=2")).await.ok().status, 200);
    let resident = node.resident_bytes();
    eprintln!("an idle node has {} MiB resident", resident >> 20);
    assert!(resident < IDLE_RESIDENT_MAX_BYTES, "{resident} bytes");
    node.stop().await;
}
