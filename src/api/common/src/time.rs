//! Dates as S3 writes and reads them: ISO 8601 in XML, RFC 1123 in headers, ISO basic in signatures.
//!
//! All times are milliseconds since 1970 UTC. Parsers never panic and answer `None` for what is not such a date.

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

/// `2026-01-02T03:04:05.000Z`, for XML.
pub fn iso8601(ms: u64) -> String {
    civil(ms).strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}
/// `Fri, 02 Jan 2026 03:04:05 GMT`, for headers; the fraction of the second is cut off.
pub fn http_date(ms: u64) -> String {
    civil(ms).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}
/// `20260102T030405Z`, for signatures.
pub fn iso_basic(ms: u64) -> String {
    civil(ms).strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// Reads `20260102T030405Z`.
pub fn parse_iso_basic(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let shaped = bytes.len() == 16
        && bytes.iter().enumerate().all(|(index, byte)| match index {
            8 => *byte == b'T',
            15 => *byte == b'Z',
            _ => byte.is_ascii_digit(),
        });
    if shaped { in_utc(DateTime::strptime("%Y%m%dT%H%M%SZ", text).ok()?) } else { None }
}

/// Reads ISO 8601 / RFC 3339 (`2026-01-02T03:04:05Z`, fraction or offset allowed, a bare date too).
pub fn parse_iso8601(text: &str) -> Option<u64> {
    let text = text.trim();
    // The basic form, without hyphens, is none that S3 takes in documents.
    if text.len() > 64 || text.as_bytes().get(4) != Some(&b'-') || text.as_bytes().get(7) != Some(&b'-') {
        return None;
    }
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return u64::try_from(timestamp.as_millisecond()).ok();
    }
    in_utc(text.parse::<jiff::civil::Date>().ok()?.at(0, 0, 0, 0))
}

/// Reads an HTTP date in any of its three forms (RFC 1123, RFC 850, asctime), and RFC 2822 dates with a numeric zone.
pub fn parse_http_date(text: &str) -> Option<u64> {
    let text = text.trim();
    if text.len() > 64 {
        return None;
    }
    // The weekday is skipped, not checked: clients with a wrong one mean the date.
    let after_weekday = text.split_once(',').map_or(text, |(_, rest)| rest.trim_start());
    if let Some(date) = after_weekday.strip_suffix("GMT").or_else(|| after_weekday.strip_suffix("UTC")) {
        let date = date.trim_end();
        let long = DateTime::strptime("%d %b %Y %H:%M:%S", date);
        return in_utc(long.or_else(|_| DateTime::strptime("%d-%b-%y %H:%M:%S", date)).ok()?);
    }
    if let Ok(zoned) = jiff::fmt::rfc2822::parse(text) {
        return u64::try_from(zoned.timestamp().as_millisecond()).ok();
    }
    in_utc(DateTime::strptime("%a %b %e %H:%M:%S %Y", text).ok()?)
}

fn civil(ms: u64) -> DateTime {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX).min(Timestamp::MAX.as_millisecond());
    TimeZone::UTC.to_datetime(Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH))
}
fn in_utc(date: DateTime) -> Option<u64> {
    u64::try_from(TimeZone::UTC.to_timestamp(date).ok()?.as_millisecond()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{http_date, iso_basic, iso8601, parse_http_date, parse_iso_basic, parse_iso8601};

    const AT_MS: u64 = 1_369_353_600_000;

    #[test]
    fn the_example_of_the_signature_documents() {
        assert_eq!(iso_basic(AT_MS), "20130524T000000Z");
        assert_eq!(http_date(AT_MS), "Fri, 24 May 2013 00:00:00 GMT");
        assert_eq!(iso8601(AT_MS + 7), "2013-05-24T00:00:00.007Z");
    }

    #[test]
    fn all_http_forms_are_read() {
        for text in [
            "Fri, 24 May 2013 00:00:00 GMT",
            "Friday, 24-May-13 00:00:00 GMT",
            "Fri May 24 00:00:00 2013",
            "Fri, 24 May 2013 02:00:00 +0200",
        ] {
            assert_eq!(parse_http_date(text), Some(AT_MS), "{text}");
        }
        for text in ["", "yesterday", "24 May", "Fri, 99 May 2013 00:00:00 GMT", "2013"] {
            assert_eq!(parse_http_date(text), None, "{text}");
        }
    }

    #[test]
    fn iso_forms_are_read_strictly() {
        assert_eq!(parse_iso8601("2013-05-24T00:00:00Z"), Some(AT_MS));
        assert_eq!(parse_iso8601("2013-05-24T02:00:00.000+02:00"), Some(AT_MS));
        assert_eq!(parse_iso8601("2013-05-24"), Some(AT_MS));
        for text in ["20130524", "20130524T000000Z", "2013-0524", "2013-05-24T", "24-05-2013", ""] {
            assert_eq!(parse_iso8601(text), None, "{text}");
        }
        assert_eq!(parse_iso_basic("20130524T000000Z"), Some(AT_MS));
        for text in ["", "20130524", "20130524T000000", "2013-05-24T00:00:00Z", "20131324T000000Z", "+0130524T000000Z"] {
            assert_eq!(parse_iso_basic(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(seconds in 0u64..253_402_207_200, ms in 0u64..1000) {
            prop_assert_eq!(parse_iso_basic(&iso_basic(seconds * 1000)), Some(seconds * 1000));
            prop_assert_eq!(parse_http_date(&http_date(seconds * 1000 + ms)), Some(seconds * 1000));
            prop_assert_eq!(parse_iso8601(&iso8601(seconds * 1000 + ms)), Some(seconds * 1000 + ms));
        }
        #[test]
        fn parsers_never_panic(text in "\\PC{0,80}") {
            let _ = (parse_http_date(&text), parse_iso8601(&text), parse_iso_basic(&text));
        }
        #[test]
        fn parsers_never_panic_on_near_dates(text in "[A-Z][a-z]{2},? [0-9]{1,3}[ -][A-Z][a-z]{2}[ -][0-9]{1,5} [0-9:]{1,9} (GMT|\\+[0-9]{1,5})?") {
            let _ = (parse_http_date(&text), parse_iso8601(&text));
        }
        #[test]
        fn formatting_never_panics(ms: u64) {
            let _ = (iso8601(ms), http_date(ms), iso_basic(ms));
        }
    }
}
