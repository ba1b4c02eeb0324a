//! Multipart uploads. Round trips: create 1, part 2, complete 3.
//!
//! Invariants:
//! - an upload that began to complete can only end in the version it named, whoever finishes it, or, if what that version was to replace is
//!   gone, be open again;
//! - a repeated Complete with the same parts gets the same answer for as long as the row is kept;
//! - of a Complete and an Abort one wins; whoever meets a completion underway brings it to its end first;
//! - parts never make the key visible; the version row does, and it is written last.
//!
//! Reading order: this file (create, abort, lookup), `part`, `complete` (the decision), `completion` (carrying it out), `index`, `list`.

mod complete;
mod completion;
pub mod index;
mod list;
mod part;

use futures::{FutureExt, future::BoxFuture};
use garage_rpc::register::WriteId;
use garage_table::{
    Group,
    group::{Decision, RegisterRead, RegisterWrite, RequestContext, TableError, Updated},
    message::{HeldRow, Want},
};
use garage_util::{encoding::Stored, hlc::Stamp};

pub use complete::{CompleteRequest, CompletedPart};
pub use list::{ListPartsPage, ListUploadsPage, ListUploadsRequest, ListedPart, ListedUpload, UploadEntry};
pub use part::{PartRange, StoredPart};

use crate::{
    error::{ClientError, ModelError},
    limits::COMPLETE_TRIES_MAX,
    objects::{BucketRef, Objects, clock_failed},
    rows::{
        UPLOAD,
        checksum::{ChecksumAlgorithm, ChecksumType},
        object::ObjectHeaders,
        upload::{Replaces, UploadId, UploadRow, UploadState, upload_key},
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
    pub checksum: Option<(ChecksumAlgorithm, ChecksumType)>,
    /// Whether the client named the algorithm itself.
    pub checksum_explicit: bool,
}

/// Where an upload id tells the checksum of its upload.
const CHECKSUM_BYTE: usize = 8;
/// Where an upload id tells whether its parts are encrypted: 0 if they are not.
const ENCRYPTION_BYTE: usize = 9;
const UNDER_CLUSTER_KEY: u8 = 1;
const UNDER_CUSTOMER_KEY: u8 = 2;

/// The checksum of an upload, as its id tells it. An id that was made up tells nothing reliable: the upload's row decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChecksumOfUpload {
    /// Algorithm and kind.
    pub checksum: (ChecksumAlgorithm, ChecksumType),
    /// Whether the client named the algorithm itself.
    pub explicit: bool,
}

impl ChecksumOfUpload {
    /// What an id tells; `None`: its upload has no checksum.
    pub fn of(id: UploadId) -> Option<ChecksumOfUpload> {
        let code = id.0[CHECKSUM_BYTE].checked_sub(1)?;
        let kind = if code & 2 == 0 { ChecksumType::FullObject } else { ChecksumType::Composite };
        let algorithm = ChecksumAlgorithm::ALL.get(usize::from(code >> 2))?;
        Some(ChecksumOfUpload { checksum: (*algorithm, kind), explicit: code & 1 == 1 })
    }
    fn to_byte(self) -> u8 {
        let (algorithm, kind) = self.checksum;
        let index = ChecksumAlgorithm::ALL.iter().take_while(|other| **other != algorithm).count() as u8;
        1 + (index << 2) + (u8::from(kind == ChecksumType::Composite) << 1) + u8::from(self.explicit)
    }
}

/// Whether the parts of an upload may be encrypted, as its id tells it; its row then says how.
pub fn may_be_encrypted(id: UploadId) -> bool {
    id.0[ENCRYPTION_BYTE] != 0
}

