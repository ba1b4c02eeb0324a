//! Reads and writes of register rows.

use futures::{StreamExt, future::BoxFuture, stream};
use garage_rpc::register::{Coordinator, Entry, Outcome, WriteId};
use garage_util::hlc::Stamp;
use serde_bytes::ByteBuf;

use super::{
    RequestContext, TableError, Tables,
    drive::{Finished, NewContent, Operation, drive},
    errors::Failures,
    turns::Turn,
};
use crate::{
    key::{Group, SortKey, TableId},
    message::{Companion, HeldRow, Want},
};

/// Rows of one batch that wait for their turns at once.
const TURNS_AT_ONCE: usize = 16;

/// A write of one register row.
#[derive(Clone, Debug)]
pub struct RegisterWrite {
    /// The table.
    pub table: TableId,
    /// The register.
    pub key: SortKey,
    /// Fresh for each write as its client means it; the content belongs to it.
    pub id: WriteId,
    /// The row's stored form.
    pub content: Vec<u8>,
    /// Written with it.
    pub companions: Vec<Companion>,
}

/// A read of one register row.
#[derive(Clone, Debug)]
pub struct RegisterRead {
    /// The table.
    pub table: TableId,
    /// The register.
    pub key: SortKey,
    /// What to bring along.
    pub want: Want,
}

/// What a read found.
#[derive(Clone, Debug, Default)]
pub struct ReadRow {
    /// The row; `None`: never written.
    pub row: Option<HeldRow>,
    /// As wanted, if the nearest node had them; ask for the rest with [`Tables::companions`].
    pub companions: Vec<Companion>,
}

/// What a conditional write decides upon the newest row.
#[derive(Debug)]
pub enum Decision<E> {
    /// Write this.
    Write {
        /// The row's stored form.
        content: Vec<u8>,
        /// Written with it.
        companions: Vec<Companion>,
    },
    /// Write nothing.
    Refuse(E),
}

/// The end of a conditional write.
#[derive(Debug)]
pub enum Updated<E> {
    /// Written: the row as it now stands.
    Written(HeldRow),
    /// Refused by the decision.
    Refused(E),
}

/// A condition on the newest row; `None`: there is none.
pub type RowTest<'a> = Box<dyn FnMut(Option<&HeldRow>) -> bool + Send + 'a>;

/// A write that several coordinators may carry out; see [`Tables::write_shared`].
#[derive(Clone, Copy, Debug)]
pub struct SharedWrite {
    /// Nobody ever writes it below this stamp.
    pub first: Stamp,
    /// Whether this is the attempt at `first` itself.
    pub is_first: bool,
}

/// A write whose test failed.
#[derive(Clone, Debug)]
pub struct RefusedWrite {
    /// The row that it failed on; `None`: there is none.
    pub row: Option<HeldRow>,
    /// The write had been sent in an earlier attempt: it took no effect and never will, but some replica may have held it for a while.
    pub was_sent: bool,
}

/// How a write with a test ended.
pub type Tested = Result<Stamp, RefusedWrite>;

fn only(finished: Vec<Finished>) -> Result<Finished, TableError> {
    finished.into_iter().next().ok_or(TableError::OutcomeUnknown)
}

fn written_or_refused(finished: Finished, failures: &Failures) -> Result<Tested, TableError> {
    match finished.outcome {
        Outcome::Written { stamp } => Ok(Ok(stamp)),
        Outcome::PreconditionFailed { .. } => Ok(Err(RefusedWrite { row: finished.row, was_sent: finished.was_sent })),
        other => Err(failures.of_outcome(&other)),
    }
}

/// The row as a write with a test left or found it.
fn row_after(tested: &Tested, id: WriteId, content: Vec<u8>) -> Option<HeldRow> {
    match tested {
        Ok(stamp) => Some(HeldRow { entry: Some(Entry { stamp: *stamp, id }), content: ByteBuf::from(content) }),
        Err(refused) => refused.row.clone(),
    }
}

impl Tables {
    /// Writes rows of one group without conditions: one round trip for all that meet no rival.
    pub async fn write(
        &self,
        group: &Group,
        writes: Vec<RegisterWrite>,
        context: RequestContext,
    ) -> Result<Vec<Result<Stamp, TableError>>, TableError> {
        let holders = self.holders(group)?;
        let operation = |write: RegisterWrite| {
            let own = NewContent { content: write.content, companions: write.companions };
            Operation::write(write.table, write.key, write.id, own, &holders)
        };
        let operations = writes.into_iter().map(operation).collect();
        let (finished, failures) = drive(self, group, context, holders, operations).await?;
        let result = |finished: Finished| match finished.outcome {
            Outcome::Written { stamp } => Ok(stamp),
            other => Err(failures.of_outcome(&other)),
        };
        Ok(finished.into_iter().map(result).collect())
    }

