//! The verified body as a stream: reads, decodes, hands on, and hashes beside it.
//!
//! Big bodies are hashed in batches in the compute lane while the next bytes are read; what has been handed on and not yet hashed is
//! bounded by `HASH_BACKLOG_MAX_BYTES`. Small bodies are hashed where they are.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, future::BoxFuture, stream::BoxStream};
use garage_util::runtime::{Interrupted, Lane, Runtime};
use tokio::time::{Instant, Sleep};

use super::{BodySpec, ChunkDecoder, ChunkEvent, Digests, digest::Digester};
use crate::{
    error::{ErrorCode, S3Error},
    limits::{HASH_BACKLOG_MAX_BYTES, HASH_BATCH_BYTES},
};

/// An error of the source of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

type HashJob = BoxFuture<'static, Result<(Box<Digester>, Result<(), S3Error>), Interrupted>>;

/// A body that ends cleanly only if everything its request promised of it is true.
///
/// Read it with [`VerifiedBody::next`] or as a `Stream`; after the clean end, [`VerifiedBody::digests`] has what was computed.
pub struct VerifiedBody {
    source: BoxStream<'static, Result<Bytes, BoxError>>,
    runtime: Runtime,
    decoder: Option<ChunkDecoder>,
    length: Option<u64>,
    seen_bytes: u64,
    ready: VecDeque<Bytes>,
    backlog: Vec<ChunkEvent>,
    backlog_bytes: usize,
    digester: Option<Box<Digester>>,
    job: Option<HashJob>,
    silence: Pin<Box<Sleep>>,
    stall_timeout: std::time::Duration,
    waiting: bool,
    phase: Phase,
    digests: Option<Digests>,
}

/// What an event occupies while it waits, data apart.
const EVENT_COST_BYTES: usize = 128;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Reading,
    Finishing,
    Done,
}

