//! `If-*` headers: whether a read, a copy source, or a write may go on, given what is stored.
//!
//! Source: s3 reference §3.4, §3.5, §3.6; RFC 9110 §13. Dates compare in whole seconds, ETags without their quotes.

use ::http::{HeaderMap, HeaderName, header};

use crate::{
    error::{ErrorCode, S3Error},
    time::parse_http_date,
};

/// What conditions are held against.
#[derive(Debug, Clone, Copy)]
pub struct Validators<'a> {
    /// The ETag, with or without quotes.
    pub etag: &'a str,
    /// When the object was last modified, in ms since 1970.
    pub last_modified_ms: u64,
}

/// What a read does after its conditions were looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadVerdict {
    /// Go on.
    Proceed,
    /// 304.
    NotModified,
    /// 412; the header that failed.
    Failed(&'static str),
}

/// The four conditions of a read or of a copy source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadConditions {
    if_match: Option<String>,
    if_unmodified_since_ms: Option<u64>,
    if_none_match: Option<String>,
    if_modified_since_ms: Option<u64>,
}

impl ReadConditions {
    /// The conditions of a GET or HEAD. Dates that do not parse are ignored.
    pub fn of_read(headers: &HeaderMap) -> ReadConditions {
        ReadConditions {
            if_match: list(headers, &header::IF_MATCH),
            if_unmodified_since_ms: date(headers, &header::IF_UNMODIFIED_SINCE),
            if_none_match: list(headers, &header::IF_NONE_MATCH),
            if_modified_since_ms: date(headers, &header::IF_MODIFIED_SINCE),
        }
    }
    /// The `x-amz-copy-source-if-*` conditions of a copy.
    pub fn of_copy_source(headers: &HeaderMap) -> ReadConditions {
        ReadConditions {
            if_match: list(headers, &HeaderName::from_static("x-amz-copy-source-if-match")),
            if_unmodified_since_ms: date(headers, &HeaderName::from_static("x-amz-copy-source-if-unmodified-since")),
            if_none_match: list(headers, &HeaderName::from_static("x-amz-copy-source-if-none-match")),
            if_modified_since_ms: date(headers, &HeaderName::from_static("x-amz-copy-source-if-modified-since")),
        }
    }

    /// The verdict on a stored object, in RFC 9110's order. A modified-since date in the future is ignored.
    pub fn evaluate(&self, stored: Validators<'_>, now_ms: u64) -> ReadVerdict {
        let modified_s = stored.last_modified_ms / 1000;
        if let Some(wanted) = &self.if_match {
            if !any_matches(wanted, stored.etag, Comparison::Strong) {
                return ReadVerdict::Failed("If-Match");
            }
        } else if self.if_unmodified_since_ms.is_some_and(|since_ms| modified_s > since_ms / 1000) {
            return ReadVerdict::Failed("If-Unmodified-Since");
        }
        if let Some(unwanted) = &self.if_none_match {
            if any_matches(unwanted, stored.etag, Comparison::Weak) {
                return ReadVerdict::NotModified;
            }
        } else if self.if_modified_since_ms.is_some_and(|since_ms| since_ms <= now_ms && modified_s <= since_ms / 1000) {
            return ReadVerdict::NotModified;
        }
        ReadVerdict::Proceed
    }

    /// For a copy source: 412 `PreconditionFailed` instead of any 304.
    pub fn check_copy_source(&self, stored: Validators<'_>, now_ms: u64) -> Result<(), S3Error> {
        let failed = match self.evaluate(stored, now_ms) {
            ReadVerdict::Proceed => return Ok(()),
            ReadVerdict::Failed("If-Match") => "x-amz-copy-source-If-Match",
            ReadVerdict::Failed(_) => "x-amz-copy-source-If-Unmodified-Since",
            ReadVerdict::NotModified if self.if_none_match.is_some() => "x-amz-copy-source-If-None-Match",
            ReadVerdict::NotModified => "x-amz-copy-source-If-Modified-Since",
        };
        Err(S3Error::precondition_failed(failed))
    }
}

/// Refuses dates that are none in the conditions of a read. Errors: 400 `InvalidRequest`.
pub fn check_dates(headers: &HeaderMap) -> Result<(), S3Error> {
    for name in [header::IF_MODIFIED_SINCE, header::IF_UNMODIFIED_SINCE] {
        if headers.contains_key(&name) && date(headers, &name).is_none() {
            return Err(S3Error::invalid_request(format!("The header {name} holds no HTTP date")));
        }
    }
    Ok(())
}

