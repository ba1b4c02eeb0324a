# restic: a repository that is made, filled, checked, restored, and pruned.
source "$(dirname "$0")/lib.sh"

# A bucket of its own for each run: what restic leaves is a repository, and nobody deletes it.
bucket=acceptance-restic-$(basename "$WORK" | tr "A-Z." "a-z-")
export RESTIC_REPOSITORY=s3:$ENDPOINT/$bucket RESTIC_PASSWORD=acceptance RESTIC_CACHE_DIR=$WORK/cache
rs() { restic --quiet "$@"; }
snapshot_count() { restic snapshots --json | tr '{' '\n' | grep -c '"tree":'; }

for number in $(seq 20); do make_data $((number * 5000)) "tree/dir$((number % 4))/file$number"; done
make_data 30000000 tree/large
[[ -z ${ACCEPTANCE_ALL:-} ]] || make_data 70000000 tree/larger

check_fails "no repository yet" "unable to open|does not exist|Is there a repository" restic snapshots
check "init" rs init
check "back up" rs backup tree
cp -r tree first
make_data 5000000 tree/second
rm tree/dir1/file1
check "back up again" rs backup tree
check_prints "two snapshots" 2 snapshot_count
check "check, reading all data" rs check --read-data
check "restore the newest" rs restore latest --target restored
check "it is as it was" diff -r tree "restored/tree"
oldest=$(restic snapshots --json | tr ',' '\n' | sed -n 's/.*"short_id":"\([0-9a-f]*\)".*/\1/p' | head -n 1)
check "restore the first" rs restore "$oldest" --target restored-first
check "it is as it was then" diff -r first "restored-first/tree"
check "forget and prune" rs forget --keep-last 1 --prune
check "check after pruning" rs check --read-data
check "restore after pruning" rs restore latest --target restored-again
check "it is still as it was" diff -r tree "restored-again/tree"
check_fails "a wrong password" "wrong password" env RESTIC_PASSWORD=wrong restic snapshots
check "no lock is left" test -z "$(restic list locks 2>/dev/null)"
