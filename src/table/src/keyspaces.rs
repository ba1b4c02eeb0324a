//! The keyspaces of a node's store. Their numbers and names are in every data directory: add at the end, never reuse.

use garage_db::{Keyspace, KeyspaceSpec};

/// Rows of all tables, by local key.
pub const ROWS: Keyspace = Keyspace(0);
/// Companions of rows: inline bytes and block lists. Large values; a LIST never reads it.
pub const COMPANIONS: Keyspace = Keyspace(1);
/// Indexes and counters that hooks derive; local, never replicated.
pub const INDEX: Keyspace = Keyspace(2);
/// Leaf sums of the digests.
pub const DIGEST: Keyspace = Keyspace(3);
/// Key hash to row hash and local key, inside each leaf.
pub const LEAVES: Keyspace = Keyspace(4);
/// Promises, trails and floors of registers; beside the rows, outside the digests.
pub const REGISTER: Keyspace = Keyspace(5);
/// This node's mirror of the control rows.
pub const MIRROR: Keyspace = Keyspace(6);
/// Small values of this node alone: clock ceiling, store marks of peers, worker state.
pub const LOCAL: Keyspace = Keyspace(7);
/// The queue of blocks to look at.
pub const BLOCK_QUEUE: Keyspace = Keyspace(8);
/// References of blocks to be asked about, in order of when.
pub const REFERENCE_DUE: Keyspace = Keyspace(9);
/// Versions that were superseded here, whose blocks and companions can go once that is sure.
pub const DEATHS: Keyspace = Keyspace(10);

/// In the order of the numbers above.
pub const SPECS: &[KeyspaceSpec] = &[
    KeyspaceSpec { name: "rows", large_values: false },
    KeyspaceSpec { name: "companions", large_values: true },
    KeyspaceSpec { name: "index", large_values: false },
    KeyspaceSpec { name: "digest", large_values: false },
    KeyspaceSpec { name: "leaves", large_values: false },
    KeyspaceSpec { name: "register", large_values: false },
    KeyspaceSpec { name: "mirror", large_values: false },
    KeyspaceSpec { name: "local", large_values: false },
    KeyspaceSpec { name: "block_queue", large_values: false },
    KeyspaceSpec { name: "reference_due", large_values: false },
    KeyspaceSpec { name: "deaths", large_values: false },
];
