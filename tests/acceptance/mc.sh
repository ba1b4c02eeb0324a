# mc: mirror, cp, cat, pipe, stat, find, share, versions, rm.
source "$(dirname "$0")/lib.sh"

bucket=acceptance-mc
export MC_CONFIG_DIR=$WORK/mc
mc() { "$CLIENTS/bin/mc" --quiet --no-color "$@"; }
mc_to() { mc "${@:2}" >"$1"; }
mc_from() { mc "${@:2}" <"$1"; }
# field NAME ARGUMENTS...: a field of the JSON that mc prints.
field() { mc --json "${@:2}" | tr ',{' '\n\n' | sed -n "s/.*\"$1\": *\"\{0,1\}\([^\"}]*\).*/\1/p" | sed 's/\\u0026/\&/g' | tail -n 1; }
line_count() { mc "$@" | grep -c .; }

for size in "${SIZES[@]}"; do make_data "$size" "tree/size/$size"; done
for number in $(seq 12); do make_data "$((number * 100))" "tree/many/dir$((number % 3))/file$number"; done

check "set the alias" mc alias set garage "$ENDPOINT" "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY" --api S3v4 --path on
check "make a bucket" mc mb --region garage "garage/$bucket"
check "the bucket is listed" grep -q "$bucket" <(mc ls garage)
check "mirror up" mc mirror tree "garage/$bucket/tree"
check "mirror down" mc mirror "garage/$bucket/tree" down
# An empty file is a file.
check "the tree came back as it was" diff -r tree down
check "nothing differs" mc diff tree "garage/$bucket/tree"
check "cp up" mc cp tree/size/1048576 "garage/$bucket/one"
check "cat" mc_to one cat "garage/$bucket/one"
check_same "cat gives the bytes" tree/size/1048576 one
check "pipe, which knows no size" mc_from tree/size/20971520 pipe "garage/$bucket/piped"
check "cp down" mc cp "garage/$bucket/piped" piped
check_same "what was piped is equal" tree/size/20971520 piped
check "cat from an offset" mc_to part cat --offset 500 "garage/$bucket/one"
tail -c +501 tree/size/1048576 >expected
check_same "cat from an offset gives those bytes" expected part
check "cp with metadata" mc cp --attr "Content-Type=text/x-test;colour=blue" tree/size/1024 "garage/$bucket/meta"
check "stat shows them" grep -qi "text/x-test" <(mc stat "garage/$bucket/meta")
check "stat shows user metadata" grep -qi "blue" <(mc stat "garage/$bucket/meta")
check "copy on the server" mc cp "garage/$bucket/one" "garage/$bucket/copy/one"
check "find" grep -q copy/one <(mc find "garage/$bucket" --name one)
check_prints "du counts all" "$(($(find tree -type f | wc -l) + 4))" field objects du "garage/$bucket"
url=$(field share share download "garage/$bucket/one")
check "a shared URL" curl -fsS -o shared "$url"
check_same "the shared URL gives the bytes" tree/size/1048576 shared
check "move" mc mv "garage/$bucket/copy/one" "garage/$bucket/moved"
check_fails "what was moved is gone" "does not exist|not exist|not found" mc stat "garage/$bucket/copy/one"
rm -r tree/many/dir0
check "mirror removes what is gone" mc mirror --remove --overwrite tree "garage/$bucket/tree"
check_prints "as many files as here" "$(find tree -type f | wc -l)" line_count ls --recursive "garage/$bucket/tree"
mc alias set wrong "$ENDPOINT" "$AWS_ACCESS_KEY_ID" wrongwrongwrongwrong --api S3v4 --path on >/dev/null
check_fails "a wrong secret" "signature|does not match" mc ls wrong
check_fails "removing a bucket with objects" "not empty" mc rb "garage/$bucket"
check "keep versions" mc version enable "garage/$bucket"
for number in 1 2; do
    echo "$number" >"version$number"
    check "write version $number" mc cp "version$number" "garage/$bucket/versioned"
done
check "rm leaves a marker" mc rm "garage/$bucket/versioned"
check_fails "the file is gone" "does not exist|not exist|not found|delete marker" mc cat "garage/$bucket/versioned"
check_prints "two versions and a marker are there" 3 line_count ls --versions "garage/$bucket/versioned"
check "cat the first" mc_to old cat --version-id "$(field versionId ls --versions "garage/$bucket/versioned")" "garage/$bucket/versioned"
check_same "it is the first" version1 old
check "undo the removal" mc undo "garage/$bucket/versioned"
check "cat" mc_to newest cat "garage/$bucket/versioned"
check_same "it is the second" version2 newest
check "rm all versions" mc rm --versions --force "garage/$bucket/versioned"
check "none is left" test -z "$(mc ls --versions "garage/$bucket/versioned" 2>/dev/null)"
check "keep no more versions" mc version suspend "garage/$bucket"
check "rm" mc rm "garage/$bucket/meta"
check "rm all" mc rm --recursive --versions --force "garage/$bucket/tree"
check "remove the bucket with the rest" mc rb --force "garage/$bucket"
check_fails "the bucket is gone" "does not exist|not exist" mc ls "garage/$bucket"
