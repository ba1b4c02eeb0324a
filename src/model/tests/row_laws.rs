//! The laws of every table of a node: two replicas that got the same rows, in any order and any number of times, hold the same rows, the
//! same digests, and the same indexes and counters that hooks derived.

use std::sync::Arc;

use garage_block::reference::{REFERENCE_TABLE, ReferenceRow, ReferenceState};
use garage_db::{Db, DbOptions, Direction, Keyspace, MemoryEngine};
use garage_model::{
    index::Counters,
    rows::{
        OLDER_VERSION, PART, UPLOAD, VERSION,
        object::{ObjectHeaders, ObjectMeta, StoredSlot, VersionRow, VersionState, null_slot, slot_key},
        part::{PartRow, part_key},
        upload::{Completion, Replaces, UploadId, UploadRow, UploadState, upload_key},
    },
    schema::{CONTROL_TABLES, schemas},
};
use garage_rpc::{
    register::{
        Entry, Message, WriteId,
        slots::{Origin, Slot, SlotRow},
    },
    testing::TestNode,
};
use garage_table::{
    Discipline, Group, SortKey, Store, TableId, keyspaces,
    message::{GroupCall, Op, Want},
};
use garage_util::{encoding::Stored, hlc::Stamp};
use proptest::prelude::{Just, ProptestConfig, Strategy, prop, prop_assert, prop_assert_eq, proptest};
use serde_bytes::ByteBuf;

/// What must be equal at both replicas; what registers promised, and the queue of a replica's own work, need not.
const COMPARED: [Keyspace; 4] = [keyspaces::ROWS, keyspaces::INDEX, keyspaces::DIGEST, keyspaces::LEAVES];

/// Keys that rows arrive for.
const KEYS_COUNT: u8 = 3;

/// One arrival, in numbers: which of few keys, and what the row is like.
type Arrival = (u8, u8);

/// The sort key and content of a row of a table. Content is a function of the number: one write has one content.
///
/// A new table needs a line here, or its laws are not checked.
fn row_of(table: TableId, key: u8, number: u8) -> (SortKey, Vec<u8>) {
    let (name, upload) = (format!("key/{key}"), UploadId([key; 32]));
    let size_bytes = u64::from(number) * 10;
    match table {
        VERSION if number.is_multiple_of(3) => (null_slot(&name), VersionRow::DeleteMarker { modified_ms: u64::from(number) }.to_stored()),
        VERSION => {
            let meta = ObjectMeta { size_bytes, etag: number.to_string(), ..ObjectMeta::default() };
            (null_slot(&name), VersionRow::Object(Box::new(meta)).to_stored())
        }
        UPLOAD => {
            let completion = Completion {
                version: entry(key, number).id,
                first: Stamp::ZERO,
                etag: String::new(),
                size_bytes,
                modified_ms: 0,
                checksum: None,
                versioning: Default::default(),
                retention: None,
                list_digest: [0; 32],
                part_count: 1,
                replaces: Replaces::Nothing,
            };
            let states =
                [UploadState::Open, UploadState::Completing(completion.clone()), UploadState::Completed(completion), UploadState::Aborted];
            let row = UploadRow {
                initiated_ms: 1,
                initiator: "GK".into(),
                headers: ObjectHeaders::default(),
                checksum: None,
                checksum_explicit: false,
                state: states[usize::from(number) % 4].clone(),
            };
            (upload_key(&name, upload), row.to_stored())
        }
        OLDER_VERSION => {
            let origin = Origin { order: Stamp::from_parts(1, 1, false), id: entry(key, number).id };
            let meta = ObjectMeta { size_bytes, etag: number.to_string(), ..ObjectMeta::default() };
            let content = (!number.is_multiple_of(3)).then(|| VersionState::Object(Box::new(meta)));
            let row = StoredSlot(SlotRow { origin, stamp: entry(key, number).stamp, content });
            (slot_key(&name, Slot::Id(WriteId([key; 32]))), row.to_stored())
        }
        PART => {
            let Entry { stamp, id } = entry(key, number);
            let row = PartRow { stamp, id, size_bytes, etag: String::new(), modified_ms: 0, checksum: None };
            (part_key(upload, u16::from(key)), row.to_stored())
        }
        REFERENCE_TABLE => {
            let states = [ReferenceState::Lease, ReferenceState::Confirmed, ReferenceState::Dropped];
            let row = ReferenceRow {
                state: states[usize::from(number) % 3],
                stamp: entry(key, number).stamp,
                group: ByteBuf::from(vec![key]),
                owner: ByteBuf::new(),
            };
            (SortKey(vec![key; 32]), row.to_stored())
        }
        // Control rows have no hooks: to the store their content is bytes.
        control if CONTROL_TABLES.contains(&control) => (SortKey(vec![key]), vec![1, number]),
        other => panic!("{other:?} is not known here: its laws are not checked"),
    }
}

