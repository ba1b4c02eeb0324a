//! Tags of objects and buckets: their header and document forms, and the calls that read and change them.
//!
//! Source: s3 reference §3.2 (buckets), §3.10 (objects).

use garage_api_common::{
    ErrorCode, S3Error,
    http::Body,
    xml::{Element, XmlWriter, malformed, parse},
};
use garage_model::rows::{
    access::Tag,
    object::{ObjectHeaders, ObjectMeta},
};
use garage_table::control::Effect;
use http::{HeaderMap, Response, StatusCode};

use crate::{
    answer,
    authorize::authorize_tags,
    get, headers,
    limits::{BUCKET_TAGS_MAX, OBJECT_TAGS_MAX, TAG_KEY_MAX_CHARS, TAG_VALUE_MAX_CHARS, TAGGING_MAX_BYTES},
    request::{IncomingBody, Request, Services, Target},
    versioning,
};

/// The tags in `x-amz-tagging`: `a=b&c=d`, percent-encoded. Errors: 400 `InvalidArgument`, `InvalidTag`, `BadRequest`.
pub fn of_header(headers: &HeaderMap) -> Result<Vec<Tag>, S3Error> {
    const NAME: &str = "x-amz-tagging";
    let text = headers::text(headers, NAME)?.unwrap_or_default();
    let malformed = || {
        let message =
            "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name duplicates.";
        S3Error::invalid_argument(message, NAME, text)
    };
    let decode = |text: &str| garage_api_common::request::decode_once(&text.replace('+', " ")).map_err(|_| malformed());
    let mut tags: Vec<Tag> = Vec::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (key, value) = (decode(key)?, decode(value)?);
        if tags.iter().any(|(other, _)| *other == key) {
            return Err(malformed());
        }
        tags.push((key, value));
    }
    check(&tags, OBJECT_TAGS_MAX)?;
    Ok(tags)
}

/// The tags in a `<Tagging>` document. Errors: 400 `MalformedXML`, `InvalidTag`, `BadRequest`.
pub fn of_document(document: &[u8], max: usize) -> Result<Vec<Tag>, S3Error> {
    let tagging = parse(document, &["Tagging"])?;
    tagging.only(&["TagSet"])?;
    of_set(tagging.at_most_one("TagSet")?.ok_or_else(malformed)?, max)
}

/// The tags in an element that holds `<Tag>` elements.
pub fn of_set(set: &Element, max: usize) -> Result<Vec<Tag>, S3Error> {
    set.only(&["Tag"])?;
    let mut tags = Vec::new();
    for tag in &set.children {
        tag.only(&["Key", "Value"])?;
        let text = |name| Ok::<_, S3Error>(tag.at_most_one(name)?.ok_or_else(malformed)?.text.clone());
        tags.push((text("Key")?, text("Value")?));
    }
    check(&tags, max)?;
    Ok(tags)
}

fn check(tags: &[Tag], max: usize) -> Result<(), S3Error> {
    if max < tags.len() {
        let what = if max == OBJECT_TAGS_MAX { "Object tags" } else { "Bucket tag count" };
        return Err(S3Error::new(ErrorCode::BadRequest, format!("{what} cannot be greater than {max}")));
    }
    let invalid = |message: &'static str| Err(S3Error::new(ErrorCode::InvalidTag, message));
    for (index, (key, value)) in tags.iter().enumerate() {
        let length = key.chars().count();
        if !(1..=TAG_KEY_MAX_CHARS).contains(&length) || !is_allowed(key) {
            return Err(S3Error::new(ErrorCode::InvalidTag, "The TagKey you have provided is invalid").with("TagKey", key));
        }
        if key.starts_with("aws:") {
            return invalid("System tags cannot be added/updated by requester");
        }
        if TAG_VALUE_MAX_CHARS < value.chars().count() || !is_allowed(value) {
            return Err(S3Error::new(ErrorCode::InvalidTag, "The TagValue you have provided is invalid").with("TagValue", value));
        }
        if tags[..index].iter().any(|(other, _)| other == key) {
            return invalid("Cannot provide multiple Tags with the same key");
        }
    }
    Ok(())
}

fn is_allowed(text: &str) -> bool {
    text.chars().all(|c| c.is_alphanumeric() || c == ' ' || "+-=._:/@".contains(c))
}

/// The document of some tags.
pub fn render(tags: &[Tag]) -> String {
    let mut xml = XmlWriter::s3_document("Tagging");
    xml.open("TagSet");
    for (key, value) in tags {
        xml.open("Tag").text("Key", key).text("Value", value).close("Tag");
    }
    xml.close("TagSet").close("Tagging");
    xml.finish()
}

/// GET of a bucket's tags.
pub fn get_of_bucket(target: &Target) -> Result<Response<Body>, S3Error> {
    if target.bucket.row.tags.is_empty() {
        return Err(S3Error::of(ErrorCode::NoSuchTagSet).with("BucketName", &target.bucket_name));
    }
    Ok(answer::xml(render(&target.bucket.row.tags)))
}

/// PUT of a bucket's tags.
pub async fn put_of_bucket(services: &Services, target: &Target, request: &Request, body: IncomingBody) -> Result<Response<Body>, S3Error> {
    let tags = of_document(&body.read_with_integrity(TAGGING_MAX_BYTES).await?, BUCKET_TAGS_MAX)?;
    store(services, target, request, tags).await
}

/// DELETE of a bucket's tags.
pub async fn delete_of_bucket(services: &Services, target: &Target, request: &Request) -> Result<Response<Body>, S3Error> {
    store(services, target, request, Vec::new()).await
}

