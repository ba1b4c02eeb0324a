//! What every HTTP interface of a node shares: signatures, verified bodies, errors, XML, conditions, and the server shell.
//!
//! Reading order: `error` (what a client is told), `request` and `query` (what it asked for), `sigv4` (who it is), `payload` (its body,
//! verified while it streams), `checksum`, `xml`, `time`, `ranges`, `conditions`, and `http` (listener, limits, shutdown).
//! Everything but `payload::body` and `http` is pure: time and secrets come in as arguments.

pub mod checksum;
pub mod conditions;
pub mod error;
pub mod http;
pub mod limits;
pub mod payload;
pub mod query;
pub mod ranges;
pub mod request;
pub mod sigv4;
pub mod time;
pub mod xml;

pub use error::{ErrorCode, S3Error};
