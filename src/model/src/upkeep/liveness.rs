//! Verdicts on versions and parts: whether a row, as a quorum knows it, still stands for them.
//!
//! Invariants:
//! - dead is said only after a settled read at a majority of every live layout version found another row, or none;
//! - and only when the version can't come to be any more: its coordinator has ended (its row was seen and superseded, or its blocks are
//!   older than any request lives), or every replica of its register has durably fenced it;
//! - whatever could not be asked is unknown.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use garage_block::leases::{Liveness, Question, Verdict};
use garage_rpc::register::{WriteId, slots::Slot};
use garage_table::{
    Group, SortKey, Tables,
    group::{RegisterRead, RequestContext},
    key::{after_prefix, push_escaped, split_escaped},
    message::{Op, OpAnswer, RANGE_ROWS_MAX, Want},
};
use garage_util::encoding::Stored;

use super::marks;
use crate::{
    error::ModelError,
    rows::{
        OLDER_VERSION, UPLOAD, VERSION,
        object::{StoredSlot, VersionRow, VersionState, slot_of},
        owner::RowOwner,
        payload::{PayloadChunk, chunk_of},
        upload::{UploadRow, UploadState},
    },
};

/// How long one verdict may take.
const VERDICT_TIMEOUT: Duration = Duration::from_secs(30);
/// Verdicts reached at once.
const VERDICTS_AT_ONCE: usize = 8;
/// No request lives this long: what was begun earlier and is not there now never comes.
pub const REQUEST_LIFE_MAX: Duration = Duration::from_secs(25 * 3600);

/// Verdicts over the tables of a cluster.
pub struct RowLiveness {
    tables: Tables,
}

/// What an upload's parts are.
#[derive(Clone)]
enum Parts {
    /// The upload goes on, so each of them may be needed.
    Open,
    /// These are in the object that the upload became; the others are dead.
    Listed(BTreeSet<WriteId>),
}

type PartsByUpload = BTreeMap<Vec<u8>, Option<Parts>>;

impl RowLiveness {
    /// Verdicts over these tables.
    pub fn new(tables: Tables) -> RowLiveness {
        RowLiveness { tables }
    }

    async fn verdicts(tables: Tables, group: Group, questions: Vec<Question>) -> Vec<Verdict> {
        let parts = parts_of_uploads(&tables, &group, &questions).await;
        let judged = questions.iter().map(|question| judge(&tables, &group, question, &parts));
        stream::iter(judged.collect::<Vec<_>>()).buffered(VERDICTS_AT_ONCE).collect().await
    }
}

impl Liveness for RowLiveness {
    fn ask(&self, group: Vec<u8>, questions: Vec<Question>) -> BoxFuture<'static, Vec<Verdict>> {
        RowLiveness::verdicts(self.tables.clone(), Group::new(group), questions).boxed()
    }
}

async fn judge(tables: &Tables, group: &Group, question: &Question, parts: &PartsByUpload) -> Verdict {
    // References of older releases don't say whose they are: a repair of the versions tells them.
    let Ok(owner) = RowOwner::from_stored(&question.owner) else { return Verdict::Unknown };
    let id = WriteId(question.version);
    let judged = match owner {
        RowOwner::Version(key) => judge_version(tables, group, &SortKey(key.into_vec()), question).await,
        RowOwner::Part { upload, .. } => match parts.get(&upload[..]) {
            Some(Some(Parts::Open)) => Ok(Verdict::Pending),
            Some(Some(Parts::Listed(listed))) if listed.contains(&id) => Ok(Verdict::Live),
            Some(Some(Parts::Listed(_))) => Ok(dead_unless_in_use(tables, group, id).await),
            Some(None) | None => Ok(Verdict::Unknown),
        },
    };
    judged.unwrap_or_else(|error| {
        tracing::debug!(%error, "a version could not be asked about; it is asked about again later");
        Verdict::Unknown
    })
}

async fn judge_version(tables: &Tables, group: &Group, key: &SortKey, question: &Question) -> Result<Verdict, ModelError> {
    let (id, context) = (WriteId(question.version), RequestContext::within(VERDICT_TIMEOUT));
    if contents_of_key(tables, group, &key.0, context).await?.iter().any(|content| content.id == id) {
        return Ok(Verdict::Live);
    }
    let verdict = dead_unless_in_use(tables, group, id).await;
    if verdict != Verdict::Dead || question.was_seen || is_old(tables, question) {
        return Ok(verdict);
    }
    let is_fenced = tables.fence(group, VERSION, key, id, context).await?;
    Ok(if is_fenced { Verdict::Dead } else { Verdict::Unknown })
}

fn is_old(tables: &Tables, question: &Question) -> bool {
    let age_ms = tables.cluster().runtime().now_ms().saturating_sub(question.stamp.millis());
    REQUEST_LIFE_MAX.as_millis() as u64 <= age_ms
}

async fn dead_unless_in_use(tables: &Tables, group: &Group, id: WriteId) -> Verdict {
    match marks::is_in_use(tables, group, id).await {
        Some(false) => Verdict::Dead,
        Some(true) => Verdict::Pending,
        None => Verdict::Unknown,
    }
}

