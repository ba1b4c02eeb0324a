//! Drops what this node holds of partitions that have moved away.
//!
//! Invariants:
//! - nothing is dropped before every node that holds the partition now was shown all that is left here;
//! - before the first row goes, the partition counts as incomplete, durably: should the layout give it back meanwhile, it is emptied and
//!   refilled before any answer about it counts;
//! - dropping runs no hooks: nothing was deleted.

use std::{collections::BTreeSet, ops::Bound};

use futures::{FutureExt, future::BoxFuture};
use garage_db::{Direction, Keyspace, Snapshot, TransactError, Transaction};
use garage_net::NodeId;
use garage_util::workers::{Report, Step, StepError, Worker};
use tokio::time::Instant;

use super::{
    Syncer, held_partitions,
    pass::{Pass, Purpose, SyncError},
};
use crate::{
    key::after_prefix,
    keyspaces,
    limits::{EVICTED_KEYS_PER_COMMIT, EVICTION_LOOK_PERIOD},
    schema::StoreError,
};

/// Where a partition's data are, each under keys that begin with table and partition. The leaves and sums last: they say what is here.
const KEYSPACES: [Keyspace; 6] =
    [keyspaces::INDEX, keyspaces::ROWS, keyspaces::COMPANIONS, keyspaces::REGISTER, keyspaces::LEAVES, keyspaces::DIGEST];

/// Drops one partition after the other.
pub(super) struct EvictWorker {
    syncer: Syncer,
    /// A node that has just started has better things to do.
    not_before: Instant,
    dropped_count: usize,
}

impl EvictWorker {
    pub(super) fn new(syncer: Syncer) -> EvictWorker {
        EvictWorker { syncer, not_before: Instant::now() + EVICTION_LOOK_PERIOD, dropped_count: 0 }
    }

    async fn work(&mut self) -> Result<Step, SyncError> {
        let wait = self.not_before.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            return Ok(Step::Idle(wait));
        }
        let (syncer, cluster) = (&self.syncer, self.syncer.cluster());
        let history = cluster.layout();
        // A node outside the layout may call nobody: what it has is for its operator to delete.
        let is_settled = history.live().count() == 1 && history.live_storage_nodes().contains(&cluster.local());
        let held = held_partitions(&history, cluster.local());
        let lost_count = syncer.standing.incomplete().intersection(&held).count();
        if !is_settled || 0 < lost_count {
            return Ok(Step::Idle(EVICTION_LOOK_PERIOD));
        }
        let Some(partition) = left_over(syncer, held).await? else { return Ok(Step::Idle(EVICTION_LOOK_PERIOD)) };
        if !syncer.standing.is_being_dropped(partition) {
            let current = history.current();
            let owners: BTreeSet<NodeId> = super::held::ring_partitions(partition, current.partition_count)
                .flat_map(|ring| current.nodes_of(ring).collect::<Vec<_>>())
                .collect();
            for owner in owners {
                (Pass { syncer, peer: owner, purpose: Purpose::HandOver }).run(&[partition]).await?;
            }
            syncer.standing.begin_drop(partition).await?;
        }
        while !empty_some(syncer, partition, true).await? {}
        syncer.standing.dropped(partition).await?;
        self.dropped_count += 1;
        Ok(Step::Busy)
    }
}

impl Worker for EvictWorker {
    fn name(&self) -> String {
        "partition eviction".to_string()
    }
    fn step(&mut self) -> BoxFuture<'_, Result<Step, StepError>> {
        async move { Ok(self.work().await?) }.boxed()
    }
    fn report(&self) -> Report {
        let messages = vec![format!("{} partitions that moved away were dropped", self.dropped_count)];
        Report { tranquility: Some(1), messages, ..Report::default() }
    }
}

/// Empties a partition, so that it can be refilled from nothing.
pub(super) async fn empty(syncer: &Syncer, partition: u8) -> Result<(), SyncError> {
    while !empty_some(syncer, partition, false).await? {}
    Ok(())
}

/// The first digest partition of which something is here, and which is not among `held`.
async fn left_over(syncer: &Syncer, held: BTreeSet<u8>) -> Result<Option<u8>, SyncError> {
    let being_dropped = syncer.standing.being_dropped().into_iter().find(|partition| !held.contains(partition));
    if being_dropped.is_some() {
        return Ok(being_dropped);
    }
    let found = syncer.store.db().read(move |snapshot| {
        for keyspace in [keyspaces::ROWS, keyspaces::COMPANIONS, keyspaces::REGISTER] {
            if let Some(partition) = foreign_partition(snapshot, keyspace, &held)? {
                return Ok(Some(partition));
            }
        }
        Ok::<_, StoreError>(None)
    });
    Ok(found.await??)
}

/// Hops from one (table, partition) to the next, reading one key of each.
fn foreign_partition(snapshot: &dyn Snapshot, keyspace: Keyspace, held: &BTreeSet<u8>) -> Result<Option<u8>, StoreError> {
    let mut from = vec![0];
    loop {
        let Some(first) = snapshot.range(keyspace, Bound::Included(&from), Bound::Unbounded, Direction::Forward).next() else {
            return Ok(None);
        };
        let (key, _) = first?;
        match (key.get(1), after_prefix(&key[..key.len().min(2)])) {
            (Some(partition), _) if !held.contains(partition) => return Ok(Some(*partition)),
            (_, Some(next)) => from = next,
            (_, None) => return Ok(None),
        }
    }
}

/// Deletes some keys of a partition; whether none is left. With `while_foreign` it stops when the layout gives the partition back.
async fn empty_some(syncer: &Syncer, partition: u8, while_foreign: bool) -> Result<bool, SyncError> {
    let cluster = syncer.cluster().clone();
    let emptied = syncer.store.db().transact(move |transaction| {
        if while_foreign && held_partitions(&cluster.layout(), cluster.local()).contains(&partition) {
            return Err(StoreError::BadRequest(format!("partition {partition} is being dropped and was given back")));
        }
        let mut left_count = EVICTED_KEYS_PER_COMMIT;
        for keyspace in KEYSPACES {
            for table in 0..=u8::MAX {
                let keys = some_keys(transaction, keyspace, &[table, partition], left_count)?;
                left_count -= keys.len();
                keys.into_iter().for_each(|key| transaction.delete(keyspace, key));
                if left_count == 0 {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    });
    match emptied.await {
        Ok(committed) => Ok(committed.value),
        Err(error) => Err(TransactError::into(error)),
    }
}

fn some_keys(transaction: &Transaction<'_>, keyspace: Keyspace, prefix: &[u8], limit: usize) -> Result<Vec<bytes::Bytes>, StoreError> {
    let keys = transaction.prefix(keyspace, prefix, Direction::Forward).take(limit);
    Ok(keys.map(|item| item.map(|(key, _)| key)).collect::<Result<Vec<_>, _>>()?)
}
