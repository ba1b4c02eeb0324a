//! What changes versions that are there: deletions, tags, locks.

use std::collections::BTreeMap;

use garage_api_common::time::iso8601;

use crate::{
    model::{Retention, Version, Versioning, md5_hex, quoted},
    run::{Run, check_refused, mode_name},
    site::{Answer, Ask},
};

/// What a deletion of a version comes to.
enum Gone {
    /// It was there, and whether it was a marker.
    Was(bool),
    Nothing,
    Locked,
}

impl Run {
    fn delete_version(&mut self, bucket: &str, key: &str, id: &str, bypass: bool) -> Gone {
        let now_ms = self.site.now_ms();
        let Some(version) = self.bucket(bucket).version(key, id) else { return Gone::Nothing };
        if version.is_locked(now_ms, bypass) {
            return Gone::Locked;
        }
        let was_marker = version.object.is_none();
        self.forget(bucket, key, id);
        Gone::Was(was_marker)
    }

    pub async fn delete(&mut self) {
        let (bucket, key) = (self.bucket_name(), self.key());
        let id = self.version_id(&bucket, &key);
        let mut ask = Ask::object("DELETE", &bucket, &key);
        if let Some(id) = id {
            let bypass = self.seed.one_in(3);
            if bypass {
                ask = ask.header("x-amz-bypass-governance-retention", "true");
            }
            let answer = self.ask(&ask.query("versionId", id.clone())).await;
            return match self.delete_version(&bucket, &key, &id, bypass) {
                Gone::Locked => check_refused(&Ask::default(), &answer, 403, "AccessDenied"),
                gone => {
                    assert_eq!((answer.status, answer.header("x-amz-version-id")), (204, Some(&*id)));
                    let was_marker = matches!(gone, Gone::Was(true));
                    assert_eq!(answer.header("x-amz-delete-marker"), was_marker.then_some("true"));
                }
            };
        }
        let there = self.bucket(&bucket).object(&key).map(|object| object.etag.clone());
        let mut fails = false;
        match self.seed.pick(8) {
            0 => (ask, fails) = (ask.header("if-match", quoted(&md5_hex(b"other"))), true),
            1 => (ask, fails) = (ask.header("if-match", "*"), there.is_none()),
            2 if there.is_some() => ask = ask.header("if-match", quoted(&there.clone().unwrap_or_default())),
            _ => {}
        }
        if fails {
            let (status, code) = if there.is_some() { (412, "PreconditionFailed") } else { (404, "NoSuchKey") };
            self.refused(&ask, status, code).await;
            return;
        }
        let before_ms = self.site.now_ms();
        let answer = self.ok(&ask, 204).await;
        let id = self.new_id(&bucket, &answer);
        let marked = self.bucket(&bucket).versioning != Versioning::Off;
        assert_eq!(answer.header("x-amz-delete-marker"), marked.then_some("true"));
        self.store(&bucket, &key, id, None, before_ms);
    }

