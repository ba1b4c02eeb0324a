//! Text in headers that are ASCII: the encoded words of RFC 2047, as S3 takes and gives user metadata.
//!
//! Source: RFC 2047 §2, §4, §6.2; s3 reference §3.5. Reads both encodings of UTF-8, US-ASCII and ISO-8859-1; writes base64 of UTF-8. Pure.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};

/// The text as a header can carry it: ASCII as it is, anything else as one encoded word.
pub fn encode(text: &str) -> Cow<'_, str> {
    if text.is_ascii() { Cow::Borrowed(text) } else { Cow::Owned(format!("=?UTF-8?B?{}?=", STANDARD.encode(text))) }
}

/// The text of a value that consists of encoded words, white space between two of them left out.
///
/// `None`: it is something else (no encoded word at its start, a charset or encoding that is not known, text between the words); such a value
/// means itself.
pub fn decode(value: &str) -> Option<String> {
    let mut rest = value.trim();
    let mut text = String::new();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (word, after) = split_word(rest)?;
        text.push_str(&word.decode()?);
        rest = after.trim_start();
    }
    Some(text)
}

struct Word<'a> {
    charset: &'a str,
    encoding: &'a str,
    encoded: &'a str,
}

/// `=?charset?encoding?text?=` at the start, and what follows it.
fn split_word(value: &str) -> Option<(Word<'_>, &str)> {
    let (charset, rest) = value.strip_prefix("=?")?.split_once('?')?;
    let (encoding, rest) = rest.split_once('?')?;
    let (encoded, rest) = rest.split_once("?=")?;
    // RFC 2231 §5: a language may follow the charset.
    let charset = charset.split_once('*').map_or(charset, |(charset, _)| charset);
    Some((Word { charset, encoding, encoded }, rest))
}

impl Word<'_> {
    fn decode(&self) -> Option<String> {
        let bytes = match self.encoding {
            "B" | "b" => STANDARD.decode(self.encoded).ok()?,
            "Q" | "q" => decode_q(self.encoded)?,
            _ => return None,
        };
        match self.charset.to_ascii_lowercase().as_str() {
            "utf-8" | "us-ascii" => String::from_utf8(bytes).ok(),
            "iso-8859-1" => Some(bytes.into_iter().map(char::from).collect()),
            _ => None,
        }
    }
}

/// `_` is a space, `=XX` a byte, the rest itself.
fn decode_q(encoded: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'_' => bytes.push(b' '),
            b'=' => {
                let mut byte = [0];
                hex::decode_to_slice(rest.get(..2)?, &mut byte).ok()?;
                bytes.push(byte[0]);
                rest = &rest[2..];
            }
            other => bytes.push(*other),
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{decode, encode};

    #[test]
    fn words_are_read_in_both_encodings_and_three_charsets() {
        let check = |value: &str, expected: Option<&str>| assert_eq!(decode(value).as_deref(), expected, "{value}");
        check("=?UTF-8?B?w6Q=?=", Some("ä"));
        check("=?utf-8?q?=C3=A4_b?=", Some("ä b"));
        check("=?ISO-8859-1?Q?=E4?=", Some("ä"));
        check("=?US-ASCII*en?Q?plain?=", Some("plain"));
        check("=?UTF-8?B?w6Q=?= \t =?UTF-8?B?w7Y=?=", Some("äö"));
        check("=?UTF-8?Q??=", Some(""));
    }

    #[test]
    fn what_is_no_encoded_word_means_itself() {
        for value in [
            "",
            "plain",
            "=?",
            "=?UTF-8?B?w6Q=",
            "=?UTF-8?X?w6Q=?=",
            "=?KOI8-R?B?w6Q=?=",
            "=?UTF-8?B?%%?=",
            "=?UTF-8?B?/w==?=",
            "=?UTF-8?Q?=ZZ?=",
            "=?UTF-8?Q?=4?=",
            "=?UTF-8?B?w6Q=?= and more",
            "a =?UTF-8?B?w6Q=?=",
        ] {
            assert_eq!(decode(value), None, "{value}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(text in "\\PC{0,60}") {
            let written = encode(&text);
            prop_assert!(written.is_ascii());
            if !text.is_ascii() {
                prop_assert_eq!(decode(&written), Some(text));
            }
        }
        #[test]
        fn reading_never_panics(value in "(=\\?(UTF-8|x)\\?[BQ]\\?)?\\PC{0,40}(\\?=)?") {
            let _ = decode(&value);
        }
    }
}
