//! Merge rows, ranges over rows of both kinds, queries of a table's owner, companions.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use garage_net::{CallError, NodeId};
use garage_rpc::{Message, quorum::Step, register::WriteId};
use serde_bytes::ByteBuf;

use super::{RegisterRead, RequestContext, TableError, Tables, errors::Failures};
use crate::{
    key::{Group, SortKey, TableId},
    message::{Companion, GroupAnswer, GroupCall, HeldRow, Op, OpAnswer, Want},
    schema::{Discipline, RowView},
};

/// A row of a merge table to be written.
#[derive(Clone, Debug)]
pub struct MergeRow {
    /// The table.
    pub table: TableId,
    /// Its place.
    pub key: SortKey,
    /// Its stored form.
    pub row: Vec<u8>,
    /// Written with it.
    pub companions: Vec<Companion>,
}

/// What a batch counts as at a replica where a guard stands against one of its rows.
const GUARDED: &str = "Guarded";
/// Ids of which all companions are asked for in one call.
const COMPANION_IDS_PER_CALL: usize = 32;
/// Such calls at once.
const COMPANION_CALLS_AT_ONCE: usize = 4;
/// Rows and bytes of them that are written back in one call.
const REPAIRS_PER_CALL_MAX: usize = 256;
const REPAIR_BYTES_PER_CALL_MAX: usize = 2 << 20;

/// Where a range begins and where it ends; without an end it goes to the end of the group.
pub type SortKeyRange = (SortKey, Option<SortKey>);

/// A replica's answer to a range: rows in order, and whether it was cut.
type ReplicaPage = (Vec<(SortKey, HeldRow)>, bool);

/// A page of a range.
#[derive(Clone, Debug, Default)]
pub struct RangePage {
    /// In order.
    pub rows: Vec<(SortKey, HeldRow)>,
    /// Whether more may follow.
    pub truncated: bool,
}

type Answers = Vec<(NodeId, Vec<OpAnswer>)>;

impl Tables {
    /// Merges rows of one group at a write quorum; one round trip. A row that a guard refuses at too many of them: `OutcomeUnknown`.
    pub async fn merge(&self, group: &Group, rows: Vec<MergeRow>, context: RequestContext) -> Result<(), TableError> {
        let holders = self.holders(group)?;
        let size_bytes = rows.iter().map(|row| row.row.len() + row.companions.iter().map(|c| c.content.len()).sum::<usize>()).sum();
        let op = |row: MergeRow| Op::Merge { table: row.table, key: row.key, row: ByteBuf::from(row.row), companions: row.companions };
        let message = GroupCall { group: group.key().clone(), ops: rows.into_iter().map(op).collect() };
        let call = |node| {
            let call = self.call_group(node, message.clone(), context);
            async move { call.await.and_then(refuse_guarded) }
        };
        match self.cluster.quorum().write_all(&holders.sets, context.deadline, size_bytes, call).await {
            Ok(_) => Ok(()),
            Err(error) => {
                let mut failures = Failures::default();
                error.errors.iter().for_each(|(_, error)| failures.note(error));
                // A merge that reached some node may spread from there: the client must not take it for undone. Where a guard stands
                // against it at those who answered, nodes are there, and only a round can tell.
                let is_guarded = error.errors.iter().any(|(_, error)| is_guarded(error));
                Err(if error.got == 0 && !is_guarded { failures.unavailable() } else { TableError::OutcomeUnknown })
            }
        }
    }

