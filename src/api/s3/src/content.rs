//! Bodies on their way into the model: of requests, and of objects that are copied.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{Stream, StreamExt, future::BoxFuture};
use garage_api_common::{
    S3Error,
    checksum::ChecksumAlgorithm,
    payload::{BodySpec, VerifiedBody},
    sigv4::PayloadMode,
};
use garage_model::{
    body::{BodyDigests, BodyFailure, ObjectBody},
    rows::checksum::ChecksumType,
};
use garage_util::runtime::Runtime;
use http::{HeaderMap, HeaderValue, header};
use parking_lot::Mutex;

use crate::checksums;

/// How long a copy waits for the next block of its source, on top of the time limits below.
const SOURCE_STALL_TIMEOUT: Duration = Duration::from_secs(600);

/// A verified body, as the model takes it.
pub struct VerifiedContent {
    body: VerifiedBody,
    /// The checksum that is kept with the object.
    kept: ChecksumAlgorithm,
    kind: ChecksumType,
    /// What a source inside the cluster failed with: not the client's fault.
    source_failure: Arc<Mutex<Option<BodyFailure>>>,
}

impl VerifiedContent {
    /// A request's body; `kept` must be declared by the request or computed by its spec.
    pub fn new(body: VerifiedBody, kept: ChecksumAlgorithm, kind: ChecksumType) -> VerifiedContent {
        VerifiedContent { body, kept, kind, source_failure: Arc::default() }
    }

    /// The content of an existing object, `size_bytes` long, with the checksum `kept` computed.
    pub fn of_copy(
        runtime: &Runtime,
        source: impl Stream<Item = Result<Bytes, BodyFailure>> + Send + 'static,
        size_bytes: u64,
        kept: ChecksumAlgorithm,
        kind: ChecksumType,
    ) -> Result<VerifiedContent, S3Error> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(size_bytes));
        let spec = BodySpec::parse(&headers, PayloadMode::Unsigned)?.compute(kept).stall_timeout(SOURCE_STALL_TIMEOUT);
        let source_failure: Arc<Mutex<Option<BodyFailure>>> = Arc::default();
        let noted = source_failure.clone();
        let source = source.map(move |piece| {
            piece.map_err(|error| {
                let text = error.to_string();
                *noted.lock() = Some(error);
                text
            })
        });
        Ok(VerifiedContent { body: spec.open(runtime, source), kept, kind, source_failure })
    }

    async fn next_piece(&mut self) -> Option<Result<Bytes, BodyFailure>> {
        let piece = self.body.next().await.transpose()?;
        Some(piece.map_err(|error| {
            let noted = self.source_failure.lock().take();
            noted.unwrap_or_else(|| BodyFailure(Box::new(error)))
        }))
    }

    /// Reads to the end and keeps only the digests.
    pub async fn digest(mut self) -> Result<BodyDigests, BodyFailure> {
        while let Some(piece) = self.next_piece().await {
            piece?;
        }
        Ok(ObjectBody::digests(&self))
    }
}

impl ObjectBody for VerifiedContent {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<Bytes, BodyFailure>>> {
        Box::pin(self.next_piece())
    }
    fn size_hint_bytes(&self) -> Option<u64> {
        self.body.length_bytes()
    }
    fn digests(&self) -> BodyDigests {
        let digests = self.body.digests().expect("digests are asked for after the clean end, where the body has them");
        let checksum = digests.checksum(self.kept).map(|value| checksums::stored(value, self.kind));
        BodyDigests { size_bytes: digests.size_bytes, md5: digests.md5, checksum }
    }
}
