//! The `x-amz-checksum-*` family: algorithms, their base64 forms, running hashers, and the two ways to sum up a multipart object.
//!
//! Source: s3 reference §3.8; AWS S3 User Guide, "Checking object integrity". CRCs and XXH values are big-endian; XXH has seed 0.

use std::hash::Hasher as _;

use ::http::HeaderMap;
use base64::{Engine, engine::general_purpose::STANDARD};
use crc_fast::CrcAlgorithm;
pub use garage_model::rows::checksum::{ChecksumAlgorithm, ChecksumType};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use twox_hash::XxHash64;
use xxhash_rust::xxh3::Xxh3;

use crate::error::S3Error;

/// Characters of the longest base64 form, that of SHA-512.
const BASE64_MAX_CHARS: usize = 88;
/// Headers that start like checksums but are settings.
const SETTINGS: [&str; 3] = ["x-amz-checksum-mode", "x-amz-checksum-algorithm", "x-amz-checksum-type"];
const HEADER_PREFIX: &str = "x-amz-checksum-";

/// Reads the name of an algorithm, in any case. Errors: 400 `InvalidRequest`.
pub fn algorithm_named(name: &str) -> Result<ChecksumAlgorithm, S3Error> {
    let upper = name.trim().to_ascii_uppercase();
    let found = ChecksumAlgorithm::ALL.into_iter().find(|algorithm| algorithm.name() == upper);
    found.ok_or_else(|| {
        let known = ChecksumAlgorithm::ALL.map(ChecksumAlgorithm::name).join(", ");
        let message = format!("Checksum algorithm provided is unsupported. Please try again with any of the valid types: [{known}]");
        S3Error::invalid_request(message)
    })
}

/// Reads `COMPOSITE` or `FULL_OBJECT`. Errors: 400 `InvalidRequest`.
pub fn type_named(name: &str) -> Result<ChecksumType, S3Error> {
    let found = [ChecksumType::Composite, ChecksumType::FullObject].into_iter().find(|kind| kind.name() == name.trim());
    found.ok_or_else(|| S3Error::invalid_request("Value for x-amz-checksum-type header is invalid."))
}

/// 400 `InvalidRequest` for pairs S3 does not have: CRC64NVME with COMPOSITE, and FULL_OBJECT with what can't be combined from parts.
pub fn check_type(algorithm: ChecksumAlgorithm, kind: ChecksumType) -> Result<(), S3Error> {
    let legal = match algorithm {
        ChecksumAlgorithm::Crc32 | ChecksumAlgorithm::Crc32c => true,
        ChecksumAlgorithm::Crc64Nvme => kind == ChecksumType::FullObject,
        _ => kind == ChecksumType::Composite,
    };
    if legal {
        return Ok(());
    }
    let algorithm = algorithm.name().to_ascii_lowercase();
    Err(S3Error::invalid_request(format!("The {} checksum type cannot be used with the {algorithm} checksum algorithm.", kind.name())))
}

fn crc_of(algorithm: ChecksumAlgorithm) -> Option<CrcAlgorithm> {
    match algorithm {
        ChecksumAlgorithm::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
        ChecksumAlgorithm::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
        ChecksumAlgorithm::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
        _ => None,
    }
}

/// A raw checksum with its algorithm. The bytes always have the algorithm's length.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChecksumValue {
    algorithm: ChecksumAlgorithm,
    bytes: Vec<u8>,
}

impl ChecksumValue {
    /// A value from raw bytes; `None` when their number is not the algorithm's.
    pub fn from_bytes(algorithm: ChecksumAlgorithm, bytes: &[u8]) -> Option<ChecksumValue> {
        (bytes.len() == algorithm.len_bytes()).then(|| ChecksumValue { algorithm, bytes: bytes.to_vec() })
    }
    /// A value from its base64 form; `None` when malformed.
    pub fn from_base64(algorithm: ChecksumAlgorithm, text: &str) -> Option<ChecksumValue> {
        let text = text.trim();
        let bytes = if text.len() <= BASE64_MAX_CHARS { STANDARD.decode(text).ok()? } else { return None };
        ChecksumValue::from_bytes(algorithm, &bytes)
    }
    /// The algorithm.
    pub fn algorithm(&self) -> ChecksumAlgorithm {
        self.algorithm
    }
    /// The raw bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
    /// The form in headers and XML.
    pub fn to_base64(&self) -> String {
        STANDARD.encode(&self.bytes)
    }
    fn of_crc(algorithm: ChecksumAlgorithm, crc: u64) -> ChecksumValue {
        let bytes = crc.to_be_bytes();
        ChecksumValue { algorithm, bytes: bytes[8 - algorithm.len_bytes()..].to_vec() }
    }
    fn crc(&self) -> u64 {
        self.bytes.iter().fold(0, |crc, byte| crc << 8 | u64::from(*byte))
    }
}

