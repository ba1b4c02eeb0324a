//! What a client is told when a request fails: an S3 code with its status, a sentence, and the elements and headers that go with it.
//!
//! Invariants:
//! - the cause of an internal failure stays in the log (under the request id), the client sees only the public sentence;
//! - HEAD and 304 answers carry no body, whatever failed.

use std::{borrow::Cow, fmt};

use ::http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};
use bytes::Bytes;

use crate::{
    http::{Body, RequestIds, empty_body, full_body},
    xml::XmlWriter,
};

macro_rules! error_codes {
    ($($name:ident $status:literal $message:literal)*) => {
        /// The codes of S3 errors that this server sends. The status is part of the code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs, reason = "the names are S3's; each carries its sentence")]
        pub enum ErrorCode { $($name,)* }

        impl ErrorCode {
            /// All codes.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$name,)*];
            /// The code as it stands in `<Code>`.
            pub fn name(self) -> &'static str {
                match self { $(ErrorCode::$name => stringify!($name),)* }
            }
            /// The HTTP status of the answer.
            pub fn status(self) -> StatusCode {
                let number: u16 = match self { $(ErrorCode::$name => $status,)* };
                StatusCode::from_u16(number).expect("the table holds only legal statuses; a test walks it")
            }
            /// The usual sentence of the code.
            pub fn message(self) -> &'static str {
                match self { $(ErrorCode::$name => $message,)* }
            }
        }
    };
}

