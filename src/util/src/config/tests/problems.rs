//! Golden texts: what each mistake is called.

use super::{S3_API, read, with};
use crate::config::Config;

/// The only problem of a file.
fn check(text: &str, expected: &str) {
    let error = match Config::parse(text, "garage.toml") {
        Ok(_) => panic!("accepted, but should say {expected:?}:\n{text}"),
        Err(error) => error.to_string(),
    };
    assert_eq!(error, format!("garage.toml: {expected}"), "{text}");
}

/// A problem on line 5 of an otherwise right file.
fn check_line(line: &str, expected: &str) {
    check(&with(line), &format!("line 5: {expected}"));
}

#[test]
fn wrong_values_are_named_with_key_line_and_what_is_allowed() {
    let size = "a number of bytes, or a number with a unit (B, kB, MB, GB, TB, PB, EB, KiB, MiB, GiB, TiB, PiB, EiB), such as \"10G\" or \"1.5 TiB\"";
    for (line, expected) in [
        ("metadata_fsync = \"yes\"", "metadata_fsync: must be true or false, not the string \"yes\"".to_owned()),
        ("block_size = \"1.5\"", format!("block_size: invalid capacity value \"1.5\": {size}")),
        ("block_size = -1", "block_size: must be a size from 0 bytes up, not -1".into()),
        ("block_size = 1.5", "block_size: must be a size, an integer (bytes) or a string such as \"10G\" or \"1.5 TiB\", not the number 1.5".into()),
        ("block_size = 100", "block_size: must be from 4096 bytes (4 KiB) to 134217728 bytes (128 MiB), not 100".into()),
        ("block_ram_buffer_max = \"1k\"", "block_ram_buffer_max: must hold at least one block: block_size is 1048576 bytes".into()),
        ("inline_threshold = \"2MiB\"", "inline_threshold: must be at most 1048576 bytes (1 MiB), not 2097152".into()),
        ("block_max_concurrent_reads = 0", "block_max_concurrent_reads: must be an integer of at least 1, not 0".into()),
        ("compression_level = \"fast\"", "compression_level: must be an integer from -99 to 22 (0: zstd's own default), or \"none\", not \"fast\"".into()),
        ("compression_level = 3000000000", "compression_level: must be an integer from -99 to 22 (0: zstd's own default), or \"none\", not 3000000000".into()),
        ("metadata_auto_snapshot_interval = \"5min\"", "metadata_auto_snapshot_interval: must be at least 10 minutes; remove the key for no automatic snapshots".into()),
        (
            "metadata_auto_snapshot_interval = \"often\"",
            "metadata_auto_snapshot_interval: invalid duration \"often\": a sum of numbers with units us, ms, s, min, h, d, w, M (month), y, such as \"6h\" or \"1d 12h\"".into(),
        ),
        ("consistency_mode = \"Consistent\"", "consistency_mode: must be \"consistent\", \"degraded\" or \"dangerous\", not \"Consistent\"".into()),
        ("rpc_secret = \"abcd\"", "rpc_secret: has 4 hex digits, needs 64 hex digits (32 bytes); `openssl rand -hex 32` makes one".into()),
        ("rpc_public_addr = \"nohost\"", "rpc_public_addr: invalid address \"nohost\": ip:port, [ip6]:port or hostname:port".into()),
        ("rpc_public_addr_subnet = \"10.0.0.0/33\"", "rpc_public_addr_subnet: invalid subnet \"10.0.0.0/33\": <address>/<prefix length>, such as \"10.0.0.0/8\" or \"fd00::/8\"".into()),
        ("rpc_timeout_msec = 0", "rpc_timeout_msec: must be a number of milliseconds of at least 1, not 0".into()),
        ("bootstrap_peers = \"x\"", "bootstrap_peers: must be an array of strings, not the string \"x\"".into()),
        ("db_engine = \"rocks\"", "db_engine: must be \"fjall\", not \"rocks\"; or remove the key".into()),
    ] {
        check_line(line, &expected);
    }
}

#[test]
fn another_engine_is_told_what_to_do() {
    for engine in ["lmdb", "heed", "sqlite", "sqlite3", "rusqlite", "sled"] {
        check_line(
            &format!("db_engine = \"{engine}\""),
            &format!(
                "db_engine: this build stores metadata in fjall and cannot read a {engine} store; for a new node remove the key (or set \"fjall\"), to bring data over copy the buckets with an S3 client such as rclone"
            ),
        );
    }
}

