//! A connection's bytes: gives back what was read to tell the protocol, gives up on a client that takes nothing, and closes without
//! cutting off an answer under way.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use super::{TlsVersion, stream::Accepted};
use crate::limits::WRITE_STALL_TIMEOUT;

/// How long a closing connection goes on reading what the client had already sent.
const LINGER_TIMEOUT: Duration = Duration::from_millis(500);
/// Bytes it reads then.
const LINGER_MAX_BYTES: usize = 4 * 1024 * 1024;
/// What HTTP/2 clients send first.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The protocol a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// The stream under an HTTP connection.
pub(super) struct ConnectionIo {
    stream: Accepted,
    prefix: Bytes,
    stalled: Option<Pin<Box<Sleep>>>,
    linger: Option<Linger>,
}
struct Linger {
    deadline: Pin<Box<Sleep>>,
    read_bytes: usize,
}

impl ConnectionIo {
    /// The TLS that its bytes come through.
    pub(super) fn tls_version(&self) -> Option<TlsVersion> {
        self.stream.tls_version()
    }

    /// Reads just enough to tell the protocol. Waits for the client's first bytes: put a time-out around it.
    pub(super) async fn sniff(mut stream: Accepted) -> io::Result<(ConnectionIo, Protocol)> {
        let mut buffer = [0; HTTP2_PREFACE.len()];
        let mut len = 0;
        while len < buffer.len() && HTTP2_PREFACE.starts_with(&buffer[..len]) {
            let count = stream.read(&mut buffer[len..]).await?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            len += count;
        }
        let protocol = if buffer == HTTP2_PREFACE { Protocol::Http2 } else { Protocol::Http1 };
        let prefix = Bytes::copy_from_slice(&buffer[..len]);
        Ok((ConnectionIo { stream, prefix, stalled: None, linger: None }, protocol))
    }

    fn stream(&mut self) -> Pin<&mut Accepted> {
        Pin::new(&mut self.stream)
    }

    /// Turns a write that waits for too long into an error.
    fn watch<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(WRITE_STALL_TIMEOUT)));
        stalled.as_mut().poll(cx).map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes no bytes")))
    }
}

impl AsyncRead for ConnectionIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return self.stream().poll_read(cx, buffer);
        }
        let count = self.prefix.len().min(buffer.remaining());
        buffer.put_slice(&self.prefix[..count]);
        self.prefix.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ConnectionIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.stream().poll_write(cx, bytes);
        self.watch(cx, written)
    }
    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = self.stream().poll_write_vectored(cx, bytes);
        self.watch(cx, written)
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.stream().poll_flush(cx);
        self.watch(cx, flushed)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            std::task::ready!(self.stream().poll_shutdown(cx))?;
            let deadline = Box::pin(tokio::time::sleep_until(Instant::now() + LINGER_TIMEOUT));
            self.linger = Some(Linger { deadline, read_bytes: 0 });
        }
        // Closing with unread bytes would reset the connection, and the reset can overtake the answer.
        let mut waste = [0; 8192];
        loop {
            let mut buffer = ReadBuf::new(&mut waste);
            let read = self.stream().poll_read(cx, &mut buffer);
            let count = buffer.filled().len();
            let Some(linger) = &mut self.linger else { return Poll::Ready(Ok(())) };
            linger.read_bytes += count;
            match read {
                Poll::Ready(Ok(())) if count > 0 && linger.read_bytes < LINGER_MAX_BYTES => {}
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return linger.deadline.as_mut().poll(cx).map(Ok),
            }
        }
    }
}