/// A running checksum.
#[derive(Clone)]
pub enum Hasher {
    /// One of the CRCs.
    Crc(ChecksumAlgorithm, Box<crc_fast::Digest>),
    /// SHA-1.
    Sha1(Sha1),
    /// SHA-256.
    Sha256(Sha256),
    /// SHA-512.
    Sha512(Box<Sha512>),
    /// MD5.
    Md5(Md5),
    /// XXH64.
    XxHash64(Box<XxHash64>),
    /// XXH3, of either width.
    XxHash3(ChecksumAlgorithm, Box<Xxh3>),
}

impl Hasher {
    /// A hasher over nothing yet.
    pub fn new(algorithm: ChecksumAlgorithm) -> Hasher {
        match algorithm {
            ChecksumAlgorithm::Crc32 => Hasher::of_crc(algorithm, CrcAlgorithm::Crc32IsoHdlc),
            ChecksumAlgorithm::Crc32c => Hasher::of_crc(algorithm, CrcAlgorithm::Crc32Iscsi),
            ChecksumAlgorithm::Crc64Nvme => Hasher::of_crc(algorithm, CrcAlgorithm::Crc64Nvme),
            ChecksumAlgorithm::Sha1 => Hasher::Sha1(Sha1::new()),
            ChecksumAlgorithm::Sha256 => Hasher::Sha256(Sha256::new()),
            ChecksumAlgorithm::Sha512 => Hasher::Sha512(Box::default()),
            ChecksumAlgorithm::Md5 => Hasher::Md5(Md5::new()),
            ChecksumAlgorithm::XxHash64 => Hasher::XxHash64(Box::new(XxHash64::with_seed(0))),
            ChecksumAlgorithm::XxHash3 | ChecksumAlgorithm::XxHash128 => Hasher::XxHash3(algorithm, Box::new(Xxh3::new())),
        }
    }
    fn of_crc(algorithm: ChecksumAlgorithm, crc: CrcAlgorithm) -> Hasher {
        Hasher::Crc(algorithm, Box::new(crc_fast::Digest::new(crc)))
    }
    /// Adds content.
    pub fn update(&mut self, data: &[u8]) {
        match self {
            Hasher::Crc(_, digest) => digest.update(data),
            Hasher::Sha1(digest) => digest.update(data),
            Hasher::Sha256(digest) => digest.update(data),
            Hasher::Sha512(digest) => digest.update(data),
            Hasher::Md5(digest) => digest.update(data),
            Hasher::XxHash64(digest) => digest.write(data),
            Hasher::XxHash3(_, digest) => digest.update(data),
        }
    }
    /// The checksum of everything added.
    pub fn finish(self) -> ChecksumValue {
        let (algorithm, bytes) = match self {
            Hasher::Crc(algorithm, digest) => return ChecksumValue::of_crc(algorithm, digest.finalize()),
            Hasher::Sha1(digest) => (ChecksumAlgorithm::Sha1, digest.finalize().to_vec()),
            Hasher::Sha256(digest) => (ChecksumAlgorithm::Sha256, digest.finalize().to_vec()),
            Hasher::Sha512(digest) => (ChecksumAlgorithm::Sha512, digest.finalize().to_vec()),
            Hasher::Md5(digest) => (ChecksumAlgorithm::Md5, digest.finalize().to_vec()),
            Hasher::XxHash64(digest) => (ChecksumAlgorithm::XxHash64, digest.finish().to_be_bytes().to_vec()),
            Hasher::XxHash3(ChecksumAlgorithm::XxHash128, digest) => {
                (ChecksumAlgorithm::XxHash128, digest.digest128().to_be_bytes().to_vec())
            }
            Hasher::XxHash3(_, digest) => (ChecksumAlgorithm::XxHash3, digest.digest().to_be_bytes().to_vec()),
        };
        assert_eq!(bytes.len(), algorithm.len_bytes(), "{algorithm:?}");
        ChecksumValue { algorithm, bytes }
    }
}

/// The checksum of some bytes.
pub fn checksum_of(algorithm: ChecksumAlgorithm, data: &[u8]) -> ChecksumValue {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(data);
    hasher.finish()
}

