//! Uploads in parts.

use bytes::Bytes;
use garage_api_common::{
    checksum::{ChecksumAlgorithm, ChecksumType, ChecksumValue, checksum_of, composite, composite_text},
    time::http_date,
    xml::Element,
};
use md5::{Digest, Md5};

use crate::{
    model::{Object, Part, Shown, Upload, Versioning, due_ms, md5_hex, quoted},
    objects::{Failing, check_checksum},
    run::Run,
    site::Ask,
};

/// The least size of a part that is not the last.
const PART_MIN_BYTES: usize = 5 << 20;
const PART_NUMBERS: [u16; 5] = [1, 2, 3, 7, 10_000];
/// An upload that never was.
const NO_UPLOAD: &str = "00";

impl Run {
    /// An upload of some bucket: one that is open, mostly.
    fn upload(&mut self) -> Option<(String, String, Upload)> {
        let bucket = self.bucket_name();
        let ids: Vec<String> = self.bucket(&bucket).uploads.keys().cloned().collect();
        if ids.is_empty() {
            return None;
        }
        let id = self.pick(&ids);
        let upload = self.bucket(&bucket).uploads[&id].clone();
        Some((bucket, id, upload))
    }

    pub async fn create_upload(&mut self) {
        let (bucket, key) = (self.bucket_name(), self.key());
        // Few at a time, so that they get somewhere.
        if 4 < self.bucket(&bucket).uploads.len() {
            return self.complete().await;
        }
        let (labels, mut ask) = self.labels(&bucket, Ask::object("POST", &bucket, &key).query("uploads", ""));
        let mut asked = None;
        if self.seed.one_in(2) {
            let algorithm = self.algorithm();
            let kind = if self.seed.one_in(2) { None } else { Some(self.pick(&[ChecksumType::Composite, ChecksumType::FullObject])) };
            ask = ask.header("x-amz-checksum-algorithm", algorithm.name());
            if let Some(kind) = kind {
                ask = ask.header("x-amz-checksum-type", kind.name());
            }
            let is_crc = matches!(algorithm, ChecksumAlgorithm::Crc32 | ChecksumAlgorithm::Crc32c | ChecksumAlgorithm::Crc64Nvme);
            let legal = match kind {
                None => true,
                Some(ChecksumType::FullObject) => is_crc,
                Some(ChecksumType::Composite) => algorithm != ChecksumAlgorithm::Crc64Nvme,
            };
            if !legal {
                self.refused(&ask, 400, "InvalidRequest").await;
                return;
            }
            let default = if algorithm == ChecksumAlgorithm::Crc64Nvme { ChecksumType::FullObject } else { ChecksumType::Composite };
            asked = Some((algorithm, kind.unwrap_or(default)));
        }
        let before_ms = self.site.now_ms();
        let answer = self.ok(&ask, 200).await;
        let document = answer.xml();
        assert_eq!((document.value_of("Bucket"), document.text_of("Key")), (Some(&*bucket), Some(&*key)));
        assert_eq!(answer.header("x-amz-checksum-algorithm"), asked.map(|(algorithm, _)| algorithm.name()));
        assert_eq!(answer.header("x-amz-checksum-type"), asked.map(|(_, kind)| kind.name()));
        assert_eq!(answer.header("x-amz-server-side-encryption"), labels.sealed.then_some("AES256"));
        let id = document.value_of("UploadId").expect("an upload has an id").to_owned();
        let made_ms = (before_ms, self.site.latest_ms());
        self.check_abort(&bucket, &key, made_ms, &answer);
        let upload = Upload { key, labels, asked, parts: Default::default(), made_ms };
        assert!(self.bucket_mut(&bucket).uploads.insert(id, upload).is_none(), "an id is given once");
    }

