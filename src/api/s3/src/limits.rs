//! Every limit of this interface, with its unit and what happens when it is reached.

use std::time::Duration;

/// How long a request without a body may take. Longer: 503.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a request may take that streams a body or copies one; a silent client is given up much earlier (`BODY_STALL_TIMEOUT`).
pub const STREAM_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// Bytes of names and values of `x-amz-meta-*`. More: 400 `MetadataTooLarge`.
pub const USER_METADATA_MAX_BYTES: usize = 2048;
/// Bytes of `x-amz-website-redirect-location`. More: 400 `InvalidRedirectLocation`.
pub const WEBSITE_REDIRECT_MAX_BYTES: usize = 2048;
/// Keys of one DeleteObjects. More: 400 `MalformedXML`.
pub const DELETE_KEYS_MAX: usize = 1000;
/// Bytes of the body of DeleteObjects and CompleteMultipartUpload. More: 400 `MaxMessageLengthExceeded`.
pub const LONG_XML_MAX_BYTES: usize = 4 << 20;
/// Entries of a page, whatever the client asks for.
pub const PAGE_MAX: usize = 1000;
/// Buckets of a page of ListBuckets, by S3's rules.
pub const BUCKETS_PAGE_MAX: usize = 10_000;
/// Bytes of the source of a copy. More: 400 `InvalidRequest`.
pub const COPY_SOURCE_MAX_BYTES: u64 = 5 << 30;
/// Bytes of a CORS document. More: 400 `MaxMessageLengthExceeded`.
pub const CORS_MAX_BYTES: usize = 64 << 10;
/// Bytes of an ACL document; longer is `MalformedXML`.
pub const ACL_MAX_BYTES: usize = 64 << 10;
