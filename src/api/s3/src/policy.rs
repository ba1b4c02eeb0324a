//! Bucket policy, its status, public access block and object ownership: the calls that read and change them.
//!
//! Every change here counts on all nodes before it is answered.
//!
//! Source: s3 reference §3.11, §3.12.

use garage_api_common::{
    ErrorCode, S3Error,
    http::{Body, full_body},
    limits::XML_BODY_MAX_BYTES,
    xml::{Element, XmlWriter, malformed, parse},
};
use garage_model::{
    ModelError,
    error::ClientError,
    policy::Policy,
    rows::{
        access::{Ownership, PublicAccessBlock, StoredPolicy},
        bucket::BucketRow,
    },
};
use garage_table::control::Effect;
use http::{HeaderValue, Response, StatusCode, header};

use crate::{
    answer,
    request::{IncomingBody, Request, Services, Target},
    settings::owner_id_of,
};

/// GET of the policy, byte for byte as it was set.
pub fn get(target: &Target) -> Result<Response<Body>, S3Error> {
    let stored = target.bucket.row.access.policy.as_ref().ok_or_else(|| no_policy(target))?;
    let mut response = Response::new(full_body(stored.text.clone()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(stored.text.len()));
    Ok(response)
}

fn no_policy(target: &Target) -> S3Error {
    S3Error::of(ErrorCode::NoSuchBucketPolicy).with("BucketName", &target.bucket_name)
}

fn malformed_policy(message: impl Into<String>) -> S3Error {
    S3Error::new(ErrorCode::MalformedPolicy, message.into())
}

/// PUT of the policy. Errors: 400 `MalformedPolicy`, 403 `AccessDenied` for a public one where those are blocked.
pub async fn put(services: &Services, target: &Target, request: &Request, body: IncomingBody) -> Result<Response<Body>, S3Error> {
    let document = body.read_with_integrity(XML_BODY_MAX_BYTES).await?;
    let text =
        std::str::from_utf8(&document).map_err(|_| malformed_policy("Policies must be valid JSON and the first byte must be '{'"))?;
    let policy = Policy::parse(text, &target.bucket_name).map_err(|error| malformed_policy(error.0))?;
    for id in policy.key_ids() {
        let key = services.access.keys().get(id, request.context()).await.map_err(|error| target.subject().error(error))?;
        if key.is_none() {
            return Err(malformed_policy("Invalid principal in policy").with("Detail", format!("\"AWS\" : \"{id}\"")));
        }
    }
    let (is_public, stored) = (policy.is_public(), StoredPolicy { text: text.to_owned(), bucket_name: target.bucket_name.clone() });
    let change = change(services, target, request, S3Error::access_denied, |row| {
        if is_public && row.access.block().block_public_policy {
            return false;
        }
        row.access.policy = Some(stored.clone());
        true
    });
    change.await?;
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

/// DELETE of the policy.
pub async fn delete(services: &Services, target: &Target, request: &Request) -> Result<Response<Body>, S3Error> {
    set(services, target, request, StatusCode::NO_CONTENT, |row| row.access.policy = None).await
}

/// GET of whether the policy lets everyone in.
pub fn get_status(target: &Target) -> Result<Response<Body>, S3Error> {
    let stored = target.bucket.row.access.policy.as_ref().ok_or_else(|| no_policy(target))?;
    let policy = Policy::parse(&stored.text, &stored.bucket_name).map_err(S3Error::internal)?;
    let mut xml = XmlWriter::s3_document("PolicyStatus");
    xml.value("IsPublic", policy.is_public()).close("PolicyStatus");
    Ok(answer::xml(xml.finish()))
}

/// Changes the bucket's row unless `change` says no, which is answered with `refusal`.
async fn change(
    services: &Services,
    target: &Target,
    request: &Request,
    refusal: fn() -> S3Error,
    mut change: impl FnMut(&mut BucketRow) -> bool + Send,
) -> Result<(), S3Error> {
    let mut refused = false;
    // Restricts: who reads a setting back through another node, or is refused by it, must find it there.
    let changed = services.access.buckets().change(target.bucket.id, Effect::Restricts, request.context(), |row| {
        refused = !change(row);
        if refused { Err(ClientError::Invalid("the bucket's settings forbid it".into())) } else { Ok(()) }
    });
    match changed.await {
        Ok(_) => Ok(()),
        Err(ModelError::Client(ClientError::Invalid(_))) if refused => Err(refusal()),
        Err(error) => Err(target.subject().error(error)),
    }
}

/// Changes the bucket's row, whatever it holds, and answers with `status`.
pub async fn set(
    services: &Services,
    target: &Target,
    request: &Request,
    status: StatusCode,
    mut set: impl FnMut(&mut BucketRow) + Send,
) -> Result<Response<Body>, S3Error> {
    change(services, target, request, S3Error::access_denied, |row| {
        set(row);
        true
    })
    .await?;
    Ok(answer::empty(status))
}

type Switch = fn(&mut PublicAccessBlock) -> &mut bool;
const SWITCHES: [(&str, Switch); 4] = [
    ("BlockPublicAcls", |block| &mut block.block_public_acls),
    ("IgnorePublicAcls", |block| &mut block.ignore_public_acls),
    ("BlockPublicPolicy", |block| &mut block.block_public_policy),
    ("RestrictPublicBuckets", |block| &mut block.restrict_public_buckets),
];

/// GET of the public access block.
pub fn get_public_access_block(target: &Target) -> Result<Response<Body>, S3Error> {
    let missing = || S3Error::of(ErrorCode::NoSuchPublicAccessBlockConfiguration).with("BucketName", &target.bucket_name);
    let mut block = target.bucket.row.access.public_access_block.ok_or_else(missing)?;
    let mut xml = XmlWriter::s3_document("PublicAccessBlockConfiguration");
    for (name, switch) in SWITCHES {
        xml.value(name, *switch(&mut block));
    }
    xml.close("PublicAccessBlockConfiguration");
    Ok(answer::xml(xml.finish()))
}

/// PUT of the public access block.
pub async fn put_public_access_block(
    services: &Services,
    target: &Target,
    request: &Request,
    body: IncomingBody,
) -> Result<Response<Body>, S3Error> {
    let block = read_block(&body.read_with_integrity(XML_BODY_MAX_BYTES).await?)?;
    set(services, target, request, StatusCode::OK, |row| row.access.public_access_block = Some(block)).await
}

/// DELETE of the public access block.
pub async fn delete_public_access_block(services: &Services, target: &Target, request: &Request) -> Result<Response<Body>, S3Error> {
    set(services, target, request, StatusCode::NO_CONTENT, |row| row.access.public_access_block = None).await
}

/// The block in a document. Errors: 400 `MalformedXML`.
pub fn read_block(document: &[u8]) -> Result<PublicAccessBlock, S3Error> {
    let document = parse(document, &["PublicAccessBlockConfiguration"])?;
    document.only(&SWITCHES.map(|(name, _)| name))?;
    let mut block = PublicAccessBlock::default();
    for (name, switch) in SWITCHES {
        if let Some(value) = document.at_most_one(name)? {
            *switch(&mut block) = truth(value)?;
        }
    }
    Ok(block)
}

/// `true` or `false` in an element.
pub fn truth(element: &Element) -> Result<bool, S3Error> {
    match element.text.trim() {
        text if text.eq_ignore_ascii_case("true") => Ok(true),
        text if text.eq_ignore_ascii_case("false") => Ok(false),
        _ => Err(malformed()),
    }
}

/// GET of who owns objects.
pub fn get_ownership(target: &Target) -> Result<Response<Body>, S3Error> {
    let missing = || S3Error::of(ErrorCode::OwnershipControlsNotFoundError).with("BucketName", &target.bucket_name);
    let name = target.bucket.row.access.ownership.name().ok_or_else(missing)?;
    let mut xml = XmlWriter::s3_document("OwnershipControls");
    xml.open("Rule").text("ObjectOwnership", name).close("Rule").close("OwnershipControls");
    Ok(answer::xml(xml.finish()))
}

/// PUT of who owns objects. Errors: 400 `InvalidBucketAclWithObjectOwnership` while the bucket's list grants something to others.
pub async fn put_ownership(services: &Services, target: &Target, request: &Request, body: IncomingBody) -> Result<Response<Body>, S3Error> {
    let ownership = read_ownership(&body.read_with_integrity(XML_BODY_MAX_BYTES).await?)?;
    let owner = owner_id_of(target, request).to_owned();
    let refusal = || S3Error::of(ErrorCode::InvalidBucketAclWithObjectOwnership);
    let change = change(services, target, request, refusal, |row| {
        let is_owner = |id: &str| id == owner || row.permissions.get(id).is_some_and(|permissions| permissions.owner);
        let grants_others = row.access.acl.as_ref().is_some_and(|acl| !acl.is_private_to_those(is_owner));
        if !ownership.has_acls() && grants_others {
            return false;
        }
        row.access.ownership = ownership;
        true
    });
    change.await?;
    Ok(answer::empty(StatusCode::OK))
}

/// DELETE of who owns objects: from now on lists count, as in buckets made before there was a choice.
pub async fn delete_ownership(services: &Services, target: &Target, request: &Request) -> Result<Response<Body>, S3Error> {
    set(services, target, request, StatusCode::NO_CONTENT, |row| row.access.ownership = Ownership::Removed).await
}

/// The ownership in a document. Errors: 400 `MalformedXML`.
pub fn read_ownership(document: &[u8]) -> Result<Ownership, S3Error> {
    let document = parse(document, &["OwnershipControls"])?;
    document.only(&["Rule"])?;
    let rule = document.at_most_one("Rule")?.ok_or_else(malformed)?;
    rule.only(&["ObjectOwnership"])?;
    Ownership::of_name(rule.required("ObjectOwnership")?).ok_or_else(malformed)
}

#[cfg(test)]
mod tests {
    use garage_api_common::ErrorCode;
    use garage_model::rows::access::Ownership;

    use super::{read_block, read_ownership};

    #[test]
    fn what_a_block_does_not_name_is_off() {
        let read = |inner: &str| {
            let document = format!("<PublicAccessBlockConfiguration>{inner}</PublicAccessBlockConfiguration>");
            read_block(document.as_bytes()).map_err(|error| error.code)
        };
        let block = read("<IgnorePublicAcls>TRUE</IgnorePublicAcls>").unwrap();
        assert!(block.ignore_public_acls && !block.block_public_acls && !block.block_public_policy && !block.restrict_public_buckets);
        assert_eq!(read("<IgnorePublicAcls>perhaps</IgnorePublicAcls>"), Err(ErrorCode::MalformedXML));
        assert_eq!(read("<Nonsense/>"), Err(ErrorCode::MalformedXML));
        assert_eq!(read("<BlockPublicAcls>true</BlockPublicAcls><BlockPublicAcls>false</BlockPublicAcls>"), Err(ErrorCode::MalformedXML));
    }

    #[test]
    fn ownership_is_one_rule() {
        let read =
            |inner: &str| read_ownership(format!("<OwnershipControls>{inner}</OwnershipControls>").as_bytes()).map_err(|error| error.code);
        let rule = |name: &str| format!("<Rule><ObjectOwnership>{name}</ObjectOwnership></Rule>");
        assert_eq!(read(&rule("ObjectWriter")), Ok(Ownership::ObjectWriter));
        assert_eq!(read(&rule("Nobody")), Err(ErrorCode::MalformedXML));
        assert_eq!(read(""), Err(ErrorCode::MalformedXML));
        assert_eq!(read(&rule("ObjectWriter").repeat(2)), Err(ErrorCode::MalformedXML));
    }
}