    pub async fn delete_many(&mut self) {
        let bucket = self.bucket_name();
        let (quiet, bypass) = (self.seed.one_in(3), self.seed.one_in(3));
        let mut named: Vec<(String, Option<String>)> = Vec::new();
        for _ in 0..1 + self.seed.pick(5) {
            let key = self.key();
            let id = self.version_id(&bucket, &key);
            // A key twice, once as such and once by version, would leave the order to chance.
            if !named.iter().any(|(other, _)| *other == key) {
                named.push((key, id));
            }
        }
        let mut document = format!("<Delete><Quiet>{quiet}</Quiet>");
        for (key, id) in &named {
            let id = id.as_ref().map(|id| format!("<VersionId>{id}</VersionId>")).unwrap_or_default();
            document += &format!("<Object><Key>{key}</Key>{id}</Object>");
        }
        let mut ask = Ask::bucket("POST", &bucket).query("delete", "").body(document + "</Delete>");
        if bypass {
            ask = ask.header("x-amz-bypass-governance-retention", "true");
        }
        let before_ms = self.site.now_ms();
        let answer = self.ok(&ask, 200).await;
        let document = answer.xml();
        let mut has_unknown = false;
        let find =
            |kind: &str, key: &str| document.children.iter().find(|child| child.name == kind && child.text_of("Key") == Some(key)).cloned();
        for (key, id) in named {
            let (deleted, error) = (find("Deleted", &key), find("Error", &key));
            if let Some(id) = id {
                let gone = self.delete_version(&bucket, &key, &id, bypass);
                if let Gone::Locked = gone {
                    let error = error.expect("a locked version is told of");
                    assert_eq!((error.value_of("Code"), error.value_of("VersionId")), (Some("AccessDenied"), Some(&*id)));
                    continue;
                }
                assert!(error.is_none() && deleted.is_some() != quiet, "{document:?}");
                let Some(deleted) = deleted else { continue };
                assert_eq!(deleted.value_of("VersionId"), Some(&*id));
                let was_marker = matches!(gone, Gone::Was(true));
                assert_eq!(deleted.value_of("DeleteMarker"), was_marker.then_some("true"));
                assert_eq!(deleted.value_of("DeleteMarkerVersionId"), was_marker.then_some(&*id));
                continue;
            }
            assert!(error.is_none() && deleted.is_some() != quiet, "{document:?}");
            let marker = deleted.and_then(|deleted| deleted.value_of("DeleteMarkerVersionId").map(str::to_owned));
            let versioning = self.bucket(&bucket).versioning;
            let id = match versioning {
                Versioning::Off | Versioning::Suspended => Some("null".to_owned()),
                Versioning::Enabled => marker.clone(),
            };
            assert_eq!(marker.is_some(), versioning != Versioning::Off && !quiet);
            match id {
                Some(id) => {
                    assert!(id == "null" || self.ids.insert(id.clone()), "an id is given once");
                    self.store(&bucket, &key, id, None, before_ms);
                }
                // Made quietly: its id is learnt from a listing.
                None => {
                    let made_ms = (before_ms, self.site.latest_ms());
                    self.bucket_mut(&bucket).push(&key, Version { id: None, object: None, made_ms });
                    has_unknown = true;
                }
            }
        }
        if has_unknown {
            self.look_at_versions(&bucket).await;
        }
    }

    /// A request on a version's labels, and the version, unless it is refused as it must be.
    async fn on_version(&mut self, ask: Ask, status: u16) -> Option<(Answer, Version)> {
        let (bucket, key) = (ask.bucket.clone(), ask.key.clone().unwrap_or_default());
        let id = self.version_id(&bucket, &key);
        let ask = match &id {
            Some(id) => ask.query("versionId", id.clone()),
            None => ask,
        };
        let found = self.find(&bucket, &key, id.as_deref());
        let answer = self.ask(&ask).await;
        match found {
            Ok(version) => {
                assert_eq!(answer.status, status, "{answer:?}");
                Some((answer, version))
            }
            Err((expected, code, marker)) => {
                // The calls that change labels differ in what they say of a marker; they all refuse.
                if marker.is_some() {
                    assert!([404, 405].contains(&answer.status), "{answer:?}");
                } else {
                    check_refused(&ask, &answer, expected, code);
                }
                None
            }
        }
    }

    pub async fn tags(&mut self) {
        let (bucket, key, tags) = (self.bucket_name(), self.key(), self.some_tags());
        let method = self.pick(&["GET", "PUT", "DELETE"]);
        let document: String = tags.iter().map(|(name, value)| format!("<Tag><Key>{name}</Key><Value>{value}</Value></Tag>")).collect();
        let mut ask = Ask::object(method, &bucket, &key).query("tagging", "");
        if method == "PUT" {
            ask = ask.body(format!("<Tagging><TagSet>{document}</TagSet></Tagging>"));
        }
        let status = if method == "DELETE" { 204 } else { 200 };
        let Some((answer, version)) = self.on_version(ask, status).await else { return };
        self.check_id(&bucket, &answer, &version);
        if method == "GET" {
            let set = answer.xml().child("TagSet").cloned().expect("a set of tags");
            let text = |tag: &garage_api_common::xml::Element, name: &str| tag.text_of(name).unwrap_or_default().to_owned();
            let shown: BTreeMap<String, String> = set.children.iter().map(|tag| (text(tag, "Key"), text(tag, "Value"))).collect();
            return assert_eq!(shown, version.object.expect("an object").labels.tags);
        }
        let tags = if method == "PUT" { tags } else { BTreeMap::new() };
        let id = version.id.clone();
        let version = self.bucket_mut(&bucket).version_mut(&key, id.as_deref()).expect("it was found");
        version.object.as_mut().expect("an object").labels.tags = tags;
    }

