//! The `Range` header of a read: which bytes of an object it selects.
//!
//! Source: s3 reference §3.4; RFC 9110 §14. One range only; several ranges, another unit or nonsense are ignored and the whole object is sent.

use std::ops::Range;

use crate::error::S3Error;

/// The half-open byte range that a `Range` header selects from an object of `size_bytes`.
///
/// `None`: there is nothing to select (several ranges, another unit, `a > b`, garbage, or a suffix of an empty object): answer 200 with everything.
/// Errors: 416 `InvalidRange` when the range starts at or past the end, or is `-0`; carries `Content-Range: bytes */<size>`.
pub fn resolve_range(header: &str, size_bytes: u64) -> Result<Option<Range<u64>>, S3Error> {
    let Some(spec) = parse(header) else { return Ok(None) };
    let unsatisfiable = || S3Error::invalid_range(header, size_bytes);
    match spec {
        Spec::Suffix(0) => Err(unsatisfiable()),
        Spec::Suffix(_) if size_bytes == 0 => Ok(None),
        Spec::Suffix(count) => Ok(Some(size_bytes.saturating_sub(count)..size_bytes)),
        Spec::From { first, .. } if first >= size_bytes => Err(unsatisfiable()),
        Spec::From { first, last } => Ok(Some(first..last.map_or(size_bytes, |last| last.saturating_add(1).min(size_bytes)))),
    }
}

/// The value of `Content-Range` for a part of an object.
pub fn content_range(range: &Range<u64>, size_bytes: u64) -> String {
    format!("bytes {}-{}/{size_bytes}", range.start, range.end.saturating_sub(1))
}

/// The half-open range of an `x-amz-copy-source-range` header, which must be `bytes=first-last` and lie within the source.
///
/// Errors: 400 `InvalidArgument`. Source: s3 reference §3.6.
pub fn resolve_copy_range(header: &str, size_bytes: u64) -> Result<Range<u64>, S3Error> {
    const NAME: &str = "x-amz-copy-source-range";
    let Some(Spec::From { first, last: Some(last) }) = parse(header) else {
        let message = "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the zero-based offsets of the first and \
                       last bytes to copy";
        return Err(S3Error::invalid_argument(message, NAME, header));
    };
    if last >= size_bytes {
        let message = format!("Range specified is not valid for source object of size: {size_bytes}");
        return Err(S3Error::invalid_argument(message, NAME, header));
    }
    Ok(first..last + 1)
}

enum Spec {
    From { first: u64, last: Option<u64> },
    Suffix(u64),
}

fn parse(header: &str) -> Option<Spec> {
    let (unit, set) = header.trim().split_once('=')?;
    let (first, last) = set.trim().split_once('-')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = (first.trim(), last.trim());
    match (first.is_empty(), last.is_empty()) {
        (true, true) => None,
        (true, false) => Some(Spec::Suffix(number(last)?)),
        (false, true) => Some(Spec::From { first: number(first)?, last: None }),
        (false, false) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(Spec::From { first, last: Some(last) })
        }
    }
}

/// Digits only; a number past 64 bits is as good as the largest.
fn number(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use proptest::prelude::*;

    use super::{content_range, resolve_copy_range, resolve_range};

    fn check(header: &str, size: u64, expected: Result<Option<Range<u64>>, u16>) {
        assert_eq!(resolve_range(header, size).map_err(|error| error.status().as_u16()), expected, "{header} of {size}");
    }

    #[test]
    fn one_range_selects_and_clamps() {
        check("bytes=0-9", 100, Ok(Some(0..10)));
        check("bytes=90-200", 100, Ok(Some(90..100)));
        check("bytes=5-", 100, Ok(Some(5..100)));
        check("bytes=-10", 100, Ok(Some(90..100)));
        check("bytes=-1000", 100, Ok(Some(0..100)));
        check("bytes=0-99999999999999999999999", 100, Ok(Some(0..100)));
        check("bytes=0-18446744073709551615", 100, Ok(Some(0..100)));
    }

    #[test]
    fn a_range_past_the_end_is_unsatisfiable() {
        check("bytes=100-", 100, Err(416));
        check("bytes=100-200", 100, Err(416));
        check("bytes=-0", 100, Err(416));
        check("bytes=0-", 0, Err(416));
        check("bytes=-5", 0, Ok(None));
        assert_eq!(resolve_range("bytes=7-", 3).unwrap_err().headers[0].1, "bytes */3");
    }

    #[test]
    fn what_is_no_single_byte_range_is_ignored() {
        for header in
            ["bytes=0-1,3-4", "items=0-1", "bytes=5-2", "bytes=", "bytes=-", "bytes=a-b", "bytes 0-1", "", "bytes=+1-2", "bytes=1--2"]
        {
            check(header, 100, Ok(None));
        }
    }

    #[test]
    fn copy_ranges_are_strict() {
        assert_eq!(resolve_copy_range("bytes=0-9", 10).unwrap(), 0..10);
        for (header, size) in [("bytes=0-10", 10), ("bytes=-5", 10), ("bytes=5-", 10), ("0-5", 10), ("bytes=3-1", 10)] {
            assert_eq!(resolve_copy_range(header, size).unwrap_err().status(), 400, "{header}");
        }
    }

    #[test]
    fn content_range_is_inclusive() {
        assert_eq!(content_range(&(0..10), 100), "bytes 0-9/100");
    }

    proptest! {
        #[test]
        fn a_selected_range_lies_within_the_object(header in "(bytes=)?[0-9,\\- a]{0,30}", size: u64) {
            if let Ok(Some(range)) = resolve_range(&header, size) {
                prop_assert!(range.start < range.end && range.end <= size);
            }
        }
        #[test]
        fn parsing_never_panics(header in "\\PC{0,60}", size: u64) {
            let _ = (resolve_range(&header, size), resolve_copy_range(&header, size));
        }
    }
}
