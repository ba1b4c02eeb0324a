//! What stands on a stream, byte by byte. Pure: pieces come in as they arrive, frames and body parts go out.
//!
//! A stream starts with one head in each direction: `u32` header length, `u32` payload length (big-endian), header (rmp-serde, named
//! fields, so that fields can be added), payload. If the header says so, a body follows: chunks of a `u32` length and that many bytes;
//! length 0 is the end mark; length `u32::MAX` says that the sender cannot go on, and a length and a sentence follow.
//!
//! Invariants:
//! - a claim of a length reserves no memory beyond a fixed amount before the bytes arrive;
//! - a body without its end mark is never taken for a whole one.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    limits::{CHUNK_MAX_BYTES, FAILURE_TEXT_MAX_BYTES, HEADER_MAX_BYTES, PAYLOAD_MAX_BYTES},
    types::{Class, LayoutMark},
};

const PREFIX_BYTES: usize = 8;
const LENGTH_BYTES: usize = 4;
const END_MARK: u32 = 0; // as `end_mark` writes it
const FAILURE_MARK: u32 = u32::MAX;
/// Reserved at most for a head before its bytes arrive.
const RESERVED_MAX_BYTES: usize = 64 * 1024;

/// Why bytes are not a frame.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// A length is over its limit.
    #[error("a {what} of {len_bytes} bytes, at most {max_bytes} are taken")]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// The length it claims or has.
        len_bytes: usize,
        /// Its limit.
        max_bytes: usize,
    },
    /// The header is not what it should be.
    #[error("the header cannot be read: {0}")]
    Malformed(String),
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame")]
    Truncated,
}

/// Header of a request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RequestHeader {
    /// Which handler is meant.
    pub kind: String,
    /// Its urgency.
    pub class: Class,
    /// Milliseconds until the caller gives up.
    pub left_ms: u64,
    /// Ties together what one client request causes.
    pub trace: u64,
    /// The layout the caller acts on.
    pub layout: LayoutMark,
    /// Whether a body follows.
    pub body: bool,
    /// The payload is packed, from this many bytes; see [`packing`](crate::packing).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packed_from_bytes: Option<u32>,
}

/// Header of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AnswerHeader {
    /// The payload is a [`Refusal`](crate::types::Refusal).
    pub refused: bool,
    /// Whether a body follows.
    pub body: bool,
    /// The payload is packed, from this many bytes; see [`packing`](crate::packing).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packed_from_bytes: Option<u32>,
}

/// Header of the first stream, both ways: the proof of the cluster secret.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// A random number of the sender's run of its process.
    pub run: u64,
    /// Counts the dialler's dials; the listener repeats it.
    pub dial_number: u64,
    /// See [`proof`](crate::proof).
    #[serde(with = "serde_bytes")]
    pub proof: Vec<u8>,
}

/// Lengths and header, to be followed by a payload of `payload_len_bytes`.
pub fn encode_head(header: &impl Serialize, payload_len_bytes: usize) -> Result<Bytes, FrameError> {
    let header = rmp_serde::to_vec_named(header).map_err(|error| FrameError::Malformed(error.to_string()))?;
    limit("header", header.len(), HEADER_MAX_BYTES)?;
    limit("payload", payload_len_bytes, PAYLOAD_MAX_BYTES)?;
    let mut head = BytesMut::with_capacity(PREFIX_BYTES + header.len());
    head.put_u32(header.len() as u32);
    head.put_u32(payload_len_bytes as u32);
    head.put_slice(&header);
    Ok(head.freeze())
}

/// Reads a header; unknown fields are skipped, missing ones refused.
pub fn decode_header<T: DeserializeOwned>(header: &[u8]) -> Result<T, FrameError> {
    rmp_serde::from_slice(header).map_err(|error| FrameError::Malformed(error.to_string()))
}

fn limit(what: &'static str, len_bytes: usize, max_bytes: usize) -> Result<(), FrameError> {
    if max_bytes < len_bytes { Err(FrameError::TooLarge { what, len_bytes, max_bytes }) } else { Ok(()) }
}

