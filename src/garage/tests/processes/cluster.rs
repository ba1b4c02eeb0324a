//! A cluster made, used and administered through the command line.

use http::Method;
use tempfile::TempDir;

use crate::support::{
    self,
    cluster::{BUCKET, Cluster, await_all_seen, connect, healthy_count, rpc_secret, strangers},
    ports,
    process::{Node, Settings},
    wait::until,
};

#[tokio::test(flavor = "multi_thread")]
async fn two_connections_are_enough_for_three_nodes_to_see_each_other() {
    let _turn = support::turn().await;
    let dir = TempDir::new().unwrap();
    let nodes = strangers(dir.path().to_owned(), &rpc_secret()).await;
    for node in &nodes {
        assert_eq!(healthy_count(node).await, 1, "nobody is known yet");
        assert!(node.cli(&["status"]).await.contains("NO ROLE ASSIGNED"));
    }
    // The last two never hear of each other from an operator.
    connect(&nodes).await;
    await_all_seen(&nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_another_secret_is_refused_and_status_says_so() {
    let _turn = support::turn().await;
    let dir = TempDir::new().unwrap();
    let mut ours = Node::new(dir.path().join("ours"), Settings::new(&dir.path().join("ours"), &rpc_secret()));
    let mut theirs = Node::new(dir.path().join("theirs"), Settings::new(&dir.path().join("theirs"), &rpc_secret()));
    ours.start().await;
    theirs.start().await;

    let refused = ours.command(&["node", "connect", &theirs.full_id().await]).await.refused();
    assert!(refused.contains("secret"), "{refused}");
    assert_eq!((healthy_count(&ours).await, healthy_count(&theirs).await), (1, 1));
    let status = ours.command(&["status"]).await;
    assert_eq!(status.code, Some(0));
    assert!(format!("{}{}", status.stdout, status.stderr).contains("rpc_secret"), "status tells of the refusal: {status:?}");

    let is_told = async || theirs.cli(&["status"]).await.contains("rpc_secret").then_some(());
    until("the refusing side to tell of it, too", is_told).await;

    // A command with the wrong secret learns the same.
    let theirs_secret = theirs.settings.rpc_secret.clone();
    let said = ours.command(&["-s", &theirs_secret, "status"]).await.refused();
    assert!(said.contains("rpc_secret"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_through_any_node_is_read_through_every_other_at_once() {
    let _turn = support::turn().await;
    let cluster = Cluster::start().await;
    let endpoints: Vec<_> = (0..3).map(|index| cluster.s3(index)).collect();
    for round in 0..20 {
        for (writer, s3) in endpoints.iter().enumerate() {
            // One key that all write, and sizes on both sides of what is kept with the row.
            let size = if round % 4 == 0 { 2_500_000 } else { 900 };
            let body = vec![b'a' + (round + writer) as u8; size];
            s3.put(&format!("/{BUCKET}/shared"), body.clone()).await.ok();
            for reader in &endpoints {
                let answer = reader.get(&format!("/{BUCKET}/shared")).await.ok();
                assert!(answer.body == body, "round {round}: written through node {writer}");
                assert_eq!(reader.head(&format!("/{BUCKET}/shared")).await, 200);
            }
            let key = format!("/{BUCKET}/own-{round}-{writer}");
            s3.put(&key, "x").await.ok();
            for reader in &endpoints {
                assert_eq!(reader.head(&key).await, 200);
                let page = reader.get(&format!("/{BUCKET}?list-type=2&prefix=own-{round}-{writer}")).await.ok();
                assert!(page.text().contains(&format!("<Key>own-{round}-{writer}</Key>")), "{}", page.text());
            }
            s3.delete(&key).await.ok();
            for reader in &endpoints {
                assert_eq!(reader.head(&key).await, 404);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn buckets_and_keys_obey_todays_and_older_spellings_on_every_node() {
    let _turn = support::turn().await;
    let cluster = Cluster::start().await;
    let [one, two, three] = &cluster.nodes[..] else { panic!("three nodes") };

    let created = one.cli(&["key", "new", "--name", "older"]).await;
    assert!(created.contains("Key ID:") && created.contains("Secret key:"), "{created}");
    two.cli(&["key", "create", "newer"]).await;
    for node in &cluster.nodes {
        let listed = node.cli(&["key", "list"]).await;
        assert!(["older", "newer", "tester"].iter().all(|name| listed.contains(name)), "{listed}");
    }
    three.cli(&["bucket", "create", "photos"]).await;
    one.cli(&["bucket", "allow", "--read", "--write", "photos", "--key", "older"]).await;
    two.cli(&["bucket", "allow", "photos", "--read", "--key", "newer"]).await;
    three.cli(&["bucket", "alias", "photos", "pictures"]).await;
    one.cli(&["bucket", "alias", "--local", "newer", "photos", "mine"]).await;
    two.cli(&["bucket", "set-quotas", "photos", "--max-objects", "2", "--max-size", "1MiB"]).await;
    for node in &cluster.nodes {
        let info = node.cli(&["bucket", "info", "pictures"]).await;
        assert!(["photos", "older", "RW", "mine", "maximum number of objects"].iter().all(|text| info.contains(text)), "{info}");
    }
    two.cli(&["bucket", "deny", "photos", "--read", "--key", "newer"]).await;
    two.cli(&["key", "rename", "older", "oldest"]).await;
    assert!(three.cli(&["key", "info", "oldest"]).await.contains("(redacted)"));
    assert!(!three.cli(&["key", "info", "oldest", "--show-secret"]).await.contains("(redacted)"));
    one.cli(&["key", "allow", "oldest", "--create-bucket"]).await;
    one.cli(&["key", "deny", "oldest", "--create-bucket"]).await;
    one.cli(&["key", "import", "GK0123456789abcdef01234567", &"5".repeat(64), "-n", "imported", "--yes"]).await;

    // What destroys wants --yes, and a bucket with several names keeps them until they are taken away.
    assert!(one.command(&["key", "delete", "oldest"]).await.refused().contains("--yes"));
    one.cli(&["key", "delete", "oldest", "--yes"]).await;
    assert!(one.command(&["bucket", "delete", "photos", "--yes"]).await.refused().contains("alias"));
    two.cli(&["bucket", "unalias", "pictures"]).await;
    three.cli(&["bucket", "unalias", "--local", "newer", "mine"]).await;
    assert!(one.command(&["bucket", "delete", "photos"]).await.refused().contains("--yes"));
    one.cli(&["bucket", "delete", "photos", "--yes"]).await;
    for node in &cluster.nodes {
        assert!(node.command(&["bucket", "info", "photos"]).await.refused().contains("photos"));
    }

    // Older layout and node spellings.
    assert_eq!(one.cli(&["node-id", "-q"]).await.trim(), one.full_id().await);
    let id = one.full_id().await;
    two.cli(&["layout", "assign", "-z", "north", "-c", "2G", "-t", "big", &id[..16]]).await;
    let is_staged = |shown: &str| shown.contains("STAGED ROLE CHANGES") && shown.contains("garage layout apply --version 2");
    until("the staged layout", async || is_staged(&three.cli(&["layout", "show"]).await).then_some(())).await;
    two.cli(&["layout", "revert", "--yes"]).await;
    // What is staged on one node reaches the others by gossip.
    until("the reverted layout", async || (!one.cli(&["layout", "show"]).await.contains("STAGED ROLE CHANGES")).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_without_rights_is_denied_on_every_node_as_soon_as_the_command_returns() {
    let _turn = support::turn().await;
    let cluster = Cluster::start().await;
    let key = cluster.credentials.access_key_id.clone();
    for index in 0..3 {
        cluster.s3(index).put(&format!("/{BUCKET}/kept"), "x").await.ok();
    }
    cluster.nodes[0].cli(&["bucket", "deny", BUCKET, "--write", "--key", &key]).await;
    for index in 0..3 {
        cluster.s3(index).put(&format!("/{BUCKET}/more"), "x").await.is(403, "AccessDenied");
        cluster.s3(index).get(&format!("/{BUCKET}/kept")).await.ok();
    }
    cluster.nodes[1].cli(&["key", "delete", &key, "--yes"]).await;
    for index in 0..3 {
        cluster.s3(index).get(&format!("/{BUCKET}/kept")).await.is(403, "InvalidAccessKeyId");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_back_at_another_address_is_found_again() {
    let _turn = support::turn().await;
    let mut cluster = Cluster::start().await;
    cluster.s3(0).put(&format!("/{BUCKET}/before"), "x").await.ok();
    cluster.nodes[2].stop().await;
    cluster.nodes[2].settings.rpc_port = ports::free();
    cluster.nodes[2].start().await;
    await_all_seen(&cluster.nodes).await;
    let address = format!("127.0.0.1:{}", cluster.nodes[2].settings.rpc_port);
    for node in &cluster.nodes {
        until("the new address in status", async || node.cli(&["status"]).await.contains(&address).then_some(())).await;
    }
    cluster.s3(2).get(&format!("/{BUCKET}/before")).await.ok();

    // And all of them know it after they were all away.
    for node in &mut cluster.nodes {
        node.stop().await;
    }
    for node in &mut cluster.nodes {
        node.start().await;
    }
    await_all_seen(&cluster.nodes).await;
    for index in 0..3 {
        let answer = cluster.s3(index).attempt(Method::GET, &format!("/{BUCKET}/before"), &[], bytes::Bytes::new()).await.unwrap();
        answer.ok();
    }
}
