//! Versions that were superseded on this replica: once that is some time ago, the nodes of their blocks are told to ask about them, and
//! what was kept beside their rows goes.
//!
//! Invariants:
//! - an entry is written in the transaction that replaces the row, and goes only after a write quorum of every block's holders was told;
//! - nothing is deleted here but companions of a version whose row this replica no longer holds.
//!
//! Not here: whether the blocks may go (`liveness`, asked by the blocks' own nodes).

use std::{collections::BTreeSet, time::Duration};

use futures::{FutureExt, future::BoxFuture, future::join_all};
use garage_block::BlockHash;
use garage_db::{Direction, TransactError, Transaction};
use garage_net::{Class, NodeId, Refusal};
use garage_rpc::{Message, RouterBuilder, message::Access, register::WriteId};
use garage_table::{Group, Store, TableId, group::RequestContext, keyspaces, message::Companion, schema::StoreError};
use garage_util::{
    encoding::Stored,
    hlc::Stamp,
    workers::{Report, Step, StepError, Worker},
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::marks;
use crate::{
    node::Node,
    objects::{STEP_TIMEOUT, versions::is_live},
    rows::payload::{PayloadChunk, chunk_of},
};

/// How long a version stays superseded before its blocks are asked about: longer than a request that could still install it.
pub const SETTLED_AFTER: Duration = Duration::from_secs(120);
/// How much longer the second replica of a group waits before it does the same, in case the first is away; the third twice as long.
pub const NEXT_REPLICA_AFTER: Duration = Duration::from_secs(300);
/// Entries looked at in one step.
const STEP_COUNT: usize = 64;
const IDLE: Duration = Duration::from_secs(30);
const _: () = assert!(2 * STEP_TIMEOUT.as_secs() < SETTLED_AFTER.as_secs());

/// A version that was superseded here.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Death {
    /// Its group.
    group: ByteBuf,
    /// Which.
    id: WriteId,
    /// When what superseded it was written, in milliseconds since 1970.
    since_ms: u64,
}

impl Stored for Death {
    const WHAT: &'static str = "superseded version";
}

/// Notes, in the transaction that replaces its row, that a version is superseded.
pub fn note(transaction: &mut Transaction<'_>, group: &Group, id: WriteId, by: Stamp) {
    let death = Death { group: ByteBuf::from(group.key().0.clone()), id, since_ms: by.millis() };
    transaction.put(keyspaces::DEATHS, death_key(group, id), death.to_stored());
}

fn death_key(group: &Group, id: WriteId) -> Vec<u8> {
    group.local_key(TableId(0), id.as_bytes())
}

/// The nodes of these versions' blocks were told; what is kept beside their rows can go.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Buried {
    group: ByteBuf,
    ids: Vec<WriteId>,
}
impl Message for Buried {
    const KIND: &'static str = "model/buried";
    const CLASS: Class = Class::Background;
    const ACCESS: Access = Access::Member;
    type Answer = ();
}

/// Answers other replicas of a group.
pub fn register(router: RouterBuilder, store: &Store) -> RouterBuilder {
    let store = store.clone();
    router.on_plain::<Buried, _>(move |_, _, message| {
        let store = store.clone();
        async move {
            let buried = bury(&store, Group::new(message.group.into_vec()), message.ids).await;
            buried.map_err(|error| Refusal { code: "Store".into(), message: error.to_string(), detail: Default::default() })
        }
    })
}

/// Removes the companions of versions that were superseded here, and their entries. Those that were not are left alone.
async fn bury(store: &Store, group: Group, ids: Vec<WriteId>) -> Result<(), TransactError<StoreError>> {
    let buried = store.db().transact(move |transaction| {
        for id in ids {
            let key = death_key(&group, id);
            if transaction.get(keyspaces::DEATHS, &key)?.is_some() {
                transaction.delete(keyspaces::DEATHS, key);
                // An older version may have been made current again.
                if is_live(transaction, &group, id)? != Some(true) {
                    garage_table::store::drop_companions(transaction, &group, id)?;
                }
            }
        }
        Ok::<(), StoreError>(())
    });
    buried.await.map(drop)
}

/// What a version had beside its row.
enum Estate {
    /// Nothing, or its inline content.
    NoBlocks,
    /// References, each by block and version or part.
    References(Vec<(BlockHash, [u8; 32])>),
}

/// Works off the entries of this replica.
pub struct DeathWorker {
    node: Node,
    after: Option<Vec<u8>>,
    waiting_count: u64,
    settled_count: u64,
}

impl DeathWorker {
    /// A worker over a node's replica.
    pub fn new(node: Node) -> DeathWorker {
        DeathWorker { node, after: None, waiting_count: 0, settled_count: 0 }
    }

    async fn work(&mut self) -> Result<Step, StepError> {
        let entries = self.entries().await?;
        let is_end = entries.len() < STEP_COUNT;
        if self.after.is_none() {
            self.waiting_count = 0;
        }
        self.waiting_count += entries.len() as u64;
        self.after = entries.last().map(|(key, _)| key.clone()).filter(|_| !is_end);
        for (key, death) in entries {
            let Some(death) = death else {
                self.forget(key).await?;
                continue;
            };
            if self.is_due(&death) && self.settle(death).await? {
                self.settled_count += 1;
            }
        }
        Ok(if is_end { Step::Idle(IDLE) } else { Step::Busy })
    }