/// A whole head and what came after it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// To be read by [`decode_header`].
    pub header: Bytes,
    /// The message.
    pub payload: Bytes,
    /// The start of the body, if there is one.
    pub rest: Bytes,
}

/// Gathers a head from the pieces of a stream.
#[derive(Debug, Default)]
pub struct HeadDecoder {
    buffer: BytesMut,
    lengths: Option<(usize, usize)>,
}

impl HeadDecoder {
    /// Takes the next piece; refuses lengths over their limits as soon as they are seen.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), FrameError> {
        self.buffer.extend_from_slice(piece);
        if self.lengths.is_none() && PREFIX_BYTES <= self.buffer.len() {
            let header_bytes = self.buffer.get_u32() as usize;
            let payload_bytes = self.buffer.get_u32() as usize;
            limit("header", header_bytes, HEADER_MAX_BYTES)?;
            limit("payload", payload_bytes, PAYLOAD_MAX_BYTES)?;
            self.lengths = Some((header_bytes, payload_bytes));
            let missing_bytes = (header_bytes + payload_bytes).saturating_sub(self.buffer.len());
            self.buffer.reserve(missing_bytes.min(RESERVED_MAX_BYTES));
        }
        Ok(())
    }

    /// The payload's length, once it is known.
    pub fn payload_len_bytes(&self) -> Option<usize> {
        self.lengths.map(|(_, payload_bytes)| payload_bytes)
    }

    /// The head, once it is whole; afterwards the decoder starts afresh.
    pub fn take(&mut self) -> Option<Head> {
        let (header_bytes, payload_bytes) = self.lengths?;
        if self.buffer.len() < header_bytes + payload_bytes {
            return None;
        }
        let header = self.buffer.split_to(header_bytes).freeze();
        let payload = self.buffer.split_to(payload_bytes).freeze();
        let rest = std::mem::take(&mut self.buffer).freeze();
        self.lengths = None;
        Some(Head { header, payload, rest })
    }
}

/// What precedes a chunk of `len_bytes` (1 to [`CHUNK_MAX_BYTES`]).
pub fn chunk_prefix(len_bytes: usize) -> Bytes {
    assert!((1..=CHUNK_MAX_BYTES).contains(&len_bytes), "a chunk of {len_bytes} bytes");
    Bytes::copy_from_slice(&(len_bytes as u32).to_be_bytes())
}

/// What ends a whole body.
pub fn end_mark() -> Bytes {
    Bytes::from_static(&[0; LENGTH_BYTES])
}

/// What ends a body that cannot go on; `text` is cut to [`FAILURE_TEXT_MAX_BYTES`].
pub fn failure_mark(text: &str) -> Bytes {
    let cut = (0..=FAILURE_TEXT_MAX_BYTES.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    let mut mark = BytesMut::with_capacity(2 * LENGTH_BYTES + cut);
    mark.put_u32(FAILURE_MARK);
    mark.put_u32(cut as u32);
    mark.put_slice(&text.as_bytes()[..cut]);
    mark.freeze()
}

/// The next thing in a body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Part {
    /// Some of its bytes, never none.
    Data(Bytes),
    /// The body is whole.
    End,
    /// The sender cannot go on, for this reason.
    Failed(String),
    /// More must arrive first.
    NeedMore,
}

/// Takes a body apart.
#[derive(Debug)]
pub struct BodyDecoder {
    pending: BytesMut,
    chunk_left_bytes: usize,
}

impl BodyDecoder {
    /// Starts with what followed the head.
    pub fn new(rest: Bytes) -> BodyDecoder {
        BodyDecoder { pending: rest.into(), chunk_left_bytes: 0 }
    }

    /// Takes the next piece.
    pub fn feed(&mut self, piece: &[u8]) {
        self.pending.extend_from_slice(piece);
    }

