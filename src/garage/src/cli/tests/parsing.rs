//! Every spelling that parses, and those that must not.

use crate::cli::args::{self, AssignArgs, Cli, Command, LayoutCommand};

fn parse(line: &str) -> Result<Cli, clap::Error> {
    args::parse(std::iter::once("garage").chain(line.split_whitespace()).map(Into::into))
}

#[test]
fn the_command_tree_is_sound() {
    args::command().debug_assert();
}

#[test]
fn every_spelling_of_the_manual_is_understood() {
    let peer = format!("{}@10.0.0.1:3901", "ab".repeat(32));
    for line in [
        "-c /etc/garage.toml -s 00 status",
        "--config x --allow-world-readable-secrets true status",
        "server",
        "server --single-node --default-access-key --default-bucket",
        "server --single-node --default-bucket photos",
        "health -q",
        "stats -a",
        "stats --detailed",
        "node id -q",
        "node-id -q",
        "node-id",
        "layout assign -z dc1 -c 1G abcd",
        "layout assign abcd ef01 -zdc1 --capacity=1G --tag a -t b",
        "layout assign -z dc1 -g abcd --replace ef01",
        "layout remove abcd",
        "layout config -r max",
        "layout config -r 2",
        "layout show",
        "layout apply --version 1",
        "layout apply",
        "layout revert --yes",
        "layout revert --version 3",
        "layout history",
        "layout skip-dead-nodes --version 3 --allow-missing-data",
        "bucket list",
        "bucket info b",
        "bucket create b",
        "bucket delete --yes b",
        "bucket delete b --yes",
        "bucket alias b c --local GK1",
        "bucket unalias --local GK1 c",
        "bucket allow b --read --write --key k",
        "bucket allow --read --write b --key k",
        "bucket deny --owner --key k b",
        "bucket website --allow b",
        "bucket website b --allow -i i.html -e e.html",
        "bucket website b --deny",
        "bucket set-quotas b --max-size 10GiB --max-objects none",
        "bucket set-quotas --max-size none b",
        "bucket cleanup-incomplete-uploads --older-than 2d b c",
        "bucket inspect-object b k",
        "key list",
        "key create",
        "key create name",
        "key new",
        "key new --name name",
        "key create --expires-in 30d name",
        "key info k --show-secret",
        "key info k --secret-key",
        "key rename k n",
        "key set k --never-expires",
        "key import GK0123456789 secretsecretsecret -n name --yes",
        "key import --yes GK0123456789 secretsecretsecret",
        "key delete --yes k",
        "key allow --create-bucket k",
        "key deny k --create-bucket",
        "key delete-expired --yes",
        "key export-env k --prefix X_",
        "admin-token create -q --scope A,B name",
        "admin-token set t --scope=-A",
        "admin-token set t --scope +A",
        "admin-token list",
        "repair --yes tables",
        "repair -a --yes block_refs",
        "repair --yes block-refs",
        "repair --yes mpu",
        "repair --yes scrub start",
        "repair --yes scrub set-tranquility 3",
        "worker list -b -e",
        "worker info 3",
        "worker get",
        "worker get -a scrub-tranquility",
        "worker set scrub-tranquility 3",
        "worker set resync-n-workers 4",
        "block list-errors",
        "block info abcd",
        "block retry-now --all",
        "block retry-now ab cd",
        "block purge --yes ab",
        "meta snapshot --all",
        "json-api GetClusterStatus",
        "json-api ListKeys -",
        "completions bash",
        "admin-api-schema",
    ] {
        if let Err(error) = parse(line) {
            panic!("{line}: {error}");
        }
    }
    assert!(parse(&format!("-h {peer} status")).is_ok());
    assert!(parse(&format!("node connect {peer}")).is_ok());
}

#[test]
fn usage_mistakes_go_to_stderr_and_are_failures() {
    for line in [
        "",
        "layout",
        "nonsense",
        "status -c x",
        "-h nonsense status",
        "node connect 10.0.0.1:3901",
        "layout assign -z dc1 -c 1G -g ab",
        "layout assign -z dc1 -c many ab",
        "bucket website b",
        "bucket website b --allow --deny",
        "bucket set-quotas b",
        "bucket allow b --read",
        "block retry-now",
        "block retry-now --all ab",
        "repair --yes",
        "repair tables --yes",
        "key set k --never-expires --expires-in 1d",
        "--allow-world-readable-secrets 1 status",
    ] {
        let error = parse(line).expect_err(line);
        assert!(error.use_stderr(), "{line}: {error}");
    }
}

#[test]
fn help_and_version_are_on_every_level_and_no_failures() {
    for line in [
        "--help",
        "help",
        "help layout",
        "layout -h",
        "layout --help",
        "layout apply -h",
        "layout help apply",
        "-V",
        "--version",
        "layout -V",
        "key list --version",
    ] {
        let error = parse(line).expect_err(line);
        assert!(!error.use_stderr(), "{line}: {error}");
    }
}

#[test]
fn a_node_after_a_tag_is_a_node() {
    for (line, nodes, tags) in [
        ("layout assign -z dc1 -c 1G -t tag abcd", &["abcd"][..], &["tag"][..]),
        ("layout assign abcd -z dc1 -c 1G -t one two", &["abcd"], &["one", "two"]),
        ("layout assign -t one two -z dc1 abcd", &["abcd"], &["one", "two"]),
        ("layout assign -t one -t two abcd", &["abcd"], &["one", "two"]),
        ("layout assign abcd -t a,b", &["abcd"], &["a,b"]),
    ] {
        let Command::Layout(LayoutCommand::Assign(args)) = parse(line).unwrap().command else { panic!("{line}") };
        let AssignArgs { nodes: found_nodes, tags: found_tags, .. } = args.settled();
        assert_eq!(
            (found_nodes, found_tags),
            (nodes.iter().map(|node| node.to_string()).collect(), tags.iter().map(|tag| tag.to_string()).collect()),
            "{line}"
        );
    }
}

#[test]
fn a_name_in_either_place_names_the_key() {
    for line in ["key new --name photos", "key create photos", "key new photos", "key create --name photos"] {
        let fake = super::fake::Fake::default();
        let _ = fake.run(line);
        assert_eq!(fake.asked("CreateKey")["name"], "photos", "{line}");
    }
}
