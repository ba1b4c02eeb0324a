//! The S3 interface: HTTP requests to operations on buckets and objects, and back.
//!
//! Reading order: `api` (one request from end to end), `router` and `selectors` (what it asks for), `request` (what handlers get),
//! `headers`, `checksums`, `content` (bodies), `error` (what failures mean), then a file for each family of operations: `buckets`,
//! `settings`, `cors`, `get`, `attributes`, `put`, `copy`, `delete`, `list`, `multipart`, `multipart_list`.
//!
//! Order of checks: parse, authenticate, bucket exists, authorize, arguments, preconditions, body.

mod answer;
pub mod api;
mod attributes;
mod buckets;
mod checksums;
mod content;
mod copy;
pub mod cors;
mod delete;
mod error;
mod get;
mod headers;
pub mod limits;
mod list;
mod multipart;
mod multipart_list;
mod put;
mod request;
pub mod router;
pub mod selectors;
mod settings;

pub use api::{S3Api, S3Options};
