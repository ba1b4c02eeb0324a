//! What earlier states of the project stored stays readable: every data directory in `tests/fixtures` (made by `script/make-fixture`).

use std::{path::Path, process::Command};

use http::Method;
use tempfile::TempDir;

use crate::support::{
    self,
    client::S3,
    cluster::single,
    process::{Settings, run},
};

/// Numbers of eight digits, a line each, from 1.
fn numbers(count: usize) -> String {
    (1..=count).map(|number| format!("{number:08}\n")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn data_directories_of_earlier_formats_are_opened_with_all_that_they_hold() {
    let _turn = support::turn().await;
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let packed: Vec<_> = std::fs::read_dir(&fixtures).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!packed.is_empty(), "no fixture in {}", fixtures.display());
    for fixture in packed {
        opens(&fixture).await;
    }
}

async fn opens(fixture: &Path) {
    let dir = TempDir::new().unwrap();
    let mut unpack = Command::new("tar");
    unpack.arg("--extract").arg("--gzip").arg("--file").arg(fixture).arg("--directory").arg(dir.path());
    run(unpack).await.ok();
    let (mut node, credentials) = single(Settings::new(dir.path(), &"0a".repeat(32)), dir.path().to_owned());
    // Nothing is made anew: what is found has to be there.
    node.arguments = vec!["--single-node".to_owned()];
    node.start().await;
    let s3 = S3::new(node.s3_address(), credentials);

    let small = s3.get("/kept/small").await.ok();
    assert_eq!(
        (small.text().as_str(), small.header("content-type"), small.header("x-amz-meta-kept")),
        ("small content", "text/x-kept", "yes")
    );
    assert!(s3.get("/kept/large").await.ok().text() == numbers(300_000));
    assert!(s3.get("/kept/parts").await.ok().text() == numbers(600_000) + "the last part");
    assert_eq!(s3.get("/other-name/folder/%C3%BC%20name").await.ok().text(), "named");
    s3.get("/kept/deleted").await.is(404, "NoSuchKey");
    let listed = s3.get("/kept?list-type=2").await.ok().text();
    let keys: Vec<&str> = listed.split("<Key>").skip(1).map(|rest| rest.split_once('<').unwrap().0).collect();
    assert_eq!(keys, ["folder/ü name", "large", "parts", "small"]);
    let info = node.cli(&["bucket", "info", "kept"]).await;
    assert!(info.contains("other-name") && info.contains("1000"), "{info}");

    // And it goes on from there.
    s3.put("/kept/small", "new content").await.ok();
    assert_eq!(s3.get("/kept/small").await.ok().text(), "new content");
    let deleted = s3.attempt(Method::DELETE, "/kept/large", &[], Default::default()).await.unwrap();
    deleted.ok();
    s3.get("/kept/large").await.is(404, "NoSuchKey");
    node.stop().await;
}