error_codes! {
    AccessControlListNotSupported 400 "The bucket does not allow ACLs"
    AuthorizationHeaderMalformed 400 "The authorization header is malformed."
    AuthorizationQueryParametersError 400 "Error parsing the X-Amz-Credential parameter."
    BadDigest 400 "The Content-MD5 you specified did not match what we received."
    BadRequest 400 "Bad Request"
    EntityTooLarge 400 "Your proposed upload exceeds the maximum allowed object size."
    EntityTooSmall 400 "Your proposed upload is smaller than the minimum allowed size"
    ExpiredToken 400 "The provided token has expired."
    IllegalLocationConstraintException 400 "The specified location constraint is incompatible with the region this request was sent to."
    IllegalVersioningConfigurationException 400 "The versioning configuration specified in the request is invalid."
    IncompleteBody 400 "You did not provide the number of bytes specified by the Content-Length HTTP header"
    InvalidArgument 400 "Invalid Argument"
    InvalidBucketAclWithObjectOwnership 400 "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting"
    InvalidBucketName 400 "The specified bucket is not valid."
    InvalidDigest 400 "The Content-MD5 you specified was invalid."
    InvalidEncryptionAlgorithmError 400 "The encryption request you specified is not valid. The valid value is AES256."
    InvalidLocationConstraint 400 "The specified location-constraint is not valid"
    InvalidPart 400 "One or more of the specified parts could not be found. The part may not have been uploaded, or the specified entity tag may not match the part's entity tag."
    InvalidPartOrder 400 "The list of parts was not in ascending order. Parts must be ordered by part number."
    InvalidPolicyDocument 400 "The content of the form does not meet the conditions specified in the policy document."
    InvalidRedirectLocation 400 "The website redirect location must have a prefix of 'http://' or 'https://' or '/'."
    InvalidRequest 400 "Invalid Request"
    InvalidStorageClass 400 "The storage class you specified is not valid"
    InvalidTag 400 "The tag provided was not a valid tag."
    InvalidToken 400 "The provided token is malformed or otherwise invalid."
    InvalidURI 400 "Couldn't parse the specified URI."
    KeyTooLongError 400 "Your key is too long"
    MalformedACLError 400 "The XML you provided was not well-formed or did not validate against our published schema"
    MalformedPOSTRequest 400 "The body of your POST request is not well-formed multipart/form-data."
    MalformedPolicy 400 "Policies must be valid JSON and the first byte must be '{'"
    MalformedTrailerError 400 "The request contained trailing data that was not well-formed or did not conform to our published schema."
    MalformedXML 400 "The XML you provided was not well-formed or did not validate against our published schema"
    MaxMessageLengthExceeded 400 "Your request was too big."
    MaxPostPreDataLengthExceededError 400 "Your POST request fields preceding the upload file were too large."
    MetadataTooLarge 400 "Your metadata headers exceed the maximum allowed metadata size"
    MissingRequestBodyError 400 "Request Body is empty"
    MissingSecurityHeader 400 "Your request was missing a required header."
    RequestHeaderSectionTooLarge 400 "Your request header section exceeds the maximum allowed size."
    RequestTimeout 400 "Your socket connection to the server was not read from or written to within the timeout period. Idle connections will be closed."
    TooManyBuckets 400 "You have attempted to create more buckets than allowed"
    UnexpectedContent 400 "This request does not support content"
    UnresolvableGrantByEmailAddress 400 "The e-mail address you provided does not match any account on record."
    UserKeyMustBeSpecified 400 "The bucket POST must contain the specified field name. If it is specified, please check the order of the fields."
    XAmzContentSHA256Mismatch 400 "The provided 'x-amz-content-sha256' header does not match what was computed."
    AccessDenied 403 "Access Denied"
    AccessForbidden 403 "CORSResponse: This CORS request is not allowed. This is usually because the evalution of Origin, request method / Access-Control-Request-Method or Access-Control-Request-Headers are not whitelisted by the resource's CORS spec."
    AllAccessDisabled 403 "All access to this object has been disabled"
    InvalidAccessKeyId 403 "The AWS Access Key Id you provided does not exist in our records."
    InvalidChunkSizeError 403 "Only the last chunk is allowed to have a size less than 8192 bytes"
    InvalidObjectState 403 "The operation is not valid for the object's storage class"
    InvalidSecurity 403 "The provided security credentials are not valid."
    QuotaExceeded 403 "The bucket's quota does not allow this write"
    RequestTimeTooSkewed 403 "The difference between the request time and the current time is too large."
    SignatureDoesNotMatch 403 "The request signature we calculated does not match the signature you provided. Check your key and signing method."
    NoSuchBucket 404 "The specified bucket does not exist"
    NoSuchBucketPolicy 404 "The bucket policy does not exist"
    NoSuchCORSConfiguration 404 "The CORS configuration does not exist"
    NoSuchConfiguration 404 "The specified configuration does not exist."
    NoSuchKey 404 "The specified key does not exist."
    NoSuchLifecycleConfiguration 404 "The lifecycle configuration does not exist"
    NoSuchObjectLockConfiguration 404 "The specified object does not have a ObjectLock configuration"
    NoSuchPublicAccessBlockConfiguration 404 "The public access block configuration was not found"
    NoSuchTagSet 404 "The TagSet does not exist"
    NoSuchUpload 404 "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed."
    NoSuchVersion 404 "The specified version does not exist."
    NoSuchWebsiteConfiguration 404 "The specified bucket does not have a website configuration"
    ObjectLockConfigurationNotFoundError 404 "Object Lock configuration does not exist for this bucket"
    OwnershipControlsNotFoundError 404 "The bucket ownership controls were not found"
    ReplicationConfigurationNotFoundError 404 "The replication configuration was not found"
    ServerSideEncryptionConfigurationNotFoundError 404 "The server side encryption configuration was not found"
    NotModified 304 "Not Modified"
    MethodNotAllowed 405 "The specified method is not allowed against this resource."
    MissingContentLength 411 "You must provide the Content-Length HTTP header."
    PreconditionFailed 412 "At least one of the pre-conditions you specified did not hold"
    InvalidRange 416 "The requested range is not satisfiable"
    InvalidPartNumber 416 "The requested partnumber is not satisfiable"
    BucketAlreadyExists 409 "The requested bucket name is not available. The bucket namespace is shared by all users of the system. Please select a different name and try again."
    BucketAlreadyOwnedByYou 409 "Your previous request to create the named bucket succeeded and you already own it."
    BucketNotEmpty 409 "The bucket you tried to delete is not empty"
    ConditionalRequestConflict 409 "The conditional request cannot succeed due to a conflicting operation against this resource."
    InvalidBucketState 409 "The request is not valid with the current state of the bucket."
    OperationAborted 409 "A conflicting conditional operation is currently in progress against this resource. Please try again."
    InternalError 500 "We encountered an internal error. Please try again."
    NotImplemented 501 "A header you provided implies functionality that is not implemented"
    ServiceUnavailable 503 "Please reduce your request rate."
    SlowDown 503 "Please reduce your request rate."
    InsufficientStorage 507 "The cluster has no space left for this write; free space or add capacity."
}

