//! Large messages on long paths travel compressed: there the time that their bytes take is worth more than the work. Pure.
//!
//! A page of a list or a batch of a thousand rows has hundreds of kilobytes, of which most repeats. A sender paces what exceeds a first
//! burst over a round trip's worth of its window, so such a message takes a fifth of a round trip more than a small one.
//!
//! Invariants:
//! - nothing unpacks to another length than its header says, and no header may say more than a payload may have;
//! - what does not become clearly smaller travels as it is.

use bytes::Bytes;

use crate::{frame::FrameError, limits::PAYLOAD_MAX_BYTES};

/// zstd's quickest ordinary level.
const LEVEL: i32 = 1;
/// Packed, a payload must be smaller by one part in this many; else packing was in vain.
const GAIN_LEAST: usize = 8;

/// The payload packed; `None`: it stays as it is.
pub fn pack(payload: &[u8]) -> Option<Bytes> {
    let size_max = payload.len() - payload.len() / GAIN_LEAST;
    // Room for less than the input: zstd gives up as soon as the result does not fit, which for noise is early.
    let mut packed = vec![0; size_max];
    let len_bytes = zstd::bulk::compress_to_buffer(payload, &mut packed, LEVEL).ok()?;
    packed.truncate(len_bytes);
    Some(packed.into())
}

/// What was packed from `len_bytes` bytes.
pub fn unpack(packed: &[u8], len_bytes: usize) -> Result<Bytes, FrameError> {
    if PAYLOAD_MAX_BYTES < len_bytes {
        return Err(FrameError::TooLarge { what: "unpacked payload", len_bytes, max_bytes: PAYLOAD_MAX_BYTES });
    }
    let mut payload = vec![0; len_bytes];
    match zstd::bulk::decompress_to_buffer(packed, &mut payload) {
        Ok(found_bytes) if found_bytes == len_bytes => Ok(payload.into()),
        Ok(found_bytes) => Err(FrameError::Malformed(format!("a payload unpacks to {found_bytes} bytes instead of {len_bytes}"))),
        Err(error) => Err(FrameError::Malformed(format!("a payload does not unpack to {len_bytes} bytes: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::{
        collection::vec,
        prelude::{any, prop_assert, prop_assert_eq, proptest},
    };

    use super::{pack, unpack};
    use crate::{frame::FrameError, limits::PAYLOAD_MAX_BYTES};

    proptest! {
        #[test]
        fn what_was_packed_unpacks_to_the_same(pattern in vec(any::<u8>(), 1..40), count in 1..2000usize) {
            let payload = pattern.repeat(count);
            if let Some(packed) = pack(&payload) {
                prop_assert!(packed.len() < payload.len());
                prop_assert_eq!(&unpack(&packed, payload.len()).unwrap()[..], &payload[..]);
                prop_assert!(unpack(&packed, payload.len() - 1).is_err() && unpack(&packed, payload.len() + 1).is_err());
                prop_assert!(unpack(&packed[..packed.len() - 1], payload.len()).is_err());
            }
        }
        #[test]
        fn noise_stays_as_it_is(noise in vec(any::<u8>(), 1000..5000)) {
            prop_assert_eq!(pack(&noise), None);
        }
        #[test]
        fn garbage_is_refused_and_never_panics(garbage in vec(any::<u8>(), 0..200), len_bytes in 0..100_000usize) {
            if let Ok(payload) = unpack(&garbage, len_bytes) {
                prop_assert_eq!(payload.len(), len_bytes);
            }
        }
    }

    #[test]
    fn a_claim_beyond_the_limit_takes_no_memory() {
        let packed = pack(&[7; 100_000]).unwrap();
        assert!(matches!(unpack(&packed, PAYLOAD_MAX_BYTES + 1), Err(FrameError::TooLarge { .. })));
        assert!(matches!(unpack(&packed, usize::MAX), Err(FrameError::TooLarge { .. })));
    }
}
