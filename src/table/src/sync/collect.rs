//! Drops what says only that nothing is there, once nothing older can come back; and what is remembered of operations long over.
//!
//! A tombstone goes in two rounds. In the first every node of every live layout version confirms that it holds exactly this tombstone, and
//! holds its partition whole. In the second, under the same layout, each drops it and raises the floor of the partition to its stamp: a
//! coordinator's message at or below the floor, for a key of which no row is held, counts as outrun. A node that was not in the layout,
//! or came back from a loss, takes the floor over with the partition, and drops what it has left at or below it.
//!
//! Promises and trails are forgotten once every operation that could ask about them is over. What was forgotten stays known as a moment:
//! who asks about earlier ones is told that the memory is not complete.

use std::collections::{BTreeMap, BTreeSet};

use futures::{FutureExt, future::BoxFuture};
use garage_db::{Direction, Snapshot, Transaction};
use garage_net::NodeId;
use garage_rpc::register::RegisterSide;
use garage_util::{
    hlc::Stamp,
    workers::{Report, Step, StepError, Worker},
};
use tokio::time::Instant;

use super::{
    Syncer,
    held::ring_partitions,
    held_partitions,
    message::{ConfirmTombstones, DropTombstones, pack_rows, unpack_rows},
    pass::SyncError,
    sides,
    take::remove_row,
};
use crate::{
    digest::{self, KeyHash, RowHash},
    key::{TableId, split_local_key},
    keyspaces,
    limits::{COLLECT_PERIOD, FORGET_AFTER, TOMBSTONE_AGE_MIN, TOMBSTONES_PER_ROUND_MAX},
    schema::{RowView, Schemas, StoreError},
    store::{held_row, raise_forgotten, raise_partition_floor, tombstone_queue_key, tombstone_queue_prefix},
};

/// Collects the partitions that this node is the first of, one after the other; forgets in all that it holds.
pub(super) struct CollectWorker {
    syncer: Syncer,
    /// The partition of the next step.
    next: u8,
    /// A node that has just started has better things to do.
    not_before: Instant,
    collected_count: usize,
}

/// A tombstone: its row by key hash and row hash.
type Tombstone = (KeyHash, RowHash);

impl CollectWorker {
    pub(super) fn new(syncer: Syncer) -> CollectWorker {
        CollectWorker { syncer, next: 0, not_before: Instant::now() + COLLECT_PERIOD, collected_count: 0 }
    }

    async fn work(&mut self) -> Result<Step, SyncError> {
        let wait = self.not_before.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            return Ok(Step::Idle(wait));
        }
        let cluster = self.syncer.cluster().clone();
        let history = cluster.layout();
        let held = held_partitions(&history, cluster.local());
        let Some(partition) = held.range(self.next..).next().copied() else {
            self.next = 0;
            return Ok(Step::Idle(COLLECT_PERIOD));
        };
        let is_last = partition == u8::MAX;
        self.next = partition.wrapping_add(1);
        if self.syncer.is_whole(partition) {
            self.forget(partition).await?;
            let holders: BTreeSet<NodeId> = history
                .live()
                .flat_map(|version| {
                    ring_partitions(partition, version.partition_count).flat_map(|ring| version.nodes_of(ring).collect::<Vec<_>>())
                })
                .collect();
            if holders.iter().find(|node| cluster.is_up(**node)) == Some(&cluster.local())
                && holders.iter().all(|node| cluster.is_up(*node))
            {
                self.collected_count += self.collect(partition, &holders).await?;
            }
        }
        Ok(if is_last { Step::Idle(COLLECT_PERIOD) } else { Step::Busy })
    }

    async fn collect(&self, partition: u8, holders: &BTreeSet<NodeId>) -> Result<usize, SyncError> {
        let due_ms = self.syncer.now_ms().saturating_sub(TOMBSTONE_AGE_MIN.as_millis() as u64);
        let schemas = self.syncer.store.schemas().clone();
        let due = self.syncer.store.db().read(move |snapshot| due_tombstones(snapshot, &schemas, partition, due_ms)).await??;
        let layout = self.syncer.cluster().layout_mark();
        let mut collected_count = 0;
        for (table, mut tombstones) in due {
            for node in holders {
                let question = ConfirmTombstones { table, partition, rows: pack_rows(&tombstones) };
                let answer = self.syncer.call(*node, &question).await?;
                let confirmed: BTreeSet<usize> = exact(&answer.are_exact);
                tombstones =
                    tombstones.into_iter().enumerate().filter(|(index, _)| confirmed.contains(index)).map(|(_, row)| row).collect();
            }
            if tombstones.is_empty() || layout != self.syncer.cluster().layout_mark() {
                continue;
            }
            // This node last: it tries again as long as it holds one.
            let others = holders.iter().filter(|node| **node != self.syncer.cluster().local());
            for node in others.copied().chain([self.syncer.cluster().local()]) {
                self.syncer.call(node, &DropTombstones { table, partition, rows: pack_rows(&tombstones) }).await?;
            }
            collected_count += tombstones.len();
        }
        Ok(collected_count)
    }

    /// Forgets promises and trails of operations that are over for sure.
    async fn forget(&self, partition: u8) -> Result<(), SyncError> {
        let horizon_ms = self.syncer.now_ms().saturating_sub(FORGET_AFTER.as_millis() as u64);
        let horizon = Stamp::from_parts(horizon_ms << 16, 0, false);
        let forget = move |side: &mut RegisterSide| side.forget_below(horizon);
        sides::change_all(&self.syncer, partition, forget, move |transaction, table| {
            raise_forgotten(transaction, table, partition, horizon)
        })
        .await
    }
}

