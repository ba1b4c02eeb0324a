//! What a failure below means to an HTTP client: one exhaustive match for each kind of error.

use ::http::header;
use garage_block::manager::{PutBlockError, ReadBlockError};
use garage_model::{ModelError, error::ClientError};
use garage_table::group::TableError;

use crate::error::{ErrorCode, S3Error};

/// What a failed request was about, for the elements of its error document.
#[derive(Debug, Clone, Copy, Default)]
pub struct Subject<'a> {
    /// The bucket as the client named it.
    pub bucket: &'a str,
    /// The object key.
    pub key: &'a str,
    /// The upload id as the client sent it.
    pub upload: &'a str,
    /// Whether the request is a conditional write.
    pub conditional: bool,
}

impl Subject<'_> {
    /// The S3 error for an error of the model.
    pub fn error(&self, error: ModelError) -> S3Error {
        match error {
            ModelError::Body(failure) => match failure.0.downcast::<S3Error>() {
                Ok(error) => *error,
                Err(other) => S3Error::internal(other),
            },
            ModelError::Client(error) => self.client_error(error),
            ModelError::Table(error) => self.table_error(error),
            ModelError::PutBlock(error) => put_error(error),
            ModelError::ReadBlock(error) => read_error(error),
            ModelError::TimedOut => S3Error::unavailable("the request took longer than its time limit"),
            ModelError::Damaged(error) => S3Error::internal(error),
            ModelError::Secret(reason) => S3Error::internal(reason),
        }
    }

    fn table_error(&self, error: TableError) -> S3Error {
        match error {
            TableError::LayoutNotReady => layout_not_ready(),
            TableError::Unavailable { .. } => S3Error::unavailable(error),
            TableError::OutcomeUnknown => {
                let message = "Too few nodes answered to tell whether this write took effect; please read it back or try again.";
                S3Error::new(ErrorCode::ServiceUnavailable, message).header(header::RETRY_AFTER, "1")
            }
            TableError::Contended if self.conditional => S3Error::of(ErrorCode::ConditionalRequestConflict).with("Key", self.key),
            TableError::Contended => S3Error::slow_down(error),
            TableError::StorageFull => S3Error::of(ErrorCode::InsufficientStorage).caused_by(error),
            TableError::Clock { .. } => S3Error::unavailable(error),
            TableError::Damaged { .. } => S3Error::internal(error),
        }
    }

    fn client_error(&self, error: ClientError) -> S3Error {
        let text = error.to_string();
        match error {
            ClientError::NoSuchBucket => S3Error::no_such_bucket(self.bucket),
            ClientError::NoSuchKey => S3Error::no_such_key(self.key),
            ClientError::NoSuchVersion => S3Error::of(ErrorCode::NoSuchVersion).with("Key", self.key),
            ClientError::IsDeleteMarker => S3Error::of(ErrorCode::MethodNotAllowed).with("Key", self.key),
            ClientError::InvalidBucketState(message) => S3Error::new(ErrorCode::InvalidBucketState, message),
            ClientError::Locked => S3Error::new(ErrorCode::AccessDenied, "Access Denied because object protected by object lock."),
            ClientError::NoSuchUpload => S3Error::no_such_upload(self.upload),
            ClientError::PreconditionFailed { condition } => S3Error::precondition_failed(condition),
            ClientError::BucketExists { name } => S3Error::of(ErrorCode::BucketAlreadyExists).with("BucketName", name),
            ClientError::BucketNotEmpty => S3Error::of(ErrorCode::BucketNotEmpty).with("BucketName", self.bucket),
            ClientError::BucketBusy => {
                S3Error::new(ErrorCode::OperationAborted, "The bucket is being deleted. Please try again.").with("BucketName", self.bucket)
            }
            ClientError::TooManyBuckets { max } => S3Error::of(ErrorCode::TooManyBuckets).with("AllowedNumberOfBuckets", max),
            ClientError::InvalidBucketName { name, rule } => invalid_bucket_name(&name, rule),
            ClientError::LastAlias { .. } | ClientError::NoSuchAlias { .. } => S3Error::invalid_request(text),
            ClientError::NoSuchAccessKey { id } => S3Error::of(ErrorCode::InvalidAccessKeyId).with("AWSAccessKeyId", id),
            ClientError::KeyExists { .. } | ClientError::InvalidKey(_) => S3Error::invalid_request(text),
            ClientError::QuotaExceeded { .. } => S3Error::new(ErrorCode::QuotaExceeded, text).with("BucketName", self.bucket),
            ClientError::InvalidPart { part_number, etag } => {
                S3Error::of(ErrorCode::InvalidPart).with("UploadId", self.upload).with("PartNumber", part_number).with("ETag", etag)
            }
            ClientError::InvalidPartOrder => S3Error::of(ErrorCode::InvalidPartOrder).with("UploadId", self.upload),
            ClientError::PartTooSmall { part_number, size_bytes, min_bytes, etag } => S3Error::of(ErrorCode::EntityTooSmall)
                .with("ProposedSize", size_bytes)
                .with("MinSizeAllowed", min_bytes)
                .with("PartNumber", part_number)
                .with("ETag", etag),
            ClientError::TooLarge { size_bytes, max_bytes } => too_large(size_bytes, max_bytes),
            ClientError::BadChecksum(message) => S3Error::invalid_request(message),
            ClientError::BadDigest(message) => S3Error::new(ErrorCode::BadDigest, message),
            ClientError::KeyNeeded => S3Error::invalid_request(
                "The object was stored using a form of Server Side Encryption. The correct parameters must be provided to retrieve the object.",
            ),
            ClientError::Invalid(message) => S3Error::invalid_request(message),
        }
    }
}

