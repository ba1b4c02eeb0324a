//! CopyObject, and what it shares with UploadPartCopy: finding a source that the key may read and whose conditions hold.
//!
//! Source: s3 reference §3.6.

use garage_api_common::{
    S3Error,
    checksum::{ChecksumAlgorithm, algorithm_named},
    conditions::{ReadConditions, Validators, WriteCondition as ParsedCondition},
    http::Body,
    time::iso8601,
    xml::XmlWriter,
};
use garage_model::{
    body::BodyDigests,
    objects::{BucketRef, CopySource, FoundObject, StoredObject, Version, WriteCondition},
    policy::actions,
    rows::{
        access::Tag,
        checksum::{ChecksumType, StoredChecksum},
        object::ObjectHeaders,
    },
};
use garage_rpc::register::slots::Slot;
use garage_table::message::Want;
use http::{HeaderMap, Response};
use percent_encoding::percent_decode;

use crate::{
    answer,
    authorize::{authorize_tags, authorize_version, check_owner},
    checksums,
    content::VerifiedContent,
    encryption,
    error::Subject,
    headers,
    labels::add_labels,
    lifecycle,
    limits::COPY_SOURCE_MAX_BYTES,
    lock,
    put::precheck,
    request::{Request, Services, Target, write_condition},
    versioning::{self, VersionName},
};

const SOURCE: &str = "x-amz-copy-source";

/// What `x-amz-copy-source` names.
#[derive(Debug, PartialEq, Eq)]
pub struct SourceName {
    bucket: String,
    key: String,
    version_id: Option<String>,
}

impl SourceName {
    /// Reads `[/]bucket/key[?versionId=v]`. Clients send it percent-encoded or not; `+` stays. Errors: 400 `InvalidArgument`.
    pub fn parse(headers: &HeaderMap) -> Result<SourceName, S3Error> {
        let raw = headers.get(SOURCE).map(|value| value.as_bytes()).unwrap_or_default();
        let malformed = || {
            let message = "Copy Source must mention the source bucket and key: sourcebucket/sourcekey";
            S3Error::invalid_argument(message, SOURCE, String::from_utf8_lossy(raw))
        };
        // Split before decoding: a key may have a question mark, encoded.
        const VERSION: &[u8] = b"?versionId=";
        let at = raw.windows(VERSION.len()).rposition(|window| window == VERSION);
        let (path, version_id) = at.map_or((raw, None), |at| (&raw[..at], Some(&raw[at + VERSION.len()..])));
        let decode = |bytes: &[u8]| String::from_utf8(percent_decode(bytes).collect()).map_err(|_| malformed());
        let path = decode(path)?;
        let (bucket, key) = path.strip_prefix('/').unwrap_or(&path).split_once('/').ok_or_else(malformed)?;
        if bucket.is_empty() || key.is_empty() || bucket.starts_with("arn:") {
            return Err(malformed());
        }
        let version_id = version_id.map(decode).transpose()?;
        Ok(SourceName { bucket: bucket.to_owned(), key: key.to_owned(), version_id })
    }

    /// The version it names; `None`: the current one. Errors: 400 `InvalidArgument`, 404 `NoSuchVersion`.
    fn slot(&self) -> Result<Option<Slot>, S3Error> {
        let Some(text) = self.version_id.as_deref() else { return Ok(None) };
        match VersionName::parse(text)? {
            VersionName::Slot(slot) => Ok(Some(slot)),
            VersionName::Unknown => Err(versioning::no_such_version(&self.key, text)),
        }
    }
}

/// A source that was found.
pub struct Source {
    /// The object.
    pub found: FoundObject,
    bucket: BucketRef,
    name: SourceName,
    target: Target,
}

