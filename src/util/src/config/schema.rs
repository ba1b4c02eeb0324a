//! Which keys `garage.toml` has, their defaults and rules, table by table in the order of the manual.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, time::Duration};

use toml::de::{DeTable, DeValue};

use super::{
    Acme, AcmeChallenge, Admin, Config, ConfigError, ConsistencyMode, ConsulApi, ConsulDiscovery, DataDir, DataDirUse, K2vApi,
    KubernetesDiscovery, Listen, Overrides, Problem, RpcSecret, S3Api, S3Web, SecretSource, Tls, Warning,
    reader::{self, Issues, TableReader},
    removed, values,
};

/// Metadata snapshots are not taken more often than this.
const SNAPSHOT_INTERVAL_MIN: Duration = Duration::from_secs(600);
/// Levels that zstd tells apart.
const COMPRESSION_LEVELS: std::ops::RangeInclusive<i128> = -99..=22;
/// Chunks below this size make more rows than data, above the maximum one request holds too much memory.
const BLOCK_SIZE_BYTES: std::ops::RangeInclusive<u64> = 4 << 10..=128 << 20;
/// Inline objects travel inside metadata commits, which must stay small.
const INLINE_THRESHOLD_MAX_BYTES: u64 = 1 << 20;

impl Config {
    /// Reads the text of a configuration file; `file` names it in messages.
    ///
    /// Errors: every mistake in the file at once, with key and line.
    pub fn parse(text: &str, file: &str) -> Result<(Config, Vec<Warning>), ConfigError> {
        Config::parse_beside(text, file, &Overrides::default())
    }

    /// As [`Config::parse`], but what `overrides` replaces may be malformed in the file.
    pub(super) fn parse_beside(text: &str, file: &str, overrides: &Overrides) -> Result<(Config, Vec<Warning>), ConfigError> {
        let issues = Issues::new(text);
        let config = match DeTable::parse(text) {
            Ok(document) => {
                let root = TableReader::root(document.get_ref(), &issues);
                read_root(&root, overrides)
            }
            Err(error) => {
                let line = error.span().map(|span| issues.line(span.start));
                let offending =
                    error.span().and_then(|span| text.get(span)).map(|found| found.lines().next().unwrap_or("").trim()).unwrap_or("");
                let at = if offending.is_empty() { String::new() } else { format!(", at {offending:?}") };
                issues.problem(line, "", format!("not valid TOML: {}{at}", error.message()));
                None
            }
        };
        let (problems, warnings) = issues.into_sorted();
        match config {
            Some(config) if problems.is_empty() => Ok((config, warnings)),
            _ => Err(ConfigError::Invalid { file: file.to_owned(), problems: some_problem(problems) }),
        }
    }
}

/// A reader that gives nothing has noted why; should it ever not have, the refusal still has a sentence.
fn some_problem(problems: Vec<Problem>) -> Vec<Problem> {
    debug_assert!(!problems.is_empty(), "a configuration was refused without a reason");
    if problems.is_empty() {
        vec![Problem { line: None, key: String::new(), message: "a required key is missing".into() }]
    } else {
        problems
    }
}

fn read_root(root: &TableReader<'_>, overrides: &Overrides) -> Option<Config> {
    let metadata_dir = root.require("metadata_dir", reader::path, "the directory of node key, layout and metadata store");
    let (factor, mode) = read_replication(root);
    let rpc_bind_addr =
        root.require("rpc_bind_addr", reader::socket_addr, "the address nodes listen on for each other, such as \"[::]:3901\"");
    let complete = metadata_dir.is_some() && factor.is_some() && rpc_bind_addr.is_some();
    // Placeholders let the rest of the file be checked too; a configuration with one of them is never given out.
    let mut config = Config::with_defaults(
        metadata_dir.unwrap_or_else(|| PathBuf::from("unset")),
        factor.unwrap_or(1),
        rpc_bind_addr.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 3901))),
    );
    config.consistency_mode = mode;
    read_storage(root, &mut config);
    read_rpc(root, &mut config);
    if !overrides.rpc_secret.is_set() {
        check_rpc_secret(root, &config);
    }
    let tables = read_tables(root, &mut config);
    let top_level = root.known_keys();
    root.finish(&BTreeSet::new());
    for table in tables {
        table.finish(&top_level);
    }
    complete.then_some(config)
}

