//! In which partitions this node's answers count: those of which it holds every row that it ever acknowledged.
//!
//! A node whose store was lost, or set back to an older state, knows less than others rely on. Until it is refilled from a read quorum of
//! the others it answers *recovering* instead of voting. What it has to refill it finds out by itself: the layout says how far it had
//! once declared itself in sync, and its store says how far *this* store ever was.
//!
//! Invariants:
//! - what makes a partition incomplete is durable before this node says that it is in sync with any version;
//! - a partition becomes complete only by being refilled;
//! - before anyone was asked whether this store was set back, nothing counts;
//! - of a store that says itself that it was begun anew or restored from a snapshot, nothing counts that was not refilled.
//!
//! Not here: how a partition is refilled (`sync`).

use std::{collections::BTreeSet, sync::Arc};

use garage_db::{Db, DbError, EngineError, StoreId, TransactError};
use garage_net::NodeId;
use garage_rpc::{Cluster, StoreMark, layout::LayoutHistory, membership::OwnStore};
use garage_util::encoding::Stored;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use tokio::time::Instant;

use crate::{
    keyspaces,
    limits::LOST_PROMISES_GRACE,
    sync::{digest_partitions, held_partitions},
};

const KEY: &[u8] = b"standing";

/// What the store itself knows of its standing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// The newest layout version that this store was in sync with.
    synced: u64,
    /// The epoch of the layout in which that was.
    #[serde(default)]
    epoch: u64,
    /// Digest partitions whose rows are not all here, ascending.
    incomplete: ByteBuf,
    /// Those of them that moved away and are being dropped: what is left of them says nothing.
    #[serde(default)]
    dropping: ByteBuf,
    /// The greatest loss of this store that has led to the above.
    #[serde(default)]
    seen_to: Option<StoreMark>,
    /// The store whose own word that it is not what was acknowledged has led to the above.
    #[serde(default)]
    owned_up: Option<StoreId>,
}

impl Stored for Record {
    const WHAT: &'static str = "standing";
}