/// A write of a key; no two writes have one id.
fn entry(key: u8, number: u8) -> Entry {
    Entry { stamp: Stamp::from_parts(1 + u64::from(number), 1, false), id: WriteId([key << 4 | number; 32]) }
}

fn arrival(table: TableId, discipline: Discipline, (key, number): Arrival) -> Op {
    let entry = entry(key, number);
    let (key, content) = row_of(table, key, number);
    let row = ByteBuf::from(content);
    match discipline {
        Discipline::Merge => Op::Merge { table, key, row, companions: Vec::new() },
        Discipline::Register => {
            let message = Message::Apply { entry, ballot: entry.stamp };
            Op::Register { table, key, message, content: Some(row), companions: Vec::new(), want: Want::Row }
        }
    }
}

/// The block that a group of references is about, or the shard of a bucket that any other group is.
fn group() -> Group {
    Group::new(vec![5; 32])
}

/// All that a replica holds once these rows arrived, one after the other.
async fn replica_after(table: TableId, arrivals: &[Arrival]) -> Vec<(u8, Vec<u8>, Vec<u8>)> {
    let node = TestNode::new(1);
    let db = Db::open(&node.runtime(), Arc::new(MemoryEngine::new(keyspaces::SPECS)), DbOptions::default()).await.unwrap();
    let schemas = schemas(node.runtime());
    let discipline = schemas.get(table).unwrap().discipline();
    let store = Store::new(db, schemas);
    if table == OLDER_VERSION {
        // An older version is taken only where the row that made it one is held.
        for key in 0..KEYS_COUNT {
            let (_, row) = row_of(VERSION, key, 0);
            let entry = Entry { stamp: Stamp::from_parts(100, 1, false), id: WriteId([100 + key; 32]) };
            let message = Message::Apply { entry, ballot: entry.stamp };
            let (key, content) = (null_slot(&format!("key/{key}")), Some(ByteBuf::from(row)));
            let op = Op::Register { table: VERSION, key, message, content, companions: Vec::new(), want: Want::Row };
            store.serve(GroupCall { group: group().key().clone(), ops: vec![op] }).await.unwrap();
        }
    }
    for arrived in arrivals {
        let ops = vec![arrival(table, discipline, *arrived)];
        store.serve(GroupCall { group: group().key().clone(), ops }).await.unwrap();
    }
    let dump = |snapshot: &dyn garage_db::Snapshot| {
        let of = |keyspace: Keyspace| {
            let items = snapshot.prefix(keyspace, &[], Direction::Forward).map(Result::unwrap);
            items.map(|(key, value)| (keyspace.0, key.to_vec(), value.to_vec())).collect::<Vec<_>>()
        };
        // A count that came back to nothing is as good as none.
        let nothing = Counters::default().to_stored();
        COMPARED.into_iter().flat_map(of).filter(|(_, _, value)| *value != nothing).collect::<Vec<_>>()
    };
    store.db().read(move |snapshot| dump(snapshot)).await.unwrap()
}

fn all_tables() -> Vec<TableId> {
    let schemas = schemas(TestNode::new(1).runtime());
    (0..=u8::MAX).map(TableId).filter(|table| schemas.get(*table).is_ok()).collect()
}

/// Rows, and the same rows in another order, some of them again.
fn two_orders() -> impl Strategy<Value = (Vec<Arrival>, Vec<Arrival>)> {
    let rows = prop::collection::vec((0..KEYS_COUNT, 0u8..8), 1..9);
    rows.prop_flat_map(|rows| {
        let again = prop::sample::subsequence(rows.clone(), 0..=rows.len());
        (Just(rows), again)
    })
    .prop_flat_map(|(rows, again)| (Just(rows.clone()), Just([rows, again].concat()).prop_shuffle()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn replicas_of_every_table_end_alike_whatever_the_order_and_repetition((rows, others) in two_orders()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        for table in all_tables() {
            let (one, two) = runtime.block_on(async { (replica_after(table, &rows).await, replica_after(table, &others).await) });
            let parting = one.iter().zip(&two).find(|(one, two)| one != two);
            prop_assert_eq!((parting, one.len()), (None, two.len()), "table {}", table.0);
            let is_kept = one.iter().any(|(keyspace, key, _)| *keyspace == keyspaces::ROWS.0 && key[0] == table.0);
            prop_assert!(is_kept, "table {}: no row was taken", table.0);
        }
    }
}
