//! The lifecycle of a bucket: its document, and the headers that tell when an object or upload goes.
//!
//! Source: s3 reference §3.15. Tiers do not exist here, so a transition is refused.

use std::collections::BTreeSet;

use garage_api_common::{
    ErrorCode, S3Error,
    http::Body,
    limits::XML_BODY_MAX_BYTES,
    time::{http_date, iso8601, parse_iso8601},
    xml::{Element, XmlWriter, malformed, parse},
};
use garage_model::{
    objects::StoredObject,
    rows::lifecycle::{DAY_MS, Expiration, Filter, Filtered, LifecycleRule, NoncurrentExpiration, abort_of, expiry_of},
};
use garage_table::control::Effect;
use http::{HeaderMap, HeaderName, Response, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::{
    answer, headers,
    limits::{LIFECYCLE_ID_MAX_CHARS, LIFECYCLE_RULES_MAX},
    request::{IncomingBody, Request, Services, Target},
};

/// GET of the rules.
pub fn get(target: &Target) -> Result<Response<Body>, S3Error> {
    let rules = &target.bucket.row.lifecycle;
    if rules.is_empty() {
        return Err(S3Error::of(ErrorCode::NoSuchLifecycleConfiguration).with("BucketName", &target.bucket_name));
    }
    let mut response = answer::xml(render(rules));
    add_transition_minimum(response.headers_mut(), target.bucket.row.transition_minimum_varies);
    Ok(response)
}

/// Below which size S3 moves no object to another storage class: asked for with the rules, and shown with them. Nothing here moves any.
const TRANSITION_MINIMUM: &str = "x-amz-transition-default-minimum-object-size";
const SAME_MINIMUM: &str = "all_storage_classes_128K";
const VARYING_MINIMUM: &str = "varies_by_storage_class";

fn add_transition_minimum(out: &mut HeaderMap, varies: bool) {
    headers::put(out, HeaderName::from_static(TRANSITION_MINIMUM), if varies { VARYING_MINIMUM } else { SAME_MINIMUM });
}

/// Whether the request asks for a minimum that differs by storage class. Errors: 400 `InvalidArgument`.
fn asks_for_varying_minimum(request: &Request) -> Result<bool, S3Error> {
    match request.header(TRANSITION_MINIMUM)? {
        None | Some(SAME_MINIMUM) => Ok(false),
        Some(VARYING_MINIMUM) => Ok(true),
        Some(other) => {
            let message = format!("The value must be {SAME_MINIMUM} or {VARYING_MINIMUM}");
            Err(S3Error::invalid_argument(message, TRANSITION_MINIMUM, other))
        }
    }
}

fn render(rules: &[LifecycleRule]) -> String {
    let mut xml = XmlWriter::s3_document("LifecycleConfiguration");
    rules.iter().for_each(|rule| write_rule(&mut xml, rule));
    xml.close("LifecycleConfiguration");
    xml.finish()
}

fn write_rule(xml: &mut XmlWriter, rule: &LifecycleRule) {
    xml.open("Rule").text("ID", &rule.id);
    match (&rule.filter.prefix, rule.is_plain_prefix) {
        (prefix, true) => drop(xml.text("Prefix", prefix.as_deref().unwrap_or_default())),
        _ => write_filter(xml, &rule.filter),
    }
    xml.text("Status", if rule.enabled { "Enabled" } else { "Disabled" });
    if let Some(expiration) = rule.expiration {
        xml.open("Expiration");
        match expiration {
            Expiration::Days(days) => xml.value("Days", days),
            Expiration::Date(date_ms) => xml.text("Date", &iso8601(date_ms)),
            Expiration::ExpiredMarker => xml.text("ExpiredObjectDeleteMarker", "true"),
        };
        xml.close("Expiration");
    }
    if let Some(noncurrent) = rule.noncurrent {
        xml.open("NoncurrentVersionExpiration").value("NoncurrentDays", noncurrent.days);
        xml.optional("NewerNoncurrentVersions", noncurrent.newer_kept.map(|count| count.to_string()).as_deref());
        xml.close("NoncurrentVersionExpiration");
    }
    if let Some(days) = rule.abort_uploads_days {
        xml.open("AbortIncompleteMultipartUpload").value("DaysAfterInitiation", days).close("AbortIncompleteMultipartUpload");
    }
    xml.close("Rule");
}

fn write_filter(xml: &mut XmlWriter, filter: &Filter) {
    xml.open("Filter");
    if filter.is_and {
        xml.open("And");
    }
    xml.optional("Prefix", filter.prefix.as_deref());
    for (key, value) in &filter.tags {
        xml.open("Tag").text("Key", key).text("Value", value).close("Tag");
    }
    xml.optional("ObjectSizeGreaterThan", filter.larger_than_bytes.map(|bytes| bytes.to_string()).as_deref());
    xml.optional("ObjectSizeLessThan", filter.smaller_than_bytes.map(|bytes| bytes.to_string()).as_deref());
    if filter.is_and {
        xml.close("And");
    }
    xml.close("Filter");
}

/// PUT of the rules, in place of those before.
pub async fn put(services: &Services, target: &Target, request: &Request, body: IncomingBody) -> Result<Response<Body>, S3Error> {
    let varies = asks_for_varying_minimum(request)?;
    let mut rules = read(&body.read_with_integrity(XML_BODY_MAX_BYTES).await?)?;
    for rule in rules.iter_mut().filter(|rule| rule.id.is_empty()) {
        let (high, low) = (services.runtime.random_u64(), services.runtime.random_u64());
        rule.id = format!("{high:016x}{low:016x}");
    }
    store(services, target, request, rules, varies).await?;
    let mut response = answer::empty(StatusCode::OK);
    add_transition_minimum(response.headers_mut(), varies);
    Ok(response)
}

/// DELETE of the rules.
pub async fn delete(services: &Services, target: &Target, request: &Request) -> Result<Response<Body>, S3Error> {
    store(services, target, request, Vec::new(), false).await?;
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

async fn store(
    services: &Services,
    target: &Target,
    request: &Request,
    rules: Vec<LifecycleRule>,
    transition_minimum_varies: bool,
) -> Result<(), S3Error> {
    // A rule that was taken away must not be carried out any more.
    let effect = if target.bucket.row.lifecycle.is_empty() { Effect::Grants } else { Effect::Restricts };
    let changed = services.access.buckets().change(target.bucket.id, effect, request.context(), |row| {
        row.lifecycle.clone_from(&rules);
        row.transition_minimum_varies = transition_minimum_varies;
        Ok(())
    });
    changed.await.map(drop).map_err(|error| target.subject().error(error))
}

fn read(document: &[u8]) -> Result<Vec<LifecycleRule>, S3Error> {
    read_rules(&parse(document, &["LifecycleConfiguration", "BucketLifecycleConfiguration"])?)
}

/// Whether a document is taken; what is taken reads back as itself.
pub fn reads_back(document: &[u8]) -> bool {
    let Ok(rules) = read(document) else { return false };
    assert_eq!(read(render(&rules).as_bytes()).ok(), Some(rules), "lifecycle rules read back");
    true
}

/// The rules of a document; those without an id have an empty one. Errors: 400 `MalformedXML`, `InvalidArgument`, `InvalidRequest`; 501.
pub fn read_rules(document: &Element) -> Result<Vec<LifecycleRule>, S3Error> {
    document.only(&["Rule"])?;
    let rules = document.children.iter().map(read_rule).collect::<Result<Vec<_>, _>>()?;
    if rules.is_empty() || LIFECYCLE_RULES_MAX < rules.len() {
        return Err(malformed());
    }
    let mut ids = BTreeSet::new();
    for rule in rules.iter().filter(|rule| !rule.id.is_empty()) {
        if !ids.insert(&rule.id) {
            let message = "Rule ID must be unique. Found same ID for more than one rule";
            return Err(S3Error::invalid_argument(message, "ID", &rule.id));
        }
    }
    Ok(rules)
}

fn read_rule(element: &Element) -> Result<LifecycleRule, S3Error> {
    const ACTIONS: [&str; 5] =
        ["Expiration", "NoncurrentVersionExpiration", "AbortIncompleteMultipartUpload", "Transition", "NoncurrentVersionTransition"];
    element.only(&[&["ID", "Filter", "Prefix", "Status"], &ACTIONS[..]].concat())?;
    let id = element.at_most_one("ID")?.map(|id| id.text.clone()).unwrap_or_default();
    if LIFECYCLE_ID_MAX_CHARS < id.chars().count() {
        return Err(S3Error::invalid_argument("ID length should not exceed allowed limit of 255", "ID", &id));
    }
    let enabled = match element.at_most_one("Status")?.map(|status| status.text.trim()) {
        Some("Enabled") => true,
        Some("Disabled") => false,
        _ => return Err(malformed()),
    };
    let (filter, is_plain_prefix) = match (element.at_most_one("Filter")?, element.at_most_one("Prefix")?) {
        (Some(filter), None) => (read_filter(filter)?, false),
        (None, Some(prefix)) => (Filter { prefix: Some(prefix.text.clone()), ..Filter::default() }, true),
        _ => return Err(malformed()),
    };
    for tier in ["Transition", "NoncurrentVersionTransition"] {
        if element.child(tier).is_some() {
            return Err(S3Error::not_implemented(tier));
        }
    }
    let rule = LifecycleRule {
        id,
        enabled,
        is_plain_prefix,
        expiration: element.at_most_one("Expiration")?.map(read_expiration).transpose()?.flatten(),
        noncurrent: element.at_most_one("NoncurrentVersionExpiration")?.map(read_noncurrent).transpose()?,
        abort_uploads_days: element.at_most_one("AbortIncompleteMultipartUpload")?.map(read_abort).transpose()?,
        filter,
    };
    check_rule(&rule)?;
    Ok(rule)
}

fn check_rule(rule: &LifecycleRule) -> Result<(), S3Error> {
    if rule.expiration.is_none() && rule.noncurrent.is_none() && rule.abort_uploads_days.is_none() {
        return Err(S3Error::invalid_request("At least one action needs to be specified in a rule"));
    }
    if !rule.filter.is_by_key() && rule.abort_uploads_days.is_some() {
        return Err(S3Error::invalid_request("AbortIncompleteMultipartUpload cannot be specified with Tags or object sizes"));
    }
    if !rule.filter.is_by_key() && rule.expiration == Some(Expiration::ExpiredMarker) {
        return Err(S3Error::invalid_request("ExpiredObjectDeleteMarker cannot be specified with Tags or object sizes"));
    }
    if rule.is_plain_prefix && rule.noncurrent.is_some_and(|noncurrent| noncurrent.newer_kept.is_some()) {
        return Err(S3Error::invalid_request("NewerNoncurrentVersions can only be specified with a Filter element"));
    }
    Ok(())
}

fn read_filter(element: &Element) -> Result<Filter, S3Error> {
    const PARTS: [&str; 4] = ["Prefix", "Tag", "ObjectSizeGreaterThan", "ObjectSizeLessThan"];
    match element.children.as_slice() {
        [] => Ok(Filter::default()),
        [and] if and.name == "And" => {
            and.only(&PARTS)?;
            if and.children.len() < 2 {
                return Err(malformed());
            }
            Ok(Filter { is_and: true, ..read_parts(and)? })
        }
        [part] if PARTS.contains(&part.name.as_str()) => read_parts(element),
        _ => Err(malformed()),
    }
}

fn read_parts(element: &Element) -> Result<Filter, S3Error> {
    let size = |name: &'static str| -> Result<Option<u64>, S3Error> {
        element.at_most_one(name)?.map(|size| size.text.trim().parse::<u64>().map_err(|_| malformed())).transpose()
    };
    let tag = |tag: &Element| {
        tag.only(&["Key", "Value"])?;
        let key = tag.text_of("Key").filter(|key| !key.is_empty()).ok_or_else(malformed)?;
        Ok((key.to_owned(), tag.text_of("Value").ok_or_else(malformed)?.to_owned()))
    };
    let filter = Filter {
        prefix: element.at_most_one("Prefix")?.map(|prefix| prefix.text.clone()),
        tags: element.children_named("Tag").map(tag).collect::<Result<Vec<_>, S3Error>>()?,
        larger_than_bytes: size("ObjectSizeGreaterThan")?,
        smaller_than_bytes: size("ObjectSizeLessThan")?,
        is_and: false,
    };
    let keys: BTreeSet<&String> = filter.tags.iter().map(|(key, _)| key).collect();
    if keys.len() < filter.tags.len() {
        return Err(S3Error::invalid_request("Duplicate Tag Keys are not allowed."));
    }
    if let (Some(above), Some(below)) = (filter.larger_than_bytes, filter.smaller_than_bytes)
        && below <= above
    {
        return Err(S3Error::invalid_request("'ObjectSizeLessThan' has to be a value greater than 'ObjectSizeGreaterThan'"));
    }
    Ok(filter)
}

fn read_expiration(element: &Element) -> Result<Option<Expiration>, S3Error> {
    let [part] = element.children.as_slice() else { return Err(malformed()) };
    let text = part.text.trim();
    match part.name.as_str() {
        "Days" => Ok(Some(Expiration::Days(positive(text, "Days", "'Days' for Expiration action must be a positive integer")?))),
        "Date" => {
            let date_ms = parse_iso8601(text).ok_or_else(malformed)?;
            if !date_ms.is_multiple_of(DAY_MS) {
                return Err(S3Error::new(ErrorCode::InvalidArgument, "'Date' must be at midnight GMT").with("ArgumentName", "Date"));
            }
            Ok(Some(Expiration::Date(date_ms)))
        }
        "ExpiredObjectDeleteMarker" => match text {
            "true" => Ok(Some(Expiration::ExpiredMarker)),
            // Says that nothing is to happen.
            "false" => Ok(None),
            _ => Err(malformed()),
        },
        _ => Err(malformed()),
    }
}

fn read_noncurrent(element: &Element) -> Result<NoncurrentExpiration, S3Error> {
    element.only(&["NoncurrentDays", "NewerNoncurrentVersions"])?;
    let days = positive(
        element.required("NoncurrentDays")?,
        "NoncurrentDays",
        "'NoncurrentDays' for NoncurrentVersionExpiration action must be a positive integer",
    )?;
    let newer_kept = element.at_most_one("NewerNoncurrentVersions")?.map(|count| {
        let message = "'NewerNoncurrentVersions' for NoncurrentVersionExpiration action must be an integer between 1 and 100";
        let number = positive(count.text.trim(), "NewerNoncurrentVersions", message)?;
        if number <= 100 { Ok(number) } else { Err(S3Error::invalid_argument(message, "NewerNoncurrentVersions", number)) }
    });
    Ok(NoncurrentExpiration { days, newer_kept: newer_kept.transpose()? })
}

fn read_abort(element: &Element) -> Result<u32, S3Error> {
    element.only(&["DaysAfterInitiation"])?;
    let message = "'DaysAfterInitiation' for AbortIncompleteMultipartUpload action must be a positive integer";
    positive(element.required("DaysAfterInitiation")?, "DaysAfterInitiation", message)
}

/// A whole number of at least 1: what is no number is malformed, another number an argument that is wrong.
fn positive(text: &str, name: &'static str, message: &'static str) -> Result<u32, S3Error> {
    let number: i64 = text.parse().map_err(|_| malformed())?;
    // Beyond this no date can be written.
    const DAYS_MAX: i64 = 2_147_483_647;
    if (1..=DAYS_MAX).contains(&number) {
        return Ok(number as u32);
    }
    Err(S3Error::invalid_argument(message, name, text))
}

/// Adds `x-amz-expiration` if a rule applies to what was just stored.
pub fn add_expiration(out: &mut HeaderMap, target: &Target, stored: &StoredObject) {
    add_expiration_of(out, target, stored.size_bytes, stored.modified_ms, &stored.tags);
}

/// The same of a current object.
pub fn add_expiration_of(out: &mut HeaderMap, target: &Target, size_bytes: u64, modified_ms: u64, tags: &[(String, String)]) {
    let rules = &target.bucket.row.lifecycle;
    let filtered = Filtered { key: &target.key, size_bytes, tags };
    if let Some((due_ms, rule)) = expiry_of(rules, filtered, modified_ms, DAY_MS) {
        headers::put(out, HeaderName::from_static("x-amz-expiration"), &expiration_text(due_ms, rule));
    }
}

fn expiration_text(due_ms: u64, rule: &str) -> String {
    format!("expiry-date=\"{}\", rule-id=\"{}\"", http_date(due_ms), utf8_percent_encode(rule, RULE_ID))
}

/// Left as they are in a rule's id.
const RULE_ID: &percent_encoding::AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Adds when an upload will be aborted, if a rule says so.
pub fn add_abort(out: &mut HeaderMap, target: &Target, initiated_ms: u64) {
    if let Some((due_ms, rule)) = abort_of(&target.bucket.row.lifecycle, &target.key, initiated_ms, DAY_MS) {
        headers::put(out, HeaderName::from_static("x-amz-abort-date"), &http_date(due_ms));
        headers::put(out, HeaderName::from_static("x-amz-abort-rule-id"), rule);
    }
}

#[cfg(test)]
mod tests {
    use garage_api_common::{ErrorCode, xml::parse_any};

    use super::{XmlWriter, read_rules, write_rule};

    const EXPIRE: &str = "<Expiration><Days>1</Days></Expiration>";

    fn read(rules: &str) -> Result<Vec<super::LifecycleRule>, ErrorCode> {
        let text = format!("<LifecycleConfiguration>{rules}</LifecycleConfiguration>");
        read_rules(&parse_any(text.as_bytes()).unwrap()).map_err(|error| error.code)
    }
    fn rule(filter: &str, actions: &str) -> Result<Vec<super::LifecycleRule>, ErrorCode> {
        read(&format!("<Rule>{filter}<Status>Enabled</Status>{actions}</Rule>"))
    }

    #[test]
    fn each_bad_document_has_its_code() {
        use ErrorCode::{InvalidArgument, InvalidRequest, MalformedXML, NotImplemented};
        let cases: [(&str, &str, ErrorCode); 24] = [
            ("", EXPIRE, MalformedXML),
            ("<Filter/><Prefix/>", EXPIRE, MalformedXML),
            ("<Filter><Prefix>a</Prefix><Tag><Key>k</Key><Value>v</Value></Tag></Filter>", EXPIRE, MalformedXML),
            ("<Filter><And><Prefix>a</Prefix></And></Filter>", EXPIRE, MalformedXML),
            ("<Filter><Other/></Filter>", EXPIRE, MalformedXML),
            ("<Filter><ObjectSizeGreaterThan>x</ObjectSizeGreaterThan></Filter>", EXPIRE, MalformedXML),
            (
                "<Filter><And><ObjectSizeGreaterThan>9</ObjectSizeGreaterThan><ObjectSizeLessThan>9</ObjectSizeLessThan></And></Filter>",
                EXPIRE,
                InvalidRequest,
            ),
            (
                "<Filter><And><Tag><Key>k</Key><Value>v</Value></Tag><Tag><Key>k</Key><Value>w</Value></Tag></And></Filter>",
                EXPIRE,
                InvalidRequest,
            ),
            ("<Filter/>", "", InvalidRequest),
            ("<Filter/>", "<Expiration/>", MalformedXML),
            ("<Filter/>", "<Expiration><Days>0</Days></Expiration>", InvalidArgument),
            ("<Filter/>", "<Expiration><Days>-1</Days></Expiration>", InvalidArgument),
            ("<Filter/>", "<Expiration><Days>x</Days></Expiration>", MalformedXML),
            ("<Filter/>", "<Expiration><Days>1</Days><Date>2030-01-01</Date></Expiration>", MalformedXML),
            ("<Filter/>", "<Expiration><Date>2030-01-01T00:00:01Z</Date></Expiration>", InvalidArgument),
            ("<Filter/>", "<Expiration><Date>soon</Date></Expiration>", MalformedXML),
            (
                "<Filter><Tag><Key>k</Key><Value>v</Value></Tag></Filter>",
                "<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>",
                InvalidRequest,
            ),
            (
                "<Filter/>",
                "<NoncurrentVersionExpiration><NewerNoncurrentVersions>1</NewerNoncurrentVersions></NoncurrentVersionExpiration>",
                MalformedXML,
            ),
            ("<Filter/>", "<NoncurrentVersionExpiration><NoncurrentDays>0</NoncurrentDays></NoncurrentVersionExpiration>", InvalidArgument),
            (
                "<Filter/>",
                "<NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays><NewerNoncurrentVersions>101</NewerNoncurrentVersions></NoncurrentVersionExpiration>",
                InvalidArgument,
            ),
            (
                "<Filter/>",
                "<AbortIncompleteMultipartUpload><DaysAfterInitiation>0</DaysAfterInitiation></AbortIncompleteMultipartUpload>",
                InvalidArgument,
            ),
            (
                "<Filter><Tag><Key>k</Key><Value>v</Value></Tag></Filter>",
                "<AbortIncompleteMultipartUpload><DaysAfterInitiation>1</DaysAfterInitiation></AbortIncompleteMultipartUpload>",
                InvalidRequest,
            ),
            ("<Filter/>", "<Transition><Days>1</Days><StorageClass>GLACIER</StorageClass></Transition>", NotImplemented),
            ("<Filter/>", "<Unknown/>", MalformedXML),
        ];
        for (filter, actions, expected) in cases {
            assert_eq!(rule(filter, actions), Err(expected), "{filter} {actions}");
        }
        assert_eq!(read(""), Err(MalformedXML));
        assert_eq!(read(&format!("<Rule><Filter/><Status>On</Status>{EXPIRE}</Rule>")), Err(MalformedXML));
        let with_id = |id: &str| format!("<Rule><ID>{id}</ID><Filter/><Status>Enabled</Status>{EXPIRE}</Rule>");
        assert_eq!(read(&format!("{}{}", with_id("a"), with_id("a"))), Err(InvalidArgument));
        assert_eq!(read(&with_id(&"x".repeat(256))), Err(InvalidArgument));
        assert_eq!(read(&with_id("a")).map(|rules| rules.len()), Ok(1));
        let many: String = (0..1001).map(|index| with_id(&index.to_string())).collect();
        assert_eq!(read(&many), Err(MalformedXML));
    }

    #[test]
    fn rules_are_given_back_as_they_were_sent() {
        for text in [
            "<Rule><ID>a</ID><Prefix>logs/</Prefix><Status>Enabled</Status><Expiration><Days>3</Days></Expiration></Rule>",
            "<Rule><ID>b</ID><Filter></Filter><Status>Disabled</Status><Expiration><Date>2030-01-01T00:00:00.000Z</Date></Expiration></Rule>",
            "<Rule><ID>c</ID><Filter><And><Prefix>a</Prefix><Tag><Key>k</Key><Value>v</Value></Tag><ObjectSizeGreaterThan>5</ObjectSizeGreaterThan></And></Filter>\
             <Status>Enabled</Status><NoncurrentVersionExpiration><NoncurrentDays>2</NoncurrentDays><NewerNoncurrentVersions>3</NewerNoncurrentVersions></NoncurrentVersionExpiration></Rule>",
            "<Rule><ID>d</ID><Filter><Prefix></Prefix></Filter><Status>Enabled</Status><AbortIncompleteMultipartUpload><DaysAfterInitiation>7</DaysAfterInitiation></AbortIncompleteMultipartUpload></Rule>",
        ] {
            let rules = read(text).unwrap();
            let mut xml = XmlWriter::fragment();
            write_rule(&mut xml, &rules[0]);
            assert_eq!(xml.finish(), text);
        }
    }
}
