//! The server shell under every HTTP interface: listener, limits, connections, shutdown, request ids.
//!
//! Reading order: this file (what a service sees), `listener` (addresses), `server` (accepting and draining), `connection` (one connection's
//! life), `tls` (certificates), `stream` and `io` (what carries bytes, write time-outs, lingering close), `request_body` (bodies that
//! nobody read to their end), `redirect` (from HTTP to HTTPS).

mod connection;
mod io;
mod listener;
mod redirect;
mod request_body;
mod server;
mod stream;
#[cfg(test)]
mod tests;
pub mod tls;

use std::{net::SocketAddr, sync::Arc};

use ::http::{Request, Response};
use bytes::Bytes;
use futures::{Stream, StreamExt, future::BoxFuture};
use garage_util::runtime::Runtime;
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;

pub use listener::{BindError, ListenAddress, Listener};
pub use redirect::RedirectToHttps;
pub use request_body::RequestBody;
pub use server::{ServerOptions, serve};

use crate::payload::BoxError;

/// The body of an answer: bytes, or a stream of them. An error ends the connection in the middle of the body, so that the client notices.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// No bytes.
pub fn empty_body() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}
/// Bytes known at once.
pub fn full_body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}
/// Bytes as they come. Set `Content-Length` in the answer if it is known.
pub fn stream_body<S, E>(stream: S) -> Body
where
    S: Stream<Item = Result<Bytes, E>> + Send + 'static,
    E: Into<BoxError> + 'static,
{
    StreamBody::new(stream.map(|item| item.map(Frame::data).map_err(Into::into))).boxed_unsync()
}

/// The two ids by which a request can be found again in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestIds {
    /// `x-amz-request-id`: 16 characters, unique to the request.
    pub request_id: String,
    /// `x-amz-id-2`: names the node.
    pub host_id: String,
}
impl RequestIds {
    /// A new request id on the node `host_id`.
    pub fn generate(runtime: &Runtime, host_id: &str) -> RequestIds {
        RequestIds { request_id: format!("{:016X}", runtime.random_u64()), host_id: host_id.to_owned() }
    }
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// An IP address and port.
    Tcp(SocketAddr),
    /// Someone on this machine, through a Unix socket.
    Unix,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

impl TlsVersion {
    /// As policies name it (AWS S3 User Guide, condition key `s3:TlsVersion`).
    pub fn number(self) -> &'static str {
        match self {
            TlsVersion::Tls12 => "1.2",
            TlsVersion::Tls13 => "1.3",
        }
    }
}

/// What the shell knows of a request.
#[derive(Debug, Clone)]
pub struct RequestContext {
    /// The other end.
    pub peer: Peer,
    /// The TLS it came over, if it did.
    pub tls: Option<TlsVersion>,
    /// The request's ids; the shell puts them into the headers of every answer.
    pub ids: RequestIds,
}

/// An HTTP interface. Answers every request; errors are answers too.
pub trait HttpService: Send + Sync + 'static {
    /// Answers one request. The future is dropped when the client goes away.
    fn serve(self: Arc<Self>, request: Request<RequestBody>, context: RequestContext) -> BoxFuture<'static, Response<Body>>;
}
