//! The committer's promises, over the engine whose disk can lose what was not synced.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use garage_db::{
    Db, DbOptions, Direction, Durability, Engine, EngineError, Keyspace, KeyspaceSpec, Mark, MemoryEngine, Reason, TransactError,
};
use garage_util::runtime::{RealTasks, Runtime};

const SPECS: [KeyspaceSpec; 2] =
    [KeyspaceSpec { name: "rows", large_values: false }, KeyspaceSpec { name: "payloads", large_values: true }];
const ROWS: Keyspace = Keyspace(0);

/// One life of a process over the disk of `engine`.
async fn start(engine: &MemoryEngine, options: DbOptions) -> (Db, RealTasks) {
    let (runtime, tasks) = Runtime::real();
    (Db::open(&runtime, Arc::new(engine.clone()), options).await.unwrap(), tasks)
}

async fn stop(tasks: RealTasks) {
    assert!(tasks.stop(Duration::from_secs(10)).await);
}

fn put(db: &Db, key: &str) -> impl Future<Output = Result<u64, TransactError<EngineError>>> + use<> {
    let (db, key) = (db.clone(), key.to_string());
    async move {
        let done = db.transact(move |transaction| {
            transaction.put(ROWS, key.clone(), key);
            Ok(())
        });
        done.await.map(|committed| committed.commit_number)
    }
}

async fn keys(db: &Db) -> Vec<String> {
    let read = db.read(|snapshot| {
        snapshot
            .prefix(ROWS, b"", Direction::Forward)
            .map(|row| row.map(|(key, _)| String::from_utf8_lossy(&key).into_owned()))
            .collect::<Result<_, _>>()
    });
    read.await.unwrap().unwrap()
}

#[tokio::test]
async fn every_acknowledged_operation_outlives_a_crash_after_any_number_of_answers() {
    for answers_count in 0..20 {
        let engine = MemoryEngine::new(&SPECS);
        let (db, tasks) = start(&engine, DbOptions::default()).await;
        let mut waiting: FuturesUnordered<_> = (0..20)
            .map(|number| {
                let put = put(&db, &format!("{number:03}"));
                async move { (number, put.await) }
            })
            .collect();
        let mut acknowledged = Vec::new();
        for _ in 0..answers_count {
            let (number, outcome) = waiting.next().await.unwrap();
            outcome.unwrap();
            acknowledged.push(format!("{number:03}"));
        }
        drop(waiting);
        stop(tasks).await;
        engine.crash(0);

        let (db, tasks) = start(&engine, DbOptions::default()).await;
        assert_eq!(db.recovering(), None);
        let found = keys(&db).await;
        assert!(acknowledged.iter().all(|key| found.contains(key)), "{answers_count}: {found:?}");
        stop(tasks).await;
    }
}

#[tokio::test]
async fn buffered_commits_lost_by_a_crash_are_the_last_ones_and_the_store_stays_trusted() {
    let options = DbOptions { durability: Durability::Buffered, ..DbOptions::default() };
    for keep in 0..6 {
        let engine = MemoryEngine::new(&SPECS);
        let (db, tasks) = start(&engine, options).await;
        for number in 0..5 {
            put(&db, &number.to_string()).await.unwrap();
        }
        stop(tasks).await;
        let lost_count = engine.unsynced_count().saturating_sub(keep);
        engine.crash(keep);
        let (db, tasks) = start(&engine, options).await;
        assert_eq!(db.recovering(), None, "keep {keep}");
        assert_eq!(keys(&db).await, (0..5 - lost_count).map(|number| number.to_string()).collect::<Vec<_>>());
        stop(tasks).await;
    }
}

#[tokio::test]
async fn operations_that_wait_together_are_committed_together() {
    let engine = MemoryEngine::new(&SPECS);
    let (db, tasks) = start(&engine, DbOptions::default()).await;
    let before = db.commit_number();
    let numbers = futures::future::try_join_all((0..500).map(|number| put(&db, &number.to_string()))).await.unwrap();
    assert!(db.commit_number() - before < 100, "{} commits for 500 operations", db.commit_number() - before);
    assert!(numbers.is_sorted(), "operations are committed in the order they were submitted");
    stop(tasks).await;
}

#[tokio::test]
async fn a_queue_of_one_place_serves_everyone() {
    let engine = MemoryEngine::new(&SPECS);
    let (db, tasks) = start(&engine, DbOptions { queue_operations_max: 1, queue_bytes_max: 10, ..DbOptions::default() }).await;
    futures::future::try_join_all((0..100).map(|number| put(&db, &number.to_string()))).await.unwrap();
    assert_eq!(keys(&db).await.len(), 100);
    stop(tasks).await;
}

#[tokio::test]
async fn a_failed_or_panicking_operation_leaves_no_trace_and_delays_nobody() {
    let engine = MemoryEngine::new(&SPECS);
    let (db, tasks) = start(&engine, DbOptions::default()).await;
    let failing = db.transact(|transaction| {
        transaction.put(ROWS, "a", "overwritten");
        transaction.put(ROWS, "failed", "");
        Err::<(), _>("refused")
    });
    let panicking = db.transact(|transaction| -> Result<(), &str> {
        transaction.delete(ROWS, "a");
        panic!("planned")
    });
    let reading = db.transact(|transaction| Ok::<_, EngineError>((transaction.get(ROWS, b"a")?, transaction.get(ROWS, b"failed")?)));
    let (first, failed, panicked, read) = tokio::join!(put(&db, "a"), failing, panicking, reading);
    assert_eq!(failed, Err(TransactError::Operation("refused")));
    assert_eq!(panicked, Err(TransactError::Panicked));
    let read = read.unwrap();
    assert_eq!(read.value, (Some("a".into()), None));
    assert_eq!(read.commit_number, first.unwrap(), "what was read is durable before it is answered");
    assert_eq!(keys(&db).await, ["a"]);
    stop(tasks).await;
}

