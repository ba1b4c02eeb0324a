//! The aws-chunked encoding as a state machine: bytes in, events out, at whatever places the input is cut.
//!
//! Invariants:
//! - the data of all `Data` events is at most the decoded length, and exactly that when `finish` succeeds;
//! - header lines and trailers never occupy more than their limits;
//! - nothing but line ends may follow the last trailer.
//!
//! Source: s3 reference §2.2. Not here: signatures and hashes (`digest.rs`).

use bytes::{Buf, Bytes};

use crate::{
    checksum::{ChecksumAlgorithm, ChecksumValue},
    error::{ErrorCode, S3Error},
    limits::{CHUNK_LINE_MAX_BYTES, TRAILERS_MAX_BYTES},
};

/// What of an aws-chunked body is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkSignatures {
    /// Nothing.
    None,
    /// The chunks; there are no trailers.
    Chunks,
    /// The chunks and the trailers.
    ChunksAndTrailers,
}

/// What the decoder found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChunkEvent {
    /// A signed chunk begins. Only where chunks are signed.
    ChunkStart {
        /// Its signature as sent.
        signature: String,
    },
    /// Content.
    Data(Bytes),
    /// The chunk is complete. Only where chunks are signed.
    ChunkEnd,
    /// The body is complete.
    Trailers {
        /// `name:value\n` for each trailer, sorted: what the trailer signature covers.
        canonical: Vec<u8>,
        /// The checksum the trailers carry.
        checksum: Option<ChecksumValue>,
        /// The trailer signature as sent.
        signature: Option<String>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    ChunkHeader,
    Data { left_bytes: u64 },
    AfterData,
    Trailers,
    Done,
}

/// Decodes one aws-chunked body.
#[derive(Debug)]
pub struct ChunkDecoder {
    signatures: ChunkSignatures,
    declared: Option<ChecksumAlgorithm>,
    left_bytes: u64,
    state: State,
    line: Vec<u8>,
    trailers_bytes: usize,
    trailers: Vec<(String, String)>,
}

impl ChunkDecoder {
    /// A decoder of a body of `length_bytes` of content, with the trailer that the request declared.
    pub fn new(signatures: ChunkSignatures, length_bytes: u64, declared: Option<ChecksumAlgorithm>) -> ChunkDecoder {
        let (line, trailers) = (Vec::new(), Vec::new());
        ChunkDecoder { signatures, declared, left_bytes: length_bytes, state: State::ChunkHeader, line, trailers_bytes: 0, trailers }
    }

