//! Giving up a block that is lost for good: every object that needs it is deleted, every open upload with it is aborted.

use garage_block::{BlockHash, reference::ReferenceState};
use garage_rpc::register::WriteId;
use garage_table::{Group, group::RequestContext};
use garage_util::encoding::Stored;

use super::liveness::{contents_of_key, parts_of_version};
use crate::{
    error::{ClientError, ModelError},
    node::Node,
    rows::{
        object::{null_slot, split_slot},
        owner::RowOwner,
        upload::UploadId,
    },
};

/// What a purge deleted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Purged {
    /// Objects deleted.
    pub objects_count: u64,
    /// Versions deleted.
    pub versions_count: u64,
    /// Uploads aborted.
    pub uploads_count: u64,
    /// References asked about anew.
    pub references_count: u64,
}

/// Deletes what needs a block. What can't be deleted now ends it with an error; repeating it goes on.
pub async fn purge(node: &Node, hash: BlockHash, context: RequestContext) -> Result<Purged, ModelError> {
    let rows = node.blocks.service().references().of(hash).await.map_err(failed)?;
    let mut purged = Purged::default();
    let mut asked = Vec::new();
    for (version, row) in rows.into_iter().filter(|(_, row)| row.state != ReferenceState::Dropped) {
        let Ok(owner) = RowOwner::from_stored(&row.owner) else { continue };
        let (group, id) = (Group::new(row.group.to_vec()), WriteId(version));
        match owner {
            RowOwner::Version(key) => {
                let Some((key, _)) = split_slot(&key) else { continue };
                delete_version(node, &group, &key, id, context, &mut purged).await?;
            }
            RowOwner::Part { upload, .. } => purge_part(node, &group, &upload, id, context, &mut purged).await?,
        }
        asked.push((hash, version));
    }
    purged.references_count = asked.len() as u64;
    node.leases.ask_now(asked).await.map_err(failed)?;
    Ok(purged)
}

async fn purge_part(
    node: &Node,
    group: &Group,
    upload: &[u8],
    part: WriteId,
    context: RequestContext,
    purged: &mut Purged,
) -> Result<(), ModelError> {
    let Some((key, id)) = garage_table::key::split_escaped(upload) else { return Ok(()) };
    let (Ok(key), Ok(id)) = (String::from_utf8(key), <[u8; 32]>::try_from(id)) else { return Ok(()) };
    match node.uploads.abort_in(group, &key, UploadId(id), context).await {
        Ok(()) => purged.uploads_count += 1,
        Err(ModelError::Client(ClientError::NoSuchUpload)) => {}
        Err(error) => return Err(error),
    }
    for content in contents_of_key(node.objects.tables(), group, upload, context).await? {
        let Some(part_count) = content.part_count else { continue };
        if parts_of_version(node.objects.tables(), group, content.id, part_count as usize, context).await?.contains(&part) {
            delete_version(node, group, &key, content.id, context, purged).await?;
        }
    }
    Ok(())
}

/// Deletes the version with this content, whichever slot of the key it fills, locked or not: its content is lost.
async fn delete_version(
    node: &Node,
    group: &Group,
    key: &str,
    id: WriteId,
    context: RequestContext,
    purged: &mut Purged,
) -> Result<(), ModelError> {
    let sort_key = null_slot(key);
    let tables = node.objects.tables();
    let Some(content) = contents_of_key(tables, group, &sort_key.0, context).await?.into_iter().find(|content| content.id == id) else {
        return Ok(());
    };
    if node.objects.discard_version(group, key, content.slot, id, context).await? {
        purged.objects_count += 1;
        purged.versions_count += 1;
    }
    Ok(())
}

fn failed(error: impl std::fmt::Display) -> ModelError {
    garage_table::group::TableError::Damaged { reason: error.to_string() }.into()
}