impl VerifiedBody {
    pub(super) fn new<S, E>(spec: BodySpec, runtime: Runtime, source: S) -> VerifiedBody
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        VerifiedBody {
            source: source.map(|item| item.map_err(Into::into)).boxed(),
            runtime,
            decoder: spec.decoder(),
            length: spec.length,
            seen_bytes: 0,
            ready: VecDeque::new(),
            backlog: Vec::new(),
            backlog_bytes: 0,
            digester: Some(Box::new(Digester::new(&spec))),
            job: None,
            silence: Box::pin(tokio::time::sleep(spec.stall_timeout)),
            stall_timeout: spec.stall_timeout,
            waiting: false,
            phase: Phase::Reading,
            digests: None,
        }
    }

    /// Bytes of the whole content, if the request said.
    pub fn length_bytes(&self) -> Option<u64> {
        self.length
    }
    /// The next piece of content; `None` at the clean end. After an error there is nothing more. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Option<Bytes>, S3Error> {
        std::future::poll_fn(|cx| self.poll_piece(cx)).await.transpose()
    }
    /// What was computed; `Some` after the clean end only.
    pub fn digests(&self) -> Option<&Digests> {
        self.digests.as_ref()
    }
    /// Reads everything. Errors: those of the body, and 400 `MaxMessageLengthExceeded` past `limit_bytes`.
    pub async fn read_to_end(mut self, limit_bytes: usize) -> Result<(Bytes, Digests), S3Error> {
        let too_long = || S3Error::of(ErrorCode::MaxMessageLengthExceeded).with("MaxMessageLengthBytes", limit_bytes).closing();
        if self.length.is_some_and(|length| length > limit_bytes as u64) {
            return Err(too_long());
        }
        let mut all = BytesMut::new();
        while let Some(piece) = self.next().await? {
            if all.len() + piece.len() > limit_bytes {
                return Err(too_long());
            }
            all.extend_from_slice(&piece);
        }
        let digests = self.digests.take().ok_or_else(|| S3Error::internal("a body ended without its digests"))?;
        Ok((all.freeze(), digests))
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, S3Error>>> {
        match self.poll_step(cx) {
            Poll::Ready(Err(error)) => {
                self.phase = Phase::Done;
                self.ready.clear();
                self.backlog.clear();
                self.job = None;
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(Ok(piece)) => Poll::Ready(piece.map(Ok)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, S3Error>> {
        loop {
            self.poll_job(cx)?;
            if let Some(piece) = self.ready.pop_front() {
                return Poll::Ready(Ok(Some(piece)));
            }
            match self.phase {
                Phase::Done => return Poll::Ready(Ok(None)),
                // The hashing is behind; its waker is registered.
                Phase::Reading if self.job.is_some() && self.backlog_bytes >= HASH_BACKLOG_MAX_BYTES => return Poll::Pending,
                Phase::Reading => match self.poll_source(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(Some(bytes))) => self.take(bytes)?,
                    Poll::Ready(Ok(None)) => self.end_of_source()?,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                },
                Phase::Finishing if self.job.is_some() => return Poll::Pending,
                Phase::Finishing => self.finish()?,
            }
            self.start_job_if_due();
        }
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, S3Error>> {
        match self.source.poll_next_unpin(cx) {
            Poll::Ready(item) => {
                self.waiting = false;
                Poll::Ready(item.transpose().map_err(source_failed))
            }
            Poll::Pending => {
                // Only the client's silence counts, not the time our own reader took.
                if !self.waiting {
                    self.waiting = true;
                    self.silence.as_mut().reset(Instant::now() + self.stall_timeout);
                }
                self.silence.as_mut().poll(cx).map(|()| Err(S3Error::of(ErrorCode::RequestTimeout).closing()))
            }
        }
    }

    /// Decodes bytes from the wire into pieces to hand on and events to hash.
    fn take(&mut self, bytes: Bytes) -> Result<(), S3Error> {
        let mut events = Vec::new();
        match &mut self.decoder {
            Some(decoder) => decoder.feed(bytes, &mut events)?,
            None if bytes.is_empty() => {}
            None => events.push(ChunkEvent::Data(bytes)),
        }
        for event in events {
            // Counted beside the data, so that a body of one-byte chunks cannot pile up events without bound.
            self.backlog_bytes += EVENT_COST_BYTES;
            if let ChunkEvent::Data(data) = &event {
                self.seen_bytes += data.len() as u64;
                self.backlog_bytes += data.len();
                self.ready.push_back(data.clone());
            }
            self.backlog.push(event);
        }
        if self.length.is_some_and(|length| self.seen_bytes > length) {
            return Err(S3Error::of(ErrorCode::IncompleteBody).closing());
        }
        Ok(())
    }

    fn end_of_source(&mut self) -> Result<(), S3Error> {
        if let Some(decoder) = &mut self.decoder {
            decoder.finish(&mut self.backlog)?;
        }
        if self.length.is_some_and(|length| self.seen_bytes != length) {
            return Err(S3Error::of(ErrorCode::IncompleteBody).closing());
        }
        self.phase = Phase::Finishing;
        Ok(())
    }

    fn start_job_if_due(&mut self) {
        if self.job.is_some() || self.backlog_bytes < HASH_BATCH_BYTES {
            return;
        }
        let Some(mut digester) = self.digester.take() else { return };
        let batch = std::mem::take(&mut self.backlog);
        self.backlog_bytes = 0;
        let runtime = self.runtime.clone();
        self.job = Some(Box::pin(async move {
            let work = move || {
                let outcome = batch.into_iter().try_for_each(|event| digester.apply(event));
                (digester, outcome)
            };
            runtime.blocking(Lane::Compute, work).await
        }));
    }

    fn poll_job(&mut self, cx: &mut Context<'_>) -> Result<(), S3Error> {
        let Some(job) = &mut self.job else { return Ok(()) };
        if let Poll::Ready(result) = job.as_mut().poll(cx) {
            self.job = None;
            let (digester, outcome) = result?;
            self.digester = Some(digester);
            outcome?;
            self.start_job_if_due();
            return self.poll_job(cx);
        }
        Ok(())
    }

    /// Hashes what is left (less than a batch) here, and judges.
    fn finish(&mut self) -> Result<(), S3Error> {
        if self.backlog_bytes >= HASH_BATCH_BYTES {
            return Ok(());
        }
        let mut digester = self.digester.take().ok_or_else(|| S3Error::internal("the digester of a body is lost"))?;
        self.backlog_bytes = 0;
        self.backlog.drain(..).try_for_each(|event| digester.apply(event))?;
        self.digests = Some(digester.finish()?);
        self.phase = Phase::Done;
        Ok(())
    }
}

/// A source that knows what is wrong says so with an `S3Error`; any other ended too early.
fn source_failed(error: BoxError) -> S3Error {
    match error.downcast::<S3Error>() {
        Ok(error) => *error,
        Err(other) => S3Error::of(ErrorCode::IncompleteBody).caused_by(other).closing(),
    }
}

impl Stream for VerifiedBody {
    type Item = Result<Bytes, S3Error>;
    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_piece(cx)
    }
}

impl std::fmt::Debug for VerifiedBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerifiedBody").field("length", &self.length).field("seen_bytes", &self.seen_bytes).finish_non_exhaustive()
    }
}
