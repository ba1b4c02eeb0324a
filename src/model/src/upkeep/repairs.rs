//! Repairs of references: every version row tells the nodes of its blocks that it needs them; every reference is asked about.

use std::ops::Bound;

use futures::{FutureExt, future::BoxFuture};
use garage_block::{
    BlockHash,
    manager::BlockRef,
    reference::{REFERENCE_TABLE, Reference},
};
use garage_db::Direction;
use garage_rpc::register::Entry;
use garage_table::{
    Discipline, Group, SortKey,
    key::{after_prefix, split_escaped},
    keyspaces,
    store::held_row,
};
use garage_util::{
    encoding::Stored,
    workers::{Report, Step, StepError, Wake, Worker},
};
use serde_bytes::ByteBuf;
use tokio::time::Instant;

use crate::{
    node::Node,
    objects::STEP_TIMEOUT,
    rows::{
        VERSION,
        object::VersionRow,
        owner::RowOwner,
        payload::{PayloadChunk, chunk_of},
    },
};

/// Rows looked at in one step.
const STEP_COUNT: usize = 64;

/// Which repair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReferenceRepair {
    /// Every version on this node gets its references anew, where they are missing.
    Versions,
    /// Every reference on this node is asked about.
    References,
}

impl ReferenceRepair {
    /// Starts it on a node.
    pub fn start(self, node: &Node) {
        node.workers.start(RepairWorker { node: node.clone(), kind: self, after: None, seen_count: 0, changed_count: 0 }, Wake::default());
    }
}

struct RepairWorker {
    node: Node,
    kind: ReferenceRepair,
    after: Option<Vec<u8>>,
    seen_count: u64,
    changed_count: u64,
}

/// A version as found on this node, with the blocks that it lists.
struct FoundVersion {
    group: Group,
    key: SortKey,
    /// Its stamp, and the id of its content.
    entry: Entry,
    blocks: Vec<BlockRef>,
}

impl RepairWorker {
    async fn work(&mut self) -> Result<Step, StepError> {
        let (count, last) = match self.kind {
            ReferenceRepair::Versions => self.repair_versions().await?,
            ReferenceRepair::References => self.ask_references().await?,
        };
        self.seen_count += count;
        self.after = last;
        Ok(if self.after.is_none() { Step::Done } else { Step::Busy })
    }

    async fn repair_versions(&mut self) -> Result<(u64, Option<Vec<u8>>), StepError> {
        let after = self.after.clone();
        let read = self.node.db.read(move |snapshot| {
            let table = [VERSION.0];
            let end = after_prefix(&table);
            let from = after.as_deref().map_or(Bound::Included(&table[..]), Bound::Excluded);
            let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let (mut found, mut last, mut count) = (Vec::new(), None, 0);
            for item in snapshot.range(keyspaces::ROWS, from, to, Direction::Forward).take(STEP_COUNT) {
                let (key, value) = item?;
                count += 1;
                found.extend(found_version(snapshot, &key, &value)?);
                last = Some(key.to_vec());
            }
            Ok::<_, garage_table::schema::StoreError>((found, count, last))
        });
        let (found, count, last) = read.await??;
        for version in found {
            self.changed_count += self.add_references(version).await?;
        }
        Ok((count, last))
    }

    /// Adds the references of a version where they are missing; how many blocks have lost copies.
    async fn add_references(&self, version: FoundVersion) -> Result<u64, StepError> {
        let owner = ByteBuf::from(RowOwner::version(&version.key).to_stored());
        let reference = |block: &BlockRef| Reference {
            block: block.hash,
            version: *version.entry.id.as_bytes(),
            group: ByteBuf::from(version.group.key().0.clone()),
            stamp: version.entry.stamp,
            owner: owner.clone(),
        };
        let mut references: Vec<Reference> = version.blocks.iter().map(reference).collect();
        references.sort_by_key(|reference| reference.block);
        references.dedup_by_key(|reference| reference.block);
        let context = garage_block::manager::RequestContext { deadline: Instant::now() + STEP_TIMEOUT, trace: 0 };
        let missing = self.node.blocks.add_references(references, context).await?;
        Ok(missing.len() as u64)
    }

    async fn ask_references(&mut self) -> Result<(u64, Option<Vec<u8>>), StepError> {
        let after = self.after.clone();
        let read = self.node.db.read(move |snapshot| {
            let table = [REFERENCE_TABLE.0];
            let end = after_prefix(&table);
            let from = after.as_deref().map_or(Bound::Included(&table[..]), Bound::Excluded);
            let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let (mut found, mut last) = (Vec::new(), None);
            for item in snapshot.range(keyspaces::ROWS, from, to, Direction::Forward).take(STEP_COUNT) {
                let (key, _) = item?;
                found.extend(reference_of(&key));
                last = Some(key.to_vec());
            }
            Ok::<_, garage_db::EngineError>((found, last))
        });
        let (found, last) = read.await??;
        let count = found.len() as u64;
        self.node.leases.ask_now(found).await?;
        self.changed_count += count;
        Ok((count, last))
    }
}

/// Block and version in the local key of a reference row.
fn reference_of(local_key: &[u8]) -> Option<(BlockHash, [u8; 32])> {
    let (block, version) = split_escaped(local_key.get(5..)?)?;
    Some((BlockHash(block.try_into().ok()?), version.try_into().ok()?))
}

/// A version with its own blocks; `None` for what has none: delete markers, inline content, parts (whose references are their own).
fn found_version(
    snapshot: &dyn garage_db::Snapshot,
    local_key: &[u8],
    value: &[u8],
) -> Result<Option<FoundVersion>, garage_table::schema::StoreError> {
    let Some((group, key)) = local_key.get(5..).and_then(split_escaped) else { return Ok(None) };
    let (group, row) = (Group::new(group), held_row(Discipline::Register, value)?);
    let Some(entry) = row.entry else { return Ok(None) };
    let version = VersionRow::from_stored(&row.content)?;
    if version.object().is_none() {
        return Ok(None);
    }
    let content = version.origin_as(entry).id;
    let mut blocks = Vec::new();
    for chunk in garage_table::store::companions_of(snapshot, &group, content)? {
        let PayloadChunk::Blocks(run) = chunk_of(&chunk)? else { return Ok(None) };
        blocks.extend(run);
    }
    Ok(Some(FoundVersion { group, key: SortKey(key.to_vec()), entry: Entry { id: content, ..entry }, blocks })
        .filter(|version| !version.blocks.is_empty()))
}

impl Worker for RepairWorker {
    fn name(&self) -> String {
        match self.kind {
            ReferenceRepair::Versions => "version repair worker".to_string(),
            ReferenceRepair::References => "block_ref repair worker".to_string(),
        }
    }
    fn step(&mut self) -> BoxFuture<'_, Result<Step, StepError>> {
        self.work().boxed()
    }
    fn report(&self) -> Report {
        let what = match self.kind {
            ReferenceRepair::Versions => format!("{} blocks lack copies and are being fetched", self.changed_count),
            ReferenceRepair::References => format!("{} references listed to be asked about", self.changed_count),
        };
        Report { progress: Some(self.seen_count.to_string()), messages: vec![what], ..Report::default() }
    }
}