impl Source {
    /// The algorithm of a copy's checksum: as wanted, else as the source's.
    fn algorithm(&self, wanted: Option<ChecksumAlgorithm>) -> ChecksumAlgorithm {
        let held = self.found.meta.checksum.as_ref();
        wanted.or_else(|| held.map(|held| held.algorithm)).unwrap_or(checksums::DEFAULT)
    }
    /// The tags that a copy takes along. Errors: 403 `AccessDenied` when the caller may not read them.
    fn tags(&self, request: &Request) -> Result<Vec<Tag>, S3Error> {
        let tags = &self.found.meta.headers.tags;
        let read = if self.name.version_id.is_some() { actions::GET_OBJECT_VERSION_TAGGING } else { actions::GET_OBJECT_TAGGING };
        if tags.is_empty() || self.target.may(request, read, Some(&self.found)) { Ok(tags.clone()) } else { Err(S3Error::access_denied()) }
    }
}

impl Source {
    /// Adds `x-amz-copy-source-version-id`.
    pub fn add_version(&self, out: &mut HeaderMap) {
        if let Some(slot) = versioning::shown(self.bucket.versioning, self.found.slot) {
            headers::put(out, http::HeaderName::from_static("x-amz-copy-source-version-id"), &versioning::version_text(slot));
        }
    }
}

/// Finds the source of a copy. Errors: `NoSuchBucket`, `NoSuchKey`, `NoSuchVersion`, `AccessDenied`, `PreconditionFailed`.
pub async fn find_source(services: &Services, request: &Request) -> Result<Source, S3Error> {
    let name = SourceName::parse(&request.headers)?;
    let read = if name.version_id.is_some() { actions::GET_OBJECT_VERSION } else { actions::GET_OBJECT };
    let target = authorize_version(services, request, name.bucket.clone(), name.key.clone(), name.version_id.as_deref(), &[read]).await?;
    check_owner(request, &target, "x-amz-source-expected-bucket-owner")?;
    let slot = name.slot()?;
    let bucket = target.bucket_ref();
    let subject = Subject { bucket: &name.bucket, key: &name.key, ..Subject::default() };
    let found = services.objects.find_version(&bucket, &name.key, slot, Want::First, request.stream_context()).await;
    let mut found = match found.map_err(|error| subject.error(error))? {
        Version::Object(found) => *found,
        Version::Marker(_) if slot.is_some() => {
            return Err(S3Error::invalid_request(
                "The source of a copy request may not specifically refer to a delete marker by version id.",
            ));
        }
        Version::Missing if slot.is_some() => {
            return Err(versioning::no_such_version(&name.key, name.version_id.as_deref().unwrap_or_default()));
        }
        Version::Marker(_) | Version::Missing => return Err(target.no_such_key(request)),
    };
    target.check_judged(&found)?;
    encryption::open_object(services, request, &mut found, encryption::SOURCE_KEY)?;
    let stored = Validators { etag: &found.meta.etag, last_modified_ms: found.meta.modified_ms };
    ReadConditions::of_copy_source(&request.headers).check_copy_source(stored, request.now_ms)?;
    Ok(Source { found, bucket, name, target })
}

/// Where the copy's metadata comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Directive {
    Copy,
    Replace,
}

fn directive(request: &Request, header: &'static str, message: &'static str) -> Result<Directive, S3Error> {
    match request.header(header)? {
        None | Some("COPY") => Ok(Directive::Copy),
        Some("REPLACE") => Ok(Directive::Replace),
        Some(other) => Err(S3Error::invalid_argument(message, header, other)),
    }
}

/// 400 `InvalidArgument` unless S3 knows what is to become of the source's annotations. No object here has any, so that `COPY` and `EXCLUDE`
/// come to the same; newer command lines send the latter with every copy.
fn check_annotations(request: &Request) -> Result<(), S3Error> {
    const HEADER: &str = "x-amz-object-annotation-directive";
    match request.header(HEADER)? {
        None | Some("COPY" | "EXCLUDE") => Ok(()),
        Some(other) => Err(S3Error::invalid_argument("Unknown annotation directive.", HEADER, other)),
    }
}

