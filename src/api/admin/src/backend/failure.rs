//! Errors of the services below, as those of the interface.

use garage_model::error::{ClientError, ModelError};
use garage_rpc::layout_manager::{ApplyError, UpdateError};
use garage_table::group::TableError;

use crate::{AdminError, ErrorCode};

/// A failure of this node, in its own words.
pub(super) fn internal(error: impl std::fmt::Display) -> AdminError {
    AdminError::internal(error.to_string())
}

impl From<ClientError> for AdminError {
    fn from(error: ClientError) -> AdminError {
        AdminError::new(code_of(&error), error.to_string())
    }
}

fn code_of(error: &ClientError) -> ErrorCode {
    match error {
        ClientError::NoSuchBucket => ErrorCode::NoSuchBucket,
        ClientError::NoSuchKey => ErrorCode::NoSuchKey,
        ClientError::NoSuchAccessKey { .. } => ErrorCode::NoSuchAccessKey,
        ClientError::BucketExists { .. } => ErrorCode::BucketAlreadyExists,
        ClientError::BucketNotEmpty => ErrorCode::BucketNotEmpty,
        ClientError::KeyExists { .. } => ErrorCode::KeyAlreadyExists,
        ClientError::InvalidBucketName { .. } => ErrorCode::InvalidBucketName,
        ClientError::BucketBusy => ErrorCode::ServiceUnavailable,
        // The interface has always answered this with 500, and clients match on it.
        ClientError::NoSuchAlias { .. } => ErrorCode::InternalError,
        ClientError::LastAlias { .. }
        | ClientError::TooManyBuckets { .. }
        | ClientError::InvalidKey(_)
        | ClientError::Invalid(_)
        | ClientError::NoSuchUpload
        | ClientError::NoSuchVersion
        | ClientError::IsDeleteMarker
        | ClientError::Locked
        | ClientError::InvalidBucketState(_)
        | ClientError::PreconditionFailed { .. }
        | ClientError::QuotaExceeded { .. }
        | ClientError::InvalidPart { .. }
        | ClientError::InvalidPartOrder
        | ClientError::PartTooSmall { .. }
        | ClientError::TooLarge { .. }
        | ClientError::BadChecksum(_)
        | ClientError::BadDigest(_)
        | ClientError::KeyNeeded => ErrorCode::InvalidRequest,
    }
}

impl From<ModelError> for AdminError {
    fn from(error: ModelError) -> AdminError {
        let message = error.to_string();
        match error {
            ModelError::Client(error) => error.into(),
            ModelError::Table(error) => AdminError::new(code_of_table(&error), message),
            ModelError::TimedOut | ModelError::PutBlock(_) | ModelError::ReadBlock(_) => AdminError::unavailable(message),
            ModelError::Body(_) | ModelError::Damaged(_) | ModelError::Secret(_) => AdminError::internal(message),
        }
    }
}

fn code_of_table(error: &TableError) -> ErrorCode {
    match error {
        TableError::Unavailable { .. } | TableError::OutcomeUnknown | TableError::Contended => ErrorCode::ServiceUnavailable,
        TableError::LayoutNotReady | TableError::StorageFull | TableError::Clock { .. } | TableError::Damaged { .. } => {
            ErrorCode::InternalError
        }
    }
}

impl From<UpdateError> for AdminError {
    fn from(error: UpdateError) -> AdminError {
        let message = error.to_string();
        match error {
            UpdateError::Layout(_) | UpdateError::Skip(_) => AdminError::invalid(message),
            UpdateError::Damaged(_) | UpdateError::State(_) | UpdateError::Clock(_) => AdminError::internal(message),
        }
    }
}

impl From<ApplyError> for AdminError {
    fn from(error: ApplyError) -> AdminError {
        let message = error.to_string();
        match error {
            ApplyError::NoMajority { .. } | ApplyError::Unknown { .. } => AdminError::unavailable(message),
            // A wrong version or too few nodes are 500 in this interface, and clients match on it.
            ApplyError::Update(_) | ApplyError::Beaten { .. } | ApplyError::Clock(_) => AdminError::internal(message),
        }
    }
}