    /// When an upload will be aborted, as its answers say.
    fn check_abort(&self, bucket: &str, key: &str, made_ms: (u64, u64), answer: &crate::site::Answer) {
        let rules = self.bucket(bucket).rules.iter().enumerate().filter(|(_, rule)| key.starts_with(&rule.prefix));
        let due = rules.filter_map(|(index, rule)| Some((due_ms(made_ms.1, rule.abort_days?), index))).min();
        assert_eq!(answer.header("x-amz-abort-date"), due.map(|(due_ms, _)| http_date(due_ms)).as_deref());
        assert_eq!(answer.header("x-amz-abort-rule-id"), due.map(|(_, index)| format!("rule{index}")).as_deref());
    }

    pub async fn upload_part(&mut self) {
        let Some((bucket, id, upload)) = self.upload() else { return self.create_upload().await };
        let number = self.pick(&PART_NUMBERS);
        let content = if self.seed.one_in(25) { self.long_content() } else { self.content() };
        let (algorithm, _) = upload.checksum();
        let checksum = Shown::of(algorithm, &content);
        let mut ask = Ask::object("PUT", &bucket, &upload.key).query("partNumber", number.to_string()).body(content.clone());
        let unknown = self.seed.one_in(20);
        ask = ask.query("uploadId", if unknown { NO_UPLOAD.to_owned() } else { id.clone() });
        let damaged = !unknown && self.seed.one_in(15);
        if damaged {
            ask = ask.header(algorithm.header(), Shown::of(algorithm, b"other content").text);
        } else if self.seed.one_in(3) {
            ask = ask.header(algorithm.header(), checksum.text.clone());
        }
        if unknown {
            self.refused(&ask, 404, "NoSuchUpload").await;
            return;
        }
        if damaged {
            self.refused(&ask, 400, "BadDigest").await;
            return;
        }
        let answer = self.ok(&ask, 200).await;
        let part = Part { etag: md5_hex(&content), content, checksum };
        assert_eq!(answer.header("etag"), Some(&*quoted(&part.etag)));
        assert_eq!(answer.header(algorithm.header()), Some(&*part.checksum.text));
        self.put_part(&bucket, &id, number, part);
    }

    fn put_part(&mut self, bucket: &str, id: &str, number: u16, part: Part) {
        let upload = self.bucket_mut(bucket).uploads.get_mut(id).expect("an open upload");
        upload.parts.insert(number, part);
    }

    fn long_content(&mut self) -> Bytes {
        let byte = self.seed.pick(256) as u8;
        (0..PART_MIN_BYTES + self.seed.pick(2) as usize).map(|at| byte.wrapping_add((at / 251) as u8)).collect()
    }

    pub async fn copy_part(&mut self) {
        let Some((bucket, id, upload)) = self.upload() else { return self.create_upload().await };
        let (from, from_key, number) = (self.bucket_name(), self.key(), self.pick(&PART_NUMBERS));
        let encode = |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
        let mut ask = Ask::object("PUT", &bucket, &upload.key).query("partNumber", number.to_string()).query("uploadId", id.clone());
        ask = ask.header("x-amz-copy-source", format!("/{from}/{}", encode(&from_key)));
        let source = match self.find(&from, &from_key, None) {
            Ok(version) => version,
            Err((status, code, _)) => {
                self.refused(&ask, status, code).await;
                return;
            }
        };
        let content = &source.object.as_ref().expect("an object").content;
        let mut range = 0..content.len();
        if self.seed.one_in(2) {
            let (a, b) = (self.seed.pick(content.len() as u64 + 2), self.seed.pick(content.len() as u64 + 2));
            ask = ask.header("x-amz-copy-source-range", format!("bytes={a}-{b}"));
            if b < a || content.len() as u64 <= b {
                self.refused(&ask, 400, "InvalidArgument").await;
                return;
            }
            range = a as usize..b as usize + 1;
        }
        let answer = self.ok(&ask, 200).await;
        let content = content.slice(range);
        let part = Part { etag: md5_hex(&content), checksum: Shown::of(upload.checksum().0, &content), content };
        assert_eq!(answer.xml().value_of("ETag"), Some(&*quoted(&part.etag)));
        let shown = source.id.as_deref().filter(|_| self.bucket(&from).versioning != Versioning::Off);
        assert_eq!(answer.header("x-amz-copy-source-version-id"), shown);
        self.put_part(&bucket, &id, number, part);
    }

