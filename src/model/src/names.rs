//! Rules for bucket names and key ids.

use crate::error::ClientError;

/// Checks a bucket name by the rules of AWS S3 ("Bucket naming rules") with two dots in a row allowed, as existing names have them.
///
/// `punycode`: labels that start with `xn--` are allowed.
pub fn check_bucket_name(name: &str, punycode: bool) -> Result<(), ClientError> {
    let broken = |rule| Err(ClientError::InvalidBucketName { name: name.to_string(), rule });
    if !(3..=63).contains(&name.len()) {
        return broken("it must have 3 to 63 characters");
    }
    if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'.' || byte == b'-') {
        return broken("only a-z, 0-9, dots and hyphens are allowed");
    }
    let is_alphanumeric = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    if !is_alphanumeric(name.as_bytes().first()) || !is_alphanumeric(name.as_bytes().last()) {
        return broken("it must start and end with a letter or digit");
    }
    if name.contains("..") {
        return broken("it must not have two dots in a row");
    }
    if name.parse::<std::net::Ipv4Addr>().is_ok() {
        return broken("it must not be an IP address");
    }
    if !punycode && name.split('.').any(|label| label.starts_with("xn--")) {
        return broken("labels must not start with xn-- (see allow_punycode)");
    }
    if ["sthree-", "amzn-s3-demo-"].iter().any(|start| name.starts_with(start)) {
        return broken("this beginning is reserved");
    }
    if ["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"].iter().any(|end| name.ends_with(end)) {
        return broken("this ending is reserved");
    }
    Ok(())
}

/// Checks an imported key id: at least 8 characters of `A-Z a-z 0-9 - _ .`.
pub fn check_key_id(id: &str) -> Result<(), ClientError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (8..=128).contains(&id.len()) && id.bytes().all(allowed) {
        return Ok(());
    }
    Err(ClientError::InvalidKey(format!("{id:?} is not a key id: 8 to 128 letters, digits, hyphens, underscores or dots are needed")))
}

/// Checks an imported secret: at least 16 printable ASCII characters without a space.
pub fn check_secret(secret: &str) -> Result<(), ClientError> {
    if (16..=256).contains(&secret.len()) && secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err(ClientError::InvalidKey("a secret key needs 16 to 256 printable ASCII characters without a space".to_string()))
}

#[cfg(test)]
mod tests {
    use super::{check_bucket_name, check_key_id, check_secret};

    #[test]
    fn bucket_names_follow_the_rules() {
        let long = "a".repeat(63);
        for name in ["abc", "my-bucket", "www.example.com", "a.-b", "1ab", &long] {
            assert!(check_bucket_name(name, false).is_ok(), "{name}");
        }
        let too_long = "a".repeat(64);
        for name in [
            "",
            "ab",
            &too_long,
            "Abc",
            "a_b",
            "-ab",
            "ab-",
            ".ab",
            "ab.",
            "a..b",
            "192.168.1.1",
            "xn--abc",
            "a.xn--b",
            "abc-s3alias",
            "abc--x-s3",
            "sthree-a",
        ] {
            assert!(check_bucket_name(name, false).is_err(), "{name}");
        }
        assert!(check_bucket_name("xn--abc", true).is_ok());
    }

    #[test]
    fn key_ids_and_secrets_follow_the_rules() {
        assert!(check_key_id("GK0123456789abcdef01234567").is_ok());
        assert!(check_key_id("short").is_err() && check_key_id("with space 1").is_err());
        assert!(check_secret("0123456789abcdef").is_ok());
        assert!(check_secret("0123456789abcde").is_err() && check_secret("0123456789 abcdef").is_err());
    }
}
