//! Data blocks: content-addressed files on several nodes, each with references that say who needs it.
//!
//! Reading order: `hash` and `encoding` (what a block is), `store` (files of one node), `reference` (who needs a block),
//! `message` and `service` (what nodes ask of each other), `manager` (a request's side: put, get, streams of blocks),
//! `leases` (who still needs a block), `resync` (fetching what should be here, handing over what has moved, deleting what nothing needs),
//! `scrub` (reading every file once in a while), `limits`.
//!
//! Not here: which nodes hold a block (`garage_rpc`'s placement), what an object is made of (`garage_model`).

pub mod budget;
pub mod encoding;
pub mod hash;
pub mod leases;
pub mod limits;
pub mod manager;
pub mod message;
pub mod reference;
pub mod resync;
pub mod scrub;
pub mod service;
pub mod store;

pub use hash::BlockHash;
