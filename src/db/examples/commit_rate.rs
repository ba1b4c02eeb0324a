//! Prints how many durable small commits a second the store takes: `commit_rate [DIRECTORY] [WRITERS] [SECONDS]`.

use std::{sync::Arc, time::Duration};

use garage_db::{Db, DbOptions, EngineError, FjallEngine, FjallOptions, Keyspace, KeyspaceSpec};
use garage_util::runtime::Runtime;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().unwrap_or_else(|| "commit-rate-store".into());
    let writers_count: u64 = arguments.next().unwrap_or_else(|| "256".into()).parse()?;
    let seconds: u64 = arguments.next().unwrap_or_else(|| "5".into()).parse()?;
    let specs = [KeyspaceSpec { name: "rows", large_values: false }, KeyspaceSpec { name: "payloads", large_values: true }];
    let (runtime, tasks) = Runtime::real();
    let engine = Arc::new(FjallEngine::new(FjallOptions::new(directory, &specs)));
    let db = Db::open(&runtime, engine, DbOptions::default()).await?;
    println!("opened at commit {}, recovering: {:?}", db.commit_number(), db.recovering());
    let end = tokio::time::Instant::now() + Duration::from_secs(seconds);
    let writers: Vec<_> = (0..writers_count).map(|writer| tokio::spawn(write_until(end, db.clone(), writer))).collect();
    let mut commits_count = 0;
    for writer in writers {
        commits_count += writer.await?;
    }
    println!("{writers_count} writers: {} operations/s in {} batches/s", commits_count / seconds, db.commit_number() / seconds);
    println!(
        "{}",
        std::fs::read_to_string("/proc/self/status")?
            .lines()
            .filter(|line| line.starts_with("VmRSS") || line.starts_with("VmHWM"))
            .collect::<String>()
    );
    db.close().await?;
    tasks.stop(Duration::from_secs(5)).await;
    Ok(())
}

async fn write_until(end: tokio::time::Instant, db: Db, writer: u64) -> u64 {
    let mut number = 0;
    while tokio::time::Instant::now() < end {
        let key = [writer.to_be_bytes(), u64::to_be_bytes(number)].concat();
        let done = db.transact(move |transaction| {
            if transaction.get(Keyspace(0), &key)?.is_none() {
                transaction.put(Keyspace(0), key, vec![7; 200]);
            }
            Ok::<_, EngineError>(())
        });
        match done.await {
            Ok(_) => number += 1,
            Err(error) => println!("{error}"),
        }
    }
    number
}
