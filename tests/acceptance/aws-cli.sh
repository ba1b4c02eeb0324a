# aws-cli: the high-level copies and the single calls, each way of asking for part of an object, and every kind of refusal.
source "$(dirname "$0")/lib.sh"

# Version 2 has a flow of its own, which comes back here.
AWS_CLI=${AWS_CLI:-$CLIENTS/venv/bin/aws}
bucket=${bucket:-acceptance-aws}
aws() { "$AWS_CLI" --endpoint-url "$ENDPOINT" "$@"; }
api() { aws s3api "$@" --output text; }
lines_of() { api "$@" | tr '\t' '\n' | sort; }
line_count() { lines_of "$@" | grep -c .; }
part_count() { api head-object --bucket "$bucket" --key "$1" --query ETag | tr -d '"' | cut -d- -f2; }

check "make a bucket" aws s3 mb "s3://$bucket"
check "the bucket is listed" grep -q "$bucket" <(aws s3 ls)
check "head of the bucket" api head-bucket --bucket "$bucket"

for size in "${SIZES[@]}"; do
    make_data "$size" "up/$size"
    check "put $size bytes" aws s3 cp --no-progress "up/$size" "s3://$bucket/size/$size"
    check_prints "head of $size bytes" "$size" api head-object --bucket "$bucket" --key "size/$size" --query ContentLength
    check "get $size bytes" aws s3 cp --no-progress "s3://$bucket/size/$size" "down/$size"
    check_same "$size bytes come back as they were" "up/$size" "down/$size"
done
check_prints "20 MiB went up in 3 parts" 3 part_count size/20971520

range() { # RANGE FIRST COUNT
    tail -c "+$(($2 + 1))" up/20971520 | head -c "$3" >expected
    rm -f part
    check "get range $1" api get-object --bucket "$bucket" --key size/20971520 --range "$1" part
    check_same "range $1 holds those bytes" expected part
}
range bytes=100-199 100 100
range bytes=-10 $((20971520 - 10)) 10
range bytes=20971500- 20971500 20
range bytes=8388600-8388620 8388600 21
range bytes=1048570-3145740 1048570 2097171
check_fails "a range past the end" "InvalidRange" api get-object --bucket "$bucket" --key size/1024 --range bytes=1024- part

check "put with metadata" api put-object --bucket "$bucket" --key meta --body up/1024 --metadata colour=blue,owner=me \
    --content-type text/x-test --cache-control max-age=60 --content-disposition 'attachment; filename="a b"'
check_prints "metadata come back" $'text/x-test\tmax-age=60\tattachment; filename="a b"\tblue\tme' api head-object --bucket "$bucket" --key meta \
    --query '[ContentType,CacheControl,ContentDisposition,Metadata.colour,Metadata.owner]'
etag=$(api head-object --bucket "$bucket" --key meta --query ETag)
check_fails "get if none match: not modified" "304|Not Modified" api get-object --bucket "$bucket" --key meta --if-none-match "$etag" part
check_fails "get if match another: precondition failed" "412|PreconditionFailed" api get-object --bucket "$bucket" --key meta --if-match '"0"' part

mkdir -p tree
for name in a/1 a/2 a/b/3 b/4 c d "with space/ü+&" ; do
    mkdir -p "tree/$(dirname "$name")"
    printf '%s' "$name" >"tree/$name"
done
check "put a tree" aws s3 cp --no-progress --recursive tree "s3://$bucket/tree/"
check_prints "list by prefix" $'tree/a/1\ntree/a/2\ntree/a/b/3' lines_of list-objects-v2 --bucket "$bucket" --prefix tree/a/ --query 'Contents[].Key'
check_prints "list with a delimiter: keys" $'tree/c\ttree/d' api list-objects-v2 --bucket "$bucket" --prefix tree/ --delimiter / --query 'Contents[].Key'
check_prints "list with a delimiter: prefixes" $'tree/a/\ttree/b/\ttree/with space/' api list-objects-v2 --bucket "$bucket" --prefix tree/ --delimiter / --query 'CommonPrefixes[].Prefix'
check_prints "list in pages of 2" 7 line_count list-objects-v2 --bucket "$bucket" --prefix tree/ --page-size 2 --query 'Contents[].[Key]'
check_prints "list, version 1, in pages of 3" 7 line_count list-objects --bucket "$bucket" --prefix tree/ --page-size 3 --query 'Contents[].[Key]'
check "get a tree" aws s3 cp --no-progress --recursive "s3://$bucket/tree/" tree-down
check "the tree came back as it was" diff -r tree tree-down

