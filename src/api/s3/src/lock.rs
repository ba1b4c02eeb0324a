//! Object lock: of buckets, of versions, and in the headers of writes.
//!
//! Invariants:
//! - a lock that a request asks for is set or the request refused;
//! - a retention in compliance mode only ever becomes longer.
//!
//! Source: s3 reference §3.14.

use garage_api_common::{
    ErrorCode, S3Error,
    http::Body,
    limits::XML_BODY_MAX_BYTES,
    time::{iso8601, parse_iso8601},
    xml::{Element, XmlWriter, malformed, parse},
};
use garage_model::{
    error::ClientError,
    objects::Governance,
    policy::actions,
    rows::{
        bucket::{DefaultRetention, LockSettings, RetentionPeriod, Versioning},
        object::{ObjectLock, Retention, RetentionMode},
    },
};
use garage_table::control::Effect;
use http::{HeaderMap, HeaderName, Response, StatusCode};

use crate::{
    answer,
    authorize::authorize_lock,
    get, headers,
    request::{IncomingBody, Request, Services, Target},
    versioning,
};

const MODE: &str = "x-amz-object-lock-mode";
const UNTIL: &str = "x-amz-object-lock-retain-until-date";
const HOLD: &str = "x-amz-object-lock-legal-hold";
const BYPASS: &str = "x-amz-bypass-governance-retention";
/// Days of a default retention at the most.
const DAYS_MAX: u32 = 36_500;
/// Years of a default retention at the most.
const YEARS_MAX: u32 = 100;

/// A mode as S3 spells it.
pub fn mode_name(mode: RetentionMode) -> &'static str {
    match mode {
        RetentionMode::Governance => "GOVERNANCE",
        RetentionMode::Compliance => "COMPLIANCE",
    }
}

/// A legal hold as S3 spells it.
pub fn hold_name(on: bool) -> &'static str {
    if on { "ON" } else { "OFF" }
}

fn mode_of(text: &str) -> Option<RetentionMode> {
    match text {
        "GOVERNANCE" => Some(RetentionMode::Governance),
        "COMPLIANCE" => Some(RetentionMode::Compliance),
        _ => None,
    }
}

fn past_date() -> S3Error {
    S3Error::new(ErrorCode::InvalidArgument, "The retain until date must be in the future!").with("ArgumentName", UNTIL)
}

fn no_lock_on_bucket() -> S3Error {
    S3Error::invalid_request("Bucket is missing Object Lock Configuration")
}

/// The lock that a write's headers ask for. Errors: 400 `InvalidArgument`, `InvalidRequest`.
pub fn of_headers(request_headers: &HeaderMap) -> Result<ObjectLock, S3Error> {
    let (mode, until) = (headers::text(request_headers, MODE)?, headers::text(request_headers, UNTIL)?);
    let retention = match (mode, until) {
        (None, None) => None,
        (Some(mode), Some(until)) => {
            let mode = mode_of(mode).ok_or_else(|| S3Error::invalid_argument("Unknown wormMode directive.", MODE, mode))?;
            let until_ms = parse_iso8601(until);
            let until_ms = until_ms
                .ok_or_else(|| S3Error::invalid_argument("The retain until date must be provided in ISO 8601 format", UNTIL, until))?;
            Some(Retention { mode, until_ms })
        }
        _ => {
            let message = "x-amz-object-lock-retain-until-date and x-amz-object-lock-mode must both be supplied";
            return Err(S3Error::new(ErrorCode::InvalidArgument, message).with("ArgumentName", if mode.is_some() { UNTIL } else { MODE }));
        }
    };
    let legal_hold = match headers::text(request_headers, HOLD)? {
        None => None,
        Some("ON") => Some(true),
        Some("OFF") => Some(false),
        Some(other) => return Err(S3Error::invalid_argument("Legal Hold must be either of 'ON' or 'OFF'", HOLD, other)),
    };
    Ok(ObjectLock { retention, legal_hold })
}