/// Whether the parts of an upload are encrypted under the cluster's key, as its id tells it.
pub fn is_under_cluster_key(id: UploadId) -> bool {
    id.0[ENCRYPTION_BYTE] == UNDER_CLUSTER_KEY
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
        // Ids sort by initiation, so that a list page can start behind any of them; two of one millisecond by the counter of the stamp.
        let stamp = self.objects.tables.cluster().tick(Stamp::ZERO).await.map_err(clock_failed)?;
        id.0[..8].copy_from_slice(&stamp.time().to_be_bytes());
        // So that a part's checksum can be computed while the upload's row is still being read.
        id.0[CHECKSUM_BYTE] = new.checksum.map_or(0, |checksum| ChecksumOfUpload { checksum, explicit: new.checksum_explicit }.to_byte());
        id.0[ENCRYPTION_BYTE] = match &new.headers.encryption {
            None => 0,
            Some(encryption) if encryption.is_customer() => UNDER_CUSTOMER_KEY,
            Some(_) => UNDER_CLUSTER_KEY,
        };
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
        let group = bucket.group_of(key);
        let mut row = self.get_in_any_state(&group, key, upload, context).await?;
        // One that may yet be open again is not said to be gone.
        if matches!(&row.state, UploadState::Completing(completion) if completion.replaces != Replaces::Anything) {
            row = self.bring_to_end(bucket, key, upload, row, self.objects.step(context)).await?;
        }
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
        let (group, step) = (bucket.group_of(key), self.objects.step(context));
        for _ in 0..COMPLETE_TRIES_MAX {
            let decide = |_: WriteId, held: Option<HeldRow>| -> BoxFuture<'_, Decision<Result<UploadRow, ModelError>>> {
                std::future::ready(aborted(held)).boxed()
            };
            match self.objects.tables.update(&group, UPLOAD, upload_key(key, upload), step, decide).await? {
                Updated::Written(_) => return Ok(()),
                Updated::Refused(Err(error)) => return Err(error),
                // Its client may never have been answered: left as it is, nobody could end it.
                Updated::Refused(Ok(completing)) => {
                    if self.bring_to_end(bucket, key, upload, completing, step).await?.state != UploadState::Open {
                        return Err(ClientError::NoSuchUpload.into());
                    }
                }
            }
        }
        Err(TableError::Contended.into())
    }
}

impl Uploads {
    /// Gives an open upload of this group up; one that is completing counts as none.
    pub(crate) async fn abort_in(&self, group: &Group, key: &str, upload: UploadId, context: RequestContext) -> Result<(), ModelError> {
        let decide = |_: WriteId, held: Option<HeldRow>| -> BoxFuture<'_, Decision<Result<UploadRow, ModelError>>> {
            std::future::ready(aborted(held)).boxed()
        };
        match self.objects.tables.update(group, UPLOAD, upload_key(key, upload), self.objects.step(context), decide).await? {
            Updated::Written(_) => Ok(()),
            Updated::Refused(Err(error)) => Err(error),
            Updated::Refused(Ok(_)) => Err(ClientError::NoSuchUpload.into()),
        }
    }
}

/// Writes that an open upload is aborted; refuses with the row of one that is completing, or with the error for any other.
fn aborted(held: Option<HeldRow>) -> Decision<Result<UploadRow, ModelError>> {
    let row = held.map(|held| UploadRow::from_stored(&held.content)).transpose();
    match row {
        Err(error) => Decision::Refuse(Err(error.into())),
        Ok(Some(row)) if row.state == UploadState::Open => {
            Decision::Write { content: UploadRow { state: UploadState::Aborted, ..row }.to_stored(), companions: Vec::new() }
        }
        Ok(Some(row)) if matches!(row.state, UploadState::Completing(_)) => Decision::Refuse(Ok(row)),
        Ok(_) => Decision::Refuse(Err(ClientError::NoSuchUpload.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::{CHECKSUM_BYTE, ChecksumAlgorithm, ChecksumOfUpload, ChecksumType, UploadId};

    #[test]
    fn an_upload_id_tells_the_checksum_of_its_upload() {
        let mut id = UploadId([7; 32]);
        for algorithm in ChecksumAlgorithm::ALL {
            for kind in [ChecksumType::FullObject, ChecksumType::Composite] {
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

    /// Uploads outlive the program that began them.
    #[test]
    fn ids_of_earlier_programs_tell_the_same() {
        let byte = |algorithm| ChecksumOfUpload { checksum: (algorithm, ChecksumType::FullObject), explicit: false }.to_byte();
        let first = [ChecksumAlgorithm::Crc32, ChecksumAlgorithm::Crc32c, ChecksumAlgorithm::Crc64Nvme, ChecksumAlgorithm::Sha1];
        assert_eq!(first.map(byte), [1, 5, 9, 13]);
        let then = [ChecksumAlgorithm::Sha256, ChecksumAlgorithm::Sha512, ChecksumAlgorithm::Md5];
        assert_eq!(then.map(byte), [17, 21, 25]);
        let last = [ChecksumAlgorithm::XxHash64, ChecksumAlgorithm::XxHash3, ChecksumAlgorithm::XxHash128];
        assert_eq!(last.map(byte), [29, 33, 37]);
    }
}