impl Worker for CollectWorker {
    fn name(&self) -> String {
        "table GC".to_string()
    }
    fn step(&mut self) -> BoxFuture<'_, Result<Step, StepError>> {
        async move { Ok(self.work().await?) }.boxed()
    }
    fn report(&self) -> Report {
        let messages = vec![format!("{} tombstones were dropped", self.collected_count)];
        Report { tranquility: Some(2), progress: Some(format!("partition {} of 256", self.next)), messages, ..Report::default() }
    }
}

fn exact(are_exact: &[u8]) -> BTreeSet<usize> {
    are_exact.iter().enumerate().filter(|(_, is_exact)| **is_exact == 1).map(|(index, _)| index).collect()
}

/// The oldest tombstones of a partition that are due, by table.
fn due_tombstones(
    snapshot: &dyn Snapshot,
    schemas: &Schemas,
    partition: u8,
    due_ms: u64,
) -> Result<BTreeMap<TableId, Vec<Tombstone>>, StoreError> {
    let mut due: BTreeMap<TableId, Vec<Tombstone>> = BTreeMap::new();
    for table in schemas.ids() {
        let prefix = tombstone_queue_prefix(table, partition);
        for item in snapshot.prefix(keyspaces::LOCAL, &prefix, Direction::Forward).take(TOMBSTONES_PER_ROUND_MAX) {
            let (key, _) = item?;
            let rest = &key[prefix.len()..];
            let (Some(since), Some(key_hash)) = (rest.first_chunk::<8>(), rest.get(8..).and_then(|rest| rest.first_chunk::<16>())) else {
                continue;
            };
            if due_ms < u64::from_be_bytes(*since) {
                break;
            }
            let key_hash = KeyHash(*key_hash);
            if let Some((row_hash, _)) = digest::indexed_row(snapshot, table, partition, key_hash)? {
                due.entry(table).or_default().push((key_hash, row_hash));
            }
        }
    }
    Ok(due)
}

/// Whether a row is held exactly so, and is a tombstone; with its stamp, the key under which it is queued, and its local key.
fn tombstone(
    snapshot: &dyn Snapshot,
    schemas: &Schemas,
    table: TableId,
    partition: u8,
    (key_hash, row_hash): Tombstone,
) -> Result<Option<(Stamp, Vec<u8>, bytes::Bytes)>, StoreError> {
    let schema = schemas.get(table)?;
    let Some((held_hash, local_key)) = digest::indexed_row(snapshot, table, partition, key_hash)? else { return Ok(None) };
    let Some((_, _, sort_key)) = split_local_key(&local_key) else { return Ok(None) };
    let Some(bytes) = snapshot.get(keyspaces::ROWS, &local_key)? else { return Ok(None) };
    let row = held_row(schema.discipline(), &bytes)?;
    let since_ms = schema.tombstone_since_ms(&sort_key.0, RowView { entry: row.entry, content: &row.content });
    let Some(since_ms) = since_ms.filter(|_| held_hash == row_hash) else { return Ok(None) };
    let stamp = row.entry.map_or(Stamp::ZERO, |entry| entry.stamp);
    Ok(Some((stamp, tombstone_queue_key(table, partition, since_ms, key_hash), local_key)))
}

/// Which of the rows are held exactly so and are tombstones.
pub(super) fn confirm(snapshot: &dyn Snapshot, schemas: &Schemas, question: &ConfirmTombstones) -> Result<Vec<u8>, StoreError> {
    unpack_rows(&question.rows)
        .take(TOMBSTONES_PER_ROUND_MAX)
        .map(|row| Ok(u8::from(tombstone(snapshot, schemas, question.table, question.partition, row)?.is_some())))
        .collect()
}

/// Drops those of the rows that are still held exactly so; tells which.
pub(super) fn drop_confirmed(
    transaction: &mut Transaction<'_>,
    schemas: &Schemas,
    question: &DropTombstones,
) -> Result<Vec<u8>, StoreError> {
    let (table, partition) = (question.table, question.partition);
    let mut dropped = Vec::new();
    for row in unpack_rows(&question.rows).take(TOMBSTONES_PER_ROUND_MAX) {
        let found = tombstone(transaction, schemas, table, partition, row)?;
        dropped.push(u8::from(found.is_some()));
        let Some((stamp, queue_key, local_key)) = found else { continue };
        let Some((_, group, _)) = split_local_key(&local_key) else { continue };
        raise_partition_floor(transaction, table, partition, stamp)?;
        remove_row(transaction, table, &group, &local_key, row.1)?;
        transaction.delete(keyspaces::LOCAL, queue_key);
    }
    Ok(dropped)
}