    pub async fn complete(&mut self) {
        if self.seed.one_in(4) {
            return self.complete_again().await;
        }
        let Some((bucket, id, upload)) = self.upload() else { return };
        // Mostly the parts that can make an object, sometimes all.
        let all = self.seed.one_in(4);
        let mut listed: Vec<(u16, Part)> = Vec::new();
        for (number, part) in &upload.parts {
            if all || listed.last().is_none_or(|(_, last)| PART_MIN_BYTES <= last.content.len()) {
                listed.push((*number, part.clone()));
            }
        }
        if listed.is_empty() {
            let ask = Ask::object("POST", &bucket, &upload.key).query("uploadId", id).body("<CompleteMultipartUpload/>");
            self.refused(&ask, 400, "MalformedXML").await;
            return;
        }
        let too_small = listed.split_last().is_some_and(|(_, others)| others.iter().any(|(_, part)| part.content.len() < PART_MIN_BYTES));
        let object = self.assembled(&upload, &listed);
        let explicit = upload.asked.is_some();
        let mut refusal: Failing = too_small.then_some((400, "EntityTooSmall"));
        let mut ask = Ask::object("POST", &bucket, &upload.key).query("uploadId", id.clone());
        let mut sent = listed.clone();
        match self.seed.pick(12) {
            0 => {
                sent[0].1.etag = md5_hex(b"no part");
                refusal = Some((400, "InvalidPart"));
            }
            1 if 1 < sent.len() => {
                sent.reverse();
                refusal = Some((400, "InvalidPartOrder"));
            }
            2 if !too_small && explicit => {
                ask = ask.header(object.checksum.algorithm.header(), Shown::of(object.checksum.algorithm, b"other content").text);
                refusal = Some((400, "BadDigest"));
            }
            3 if !too_small && explicit => ask = ask.header(object.checksum.algorithm.header(), object.checksum.text.clone()),
            4 if !too_small => {
                ask = ask.header("x-amz-mp-object-size", (object.content.len() + 1).to_string());
                refusal = Some((400, "InvalidRequest"));
            }
            5 if !too_small => ask = ask.header("x-amz-mp-object-size", object.content.len().to_string()),
            6..=8 if !too_small => {
                let (conditional, failing) = self.write_condition(&bucket, &upload.key, ask);
                (ask, refusal) = (conditional, failing);
            }
            _ => {}
        }
        ask = ask.body(list_of(&sent, explicit));
        if let Some((status, code)) = refusal {
            self.refused(&ask, status, code).await;
            return;
        }
        let before_ms = self.site.now_ms();
        let answer = self.ok(&ask, 200).await;
        let document = answer.xml();
        assert_eq!((document.value_of("Bucket"), document.text_of("Key")), (Some(&*bucket), Some(&*upload.key)));
        check_completed(&document, &object);
        self.check_expiration(&bucket, &upload.key, &object, (before_ms, self.site.latest_ms()), &answer);
        let version_id = self.new_id(&bucket, &answer);
        let numbers = listed.iter().map(|(number, _)| *number).collect();
        let etag = object.etag.clone();
        self.store(&bucket, &upload.key, version_id.clone(), Some(object), before_ms);
        let held = self.bucket_mut(&bucket);
        held.uploads.remove(&id);
        held.completed.insert(id, (list_of(&listed, explicit), numbers, etag));
    }

