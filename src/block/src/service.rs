//! What a node does for others: takes blocks with their references, sends blocks, adds references, checks its copies.
//!
//! Invariants:
//! - a block and its reference are durable together before the write is answered;
//! - bytes from another node are checked against the hash before they touch the disk;
//! - the bytes held for writing, and those held for sending, each stay under a budget of their own. Two budgets, because a write that
//!   waits for a peer which waits for us must not be able to wait for ever.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use garage_db::TransactError;
use garage_net::{BodyStream, NetError, Refusal};
use garage_rpc::{
    CallContext, RouterBuilder, StoreMark,
    message::{Handled, code as rpc_code, refusal},
};
use garage_table::schema::StoreError as TableError;
use garage_util::runtime::{Interrupted, Lane, Runtime};
use tokio::time::timeout_at;

use crate::{
    budget::{ByteBudget, Held},
    encoding::EncodedBlock,
    hash::BlockHash,
    limits::{
        BLOCK_LEN_MAX_BYTES, BLOCKS_PER_ASK_MAX_COUNT, BODY_PIECE_BYTES, GROUP_LEN_MAX_BYTES, RECEIVE_BUFFER_MAX_BYTES,
        REFERENCES_PER_CALL_MAX_COUNT, SEND_BUFFER_MAX_BYTES,
    },
    message::{
        AddReferences, AskBlocks, BlockHeader, BlockKnown, BlocksKnown, CheckBlock, CopyState, GetBlock, HintReferences, PutBlock,
        ReferencesAdded, code,
    },
    reference::{Reference, References},
    store::{BlockStore, Checked, LocalReadError, StoreError},
};

/// A node's blocks as others see them. Cheap to clone.
#[derive(Clone)]
pub struct BlockService(Arc<Inner>);

struct Inner {
    runtime: Runtime,
    store: BlockStore,
    references: References,
    receiving: ByteBudget,
    sending: ByteBudget,
}