    /// What comes next; ask until [`Part::NeedMore`]. After `End` or `Failed`, ask no more.
    pub fn next_part(&mut self) -> Result<Part, FrameError> {
        if self.chunk_left_bytes == 0 {
            let Some(length) = self.peek_u32(0) else { return Ok(Part::NeedMore) };
            match length {
                END_MARK => return Ok(Part::End),
                FAILURE_MARK => return self.failure(),
                _ => {}
            }
            limit("chunk", length as usize, CHUNK_MAX_BYTES)?;
            self.pending.advance(LENGTH_BYTES);
            self.chunk_left_bytes = length as usize;
        }
        if self.pending.is_empty() {
            return Ok(Part::NeedMore);
        }
        let data = self.pending.split_to(self.pending.len().min(self.chunk_left_bytes));
        self.chunk_left_bytes -= data.len();
        Ok(Part::Data(data.freeze()))
    }

    fn failure(&self) -> Result<Part, FrameError> {
        let Some(length) = self.peek_u32(LENGTH_BYTES) else { return Ok(Part::NeedMore) };
        limit("failure text", length as usize, FAILURE_TEXT_MAX_BYTES)?;
        let text = self.pending.get(2 * LENGTH_BYTES..2 * LENGTH_BYTES + length as usize);
        Ok(text.map_or(Part::NeedMore, |text| Part::Failed(String::from_utf8_lossy(text).into_owned())))
    }

    fn peek_u32(&self, offset_bytes: usize) -> Option<u32> {
        self.pending.get(offset_bytes..)?.first_chunk().copied().map(u32::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::{
        collection::vec,
        prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest},
    };

    use super::{
        AnswerHeader, BodyDecoder, FrameError, HeadDecoder, Hello, Part, RequestHeader, chunk_prefix, decode_header, encode_head, end_mark,
        failure_mark,
    };
    use crate::{
        limits::{CHUNK_MAX_BYTES, HEADER_MAX_BYTES, KIND_MAX_BYTES, PAYLOAD_MAX_BYTES},
        types::{Class, LayoutMark},
    };

    fn class() -> impl Strategy<Value = Class> {
        prop_oneof![Just(Class::Control), Just(Class::Metadata), Just(Class::Data), Just(Class::Background)]
    }

    /// `bytes` in pieces of the given sizes, repeated.
    fn pieces<'a>(bytes: &'a [u8], sizes: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
        let mut left = bytes;
        sizes.iter().cycle().map_while(move |&size| {
            let (piece, rest) = left.split_at(size.min(left.len()));
            left = rest;
            (!piece.is_empty()).then_some(piece)
        })
    }

    fn body_of(chunks: &[Vec<u8>], end: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for chunk in chunks {
            bytes.extend_from_slice(&chunk_prefix(chunk.len()));
            bytes.extend_from_slice(chunk);
        }
        [&bytes[..], end].concat()
    }

    /// Everything that a decoder makes of the pieces, and how it ended.
    fn decode_body(bytes: &[u8], sizes: &[usize]) -> (Vec<u8>, Result<Part, FrameError>) {
        let (mut decoder, mut data) = (BodyDecoder::new(Bytes::new()), Vec::new());
        let mut input = pieces(bytes, sizes);
        loop {
            match decoder.next_part() {
                Ok(Part::Data(part)) => data.extend_from_slice(&part),
                Ok(Part::NeedMore) => match input.next() {
                    Some(piece) => decoder.feed(piece),
                    None => return (data, Ok(Part::NeedMore)),
                },
                end => return (data, end),
            }
        }
    }

