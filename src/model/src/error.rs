//! How requests on buckets, keys and objects fail, sorted by who must act.

use garage_block::manager::{PutBlockError, ReadBlockError, WriteError};
use garage_table::group::TableError;
use garage_util::encoding::DecodeError;

use crate::body::BodyFailure;

/// Why a request gave no result. The HTTP interfaces map each kind to a code of theirs.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The client's body.
    #[error(transparent)]
    Body(#[from] BodyFailure),
    /// The request can't be granted, for a reason that the client can act upon.
    #[error("{0}")]
    Client(ClientError),
    /// Rows could not be read or written by quorum.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Blocks could not be written.
    #[error(transparent)]
    PutBlock(#[from] PutBlockError),
    /// Blocks could not be read.
    #[error(transparent)]
    ReadBlock(#[from] ReadBlockError),
    /// The request's time ran out.
    #[error("the request took longer than its time limit")]
    TimedOut,
    /// A stored row can't be read.
    #[error(transparent)]
    Damaged(#[from] DecodeError),
    /// This node can't open a secret.
    #[error("{0}")]
    Secret(String),
}

/// What the client can act upon.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// No such bucket, or it was deleted.
    #[error("no such bucket")]
    NoSuchBucket,
    /// No such object.
    #[error("no such key")]
    NoSuchKey,
    /// No such version of the object.
    #[error("no such version")]
    NoSuchVersion,
    /// The version is a delete marker.
    #[error("the version is a delete marker")]
    IsDeleteMarker,
    /// The bucket's settings forbid it.
    #[error("{0}")]
    InvalidBucketState(String),
    /// A retention or a legal hold forbids it.
    #[error("the version is locked")]
    Locked,
    /// No such upload, or it was completed or aborted.
    #[error("no such upload: it was never initiated here, or was completed or aborted")]
    NoSuchUpload,
    /// A condition of the request does not hold.
    #[error("a condition of the request does not hold: {condition}")]
    PreconditionFailed {
        /// The header.
        condition: &'static str,
    },
    /// The name is taken by a bucket of someone else.
    #[error("the name {name:?} is taken")]
    BucketExists {
        /// The name.
        name: String,
    },
    /// The bucket still has objects.
    #[error("the bucket is not empty")]
    BucketNotEmpty,
    /// The bucket is being deleted.
    #[error("the bucket is being deleted")]
    BucketBusy,
    /// There are as many buckets as there may be.
    #[error("there are {max} buckets, which is the limit")]
    TooManyBuckets {
        /// The limit.
        max: usize,
    },
    /// The name breaks the naming rules.
    #[error("{name:?} is not a bucket name: {rule}")]
    InvalidBucketName {
        /// The name.
        name: String,
        /// The rule it breaks.
        rule: &'static str,
    },
    /// A bucket must keep one name.
    #[error("{name:?} is the last name of its bucket: delete the bucket instead")]
    LastAlias {
        /// The name.
        name: String,
    },
    /// No such alias of this bucket.
    #[error("{name:?} is not a name of this bucket")]
    NoSuchAlias {
        /// The name.
        name: String,
    },
    /// No such access key.
    #[error("no such access key: {id}")]
    NoSuchAccessKey {
        /// Its id, or the pattern that found none.
        id: String,
    },
    /// The key id exists or once existed.
    #[error("the key id {id} exists or once existed")]
    KeyExists {
        /// The id.
        id: String,
    },
    /// A key id or secret that is not acceptable.
    #[error("{0}")]
    InvalidKey(String),
    /// A quota would be exceeded.
    #[error("the bucket's quota is exhausted: {what}")]
    QuotaExceeded {
        /// Which, with its numbers.
        what: String,
    },
    /// A part that was not uploaded, or whose ETag is another.
    #[error("part {part_number} was not uploaded, or has another ETag or checksum")]
    InvalidPart {
        /// The part.
        part_number: u16,
        /// The ETag given.
        etag: String,
    },
    /// The parts are not listed in ascending order.
    #[error("the parts are not listed in ascending order")]
    InvalidPartOrder,
    /// A part that is not the last is too small.
    #[error("part {part_number} has {size_bytes} bytes; all but the last need {min_bytes}")]
    PartTooSmall {
        /// The part.
        part_number: u16,
        /// Its size.
        size_bytes: u64,
        /// The least.
        min_bytes: u64,
        /// Its ETag.
        etag: String,
    },
    /// The content is too large.
    #[error("the content has {size_bytes} bytes, the limit is {max_bytes}")]
    TooLarge {
        /// As announced or received.
        size_bytes: u64,
        /// The limit.
        max_bytes: u64,
    },
    /// A checksum that does not match, or does not fit the upload.
    #[error("{0}")]
    BadChecksum(String),
    /// The whole object's checksum or size is not what the client says.
    #[error("{0}")]
    BadDigest(String),
    /// The object is encrypted under a client's key, which the request did not bring.
    #[error("the object is encrypted under a key that only its owner has")]
    KeyNeeded,
    /// An argument without meaning here.
    #[error("{0}")]
    Invalid(String),
}

impl From<ClientError> for ModelError {
    fn from(error: ClientError) -> ModelError {
        ModelError::Client(error)
    }
}

impl From<WriteError<BodyFailure>> for ModelError {
    fn from(error: WriteError<BodyFailure>) -> ModelError {
        match error {
            WriteError::Body(failure) => ModelError::Body(failure),
            WriteError::Put(error) => ModelError::PutBlock(error),
            WriteError::TimedOut => ModelError::TimedOut,
        }
    }
}
