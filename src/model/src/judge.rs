//! The verdict on a request: rights of keys, bucket policy, access control lists, public access block, in one place. Pure.
//!
//! Invariants:
//! - what the policy denies is denied, whoever asks; only an owner always reaches the policy itself, so that nobody locks a bucket for ever;
//! - then any one of the key's right, the policy and the lists is enough;
//! - a policy that can't be read denies everything.
//!
//! Source: AWS S3 User Guide, "How Amazon S3 authorizes a request"; s3 reference §3.11, §3.12.

use std::sync::Arc;

use crate::{
    acl::{Acl, Permission},
    keys::AccessKey,
    policy::{
        Asked, Facts, Policy, PolicyError, Verdict,
        actions::{self, Action, Level},
    },
    rights::{BucketView, Right},
    rows::{access::Tag, bucket::Permissions},
};

/// A parsed policy with the name its resources give the bucket.
#[derive(Clone, Debug)]
pub struct NamedPolicy {
    /// What the bucket is called in it.
    pub bucket_name: String,
    /// The policy; an error denies everything.
    pub policy: Result<Policy, PolicyError>,
}

/// What is known of the object that a request is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectAccess {
    /// The key that owns it; `None`: the bucket's owner does.
    pub owner: Option<String>,
    /// Its list; `None`: its owner has full control.
    pub acl: Option<Acl>,
    /// Its tags.
    pub tags: Vec<Tag>,
}

/// Decides about one caller on one bucket. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Judge {
    bucket: Arc<BucketView>,
    policy: Option<Arc<NamedPolicy>>,
    key_id: Option<String>,
    permissions: Permissions,
}

impl Judge {
    /// A judge; `key` signed the request, `None`: nobody did.
    pub fn new(bucket: BucketView, policy: Option<Arc<NamedPolicy>>, key: Option<&AccessKey>) -> Judge {
        let permissions = key.map(|key| bucket.permissions(key)).unwrap_or_default();
        Judge { bucket: Arc::new(bucket), policy, key_id: key.map(|key| key.id.clone()), permissions }
    }
    /// The bucket.
    pub fn bucket(&self) -> &BucketView {
        &self.bucket
    }
    /// What the key may do by its own rights.
    pub fn permissions(&self) -> Permissions {
        self.permissions
    }

    /// Whether the object must be known before `action` on it can be decided.
    pub fn needs_object(&self, action: Action) -> bool {
        if action.level() != Level::Object {
            return false;
        }
        let by_tags = self.parsed().is_some_and(|policy| policy.as_ref().is_ok_and(Policy::needs_existing_tags));
        by_tags
            || (self.bucket.row.access.ownership.has_acls() && of_object_list(action).is_some() && !action.right().is_in(self.permissions))
    }

    /// Whether the caller may do `action` on the bucket, or on `key` in it. `object`: if [`Judge::needs_object`] and it is there.
    pub fn allows(&self, action: Action, key: Option<&str>, object: Option<&ObjectAccess>, facts: &Facts) -> bool {
        match self.policy_verdict(action, key, object, facts) {
            Verdict::Denied => self.permissions.owner && is_way_back(action),
            Verdict::Allowed if self.policy_counts() => true,
            Verdict::Allowed | Verdict::Silent => action.right().is_in(self.permissions) || self.lists_allow(action, object),
        }
    }

    /// Whether the caller may be told that there is no object at `key`: only the list of an object could have allowed `action`, and the
    /// caller may list the bucket.
    pub fn may_miss(&self, action: Action, key: Option<&str>, facts: &Facts) -> bool {
        let reads_by_list = matches!(of_object_list(action), Some(Permission::Read | Permission::ReadAcp));
        reads_by_list
            && self.bucket.row.access.ownership.has_acls()
            && self.policy_verdict(action, key, None, facts) != Verdict::Denied
            && self.allows(actions::LIST_BUCKET, None, None, facts)
    }

    fn parsed(&self) -> Option<&Result<Policy, PolicyError>> {
        self.policy.as_ref().map(|named| &named.policy)
    }