    proptest! {
        #[test]
        fn a_head_survives_any_fragmentation(
            kind in "[a-z_]{0,128}", class in class(), left_ms: u64, trace: u64, version: u64, digest: [u8; 32], body: bool,
            payload in vec(any::<u8>(), 0..3000), rest in vec(any::<u8>(), 0..50), sizes in vec(1..900usize, 1..6),
        ) {
            let header = RequestHeader { kind, class, left_ms, trace, layout: LayoutMark { version, digest }, body, packed_from_bytes: None };
            prop_assert!(header.kind.len() <= KIND_MAX_BYTES);
            let bytes = [&encode_head(&header, payload.len()).unwrap()[..], &payload, &rest].concat();
            let mut decoder = HeadDecoder::default();
            let (mut fed, mut head) = (0, None);
            for piece in pieces(&bytes, &sizes) {
                decoder.feed(piece).unwrap();
                fed += piece.len();
                head = decoder.take();
                if head.is_some() {
                    break;
                }
            }
            let head = head.unwrap();
            prop_assert_eq!(decode_header::<RequestHeader>(&head.header).unwrap(), header);
            prop_assert_eq!(&head.payload[..], &payload[..]);
            prop_assert_eq!([&head.rest[..], &bytes[fed..]].concat(), rest);
        }

        #[test]
        fn a_body_survives_any_fragmentation(chunks in vec(vec(any::<u8>(), 1..300), 0..8), sizes in vec(1..200usize, 1..6)) {
            let (data, end) = decode_body(&body_of(&chunks, &end_mark()), &sizes);
            prop_assert_eq!(data, chunks.concat());
            prop_assert_eq!(end, Ok(Part::End));
        }

        #[test]
        fn a_body_cut_anywhere_is_never_whole(chunks in vec(vec(any::<u8>(), 1..60), 1..5), cut: proptest::sample::Index, text in "\\PC{0,40}") {
            for whole in [body_of(&chunks, &end_mark()), body_of(&chunks, &failure_mark(&text))] {
                let (data, end) = decode_body(&whole[..cut.index(whole.len())], &[7]);
                prop_assert!(chunks.concat().starts_with(&data));
                prop_assert_eq!(end, Ok(Part::NeedMore));
            }
        }

        #[test]
        fn a_failure_carries_its_reason(chunks in vec(vec(any::<u8>(), 1..60), 0..5), text in "\\PC{0,1500}", sizes in vec(1..200usize, 1..6)) {
            let (data, end) = decode_body(&body_of(&chunks, &failure_mark(&text)), &sizes);
            prop_assert_eq!(data, chunks.concat());
            let Ok(Part::Failed(reason)) = end else { panic!("{end:?}") };
            prop_assert!(text.starts_with(&reason) && (reason.len() == text.len() || 1020 < reason.len()));
        }

        #[test]
        fn garbage_is_refused_or_waits_and_never_panics(bytes in vec(any::<u8>(), 0..400), sizes in vec(1..60usize, 1..4)) {
            let _ = decode_body(&bytes, &sizes);
            let _ = decode_header::<RequestHeader>(&bytes);
            let _ = decode_header::<AnswerHeader>(&bytes);
            let _ = decode_header::<Hello>(&bytes);
            let mut decoder = HeadDecoder::default();
            for piece in pieces(&bytes, &sizes) {
                if decoder.feed(piece).is_err() {
                    break;
                }
                let _ = decoder.take();
            }
        }
    }

    #[test]
    fn a_length_over_its_limit_is_refused_before_its_bytes_arrive() {
        for (header_bytes, payload_bytes) in [(HEADER_MAX_BYTES + 1, 0), (1, PAYLOAD_MAX_BYTES + 1), (u32::MAX as usize, u32::MAX as usize)]
        {
            let prefix = [(header_bytes as u32).to_be_bytes(), (payload_bytes as u32).to_be_bytes()].concat();
            assert!(matches!(HeadDecoder::default().feed(&prefix), Err(FrameError::TooLarge { .. })));
        }
        let (_, end) = decode_body(&(CHUNK_MAX_BYTES as u32 + 1).to_be_bytes(), &[4]);
        assert!(matches!(end, Err(FrameError::TooLarge { .. })));
        assert!(matches!(encode_head(&"kind", PAYLOAD_MAX_BYTES + 1), Err(FrameError::TooLarge { .. })));
        assert!(matches!(encode_head(&"k".repeat(HEADER_MAX_BYTES), 0), Err(FrameError::TooLarge { .. })));
    }

    #[test]
    fn a_claimed_length_reserves_little() {
        let mut decoder = HeadDecoder::default();
        decoder.feed(&[16u32.to_be_bytes(), (PAYLOAD_MAX_BYTES as u32).to_be_bytes()].concat()).unwrap();
        assert!(decoder.buffer.capacity() < 256 * 1024, "{}", decoder.buffer.capacity());
    }
}
