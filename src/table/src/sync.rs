//! How replicas become equal: anti-entropy by leaf digests, on a timer, when a peer comes back, and when the layout changes.
//!
//! Invariants:
//! - a register row moves only as an apply with its own stamp as ballot; what a promise refuses is settled by a read of a quorum;
//! - a row arrives together with its companions;
//! - what is equal costs nothing but its digests: one call for all tables and partitions two nodes share.
//!
//! Reading order: `message` (what is said), `compare` (what follows from it; pure), `replica` (what is answered), `take` (how rows come
//! in), `pass` (one comparison with one peer), `held` (who holds what), `repair` (when which peers are compared), `repair_now` (all of them, on demand), `sources` (what has to
//! come from whom; pure), `moving` (what a layout change or a loss asks for), `evict` (what follows once partitions moved away), `collect`
//! (tombstones, and what is remembered of operations long over), `copies` (what an operator has to know before giving up on nodes).

mod collect;
mod compare;
mod copies;
mod evict;
mod held;
mod message;
mod moving;
mod pass;
mod repair;
mod repair_now;
mod replica;
mod sides;
mod sources;
mod take;

use std::sync::Arc;

use garage_net::{LayoutMark, NodeId, Refusal};
use garage_rpc::{Cluster, RouterBuilder, message::refusal};
use garage_util::workers::{Wake, Workers};
use parking_lot::Mutex;
use serde_bytes::ByteBuf;

pub use copies::CopiesReport;
pub use held::{digest_partitions, held_partitions};
pub use moving::MoveProgress;
pub use pass::{PassReport, Purpose, SyncError};

use self::{
    collect::CollectWorker,
    evict::EvictWorker,
    message::{
        AskStanding, CompareLeaves, CompareTotals, ConfirmTombstones, DropTombstones, FetchRows, GiveRows, GivenRows, ListParts, ListSides,
        SidesPage, StandingAnswer, TombstonesAnswer, TotalsAnswer,
    },
    moving::MoveWorker,
    pass::Pass,
    repair::RepairWorker,
    repair_now::RepairNowWorker,
    take::Why,
};
use crate::{
    group::Tables,
    schema::StoreError,
    standing::{Counts, Standing},
    store::Store,
};

/// Refusal code: no tombstone is dropped here at present.
const NOT_NOW: &str = "NotNow";
/// Refusal code: the one who was asked does not hold the partition.
const NOT_A_HOLDER: &str = "NotAHolder";

/// Keeps this node's replicas equal to those of its peers. Cheap to clone.
#[derive(Clone)]
pub struct Syncer {
    store: Store,
    tables: Tables,
    standing: Standing,
    state: Arc<Mutex<State>>,
}

/// What the tasks tell of themselves.
#[derive(Default)]
struct State {
    moving: MoveProgress,
    repaired: PassReport,
}

impl Syncer {
    /// A syncer of this node's store; [`Syncer::register`] its handlers, then [`Syncer::start`] it. From now on it alone says how far
    /// this node is in sync with layouts.
    pub fn new(store: Store, tables: Tables, standing: Standing) -> Syncer {
        tables.cluster().sync_layout_by_hand();
        Syncer { store, tables, standing, state: Arc::default() }
    }

    fn cluster(&self) -> &Cluster {
        self.tables.cluster()
    }
    /// Where this node's answers count.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Starts the workers. `block_len_bytes`: bytes of one block at the most, for telling how much is left to move.
    pub fn start(&self, workers: &Workers, block_len_bytes: u32) {
        let (repair, moving) = (Wake::default(), Wake::default());
        workers.start(RepairWorker::new(self.clone()), repair.clone());
        workers.start(MoveWorker::new(self.clone(), block_len_bytes), moving.clone());
        workers.start(EvictWorker::new(self.clone()), Wake::default());
        workers.start(CollectWorker::new(self.clone()), Wake::default());
        let (mut peers, mut layout) = (self.cluster().peer_changes(), self.cluster().layout_changes());
        self.cluster().runtime().spawn("table sync wakes", async move {
            loop {
                // A change that comes while workers are woken stays marked as unseen.
                let changed = tokio::select! { biased; changed = peers.changed() => changed, changed = layout.changed() => changed };
                if changed.is_err() {
                    return;
                }
                repair.wake();
                moving.wake();
            }
        });
    }

    /// Compares with every peer that shares partitions, beside the timer. Its worker tells what came of it.
    pub fn repair_now(&self, workers: &Workers) {
        workers.start(RepairNowWorker::new(self.clone()), Wake::default());
    }

    /// How far this node is with the present layout change.
    pub fn move_progress(&self) -> MoveProgress {
        self.state.lock().moving
    }

    /// What the repairs of this process did so far.
    pub fn repaired(&self) -> PassReport {
        self.state.lock().repaired
    }

    /// Makes the partitions that this node shares with `peer` equal.
    pub async fn repair_with(&self, peer: NodeId) -> Result<PassReport, SyncError> {
        let history = self.cluster().layout();
        let theirs = held_partitions(&history, peer);
        let own = held_partitions(&history, self.cluster().local());
        // What is not whole here is refilled first: until then, what is missing here says nothing.
        let shared: Vec<u8> = own.into_iter().filter(|held| theirs.contains(held) && self.is_whole(*held)).collect();
        let report = Pass { syncer: self, peer, purpose: Purpose::Repair }.run(&shared).await?;
        let mut state = self.state.lock();
        state.repaired = state.repaired.plus(report);
        Ok(report)
    }

