//! Control tables: small register rows (buckets, aliases, keys, tokens) in one group, mirrored in the memory of every node.
//!
//! A node decides from its mirror only while it holds a *lease*: within [`LEASE`] it has matched the digest of the control rows with a
//! read quorum of their owners. Without one, and whenever the mirror has no row, it reads by quorum.
//!
//! Invariants:
//! - whoever holds a lease that was asked for after a write was answered has that write in its mirror;
//! - a change that restricts is answered only when no node can still act on an older lease.
//!
//! Not here: what the rows mean.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use garage_net::{Class, NodeId, Refusal};
use garage_rpc::{Access, CallOptions, Message, RouterBuilder, register::WriteId};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::{
    digest,
    group::{Decision, RegisterRead, RequestContext, TableError, Tables, Updated},
    key::{Group, SortKey, TableId},
    message::{HeldRow, RANGE_ROWS_MAX, Want},
    standing::Counts,
    store::{RECOVERING, Store, register_row_hash},
};

/// How long a node may act on its mirror after it asked the owners.
pub const LEASE: Duration = Duration::from_secs(5);
/// How much longer a restricting change waits for nodes that did not confirm it.
pub const LEASE_MARGIN: Duration = Duration::from_secs(1);
/// How long a change that grants waits for nodes that act on an older row.
pub const GRANT_PATIENCE: Duration = Duration::from_secs(1);
/// How often a node renews its lease.
pub const LEASE_RENEWAL: Duration = Duration::from_secs(1);
/// How long one renewal may take.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(3);

/// Whether a change takes something away from someone, so that no node may act on the row before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// New rows, new rights. Who has no row asks a quorum; who acts on an older one for a moment does no harm.
    Grants,
    /// Revoked rights, deletions, stricter settings.
    Restricts,
}

/// Asks an owner for the sum of the hashes of all its control rows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ControlDigest {}

/// Brings rows that were just written to a mirror.
#[derive(Debug, Serialize, Deserialize)]
pub struct ControlPush {
    /// Table, key, row.
    pub rows: Vec<(TableId, SortKey, HeldRow)>,
}

/// An owner's digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DigestAnswer {
    /// Wrapping sum, little-endian.
    pub sum: [u8; 16],
}

impl Message for ControlDigest {
    const KIND: &'static str = "table/control_digest";
    const CLASS: Class = Class::Control;
    const ACCESS: Access = Access::Member;
    type Answer = DigestAnswer;
}
impl Message for ControlPush {
    const KIND: &'static str = "table/control_push";
    const CLASS: Class = Class::Control;
    const ACCESS: Access = Access::Member;
    type Answer = ();
}

/// The group of all control rows.
pub fn control_group() -> Group {
    Group::new(b"control".to_vec())
}

#[derive(Default)]
struct Rows {
    rows: BTreeMap<(TableId, SortKey), HeldRow>,
    sum: u128,
    lease_until: Option<Instant>,
}

/// The mirror of one node. Cheap to clone.
#[derive(Clone)]
pub struct Mirror {
    group: Group,
    tables: Vec<TableId>,
    rows: Arc<Mutex<Rows>>,
    renew: Arc<Notify>,
}

impl Mirror {
    /// An empty mirror of these tables.
    pub fn new(tables: Vec<TableId>) -> Mirror {
        Mirror { group: control_group(), tables, rows: Arc::default(), renew: Arc::default() }
    }

    /// Serves pushes to this mirror and digests of the owner's store.
    pub fn register(&self, router: RouterBuilder, store: &Store, counts: impl Fn(u8) -> Counts + Send + Sync + 'static) -> RouterBuilder {
        let (mirror, owner, store, partition) = (self.clone(), self.clone(), store.clone(), self.group.hash()[0]);
        router
            .on_plain::<ControlPush, _>(move |_, _, push: ControlPush| {
                let mirror = mirror.clone();
                async move {
                    push.rows.into_iter().for_each(|(table, key, row)| mirror.take(table, key, row));
                    Ok(())
                }
            })
            .on_plain::<ControlDigest, _>(move |_, _, _| {
                let (owner, store, counts) = (owner.clone(), store.clone(), counts(partition));
                async move {
                    if counts != Counts::Yes {
                        return Err(garage_rpc::message::refusal(RECOVERING, "this node's control rows are not refilled yet"));
                    }
                    owner.owner_digest(&store).await
                }
            })
    }