/// Whether a `Range` header is to be honoured: true without `If-Range`, else only if its ETag (strong) or its exact date is the stored one.
pub fn if_range_holds(headers: &HeaderMap, stored: Validators<'_>) -> bool {
    let Some(value) = headers.get(header::IF_RANGE) else { return true };
    let Ok(value) = value.to_str() else { return false };
    match parse_http_date(value) {
        Some(date_ms) => date_ms / 1000 == stored.last_modified_ms / 1000,
        None => value.trim() != "*" && any_matches(value, stored.etag, Comparison::Strong),
    }
}

/// The condition of a write on the object it replaces or deletes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum WriteCondition {
    /// None.
    #[default]
    Always,
    /// `If-None-Match: *`: nothing there (a delete marker counts as nothing), else 412.
    MustNotExist,
    /// `If-Match: *`: something there.
    MustExist,
    /// `If-Match: etag` (kept without quotes): that very content; another 412, nothing there 404 `NoSuchKey` (PUT).
    MustMatch(String),
}

impl WriteCondition {
    /// Reads the condition of DeleteObject, which knows `If-Match` only. Errors: 501 as in [`WriteCondition::parse`], also for `If-None-Match`.
    pub fn parse_delete(headers: &HeaderMap) -> Result<WriteCondition, S3Error> {
        match WriteCondition::parse(headers)? {
            WriteCondition::MustNotExist => Err(S3Error::not_implemented("If-None-Match")),
            condition => Ok(condition),
        }
    }
    /// Reads the condition of PutObject, CompleteMultipartUpload or CopyObject (on its destination).
    ///
    /// Errors: 501 for `If-None-Match` with anything but `*`, for both headers at once, for lists, and for date conditions, which S3 does not
    /// have on writes: a condition is never ignored.
    pub fn parse(headers: &HeaderMap) -> Result<WriteCondition, S3Error> {
        let if_match = list(headers, &header::IF_MATCH);
        let if_none_match = list(headers, &header::IF_NONE_MATCH);
        if headers.contains_key(header::IF_MODIFIED_SINCE) {
            return Err(S3Error::not_implemented("If-Modified-Since"));
        }
        if headers.contains_key(header::IF_UNMODIFIED_SINCE) {
            return Err(S3Error::not_implemented("If-Unmodified-Since"));
        }
        match (if_match, if_none_match) {
            (None, None) => Ok(WriteCondition::Always),
            (None, Some(star)) if star == "*" => Ok(WriteCondition::MustNotExist),
            (_, Some(_)) => Err(S3Error::not_implemented("If-None-Match")),
            (Some(star), None) if star == "*" => Ok(WriteCondition::MustExist),
            (Some(etags), None) if etags.contains(',') => Err(S3Error::not_implemented("If-Match")),
            (Some(etag), None) if unquote(&etag).is_empty() => {
                Err(S3Error::of(ErrorCode::InvalidArgument).with("ArgumentName", "If-Match"))
            }
            (Some(etag), None) => Ok(WriteCondition::MustMatch(unquote(&etag).to_owned())),
        }
    }
}

/// An ETag without surrounding white space and quotes; clients send both forms.
pub fn unquote(etag: &str) -> &str {
    let etag = etag.trim();
    etag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(etag)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

fn any_matches(list: &str, etag: &str, comparison: Comparison) -> bool {
    list.split(',').map(str::trim).any(|wanted| {
        let wanted = match (wanted.strip_prefix("W/"), comparison) {
            (Some(weak), Comparison::Weak) => weak,
            (Some(_), Comparison::Strong) => return false,
            (None, _) => wanted,
        };
        wanted == "*" || unquote(wanted) == unquote(etag)
    })
}

/// All lines of a header joined with commas; a value that is not text matches no ETag.
fn list(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let lines: Vec<&str> = headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("\u{FFFD}")).collect();
    (!lines.is_empty()).then(|| lines.join(",").trim().to_owned())
}
fn date(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    parse_http_date(headers.get(name)?.to_str().ok()?)
}