/// Checks a lock that a write asks for against the bucket and the time.
pub fn check(target: &Target, request: &Request, lock: &ObjectLock) -> Result<(), S3Error> {
    if *lock == ObjectLock::default() {
        return Ok(());
    }
    if target.bucket.row.object_lock.is_none() {
        return Err(S3Error::invalid_request("Bucket is missing ObjectLockConfiguration"));
    }
    if lock.retention.is_some_and(|retention| retention.until_ms <= request.now_ms) {
        return Err(past_date());
    }
    Ok(())
}

/// Whether a write to this bucket must prove that its body arrived whole.
pub fn needs_integrity(target: &Target, lock: &ObjectLock) -> bool {
    let by_default = target.bucket.row.object_lock.is_some_and(|lock| lock.default_retention.is_some());
    by_default || lock.retention.is_some() || lock.legal_hold.is_some()
}

/// Adds the lock of a version to an answer.
pub fn add(out: &mut HeaderMap, lock: &ObjectLock) {
    if let Some(retention) = lock.retention {
        headers::put(out, HeaderName::from_static(MODE), mode_name(retention.mode));
        headers::put(out, HeaderName::from_static(UNTIL), &iso8601(retention.until_ms));
    }
    if let Some(on) = lock.legal_hold {
        headers::put(out, HeaderName::from_static(HOLD), hold_name(on));
    }
}

/// Whether a request bypasses governance retention: it must say so, and must be allowed to. Errors: 400 `InvalidArgument`.
pub fn governance(target: &Target, request: &Request) -> Result<Governance, S3Error> {
    match request.header(BYPASS)? {
        None => Ok(Governance::Obeyed),
        Some(value) if value.eq_ignore_ascii_case("false") => Ok(Governance::Obeyed),
        Some(value) if value.eq_ignore_ascii_case("true") => {
            let may = target.may(request, actions::BYPASS_GOVERNANCE_RETENTION, None);
            Ok(if may { Governance::Bypassed } else { Governance::Obeyed })
        }
        Some(other) => Err(S3Error::invalid_argument("The value must be true or false", BYPASS, other)),
    }
}

/// GET of a bucket's object lock.
pub fn get_configuration(target: &Target) -> Result<Response<Body>, S3Error> {
    let missing = || S3Error::of(ErrorCode::ObjectLockConfigurationNotFoundError).with("BucketName", &target.bucket_name);
    Ok(answer::xml(render_configuration(target.bucket.row.object_lock.ok_or_else(missing)?)))
}

fn render_configuration(lock: LockSettings) -> String {
    let mut xml = XmlWriter::s3_document("ObjectLockConfiguration");
    xml.text("ObjectLockEnabled", "Enabled");
    if let Some(default) = lock.default_retention {
        xml.open("Rule").open("DefaultRetention").text("Mode", mode_name(default.mode));
        match default.period {
            RetentionPeriod::Days(days) => xml.value("Days", days),
            RetentionPeriod::Years(years) => xml.value("Years", years),
        };
        xml.close("DefaultRetention").close("Rule");
    }
    xml.close("ObjectLockConfiguration");
    xml.finish()
}

/// Whether a document is a bucket's configuration; what is taken reads back as itself.
pub fn reads_back(document: &[u8]) -> bool {
    let read = |document: &[u8]| parse(document, &["ObjectLockConfiguration"]).and_then(|document| read_configuration(&document)).ok();
    let Some(settings) = read(document) else { return false };
    assert_eq!(read(render_configuration(settings).as_bytes()), Some(settings), "a lock configuration reads back");
    true
}

/// PUT of a bucket's object lock: it can be switched on where versioning is, and its default changed. It is never switched off.
pub async fn put_configuration(
    services: &Services,
    target: &Target,
    request: &Request,
    body: IncomingBody,
) -> Result<Response<Body>, S3Error> {
    if request.headers.contains_key("x-amz-bucket-object-lock-token") {
        return Err(S3Error::not_implemented("x-amz-bucket-object-lock-token"));
    }
    let settings = read_configuration(&parse(&body.read_with_integrity(XML_BODY_MAX_BYTES).await?, &["ObjectLockConfiguration"])?)?;
    let changed = services.access.buckets().change(target.bucket.id, Effect::Restricts, request.context(), |row| {
        if row.versioning != Versioning::Enabled {
            let message = "Versioning must be 'Enabled' on the bucket to apply a Object Lock configuration";
            return Err(ClientError::InvalidBucketState(message.to_owned()));
        }
        row.object_lock = Some(settings);
        Ok(())
    });
    changed.await.map_err(|error| target.subject().error(error))?;
    Ok(answer::empty(StatusCode::OK))
}