    fn policy_verdict(&self, action: Action, key: Option<&str>, object: Option<&ObjectAccess>, facts: &Facts) -> Verdict {
        let Some(named) = &self.policy else { return Verdict::Silent };
        let Ok(policy) = &named.policy else { return Verdict::Denied };
        let resource = match key {
            Some(key) if action.level() == Level::Object => format!("{}/{key}", named.bucket_name),
            _ => named.bucket_name.clone(),
        };
        let tagged = object.filter(|object| !object.tags.is_empty()).map(|object| {
            let mut facts = facts.clone();
            object.tags.iter().for_each(|(name, value)| facts.add(&format!("s3:ExistingObjectTag/{name}"), value));
            facts
        });
        policy.evaluate(&Asked { key_id: self.key_id.as_deref(), action, resource: &resource, facts: tagged.as_ref().unwrap_or(facts) })
    }

    /// With RestrictPublicBuckets a policy for everyone counts only for those who have rights here anyway.
    fn policy_counts(&self) -> bool {
        let restricted = self.bucket.row.access.block().restrict_public_buckets;
        let is_public = || self.parsed().is_some_and(|policy| policy.as_ref().is_ok_and(Policy::is_public));
        !self.permissions.is_none() || !restricted || !is_public()
    }

    fn lists_allow(&self, action: Action, object: Option<&ObjectAccess>) -> bool {
        let access = &self.bucket.row.access;
        if !access.ownership.has_acls() {
            return false;
        }
        let (key_id, ignore_public) = (self.key_id.as_deref(), access.block().ignore_public_acls);
        let allows = |acl: &Option<Acl>, wanted| acl.as_ref().is_some_and(|acl| acl.allows(key_id, wanted, ignore_public));
        if of_bucket_list(action, object).is_some_and(|wanted| allows(&access.acl, wanted)) {
            return true;
        }
        let (Some(wanted), Some(object)) = (of_object_list(action), object) else { return false };
        let owns = key_id.is_some() && object.owner.as_deref() == key_id;
        let is_of_list = matches!(wanted, Permission::ReadAcp | Permission::WriteAcp);
        // An owner always reaches its list; without a list it has everything.
        (owns && (is_of_list || object.acl.is_none())) || allows(&object.acl, wanted)
    }
}

/// What an owner may always do: AWS S3 API, PutBucketPolicy.
fn is_way_back(action: Action) -> bool {
    matches!(action.name(), "GetBucketPolicy" | "PutBucketPolicy" | "DeleteBucketPolicy")
}

/// What of a bucket's list allows an action.
fn of_bucket_list(action: Action, object: Option<&ObjectAccess>) -> Option<Permission> {
    match action.name() {
        "ListBucket" | "ListBucketVersions" | "ListBucketMultipartUploads" => Some(Permission::Read),
        "PutObject" | "DeleteObject" | "AbortMultipartUpload" | "ListMultipartUploadParts" => Some(Permission::Write),
        // With the writing of an object, whose list its writer chooses.
        "PutObjectAcl" if object.is_none() => Some(Permission::Write),
        "GetBucketAcl" => Some(Permission::ReadAcp),
        "PutBucketAcl" => Some(Permission::WriteAcp),
        _ => None,
    }
}

/// What of an object's list allows an action.
fn of_object_list(action: Action) -> Option<Permission> {
    match action.name() {
        "GetObject" | "GetObjectVersion" => Some(Permission::Read),
        "GetObjectAcl" | "GetObjectVersionAcl" => Some(Permission::ReadAcp),
        "PutObjectAcl" | "PutObjectVersionAcl" => Some(Permission::WriteAcp),
        _ => None,
    }
}