#[cfg(test)]
mod tests {
    use ::http::{HeaderMap, HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::{ReadConditions, ReadVerdict, Validators, WriteCondition, if_range_holds};

    // 2013-05-24T00:00:00.500Z
    const STORED: Validators<'_> = Validators { etag: "\"abc\"", last_modified_ms: 1_369_353_600_500 };
    const NOW_MS: u64 = 1_400_000_000_000;
    const SAME: &str = "Fri, 24 May 2013 00:00:00 GMT";
    const BEFORE: &str = "Thu, 23 May 2013 23:59:59 GMT";
    const FUTURE: &str = "Fri, 24 May 2024 00:00:00 GMT";

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap())).collect()
    }
    fn check(pairs: &[(&str, &str)], expected: ReadVerdict) {
        assert_eq!(ReadConditions::of_read(&headers(pairs)).evaluate(STORED, NOW_MS), expected, "{pairs:?}");
    }

    #[test]
    fn reads_follow_the_order_of_the_standard() {
        use ReadVerdict::{Failed, NotModified, Proceed};
        check(&[], Proceed);
        check(&[("if-match", "\"abc\"")], Proceed);
        check(&[("if-match", "abc")], Proceed);
        check(&[("if-match", "\"x\", \"abc\"")], Proceed);
        check(&[("if-match", "*")], Proceed);
        check(&[("if-match", "\"x\"")], Failed("If-Match"));
        check(&[("if-match", "W/\"abc\"")], Failed("If-Match"));
        check(&[("if-match", "\"abc\""), ("if-unmodified-since", BEFORE)], Proceed);
        check(&[("if-unmodified-since", BEFORE)], Failed("If-Unmodified-Since"));
        check(&[("if-unmodified-since", SAME)], Proceed);
        check(&[("if-unmodified-since", "rubbish")], Proceed);
        check(&[("if-none-match", "abc")], NotModified);
        check(&[("if-none-match", "W/\"abc\"")], NotModified);
        check(&[("if-none-match", "*")], NotModified);
        check(&[("if-none-match", "\"x\"")], Proceed);
        check(&[("if-none-match", "\"x\""), ("if-modified-since", SAME)], Proceed);
        check(&[("if-modified-since", SAME)], NotModified);
        check(&[("if-modified-since", BEFORE)], Proceed);
        check(&[("if-modified-since", FUTURE)], Proceed);
        check(&[("if-match", "\"x\""), ("if-none-match", "\"abc\"")], Failed("If-Match"));
        check(&[("if-match", "\"abc\""), ("if-none-match", "\"abc\"")], NotModified);
    }

    #[test]
    fn copy_source_conditions_fail_with_412_only() {
        let conditions = ReadConditions::of_copy_source(&headers(&[("x-amz-copy-source-if-none-match", "\"abc\"")]));
        assert_eq!(conditions.check_copy_source(STORED, NOW_MS).unwrap_err().status(), 412);
        let conditions = ReadConditions::of_copy_source(&headers(&[
            ("x-amz-copy-source-if-match", "abc"),
            ("x-amz-copy-source-if-unmodified-since", BEFORE),
        ]));
        assert!(conditions.check_copy_source(STORED, NOW_MS).is_ok());
    }

    #[test]
    fn if_range_needs_the_very_same_object() {
        for (value, expected) in [("\"abc\"", true), ("\"x\"", false), ("W/\"abc\"", false), (SAME, true), (BEFORE, false), ("*", false)] {
            assert_eq!(if_range_holds(&headers(&[("if-range", value)]), STORED), expected, "{value}");
        }
        assert!(if_range_holds(&headers(&[]), STORED));
    }

    #[test]
    fn write_conditions_are_parsed_or_refused_never_ignored() {
        let parse = |pairs: &[(&str, &str)]| WriteCondition::parse(&headers(pairs)).map_err(|error| error.status().as_u16());
        assert_eq!(parse(&[]), Ok(WriteCondition::Always));
        assert_eq!(parse(&[("if-none-match", "*")]), Ok(WriteCondition::MustNotExist));
        assert_eq!(parse(&[("if-match", "\"e\"")]), Ok(WriteCondition::MustMatch("e".into())));
        assert_eq!(parse(&[("if-match", "*")]), Ok(WriteCondition::MustExist));
        assert_eq!(parse(&[("if-none-match", "\"e\"")]), Err(501));
        assert_eq!(parse(&[("if-none-match", "*"), ("if-match", "e")]), Err(501));
        assert_eq!(parse(&[("if-unmodified-since", SAME)]), Err(501));
        assert_eq!(WriteCondition::parse_delete(&headers(&[("if-none-match", "*")])).unwrap_err().status(), 501);
    }

    proptest! {
        #[test]
        fn evaluation_never_panics(value in "[ -~]{0,40}", ms: u64) {
            let headers = headers(&[("if-match", &value), ("if-none-match", &value), ("if-range", &value), ("if-modified-since", &value)]);
            let stored = Validators { etag: "e", last_modified_ms: ms };
            let _ = (ReadConditions::of_read(&headers).evaluate(stored, NOW_MS), if_range_holds(&headers, stored), WriteCondition::parse(&headers));
        }
    }
}
