//! ListObjects in both versions, and ListObjectVersions.
//!
//! Source: s3 reference §3.3.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use garage_api_common::{ErrorCode, S3Error, http::Body, query::Query, time::iso8601, xml::XmlWriter};
use garage_model::{
    index::Shown,
    listing::{
        ListEntry, ListPage, ListRequest,
        versions::{ListVersionsRequest, ListedVersion, VersionEntry},
    },
    rows::object::ObjectSummary,
};
use garage_rpc::register::slots::Slot;
use http::Response;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use crate::{
    answer, headers,
    limits::PAGE_MAX,
    request::{Request, Services, Target},
    settings::{Owner, Owners},
    versioning::{self, VersionName},
};

/// Left as they are by `encoding-type=url`; a space becomes `+`.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/').remove(b' ');

/// Whether keys are percent-encoded in the answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// As they are, with XML's escapes.
    Plain,
    /// `encoding-type=url`
    Url,
}

impl Encoding {
    /// Reads `encoding-type`. Errors: 400 `InvalidArgument`.
    pub fn parse(query: &Query) -> Result<Encoding, S3Error> {
        match query.get("encoding-type") {
            None | Some("") => Ok(Encoding::Plain),
            Some("url") => Ok(Encoding::Url),
            Some(other) => Err(S3Error::invalid_argument("Invalid Encoding Method specified in Request", "encoding-type", other)),
        }
    }
    /// A key as it stands in the answer.
    pub fn apply(self, text: &str) -> String {
        match self {
            Encoding::Plain => text.to_owned(),
            Encoding::Url => percent_encode(text.as_bytes(), ENCODED).to_string().replace(' ', "+"),
        }
    }
    /// Writes `<EncodingType>` if there is one.
    pub fn write(self, xml: &mut XmlWriter) {
        xml.optional("EncodingType", (self == Encoding::Url).then_some("url"));
    }
}

/// A parameter that bounds a page: at most [`PAGE_MAX`], which is also the default.
///
/// `name` stands in the query, `argument` in S3's sentence. Errors: 400 `InvalidArgument`.
pub fn page_limit(query: &Query, name: &'static str, argument: &str) -> Result<usize, S3Error> {
    let Some(value) = query.non_empty(name) else { return Ok(PAGE_MAX) };
    match value.trim().parse::<i32>() {
        Ok(number) => usize::try_from(number).map(|number| number.min(PAGE_MAX)).map_err(|_| {
            S3Error::invalid_argument(format!("Argument {argument} must be an integer between 0 and 2147483647"), name, value)
        }),
        Err(_) => Err(S3Error::invalid_argument(format!("Provided {name} not an integer or within integer range"), name, value)),
    }
}

/// What a listing is asked to tell besides: of archived objects how their restoring goes. There are none. Errors: 400 `InvalidArgument`.
fn check_optional_attributes(request: &Request) -> Result<(), S3Error> {
    const HEADER: &str = "x-amz-optional-object-attributes";
    let names = request.header(HEADER)?.unwrap_or_default();
    match names.split(',').map(str::trim).find(|name| !name.is_empty() && *name != "RestoreStatus") {
        Some(unknown) => Err(S3Error::invalid_argument("Invalid attribute name specified.", HEADER, unknown)),
        None => Ok(()),
    }
}

/// What the three listings have in common.
struct Common {
    prefix: String,
    delimiter: Option<String>,
    limit: usize,
    encoding: Encoding,
}

impl Common {
    fn parse(request: &Request) -> Result<Common, S3Error> {
        check_optional_attributes(request)?;
        let query = &request.query;
        Ok(Common {
            prefix: query.get("prefix").unwrap_or_default().to_owned(),
            delimiter: query.non_empty("delimiter").map(str::to_owned),
            limit: page_limit(query, "max-keys", "maxKeys")?,
            encoding: Encoding::parse(query)?,
        })
    }

    async fn page(&self, services: &Services, target: &Target, request: &Request, after: Option<String>) -> Result<ListPage, S3Error> {
        let wanted = ListRequest { prefix: self.prefix.clone(), delimiter: self.delimiter.clone(), after, limit: self.limit };
        let page = services.objects.list(&target.bucket_ref(), &wanted, request.context()).await;
        page.map_err(|error| target.subject().error(error))
    }

