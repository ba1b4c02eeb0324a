//! The S3 interface over HTTP, against one node whose metadata are in memory.

mod access;
mod any_node;
mod buckets;
mod client;
mod codes;
mod conditions;
mod copies;
mod cors;
mod documented;
mod encryption;
mod forms;
mod lifecycle;
mod listings;
mod locks;
mod multipart;
mod objects;
mod owners;
mod refusals;
mod server;
mod traps;
mod versions;
