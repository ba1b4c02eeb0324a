//! Multipart uploads. Round trips: create 1, part 2, complete 3.
//!
//! Invariants:
//! - an upload that began to complete can only end in the version it named, whoever finishes it;
//! - a repeated Complete with the same parts gets the same answer for as long as the row is kept;
//! - parts never make the key visible; the version row does, and it is written last.
//!
//! Reading order: this file (create, abort, lookup), `part`, `complete`, `list`.

mod complete;
mod list;
mod part;

use futures::{FutureExt, future::BoxFuture};
use garage_rpc::register::WriteId;
use garage_table::{
    Group,
    group::{Decision, RegisterRead, RegisterWrite, RequestContext, Updated},
    message::{HeldRow, Want},
};
use garage_util::encoding::Stored;

pub use complete::{CompleteRequest, CompletedPart};
pub use list::{ListPartsPage, ListUploadsPage, ListUploadsRequest, ListedPart, ListedUpload, UploadEntry};
pub use part::{PartRange, StoredPart};

use crate::{
    error::{ClientError, ModelError},
    objects::{BucketRef, Objects},
    rows::{
        UPLOAD,
        checksum::{ChecksumAlgorithm, ChecksumKind},
        object::ObjectHeaders,
        upload::{UploadId, UploadRow, UploadState, upload_key},
    },
};

/// Multipart uploads of all buckets. Cheap to clone.
#[derive(Clone)]
pub struct Uploads {
    objects: Objects,
}

/// What an upload is initiated with.
#[derive(Clone, Debug, Default)]
pub struct NewUpload {
    /// For the object to be.
    pub headers: ObjectHeaders,
    /// The access key that initiates it.
    pub initiator: String,
    /// The checksum of the object to be.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
    /// Whether the client named the algorithm itself.
    pub checksum_explicit: bool,
}

/// Where an upload id tells the checksum of its upload.
const CHECKSUM_BYTE: usize = 8;
const ALGORITHMS: [ChecksumAlgorithm; 5] =
    [ChecksumAlgorithm::Crc32, ChecksumAlgorithm::Crc32c, ChecksumAlgorithm::Crc64Nvme, ChecksumAlgorithm::Sha1, ChecksumAlgorithm::Sha256];

/// The checksum of an upload, as its id tells it. An id that was made up tells nothing reliable: the upload's row decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChecksumOfUpload {
    /// Algorithm and kind.
    pub checksum: (ChecksumAlgorithm, ChecksumKind),
    /// Whether the client named the algorithm itself.
    pub explicit: bool,
}

impl ChecksumOfUpload {
    /// What an id tells; `None`: its upload has no checksum.
    pub fn of(id: UploadId) -> Option<ChecksumOfUpload> {
        let code = id.0[CHECKSUM_BYTE].checked_sub(1)?;
        let kind = if code & 2 == 0 { ChecksumKind::FullObject } else { ChecksumKind::Composite };
        let algorithm = ALGORITHMS.get(usize::from(code >> 2))?;
        Some(ChecksumOfUpload { checksum: (*algorithm, kind), explicit: code & 1 == 1 })
    }
    fn to_byte(self) -> u8 {
        let (algorithm, kind) = self.checksum;
        let index = ALGORITHMS.iter().take_while(|other| **other != algorithm).count() as u8;
        1 + (index << 2) + (u8::from(kind == ChecksumKind::Composite) << 1) + u8::from(self.explicit)
    }
}

impl Uploads {
    /// Uploads that end in `objects`.
    pub fn new(objects: Objects) -> Uploads {
        Uploads { objects }
    }