#[tokio::test]
async fn a_failed_batch_is_gone_and_the_next_one_goes_on() {
    let engine = MemoryEngine::new(&SPECS);
    let (db, tasks) = start(&engine, DbOptions::default()).await;
    put(&db, "before").await.unwrap();
    engine.fail_writes(1);
    let (first, second) = tokio::join!(put(&db, "first"), put(&db, "second"));
    assert!(matches!((first, second), (Err(TransactError::Engine(_)), Err(TransactError::Engine(_)))));
    assert_eq!(keys(&db).await, ["before"]);
    put(&db, "after").await.unwrap();
    assert_eq!(keys(&db).await, ["after", "before"]);
    stop(tasks).await;
}

#[tokio::test]
async fn a_batch_that_failed_as_the_node_crashed_may_be_found_whole_or_not_at_all() {
    for (keep, found) in [(0, vec!["before"]), (1, vec!["before", "first", "second"])] {
        let engine = MemoryEngine::new(&SPECS);
        let (db, tasks) = start(&engine, DbOptions::default()).await;
        put(&db, "before").await.unwrap();
        engine.fail_writes(1);
        let (first, second) = tokio::join!(put(&db, "first"), put(&db, "second"));
        assert!(first.is_err() && second.is_err());
        stop(tasks).await;
        engine.crash(keep);
        let (db, tasks) = start(&engine, DbOptions::default()).await;
        assert_eq!((keys(&db).await, db.recovering()), (found.iter().map(|key| key.to_string()).collect(), None));
        stop(tasks).await;
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_answers_reads_until_there_is_space() {
    let engine = MemoryEngine::new(&SPECS);
    let (db, tasks) = start(&engine, DbOptions::default()).await;
    put(&db, "before").await.unwrap();
    engine.set_full(true);
    assert!(matches!(put(&db, "refused").await, Err(TransactError::StorageFull { .. })));
    assert_eq!(keys(&db).await, ["before"]);
    engine.set_full(false);
    put(&db, "welcome").await.unwrap();
    assert_eq!(keys(&db).await, ["before", "welcome"]);
    stop(tasks).await;
}

#[tokio::test]
async fn closing_makes_everything_durable_and_refuses_what_comes_later() {
    let engine = MemoryEngine::new(&SPECS);
    let options = DbOptions { durability: Durability::Buffered, ..DbOptions::default() };
    let (db, tasks) = start(&engine, options).await;
    put(&db, "a").await.unwrap();
    db.close().await.unwrap();
    assert_eq!(engine.unsynced_count(), 0);
    assert_eq!(engine.read_mark().unwrap(), Some(Mark { store_id: db.store_id(), commit_number: db.commit_number() }));
    assert_eq!(put(&db, "b").await, Err(TransactError::Stopping));
    assert_eq!(keys(&db).await, ["a"]);
    stop(tasks).await;
}

#[tokio::test]
async fn a_store_keeps_its_id_and_a_lossy_one_is_replaced_until_refilled() {
    let engine = MemoryEngine::new(&SPECS);
    let (db, tasks) = start(&engine, DbOptions::default()).await;
    let first_id = db.store_id();
    put(&db, "a").await.unwrap();
    let image = engine.image();
    put(&db, "b").await.unwrap();
    let acknowledged = engine.read_mark().unwrap().unwrap();
    stop(tasks).await;
    let (db, tasks) = start(&engine, DbOptions::default()).await;
    assert_eq!((db.store_id(), db.recovering()), (first_id, None));
    stop(tasks).await;

    // The disk as it was one commit ago, under the note of now.
    image.write_mark(&acknowledged, Durability::Synced).unwrap();
    let (db, tasks) = start(&image, DbOptions::default()).await;
    assert!(matches!(db.recovering(), Some(Reason::LostCommits { .. })), "{:?}", db.recovering());
    assert_ne!(db.store_id(), first_id);
    assert_eq!((keys(&db).await, image.aside_count()), (Vec::new(), 1));
    stop(tasks).await;

    let (db, tasks) = start(&image, DbOptions::default()).await;
    assert!(matches!(db.recovering(), Some(Reason::Earlier(_))), "a restart does not end the recovery");
    db.recovered().await.unwrap();
    assert_eq!(db.recovering(), None);
    stop(tasks).await;
    let (db, tasks) = start(&image, DbOptions::default()).await;
    assert_eq!(db.recovering(), None);
    stop(tasks).await;
}

#[tokio::test]
async fn an_unreadable_store_is_set_aside() {
    let engine = MemoryEngine::new(&SPECS);
    let (_db, tasks) = start(&engine, DbOptions::default()).await;
    stop(tasks).await;
    engine.damage();
    let (db, tasks) = start(&engine, DbOptions::default()).await;
    assert!(matches!(db.recovering(), Some(Reason::Unreadable { .. })));
    put(&db, "a").await.unwrap();
    stop(tasks).await;
}
