# script/dev-cluster as a developer uses it: more nodes than zones, a delay between them, a node that is lost and comes back, the end.
source "$(dirname "$0")/lib.sh"

DELAY_MS=40
NODE_COUNT=4
directory=$WORK/cluster
loader=$(dirname "$UDP_PROXY_BIN")/s3-load
# Everything is the new cluster's, nothing the one that the other flows use.
unset DEV_CLUSTER_DIR GARAGE_ENDPOINTS GARAGE_CONFIG_FILE
cluster() { "$DEV_CLUSTER" "$@" --dir "$directory"; }
cli() { DEV_CLUSTER_DIR=$directory "$DEV_CLUSTER" cli "$@"; }
recorded() { cat "$directory"/node*/*.process | cut -d' ' -f1; }
sees_all() { [[ $(cli "$1" status | sed -n '/HEALTHY NODES/,/^$/p' | grep -cE '^[0-9a-f]{16} ') == "$NODE_COUNT" ]]; }
# await COMMAND...: until it succeeds, for a minute.
await() {
    local deadline=$((SECONDS + 60))
    until "$@"; do ((SECONDS < deadline)) || return 1; sleep 0.2; done
}
# A zombie has ended; only its parent has not looked yet.
nobody_runs() { ! { for pid in $pids; do sed 's/^.*) //' "/proc/$pid/stat" 2>/dev/null | cut -d' ' -f1; done; } | grep -qv Z; }

check "$NODE_COUNT nodes with $DELAY_MS ms between them come up" \
    cluster "$NODE_COUNT" --delay "$DELAY_MS" --no-build --base-port "$((BASE_PORT + 100))"
trap 'cluster stop' EXIT
source "$directory/env"
read -ra nodes <<<"$GARAGE_ENDPOINTS"
check_prints "the env file names all nodes" "$NODE_COUNT" echo "${#nodes[@]}"
check_prints "three zones" 3 bash -c "'$GARAGE_BIN' layout show | grep -oE 'zone[1-3]' | sort -u | wc -l"

make_data 100000 "$WORK/data"
check "a write through the first node" "$CLIENTS/venv/bin/aws" s3 cp "$WORK/data" s3://dev/data
check "a read through the last" "$CLIENTS/venv/bin/aws" --endpoint-url "${nodes[-1]}" s3 cp s3://dev/data "$WORK/found"
check_same "the same bytes" "$WORK/data" "$WORK/found"

report=$("$loader" put --endpoint "${nodes[0]}" --bucket dev --size 1000 --count 5 --concurrency 1 --prefix load/ 2>"$WORK/last")
check_prints "no small write is quicker than the delay" slow \
    awk -v "p50=$(grep -oE '"p50_ms": ?[0-9.]+' <<<"$report" | grep -oE '[0-9.]+$')" -v "delay=$DELAY_MS" 'BEGIN { print delay <= p50 ? "slow" : "quick: " p50 }'

check "kill the last node" cluster kill "$NODE_COUNT"
check "a read without it" "$CLIENTS/venv/bin/aws" s3 cp s3://dev/data "$WORK/found"
check "start it again" cluster start "$NODE_COUNT"
check "it finds the others again" await sees_all "$NODE_COUNT"

pids=$(recorded)
check "stop" cluster stop
check "no process is left" nobody_runs
