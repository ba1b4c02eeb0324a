# rclone mount: a bucket as a folder; write, read, rename, remove; what another node sees of it.
source "$(dirname "$0")/lib.sh"

bucket=acceptance-rclone-mount
mount=$WORK/mount
mkdir "$mount"
export RCLONE_CONFIG_GARAGE_TYPE=s3 RCLONE_CONFIG_GARAGE_PROVIDER=Other RCLONE_CONFIG_GARAGE_ENV_AUTH=true RCLONE_CONFIG_GARAGE_REGION=garage
export RCLONE_CONFIG_GARAGE_ENDPOINT=$ENDPOINT
other() { RCLONE_CONFIG_GARAGE_ENDPOINT=${ENDPOINTS##* } rclone "$@"; }
mounted() { mountpoint -q "$mount"; }
written() { other check --download tree "garage:$bucket/tree"; }
# await COMMAND...: until it succeeds, for a minute.
await() {
    local deadline=$((SECONDS + 60))
    until "$@"; do ((SECONDS < deadline)) || return 1; sleep 0.2; done
}
trap 'fusermount -u "$mount" 2>/dev/null' EXIT

for size in "${SIZES[@]}"; do make_data "$size" "tree/size/$size"; done
for number in $(seq 6); do make_data "$((number * 100))" "tree/many/dir$((number % 3))/file $number"; done

check "make a bucket" rclone mkdir "garage:$bucket"
# What is written goes up when a file is closed, and is asked for anew each second.
rclone mount "garage:$bucket" "$mount" --vfs-cache-mode writes --vfs-write-back 0s --dir-cache-time 1s --cache-dir "$WORK/cache" >"$WORK/mount.log" 2>&1 &
program=$!
check "mount it" await mounted
check "copy a tree in" cp -r tree "$mount/"
check "it is there as it was" diff -r tree "$mount/tree"
check "another node sees it" await written
check "rename a file" mv "$mount/tree/size/16385" "$mount/tree/size/renamed"
mv tree/size/16385 tree/size/renamed
check "another node sees its new name" await written
check "append to a file" bash -c "echo more >>'$mount/tree/size/1024'"
echo more >>tree/size/1024
check "another node sees what was added" await written
check "read in the middle of a large file" dd "if=$mount/tree/size/20971520" of=part bs=1000 skip=15000 count=10
dd if=tree/size/20971520 of=expected bs=1000 skip=15000 count=10 2>/dev/null
check_same "it is that part" expected part
# With its last file a folder goes by itself, maybe before it is asked to.
check "remove a folder" rm -rf "$mount/tree/many"
rm -r tree/many
check "another node sees it gone" await written
printf 'from the other node' >new
check "another node writes" other copy new "garage:$bucket/tree/"
check "it appears in the folder" await cmp -s new "$mount/tree/new"
check "unmount" fusermount -u "$mount"
check "the program ends with it" wait "$program"
check "clean up" "$CLIENTS/venv/bin/aws" --endpoint-url "$ENDPOINT" s3 rb --force "s3://$bucket"
