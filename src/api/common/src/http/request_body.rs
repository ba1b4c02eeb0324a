//! A request's body as a stream, and what becomes of it when the service answers without having read it all.
//!
//! Closing a connection under a client that still sends makes many clients miss the answer. So the rest of an abandoned body is read and
//! thrown away, within bounds; past them the connection closes. A client that waits for `100 Continue` is never asked for the body
//! only to throw it away: its connection closes after the answer.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::Stream;
use garage_util::runtime::Runtime;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};

use crate::limits::{REFUSED_BODY_DRAIN_MAX_BYTES, REFUSED_BODY_DRAIN_TIMEOUT};

/// A request's body: a stream of bytes with HTTP framing removed. The first poll sends `100 Continue` to a client that waits for it.
pub struct RequestBody {
    incoming: Option<Incoming>,
    /// A body that came otherwise than over a connection.
    whole: Option<Bytes>,
    runtime: Runtime,
    client_waits: bool,
}

impl RequestBody {
    pub(super) fn new(incoming: Incoming, runtime: Runtime, client_waits: bool) -> RequestBody {
        RequestBody { incoming: Some(incoming), whole: None, runtime, client_waits }
    }
    /// The body of a request that has none, for services that are called without a connection.
    pub fn none(runtime: Runtime) -> RequestBody {
        RequestBody { incoming: None, whole: None, runtime, client_waits: false }
    }
    /// A body known as a whole, for services that are called without a connection.
    pub fn whole(bytes: Bytes, runtime: Runtime) -> RequestBody {
        RequestBody { incoming: None, whole: Some(bytes).filter(|bytes| !bytes.is_empty()), runtime, client_waits: false }
    }
    /// Whether the request has no body at all.
    pub fn is_empty(&self) -> bool {
        self.whole.is_none() && self.incoming.as_ref().is_none_or(|incoming| incoming.is_end_stream())
    }
    /// Bytes of the body on the wire, if the client said.
    pub fn exact_length_bytes(&self) -> Option<u64> {
        match &self.whole {
            Some(bytes) => Some(bytes.len() as u64),
            None => self.incoming.as_ref().and_then(|incoming| incoming.size_hint().exact()),
        }
    }
}

impl Stream for RequestBody {
    type Item = Result<Bytes, hyper::Error>;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.client_waits = false;
        if let Some(bytes) = self.whole.take() {
            return Poll::Ready(Some(Ok(bytes)));
        }
        loop {
            let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
            match Pin::new(incoming).poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => return Poll::Ready(Some(Ok(data))),
                    // HTTP trailers mean nothing in S3.
                    Err(_) => continue,
                },
                Poll::Ready(Some(Err(error))) => {
                    self.incoming = None;
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(None) => {
                    self.incoming = None;
                    return Poll::Ready(None);
                }
            }
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let Some(incoming) = self.incoming.take() else { return };
        let hopeless = incoming.size_hint().lower() > REFUSED_BODY_DRAIN_MAX_BYTES;
        if self.client_waits || hopeless || incoming.is_end_stream() {
            return;
        }
        self.runtime.spawn("drain an abandoned request body", async move {
            // Past the time-out the body is dropped and the connection closes; nothing of it was wanted.
            let _ = tokio::time::timeout(REFUSED_BODY_DRAIN_TIMEOUT, drain(incoming)).await;
        });
    }
}

async fn drain(mut incoming: Incoming) {
    let mut drained_bytes = 0u64;
    while let Some(Ok(frame)) = incoming.frame().await {
        drained_bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        if drained_bytes > REFUSED_BODY_DRAIN_MAX_BYTES {
            return;
        }
    }
}

impl std::fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestBody").field("client_waits", &self.client_waits).finish_non_exhaustive()
    }
}
