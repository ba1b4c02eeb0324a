//! Clients that write, overwrite, read, list and delete through all nodes, each on keys of its own, and note what they were told.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use http::{StatusCode, Uri};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::task::JoinHandle;

use super::{
    Options,
    nodes::{BUCKET, Cluster},
    report::Report,
};
use crate::load::{Client, Content, RequestError};

/// What one key may hold: an object of this number and size, or nothing.
type Value = Option<(u64, usize)>;

/// Keys of one client.
const KEYS_COUNT: u64 = 40;
/// Sizes of objects: inline, one block, several blocks.
const SIZES_BYTES: [usize; 4] = [700, 9_000, 300_000, 2_500_000];
const REQUEST_TIME_MAX: Duration = Duration::from_secs(60);
/// Tries of a read at the end, before an object counts as lost.
const READ_BACK_TRIES: usize = 5;

/// Clients at work.
pub(super) struct Load {
    over: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Report>>,
}

fn client_of(cluster: &Cluster, indexes: impl IntoIterator<Item = usize>) -> Client {
    let endpoint = |index: usize| cluster.nodes[index].s3_endpoint().parse::<Uri>().expect("a port on loopback is a good address");
    let endpoints = indexes.into_iter().map(endpoint).collect();
    Client::new(endpoints, BUCKET.to_string(), cluster.credentials.clone(), true, REQUEST_TIME_MAX)
}

impl Load {
    pub(super) fn start(cluster: &Cluster, options: &Options) -> Load {
        let over = Arc::new(AtomicBool::new(false));
        let clients = (0..options.clients_count).map(|number| {
            let worker = Worker {
                number,
                client: client_of(cluster, 0..cluster.nodes.len()),
                rng: ChaCha8Rng::seed_from_u64(options.seed ^ (number as u64 + 1) << 32),
                over: over.clone(),
                report: Report::default(),
                state: BTreeMap::new(),
                written_count: 0,
            };
            tokio::spawn(worker.run())
        });
        Load { clients: clients.collect(), over }
    }

    /// Lets them end; what they saw.
    pub(super) async fn finish(self) -> Report {
        self.over.store(true, Ordering::SeqCst);
        let mut report = Report::default();
        for client in self.clients {
            match client.await {
                Ok(seen) => report.add(seen),
                Err(error) => report.lost.push(format!("a client of the test failed: {error}")),
            }
        }
        report
    }
}

struct Worker {
    number: usize,
    client: Client,
    rng: ChaCha8Rng,
    over: Arc<AtomicBool>,
    report: Report,
    /// What each key may hold: one value, or several after a write whose outcome was not told.
    state: BTreeMap<String, Vec<Value>>,
    written_count: u64,
}

impl Worker {
    async fn run(mut self) -> Report {
        let mut turn = self.number as u64;
        while !self.over.load(Ordering::SeqCst) {
            turn += 1 + self.rng.random_range(0..7);
            let key = format!("{}/{}", self.number, self.rng.random_range(0..KEYS_COUNT));
            match self.rng.random_range(0..10) {
                0..5 => self.put(turn, key).await,
                5..8 => self.get(turn, key).await,
                8 => self.delete(turn, key).await,
                _ => self.list(turn).await,
            }
        }
        self.report.expected = self.state;
        self.report
    }

    async fn put(&mut self, turn: u64, key: String) {
        let size_bytes = SIZES_BYTES[self.rng.random_range(0..SIZES_BYTES.len())];
        self.written_count += 1;
        let index = (self.number as u64) << 32 | self.written_count;
        let begun = Instant::now();
        let put = self.client.put(turn, &key, Content::new(size_bytes).object(index)).await;
        self.note_write("put", key, Some((index, size_bytes)), put, begun);
    }

    async fn delete(&mut self, turn: u64, key: String) {
        let begun = Instant::now();
        let deleted = self.client.delete(turn, &key).await;
        self.note_write("delete", key, None, deleted, begun);
    }

