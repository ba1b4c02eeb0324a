//! One comparison with one peer: totals, then leaves, then the rows that differ.
//!
//! What is equal costs one call for all tables and partitions; what differs costs about the rows that differ. A pass makes this replica
//! hold all that the peer holds, and gives the peer what it lacks, unless told to leave that.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use garage_db::{DbError, TransactError};
use garage_net::{CallError, Class, NodeId};
use garage_rpc::{CallOptions, Message, register::WriteId};
use garage_util::hlc::Stamp;
use serde_bytes::ByteBuf;

use super::{
    Syncer,
    compare::{Differences, differing_parts, part_sums},
    message::{
        CompareLeaves, FetchRows, GiveRows, LeafContent, LeavesAnswer, ListParts, ListSides, SyncRow, Taken, pack_keys, pack_sums,
        unpack_rows, unpack_sums,
    },
    replica::{row_of, rows_in_parts, totals},
    take::Why,
};
use crate::{
    digest::{self, KeyHash, LEAF_PART_COUNT, Leaf, RowHash},
    group::{RequestContext, TableError},
    key::{Group, SortKey, TableId},
    limits::{
        COMPANION_IDS_PER_CALL_MAX, PARTITIONS_AT_ONCE_MAX, PARTS_PER_CALL_MAX, SETTLED_AT_ONCE_MAX, SYNC_BYTES_MAX, SYNC_CALL_TIMEOUT,
        SYNC_ROWS_MAX,
    },
    message::{ANSWER_BYTES_MAX, Companion, GroupCall, Op, OpAnswer},
    schema::{RowView, StoreError},
};

/// What a pass is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Makes both replicas equal.
    Repair,
    /// Brings everything here, with what is kept beside the registers, so that this replica can stand in for the peer. Nothing is given.
    Move,
    /// Brings only what is kept beside the registers, from a peer that holds the partition whole.
    Promises,
    /// Brings rows that were lost here, from a peer that holds the partition whole.
    Refill,
    /// Brings rows from whoever has any: the loss is accepted.
    Salvage,
    /// Gives what is left over here to one who holds the partition. Nothing is brought.
    HandOver,
}

impl Purpose {
    /// Whether the peer must hold the partitions whole for the pass to prove anything.
    fn needs_whole(self) -> bool {
        matches!(self, Purpose::Move | Purpose::Promises | Purpose::Refill)
    }
    fn pulls(self) -> bool {
        !matches!(self, Purpose::Promises | Purpose::HandOver)
    }
    fn gives(self) -> bool {
        matches!(self, Purpose::Repair | Purpose::HandOver)
    }
}

