//! Settings of buckets: versioning, tags, policy, lifecycle with a clock that goes on by days.

use std::collections::BTreeMap;

use garage_model::{RequestContext, lifecycle::Done};

use crate::{
    model::{DAY_MS, Rule, Statement, Version, Versioning, due_ms},
    run::{BUCKETS, KEYS, Run, check_refused},
    site::{Ask, Signer},
};

impl Run {
    pub async fn bucket_settings(&mut self) {
        let bucket = self.bucket_name();
        if self.seed.one_in(2) {
            return self.bucket_tags(&bucket).await;
        }
        let on = self.seed.one_in(2);
        let status = if on { "Enabled" } else { "Suspended" };
        let document = format!("<VersioningConfiguration><Status>{status}</Status></VersioningConfiguration>");
        let ask = Ask::bucket("PUT", &bucket).query("versioning", "").body(document);
        if bucket == "plain" {
            let document = self.ok(&Ask::bucket("GET", &bucket).query("versioning", ""), 200).await.xml();
            return assert_eq!(document.child("Status"), None);
        }
        if self.bucket(&bucket).lock && !on {
            self.refused(&ask, 409, "InvalidBucketState").await;
            return;
        }
        self.ok(&ask, 200).await;
        self.bucket_mut(&bucket).versioning = if on { Versioning::Enabled } else { Versioning::Suspended };
        let document = self.ok(&Ask::bucket("GET", &bucket).query("versioning", ""), 200).await.xml();
        assert_eq!(document.value_of("Status"), Some(status));
    }

    async fn bucket_tags(&mut self, bucket: &str) {
        let tags = self.some_tags();
        let text: String = tags.iter().map(|(name, value)| format!("<Tag><Key>{name}</Key><Value>{value}</Value></Tag>")).collect();
        if tags.is_empty() {
            self.ok(&Ask::bucket("DELETE", bucket).query("tagging", ""), 204).await;
        } else {
            let document = format!("<Tagging><TagSet>{text}</TagSet></Tagging>");
            self.ok(&Ask::bucket("PUT", bucket).query("tagging", "").body(document), 204).await;
        }
        self.bucket_mut(bucket).tags = tags.clone();
        let ask = Ask::bucket("GET", bucket).query("tagging", "");
        if tags.is_empty() {
            self.refused(&ask, 404, "NoSuchTagSet").await;
            return;
        }
        let document = self.ok(&ask, 200).await.xml();
        let set = document.child("TagSet").expect("a set of tags");
        let text = |tag: &garage_api_common::xml::Element, name: &str| tag.text_of(name).unwrap_or_default().to_owned();
        let shown: BTreeMap<String, String> = set.children.iter().map(|tag| (text(tag, "Key"), text(tag, "Value"))).collect();
        assert_eq!(shown, tags);
    }