/// The COMPOSITE value of a multipart object (without `-N`): the algorithm over the parts' raw values. All parts have the same algorithm.
pub fn composite(algorithm: ChecksumAlgorithm, parts: &[ChecksumValue]) -> ChecksumValue {
    let mut hasher = Hasher::new(algorithm);
    parts.iter().for_each(|part| hasher.update(&part.bytes));
    hasher.finish()
}

/// The text of a COMPOSITE value: base64, then `-N`.
pub fn composite_text(value: &ChecksumValue, parts_count: usize) -> String {
    format!("{}-{parts_count}", value.to_base64())
}

/// The FULL_OBJECT value of a multipart object from its parts' values and lengths in bytes; `None` for hashes, which cannot be combined.
pub fn combine_full_object(algorithm: ChecksumAlgorithm, parts: &[(ChecksumValue, u64)]) -> Option<ChecksumValue> {
    let crc_algorithm = crc_of(algorithm)?;
    let combined = parts.iter().fold(crc_fast::checksum(crc_algorithm, b""), |sum, (part, len_bytes)| {
        // The library's combination over an empty right side is not defined by its documentation; adding nothing changes nothing.
        if *len_bytes == 0 { sum } else { crc_fast::checksum_combine(crc_algorithm, sum, part.crc(), *len_bytes) }
    });
    Some(ChecksumValue::of_crc(algorithm, combined))
}

/// What a request says about the checksum of its body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeclaredChecksum {
    /// The value in an `x-amz-checksum-*` header.
    pub value: Option<ChecksumValue>,
    /// The algorithm that `x-amz-trailer` announces.
    pub trailer: Option<ChecksumAlgorithm>,
}

impl DeclaredChecksum {
    /// The declared algorithm, wherever its value stands.
    pub fn algorithm(&self) -> Option<ChecksumAlgorithm> {
        self.value.as_ref().map(ChecksumValue::algorithm).or(self.trailer)
    }

    /// Reads `x-amz-checksum-*`, `x-amz-trailer` and `x-amz-sdk-checksum-algorithm`.
    ///
    /// Errors, 400 `InvalidRequest`: a malformed value, two values, a value and a trailer, an unknown trailer, an SDK algorithm without its value.
    pub fn parse(headers: &HeaderMap) -> Result<DeclaredChecksum, S3Error> {
        let value = value_in(headers)?;
        let trailer = trailer_in(headers)?;
        if value.is_some() && trailer.is_some() {
            return Err(S3Error::invalid_request("Expecting a single x-amz-checksum- header"));
        }
        let declared = DeclaredChecksum { value, trailer };
        declared.check_sdk_algorithm(headers)?;
        Ok(declared)
    }

    fn check_sdk_algorithm(&self, headers: &HeaderMap) -> Result<(), S3Error> {
        let Some(name) = headers.get("x-amz-sdk-checksum-algorithm") else { return Ok(()) };
        let wanted = algorithm_named(name.to_str().unwrap_or_default())
            .map_err(|_| S3Error::invalid_request("Value for x-amz-sdk-checksum-algorithm header is invalid."))?;
        match self.algorithm() {
            Some(found) if found == wanted => Ok(()),
            Some(_) => Err(S3Error::invalid_request("Value for x-amz-sdk-checksum-algorithm header is invalid.")),
            None => Err(S3Error::invalid_request(
                "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers were found.",
            )),
        }
    }
}

/// Reads the one `x-amz-checksum-<algorithm>` header of a request, if any. Errors as in [`DeclaredChecksum::parse`].
///
/// For CompleteMultipartUpload, whose value may carry `-N`, use [`completion_value`].
pub fn value_in(headers: &HeaderMap) -> Result<Option<ChecksumValue>, S3Error> {
    let Some((algorithm, text)) = text_in(headers)? else { return Ok(None) };
    let value = ChecksumValue::from_base64(algorithm, &text);
    value.map(Some).ok_or_else(|| S3Error::invalid_request(format!("Value for {} header is invalid.", algorithm.header())))
}

