//! Spellings that older releases knew and this one ignores, each with what to do.

/// What to tell the owner of a file that still holds `key` (with its table); `None`: never a key of any release.
pub(super) fn advice(key: &str) -> Option<String> {
    let advice = match key {
        "sled_cache_capacity" | "sled_flush_every_ms" => "ignored: it belonged to the sled engine; remove it",
        "lmdb_map_size" => "ignored: it belongs to the LMDB engine, this build stores metadata in fjall; remove it",
        "block_manager_background_tranquility" => "ignored: use `garage worker set resync-tranquility N` instead and remove it",
        "max_concurrent_rpc_requests" => "ignored: connections are bounded by rpc_buffer_max; remove it",
        "rpc_tls" => "ignored: nodes authenticate with their own keys and rpc_secret; remove the table",
        "consul_host" => "ignored: write consul_http_addr in the table [consul_discovery] instead",
        "consul_service_name" => "ignored: write service_name in the table [consul_discovery] instead",
        "kubernetes_namespace" => "ignored: write namespace in the table [kubernetes_discovery] instead",
        "kubernetes_service_name" => "ignored: write service_name in the table [kubernetes_discovery] instead",
        "kubernetes_skip_crd" => "ignored: write skip_crd in the table [kubernetes_discovery] instead",
        "s3_web.index" => {
            "ignored: the index document is set for each bucket, `garage bucket website --allow -i index.html BUCKET`; remove it"
        }
        _ => return None,
    };
    Some(advice.to_owned())
}

/// The replication factor and consistency mode that a `replication_mode` of 1.x stands for.
pub(super) fn replication_mode(mode: &str) -> Option<(usize, super::ConsistencyMode)> {
    use super::ConsistencyMode::{Consistent, Dangerous, Degraded};
    Some(match mode {
        "none" | "1" => (1, Consistent),
        "2" => (2, Consistent),
        "2-dangerous" => (2, Dangerous),
        "3" => (3, Consistent),
        "3-degraded" => (3, Degraded),
        "3-dangerous" => (3, Dangerous),
        _ => return None,
    })
}
