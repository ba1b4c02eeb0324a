//! ListParts and ListMultipartUploads: by quorum, so what was answered before is there.

use futures::{StreamExt, TryStreamExt, stream};
use garage_table::{
    Group, SortKey,
    group::RequestContext,
    key::{after_prefix, push_escaped, split_escaped},
    message::RANGE_ROWS_MAX,
};
use garage_util::encoding::Stored;

use super::Uploads;
use crate::{
    error::ModelError,
    listing::replica::folded,
    objects::BucketRef,
    rows::{
        PART, UPLOAD,
        checksum::StoredChecksum,
        part::{PartRow, part_key, part_number_of},
        upload::{UploadId, UploadRow, UploadState},
    },
};

/// Shards asked at once.
const GROUPS_AT_ONCE: usize = 16;

/// A part as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedPart {
    /// From 1.
    pub part_number: u16,
    /// MD5 in hex.
    pub etag: String,
    /// Length of its content.
    pub size_bytes: u64,
    /// In milliseconds since 1970.
    pub modified_ms: u64,
    /// Given or computed.
    pub checksum: Option<StoredChecksum>,
}

/// A page of parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListPartsPage {
    /// The upload they belong to.
    pub upload: UploadRow,
    /// In order of their numbers.
    pub parts: Vec<ListedPart>,
    /// Whether more follows.
    pub truncated: bool,
}

/// An upload as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedUpload {
    /// The object key.
    pub key: String,
    /// Its id.
    pub id: UploadId,
    /// Its row.
    pub row: UploadRow,
}

/// An entry of a page of uploads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UploadEntry {
    /// An upload.
    Upload(Box<ListedUpload>),
    /// A common prefix, the delimiter included.
    Prefix(String),
}

/// A page of uploads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListUploadsPage {
    /// In order of keys, then of initiation.
    pub entries: Vec<UploadEntry>,
    /// Whether more follows.
    pub truncated: bool,
}

/// What to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListUploadsRequest {
    /// Only keys that start with it.
    pub prefix: String,
    /// Folds keys into common prefixes; empty is the same as none.
    pub delimiter: Option<String>,
    /// Lists after this key, or, with `upload_after`, also later uploads of the same key.
    pub key_after: Option<String>,
    /// Only with `key_after`.
    pub upload_after: Option<UploadId>,
    /// Entries at the most.
    pub limit: usize,
}

impl Uploads {
    /// Parts of an open upload after a number. Errors: `NoSuchUpload`.
    pub async fn list_parts(
        &self,
        bucket: &BucketRef,
        key: &str,
        upload: UploadId,
        after: u16,
        limit: usize,
        context: RequestContext,
    ) -> Result<ListPartsPage, ModelError> {
        let step = self.objects.step(context);
        let group = bucket.group_of(key);
        let end = after_prefix(upload.as_bytes()).map(SortKey);
        // One more than asked for tells whether the page is the last; a replica's answer holds one page at the most.
        let wanted = (limit + 1).min(RANGE_ROWS_MAX) as u32;
        let from = part_key(upload, after.saturating_add(1));
        let rows = self.objects.tables.range(&group, PART, from, end, wanted, step);
        let (upload, page) = futures::future::try_join(self.get(bucket, key, upload, context), async { Ok(rows.await?) }).await?;
        let mut parts = Vec::new();
        for (sort_key, row) in page.rows {
            let Some(part_number) = part_number_of(&sort_key.0) else { continue };
            let PartRow { etag, size_bytes, modified_ms, checksum, .. } = PartRow::from_stored(&row.content)?;
            parts.push(ListedPart { part_number, etag, size_bytes, modified_ms, checksum });
        }
        let truncated = page.truncated || limit < parts.len();
        parts.truncate(limit);
        Ok(ListPartsPage { upload, parts, truncated })
    }

