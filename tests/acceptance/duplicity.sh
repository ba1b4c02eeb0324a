# duplicity: a full and an incremental backup, verified and restored, also through another node.
source "$(dirname "$0")/lib.sh"

bucket=acceptance-duplicity
export RCLONE_CONFIG_GARAGE_TYPE=s3 RCLONE_CONFIG_GARAGE_PROVIDER=Other RCLONE_CONFIG_GARAGE_ENV_AUTH=true RCLONE_CONFIG_GARAGE_REGION=garage
export RCLONE_CONFIG_GARAGE_ENDPOINT=$ENDPOINT HOME=$WORK
other=${ENDPOINTS##* }
target=boto3+s3://$bucket/backup
backup() { duplicity --no-encryption --no-print-statistics --archive-dir "$WORK/archive" --s3-endpoint-url "$ENDPOINT" "$@"; }
through_other() { duplicity --no-encryption --archive-dir "$WORK/archive-other" --s3-endpoint-url "$other" "$@"; }
chain_count() { through_other collection-status "$target" | grep -cE '^ +(Full|Incremental) '; }

for size in "${SIZES[@]}"; do make_data "$size" "tree/size/$size"; done
for number in $(seq 30); do make_data "$((number * 100))" "tree/many/dir$((number % 3))/file $number"; done

check "make a bucket" rclone mkdir "garage:$bucket"
check "a full backup" backup full --volsize 10 tree "$target"
check "verify it" backup verify --compare-data "$target" tree
make_data 5000 tree/many/new
rm tree/size/16385
check "an incremental backup" backup incremental tree "$target"
check_prints "both are listed through another node" 2 chain_count
check "restore through another node" through_other restore "$target" restored
check "it is the tree as it was" diff -r tree restored
check "restore one file" through_other restore --file-to-restore size/1048576 "$target" one
check_same "it is the same" tree/size/1048576 one
check "remove all but the newest chain" backup remove-all-but-n-full 1 --force "$target"
check "clean up" rclone purge "garage:$bucket"