    async fn owner_digest(&self, store: &Store) -> Result<DigestAnswer, Refusal> {
        let (group, tables) = (self.group.clone(), self.tables.clone());
        let sum = store.db().read(move |snapshot| {
            tables.iter().try_fold(0u128, |sum, table| digest::total(snapshot, *table, &group).map(|total| sum.wrapping_add(total)))
        });
        match sum.await {
            Ok(Ok(sum)) => Ok(DigestAnswer { sum: sum.to_le_bytes() }),
            Ok(Err(error)) => Err(garage_rpc::message::refusal("Store", error.to_string())),
            Err(error) => Err(garage_rpc::message::refusal("Store", error.to_string())),
        }
    }

    fn take(&self, table: TableId, key: SortKey, row: HeldRow) {
        if !self.tables.contains(&table) {
            return;
        }
        let mut rows = self.rows.lock();
        let new_hash = register_row_hash(&self.group, table, &key, &row);
        let held = rows.rows.get(&(table, key.clone()));
        if held.is_some_and(|held| row.entry <= held.entry) {
            return;
        }
        let old_hash = held.map_or(0, |held| register_row_hash(&self.group, table, &key, held));
        rows.sum = rows.sum.wrapping_sub(old_hash).wrapping_add(new_hash);
        rows.rows.insert((table, key), row);
    }

    fn get(&self, table: TableId, key: &SortKey) -> Option<HeldRow> {
        let rows = self.rows.lock();
        let leased = rows.lease_until.is_some_and(|until| Instant::now() < until);
        if leased { rows.rows.get(&(table, key.clone())).cloned() } else { None }
    }
}

/// The control tables as a coordinator uses them. Cheap to clone.
#[derive(Clone)]
pub struct Control {
    tables: Tables,
    mirror: Mirror,
}

impl Control {
    /// Control tables over a mirror that the router serves; starts the task that renews the lease.
    pub fn start(tables: Tables, mirror: Mirror) -> Control {
        let control = Control { tables, mirror };
        let renewer = control.clone();
        control.tables.cluster().runtime().clone().spawn("control lease", async move { renewer.renew_for_ever().await });
        control
    }

    /// The cluster.
    pub fn cluster(&self) -> &garage_rpc::Cluster {
        self.tables.cluster()
    }

    /// A row: from the mirror under a lease, else by quorum.
    pub async fn get(&self, table: TableId, key: &SortKey, context: RequestContext) -> Result<Option<HeldRow>, TableError> {
        match self.mirror.get(table, key) {
            Some(row) => Ok(Some(row)),
            None => self.get_by_quorum(table, key, context).await,
        }
    }

    /// A row, by quorum: linearizable.
    pub async fn get_by_quorum(&self, table: TableId, key: &SortKey, context: RequestContext) -> Result<Option<HeldRow>, TableError> {
        let read = RegisterRead { table, key: key.clone(), want: Want::Row };
        let row = self.tables.read_one(&self.mirror.group, read, context).await?.row;
        if let Some(row) = &row {
            self.mirror.take(table, key.clone(), row.clone());
        }
        Ok(row)
    }

    /// All rows of a table, in order of their keys, by quorum: what was answered before is there.
    pub async fn list(&self, table: TableId, context: RequestContext) -> Result<Vec<(SortKey, HeldRow)>, TableError> {
        self.fetch(table, context).await
    }

    async fn fetch(&self, table: TableId, context: RequestContext) -> Result<Vec<(SortKey, HeldRow)>, TableError> {
        let (mut all, mut from) = (Vec::new(), SortKey::default());
        loop {
            let page = self.tables.range(&self.mirror.group, table, from, None, RANGE_ROWS_MAX as u32, context).await?;
            page.rows.iter().for_each(|(key, row)| self.mirror.take(table, key.clone(), row.clone()));
            let last = page.rows.last().map(|(key, _)| key.clone());
            all.extend(page.rows);
            match last {
                Some(last) if page.truncated => from = SortKey([&last.0[..], &[0]].concat()),
                _ => return Ok(all),
            }
        }
    }

