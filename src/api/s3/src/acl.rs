//! Access control lists on the wire: canned lists, grant headers, documents; and the calls that read and change the lists of buckets.
//!
//! Invariants:
//! - a list that can't be obeyed is refused, never ignored: while the bucket's owner owns everything (BucketOwnerEnforced) only what grants
//!   nothing passes;
//! - keys with rights on a bucket are shown in its list, whether a list or the cluster's operator gave them the rights.
//!
//! Source: s3 reference §3.11.

use std::collections::BTreeSet;

use garage_api_common::{
    ErrorCode, S3Error,
    http::Body,
    xml::{Element, XmlWriter, parse},
};
use garage_model::{
    acl::{Acl, CannedAcl, GRANTS_MAX, Grant, Grantee, Permission},
    rows::{access::Ownership, bucket::BucketRow},
};
use garage_table::control::Effect;
use http::{HeaderMap, Response, StatusCode};

use crate::{
    answer, get, headers,
    limits::ACL_MAX_BYTES,
    request::{IncomingBody, Request, Services, Target},
    settings::{Owner, Owners, owner_id_of},
    tagging::change_object,
};

/// What a list stands on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AclOn {
    /// A bucket.
    Bucket,
    /// An object.
    Object,
}

const GRANT_HEADERS: [(&str, Permission); 5] = [
    ("x-amz-grant-full-control", Permission::FullControl),
    ("x-amz-grant-read", Permission::Read),
    ("x-amz-grant-write", Permission::Write),
    ("x-amz-grant-read-acp", Permission::ReadAcp),
    ("x-amz-grant-write-acp", Permission::WriteAcp),
];

fn has_grant_headers(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with("x-amz-grant-"))
}

/// The list that a request's headers ask for; `None`: they ask for none.
///
/// Errors: 400 `InvalidArgument` for what is unknown, `InvalidRequest` for a canned list beside grants.
pub async fn of_headers(
    services: &Services,
    request: &Request,
    on: AclOn,
    owner: &str,
    bucket_owner: &str,
) -> Result<Option<Acl>, S3Error> {
    let canned = canned(&request.headers, on)?;
    if !has_grant_headers(&request.headers) {
        return Ok(canned.map(|canned| canned.expand(owner, bucket_owner)));
    }
    if canned.is_some() {
        return Err(S3Error::invalid_request("Specifying both Canned ACLs and Header Grants is not allowed"));
    }
    let acl = Acl { grants: granted(&request.headers)? };
    check_keys(services, request, &acl).await?;
    Ok(Some(acl))
}

/// The canned list of the headers, if it may stand there.
fn canned(headers: &HeaderMap, on: AclOn) -> Result<Option<CannedAcl>, S3Error> {
    const NAME: &str = "x-amz-acl";
    let Some(name) = headers::text(headers, NAME)? else { return Ok(None) };
    let known = CannedAcl::of_name(name).filter(|canned| on == AclOn::Bucket || *canned != CannedAcl::LogDeliveryWrite);
    known.map(Some).ok_or_else(|| S3Error::invalid_argument("The canned ACL is not known", NAME, name))
}

/// The grants of the headers: `id="…", uri="…"`.
fn granted(headers: &HeaderMap) -> Result<Vec<Grant>, S3Error> {
    let mut grants = Vec::new();
    for (name, permission) in GRANT_HEADERS {
        let Some(text) = headers::text(headers, name)? else { continue };
        for grantee in text.split(',').map(str::trim).filter(|grantee| !grantee.is_empty()) {
            let malformed = || S3Error::invalid_argument("Argument format not recognized", name, text);
            let (kind, value) = grantee.split_once('=').ok_or_else(malformed)?;
            let value = value.trim().trim_matches('"').trim_matches('\'');
            let grantee = match kind.trim().to_ascii_lowercase().as_str() {
                "id" => Grantee::Key(value.to_owned()),
                "uri" => Grantee::of_uri(value).ok_or_else(|| S3Error::invalid_argument("Invalid group uri", "uri", value))?,
                "emailaddress" => return Err(S3Error::of(ErrorCode::UnresolvableGrantByEmailAddress).with("emailAddress", value)),
                _ => return Err(malformed()),
            };
            grants.push(Grant { grantee, permission });
        }
    }
    if grants.is_empty() || headers.keys().any(|name| is_unknown_grant(name.as_str())) {
        return Err(S3Error::invalid_argument("Argument format not recognized", "x-amz-grant", ""));
    }
    check_count(&grants)?;
    Ok(grants)
}

