//! Pages over replicas that differ, against a model; and what a replica reads of a large index.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use futures::{FutureExt, executor::block_on, future::BoxFuture};
use garage_db::{Direction, EngineError, Keyspace, Snapshot, engine::RangeIterator};
use garage_rpc::register::{Entry, WriteId};
use garage_table::{Group, schema::StoreError};
use garage_util::hlc::Stamp;
use parking_lot::Mutex;
use proptest::prelude::*;
use serde_bytes::ByteBuf;

use super::{Answers, Index, Item, PageAnswer, PageQuery, Settled, Shown, Source, after_common, folded, page, walk};

/// An index in memory that counts the rows that are read of it. Keys as they are, and the number of their version.
#[derive(Default)]
struct Rows {
    rows: BTreeMap<Vec<u8>, Bytes>,
    read_count: AtomicUsize,
}

impl Rows {
    fn put(&mut self, key: &[u8], version: u8) {
        self.rows.insert([PREFIX, key].concat(), Bytes::copy_from_slice(&[version]));
    }
}

impl Snapshot for Rows {
    fn get(&self, _: Keyspace, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self.rows.get(key).cloned())
    }
    fn range<'a>(&'a self, _: Keyspace, from: Bound<&[u8]>, to: Bound<&[u8]>, direction: Direction) -> RangeIterator<'a> {
        assert_eq!(direction, Direction::Forward);
        let read = |(key, value): (&Vec<u8>, &Bytes)| {
            self.read_count.fetch_add(1, Ordering::Relaxed);
            Ok((Bytes::copy_from_slice(key), value.clone()))
        };
        Box::new(self.rows.range::<[u8], _>((from, to)).map(read))
    }
}

const PREFIX: &[u8] = b"i";

struct Keys;
impl Index for Keys {
    type Value = u8;
    fn prefix(_: &Group) -> Vec<u8> {
        PREFIX.to_vec()
    }
    fn positions_of(start: &[u8]) -> Vec<u8> {
        start.to_vec()
    }
    fn key_of(position: &[u8]) -> Option<Vec<u8>> {
        Some(position.to_vec())
    }
    fn read(stored: &[u8]) -> Result<(Entry, u8), StoreError> {
        let version = stored[0];
        Ok((Entry { stamp: Stamp::from_parts(u64::from(version), 0, false), id: WriteId([version; 32]) }, version))
    }
}

fn group() -> Group {
    Group::new(b"group".to_vec())
}

fn query(prefix: &str, delimiter: Option<&str>, from: &[u8], limit: u32) -> PageQuery {
    PageQuery {
        prefix: ByteBuf::from(prefix.as_bytes()),
        delimiter: delimiter.map(|text| ByteBuf::from(text.as_bytes())),
        from: ByteBuf::from(from),
        limit,
    }
}

// Large indexes.

/// Walks one page and checks what it costs: a row for each item, and one that tells that more follows.
fn check_walk(rows: &Rows, query: &PageQuery, item_count: usize) -> PageAnswer<u8> {
    let before = rows.read_count.load(Ordering::Relaxed);
    let answer = walk::<Keys>(rows, &group(), query).unwrap();
    let read_count = rows.read_count.load(Ordering::Relaxed) - before;
    assert_eq!(answer.items.len(), item_count, "{query:?}");
    assert!(read_count <= item_count + 1, "{read_count} rows read for {item_count} items: {query:?}");
    answer
}

#[test]
fn a_page_of_a_million_keys_reads_a_row_an_item_wherever_it_begins() {
    let mut rows = Rows::default();
    // 100,000 common prefixes of 10 keys each.
    (0..1_000_000u32).for_each(|number| rows.put(format!("{:06}/{:02}", number / 10, number % 10).as_bytes(), 1));
    for from in ["", "000000/", "050000/05", "099000/00"] {
        check_walk(&rows, &query("", None, from.as_bytes(), 1001), 1001);
    }
    assert_eq!(check_walk(&rows, &query("", None, b"099900", 1001), 1000).next, None);
    for from in ["", "050000/05", "098000/"] {
        let answer = check_walk(&rows, &query("", Some("/"), from.as_bytes(), 1001), 1001);
        assert!(answer.items.iter().all(|item| matches!(item, Item::Prefix { .. })));
    }
    check_walk(&rows, &query("050000/", Some("/"), b"", 1001), 10);
    // All pages together: every prefix once, a row read for each.
    let (mut from, mut prefix_count, mut page_count) = (Some(Vec::new()), 0, 0);
    while let Some(start) = from {
        let answer = walk::<Keys>(&rows, &group(), &query("", Some("/"), &start, 1000)).unwrap();
        prefix_count += answer.items.len();
        page_count += 1;
        from = answer.next.map(ByteBuf::into_vec);
    }
    assert_eq!((prefix_count, page_count), (100_000, 100));
    let one_prefix = check_walk(&rows, &query("", Some("0"), b"", 1001), 1);
    assert_eq!(one_prefix.next, None, "a million keys under one prefix cost one row");
}

// Replicas that differ.

/// What a replica holds of a key: a version, and whether it is live. Greater versions are newer.
type Held = Option<(u8, bool)>;

/// Three replicas of which any two answer.
struct Replicas {
    held: Mutex<BTreeMap<Vec<u8>, [Held; 3]>>,
    /// Which two answer next.
    pairs: Mutex<Vec<u8>>,
    ask_count: AtomicUsize,
}