    /// Changes a row by compare-and-set; `decide` sees the newest row. On return every node that answers within [`GRANT_PATIENCE`] acts on
    /// the change (or has no row, and asks), and, if it restricts, no node at all acts on an older row any more.
    pub async fn update<'a, E, F>(
        &'a self,
        table: TableId,
        key: SortKey,
        effect: Effect,
        context: RequestContext,
        decide: F,
    ) -> Result<Updated<E>, TableError>
    where
        E: Send + 'a,
        F: FnMut(WriteId, Option<HeldRow>) -> BoxFuture<'a, Decision<E>> + Send,
    {
        let (mut decide, mut is_new) = (decide, true);
        let noting = |id, held: Option<HeldRow>| {
            is_new = held.is_none();
            decide(id, held)
        };
        let updated = self.tables.update(&self.mirror.group, table, key.clone(), context, noting).await?;
        if let Updated::Written(row) = &updated {
            self.mirror.take(table, key.clone(), row.clone());
            self.push(vec![(table, key, row.clone())], effect, is_new, context).await;
        }
        Ok(updated)
    }

    async fn push(&self, rows: Vec<(TableId, SortKey, HeldRow)>, effect: Effect, is_new: bool, context: RequestContext) {
        let lease_over = Instant::now() + LEASE + LEASE_MARGIN;
        let cluster = self.tables.cluster().clone();
        let others: Vec<NodeId> = cluster.layout().live_nodes().into_iter().filter(|node| *node != cluster.local()).collect();
        let message = Arc::new(ControlPush { rows });
        let options = CallOptions::until(lease_over).traced(context.trace);
        let mut calls: FuturesUnordered<_> = others
            .into_iter()
            .map(|node| {
                let (cluster, message) = (cluster.clone(), message.clone());
                async move { cluster.call(node, &*message, options).await.is_ok() }
            })
            .collect();
        match effect {
            // A node that does not hear of it asks a quorum, or finds its digest to differ.
            Effect::Grants => {
                if !is_new {
                    let _ = timeout(GRANT_PATIENCE, calls.by_ref().for_each(|_| async {})).await;
                }
                let rest = calls.for_each(|_| async {});
                cluster.runtime().spawn("control push", async move {
                    let _ = timeout_at(lease_over, rest).await;
                });
            }
            Effect::Restricts => {
                let confirmed = timeout_at(lease_over, calls.all(|confirmed| async move { confirmed })).await;
                if confirmed != Ok(true) {
                    tokio::time::sleep_until(lease_over).await;
                }
            }
        }
    }

    async fn renew_for_ever(&self) {
        let runtime = self.tables.cluster().runtime().clone();
        while !runtime.stopping().is_cancelled() {
            if let Err(error) = self.renew().await {
                tracing::debug!(%error, "no control lease");
            }
            // Dropping the wait for a wake-up loses at most one early renewal.
            tokio::select! { biased; () = self.mirror.renew.notified() => {} () = sleep(LEASE_RENEWAL) => {} }
        }
    }

    /// Matches the mirror's digest with a quorum of the owners; fetches all rows and tries once more when it differs.
    pub async fn renew(&self) -> Result<(), TableError> {
        let context = RequestContext { deadline: Instant::now() + RENEWAL_TIMEOUT, trace: 0 };
        for attempt in 0..2 {
            let asked_at = Instant::now();
            if self.owners_agree(context).await? {
                self.mirror.rows.lock().lease_until = Some(asked_at + LEASE);
                return Ok(());
            }
            if attempt == 0 {
                for table in self.mirror.tables.clone() {
                    self.fetch(table, context).await?;
                }
            }
        }
        Ok(())
    }

    async fn owners_agree(&self, context: RequestContext) -> Result<bool, TableError> {
        let answers = self.tables.call_quorum(&self.mirror.group, &ControlDigest {}, context).await?;
        let sum = self.mirror.rows.lock().sum;
        Ok(answers.iter().all(|answer| u128::from_le_bytes(answer.sum) == sum))
    }
}