fn read_replication(root: &TableReader<'_>) -> (Option<usize>, ConsistencyMode) {
    let mode = root.get("consistency_mode", consistency_mode);
    if !root.has("replication_mode") {
        let factor = root.require(
            "replication_factor",
            reader::count,
            "how many copies of each piece of data the cluster keeps, usually 3; the same on all nodes",
        );
        return (factor, mode.unwrap_or_default());
    }
    let factor = root.get("replication_factor", reader::count);
    let Some(old) = root.get("replication_mode", reader::text) else { return (factor, mode.unwrap_or_default()) };
    let Some((old_factor, old_mode)) = removed::replication_mode(&old) else {
        root.refuse(
            "replication_mode",
            format!("{old:?} is no mode; remove it and set replication_factor (1, 2, 3, …) and consistency_mode"),
        );
        return (factor, mode.unwrap_or_default());
    };
    if factor.is_some() || mode.is_some_and(|mode| mode != ConsistencyMode::Consistent) {
        root.refuse("replication_mode", "replaced by replication_factor and consistency_mode, and cannot stand beside them; remove it");
    }
    let name = format!("{old_mode:?}").to_lowercase();
    root.warn("replication_mode", format!("deprecated: write replication_factor = {old_factor} and consistency_mode = \"{name}\" instead"));
    (Some(factor.unwrap_or(old_factor)), old_mode)
}

fn consistency_mode(value: &DeValue<'_>) -> Result<ConsistencyMode, String> {
    match reader::text(value)?.as_str() {
        "consistent" => Ok(ConsistencyMode::Consistent),
        "degraded" => Ok(ConsistencyMode::Degraded),
        "dangerous" => Ok(ConsistencyMode::Dangerous),
        other => Err(format!("must be \"consistent\", \"degraded\" or \"dangerous\", not {other:?}")),
    }
}

fn read_storage(root: &TableReader<'_>, config: &mut Config) {
    config.data_dir = read_data_dirs(root);
    root.set("metadata_fsync", reader::flag, &mut config.metadata_fsync);
    root.set("data_fsync", reader::flag, &mut config.data_fsync);
    root.set("disable_scrub", reader::flag, &mut config.disable_scrub);
    root.set("use_local_tz", reader::flag, &mut config.use_local_tz);
    root.set("metadata_snapshots_dir", reader::path, &mut config.metadata_snapshots_dir);
    root.set_some("metadata_auto_snapshot_interval", snapshot_interval, &mut config.metadata_auto_snapshot_interval);
    root.get("db_engine", db_engine);
    if root.get("lmdb_map_size", reader::size).is_some() {
        root.warn("lmdb_map_size", removed::advice("lmdb_map_size").unwrap_or_default());
    }
    config.fjall_block_cache_size = root.get("fjall_block_cache_size", reader::size).filter(|size| *size != 0);
    root.set_some("metadata_min_free", reader::size, &mut config.metadata_min_free);
    root.set("block_size", block_size, &mut config.block_size);
    root.set("inline_threshold", inline_threshold, &mut config.inline_threshold);
    root.set("block_ram_buffer_max", reader::size, &mut config.block_ram_buffer_max);
    root.set("block_max_concurrent_writes_per_request", reader::count, &mut config.block_max_concurrent_writes_per_request);
    root.set("block_max_concurrent_reads", reader::count, &mut config.block_max_concurrent_reads);
    read_compression(root, config);
    if config.block_ram_buffer_max < config.block_size {
        root.refuse("block_ram_buffer_max", format!("must hold at least one block: block_size is {} bytes", config.block_size));
    }
}

fn snapshot_interval(value: &DeValue<'_>) -> Result<Duration, String> {
    let interval = reader::duration(value)?;
    if interval < SNAPSHOT_INTERVAL_MIN {
        Err("must be at least 10 minutes; remove the key for no automatic snapshots".into())
    } else {
        Ok(interval)
    }
}

fn db_engine(value: &DeValue<'_>) -> Result<(), String> {
    match reader::text(value)?.as_str() {
        "fjall" => Ok(()),
        engine @ ("lmdb" | "heed" | "sqlite" | "sqlite3" | "rusqlite" | "sled") => Err(format!(
            "this build stores metadata in fjall and cannot read a {engine} store; for a new node remove the key (or set \"fjall\"), \
             to bring data over copy the buckets with an S3 client such as rclone"
        )),
        other => Err(format!("must be \"fjall\", not {other:?}; or remove the key")),
    }
}

