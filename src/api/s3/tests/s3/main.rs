//! The S3 interface over HTTP, against one node whose metadata are in memory.

mod buckets;
mod client;
mod copies;
mod cors;
mod listings;
mod multipart;
mod objects;
mod refusals;
mod server;
