//! One stream, either direction: heads and bodies over quinn, with few copies and no buffer beyond the flow-control window.

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use quinn::{ReadError, RecvStream, SendStream, VarInt, WriteError};
use serde::Serialize;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use super::reasons::{CANCELLED, DEADLINE, body_read};
use crate::{
    frame::{BodyDecoder, FrameError, Head, HeadDecoder, Part, chunk_prefix, encode_head, end_mark, failure_mark},
    limits::{CHUNK_MAX_BYTES, READ_PIECES_MAX, SMALL_PAYLOAD_MAX_BYTES},
    types::{BodyStream, NetError},
};

/// The sending half. Dropped before [`finish`](Outgoing::finish), it is reset, so that what was sent never looks whole.
pub struct Outgoing {
    stream: SendStream,
    finished: bool,
}

impl Outgoing {
    /// Guards `stream`.
    pub fn new(stream: SendStream) -> Outgoing {
        Outgoing { stream, finished: false }
    }

    /// Sets the priority against other streams of the connection. One that is closed already needs none.
    pub fn set_priority(&self, priority: i32) {
        let _ = self.stream.set_priority(priority);
    }

    /// Resolves when the other side wants no more, or has everything.
    pub fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let stopped = self.stream.stopped();
        async move { drop(stopped.await) }
    }

    /// Sends a head and its payload in one go.
    pub async fn send_head(&mut self, head: Bytes, payload: Bytes) -> Result<(), WriteError> {
        self.stream.write_all_chunks(&mut [head, payload]).await
    }

    /// Sends a body to its end, no faster than the other side reads.
    pub async fn send_body(&mut self, mut body: BodyStream) -> Result<(), WriteError> {
        while let Some(item) = body.next().await {
            let mut data = match item {
                Ok(data) => data,
                Err(error) => return self.stream.write_all_chunks(&mut [failure_mark(&failure_text(error))]).await,
            };
            while !data.is_empty() {
                let chunk = data.split_to(data.len().min(CHUNK_MAX_BYTES));
                self.stream.write_all_chunks(&mut [chunk_prefix(chunk.len()), chunk]).await?;
            }
        }
        self.stream.write_all_chunks(&mut [end_mark()]).await
    }

    /// Says that all is sent.
    pub fn finish(&mut self) {
        self.finished = true;
        // An error means that the stream is closed or stopped already, and then there is nothing left to say.
        let _ = self.stream.finish();
    }

    /// Gives up, for the reason `code`; nothing happens to what is finished.
    pub fn reset(&mut self, code: VarInt) {
        if !self.finished {
            self.finished = true;
            let _ = self.stream.reset(code);
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.reset(CANCELLED);
    }
}

/// A body that is passed on keeps the words of its first failure.
fn failure_text(error: NetError) -> String {
    match error {
        NetError::Failed(text) => text,
        other => other.to_string(),
    }
}

/// Why no head came.
pub enum HeadError {
    /// The stream or its connection broke.
    Read(ReadError),
    /// What came is no head.
    Frame(FrameError),
}

/// The receiving half. Dropping it tells the sender to stop.
pub struct Receiving {
    stream: RecvStream,
    pieces: Vec<Bytes>,
}

impl Receiving {
    /// Reads from `stream`.
    pub fn new(stream: RecvStream) -> Receiving {
        Receiving { stream, pieces: Vec::new() }
    }

    /// What has arrived, at least one piece; `None` at the end.
    ///
    /// The pieces are copied once into the decoders: kept as they are, a small one would pin the whole batch of packets it came in.
    async fn read(&mut self) -> Result<Option<&[Bytes]>, ReadError> {
        self.pieces.resize(READ_PIECES_MAX, Bytes::new());
        let count = self.stream.read_chunks(&mut self.pieces).await?;
        Ok(count.map(|count| &self.pieces[..count]))
    }

    /// Reads a head. A payload that is not small waits for its share of `budget` before more of it is read.
    pub async fn read_head(&mut self, budget: Option<&Semaphore>) -> Result<Head, HeadError> {
        let mut decoder = HeadDecoder::default();
        let mut share = None;
        loop {
            if let Some(head) = decoder.take() {
                return Ok(head);
            }
            if let (None, Some(budget), Some(len_bytes)) = (&share, budget, decoder.payload_len_bytes())
                && SMALL_PAYLOAD_MAX_BYTES < len_bytes
            {
                // Closed never: an error would only mean that there is no bound any more.
                share = budget.acquire_many(len_bytes as u32).await.ok();
            }
            match self.read().await.map_err(HeadError::Read)? {
                None => return Err(HeadError::Frame(FrameError::Truncated)),
                Some(pieces) => pieces.iter().try_for_each(|piece| decoder.feed(piece)).map_err(HeadError::Frame)?,
            }
        }
    }

    /// The body that follows a head; `keep` lives until it ends or is dropped.
    pub fn into_body(self, rest: Bytes, deadline: Instant, keep: impl Send + 'static) -> BodyStream {
        let state = Body { receiving: self, decoder: BodyDecoder::new(rest), deadline, _keep: keep };
        Box::pin(futures::stream::unfold(Some(state), |state| async move {
            let mut state = state?;
            match state.next().await {
                Ok(None) => None,
                Ok(Some(data)) => Some((Ok(data), Some(state))),
                Err(error) => Some((Err(error), None)),
            }
        }))
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        // Usually the end has arrived with the last bytes. Noticed here, it spares a packet that tells the sender to stop.
        let _ = self.read().now_or_never();
    }
}

struct Body<K> {
    receiving: Receiving,
    decoder: BodyDecoder,
    deadline: Instant,
    _keep: K,
}

impl<K> Body<K> {
    async fn next(&mut self) -> Result<Option<Bytes>, NetError> {
        loop {
            match self.decoder.next_part() {
                Ok(Part::Data(data)) => return Ok(Some(data)),
                Ok(Part::End) => return Ok(None),
                Ok(Part::Failed(text)) => return Err(NetError::Failed(text)),
                Ok(Part::NeedMore) => self.read_more().await?,
                Err(error) => return Err(NetError::Broken(error.to_string())),
            }
        }
    }

    async fn read_more(&mut self) -> Result<(), NetError> {
        let read = timeout_at(self.deadline, self.receiving.read()).await;
        match read {
            Ok(Ok(Some(pieces))) => {
                pieces.iter().for_each(|piece| self.decoder.feed(piece));
                Ok(())
            }
            Ok(Ok(None)) => Err(NetError::Truncated),
            Ok(Err(error)) => Err(body_read(&error)),
            Err(_) => {
                let _ = self.receiving.stream.stop(DEADLINE);
                Err(NetError::TimedOut)
            }
        }
    }
}

/// A head with its payload's length checked; see [`encode_head`].
pub fn head_for(header: &impl Serialize, payload: &Bytes) -> Result<Bytes, FrameError> {
    encode_head(header, payload.len())
}
