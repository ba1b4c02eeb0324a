//! Access control lists of buckets and objects: owner, grants, canned lists, and what they let someone do. Pure.
//!
//! An owner is named by the id of an access key: what S3 calls a canonical user id is the key's id here.
//!
//! Source: AWS S3 User Guide, "Access control list (ACL) overview"; s3 reference §3.11.

use serde::{Deserialize, Serialize};

/// Grants of one list at the most; more are refused. Source: AWS S3 User Guide, "ACL overview".
pub const GRANTS_MAX: usize = 100;
/// Who wrote what nobody signed for; the id that S3 shows for it.
pub const ANONYMOUS_ID: &str = "65a011a29cdf8ec533ec3d1ccaae921c";

/// Whom a grant is for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Grantee {
    /// An access key, by its id.
    Key(String),
    /// Everyone, with or without a signature.
    AllUsers,
    /// Every access key of the cluster.
    AuthenticatedUsers,
    /// Whoever writes access logs: nobody here.
    LogDelivery,
}

impl Grantee {
    /// The URI of a group.
    pub fn uri(&self) -> Option<&'static str> {
        match self {
            Grantee::Key(_) => None,
            Grantee::AllUsers => Some("http://acs.amazonaws.com/groups/global/AllUsers"),
            Grantee::AuthenticatedUsers => Some("http://acs.amazonaws.com/groups/global/AuthenticatedUsers"),
            Grantee::LogDelivery => Some("http://acs.amazonaws.com/groups/s3/LogDelivery"),
        }
    }
    /// The group of a URI.
    pub fn of_uri(uri: &str) -> Option<Grantee> {
        [Grantee::AllUsers, Grantee::AuthenticatedUsers, Grantee::LogDelivery].into_iter().find(|group| group.uri() == Some(uri))
    }
    /// Whether anyone who likes can be this grantee: AWS S3 User Guide, "The meaning of public".
    pub fn is_public(&self) -> bool {
        matches!(self, Grantee::AllUsers | Grantee::AuthenticatedUsers)
    }
    fn is(&self, key_id: Option<&str>) -> bool {
        match self {
            Grantee::Key(id) => key_id == Some(id),
            Grantee::AllUsers => true,
            Grantee::AuthenticatedUsers => key_id.is_some(),
            Grantee::LogDelivery => false,
        }
    }
}

/// What a grant allows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Permission {
    /// All the others.
    FullControl,
    /// Of a bucket: list. Of an object: get.
    Read,
    /// Of a bucket: put and delete objects. Of an object: nothing.
    Write,
    /// Read the list itself.
    ReadAcp,
    /// Write the list itself.
    WriteAcp,
}

impl Permission {
    /// All, as S3 spells them.
    pub const ALL: [(Permission, &str); 5] = [
        (Permission::FullControl, "FULL_CONTROL"),
        (Permission::Read, "READ"),
        (Permission::Write, "WRITE"),
        (Permission::ReadAcp, "READ_ACP"),
        (Permission::WriteAcp, "WRITE_ACP"),
    ];
    /// As S3 spells it.
    pub fn name(self) -> &'static str {
        Permission::ALL.iter().find(|(permission, _)| *permission == self).map_or("", |(_, name)| name)
    }
    /// From S3's spelling.
    pub fn of_name(name: &str) -> Option<Permission> {
        Permission::ALL.iter().find(|(_, other)| *other == name).map(|(permission, _)| *permission)
    }
    fn covers(self, wanted: Permission) -> bool {
        self == Permission::FullControl || self == wanted
    }
}

/// A grant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Grant {
    /// To whom.
    pub grantee: Grantee,
    /// What.
    pub permission: Permission,
}

/// A list of grants.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Acl {
    /// In the order in which they were given.
    pub grants: Vec<Grant>,
}

impl Acl {
    /// A list where only the owner has a grant: `private`.
    pub fn private(owner: &str) -> Acl {
        Acl { grants: vec![Grant { grantee: Grantee::Key(owner.to_owned()), permission: Permission::FullControl }] }
    }
    /// Whether it lets a key, or nobody in particular, do something. `ignore_public`: grants to everyone do not count.
    pub fn allows(&self, key_id: Option<&str>, wanted: Permission, ignore_public: bool) -> bool {
        let counts = |grant: &&Grant| !(ignore_public && grant.grantee.is_public());
        self.grants.iter().filter(counts).any(|grant| grant.grantee.is(key_id) && grant.permission.covers(wanted))
    }
    /// Whether it lets everyone do something.
    pub fn is_public(&self) -> bool {
        self.grants.iter().any(|grant| grant.grantee.is_public())
    }
    /// Whether it lets nobody but this owner do anything.
    pub fn is_private_to(&self, owner: &str) -> bool {
        self.is_private_to_those(|id| id == owner)
    }
    /// Whether it lets nobody but these keys do anything.
    pub fn is_private_to_those(&self, is_owner: impl Fn(&str) -> bool) -> bool {
        self.grants.iter().all(|grant| matches!(&grant.grantee, Grantee::Key(id) if is_owner(id)))
    }
}