    async fn entries(&self) -> Result<Vec<(Vec<u8>, Option<Death>)>, StepError> {
        let after = self.after.clone();
        let read = self.node.db.read(move |snapshot| {
            let from = after.as_deref().map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
            let mut entries = Vec::new();
            for item in snapshot.range(keyspaces::DEATHS, from, std::ops::Bound::Unbounded, Direction::Forward).take(STEP_COUNT) {
                let (key, value) = item?;
                entries.push((key.to_vec(), Death::from_stored(&value).ok()));
            }
            Ok::<_, garage_db::EngineError>(entries)
        });
        Ok(read.await??)
    }

    /// Removes an entry that cannot be read: the slow round of questions about all references finds what it was about.
    async fn forget(&self, key: Vec<u8>) -> Result<(), StepError> {
        let removed = self.node.db.transact(move |transaction| {
            transaction.delete(keyspaces::DEATHS, key);
            Ok::<(), StoreError>(())
        });
        removed.await?;
        Ok(())
    }

    /// Whether it is this replica's turn: the first of the group begins, the others wait longer, in case it is away.
    fn is_due(&self, death: &Death) -> bool {
        let cluster = &self.node.cluster;
        let Ok(placement) = cluster.placement(Group::new(death.group.to_vec()).hash()) else { return false };
        let rank = placement.majority.nodes().iter().position(|node| *node == cluster.local());
        let wait = SETTLED_AFTER + NEXT_REPLICA_AFTER * rank.unwrap_or(placement.majority.nodes().len()) as u32;
        death.since_ms.saturating_add(wait.as_millis() as u64) <= cluster.runtime().now_ms()
    }

    /// Tells the nodes of its blocks; true: that is done.
    async fn settle(&self, death: Death) -> Result<bool, StepError> {
        let group = Group::new(death.group.to_vec());
        let references = match self.estate(&group, death.id).await? {
            Estate::NoBlocks => Vec::new(),
            Estate::References(references) => references,
        };
        if !references.is_empty() {
            let tables = self.node.objects.tables();
            if marks::is_in_use(tables, &group, death.id).await != Some(false) {
                return Ok(false);
            }
            let context = RequestContext::within(STEP_TIMEOUT);
            let context = garage_block::manager::RequestContext { deadline: context.deadline, trace: 0 };
            if !self.node.blocks.hint(references, context).await? {
                return Ok(false);
            }
            self.tell_others(&group, death.id).await;
        }
        bury(&self.node.store, group, vec![death.id]).await?;
        Ok(true)
    }

    async fn estate(&self, group: &Group, id: WriteId) -> Result<Estate, StepError> {
        let chunks = self.companions(group, id).await?;
        let mut references = BTreeSet::new();
        for chunk in &chunks {
            match chunk_of(chunk)? {
                PayloadChunk::Inline(_) => return Ok(Estate::NoBlocks),
                PayloadChunk::Blocks(blocks) => references.extend(blocks.iter().map(|block| (block.hash, *id.as_bytes()))),
                PayloadChunk::Parts { parts, .. } => {
                    for part in parts {
                        for chunk in &self.companions(group, part.id).await? {
                            let PayloadChunk::Blocks(blocks) = chunk_of(chunk)? else { continue };
                            references.extend(blocks.iter().map(|block| (block.hash, *part.id.as_bytes())));
                        }
                    }
                }
            }
        }
        Ok(Estate::References(references.into_iter().collect()))
    }

    /// Those that this replica has: what it lacks, another replica tells of in its turn, or the slow round of questions finds.
    async fn companions(&self, group: &Group, id: WriteId) -> Result<Vec<Companion>, StepError> {
        let group = group.clone();
        Ok(self.node.db.read(move |snapshot| garage_table::store::companions_of(snapshot, &group, id)).await??)
    }

    async fn tell_others(&self, group: &Group, id: WriteId) {
        let cluster = &self.node.cluster;
        let Ok(placement) = cluster.placement(group.hash()) else { return };
        let others: Vec<NodeId> = placement.majority.nodes().into_iter().filter(|node| *node != cluster.local()).collect();
        let message = Buried { group: ByteBuf::from(group.key().0.clone()), ids: vec![id] };
        let options = RequestContext::within(STEP_TIMEOUT).call_options();
        let told = join_all(others.iter().map(|node| cluster.call(*node, &message, options))).await;
        for (node, told) in others.iter().zip(told) {
            if let Err(error) = told {
                tracing::debug!(node = %node.short(), %error, "a replica was not told of a settled version; it settles it in its turn");
            }
        }
    }
}

impl Worker for DeathWorker {
    fn name(&self) -> String {
        "Superseded version worker".to_string()
    }
    fn step(&mut self) -> BoxFuture<'_, Result<Step, StepError>> {
        self.work().boxed()
    }
    fn report(&self) -> Report {
        Report {
            queue_length: Some(self.waiting_count),
            messages: vec![format!("{} versions settled since the start", self.settled_count)],
            ..Report::default()
        }
    }
}
