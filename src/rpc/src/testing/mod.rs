//! For tests only: a node's surroundings and a network, both in memory, both on tokio's clock, both reproducible.

mod network;
mod node;

pub use network::MemoryNetwork;
pub use node::{MemoryDisk, TestNode};
