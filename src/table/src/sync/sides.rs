//! Changes what is kept beside all registers of a partition, some at a time.

use std::ops::Bound;

use garage_db::{Direction, Transaction};
use garage_rpc::register::RegisterSide;

use super::{Syncer, pass::SyncError};
use crate::{
    key::TableId,
    keyspaces,
    limits::CHANGED_SIDES_PER_COMMIT,
    schema::StoreError,
    store::{side_of, stored_side},
};

/// Applies `change` to every side of a digest partition; `on_changed` runs in each transaction that changes any, for the table it changes.
/// Durable on return.
pub(super) async fn change_all(
    syncer: &Syncer,
    partition: u8,
    change: impl Fn(&mut RegisterSide) + Copy + Send + 'static,
    on_changed: impl Fn(&mut Transaction<'_>, TableId) -> Result<(), StoreError> + Copy + Send + 'static,
) -> Result<(), SyncError> {
    let tables: Vec<TableId> = syncer.store.schemas().ids().collect();
    let remembering = syncer.store.db().read(move |snapshot| {
        let has_sides = |table: &TableId| {
            // The partition's floor lies under the prefix itself.
            let mut sides = snapshot.prefix(keyspaces::REGISTER, &[table.0, partition], Direction::Forward);
            sides.any(|item| item.map_or(true, |(key, _)| 2 < key.len()))
        };
        tables.into_iter().filter(has_sides).collect::<Vec<_>>()
    });
    for table in remembering.await? {
        let mut after = Vec::new();
        loop {
            let from = std::mem::take(&mut after);
            let changed = syncer.store.db().transact(move |transaction| {
                let (last, has_changed) = change_some(transaction, table, partition, &from, change)?;
                if has_changed {
                    on_changed(transaction, table)?;
                }
                Ok::<_, StoreError>(last)
            });
            match changed.await?.value {
                Some(last) => after = last,
                None => break,
            }
        }
    }
    Ok(())
}

/// Changes some sides after a key; the last key looked at, unless none is left, and whether any was changed.
fn change_some(
    transaction: &mut Transaction<'_>,
    table: TableId,
    partition: u8,
    after: &[u8],
    change: impl Fn(&mut RegisterSide),
) -> Result<(Option<Vec<u8>>, bool), StoreError> {
    let prefix = [table.0, partition];
    let start = if after.is_empty() { [&prefix[..], &[0]].concat() } else { [after, &[0]].concat() };
    let end = garage_db::engine::prefix_end(&prefix);
    let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let sides: Vec<(bytes::Bytes, bytes::Bytes)> = transaction
        .range(keyspaces::REGISTER, Bound::Included(&start), to, Direction::Forward)
        .take(CHANGED_SIDES_PER_COMMIT)
        .collect::<Result<_, _>>()?;
    let mut has_changed = false;
    for (key, value) in &sides {
        let mut side = side_of(value)?;
        let before = side.clone();
        change(&mut side);
        if side != before {
            has_changed = true;
            match side.is_empty() {
                true => transaction.delete(keyspaces::REGISTER, key.clone()),
                false => transaction.put(keyspaces::REGISTER, key.clone(), stored_side(&side)),
            }
        }
    }
    let is_cut = sides.len() == CHANGED_SIDES_PER_COMMIT;
    Ok((sides.last().filter(|_| is_cut).map(|(key, _)| key.to_vec()), has_changed))
}