    /// Takes bytes from the wire and appends what they mean to `events`.
    ///
    /// Errors: 400 `IncompleteBody` (not this encoding, or another length than promised), 403 `SignatureDoesNotMatch` (a chunk without its
    /// signature), 400 `MalformedTrailerError`. After an error the decoder is of no more use.
    pub fn feed(&mut self, mut input: Bytes, events: &mut Vec<ChunkEvent>) -> Result<(), S3Error> {
        while !input.is_empty() {
            match self.state {
                State::Data { left_bytes } => {
                    let take = usize::try_from(left_bytes).unwrap_or(usize::MAX).min(input.len());
                    events.push(ChunkEvent::Data(input.split_to(take)));
                    self.on_data(left_bytes - take as u64, events);
                }
                State::Done => {
                    if !input.iter().all(|byte| matches!(byte, b'\r' | b'\n')) {
                        return Err(broken("bytes follow the last chunk"));
                    }
                    return Ok(());
                }
                State::ChunkHeader | State::AfterData | State::Trailers => {
                    if self.gather_line(&mut input)? {
                        let line = std::mem::take(&mut self.line);
                        self.on_line(&line, events)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The wire has no more bytes. Appends the final `Trailers` event.
    ///
    /// Errors: 400 `IncompleteBody`, 400 `MalformedTrailerError`, 400 `InvalidRequest` (a checksum that does not parse).
    pub fn finish(&mut self, events: &mut Vec<ChunkEvent>) -> Result<(), S3Error> {
        // Some clients leave out the last line end; a rest of a trailer line still counts.
        if self.state == State::Trailers && !self.line.is_empty() {
            let line = std::mem::take(&mut self.line);
            self.on_trailer(strip_cr(&line))?;
        }
        if !matches!(self.state, State::Trailers | State::Done) || self.left_bytes != 0 {
            return Err(S3Error::of(ErrorCode::IncompleteBody).closing());
        }
        events.push(self.collect_trailers()?);
        Ok(())
    }

    /// Moves input up to a line end into `line`. True when the line (without `\n`) is complete.
    fn gather_line(&mut self, input: &mut Bytes) -> Result<bool, S3Error> {
        let end = input.iter().position(|byte| *byte == b'\n');
        let take = end.unwrap_or(input.len());
        let limit = match self.state {
            State::AfterData => 1,
            State::Trailers => TRAILERS_MAX_BYTES.saturating_sub(self.trailers_bytes),
            _ => CHUNK_LINE_MAX_BYTES,
        };
        if self.line.len() + take > limit {
            let what = format!("a line of an aws-chunked body has more than {limit} bytes");
            return Err(if self.state == State::Trailers { malformed_trailer().caused_by(what) } else { broken(&what) });
        }
        self.line.extend_from_slice(&input[..take]);
        input.advance(take + usize::from(end.is_some()));
        Ok(end.is_some())
    }

    fn on_line(&mut self, line: &[u8], events: &mut Vec<ChunkEvent>) -> Result<(), S3Error> {
        let text = strip_cr(line);
        match self.state {
            State::ChunkHeader => self.on_chunk_header(text, events),
            State::AfterData if text.is_empty() => {
                self.state = State::ChunkHeader;
                Ok(())
            }
            State::Trailers if text.is_empty() => {
                self.state = State::Done;
                Ok(())
            }
            State::Trailers => self.on_trailer(text),
            State::AfterData | State::Data { .. } | State::Done => Err(broken("a chunk's data is longer than its header says")),
        }
    }

    fn on_chunk_header(&mut self, line: &[u8], events: &mut Vec<ChunkEvent>) -> Result<(), S3Error> {
        let line = std::str::from_utf8(line).map_err(|_| broken("a chunk header is not text"))?;
        let mut parts = line.split(';').map(str::trim);
        let size = parts.next().and_then(hex_size).ok_or_else(|| broken("a chunk header does not start with a size"))?;
        if size > self.left_bytes {
            return Err(broken("the chunks hold more than x-amz-decoded-content-length"));
        }
        if self.signatures != ChunkSignatures::None {
            let signature = parts.find_map(|part| part.strip_prefix("chunk-signature="));
            let signature = signature.ok_or_else(|| S3Error::of(ErrorCode::SignatureDoesNotMatch).closing())?;
            events.push(ChunkEvent::ChunkStart { signature: signature.trim().to_owned() });
        }
        if size > 0 {
            self.left_bytes -= size;
            self.state = State::Data { left_bytes: size };
            return Ok(());
        }
        if self.left_bytes != 0 {
            return Err(S3Error::of(ErrorCode::IncompleteBody).closing());
        }
        self.end_chunk(events);
        self.state = State::Trailers;
        Ok(())
    }

    fn on_data(&mut self, left_bytes: u64, events: &mut Vec<ChunkEvent>) {
        self.state = if left_bytes > 0 { State::Data { left_bytes } } else { State::AfterData };
        if left_bytes == 0 {
            self.end_chunk(events);
        }
    }

    fn end_chunk(&self, events: &mut Vec<ChunkEvent>) {
        if self.signatures != ChunkSignatures::None {
            events.push(ChunkEvent::ChunkEnd);
        }
    }

    fn on_trailer(&mut self, line: &[u8]) -> Result<(), S3Error> {
        if self.signatures == ChunkSignatures::Chunks {
            return Err(malformed_trailer());
        }
        self.trailers_bytes += line.len();
        let text = std::str::from_utf8(line).map_err(|_| malformed_trailer())?;
        let (name, value) = text.split_once(':').ok_or_else(malformed_trailer)?;
        self.trailers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        Ok(())
    }

    fn collect_trailers(&mut self) -> Result<ChunkEvent, S3Error> {
        let mut signature = None;
        let mut found = Vec::new();
        for (name, value) in std::mem::take(&mut self.trailers) {
            if name == "x-amz-trailer-signature" && self.signatures == ChunkSignatures::ChunksAndTrailers {
                if signature.replace(value).is_some() {
                    return Err(malformed_trailer());
                }
            } else {
                found.push((name, value));
            }
        }
        found.sort();
        let checksum = self.checksum_of(&found)?;
        let canonical = found.iter().map(|(name, value)| format!("{name}:{value}\n")).collect::<String>().into_bytes();
        Ok(ChunkEvent::Trailers { canonical, checksum, signature })
    }

    /// The trailers must be exactly what the request declared.
    fn checksum_of(&self, found: &[(String, String)]) -> Result<Option<ChecksumValue>, S3Error> {
        match (self.declared, found) {
            (None, []) => Ok(None),
            (Some(algorithm), [(name, value)]) if name == algorithm.header() => {
                let invalid = || S3Error::invalid_request(format!("Value for {} trailing header is invalid.", algorithm.header()));
                ChecksumValue::from_base64(algorithm, value).map(Some).ok_or_else(invalid)
            }
            _ => Err(malformed_trailer()),
        }
    }
}

fn strip_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn hex_size(text: &str) -> Option<u64> {
    let plausible = !text.is_empty() && text.len() <= 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if plausible { u64::from_str_radix(text, 16).ok() } else { None }
}

fn broken(cause: &str) -> S3Error {
    S3Error::new(ErrorCode::IncompleteBody, "The request body is not a complete aws-chunked body of x-amz-decoded-content-length bytes")
        .caused_by(cause)
        .closing()
}
fn malformed_trailer() -> S3Error {
    S3Error::of(ErrorCode::MalformedTrailerError).closing()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::{ChecksumAlgorithm, ChunkDecoder, ChunkEvent, ChunkSignatures, ErrorCode, S3Error};

    /// Content and trailers of a body that arrives cut at `cuts`.
    fn decode(
        signatures: ChunkSignatures,
        length: u64,
        declared: Option<ChecksumAlgorithm>,
        wire: &[u8],
        cuts: &[usize],
    ) -> Result<(Vec<u8>, Vec<ChunkEvent>), S3Error> {
        let mut decoder = ChunkDecoder::new(signatures, length, declared);
        let mut events = Vec::new();
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut % (wire.len() + 1)).collect();
        places.extend([0, wire.len()]);
        places.sort_unstable();
        for pair in places.windows(2) {
            decoder.feed(Bytes::copy_from_slice(&wire[pair[0]..pair[1]]), &mut events)?;
        }
        decoder.finish(&mut events)?;
        let data = events.iter().filter_map(|event| if let ChunkEvent::Data(data) = event { Some(data.to_vec()) } else { None });
        let data = data.collect::<Vec<_>>().concat();
        events.retain(|event| !matches!(event, ChunkEvent::Data(_)));
        Ok((data, events))
    }
    fn unsigned(length: u64, declared: Option<ChecksumAlgorithm>, wire: &str) -> Result<Vec<u8>, ErrorCode> {
        decode(ChunkSignatures::None, length, declared, wire.as_bytes(), &[]).map(|(data, _)| data).map_err(|error| error.code)
    }
    const CRC32: Option<ChecksumAlgorithm> = Some(ChecksumAlgorithm::Crc32);

    #[test]
    fn chunks_trailers_and_their_lenient_endings() {
        for ending in ["\r\n\r\n", "\r\n", "", "\n\r\n", "\r\n\r\n\r\n"] {
            let wire = format!("5;ext=1\r\nhello\r\nA\r\n, world!!!\r\n0\r\nx-amz-checksum-crc32:AAAAAA=={ending}");
            assert_eq!(unsigned(15, CRC32, &wire), Ok(b"hello, world!!!".to_vec()), "{ending:?}");
        }
        assert_eq!(unsigned(0, None, "0\r\n\r\n"), Ok(Vec::new()));
        assert_eq!(unsigned(0, None, "0\r\n"), Ok(Vec::new()));
    }

    #[test]
    fn truncated_and_over_long_bodies_are_incomplete() {
        for (length, wire) in [
            (5, ""),
            (5, "5\r\nhel"),
            (5, "5\r\nhello"),
            (5, "5\r\nhello\r\n"),
            (6, "5\r\nhello\r\n0\r\n\r\n"),
            (4, "5\r\nhello\r\n0\r\n\r\n"),
            (5, "5\r\nhello!\r\n0\r\n\r\n"),
            (5, "5\r\nhello\r\n0\r\n\r\nGET /"),
            (5, "hello"),
            (5, "-5\r\nhello"),
            (5, "fffffffffffffffff\r\n"),
            (0, "\r\n"),
        ] {
            assert_eq!(unsigned(length, None, wire), Err(ErrorCode::IncompleteBody), "{wire:?}");
        }
    }

    #[test]
    fn trailers_must_be_what_was_declared() {
        let check = |declared, trailers: &str, expected| {
            assert_eq!(unsigned(0, declared, &format!("0\r\n{trailers}\r\n")), Err(expected), "{trailers}")
        };
        check(CRC32, "", ErrorCode::MalformedTrailerError);
        check(CRC32, "x-amz-checksum-crc32c:AAAAAA==\r\n", ErrorCode::MalformedTrailerError);
        check(None, "x-amz-checksum-crc32:AAAAAA==\r\n", ErrorCode::MalformedTrailerError);
        check(CRC32, "x-amz-checksum-crc32\r\n", ErrorCode::MalformedTrailerError);
        check(CRC32, "x-amz-checksum-crc32:AAAAAA==\r\nx-amz-meta-a:1\r\n", ErrorCode::MalformedTrailerError);
        check(CRC32, "x-amz-checksum-crc32:AAAA\r\n", ErrorCode::InvalidRequest);
        check(CRC32, &"x".repeat(20_000), ErrorCode::MalformedTrailerError);
        check(CRC32, &"a:b\r\n".repeat(20_000), ErrorCode::MalformedTrailerError);
    }

    #[test]
    fn a_signed_chunk_needs_its_signature_and_a_header_line_its_limit() {
        let code = |wire: &[u8]| decode(ChunkSignatures::Chunks, 5, None, wire, &[]).unwrap_err().code;
        assert_eq!(code(b"5\r\nhello\r\n0\r\n\r\n"), ErrorCode::SignatureDoesNotMatch);
        assert_eq!(code(&[b'0'; 100_000]), ErrorCode::IncompleteBody);
        assert_eq!(code(b"5;chunk-signature=a\r\nhello\r\n0;chunk-signature=b\r\nx:y\r\n\r\n"), ErrorCode::MalformedTrailerError);
    }

    #[test]
    fn a_thousand_line_ends_after_the_end_do_not_grow_anything() {
        let mut decoder = ChunkDecoder::new(ChunkSignatures::None, 0, None);
        let mut events = Vec::new();
        decoder.feed(Bytes::from_static(b"0\r\n\r\n"), &mut events).unwrap();
        decoder.feed(Bytes::from("\r\n".repeat(1000)), &mut events).unwrap();
        assert!(events.is_empty() && decoder.line.is_empty());
    }

    proptest! {
        #[test]
        fn where_the_input_is_cut_does_not_matter(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..6),
            cuts in proptest::collection::vec(any::<usize>(), 0..12),
        ) {
            let content = chunks.concat();
            let mut wire = Vec::new();
            for (index, chunk) in chunks.iter().enumerate() {
                wire.extend(format!("{:X};chunk-signature=s{index}\r\n", chunk.len()).into_bytes());
                wire.extend(chunk);
                wire.extend(b"\r\n");
            }
            wire.extend(b"0;chunk-signature=last\r\nx-amz-checksum-crc32:AAAAAA==\r\nx-amz-trailer-signature:t\r\n\r\n");
            let whole = decode(ChunkSignatures::ChunksAndTrailers, content.len() as u64, CRC32, &wire, &[]).unwrap();
            let cut = decode(ChunkSignatures::ChunksAndTrailers, content.len() as u64, CRC32, &wire, &cuts).unwrap();
            prop_assert_eq!(&whole, &cut);
            prop_assert_eq!(cut.0, content);
        }
        #[test]
        fn nonsense_never_panics_and_never_yields_more_than_promised(
            wire in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b'1'), Just(b'0'), Just(b';'), Just(b':')], 0..200),
            cuts in proptest::collection::vec(any::<usize>(), 0..6),
            length in 0u64..40,
        ) {
            if let Ok((data, _)) = decode(ChunkSignatures::None, length, CRC32, &wire, &cuts) {
                prop_assert_eq!(data.len() as u64, length);
            }
        }
    }
}