/// 400 `EntityTooLarge`.
pub fn too_large(size_bytes: u64, max_bytes: u64) -> S3Error {
    S3Error::of(ErrorCode::EntityTooLarge).with("ProposedSize", size_bytes).with("MaxSizeAllowed", max_bytes)
}

/// 400 `InvalidBucketName`, with the rule that was broken.
pub fn invalid_bucket_name(name: &str, rule: &str) -> S3Error {
    S3Error::new(ErrorCode::InvalidBucketName, format!("The specified bucket is not valid: {rule}.")).with("BucketName", name)
}

fn layout_not_ready() -> S3Error {
    let message = "The cluster has no layout yet: assign roles with `garage layout assign`, then run `garage layout apply`.";
    S3Error::new(ErrorCode::ServiceUnavailable, message).header(header::RETRY_AFTER, "5")
}

fn put_error(error: PutBlockError) -> S3Error {
    if error.is_storage_full() {
        return S3Error::of(ErrorCode::InsufficientStorage).caused_by(error);
    }
    match error {
        PutBlockError::Quorum { .. } | PutBlockError::Stopping(_) => S3Error::unavailable(error),
        PutBlockError::Layout(_) => layout_not_ready(),
        PutBlockError::TooLong { .. } => S3Error::internal(error),
        PutBlockError::MemoryShort => S3Error::slow_down(error),
    }
}

fn read_error(error: ReadBlockError) -> S3Error {
    match error {
        ReadBlockError::Missing { .. } => S3Error::internal(error),
        ReadBlockError::Unavailable { .. } | ReadBlockError::Stopping(_) => S3Error::unavailable(error),
        ReadBlockError::Layout(_) => layout_not_ready(),
    }
}

#[cfg(test)]
mod tests {
    use garage_model::{ModelError, body::BodyFailure, error::ClientError};
    use garage_table::group::TableError;

    use super::Subject;
    use crate::error::{ErrorCode, S3Error};

    #[test]
    fn a_body_s_own_error_comes_back_as_it_was() {
        let failure = BodyFailure(Box::new(S3Error::of(ErrorCode::BadDigest).with("ExpectedDigest", "x")));
        let error = Subject::default().error(ModelError::Body(failure));
        assert_eq!((error.code, error.specifics.len()), (ErrorCode::BadDigest, 1));
    }

    #[test]
    fn contention_is_a_conflict_only_for_conditional_writes() {
        let code = |conditional| {
            let subject = Subject { conditional, ..Subject::default() };
            subject.error(ModelError::Table(TableError::Contended)).code
        };
        assert_eq!((code(true), code(false)), (ErrorCode::ConditionalRequestConflict, ErrorCode::SlowDown));
    }

    #[test]
    fn what_passes_by_itself_is_503_with_a_time_to_retry() {
        for error in [TableError::LayoutNotReady, TableError::OutcomeUnknown, TableError::Unavailable { reason: String::new() }] {
            let error = Subject::default().error(ModelError::Table(error));
            assert_eq!(error.status(), 503);
            assert!(error.headers.iter().any(|(name, _)| name == "retry-after"), "{error}");
        }
    }

    #[test]
    fn a_full_cluster_says_so() {
        assert_eq!(Subject::default().error(ModelError::Table(TableError::StorageFull)).status(), 507);
        let quota = ModelError::Client(ClientError::QuotaExceeded { what: "3 of 3 objects are stored".into() });
        assert_eq!(Subject::default().error(quota).status(), 403);
    }
}
