//! Certificates for websites from an authority, without an operator: asked for when a visitor first comes with TLS, renewed in time.
//!
//! Reading order: `choice` (what a TLS handshake is answered with), `names` (which hosts may have a certificate), `manager` (who orders
//! when), `order` (one order from start to end), `authority` (its protocol), `jose` (signed requests), `transport` (HTTP to it), `challenge`
//! (the proofs that any node gives).
//!
//! Everything that more than one node must know is in the control tables (`garage_model::certificates`): the account, the order under way
//! with its proof, and the certificate. So any node answers the authority, and any node serves the certificate.
//!
//! Source: RFC 8555 (ACME), RFC 8737 (TLS-ALPN-01).

mod authority;
mod challenge;
mod choice;
mod jose;
pub mod limits;
mod manager;
mod names;
mod order;
mod transport;

pub use challenge::ChallengeFront;
pub use choice::WebsiteTls;
pub use manager::{Acme, AcmeOptions};
pub use transport::{Transport, TransportError};