/// The whole-object value that CompleteMultipartUpload expects: the raw value, and the part count if it ends in `-N`.
pub fn completion_value(headers: &HeaderMap) -> Result<Option<(ChecksumValue, Option<usize>)>, S3Error> {
    let Some((algorithm, text)) = text_in(headers)? else { return Ok(None) };
    let invalid = || S3Error::invalid_request(format!("Value for {} header is invalid.", algorithm.header()));
    let (base, count) = match text.split_once('-') {
        Some((base, count)) => (base, Some(count.trim().parse::<usize>().map_err(|_| invalid())?)),
        None => (text.as_str(), None),
    };
    let value = ChecksumValue::from_base64(algorithm, base).ok_or_else(invalid)?;
    Ok(Some((value, count)))
}

fn text_in(headers: &HeaderMap) -> Result<Option<(ChecksumAlgorithm, String)>, S3Error> {
    let mut found = None;
    for (name, value) in headers {
        let Some(algorithm) = name.as_str().strip_prefix(HEADER_PREFIX) else { continue };
        if SETTINGS.contains(&name.as_str()) {
            continue;
        }
        let algorithm = algorithm_named(algorithm)?;
        if found.is_some() {
            return Err(S3Error::invalid_request("Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."));
        }
        found = Some((algorithm, value.to_str().unwrap_or_default().to_owned()));
    }
    Ok(found)
}