fn block_size(value: &DeValue<'_>) -> Result<u64, String> {
    let size = reader::size(value)?;
    let (min, max) = BLOCK_SIZE_BYTES.into_inner();
    if (min..=max).contains(&size) {
        Ok(size)
    } else {
        Err(format!("must be from {min} bytes (4 KiB) to {max} bytes (128 MiB), not {size}"))
    }
}

fn inline_threshold(value: &DeValue<'_>) -> Result<u64, String> {
    let size = reader::size(value)?;
    if size <= INLINE_THRESHOLD_MAX_BYTES {
        Ok(size)
    } else {
        Err(format!("must be at most {INLINE_THRESHOLD_MAX_BYTES} bytes (1 MiB), not {size}"))
    }
}

fn read_compression(root: &TableReader<'_>, config: &mut Config) {
    let Some(level) = root.get("compression_level", compression_level) else { return };
    config.compression_level = level.map(|level| level.clamp(*COMPRESSION_LEVELS.start(), *COMPRESSION_LEVELS.end()) as i32);
    if let (Some(asked), Some(used)) = (level, config.compression_level)
        && asked != i128::from(used)
    {
        root.warn("compression_level", format!("{asked} is beyond what zstd tells apart, {used} is used"));
    }
}

fn compression_level(value: &DeValue<'_>) -> Result<Option<i128>, String> {
    let allowed = "an integer from -99 to 22 (0: zstd's own default), or \"none\"";
    match value {
        DeValue::String(text) if text.eq_ignore_ascii_case("none") => Ok(None),
        DeValue::Integer(_) => {
            let level = reader::integer(value)?;
            if i32::try_from(level).is_ok() { Ok(Some(level)) } else { Err(format!("must be {allowed}, not {level}")) }
        }
        DeValue::String(text) => Err(format!("must be {allowed}, not {text:?}")),
        _ => Err(format!("must be {allowed}")),
    }
}

fn read_data_dirs(root: &TableReader<'_>) -> Vec<DataDir> {
    if let Some(entries) = root.tables("data_dir") {
        let dirs: Vec<DataDir> = entries.iter().filter_map(read_data_dir).collect();
        if !dirs.iter().any(|dir| matches!(dir.usage, DataDirUse::Share { .. })) && dirs.len() == entries.len() {
            root.refuse("data_dir", "invalid data_dir config: at least one entry must be writable, with a capacity and without read_only");
        }
        return dirs;
    }
    let path = root.require("data_dir", data_dir_path, "the directory of block files, or an array of tables with path and capacity");
    path.map(|path| DataDir { path, usage: DataDirUse::Only }).into_iter().collect()
}

fn data_dir_path(value: &DeValue<'_>) -> Result<PathBuf, String> {
    reader::path(value).map_err(|_| "must be a path, or an array of tables { path = \"…\", capacity = \"1T\" }".into())
}

fn read_data_dir(entry: &TableReader<'_>) -> Option<DataDir> {
    let path = entry.require("path", reader::path, "one data directory");
    let capacity = entry.get("capacity", reader::size_text);
    let read_only = entry.get("read_only", reader::flag).unwrap_or(false);
    entry.finish(&BTreeSet::new());
    let usage = match (capacity, read_only) {
        (Some(0), false) => Err("invalid data_dir config: a capacity of 0; use read_only = true for a directory that is only drained"),
        (Some(capacity_bytes), false) => Ok(DataDirUse::Share { capacity_bytes }),
        (None, true) if !entry.has("capacity") => Ok(DataDirUse::ReadOnly),
        (Some(_), true) | (None, true) => Err("invalid data_dir config: an entry has either a capacity or read_only = true, not both"),
        (None, false) if entry.has("capacity") => return None,
        (None, false) => Err("invalid data_dir config: an entry needs a capacity such as \"1T\", or read_only = true"),
    };
    match usage {
        Ok(usage) => path.map(|path| DataDir { path, usage }),
        Err(message) => {
            entry.refuse("capacity", message);
            None
        }
    }
}