    /// A text that is a key, or part of one.
    fn key(&self, xml: &mut XmlWriter, name: &str, value: &str) {
        xml.text(name, &self.encoding.apply(value));
    }

    fn tail(&self, xml: &mut XmlWriter, truncated: bool) {
        xml.value("MaxKeys", self.limit);
        if let Some(delimiter) = &self.delimiter {
            self.key(xml, "Delimiter", delimiter);
        }
        self.encoding.write(xml);
        xml.value("IsTruncated", truncated);
    }

    fn prefixes<'a>(&self, xml: &mut XmlWriter, prefixes: impl Iterator<Item = &'a String>) {
        for prefix in prefixes {
            xml.open("CommonPrefixes");
            self.key(xml, "Prefix", prefix);
            xml.close("CommonPrefixes");
        }
    }

    fn version(&self, xml: &mut XmlWriter, version: &ListedVersion, owners: &Owners) {
        let name = if matches!(version.shown, Shown::Object(_)) { "Version" } else { "DeleteMarker" };
        xml.open(name);
        self.key(xml, "Key", &version.key);
        xml.text("VersionId", &versioning::version_text(version.slot)).value("IsLatest", version.is_latest);
        match &version.shown {
            Shown::Object(summary) => write_summary(xml, summary, Some(owners.of(summary.owner.as_deref()))),
            Shown::Marker { modified_ms } => {
                xml.text("LastModified", &iso8601(*modified_ms));
                owners.of(None).write(xml, "Owner");
            }
        }
        xml.close(name);
    }

    fn contents(&self, xml: &mut XmlWriter, page: &ListPage, owners: Option<&Owners>) {
        for entry in &page.entries {
            if let ListEntry::Object { key, summary } = entry {
                xml.open("Contents");
                self.key(xml, "Key", key);
                write_summary(xml, summary, owners.map(|owners| owners.of(summary.owner.as_deref())));
                xml.close("Contents");
            }
        }
    }
}

fn write_summary(xml: &mut XmlWriter, summary: &ObjectSummary, owner: Option<&Owner>) {
    xml.text("LastModified", &iso8601(summary.modified_ms)).text("ETag", &headers::quoted(&summary.etag));
    if let Some(checksum) = &summary.checksum {
        xml.text("ChecksumAlgorithm", checksum.algorithm.name());
        xml.text("ChecksumType", checksum.kind.name());
    }
    xml.value("Size", summary.size_bytes);
    if let Some(owner) = owner {
        owner.write(xml, "Owner");
    }
    xml.text("StorageClass", summary.storage_class.as_deref().unwrap_or("STANDARD"));
}

/// The owners of what is on a page. Where lists mean nothing, all of it is the bucket owner's.
async fn owners_of<'a>(
    services: &Services,
    target: &Target,
    request: &Request,
    summaries: impl Iterator<Item = &'a ObjectSummary>,
) -> Result<Owners, S3Error> {
    let has_acls = target.bucket.row.access.ownership.has_acls();
    Owners::find(services, target, request, summaries.filter_map(|summary| summary.owner.as_deref()).filter(|_| has_acls)).await
}

fn summaries_of(page: &ListPage) -> impl Iterator<Item = &ObjectSummary> {
    page.entries.iter().filter_map(|entry| if let ListEntry::Object { summary, .. } = entry { Some(summary) } else { None })
}

fn prefixes_of(page: &ListPage) -> impl Iterator<Item = &String> {
    page.entries.iter().filter_map(|entry| if let ListEntry::Prefix(prefix) = entry { Some(prefix) } else { None })
}

