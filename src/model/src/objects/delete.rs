//! Deleting: a delete marker over whatever is there, without reading it first.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};
use garage_rpc::register::WriteId;
use garage_table::{
    Group,
    group::{RegisterWrite, RequestContext, TableError},
};
use garage_util::encoding::Stored;

use super::{BucketRef, Objects, WriteCondition};
use crate::{
    error::ModelError,
    rows::{
        VERSION,
        object::{VersionRow, null_slot},
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

/// How the deletion of one key ended.
pub type DeleteOutcome = Result<(), ModelError>;

impl Objects {
    /// Deletes the current object of a key; whether there was one makes no difference, unless a condition asks.
    pub async fn delete(
        &self,
        bucket: &BucketRef,
        key: &str,
        condition: &WriteCondition,
        context: RequestContext,
    ) -> Result<(), ModelError> {
        let write = self.delete_marker(key);
        self.write_version(&bucket.group_of(key), write, condition, context).await
    }

    fn delete_marker(&self, key: &str) -> RegisterWrite {
        RegisterWrite {
            table: VERSION,
            key: null_slot(key),
            id: WriteId::random(self.tables.cluster().runtime()),
            content: VersionRow::DeleteMarker { modified_ms: self.now_ms() }.to_stored(),
            companions: Vec::new(),
        }
    }

    /// Deletes many keys, one round trip for all shards together; the outcomes are in the order of the keys.
    pub async fn delete_many(&self, bucket: &BucketRef, keys: Vec<KeyToDelete>, context: RequestContext) -> Vec<DeleteOutcome> {
        let mut outcomes: Vec<Option<DeleteOutcome>> = keys.iter().map(|_| None).collect();
        let mut plain: BTreeMap<Group, Vec<(usize, String)>> = BTreeMap::new();
        let mut conditional = Vec::new();
        for (index, key) in keys.into_iter().enumerate() {
            if key.condition.is_none() {
                plain.entry(bucket.group_of(&key.key)).or_default().push((index, key.key));
            } else {
                conditional.push((index, key));
            }
        }
        let batches = plain.into_iter().map(|(group, keys)| self.delete_batch(group, keys, context));
        let mut batches = stream::iter(batches).buffer_unordered(GROUPS_AT_ONCE);
        while let Some(batch) = batches.next().await {
            batch.into_iter().for_each(|(index, outcome)| outcomes[index] = Some(outcome));
        }
        let tested = conditional
            .into_iter()
            .map(|(index, key)| async move { (index, self.delete(bucket, &key.key, &key.condition, context).await) });
        let mut tested = stream::iter(tested).buffer_unordered(GROUPS_AT_ONCE);
        while let Some((index, outcome)) = tested.next().await {
            outcomes[index] = Some(outcome);
        }
        outcomes.into_iter().map(|outcome| outcome.unwrap_or(Err(ModelError::Table(TableError::OutcomeUnknown)))).collect()
    }

    async fn delete_batch(&self, group: Group, keys: Vec<(usize, String)>, context: RequestContext) -> Vec<(usize, DeleteOutcome)> {
        let writes = keys.iter().map(|(_, key)| self.delete_marker(key)).collect();
        match self.tables.write(&group, writes, self.step(context)).await {
            Ok(results) => {
                keys.into_iter().zip(results).map(|((index, _), result)| (index, result.map(drop).map_err(ModelError::from))).collect()
            }
            Err(error) => keys.into_iter().map(|(index, _)| (index, Err(ModelError::from(error.clone())))).collect(),
        }
    }
}
