# What the shell flows share: checks that are counted, and data to move. Sourced by each flow.
#
# script/acceptance gives each flow: ENDPOINT (its node), ENDPOINTS (all nodes), WORK (an empty directory), the access key in the AWS variables,
# CLIENTS (a directory of programs), BASE_PORT (the 100 ports from BASE_PORT + 100 on are the flow's). A check prints one line, `ok - WHAT` or
# `not ok - WHAT`; the lines are counted.

set -uo pipefail
cd "$WORK"
exec 3>&1

passed() { printf 'ok - %s\n' "$1" >&3; }
failed() {
    printf 'not ok - %s\n' "$1" >&3
    [[ ! -s $WORK/last ]] || tail -n 30 "$WORK/last" | sed 's/^/    /' >&3
}

# check WHAT COMMAND...: the command must succeed. Its output stays in $WORK/last.
check() {
    local what=$1
    shift
    if "$@" >"$WORK/last" 2>&1; then passed "$what"; else failed "$what ($*)"; fi
}

# check_fails WHAT PATTERN COMMAND...: the command must fail and say PATTERN (extended regular expression).
check_fails() {
    local what=$1 pattern=$2
    shift 2
    if "$@" >"$WORK/last" 2>&1; then
        failed "$what: it succeeded ($*)"
    elif grep -Eq -e "$pattern" "$WORK/last"; then
        passed "$what"
    else
        failed "$what: failed, but without $pattern ($*)"
    fi
}

# check_prints WHAT EXPECTED COMMAND...: the command must succeed and print exactly EXPECTED.
check_prints() {
    local what=$1 expected=$2 found
    shift 2
    if ! found=$("$@" 2>"$WORK/last"); then
        failed "$what ($*)"
    elif [[ $found == "$expected" ]]; then
        passed "$what"
    else
        printf 'expected: %s\nfound:    %s\n' "$expected" "$found" >"$WORK/last"
        failed "$what ($*)"
    fi
}

# check_same WHAT FILE FILE: both must hold the same bytes.
check_same() {
    : >"$WORK/last"
    if [[ -f $2 && -f $3 && $(sha256sum <"$2") == "$(sha256sum <"$3")" ]]; then
        passed "$1"
    else
        ls -l "$2" "$3" >"$WORK/last" 2>&1
        failed "$1"
    fi
}

# make_data BYTES FILE: fresh noise.
make_data() {
    mkdir -p "$(dirname "$2")"
    head -c "$1" /dev/urandom >"$2"
}

# The sizes that matter: nothing, small, just over what is stored inline, one block, several parts.
SIZES=(0 1024 16385 1048576 20971520)
# With all that is small about 100 MB.
[[ -z ${ACCEPTANCE_ALL:-} ]] || SIZES+=(83886080)