fn is_unknown_grant(name: &str) -> bool {
    name.starts_with("x-amz-grant-") && !GRANT_HEADERS.iter().any(|(known, _)| *known == name)
}

fn check_count(grants: &[Grant]) -> Result<(), S3Error> {
    if grants.len() <= GRANTS_MAX {
        return Ok(());
    }
    Err(S3Error::invalid_request(format!("An ACL can have up to {GRANTS_MAX} grants")))
}

/// Every key that a list names must exist. Errors: 400 `InvalidArgument`.
async fn check_keys(services: &Services, request: &Request, acl: &Acl) -> Result<(), S3Error> {
    let ids: BTreeSet<&str> = acl
        .grants
        .iter()
        .filter_map(|grant| match &grant.grantee {
            Grantee::Key(id) => Some(id.as_str()),
            _ => None,
        })
        .collect();
    for id in ids {
        let key = services.access.keys().get(id, request.context()).await;
        if key.map_err(|error| crate::error::Subject::default().error(error))?.is_none() {
            return Err(S3Error::invalid_argument("Invalid id", "CanonicalUser/ID", id));
        }
    }
    Ok(())
}

/// The list in a document, with the owner that it names. Errors: 400 `MalformedACLError`, `InvalidArgument`.
pub fn of_document(document: &[u8]) -> Result<(String, Acl), S3Error> {
    let malformed = || S3Error::of(ErrorCode::MalformedACLError);
    let policy = parse(document, &["AccessControlPolicy"]).map_err(|error| match error.code {
        ErrorCode::MalformedXML => malformed(),
        _ => error,
    })?;
    policy.only(&["Owner", "AccessControlList"]).map_err(|_| malformed())?;
    let owner = policy.at_most_one("Owner").map_err(|_| malformed())?.ok_or_else(malformed)?;
    let owner = owner.value_of("ID").filter(|id| !id.is_empty()).ok_or_else(malformed)?.to_owned();
    let list = policy.at_most_one("AccessControlList").map_err(|_| malformed())?.ok_or_else(malformed)?;
    list.only(&["Grant"]).map_err(|_| malformed())?;
    let grants = list.children.iter().map(read_grant).collect::<Result<Vec<Grant>, S3Error>>()?;
    check_count(&grants)?;
    Ok((owner, Acl { grants }))
}

fn read_grant(grant: &Element) -> Result<Grant, S3Error> {
    let malformed = || S3Error::of(ErrorCode::MalformedACLError);
    let grantee = grant.child("Grantee").ok_or_else(malformed)?;
    let permission = grant.value_of("Permission").and_then(Permission::of_name).ok_or_else(malformed)?;
    let grantee = match (grantee.value_of("ID"), grantee.value_of("URI"), grantee.value_of("EmailAddress")) {
        (Some(id), None, None) => Grantee::Key(id.to_owned()),
        (None, Some(uri), None) => Grantee::of_uri(uri).ok_or_else(|| S3Error::invalid_argument("Invalid group uri", "Group/URI", uri))?,
        (None, None, Some(email)) => {
            return Err(S3Error::of(ErrorCode::UnresolvableGrantByEmailAddress).with("emailAddress", email));
        }
        _ => return Err(malformed()),
    };
    Ok(Grant { grantee, permission })
}

/// The document of a list.
pub fn render(owner: &Owner, grants: &[(&Grant, &Owner)]) -> String {
    const XSI: &str = "http://www.w3.org/2001/XMLSchema-instance";
    let mut xml = XmlWriter::s3_document("AccessControlPolicy");
    owner.write(&mut xml, "Owner");
    xml.open("AccessControlList");
    for (grant, name) in grants {
        xml.open("Grant");
        match grant.grantee.uri() {
            None => {
                xml.open_with("Grantee", &[("xmlns:xsi", XSI), ("xsi:type", "CanonicalUser")]);
                name.write_fields(&mut xml);
            }
            Some(uri) => {
                xml.open_with("Grantee", &[("xmlns:xsi", XSI), ("xsi:type", "Group")]).text("URI", uri);
            }
        }
        xml.close("Grantee").text("Permission", grant.permission.name()).close("Grant");
    }
    xml.close("AccessControlList").close("AccessControlPolicy");
    xml.finish()
}

