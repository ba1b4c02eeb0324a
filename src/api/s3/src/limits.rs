//! Every limit of this interface, with its unit and what happens when it is reached.

use std::time::Duration;

/// How long a request without a body may take. Longer: 503.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a request may take that streams a body or copies one; a silent client is given up much earlier (`BODY_STALL_TIMEOUT`).
pub const STREAM_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// Bytes of a request's header lines; AWS takes 8 KiB. More: 400 `RequestHeaderSectionTooLarge`.
pub const HEADERS_MAX_BYTES: usize = 16 << 10;
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
/// Tags of an object. More: 400 `BadRequest`. Source: AWS S3 User Guide, "Categorizing your storage using tags".
pub const OBJECT_TAGS_MAX: usize = 10;
/// Tags of a bucket. More: 400 `BadRequest`.
pub const BUCKET_TAGS_MAX: usize = 50;
/// Characters of a tag's key. More: 400 `InvalidTag`.
pub const TAG_KEY_MAX_CHARS: usize = 128;
/// Characters of a tag's value. More: 400 `InvalidTag`.
pub const TAG_VALUE_MAX_CHARS: usize = 256;
/// Bytes of a tagging document. More: 400 `MaxMessageLengthExceeded`.
pub const TAGGING_MAX_BYTES: usize = 128 << 10;
/// Bytes of a website document. More: 400 `MaxMessageLengthExceeded`.
pub const WEBSITE_MAX_BYTES: usize = 128 << 10;
/// Routing rules of a website document. More: 400 `InvalidRequest`. Source: AWS S3 User Guide, "Configuring a webpage redirect".
pub const WEBSITE_RULES_MAX: usize = 50;
/// Objects looked at together where a request on many keys depends on their tags.
pub const LOOKS_AT_ONCE: usize = 16;
/// Rules of a lifecycle configuration, by S3's rules. More: 400 `MalformedXML`.
pub const LIFECYCLE_RULES_MAX: usize = 1000;
/// Characters of a lifecycle rule's id. More: 400 `InvalidArgument`.
pub const LIFECYCLE_ID_MAX_CHARS: usize = 255;
