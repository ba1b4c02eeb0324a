//! Whole files, new and old.

use std::time::Duration;

use super::{read, with};
use crate::config::{Config, ConsistencyMode, ConsulApi, DataDir, DataDirUse, HostAddr, Listen};

pub(super) const EVERY_KEY: &str = r#"
metadata_dir = "/var/lib/garage/meta"
data_dir = [
    { path = "/mnt/a", capacity = "1T" },
    { path = "/mnt/b", capacity = "2 TiB" },
    { path = "/mnt/old", read_only = true },
]
metadata_fsync = true
data_fsync = false
disable_scrub = true
use_local_tz = true
metadata_snapshots_dir = "/snapshots"
metadata_auto_snapshot_interval = "6h"
db_engine = "fjall"
fjall_block_cache_size = "128 MiB"
metadata_min_free = "1G"
block_size = "1M"
inline_threshold = 3072
block_ram_buffer_max = "64MiB"
block_max_concurrent_writes_per_request = 5
block_max_concurrent_reads = 8
compression_level = "None"
replication_factor = 3
consistency_mode = "degraded"
rpc_secret = "4425f5c26c5e11581d3223904324dcb5b5d5dfb14e5e7f35e38c595424f5f1e6"
rpc_secrets_previous = ["1425f5c26c5e11581d3223904324dcb5b5d5dfb14e5e7f35e38c595424f5f1e6"]
rpc_bind_addr = "[::]:3901"
rpc_bind_outgoing = true
rpc_public_addr = "node1.example.org:3901"
rpc_public_addr_subnet = "10.0.0.0/8"
rpc_ping_timeout_msec = 5000
rpc_timeout_msec = 60000
rpc_buffer_max = "32MiB"
bootstrap_peers = ["563e1ac825ee3323aa441e72c26d1030d6d4414aeb3dd25287c531e7fc2bc95d@[fc00::1]:3901"]
allow_world_readable_secrets = true
allow_punycode = true
max_connections = 100

[s3_api]
api_bind_addr = "[::]:3900"
s3_region = "garage"
root_domain = ".s3.garage.example"
public_endpoint = "https://s3.garage.example"
public_endpoint_path_style = false
trusted_proxies = ["10.0.0.0/8", "fd00::/8"]

[k2v_api]
api_bind_addr = "/run/k2v.sock"
public_endpoint = "https://k2v.garage.example"

[s3_web]
bind_addr = "[::]:3902"
root_domain = ".web.garage.example"
add_host_to_metrics = true

[admin]
api_bind_addr = "0.0.0.0:3903"
admin_token = "secret"
metrics_token_file = "/etc/metrics"
metrics_require_token = true
trace_sink = "http://localhost:4317"

[consul_discovery]
api = "agent"
consul_http_addr = "https://consul:8500"
service_name = "garage"
ca_cert = "/ca.pem"
client_cert = "/c.pem"
client_key = "/k.pem"
token = "t"
tls_skip_verify = true
tags = ["dns"]
meta = { team = "storage" }
datacenters = ["dc1"]

[kubernetes_discovery]
namespace = "garage"
service_name = "garage-daemon"
skip_crd = true
"#;

