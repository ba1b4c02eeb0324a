//! A request's side of blocks: puts each on a write quorum of its holders, gets it from the nearest good copy, and turns bodies into
//! blocks and blocks into bodies.
//!
//! Reading order: `mesh` (the other nodes), `put`, `get`, `references`, `writer` (body to blocks), `reader` (blocks to body).

mod get;
mod hints;
mod mesh;
mod put;
mod reader;
mod references;
mod writer;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use garage_net::{CallError, NodeId};
use garage_rpc::{
    LayoutNotReady,
    peers::LatencyWindow,
    quorum::{QuorumCalls, QuorumError},
};
use garage_util::runtime::{Interrupted, Runtime};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

pub use self::{
    get::ReadBlockError,
    mesh::{Holders, Mesh, SentBlock},
    reader::BlockReader,
    writer::{BlockSeal, WriteError, WriteOptions},
};
use crate::{
    budget::ByteBudget,
    encoding::{Compression, CorruptBlock},
    hash::BlockHash,
    limits::{
        BLOCK_LEN_MAX_BYTES, BLOCK_RAM_DEFAULT_BYTES, BLOCK_SIZE_DEFAULT_BYTES, BLOCK_TIMEOUT_DEFAULT, FETCH_HEDGE_MAX, FETCH_HEDGE_MIN,
        FETCH_HEDGE_UNKNOWN, READ_AHEAD_TOTAL_MAX_BYTES, WRITES_IN_FLIGHT_DEFAULT_COUNT,
    },
    message::code,
    service::{BlockService, LocalWriteError, write_code},
};

/// A block as a version's block list names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BlockRef {
    /// Which.
    pub hash: BlockHash,
    /// Length of its content, in bytes.
    pub len_bytes: u32,
}

/// What every step of one request shares.
#[derive(Clone, Copy, Debug)]
pub struct RequestContext {
    /// When the client's request gives up.
    pub deadline: Instant,
    /// Ties the steps of one request together in logs.
    pub trace: u64,
}

/// How blocks are made and how much memory they may take.
#[derive(Clone, Copy, Debug)]
pub struct ManagerOptions {
    /// `block_size`, in bytes, above 0.
    pub block_size_bytes: usize,
    /// From `compression_level`.
    pub compression: Compression,
    /// `block_ram_buffer_max`: bytes of blocks that some node has not taken yet.
    pub ram_buffer_bytes: usize,
    /// `block_max_concurrent_writes_per_request`.
    pub writes_in_flight_count: usize,
    /// How long one block of a body may take (`rpc_timeout_msec`); the request's own deadline bounds the whole body.
    pub block_timeout: Duration,
}

impl Default for ManagerOptions {
    fn default() -> Self {
        ManagerOptions {
            block_size_bytes: BLOCK_SIZE_DEFAULT_BYTES,
            compression: Compression::WherePays(1),
            ram_buffer_bytes: BLOCK_RAM_DEFAULT_BYTES,
            writes_in_flight_count: WRITES_IN_FLIGHT_DEFAULT_COUNT,
            block_timeout: BLOCK_TIMEOUT_DEFAULT,
        }
    }
}

