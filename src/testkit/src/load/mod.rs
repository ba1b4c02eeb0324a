//! Signed S3 requests in parallel, timed and verified.
//!
//! Reading order: `content` (what each object holds: pure), `report` (times into percentiles: pure), `sign` (Signature Version 4, the client's
//! side: pure), `client` (one request), `run` (many of them, bounded in number and time).

mod client;
mod content;
mod report;
mod run;
mod sign;

pub use client::{Answer, Ask, Client, RequestError};
pub use content::Content;
pub use report::Report;
pub use run::{LoadError, Operation, Plan, Until, run};
pub use sign::{BadCredentials, Credentials, path_of, query_of, sign_payload};
