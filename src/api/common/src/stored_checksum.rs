//! Checksums between their stored form and the one on the wire.

use garage_model::rows::checksum::{ChecksumAlgorithm, ChecksumKind, StoredChecksum};

use crate::{
    checksum::{ChecksumAlgorithm as Algorithm, ChecksumType, ChecksumValue, combine_full_object, composite, composite_text},
    xml::XmlWriter,
};

/// What is computed when a client names nothing, as S3 does since 2024-12.
pub const DEFAULT: Algorithm = Algorithm::Crc64Nvme;

/// The wire's algorithm.
pub fn to_api(algorithm: ChecksumAlgorithm) -> Algorithm {
    match algorithm {
        ChecksumAlgorithm::Crc32 => Algorithm::Crc32,
        ChecksumAlgorithm::Crc32c => Algorithm::Crc32c,
        ChecksumAlgorithm::Crc64Nvme => Algorithm::Crc64Nvme,
        ChecksumAlgorithm::Sha1 => Algorithm::Sha1,
        ChecksumAlgorithm::Sha256 => Algorithm::Sha256,
        ChecksumAlgorithm::Sha512 => Algorithm::Sha512,
        ChecksumAlgorithm::Md5 => Algorithm::Md5,
        ChecksumAlgorithm::XxHash64 => Algorithm::XxHash64,
        ChecksumAlgorithm::XxHash3 => Algorithm::XxHash3,
        ChecksumAlgorithm::XxHash128 => Algorithm::XxHash128,
    }
}

/// The stored algorithm.
pub fn to_model(algorithm: Algorithm) -> ChecksumAlgorithm {
    match algorithm {
        Algorithm::Crc32 => ChecksumAlgorithm::Crc32,
        Algorithm::Crc32c => ChecksumAlgorithm::Crc32c,
        Algorithm::Crc64Nvme => ChecksumAlgorithm::Crc64Nvme,
        Algorithm::Sha1 => ChecksumAlgorithm::Sha1,
        Algorithm::Sha256 => ChecksumAlgorithm::Sha256,
        Algorithm::Sha512 => ChecksumAlgorithm::Sha512,
        Algorithm::Md5 => ChecksumAlgorithm::Md5,
        Algorithm::XxHash64 => ChecksumAlgorithm::XxHash64,
        Algorithm::XxHash3 => ChecksumAlgorithm::XxHash3,
        Algorithm::XxHash128 => ChecksumAlgorithm::XxHash128,
    }
}

/// The wire's type.
pub fn kind_to_api(kind: ChecksumKind) -> ChecksumType {
    match kind {
        ChecksumKind::FullObject => ChecksumType::FullObject,
        ChecksumKind::Composite => ChecksumType::Composite,
    }
}

/// The stored kind.
pub fn kind_to_model(kind: ChecksumType) -> ChecksumKind {
    match kind {
        ChecksumType::FullObject => ChecksumKind::FullObject,
        ChecksumType::Composite => ChecksumKind::Composite,
    }
}

/// The stored form of a value.
pub fn stored(value: &ChecksumValue, kind: ChecksumKind) -> StoredChecksum {
    StoredChecksum { algorithm: to_model(value.algorithm()), kind, value: value.bytes().to_vec() }
}

/// The text of a stored checksum: base64, and `-N` for a composite one.
pub fn text(checksum: &StoredChecksum, part_count: Option<u32>) -> String {
    let Some(value) = value(checksum) else { return String::new() };
    match (checksum.kind, part_count) {
        (ChecksumKind::Composite, Some(count)) => composite_text(&value, count as usize),
        _ => value.to_base64(),
    }
}

fn value(checksum: &StoredChecksum) -> Option<ChecksumValue> {
    ChecksumValue::from_bytes(to_api(checksum.algorithm), &checksum.value)
}

/// The checksum of an object from those of its parts with their sizes in bytes, in order.
pub fn combine(parts: &[(StoredChecksum, u64)], kind: ChecksumKind) -> Option<StoredChecksum> {
    let algorithm = to_api(parts.first()?.0.algorithm);
    let values = parts.iter().map(|(checksum, size_bytes)| Some((value(checksum)?, *size_bytes))).collect::<Option<Vec<_>>>()?;
    let combined = match kind {
        ChecksumKind::FullObject => combine_full_object(algorithm, &values)?,
        ChecksumKind::Composite => composite(algorithm, &values.into_iter().map(|(value, _)| value).collect::<Vec<_>>()),
    };
    Some(stored(&combined, kind))
}

/// Writes `<ChecksumX>`, and `<ChecksumType>` if `with_type`.
pub fn write_xml(xml: &mut XmlWriter, checksum: Option<&StoredChecksum>, part_count: Option<u32>, with_type: bool) {
    let Some(checksum) = checksum else { return };
    xml.text(to_api(checksum.algorithm).element(), &text(checksum, part_count));
    if with_type {
        xml.text("ChecksumType", kind_to_api(checksum.kind).name());
    }
}

#[cfg(test)]
mod tests {
    use garage_model::rows::checksum::ChecksumKind;

    use super::{combine, stored, text};
    use crate::checksum::{ChecksumAlgorithm as Algorithm, checksum_of};

    #[test]
    fn parts_combine_to_the_checksum_of_the_whole() {
        for algorithm in [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme] {
            let part = |data: &[u8]| (stored(&checksum_of(algorithm, data), ChecksumKind::FullObject), data.len() as u64);
            let combined = combine(&[part(b"12345"), part(b""), part(b"6789")], ChecksumKind::FullObject).unwrap();
            assert_eq!(combined.value, checksum_of(algorithm, b"123456789").bytes(), "{algorithm:?}");
        }
    }

    #[test]
    fn composite_values_name_their_parts() {
        let part = (stored(&checksum_of(Algorithm::Sha256, b"a"), ChecksumKind::Composite), 1);
        let combined = combine(&[part.clone(), part], ChecksumKind::Composite).unwrap();
        assert!(text(&combined, Some(2)).ends_with("=-2"));
        assert!(combine(&[], ChecksumKind::FullObject).is_none());
    }
}