/// The document of these grants, with the names of keys.
async fn answer_with(
    services: &Services,
    target: &Target,
    request: &Request,
    owner: &str,
    grants: &[Grant],
) -> Result<Response<Body>, S3Error> {
    let id_of = |grant: &Grant| if let Grantee::Key(id) = &grant.grantee { Some(id.clone()) } else { None };
    let ids: Vec<String> = grants.iter().filter_map(id_of).collect();
    let owners = Owners::find(services, target, request, ids.iter().map(String::as_str).chain([owner])).await?;
    let named: Vec<(&Grant, &Owner)> = grants.iter().map(|grant| (grant, owners.of(id_of(grant).as_deref()))).collect();
    Ok(answer::xml(render(owners.of(Some(owner)), &named)))
}

/// GET of a bucket's list: its own, and what rights of keys come to.
pub async fn get_of_bucket(services: &Services, target: &Target, request: &Request) -> Result<Response<Body>, S3Error> {
    let owner = owner_id_of(target, request);
    let row = &target.bucket.row;
    let own = row.access.acl.clone().filter(|_| row.access.ownership.has_acls());
    let mut grants = own.unwrap_or_else(|| Acl::private(owner)).grants;
    for grant in grants_of_rights(row) {
        let is_covered = |held: &Grant| {
            held.grantee == grant.grantee && (held.permission == Permission::FullControl || held.permission == grant.permission)
        };
        if !grants.iter().any(is_covered) {
            grants.push(grant);
        }
    }
    answer_with(services, target, request, owner, &grants).await
}

/// The rights of keys other than owners, as grants.
fn grants_of_rights(row: &BucketRow) -> Vec<Grant> {
    let mut grants = Vec::new();
    for (id, permissions) in row.permissions.iter().filter(|(_, permissions)| !permissions.owner) {
        let mut grant = |permission| grants.push(Grant { grantee: Grantee::Key(id.clone()), permission });
        if permissions.read {
            grant(Permission::Read);
        }
        if permissions.write {
            grant(Permission::Write);
        }
    }
    grants
}

/// The list that a PutAcl request asks for, in headers or body. Errors: 400 `UnexpectedContent` for both, 403 `AccessDenied` for a document
/// that names an owner other than `is_owner` knows.
async fn of_request(
    services: &Services,
    target: &Target,
    request: &Request,
    body: IncomingBody,
    (on, owner): (AclOn, &str),
    is_owner: impl Fn(&str) -> bool,
) -> Result<Acl, S3Error> {
    let bucket_owner = target.bucket.row.owner_id().unwrap_or(owner).to_owned();
    let asked = of_headers(services, request, on, owner, &bucket_owner).await?;
    let integrity = body.spec()?.require_integrity();
    let document = body.read(ACL_MAX_BYTES).await?;
    let is_empty = document.iter().all(u8::is_ascii_whitespace);
    if !is_empty {
        integrity?;
    }
    match asked {
        Some(_) if !is_empty => Err(S3Error::of(ErrorCode::UnexpectedContent)),
        Some(asked) => Ok(asked),
        None if is_empty => {
            let message = "Your request was missing a required header: x-amz-acl, a grant header, or a document";
            Err(S3Error::new(ErrorCode::MissingSecurityHeader, message).with("MissingHeaderName", "x-amz-acl"))
        }
        None => {
            let (named, acl) = of_document(&document)?;
            // No list makes anyone another's owner.
            if !is_owner(&named) {
                return Err(S3Error::access_denied());
            }
            check_keys(services, request, &acl).await?;
            Ok(acl)
        }
    }
}

fn owns_bucket(target: &Target, id: &str) -> bool {
    target.bucket.row.permissions.get(id).is_some_and(|permissions| permissions.owner)
}

/// Refuses a list that the bucket does not take: 400 `AccessControlListNotSupported`, 403 `AccessDenied` where public lists are blocked.
///
/// A list that grants nothing but what is so anyway passes where lists mean nothing: clients send back what they were given.
pub fn check_allowed(target: &Target, acl: &Acl, owner: &str) -> Result<(), S3Error> {
    let access = &target.bucket.row.access;
    if access.block().block_public_acls && acl.is_public() {
        return Err(S3Error::access_denied());
    }
    if access.ownership.has_acls() {
        return Ok(());
    }
    let is_owner = |id: &str| id == owner || owns_bucket(target, id);
    let rights = grants_of_rights(&target.bucket.row);
    let is_so_anyway = |grant: &Grant| match &grant.grantee {
        Grantee::Key(id) if is_owner(id) => grant.permission == Permission::FullControl,
        _ => rights.contains(grant),
    };
    if !acl.grants.is_empty() && acl.grants.iter().all(is_so_anyway) {
        return Ok(());
    }
    Err(S3Error::of(ErrorCode::AccessControlListNotSupported))
}

