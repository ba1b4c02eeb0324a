# aws-cli 2: all that version 1 does.
AWS_CLI=$CLIENTS/aws-cli-2/aws
bucket=acceptance-aws-2
export AWS_PAGER=
source "$(dirname "$0")/aws-cli.sh"
