# git-annex: files go to a bucket in chunks and as they are, are dropped here and fetched back, also by a clone at another node; export of a tree.
#
# It signs the endpoint's name without the port, so that it works at HTTP's own ports only: relays on loopback lead from there to the nodes.
source "$(dirname "$0")/lib.sh"

bucket=acceptance-annex
export HOME=$WORK GIT_CONFIG_NOSYSTEM=1 LANG=C.UTF-8 GIT_ANNEX_DIR=$CLIENTS/git-annex PATH=$CLIENTS/git-annex:$PATH
git config --global user.name tester
git config --global user.email tester@flow.example
git config --global init.defaultBranch main
git config --global annex.jobs 2
other=${ENDPOINTS##* }
# Addresses of this run's own.
first_address=127.$((BASE_PORT / 256)).$((BASE_PORT % 256)).1 other_address=127.$((BASE_PORT / 256)).$((BASE_PORT % 256)).2
git config --global annex.security.allowed-ip-addresses "$first_address $other_address"
cat >relay.py <<'RELAY'
import asyncio, sys

async def copy(reader, writer):
    while content := await reader.read(1 << 16):
        writer.write(content)
        await writer.drain()
    writer.close()

async def relay(reader, writer):
    to = await asyncio.open_connection(*sys.argv[2].removeprefix("http://").split(":"))
    await asyncio.gather(copy(reader, to[1]), copy(to[0], writer), return_exceptions=True)

async def main():
    server = await asyncio.start_server(relay, sys.argv[1], 80)
    print("listens", flush=True)
    await server.serve_forever()

asyncio.run(main())
RELAY
relays=()
start_relay() {
    python3 relay.py "$1" "$2" >"relay-$1.log" 2>&1 &
    relays+=($!)
    for _ in {1..100}; do grep -q listens "relay-$1.log" && return; sleep 0.1; done
    cat "relay-$1.log" >&2
}
start_relay "$first_address" "$ENDPOINT"
start_relay "$other_address" "$other"
trap 'kill "${relays[@]}"' EXIT
api() { "$CLIENTS/venv/bin/aws" --endpoint-url "$ENDPOINT" s3api "$@" --output text; }
# remote COMMAND NAME ADDRESS PREFIX OPTION...: makes or enables a special remote.
remote() {
    git annex "$1" "$2" type=S3 encryption=none "bucket=$bucket" "host=$3" port=80 protocol=http \
        requeststyle=path region=garage signature=v4 "fileprefix=$4" autoenable=false "${@:5}"
}
object_count() { api list-objects-v2 --bucket "$bucket" --prefix "$1" --query 'length(Contents || `[]`)'; }
# Where each file is but here.
is_dropped() { ! find -L "$1" -type f -not -path '*/.git/*' | grep -q .; }

# Counted below.
SIZES=(0 1024 16385 1048576 20971520)
for size in "${SIZES[@]}"; do make_data "$size" "tree/size/$size"; done
for number in $(seq 12); do make_data "$((number * 1000))" "tree/many/dir$((number % 3))/file $number"; done
cp -r tree annex
cd annex || exit 1

check "a repository with the files" bash -c 'git init -q && git annex init first && git annex add . && git commit -qm files'
check "a remote in a bucket that it makes" remote initremote whole "$first_address" whole/
check "the files are copied to it" git annex copy --quiet --to whole
check_prints "each is one object, but for the description of the remote" 18 object_count whole/
check "a remote with chunks" remote initremote chunked "$first_address" chunked/ chunk=5MiB partsize=5MiB
check "the files are copied to it" git annex copy --quiet --to chunked
check_prints "the large one in four" 21 object_count chunked/
check "git annex drops them here, having asked both remotes" git annex drop --quiet --numcopies 2
check "none is left here" is_dropped .
check "they are fetched from the chunks" git annex get --quiet --from chunked
check "they are as they were" diff -r --exclude .git "$WORK/tree" .
check "all contents are checked" git annex fsck --quiet --from whole

check "a clone" git clone -q "$WORK/annex" "$WORK/clone"
cd "$WORK/clone" || exit 1
check "it finds the remote at another node" remote enableremote whole "$other_address" whole/
# It shows what the remote is, with an id to confirm that.
check "which its owner confirms" git annex verifyremote whole --safe "$(git annex verifyremote whole 2>&1 | sed -n 's/.*--safe \([^ ]*\).*/\1/p')"
check "it fetches from there alone" git annex get --quiet --from whole
check "they are as they were" diff -r --exclude .git "$WORK/tree" .
check "it removes a file from the bucket" git annex drop --quiet --from whole --force size/1024
check_prints "there is one less" 17 object_count whole/
check_fails "another fetch finds it gone" "unable to access|failed|not available" \
    env -C "$WORK/annex" bash -c 'git annex drop --quiet --force size/1024 && git annex get --quiet --from whole size/1024'

cd "$WORK/annex" || exit 1
check "fetch it from the chunks" git annex get --quiet size/1024
check "a remote for people, with a tree as it is" remote initremote tree "$first_address" tree/ exporttree=yes
check "export" git annex export --quiet main --to tree
check "the bucket has the files under their names" "$CLIENTS/venv/bin/aws" --endpoint-url "$other" s3 cp --recursive --no-progress "s3://$bucket/tree/" "$WORK/exported"
check "they are as they were" diff -r --exclude annex-uuid "$WORK/tree" "$WORK/exported"
git mv "many/dir1/file 1" renamed
git commit -qm renamed >"$WORK/last" 2>&1
check "export a change" git annex export --quiet main --to tree
check_prints "it is under its new name" 1000 api head-object --bucket "$bucket" --key tree/renamed --query ContentLength
check_fails "and not under the old one" 404 api head-object --bucket "$bucket" --key "tree/many/dir1/file 1"
chmod -R u+w "$WORK"
check "clean up" "$CLIENTS/venv/bin/aws" --endpoint-url "$ENDPOINT" s3 rb --force "s3://$bucket"
