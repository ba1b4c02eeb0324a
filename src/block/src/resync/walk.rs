//! Looks at every block of a node: those it has a reference to and those it has a file of. For repairs, for a disk that was replaced,
//! and after every change of the layout. Another kind of walk moves files to the data directory they belong to.

use std::{ops::Bound, sync::atomic::Ordering};

use futures::{FutureExt, future::BoxFuture};
use garage_db::Direction;
use garage_table::{
    key::{after_prefix, split_escaped},
    keyspaces,
};
use garage_util::workers::{Report, Step, StepError, Wake, Worker, Workers};

use super::{Resync, queue::QueueError};
use crate::{
    hash::BlockHash,
    limits::{QUEUE_SCAN_COUNT, RESYNC_WORKERS_MAX_COUNT},
    reference::REFERENCE_TABLE,
    store::WalkPosition,
};

/// Walks that may go on at once; one more is refused.
const WALKS_MAX_COUNT: usize = RESYNC_WORKERS_MAX_COUNT;

/// What a walk does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WalkKind {
    /// Queues every referenced and every stored block for a look (`repair blocks`).
    Repair,
    /// Moves every stored block to the data directory it belongs to (`repair rebalance`).
    Rebalance,
}

impl Resync {
    /// Starts a walk in a worker of its own; false: as many as may be are under way.
    pub fn walk(&self, kind: WalkKind, workers: &Workers) -> bool {
        let admitted =
            self.0.walks.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |count| (count < WALKS_MAX_COUNT).then_some(count + 1));
        if admitted.is_err() {
            return false;
        }
        let place = match kind {
            WalkKind::Repair => Place::References(None),
            WalkKind::Rebalance => Place::Files(WalkPosition(0)),
        };
        workers.start(
            Walk { resync: self.clone(), kind, place, seen_count: 0, moved_count: 0, _admitted: Admitted(self.clone()) },
            Wake::default(),
        );
        true
    }

    /// The blocks after `after` that this node has references to, at most `limit_count`; in no order but that of the local keys.
    async fn referenced(&self, after: Option<Vec<u8>>, limit_count: usize) -> Result<(Vec<BlockHash>, Option<Vec<u8>>), QueueError> {
        let store = self.0.manager.service().references().table_store().clone();
        let read = store.db().read(move |snapshot| {
            let table = [REFERENCE_TABLE.0];
            let end = after_prefix(&table);
            let from = after.as_deref().map_or(Bound::Included(&table[..]), Bound::Excluded);
            let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let (mut hashes, mut last) = (Vec::new(), None);
            for item in snapshot.range(keyspaces::ROWS, from, to, Direction::Forward).take(limit_count) {
                let (key, _) = item.map_err(|error| error.to_string())?;
                // Local key: table, four bytes of the group's hash, then the escaped block hash.
                let hash = key.get(5..).and_then(split_escaped).and_then(|(hash, _)| <[u8; 32]>::try_from(hash).ok());
                hashes.extend(hash.map(BlockHash));
                last = Some(key.to_vec());
            }
            Ok((hashes, last))
        });
        read.await.map_err(|error| error.to_string()).and_then(|found| found).map_err(QueueError::Read)
    }
}

/// Gives the place of a walk back.
struct Admitted(Resync);
impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.0.walks.fetch_sub(1, Ordering::SeqCst);
    }
}

enum Place {
    References(Option<Vec<u8>>),
    Files(WalkPosition),
    End,
}

struct Walk {
    resync: Resync,
    kind: WalkKind,
    place: Place,
    seen_count: u64,
    moved_count: u64,
    _admitted: Admitted,
}

impl Walk {
    async fn go_on(&mut self) -> Result<Step, StepError> {
        match &self.place {
            Place::References(after) => {
                let (mut hashes, last) = self.resync.referenced(after.clone(), QUEUE_SCAN_COUNT).await?;
                hashes.dedup();
                self.seen_count += hashes.len() as u64;
                self.resync.look_at(hashes).await?;
                self.place = last.map_or(Place::Files(WalkPosition(0)), |last| Place::References(Some(last)));
            }
            Place::Files(position) => {
                let Some(step) = self.resync.0.manager.service().store().walk(*position).await? else {
                    self.place = Place::End;
                    return Ok(Step::Done);
                };
                self.seen_count += step.hashes.len() as u64;
                match self.kind {
                    WalkKind::Repair => self.resync.look_at(step.hashes).await?,
                    WalkKind::Rebalance => self.move_home(step.hashes).await?,
                }
                self.place = step.position.next().map_or(Place::End, Place::Files);
            }
            Place::End => return Ok(Step::Done),
        }
        Ok(Step::Busy)
    }

    async fn move_home(&mut self, hashes: Vec<BlockHash>) -> Result<(), StepError> {
        let store = self.resync.0.manager.service().store();
        for hash in hashes {
            let lock = store.lock([hash]).await;
            self.moved_count += u64::from(store.move_home(hash, &lock).await? == crate::store::Moved::Moved);
        }
        Ok(())
    }
}

impl Worker for Walk {
    fn name(&self) -> String {
        match self.kind {
            WalkKind::Repair => "Block repair worker".to_string(),
            WalkKind::Rebalance => "Block rebalance worker".to_string(),
        }
    }
    fn step(&mut self) -> BoxFuture<'_, Result<Step, StepError>> {
        self.go_on().boxed()
    }
    fn report(&self) -> Report {
        let progress = match &self.place {
            Place::References(_) => format!("references, {} blocks", self.seen_count),
            Place::Files(position) => format!("{:.2}%", position.fraction() * 100.0),
            Place::End => "100.00%".to_string(),
        };
        let messages = match self.kind {
            WalkKind::Repair => vec![format!("{} blocks queued for a look", self.seen_count)],
            WalkKind::Rebalance => vec![format!("{} blocks moved", self.moved_count)],
        };
        Report { progress: Some(progress), messages, ..Report::default() }
    }
}
