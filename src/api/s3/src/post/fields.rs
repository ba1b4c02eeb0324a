//! The form up to its file: its fields, who signed it, and the headers of the PUT that it stands for.

use std::collections::VecDeque;

use futures::{StreamExt, TryStreamExt};
use garage_api_common::{
    ErrorCode, S3Error,
    form::{FormDecoder, FormEvent, boundary_of},
    http::RequestBody,
    limits::BODY_STALL_TIMEOUT,
    sigv4::{FormClaim, SecretLookup, SignatureSettings},
    xml::parse,
};
use garage_model::rows::object::OBJECT_KEY_MAX_BYTES;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use percent_encoding::utf8_percent_encode;

use super::{
    UNRESERVED,
    file::{FormBytes, FormFile},
    policy::Policy,
};

const FILE_NAME: &str = "${filename}";
/// Fields that make up the signature: no headers.
const SIGNATURE_FIELDS: [&str; 5] = ["x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-signature", "x-amz-security-token"];
/// Fields that are headers of a PUT under the same name, besides `x-amz-*`.
const HEADER_FIELDS: [&str; 9] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-md5",
    "content-type",
    "expires",
    "if-match",
    "if-none-match",
];

/// The fields of a form in order, their names in lower case, `${filename}` replaced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields(Vec<(String, String)>);

impl Fields {
    /// Fields with `${filename}` replaced by the base name of the file. Errors: 400 `InvalidArgument` for a field that stands twice.
    pub fn new(sent: Vec<(String, String)>, file_name: Option<&str>) -> Result<Fields, S3Error> {
        let base_name = file_name.map(|name| name.rsplit(['/', '\\']).next().unwrap_or(name)).unwrap_or_default();
        let mut fields: Vec<(String, String)> = Vec::with_capacity(sent.len());
        for (name, value) in sent {
            let name = name.trim().to_ascii_lowercase();
            if fields.iter().any(|(found, _)| *found == name) {
                // Which of the two the policy was held against, and which was obeyed, must not differ.
                return Err(S3Error::invalid_argument("A field of the form stands twice", &name, ""));
            }
            let value = if name == "policy" { value } else { value.replace(FILE_NAME, base_name) };
            fields.push((name, value));
        }
        Ok(Fields(fields))
    }

    /// The value of a field, by its lower-case name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// All fields in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The key. Errors: 400 `InvalidArgument`, 400 `KeyTooLongError`.
    pub fn key(&self) -> Result<&str, S3Error> {
        let missing = "Bucket POST must contain a field named 'key'.  If it is specified, please check the order of the fields.";
        match self.get("key") {
            None => Err(S3Error::invalid_argument(missing, "key", "")),
            Some("") => Err(S3Error::invalid_argument("User key must have a length greater than 0.", "key", "")),
            Some(key) if OBJECT_KEY_MAX_BYTES < key.len() => {
                Err(S3Error::of(ErrorCode::KeyTooLongError).with("Size", key.len()).with("MaxSizeAllowed", OBJECT_KEY_MAX_BYTES))
            }
            Some(key) => Ok(key),
        }
    }

    /// The headers of the PUT that the form stands for. Errors: 400 `InvalidArgument`, `MalformedXML`.
    pub fn headers(&self) -> Result<HeaderMap, S3Error> {
        let mut headers = HeaderMap::new();
        for (name, value) in self.iter() {
            let (name, value) = match name {
                "acl" => ("x-amz-acl", value.to_owned()),
                "tagging" => ("x-amz-tagging", tags_of(value)?),
                _ if SIGNATURE_FIELDS.contains(&name) => continue,
                _ if name.starts_with("x-amz-") || HEADER_FIELDS.contains(&name) => (name, value.to_owned()),
                _ => continue,
            };
            let refused = || S3Error::invalid_argument("The field can't stand in a header", name, "");
            let header = HeaderName::try_from(name).map_err(|_| refused())?;
            headers.insert(header, HeaderValue::from_bytes(value.trim().as_bytes()).map_err(|_| refused())?);
        }
        Ok(headers)
    }

