//! What a request says about its signature, checked for everything that needs no secret.

use ::http::{HeaderMap, Method, header};

use super::{
    AuthForm, Authenticated, ChunkSigner, KeySecret, PayloadMode, RequestView, Scope, SignatureSettings, SigningKey,
    canonical::{PathForm, canonical_request, headers_not_signed, string_to_sign},
    signing::signatures_equal,
};
use crate::{
    error::{ErrorCode, S3Error},
    limits::{CLOCK_SKEW_MAX, PRESIGNED_LIFE_MAX},
    query::Query,
    time::{iso_basic, iso8601, parse_http_date, parse_iso_basic},
};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const ALGORITHM_V4A: &str = "AWS4-ECDSA-P256-SHA256";
const CONTENT_SHA256: &str = "x-amz-content-sha256";
const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";

/// What a request claims about who sent it.
#[derive(Debug)]
pub enum Claim {
    /// Nobody. How its body is to be read.
    Anonymous(PayloadMode),
    /// The owner of an access key.
    Signed(Box<SignatureClaim>),
}

/// Where the signature stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureForm {
    /// In the `Authorization` header.
    Header,
    /// In the query.
    Query,
}

/// A signature that is well-formed, timely, for this service, and covers what it must; whether it is right needs the secret.
#[derive(Debug)]
pub struct SignatureClaim {
    /// Key and scope.
    pub scope: Scope,
    form: SignatureForm,
    signed_headers: Vec<String>,
    signature: String,
    datetime_ms: u64,
    payload: String,
}

impl Claim {
    /// Reads the claim of a request that arrived at `now_ms`. Errors: s3 reference §2.1, §2.3, §2.4, all that need no secret.
    pub fn parse(request: RequestView<'_>, settings: &SignatureSettings, now_ms: u64) -> Result<Claim, S3Error> {
        let authorization = authorization_header(request.headers)?;
        let in_query =
            ["X-Amz-Algorithm", "X-Amz-Signature", "X-Amz-Credential"].iter().any(|name| request.query.get_ignore_case(name).is_some());
        let v2_in_query = request.query.has("AWSAccessKeyId") || (request.query.has("Signature") && request.query.has("Expires"));
        if authorization.is_some() && (in_query || v2_in_query) {
            let message = "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string parameter or the Authorization header \
                           should be specified";
            return Err(S3Error::new(ErrorCode::InvalidArgument, message).with("ArgumentName", "Authorization"));
        }
        if v2_in_query {
            return Err(signature_v2());
        }
        refuse_session_token(request)?;
        let claim = match (authorization, in_query) {
            (Some(value), _) => of_header(value, request, settings, now_ms)?,
            (None, true) => of_query(request, settings, now_ms)?,
            (None, false) => return Ok(Claim::Anonymous(anonymous_payload(request.headers)?)),
        };
        let not_signed = headers_not_signed(request.headers, &claim.signed_headers);
        if !not_signed.is_empty() {
            let message = "There were headers present in the request which were not signed";
            return Err(S3Error::new(ErrorCode::AccessDenied, message).with("HeadersNotSigned", not_signed.join(", ")));
        }
        payload_kind(&claim.payload)?;
        Ok(Claim::Signed(Box::new(claim)))
    }
}

impl SignatureClaim {
    /// Checks the signature with the key's secret. Errors: 403 `SignatureDoesNotMatch` with what was signed here, so that a client's author can compare.
    pub fn verify(&self, request: RequestView<'_>, key: &KeySecret) -> Result<Authenticated, S3Error> {
        let datetime = iso_basic(self.datetime_ms);
        let signing_key = SigningKey::derive(&key.secret, &self.scope);
        let matches = |form: PathForm| {
            let canonical = canonical_request(request, &self.signed_headers, &self.payload, form);
            let ours = signing_key.sign(string_to_sign(&datetime, &self.scope, &canonical).as_bytes());
            signatures_equal(&ours, &self.signature)
        };
        if !matches(PathForm::Reencoded) && !matches(PathForm::Raw) {
            return Err(self.mismatch(request, &datetime));
        }
        let signer = ChunkSigner::new(signing_key, datetime, &self.scope, self.signature.clone());
        let payload = match payload_kind(&self.payload)? {
            PayloadKind::Unsigned => PayloadMode::Unsigned,
            PayloadKind::Sha256(hash) => PayloadMode::Sha256(hash),
            PayloadKind::SignedChunks => PayloadMode::SignedChunks(signer),
            PayloadKind::SignedChunksTrailer => PayloadMode::SignedChunksTrailer(signer),
            PayloadKind::UnsignedChunksTrailer => PayloadMode::UnsignedChunksTrailer,
        };
        let form = match self.form {
            SignatureForm::Header => AuthForm::Header,
            SignatureForm::Query => AuthForm::Presigned,
        };
        Ok(Authenticated { access_key_id: Some(self.scope.access_key_id.clone()), form, payload, signed_at_ms: Some(self.datetime_ms) })
    }

