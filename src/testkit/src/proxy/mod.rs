//! A network that is slower and worse than loopback, in userspace, for kernels without a queueing discipline that delays.
//!
//! Reading order: `gate` (what gets through: loss and cuts, pure), `line` (packets on their way, each for exactly the same time), `udp` (flows
//! like those of an address translator), `tcp` (the same delay for streams).
//!
//! Invariants:
//! - what gets through leaves in the order in which it came, exactly one delay later;
//! - flows, queued packets and queued bytes are bounded; what does not fit is dropped, as a router would.

mod gate;
mod line;
mod tcp;
mod udp;

pub use gate::{Gate, Loss};
pub use tcp::TcpProxy;
pub use udp::{Limits, UdpProxy, Way};