    /// The policy, if the form has one, whoever signed it being known to `lookup`; what it says is not looked at here.
    ///
    /// Errors: those of [`FormClaim`], 403 `InvalidAccessKeyId`, 403 `SignatureDoesNotMatch`, 400 `InvalidPolicyDocument`.
    pub async fn signed_policy<L: SecretLookup>(&self, settings: &SignatureSettings, lookup: &L) -> Result<Option<Policy>, S3Error> {
        let Some(policy) = self.get("policy") else {
            return match SIGNATURE_FIELDS.iter().find(|name| self.get(name).is_some()) {
                Some(_) => {
                    let message =
                        "Bucket POST must contain a field named 'policy'.  If it is specified, please check the order of the fields.";
                    Err(S3Error::invalid_argument(message, "policy", ""))
                }
                None => Ok(None),
            };
        };
        let claim = FormClaim::parse(|name| self.get(name), settings)?;
        let Some(key) = lookup.secret_of(&claim.scope.access_key_id).await? else {
            return Err(S3Error::of(ErrorCode::InvalidAccessKeyId).with("AWSAccessKeyId", &claim.scope.access_key_id));
        };
        claim.verify(policy, &key)?;
        Policy::parse(policy).map(Some)
    }
}

/// A `<Tagging>` document as the value of `x-amz-tagging`.
fn tags_of(document: &str) -> Result<String, S3Error> {
    if document.trim().is_empty() {
        return Ok(String::new());
    }
    let tagging = parse(document.as_bytes(), &["Tagging"])?;
    let tags = tagging.child("TagSet").into_iter().flat_map(|set| set.children_named("Tag"));
    let pairs = tags.map(|tag| {
        let part = |name: &str| Ok::<_, S3Error>(utf8_percent_encode(tag.text_of(name).unwrap_or_default(), UNRESERVED).to_string());
        tag.required("Key")?;
        Ok(format!("{}={}", part("Key")?, part("Value")?))
    });
    Ok(pairs.collect::<Result<Vec<_>, S3Error>>()?.join("&"))
}

/// A form that was read up to the content of its file.
pub struct Form {
    /// The fields before the file.
    pub fields: Fields,
    /// The content of the file, not read yet.
    pub file: FormFile,
}

impl Form {
    /// Reads a form up to its file.
    ///
    /// Errors: 412 `PreconditionFailed` when it is none, 400 `MalformedPOSTRequest`, `MaxPostPreDataLengthExceededError`, `InvalidArgument`,
    /// `RequestTimeout`.
    pub async fn read(headers: &HeaderMap, body: RequestBody) -> Result<Form, S3Error> {
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let Some(boundary) = boundary_of(content_type)? else {
            return Err(S3Error::precondition_failed("Bucket POST must be of the enclosure-type multipart/form-data"));
        };
        Form::of_stream(&boundary, body.map_err(Into::into).boxed()).await
    }

    async fn of_stream(boundary: &str, mut source: FormBytes) -> Result<Form, S3Error> {
        let mut decoder = FormDecoder::new(boundary);
        let mut sent = Vec::new();
        loop {
            let piece = tokio::time::timeout(BODY_STALL_TIMEOUT, source.next()).await;
            let piece = piece.map_err(|_| S3Error::of(ErrorCode::RequestTimeout).closing())?;
            let piece = piece.transpose().map_err(|error| S3Error::of(ErrorCode::IncompleteBody).caused_by(error).closing())?;
            let Some(piece) = piece else {
                decoder.finish()?;
                return Err(no_file());
            };
            let mut events = Vec::new();
            decoder.feed(&piece, &mut events)?;
            let mut events = VecDeque::from(events);
            while let Some(event) = events.pop_front() {
                match event {
                    FormEvent::Field { name, value } => sent.push((name, value)),
                    FormEvent::File { name } => {
                        let fields = Fields::new(sent, name.as_deref())?;
                        return Ok(Form { fields, file: FormFile::new(source, decoder, events) });
                    }
                    FormEvent::NoFile | FormEvent::Data(_) | FormEvent::FileEnd => return Err(no_file()),
                }
            }
        }
    }
}

