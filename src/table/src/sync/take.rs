//! How rows of other replicas come in: by the same rules as everything else, several in one transaction.
//!
//! Invariants:
//! - a register row comes in as an apply with its own stamp as ballot: no promise is ignored (rules 3 and 11);
//! - a row comes in together with its companions, never before them.

use std::collections::BTreeSet;

use garage_db::{Committed, TransactError, Transaction};
use garage_rpc::register::{self, ApplyAnswer};
use garage_util::{encoding::Stored, hlc::Stamp};
use serde_bytes::ByteBuf;

use super::message::{SideOf, SyncRow, Taken};
use crate::{
    digest::{self, KeyHash, RowHash},
    key::{Group, SortKey, TableId, split_local_key},
    keyspaces,
    message::{Companion, OpAnswer, Want},
    schema::{Discipline, RowChange, RowView, Schemas, StoreError},
    store::{
        Origin, RegisterOp, Store, held_row, held_stamp, is_guarded, merge_row, put_companions, raise_partition_floor, read_side, register,
    },
};

/// Why rows come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// To make replicas equal.
    Repair,
    /// So that this replica can stand in for the one that sends them: it admits then that it does not know the whole past of a row that
    /// it holds newer.
    Move,
    /// They are left over at a node that does not hold the partition any more: what is older than tombstones dropped here is refused.
    LeftOver,
}

impl Store {
    /// Takes rows of one table; durable on return.
    pub async fn take_rows(
        &self,
        table: TableId,
        rows: Vec<SyncRow>,
        why: Why,
    ) -> Result<Committed<Vec<Taken>>, TransactError<StoreError>> {
        let schemas = self.schemas().clone();
        let weight_bytes = rows.iter().map(SyncRow::len_bytes).sum();
        self.db()
            .transact_weighing(weight_bytes, move |transaction| {
                rows.into_iter().map(|row| take_row(&schemas, transaction, table, row, why)).collect()
            })
            .await
    }

    /// Takes companions before the row that needs them; durable on return.
    pub async fn take_companions(&self, group: Group, companions: Vec<Companion>) -> Result<(), TransactError<StoreError>> {
        let weight_bytes = companions.iter().map(|companion| companion.content.len()).sum();
        self.db().transact_weighing(weight_bytes, move |transaction| put_companions(transaction, &group, companions)).await.map(drop)
    }

    /// Drops rows at or below `floor`, the greatest stamp of a tombstone that was dropped where these rows are missing: each was deleted, and
    /// its tombstone is gone. Their derived writes go with them.
    pub async fn drop_outlived(
        &self,
        table: TableId,
        partition: u8,
        keys: Vec<KeyHash>,
        floor: Stamp,
    ) -> Result<(), TransactError<StoreError>> {
        if keys.is_empty() || floor == Stamp::ZERO {
            return Ok(());
        }
        let schemas = self.schemas().clone();
        let dropped = self.db().transact(move |transaction| {
            keys.iter().try_for_each(|key| drop_outlived(&schemas, transaction, table, partition, *key, floor))
        });
        dropped.await.map(drop)
    }

    /// Takes over what another replica keeps beside its registers in these places, and its floors; the registers whose row here is another
    /// than there and lies below the promise: it may have been accepted by new holders alone, and a round has to decide whether it counts.
    pub async fn take_sides(
        &self,
        places: BTreeSet<(TableId, u8)>,
        sides: Vec<SideOf>,
        floors: Vec<(TableId, u8, Stamp)>,
    ) -> Result<Vec<(TableId, Group, SortKey)>, TransactError<StoreError>> {
        let taken = self.db().transact(move |transaction| {
            for (table, partition, floor) in floors {
                if !places.contains(&(table, partition)) {
                    return Err(StoreError::BadRequest("the floor of another partition".to_string()));
                }
                raise_partition_floor(transaction, table, partition, floor)?;
            }
            let mut doubtful = Vec::new();
            for side in &sides {
                let (table, group, key) = take_side(transaction, &places, side)?;
                let held = held_stamp(transaction, &side.local_key)?;
                if Stamp::ZERO < held && held < side.promise && held != side.row {
                    doubtful.push((table, group, key));
                }
            }
            Ok(doubtful)
        });
        Ok(taken.await?.value)
    }
}

