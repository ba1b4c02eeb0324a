//! Data blocks: content-addressed files on several nodes, each with references that say who needs it.
//!
//! Reading order: `hash` and `encoding` (what a block is), `store` (files of one node), `reference` (who needs a block),
//! `message` and `service` (what nodes ask of each other), `manager` (a request's side: put, get, streams of blocks), `limits`.
//!
//! Not here: which nodes hold a block (`garage_rpc`'s placement), what an object is made of (`garage_model`).

pub mod budget;
pub mod encoding;
pub mod hash;
pub mod limits;
pub mod manager;
pub mod message;
pub mod reference;
pub mod service;
pub mod store;

pub use hash::BlockHash;
