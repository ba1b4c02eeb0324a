//! Replicated tables: rows in partition groups, read and written by quorum, with hooks and digests in the same transaction.
//!
//! A *group* is all rows, of every table, that share a partition key; it lives on the nodes of one ring partition, and one call reads
//! or writes any of its rows. A table is of one of two kinds: *register* rows follow the rules of `garage_rpc::register`, one
//! linearizable register a sort key; *merge* rows are CRDTs, merged at each replica.
//!
//! Reading order: `key` (how rows are addressed), `schema` (what a table declares), `message` (what travels), `store` (what a replica
//! does), `digest`, `group` (what a coordinator does), `control` (small tables that every node mirrors), `sync` (how replicas become
//! equal, and how partitions move), `standing` (where its answers count), `limits`.

pub mod control;
pub mod digest;
pub mod group;
pub mod key;
pub mod keyspaces;
pub mod limits;
pub mod message;
pub mod schema;
pub mod standing;
pub mod store;
pub mod sync;

pub use group::Tables;
pub use key::{Group, GroupKey, SortKey, TableId};
pub use schema::{Discipline, RowChange, Schemas, TableSchema};
pub use standing::Standing;
pub use store::Store;
pub use sync::Syncer;