    /// Answers the questions of peers.
    pub fn register(&self, router: RouterBuilder) -> RouterBuilder {
        let answered = [(); 9].map(|()| self.clone());
        let [totals, leaves, parts, fetch, give, sides, standing, confirm, dropping] = answered;
        router
            .on_plain::<CompareTotals, _>(move |_, _, question| {
                let this = totals.clone();
                async move { this.serve_totals(question).await }
            })
            .on_plain::<ConfirmTombstones, _>(move |_, context, question| {
                let this = confirm.clone();
                async move {
                    this.check_collection(&context.layout, question.partition)?;
                    let schemas = this.store.schemas().clone();
                    let are_exact = this.read(move |snapshot| collect::confirm(snapshot, &schemas, &question)).await?;
                    Ok(TombstonesAnswer { are_exact: ByteBuf::from(are_exact) })
                }
            })
            .on_plain::<DropTombstones, _>(move |_, context, question| {
                let this = dropping.clone();
                async move {
                    this.check_collection(&context.layout, question.partition)?;
                    let schemas = this.store.schemas().clone();
                    let dropped =
                        this.store.db().transact(move |transaction| collect::drop_confirmed(transaction, &schemas, &question)).await;
                    let dropped = dropped.map_err(|error| refusal("Store", error.to_string()))?;
                    Ok(TombstonesAnswer { are_exact: ByteBuf::from(dropped.value) })
                }
            })
            .on_plain::<AskStanding, _>(move |_, _, _| {
                let incomplete = (0..=u8::MAX).filter(|partition| !standing.is_whole(*partition)).collect::<Vec<u8>>();
                async move { Ok(StandingAnswer { incomplete: ByteBuf::from(incomplete) }) }
            })
            .on_plain::<CompareLeaves, _>(move |_, _, question| {
                let this = leaves.clone();
                async move { this.read(move |snapshot| replica::compare_leaves(snapshot, &question)).await }
            })
            .on_plain::<ListParts, _>(move |_, _, question| {
                let this = parts.clone();
                async move { this.read(move |snapshot| replica::list_parts(snapshot, &question)).await }
            })
            .on_plain::<FetchRows, _>(move |_, _, question| {
                let (this, schemas) = (fetch.clone(), fetch.store.schemas().clone());
                async move { this.read(move |snapshot| replica::fetch_rows(snapshot, &schemas, &question)).await }
            })
            .on_plain::<GiveRows, _>(move |caller, _, given| {
                let this = give.clone();
                async move { this.serve_given(caller.node, given).await }
            })
            .on_plain::<ListSides, _>(move |_, _, question| {
                let this = sides.clone();
                async move {
                    let is_incomplete = !question.partitions.iter().all(|partition| this.is_whole(*partition));
                    let page = this.read(move |snapshot| replica::list_sides(snapshot, &question)).await?;
                    Ok(SidesPage { is_incomplete, ..page })
                }
            })
    }

    /// Whether this node vouches for what it holds, and does not hold, in a digest partition.
    fn is_whole(&self, partition: u8) -> bool {
        self.standing.counts(self.cluster(), partition) == Counts::Yes
    }

    /// Tombstones go only where the partition is whole, and while caller and callee follow the same layout.
    fn check_collection(&self, layout: &LayoutMark, partition: u8) -> Result<(), Refusal> {
        if *layout != self.cluster().layout_mark() || !self.is_whole(partition) {
            return Err(refusal(NOT_NOW, "the layout is another one, or this node does not hold the partition whole"));
        }
        Ok(())
    }

    /// Wall time by the clocks of most nodes, in milliseconds since 1970.
    fn now_ms(&self) -> u64 {
        self.cluster().runtime().now_ms().saturating_add_signed(self.cluster().clock_correction_ms())
    }

    async fn serve_totals(&self, question: CompareTotals) -> Result<TotalsAnswer, Refusal> {
        let incomplete: Vec<u8> = question.partitions.iter().copied().filter(|partition| !self.is_whole(*partition)).collect();
        let (schemas, mark) = (self.store.schemas().clone(), self.store.mark());
        let answer = self.read(move |snapshot| replica::compare_totals(snapshot, &schemas, mark, &question)).await?;
        Ok(TotalsAnswer { incomplete: ByteBuf::from(incomplete), ..answer })
    }

    async fn read<T: Send + 'static>(
        &self,
        answer: impl FnOnce(&dyn garage_db::Snapshot) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Refusal> {
        match self.store.db().read(answer).await {
            Ok(answer) => answer.map_err(|error| refusal("Store", error.to_string())),
            Err(error) => Err(refusal("Store", error.to_string())),
        }
    }

    async fn serve_given(&self, from: NodeId, given: GiveRows) -> Result<GivenRows, Refusal> {
        let held = held_partitions(&self.cluster().layout(), self.cluster().local());
        let is_held = |row: &message::SyncRow| {
            let partition = crate::key::Group::new(row.group.0.clone()).hash()[0];
            held.contains(&partition) && self.is_whole(partition)
        };
        if !given.rows.iter().all(is_held) {
            return Err(refusal(NOT_A_HOLDER, "a row of a partition that this node does not hold, or not whole yet"));
        }
        let why = if given.are_left_over { Why::LeftOver } else { Why::Repair };
        let failed = |error: SyncError| refusal("Store", error.to_string());
        let rows = self.complete(from, given.table, given.rows).await.map_err(failed)?;
        let committed = self.store.take_rows(given.table, rows, why).await.map_err(|error| failed(error.into()))?;
        let mark = garage_rpc::StoreMark { store_id: self.store.db().store_id(), commit_number: committed.commit_number };
        Ok(GivenRows { mark, taken: committed.value })
    }
}
