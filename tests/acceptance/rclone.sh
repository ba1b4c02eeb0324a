# rclone: sync there and back, check by hash and by download, server-side copy and move, old versions, purge.
source "$(dirname "$0")/lib.sh"

bucket=acceptance-rclone
export RCLONE_CONFIG=$WORK/rclone.conf
cat >"$RCLONE_CONFIG" <<CONFIG
[garage]
type = s3
provider = Other
env_auth = true
endpoint = $ENDPOINT
region = garage
force_path_style = true
CONFIG
rc() { rclone --retries 1 --low-level-retries 1 "$@"; }
rc_to() { rc "${@:2}" >"$1"; }
copied_count() { rc sync -v "$@" 2>&1 | grep -c Copied || true; }
object_count() { rc size --json "$1" | sed 's/.*"count":\([0-9]*\).*/\1/'; }
# What the old versions hold.
versions() { rc lsf --s3-versions "garage:$kept" | while read -r name; do rc cat --s3-versions "garage:$kept/$name"; done | sort; }
modified() { rc lsl "$1" | awk '{ print $2, substr($3, 1, 8) }'; }

for size in "${SIZES[@]}"; do make_data "$size" "tree/size/$size"; done
for number in $(seq 30); do make_data "$((number * 100))" "tree/many/dir$((number % 3))/file $number"; done

check "make a bucket" rc mkdir "garage:$bucket"
check "make it again" rc mkdir "garage:$bucket"
check "the bucket is listed" grep -q "$bucket" <(rc lsd garage:)
check "sync up" rc sync tree "garage:$bucket/tree"
check "check by hash" rc check tree "garage:$bucket/tree"
check "check by download" rc check --download tree "garage:$bucket/tree"
check_prints "a second sync has nothing to do" 0 copied_count tree "garage:$bucket/tree"
check "upload in parts" rc copyto --s3-upload-cutoff 5M --s3-chunk-size 5M tree/size/20971520 "garage:$bucket/parts"
check "download the parts" rc copyto "garage:$bucket/parts" parts
check_same "the parts are equal" tree/size/20971520 parts
check "sync down" rc sync "garage:$bucket/tree" down
check "the tree came back as it was" diff -r tree down
check_prints "count and size" "$(find tree -type f | wc -l)" object_count "garage:$bucket/tree"
check "copy on the server" rc copyto "garage:$bucket/tree/size/1048576" "garage:$bucket/copied"
check "read it" rc_to copied cat "garage:$bucket/copied"
check_same "what was read is equal" tree/size/1048576 copied
check "read part of it" rc_to part cat --offset 1000 --count 50 "garage:$bucket/copied"
tail -c +1001 tree/size/1048576 | head -c 50 >expected
check_same "the part is equal" expected part
touch -d '2001-02-03 04:05:06' tree/size/1024
check "a new time is set by a copy onto itself" rc sync tree "garage:$bucket/tree"
check_prints "the time came through" "2001-02-03 04:05:06" modified "garage:$bucket/tree/size/1024"
rm -r tree/many/dir1
check "sync removes what is gone" rc sync tree "garage:$bucket/tree"
check "check after removal" rc check tree "garage:$bucket/tree"
check "move on the server" rc moveto "garage:$bucket/copied" "garage:$bucket/moved"
check_prints "it is under its new name" moved rc lsf --files-only "garage:$bucket" --include "*ed"
kept=$bucket-versions
check "make another bucket" rc mkdir "garage:$kept"
check_prints "it keeps versions" Enabled rc backend versioning "garage:$kept" Enabled
for number in 1 2; do
    echo "$number" >"version$number"
    check "write version $number" rc copyto "version$number" "garage:$kept/file"
done
check "delete the file" rc deletefile "garage:$kept/file"
check_prints "it is gone" "" rc lsf "garage:$kept"
check_prints "both versions are there" $'1\n2' versions
check "remove old versions" rc backend cleanup-hidden "garage:$kept"
check_prints "none is left" "" versions
check "remove that bucket" rc rmdir "garage:$kept"

check_fails "a bucket that is not there" "not found" rc lsf garage:acceptance-absent
check_fails "a wrong secret" "403|SignatureDoesNotMatch|Forbidden" env AWS_SECRET_ACCESS_KEY=wrong rclone --retries 1 --low-level-retries 1 lsf "garage:$bucket"
check "purge" rc purge "garage:$bucket"
check_fails "the bucket is gone" "not found" rc lsf "garage:$bucket"