/// Why one node did not do its part.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Another node.
    #[error(transparent)]
    Call(#[from] CallError),
    /// This node, writing.
    #[error(transparent)]
    LocalWrite(#[from] LocalWriteError),
    /// Its copy is bad, or went bad on the way.
    #[error(transparent)]
    Corrupt(#[from] CorruptBlock),
    /// It has no copy.
    #[error("it has no copy")]
    Missing,
    /// This node, reading.
    #[error("{0}")]
    LocalRead(String),
    /// The answer's body did not come whole.
    #[error("{0}")]
    Body(String),
    /// It was too slow after the quorum was reached, and memory was short.
    #[error("given up after the quorum was reached; anti-entropy brings the block")]
    Abandoned,
    /// This node is stopping.
    #[error(transparent)]
    Stopping(#[from] Interrupted),
}

impl NodeError {
    /// Whether the node had no room.
    pub fn is_storage_full(&self) -> bool {
        match self {
            NodeError::Call(CallError::Refused(refusal)) => refusal.code == code::STORAGE_FULL,
            NodeError::LocalWrite(error) => write_code(error) == code::STORAGE_FULL,
            _ => false,
        }
    }

    fn is_stale_layout(&self) -> bool {
        matches!(self, NodeError::Call(CallError::Refused(refusal)) if refusal.code == garage_rpc::message::code::STALE_LAYOUT)
    }
}

/// Why a block is not on a write quorum.
#[derive(Debug, thiserror::Error)]
pub enum PutBlockError {
    /// Too few nodes took it.
    #[error("block {hash}: {error}")]
    Quorum {
        /// The block.
        hash: BlockHash,
        /// Who failed, and why.
        error: QuorumError<NodeId, NodeError>,
    },
    /// There is no layout to place it by.
    #[error(transparent)]
    Layout(#[from] LayoutNotReady),
    /// Longer than any block may be.
    #[error("a block of {len_bytes} bytes; at most {BLOCK_LEN_MAX_BYTES} are stored: lower block_size")]
    TooLong {
        /// Its length.
        len_bytes: usize,
    },
    /// Memory stayed short until the deadline.
    #[error("the blocks on their way to slow nodes fill block_ram_buffer_max; retry later, or raise it")]
    MemoryShort,
    /// This node is stopping.
    #[error(transparent)]
    Stopping(#[from] Interrupted),
}

impl PutBlockError {
    /// Whether it failed for want of disk space: what a client is told then differs.
    pub fn is_storage_full(&self) -> bool {
        matches!(self, PutBlockError::Quorum { error, .. } if error.errors.iter().any(|(_, error)| error.is_storage_full()))
    }
}

/// Puts and gets blocks for the requests of this node. Cheap to clone.
#[derive(Clone)]
pub struct BlockManager(Arc<Inner>);

struct Inner {
    runtime: Runtime,
    mesh: Arc<dyn Mesh>,
    service: BlockService,
    options: ManagerOptions,
    /// Blocks that some holder has not taken yet.
    ram: ByteBudget,
    /// Blocks read before their client asks for them.
    read_ahead: ByteBudget,
    calls: QuorumCalls,
    fetches: Arc<FetchTimes>,
}

/// How long whole blocks took from each node, for hedging. A tracker of its own: a block takes longer than a row.
#[derive(Default)]
struct FetchTimes(Mutex<BTreeMap<NodeId, LatencyWindow>>);

impl FetchTimes {
    fn record(&self, node: NodeId, took: Duration) {
        self.0.lock().entry(node).or_default().record(took);
    }
    fn hedge_delay(&self, node: NodeId) -> Duration {
        let p95 = self.0.lock().get(&node).and_then(LatencyWindow::p95);
        p95.map_or(FETCH_HEDGE_UNKNOWN, |p95| p95.clamp(FETCH_HEDGE_MIN, FETCH_HEDGE_MAX))
    }
}

impl BlockManager {
    /// A manager over this node's own blocks and the other nodes.
    pub fn new(runtime: Runtime, mesh: Arc<dyn Mesh>, service: BlockService, options: ManagerOptions) -> BlockManager {
        assert!(0 < options.block_size_bytes && options.block_size_bytes <= BLOCK_LEN_MAX_BYTES, "block_size {}", options.block_size_bytes);
        let fetches = Arc::new(FetchTimes::default());
        let times = fetches.clone();
        BlockManager(Arc::new(Inner {
            calls: QuorumCalls::new(runtime.clone(), Arc::new(move |node| times.hedge_delay(node))),
            ram: ByteBudget::new(options.ram_buffer_bytes),
            read_ahead: ByteBudget::new(READ_AHEAD_TOTAL_MAX_BYTES),
            runtime,
            mesh,
            service,
            options,
            fetches,
        }))
    }

    /// The options it was made with.
    pub fn options(&self) -> &ManagerOptions {
        &self.0.options
    }

    /// The context of one block of a body.
    fn block_context(&self, body: RequestContext) -> RequestContext {
        RequestContext { deadline: body.deadline.min(Instant::now() + self.0.options.block_timeout), ..body }
    }

    /// This node's own blocks.
    pub fn service(&self) -> &BlockService {
        &self.0.service
    }

    /// The other nodes.
    pub fn mesh(&self) -> &Arc<dyn Mesh> {
        &self.0.mesh
    }

    /// Bytes left of `block_ram_buffer_max`, for metrics.
    pub fn ram_buffer_free_bytes(&self) -> usize {
        self.0.ram.free_bytes()
    }
}

#[cfg(test)]
pub(crate) mod tests;
