//! What it costs to compare replicas: nothing but digests where they are equal, about the rows that differ where they are not.
//!
//! `SYNC_ROWS=1000000 cargo test --workspace --test sim -- sync_cost --nocapture`: with a million rows; the default suits CI.

use std::time::Duration;

use garage_model::rows::VERSION;
use garage_rpc::register::{self, Entry, WriteId};
use garage_sim::cluster::{Cluster, ClusterOptions};
use garage_table::{
    Group, SortKey, Store,
    message::{Op, Want},
    schema::StoreError,
    store::apply_one,
};
use garage_util::{encoding::Stored, hlc::Stamp};
use serde_bytes::ByteBuf;
use tokio::time::sleep;

const ROWS_COUNT_DEFAULT: u64 = 20_000;
const ROWS_PER_COMMIT: u64 = 10_000;
/// Groups over which the rows are spread: a few buckets of sixteen shards each.
const GROUPS_COUNT: u64 = 64;

fn rows_count() -> u64 {
    std::env::var("SYNC_ROWS").map_or(ROWS_COUNT_DEFAULT, |text| text.parse().expect("SYNC_ROWS is a number"))
}

fn group(number: u64) -> Group {
    Group::new(format!("group {}", number % GROUPS_COUNT).into_bytes())
}

/// Writes rows behind the back of the cluster.
async fn write_rows(store: &Store, numbers: std::ops::Range<u64>, stamp_ms: u64) {
    let marker = garage_model::rows::object::VersionRow::DeleteMarker { modified_ms: stamp_ms }.to_stored();
    let mut from = numbers.start;
    while from < numbers.end {
        let (to, schemas, marker) = ((from + ROWS_PER_COMMIT).min(numbers.end), store.schemas().clone(), marker.clone());
        let committed = store.db().transact(move |transaction| {
            for number in from..to {
                let mut id = [0; 32];
                id[..8].copy_from_slice(&number.to_be_bytes());
                let entry = Entry { stamp: Stamp::from_parts(stamp_ms << 16, number, false), id: WriteId(id) };
                let message = register::Message::Apply { entry, ballot: entry.stamp };
                let key = garage_model::rows::object::null_slot(&format!("key/{number:08}"));
                let content = Some(ByteBuf::from(marker.clone()));
                let op = Op::Register { table: VERSION, key: SortKey(key.0), message, content, companions: Vec::new(), want: Want::Row };
                apply_one(&schemas, transaction, &group(number), op)?;
            }
            Ok::<(), StoreError>(())
        });
        committed.await.expect("a store in memory takes rows");
        from = to;
    }
}

#[test]
fn equal_replicas_cost_their_digests_and_different_ones_the_rows_that_differ() {
    garage_sim::run(async {
        let mut cluster = Cluster::start(1, ClusterOptions::exact(Duration::from_millis(10))).await;
        let (count, now_ms) = (rows_count(), garage_sim::surroundings::EPOCH_MS);
        for node in [0, 1] {
            write_rows(&cluster.node(node).store, 0..count, now_ms).await;
        }
        // The third node stays out of it.
        cluster.crash(2);
        sleep(Duration::from_secs(5)).await;
        let (node, peer) = (cluster.node(0).syncer.clone(), cluster.id(1));
        let before = cluster.network().traffic("table/");
        let report = node.repair_with(peer).await.unwrap();
        let after = cluster.network().traffic("table/");
        println!("{count} equal rows: {} calls, {} bytes, {report:?}", after.calls_count - before.calls_count, after.bytes - before.bytes);
        assert_eq!((report.differing_count, report.pulled_count, report.given_count), (0, 0, 0));
        assert!(after.calls_count - before.calls_count <= 8, "other calls of tables go on beside it");
        assert!(after.bytes - before.bytes < 1 << 20, "{} bytes", after.bytes - before.bytes);

        // 60 rows that only the peer has, 40 that it has newer, and 10 that only this node has.
        write_rows(&cluster.node(1).store, count..count + 60, now_ms).await;
        write_rows(&cluster.node(1).store, 1_000..1_040, now_ms + 1).await;
        write_rows(&cluster.node(0).store, count + 60..count + 70, now_ms).await;
        let before = cluster.network().traffic("table/");
        let report = node.repair_with(peer).await.unwrap();
        let after = cluster.network().traffic("table/");
        println!("110 differing rows: {} calls, {} bytes, {report:?}", after.calls_count - before.calls_count, after.bytes - before.bytes);
        assert_eq!((report.pulled_count, report.given_count, report.settled_count), (100, 10, 0));
        assert_eq!(node.repair_with(peer).await.unwrap().differing_count, 0);
    });
}
