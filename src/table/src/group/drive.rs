//! Carries the messages of register operations: a batch of machines on one group, one call a node for all that is to be sent at a time.
//!
//! The rules are in `garage_rpc::register`; here are only calls, hedges, back-off, the deadline, and the contents of rows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use garage_net::{CallError, NodeId};
use garage_rpc::{
    Placement,
    message::code::STALE_LAYOUT,
    register::{self, Content, Coordinator, Entry, Outcome, Phase, Step, WriteId},
};
use serde_bytes::ByteBuf;
use tokio::time::{Duration, Instant, sleep_until};

use super::{Holders, RequestContext, TableError, Tables, errors::Failures, registers::RowTest};
use crate::{
    key::{Group, SortKey, TableId},
    message::{CALL_BYTES_MAX, Companion, GROUP_OPS_MAX, GroupAnswer, GroupCall, HeldRow, Op, OpAnswer, Want},
    schema::RowView,
};

/// How often the wait before a round that a rival won is doubled: it begins with what a call to the quorum takes, and has jitter.
const ROUND_BACKOFF_DOUBLINGS_MAX: u32 = 5;

/// What is written: the content of a row, and its companions. A function of the write's id.
#[derive(Clone, Debug, Default)]
pub(super) struct NewContent {
    pub content: Vec<u8>,
    pub companions: Vec<Companion>,
}

/// Decides a conditional write from the newest row: what to write, or `None` to refuse. Asked again only after a rival moved the row.
pub(super) type Decide<'a> = Box<dyn FnMut(Option<HeldRow>) -> BoxFuture<'a, Option<NewContent>> + Send + 'a>;

/// How a condition is judged.
pub(super) enum Judge<'a> {
    Unconditional,
    Decide(Decide<'a>),
    /// Asked in each round: the content is fixed.
    Test(RowTest<'a>),
}

/// One register operation with what the shell keeps for it.
pub(super) struct Operation<'a> {
    table: TableId,
    key: SortKey,
    machine: Coordinator<NodeId>,
    own: Option<NewContent>,
    want: Want,
    judge: Judge<'a>,
    /// The entry that the content was decided upon; `Some(None)`: upon an absent row. Under another stamp it may be a write that failed at
    /// first and was made again, with others in between.
    decided_on: Option<Option<Entry>>,
    /// The row and companions that each node answered with in the last phase that it answered.
    seen: BTreeMap<NodeId, Seen>,
    done: Option<Outcome<NodeId>>,
}

struct Seen {
    phase: Phase,
    row: Option<HeldRow>,
    companions: Vec<Companion>,
}

/// How an operation ended, with the row that its outcome names.
pub(super) struct Finished {
    pub outcome: Outcome<NodeId>,
    pub row: Option<HeldRow>,
    pub companions: Vec<Companion>,
    /// What the operation itself wrote, or would have.
    pub own: Option<NewContent>,
    /// Whether that was sent to anyone.
    pub was_sent: bool,
}

