//! Checksums between their stored form and the one on the wire.

use garage_model::rows::checksum::{ChecksumAlgorithm, ChecksumType, StoredChecksum};

use crate::{
    checksum::{ChecksumValue, combine_full_object, composite, composite_text},
    xml::XmlWriter,
};

/// What is computed when a client names nothing, as S3 does since 2024-12.
pub const DEFAULT: ChecksumAlgorithm = ChecksumAlgorithm::Crc64Nvme;

/// The stored form of a value.
pub fn stored(value: &ChecksumValue, kind: ChecksumType) -> StoredChecksum {
    StoredChecksum { algorithm: value.algorithm(), kind, value: value.bytes().to_vec() }
}

/// The text of a stored checksum: base64, and `-N` for a composite one.
pub fn text(checksum: &StoredChecksum, part_count: Option<u32>) -> String {
    let Some(value) = value(checksum) else { return String::new() };
    match (checksum.kind, part_count) {
        (ChecksumType::Composite, Some(count)) => composite_text(&value, count as usize),
        _ => value.to_base64(),
    }
}

fn value(checksum: &StoredChecksum) -> Option<ChecksumValue> {
    ChecksumValue::from_bytes(checksum.algorithm, &checksum.value)
}

/// The checksum of an object from those of its parts with their sizes in bytes, in order.
pub fn combine(parts: &[(StoredChecksum, u64)], kind: ChecksumType) -> Option<StoredChecksum> {
    let algorithm = parts.first()?.0.algorithm;
    let values = parts.iter().map(|(checksum, size_bytes)| Some((value(checksum)?, *size_bytes))).collect::<Option<Vec<_>>>()?;
    let combined = match kind {
        ChecksumType::FullObject => combine_full_object(algorithm, &values)?,
        ChecksumType::Composite => composite(algorithm, &values.into_iter().map(|(value, _)| value).collect::<Vec<_>>()),
    };
    Some(stored(&combined, kind))
}

/// Writes `<ChecksumX>`, and `<ChecksumType>` if `with_type`.
pub fn write_xml(xml: &mut XmlWriter, checksum: Option<&StoredChecksum>, part_count: Option<u32>, with_type: bool) {
    let Some(checksum) = checksum else { return };
    xml.text(checksum.algorithm.element(), &text(checksum, part_count));
    if with_type {
        xml.text("ChecksumType", checksum.kind.name());
    }
}

#[cfg(test)]
mod tests {
    use super::{combine, stored, text};
    use crate::checksum::{ChecksumAlgorithm as Algorithm, ChecksumType, checksum_of};

    #[test]
    fn parts_combine_to_the_checksum_of_the_whole() {
        for algorithm in [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme] {
            let part = |data: &[u8]| (stored(&checksum_of(algorithm, data), ChecksumType::FullObject), data.len() as u64);
            let combined = combine(&[part(b"12345"), part(b""), part(b"6789")], ChecksumType::FullObject).unwrap();
            assert_eq!(combined.value, checksum_of(algorithm, b"123456789").bytes(), "{algorithm:?}");
        }
    }

    #[test]
    fn composite_values_name_their_parts() {
        let part = (stored(&checksum_of(Algorithm::Sha256, b"a"), ChecksumType::Composite), 1);
        let combined = combine(&[part.clone(), part], ChecksumType::Composite).unwrap();
        assert!(text(&combined, Some(2)).ends_with("=-2"));
        assert!(combine(&[], ChecksumType::FullObject).is_none());
    }
}
