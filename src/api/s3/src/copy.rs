//! CopyObject, and what it shares with UploadPartCopy: finding a source that the key may read and whose conditions hold.
//!
//! Source: s3 reference §3.6.

use garage_api_common::{
    ErrorCode, S3Error,
    checksum::ChecksumAlgorithm,
    conditions::{ReadConditions, Validators, WriteCondition as ParsedCondition},
    http::Body,
    time::iso8601,
    xml::XmlWriter,
};
use garage_model::{
    access::Right,
    body::BodyDigests,
    objects::{BucketRef, CopySource, FoundObject, StoredObject},
    rows::{
        checksum::{ChecksumKind, StoredChecksum},
        object::ObjectHeaders,
    },
};
use http::{HeaderMap, Response};
use percent_encoding::percent_decode;

use crate::{
    answer,
    api::{authorize_bucket, check_owner},
    checksums,
    content::VerifiedContent,
    error::Subject,
    get::{invalid_version_id, looks_like_version_id},
    headers,
    limits::COPY_SOURCE_MAX_BYTES,
    put::precheck,
    request::{Request, Services, Target, write_condition},
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

    fn check_version(&self) -> Result<(), S3Error> {
        match self.version_id.as_deref() {
            None | Some("null") => Ok(()),
            Some(id) if looks_like_version_id(id) => {
                Err(S3Error::of(ErrorCode::NoSuchVersion).with("Key", &self.key).with("VersionId", id))
            }
            Some(id) => Err(invalid_version_id(id)),
        }
    }
}

/// A source that was found.
pub struct Source {
    /// The object.
    pub found: FoundObject,
    bucket: BucketRef,
    name: SourceName,
}

/// Finds the source of a copy. Errors: `NoSuchBucket`, `NoSuchKey`, `NoSuchVersion`, `AccessDenied`, `PreconditionFailed`.
pub async fn find_source(services: &Services, request: &Request) -> Result<Source, S3Error> {
    let name = SourceName::parse(&request.headers)?;
    let bucket = authorize_bucket(services, request, &name.bucket, Right::Read).await?;
    check_owner(request, &bucket, "x-amz-source-expected-bucket-owner")?;
    name.check_version()?;
    let bucket = bucket.as_ref();
    let subject = Subject { bucket: &name.bucket, key: &name.key, ..Subject::default() };
    let found = services.objects.get(&bucket, &name.key, request.stream_context()).await.map_err(|error| subject.error(error))?;
    let found = found.ok_or_else(|| S3Error::no_such_key(&name.key))?;
    let stored = Validators { etag: &found.meta.etag, last_modified_ms: found.meta.modified_ms };
    ReadConditions::of_copy_source(&request.headers).check_copy_source(stored, request.now_ms)?;
    Ok(Source { found, bucket, name })
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

/// PUT of an object with the content of another.
pub async fn copy_object(services: &Services, target: &Target, request: &Request) -> Result<Response<Body>, S3Error> {
    headers::refuse_on_write(&request.headers)?;
    let metadata = directive(request, "x-amz-metadata-directive", "Unknown metadata directive.")?;
    directive(request, "x-amz-tagging-directive", "Unknown tagging directive.")?;
    let algorithm = request.header("x-amz-checksum-algorithm")?.map(ChecksumAlgorithm::from_name).transpose()?;
    let condition = write_condition(ParsedCondition::parse(&request.headers)?);
    let own = headers::object_headers(&request.headers)?;
    let source = find_source(services, request).await?;
    refuse_idle_copy(target, request, &source, metadata)?;
    if COPY_SOURCE_MAX_BYTES < source.found.meta.size_bytes {
        let message =
            format!("The specified copy source is larger than the maximum allowable size for a copy source: {COPY_SOURCE_MAX_BYTES}");
        return Err(S3Error::invalid_request(message));
    }
    let copied = match metadata {
        Directive::Replace => own,
        Directive::Copy => {
            ObjectHeaders { storage_class: own.storage_class, website_redirect: own.website_redirect, ..source.found.meta.headers.clone() }
        }
    };
    precheck(services, target, request, &condition).await?;
    let recomputed = recompute(services, target, request, &source, algorithm).await?;
    let (bucket, subject) = (target.bucket_ref(), target.write_subject(&condition));
    let found = CopySource { found: &source.found };
    let context = request.stream_context();
    let copy = services.objects.copy_recomputed(found, recomputed, &bucket, &target.key, copied, &condition, context);
    let stored = copy.await.map_err(|error| subject.error(error))?;
    Ok(answer::xml(render("CopyObjectResult", &stored.into())))
}

/// A copy of an object onto itself must change something.
fn refuse_idle_copy(target: &Target, request: &Request, source: &Source, metadata: Directive) -> Result<(), S3Error> {
    let changes = ["x-amz-storage-class", "x-amz-website-redirect-location"].iter().any(|name| request.headers.contains_key(*name));
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
    let algorithm = wanted.or_else(|| held.map(|held| checksums::to_api(held.algorithm))).unwrap_or(checksums::DEFAULT);
    let is_kept = |held: &StoredChecksum| held.kind == ChecksumKind::FullObject && checksums::to_api(held.algorithm) == algorithm;
    if held.is_some_and(is_kept) {
        return Ok(None);
    }
    let size_bytes = source.found.meta.size_bytes;
    let content = services.objects.read_as_body(&source.found, 0..size_bytes, request.stream_context());
    let content = VerifiedContent::of_copy(&services.runtime, content, size_bytes, algorithm, ChecksumKind::FullObject)?;
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

impl From<StoredObject> for Copied {
    fn from(stored: StoredObject) -> Copied {
        Copied { modified_ms: stored.modified_ms, etag: stored.etag, checksum: stored.checksum }
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
