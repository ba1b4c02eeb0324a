//! Clients that put, overwrite, upload in parts, copy, read, list and delete through all nodes, with and without conditions, each on keys of its
//! own, and note what they were told; and race for keys that they share.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, StatusCode, Uri, header};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};
use tokio::task::JoinHandle;

use super::{
    Options,
    keys::{Held, Race, Stored, Value},
    nodes::{BUCKET, Cluster, Members},
    report::Report,
};
use crate::load::{Answer, Ask, Client, Content, RequestError, path_of, query_of};

/// Keys that one client writes at a time; after a write in doubt a new one takes the place of the old one.
const KEYS_COUNT: u64 = 30;
/// Sizes of objects: inline, one block, several blocks.
const SIZES_BYTES: [usize; 4] = [700, 9_000, 300_000, 2_500_000];
/// Sizes of the parts of an upload; only the last may be smaller than 5 MiB.
const PARTS_BYTES: [usize; 2] = [5 << 20, 400_000];
/// A race is open for this long.
const RACE_TIME: Duration = Duration::from_secs(2);
const REQUEST_TIME_MAX: Duration = Duration::from_secs(60);

/// Clients at work.
pub(super) struct Load {
    over: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Report>>,
}

pub(super) fn client_of(cluster: &Cluster, indexes: impl IntoIterator<Item = usize>) -> Client {
    let endpoint = |index: usize| cluster.nodes[index].s3_endpoint().parse::<Uri>().expect("an address and a port are a good address");
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
                members: cluster.members.clone(),
                rng: ChaCha8Rng::seed_from_u64(options.seed ^ ((number as u64 + 1) << 32)),
                over: over.clone(),
                begun: Instant::now(),
                report: Report::default(),
                generations: BTreeMap::new(),
                last_race: None,
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
    members: Members,
    rng: ChaCha8Rng,
    over: Arc<AtomicBool>,
    begun: Instant,
    report: Report,
    /// How often each key was given up.
    generations: BTreeMap<u64, u64>,
    last_race: Option<u64>,
    written_count: u64,
}

/// An object that was sent, or is about to be.
struct Made {
    stored: Stored,
    body: Bytes,
}

/// What became of a write.
enum Outcome {
    Done(Answer),
    /// The condition did not hold.
    Unmet,
    /// It cannot have taken effect.
    Refused(String),
    Unknown(String),
    Wrong(String),
}

fn outcome_of(answer: Result<Answer, RequestError>) -> Outcome {
    match answer {
        Ok(answer) if answer.status.is_success() => Outcome::Done(answer),
        Ok(answer) if answer.status == StatusCode::PRECONDITION_FAILED => Outcome::Unmet,
        Ok(answer) if answer.status.is_server_error() => Outcome::Unknown(complaint(&answer)),
        // Conflicts and slow bodies may be met; a right that is denied, or a bucket that is not there, is a lie.
        Ok(answer) if [StatusCode::FORBIDDEN, StatusCode::NOT_FOUND, StatusCode::BAD_REQUEST].contains(&answer.status) => {
            Outcome::Wrong(complaint(&answer))
        }
        Ok(answer) => Outcome::Refused(complaint(&answer)),
        Err(error @ RequestError::NotSent(_)) => Outcome::Refused(error.to_string()),
        Err(error) => Outcome::Unknown(error.to_string()),
    }
}

/// Status, code and sentence of an error.
pub(super) fn complaint(answer: &Answer) -> String {
    let body = String::from_utf8_lossy(&answer.body);
    let field = |name: &str| between(&body, &format!("<{name}>"), &format!("</{name}>")).unwrap_or_default().to_string();
    format!("{} {}: {}", answer.status.as_u16(), field("Code"), field("Message"))
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    text.split_once(before)?.1.split_once(after).map(|(found, _)| found)
}

fn etag_of(answer: &Answer) -> Option<String> {
    answer.headers.get(header::ETAG)?.to_str().ok().map(str::to_string)
}