    fn mismatch(&self, request: RequestView<'_>, datetime: &str) -> S3Error {
        let canonical = canonical_request(request, &self.signed_headers, &self.payload, PathForm::Reencoded);
        let to_sign = string_to_sign(datetime, &self.scope, &canonical);
        S3Error::of(ErrorCode::SignatureDoesNotMatch)
            .with("AWSAccessKeyId", &self.scope.access_key_id)
            .with("StringToSign", &to_sign)
            .with("SignatureProvided", &self.signature)
            .with("StringToSignBytes", spaced_hex(to_sign.as_bytes()))
            .with("CanonicalRequest", String::from_utf8_lossy(&canonical))
            .with("CanonicalRequestBytes", spaced_hex(&canonical))
    }
}

fn of_header(value: &str, request: RequestView<'_>, settings: &SignatureSettings, now_ms: u64) -> Result<SignatureClaim, S3Error> {
    let (scheme, fields) = value.split_once(char::is_whitespace).unwrap_or((value, ""));
    check_scheme(scheme)?;
    let malformed = |message: String| {
        S3Error::new(ErrorCode::AuthorizationHeaderMalformed, format!("The authorization header is malformed; {message}"))
    };
    let field = |name: &str| {
        let found = fields.split(',').filter_map(|field| field.trim().split_once('=')).find(|(found, _)| *found == name);
        found.map(|(_, value)| value.trim()).filter(|value| !value.is_empty()).ok_or_else(|| malformed(format!("{name} is missing")))
    };
    let credential = field("Credential")?;
    let scope = Scope::parse(credential).ok_or_else(|| {
        malformed("the Credential is mal-formed; expecting \"<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request\".".to_owned())
    })?;
    let signed_headers = signed_header_names(field("SignedHeaders")?);
    let signature = field("Signature")?.to_owned();
    check_scope(&scope, request, settings).map_err(|(message, region)| with_region(malformed(message), region))?;
    let datetime_ms = date_of(request.headers)?;
    if iso_basic(datetime_ms)[..8] != *scope.date {
        let (wrong, right) = (&scope.date, &iso_basic(datetime_ms)[..8]);
        return Err(malformed(format!("Invalid credential date \"{wrong}\". This date is not the same as X-Amz-Date: \"{right}\".")));
    }
    check_skew(datetime_ms, now_ms)?;
    let Some(payload) = request.headers.get(CONTENT_SHA256) else {
        return Err(S3Error::invalid_request("Missing required header for this request: x-amz-content-sha256"));
    };
    let payload = payload.to_str().unwrap_or("\u{FFFD}").trim().to_owned();
    Ok(SignatureClaim { scope, form: SignatureForm::Header, signed_headers, signature, datetime_ms, payload })
}

