//! A replica's promises: batches are atomic, rows change by the rules only, hooks and digests follow in the same transaction.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use garage_db::{Db, DbOptions, Direction, MemoryEngine, Transaction};
use garage_rpc::{
    register::{Answer, ApplyAnswer, Entry, Message, PrepareAnswer, WriteId},
    testing::TestNode,
};
use garage_table::{
    Discipline, Group, RowChange, Schemas, SortKey, Store, TableId, TableSchema,
    digest::{LEAF_COUNT, RowHash, total},
    keyspaces,
    message::{Companion, GroupCall, HeldRow, Op, OpAnswer, Want},
    schema::StoreError,
};
use garage_util::{encoding::DecodeError, hlc::Stamp};
use proptest::prelude::*;
use serde_bytes::ByteBuf;

const REGISTERS: TableId = TableId(1);
const MAXIMA: TableId = TableId(2);

/// Rows whose hook counts the changes that it saw.
struct Registers;
impl TableSchema for Registers {
    fn id(&self) -> TableId {
        REGISTERS
    }
    fn name(&self) -> &'static str {
        "registers"
    }
    fn discipline(&self) -> Discipline {
        Discipline::Register
    }
    fn changed(&self, transaction: &mut Transaction<'_>, change: &RowChange<'_>) -> Result<(), StoreError> {
        if change.new.content == b"refuse" {
            return Err(StoreError::BadRequest("the hook refuses".into()));
        }
        let key = [b"changes of ", change.sort_key].concat();
        let count = transaction.get(keyspaces::INDEX, &key)?.map_or(0, |bytes| bytes[0]);
        transaction.put(keyspaces::INDEX, key, vec![count + 1]);
        Ok(())
    }
}

/// Merge rows: the greater content stays.
struct Maxima;
impl TableSchema for Maxima {
    fn id(&self) -> TableId {
        MAXIMA
    }
    fn name(&self) -> &'static str {
        "maxima"
    }
    fn discipline(&self) -> Discipline {
        Discipline::Merge
    }
    fn merge(&self, held: &[u8], new: &[u8]) -> Result<Vec<u8>, DecodeError> {
        Ok(held.max(new).to_vec())
    }
}

struct Replica {
    store: Store,
    group: Group,
}

impl Replica {
    async fn open(node: &TestNode) -> Replica {
        let engine = Arc::new(MemoryEngine::new(keyspaces::SPECS));
        let db = Db::open(&node.runtime(), engine, DbOptions::default()).await.unwrap();
        let schemas = Schemas::new([Arc::new(Registers) as Arc<dyn TableSchema>, Arc::new(Maxima)]);
        Replica { store: Store::new(db, schemas), group: Group::new(b"group".to_vec()) }
    }
    async fn call(&self, ops: Vec<Op>) -> Result<Vec<OpAnswer>, garage_net::Refusal> {
        Ok(self.store.serve(GroupCall { group: self.group.key().clone(), ops }).await?.answers)
    }
    async fn register(&self, op: Op) -> (Answer, Option<HeldRow>, Vec<Companion>) {
        match self.call(vec![op]).await.unwrap().pop() {
            Some(OpAnswer::Register { answer, row, companions }) => (answer, row, companions),
            other => panic!("{other:?}"),
        }
    }
    /// Recounts all digests from the rows and compares them with what the transactions kept.
    async fn check_digests(&self) {
        let group = self.group.clone();
        let checked = self.store.db().read(move |snapshot| {
            for table in [REGISTERS, MAXIMA] {
                let (mut listed, mut sums) = (0u128, 0u128);
                for item in snapshot.prefix(keyspaces::LEAVES, &[table.0], Direction::Forward) {
                    let (_, value) = item.unwrap();
                    listed = listed.wrapping_add(u128::from_le_bytes(value[..16].try_into().unwrap()));
                    assert!(snapshot.get(keyspaces::ROWS, &value[16..]).unwrap().is_some(), "a leaf lists a row that is not there");
                }
                for leaf in 0..LEAF_COUNT as u16 {
                    let [high, low] = leaf.to_be_bytes();
                    let sum = snapshot.get(keyspaces::DIGEST, &[table.0, group.hash()[0], high, low]).unwrap();
                    sums = sums.wrapping_add(sum.map_or(0, |bytes| u128::from_le_bytes(bytes[..].try_into().unwrap())));
                }
                let rows = snapshot.prefix(keyspaces::ROWS, &[table.0], Direction::Forward).count();
                let leaves = snapshot.prefix(keyspaces::LEAVES, &[table.0], Direction::Forward).count();
                assert_eq!((rows, listed, sums), (leaves, sums, total(snapshot, table, &group).unwrap()), "{table:?}");
            }
        });
        checked.await.unwrap();
    }
}

