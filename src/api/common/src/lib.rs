//! What every HTTP interface of a node shares: signatures, verified bodies, errors, XML, conditions, and the server shell.
//!
//! Reading order: `error` (what a client is told), `request` and `query` (what it asked for), `sigv4` (who it is), `payload` (its body,
//! verified while it streams), `checksum`, `xml`, `time`, `ranges`, `conditions`, `encoded_word`, `form`, `http` (listener, limits, shutdown),
//! and what the interfaces that serve objects share: `failure`, `object_headers`, `object_body`, `stored_checksum`, `cors`, `answer`, `metrics`.
//! Everything but `payload::body`, `object_body` and `http` is pure: time and secrets come in as arguments.

pub mod answer;
pub mod checksum;
pub mod conditions;
pub mod cors;
pub mod encoded_word;
pub mod error;
pub mod failure;
pub mod form;
pub mod http;
pub mod limits;
pub mod metrics;
pub mod object_body;
pub mod object_headers;
pub mod payload;
pub mod query;
pub mod ranges;
pub mod request;
pub mod sigv4;
pub mod stored_checksum;
pub mod time;
pub mod xml;

pub use error::{ErrorCode, S3Error};