    pub(super) fn call_group(
        &self,
        node: NodeId,
        message: GroupCall,
        context: RequestContext,
    ) -> impl Future<Output = Result<GroupAnswer, CallError>> + Send + 'static {
        let cluster = self.cluster.clone();
        let options = context.call_options();
        async move { cluster.call(node, &message, options).await }
    }

    /// The answers of the nearest quorum of a group's holders to any message.
    pub async fn call_quorum<M: Message + Clone>(
        &self,
        group: &Group,
        message: &M,
        context: RequestContext,
    ) -> Result<Vec<M::Answer>, TableError> {
        let holders = self.holders(group)?;
        let first_count = holders.sets.first_quorum(&holders.nearest).len();
        let (mut answers, mut answered, mut failures) = (Vec::new(), BTreeSet::new(), Failures::default());
        let judge = |node, answer: Result<M::Answer, CallError>| {
            match answer {
                Ok(answer) => {
                    answers.push(answer);
                    answered.insert(node);
                }
                Err(error) => failures.note(&error),
            }
            if holders.sets.has_quorum(&answered) { Step::Done(()) } else { Step::Wait }
        };
        let call = |node| {
            let (cluster, message) = (self.cluster.clone(), message.clone());
            let options = context.call_options();
            async move { cluster.call(node, &message, options).await }
        };
        let calls = self.cluster.quorum();
        match calls.read_hedged(&holders.nearest, first_count, context.deadline, call, judge).await {
            Some(()) => Ok(answers),
            None => Err(failures.unavailable()),
        }
    }

    /// The answers of the nearest read quorum to a batch of reads.
    pub async fn ask_quorum(&self, group: &Group, ops: Vec<Op>, context: RequestContext) -> Result<Answers, TableError> {
        let holders = self.holders(group)?;
        let message = GroupCall { group: group.key().clone(), ops };
        let first_count = holders.sets.first_quorum(&holders.nearest).len();
        let (mut answers, mut answered, mut failures) = (Vec::new(), BTreeSet::new(), Failures::default());
        let judge = |node, answer: Result<GroupAnswer, CallError>| {
            match answer {
                Ok(answer) if answer.answers.len() == message.ops.len() => {
                    answers.push((node, answer.answers));
                    answered.insert(node);
                }
                Ok(_) => {}
                Err(error) => failures.note(&error),
            }
            if holders.sets.has_quorum(&answered) { Step::Done(()) } else { Step::Wait }
        };
        let call = |node| self.call_group(node, message.clone(), context);
        let calls = self.cluster.quorum();
        match calls.read_hedged(&holders.nearest, first_count, context.deadline, call, judge).await {
            Some(()) => Ok(answers),
            None => Err(failures.unavailable()),
        }
    }

    /// The answers of the nearest read quorum to a query of the table's owner.
    pub async fn query(
        &self,
        group: &Group,
        table: TableId,
        request: Vec<u8>,
        context: RequestContext,
    ) -> Result<Vec<Vec<u8>>, TableError> {
        let answers = self.ask_quorum(group, vec![Op::Query { table, request: ByteBuf::from(request) }], context).await?;
        let content = |(_, answers): (NodeId, Vec<OpAnswer>)| match answers.into_iter().next() {
            Some(OpAnswer::Query(bytes)) => Ok(bytes.into_vec()),
            _ => Err(TableError::Damaged { reason: "a query was answered by something else".to_string() }),
        };
        answers.into_iter().map(content).collect()
    }

    /// Reads rows in order, as a quorum knows them: differing merge rows are merged and written back, differing registers read as such.
    pub async fn range(
        &self,
        group: &Group,
        table: TableId,
        from: SortKey,
        to: Option<SortKey>,
        limit: u32,
        context: RequestContext,
    ) -> Result<RangePage, TableError> {
        self.ranges(group, table, vec![(from, to)], limit, context).await
    }

    /// [`Tables::range`] for several ranges in ascending order, read in one round trip; `limit` is for each. What is past the first cut
    /// range is not in the page.
    pub async fn ranges(
        &self,
        group: &Group,
        table: TableId,
        ranges: Vec<SortKeyRange>,
        limit: u32,
        context: RequestContext,
    ) -> Result<RangePage, TableError> {
        let range_count = ranges.len();
        let ops = ranges.into_iter().map(|(from, to)| Op::Range { table, from, to, limit }).collect();
        let answers = self.ask_quorum(group, ops, context).await?;
        let mut by_range: Vec<Vec<ReplicaPage>> = (0..range_count).map(|_| Vec::new()).collect();
        for (_, answers) in answers {
            for (pages, answer) in by_range.iter_mut().zip(answers) {
                let OpAnswer::Rows { rows, truncated } = answer else { return Err(damaged("a range was answered by something else")) };
                pages.push((rows, truncated));
            }
        }
        let (mut all, mut differing, mut truncated) = (BTreeMap::new(), BTreeSet::new(), false);
        for pages in by_range {
            let (merged, differs, is_cut) = self.merge_pages(table, pages)?;
            all.extend(merged);
            differing.extend(differs);
            truncated = is_cut;
            if is_cut {
                break;
            }
        }
        let rows = self.settle(group, table, all, differing, context).await?;
        Ok(RangePage { rows, truncated })
    }

    /// Merges pages; names the keys on which they differ. What lies past the end of a cut page is not known by all, and is left out.
    #[allow(clippy::type_complexity)]
    fn merge_pages(
        &self,
        table: TableId,
        pages: Vec<ReplicaPage>,
    ) -> Result<(BTreeMap<SortKey, HeldRow>, BTreeSet<SortKey>, bool), TableError> {
        let schema = self.schemas.get(table).map_err(damaged)?;
        let end = pages.iter().filter(|(_, truncated)| *truncated).filter_map(|(rows, _)| rows.last().map(|(key, _)| key.clone())).min();
        let page_count = pages.len();
        let (mut merged, mut seen_count, mut differing) = (BTreeMap::<SortKey, HeldRow>::new(), BTreeMap::new(), BTreeSet::new());
        let known = pages.into_iter().flat_map(|(rows, _)| rows).filter(|(key, _)| end.as_ref().is_none_or(|end| key <= end));
        for (key, row) in known {
            *seen_count.entry(key.clone()).or_insert(0) += 1;
            let Some(held) = merged.get_mut(&key) else {
                merged.insert(key, row);
                continue;
            };
            if *held == row {
                continue;
            }
            differing.insert(key);
            match schema.discipline() {
                Discipline::Merge => held.content = ByteBuf::from(schema.merge(&held.content, &row.content).map_err(damaged)?),
                Discipline::Register => {
                    if held.entry < row.entry {
                        *held = row;
                    }
                }
            }
        }
        differing.extend(seen_count.into_iter().filter(|(_, count)| *count < page_count).map(|(key, _)| key));
        Ok((merged, differing, end.is_some()))
    }

    async fn settle(
        &self,
        group: &Group,
        table: TableId,
        mut rows: BTreeMap<SortKey, HeldRow>,
        differing: BTreeSet<SortKey>,
        context: RequestContext,
    ) -> Result<Vec<(SortKey, HeldRow)>, TableError> {
        if !differing.is_empty() {
            match self.schemas.get(table).map_err(damaged)?.discipline() {
                Discipline::Register => {
                    let keys: Vec<SortKey> = differing.into_iter().collect();
                    let reads = keys.iter().map(|key| RegisterRead { table, key: key.clone(), want: Want::Row }).collect();
                    for (key, read) in keys.into_iter().zip(self.read(group, reads, context).await?) {
                        match read.row {
                            Some(row) => rows.insert(key, row),
                            None => rows.remove(&key),
                        };
                    }
                }
                Discipline::Merge => self.write_back(group, table, &rows, differing, context).await?,
            }
        }
        Ok(rows.into_iter().collect())
    }

    async fn write_back(
        &self,
        group: &Group,
        table: TableId,
        rows: &BTreeMap<SortKey, HeldRow>,
        differing: BTreeSet<SortKey>,
        context: RequestContext,
    ) -> Result<(), TableError> {
        let schema = self.schemas.get(table).map_err(damaged)?;
        let rows: Vec<(SortKey, &HeldRow)> = differing.into_iter().filter_map(|key| Some((key.clone(), rows.get(&key)?))).collect();
        let id_of = |row: &HeldRow| schema.companion_id(RowView { entry: row.entry, content: &row.content });
        let ids = rows.iter().filter_map(|(_, row)| id_of(row)).collect();
        let mut companions = self.companions_of_each(group, ids, context).await?;
        let mut repaired = Vec::new();
        for (key, row) in rows {
            let companions = match id_of(row) {
                Some(id) => companions.remove(&id).ok_or_else(|| Failures::default().unavailable())?,
                None => Vec::new(),
            };
            repaired.push(MergeRow { table, key, row: row.content.to_vec(), companions });
        }
        for batch in in_batches(repaired) {
            self.merge(group, batch, context).await?;
        }
        Ok(())
    }

    /// All companions of many ids, some ids a call; those of ids that no node has are missing.
    pub(super) async fn companions_of_each(
        &self,
        group: &Group,
        ids: BTreeSet<WriteId>,
        context: RequestContext,
    ) -> Result<BTreeMap<WriteId, Vec<Companion>>, TableError> {
        let ids: Vec<WriteId> = ids.into_iter().collect();
        let batches: Vec<Vec<WriteId>> = ids.chunks(COMPANION_IDS_PER_CALL).map(<[WriteId]>::to_vec).collect();
        let reads: Vec<_> = batches.into_iter().map(|batch| self.companions_of_batch(group, batch, context)).collect();
        let found: Vec<_> = stream::iter(reads).buffer_unordered(COMPANION_CALLS_AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// From the nearest node; another is asked when it lacks some, is slow, or fails.
    async fn companions_of_batch(
        &self,
        group: &Group,
        ids: Vec<WriteId>,
        context: RequestContext,
    ) -> Result<BTreeMap<WriteId, Vec<Companion>>, TableError> {
        let holders = self.holders(group)?;
        let ops = ids.iter().map(|id| Op::Companions { id: *id, from_chunk: 0, limit: u32::MAX }).collect();
        let message = GroupCall { group: group.key().clone(), ops };
        let mut found = BTreeMap::new();
        let judge = |_, answer: Result<GroupAnswer, CallError>| {
            let answers = answer.map(|answer| answer.answers).unwrap_or_default();
            for (id, answer) in ids.iter().zip(answers) {
                if let OpAnswer::Companions(companions) = answer
                    && companions.first().is_some_and(|first| first.chunk == 0)
                {
                    found.insert(*id, companions);
                }
            }
            if found.len() == ids.len() { Step::Done(()) } else { Step::AskAnother }
        };
        let call = |node| self.call_group(node, message.clone(), context);
        let _: Option<()> = self.cluster.quorum().read_hedged(&holders.nearest, 1, context.deadline, call, judge).await;
        // One by one what is too much for one answer.
        for id in ids.iter().filter(|_| 1 < ids.len()) {
            if !found.contains_key(id)
                && let Ok(companions) = self.companions(group, *id, 0, u32::MAX, context).await
            {
                found.insert(*id, companions);
            }
        }
        Ok(found)
    }

    /// Companions of one id from the nearest node that has them, in order of their chunks. Absence at one node is not an answer.
    pub async fn companions(
        &self,
        group: &Group,
        id: WriteId,
        from_chunk: u32,
        limit: u32,
        context: RequestContext,
    ) -> Result<Vec<Companion>, TableError> {
        let holders = self.holders(group)?;
        let message = GroupCall { group: group.key().clone(), ops: vec![Op::Companions { id, from_chunk, limit }] };
        let mut failures = Failures::default();
        let judge = |_, answer: Result<GroupAnswer, CallError>| match answer {
            Ok(answer) => match answer.answers.into_iter().next() {
                Some(OpAnswer::Companions(found)) if found.first().is_some_and(|first| first.chunk == from_chunk) => Step::Done(found),
                _ => Step::AskAnother,
            },
            Err(error) => {
                failures.note(&error);
                Step::AskAnother
            }
        };
        let call = |node| self.call_group(node, message.clone(), context);
        let calls = self.cluster.quorum();
        calls.read_hedged(&holders.nearest, 1, context.deadline, call, judge).await.ok_or_else(|| failures.unavailable())
    }
}

/// A replica that took only some of the rows has not taken the batch.
fn refuse_guarded(answer: GroupAnswer) -> Result<GroupAnswer, CallError> {
    if answer.answers.iter().any(|answer| matches!(answer, OpAnswer::Guarded)) {
        let message = "a promise stands against a row of the batch".to_string();
        return Err(CallError::Refused(garage_rpc::message::refusal(GUARDED, message)));
    }
    Ok(answer)
}

fn is_guarded(error: &CallError) -> bool {
    matches!(error, CallError::Refused(refusal) if refusal.code == GUARDED)
}

/// Rows in calls of bounded size.
fn in_batches(rows: Vec<MergeRow>) -> Vec<Vec<MergeRow>> {
    let (mut batches, mut batch_bytes) = (vec![Vec::new()], 0);
    for row in rows {
        let size_bytes = row.row.len() + row.companions.iter().map(|companion| companion.content.len()).sum::<usize>();
        let last = batches.last().map_or(0, Vec::len);
        if last == REPAIRS_PER_CALL_MAX || (0 < last && REPAIR_BYTES_PER_CALL_MAX < batch_bytes + size_bytes) {
            batches.push(Vec::new());
            batch_bytes = 0;
        }
        batch_bytes += size_bytes;
        if let Some(batch) = batches.last_mut() {
            batch.push(row);
        }
    }
    batches.retain(|batch| !batch.is_empty());
    batches
}

fn damaged(error: impl std::fmt::Display) -> TableError {
    TableError::Damaged { reason: error.to_string() }
}