fn of_query(request: RequestView<'_>, settings: &SignatureSettings, now_ms: u64) -> Result<SignatureClaim, S3Error> {
    let malformed = |message: String| S3Error::new(ErrorCode::AuthorizationQueryParametersError, message);
    let parameter = |name: &str| {
        request.query.get_ignore_case(name).ok_or_else(|| {
            malformed(
                "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and \
                 X-Amz-Expires parameters."
                    .to_owned(),
            )
        })
    };
    match parameter("X-Amz-Algorithm")? {
        ALGORITHM => {}
        ALGORITHM_V4A => return Err(S3Error::not_implemented(ALGORITHM_V4A)),
        _ => return Err(malformed(format!("X-Amz-Algorithm only supports \"{ALGORITHM}\""))),
    }
    let prefix = "Error parsing the X-Amz-Credential parameter; ";
    let scope = Scope::parse(parameter("X-Amz-Credential")?).ok_or_else(|| {
        malformed(format!("{prefix}the Credential is mal-formed; expecting \"<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request\"."))
    })?;
    check_scope(&scope, request, settings).map_err(|(message, region)| with_region(malformed(format!("{prefix}{message}")), region))?;
    let datetime_ms = parse_iso_basic(parameter("X-Amz-Date")?)
        .ok_or_else(|| malformed("X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"".to_owned()))?;
    if iso_basic(datetime_ms)[..8] != *scope.date {
        return Err(malformed(format!("Invalid credential date \"{}\". This date is not the same as X-Amz-Date.", scope.date)));
    }
    let signed_headers = signed_header_names(parameter("X-Amz-SignedHeaders")?);
    let signature = parameter("X-Amz-Signature")?.to_owned();
    let expires_s = expires_s(parameter("X-Amz-Expires")?).map_err(|message| malformed(message.to_owned()))?;
    check_lifetime(datetime_ms, expires_s, now_ms)?;
    let in_header = request.headers.get(CONTENT_SHA256).map(|value| value.to_str().unwrap_or("\u{FFFD}").trim());
    let payload = in_header.or_else(|| request.query.get_ignore_case(CONTENT_SHA256)).unwrap_or(UNSIGNED_PAYLOAD).to_owned();
    Ok(SignatureClaim { scope, form: SignatureForm::Query, signed_headers, signature, datetime_ms, payload })
}

fn authorization_header(headers: &HeaderMap) -> Result<Option<&str>, S3Error> {
    let mut lines = headers.get_all(header::AUTHORIZATION).iter();
    let Some(first) = lines.next() else { return Ok(None) };
    match (first.to_str(), lines.next()) {
        // An empty header brings no credentials.
        (Ok(value), None) => Ok(Some(value.trim()).filter(|value| !value.is_empty())),
        _ => Err(S3Error::new(ErrorCode::InvalidArgument, "Authorization header is invalid -- one and only one ' ' (space) required")
            .with("ArgumentName", "Authorization")),
    }
}

fn check_scheme(scheme: &str) -> Result<(), S3Error> {
    match scheme {
        ALGORITHM => Ok(()),
        ALGORITHM_V4A => Err(S3Error::not_implemented(ALGORITHM_V4A)),
        "AWS" => Err(signature_v2()),
        _ => Err(S3Error::new(ErrorCode::InvalidArgument, "Unsupported Authorization Type")
            .with("ArgumentName", "Authorization")
            .with("ArgumentValue", scheme)),
    }
}

fn signature_v2() -> S3Error {
    S3Error::invalid_request("The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.")
}

fn refuse_session_token(request: RequestView<'_>) -> Result<(), S3Error> {
    const NAME: &str = "x-amz-security-token";
    if request.headers.contains_key(NAME) || request.query.get_ignore_case(NAME).is_some() {
        return Err(S3Error::of(ErrorCode::InvalidToken));
    }
    Ok(())
}

/// Err: the sentence, and the right region if that is what is wrong.
fn check_scope(scope: &Scope, request: RequestView<'_>, settings: &SignatureSettings) -> Result<(), (String, Option<String>)> {
    if scope.service != settings.service {
        return Err((format!("incorrect service \"{}\". This endpoint belongs to \"{}\".", scope.service, settings.service), None));
    }
    // Clients that know no region yet ask for it in the name of us-east-1.
    let asks_region = request.method == Method::GET && request.query.has("location") && scope.region == "us-east-1";
    if scope.region != settings.region && !asks_region {
        return Err((format!("the region '{}' is wrong; expecting '{}'", scope.region, settings.region), Some(settings.region.clone())));
    }
    Ok(())
}

fn with_region(error: S3Error, region: Option<String>) -> S3Error {
    match region {
        Some(region) => error.with("Region", region),
        None => error,
    }
}

fn date_of(headers: &HeaderMap) -> Result<u64, S3Error> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("\u{FFFD}").trim());
    let date = match text("x-amz-date") {
        Some(date) => parse_iso_basic(date).or_else(|| parse_http_date(date)),
        None => text("date").and_then(|date| parse_iso_basic(date).or_else(|| parse_http_date(date))),
    };
    date.ok_or_else(|| S3Error::new(ErrorCode::AccessDenied, "AWS authentication requires a valid Date or x-amz-date header"))
}

