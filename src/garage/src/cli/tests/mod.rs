//! What can be typed, and what is printed against a fake node.

mod fake;
mod over_rpc;
mod parsing;
mod printing;