fn read_rpc(root: &TableReader<'_>, config: &mut Config) {
    config.rpc_secret = secret_source(root, "rpc_secret");
    for (line, text) in root.lines_of_texts("rpc_secrets_previous") {
        match RpcSecret::parse(&text) {
            Ok(secret) => config.rpc_secrets_previous.push(secret),
            Err(_) => root.refuse_at(line, "rpc_secrets_previous", "each entry must have 64 hex digits (32 bytes)"),
        }
    }
    root.set("rpc_bind_outgoing", reader::flag, &mut config.rpc_bind_outgoing);
    root.set_some("rpc_public_addr", reader::host_addr, &mut config.rpc_public_addr);
    if let Some((subnet, truncated)) = root.get("rpc_public_addr_subnet", subnet) {
        if truncated {
            root.warn("rpc_public_addr_subnet", format!("has bits set behind its prefix; {subnet} is used"));
        }
        config.rpc_public_addr_subnet = Some(subnet);
    }
    root.set("rpc_ping_timeout_msec", reader::milliseconds, &mut config.rpc_ping_timeout);
    root.set("rpc_timeout_msec", reader::milliseconds, &mut config.rpc_timeout);
    root.set("rpc_buffer_max", reader::size, &mut config.rpc_buffer_max);
    for (line, text) in root.lines_of_texts("bootstrap_peers") {
        match values::parse_peer(&text) {
            Ok(peer) => config.bootstrap_peers.push(peer),
            Err(error) => root.warn_at(line, "bootstrap_peers", format!("entry skipped: {error}")),
        }
    }
    root.set("allow_world_readable_secrets", reader::flag, &mut config.allow_world_readable_secrets);
    root.set("allow_punycode", reader::flag, &mut config.allow_punycode);
    root.set("lifecycle_interval_msec", reader::milliseconds, &mut config.lifecycle_interval);
    root.set("max_connections", reader::count, &mut config.max_connections);
}

fn check_rpc_secret(root: &TableReader<'_>, config: &Config) {
    if let Some(Err(error)) = config.rpc_secret.value.as_deref().map(RpcSecret::parse) {
        root.refuse("rpc_secret", error.to_string().trim_start_matches("rpc_secret ").to_owned());
    }
}

fn subnets(value: &DeValue<'_>) -> Result<Vec<values::Subnet>, String> {
    let DeValue::Array(items) = value else { return Err("must be a list of subnets, such as [\"10.0.0.0/8\"]".into()) };
    items.iter().map(|item| subnet(item.get_ref()).map(|(subnet, _)| subnet)).collect()
}

fn subnet(value: &DeValue<'_>) -> Result<(values::Subnet, bool), String> {
    values::parse_subnet(&reader::text(value)?).map_err(|error| error.0)
}

/// A secret and its `_file` twin; both at once are refused when secrets are settled.
fn secret_source(table: &TableReader<'_>, key: &str) -> SecretSource {
    SecretSource { value: table.get(key, reader::text), file: table.get(&format!("{key}_file"), reader::path) }
}

/// Reads all tables and returns them, so that unknown keys in them can be named once the top level is known.
fn read_tables<'a>(root: &TableReader<'a>, config: &mut Config) -> Vec<TableReader<'a>> {
    let mut tables = Vec::new();
    match root.table("s3_api") {
        Some(table) => {
            read_s3_api(&table, &mut config.s3_api);
            tables.push(table);
        }
        None if root.has("s3_api") => {}
        None => root.refuse("s3_api", "missing; the table [s3_api] with s3_region is required, also on a node that does not serve S3"),
    }
    if let Some(table) = root.table("k2v_api") {
        config.k2v_api = read_k2v_api(&table);
        tables.push(table);
    }
    if let Some(table) = root.table("s3_web") {
        config.s3_web = read_s3_web(&table, root.has("acme"));
        tables.push(table);
    }
    if let Some(table) = root.table("acme") {
        config.acme = Some(read_acme(&table));
        if config.s3_web.as_ref().is_none_or(|web| web.tls.is_none()) {
            root.refuse("acme", "certificates are for websites: set tls_bind_addr in [s3_web], such as \"[::]:443\"");
        }
        tables.push(table);
    }
    if let Some(table) = root.table("admin") {
        read_admin(&table, &mut config.admin);
        tables.push(table);
    }
    if let Some(table) = root.table("consul_discovery") {
        config.consul_discovery = read_consul(&table);
        tables.push(table);
    }
    if let Some(table) = root.table("kubernetes_discovery") {
        config.kubernetes_discovery = read_kubernetes(&table);
        tables.push(table);
    }
    tables
}

