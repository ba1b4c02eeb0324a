//! Server-side encryption on the wire: what requests ask for, the keys they bring, the bucket default, and what answers say of it.
//!
//! Invariants:
//! - an answer says `AES256` only of what is encrypted at rest;
//! - a request that brings a key for what is not encrypted under one is refused, and so is one that brings none for what is.
//!
//! Source: s3 reference §3.18; AWS S3 User Guide, "Protecting data with server-side encryption".

use base64::{Engine, engine::general_purpose::STANDARD};
use garage_api_common::{
    ErrorCode, S3Error,
    http::Body,
    limits::XML_BODY_MAX_BYTES,
    xml::{XmlWriter, malformed, parse},
};
use garage_model::{
    encryption::{CustomerKey, Encryption, OpenKeyError},
    objects::FoundObject,
    rows::access::BucketEncryption,
};
use http::{HeaderMap, HeaderName, Response, StatusCode};
use md5::{Digest, Md5};

use crate::{
    answer,
    headers::{self, text},
    policy::{set, truth},
    request::{IncomingBody, Request, Services, Target},
};

/// How the headers of a key for what a request writes or reads begin.
pub const OWN_KEY: &str = "x-amz-server-side-encryption-customer-";
/// How the headers of a key for the source of a copy begin.
pub const SOURCE_KEY: &str = "x-amz-copy-source-server-side-encryption-customer-";
const METHOD: &str = "x-amz-server-side-encryption";
/// Methods that need a key management service.
const KMS_METHODS: [&str; 3] = ["aws:kms", "aws:kms:dsse", "aws:fsx"];

/// The key whose headers begin with `family`; `None`: there is none.
///
/// Errors: 400 `InvalidArgument` for an incomplete set, a key of another length or one that does not fit its MD5,
/// `InvalidEncryptionAlgorithmError`.
pub fn customer_key(all: &HeaderMap, family: &str) -> Result<Option<CustomerKey>, S3Error> {
    let header = |what: &str| text(all, &format!("{family}{what}"));
    let (algorithm, key, md5) = (header("algorithm")?, header("key")?, header("key-md5")?);
    if algorithm.is_none() && key.is_none() && md5.is_none() {
        return Ok(None);
    }
    let missing = |what: &str| {
        let message = format!("Requests specifying Server Side Encryption with Customer provided keys must provide {what}.");
        S3Error::invalid_argument(message, &format!("{family}algorithm"), algorithm.unwrap_or_default())
    };
    match algorithm {
        None => return Err(missing("a valid encryption algorithm")),
        Some("AES256") => {}
        Some(_) => return Err(S3Error::of(ErrorCode::InvalidEncryptionAlgorithmError)),
    }
    let key = STANDARD.decode(key.ok_or_else(|| missing("an appropriate secret key"))?).ok();
    let key = key.and_then(|key| <[u8; 32]>::try_from(key).ok());
    let key = key
        .ok_or_else(|| S3Error::invalid_argument("The secret key was invalid for the specified algorithm.", &format!("{family}key"), ""))?;
    let md5 = STANDARD.decode(md5.ok_or_else(|| missing("the client calculated MD5 of the secret key"))?).unwrap_or_default();
    if md5 != Md5::digest(key).as_slice() {
        let message = "The calculated MD5 hash of the key did not match the hash that was provided.";
        return Err(S3Error::invalid_argument(message, &format!("{family}key-MD5"), ""));
    }
    Ok(Some(CustomerKey(key)))
}

/// Refuses what needs a key management service: 501; and methods that nobody knows: 400 `InvalidArgument`.
///
/// Returns whether the cluster's key is asked for.
pub fn asks_for_cluster_key(all: &HeaderMap) -> Result<bool, S3Error> {
    let method = text(all, METHOD)?;
    if let Some(kms) = method.filter(|method| KMS_METHODS.contains(method)) {
        return Err(S3Error::not_implemented(format!("{METHOD}: {kms}")));
    }
    let is_other = |name: &&str| name.starts_with(METHOD) && *name != METHOD && !name.starts_with(OWN_KEY);
    if let Some(other) = all.keys().map(HeaderName::as_str).find(is_other) {
        return Err(S3Error::not_implemented(other));
    }
    match method {
        None => Ok(false),
        Some("AES256") => Ok(true),
        Some(unknown) => Err(S3Error::invalid_argument("The encryption method specified is not supported", METHOD, unknown)),
    }
}