fn read_configuration(document: &Element) -> Result<LockSettings, S3Error> {
    document.only(&["ObjectLockEnabled", "Rule"])?;
    if document.required("ObjectLockEnabled")? != "Enabled" {
        return Err(malformed());
    }
    let Some(rule) = document.at_most_one("Rule")? else { return Ok(LockSettings::default()) };
    rule.only(&["DefaultRetention"])?;
    let default = rule.at_most_one("DefaultRetention")?.ok_or_else(malformed)?;
    if default.child("DefaultEventHold").is_some() {
        return Err(S3Error::not_implemented("DefaultEventHold"));
    }
    default.only(&["Mode", "Days", "Years"])?;
    let mode = mode_of(default.required("Mode")?).ok_or_else(malformed)?;
    let (name, text, max) = match (default.at_most_one("Days")?, default.at_most_one("Years")?) {
        (Some(days), None) => ("Days", days.text.trim(), DAYS_MAX),
        (None, Some(years)) => ("Years", years.text.trim(), YEARS_MAX),
        _ => return Err(malformed()),
    };
    let number: i64 = text.parse().map_err(|_| malformed())?;
    let number = u32::try_from(number).ok().filter(|number| (1..=max).contains(number));
    let invalid = || {
        let message = format!("Default retention period must be a positive integer value of at most {max} {}", name.to_lowercase());
        S3Error::invalid_argument(message, name, text)
    };
    let number = number.ok_or_else(invalid)?;
    let period = if name == "Days" { RetentionPeriod::Days(number) } else { RetentionPeriod::Years(number) };
    Ok(LockSettings { default_retention: Some(DefaultRetention { mode, period }) })
}

/// GET of a version's retention.
pub async fn get_retention(services: &Services, target: &Target, request: &Request) -> Result<Response<Body>, S3Error> {
    let lock = lock_of(services, target, request).await?;
    let missing = || S3Error::of(ErrorCode::NoSuchObjectLockConfiguration).with("Key", &target.key);
    Ok(answer::xml(render_retention(lock.retention.ok_or_else(missing)?)))
}

fn render_retention(retention: Retention) -> String {
    let mut xml = XmlWriter::s3_document("Retention");
    xml.text("Mode", mode_name(retention.mode)).text("RetainUntilDate", &iso8601(retention.until_ms)).close("Retention");
    xml.finish()
}

/// Whether a document is a retention; what is taken reads back as itself.
pub fn retention_reads_back(document: &[u8]) -> bool {
    let read = |document: &[u8]| parse(document, &["Retention"]).and_then(|document| read_retention(&document)).ok();
    let Some(wanted) = read(document) else { return false };
    if let Some(retention) = wanted {
        assert_eq!(read(render_retention(retention).as_bytes()), Some(wanted), "a retention reads back");
    }
    true
}

/// GET of a version's legal hold.
pub async fn get_legal_hold(services: &Services, target: &Target, request: &Request) -> Result<Response<Body>, S3Error> {
    let lock = lock_of(services, target, request).await?;
    let missing = || S3Error::of(ErrorCode::NoSuchObjectLockConfiguration).with("Key", &target.key);
    let on = lock.legal_hold.ok_or_else(missing)?;
    let mut xml = XmlWriter::s3_document("LegalHold");
    xml.text("Status", hold_name(on)).close("LegalHold");
    Ok(answer::xml(xml.finish()))
}

async fn lock_of(services: &Services, target: &Target, request: &Request) -> Result<ObjectLock, S3Error> {
    target.bucket.row.object_lock.ok_or_else(no_lock_on_bucket)?;
    Ok(get::find(services, target, request, false).await?.meta.headers.lock)
}