/// A failed request, as the client is told of it.
#[derive(Debug, Clone)]
pub struct S3Error {
    /// The code, which carries the status.
    pub code: ErrorCode,
    /// The sentence in `<Message>`.
    pub message: Cow<'static, str>,
    /// Elements between `<Message>` and `<RequestId>`, in order.
    pub specifics: Vec<(&'static str, String)>,
    /// Headers that go with the answer (`Allow`, `Content-Range`, `Retry-After`, ...).
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What really happened, for the log only.
    pub cause: Option<Box<str>>,
    /// The connection must be closed after the answer: the rest of the request cannot be read.
    pub close_connection: bool,
}

impl S3Error {
    /// An error with its own sentence.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> S3Error {
        S3Error { code, message: message.into(), specifics: Vec::new(), headers: Vec::new(), cause: None, close_connection: false }
    }
    /// An error with the usual sentence of its code.
    pub fn of(code: ErrorCode) -> S3Error {
        S3Error::new(code, code.message())
    }
    /// Adds an element after `<Message>`.
    #[must_use]
    pub fn with(mut self, element: &'static str, value: impl fmt::Display) -> S3Error {
        self.specifics.push((element, value.to_string()));
        self
    }
    /// Adds a response header. A value that no header can carry is left out: the answer matters more.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: impl AsRef<str>) -> S3Error {
        if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
            self.headers.push((name, value));
        }
        self
    }
    /// Notes the real cause for the log.
    #[must_use]
    pub fn caused_by(mut self, cause: impl fmt::Display) -> S3Error {
        self.cause = Some(cause.to_string().into());
        self
    }
    /// Closes the connection after the answer.
    #[must_use]
    pub fn closing(mut self) -> S3Error {
        self.close_connection = true;
        self
    }

    /// 500 `InternalError`; the cause goes to the log.
    pub fn internal(cause: impl fmt::Display) -> S3Error {
        S3Error::of(ErrorCode::InternalError).caused_by(cause)
    }
    /// 503 `SlowDown` with `Retry-After`; the cause goes to the log.
    pub fn slow_down(cause: impl fmt::Display) -> S3Error {
        S3Error::of(ErrorCode::SlowDown).header(header::RETRY_AFTER, "1").caused_by(cause)
    }
    /// 503 `ServiceUnavailable` with `Retry-After`: not enough nodes answer. The cause goes to the log.
    pub fn unavailable(cause: impl fmt::Display) -> S3Error {
        let message = "Too few nodes of the cluster answer; please try again.";
        S3Error::new(ErrorCode::ServiceUnavailable, message).header(header::RETRY_AFTER, "1").caused_by(cause)
    }
    /// 403 `AccessDenied`.
    pub fn access_denied() -> S3Error {
        S3Error::of(ErrorCode::AccessDenied)
    }
    /// 400 `InvalidRequest` with a sentence.
    pub fn invalid_request(message: impl Into<Cow<'static, str>>) -> S3Error {
        S3Error::new(ErrorCode::InvalidRequest, message)
    }
    /// 400 `InvalidArgument` with the argument's name and value.
    pub fn invalid_argument(message: impl Into<Cow<'static, str>>, name: &str, value: impl fmt::Display) -> S3Error {
        S3Error::new(ErrorCode::InvalidArgument, message).with("ArgumentName", name).with("ArgumentValue", value)
    }
    /// 501 `NotImplemented` for a header or parameter.
    pub fn not_implemented(name: impl fmt::Display) -> S3Error {
        S3Error::of(ErrorCode::NotImplemented).with("Header", name)
    }
    /// 501 `NotImplemented` for a whole operation.
    pub fn operation_not_implemented(operation: &str) -> S3Error {
        S3Error::new(ErrorCode::NotImplemented, format!("{operation} is not implemented by this server")).with("Header", operation)
    }
    /// 405 `MethodNotAllowed`; `allow` is the `Allow` header's value.
    pub fn method_not_allowed(method: &Method, resource_type: &str, allow: &str) -> S3Error {
        S3Error::of(ErrorCode::MethodNotAllowed).with("Method", method).with("ResourceType", resource_type).header(header::ALLOW, allow)
    }
    /// 404 `NoSuchBucket`.
    pub fn no_such_bucket(bucket: &str) -> S3Error {
        S3Error::of(ErrorCode::NoSuchBucket).with("BucketName", bucket)
    }
    /// 404 `NoSuchKey`.
    pub fn no_such_key(key: &str) -> S3Error {
        S3Error::of(ErrorCode::NoSuchKey).with("Key", key)
    }
    /// 404 `NoSuchUpload`.
    pub fn no_such_upload(upload_id: &str) -> S3Error {
        S3Error::of(ErrorCode::NoSuchUpload).with("UploadId", upload_id)
    }
    /// 412 `PreconditionFailed`, naming the condition's header.
    pub fn precondition_failed(condition: &str) -> S3Error {
        S3Error::of(ErrorCode::PreconditionFailed).with("Condition", condition)
    }
    /// 416 `InvalidRange` with `Content-Range: bytes */size`.
    pub fn invalid_range(requested: &str, size_bytes: u64) -> S3Error {
        S3Error::of(ErrorCode::InvalidRange)
            .with("RangeRequested", requested)
            .with("ActualObjectSize", size_bytes)
            .header(header::CONTENT_RANGE, format!("bytes */{size_bytes}"))
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.code.status()
    }

    /// The `<Error>` document.
    pub fn to_xml(&self, ids: &RequestIds) -> String {
        let mut xml = XmlWriter::document();
        xml.open("Error").text("Code", self.code.name()).text("Message", &self.message);
        for (element, value) in &self.specifics {
            xml.text(element, value);
        }
        xml.text("RequestId", &ids.request_id).text("HostId", &ids.host_id).close("Error");
        xml.finish()
    }

    /// The whole answer to a request of `method`. HEAD and 304 have no body. Logs the cause, if there is one.
    pub fn to_response(&self, method: &Method, ids: &RequestIds) -> Response<Body> {
        if let Some(cause) = &self.cause {
            if self.status().is_server_error() {
                tracing::warn!(request_id = %ids.request_id, code = self.code.name(), %cause, "request failed");
            } else {
                tracing::debug!(request_id = %ids.request_id, code = self.code.name(), %cause, "request refused");
            }
        }
        let bodiless = method == Method::HEAD || self.status() == StatusCode::NOT_MODIFIED;
        let body = if bodiless { empty_body() } else { full_body(Bytes::from(self.to_xml(ids))) };
        let mut response = Response::new(body);
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        if self.status() != StatusCode::NOT_MODIFIED {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/xml"));
        }
        for (name, value) in &self.headers {
            headers.append(name.clone(), value.clone());
        }
        if self.close_connection {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl fmt::Display for S3Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.code.name(), self.status().as_u16(), self.message)?;
        self.cause.as_ref().map_or(Ok(()), |cause| write!(f, " [{cause}]"))
    }
}
impl std::error::Error for S3Error {}