/// The actions that an operation on a bucket stands for when no action of S3 is its own: seeing that the bucket is there.
pub const HEAD_BUCKET: Action = actions::LIST_BUCKET.by(Right::Any);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Judge, NamedPolicy, ObjectAccess};
    use crate::{
        acl::{Acl, CannedAcl, Grant, Grantee, Permission},
        keys::AccessKey,
        policy::{Facts, Policy, actions},
        rights::BucketView,
        rows::{
            access::{Ownership, PublicAccessBlock},
            bucket::Permissions,
            key::{KeyRow, SealedSecret},
        },
    };

    fn key(id: &str) -> AccessKey {
        let secret = SealedSecret { sealing_key_id: [0; 8], nonce: Default::default(), sealed: Default::default() };
        let row = KeyRow {
            name: String::new(),
            created_ms: 0,
            expires_ms: None,
            deleted: false,
            create_bucket: false,
            secret,
            local_aliases: Default::default(),
        };
        AccessKey { id: id.into(), row }
    }
    /// `read`, `write` and `owner` are keys with these rights.
    fn bucket() -> BucketView {
        let mut row = crate::rows::bucket::BucketRow::new(0, 1);
        let rights = |read, write, owner| Permissions { read, write, owner };
        row.permissions.insert("read".into(), rights(true, false, false));
        row.permissions.insert("write".into(), rights(false, true, false));
        row.permissions.insert("owner".into(), rights(true, true, true));
        BucketView { id: Default::default(), row }
    }
    fn policy(effect: &str, action: &str, resource: &str) -> Option<Arc<NamedPolicy>> {
        let text = format!(
            r#"{{"Statement":{{"Effect":"{effect}","Principal":"*","Action":"{action}","Resource":"arn:aws:s3:::bkt{resource}"}}}}"#
        );
        Some(Arc::new(NamedPolicy { bucket_name: "bkt".into(), policy: Policy::parse(&text, "bkt") }))
    }
    fn judge(bucket: BucketView, policy: Option<Arc<NamedPolicy>>, id: Option<&str>) -> Judge {
        Judge::new(bucket, policy, id.map(key).as_ref())
    }
    fn gets(judge: &Judge) -> bool {
        judge.allows(actions::GET_OBJECT, Some("k"), None, &Facts::default())
    }

    #[test]
    fn rights_of_keys_are_the_base() {
        for (id, reads, writes, owns) in [
            (Some("read"), true, false, false),
            (Some("write"), false, true, false),
            (Some("owner"), true, true, true),
            (Some("x"), false, false, false),
            (None, false, false, false),
        ] {
            let judge = judge(bucket(), None, id);
            let allows = |action| judge.allows(action, Some("k"), None, &Facts::default());
            assert_eq!(allows(actions::GET_OBJECT), reads, "{id:?}");
            assert_eq!(allows(actions::PUT_OBJECT), writes, "{id:?}");
            assert_eq!(allows(actions::PUT_BUCKET_POLICY), owns, "{id:?}");
            assert_eq!(allows(super::HEAD_BUCKET), id.is_some_and(|id| id != "x"), "{id:?}");
        }
    }

    #[test]
    fn a_policy_adds_and_takes_away() {
        assert!(gets(&judge(bucket(), policy("Allow", "s3:GetObject", "/*"), None)));
        assert!(!gets(&judge(bucket(), policy("Allow", "s3:PutObject", "/*"), None)));
        assert!(!gets(&judge(bucket(), policy("Deny", "s3:*", "/*"), Some("owner"))));
        let locked = judge(bucket(), policy("Deny", "s3:*", "*"), Some("owner"));
        let allows = |action| locked.allows(action, None, None, &Facts::default());
        assert!(allows(actions::DELETE_BUCKET_POLICY) && allows(actions::GET_BUCKET_POLICY) && !allows(actions::PUT_BUCKET_ACL));
        assert!(!judge(bucket(), policy("Deny", "s3:*", "*"), Some("read")).allows(
            actions::GET_BUCKET_POLICY,
            None,
            None,
            &Facts::default()
        ));
    }

    #[test]
    fn a_policy_that_can_t_be_read_denies_everything() {
        let broken = Some(Arc::new(NamedPolicy { bucket_name: "bkt".into(), policy: Policy::parse("{", "bkt") }));
        assert!(!gets(&judge(bucket(), broken.clone(), Some("owner"))));
        assert!(judge(bucket(), broken, Some("owner")).allows(actions::PUT_BUCKET_POLICY, None, None, &Facts::default()));
    }

    #[test]
    fn a_public_policy_can_be_restricted_to_those_with_rights() {
        let mut restricted = bucket();
        restricted.row.access.public_access_block = Some(PublicAccessBlock { restrict_public_buckets: true, ..Default::default() });
        let public = policy("Allow", "s3:GetObject", "/*");
        assert!(!gets(&judge(restricted.clone(), public.clone(), None)));
        assert!(!gets(&judge(restricted.clone(), public.clone(), Some("x"))));
        assert!(gets(&judge(restricted, public, Some("write"))));
    }

    #[test]
    fn lists_count_only_where_they_are_enabled() {
        let object =
            ObjectAccess { owner: Some("writer".into()), acl: Some(CannedAcl::PublicRead.expand("writer", "owner")), tags: Vec::new() };
        let reads = |ownership, block, id: Option<&str>| {
            let mut bucket = bucket();
            bucket.row.access.ownership = ownership;
            bucket.row.access.public_access_block = Some(PublicAccessBlock { ignore_public_acls: block, ..Default::default() });
            judge(bucket, None, id).allows(actions::GET_OBJECT, Some("k"), Some(&object), &Facts::default())
        };
        assert!(!reads(Ownership::BucketOwnerEnforced, false, None));
        assert!(reads(Ownership::ObjectWriter, false, None));
        assert!(reads(Ownership::Removed, false, None));
        assert!(!reads(Ownership::ObjectWriter, true, None));
        assert!(reads(Ownership::ObjectWriter, true, Some("writer")));
    }

    #[test]
    fn who_may_list_is_told_that_an_object_is_not_there() {
        let misses = |ownership, policy: Option<Arc<NamedPolicy>>, acl: CannedAcl, action| {
            let mut bucket = bucket();
            bucket.row.access.ownership = ownership;
            bucket.row.access.acl = Some(acl.expand("owner", "owner"));
            judge(bucket, policy, None).may_miss(action, Some("k"), &Facts::default())
        };
        let (writer, open) = (Ownership::ObjectWriter, CannedAcl::PublicRead);
        assert!(misses(writer, None, open, actions::GET_OBJECT) && misses(writer, None, open, actions::GET_OBJECT_ACL));
        assert!(!misses(writer, None, open, actions::PUT_OBJECT_ACL) && !misses(writer, None, open, actions::GET_OBJECT_TAGGING));
        assert!(!misses(writer, None, CannedAcl::Private, actions::GET_OBJECT));
        assert!(!misses(Ownership::BucketOwnerEnforced, None, open, actions::GET_OBJECT));
        assert!(!misses(writer, policy("Deny", "s3:GetObject", "/*"), open, actions::GET_OBJECT));
        assert!(!misses(writer, policy("Deny", "s3:ListBucket", ""), open, actions::GET_OBJECT));
    }

    #[test]
    fn grants_of_a_bucket_s_list_are_on_the_bucket() {
        let mut bucket = bucket();
        bucket.row.access.ownership = Ownership::BucketOwnerPreferred;
        let grant = |permission| Grant { grantee: Grantee::Key("x".into()), permission };
        bucket.row.access.acl = Some(Acl { grants: vec![grant(Permission::Write), grant(Permission::ReadAcp)] });
        let judge = judge(bucket, None, Some("x"));
        let allows = |action| judge.allows(action, Some("k"), None, &Facts::default());
        assert!(allows(actions::PUT_OBJECT) && allows(actions::DELETE_OBJECT) && allows(actions::GET_BUCKET_ACL));
        assert!(!allows(actions::GET_OBJECT) && !allows(actions::LIST_BUCKET) && !allows(actions::PUT_BUCKET_ACL));
        assert!(!allows(actions::PUT_BUCKET_POLICY) && !allows(actions::DELETE_OBJECT_VERSION));
    }
}