/// How a new object is to be encrypted: as the request asks, else as the bucket says.
pub fn of_new_object(services: &Services, target: &Target, request: &Request) -> Result<Option<Encryption>, S3Error> {
    let (cluster, customer) = (asks_for_cluster_key(&request.headers)?, customer_key(&request.headers, OWN_KEY)?);
    let default = target.bucket.row.encryption.unwrap_or_default();
    let keys = services.objects.encryption_keys();
    match customer {
        Some(_) if cluster => {
            let message = "Server Side Encryption with Customer provided key is incompatible with the encryption method specified";
            Err(S3Error::invalid_argument(message, METHOD, "AES256"))
        }
        Some(_) if default.blocks_customer_keys => Err(S3Error::access_denied()),
        Some(key) => Ok(Some(keys.for_customer(&key))),
        None if cluster || default.cluster_key => Ok(Some(keys.for_cluster())),
        None => Ok(None),
    }
}

/// Opens an object's encryption with the key that a request brings under `family`.
///
/// Errors: 400 `InvalidRequest` for a key that is missing or not needed, 403 `AccessDenied` for the wrong one.
pub fn open_object(services: &Services, request: &Request, found: &mut FoundObject, family: &str) -> Result<(), S3Error> {
    let key = customer_key(&request.headers, family)?;
    let opened = open(services, found.meta.headers.encryption.as_ref(), key.as_ref())?;
    found.meta.headers.encryption = opened;
    Ok(())
}

/// The same encryption with its data key at hand.
pub fn open(services: &Services, encryption: Option<&Encryption>, key: Option<&CustomerKey>) -> Result<Option<Encryption>, S3Error> {
    let keys = services.objects.encryption_keys();
    let opened = match (encryption, key) {
        (None, None) => return Ok(None),
        (Some(encryption), Some(key)) if encryption.is_customer() => keys.open_with(encryption, key),
        (_, Some(_)) => {
            return Err(S3Error::invalid_request(
                "The encryption parameters are not applicable to this object: it is not encrypted with a customer key.",
            ));
        }
        (Some(encryption), None) if encryption.is_customer() => {
            return Err(S3Error::invalid_request(
                "The object was stored using a form of Server Side Encryption. The correct parameters must be provided to retrieve the object.",
            ));
        }
        (Some(encryption), None) => keys.open(encryption),
    };
    opened.map(Some).map_err(|error| match error {
        OpenKeyError::WrongKey => S3Error::access_denied(),
        error => S3Error::internal(error),
    })
}

/// Says in an answer how the object is encrypted; of a client's key its MD5, as the request brought it.
pub fn write_headers(out: &mut HeaderMap, request: &Request, encryption: Option<&Encryption>) {
    match encryption {
        None => {}
        Some(encryption) if encryption.is_customer() => {
            headers::put(out, HeaderName::from_static("x-amz-server-side-encryption-customer-algorithm"), "AES256");
            if let Ok(Some(md5)) = text(&request.headers, "x-amz-server-side-encryption-customer-key-md5") {
                headers::put(out, HeaderName::from_static("x-amz-server-side-encryption-customer-key-md5"), md5);
            }
        }
        Some(_) => headers::put(out, HeaderName::from_static(METHOD), "AES256"),
    }
}

/// GET of the bucket's default.
pub fn get(target: &Target) -> Result<Response<Body>, S3Error> {
    let missing = || S3Error::of(ErrorCode::ServerSideEncryptionConfigurationNotFoundError).with("BucketName", &target.bucket_name);
    Ok(answer::xml(render(target.bucket.row.encryption.ok_or_else(missing)?)))
}