/// PUT of an object with the content of another.
pub async fn copy_object(services: &Services, target: &Target, request: &Request) -> Result<Response<Body>, S3Error> {
    headers::refuse_on_write(&request.headers)?;
    if request.headers.contains_key("x-amz-copy-source-range") {
        // Only parts are copied by range; the whole object would not be what was asked for.
        return Err(S3Error::not_implemented("x-amz-copy-source-range"));
    }
    let metadata = directive(request, "x-amz-metadata-directive", "Unknown metadata directive.")?;
    let tagging = directive(request, "x-amz-tagging-directive", "Unknown tagging directive.")?;
    check_annotations(request)?;
    let algorithm = request.header("x-amz-checksum-algorithm")?.map(algorithm_named).transpose()?;
    let condition = write_condition(ParsedCondition::parse(&request.headers)?);
    let mut own = headers::object_headers(&request.headers)?;
    add_labels(services, target, request, &mut own).await?;
    lock::check(target, request, &own.lock)?;
    let source = find_source(services, request).await?;
    refuse_idle_copy(target, request, &source, metadata)?;
    if COPY_SOURCE_MAX_BYTES < source.found.meta.size_bytes {
        let message =
            format!("The specified copy source is larger than the maximum allowable size for a copy source: {COPY_SOURCE_MAX_BYTES}");
        return Err(S3Error::invalid_request(message));
    }
    if tagging == Directive::Copy {
        own.tags = source.tags(request)?;
        if !own.tags.is_empty() {
            authorize_tags(services, target, request, &own.tags).await?;
        }
    }
    let copied = match metadata {
        Directive::Replace => own,
        Directive::Copy => {
            let found = &source.found.meta.headers;
            ObjectHeaders { standard: found.standard.clone(), user: found.user.clone(), ..own }
        }
    };
    precheck(services, target, request, &condition).await?;
    let encryption = copied.encryption.clone();
    let stored = if encryption.is_some() || source.found.meta.headers.encryption.is_some() {
        write_anew(services, target, request, &source, algorithm, copied, &condition).await?
    } else {
        let recomputed = recompute(services, target, request, &source, algorithm).await?;
        let (bucket, context) = (target.bucket_ref(), request.stream_context());
        let found = CopySource { found: &source.found };
        let copy = services.objects.copy_recomputed(found, recomputed, &bucket, &target.key, copied, &condition, context);
        copy.await.map_err(|error| target.write_subject(&condition).error(error))?
    };
    let mut response = answer::xml(render("CopyObjectResult", &Copied::from(&stored)));
    encryption::write_headers(response.headers_mut(), request, encryption.as_ref());
    lifecycle::add_expiration(response.headers_mut(), target, &stored);
    versioning::add_new_version(response.headers_mut(), stored.slot);
    source.add_version(response.headers_mut());
    Ok(response)
}

/// Copies by reading and writing: what is encrypted opens only in its own place.
async fn write_anew(
    services: &Services,
    target: &Target,
    request: &Request,
    source: &Source,
    wanted: Option<ChecksumAlgorithm>,
    copied: ObjectHeaders,
    condition: &WriteCondition,
) -> Result<StoredObject, S3Error> {
    let size_bytes = source.found.meta.size_bytes;
    let (bucket, context) = (target.bucket_ref(), request.stream_context());
    let content = services.objects.read_as_body(&source.found, 0..size_bytes, context);
    let content = VerifiedContent::of_copy(&services.runtime, content, size_bytes, source.algorithm(wanted), ChecksumType::FullObject)?;
    let put = services.objects.put(&bucket, &target.key, copied, Box::new(content), condition, context);
    put.await.map_err(|error| target.write_subject(condition).error(error))
}