/// Why a pass did not come to its end. What it moved until then stays moved.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The peer did not answer, or refused.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The local store can't be read.
    #[error(transparent)]
    Read(#[from] DbError),
    /// The local store can't be written.
    #[error(transparent)]
    Write(#[from] TransactError<StoreError>),
    /// A row that is held or that came makes no sense.
    #[error(transparent)]
    Row(#[from] StoreError),
    /// A key could not be settled by a quorum.
    #[error(transparent)]
    Settle(#[from] TableError),
    /// What counts here can't be told or changed.
    #[error(transparent)]
    Standing(#[from] crate::standing::StandingError),
    /// The peer itself lacks what it should hold.
    #[error("node {} does not hold all of its rows yet itself", .node.short())]
    Incomplete {
        /// Who.
        node: NodeId,
    },
    /// Too few of those who have these partitions could be asked.
    #[error("{partition_count} partitions came from too few of the nodes that have them")]
    TooFewSources {
        /// How many partitions are missing.
        partition_count: usize,
    },
    /// The layout can't be stored.
    #[error("{reason}")]
    Layout {
        /// Why.
        reason: String,
    },
    /// The peer answered something that follows from no question.
    #[error("node {} answered what was not asked", .node.short())]
    Nonsense {
        /// Who.
        node: NodeId,
    },
}

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassReport {
    /// Pairs of table and partition that differed.
    pub differing_count: usize,
    /// Rows that came.
    pub pulled_count: usize,
    /// Rows that went.
    pub given_count: usize,
    /// Registers settled by a quorum because a promise stood against their row.
    pub settled_count: usize,
    /// Rows that were not taken: what they follow from is not there yet, or has promised a greater ballot.
    pub guarded_count: usize,
}

impl PassReport {
    /// The sum of two.
    pub fn plus(self, other: PassReport) -> PassReport {
        PassReport {
            differing_count: self.differing_count + other.differing_count,
            pulled_count: self.pulled_count + other.pulled_count,
            given_count: self.given_count + other.given_count,
            settled_count: self.settled_count + other.settled_count,
            guarded_count: self.guarded_count + other.guarded_count,
        }
    }
    /// Whether rows may still differ: a quorum has those that were settled, but perhaps not this pair of replicas.
    pub fn is_to_be_repeated(self) -> bool {
        0 < self.settled_count + self.guarded_count
    }
}

/// One pass under way.
pub(super) struct Pass<'a> {
    pub syncer: &'a Syncer,
    pub peer: NodeId,
    pub purpose: Purpose,
}

/// A table in a digest partition.
type Place = (TableId, u8);

/// Registers that only a read by quorum may settle.
type ToSettle = Vec<(Group, SortKey)>;

/// Rows that a replica did not take.
#[derive(Default)]
struct Refused {
    promised: ToSettle,
    guarded_count: usize,
}

impl Refused {
    fn note(&mut self, place: (Group, SortKey), taken: Taken) {
        match taken {
            Taken::Held | Taken::Outrun => {}
            Taken::Promised => self.promised.push(place),
            Taken::Guarded => self.guarded_count += 1,
        }
    }
}

impl Pass<'_> {
    /// Compares these digest partitions, which both replicas hold.
    pub async fn run(&self, partitions: &[u8]) -> Result<PassReport, SyncError> {
        if partitions.is_empty() {
            return Ok(PassReport::default());
        }
        if self.purpose == Purpose::Promises {
            self.take_sides(partitions).await?;
            return Ok(PassReport::default());
        }
        let (schemas, asked) = (self.syncer.store.schemas().clone(), partitions.to_vec());
        let question = self.syncer.store.db().read(move |snapshot| totals(snapshot, &schemas, &asked)).await??;
        let answer = self.call(&question).await?;
        self.syncer.cluster().note_store_mark(self.peer, answer.mark);
        if !answer.incomplete.is_empty() && self.purpose.needs_whole() {
            return Err(SyncError::Incomplete { node: self.peer });
        }
        // What the peer itself still lacks is not missing here, and comes to it by its own doing.
        let is_mutual = |partition: &u8| self.purpose == Purpose::Salvage || !answer.incomplete.contains(partition);
        let differing: Vec<Place> = answer.differing.into_iter().filter(|(_, partition)| is_mutual(partition)).collect();
        let report = PassReport { differing_count: differing.len(), ..PassReport::default() };
        let reports = stream::iter(differing).map(|place| self.place(place)).buffer_unordered(PARTITIONS_AT_ONCE_MAX);
        let report = reports.try_fold(report, |sum, one| async move { Ok(sum.plus(one)) }).await?;
        if self.purpose == Purpose::Move {
            // After the rows: a row below a promise that only the peer made is taken, as it was there before the promise.
            self.take_sides(partitions).await?;
        }
        Ok(report)
    }

    /// Makes one table equal in one partition.
    async fn place(&self, place: Place) -> Result<PassReport, SyncError> {
        let (mut from_leaf, mut report) = (0, PassReport::default());
        loop {
            let (table, partition) = place;
            let sums = self.syncer.store.db().read(move |snapshot| digest::leaf_sums(snapshot, table, partition)).await?;
            let sums = pack_sums(sums.map_err(StoreError::from)?.into_iter().skip(usize::from(from_leaf)));
            let LeavesAnswer { leaves, next_leaf, floor } = self.call(&CompareLeaves { table, partition, from_leaf, sums }).await?;
            let differences = self.differences(place, leaves).await?;
            report = report.plus(self.exchange(place, differences, floor).await?);
            match next_leaf {
                Some(next) if from_leaf < next => from_leaf = next,
                Some(_) => return Err(SyncError::Nonsense { node: self.peer }),
                None => return Ok(report),
            }
        }
    }

    async fn differences(&self, place: Place, leaves: Vec<LeafContent>) -> Result<Differences, SyncError> {
        let (mut found, mut parted) = (Differences::default(), Vec::new());
        for content in leaves {
            match content {
                LeafContent::Rows { leaf, rows } => {
                    let own = self.rows_of(place, leaf).await?;
                    found.extend(Differences::between(own, unpack_rows(&rows)));
                }
                LeafContent::Parts { leaf, sums } => {
                    let theirs: Vec<u128> = unpack_sums(&sums).collect();
                    if theirs.len() != LEAF_PART_COUNT {
                        return Err(SyncError::Nonsense { node: self.peer });
                    }
                    parted.push((leaf, differing_parts(&part_sums(&self.rows_of(place, leaf).await?), theirs)));
                }
            }
        }
        parted.retain(|(_, mask)| *mask != 0);
        for parts in parted.chunks(PARTS_PER_CALL_MAX) {
            let theirs = self.call(&ListParts { table: place.0, partition: place.1, parts: parts.to_vec() }).await?;
            let own = self.rows_in(place, parts.to_vec()).await?;
            found.extend(Differences::between(own, unpack_rows(&theirs.rows)));
        }
        Ok(found)
    }

    async fn rows_of(&self, (table, partition): Place, leaf: u16) -> Result<Vec<(KeyHash, RowHash)>, SyncError> {
        let read = self.syncer.store.db().read(move |snapshot| digest::leaf_rows(snapshot, Leaf { table, partition, leaf }));
        Ok(read.await?.map_err(StoreError::from)?)
    }

    async fn rows_in(&self, (table, partition): Place, parts: Vec<(u16, u64)>) -> Result<Vec<(KeyHash, RowHash)>, SyncError> {
        let read = self.syncer.store.db().read(move |snapshot| {
            let mut rows = Vec::new();
            for (leaf, mask) in parts {
                rows.extend(rows_in_parts(snapshot, table, partition, leaf, mask)?);
            }
            Ok::<_, StoreError>(rows)
        });
        Ok(read.await??)
    }

    /// Brings what is wanted, gives what the other lacks, settles what promises stand against.
    async fn exchange(&self, place: Place, differences: Differences, floor: Stamp) -> Result<PassReport, SyncError> {
        let mut report = PassReport::default();
        let (mut surplus, mut refused) = (differences.surplus, Refused::default());
        let mut wanted = &differences.wanted[..];
        if !self.purpose.pulls() {
            surplus.extend(wanted.iter().copied());
            wanted = &[];
        }
        while !wanted.is_empty() {
            let keys = &wanted[..wanted.len().min(SYNC_ROWS_MAX)];
            let fetched = self.call(&FetchRows { table: place.0, partition: place.1, keys: pack_keys(keys) }).await?;
            let answered_count = (fetched.answered_count as usize).min(keys.len());
            if answered_count == 0 {
                return Err(SyncError::Nonsense { node: self.peer });
            }
            wanted = &wanted[answered_count..];
            report.pulled_count += fetched.rows.len();
            surplus.extend(self.take(place, fetched.rows, &mut refused).await?);
        }
        if self.purpose.gives() {
            report.given_count += self.give(place, surplus, &mut refused).await?;
        } else {
            // It was left over here from a time when this node held the partition before, or before a loss.
            self.syncer.store.drop_outlived(place.0, place.1, surplus, floor).await?;
        }
        if self.purpose != Purpose::Salvage {
            // Where a loss is accepted there may be no quorum to settle anything yet; the next comparison does.
            report.settled_count = refused.promised.len();
            self.settle(place.0, refused.promised).await?;
        }
        report.guarded_count = refused.guarded_count;
        Ok(report)
    }

    /// Takes rows that came; those that are held newer here.
    async fn take(&self, (table, partition): Place, rows: Vec<SyncRow>, refused: &mut Refused) -> Result<Vec<KeyHash>, SyncError> {
        let rows: Vec<SyncRow> = rows.into_iter().filter(|row| Group::new(row.group.0.clone()).hash()[0] == partition).collect();
        let rows = self.syncer.complete(self.peer, table, rows).await?;
        let keys: Vec<(Group, SortKey)> = rows.iter().map(|row| (Group::new(row.group.0.clone()), row.key.clone())).collect();
        let why = if self.purpose == Purpose::Repair { Why::Repair } else { Why::Move };
        let taken = self.syncer.store.take_rows(table, rows, why).await?.value;
        let mut outrun = Vec::new();
        for ((group, key), taken) in keys.into_iter().zip(taken) {
            if taken == Taken::Outrun {
                outrun.push(KeyHash::of(&group.local_key(table, &key.0)));
            }
            refused.note((group, key), taken);
        }
        Ok(outrun)
    }

    async fn give(&self, (table, partition): Place, keys: Vec<KeyHash>, refused: &mut Refused) -> Result<usize, SyncError> {
        let (mut given_count, mut keys) = (0, keys.into_iter().peekable());
        while keys.peek().is_some() {
            let (mut rows, mut size_bytes) = (Vec::new(), 0);
            while rows.len() < SYNC_ROWS_MAX && size_bytes < SYNC_BYTES_MAX {
                let Some(key) = keys.next() else { break };
                let schemas = self.syncer.store.schemas().clone();
                let row = self.syncer.store.db().read(move |snapshot| row_of(snapshot, &schemas, table, partition, key)).await??;
                if let Some(row) = row {
                    size_bytes += row.len_bytes();
                    rows.push(row);
                }
            }
            let places: Vec<(Group, SortKey)> = rows.iter().map(|row| (Group::new(row.group.0.clone()), row.key.clone())).collect();
            given_count += rows.len();
            if rows.is_empty() {
                continue;
            }
            let are_left_over = self.purpose == Purpose::HandOver;
            let answer = self.call(&GiveRows { table, rows, are_left_over }).await?;
            self.syncer.cluster().note_store_mark(self.peer, answer.mark);
            places.into_iter().zip(answer.taken).for_each(|(place, taken)| refused.note(place, taken));
        }
        Ok(given_count)
    }

    /// A promise stands against these rows: fresh stamps bring them past it (rule 11).
    async fn settle(&self, table: TableId, keys: ToSettle) -> Result<(), SyncError> {
        let restamps = stream::iter(keys).map(|(group, key)| async move {
            self.syncer.tables.restamp(&group, vec![(table, key)], RequestContext::within(SYNC_CALL_TIMEOUT)).await
        });
        Ok(restamps.buffer_unordered(SETTLED_AT_ONCE_MAX).try_collect().await?)
    }

    /// Takes over what the peer keeps beside its registers in these partitions.
    async fn take_sides(&self, partitions: &[u8]) -> Result<(), SyncError> {
        let tables: Vec<TableId> = self.syncer.store.schemas().ids().collect();
        let places: BTreeSet<Place> = tables.iter().flat_map(|table| partitions.iter().map(|partition| (*table, *partition))).collect();
        let mut after = ByteBuf::new();
        loop {
            let question = ListSides { tables: tables.clone(), partitions: ByteBuf::from(partitions), after };
            let page = self.call(&question).await?;
            if page.is_incomplete && self.purpose.needs_whole() {
                return Err(SyncError::Incomplete { node: self.peer });
            }
            let last = page.sides.last().map(|side| side.local_key.clone());
            let doubtful = self.syncer.store.take_sides(places.clone(), page.sides, page.floors).await?;
            if self.purpose == Purpose::Move {
                let mut by_table = BTreeMap::<TableId, ToSettle>::new();
                doubtful.into_iter().for_each(|(table, group, key)| by_table.entry(table).or_default().push((group, key)));
                for (table, keys) in by_table {
                    self.settle(table, keys).await?;
                }
            }
            match last {
                Some(last) if page.truncated && question.after < last => after = last,
                Some(_) if page.truncated => return Err(SyncError::Nonsense { node: self.peer }),
                _ => return Ok(()),
            }
        }
    }

    async fn call<M: Message>(&self, message: &M) -> Result<M::Answer, CallError> {
        self.syncer.call(self.peer, message).await
    }
}

impl Syncer {
    pub(super) async fn call<M: Message>(&self, peer: NodeId, message: &M) -> Result<M::Answer, CallError> {
        let options = CallOptions::within(SYNC_CALL_TIMEOUT).in_class(Class::Background);
        self.cluster().call(peer, message, options).await
    }

    /// Brings the companions that rows from `peer` need and that did not come along. Those of an id become durable together; the rows
    /// that come back need nothing more than what they carry.
    pub(super) async fn complete(&self, peer: NodeId, table: TableId, mut rows: Vec<SyncRow>) -> Result<Vec<SyncRow>, SyncError> {
        let schema = self.store.schemas().get(table)?.clone();
        for row in &mut rows {
            let group = Group::new(row.group.0.clone());
            if row.has_more
                && let Some(id) = schema.companion_id(RowView { entry: row.row.entry, content: &row.row.content })
            {
                let from_chunk = row.companions.last().map_or(0, |last| last.chunk + 1);
                row.companions.extend(self.fetch_companions(peer, &group, id, from_chunk).await?);
                row.has_more = false;
            }
            let nested: Vec<WriteId> = row.companions.iter().flat_map(|companion| schema.nested_companion_ids(companion)).collect();
            self.fetch_nested(peer, &group, nested).await?;
        }
        Ok(rows)
    }

    async fn fetch_nested(&self, peer: NodeId, group: &Group, ids: Vec<WriteId>) -> Result<(), SyncError> {
        let missing = self.missing_companions(group, ids).await?;
        for ids in missing.chunks(COMPANION_IDS_PER_CALL_MAX) {
            let ops = ids.iter().map(|id| Op::Companions { id: *id, from_chunk: 0, limit: u32::MAX }).collect();
            let mut found: BTreeMap<WriteId, Vec<Companion>> = BTreeMap::new();
            for companion in self.ask_companions(peer, group, ops).await? {
                found.entry(companion.id).or_default().push(companion);
            }
            for id in ids {
                let mut companions = found.remove(id).unwrap_or_default();
                if ANSWER_BYTES_MAX <= companions.iter().map(|companion| companion.content.len()).sum() {
                    let next = companions.last().map_or(0, |last| last.chunk + 1);
                    companions.extend(self.fetch_companions(peer, group, *id, next).await?);
                }
                if companions.is_empty() {
                    // The peer lacks them as well: any other holder may have them.
                    companions = self.tables.companions(group, *id, 0, u32::MAX, RequestContext::within(SYNC_CALL_TIMEOUT)).await?;
                }
                self.store.take_companions(group.clone(), companions).await?;
            }
        }
        Ok(())
    }

    /// Of these ids those of which no companion is held here.
    async fn missing_companions(&self, group: &Group, ids: Vec<WriteId>) -> Result<Vec<WriteId>, SyncError> {
        if ids.is_empty() {
            return Ok(ids);
        }
        let group = group.clone();
        let read = self.store.db().read(move |snapshot| {
            let mut missing = Vec::new();
            for id in ids {
                if crate::store::companions(snapshot, &group, id, 0, 1)?.is_empty() {
                    missing.push(id);
                }
            }
            Ok::<_, StoreError>(missing)
        });
        Ok(read.await??)
    }

    /// All companions of an id from a chunk on, as far as the peer has them.
    async fn fetch_companions(&self, peer: NodeId, group: &Group, id: WriteId, from_chunk: u32) -> Result<Vec<Companion>, SyncError> {
        let (mut all, mut from_chunk) = (Vec::new(), from_chunk);
        loop {
            let found = self.ask_companions(peer, group, vec![Op::Companions { id, from_chunk, limit: u32::MAX }]).await?;
            match found.last() {
                Some(last) => from_chunk = last.chunk + 1,
                None => return Ok(all),
            }
            all.extend(found);
        }
    }

    async fn ask_companions(&self, peer: NodeId, group: &Group, ops: Vec<Op>) -> Result<Vec<Companion>, SyncError> {
        let answer = self.call(peer, &GroupCall { group: group.key().clone(), ops }).await?;
        let companions = answer.answers.into_iter().flat_map(|answer| match answer {
            OpAnswer::Companions(found) => found,
            _ => Vec::new(),
        });
        Ok(companions.collect())
    }
}