fn check_skew(datetime_ms: u64, now_ms: u64) -> Result<(), S3Error> {
    let max_ms = millis(CLOCK_SKEW_MAX);
    if datetime_ms.abs_diff(now_ms) <= max_ms {
        return Ok(());
    }
    Err(S3Error::of(ErrorCode::RequestTimeTooSkewed)
        .with("RequestTime", iso_basic(datetime_ms))
        .with("ServerTime", iso8601(now_ms))
        .with("MaxAllowedSkewMilliseconds", max_ms))
}

fn expires_s(text: &str) -> Result<u64, &'static str> {
    let seconds: i64 = text.parse().map_err(|_| "X-Amz-Expires should be a number")?;
    let seconds = u64::try_from(seconds).map_err(|_| "X-Amz-Expires must be non-negative")?;
    if seconds > PRESIGNED_LIFE_MAX.as_secs() {
        return Err(
            "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less than 604800 seconds",
        );
    }
    Ok(seconds)
}

fn check_lifetime(datetime_ms: u64, expires_s: u64, now_ms: u64) -> Result<(), S3Error> {
    if datetime_ms > now_ms.saturating_add(millis(CLOCK_SKEW_MAX)) {
        return Err(S3Error::new(ErrorCode::AccessDenied, "Request is not yet valid"));
    }
    let end_ms = datetime_ms + expires_s * 1000;
    if now_ms <= end_ms {
        return Ok(());
    }
    Err(S3Error::new(ErrorCode::AccessDenied, "Request has expired")
        .with("X-Amz-Expires", expires_s)
        .with("Expires", iso8601(end_ms))
        .with("ServerTime", iso8601(now_ms)))
}

fn signed_header_names(list: &str) -> Vec<String> {
    let mut names: Vec<String> = list.split(';').map(|name| name.trim().to_ascii_lowercase()).filter(|name| !name.is_empty()).collect();
    names.sort();
    names
}

enum PayloadKind {
    Unsigned,
    Sha256([u8; 32]),
    SignedChunks,
    SignedChunksTrailer,
    UnsignedChunksTrailer,
}

fn payload_kind(value: &str) -> Result<PayloadKind, S3Error> {
    Ok(match value {
        UNSIGNED_PAYLOAD => PayloadKind::Unsigned,
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" => PayloadKind::SignedChunks,
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER" => PayloadKind::SignedChunksTrailer,
        "STREAMING-UNSIGNED-PAYLOAD-TRAILER" => PayloadKind::UnsignedChunksTrailer,
        _ if value.starts_with("STREAMING-AWS4-ECDSA-") => return Err(S3Error::not_implemented(CONTENT_SHA256)),
        _ => {
            let mut hash = [0; 32];
            hex::decode_to_slice(value, &mut hash).map_err(|_| {
                let message = "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, STREAMING-AWS4-HMAC-SHA256-PAYLOAD, \
                               STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER or a valid sha256 value.";
                S3Error::invalid_argument(message, CONTENT_SHA256, value)
            })?;
            PayloadKind::Sha256(hash)
        }
    })
}

fn anonymous_payload(headers: &HeaderMap) -> Result<PayloadMode, S3Error> {
    let Some(value) = headers.get(CONTENT_SHA256) else { return Ok(PayloadMode::Unsigned) };
    match payload_kind(value.to_str().unwrap_or("\u{FFFD}").trim())? {
        PayloadKind::Unsigned => Ok(PayloadMode::Unsigned),
        PayloadKind::Sha256(hash) => Ok(PayloadMode::Sha256(hash)),
        PayloadKind::UnsignedChunksTrailer => Ok(PayloadMode::UnsignedChunksTrailer),
        PayloadKind::SignedChunks | PayloadKind::SignedChunksTrailer => Err(S3Error::invalid_request(
            "A signed streaming payload needs a signed request; use STREAMING-UNSIGNED-PAYLOAD-TRAILER or UNSIGNED-PAYLOAD",
        )),
    }
}

fn spaced_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}
fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whether the query belongs to a presigned request; for routing that happens before authentication.
pub fn is_presigned(query: &Query) -> bool {
    query.get_ignore_case("X-Amz-Signature").is_some()
}