/// PUT of a bucket's list.
pub async fn put_of_bucket(services: &Services, target: &Target, request: &Request, body: IncomingBody) -> Result<Response<Body>, S3Error> {
    let owner = owner_id_of(target, request);
    let is_owner = |id: &str| id == owner || owns_bucket(target, id);
    let acl = of_request(services, target, request, body, (AclOn::Bucket, owner), is_owner).await?;
    check_allowed(target, &acl, owner)?;
    if target.bucket.row.access.ownership == Ownership::BucketOwnerEnforced {
        return Ok(answer::empty(StatusCode::OK));
    }
    let changed = services.access.buckets().change(target.bucket.id, Effect::Restricts, request.context(), |row| {
        row.access.acl = Some(acl.clone());
        Ok(())
    });
    changed.await.map_err(|error| target.subject().error(error))?;
    Ok(answer::empty(StatusCode::OK))
}

/// Owner and list of an object that the request writes: both `None` where the bucket's owner owns everything.
///
/// Errors: those of [`of_headers`] and [`check_allowed`].
pub async fn of_new_object(services: &Services, target: &Target, request: &Request) -> Result<(Option<String>, Option<Acl>), S3Error> {
    let row = &target.bucket.row;
    let writer = request.sender_id().to_owned();
    let bucket_owner = row.owner_id().unwrap_or(&writer).to_owned();
    let asked = of_headers(services, request, AclOn::Object, &writer, &bucket_owner).await?;
    if !row.access.ownership.has_acls() {
        // What is sent with every write by clients that know of no other lists, and grants nothing.
        let harmless = matches!(canned(&request.headers, AclOn::Object)?, Some(CannedAcl::Private | CannedAcl::BucketOwnerFullControl));
        if let Some(asked) = asked.filter(|_| !harmless) {
            check_allowed(target, &asked, &writer)?;
        }
        return Ok((None, None));
    }
    if let Some(asked) = &asked {
        check_allowed(target, asked, &writer)?;
    }
    let hands_over = row.access.ownership == Ownership::BucketOwnerPreferred
        && canned(&request.headers, AclOn::Object)? == Some(CannedAcl::BucketOwnerFullControl);
    if hands_over {
        return Ok((Some(bucket_owner.clone()), Some(Acl::private(&bucket_owner))));
    }
    let acl = asked.unwrap_or_else(|| Acl::private(&writer));
    Ok((Some(writer), Some(acl)))
}

/// GET of an object's list.
pub async fn get_of_object(services: &Services, target: &Target, request: &Request) -> Result<Response<Body>, S3Error> {
    let access = get::find(services, target, request, false).await?.access();
    let bucket_owner = owner_id_of(target, request);
    if !target.bucket.row.access.ownership.has_acls() {
        return answer_with(services, target, request, bucket_owner, &Acl::private(bucket_owner).grants).await;
    }
    let owner = access.owner.as_deref().unwrap_or(bucket_owner);
    let grants = access.acl.unwrap_or_else(|| Acl::private(owner)).grants;
    answer_with(services, target, request, owner, &grants).await
}

/// PUT of an object's list.
pub async fn put_of_object(services: &Services, target: &Target, request: &Request, body: IncomingBody) -> Result<Response<Body>, S3Error> {
    let own = get::find(services, target, request, false).await?.access().owner;
    let own = own.filter(|_| target.bucket.row.access.ownership.has_acls());
    let owner = own.as_deref().unwrap_or(owner_id_of(target, request));
    let is_owner = |id: &str| id == owner || (own.is_none() && owns_bucket(target, id));
    let acl = of_request(services, target, request, body, (AclOn::Object, owner), is_owner).await?;
    check_allowed(target, &acl, owner)?;
    if !target.bucket.row.access.ownership.has_acls() {
        return Ok(answer::empty(StatusCode::OK));
    }
    change_object(services, target, request, StatusCode::OK, |headers| headers.acl = Some(acl.clone())).await
}

