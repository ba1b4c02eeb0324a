//! ListParts and ListMultipartUploads: by quorum, so what was answered before is there.

use std::collections::BTreeMap;

use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use garage_table::{
    Group, SortKey,
    group::{RegisterRead, RequestContext, TableError},
    key::{after_prefix, push_escaped},
    message::{RANGE_ROWS_MAX, Want},
};
use garage_util::encoding::Stored;
use serde_bytes::ByteBuf;

use super::{
    Uploads,
    index::{UnfinishedUploads, escaped_start},
};
use crate::{
    error::ModelError,
    objects::BucketRef,
    paging::{self, Answers, PageAnswer, PageQuery, Settled, Shown, after_common, folded},
    rows::{
        PART, UPLOAD,
        checksum::StoredChecksum,
        part::{PartRow, part_key, part_number_of},
        upload::{UploadId, UploadRow, UploadSummary, split_upload_key},
    },
};

/// How often a page is read anew because completions were met underway.
const LIST_TRIES_MAX: usize = 4;
/// Completions brought to their end at once.
const ENDS_AT_ONCE: usize = 16;

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
    /// What is shown of it.
    pub summary: UploadSummary,
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
        let parts = self.parts_after(&group, upload, after, limit, step);
        let (upload, mut parts) = futures::future::try_join(self.get(bucket, key, upload, context), parts).await?;
        let truncated = limit < parts.len();
        parts.truncate(limit);
        Ok(ListPartsPage { upload, parts, truncated })
    }

    /// The first `limit + 1` parts after a number, or all there are: one more than asked for tells whether a page is the last.
    async fn parts_after(
        &self,
        group: &Group,
        upload: UploadId,
        after: u16,
        limit: usize,
        context: RequestContext,
    ) -> Result<Vec<ListedPart>, ModelError> {
        let end = after_prefix(upload.as_bytes()).map(SortKey);
        let (mut parts, mut after): (Vec<ListedPart>, u16) = (Vec::new(), after);
        loop {
            let wanted = (limit + 1 - parts.len()).min(RANGE_ROWS_MAX) as u32;
            let from = part_key(upload, after.saturating_add(1));
            let page = self.objects.tables.range(group, PART, from, end.clone(), wanted, context).await?;
            for (sort_key, row) in page.rows {
                let Some(part_number) = part_number_of(&sort_key.0) else { continue };
                let PartRow { etag, size_bytes, modified_ms, checksum, .. } = PartRow::from_stored(&row.content)?;
                parts.push(ListedPart { part_number, etag, size_bytes, modified_ms, checksum });
            }
            match parts.last() {
                // A page of replicas that differ may hold less than was asked for.
                Some(last) if page.truncated && parts.len() <= limit && after < last.part_number => after = last.part_number,
                _ => return Ok(parts),
            }
        }
    }

    /// Unfinished uploads of a bucket.
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
        let source = UploadsSource { uploads: self, context: self.objects.step(context) };
        let delimiter = request.delimiter.as_ref().filter(|text| !text.is_empty());
        let query = PageQuery {
            prefix: ByteBuf::from(request.prefix.as_bytes()),
            delimiter: delimiter.map(|text| ByteBuf::from(text.as_bytes())),
            from: ByteBuf::from(first_position(request)),
            limit: 0,
        };
        for tries_left in (0..LIST_TRIES_MAX).rev() {
            let entries = paging::page(&source, &groups, query.clone(), request.limit).await?;
            let met = entries.iter().filter(|(_, shown)| matches!(shown, Shown::Row(summary) if summary.completing));
            let met: Vec<Vec<u8>> = met.map(|(position, _)| position.clone()).collect();
            if met.is_empty() || tries_left == 0 {
                return Ok(page_of(entries, request.limit));
            }
            // A completion underway is either over, which the key then shows, or its upload is open.
            let ends: Vec<_> = met.iter().map(|position| self.end_of(bucket, position, source.context)).collect();
            let _: Vec<()> = stream::iter(ends).buffer_unordered(ENDS_AT_ONCE).try_collect().await?;
        }
        unreachable!("the last try returns")
    }

    async fn end_of(&self, bucket: &BucketRef, position: &[u8], context: RequestContext) -> Result<(), ModelError> {
        let Some((key, id)) = named(position) else { return Ok(()) };
        let group = bucket.group_of(&key);
        let row = self.get_in_any_state(&group, &key, id, context).await?;
        match self.bring_to_end(bucket, &key, id, row, context).await {
            // Nobody can tell any more; it is not open in any case.
            Ok(_) | Err(ModelError::Table(TableError::OutcomeUnknown)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn page_of(entries: BTreeMap<Vec<u8>, Shown<UploadSummary>>, limit: usize) -> ListUploadsPage {
    let truncated = limit < entries.len();
    let entry = |(position, shown): (Vec<u8>, Shown<UploadSummary>)| match shown {
        Shown::Row(UploadSummary { completing: true, .. }) => None,
        Shown::Row(summary) => {
            let (key, id) = named(&position)?;
            Some(UploadEntry::Upload(Box::new(ListedUpload { key, id, summary })))
        }
        Shown::Prefix(prefix) => String::from_utf8(prefix).ok().map(UploadEntry::Prefix),
    };
    ListUploadsPage { entries: entries.into_iter().take(limit).filter_map(entry).collect(), truncated }
}

/// The object key and the upload at a position.
fn named(position: &[u8]) -> Option<(String, UploadId)> {
    let (key, id) = split_upload_key(position)?;
    Some((String::from_utf8(key).ok()?, id))
}

struct UploadsSource<'a> {
    uploads: &'a Uploads,
    context: RequestContext,
}

impl paging::Source for UploadsSource<'_> {
    type Index = UnfinishedUploads;

    fn ask<'a>(&'a self, group: &'a Group, query: &'a PageQuery) -> BoxFuture<'a, Answers<UploadSummary>> {
        async move {
            let answers = self.uploads.objects.tables.query(group, UPLOAD, query.to_stored(), self.context).await?;
            answers.iter().map(|answer| Ok(PageAnswer::from_stored(answer)?)).collect()
        }
        .boxed()
    }

    fn settle<'a>(&'a self, group: &'a Group, positions: Vec<Vec<u8>>) -> BoxFuture<'a, Settled<UploadSummary>> {
        async move {
            let read = |position: &Vec<u8>| RegisterRead { table: UPLOAD, key: SortKey(position.clone()), want: Want::Row };
            let rows = self.uploads.objects.tables.read(group, positions.iter().map(read).collect(), self.context).await?;
            let mut listed = BTreeMap::new();
            for (position, read) in positions.into_iter().zip(rows) {
                let row = read.row.map(|row| UploadRow::from_stored(&row.content)).transpose()?;
                listed.extend(row.as_ref().and_then(UploadSummary::of).map(|summary| (position, summary)));
            }
            Ok(listed)
        }
        .boxed()
    }
}

