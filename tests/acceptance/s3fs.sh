# s3fs: a bucket as a folder; write, read, rename, truncate, remove; what another node sees of it.
source "$(dirname "$0")/lib.sh"

bucket=acceptance-s3fs
mount=$WORK/mount
printf '%s:%s' "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY" >"$WORK/passwd"
chmod 600 "$WORK/passwd"
mkdir "$mount"
export RCLONE_CONFIG_GARAGE_TYPE=s3 RCLONE_CONFIG_GARAGE_PROVIDER=Other RCLONE_CONFIG_GARAGE_ENV_AUTH=true RCLONE_CONFIG_GARAGE_REGION=garage
export RCLONE_CONFIG_GARAGE_ENDPOINT="${ENDPOINTS##* }"
end() { fusermount -u "$mount" 2>/dev/null; }
trap end EXIT

# A file is several requests to s3fs, so a few must do.
SIZES=(0 1024 16385 1048576 11000000)
for size in "${SIZES[@]}"; do make_data "$size" "tree/size/$size"; done
for number in $(seq 6); do make_data "$((number * 100))" "tree/many/dir$((number % 3))/file $number"; done

check "make a bucket" rclone mkdir "garage:$bucket"
check "mount it" s3fs "$bucket" "$mount" -o "passwd_file=$WORK/passwd" -o "url=$ENDPOINT" -o use_path_request_style -o endpoint=garage -o sigv4
check "copy a tree in" cp -r tree "$mount/"
check "it is there as it was" diff -r tree "$mount/tree"
check "another node sees it" rclone check --download --exclude '.*' tree "garage:$bucket/tree"
check "rename a file" mv "$mount/tree/size/16385" "$mount/tree/size/renamed"
check_same "it is the same under its new name" tree/size/16385 "$mount/tree/size/renamed"
check "append to a file" bash -c "echo more >>'$mount/tree/size/1024'"
check_prints "it has grown" 1029 stat -c %s "$mount/tree/size/1024"
check "change the middle of a large file" dd if=tree/size/1048576 "of=$mount/tree/size/11000000" bs=1000 seek=7000 count=10 conv=notrunc
dd if=tree/size/1048576 of=tree/size/11000000 bs=1000 seek=7000 count=10 conv=notrunc 2>/dev/null
check_same "only that has changed" tree/size/11000000 "$mount/tree/size/11000000"
check "remove a folder" rm -r "$mount/tree/many"
check_fails "it is gone" "No such file" ls "$mount/tree/many"
check "unmount" end
# Not by rclone, which leaves the objects that stand for folders.
check "clean up" "$CLIENTS/venv/bin/aws" --endpoint-url "$ENDPOINT" s3 rb --force "s3://$bucket"