impl<'a> Operation<'a> {
    pub(super) fn write(table: TableId, key: SortKey, id: WriteId, own: NewContent, holders: &Holders) -> Operation<'a> {
        Operation::new(table, key, Coordinator::write(id, holders.sets.clone()), Some(own), Want::Row, Judge::Unconditional)
    }
    pub(super) fn decide(table: TableId, key: SortKey, id: WriteId, decide: Decide<'a>, holders: &Holders) -> Operation<'a> {
        Operation::new(table, key, Coordinator::write_if(id, holders.sets.clone()), None, Want::Row, Judge::Decide(decide))
    }
    pub(super) fn write_if(
        table: TableId,
        key: SortKey,
        id: WriteId,
        own: NewContent,
        test: RowTest<'a>,
        holders: &Holders,
    ) -> Operation<'a> {
        Operation::new(table, key, Coordinator::write_if(id, holders.sets.clone()), Some(own), Want::Row, Judge::Test(test))
    }
    pub(super) fn shared(
        table: TableId,
        key: SortKey,
        machine: Coordinator<NodeId>,
        own: NewContent,
        test: Option<RowTest<'a>>,
    ) -> Operation<'a> {
        Operation::new(table, key, machine, Some(own), Want::Row, test.map_or(Judge::Unconditional, Judge::Test))
    }
    pub(super) fn read(table: TableId, key: SortKey, want: Want, holders: &Holders) -> Operation<'a> {
        Operation::new(table, key, Coordinator::read(holders.sets.clone()), None, want, Judge::Unconditional)
    }
    pub(super) fn restamp(table: TableId, key: SortKey, holders: &Holders) -> Operation<'a> {
        Operation::new(table, key, Coordinator::restamp(holders.sets.clone()), None, Want::Row, Judge::Unconditional)
    }
    fn new(
        table: TableId,
        key: SortKey,
        machine: Coordinator<NodeId>,
        own: Option<NewContent>,
        want: Want,
        judge: Judge<'a>,
    ) -> Operation<'a> {
        Operation { table, key, machine, own, want, judge, decided_on: None, seen: BTreeMap::new(), done: None }
    }

    /// The row that `entry` names, as someone answered with it; its content belongs to its id, whatever the stamp.
    fn row_of(&self, entry: Option<Entry>) -> Option<HeldRow> {
        let seen = self.seen.values().find(|seen| is_of(seen, entry))?;
        seen.row.clone().map(|row| HeldRow { entry, content: row.content })
    }
    /// An answer that came late says nothing new: the machine ignores it, and so must what is kept for the machine.
    fn note(&mut self, node: NodeId, seen: Seen) {
        if self.seen.get(&node).is_none_or(|known| known.phase <= seen.phase) {
            self.seen.insert(node, seen);
        }
    }
    fn finished(mut self) -> Finished {
        let mut outcome = self.done.take().unwrap_or(Outcome::Unreachable);
        let entry = match &outcome {
            Outcome::Value { entry, .. } => *entry,
            Outcome::PreconditionFailed { newest } => *newest,
            _ => None,
        };
        let row = self.row_of(entry);
        if entry.is_some() && row.is_none() {
            // A row whose content is not at hand is not an absent one.
            outcome = Outcome::Unreachable;
        }
        let with_companions = self.seen.values().find(|seen| !seen.companions.is_empty() && is_of(seen, entry));
        let companions = with_companions.map(|seen| seen.companions.clone()).unwrap_or_default();
        Finished { outcome, row, companions, own: self.own, was_sent: self.machine.has_sent() }
    }
}

/// Whether what was seen is the content of the write that `entry` names; a restamp leaves it alone.
fn is_of(seen: &Seen, entry: Option<Entry>) -> bool {
    let id = |entry: Option<Entry>| entry.map(|entry| entry.id);
    entry.is_some() && seen.row.as_ref().is_some_and(|row| id(row.entry) == id(entry))
}

type Sent = (usize, Phase);
type Reply = (NodeId, Vec<Sent>, Result<GroupAnswer, CallError>);

/// A row of another's that is to be written back.
struct Adoption {
    index: usize,
    phase: Phase,
    message: register::Message,
    to: Vec<NodeId>,
}

/// The content of such a row, and under which id its companions are.
struct AdoptedRow {
    content: Vec<u8>,
    companions_of: Option<WriteId>,
}

struct Hedge {
    at: Instant,
    sent: Sent,
    message: register::Message,
    /// Not asked yet.
    spare: Vec<NodeId>,
}

/// The state of a drive.
pub(super) struct Drive<'a> {
    tables: &'a Tables,
    group: &'a Group,
    context: RequestContext,
    nearest: Vec<NodeId>,
    placement: Placement,
    operations: Vec<Operation<'a>>,
    todo: VecDeque<(usize, Step<NodeId>)>,
    adoptions: Vec<Adoption>,
    outbox: BTreeMap<NodeId, Vec<(Sent, Op)>>,
    calls: FuturesUnordered<BoxFuture<'static, Reply>>,
    hedges: Vec<Hedge>,
    backoffs: Vec<(Instant, usize, garage_util::hlc::Stamp)>,
    failures: Failures,
    sent_bytes: usize,
    /// Whether some row was sent, an own one or another's that is written back.
    has_written: bool,
}