fn entry(time: u64, id: u8) -> Entry {
    Entry { stamp: Stamp::from_parts(time, 1, false), id: WriteId([id; 32]) }
}
fn key(name: &str) -> SortKey {
    SortKey(name.as_bytes().to_vec())
}
fn apply(name: &str, entry: Entry, content: &[u8]) -> Op {
    Op::Register {
        table: REGISTERS,
        key: key(name),
        message: Message::Apply { entry, ballot: entry.stamp },
        content: Some(ByteBuf::from(content)),
        companions: vec![Companion { id: entry.id, chunk: 0, content: ByteBuf::from(content) }],
        want: Want::Row,
    }
}
fn query(name: &str, want: Want) -> Op {
    Op::Register { table: REGISTERS, key: key(name), message: Message::Query, content: None, companions: Vec::new(), want }
}
fn merge(name: &str, row: &[u8]) -> Op {
    Op::Merge { table: MAXIMA, key: key(name), row: ByteBuf::from(row), companions: Vec::new() }
}

#[tokio::test(start_paused = true)]
async fn a_row_is_replaced_by_a_newer_one_only_and_brings_its_companions() {
    let node = TestNode::new(1);
    let replica = Replica::open(&node).await;
    assert_eq!(replica.register(apply("k", entry(5, 5), b"\x01five")).await.0, Answer::Apply(ApplyAnswer::Stored));
    assert!(matches!(replica.register(apply("k", entry(4, 4), b"\x01four")).await.0, Answer::Apply(ApplyAnswer::Refused { .. })));
    assert_eq!(replica.register(apply("k", entry(5, 5), b"\x01five")).await.0, Answer::Apply(ApplyAnswer::AlreadyHeld));
    let (answer, row, companions) = replica.register(query("k", Want::First)).await;
    assert_eq!(answer, Answer::Row(Some(entry(5, 5))));
    assert_eq!(row.unwrap().content, b"\x01five");
    assert_eq!(companions.len(), 1);
    replica.check_digests().await;
}