/// GET of a bucket, version 1.
pub async fn list_objects(services: &Services, target: &Target, request: &Request) -> Result<Response<Body>, S3Error> {
    let common = Common::parse(request)?;
    let marker = request.query.get("marker").unwrap_or_default();
    let page = common.page(services, target, request, Some(marker.to_owned())).await?;
    let mut xml = XmlWriter::s3_document("ListBucketResult");
    xml.text("Name", &target.bucket_name);
    common.key(&mut xml, "Prefix", &common.prefix);
    common.key(&mut xml, "Marker", marker);
    // Without a delimiter clients go on after the last key of the page.
    if page.truncated
        && common.delimiter.is_some()
        && let Some(last) = page.entries.last()
    {
        common.key(&mut xml, "NextMarker", last.marker());
    }
    common.tail(&mut xml, page.truncated);
    common.contents(&mut xml, &page, Some(&owners_of(services, target, request, summaries_of(&page)).await?));
    common.prefixes(&mut xml, prefixes_of(&page));
    xml.close("ListBucketResult");
    Ok(answer::xml(xml.finish()))
}

/// GET of a bucket, version 2.
pub async fn list_objects_v2(services: &Services, target: &Target, request: &Request) -> Result<Response<Body>, S3Error> {
    let common = Common::parse(request)?;
    let token = request.query.get("continuation-token");
    let start_after = request.query.non_empty("start-after");
    let after = match token {
        Some(token) => Some(read_token(token)?),
        None => start_after.map(str::to_owned),
    };
    let page = common.page(services, target, request, after).await?;
    let mut xml = XmlWriter::s3_document("ListBucketResult");
    xml.text("Name", &target.bucket_name);
    common.key(&mut xml, "Prefix", &common.prefix);
    xml.optional("ContinuationToken", token);
    if page.truncated {
        xml.optional("NextContinuationToken", page.entries.last().map(|last| write_token(last.marker())).as_deref());
    }
    if let (Some(start_after), None) = (start_after, token) {
        common.key(&mut xml, "StartAfter", start_after);
    }
    xml.value("KeyCount", page.entries.len());
    common.tail(&mut xml, page.truncated);
    let owner = request.query.get("fetch-owner").is_some_and(|fetch| fetch.eq_ignore_ascii_case("true"));
    let owners = if owner { Some(owners_of(services, target, request, summaries_of(&page)).await?) } else { None };
    common.contents(&mut xml, &page, owners.as_ref());
    common.prefixes(&mut xml, prefixes_of(&page));
    xml.close("ListBucketResult");
    Ok(answer::xml(xml.finish()))
}

/// GET of a bucket's versions, newest first for each key.
pub async fn list_versions(services: &Services, target: &Target, request: &Request) -> Result<Response<Body>, S3Error> {
    let common = Common::parse(request)?;
    let key_marker = request.query.get("key-marker").unwrap_or_default();
    let version_marker = request.query.get("version-id-marker").unwrap_or_default();
    let wanted = ListVersionsRequest {
        prefix: common.prefix.clone(),
        delimiter: common.delimiter.clone(),
        key_marker: Some(key_marker.to_owned()),
        version_marker: read_version_marker(key_marker, version_marker)?,
        limit: common.limit,
    };
    let page = services.objects.list_versions(&target.bucket_ref(), &wanted, request.context()).await;
    let page = page.map_err(|error| target.subject().error(error))?;
    let mut xml = XmlWriter::s3_document("ListVersionsResult");
    xml.text("Name", &target.bucket_name);
    common.key(&mut xml, "Prefix", &common.prefix);
    common.key(&mut xml, "KeyMarker", key_marker);
    xml.text("VersionIdMarker", version_marker);
    if page.truncated {
        match page.entries.last() {
            Some(VersionEntry::Version(last)) => {
                common.key(&mut xml, "NextKeyMarker", &last.key);
                xml.text("NextVersionIdMarker", &versioning::version_text(last.slot));
            }
            Some(VersionEntry::Prefix(prefix)) => common.key(&mut xml, "NextKeyMarker", prefix),
            None => {}
        }
    }
    common.tail(&mut xml, page.truncated);
    let summaries = page.entries.iter().filter_map(|entry| match entry {
        VersionEntry::Version(ListedVersion { shown: Shown::Object(summary), .. }) => Some(summary),
        _ => None,
    });
    let owners = owners_of(services, target, request, summaries).await?;
    for entry in &page.entries {
        if let VersionEntry::Version(version) = entry {
            common.version(&mut xml, version, &owners);
        }
    }
    let prefixes = page.entries.iter().filter_map(|entry| if let VersionEntry::Prefix(prefix) = entry { Some(prefix) } else { None });
    common.prefixes(&mut xml, prefixes);
    xml.close("ListVersionsResult");
    Ok(answer::xml(xml.finish()))
}