    fn note_write(&mut self, kind: &'static str, key: String, value: Value, outcome: Result<(), RequestError>, begun: Instant) {
        let held = self.state.entry(key).or_insert_with(|| vec![None]);
        match outcome {
            Ok(()) => {
                *held = vec![value];
                self.report.note_answer(kind, begun.elapsed());
            }
            Err(error) => {
                // It may take effect, or have done so already.
                held.push(value);
                self.report.note_failure(kind, &error.to_string(), begun.elapsed());
            }
        }
    }

    async fn get(&mut self, turn: u64, key: String) {
        let possible = self.state.get(&key).cloned().unwrap_or_else(|| vec![None]);
        let begun = Instant::now();
        match get_one_of(&self.client, turn, &key, &possible).await {
            Ok(()) => self.report.note_answer("get", begun.elapsed()),
            Err(error @ RequestError::WrongBody(_)) => self.report.lost.push(format!("while it ran, {key}: {error}")),
            Err(error) if status_of(&error) == Some(StatusCode::NOT_FOUND) => {
                self.report.lost.push(format!("while it ran, {key}: not found, {possible:?} was acknowledged"));
            }
            Err(error) => self.report.note_failure("get", &error.to_string(), begun.elapsed()),
        }
    }

    async fn list(&mut self, turn: u64) {
        let prefix = format!("{}/", self.number);
        let sure: Option<usize> = self.state.values().map(|held| (held.len() == 1).then(|| usize::from(held[0].is_some()))).sum();
        // After a write in doubt it is not known how many there are.
        let Some(count) = sure else { return };
        let begun = Instant::now();
        match self.client.list(turn, &prefix, count.max(1)).await {
            Ok(()) => self.report.note_answer("list", begun.elapsed()),
            Err(RequestError::WrongBody(_)) if count == 0 => self.report.note_answer("list", begun.elapsed()),
            Err(error @ RequestError::WrongBody(_)) => self.report.lost.push(format!("while it ran: {error}")),
            Err(error) => self.report.note_failure("list", &error.to_string(), begun.elapsed()),
        }
    }
}

fn status_of(error: &RequestError) -> Option<StatusCode> {
    if let RequestError::Status { status, .. } = error { Some(*status) } else { None }
}

/// Reads a key that may hold any of these; an error unless it holds one of them.
async fn get_one_of(client: &Client, turn: u64, key: &str, possible: &[Value]) -> Result<(), RequestError> {
    let mut last = None;
    for value in possible.iter().rev().flatten() {
        let (index, size_bytes) = *value;
        match client.get(turn, key, &Content::new(size_bytes), index).await {
            Ok(()) => return Ok(()),
            Err(error) if status_of(&error) == Some(StatusCode::NOT_FOUND) && possible.contains(&None) => return Ok(()),
            Err(error @ RequestError::WrongBody(_)) => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    match last {
        Some(error) => Err(error),
        // Only absence is possible.
        None => match client.head(turn, key, 0).await {
            Err(error) if status_of(&error) == Some(StatusCode::NOT_FOUND) => Ok(()),
            Err(RequestError::WrongBody(_)) | Ok(()) => Err(RequestError::WrongBody(format!("{key}: it was deleted, and is there"))),
            Err(error) => Err(error),
        },
    }
}

/// Reads every key back from every node.
pub(super) async fn read_all_back(cluster: &Cluster, report: &mut Report) {
    let expected = report.expected.clone();
    for node in &cluster.nodes {
        let client = client_of(cluster, [node.index]);
        for (key, possible) in &expected {
            let mut tries = 0;
            loop {
                tries += 1;
                match get_one_of(&client, 0, key, possible).await {
                    Ok(()) => report.read_back_count += 1,
                    Err(RequestError::Status { status, .. }) if status.is_server_error() && tries < READ_BACK_TRIES => {
                        tokio::time::sleep(Duration::from_secs(2)).await;
                        continue;
                    }
                    Err(error) => report.lost.push(format!("{key} through node {}: {error}; acknowledged: {possible:?}", node.index)),
                }
                break;
            }
        }
    }
}
