//! Real connections on loopback: calls, what befalls connections, and attacks on them.

mod attacks;
mod calls;
mod connections;
mod support;