/// PUT of the bucket's default.
pub async fn put(services: &Services, target: &Target, request: &Request, body: IncomingBody) -> Result<Response<Body>, S3Error> {
    let encryption = read(&body.read_with_integrity(XML_BODY_MAX_BYTES).await?)?;
    set(services, target, request, StatusCode::OK, |row| row.encryption = Some(encryption)).await
}

/// DELETE of the bucket's default. Objects stay as they are.
pub async fn delete(services: &Services, target: &Target, request: &Request) -> Result<Response<Body>, S3Error> {
    set(services, target, request, StatusCode::NO_CONTENT, |row| row.encryption = None).await
}

fn read(document: &[u8]) -> Result<BucketEncryption, S3Error> {
    let document = parse(document, &["ServerSideEncryptionConfiguration"])?;
    document.only(&["Rule"])?;
    let rule = document.at_most_one("Rule")?.ok_or_else(malformed)?;
    rule.only(&["ApplyServerSideEncryptionByDefault", "BucketKeyEnabled", "BlockedEncryptionTypes"])?;
    let mut encryption = BucketEncryption::default();
    if let Some(default) = rule.at_most_one("ApplyServerSideEncryptionByDefault")? {
        default.only(&["SSEAlgorithm", "KMSMasterKeyID"])?;
        match default.required("SSEAlgorithm")? {
            "AES256" if default.child("KMSMasterKeyID").is_some() => {
                let message = "a KMSMasterKeyID is not applicable if the default sse algorithm is not aws:kms or aws:kms:dsse";
                return Err(S3Error::invalid_argument(message, "ApplyServerSideEncryptionByDefault", ""));
            }
            "AES256" => encryption.cluster_key = true,
            kms if KMS_METHODS.contains(&kms) => return Err(S3Error::not_implemented(format!("SSEAlgorithm {kms}"))),
            _ => return Err(malformed()),
        }
    }
    encryption.bucket_key_enabled = rule.at_most_one("BucketKeyEnabled")?.map(truth).transpose()?.unwrap_or(false);
    if let Some(blocked) = rule.at_most_one("BlockedEncryptionTypes")? {
        blocked.only(&["EncryptionType"])?;
        for kind in &blocked.children {
            match kind.text.trim() {
                "NONE" => {}
                "SSE-C" => encryption.blocks_customer_keys = true,
                _ => return Err(malformed()),
            }
        }
    }
    if rule.children.is_empty() { Err(malformed()) } else { Ok(encryption) }
}

/// Whether a document is taken; what is taken reads back as itself.
pub fn reads_back(document: &[u8]) -> bool {
    let Ok(encryption) = read(document) else { return false };
    assert_eq!(read(render(encryption).as_bytes()).ok(), Some(encryption), "an encryption configuration reads back");
    true
}