async fn store(services: &Services, target: &Target, request: &Request, tags: Vec<Tag>) -> Result<Response<Body>, S3Error> {
    // Nothing is decided by a bucket's tags, but who reads them after this answer must find them.
    let changed = services.access.buckets().change(target.bucket.id, Effect::Restricts, request.context(), |row| {
        row.tags.clone_from(&tags);
        Ok(())
    });
    changed.await.map_err(|error| target.subject().error(error))?;
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

/// GET of an object's tags.
pub async fn get_of_object(services: &Services, target: &Target, request: &Request) -> Result<Response<Body>, S3Error> {
    let found = get::find(services, target, request, false).await?;
    let mut response = answer::xml(render(&found.meta.headers.tags));
    versioning::add_version(response.headers_mut(), versioning::shown(target.bucket.row.versioning, found.slot));
    Ok(response)
}

/// PUT of an object's tags. Neither a new version nor another Last-Modified.
pub async fn put_of_object(services: &Services, target: &Target, request: &Request, body: IncomingBody) -> Result<Response<Body>, S3Error> {
    let tags = of_document(&body.read_with_integrity(TAGGING_MAX_BYTES).await?, OBJECT_TAGS_MAX)?;
    authorize_tags(services, target, request, &tags).await?;
    change_object(services, target, request, StatusCode::OK, |headers| headers.tags.clone_from(&tags)).await
}

/// DELETE of an object's tags.
pub async fn delete_of_object(services: &Services, target: &Target, request: &Request) -> Result<Response<Body>, S3Error> {
    change_object(services, target, request, StatusCode::NO_CONTENT, |headers| headers.tags.clear()).await
}

/// Changes what is known of the version that a request names beside its content.
pub async fn change_object(
    services: &Services,
    target: &Target,
    request: &Request,
    status: StatusCode,
    change: impl Fn(&mut ObjectHeaders) + Send + Sync,
) -> Result<Response<Body>, S3Error> {
    let slot = versioning::requested(request, target)?;
    let change = |meta: &mut ObjectMeta, _| {
        change(&mut meta.headers);
        Ok(())
    };
    let changed = services.objects.change_version(&target.bucket_ref(), &target.key, slot, request.context(), change).await;
    match changed {
        Ok(slot) => {
            let mut response = answer::empty(status);
            versioning::add_version(response.headers_mut(), versioning::shown(target.bucket.row.versioning, Some(slot)));
            Ok(response)
        }
        Err(error) => Err(versioning::change_error(target, request, slot, error)),
    }
}

#[cfg(test)]
mod tests {
    use garage_api_common::ErrorCode;
    use http::{HeaderMap, HeaderValue};
    use proptest::prelude::*;

    use super::{of_document, of_header, render};

    fn header(value: &str) -> Result<Vec<(String, String)>, ErrorCode> {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-tagging", HeaderValue::from_str(value).unwrap());
        of_header(&headers).map_err(|error| error.code)
    }
    fn tag(key: &str, value: &str) -> (String, String) {
        (key.into(), value.into())
    }

    #[test]
    fn the_header_is_a_query() {
        assert_eq!(header(""), Ok(vec![]));
        assert_eq!(header("a=b&c"), Ok(vec![tag("a", "b"), tag("c", "")]));
        assert_eq!(header("a+b=c%2Fd%40"), Ok(vec![tag("a b", "c/d@")]));
        assert_eq!(header("a=1&a=2"), Err(ErrorCode::InvalidArgument));
        assert_eq!(header("a=%zz"), Err(ErrorCode::InvalidArgument));
        assert_eq!(header("=b"), Err(ErrorCode::InvalidTag));
        assert_eq!(header("a%3Cb=c"), Err(ErrorCode::InvalidTag));
        assert_eq!(header("aws:a=b"), Err(ErrorCode::InvalidTag));
        let eleven: Vec<String> = (0..11).map(|number| format!("k{number}=v")).collect();
        assert_eq!(header(&eleven.join("&")), Err(ErrorCode::BadRequest));
        assert_eq!(header(&format!("{}=v", "k".repeat(128))).map(|tags| tags.len()), Ok(1));
        assert_eq!(header(&format!("{}=v", "k".repeat(129))), Err(ErrorCode::InvalidTag));
        assert_eq!(header(&format!("k={}", "v".repeat(257))), Err(ErrorCode::InvalidTag));
    }

    #[test]
    fn the_document_is_strict() {
        let code = |inner: &str| of_document(format!("<Tagging>{inner}</Tagging>").as_bytes(), 10).map(drop).map_err(|error| error.code);
        assert_eq!(code("<TagSet/>"), Ok(()));
        assert_eq!(code("<TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet>"), Ok(()));
        assert_eq!(code(""), Err(ErrorCode::MalformedXML));
        assert_eq!(code("<TagSet><Tag><Key>a</Key></Tag></TagSet>"), Err(ErrorCode::MalformedXML));
        assert_eq!(code("<TagSet><Tag><Key>a</Key><Value/><More/></Tag></TagSet>"), Err(ErrorCode::MalformedXML));
        let twice = "<Tag><Key>a</Key><Value>b</Value></Tag>".repeat(2);
        assert_eq!(code(&format!("<TagSet>{twice}</TagSet>")), Err(ErrorCode::InvalidTag));
    }

    proptest! {
        #[test]
        fn what_is_rendered_reads_back(tags in prop::collection::btree_map("[a-z+=./@: ]{1,20}", "[a-zA-Z0-9+=./@: ]{0,20}", 0..10)) {
            let tags: Vec<(String, String)> = tags.into_iter().filter(|(key, _)| !key.starts_with("aws:")).collect();
            prop_assert_eq!(of_document(render(&tags).as_bytes(), 10).unwrap(), tags);
        }
    }
}