fn read_s3_api(table: &TableReader<'_>, s3_api: &mut S3Api) {
    table.set_some("api_bind_addr", reader::listen, &mut s3_api.api_bind_addr);
    if let Some(region) = table.require("s3_region", reader::filled_text, "the region in signatures, usually \"garage\"") {
        s3_api.s3_region = region;
    }
    table.set_some("root_domain", reader::domain, &mut s3_api.root_domain);
    table.set_some("public_endpoint", reader::url, &mut s3_api.public_endpoint);
    s3_api.tls = read_tls(table, false);
    table.set("trusted_proxies", subnets, &mut s3_api.trusted_proxies);
    s3_api.public_endpoint_path_style = s3_api.root_domain.is_none();
    table.set("public_endpoint_path_style", reader::flag, &mut s3_api.public_endpoint_path_style);
    if s3_api.public_endpoint_path_style {
        return;
    }
    match (&s3_api.root_domain, &s3_api.public_endpoint) {
        (None, _) => {
            table.refuse("public_endpoint_path_style", "cannot be false without root_domain, since bucket names then have no host names")
        }
        (Some(domain), Some(endpoint)) if host_of(endpoint) != domain && table.has("public_endpoint_path_style") => {
            table.warn("public_endpoint_path_style", format!("false, but the host of public_endpoint is not root_domain ({domain})"));
        }
        _ => {}
    }
}

/// The host of a URL that [`reader::url`] accepted, without port.
fn host_of(url: &str) -> &str {
    let authority = url.split("://").nth(1).unwrap_or(url).split('/').next().unwrap_or("");
    let host = authority.rsplit('@').next().unwrap_or(authority);
    host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit())).map_or(host, |(host, _)| host)
}

fn read_k2v_api(table: &TableReader<'_>) -> Option<K2vApi> {
    let api_bind_addr = table.require("api_bind_addr", reader::listen, "where K2V is served, such as \"[::]:3904\"");
    let public_endpoint = table.get("public_endpoint", reader::url);
    Some(K2vApi { api_bind_addr: api_bind_addr?, public_endpoint })
}

fn read_s3_web(table: &TableReader<'_>, has_acme: bool) -> Option<S3Web> {
    let bind_addr = table.require("bind_addr", reader::listen, "where websites are served, such as \"[::]:3902\"");
    let root_domain = table.get("root_domain", reader::domain);
    let add_host_to_metrics = table.get("add_host_to_metrics", reader::flag).unwrap_or(false);
    let tls = read_tls(table, has_acme);
    Some(S3Web { bind_addr: bind_addr?, root_domain, add_host_to_metrics, tls })
}

/// The keys `tls_*` of a table. `has_acme`: certificates may come from elsewhere than from files.
fn read_tls(table: &TableReader<'_>, has_acme: bool) -> Option<Tls> {
    let bind_addr = table.get("tls_bind_addr", reader::listen);
    let (certificate, key) = (table.get("tls_cert_file", reader::path), table.get("tls_key_file", reader::path));
    let redirect = table.get("tls_redirect", reader::flag).unwrap_or(false);
    let alone = |one: &str, other: &str| table.has(one) && !table.has(other);
    for (one, other) in [("tls_cert_file", "tls_key_file"), ("tls_key_file", "tls_cert_file")] {
        if alone(one, other) {
            table.refuse(one, "tls_cert_file and tls_key_file belong together: set both or neither");
        }
    }
    for key in ["tls_cert_file", "tls_redirect"] {
        if alone(key, "tls_bind_addr") {
            table.refuse(key, "has no effect without tls_bind_addr, the address that is served with TLS, such as \"[::]:443\"");
        }
    }
    let files = certificate.zip(key);
    if table.has("tls_bind_addr") && !table.has("tls_cert_file") && !table.has("tls_key_file") && !has_acme {
        table.refuse("tls_bind_addr", "needs a certificate: set tls_cert_file and tls_key_file, or for websites the table [acme]");
    }
    let bind_addr = bind_addr?;
    let redirect_port = match (redirect, &bind_addr) {
        (false, _) => None,
        (true, Listen::Tcp(address)) => Some(address.port()),
        (true, Listen::Unix(_)) => {
            table.refuse("tls_redirect", "needs a tls_bind_addr with a port: clients can't be led to a Unix socket");
            None
        }
    };
    Some(Tls { bind_addr, files, redirect_port })
}