/// Where a page of versions goes on inside its key. Errors: 400 `InvalidArgument`.
fn read_version_marker(key_marker: &str, version_marker: &str) -> Result<Option<Slot>, S3Error> {
    if version_marker.is_empty() {
        return Ok(None);
    }
    if key_marker.is_empty() {
        let message = "A version-id marker cannot be specified without a key marker.";
        return Err(S3Error::invalid_argument(message, "version-id-marker", version_marker));
    }
    match VersionName::parse(version_marker)? {
        VersionName::Slot(slot) => Ok(Some(slot)),
        // No version of ours: nothing of the key comes behind it.
        VersionName::Unknown => Ok(None),
    }
}

/// The form of tokens: what follows it is the last key or prefix of the page.
const TOKEN_FORM: u8 = 1;

/// An opaque token that stands for a place in the listing; safe in URLs.
fn write_token(marker: &str) -> String {
    URL_SAFE_NO_PAD.encode([&[TOKEN_FORM], marker.as_bytes()].concat())
}

fn read_token(token: &str) -> Result<String, S3Error> {
    let incorrect = || {
        S3Error::new(ErrorCode::InvalidArgument, "The continuation token provided is incorrect").with("ArgumentName", "continuation-token")
    };
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| incorrect())?;
    match bytes.split_first() {
        Some((&TOKEN_FORM, marker)) => String::from_utf8(marker.to_vec()).map_err(|_| incorrect()),
        _ => Err(incorrect()),
    }
}

#[cfg(test)]
mod tests {
    use garage_api_common::query::Query;
    use proptest::prelude::*;

    use super::{Encoding, page_limit, read_token, write_token};

    #[test]
    fn keys_are_encoded_as_clients_decode_them() {
        assert_eq!(Encoding::Url.apply("a/b c+d%e(f)ä~-_."), "a/b+c%2Bd%25e%28f%29%C3%A4~-_.");
        assert_eq!(Encoding::Plain.apply("a b"), "a b");
    }

    #[test]
    fn page_limits_follow_the_rules() {
        let limit = |raw: &str| page_limit(&Query::parse(raw).unwrap(), "max-keys", "maxKeys").map_err(|error| error.message.into_owned());
        assert_eq!(limit(""), Ok(1000));
        assert_eq!(limit("max-keys="), Ok(1000));
        assert_eq!(limit("max-keys=05"), Ok(5));
        assert_eq!(limit("max-keys=-0"), Ok(0));
        assert_eq!(limit("max-keys=2147483647"), Ok(1000));
        assert_eq!(limit("max-keys=-1"), Err("Argument maxKeys must be an integer between 0 and 2147483647".into()));
        assert_eq!(limit("max-keys=2147483648"), Err("Provided max-keys not an integer or within integer range".into()));
        assert_eq!(limit("max-keys=x"), Err("Provided max-keys not an integer or within integer range".into()));
    }

    #[test]
    fn tokens_that_were_never_given_are_refused() {
        for token in ["", "!", "AAAA", "a b"] {
            assert!(read_token(token).is_err(), "{token}");
        }
    }

    proptest! {
        #[test]
        fn tokens_survive_urls_and_lead_back(marker in "\\PC{0,40}") {
            let token = write_token(&marker);
            prop_assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
            prop_assert_eq!(read_token(&token).unwrap(), marker);
        }
        #[test]
        fn reading_a_token_never_panics(token in "\\PC{0,60}") {
            let _ = read_token(&token);
        }
        #[test]
        fn encoded_keys_decode_to_themselves(key in "\\PC{0,40}") {
            let raw = format!("k={}", Encoding::Url.apply(&key));
            let query = Query::parse(&raw).unwrap();
            prop_assert_eq!(query.get("k"), Some(&*key));
        }
    }
}