/// The smallest position that may come.
fn first_position(request: &ListUploadsRequest) -> Vec<u8> {
    let start = escaped_start(request.prefix.as_bytes());
    let Some(key) = request.key_after.as_ref().filter(|key| !key.is_empty()) else { return start };
    let delimiter = request.delimiter.as_ref().map(|delimiter| delimiter.as_bytes());
    // A common prefix is listed only if it is greater than the marker, so the one that the marker folds into is skipped as a whole.
    let common = if key.starts_with(&request.prefix) { folded(key.as_bytes(), request.prefix.as_bytes(), delimiter) } else { None };
    if let Some(next) = common.and_then(after_common::<UnfinishedUploads>) {
        return next.max(start);
    }
    let mut after = Vec::new();
    push_escaped(&mut after, key.as_bytes());
    let after = match request.upload_after {
        Some(upload) => [&after[..], upload.as_bytes(), &[0]].concat(),
        None => after_prefix(&after).unwrap_or(after),
    };
    after.max(start)
}

#[cfg(test)]
mod tests {
    use super::{ListUploadsRequest, UploadId, first_position};
    use crate::rows::upload::upload_key;

    #[test]
    fn markers_skip_what_was_listed_before_them() {
        let request = |delimiter: Option<&str>, key: &str, upload: Option<u8>| ListUploadsRequest {
            delimiter: delimiter.map(String::from),
            key_after: Some(key.into()),
            upload_after: upload.map(|byte| UploadId([byte; 32])),
            ..ListUploadsRequest::default()
        };
        let at = |key: &str, byte: u8| upload_key(key, UploadId([byte; 32])).0;
        let skips = |request: &ListUploadsRequest, key: &str, byte: u8| at(key, byte) < first_position(request);
        let of_key = request(None, "b", None);
        assert!(skips(&of_key, "a", 9) && skips(&of_key, "b", 9) && !skips(&of_key, "b\0", 0) && !skips(&of_key, "ba", 0));
        let of_upload = request(None, "b", Some(5));
        assert!(skips(&of_upload, "b", 5) && !skips(&of_upload, "b", 6) && skips(&of_upload, "a", 9));
        for upload in [None, Some(5)] {
            let folded = request(Some("/"), "b/x", upload);
            assert!(skips(&folded, "b/z", 9) && !skips(&folded, "b0", 0), "the common prefix b/ was listed");
        }
        let within = ListUploadsRequest { prefix: "b".into(), ..request(None, "a", None) };
        assert!(skips(&within, "az", 9) && !skips(&within, "b", 0));
    }
}
