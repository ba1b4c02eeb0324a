//! The administration interface: typed requests and answers, shared by the HTTP front, the command line and the console.
//!
//! Reading order: `endpoint` (what an endpoint is, and the table of all), `types` (what goes in and comes out), `error` (how it fails),
//! `call` (the message between nodes that carries a request), `request` (from an HTTP query and body to the payload), `backend` (what
//! endpoints do, over a node's services), `http` (the HTTP front: tokens, health, metrics), `limits`.
//!
//! One payload form serves every way in: JSON in which query parameters are fields and, where an endpoint has both, the body is the
//! field `body`. So the command line can do nothing that the HTTP interface cannot, and the other way round.

pub mod backend;
pub mod call;
pub mod endpoint;
pub mod error;
pub mod http;
pub mod limits;
pub mod request;
pub mod time;
pub mod types;

pub use backend::{AdminApi, AdminOptions};
pub use call::{AdminAnswer, AdminCall};
pub use endpoint::{ENDPOINTS, Endpoint, EndpointInfo, Method, Parameter, ParameterKind, Payload, decode_request, find_endpoint};
pub use error::{AdminError, ErrorCode};
pub use http::{AdminHttp, AdminHttpOptions};
pub use time::Timestamp;

/// The OpenAPI document of the interface, as `garage admin-api-schema` prints it.
pub const OPENAPI: &str = include_str!("openapi.json");