/// Why a standing can't be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum StandingError {
    /// The store can't be read.
    #[error(transparent)]
    Read(#[from] DbError),
    /// The store can't be read.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// What is stored makes no sense.
    #[error(transparent)]
    Decode(#[from] garage_util::encoding::DecodeError),
    /// The store can't be written.
    #[error(transparent)]
    Write(#[from] TransactError<EngineError>),
}

/// Whether answers about a partition count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counts {
    /// They do.
    Yes,
    /// They do not; what is written is kept all the same.
    Keeps,
    /// They do not, and registers must not be changed: what was promised in them before the loss is not known yet.
    Refuses,
}

/// The standing of a node. Cheap to clone.
#[derive(Clone)]
pub struct Standing {
    db: Db,
    state: Arc<RwLock<State>>,
}

struct State {
    record: Record,
    /// The store was there before standings were recorded: it is taken at the word of the layout, once.
    is_unrecorded: bool,
    /// Incomplete partitions whose lost promises were learnt from a read quorum.
    promising: BTreeSet<u8>,
    started_at: Instant,
}

impl Standing {
    /// The standing of a store.
    pub async fn open(db: Db) -> Result<Standing, StandingError> {
        let bytes = db.read(|snapshot| snapshot.get(keyspaces::LOCAL, KEY)).await??;
        let record = bytes.as_deref().map(Record::from_stored).transpose()?;
        // A snapshot brings along the standing of the store that it was taken of, which had acknowledged more since.
        let owns_up = db.recovering().is_some() && record.as_ref().is_none_or(|record| record.owned_up != Some(db.store_id()));
        let is_unrecorded = record.is_none() && !db.is_new() && !owns_up;
        let mut record = record.unwrap_or_default();
        if owns_up {
            (record.synced, record.owned_up) = (0, Some(db.store_id()));
        }
        let state = State { record, is_unrecorded, promising: BTreeSet::new(), started_at: Instant::now() };
        let standing = Standing { db, state: Arc::new(RwLock::new(state)) };
        if !is_unrecorded {
            standing.save(|_| {}).await?;
        }
        Ok(standing)
    }

    /// Whether answers about a digest partition count.
    pub fn counts(&self, cluster: &Cluster, partition: u8) -> Counts {
        match cluster.own_store() {
            OwnStore::Good => {}
            // It may have been set back: whoever knows is yet to be heard. Where there is nobody else, there is nobody to know.
            OwnStore::Unheard if is_alone(cluster) => {}
            OwnStore::Unheard | OwnStore::SetBack(_) => return Counts::Refuses,
        }
        let state = self.state.read();
        // The layout says more than the store, and what that means is not worked out yet.
        if state.record.synced < cluster.layout().trackers(cluster.local()).sync {
            return Counts::Refuses;
        }
        match (state.record.incomplete.contains(&partition), state.promising.contains(&partition)) {
            (false, _) => Counts::Yes,
            (true, true) => Counts::Keeps,
            (true, false) => Counts::Refuses,
        }
    }

    /// The digest partitions that are not complete, ascending.
    pub fn incomplete(&self) -> BTreeSet<u8> {
        self.state.read().record.incomplete.iter().copied().collect()
    }

    /// The newest layout version that this store was in sync with, and the epoch of that layout.
    pub fn synced(&self) -> (u64, u64) {
        let state = self.state.read();
        (state.record.synced, state.record.epoch)
    }

    /// Finds out what is missing here, by what the layout and the others say; durable on return.
    pub(crate) async fn reconcile(&self, cluster: &Cluster) -> Result<(), StandingError> {
        let (history, local) = (cluster.layout(), cluster.local());
        let set_back = match cluster.own_store() {
            OwnStore::SetBack(known) => Some(known),
            _ => None,
        };
        let declared = history.trackers(local).sync;
        let (record, is_unrecorded) = {
            let state = self.state.read();
            (state.record.clone(), state.is_unrecorded)
        };
        if let Some(seen_to) = record.seen_to {
            cluster.own_store_seen_to(seen_to);
        }
        if is_unrecorded {
            // Written by a release that knew of no standings: nothing says that anything is missing.
            self.save(|record| (record.synced, record.epoch) = (declared, history.epoch())).await?;
            self.state.write().is_unrecorded = false;
        } else if record.synced < declared {
            let lost = lost_partitions(&history, local, record.synced, declared);
            if !lost.is_empty() {
                tracing::error!(
                    partitions = lost.len(),
                    "this node had declared itself in sync with layout version {declared}, and its store was so with version {} at most: \
                     until it is refilled from the others, its answers do not count",
                    record.synced
                );
            }
            self.save(|record| {
                add(record, &lost);
                record.synced = declared;
            })
            .await?;
        }
        if let Some(known) = set_back {
            let lost = held_partitions(&history, local);
            self.save(|record| {
                add(record, &lost);
                record.seen_to = Some(known);
            })
            .await?;
            cluster.own_store_seen_to(known);
        }
        Ok(())
    }

    /// Notes that this store holds all that `version` gives this node, but for what is incomplete; durable on return.
    pub(crate) async fn set_synced(&self, version: u64, epoch: u64) -> Result<(), StandingError> {
        self.save(|record| (record.synced, record.epoch) = (record.synced.max(version), record.epoch.max(epoch))).await
    }

    /// Whether what was promised before a loss can still matter: an operation that was promised something may still run.
    pub(crate) fn grace_left(&self) -> std::time::Duration {
        let until = self.state.read().started_at + LOST_PROMISES_GRACE;
        until.saturating_duration_since(Instant::now())
    }

    /// Notes that the promises of these partitions were learnt from a read quorum: writes are kept from now on.
    pub(crate) fn learnt_promises(&self, partitions: &[u8]) {
        self.state.write().promising.extend(partitions);
    }

    /// Notes that these partitions were refilled; durable on return.
    pub(crate) async fn refilled(&self, partitions: &BTreeSet<u8>) -> Result<(), StandingError> {
        self.save(|record| record.incomplete.retain(|partition| !partitions.contains(partition))).await?;
        if self.incomplete().is_empty() && self.db.recovering().is_some() {
            self.db.recovered().await?;
        }
        Ok(())
    }

    /// The partitions that moved away and are being dropped, ascending.
    pub(crate) fn being_dropped(&self) -> BTreeSet<u8> {
        self.state.read().record.dropping.iter().copied().collect()
    }
    /// Whether a partition is one of them.
    pub(crate) fn is_being_dropped(&self, partition: u8) -> bool {
        self.state.read().record.dropping.contains(&partition)
    }
    /// A partition that moved away is going to be dropped; durable on return.
    pub(crate) async fn begin_drop(&self, partition: u8) -> Result<(), StandingError> {
        self.save(|record| {
            add(record, &BTreeSet::from([partition]));
            record.dropping.push(partition);
        })
        .await
    }
    /// Nothing is left of it; durable on return.
    pub(crate) async fn dropped(&self, partition: u8) -> Result<(), StandingError> {
        self.save(|record| record.dropping.retain(|dropping| *dropping != partition)).await
    }

    /// Makes partitions incomplete, for tests and for operators who know of a loss; durable on return.
    pub async fn lose(&self, partitions: BTreeSet<u8>) -> Result<(), StandingError> {
        self.save(|record| add(record, &partitions)).await
    }

    async fn save(&self, change: impl FnOnce(&mut Record)) -> Result<(), StandingError> {
        let mut record = self.state.read().record.clone();
        change(&mut record);
        let bytes = record.to_stored();
        self.db
            .transact(move |transaction| {
                transaction.put(keyspaces::LOCAL, KEY, bytes);
                Ok::<(), EngineError>(())
            })
            .await?;
        let mut state = self.state.write();
        state.promising.retain(|partition| record.incomplete.contains(partition));
        state.record = record;
        Ok(())
    }
}

fn add(record: &mut Record, partitions: &BTreeSet<u8>) {
    let all: BTreeSet<u8> = record.incomplete.iter().chain(partitions).copied().collect();
    record.incomplete = ByteBuf::from(all.into_iter().collect::<Vec<u8>>());
}

fn is_alone(cluster: &Cluster) -> bool {
    cluster.layout().live_storage_nodes().into_iter().all(|node| node == cluster.local())
}

/// What a store that was in sync with version `synced` at most lacks, of what its node had declared itself in sync with.
///
/// A node that had no data to hold in those versions, as a gateway, lacks nothing, whatever it declared.
fn lost_partitions(history: &LayoutHistory, local: NodeId, synced: u64, declared: u64) -> BTreeSet<u8> {
    let before = history.version(synced).filter(|version| version.is_ready());
    let kept = before.map(|version| digest_partitions(version, local)).unwrap_or_default();
    let declared = history.live().filter(|version| version.is_ready() && version.version <= declared);
    declared.flat_map(|version| digest_partitions(version, local)).filter(|partition| !kept.contains(partition)).collect()
}
