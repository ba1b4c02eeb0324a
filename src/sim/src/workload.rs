//! A whole history: a cluster, clients, faults, and the verdict.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    check::violations,
    client::{Client, Habit, World},
    cluster::{Cluster, ClusterOptions},
    content::Contents,
    faults::{Faults, torment},
    history::{History, Recorded},
    operator::Operator,
};

/// What a history is like.
#[derive(Clone, Copy, Debug)]
pub struct WorkloadOptions {
    /// Clients at once.
    pub clients_count: usize,
    /// Requests of each.
    pub requests_count: usize,
    /// What they do.
    pub habit: Habit,
    /// What goes wrong meanwhile.
    pub faults: Faults,
    /// Whether an operator changes the layout meanwhile, over and over.
    pub changes_layout: bool,
    /// All nodes crash at once at the end, in the middle of requests.
    pub ends_in_darkness: bool,
    /// Whether to record the trace.
    pub traced: bool,
}

impl WorkloadOptions {
    /// What a seed's history is like: most seeds keep quorums, some lose them, one in eight is without faults.
    pub fn of_seed(seed: u64) -> WorkloadOptions {
        let faults = match seed % 8 {
            0 => Faults::None,
            1..6 => Faults::OneNode,
            _ => Faults::Any,
        };
        let habit = if seed % 5 < 2 { Habit::Rivalry } else { Habit::Various };
        WorkloadOptions {
            clients_count: 6,
            requests_count: 30,
            habit,
            faults,
            changes_layout: false,
            ends_in_darkness: seed.is_multiple_of(3),
            traced: false,
        }
    }
}

/// What became of a history.
pub struct Report {
    /// What was asked and answered.
    pub recorded: Recorded,
    /// What was wrong; empty: nothing.
    pub violations: Vec<String>,
    /// The trace, if recorded.
    pub trace: Vec<String>,
}

/// Keys that share prefixes, fold under delimiters, and are not all ASCII.
const KEYS: [&str; 8] = ["a", "a/1", "a/2/x", "a/2/y", "b/1", "b/2", "c", "ü/ß"];
/// Nodes that an operator who changes the layout has besides the three.
const SPARE_COUNT: usize = 3;
/// How long nodes have to find each other again once everything is mended.
const SETTLING: Duration = Duration::from_secs(30);

/// One seed in so many goes on for hours of virtual time, until its blocks have settled.
const BLOCKS_CHECKED_EVERY: u64 = 60;
/// The longest that may take: leases, questions that nobody could answer at first, the delay of deletions.
const BLOCKS_SETTLED_AFTER: Duration = Duration::from_secs(5 * 3600);
const BLOCKS_CHECK_PAUSE: Duration = Duration::from_secs(600);

/// Runs the history of a seed.
pub fn run_history(seed: u64, options: WorkloadOptions) -> Report {
    crate::run(history(seed, options))
}

async fn history(seed: u64, options: WorkloadOptions) -> Report {
    let spare_count = if options.changes_layout { SPARE_COUNT } else { 0 };
    let mut cluster = Cluster::start(seed, ClusterOptions { spare_count, ..ClusterOptions::rough() }).await;
    let trace = cluster.trace().clone();
    if options.traced {
        trace.record();
    }
    let world = World {
        nodes: cluster.nodes(),
        bucket: cluster.make_bucket(0, "history").await,
        keys: Arc::new(KEYS.map(String::from).to_vec()),
        contents: Contents::default(),
        history: History::new(trace.clone()),
    };
    live(&mut cluster, &world, options).await;
    if options.ends_in_darkness {
        (0..cluster.count()).for_each(|node| cluster.crash(node));
        for node in 0..cluster.count() {
            cluster.restart(node).await;
        }
    }
    sleep(SETTLING).await;
    if options.changes_layout {
        cluster.await_moved().await;
    }
    let mut violations = read_all_everywhere(&world).await;
    violations.extend(check_replicas(&cluster, &world).await);
    cluster.await_identical().await;
    if seed.is_multiple_of(BLOCKS_CHECKED_EVERY) {
        violations.extend(await_good_blocks(&cluster, &world).await);
    }
    let recorded = world.history.recorded();
    violations.extend(self::violations(&recorded, &world.keys));
    Report { recorded, violations, trace: trace.lines() }
}