    /// A list that was completed is completed again: the same answer. Another list: there is no such upload.
    async fn complete_again(&mut self) {
        let bucket = self.bucket_name();
        let done: Vec<String> = self.bucket(&bucket).completed.keys().cloned().collect();
        if done.is_empty() {
            return;
        }
        let id = self.pick(&done);
        let (list, _, etag) = self.bucket(&bucket).completed[&id].clone();
        let key = self.key();
        let mut ask = Ask::object("POST", &bucket, &key).query("uploadId", id).header("if-none-match", "*");
        let other = self.seed.one_in(3);
        ask = ask.body(if other { list.replace("<PartNumber>", "<PartNumber>1") } else { list });
        let answer = self.ask(&ask).await;
        // Whose key it was is not remembered here: another's is as good as an upload that never was.
        match answer.status {
            200 => assert_eq!(answer.xml().value_of("ETag"), Some(&*quoted(&etag))),
            400 if other => {}
            _ => crate::run::check_refused(&ask, &answer, 404, "NoSuchUpload"),
        }
    }

    /// The object that these parts make.
    fn assembled(&self, upload: &Upload, parts: &[(u16, Part)]) -> Object {
        let content: Bytes = parts.iter().flat_map(|(_, part)| part.content.clone()).collect();
        let (algorithm, kind) = upload.checksum();
        let mut digests = Md5::new();
        parts.iter().for_each(|(_, part)| digests.update(Md5::digest(&part.content)));
        let etag = format!("{}-{}", hex::encode(digests.finalize()), parts.len());
        let checksum = match kind {
            ChecksumType::FullObject => Shown::of(algorithm, &content),
            ChecksumType::Composite => {
                let values: Vec<ChecksumValue> = parts.iter().map(|(_, part)| checksum_of(algorithm, &part.content)).collect();
                Shown { algorithm, kind, text: composite_text(&composite(algorithm, &values), parts.len()) }
            }
        };
        Object { content, etag, labels: upload.labels.clone(), checksum, parts: parts.to_vec() }
    }

    pub async fn abort(&mut self) {
        let Some((bucket, id, upload)) = self.upload() else { return };
        let ask = Ask::object("DELETE", &bucket, &upload.key).query("uploadId", id.clone());
        self.ok(&ask, 204).await;
        self.bucket_mut(&bucket).uploads.remove(&id);
        let ask = Ask::object("GET", &bucket, &upload.key).query("uploadId", id);
        self.refused(&ask, 404, "NoSuchUpload").await;
    }

    pub async fn list_parts(&mut self) {
        let Some((bucket, id, upload)) = self.upload() else { return };
        let (limit, mut marker) = (1 + self.seed.pick(4) as usize, 0);
        let mut expected: Vec<(u16, Part)> = upload.parts.clone().into_iter().collect();
        loop {
            let ask = Ask::object("GET", &bucket, &upload.key).query("uploadId", id.clone()).query("max-parts", limit.to_string());
            let answer = self.ok(&ask.query("part-number-marker", marker.to_string()), 200).await;
            self.check_abort(&bucket, &upload.key, upload.made_ms, &answer);
            let document = answer.xml();
            let page: Vec<(u16, Part)> = expected.drain(..expected.len().min(limit)).collect();
            let shown: Vec<&Element> = document.children_named("Part").collect();
            assert_eq!(shown.len(), page.len());
            for (shown, (number, part)) in shown.into_iter().zip(&page) {
                assert_eq!(shown.value_of("PartNumber"), Some(&*number.to_string()));
                assert_eq!(shown.value_of("ETag"), Some(&*quoted(&part.etag)));
                assert_eq!(shown.value_of("Size"), Some(&*part.content.len().to_string()));
                assert_eq!(shown.value_of(part.checksum.algorithm.element()), Some(&*part.checksum.text));
            }
            marker = page.last().map_or(marker, |(number, _)| *number);
            assert_eq!(document.value_of("NextPartNumberMarker"), Some(&*marker.to_string()));
            assert_eq!(document.value_of("IsTruncated"), Some(&*(!expected.is_empty()).to_string()));
            if expected.is_empty() {
                return;
            }
        }
    }