/// The directory of Let's Encrypt.
const ACME_DIRECTORY_DEFAULT: &str = "https://acme-v02.api.letsencrypt.org/directory";

fn read_acme(table: &TableReader<'_>) -> Acme {
    let directory_url = table.get("directory_url", reader::url).unwrap_or_else(|| ACME_DIRECTORY_DEFAULT.to_owned());
    let mut contact = Vec::new();
    for (line, text) in table.lines_of_texts("contact") {
        let address = text.strip_prefix("mailto:").unwrap_or(&text);
        match address.split_once('@') {
            Some((name, domain)) if !name.is_empty() && !domain.is_empty() => contact.push(address.to_owned()),
            _ => table.refuse_at(line, "contact", format!("{text:?} is no mail address")),
        }
    }
    let challenge = table.get("challenge", acme_challenge);
    let ca_file = table.get("ca_file", reader::path);
    let meaning = "set it to true once you have read the terms of the authority at directory_url";
    let accepted = table.require("accept_terms_of_service", reader::flag, meaning);
    if accepted == Some(false) {
        table.refuse("accept_terms_of_service", format!("no authority issues certificates without it: {meaning}, or remove the table"));
    }
    Acme { directory_url, contact, challenge, ca_file }
}

fn acme_challenge(value: &DeValue<'_>) -> Result<AcmeChallenge, String> {
    match reader::text(value)?.as_str() {
        "http-01" => Ok(AcmeChallenge::Http01),
        "tls-alpn-01" => Ok(AcmeChallenge::TlsAlpn01),
        other => Err(format!("must be \"http-01\" or \"tls-alpn-01\", not {other:?}; or remove the key, then both are tried")),
    }
}

fn read_admin(table: &TableReader<'_>, admin: &mut Admin) {
    table.set_some("api_bind_addr", reader::listen, &mut admin.api_bind_addr);
    admin.admin_token = secret_source(table, "admin_token");
    admin.metrics_token = secret_source(table, "metrics_token");
    table.set("metrics_require_token", reader::flag, &mut admin.metrics_require_token);
    table.set_some("trace_sink", reader::url, &mut admin.trace_sink);
    admin.tls = read_tls(table, false);
}

fn read_consul(table: &TableReader<'_>) -> Option<ConsulDiscovery> {
    let consul_http_addr = table.require("consul_http_addr", reader::url, "the base URL of Consul, such as \"http://127.0.0.1:8500\"");
    let service_name = table.require("service_name", reader::filled_text, "the service under which nodes register");
    let texts = |key| table.lines_of_texts(key).into_iter().map(|(_, text)| text).collect();
    let identity = (table.get("client_cert", reader::path), table.get("client_key", reader::path));
    let discovery = ConsulDiscovery {
        api: table.get("api", consul_api).unwrap_or_default(),
        consul_http_addr: consul_http_addr.unwrap_or_default(),
        service_name: service_name.unwrap_or_default(),
        ca_cert: table.get("ca_cert", reader::path),
        client_identity: match identity {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                table.refuse("client_cert", "client_cert and client_key belong together: set both or neither");
                None
            }
        },
        token: table.get("token", reader::text),
        tls_skip_verify: table.get("tls_skip_verify", reader::flag).unwrap_or(false),
        tags: texts("tags"),
        meta: table.get("meta", reader::text_table).unwrap_or_default(),
        datacenters: texts("datacenters"),
    };
    Some(discovery)
}

fn consul_api(value: &DeValue<'_>) -> Result<ConsulApi, String> {
    match reader::text(value)?.as_str() {
        "catalog" => Ok(ConsulApi::Catalog),
        "agent" => Ok(ConsulApi::Agent),
        other => Err(format!("must be \"catalog\" or \"agent\", not {other:?}")),
    }
}

fn read_kubernetes(table: &TableReader<'_>) -> Option<KubernetesDiscovery> {
    let namespace = table.require("namespace", reader::filled_text, "the namespace of the GarageNode resources");
    let service_name = table.require("service_name", reader::filled_text, "the label value that selects this cluster");
    let skip_crd = table.get("skip_crd", reader::flag).unwrap_or(false);
    Some(KubernetesDiscovery { namespace: namespace?, service_name: service_name?, skip_crd })
}
