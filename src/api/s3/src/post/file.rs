//! The content of a form's file, within the sizes that its policy allows.

use std::{
    collections::VecDeque,
    ops::RangeInclusive,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream::BoxStream};
use garage_api_common::{
    ErrorCode, S3Error,
    form::{FormDecoder, FormEvent},
    payload::BoxError,
};
use garage_model::limits::SINGLE_PUT_MAX_BYTES;

use crate::error::too_large;

/// A form on the wire, from wherever it was read to.
pub type FormBytes = BoxStream<'static, Result<Bytes, BoxError>>;

/// The file's content. It ends cleanly only behind the boundary that ends the file; every other end is an error.
pub struct FormFile {
    source: FormBytes,
    decoder: FormDecoder,
    /// Decoded, not yet handed on; at most what one piece from the wire held.
    ready: VecDeque<FormEvent>,
    sizes: RangeInclusive<u64>,
    seen_bytes: u64,
    ended: bool,
}

impl FormFile {
    /// The rest of a form whose file has begun; `ready` was decoded behind that.
    pub fn new(source: FormBytes, decoder: FormDecoder, ready: VecDeque<FormEvent>) -> FormFile {
        FormFile { source, decoder, ready, sizes: 0..=SINGLE_PUT_MAX_BYTES, seen_bytes: 0, ended: false }
    }

    /// Bytes that the content must have, on top of the limit of every upload. Outside: 400 `EntityTooSmall`, 400 `EntityTooLarge`.
    #[must_use]
    pub fn within(mut self, sizes: RangeInclusive<u64>) -> FormFile {
        self.sizes = *sizes.start()..=SINGLE_PUT_MAX_BYTES.min(*sizes.end());
        self
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        while !self.ended {
            match self.ready.pop_front() {
                Some(FormEvent::Data(data)) => {
                    self.seen_bytes += data.len() as u64;
                    if *self.sizes.end() < self.seen_bytes {
                        return Poll::Ready(Some(Err(too_large(self.seen_bytes, *self.sizes.end()).closing().into())));
                    }
                    return Poll::Ready(Some(Ok(data)));
                }
                Some(_) => {
                    self.ended = true;
                    if self.seen_bytes < *self.sizes.start() {
                        return Poll::Ready(Some(Err(self.too_small().into())));
                    }
                }
                None => match ready!(self.source.poll_next_unpin(cx)) {
                    Some(Ok(bytes)) => self.decode(&bytes)?,
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    None => {
                        self.decoder.finish()?;
                        self.ended = true;
                    }
                },
            }
        }
        Poll::Ready(None)
    }

    fn decode(&mut self, bytes: &[u8]) -> Result<(), S3Error> {
        let mut events = Vec::new();
        self.decoder.feed(bytes, &mut events)?;
        self.ready.extend(events);
        Ok(())
    }

    fn too_small(&self) -> S3Error {
        S3Error::of(ErrorCode::EntityTooSmall).with("ProposedSize", self.seen_bytes).with("MinSizeAllowed", self.sizes.start())
    }
}

impl Stream for FormFile {
    type Item = Result<Bytes, BoxError>;
    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let polled = this.poll_piece(cx);
        if matches!(polled, Poll::Ready(Some(Err(_)))) {
            this.ended = true;
        }
        polled
    }
}
