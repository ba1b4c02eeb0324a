//! Deleting: a delete marker over whatever is there, without reading it first.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};
use garage_rpc::register::slots::Slot;
use garage_table::{
    Group,
    group::{RegisterWrite, RequestContext, RowTest, TableError},
};
use garage_util::encoding::Stored;

use super::{
    BucketRef, Objects, WriteCondition,
    put::{check_row, refused},
    version_row,
};
use crate::{
    error::ModelError,
    rows::{
        VERSION,
        bucket::Versioning,
        object::{VersionState, null_slot},
    },
};

/// Groups written at once by one request.
const GROUPS_AT_ONCE: usize = 16;

/// A key to delete, with what the client demands of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyToDelete {
    /// The object key.
    pub key: String,
    /// Tested per key.
    pub condition: WriteCondition,
}

/// What a deletion left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Deleted {
    /// The delete marker that is now the current version; `None` in a bucket without versioning.
    pub marker: Option<Slot>,
}

/// How the deletion of one key ended.
pub type DeleteOutcome = Result<Deleted, ModelError>;

impl Objects {
    /// Deletes the current object of a key; whether there was one makes no difference, unless a condition asks.
    pub async fn delete(&self, bucket: &BucketRef, key: &str, condition: &WriteCondition, context: RequestContext) -> DeleteOutcome {
        let (write, marker) = self.delete_marker(bucket.versioning, key);
        self.write_version(bucket, key, write, condition, context).await?;
        Ok(Deleted { marker })
    }

    pub(super) fn delete_marker(&self, versioning: Versioning, key: &str) -> (RegisterWrite, Option<Slot>) {
        let id = self.new_version_id();
        let (row, slot) = version_row(versioning, id, VersionState::DeleteMarker { modified_ms: self.now_ms() });
        (RegisterWrite { table: VERSION, key: null_slot(key), id, content: row.to_stored(), companions: Vec::new() }, slot)
    }

    /// Deletes many keys, one round trip for all shards together, two with conditions; the outcomes are in the order of the keys.
    pub async fn delete_many(&self, bucket: &BucketRef, keys: Vec<KeyToDelete>, context: RequestContext) -> Vec<DeleteOutcome> {
        let mut outcomes: Vec<Option<DeleteOutcome>> = keys.iter().map(|_| None).collect();
        let mut by_group: BTreeMap<(Group, bool), Vec<(usize, KeyToDelete)>> = BTreeMap::new();
        for (index, key) in keys.into_iter().enumerate() {
            let kind = (bucket.group_of(&key.key), key.condition.is_none());
            by_group.entry(kind).or_default().push((index, key));
        }
        let batch = |((group, is_plain), keys): ((Group, bool), Vec<(usize, KeyToDelete)>)| async move {
            if is_plain {
                self.delete_batch(bucket, group, keys, context).await
            } else {
                self.delete_batch_if(bucket, group, keys, context).await
            }
        };
        let batches: Vec<_> = by_group.into_iter().map(batch).collect();
        let mut batches = stream::iter(batches).buffer_unordered(GROUPS_AT_ONCE);
        while let Some(batch) = batches.next().await {
            batch.into_iter().for_each(|(index, outcome)| outcomes[index] = Some(outcome));
        }
        outcomes.into_iter().map(|outcome| outcome.unwrap_or(Err(ModelError::Table(TableError::OutcomeUnknown)))).collect()
    }

    async fn delete_batch(
        &self,
        bucket: &BucketRef,
        group: Group,
        keys: Vec<(usize, KeyToDelete)>,
        context: RequestContext,
    ) -> Vec<(usize, DeleteOutcome)> {
        let (writes, markers): (Vec<_>, Vec<_>) = keys.iter().map(|(_, key)| self.delete_marker(bucket.versioning, &key.key)).unzip();
        match self.tables.write(&group, writes, self.step(context)).await {
            Ok(results) => {
                let outcome = |((index, result), marker): ((usize, Result<_, TableError>), Option<Slot>)| {
                    (index, result.map(|_| Deleted { marker }).map_err(ModelError::from))
                };
                keys.into_iter().map(|(index, _)| index).zip(results).zip(markers).map(outcome).collect()
            }
            Err(error) => keys.into_iter().map(|(index, _)| (index, Err(ModelError::from(error.clone())))).collect(),
        }
    }

    async fn delete_batch_if(
        &self,
        bucket: &BucketRef,
        group: Group,
        keys: Vec<(usize, KeyToDelete)>,
        context: RequestContext,
    ) -> Vec<(usize, DeleteOutcome)> {
        let context = self.step(context);
        let (mut writes, mut made) = (Vec::new(), Vec::new());
        for (_, key) in &keys {
            let condition = key.condition.clone();
            let test: RowTest<'_> = Box::new(move |row| check_row(&condition, row).is_ok_and(|verdict| verdict.is_ok()));
            let (write, marker) = self.delete_marker(bucket.versioning, &key.key);
            made.push((write.id, marker));
            writes.push((write, test));
        }
        let results = match self.tables.write_each_if(&group, writes, context).await {
            Ok(results) => results,
            Err(error) => return keys.into_iter().map(|(index, _)| (index, Err(ModelError::from(error.clone())))).collect(),
        };
        let mut outcomes = Vec::new();
        for (((index, key), (id, marker)), result) in keys.into_iter().zip(made).zip(results) {
            let outcome = match result {
                Err(error) => Err(error.into()),
                Ok(Ok(_)) => Ok(Deleted { marker }),
                Ok(Err(refusal)) => match self.undo_if_sent(bucket, &group, &key.key, id, refusal.was_sent, context).await {
                    Ok(()) => refused(&key.condition, refusal.row).map(|()| Deleted::default()),
                    Err(error) => Err(error),
                },
            };
            outcomes.push((index, outcome));
        }
        outcomes
    }
}