check "copy" aws s3 cp --no-progress "s3://$bucket/size/1048576" "s3://$bucket/copy/one"
check "copy in parts" aws s3 cp --no-progress "s3://$bucket/size/20971520" "s3://$bucket/copy/parts"
check "get the copies" aws s3 cp --no-progress --recursive "s3://$bucket/copy/" copies
check_same "the copy is equal" up/1048576 copies/one
check_same "the copy in parts is equal" up/20971520 copies/parts
check "move" aws s3 mv --no-progress "s3://$bucket/copy/one" "s3://$bucket/copy/two"
check_fails "what was moved is gone" "404|NoSuchKey" api head-object --bucket "$bucket" --key copy/one

url=$(aws s3 presign "s3://$bucket/size/16385")
check "presigned GET" curl -fsS -o presigned "$url"
check_same "presigned GET gives the bytes" up/16385 presigned
check_fails "a presigned URL for another key" 403 curl -fsS -o presigned "${url/16385/1024}"

check_fails "NoSuchKey" NoSuchKey api get-object --bucket "$bucket" --key absent part
check_fails "NoSuchBucket" NoSuchBucket aws s3 ls s3://acceptance-absent
check_fails "a wrong secret" SignatureDoesNotMatch env AWS_SECRET_ACCESS_KEY=wrong "$AWS_CLI" --endpoint-url "$ENDPOINT" s3 ls "s3://$bucket"
check_fails "an unknown key" "InvalidAccessKeyId|AccessDenied" env AWS_ACCESS_KEY_ID=GKunknown "$AWS_CLI" --endpoint-url "$ENDPOINT" s3 ls "s3://$bucket"
check_fails "removing a bucket with objects" BucketNotEmpty aws s3 rb "s3://$bucket"

kept=$bucket-versions
check "make another bucket" aws s3 mb "s3://$kept"
check "it keeps versions" api put-bucket-versioning --bucket "$kept" --versioning-configuration Status=Enabled
for number in 1 2; do
    echo "$number" >"version$number"
    check "write version $number" aws s3 cp --no-progress "version$number" "s3://$kept/file"
done
check "remove the file" aws s3 rm "s3://$kept/file"
check_fails "it is gone" "404|NoSuchKey" api head-object --bucket "$kept" --key file
check_prints "two versions and a marker are there" $'2\t1' api list-object-versions --bucket "$kept" --query '[length(Versions), length(DeleteMarkers)]'
check "get the first" api get-object --bucket "$kept" --key file old --version-id "$(api list-object-versions --bucket "$kept" --query 'Versions[1].VersionId')"
check_same "it is the first" version1 old
check "remove the marker" api delete-object --bucket "$kept" --key file --version-id "$(api list-object-versions --bucket "$kept" --query 'DeleteMarkers[0].VersionId')"
check "get the file again" aws s3 cp --no-progress "s3://$kept/file" newest
check_same "it is the second" version2 newest
check "delete both versions" api delete-objects --bucket "$kept" \
    --delete "$(aws s3api list-object-versions --bucket "$kept" --output json --query '{Objects: Versions[].{Key: Key, VersionId: VersionId}}')"
check "remove that bucket" aws s3 rb "s3://$kept"

check "delete an object" api delete-object --bucket "$bucket" --key meta
check "delete it again" api delete-object --bucket "$bucket" --key meta
check_prints "delete several" $'tree/c\ntree/d' lines_of delete-objects --bucket "$bucket" --delete 'Objects=[{Key=tree/c},{Key=tree/d}]' --query 'Deleted[].[Key]'
check "delete the rest" aws s3 rm --recursive "s3://$bucket"
check_prints "nothing is left" None api list-objects-v2 --bucket "$bucket" --query 'Contents[].Key'
check "remove the bucket" aws s3 rb "s3://$bucket"
check_fails "the bucket is gone" "404" api head-bucket --bucket "$bucket"