fn trailer_in(headers: &HeaderMap) -> Result<Option<ChecksumAlgorithm>, S3Error> {
    let unsupported = || S3Error::invalid_request("The value specified in the x-amz-trailer header is not supported");
    let mut found = None;
    for line in headers.get_all("x-amz-trailer") {
        for name in line.to_str().map_err(|_| unsupported())?.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let lower = name.to_ascii_lowercase();
            let name = lower.strip_prefix(HEADER_PREFIX).ok_or_else(unsupported)?;
            let algorithm = algorithm_named(name).map_err(|_| unsupported())?;
            if found.replace(algorithm).is_some() {
                return Err(S3Error::invalid_request("Expecting a single x-amz-checksum- header"));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use ::http::{HeaderMap, HeaderName};
    use proptest::prelude::*;

    use super::{
        ChecksumAlgorithm, ChecksumType, ChecksumValue, DeclaredChecksum, Hasher, algorithm_named, check_type, checksum_of,
        combine_full_object, completion_value, composite, composite_text,
    };

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::try_from(*name).unwrap(), value.parse().unwrap())).collect()
    }
    fn refusal(pairs: &[(&str, &str)]) -> (u16, String) {
        let error = DeclaredChecksum::parse(&headers(pairs)).unwrap_err();
        (error.status().as_u16(), error.message.into_owned())
    }

    #[test]
    fn published_values() {
        let check = |algorithm, data: &[u8], expected: &str| assert_eq!(checksum_of(algorithm, data).to_base64(), expected);
        check(ChecksumAlgorithm::Crc32, b"123456789", "y/Q5Jg==");
        check(ChecksumAlgorithm::Crc32c, b"123456789", "4waSgw==");
        check(ChecksumAlgorithm::Crc64Nvme, b"123456789", "rosUhgp5mIg=");
        check(ChecksumAlgorithm::Crc32, b"", "AAAAAA==");
        check(ChecksumAlgorithm::Crc64Nvme, b"", "AAAAAAAAAAA=");
        check(ChecksumAlgorithm::Sha1, b"", "2jmj7l5rSw0yVb/vlWAYkK/YBwk=");
        check(ChecksumAlgorithm::Sha256, b"", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
        check(ChecksumAlgorithm::XxHash64, b"", "70bbN1HY6Zk=");
        check(ChecksumAlgorithm::XxHash3, b"", "LQaABTjTlMI=");
        check(ChecksumAlgorithm::XxHash128, b"", "maoG0wFHmNhgAcMkRo1Jfw==");
        check(ChecksumAlgorithm::Sha512, b"", "z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg==");
        check(ChecksumAlgorithm::Md5, b"", "1B2M2Y8AsgTpgAmY7PhCfg==");
    }

    #[test]
    fn declarations_are_parsed_or_refused() {
        let declared =
            DeclaredChecksum::parse(&headers(&[("x-amz-checksum-crc32", "y/Q5Jg=="), ("x-amz-sdk-checksum-algorithm", "CRC32")])).unwrap();
        assert_eq!(declared.algorithm(), Some(ChecksumAlgorithm::Crc32));
        let declared =
            DeclaredChecksum::parse(&headers(&[("x-amz-trailer", "X-Amz-Checksum-CRC64NVME"), ("x-amz-checksum-mode", "ENABLED")]))
                .unwrap();
        assert_eq!(declared.trailer, Some(ChecksumAlgorithm::Crc64Nvme));
        assert_eq!(refusal(&[("x-amz-checksum-crc32", "y/Q5")]), (400, "Value for x-amz-checksum-crc32 header is invalid.".into()));
        assert_eq!(refusal(&[("x-amz-checksum-xxhash64", "AAAAAA==")]).1, "Value for x-amz-checksum-xxhash64 header is invalid.");
        assert_eq!(refusal(&[("x-amz-checksum-nonsense", "AAAA")]).0, 400);
        assert_eq!(
            refusal(&[("x-amz-checksum-crc32", "AAAAAA=="), ("x-amz-checksum-crc32c", "AAAAAA==")]).1,
            "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."
        );
        assert_eq!(
            refusal(&[("x-amz-checksum-crc32", "AAAAAA=="), ("x-amz-trailer", "x-amz-checksum-crc32")]).1,
            "Expecting a single x-amz-checksum- header"
        );
        assert_eq!(refusal(&[("x-amz-trailer", "x-amz-meta-a")]).1, "The value specified in the x-amz-trailer header is not supported");
        assert_eq!(refusal(&[("x-amz-sdk-checksum-algorithm", "CRC32")]).0, 400);
        assert_eq!(refusal(&[("x-amz-sdk-checksum-algorithm", "CRC32C"), ("x-amz-checksum-crc32", "AAAAAA==")]).0, 400);
    }

    #[test]
    fn completion_values_may_carry_a_part_count() {
        let (value, count) = completion_value(&headers(&[("x-amz-checksum-crc32", "y/Q5Jg==-3")])).unwrap().unwrap();
        assert_eq!((composite_text(&value, 3).as_str(), count), ("y/Q5Jg==-3", Some(3)));
        assert!(completion_value(&headers(&[("x-amz-checksum-crc32", "y/Q5Jg==-x")])).is_err());
    }

    #[test]
    fn only_legal_pairs_of_algorithm_and_type() {
        assert!(check_type(ChecksumAlgorithm::Crc32, ChecksumType::FullObject).is_ok());
        let refused = check_type(ChecksumAlgorithm::Sha256, ChecksumType::FullObject).unwrap_err();
        assert_eq!(refused.message, "The FULL_OBJECT checksum type cannot be used with the sha256 checksum algorithm.");
        assert!(check_type(ChecksumAlgorithm::Crc64Nvme, ChecksumType::Composite).is_err());
        for algorithm in ChecksumAlgorithm::ALL {
            assert!(check_type(algorithm, algorithm.default_type()).is_ok(), "{algorithm:?}");
        }
    }

    #[test]
    fn every_algorithm_has_a_value_of_its_length_in_one_piece_or_many() {
        for algorithm in ChecksumAlgorithm::ALL {
            let whole = checksum_of(algorithm, b"in one piece");
            let mut hasher = Hasher::new(algorithm);
            b"in one piece".iter().for_each(|byte| hasher.update(&[*byte]));
            assert_eq!(hasher.finish(), whole, "{algorithm:?}");
            assert_eq!(ChecksumValue::from_base64(algorithm, &whole.to_base64()), Some(whole), "{algorithm:?}");
            assert_eq!(algorithm_named(algorithm.name()).unwrap(), algorithm);
        }
    }

    proptest! {
        #[test]
        fn combining_parts_gives_the_checksum_of_the_whole(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..6)) {
            let whole = parts.concat();
            for algorithm in [ChecksumAlgorithm::Crc32, ChecksumAlgorithm::Crc32c, ChecksumAlgorithm::Crc64Nvme] {
                let sums: Vec<_> = parts.iter().map(|part| (checksum_of(algorithm, part), part.len() as u64)).collect();
                prop_assert_eq!(combine_full_object(algorithm, &sums).unwrap(), checksum_of(algorithm, &whole));
            }
        }
        #[test]
        fn composite_is_the_algorithm_over_raw_values(parts in proptest::collection::vec(any::<[u8; 20]>(), 1..5)) {
            let values: Vec<_> = parts.iter().map(|raw| ChecksumValue::from_bytes(ChecksumAlgorithm::Sha1, raw).unwrap()).collect();
            prop_assert_eq!(composite(ChecksumAlgorithm::Sha1, &values), checksum_of(ChecksumAlgorithm::Sha1, &parts.concat()));
        }
        #[test]
        fn base64_never_panics(text in "\\PC{0,60}") {
            for algorithm in ChecksumAlgorithm::ALL {
                let _ = ChecksumValue::from_base64(algorithm, &text);
            }
        }
    }
}
