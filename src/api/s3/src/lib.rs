//! The S3 interface: HTTP requests to operations on buckets and objects, and back.
//!
//! Reading order: `api` (one request from end to end), `router` and `selectors` (what it asks for), `request` (what handlers get),
//! `headers`, `known_headers`, `checksums`, `content` (bodies), `error` (what failures mean), then a file for each family of operations: `buckets`,
//! `settings`, `versioning`, `lock`, `lifecycle`, `cors`, `get`, `attributes`, `put`, `post`, `copy`, `delete`, `list`, `multipart`,
//! `multipart_list`.
//!
//! Order of checks: parse, authenticate, bucket exists, authorize, arguments, preconditions, body.

mod acl;
pub mod api;
mod attributes;
mod authorize;
mod buckets;
mod content;
mod copy;
pub mod cors;
mod delete;
pub mod documents;
mod encryption;
mod get;
mod headers;
mod known_headers;
mod labels;
mod lifecycle;
pub mod limits;
mod list;
mod lock;
mod multipart;
mod multipart_list;
mod policy;
pub mod post;
mod put;
mod request;
pub mod router;
pub mod selectors;
mod sender;
mod settings;
mod tagging;
mod versioning;
mod website;

pub use api::{S3Api, S3Options};
use garage_api_common::{answer, failure as error, stored_checksum as checksums};
