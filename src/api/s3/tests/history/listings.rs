//! Listings of objects and of versions: whole, in pages, with prefixes and delimiters.

use garage_api_common::{time::parse_iso8601, xml::Element};

use crate::{
    model::{Bucket, Version, quoted},
    run::Run,
    site::Ask,
};

/// What a listing shows: a key, or a common prefix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Entry {
    Key(String),
    Prefix(String),
}

impl Entry {
    fn text(&self) -> &str {
        match self {
            Entry::Key(text) | Entry::Prefix(text) => text,
        }
    }
}

/// Keys folded at the delimiter, in order of their bytes, from behind the marker.
fn folded<'a>(keys: impl Iterator<Item = &'a String>, prefix: &str, delimiter: &str, marker: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for key in keys.filter(|key| key.starts_with(prefix)) {
        let cut = key[prefix.len()..].find(delimiter).filter(|_| !delimiter.is_empty());
        let entry = match cut {
            Some(at) => Entry::Prefix(key[..prefix.len() + at + delimiter.len()].to_owned()),
            None => Entry::Key(key.clone()),
        };
        // A common prefix that the marker stands in was listed already.
        if marker < entry.text() && entries.last() != Some(&entry) {
            entries.push(entry);
        }
    }
    entries
}

fn texts(document: &Element, name: &str, inner: &str) -> Vec<String> {
    document.children_named(name).map(|child| child.text_of(inner).unwrap_or_default().to_owned()).collect()
}

impl Run {
    fn some_place(&mut self) -> (String, String) {
        (self.pick(&["", "", "a", "a/", "b", "x"]).to_owned(), self.pick(&["", "/", "/", "b"]).to_owned())
    }

    /// A listing from the first page to the last, in either version.
    pub async fn list(&mut self) {
        let bucket = self.bucket_name();
        let ((prefix, delimiter), limit, second) = (self.some_place(), 1 + self.seed.pick(5), self.seed.one_in(2));
        let mut marker = if self.seed.one_in(3) { self.pick(&["a/", "a/b", "b", "b/zz"]).to_owned() } else { String::new() };
        let held = self.bucket(&bucket).clone();
        let current: Vec<&String> = held.keys.keys().filter(|key| held.object(key).is_some()).collect();
        let mut expected = folded(current.into_iter(), &prefix, &delimiter, &marker);
        let mut token = None;
        loop {
            let mut ask = Ask::bucket("GET", &bucket).query("prefix", &*prefix).query("delimiter", &*delimiter);
            ask = ask.query("max-keys", limit.to_string());
            ask = match (second, token.take()) {
                (false, _) => ask.query("marker", &*marker),
                (true, None) => ask.query("list-type", "2").query("start-after", &*marker),
                (true, Some(token)) => ask.query("list-type", "2").query("continuation-token", token),
            };
            let answer = self.ok(&ask, 200).await;
            let document = answer.xml();
            let page: Vec<Entry> = expected.drain(..expected.len().min(limit as usize)).collect();
            check_page(&held, &document, &page);
            let truncated = !expected.is_empty();
            assert_eq!(document.value_of("IsTruncated"), Some(&*truncated.to_string()));
            if second {
                assert_eq!(document.value_of("KeyCount"), Some(&*page.len().to_string()));
                assert_eq!(document.child("NextContinuationToken").is_some(), truncated);
                token = document.value_of("NextContinuationToken").map(str::to_owned);
            } else {
                let next = page.last().map(Entry::text).filter(|_| truncated && !delimiter.is_empty());
                assert_eq!(document.text_of("NextMarker"), next);
            }
            let Some(last) = page.last().filter(|_| truncated) else { return };
            marker = last.text().to_owned();
        }
    }

    /// A listing of versions from the first page to the last.
    pub async fn list_versions(&mut self) {
        let bucket = self.bucket_name();
        let (prefix, delimiter) = self.some_place();
        let limit = 1 + self.seed.pick(6) as usize;
        self.pages_of_versions(&bucket, &prefix, &delimiter, limit).await;
    }

    /// Every version, by which the model learns what it can't know: the ids of markers that nobody was told of, and exact times.
    pub async fn look_at_versions(&mut self, bucket: &str) {
        self.pages_of_versions(bucket, "", "", 1000).await;
    }