/// A list that has a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names are S3's")]
pub enum CannedAcl {
    Private,
    PublicRead,
    PublicReadWrite,
    AuthenticatedRead,
    AwsExecRead,
    BucketOwnerRead,
    BucketOwnerFullControl,
    LogDeliveryWrite,
}

impl CannedAcl {
    /// From S3's spelling.
    pub fn of_name(name: &str) -> Option<CannedAcl> {
        Some(match name {
            "private" => CannedAcl::Private,
            "public-read" => CannedAcl::PublicRead,
            "public-read-write" => CannedAcl::PublicReadWrite,
            "authenticated-read" => CannedAcl::AuthenticatedRead,
            "aws-exec-read" => CannedAcl::AwsExecRead,
            "bucket-owner-read" => CannedAcl::BucketOwnerRead,
            "bucket-owner-full-control" => CannedAcl::BucketOwnerFullControl,
            "log-delivery-write" => CannedAcl::LogDeliveryWrite,
            _ => return None,
        })
    }
    /// The grants it stands for; the lists of bucket owners mean nothing on a bucket, where owner and bucket owner are one.
    pub fn expand(self, owner: &str, bucket_owner: &str) -> Acl {
        use Permission::{FullControl, Read, ReadAcp, Write};
        let mut acl = Acl::private(owner);
        let mut grant = |grantee: Grantee, permission| acl.grants.push(Grant { grantee, permission });
        let other_owner = || Some(Grantee::Key(bucket_owner.to_owned())).filter(|_| bucket_owner != owner);
        match self {
            CannedAcl::Private | CannedAcl::AwsExecRead => {}
            CannedAcl::PublicRead => grant(Grantee::AllUsers, Read),
            CannedAcl::PublicReadWrite => {
                grant(Grantee::AllUsers, Read);
                grant(Grantee::AllUsers, Write);
            }
            CannedAcl::AuthenticatedRead => grant(Grantee::AuthenticatedUsers, Read),
            CannedAcl::BucketOwnerRead => other_owner().into_iter().for_each(|owner| grant(owner, Read)),
            CannedAcl::BucketOwnerFullControl => other_owner().into_iter().for_each(|owner| grant(owner, FullControl)),
            CannedAcl::LogDeliveryWrite => {
                grant(Grantee::LogDelivery, Write);
                grant(Grantee::LogDelivery, ReadAcp);
            }
        }
        acl
    }
}

#[cfg(test)]
mod tests {
    use super::{Acl, CannedAcl, Grant, Grantee, Permission};

    #[test]
    fn canned_lists_let_in_whom_their_names_say() {
        let check = |name: &str, key: Option<&str>, wanted: Permission, expected: bool| {
            let acl = CannedAcl::of_name(name).unwrap().expand("owner", "bucket-owner");
            assert_eq!(acl.allows(key, wanted, false), expected, "{name} {key:?} {wanted:?}");
        };
        check("private", Some("owner"), Permission::WriteAcp, true);
        check("private", Some("x"), Permission::Read, false);
        check("public-read", None, Permission::Read, true);
        check("public-read", None, Permission::Write, false);
        check("public-read-write", None, Permission::Write, true);
        check("authenticated-read", None, Permission::Read, false);
        check("authenticated-read", Some("x"), Permission::Read, true);
        check("bucket-owner-read", Some("bucket-owner"), Permission::Read, true);
        check("bucket-owner-read", Some("bucket-owner"), Permission::ReadAcp, false);
        check("bucket-owner-full-control", Some("bucket-owner"), Permission::ReadAcp, true);
        check("log-delivery-write", None, Permission::Write, false);
        assert!(CannedAcl::of_name("nonsense").is_none());
    }

    #[test]
    fn public_grants_can_be_ignored() {
        let acl = CannedAcl::PublicRead.expand("owner", "owner");
        assert!(acl.is_public() && !acl.is_private_to("owner"));
        assert!(!acl.allows(None, Permission::Read, true));
        assert!(acl.allows(Some("owner"), Permission::Read, true));
        let named = Acl { grants: vec![Grant { grantee: Grantee::Key("x".into()), permission: Permission::Read }] };
        assert!(!named.is_public() && named.allows(Some("x"), Permission::Read, true));
    }

    #[test]
    fn names_and_uris_go_both_ways() {
        for (permission, name) in Permission::ALL {
            assert_eq!((permission.name(), Permission::of_name(name)), (name, Some(permission)));
        }
        for group in [Grantee::AllUsers, Grantee::AuthenticatedUsers, Grantee::LogDelivery] {
            assert_eq!(Grantee::of_uri(group.uri().unwrap()), Some(group));
        }
        assert_eq!(Grantee::of_uri("http://x"), None);
    }
}