/// The document about a version's lock. Errors: 400 `MalformedXML`, for no document too.
async fn document(body: IncomingBody, root: &str) -> Result<Element, S3Error> {
    let document = body.read_with_integrity(XML_BODY_MAX_BYTES).await?;
    if document.iter().all(u8::is_ascii_whitespace) { Err(malformed()) } else { parse(&document, &[root]) }
}

/// PUT of a version's retention; an empty document takes it away.
pub async fn put_retention(services: &Services, target: &Target, request: &Request, body: IncomingBody) -> Result<Response<Body>, S3Error> {
    let wanted = read_retention(&document(body, "Retention").await?)?;
    let asked = ObjectLock { retention: wanted, legal_hold: None };
    authorize_lock(services, target, request, actions::PUT_OBJECT_RETENTION, &asked).await?;
    target.bucket.row.object_lock.ok_or_else(no_lock_on_bucket)?;
    if wanted.is_some_and(|wanted| wanted.until_ms <= request.now_ms) {
        return Err(past_date());
    }
    let governance = governance(target, request)?;
    change_lock(services, target, request, |lock, now_ms| {
        if !may_replace(lock.retention, wanted, now_ms, governance) {
            return Err(ClientError::Locked);
        }
        lock.retention = wanted;
        Ok(())
    })
    .await
}

fn read_retention(document: &Element) -> Result<Option<Retention>, S3Error> {
    document.only(&["Mode", "RetainUntilDate"])?;
    match (document.at_most_one("Mode")?, document.at_most_one("RetainUntilDate")?) {
        (None, None) => Ok(None),
        (Some(mode), Some(until)) => {
            let mode = mode_of(mode.text.trim()).ok_or_else(malformed)?;
            Ok(Some(Retention { mode, until_ms: parse_iso8601(&until.text).ok_or_else(malformed)? }))
        }
        _ => Err(malformed()),
    }
}

/// Whether a retention may become another: longer always, shorter or gone only by bypassing governance mode, and never out of compliance mode.
fn may_replace(held: Option<Retention>, wanted: Option<Retention>, now_ms: u64, governance: Governance) -> bool {
    let Some(held) = held.filter(|held| now_ms < held.until_ms) else { return true };
    let is_longer = wanted.is_some_and(|wanted| held.until_ms <= wanted.until_ms);
    match held.mode {
        RetentionMode::Compliance => is_longer && wanted.is_some_and(|wanted| wanted.mode == RetentionMode::Compliance),
        RetentionMode::Governance => is_longer || governance == Governance::Bypassed,
    }
}

/// PUT of a version's legal hold.
pub async fn put_legal_hold(
    services: &Services,
    target: &Target,
    request: &Request,
    body: IncomingBody,
) -> Result<Response<Body>, S3Error> {
    let document = document(body, "LegalHold").await?;
    document.only(&["Status"])?;
    let on = match document.required("Status")? {
        "ON" => true,
        "OFF" => false,
        _ => return Err(malformed()),
    };
    let asked = ObjectLock { retention: None, legal_hold: Some(on) };
    authorize_lock(services, target, request, actions::PUT_OBJECT_LEGAL_HOLD, &asked).await?;
    target.bucket.row.object_lock.ok_or_else(no_lock_on_bucket)?;
    change_lock(services, target, request, |lock, _| {
        lock.legal_hold = Some(on);
        Ok(())
    })
    .await
}