#[cfg(test)]
mod tests {
    use garage_api_common::ErrorCode;
    use garage_model::acl::{Acl, Grant, Grantee, Permission};
    use http::{HeaderMap, HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::{AclOn, canned, granted, of_document, render};
    use crate::settings::Owner;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())).collect()
    }
    fn grant(grantee: Grantee, permission: Permission) -> Grant {
        Grant { grantee, permission }
    }

    #[test]
    fn grant_headers_name_keys_and_groups() {
        let text = r#"id="GK1", uri="http://acs.amazonaws.com/groups/global/AllUsers""#;
        let read = granted(&headers(&[("x-amz-grant-read", text)])).unwrap();
        assert_eq!(read, [grant(Grantee::Key("GK1".into()), Permission::Read), grant(Grantee::AllUsers, Permission::Read)]);
        let code = |text: &str| granted(&headers(&[("x-amz-grant-read", text)])).unwrap_err().code;
        assert_eq!(code("GK1"), ErrorCode::InvalidArgument);
        assert_eq!(code("uri=http://x"), ErrorCode::InvalidArgument);
        assert_eq!(code("emailAddress=a@example.org"), ErrorCode::UnresolvableGrantByEmailAddress);
        assert_eq!(granted(&headers(&[("x-amz-grant-all", "id=x")])).unwrap_err().code, ErrorCode::InvalidArgument);
    }

    #[test]
    fn canned_lists_stand_where_they_belong() {
        let code = |name: &str, on| canned(&headers(&[("x-amz-acl", name)]), on).map(|canned| canned.is_some()).map_err(|error| error.code);
        assert_eq!(code("public-read", AclOn::Object), Ok(true));
        assert_eq!(code("log-delivery-write", AclOn::Bucket), Ok(true));
        assert_eq!(code("log-delivery-write", AclOn::Object), Err(ErrorCode::InvalidArgument));
        assert_eq!(code("nonsense", AclOn::Bucket), Err(ErrorCode::InvalidArgument));
    }

    #[test]
    fn documents_that_say_nothing_clear_are_refused() {
        let whole = |inner: &str| format!("<AccessControlPolicy>{inner}</AccessControlPolicy>");
        let code =
            |inner: &str| of_document(whole(&format!("<Owner><ID>o</ID></Owner>{inner}")).as_bytes()).map(drop).map_err(|error| error.code);
        for owner in ["", "<Owner/>", "<Owner><DisplayName>o</DisplayName></Owner>", "<Owner><ID/></Owner>"] {
            let document = whole(&format!("{owner}<AccessControlList/>"));
            assert_eq!(of_document(document.as_bytes()).unwrap_err().code, ErrorCode::MalformedACLError, "{owner}");
        }
        let list = |grant: &str| format!("<AccessControlList>{grant}</AccessControlList>");
        assert_eq!(code(&list("")), Ok(()));
        assert_eq!(code(""), Err(ErrorCode::MalformedACLError));
        assert_eq!(code(&list("<Grant/>")), Err(ErrorCode::MalformedACLError));
        assert_eq!(
            code(&list("<Grant><Grantee><ID>x</ID></Grantee><Permission>ALL</Permission></Grant>")),
            Err(ErrorCode::MalformedACLError)
        );
        let both = "<Grant><Grantee><ID>x</ID><URI>y</URI></Grantee><Permission>READ</Permission></Grant>";
        assert_eq!(code(&list(both)), Err(ErrorCode::MalformedACLError));
        let many = "<Grant><Grantee><ID>x</ID></Grantee><Permission>READ</Permission></Grant>".repeat(101);
        assert_eq!(code(&list(&many)), Err(ErrorCode::InvalidRequest));
        assert_eq!(of_document(b"").unwrap_err().code, ErrorCode::MissingRequestBodyError);
        assert_eq!(of_document(b"<x").unwrap_err().code, ErrorCode::MalformedACLError);
    }

    prop_compose! {
        fn any_grant()(id in "[a-zA-Z0-9]{1,20}", kind in 0usize..4, permission in 0usize..5) -> Grant {
            let groups = [Grantee::AllUsers, Grantee::AuthenticatedUsers, Grantee::LogDelivery];
            grant(groups.get(kind).cloned().unwrap_or(Grantee::Key(id)), Permission::ALL[permission].0)
        }
    }
    proptest! {
        #[test]
        fn what_is_rendered_reads_back(grants in prop::collection::vec(any_grant(), 0..10)) {
            let owner = Owner::named("o", "o");
            let owners: Vec<Owner> = grants.iter().map(|grant| {
                let id = match &grant.grantee { Grantee::Key(id) => id.as_str(), _ => "" };
                Owner::named(id, "name")
            }).collect();
            let named: Vec<(&Grant, &Owner)> = grants.iter().zip(&owners).collect();
            let (read_owner, acl) = of_document(render(&owner, &named).as_bytes()).unwrap();
            prop_assert_eq!(read_owner.as_str(), "o");
            prop_assert_eq!(acl, Acl { grants });
        }
    }
}