    async fn pages_of_versions(&mut self, bucket: &str, prefix: &str, delimiter: &str, limit: usize) {
        let held = self.bucket(bucket).clone();
        let mut expected: Vec<(Entry, usize)> = Vec::new();
        for entry in folded(held.keys.keys(), prefix, delimiter, "") {
            let count = if let Entry::Key(key) = &entry { held.versions(key).len() } else { 1 };
            expected.extend((0..count).map(|index| (entry.clone(), index)));
        }
        let (mut key_marker, mut version_marker) = (String::new(), String::new());
        loop {
            let mut ask = Ask::bucket("GET", bucket).query("versions", "").query("prefix", prefix).query("delimiter", delimiter);
            ask = ask.query("max-keys", limit.to_string());
            if !key_marker.is_empty() {
                ask = ask.query("key-marker", &*key_marker);
            }
            if !version_marker.is_empty() {
                ask = ask.query("version-id-marker", &*version_marker);
            }
            let answer = self.ok(&ask, 200).await;
            let document = answer.xml();
            let page: Vec<(Entry, usize)> = expected.drain(..expected.len().min(limit)).collect();
            let shown: Vec<&Element> =
                document.children.iter().filter(|child| ["Version", "DeleteMarker"].contains(&&*child.name)).collect();
            let wanted: Vec<&(Entry, usize)> = page.iter().filter(|(entry, _)| matches!(entry, Entry::Key(_))).collect();
            assert_eq!(shown.len(), wanted.len(), "{document:?}");
            for (shown, (entry, index)) in shown.into_iter().zip(wanted) {
                self.check_version(bucket, entry.text(), *index, shown);
            }
            let prefixes: Vec<&str> =
                page.iter().filter(|(entry, _)| matches!(entry, Entry::Prefix(_))).map(|(entry, _)| entry.text()).collect();
            assert_eq!(texts(&document, "CommonPrefixes", "Prefix"), prefixes);
            let truncated = !expected.is_empty();
            assert_eq!(document.value_of("IsTruncated"), Some(&*truncated.to_string()));
            if !truncated {
                return;
            }
            key_marker = document.text_of("NextKeyMarker").expect("more follows").to_owned();
            version_marker = document.value_of("NextVersionIdMarker").unwrap_or_default().to_owned();
            assert_eq!(Some(&*key_marker), page.last().map(|(entry, _)| entry.text()));
        }
    }

    fn check_version(&mut self, bucket: &str, key: &str, index: usize, shown: &Element) {
        let id = shown.value_of("VersionId").expect("a version has an id").to_owned();
        assert_eq!(shown.text_of("Key"), Some(key));
        assert_eq!(shown.value_of("IsLatest"), Some(if index == 0 { "true" } else { "false" }));
        let is_new = self.bucket(bucket).versions(key)[index].id.is_none();
        assert!(!is_new || self.ids.insert(id.clone()), "an id is given once");
        let versions = self.bucket_mut(bucket).keys.get_mut(key).expect("a key of the model");
        let version: &mut Version = &mut versions[index];
        assert_eq!(version.id.get_or_insert_with(|| id.clone()), &id, "{bucket}/{key}");
        assert_eq!(shown.name == "DeleteMarker", version.object.is_none());
        let modified_ms = shown.value_of("LastModified").and_then(parse_iso8601).expect("a date");
        assert!((version.made_ms.0..=version.made_ms.1).contains(&modified_ms), "{bucket}/{key}: {modified_ms} {:?}", version.made_ms);
        version.made_ms = (modified_ms, modified_ms);
        if let Some(object) = &version.object {
            assert_eq!(shown.value_of("ETag"), Some(&*quoted(&object.etag)));
            assert_eq!(shown.value_of("Size"), Some(&*object.content.len().to_string()));
            assert_eq!(shown.value_of("StorageClass"), Some(object.labels.class.unwrap_or("STANDARD")));
            assert_eq!(shown.value_of("ChecksumAlgorithm"), Some(object.checksum.algorithm.name()));
            assert_eq!(shown.value_of("ChecksumType"), Some(object.checksum.kind.name()));
        }
    }
}

fn check_page(held: &Bucket, document: &Element, page: &[Entry]) {
    let keys: Vec<&str> = page.iter().filter(|entry| matches!(entry, Entry::Key(_))).map(Entry::text).collect();
    let prefixes: Vec<&str> = page.iter().filter(|entry| matches!(entry, Entry::Prefix(_))).map(Entry::text).collect();
    assert_eq!(texts(document, "Contents", "Key"), keys);
    assert_eq!(texts(document, "CommonPrefixes", "Prefix"), prefixes);
    for shown in document.children_named("Contents") {
        let object = held.object(shown.text_of("Key").unwrap_or_default()).expect("a current object");
        assert_eq!(shown.value_of("ETag"), Some(&*quoted(&object.etag)));
        assert_eq!(shown.value_of("Size"), Some(&*object.content.len().to_string()));
        assert_eq!(shown.value_of("StorageClass"), Some(object.labels.class.unwrap_or("STANDARD")));
    }
}
