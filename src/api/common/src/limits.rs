//! The bounds of the HTTP fronts, each with its unit and what happens when it is reached.

use std::time::Duration;

/// Bytes of one request's header section, request line included. More: 431, or 400 `RequestHeaderSectionTooLarge`, and the connection closes.
pub const HEADER_SECTION_MAX_BYTES: usize = 32 * 1024;
/// Header fields of one request. More: 431 and the connection closes.
pub const HEADER_COUNT_MAX: usize = 256;
/// Bytes that one HTTP/1.1 connection buffers for reading and for writing.
pub const CONNECTION_BUFFER_MAX_BYTES: usize = 128 * 1024;
/// How long a client may take to send a request's whole header section. Longer: the connection closes.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a connection may stay without a request. Longer: it closes.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// How long a client may take none of a response's bytes. Longer: the connection closes.
pub const WRITE_STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a client may send none of the body it announced. Longer: 400 `RequestTimeout`, and the connection closes.
pub const BODY_STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Open connections of one listener, some 12 KB each. More: one that waits without a request is closed for the new one; if all work, the new one waits.
pub const CONNECTION_COUNT_MAX: usize = 8192;
/// How often certificate files are looked at for changes.
pub const TLS_FILES_CHECK_PERIOD: Duration = Duration::from_secs(5);
/// Connections the kernel holds for us before they are accepted.
pub const LISTEN_BACKLOG_COUNT: u32 = 4096;
/// Concurrent requests on one HTTP/2 connection.
pub const HTTP2_STREAM_COUNT_MAX: u32 = 256;
/// Bytes of an unread body that are read and thrown away after a refusal, so that the client gets to read the answer.
pub const REFUSED_BODY_DRAIN_MAX_BYTES: u64 = 16 * 1024 * 1024;
/// How long such a drain may last.
pub const REFUSED_BODY_DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of an object key after decoding.
pub const KEY_MAX_BYTES: usize = 1024;
/// Bytes of one chunk header line of an aws-chunked body.
pub const CHUNK_LINE_MAX_BYTES: usize = 16 * 1024;
/// Bytes of all trailers of an aws-chunked body.
pub const TRAILERS_MAX_BYTES: usize = 16 * 1024;
/// Bytes of a browser form before the content of its file. More: 400 `MaxPostPreDataLengthExceededError`.
pub const FORM_FIELDS_MAX_BYTES: usize = 20 * 1024;
/// Bytes of a form's boundary (RFC 2046 has 70). More: 400 `MalformedPOSTRequest`.
pub const FORM_BOUNDARY_MAX_BYTES: usize = 200;
/// Bytes gathered before they are hashed off the async workers; a smaller body is hashed where it is read.
pub const HASH_BATCH_BYTES: usize = 64 * 1024;
/// Bytes handed on but not yet hashed; at this mark the body waits for the hashing.
pub const HASH_BACKLOG_MAX_BYTES: usize = 1024 * 1024;

/// Bytes of an XML request body, unless its operation has a bound of its own.
pub const XML_BODY_MAX_BYTES: usize = 1024 * 1024;
/// Elements of an XML request body: 10,000 parts with all that S3 has for each fit thrice. More: 400 `MalformedXML`.
pub const XML_ELEMENTS_MAX: usize = 200_000;
/// Attributes of one element of an XML request body. More: 400 `MalformedXML`.
pub const XML_ATTRIBUTES_MAX: usize = 32;
/// Nested elements of an XML request body.
pub const XML_DEPTH_MAX: usize = 16;

/// How far a request's date may be from this node's clock.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(15 * 60);
/// The longest life of a presigned URL.
pub const PRESIGNED_LIFE_MAX: Duration = Duration::from_secs(604_800);

const _: () = assert!(HASH_BATCH_BYTES <= HASH_BACKLOG_MAX_BYTES);
const _: () = assert!(HEADER_SECTION_MAX_BYTES <= CONNECTION_BUFFER_MAX_BYTES);