    /// Writes one row without a condition.
    pub async fn write_one(&self, group: &Group, write: RegisterWrite, context: RequestContext) -> Result<Stamp, TableError> {
        let mut results = self.write(group, vec![write], context).await?;
        results.pop().unwrap_or(Err(TableError::OutcomeUnknown))
    }

    /// Writes one row if the newest one passes `test`; linearizable. Two round trips uncontended.
    ///
    /// `Ok(Err(refused))`: the test failed on this row, nothing was written. Of rivals through this node one goes its rounds at a time; who
    /// waited for its turn and fails the test on what the one before saw is answered without a round.
    pub async fn write_if<'a>(
        &'a self,
        group: &'a Group,
        write: RegisterWrite,
        context: RequestContext,
        mut test: impl FnMut(Option<&HeldRow>) -> bool + Send + 'a,
    ) -> Result<Tested, TableError> {
        let mut turn = self.turn(group, write.table, &write.key, context).await?;
        if let Some(row) = turn.known()
            && !test(row)
        {
            return Ok(Err(RefusedWrite { row: row.cloned(), was_sent: false }));
        }
        turn.begin_round();
        let holders = self.holders(group)?;
        let (id, content) = (write.id, write.content.clone());
        let own = NewContent { content: write.content, companions: write.companions };
        let operation = Operation::write_if(write.table, write.key, id, own, Box::new(test), &holders);
        let (finished, failures) = drive(self, group, context, holders, vec![operation]).await?;
        let outcome = written_or_refused(only(finished)?, &failures)?;
        turn.saw(row_after(&outcome, id, content));
        Ok(outcome)
    }

    /// [`Tables::write_if`] for many rows of one group, together in two round trips if no rival meets them; each has its own outcome.
    ///
    /// Rows for which others of this node stand in line are written one by one, each in its turn.
    pub async fn write_each_if<'a>(
        &'a self,
        group: &'a Group,
        writes: Vec<(RegisterWrite, RowTest<'a>)>,
        context: RequestContext,
    ) -> Result<Vec<Result<Tested, TableError>>, TableError> {
        let mut results: Vec<Option<Result<Tested, TableError>>> = writes.iter().map(|_| None).collect();
        let (mut together, mut one_by_one) = (Vec::new(), Vec::new());
        for (index, (write, test)) in writes.into_iter().enumerate() {
            match self.turns.take_if_free((write.table, group.key().clone(), write.key.clone())) {
                Some(turn) => together.push((index, turn, write, test)),
                None => one_by_one.push(async move { (index, self.write_if(group, write, context, test).await) }),
            }
        }
        let waiting = stream::iter(one_by_one).buffer_unordered(TURNS_AT_ONCE).collect::<Vec<_>>();
        let (written, waited) = futures::future::join(self.write_together(group, together, context), waiting).await;
        written?.into_iter().chain(waited).for_each(|(index, result)| results[index] = Some(result));
        Ok(results.into_iter().map(|result| result.unwrap_or(Err(TableError::OutcomeUnknown))).collect())
    }

    async fn write_together<'a>(
        &'a self,
        group: &'a Group,
        writes: Vec<(usize, Turn, RegisterWrite, RowTest<'a>)>,
        context: RequestContext,
    ) -> Result<Vec<(usize, Result<Tested, TableError>)>, TableError> {
        let holders = self.holders(group)?;
        let (mut operations, mut turns) = (Vec::new(), Vec::new());
        for (index, turn, write, test) in writes {
            turns.push((index, turn, write.id, write.content.clone()));
            let own = NewContent { content: write.content, companions: write.companions };
            operations.push(Operation::write_if(write.table, write.key, write.id, own, test, &holders));
        }
        let (finished, failures) = drive(self, group, context, holders, operations).await?;
        let mut results = Vec::new();
        for ((index, mut turn, id, content), finished) in turns.into_iter().zip(finished) {
            let result = written_or_refused(finished, &failures);
            if let Ok(tested) = &result {
                turn.saw(row_after(tested, id, content));
            }
            results.push((index, result));
        }
        Ok(results)
    }

    async fn turn(&self, group: &Group, table: TableId, key: &SortKey, context: RequestContext) -> Result<Turn, TableError> {
        let name = (table, group.key().clone(), key.clone());
        self.turns.take(name, context.deadline).await.ok_or(TableError::Contended)
    }

    /// Writes one row on behalf of all who know its id and `first`: it takes effect once, however many of them try, now or later.
    ///
    /// `first` is a tick that was made durable with the id before anyone used it; only the one who made it may say `is_first`, once: its
    /// attempt is then as quick as a plain write. `Ok(Err(refused))`: the test failed on this row, nothing was written.
    pub async fn write_shared<'a>(
        &'a self,
        group: &'a Group,
        write: RegisterWrite,
        shared: SharedWrite,
        context: RequestContext,
        test: Option<RowTest<'a>>,
    ) -> Result<Tested, TableError> {
        // A first attempt without a test needs no round unless it is refused; what a shared write saw may have been long before this call.
        let _turn = if shared.is_first && test.is_none() { None } else { Some(self.turn(group, write.table, &write.key, context).await?) };
        let holders = self.holders(group)?;
        let sets = holders.sets.clone();
        let machine = match (&test, shared.is_first) {
            (Some(_), _) => Coordinator::take_over_if(write.id, shared.first, sets),
            (None, true) => Coordinator::write_at(write.id, shared.first, sets),
            (None, false) => Coordinator::take_over(write.id, shared.first, sets),
        };
        let own = NewContent { content: write.content, companions: write.companions };
        let operation = Operation::shared(write.table, write.key, machine, own, test);
        let (finished, failures) = drive(self, group, context, holders, vec![operation]).await?;
        written_or_refused(only(finished)?, &failures)
    }

    /// Writes one row if `decide`, shown the newest row, says so; linearizable. Two round trips uncontended.
    ///
    /// `decide` is asked once for each id; when a rival moved the row in between, it is asked again under a fresh id.
    pub async fn update<'a, E, F>(
        &'a self,
        group: &'a Group,
        table: TableId,
        key: SortKey,
        context: RequestContext,
        mut decide: F,
    ) -> Result<Updated<E>, TableError>
    where
        E: Send + 'a,
        F: FnMut(WriteId, Option<HeldRow>) -> BoxFuture<'a, Decision<E>> + Send,
    {
        let _turn = self.turn(group, table, &key, context).await?;
        loop {
            let id = WriteId::random(self.cluster.runtime());
            let refused = std::sync::Mutex::new(None);
            let outcome = {
                let holders = self.holders(group)?;
                let decide = |row: Option<HeldRow>| -> BoxFuture<'_, Option<NewContent>> {
                    let decision = decide(id, row);
                    let refused = &refused;
                    Box::pin(async move {
                        match decision.await {
                            Decision::Write { content, companions } => Some(NewContent { content, companions }),
                            Decision::Refuse(error) => {
                                *refused.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
                                None
                            }
                        }
                    })
                };
                let operation = Operation::decide(table, key.clone(), id, Box::new(decide), &holders);
                let (finished, failures) = drive(self, group, context, holders, vec![operation]).await?;
                let finished = only(finished)?;
                match finished.outcome {
                    Outcome::Written { stamp } => {
                        let content = ByteBuf::from(finished.own.unwrap_or_default().content);
                        return Ok(Updated::Written(HeldRow { entry: Some(Entry { stamp, id }), content }));
                    }
                    Outcome::PreconditionFailed { .. } => Ok(()),
                    other => Err(failures.of_outcome(&other)),
                }
            };
            outcome?;
            if let Some(error) = refused.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
                return Ok(Updated::Refused(error));
            }
            // A rival moved the row after the decision: decide again, under a fresh id.
        }
    }

    /// Reads rows of one group: one round trip for all on which the nearest quorum agrees.
    pub async fn read(&self, group: &Group, reads: Vec<RegisterRead>, context: RequestContext) -> Result<Vec<ReadRow>, TableError> {
        let holders = self.holders(group)?;
        self.read_at(group, reads, holders, context).await
    }

    /// As [`Tables::read_one`], by majorities whatever the consistency mode.
    pub async fn read_settled(&self, group: &Group, read: RegisterRead, context: RequestContext) -> Result<ReadRow, TableError> {
        let holders = self.majority_holders(group)?;
        Ok(self.read_at(group, vec![read], holders, context).await?.pop().unwrap_or_default())
    }

    async fn read_at(
        &self,
        group: &Group,
        reads: Vec<RegisterRead>,
        holders: super::Holders,
        context: RequestContext,
    ) -> Result<Vec<ReadRow>, TableError> {
        let operations = reads.into_iter().map(|read| Operation::read(read.table, read.key, read.want, &holders)).collect();
        let (finished, failures) = drive(self, group, context, holders, operations).await?;
        let result = |finished: Finished| match finished.outcome {
            Outcome::Value { .. } => Ok(ReadRow { row: finished.row, companions: finished.companions }),
            other => Err(failures.of_outcome(&other)),
        };
        finished.into_iter().map(result).collect()
    }

    /// Reads one row.
    pub async fn read_one(&self, group: &Group, read: RegisterRead, context: RequestContext) -> Result<ReadRow, TableError> {
        Ok(self.read(group, vec![read], context).await?.pop().unwrap_or_default())
    }

    /// Gives the newest rows of these registers fresh stamps, so that they reach replicas whose promises keep them out as they are.
    pub async fn restamp(&self, group: &Group, keys: Vec<(TableId, SortKey)>, context: RequestContext) -> Result<(), TableError> {
        let holders = self.holders(group)?;
        let operations = keys.into_iter().map(|(table, key)| Operation::restamp(table, key, &holders)).collect();
        let (finished, failures) = drive(self, group, context, holders, operations).await?;
        finished.into_iter().try_for_each(|finished| match finished.outcome {
            Outcome::Value { .. } => Ok(()),
            other => Err(failures.of_outcome(&other)),
        })
    }
}
