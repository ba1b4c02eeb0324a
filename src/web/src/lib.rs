//! Bucket websites: the objects of a bucket, served by host name to anybody, without credentials.
//!
//! Reading order: `server` (one request from end to end), `host` (which site), `plan` (which object or redirect, by the site's rules),
//! `serve` (an object as an answer), `page` (what an error shows), `metrics`.
//!
//! Source: website reference §1 to §9.

mod host;
pub mod limits;
mod metrics;
mod page;
mod plan;
mod serve;
mod server;

pub use metrics::WebMetrics;
pub use server::{WebOptions, WebServer};