/// Runs a batch of operations to their ends. What is under way of finished writes ends in the background.
pub(super) async fn drive<'a>(
    tables: &'a Tables,
    group: &'a Group,
    context: RequestContext,
    holders: Holders,
    operations: Vec<Operation<'a>>,
) -> Result<(Vec<Finished>, Failures), TableError> {
    let mut drive = Drive {
        tables,
        group,
        context,
        nearest: holders.nearest,
        placement: holders.placement,
        operations,
        todo: VecDeque::new(),
        adoptions: Vec::new(),
        outbox: BTreeMap::new(),
        calls: FuturesUnordered::new(),
        hedges: Vec::new(),
        backoffs: Vec::new(),
        failures: Failures::default(),
        sent_bytes: 0,
        has_written: false,
    };
    drive.run().await?;
    let Drive { operations, calls, failures, sent_bytes, has_written, placement, .. } = drive;
    // Also what is written back: the last replica is often the one that lacks the row.
    if has_written && !calls.is_empty() {
        // The placement is held by the calls' futures: until the last copy has ended, this node is not done with its layout.
        let held = calls.into_iter().map(|call| {
            let placement = placement.clone();
            async move {
                let _placement = placement;
                call.await
            }
        });
        tables.cluster.quorum().finish_in_background(held.collect(), sent_bytes, context.deadline).await;
    }
    Ok((operations.into_iter().map(Operation::finished).collect(), failures))
}

