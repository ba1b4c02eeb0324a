//! When a message is packed, and the work of it, off the async workers.

use bytes::Bytes;
use garage_util::runtime::Lane;

use super::{Shared, link::Link};
use crate::{frame::FrameError, limits::PACK_MIN_BYTES, packing};

/// The payload as it travels over `link`, and the length it was packed from if it was.
pub async fn pack(shared: &Shared, link: &Link, payload: Bytes) -> (Bytes, Option<u32>) {
    if payload.len() < PACK_MIN_BYTES || link.connection.rtt() < shared.pack_rtt_min {
        return (payload, None);
    }
    let plain = payload.clone();
    // A node that stops sends what it has as it is.
    let packed = shared.runtime.blocking(Lane::Compute, move || packing::pack(&plain)).await.ok().flatten();
    match packed {
        Some(packed) => (packed, Some(payload.len() as u32)),
        None => (payload, None),
    }
}

/// The payload as it was, from what arrived.
pub async fn unpack(shared: &Shared, payload: Bytes, packed_from_bytes: Option<u32>) -> Result<Bytes, FrameError> {
    let Some(len_bytes) = packed_from_bytes else { return Ok(payload) };
    let unpacked = shared.runtime.blocking(Lane::Compute, move || packing::unpack(&payload, len_bytes as usize)).await;
    unpacked.unwrap_or_else(|interrupted| Err(FrameError::Malformed(interrupted.to_string())))
}