/// A copy of an object onto itself must change something.
fn refuse_idle_copy(target: &Target, request: &Request, source: &Source, metadata: Directive) -> Result<(), S3Error> {
    let names = ["x-amz-storage-class", "x-amz-website-redirect-location", "x-amz-server-side-encryption"];
    let changes = request.headers.keys().any(|name| names.contains(&name.as_str()) || name.as_str().starts_with(encryption::OWN_KEY));
    let onto_itself = source.bucket.id == target.bucket.id && source.name.key == target.key;
    if !onto_itself || metadata == Directive::Replace || changes || source.name.version_id.is_some() {
        return Ok(());
    }
    let message = "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, storage \
                   class, website redirect location or encryption attributes.";
    Err(S3Error::invalid_request(message))
}

/// Digests of the source's content, if the copy can't keep those of the source: they are over parts, or the client wants others.
async fn recompute(
    services: &Services,
    target: &Target,
    request: &Request,
    source: &Source,
    wanted: Option<ChecksumAlgorithm>,
) -> Result<Option<BodyDigests>, S3Error> {
    let held = source.found.meta.checksum.as_ref();
    let algorithm = source.algorithm(wanted);
    let is_kept = |held: &StoredChecksum| held.kind == ChecksumType::FullObject && held.algorithm == algorithm;
    if held.is_some_and(is_kept) {
        return Ok(None);
    }
    let size_bytes = source.found.meta.size_bytes;
    let content = services.objects.read_as_body(&source.found, 0..size_bytes, request.stream_context());
    let content = VerifiedContent::of_copy(&services.runtime, content, size_bytes, algorithm, ChecksumType::FullObject)?;
    content.digest().await.map(Some).map_err(|failure| target.subject().error(failure.into()))
}

/// What a copy is answered with.
pub struct Copied {
    /// In milliseconds since 1970.
    pub modified_ms: u64,
    /// Without quotes.
    pub etag: String,
    /// The copy's checksum.
    pub checksum: Option<StoredChecksum>,
}

impl From<&StoredObject> for Copied {
    fn from(stored: &StoredObject) -> Copied {
        Copied { modified_ms: stored.modified_ms, etag: stored.etag.clone(), checksum: stored.checksum.clone() }
    }
}

/// The document of a copy.
pub fn render(root: &str, copied: &Copied) -> String {
    let mut xml = XmlWriter::s3_document(root);
    xml.text("LastModified", &iso8601(copied.modified_ms)).text("ETag", &headers::quoted(&copied.etag));
    checksums::write_xml(&mut xml, copied.checksum.as_ref(), None, root == "CopyObjectResult");
    xml.close(root);
    xml.finish()
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};
    use proptest::prelude::*;

    use super::SourceName;

    fn parse(source: &[u8]) -> Option<(String, String, Option<String>)> {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-copy-source", HeaderValue::from_bytes(source).unwrap());
        SourceName::parse(&headers).ok().map(|name| (name.bucket, name.key, name.version_id))
    }
    fn name(bucket: &str, key: &str, version: Option<&str>) -> Option<(String, String, Option<String>)> {
        Some((bucket.into(), key.into(), version.map(str::to_owned)))
    }

    #[test]
    fn sources_are_read_in_all_their_forms() {
        assert_eq!(parse(b"b/k"), name("b", "k", None));
        assert_eq!(parse(b"/b/k/l"), name("b", "k/l", None));
        assert_eq!(parse(b"b%2Fk%20l"), name("b", "k l", None));
        assert_eq!(parse(b"b/k+l"), name("b", "k+l", None));
        assert_eq!(parse(b"b/k?versionId=null"), name("b", "k", Some("null")));
        assert_eq!(parse(b"b/k%3FversionId=v"), name("b", "k?versionId=v", None));
        assert_eq!(parse("b/ä".as_bytes()), name("b", "ä", None));
        for bad in ["", "/", "b", "b/", "/b", "//k", "%ff/k"] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(source in "[ -~]{0,60}") {
            let _ = parse(source.as_bytes());
        }
    }
}