    /// Initiates an upload: 1 round trip.
    pub async fn create(&self, bucket: &BucketRef, key: &str, new: NewUpload, context: RequestContext) -> Result<UploadId, ModelError> {
        let initiated_ms = self.objects.now_ms();
        let mut id = UploadId::random(self.objects.tables.cluster().runtime());
        // Ids sort by initiation, so that a list page can start behind any of them.
        id.0[..8].copy_from_slice(&initiated_ms.to_be_bytes());
        // So that a part's checksum can be computed while the upload's row is still being read.
        id.0[CHECKSUM_BYTE] = new.checksum.map_or(0, |checksum| ChecksumOfUpload { checksum, explicit: new.checksum_explicit }.to_byte());
        let row = UploadRow {
            initiated_ms,
            initiator: new.initiator,
            headers: new.headers,
            checksum: new.checksum,
            checksum_explicit: new.checksum_explicit,
            state: UploadState::Open,
        };
        let write = RegisterWrite {
            table: UPLOAD,
            key: upload_key(key, id),
            id: WriteId::random(self.objects.tables.cluster().runtime()),
            content: row.to_stored(),
            companions: Vec::new(),
        };
        self.objects.tables.write_one(&bucket.group_of(key), write, self.objects.step(context)).await?;
        Ok(id)
    }

    /// An upload that takes parts. Errors: `NoSuchUpload`.
    pub async fn get(&self, bucket: &BucketRef, key: &str, upload: UploadId, context: RequestContext) -> Result<UploadRow, ModelError> {
        let row = self.get_in_any_state(&bucket.group_of(key), key, upload, context).await?;
        if row.state == UploadState::Open { Ok(row) } else { Err(ClientError::NoSuchUpload.into()) }
    }

    async fn get_in_any_state(&self, group: &Group, key: &str, upload: UploadId, context: RequestContext) -> Result<UploadRow, ModelError> {
        let read = RegisterRead { table: UPLOAD, key: upload_key(key, upload), want: Want::Row };
        let held = self.objects.tables.read_one(group, read, self.objects.step(context)).await?.row;
        let held = held.ok_or(ClientError::NoSuchUpload)?;
        Ok(UploadRow::from_stored(&held.content)?)
    }

    /// Gives an upload up. Errors: `NoSuchUpload` when it was completed, aborted before, or never initiated.
    pub async fn abort(&self, bucket: &BucketRef, key: &str, upload: UploadId, context: RequestContext) -> Result<(), ModelError> {
        let decide = |_: WriteId, held: Option<HeldRow>| -> BoxFuture<'_, Decision<ModelError>> {
            let decision = match open_row(held) {
                Ok(row) => {
                    Decision::Write { content: UploadRow { state: UploadState::Aborted, ..row }.to_stored(), companions: Vec::new() }
                }
                Err(error) => Decision::Refuse(error),
            };
            std::future::ready(decision).boxed()
        };
        let group = bucket.group_of(key);
        match self.objects.tables.update(&group, UPLOAD, upload_key(key, upload), self.objects.step(context), decide).await? {
            Updated::Written(_) => Ok(()),
            Updated::Refused(error) => Err(error),
        }
    }
}

fn open_row(held: Option<HeldRow>) -> Result<UploadRow, ModelError> {
    let row = UploadRow::from_stored(&held.ok_or(ClientError::NoSuchUpload)?.content)?;
    if row.state == UploadState::Open { Ok(row) } else { Err(ClientError::NoSuchUpload.into()) }
}

#[cfg(test)]
mod tests {
    use super::{ALGORITHMS, CHECKSUM_BYTE, ChecksumKind, ChecksumOfUpload, UploadId};

    #[test]
    fn an_upload_id_tells_the_checksum_of_its_upload() {
        let mut id = UploadId([7; 32]);
        for algorithm in ALGORITHMS {
            for kind in [ChecksumKind::FullObject, ChecksumKind::Composite] {
                for explicit in [false, true] {
                    let told = ChecksumOfUpload { checksum: (algorithm, kind), explicit };
                    id.0[CHECKSUM_BYTE] = told.to_byte();
                    assert_eq!(ChecksumOfUpload::of(id), Some(told));
                }
            }
        }
        id.0[CHECKSUM_BYTE] = 0;
        assert_eq!(ChecksumOfUpload::of(id), None);
        id.0[CHECKSUM_BYTE] = 255;
        assert_eq!(ChecksumOfUpload::of(id), None);
    }
}