#[test]
fn unknown_keys_are_named_with_the_nearest_known_one() {
    for (line, expected) in [
        ("block_sise = 1", "line 5: block_sise: unknown key; did you mean block_size? Allowed here: "),
        ("frobnicate = 1", "line 5: frobnicate: unknown key; allowed here: "),
        ("[s3_apy]\nx = 1", "line 5: s3_apy: unknown key; did you mean s3_api? Allowed here: "),
    ] {
        let error = Config::parse(&with(line), "garage.toml").unwrap_err().to_string();
        assert!(error.starts_with(&format!("garage.toml: {expected}")), "{error}");
        assert!(error.contains("block_size") && error.contains("kubernetes_discovery"), "all allowed keys are listed: {error}");
    }
    check(
        &format!("{}block_size = 1048576\n", with("")),
        "line 8: s3_api.block_size: unknown key in this table; block_size is a top-level key and must stand before the first [table]",
    );
    check(
        &format!("{}[admin]\ntoken = \"x\"\n", with("")),
        "line 9: admin.token: unknown key; allowed here: admin_token, admin_token_file, api_bind_addr, metrics_require_token, metrics_token, metrics_token_file, tls_bind_addr, tls_cert_file, tls_key_file, tls_redirect, trace_sink",
    );
}

#[test]
fn missing_keys_are_named_all_at_once() {
    let error = Config::parse("", "garage.toml").unwrap_err().to_string();
    for key in ["metadata_dir", "data_dir", "replication_factor", "rpc_bind_addr", "s3_api"] {
        assert!(error.lines().any(|line| line.starts_with(&format!("garage.toml: {key}: missing; "))), "{key}: {error}");
    }
    check(
        &with("").replace(S3_API, "[s3_api]\n"),
        "line 6: s3_api.s3_region: missing; it is required: the region in signatures, usually \"garage\"",
    );
    check(
        &format!("{}[s3_web]\n", with("")),
        "line 8: s3_web.bind_addr: missing; it is required: where websites are served, such as \"[::]:3902\"",
    );
}

#[test]
fn a_tls_listener_has_a_certificate_and_a_certificate_has_a_listener() {
    let of_s3 = |lines: &str| with("").replace(S3_API, &format!("{S3_API}{lines}\n"));
    for (lines, expected) in [
        (
            "tls_bind_addr = \"[::]:443\"",
            "tls_bind_addr: needs a certificate: set tls_cert_file and tls_key_file, or for websites the table [acme]",
        ),
        (
            "tls_bind_addr = \"[::]:443\"\ntls_cert_file = \"/c\"",
            "tls_cert_file: tls_cert_file and tls_key_file belong together: set both or neither",
        ),
        (
            "tls_cert_file = \"/c\"\ntls_key_file = \"/k\"",
            "tls_cert_file: has no effect without tls_bind_addr, the address that is served with TLS, such as \"[::]:443\"",
        ),
        (
            "tls_redirect = true",
            "tls_redirect: has no effect without tls_bind_addr, the address that is served with TLS, such as \"[::]:443\"",
        ),
        (
            "tls_bind_addr = \"/s\"\ntls_cert_file = \"/c\"\ntls_key_file = \"/k\"\ntls_redirect = true",
            "tls_redirect: needs a tls_bind_addr with a port: clients can't be led to a Unix socket",
        ),
    ] {
        let error = Config::parse(&of_s3(lines), "garage.toml").unwrap_err().to_string();
        assert!(error.ends_with(&format!(": s3_api.{expected}")) && error.lines().count() == 1, "{error}");
    }
    let files = "tls_bind_addr = \"[::]:443\"\ntls_cert_file = \"/c\"\ntls_key_file = \"/k\"\ntls_redirect = true";
    let tls = read(&of_s3(files)).0.s3_api.tls.unwrap();
    assert_eq!((tls.files, tls.redirect_port), (Some(("/c".into(), "/k".into())), Some(443)));
}

#[test]
fn an_authority_is_asked_only_for_websites_with_tls_and_with_its_terms_accepted() {
    let web = "[s3_web]\nbind_addr = \"[::]:80\"\ntls_bind_addr = \"[::]:443\"\n";
    let acme = "[acme]\naccept_terms_of_service = true\n";
    let terms = "set it to true once you have read the terms of the authority at directory_url";
    for (tables, expected) in [
        (acme.to_owned(), "acme: certificates are for websites: set tls_bind_addr in [s3_web], such as \"[::]:443\"".to_owned()),
        (format!("{web}[acme]\n"), format!("acme.accept_terms_of_service: missing; it is required: {terms}")),
        (
            format!("{web}[acme]\naccept_terms_of_service = false\n"),
            format!("acme.accept_terms_of_service: no authority issues certificates without it: {terms}, or remove the table"),
        ),
        (format!("{web}{acme}contact = [\"nobody\"]\n"), "acme.contact: \"nobody\" is no mail address".to_owned()),
        (
            format!("{web}{acme}challenge = \"dns-01\"\n"),
            "acme.challenge: must be \"http-01\" or \"tls-alpn-01\", not \"dns-01\"; or remove the key, then both are tried".to_owned(),
        ),
    ] {
        let error = Config::parse(&format!("{}{tables}", with("")), "garage.toml").unwrap_err().to_string();
        assert!(error.ends_with(&expected) && error.lines().count() == 1, "{error}");
    }
    let (config, _) = read(&format!("{}{web}{acme}contact = [\"mailto:me@example.org\"]\n", with("")));
    let acme = config.acme.unwrap();
    assert_eq!(acme.contact, ["me@example.org"]);
    assert!(acme.directory_url.starts_with("https://") && config.s3_web.unwrap().tls.unwrap().files.is_none());
}

