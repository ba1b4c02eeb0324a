//! The signature of a browser form: over its policy, in fields of the form.
//!
//! Source: s3 reference §2.5; AWS S3 API, "Authenticating requests: browser-based uploads using POST".

use super::{KeySecret, Scope, SignatureSettings, SigningKey, signing::signatures_equal};
use crate::{
    error::{ErrorCode, S3Error},
    time::parse_iso_basic,
};

/// A signature of a form that is well-formed and for this service; whether it is right needs the secret.
#[derive(Debug)]
pub struct FormClaim {
    /// Key and scope.
    pub scope: Scope,
    signature: String,
}

impl FormClaim {
    /// Reads the claim. `field`: the value of a field, by its lower-case name.
    ///
    /// Errors: 400 `InvalidArgument` for a field that is missing or wrong, 400 `InvalidRequest` for signature version 2, 400 `InvalidToken`, 501.
    pub fn parse<'a>(field: impl Fn(&str) -> Option<&'a str>, settings: &SignatureSettings) -> Result<FormClaim, S3Error> {
        if field("x-amz-security-token").is_some() {
            return Err(S3Error::of(ErrorCode::InvalidToken));
        }
        if field("x-amz-algorithm").is_none() && field("awsaccesskeyid").is_some() {
            let message = "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.";
            return Err(S3Error::invalid_request(message));
        }
        let required = |name: &'static str| {
            let message =
                format!("Bucket POST must contain a field named '{name}'.  If it is specified, please check the order of the fields.");
            field(name).ok_or_else(|| S3Error::invalid_argument(message, name, ""))
        };
        match required("x-amz-algorithm")? {
            "AWS4-HMAC-SHA256" => {}
            "AWS4-ECDSA-P256-SHA256" => return Err(S3Error::not_implemented("AWS4-ECDSA-P256-SHA256")),
            other => return Err(S3Error::invalid_argument("x-amz-algorithm only supports \"AWS4-HMAC-SHA256\"", "x-amz-algorithm", other)),
        }
        let credential = required("x-amz-credential")?;
        let wrong_credential = |message: String| S3Error::invalid_argument(message, "x-amz-credential", credential);
        let scope = Scope::parse(credential).ok_or_else(|| {
            wrong_credential("the Credential is mal-formed; expecting \"<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request\".".to_owned())
        })?;
        if scope.service != settings.service {
            return Err(wrong_credential(format!(
                "incorrect service \"{}\". This endpoint belongs to \"{}\".",
                scope.service, settings.service
            )));
        }
        if scope.region != settings.region {
            let message = format!("the region '{}' is wrong; expecting '{}'", scope.region, settings.region);
            return Err(wrong_credential(message).with("Region", &settings.region));
        }
        let date = required("x-amz-date")?;
        if parse_iso_basic(date).is_none() || date[..8] != *scope.date {
            let message = "x-amz-date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\", of the day that the credential names";
            return Err(S3Error::invalid_argument(message, "x-amz-date", date));
        }
        Ok(FormClaim { scope, signature: required("x-amz-signature")?.to_owned() })
    }

    /// Checks the signature of a policy (its base64 text as received). Errors: 403 `SignatureDoesNotMatch`.
    pub fn verify(&self, policy: &str, key: &KeySecret) -> Result<(), S3Error> {
        let ours = SigningKey::derive(&key.secret, &self.scope).sign(policy.as_bytes());
        if signatures_equal(&ours, &self.signature) {
            return Ok(());
        }
        Err(S3Error::of(ErrorCode::SignatureDoesNotMatch)
            .with("AWSAccessKeyId", &self.scope.access_key_id)
            .with("StringToSign", policy)
            .with("SignatureProvided", &self.signature))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{ErrorCode, FormClaim, KeySecret, S3Error, SignatureSettings};

    /// As in the worked example of the AWS documentation.
    const CREDENTIAL: &str = "AKIAIOSFODNN7EXAMPLE/20151229/us-east-1/s3/aws4_request";

    fn claim(change: impl Fn(&mut BTreeMap<&'static str, &'static str>)) -> Result<FormClaim, S3Error> {
        let mut fields = BTreeMap::from([
            ("x-amz-algorithm", "AWS4-HMAC-SHA256"),
            ("x-amz-credential", CREDENTIAL),
            ("x-amz-date", "20151229T000000Z"),
            ("x-amz-signature", "00"),
        ]);
        change(&mut fields);
        FormClaim::parse(|name| fields.get(name).copied(), &SignatureSettings::s3("us-east-1"))
    }

    #[test]
    fn a_claim_needs_all_its_fields_for_this_service() {
        let code = |name: &'static str, value: Option<&'static str>| {
            let changed = claim(|fields| {
                fields.remove(name);
                fields.extend(value.map(|value| (name, value)));
            });
            changed.map(drop).map_err(|error| error.code)
        };
        assert_eq!(code("other", None), Ok(()));
        for name in ["x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-signature"] {
            assert_eq!(code(name, None), Err(ErrorCode::InvalidArgument), "{name}");
        }
        assert_eq!(code("x-amz-algorithm", Some("HMAC")), Err(ErrorCode::InvalidArgument));
        assert_eq!(code("x-amz-algorithm", Some("AWS4-ECDSA-P256-SHA256")), Err(ErrorCode::NotImplemented));
        assert_eq!(code("x-amz-credential", Some("AK/20151229/eu/s3/aws4_request")), Err(ErrorCode::InvalidArgument));
        assert_eq!(code("x-amz-credential", Some("AK/20151229/us-east-1/ec2/aws4_request")), Err(ErrorCode::InvalidArgument));
        assert_eq!(code("x-amz-date", Some("20151230T000000Z")), Err(ErrorCode::InvalidArgument));
        assert_eq!(code("x-amz-date", Some("ä")), Err(ErrorCode::InvalidArgument));
        assert_eq!(code("x-amz-security-token", Some("t")), Err(ErrorCode::InvalidToken));
        let old = claim(|fields| *fields = BTreeMap::from([("awsaccesskeyid", "AK"), ("signature", "s")]));
        assert_eq!(old.unwrap_err().code, ErrorCode::InvalidRequest);
    }

    #[test]
    fn a_signature_fits_one_policy_and_one_secret() {
        let key = |secret: &str| KeySecret { secret: secret.to_owned() };
        let unsigned = claim(|_| {}).unwrap();
        let signature = super::SigningKey::derive("secret", &unsigned.scope).sign(b"cG9saWN5");
        let signed = FormClaim { signature, ..unsigned };
        assert!(signed.verify("cG9saWN5", &key("secret")).is_ok());
        assert_eq!(signed.verify("cG9saWN6", &key("secret")).unwrap_err().code, ErrorCode::SignatureDoesNotMatch);
        assert_eq!(signed.verify("cG9saWN5", &key("other")).unwrap_err().code, ErrorCode::SignatureDoesNotMatch);
    }
}