    pub async fn retention(&mut self) {
        let (bucket, key) = ("locks".to_owned(), self.key());
        if self.seed.one_in(2) {
            let id = self.version_id(&bucket, &key);
            let Ok(version) = self.find(&bucket, &key, id.as_deref()) else { return };
            let mut ask = Ask::object("GET", &bucket, &key).query("retention", "");
            if let Some(id) = id {
                ask = ask.query("versionId", id);
            }
            let held = version.object.expect("an object").labels.retention;
            let answer = self.ask(&ask).await;
            let Some(held) = held else { return check_refused(&ask, &answer, 404, "NoSuchObjectLockConfiguration") };
            let document = answer.xml();
            assert_eq!(document.value_of("Mode"), Some(mode_name(held)));
            return assert_eq!(document.value_of("RetainUntilDate"), Some(&*iso8601(held.until_ms)));
        }
        let id = self.version_id(&bucket, &key);
        let Ok(version) = self.find(&bucket, &key, id.as_deref()) else { return };
        let (wanted, bypass) = (if self.seed.one_in(6) { None } else { Some(self.some_retention()) }, self.seed.one_in(3));
        let document = wanted
            .map(|wanted| format!("<Mode>{}</Mode><RetainUntilDate>{}</RetainUntilDate>", mode_name(wanted), iso8601(wanted.until_ms)));
        let mut ask = Ask::object("PUT", &bucket, &key).query("retention", "");
        ask = ask.body(format!("<Retention>{}</Retention>", document.unwrap_or_default()));
        if bypass {
            ask = ask.header("x-amz-bypass-governance-retention", "true");
        }
        if let Some(id) = &version.id {
            ask = ask.query("versionId", id.clone());
        }
        let answer = self.ask(&ask).await;
        let held = version.object.as_ref().and_then(|object| object.labels.retention);
        if !may_replace(held, wanted, self.site.now_ms(), bypass) {
            return check_refused(&ask, &answer, 403, "AccessDenied");
        }
        assert_eq!(answer.status, 200, "{answer:?}");
        let version = self.bucket_mut(&bucket).version_mut(&key, version.id.as_deref()).expect("it was found");
        version.object.as_mut().expect("an object").labels.retention = wanted;
    }

    pub async fn legal_hold(&mut self) {
        let (bucket, key) = ("locks".to_owned(), self.key());
        let on = self.seed.one_in(2);
        let document = format!("<LegalHold><Status>{}</Status></LegalHold>", if on { "ON" } else { "OFF" });
        let ask = Ask::object("PUT", &bucket, &key).query("legal-hold", "").body(document);
        let Some((_, version)) = self.on_version(ask, 200).await else { return };
        let version = self.bucket_mut(&bucket).version_mut(&key, version.id.as_deref()).expect("it was found");
        version.object.as_mut().expect("an object").labels.hold = Some(on);
    }
}

/// Longer always; shorter, weaker or gone only by bypassing governance, and never out of compliance.
fn may_replace(held: Option<Retention>, wanted: Option<Retention>, now_ms: u64, bypass: bool) -> bool {
    let Some(held) = held.filter(|held| now_ms < held.until_ms) else { return true };
    match wanted {
        Some(wanted) if held.until_ms <= wanted.until_ms => !held.compliance || wanted.compliance,
        _ => !held.compliance && bypass,
    }
}