#[test]
fn data_directories_have_either_a_capacity_or_are_read_only() {
    for (entries, expected) in [
        (
            "{ path = \"/a\" }",
            "data_dir[0].capacity: invalid data_dir config: an entry needs a capacity such as \"1T\", or read_only = true",
        ),
        (
            "{ path = \"/a\", capacity = \"1T\", read_only = true }",
            "data_dir[0].capacity: invalid data_dir config: an entry has either a capacity or read_only = true, not both",
        ),
        (
            "{ path = \"/a\", capacity = \"0\" }",
            "data_dir[0].capacity: invalid data_dir config: a capacity of 0; use read_only = true for a directory that is only drained",
        ),
        (
            "{ path = \"/a\", capacity = 5 }",
            "data_dir[0].capacity: must be a size as a string, such as \"10G\" or \"1.5 TiB\", not the integer 5",
        ),
        (
            "{ path = \"/a\", read_only = true }",
            "data_dir: invalid data_dir config: at least one entry must be writable, with a capacity and without read_only",
        ),
        ("", "data_dir: invalid data_dir config: at least one entry must be writable, with a capacity and without read_only"),
        ("{ capacity = \"1T\" }", "data_dir[0].path: missing; it is required: one data directory"),
    ] {
        check(&with("").replace("data_dir = \"/d\"", &format!("data_dir = [{entries}]")), &format!("line 2: {expected}"));
    }
}

#[test]
fn old_and_new_replication_keys_exclude_each_other() {
    let message = "replication_mode: replaced by replication_factor and consistency_mode, and cannot stand beside them; remove it";
    check_line("replication_mode = \"3\"", message);
    let text = with("").replace("replication_factor = 3", "replication_mode = \"4\"");
    check(&text, "line 3: replication_mode: \"4\" is no mode; remove it and set replication_factor (1, 2, 3, …) and consistency_mode");
}

#[test]
fn tables_keep_their_own_rules() {
    for (table, expected) in [
        (
            "[s3_api]\ns3_region = \"g\"\npublic_endpoint_path_style = false",
            "line 7: s3_api.public_endpoint_path_style: cannot be false without root_domain, since bucket names then have no host names",
        ),
        (
            "[s3_api]\ns3_region = \"g\"\npublic_endpoint = \"nowhere\"",
            "line 7: s3_api.public_endpoint: must be a URL with a host, such as \"https://s3.example.org\", not \"nowhere\"",
        ),
        (
            "[s3_api]\ns3_region = \"g\"\napi_bind_addr = \"localhost:3900\"",
            "line 7: s3_api.api_bind_addr: invalid listen address \"localhost:3900\": ip:port (such as \"0.0.0.0:3900\" or \"[::]:3900\"), or a path that starts with /",
        ),
    ] {
        check(&with("").replace(&format!("\n{S3_API}"), &format!("{table}\n")), expected);
    }
    let consul = "[consul_discovery]\nconsul_http_addr = \"http://c\"\nservice_name = \"g\"\n";
    check(
        &format!("{}{consul}client_cert = \"/c\"\n", with("")),
        "line 11: consul_discovery.client_cert: client_cert and client_key belong together: set both or neither",
    );
    check(&format!("{}{consul}api = \"x\"\n", with("")), "line 11: consul_discovery.api: must be \"catalog\" or \"agent\", not \"x\"");
}

#[test]
fn broken_toml_is_shown_with_its_line() {
    let error = Config::parse("metadata_dir = \"/m\"\nblock_size = 1M\n", "garage.toml").unwrap_err().to_string();
    assert!(error.starts_with("garage.toml: line 2: not valid TOML: "), "{error}");
    let error = Config::parse(&with("block_size = 1\nblock_size = 2"), "garage.toml").unwrap_err().to_string();
    assert!(error.starts_with("garage.toml: line 6: not valid TOML: duplicate key"), "{error}");
}

#[test]
fn what_has_no_effect_is_a_warning() {
    for (line, expected) in [
        (
            "lmdb_map_size = \"1T\"",
            "line 5: lmdb_map_size: ignored: it belongs to the LMDB engine, this build stores metadata in fjall; remove it",
        ),
        ("compression_level = 30", "line 5: compression_level: 30 is beyond what zstd tells apart, 22 is used"),
        ("rpc_public_addr_subnet = \"10.1.2.3/8\"", "line 5: rpc_public_addr_subnet: has bits set behind its prefix; 10.0.0.0/8 is used"),
        (
            "bootstrap_peers = [\"abcd@h:1\"]",
            "line 5: bootstrap_peers: entry skipped: invalid peer \"abcd@h:1\": the node id before @ has 4 characters, needs the full 64 hex digits",
        ),
    ] {
        assert_eq!(read(&with(line)).1, [expected]);
    }
}