async fn change_lock(
    services: &Services,
    target: &Target,
    request: &Request,
    change: impl Fn(&mut ObjectLock, u64) -> Result<(), ClientError> + Send + Sync,
) -> Result<Response<Body>, S3Error> {
    let slot = versioning::requested(request, target)?;
    let change = |meta: &mut garage_model::rows::object::ObjectMeta, now_ms| change(&mut meta.headers.lock, now_ms);
    let changed = services.objects.change_version(&target.bucket_ref(), &target.key, slot, request.context(), change).await;
    let slot = changed.map_err(|error| versioning::change_error(target, request, slot, error))?;
    let mut response = answer::empty(StatusCode::OK);
    versioning::add_version(response.headers_mut(), versioning::shown(target.bucket.row.versioning, Some(slot)));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use garage_api_common::{ErrorCode, xml::parse_any};
    use garage_model::{
        objects::Governance,
        rows::object::{Retention, RetentionMode},
    };

    use super::{may_replace, read_configuration, read_retention};

    #[test]
    fn a_retention_only_becomes_longer_unless_governance_is_bypassed() {
        let retention = |mode, until_ms| Some(Retention { mode, until_ms });
        let (governance, compliance) = (RetentionMode::Governance, RetentionMode::Compliance);
        let cases = [
            (retention(governance, 10), retention(governance, 10), false, true),
            (retention(governance, 10), retention(governance, 9), false, false),
            (retention(governance, 10), retention(governance, 9), true, true),
            (retention(governance, 10), None, true, true),
            (retention(governance, 10), retention(compliance, 10), false, true),
            (retention(compliance, 10), retention(compliance, 11), false, true),
            (retention(compliance, 10), retention(compliance, 9), true, false),
            (retention(compliance, 10), retention(governance, 20), true, false),
            (retention(compliance, 10), None, true, false),
            (retention(compliance, 5), None, false, true),
            (None, retention(governance, 9), false, true),
        ];
        for (held, wanted, bypass, expected) in cases {
            let governance = if bypass { Governance::Bypassed } else { Governance::Obeyed };
            assert_eq!(may_replace(held, wanted, 5, governance), expected, "{held:?} -> {wanted:?}, bypass {bypass}");
        }
    }

    #[test]
    fn configurations_that_say_nothing_sensible_are_refused() {
        let read = |inner: &str| {
            let text = format!("<ObjectLockConfiguration>{inner}</ObjectLockConfiguration>");
            read_configuration(&parse_any(text.as_bytes()).unwrap()).map(drop).map_err(|error| error.code)
        };
        let rule = |inner: &str| {
            read(&format!("<ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>{inner}</DefaultRetention></Rule>"))
        };
        assert_eq!(read("<ObjectLockEnabled>Enabled</ObjectLockEnabled>"), Ok(()));
        assert_eq!(rule("<Mode>GOVERNANCE</Mode><Days>1</Days>"), Ok(()));
        assert_eq!(read("<ObjectLockEnabled>Disabled</ObjectLockEnabled>"), Err(ErrorCode::MalformedXML));
        assert_eq!(read(""), Err(ErrorCode::MalformedXML));
        for bad in [
            "<Mode>GOVERNANCE</Mode>",
            "<Mode>x</Mode><Days>1</Days>",
            "<Days>1</Days>",
            "<Mode>COMPLIANCE</Mode><Days>1</Days><Years>1</Years>",
        ] {
            assert_eq!(rule(bad), Err(ErrorCode::MalformedXML), "{bad}");
        }
        for bad in ["<Days>0</Days>", "<Days>-1</Days>", "<Years>101</Years>", "<Days>36501</Days>"] {
            assert_eq!(rule(&format!("<Mode>COMPLIANCE</Mode>{bad}")), Err(ErrorCode::InvalidArgument), "{bad}");
        }
    }

    #[test]
    fn retentions_are_whole_or_empty() {
        let read = |inner: &str| {
            read_retention(&parse_any(format!("<Retention>{inner}</Retention>").as_bytes()).unwrap()).map_err(|error| error.code)
        };
        assert_eq!(read(""), Ok(None));
        assert!(read("<Mode>GOVERNANCE</Mode><RetainUntilDate>2040-01-01T00:00:00Z</RetainUntilDate>").unwrap().is_some());
        for bad in [
            "<Mode>GOVERNANCE</Mode>",
            "<RetainUntilDate>2040-01-01T00:00:00Z</RetainUntilDate>",
            "<Mode>governance</Mode><RetainUntilDate>2040-01-01T00:00:00Z</RetainUntilDate>",
            "<Mode>GOVERNANCE</Mode><RetainUntilDate>soon</RetainUntilDate>",
            "<Other/>",
        ] {
            assert_eq!(read(bad), Err(ErrorCode::MalformedXML), "{bad}");
        }
    }
}