    /// Open uploads of a bucket.
    pub async fn list(
        &self,
        bucket: &BucketRef,
        request: &ListUploadsRequest,
        context: RequestContext,
    ) -> Result<ListUploadsPage, ModelError> {
        if request.limit == 0 {
            return Ok(ListUploadsPage::default());
        }
        let groups = bucket.groups().collect::<Vec<Group>>();
        let runs = stream::iter(groups).map(|group| self.list_group(group, request, context)).buffer_unordered(GROUPS_AT_ONCE);
        let runs: Vec<Vec<(Vec<u8>, UploadEntry)>> = runs.try_collect().await?;
        let mut all: Vec<(Vec<u8>, UploadEntry)> = runs.into_iter().flatten().collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all.dedup_by(|a, b| a.0 == b.0);
        let truncated = request.limit < all.len();
        Ok(ListUploadsPage { entries: all.into_iter().take(request.limit).map(|(_, entry)| entry).collect(), truncated })
    }

    /// The first entries of one shard, one more than the page may hold.
    async fn list_group(
        &self,
        group: Group,
        request: &ListUploadsRequest,
        context: RequestContext,
    ) -> Result<Vec<(Vec<u8>, UploadEntry)>, ModelError> {
        let mut from = first_key(request);
        let end = after_prefix(&escaped_start(&request.prefix));
        let mut entries: Vec<(Vec<u8>, UploadEntry)> = Vec::new();
        loop {
            let to = end.clone().map(SortKey);
            let page =
                self.objects.tables.range(&group, UPLOAD, SortKey(from), to, RANGE_ROWS_MAX as u32, self.objects.step(context)).await?;
            let mut next = page.rows.last().map(|(key, _)| [&key.0[..], &[0]].concat());
            for (sort_key, row) in page.rows {
                let Some(found) = read_row(&sort_key, &row.content)? else { continue };
                let delimiter = request.delimiter.as_ref().map(|delimiter| delimiter.as_bytes());
                let common = folded(found.key.as_bytes(), request.prefix.as_bytes(), delimiter).map(<[u8]>::to_vec);
                let Some(common) = common else {
                    entries.push((sort_key.0, UploadEntry::Upload(Box::new(found))));
                    continue;
                };
                let position = escaped_start_bytes(&common);
                if entries.last().is_none_or(|(last, _)| *last != position)
                    && let Ok(prefix) = String::from_utf8(common)
                {
                    entries.push((position.clone(), UploadEntry::Prefix(prefix)));
                }
                if request.limit < entries.len() {
                    break;
                }
                next = next.max(after_prefix(&position));
            }
            match next {
                Some(next) if page.truncated && entries.len() <= request.limit => from = next,
                _ => return Ok(entries),
            }
        }
    }
}

/// An open upload in a row; `None`: it is over.
fn read_row(sort_key: &SortKey, content: &[u8]) -> Result<Option<ListedUpload>, ModelError> {
    let row = UploadRow::from_stored(content)?;
    if row.state != UploadState::Open {
        return Ok(None);
    }
    let Some((key, id)) = split_escaped(&sort_key.0) else { return Ok(None) };
    let (Ok(key), Ok(id)) = (String::from_utf8(key), <[u8; 32]>::try_from(id)) else { return Ok(None) };
    Ok(Some(ListedUpload { key, id: UploadId(id), row }))
}

/// What the escaped keys start with that start with `prefix`: the escape without its terminator.
fn escaped_start(prefix: &str) -> Vec<u8> {
    escaped_start_bytes(prefix.as_bytes())
}

fn escaped_start_bytes(prefix: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    push_escaped(&mut bytes, prefix);
    bytes.truncate(bytes.len() - 2);
    bytes
}

fn first_key(request: &ListUploadsRequest) -> Vec<u8> {
    let start = escaped_start(&request.prefix);
    let Some(key) = request.key_after.as_ref().filter(|key| !key.is_empty()) else { return start };
    let mut after = Vec::new();
    push_escaped(&mut after, key.as_bytes());
    let after = match request.upload_after {
        Some(upload) => [&after[..], upload.as_bytes(), &[0]].concat(),
        None => {
            let delimiter = request.delimiter.as_ref().map(|delimiter| delimiter.as_bytes());
            // As in listings of objects: the common prefix that the marker folds into is skipped as a whole.
            let common = if key.starts_with(&request.prefix) { folded(key.as_bytes(), request.prefix.as_bytes(), delimiter) } else { None };
            let skipped = common.map_or(after, escaped_start_bytes);
            after_prefix(&skipped).unwrap_or(skipped)
        }
    };
    after.max(start)
}