impl Worker {
    async fn run(mut self) -> Report {
        let mut turn = self.number as u64;
        while !self.over.load(Ordering::SeqCst) {
            turn += 1 + self.rng.random_range(0..7);
            let key = self.some_key();
            match self.rng.random_range(0..100) {
                0..30 => self.put(turn, key).await,
                30..55 => self.get(turn, key).await,
                55..64 => self.delete(turn, key).await,
                64..71 => self.list(turn).await,
                71..79 => self.copy(turn, key).await,
                79..85 => self.create(turn, key).await,
                85..91 => self.replace(turn, key).await,
                91..97 => self.race(turn).await,
                _ => self.upload(turn, key).await,
            }
            // Nothing can be learned from asking a node that is gone a thousand times a second.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.report
    }

    /// Asks the node whose turn it is, of those that have a role.
    async fn ask(&self, turn: u64, ask: Ask<'_>) -> Result<Answer, RequestError> {
        self.client.ask(self.members.nth(turn), ask).await
    }

    /// A key that is not in doubt.
    fn some_key(&mut self) -> String {
        let slot = self.rng.random_range(0..KEYS_COUNT);
        let generation = self.generations.entry(slot).or_default();
        let mut key = format!("{}/{slot}.{generation}", self.number);
        while self.report.expected.get(&key).is_some_and(|held| held.sure().is_none()) {
            *generation += 1;
            key = format!("{}/{slot}.{generation}", self.number);
        }
        self.report.expected.entry(key.clone()).or_insert_with(|| Held::any_of(vec![None]));
        key
    }

    fn sure(&self, key: &str) -> Value {
        self.report.expected.get(key).and_then(|held| held.sure().cloned()).flatten()
    }

    fn make(&mut self, sizes: &[usize]) -> Made {
        self.written_count += 1;
        let number = (self.number as u64) << 32 | self.written_count;
        let mut body = Vec::new();
        for (part, size_bytes) in sizes.iter().enumerate() {
            body.extend_from_slice(&Content::new(*size_bytes).object(number | (part as u64) << 48));
        }
        let stored = Stored { number, len_bytes: body.len(), sha256: Sha256::digest(&body).into(), etag: None };
        Made { stored, body: body.into() }
    }

    fn make_some(&mut self) -> Made {
        let size_bytes = SIZES_BYTES[self.rng.random_range(0..SIZES_BYTES.len())];
        self.make(&[size_bytes])
    }

    async fn put(&mut self, turn: u64, key: String) {
        let Made { stored, body } = self.make_some();
        let begun = Instant::now();
        let answer = self.ask(turn, Ask { method: Method::PUT, key: &key, body, ..Ask::default() }).await;
        self.note_write("put", key, Some(stored), outcome_of(answer), begun);
    }

    async fn delete(&mut self, turn: u64, key: String) {
        let begun = Instant::now();
        let answer = self.ask(turn, Ask { method: Method::DELETE, key: &key, ..Ask::default() }).await;
        self.note_write("delete", key, None, outcome_of(answer), begun);
    }

    async fn copy(&mut self, turn: u64, key: String) {
        let source = self.some_key();
        let Some(stored) = self.sure(&source).filter(|_| source != key) else { return self.put(turn, key).await };
        let headers = vec![("x-amz-copy-source", path_of(BUCKET, &source))];
        let begun = Instant::now();
        let answer = self.ask(turn, Ask { method: Method::PUT, key: &key, headers, ..Ask::default() }).await;
        let outcome = match outcome_of(answer) {
            Outcome::Done(answer) if !String::from_utf8_lossy(&answer.body).contains("<CopyObjectResult") => {
                Outcome::Unknown(complaint(&answer))
            }
            Outcome::Done(mut answer) => {
                // Its ETag is in the body.
                answer.headers.remove(header::ETAG);
                Outcome::Done(answer)
            }
            outcome => outcome,
        };
        self.note_write("copy", key, Some(Stored { etag: None, ..(*stored).clone() }), outcome, begun);
    }

    /// A put that is to succeed only if the key is absent, whether it is or not.
    async fn create(&mut self, turn: u64, key: String) {
        let (Made { stored, body }, is_there) = (self.make_some(), self.sure(&key).is_some());
        let headers = vec![("if-none-match", "*".to_string())];
        let begun = Instant::now();
        let answer = self.ask(turn, Ask { method: Method::PUT, key: &key, headers, body, ..Ask::default() }).await;
        self.note_conditional("create", key, stored, !is_there, outcome_of(answer), begun);
    }

    /// A put that is to succeed only over what is there, or over something else.
    async fn replace(&mut self, turn: u64, key: String) {
        let Some(etag) = self.sure(&key).and_then(|stored| stored.etag.clone()) else { return self.put(turn, key).await };
        let is_right = self.rng.random_range(0..3) != 0;
        let Made { stored, body } = self.make_some();
        let headers = vec![("if-match", if is_right { etag } else { "\"00000000000000000000000000000000\"".to_string() })];
        let begun = Instant::now();
        let answer = self.ask(turn, Ask { method: Method::PUT, key: &key, headers, body, ..Ask::default() }).await;
        self.note_conditional("replace", key, stored, is_right, outcome_of(answer), begun);
    }

    fn note_conditional(&mut self, kind: &'static str, key: String, stored: Stored, holds: bool, outcome: Outcome, begun: Instant) {
        match outcome {
            Outcome::Unmet if !holds => self.report.note_answer(kind, begun.elapsed()),
            Outcome::Done(_) if !holds => self.report.lost.push(format!("{kind} of {key} succeeded though its condition did not hold")),
            // Unless the condition holds it has no effect, heard of or not.
            Outcome::Unknown(why) if !holds => self.report.note_failure(kind, &why, begun.elapsed()),
            outcome => self.note_write(kind, key, Some(stored), outcome, begun),
        }
    }

    /// Uploads in parts; an upload that cannot be brought to its end is left behind.
    async fn upload(&mut self, turn: u64, key: String) {
        let (Made { mut stored, body }, begun) = (self.make(&PARTS_BYTES), Instant::now());
        let began = self.ask(turn, Ask { method: Method::POST, key: &key, query: query_of(&[("uploads", "")]), ..Ask::default() }).await;
        let began = match outcome_of(began) {
            Outcome::Done(answer) => answer,
            outcome => return self.note_step("upload begun", &key, outcome, begun),
        };
        let text = String::from_utf8_lossy(&began.body).into_owned();
        let Some(upload) = between(&text, "<UploadId>", "</UploadId>") else {
            return self.report.lost.push(format!("an upload of {key} has no id: {text}"));
        };
        let (mut parts, mut from) = (String::new(), 0);
        for (index, len_bytes) in PARTS_BYTES.into_iter().enumerate() {
            let number = (index + 1).to_string();
            let query = query_of(&[("partNumber", &number), ("uploadId", upload)]);
            let body = body.slice(from..from + len_bytes);
            from += len_bytes;
            // The parts go through different nodes.
            let sent = self.ask(turn + index as u64, Ask { method: Method::PUT, key: &key, query, body, ..Ask::default() }).await;
            match outcome_of(sent) {
                Outcome::Done(answer) => {
                    let etag = etag_of(&answer).unwrap_or_default();
                    parts.push_str(&format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"));
                }
                outcome => return self.note_step("part", &key, outcome, begun),
            }
        }
        let body = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>").into();
        let query = query_of(&[("uploadId", upload)]);
        let answer = self.ask(turn + 2, Ask { method: Method::POST, key: &key, query, body, ..Ask::default() }).await;
        let outcome = match outcome_of(answer) {
            // The status may have gone out before the outcome was known.
            Outcome::Done(answer) => {
                let text = String::from_utf8_lossy(&answer.body).into_owned();
                stored.etag = between(&text, "<ETag>", "</ETag>").map(|etag| etag.replace("&quot;", "\""));
                if text.contains("<CompleteMultipartUploadResult") { Outcome::Done(answer) } else { Outcome::Unknown(complaint(&answer)) }
            }
            outcome => outcome,
        };
        self.note_write("upload", key, Some(stored), outcome, begun);
    }

    /// Notes a step that makes nothing visible and was not answered well.
    fn note_step(&mut self, kind: &'static str, key: &str, outcome: Outcome, begun: Instant) {
        match outcome {
            Outcome::Refused(why) | Outcome::Unknown(why) => self.report.note_failure(kind, &why, begun.elapsed()),
            Outcome::Wrong(why) => self.report.lost.push(format!("while it ran, {kind} of {key}: {why}")),
            Outcome::Done(_) | Outcome::Unmet => {
                self.report.lost.push(format!("while it ran, {kind} of {key}: a condition that was not set"))
            }
        }
    }

    fn note_write(&mut self, kind: &'static str, key: String, stored: Option<Stored>, outcome: Outcome, begun: Instant) {
        let value = |etag| stored.clone().map(|stored| Arc::new(Stored { etag: stored.etag.clone().or(etag), ..stored }));
        let held = self.report.expected.entry(key.clone()).or_insert_with(|| Held::any_of(vec![None]));
        match outcome {
            Outcome::Done(answer) => {
                held.acknowledge(value(etag_of(&answer)));
                self.report.note_answer(kind, begun.elapsed());
            }
            Outcome::Unknown(why) => {
                held.doubt(value(None));
                self.report.note_failure(kind, &why, begun.elapsed());
            }
            Outcome::Refused(why) => self.report.note_failure(kind, &why, begun.elapsed()),
            Outcome::Unmet => {
                let held = held.to_string();
                self.report.lost.push(format!("while it ran, {kind} of {key}: its condition was said not to hold, over {held}"));
            }
            Outcome::Wrong(why) => self.report.lost.push(format!("while it ran, {kind} of {key}: {why}")),
        }
    }

    /// All clients try to create the same key at about the same time.
    async fn race(&mut self, turn: u64) {
        let number = self.begun.elapsed().as_secs() / RACE_TIME.as_secs();
        if self.last_race == Some(number) {
            let key = self.some_key();
            return self.get(turn, key).await;
        }
        self.last_race = Some(number);
        let (Made { stored, body }, key) = (self.make(&[SIZES_BYTES[0]]), format!("race/{number}"));
        let headers = vec![("if-none-match", "*".to_string())];
        let begun = Instant::now();
        let answer = self.ask(turn, Ask { method: Method::PUT, key: &key, headers, body, ..Ask::default() }).await;
        let entry = match outcome_of(answer) {
            Outcome::Done(_) => Race::Won(Arc::new(stored)),
            Outcome::Unmet => Race::Lost,
            Outcome::Unknown(why) => {
                self.report.note_failure("race", &why, begun.elapsed());
                self.report.races.entry(key).or_default().push(Race::Unknown(Arc::new(stored)));
                return;
            }
            outcome => return self.note_step("race", &key, outcome, begun),
        };
        self.report.note_answer("race", begun.elapsed());
        self.report.races.entry(key).or_default().push(entry);
    }

    async fn get(&mut self, turn: u64, key: String) {
        // Now and then one that is in doubt.
        let doubtful = self.report.expected.iter().filter(|(_, held)| held.sure().is_none()).map(|(key, _)| key.clone()).next_back();
        let key = if self.rng.random_range(0..4) == 0 { doubtful.unwrap_or(key) } else { key };
        let Some(held) = self.report.expected.get_mut(&key) else { return };
        let begun = Instant::now();
        match read(&self.client, self.members.nth(turn), &key, held).await {
            Read::Right(_) => self.report.note_answer("get", begun.elapsed()),
            Read::Wrong(why) => self.report.lost.push(format!("while it ran, {why}")),
            Read::Failed(why) => self.report.note_failure("get", &why, begun.elapsed()),
        }
    }

    async fn list(&mut self, turn: u64) {
        let prefix = format!("{}/", self.number);
        let query = query_of(&[("list-type", "2"), ("max-keys", "1000"), ("prefix", &prefix)]);
        let begun = Instant::now();
        let answer = match self.ask(turn, Ask { method: Method::GET, query, ..Ask::default() }).await {
            Ok(answer) if answer.status.is_success() => answer,
            Ok(answer) if answer.status.is_client_error() => {
                return self.report.lost.push(format!("while it ran, list of {prefix}: {}", complaint(&answer)));
            }
            Ok(answer) => return self.report.note_failure("list", &complaint(&answer), begun.elapsed()),
            Err(error) => return self.report.note_failure("list", &error.to_string(), begun.elapsed()),
        };
        let page = String::from_utf8_lossy(&answer.body);
        match check_list(&page, &self.report.expected) {
            Ok(()) => self.report.note_answer("list", begun.elapsed()),
            Err(why) => self.report.lost.push(format!("while it ran, list of {prefix}: {why}")),
        }
    }
}

/// A page lists in order what is surely there, and nothing that surely is not.
fn check_list(page: &str, expected: &BTreeMap<String, Held>) -> Result<(), String> {
    let keys: Vec<&str> = page.split("<Key>").skip(1).filter_map(|rest| rest.split_once("</Key>").map(|(key, _)| key)).collect();
    if !keys.is_sorted_by(|left, right| left < right) {
        return Err("not in order".to_string());
    }
    let is_whole = page.contains("<IsTruncated>false</IsTruncated>");
    let is_covered = |key: &str| is_whole || keys.last().is_some_and(|last| key <= *last);
    for (key, held) in expected.iter().filter(|(key, _)| is_covered(key)) {
        let is_listed = keys.binary_search(&key.as_str()).is_ok();
        match held.sure() {
            Some(Some(_)) if !is_listed => return Err(format!("{key} is missing, which holds {held}")),
            Some(None) if is_listed => return Err(format!("{key} is listed, which was deleted or never written")),
            _ => {}
        }
    }
    let unknown = keys.iter().find(|key| !expected.contains_key(**key));
    unknown.map_or(Ok(()), |key| Err(format!("{key} is listed, which nobody has written")))
}

/// What came of reading a key.
pub(super) enum Read {
    /// What it may hold: this.
    Right(Option<(usize, [u8; 32])>),
    Wrong(String),
    Failed(String),
}

/// Reads a key and compares what is there with what it may hold.
pub(super) async fn read(client: &Client, turn: u64, key: &str, held: &mut Held) -> Read {
    let answer = match client.ask(turn, Ask { method: Method::GET, key, ..Ask::default() }).await {
        Ok(answer) => answer,
        Err(error) => return Read::Failed(error.to_string()),
    };
    let found = match answer.status {
        StatusCode::OK => Some((answer.body.len(), Sha256::digest(&answer.body).into())),
        StatusCode::NOT_FOUND if String::from_utf8_lossy(&answer.body).contains("<Code>NoSuchKey</Code>") => None,
        status if status.is_client_error() => return Read::Wrong(format!("{key}: {}; it holds {held}", complaint(&answer))),
        _ => return Read::Failed(complaint(&answer)),
    };
    let before = held.to_string();
    if held.saw(found).is_err() {
        let what = found.map_or_else(|| "nothing".to_string(), |(len_bytes, _)| format!("{len_bytes} bytes, {}", number_in(&answer.body)));
        return Read::Wrong(format!("{key}: {what}; it holds {before}"));
    }
    Read::Right(found)
}

/// Which object a body seems to be of.
fn number_in(body: &[u8]) -> String {
    body.first_chunk().map_or_else(|| "of no object".to_string(), |stamp| format!("of object {:x}", u64::from_be_bytes(*stamp)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(keys: &[&str], truncated: bool) -> String {
        let keys: String = keys.iter().map(|key| format!("<Contents><Key>{key}</Key></Contents>")).collect();
        format!("<IsTruncated>{truncated}</IsTruncated>{keys}")
    }

    #[test]
    fn a_list_is_right_only_if_it_names_what_is_there_and_not_what_is_not() {
        let there = Held::any_of(vec![Some(Arc::new(Stored { number: 1, len_bytes: 1, sha256: [0; 32], etag: None }))]);
        let mut doubtful = there.clone();
        doubtful.doubt(None);
        let gone = Held::any_of(vec![None]);
        let expected: BTreeMap<String, Held> =
            [("a", there.clone()), ("b", gone), ("c", doubtful), ("d", there)].map(|(key, held)| (key.to_string(), held)).into();
        let check = |keys: &[&str], truncated| check_list(&page(keys, truncated), &expected).is_ok();
        assert!(check(&["a", "c", "d"], false));
        assert!(check(&["a", "d"], false));
        assert!(check(&["a"], true));
        assert!(!check(&["a"], false), "one is missing");
        assert!(!check(&["a", "b", "d"], false), "one was deleted");
        assert!(!check(&["a", "d", "x"], false), "one was never written");
        assert!(!check(&["d", "a"], false), "out of order");
    }
}