fn drop_outlived(
    schemas: &Schemas,
    transaction: &mut Transaction<'_>,
    table: TableId,
    partition: u8,
    key: KeyHash,
    floor: Stamp,
) -> Result<(), StoreError> {
    let schema = schemas.get(table)?;
    let Some((row_hash, local_key)) = digest::indexed_row(transaction, table, partition, key)? else { return Ok(()) };
    let Some((_, group, sort_key)) = split_local_key(&local_key) else { return Ok(()) };
    let Some(bytes) = transaction.get(keyspaces::ROWS, &local_key)? else { return Ok(()) };
    let row = held_row(schema.discipline(), &bytes)?;
    let Some(entry) = row.entry.filter(|entry| entry.stamp <= floor) else { return Ok(()) };
    let old = RowView { entry: Some(entry), content: &row.content };
    if schema.tombstone_since_ms(&sort_key.0, old).is_none() {
        // What follows from the row goes as if it had been deleted; nothing follows from a tombstone.
        let Some(tombstone) = schema.tombstone() else { return Ok(()) };
        let new = RowView { entry: Some(entry), content: &tombstone };
        schema.changed(transaction, &RowChange { group: &group, sort_key: &sort_key.0, old: Some(old), new })?;
    }
    remove_row(transaction, table, &group, &local_key, row_hash)
}

/// Removes a row and its place in the digests, without hooks.
pub(super) fn remove_row(
    transaction: &mut Transaction<'_>,
    table: TableId,
    group: &Group,
    local_key: &[u8],
    row_hash: RowHash,
) -> Result<(), StoreError> {
    digest::replace(transaction, group, table, local_key, Some(row_hash), None)?;
    transaction.delete(keyspaces::ROWS, local_key.to_vec());
    Ok(())
}

/// Takes one side over; the register that it belongs to, which has to lie in one of these places.
fn take_side(
    transaction: &mut Transaction<'_>,
    places: &BTreeSet<(TableId, u8)>,
    taken: &SideOf,
) -> Result<(TableId, Group, SortKey), StoreError> {
    let register = split_local_key(&taken.local_key).filter(|(table, group, _)| places.contains(&(*table, group.hash()[0])));
    let register = register.ok_or_else(|| StoreError::BadRequest("the side of a register of another partition".to_string()))?;
    let mut side = read_side(transaction, &taken.local_key)?;
    let before = side.clone();
    side.take_over(taken.promise, taken.superseded);
    if !taken.fences.is_empty() {
        // A write that all who held the register until now refuse must not come to be at those who hold it from now on.
        let held = transaction.get(keyspaces::ROWS, &taken.local_key)?;
        let row = held.map(|bytes| held_row(Discipline::Register, &bytes)).transpose()?.and_then(|row| row.entry);
        for fence in &taken.fences {
            side.fence(row, fence.id, fence.stamp);
        }
    }
    if side != before {
        transaction.put(keyspaces::REGISTER, taken.local_key.to_vec(), side.to_stored());
    }
    Ok(register)
}

fn take_row(schemas: &Schemas, transaction: &mut Transaction<'_>, table: TableId, row: SyncRow, why: Why) -> Result<Taken, StoreError> {
    let group = Group::new(row.group.0);
    match schemas.get(table)?.discipline() {
        Discipline::Merge => {
            let schema = schemas.get(table)?.clone();
            // What moves here was held beside the promises that move with it.
            if why != Why::Move && is_guarded(&*schema, transaction, &group, &row.key, &row.row.content)? {
                return Ok(Taken::Guarded);
            }
            let held = merge_row(&*schema, transaction, &group, &row.key, &row.row.content)?;
            put_companions(transaction, &group, row.companions)?;
            Ok(if held[..] == row.row.content[..] { Taken::Held } else { Taken::Outrun })
        }
        Discipline::Register => {
            let entry = row.row.entry.ok_or_else(|| StoreError::BadRequest("a register row without stamp and id".to_string()))?;
            let message = register::Message::Apply { entry, ballot: entry.stamp };
            let local_key = group.local_key(table, &row.key.0);
            let op =
                RegisterOp { table, key: row.key, message, content: Some(row.row.content), companions: row.companions, want: Want::Row };
            let origin = if why == Why::LeftOver { Origin::Coordinator } else { Origin::Replica };
            match register(schemas, transaction, &group, origin, op)? {
                OpAnswer::Register { answer: register::Answer::Apply(answer), .. } => match answer {
                    ApplyAnswer::Stored | ApplyAnswer::AlreadyHeld => Ok(Taken::Held),
                    ApplyAnswer::Refused { row: Some(held), .. } if entry.stamp <= held.stamp => {
                        if why == Why::Move {
                            let side = SideOf {
                                local_key: ByteBuf::from(local_key),
                                promise: Stamp::ZERO,
                                superseded: entry.stamp,
                                row: entry.stamp,
                                fences: Vec::new(),
                            };
                            take_side(transaction, &BTreeSet::from([(table, group.hash()[0])]), &side)?;
                        }
                        Ok(Taken::Outrun)
                    }
                    ApplyAnswer::Refused { row: None, .. } if why == Why::LeftOver => Ok(Taken::Outrun),
                    ApplyAnswer::Refused { .. } => Ok(Taken::Promised),
                },
                _ => Err(StoreError::BadRequest("an apply was answered by something else".to_string())),
            }
        }
    }
}