    pub async fn list_uploads(&mut self) {
        let bucket = self.bucket_name();
        let (prefix, limit) = (self.pick(&["", "a", "b/"]).to_owned(), 1 + self.seed.pick(3) as usize);
        let held = self.bucket(&bucket);
        let mut expected: Vec<(String, String)> =
            held.uploads.iter().map(|(id, upload)| (upload.key.clone(), id.clone())).filter(|(key, _)| key.starts_with(&prefix)).collect();
        expected.sort();
        let (mut key_marker, mut id_marker) = (String::new(), String::new());
        loop {
            let mut ask =
                Ask::bucket("GET", &bucket).query("uploads", "").query("prefix", &*prefix).query("max-uploads", limit.to_string());
            ask = ask.query("key-marker", &*key_marker).query("upload-id-marker", &*id_marker);
            let document = self.ok(&ask, 200).await.xml();
            let page: Vec<(String, String)> = expected.drain(..expected.len().min(limit)).collect();
            let text = |upload: &Element, name: &str| upload.text_of(name).unwrap_or_default().to_owned();
            let shown: Vec<(String, String)> =
                document.children_named("Upload").map(|upload| (text(upload, "Key"), text(upload, "UploadId"))).collect();
            assert_eq!(shown, page);
            assert_eq!(document.value_of("IsTruncated"), Some(&*(!expected.is_empty()).to_string()));
            if expected.is_empty() {
                return;
            }
            (key_marker, id_marker) = page.last().expect("more follows").clone();
            assert_eq!(document.text_of("NextKeyMarker"), Some(&*key_marker));
            assert_eq!(document.text_of("NextUploadIdMarker"), Some(&*id_marker));
        }
    }
}

/// The document that completes an upload; with the parts' checksums if its client named an algorithm.
fn list_of(parts: &[(u16, Part)], with_checksums: bool) -> String {
    let part = |(number, part): &(u16, Part)| {
        let name = part.checksum.algorithm.element();
        let checksum = if with_checksums { format!("<{name}>{}</{name}>", part.checksum.text) } else { String::new() };
        format!("<Part><PartNumber>{number}</PartNumber><ETag>{}</ETag>{checksum}</Part>", quoted(&part.etag))
    };
    format!("<CompleteMultipartUpload>{}</CompleteMultipartUpload>", parts.iter().map(part).collect::<String>())
}

fn check_completed(document: &Element, object: &Object) {
    assert_eq!(document.value_of("ETag"), Some(&*quoted(&object.etag)));
    assert_eq!(document.value_of(object.checksum.algorithm.element()), Some(&*object.checksum.text));
    assert_eq!(document.value_of("ChecksumType"), Some(object.checksum.kind.name()));
}

impl Run {
    /// A part of an object by its number.
    pub async fn read_part(&mut self) {
        let (bucket, key) = (self.bucket_name(), self.key());
        let Ok(version) = self.find(&bucket, &key, None) else { return };
        let object = version.object.expect("an object");
        let ask = Ask::object("GET", &bucket, &key).header("x-amz-checksum-mode", "ENABLED");
        let number = self.pick(&PART_NUMBERS);
        let ask = ask.query("partNumber", number.to_string());
        let answer = self.ask(&ask).await;
        if object.parts.is_empty() && number == 1 {
            assert_eq!(answer.status, if object.content.is_empty() { 200 } else { 206 }, "{answer:?}");
            assert!(answer.body == object.content);
            return check_checksum(&answer, Some(&object.checksum));
        }
        let Some((_, part)) = object.parts.iter().find(|(of, _)| *of == number) else {
            return crate::run::check_refused(&ask, &answer, 416, "InvalidPartNumber");
        };
        assert_eq!(answer.status, if part.content.is_empty() { 200 } else { 206 }, "{answer:?}");
        assert!(answer.body == part.content);
        assert_eq!(answer.header("etag"), Some(&*quoted(&object.etag)));
        assert_eq!(answer.header("x-amz-mp-parts-count"), Some(&*object.parts.len().to_string()));
        assert_eq!(answer.header(part.checksum.algorithm.header()), Some(&*part.checksum.text));
    }
}