impl Drive<'_> {
    async fn run(&mut self) -> Result<(), TableError> {
        for index in 0..self.operations.len() {
            let step = self.operations[index].machine.start();
            self.todo.push_back((index, step));
        }
        loop {
            self.take_steps().await?;
            if self.operations.iter().all(|operation| operation.done.is_some()) {
                return Ok(());
            }
            self.wait().await?;
        }
    }

    async fn take_steps(&mut self) -> Result<(), TableError> {
        loop {
            self.take_plain_steps().await?;
            if self.adoptions.is_empty() {
                break;
            }
            // Together: after a replica was away, many rows of a batch are written back at once.
            self.adopt().await?;
        }
        self.flush();
        Ok(())
    }

    async fn take_plain_steps(&mut self) -> Result<(), TableError> {
        while let Some((index, step)) = self.todo.pop_front() {
            match step {
                Step::Wait => {}
                Step::Send { phase, message, to, content: Content::AnsweredBy(_) } => {
                    self.adoptions.push(Adoption { index, phase, message, to });
                }
                Step::Send { phase, message, to, content } => {
                    let own = if content == Content::Own { self.operations[index].own.clone() } else { None };
                    self.send(index, phase, message, to, own.unwrap_or_default());
                }
                Step::Tick { above, refused_rounds } => {
                    // Only the last wish counts: the operation has heard of greater stamps since an earlier one, which waited out a rival
                    // when the layout changed under it.
                    self.backoffs.retain(|(_, waiting, _)| *waiting != index);
                    if refused_rounds == 0 {
                        self.tick(index, above).await?;
                    } else {
                        self.flush();
                        self.backoffs.push((Instant::now() + self.backoff(refused_rounds), index, above));
                    }
                }
                Step::Test { newest, .. } => self.test(index, newest).await,
                Step::Done(outcome) => self.operations[index].done = Some(outcome),
            }
        }
        Ok(())
    }

    /// Sends rows that others wrote, each with its content and its companions.
    async fn adopt(&mut self) -> Result<(), TableError> {
        let adoptions = std::mem::take(&mut self.adoptions);
        let mut rows = Vec::new();
        for adoption in adoptions {
            let adopted = self.adopted_row(adoption.index, &adoption.message)?;
            rows.push((adoption, adopted));
        }
        let ids = rows.iter().filter_map(|(_, row)| row.as_ref()?.companions_of).collect();
        let companions = self.tables.companions_of_each(self.group, ids, self.context).await?;
        for (Adoption { index, phase, message, to }, row) in rows {
            let with_companions = row.and_then(|AdoptedRow { content, companions_of }| {
                let companions = companions_of.map_or(Some(Vec::new()), |id| companions.get(&id).cloned())?;
                Some(NewContent { content, companions })
            });
            match with_companions {
                Some(content) => self.send(index, phase, message, to, content),
                None => {
                    // Ends this operation alone, and only the machine knows whether its own write is on its way somewhere.
                    self.failures.note_reason("no node that answered has the whole of the newest row".to_string());
                    let step = self.operations[index].machine.on_deadline();
                    self.todo.push_back((index, step));
                }
            }
        }
        Ok(())
    }

    fn backoff(&self, refused_rounds: u32) -> Duration {
        let mut delays: Vec<Duration> = self.nearest.iter().map(|node| self.tables.cluster.hedge_delay(*node)).collect();
        delays.sort_unstable();
        let typical = delays.get(delays.len() / 2).copied().unwrap_or(garage_rpc::limits::HEDGE_DELAY_UNKNOWN);
        let longest = typical * 2u32.pow(refused_rounds.min(ROUND_BACKOFF_DOUBLINGS_MAX));
        longest.mul_f64((self.tables.cluster.runtime().random_u64() >> 11) as f64 / (1u64 << 53) as f64)
    }

    async fn tick(&mut self, index: usize, above: garage_util::hlc::Stamp) -> Result<(), TableError> {
        let stamp = self.tables.cluster.tick(above).await.map_err(|error| TableError::Clock { reason: error.to_string() })?;
        let step = self.operations[index].machine.on_tick(stamp);
        self.todo.push_back((index, step));
        Ok(())
    }

    async fn test(&mut self, index: usize, newest: Option<Entry>) {
        let operation = &mut self.operations[index];
        let row = operation.row_of(newest);
        if newest.is_some() && row.is_none() {
            let step = operation.machine.on_deadline();
            return self.todo.push_back((index, step));
        }
        let is_met = match (&mut operation.judge, operation.decided_on) {
            (Judge::Unconditional, _) => true,
            (Judge::Test(test), _) => test(row.as_ref()),
            // The content belongs to the write's id: once decided, it holds only for the row it was decided upon.
            (Judge::Decide(_), Some(decided_on)) => decided_on == newest,
            (Judge::Decide(decide), None) => {
                operation.own = decide(row).await;
                operation.decided_on = operation.own.is_some().then_some(newest);
                operation.own.is_some()
            }
        };
        let step = operation.machine.on_test(is_met);
        self.todo.push_back((index, step));
    }

    fn send(&mut self, index: usize, phase: Phase, message: register::Message, to: Vec<NodeId>, content: NewContent) {
        let sent = (index, phase);
        let hedge_delay = |node: &NodeId| self.tables.cluster.hedge_delay(*node);
        let is_query = matches!(message, register::Message::Query);
        self.has_written |= matches!(message, register::Message::Apply { .. });
        let (first, spare) = if is_query { self.split_nearest(index, &to) } else { (to, Vec::new()) };
        let delay = first.iter().map(hedge_delay).max().unwrap_or_default();
        for (order, node) in first.iter().enumerate() {
            // Only the nearest node sends the companions along: they are the bulk.
            let want = if order == 0 { self.operations[index].want } else { Want::Row };
            let op = self.register_op(index, message, content.clone(), want);
            self.outbox.entry(*node).or_default().push((sent, op));
        }
        self.hedges.retain(|hedge| hedge.sent.0 != index);
        self.hedges.push(Hedge { at: Instant::now() + delay, sent, message, spare });
    }

    fn register_op(&self, index: usize, message: register::Message, content: NewContent, want: Want) -> Op {
        let operation = &self.operations[index];
        let is_apply = matches!(message, register::Message::Apply { .. });
        Op::Register {
            table: operation.table,
            key: operation.key.clone(),
            message,
            content: is_apply.then(|| ByteBuf::from(content.content)),
            companions: content.companions,
            want,
        }
    }

    /// The nearest quorum among `to`, and the others.
    fn split_nearest(&self, index: usize, to: &[NodeId]) -> (Vec<NodeId>, Vec<NodeId>) {
        let wanted: BTreeSet<NodeId> = to.iter().copied().collect();
        let ordered: Vec<NodeId> = self.nearest.iter().copied().filter(|node| wanted.contains(node)).collect();
        let first = self.operations[index].machine.sets().first_quorum(&ordered);
        let spare = ordered.into_iter().filter(|node| !first.contains(node)).collect();
        (first, spare)
    }

    /// The content of a row that another wrote and this operation writes back; `None`: nobody answered with it.
    fn adopted_row(&self, index: usize, message: &register::Message) -> Result<Option<AdoptedRow>, TableError> {
        let register::Message::Apply { entry, .. } = message else { return Ok(None) };
        let operation = &self.operations[index];
        let seen = operation.seen.values().find(|seen| is_of(seen, Some(*entry)));
        let Some(row) = seen.and_then(|seen| seen.row.clone()) else { return Ok(None) };
        let schema = self.tables.schemas.get(operation.table).map_err(|error| TableError::Damaged { reason: error.to_string() })?;
        let companions_of = schema.companion_id(RowView { entry: Some(*entry), content: &row.content });
        Ok(Some(AdoptedRow { content: row.content.into_vec(), companions_of }))
    }

    /// Sends what is in the outbox: one call a node, or several where it is more than a call may hold.
    fn flush(&mut self) {
        for (node, queued) in std::mem::take(&mut self.outbox) {
            let (mut sent, mut ops, mut call_bytes) = (Vec::new(), Vec::new(), 0);
            for (phase, op) in queued {
                let len_bytes = op_len_bytes(&op);
                if ops.len() == GROUP_OPS_MAX || (!ops.is_empty() && CALL_BYTES_MAX < call_bytes + len_bytes) {
                    self.call(node, std::mem::take(&mut sent), std::mem::take(&mut ops));
                    call_bytes = 0;
                }
                call_bytes += len_bytes;
                sent.push(phase);
                ops.push(op);
            }
            if !ops.is_empty() {
                self.call(node, sent, ops);
            }
        }
    }

    fn call(&mut self, node: NodeId, sent: Vec<Sent>, ops: Vec<Op>) {
        self.sent_bytes = self.sent_bytes.max(ops.iter().map(op_len_bytes).sum());
        let message = GroupCall { group: self.group.key().clone(), ops };
        let options = self.context.call_options();
        let cluster = self.tables.cluster.clone();
        self.calls.push(async move { (node, sent, cluster.call(node, &message, options).await) }.boxed());
    }

    async fn wait(&mut self) -> Result<(), TableError> {
        let hedge_at = self.hedges.iter().map(|hedge| hedge.at).min();
        let backoff_at = self.backoffs.iter().map(|(at, ..)| *at).min();
        let until = hedge_at.into_iter().chain(backoff_at).min().unwrap_or(self.context.deadline).min(self.context.deadline);
        // Dropping the wait for an answer loses nothing: the calls stay in the set. Dropping the timer only drops the timer.
        tokio::select! {
            biased;
            Some(reply) = self.calls.next(), if !self.calls.is_empty() => self.on_reply(reply),
            () = sleep_until(until) => self.on_time(Instant::now()).await?,
        }
        Ok(())
    }

    fn on_reply(&mut self, (node, sent, answer): Reply) {
        match answer {
            Ok(answer) if answer.answers.len() == sent.len() => {
                self.tables.cluster.note_store_mark(node, answer.mark);
                for ((index, phase), answer) in sent.into_iter().zip(answer.answers) {
                    self.on_op_answer(node, index, phase, answer);
                }
            }
            Ok(_) => self.on_silence(node, &sent),
            Err(error) => {
                self.failures.note(&error);
                if is_stale_layout(&error) && self.plan_again(&sent) {
                    return;
                }
                self.on_silence(node, &sent);
            }
        }
    }

    /// The nodes of the group have changed: the operations go on with the new ones.
    fn plan_again(&mut self, sent: &[Sent]) -> bool {
        let Ok(holders) = self.tables.holders(self.group) else { return false };
        self.nearest = holders.nearest;
        self.placement = holders.placement;
        for (index, _) in sent {
            if self.operations[*index].machine.sets() != &holders.sets {
                let step = self.operations[*index].machine.on_new_sets(holders.sets.clone());
                self.todo.push_back((*index, step));
            }
        }
        !self.todo.is_empty()
    }

    fn on_op_answer(&mut self, node: NodeId, index: usize, phase: Phase, answer: OpAnswer) {
        let operation = &mut self.operations[index];
        let step = match answer {
            OpAnswer::Register { answer, row, companions } => {
                if row.is_some() {
                    operation.note(node, Seen { phase, row, companions });
                }
                operation.machine.on_answer(node, phase, answer)
            }
            _ => operation.machine.on_no_answer(node, phase),
        };
        self.todo.push_back((index, step));
    }

    fn on_silence(&mut self, node: NodeId, sent: &[Sent]) {
        for (index, phase) in sent {
            // A query that failed here is asked elsewhere at once.
            self.ask_spares(*index, *phase);
            let step = self.operations[*index].machine.on_no_answer(node, *phase);
            self.todo.push_back((*index, step));
        }
        self.flush();
    }

    fn ask_spares(&mut self, index: usize, phase: Phase) {
        let Some(hedge) = self.hedges.iter_mut().find(|hedge| hedge.sent == (index, phase)) else { return };
        let (spare, message) = (std::mem::take(&mut hedge.spare), hedge.message);
        for node in spare {
            let op = self.register_op(index, message, NewContent::default(), self.operations[index].want);
            self.outbox.entry(node).or_default().push(((index, phase), op));
        }
    }

    async fn on_time(&mut self, now: Instant) -> Result<(), TableError> {
        if self.context.deadline <= now {
            for (index, operation) in self.operations.iter_mut().enumerate().filter(|(_, operation)| operation.done.is_none()) {
                let step = operation.machine.on_deadline();
                self.todo.push_back((index, step));
            }
            return Ok(());
        }
        let due: Vec<Sent> = self.hedges.iter().filter(|hedge| hedge.at <= now).map(|hedge| hedge.sent).collect();
        for (index, phase) in due {
            self.ask_spares(index, phase);
            self.hedges.retain(|hedge| hedge.sent != (index, phase));
            let step = self.operations[index].machine.on_hedge_delay();
            self.todo.push_back((index, step));
        }
        self.flush();
        let (due, later) = std::mem::take(&mut self.backoffs).into_iter().partition(|(at, ..)| *at <= now);
        self.backoffs = later;
        let due: Vec<(Instant, usize, garage_util::hlc::Stamp)> = due;
        for (_, index, above) in due {
            self.tick(index, above).await?;
        }
        Ok(())
    }
}

/// The refusal brought a newer layout, which the cluster has taken over.
fn is_stale_layout(error: &CallError) -> bool {
    matches!(error, CallError::Refused(refusal) if refusal.code == STALE_LAYOUT)
}

fn op_len_bytes(op: &Op) -> usize {
    match op {
        Op::Register { content, companions, .. } => {
            content.as_ref().map_or(0, |content| content.len()) + companions.iter().map(|companion| companion.content.len()).sum::<usize>()
        }
        _ => 0,
    }
}