/// Why a block with its reference could not be made durable on this node.
#[derive(Debug, thiserror::Error)]
pub enum LocalWriteError {
    /// The file.
    #[error(transparent)]
    File(#[from] StoreError),
    /// The reference.
    #[error(transparent)]
    Reference(#[from] TransactError<TableError>),
}

impl BlockService {
    /// A service over this node's files and references.
    pub fn new(runtime: Runtime, store: BlockStore, references: References) -> BlockService {
        let (receiving, sending) = (ByteBudget::new(RECEIVE_BUFFER_MAX_BYTES), ByteBudget::new(SEND_BUFFER_MAX_BYTES));
        BlockService(Arc::new(Inner { runtime, store, references, receiving, sending }))
    }

    /// The block files.
    pub fn store(&self) -> &BlockStore {
        &self.0.store
    }

    /// The references.
    pub fn references(&self) -> &References {
        &self.0.references
    }

    /// Adds this service's handlers to a router.
    pub fn register(&self, router: RouterBuilder) -> RouterBuilder {
        let (put, get, add, check, ask, hint) = (self.clone(), self.clone(), self.clone(), self.clone(), self.clone(), self.clone());
        router
            .on::<PutBlock, _>(move |_, context, message, body| {
                let this = put.clone();
                async move { this.serve_put(context, message, body).await }
            })
            .on::<GetBlock, _>(move |_, context, message, _| {
                let this = get.clone();
                async move { this.serve_get(context, message).await }
            })
            .on_plain::<AddReferences, _>(move |_, _, message| {
                let this = add.clone();
                async move { this.add_references(message.references).await }
            })
            .on_plain::<CheckBlock, _>(move |_, _, message| {
                let this = check.clone();
                async move { this.check(message.hash).await }
            })
            .on_plain::<AskBlocks, _>(move |_, _, message| {
                let this = ask.clone();
                async move { this.known(message.hashes).await }
            })
            .on_plain::<HintReferences, _>(move |_, _, message| {
                let this = hint.clone();
                async move { this.hint(message.references.into_iter().map(|(block, version)| (block, version.0)).collect()).await }
            })
    }

    /// Makes a block and its reference durable here. The block was checked against its hash, here or by whoever made it here.
    pub async fn put_checked(&self, reference: Reference, block: EncodedBlock) -> Result<StoreMark, LocalWriteError> {
        let hash = reference.block;
        let lock = self.0.store.lock([hash]).await;
        let file = async { self.0.store.put(hash, block, &lock).await.map_err(LocalWriteError::from) };
        let row = async { self.0.references.add(vec![reference]).await.map_err(LocalWriteError::from) };
        // If one fails, a reference without file has its entry in the queue, and a file without reference is found by the scrub.
        let (_, mark) = futures::try_join!(file, row)?;
        self.0.references.seen([hash]);
        Ok(mark)
    }

    /// Adds references to those blocks that have a file here, and names the others.
    pub async fn add_references(&self, references: Vec<Reference>) -> Result<ReferencesAdded, Refusal> {
        if REFERENCES_PER_CALL_MAX_COUNT < references.len() {
            let text = format!("{} references in one message; {REFERENCES_PER_CALL_MAX_COUNT} are taken", references.len());
            return Err(refusal(rpc_code::INVALID, text));
        }
        references.iter().try_for_each(check_reference)?;
        let hashes: Vec<BlockHash> = references.iter().map(|reference| reference.block).collect();
        let _lock = self.0.store.lock(hashes.iter().copied()).await;
        let present = self.0.store.contains(hashes.clone()).await.map_err(|error| write_refusal(error.into()))?;
        let (held, absent): (Vec<_>, Vec<_>) = references.into_iter().zip(present).partition(|(_, present)| *present);
        let held: Vec<Reference> = held.into_iter().map(|(reference, _)| reference).collect();
        let seen: Vec<BlockHash> = held.iter().map(|reference| reference.block).collect();
        let mark = self.0.references.add(held).await.map_err(|error| write_refusal(error.into()))?;
        self.0.references.seen(seen);
        let mut missing: Vec<BlockHash> = absent.into_iter().map(|(reference, _)| reference.block).collect();
        missing.sort();
        missing.dedup();
        Ok(ReferencesAdded { mark, missing })
    }

    /// Checks the copy of a block here; a bad one is set aside and queued.
    pub async fn check(&self, hash: BlockHash) -> Result<CopyState, Refusal> {
        match self.0.store.check(hash).await.map_err(|error| write_refusal(error.into()))? {
            Checked::Good => Ok(CopyState::Good),
            Checked::Missing => Ok(CopyState::Missing),
            Checked::SetAside => {
                self.0.references.queue_corrupt(hash).await.map_err(|error| write_refusal(error.into()))?;
                Ok(CopyState::SetAside)
            }
        }
    }

    /// Lists references to be asked about now; durable on return.
    pub async fn hint(&self, references: Vec<(BlockHash, [u8; 32])>) -> Result<StoreMark, Refusal> {
        if REFERENCES_PER_CALL_MAX_COUNT < references.len() {
            let text = format!("{} references in one hint; {REFERENCES_PER_CALL_MAX_COUNT} are taken", references.len());
            return Err(refusal(rpc_code::INVALID, text));
        }
        self.0.references.hint(references).await.map_err(|error| write_refusal(error.into()))
    }

    /// What this node knows of some blocks.
    pub async fn known(&self, hashes: Vec<BlockHash>) -> Result<BlocksKnown, Refusal> {
        if BLOCKS_PER_ASK_MAX_COUNT < hashes.len() {
            let text = format!("{} blocks in one question; {BLOCKS_PER_ASK_MAX_COUNT} are answered", hashes.len());
            return Err(refusal(rpc_code::INVALID, text));
        }
        let failed = |error: TableError| refusal(code::FAILED, error.to_string());
        let mut blocks = Vec::with_capacity(hashes.len());
        for hash in hashes {
            let stored_len_bytes = self.0.store.stored_len_bytes(hash).await.map_err(|error| write_refusal(error.into()))?;
            let is_needed = self.0.references.need(hash).await.map_err(failed)?.is_live;
            blocks.push(BlockKnown { stored_len_bytes, is_needed });
        }
        Ok(BlocksKnown { blocks })
    }

    /// Puts a good copy in the place of a bad one, and takes the block off the queue.
    pub async fn mend(&self, hash: BlockHash, block: EncodedBlock) -> Result<(), LocalWriteError> {
        let lock = self.0.store.lock([hash]).await;
        self.0.store.put(hash, block, &lock).await?;
        Ok(self.0.references.mended(hash).await?)
    }

    async fn serve_put(&self, context: CallContext, message: PutBlock, body: Option<BodyStream>) -> Handled<StoreMark> {
        check_reference(&message.reference)?;
        let (hash, len_bytes) = (message.reference.block, checked_len(message.len_bytes)?);
        let Ok(held) = timeout_at(context.deadline, self.0.receiving.hold(len_bytes)).await else {
            return Err(refusal(code::BUSY, "this node holds as many arriving blocks as it may; retry"));
        };
        let bytes = collect(body, len_bytes).await.map_err(|error| refusal(rpc_code::INVALID, format!("block {hash}: {error}")))?;
        let block = self.checked(hash, EncodedBlock { encoding: message.encoding, bytes }).await?;
        let mark = self.put_checked(message.reference, block).await.map_err(write_refusal)?;
        drop(held);
        Ok((mark, None))
    }

    async fn checked(&self, hash: BlockHash, block: EncodedBlock) -> Result<EncodedBlock, Refusal> {
        let checked = self.0.runtime.blocking(Lane::Compute, move || block.decode(hash).map(|_content| block)).await;
        checked.map_err(stopping_refusal)?.map_err(|corrupt| refusal(code::CORRUPT, corrupt.to_string()))
    }

    async fn serve_get(&self, context: CallContext, message: GetBlock) -> Handled<BlockHeader> {
        let (hash, len_bytes) = (message.hash, checked_len(message.len_bytes)?);
        let Ok(held) = timeout_at(context.deadline, self.0.sending.hold(len_bytes)).await else {
            return Err(refusal(code::BUSY, "this node holds as many leaving blocks as it may; ask another"));
        };
        let block = self.0.store.get_unchecked(hash).await.map_err(read_refusal)?;
        if len_bytes < block.bytes.len() {
            // No encoding makes a block longer, so this is not the block, or not the length.
            return Err(refusal(code::CORRUPT, format!("block {hash}: the copy here is longer than {len_bytes} bytes")));
        }
        let header = BlockHeader { encoding: block.encoding, len_bytes: block.bytes.len() as u32 };
        Ok((header, Some(body_of(block.bytes, Some(held)))))
    }
}

/// A block's bytes as a body, in pieces; what is `held` goes with it until the last piece was taken.
pub(crate) fn body_of(bytes: Bytes, held: Option<Held>) -> BodyStream {
    Box::pin(futures::stream::unfold((bytes, held), |(mut rest, held)| async move {
        if rest.is_empty() {
            return None;
        }
        let piece = rest.split_to(rest.len().min(BODY_PIECE_BYTES));
        Some((Ok::<Bytes, NetError>(piece), (rest, held)))
    }))
}

/// Why a body could not be taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("{got_bytes} bytes or more came, {expected_bytes} were announced")]
    Length { got_bytes: usize, expected_bytes: usize },
    #[error(transparent)]
    Net(#[from] NetError),
}

/// A whole body of exactly this length.
pub(crate) async fn collect(body: Option<BodyStream>, len_bytes: usize) -> Result<Bytes, BodyError> {
    let mut whole = BytesMut::new();
    let Some(mut body) = body else { return exactly(Bytes::new(), len_bytes) };
    while let Some(piece) = body.next().await {
        let piece = piece?;
        if len_bytes < whole.len() + piece.len() {
            return Err(BodyError::Length { got_bytes: whole.len() + piece.len(), expected_bytes: len_bytes });
        }
        // What is announced is believed only once something came.
        whole.reserve(if whole.is_empty() { len_bytes } else { piece.len() });
        whole.extend_from_slice(&piece);
    }
    exactly(whole.freeze(), len_bytes)
}

fn exactly(bytes: Bytes, expected_bytes: usize) -> Result<Bytes, BodyError> {
    if bytes.len() == expected_bytes { Ok(bytes) } else { Err(BodyError::Length { got_bytes: bytes.len(), expected_bytes }) }
}

fn checked_len(len_bytes: u32) -> Result<usize, Refusal> {
    let len_bytes = len_bytes as usize;
    if len_bytes <= BLOCK_LEN_MAX_BYTES {
        return Ok(len_bytes);
    }
    Err(refusal(rpc_code::INVALID, format!("a block of {len_bytes} bytes; {BLOCK_LEN_MAX_BYTES} are taken")))
}

fn check_reference(reference: &Reference) -> Result<(), Refusal> {
    if reference.group.len() <= GROUP_LEN_MAX_BYTES {
        return Ok(());
    }
    Err(refusal(rpc_code::INVALID, format!("a group of {} bytes in a reference; {GROUP_LEN_MAX_BYTES} are taken", reference.group.len())))
}

fn stopping_refusal(stopping: Interrupted) -> Refusal {
    refusal(rpc_code::UNAVAILABLE, stopping.to_string())
}

fn write_refusal(error: LocalWriteError) -> Refusal {
    refusal(write_code(&error), error.to_string())
}

/// The refusal code of a local write error.
pub(crate) fn write_code(error: &LocalWriteError) -> &'static str {
    match error {
        LocalWriteError::File(StoreError::StorageFull { .. }) => code::STORAGE_FULL,
        LocalWriteError::File(StoreError::Io { .. }) => code::FAILED,
        LocalWriteError::File(StoreError::Stopping(_)) => rpc_code::UNAVAILABLE,
        LocalWriteError::Reference(TransactError::StorageFull { .. }) => code::STORAGE_FULL,
        LocalWriteError::Reference(TransactError::Stopping) => rpc_code::UNAVAILABLE,
        LocalWriteError::Reference(_) => code::FAILED,
    }
}

fn read_refusal(error: LocalReadError) -> Refusal {
    let code = match &error {
        LocalReadError::Missing { .. } => code::MISSING,
        LocalReadError::Corrupt(_) => code::CORRUPT,
        LocalReadError::Busy { .. } => code::BUSY,
        LocalReadError::Io { .. } => code::FAILED,
        LocalReadError::Stopping(_) => rpc_code::UNAVAILABLE,
    };
    refusal(code, error.to_string())
}