fn render(encryption: BucketEncryption) -> String {
    let mut xml = XmlWriter::s3_document("ServerSideEncryptionConfiguration");
    xml.open("Rule");
    if encryption.cluster_key {
        xml.open("ApplyServerSideEncryptionByDefault").text("SSEAlgorithm", "AES256").close("ApplyServerSideEncryptionByDefault");
    }
    xml.value("BucketKeyEnabled", encryption.bucket_key_enabled);
    if encryption.blocks_customer_keys {
        xml.open("BlockedEncryptionTypes").text("EncryptionType", "SSE-C").close("BlockedEncryptionTypes");
    }
    xml.close("Rule").close("ServerSideEncryptionConfiguration");
    xml.finish()
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use garage_api_common::ErrorCode;
    use http::{HeaderMap, HeaderName, HeaderValue};
    use md5::{Digest, Md5};

    use super::{OWN_KEY, asks_for_cluster_key, customer_key, read, render};

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| (HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn a_key_comes_whole_or_not_at_all() {
        let (algorithm, key, md5) = (format!("{OWN_KEY}algorithm"), format!("{OWN_KEY}key"), format!("{OWN_KEY}key-md5"));
        let (good_key, good_md5) = (STANDARD.encode([7; 32]), STANDARD.encode(Md5::digest([7; 32])));
        let code = |pairs: &[(&str, &str)]| customer_key(&headers(pairs), OWN_KEY).map(|key| key.is_some()).map_err(|error| error.code);
        let all = |a: &'static str, k: &str, m: &str| code(&[(&algorithm, a), (&key, k), (&md5, m)]);
        assert_eq!(code(&[]), Ok(false));
        assert_eq!(all("AES256", &good_key, &good_md5), Ok(true));
        assert_eq!(all("AES128", &good_key, &good_md5), Err(ErrorCode::InvalidEncryptionAlgorithmError));
        assert_eq!(all("AES256", &STANDARD.encode([7; 31]), &good_md5), Err(ErrorCode::InvalidArgument));
        assert_eq!(all("AES256", "no base64", &good_md5), Err(ErrorCode::InvalidArgument));
        assert_eq!(all("AES256", &good_key, &STANDARD.encode([7; 16])), Err(ErrorCode::InvalidArgument));
        for partial in [
            vec![(&*algorithm, "AES256")],
            vec![(&*key, &*good_key), (&*md5, &*good_md5)],
            vec![(&*algorithm, "AES256"), (&*key, &*good_key)],
            vec![(&*algorithm, "AES256"), (&*md5, &*good_md5)],
        ] {
            assert_eq!(code(&partial), Err(ErrorCode::InvalidArgument), "{partial:?}");
        }
    }

    #[test]
    fn methods_that_are_not_here_are_refused() {
        let code = |name: &str, value: &str| asks_for_cluster_key(&headers(&[(name, value)])).map_err(|error| error.code);
        assert_eq!(code("x-amz-server-side-encryption", "AES256"), Ok(true));
        assert_eq!(code("x-amz-server-side-encryption", "aws:kms"), Err(ErrorCode::NotImplemented));
        assert_eq!(code("x-amz-server-side-encryption", "ROT13"), Err(ErrorCode::InvalidArgument));
        assert_eq!(code("x-amz-server-side-encryption-aws-kms-key-id", "x"), Err(ErrorCode::NotImplemented));
        assert_eq!(code("x-amz-server-side-encryption-bucket-key-enabled", "true"), Err(ErrorCode::NotImplemented));
    }

    #[test]
    fn a_default_reads_back_as_it_was_set() {
        let document = |inner: &str| format!("<ServerSideEncryptionConfiguration>{inner}</ServerSideEncryptionConfiguration>");
        let default =
            |inner: &str| format!("<Rule><ApplyServerSideEncryptionByDefault>{inner}</ApplyServerSideEncryptionByDefault></Rule>");
        let code = |inner: &str| read(document(inner).as_bytes()).map(drop).map_err(|error| error.code);
        let good = read(document(&default("<SSEAlgorithm>AES256</SSEAlgorithm>")).as_bytes()).unwrap();
        assert_eq!(read(render(good).as_bytes()).unwrap(), good);
        assert_eq!(code(&default("<SSEAlgorithm>aws:kms</SSEAlgorithm>")), Err(ErrorCode::NotImplemented));
        assert_eq!(code(&default("<SSEAlgorithm>ROT13</SSEAlgorithm>")), Err(ErrorCode::MalformedXML));
        assert_eq!(
            code(&default("<SSEAlgorithm>AES256</SSEAlgorithm><KMSMasterKeyID>x</KMSMasterKeyID>")),
            Err(ErrorCode::InvalidArgument)
        );
        assert_eq!(code(""), Err(ErrorCode::MalformedXML));
        assert_eq!(code("<Rule/>"), Err(ErrorCode::MalformedXML));
        assert_eq!(code(&default("<SSEAlgorithm>AES256</SSEAlgorithm>").repeat(2)), Err(ErrorCode::MalformedXML));
    }
}