/// What a quorum knows of the uploads that any of the questions is about; `None`: it could not be read.
async fn parts_of_uploads(tables: &Tables, group: &Group, questions: &[Question]) -> PartsByUpload {
    let uploads: BTreeSet<Vec<u8>> = questions
        .iter()
        .filter_map(|question| match RowOwner::from_stored(&question.owner) {
            Ok(RowOwner::Part { upload, .. }) => Some(upload.into_vec()),
            _ => None,
        })
        .collect();
    let mut parts = PartsByUpload::new();
    for upload in uploads {
        let known = parts_of_upload(tables, group, &upload).await;
        if let Err(error) = &known {
            tracing::debug!(%error, "an upload could not be asked about; it is asked about again later");
        }
        parts.insert(upload, known.ok());
    }
    parts
}

async fn parts_of_upload(tables: &Tables, group: &Group, upload: &[u8]) -> Result<Parts, ModelError> {
    let context = RequestContext::within(VERDICT_TIMEOUT);
    let read = RegisterRead { table: UPLOAD, key: SortKey(upload.to_vec()), want: Want::Row };
    if let Some(row) = tables.read_settled(group, read, context).await?.row {
        match UploadRow::from_stored(&row.content)?.state {
            UploadState::Open | UploadState::Completing(_) => return Ok(Parts::Open),
            UploadState::Aborted => return Ok(Parts::Listed(BTreeSet::new())),
            UploadState::Completed(_) => {}
        }
    }
    let mut listed = BTreeSet::new();
    for content in contents_of_key(tables, group, upload, context).await? {
        if let Some(part_count) = content.part_count {
            listed.extend(parts_of_version(tables, group, content.id, part_count as usize, context).await?);
        }
    }
    Ok(Parts::Listed(listed))
}

/// The content of a version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LiveContent {
    /// The id under which it is kept.
    pub id: WriteId,
    /// The slot of the version that has it.
    pub slot: Slot,
    /// Parts it was uploaded in, if it was.
    pub part_count: Option<u32>,
}

/// The contents of all versions of the object whose escaped key `sort_key` begins with: the current one by a settled read, and every older one
/// that any replica of a quorum has as live.
pub(super) async fn contents_of_key(
    tables: &Tables,
    group: &Group,
    sort_key: &[u8],
    context: RequestContext,
) -> Result<Vec<LiveContent>, ModelError> {
    let Some((key, _)) = split_escaped(sort_key) else { return Ok(Vec::new()) };
    let mut prefix = Vec::new();
    push_escaped(&mut prefix, &key);
    let mut contents = older_contents(tables, group, &prefix, context).await?;
    let read = RegisterRead { table: VERSION, key: SortKey(prefix), want: Want::Row };
    if let Some(row) = tables.read_settled(group, read, context).await?.row
        && let Some(entry) = row.entry
    {
        let row = VersionRow::from_stored(&row.content)?;
        contents.extend(row.object().map(|meta| LiveContent {
            id: row.origin_as(entry).id,
            slot: row.slot(),
            part_count: meta.part_count,
        }));
    }
    Ok(contents)
}

async fn older_contents(tables: &Tables, group: &Group, prefix: &[u8], context: RequestContext) -> Result<Vec<LiveContent>, ModelError> {
    let (mut from, end) = (SortKey(prefix.to_vec()), after_prefix(prefix).map(SortKey));
    let mut contents = Vec::new();
    loop {
        let op = Op::Range { table: OLDER_VERSION, from, to: end.clone(), limit: RANGE_ROWS_MAX as u32 };
        let (mut last, mut is_cut) = (None, false);
        for (_, answers) in tables.ask_quorum(group, vec![op], context).await? {
            let Some(OpAnswer::Rows { rows, truncated }) = answers.into_iter().next() else { continue };
            // A cut answer says nothing of what follows it: the next page begins after the first of them.
            if truncated {
                let end = rows.last().map(|(key, _)| key.clone());
                last = if is_cut { end.min(last) } else { end };
                is_cut = true;
            }
            for (key, row) in rows {
                let Some(slot) = key.0.get(prefix.len()..).and_then(slot_of) else { continue };
                let row = StoredSlot::from_stored(&row.content)?.0;
                let object = row.content.as_ref().filter(|_| row.is_live()).and_then(VersionState::object);
                contents.extend(object.map(|meta| LiveContent { id: row.origin.id, slot, part_count: meta.part_count }));
            }
        }
        match last {
            Some(last) if is_cut => from = SortKey([&last.0[..], &[0]].concat()),
            _ => return Ok(contents),
        }
    }
}

pub(super) async fn parts_of_version(
    tables: &Tables,
    group: &Group,
    id: WriteId,
    part_count: usize,
    context: RequestContext,
) -> Result<Vec<WriteId>, ModelError> {
    let (mut ids, mut next_chunk) = (Vec::new(), 0);
    while ids.len() < part_count {
        for chunk in tables.companions(group, id, next_chunk, u32::MAX, context).await? {
            next_chunk = chunk.chunk + 1;
            let PayloadChunk::Parts { parts, .. } = chunk_of(&chunk)? else { return Ok(ids) };
            ids.extend(parts.into_iter().map(|part| part.id));
        }
    }
    Ok(ids)
}
