//! The settings documents that clients send, each as a function from bytes to whether they are one: what fuzzing throws bad input at.
//!
//! Invariants that each of them checks: reading never panics; what is taken reads back as itself where it is written out again.

use garage_model::policy::{Asked, Facts, Policy, Verdict, actions};

use crate::{acl, cors, encryption, lifecycle, limits, lock, policy, tagging, website};

/// A kind of document: its name, and whether bytes are one.
pub type Reader = (&'static str, fn(&[u8]) -> bool);

/// All kinds.
pub const READERS: [Reader; 12] = [
    ("policy", policy_document),
    ("access control list", |document| acl::of_document(document).is_ok()),
    ("tags of an object", |document| tags(document, limits::OBJECT_TAGS_MAX)),
    ("tags of a bucket", |document| tags(document, limits::BUCKET_TAGS_MAX)),
    ("website", website::reads_back),
    ("encryption", encryption::reads_back),
    ("public access block", |document| policy::read_block(document).is_ok()),
    ("ownership", |document| policy::read_ownership(document).is_ok()),
    ("lifecycle", lifecycle::reads_back),
    ("CORS", cors::reads_back),
    ("object lock", lock::reads_back),
    ("retention", lock::retention_reads_back),
];

/// Documents that are taken, one of each kind: what is changed of them comes close to being one.
pub const GOOD: [&str; 12] = [
    r#"{"Version":"2012-10-17","Statement":[{"Sid":"a","Effect":"Allow","Principal":{"AWS":"*"},"Action":["s3:GetObject","s3:List*"],"Resource":["arn:aws:s3:::bkt/${aws:username}/*","arn:aws:s3:::bkt"],"Condition":{"StringLike":{"s3:prefix":["a*","b?"]},"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}}}]}"#,
    "<AccessControlPolicy><Owner><ID>o</ID></Owner><AccessControlList><Grant><Grantee><ID>x</ID></Grantee><Permission>READ</Permission></Grant></AccessControlList></AccessControlPolicy>",
    "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>",
    "<Tagging><TagSet><Tag><Key>a</Key><Value></Value></Tag></TagSet></Tagging>",
    "<WebsiteConfiguration><IndexDocument><Suffix>i</Suffix></IndexDocument><RoutingRules><RoutingRule><Condition><KeyPrefixEquals>p</KeyPrefixEquals></Condition><Redirect><HostName>h</HostName><ReplaceKeyPrefixWith>q</ReplaceKeyPrefixWith></Redirect></RoutingRule></RoutingRules></WebsiteConfiguration>",
    "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES256</SSEAlgorithm></ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>",
    "<PublicAccessBlockConfiguration><BlockPublicAcls>true</BlockPublicAcls></PublicAccessBlockConfiguration>",
    "<OwnershipControls><Rule><ObjectOwnership>ObjectWriter</ObjectOwnership></Rule></OwnershipControls>",
    "<LifecycleConfiguration><Rule><ID>r</ID><Filter><And><Prefix>p</Prefix><Tag><Key>a</Key><Value>b</Value></Tag><ObjectSizeGreaterThan>9</ObjectSizeGreaterThan></And></Filter><Status>Enabled</Status><Expiration><Days>3</Days></Expiration><NoncurrentVersionExpiration><NoncurrentDays>2</NoncurrentDays><NewerNoncurrentVersions>1</NewerNoncurrentVersions></NoncurrentVersionExpiration></Rule><Rule><Filter/><Status>Disabled</Status><AbortIncompleteMultipartUpload><DaysAfterInitiation>7</DaysAfterInitiation></AbortIncompleteMultipartUpload></Rule></LifecycleConfiguration>",
    "<CORSConfiguration><CORSRule><ID>r</ID><AllowedOrigin>https://*.example.org</AllowedOrigin><AllowedMethod>GET</AllowedMethod><AllowedHeader>*</AllowedHeader><ExposeHeader>ETag</ExposeHeader><MaxAgeSeconds>9</MaxAgeSeconds></CORSRule></CORSConfiguration>",
    "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>GOVERNANCE</Mode><Days>3</Days></DefaultRetention></Rule></ObjectLockConfiguration>",
    "<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>2030-01-01T00:00:00Z</RetainUntilDate></Retention>",
];

fn tags(document: &[u8], max: usize) -> bool {
    let Ok(tags) = tagging::of_document(document, max) else { return false };
    assert_eq!(tagging::of_document(tagging::render(&tags).as_bytes(), max).ok().as_ref(), Some(&tags), "tags read back");
    true
}

/// A policy; with a statement more that denies everything, it denies everything.
fn policy_document(document: &[u8]) -> bool {
    let Some(policy) = std::str::from_utf8(document).ok().and_then(|text| Policy::parse(text, "bkt").ok()) else { return false };
    let mut facts = Facts::default();
    facts.add("aws:SourceIp", "10.0.0.1");
    facts.add("s3:prefix", "a/b");
    for key_id in [None, Some("GK0123456789abcdef01234567")] {
        for (action, resource) in [(actions::GET_OBJECT, "bkt/a/b"), (actions::LIST_BUCKET, "bkt"), (actions::PUT_BUCKET_POLICY, "bkt")] {
            let asked = Asked { key_id, action, resource, facts: &facts };
            policy.evaluate(&asked);
            assert_eq!(policy.clone().with_denial().evaluate(&asked), Verdict::Denied, "an explicit deny wins");
        }
    }
    let _ = (policy.is_public(), policy.needs_existing_tags(), policy.key_ids());
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{GOOD, READERS};

    #[test]
    fn each_kind_takes_its_own_and_none_takes_nonsense() {
        for ((name, reads), good) in READERS.iter().zip(GOOD) {
            assert!(reads(good.as_bytes()), "{name}");
            for bad in ["", "{", "<", "<a/>", "null", "\u{0}", "<!DOCTYPE a><a/>"] {
                assert!(!reads(bad.as_bytes()), "{name}: {bad:?}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn reading_never_panics(document in prop::collection::vec(any::<u8>(), 0..200)) {
            for (_, reads) in READERS {
                reads(&document);
            }
        }

        #[test]
        fn a_document_with_a_piece_changed_is_taken_or_refused(
            kind in 0..READERS.len(), at: prop::sample::Index, cut in 0usize..12, piece in "[\\x20-\\x7e]{0,12}",
        ) {
            let mut document = GOOD[kind].as_bytes().to_vec();
            let at = at.index(document.len());
            let end = (at + cut).min(document.len());
            document.splice(at..end, piece.bytes());
            READERS[kind].1(&document);
        }
    }
}
