//! An object's content on its way in: a stream that fails when what came is not what the client announced.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::rows::checksum::StoredChecksum;

/// Why a body can't be taken: an error of the HTTP interface that reads it, handed back to it as it is.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BodyFailure(pub Box<dyn std::error::Error + Send + Sync>);

/// What is known of a body once it ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyDigests {
    /// Length of the content.
    pub size_bytes: u64,
    /// MD5 of the content.
    pub md5: [u8; 16],
    /// The checksum that the client gave, or that was computed for it.
    pub checksum: Option<StoredChecksum>,
}

/// A body that verifies itself.
pub trait ObjectBody: Send {
    /// The next piece; `None` at the end, which comes only when everything was verified.
    fn next(&mut self) -> BoxFuture<'_, Option<Result<Bytes, BodyFailure>>>;
    /// The announced length, if any.
    fn size_hint_bytes(&self) -> Option<u64>;
    /// What was computed over the whole body; call it after the end.
    fn digests(&self) -> BodyDigests;
}

/// A body that is all there: for tests, and for what the server itself writes.
pub struct WholeBody {
    pieces: VecDeque<Bytes>,
    digests: BodyDigests,
}

impl WholeBody {
    /// A body of these bytes, in pieces of at most 256 KiB.
    pub fn new(bytes: Bytes) -> WholeBody {
        use md5::Digest;
        let digests = BodyDigests { size_bytes: bytes.len() as u64, md5: md5::Md5::digest(&bytes).into(), checksum: None };
        let mut rest = bytes;
        let mut pieces = VecDeque::new();
        while !rest.is_empty() {
            pieces.push_back(rest.split_to(rest.len().min(256 << 10)));
        }
        WholeBody { pieces, digests }
    }
}

impl ObjectBody for WholeBody {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<Bytes, BodyFailure>>> {
        let piece = self.pieces.pop_front();
        Box::pin(async move { piece.map(Ok) })
    }
    fn size_hint_bytes(&self) -> Option<u64> {
        Some(self.digests.size_bytes)
    }
    fn digests(&self) -> BodyDigests {
        self.digests.clone()
    }
}
