//! The parser and the manual know the same keys; what older releases knew is never a mistake; no file makes the parser panic.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{files::EVERY_KEY, read, with};
use crate::config::Config;

const MANUAL: &str = include_str!("../../../../../doc/src/configuration.md");

/// The keys in the tables of the manual's sections whose titles `wanted` takes.
fn keys_of_manual(wanted: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let sections = MANUAL.split("\n## ").filter(|section| wanted(section.lines().next().unwrap_or_default()));
    let rows = sections.flat_map(|section| section.lines().filter(|line| line.starts_with("| `")));
    let names = rows.flat_map(|row| row.split('|').nth(1).unwrap_or_default().split(','));
    names.map(|name| name.trim().trim_matches('`').to_owned()).collect()
}

/// The tables that have a section of their own.
fn tables_of_manual() -> BTreeSet<String> {
    let titles = MANUAL.lines().filter_map(|line| line.strip_prefix("## `["));
    titles.flat_map(|title| title.split('[')).filter_map(|rest| rest.split_once(']')).map(|(name, _)| name.to_owned()).collect()
}

/// The keys that the parser allows where `file` ends: it lists them all when it meets one that it does not know.
fn keys_of_parser(file: &str) -> BTreeSet<String> {
    let error = Config::parse(&format!("{file}\nzzzzzzzzzzzzzzzz = 1\n"), "f").unwrap_err().to_string();
    let list = error.split("allowed here: ").nth(1).unwrap_or_else(|| panic!("{error}"));
    list.lines().next().unwrap().split(", ").map(str::to_owned).collect()
}

#[test]
fn the_manual_lists_the_keys_that_the_parser_knows() {
    let tables = tables_of_manual();
    let no_longer = ["replication_mode", "lmdb_map_size"];
    let known = keys_of_parser(super::LEAST).into_iter().filter(|key| !tables.contains(key) && !no_longer.contains(&&**key));
    assert_eq!(keys_of_manual(|title| ["Storage", "Cluster"].contains(&title)), known.collect());
    // What several tables may have is in a section of its own.
    let shared = keys_of_manual(|title| !["Storage", "Cluster", "Environment"].contains(&title) && !title.starts_with('`'));
    let (mut known, mut documented) = (BTreeSet::new(), shared.clone());
    for table in tables {
        let own = keys_of_manual(|title| title.starts_with(&format!("`[{table}]`")));
        if own.is_empty() {
            // Read, and not served yet.
            continue;
        }
        let head = if table == "s3_api" { String::new() } else { format!("[{table}]\n") };
        let parsed = keys_of_parser(&(with("") + &head));
        assert_eq!(own, parsed.difference(&shared).cloned().collect(), "{table}");
        known.extend(parsed);
        documented.extend(own);
    }
    assert_eq!(documented, known);
}

#[test]
fn every_key_that_was_removed_warns_at_its_line() {
    for (text, key) in [
        ("sled_cache_capacity = 1", "sled_cache_capacity"),
        ("sled_flush_every_ms = 1", "sled_flush_every_ms"),
        ("lmdb_map_size = 1", "lmdb_map_size"),
        ("block_manager_background_tranquility = 1", "block_manager_background_tranquility"),
        ("max_concurrent_rpc_requests = 12", "max_concurrent_rpc_requests"),
        ("consul_host = \"h\"", "consul_host"),
        ("consul_service_name = \"s\"", "consul_service_name"),
        ("kubernetes_namespace = \"n\"", "kubernetes_namespace"),
        ("kubernetes_service_name = \"s\"", "kubernetes_service_name"),
        ("kubernetes_skip_crd = true", "kubernetes_skip_crd"),
        ("rpc_tls = { ca_cert = \"/c\", node_cert = \"/n\", node_key = \"/k\" }", "rpc_tls"),
        ("bootstrap_peers = [\"10.0.0.1:3901\"]", "bootstrap_peers"),
        ("s3_web = { bind_addr = \"[::]:3902\", index = \"index.html\" }", "s3_web.index"),
    ] {
        let warnings = read(&with(text)).1;
        assert!(warnings.len() == 1 && warnings[0].starts_with(&format!("line 5: {key}: ")), "{text}: {warnings:?}");
    }
}

proptest! {
    #[test]
    fn no_file_makes_the_parser_panic(at in 0..200usize, line in "[a-z_\\[\\]{}=\"0-9 .,\n#'-]{0,60}") {
        let mut lines: Vec<&str> = EVERY_KEY.lines().collect();
        let at = at % lines.len();
        lines[at] = &line;
        if let Err(error) = Config::parse(&lines.join("\n"), "garage.toml") {
            prop_assert!(error.to_string().lines().all(|line| line.starts_with("garage.toml: ")), "{}", error);
        }
    }

    #[test]
    fn a_wrong_value_is_reported_at_its_own_line(at in 0..200usize, value in "(true|-1|\"\"|\"nonsense !\"|\\[\\]|\\{\\}|1979-05-27|nan)") {
        let mut lines: Vec<String> = EVERY_KEY.lines().map(str::to_owned).collect();
        let simple: Vec<usize> = (0..lines.len()).filter(|index| lines[*index].contains(" = ") && !lines[*index].starts_with(' ')).collect();
        let at = simple[at % simple.len()];
        let key = lines[at].split(" = ").next().unwrap().to_owned();
        // An array over several lines would leave its entries behind.
        prop_assume!(key != "data_dir");
        lines[at] = format!("{key} = {value}");
        if let Err(error) = Config::parse(&lines.join("\n"), "garage.toml") {
            let text = error.to_string();
            prop_assert!(text.contains(&format!("line {}: ", at + 1)) && text.contains(&key), "{}", text);
        }
    }
}
