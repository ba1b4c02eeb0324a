//! What the cluster stores for its users: buckets, keys, objects, uploads; their rows, and the request paths over them.
//!
//! Reading order: `rows` (what is stored), `schema` (the tables and their hooks), `index` (what hooks derive), `policy`, `acl`, `judge` (who may
//! what: pure), `access` (the same from stored rows), `buckets`, `keys`, `objects` (put, get, head, delete, copy), `paging` (pages of an index),
//! `listing`, `uploads` (multipart), `lifecycle`, `certificates`, `node` (assembly).

pub mod access;
pub mod acl;
pub mod body;
pub mod buckets;
pub mod certificates;
pub mod encryption;
pub mod error;
pub mod index;
pub mod judge;
pub mod keys;
pub mod lifecycle;
pub mod limits;
pub mod listing;
pub mod names;
pub mod node;
pub mod objects;
pub mod paging;
pub mod policy;
pub mod rights;
pub mod rows;
pub mod schema;
pub mod seal;
pub mod upkeep;
pub mod uploads;

pub use error::ModelError;
pub use garage_table::group::RequestContext;