fn no_file() -> S3Error {
    S3Error::invalid_argument("POST requires exactly one file upload per request.", "file", 0)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::{StreamExt, TryStreamExt, stream};
    use garage_api_common::{ErrorCode, S3Error};

    use super::{Fields, Form};

    fn fields(pairs: &[(&str, &str)], file_name: Option<&str>) -> Result<Fields, S3Error> {
        Fields::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(), file_name)
    }

    #[test]
    fn the_file_s_name_stands_in_for_its_variable() {
        let key = |file_name| fields(&[("KEY", "up/${filename}"), ("policy", "${filename}")], file_name).unwrap();
        assert_eq!(key(Some("a.txt")).key().unwrap(), "up/a.txt");
        assert_eq!(key(Some("C:\\dir\\a.txt")).key().unwrap(), "up/a.txt");
        assert_eq!(key(Some("../../a.txt")).key().unwrap(), "up/a.txt");
        assert_eq!(key(None).key().unwrap(), "up/");
        assert_eq!(key(Some("a")).get("policy"), Some("${filename}"));
    }

    #[test]
    fn a_key_is_needed_once_and_not_too_long() {
        let code = |pairs: &[(&str, &str)]| fields(pairs, None).and_then(|fields| fields.key().map(drop)).map_err(|error| error.code);
        assert_eq!(code(&[]), Err(ErrorCode::InvalidArgument));
        assert_eq!(code(&[("key", "")]), Err(ErrorCode::InvalidArgument));
        assert_eq!(code(&[("key", "a"), ("Key", "b")]), Err(ErrorCode::InvalidArgument));
        assert_eq!(code(&[("key", &"k".repeat(1025))]), Err(ErrorCode::KeyTooLongError));
        assert_eq!(code(&[("key", &"k".repeat(1024))]), Ok(()));
    }

    #[test]
    fn fields_become_the_headers_of_a_put() {
        let tags = "<Tagging><TagSet><Tag><Key>a b</Key><Value>c&amp;d</Value></Tag></TagSet></Tagging>";
        let sent = [
            ("key", "k"),
            ("acl", "private"),
            ("Content-Type", "text/plain"),
            ("x-amz-meta-A", "ä"),
            ("x-amz-date", "20260101T000000Z"),
            ("tagging", tags),
            ("submit", "Upload"),
        ];
        let headers = fields(&sent, None).unwrap().headers().unwrap();
        let mut names: Vec<&str> = headers.keys().map(|name| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-type", "x-amz-acl", "x-amz-meta-a", "x-amz-tagging"]);
        assert_eq!(headers["x-amz-tagging"], "a%20b=c%26d");
        assert_eq!(headers["x-amz-meta-a"].as_bytes(), "ä".as_bytes());
        for bad in [("x-amz-meta-a", "a\nb"), ("x-amz-meta-\u{e4}", "a"), ("tagging", "<x/>")] {
            assert!(fields(&[bad], None).unwrap().headers().is_err(), "{bad:?}");
        }
    }

    async fn read(form: &str, piece_bytes: usize) -> Result<(Fields, Vec<u8>), S3Error> {
        let pieces: Vec<_> = form.as_bytes().chunks(piece_bytes).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let form = Form::of_stream("XX", stream::iter(pieces).boxed()).await?;
        let content: Vec<Bytes> = form.file.within(2..=5).try_collect().await.map_err(|error| *error.downcast::<S3Error>().unwrap())?;
        Ok((form.fields, content.concat()))
    }

    #[tokio::test]
    async fn a_form_is_read_up_to_its_file_and_the_file_within_its_sizes() {
        let form = |content: &str, end: &str| {
            let part = "--XX\r\nContent-Disposition: form-data; name=";
            format!("{part}key\r\n\r\nk\r\n{part}file; filename=f\r\n\r\n{content}\r\n--XX{end}")
        };
        for piece_bytes in [1, 7, 1000] {
            let (fields, content) = read(&form("12345", "--"), piece_bytes).await.unwrap();
            assert_eq!((fields.get("key"), content.as_slice()), (Some("k"), b"12345".as_slice()));
            assert_eq!(read(&form("123456", "--"), piece_bytes).await.unwrap_err().code, ErrorCode::EntityTooLarge);
            assert_eq!(read(&form("1", "--"), piece_bytes).await.unwrap_err().code, ErrorCode::EntityTooSmall);
            let cut = form("12345", "");
            assert_eq!(read(&cut[..cut.len() - 2], piece_bytes).await.unwrap_err().code, ErrorCode::MalformedPOSTRequest);
            assert_eq!(read("--XX--", piece_bytes).await.unwrap_err().code, ErrorCode::InvalidArgument);
        }
    }
}
