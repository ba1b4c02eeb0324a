//! How an administration call fails: a code that clients may rely on, an HTTP status that follows from it, and a sentence.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $name:ident = $status:literal),+ $(,)?) => {
        /// The machine code of a failure. Its spelling is part of the interface.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum ErrorCode { $($(#[doc = $doc])* $name),+ }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name),+];

            /// As it stands in an answer.
            pub fn as_str(self) -> &'static str {
                match self { $(ErrorCode::$name => stringify!($name)),+ }
            }

            /// The HTTP status that goes with it.
            pub fn status(self) -> u16 {
                match self { $(ErrorCode::$name => $status),+ }
            }
        }
    };
}

codes! {
    /// No token, or one that does not reach so far.
    AccessDenied = 403,
    /// The request itself is wrong.
    InvalidRequest = 400,
    /// A header holds bytes it may not.
    InvalidHeaderValue = 400,
    /// A bucket name against the rules.
    InvalidBucketName = 400,
    /// No bucket of this id or name.
    NoSuchBucket = 404,
    /// No access key of this id or name.
    NoSuchAccessKey = 404,
    /// No admin token of this id.
    NoSuchAdminToken = 404,
    /// No such object.
    NoSuchKey = 404,
    /// No worker of this number.
    NoSuchWorker = 404,
    /// No block of this hash.
    NoSuchBlock = 404,
    /// The global alias is taken.
    BucketAlreadyExists = 409,
    /// The bucket still holds something.
    BucketNotEmpty = 409,
    /// The key id is in use or was once.
    KeyAlreadyExists = 409,
    /// This build cannot do it.
    NotImplemented = 501,
    /// No quorum, or not in time; the same call may succeed later.
    ServiceUnavailable = 503,
    /// Everything else.
    InternalError = 500,
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    // A newer node may have more codes; to this one they are failures it cannot name.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(ErrorCode::ALL.iter().copied().find(|code| code.as_str() == text).unwrap_or(ErrorCode::InternalError))
    }
}

/// Why an administration call failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{code} ({}): {message}", code.status())]
pub struct AdminError {
    /// For machines.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
}

impl AdminError {
    /// A failure with `code` and a sentence.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        AdminError { code, message: message.into() }
    }

    /// The request itself is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        AdminError::new(ErrorCode::InvalidRequest, message)
    }

    /// Nobody answered, or not enough did.
    pub fn unavailable(message: impl Into<String>) -> Self {
        AdminError::new(ErrorCode::ServiceUnavailable, message)
    }

    /// A failure of ours.
    pub fn internal(message: impl Into<String>) -> Self {
        AdminError::new(ErrorCode::InternalError, message)
    }

    /// This build has no handler for `endpoint`.
    pub fn not_implemented(endpoint: &str) -> Self {
        AdminError::new(ErrorCode::NotImplemented, format!("{endpoint} is not implemented in this release"))
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.code.status()
    }

    /// The body of an HTTP answer; `path` is the request's path without query.
    pub fn body(&self, region: &str, path: &str) -> serde_json::Value {
        serde_json::json!({ "code": self.code.as_str(), "message": self.message, "region": region, "path": path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_keeps_its_spelling_and_an_unknown_one_is_an_internal_error() {
        for code in ErrorCode::ALL {
            let text = serde_json::to_string(code).unwrap();
            assert_eq!(serde_json::from_str::<ErrorCode>(&text).unwrap(), *code);
        }
        assert_eq!(serde_json::from_str::<ErrorCode>("\"FromTheFuture\"").unwrap(), ErrorCode::InternalError);
    }

    #[test]
    fn an_error_reads_code_status_sentence() {
        assert_eq!(AdminError::new(ErrorCode::NoSuchBucket, "no bucket x").to_string(), "NoSuchBucket (404): no bucket x");
    }
}