/// Once leases and delays have passed: every block of every live version is on each of its holders, and nothing else is anywhere.
async fn await_good_blocks(cluster: &Cluster, world: &World) -> Vec<String> {
    let deadline = Instant::now() + BLOCKS_SETTLED_AFTER;
    loop {
        let wrong = crate::blocks::check(cluster, &world.bucket, &world.keys).await;
        if wrong.is_empty() || deadline < Instant::now() {
            return wrong;
        }
        sleep(BLOCKS_CHECK_PAUSE).await;
    }
}

/// After how long the lights go out, if they do: before the clients are done.
fn lifetime(options: WorkloadOptions) -> Duration {
    let per_request = if options.habit == Habit::Rivalry { Duration::from_millis(60) } else { Duration::from_millis(250) };
    per_request * options.requests_count as u32
}

/// Clients and faults side by side; ends with everything mended.
async fn live(cluster: &mut Cluster, world: &World, options: WorkloadOptions) {
    let over = CancellationToken::new();
    let torment_seed = cluster.fork_seed(50);
    let clients = (0..options.clients_count).map(|number| {
        let client = Client { world: world.clone(), seed: cluster.fork_seed(100 + number as u64), habit: options.habit, known: None };
        client.run(options.requests_count)
    });
    let clients = futures::future::join_all(clients.collect::<Vec<_>>());
    let working = async {
        // In darkness the clients' last requests are cut off where they stand.
        if options.ends_in_darkness {
            let _ = tokio::time::timeout(lifetime(options), clients).await;
        } else {
            clients.await;
        }
        over.cancel();
    };
    let operator = Operator { world: world.clone(), seed: cluster.fork_seed(60), zone_count: cluster.options().zone_count };
    let ids = (0..cluster.count()).map(|index| cluster.id(index)).collect();
    let changing = async {
        if options.changes_layout {
            operator.run(ids, over.clone()).await;
        }
    };
    let tormenting = torment(cluster, torment_seed, options.faults, lifetime(options) / 3, over.clone());
    futures::future::join3(working, tormenting, changing).await;
}

/// Once everything is up: every key has one value and its whole content, through whichever node.
async fn read_all_everywhere(world: &World) -> Vec<String> {
    // What reached one replica alone, of writes that nobody was answered, shows when that replica is first asked: so everyone asks twice.
    let members = world.nodes.members();
    for (key, node) in (0..world.keys.len()).flat_map(|key| members.iter().map(move |node| (key, *node))) {
        world.read(node, key, false).await;
    }
    let mut wrong = Vec::new();
    for (key, name) in world.keys.iter().enumerate() {
        let mut values = Vec::new();
        for node in members.iter().copied() {
            match world.read(node, key, false).await {
                None => wrong.push(format!("{name:?} can't be read through node {node}, with all nodes up")),
                Some((value, found)) => {
                    values.push(value);
                    let Some(found) = found else { continue };
                    if !world.check_content(node, name, value, &found).await {
                        wrong.push(format!("the content of {name:?} (write {value}) can't be read through node {node}, with all nodes up"));
                    }
                }
            }
        }
        if values.windows(2).any(|pair| pair[0] != pair[1]) {
            wrong.push(format!("{name:?} has other contents through other nodes, with all nodes up: {values:?}"));
        }
    }
    wrong
}

/// What hooks derived from rows is what the rows say, at each replica.
async fn check_replicas(cluster: &Cluster, world: &World) -> Vec<String> {
    let mut wrong = Vec::new();
    for node in 0..cluster.count() {
        let held = garage_table::sync::held_partitions(&cluster.node(node).cluster.layout(), cluster.id(node));
        let groups: Vec<_> = world.bucket.groups().filter(|group| held.contains(&group.hash()[0])).collect();
        let checked = cluster
            .node(node)
            .db
            .read(move |snapshot| groups.iter().filter_map(|group| crate::replica::check(snapshot, group).err()).collect::<Vec<String>>());
        match checked.await {
            Ok(found) => wrong.extend(found.into_iter().map(|text| format!("node {node}: {text}"))),
            Err(error) => wrong.push(format!("node {node}: its store can't be read: {error}")),
        }
    }
    wrong
}
