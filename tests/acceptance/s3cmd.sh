# s3cmd: put, get, sync, info, copy, multipart, del.
source "$(dirname "$0")/lib.sh"

bucket=acceptance-s3cmd
cat >s3cfg <<CONFIG
[default]
access_key = $AWS_ACCESS_KEY_ID
secret_key = $AWS_SECRET_ACCESS_KEY
host_base = ${ENDPOINT#http://}
host_bucket = ${ENDPOINT#http://}
bucket_location = garage
use_https = False
signature_v2 = False
multipart_chunk_size_mb = 5
max_retries = 1
CONFIG
s3() { s3cmd -c "$WORK/s3cfg" --no-progress "$@"; }
# matches PATTERN ARGUMENTS...: how many lines of what s3cmd prints match.
matches() { s3 "${@:2}" | grep -c -e "$1" || true; }
disk_usage_count() { s3 du "$1" | awk '{ print $2 }'; }

for size in "${SIZES[@]}"; do make_data "$size" "up/$size"; done
mkdir -p down

check "make a bucket" s3 mb "s3://$bucket"
check "the bucket is listed" grep -q "$bucket" <(s3 ls)
for size in "${SIZES[@]}"; do
    check "put $size bytes" s3 put "up/$size" "s3://$bucket/size/$size"
    check "get $size bytes" s3 get --force "s3://$bucket/size/$size" "down/$size"
    check_same "$size bytes come back as they were" "up/$size" "down/$size"
done
check "put with headers and metadata" s3 put --mime-type text/x-test --add-header 'x-amz-meta-colour: blue' up/1024 "s3://$bucket/meta"
check "info shows the type" grep -q text/x-test <(s3 info "s3://$bucket/meta")
check "info shows metadata" grep -qi "colour: *blue" <(s3 info "s3://$bucket/meta")
check "info of the bucket" s3 info "s3://$bucket"
for number in $(seq 10); do make_data "$((number * 50))" "tree/dir$((number % 2))/file$number"; done
check "sync up" s3 sync tree/ "s3://$bucket/tree/"
check_prints "a second sync has nothing to do" 0 matches upload: sync tree/ "s3://$bucket/tree/"
check "sync down" s3 sync "s3://$bucket/tree/" tree-down/
check "the tree came back as it was" diff -r tree tree-down
check_prints "list with a delimiter" 2 matches DIR ls "s3://$bucket/tree/"
check "copy" s3 cp "s3://$bucket/size/1048576" "s3://$bucket/copy"
check "get the copy" s3 get --force "s3://$bucket/copy" copy
check_same "the copy is equal" up/1048576 copy
check "move" s3 mv "s3://$bucket/copy" "s3://$bucket/moved"
check_prints "size of all" "$(find tree -type f | wc -l)" disk_usage_count "s3://$bucket/tree/"
url=$(s3 signurl "s3://$bucket/size/1024" +600 2>/dev/null)
check_fails "a signed URL of version 2, which is refused" "400|403" curl -fsS -o signed "$url"
check_fails "a key that is not there" "404|NoSuchKey|does not exist" s3 get "s3://$bucket/absent" absent
check_fails "a bucket that is not there" NoSuchBucket s3 ls s3://acceptance-absent
check_fails "a wrong secret" "403|SignatureDoesNotMatch" s3 --secret_key=wrong ls "s3://$bucket"
rm -r tree/dir0
check "sync removes what is gone" s3 sync --delete-removed tree/ "s3://$bucket/tree/"
check_prints "as many files as here" "$(find tree -type f | wc -l)" matches . ls --recursive "s3://$bucket/tree/"
check_fails "removing a bucket with objects" "BucketNotEmpty|not empty" s3 rb "s3://$bucket"
check "del" s3 del "s3://$bucket/meta"
check "del all" s3 del --recursive --force "s3://$bucket"
check "remove the bucket" s3 rb "s3://$bucket"
