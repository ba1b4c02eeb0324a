//! What the cluster stores for its users: buckets, keys, objects, uploads; their rows, and the request paths over them.
//!
//! Reading order: `rows` (what is stored), `schema` (the tables and their hooks), `index` (what hooks derive), `access` (who may),
//! `buckets`, `keys`, `objects` (put, get, head, delete, copy), `listing`, `uploads` (multipart), `node` (assembly).

pub mod access;
pub mod body;
pub mod buckets;
pub mod error;
pub mod index;
pub mod keys;
pub mod limits;
pub mod listing;
pub mod names;
pub mod node;
pub mod objects;
pub mod rows;
pub mod schema;
pub mod seal;
pub mod uploads;

pub use error::ModelError;
pub use garage_table::group::RequestContext;