impl Replicas {
    fn pair(&self) -> [usize; 2] {
        let mut pairs = self.pairs.lock();
        let next = pairs.remove(0);
        pairs.push(next);
        [[0, 1], [0, 2], [1, 2]][usize::from(next) % 3]
    }

    fn rows_of(&self, replica: usize) -> Rows {
        let mut rows = Rows::default();
        for (key, held) in &*self.held.lock() {
            if let Some((version, true)) = held[replica] {
                rows.put(key, version);
            }
        }
        rows
    }
}

impl Source for Replicas {
    type Index = Keys;
    fn ask<'a>(&'a self, group: &'a Group, query: &'a PageQuery) -> BoxFuture<'a, Answers<u8>> {
        self.ask_count.fetch_add(1, Ordering::Relaxed);
        let answers = self.pair().map(|replica| walk::<Keys>(&self.rows_of(replica), group, query).unwrap());
        std::future::ready(Ok(answers.to_vec())).boxed()
    }
    /// As a read by quorum: the newest of two, written back.
    fn settle<'a>(&'a self, _: &'a Group, positions: Vec<Vec<u8>>) -> BoxFuture<'a, Settled<u8>> {
        let pair = self.pair();
        let mut held = self.held.lock();
        let mut live = BTreeMap::new();
        for position in positions {
            let row = held.get_mut(&position).expect("only what was listed is in question");
            let newest = pair.iter().filter_map(|replica| row[*replica]).max();
            pair.iter().for_each(|replica| row[*replica] = newest);
            if let Some((version, true)) = newest {
                live.insert(position, version);
            }
        }
        std::future::ready(Ok(live)).boxed()
    }
}

/// What must, and what may, be listed: of what only one replica knows, both is true.
fn expected(held: &BTreeMap<Vec<u8>, [Held; 3]>, prefix: &str, delimiter: Option<&str>) -> (BTreeSet<Vec<u8>>, BTreeSet<Vec<u8>>) {
    let (mut must, mut may) = (BTreeSet::new(), BTreeSet::new());
    for (key, row) in held.iter().filter(|(key, _)| key.starts_with(prefix.as_bytes())) {
        let newest = row.iter().flatten().max();
        let is_settled = 2 <= row.iter().filter(|held| held.as_ref() == newest).count();
        let place = folded(key, prefix.as_bytes(), delimiter.map(str::as_bytes)).unwrap_or(key).to_vec();
        if is_settled && newest.is_some_and(|(_, is_live)| *is_live) {
            must.insert(place.clone());
        }
        if row.iter().flatten().any(|(_, is_live)| *is_live) && !(is_settled && newest.is_some_and(|(_, is_live)| !*is_live)) {
            may.insert(place);
        }
    }
    (must, may)
}

fn any_key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), Just(b'/')], 1..5)
}

fn any_held() -> impl Strategy<Value = [Held; 3]> {
    // Which of the last two versions each replica has, and which of those are live.
    (prop::array::uniform3(0u8..3), any::<[bool; 2]>()).prop_map(|(versions, is_live)| {
        versions.map(|version| version.checked_sub(1).map(|version| (version, is_live[usize::from(version)])))
    })
}

proptest! {
    #[test]
    fn pages_over_differing_replicas_show_all_that_is_settled_and_nothing_that_is_not_there(
        held in prop::collection::btree_map(any_key(), any_held(), 0..40),
        pairs in prop::collection::vec(0u8..3, 1..5),
        prefix in prop_oneof![Just(""), Just("a"), Just("a/"), Just("b/a")],
        delimiter in prop_oneof![Just(None), Just(Some("/")), Just(Some("b/"))],
        limit in 1usize..5,
    ) {
        let (must, may) = expected(&held, prefix, delimiter);
        let replicas = Replicas { held: Mutex::new(held), pairs: Mutex::new(pairs), ask_count: AtomicUsize::new(0) };
        let (groups, mut listed, mut from) = ([group()], Vec::new(), Vec::new());
        loop {
            let entries = block_on(page(&replicas, &groups, query(prefix, delimiter, &from, 0), limit)).unwrap();
            prop_assert!(entries.len() <= limit + 1);
            let is_last = entries.len() <= limit;
            for (position, shown) in entries.into_iter().take(limit) {
                from = match &shown {
                    Shown::Row(_) => [&position[..], &[0]].concat(),
                    Shown::Prefix(prefix) => {
                        prop_assert_eq!(prefix, &position);
                        after_common::<Keys>(prefix).unwrap()
                    }
                };
                listed.push(position);
            }
            if is_last {
                break;
            }
        }
        prop_assert!(listed.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", listed);
        let listed: BTreeSet<Vec<u8>> = listed.into_iter().collect();
        prop_assert!(must.is_subset(&listed), "{:?} lacks some of {:?}", listed, must);
        prop_assert!(listed.is_subset(&may), "{:?} is more than {:?}", listed, may);
    }

    #[test]
    fn replicas_that_agree_are_asked_once_a_page(keys in prop::collection::btree_set(any_key(), 0..40), limit in 1usize..50) {
        let held = keys.iter().map(|key| (key.clone(), [Some((1, true)); 3])).collect();
        let replicas = Replicas { held: Mutex::new(held), pairs: Mutex::new(vec![0, 1, 2]), ask_count: AtomicUsize::new(0) };
        let entries = block_on(page(&replicas, &[group()], query("", None, b"", 0), limit)).unwrap();
        prop_assert_eq!(entries.len(), keys.len().min(limit + 1));
        prop_assert_eq!(replicas.ask_count.load(Ordering::Relaxed), 1);
    }
}
