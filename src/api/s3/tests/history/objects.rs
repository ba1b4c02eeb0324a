//! Objects: PUT, GET, HEAD, copies, attributes.

use base64::{Engine, engine::general_purpose::STANDARD};
use garage_api_common::checksum::{ChecksumAlgorithm, ChecksumType};
use garage_api_common::time::{http_date, iso8601};
use http::StatusCode;
use md5::{Digest, Md5};

use crate::{
    model::{Labels, Object, Shown, Version, Versioning, md5_hex, quoted},
    run::{Run, check_refused, mode_name},
    site::{Answer, Ask},
};

/// A condition on what is there, and the answer if it does not hold.
pub type Failing = Option<(u16, &'static str)>;

impl Run {
    /// A condition of a write, and what becomes of it by the model.
    pub fn write_condition(&mut self, bucket: &str, key: &str, ask: Ask) -> (Ask, Failing) {
        let there = self.bucket(bucket).object(key).map(|object| object.etag.clone());
        match (self.seed.pick(16), there) {
            (0, None) => (ask.header("if-none-match", "*"), None),
            (0, Some(_)) => (ask.header("if-none-match", "*"), Some((412, "PreconditionFailed"))),
            (1, None) => (ask.header("if-match", "*"), Some((404, "NoSuchKey"))),
            (1, Some(_)) => (ask.header("if-match", "*"), None),
            (2, None) => (ask.header("if-match", quoted(&md5_hex(b"x"))), Some((404, "NoSuchKey"))),
            (2, Some(_)) => (ask.header("if-match", quoted(&md5_hex(b"something else"))), Some((412, "PreconditionFailed"))),
            (3, Some(etag)) => (ask.header("if-match", quoted(&etag)), None),
            (4, Some(etag)) => (ask.header("if-match", etag), None),
            (5, _) => (ask.header("if-none-match", quoted(&md5_hex(b"x"))), Some((501, "NotImplemented"))),
            _ => (ask, None),
        }
    }

    pub async fn put(&mut self) {
        let (bucket, key, content) = (self.bucket_name(), self.key(), self.content());
        let ask = Ask::object("PUT", &bucket, &key).body(content.clone());
        let (ask, failing) = self.write_condition(&bucket, &key, ask);
        let (labels, mut ask) = self.labels(&bucket, ask);
        let algorithm = if self.seed.one_in(2) { Some(self.algorithm()) } else { None };
        let checksum = Shown::of(algorithm.unwrap_or(ChecksumAlgorithm::Crc64Nvme), &content);
        let mut refusal = failing;
        let damaged = self.seed.one_in(15);
        if let Some(algorithm) = algorithm {
            let other = Shown::of(algorithm, b"other content");
            ask = ask.header(algorithm.header(), if damaged { other.text } else { checksum.text.clone() });
        }
        if algorithm.is_none() && (damaged || self.bucket(&bucket).lock) {
            let digest = Md5::digest(if damaged { &b"other content"[..] } else { &content[..] });
            ask = ask.header("content-md5", STANDARD.encode(digest));
        }
        if damaged {
            refusal = Some((400, "BadDigest"));
        }
        if damaged && failing.is_some() {
            // Which of the two is told first is nobody's business.
            let answer = self.ask(&ask).await;
            assert!(400 <= answer.status, "{answer:?}");
            return;
        }
        if let Some((status, code)) = refusal {
            self.refused(&ask, status, code).await;
            return;
        }
        let before_ms = self.site.now_ms();
        let answer = self.ok(&ask, 200).await;
        let object = Object { etag: md5_hex(&content), content, labels, checksum, parts: Vec::new() };
        assert_eq!(answer.header("etag"), Some(&*quoted(&object.etag)));
        check_checksum(&answer, Some(&object.checksum));
        assert_eq!(answer.header("x-amz-server-side-encryption"), object.labels.sealed.then_some("AES256"));
        self.check_expiration(&bucket, &key, &object, (before_ms, self.site.latest_ms()), &answer);
        let id = self.new_id(&bucket, &answer);
        self.store(&bucket, &key, id, Some(object), before_ms);
    }

    /// The version that a read finds, or how it is refused: status, code, and the id of the delete marker that is there instead.
    pub fn find(&self, bucket: &str, key: &str, id: Option<&str>) -> Result<Version, (u16, &'static str, Option<String>)> {
        let bucket = self.bucket(bucket);
        let found = match id {
            Some(id) => bucket.version(key, id),
            None => bucket.current(key),
        };
        match found {
            Some(version) if version.object.is_some() => Ok(version.clone()),
            Some(marker) if id.is_some() => Err((405, "MethodNotAllowed", marker.id.clone())),
            Some(marker) => Err((404, "NoSuchKey", marker.id.clone())),
            None if id.is_some() => Err((404, "NoSuchVersion", None)),
            None => Err((404, "NoSuchKey", None)),
        }
    }

    /// Checks the refusal of a read.
    pub fn check_not_found(&self, ask: &Ask, answer: &Answer, refusal: (u16, &'static str, Option<String>)) {
        let (status, code, marker) = refusal;
        check_refused(ask, answer, status, code);
        assert_eq!(answer.header("x-amz-delete-marker"), marker.as_ref().map(|_| "true"));
        assert_eq!(answer.header("x-amz-version-id"), marker.as_deref());
        assert_eq!(answer.header("allow"), (status == 405).then_some("DELETE"));
    }

    pub async fn read(&mut self) {
        let (bucket, key) = (self.bucket_name(), self.key());
        let id = self.version_id(&bucket, &key);
        let method = self.pick(&["GET", "GET", "HEAD"]);
        let mut ask = Ask::object(method, &bucket, &key);
        if let Some(id) = &id {
            ask = ask.query("versionId", id.clone());
        }
        let found = self.find(&bucket, &key, id.as_deref());
        let etag = found.as_ref().ok().and_then(|version| version.object.as_ref()).map(|object| object.etag.clone()).unwrap_or_default();
        let mut verdict = StatusCode::OK;
        match self.seed.pick(14) {
            0 => ask = ask.header("if-match", quoted(&etag)),
            1 => (ask, verdict) = (ask.header("if-match", "\"no\""), StatusCode::PRECONDITION_FAILED),
            2 => (ask, verdict) = (ask.header("if-none-match", format!("\"no\", {}", quoted(&etag))), StatusCode::NOT_MODIFIED),
            3 => ask = ask.header("if-none-match", "\"no\""),
            // Clocks differ by less than a second, and a date in the future would be ignored.
            4 if found.as_ref().is_ok_and(|version| version.made_ms.1 / 1000 < self.site.now_ms() / 1000) => {
                (ask, verdict) = (ask.header("if-modified-since", http_date(self.site.now_ms())), StatusCode::NOT_MODIFIED);
            }
            5 => (ask, verdict) = (ask.header("if-unmodified-since", http_date(1_000_000_000_000)), StatusCode::PRECONDITION_FAILED),
            6 => ask = ask.header("if-match", quoted(&etag)).header("if-unmodified-since", http_date(1_000_000_000_000)),
            _ => {}
        }
        let with_checksum = self.seed.one_in(2);
        if with_checksum {
            ask = ask.header("x-amz-checksum-mode", "ENABLED");
        }
        let size = found.as_ref().ok().and_then(|version| version.object.as_ref()).map_or(0, |object| object.content.len() as u64);
        let (ask, range) = self.some_range(ask, size);
        let answer = self.ask(&ask).await;
        let version = match found {
            Ok(version) => version,
            Err(refusal) => return self.check_not_found(&ask, &answer, refusal),
        };
        let object = version.object.as_ref().expect("found");
        match verdict {
            StatusCode::PRECONDITION_FAILED => return check_refused(&ask, &answer, 412, "PreconditionFailed"),
            StatusCode::NOT_MODIFIED => {
                assert_eq!((answer.status, answer.body.len(), answer.header("etag")), (304, 0, Some(&*quoted(&object.etag))));
                return self.check_id(&bucket, &answer, &version);
            }
            _ => {}
        }
        let (status, range) = match range {
            Ranged::Whole => (200, 0..size),
            Ranged::Some(range) => (206, range),
            Ranged::Unsatisfiable => {
                check_refused(&ask, &answer, 416, "InvalidRange");
                return assert_eq!(answer.header("content-range"), Some(&*format!("bytes */{size}")));
            }
        };
        assert_eq!(answer.status, status, "{answer:?}");
        let bytes = &object.content[range.start as usize..range.end as usize];
        if method == "GET" {
            assert!(answer.body == bytes, "the content of {bucket}/{key}");
        }
        assert_eq!(answer.header("content-length"), Some(&*bytes.len().to_string()));
        let shown_range = (status == 206).then(|| format!("bytes {}-{}/{size}", range.start, range.end - 1));
        assert_eq!(answer.header("content-range"), shown_range.as_deref());
        check_checksum(&answer, Some(&object.checksum).filter(|_| with_checksum && status == 200));
        self.check_object(&bucket, &answer, &version);
        if id.is_none() {
            self.check_expiration(&bucket, &key, object, version.made_ms, &answer);
        }
    }

    /// A range, and what it selects of so many bytes.
    fn some_range(&mut self, ask: Ask, size: u64) -> (Ask, Ranged) {
        if !self.seed.one_in(4) {
            return (ask, Ranged::Whole);
        }
        let (a, b) = (self.seed.pick(size + 3), self.seed.pick(size + 3));
        let (text, range) = match self.seed.pick(6) {
            0 => (format!("bytes={a}-"), if a < size { Ranged::Some(a..size) } else { Ranged::Unsatisfiable }),
            1 if a == 0 => ("bytes=-0".to_owned(), Ranged::Unsatisfiable),
            1 if size == 0 => (format!("bytes=-{a}"), Ranged::Whole),
            1 => (format!("bytes=-{a}"), Ranged::Some(size.saturating_sub(a)..size)),
            2 => ("bytes=0-1,3-4".to_owned(), Ranged::Whole),
            3 => (format!("lines={a}-"), Ranged::Whole),
            _ if b < a => (format!("bytes={a}-{b}"), Ranged::Whole),
            _ if size <= a => (format!("bytes={a}-{b}"), Ranged::Unsatisfiable),
            _ => (format!("bytes={a}-{b}"), Ranged::Some(a..(b + 1).min(size))),
        };
        (ask.header("range", text), range)
    }

    /// The headers that tell of an object.
    fn check_object(&self, bucket: &str, answer: &Answer, version: &Version) {
        let object = version.object.as_ref().expect("an object");
        let labels = &object.labels;
        assert_eq!(answer.header("etag"), Some(&*quoted(&object.etag)));
        assert_eq!(answer.header("content-type"), Some(labels.content_type.as_deref().unwrap_or("binary/octet-stream")));
        assert_eq!(answer.header("x-amz-meta-of-it"), labels.meta.get("of-it").map(String::as_str));
        let tag_count = (!labels.tags.is_empty()).then(|| labels.tags.len().to_string());
        assert_eq!(answer.header("x-amz-tagging-count"), tag_count.as_deref());
        assert_eq!(answer.header("x-amz-storage-class"), labels.class);
        assert_eq!(answer.header("x-amz-server-side-encryption"), labels.sealed.then_some("AES256"));
        assert_eq!(answer.header("x-amz-object-lock-mode"), labels.retention.map(mode_name));
        let until = labels.retention.map(|retention| iso8601(retention.until_ms));
        assert_eq!(answer.header("x-amz-object-lock-retain-until-date"), until.as_deref());
        let hold = labels.hold.map(|on| if on { "ON" } else { "OFF" });
        assert_eq!(answer.header("x-amz-object-lock-legal-hold"), hold);
        let modified = garage_api_common::time::parse_http_date(answer.header("last-modified").expect("Last-Modified")).expect("a date");
        assert!(version.made_ms.0 / 1000 <= modified / 1000 && modified <= version.made_ms.1, "{modified} {:?}", version.made_ms);
        self.check_id(bucket, answer, version);
    }

    pub async fn copy(&mut self) {
        let (from, from_key, bucket, key) = (self.bucket_name(), self.key(), self.bucket_name(), self.key());
        let id = self.version_id(&from, &from_key);
        let encode = |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
        let mut source = format!("{from}/{}", encode(&from_key));
        if let Some(id) = &id {
            source += &format!("?versionId={id}");
        }
        let mut ask = Ask::object("PUT", &bucket, &key).header("x-amz-copy-source", source);
        let (given, with_labels) = self.labels(&bucket, ask.clone());
        let replaces = self.seed.one_in(2);
        if replaces {
            ask = with_labels.header("x-amz-metadata-directive", "REPLACE").header("x-amz-tagging-directive", "REPLACE");
        }
        let asked = if self.seed.one_in(4) { Some(self.algorithm()) } else { None };
        if let Some(algorithm) = asked {
            ask = ask.header("x-amz-checksum-algorithm", algorithm.name());
        }
        let found = self.find(&from, &from_key, id.as_deref());
        let mut refusal: Failing = match &found {
            Ok(_) => None,
            Err((405, ..)) => Some((400, "InvalidRequest")),
            Err((status, code, _)) => Some((*status, code)),
        };
        if refusal.is_none() && self.seed.one_in(6) {
            ask = ask.header("x-amz-copy-source-if-match", "\"no\"");
            refusal = Some((412, "PreconditionFailed"));
        }
        let onto_itself = (&from, &from_key) == (&bucket, &key) && id.is_none();
        if refusal.is_none() && onto_itself && !replaces {
            refusal = Some((400, "InvalidRequest"));
        }
        if refusal.is_none() {
            (ask, refusal) = self.write_condition(&bucket, &key, ask);
        }
        if let Some((status, code)) = refusal {
            self.refused(&ask, status, code).await;
            return;
        }
        let version = found.expect("not refused");
        let before_ms = self.site.now_ms();
        let answer = self.ok(&ask, 200).await;
        let object = copy_of(version.object.as_ref().expect("found"), replaces.then_some(given), asked);
        let document = answer.xml();
        assert_eq!(document.value_of("ETag"), Some(&*quoted(&object.etag)));
        assert_eq!(document.value_of(object.checksum.algorithm.element()), Some(&*object.checksum.text));
        let shown = version.id.as_deref().filter(|_| self.bucket(&from).versioning != Versioning::Off);
        assert_eq!(answer.header("x-amz-copy-source-version-id"), shown);
        self.check_expiration(&bucket, &key, &object, (before_ms, self.site.latest_ms()), &answer);
        let id = self.new_id(&bucket, &answer);
        self.store(&bucket, &key, id, Some(object), before_ms);
    }

    pub async fn attributes(&mut self) {
        let (bucket, key) = (self.bucket_name(), self.key());
        let id = self.version_id(&bucket, &key);
        let mut ask = Ask::object("GET", &bucket, &key).query("attributes", "");
        ask = ask.header("x-amz-object-attributes", "ETag,Checksum,ObjectParts,StorageClass,ObjectSize");
        if let Some(id) = &id {
            ask = ask.query("versionId", id.clone());
        }
        let found = self.find(&bucket, &key, id.as_deref());
        let answer = self.ask(&ask).await;
        let version = match found {
            Ok(version) => version,
            Err(refusal) => return self.check_not_found(&ask, &answer, refusal),
        };
        let object = version.object.as_ref().expect("found");
        assert_eq!(answer.status, 200, "{answer:?}");
        let document = answer.xml();
        assert_eq!(document.value_of("ETag"), Some(&*object.etag));
        assert_eq!(document.value_of("ObjectSize"), Some(&*object.content.len().to_string()));
        assert_eq!(document.value_of("StorageClass"), Some(object.labels.class.unwrap_or("STANDARD")));
        let checksum = document.child("Checksum").expect("every object has a checksum");
        let plain = object.checksum.text.split('-').next();
        assert_eq!(checksum.value_of(object.checksum.algorithm.element()), plain);
        assert_eq!(checksum.value_of("ChecksumType"), Some(object.checksum.kind.name()));
        let parts = document.child("ObjectParts");
        assert_eq!(parts.is_some(), !object.parts.is_empty());
        if let Some(parts) = parts {
            assert_eq!(parts.value_of("PartsCount"), Some(&*object.parts.len().to_string()));
            let shown: Vec<(String, String)> = parts
                .children_named("Part")
                .map(|part| (part.value_of("PartNumber").unwrap_or_default().into(), part.value_of("Size").unwrap_or_default().into()))
                .collect();
            let expected: Vec<(String, String)> =
                object.parts.iter().map(|(number, part)| (number.to_string(), part.content.len().to_string())).collect();
            assert_eq!(shown, expected);
        }
        self.check_id(&bucket, &answer, &version);
    }
}

enum Ranged {
    Whole,
    Some(std::ops::Range<u64>),
    Unsatisfiable,
}

/// What a copy is: with the labels given, or with the metadata and tags of its source.
fn copy_of(source: &Object, given: Option<Labels>, asked: Option<ChecksumAlgorithm>) -> Object {
    let labels = given.unwrap_or_else(|| Labels {
        content_type: source.labels.content_type.clone(),
        meta: source.labels.meta.clone(),
        tags: source.labels.tags.clone(),
        ..Labels::default()
    });
    let algorithm = asked.unwrap_or(source.checksum.algorithm);
    // A copy that shares its source's content shares its ETag too, unless something had to be computed over the content.
    let shares = !labels.sealed
        && !source.labels.sealed
        && source.checksum.kind == ChecksumType::FullObject
        && source.checksum.algorithm == algorithm;
    let etag = if shares { source.etag.clone() } else { md5_hex(&source.content) };
    Object { etag, labels, checksum: Shown::of(algorithm, &source.content), content: source.content.clone(), parts: Vec::new() }
}

/// The checksum in an answer's headers, and no other.
pub fn check_checksum(answer: &Answer, expected: Option<&Shown>) {
    for algorithm in ChecksumAlgorithm::ALL {
        let expected = expected.filter(|expected| expected.algorithm == algorithm).map(|expected| expected.text.as_str());
        assert_eq!(answer.header(algorithm.header()), expected, "{}", algorithm.name());
    }
    assert_eq!(answer.header("x-amz-checksum-type"), expected.map(|expected| expected.kind.name()));
}
