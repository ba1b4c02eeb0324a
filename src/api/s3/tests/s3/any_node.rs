//! Access and encryption through three nodes: a change made at one counts at all of them before it is answered.

use crate::{client::Signed, server::Cluster};

fn policy(effect: &str, resource: &str) -> String {
    format!(
        r#"{{"Version":"2012-10-17","Statement":{{"Effect":"{effect}","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::bkt{resource}"}}}}"#
    )
}

#[tokio::test]
async fn a_policy_counts_at_every_node_as_soon_as_it_is_set() {
    let cluster = Cluster::start().await;
    let (owners, strangers) = (&cluster.owners, cluster.strangers().await);
    owners[0].put("/bkt/k", "x").await.ok();
    for round in 0..3 {
        let setter = &owners[round % owners.len()];
        assert_eq!(setter.put("/bkt?policy", policy("Allow", "/*")).await.status, 204);
        for (owner, stranger) in owners.iter().zip(&strangers) {
            assert_eq!(owner.get("/bkt?policy").await.ok().text(), policy("Allow", "/*"));
            stranger.get("/bkt/k").await.ok();
            owner.call("GET", "/bkt/k").signed(Signed::No).send().await.ok();
        }
        assert_eq!(setter.put("/bkt?policy", policy("Deny", "/*")).await.status, 204);
        for client in owners.iter().chain(&strangers) {
            client.get("/bkt/k").await.is(403, "AccessDenied");
        }
        assert_eq!(owners[(round + 1) % owners.len()].delete("/bkt?policy").await.status, 204);
        for owner in owners {
            owner.get("/bkt?policy").await.is(404, "NoSuchBucketPolicy");
            owner.get("/bkt/k").await.ok();
        }
        for stranger in &strangers {
            stranger.get("/bkt/k").await.is(403, "AccessDenied");
        }
    }
}

#[tokio::test]
async fn blocks_lists_and_tags_count_at_every_node() {
    let cluster = Cluster::start().await;
    let (owners, strangers) = (&cluster.owners, cluster.strangers().await);
    let ownership = "<OwnershipControls><Rule><ObjectOwnership>ObjectWriter</ObjectOwnership></Rule></OwnershipControls>";
    owners[1].put("/bkt?ownershipControls", ownership).await.ok();
    owners[2].call("PUT", "/bkt/k").header("x-amz-acl", "public-read").header("x-amz-tagging", "a=b").body("x").send().await.ok();
    for (owner, stranger) in owners.iter().zip(&strangers) {
        stranger.get("/bkt/k").await.ok();
        assert_eq!(owner.get("/bkt/k?tagging").await.ok().elements("Key"), ["a"]);
    }
    let block = "<PublicAccessBlockConfiguration><IgnorePublicAcls>true</IgnorePublicAcls></PublicAccessBlockConfiguration>";
    owners[0].put("/bkt?publicAccessBlock", block).await.ok();
    for stranger in &strangers {
        stranger.get("/bkt/k").await.is(403, "AccessDenied");
    }
    owners[2].put("/bkt?tagging", "<Tagging><TagSet><Tag><Key>k</Key><Value>v</Value></Tag></TagSet></Tagging>").await.ok();
    for owner in owners {
        assert_eq!(owner.get("/bkt?tagging").await.ok().elements("Key"), ["k"]);
    }
    for (index, owner) in owners.iter().enumerate() {
        let document = format!("<Tagging><TagSet><Tag><Key>by</Key><Value>{index}</Value></Tag></TagSet></Tagging>");
        owner.put("/bkt/k?tagging", document).await.ok();
        for reader in owners {
            assert_eq!(reader.get("/bkt/k?tagging").await.ok().elements("Value"), [index.to_string()]);
        }
    }
}

#[tokio::test]
async fn encrypted_objects_are_read_at_every_node() {
    let cluster = Cluster::start().await;
    let owners = &cluster.owners;
    let body: Vec<u8> = (0..600u32 << 10).map(|at| (at / 7) as u8).collect();
    owners[0].call("PUT", "/bkt/k").header("x-amz-server-side-encryption", "AES256").body(&body).send().await.ok();
    for owner in owners {
        let got = owner.get("/bkt/k").await.ok();
        assert!(got.body == body && got.header("x-amz-server-side-encryption") == Some("AES256"));
        let range = owner.call("GET", "/bkt/k").header("range", "bytes=300000-300009").send().await;
        assert!(range.body == body[300_000..300_010]);
    }
}