    /// What the reader may do.
    pub async fn policy(&mut self) {
        let bucket = self.bucket_name();
        if self.seed.one_in(4) {
            self.ok(&Ask::bucket("DELETE", &bucket).query("policy", ""), 204).await;
            self.bucket_mut(&bucket).policy.clear();
            self.refused(&Ask::bucket("GET", &bucket).query("policy", ""), 404, "NoSuchBucketPolicy").await;
            return;
        }
        let mut statements = Vec::new();
        for _ in 0..1 + self.seed.pick(4) {
            let action = self.pick(&["GetObject", "PutObject", "DeleteObject", "ListBucket"]);
            let prefix = if action == "ListBucket" { String::new() } else { self.pick(&["", "a", "b/"]).to_owned() };
            statements.push(Statement { allows: !self.seed.one_in(4), action, prefix });
        }
        let reader = self.site.reader_id().to_owned();
        let texts: Vec<String> = statements
            .iter()
            .map(|statement| {
                let effect = if statement.allows { "Allow" } else { "Deny" };
                let place = if statement.action == "ListBucket" { String::new() } else { format!("/{}*", statement.prefix) };
                format!(
                    r#"{{"Effect":"{effect}","Principal":{{"AWS":"arn:aws:iam:::user/{reader}"}},"Action":"s3:{}","Resource":"arn:aws:s3:::{bucket}{place}"}}"#,
                    statement.action
                )
            })
            .collect();
        let document = format!(r#"{{"Version":"2012-10-17","Statement":[{}]}}"#, texts.join(","));
        self.ok(&Ask::bucket("PUT", &bucket).query("policy", "").body(document.clone()), 204).await;
        self.bucket_mut(&bucket).policy = statements;
        let answer = self.ok(&Ask::bucket("GET", &bucket).query("policy", ""), 200).await;
        assert!(answer.body == document.as_bytes());
    }

    /// A request of someone who may only what the policy says.
    pub async fn as_reader(&mut self) {
        let (bucket, key) = (self.bucket_name(), self.key());
        let held = self.bucket(&bucket).clone();
        let by_reader = |ask: Ask| Ask { signer: Signer::Reader, ..ask };
        match self.seed.pick(4) {
            0 | 1 => {
                let ask = by_reader(Ask::object("GET", &bucket, &key));
                let answer = self.ask(&ask).await;
                match held.object(&key) {
                    _ if !held.reader_may("GetObject", &key) => check_refused(&ask, &answer, 403, "AccessDenied"),
                    Some(object) => assert!(answer.status == 200 && answer.body == object.content, "{answer:?}"),
                    None if held.reader_may("ListBucket", "") => check_refused(&ask, &answer, 404, "NoSuchKey"),
                    None => check_refused(&ask, &answer, 403, "AccessDenied"),
                }
            }
            2 => {
                let ask = by_reader(Ask::bucket("GET", &bucket));
                let answer = self.ask(&ask).await;
                if held.reader_may("ListBucket", "") {
                    assert_eq!(answer.status, 200, "{answer:?}");
                } else {
                    check_refused(&ask, &answer, 403, "AccessDenied");
                }
            }
            _ => {
                let ask = by_reader(Ask::object("DELETE", &bucket, &key));
                if !held.reader_may("DeleteObject", &key) {
                    self.refused(&ask, 403, "AccessDenied").await;
                    return;
                }
                let before_ms = self.site.now_ms();
                let answer = self.ok(&ask, 204).await;
                let id = self.new_id(&bucket, &answer);
                self.store(&bucket, &key, id, None, before_ms);
            }
        }
    }

    pub async fn set_lifecycle(&mut self) {
        let bucket = self.bucket_name();
        if self.seed.one_in(4) {
            self.ok(&Ask::bucket("DELETE", &bucket).query("lifecycle", ""), 204).await;
            self.bucket_mut(&bucket).rules.clear();
            self.refused(&Ask::bucket("GET", &bucket).query("lifecycle", ""), 404, "NoSuchLifecycleConfiguration").await;
            return;
        }
        let rules: Vec<Rule> = (0..1 + self.seed.pick(2)).map(|_| self.some_rule()).collect();
        let text: String = rules.iter().enumerate().map(|(index, rule)| rule_text(index, rule)).collect();
        let document = format!("<LifecycleConfiguration>{text}</LifecycleConfiguration>");
        self.ok(&Ask::bucket("PUT", &bucket).query("lifecycle", "").body(document), 200).await;
        let shown = self.ok(&Ask::bucket("GET", &bucket).query("lifecycle", ""), 200).await.xml();
        let ids: Vec<&str> = shown.children_named("Rule").filter_map(|rule| rule.value_of("ID")).collect();
        assert_eq!(ids, (0..rules.len()).map(|index| format!("rule{index}")).collect::<Vec<_>>());
        self.bucket_mut(&bucket).rules = rules;
    }

    fn some_rule(&mut self) -> Rule {
        let mut rule = Rule { prefix: self.pick(&["", "", "a", "b/"]).to_owned(), ..Rule::default() };
        match self.seed.pick(6) {
            0 => rule.tag = Some(("t0".to_owned(), "1".to_owned())),
            1 => rule.larger_than = Some(5_000),
            _ => {}
        }
        if self.seed.one_in(2) {
            rule.days = Some(1 + self.seed.pick(3));
        } else if rule.is_by_key() && self.seed.one_in(2) {
            rule.expired_markers = true;
        }
        if self.seed.one_in(2) {
            rule.noncurrent = Some((1 + self.seed.pick(3), if self.seed.one_in(2) { Some(1 + self.seed.pick(2) as usize) } else { None }));
        }
        if rule.is_by_key() && self.seed.one_in(2) {
            rule.abort_days = Some(1 + self.seed.pick(3));
        }
        if rule.days.is_none() && rule.noncurrent.is_none() && rule.abort_days.is_none() && !rule.expired_markers {
            rule.days = Some(2);
        }
        rule
    }

    /// Days go by, and every node carries out the rules.
    pub async fn days_pass(&mut self) {
        for bucket in BUCKETS {
            self.look_at_versions(bucket).await;
        }
        self.offset_ms += DAY_MS as i64 * (1 + self.seed.pick(2) as i64);
        (0..self.site.cluster.count()).for_each(|index| self.site.cluster.clock(index).set_offset_ms(self.offset_ms));
        let before_ms = self.site.now_ms();
        let context = || RequestContext::within(std::time::Duration::from_secs(60));
        for name in BUCKETS {
            let mut done = Done::default();
            for index in 0..self.site.cluster.count() {
                let node = self.site.cluster.node(index);
                let bucket = node.access.buckets().resolve(None, name, context()).await.unwrap().unwrap();
                node.lifecycle.run_bucket(bucket.id, &mut done).await.unwrap();
            }
        }
        let after_ms = self.site.latest_ms();
        for bucket in BUCKETS {
            self.expire(bucket, (before_ms, after_ms));
            self.look_at_versions(bucket).await;
        }
    }

    /// What the rules of a bucket come to, in the model's own words.
    fn expire(&mut self, bucket: &str, ran_ms: (u64, u64)) {
        let now_ms = ran_ms.0;
        let held = self.bucket(bucket).clone();
        for key in KEYS {
            let versions = held.versions(key);
            let Some(current) = versions.first() else { continue };
            for (index, version) in versions.iter().enumerate().skip(1) {
                if outlived(&held.rules, key, version, index, versions[index - 1].made_ms.1, now_ms) && !version.is_locked(now_ms, false) {
                    self.forget(bucket, key, version.id.as_deref().expect("all versions were looked at"));
                }
            }
            let is_alone = self.bucket(bucket).versions(key).len() == 1;
            match &current.object {
                Some(object) if held.expiry(key, object, current.made_ms.1).is_some_and(|(due_ms, _)| due_ms <= now_ms) => {
                    let id = (held.versioning != Versioning::Enabled).then(|| "null".to_owned());
                    if let Some(id) = &id {
                        self.gone.remove(&(bucket.to_owned(), key.to_owned(), id.clone()));
                    }
                    self.bucket_mut(bucket).push(key, Version { id, object: None, made_ms: ran_ms });
                }
                // A marker that is alone after this run's other deletions is seen as such by the next run at the latest.
                None if is_alone && versions.len() == 1 => {
                    let goes = held
                        .rules
                        .iter()
                        .filter(|rule| rule.is_by_key() && key.starts_with(&rule.prefix))
                        .any(|rule| rule.expired_markers || rule.days.is_some_and(|days| due_ms(current.made_ms.1, days) <= now_ms));
                    if goes {
                        self.forget(bucket, key, current.id.as_deref().expect("all versions were looked at"));
                    }
                }
                Some(_) | None => {}
            }
        }
        let aborts = |key: &str, made_ms: u64| {
            let mut rules = held.rules.iter().filter(|rule| key.starts_with(&rule.prefix));
            rules.any(|rule| rule.abort_days.is_some_and(|days| due_ms(made_ms, days) <= now_ms))
        };
        self.bucket_mut(bucket).uploads.retain(|_, upload| !aborts(&upload.key, upload.made_ms.1));
    }
}

/// Whether an older version goes: `index` versions of its key are newer, and its successor came then.
fn outlived(rules: &[Rule], key: &str, version: &Version, index: usize, since_ms: u64, now_ms: u64) -> bool {
    rules.iter().any(|rule| {
        let Some((days, kept)) = rule.noncurrent else { return false };
        let applies = match &version.object {
            Some(object) => rule.applies(key, object),
            None => rule.is_by_key() && key.starts_with(&rule.prefix),
        };
        applies && kept.unwrap_or(0) < index && due_ms(since_ms, days) <= now_ms
    })
}

fn rule_text(index: usize, rule: &Rule) -> String {
    let prefix = format!("<Prefix>{}</Prefix>", rule.prefix);
    let tag = rule.tag.as_ref().map(|(name, value)| format!("<Tag><Key>{name}</Key><Value>{value}</Value></Tag>"));
    let size = rule.larger_than.map(|size| format!("<ObjectSizeGreaterThan>{size}</ObjectSizeGreaterThan>"));
    let filter = match tag.or(size) {
        Some(other) => format!("<And>{prefix}{other}</And>"),
        None => prefix,
    };
    let mut actions = String::new();
    if let Some(days) = rule.days {
        actions += &format!("<Expiration><Days>{days}</Days></Expiration>");
    }
    if rule.expired_markers {
        actions += "<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>";
    }
    if let Some((days, kept)) = rule.noncurrent {
        let kept = kept.map(|count| format!("<NewerNoncurrentVersions>{count}</NewerNoncurrentVersions>")).unwrap_or_default();
        actions += &format!("<NoncurrentVersionExpiration><NoncurrentDays>{days}</NoncurrentDays>{kept}</NoncurrentVersionExpiration>");
    }
    if let Some(days) = rule.abort_days {
        actions +=
            &format!("<AbortIncompleteMultipartUpload><DaysAfterInitiation>{days}</DaysAfterInitiation></AbortIncompleteMultipartUpload>");
    }
    format!("<Rule><ID>rule{index}</ID><Filter>{filter}</Filter><Status>Enabled</Status>{actions}</Rule>")
}