impl From<garage_util::runtime::Interrupted> for S3Error {
    fn from(interrupted: garage_util::runtime::Interrupted) -> S3Error {
        S3Error::unavailable(interrupted)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::{ErrorCode, Method, S3Error};
    use crate::http::RequestIds;

    fn ids() -> RequestIds {
        RequestIds { request_id: "R1".into(), host_id: "H1".into() }
    }

    #[test]
    fn every_code_has_a_legal_status_and_a_sentence() {
        for code in ErrorCode::ALL {
            assert!((300..600).contains(&code.status().as_u16()), "{code:?}");
            assert!(!code.message().is_empty(), "{code:?}");
        }
        assert_eq!(ErrorCode::XAmzContentSHA256Mismatch.name(), "XAmzContentSHA256Mismatch");
    }

    #[test]
    fn specifics_stand_between_message_and_request_id_and_are_escaped() {
        let xml = S3Error::no_such_key("a<b&\r").to_xml(&ids());
        let expected = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message>\
                        <Key>a&lt;b&amp;&#xD;</Key><RequestId>R1</RequestId><HostId>H1</HostId></Error>";
        assert_eq!(xml, expected);
    }

    #[tokio::test]
    async fn head_and_not_modified_have_no_body_and_keep_their_headers() {
        let error = S3Error::invalid_range("bytes=9-", 3);
        let head = error.to_response(&Method::HEAD, &ids());
        assert_eq!((head.status().as_u16(), head.headers()["content-range"].as_bytes()), (416, b"bytes */3".as_slice()));
        assert!(head.into_body().collect().await.unwrap().to_bytes().is_empty());
        let get = error.to_response(&Method::GET, &ids());
        assert_eq!(get.headers()["content-type"], "application/xml");
        assert!(!get.into_body().collect().await.unwrap().to_bytes().is_empty());
        let unchanged = S3Error::of(ErrorCode::NotModified).to_response(&Method::GET, &ids());
        assert!(unchanged.into_body().collect().await.unwrap().to_bytes().is_empty());
    }

    #[test]
    fn a_cause_is_never_shown_to_the_client() {
        let error = S3Error::internal("disk sdb at /srv/secret failed");
        assert!(!error.to_xml(&ids()).contains("sdb"));
        assert!(error.to_string().contains("sdb"));
    }
}