#[test]
fn every_key_of_the_manual_is_read() {
    let (config, warnings) = read(EVERY_KEY);
    assert_eq!(warnings, Vec::<String>::new());
    let share = |path: &str, capacity_bytes| DataDir { path: path.into(), usage: DataDirUse::Share { capacity_bytes } };
    let old = DataDir { path: "/mnt/old".into(), usage: DataDirUse::ReadOnly };
    assert_eq!(config.data_dir, [share("/mnt/a", 1_000_000_000_000), share("/mnt/b", 2 << 40), old]);
    assert_eq!((config.metadata_fsync, config.data_fsync, config.compression_level), (true, false, None));
    assert_eq!(config.metadata_auto_snapshot_interval, Some(Duration::from_secs(6 * 3600)));
    assert_eq!((config.block_size, config.inline_threshold, config.block_ram_buffer_max), (1_000_000, 3072, 64 << 20));
    assert_eq!((config.fjall_block_cache_size, config.metadata_min_free), (Some(128 << 20), Some(1_000_000_000)));
    assert_eq!((config.consistency_mode, config.rpc_timeout), (ConsistencyMode::Degraded, Duration::from_secs(60)));
    assert_eq!(config.rpc_public_addr, Some(HostAddr { host: "node1.example.org".into(), port: 3901 }));
    assert_eq!(config.bootstrap_peers[0].to_string(), "563e1ac825ee3323aa441e72c26d1030d6d4414aeb3dd25287c531e7fc2bc95d@[fc00::1]:3901");
    assert_eq!((config.rpc_secrets_previous.len(), config.max_connections), (1, 100));
    assert_eq!(config.s3_api.root_domain.as_deref(), Some("s3.garage.example"));
    assert_eq!(config.s3_api.trusted_proxies.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/8", "fd00::/8"]);
    assert_eq!(config.k2v_api.unwrap().api_bind_addr, Listen::Unix("/run/k2v.sock".into()));
    assert_eq!(config.admin.metrics_token.file, Some("/etc/metrics".into()));
    let consul = config.consul_discovery.unwrap();
    assert_eq!((consul.api, consul.client_identity), (ConsulApi::Agent, Some(("/c.pem".into(), "/k.pem".into()))));
    assert!(config.kubernetes_discovery.unwrap().skip_crd);
}

#[test]
fn a_short_file_has_the_documented_defaults_and_is_durable() {
    let (config, warnings) = read(&with(""));
    assert!(warnings.is_empty());
    assert!(config.metadata_fsync && config.data_fsync);
    assert_eq!((config.block_size, config.inline_threshold, config.block_ram_buffer_max), (1 << 20, 16 << 10, 256 << 20));
    assert_eq!((config.compression_level, config.block_max_concurrent_reads), (Some(1), 16));
    assert_eq!((config.rpc_ping_timeout, config.rpc_timeout), (Duration::from_secs(10), Duration::from_secs(300)));
    assert_eq!(config.metadata_snapshots_dir, std::path::PathBuf::from("/m/snapshots"));
    assert!(config.s3_api.public_endpoint_path_style && config.s3_api.api_bind_addr.is_none());
}

#[test]
fn a_file_of_0_8_still_starts_a_node_and_says_what_is_dead_in_it() {
    let old = r#"
metadata_dir = "/var/lib/garage/meta"
data_dir = "/var/lib/garage/data"
block_size = 1048576
sled_cache_capacity = 134217728
sled_flush_every_ms = 2000
block_manager_background_tranquility = 2
replication_mode = "3-degraded"
compression_level = 2
rpc_secret = "4425f5c26c5e11581d3223904324dcb5b5d5dfb14e5e7f35e38c595424f5f1e6"
rpc_bind_addr = "[::]:3901"
rpc_public_addr = "[fc00:1::1]:3901"
bootstrap_peers = ["10.0.0.1:3901"]
consul_host = "localhost:8500"
[s3_api]
s3_region = "garage"
api_bind_addr = "[::]:3900"
root_domain = ".s3.garage"
[s3_web]
bind_addr = "[::]:3902"
root_domain = ".web.garage"
index = "index.html"
[rpc_tls]
ca_cert = "/ca"
"#;
    let (config, warnings) = read(old);
    assert_eq!((config.replication_factor, config.consistency_mode), (3, ConsistencyMode::Degraded));
    let starts: Vec<&str> = warnings.iter().map(|warning| warning.rsplit_once(": ").map_or(warning.as_str(), |(start, _)| start)).collect();
    for (line, key) in [
        (5, "sled_cache_capacity"),
        (6, "sled_flush_every_ms"),
        (7, "block_manager_background_tranquility"),
        (8, "replication_mode"),
        (13, "bootstrap_peers"),
        (14, "consul_host"),
        (22, "s3_web.index"),
        (23, "rpc_tls"),
    ] {
        let wanted = format!("line {line}: {key}: ");
        assert!(warnings.iter().any(|warning| warning.starts_with(&wanted)), "{wanted} is not in {starts:#?}");
    }
    assert_eq!(warnings.len(), 8);
}

#[test]
fn each_old_replication_mode_has_its_meaning() {
    use ConsistencyMode::{Consistent, Dangerous, Degraded};
    let modes = [("none", 1, Consistent), ("1", 1, Consistent), ("2", 2, Consistent), ("2-dangerous", 2, Dangerous), ("3", 3, Consistent)];
    for (mode, factor, consistency) in modes.into_iter().chain([("3-degraded", 3, Degraded), ("3-dangerous", 3, Dangerous)]) {
        let (config, warnings) = read(&with("").replace("replication_factor = 3", &format!("replication_mode = \"{mode}\"")));
        assert_eq!((config.replication_factor, config.consistency_mode), (factor, consistency), "{mode}");
        assert!(warnings[0].contains(&format!("write replication_factor = {factor}")), "{warnings:?}");
    }
}

#[test]
fn a_single_node_needs_no_file_and_listens_on_loopback_only() {
    let config = Config::single_node("/data");
    assert_eq!((config.replication_factor, config.metadata_dir.to_str()), (1, Some("/data/meta")));
    let listeners = [config.s3_api.api_bind_addr.unwrap(), config.s3_web.unwrap().bind_addr, config.admin.api_bind_addr.unwrap()];
    for listen in listeners.into_iter().chain([Listen::Tcp(config.rpc_bind_addr)]) {
        assert!(matches!(listen, Listen::Tcp(address) if address.ip().is_loopback()), "{listen}");
    }
}