#[tokio::test(start_paused = true)]
async fn a_promise_is_kept_over_batches_and_shuts_out_lower_ballots() {
    let node = TestNode::new(1);
    let replica = Replica::open(&node).await;
    let ballot = Stamp::from_parts(9, 1, false);
    let prepare = Op::Register {
        table: REGISTERS,
        key: key("k"),
        message: Message::Prepare { ballot, own: None },
        content: None,
        companions: Vec::new(),
        want: Want::Row,
    };
    assert!(matches!(replica.register(prepare).await.0, Answer::Prepare(PrepareAnswer::Promised { .. })));
    assert!(matches!(replica.register(apply("k", entry(8, 8), b"\x01x")).await.0, Answer::Apply(ApplyAnswer::Refused { .. })));
    assert_eq!(replica.register(apply("k", entry(10, 2), b"\x01y")).await.0, Answer::Apply(ApplyAnswer::Stored));
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_fails_leaves_no_trace() {
    let node = TestNode::new(1);
    let replica = Replica::open(&node).await;
    let refused = replica.call(vec![apply("a", entry(1, 1), b"\x01a"), merge("m", b"\x01m"), apply("b", entry(2, 2), b"refuse")]).await;
    assert!(refused.is_err());
    assert_eq!(replica.register(query("a", Want::First)).await, (Answer::Row(None), None, Vec::new()));
    let rows = replica.call(vec![Op::Read { table: MAXIMA, key: key("m") }]).await.unwrap();
    assert!(matches!(&rows[..], [OpAnswer::Row(None)]));
    replica.check_digests().await;
}

#[tokio::test(start_paused = true)]
async fn a_hook_runs_once_for_each_change_and_not_for_what_changes_nothing() {
    let node = TestNode::new(1);
    let replica = Replica::open(&node).await;
    for (time, id) in [(1, 1), (2, 2), (2, 2), (1, 1)] {
        replica.register(apply("k", entry(time, id), b"\x01x")).await;
    }
    let counted = replica.store.db().read(|snapshot| snapshot.get(keyspaces::INDEX, b"changes of k").unwrap()).await.unwrap();
    assert_eq!(counted.unwrap()[0], 2);
}

#[tokio::test(start_paused = true)]
async fn nonsense_is_refused_with_a_sentence() {
    let node = TestNode::new(1);
    let replica = Replica::open(&node).await;
    let unknown = Op::Read { table: TableId(200), key: key("k") };
    assert!(replica.call(vec![unknown]).await.unwrap_err().message.contains("upgrade"));
    let wrong_kind = Op::Merge { table: REGISTERS, key: key("k"), row: ByteBuf::new(), companions: Vec::new() };
    assert!(replica.call(vec![wrong_kind]).await.unwrap_err().message.contains("registers"));
    let too_many = vec![query("k", Want::Row); garage_table::message::GROUP_OPS_MAX + 1];
    assert!(replica.call(too_many).await.unwrap_err().message.contains("limit"));
}

#[tokio::test(start_paused = true)]
async fn a_range_is_cut_at_its_limit_and_says_so() {
    let node = TestNode::new(1);
    let replica = Replica::open(&node).await;
    replica.call(["a", "b", "c"].map(|name| merge(name, b"\x01x")).to_vec()).await.unwrap();
    let range = |limit| Op::Range { table: MAXIMA, from: key("a"), to: Some(key("c")), limit };
    for (limit, expected_count, expected_truncated) in [(1, 1, true), (2, 2, false), (9, 2, false)] {
        match &replica.call(vec![range(limit)]).await.unwrap()[..] {
            [OpAnswer::Rows { rows, truncated }] => assert_eq!((rows.len(), *truncated), (expected_count, expected_truncated)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_row_hash_depends_on_every_part_and_its_borders() {
    let hash = |parts: &[&[u8]]| RowHash::of(b"key", parts).0;
    assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
    assert_ne!(hash(&[b"ab"]), RowHash::of(b"other", &[b"ab"]).0);
    assert_ne!(hash(&[b"ab"]), hash(&[b"ab", b""]));
}

#[derive(Clone, Debug)]
enum Step {
    Apply(u8, u64),
    Merge(u8, Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u8..4, 1u64..20).prop_map(|(key, time)| Step::Apply(key, time)),
        (0u8..4, prop::collection::vec(any::<u8>(), 1..4)).prop_map(|(key, row)| Step::Merge(key, row)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn digests_equal_a_recount_and_rows_their_rules_after_any_batches(batches in prop::collection::vec(prop::collection::vec(step(), 1..6), 1..8)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let node = TestNode::new(1);
            let replica = Replica::open(&node).await;
            let (mut newest, mut maxima) = (BTreeMap::new(), BTreeMap::<u8, Vec<u8>>::new());
            for batch in batches {
                let ops = batch.iter().map(|step| match step {
                    // The content of a write belongs to its stamp: one writer never gives a stamp twice.
                    Step::Apply(name, time) => apply(&name.to_string(), entry(*time, *time as u8), &[1, *time as u8]),
                    Step::Merge(name, row) => merge(&name.to_string(), row),
                });
                replica.call(ops.collect()).await.unwrap();
                for step in batch {
                    match step {
                        Step::Apply(name, time) => { let held = newest.entry(name).or_insert(0); *held = time.max(*held); }
                        Step::Merge(name, row) => { let held = maxima.entry(name).or_default(); *held = row.max(held.clone()); }
                    }
                }
                replica.check_digests().await;
            }
            for (name, time) in newest {
                let row = replica.register(query(&name.to_string(), Want::Row)).await.1.unwrap();
                assert_eq!(row.content, [1, time as u8]);
            }
            let rows = replica.store.db().read(|snapshot| {
                snapshot.range(keyspaces::ROWS, Bound::Included(&[MAXIMA.0][..]), Bound::Excluded(&[MAXIMA.0 + 1][..]), Direction::Forward)
                    .map(|item| item.unwrap().1.to_vec()).collect::<Vec<_>>()
            }).await.unwrap();
            assert_eq!(rows, maxima.into_values().collect::<Vec<_>>());
        });
    }
}
